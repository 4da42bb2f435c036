"""Tries everything a client can see of a table, and prints a line for each check: ok, FAIL or skip.

    python TestBasics.py NAME          NAME is a project's name in the catalog, or HOST:PORT

Exit status 0 when nothing failed, 1 otherwise.  It may be run again and again, on a table that holds other
things and serves other clients at the same time: its keys begin with a prefix of this run, it removes them at
the end, and it judges the table's size only by what is certain while others insert and remove.  The one key
that cannot have a prefix, the empty one, is left alone if it is in use.
"skip" stands before what could not be judged, with the reason.
"""

from __future__ import annotations

import argparse
import json
import random
import secrets
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from HashTableClient import (
    HashTableClient,
    OutcomeUnknown,
    ServerError,
    TableError,
    Unreachable,
)

GIVE_UP_S = 60.0
RAW_TIMEOUT_S = 30.0  # such a connection cannot try again: a busy machine is no fault of the table
SIZE_TRIES_MAX = 20
EMPTY_KEY_TRIES_MAX = 20
OUT_OF_STEP_S = 0.02
MANY = 300
PREFIX = "TestBasics-"

Reply = dict[str, Any]


class Failed(Exception):
    """A check found something else than it expected; the message says what."""


class Skipped(Exception):
    """A check could not be made; the message says why."""


class Bench:
    """A table to try, with keys that belong to this run alone."""

    def __init__(self, name: str, give_up_s: float | None) -> None:
        self.table = HashTableClient(name, give_up_s=give_up_s)
        self.other = HashTableClient(name, give_up_s=give_up_s)
        self.prefix = f"{PREFIX}{secrets.token_hex(5)}-"
        self._keys: dict[str, None] = {}

    def key(self, rest: str) -> str:
        """Return a key of this run's own, to be removed in the end."""
        return self.own(self.prefix + rest)

    def own(self, key: str) -> str:
        """Note a key for removal."""
        self._keys[key] = None
        return key

    def connect_raw(self) -> RawConnection:
        """Open a connection on which a check decides about every byte."""
        return RawConnection(self.table)

    def clean_up(self) -> None:
        for key in self._keys:
            with suppress(KeyError):
                self.table.remove(key)
        self.table.close()
        self.other.close()


class RawConnection:
    """A connection that sends bytes as they are given, and reads replies one by one."""

    def __init__(self, table: HashTableClient) -> None:
        self._socket = socket.create_connection(table.locate()[0], RAW_TIMEOUT_S)
        self._lines = self._socket.makefile("rb")

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def receive(self) -> Reply:
        """Read one reply; closing and silence count as failures of the check."""
        try:
            line = self._lines.readline()
            reply = json.loads(line)
        except (OSError, ValueError) as problem:
            raise Failed(f"no reply: {problem}") from problem
        if not isinstance(reply, dict):
            raise Failed(f"got {_shorten(reply)}")
        return reply

    def ask(self, request: object) -> Reply:
        self.send(json.dumps(request).encode() + b"\n")
        return self.receive()

    def __enter__(self) -> RawConnection:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self._socket.close()


class Check(NamedTuple):
    """A sentence about the table, and the function that raises when it is not true."""

    sentence: str
    run: Callable[[Bench], None]


CHECKS: list[Check] = []


def check(sentence: str) -> Callable[[Callable[[Bench], None]], Callable[[Bench], None]]:
    """Add a function to the checks, in the order they are written."""

    def add(run: Callable[[Bench], None]) -> Callable[[Bench], None]:
        CHECKS.append(Check(sentence, run))
        return run

    return add


def expect(got: object, wanted: object) -> None:
    """Compare as JSON does: 1, 1.0 and true are three things."""
    if json.dumps(got, sort_keys=True) != json.dumps(wanted, sort_keys=True):
        raise Failed(f"got {_shorten(got)} instead of {_shorten(wanted)}")


def expect_key_error(operation: Callable[[str], object], key: str) -> None:
    try:
        result = operation(key)
    except KeyError:
        return
    raise Failed(f"got {_shorten(result)} instead of a KeyError")


def _shorten(thing: object, characters_max: int = 120) -> str:
    text = repr(thing)
    return text if len(text) <= characters_max else text[:characters_max] + "..."


# ---- insert, lookup, remove ---------------------------------------------------------------------------


@check("what is inserted can be looked up")
def _(bench: Bench) -> None:
    key = bench.key("insert")
    bench.table.insert(key, {"weight": 100, "name": "fred"})
    expect(bench.table.lookup(key), {"weight": 100, "name": "fred"})


@check("another client sees it at once")
def _(bench: Bench) -> None:
    key = bench.key("seen")
    for i in range(20):
        bench.table.insert(key, i)
        expect(bench.other.lookup(key), i)


@check("insert overwrites, whatever was there")
def _(bench: Bench) -> None:
    key = bench.key("overwrite")
    for value in ({"a": 1}, "text", 7, None, {"b": 2}):
        bench.table.insert(key, value)
        expect(bench.table.lookup(key), value)


@check("lookup of a missing key is a KeyError")
def _(bench: Bench) -> None:
    expect_key_error(bench.table.lookup, bench.key("missing"))


@check("remove of a missing key is a KeyError")
def _(bench: Bench) -> None:
    expect_key_error(bench.table.remove, bench.key("missing"))


@check("what is removed is gone, and gone only once")
def _(bench: Bench) -> None:
    key = bench.key("remove")
    bench.table.insert(key, 1)
    bench.table.remove(key)
    expect_key_error(bench.table.lookup, key)
    expect_key_error(bench.other.lookup, key)
    expect_key_error(bench.table.remove, key)


@check("a removed key can be inserted again")
def _(bench: Bench) -> None:
    key = bench.key("again")
    for value in ("first", "second"):
        bench.table.insert(key, value)
        expect(bench.table.lookup(key), value)
        bench.table.remove(key)


@check("a KeyError harms neither the connection nor the table")
def _(bench: Bench) -> None:
    key = bench.key("unharmed")
    with bench.connect_raw() as raw:
        expect(raw.ask({"method": "insert", "key": key, "value": 1}), {"status": "OK", "result": None})
        for _ in range(3):
            expect(raw.ask({"method": "lookup", "key": bench.key("missing")}).get("type"), "KeyError")
        expect(raw.ask({"method": "lookup", "key": key}), {"status": "OK", "result": 1})


@check("insert and remove have no result, not even the old value")
def _(bench: Bench) -> None:
    key = bench.key("result")
    with bench.connect_raw() as raw:
        for request in (
            {"method": "insert", "key": key, "value": 1},
            {"method": "insert", "key": key, "value": 2},
            {"method": "remove", "key": key},
        ):
            expect(raw.ask(request), {"status": "OK", "result": None})


@check(f"{MANY} keys keep their own values")
def _(bench: Bench) -> None:
    keys = [bench.key(f"many-{i}") for i in range(MANY)]
    for i, key in enumerate(keys):
        bench.table.insert(key, i)
    for i, key in enumerate(keys):
        expect(bench.table.lookup(key), i)
    for key in keys[::2]:
        bench.table.remove(key)
    for i, key in enumerate(keys):
        if i % 2:
            expect(bench.table.lookup(key), i)
        else:
            expect_key_error(bench.table.lookup, key)


# ---- size ---------------------------------------------------------------------------------------------


def expect_growth(bench: Bench, change: Callable[[str], None], growth: int, before: Callable[[str], None]) -> None:
    """Fail if a change never makes the size differ by `growth`, although nobody else changes the table.

    Others may insert and remove at any moment, so even many wrong differences prove nothing as soon as the size
    was once seen to change by itself: such a table is not judged.
    """
    restless = False
    for i in range(SIZE_TRIES_MAX):
        key = bench.key(f"size-{growth}-{i}")
        before(key)
        sizes = [bench.table.size(), bench.table.size()]
        change(key)
        sizes += [bench.table.size(), bench.table.size()]
        if sizes[2] - sizes[1] == growth:
            return
        restless |= sizes[0] != sizes[1] or sizes[2] != sizes[3]
        time.sleep(random.uniform(0, OUT_OF_STEP_S))
    if restless:
        raise Skipped("other clients change the table's size all the time")
    raise Failed(f"the size went from {sizes[1]} to {sizes[2]} instead of {sizes[1] + growth}")


@check("size counts at least the keys of this run")
def _(bench: Bench) -> None:
    for i in range(10):
        bench.table.insert(bench.key(f"counted-{i}"), i)
    if bench.table.size() < 10:
        raise Failed(f"got {bench.table.size()} with 10 keys inserted")


@check("size grows by one with a new key")
def _(bench: Bench) -> None:
    expect_growth(bench, lambda key: bench.table.insert(key, 1), 1, before=lambda key: None)


@check("size stays when a key is overwritten")
def _(bench: Bench) -> None:
    insert = bench.table.insert
    expect_growth(bench, lambda key: insert(key, 2), 0, before=lambda key: insert(key, 1))


@check("size shrinks by one with a removed key")
def _(bench: Bench) -> None:
    expect_growth(bench, bench.table.remove, -1, before=lambda key: bench.table.insert(key, 1))


# ---- query --------------------------------------------------------------------------------------------


def expect_matches(bench: Bench, subkey: str, subvalue: object, wanted: dict[str, Any]) -> None:
    """Compare the matches among this run's keys: other runs may be using the same subkeys.

    The subkeys are the same in every run, or each would leave the server with indexes nobody uses again.
    """
    matches = bench.table.query(subkey, subvalue)
    got = sorted([key, value] for key, value in matches if key.startswith(bench.prefix))
    expect(got, sorted([key, value] for key, value in wanted.items()))


@check("query finds the pairs whose value holds the subkey with the subvalue, and no others")
def _(bench: Bench) -> None:
    fred, ann = f"{bench.prefix}fred", f"{bench.prefix}ann"
    rows = {bench.key(f"query-{i}"): {"name": fred if i % 3 else ann, "weight": i} for i in range(9)}
    for key, value in rows.items():
        bench.table.insert(key, value)
    expect_matches(bench, "name", fred, {key: value for key, value in rows.items() if value["name"] == fred})
    expect_matches(bench, "name", ann, {key: value for key, value in rows.items() if value["name"] == ann})


@check("query without matches is an empty list")
def _(bench: Bench) -> None:
    expect(bench.table.query(f"{PREFIX}no-such-subkey", 1), [])
    expect(bench.table.query("name", f"{bench.prefix}nobody"), [])


@check("query follows overwriting and removing")
def _(bench: Bench) -> None:
    key, subkey = bench.key("followed"), f"{PREFIX}colour"
    bench.table.insert(key, {subkey: "red"})
    expect_matches(bench, subkey, "red", {key: {subkey: "red"}})
    bench.table.insert(key, {subkey: "blue"})
    expect_matches(bench, subkey, "red", {})
    expect_matches(bench, subkey, "blue", {key: {subkey: "blue"}})
    bench.table.insert(key, "no map any more")
    expect_matches(bench, subkey, "blue", {})
    bench.table.insert(key, {subkey: "blue"})
    bench.table.remove(key)
    expect_matches(bench, subkey, "blue", {})


@check("query passes over values that are no maps")
def _(bench: Bench) -> None:
    subkey = f"{PREFIX}subkey"
    for i, value in enumerate((subkey, [subkey, 1], [{subkey: 1}], 1, None, True, {"inner": {subkey: 1}})):
        bench.table.insert(bench.key(f"no-map-{i}"), value)
    key = bench.key("map")
    bench.table.insert(key, {subkey: 1})
    expect_matches(bench, subkey, 1, {key: {subkey: 1}})


@check("query tells text, number, null and nothing apart")
def _(bench: Bench) -> None:
    subkey = f"{PREFIX}kind"
    rows: dict[str, Any] = {bench.key(f"kind-{i}"): {subkey: kind} for i, kind in enumerate(("7", 7, None, ""))}
    for key, value in rows.items():
        bench.table.insert(key, value)
    bench.table.insert(bench.key("kind-nothing"), {})
    for key, value in rows.items():
        expect_matches(bench, subkey, value[subkey], {key: value})


@check("query takes odd subkeys and subvalues")
def _(bench: Bench) -> None:
    for i, text in enumerate(("", "é\n\0😀", '"\\')):
        subkey, key = f"{PREFIX}{text}", bench.key(f"odd-{i}")
        bench.table.insert(key, {subkey: text})
        expect_matches(bench, subkey, text, {key: {subkey: text}})


# ---- odd keys and values ------------------------------------------------------------------------------

ODD_KEYS = {
    "with a space": " a key ",
    "with a newline": "line\nline\r\n",
    "with NUL": "a\0b",
    "with quotes and backslashes": '"\'\\"',
    "with control characters": "\x01\x1f\x7f\x9b",
    "with accents, composed": "\u00e9",
    "with accents, decomposed": "e\u0301",
    "with Japanese, Arabic and an emoji": "鍵 مفتاح 😀",
    "with line and paragraph separators": "\u2028\u2029",
    "that reads like JSON": '{"method": "size"}',
    "of 10,000 characters": "k" * 10_000,
}

VALUES: dict[str, Any] = {
    "null": None,
    "true": True,
    "false": False,
    "0": 0,
    "a negative number": -1,
    "a fraction": 0.1,
    "1.0, which is not 1": 1.0,
    "a very large fraction": 1.7976931348623157e308,
    "a very small fraction": 5e-324,
    "2^53 + 1, which a float cannot hold": 2**53 + 1,
    "the smallest integer": -(2**63),
    "the largest integer": 2**64 - 1,
    "empty text": "",
    "text with NUL, newline and Unicode": "a\0b\né e\u0301 鍵 😀 \u2028",
    "text of 100,000 characters": "v" * 100_000,
    "an empty list": [],
    "an empty map": {},
    "a list of everything": [None, True, 1, 1.5, "text", [], {}],
    "a map with odd subkeys": {"": 1, "\n\0": 2, "é": 3, "e\u0301": 4},
    "20 levels": [[[[[[[[[[{"a": {"b": {"c": {"d": [[[[[["deep"]]]]]]}}}}]]]]]]]]]],
    "a list of 10,000 numbers": list(range(10_000)),
}


def _check_key(rest: str) -> Callable[[Bench], None]:
    def run(bench: Bench) -> None:
        key = bench.key(rest)
        bench.table.insert(key, {"key": key})
        expect(bench.table.lookup(key), {"key": key})
        expect_matches(bench, "key", key, {key: {"key": key}})
        bench.table.remove(key)
        expect_key_error(bench.table.lookup, key)

    return run


def _check_value(value: object) -> Callable[[Bench], None]:
    def run(bench: Bench) -> None:
        key = bench.key("value")
        bench.table.insert(key, value)
        expect(bench.table.lookup(key), value)

    return run


CHECKS += [Check(f"a key {name}", _check_key(key)) for name, key in ODD_KEYS.items()]


@check("the empty key")
def _(bench: Bench) -> None:
    """Try until it works once: other runs of this program may be inserting and removing the same key."""
    value = {"by": bench.prefix}
    shared = False
    got: object = None
    for _ in range(EMPTY_KEY_TRIES_MAX):
        try:
            got = bench.table.lookup("")
            shared |= _is_of_another_run(got, bench)
        except KeyError:
            pass
        else:
            if not shared and got != value:
                raise Skipped("the table has a row of somebody's under it")
        bench.table.insert("", value)
        try:
            got = bench.table.lookup("")
            shared |= _is_of_another_run(got, bench)
            bench.table.remove("")
            if got == value:
                return
        except KeyError:
            got = "a KeyError"
        time.sleep(random.uniform(0, OUT_OF_STEP_S))
    if shared:
        raise Skipped("other runs of this program use it all the time")
    raise Failed(f"got {_shorten(got)} instead of {value}")


def _is_of_another_run(value: object, bench: Bench) -> bool:
    by = value.get("by") if isinstance(value, dict) else None
    return isinstance(by, str) and by.startswith(PREFIX) and by != bench.prefix


CHECKS += [Check(f"a value: {name}", _check_value(value)) for name, value in VALUES.items()]


# ---- the wire -----------------------------------------------------------------------------------------


@check("an unknown method is an InvalidMethod, and the connection stays")
def _(bench: Bench) -> None:
    with bench.connect_raw() as raw:
        expect(raw.ask({"method": "frobnicate"}).get("type"), "InvalidMethod")
        expect(raw.ask({"method": "size"}).get("status"), "OK")


@check("an incomplete or unreadable request is an InvalidRequest, and the connection stays")
def _(bench: Bench) -> None:
    requests: list[object] = [
        {},
        [],
        7,
        {"method": "insert", "key": bench.key("incomplete")},
        {"method": "lookup"},
        {"method": "lookup", "key": 7},
        {"method": "query", "subkey": "a"},
    ]
    lines = [json.dumps(request).encode() for request in requests] + [b"no JSON", b"{", b"\xff"]
    with bench.connect_raw() as raw:
        for line in lines:
            raw.send(line + b"\n")
            reply = raw.receive()
            if reply.get("type") != "InvalidRequest":
                raise Failed(f"got {_shorten(reply)} for {line!r}")
        expect(raw.ask({"method": "size"}).get("status"), "OK")
    expect_key_error(bench.table.lookup, bench.key("incomplete"))


@check("requests sent together are answered in their order")
def _(bench: Bench) -> None:
    key = bench.key("pipelined")
    requests: list[dict[str, Any]] = []
    for i in range(50):
        requests += [{"method": "insert", "key": key, "value": i}, {"method": "lookup", "key": key}]
    with bench.connect_raw() as raw:
        raw.send(b"".join(json.dumps(request).encode() + b"\n" for request in requests))
        for i in range(50):
            expect(raw.receive(), {"status": "OK", "result": None})
            expect(raw.receive(), {"status": "OK", "result": i})


@check("a request sent byte by byte is one request")
def _(bench: Bench) -> None:
    key = bench.key("split-é")
    line = json.dumps({"method": "insert", "key": key, "value": "é"}, ensure_ascii=False).encode() + b"\n"
    with bench.connect_raw() as raw:
        for i in range(len(line)):
            raw.send(line[i : i + 1])
        expect(raw.receive(), {"status": "OK", "result": None})
    expect(bench.table.lookup(key), "é")


@check("a client that leaves in the middle of a request changes nothing")
def _(bench: Bench) -> None:
    key = bench.key("left")
    with bench.connect_raw() as raw:
        raw.send(json.dumps({"method": "insert", "key": key, "value": 1}).encode())
    expect_key_error(bench.table.lookup, key)


@check("a write sent again within its session is executed once")
def _(bench: Bench) -> None:
    key, session = bench.key("once"), secrets.token_hex(16)
    remove = {"method": "remove", "key": key, "session": session, "seq": 2}
    bench.table.insert(key, 1)
    with bench.connect_raw() as raw:
        if raw.ask({"method": "open", "session": session, "seq": 1}).get("status") != "OK":
            raise Skipped("the server has no sessions")
        expect(raw.ask(remove), {"status": "OK", "result": None})
    with bench.connect_raw() as raw:
        expect(raw.ask(remove), {"status": "OK", "result": None})
    expect_key_error(bench.table.remove, key)


# ---- all of them --------------------------------------------------------------------------------------


def run_check(check: Check, bench: Bench) -> tuple[str, str]:
    """Return ok, FAIL or skip, and why.  Raises: Unreachable when the server is gone for good."""
    try:
        check.run(bench)
    except Skipped as reason:
        return "skip", str(reason)
    except Failed as failure:
        return "FAIL", str(failure)
    except (Unreachable, OutcomeUnknown):
        raise
    except (KeyError, TableError, ServerError, OSError) as failure:
        return "FAIL", f"{type(failure).__name__}: {failure}"
    return "ok", ""


def main() -> int:
    """Run all checks; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("name", metavar="NAME", help="the project's name in the catalog, or HOST:PORT")
    parser.add_argument(
        "--give-up",
        metavar="S",
        type=float,
        default=GIVE_UP_S,
        help="how long to try one request, 0: for ever (%(default)g)",
    )
    options = parser.parse_args()
    bench = Bench(options.name, options.give_up or None)
    counts = dict.fromkeys(("ok", "FAIL", "skip"), 0)
    try:
        for one in CHECKS:
            verdict, reason = run_check(one, bench)
            counts[verdict] += 1
            print(f"{verdict:4}  {one.sentence}" + (f": {reason}" if reason else ""), flush=True)
        bench.clean_up()
    except TableError as failure:
        print(f"FAIL  {type(failure).__name__}: {failure}", flush=True)
        return 1
    print(f"{len(CHECKS)} checks: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count))
    return 1 if counts["FAIL"] else 0


if __name__ == "__main__":
    sys.exit(main())
