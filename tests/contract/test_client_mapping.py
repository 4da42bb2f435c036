"""The blocking client is a mapping, in full, and so is a namespace of it."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, MutableMapping, ValuesView
from pathlib import Path

import pytest
from support.servers import ServerProcess

import kvzmq


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[kvzmq.Client]:
    with (
        ServerProcess(tmp_path_factory.mktemp("mapping") / "data") as server,
        kvzmq.connect(server.url) as client,
    ):
        yield client


@pytest.fixture(params=["table", "namespace"])
def table(request: pytest.FixtureRequest, client: kvzmq.Client) -> kvzmq.Client:
    client.clear()
    if request.param == "table":
        return client
    client["before"] = client["zafter"] = {"a": "not in the namespace"}
    return client.namespace("n/")


def test_it_is_a_mutable_mapping(table: kvzmq.Client) -> None:
    assert isinstance(table, MutableMapping)


def test_items_are_set_read_and_deleted(table: kvzmq.Client) -> None:
    table["a"] = 1
    assert table["a"] == 1
    assert "a" in table and "b" not in table and 5 not in table  # type: ignore[comparison-overlap]
    del table["a"]
    with pytest.raises(KeyError):
        table["a"]
    with pytest.raises(KeyError):
        del table["a"]


def test_length_truth_and_iteration(table: kvzmq.Client) -> None:
    assert len(table) == 0 and not table
    table.update({"b": 2, "a": 1})
    assert len(table) == 2 and table
    assert list(table) == ["a", "b"]
    assert dict(table) == {"a": 1, "b": 2}
    assert {**table} == {"a": 1, "b": 2}


def test_the_rows_of_a_table_go_into_another(table: kvzmq.Client) -> None:
    table.update({"a": 1, "b": [2]})
    other = table.namespace("copy/")
    other.insert_many(table)
    assert dict(other) == {"a": 1, "b": [2]}


def test_get_setdefault_pop_popitem(table: kvzmq.Client) -> None:
    assert table.get("a") is None and table.get("a", 5) == 5
    assert table.setdefault("a", 1) == 1 == table.setdefault("a", 2)
    assert table.get("a", 5) == 1
    assert table.pop("a") == 1 and table.pop("a", 7) == 7
    table["z"] = 26
    assert table.popitem() == ("z", 26)
    with pytest.raises(KeyError):
        table.popitem()


def test_update_takes_what_dicts_take(table: kvzmq.Client) -> None:
    table.update({"a": 1})
    table.update([("b", 2)], c=3)
    table.update(d=4)
    table |= {"e": 5}
    table |= [("f", 6)]
    assert dict(table.items()) == {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5, "f": 6}


def test_the_views_are_views(table: kvzmq.Client) -> None:
    keys, items, values = table.keys(), table.items(), table.values()
    assert isinstance(keys, KeysView) and isinstance(items, ItemsView) and isinstance(values, ValuesView)
    table.update(a=1, b={"x": 1})
    assert len(keys) == len(items) == len(values) == 2
    assert "a" in keys and "z" not in keys
    assert ("a", 1) in items and ("a", 2) not in items and ("z", 1) not in items
    assert 1 in values and 2 not in values
    assert keys & {"a", "z"} == {"a"}
    assert keys | {"z"} == {"a", "b", "z"}
    assert list(items) == [("a", 1), ("b", {"x": 1})]
    assert "keys" in repr(keys)


def test_equality_with_a_mapping_is_by_content_and_of_clients_by_identity(table: kvzmq.Client) -> None:
    table.update(a=1)
    assert table == {"a": 1} and table != {"a": 2} and table != {}
    assert table == table and table != table.namespace("")
    assert len({table, table}) == 1


def test_clear_removes_what_is_below_the_prefix_alone(client: kvzmq.Client, table: kvzmq.Client) -> None:
    table.update({f"{number}": number for number in range(2500)})
    table.clear()
    assert len(table) == 0
    assert len(client) == (0 if table is client else 2)


def test_a_client_may_be_made_before_its_server(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data", start=False) as server:
        server.start()
        url = server.url
        server.kill()
        with kvzmq.connect(url) as table:
            server.launch()
            table["a"] = 1
            assert table["a"] == 1
