"""A process full of clients that come and go in every way but the polite one, and in that one too.

    python -m support.churner URL PORT SEED COUNTERS SLOT

It goes on until it is killed. COUNTERS is a file of 64-bit integers, of which two at SLOT are this
process's: how often it connected, and how many requests it sent.
"""

from __future__ import annotations

import contextlib
import mmap
import random
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

import msgspec
import zmq

from support import zmtp

OPEN_MAX = 40
"""How many clients are connected at a time."""

PAGE = "page"
"""A key with a large value, for those who ask and do not read."""


class Churner:
    """Connects and leaves."""

    def __init__(self, url: str, port: int, seed: int, counters: str, slot: int) -> None:
        self.url = url
        self.port = port
        self.dice = random.Random(seed)
        self.context: zmq.Context[Any] = zmq.Context()
        with open(counters, "r+b") as file:
            self.counters = mmap.mmap(file.fileno(), 0)
        self.slot = slot
        self.connects = 0
        self.requests = 0
        self.open: list[Callable[[], object]] = []  # how each connected client leaves
        self.ways = [
            self.dealer, self.dealer, self.hurried_dealer, self.deaf_dealer, self.mute_dealer, self.watcher, self.req,
            self.dealer_of_noise, self.dealer_of_many_frames, self.stranger, self.early_leaver,
            self.line_client, self.line_client, self.half_a_line, self.resetter, self.deaf_line_client,
            self.half_closer, self.long_line, self.browser, self.mute_line_client,
        ]  # fmt: skip

    def run(self) -> None:
        while True:
            way = self.dice.choice(self.ways)
            with contextlib.suppress(OSError, zmq.ZMQError, TimeoutError):
                leave = way()
                if leave is not None:
                    self.open.append(leave)
                self.connects += 1
            while len(self.open) > OPEN_MAX:
                with contextlib.suppress(OSError, zmq.ZMQError):
                    self.open.pop(self.dice.randrange(len(self.open)))()
            struct.pack_into("<qq", self.counters, 16 * self.slot, self.connects, self.requests)

    # ---- ZeroMQ

    def request(self) -> bytes:
        self.requests += 1
        key = f"churn/{self.dice.randrange(200)}"
        op = self.dice.choice([
            ["insert", key, {"n": self.dice.randrange(100), "pad": "x" * self.dice.randrange(2000)}], ["lookup", key],
            ["remove", key], ["size"], ["query", "n", 7], ["keys", "churn/"], ["stats"], ["ping"], ["frobnicate"],
        ])  # fmt: skip
        return msgspec.msgpack.encode([None, 1 + self.dice.randrange(9), [op]])

    def zmq(self, kind: int = zmq.DEALER) -> zmq.Socket[bytes]:
        sock: zmq.Socket[bytes] = self.context.socket(kind)
        sock.linger = 0
        sock.rcvhwm = 1
        sock.connect(self.url)
        return sock

    def dealer(self) -> Callable[[], object]:
        sock = self.zmq()
        for _ in range(self.dice.randrange(1, 5)):
            sock.send(self.request())
            if sock.poll(2000):
                sock.recv()
        return sock.close

    def hurried_dealer(self) -> Callable[[], object] | None:
        sock = self.zmq()
        for _ in range(self.dice.randrange(1, 50)):
            sock.send(self.request(), zmq.NOBLOCK)
        time.sleep(0.001)
        sock.close()
        return None

    def deaf_dealer(self) -> Callable[[], object]:
        sock = self.zmq()
        for _ in range(60):
            self.requests += 1
            sock.send(msgspec.msgpack.encode([None, 1, [["lookup", PAGE]]]), zmq.NOBLOCK)
        return sock.close

    def mute_dealer(self) -> Callable[[], object]:
        return self.zmq().close

    def watcher(self) -> Callable[[], object]:
        sock = self.zmq()
        self.requests += 1
        sock.send(msgspec.msgpack.encode([None, 1, [["watch", self.dice.choice(["", "churn/1", "nothing/"])]]]))
        return sock.close

    def req(self) -> Callable[[], object]:
        sock = self.zmq(zmq.REQ)
        sock.send(self.request())
        if sock.poll(self.dice.choice([0, 2000])):
            sock.recv()
        return sock.close

    def dealer_of_noise(self) -> Callable[[], object]:
        sock = self.zmq()
        for _ in range(10):
            self.requests += 1
            sock.send(self.dice.randbytes(self.dice.randrange(100)))
        return sock.close

    def dealer_of_many_frames(self) -> Callable[[], object]:
        sock = self.zmq()
        sock.send_multipart([self.dice.randbytes(5) for _ in range(self.dice.randrange(2, 30))])
        return sock.close

    def stranger(self) -> Callable[[], object]:
        peer = zmtp.connect(self.url)
        peer.sendall(self.dice.choice(list(zmtp.INSTEAD_OF_A_HANDSHAKE.values())))
        return peer.close

    def early_leaver(self) -> None:
        zmtp.connect(self.url).close()

    # ---- the bridge

    def tcp(self, data: bytes = b"") -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=5)
        sock.sendall(data)
        return sock

    def line(self) -> bytes:
        self.requests += 1
        key = b"churn/%d" % self.dice.randrange(200)
        return self.dice.choice([
            b'{"method": "insert", "key": "%s", "value": {"n": 7}}\n' % key,
            b'{"method": "lookup", "key": "%s"}\n' % key, b'{"method": "remove", "key": "%s"}\n' % key,
            b'{"method": "size"}\n', b'{"method": "frobnicate"}\n',
            b'{"method": "query", "subkey": "n", "subvalue": 7}\n', b"\x00\xff\xfe\n", b"\n",
        ])  # fmt: skip

    def leave_somehow(self, sock: socket.socket) -> Callable[[], object]:
        return self.dice.choice([sock.close, lambda: _reset(sock)])

    def line_client(self) -> Callable[[], object]:
        sock = self.tcp()
        with sock.makefile("rb") as replies:
            for _ in range(self.dice.randrange(1, 10)):
                sock.sendall(self.line())
                replies.readline()
        return self.leave_somehow(sock)

    def half_a_line(self) -> Callable[[], object]:
        line = self.line()
        return self.leave_somehow(self.tcp(line[: self.dice.randrange(len(line))]))

    def resetter(self) -> Callable[[], object] | None:
        sock = self.tcp(b"".join(self.line() for _ in range(200)))
        if self.dice.random() < 0.5:
            sock.recv(100)
        _reset(sock)
        return None

    def deaf_line_client(self) -> Callable[[], object]:
        self.requests += 60
        return self.leave_somehow(self.tcp(b'{"method": "lookup", "key": "%s"}\n' % PAGE.encode() * 60))

    def half_closer(self) -> Callable[[], object]:
        sock = self.tcp(self.line() * 20 + self.line()[:-5])
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(65536):
            pass
        return sock.close

    def long_line(self) -> Callable[[], object]:
        return self.leave_somehow(self.tcp(b'{"method": "' + b"x" * 300_000))

    def browser(self) -> Callable[[], object]:
        return self.leave_somehow(self.tcp(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"))

    def mute_line_client(self) -> Callable[[], object]:
        return self.leave_somehow(self.tcp())


def _reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


if __name__ == "__main__":
    Churner(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], int(sys.argv[5])).run()
