"""A table server in a thread, speaking the bridge's dialect, that misbehaves on request.

It keeps a dict and nothing on disk.  A test gives it a list of faults; each is used for one request, in the
order the requests come.  With `sessions` it knows sessions as the real server does; without, it is a
server of the plain course dialect.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

Request = dict[str, Any]
Fault = Callable[["FakeTableServer", Request], bytes | None]

JOIN_TIMEOUT_S = 60.0

ARGUMENTS: dict[str, dict[str, type]] = {
    "insert": {"key": str, "value": object},
    "lookup": {"key": str},
    "remove": {"key": str},
    "query": {"subkey": str, "subvalue": object},
}


def execute_and_hang_up(server: FakeTableServer, request: Request) -> bytes | None:
    """Execute, then close the connection without a reply: the reply is lost."""
    server.execute(request)
    return None


def hang_up(server: FakeTableServer, request: Request) -> bytes | None:
    """Close the connection before the request is executed."""
    return None


def execute_and_stay_silent(server: FakeTableServer, request: Request) -> bytes | None:
    """Execute, but leave the client without an answer until it goes away."""
    server.execute(request)
    return b""


def reply_with(data: bytes) -> Fault:
    """Answer with these bytes, whatever was asked; the connection is closed if no newline ends them."""
    return lambda server, request: data


def do_normally(server: FakeTableServer, request: Request) -> bytes | None:
    """Execute and reply: a place in the list of faults for a request that is to work."""
    return _encode(server.execute(request))


class FakeTableServer:
    """Serve one table on 127.0.0.1 until closed; `requests` holds what was received, in order."""

    def __init__(self, *, sessions: bool = True, port: int = 0) -> None:
        self.sessions = sessions
        self.rows: dict[str, Any] = {}
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.results: dict[str, dict[int, dict[str, Any]]] = {}
        self.connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def name(self) -> str:
        return f"127.0.0.1:{self.port}"

    def close(self) -> None:
        """Stop listening and drop every connection, as a killed server does."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for connection in self.connections:
                _shut(connection)
        for thread in self._threads:
            thread.join(JOIN_TIMEOUT_S)

    def __enter__(self) -> FakeTableServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def methods(self) -> list[str]:
        """List the methods received, in order."""
        return [request.get("method", "") for request in self.requests]

    # -- the table --------------------------------------------------------------------------------

    def execute(self, request: Request) -> dict[str, Any]:
        """Execute one request as the real server would; return its reply."""
        session, seq = request.get("session"), request.get("seq")
        if not self.sessions or session is None or seq is None:
            return self._apply(request)
        if request["method"] == "open":
            self.results.setdefault(session, {})
        if session not in self.results:
            return _exception("SessionExpired", "no such session")
        kept = self.results[session]
        if seq not in kept:
            kept[seq] = self._apply(request)
        return kept[seq]

    def _apply(self, request: Request) -> dict[str, Any]:
        method = request.get("method")
        operation = getattr(self, f"do_{method}", None)
        if operation is None or (method == "open" and not self.sessions):
            return _exception("InvalidMethod", f"no method {method!r}")
        wanted = ARGUMENTS.get(str(method), {})
        if not all(name in request and isinstance(request[name], type_) for name, type_ in wanted.items()):
            return _exception("InvalidRequest", f"{method} needs {', '.join(wanted)}")
        try:
            return {"status": "OK", "result": operation(request)}
        except KeyError as missing:
            return _exception("KeyError", f"no key {missing}")

    def do_open(self, request: Request) -> None:
        pass

    def do_ping(self, request: Request) -> str:
        return "pong"

    def do_insert(self, request: Request) -> None:
        self.rows[request["key"]] = request["value"]

    def do_lookup(self, request: Request) -> Any:
        return self.rows[request["key"]]

    def do_remove(self, request: Request) -> None:
        del self.rows[request["key"]]

    def do_size(self, request: Request) -> int:
        return len(self.rows)

    def do_query(self, request: Request) -> list[list[Any]]:
        subkey, subvalue = request["subkey"], request["subvalue"]
        return [
            [key, value]
            for key, value in sorted(self.rows.items())
            if isinstance(value, dict) and subkey in value and _same(value[subkey], subvalue)
        ]

    # -- the connections --------------------------------------------------------------------------

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self.connections.add(connection)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, connection.makefile("rb") as lines:
                for line in lines:
                    if not line.endswith(b"\n"):
                        return  # the client left in the middle of it
                    reply = self._answer(line)
                    if reply is None:
                        return
                    connection.sendall(reply)
                    if reply and not reply.endswith(b"\n"):
                        return
        except (OSError, ValueError):
            pass
        finally:
            with self._lock:
                self.connections.discard(connection)

    def _answer(self, line: bytes) -> bytes | None:
        with self._lock:
            try:
                request = json.loads(line)
            except ValueError:
                return _encode(_exception("InvalidRequest", "no JSON"))
            if not isinstance(request, dict) or "method" not in request:
                return _encode(_exception("InvalidRequest", "no method"))
            self.requests.append(request)
            fault = self.faults.pop(0) if self.faults else do_normally
            return fault(self, request)


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)


def _encode(reply: dict[str, Any]) -> bytes:
    return json.dumps(reply).encode() + b"\n"


def _exception(type: str, message: str) -> dict[str, Any]:
    return {"status": "exception", "type": type, "message": message}


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
