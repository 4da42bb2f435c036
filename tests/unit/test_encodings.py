"""The codec as a table of messages: whole, cut, with trailing data, mutated; in both encodings.

Whatever comes in, what comes out is a Request or a Refusal; what is accepted can be read back on both sides.
"""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import Raw
from support.wire import results_of

from kvzmq import errors
from kvzmq.protocol import jsonl, messages, msgpack, operations, validation
from kvzmq.protocol.declaration import Operation
from kvzmq.protocol.messages import Refusal, Reply, Request
from kvzmq.protocol.operations import OPERATIONS
from kvzmq.store.table import Table

SESSION = bytes(range(16))


def raw(value: Any) -> Raw:
    return Raw(msgpack.encode_value(value))


VALUES: list[Any] = [
    None, True, 0, -1, 2**64 - 1, -(2**63), 1.5, -0.0, 1e308, 5e-324, "", "zebra",
    "\0\n\u2028é", "e\u0301", "\U0010ffff", [], {}, [1, [2, [3, [4, [5, [6]]]]]],
    {"": 1, "a": {"b": {"c": {"d": {"e": None}}}}}, ["x" * 40, 70_000, -70_000, 2**32],
]  # fmt: skip

ONE_OF_EACH: list[Operation] = [
    operations.Open(),
    operations.Insert("k", raw({"a": [1, 2.5, "three", None, True]})),
    operations.Insert("k", raw(1), 2.5),
    operations.Remove("k"),
    operations.InsertMany({"a": raw(1), "b": raw([])}),
    operations.RemoveMany(["a", "b"]),
    operations.CompareAndSet("k", [], [raw(None)]),
    operations.CompareAndSet("k", [raw(None)], []),
    operations.SetDefault("k", raw("v")),
    operations.Increment("k"),
    operations.Increment("k", -2.5),
    operations.Expire("k", 3.0),
    operations.Expire("k"),
    operations.Transact([("k", []), ("l", [raw(1)])], [operations.Insert("k", raw(2)), operations.Lookup("k")]),
    operations.Lookup("k"),
    operations.LookupMany(["k", "l"]),
    operations.Size(),
    operations.Query("name", raw("fred")),
    operations.Keys("p", "after", 10),
    operations.Items(),
    operations.Ttl("k"),
    operations.Ping(),
    operations.Hello(),
    operations.Hello(operations.HelloInfo(3.0)),
    operations.Stats(),
    operations.Backup("0123456789abcdef" * 2),
    operations.Backup("0123456789abcdef" * 2, 7),
    operations.Clients(),
    operations.Clients("zmq:12345678", 5),
    operations.Kick("tcp:127.0.0.1:5"),
    operations.Watch("p", 7),
    operations.Watch("p", 7, "0123456789abcdef" * 2),
    operations.Watch("p", None, None),
    operations.WatchQuery("name", raw("fred")),
    operations.WatchQuery("name", raw("fred"), 7, "0123456789abcdef" * 2),
    operations.SlowRequests(),
    operations.SlowRequests(7),
    operations.Monitor(),
    operations.Monitor("zmq:", "insert", "p", 0.5, 10),
    operations.Progress(3),
    operations.Unwatch(3),
]
IDS = [f"{type(op).__name__}-{number}" for number, op in enumerate(ONE_OF_EACH)]


def accepted(frame: bytes) -> Request:
    request = msgpack.decode_request(frame)
    assert isinstance(request, Request), request
    return request


def test_every_operation_is_tried_here() -> None:
    assert {type(op) for op in ONE_OF_EACH} == set(OPERATIONS.values())


# ---- requests


@pytest.mark.parametrize("op", ONE_OF_EACH, ids=IDS)
@pytest.mark.parametrize("session", [None, SESSION])
def test_a_request_reads_back_as_it_was_written(op: Operation, session: bytes | None) -> None:
    frame = msgpack.encode_request(session, 5, [op])
    request = accepted(frame)
    assert (request.session, request.seq, request.ops, request.frame) == (session, 5, [op], frame)
    assert request.writes == type(op).writes
    assert request.served == (type(op) in operations.SERVED)
    assert msgpack.decode_group(msgpack.encode_group(12, [frame, frame]))[1][1].ops == [op]


@pytest.mark.parametrize("op", ONE_OF_EACH, ids=IDS)
def test_every_truncation_and_trailing_byte_is_refused(op: Operation) -> None:
    frame = msgpack.encode_request(SESSION, 300, [op, op])
    for length in range(len(frame)):
        refused = msgpack.decode_request(frame[:length])
        assert isinstance(refused, Refusal) and refused.code == errors.InvalidRequest.code
    for tail in (b"\0", b"\xc0", frame):
        assert isinstance(msgpack.decode_request(frame + tail), Refusal)


def test_every_single_byte_changed_is_a_request_or_a_refusal() -> None:
    for op in ONE_OF_EACH:
        frame = msgpack.encode_request(None, 1, [op])
        for place in range(len(frame)):
            for byte in {
                *range(place % 5, 256, 5),
                0x80,
                0x90,
                0xC0,
                0xC1,
                0xC4,
                0xC7,
                0xCA,
                0xCB,
                0xD4,
                0xDC,
                0xDF,
                0xFF,
            }:
                check(frame[:place] + bytes([byte]) + frame[place + 1 :])


def check(frame: bytes) -> None:
    """Decode; what is accepted must survive the log, the table and both encodings of its reply."""
    request = msgpack.decode_request(frame)
    if isinstance(request, Refusal):
        assert errors.BY_CODE[request.code] in (errors.InvalidRequest, errors.InvalidMethod)
        assert request.seq is None or request.seq >= 1
        msgpack.encode_reply(msgpack.refuse(request.seq, 0, request.code, request.message))
        return
    assert msgpack.decode_group(msgpack.encode_group(0, [frame]))[1][0].ops == request.ops
    if request.served:
        return
    table = Table()
    table.execute(request)
    twin = Table()
    twin.load(table.dump())
    for key in table.rows:
        for reader in (table, twin):
            read_back(reader.execute(accepted(msgpack.encode_request(None, 1, [operations.Lookup(key)]))))


def read_back(reply: Reply) -> None:
    """Have both encodings of a reply read by decoders that know nothing of kvzmq."""
    msgspec.msgpack.decode(msgpack.encode_reply(reply))
    line = jsonl.encode_line(reply)
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    json.loads(line)


frames_of_operations = st.sampled_from([msgpack.encode_request(SESSION, 2, [op]) for op in ONE_OF_EACH])


@settings(max_examples=600)
@given(
    frames_of_operations,
    st.lists(st.tuples(st.integers(0, 10**6), st.binary(max_size=4), st.integers(0, 3)), max_size=4),
)
def test_mutated_requests_are_requests_or_refusals(frame: bytes, edits: list[tuple[int, bytes, int]]) -> None:
    for place, inserted, dropped in edits:
        place %= len(frame) + 1
        frame = frame[:place] + inserted + frame[place + dropped :]
    check(frame)


@settings(max_examples=400)
@given(st.binary(max_size=60))
@example(b"\x81\x80\x01")
@example(b"\x93\xc0\x01\x91\x81\x80\x01")
@example(b"\x91" * 100_000)
def test_any_bytes_are_a_request_or_a_refusal(data: bytes) -> None:
    check(data)
    check(b"\x93\xc0\x01\x91\x93\xa6insert\xa1k" + data)
    check(b"\x93\xc0\x01\x91\x93\xa5query\xa1k" + data)


@pytest.mark.parametrize(
    ("wire", "code", "words"),
    [
        ([None, 1, [["nonsense"]]], 17, "no operation 'nonsense'"),
        ([None, 1, [["ping"], ["nonsense", 1]]], 17, "no operation 'nonsense'"),
        ([None, 1, []], 16, "length >= 1"),
        ([None, 0, [["ping"]]], 16, ">= 1"),
        ([None, -1, [["ping"]]], 16, ">= 1"),
        ([None, 2**63, [["ping"]]], 16, ""),
        ([None, True, [["ping"]]], 16, ""),
        ([b"short", 1, [["ping"]]], 16, "length >= 16"),
        ([bytes(17), 1, [["ping"]]], 16, "length <= 16"),
        (["s" * 16, 1, [["ping"]]], 16, "bytes"),
        ([None, 1, [["ping", 1]]], 16, "length 0"),
        ([None, 1, [["ping"]], 1, 1], 16, "length 4"),
        ([None, 1, [["ping"]], -1], 16, ">= 0"),
        ([None, 1, [["ping"]], True], 16, ""),
        ([None, 1, [["insert", "a", 1]], 1], 16, "only reads"),
        ([None, 1, [["lookup", 1]]], 16, "str"),
        ([None, 1, [["lookup", "k" * 65_537]]], 16, "length <= 65536"),
        ([None, 1, [["insert", "k", 1, 0.0]]], 16, "> 0"),
        ([None, 1, [["insert", "k", 1, math.nan]]], 16, ""),
        ([None, 1, [["insert", "k", 1, math.inf]]], 16, ""),
        ([None, 1, [["insert", "k", 1, 1e12]]], 16, "<="),
        ([None, 1, [["increment", "k", math.inf]]], 16, "by is not finite"),
        ([None, 1, [["increment", "k", True]]], 16, ""),
        ([None, 1, [["keys", "", None, 0]]], 16, ">= 1"),
        ([None, 1, [["keys", "", None, 10_001]]], 16, "<= 10000"),
        ([None, 1, [["compare_and_set", "k", [1, 2], []]]], 16, "length <= 1"),
        ([None, 1, [["transaction", [], [["size"]]]]], 16, "size"),
        ([None, 1, [["transaction", [], [["transaction", [], []]]]]], 16, "transaction"),
        ([None, 1, [["stats"], ["remove", "k"]]], 16, "without writes"),
        ([None, 1, [["monitor", "", "nonsense"]]], 16, "no operation 'nonsense'"),
        ([None, 1, [["monitor", "", "", "p" * 65_537]]], 16, "prefix is longer"),
        ([None, 1, [["monitor", "", "", "", -0.1]]], 16, ">= 0"),
        ([None, 1, [["monitor", "", "", "", math.nan]]], 16, ""),
        ([None, 1, [["monitor", "", "", "", 0, 0]]], 16, ">= 1"),
        ([None, 1, [["slow_requests", 257]]], 16, "<= 256"),
        ([None, 1, [["watch", "p", -1]]], 16, ">= 0"),
        ([None, 1, "ping"], 16, "array"),
        ({"method": "ping"}, 16, "not a request"),
        (1, 16, "not a request"),
    ],
)
def test_what_is_wrong_is_said(wire: Any, code: int, words: str) -> None:
    refused = msgpack.decode_request(msgpack.encode_value(wire))
    assert isinstance(refused, Refusal)
    assert refused.code == code and words in refused.message
    assert refused.seq == (1 if isinstance(wire, list) and wire[1] == 1 and wire[1] is not True else None)


def test_more_operations_than_allowed_are_refused() -> None:
    assert isinstance(msgpack.decode_request(msgpack.encode_request(None, 1, [operations.Ping()] * 50_000)), Request)
    assert isinstance(msgpack.decode_request(msgpack.encode_request(None, 1, [operations.Ping()] * 50_001)), Refusal)


def test_a_refusal_says_little_however_much_was_sent() -> None:
    """Guarantee 9: an answer is not larger than the question. Turned red by quoting the bad request."""
    deep: Any = math.nan
    for _ in range(50):
        deep = {"\0" * 50_000: deep}
    refused = msgpack.decode_request(msgpack.encode_value([None, 1, [["insert", "k", deep]]]))
    assert isinstance(refused, Refusal) and len(refused.message) < 2000
    refused = msgpack.decode_request(msgpack.encode_value([None, 1, [["\0" * 1_000_000]]]))
    assert isinstance(refused, Refusal) and len(refused.message) < 2000
    refused = jsonl.decode_line(json.dumps({"method": "\0" * 1_000_000}).encode())
    assert isinstance(refused, Refusal) and len(refused.message) < 2000


# ---- values


def nested(depth: int, inner: Any = 1) -> Any:
    for number in range(depth):
        inner = [inner] if number % 2 else {"a": inner}
    return inner


@pytest.mark.parametrize("value", [*VALUES, b"", b"\xff\0", [b"x", {"a": b"y"}], nested(64)], ids=repr)
def test_values_come_back_as_they_went_in(value: Any) -> None:
    request = accepted(msgpack.encode_value([None, 1, [["insert", "k", value], ["lookup", "k"]]]))
    reply = Table().execute(request)
    (_, done), (_, found) = results_of(reply)
    assert done is None and found == value and type(found) is type(value)
    assert math.copysign(1, found) == math.copysign(1, value) if isinstance(value, float) else True
    read_back(Table().execute(accepted(msgpack.encode_value([None, 1, [["setdefault", "k", value]]]))))


@pytest.mark.parametrize("value", [*VALUES, nested(64)], ids=repr)
def test_values_come_back_over_the_bridge(value: Any) -> None:
    line = json.dumps({"method": "setdefault", "key": "k", "value": value}).encode()
    request = jsonl.decode_line(line)
    assert isinstance(request, Request), request
    reply = json.loads(jsonl.encode_line(Table().execute(request)))
    assert reply == {"status": "OK", "result": value} and type(reply["result"]) is type(value)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (msgpack.encode_value(math.nan), "value is not finite"),
        (msgpack.encode_value([1, {"a": -math.inf}]), "value[1]['a'] is not finite"),
        (b"\xca\x7f\x80\0\0", "not finite"),
        (msgpack.encode_value(nested(65)), "nested deeper than 64"),
        (b"\x91" * 5000 + b"\x01", "nested deeper than 64"),
        (b"\x91" * 200_000 + b"\x01", ""),
        (b"\x81\x01\x02", "map key 1"),
        (b"\x81\xc0\x02", "map key None"),
        (b"\x81\xc4\x01a\x02", "map key b'a'"),
        (b"\x81\x90\x02", "map key ()"),
        (b"\x81\x80\x02", "hashable"),
        (b"\xd4\x05\x00", "Ext"),
        (b"\xd6\xff\x00\x00\x00\x00", "datetime"),
        (b"\xa1\xff", "utf-8"),
        (b"\x91\xa2\xc0\x80", "utf-8"),
        (b"\xa3\xed\xa0\x80", "utf-8"),
        (b"\xc1", "malformed"),
        (b"\xdd\xff\xff\xff\xff", ""),
        (b"\xdf\xff\xff\xff\xff", ""),
        (b"\xc6\xff\xff\xff\xff", ""),
        (b"", ""),
    ],
)
def test_what_cannot_be_read_back_everywhere_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(errors.InvalidRequest) as refused:
        validation.check_value(data)
    assert words in str(refused.value)
    for before in (
        b"\x93\xa6insert\xa1k", b"\x92\xabinsert_many\x81\xa1k", b"\x93\xaasetdefault\xa1k", b"\x93\xa5query\xa1k",
        b"\x94\xafcompare_and_set\xa1k\x90\x91", b"\x94\xafcompare_and_set\xa1k\x91",
        b"\x93\xabtransaction\x91\x92\xa1k\x91", b"\x93\xabtransaction\x90\x91\x93\xa6insert\xa1k",
    ):  # fmt: skip
        after = b"\x90" if before.endswith((b"k\x91",)) else b""
        assert isinstance(msgpack.decode_request(b"\x93\xc0\x01\x91" + before + data + after), Refusal)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=15,
)


@settings(max_examples=200)
@given(st.text(max_size=20), json_values)
def test_any_key_and_value_of_json_go_through_both_encodings(key: str, value: Any) -> None:
    line = json.dumps({"method": "insert", "key": key, "value": value}).encode()
    by_line = jsonl.decode_line(line)
    by_wire = accepted(msgpack.encode_value([None, 1, [["insert", key, value]]]))
    assert isinstance(by_line, Request)
    tables = Table(), Table()
    for table, request in zip(tables, (by_line, by_wire)):
        table.execute(request)
        reply = table.execute(accepted(msgpack.encode_request(None, 1, [operations.Lookup(key)])))
        assert json.loads(jsonl.encode_line(reply))["result"] == value
        assert results_of(reply)[0][1] == value


# ---- lines

LINES: dict[str, list[dict[str, Any]]] = {
    "open": [{}],
    "insert": [{"key": "k", "value": {"a": 1}}, {"key": "k", "value": None, "ttl_s": 2}],
    "remove": [{"key": "k"}],
    "insert_many": [{"rows": {"a": 1, "b": [2]}}],
    "remove_many": [{"keys": ["a"]}],
    "compare_and_set": [
        {"key": "k", "expected": 1, "value": 2},
        {"key": "k", "value": None},
        {"key": "k", "expected": None},
    ],
    "setdefault": [{"key": "k", "value": 1}],
    "increment": [{"key": "k"}, {"key": "k", "by": -2.5}],
    "expire": [{"key": "k", "ttl_s": 1.5}, {"key": "k"}],
    "transaction": [
        {"checks": [{"key": "k"}, {"key": "l", "expected": None}],
         "operations": [{"method": "insert", "key": "k", "value": 1}, {"method": "lookup_many", "keys": ["k"]}]},
    ],
    "lookup": [{"key": "k"}],
    "lookup_many": [{"keys": ["k"]}],
    "size": [{}],
    "query": [{"subkey": "a", "subvalue": {"b": 1}}],
    "keys": [{}, {"prefix": "p", "after": "q", "limit": 5}],
    "items": [{}, {"prefix": "p"}],
    "ttl": [{"key": "k"}],
    "ping": [{}],
    "hello": [{}, {"info": {"heartbeat_s": 3.0}}],
    "stats": [{}],
    "backup": [{"id": "0123456789abcdef" * 2}, {"id": "0123456789abcdef" * 2, "offset": 7}],
    "clients": [{}, {"after": "zmq:12345678", "limit": 5}],
    "kick": [{"name": "tcp:127.0.0.1:5"}],
    "slow_requests": [{}, {"limit": 5}],
}  # fmt: skip
CASES = [(method, fields) for method, several in LINES.items() for fields in several]
AS_LINES = [json.dumps({"method": method, **fields}).encode() for method, fields in CASES]


def test_every_operation_but_the_watches_has_a_line() -> None:
    assert {*LINES, "watch", "watch_query", "monitor", "progress", "unwatch"} == set(OPERATIONS)
    for method in ("watch", "watch_query", "progress", "unwatch"):
        refused = jsonl.decode_line(json.dumps({"method": method}).encode())
        assert isinstance(refused, Refusal) and refused.code == errors.InvalidMethod.code


@pytest.mark.parametrize(("method", "fields"), CASES)
def test_a_line_is_the_same_request_as_on_the_wire(method: str, fields: dict[str, Any]) -> None:
    for around in ({}, {"session": SESSION.hex(), "seq": 9}):
        request = jsonl.decode_line(json.dumps({"method": method, **fields, **around}).encode())
        assert isinstance(request, Request), request
        wire = accepted(request.frame)
        assert (wire.session, wire.seq, wire.ops) == (request.session, request.seq, request.ops)
        assert (wire.session, wire.seq) == ((SESSION, 9) if around else (None, 1))
        (op,) = wire.ops
        assert type(op) is OPERATIONS[method]
        for name, given_value in fields.items():
            found = getattr(op, name)
            if isinstance(found, Raw):
                assert msgpack.decode_value(found) == given_value
            elif isinstance(found, (str, int, float)):
                assert found == given_value
        if not request.served:
            read_back(Table().execute(request))


def test_absence_and_null_are_told_apart_in_lines() -> None:
    def op(**fields: Any) -> Any:
        request = jsonl.decode_line(json.dumps({"method": "compare_and_set", "key": "k", **fields}).encode())
        assert isinstance(request, Request)
        return request.ops[0]

    assert op() == operations.CompareAndSet("k", [], [])
    assert op(expected=None, value=None) == operations.CompareAndSet("k", [raw(None)], [raw(None)])


@pytest.mark.parametrize("line", AS_LINES)
def test_every_truncation_of_a_line_is_refused(line: bytes) -> None:
    for length in range(len(line)):
        assert isinstance(jsonl.decode_line(line[:length]), Refusal)
    assert isinstance(jsonl.decode_line(line + b"}"), Refusal)
    assert isinstance(jsonl.decode_line(b" " + line + b" \r"), Request)


@pytest.mark.parametrize(
    ("line", "kind", "words"),
    [
        (b"", "InvalidRequest", "not a line of JSON"),
        (b"\xff\xfe", "InvalidRequest", "not a line of JSON"),
        (b"[" * 100_000, "InvalidRequest", ""),
        (b'{"method":"insert","key":"k","value":' + b"[" * 100_000, "InvalidRequest", ""),
        (b'{"method":"insert","key":"k","value":' + b"[" * 65 + b"]" * 65 + b"}", "InvalidRequest", "deeper than 64"),
        (b'{"method":"insert","key":"k","value":1e999}', "InvalidRequest", "range"),
        (b'{"method":"insert","key":"k","value":NaN}', "InvalidRequest", ""),
        (b'{"method":"insert","key":"k","value":18446744073709551616}', "InvalidRequest", "2**64"),
        (b'{"method":"increment","key":"k","by":18446744073709551616}', "InvalidRequest", "2**64"),
        (b'{"method":"insert","key":"\\ud800","value":1}', "InvalidRequest", ""),
        (b'{"method":"insert","key":"k"}', "InvalidRequest", "value"),
        (b'{"method":"insert","value":1}', "InvalidRequest", "key"),
        (b'{"method":"lookup","key":1}', "InvalidRequest", "str"),
        (b'{"key":"k"}', "InvalidRequest", "method"),
        (b'{"method":"frobnicate","key":"k"}', "InvalidMethod", "no method 'frobnicate'"),
        (b'{"method":1}', "InvalidMethod", "no method"),
        (b'{"method":null}', "InvalidMethod", "no method"),
        (b'{"method":{"a":[]}}', "InvalidMethod", "no method"),
        (b"null", "InvalidRequest", ""),
        (b'"size"', "InvalidRequest", ""),
        (b'{"method":"size","session":"00"}', "InvalidRequest", "32 hexadecimal digits"),
        (b'{"method":"size","session":"zz"}', "InvalidRequest", "32 hexadecimal digits"),
        (b'{"method":"size","session":"' + b"0" * 32 + b'"}', "InvalidRequest", "needs a seq"),
        (b'{"method":"size","seq":0}', "InvalidRequest", ">= 1"),
    ],
)
def test_a_bad_line_gets_the_dialect_s_error(line: bytes, kind: str, words: str) -> None:
    refused = jsonl.decode_line(line)
    assert isinstance(refused, Refusal)
    reply = json.loads(jsonl.encode_line(msgpack.refuse(refused.seq, 0, refused.code, refused.message)))
    assert reply["status"] == "exception" and reply["type"] == kind and words in reply["message"]


@settings(max_examples=600)
@given(
    st.sampled_from(AS_LINES),
    st.lists(
        st.tuples(
            st.integers(0, 10**6),
            st.binary(max_size=3) | st.sampled_from([b'"', b"{", b"}", b"1e9", b"null"]),
            st.integers(0, 3),
        ),
        max_size=4,
    ),
)
def test_mutated_lines_are_requests_or_refusals(line: bytes, edits: list[tuple[int, bytes, int]]) -> None:
    for place, inserted, dropped in edits:
        place %= len(line) + 1
        line = line[:place] + inserted + line[place + dropped :]
    request = jsonl.decode_line(line)
    if isinstance(request, Request):
        check(request.frame)
    else:
        jsonl.encode_line(msgpack.refuse(request.seq, 0, request.code, request.message))


# ---- replies and events


@pytest.mark.parametrize(
    "reply",
    [
        Reply(1, 2, msgpack.encode_results([(0, None)])),
        Reply(None, 0, msgpack.encode_results([(16, "what")])),
        Reply(
            2**63 - 1, 2**63, msgpack.encode_results([(0, raw({"a": b"bytes"})), (1, "no key"), (0, [("k", raw(1))])])
        ),
    ],
)
def test_a_reply_is_the_array_of_the_protocol(reply: Reply) -> None:
    assert msgspec.msgpack.decode(msgpack.encode_reply(reply)) == [
        reply.seq,
        reply.revision,
        results_of(reply),
    ]
    read_back(reply)


def test_replies_of_the_dialect_are_as_the_course_has_them() -> None:
    def line(code: int, payload: Any) -> Any:
        return json.loads(jsonl.encode_line(Reply(1, 1, msgpack.encode_results([(code, payload)]))))

    assert line(0, None) == {"status": "OK", "result": None}
    assert line(0, [["k", {"a": 1}]]) == {"status": "OK", "result": [["k", {"a": 1}]]}
    assert line(1, "no key 'ghost'") == {"status": "exception", "type": "KeyError", "message": "no key 'ghost'"}
    assert {line(code, "")["type"] for code in errors.BY_CODE} == {
        "KeyError", "WrongType", "CheckFailed", "ResultTooLarge", "RevisionGone", "WatchIdle", "BackupFailed",
        "NotAllowed", "InvalidRequest",
        "InvalidMethod", "WriteRejected", "SessionExpired", "SequenceReused", "Unavailable",
    }  # fmt: skip


def test_bytes_are_shown_in_lines_as_base64() -> None:
    assert b'"AP8="' in jsonl.encode_line(Reply(1, 1, msgpack.encode_results([(0, b"\0\xff")])))


def test_an_event_is_a_message_number_0() -> None:
    assert msgspec.msgpack.decode(msgpack.encode_event(7, 3, 0, ("k", [raw(1)]))) == [0, 7, [3, 0, ["k", [1]]]]


@pytest.mark.parametrize(
    ("frame", "seq"),
    [
        (bytes.fromhex("93c0099193a6696e73657274a3eda08001"), 9),  # the key is not UTF-8
        (bytes.fromhex("93c0099193a6696e73657274a3eda080"), 9),  # and the value is missing
        (bytes.fromhex("93c009"), 9),
        (bytes.fromhex("93c0cd01009192a66c6f6f6b7570a1ff"), 256),
        (b"\x93\xc4\x10" + bytes(range(16)) + b"\x07\x91\x92\xa6lookup\xa1\xff", 7),
        (b"\x93\xc4\x10" + b"\n" * 16 + b"\xcf" + (2**63 - 1).to_bytes(8, "big") + b"\xc1", 2**63 - 1),
        (b"\x93\xc0\x05" + b"\x91" * 100_000, 5),  # nested deeper than the decoder goes
        (b"\x94\xc0\x05\x91\x91\xa4size\xa1x", 5),
        (b"\x93\xa5short\x06\x91\x91\xa4size", 6),
        (b"\x93\xc0\x00\x91\x91\xa4size", None),  # the number of events
        (b"\x93\xc0\xcf" + (2**63).to_bytes(8, "big") + b"\xc1", None),
        (b"\x93\xc0\xff\x91\x91\xa4size", None),
        (b"\x93\xc0\xa19\x91\x91\xa4size", None),
        (b"\x92\xc0\x09", None),
        (b"\x93\xc0", None),
        (b"\x93\xc4\x0f" + bytes(16), None),
        (b"", None),
    ],
    ids=lambda value: value.hex()[:40] if isinstance(value, bytes) else None,
)
def test_the_number_of_a_refused_request_survives_what_is_wrong_behind_it(frame: bytes, seq: int | None) -> None:
    """Red when the whole frame had to be readable: the client waited, and reported as unknown what had been refused."""
    refusal = msgpack.decode_request(frame)
    assert isinstance(refusal, messages.Refusal) and refusal.seq == seq


def test_a_strange_operation_is_named_among_unreadable_ones() -> None:
    refusal = msgpack.decode_request(bytes.fromhex("93c0099291a6") + b"frobni" + bytes.fromhex("92a66c6f6f6b7570a1ff"))
    assert isinstance(refusal, messages.Refusal)
    assert (refusal.seq, refusal.code) == (9, errors.InvalidMethod.code) and "frobni" in refusal.message


BYTES = b"\xc4\x02ab"
NOT_FINITE = msgpack.encode_value(math.nan)


@pytest.mark.parametrize(
    ("values", "is_good"),
    [
        ([BYTES], True),
        ([BYTES, BYTES], True),
        ([BYTES, msgpack.encode_value({"a": [b"b", "c"]})], True),
        ([msgpack.encode_value("a"), BYTES], True),
        ([BYTES, NOT_FINITE], False),
        ([BYTES, b"\xc7\x01\x05x"], False),
        ([b"\xc4\x03ab"], False),
        ([b"\xc5\x00"], False),
    ],
)
def test_values_that_are_bytes_are_checked_beside_others(values: list[bytes], is_good: bool) -> None:
    """They have a check of their own, which has to leave to the others what it cannot decide."""
    ops = [operations.Insert("k", Raw(value)) for value in values]
    if is_good:
        validation.check_operations(ops)
    else:
        with pytest.raises(errors.InvalidRequest):
            validation.check_operations(ops)
