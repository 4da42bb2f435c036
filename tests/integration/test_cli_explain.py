"""`kvzmq ping --explain`: each way of not reaching a server is told from the others."""

from __future__ import annotations

import errno
import http.server
import json
import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq
from click.testing import Result
from support.commands import command
from support.servers import PATIENCE_S, ServerProcess, free_port, wait_until
from support.shared_servers import SharedServers
from support.told import DEADLINES_S

import kvzmq
from kvzmq.catalog.server import CatalogServer


def explain(url: str, *options: str) -> Result:
    return command("-c", url, "--timeout", "60", "ping", "--explain", *options)


def assert_wrong(url: str, text: str) -> str:
    """Check that this, a pattern, is the one thing that is wrong; return the line.

    What takes all of the deadline is told after a short one: on a busy machine after a later one.
    """
    for timeout_s in DEADLINES_S:
        result = command("-c", url, "--timeout", str(timeout_s), "ping", "--explain")
        found = [line.removeprefix("WRONG  ") for line in result.stdout.splitlines() if line.startswith("WRONG")]
        if result.exit_code == 4 and len(found) == 1 and re.search(text, found[0]):
            return found[0]
    raise AssertionError(f"{text!r} is not the one thing that is wrong, exit code {result.exit_code}: {result.stdout}")


@contextmanager
def listening(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """Have `serve` deal with every connection, in a thread of its own."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


def test_another_table_than_before_is_told_by_its_lineage(tmp_path: Path) -> None:
    """Without a catalog: the command line has to say which table it was, or how its lineage begins."""
    with ServerProcess(tmp_path / "data") as server:
        lineage = json.loads(command("-c", server.url, "stats", "--json").stdout)["lineage"]
        assert f"lineage {lineage}" in explain(server.url).stdout
        for known in (lineage, lineage[:8].upper()):
            assert explain(server.url, "--lineage", known).exit_code == 0
            assert command("-c", server.url, "ping", "--lineage", known).exit_code == 0
        other = ("0" if lineage[0] != "0" else "1") + lineage[1:]
        result = explain(server.url, "--lineage", other)
        assert (
            result.exit_code == 4
            and f"WRONG  another table than before answers here: its lineage is {lineage}, not" in (result.stdout)
        )
        refused = command("-c", server.url, "ping", "--lineage", other)
        assert refused.exit_code == 4 and "another table than before" in refused.stderr
        assert command("-c", server.url, "ping", "--lineage", "table").exit_code == 2


def test_a_server_that_answers_is_walked_to_step_by_step(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data", binds=["tcp://127.0.0.1:0", f"ipc://{tmp_path}/sock"]) as server:
        for url in server.urls:
            result = explain(url)
            assert result.exit_code == 0 and "WRONG" not in result.stdout
            assert "speaks ZeroMQ, as a ROUTER" in result.stdout and "the table answers: kvzmq" in result.stdout
        assert "localhost is 127.0.0.1" in explain(server.url.replace("127.0.0.1", "localhost")).stdout.replace(
            "::1, ", ""
        )


def test_nobody_listens() -> None:
    assert_wrong(f"tcp://127.0.0.1:{free_port()}", re.escape("connection refused: nothing listens on port"))


def test_the_name_is_not_found() -> None:
    assert_wrong("tcp://no-such-host.invalid:5570", re.escape("the name no-such-host.invalid was not found"))


@pytest.mark.parametrize(
    "error, text",
    [
        (OSError(errno.EHOSTUNREACH, "No route to host"), "no route to 127.0.0.1 port 5570: No route to host"),
        (TimeoutError(), "no answer to the connection within 0.5 s: 127.0.0.1 is down, or a firewall"),
    ],
)
def test_there_is_no_way_to_the_machine(monkeypatch: pytest.MonkeyPatch, error: OSError, text: str) -> None:
    def refuse(*_: object) -> socket.socket:
        raise error

    monkeypatch.setattr(socket, "create_connection", refuse)
    assert_wrong("tcp://127.0.0.1:5570", re.escape(text))


def test_the_port_is_the_bridge(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data", bridge=True) as server:
        assert_wrong(f"tcp://127.0.0.1:{server.port}", re.escape("is the TCP bridge of a kvzmq server"))


def test_the_port_is_an_http_server() -> None:
    class Quiet(http.server.BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            assert_wrong(f"tcp://127.0.0.1:{server.server_port}", "is an HTTP server, not a kvzmq server$")
        finally:
            server.shutdown()


def test_the_port_is_of_another_protocol() -> None:
    def serve(connection: socket.socket) -> None:
        connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
        connection.recv(100)

    with listening(serve) as url:
        assert_wrong(url, re.escape("does not speak ZeroMQ: it says b'SSH-2.0-OpenSSH_9.2"))


def test_the_port_speaks_an_older_zeromq() -> None:
    """What libzmq 3 answers to a greeting: its signature, its version less one, and its socket type."""

    def serve(connection: socket.socket) -> None:
        connection.sendall(b"\xff" + bytes(8) + b"\x7f\x01\x05")
        connection.recv(100)

    with listening(serve) as url:
        assert_wrong(url, re.escape("speaks version 2 of ZMTP"))


def test_the_port_says_nothing() -> None:
    ended = threading.Event()
    with listening(lambda connection: ended.wait(2 * PATIENCE_S)) as url:  # type: ignore[arg-type]
        try:
            assert_wrong(url, re.escape("accepts the connection and says nothing"))
        finally:
            ended.set()


def test_the_port_hangs_up() -> None:
    with listening(lambda connection: connection.close()) as url:
        assert_wrong(url, "says nothing|closed the connection")


@pytest.mark.parametrize("kind, name", [(zmq.PUB, "that takes no clients of this type"), (zmq.REP, "of type REP")])
def test_the_port_is_another_kind_of_zeromq_socket(kind: int, name: str) -> None:
    with zmq.Context() as context, context.socket(kind) as sock:
        port = sock.bind_to_random_port("tcp://127.0.0.1")
        assert_wrong(f"tcp://127.0.0.1:{port}", re.escape(f"is a ZeroMQ socket {name}, not a kvzmq server"))


def test_the_port_is_another_programs_router() -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as sock:
        port = sock.bind_to_random_port("tcp://127.0.0.1")
        assert_wrong(f"tcp://127.0.0.1:{port}", r"no reply to a request within \d\S* s")


def test_the_server_asks_for_keys() -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as sock:
        _, secret = zmq.curve_keypair()
        sock.curve_secretkey = secret
        sock.curve_server = True
        port = sock.bind_to_random_port("tcp://127.0.0.1")
        assert_wrong(f"tcp://127.0.0.1:{port}", re.escape("asks for CURVE: give --curve-key"))


def test_the_server_is_stopped_while_it_greets() -> None:
    """Seen red with half a greeting taken for a whole one, of a mechanism without a name."""

    def greet(connection: socket.socket) -> None:
        with connection:
            connection.sendall(b"\xff" + bytes(8) + b"\x7f\x03")
            while connection.recv(4096):
                pass

    with listening(greet) as url:
        assert_wrong(url, re.escape("is stopped"))


def test_the_server_is_stopped(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data") as server:
        os.kill(server.pid, signal.SIGSTOP)
        try:
            assert_wrong(server.url, re.escape("is stopped"))
        finally:
            os.kill(server.pid, signal.SIGCONT)


def test_the_ipc_socket_is_not_there_or_left_behind(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    assert_wrong(f"ipc://{path}", re.escape(f"there is no {path}"))
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(path))
    assert_wrong(f"ipc://{path}", re.escape("has gone"))


@pytest.fixture
def catalog() -> Iterator[CatalogServer]:
    server = CatalogServer("127.0.0.1", 0)
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            server.step(0.05)

    thread = threading.Thread(target=serve)
    thread.start()
    yield server
    stop.set()
    thread.join()
    server.close()


def test_the_catalog_knows_nothing(catalog: CatalogServer) -> None:
    found = assert_wrong(f"catalog://127.0.0.1:{catalog.port}/robots", "no hashtable with the project name 'robots'")
    assert "kvzmq server --project NAME" in found


def test_the_catalog_is_not_there() -> None:
    assert_wrong(f"catalog://127.0.0.1:{free_port()}/robots", re.escape("is `kvzmq catalog` running there?"))


def test_the_port_is_the_catalogs(catalog: CatalogServer) -> None:
    text = f"it is a catalog, so try -c catalog://127.0.0.1:{catalog.port}/PROJECT"
    assert_wrong(f"tcp://127.0.0.1:{catalog.port}", re.escape(text))


def test_the_catalog_leads_to_the_server(catalog: CatalogServer, tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data", "--project", "robots", "--catalog", f"127.0.0.1:{catalog.port}") as server:
        url = f"catalog://127.0.0.1:{catalog.port}/robots"
        wait_until(lambda: "no hashtable" not in explain(url).stdout, what="the announcement")
        result = explain(url, "--json")
        assert result.exit_code == 0 and server.url in result.stdout, result.stdout


def announce(catalog: CatalogServer, **fields: object) -> None:
    data = json.dumps({"type": "hashtable", "project": "robots", **fields}).encode()
    before = len(catalog.catalog)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.sendto(data, ("127.0.0.1", catalog.port))
    wait_until(lambda: len(catalog.catalog) > before, what="the announcement")


def test_all_servers_of_a_project_are_gone_to_and_two_tables_told(catalog: CatalogServer, tmp_path: Path) -> None:
    """Seen to fail with the first server's steps alone."""
    lineages = ("1a2b3c4d" + "0" * 24, "5e6f7081" + "0" * 24)
    dead, url = free_port(), f"catalog://127.0.0.1:{catalog.port}/robots"
    with ServerProcess(tmp_path / "data") as server:
        announce(catalog, port=1, endpoint=server.url, lineage=lineages[0], revision=7)
        announce(catalog, port=2, endpoint=f"tcp://127.0.0.1:{dead}", lineage=lineages[0])
        announce(catalog, port=3, endpoint="ipc:///tmp/x")
        result = explain(url)
        assert result.exit_code == 0
        lines = result.stdout.splitlines()
        assert lines[0] == f"ok     the catalog knows, of {url}, 3 servers, the newest first"
        wrong_lines = [line for line in lines if line.startswith("WRONG")]
        assert len(wrong_lines) == 2
        assert "only with the bridge's port 3" in wrong_lines[0]
        assert f"tcp://127.0.0.1:{dead}, announced " in wrong_lines[1] and "connection refused" in wrong_lines[1]
        (answers,) = [line for line in lines if ": answers" in line]
        assert f"{server.url}, announced " in answers
        assert " s ago at revision 7, lineage 1a2b3c4d: answers, at revision 0" in answers
        assert f"ok     clients that connect now come to {server.url}" in lines
        announce(catalog, port=4, endpoint=f"tcp://127.0.0.1:{dead}", lineage=lineages[1])
        result = explain(url)
        assert result.exit_code == 0 and "the table answers" in result.stdout
        assert "WRONG  2 tables are announced as robots (lineages 1a2b3c4d, 5e6f7081)" in result.stdout


def test_two_copies_of_one_table_that_both_answer_are_told(catalog: CatalogServer, tmp_path: Path) -> None:
    url = f"catalog://127.0.0.1:{catalog.port}/robots"
    with ServerProcess(tmp_path / "a") as first, ServerProcess(tmp_path / "b") as second:
        for port, server in enumerate((first, second), start=1):
            announce(catalog, port=port, endpoint=server.url, lineage="1a2b3c4d" * 4, epoch=f"{port}" * 32)
        assert "WRONG  2 servers answer with the lineage 1a2b3c4d" in explain(url).stdout
        second.kill()
        assert "servers answer with the lineage" not in explain(url).stdout


def test_servers_of_one_table_are_listed_with_how_far_they_are_behind(catalog: CatalogServer) -> None:
    url = f"catalog://127.0.0.1:{catalog.port}/robots"
    with SharedServers(2) as servers:
        first, second = servers

        for port, server in enumerate(servers, start=1):
            lineage = server.store.identity()["lineage"]
            announce(catalog, port=port, endpoint=server.url, lineage=lineage, epoch=f"{port}" * 32)
        assert "copies of" not in explain(url).stdout, "servers that share a log are no copies"
        second.log.is_cut_off = True
        with kvzmq.connect(first.url) as table:
            table.insert_many({"a": 1, "b": 2})
        with kvzmq.connect(second.url, 3.0) as table, pytest.raises(kvzmq.Unavailable):
            table.size()
        lines = explain(url).stdout.splitlines()
        assert any(first.url in line and "at revision 2, 0 changes behind the newest" in line for line in lines), lines
        assert any(second.url in line and "at revision 0, 2 changes behind the newest" in line for line in lines)
        assert any(line.startswith("WRONG") and second.url in line and "cut off from its log" in line for line in lines)


def test_a_project_whose_servers_are_all_gone(catalog: CatalogServer) -> None:
    announce(catalog, port=1, endpoint=f"tcp://127.0.0.1:{free_port()}")
    assert_wrong(f"catalog://127.0.0.1:{catalog.port}/robots", re.escape("connection refused"))


def test_of_several_servers_one_that_answers_is_enough(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data") as server:
        result = command("-c", f"tcp://127.0.0.1:{free_port()},{server.url}", "ping", "--explain")
        assert (
            result.exit_code == 0
            and "WRONG  connection refused" in result.stdout
            and "the table answers" in result.stdout
        )
