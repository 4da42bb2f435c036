"""What the client makes of its socket's events, whatever socket it is: a scripted one here."""

from __future__ import annotations

import asyncio
import os
import select
import selectors
from collections.abc import Iterator

import pytest
from support.scripted_socket import ScriptedSocket

from kvzmq import errors
from kvzmq.client.asyncio.connection import Wakeups
from kvzmq.client.core.calls import Calls
from kvzmq.client.core.channel import CONNECT_S, FAILED_S
from kvzmq.client.core.descriptor import Descriptor
from kvzmq.client.core.endpoints import Endpoints
from kvzmq.client.core.session_channel import SessionChannel
from kvzmq.client.core.socket import Change
from kvzmq.client.core.targets import Target
from kvzmq.protocol import msgpack
from kvzmq.protocol.limits import SILENCE_S_MAX

URLS = ["tcp://a:1", "tcp://b:1"]
OURS, OTHER = "0a" * 16, "0b" * 16


class Opened:
    """A channel with scripted sockets, opened at time 0."""

    def __init__(self, urls: list[str], lineage: str | None = None) -> None:
        self.sockets: list[ScriptedSocket] = []
        self.channel = SessionChannel(Endpoints([Target(url) for url in urls]), self._open, lineage)
        self.channel.open(0.0)

    def _open(self, target: Target) -> ScriptedSocket:
        self.sockets.append(ScriptedSocket(target.url))
        return self.sockets[-1]

    @property
    def socket(self) -> ScriptedSocket:
        return self.sockets[-1]

    def answer_hello(self, lineage: str, now_s: float = 0.0) -> None:
        seq = msgpack.decode_value(self.socket.sent[-1])[1]
        self.channel.receive(msgpack.encode_value((seq, 7, [(0, {"lineage": lineage})])), now_s)


@pytest.fixture(autouse=True)
def first_url_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvzmq.client.core.endpoints.random.randrange", lambda count: 0)


def test_a_new_connection_begins_with_hello_and_then_what_waits() -> None:
    opened = Opened(URLS[:1])
    opened.channel.session.submit(Calls().lookup("k"))
    opened.channel.send_waiting(0.0)
    assert opened.socket.sent == []
    opened.socket.happen(Change.MADE)
    opened.channel.send_waiting(0.0)
    assert opened.socket.asked() == ["hello", "lookup"]


def test_nothing_is_sent_on_another_connection_than_the_one_that_is_known() -> None:
    """A socket connects anew by itself, perhaps to another table. Seen red without the look at events before a send."""
    opened = Opened(URLS[:1])
    opened.socket.happen(Change.MADE)
    opened.channel.poll_events(0.0)
    opened.answer_hello(OURS)
    opened.socket.happen(Change.LOST)
    opened.socket.happen(Change.MADE)
    opened.channel.session.submit(Calls().lookup("k"))
    opened.channel.send_waiting(0.0)
    assert opened.socket.asked() == ["hello", "hello"]
    opened.answer_hello(OURS)
    opened.channel.send_waiting(0.0)
    assert opened.socket.asked() == ["hello", "hello", "lookup"]


def test_a_call_by_itself_is_not_sent_on_another_connection_either() -> None:
    """Nor before `hello` is answered. Seen red without the look at events, and where it need not be."""
    opened = Opened(URLS[:1])
    assert not opened.channel.send_alone(Calls().lookup("k"), 0.0)
    opened.socket.happen(Change.MADE)
    opened.channel.poll_events(0.0)
    opened.answer_hello(OURS)
    assert opened.channel.send_alone(call := Calls().lookup("k"), 0.0)
    opened.channel.session.receive(msgpack.encode_value((msgpack.decode_value(opened.socket.sent[-1])[1], 7, [(0, 1)])))
    assert call.value == 1
    opened.socket.happen(Change.LOST)
    opened.socket.happen(Change.MADE)
    assert not opened.channel.send_alone(Calls().lookup("k"), 0.0)
    assert opened.socket.asked() == ["hello", "lookup", "hello"]
    assert not opened.channel.send_alone(Calls().lookup("k"), 0.0)
    opened.answer_hello(OTHER)
    assert not opened.channel.send_alone(Calls().lookup("k"), 0.0)
    assert opened.socket.asked() == ["hello", "lookup", "hello"]


def test_before_a_write_alone_a_socket_that_does_not_reconnect_itself_is_asked() -> None:
    """A read that is lost with the connection is sent again; a write would be unknown. Seen red without the look."""
    opened = Opened(URLS[:1])
    opened.socket.reconnects_itself = False
    opened.socket.happen(Change.MADE)
    opened.channel.poll_events(0.0)
    opened.answer_hello(OURS)
    session = opened.channel.session
    session.submit(Calls().insert("k", 1))
    opened.channel.send_waiting(0.0)
    for _ in ("open", "insert"):
        session.receive(msgpack.encode_value((msgpack.decode_value(opened.socket.sent[-1])[1], 7, [(0, None)])))
        opened.channel.send_waiting(0.0)
    assert opened.socket.asked() == ["hello", "open", "insert"]
    opened.socket.happen(Change.LOST)
    assert opened.channel.send_alone(Calls().lookup("k"), 0.0)
    assert opened.socket.asked()[3:] == ["lookup"]
    session.receive(msgpack.encode_value((msgpack.decode_value(opened.socket.sent[-1])[1], 7, [(0, 1)])))
    assert not opened.channel.send_alone(Calls().insert("k", 2), 0.0)
    assert opened.socket.asked()[3:] == ["lookup"]


def test_a_call_by_itself_that_the_connection_does_not_take_waits() -> None:
    opened = Opened(URLS[:1])
    opened.socket.happen(Change.MADE)
    opened.channel.poll_events(0.0)
    opened.answer_hello(OURS)
    opened.socket.takes = False
    assert opened.channel.send_alone(Calls().lookup("k"), 0.0)
    assert opened.socket.asked() == ["hello"]
    opened.socket.takes = True
    opened.channel.send_waiting(0.0)
    assert opened.socket.asked() == ["hello", "lookup"]


def test_another_table_is_asked_nothing() -> None:
    opened = Opened(URLS[:1], OURS)
    opened.socket.happen(Change.MADE)
    call = Calls().lookup("k")
    opened.channel.session.submit(call)
    opened.channel.send_waiting(0.0)
    opened.answer_hello(OTHER)
    assert opened.socket.asked() == ["hello"]
    assert isinstance(call.error, errors.TableChanged)


@pytest.mark.parametrize(
    ("change", "patience_s"), [(None, CONNECT_S), (Change.FAILED, FAILED_S), (Change.REFUSED, FAILED_S)]
)
def test_the_next_server_is_tried_when_this_one_does_not_answer(change: Change | None, patience_s: float) -> None:
    opened = Opened(URLS)
    if change is not None:
        opened.socket.happen(change)
    assert not opened.channel.tick(patience_s * 0.9)
    assert opened.channel.tick(patience_s * 1.1)
    opened.channel.open(patience_s)
    assert [socket.endpoint for socket in opened.sockets] == URLS
    assert opened.sockets[0].closed


def test_a_lone_server_that_is_not_there_is_not_given_up() -> None:
    opened = Opened(URLS[:1])
    opened.socket.happen(Change.FAILED)
    assert not opened.channel.tick(1000.0)


def test_a_connected_server_that_says_nothing_is_given_up() -> None:
    opened = Opened(URLS[:1])
    opened.channel.session.submit(Calls().lookup("k"))
    opened.socket.happen(Change.MADE)
    opened.channel.send_waiting(0.0)
    assert not opened.channel.tick(SILENCE_S_MAX * 0.9)
    assert opened.channel.tick(SILENCE_S_MAX * 1.1)


def test_what_is_wrong_with_the_server_is_said() -> None:
    opened = Opened(URLS[:1])
    describe = opened.channel.describe
    assert describe() == "no connection to tcp://a:1: is a server running there?"
    for change, reason, said in (
        (
            Change.FAILED,
            "connection reset by peer",  # by a server that was killed before it took the connection
            "no connection to tcp://a:1, connection reset by peer: is a server running there?",
        ),
        (
            Change.FAILED,
            "connection refused",
            "no connection to tcp://a:1, connection refused: is a server running there?",
        ),
        (Change.REFUSED, "asks for CURVE security", "what answers at tcp://a:1 asks for CURVE security"),
        (Change.FAILED, "connection refused", "what answers at tcp://a:1 asks for CURVE security"),
        (Change.MADE, "", "connected to tcp://a:1, which is too busy to take the request"),
        (Change.LOST, "", "no connection to tcp://a:1: is a server running there?"),
    ):
        opened.socket.happen(change, reason)
        opened.channel.poll_events(0.0)
        assert describe() == said


# ---- descriptors


@pytest.fixture
def pipes() -> Iterator[list[tuple[int, int]]]:
    pipes = [os.pipe() for _ in range(2)]
    yield pipes
    for fd in {fd for pipe in pipes for fd in pipe}:
        os.close(fd)


def test_a_watchs_descriptor_follows_those_of_its_socket(pipes: list[tuple[int, int]]) -> None:
    """They change while a socket connects, and where something is half sent."""
    descriptor = Descriptor()
    socket = ScriptedSocket("tcp://a:1")

    def ready() -> bool:
        return bool(select.select([descriptor.fileno()], [], [], 0)[0])

    (first, to_first), (second, to_second) = pipes
    os.write(to_first, b"x")
    socket.descriptors = {first: selectors.EVENT_READ}
    descriptor.follow(socket)
    assert ready()
    socket.descriptors = {second: selectors.EVENT_READ}
    descriptor.follow(socket)
    assert not ready()
    socket.descriptors = {second: selectors.EVENT_READ, to_second: selectors.EVENT_WRITE}
    descriptor.follow(socket)
    assert ready()
    descriptor.follow(None)
    assert not ready()
    descriptor.close()


def test_an_event_loop_follows_the_descriptors_of_a_socket(pipes: list[tuple[int, int]]) -> None:
    """Seen red with descriptors that are looked up once."""
    (first, to_first), (second, to_second) = pipes
    socket = ScriptedSocket("tcp://a:1")

    async def main() -> None:
        called = asyncio.Event()
        wakeups = Wakeups(called.set)

        async def is_called() -> bool:
            called.clear()
            for _ in range(3):  # turns of the loop, each of which looks at the descriptors
                await asyncio.sleep(0)
            return called.is_set()

        socket.descriptors = {first: selectors.EVENT_READ}
        wakeups.start(socket)
        assert await is_called()  # for what came before
        assert not await is_called()
        os.write(to_first, b"x")
        assert await is_called()
        socket.descriptors = {second: selectors.EVENT_READ}
        wakeups.follow(socket)
        assert not await is_called()
        socket.descriptors = {second: selectors.EVENT_READ, to_second: selectors.EVENT_WRITE}
        wakeups.follow(socket)
        assert await is_called()
        wakeups.stop()
        assert not await is_called()

    asyncio.run(main())
