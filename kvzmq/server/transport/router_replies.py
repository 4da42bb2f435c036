"""What the ROUTER keeps of the replies to its peers, by peer: those that wait, those in flight, those dropped.

libzmq's limits count messages and not bytes, and it does not say when a message has left. So a large message is
followed with pyzmq's tracker until it is on the wire, and the bytes in flight to one peer are bounded.

Nothing here lives longer than it must: a ROUTER is not told which peer has disconnected, so each kind has a bound of
its own. A record of each peer (its user, its address, its requests) would be kept beside these, by identity and with a
bound; `RouterTransport.drain` sees the first frame of a peer, with its metadata, and would begin it.
"""

from __future__ import annotations

from collections import deque

import zmq

from kvzmq.protocol import msgpack
from kvzmq.protocol.messages import Reply

QUEUED_MESSAGES_MAX = 1000
"""Replies that may wait for one peer; further ones are dropped, and the peer asks again."""

UNSENT_BYTES_MAX = 32 << 20
"""Bytes of large replies that may wait for one peer; further ones are dropped."""

_FOLLOWED_MIN = 64
"""How many peers are followed before those whose replies are all on the wire are looked for."""

_REMEMBERED_MAX = 1024
"""Of how many peers the replies dropped are remembered."""

Peer = tuple[bytes, tuple[bytes, ...], str]
"""The identity; the envelope: the frames before the request up to the empty one, as REQ sockets and proxies
put them, empty for a DEALER that sends the request alone; and the public key that it has shown, "" without CURVE."""


class ReplyQueue:
    """The replies of one peer from the first large one on that is not in flight yet, in order."""

    __slots__ = ("large_bytes", "replies")

    def __init__(self) -> None:
        self.replies: deque[tuple[Peer, Reply | bytes]] = deque()  # large ones are encoded in their turn
        self.large_bytes = 0

    def put(self, peer: Peer, reply: Reply, large_bytes: int) -> None:
        """Queue a reply, whose length is 0 unless it is large."""
        self.replies.append((peer, reply if large_bytes else msgpack.encode_reply(reply)))
        self.large_bytes += large_bytes

    def take(self) -> tuple[Peer, bytes, bool]:
        """Return the next reply, encoded, and whether it is large."""
        peer, reply = self.replies.popleft()
        if isinstance(reply, bytes):
            return peer, reply, False
        self.large_bytes -= len(reply.results)
        return peer, msgpack.encode_reply(reply), True


class InFlight:
    """Large messages that libzmq has taken and not written yet, by the identity of their peer."""

    def __init__(self) -> None:
        self.messages: dict[bytes, deque[tuple[zmq.MessageTracker, int]]] = {}
        self._look_through_at = _FOLLOWED_MIN

    def follow(self, identity: bytes, tracker: zmq.MessageTracker, length: int) -> None:
        """Count a message until its tracker says that it is on the wire."""
        self.messages.setdefault(identity, deque()).append((tracker, length))

    def length(self, identity: bytes) -> int:
        """Return how many bytes of large messages are on their way to a peer."""
        return sum(size for tracker, size in self.messages.get(identity, ()) if not tracker.done)

    def has_room(self, identity: bytes, length: int) -> bool:
        """Say whether the peer may be sent so many bytes more, and forget those that are on the wire."""
        if len(self.messages) > self._look_through_at:
            self._look_through()
        messages = self.messages.get(identity)
        if messages is None:
            return length <= UNSENT_BYTES_MAX
        while messages and messages[0][0].done:
            messages.popleft()
        if not messages:
            del self.messages[identity]
        return sum(size for _, size in messages) + length <= UNSENT_BYTES_MAX

    def _look_through(self) -> None:
        """Forget the peers all of whose messages are on the wire.

        A tracker takes 3 KB, so peers that have left must not keep theirs. Looking when there are twice as many as
        after the last look costs each reply a constant amount.
        """
        for identity in [each for each, messages in self.messages.items() if messages[-1][0].done]:
            del self.messages[identity]
        self._look_through_at = 2 * len(self.messages) + _FOLLOWED_MIN


class DroppedReplies:
    """How many replies were dropped, by the name of their peer, the latest peers last."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def add(self, name: str) -> None:
        """Count one more."""
        self.counts[name] = self.counts.pop(name, 0) + 1
        if len(self.counts) > _REMEMBERED_MAX:
            del self.counts[next(iter(self.counts))]
