"""The simplest servers that could be: what the design is compared with, and what bounds it.

    python -m benchmarks.run.baselines one-sync PORT FILE [ROWS MATCHES]   select, JSON lines, one sync a change
    python -m benchmarks.run.baselines router-echo PORT     a ROUTER socket that sends every frame back
    python -m benchmarks.run.baselines json-echo PORT       epoll, JSON lines: decodes each, answers with a fixed value
    python -m benchmarks.run.baselines manager PORT         multiprocessing's shared dict

Each prints `ready` when it listens, on 127.0.0.1.
"""

from __future__ import annotations

import json
import os
import select
import selectors
import socket
import sys
from collections.abc import Callable
from multiprocessing.managers import BaseManager, DictProxy
from typing import Any

from benchmarks.run.work import grouped_row

AUTHKEY = b"benchmarks"
_RECEIVE_BYTES = 64 << 10


def _listen(port: int) -> socket.socket:
    listener = socket.create_server(("127.0.0.1", port), backlog=1024)
    listener.setblocking(False)
    print("ready", flush=True)
    return listener


class _Lines:
    """A connection that speaks lines."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = sock
        self.rest = b""

    def fileno(self) -> int:
        return self.socket.fileno()

    def read(self) -> list[bytes] | None:
        """Return the whole lines that are there; None when the peer has gone."""
        try:
            data = self.socket.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return []
        except OSError:
            return None
        if not data:
            return None
        *lines, self.rest = (self.rest + data).split(b"\n")
        return lines

    def write(self, data: bytes) -> None:
        try:
            sent = self.socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            return
        if sent < len(data):  # a measuring client reads its replies: this does not block for long
            self.socket.setblocking(True)
            self.socket.sendall(data[sent:])
            self.socket.setblocking(False)


class OneSyncTable:
    """A dict whose every change is appended to a file and synced, alone, before it is made."""

    def __init__(self, path: str, grouped_rows: int, matches: int) -> None:
        self._log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.rows: dict[str, Any] = dict(grouped_row(number, matches) for number in range(grouped_rows))

    def execute(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
            method = request["method"]
            return {"status": "OK", "result": getattr(self, f"do_{method}")(request, line)}
        except KeyError as error:
            return {"status": "exception", "type": "KeyError", "message": str(error)}
        except AttributeError as error:
            return {"status": "exception", "type": "InvalidMethod", "message": str(error)}
        except (ValueError, TypeError) as error:
            return {"status": "exception", "type": "InvalidRequest", "message": str(error)}

    def _append(self, line: bytes) -> None:
        os.write(self._log, line + b"\n")
        os.fdatasync(self._log)  # fsync would also write the file's times: the baseline gets the cheaper one

    def do_insert(self, request: dict[str, Any], line: bytes) -> None:
        self._append(line)
        self.rows[request["key"]] = request["value"]

    def do_remove(self, request: dict[str, Any], line: bytes) -> None:
        if request["key"] not in self.rows:
            raise KeyError(request["key"])
        self._append(line)
        del self.rows[request["key"]]

    def do_lookup(self, request: dict[str, Any], line: bytes) -> Any:
        return self.rows[request["key"]]

    def do_size(self, request: dict[str, Any], line: bytes) -> int:
        return len(self.rows)

    def do_query(self, request: dict[str, Any], line: bytes) -> list[tuple[str, Any]]:
        subkey, subvalue = request["subkey"], request["subvalue"]
        return [
            (key, value)
            for key, value in self.rows.items()
            if isinstance(value, dict) and subkey in value and value[subkey] == subvalue
        ]


def serve_one_sync(port: int, path: str, grouped_rows: str = "0", matches: str = "1") -> None:
    """Be a simple server: select over all connections, each request on its own.

    `grouped_rows` rows are there from the beginning, `matches` of them of a group: synced one by one
    they would take minutes.
    """
    table = OneSyncTable(path, int(grouped_rows), int(matches))
    listener = _listen(port)
    connections: dict[socket.socket, _Lines] = {}
    while True:
        ready, _, _ = select.select([listener, *connections], [], [])
        for sock in ready:
            if sock is listener:
                accepted, _ = listener.accept()
                connections[accepted] = _Lines(accepted)
                continue
            lines = connections[sock].read()
            if lines is None:
                del connections[sock]
                sock.close()
                continue
            for line in lines:
                connections[sock].write(json.dumps(table.execute(line)).encode() + b"\n")


def serve_json_echo(port: int, value_bytes: str) -> None:
    """Be the least a JSON line server in Python can do: decode a line, encode a reply as long as a lookup's."""
    import msgspec  # the fastest there is: the limit should be a limit

    decode: Callable[[bytes], Any] = msgspec.json.Decoder().decode
    encode = msgspec.json.Encoder().encode
    value = "x" * int(value_bytes)
    listener = _listen(port)
    selector = selectors.EpollSelector()
    selector.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.data is None:
                connection = _Lines(listener.accept()[0])
                selector.register(connection, selectors.EVENT_READ, connection)
                continue
            lines = key.data.read()
            if lines is None:
                selector.unregister(key.data)
                key.data.socket.close()
                continue
            replies = [
                encode({"status": "OK", "result": value if decode(line)["method"] == "lookup" else None})
                for line in lines
            ]
            if replies:
                key.data.write(b"\n".join(replies) + b"\n")


def serve_router_echo(port: int) -> None:
    """Be the least a ROUTER server in Python can do: two frames in, two frames out."""
    import zmq

    router = zmq.Context().socket(zmq.ROUTER)
    router.bind(f"tcp://127.0.0.1:{port}")
    poller = zmq.Poller()
    poller.register(router, zmq.POLLIN)
    print("ready", flush=True)
    while True:
        poller.poll()
        while True:
            try:
                identity = router.recv(zmq.NOBLOCK)
            except zmq.Again:
                break
            frame = router.recv()
            router.send(identity, zmq.SNDMORE)
            router.send(frame)


class SharedDict(BaseManager):
    """The server and the client of `multiprocessing.Manager().dict()`, on a port both sides know."""


_rows: dict[str, Any] = {}
SharedDict.register("table", callable=lambda: _rows, proxytype=DictProxy)


def serve_manager(port: int) -> None:
    """Be the process that `multiprocessing.Manager()` would start."""
    server = SharedDict(("127.0.0.1", port), AUTHKEY).get_server()
    print("ready", flush=True)
    server.serve_forever()


_SERVERS: dict[str, Callable[..., None]] = {
    "one-sync": serve_one_sync,
    "router-echo": serve_router_echo,
    "json-echo": serve_json_echo,
    "manager": serve_manager,
}

if __name__ == "__main__":
    name, port, *rest = sys.argv[1:]
    _SERVERS[name](int(port), *rest)
