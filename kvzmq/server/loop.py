"""The server: one Poller, one loop, one thread that matters.

    poll ──> drain the transports ──> dispatch: commit, execute, sync, reply ──> flush ──> timers ──> poll ...

`Server.step` is one iteration:

1. The poll waits for requests, for groups that other servers have appended to the log, or until a timer is due.
2. Groups of other servers are applied to the table.
3. Every transport that is ready is drained, up to its limits, so that none starves another.
4. The dispatcher appends the changes among these requests to the log as one group, executes the requests one by
   one, in the order of their arrival, waits until the group is durable, and hands the replies to the transports.
   Without a request it expires rows that are due, builds indexes, and pushes events to watches.
5. The transports send the replies.
6. Timers that are due are called.

`run` repeats steps until a signal or `stop`; SIGHUP has it call the hooks of `reloads` between two steps. While the
loop waits for the disk, libzmq's I/O thread and the kernel collect the next step's requests: that is what makes group
commit work.
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
from kvzmq.protocol.limits import REQUEST_BYTES_MAX
from kvzmq.server.access import LOOK_S, Access
from kvzmq.server.backups import Backups, OpenWhenWritten
from kvzmq.server.dispatcher import Dispatcher
from kvzmq.server.hearing import Hearing
from kvzmq.server.journal import Journal
from kvzmq.server.machine import Machine
from kvzmq.server.metrics import WINDOW_S, Metrics
from kvzmq.server.observer import Observer, PhaseClock
from kvzmq.server.reloads import Reloads
from kvzmq.server.scrape import REFRESH_S, Scrape
from kvzmq.server.slow_log import SlowLog
from kvzmq.server.timers import Timers
from kvzmq.server.transport import Arrival, Transport
from kvzmq.server.zap import Zap
from kvzmq.store.store import Store

ANNOUNCE_S = 60.0
"""How often the server announces itself to a catalog."""

_IDLE_S = 1.0
"""The longest wait of a step: timers that do not wake the loop are late by this much at most."""

_SWEEP_S = 0.1
"""How often the transports do their housekeeping."""

_COMPACTION_S = 0.05
"""How often to look whether a compaction is due or done; a child that ends wakes the loop."""

_SHOWN_CHARS = 100
"""How much `stats` shows of a subkey."""


class Compaction(Protocol):
    """What looks after the length of a log; see `store.file.compaction.Compactor`."""

    def poll(self) -> None:
        """Take note of what has ended, and begin what is due, without waiting."""

    def request_checkpoint(self) -> OpenWhenWritten:
        """Have a checkpoint written that holds everything committed so far; returns what opens it."""

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
        observers: called for what the server and its store do
        metrics: the observer whose figures `stats` shows, or None
        scrape: shows them over HTTP, or None
        clock: microseconds since 1970 UTC
        monotonic: seconds that only grow, for heartbeats and timers
        request_bytes_max: the transports' limit, which `hello` reports
        zap: decides on connections with CURVE, if there are any
        access: the rights of their clients, read again when the file changes
        slow_log: keeps slow requests, or None
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
        metrics: Metrics | None = None,
        scrape: Scrape | None = None,
        clock: Callable[[], int] = lambda: time.time_ns() // 1000,
        monotonic: Callable[[], float] = time.monotonic,
        request_bytes_max: int = REQUEST_BYTES_MAX,
        zap: Zap | None = None,
        access: Access | None = None,
        slow_log: SlowLog | None = None,
    ) -> None:
        self.store = store
        self.transports = transports
        self.compactor = compactor
        self._backups = Backups(None if compactor is None else compactor.request_checkpoint, monotonic)
        self._metrics = metrics
        self._monotonic = monotonic
        self._machine = Machine(monotonic)
        if metrics is not None:
            observers = [*observers, metrics]
        self.dispatcher = Dispatcher(
            store, clock, self.describe, group_commit, observers, request_bytes_max=request_bytes_max,
            monotonic=monotonic, backups=self._backups, transports=transports, slow_log=slow_log,
            name_of=None if access is None else access.name_of,
        )  # fmt: skip
        self._phases = PhaseClock(observers, self._phase_counts) if observers else None
        if self._phases is not None:
            store.observers += [self._phases, *observers]
        self._on_receive = [
            observer.on_receive for observer in observers if type(observer).on_receive is not Observer.on_receive
        ]
        self._journal = Journal(transports, self._log_figures)
        store.on_trouble = self._journal.trouble
        if store.trouble is not None:
            self._journal.trouble(store.trouble)
        self._announcer = announcer
        self._started_s = time.monotonic()
        self._stopping = False
        self._signalled = False
        self._reload_asked = False
        self._stopped_by = "its caller"
        self._zap = zap
        self._access = access
        self._scrape = scrape
        self._poller = zmq.Poller()
        if zap is not None:
            self._poller.register(zap.socket, zmq.POLLIN)
        self._handles = [(transport, transport.register(self._poller)) for transport in transports]
        self._log_descriptors = frozenset(store.log.descriptors())
        self._log_poller = zmq.Poller()
        for descriptor in self._log_descriptors:
            self._poller.register(descriptor, zmq.POLLIN)
            self._log_poller.register(descriptor, zmq.POLLIN)
        self.timers = Timers(monotonic)
        """Called by the loop when they are due."""
        self.reloads = Reloads()
        """Called by the loop upon SIGHUP."""
        self._add_timers(announcement)

    def _add_timers(self, announcement: Announcement | None) -> None:
        """Register the periodic work, and what SIGHUP reads again."""
        self.timers.add(self._sweep, wakes=False)
        self.timers.add(self._journal.look, wakes=False)
        self.timers.add(self._backups.drop_idle, wakes=False)
        if self.store.is_shared:
            self.timers.add(Hearing(self.store, self.dispatcher.watches, self._monotonic).look)
        if self.compactor is not None:
            self.timers.add(self._compact, wakes=False)
        if (access := self._access) is not None:
            self.timers.add(lambda: self._look_at_clients(access), wakes=False)
            self.reloads.add("clients", self.reload_clients)
        if self._metrics is not None:
            self.timers.add(self._metrics.turn, WINDOW_S, wakes=False)
        if self._phases is not None and self._phases.every_s:
            self.timers.add(self._phases.fall_due, wakes=False)
        if (scrape := self._scrape) is not None:
            self.timers.add(lambda: self._show(scrape))
        if (announcer := self._announcer) is not None and announcement is not None:
            self.timers.add(lambda: self._announce(announcer, announcement))

    def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Serve until `stop`, SIGTERM or SIGINT; from the main thread.

        Args:
            ready: called once the server serves and a signal stops it cleanly

        Raises:
            StorageFatal: the disk cannot be trusted any more
        """
        with self._signals() as drain:
            ready()
            self.timers.run()  # announced at once, not after the first wait
            while not self._stopping:
                came = self.step(_IDLE_S)
                if self._signalled or not came:
                    drain()
                if self._reload_asked:
                    self._reload_asked = False
                    self.reloads.run()
        self._journal.stopped(self._stopped_by, self.dispatcher.requests)

    def reload_clients(self) -> str | None:
        """Read the clients file again and return what came of it; one that cannot be used changes nothing.

        Raises:
            ValueError: it cannot be used, and why
        """
        access = self._access
        if access is None:
            return None
        if not access.reload():
            raise ValueError(access.trouble)
        self.dispatcher.watches.end_those_of(access.changed)
        self.dispatcher.monitors.end_those_of(access.changed)
        return f"{access.path}, {len(access.changed)} keys changed or revoked"

    def stop(self) -> None:
        """Have `run` return after the step it is in."""
        self._stopping = True

    def step(self, timeout_s: float) -> int:
        """Poll, drain, dispatch, flush, run timers; wait `timeout_s` at most. Returns how many requests came."""
        dispatcher = self.dispatcher
        is_full = dispatcher.is_full
        # What is not drained stays ready, and the poll would not wait.
        poller = self._log_poller if is_full else self._poller
        ready = dict(poller.poll(self._wait_ms(timeout_s)))
        # Not only for slow steps: that a step was slow is known when it is too late to see why.
        keeps_times = dispatcher.slow_log is not None or dispatcher.monitors.is_active
        if dispatcher.monitors.is_active:
            dispatcher.monitors.begin_step()
        dispatcher.began_ns = time.perf_counter_ns() if keeps_times else 0
        timed = self._phases if self._phases is not None and self._phases.is_due else None
        if timed is not None:
            timed.begin()
            dispatcher.is_timed = True
        if self._zap is not None and self._zap.socket in ready:
            self._zap.drain()
        if self._log_descriptors and not self._log_descriptors.isdisjoint(ready):
            self.store.catch_up()
        arrivals = [] if is_full else self._drain(ready)
        if timed is not None:
            timed.drained()
        if arrivals:
            for on_receive in self._on_receive:
                on_receive(arrivals, timed is not None)
            refused = dispatcher.refused
            dispatcher.dispatch(arrivals)
            if dispatcher.refused > refused:
                self._journal.refused(arrivals)
        else:
            dispatcher.tick()
        if timed is not None:
            timed.dispatched()
        for transport in self.transports:
            transport.flush()
        ended_ns = time.perf_counter_ns() if dispatcher.answered else 0
        if timed is not None:
            timed.end()
            dispatcher.is_timed = False
        if ended_ns:
            dispatcher.end_step(ended_ns)
        self.timers.run()
        return len(arrivals)

    def _wait_ms(self, timeout_s: float) -> int:
        """Return how long to poll: not at all if a transport, the dispatcher or a timer has something to do."""
        for transport in self.transports:
            if not self.dispatcher.is_full and transport.pending():
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

    def _look_at_clients(self, access: Access) -> float:
        if access.has_changed():
            with contextlib.suppress(ValueError):  # which is in the log
                self.reload_clients()
        return LOOK_S

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

    def _show(self, scrape: Scrape) -> float:
        scrape.refresh(self.describe())
        return REFRESH_S

    def _phase_counts(self) -> tuple[int, int]:
        return self.dispatcher.requests + self.dispatcher.refused, self.dispatcher.send_ns

    # ---- figures

    def clients(self) -> int:
        """Count the connections there are, of all transports."""
        return sum(transport.connections for transport in self.transports)

    def _log_figures(self) -> dict[str, int]:
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
            "monitors": len(dispatcher.monitors),
            "backups": len(self._backups),
            "steps": dispatcher.steps,
            "requests": dispatcher.requests,
            "operations": dispatcher.operations,
            "requests_refused": dispatcher.refused,
        }
        found |= self._machine.describe()
        found["clock_s"] = round(time.time(), 3)
        if self._metrics is not None:
            found |= self._metrics.describe(self.store.failed())
        found["indexes"] = [subkey[:_SHOWN_CHARS] for subkey in found["indexes"]]
        if self.compactor is not None:
            found |= self.compactor.describe()
        if self._access is not None:
            found |= self._access.describe()
        if self._zap is not None:
            found |= self._zap.stats()
        for transport in self.transports:
            found |= transport.stats()
        return found

    # ---- signals

    @contextlib.contextmanager
    def _signals(self) -> Iterator[Callable[[], None]]:
        """Have SIGTERM and SIGINT end the loop at once, SIGHUP call the hooks of a reload, and SIGCHLD wake it.

        A SIGINT or SIGHUP that is ignored already stays so: a shell starts what goes on in the background of a script
        (`kvzmq server &`) with SIGINT ignored, so that Ctrl-C ends the script alone, and nohup ignores SIGHUP.

        A signal writes a byte that ends the poll. The byte may only be read after the poll, by the function this
        yields: the poll starts over when a signal interrupts it. Python writes one for each signal that has a handler,
        whoever installed that; so it is read after every step without a request, not only when a handler of ours ran.
        """
        reader, writer = socket.socketpair()
        reader.setblocking(False)
        writer.setblocking(False)
        self._poller.register(reader.fileno(), zmq.POLLIN)

        def on_signal(number: int, _: object) -> None:
            self._signalled = True
            if number == signal.SIGHUP:
                self._reload_asked = True
            elif number != signal.SIGCHLD:
                self._stopping = True
                self._stopped_by = "Ctrl-C (SIGINT)" if number == signal.SIGINT else signal.Signals(number).name

        def drain() -> None:
            self._signalled = False  # before reading: a signal that comes now is read in the next step
            with contextlib.suppress(BlockingIOError):
                reader.recv(4096)

        numbers = [signal.SIGTERM, signal.SIGCHLD]
        numbers += [n for n in (signal.SIGINT, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN]
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
        """Close everything the server was given; the entry in a catalog is withdrawn first, and waited for last."""
        if self._announcer is not None:
            self._announcer.withdraw()
        for transport in self.transports:
            transport.close()
        if self._zap is not None:
            self._zap.close()
        self._backups.close()
        if self._scrape is not None:
            self._scrape.close()
        if self.compactor is not None:
            self.compactor.close()
        self.store.close()
        if self._announcer is not None:
            self._announcer.close()
