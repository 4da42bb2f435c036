"""A server, for a client, whose connections end in every state and way: see ending_peers for the ways."""

from __future__ import annotations

import contextlib
import random
import socket
import time
from collections import Counter
from collections.abc import Callable

import msgspec

from support import zmtp
from support.ending_peers import Counts, end, send

AS_ROUTER = zmtp.greeting() + zmtp.ready(b"ROUTER")
_REPLY = zmtp.frame(msgspec.msgpack.encode([1, 0, [[0, None]]]))
_EVENT = zmtp.frame(msgspec.msgpack.encode([0, 1, [1, 0, ["k", [1]]]]))
FLOOD = _REPLY * 30_000

SERVERS: dict[str, bytes] = {
    "accepted": b"",
    "half a greeting": zmtp.greeting()[:11],
    "greeting": zmtp.greeting(),
    "half a READY": (zmtp.greeting() + zmtp.ready(b"ROUTER"))[:70],
    "READY": AS_ROUTER,
    "half a reply": AS_ROUTER + _REPLY[:5],
    "a reply": AS_ROUTER + _REPLY,
    "events": AS_ROUTER + _EVENT * 200,
    "a full receive queue": AS_ROUTER + FLOOD,
    "a full receive queue, and half a frame": AS_ROUTER + FLOOD + _REPLY[:5],
    "half a message": AS_ROUTER + zmtp.frame(b"x", more=True) * 5,
    "noise": bytes(range(256)) * 10,
    "noise after the handshake": AS_ROUTER + bytes(range(255, -1, -1)) * 20,
    "a frame beyond the limit": AS_ROUTER + zmtp.frame(b"x" * 100, length=1 << 40),
    "another kind of socket": zmtp.greeting() + zmtp.ready(b"PUB"),
    "HTTP": b"HTTP/1.1 400 Bad Request\r\n\r\n",
}
"""What a server does before it ends, by name."""


class _Held:
    """A client's connection to a bad server."""

    def __init__(self, peer: socket.socket, state: str, stays_s: float) -> None:
        self.peer = peer
        self.state = state
        self.left = SERVERS[state]
        self.until_s = time.monotonic() + stays_s
        self.greeted = not self.left.startswith(AS_ROUTER)
        peer.setblocking(False)
        if not self.greeted:
            send(peer, AS_ROUTER)
            self.left = self.left[len(AS_ROUTER) :]

    def go_on(self) -> None:
        """Say what is left to say, once the client has greeted us: it takes nothing before."""
        with contextlib.suppress(OSError):
            if not self.greeted:
                self.greeted = b"DEALER" in self.peer.recv(4096)
            while self.greeted and self.left:
                self.left = self.left[self.peer.send(self.left[: 1 << 20]) :]


def attack_client(listener: socket.socket, disconnects: int, seed: int, alive: Callable[[], bool]) -> Counts:
    """Be a bad server to everyone who connects."""
    dice = random.Random(seed)
    counts: Counts = Counter()
    listener.settimeout(0.003)
    held: list[_Held] = []
    while counts.total() < disconnects and alive():
        with contextlib.suppress(TimeoutError):
            peer, _ = listener.accept()
            state = dice.choice(list(SERVERS))
            full = state.startswith("a full")
            held.append(_Held(peer, state, dice.choice((0.1, 0.5)) if full else dice.choice((0.0, 0.0, 0.003, 0.03))))
        now_s = time.monotonic()
        for one in list(held):
            one.go_on()
            if one.until_s <= now_s:
                held.remove(one)
                ending = dice.choice(("close", "reset", "half"))
                end(one.peer, ending)
                counts[f"client, {one.state} | {ending}"] += 1
    for one in held:
        one.peer.close()
    return counts
