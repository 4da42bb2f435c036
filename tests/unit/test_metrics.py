"""What a server counts and times of itself."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, cast

import msgspec
import pytest
from support.stepped import Stepped

from kvzmq.protocol import msgpack
from kvzmq.protocol.messages import Refusal
from kvzmq.server.histogram import TIMES_NS, Histogram, Windows
from kvzmq.server.metrics import COMMITS_KEPT_MAX, TIMED_EVERY_S, WINDOW_S, Metrics
from kvzmq.server.observer import Commit, Phases
from kvzmq.server.transport import Arrival
from kvzmq.store.log import Log
from kvzmq.store.store import Store


@pytest.fixture
def table() -> Iterator[Stepped]:
    with Stepped(metrics=Metrics()) as stepped:
        yield stepped


def test_a_value_belongs_to_the_first_bound_that_it_does_not_exceed() -> None:
    one_by_one, together = Histogram((10, 20)), Histogram((10, 20))
    values = [0, 10, 11, 20, 21, 1000]
    for value in values:
        one_by_one.add(value)
    together.add_all(values)
    for found in (one_by_one, together):
        assert (found.counts, found.count, found.sum, found.max) == ([2, 2, 2], 6, 1062, 1000)


def test_quantiles_are_as_exact_as_the_bounds_and_never_beyond_the_maximum() -> None:
    chosen = random.Random(5)
    values = sorted(int(chosen.lognormvariate(11, 1)) for _ in range(5000))
    found = Histogram()
    found.add_all(values)
    for share in (0.5, 0.99):
        exact = values[int(share * len(values))]
        assert exact / 2.5 <= found.quantile(share) <= min(exact * 2.5, values[-1])
    assert found.quantile(1.0) == values[-1] and Histogram().quantile(0.99) == 0
    slow = Histogram()
    slow.add(60 * 10**9)
    assert slow.quantile(0.99) <= 60 * 10**9 and slow.counts[-1] == 1


def test_what_a_disk_did_at_first_is_kept_and_what_it_does_lately_forgets() -> None:
    windows = Windows(first_min=10)
    for value in (1000, 1000, 9_000_000):
        windows.current.add_all([value] * 10)
        windows.turn()
    windows.turn()
    windows.current.add(50)
    assert windows.first is not None and windows.first.max == 1000
    assert windows.in_all().count == 31 and windows.in_all().max == 9_000_000
    assert windows.recent().count == 1


def test_operations_are_counted_exactly_whether_alone_or_in_batches(table: Stepped) -> None:
    peer, bridge = table.zmq(), table.tcp()
    for number in range(50):  # most of these steps are not timed
        table.call(peer, "insert", f"k{number}", number)
    peer.send(*[["lookup", "k1"]] * 50)
    peer.send(["lookup", "k1"], ["size"])
    table.replies(peer, 2)
    bridge.send(b'rubbish\n{"method": "size"}\n')
    table.lines(bridge, 2)
    found = table.server.describe()["by_operation"]
    assert {name: of["count"] for name, of in found.items()} == {"insert": 50, "lookup": 51, "size": 2}


def test_errors_are_counted_by_operation_and_name_and_not_those_of_the_past(table: Stepped) -> None:
    peer = table.zmq()
    table.call(peer, "insert", "a", "text")
    for _ in range(3):
        table.call(peer, "lookup", "ghost")
    table.call(peer, "increment", "a")
    table.call(peer, "watch", "", 99)
    found = table.server.describe()["by_operation"]
    assert found["lookup"]["errors"] == {"NoSuchKey": 3} and found["increment"]["errors"] == {"WrongType": 1}
    assert found["watch"]["errors"] == {"RevisionGone": 1} and found["insert"]["errors"] == {}


def test_a_server_with_little_to_do_times_every_step_and_a_busy_one_some(table: Stepped) -> None:
    peer = table.zmq()
    for _ in range(5):
        table.now_s += 2 * TIMED_EVERY_S
        table.call(peer, "insert", "abc", 1)
    found = table.server.describe()["by_operation"]["insert"]
    assert found["latency"]["count"] == 5
    frame_bytes = len(table.log.groups[0]) - len(b"\x92\xce\x3b\x9a\xca\x00\x91")
    assert found["request_bytes"] == 5 * frame_bytes and found["reply_bytes"] == 5 * len(b"\x91\x92\x00\xc0")
    for _ in range(20):
        table.call(peer, "insert", "abc", 1)
    table.now_s += 2 * TIMED_EVERY_S
    table.call(peer, "ping")  # the step after which the time is up
    table.call(peer, "insert", "abc", 1)
    found = table.server.describe()["by_operation"]["insert"]
    assert found["count"] == 26 and found["latency"]["count"] <= 7
    assert found["request_bytes"] >= 25 * frame_bytes and found["reply_bytes"] >= 25 * 4


def test_the_latency_of_an_operation_is_that_of_its_step() -> None:
    metrics = Metrics()
    request = msgpack.decode_request(msgspec.msgpack.encode([None, 1, [["lookup", "a"]]]))
    nowhere: Any = None
    arrivals = [Arrival(nowhere, 6, request), Arrival(nowhere, 7, Refusal(None, 17, "no method"))]
    metrics.on_receive(arrivals, True)
    metrics.on_step(Phases(2, 1000, 2000, 3000, 4000))
    latency = metrics.describe({})["by_operation"]["lookup"]["latency"]
    assert (latency["count"], latency["sum_s"], latency["max_s"]) == (1, 1e-5, 1e-5)
    assert latency["buckets"][TIMES_NS.index(10_000)] == 1
    assert metrics.describe({})["step"]["commit"]["sum_s"] == 3e-6


def test_syncs_are_counted_all_and_in_windows() -> None:
    metrics = Metrics()
    for number in range(COMMITS_KEPT_MAX + 44):
        metrics.on_commit(Commit(number % 3, 100, 1000, 50_000))
    found = metrics.describe({})["disk"]
    assert found["sync"]["count"] == found["append"]["count"] == COMMITS_KEPT_MAX + 44 == 300
    assert found["logged_bytes"] == 30_000 and found["changes_per_sync"]["sum"] == 300
    assert found["sync_first"] is None
    metrics.on_commit(Commit(0, 0, 1000, 50_000))
    assert metrics.turn() == WINDOW_S
    metrics.on_commit(Commit(1, 1, 1, 9_000_000))
    found = metrics.describe({})["disk"]
    assert found["sync_first"]["count"] == 301 and found["sync"]["max_s"] == 0.009
    metrics.turn(), metrics.turn()
    assert metrics.describe({})["disk"]["sync_recent"]["count"] == 0


def test_the_bytes_of_rows_follow_every_kind_of_change(table: Stepped) -> None:
    """Red when a replaced value, or the key of a removed row, still counted."""
    peer = table.zmq()
    chosen = random.Random(3)
    keys = [f"k{number}" for number in range(20)]
    for _ in range(300):
        key, text = chosen.choice(keys), "x" * chosen.randrange(50)
        table.call(peer, *chosen.choice([
            ("insert", key, text), ("remove", key), ("insert_many", {one: text for one in chosen.sample(keys, 5)}),
            ("remove_many", chosen.sample(keys, 3)), ("increment", "n"), ("insert", key, text, 1.0),
            ("transaction", [], [["insert", key, text], ["remove", "ghost"]]),
            ("transaction", [], [["insert", key, text], ["insert", "other", text]]),
        ]))  # fmt: skip
        table.now_us += 100_000
    rows = table.store.table.rows
    assert table.server.describe()["row_bytes"] == sum(len(key) + len(value) for key, value in rows.items()) > 0
    other = Store(cast("Log", table.log))
    other.table.load(list(table.store.table.dump()))
    assert other.table.row_bytes == table.store.table.row_bytes
