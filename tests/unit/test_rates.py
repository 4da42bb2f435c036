"""What two answers of `stats` say together."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from support.stepped import Stepped

from kvzmq.observing.rates import PHASES, SPAN_S_MIN, Snapshot, compare, since_start
from kvzmq.server.histogram import TIMES_NS, Histogram
from kvzmq.server.metrics import Metrics


def times(*values_ns: int) -> dict[str, Any]:
    found = Histogram()
    found.add_all(values_ns)
    return found.describe_s()


def snapshot(uptime_s: float, clients: tuple[dict[str, Any], ...] = (), **figures: Any) -> Snapshot:
    run = {"pid": 1, "lineage": "a", "epoch": "b", "version": "1", "uptime_s": uptime_s}
    bounds = {"times_s": [bound / 1e9 for bound in TIMES_NS]}
    return Snapshot(run | {"bounds": bounds} | figures, clients)


def client(name: str, requests: int, received_bytes: int | None, connected_s: float = 100.0) -> dict[str, Any]:
    taken_bytes = None if received_bytes is None else 2 * received_bytes
    return {
        "name": name, "requests": requests, "received_bytes": received_bytes, "taken_bytes": taken_bytes,
        "connected_s": connected_s,
    }  # fmt: skip


def test_counts_become_rates_by_the_servers_own_clock() -> None:
    before = snapshot(10.0, requests=100, revision=5, cpu_s=1.5)
    after = snapshot(12.0, requests=300, revision=5, cpu_s=2.3)
    rates = compare(before, after)
    assert rates is not None and rates.span_s == 2.0
    assert (rates.requests_per_s, rates.changes_per_s, round(rates.cpu_share, 6)) == (100.0, 0.0, 0.4)


def test_latencies_are_of_the_span_alone() -> None:
    """Seen red with the quantiles of the later snapshot."""
    slow, quick = (5_000_000,) * 1000, (40_000,) * 50
    before = snapshot(1.0, by_operation={"insert": operation(1000, times(*slow))})
    after = snapshot(2.0, by_operation={"insert": operation(1050, times(*slow, *quick)), "size": operation(1, times())})
    rates = compare(before, after)
    assert rates is not None and list(rates.operations) == ["insert", "size"]
    took = rates.operations["insert"].latency
    assert took.count == rates.latency.count == 50
    assert 20e-6 < took.p50_s <= took.p99_s <= 50e-6 and took.mean_s == pytest.approx(40e-6)
    assert rates.operations["size"].latency.count == 0 and rates.operations["size"].per_s == 1.0


def operation(count: int, latency: dict[str, Any], **failures: int) -> dict[str, Any]:
    return {"count": count, "errors": failures, "request_bytes": 30 * count, "latency": latency}


def test_errors_are_counted_by_operation() -> None:
    before = snapshot(1.0, by_operation={"cas": operation(10, times(), CompareFailed=1)})
    after = snapshot(2.0, by_operation={"cas": operation(20, times(), CompareFailed=4, WrongType=2)})
    rates = compare(before, after)
    assert rates is not None
    assert rates.operations["cas"].errors_per_s == 5.0 and rates.operations["cas"].request_bytes_per_s == 300.0


def test_a_server_that_was_started_anew_has_no_rates_yet() -> None:
    """Its counts begin at 0. Seen red with the epoch left out: 4 s later its counts are higher than before."""
    before, after = snapshot(1.0, requests=10), snapshot(5.0, requests=400)
    assert compare(before, after) is not None
    for name, value in (("epoch", "c"), ("pid", 2), ("lineage", "z"), ("version", "2"), ("uptime_s", 0.5)):
        other = Snapshot(dict(after.stats) | {name: value})
        assert compare(before, other) is None, name
    assert compare(before, snapshot(1.0 + SPAN_S_MIN / 2, requests=20)) is None


def test_clients_are_compared_by_name_and_new_ones_since_they_connected() -> None:
    before = snapshot(10.0, (client("a", 100, 1000), client("b", 50, None), client("gone", 9, 9)))
    after = snapshot(12.0, (client("a", 300, 3000), client("b", 60, None), client("new", 8, 800, 4.0)))
    rates = compare(before, after)
    assert rates is not None
    found = {
        one.client["name"]: (one.requests_per_s, one.received_bytes_per_s, one.taken_bytes_per_s)
        for one in rates.clients
    }
    assert found == {"a": (100.0, 1000.0, 2000.0), "b": (5.0, None, None), "new": (2.0, 200.0, 400.0)}


def test_clients_of_an_earlier_server_have_taken_nobody_knows_what() -> None:
    earlier = {"name": "a", "requests": 1, "received_bytes": 1, "connected_s": 10.0}
    rates = compare(snapshot(10.0, (earlier,)), snapshot(12.0, (earlier | {"requests": 3},)))
    assert rates is not None
    assert rates.clients[0].requests_per_s == 1.0 and rates.clients[0].taken_bytes_per_s is None


def test_a_client_that_connected_again_under_its_name_has_no_negative_rate() -> None:
    before = snapshot(10.0, (client("a", 100, 1000),))
    rates = compare(before, snapshot(12.0, (client("a", 4, 40, 1.0),)))
    assert rates is not None and rates.clients[0].requests_per_s == 2.0


def test_phases_are_shares_of_the_timed_steps() -> None:
    step = {name: times(*(100_000 * (at + 1),) * 10) for at, name in enumerate(PHASES)}
    rates = compare(snapshot(1.0), snapshot(2.0, step=step))
    assert rates is not None
    assert [round(rates.step_shares[name], 3) for name in PHASES] == [0.1, 0.2, 0.3, 0.4]
    idle = compare(snapshot(1.0, step=step), snapshot(2.0, step=step))
    assert idle is not None and set(idle.step_shares.values()) == {0.0}


def test_a_server_that_says_little_has_rates_of_what_it_says() -> None:
    rates = compare(Snapshot({"uptime_s": 1.0, "requests": 1}), Snapshot({"uptime_s": 2.0, "requests": 5}))
    assert rates is not None and rates.requests_per_s == 4.0
    assert rates.sync.count == 0 and rates.operations == {} and rates.changes_per_sync == 0.0


def taken(table: Stepped) -> Snapshot:
    """Return the server's figures as a client gets them: a copy."""
    return Snapshot(msgspec.msgpack.decode(msgspec.msgpack.encode(table.server.describe())))


def test_a_real_servers_figures_can_be_compared() -> None:
    with Stepped(metrics=Metrics()) as table:
        peer = table.zmq()
        table.now_s += 1.0
        table.call(peer, "insert", "a", 1)
        before = taken(table)
        table.now_s += 1.0
        table.server.step(0.0)  # in which the timer falls due that has the next one timed
        table.call(peer, "insert", "b", 1)
        after = Snapshot(dict(taken(table).stats) | {"uptime_s": before.stats["uptime_s"] + 2.0})
    rates = compare(before, after)
    assert rates is not None
    assert rates.operations["insert"].per_s == pytest.approx(0.5) and rates.changes_per_s == pytest.approx(0.5)
    assert rates.sync.count == 1 and rates.changes_per_sync == 1.0 and rates.logged_bytes_per_s > 10
    assert rates.latency.count == 1 and rates.latency.p99_s > 0
    assert since_start(before).operations["insert"].per_s > 0
