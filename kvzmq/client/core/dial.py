"""From an endpoint to a connected socket: names looked up, addresses tried. Never waits.

    looking up ──> connecting to one address, 250 ms later to the next as well, ... ──> the first that answers

The addresses of a name are tried as RFC 8305 ("Happy Eyeballs") has it: of IPv6 and IPv4 in turn, each a moment
after the one before or as soon as that has failed, so that an address which answers nothing costs that moment.

The system's resolver can only block. So names, not addresses, are looked up in a thread, which ends with the lookup;
the end of a pipe tells that it has.
"""

from __future__ import annotations

import errno
import math
import os
import select
import selectors
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple

from kvzmq.client.core.urls import PORT_MAX

STAGGER_S = 0.25
"""How long an address has to answer before the next is tried as well: the Connection Attempt Delay of RFC 8305."""

CONNECT_S_MAX = 10.0
"""How long all of it may take, the lookup of a name included."""

ADDRESSES_MAX = 16
"""How many addresses of a name are tried."""

PATH_BYTES_MAX = 107
"""The longest path that a socket has on Linux."""

LOOKUPS_MAX = 4
"""How many lookups of one client may be under way: each takes as long as the system lets it if the name server is
silent."""

KEEPALIVE: tuple[tuple[str, int], ...] = (
    ("TCP_KEEPIDLE", 4),
    ("TCP_KEEPALIVE", 4),  # macOS's name of the same
    ("TCP_KEEPINTVL", 2),
    ("TCP_KEEPCNT", 3),
    ("TCP_USER_TIMEOUT", 10_000),
)
"""How the kernel notices a machine that has vanished: idle after 4 s and three probes, or data in flight for 10 s."""

_NONE: Mapping[int, int] = {}
_UNDER_WAY = (errno.EINPROGRESS, errno.EALREADY)
_Found = list[tuple[Any, Any, int, str, Any]]
GetAddrInfo = Callable[[str, int], _Found]


class Address(NamedTuple):
    """Where to connect to, as socket.connect takes it."""

    family: int
    place: Any


def parse_endpoint(endpoint: str) -> tuple[str, int] | Address:
    """Return host and port of an endpoint of tcp://, or the address of one of ipc://.

    Raises:
        ValueError: it is neither
    """
    scheme, _, rest = endpoint.partition("://")
    if scheme == "ipc" and rest:
        if len(os.fsencode(rest)) > PATH_BYTES_MAX:
            raise ValueError(f"cannot connect to {endpoint!r}: the path is longer than {PATH_BYTES_MAX} bytes")
        return Address(socket.AF_UNIX, "\0" + rest[1:] if rest[0] == "@" else rest)
    host, _, port = rest.rpartition(":")
    if scheme != "tcp" or not host or ";" in host or not (port.isascii() and port.isdigit() and int(port) <= PORT_MAX):
        raise ValueError(
            f"cannot connect to {endpoint!r} by a plain socket: it is neither tcp://HOST:PORT nor ipc://PATH"
        )
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host, int(port)


def interleave(addresses: Sequence[Address]) -> list[Address]:
    """Return addresses of both families in turn, beginning with the first one's, ADDRESSES_MAX at most."""
    first = [address for address in addresses if address.family == addresses[0].family]
    second = [address for address in addresses if address.family != addresses[0].family]
    pairs = zip_longest(first, second)
    return [address for pair in pairs for address in pair if address is not None][:ADDRESSES_MAX]


def _system_lookup(host: str, port: int) -> _Found:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)


class Lookup:
    """One name being looked up in a thread."""

    def __init__(self, host: str, port: int, look_up: GetAddrInfo) -> None:
        self.found: list[Address] | None = None
        self.error: OSError | None = None
        self.fileno, self._told = os.pipe()
        self._host, self._port, self._look_up = host, port, look_up
        self.thread = threading.Thread(target=self._run, name=f"kvzmq: looking up {host}", daemon=True)
        try:
            self.thread.start()
        except BaseException:
            os.close(self._told)
            os.close(self.fileno)
            raise

    def _run(self) -> None:
        try:
            found = self._look_up(self._host, self._port)
            self.found = [Address(family, place) for family, _, _, _, place in found]
        except UnicodeError as error:  # a label of a name that is empty or too long
            self.error = OSError(errno.EINVAL, f"{self._host!r} is no name of a machine: {error}")
        except OSError as error:
            self.error = error
        finally:
            os.close(self._told)


class Resolver:
    """Looks names up, LOOKUPS_MAX at a time."""

    def __init__(self, look_up: GetAddrInfo = _system_lookup) -> None:
        self._look_up = look_up
        self._under_way: list[Lookup] = []

    def look_up(self, host: str, port: int) -> list[Address] | Lookup:
        """Return the addresses of a host that needs no lookup, or a lookup.

        Raises:
            OSError: too many are under way
        """
        try:
            # As bytes: for a str Python loads its codec of international names, a twentieth of the time from a
            # program's start to its first answer. An address has nothing to encode.
            found = socket.getaddrinfo(host.encode(), port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
            return [Address(family, place) for family, _, _, _, place in found]
        except (socket.gaierror, UnicodeError):
            pass  # no address but a name
        # None of a forked child's parent is alive there.
        self._under_way = [each for each in self._under_way if each.thread.is_alive()]
        if len(self._under_way) >= LOOKUPS_MAX:
            raise OSError(errno.EAGAIN, f"{LOOKUPS_MAX} lookups of names are under way, and nothing answers them")
        lookup = Lookup(host, port, self._look_up)
        self._under_way.append(lookup)
        return lookup


class Dial:
    """One try to connect to an endpoint: go on with it until it returns a socket or raises OSError.

    Args:
        where: what `parse_endpoint` has returned
        resolver: looks names up
        now_s: when it begins
        on_closing: called with a descriptor before it is closed
    """

    def __init__(
        self,
        where: tuple[str, int] | Address,
        resolver: Resolver,
        now_s: float,
        on_closing: Callable[[int], None] = lambda fd: None,
    ) -> None:
        self.descriptors: Mapping[int, int] = _NONE
        """What to watch, see Socket; another object whenever it has changed."""
        self.due_s = now_s
        """When to go on at the latest, whatever the descriptors say."""
        self._where = where
        self._resolver = resolver
        self._ends_s = now_s + CONNECT_S_MAX
        self._on_closing = on_closing
        self._lookup: Lookup | None = None
        self._left: list[Address] | None = [where] if isinstance(where, Address) else None
        self._pending: dict[int, tuple[socket.socket, Address]] = {}
        self._next_s = now_s  # when the next address is due
        self._error: OSError | None = None  # the first of all, which belongs to the best address

    def go_on(self, now_s: float) -> socket.socket | None:
        """Return the connected socket, which blocks, or None if there is none yet.

        `descriptors` and `due_s` tell when to go on.

        Raises:
            OSError: there is none to come
        """
        try:
            sock = self._go_on(now_s)
        except BaseException:
            self.close()
            raise
        if sock is not None:
            self.close()
            sock.setblocking(True)
        elif now_s >= self._ends_s:
            self.close()
            raise self._error or TimeoutError(errno.ETIMEDOUT, f"no answer within {CONNECT_S_MAX:g} seconds")
        return sock

    def _go_on(self, now_s: float) -> socket.socket | None:
        if self._left is None:
            self._left = self._look_up()
            if self._left is None:
                self.due_s = self._ends_s
                return None
            self._next_s = now_s
        sock = self._collect()
        while sock is None and self._left and (now_s >= self._next_s or not self._pending):
            self._next_s = now_s + STAGGER_S
            sock = self._begin(self._left.pop(0))
        if sock is None and not self._pending and not self._left:
            raise self._error or OSError(errno.ENOENT, "the name has no address")
        self.due_s = min(self._ends_s, self._next_s) if self._left else self._ends_s
        self.descriptors = dict.fromkeys(self._pending, selectors.EVENT_WRITE)
        return sock

    def _look_up(self) -> list[Address] | None:
        """Return the addresses, or None if they are not known yet."""
        assert not isinstance(self._where, Address)
        if self._lookup is None:
            lookup = self._resolver.look_up(*self._where)
            if not isinstance(lookup, Lookup):
                return interleave(lookup)
            self._lookup = lookup
            self.descriptors = {lookup.fileno: selectors.EVENT_READ}
        if self._lookup.thread.is_alive() and not _ready([self._lookup.fileno], select.POLLIN):
            return None
        found, error = self._lookup.found, self._lookup.error
        self._end_lookup()
        if error is not None:
            raise OSError(error.errno, f"{self._where[0]}: {error.strerror}") from error
        return interleave(found or [])

    def _begin(self, address: Address) -> socket.socket | None:
        """Begin to connect to an address; return the socket if it is connected at once."""
        try:
            sock = socket.socket(address.family, socket.SOCK_STREAM)
        except OSError as error:  # also of a family that this machine does not have
            self._error = self._error or error
            return None
        sock.setblocking(False)
        self._pending[sock.fileno()] = (sock, address)
        if address.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in KEEPALIVE:
                if hasattr(socket, name):
                    sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        code = _begin_to_connect(sock, address)
        if code in _UNDER_WAY:
            return None
        return self._ended(sock.fileno(), code)

    def _collect(self) -> socket.socket | None:
        """Look at the addresses that have answered."""
        for fd in _ready(list(self._pending), select.POLLOUT):
            sock = self._ended(fd, self._pending[fd][0].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
            if sock is not None:
                return sock
            self._next_s = -math.inf  # no need to wait for the next one
        return None

    def _ended(self, fd: int, code: int) -> socket.socket | None:
        """Return the socket of a try that has ended well, or close it."""
        sock, address = self._pending[fd]
        if not code and address.family != socket.AF_UNIX and _leads_to_itself(sock):
            code = errno.ECONNREFUSED
        if not code:
            del self._pending[fd]
            return sock
        self._error = self._error or OSError(code, os.strerror(code))
        self._drop(fd)
        return None

    def _drop(self, fd: int) -> None:
        self._on_closing(fd)
        self._pending.pop(fd)[0].close()

    def _end_lookup(self) -> None:
        if self._lookup is not None:
            self._on_closing(self._lookup.fileno)
            os.close(self._lookup.fileno)
            self._lookup = None

    def close(self) -> None:
        """Drop what is under way."""
        self._end_lookup()
        for fd in list(self._pending):
            self._drop(fd)
        self.descriptors = _NONE
        self.due_s = math.inf


def _begin_to_connect(sock: socket.socket, address: Address) -> int:
    """Return 0 if the socket is connected, or the number of the error."""
    try:
        return sock.connect_ex(address.place)
    except (OSError, ValueError) as error:  # a path that is too long, or has a NUL in it
        return getattr(error, "errno", None) or errno.EINVAL


def _leads_to_itself(sock: socket.socket) -> bool:
    """Return whether TCP has connected a socket with itself, as it can where nobody listens on an ephemeral port."""
    try:
        return bool(sock.getsockname() == sock.getpeername())
    except OSError:
        return False  # the connection is lost already, which the next read shows


def _ready(fds: Sequence[int], event: int) -> list[int]:
    """Return those of the descriptors that are ready now, or have failed."""
    poll = select.poll()
    for fd in fds:
        poll.register(fd, event)
    return [fd for fd, _ in poll.poll(0)] if fds else []
