"""The server: one Poller, one loop, one thread that matters.

    poll ──> transports drain ──> dispatcher: log once, execute, sync ──> replies leave

`step` is one turn; `run` turns until a signal or `stop`. While the loop waits for the disk, libzmq's
I/O thread and the kernel collect the next step's requests: that is what makes group commit work.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import zmq

from kvzmq import __version__
from kvzmq.catalog import Announcement, Announcer
from kvzmq.protocol.messages import REQUEST_BYTES_MAX
from kvzmq.server.access import Access
from kvzmq.server.dispatcher import Dispatcher
from kvzmq.server.journal import Journal
from kvzmq.server.transport import Arrival, Transport
from kvzmq.server.zap import Zap
from kvzmq.store.file.compaction import Compactor
from kvzmq.store.store import Store
from kvzmq.tracing.trace import Trace

ANNOUNCE_S = 60.0
"""How often the server announces itself to a catalog."""

_IDLE_S = 1.0
"""The longest wait of a step: housekeeping is late by this much at most."""

_VISIT_S = 0.1
"""How often a transport is drained though the poll had nothing from it: it may have peers to drop."""

_EXPIRY_S = 0.01
"""The shortest wait for a row to expire: rows due within it go together."""

_SHOWN_CHARS = 100
"""How much `stats` shows of a subkey."""


class Server:
    """Joins a store, its transports and the timers in one loop.

    Args:
        store: recovered
        transports: listening
        compactor: looks after the log, or None for a log that needs no care
        announcer: tells a catalog of the server
        announcement: what it tells; the server adds what changes
        group_commit, trace: see Dispatcher
        clock: microseconds since 1970 UTC
        monotonic: seconds that only grow, for heartbeats
        request_bytes_max: the transports' limit, which clients are told
        zap: decides on connections with CURVE, if there are any
        access: the rights of their clients, read again when the file changes
    """

    def __init__(
        self,
        store: Store,
        transports: Sequence[Transport],
        compactor: Compactor | None = None,
        announcer: Announcer | None = None,
        announcement: Announcement | None = None,
        group_commit: bool = True,
        trace: Trace | None = None,
        clock: Callable[[], int] = lambda: time.time_ns() // 1000,
        monotonic: Callable[[], float] = time.monotonic,
        request_bytes_max: int = REQUEST_BYTES_MAX,
        zap: Zap | None = None,
        access: Access | None = None,
    ) -> None:
        self.store = store
        self.transports = transports
        self.compactor = compactor
        self.dispatcher = Dispatcher(
            store, clock, self.describe, group_commit, trace, request_bytes_max=request_bytes_max, monotonic=monotonic
        )
        self._journal = Journal(store, transports, self._going_on)
        self._clock = clock
        self._announcer = announcer
        self._announcement = announcement
        self._announce_s = 0.0
        self._trace = trace
        self._started_s = time.monotonic()
        self._stopping = False
        self._signalled = False
        self._hung_up = False
        self._stopped_by = "its caller"
        self._zap = zap
        self._access = access
        self._poller = zmq.Poller()
        if zap is not None:
            self._poller.register(zap.socket, zmq.POLLIN)
        self._handles = [(transport, transport.register(self._poller)) for transport in transports]
        self._visit_s = 0.0

    def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Serve until `stop`, SIGTERM or SIGINT; from the main thread.

        Args:
            ready: called when a signal would be a clean stop: whoever waits for the server may be told

        Raises:
            StorageFatal: the disk cannot be trusted any more
        """
        with self._signals() as drain:
            ready()
            self._housekeeping()  # announced at once, not after the first wait
            while not self._stopping:
                self.step(_IDLE_S)
                if self._signalled:
                    drain()
                if self._hung_up:
                    self._hung_up = False
                    self.reload()
        self._journal.stopped(self._stopped_by, self.dispatcher.requests)

    def reload(self) -> None:
        """Read the clients file again, as SIGHUP does; a file that cannot be used changes nothing."""
        if self._access is not None and self._access.reload():
            self.dispatcher.watches.end_those_of(self._access.changed)

    def stop(self) -> None:
        """Have `run` return after the step it is in."""
        self._stopping = True

    def step(self, timeout_s: float) -> int:
        """Poll, drain, dispatch, reply; wait `timeout_s` at most. Returns how many requests came."""
        ready = dict(self._poller.poll(self._wait_ms(timeout_s)))
        if self._zap is not None and self._zap.socket in ready:
            self._zap.drain()
        now_s = time.monotonic()
        everyone = now_s >= self._visit_s
        if everyone:
            self._visit_s = now_s + _VISIT_S
        arrivals: list[Arrival] = []
        for transport, handle in self._handles:
            if handle in ready or everyone or transport.pending():
                arrivals += transport.drain()
        if arrivals:
            refused = self.dispatcher.refused
            self.dispatcher.dispatch(arrivals)
            if self.dispatcher.refused > refused:
                self._journal.refused(arrivals)
        else:
            self.dispatcher.tick()
        for transport in self.transports:
            transport.flush()
        self._housekeeping()
        return len(arrivals)

    def _wait_ms(self, timeout_s: float) -> int:
        for transport in self.transports:
            if transport.pending():
                return 0
        if self.dispatcher.deferral.is_busy:
            return 0
        if self.dispatcher.watches.behind:
            timeout_s = min(timeout_s, self.dispatcher.watches.wait_s)
        due_us = self.store.table.expiries.next_us()
        if due_us is not None:
            timeout_s = min(timeout_s, max(_EXPIRY_S, (due_us - self._clock()) / 1e6))
        return int(timeout_s * 1000 + 0.999)

    def _housekeeping(self) -> None:
        self._journal.look()
        if self._access is not None and self._access.look():
            self.dispatcher.watches.end_those_of(self._access.changed)
        if self.compactor is not None:
            self.compactor.poll()
        if self._trace is not None:
            self._trace.flush()
        if self._announcer is not None and self._announcement is not None:
            now_s = time.monotonic()
            if now_s >= self._announce_s:
                self._announce_s = now_s + ANNOUNCE_S
                self._announcer.announce(self._announce(self._announcement))

    def _announce(self, announcement: Announcement) -> Announcement:
        table = self.store.table
        return msgspec.structs.replace(
            announcement,
            **{name: told for name, told in table.identity().items() if told is not None},
            revision=table.revision,
            keys=len(table.rows),
            clients=self.clients(),
        )

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
            "sessions": len(self.store.table.sessions),
            "watches": len(self.dispatcher.watches),
        }
        for transport in self.transports:
            found |= transport.stats()
        return found

    def describe(self) -> dict[str, Any]:
        """Return what `stats` answers: numbers and strings by name; sizes in bytes, times in seconds."""
        store, table, dispatcher = self.store, self.store.table, self.dispatcher
        usage = resource.getrusage(resource.RUSAGE_SELF)
        found: dict[str, Any] = {
            "version": __version__,
            "pid": os.getpid(),
            "uptime_s": round(time.monotonic() - self._started_s, 3),
            "cpu_s": round(usage.ru_utime + usage.ru_stime, 3),
            "memory_bytes_max": usage.ru_maxrss * 1024,
            "keys": len(table.rows),
            "revision": table.revision,
            **table.identity(),
            "sessions": len(table.sessions),
            "expiring_keys": len(table.expiries),
            "indexes": [subkey[:_SHOWN_CHARS] for subkey in table.indexes.names()],
            "index_bytes": table.indexes.kept_bytes,
            "requests_waiting": len(dispatcher.deferral),
            "clients": self.clients(),
            "watches": len(dispatcher.watches),
            "steps": dispatcher.steps,
            "requests": dispatcher.requests,
            "operations": dispatcher.operations,
            "requests_refused": dispatcher.refused,
            "commits": store.groups,
            "requests_committed": store.changes,
            "log_records": store.records,
            "storage_trouble": store.trouble,
        }
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
        """Have SIGTERM and SIGINT end the loop at once, SIGHUP read the clients file again, and SIGCHLD wake the loop.

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
            if number == signal.SIGHUP:
                self._hung_up = True
            elif number != signal.SIGCHLD:
                self._stopping = True
                self._stopped_by = "Ctrl-C (SIGINT)" if number == signal.SIGINT else signal.Signals(number).name

        def drain() -> None:
            self._signalled = False  # before reading: a signal that comes now is read in the next step
            with contextlib.suppress(BlockingIOError):
                reader.recv(4096)

        numbers = [signal.SIGTERM, signal.SIGCHLD]
        if self._access is not None:
            numbers.append(signal.SIGHUP)
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
        if self._zap is not None:
            self._zap.close()
        if self.compactor is not None:
            self.compactor.close()
        self.store.close()
        if self._announcer is not None:
            self._announcer.close()
