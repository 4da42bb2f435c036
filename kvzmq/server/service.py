"""Tells systemd how the server is: sd_notify(3), datagrams of lines `NAME=value` to the socket named in NOTIFY_SOCKET.

    READY=1        it serves; sent again after a reload
    STATUS=...     a line for `systemctl status`
    WATCHDOG=1     the loop turns: sent by a timer of the loop, at half of WATCHDOG_USEC, and by nothing else, so that
                   a loop that hangs is silent and systemd ends the process
    RELOADING=1    with MONOTONIC_USEC, as Type=notify-reload wants it
    STOPPING=1     it stops

Outside of systemd nothing is sent. It never waits, and a message that cannot be sent costs a line in the log alone.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, MutableMapping

STATUS_S = 10.0
"""How often the status is sent where no watchdog wants to hear more often."""

_log = logging.getLogger(__name__)


class Notifier:
    """Tells the service manager, if there is one.

    Args:
        address: of its socket, a path, or `@` and a name for an abstract one; None to tell nobody
        watchdog_s: how long it may hear nothing before it takes the server for hung; None for any time
        status: what to show of the server
    """

    def __init__(self, address: str | None, watchdog_s: float | None, status: Callable[[], str]) -> None:
        self._address = "\0" + address[1:] if address is not None and address.startswith("@") else address
        self._every_s = STATUS_S if watchdog_s is None else min(STATUS_S, watchdog_s / 2)
        self._beat = "" if watchdog_s is None else "WATCHDOG=1"
        self._status = status
        self._failed = False
        self._socket: socket.socket | None = None
        if address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)

    @classmethod
    def of_environment(cls, environment: MutableMapping[str, str], status: Callable[[], str]) -> Notifier:
        """Return one as the manager wants it; takes its variables out, since they do not concern child processes."""
        address = environment.pop("NOTIFY_SOCKET", None)
        microseconds = environment.pop("WATCHDOG_USEC", "")
        process = environment.pop("WATCHDOG_PID", "")
        meant = microseconds.isdecimal() and int(microseconds) > 0 and process in ("", str(os.getpid()))
        return cls(address, int(microseconds) / 1e6 if meant else None, status)

    def ready(self) -> None:
        """Say that it serves."""
        if self._socket is not None:
            self._send("READY=1", self._beat, f"STATUS={self._status()}")

    def beat(self) -> float | None:
        """Say that the loop turns, and how the server is: a timer. Returns in how many seconds to say it again."""
        if self._socket is None:
            return None
        self._send(self._beat, f"STATUS={self._status()}")
        return self._every_s

    @contextlib.contextmanager
    def reloading(self) -> Iterator[None]:
        """Say that settings are being read, and afterwards that it serves."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
        try:
            yield
        finally:
            self.ready()

    def stopping(self) -> None:
        """Say that it stops."""
        self._send("STOPPING=1", "STATUS=stopping")

    def _send(self, *lines: str) -> None:
        if self._socket is None or self._address is None:
            return
        try:
            self._socket.sendto("\n".join(filter(None, lines)).encode(), self._address)
        except OSError as error:
            if not self._failed:
                self._failed = True
                _log.warning("cannot tell the service manager: %s", error.strerror, extra={"event": "notify_failed"})

    def close(self) -> None:
        """Say nothing more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
