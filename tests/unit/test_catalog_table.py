"""What a catalog knows, and that nothing announced can harm it."""

from __future__ import annotations

import json
import tracemalloc
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.catalogs import EPOCH_S, FIELD_NAMES, JSON_VALUES, http, listed, make_catalog, update

from kvzmq.catalog import table
from kvzmq.catalog.lookup import entries_of
from kvzmq.catalog.pages import Pages
from kvzmq.catalog.table import LIFETIME_S, UPDATE_BYTES_MAX, UPDATE_DEPTH_MAX, UUID_BYTES_MAX


def test_the_catalog_adds_name_address_and_time_and_believes_none_that_were_announced() -> None:
    catalog, _, _ = make_catalog()
    spoofed = update(type="t", port=1, name="liar", address="6.6.6.6", lastheardfrom=99_999_999_999)
    assert catalog.update("127.0.0.1", spoofed)
    assert catalog.update("10.0.0.5", spoofed)
    expected = {"type": "t", "port": 1, "lastheardfrom": int(EPOCH_S)}
    assert listed(catalog) == [
        {**expected, "name": "localhost", "address": "127.0.0.1"},
        {**expected, "name": "10.0.0.5", "address": "10.0.0.5"},
    ]


def test_address_and_port_say_which_server_it_is() -> None:
    catalog, _, _ = make_catalog()
    for address, port, project in (
        ("10.0.0.1", 1, "a"),
        ("10.0.0.1", 2, "b"),
        ("10.0.0.2", 1, "c"),
        ("10.0.0.1", 1, "d"),
    ):
        catalog.update(address, update(type="t", port=port, project=project))
    assert [each["project"] for each in listed(catalog)] == ["b", "c", "d"]
    assert len(catalog) == 3


def test_servers_without_a_port_are_told_apart_by_their_uuid() -> None:
    """Seen to fail with the port alone as the key."""
    catalog, _, _ = make_catalog()
    for project, fields in (
        ("none", {}),
        ("a", {"uuid": "tcp://0.0.0.0:1"}),
        ("b", {"uuid": "tcp://0.0.0.0:2"}),
        ("with a port", {"uuid": "tcp://0.0.0.0:2", "port": 1}),
        ("b again", {"uuid": "tcp://0.0.0.0:2", "port": 0}),
        ("not a text", {"uuid": 5}),
        ("empty", {"uuid": ""}),
        ("long", {"uuid": "x" * UUID_BYTES_MAX + "1"}),
        ("long again", {"uuid": "x" * UUID_BYTES_MAX + "2"}),
    ):
        catalog.update("10.0.0.1", update(type="t", project=project, **fields))
    assert [each["project"] for each in listed(catalog)] == [
        *("a", "with a port", "b again", "not a text", "empty", "long again")
    ]


@pytest.mark.parametrize("port", [None, "1", 1.5, True, -1])
def test_what_is_no_port_counts_as_none(port: object) -> None:
    catalog, _, _ = make_catalog()
    catalog.update("10.0.0.1", update(type="t", project="none"))
    catalog.update("10.0.0.1", update(type="t", project="odd", port=port))
    assert [each["project"] for each in listed(catalog)] == ["odd"]


def test_an_entry_is_dropped_when_it_is_older_than_the_lifetime() -> None:
    """Seen to fail without the call of expire in records."""
    catalog, _, monotonic = make_catalog()
    catalog.update("10.0.0.1", update(type="t", port=1))
    monotonic.now_s += LIFETIME_S / 2
    catalog.update("10.0.0.1", update(type="t", port=2))
    monotonic.now_s += LIFETIME_S / 2
    assert [each["port"] for each in listed(catalog)] == [1, 2]
    monotonic.now_s += 0.1
    assert [each["port"] for each in listed(catalog)] == [2]
    monotonic.now_s += LIFETIME_S
    assert listed(catalog) == []
    assert len(catalog) == 0


def test_a_new_update_renews_an_entry() -> None:
    catalog, wall, monotonic = make_catalog()
    for _ in range(5):
        catalog.update("10.0.0.1", update(type="t", port=1))
        monotonic.now_s += LIFETIME_S
        wall.now_s += LIFETIME_S
        assert len(listed(catalog)) == 1
    assert listed(catalog)[0]["lastheardfrom"] == int(EPOCH_S + 4 * LIFETIME_S)


@pytest.mark.parametrize(
    ("lifetime", "expected_s"), [(60, 60), (10**6, LIFETIME_S), (0, LIFETIME_S), ("1", LIFETIME_S)]
)
def test_a_server_may_ask_for_a_shorter_life_only(lifetime: object, expected_s: float) -> None:
    catalog, _, monotonic = make_catalog()
    catalog.update("10.0.0.1", update(type="t", port=1, lifetime=lifetime))
    monotonic.now_s += expected_s
    assert listed(catalog)
    monotonic.now_s += 0.1
    assert not listed(catalog)


def test_a_step_of_the_wall_clock_drops_nothing_and_never_makes_the_newest_look_old() -> None:
    """Seen to fail with lastheardfrom taken from the wall clock as it is."""
    catalog, wall, _ = make_catalog()
    catalog.update("10.0.0.1", update(type="hashtable", project="p", port=1))
    wall.now_s -= 3600
    catalog.update("10.0.0.1", update(type="hashtable", project="p", port=2))
    wall.now_s += 10 * 24 * 3600
    entries = listed(catalog)
    assert [each["port"] for each in entries] == [1, 2]
    assert entries[0]["lastheardfrom"] <= entries[1]["lastheardfrom"]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"a":1}\0', {"a": 1}),
        (b' {"a":1} \n', {"a": 1}),
        (b"\x1a" + zlib.compress(b'{"a":1}'), {"a": 1}),
        (b"\x1a" + zlib.compress(b'{"a":1}\0'), {"a": 1}),
        ('{"ä":"\u2028😀\\u00e9"}'.encode(), {"ä": "\u2028😀é"}),
    ],
)
def test_updates_are_read_in_every_form_that_cctools_sends(data: bytes, expected: dict[str, Any]) -> None:
    catalog, _, _ = make_catalog()
    assert catalog.update("10.0.0.1", data)
    (found,) = listed(catalog)
    assert expected.items() <= found.items()


REFUSED = {
    "nothing": b"",
    "an array": b"[1]",
    "a string": b'"x"',
    "cut short": b'{"a":',
    "two objects": b"{}{}",
    "the format before JSON": b"type legacy\nport 1\n",
    "not UTF-8": b'{"a":"\xff"}',
    "a lone surrogate": b'{"a":"\\ud83d"}',
    "not a number": b'{"a":NaN}',
    "infinity": b'{"a":1e400}',
    "a long integer": b'{"a":18446744073709551616}',
    "a NUL": b'{"a":"x\\u0000y"}',
    "a NUL in a name": b'{"\\u0000":1}',
    "a NUL inside": b'{"a":[{"b":"\\u0000"}]}',
    "deep": b'{"a":' + b"[" * UPDATE_DEPTH_MAX + b"]" * UPDATE_DEPTH_MAX + b"}",
    "very deep": b'{"a":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    "long": b'{"a":"' + b"x" * UPDATE_BYTES_MAX + b'"}',
    "a zlib bomb": b"\x1a" + zlib.compress(b'{"a":"' + b"x" * 50_000_000 + b'"}'),
    "compressed rubbish": b"\x1axxxx",
    "compressed and cut": b"\x1a" + zlib.compress(b'{"a":1}')[:-6],
    "compressed, the checksum cut": b"\x1a" + zlib.compress(b'{"a":1}')[:-1],
    "compressed nothing": b"\x1a",
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED.keys())
def test_an_update_that_some_reader_could_not_read_is_refused(data: bytes) -> None:
    """Seen to fail, for the NULs, without the check: catalog_query then rejects the whole list."""
    catalog, _, _ = make_catalog()
    catalog.update("10.0.0.1", update(type="t", port=1))
    before = listed(catalog)
    assert not catalog.update("10.0.0.1", data)
    assert listed(catalog) == before
    assert catalog.refused == 1


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["127.0.0.1", "10.0.0.1", "::1"]),
            st.binary()
            | st.dictionaries(FIELD_NAMES | st.text(), JSON_VALUES).map(lambda fields: json.dumps(fields).encode())
            | st.dictionaries(st.text(), JSON_VALUES).map(
                lambda fields: b"\x1a" + zlib.compress(json.dumps(fields).encode())
            ),
        )
    )
)
def test_whatever_is_announced_every_page_stays_whole(updates: list[tuple[str, bytes]]) -> None:
    catalog, _, _ = make_catalog()
    catalog.update("10.0.0.9", update(type="hashtable", project="steady", port=9))
    accepted = sum(catalog.update(address, data) for address, data in updates)
    served = Pages(catalog, "here:1")
    entries = listed(catalog)
    assert len(entries) == len(catalog) <= accepted + 1
    assert entries[0]["project"] == "steady"
    assert all("\0" not in json.dumps(each, ensure_ascii=False) for each in entries)
    assert served.text().decode().count("\n\n") == len(entries)
    assert served.html().decode().count("<tr class=") == len(entries)
    # What the catalog serves is what lookups read.
    assert {each.project for each in entries_of(http(served.json()))} >= {"steady"}


def test_a_zlib_bomb_is_not_unpacked() -> None:
    """Seen to fail with decompress called without a maximum."""
    catalog, _, _ = make_catalog()
    tracemalloc.start()
    catalog.update("10.0.0.1", REFUSED["a zlib bomb"])
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 10 * UPDATE_BYTES_MAX


def test_one_sender_can_fill_the_catalog_but_not_push_the_others_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen to fail with the oldest entry of all dropped, whoever sent it."""
    monkeypatch.setattr(table, "ENTRIES_MAX", 100)
    catalog, _, _ = make_catalog()
    for number in range(20):
        catalog.update(f"10.0.0.{number}", update(type="hashtable", port=1, project="honest"))
    for port in range(1, 1000):
        catalog.update("10.6.6.6", update(type="flood", port=port))
    assert len(catalog) == 100
    entries = listed(catalog)
    assert sum(each["type"] == "hashtable" for each in entries) == 20
    # Of its own entries, the sender keeps the newest.
    assert [each["port"] for each in entries if each["type"] == "flood"] == list(range(920, 1000))


def test_the_bytes_of_a_catalog_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "CATALOG_BYTES_MAX", 1_000_000)
    catalog, _, _ = make_catalog()
    catalog.update("10.0.0.1", update(type="hashtable", port=1))
    for port in range(1, 200):
        catalog.update("10.6.6.6", update(type="flood", port=port, text="x" * 60_000))
    assert len(Pages(catalog, "here:1").json()) < 1_000_000
    assert listed(catalog)[0]["type"] == "hashtable"


def test_the_accounts_are_even_when_all_is_gone() -> None:
    catalog, _, monotonic = make_catalog()
    for number in range(50):
        catalog.update(f"10.0.0.{number % 7}", update(type="t", port=number % 11 + 1, text="x" * number))
    monotonic.now_s += LIFETIME_S + 1
    assert listed(catalog) == []
    assert (catalog._records, catalog._cost_bytes, catalog._total_bytes, len(catalog)) == ({}, {}, 0, 0)
