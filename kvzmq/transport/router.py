"""The ROUTER socket: one MessagePack frame a message, replies by identity.

What libzmq does not do by itself is done here: a reply to a peer that is gone or does not read is
counted instead of lost unseen, and the bytes on their way to one peer are bounded. libzmq's own
limits count messages.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Hashable, Sequence
from typing import cast

import zmq

from kvzmq import codec, errors
from kvzmq.messages import MESSAGE_BYTES_MAX, Refusal, Reply, Request
from kvzmq.transport import STEP_BYTES_MAX, Arrival

REQUESTS_MAX = 1024
"""How many requests one step takes in."""

QUEUED_MESSAGES_MAX = 1000
"""Replies that may wait for one peer; further ones are dropped, and the peer asks again."""

RECEIVED_MESSAGES_MAX = 100
"""Requests of one peer that libzmq holds for the loop; then TCP makes the peer wait."""

TRACKED_BYTES_MIN = 16 << 10
"""From this length on a reply is followed until it is sent."""

UNSENT_BYTES_MAX = 32 << 20
"""Bytes of such replies that may wait for one peer; further ones are dropped."""

_MORE = int(zmq.SNDMORE | zmq.NOBLOCK)  # plain integers: an "or" or "and" of enumerations costs 0.4 to 0.7 us
_POLLIN = int(zmq.POLLIN)

_LEDGER_MAX = 1024
"""How many peers the ledger of undelivered replies remembers."""

_FOLLOWED_MIN = 64
"""How many peers are followed before those whose replies are all on the wire are looked for."""

Peer = tuple[bytes, bool]
"""The identity, and whether an empty delimiter stood before the request, as a REQ socket puts it."""

_OPTIONS: tuple[tuple[int, int], ...] = (
    (zmq.ROUTER_MANDATORY, 1),
    (zmq.SNDHWM, QUEUED_MESSAGES_MAX),
    (zmq.RCVHWM, RECEIVED_MESSAGES_MAX),
    (zmq.LINGER, 200),  # ms: a clean stop still delivers the replies of its last step
    (zmq.HANDSHAKE_IVL, 5000),
    (zmq.HEARTBEAT_IVL, 2000),
    (zmq.HEARTBEAT_TIMEOUT, 6000),
    (zmq.HEARTBEAT_TTL, 6000),
    (zmq.BACKLOG, 1024),
    (zmq.MAXMSGSIZE, MESSAGE_BYTES_MAX),
)


class RouterTransport:
    """A ROUTER socket bound to one or more endpoints.

    Args:
        context: the ZeroMQ context
        endpoints: `tcp://HOST:PORT` or `ipc://PATH`; port 0 takes a free one

    Raises:
        CannotListen: an endpoint is in use or malformed
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], endpoints: Sequence[str]) -> None:
        self._socket = context.socket(zmq.ROUTER)
        self._unsent: dict[bytes, deque[tuple[zmq.MessageTracker, int]]] = {}
        self._look_through_at = _FOLLOWED_MIN
        self._undelivered: dict[str, int] = {}
        # Small replies wait for the end of the step: libzmq's thread is then woken once, not for each.
        self._queued: list[tuple[Peer, bytes]] = []
        self._counts = {"replies_to_the_gone": 0, "replies_to_the_stuck": 0, "events": 0}
        self._socket.copy_threshold = 0  # else pyzmq copies messages below 64 KiB and calls them sent at once
        for option, value in _OPTIONS:
            self._socket.setsockopt(option, value)
        self.endpoints = []
        try:
            for endpoint in endpoints:
                self.endpoints.append(self._bind(endpoint))
        except errors.CannotListen:
            self._socket.close(linger=0)
            raise

    def _bind(self, endpoint: str) -> str:
        umask = os.umask(0o077)  # an ipc socket is for its owner alone
        try:
            self._socket.bind(endpoint)
        except zmq.ZMQError as error:
            number = error.errno or 0
            advice = {
                errno.EADDRINUSE: "it is in use; stop the other server or choose another --bind (port 0 takes a free one)",
                errno.ENODEV: "no such address on this machine",
                errno.EADDRNOTAVAIL: "no such address on this machine",
                errno.ENOENT: "there is no such directory",
                errno.EACCES: "no permission",
                errno.ENAMETOOLONG: "the path is too long for a socket, about 100 bytes",
            }.get(number, f"{zmq.strerror(number)}; an endpoint looks like tcp://127.0.0.1:5570 or ipc:///run/kvzmq.sock")
            raise errors.CannotListen(f"cannot listen on {endpoint}: {advice}") from error
        finally:
            os.umask(umask)
        return self._socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def register(self, poller: zmq.Poller) -> object:
        poller.register(self._socket, zmq.POLLIN)
        return self._socket

    def drain(self) -> list[Arrival]:
        arrivals: list[Arrival] = []
        taken_bytes = 0
        receive = self._socket.recv
        while len(arrivals) < REQUESTS_MAX and taken_bytes < STEP_BYTES_MAX:
            try:
                identity = receive(zmq.NOBLOCK)
            except zmq.Again:
                break
            part = receive(copy=False)  # a message is there as a whole; asking the socket for RCVMORE costs 0.8 us
            frame = part.bytes
            delimited = part.more and not frame
            if delimited:
                part = receive(copy=False)
                frame = part.bytes
            request: Request | Refusal
            if part.more:
                self._discard_rest()
                request = Refusal(None, errors.InvalidRequest.code, "a request is one frame")
            else:
                request = codec.decode_request(frame)
            taken_bytes += len(frame)
            arrivals.append(Arrival(self, (identity, delimited), request))
            if len(arrivals) == 1 and not int(self._socket.getsockopt(zmq.EVENTS)) & _POLLIN:
                break  # a single request, the case where latency counts: asking costs less than zmq.Again
        return arrivals

    def _discard_rest(self) -> None:
        while self._socket.getsockopt(zmq.RCVMORE):
            self._socket.recv()

    def pending(self) -> bool:
        return False

    def send(self, peer: Hashable, reply: Reply) -> None:
        frame = codec.encode_reply(reply)
        self._queued.append((cast(Peer, peer), frame))
        if len(frame) >= TRACKED_BYTES_MIN:
            self.flush()  # large replies leave one by one: a step may have a thousand of them

    def flush(self) -> None:
        queued, self._queued = self._queued, []
        for peer, frame in queued:
            try:
                if not self._send(peer, frame):
                    self._lost(peer, "replies_to_the_stuck")
            except errors.PeerGone:
                self._lost(peer, "replies_to_the_gone")

    def push(self, peer: Hashable, event: bytes) -> bool:
        self.flush()  # the reply that began the watch comes first
        sent = self._send(cast(Peer, peer), event)
        self._counts["events"] += sent
        return sent

    def _send(self, peer: Peer, frame: bytes) -> bool:
        """Send a frame to a peer; False if too much waits for it already."""
        identity, delimited = peer
        tracked = len(frame) >= TRACKED_BYTES_MIN
        if tracked and not self._has_room(identity, len(frame)):
            return False
        try:
            self._socket.send(identity, _MORE)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            raise errors.PeerGone("the peer has disconnected") from None
        if delimited:
            self._socket.send(b"", _MORE)
        if tracked:
            tracker = self._socket.send(frame, zmq.NOBLOCK, copy=False, track=True)
            self._unsent.setdefault(identity, deque()).append((tracker, len(frame)))
        else:
            self._socket.send(frame, zmq.NOBLOCK)
        return True

    def _has_room(self, identity: bytes, length: int) -> bool:
        """Say whether the peer may be sent a large reply, and forget those that are on the wire."""
        if len(self._unsent) > self._look_through_at:
            # A tracker takes 3 KB, so peers that have left must not keep theirs. Looking when there are twice as
            # many as after the last look costs each reply a constant amount.
            for other in [i for i, waiting in self._unsent.items() if waiting[-1][0].done]:
                del self._unsent[other]
            self._look_through_at = 2 * len(self._unsent) + _FOLLOWED_MIN
        waiting = self._unsent.get(identity)
        if waiting is None:
            return True
        while waiting and waiting[0][0].done:
            waiting.popleft()
        if not waiting:
            del self._unsent[identity]
            return True
        return sum(size for _, size in waiting) + length <= UNSENT_BYTES_MAX

    def _lost(self, peer: Peer, why: str) -> None:
        self._counts[why] += 1
        name = self.name(peer)
        self._undelivered[name] = self._undelivered.pop(name, 0) + 1
        if len(self._undelivered) > _LEDGER_MAX:
            del self._undelivered[next(iter(self._undelivered))]

    @property
    def undelivered(self) -> dict[str, int]:
        """The replies that could not be delivered, by peer, the latest peers last."""
        return self._undelivered

    def name(self, peer: Hashable) -> str:
        return "zmq:" + cast(Peer, peer)[0].hex()[-8:]

    def stats(self) -> dict[str, int]:
        return {f"router_{name}": count for name, count in self._counts.items()}

    def close(self) -> None:
        self._socket.close()
