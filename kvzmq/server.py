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

import zmq

from kvzmq import __version__
from kvzmq.catalog import Announcement, Announcer
from kvzmq.dispatcher import Dispatcher
from kvzmq.store import Store
from kvzmq.store.compact import Compactor
from kvzmq.trace import Trace
from kvzmq.transport import Arrival, Transport

ANNOUNCE_S = 60.0
"""How often the server announces itself to a catalog."""

_IDLE_S = 1.0
"""The longest wait of a step: housekeeping is late by this much at most."""

_VISIT_S = 0.1
"""How often a transport is drained though the poll had nothing from it: it may have peers to drop."""

_EXPIRY_S = 0.01
"""The shortest wait for a row to expire: rows due within it go together."""

_CLIENTS_MAX = 100_000
"""How many clients are told apart within a minute."""

_CLIENTS_MIN = 1000
"""How many are remembered before those of more than a minute ago are looked for."""


class Server:
    """Joins a store, its transports and the timers in one loop.

    Args:
        store: recovered
        transports: listening
        compactor: looks after the log, or None for a log that needs no care
        announce: what to tell a catalog, as a function of revision, keys and clients; with announcer
        announcer: tells it
        group_commit, trace: see Dispatcher
        clock: microseconds since 1970 UTC
        monotonic: seconds that only grow, for heartbeats
    """

    def __init__(
        self,
        store: Store,
        transports: Sequence[Transport],
        compactor: Compactor | None = None,
        announcer: Announcer | None = None,
        announce: Callable[[int, int, int], Announcement] | None = None,
        group_commit: bool = True,
        trace: Trace | None = None,
        clock: Callable[[], int] = lambda: time.time_ns() // 1000,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store = store
        self.transports = transports
        self.compactor = compactor
        self.dispatcher = Dispatcher(store, clock, self.describe, group_commit, trace, monotonic=monotonic)
        self._clock = clock
        self._announcer = announcer
        self._announce = announce
        self._announce_s = 0.0
        self._trace = trace
        self._started_s = time.monotonic()
        self._stopping = False
        self._signalled = False
        self._clients: dict[tuple[int, Any], float] = {}
        self._look_through_at = _CLIENTS_MIN
        self._poller = zmq.Poller()
        self._handles = [(transport, transport.register(self._poller)) for transport in transports]
        self._visit_s = 0.0

    def run(self) -> None:
        """Serve until `stop`, SIGTERM or SIGINT; from the main thread.

        Raises:
            StorageFailed: the disk cannot be trusted any more
        """
        with self._signals() as drain:
            while not self._stopping:
                self.step(_IDLE_S)
                if self._signalled:
                    drain()

    def stop(self) -> None:
        """Have `run` return after the step it is in."""
        self._stopping = True

    def step(self, timeout_s: float) -> int:
        """Poll, drain, dispatch, reply; wait `timeout_s` at most. Returns how many requests came."""
        ready = dict(self._poller.poll(self._wait_ms(timeout_s)))
        now_s = time.monotonic()
        everyone = now_s >= self._visit_s
        if everyone:
            self._visit_s = now_s + _VISIT_S
        arrivals: list[Arrival] = []
        for transport, handle in self._handles:
            if handle in ready or everyone or transport.pending():
                arrivals += transport.drain()
        if arrivals:
            self.dispatcher.dispatch(arrivals)
            self._note_clients(arrivals)
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
        if self.dispatcher.watches.behind:
            timeout_s = min(timeout_s, self.dispatcher.watches.wait_s)
        due_us = self.store.table.expiries.next_us()
        if due_us is not None:
            timeout_s = min(timeout_s, max(_EXPIRY_S, (due_us - self._clock()) / 1e6))
        return int(timeout_s * 1000 + 0.999)

    def _housekeeping(self) -> None:
        if self.compactor is not None:
            self.compactor.poll()
        if self._trace is not None:
            self._trace.flush()
        if self._announcer is not None and self._announce is not None:
            now_s = time.monotonic()
            if now_s >= self._announce_s:
                self._announce_s = now_s + ANNOUNCE_S
                table = self.store.table
                self._announcer.announce(self._announce(table.revision, len(table.rows), self.clients()))

    # ---- what there is to say

    def _note_clients(self, arrivals: Sequence[Arrival]) -> None:
        now_s = time.monotonic()
        for arrival in arrivals:
            self._clients[id(arrival.transport), arrival.peer] = now_s
        if len(self._clients) > self._look_through_at:  # nobody may ever ask how many there are
            if self.clients() > _CLIENTS_MAX:
                self._clients.clear()
            self._look_through_at = 2 * len(self._clients) + _CLIENTS_MIN

    def clients(self) -> int:
        """Count the clients that asked for something within the last minute."""
        since_s = time.monotonic() - 60.0
        self._clients = {client: seen_s for client, seen_s in self._clients.items() if seen_s >= since_s}
        return len(self._clients)

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
            "indexes": table.indexes.names(),
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
        for transport in self.transports:
            found |= transport.stats()
        return found

    # ---- signals

    @contextlib.contextmanager
    def _signals(self) -> Iterator[Callable[[], None]]:
        """Have SIGTERM and SIGINT end the loop at once, and SIGCHLD wake it.

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

        def drain() -> None:
            self._signalled = False  # before reading: a signal that comes now is read in the next step
            with contextlib.suppress(BlockingIOError):
                reader.recv(4096)

        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
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
        """Close everything the server was given."""
        if self._announcer is not None:
            self._announcer.close()
        for transport in self.transports:
            transport.close()
        if self.compactor is not None:
            self.compactor.close()
        self.store.close()
