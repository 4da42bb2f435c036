"""Addresses: of catalogs, in announced endpoints, and of this machine.

Any program can announce any string as its endpoint, so an endpoint has to match a pattern here before it is passed to
ZeroMQ.
"""

from __future__ import annotations

import os
import re
import socket
from typing import Any, NamedTuple

from kvzmq.errors import CatalogError

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 9097
"""Where a catalog is asked, and announced to, if nothing names one; the port is that of cctools."""

_ENDPOINT = re.compile(r"tcp://(\*|\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9][A-Za-z0-9._-]{0,252}):([0-9]{1,5})")
_EVERYWHERE = frozenset({"*", "0.0.0.0", "[::]"})
_LOOPBACK = re.compile(r"localhost|127(\.[0-9]{1,3}){3}|\[?::1\]?", re.IGNORECASE)


class Endpoint(NamedTuple):
    """Where a ZeroMQ server listens over TCP; an IPv6 host is in brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return `tcp://HOST:PORT`."""
        return f"tcp://{self.host}:{self.port}"

    @property
    def is_everywhere(self) -> bool:
        """Whether it stands for every address of its machine."""
        return self.host in _EVERYWHERE

    @property
    def is_loopback(self) -> bool:
        """Whether only programs on its own machine can reach it."""
        return is_loopback(self.host)

    def at(self, host: str) -> Endpoint:
        """Return the same port of a host; an IPv6 address may come without brackets."""
        return Endpoint(f"[{host}]" if ":" in host and not host.startswith("[") else host, self.port)


def parse_endpoint(text: str) -> Endpoint | None:
    """Return the host and port of `tcp://HOST:PORT`, or None if the text is not of this form."""
    found = _ENDPOINT.fullmatch(text)
    return Endpoint(found[1], int(found[2])) if found and 0 < int(found[2]) < 65536 else None


def is_loopback(host: str) -> bool:
    """Say whether a host is a loopback address or name."""
    return _LOOPBACK.fullmatch(host) is not None


def is_here(host: str) -> bool:
    """Say whether a host, by name or address, is this machine: whether a socket can be bound to it."""
    if is_loopback(host):
        return True
    try:
        for family, address in resolve(host, 0, socket.SOCK_DGRAM):
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                sock.bind(address)
                return True
    except (OSError, UnicodeError):
        pass
    return False


def parse_address(text: str, default_port: int = DEFAULT_PORT) -> tuple[str, int]:
    """Return host and port of `HOST`, `HOST:PORT` or `[HOST]:PORT`.

    Raises:
        CatalogError: the text is of none of these forms.
    """
    found = re.fullmatch(r"(?:\[([^\]]+)\]|([^:\[\]\s]+))(?::(\d{1,5}))?", text.strip())
    port = default_port if found is None or found[3] is None else int(found[3])
    if found is None or not 0 < port < 65536:
        raise CatalogError(f"not the address of a catalog, HOST or HOST:PORT: {text!r}")
    return found[1] or found[2], port


def default_address() -> tuple[str, int]:
    """Return the catalog's host and port: CATALOG_HOST and CATALOG_PORT, or else 127.0.0.1 and 9097.

    As with cctools, CATALOG_HOST may name a port of its own and list several catalogs, separated by
    commas; the first one counts here.

    Raises:
        CatalogError: one of the variables is malformed.
    """
    first = os.environ.get("CATALOG_HOST", "").split(",")[0].strip()
    port = os.environ.get("CATALOG_PORT", "").strip() or str(DEFAULT_PORT)
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise CatalogError(f"CATALOG_PORT is not a port number: {port!r}")
    return parse_address(first or DEFAULT_HOST, int(port))


def resolve(host: str, port: int, kind: socket.SocketKind) -> list[tuple[socket.AddressFamily, Any]]:
    """Return (family, address) of each address of a host, IPv4 first.

    "localhost" is ::1 as well as 127.0.0.1, and catalogs listen on the latter.
    """
    found = [(info[0], info[4]) for info in socket.getaddrinfo(host, port, type=kind)]
    return sorted(dict.fromkeys(found), key=lambda each: each[0] != socket.AF_INET)
