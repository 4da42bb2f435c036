"""What both clients promise, run against both, on a real server."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import inspect
import math
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
import pytest
from support.client_shells import SHELLS, open_shell, shell_of
from support.servers import ServerProcess, free_port, wait_until

import kvzmq

Call = Callable[[], object]

WAIT_S = 60.0

pytestmark = pytest.mark.usefixtures("asks_once")


@pytest.fixture(scope="module")
def one_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("contract") / "data") as server:
        yield server


@pytest.fixture(scope="module", params=SHELLS)
def client(request: pytest.FixtureRequest, one_server: ServerProcess) -> Iterator[Any]:
    with open_shell(request.param, one_server.url) as client:
        yield client


@pytest.fixture
def table(client: Any) -> Any:
    client.clear()
    return client


class Point(msgspec.Struct):
    x: int
    y: int = 0


@dataclasses.dataclass
class Robot:
    name: str
    at: Point
    load: list[float] = dataclasses.field(default_factory=list)


def operations_sent(table: Any) -> int:
    return int(table.stats()["operations"])


# ---- one row


def test_insert_lookup_remove(table: Any) -> None:
    table.insert("a", {"x": 1})
    assert table.lookup("a") == {"x": 1}
    table.insert("a", 2)
    assert table.lookup("a") == 2
    table.remove("a")
    with pytest.raises(KeyError, match="no key 'a'"):
        table.lookup("a")
    with pytest.raises(kvzmq.NoSuchKey):
        table.remove("a")


def test_a_row_with_a_time_to_live_expires(table: Any) -> None:
    table.insert("short", 1, ttl_s=0.05)
    table.insert("long", 1, ttl_s=1000)
    table.insert("good", 1)
    assert 900 < table.ttl("long") <= 1000
    assert table.ttl("good") is None
    wait_until(lambda: not table.contains("short"))
    assert list(table.keys()) == ["good", "long"]


def test_expire_sets_and_lifts_a_time_to_live(table: Any) -> None:
    table.insert("a", 1)
    table.expire("a", 100)
    assert 0 < table.ttl("a") <= 100
    table.expire("a", None)
    assert table.ttl("a") is None
    table.expire("a", 0.05)
    wait_until(lambda: not table.contains("a"))
    calls: list[Call] = [lambda: table.expire("a", 1), lambda: table.ttl("a")]
    for call in calls:
        with pytest.raises(KeyError):
            call()


def test_compare_and_set(table: Any) -> None:
    assert table.compare_and_set("a", kvzmq.ABSENT, 1)
    assert not table.compare_and_set("a", kvzmq.ABSENT, 2)
    assert not table.compare_and_set("a", 5, 2)
    assert table.compare_and_set("a", 1, {"k": [1, None]})
    assert table.compare_and_set("a", {"k": [1, None]}, None)
    assert table.lookup("a") is None
    assert table.compare_and_set("a", None, kvzmq.ABSENT)
    assert not table.contains("a")


def test_compare_and_set_for_a_time(table: Any) -> None:
    assert table.compare_and_set("a", kvzmq.ABSENT, 1, ttl_s=1000)
    assert not table.compare_and_set("a", kvzmq.ABSENT, 2, ttl_s=5000)
    assert table.lookup("a") == 1
    assert 900 < table.ttl("a") <= 1000
    assert table.compare_and_set("a", 1, [2], 5000)
    assert 4900 < table.ttl("a") <= 5000
    assert table.compare_and_set("a", [2], 3)
    assert table.ttl("a") is None
    below = table.namespace("n/")
    assert below.compare_and_set("a", kvzmq.ABSENT, 1, 0.05)
    wait_until(lambda: not table.contains("n/a"))
    with table.pipeline() as p:
        done = p.compare_and_set("a", 3, 4, ttl_s=1000)
        missed = p.compare_and_set("a", 3, 5, ttl_s=1000)
        left = p.ttl("a")
    assert (done.result(), missed.result()) == (True, False)
    assert 900 < left.result() <= 1000
    assert table.lookup("a") == 4


def test_increment(table: Any) -> None:
    assert table.increment("n") == 1
    assert table.increment("n", 41) == 42
    assert table.increment("n", -2) == 40
    assert table.increment("f", 0.5) == 0.5
    table.insert("s", "text")
    with pytest.raises(TypeError, match="not a number"):
        table.increment("s")
    table.insert("big", 2**64 - 1)
    with pytest.raises(kvzmq.WrongType, match="range"):
        table.increment("big")


def test_setdefault_and_pop(table: Any) -> None:
    assert table.setdefault("a", 1) == 1
    assert table.setdefault("a", 2) == 1
    assert table.setdefault("none") is None
    assert table.pop("a") == 1
    assert table.pop("a", "fallback") == "fallback"
    assert table.pop("a", None) is None
    with pytest.raises(KeyError):
        table.pop("a")


def test_contains(table: Any) -> None:
    table.insert("a", None)
    assert table.contains("a") is True
    assert table.contains("b") is False


# ---- many rows


def test_many_rows(table: Any) -> None:
    table.insert_many({"a": 1, "b": 2})
    table.insert_many([("c", 3), ("d", 4)])
    assert table.lookup_many(["a", "c", "nothing"]) == {"a": 1, "c": 3}
    assert table.size() == 4
    assert table.remove_many(["a", "b", "nothing"]) == 2
    assert dict(table.items()) == {"c": 3, "d": 4}


class Growing(Mapping[str, Any]):
    """A mapping that has one more row each time it is gone through, as a table that others write to."""

    def __init__(self, rows: dict[str, Any]) -> None:
        self.rows = rows

    def __getitem__(self, key: str) -> Any:
        return self.rows[key]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[str]:
        yield from sorted(self.rows)
        self.rows[f"a{len(self.rows)}"] = "came meanwhile"


@pytest.mark.parametrize("make", [
    Growing,
    MappingProxyType,
    lambda rows: iter(rows.items()),
    lambda rows: (iter(pair) for pair in rows.items()),
])  # fmt: skip
def test_rows_come_as_any_mapping_or_pairs_and_are_gone_through_once(
    table: Any, make: Callable[[dict[str, Any]], Any]
) -> None:
    """Red when keys and values were asked for one after the other: each value then belonged to the key before."""
    table.insert_many(make({"b": "of b", "c": "of c"}))
    assert dict(table.items()) == {"b": "of b", "c": "of c"}


def test_more_rows_than_one_request_carries(table: Any) -> None:
    rows = {f"row/{number:05}": number for number in range(12_000)}
    table.insert_many(rows)
    assert table.size() == 12_000
    assert table.lookup_many(rows) == rows
    assert list(table.keys()) == list(rows)
    assert list(table.values()) == list(rows.values())
    assert table.remove_many(rows) == 12_000


def test_many_large_rows(table: Any) -> None:
    rows = {f"row/{number}": "x" * 300_000 for number in range(40)}
    table.insert_many(rows)
    assert dict(table.items()) == rows
    assert list(table.keys("row/1")) == sorted(key for key in rows if key.startswith("row/1"))


def test_nothing_at_all(table: Any) -> None:
    table.insert_many({})
    table.update({})
    assert table.lookup_many([]) == {}
    assert table.remove_many([]) == 0
    assert list(table.items()) == []
    with table.pipeline() as p:
        pass
    assert len(p) == 0


def test_keys_items_and_values_are_sorted_and_below_a_prefix(table: Any) -> None:
    table.insert_many({"b/2": 2, "a/1": 1, "b/1": 3, "é": 4})
    assert list(table.keys()) == ["a/1", "b/1", "b/2", "é"]
    assert list(table.keys("b/")) == ["b/1", "b/2"]
    assert list(table.items("b/")) == [("b/1", 3), ("b/2", 2)]
    assert list(table.values("b/")) == [3, 2]
    assert list(table) == ["a/1", "b/1", "b/2", "é"]


def test_pages_hold_while_others_write(table: Any) -> None:
    table.insert_many({f"{number:05}": number for number in range(3000)})
    seen = []
    for key in table.keys(""):
        seen.append(key)
        if len(seen) == 500:
            table.remove_many([f"{number:05}" for number in range(1500, 2000)])
            table.insert_many({"00000.5": 1, "02500.5": 1})
    assert len(seen) == len(set(seen))
    stays = {f"{number:05}" for number in range(3000) if not 1500 <= number < 2000}
    assert stays <= set(seen)
    assert "02500.5" in seen


def test_query_finds_rows_by_what_they_hold(table: Any) -> None:
    table.insert_many({
        "z": {"color": "red", "n": 1}, "a": {"color": "red", "n": 1.0}, "b": {"color": "blue"}, "c": "red",
        "d": {"n": None},
    })  # fmt: skip
    assert table.query("color", "red") == [("a", {"color": "red", "n": 1.0}), ("z", {"color": "red", "n": 1})]
    assert [key for key, _ in table.query("n", 1)] == ["a", "z"]
    assert table.query("n", None) == [("d", {"n": None})]
    assert table.query("color", "green") == []
    table.insert("b", {"color": "red"})
    table.remove("z")
    assert [key for key, _ in table.query("color", "red")] == ["a", "b"]


def test_update_popitem_and_clear(table: Any) -> None:
    table.update({"b": 1}, c=2)
    table.update([("a", 0)])
    assert table.popitem() == ("a", 0)
    table.clear()
    assert table.size() == 0
    with pytest.raises(KeyError, match="empty"):
        table.popitem()


def test_a_result_too_large_for_one_reply_is_an_error_that_says_so(table: Any) -> None:
    table.insert_many({f"big{number}": {"k": 1, "v": "x" * 1_000_000} for number in range(10)})
    with pytest.raises(kvzmq.ResultTooLarge, match="ask for less"):
        table.query("k", 1)
    with pytest.raises(kvzmq.ResultTooLarge):
        table.lookup_many([f"big{number}" for number in range(10)])
    assert len(dict(table.items())) == 10


# ---- batches


def test_a_pipeline_is_one_request_in_order(table: Any) -> None:
    table.insert("before", 1)  # the first write of a client opens its session, by a request of its own
    table.remove("before")
    requests = table.stats()["requests"]
    with table.pipeline() as p:
        p.insert("a", 1)
        count = p.increment("a", 5)
        missing = p.remove("nothing")
        found = p.lookup("a")
        p.insert_many({"b": 1, "c": 2})
        many = p.lookup_many(["a", "b"])
        gone = p.remove_many(["c", "d"])
        first = p.setdefault("e", 1)
        was = p.compare_and_set("e", 1, 2)
        p.expire("e", 100)
        left = p.ttl("e")
        there, popped, size = p.contains("e"), p.pop("e"), p.size()
        rows = p.query("k", 1)
        assert len(p) == 15
    assert table.stats()["requests"] == requests + 2
    assert (count.result(), found.result(), many.result()) == (6, 6, {"a": 6, "b": 1})
    assert (gone.result(), first.result(), was.result(), rows.result()) == (1, 1, True, [])
    assert 90 < left.result() <= 100
    assert (there.result(), popped.result(), size.result()) == (True, 2, 2)
    with pytest.raises(KeyError):
        missing.result()


def test_a_pipeline_larger_than_a_request_goes_in_several(table: Any) -> None:
    with table.pipeline() as p:
        counts = [p.increment("n") for _ in range(30)]
        for number in range(30):
            p.insert(f"k{number}", "x" * 200_000)
        last = p.increment("n")
    assert [count.result() for count in counts] == list(range(1, 31))
    assert last.result() == 31
    assert table.size() == 31


def test_a_pipeline_whose_block_raises_sends_nothing(table: Any) -> None:
    with pytest.raises(ZeroDivisionError), table.pipeline() as p:
        result = p.insert("a", 1)
        raise ZeroDivisionError
    assert not table.contains("a")
    with pytest.raises(ValueError, match="not sent"):
        result.result()


def test_a_batch_takes_nothing_after_its_block(table: Any) -> None:
    """It would not be sent, and nobody would be told. Seen red with batches that took it."""
    with table.pipeline() as p:
        p.insert("a", 1)
    with pytest.raises(ZeroDivisionError), table.pipeline() as broken:
        raise ZeroDivisionError
    with table.transaction() as t:
        t.insert("b", 1)
    for batch in (p, broken, t):
        with pytest.raises(ValueError, match="the block of this batch has ended"):
            batch.insert("late", 1)
    assert dict(table.items()) == {"a": 1, "b": 1}


def test_a_transaction_is_all_or_nothing(table: Any) -> None:
    table.insert_many({"from": 10, "to": 0})
    with table.transaction({"from": 10, "lock": kvzmq.ABSENT}) as t:
        left = t.increment("from", -4)
        t.increment("to", 4)
        seen = t.lookup_many(["from", "to"])
        t.insert("lock", 1)
        t.remove("lock")
    assert (left.result(), seen.result()) == (6, {"from": 6, "to": 4})
    with pytest.raises(kvzmq.CheckFailed, match="from"), table.transaction({"from": 10}) as t:
        never = t.increment("from", -10)
    with pytest.raises(kvzmq.CheckFailed):
        never.result()
    with pytest.raises(KeyError), table.transaction() as t:
        t.insert("from", "overwritten")
        t.insert("new", 1)
        t.remove("nothing")
    assert dict(table.items()) == {"from": 6, "to": 4}


def test_transactions_move_money_without_losing_any(table: Any) -> None:
    table.insert_many({"a": 100, "b": 0})
    for _ in range(100):
        with table.transaction() as t:
            t.increment("a", -1)
            t.increment("b", 1)
    assert table.lookup_many(["a", "b"]) == {"a": 0, "b": 100}


# ---- values

GOOD = [
    None, True, False, 0, -1, 2**63, 2**64 - 1, -(2**63), 1.5, -0.0, 1e308, "", "text",
    "\0\n\u00e9\u0065\u0301\U0001f600", b"", b"\x00\xff", [], {}, [1, [2, [3]]], {"": {"a b": [b"x"]}}, ["x"] * 1000,
    {"deep": [[[[[[[[["down"]]]]]]]]]},
]  # fmt: skip


@pytest.mark.parametrize("value", GOOD, ids=lambda value: repr(value)[:30])
def test_a_value_comes_back_as_it_went_in(table: Any, value: Any) -> None:
    table.insert("k", value)
    back = table.lookup("k")
    assert back == value
    assert type(back) is type(value)


def test_values_that_come_back_as_something_plainer(table: Any) -> None:
    moment = datetime.date(2026, 1, 2)
    number = uuid.UUID(int=5)
    table.insert("k", {"tuple": (1, (2,)), "bytes": bytearray(b"x"), "date": moment, "uuid": number, "set": {1}})
    assert table.lookup("k") == {
        "tuple": [1, [2]], "bytes": b"x", "date": "2026-01-02", "uuid": str(number), "set": [1],
    }  # fmt: skip


def test_structs_and_dataclasses_in_and_out(table: Any) -> None:
    robot = Robot("r2", Point(1, 2), [0.5])
    table.insert("robot", robot)
    assert table.lookup("robot") == {"name": "r2", "at": {"x": 1, "y": 2}, "load": [0.5]}
    assert table.lookup("robot", Robot) == robot
    assert table.lookup("robot", type=Robot).at.y == 2
    table.insert_many({"p1": Point(1), "p2": Point(2)})
    assert table.lookup_many(["p1", "p2"], type=Point) == {"p1": Point(1), "p2": Point(2)}
    assert dict(table.items("p", type=Point)) == {"p1": Point(1), "p2": Point(2)}
    assert list(table.values("p", type=Point)) == [Point(1), Point(2)]
    assert table.query("x", 2, type=Point) == [("p2", Point(2))]
    with pytest.raises(msgspec.ValidationError, match="x"):
        table.lookup("robot", Point)
    with table.pipeline() as p:
        point, wrong = p.lookup("p1", Point), p.lookup("robot", Point)
    assert point.result() == Point(1)
    with pytest.raises(msgspec.ValidationError):
        wrong.result()


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def cycle() -> Any:
    value: dict[str, Any] = {"a": [1]}
    value["a"].append(value)
    return value


BAD: list[tuple[Any, type[Exception], str]] = [
    (math.nan, ValueError, "value is nan"),
    ({"a": [0, 1, 2, math.inf]}, ValueError, 'value["a"][3] is inf'),
    ({"a": [0, 1, 2, 2**64]}, ValueError, 'value["a"][3] is 18446744073709551616'),
    ([-(2**63) - 1], ValueError, "value[0]"),
    ({"a": {1: 2}}, ValueError, 'value["a"] has the key 1'),
    ({"a": {None: 2}}, ValueError, 'value["a"] has the key None'),
    ({"a": ["\ud800"]}, ValueError, 'value["a"][0] has a lone surrogate'),
    ({"\udfff": 1}, ValueError, "has a lone surrogate"),
    ({"a": [object()]}, TypeError, 'value["a"][0] is an object'),
    ([{"a": Point(1, 2**70)}], ValueError, 'value[0]["a"]["y"]'),
    (Robot("r", Point(1), [math.nan]), ValueError, 'value["load"][0] is nan'),
    (nested(65), ValueError, "nested deeper than 64"),
    (nested(100_000), ValueError, "nested deeper than 64"),
    (cycle(), ValueError, 'value["a"][1] contains itself'),
    (1j, TypeError, "complex"),
    (lambda: 1, TypeError, "function"),
    ("x" * (9 << 20), ValueError, "do not fit a request"),
]


@pytest.mark.parametrize(("value", "kind", "message"), BAD, ids=range(len(BAD)))
def test_a_bad_value_is_refused_before_anything_is_sent(
    table: Any, value: Any, kind: type[Exception], message: str
) -> None:
    before = operations_sent(table)
    calls: list[Call] = [
        lambda: table.insert("k", value),
        lambda: table.insert_many({"ok": 1, "k": value}),
        lambda: table.setdefault("k", value),
        lambda: table.compare_and_set("k", kvzmq.ABSENT, value),
    ]
    for call in calls:
        with pytest.raises(kind) as caught:
            call()
        assert isinstance(caught.value, kind)
        assert message.removeprefix("value") in str(caught.value)
    with pytest.raises(kind), table.pipeline() as p:
        p.insert("fine", 1)
        p.insert("k", value)
    assert operations_sent(table) == before + 1


def transact(table: Any, checks: Any) -> None:
    with table.transaction(checks) as t:
        t.insert("a", 1)


def test_a_value_that_does_not_fit_its_type_is_named_by_its_key(table: Any) -> None:
    table.insert_many({"p1": {"x": 1}, "p2": {"x": "one"}})
    for call in (
        lambda: list(table.items(type=Point)),
        lambda: list(table.values(type=Point)),
        lambda: table.lookup_many(["p1", "p2"], type=Point),
        lambda: table.query("x", "one", type=Point),
    ):
        with pytest.raises(msgspec.ValidationError, match=r"the value of 'p2': Expected `int`, got `str` - at `\$\.x`"):
            call()


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda t: t.lookup(5), TypeError, "a key is a str"),
        (lambda t: t.insert(b"k", 1), TypeError, "a key is a str, not bytes"),
        (lambda t: t.remove("\ud800"), ValueError, "lone surrogate"),
        (lambda t: t.insert_many({"\ud800": 1}), ValueError, "lone surrogate"),
        (lambda t: t.insert_many({5: 1}), TypeError, "a key is a str"),
        (lambda t: t.lookup("k" * 65_537), ValueError, "65536"),
        (lambda t: t.namespace("n/").lookup("k" * 65_535), ValueError, "65536"),
        (lambda t: t.lookup_many("abc"), TypeError, "give a list"),
        (lambda t: t.remove_many("abc"), TypeError, "give a list"),
        (lambda t: t.insert("k", 1, ttl_s=0), ValueError, "ttl_s is 0"),
        (lambda t: t.insert("k", 1, ttl_s=math.nan), ValueError, "ttl_s is nan"),
        (lambda t: t.expire("k", -1), ValueError, "ttl_s is -1"),
        (lambda t: t.expire("k", "1"), TypeError, "ttl_s is a str"),
        (lambda t: t.increment("k", "1"), TypeError, "by is a str, not an integer or a float"),
        (
            lambda t: t.increment("k", decimal.Decimal(1)),
            TypeError,
            "by is a decimal.Decimal, not an integer or a float",
        ),
        (lambda t: t.insert_many("ab"), TypeError, "rows is a mapping, or pairs of a key and a value"),
        (lambda t: t.insert_many(None), TypeError, "rows is a mapping, or pairs of a key and a value"),
        (lambda t: t.insert_many([("a", 1, 2)]), TypeError, "rows is a mapping, or pairs of a key and a value"),
        (lambda t: list(t.keys(5)), TypeError, "a prefix is a str, not int"),
        (lambda t: list(t.items(b"a")), TypeError, "a prefix is a str, not bytes"),
        (lambda t: t.watch(5), TypeError, "a prefix is a str, not int"),
        (lambda t: t.watch(from_revision="5"), TypeError, "from_revision is a str: it is an integer"),
        (lambda t: t.watch(from_revision=True), TypeError, "from_revision is a bool"),
        (lambda t: t.watch_query("a", 1, from_revision=-1), ValueError, "from_revision is -1"),
        (
            lambda t: transact(t, ["a"]),
            TypeError,
            "checks is a list: it is a mapping of keys to the values they must have",
        ),
        (lambda t: t.increment("k", True), TypeError, "by is a bool"),
        (lambda t: t.increment("k", math.nan), ValueError, "by is nan"),
        (lambda t: t.increment("k", 2**64), ValueError, "by is 18446744073709551616"),
        (lambda t: t.query(5, 5), TypeError, "a subkey is a str"),
        (lambda t: t.query("k", math.nan), ValueError, "subvalue is nan"),
        (lambda t: t.compare_and_set("k", [math.nan], 1), ValueError, "expected[0] is nan"),
        (lambda t: t.compare_and_set("k", [math.nan], 1, 5.0), ValueError, "expected[0] is nan"),
        (lambda t: t.compare_and_set("k", 1, 2, 0), ValueError, "ttl_s is 0"),
        (lambda t: t.compare_and_set("k", 1, kvzmq.ABSENT, 5.0), ValueError, "ttl_s goes with a value"),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_bad_arguments_are_refused_before_anything_is_sent(
    table: Any, call: Any, kind: type[Exception], message: str
) -> None:
    before = operations_sent(table)
    with pytest.raises(kind) as caught:
        call(table)
    assert message in str(caught.value)
    assert operations_sent(table) == before + 1


@pytest.mark.parametrize("key", ["", " ", "\0", "\n", "é", "e\u0301", "k" * 65_536, "🤖" * 100, "a/b:c,d\"'"], ids=repr)
def test_any_text_is_a_key(table: Any, key: str) -> None:
    table.insert(key, 1)
    assert table.lookup(key) == 1
    assert list(table.keys()) == [key]


# ---- namespaces


def test_a_namespace_is_the_table_below_a_prefix(table: Any) -> None:
    robots = table.namespace("robots/")
    arms = robots.namespace("arms/")
    table.insert_many({"other": {"x": 1}, "robots/a": {"x": 1}})
    arms.insert("left", {"x": 1})
    assert table.lookup("robots/arms/left") == {"x": 1}
    assert list(robots.keys()) == ["a", "arms/left"]
    assert list(robots.keys("arms/")) == ["arms/left"]
    assert dict(robots.items()) == {"a": {"x": 1}, "arms/left": {"x": 1}}
    assert robots.lookup_many(["a", "other"]) == {"a": {"x": 1}}
    assert robots.query("x", 1) == [("a", {"x": 1}), ("arms/left", {"x": 1})]
    with robots.transaction({"a": {"x": 1}}) as t:
        t.insert("b", 2)
    with robots.pipeline() as p:
        found = p.lookup("b")
    assert found.result() == 2
    arms.clear()
    assert robots.popitem() == ("a", {"x": 1})
    robots.clear()
    assert list(table.keys()) == ["other"]
    assert "robots/" in repr(robots)


def test_a_namespace_ends_alone(table: Any) -> None:
    """Seen red with a namespace that closed its parent's connection."""
    with table.namespace("robots/") as robots:
        robots.insert("a", 1)
        inner = robots.namespace("arms/")
    assert table.lookup("robots/a") == 1
    assert inner.get("left") is None
    for call in (lambda: robots.lookup("a"), lambda: list(robots.keys()), lambda: robots.watch()):
        with pytest.raises(ValueError, match="the namespace is closed"):
            call()
    assert repr(robots).endswith("'robots/' closed>") and "closed" not in repr(table)
    robots.close()


@pytest.mark.parametrize("kind", SHELLS)
def test_closing_a_client_ends_its_namespaces(kind: str, one_server: ServerProcess) -> None:
    with open_shell(kind, one_server.url) as client:
        robots = client.namespace("robots/")
        robots.size()
        client.close()
        assert "closed" in repr(robots)
        for call in (robots.size, robots.watch):
            with pytest.raises(ValueError, match="closed"):
                call()


def test_a_prefix_is_a_string(table: Any) -> None:
    with pytest.raises(TypeError, match="a prefix is a str"):
        table.namespace(5)


def test_a_watch_of_a_namespace_leaves_out_the_prefix(table: Any) -> None:
    robots = table.namespace("robots/")
    with robots.watch() as changes, robots.watch_query("x", 1) as matches:
        table.insert("other", {"x": 1})
        robots.insert("a", {"x": 1})
        assert changes.get(WAIT_S)[1:] == ("a", {"x": 1}, False)
        assert matches.get(WAIT_S)[1:] == ("a", {"x": 1}, False)


# ---- watches


def test_a_watch_tells_every_change_in_order(table: Any) -> None:
    with table.watch() as changes:
        table.insert("a", 1)
        table.insert_many({"b": 2, "c": 3})
        table.remove("a")
        revision = table.revision
        events = [changes.get(WAIT_S) for _ in range(4)]
        assert [event[1:] for event in events] == [
            ("a", 1, False), ("b", 2, False), ("c", 3, False), ("a", None, True),
        ]  # fmt: skip
        assert [event.revision for event in events] == list(range(revision - 3, revision + 1))
        assert changes.revision == revision
        with pytest.raises(kvzmq.Timeout):
            changes.get(0.01)


def test_a_watch_tells_only_what_its_prefix_says(table: Any) -> None:
    with table.watch("a/") as changes:
        table.insert_many({"b/1": 1, "a/1": 1, "a": 1})
        table.insert("a/2", None)
        assert [changes.get(WAIT_S).key, changes.get(WAIT_S).key] == ["a/1", "a/2"]


def test_a_watch_begins_where_it_is_told_to(table: Any) -> None:
    table.insert("a", 1)
    began = table.revision
    for number in range(5):
        table.insert("a", number)
    with table.watch(from_revision=began) as changes:
        assert [changes.get(WAIT_S).value for _ in range(5)] == [0, 1, 2, 3, 4]
        assert changes.revision == table.revision


def test_a_watchs_revision_is_where_another_goes_on(table: Any) -> None:
    """Seen red with the revision of what was received instead of what was taken."""
    with table.watch() as changes:
        table.insert_many({f"{number}": number for number in range(10)})
        seen = [changes.get(WAIT_S).key for _ in range(4)]
        at = changes.revision
    with table.watch(from_revision=at) as changes:
        seen += [changes.get(WAIT_S).key for _ in range(6)]
    assert seen == [str(number) for number in range(10)]


def test_a_watch_says_when_the_past_is_gone_or_still_to_come(table: Any) -> None:
    with pytest.raises(kvzmq.RevisionGone, match="not yet"):
        table.watch(from_revision=table.revision + 1000)


def test_a_watched_query_tells_what_enters_changes_and_leaves(table: Any) -> None:
    table.insert("was", {"x": 1})
    with table.watch_query("x", 1) as changes:
        table.insert("was", {"x": 1, "more": 1})
        table.insert("other", {"x": 2})
        table.insert("other", {"x": 1})
        table.insert("other", {"x": 3})
        table.insert("other", {"x": 4})
        table.remove("was")
        assert [changes.get(WAIT_S)[1:] for _ in range(4)] == [
            ("was", {"x": 1, "more": 1}, False),
            ("other", {"x": 1}, False),
            ("other", None, True),
            ("was", None, True),
        ]


def test_expiry_is_a_change_like_any_other(table: Any) -> None:
    with table.watch() as changes:
        table.insert("a", 1, ttl_s=0.05)
        assert changes.get(WAIT_S).removed is False
        assert changes.get(WAIT_S)[1:] == ("a", None, True)


def test_a_closed_watch_stops_its_iteration(table: Any) -> None:
    changes = table.watch()
    changes.close()
    assert list(changes) == []


# ---- time, errors, life


def test_ping_stats_and_revision(table: Any) -> None:
    assert 0 < table.ping() < WAIT_S
    table.insert("a", 1)
    assert table.stats()["revision"] == table.revision
    assert table.stats()["keys"] == 1


@pytest.mark.parametrize("kind", SHELLS)
def test_without_a_server_everything_is_a_timeout_that_says_where(kind: str) -> None:
    url = f"tcp://127.0.0.1:{free_port()}"
    with open_shell(kind, url, timeout=0.5) as client:
        calls: list[Call] = [lambda: client.lookup("a"), lambda: client.insert("a", 1), lambda: client.watch()]
        for call in calls:
            with pytest.raises(kvzmq.Timeout, match=url):
                call()
        with pytest.raises(kvzmq.Timeout), client.pipeline() as p:
            result = p.insert("a", 1)
        with pytest.raises(kvzmq.Timeout):
            result.result()


@pytest.mark.parametrize("connect", [kvzmq.connect, kvzmq.connect_async])
def test_bad_arguments_of_a_watch_are_refused_before_there_is_a_connection(connect: Any) -> None:
    client = connect(f"tcp://127.0.0.1:{free_port()}")
    calls: list[Call] = [
        lambda: client.watch(5),
        lambda: client.watch_query("a", {1, object()}),
        lambda: client.watch("a", "5"),
    ]
    for call in calls:
        with pytest.raises(TypeError):
            call()


@pytest.mark.parametrize("kind", SHELLS)
def test_a_call_may_have_its_own_timeout(kind: str) -> None:
    with open_shell(kind, f"tcp://127.0.0.1:{free_port()}", timeout=60) as client, pytest.raises(TimeoutError):
        client.insert("a", 1, timeout=0.05)


@pytest.mark.parametrize("kind", SHELLS)
def test_an_endless_timeout_is_fine(kind: str, one_server: ServerProcess) -> None:
    with open_shell(kind, one_server.url, timeout=math.inf) as client:
        assert client.ping() < WAIT_S


@pytest.mark.parametrize("kind", SHELLS)
def test_a_closed_client_says_so(kind: str, one_server: ServerProcess) -> None:
    with open_shell(kind, one_server.url) as client:
        client.ping()
        client.close()
        client.close()
        assert "closed" in repr(client)
        with pytest.raises(ValueError, match="closed"):
            client.ping()


BAD_URLS = [
    ("", "is empty"),
    ("localhost:5570", "has no scheme, tcp://localhost:5570 perhaps"),
    ("tcp:/host:5570", "has no scheme, tcp://host:5570 perhaps"),
    ("tcp:host:5570", "has no scheme, tcp://host:5570 perhaps"),
    ("localhost", "has no scheme, tcp://localhost:5570 perhaps"),
    ("tcp://", "has no port"),
    ("tcp://host", "has no port"),
    ("tcp://:5570", "has no host"),
    ("tcp://*:5570", "is where a server listens"),
    ("tcp://host:65536", "has the port '65536', which is no number from 1 to 65535"),
    ("tcp://host:71106", "has the port '71106'"),
    ("tcp://host:0", "has the port '0'"),
    ("tcp://host:-1", "has the port '-1'"),
    ("tcp://host:5570/", "has the port '5570/'"),
    ("tcp://host:²", "has the port"),
    ("tcp://my host:5570", "has a space"),
    ("tcp://::1:5570", "not in brackets"),
    ("http://host:1", "has the scheme 'http', which kvzmq does not know"),
    ("etcd://host:2379/zoo", "is where servers keep their log"),
    ("TCP://host:1", "has the scheme 'TCP'"),
    ("tcp://a:1,,tcp://b:2", "'' is not a server's URL, it is empty"),
    ("tcp://a:1,tcp://b:99999", "'tcp://b:99999' is not a server's URL, it has the port"),
    ("ipc://", "has no path"),
    ("catalog://host:1", "names no project"),
    ("catalog://host:1/", "names no project"),
    ("catalog://host:99999/zoo", "has the port '99999'"),
    ("catalog://:1/zoo", "has no host"),
]


@pytest.mark.parametrize(("url", "fault"), BAD_URLS)
def test_a_malformed_url_is_refused_at_once_in_words(url: str, fault: str) -> None:
    """libzmq takes a port modulo 65,536, and connects elsewhere."""
    for connect in (kvzmq.connect, kvzmq.connect_async):
        with pytest.raises(ValueError, match=r"tcp://HOST:PORT") as caught:
            connect(url)
        assert fault in str(caught.value)


@pytest.mark.parametrize("url", [5570, b"tcp://a:1", ["tcp://a:1", "tcp://b:1"], ("a", 1)], ids=repr)
def test_a_url_is_a_string(url: Any) -> None:
    for connect in (kvzmq.connect, kvzmq.connect_async):
        with pytest.raises(TypeError, match=r"tcp://HOST:PORT.*commas"):
            connect(url)


@pytest.mark.parametrize(
    "url",
    ["tcp://a:1", "tcp://[::1]:5570", "ipc:///run/k.sock", "ipc://relative", "ipc://@abstract", "catalog://h:9097/zoo",
     "catalog://h/zoo", "catalog:///zoo", "catalog://[::1]/zoo", "tcp://a:1, tcp://b:65535", "tcp://1.2.3.4:0;5.6.7.8:5570"],
)  # fmt: skip
def test_a_good_url_is_taken(url: str) -> None:
    kvzmq.connect(url).close()


@pytest.mark.parametrize("kind", SHELLS)
@pytest.mark.parametrize("given", [(), (None,)], ids=repr)
def test_without_a_url_the_environments_is_used(
    kind: str, given: tuple[Any, ...], one_server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = kvzmq.connect if shell_of(kind)[0] == "blocking" else kvzmq.connect_async
    monkeypatch.setenv("KVZMQ_URL", one_server.url)
    with open_shell(kind, *given) as table:
        assert one_server.url in repr(table)
        assert table.ping() < WAIT_S
    monkeypatch.setenv("KVZMQ_URL", "nonsense")
    with pytest.raises(ValueError, match=r"'nonsense' .from KVZMQ_URL. is not a server's URL, it has no scheme"):
        connect(*given)
    for unset in ("", None):
        monkeypatch.delenv("KVZMQ_URL") if unset is None else monkeypatch.setenv("KVZMQ_URL", unset)
        assert "tcp://127.0.0.1:5570" in repr(connect(*given))


@pytest.mark.parametrize("timeout", [0, -1, math.nan, -math.inf])
def test_a_timeout_is_above_zero(timeout: float, table: Any) -> None:
    for connect in (kvzmq.connect, kvzmq.connect_async):
        with pytest.raises(ValueError, match=r"timeout is \S+: it (must be above 0|is a number of) seconds"):
            connect("tcp://127.0.0.1:1", timeout)
    for call in (table.ping, table.size, table.watch, lambda timeout: table.insert("k", 1, timeout=timeout)):
        with pytest.raises(ValueError, match="timeout"):
            call(timeout=timeout)
    assert table.size() == 0


@pytest.mark.parametrize("timeout", [True, "5", b"5", [5], {}], ids=repr)
def test_a_timeout_is_a_number(timeout: Any, table: Any) -> None:
    for connect in (kvzmq.connect, kvzmq.connect_async):
        with pytest.raises(TypeError, match=r"timeout is a .*: it is a number of seconds"):
            connect("tcp://127.0.0.1:1", timeout)
    with table.watch() as changes:
        for call in (table.ping, table.watch, changes.get):
            with pytest.raises(TypeError, match=r"timeout is a .*: it is a number of seconds"):
                call(timeout=timeout)


def test_a_wait_for_a_change_may_be_zero_or_less_but_not_nan(table: Any) -> None:
    with table.watch() as changes:
        for timeout in (0, -1):
            with pytest.raises(kvzmq.Timeout):
                changes.get(timeout)
        with pytest.raises(ValueError, match="timeout is nan"):
            changes.get(math.nan)


@pytest.mark.parametrize("kind", SHELLS)
def test_no_timeout_waits_until_the_server_comes(kind: str, tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data") as server:
        server.kill()
        with open_shell(kind, server.url, timeout=None) as client:
            server.launch()
            client.insert("a", 1)
            assert client.lookup("a", timeout=math.inf) == 1
            server.wait_until_listening()


@pytest.mark.parametrize("kind", SHELLS)
def test_an_ipc_endpoint_works_as_well(kind: str, tmp_path: Path) -> None:
    with (
        ServerProcess(tmp_path / "data", binds=[f"ipc://{tmp_path}/socket"]) as server,
        open_shell(kind, server.url) as client,
    ):
        client.insert("a", os.getpid())
        assert client.lookup("a") == os.getpid()


# ---- both have the same names


def methods(kind: type) -> dict[str, list[tuple[str, object, object]]]:
    return {
        name: [(p.name, p.kind, p.default) for p in inspect.signature(member).parameters.values()]
        for name, member in inspect.getmembers(kind, callable)
        if not name.startswith("_") and name != "fileno"  # of a blocking watch: the asyncio one has its loop
    }


@pytest.mark.parametrize(
    ("blocking", "asynchronous"), [(kvzmq.Client, kvzmq.AsyncClient), (kvzmq.Watch, kvzmq.AsyncWatch)]
)
def test_both_clients_have_the_same_methods_with_the_same_arguments(blocking: type, asynchronous: type) -> None:
    assert methods(blocking) == methods(asynchronous)


def test_every_public_name_has_a_docstring() -> None:
    for name in kvzmq.__all__:
        thing = getattr(kvzmq, name)
        if not inspect.isclass(thing):
            continue
        assert thing.__doc__, name
        for member, value in inspect.getmembers(thing):
            if not member.startswith("_") and (callable(value) or isinstance(value, property)):
                assert inspect.getdoc(value), f"{name}.{member}"
