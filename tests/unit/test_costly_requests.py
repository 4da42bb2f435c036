"""Requests that would hold everybody up: each is bounded, sliced, or refused. No test here measures time."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw
from support.calls import noting
from support.stepped import Stepped
from support.witness import dump_of, raw, request
from test_table import equal, values

from kvzmq import errors
from kvzmq.protocol import limits, msgpack, operations, validation
from kvzmq.protocol.declaration import Operation
from kvzmq.protocol.messages import Refusal
from kvzmq.protocol.msgpack import decode_group
from kvzmq.server import deferral
from kvzmq.store import budget, equality, indexes
from kvzmq.store import table as table_module
from kvzmq.store.log import SEMANTICS
from kvzmq.store.table import Table

SECOND_US = 1_000_000


def run(table: Table, *ops: Operation) -> list[Any]:
    """Execute one request; returns pairs of code and payload."""
    results: list[Any] = msgpack.decode_value(msgpack.encode_reply(table.execute(request(None, 1, *ops))))[2]
    return results


def refused(*ops: Any) -> str:
    """Return the message of the refusal of a request."""
    found = msgpack.decode_request(msgpack.encode_request(None, 1, ops))
    assert isinstance(found, Refusal) and found.code == errors.InvalidRequest.code
    return found.message


def test_every_limit_is_what_the_page_says() -> None:
    page = (Path(__file__).parents[2] / "docs/protocol.md").read_text()
    section = page.partition("## What one request may cost\n")[2].partition("\n## ")[0]
    stated = [
        int(re.sub(r"[^\d]", "", value)) for value in re.findall(r"^\| .* \| ([\d,]+)[^|]* \|$", section, re.MULTILINE)
    ]
    assert stated == [
        limits.ROWS_MAX, limits.TRANSACTION_MAX, limits.KEY_CHARS_MAX, validation.CONTAINERS_MAX,
        budget.SCANS_MAX, indexes.INDEXES_MAX, budget.ROWS_FOUND_MAX, budget.CHANGES_BEFORE_SCAN_MAX,
        budget.CHANGED_BYTES_BEFORE_SCAN_MAX, budget.COMPARED_BYTES_MAX, indexes.INDEXES_MAX, indexes.INDEX_BYTES_MAX,
    ]  # fmt: skip
    assert (
        f"{deferral.WAITING_OF_ONE_MAX:,} requests or 1 MiB" in " ".join(section.split())
        and deferral.WAITING_BYTES_OF_ONE_MAX == 1 << 20
    )
    assert (
        f"{table_module.EXPIRED_ROWS_MAX:,} with each group" in " ".join(section.split())
        and validation.CONTAINER_BYTES == 8
    )


# ---- comparisons


@settings(max_examples=300)
@given(values, values)
def test_values_are_equal_by_what_they_say(one: Any, other: Any) -> None:
    """Turned red by leaving out the look at booleans: 1 was true."""
    assert equality.are_equal(msgpack.encode_value(one), msgpack.encode_value(other)) == equal(one, other)


def test_booleans_are_told_from_numbers_at_every_depth() -> None:
    for one, other in (
        ([[1]], [[True]]),
        ({"a": {"b": 0}}, {"a": {"b": False}}),
        ([{"a": 1}, [1.0]], [{"a": 1}, [True]]),
    ):
        assert not equality.are_equal(msgpack.encode_value(one), msgpack.encode_value(other))
    ordered, reordered = {"a": True, "b": [1, {"c": False}]}, {"b": [1.0, {"c": False}], "a": True}
    assert equality.are_equal(msgpack.encode_value(ordered), msgpack.encode_value(reordered))


def test_a_large_value_is_not_decoded_to_be_compared_with_a_small_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turned red by comparing whatever is there: a request of 136 bytes took 26 s."""
    table = Table()
    run(table, operations.Insert("a", raw([[]] * 10_000)))

    def compare(one: bytes, other: bytes) -> bool:
        raise AssertionError("compared")

    monkeypatch.setattr(table_module, "are_equal", compare)
    assert run(table, operations.CompareAndSet("a", [raw([1])], [])) == [[0, False]]
    assert run(table, operations.CompareAndSet("a", [raw([[]] * 10_000)], [raw(1)])) == [[0, True]], "equal bytes"


def test_an_increment_does_not_decode_what_cannot_be_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Red with whatever is there decoded: 50,000 of a row of 1 MB took 23 minutes, and their replay as long."""
    table = Table()
    run(table, operations.Insert("a", raw([[]] * 10_000)), operations.Insert("b", raw(2**63)))
    decoded: list[bytes] = []

    def decode_value(data: bytes) -> Any:
        decoded.append(data)
        return msgspec.msgpack.decode(data)

    with monkeypatch.context() as patched:
        patched.setattr(msgpack, "decode_value", decode_value)
        table.execute(request(None, 1, operations.Increment("a"), operations.Increment("b")))
    assert decoded == [bytes(raw(2**63))]
    assert [code for code, _ in run(table, operations.Increment("a"), operations.Increment("b", 0.5))] == [
        errors.WrongType.code,
        errors.OK,
    ]


def test_one_request_compares_so_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turned red by not counting: each operation had the whole room."""
    monkeypatch.setattr(budget, "COMPARED_BYTES_MAX", 100)
    table = Table()
    run(table, operations.Insert("a", raw("x" * 30)))
    compare = operations.CompareAndSet("a", [raw("y" * 30)], [])
    assert [code for code, _ in run(table, compare, compare)] == [0, errors.ResultTooLarge.code]
    checked = operations.Transact([("a", [raw("y" * 30)])] * 2, [])
    assert [code for code, _ in run(table, checked)] == [errors.CheckFailed.code]
    table.semantics = 1
    assert run(table, compare, compare) == [[0, False], [0, False]], "as logs of the first semantics were written"


@given(st.integers(0, 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.booleans() | st.none())
def test_an_index_holds_nothing_whose_hash_can_be_chosen(value: Any) -> None:
    """Turned red by an index of the numbers themselves: 20,000 multiples of 2^61-1 took 29 s."""
    assert type(equality.comparable(value)) in (str, bytes)


def test_what_an_index_holds_of_a_long_subvalue_is_short() -> None:
    for value in ("x" * 100_000, b"x" * 100_000, [0] * 100_000, {"a": "x" * 100_000}):
        assert len(equality.comparable(value)) < 100


# ---- values


def count_of(value: Any) -> int:
    if isinstance(value, list):
        return 1 + sum(map(count_of, value))
    return 1 + sum(map(count_of, value.values())) if isinstance(value, dict) else 0


def a_value(source: random.Random, depth: int = 0) -> Any:
    kind = source.random()
    if depth < 5 and kind < 0.35:
        return [a_value(source, depth + 1) for _ in range(source.choice([0, 1, 3, 17]))]
    if depth < 5 and kind < 0.5:
        return {
            f"k{number}" * source.choice([1, 9, 20]): a_value(source, depth + 1)
            for number in range(source.choice([0, 1, 3]))
        }
    return source.choice([
        None, True, 1, -1, 200, -200, 70_000, -70_000, 2**40, -(2**40), 1.5, "", "é" * 3, "x" * 31, "я" * 40, "z" * 300,
        b"\x90" * 300, b"\xdd" * 70_000,
    ])  # fmt: skip


def test_arrays_and_maps_are_counted_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turned red by counting heads within numbers and strings."""
    for seed in range(500):
        value = [a_value(random.Random(seed * 3 + number)) for number in range(3)]
        data, count = msgpack.encode_value(value), count_of(value)
        monkeypatch.setattr(validation, "CONTAINER_BYTES", 1 << 40)
        monkeypatch.setattr(validation, "CONTAINERS_MAX", count)
        validation.check_value(data)
        monkeypatch.setattr(validation, "CONTAINERS_MAX", count - 1)
        if len(data) >= count:
            with pytest.raises(errors.InvalidRequest, match="arrays and maps"):
                validation.check_value(data)


def test_a_value_of_nothing_but_empty_arrays_is_refused() -> None:
    """Turned red by taking any number of them: to check a million took half a second."""
    assert "131072 arrays and maps" in refused(operations.Insert("a", raw([[]] * 200_000)))
    run(Table(), operations.Insert("a", raw([[]] * 131_071)))
    half = raw([[]] * 70_000)
    assert "131072 arrays and maps" in refused(operations.Insert("a", half), operations.Insert("b", half))


@pytest.mark.parametrize(
    "bad",
    [b"\x91" * 70 + b"\x90", b"\x91\xcb\x7f\xf0\0\0\0\0\0\0", b"\x81\x01\x01", b"\xd4\x01\x01"],
    ids=["deep", "infinite", "key", "extension"],
)
@pytest.mark.parametrize("among", [0, 2, 6000])
def test_a_bad_value_is_refused_wherever_it_is(bad: bytes, among: int) -> None:
    rows = {f"k{number}": raw([[[[[[number]]]]]]) for number in range(among)}
    refused(operations.InsertMany({**rows, "bad": Raw(bad)}))
    refused(operations.Insert("bad", Raw(bad)))
    refused(
        *[operations.Insert(key, value) for key, value in rows.items()],
        operations.Insert("bad", Raw(b"\x92\xc4\0" + bad)),
    )


def test_values_of_many_operations_are_checked_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turned red by checking one by one: 90,000 rows that need the slow check took a second."""
    checked: list[bytes] = []
    check = validation.check_value
    monkeypatch.setattr(validation, "check_value", noting(checked.append, check))
    request(None, 1, operations.InsertMany({f"k{number}": raw([[[[[[b""]]]]]]) for number in range(1000)}))
    request(None, 1, *[operations.Insert(f"k{number}", raw([[[[[[b""]]]]]])) for number in range(1000)])
    assert not checked


# ---- limits


def test_names_rows_and_transactions_have_limits() -> None:
    """Turned red by dropping each of the limits."""
    long = "x" * (limits.KEY_CHARS_MAX + 1)
    assert "65536" in refused(operations.Query(long, raw(1)))
    assert "65536" in refused(operations.WatchQuery(long, raw(1)))
    assert "65536" in refused(operations.Watch(long))
    assert "65536" in refused(operations.Keys(long)) and "65536" in refused(operations.Items("", long))
    rows = {f"{number}": raw(1) for number in range(100_001)}
    assert "100000 rows" in refused(operations.InsertMany(rows))
    assert "100000 keys" in refused(operations.RemoveMany(list(rows)))
    assert "30000" in refused(operations.Transact([], [operations.Remove("a")] * 30_001))
    assert "50000" in refused(*[operations.Remove("a")] * 50_001)
    assert "30000" in refused(operations.Transact([("a", [])], [operations.RemoveMany(list(rows)[:30_000])]))
    request(None, 1, operations.Transact([], [operations.RemoveMany(list(rows)[:30_000])]))


def test_an_old_log_is_read_whatever_the_limits_say_today() -> None:
    rows = {f"{number}": 1 for number in range(100_001)}
    frame = msgpack.encode_value([None, 1, [["insert_many", rows], ["query", "x" * 70_000, 1]]])
    _, (found,) = decode_group(msgpack.encode_group(1, [frame]))
    assert len(found.ops[0].rows) == 100_001


def test_one_request_looks_through_rows_so_often_and_finds_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turned red by dropping either bound."""
    table = Table()
    run(table, operations.InsertMany({f"{number}": raw({"n": 1}) for number in range(20)}))
    results = run(table, *[operations.Keys("none")] * 1001)
    assert [code for code, _ in results[998:]] == [0, 0, errors.ResultTooLarge.code]
    monkeypatch.setattr(budget, "ROWS_FOUND_MAX", 50)
    query = operations.Query("n", raw(1))
    assert [code for code, _ in run(table, query, operations.Keys(), query, query)] == [
        0,
        0,
        errors.ResultTooLarge.code,
        errors.ResultTooLarge.code,
    ]
    assert [code for code, _ in run(table, *[operations.Items()] * 3)] == [0, 0, errors.ResultTooLarge.code]


def test_a_request_that_changes_much_looks_through_rows_afterwards_only_in_another_one() -> None:
    """Turned red by letting it: sixteen indexes followed 100,000 changes in one request."""
    table = Table()
    insert = operations.InsertMany({f"{number}": raw({"n": 1}) for number in range(1001)})
    results = run(table, operations.Keys(), insert, operations.Query("n", raw(1)), operations.Keys(), operations.Size())
    assert [code for code, _ in results] == [0, 0, errors.ResultTooLarge.code, errors.ResultTooLarge.code, 0]
    assert len(run(table, operations.Query("n", raw(1)))[0][1]) == 1001
    large = operations.Insert("large", raw("x" * (1 << 20)))
    assert [code for code, _ in run(table, large, large, operations.Keys())] == [0, 0, errors.ResultTooLarge.code]


# ---- indexes in slices


def fill(table: Table, count: int) -> None:
    run(table, operations.InsertMany({f"{number:06}": raw({"n": number % 10}) for number in range(count)}))


def check_indexes(table: Table) -> None:
    """Compare what the indexes say with the rows."""
    rows = {key: msgpack.decode_value(value) for key, value in table.rows.items()}
    assert list(table.indexes.keys("", None)) == sorted(rows)
    for number in range(12):
        assert table.indexes.on("n").find(number) == sorted(
            key for key, value in rows.items() if value.get("n") == number
        )


@pytest.mark.parametrize("seed", range(20))
def test_an_index_built_while_rows_change_is_the_one_built_at_once(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Turned red by not following changes made meanwhile, and by following them but once."""
    monkeypatch.setattr(indexes, "_SLICE_ROWS", 7)
    monkeypatch.setattr(indexes, "_PART_KEYS", 20)
    source = random.Random(seed)
    table = Table()
    fill(table, 300)
    table.indexes.want(frozenset(("n",)), True)
    while table.indexes.work(0.0):
        for _ in range(source.randrange(4)):
            key = f"{source.randrange(330):06}"
            if source.random() < 0.4:
                run(table, operations.RemoveMany([key]))
            else:
                run(table, operations.Insert(key, raw({"n": source.randrange(12)})))
    assert table.indexes.are_ready(["n"], True)
    check_indexes(table)


def test_who_is_too_far_behind_is_built_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turned red by noting changes without bound."""
    monkeypatch.setattr(indexes, "CHANGES_MAX", 100)
    table = Table()
    fill(table, 50)
    check_indexes(table)
    run(table, *[operations.Insert(f"{number}", raw({"n": 1})) for number in range(101)])
    assert table.indexes.names() == [] and not table.indexes.active and not table.indexes._changes.keys
    check_indexes(table)


def test_a_change_is_noted_once_for_all_indexes_and_a_rollback_not_at_all() -> None:
    """Turned red by following at once: 16 indexes made a transaction that rolls back take 2.5 s."""
    table = Table()
    fill(table, 50)
    check_indexes(table)
    for number in range(10):
        table.indexes.on(f"s{number}")
    fill(table, 50)
    assert len(table.indexes._changes.keys) == 50
    failing = operations.Transact([], [operations.Insert("x", raw({"n": 1})), operations.Remove("none")])
    assert run(table, failing)[0][0] == errors.NoSuchKey.code
    assert len(table.indexes._changes.keys) == 50
    check_indexes(table)


def test_indexes_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turned red by counting them alone."""
    table = Table()
    run(
        table,
        operations.InsertMany({f"{number}": raw({"a": number, "b": number, "c": number}) for number in range(100)}),
    )
    table.indexes.on("a")
    one = table.indexes.kept_bytes
    assert one > 5000
    monkeypatch.setattr(indexes, "INDEX_BYTES_MAX", 2 * one)
    for subkey in ("b", "a", "c"):
        table.indexes.on(subkey)
    assert table.indexes.names() == ["a", "c"], "the one unused for the longest time went"
    monkeypatch.setattr(indexes, "INDEX_BYTES_MAX", one // 2)
    table.indexes.on("b")
    assert table.indexes.names() == ["b"], "one alone may be larger"
    assert not table.indexes.fit(frozenset(("a", "b"))) and table.indexes.fit(frozenset(("b",)))


# ---- requests that wait


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stepped]:
    """A server that builds one row of an index in a step."""
    monkeypatch.setattr(indexes, "_SLICE_ROWS", 1)
    monkeypatch.setattr(deferral, "AT_ONCE_S", 0.0)
    monkeypatch.setattr(deferral, "SLICE_S", 0.0)
    with Stepped() as table:
        peer = table.zmq()
        table.call(peer, "insert_many", {f"{number:04}": {"n": number % 2} for number in range(2000)})
        yield table


def test_others_are_served_while_an_index_is_built_and_a_peer_keeps_its_order(slow: Stepped) -> None:
    """Turned red by building at once, and by letting the later requests of the peer overtake."""
    asking, bridge, other = slow.zmq(), slow.tcp(), slow.zmq()
    asking.send(["query", "n", 1])
    asking.send(["insert", "late", {"n": 1}])
    asking.send(["query", "n", 1])
    bridge.send(b'{"method": "keys", "limit": 1}\n{"method": "lookup", "key": "0003"}\n')
    slow.gather(5)
    assert len(slow.server.dispatcher.deferral) == 5
    groups = len(slow.log.groups)
    assert slow.call(other, "lookup", "0001") == (0, {"n": 1})
    assert slow.call(other, "insert", "0001", {"n": 0}) == (0, None)
    assert slow.call(other, "stats")[1]["requests_waiting"] == 5
    assert len(slow.log.groups) == groups + 1, "nothing is logged of what waits"
    assert asking.replies() == [] and bridge.lines() == []
    first, second, third = slow.replies(asking, 3)
    assert [first[0], second[0], third[0]] == [1, 2, 3]
    assert len(first[2][0][1]) == 999 and second[2] == [[0, None]] and len(third[2][0][1]) == 1000
    assert [line["result"] for line in slow.lines(bridge, 2)] == [["0000"], {"n": 1}]
    assert not slow.server.dispatcher.deferral


def test_what_can_be_built_in_no_time_does_not_wait() -> None:
    with Stepped() as table:
        peer = table.zmq()
        table.call(peer, "insert_many", {f"{number:03}": {"n": number % 2} for number in range(100)})
        peer.send(["query", "n", 1], ["keys"])
        table.gather(1)
        assert len(table.replies(peer)[0][2][0][1]) == 50


@pytest.mark.parametrize(
    "bounds",
    [("WAITING_OF_ONE_MAX", 3), ("WAITING_BYTES_OF_ONE_MAX", 30), ("WAITING_MAX", 3), ("WAITING_BYTES_MAX", 40)],
)
def test_who_sends_too_much_meanwhile_is_refused_what_is_not_built(
    slow: Stepped, monkeypatch: pytest.MonkeyPatch, bounds: tuple[str, int]
) -> None:
    """Turned red by dropping each of the bounds."""
    monkeypatch.setattr(deferral, *bounds)
    asking = slow.zmq()
    asking.send(["query", "n", 1])
    for _ in range(4):
        asking.send(["increment", "i"])
    asking.send(["keys"], ["size"])
    slow.gather(6)
    replies = slow.replies(asking, 6)
    assert [reply[0] for reply in replies] == [1, 2, 3, 4, 5, 6]
    assert replies[0][2] == [[errors.ResultTooLarge.code, deferral.BEING_BUILT]]
    assert [reply[2][0][1] for reply in replies[1:5]] == [1, 2, 3, 4]
    assert replies[5][2] == [[errors.InvalidRequest.code, deferral.BEING_BUILT]]


def test_a_peer_that_leaves_while_its_request_waits_does_no_harm(slow: Stepped) -> None:
    leaving, hanging_up = slow.zmq(), slow.tcp()
    leaving.send(["query", "n", 1])
    hanging_up.send(b'{"method": "query", "subkey": "n", "subvalue": 1}\n')
    slow.gather(2)
    assert len(slow.server.dispatcher.deferral) == 2
    leaving.close()
    hanging_up.close()
    slow.until(lambda: not slow.server.dispatcher.deferral)
    assert slow.call(slow.zmq(), "size") == (0, 2000)


def test_a_request_whose_indexes_are_too_large_together_is_refused(
    slow: Stepped, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Turned red by building them all the same: each drove the other out, and nobody was ever answered."""
    monkeypatch.setattr(indexes, "INDEX_BYTES_MAX", 100)
    monkeypatch.setattr(deferral, "INDEX_BYTES_MAX", 100)
    peer = slow.zmq()
    slow.call(peer, "insert", "x", {"m": 1})
    peer.send(["query", "n", 1], ["query", "m", 1])
    ((_, _, ((code, message),)),) = slow.replies(peer)
    assert code == errors.InvalidRequest.code and "one at a time" in message
    assert len(slow.call(peer, "query", "n", 1)[1]) == 1000


def test_a_step_that_wrote_much_looks_through_rows_after_the_indexes_have_followed(slow: Stepped) -> None:
    """Turned red by executing both in one group: every index followed all changes at once."""
    peer = slow.zmq()
    assert len(slow.call(peer, "query", "n", 1)[1]) == 1000
    groups = len(slow.log.groups)
    peer.send(["insert_many", {f"x{number}": {"n": 1} for number in range(3000)}])
    peer.send(["query", "n", 1])
    slow.gather(2)
    assert peer.replies()[1:] == [] and len(slow.server.dispatcher.deferral) == 1
    assert len(slow.log.groups) == groups + 1
    while not (found := [reply for reply in peer.replies() if reply[0] == 3]):
        slow.server.dispatcher.tick()
        slow.router.flush()
    assert len(found[0][2][0][1]) == 4000


# ---- expiry in slices


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_module, "EXPIRED_ROWS_MAX", 10)


def expiring(count: int) -> Table:
    table = Table()
    table.advance(SECOND_US)
    run(table, *[operations.Insert(f"{number:03}", raw({"n": 1}), 1.0) for number in range(count)])
    return table


@pytest.mark.usefixtures("few")
def test_rows_that_are_due_are_gone_before_they_are_removed() -> None:
    """Turned red by reads, and by writes, that meet a row whose removal is not yet its turn."""
    table = expiring(35)
    assert table.leaves_expiry_backlog(2 * SECOND_US) and not table.leaves_expiry_backlog(2 * SECOND_US - 1)
    table.advance(2 * SECOND_US)
    assert len(table.rows) == 25 and table.has_expiry_backlog and table.revision == 45
    gone = [
        code
        for code, _ in run(
            table, operations.Lookup("034"), operations.Ttl("034"), operations.Remove("034"), operations.Expire("034")
        )
    ]
    assert gone == [errors.NoSuchKey.code] * 4
    assert run(table, operations.Lookup("034"))[0][0] == errors.NoSuchKey.code
    assert run(table, operations.LookupMany(["033", "034"]), operations.RemoveMany(["033", "034"])) == [[0, {}], [0, 0]]
    assert run(table, operations.Increment("032"), operations.SetDefault("031", raw(7))) == [[0, 1], [0, 7]]
    assert run(
        table, operations.CompareAndSet("030", [raw({"n": 1})], []), operations.CompareAndSet("030", [], [raw(5)])
    ) == [[0, False], [0, True]]
    assert run(table, operations.Transact([("029", [])], [operations.Insert("029", raw(1))])) == [[0, [None]]]
    before = len(table.rows)
    failing = operations.Transact([], [operations.Insert("028", raw(1)), operations.Remove("027")])
    assert run(table, failing)[0][0] == errors.NoSuchKey.code and len(table.rows) == before
    run(table, operations.InsertMany({"028": raw(2)}))
    while table.has_expiry_backlog:
        table.advance(2 * SECOND_US)
    assert sorted(table.rows) == ["028", "029", "030", "031", "032"] and not table.expiries
    assert table.revision == 35 + 35 + 5, "each row expired once, each written again once"


@pytest.mark.usefixtures("few")
def test_slices_replay_to_the_same_table() -> None:
    """Turned red by slices that depend on the clock: each group removes as many rows in every replay."""
    with Stepped() as table:
        peer = table.zmq()
        for number in range(35):
            table.call(peer, "insert", f"{number:03}", number, 1.0)
        table.now_us += 2 * SECOND_US
        assert table.call(peer, "lookup", "034")[0] == errors.NoSuchKey.code
        assert table.call(peer, "setdefault", "034", 1) == (0, 1)
        table.until(lambda: not table.store.table.has_expiry_backlog)
        assert len(table.log.groups) > 35 + 2, "it took several groups"
        twins = [Table(), Table()]
        for group in table.log.groups:
            time_us, requests = decode_group(group)
            for twin in twins:
                twin.advance(time_us)
                for item in requests:
                    twin.execute(item)
            again = Table()
            again.load(twins[1].dump())
            twins[1] = again
        assert dump_of(table.store.table) == dump_of(twins[0]) == dump_of(twins[1])
        assert table.call(peer, "size") == (0, 1), "whoever looks through all rows waits until they are removed"
        assert table.store.table.revision == 35 + 35 + 1


@pytest.mark.usefixtures("few")
def test_looking_through_rows_waits_for_those_that_are_due_unless_nothing_can_be_written() -> None:
    """Turned red by counting and listing rows that are due."""
    with Stepped() as table:
        peer = table.zmq()
        for number in range(35):
            table.call(peer, "insert", f"{number:03}", {"n": 1}, 1.0)
        table.call(peer, "insert", "stays", {"n": 1})
        table.log.full = True
        table.now_us += 2 * SECOND_US
        table.settle()
        assert table.call(peer, "size") == (0, 36), "expiry is a change, too"
        table.log.full = False
        table.server.dispatcher.tick()
        peer.send(["size"], ["keys"], ["query", "n", 1])
        table.gather(1)
        assert table.store.table.has_expiry_backlog and len(table.server.dispatcher.deferral) == 1
        assert table.replies(peer)[0][2] == [[0, 1], [0, ["stays"]], [0, [["stays", {"n": 1}]]]]


def test_the_first_semantics_removes_all_at_once() -> None:
    table = expiring(table_module.EXPIRED_ROWS_MAX + 1)
    table.semantics = 1
    table.advance(2 * SECOND_US)
    assert not table.rows and not table.has_expiry_backlog


def test_stats_asked_often_in_one_request_are_made_once() -> None:
    """Turned red by making them each time: 100,000 of them took seconds."""
    with Stepped() as table:
        made: list[int] = []
        describe = table.server.dispatcher.served._describe
        table.server.dispatcher.served._describe = noting(lambda: made.append(1), describe)
        peer = table.zmq()
        peer.send(*[["stats"]] * 100)
        assert len(table.replies(peer)[0][2]) == 100 and len(made) == 1


@pytest.mark.parametrize("op", [["clients", "", 1], ["kick", "nobody"]], ids=["clients", "kick"])
def test_clients_asked_for_often_in_one_request_are_looked_up_once(op: list[Any]) -> None:
    """Red with a look for each: with 1,000 peers 50,000 of them took 8 s."""
    with Stepped() as table:
        looked: list[int] = []
        table.bridge.clients = noting(lambda: looked.append(1), table.bridge.clients)  # type: ignore[method-assign]
        peer = table.zmq()
        peer.send(*[op] * 100)
        assert len(table.replies(peer)[0][2]) == 100 and len(looked) == 1
        peer.send(op)
        table.replies(peer)
        assert len(looked) == 2, "for each request anew"


def test_no_client_is_described_for_a_reply_that_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """Red with the room looked at afterwards: 200 of them took 0.5 s with 1,000 peers."""
    monkeypatch.setitem(budget._RESULT_BYTES_MAX, SEMANTICS, 10_000)
    with Stepped() as table:
        described: list[int] = []
        table.bridge.describe = noting(lambda client: described.append(1), table.bridge.describe)  # type: ignore[method-assign]
        for _ in range(10):
            table.tcp()
        peer = table.zmq()
        peer.send(*[["clients"]] * 100)
        codes = [code for code, _ in table.replies(peer)[0][2]]
        assert codes[0] == errors.OK and codes[-1] == errors.ResultTooLarge.code
        assert len(described) <= 10 * (codes.count(errors.OK) + 1)


def test_a_client_is_kicked_once_in_a_request_and_not_listed_any_more() -> None:
    with Stepped() as table:
        table.tcp()
        peer = table.zmq()
        (name,) = [one["name"] for one in table.call(peer, "clients")[1] if one["transport"] == "bridge"]
        peer.send(["kick", name], ["kick", name], ["clients"])
        _, _, ((_, first), (_, second), (_, listed)) = table.replies(peer)[0]
        assert (first, second) == (True, False) and name not in [one["name"] for one in listed]


@pytest.mark.usefixtures("few")
def test_rows_that_are_due_go_on_being_removed_while_every_request_waits_for_it() -> None:
    """Turned red by a step that executes nothing, and so logs no time, when all its requests are set aside."""
    with Stepped() as table:
        peer = table.zmq()
        for number in range(35):
            table.call(peer, "insert", f"{number:03}", number, 1.0)
        table.now_us += 2 * SECOND_US
        for _ in range(12):
            peer.send(["size"])
            table.gather(1)
        assert not table.store.table.rows
        assert {reply[2][0][1] for reply in table.replies(peer, 1)} == {0}


def test_who_sends_no_more_still_gets_the_reply_that_waits_for_an_index(slow: Stepped) -> None:
    """Turned red by closing a half-closed connection as soon as all its lines were taken in."""
    peer = slow.tcp()
    peer.send(b'{"method": "keys", "limit": 3}\n')
    peer.finish()
    assert slow.lines(peer, 1) == [{"status": "OK", "result": ["0000", "0001", "0002"]}]
    slow.until(lambda: peer.ended, first=peer.read)


@pytest.mark.usefixtures("few")
def test_no_backlog_is_left_when_what_was_due_has_been_written_again() -> None:
    """Turned red by noting lateness only where time is logged: the loop spun, and reads were refused, until a write."""
    with Stepped() as table:
        peer = table.zmq()
        for number in range(11):
            table.call(peer, "insert", f"{number:03}", number, 1.0)
        table.now_us += 2 * SECOND_US
        table.zmq().send(["insert", "010", 1])  # the group removes the first ten rows; the last is written again
        table.gather(1)
        table.until(lambda: not table.server.dispatcher.deferral.is_busy)
        assert table.call(peer, "size") == (0, 1)


def test_a_step_works_on_indexes_for_as_long_as_it_has_executed_while_somebody_waits(
    slow: Stepped, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Turned red by a constant time: who writes in bulk changed more in each step than was followed after it."""
    until: list[float] = []
    table_indexes = slow.store.table.indexes
    peer = slow.zmq()
    peer.send(["query", "n", 1])
    slow.gather(1)
    assert slow.server.dispatcher.deferral
    work = noting(lambda until_s, clock: until.append(until_s - clock()), lambda *_: False)
    monkeypatch.setattr(table_indexes, "work", work)
    slow.server.dispatcher.deferral.work(0.02)
    assert until and until[0] == pytest.approx(0.04, abs=0.01)
    monkeypatch.undo()
    assert slow.replies(peer, 1)
