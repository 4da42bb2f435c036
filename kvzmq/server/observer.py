"""What a server tells of itself while it works: trace, metrics, monitor and slow log listen here.

See `store.observer` for what an observer must not do. When there is none, nothing is timed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

from kvzmq.protocol.messages import Request
from kvzmq.server.transport import Arrival
from kvzmq.store.observer import Commit, StoreObserver
from kvzmq.store.store import HeldReply

__all__ = ["Commit", "Executed", "Observer", "Phases"]


TIMED_EVERY_S = 0.01
"""A step is timed at the latest so long after the one timed last, however few are wanted."""


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
    """Base class of what listens to a server: every method does nothing, override what is wanted.

    What is not wanted costs nothing: requests are timed and told one by one only if somebody overrides `on_execute`,
    which takes 1 us of each; and steps are timed as often as somebody asks for.
    """

    timed_every: ClassVar[int] = 1
    """Of how many steps with requests one is to be timed at least; all are that TIMED_EVERY_S separate."""

    @property
    def wants_requests(self) -> bool:
        """Whether `on_execute` does anything."""
        return type(self).on_execute is not Observer.on_execute

    def on_receive(self, arrivals: Sequence[Arrival], steps: int) -> None:
        """Take note of what a step of the loop has taken in, refused requests included, before any of it executes.

        Args:
            steps: 0 if the step is not timed; else how many steps have taken in something since the last timed one
        """

    def on_execute(self, executed: Executed) -> None:
        """Take note that a request has executed: not a refused one, not a retry that gets its cached reply."""

    def on_step(self, phases: Phases) -> None:
        """Take note that a step of the loop with requests has ended which was timed."""


class PhaseClock(StoreObserver):
    """Times the phases of steps of the loop, and tells the observers.

    Args:
        observers: who is told
        counts: returns how many requests the dispatcher has executed, and for how long it has sent replies, in all
    """

    def __init__(self, observers: Sequence[Observer], counts: Callable[[], tuple[int, int]]) -> None:
        self._observers = observers
        self._on_receive = [
            observer.on_receive for observer in observers if type(observer).on_receive is not Observer.on_receive
        ]
        self._counts = counts
        self._every = min(observer.timed_every for observer in observers)
        self._steps = 0  # with requests, since the last timed one
        self._due_ns = 0  # from when on the next step is timed in any case
        self._began_ns = self._drained_ns = self._dispatched_ns = self._commit_ns = 0
        self._before = (0, 0)
        self.longest_ns = 0
        """How long the longest step took, nanoseconds, timed or not."""

    def on_commit(self, commit: Commit) -> None:
        """Count what the log has taken of the step."""
        self._commit_ns += commit.append_ns + commit.sync_ns

    def begin(self) -> bool:
        """Begin a step: the poll has returned. Returns whether it is to be timed."""
        self._began_ns = now_ns = time.perf_counter_ns()
        if self._steps + 1 < self._every and now_ns < self._due_ns:
            return False
        self._commit_ns = 0
        self._before = self._counts()
        return True

    def drained(self, arrivals: Sequence[Arrival], is_timed: bool) -> None:
        """Note that all requests were taken in, these."""
        if is_timed:
            self._drained_ns = time.perf_counter_ns()
        if not arrivals:
            return
        self._steps += 1
        for on_receive in self._on_receive:
            on_receive(arrivals, self._steps if is_timed else 0)

    def dispatched(self) -> None:
        """Note that all were executed and their replies handed to the transports."""
        self._dispatched_ns = time.perf_counter_ns()

    def end(self, is_timed: bool) -> None:
        """End the step: the replies have left."""
        now_ns = time.perf_counter_ns()
        if now_ns - self._began_ns > self.longest_ns:
            self.longest_ns = now_ns - self._began_ns
        if is_timed:
            self._tell(now_ns)

    def _tell(self, now_ns: int) -> None:
        counted, sent_ns = self._counts()
        requests, send_ns = counted - self._before[0], sent_ns - self._before[1]
        if not requests:
            return
        self._steps = 0
        self._due_ns = now_ns + int(TIMED_EVERY_S * 1e9)
        phases = Phases(
            requests,
            self._drained_ns - self._began_ns,
            self._dispatched_ns - self._drained_ns - self._commit_ns - send_ns,
            self._commit_ns,
            send_ns + now_ns - self._dispatched_ns,
        )
        for observer in self._observers:
            observer.on_step(phases)
