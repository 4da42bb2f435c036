"""Counts and times what a server does: the observer behind `stats`, `kvzmq doctor` and the metrics for Prometheus.

It only adds numbers, asks nothing and keeps no request. A single lookup costs a busy server 8 us, and 2 % of that is
one look and one addition. So:

- how many operations there were of each kind, and all that is told of syncs, is exact: counted at every step;
- a step is timed every millisecond, the first to begin, so that a server with little to do times them all. Timing each
  took 6 us of a step, 8 % of one with a single lookup. What is slow once in a great while may be missed;
- the latency of every operation of a step is the step's: from the end of the poll that found them until the replies
  were handed over. What libzmq or the kernel had collected before is not seen, and a request that had to wait for an
  index counts with the step that took it in;
- the bytes of requests and of results are those of the timed steps, each counting for the steps since the one before:
  an estimate, exact while all steps are timed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kvzmq import errors
from kvzmq.protocol.declaration import Operation, method_of
from kvzmq.protocol.messages import Refusal, Reply, Request
from kvzmq.server.histogram import COUNTS, TIMES_NS, Histogram, Windows
from kvzmq.server.observer import Commit, Observer, Phases
from kvzmq.server.transport import Arrival

WINDOW_S = 60.0
"""How long a window of the recent times of the log is; `recent` is up to two of them."""

FIRST_MIN = 200
"""How many syncs are what the disk did at first."""

TIMED_EVERY_S = 0.001
"""How much time passes from one step that is timed to the next: 6 us of each millisecond are spent on it."""

COMMITS_KEPT_MAX = 256
"""How many commits are counted together: one by one each costs 2 us, as many at once 0.4 us."""

_PHASES = ("receive", "execute", "commit", "send")


_NOTHING = Histogram()

_Counts = dict[type[Operation], int]


class Metrics(Observer):
    """Counters and histograms of one server."""

    timed_every_s = TIMED_EVERY_S

    def __init__(self) -> None:
        self._counts: _Counts = {}
        self._bytes: _Counts = {}  # of requests, by the kind of their first operation
        self._latencies: dict[type[Operation], Histogram] = {}
        self._reply_bytes: _Counts = {}  # of results, likewise
        self._steps = 0  # with requests, since the last timed one
        self._step_counts_for = 1  # steps: of the timed step that goes on
        self._step: _Counts = {}  # of the timed step that goes on
        self._phases = {name: Histogram() for name in _PHASES}
        self._requests_per_step = Histogram(COUNTS)
        self._changes_per_sync = Histogram(COUNTS)
        self._commits: list[int] = []  # not counted yet, their fields in a row: nothing for the garbage collector
        self._append = Windows(FIRST_MIN)
        self._sync = Windows(FIRST_MIN)
        self._logged_bytes = 0
        self._expired_rows = 0
        self._replayed = 0

    # ---- what it is told

    def on_receive(self, arrivals: Sequence[Arrival], is_timed: bool) -> None:
        self._steps += 1
        counts = self._counts
        for arrival in arrivals:
            request = arrival.request
            ops = request.ops
            if len(ops) == 1:
                kind = type(ops[0])
                counts[kind] = counts.get(kind, 0) + 1
            elif isinstance(request, Request):
                _count_batch(request, counts)
        if is_timed:
            self._step = {}
            self._look_at(arrivals, self._steps)
            self._step_counts_for, self._steps = self._steps, 0

    def _look_at(self, arrivals: Sequence[Arrival], steps: int) -> None:
        """Note which operations a timed step has, and how long its requests are."""
        step, lengths = self._step, self._bytes
        for arrival in arrivals:
            request = arrival.request
            if isinstance(request, Refusal) or not request.ops:
                continue
            kind = type(request.ops[0])
            lengths[kind] = lengths.get(kind, 0) + steps * len(request.frame)
            if request.kinds is None:
                step[kind] = step.get(kind, 0) + 1
            else:
                _count_batch(request, step)

    def on_replies(self, arrivals: Sequence[Arrival], replies: Sequence[Reply]) -> None:
        steps, lengths = self._step_counts_for, self._reply_bytes
        for arrival, reply in zip(arrivals, replies):
            ops = arrival.request.ops
            if ops:
                kind = type(ops[0])
                lengths[kind] = lengths.get(kind, 0) + steps * len(reply.results)

    def on_step(self, phases: Phases) -> None:
        requests, receive_ns, execute_ns, commit_ns, send_ns = phases
        latency_ns = receive_ns + execute_ns + commit_ns + send_ns
        for kind, count in self._step.items():
            found = self._latencies.get(kind)
            if found is None:
                found = self._latencies[kind] = Histogram()
            found.add(latency_ns, count)
        self._step = {}
        times = self._phases
        times["receive"].add(receive_ns)
        times["execute"].add(execute_ns)
        if commit_ns:
            times["commit"].add(commit_ns)
        times["send"].add(send_ns)
        self._requests_per_step.add(requests)

    def on_commit(self, commit: Commit) -> None:
        self._commits += commit
        if len(self._commits) >= 4 * COMMITS_KEPT_MAX:
            self._count_commits()

    def _count_commits(self) -> None:
        commits, self._commits = self._commits, []
        if commits:
            self._changes_per_sync.add_all(commits[0::4])
            self._logged_bytes += sum(commits[1::4])
            self._append.current.add_all(commits[2::4])
            self._sync.current.add_all(commits[3::4])

    def on_expire(self, rows: int, revision: int) -> None:
        self._expired_rows += rows

    def on_replay(self, requests: int, revision: int) -> None:
        self._replayed += requests

    # ---- what there is to say

    def turn(self) -> float:
        """Begin the next window of recent times; a timer. Returns in how many seconds to begin another."""
        self._count_commits()
        self._append.turn()
        self._sync.turn()
        return WINDOW_S

    def describe(self, failed: Mapping[tuple[type[Operation], int], int]) -> dict[str, Any]:
        """Return the groups of `stats` that are counted here, by name.

        Args:
            failed: how many operations have failed, by class and code
        """
        self._count_commits()
        return {
            "by_operation": {
                method_of(kind): {
                    "count": count,
                    "errors": {
                        errors.BY_CODE[code].__name__: times for (of, code), times in failed.items() if of is kind
                    },
                    "request_bytes": self._bytes.get(kind, 0),
                    "reply_bytes": self._reply_bytes.get(kind, 0),
                    "latency": self._latencies.get(kind, _NOTHING).describe_s(),
                }
                for kind, count in self._counts.items()
            },
            "step": {
                "requests": self._requests_per_step.describe(),
                **{name: times.describe_s() for name, times in self._phases.items()},
            },
            "disk": {
                "append": self._append.in_all().describe_s(),
                "sync": self._sync.in_all().describe_s(),
                "sync_recent": self._sync.recent().describe_s(),
                "sync_first": None if self._sync.first is None else self._sync.first.describe_s(),
                "changes_per_sync": self._changes_per_sync.describe(),
                "logged_bytes": self._logged_bytes,
                "expired_rows": self._expired_rows,
                "replayed_requests": self._replayed,
            },
            "bounds": {"times_s": [bound / 1e9 for bound in TIMES_NS], "counts": list(COUNTS)},
        }


def _count_batch(request: Request, counts: _Counts) -> None:
    """Count the operations of a request that has several, or none; those of one kind at once."""
    kinds = request.kinds or ()
    if len(kinds) == 1:
        (kind,) = kinds
        counts[kind] = counts.get(kind, 0) + len(request.ops)
    else:
        for op in request.ops:
            counts[type(op)] = counts.get(type(op), 0) + 1
