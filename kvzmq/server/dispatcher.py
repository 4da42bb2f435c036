"""The serial dispatcher: many clients' requests in, one at a time through the store, replies out.

The requests that arrived in one step of the loop are handled together. Their changes are appended to the log as one
group; while the disk writes it, they are executed in the order of their arrival, one at a time; when the group is
durable the replies are handed to the transports, in the same order. The dispatcher must not use sockets or files.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from kvzmq import errors
from kvzmq.protocol import limits, msgpack, operations
from kvzmq.protocol.limits import LARGE_BYTES_MIN
from kvzmq.protocol.messages import Refusal, Reply, Request
from kvzmq.server.answers import AnsweredGroup, AnsweredStep
from kvzmq.server.backups import Backups
from kvzmq.server.deferral import Deferral, count_together, refuse_unbuilt
from kvzmq.server.monitors import Monitors
from kvzmq.server.observer import Executed, Observer
from kvzmq.server.seen import SeenQueue
from kvzmq.server.served import ServedOperations
from kvzmq.server.slow_log import SlowLog
from kvzmq.server.transport import Arrival, Transport
from kvzmq.server.unknown import RESOLVE_S, UnknownGroup, needs_no_table
from kvzmq.server.watches import Watches
from kvzmq.store.group import Group, GroupState, HeldReply
from kvzmq.store.store import Store

WAITING_BYTES_MAX = 1 << 20
"""How many bytes of results wait for the sync, and one reply more: a step may ask for a thousand of 8 MiB each."""

EXPIRY_S = 0.01
"""The shortest wait for a row to expire: rows that become due within it are removed together."""

_NO_PUSH = "a watch needs a DEALER's single frames: events through an envelope would be taken for replies"


def _any_may_wait(arrivals: Sequence[Arrival]) -> bool:
    for arrival in arrivals:  # the generator that any() takes costs as much as ten of these tests
        request = arrival.request
        if request.scans or request.seen:
            return True
    return False


def _any_scans(arrivals: Sequence[Arrival]) -> bool:
    return any(arrival.request.scans for arrival in arrivals)


class Dispatcher:
    """Runs batches of arrivals through a store.

    Args:
        store: recovered
        clock: microseconds since 1970 UTC; may jump, the table's own time does not
        describe: what `stats` answers
        group_commit: commit a step's changes together; otherwise each request alone, to measure the difference
        observers: called for each request executed; the store calls its own
        request_bytes_max: the transports' limit, which `hello` reports
        transports: whose clients `clients` lists
        monotonic: seconds that only grow, for heartbeats
        backups: serves backups; by default none can be made
        name_of: returns the name of a public key's holder, for the log, or None where clients have no keys
        slow_log: keeps slow requests, or None
    """

    def __init__(
        self,
        store: Store,
        clock: Callable[[], int],
        describe: Callable[[], dict[str, Any]],
        group_commit: bool = True,
        observers: Sequence[Observer] = (),
        request_bytes_max: int = limits.REQUEST_BYTES_MAX,
        monotonic: Callable[[], float] = time.monotonic,
        backups: Backups | None = None,
        transports: Sequence[Transport] = (),
        name_of: Callable[[str], str] | None = None,
        slow_log: SlowLog | None = None,
    ) -> None:
        self.store = store
        self._name_of = name_of
        self.watches = Watches(store.table, monotonic)
        self.monitors = Monitors(monotonic)
        self.slow_log = slow_log
        self.served = ServedOperations(
            store, self.watches, self.monitors, slow_log, Backups() if backups is None else backups, describe,
            request_bytes_max, transports,
        )  # fmt: skip
        store.keeps_times = slow_log is not None
        self.deferral = Deferral(store, monotonic)
        self.waiting_for_seen = SeenQueue(store, monotonic)
        self.steps = 0
        self.requests = 0
        self.operations = 0
        self.refused = 0
        self.observers = [observer for observer in observers if observer.wants_requests]
        self._on_replies = [each.on_replies for each in observers if type(each).on_replies is not Observer.on_replies]
        self.is_timed = False
        """Whether the loop times this step."""
        self.send_ns = 0
        """How long handing replies to the transports took, nanoseconds in all; measured in timed steps only."""
        self.began_ns = 0
        """When the step began, set by the loop; 0 if nobody wants to know when its requests executed."""
        self.answered: list[AnsweredGroup] = []
        """What the step has answered so far, if somebody wants to know."""
        self._measured: list[tuple[Arrival, int, int]] = []  # of the group that executes, see AnsweredGroup
        self._revision = self._executed_ns = 0  # the same
        self._has_waited = False  # whether the step executes requests of earlier ones
        self._singly = not group_commit
        self._in_groups = self._singly  # whether the step may have several groups
        self._clock = clock
        self._monotonic = monotonic
        self._transports = transports
        self._run_all = self._run if group_commit else self._run_singly
        self._unknown: UnknownGroup | None = None
        self.is_full = False
        """Whether no more requests can be taken in, as too many wait for the log."""

    def dispatch(self, arrivals: list[Arrival]) -> None:
        """Execute one step's arrivals and send their replies; none leaves before the step is durable.

        Raises:
            StorageFatal: the disk cannot be trusted: nothing that is not durable was sent; stop
        """
        self.steps += 1
        self.watches.note_received(arrivals)
        if self.observers:
            self._stamp(arrivals)
        scans = _any_may_wait(arrivals)
        if scans or self.waiting_for_seen.queues:
            released, admitted = self.waiting_for_seen.release(), self.waiting_for_seen.admit(arrivals)
            if len(admitted) < len(arrivals):
                self._stamp(arrivals)
            self._has_waited = self._has_waited or bool(released)
            arrivals = released + admitted
            scans = _any_scans(arrivals)
        if self._unknown is not None:
            arrivals = self._resolve(self._unknown, arrivals)
            scans = _any_scans(arrivals)
        if scans or self.deferral:
            self._run_in_groups(arrivals)
        else:
            self._run_all(arrivals, self._clock())
            if self.store.has_indexes:
                self.deferral.work()
        self._push()

    def tick(self) -> None:
        """Do what is due without a request: remove rows, build indexes, push events, ask about an unknown group."""
        if self._unknown is not None or (self.waiting_for_seen.queues and not self.waiting_for_seen.wait_s(1.0)):
            self.dispatch([])
            return
        if self.deferral:
            self._run_waiting()
        time_us = self._clock()
        if self.store.has_due_rows(time_us):
            self._run([], time_us)
        else:
            self.store.pass_time(time_us)
        self.deferral.work()
        self._push()

    def _push(self) -> None:
        self.watches.pump()
        if self.monitors.is_active:
            self.monitors.pump(self.store.revision)

    def end_step(self, ended_ns: int) -> None:
        """Show what the step has answered to whom it concerns; to be called when the replies have left.

        Args:
            ended_ns: when that was
        """
        answered, self._in_groups = self.answered, self._singly
        slow_log, monitors = self.slow_log, self.monitors
        is_slow = slow_log is not None and (ended_ns - self.began_ns >= slow_log.slower_than_ns or self._has_waited)
        if not is_slow and not monitors.is_active:
            answered.clear()
            return
        has_waited, self._has_waited = self._has_waited, False
        self.answered = []
        drained_ns = int(1e9 * max((transport.drained_s for transport in self._transports), default=0.0))
        step = AnsweredStep(self.steps, self.began_ns, drained_ns, ended_ns, self._clock(), has_waited, answered)
        if slow_log is not None and is_slow:
            slow_log.look(step)
        if monitors.is_active:
            monitors.look(step)
        self.store.keeps_times = slow_log is not None or monitors.is_active

    def wait_s(self, timeout_s: float) -> float:
        """Return how long the loop may wait for requests, `timeout_s` at most, before `tick` has to be called."""
        if self.waiting_for_seen.queues:
            timeout_s = self.waiting_for_seen.wait_s(timeout_s)
        if self._unknown is not None:
            timeout_s = min(timeout_s, RESOLVE_S)
        elif self.deferral.is_busy:
            return 0.0
        if self.watches.behind:
            timeout_s = min(timeout_s, self.watches.wait_s)
        if self.monitors.is_active:
            timeout_s = min(timeout_s, self.monitors.wait_s())
        if not self.store.table.expiries.deadlines:
            return timeout_s
        due_us = self.store.next_due_us()
        if due_us is None:
            return timeout_s
        if self.store.has_expiry_backlog and self._unknown is None:
            return 0.0
        return min(timeout_s, max(EXPIRY_S, (due_us - self._clock()) / 1e6))

    @property
    def waiting(self) -> int:
        """How many requests have arrived that are neither executed nor refused yet."""
        return len(self.waiting_for_seen) + len(self.deferral) + (0 if self._unknown is None else len(self._unknown))

    # ---- which requests go into one group

    def _run_in_groups(self, arrivals: Sequence[Arrival]) -> None:
        """Run the deferred requests that are ready, then `arrivals`, in as many groups as their scans need."""
        began_s = 0.0
        self._in_groups = True
        time_us = self._clock()
        if self.store.has_due_rows(time_us):
            self._run([], time_us)  # first: these removals, too, are changes that the indexes of a scan have to apply
        if self.deferral:
            began_s = self._monotonic()
            self._run_waiting()
        while arrivals:
            count = count_together(arrivals)
            time_us = self._clock()
            admitted = self.deferral.admit(arrivals[:count], time_us)
            if len(admitted) < count:
                self._stamp(arrivals)
            self._run_all(admitted, time_us)
            arrivals = arrivals[count:]
        self.deferral.work(self._monotonic() - began_s if began_s else 0.0)

    def _run_waiting(self) -> None:
        time_us = self._clock()
        self._run_admitted(self.deferral.release(time_us), time_us)

    def _run_admitted(self, arrivals: Sequence[Arrival], time_us: int) -> None:
        if arrivals:
            self._in_groups = self._has_waited = True
        while arrivals:
            count = count_together(arrivals)
            self._run_all(arrivals[:count], time_us)
            arrivals = arrivals[count:]

    def _run_singly(self, arrivals: Sequence[Arrival], time_us: int) -> None:
        for arrival in arrivals:
            self._run([arrival], time_us)
        if not arrivals:
            self._run(arrivals, time_us)  # rows that are due have to be removed all the same

    # ---- one group: commit, execute, sync, reply

    def _run(self, arrivals: Sequence[Arrival], time_us: int) -> None:
        if self._unknown is not None:  # an earlier group of this step
            self._stamp(arrivals)
            self._unknown.admit(arrivals)
            return
        requests = [request for arrival in arrivals if isinstance(request := arrival.request, Request)]
        group = self.store.begin(requests, time_us, self._name_of and self._senders_of(arrivals))
        if group.state is GroupState.UNKNOWN:
            self._stamp(arrivals)
            self._unknown = UnknownGroup(group, arrivals, self._monotonic())
        else:
            self._execute(group, arrivals)

    def _senders_of(self, arrivals: Sequence[Arrival]) -> list[str | None]:
        """Return the names of the clients that have sent requests, for the log; None for who has shown no key."""
        assert self._name_of is not None
        users = [each.transport.user(each.peer) for each in arrivals if isinstance(each.request, Request)]
        return [self._name_of(user) if user else None for user in users]

    def _execute(self, group: Group, arrivals: Sequence[Arrival]) -> None:
        unsent = arrivals
        held_bytes = 0
        observed, execute = bool(self.observers) or self.monitors.is_looking, group.execute
        self._revision = self.store.table.revision
        for arrival in arrivals:
            request = arrival.request
            if observed or isinstance(request, Refusal) or not request.is_quick:
                reply = self._answer(group, arrival, request)
            else:  # what nearly all are
                self.requests += 1
                self.operations += len(request.ops)
                reply = execute(request)
            held_bytes += len(reply.results)
            if held_bytes > WAITING_BYTES_MAX:
                self._note_executed()
                replies = group.release()
                self._send(unsent, replies)
                unsent, held_bytes = unsent[len(replies) :], 0
        if held_bytes >= LARGE_BYTES_MIN or self._measured or self._in_groups:
            self._note_executed()
        self._send(unsent, group.sync())

    def _send(self, arrivals: Sequence[Arrival], replies: Sequence[Reply]) -> None:
        began_ns = time.perf_counter_ns() if self.is_timed else 0
        if self.began_ns:
            self.answered.append(
                AnsweredGroup(
                    arrivals, replies, self._revision, self._measured, self._executed_ns, self.store.commit_times
                )
            )
            if self._executed_ns:
                self._measured, self._executed_ns = [], 0
        if began_ns:
            for on_replies in self._on_replies:
                on_replies(arrivals, replies)
        for arrival, reply in zip(arrivals, replies):
            arrival.transport.send(arrival.peer, reply)
        if began_ns:
            self.send_ns += time.perf_counter_ns() - began_ns

    def _note_executed(self) -> None:
        """Note when the group has executed, as sending its replies may take long."""
        if self.began_ns:
            self._executed_ns = time.perf_counter_ns()

    def _answer(self, group: Group, arrival: Arrival, request: Request | Refusal) -> HeldReply:
        began_ns = time.perf_counter_ns() if self.began_ns else 0
        request = self._admit(arrival, request)
        if isinstance(request, Refusal):
            reply = group.hold(self._refuse(request))
        else:
            self.requests += 1
            self.operations += len(request.ops)
            if self.observers:
                reply = self._execute_observed(group, arrival, request)
            else:
                reply = self._execute_one(group, arrival, request)
        if began_ns:
            self._measured.append((arrival, began_ns, time.perf_counter_ns()))
        return reply

    def _execute_one(self, group: Group, arrival: Arrival, request: Request) -> HeldReply:
        if request.served:
            return group.hold(group.refuse_cut_off(request) or self.served.answer(arrival, request, self.steps))
        return group.execute(request)

    def _admit(self, arrival: Arrival, request: Request | Refusal) -> Request | Refusal:
        """Return the request, or the refusal of one that cannot be executed now.

        Refused are a watch by a peer that could not distinguish its events from replies (in the arrival, too: what
        is logged of refusals is read from there), and a scan whose indexes cannot apply in time what was written in
        this step.
        """
        if isinstance(request, Refusal):
            return request
        watches = request.served and not operations.PUSHED.isdisjoint(map(type, request.ops))
        if watches and not arrival.transport.can_push(arrival.peer):
            arrival.request = Refusal(request.seq, errors.InvalidRequest.code, _NO_PUSH)
            return arrival.request
        if request.scans and not request.writes and not self.deferral.is_still_ready(request):
            return refuse_unbuilt(request)
        return request

    def _refuse(self, refusal: Refusal) -> Reply:
        self.refused += 1
        return msgpack.refuse(refusal.seq, self.store.revision, refusal.code, refusal.message)

    # ---- for observers

    def _stamp(self, arrivals: Sequence[Arrival]) -> None:
        """Note when requests were taken in, as they may have to wait for a later step, or as somebody observes them."""
        received_ns = self.began_ns or (time.perf_counter_ns() if self.observers else 0)
        for arrival in arrivals:
            arrival.received_ns = arrival.received_ns or received_ns

    def _execute_observed(self, group: Group, arrival: Arrival, request: Request) -> HeldReply:
        runs = group.will_execute(request)
        before = self.store.revision
        began_ns = time.perf_counter_ns()
        reply = self._execute_one(group, arrival, request)
        ended_ns = time.perf_counter_ns()
        if runs:
            executed = Executed(
                self.steps, arrival, request, reply, before, self.store.revision,
                arrival.received_ns, began_ns, ended_ns,
            )  # fmt: skip
            for observer in self.observers:
                observer.on_execute(executed)
        return reply

    # ---- while the fate of a group is unknown: the log cannot say whether it has it

    def _resolve(self, unknown: UnknownGroup, arrivals: list[Arrival]) -> list[Arrival]:
        """Ask the log; when it can say, execute it.

        Returns:
            the requests to be executed next, in their order: none while the log cannot say; else those that have
            waited, then `arrivals`
        """
        if not unknown.group.resolve():
            for arrival in unknown.take_late(self._monotonic()):
                self._answer_late(arrival)
            self._wait(unknown, arrivals)
            return []
        self._unknown, self.is_full = None, False
        self._in_groups = self._has_waited = True
        self._execute(unknown.group, unknown.arrivals)
        self._run_admitted(unknown.admitted, self._clock())
        return unknown.arrived + arrivals

    def _wait(self, unknown: UnknownGroup, arrivals: Sequence[Arrival]) -> None:
        self._stamp(arrivals)
        for arrival in arrivals:
            reply = (
                None if unknown.blocks(arrival) or self.deferral.blocks(arrival) else self._answer_meanwhile(arrival)
            )
            if reply is not None:
                arrival.transport.send(arrival.peer, reply)
            elif not unknown.repeats(arrival):
                unknown.add(arrival, self._monotonic())
        self.is_full = unknown.is_full

    def _answer_late(self, arrival: Arrival) -> None:
        """Answer a request that has waited too long for the log, as the server cannot tell what is newest."""
        reply = self._answer_meanwhile(arrival)
        if reply is None:
            assert isinstance(arrival.request, Request)
            reply = self.store.refuse_cut_off(arrival.request) or self._refuse(refuse_unbuilt(arrival.request))
        arrival.transport.send(arrival.peer, reply)

    def _answer_meanwhile(self, arrival: Arrival) -> Reply | None:
        """Return the reply to a request that needs no log, or certainly is not in it; None for one that has to wait.

        What only has to see what its client has seen is executed on the table as it was before the group: whatever
        becomes of the group, the table has been in this state, and nothing that was seen of it is taken back.
        """
        request = arrival.request
        if isinstance(request, Refusal):
            return self._refuse(request)
        if needs_no_table(request):
            self.requests += 1
            self.operations += len(request.ops)
            return self.served.answer(arrival, request, self.steps)
        if request.seen is not None and (not request.scans or self.deferral.is_still_ready(request)):
            self.requests += 1
            self.operations += len(request.ops)
            return self.served.answer(arrival, request, self.steps) if request.served else self.store.read(request)
        if not request.writes:
            return None
        message = f"not applied: what became of an earlier change is not known yet: {self.store.trouble}"
        return self.store.find_cached(request) or self._refuse(Refusal(request.seq, errors.WriteRejected.code, message))
