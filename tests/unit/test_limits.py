"""Every request up to the limit is taken, nothing beyond it, and every row that was ever taken can be read."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from support.stepped import Stepped, ZmqPeer

from kvzmq import errors
from kvzmq.protocol import limits, messages, msgpack
from kvzmq.protocol.limits import KEY_CHARS_MAX, REPLY_BYTES_MAX, REQUEST_BYTES_LIMIT, REQUEST_BYTES_MAX
from kvzmq.protocol.operations import Insert

LIMITS = pytest.mark.parametrize("limit", [REQUEST_BYTES_MAX, REQUEST_BYTES_LIMIT])
KEYS = pytest.mark.parametrize("key", ["k", "\U0001f600" * KEY_CHARS_MAX], ids=["short key", "longest key"])


def value_for(frame_bytes: int, key: str, text: str = "x") -> dict[str, Any]:
    """Return a row that a query finds, of which the insert is `frame_bytes` long."""
    empty = len(msgpack.encode_request(None, 1, [Insert(key, msgspec.Raw(msgpack.encode_value({"n": 7, "pad": ""})))]))
    value = {
        "n": 7,
        "pad": text * (frame_bytes - empty - 4),
    }  # a long string's head is 4 bytes longer than an empty one's
    assert len(insert(key, value)) == frame_bytes
    return value


def insert(key: str, value: Any) -> bytes:
    return msgpack.encode_request(None, 1, [Insert(key, msgspec.Raw(msgpack.encode_value(value)))])


def line(**request: Any) -> bytes:
    return json.dumps(request, separators=(",", ":")).encode() + b"\n"


def send_line(table: Stepped, peer: Any, request: bytes) -> Any:
    sent = 0
    while sent < len(request):
        sent += peer.send_some(request[sent : sent + (1 << 20)])
        table.step()
    return table.lines(peer, 1)[0]


def check_readable(table: Stepped, peer: ZmqPeer, key: str, value: Any) -> None:
    """Read a row in every way there is; what comes is never longer than a client takes."""
    for op, expected in (
        (["lookup", key], value),
        (["lookup_many", [key]], {key: value}),
        (["items"], [[key, value]]),
        (["items", key[:1]], [[key, value]]),
        (["query", "n", 7], [[key, value]]),
        (["transaction", [], [["lookup", key]]], [value]),
    ):
        peer.send(op)
        table.until(lambda: peer.socket.poll(0))
        frame = peer.socket.recv()
        assert len(frame) <= REPLY_BYTES_MAX
        ((code, payload),) = msgspec.msgpack.decode(frame)[2]
        assert code == 0 and payload == expected, op[0]
    bridged = table.tcp()
    for request, answer in (
        ({"method": "lookup", "key": key}, value),
        ({"method": "lookup_many", "keys": [key]}, {key: value}),
        ({"method": "items"}, [[key, value]]),
        ({"method": "query", "subkey": "n", "subvalue": 7}, [[key, value]]),
    ):
        bridged.send(line(**request))
        longest = 0
        while not (found := bridged.lines()):
            table.step()
            longest = max(longest, len(bridged.received))
        assert longest <= limits.REPLY_LINE_BYTES_MAX
        assert found == [{"status": "OK", "result": answer}]
    bridged.close()


@LIMITS
@KEYS
@pytest.mark.parametrize("excess", [-1, 0, 1])
def test_the_router_takes_requests_up_to_the_limit_and_every_row_can_be_read(limit: int, key: str, excess: int) -> None:
    """Red when results had less room than requests: rows of the last kilobyte failed every lookup."""
    value = value_for(limit + excess, key)
    with Stepped(request_bytes_max=limit) as table:
        peer = table.zmq(maxmsgsize=REPLY_BYTES_MAX)
        peer.send_frames(insert(key, value))
        if excess > 0:
            table.settle()
            assert table.store.table.rows == {} and peer.replies() == []
        else:
            assert table.replies(peer) == [[1, 1, [[0, None]]]]
            check_readable(table, peer, key, value)


@LIMITS
@KEYS
@pytest.mark.parametrize("text", ["x", "\x01"], ids=["plain", "control characters"])
@pytest.mark.parametrize("excess", [-1, 0, 1])
def test_a_line_of_the_bridge_carries_what_a_frame_does(limit: int, key: str, text: str, excess: int) -> None:
    """Red when lines had the length of frames: a row of control characters could be read and not be written."""
    value = value_for(limit + excess, key, text)
    with Stepped(request_bytes_max=limit) as table:
        peer = table.tcp()
        reply = send_line(table, peer, line(method="insert", key=key, value=value))
        if excess > 0:
            assert reply["type"] == "InvalidRequest" and table.store.table.rows == {}
        else:
            assert reply == {"status": "OK", "result": None}
            check_readable(table, table.zmq(maxmsgsize=REPLY_BYTES_MAX), key, value)


def test_a_line_that_is_certainly_too_long_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Red without the look at commas: seven megabytes of empty arrays were decoded for 0.3 s, to be refused."""
    from kvzmq.protocol import jsonl

    monkeypatch.setattr(jsonl, "_decode_line", lambda line: pytest.fail("it was decoded"))
    for unit in (b"[],", b"0,", b"[[[[[[]]]]]],"):
        body = unit * (6 * REQUEST_BYTES_MAX // len(unit))
        refusal = jsonl.decode_line(b'{"method":"insert","key":"k","value":[' + body + b"0]}")
        assert isinstance(refusal, messages.Refusal) and refusal.code == errors.InvalidRequest.code


@pytest.mark.parametrize(
    "value",
    [
        ["\x01" * 1000],
        [False] * 1000,
        [-32] * 1000,
        [[]] * 1000,
        {"": ""},
        [1.5] * 500,
        ["\x7f\x1f"] * 300,
        [b"\xff" * 900],
    ],
)
def test_json_grows_no_more_than_is_said(value: Any) -> None:
    encoded = msgpack.encode_value(value)
    assert len(msgspec.json.encode(value)) <= limits.JSON_GROWTH * len(encoded)


def test_the_longest_transaction_of_checks_fits_a_line() -> None:
    checks = [("", [False])] * 1000
    frame = len(msgspec.msgpack.encode(["transaction", checks, []]))
    request = line(method="transaction", checks=[{"key": "", "expected": False}] * 1000, operations=[])
    assert len(request) <= limits.request_line_bytes_max(frame)


def test_the_chunks_of_a_client_fit_the_least_that_servers_take_by_default() -> None:
    from kvzmq.client.core import calls as operations
    from kvzmq.client.core import session

    assert operations.CHUNK_BYTES < REQUEST_BYTES_MAX and session.SHARED_BYTES_MAX < REQUEST_BYTES_MAX
    # A batch gathers up to the second, then a chunk of the first may still be the one call in a request.
    assert max(operations.CHUNK_BYTES, session.SHARED_BYTES_MAX) + 1024 < REQUEST_BYTES_MAX


@LIMITS
def test_hello_tells_the_limit(limit: int) -> None:
    with Stepped(request_bytes_max=limit) as table:
        code, told = table.call(table.zmq(), "hello")
        assert code == 0 and told["request_bytes_max"] == limit
