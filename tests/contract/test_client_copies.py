"""A table is copied into a dict in few messages, and no value that is read otherwise is an old one."""

from __future__ import annotations

import threading
from collections import ChainMap
from collections.abc import Callable, Iterator
from itertools import chain
from operator import methodcaller
from typing import Any

import pytest
from support.servers import PATIENCE_S, ServerProcess

import kvzmq

pytestmark = pytest.mark.usefixtures("asks_once")

ROWS = {f"row/{number:05}": {"n": number} for number in range(5000)}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[kvzmq.Client]:
    with (
        ServerProcess(tmp_path_factory.mktemp("copies") / "data") as server,
        kvzmq.connect(server.url) as client,
    ):
        yield client


@pytest.fixture(params=["", "namespace/"])
def table(request: pytest.FixtureRequest, client: kvzmq.Client) -> kvzmq.Client:
    client.clear()
    client["zafter"] = 1
    table = client.namespace(request.param)
    table.clear()
    table.insert_many(ROWS)
    return table


def updated(table: kvzmq.Client) -> dict[str, Any]:
    rows: dict[str, Any] = {"mine": 1}
    rows.update(table)
    del rows["mine"]
    return rows


def merged(table: kvzmq.Client) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    rows |= table
    return rows


def keywords(**rows: Any) -> dict[str, Any]:
    return rows


@pytest.mark.parametrize("copied", [
    dict, updated, merged, lambda table: {**table}, lambda table: keywords(**table), lambda table: dict(table.items()),
    lambda table: next(map(dict, [table])),
])  # fmt: skip
def test_a_copy_takes_a_message_a_page(table: kvzmq.Client, copied: Callable[[kvzmq.Client], dict[str, Any]]) -> None:
    """Seen red when each value was asked for by itself: 5,000 operations instead of 6."""
    before = table.stats()["operations"]
    rows = copied(table)
    assert table.stats()["operations"] - before <= 10
    assert rows == ROWS and not table._copies
    table["row/00001"] = "new"
    assert copied(table)["row/00001"] == "new"


def test_the_same_line_reads_anew_each_time(table: kvzmq.Client) -> None:
    for number in range(3):
        table["row/00002"] = number
        assert dict(table)["row/00002"] == number


READ_AFTER_KEYS: list[Callable[[kvzmq.Client, Callable[[], object]], Any]] = [
    lambda table, change: [(change(), table[key])[1] for key in table.keys()][-1],  # noqa: SIM118
    lambda table, change: [(change(), table[key])[1] for key in table][-1],
    lambda table, change: (list(table.keys()), change(), table["row/00009"])[-1],
    lambda table, change: (list(table), change(), table["row/00009"])[-1],
    lambda table, change: (dict.fromkeys(table), change(), table["row/00009"])[-1],
    lambda table, change: (dict(table), change(), table["row/00009"])[-1],
    lambda table, change: (change(), list(map(table.__getitem__, table.keys())))[-1][-1],
    lambda table, change: (change(), ChainMap({}, table)["row/00009"])[-1],
]  # fmt: skip


@pytest.mark.parametrize("read", READ_AFTER_KEYS, ids=range(len(READ_AFTER_KEYS)))
def test_a_value_read_by_itself_is_never_an_old_one(table: kvzmq.Client, read: Any) -> None:
    """Seen red with the values of a copy given to whoever asks."""
    table.remove_many(key for key in ROWS if key != "row/00009")
    changes = iter(range(1_000_000))
    written = []

    def change() -> None:
        written.append(next(changes))
        table["row/00009"] = written[-1]

    assert read(table, change) == written[-1]
    assert not table._copies


def test_a_loop_that_looks_up_what_it_goes_through_sees_what_others_write(table: kvzmq.Client) -> None:
    for number, key in enumerate(table.keys()):
        if key.startswith("row/") and number < 20:
            table.insert(key, number)
            assert table[key] == number


def test_values_that_are_asked_for_between_keys_are_never_old_ones(table: kvzmq.Client) -> None:
    """All in one instruction of the loop, again and again. Seen red with values given out before all keys were."""
    table.remove_many(key for key in ROWS if key > "row/00004")
    every = chain.from_iterable(map(methodcaller("keys"), [table]))
    for number, value in enumerate(map(table.__getitem__, every)):
        if number:
            assert value in (number, 1)
        table.insert_many({f"row/{later:05}": number + 1 for later in range(5)})


def test_an_empty_table_is_copied(table: kvzmq.Client) -> None:
    empty = table.namespace("nothing/")
    assert dict(empty) == {**empty} == {}
    assert not empty._copies


def test_a_copy_that_fails_midway_leaves_nothing_behind(table: kvzmq.Client) -> None:
    with pytest.raises((TypeError, KeyError)):  # of CPython: the latter where it was raised within a handler
        keywords(**{"row/00000": 1}, **table)
    table["row/00003"] = "new"
    assert table["row/00003"] == "new"
    assert not table._copies


def test_threads_copy_at_the_same_time(table: kvzmq.Client) -> None:
    copies: list[dict[str, Any]] = []
    before = table.stats()["operations"]
    threads = [threading.Thread(target=lambda: copies.append(dict(table))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert copies == [ROWS] * 4
    assert table.stats()["operations"] - before <= 40


class Wrapped(kvzmq.Client):
    """Whose values are something else than the rows."""

    def __getitem__(self, key: str) -> Any:
        return ("wrapped", super().__getitem__(key))


def test_a_subclass_keeps_its_own_values(table: kvzmq.Client) -> None:
    mine = Wrapped(table._connection, table._calls.prefix + "row/0000", owner=False)
    assert dict(mine)["1"] == ("wrapped", ROWS["row/00001"])
