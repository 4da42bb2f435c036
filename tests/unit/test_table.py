"""The table against a model made of a dict, and against itself: determinism, dump and load."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from msgspec import UNSET, Raw
from support.wire import results_of
from support.witness import Clients, copy_of, dump_of, raw, request

from kvzmq import errors
from kvzmq.protocol import limits, messages, msgpack, operations
from kvzmq.protocol.declaration import Operation
from kvzmq.protocol.messages import Request
from kvzmq.store import history, indexes
from kvzmq.store.equality import comparable
from kvzmq.store.expiries import Expiries
from kvzmq.store.history import History
from kvzmq.store.indexes import read_subkey
from kvzmq.store.table import Table

PHASES = [Phase.generate] if os.environ.get("KVZMQ_MUTANT") else list(Phase)
"""A planted fault only has to be found, not to be shrunk."""

SUBKEYS = ["n", "", 'q"\\', "é"]

keys = st.sampled_from(["a", "b", "ab", "abc", "", "é", "\0", "\U0010ffff", "z"])
scalars: Any = st.sampled_from([None, True, False, 0, 1, 1.0, -0.0, 2**63, 0.5, "", "1", "x", b"x"]) | st.integers(
    -3, 3
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(SUBKEYS), inner, max_size=3),
    max_leaves=5,
)
ttls = st.none() | st.sampled_from([0.000001, 0.5, 1.0, 2.5])
absent: Any = type("Absent", (), {"__repr__": lambda self: "absent"})()


def equal(one: Any, other: Any) -> bool:
    """Say whether two values of JSON are equal: 1 and 1.0 are, 1 and true are not."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return one == other
    if type(one) is not type(other):
        return False
    if isinstance(one, list):
        return len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    return bool(one == other)


class Failed(Exception):
    """The error that the model expects of an operation."""


class Model:
    """What the table should do, in a dict of decoded values."""

    def __init__(self) -> None:
        self.rows: dict[str, Any] = {}
        self.deadlines: dict[str, int] = {}
        self.revision = 0
        self.time_us = 0
        self.changes: list[tuple[str, Any, Any]] = []

    def change(self, key: str, value: Any, deadline_us: int | None = None) -> None:
        self.changes.append((key, self.rows.get(key, absent), value))
        self.revision += 1
        self.deadlines.pop(key, None)
        if value is absent:
            del self.rows[key]
        else:
            self.rows[key] = value
            if deadline_us is not None:
                self.deadlines[key] = deadline_us

    def deadline(self, ttl_s: float | None) -> int | None:
        return None if ttl_s is None else self.time_us + math.ceil(ttl_s * 1e6)

    def advance(self, time_us: int) -> None:
        self.time_us = max(self.time_us, time_us)
        for deadline_us, key in sorted((deadline_us, key) for key, deadline_us in self.deadlines.items()):
            if deadline_us <= self.time_us:
                self.change(key, absent)

    def find(self, key: str) -> Any:
        if key not in self.rows:
            raise Failed(errors.NoSuchKey)
        return self.rows[key]

    def holds(self, key: str, expected: Any) -> bool:
        present = self.rows.get(key, absent)
        return present is expected if absent in (present, expected) else equal(present, expected)

    def increment(self, key: str, by: Any) -> Any:
        number = self.rows.get(key, 0)
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            raise Failed(errors.WrongType)
        number += by
        if (isinstance(number, int) and not -(2**63) <= number < 2**64) or not math.isfinite(number):
            raise Failed(errors.WrongType)
        self.change(key, number, self.deadlines.get(key))
        return number

    def query(self, subkey: str, subvalue: Any) -> list[tuple[str, Any]]:
        return [
            (key, value)
            for key, value in sorted(self.rows.items())
            if isinstance(value, dict) and subkey in value and equal(value[subkey], subvalue)
        ]


def maybe(value: Any) -> list[Raw]:
    return [] if value is absent else [raw(value)]


class TableAgainstModel(RuleBasedStateMachine):
    """Every operation, in any order, on a table and on the model."""

    steps = 0

    def __init__(self) -> None:
        super().__init__()
        self.table = Table()
        self.model = Model()
        self.twin = Table()

    def run(self, op: Operation, expected: Callable[[], Any]) -> None:
        TableAgainstModel.steps += 1
        reply = self.table.execute(request(None, 1, op))
        if type(op).writes:
            self.twin.execute(request(None, 1, op))
        ((code, payload),) = results_of(reply)
        try:
            wanted = expected()
        except Failed as failed:
            assert code == failed.args[0].code, payload
        else:
            assert code == 0 and equal(payload, msgpack.decode_value(msgpack.encode_value(wanted)))
        assert reply.revision == self.table.revision == self.model.revision

    # ---- writes

    @rule(key=keys, value=values, ttl_s=ttls)
    def insert(self, key: str, value: Any, ttl_s: float | None) -> None:
        self.run(
            operations.Insert(key, raw(value), ttl_s), lambda: self.model.change(key, value, self.model.deadline(ttl_s))
        )

    @rule(key=keys)
    def remove(self, key: str) -> None:
        def expected() -> None:
            self.model.find(key)
            self.model.change(key, absent)

        self.run(operations.Remove(key), expected)

    @rule(rows=st.dictionaries(keys, values, max_size=4))
    def insert_many(self, rows: dict[str, Any]) -> None:
        def expected() -> None:
            for key, value in rows.items():
                self.model.change(key, value)

        self.run(operations.InsertMany({key: raw(value) for key, value in rows.items()}), expected)

    @rule(names=st.lists(keys, max_size=4))
    def remove_many(self, names: list[str]) -> None:
        def expected() -> int:
            present = [key for key in dict.fromkeys(names) if key in self.model.rows]
            for key in present:
                self.model.change(key, absent)
            return len(present)

        self.run(operations.RemoveMany(names), expected)

    @rule(key=keys, expected=values | st.just(absent), value=values | st.just(absent), right=st.booleans())
    def compare_and_set(self, key: str, expected: Any, value: Any, right: bool) -> None:
        if right:
            expected = self.model.rows.get(key, absent)

        def change() -> bool:
            if not self.model.holds(key, expected):
                return False
            if value is not absent or key in self.model.rows:
                self.model.change(key, value)
            return True

        self.run(operations.CompareAndSet(key, maybe(expected), maybe(value)), change)

    @rule(key=keys, value=values)
    def setdefault(self, key: str, value: Any) -> None:
        def expected() -> Any:
            if key not in self.model.rows:
                self.model.change(key, value)
            return self.model.rows[key]

        self.run(operations.SetDefault(key, raw(value)), expected)

    @rule(key=keys, by=st.sampled_from([1, -1, 0, 2**63 - 1, -(2**63), 2**64 - 1, 0.5, 1e308, -1e308]))
    def increment(self, key: str, by: Any) -> None:
        self.run(operations.Increment(key, by), lambda: self.model.increment(key, by))

    @rule(key=keys, ttl_s=ttls)
    def expire(self, key: str, ttl_s: float | None) -> None:
        self.run(
            operations.Expire(key, ttl_s),
            lambda: self.model.change(key, self.model.find(key), self.model.deadline(ttl_s)),
        )

    @rule(
        checks=st.lists(st.tuples(keys, values | st.just(absent), st.booleans()), max_size=2),
        steps=st.lists(
            st.tuples(st.sampled_from(["insert", "remove", "increment", "remove_many", "lookup"]), keys, values, ttls),
            max_size=5,
        ),
        fails=st.booleans(),
    )
    def transaction(self, checks: list[Any], steps: list[Any], fails: bool) -> None:
        checks = [(key, self.model.rows.get(key, absent) if right else value) for key, value, right in checks]
        ops: list[Any] = []
        if fails:
            steps = [*steps, ("fail", "never there", None, None)]
        for kind, key, value, ttl_s in steps:
            makes: dict[str, Callable[[], Operation]] = {
                "fail": lambda: operations.Remove("never there"),
                "insert": lambda: operations.Insert(key, raw(value), ttl_s),  # noqa: B023
                "remove": lambda: operations.Remove(key),  # noqa: B023
                "increment": lambda: operations.Increment(key, 1),  # noqa: B023
                "remove_many": lambda: operations.RemoveMany([key, "a"]),  # noqa: B023
                "lookup": lambda: operations.Lookup(key),  # noqa: B023
            }
            ops.append(makes[kind]())

        def expected() -> list[Any]:
            model = self.model
            if not all(model.holds(key, value) for key, value in checks):
                raise Failed(errors.CheckFailed)
            saved = dict(model.rows), dict(model.deadlines), model.revision, len(model.changes)
            try:
                return [self._step(*step) for step in steps]
            except Failed:
                model.rows, model.deadlines, model.revision, length = saved
                del model.changes[length:]
                raise

        self.run(operations.Transact([(key, maybe(value)) for key, value in checks], ops), expected)

    def _step(self, kind: str, key: str, value: Any, ttl_s: float | None) -> Any:
        model = self.model
        if kind == "insert":
            return model.change(key, value, model.deadline(ttl_s))
        if kind in ("remove", "fail"):
            model.find(key)
            return model.change(key, absent)
        if kind == "increment":
            return model.increment(key, 1)
        if kind == "lookup":
            return model.find(key)
        present = [name for name in dict.fromkeys([key, "a"]) if name in model.rows]
        for name in present:
            model.change(name, absent)
        return len(present)

    @rule(by_us=st.sampled_from([0, 1, 500_000, 1_000_000, 5_000_000, -2_000_000]))
    def pass_time(self, by_us: int) -> None:
        time_us = self.model.time_us + by_us
        due = self.table.has_due_rows(time_us)
        before = self.model.revision
        self.model.advance(time_us)
        assert due == (self.model.revision > before)
        self.table.advance(time_us)
        self.twin.advance(time_us)
        assert self.table.time_us == self.model.time_us and self.table.revision == self.model.revision

    # ---- reads

    @rule(key=keys)
    def lookup(self, key: str) -> None:
        self.run(operations.Lookup(key), lambda: self.model.find(key))

    @rule(names=st.lists(keys, max_size=4))
    def lookup_many(self, names: list[str]) -> None:
        self.run(
            operations.LookupMany(names), lambda: {key: self.model.rows[key] for key in names if key in self.model.rows}
        )

    @rule()
    def size(self) -> None:
        self.run(operations.Size(), lambda: len(self.model.rows))

    @rule(subkey=st.sampled_from(SUBKEYS), subvalue=values)
    def query(self, subkey: str, subvalue: Any) -> None:
        self.run(operations.Query(subkey, raw(subvalue)), lambda: self.model.query(subkey, subvalue))

    @rule(data=st.data())
    def query_what_is_there(self, data: st.DataObject) -> None:
        maps = [value for value in self.model.rows.values() if isinstance(value, dict) and value]
        if maps:
            subkey, subvalue = data.draw(st.sampled_from(sorted(maps[0].items(), key=repr)))
            self.query(subkey, subvalue)

    @rule(
        prefix=st.sampled_from(["", "a", "ab", "é", "zz"]),
        after=st.none() | keys,
        limit=st.integers(1, 4),
        items=st.booleans(),
    )
    def page(self, prefix: str, after: str | None, limit: int, items: bool) -> None:
        def expected() -> list[Any]:
            found = sorted(key for key in self.model.rows if key.startswith(prefix) and (after is None or key > after))
            return [[key, self.model.rows[key]] if items else key for key in found[:limit]]

        self.run((operations.Items if items else operations.Keys)(prefix, after, limit), expected)

    @rule(key=keys)
    def ttl(self, key: str) -> None:
        def expected() -> float | None:
            self.model.find(key)
            deadline_us = self.model.deadlines.get(key)
            return None if deadline_us is None else (deadline_us - self.model.time_us) / 1e6

        self.run(operations.Ttl(key), expected)

    # ---- the table and itself

    @rule()
    def checkpoint(self) -> None:
        """Go on with a table made from the dump, without history and indexes."""
        self.table = copy_of(self.table)
        assert self.table.indexes.names() == []

    @rule()
    def look_back(self) -> None:
        first = self.table.history.first
        found = [
            (key, *(absent if value is None else msgpack.decode_value(value) for value in (before, after)))
            for _, (key, before, after) in self.table.history.since(first)
        ]
        wanted = self.model.changes[first:]
        assert len(found) == len(wanted) == self.table.revision - first
        for one, other in zip(found, wanted):
            assert one[0] == other[0]
            assert all(x is y if absent in (x, y) else equal(x, y) for x, y in zip(one[1:], other[1:]))

    @invariant()
    def is_as_the_model_says(self) -> None:
        assert self.table.rows.keys() == self.model.rows.keys()
        assert all(equal(msgpack.decode_value(value), self.model.rows[key]) for key, value in self.table.rows.items())
        assert dict(self.table.expiries.items()) == self.model.deadlines
        assert dump_of(self.table) == dump_of(self.twin), "reads and checkpoints make no difference"


def test_the_table_does_what_a_dict_would(
    full: bool, count: Callable[[str, int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every operation against the model, a twin that never reads, and dumps in between.

    Turned red by: a rollback that forgets deadlines, or the indexes; an index not kept up by expiry; 1 taken for true.
    """
    monkeypatch.setattr(indexes, "INDEXES_MAX", 2)
    TableAgainstModel.steps = 0
    run_state_machine_as_test(
        TableAgainstModel, settings=settings(max_examples=2000 if full else 80, stateful_step_count=50, phases=PHASES)
    )
    count("operations against the model", TableAgainstModel.steps)


def test_the_same_commands_make_the_same_table() -> None:
    """Guarantee 2: replay, replicas and compaction rest on it. Turned red by a set where a dict has to be."""
    for seed in range(5):
        clients = Clients(Random(seed), value_bytes_max=100)
        one, two = Table(), Table()
        for _ in range(300):
            time_us, batch = clients.time(), clients.batch()
            one.advance(time_us)
            two.advance(time_us)
            assert [one.execute(item) for item in batch] == [two.execute(item) for item in batch]
            if Random(seed).random() < 0.05:
                two = copy_of(two)
        assert dump_of(one) == dump_of(two)
        assert dump_of(copy_of(one)) == dump_of(one)


def test_a_transaction_that_fails_leaves_no_trace() -> None:
    """Guarantee 2: all or nothing, in rows, deadlines, indexes, history and revision.

    Turned red by a rollback that forgets the deadlines, by one that forgets the indexes, and by history that keeps
    what was taken back.
    """
    one = Table()
    for key, ttl_s in (("a", 1.0), ("b", None), ("c", 2.0)):
        one.execute(request(None, 1, operations.Insert(key, raw({"n": key}), ttl_s)))
    reads = request(
        None, 1, *[operations.Query("n", raw(value)) for value in "abcd"], operations.Items(), operations.Ttl("a")
    )
    before, changes, found = dump_of(one), list(one.history.since(0)), one.execute(reads)
    steps: list[Any] = [
        operations.Insert("a", raw({"n": "d"})),
        operations.Insert("d", raw({"n": "d"}), 3.0),
        operations.Remove("b"),
        operations.Expire("c"),
        operations.RemoveMany(["c", "d"]),
        operations.InsertMany({"b": raw(1), "d": raw({"n": "a"})}),
        operations.SetDefault("f", raw(1)),
        operations.Increment("e", 5),
        operations.Remove("missing"),
    ]
    reply = one.execute(request(None, 1, operations.Transact([], steps)))
    assert results_of(reply)[0][0] == errors.NoSuchKey.code
    assert one.execute(reads).results == found.results and reply.revision == 3
    assert list(one.history.since(0)) == changes
    assert dict(one.expiries.items()) == {"a": 1_000_000, "c": 2_000_000}
    assert dict(copy_of(one).rows) == dict(one.rows) and sorted(one.rows) == ["a", "b", "c"]
    assert dump_of(one)[0] == before[0]
    one.advance(2_000_000)
    assert list(one.rows) == ["b"]


# ---- dump and load


def test_no_section_outgrows_what_is_read_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guarantee 1: 10,000 rows of a megabyte made one section that no reader took.

    Turned red by counting rows alone, as the first version did.
    """
    monkeypatch.setattr("kvzmq.store.sections._SECTION_BYTES", 1000)
    big = Table()
    for number in range(100):
        big.execute(request(bytes([number]) * 16, 1, operations.Insert(f"{number}" + "k" * number, raw("v" * 90), 1.0)))
        big.execute(request(bytes([number]) * 16, 2, operations.SetDefault(f"{number}" + "k" * number, raw(0))))
    sections = dump_of(big)
    assert max(map(len, sections)) < 3000
    small = Table()
    small.load(sections)
    assert dump_of(small) == sections


def test_a_checkpoint_that_lacks_rows_is_refused() -> None:
    full_table = Table()
    full_table.execute(request(None, 1, operations.Insert("a", raw(1))))
    head, rows = full_table.dump()
    for sections in ([head], [rows], []):
        with pytest.raises(errors.CorruptionError):
            Table().load(sections)


# ---- replies that would be too large


def test_results_too_large_for_a_reply_are_an_error_of_their_operation() -> None:
    big = Table()
    for number in range(6):
        big.execute(request(None, 1, operations.Insert(f"k{number}", raw(b"x" * (2 << 20)))))
    reply = big.execute(request(None, 1, *[operations.Lookup(f"k{number}") for number in range(6)]))
    codes = [code for code, _ in results_of(reply)]
    assert codes == [0, 0, 0, 0, errors.ResultTooLarge.code, errors.ResultTooLarge.code]
    assert len(msgpack.encode_reply(reply)) <= limits.REPLY_BYTES_MAX
    page = big.execute(request(None, 1, operations.Items()))
    assert len(results_of(page)[0][1]) == 4


def test_the_semantics_of_a_log_decide_what_its_requests_gave() -> None:
    """Seen red with one limit for all: a setdefault that had failed when it was logged was done by its replay."""
    value = raw(b"x" * ((8 << 20) - 500))
    for semantics, code, rows in ((1, errors.ResultTooLarge.code, 0), (2, errors.OK, 1)):
        table = Table()
        table.semantics = semantics
        reply = table.execute(request(None, 1, operations.SetDefault("k", value)))
        assert [result[0] for result in results_of(reply)] == [code]
        assert len(table.rows) == rows


# ---- indexes


@settings(max_examples=300)
@given(values, values)
def test_comparable_is_equality_of_json(one: Any, other: Any) -> None:
    assert (comparable(one) == comparable(other)) == equal(one, other)
    assert comparable(one) == comparable(msgpack.decode_value(msgpack.encode_value(one)))
    hash(comparable(one))


@settings(max_examples=200)
@given(st.text(), st.dictionaries(st.text(), values, max_size=4), values)
def test_any_subkey_is_read(subkey: str, value: dict[str, Any], inner: Any) -> None:
    read = read_subkey(subkey)
    value.pop(subkey, None)
    assert read(msgpack.encode_value(value)) is UNSET
    value[subkey] = inner
    assert read(msgpack.encode_value(value)) == inner
    assert read(msgpack.encode_value([subkey])) is UNSET


def test_of_two_entries_of_one_name_the_last_counts() -> None:
    assert read_subkey("a")(b"\x82\xa1a\x01\xa1a\x02") == 2 == msgpack.decode_value(b"\x82\xa1a\x01\xa1a\x02")["a"]


def test_an_index_dropped_and_built_again_is_the_same() -> None:
    one = Table()
    for number in range(200):
        one.execute(request(None, 1, operations.Insert(f"k{number % 50}", raw({"a": number % 7, "b": number % 3}))))
    first = one.execute(request(None, 1, operations.Query("a", raw(3))))
    for number in range(indexes.INDEXES_MAX + 3):
        one.execute(request(None, 1, operations.Query(f"other{number}", raw(1))))
    assert "a" not in one.indexes.names() and len(one.indexes.names()) == indexes.INDEXES_MAX
    assert one.execute(request(None, 1, operations.Query("a", raw(3)))).results == first.results


# ---- expiries and history


def test_deadlines_that_change_often_take_no_more_room() -> None:
    """Guarantee 9. Turned red by a heap that only grows."""
    expiries = Expiries()
    for number in range(100_000):
        expiries.set(f"k{number % 10}", number)
    assert len(expiries) == 10 and len(expiries._heap) < 2000
    assert expiries.due(99_994) == [f"k{number}" for number in range(5)]
    assert expiries.next_us() == 99_995


def test_rows_due_together_go_by_deadline_then_by_key() -> None:
    expiries = Expiries()
    for key, deadline_us in (("b", 5), ("a", 5), ("c", 4), ("d", 6), ("e", 1)):
        expiries.set(key, deadline_us)
    expiries.set("e", None)
    assert expiries.due(5) == ["c", "a", "b"]


def test_history_is_bounded_and_says_what_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guarantee 9. Turned red by bounding the number alone."""
    monkeypatch.setattr(history, "CHANGES_KEPT", 10)
    monkeypatch.setattr(history, "BYTES_KEPT", 50)
    monkeypatch.setattr(history, "CHUNK_CHANGES", 1)
    monkeypatch.setattr(history, "CHUNK_BYTES", 10)
    kept = History(100)

    def step(key: str, before: bytes | None, after: bytes | None) -> None:
        kept.add(key, before, after)
        kept.trim(kept.revision, kept.revision)

    for number in range(30):
        step(f"k{number}", None, b"x")
    assert kept.first == 120 and kept.revision == 130
    assert [revision for revision, _ in kept.since(125)] == [126, 127, 128, 129, 130]
    assert list(kept.since(130)) == []
    with pytest.raises(errors.RevisionGone):
        kept.since(119)
    step("big", b"x" * 20, b"x" * 15)
    assert kept.first == 121
    step("k", None, b"x")
    assert kept.first == 127, "the large one and three of four bytes are fifty"
    kept.extend(["k" * 60], [None], [None])
    kept.trim(kept.revision, kept.revision)
    step("k", None, b"x")
    assert kept.first == 132 and [key for _, (key, _, _) in kept.since(132)] == ["k" * 60, "k"], (
        "a key takes room as well"
    )


def test_history_waits_for_who_reads_within_larger_limits_and_keeps_the_last_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(history, "CHANGES_KEPT", 10)
    monkeypatch.setattr(history, "CHANGES_KEPT_MAX", 40)
    monkeypatch.setattr(history, "CHUNK_CHANGES", 1)
    kept = History(0)

    def step(changes: int, needed: int) -> int:
        began = kept.revision
        for number in range(changes):
            kept.add(f"k{number}", None, b"x")
        kept.trim(began, needed)
        return kept.first

    whole = History(0)
    for number in range(60):
        whole.add(f"k{number}", None, b"x")
    whole.trim(0, whole.revision)
    assert whole.first == 0, "the last step is there as a whole"
    assert step(30, needed=0) == 0
    assert step(1, needed=5) == 5, "and stays for who reads"
    assert step(1, needed=32) == 22
    assert [step(10, needed=22) for _ in range(6)] == [22] * 6
    assert step(10, needed=22) == 32, "but not for ever: forty, and the thirty of the large step it is in the midst of"
    assert step(200, needed=102) == 102
    assert step(1, needed=102) == 102
    assert step(1, needed=130) == 130
    assert step(1, needed=305) == 295


def test_history_knows_where_a_request_ended() -> None:
    table = Table()
    table.execute(request(None, 1, operations.Insert("a", raw(1))))
    table.execute(request(None, 1, operations.InsertMany({"b": raw(1), "c": raw(1), "d": raw(1)})))
    table.execute(request(None, 1, operations.Remove("a"), operations.Remove("b")))
    table.execute(request(None, 1, operations.Insert("a", raw(1))))
    assert [table.history.last_of_request(revision) for revision in range(1, 8)] == [1, 4, 4, 4, 6, 6, 7]


Column = tuple[str, bytes | None, bytes | None]
COLUMNS = st.tuples(st.text(max_size=12), *[st.none() | st.binary(max_size=4)] * 2)


@settings(max_examples=300)
@given(st.lists(COLUMNS | st.lists(COLUMNS, max_size=30), max_size=40))
def test_history_gives_every_change_it_keeps_and_keeps_enough(steps: list[Column | list[Column]]) -> None:
    """Seen red with chunks let go too early, and with a chunk begun at the wrong revision."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(history, "CHANGES_KEPT", 20)
        patched.setattr(history, "BYTES_KEPT", 200)
        patched.setattr(history, "CHUNK_CHANGES", 4)
        patched.setattr(history, "CHUNK_BYTES", 20)
        kept, made = History(7), []
        for step in steps:
            if isinstance(step, tuple):
                kept.add(*step)
                made.append(step)
            else:
                columns: list[Any] = [[change[column] for change in step] for column in range(3)]
                kept.extend(*columns)
                made += step
            kept.trim(kept.revision, kept.revision)
            assert kept.revision == 7 + len(made)
            count = kept.revision - kept.first
            for revision in range(kept.first, kept.revision + 1):
                assert list(kept.since(revision)) == list(enumerate(made, 8))[revision - 7 :]
            kept_bytes = sum(
                len(key) + len(before or b"") + len(after or b"") for key, before, after in made[len(made) - count :]
            )
            assert count >= min(20, len(made)) or kept_bytes >= 200
            assert count < 20 + 2 * 4 and kept_bytes < 200 + 2 * 20


def test_a_request_may_query_only_so_many_subkeys() -> None:
    """Turned red by dropping the bound: each subkey takes an index to be built, while everybody waits."""
    table = Table()
    queries = [operations.Query(f"subkey {number}", Raw(b"\x01")) for number in range(20)]
    reply = Table().execute(Request(None, 1, queries, b""))
    codes = [code for code, _ in results_of(reply)]
    assert codes == [errors.OK] * 16 + [errors.ResultTooLarge.code] * 4
    assert results_of(table.execute(Request(None, 2, queries[:1], b""))) == [[errors.OK, []]]


def test_the_errors_of_a_request_fit_one_reply() -> None:
    """Turned red by not charging for an error's text: 100,000 of them were four messages long."""
    table = Table()
    removes = [operations.Remove("\x00" * 90) for _ in range(100_000)]
    reply = table.execute(Request(None, 1, removes, b""))
    assert len(msgpack.encode_reply(reply)) < limits.REPLY_BYTES_MAX
    assert {code for code, _ in results_of(reply)} == {errors.NoSuchKey.code}


@pytest.mark.parametrize("size", [0, 1, 300, limits.LARGE_BYTES_MIN - 10, limits.LARGE_BYTES_MIN, 1 << 20])
def test_a_lookup_by_itself_is_answered_as_among_others(size: int) -> None:
    """Its short way gives the same: a large row is encoded when it is sent. Seen red without its bound."""
    table = Table()
    table.execute(request(None, 1, operations.Insert("k", raw("v" * size))))
    alone = table.execute(request(None, 2, operations.Lookup("k")))
    among = table.execute(request(None, 2, operations.Lookup("k"), operations.Ping()))
    assert alone.revision == among.revision
    assert results_of(alone)[0] == results_of(among)[0]
    assert isinstance(alone.results, messages.LargeResults) == (len(table.rows["k"]) >= limits.LARGE_BYTES_MIN)
