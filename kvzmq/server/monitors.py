"""Monitors: records of the requests that are answered, pushed to clients that want to see them. Lossy, never slow.

When no monitor is there nothing is done for them. When there is one, what a step has answered is looked at when its
replies have left, and for SHARE of the loop's time at most: a step for which no time is left is neither measured nor
looked at, and its requests are counted as dropped. What is looked at comes in whole steps, so that a picture of it is
true.

Each monitor has a bounded buffer of encoded records. It is pushed when it has waited for PUSH_S; while its peer has no
room, or has not been heard of after UNHEARD_BYTES_MAX, what the buffer cannot take is counted as dropped as well.

The peer of a monitor has to ask for its `progress` at least every SILENCE_S_MAX, which is its heartbeat; else the
monitor ends with WatchIdle. It is sent something at least every HEARTBEAT_S.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Container, Hashable

import msgspec
from msgspec import Raw

from kvzmq import errors
from kvzmq.protocol import msgpack
from kvzmq.protocol.limits import HEARTBEAT_S, SILENCE_S_MAX
from kvzmq.protocol.monitoring import MonitoredRequest
from kvzmq.protocol.operations import OPERATIONS, Monitor
from kvzmq.server.answers import Answered, AnsweredStep, Names, touches
from kvzmq.server.transport import Arrival, Transport

MONITORS_MAX = 16
"""How many monitors there may be."""

BUFFER_BYTES_MAX = 256 << 10
"""How many bytes of records one monitor buffers."""

EVENT_BYTES_MAX = 8 << 10
"""From how many bytes of records on an event takes no more."""

UNHEARD_BYTES_MAX = 4 << 20
"""How much a peer may be sent after a heartbeat of its own."""

PUSH_S = 0.02
"""How long a record is buffered for others to travel with it."""

RETRY_S = 0.05
"""When a peer that had no room is tried again."""

SHARE = 0.02
"""How much of its time the loop spends on monitors, all together."""

BURST_NS = 5_000_000
"""How much of this time may be saved up."""

RESUMED_NS = BURST_NS // 2
"""How much of it there has to be, once none was left, before a step is looked at again: so several in a row are."""

MEASURED_NS = 500
"""What measuring a request of a step that is looked at is counted for: two reads of the clock, and a detour."""


class _Monitor:
    __slots__ = (
        "buffer", "buffered_bytes", "client", "dropped", "dropped_before", "error", "key", "kind", "number",
        "prefix", "pushed_s", "heard_s", "sample", "step", "skipped", "slower_than_ns", "unheard_bytes",
    )  # fmt: skip

    def __init__(self, number: int, arrival: Arrival, op: Monitor, step: int, now_s: float) -> None:
        self.number = number
        self.key: tuple[Transport, Hashable] = (arrival.transport, arrival.peer)
        self.step = step  # in which it began: it is told of the next ones
        self.client = op.client
        self.kind = OPERATIONS.get(op.op)
        self.prefix = op.prefix
        self.slower_than_ns = op.slower_than_s * 1e9
        self.sample = op.sample
        self.skipped = 0  # of those that passed, since the last one that was told
        self.buffer: list[bytes] = []
        self.buffered_bytes = 0
        self.dropped = 0  # in all
        self.dropped_before = 0  # of them, what the records told so far have said
        self.unheard_bytes = 0
        self.heard_s = self.pushed_s = now_s
        self.error: errors.OperationError | None = None  # the last thing to be pushed, before it ends

    def passes(self, answered: Answered, names: Names) -> bool:
        """Say whether a request passes the filters, and is its sample's turn."""
        if answered.took_ns < self.slower_than_ns:
            return False
        arrival = answered.arrival
        if self.client and not names.of(arrival.transport, arrival.peer).startswith(self.client):
            return False
        kind, prefix = self.kind, self.prefix
        if (kind is not None or prefix) and not any(
            (kind is None or type(op) is kind) and touches(op, prefix) for op in arrival.request.ops
        ):
            return False
        self.skipped += 1
        if self.skipped < self.sample:
            return False
        self.skipped = 0
        return True

    def add(self, record: MonitoredRequest) -> None:
        """Buffer a record, or count it as dropped if there is no room."""
        dropped = self.dropped - self.dropped_before
        encoded = msgpack.encode_value(msgspec.structs.replace(record, dropped=dropped) if dropped else record)
        if self.buffered_bytes + len(encoded) > BUFFER_BYTES_MAX:
            self.dropped += 1
            return
        self.dropped_before = self.dropped
        self.buffer.append(encoded)
        self.buffered_bytes += len(encoded)

    def take(self) -> list[bytes]:
        """Take the records of the next event out of the buffer."""
        count = size = 0
        for encoded in self.buffer:
            if count and size + len(encoded) > EVENT_BYTES_MAX:
                break
            count += 1
            size += len(encoded)
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        self.buffered_bytes -= size
        return taken

    def put_back(self, taken: list[bytes]) -> None:
        """Put the records of an event that could not be pushed back."""
        self.buffer[:0] = taken
        self.buffered_bytes += sum(map(len, taken))


class Monitors:
    """All monitors of one server.

    Args:
        clock: seconds that only grow
        spent_ns: the loop's processor time, nanoseconds: on a busy machine, what others have used does not count
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, spent_ns: Callable[[], int] = time.thread_time_ns
    ) -> None:
        self._clock = clock
        self._spent_ns = spent_ns
        self._monitors: dict[int, _Monitor] = {}
        self._names = Names()
        self._left_ns = BURST_NS
        self._earned_s = clock()
        self._buffered_s = 0.0  # since when something is buffered
        self._has_buffered = self._is_stalled = False
        self.is_looking = False
        """Whether every request of the step that goes on is to be measured."""
        self.is_active = False
        """Whether there are any."""

    def __len__(self) -> int:
        return len(self._monitors)

    # ---- what a connection asks for

    def add(self, arrival: Arrival, number: int, op: Monitor, step: int) -> None:
        """Begin a monitor, with the requests of the steps after `step`.

        Raises:
            ResultTooLarge: there are MONITORS_MAX already
        """
        if len(self._monitors) >= MONITORS_MAX:
            raise errors.ResultTooLarge(f"there are {MONITORS_MAX} monitors already")
        self._names.forget()
        self._monitors[number] = _Monitor(number, arrival, op, step, self._clock())
        self.is_active = True

    def remove(self, arrival: Arrival, number: int) -> None:
        """End a monitor of this peer, if it has one of this number."""
        monitor = self._monitors.get(number)
        if monitor is not None and monitor.key == (arrival.transport, arrival.peer):
            self._end(monitor)

    def end_those_of(self, users: Container[str]) -> None:
        """End the monitors of these public keys, whose rights have changed: whoever still may asks again."""
        self._names.forget()
        for monitor in self._monitors.values():
            transport, peer = monitor.key
            if transport.user(peer) in users:
                monitor.error = errors.WatchIdle("the rights of this client have changed: ask again")

    def note_heartbeat(self, arrival: Arrival, number: int) -> bool:
        """Note that a peer has asked for the progress of its monitor; False if it has none of this number."""
        monitor = self._monitors.get(number)
        if monitor is None or monitor.key != (arrival.transport, arrival.peer):
            return False
        monitor.heard_s = self._clock()
        monitor.unheard_bytes = 0
        return True

    def _end(self, monitor: _Monitor) -> None:
        self._monitors.pop(monitor.number, None)
        self.is_active = bool(self._monitors)
        self.is_looking = self.is_looking and self.is_active

    # ---- what is pushed

    def begin_step(self) -> None:
        """Decide whether there is time to look at the step that begins: then each of its requests is measured."""
        now_s = self._clock()
        self._left_ns = min(BURST_NS, self._left_ns + int(1e9 * SHARE * (now_s - self._earned_s)))
        self._earned_s = now_s
        self.is_looking = self._left_ns > (0 if self.is_looking else RESUMED_NS)

    def look(self, step: AnsweredStep) -> None:
        """Buffer what the monitors want of a step that has ended; or count it as dropped, for want of time."""
        longest_ns = math.inf if step.has_waited else step.ended_ns - step.began_ns
        count = sum(len(group.arrivals) for group in step.groups)
        began_ns = 0
        for monitor in sorted(self._monitors.values(), key=lambda monitor: monitor.dropped):
            if step.number <= monitor.step or monitor.slower_than_ns > longest_ns:
                continue
            # What is wanted only if it took long is known well enough without measuring every request.
            if self._left_ns <= 0 or not (self.is_looking or monitor.slower_than_ns):
                monitor.dropped += count
                continue
            if not began_ns:
                began_ns = self._spent_ns()
                self._left_ns -= MEASURED_NS * count if self.is_looking else 0
            for answered in step.requests():
                if monitor.passes(answered, self._names):
                    monitor.add(answered.record(self._names, monitor.prefix))
            spent_ns = self._spent_ns()
            self._left_ns -= spent_ns - began_ns
            began_ns = spent_ns
        if not self._has_buffered and any(monitor.buffer for monitor in self._monitors.values()):
            self._has_buffered, self._buffered_s = True, self._clock()

    def wait_s(self) -> float:
        """Return in how many seconds `pump` has to be called."""
        if not self._has_buffered:
            return PUSH_S if any(monitor.error for monitor in self._monitors.values()) else HEARTBEAT_S
        return RETRY_S if self._is_stalled else max(0.0, self._buffered_s + PUSH_S - self._clock())

    def pump(self, revision: int) -> None:
        """Push what has been buffered for long enough, heartbeats and errors."""
        now_s = self._clock()
        is_due = self._has_buffered and now_s - self._buffered_s >= (RETRY_S if self._is_stalled else PUSH_S)
        began_ns = self._spent_ns() if is_due else 0
        if is_due:
            self._has_buffered = self._is_stalled = False
        for monitor in list(self._monitors.values()):
            if now_s - monitor.heard_s > SILENCE_S_MAX and monitor.error is None:
                monitor.error = errors.WatchIdle(f"there was no heartbeat for {SILENCE_S_MAX:g} seconds: ask again")
            try:
                if monitor.error is not None:
                    self._push_error(monitor, monitor.error, revision)
                elif is_due and monitor.buffer:
                    self._push_buffered(monitor, revision, now_s)
                elif now_s - monitor.pushed_s >= HEARTBEAT_S:
                    self._push(monitor, [], revision)
                    monitor.pushed_s = now_s  # or there was no room: then it has something to read
            except errors.PeerGone:
                self._end(monitor)
        if is_due:
            self._left_ns -= self._spent_ns() - began_ns

    def _push_buffered(self, monitor: _Monitor, revision: int, now_s: float) -> None:
        while monitor.buffer:
            taken = monitor.take()
            if monitor.unheard_bytes >= UNHEARD_BYTES_MAX or not self._push(monitor, taken, revision):
                monitor.put_back(taken)
                self._has_buffered = self._is_stalled = True
                self._buffered_s = now_s
                return
            monitor.pushed_s = now_s

    def _push(self, monitor: _Monitor, records: list[bytes], revision: int) -> bool:
        payload = ([Raw(encoded) for encoded in records], monitor.dropped)
        event = msgpack.encode_event(revision, monitor.number, errors.OK, payload)
        transport, peer = monitor.key
        pushed = transport.push(peer, event)
        monitor.unheard_bytes += len(event)
        return pushed

    def _push_error(self, monitor: _Monitor, error: errors.OperationError, revision: int) -> None:
        """Push the error that ends a monitor, and end it; if its peer has no room it is tried again later."""
        transport, peer = monitor.key
        if transport.push(peer, msgpack.encode_event(revision, monitor.number, error.code, str(error))):
            self._end(monitor)
