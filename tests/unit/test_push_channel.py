"""How a watch looks for its table among several servers, over a scripted socket."""

from __future__ import annotations

from typing import Any

import pytest
from support.scripted_socket import ScriptedSocket

from kvzmq import errors
from kvzmq.client.core.calls import Calls
from kvzmq.client.core.channel import CONNECT_S, FAILED_S
from kvzmq.client.core.endpoints import Endpoints
from kvzmq.client.core.push_channel import PushChannel
from kvzmq.client.core.socket import Change
from kvzmq.client.core.targets import Target
from kvzmq.client.core.watch_state import WatchState
from kvzmq.protocol import msgpack

URLS = ["tcp://a:1", "tcp://b:1"]
OURS, OTHER = "0a" * 16, "0b" * 16
EPOCH = "0c" * 16


class Watching:
    """A watch of the table OURS that turns to the next server when it should, as both shells do."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.sockets: list[ScriptedSocket] = []
        state = WatchState(lambda *place: Calls().watch("", *place), "", 0, EPOCH, OURS)
        self.channel = PushChannel(state, Endpoints([Target(url) for url in URLS]), self._open)
        self.channel.open(self.now_s)

    def _open(self, target: Target) -> ScriptedSocket:
        self.sockets.append(ScriptedSocket(target.url))
        return self.sockets[-1]

    @property
    def state(self) -> WatchState:
        return self.channel.state

    def turn(self, after_s: float = 0.0) -> None:
        self.now_s += after_s
        self.channel.tick(self.now_s)
        if self.channel.fail_over(self.now_s):
            self.channel.open(self.now_s)
        self.channel.receive_all(self.now_s)

    def answer(self, *results: Any) -> None:
        """Have the server in use take the connection and answer what is asked there."""
        socket = self.sockets[-1]
        socket.happen(Change.MADE)
        self.turn()
        seq = msgpack.decode_value(socket.sent[-1])[1]
        socket.received.append(msgpack.encode_value((seq, 7, results)))
        self.turn()

    def answer_as_another_table(self) -> None:
        self.answer((0, {"lineage": OTHER}), (0, (1, EPOCH, EPOCH)))
        if self.state.error is None:
            self.turn()

    def answer_as_ours(self) -> None:
        self.answer((0, {"lineage": OURS}), (0, (1, EPOCH, EPOCH)))

    def fail(self) -> None:
        """Have nobody listen at the server in use."""
        self.sockets[-1].happen(Change.FAILED, "connection refused")
        self.turn(FAILED_S + 0.01)


@pytest.fixture(autouse=True)
def first_url_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvzmq.client.core.endpoints._any_of", lambda count: 0)


def test_a_watch_ends_when_one_server_has_another_table_and_nobody_listens_at_the_other() -> None:
    """Guarantee 12."""
    watching = Watching()
    for _ in URLS:
        watching.answer_as_another_table()
        assert watching.state.error is None
        watching.fail()
    watching.answer_as_another_table()
    assert isinstance(watching.state.error, errors.TableChanged)


def test_a_server_that_is_slow_to_connect_may_have_the_table() -> None:
    """Red when a server that was passed over for its slowness counted as one that has not the table."""
    watching = Watching()
    for _ in range(10):
        watching.answer_as_another_table()
        watching.turn(CONNECT_S - 0.1)
        assert watching.sockets[-1].endpoint == URLS[1]
        watching.turn(0.2)
        assert watching.sockets[-1].endpoint == URLS[0]
    watching.answer_as_another_table()
    watching.answer_as_ours()
    assert watching.state.started and watching.state.error is None


def test_a_server_that_refuses_for_now_may_have_the_table() -> None:
    watching = Watching()
    for _ in range(10):
        watching.answer_as_another_table()
        refusal = (errors.Unavailable.code, "no log")
        watching.answer((0, {"lineage": OURS}), refusal)
        watching.turn(60.0)
        assert watching.sockets[-1].endpoint == URLS[0]
    watching.answer_as_another_table()
    watching.answer_as_ours()
    assert watching.state.started and watching.state.error is None
