"""Announcing a server to a catalog, from an event loop that must not wait for it."""

from __future__ import annotations

import logging
import select
import socket
import threading
from collections.abc import Callable

import msgspec

from kvzmq.catalog.addresses import resolve

_REFUSAL_S = 0.1
_CLOSE_S = 0.5

_logger = logging.getLogger(__name__)


class Announcement(msgspec.Struct, frozen=True, kw_only=True):
    """Say what a server wants to be known by.

    Catalogs tell the servers of one machine apart by `port` alone. It is the bridge's; a server without a
    bridge should give its endpoint's.
    """

    type: str = "hashtable"
    owner: str
    port: int
    project: str
    endpoint: str
    revision: int = 0
    keys: int = 0
    clients: int = 0


def send_datagram(data: bytes, host: str, port: int) -> None:
    """Send one datagram to the first of the host's addresses that does not refuse it.

    Blocks as long as name resolution does, and a tenth of a second more to hear of a refusal.

    Raises:
        OSError: the name is unknown, the network is down, nobody listens there, or the data is too long.
    """
    failure = OSError(f"{host} has no address")
    for family, address in resolve(host, port, socket.SOCK_DGRAM):
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            try:
                sock.connect(address)
                sock.send(data)
                # A refusal (ICMP) makes a connected socket readable. On the same machine, where a
                # catalog that was never started is the usual mistake, it is there at once.
                if select.select([sock], [], [], _REFUSAL_S)[0]:
                    sock.recv(1)
                return
            except OSError as e:
                failure = e
    raise failure


class Announcer:
    """Tell a catalog about a server, without ever holding up who calls.

    A daemon thread resolves the catalog's name and sends; it keeps the newest announcement only, so a
    slow name server costs announcements, never memory. What fails is logged once, until something else
    fails or it works again. When to announce is the caller's business.
    """

    def __init__(self, host: str, port: int, send: Callable[[bytes, str, int], None] = send_datagram) -> None:
        """Start the thread. Nothing is sent before the first `announce`."""
        self._host = host
        self._port = port
        self._send = send
        self._changed = threading.Condition()
        self._newest: Announcement | None = None
        self._closed = False
        self._failure = ""
        self._thread = threading.Thread(target=self._run, name="kvzmq-announcer", daemon=True)
        self._thread.start()

    def announce(self, announcement: Announcement) -> None:
        """Have this announcement sent soon, instead of any that still waits. Return at once."""
        with self._changed:
            self._newest = announcement
            self._changed.notify()

    def close(self) -> None:
        """Send nothing more. Return within half a second, even from the middle of a name resolution."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        while (announcement := self._next()) is not None:
            try:
                self._send(msgspec.json.encode(announcement), self._host, self._port)
            # ValueError and OverflowError: names that cannot be encoded, ports that do not exist.
            except (OSError, ValueError, OverflowError) as e:
                self._report(str(e) or type(e).__name__)
            else:
                self._report("")

    def _next(self) -> Announcement | None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._newest is not None)
            announcement, self._newest = self._newest, None
            return None if self._closed else announcement

    def _report(self, failure: str) -> None:
        if failure == self._failure:
            return
        self._failure = failure
        if failure:
            _logger.warning("cannot announce to the catalog %s:%d: %s", self._host, self._port, failure)
        else:
            # As loud as the failure that it takes back.
            _logger.warning("announcing to the catalog %s:%d again", self._host, self._port)
