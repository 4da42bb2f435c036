"""Where a catalog is: HOST:PORT, the environment's CATALOG_HOST and CATALOG_PORT, name resolution."""

from __future__ import annotations

import os
import re
import socket
from typing import Any

from kvzmq.errors import CatalogError

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 9097


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
        CatalogError: one of the variables makes no sense.
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
