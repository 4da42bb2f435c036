"""Many connections of one process over TCP, one request in flight on each: kvzmq.bench.load for the others."""

from __future__ import annotations

import selectors
import socket
import time
from array import array
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from kvzmq.bench.load import Measured

_TIMEOUT_S = 30.0
_RECEIVE_BYTES = 64 << 10


class Request(NamedTuple):
    """A request's bytes, and how its reply ends or how long it is."""

    data: bytes
    reply_bytes: int | None


def redis_set(key: str, value: bytes) -> Request:
    """Encode SET as redis-py does."""
    data = b"*3\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(key), key.encode(), len(value), value)
    return Request(data, len(b"+OK\r\n"))


def redis_get(key: str, value: bytes) -> Request:
    """Encode GET of a row that holds `value`."""
    data = b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(key), key.encode())
    return Request(data, len(b"$%d\r\n%b\r\n" % (len(value), value)))


def json_insert(key: str, value: bytes) -> Request:
    """Encode an insert for the bridge."""
    return Request(b'{"method":"insert","key":"%b","value":"%b"}\n' % (key.encode(), value), None)


def json_lookup(key: str, value: bytes) -> Request:
    """Encode a lookup for the bridge."""
    return Request(b'{"method":"lookup","key":"%b"}\n' % key.encode(), None)


class _Connection:
    __slots__ = ("expected", "received", "sent_ns", "socket")

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), _TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""
        self.expected: int | None = None
        self.sent_ns = 0

    def send(self, request: Request) -> None:
        self.expected = request.reply_bytes
        self.received = b""
        self.sent_ns = time.perf_counter_ns()
        self.socket.sendall(request.data)

    def receive(self) -> bool:
        """Read; True when the reply is whole. Raises: ConnectionError"""
        data = self.socket.recv(_RECEIVE_BYTES)
        if not data:
            raise ConnectionError("the server has gone")
        self.received += data
        whole = self.received.endswith(b"\n") if self.expected is None else len(self.received) >= self.expected
        if whole and self.received[:1] == b"-":
            raise ConnectionError(self.received.decode(errors="replace"))
        return whole


class TcpLoad:
    """Connections to a TCP port, ready to run loads."""

    def __init__(self, port: int, clients: int) -> None:
        self._selector = selectors.EpollSelector()
        self._connections = [_Connection(port) for _ in range(clients)]
        for connection in self._connections:
            self._selector.register(connection.socket, selectors.EVENT_READ, connection)

    def run(self, requests: Iterator[Request], seconds: float) -> Measured:
        """Send `requests` for so long. Raises: ConnectionError, TimeoutError"""
        latencies = array("q")
        clock = time.perf_counter_ns
        began_ns = clock()
        end_ns = began_ns + int(seconds * 1e9)
        for connection in self._connections:
            connection.send(next(requests))
        waiting = len(self._connections)
        while waiting:
            ready = self._selector.select(_TIMEOUT_S)
            if not ready:
                raise TimeoutError(f"no reply for {_TIMEOUT_S:g} s")
            for key, _ in ready:
                connection = key.data
                if not connection.receive():
                    continue
                now_ns = clock()
                if now_ns <= end_ns:
                    latencies.append(now_ns - connection.sent_ns)
                    connection.send(next(requests))
                else:
                    waiting -= 1
        return Measured(seconds, len(latencies), latencies, Counter())

    def close(self) -> None:
        """Drop the connections."""
        for connection in self._connections:
            connection.socket.close()
        self._selector.close()
