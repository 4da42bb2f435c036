"""The client's DEALER socket and what it knows of its connection. Both shells use it; it never waits.

libzmq reconnects by itself, but neither says so nor sends again what the old connection had
swallowed. The socket's monitor tells; the session then sends its unanswered requests once more.
"""

from __future__ import annotations

import numbers
import os
import random
import struct
from collections.abc import Sequence
from urllib.parse import unquote, urlsplit

import zmq

from kvzmq import catalog
from kvzmq.client.core.candidates import Candidates, needs_lookup
from kvzmq.protocol.messages import REPLY_BYTES_MAX

RECONNECT_MS = 50
RECONNECT_MS_MAX = 1000
"""libzmq tries again after the first, then twice as long each time up to the second, with jitter."""

_EVENT = struct.Struct("<Hi")
_POLLIN = int(zmq.POLLIN)  # the "and" of enumerations costs 0.7 us
_OPTIONS: tuple[tuple[int, int], ...] = (
    (zmq.LINGER, 0),
    (zmq.IMMEDIATE, 1),  # nothing is queued for a server that is not there: the session decides what is sent again
    (zmq.SNDHWM, 1000),
    (zmq.RCVHWM, 10_000),
    (zmq.RECONNECT_IVL, RECONNECT_MS),
    (zmq.RECONNECT_IVL_MAX, RECONNECT_MS_MAX),
    (zmq.HANDSHAKE_IVL, 5000),
    (zmq.MAXMSGSIZE, REPLY_BYTES_MAX),
    # libzmq's own heartbeats write to a connection that has failed, and abort the process (libzmq issues 3937, 4364).
    # The kernel notices a machine that has vanished: idle after 4 s and three probes, with data on the way after 10 s.
    (zmq.TCP_KEEPALIVE, 1),
    (zmq.TCP_KEEPALIVE_IDLE, 4),
    (zmq.TCP_KEEPALIVE_INTVL, 2),
    (zmq.TCP_KEEPALIVE_CNT, 3),
    (zmq.TCP_MAXRT, 10_000),
)
_STRANGE = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH
_WATCHED = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED | zmq.EVENT_CONNECT_RETRIED | _STRANGE


_URL_FORMS = "use tcp://HOST:PORT, ipc:///PATH or catalog://HOST:PORT/PROJECT, or several, separated by commas"

PORT_MAX = 65_535
"""The highest TCP port."""


URL_DEFAULT = "tcp://127.0.0.1:5570"
"""Where a server listens if it is not told where."""

URL_VARIABLE = "KVZMQ_URL"
"""The environment variable that names the server for programs that do not."""


def parse_urls(url: str | None) -> list[str]:
    """Split a list of endpoints; None stands for URL_VARIABLE, or URL_DEFAULT where that is not set.

    Raises:
        TypeError: it is no string
        ValueError: one of them is not tcp://HOST:PORT, ipc://PATH, inproc://NAME or catalog://HOST:PORT/PROJECT
    """
    source = ""
    if url is None:
        url = os.environ.get(URL_VARIABLE) or URL_DEFAULT
        source = f" (from {URL_VARIABLE})"
    if not isinstance(url, str):
        raise TypeError(f"the URL is a {type(url).__name__}, not a string: {_URL_FORMS}")
    urls = [part.strip() for part in url.split(",")]
    for part in urls:
        fault = _fault_of(part)
        if fault:
            raise ValueError(f"{part!r}{source} is not a server's URL, it {fault}: {_URL_FORMS}")
    return urls


def _fault_of(url: str) -> str:
    """Say what is wrong with a URL, "" if nothing is."""
    scheme, colon, rest = url.partition("://")
    if not url:
        return "is empty"
    if not colon:
        return f"has no scheme, tcp://{url} perhaps"
    check = _FAULTS.get(scheme)
    if check is None:
        return f"has the scheme {scheme!r}, which is none of this"
    return "has a space in it" if any(map(str.isspace, rest)) else check(rest)


def _tcp_fault(address: str) -> str:
    host, colon, port = address.rpartition(":")
    if not colon:
        return "has no port"
    if not host:
        return "has no host"
    if host == "*":
        return "is where a server listens: a client needs the name or address of its machine"
    if ":" in host and ";" not in host and not (host.startswith("[") and host.endswith("]")):
        return "has an IPv6 address that is not in brackets, as in tcp://[::1]:5570"
    return _port_fault(port)


def _port_fault(port: str) -> str:
    if port.isascii() and port.isdigit() and 1 <= int(port) <= PORT_MAX:
        return ""
    return f"has the port {port!r}, which is no number from 1 to {PORT_MAX}"


def _catalog_fault(rest: str) -> str:
    address, _, project = rest.partition("/")
    host, colon, port = address.rpartition(":")
    if not project.strip("/"):
        return "names no project"
    if colon and not host:
        return "has no host"
    return _port_fault(port) if colon and not port.endswith("]") else ""


def _name_fault(name: str) -> str:
    return "" if name else "has no path"


_FAULTS = {"tcp": _tcp_fault, "catalog": _catalog_fault, "ipc": _name_fault, "inproc": _name_fault}


def check_timeout(timeout_s: float) -> float:
    """Return the time a call may take, seconds, and refuse what is none.

    Raises:
        TypeError: it is no number
        ValueError: it is not above 0
    """
    timeout_s = check_wait(timeout_s)
    if not timeout_s > 0:
        raise ValueError(f"timeout is {timeout_s}: it must be above 0 seconds; math.inf stands for no limit")
    return timeout_s


def check_wait(timeout_s: float) -> float:
    """Return a time to wait, seconds, which may be 0, and refuse what is none.

    Raises:
        TypeError: it is no number
        ValueError: it is NaN
    """
    if type(timeout_s) not in (int, float):
        if isinstance(timeout_s, bool) or not isinstance(timeout_s, numbers.Real):
            raise TypeError(f"timeout is a {type(timeout_s).__name__}: it is a number of seconds")
        timeout_s = float(timeout_s)
    if timeout_s != timeout_s:
        raise ValueError("timeout is nan: it is a number of seconds")
    return timeout_s


def resolve(url: str, timeout_s: float, lineage: str | None = None) -> list[str]:
    """Return the endpoints of a URL, from a catalog if need be, newest first; blocks `timeout_s` at most.

    Args:
        url: of a server, or of a project in a catalog
        timeout_s: for the catalog
        lineage: of the table that the client knows, in hexadecimal: servers of others are left out

    Raises:
        CatalogError: the catalog cannot be asked, or names no server of the project that can be used
    """
    if not needs_lookup(url):
        return [url]
    host, port, project = catalog_of(url)
    return catalog.endpoints_of(catalog.find_servers(project, host, port, timeout_s), host, lineage)


def catalog_of(url: str) -> tuple[str, int, str]:
    """Return host, port and project of a URL of catalog://; host and port may come from the environment.

    Raises:
        CatalogError: they should, and make no sense there
    """
    parts = urlsplit(url)
    host, port = catalog.default_address()
    return parts.hostname or host, parts.port or port, unquote(parts.path.strip("/"))


class Link:
    """A DEALER socket that is connected to one of several servers.

    Args:
        urls: tried in turn
        context: the ZeroMQ context
    """

    def __init__(self, urls: Sequence[str], context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self._urls = urls
        self._candidates = [Candidates(url) for url in urls]
        self._at = random.randrange(len(urls)) if len(urls) > 1 else 0
        self._context = context
        self._socket: zmq.Socket[bytes] | None = None
        self._monitor: zmq.Socket[bytes] | None = None
        self.connected = False
        """Whether the server has shaken hands and not gone since."""
        self.strange = False
        """Whether something answers there that does not speak ZeroMQ."""
        self.failed = False
        """Whether a try to connect has failed, for want of a listener most often."""

    @property
    def url(self) -> str:
        """The URL in use."""
        return self._urls[self._at]

    @property
    def candidates(self) -> Candidates:
        """The servers of the URL in use."""
        return self._candidates[self._at]

    @property
    def endpoint(self) -> str:
        """Where the link leads: the URL in use, or the server that a catalog named."""
        return self.candidates.endpoint

    @property
    def alternatives(self) -> bool:
        """Whether there is another server to try, or a catalog to ask again."""
        return len(self._urls) > 1 or needs_lookup(self.url)

    def describe(self) -> str:
        """Say where the link leads and what is known of the server there, for an error's message."""
        where = self.endpoint if self.endpoint == self.url else f"{self.endpoint} of {self.url}"
        if self.connected:
            return f"connected to {where}, which is too busy to take the request"
        if self.strange:
            return f"what answers at {where} does not speak ZeroMQ (is that the port of the bridge?)"
        among = f" (one of {len(self._urls)} endpoints)" if len(self._urls) > 1 else ""
        known = f"; {self.candidates.error}" if self.candidates.error else ""
        return f"no connection to {where}{among}: is a server running there?{known}"

    def next_server(self) -> None:
        """Turn to the next server: another one of the URL in use, or else the next URL's."""
        if not self.candidates.give_up():
            self._at = (self._at + 1) % len(self._urls)

    def open(self, endpoint: str) -> None:
        """Connect a new socket, in place of the old one.

        Raises:
            ValueError: ZeroMQ does not take the endpoint
        """
        self.close()
        self.strange = self.failed = False
        new = self._context.socket(zmq.DEALER)
        for option, value in _OPTIONS:
            new.setsockopt(option, value)
        self._socket = new
        self._monitor = self._monitor_of(new)
        try:
            new.connect(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise ValueError(f"cannot connect to {endpoint!r}: {error.strerror}") from None

    def _monitor_of(self, watched: zmq.Socket[bytes]) -> zmq.Socket[bytes]:
        """Have a socket's connection reported.

        Without a high-water mark: libzmq's I/O thread waits for room for its reports, and an unread
        monitor would stop every socket of the process.
        """
        place = f"inproc://kvzmq-link-{os.urandom(8).hex()}"
        watched.monitor(place, _WATCHED)
        monitor = self._context.socket(zmq.PAIR)
        monitor.setsockopt(zmq.LINGER, 0)
        monitor.setsockopt(zmq.RCVHWM, 0)
        monitor.connect(place)
        return monitor

    @property
    def is_open(self) -> bool:
        """Whether there is a socket."""
        return self._socket is not None

    @property
    def socket(self) -> zmq.Socket[bytes]:
        """The DEALER socket."""
        assert self._socket is not None
        return self._socket

    @property
    def monitor(self) -> zmq.Socket[bytes]:
        """The socket on which libzmq reports; `news` reads it."""
        assert self._monitor is not None
        return self._monitor

    @property
    def has_news(self) -> bool:
        """Whether `news` has something to read."""
        return int(self.monitor.getsockopt(zmq.EVENTS)) & _POLLIN != 0

    def news(self) -> bool:
        """Read the reports of the monitor; True if a new connection was made since the last time."""
        made = False
        while True:
            try:
                event, _ = _EVENT.unpack(self.monitor.recv(zmq.NOBLOCK))
            except zmq.Again:
                return made and self.connected
            self.monitor.recv()  # the endpoint
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                made = self.connected = True
                self.candidates.reached()
                self.strange = self.failed = False
            elif event == zmq.EVENT_CONNECT_RETRIED:
                self.failed = True
            else:
                self.connected = False
                self.strange = self.strange or bool(event & _STRANGE)

    @property
    def readable(self) -> bool:
        """Whether there is a frame to read; afterwards the descriptor tells of the next one."""
        return int(self.socket.getsockopt(zmq.EVENTS)) & _POLLIN != 0

    @property
    def unread(self) -> bool:
        """Whether a frame or a report waits to be read; afterwards the descriptors tell of the next ones."""
        if not self.is_open:
            return False
        return self.readable or int(self.monitor.getsockopt(zmq.EVENTS)) & _POLLIN != 0

    def send(self, frame: bytes) -> bool:
        """Send a frame; False if there is no connection, or no room on it."""
        try:
            self.socket.send(frame, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def close(self) -> None:
        """Drop the connection."""
        if self._socket is not None:
            self._socket.monitor(None, 0)
            self._socket.close(linger=0)
            self._socket = None
        if self._monitor is not None:
            self._monitor.close(linger=0)
            self._monitor = None
        self.connected = False
