"""Every operation has all that one needs, and does what its declaration says.

The examples are executed on a small table. What an operation changes and what it tells of are compared with the keys
that it says it touches: an access check believes nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from msgspec import Raw
from support.witness import dump_of, raw

import kvzmq
from kvzmq import errors
from kvzmq.client.core import calls
from kvzmq.protocol import msgpack, operations
from kvzmq.protocol.declaration import Access, Operation, Scope, Write, method_of
from kvzmq.protocol.messages import Request
from kvzmq.protocol.operations import KINDS, OPERATIONS, weight_of
from kvzmq.store.table import Table

DOCS = Path(__file__).resolve().parents[2] / "docs"

CLIENTS_OWN = {"open", "hello", "progress", "unwatch"}
"""What clients ask for by themselves: a program has no method for it."""

EXAMPLES: list[Operation] = [
    operations.Open(),
    operations.BeginEpoch(b"e" * 16),
    operations.Senders([("alice", 2), (None, 1)]),
    operations.Insert("new", raw({"name": "zoe"})),
    operations.Insert("number", raw(1), 2.5),
    operations.Remove("number"),
    operations.InsertMany({"number": raw(1), "new": raw([])}),
    operations.RemoveMany(["number", "none", "page/2"]),
    operations.CompareAndSet("number", [raw(5)], [raw(6)]),
    operations.CompareAndSet("new", [], [raw(6)]),
    operations.CompareAndSet("number", [raw(5)], []),
    operations.SetDefault("number", raw("v")),
    operations.SetDefault("new", raw("v")),
    operations.Increment("number", 2),
    operations.Expire("number"),
    operations.Expire("page/1", 3.0),
    operations.Transact(
        [("none", []), ("number", [raw(5)])], [operations.Insert("new", raw(1)), operations.Lookup("fred")]
    ),
    operations.Transact([], [operations.InsertMany({"a": raw(1), "b": raw(2)}), operations.RemoveMany(["page/1"])]),
    operations.Lookup("fred"),
    operations.LookupMany(["fred", "none", "page/2"]),
    operations.Size(),
    operations.Query("name", raw("fred")),
    operations.Keys("page/"),
    operations.Keys("page/", "page/1", 1),
    operations.Items(),
    operations.Items("page/"),
    operations.Ttl("number"),
    operations.Ping(),
    operations.Hello(),
    operations.Stats(),
    operations.Backup("0123456789abcdef" * 2),
    operations.Clients("zmq:12345678", 5),
    operations.Kick("tcp:127.0.0.1:5"),
    operations.Watch("page/"),
    operations.WatchQuery("name", raw("fred")),
    operations.SlowRequests(5),
    operations.Monitor("zmq:", "insert", "page/", 0.1, 10),
    operations.Progress(1),
    operations.Unwatch(1),
]  # fmt: skip
IN_TABLE = [op for op in EXAMPLES if op.scope is Scope.TABLE]


def names(ops: Iterable[Operation]) -> list[str]:
    return [f"{type(op).__name__}-{number}" for number, op in enumerate(ops)]


def execute(table: Table, op: Operation, session: bytes | None = None) -> Any:
    """Execute an operation alone and return its result; every example succeeds."""
    reply = table.execute(Request(session, 1, [op], msgpack.encode_request(session, 1, [op])))
    assert isinstance(reply.results, bytes)
    ((code, payload),) = msgpack.decode_value(reply.results)
    return code, payload


def small_table(kept: Iterable[Access] | None = None) -> Table:
    """Return the table of the examples, or of its rows only those that `kept` covers."""
    table = Table()
    table.advance(1_000_000)
    rows = {
        "number": raw(5), "fred": raw({"name": "fred"}),
        "page/1": raw({"name": "fred"}), "page/2": raw({"name": "barney"}),
    }  # fmt: skip
    for key, value in rows.items():
        if kept is None or covers(kept, key):
            execute(table, operations.Insert(key, value, 60.0 if key == "number" else None))
    return table


def covers(accesses: Iterable[Access], key: str) -> bool:
    return any(key in access.keys if access.prefix is None else key.startswith(access.prefix) for access in accesses)


def test_every_operation_has_an_example() -> None:
    assert {type(op) for op in EXAMPLES} == set(KINDS)


# ---- what an operation needs


@pytest.mark.parametrize("kind", KINDS)
def test_an_operation_is_declared_in_full(kind: type[Operation]) -> None:
    assert (
        kind.__doc__
        and kind.__doc__ != Operation.__doc__
        and "Payload:" in kind.__doc__ + "Payload:" * (kind is operations.WatchQuery or not kind.from_clients)
    )
    assert len(kind.mark) == 1 and kind.mark.islower() <= (not kind.writes) and kind.mark.isupper() <= kind.writes
    assert kind.accesses is not Operation.accesses
    assert not (kind.writes and kind.scope is not Scope.TABLE), "the log holds what changes the table, and nothing else"
    assert not kind.in_transactions or (kind.scope is Scope.TABLE and not kind.scans)
    assert kind.pushes <= (kind.scope is Scope.CONNECTION)


def test_marks_tell_operations_apart() -> None:
    marks = [kind.mark for kind in KINDS if not kind.pushes]
    assert len(set(marks)) == len(marks) and "x" not in marks and "o" not in marks


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.scope is Scope.TABLE])
def test_the_table_has_a_method_for_what_concerns_it(kind: type[Operation]) -> None:
    method = getattr(Table, "_" + method_of(kind))
    assert get_type_hints(method)["op"] is kind


@pytest.mark.parametrize("method", sorted(OPERATIONS.keys() - CLIENTS_OWN))
def test_both_clients_have_a_method_for_an_operation_and_it_is_documented(method: str) -> None:
    for client in (kvzmq.Client, kvzmq.AsyncClient):
        assert callable(getattr(client, method))
    assert re.search(rf"`[^`]*\b{method}\(", (DOCS / "api.md").read_text()), f"docs/api.md does not tell of {method}"


def test_clients_take_for_writes_what_is_declared_so() -> None:
    """A write taken for a read is sent without a session, and a retry executes it twice. Seen red with one left out."""
    assert {method for method, kind in OPERATIONS.items() if kind.writes} == calls.WRITES | {"open"}


def test_what_clients_ask_for_by_themselves_is_in_the_protocol() -> None:
    assert OPERATIONS.keys() >= CLIENTS_OWN
    for method in CLIENTS_OWN:
        assert f"`{method}`" in (DOCS / "protocol.md").read_text()


# ---- what it does is what it says


@pytest.mark.parametrize("op", IN_TABLE, ids=names(IN_TABLE))
def test_what_changes_the_table_is_declared_as_a_write(op: Operation) -> None:
    """In a session, too: its cached reply is a part of the table."""
    table = small_table()
    before, revision = dump_of(table), table.revision
    code, _ = execute(table, op, b"s" * 16)
    assert code == errors.OK
    assert (dump_of(table) != before) == op.writes
    assert op.writes or table.revision == revision


@pytest.mark.parametrize("op", IN_TABLE, ids=names(IN_TABLE))
def test_an_operation_changes_only_keys_that_it_says_it_writes(op: Operation) -> None:
    table = small_table()
    before = dict(table.rows)
    execute(table, op)
    changed = {key for key in {*before, *table.rows} if before.get(key) != table.rows.get(key)}
    assert all(covers([access for access in op.accesses() if access.writes], key) for key in changed)
    assert not changed or op.writes


@pytest.mark.parametrize("op", IN_TABLE, ids=names(IN_TABLE))
def test_an_operation_tells_only_of_keys_that_it_says_it_touches(op: Operation) -> None:
    """Its result is the same in a table that has no other rows."""
    if isinstance(op, operations.Open):
        return  # tells of the table's epoch
    assert execute(small_table(), op) == execute(small_table(op.accesses()), op)


@pytest.mark.parametrize("op", EXAMPLES, ids=names(EXAMPLES))
def test_every_key_prefix_and_value_among_the_arguments_is_declared(op: Operation) -> None:
    keys, values, prefixes = arguments(op)
    accesses = op.accesses()
    assert set(op.named_keys()) == set(keys)
    assert all(covers(accesses, prefix) for prefix in prefixes)
    assert [bytes(value) for value in op.values()] == [bytes(value) for value in values]
    assert weight_of(op) >= len(keys)


def arguments(op: Operation) -> tuple[list[str], list[Raw], list[str]]:
    """Return the keys, the values and the prefixes among the arguments, found by their names and types alone."""
    keys: list[str] = []
    values: list[Raw] = []
    prefixes: list[str] = []

    def look(op: Operation) -> None:
        for name in op.__struct_fields__:
            argument = getattr(op, name)
            if name == "runs":
                continue  # of the server's own record: names of clients, no key
            if name == "prefix":
                prefixes.append(argument)
            elif name == "key":
                keys.append(argument)
            elif isinstance(argument, Raw):
                values.append(argument)
            elif isinstance(argument, dict):
                keys.extend(argument)
                values.extend(argument.values())
            elif isinstance(argument, list):
                for item in argument:
                    look_at_item(item)

    def look_at_item(item: Any) -> None:
        if isinstance(item, Operation):
            look(item)
        elif isinstance(item, str):
            keys.append(item)
        elif isinstance(item, Raw):
            values.append(item)
        else:
            keys.append(item[0])
            values.extend(item[1])

    look(op)
    return keys, values, prefixes


@pytest.mark.parametrize("op", IN_TABLE, ids=names(IN_TABLE))
def test_who_goes_through_rows_says_so_and_which_index_it_asks(op: Operation) -> None:
    table = small_table()
    execute(table, op)
    assert table.indexes.names() == [subkey for subkey in [op.subkey_asked()] if subkey is not None]
    assert (table.indexes.active and not table.indexes.names()) == op.ordered
    assert op.scans == any(access.prefix is not None for access in op.accesses())
    assert op.scans >= table.indexes.active
    request = Request(None, 1, [op], b"")
    assert (request.writes, request.served, request.scans) == (op.writes, False, op.scans)


def test_a_transaction_reads_what_it_checks_and_writes_what_its_operations_do() -> None:
    checked = ("a", [raw(1)])
    op = operations.Transact([checked], [operations.Lookup("b"), operations.Insert("c", raw(1))])
    assert op.accesses() == (
        Access(False, ("a",)), Access(False, ("b",)), Access(True, ("c",)),
    )  # fmt: skip
    assert op.named_keys() == ["a", "b", "c"]


def test_an_operation_that_does_not_say_which_keys_it_touches_is_refused() -> None:
    with pytest.raises(NotImplementedError, match="keys it touches"):
        Write().accesses()
