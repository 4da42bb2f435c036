"""What a server tells of itself while it works: trace, metrics, monitor and slow log listen here.

See `store.observer` for what an observer must not do. When there is none, nothing is timed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

from kvzmq.protocol.messages import Reply, Request
from kvzmq.server.transport import Arrival
from kvzmq.store.group import HeldReply
from kvzmq.store.observer import Commit as Commit
from kvzmq.store.observer import StoreObserver


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

    timed_every_s: ClassVar[float] = 0.0
    """How much time may pass from one step that is timed to the next; 0 if all are to be timed."""

    @property
    def wants_requests(self) -> bool:
        """Whether `on_execute` does anything."""
        return type(self).on_execute is not Observer.on_execute

    def on_receive(self, arrivals: Sequence[Arrival], is_timed: bool) -> None:
        """Take note of what a step of the loop has taken in, refused requests included, before any of it executes.

        Args:
            is_timed: whether `on_step` will tell of this step
        """

    def on_replies(self, arrivals: Sequence[Arrival], replies: Sequence[Reply]) -> None:
        """Take note of requests that are answered now, in a step of which `on_step` will tell, and of their replies."""

    def on_execute(self, executed: Executed) -> None:
        """Take note that a request has executed: not a refused one, not a retry that gets its cached reply."""

    def on_step(self, phases: Phases) -> None:
        """Take note that a step of the loop with requests has ended which was timed."""


class PhaseClock(StoreObserver):
    """Times the phases of steps of the loop, and tells the observers.

    Args:
        observers: called for each step
        counts: returns how many requests the dispatcher has executed, and for how long it has sent replies, in all
    """

    def __init__(self, observers: Sequence[Observer], counts: Callable[[], tuple[int, int]]) -> None:
        self._observers = observers
        self._counts = counts
        self.every_s = min(observer.timed_every_s for observer in observers)
        self.is_due = True
        """Whether the next step is to be timed."""
        self._began_ns = self._drained_ns = self._dispatched_ns = self._commit_ns = 0
        self._before = (0, 0)

    def on_commit(self, commit: Commit) -> None:
        """Count what the log has taken of the step."""
        self._commit_ns += commit.append_ns + commit.sync_ns

    def fall_due(self) -> float:
        """Have the next step timed; a timer. Looking at the clock in every step would cost a lone client 1 %."""
        self.is_due = True
        return self.every_s

    def begin(self) -> None:
        """Begin a step that is timed: the poll has returned."""
        self._commit_ns = 0
        self._before = self._counts()
        self._began_ns = time.perf_counter_ns()

    def drained(self) -> None:
        """Note that all requests were taken in."""
        self._drained_ns = time.perf_counter_ns()

    def dispatched(self) -> None:
        """Note that all were executed and their replies handed to the transports."""
        self._dispatched_ns = time.perf_counter_ns()

    def end(self) -> None:
        """End the step: the replies have left. A step without a request is not reported."""
        counted, sent_ns = self._counts()
        requests, send_ns = counted - self._before[0], sent_ns - self._before[1]
        if not requests:
            return
        self.is_due = not self.every_s
        phases = Phases(
            requests,
            self._drained_ns - self._began_ns,
            self._dispatched_ns - self._drained_ns - self._commit_ns - send_ns,
            self._commit_ns,
            send_ns + time.perf_counter_ns() - self._dispatched_ns,
        )
        for observer in self._observers:
            observer.on_step(phases)
