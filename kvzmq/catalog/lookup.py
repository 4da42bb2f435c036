"""Looking a server up in a catalog.

A catalog accepts announcements from any program, and the original serves malformed ones, too: so an answer may be
malformed or too long.

    CatalogError
    ├── NoSuchProject         ask for another project, or wait until the server has announced itself
    ├── AnotherTable          the project's servers have a different table than the client has used
    ├── NoUsableServer        the project's servers cannot be reached from here with ZeroMQ
    ├── CatalogUnreachable    try again, or mend the address
    └── BadCatalogAnswer      call the operator of the server that answers there
"""

from __future__ import annotations

import ipaddress
import json
import re
import socket
import time
from collections.abc import Iterable
from typing import Any

import msgspec

from kvzmq.catalog.addresses import is_here, is_loopback, parse_endpoint, resolve
from kvzmq.catalog.announce import TABLE_TYPES
from kvzmq.errors import CatalogError

ANSWER_BYTES_MAX = 32 * 1024 * 1024
"""The longest answer that is read: twice what our own catalog can hold."""

SERVERS_MAX = 32
"""How many servers of a project are used, the newest ones: any program can announce more."""

LINEAGE_DIGITS = 8
"""How many digits of a lineage are shown."""

_RECEIVE_BYTES = 64 * 1024
_ID = re.compile("[0-9a-f]{32}")


class NoSuchProject(CatalogError):
    """The catalog answered, and does not know the project."""


class AnotherTable(CatalogError):
    """All servers of the project have another table than the client has worked with."""


class NoUsableServer(CatalogError):
    """The project is announced, but with nothing that this machine can connect to."""


class CatalogUnreachable(CatalogError):
    """The catalog's answer did not come, or not in time."""


class BadCatalogAnswer(CatalogError):
    """The answer does not come from a catalog, or reports an error."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A catalog's entry of one server. Fields that are missing or malformed are empty, or 0."""

    type: str
    project: str
    address: str
    name: str
    port: int
    endpoint: str
    owner: str
    revision: int
    keys: int
    clients: int
    lastheardfrom: int
    lineage: str = ""
    epoch: str = ""

    def machine(self, catalog_host: str = "") -> str:
        """Return the host that the server runs on, as seen by a client that reaches the catalog as `catalog_host`.

        A server whose address is a loopback address runs on the catalog's machine.
        """
        return catalog_host if catalog_host and is_loopback(self.address) else self.address

    def url(self, catalog_host: str = "") -> str:
        """Return where ZeroMQ clients connect: the endpoint, with a host in the place of "all interfaces".

        That host is the server's, as `machine` gives it. Empty if the server announced no tcp:// endpoint, or a
        malformed one.
        """
        endpoint = parse_endpoint(self.endpoint)
        if endpoint is not None and endpoint.is_everywhere:
            endpoint = parse_endpoint(str(endpoint.at(self.machine(catalog_host))))
        return "" if endpoint is None or endpoint.is_everywhere else str(endpoint)


def find(type: str, project: str, host: str, port: int, timeout_s: float = 5.0) -> Entry:
    """Return the newest entry of a type and project, from the catalog at `host` and `port`.

    Of entries updated in the same second, the one listed last is taken: kvzmq's catalog lists the newest last.

    Raises:
        NoSuchProject: the catalog has no usable entry of this type and project.
        CatalogUnreachable: there was no answer, or not all of it, within `timeout_s` seconds.
        BadCatalogAnswer: the answer is not a catalog's.
    """
    return _newest_first((type,), project, host, port, timeout_s)[0]


def find_servers(project: str, host: str, port: int, timeout_s: float = 5.0) -> list[Entry]:
    """Return the entries of a project's table servers, with the bridge or without, newest first.

    Raises:
        NoSuchProject: the catalog knows of none.
        CatalogUnreachable: there was no answer, or not all of it, within `timeout_s` seconds.
        BadCatalogAnswer: the answer is not a catalog's.
    """
    return _newest_first(TABLE_TYPES, project, host, port, timeout_s)[:SERVERS_MAX]


def endpoints_of(entries: list[Entry], catalog_host: str, lineage: str | None = None) -> list[str]:
    """Return where a client on this machine can connect to the servers of a project, in their order.

    Args:
        entries: as `find_servers` returns them: of one project, at least one
        catalog_host: where the catalog was asked
        lineage: of the table that the client knows, in hexadecimal: other tables' servers are left out,
            and servers that have announced none come last; None if the client knows none yet

    Raises:
        AnotherTable: all servers have another lineage.
        NoUsableServer: none of the others can be reached.
    """
    project = entries[0].project
    ours = [entry for entry in entries if lineage is None or entry.lineage in (lineage, "")]
    if not ours:
        count = f"{len(entries)} {'server' if len(entries) == 1 else 'servers'}"
        raise AnotherTable(f"project {project} is announced by {count} of another table")
    ours.sort(key=lambda entry: lineage is not None and entry.lineage != lineage)
    reachable = [entry.url(catalog_host) for entry in ours if not why_unusable(entry, catalog_host)]
    if not reachable:
        raise NoUsableServer(f"project {project} cannot be reached: {why_unusable(ours[0], catalog_host)}")
    return list(dict.fromkeys(reachable))


def newest_revisions(entries: Iterable[Entry]) -> dict[str, int]:
    """Return the highest revision that was announced of each table of which several servers are, by lineage."""
    announced: dict[str, list[int]] = {}
    for entry in entries:
        if entry.lineage and entry.type in TABLE_TYPES:
            announced.setdefault(entry.lineage, []).append(entry.revision)
    return {lineage: max(revisions) for lineage, revisions in announced.items() if len(revisions) > 1}


def why_unusable(entry: Entry, catalog_host: str) -> str:
    """Return why this machine cannot connect to a server, or "" if it can."""
    endpoint = parse_endpoint(entry.url(catalog_host))
    if endpoint is None:
        return f"it is announced without a ZeroMQ endpoint, only with the bridge's port {entry.port}"
    machine = entry.machine(catalog_host)
    if endpoint.is_loopback and not is_here(machine):
        return f"{endpoint} is announced by {machine}, and only that machine reaches it; bind it to another address"
    return ""


def _newest_first(types: tuple[str, ...], project: str, host: str, port: int, timeout_s: float) -> list[Entry]:
    of_type = [entry for entry in query(host, port, timeout_s) if entry.type in types]
    matching = [entry for entry in of_type if entry.project == project]
    if not matching:
        projects = sorted({entry.project for entry in of_type})
        known = ", ".join(projects[:5]) + (", ..." if len(projects) > 5 else "")
        raise NoSuchProject(
            f"no {types[0]} with the project name {project!r} in the catalog at {host}:{port}"
            f" (it knows {known or 'none of that type'})"
        )
    return sorted(reversed(matching), key=lambda entry: -entry.lastheardfrom)


def query(host: str, port: int, timeout_s: float = 5.0) -> list[Entry]:
    """Return the usable entries of the catalog at `host` and `port`, in its order.

    Malformed entries are left out. The deadline does not include the resolution of the host's name, whose time the
    operating system limits.

    Raises:
        CatalogUnreachable: there was no answer, or not all of it, within `timeout_s` seconds.
        BadCatalogAnswer: the answer is not a catalog's.
    """
    try:
        answer = _get("/query.json", host, port, time.monotonic() + timeout_s)
        return entries_of(answer)
    except (OSError, UnicodeError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error  # without the number that Python puts before it
        raise CatalogUnreachable(f"cannot reach the catalog at {host}:{port}: {why}") from error
    except ValueError as error:
        raise BadCatalogAnswer(f"what answers at {host}:{port} is no catalog: {error}") from error


def _get(path: str, host: str, port: int, deadline_s: float) -> bytes:
    """Return an HTTP server's whole answer. Asks in HTTP/1.0, so that it is not chunked and ends with the stream."""
    request = f"GET {path} HTTP/1.0\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
    with _connected(host, port, deadline_s) as sock:
        _allow_until(sock, deadline_s)
        sock.sendall(request)
        answer = bytearray()
        while True:
            _allow_until(sock, deadline_s)
            chunk = sock.recv(_RECEIVE_BYTES)
            if not chunk:
                return bytes(answer)
            answer += chunk
            if len(answer) > ANSWER_BYTES_MAX:
                raise ValueError(f"the answer is longer than {ANSWER_BYTES_MAX} bytes")


def _connected(host: str, port: int, deadline_s: float) -> socket.socket:
    failure = OSError("the host has no address")
    for family, address in resolve(host, port, socket.SOCK_STREAM):
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            _allow_until(sock, deadline_s)
            sock.connect(address)
            return sock
        except OSError as error:
            sock.close()
            failure = error
    raise failure


def _allow_until(sock: socket.socket, deadline_s: float) -> None:
    left_s = deadline_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError("timed out")
    sock.settimeout(left_s)


def entries_of(answer: bytes) -> list[Entry]:
    """Return the usable entries of a catalog's HTTP answer, in its order.

    Raises:
        ValueError: it is not an answer of 200 with a JSON array.
    """
    # The original ends the lines of its head without CR.
    end = re.search(rb"\r?\n\r?\n", answer)
    status = re.match(rb"HTTP/1\.[01] (\d{3})\b[^\r\n]*", answer)
    if end is None or status is None:
        raise ValueError("the answer is not HTTP")
    if status[1] != b"200":
        raise ValueError(f"the answer is {status[0].decode('latin-1')!r}")
    listed = _array_of(answer[end.end() :].decode("utf-8", "replace").strip())
    if listed is None:
        raise ValueError("the answer is not a JSON array, or not all of one")
    return [entry for fields in listed if (entry := entry_of(fields)) is not None]


def _array_of(text: str) -> list[Any] | None:
    listed = _json_of(text)
    if listed is None and text.startswith("[") and text.endswith("]"):
        # The original prints numbers beyond 1e308 as `inf`: one such entry makes its whole list invalid JSON. It
        # prints one entry on a line, so the others can still be read.
        return [_json_of(line.strip().rstrip(",")) for line in text.split("\n")]
    return listed if isinstance(listed, list) else None


def _json_of(text: str) -> object:
    try:
        return json.loads(text, object_pairs_hook=_first_wins)
    except (ValueError, RecursionError):
        return None


def _first_wins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a dict in which the first of several fields of the same name counts.

    The original puts its own name, address and lastheardfrom before the announced fields and does not remove announced
    ones of the same names. If the last one counted, a server could announce a lastheardfrom in the year 3000, and be
    the newest for ever.
    """
    return dict(reversed(pairs))


def entry_of(fields: object) -> Entry | None:
    """Return the entry with these fields, or None if a client could not use it."""
    if not isinstance(fields, dict):
        return None
    entry = Entry(
        type=_text(fields, "type"),
        project=_text(fields, "project"),
        address=_address(fields),
        name=_text(fields, "name"),
        port=_count(fields, "port"),
        endpoint=_text(fields, "endpoint"),
        owner=_text(fields, "owner"),
        revision=_count(fields, "revision"),
        keys=_count(fields, "keys"),
        clients=_count(fields, "clients"),
        lastheardfrom=_count(fields, "lastheardfrom"),
        lineage=_id(fields, "lineage"),
        epoch=_id(fields, "epoch"),
    )
    reachable = entry.endpoint or (0 < entry.port < 65536 and (entry.address or entry.name))
    return entry if entry.type and reachable else None


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    return value if isinstance(value, str) else ""


def _address(fields: dict[str, Any]) -> str:
    """Return the IP address that a catalog gives for a server, or "": a name would have to be resolved."""
    value = _text(fields, "address")
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return ""
    return value


def _id(fields: dict[str, Any], name: str) -> str:
    """Return 32 hexadecimal digits in lower case, or ""."""
    value = _text(fields, name).lower()
    return value if _ID.fullmatch(value) else ""


def _count(fields: dict[str, Any], name: str) -> int:
    match fields.get(name):
        case bool():  # which is an int to Python
            return 0
        # The original may write 2 as 2.0. NaN and infinity are outside the range.
        case int() | float() as value if 0 <= value < 2**64:
            return int(value)
    return 0
