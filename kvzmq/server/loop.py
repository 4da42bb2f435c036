"""The server: one Poller, one loop, one thread that matters.

    poll ──> drain the transports ──> dispatch: commit, execute, sync, reply ──> flush ──> timers ──> poll ...

`Server.step` is one turn:

1. The poll waits for requests, for what others have appended to the log, or until something is due.
2. What others have appended is applied to the table.
3. Every transport that is ready is drained, up to its limits, so that none starves another.
4. The dispatcher appends the changes among these requests to the log as one group, executes the requests one by
   one, in the order of their arrival, waits until the group is durable, and hands the replies to the transports.
   Without a request it does what time brings: rows expire, indexes are built, watchers are told.
5. The transports let the replies go.
6. Timers that are due are called.

`run` turns until a signal or `stop`. While the loop waits for the disk, libzmq's I/O thread and the kernel
collect the next step's requests: that is what makes group commit work.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import Any, Protocol

import msgspec
import zmq

from kvzmq import __version__
from kvzmq.catalog import Announcement, Announcer
from kvzmq.protocol.messages import REQUEST_BYTES_MAX
from kvzmq.server.dispatcher import Dispatcher
from kvzmq.server.journal import Journal
from kvzmq.server.observer import Observer, PhaseClock
from kvzmq.server.timers import Timers
from kvzmq.server.transport import Arrival, Transport
from kvzmq.store.store import Store

ANNOUNCE_S = 60.0
"""How often the server announces itself to a catalog."""

_IDLE_S = 1.0
"""The longest wait of a step: timers that do not wake the loop are late by this much at most."""

_SWEEP_S = 0.1
"""How often the transports look after their peers."""

_COMPACTION_S = 0.05
"""How often to look whether a compaction is due or done; a child that ends wakes the loop."""

_SHOWN_CHARS = 100
"""How much `stats` shows of a subkey."""


class Compaction(Protocol):
    """What looks after the length of a log; see `store.file.compaction.Compactor`."""

    def poll(self) -> None:
        """Take note of what has ended, and begin what is due, without waiting."""

    def describe(self) -> Mapping[str, Any]:
        """Return what `stats` says of it."""

    def close(self) -> None:
        """End what runs."""


class Server:
    """Joins a store, its transports and the timers in one loop.

    Args:
        store: recovered
        transports: listening
        compactor: looks after the log, or None for a log that needs no care
        announcer: tells a catalog of the server
        announcement: what it tells; the server adds what changes
        group_commit: see Dispatcher
        observers: are told what the server and its store do
        clock: microseconds since 1970 UTC
        monotonic: seconds that only grow, for heartbeats and timers
        request_bytes_max: the transports' limit, which clients are told
    """

    def __init__(
        self,
        store: Store,
        transports: Sequence[Transport],
        compactor: Compaction | None = None,
        announcer: Announcer | None = None,
        announcement: Announcement | None = None,
        group_commit: bool = True,
        observers: Sequence[Observer] = (),
        clock: Callable[[], int] = lambda: time.time_ns() // 1000,
        monotonic: Callable[[], float] = time.monotonic,
        request_bytes_max: int = REQUEST_BYTES_MAX,
    ) -> None:
        self.store = store
        self.transports = transports
        self.compactor = compactor
        self.dispatcher = Dispatcher(
            store, clock, self.describe, group_commit, observers,
            request_bytes_max=request_bytes_max, monotonic=monotonic,
        )  # fmt: skip
        self._phases = PhaseClock(observers, self._phase_counts) if observers else None
        if self._phases is not None:
            store.observers += [self._phases, *observers]
        self._journal = Journal(transports, self._going_on)
        store.on_trouble = self._journal.trouble
        if store.trouble is not None:
            self._journal.trouble(store.trouble)
        self._announcer = announcer
        self._started_s = time.monotonic()
        self._stopping = False
        self._signalled = False
        self._stopped_by = "its caller"
        self._poller = zmq.Poller()
        self._handles = [(transport, transport.register(self._poller)) for transport in transports]
        self._log_descriptors = frozenset(store.log.descriptors())
        for descriptor in self._log_descriptors:
            self._poller.register(descriptor, zmq.POLLIN)
        self.timers = Timers(monotonic)
        """Called by the loop when they are due."""
        self.timers.add(self._sweep, wakes=False)
        self.timers.add(self._journal.look, wakes=False)
        if compactor is not None:
            self.timers.add(self._compact, wakes=False)
        if announcer is not None and announcement is not None:
            self.timers.add(lambda: self._announce(announcer, announcement))

    def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Serve until `stop`, SIGTERM or SIGINT; from the main thread.

        Args:
            ready: called when a signal would be a clean stop: whoever waits for the server may be told

        Raises:
            StorageFatal: the disk cannot be trusted any more
        """
        with self._signals() as drain:
            ready()
            self.timers.run()  # announced at once, not after the first wait
            while not self._stopping:
                self.step(_IDLE_S)
                if self._signalled:
                    drain()
        self._journal.stopped(self._stopped_by, self.dispatcher.requests)

    def stop(self) -> None:
        """Have `run` return after the step it is in."""
        self._stopping = True

    def step(self, timeout_s: float) -> int:
        """Turn once: poll, drain, dispatch, flush, timers; wait `timeout_s` at most. Returns how many requests came."""
        dispatcher, phases = self.dispatcher, self._phases
        ready = dict(self._poller.poll(self._wait_ms(timeout_s)))
        if phases is not None:
            phases.begin()
        if self._log_descriptors and not self._log_descriptors.isdisjoint(ready):
            self.store.catch_up()
        arrivals = [] if dispatcher.is_full else self._drain(ready)
        if phases is not None:
            phases.drained()
        if arrivals:
            refused = dispatcher.refused
            dispatcher.dispatch(arrivals)
            if dispatcher.refused > refused:
                self._journal.refused(arrivals)
        else:
            dispatcher.tick()
        if phases is not None:
            phases.dispatched()
        for transport in self.transports:
            transport.flush()
        if phases is not None:
            phases.end()
        self.timers.run()
        return len(arrivals)

    def _wait_ms(self, timeout_s: float) -> int:
        """Return how long to poll: not at all if a transport, the dispatcher or a timer has something to do."""
        for transport in self.transports:
            if transport.pending():
                return 0
        timeout_s = self.timers.wait_s(self.dispatcher.wait_s(timeout_s))
        return int(timeout_s * 1000 + 0.999)

    def _drain(self, ready: Container[object]) -> list[Arrival]:
        """Take in what has come."""
        arrivals: list[Arrival] = []
        for transport, handle in self._handles:
            if handle in ready or transport.pending():
                arrivals += transport.drain()
        return arrivals

    # ---- timers

    def _sweep(self) -> float:
        for transport in self.transports:
            transport.sweep()
        return _SWEEP_S

    def _compact(self) -> float:
        assert self.compactor is not None
        self.compactor.poll()
        return _COMPACTION_S

    def _announce(self, announcer: Announcer, announcement: Announcement) -> float:
        changing = {name: told for name, told in self.store.identity().items() if told is not None}
        announcer.announce(
            msgspec.structs.replace(
                announcement,
                **changing,
                revision=self.store.revision,
                keys=self.store.row_count,
                clients=self.clients(),
            )
        )
        return ANNOUNCE_S

    def _phase_counts(self) -> tuple[int, int]:
        return self.dispatcher.requests + self.dispatcher.refused, self.dispatcher.send_ns

    # ---- what there is to say

    def clients(self) -> int:
        """Count the connections there are, of all transports."""
        return sum(transport.connections for transport in self.transports)

    def _going_on(self) -> dict[str, int]:
        """Return what the log tells at debug."""
        found = {
            "steps": self.dispatcher.steps,
            "requests": self.dispatcher.requests,
            "operations": self.dispatcher.operations,
            "requests_refused": self.dispatcher.refused,
            "commits": self.store.groups,
            "sessions": self.store.session_count,
            "watches": len(self.dispatcher.watches),
        }
        for transport in self.transports:
            found |= transport.stats()
        return found

    def describe(self) -> dict[str, Any]:
        """Return what `stats` answers: numbers and strings by name; sizes in bytes, times in seconds."""
        dispatcher = self.dispatcher
        usage = resource.getrusage(resource.RUSAGE_SELF)
        found: dict[str, Any] = {
            "version": __version__,
            "pid": os.getpid(),
            "uptime_s": round(time.monotonic() - self._started_s, 3),
            "cpu_s": round(usage.ru_utime + usage.ru_stime, 3),
            "memory_bytes_max": usage.ru_maxrss * 1024,
            **self.store.describe(),
            "requests_waiting": dispatcher.waiting,
            "clients": self.clients(),
            "watches": len(dispatcher.watches),
            "steps": dispatcher.steps,
            "requests": dispatcher.requests,
            "operations": dispatcher.operations,
            "requests_refused": dispatcher.refused,
        }
        found["indexes"] = [subkey[:_SHOWN_CHARS] for subkey in found["indexes"]]
        if self.compactor is not None:
            found |= self.compactor.describe()
        for transport in self.transports:
            found |= transport.stats()
        return found

    # ---- signals

    @contextlib.contextmanager
    def _signals(self) -> Iterator[Callable[[], None]]:
        """Have SIGTERM and SIGINT end the loop at once, and SIGCHLD wake it.

        A SIGINT that is ignored already stays so: a shell starts what goes on in the background of a script
        (`kvzmq server &`) with it ignored, so that Ctrl-C ends the script alone.

        A signal writes a byte that ends the poll. The byte may only be read after the poll, by
        the function this yields: the poll starts over when a signal interrupts it.
        """
        reader, writer = socket.socketpair()
        reader.setblocking(False)
        writer.setblocking(False)
        self._poller.register(reader.fileno(), zmq.POLLIN)

        def on_signal(number: int, _: object) -> None:
            self._signalled = True
            if number != signal.SIGCHLD:
                self._stopping = True
                self._stopped_by = "Ctrl-C (SIGINT)" if number == signal.SIGINT else signal.Signals(number).name

        def drain() -> None:
            self._signalled = False  # before reading: a signal that comes now is read in the next step
            with contextlib.suppress(BlockingIOError):
                reader.recv(4096)

        numbers = [signal.SIGTERM, signal.SIGCHLD]
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            numbers.append(signal.SIGINT)
        before = [signal.signal(number, on_signal) for number in numbers]
        wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        try:
            yield drain
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in zip(numbers, before):
                signal.signal(number, handler)
            self._poller.unregister(reader.fileno())
            reader.close()
            writer.close()

    def close(self) -> None:
        """Close everything the server was given; a catalog is told first, and waited for last."""
        if self._announcer is not None:
            self._announcer.withdraw()
        for transport in self.transports:
            transport.close()
        if self.compactor is not None:
            self.compactor.close()
        self.store.close()
        if self._announcer is not None:
            self._announcer.close()
