"""`--metrics`: the pages, who may see them, and that nobody who asks can hold anything up."""

from __future__ import annotations

import contextlib
import errno
import json
import re
import socket
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.servers import PATIENCE_S, wait_until
from support.stepped import Stepped

from kvzmq import errors
from kvzmq.server.exposition import CONTENT_TYPE_LATEST, PLAIN, render
from kvzmq.server.metrics import Metrics
from kvzmq.server.scrape import CONNECTIONS_MAX, DEADLINE_S, STALE_S, Scrape

ROOT = Path(__file__).parents[2]


class Pages:
    """Pages whose clock stands still unless told to."""

    def __init__(self, token: bytes | None = None) -> None:
        self.now_s = 100.0
        self.rendered = 0
        self.scrape = Scrape("127.0.0.1", 0, self.render, "text/plain", token, clock=lambda: self.now_s)
        self.base = self.scrape.endpoint.removesuffix("/metrics")

    def render(self, figures: Mapping[str, Any]) -> bytes:
        self.rendered += 1
        return json.dumps(dict(figures)).encode()

    def get(self, path: str, headers: Mapping[str, str] | None = None, method: str = "GET") -> tuple[int, str]:
        request = urllib.request.Request(self.base + path, headers=dict(headers or {}), method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def close(self) -> None:
        close_and_join(self.scrape)

    def connect(self) -> socket.socket:
        host, port = self.base.removeprefix("http://").rsplit(":", 1)
        return socket.create_connection((host, int(port)), timeout=60)


@pytest.fixture(autouse=True)
def interval_of_switches() -> Iterator[None]:
    """Other tests go on with the one there was."""
    interval_s = sys.getswitchinterval()
    yield
    sys.setswitchinterval(interval_s)


@pytest.fixture
def pages() -> Iterator[Pages]:
    with contextlib.closing(Pages()) as found:
        yield found


def close_and_join(scrape: Scrape) -> None:
    """Close the pages and wait for their thread: it may hold its sockets a moment longer."""
    scrape.close()
    scrape._thread.join(PATIENCE_S)
    assert not scrape._thread.is_alive()


def families(stats: Mapping[str, Any]) -> dict[str, Any]:
    return {family.name: family for family in text_string_to_metric_families(render(stats).decode())}


def test_prometheus_reads_every_figure() -> None:
    with Stepped(metrics=Metrics()) as table:
        peer = table.zmq()
        table.call(peer, "insert", "a", 1)
        table.call(peer, "lookup", "ghost")
        stats = table.server.describe()
        found = families(stats)
    samples = {
        (sample.name, tuple(sorted(sample.labels.values()))): sample.value
        for each in found.values()
        for sample in each.samples
    }
    assert samples["kvzmq_operations_total", ("insert",)] == 1 and samples["kvzmq_rows", ()] == 1
    assert samples["kvzmq_operation_errors_total", ("NoSuchKey", "lookup")] == 1
    assert samples["kvzmq_log_sync_seconds_count", ()] == 1 and samples["kvzmq_storage_trouble", ()] == 0
    assert samples["kvzmq_operation_latency_seconds_count", ("insert",)] == 1
    buckets = [sample for sample in found["kvzmq_operation_latency_seconds"].samples
               if sample.name.endswith("_bucket") and sample.labels["operation"] == "insert"]  # fmt: skip
    assert [one.value for one in buckets] == sorted(one.value for one in buckets) and buckets[-1].value == 1
    assert [one.labels["le"] for one in buckets][:3] == ["1e-06", "2e-06", "5e-06"]
    assert all(name.startswith("kvzmq") for name in found)


def test_every_plain_figure_of_stats_is_shown_or_left_out_on_purpose() -> None:
    left_out = {
        "version", "pid", "lineage", "epoch", "indexes", "cpu_user_s", "cpu_system_s", "memory_bytes_max", "operations",
        "storage_trouble", "by_operation", "step", "disk", "bounds",
    }  # fmt: skip
    with Stepped(metrics=Metrics()) as table:
        stats = table.server.describe()
    assert stats.keys() - PLAIN.keys() == left_out - {"storage_trouble"}
    compactor = {
        "disk_bytes", "disk_free_bytes", "log_bytes", "checkpoint_bytes", "compaction_running", "compactions",
        "compactions_failed", "compaction_trouble",
        "etcd_members_total", "etcd_members_alive", "etcd_has_leader", "etcd_no_space", "etcd_corrupt",
        "etcd_file_bytes", "etcd_in_use_bytes", "etcd_quota_bytes", "etcd_room_bytes", "etcd_reserved_bytes",
    }  # fmt: skip
    assert PLAIN.keys() - stats.keys() == compactor


def test_every_metric_of_dashboard_and_alerts_exists() -> None:
    with Stepped(metrics=Metrics()) as table:
        table.call(table.zmq(), "lookup", "ghost")
        page = render(table.server.describe() | dict.fromkeys(PLAIN, 1)).decode()
    known = {re.split(r"[{ ]", line)[0] for line in page.splitlines() if not line.startswith("#")}
    for path in (ROOT / "ops" / "alerts.yml", ROOT / "ops" / "grafana-dashboard.json"):
        text = path.read_text().replace("kvzmq_rows, instance", "kvzmq_rows")
        used = set(re.findall(r"\bkvzmq_\w+", text))
        assert len(used) > 10 and used - known == set(), path
    json.loads((ROOT / "ops" / "grafana-dashboard.json").read_text())


def test_ready_and_health_say_what_is_wrong(pages: Pages) -> None:
    assert pages.get("/health")[0] == 200, "a server that still recovers is not to be restarted"
    assert pages.get("/ready") == (503, "not ready: the log is being read\n") == pages.get("/metrics")
    pages.scrape.refresh({"keys": 3})
    assert pages.get("/ready") == pages.get("/health") == (200, "ok\n")
    assert pages.get("/metrics") == (200, '{"keys": 3}')
    pages.scrape.refresh({"storage_trouble": "no room"})
    assert pages.get("/ready")[0] == 503 and "kvzmq ping" in pages.get("/ready")[1]
    assert pages.get("/health")[0] == 200, "a restart makes no room on a disk"
    pages.scrape.refresh({})
    pages.now_s += STALE_S + 1
    assert pages.get("/health") == (503, "stuck: the loop has not turned for 16 s\n") == pages.get("/ready")


def test_anything_else_is_an_error_and_the_next_one_is_served(pages: Pages) -> None:
    pages.scrape.refresh({})
    assert pages.get("/other")[0] == 404 and pages.get("/metrics", method="POST")[0] == 405
    for rubbish in (b"rubbish\r\n\r\n", b"\x00" * 10_000, b"GET /metrics HTTP/1.1\r\n" + b"a: b\r\n" * 2000, b""):
        with pages.connect() as connection:
            try:
                connection.sendall(rubbish)
                connection.shutdown(socket.SHUT_WR)
                assert connection.recv(1000)[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 200", b"")
            except OSError as error:
                assert error.errno in (errno.ECONNRESET, errno.ENOTCONN, errno.EPIPE), "it had not read all of it"
    assert pages.get("/metrics")[0] == 200


def test_the_metrics_need_the_token_and_health_does_not() -> None:
    with contextlib.closing(Pages(b"sesame")) as pages:
        pages.scrape.refresh({})
        for headers in ({}, {"Authorization": "Bearer other"}, {"Authorization": "sesame"}, {"Other": "Bearer sesame"}):
            assert pages.get("/metrics", headers)[0] == 401
        assert pages.get("/metrics", {"authorization": "bearer sesame"})[0] == 200 == pages.get("/health")[0]


def test_who_is_slow_is_dropped(pages: Pages) -> None:
    """Red when each byte began a deadline of its own, and with a thread for each connection."""
    pages.scrape.refresh({})
    threads = set(threading.enumerate())
    slow = [pages.connect() for _ in range(CONNECTIONS_MAX // 2)]
    try:
        for each in slow:
            each.sendall(b"GET /health HTT")
        assert set(threading.enumerate()) <= threads, "others' may have ended"

        def feed() -> bool:
            pages.now_s += DEADLINE_S / 20
            for each in list(slow):
                try:
                    each.sendall(b"P")
                    each.settimeout(0.01)
                    each.recv(1)
                except TimeoutError:
                    continue
                except OSError:
                    pass
                slow.remove(each)
                each.close()
            return not slow

        wait_until(feed, what="the end of all slow connections")
        pages.scrape.refresh({})
        assert pages.get("/health")[0] == 200
    finally:
        for each in slow:
            each.close()


def test_who_connects_and_says_nothing_keeps_nobody_waiting(pages: Pages) -> None:
    """Red when each connection had to end before another was served: the clock that ends them stands still here."""
    pages.scrape.refresh({})
    silent = [pages.connect() for _ in range(2 * CONNECTIONS_MAX)]
    try:
        for each in silent[::2]:
            with contextlib.suppress(OSError):  # it has given way already
                each.sendall(b"GET /health HTT")
        for _ in range(3):
            assert pages.get("/health")[0] == 200
        ended = 0
        for each in silent:
            each.settimeout(PATIENCE_S if ended < CONNECTIONS_MAX else 0.01)
            with contextlib.suppress(TimeoutError):
                ended += not _received(each)
        assert ended >= CONNECTIONS_MAX, "as many are open as the limit says"
    finally:
        for each in silent:
            each.close()


def _received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(1)
    except ConnectionResetError:
        return b""


def test_the_page_of_metrics_is_made_once_for_what_the_loop_has_left(pages: Pages) -> None:
    """Whoever asks again and again takes no processor from the loop for it. Red with a page made for each request."""
    for number in range(2):
        pages.scrape.refresh({"keys": number})
        for _ in range(3):
            assert pages.get("/metrics") == (200, f'{{"keys": {number}}}')
        assert pages.rendered == number + 1


def test_other_machines_do_not_reach_it_unless_that_is_said() -> None:
    for host in ("0.0.0.0", "::"):
        with pytest.raises(errors.CannotListen, match=r"open to whoever reaches it.*127\.0\.0\.1"):
            Scrape(host, 0, render, CONTENT_TYPE_LATEST)
    opened = Scrape("0.0.0.0", 0, render, CONTENT_TYPE_LATEST, open_to_others=True)
    close_and_join(opened)
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(errors.CannotListen, match="choose another --metrics"),
    ):
        Scrape("127.0.0.1", taken.getsockname()[1], render, CONTENT_TYPE_LATEST)
