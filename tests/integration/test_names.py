"""Servers that are found by a project's name: several, stopped, killed, silent, and a catalog that is not there."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from support.client_shells import SHELLS, open_shell, shell_of
from support.servers import PATIENCE_S, ServerProcess, free_port, hold_port, wait_until
from support.told import told

import kvzmq
from kvzmq.catalog import AnotherTable, CatalogUnreachable, Entry, NoSuchProject, find, find_servers, query
from kvzmq.catalog.server import CatalogServer
from kvzmq.client.asyncio import connection as aio_connection
from kvzmq.client.core.endpoints import Endpoints
from kvzmq.client.core.targets import Target
from kvzmq.client.sync import connection

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "clients"))

from HashTableClient import NotInCatalog, find_in_catalog


class Names:
    """A catalog in a thread of this process, which can end and come back."""

    def __init__(self) -> None:
        self.port = 0
        self._end: threading.Event
        self._held: socket.socket | None = None
        self.start()

    def start(self) -> None:
        server = CatalogServer("127.0.0.1", self.port)
        self.port = server.port
        self._end = end = threading.Event()

        def serve() -> None:
            with contextlib.closing(server):
                while not end.is_set():
                    server.step(0.05)

        self._thread = threading.Thread(target=serve)
        self._thread.start()

    def stop(self) -> None:
        self._end.set()
        self._thread.join()
        if self._held is None:  # else a connection of another test may be given it meanwhile
            self._held = hold_port(self.port)

    def close(self) -> None:
        self.stop()
        if self._held is not None:
            self._held.close()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"catalog://{self.address}/robots"

    def known(self) -> list[Entry]:
        """Return the servers of the project, newest first."""
        try:
            return find_servers("robots", "127.0.0.1", self.port, PATIENCE_S)
        except NoSuchProject:
            return []

    def await_server(self, server: ServerProcess) -> None:
        """Wait until a server is the newest: it was announced, and no other one in the same second or later."""
        wait_until(
            lambda: [each.url("127.0.0.1") for each in self.known()][:1] == [server.url], what="the announcement"
        )

    def announce(self, **fields: object) -> None:
        """Announce what is no server."""
        data = json.dumps({"type": "hashtable", "project": "robots", **fields}).encode()
        before = len(query("127.0.0.1", self.port, PATIENCE_S))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.sendto(data, ("127.0.0.1", self.port))
        wait_until(lambda: len(query("127.0.0.1", self.port, PATIENCE_S)) > before, what="the announcement")


@pytest.fixture
def names() -> Iterator[Names]:
    started = Names()
    yield started
    started.close()


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


def serve(stack: contextlib.ExitStack, names: Names, data: Path, **arguments: Any) -> ServerProcess:
    """Start a server of the project, and wait until it is the newest."""
    options = ("--project", "robots", "--catalog", names.address)
    server = stack.enter_context(ServerProcess(data, *options, **arguments))
    names.await_server(server)
    return server


# --- What is announced


def test_servers_without_a_bridge_are_all_found_and_have_no_port(
    names: Names, stack: contextlib.ExitStack, tmp_path: Path
) -> None:
    """Seen to fail with the ZeroMQ port announced as the bridge's."""
    first = serve(stack, names, tmp_path / "a")
    second = serve(stack, names, tmp_path / "b")
    assert [(entry.url("127.0.0.1"), entry.port) for entry in names.known()] == [(second.url, 0), (first.url, 0)]
    with pytest.raises(NoSuchProject):
        find("hashtable", "robots", "127.0.0.1", names.port, PATIENCE_S)


def test_a_bridge_is_announced_with_its_port(names: Names, stack: contextlib.ExitStack, tmp_path: Path) -> None:
    server = serve(stack, names, tmp_path / "a", bridge=True)
    found = find("hashtable", "robots", "127.0.0.1", names.port, PATIENCE_S)
    assert (found.port, found.url("127.0.0.1")) == (server.port, server.url)


def test_an_ipc_endpoint_is_not_announced_and_the_server_says_so(names: Names, tmp_path: Path) -> None:
    options = ("--project", "robots", "--catalog", names.address)
    with ServerProcess(tmp_path / "a", *options, binds=[f"ipc://{tmp_path}/sock"]) as server:
        assert kvzmq.connect(server.url).ping() >= 0
        assert "not announced as robots: no other machine reaches ipc://" in server.stderr
        assert server.terminate() == 0
    assert names.known() == []


def test_an_ipc_endpoint_beside_others_is_left_out(names: Names, stack: contextlib.ExitStack, tmp_path: Path) -> None:
    options = ("--project", "robots", "--catalog", names.address)
    binds = [f"ipc://{tmp_path}/sock", "tcp://0.0.0.0:0"]
    server = stack.enter_context(ServerProcess(tmp_path / "a", "--insecure", *options, binds=binds))
    port = server.urls[1].rpartition(":")[2]
    wait_until(names.known, what="the announcement")
    (found,) = names.known()
    assert found.endpoint == f"tcp://0.0.0.0:{port}"
    assert found.url("127.0.0.1") == f"tcp://127.0.0.1:{port}"
    table = stack.enter_context(kvzmq.connect(names.url))
    table.insert("k", 1)


def test_a_loopback_endpoint_in_a_catalog_elsewhere_is_warned_of(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "a", "--project", "robots", "--catalog", "192.0.2.1:9097") as server:
        assert f"announced as robots, but only this machine reaches {server.url}" in server.stderr


def test_a_client_of_the_bridge_never_comes_to_a_zeromq_port(
    names: Names, stack: contextlib.ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to fail with the ZeroMQ port announced as the bridge's."""
    monkeypatch.setenv("CATALOG_HOST", "127.0.0.1")
    monkeypatch.setenv("CATALOG_PORT", str(names.port))
    bridged = serve(stack, names, tmp_path / "a", bridge=True)
    serve(stack, names, tmp_path / "b")
    assert {port for _, port in find_in_catalog("robots")} == {bridged.port}
    assert bridged.terminate() == 0
    wait_until(lambda: len(names.known()) == 1, what="the withdrawal")
    with pytest.raises(NotInCatalog):
        find_in_catalog("robots")


# --- Servers that stop


@pytest.mark.parametrize("bridge", [True, False])
def test_a_stopped_server_withdraws_its_entry(
    names: Names, stack: contextlib.ExitStack, tmp_path: Path, bridge: bool
) -> None:
    """Seen to fail with the announcer closed without a word."""
    server = serve(stack, names, tmp_path / "a", bridge=bridge)
    assert server.terminate() == 0
    wait_until(lambda: not names.known(), what="the withdrawal")
    assert all(entry.type == "stopped" for entry in query("127.0.0.1", names.port, PATIENCE_S))
    server.start()
    names.await_server(server)


def test_a_server_stops_though_its_catalog_has_gone(names: Names, stack: contextlib.ExitStack, tmp_path: Path) -> None:
    server = serve(stack, names, tmp_path / "a")
    names.stop()
    try:
        assert server.terminate() == 0
    finally:
        names.start()


# --- Clients


@pytest.mark.parametrize("kind", SHELLS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP])
def test_a_client_goes_on_to_the_next_server_within_its_deadline(
    names: Names, stack: contextlib.ExitStack, tmp_path: Path, kind: str, number: signal.Signals
) -> None:
    """Seen to fail, but for SIGTERM, with the newest entry alone: it stays in the catalog for a quarter of an hour."""
    older = serve(stack, names, tmp_path / "a")
    newest = serve(stack, names, tmp_path / "b")
    stack.enter_context(open_shell(kind, older.url)).insert("where", "older")
    newest.signal(number)
    if number == signal.SIGSTOP:
        stack.callback(newest.signal, signal.SIGCONT)
    else:
        newest.wait_for_exit()
    table = stack.enter_context(open_shell(kind, names.url))
    assert table.lookup("where") == "older"


@pytest.mark.parametrize("kind", SHELLS)
def test_a_server_that_falls_silent_is_left_for_the_next(
    names: Names, stack: contextlib.ExitStack, tmp_path: Path, kind: str
) -> None:
    with ServerProcess(tmp_path / "a") as first, kvzmq.connect(first.url) as table:
        table.insert("where", "older")
    shutil.copytree(tmp_path / "a", tmp_path / "b")  # of the same lineage
    serve(stack, names, tmp_path / "a")
    newest = serve(stack, names, tmp_path / "b")
    table = stack.enter_context(open_shell(kind, names.url))
    table.insert("where", "newest")
    newest.signal(signal.SIGSTOP)
    stack.callback(newest.signal, signal.SIGCONT)
    assert table.lookup("where") == "older"


@pytest.mark.parametrize("kind", SHELLS)
def test_a_socket_that_shakes_hands_and_never_answers_is_left_for_the_next(
    names: Names, stack: contextlib.ExitStack, tmp_path: Path, kind: str
) -> None:
    """Seen to fail with the catalog's order taken as it is after every lookup."""
    serve(stack, names, tmp_path / "a")
    context = stack.enter_context(zmq.Context())
    mute = stack.enter_context(context.socket(zmq.ROUTER))
    port = mute.bind_to_random_port("tcp://127.0.0.1")
    names.announce(port=port, endpoint=f"tcp://127.0.0.1:{port}")
    table = stack.enter_context(open_shell(kind, names.url))
    table.insert("k", 1)


@pytest.mark.parametrize("kind", SHELLS)
def test_dead_and_senseless_entries_are_passed_over(
    names: Names, stack: contextlib.ExitStack, tmp_path: Path, kind: str
) -> None:
    serve(stack, names, tmp_path / "a")
    senseless = [
        "tcp://:1",
        "tcp://[::1",
        "tcp://127.0.0.1:99999",
        "inproc://x",
        "catalog://127.0.0.1:1/robots",
        "a b:1",
    ]
    for port, endpoint in enumerate([*senseless, f"tcp://127.0.0.1:{free_port()}"], start=1):
        names.announce(port=port, endpoint=endpoint, lineage=endpoint, epoch=[endpoint], uuid={})
    table = stack.enter_context(open_shell(kind, names.url))
    table.insert("k", 1)


@pytest.mark.parametrize("kind", SHELLS)
@pytest.mark.parametrize("how", ["down", "empty"])
def test_a_client_finds_its_server_again_without_the_catalogs_help(
    names: Names, stack: contextlib.ExitStack, tmp_path: Path, kind: str, how: str
) -> None:
    """Seen to fail with the known servers forgotten."""
    server = serve(stack, names, tmp_path / "a")
    table = stack.enter_context(open_shell(kind, names.url))
    table.insert("k", 1)
    names.stop()
    if how == "empty":
        names.start()
    else:
        stack.callback(names.start)
    server.kill()
    with pytest.raises((kvzmq.Timeout, kvzmq.CatalogError)):
        table.lookup("k", timeout=2.5)  # time enough to have given the server up, and to have asked the catalog
    server.options = []
    server.start()
    assert table.increment("k") == 2


@pytest.mark.parametrize("kind", SHELLS)
def test_a_client_that_knows_its_table_is_led_to_no_other(names: Names, kind: str) -> None:
    """Seen to fail with the lineage not passed on to the lookup."""
    ours, other = "0a" * 16, "0b" * 16

    def led_to(lineage: str | None) -> str:
        endpoints = Endpoints([Target(names.url)])
        if shell_of(kind)[0] == "asyncio":
            asyncio.run(aio_connection.resolve_endpoint(endpoints, lineage))
        else:
            connection.resolve_endpoint(endpoints, lineage, PATIENCE_S)
        return endpoints.current

    names.announce(port=1, endpoint="tcp://127.0.0.1:1", lineage=ours)
    names.announce(port=2, endpoint="tcp://127.0.0.1:2", lineage=other)
    assert led_to(None) == "tcp://127.0.0.1:2"
    assert led_to(ours) == "tcp://127.0.0.1:1"
    with pytest.raises(AnotherTable, match="project robots is announced by 2 servers of another table"):
        led_to("0c" * 16)


@pytest.mark.parametrize("kind", SHELLS)
def test_a_client_that_has_used_a_table_goes_to_no_other(
    names: Names, stack: contextlib.ExitStack, tmp_path: Path, kind: str
) -> None:
    other = serve(stack, names, tmp_path / "a")
    used = serve(stack, names, tmp_path / "b")
    table = stack.enter_context(open_shell(kind, names.url))
    table.insert("k", 1)
    assert used.terminate() == 0
    told(
        lambda timeout_s: table.lookup("k", timeout=timeout_s),
        "project robots is announced by 1 server of another table",
        kvzmq.CatalogError,
    )
    assert stack.enter_context(kvzmq.connect(other.url)).size() == 0
    used.start()
    assert table.lookup("k") == 1


def test_a_servers_lineage_and_epoch_are_announced(names: Names, stack: contextlib.ExitStack, tmp_path: Path) -> None:
    server = serve(stack, names, tmp_path / "a")
    told = stack.enter_context(kvzmq.connect(server.url)).stats()
    (entry,) = names.known()
    assert (entry.lineage, entry.epoch) == (told["lineage"], told["epoch"])
    server.kill()
    server.start()
    wait_until(lambda: names.known()[0].epoch != entry.epoch, what="the announcement")
    assert names.known()[0].lineage == entry.lineage


def test_a_lookup_in_vain_says_where_it_was_and_what_the_catalog_said(
    names: Names, stack: contextlib.ExitStack, tmp_path: Path
) -> None:
    server = serve(stack, names, tmp_path / "a")
    table = stack.enter_context(kvzmq.connect(names.url))
    table.insert("k", 1)
    names.stop()
    stack.callback(names.start)
    server.kill()
    error = told(lambda timeout_s: table.lookup("k", timeout=timeout_s), "cannot reach the catalog", kvzmq.Timeout)
    assert f"no connection to {server.url} of {names.url}" in str(error)


def test_a_client_without_catalog_or_server_gets_the_catalogs_error(stack: contextlib.ExitStack) -> None:
    table = stack.enter_context(kvzmq.connect(f"catalog://127.0.0.1:{free_port()}/robots"))
    told(lambda timeout_s: table.lookup("k", timeout=timeout_s), "robots|catalog", CatalogUnreachable)
