"""Announcing a server to a catalog, from an event loop that must not wait for it."""

from __future__ import annotations

import logging
import select
import socket
import threading
from collections.abc import Callable, Sequence

import msgspec
from msgspec import UNSET, UnsetType

from kvzmq.catalog.addresses import parse_endpoint, resolve

TABLE = "hashtable"
"""The type of a server that has the bridge: `port` is where it takes lines of JSON."""

TABLE_WITHOUT_BRIDGE = "hashtable-zeromq"
"""The type of a server that has `endpoint` only: a client that looks for a port of JSON lines must not find it."""

TABLE_TYPES = (TABLE, TABLE_WITHOUT_BRIDGE)
"""The types of entries that clients of ZeroMQ take."""

STOPPED = "stopped"
"""The type of an entry that its server has withdrawn."""

WITHDRAWN_S = 1
"""How long a catalog is asked to keep a withdrawn entry; the original drops old entries once a minute."""

_REFUSAL_S = 0.1
_CLOSE_S = 0.5

_log = logging.getLogger(__name__)


class Announcement(msgspec.Struct, frozen=True, kw_only=True):
    """What a server announces about itself. Fields that are unset are not sent.

    Catalogs identify the servers of one machine by `port` and `uuid`. `port` is the bridge's, and never that of the
    ZeroMQ endpoint; a server without a bridge has a `uuid` instead. `lineage` and `epoch` are hexadecimal.
    """

    type: str = TABLE
    owner: str
    project: str
    port: int | UnsetType = UNSET
    uuid: str | UnsetType = UNSET
    endpoint: str | UnsetType = UNSET
    lineage: str | UnsetType = UNSET
    epoch: str | UnsetType = UNSET
    revision: int = 0
    keys: int = 0
    clients: int = 0


class _Withdrawal(msgspec.Struct, frozen=True, kw_only=True):
    """The update that replaces an announcement in a catalog when its server stops. No lookup of a table finds it."""

    type: str = STOPPED
    owner: str
    project: str
    port: int | UnsetType
    uuid: str | UnsetType
    lifetime: int = WITHDRAWN_S


def announcement_of(
    project: str, owner: str, endpoints: Sequence[str], bridge_port: int | None = None
) -> Announcement | None:
    """Return the announcement of a server that listens on these endpoints, or None if no client could use it.

    It has the first tcp:// endpoint that is not a loopback address, or else the first tcp:// endpoint; an ipc://
    endpoint is of no use to other machines. No other server can have the same endpoint at the same time, and a server
    most often has it again after a restart: so without a bridge it serves as the `uuid`.
    """
    over_tcp = [found for endpoint in endpoints if (found := parse_endpoint(endpoint)) is not None]
    endpoint = str(min(over_tcp, key=lambda each: each.is_loopback)) if over_tcp else UNSET
    if bridge_port is not None:
        return Announcement(owner=owner, project=project, port=bridge_port, endpoint=endpoint)
    if endpoint is UNSET:
        return None
    return Announcement(type=TABLE_WITHOUT_BRIDGE, owner=owner, project=project, uuid=endpoint, endpoint=endpoint)


def send_datagram(data: bytes, host: str, port: int) -> None:
    """Send one datagram to the first of the host's addresses that does not refuse it.

    Blocks as long as name resolution does, and a tenth of a second more to wait for a refusal (ICMP).

    Raises:
        OSError: the name is unknown, the network is down, nothing listens there, or the data is too long.
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
            except OSError as error:
                failure = error
    raise failure


class Announcer:
    """Tells a catalog about a server, and never makes its caller wait.

    A daemon thread resolves the catalog's name and sends; it keeps the newest announcement only, so a slow name server
    delays or drops announcements but does not make memory grow. A failure is logged once, until it changes or ends.
    The caller decides when to announce.
    """

    def __init__(self, host: str, port: int, send: Callable[[bytes, str, int], None] = send_datagram) -> None:
        """Start the thread. Nothing is sent before the first `announce`."""
        self._host = host
        self._port = port
        self._send = send
        self._changed = threading.Condition()
        self._newest: Announcement | _Withdrawal | None = None
        self._withdrawal: _Withdrawal | None = None
        self._closed = False
        self._failure = ""
        self._thread = threading.Thread(target=self._run, name="kvzmq-announcer", daemon=True)
        self._thread.start()

    def announce(self, announcement: Announcement) -> None:
        """Have the thread send this announcement, in place of one that still waits. Returns at once."""
        with self._changed:
            self._newest = announcement
            self._withdrawal = _Withdrawal(
                owner=announcement.owner, project=announcement.project, port=announcement.port, uuid=announcement.uuid
            )
            self._changed.notify()

    def withdraw(self) -> None:
        """Tell the catalog that the server stops, if it was announced. Returns at once; `close` waits for it.

        The entry is replaced by one of another type, which no lookup returns, and which the catalog drops soon.
        """
        with self._changed:
            self._newest, self._withdrawal = self._withdrawal, None
            self._changed.notify()

    def close(self) -> None:
        """Send nothing more than a withdrawal that waits.

        Return within half a second, even from the middle of a name resolution.
        """
        with self._changed:
            self._closed = True
            if isinstance(self._newest, Announcement):
                self._newest = None
            self._changed.notify()
        self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        while (announcement := self._next()) is not None:
            try:
                self._send(msgspec.json.encode(announcement), self._host, self._port)
            # ValueError and OverflowError: names that cannot be encoded, ports that do not exist.
            except (OSError, ValueError, OverflowError) as error:
                self._report(str(error) or type(error).__name__)
            else:
                self._report("")

    def _next(self) -> Announcement | _Withdrawal | None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._newest is not None)
            announcement, self._newest = self._newest, None
            return announcement

    def _report(self, failure: str) -> None:
        if failure == self._failure:
            return
        self._failure = failure
        if failure:
            _log.warning("cannot announce to the catalog %s:%d: %s", self._host, self._port, failure)
        else:
            # At the level of the failure that has ended.
            _log.warning("announcing to the catalog %s:%d again", self._host, self._port)
