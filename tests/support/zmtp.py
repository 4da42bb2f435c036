"""ZMTP 3.0 by hand, for peers that do not keep to it."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
from collections.abc import Callable, Sequence


def greeting(mechanism: bytes = b"NULL") -> bytes:
    """Return the 64 bytes each side begins with."""
    return b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + mechanism.ljust(20, b"\0") + bytes(32)


def frame(body: bytes, more: bool = False, command: bool = False, length: int | None = None) -> bytes:
    """Return a frame; `length` lies about the body's."""
    length = len(body) if length is None else length
    flags = more | command << 2
    if length < 256:
        return bytes([flags, length]) + body
    return bytes([flags | 2]) + struct.pack(">Q", length) + body


def ready(kind: bytes = b"DEALER", identity: bytes | None = None) -> bytes:
    """Return the command that ends a NULL handshake."""
    properties = b"\x0bSocket-Type" + struct.pack(">I", len(kind)) + kind
    if identity is not None:
        properties += b"\x08Identity" + struct.pack(">I", len(identity)) + identity
    return frame(b"\x05READY" + properties, command=True)


def connect(url: str) -> socket.socket:
    """Connect to a `tcp://` endpoint without saying a word."""
    host, _, port = url.removeprefix("tcp://").rpartition(":")
    return socket.create_connection((host, int(port)), timeout=60)


def shake_hands(url: str, kind: bytes = b"DEALER", identity: bytes | None = None) -> socket.socket:
    """Connect as a well-behaved peer does: nothing but the handshake is sent before the other side's is there."""
    peer = connect(url)
    peer.sendall(greeting() + ready(kind, identity))
    received = b""
    while b"ROUTER" not in received:
        part = peer.recv(4096)
        assert part, "the server did not shake hands"
        received += part
    return peer


INSTEAD_OF_A_HANDSHAKE = {
    "noise": bytes(range(256)) * 40,
    "zeros": bytes(10_000),
    "HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20,
    "TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "half a greeting": greeting()[:30],
    "greeting alone": greeting(),
    "unknown mechanism": greeting(b"KERBEROS") + ready(),
    "mechanism of control characters": greeting(b"\x01\x02\x03") + ready(),
    "CURVE to a NULL server": greeting(b"CURVE") + frame(b"\x05HELLO" + bytes(194), command=True),
    "old greeting": b"\x01\x00" + frame(b"hello"),
    "wrong socket type": greeting() + ready(b"PUB") + frame(b"hello"),
    "socket type of noise": greeting() + ready(b"\xff" * 200) + frame(b"hello"),
    "READY that lies about its lengths": greeting() + frame(b"\x05READY\x0bSocket-Type\x7f\xff\xff\xff", command=True),
    "message instead of READY": greeting() + frame(b"hello"),
    "message in a hurry": greeting() + ready() + frame(b"hello"),
    "READY of 16 exabytes": greeting() + frame(b"\x05READY", command=True, length=(1 << 64) - 1),
}
"""What a peer might send from the start, by name."""

AFTER_A_HANDSHAKE = {
    "commands of other times": frame(b"\x04PONG", command=True) + frame(b"\xffXYZ", command=True),
    "a second READY": ready(),
    "frame beyond the limit": frame(b"x" * 1000, length=1 << 40),
    "frame of 2^63-1": frame(b"x" * 1000, length=(1 << 63) - 1),
    "frame of 2^64-1": frame(b"x" * 1000, length=(1 << 64) - 1),
    "frame that never ends": frame(b"x" * 1000, length=1_000_000),
    "message that never ends": frame(b"x", more=True) * 1000,
    "reserved flags": b"\xf8\x05hello",
    "empty message": frame(b""),
    "noise": bytes(range(255, -1, -1)) * 40,
}
"""What a peer might send in the place of requests, by name."""


def send_mutated_handshakes(
    url: str, good: Sequence[bytes], number: int, dice: random.Random, meanwhile: Callable[[], None]
) -> None:
    """Connect `number` times, 50 at once, and send each time a part of a handshake with a few bytes changed.

    Args:
        good: handshakes, whole
        meanwhile: called after every twentieth
    """
    open_now: list[socket.socket] = []
    for turn in range(number):
        data = bytearray(dice.choice(good))
        for _ in range(dice.randrange(4)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        peer = connect(url)
        with contextlib.suppress(ConnectionError):
            peer.sendall(data[: dice.randrange(1, len(data) + 1)])
        open_now.append(peer)
        if len(open_now) > 50:
            open_now.pop(dice.randrange(len(open_now))).close()
        if turn % 20 == 0:
            meanwhile()
    for peer in open_now:
        peer.close()
