"""Servers that die, hang, lie, move; networks that cut and stall: nothing lost, nothing repeated."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.client_shells import SHELLS, open_shell
from support.proxy import Proxy
from support.servers import KVZMQ, PATIENCE_S, ServerProcess, end_with_the_tests, free_port, line_of, wait_until
from support.told import told

import kvzmq

pytestmark = pytest.mark.usefixtures("transport")


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path / "data") as server:
        yield server


class Storm:
    """Increments from threads and from tasks, while something bad happens to the server."""

    def __init__(self, urls: list[str]) -> None:
        self.stop = threading.Event()
        self.done = [0] * 8
        self.failed: list[BaseException] = []
        self.threads = [threading.Thread(target=self._blocking, args=(n, urls[n % len(urls)])) for n in range(4)]
        self.threads.append(threading.Thread(target=lambda: asyncio.run(self._asyncio(urls))))

    def _blocking(self, number: int, url: str) -> None:
        try:
            with kvzmq.connect(url, timeout=60) as table:
                while not self.stop.is_set():
                    table.increment("n")
                    self.done[number] += 1
                    table.insert(f"k{number}", self.done[number])
                    assert table.lookup(f"k{number}") == self.done[number]
                    table.remove(f"k{number}")  # never a KeyError, however often it is sent
        except BaseException as error:
            self.failed.append(error)

    async def _asyncio(self, urls: list[str]) -> None:
        async def work(number: int, table: kvzmq.AsyncClient) -> None:
            while not self.stop.is_set():
                await table.increment("n")
                self.done[number] += 1
                await table.insert(f"k{number}", self.done[number])
                assert await table.lookup(f"k{number}") == self.done[number]
                await table.remove(f"k{number}")

        try:
            async with contextlib.AsyncExitStack() as clients:
                tables = [await clients.enter_async_context(kvzmq.connect_async(url, 60)) for url in (urls * 4)[:4]]
                await asyncio.gather(*(work(4 + at, table) for at, table in enumerate(tables)))
        except BaseException as error:
            self.failed.append(error)

    def __enter__(self) -> Storm:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join(PATIENCE_S)
        assert not any(thread.is_alive() for thread in self.threads), "a client hangs"


def test_a_server_killed_every_second_loses_and_repeats_nothing(
    server: ServerProcess, full: bool, count: Callable[[str, int], None]
) -> None:
    """SIGKILL under increments from eight clients of both kinds: the final count is exact.

    Seen red with a new number for a retried request: KeyErrors, and counts too high.
    """
    kills = 60 if full else 6
    with Storm([server.url]) as storm:
        for _ in range(kills):
            time.sleep(1.0)
            server.kill()
            server.start()
        progress = sum(storm.done)
        wait_until(lambda: storm.failed or (sum(storm.done) > progress + 50 and min(storm.done) > 0))
    assert not storm.failed
    with kvzmq.connect(server.url) as table:
        assert table["n"] == sum(storm.done)
    count("kills of the server", kills)
    count("increments by eight clients, all counted once", sum(storm.done))


def test_a_network_that_cuts_and_stalls_loses_and_repeats_nothing(
    server: ServerProcess, full: bool, count: Callable[[str, int], None]
) -> None:
    """A proxy resets connections at random moments and places, and holds bytes back longer than the retry waits."""
    rounds = 200 if full else 20
    chance = random.Random(5)
    with Proxy(port_of(server.url)) as proxy:
        with Storm([proxy.url, server.url]) as storm:
            for number in range(rounds):
                time.sleep(chance.random() * 0.3)
                if number % 5 == 4:
                    proxy.stall()
                    time.sleep(1.2)
                    proxy.flow()
                elif number % 2:
                    proxy.cut()
                else:
                    proxy.cut_after(chance.randrange(1, 2000))
            progress = sum(storm.done)
            wait_until(lambda: storm.failed or sum(storm.done) > progress + 50)
        assert not storm.failed
        count("cuts of connections", proxy.cuts)
    with kvzmq.connect(server.url) as table:
        assert table["n"] == sum(storm.done)
    count("increments by eight clients, all counted once", sum(storm.done))


@pytest.mark.parametrize("kind", SHELLS)
def test_a_remove_whose_reply_was_lost_returns_also_after_a_restart(kind: str, server: ServerProcess) -> None:
    """The first attempt is executed, its reply cut off, the server killed; the retry gets the first result.

    Seen red with sessions forgotten at a restart.
    """
    with Proxy(port_of(server.url)) as proxy, open_shell(kind, proxy.url) as table:
        table.insert("k", 1)
        began = table.revision
        proxy.cut_after(0)  # the reply never arrives, the request does
        proxy.cut_after(1)
        removed = threading.Thread(target=lambda: outcome.append(table.remove("k")))
        outcome: list[Any] = []
        removed.start()
        with kvzmq.connect(server.url) as other:
            wait_until(lambda: "k" not in other)
        proxy.refuse()
        server.restart()
        proxy.flow()
        removed.join(PATIENCE_S)
        assert outcome == [None]
        with kvzmq.connect(server.url) as other:
            other.ping()
            assert other.revision == began + 1


@pytest.mark.parametrize("kind", SHELLS)
def test_endpoints_are_tried_in_turn(kind: str, server: ServerProcess) -> None:
    """The first is dead, the second alive; then a third one takes over when the second dies."""
    dead = f"tcp://127.0.0.1:{free_port()}"
    with Proxy(port_of(server.url)) as second, Proxy(port_of(server.url)) as third:
        third.refuse()
        with open_shell(kind, f"{dead},{second.url},{third.url}") as table:
            table.insert("k", 1)
            second.refuse()
            third.flow()
            table.increment("k")
            assert table.lookup("k") == 2


@pytest.mark.parametrize("kind", SHELLS)
def test_a_server_that_hangs_is_left_for_another(kind: str, server: ServerProcess) -> None:
    """A stopped process keeps its connections: only silence tells. Seen red without SILENT_S."""
    with (
        Proxy(port_of(server.url)) as first,
        Proxy(port_of(server.url)) as second,
        open_shell(kind, f"{first.url},{second.url}") as table,
    ):
        table.insert("k", 1)
        used = first if first.connections else second
        used.stall()
        assert table.increment("k") == 2
        assert first.connections and second.connections


@pytest.mark.parametrize("kind", SHELLS)
def test_a_server_that_never_answers_is_a_timeout_or_unknown(kind: str, server: ServerProcess) -> None:
    with open_shell(kind, server.url) as table:
        table.insert("k", 1)
        os.kill(server.pid, signal.SIGSTOP)
        try:
            began_s = time.monotonic()
            with pytest.raises(kvzmq.Timeout, match="did not say"):
                table.lookup("k", timeout=1.0)
            with pytest.raises(kvzmq.OutcomeUnknown, match="once"):
                table.increment("k", timeout=1.0)
            assert time.monotonic() - began_s < 30
        finally:
            os.kill(server.pid, signal.SIGCONT)
        wait_until(lambda: table.lookup("k") in (1, 2))
        assert table.increment("k") in (2, 3)


@pytest.mark.parametrize("kind", SHELLS)
@pytest.mark.parametrize("greeting", [b"", b"HTTP/1.0 400 Bad Request\r\n\r\n", b"\xff" + b"\0" * 63])
def test_something_else_on_the_port_is_a_timeout_that_says_so(kind: str, greeting: bytes) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
    kept = []
    stop = threading.Event()

    def serve() -> None:
        listener.settimeout(0.1)
        while not stop.is_set():
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                connection.sendall(greeting)
                if greeting:
                    connection.close()
                kept.append(connection)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        text = f"{url}.*does not speak ZeroMQ" if b"HTTP" in greeting else url
        with open_shell(kind, url) as table:
            told(lambda timeout_s: table.insert("k", 1, timeout=timeout_s), text, kvzmq.Timeout)
    finally:
        stop.set()
        thread.join()
        listener.close()
        for connection in kept:
            connection.close()


@pytest.mark.parametrize("kind", SHELLS)
def test_a_catalog_says_where_the_server_is_and_where_it_has_moved(kind: str, tmp_path: Path) -> None:
    """The client asks again when the server has gone. Seen red with the first answer kept."""
    with contextlib.ExitStack() as stack:
        name = run_catalog(stack)
        url = f"catalog://{name}/robots"
        with open_shell(kind, url) as table:
            told(lambda timeout_s: table.insert("k", 1, timeout=timeout_s), "robots", kvzmq.CatalogError)
        options = ("--project", "robots", "--catalog", name)
        server = stack.enter_context(ServerProcess(tmp_path / "data", *options, bridge=True))
        table = stack.enter_context(open_shell(kind, url))
        table.insert("k", 1)
        server.kill()
        server.binds = ["tcp://127.0.0.1:0"]
        server.start()
        assert table.increment("k") == 2


def run_catalog(stack: contextlib.ExitStack) -> str:
    """Run `kvzmq catalog` on a free port until the stack ends."""
    process = stack.enter_context(
        subprocess.Popen(
            [*KVZMQ, "catalog", "--host", "127.0.0.1", "--port", "0"],
            stdout=subprocess.PIPE, preexec_fn=end_with_the_tests,
        )
    )  # fmt: skip
    stack.callback(process.kill)
    return f"127.0.0.1:{int(line_of(process).removeprefix(b'Listening on port '))}"


def test_a_server_that_is_not_there_costs_a_moment_where_there_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red when each dead URL took a second: a call with a shorter deadline failed by chance.

    There are so many of them that seconds add up to what no busy machine takes.
    """
    monkeypatch.setattr("kvzmq.client.core.endpoints._any_of", lambda count: 0)
    dead = f"tcp://127.0.0.1:{free_port()}," * 70
    with ServerProcess(tmp_path / "data") as server, kvzmq.connect(f"{dead}{server.url}", timeout=60.0) as table:
        assert table.size() == 0
