"""Looking a server up in a catalog, which may answer anything."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time

import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st
from support.catalogs import FIELD_NAMES, JSON_VALUES, WAIT_S, entry, http
from support.servers import hold_port

from kvzmq.catalog import (
    AnotherTable,
    BadCatalogAnswer,
    CatalogUnreachable,
    Entry,
    NoSuchProject,
    NoUsableServer,
    endpoints_of,
    find,
    find_servers,
    lookup,
    query,
)
from kvzmq.catalog.lookup import entries_of
from kvzmq.errors import KvzmqError


class Answering:
    """A server in a thread that answers every connection with the same bytes, perhaps slowly."""

    def __init__(self, answer: bytes, pause_s: float = 0.0) -> None:
        self._answer = answer
        self._pause_s = pause_s
        self._stop = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            peer, _ = self._listener.accept()
            with peer, contextlib.suppress(OSError):
                if self._stop.is_set():
                    return
                peer.settimeout(WAIT_S)
                peer.recv(65536)
                if not self._pause_s:
                    peer.sendall(self._answer)
                    continue
                for byte in self._answer:
                    if self._stop.wait(self._pause_s):
                        break
                    peer.sendall(bytes([byte]))

    def __enter__(self) -> Answering:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        socket.create_connection(("127.0.0.1", self.port)).close()
        self._thread.join(WAIT_S)
        self._listener.close()


def test_the_newest_entry_of_type_and_project_is_found() -> None:
    """Seen to fail with min in the place of max."""
    entries = [
        entry(port=1, lastheardfrom=100),
        entry(port=2, lastheardfrom=300, type="chirp"),
        entry(port=3, lastheardfrom=300, project="other"),
        entry(
            port=4,
            lastheardfrom=200,
            owner="me",
            endpoint="tcp://*:7",
            revision=5,
            keys=6,
            clients=7,
            name="n",
        ),
        entry(port=5, lastheardfrom=150),
    ]
    with Answering(http(json.dumps(entries).encode())) as answering:
        found = find("hashtable", "zebra", "127.0.0.1", answering.port, WAIT_S)
    assert found == Entry(
        type="hashtable",
        project="zebra",
        address="127.0.0.1",
        name="n",
        port=4,
        endpoint="tcp://*:7",
        owner="me",
        revision=5,
        keys=6,
        clients=7,
        lastheardfrom=200,
    )


def test_of_entries_heard_in_the_same_second_the_last_one_listed_is_found() -> None:
    entries = [entry(port=1), entry(port=2), entry(port=3, lastheardfrom=99)]
    with Answering(http(json.dumps(entries).encode())) as answering:
        assert find("hashtable", "zebra", "127.0.0.1", answering.port, WAIT_S).port == 2


def test_an_unknown_project_is_a_definite_error_that_names_the_known_ones() -> None:
    entries = [entry(project=name) for name in ("b", "a")]
    with Answering(http(json.dumps(entries).encode())) as answering, pytest.raises(NoSuchProject) as caught:
        find("hashtable", "zebra", "127.0.0.1", answering.port, WAIT_S)
    assert "'zebra'" in str(caught.value)
    assert "a, b" in str(caught.value)
    assert isinstance(caught.value, KvzmqError)


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-x\r\n", http(b"<html>"), http(b"{}"), http(b"[{}")])
def test_what_is_no_catalog_is_called_so(answer: bytes) -> None:
    with Answering(answer) as answering, pytest.raises(BadCatalogAnswer, match="no catalog"):
        query("127.0.0.1", answering.port, WAIT_S)


def test_an_error_status_is_shown() -> None:
    with (
        Answering(http(b"[]", b"HTTP/1.1 404 Not Found")) as answering,
        pytest.raises(BadCatalogAnswer, match="404"),
    ):
        query("127.0.0.1", answering.port, WAIT_S)


def test_an_answer_that_never_ends_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "ANSWER_BYTES_MAX", 1000)
    with (
        Answering(http(b"[" + b" " * 5000 + b"]")) as answering,
        pytest.raises(BadCatalogAnswer, match="longer"),
    ):
        query("127.0.0.1", answering.port, WAIT_S)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_an_absent_catalog_is_unreachable(host: str) -> None:
    with hold_port() as held, pytest.raises(CatalogUnreachable, match=str(held.getsockname()[1])):
        query(host, held.getsockname()[1], WAIT_S)


@pytest.mark.parametrize("host", ["", "no\0host", "x" * 300, "bad host"])
def test_a_host_that_cannot_exist_is_unreachable(host: str) -> None:
    with pytest.raises(CatalogUnreachable):
        query(host, 70_000, 1.0)


def test_the_deadline_holds_against_an_answer_that_trickles() -> None:
    """Seen to fail with the time-out given to the socket once, as http.client does."""
    with Answering(http(b"[" + b" " * 2000), pause_s=0.05) as answering:
        began_s = time.monotonic()
        with pytest.raises(CatalogUnreachable, match="timed out"):
            query("127.0.0.1", answering.port, 0.3)
        assert time.monotonic() - began_s < WAIT_S, "as long as all of it takes"


@pytest.mark.parametrize(
    "bad",
    [
        1,
        None,
        [],
        {},
        entry(type=1),
        entry(type=None),
        entry(port="1"),
        entry(port=0),
        entry(port=-1),
        entry(port=65536),
        entry(port=True),
        entry(port=1e300),
        entry(address=5, name=None),
    ],
)
def test_entries_that_make_no_sense_are_left_out(bad: object) -> None:
    found = entries_of(http(json.dumps([entry(port=1), bad, entry(port=2)]).encode()))
    assert [each.port for each in found] == [1, 2]


@pytest.mark.parametrize(
    ("fields", "field", "expected"),
    [
        ({"lastheardfrom": "99999999999"}, "lastheardfrom", 0),
        ({"lastheardfrom": None}, "lastheardfrom", 0),
        ({"lastheardfrom": 5.0}, "lastheardfrom", 5),
        ({"keys": -1}, "keys", 0),
        ({"keys": 1e400}, "keys", 0),
        ({"keys": float("nan")}, "keys", 0),
        ({"owner": 7}, "owner", ""),
        ({"project": ["zebra"]}, "project", ""),
    ],
)
def test_fields_that_make_no_sense_are_empty(fields: dict[str, object], field: str, expected: object) -> None:
    (found,) = entries_of(http(json.dumps([entry(**fields)]).encode()))
    assert getattr(found, field) == expected


def test_of_fields_that_stand_twice_the_catalogs_own_counts() -> None:
    """Seen to fail with plain json.loads: the original leaves announced fields of its own names standing."""
    body = b'[{"address":"127.0.0.1","lastheardfrom":100,"type":"t","port":1,"address":"6.6.6.6","lastheardfrom":9e9}]'
    (found,) = entries_of(http(body))
    assert (found.address, found.lastheardfrom) == ("127.0.0.1", 100)


def test_one_unreadable_entry_of_the_originals_does_not_cost_the_others() -> None:
    entries = [
        f'{{"type":"{name}","port":1,"name":"n","v":{value}}}' for name, value in (("a", 1), ("b", "inf"), ("c", 2))
    ]
    body = "[\n" + ",\n".join(entries) + "\n]\n"
    assert [each.type for each in entries_of(http(body.encode()))] == ["a", "c"]


def test_an_answer_cut_short_is_no_answer() -> None:
    body = json.dumps([entry(port=1), entry(port=2)]).encode().replace(b"}, {", b"},\n{")
    for length in range(len(body)):
        with pytest.raises(ValueError, match=r"not a JSON array|not HTTP"):
            entries_of(http(body[:length]))


def test_head_lines_may_end_as_the_originals_do() -> None:
    assert entries_of(b'HTTP/1.1 200 OK\nServer: catalog_server\n\n[\n{"type":"a","port":1,"name":"n"}\n]\n')


@settings(deadline=None)
@given(st.binary() | st.binary().map(http))
def test_no_bytes_from_a_catalog_raise_anything_but_a_value_error(answer: bytes) -> None:
    with contextlib.suppress(ValueError):
        entries_of(answer)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.dictionaries(FIELD_NAMES, JSON_VALUES, max_size=6) | JSON_VALUES, max_size=5))
def test_whatever_the_entries_are_the_usable_ones_come_out(entries: list[object]) -> None:
    found = entries_of(http(json.dumps([*entries, entry(project="last")]).encode()))
    assert found[-1].project == "last"
    assert all(each.type and (each.endpoint or 0 < each.port < 65536) for each in found)


@pytest.mark.parametrize(
    ("endpoint", "address", "expected"),
    [
        ("tcp://0.0.0.0:5570", "10.0.0.5", "tcp://10.0.0.5:5570"),
        ("tcp://*:5570", "10.0.0.5", "tcp://10.0.0.5:5570"),
        ("tcp://[::]:5570", "fe80::1", "tcp://[fe80::1]:5570"),
        ("tcp://10.1.1.1:5570", "10.0.0.5", "tcp://10.1.1.1:5570"),
        ("ipc:///tmp/x", "10.0.0.5", ""),
        ("", "10.0.0.5", ""),
    ],
)
def test_an_endpoint_on_every_interface_is_reached_at_the_address(endpoint: str, address: str, expected: str) -> None:
    (found,) = entries_of(http(json.dumps([entry(endpoint=endpoint, address=address)]).encode()))
    assert found.url() == expected


@pytest.mark.parametrize(
    ("address", "catalog_host", "expected"),
    [
        ("10.0.0.5", "10.0.0.1", "tcp://10.0.0.5:5570"),
        ("127.0.0.1", "names.example", "tcp://names.example:5570"),
        ("::1", "fe80::2", "tcp://[fe80::2]:5570"),
        ("127.0.0.1", "127.0.0.1", "tcp://127.0.0.1:5570"),
        ("", "10.0.0.1", ""),
        ("no address", "10.0.0.1", ""),
    ],
)
def test_what_a_catalog_heard_on_its_loopback_is_reached_where_the_catalog_is(
    address: str, catalog_host: str, expected: str
) -> None:
    """Seen to fail with the catalog's loopback passed on to other machines."""
    (found,) = entries_of(http(json.dumps([entry(endpoint="tcp://0.0.0.0:5570", address=address)]).encode()))
    assert found.url(catalog_host) == expected


A, B = "a" * 32, "b" * 32


def servers(*fields: dict[str, object]) -> list[Entry]:
    return entries_of(http(json.dumps([entry(**each) for each in fields]).encode()))


def test_all_servers_of_a_project_are_found_newest_first_with_the_bridge_or_without() -> None:
    entries = [
        entry(endpoint="tcp://10.0.0.1:1", lastheardfrom=5),
        entry(endpoint="tcp://10.0.0.1:2", lastheardfrom=7, type="hashtable-zeromq"),
        entry(endpoint="tcp://10.0.0.1:3", lastheardfrom=7, project="other"),
        entry(endpoint="tcp://10.0.0.1:4", lastheardfrom=9, type="stopped"),
        entry(endpoint="tcp://10.0.0.1:5", lastheardfrom=7),
    ]
    with Answering(http(json.dumps(entries).encode())) as catalog:
        found = find_servers("zebra", "127.0.0.1", catalog.port)
    assert endpoints_of(found, "127.0.0.1") == ["tcp://10.0.0.1:5", "tcp://10.0.0.1:2", "tcp://10.0.0.1:1"]


def test_one_sender_cannot_name_more_servers_than_are_considered() -> None:
    entries = [entry(endpoint=f"tcp://10.0.0.1:{port}", lastheardfrom=port) for port in range(1, 200)]
    with Answering(http(json.dumps(entries).encode())) as catalog:
        found = find_servers("zebra", "127.0.0.1", catalog.port)
    assert [each.lastheardfrom for each in found] == list(range(199, 199 - lookup.SERVERS_MAX, -1))


def test_a_server_announced_twice_is_tried_once() -> None:
    twice = servers({"endpoint": "tcp://10.0.0.1:1"}, {"endpoint": "tcp://10.0.0.1:1", "port": 2})
    assert endpoints_of(twice, "h") == ["tcp://10.0.0.1:1"]


def test_servers_of_another_table_are_left_out_and_those_that_do_not_tell_come_last() -> None:
    """Seen to fail with the lineage not looked at."""
    entries = servers(
        {"endpoint": "tcp://10.0.0.1:1"},
        {"endpoint": "tcp://10.0.0.1:2", "lineage": B},
        {"endpoint": "tcp://10.0.0.1:3", "lineage": A.upper()},
        {"endpoint": "tcp://10.0.0.1:4", "lineage": "no lineage"},
    )
    assert endpoints_of(entries, "h") == [f"tcp://10.0.0.1:{port}" for port in (1, 2, 3, 4)]
    assert endpoints_of(entries, "h", A) == [f"tcp://10.0.0.1:{port}" for port in (3, 1, 4)]
    with pytest.raises(AnotherTable, match=r"^project zebra is announced by 1 server of another table$"):
        endpoints_of(entries[1:2], "h", A)
    with pytest.raises(AnotherTable, match=r"^project zebra is announced by 2 servers of another table$"):
        endpoints_of(entries[1:3], "h", "c" * 32)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({}, "only with the bridge's port 1"),
        ({"endpoint": "ipc:///tmp/x"}, "only with the bridge's port 1"),
        ({"endpoint": "tcp://127.0.0.1:1", "address": "192.0.2.7"}, "announced by 192.0.2.7, and only that machine"),
    ],
)
def test_what_cannot_be_reached_from_here_is_no_server_of_ours(fields: dict[str, object], why: str) -> None:
    """Seen to fail with another machine's loopback taken for this one's."""
    with pytest.raises(NoUsableServer, match=why):
        endpoints_of(servers(fields), "127.0.0.1")
    better: dict[str, object] = {"endpoint": "tcp://127.0.0.1:2", "address": "127.0.0.1"}
    assert endpoints_of(servers(fields, better), "127.0.0.1") == ["tcp://127.0.0.1:2"]


ENDPOINTS = st.text(max_size=30) | st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["tcp://", "ipc://", "inproc://", "catalog://", "TCP://", ""]),
    st.sampled_from(["*", "0.0.0.0", "[::]", "[::1]", "[", "]:", "h", "a_b", "a..b", "1.2.3.4", "[:::::]", "-x", "x;y"])
    | st.text(alphabet="aZ09.:[]-_%;/* ", max_size=8),
    st.sampled_from([":", "", "::"]),
    st.integers(-1, 70_000) | st.sampled_from(["", "*", "!", "5570 ", "١"]),
)


@settings(max_examples=400, deadline=None)
@given(ENDPOINTS, st.sampled_from(["10.0.0.1", "::1", "", "127.0.0.1", "*"]) | st.text(max_size=5))
def test_zeromq_takes_every_endpoint_that_a_lookup_gives(endpoint: str, address: str) -> None:
    """Seen to fail with the announced text taken as it is."""
    for found in servers({"endpoint": endpoint, "address": address, "lineage": endpoint}):
        url = found.url("10.0.0.9")
        assert not found.lineage
        if url:
            with zmq.Context() as context, context.socket(zmq.DEALER) as sock:
                sock.linger = 0
                sock.connect(url)
