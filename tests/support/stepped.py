r"""A server in the test's own process, moved on step by step, with the clocks in the test's hand.

    with Stepped() as table:
        client = table.tcp()
        client.send(b'{"method": "size"}\n')
        table.settle()
        client.lines()              [{"status": "OK", "result": 0}]

The sockets are real, on loopback. The log is a list in memory, which also counts the commits.
"""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, cast

import msgspec
import zmq

from kvzmq import errors
from kvzmq.protocol.limits import REQUEST_BYTES_LIMIT
from kvzmq.server.access import Access
from kvzmq.server.loop import Server
from kvzmq.server.metrics import Metrics
from kvzmq.server.observer import Observer
from kvzmq.server.slow_log import SlowLog
from kvzmq.server.transport import Arrival
from kvzmq.server.transport.router import RouterTransport
from kvzmq.server.transport.tcp import TcpTransport
from kvzmq.server.zap import Zap
from kvzmq.store.log import SEMANTICS, Checkpoint, Log
from kvzmq.store.store import Store

DEADLINE_S = 60.0


class MemoryLog:
    """A log without a disk: every commit is one group of a list."""

    semantics = SEMANTICS
    block_s_max = 0.0

    def __init__(self) -> None:
        self.groups: list[bytes] = []
        self.full = False

    @property
    def group(self) -> int:
        return len(self.groups)

    def recover(self) -> Iterator[Checkpoint | bytes]:
        return iter(())

    def append(self, group: bytes) -> Sequence[bytes]:
        if self.full:
            raise errors.WriteRejected("not applied: no room")
        self.groups.append(group)
        return ()

    def resolve(self) -> Sequence[bytes]:
        raise AssertionError("no append to this log was unknown")

    def sync(self) -> None:
        pass

    def barrier(self) -> Sequence[bytes]:
        return ()

    def receive(self) -> Sequence[bytes]:
        return ()

    def descriptors(self) -> Sequence[int]:
        return ()

    def seal(self) -> int:
        return self.group

    def write_checkpoint(self, checkpoint: Checkpoint) -> None:
        raise AssertionError("nobody compacts this log")

    def truncate(self, group: int) -> None:
        raise AssertionError("nobody compacts this log")

    def close(self) -> None:
        pass


class TcpPeer:
    """A client of the bridge that does one thing at a time and never waits."""

    def __init__(self, port: int, receive_bytes: int | None = None) -> None:
        self.socket = socket.socket()
        if receive_bytes is not None:  # before connect: it bounds what the kernel takes for a peer that does not read
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.connect(("127.0.0.1", port))
        self.socket.setblocking(False)
        self.received = bytearray()
        self.ended = False

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def send_some(self, data: bytes) -> int:
        """Send what the kernel takes."""
        try:
            return self.socket.send(data)
        except BlockingIOError:
            return 0

    def finish(self) -> None:
        """Send no more."""
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Vanish with a RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def read(self) -> None:
        """Take in what has come."""
        while not self.ended:
            try:
                data = self.socket.recv(1 << 20)
            except BlockingIOError:
                return
            except ConnectionError:
                data = b""
            self.received += data
            self.ended = not data

    def lines(self) -> list[Any]:
        """Return the replies that have come whole, as JSON values."""
        self.read()
        whole, newline, rest = bytes(self.received).rpartition(b"\n")
        self.received = bytearray(rest)
        return [json.loads(line) for line in whole.split(b"\n")] if newline else []

    def close(self) -> None:
        self.socket.close()


class ZmqPeer:
    """A DEALER, or another socket, that never waits unless told to."""

    def __init__(self, context: zmq.Context[Any], url: str, kind: int = zmq.DEALER, **options: Any) -> None:
        self.socket = context.socket(kind)
        self.socket.linger = 0
        for name, value in options.items():
            setattr(self.socket, name, value)
        self.socket.connect(url)
        self.seq = 0
        self.session: bytes | None = None
        self.events: list[Any] = []  # those that came between replies

    def send(self, *ops: list[Any], seq: int | None = None, seen: int | None = None) -> int:
        self.seq = self.seq + 1 if seq is None else seq
        request = [self.session, self.seq, ops]
        self.socket.send(msgspec.msgpack.encode(request if seen is None else [*request, seen]))
        return self.seq

    def send_frames(self, *frames: bytes) -> None:
        self.socket.send_multipart(frames)

    def replies(self) -> list[Any]:
        """Return what has come, decoded: `[seq, revision, results]`."""
        found = []
        while self.socket.poll(0):
            found.append(msgspec.msgpack.decode(self.socket.recv()))
        return found

    def reply(self) -> Any:
        """Return the next message, or None."""
        return msgspec.msgpack.decode(self.socket.recv()) if self.socket.poll(0) else None

    def close(self) -> None:
        self.socket.close()


class Stepped:
    """A server, a step at a time.

    Args:
        group_commit: see Dispatcher
        trace: observes the server
        request_bytes_max: of both transports; by default what any server has ever taken
        log: not recovered; by default one in memory
        metrics: see Server
        slow_log: see Server
    """

    zap: Zap | None = None
    access: Access | None = None

    def __init__(
        self,
        group_commit: bool = True,
        trace: Observer | None = None,
        request_bytes_max: int = REQUEST_BYTES_LIMIT,
        log: Log | None = None,
        token: bytes | None = None,
        metrics: Metrics | None = None,
        slow_log: SlowLog | None = None,
    ) -> None:
        self.now_us = 1_000_000_000
        self.now_s = 100.0
        self.context: zmq.Context[Any] = zmq.Context()
        self.log = MemoryLog()
        self.store = Store(log or cast("Log", self.log), lambda: self.now_s)
        self.store.recover()
        self.router = self.make_router(request_bytes_max)
        self.bridge = TcpTransport(
            "127.0.0.1", 0, clock=lambda: self.now_s, request_bytes_max=request_bytes_max, token=token
        )
        self.server = Server(
            self.store, [self.router, self.bridge], group_commit=group_commit,
            observers=[] if trace is None else [trace],
            metrics=metrics,
            clock=lambda: self.now_us, monotonic=lambda: self.now_s, request_bytes_max=request_bytes_max,
            zap=self.zap, access=self.access, slow_log=slow_log,
        )  # fmt: skip
        self.url = self.router.endpoints[0]
        self._peers: list[TcpPeer | ZmqPeer] = []
        self._here, self._there = self.context.socket(zmq.PAIR), self.context.socket(zmq.PAIR)
        self._there.connect(f"tcp://127.0.0.1:{self._here.bind_to_random_port('tcp://127.0.0.1')}")
        self.await_libzmq()  # so that they are connected, also for tests that leave no descriptors

    def make_router(self, request_bytes_max: int) -> RouterTransport:
        return RouterTransport(self.context, ["tcp://127.0.0.1:0"], request_bytes_max)

    def tcp(self, receive_bytes: int | None = None) -> TcpPeer:
        """Return a new client of the bridge, already accepted."""
        before = self.bridge.stats()["tcp_connections_accepted"]
        peer = TcpPeer(self.bridge.port, receive_bytes)
        self._peers.append(peer)
        self.until(lambda: self.bridge.stats()["tcp_connections_accepted"] > before)
        return peer

    def zmq(self, kind: int = zmq.DEALER, *, url: str = "", **options: Any) -> ZmqPeer:
        """Return a new client of the ROUTER, at its first endpoint if no other is named."""
        peer = ZmqPeer(self.context, url or self.url, kind, **options)
        self._peers.append(peer)
        return peer

    def step(self) -> int:
        """Turn the loop once, waiting a few milliseconds at most."""
        taken = self.server.step(0.005)
        for transport in self.server.transports:  # they look after their peers in every step: the clock is ours
            transport.sweep()
        return taken

    def until(
        self,
        condition: Callable[[], object],
        timeout_s: float = DEADLINE_S,
        first: Callable[[], object] = lambda: None,
    ) -> None:
        """Turn the loop until `condition` holds; call `first` before each look at it."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            first()
            if condition():
                return
            assert time.monotonic() < deadline_s, "it did not come true in time"
            self.step()

    def settle(self) -> None:
        """Turn the loop until nothing comes any more."""
        quiet = 0
        while quiet < 4:
            self.await_libzmq()
            quiet = 0 if self.step() else quiet + 1
        self.await_libzmq()

    def await_libzmq(self) -> None:
        """Wait until libzmq's thread, which peers and server share, has moved what they had given it before.

        A frame goes there and back beside theirs. How long that takes is up to the machine: no time alone would tell.
        """
        for source, target in ((self._there, self._here), (self._here, self._there)):
            source.send(b"")
            assert target.poll(int(DEADLINE_S * 1000)), "libzmq's thread stands still"
            target.recv()

    def gather(self, count: int) -> None:
        """Make one step of the `count` requests that were sent, however they trickle in."""
        arrivals: list[Arrival] = []
        deadline_s = time.monotonic() + DEADLINE_S
        while len(arrivals) < count:
            assert time.monotonic() < deadline_s, f"{len(arrivals)} requests came, not {count}"
            for transport in self.server.transports:
                arrivals += transport.drain()
        assert len(arrivals) == count
        self.server.dispatcher.dispatch(arrivals)
        for transport in self.server.transports:
            transport.flush()

    def lines(self, peer: TcpPeer, count: int) -> list[Any]:
        """Turn the loop until `count` replies have come to a client of the bridge; return them."""
        found: list[Any] = []

        def enough() -> bool:
            found.extend(peer.lines())
            return len(found) >= count

        self.until(enough)
        return found

    def replies(self, peer: ZmqPeer, count: int = 1) -> list[Any]:
        """Turn the loop until `count` replies or events have come to a client of the ROUTER; return them."""
        found: list[Any] = []

        def enough() -> bool:
            found.extend(peer.replies())
            return len(found) >= count

        self.until(enough)
        return found

    def call(self, peer: ZmqPeer, *op: Any) -> tuple[int, Any]:
        """Execute one operation; returns the result's code and payload. Events go to `peer.events`."""
        seq = peer.send(list(op))
        deadline_s = time.monotonic() + DEADLINE_S
        while (message := peer.reply()) is None or message[0] == 0:
            assert time.monotonic() < deadline_s, "no reply in time"
            if message is None:
                self.step()
            else:
                peer.events.append(message)
        assert message[0] == seq, message
        (result,) = message[2]
        return tuple(result)

    def events(self, peer: ZmqPeer, count: int) -> list[Any]:
        """Turn the loop until `count` events have come; return these."""
        self.until(lambda: len(peer.events) >= count, first=lambda: peer.events.extend(peer.replies()))
        found, peer.events = peer.events[:count], peer.events[count:]
        return found

    def close(self) -> None:
        for peer in (*self._peers, self._here, self._there):
            peer.close()
        self.server.close()
        self.context.destroy(linger=0)

    def __enter__(self) -> Stepped:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
