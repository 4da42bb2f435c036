"""What happened between two times at which a server was asked for its figures: rates, latencies, shares.

    before = Snapshot(stats=client.stats(), clients=client.clients())
    ...
    now = compare(before, after)
    now.operations["insert"].per_s      now.operations["insert"].latency.p99_s

The span is by the server's clock (`uptime_s`), so that an answer that comes late changes no rate. Counts that only grow
are subtracted, histograms bound by bound; what the server counts by samples stays an estimate (kvzmq/server/metrics.py
says which). A figure that the server does not give, an older one for example, is 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from kvzmq.server.histogram import Histogram

SPAN_S_MIN = 0.05
"""From what span on there are rates: `uptime_s` is exact to 0.001 s."""

PHASES = ("receive", "execute", "commit", "send")
"""The parts of a timed step, in their order; `commit` is the log's: append and sync."""


_NEW_CLIENT: Mapping[str, Any] = {"requests": 0, "received_bytes": 0, "taken_bytes": 0}


class Snapshot(msgspec.Struct, frozen=True):
    """What a server said of itself, and of its clients, at one time."""

    stats: Mapping[str, Any]
    clients: Sequence[Mapping[str, Any]] = ()


class Times(msgspec.Struct, frozen=True):
    """How long something took, and how often it was timed; all 0 if it was not."""

    count: int = 0
    mean_s: float = 0.0
    p50_s: float = 0.0
    p99_s: float = 0.0
    sum_s: float = 0.0


class OperationRates(msgspec.Struct, frozen=True):
    """One kind of operation: how many a second, how many of them failed, how long they took."""

    per_s: float
    errors_per_s: float
    request_bytes_per_s: float
    latency: Times


class ClientRates(msgspec.Struct, frozen=True):
    """One client: what `clients` says of it, what the server has received from it a second, and what it has taken.

    Bytes are None where they are not known.
    """

    client: Mapping[str, Any]
    requests_per_s: float
    received_bytes_per_s: float | None
    taken_bytes_per_s: float | None


class Rates(msgspec.Struct, frozen=True):
    """What happened in a span of `span_s` seconds.

    operations         by name, those that have ever been called
    latency            of all operations together
    requests_per_step  the mean, of the steps that were timed
    changes_per_sync   the mean
    changes_per_s      of rows: how far the revision went
    sync, append       the log's; `sync` is the wait alone
    step               by phase, of the steps that were timed
    step_shares        which part of a timed step each phase took, 0 to 1; all 0 if none was timed
    cpu_share          of one core
    clients            those that are connected
    """

    span_s: float
    requests_per_s: float
    operations_per_s: float
    changes_per_s: float
    steps_per_s: float
    syncs_per_s: float
    logged_bytes_per_s: float
    expired_rows_per_s: float
    cpu_share: float
    requests_per_step: float
    changes_per_sync: float
    latency: Times
    sync: Times
    append: Times
    step: Mapping[str, Times]
    step_shares: Mapping[str, float]
    operations: Mapping[str, OperationRates]
    clients: Sequence[ClientRates]


def is_same_run(before: Snapshot, after: Snapshot) -> bool:
    """Say whether both are of one run of one server, so that what it counts has gone on."""
    earlier, later = before.stats, after.stats
    names = ("pid", "lineage", "epoch", "version")
    goes_on: bool = _of(later, "uptime_s") >= _of(earlier, "uptime_s")
    return goes_on and all(earlier.get(name) == later.get(name) for name in names)


def compare(before: Snapshot, after: Snapshot) -> Rates | None:
    """Return what happened between two snapshots; None if the server was started anew, or if hardly any time passed."""
    span_s: float = _of(after.stats, "uptime_s") - _of(before.stats, "uptime_s")
    if not is_same_run(before, after) or span_s < SPAN_S_MIN:
        return None
    return _rates(before, after, span_s)


def since_start(snapshot: Snapshot) -> Rates:
    """Return what happened since the server was started."""
    return _rates(
        Snapshot({"bounds": snapshot.stats.get("bounds")}), snapshot, max(_of(snapshot.stats, "uptime_s"), 1e-3)
    )


def _rates(before: Snapshot, after: Snapshot, span_s: float) -> Rates:
    bounds = [round(bound_s * 1e9) for bound_s in _of(after.stats, "bounds.times_s", ())]

    def per_s(name: str) -> float:
        grown: float = _of(after.stats, name) - _of(before.stats, name)
        return max(0.0, grown) / span_s

    def times(name: str) -> Histogram:
        return _between(_of(before.stats, name, {}), _of(after.stats, name, {}), bounds)

    operations, latency = {}, Histogram(bounds)
    for name in _of(after.stats, "by_operation", {}):
        within = f"by_operation.{name}"
        took = times(f"{within}.latency")
        latency.merge(took)
        operations[name] = OperationRates(
            per_s(f"{within}.count"),
            sum(per_s(f"{within}.errors.{error}") for error in _of(after.stats, f"{within}.errors", {})),
            per_s(f"{within}.request_bytes"),
            _times(took),
        )
    step = {phase: times(f"step.{phase}") for phase in PHASES}
    step_ns = sum(phase.sum for phase in step.values())
    return Rates(
        span_s=span_s,
        requests_per_s=per_s("requests"),
        operations_per_s=per_s("operations"),
        changes_per_s=per_s("revision"),
        steps_per_s=per_s("steps"),
        syncs_per_s=per_s("disk.sync.count"),
        logged_bytes_per_s=per_s("disk.logged_bytes"),
        expired_rows_per_s=per_s("disk.expired_rows"),
        cpu_share=per_s("cpu_s"),
        requests_per_step=_mean(per_s("step.requests.sum"), per_s("step.requests.count")),
        changes_per_sync=_mean(per_s("disk.changes_per_sync.sum"), per_s("disk.changes_per_sync.count")),
        latency=_times(latency),
        sync=_times(times("disk.sync")),
        append=_times(times("disk.append")),
        step={phase: _times(took) for phase, took in step.items()},
        step_shares={phase: _mean(took.sum, step_ns) for phase, took in step.items()},
        operations=operations,
        clients=list(_client_rates(before.clients, after.clients, span_s)),
    )


def _client_rates(
    before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]], span_s: float
) -> Iterable[ClientRates]:
    earlier = {one["name"]: one for one in before}
    for one in after:
        was = earlier.get(one["name"])
        if was is None or was["requests"] > one["requests"]:  # a connection that has begun since, perhaps just now
            was, over_s = _NEW_CLIENT, max(span_s, one["connected_s"] or 0.0)
        else:
            over_s = span_s
        yield ClientRates(
            one,
            (one["requests"] - was["requests"]) / over_s,
            _grown_per_s(was.get("received_bytes"), one.get("received_bytes"), over_s),
            _grown_per_s(was.get("taken_bytes"), one.get("taken_bytes"), over_s),
        )


def _grown_per_s(before: int | None, after: int | None, over_s: float) -> float | None:
    return None if before is None or after is None else max(0, after - before) / over_s


def _between(before: Mapping[str, Any], after: Mapping[str, Any], bounds: Sequence[int]) -> Histogram:
    """Return the times that came in between two descriptions of a histogram."""
    found = Histogram(bounds)
    later = after.get("buckets") or ()
    earlier = before.get("buckets") or [0] * len(later)
    if len(later) != len(bounds) + 1 or len(earlier) != len(later):
        return found
    found.counts = [max(0, now - was) for now, was in zip(later, earlier)]
    found.sum = round(max(0.0, after["sum_s"] - before.get("sum_s", 0.0)) * 1e9)
    # The longest of all times may be an earlier one. Then it is known only up to the bound of the last bucket in use.
    longest = round(after["max_s"] * 1e9)
    last = max((at for at, times in enumerate(found.counts) if times), default=0)
    found.max = min(longest, bounds[last]) if last < len(bounds) else longest
    return found


def _times(found: Histogram) -> Times:
    count = found.count
    return Times(
        count, _mean(found.sum, count) / 1e9, found.quantile(0.5) / 1e9, found.quantile(0.99) / 1e9, found.sum / 1e9
    )


def _mean(total: float, number: float) -> float:
    return total / number if number else 0.0


def _of(stats: Mapping[str, Any], path: str, absent: Any = 0.0) -> Any:
    """Return the figure of a name with dots, or `absent` if the server did not give it."""
    found: Any = stats
    for name in path.split("."):
        if not isinstance(found, Mapping) or found.get(name) is None:
            return absent
        found = found[name]
    return found
