"""A client of the table's raw-TCP bridge: one JSON object a line each way, standard library only.

    with HashTableClient("my-project") as table:         # found through the catalog
        table.insert("zebra", {"weight": 100, "name": "fred"})
        table.lookup("zebra")                             # KeyError when there is none

    HashTableClient(host="127.0.0.1", port=5571)          # or by host and port; "127.0.0.1:5571" does as well

How it stays out of the caller's way
  A server that is gone, or that leaves a request without an answer for REPLY_TIMEOUT_S, is not the
  caller's business: the client prints a message, pauses 1 s, 2 s, 4 s ... (never more than PAUSE_MAX_S),
  looks the server up again (a restarted one may have another port), reconnects and sends the request
  again.  It does so for ever, unless it was told when to give up.

Why a reply is never taken for another request's
  One request at a time, and a connection on which anything went wrong is closed before the next one:
  a late reply has nowhere to arrive.

How a write takes effect once although it is sent twice
  Each write carries the client's session and a sequence number.  A server that has already executed
  that number gives the first result again, so a retried remove says OK and not KeyError.  A server of
  the plain course dialect refuses the method "open"; then the client goes on without, and a remove whose
  reply was lost may end in a KeyError (the key is gone either way).

What it raises
  KeyError                  there is no such key
  ValueError, TypeError     the key or value is not something JSON can say; nothing was sent
  TableError
   +- ServerError           the server refused, and changed nothing; `type` and `message` say why
   +- BadReply              what answers there does not speak the dialect; whether it changed anything is unknown
   +- OutcomeUnknown        the write may or may not have been executed: read back, then decide
   +- Unreachable           gave up, and nothing was changed by the request

An object serves one thread.  It must not try to understand the table: it knows the dialect only.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import secrets
import socket
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

CATALOG_HOST = "127.0.0.1"
CATALOG_PORT = 9097
CATALOG_TIMEOUT_S = 5.0
CATALOG_BYTES_MAX = 64 * 2**20

CONNECT_TIMEOUT_S = 5.0
REPLY_TIMEOUT_S = 5.0
REPLY_BYTES_MAX = 2**30
RECEIVE_BYTES = 64 * 2**10

PAUSE_FIRST_S = 1.0
PAUSE_MAX_S = 32.0
SESSIONS_TRIED_MAX = 3

# Executed or not, nothing is changed.
HARMLESS = frozenset({"open", "lookup", "size", "query", "ping", "stats"})

Address = tuple[str, int]
Locate = Callable[[], list[Address]]

_HOST_AND_PORT = re.compile(r"(?P<host>\[[^\]]+\]|[^:/\s]+):(?P<port>\d{1,5})")
_encode_json = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode
_decode_json = json.JSONDecoder().decode


class TableError(Exception):
    """What went wrong with a request, other than a missing key."""


class ServerError(TableError):
    """Report that the server refused the request and changed nothing.

    `type` is the server's name for the error, such as "InvalidRequest"; `message` is its explanation.
    """

    def __init__(self, type: str, message: str) -> None:
        super().__init__(f"{type}: {message}" if message else type)
        self.type = type
        self.message = message


class BadReply(TableError):
    """Report an answer that is not of the dialect: something else listens there."""


class OutcomeUnknown(TableError):
    """Report a write of which nobody can say any more whether it was executed."""


class Unreachable(TableError):
    """Report that no server answered in the time the caller allowed, and that nothing was changed."""


class NotInCatalog(OSError):
    """The catalog knows no such server, for now: an OSError, because waiting may cure it."""


def parse_host_and_port(name: str) -> Address | None:
    """Return (host, port) when `name` reads HOST:PORT, else None: then it is a project's name."""
    match = _HOST_AND_PORT.fullmatch(name)
    return (match["host"].strip("[]"), int(match["port"])) if match else None


def find_in_catalog(project: str) -> list[Address]:
    """Ask the catalog for the newest table server of `project`; return where to try to connect, in order.

    The catalog is the one named by CATALOG_HOST and CATALOG_PORT in the environment.  The address the
    catalog saw the server speak from comes first, the name the server gave itself second.

    Raises: OSError when the catalog does not answer, NotInCatalog when it has no such entry.
    """
    entries = [entry for entry in _read_catalog() if _is_table_of(project, entry)]
    # Of entries heard in the same second the last one listed: catalogs add new ones at the end.
    newest: dict[str, Any] = max(reversed(entries), key=_last_heard_from, default={})
    hosts = dict.fromkeys(newest[field] for field in ("address", "name") if newest.get(field))
    if not hosts:
        raise NotInCatalog(f"the catalog has no table server of project {project!r}")
    return [(str(host), int(newest["port"])) for host in hosts]


def _is_table_of(project: str, entry: object) -> bool:
    return (
        isinstance(entry, dict)
        and entry.get("type") == "hashtable"
        and entry.get("project") == project
        and str(entry.get("port")).isdecimal()
    )


def _last_heard_from(entry: dict[str, Any]) -> float:
    try:
        return float(entry.get("lastheardfrom", 0))
    except (TypeError, ValueError):
        return 0.0


def _read_catalog() -> list[Any]:
    host = os.environ.get("CATALOG_HOST") or CATALOG_HOST
    port = os.environ.get("CATALOG_PORT") or CATALOG_PORT
    # Not urllib: it would ask the proxy of the environment for a catalog on this machine.
    connection = http.client.HTTPConnection(host, int(port), timeout=CATALOG_TIMEOUT_S)
    try:
        connection.request("GET", "/query.json")
        response = connection.getresponse()
        if response.status != http.client.OK:
            raise http.client.HTTPException(f"{response.status} {response.reason}")
        # "replace": one server's badly encoded entry must not hide all the others.
        return _parse_entries(response.read(CATALOG_BYTES_MAX).decode("utf-8", "replace"))
    except OSError as problem:
        raise OSError(f"no answer from the catalog at {host}:{port}: {problem}") from problem
    except (http.client.HTTPException, ValueError) as problem:
        raise NotInCatalog(f"what answers at {host}:{port} is no catalog: {_shorten(problem)}") from problem
    finally:
        connection.close()


def _parse_entries(text: str) -> list[Any]:
    entries = _parse_json(text)
    if entries is None and text.startswith("["):
        # The original catalog prints a number beyond 1e308 as `inf`, which is no JSON: such an entry, of
        # anybody's, must not hide all the others.  It prints an entry a line.
        entries = [_parse_json(line.rstrip(",")) for line in text.split("\n")]
    if not isinstance(entries, list):
        raise ValueError(f"not a list of entries: {_shorten(text)}")
    return entries


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_first_wins)
    except (ValueError, RecursionError):
        return None


def _first_wins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a dict in which, of a field that stands there twice, the first counts.

    The original catalog puts what it has seen itself first and leaves what the server announced under the same
    names after it: were the last to count, a server could date its entry in the year 3000.
    """
    return dict(reversed(pairs))


class _Connection:
    """One TCP connection, used for one request at a time; any exception means: close it."""

    def __init__(self, addresses: Iterable[Address]) -> None:
        self._socket = self._connect(addresses)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.settimeout(REPLY_TIMEOUT_S)

    @staticmethod
    def _connect(addresses: Iterable[Address]) -> socket.socket:
        problem: OSError = ConnectionError("no address to connect to")
        for host, port in addresses:
            try:
                return socket.create_connection((host, port), CONNECT_TIMEOUT_S)
            except (OSError, OverflowError, UnicodeError) as failure:  # the last two: an absurd port or host
                problem = ConnectionError(f"cannot connect to {host}:{port}: {failure}")
        raise problem

    def exchange(self, line: bytes) -> bytes:
        """Send one line and return the line that answers it, within REPLY_TIMEOUT_S of the sending."""
        deadline = time.monotonic() + REPLY_TIMEOUT_S
        self._socket.sendall(line)
        reply = self._socket.recv(RECEIVE_BYTES)
        if not reply.endswith(b"\n"):
            reply = self._receive_rest(reply, deadline)
        if reply.find(b"\n") != len(reply) - 1:
            raise ConnectionError("the server sent more than one line for one request")
        return reply

    def _receive_rest(self, start: bytes, deadline: float) -> bytes:
        """Collect a long reply.  The limit is on the whole of it, or a trickle would hold the caller for ever."""
        chunks, size_bytes = [start], len(start)
        while not chunks[-1].endswith(b"\n"):
            if not chunks[-1]:
                raise ConnectionError("the server closed the connection")
            if size_bytes > REPLY_BYTES_MAX:
                raise BadReply(f"a reply of more than {REPLY_BYTES_MAX} bytes")
            self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
            chunks.append(self._socket.recv(RECEIVE_BYTES))
            size_bytes += len(chunks[-1])
        self._socket.settimeout(REPLY_TIMEOUT_S)
        return b"".join(chunks)

    def close(self) -> None:
        self._socket.close()


class HashTableClient:
    """A table on a server that is found by the project's name, or by host and port."""

    def __init__(
        self,
        name: str = "",
        *,
        host: str = "",
        port: int = 0,
        give_up_s: float | None = None,
        sessions: bool = True,
        tell: Callable[[str], None] | None = None,
        pause: Callable[[float], None] = time.sleep,
        locate: Locate | None = None,
    ) -> None:
        """Prepare a client; the first request connects.

        name: a project's name, looked up in the catalog at every connection, or "HOST:PORT".
        host, port: the server's, in place of `name`.
        give_up_s: how long one call may go on trying; None, the default, is for ever.
        sessions: False for a server known to speak the plain course dialect: spares the question.
        tell: what gets the messages about a server that is gone; standard error by default.
        pause: waits that many seconds between two tries; a test passes its own.
        locate: returns the addresses to try, in order; a test, or a program with another name service, passes its own.
        """
        address = (host, port) if host else parse_host_and_port(name)
        if not name and not address and not locate:
            raise ValueError("say the project's name, or host and port")
        self.name = name or f"{host}:{port}"
        self.locate: Locate = locate or ((lambda: [address]) if address else (lambda: find_in_catalog(name)))
        self._give_up_s = give_up_s
        self._tell = tell or _tell_standard_error
        self._pause = pause
        self._connection: _Connection | None = None
        self._sessions = sessions
        self._session: str | None = None
        self._seq = 0

    # -- the operations ---------------------------------------------------------------------------

    def insert(self, key: str, value: Any) -> None:
        """Put `value`, anything JSON can say, under `key`; when this returns, it is on the server's disk."""
        self._write({"method": "insert", "key": key, "value": value})

    def lookup(self, key: str) -> Any:
        """Return the value under `key`.  Raises: KeyError when there is none."""
        return self._read({"method": "lookup", "key": key})

    def remove(self, key: str) -> None:
        """Remove `key` and its value, durably.  Raises: KeyError when there is no such key."""
        self._write({"method": "remove", "key": key})

    def size(self) -> int:
        """Return how many keys the table holds."""
        size = self._read({"method": "size"})
        if type(size) is not int:
            raise BadReply(f"a size that is no number: {size!r}")
        return size

    def query(self, subkey: str, subvalue: Any) -> list[tuple[str, Any]]:
        """Return the (key, value) pairs whose value is a map in which `subkey` equals `subvalue`."""
        pairs = self._read({"method": "query", "subkey": subkey, "subvalue": subvalue})
        try:
            return [(key, value) for key, value in pairs]
        except (TypeError, ValueError) as problem:
            raise BadReply(f"matches that are no pairs: {_shorten(pairs)}") from problem

    def call(self, request: dict[str, Any]) -> Any:
        """Send a request as it stands and return its result; it is sent again if no reply comes.

        For reads, and for what this class has no method for; a write sent so may be executed twice.
        """
        return self._read(request)

    def close(self) -> None:
        """Close the connection; the next request would open another one."""
        if self._connection:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> HashTableClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- reads and writes -------------------------------------------------------------------------

    def _read(self, request: dict[str, Any]) -> Any:
        reply, _ = self._ask(request, _encode(request))
        return _result(request, reply)

    def _write(self, request: dict[str, Any]) -> None:
        line = _encode(request)  # what JSON cannot say fails before it costs a sequence number
        for _ in range(SESSIONS_TRIED_MAX):
            if self._sessions and self._session is None:
                self._open_session()
            if not self._sessions:
                _result(request, self._ask(request, line)[0])
                return
            self._seq += 1
            reply, sent = self._ask(request, _number(line, self._session, self._seq))
            if reply.get("type") != "SessionExpired":
                _result(request, reply)
                return
            self._session = None
            # Sent once and refused, it did not run.  Sent more often, an earlier one may have run before
            # the server forgot the session, and to send it again could execute it a second time.
            if sent > 1:
                raise OutcomeUnknown(f"the session was forgotten between two tries of {_shorten(request)}")
        _result(request, reply)

    def _open_session(self) -> None:
        """Open a session under a fresh number; a server of the plain dialect has none, and that is fine."""
        session = secrets.token_hex(16)
        request = {"method": "open", "session": session, "seq": 1}
        reply, _ = self._ask(request, _encode(request))
        if reply.get("type") in ("InvalidMethod", "InvalidRequest"):
            self._sessions = False
            return
        _result(request, reply)
        self._session, self._seq = session, 1

    # -- one request, until it is answered --------------------------------------------------------

    def _ask(self, request: dict[str, Any], line: bytes) -> tuple[dict[str, Any], int]:
        """Send `line`, which is `request`, until a reply comes; return the reply and how often it was sent."""
        deadline = None if self._give_up_s is None else time.monotonic() + self._give_up_s
        pause_s = PAUSE_FIRST_S
        sent = 0
        while True:
            try:
                connection = self._connection or self._connect()
                sent += 1
                return _decode(connection.exchange(line)), sent
            except OSError as problem:  # refused, reset, closed, timed out, not in the catalog
                self.close()
                if deadline is not None and time.monotonic() + pause_s > deadline:
                    raise self._gave_up(request, sent, problem) from problem
                self._tell(f"{self.name}: {_say(problem)}; trying again in {pause_s:g} s")
            except BaseException:
                # Not answered, and perhaps answered later (Ctrl-C in the middle, say): the next request must
                # not find that reply, nor the server a gap in the session's numbers.
                self._forget()
                raise
            self._wait(pause_s)
            pause_s = min(2 * pause_s, PAUSE_MAX_S)

    def _connect(self) -> _Connection:
        self._connection = _Connection(self.locate())
        return self._connection

    def _wait(self, pause_s: float) -> None:
        try:
            self._pause(pause_s)
        except BaseException:
            self._forget()
            raise

    def _gave_up(self, request: dict[str, Any], sent: int, problem: OSError) -> TableError:
        self._forget()
        message = f"gave up on {self.name} after {self._give_up_s:g} s: {_say(problem)}"
        harmless = not sent or request.get("method") in HARMLESS
        return Unreachable(message) if harmless else OutcomeUnknown(message)

    def _forget(self) -> None:
        self.close()
        self._session = None


def _result(request: dict[str, Any], reply: dict[str, Any]) -> Any:
    """Return what an OK carries; raise what an exception says."""
    if reply["status"] == "OK":
        return reply.get("result")
    type_, message = str(reply.get("type", "")), str(reply.get("message", ""))
    raise KeyError(request.get("key", message)) if type_ == "KeyError" else ServerError(type_, message)


def _encode(request: dict[str, Any]) -> bytes:
    for field in ("key", "subkey"):
        if not isinstance(request.get(field, ""), str):
            raise TypeError(f"a {field} is a string, not {request[field]!r}")
    return _encode_json(request).encode() + b"\n"


def _number(line: bytes, session: str | None, seq: int) -> bytes:
    """Add session and sequence number to a request that is encoded already."""
    return line[: -len("}\n")] + f',"session":"{session}","seq":{seq}}}\n'.encode()


def _decode(line: bytes) -> dict[str, Any]:
    try:
        reply = _decode_json(line.decode())
    except (ValueError, RecursionError) as problem:
        raise BadReply(f"a reply that is no JSON: {_shorten(line)}") from problem
    if not isinstance(reply, dict) or reply.get("status") not in ("OK", "exception"):
        raise BadReply(f"a reply that is not of the dialect: {_shorten(reply)}")
    return reply


def _say(problem: OSError) -> str:
    if isinstance(problem, TimeoutError):
        return f"no reply for {REPLY_TIMEOUT_S:g} s"
    return problem.strerror or str(problem) or type(problem).__name__


def _shorten(thing: object, characters_max: int = 100) -> str:
    text = repr(thing)
    return text if len(text) <= characters_max else text[:characters_max] + "..."


def _tell_standard_error(message: str) -> None:
    # In one write, newline and all: several threads may have something to tell.
    print(f"HashTableClient: {message}\n", end="", file=sys.stderr, flush=True)
