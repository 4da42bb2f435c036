"""Why a server does not answer: each step of connecting to it is tried by itself, with plain sockets.

    URL ──> catalog ──> name resolution ──> connection ──> ZMTP greeting ──> does the table answer?

Every server of a project in a catalog is checked, and several tables under one name are reported.

libzmq says nothing when a connection is refused or the other end speaks something else; it goes on
trying. So the steps before the table's own answer are taken without it. ZMTP is the protocol of
ZeroMQ, https://rfc.zeromq.org/spec/37/: both ends begin with a greeting of 64 bytes, which names the
mechanism, and with the mechanism NULL each then sends a READY command, which names its socket's type.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import socket
import time
from collections.abc import Container, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple
from urllib.parse import urlsplit

import zmq
from msgspec.structs import replace

from kvzmq import catalog, errors
from kvzmq.client.core.pyzmq_socket import PyzmqSocket
from kvzmq.client.core.socket import Change
from kvzmq.client.core.targets import Target
from kvzmq.client.core.urls import catalog_of, needs_lookup, parse_urls
from kvzmq.client.sync.client import open_client
from kvzmq.curve import ClientKeys
from kvzmq.units import count

_GREETING_BYTES = 64
_GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
_READY = b"\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER\x08Identity\x00\x00\x00\x00"
_PROBES = (b"GET / HTTP/1.0\r\n\r\n", b'{"method": "ping"}\n')
"""Requests that identify a peer which does not speak ZeroMQ: an HTTP server answers the first. The bridge closes a
connection that begins as HTTP, and answers the second."""

_MECHANISMS = {
    "CURVE": "the server asks for CURVE: give --curve-key, a file of `kvzmq keygen`, and --server-key, its public key",
}
"""What to do where a server asks for a mechanism that this client was given nothing for."""

_VERSION_AT, _VERSION_MIN = 10, 3
"""Where a greeting says its version, and the least that kvzmq speaks; before it the number is one less."""

_HEARD_BYTES = 60


class Finding(NamedTuple):
    """The result of one step: whether it succeeded, a text, and whether it was the last step to a server."""

    well: bool
    text: str
    arrived: bool = False


class _Stop(Exception):
    """A step has failed; the message says why."""


def diagnose(targets: Sequence[Target], timeout_s: float) -> list[Finding]:
    """Check servers, each step within `timeout_s`, up to the first step that fails.

    The table itself is asked only where a catalog names the servers, to tell which of them answer.
    """
    findings: list[Finding] = []
    for url, keys in targets:
        findings += _project(url, timeout_s, keys) if needs_lookup(url) else _check(url, timeout_s, keys)
    return findings


def unreachable(url: str, timeout_s: float) -> str | None:
    """Return why none of the servers of `url` can be connected to, each tried for `timeout_s`; None if one can."""
    wrong = ""
    for one in parse_urls(url):
        try:
            for endpoint in _endpoints(one.url, timeout_s):
                try:
                    _connect(endpoint, timeout_s).close()
                    return None
                except _Stop as stop:
                    wrong = wrong or str(stop)
        except _Stop as stop:
            wrong = wrong or str(stop)
    return wrong


def _endpoints(url: str, timeout_s: float) -> list[str]:
    """Return the endpoints of a URL, from the catalog if it names one."""
    if not needs_lookup(url):
        return [url]
    host, entries = _ask_catalog(url, timeout_s)
    return [endpoint for entry in entries if (endpoint := entry.url(host))]


def _check(endpoint: str, timeout_s: float, keys: ClientKeys | None) -> list[Finding]:
    """Check one server, up to the first step that fails."""
    findings: list[Finding] = []
    try:
        findings.extend(Finding(True, text) for text in _steps(endpoint, timeout_s, keys))
        findings[-1] = findings[-1]._replace(arrived=True)
    except _Stop as stop:
        findings.append(Finding(False, str(stop)))
    return findings


def _project(url: str, timeout_s: float, keys: ClientKeys | None) -> list[Finding]:
    """Ask a catalog, and check all servers of the project."""
    try:
        host, entries = _ask_catalog(url, timeout_s)
    except _Stop as stop:
        return [Finding(False, str(stop))]
    servers = "1 server" if len(entries) == 1 else f"{len(entries)} servers, the newest first"
    findings = [Finding(True, f"the catalog knows, of {url}, {servers}")]
    with ThreadPoolExecutor(len(entries)) as pool:  # one that is silent does not make the others wait
        asked = list(pool.map(lambda entry: _announced(entry, host, timeout_s, keys), entries))
    shared = {entry.lineage for entry, one in zip(entries, asked) if one.is_shared}
    told = [entry if one.revision is None else replace(entry, revision=one.revision)
            for entry, one in zip(entries, asked) if one.well]  # fmt: skip
    newest = catalog.newest_revisions(told)
    walks = [one.describe(newest.get(entry.lineage)) for entry, one in zip(entries, asked)]
    findings += itertools.chain.from_iterable(walks)
    answering = [entry for entry, walk in zip(entries, walks) if walk[-1].well]
    if answering and len(entries) > 1:
        findings.append(Finding(True, f"clients that connect now come to {answering[0].url(host)}"))
    return findings + [Finding(False, text) for text in _project_faults(entries, answering, shared)]


def _project_faults(
    entries: list[catalog.Entry], answering: list[catalog.Entry], shared: Container[str]
) -> Iterator[str]:
    """Yield what is wrong with a project as a whole, even if each of its servers answers.

    `shared` are the lineages of tables whose servers share a log: they have begun an epoch each.
    """
    tables = sorted({entry.lineage for entry in entries if entry.lineage})
    if len(tables) > 1:
        short = ", ".join(lineage[: catalog.LINEAGE_DIGITS] for lineage in tables)
        yield (
            f"{len(tables)} tables are announced as {entries[0].project} (lineages {short}), and clients that have "
            "used neither take the newest that answers: give all but one another --project"
        )
    for lineage in tables:
        copies = len({entry.epoch for entry in answering if entry.lineage == lineage})
        if copies > 1 and lineage not in shared:
            yield (
                f"{copies} servers answer with the lineage {lineage[: catalog.LINEAGE_DIGITS]}: they serve copies of "
                "one table, and what is written to one is not in the others; stop all but one"
            )


class _Asked(NamedTuple):
    """What came of asking one server of a project.

    steps      up to the first that failed
    about      what it has announced
    revision   that it answered at, or None
    trouble    why it cannot reach the log that it shares with others, or None
    is_shared  whether it shares its log
    """

    steps: list[Finding]
    about: str = ""
    revision: int | None = None
    trouble: str | None = None
    is_shared: bool = False

    @property
    def well(self) -> bool:
        return self.revision is not None

    def describe(self, newest: int | None) -> list[Finding]:
        """Return the findings; `newest` is the highest revision of all that have the table, if there are several."""
        if self.revision is None:
            return self.steps
        behind = "" if newest is None else f", {count(newest - self.revision, 'change')} behind the newest"
        answers = Finding(True, f"{self.about}: answers, at revision {self.revision}{behind}")
        if self.trouble is None:
            return [*self.steps, answers]
        return [*self.steps, answers, Finding(False, f"{self.about}: it is cut off from its log: {self.trouble}")]


def _announced(entry: catalog.Entry, host: str, timeout_s: float, keys: ClientKeys | None) -> _Asked:
    """Ask a server that has announced itself."""
    endpoint = entry.url(host)
    age_s = max(0, int(time.time()) - entry.lastheardfrom)
    about = (
        f"{endpoint or entry.endpoint or entry.machine(host)}, announced {age_s} s ago at revision {entry.revision}, "
        f"lineage {entry.lineage[: catalog.LINEAGE_DIGITS] or 'unknown'}"
    )
    unusable = catalog.why_unusable(entry, host)
    if unusable:
        return _Asked([Finding(False, f"{about}: {unusable}")])
    steps = _check(endpoint, timeout_s, keys)
    if not steps[-1].well:
        return _Asked([Finding(False, f"{about}: {steps[-1].text}")])
    try:
        with open_client([Target(endpoint, keys)], timeout_s) as table:
            table.ping()
            revision = table.revision
            with contextlib.suppress(errors.NotAllowed):
                stats = table.stats()
                return _Asked(steps, about, revision, stats.get("barrier_trouble"), bool(stats.get("log_shared")))
    except errors.KvzmqError as error:
        return _Asked([Finding(False, f"{about}: {error}")])
    return _Asked(steps, about, revision)


def _steps(endpoint: str, timeout_s: float, keys: ClientKeys | None) -> Iterator[str]:
    if endpoint.startswith("inproc:"):
        raise _Stop("inproc:// reaches sockets of the same process only: the command line needs tcp:// or ipc://")
    if not endpoint.startswith("ipc:"):
        host, port = _split(endpoint)
        addresses = _resolve_name(host, port)
        if host not in addresses:
            yield f"{host} is {', '.join(addresses)}"
    with contextlib.closing(_connect(endpoint, timeout_s)) as sock:
        ipc = endpoint.startswith("ipc:")
        yield f"a process listens on {endpoint}" if ipc else f"port {port} of {host} accepts connections"
        yield _handshake(sock, endpoint, timeout_s, keys)
    if keys is not None:
        yield _handshake_curve(endpoint, timeout_s, keys)


def _connect(endpoint: str, timeout_s: float) -> socket.socket:
    if endpoint.startswith("ipc:"):
        return _connect_ipc(endpoint.removeprefix("ipc://"), timeout_s)
    host, port = _split(endpoint)
    _resolve_name(host, port)
    return _connect_tcp(host, port, timeout_s)


def _ask_catalog(url: str, timeout_s: float) -> tuple[str, list[catalog.Entry]]:
    host, port, project = catalog_of(url)
    try:
        return host, catalog.find_servers(project, host, port, timeout_s)
    except catalog.NoSuchProject as error:
        raise _Stop(
            f"{error}: start one with `kvzmq server --project NAME`, or wait until it has announced itself"
        ) from None
    except errors.CatalogError as error:
        raise _Stop(f"{error}: is `kvzmq catalog` running there?") from None


def _split(endpoint: str) -> tuple[str, int]:
    parts = urlsplit(endpoint)
    try:
        return parts.hostname or "", parts.port or 0
    except ValueError:
        raise _Stop(f"{endpoint} has no valid port") from None


def _resolve_name(host: str, port: int) -> list[str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise _Stop(f"the name {host} was not found: {getattr(error, 'strerror', None) or error}") from None
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def _connect_tcp(host: str, port: int, timeout_s: float) -> socket.socket:
    try:
        return socket.create_connection((host, port), timeout_s)
    except ConnectionRefusedError:
        raise _Stop(
            f"connection refused: nothing listens on port {port} of {host}; is `kvzmq server` running there?"
        ) from None
    except TimeoutError:
        raise _Stop(
            f"no answer to the connection within {timeout_s:g} s: {host} is down, or a firewall drops what is sent to "
            f"port {port}"
        ) from None
    except OSError as error:
        has_no_route = error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH)
        what = "no route" if has_no_route else "no connection"
        raise _Stop(f"{what} to {host} port {port}: {error.strerror}") from None


def _connect_ipc(path: str, timeout_s: float) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(timeout_s)
    try:
        sock.connect(b"\0" + path[1:].encode() if path.startswith("@") else path)
        return sock
    except FileNotFoundError:
        reason = f"there is no {path}: is `kvzmq server --bind ipc://{path}` running on this machine?"
    except ConnectionRefusedError:
        reason = f"connection refused: the process that listened on {path} has gone"
    except PermissionError:
        reason = f"no permission to write to {path}: the server runs as another user"
    except OSError as error:
        reason = f"no connection to {path}: {error.strerror or error}"
    sock.close()
    raise _Stop(reason)


def _handshake(sock: socket.socket, endpoint: str, timeout_s: float, keys: ClientKeys | None) -> str:
    """Exchange greetings and READY; raise _Stop if the peer does not behave as a kvzmq server."""
    deadline_s = time.monotonic() + timeout_s
    try:
        sock.sendall(_GREETING[:11])  # after all of it, a server of another mechanism would close without a greeting
        heard = _receive(sock, _GREETING_BYTES, deadline_s)
        if not (heard[:1] == b"\xff" and heard[9:10] == b"\x7f"):
            raise _Stop(_identify(heard, endpoint, timeout_s))
        if len(heard) > _VERSION_AT and heard[_VERSION_AT] < _VERSION_MIN:
            raise _Stop(
                f"{endpoint} speaks version {heard[_VERSION_AT] + 1} of ZMTP, that of libzmq before 4: "
                "it is no kvzmq server"
            )
        if len(heard) < _GREETING_BYTES:
            raise _Stop(
                f"{endpoint} begins to greet as ZeroMQ does and says no more: the process that listens there "
                "is stopped or overloaded"
            )
        mechanism = heard[12:32].rstrip(b"\0").decode("ascii", "replace")
        if mechanism == "CURVE" and keys is not None:
            return "what listens there speaks ZeroMQ with CURVE"
        if mechanism != "NULL":
            raise _Stop(_MECHANISMS.get(mechanism, f"the server asks for {mechanism} security, which kvzmq has not"))
        if keys is not None:
            raise _Stop(
                f"what listens on {endpoint} speaks ZeroMQ without CURVE: leave --curve-key and --server-key away, or "
                "secure the server"
            )
        sock.sendall(_GREETING[11:] + bytes((4, len(_READY))) + _READY)
        head = _receive(sock, 2, deadline_s)
        ready = _receive(sock, head[1], deadline_s) if len(head) == 2 else b""
    except OSError as error:
        raise _Stop(f"{endpoint} closed the connection: {error.strerror}") from None
    _, found, rest = ready.partition(b"Socket-Type")
    kind = rest[4 : 4 + int.from_bytes(rest[:4], "big")].decode("ascii", "replace") if found else ""
    if kind != "ROUTER":
        what = f"of type {kind}" if kind else "that takes no clients of this type"
        raise _Stop(f"{endpoint} is a ZeroMQ socket {what}, not a kvzmq server")
    return "what listens there speaks ZeroMQ, as a ROUTER"


def _handshake_curve(endpoint: str, timeout_s: float, keys: ClientKeys) -> str:
    """Exchange the handshake of CURVE, by libzmq; raise _Stop with the reason if it fails."""
    with contextlib.closing(PyzmqSocket(endpoint, zmq.Context.instance(), keys)) as sock:
        deadline_s = time.monotonic() + timeout_s
        while (left_s := deadline_s - time.monotonic()) > 0:
            for event in sock.poll_events():
                if event.change is Change.MADE:
                    return "the server has the key --server-key, and knows the key of this client"
                if event.change is Change.NOT_ALLOWED:
                    raise _Stop(
                        "this client is not allowed: the server does not know its key, "
                        f"{keys.own.public}. It has to be in the server's clients file (--clients)"
                    )
                if event.change is Change.REFUSED:
                    raise _Stop(
                        "the server breaks the handshake off: most likely it has another key than --server-key, or "
                        f"{keys.path} holds a public and a secret key that do not belong together"
                    )
            sock.wait(min(left_s, 0.1))
    raise _Stop(
        f"the handshake with CURVE does not end within {timeout_s:g} s: the process that listens there is stopped or "
        "overloaded"
    )


def _receive(sock: socket.socket, length: int, deadline_s: float) -> bytes:
    """Return up to `length` bytes: fewer if the peer ends, or the deadline comes."""
    data = b""
    while len(data) < length:
        sock.settimeout(max(0.01, deadline_s - time.monotonic()))
        try:
            part = sock.recv(length - len(data))
        except TimeoutError:
            break
        if not part or (length == _GREETING_BYTES and (data + part)[:1] != b"\xff"):
            return data + part  # no greeting of ZeroMQ: what it says is known well enough
        data += part
    return data


def _identify(heard: bytes, endpoint: str, timeout_s: float) -> str:
    """Return what listens on an endpoint that did not answer with a ZMTP greeting."""
    for probe in _PROBES:
        heard = heard or _probe(endpoint, probe, timeout_s)
    if heard.startswith(b'{"status"'):
        return (
            f"{endpoint} is the TCP bridge of a kvzmq server, for JSON lines: use the endpoint of its "
            "`Listening on tcp://...` line"
        )
    if heard.startswith(b"HTTP/"):
        return f"{endpoint} is an HTTP server, not a kvzmq server{_catalog_hint(endpoint, timeout_s)}"
    if not heard:
        return (
            f"{endpoint} accepts the connection and says nothing: the process that listens there is stopped or "
            "overloaded, or is no kvzmq server"
        )
    return f"{endpoint} does not speak ZeroMQ: it says {heard[:_HEARD_BYTES]!r}"


def _probe(endpoint: str, probe: bytes, timeout_s: float) -> bytes:
    """Return what a peer answers to some bytes, or none."""
    host, port = _split(endpoint)
    if not host:
        return b""
    try:
        with socket.create_connection((host, port), timeout_s) as sock:
            sock.sendall(probe)
            return sock.recv(_HEARD_BYTES)
    except OSError:
        return b""


def _catalog_hint(endpoint: str, timeout_s: float) -> str:
    host, port = _split(endpoint)
    try:
        entries = catalog.query(host, port, timeout_s)
    except errors.CatalogError:
        return ""
    known = [entry.project for entry in entries if entry.type in catalog.TABLE_TYPES]
    example = known[0] if known else "PROJECT"
    return f"; it is a catalog, so try -c catalog://{host}:{port}/{example}"
