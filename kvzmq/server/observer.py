"""What a server tells of itself while it works: trace, metrics, monitor and slow log listen here.

See `store.observer` for what an observer must not do. When there is none, nothing is timed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from kvzmq.protocol.messages import Request
from kvzmq.server.transport import Arrival
from kvzmq.store.observer import Commit, StoreObserver
from kvzmq.store.store import HeldReply

__all__ = ["Commit", "Executed", "Observer", "Phases"]


class Executed(NamedTuple):
    """One request that has executed; what it changed may not be durable yet. Times are nanoseconds (`perf_counter_ns`).

    step             the number of the step
    arrival          the peer, and the transport that it came by
    request          what was executed
    reply            what it gets
    revision_before  the table's
    revision_after   the table's
    received_ns      when it was taken in; long before `began_ns` if it had to wait for an index
    began_ns         when its execution began
    ended_ns         when its execution ended
    """

    step: int
    arrival: Arrival
    request: Request
    reply: HeldReply
    revision_before: int
    revision_after: int
    received_ns: int
    began_ns: int
    ended_ns: int


class Phases(NamedTuple):
    """Where the time of one step went, nanoseconds.

    requests    how many requests were executed or refused
    receive_ns  taking them in: from the end of the poll until all transports were drained
    execute_ns  executing them, what waited from earlier steps included
    commit_ns   in the log: append and sync
    send_ns     handing over the replies, and letting them go
    """

    requests: int
    receive_ns: int
    execute_ns: int
    commit_ns: int
    send_ns: int


class Observer(StoreObserver):
    """Base class of what listens to a server: every method does nothing, override what is wanted."""

    def on_execute(self, executed: Executed) -> None:
        """Take note that a request has executed: not a refused one, not a retry that gets its cached reply."""

    def on_step(self, phases: Phases) -> None:
        """Take note that a step of the loop with requests has ended."""


class PhaseClock(StoreObserver):
    """Times the phases of each step of the loop, and tells the observers.

    Args:
        observers: who is told
        counts: returns how many requests the dispatcher has executed, and for how long it has sent replies, in all
    """

    def __init__(self, observers: Sequence[Observer], counts: Callable[[], tuple[int, int]]) -> None:
        self._observers = observers
        self._counts = counts
        self._began_ns = self._drained_ns = self._dispatched_ns = self._commit_ns = 0
        self._before = counts()

    def on_commit(self, commit: Commit) -> None:
        """Count what the log has taken of the step."""
        self._commit_ns += commit.append_ns + commit.sync_ns

    def begin(self) -> None:
        """Begin a step: the poll has returned."""
        self._began_ns = time.perf_counter_ns()
        self._commit_ns = 0
        self._before = self._counts()

    def drained(self) -> None:
        """Note that all requests were taken in."""
        self._drained_ns = time.perf_counter_ns()

    def dispatched(self) -> None:
        """Note that all were executed and their replies handed to the transports."""
        self._dispatched_ns = time.perf_counter_ns()

    def end(self) -> None:
        """End the step: the replies have left. One without a request is not told."""
        requests, send_ns = (after - before for after, before in zip(self._counts(), self._before))
        if not requests:
            return
        phases = Phases(
            requests,
            self._drained_ns - self._began_ns,
            self._dispatched_ns - self._drained_ns - self._commit_ns - send_ns,
            self._commit_ns,
            send_ns + time.perf_counter_ns() - self._dispatched_ns,
        )
        for observer in self._observers:
            observer.on_step(phases)
