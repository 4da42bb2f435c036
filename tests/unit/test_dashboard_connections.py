"""A connection to the dashboard whose peer does nothing: it is ended, and gives way to who asks for something."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

import pytest
import uvicorn
from uvicorn.server import ServerState

from kvzmq.dashboard import rows, run
from kvzmq.dashboard.reader import Reader
from kvzmq.dashboard.rows import Rows
from kvzmq.dashboard.run import PatientProtocol
from kvzmq.dashboard.turns import Busy, Turns

ASK = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
ANSWER_BYTES = 32 << 20
WAIT_S = 60.0

Peer = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def app(scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
    """Answer / with a word, and anything else with more than the kernel takes for who does not read."""
    pieces = [b"here"] if scope["path"] == "/" else [b"x" * ANSWER_BYTES, b"x"]
    headers = [(b"content-length", str(sum(map(len, pieces))).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for piece in pieces:
        await send({"type": "http.response.body", "body": piece, "more_body": piece is not pieces[-1]})


class Served:
    """An app behind PatientProtocol, on a port of the loopback."""

    async def __aenter__(self) -> Served:
        config = uvicorn.Config(app, lifespan="off", log_level="critical", limit_concurrency=run.CONNECTIONS_MAX + 1)
        config.load()
        state = ServerState()
        self.connections = state.connections
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: PatientProtocol(config, state, {}), "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for connection in list(self.connections):
            assert isinstance(connection, PatientProtocol)
            connection.give_up()

    async def connect(self, sent: bytes = b"") -> Peer:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
        peer = await asyncio.open_connection(sock=sock, limit=1024)
        peer[1].write(sent)
        return peer


async def ended(peer: Peer) -> bool:
    """Wait for the end of a connection; True if something came before."""
    try:
        found = await asyncio.wait_for(peer[0].read(1 << 20), WAIT_S)
    except ConnectionError:
        found = b""
    peer[1].close()
    return bool(found)


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: "])
def test_who_asks_for_nothing_is_given_up(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Red with uvicorn's own protocol, which waits for the head of a request without end."""
    monkeypatch.setattr(run, "HEAD_S_MAX", 0.05)

    async def ask() -> None:
        async with Served() as served:
            assert not await ended(await served.connect(sent))

    asyncio.run(ask())


def test_who_reads_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Red with uvicorn's own protocol, which waits for the kernel to take the answer without end."""
    monkeypatch.setattr(run, "READ_S_MAX", 0.05)

    async def ask() -> None:
        async with Served() as served:
            _, writer = await served.connect(ASK.replace(b"/ ", b"/large ", 1))
            deadline_s = asyncio.get_running_loop().time() + WAIT_S
            seen = False
            while not seen or served.connections:
                assert asyncio.get_running_loop().time() < deadline_s
                seen = seen or bool(served.connections)
                await asyncio.sleep(0)
            writer.close()

    asyncio.run(ask())


def test_who_waits_longest_gives_way_when_all_places_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Red without it: 300 connections that said nothing had everybody else answered 503, for good."""
    monkeypatch.setattr(run, "CONNECTIONS_MAX", 8)

    async def ask() -> None:
        async with Served() as served:
            silent = [await served.connect(b"GET" if number % 2 else b"") for number in range(24)]
            for _ in range(3):
                reader, writer = await served.connect(ASK)
                assert await asyncio.wait_for(reader.readline(), WAIT_S) == b"HTTP/1.1 200 OK\r\n"
                writer.close()
            assert not await ended(silent[0]), "the one that has waited longest"
            for _, writer in silent[1:]:
                writer.close()

    asyncio.run(ask())


def test_turns_are_taken_one_after_the_other_and_who_is_too_many_is_told() -> None:
    """Red with a lock alone: everybody who ever asked waited."""
    turns = Turns("histories", 2, 1)
    within, most = 0, 0

    async def take(go_on: asyncio.Event) -> None:
        nonlocal within, most
        async with turns.one():
            within += 1
            most = max(most, within)
            await go_on.wait()
            within -= 1

    async def ask() -> None:
        go_on = asyncio.Event()
        tasks = [asyncio.create_task(take(go_on)) for _ in range(3)]
        while within < 2:
            await asyncio.sleep(0)
        with pytest.raises(Busy, match="histories"):
            await take(go_on)
        go_on.set()
        await asyncio.gather(*tasks)
        assert most == 2
        await take(go_on)

    asyncio.run(ask())


def test_the_table_is_asked_for_few_queries_at_a_time() -> None:
    """Red with each browser's query asked at once: 20 of them kept the table's other clients waiting for seconds."""

    class SlowTable:
        asked = most = 0

        async def query(self, subkey: str, subvalue: Any) -> list[Any]:
            self.asked += 1
            self.most = max(self.most, self.asked)
            await asyncio.sleep(0)
            self.asked -= 1
            return []

    table = SlowTable()

    async def ask() -> Sequence[Any]:
        of = Rows(lambda: cast("Reader", table))
        found: Sequence[Any] = await asyncio.gather(*(of.query("a", "1") for _ in range(40)), return_exceptions=True)
        return found

    found = asyncio.run(ask())
    answered = [each for each in found if isinstance(each, dict)]
    assert table.most == rows.COSTLY_MAX
    assert len(answered) == rows.COSTLY_MAX + rows.COSTLY_WAITING_MAX
    assert all(isinstance(each, (dict, Busy)) for each in found)
