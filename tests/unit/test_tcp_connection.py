"""A connection of the bridge by itself: its states, with a socket that nobody uses."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator

import msgspec
import pytest

from kvzmq.protocol.messages import Refusal, Reply, Request
from kvzmq.server.transport.tcp_connection import (
    TRANSITIONS,
    UNREAD_BYTES_MAX,
    Connection,
    Event,
    State,
    StepInput,
)

REQUEST_BYTES_MAX = 1000
PING = b'{"method": "ping"}\n'


@pytest.fixture
def connection() -> Iterator[Connection]:
    with socket.socket() as sock:
        yield Connection(1, sock, "127.0.0.1:1", 0.0, REQUEST_BYTES_MAX)


def receive(connection: Connection, data: bytes) -> None:
    connection.receive(memoryview(data))
    connection.update()


def take_in(connection: Connection, lines_max: int = 64) -> list[Request | Refusal]:
    taken = connection.take_in(lines_max, StepInput())
    connection.update()
    return taken


def answer(connection: Connection, result: str) -> None:
    connection.owed -= 1
    connection.queue(Reply(None, 0, msgspec.msgpack.encode([[0, result]])))
    connection.update()


def read(connection: Connection, sent_bytes: int) -> None:
    lines = connection.lines()
    connection.sent(lines, min(sent_bytes, sum(map(len, lines))))
    connection.update()


def test_every_state_can_be_reached_and_left_but_the_last() -> None:
    reached = {State.READING}
    while more := {state for found in reached for state in TRANSITIONS[found].values()} - reached:
        reached |= more
    assert reached == set(State) == set(TRANSITIONS)
    assert {state for state, row in TRANSITIONS.items() if not row} == {State.CLOSED}
    assert all(row[Event.CLOSE] is State.CLOSED for row in TRANSITIONS.values() if row), "it may end at any time"


@pytest.mark.parametrize(
    ("state", "event"),
    [(state, event) for state in State for event in Event if event not in TRANSITIONS[state]],
    ids=lambda value: value.name,
)
def test_a_transition_that_is_not_in_the_table_raises(connection: Connection, state: State, event: Event) -> None:
    """Turned red by staying in the state instead: a connection closed twice, or read after its end, went unnoticed."""
    connection.state = state
    with pytest.raises(RuntimeError, match=f"{state.name}.*{event.name}"):
        connection.handle(event)
    assert connection.state is state


def state_of(connection: Connection) -> State:
    """Return its state; a type checker would take the attribute for what it was compared with last."""
    return connection.state


def test_a_connection_goes_from_its_first_byte_to_its_last_reply(connection: Connection) -> None:
    receive(connection, PING[:5])
    assert state_of(connection) is State.READING
    receive(connection, PING[5:] + PING + PING[:7])
    assert state_of(connection) is State.READY
    assert len(take_in(connection, lines_max=1)) == 1 and state_of(connection) is State.READY
    assert len(take_in(connection)) == 1 and state_of(connection) is State.READING
    answer(connection, "x" * UNREAD_BYTES_MAX)
    assert state_of(connection) is State.PAUSED and connection.is_over_limit
    read(connection, 1000)
    assert state_of(connection) is State.READING
    receive(connection, b"")
    assert state_of(connection) is State.READY, "the end waits for its turn, too"
    assert take_in(connection) == [] and state_of(connection) is State.CLOSING and not connection.received
    assert not connection.is_served, "it is owed a reply, and has not had all of the other"
    answer(connection, "pong")
    read(connection, 2 * UNREAD_BYTES_MAX)
    assert connection.is_served and state_of(connection) is State.CLOSING
    connection.close()
    assert state_of(connection) is State.CLOSED


def test_replies_of_a_later_step_pause_a_connection_that_has_lines_or_has_ended(connection: Connection) -> None:
    receive(connection, PING * 2)
    take_in(connection, lines_max=1)
    answer(connection, "x" * UNREAD_BYTES_MAX)
    assert state_of(connection) is State.PAUSED, "its second line has no turn"
    read(connection, 1000)
    assert state_of(connection) is State.READY
    take_in(connection)
    receive(connection, b"")
    take_in(connection)
    answer(connection, "x" * UNREAD_BYTES_MAX)
    assert state_of(connection) is State.CLOSING and connection.is_over_limit


def test_the_state_follows_from_the_bytes_and_the_replies_whatever_comes_in_which_order() -> None:
    """Each of 200 connections lives through random reads, turns, replies and writes, and ends served."""
    for seed in range(200):
        draw = random.Random(seed)
        with socket.socket() as sock:
            connection = Connection(seed, sock, "127.0.0.1:1", 0.0, REQUEST_BYTES_MAX)
            stream = b"".join(draw.choice([PING, b"rubbish\n", b"x" * 9000 + b"\n"]) for _ in range(30))
            taken = 0
            while not connection.is_served:
                moves = {"read"} if connection.queued else set()
                moves |= {"answer"} if connection.owed else set()
                moves |= {State.READING: {"receive"}, State.READY: {"take in"}}.get(connection.state, set())
                move = draw.choice(sorted(moves))
                if move == "receive":
                    size = draw.randrange(1, 20_000)
                    receive(connection, stream[:size])
                    stream = stream[size:]
                elif move == "take in":
                    taken += len(take_in(connection, draw.randrange(1, 5)))
                elif move == "answer":
                    answer(connection, "x" * draw.choice([1, UNREAD_BYTES_MAX // 2]))
                else:
                    read(connection, draw.randrange(1, UNREAD_BYTES_MAX))
                if state_of(connection) is State.READING:
                    assert not connection.has_input() and not connection.is_over_limit and not connection.ended
                elif state_of(connection) is State.READY:
                    assert connection.has_input() and not connection.is_over_limit
                elif state_of(connection) is State.PAUSED:
                    assert connection.is_over_limit
            assert taken == 30, seed
