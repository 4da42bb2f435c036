"""Values of all the types that people have: what comes back, and what an error says of those that are refused."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import pathlib
import types
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import msgspec
import numpy
import pydantic
import pytest
from support.client_shells import SHELLS, open_shell
from support.servers import ServerProcess

import kvzmq
from kvzmq.client.core import values

UTC = datetime.timezone.utc
EAST = datetime.timezone(datetime.timedelta(hours=2))


@pytest.fixture(scope="module", params=SHELLS)
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with (
        ServerProcess(tmp_path_factory.mktemp("values") / "data") as server,
        open_shell(request.param, server.url) as client,
    ):
        yield client


@pytest.fixture
def table(client: Any) -> Any:
    client.clear()
    return client


class Color(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Name(str):
    pass


class Count(int):
    pass


class Moment(datetime.datetime):
    """As the datetimes of libraries are."""


class Day(datetime.date):
    pass


Pair = collections.namedtuple("Pair", "a b")


class Reading(pydantic.BaseModel):
    sensor: str
    at: datetime.datetime
    degrees: decimal.Decimal
    tags: set[str] = set()


@dataclasses.dataclass
class Note:
    at: datetime.datetime
    id: uuid.UUID
    color: Color


@attrs.define
class Place:
    room: str
    color: Color


READING = Reading(
    sensor="attic", at=datetime.datetime(2026, 1, 2, 3, tzinfo=UTC), degrees=decimal.Decimal("21.50"), tags={"x"}
)

TAKEN: list[tuple[Any, Any, Any]] = [
    (datetime.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC), "2026-01-02T03:04:05.000006Z", datetime.datetime),
    (datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=EAST), "2026-01-02T03:04:05+02:00", datetime.datetime),
    (datetime.datetime(2026, 1, 2, 3, 4, 5), "2026-01-02T03:04:05", datetime.datetime),
    (Moment(2026, 1, 2, 3, tzinfo=UTC), "2026-01-02T03:00:00+00:00", datetime.datetime),
    (datetime.date(2026, 1, 2), "2026-01-02", datetime.date),
    (Day(2026, 1, 2), "2026-01-02", datetime.date),
    (datetime.time(3, 4), "03:04:00", datetime.time),
    (datetime.time(3, 4, tzinfo=UTC), "03:04:00Z", datetime.time),
    (datetime.timedelta(days=1, seconds=1.5), "P1DT1.5S", datetime.timedelta),
    (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005", uuid.UUID),
    (decimal.Decimal("1.50"), "1.50", decimal.Decimal),
    (Color.RED, "red", Color),
    (Level.LOW, 1, Level),
    (Name("n"), "n", str),
    (Count(5), 5, int),
    (Pair(1, 2), [1, 2], tuple[int, int]),
    ({1}, [1], set[int]),
    (collections.UserDict({"a": 1}), {"a": 1}, dict[str, int]),
    (types.MappingProxyType({"a": 1}), {"a": 1}, dict[str, int]),
    (memoryview(b"x"), b"x", bytes),
    (numpy.int64(-3), -3, int),
    (numpy.uint64(2**64 - 1), 2**64 - 1, int),
    (numpy.float64(1.5), 1.5, float),
    (numpy.float32(0.5), 0.5, float),
    (numpy.bool_(True), True, bool),
    (numpy.array(5), 5, int),
    (numpy.str_("s"), "s", str),
    (numpy.bytes_(b"s"), b"s", bytes),
    (READING, {"sensor": "attic", "at": "2026-01-02T03:00:00Z", "degrees": "21.50", "tags": ["x"]}, Reading),
    (
        Note(datetime.datetime(2026, 1, 2, tzinfo=UTC), uuid.UUID(int=1), Color.RED),
        {"at": "2026-01-02T00:00:00Z", "id": "00000000-0000-0000-0000-000000000001", "color": "red"},
        Note,
    ),
    (Place("attic", Color.RED), {"room": "attic", "color": "red"}, Place),
]  # fmt: skip


@pytest.mark.parametrize(("value", "kept", "kind"), TAKEN, ids=lambda part: type(part).__name__)
def test_a_value_is_kept_and_comes_back_when_asked_for_by_type(table: Any, value: Any, kept: Any, kind: Any) -> None:
    """The same by every way in, at the top and nested."""
    table.insert("k", value)
    back = table.lookup("k")
    assert back == kept and type(back) is type(kept)
    assert table.lookup("k", type=kind) == value
    table.insert_many({"plain": 1, "many": value, "bytes": b"x"})
    assert table.lookup_many(["many"]) == {"many": kept}
    assert table.lookup_many(["many"], type=kind) == {"many": value}
    nested = {"a": [0, {"b": value}], "bytes": b"x"}
    table.insert("nested", nested)
    assert table.lookup("nested") == {"a": [0, {"b": kept}], "bytes": b"x"}
    assert table.query("missing", value) == []
    table.insert("row", {"is": value})
    assert table.query("is", value) == [("row", {"is": kept})]
    assert table.compare_and_set("k", value, nested)
    assert table.compare_and_set("k", nested, value)
    assert table.setdefault("k", nested) == kept
    with table.transaction({"k": value}) as t:
        t.insert("k2", value)
    assert table.lookup("k2") == kept
    table.insert("list", [value, value])
    assert table.lookup("list", type=list[kind]) == [value, value]


def test_a_deque_comes_back_as_a_list(table: Any) -> None:
    table.insert("k", collections.deque([1, {"a": collections.deque()}]))
    assert table.lookup("k") == [1, {"a": []}]


def test_rows_of_datetimes_and_bytes_together_stay_what_they_are(table: Any) -> None:
    rows = {
        "moment": datetime.datetime(2026, 1, 2, tzinfo=UTC),
        "bytes": b"\x00",
        "array": bytearray(b"\x01"),
        "view": memoryview(b"\x02"),
    }
    table.insert_many(rows)
    table.insert("all", rows)
    kept = {"moment": "2026-01-02T00:00:00Z", "bytes": b"\x00", "array": b"\x01", "view": b"\x02"}
    assert table.lookup_many(rows) == kept
    assert table.lookup("all") == kept


def test_a_model_that_does_not_fit_is_a_validation_error(table: Any) -> None:
    table.insert("k", {"sensor": 5})
    with pytest.raises(msgspec.ValidationError, match="sensor"):
        table.lookup("k", type=Reading)
    with pytest.raises(msgspec.ValidationError, match=r"\$\[0\]"):
        table.insert("list", [{"sensor": 5}])
        table.lookup("list", type=list[Reading])
    with pytest.raises(msgspec.ValidationError, match="pydantic"):
        table.lookup("k", type=fractions.Fraction)


def test_numbers_of_numpy_are_arguments(table: Any) -> None:
    assert table.increment("n", numpy.int64(2)) == 2
    assert table.increment("n", numpy.float32(0.5)) == 2.5
    table.insert("short", 1, ttl_s=numpy.int64(100))
    table.expire("n", fractions.Fraction(1, 2) + 100)
    assert 90 < table.ttl("short") <= 100
    table.insert(numpy.str_("key"), {numpy.str_("a"): 1})
    assert table.query(numpy.str_("a"), numpy.int64(1)) == [("key", {"a": 1})]


class Stamp(datetime.datetime):
    """As pandas has it."""

    def to_pydatetime(self) -> datetime.datetime:
        return self.replace()


class Frame:
    def to_dict(self) -> dict[str, Any]:
        return {}


class Loop(pydantic.BaseModel):
    numbers: Any


REFUSED: list[tuple[Any, str]] = [
    (numpy.arange(3),
     "value is a numpy.ndarray, which is not supported: store its tolist(), or its tobytes() beside its dtype"),
    ({"a": [0, numpy.zeros((2, 2))]}, 'value["a"][1] is a numpy.ndarray'),
    (Loop(numbers=[numpy.array([5])]), 'value["numbers"][0] is a numpy.ndarray'),
    (numpy.datetime64("2026-01-02"), "value is a numpy.datetime64, which is not supported: store its astype"),
    (numpy.complex128(1), "value is a numpy.complex128"),
    ({"x": numpy.float32("nan")}, 'value["x"] is nan'),
    (Stamp(2026, 1, 2), "Stamp, which is not supported: store its to_pydatetime()"),
    (Frame(), "Frame, which is not supported: store its to_dict()"),
    (pathlib.PurePosixPath("/x"), "store it as a string, str(path)"),
    (fractions.Fraction(1, 3), "store it as a float, or as a string"),
    (range(3), "value is a range, which is not supported: store it as a list, list(...)"),
    ((n for n in range(3)), "value is a generator, which is not supported: gather what it yields"),
    (object(),
     "value is an object, which is not supported: store a dict, a dataclass, a msgspec Struct or a pydantic model"),
    ({"a": {object(), 1}}, "is an object, which is not supported"),
    ([Note(datetime.datetime(2026, 1, 2, tzinfo=UTC), uuid.UUID(int=1), 1j)], 'value[0]["color"] is a complex'),  # type: ignore[arg-type]
    ({"a": {5: 1}}, 'value["a"] has the key 5'),
]  # fmt: skip


@pytest.mark.parametrize(("value", "message"), REFUSED, ids=lambda part: type(part).__name__)
def test_a_value_that_is_refused_names_the_place_and_the_way(table: Any, value: Any, message: str) -> None:
    ways: list[Callable[[], Any]] = [
        lambda: table.insert("k", value),
        lambda: table.insert_many({"ok": 1, "k": value}),
        lambda: table.setdefault("k", value),
        lambda: table.compare_and_set("k", kvzmq.ABSENT, value),
        lambda: table.compare_and_set("k", value, 1),
        lambda: table.query("k", value),
    ]
    for way in ways:
        with pytest.raises((TypeError, ValueError)) as caught:
            way()
        assert message.removeprefix("value") in str(caught.value)
    assert table.size() == 0


def test_an_interval_as_a_time_to_live_names_the_way(table: Any) -> None:
    with pytest.raises(TypeError, match="total_seconds"):
        table.insert("k", 1, ttl_s=datetime.timedelta(seconds=1))


def test_no_library_is_loaded_for_values() -> None:
    assert "numpy" not in vars(values) and "pydantic" not in vars(values)
