"""Peers of a server whose connections end in every state and way: raw ones, libzmq's own, and lines at the bridge.

Endings: `close`, `reset` (SO_LINGER 0), `half` (shutdown, then close), `kill` (the process that holds the connection
is killed).
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import signal
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
import zmq

from support import zmtp

PAGE = "page"
KILLED_TOGETHER = 25
"""How many connections a process holds that is killed."""

Peer = Any
Counts = Counter[str]


def request(*ops: list[Any], seq: int = 1) -> bytes:
    return msgspec.msgpack.encode([None, seq, list(ops)])


PING = zmtp.frame(request(["ping"]))
LOOKUP = zmtp.frame(request(["lookup", PAGE]))
PAGES = zmtp.frame(request(["items", "row/", None, 10_000]))
WATCH = zmtp.frame(request(["watch", ""]))


def _connect(url: str) -> socket.socket:
    peer = zmtp.connect(url)
    peer.setblocking(False)
    return peer


def send(peer: socket.socket, data: bytes) -> None:
    """Send what the kernel takes: who is not read from goes on without waiting."""
    with contextlib.suppress(OSError):
        while data:
            data = data[peer.send(data) :]


def _greeted(
    hello: bytes, *parts: bytes, read: bool = False, receive_bytes: int | None = None
) -> Callable[[str], socket.socket]:
    """Send a greeting, wait for the server's if there is more to say, as it takes nothing before it, then the rest."""

    def begin(url: str) -> socket.socket:
        peer = _connect(url)
        if receive_bytes is not None:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        send(peer, hello)
        if parts or read:
            _receive_until(peer, b"ROUTER")
        for part in parts:
            send(peer, part)
        if read and parts and select.select([peer], [], [], 0.05)[0]:
            with contextlib.suppress(OSError):
                peer.recv(4096)
        return peer

    return begin


def _receive_until(peer: socket.socket, mark: bytes) -> None:
    received = b""
    while mark not in received and select.select([peer], [], [], 1.0)[0]:
        with contextlib.suppress(BlockingIOError):
            part = peer.recv(4096)
            if not part:
                return
            received += part


_HELLO = zmtp.greeting() + zmtp.ready()
_NAMED = zmtp.greeting() + zmtp.ready(identity=b"the same")

RAW: dict[str, Callable[[str], socket.socket]] = {
    "connected": _greeted(b""),
    "half a greeting": _greeted(zmtp.greeting()[:11]),
    "greeting": _greeted(zmtp.greeting()),
    "half a READY": _greeted(zmtp.greeting() + zmtp.ready()[:9]),
    "READY, nothing read": _greeted(_HELLO),
    "hands shaken": _greeted(_HELLO, read=True),
    "half a frame": _greeted(_HELLO, PING[:7]),
    "half a frame's length": _greeted(_HELLO, zmtp.frame(bytes(1000))[:4]),
    "half a message": _greeted(_HELLO, zmtp.frame(b"id", more=True) * 3),
    "one request": _greeted(_HELLO, PING),
    "one reply read": _greeted(_HELLO, PING, read=True),
    "a full receive queue": _greeted(_HELLO, PING * 150),
    "a full receive queue, and half a frame": _greeted(_HELLO, PING * 120 + PING[:5]),
    "a full send queue": _greeted(_HELLO, LOOKUP * 40, receive_bytes=4096),
    "both queues full": _greeted(_HELLO, LOOKUP * 40 + PING * 150, receive_bytes=4096),
    "pages asked for, so that the loop is busy": _greeted(_HELLO, PAGES * 20),
    "a watch": _greeted(_HELLO, WATCH + PING, read=True),
    "a watch and a full queue": _greeted(_HELLO, WATCH * 3 + PING * 120, receive_bytes=4096),
    "an identity taken over": _greeted(_NAMED, PING * 40),
    "noise after the handshake": _greeted(_HELLO, bytes(range(255, -1, -1)) * 20),
    "noise instead of a handshake": _greeted(bytes(range(256)) * 4),
    "a frame beyond the limit": _greeted(_HELLO, zmtp.frame(b"x" * 100, length=1 << 40)),
    "a command of other times": _greeted(_HELLO, zmtp.frame(b"\x04PING\0\0", command=True) * 50),
}
"""What a raw peer does before it ends, by name."""

LINES: dict[str, bytes] = {
    "bridge: connected": b"",
    "bridge: half a line": b'{"method": ',
    "bridge: pipelined": b'{"method":"ping"}\n' * 200,
    "bridge: replies unread": b'{"method":"lookup","key":"page"}\n' * 60,
    "bridge: HTTP": b"POST / HTTP/1.1\r\n\r\n",
}


def _by_line(port: int, data: bytes) -> socket.socket:
    peer = socket.create_connection(("127.0.0.1", port), timeout=10)
    peer.setblocking(False)
    send(peer, data)
    return peer


def end(peer: socket.socket, ending: str) -> None:
    """End a connection in the way of that name."""
    with contextlib.suppress(OSError):
        if ending == "reset":
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif ending == "half":
            peer.shutdown(socket.SHUT_WR)
    peer.close()


# ---- peers of the server, libzmq's own

LIBZMQ: dict[str, tuple[int, dict[str, int], int, bytes]] = {
    "libzmq: connected": (zmq.DEALER, {}, 0, b""),
    "libzmq: one request": (zmq.DEALER, {}, 1, request(["ping"])),
    "libzmq: requests unanswered": (zmq.DEALER, {"sndhwm": 0}, 200, request(["ping"])),
    "libzmq: large replies unread": (zmq.DEALER, {"rcvhwm": 1, "rcvbuf": 4096}, 60, request(["lookup", PAGE])),
    "libzmq: a watch unread": (zmq.DEALER, {"rcvhwm": 1}, 3, request(["watch", ""])),
    "libzmq: a REQ": (zmq.REQ, {"req_correlate": 1, "req_relaxed": 1}, 3, request(["ping"])),
    "libzmq: probing": (zmq.DEALER, {"probe_router": 1}, 2, request(["ping"])),
}


def _by_libzmq(context: zmq.Context[Any], url: str, state: str) -> zmq.Socket[bytes]:
    kind, options, count, frame = LIBZMQ[state]
    peer: zmq.Socket[bytes] = context.socket(kind)
    peer.linger = 0
    for name, value in options.items():
        setattr(peer, name, value)
    peer.connect(url)
    with contextlib.suppress(zmq.Again):
        for _ in range(count):
            peer.send(frame, zmq.NOBLOCK)
    return peer


def _be_killed(url: str, port: int, seed: int) -> Counts:
    """Begin connections in a process of their own, and kill it."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        dice = random.Random(seed)
        counts: Counts = Counter()
        held: list[Peer] = []
        with contextlib.suppress(OSError, zmq.ZMQError):
            context = zmq.Context() if dice.random() < 0.3 else None
            for _ in range(KILLED_TOGETHER):
                if context is not None:
                    state = dice.choice(list(LIBZMQ))
                    held.append(_by_libzmq(context, url, state))
                elif dice.random() < 0.1:
                    state = dice.choice(list(LINES))
                    held.append(_by_line(port, LINES[state]))
                else:
                    state = dice.choice(list(RAW))
                    held.append(RAW[state](url))
                counts[f"{state} | kill"] += 1
            if context is not None:
                time.sleep(0.05)
        os.write(writer, json.dumps(counts).encode())
        os.close(writer)
        signal.pause()
    os.close(writer)
    with open(reader, "rb") as pipe:
        text = pipe.read()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return Counter(json.loads(text or b"{}"))


def attack_server(url: str, port: int, disconnects: int, seed: int) -> Counts:
    """Connect and end in every state and way."""
    dice = random.Random(seed)
    counts: Counts = Counter()
    context: zmq.Context[Any] | None = None
    held: list[tuple[Peer, str]] = []
    while counts.total() < disconnects:
        with contextlib.suppress(OSError):
            chance = dice.random()
            if chance < 0.25:
                if context is not None:
                    context.destroy(linger=0)
                    context = None
                counts += _be_killed(url, port, dice.randrange(1 << 30))
            elif chance < 0.35:
                context = context or zmq.Context()
                for state in LIBZMQ:
                    peer = _by_libzmq(context, url, state)
                    if dice.random() < 0.5:
                        peer.poll(20)
                    peer.close(linger=0)
                    counts[f"{state} | close"] += 1
            else:
                for _ in range(16):
                    if dice.random() < 0.1:
                        state = dice.choice(list(LINES))
                        held.append((_by_line(port, LINES[state]), state))
                    else:
                        state = dice.choice(list(RAW))
                        held.append((RAW[state](url), state))
                while len(held) > dice.choice((0, 16, 100)):
                    peer, state = held.pop(dice.randrange(len(held)))
                    ending = dice.choice(("close", "reset", "half"))
                    end(peer, ending)
                    counts[f"{state} | {ending}"] += 1
    for peer, _ in held:
        peer.close()
    if context is not None:
        context.destroy(linger=0)
    return counts
