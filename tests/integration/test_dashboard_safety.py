"""Who may ask the dashboard, and what it bounds: without a browser."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.commands import command
from support.dashboards import DashboardProcess
from support.servers import KVZMQ, PATIENCE_S, ServerProcess, wait_until

import kvzmq

PATHS = ("/", "/clients", "/static/main.js", "/events", "/api/clients", "/api/rows", "/nothing")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("table") / "data") as running:
        with kvzmq.connect(running.url) as table:
            table.insert_many({f"row{number}": "x" * 1000 for number in range(1000)})
        yield running


@pytest.fixture(scope="module")
def dashboard(server: ServerProcess) -> Iterator[DashboardProcess]:
    with DashboardProcess(server.url) as running:
        wait_until(lambda: b"requests_per_s" in running.get("/api/clients").body, what="its connections and figures")
        yield running


@pytest.mark.parametrize("path", PATHS)
def test_a_name_that_leads_here_is_refused_on_every_path(dashboard: DashboardProcess, path: str) -> None:
    """DNS rebinding: the browser still sends the name of the site. Seen red with any Host let through."""
    for host in ("evil.example", f"evil.example:{dashboard.port}", "127.0.0.1.evil.example", "localhost.evil.example",
                 "10.0.0.1", "user@127.0.0.1", "", "[::2]", "127.0.0.1/evil"):  # fmt: skip
        answer = dashboard.get(path, Host=host)
        assert answer.status in (400, 421), (host, answer.status)
        assert b"kvzmq-" not in answer.body and b"row1" not in answer.body
    for host in (f"127.0.0.1:{dashboard.port}", f"localhost:{dashboard.port}", "LOCALHOST", "[::1]:1"):
        assert dashboard.get(path, Host=host).status in (200, 404), host


@pytest.mark.parametrize("path", PATHS)
def test_a_page_of_another_site_gets_nothing(dashboard: DashboardProcess, path: str) -> None:
    """Seen red with the origin looked at for events alone."""
    own = f"127.0.0.1:{dashboard.port}"
    for origin in (
        "http://evil.example",
        "null",
        "file://",
        f"http://localhost:{dashboard.port + 1}",
        f"http://{own}.x",
    ):
        answer = dashboard.get(path, Host=own, Origin=origin)
        assert answer.status == 403 and "access-control-allow-origin" not in answer.headers, origin
    for site in ("cross-site", "same-site"):
        assert dashboard.get(path, Host=own, Sec_Fetch_Site=site, Sec_Fetch_Mode="no-cors").status == 403
    assert dashboard.get(path, Host=own, Origin=f"http://{own}", Sec_Fetch_Site="same-origin").status in (200, 404)


@pytest.mark.parametrize("path", PATHS)
def test_every_answer_has_a_strict_policy(dashboard: DashboardProcess, path: str) -> None:
    for answer in (dashboard.get(path), dashboard.get(path, Host="evil.example")):
        policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert answer.headers["x-content-type-options"] == "nosniff" and answer.headers["x-frame-options"] == "DENY"
        assert (
            not {name for name in answer.headers if name.startswith("access-control-")}
            and "server" not in answer.headers
        )


def test_it_only_reads(dashboard: DashboardProcess) -> None:
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS"):
        for path in PATHS:
            assert dashboard.get(path, method).status in (403, 405), (method, path)
    for path in PATHS:
        assert dashboard.get(path, "POST", b"x").status in (403, 404, 405), path


def test_files_are_only_those_of_the_page(dashboard: DashboardProcess) -> None:
    for path in ("/static/../app.py", "/static/..%2fapp.py", "/static/%2e%2e/app.py", "/charts/../../etc/passwd",
                 "/static/%00", "/static/", "/charts/package.json", "//etc/passwd"):  # fmt: skip
        assert dashboard.get(path).status in (400, 404, 421), path


def test_what_is_asked_for_is_bounded_and_checked(dashboard: DashboardProcess) -> None:
    for path in ("/api/rows?prefix=" + "x" * 70_000, "/api/row", "/api/query?subkey=a", "/api/changes?after=-1",
                 "/api/changes?after=%F0%9F%98%80"):  # fmt: skip
        assert dashboard.get(path).status in (400, 414, 431), path[:40]
    page = dashboard.get("/api/rows?prefix=row")
    assert page.status == 200 and len(page.body) < 1 << 20


def test_few_traces_are_taken_in_at_a_time(dashboard: DashboardProcess) -> None:
    """Red with any number: 60 of 16 MiB that did not end had the dashboard hold 673 MB."""
    head = f"POST /api/trace HTTP/1.1\r\nHost: 127.0.0.1:{dashboard.port}\r\nContent-Length: 1000\r\n\r\n"
    unfinished = [socket.create_connection(("127.0.0.1", dashboard.port)) for _ in range(2)]
    try:
        for each in unfinished:
            each.sendall(head.encode() + b"x")

        def refused() -> bool:
            answer = dashboard.get("/api/trace", "POST", b"")
            return answer.status == 503 and b"for others" in answer.body

        wait_until(refused, what="a third trace is refused")
    finally:
        for each in unfinished:
            each.close()
    wait_until(lambda: dashboard.get("/api/trace", "POST", b"").status == 200, what="room for a trace")


def test_where_others_reach_it_everybody_shows_a_token(server: ServerProcess, tmp_path: Path) -> None:
    refused = subprocess.run(
        [*KVZMQ, "-c", server.url, "dashboard", "--bind", "0.0.0.0:0"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert refused.returncode == 3 and "--token-file" in refused.stderr
    token = tmp_path / "token"
    token.write_text("correct-horse-battery-staple\n")
    shown = "Bearer correct-horse-battery-staple"
    token.chmod(0o600)
    with DashboardProcess(server.url, "--token-file", str(token), "--allow-host", "kv.example") as guarded:
        for path in PATHS:
            assert guarded.get(path).status == 401, path
            assert guarded.get(path, Authorization="Bearer wrong").status == 401
            assert guarded.get(f"{path}?token=wrong").status == 401
            assert guarded.get(path, Authorization=shown).status in (200, 404)
            assert guarded.get(path, Host="evil.example", Authorization=shown).status == 421
        entered = guarded.get("/?token=correct-horse-battery-staple")
        cookie = entered.headers["set-cookie"]
        assert entered.status == 303 and entered.headers["location"] == "/"
        assert "httponly" in cookie.lower() and "samesite=strict" in cookie.lower() and "correct" not in cookie
        assert guarded.get("/", Cookie=cookie.partition(";")[0]).status == 200
        assert guarded.get("/", Cookie=cookie.partition(";")[0], Host="kv.example").status == 200
        assert guarded.get("/", Cookie="kvzmq-dashboard=0").status == 401
        assert "correct" not in guarded.stderr


def test_the_name_in_the_address_that_it_prints_is_one_that_it_answers_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red when it printed http://NAME:PORT/ with the machine's name, and answered 421 there."""
    token = tmp_path / "token"
    token.write_text("correct-horse-battery-staple\n")
    token.chmod(0o600)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        monkeypatch.setattr("kvzmq.dashboard.run.listen", lambda host, port: listening)
        monkeypatch.setattr("socket.gethostname", lambda: "Robot-7.lab")
        statuses = []

        def serve(app: Any, *_: object, **__: object) -> None:
            for name in ("robot-7.lab:5580", "evil.example"):
                statuses.append(asyncio.run(status_of(app, name)))

        monkeypatch.setattr("kvzmq.dashboard.run.serve", serve)
        done = command("dashboard", "--bind", "0.0.0.0:5580", "--token-file", str(token))
        port = listening.getsockname()[1]
    assert f"http://Robot-7.lab:{port}/" in done.stdout, done.output
    assert statuses == [401, 421], "the token is asked for, the other name refused"


async def status_of(app: Any, host: str) -> int:
    """Ask an ASGI application for its page by this Host, and return the status."""
    statuses: list[int] = []

    async def send(message: Any) -> None:
        statuses.append(message.get("status", 0))

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {"type": "http", "method": "GET", "path": "/", "raw_path": b"/", "query_string": b"", "http_version": "1.1",
             "headers": [(b"host", host.encode())], "scheme": "http", "root_path": ""}  # fmt: skip
    await app(scope, receive, send)
    return statuses[0]


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


OWN_DESCRIPTORS_MAX = 6
"""By how many the dashboard's own may differ: its client connects again, a page is being read."""


def test_the_first_event_has_all_that_was_kept(dashboard: DashboardProcess) -> None:
    """A page shows the last hour as soon as it opens. Seen red with a stream that began with the latest point."""
    wait_until(lambda: dashboard.points_kept() >= 5, what="five points at once")


def test_browsers_that_do_not_read_are_bounded_and_the_others_go_on(dashboard: DashboardProcess) -> None:
    """They are ended after a while, and meanwhile cost little."""
    before_bytes, before = resident_bytes(dashboard.pid), descriptors(dashboard.pid)
    deaf = [dashboard.follow(4096) for _ in range(30)]
    reading = dashboard.follow()
    ticks, deadline_s = 0, time.monotonic() + PATIENCE_S
    while ticks < 10:
        assert time.monotonic() < deadline_s, "the one that reads is held up"
        ready, _, _ = select.select([reading], [], [], 1.0)
        ticks += reading.recv(1 << 20).count(b"event: tick") if ready else 0
    assert resident_bytes(dashboard.pid) - before_bytes < 32 << 20
    for connection in deaf:
        connection.close()
    reading.close()
    wait_until(lambda: descriptors(dashboard.pid) <= before + OWN_DESCRIPTORS_MAX, what="closing what has gone")


def test_followers_beyond_the_bound_are_told_to_come_later(dashboard: DashboardProcess) -> None:
    before = descriptors(dashboard.pid)

    def are_bounded() -> bool:
        followers = [dashboard.follow() for _ in range(80)]
        try:
            statuses = [connection.recv(12)[9:12] for connection in followers]
            assert statuses.count(b"200") <= 64 and set(statuses) <= {b"200", b"503"}, statuses
            assert dashboard.get("/").status == 200
            return statuses.count(b"200") == 64  # fewer while places of an earlier test are being given back
        finally:
            for connection in followers:
                connection.close()

    wait_until(are_bounded, what="64 followers and no more")
    wait_until(lambda: descriptors(dashboard.pid) <= before + OWN_DESCRIPTORS_MAX, what="closing what has gone")

    def has_room() -> bool:
        with dashboard.follow() as another:
            return another.recv(12)[9:12] == b"200"

    wait_until(has_room, what="room for another")


def test_it_stops_on_sigterm_with_browsers_connected(server: ServerProcess) -> None:
    """At once and without a word. Seen red with streams that had to be cancelled: a traceback for each."""
    with DashboardProcess(server.url) as own:
        with own.follow() as follower:
            assert b"200 OK" in follower.recv(4096)
            assert own.terminate() in (0, -15)
        assert "Traceback" not in own.stderr, own.stderr


def test_it_starts_before_the_server_and_says_that_it_is_silent(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data") as late:
        late.kill()
        with DashboardProcess(late.url) as early:
            assert early.get("/").status == 200
            assert early.get("/api/clients").body.startswith(b'{"clients":null')
            late.start()
            wait_until(lambda: b"requests_per_s" in early.get("/api/clients").body, what="its figures")
