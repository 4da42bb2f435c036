"""The client's ZMTP, as values and on a raw socket against libzmq: conversations cut anywhere, hostile peers, noise."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import pytest
import zmq
from support.zmtp import INSTEAD_OF_A_HANDSHAKE, frame

from kvzmq.client.core import zmtp
from kvzmq.client.core.zmtp import Connection, Kind, State

BYTES_MAX = 1000
WAIT_S = 60
GREETING_3_0 = (
    b"\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f\x03\x00NULL\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
    b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
)
"""What libzmq 4.0.0 to 4.3.2 send: `stream_engine.cpp` there writes the minor version 0."""

GREETING_3_1 = (
    b"\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f\x03\x01NULL\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
    b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
)
"""What libzmq 4.3.3 to 4.3.5 send; recorded from a ROUTER of 4.3.5."""

READY = b"\x04\x29\x05READY\x0bSocket-Type\x00\x00\x00\x06ROUTER\x08Identity\x00\x00\x00\x00"
"""What the ROUTER of every libzmq since 4.0 sends; recorded from 4.3.5."""

READY_OF_REP = b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x03REP"
START = GREETING_3_1 + READY

FIRST = b"\xff\x00\x00\x00\x00\x00\x00\x00\x00\x7f\x03"
REST = b"\x01NULL" + bytes(16) + bytes(32)
OUR_READY = b"\x04\x29\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER\x08Identity\x00\x00\x00\x00"
SHAKEN = FIRST + REST + OUR_READY
"""All that is sent for a handshake."""


def command(name: bytes, data: bytes = b"") -> bytes:
    return frame(bytes([len(name)]) + name + data, command=True)


def ready(*properties: tuple[bytes, bytes]) -> bytes:
    return command(b"READY", b"".join(bytes([len(n)]) + n + len(v).to_bytes(4, "big") + v for n, v in properties))


def greeting(mechanism: bytes = b"NULL", version: bytes = b"\x03\x01", padding: bytes = bytes(8)) -> bytes:
    return b"\xff" + padding + b"\x7f" + version + mechanism.ljust(20, b"\0") + bytes(32)


ROUTER = (b"Socket-Type", b"ROUTER")


class Conversation(NamedTuple):
    """What a peer sends, and what comes of it."""

    sent: bytes
    messages: Sequence[bytes] = ()
    fault: Kind | None = None
    """Why the connection fails, None if it does not."""
    answered: bytes = b""
    """What is sent to the peer after the handshake."""
    said: str = ""
    """What stands in the error."""


CONVERSATIONS: dict[str, Conversation] = {
    # ---- greetings and handshakes that succeed
    "libzmq 4.0 to 4.3.2": Conversation(GREETING_3_0 + READY + frame(b"hello"), [b"hello"]),
    "libzmq 4.3.3 to 4.3.5": Conversation(START + frame(b"hello"), [b"hello"]),
    "REP": Conversation(GREETING_3_1 + READY_OF_REP + frame(b"hello"), [b"hello"]),
    "later minor version": Conversation(greeting(version=b"\x03\x07") + READY + frame(b"hello"), [b"hello"]),
    "later major version": Conversation(greeting(version=b"\x04\x00") + READY + frame(b"hello"), [b"hello"]),
    "padding of any content": Conversation(greeting(padding=b"\xffpadding")[:64] + READY + frame(b"x"), [b"x"]),
    "READY in a long frame": Conversation(
        GREETING_3_1 + b"\x06" + (41).to_bytes(8, "big") + READY[2:] + frame(b"x"), [b"x"]
    ),
    "names in another case": Conversation(GREETING_3_1 + ready((b"SOCKET-type", b"ROUTER")) + frame(b"x"), [b"x"]),
    "properties of an application": Conversation(
        GREETING_3_1 + ready((b"X-a", b"1"), ROUTER, (b"X-b", b"")) + frame(b"x"), [b"x"]
    ),
    "another command before READY": Conversation(GREETING_3_1 + command(b"HELLO", b"!") + READY + frame(b"x"), [b"x"]),
    # ---- messages
    "empty message": Conversation(START + frame(b""), [b""]),
    "longest short frame": Conversation(START + frame(b"x" * 255), [b"x" * 255]),
    "shortest long frame": Conversation(START + frame(b"x" * 256), [b"x" * 256]),
    "long frame that might be short": Conversation(START + b"\x02" + (5).to_bytes(8, "big") + b"hello", [b"hello"]),
    "empty long frame": Conversation(START + b"\x02" + bytes(8) + frame(b"x"), [b"", b"x"]),
    "longest message": Conversation(START + frame(b"x" * BYTES_MAX), [b"x" * BYTES_MAX]),
    "many messages": Conversation(
        START + b"".join(frame(bytes([n]) * n) for n in range(256)), [bytes([n]) * n for n in range(256)]
    ),
    "message that looks like a command": Conversation(START + frame(b"\x05ERROR\x01x"), [b"\x05ERROR\x01x"]),
    "messages of several frames": Conversation(
        START
        + frame(b"a")
        + frame(b"", more=True)
        + frame(b"b")
        + frame(b"c")
        + frame(b"d", more=True)
        + frame(b"e" * 300, more=True)
        + frame(b"f")
        + frame(b"g"),
        [b"a", b"c", b"g"],
    ),
    # ---- commands
    "PING": Conversation(START + command(b"PING", b"\0\0"), answered=command(b"PONG")),
    "PING with a context": Conversation(
        START + command(b"PING", b"\0\x10context") + frame(b"x"), [b"x"], answered=command(b"PONG", b"context")
    ),
    "PING with the longest context": Conversation(
        START + command(b"PING", b"\0\0" + b"c" * 16), answered=command(b"PONG", b"c" * 16)
    ),
    "PING with too long a context": Conversation(
        START + command(b"PING", b"\0\0" + b"c" * 17), answered=command(b"PONG", b"c" * 16)
    ),
    "PING within a message": Conversation(
        START + frame(b"a", more=True) + command(b"PING", b"\0\0x") + frame(b"b") + frame(b"c"),
        [b"c"],
        answered=command(b"PONG", b"x"),
    ),
    "commands of others": Conversation(
        START
        + command(b"SUBSCRIBE", b"a")
        + command(b"CANCEL", b"a")
        + command(b"PONG", b"?")
        + command(b"JOIN")
        + frame(b"x"),
        [b"x"],
    ),
    "long command": Conversation(START + command(b"SUBSCRIBE", b"a" * 500) + frame(b"x"), [b"x"]),
    # ---- who does not speak ZMTP 3
    "HTTP": Conversation(b"HTTP/1.1 400 Bad Request\r\n\r\n", fault=Kind.FOREIGN, said="HTTP"),
    "TLS": Conversation(b"\x15\x03\x03\x00\x02\x02\x46", fault=Kind.FOREIGN, said="TLS"),
    "SSH": Conversation(b"SSH-2.0-OpenSSH_9.2p1\r\n", fault=Kind.FOREIGN, said="SSH"),
    "bridge": Conversation(b'{"status": "exception"}\n', fault=Kind.FOREIGN, said="bridge"),
    "Redis": Conversation(b"-ERR unknown command\r\n", fault=Kind.FOREIGN, said="does not speak ZeroMQ: it sent '-"),
    "zeros": Conversation(bytes(100), fault=Kind.FOREIGN, said="does not speak ZeroMQ"),
    "telnet": Conversation(
        b"\xff\xfd\x18\xff\xfd\x20\xff\xfd\x23\xff\xfd", fault=Kind.FOREIGN, said="does not speak ZeroMQ"
    ),
    "ZMTP 1.0": Conversation(b"\x01\x00", fault=Kind.OUTDATED, said="ZMTP 1.0"),
    "ZMTP 1.0 with an identity": Conversation(b"\x04\x00abc", fault=Kind.OUTDATED, said="ZMTP 1.0"),
    "ZMTP 1.0 with a long identity": Conversation(
        b"\xff" + (255).to_bytes(8, "big") + b"\x00a", fault=Kind.OUTDATED, said="ZMTP 1.0"
    ),
    "ZMTP 2.0": Conversation(b"\xff" + bytes(7) + b"\x01\x7f\x01\x06", fault=Kind.OUTDATED, said="ZMTP 2.0"),
    # ---- who refuses, or wants what we are not
    "CURVE": Conversation(greeting(b"CURVE"), fault=Kind.MECHANISM, said="wants CURVE"),
    "PLAIN": Conversation(greeting(b"PLAIN"), fault=Kind.MECHANISM, said="wants PLAIN"),
    "mechanism that begins as NULL": Conversation(greeting(b"NULLS") + READY, fault=Kind.MECHANISM, said="wants NULLS"),
    "no mechanism": Conversation(greeting(b"") + READY, fault=Kind.MECHANISM, said=r"wants '\x00"),
    "mechanism of control characters": Conversation(greeting(b"\x1b[2J"), fault=Kind.MECHANISM, said=r"\x1b"),
    "PUB": Conversation(
        GREETING_3_1 + ready((b"Socket-Type", b"PUB")) + frame(b"x"), fault=Kind.SOCKET_TYPE, said="'PUB'"
    ),
    "type in another case": Conversation(
        GREETING_3_1 + ready((b"Socket-Type", b"router")), fault=Kind.SOCKET_TYPE, said="'router'"
    ),
    "socket without a type": Conversation(GREETING_3_1 + ready(), fault=Kind.SOCKET_TYPE, said="without a type"),
    "ERROR": Conversation(
        GREETING_3_1 + command(b"ERROR", b"\x03400"), fault=Kind.REFUSED, said="refuses the connection: '400'"
    ),
    "ERROR with the longest reason": Conversation(
        GREETING_3_1 + command(b"ERROR", b"\xff" + b"r" * 255), fault=Kind.REFUSED, said="r" * 255
    ),
    "ERROR of control characters": Conversation(
        GREETING_3_1 + command(b"ERROR", b"\x04\x1b[2J"), fault=Kind.REFUSED, said=r"\x1b[2J"
    ),
    "ERROR without a reason": Conversation(GREETING_3_1 + command(b"ERROR"), fault=Kind.REFUSED, said="refuses"),
    "ERROR after messages": Conversation(
        START + frame(b"x") + command(b"ERROR", b"\x03bye"), [b"x"], Kind.REFUSED, said="bye"
    ),
    # ---- who breaks the protocol
    "message before READY": Conversation(
        GREETING_3_1 + frame(b"hello") + READY, fault=Kind.MALFORMED, said="a message where READY was due"
    ),
    "PING before READY": Conversation(
        GREETING_3_1 + command(b"PING", b"\0\0"), fault=Kind.MALFORMED, said="PING where READY was due"
    ),
    "READY twice": Conversation(
        START + frame(b"x") + READY, [b"x"], Kind.MALFORMED, said="READY where a message was due"
    ),
    "property that is cut off": Conversation(
        GREETING_3_1 + command(b"READY", b"\x0bSocket-Type\0\0\0\x07ROUTER"), fault=Kind.MALFORMED, said="cut off"
    ),
    "name that is cut off": Conversation(
        GREETING_3_1 + command(b"READY", b"\x0bSocket"), fault=Kind.MALFORMED, said="cut off"
    ),
    "length that is cut off": Conversation(
        GREETING_3_1 + command(b"READY", b"\x0bSocket-Type\0\0\0"), fault=Kind.MALFORMED, said="cut off"
    ),
    "property of 4 GiB": Conversation(
        GREETING_3_1 + command(b"READY", b"\x0bSocket-Type\xff\xff\xff\xffROUTER"), fault=Kind.MALFORMED, said="cut off"
    ),
    "property without a name": Conversation(
        GREETING_3_1 + ready(ROUTER, (b"", b"x")), fault=Kind.MALFORMED, said="without a name"
    ),
    "property twice": Conversation(
        GREETING_3_1 + ready(ROUTER, (b"socket-type", b"REP")), fault=Kind.MALFORMED, said="twice"
    ),
    "too many properties": Conversation(
        GREETING_3_1 + ready(ROUTER, *((b"X-%d" % n, b"") for n in range(64))),
        fault=Kind.MALFORMED,
        said="more than 64",
    ),
    "command without a body": Conversation(
        START + frame(b"", command=True), fault=Kind.MALFORMED, said="without a name"
    ),
    "command with an empty name": Conversation(
        START + frame(b"\0PING", command=True), fault=Kind.MALFORMED, said="without a name"
    ),
    "command whose name is cut off": Conversation(
        START + frame(b"\x05PING", command=True), fault=Kind.MALFORMED, said="without a name"
    ),
    "PING without a time to live": Conversation(
        START + command(b"PING", b"\0"), fault=Kind.MALFORMED, said="time to live"
    ),
    "command with MORE": Conversation(START + b"\x05\x05\x04PONG", fault=Kind.MALFORMED, said="flags 0x05"),
    **{
        f"reserved flag {flag:#x}": Conversation(
            START + frame(b"x") + bytes([flag, 1]) + b"y", [b"x"], Kind.MALFORMED, said=f"flags 0x{flag:02x}"
        )
        for flag in (0x08, 0x10, 0x20, 0x40, 0x80)
    },
    # ---- who exceeds a limit
    "message too long by one": Conversation(
        START + frame(b"x") + frame(b"y" * (BYTES_MAX + 1)), [b"x"], Kind.TOO_LARGE, said="message of 1,001 bytes"
    ),
    "message too long, of several": Conversation(
        START + frame(b"x", more=True) + frame(b"", length=BYTES_MAX + 1), fault=Kind.TOO_LARGE
    ),
    "message of 2^63 - 1 bytes": Conversation(START + frame(b"", length=(1 << 63) - 1), fault=Kind.TOO_LARGE),
    "message of 2^64 - 1 bytes": Conversation(START + frame(b"", length=(1 << 64) - 1), fault=Kind.TOO_LARGE),
    "command too long": Conversation(
        START + frame(b"", command=True, length=8193), fault=Kind.TOO_LARGE, said="command of 8,193 bytes"
    ),
    "READY too long": Conversation(
        GREETING_3_1 + frame(b"", command=True, length=8193), fault=Kind.TOO_LARGE, said="command of 8,193 bytes"
    ),
    "READY of 16 exabytes": Conversation(
        GREETING_3_1 + frame(b"", command=True, length=(1 << 64) - 1), fault=Kind.TOO_LARGE
    ),
    "commands without end before READY": Conversation(
        GREETING_3_1 + command(b"HELLO", bytes(6000)) * 3, fault=Kind.TOO_LARGE
    ),
    "message of too many frames": Conversation(
        START + frame(b"x", more=True) * 1000, fault=Kind.TOO_LARGE, said="1,000 frames"
    ),
}
"""What a peer sends from the start, by name. The answers to the handshake go without saying."""


def feed_whole(sent: bytes) -> Iterator[bytes]:
    yield sent


def feed_byte_by_byte(sent: bytes) -> Iterator[bytes]:
    for at in range(len(sent)):
        yield sent[at : at + 1]


def feed_in_parts(sent: bytes) -> Iterator[bytes]:
    cuts, at = random.Random(len(sent)), 0
    while at < len(sent):
        end = at + cuts.choice((1, 2, 8, 9, 10, 11, 63, 64, 300))
        yield sent[at:end]
        at = end


Feed = Callable[[bytes], Iterator[bytes]]
FEEDS: dict[str, Feed] = {"whole": feed_whole, "byte by byte": feed_byte_by_byte, "in parts": feed_in_parts}


def converse(connection: Connection, parts: Iterator[bytes]) -> tuple[list[bytes], bytes]:
    """Have a connection receive parts; return the messages and all it has sent."""
    messages, sent = [], connection.data_to_send()
    for part in parts:
        messages += connection.receive_data(part)
        sent += connection.data_to_send()
    return messages, sent


def converse_in_place(connection: Connection, sent: bytes, most: int) -> list[bytes]:
    """Have a connection receive at most so many bytes at a time, in its own room where it has one."""
    messages, at = [], 0
    while at < len(sent):
        room = connection.room
        count = min(most, len(sent) - at if room is None else min(len(room), len(sent) - at))
        if room is None:
            messages += connection.receive_data(sent[at : at + count])
        else:
            room[:count] = sent[at : at + count]
            messages += connection.fill(count)
        at += count
    return messages


def opened(message_bytes_max: int = BYTES_MAX) -> Connection:
    connection = Connection(message_bytes_max)
    assert converse(connection, feed_whole(START)) == ([], SHAKEN)
    assert connection.state is State.OPEN
    return connection


def check(connection: Connection, expected: Conversation, messages: list[bytes]) -> None:
    assert messages == list(expected.messages)
    if expected.fault is None:
        assert connection.error is None and connection.state is State.OPEN
    else:
        assert connection.error is not None and connection.state is State.FAILED
        assert connection.error.kind is expected.fault
        assert expected.said in str(connection.error)
        assert str(connection.error).isprintable()


# ---- conversations


@pytest.mark.parametrize("feed", FEEDS.values(), ids=list(FEEDS))
@pytest.mark.parametrize("name", CONVERSATIONS)
def test_a_conversation_gives_the_same_however_it_is_cut(name: str, feed: Feed) -> None:
    conversation = CONVERSATIONS[name]
    connection = Connection(BYTES_MAX)
    messages, sent = converse(connection, feed(conversation.sent))
    if feed is not feed_byte_by_byte or conversation.fault is not Kind.FOREIGN:  # of which more may be quoted
        check(connection, conversation, messages)
    else:
        check(connection, conversation._replace(said="does not speak ZeroMQ"), messages)
    if conversation.fault is None:
        assert sent == SHAKEN + conversation.answered
    assert connection.data_to_send() == b""


TRAILING = [b"\0", b"\x02\0\0", frame(b"y" * 700)[:-1], b"\x04"]
"""Beginnings of a frame."""


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_what_follows_a_conversation_changes_nothing_of_it(name: str) -> None:
    conversation = CONVERSATIONS[name]
    for trailing in TRAILING:
        connection = Connection(BYTES_MAX)
        messages, _ = converse(connection, feed_whole(conversation.sent + trailing))
        check(connection, conversation, messages)


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_a_frame_received_in_its_place_is_the_same(name: str) -> None:
    conversation = CONVERSATIONS[name]
    for most in (1, 7, 100, 65536):
        connection = Connection(BYTES_MAX)
        messages = converse_in_place(connection, conversation.sent, most)
        check(connection, conversation._replace(said=""), messages)


LOOKS_WHOLE = b"\0\x04abcd"
"""What is a message if nothing has come before it."""


@pytest.mark.parametrize("before", [b"\0", b"\0\x08ef", frame(b"first", more=True)])
def test_what_looks_like_a_message_is_none_in_the_midst_of_another(before: bytes) -> None:
    """A part of a header, a part of a body, the first of several frames. Seen red where only the state is looked at."""
    whole, cut = opened(), opened()
    expected = whole.receive_data(before + LOOKS_WHOLE)
    assert expected != [b"abcd"]
    assert cut.receive_data(before) == []
    assert cut.receive_data(LOOKS_WHOLE) == expected


def test_nothing_is_received_or_sent_after_a_fault() -> None:
    connection = opened()
    messages = connection.receive_data(frame(b"a") + command(b"PING", b"\0\0") + b"\x80\0" + frame(b"b"))
    assert messages == [b"a"]
    error = connection.error
    assert connection.receive_data(frame(b"c") + command(b"PING", b"\0\0")) == []
    assert connection.receive_data(b"") == []
    assert connection.error is error and connection.data_to_send() == b"" and connection.room is None


def test_messages_of_several_frames_are_counted() -> None:
    connection = opened()
    connection.receive_data((frame(b"", more=True) + frame(b"x")) * 3 + frame(b"y", more=True))
    assert connection.ignored == 3


def test_the_peer_is_known_after_the_handshake() -> None:
    connection = Connection(BYTES_MAX)
    connection.receive_data(GREETING_3_0 + ready(ROUTER, (b"X-Name", b"\xff")))
    assert connection.version == (3, 0)
    assert connection.properties == {b"socket-type": b"ROUTER", b"x-name": b"\xff"}


def test_the_rest_of_the_greeting_waits_for_the_peers_version() -> None:
    """libzmq would close without telling its mechanism to one who has already told another."""
    connection = Connection(BYTES_MAX)
    assert connection.data_to_send() == FIRST
    connection.receive_data(GREETING_3_1[:10])
    assert connection.data_to_send() == b""
    connection.receive_data(GREETING_3_1[10:11])
    assert connection.data_to_send() == REST
    connection.receive_data(GREETING_3_1[11:])
    assert connection.data_to_send() == OUR_READY


@pytest.mark.parametrize("length", [0, 1, 254, 255, 256, 257, 65535, 65536])
def test_what_is_sent_is_a_frame_of_the_message(length: int) -> None:
    message = bytes(length)
    assert zmtp.encode_header(length) + message == frame(message)
    assert zmtp.encode_header(length, zmtp.MORE) + message == frame(message, more=True)


ENDS = {
    "before anything": (b"", Kind.FOREIGN, "does not speak ZeroMQ"),
    "in what may become HTTP": (b"HT", Kind.FOREIGN, "after 'HT'"),
    "after the signature": (GREETING_3_1[:10], Kind.CLOSED, "where its version was due"),
    "in the greeting": (GREETING_3_1[:40], Kind.CLOSED, "where its mechanism was due"),
    "before READY": (GREETING_3_1, Kind.CLOSED, "where READY was due"),
    "in READY": (GREETING_3_1 + READY[:20], Kind.CLOSED, "where READY was due"),
    "between messages": (START + frame(b"x"), Kind.CLOSED, "closed the connection"),
    "in a header": (START + b"\x02\0\0", Kind.CLOSED, "in the middle of a frame"),
    "in a message": (START + frame(b"x" * 500)[:-1], Kind.CLOSED, "in the middle of a frame"),
}


@pytest.mark.parametrize("name", ENDS)
def test_the_end_of_the_stream_is_a_fault_that_says_where(name: str) -> None:
    sent, kind, said = ENDS[name]
    connection = Connection(BYTES_MAX)
    converse(connection, feed_byte_by_byte(sent))
    assert connection.error is None
    assert connection.receive_data(b"") == []
    assert connection.error is not None and connection.error.kind is kind and said in str(connection.error)


def test_the_end_of_the_stream_may_come_in_a_frames_place() -> None:
    connection = opened()
    connection.receive_data(frame(b"x" * 500)[:-1])
    assert connection.fill(0) == []
    assert connection.error is not None and connection.error.kind is Kind.CLOSED


@pytest.mark.parametrize("name", INSTEAD_OF_A_HANDSHAKE)
def test_a_peer_that_sends_anything_from_the_start_is_not_taken_for_a_server(name: str) -> None:
    connection = Connection(BYTES_MAX)
    messages, _ = converse(connection, feed_in_parts(INSTEAD_OF_A_HANDSHAKE[name]))
    if name == "message in a hurry":  # which shakes hands as a DEALER may
        assert messages == [b"hello"] and connection.error is None
    else:
        assert messages == [] and connection.state is not State.OPEN


# ---- memory


def peak_bytes(work: Callable[[], object]) -> int:
    """Return how much memory was in use at most while `work` ran, beyond what was before: the least of three times.

    What other threads of the process take meanwhile counts as well.
    """
    peaks = []
    for _ in range(3):
        tracemalloc.start()
        try:
            work()
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    return min(peaks)


@pytest.mark.parametrize(
    "part", [command(b"PONG", b"p" * 200), command(b"PING", b"\0\0context"), frame(b"", more=True) + frame(b"x")]
)
def test_endless_commands_and_frames_cost_no_memory(part: bytes) -> None:
    """Nobody takes what is to be sent: the peer sends, and does not read."""
    connection = opened()
    sent = part * (16384 // len(part))

    def work() -> None:
        for _ in range(5):
            assert connection.receive_data(sent) == []

    assert peak_bytes(work) < 65536
    assert connection.error is None
    assert len(connection.data_to_send()) <= zmtp.WAITING_BYTES_MAX


def test_a_frame_is_copied_a_bounded_number_of_times() -> None:
    """In parts, or in its place: the peak is the frame where it gathers and the one handed over."""
    length = 8 << 20
    sent = frame(bytes(length))
    parts = [sent[at : at + 65536] for at in range(0, len(sent), 65536)]

    def in_parts() -> list[bytes]:
        return converse(opened(length), iter(parts))[0]

    def in_place() -> list[bytes]:
        return converse_in_place(opened(length), sent, 65536)

    for work in (in_parts, in_place):
        assert [len(message) for message in work()] == [length]
        assert peak_bytes(work) < 2.1 * length


def test_a_length_beyond_the_limit_reserves_nothing() -> None:
    refused: list[Connection] = []

    def work() -> None:
        refused.append(opened())
        refused[-1].receive_data(frame(b"", length=1 << 30))

    assert peak_bytes(work) < 65536
    assert [connection.error and connection.error.kind for connection in refused] == [Kind.TOO_LARGE] * 3


# ---- libzmq


class RawPeer:
    """A connection on a raw socket, driven as a transport would."""

    def __init__(self, port: int, message_bytes_max: int = 16 << 20) -> None:
        self.connection = Connection(message_bytes_max)
        self.received = self.sent = b""
        self._messages: list[bytes] = []
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=WAIT_S)

    def step(self) -> None:
        """Send what is to be sent and receive once."""
        sent = self.connection.data_to_send()
        self._socket.sendall(sent)
        self.sent += sent
        room = self.connection.room
        if room is not None:
            self._messages += self.connection.fill(self._socket.recv_into(room))
        else:
            data = b""
            with contextlib.suppress(ConnectionResetError):
                data = self._socket.recv(65536)
            self.received += data
            self._messages += self.connection.receive_data(data)

    def shake_hands(self) -> None:
        while self.connection.state not in (State.OPEN, State.FAILED):
            self.step()

    def send(self, message: bytes) -> None:
        self._socket.sendall(zmtp.encode_header(len(message)) + message)

    def send_raw(self, data: bytes) -> None:
        self._socket.sendall(data)

    def receive(self) -> bytes:
        while not self._messages:
            assert self.connection.error is None, self.connection.error
            self.step()
        return self._messages.pop(0)

    def close(self) -> None:
        self._socket.close()


Bind = Callable[..., "tuple[zmq.Socket[bytes], int]"]


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield context
    context.destroy(linger=0)


@pytest.fixture
def bind(context: zmq.Context[zmq.Socket[bytes]]) -> Bind:
    """Bind a socket of libzmq, with options, to a free port."""
    kept = []  # pyzmq closes what nobody refers to

    def bind(kind: int, **options: Any) -> tuple[zmq.Socket[bytes], int]:
        bound = context.socket(kind)
        kept.append(bound)
        bound.rcvtimeo = bound.sndtimeo = WAIT_S * 1000
        for name, value in options.items():
            setattr(bound, name, value)
        return bound, bound.bind_to_random_port("tcp://127.0.0.1")

    return bind


@pytest.fixture
def meet() -> Iterator[Callable[[int], RawPeer]]:
    """Connect to a port and shake hands."""
    with contextlib.ExitStack() as stack:

        def meet(port: int) -> RawPeer:
            peer = RawPeer(port)
            stack.callback(peer.close)
            peer.shake_hands()
            return peer

        yield meet


Meet = Callable[[int], RawPeer]


def test_the_installed_libzmq_greets_as_recorded(bind: Bind, meet: Meet) -> None:
    _, port = bind(zmq.ROUTER)
    peer = meet(port)
    recorded = GREETING_3_1 if zmq.zmq_version_info() >= (4, 3, 3) else GREETING_3_0
    assert peer.received == recorded + READY
    assert peer.connection.state is State.OPEN


@pytest.mark.parametrize("length", [0, 1, 255, 256, 70_000, 8 << 20])
def test_messages_go_to_a_router_and_back(length: int, bind: Bind, meet: Meet) -> None:
    router, port = bind(zmq.ROUTER)
    peer = meet(port)
    sender = threading.Thread(target=peer.send, args=(b"\xa5" * length,))
    sender.start()
    identity, message = router.recv_multipart()
    sender.join(WAIT_S)
    assert message == b"\xa5" * length
    router.send_multipart([identity, message + b"!"])
    router.send_multipart([identity, b"", b"of several frames"])
    router.send_multipart([identity, b"next"])
    assert peer.receive() == b"\xa5" * length + b"!"
    assert peer.receive() == b"next"
    assert peer.connection.ignored == 1


def test_a_rep_answers_who_sends_a_delimiter_and_nobody_is_confused(bind: Bind, meet: Meet) -> None:
    """Without one it drops the request. Its answers have two frames, so they are no messages for us."""
    rep, port = bind(zmq.REP)
    peer = meet(port)
    peer.send(b"dropped")
    peer.send_raw(frame(b"", more=True) + frame(b"question"))
    assert rep.recv() == b"question"
    rep.send(b"answer")
    while not peer.connection.ignored:
        peer.step()
    assert peer.connection.error is None


def test_messages_go_through_a_proxy(bind: Bind, meet: Meet) -> None:
    """Its ROUTER puts an identity in front and takes it off again: our server and we see one frame."""
    router, port_behind = bind(zmq.ROUTER)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    front, back = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    port = front.bind_to_random_port("tcp://127.0.0.1")
    back.connect(f"tcp://127.0.0.1:{port_behind}")

    def run() -> None:
        with front, back, contextlib.suppress(zmq.ContextTerminated):
            zmq.proxy(front, back)

    proxy = threading.Thread(target=run)
    proxy.start()
    try:
        peers = [meet(port) for _ in range(3)]
        for number, peer in enumerate(peers):
            peer.send(b"question %d" % number)
        for _ in peers:
            *envelope, message = router.recv_multipart()
            router.send_multipart([*envelope, message.replace(b"question", b"answer")])
        assert [peer.receive() for peer in peers] == [b"answer 0", b"answer 1", b"answer 2"]
        assert not any(peer.connection.ignored for peer in peers)
    finally:
        context.term()
        proxy.join(WAIT_S)
    assert not proxy.is_alive()


def test_heartbeats_are_answered(bind: Bind, meet: Meet) -> None:
    router, port = bind(zmq.ROUTER, heartbeat_ivl=20, heartbeat_timeout=WAIT_S * 1000, heartbeat_ttl=WAIT_S * 1000)
    peer = meet(port)
    while peer.received.count(b"\x04PING") < 4:
        peer.step()
        assert peer.connection.error is None
    assert peer.sent.count(command(b"PONG")) >= 3  # the last answer has not been sent yet
    peer.send(b"still here")
    assert router.recv_multipart()[1] == b"still here"


def curve_options() -> dict[str, Any]:
    public, secret = zmq.curve_keypair()
    return {"curve_server": True, "curve_publickey": public, "curve_secretkey": secret}


@pytest.mark.skipif(not zmq.has("curve"), reason="this libzmq has no CURVE")
def test_a_server_with_curve_is_told_from_one_that_fails(bind: Bind, meet: Meet) -> None:
    _, port = bind(zmq.ROUTER, **curve_options())
    error = meet(port).connection.error
    assert error is not None and error.kind is Kind.MECHANISM and str(error).startswith("wants CURVE")


def test_a_server_with_plain_is_told_from_one_that_fails(bind: Bind, meet: Meet) -> None:
    _, port = bind(zmq.ROUTER, plain_server=True)
    error = meet(port).connection.error
    assert error is not None and error.kind is Kind.MECHANISM and str(error).startswith("wants PLAIN")


def test_a_socket_of_the_wrong_type_closes_the_connection(bind: Bind, meet: Meet) -> None:
    _, port = bind(zmq.PUB)
    error = meet(port).connection.error
    assert error is not None and error.kind in (Kind.CLOSED, Kind.SOCKET_TYPE) and "ROUTER" in str(error)


def test_a_refusal_by_authentication_says_its_code(context: zmq.Context[zmq.Socket[bytes]], bind: Bind) -> None:
    """ZAP (RFC 27): the handler answers 400, and libzmq sends ERROR."""
    handler = context.socket(zmq.REP)
    handler.rcvtimeo = WAIT_S * 1000
    handler.bind("inproc://zeromq.zap.01")
    _, port = bind(zmq.ROUTER, zap_domain=b"kvzmq")
    peer = RawPeer(port)
    with contextlib.closing(peer):
        while peer.connection.state is not State.READY:
            peer.step()
        peer.send_raw(peer.connection.data_to_send())
        version, request_id, *_ = handler.recv_multipart()
        handler.send_multipart([version, request_id, b"400", b"no", b"", b""])
        peer.shake_hands()
        error = peer.connection.error
        assert error is not None and error.kind is Kind.REFUSED and "400" in str(error)


# ---- noise


def mutate(rng: random.Random, sent: bytearray) -> None:
    """Change what a peer sends in one to four places."""
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(sent) + 1)
        match rng.randrange(6):
            case 0:
                sent[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                sent[at : at + 1] = bytes([sent[at] ^ 1 << rng.randrange(8)]) if at < len(sent) else b""
            case 2:
                del sent[at : at + rng.randint(1, 20)]
            case 3:
                sent[at:at] = rng.randbytes(rng.randint(1, 20))
            case 4:
                sent[at:at] = sent[at : at + rng.randint(1, 80)]
            case _:
                sent[at:at] = rng.choice(PIECES)


PIECES = [
    READY,
    GREETING_3_1,
    frame(b"x"),
    frame(b"x" * 300),
    frame(b"", more=True),
    frame(b"", length=1 << 40),
    command(b"PING", b"\0\0context"),
    command(b"ERROR", b"\x03400"),
    command(b"SUBSCRIBE"),
    b"\xff\xff\xff\xff",
    bytes(9),
]
SEEDS = [c.sent for c in CONVERSATIONS.values() if len(c.sent) < 2000] + [
    c.sent for c in CONVERSATIONS.values() if not c.fault
][:12] * 2


def held_bytes(connection: Connection) -> int:
    return len(connection._head) + len(connection.waiting) + len(connection._body or b"")


def test_mutated_conversations_never_raise_and_end_the_same_however_they_are_cut(
    full: bool, count: Callable[[str, int], None]
) -> None:
    rng = random.Random(37)
    number = 1_000_000 if full else 20_000
    failed = 0
    for _ in range(number):
        sent = bytearray(rng.choice(SEEDS))
        mutate(rng, sent)
        whole, cut = Connection(BYTES_MAX), Connection(BYTES_MAX)
        messages = whole.receive_data(bytes(sent)) if sent else []
        parts, at = [], 0
        while at < len(sent):
            end = at + rng.choice((1, 5, 11, 70, 400))
            room = cut.room if rng.random() < 0.5 else None
            if room is None:
                parts += cut.receive_data(bytes(sent[at:end]))
            else:
                end = min(end, at + len(room), len(sent))
                room[: end - at] = sent[at:end]
                parts += cut.fill(end - at)
            assert held_bytes(cut) <= BYTES_MAX + zmtp.COMMAND_BYTES_MAX + zmtp.WAITING_BYTES_MAX
            at = end
        assert (messages, whole.state, whole.ignored) == (parts, cut.state, cut.ignored), bytes(sent)
        assert (whole.error is None) == (whole.state is not State.FAILED)
        assert whole.error is None or (cut.error is not None and whole.error.kind is cut.error.kind), bytes(sent)
        assert whole.error is None or (str(whole.error).isprintable() and len(str(whole.error)) < 1200)
        assert all(len(message) <= BYTES_MAX for message in messages)
        assert whole.data_to_send() == cut.data_to_send()
        failed += whole.error is not None
    assert number * 0.2 < failed < number * 0.95, "the noise is all of one kind"
    count("mutated conversations", number)
