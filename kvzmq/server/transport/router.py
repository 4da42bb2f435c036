"""The ROUTER socket: one MessagePack frame a message, replies by identity.

What libzmq does not do by itself is done here: a reply to a peer that has disconnected or does not read
is counted instead of lost unseen, the bytes in flight to one peer are bounded, and so is what a step
spends on large replies. libzmq's own limits count messages.

No HEARTBEAT_IVL, here or on any socket: when a receive queue is full and the connection breaks, the
heartbeat writes to an engine that has failed, and libzmq aborts the process (libzmq issue 3937). A
peer whose machine has vanished is noticed by TCP's keepalive and TCP_MAXRT instead.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import time
from collections.abc import Hashable, Sequence
from typing import Any, cast

import zmq

from kvzmq import errors
from kvzmq.protocol import msgpack
from kvzmq.protocol.limits import LARGE_BYTES_MIN, REQUEST_BYTES_MAX
from kvzmq.protocol.messages import LargeResults, Refusal, Reply, Request
from kvzmq.server.transport import STEP_BYTES_MAX, STEP_REPLY_BYTES_MAX, STEP_WEIGHT_MAX, Arrival
from kvzmq.server.transport.curve import Curve, user_of
from kvzmq.server.transport.listen import bind, unlink
from kvzmq.server.transport.router_monitor import ConnectionMonitor
from kvzmq.server.transport.router_peers import NOTE_S, RouterPeers
from kvzmq.server.transport.router_replies import QUEUED_MESSAGES_MAX, DroppedReplies, InFlight, Peer, ReplyQueue

REQUESTS_MAX = 1024
"""How many requests one step takes in."""

RECEIVED_MESSAGES_MAX = 32
"""Requests of one peer that libzmq holds for the loop; then TCP makes the peer wait."""

IDENTITY_BYTES_MAX = 255
"""The longest identity, ZMTP's own limit; libzmq takes longer ones, and what they ask for is refused here."""

ENVELOPE_FRAMES_MAX = 16
"""How many frames may stand before a request, the empty one that ends them included."""

ENVELOPE_BYTES_MAX = 4096
"""How many bytes they may have."""

KEEPALIVE_IDLE_S, KEEPALIVE_INTERVAL_S, KEEPALIVE_PROBES = 4, 2, 3
"""When an idle connection is first probed, how often, and how many probes in vain end it: after 10 s in all."""

UNACKNOWLEDGED_MS_MAX = 10_000
"""How long the other machine's kernel may leave bytes on their way to it unacknowledged, or take none."""

ASKED_MAX = 4
"""Up to how many requests `drain` asks whether there is another one. To ask costs 0.6 us, to be told by zmq.Again
3.4 us, which many requests share."""

_NOBLOCK = int(zmq.NOBLOCK)
_MORE = int(zmq.SNDMORE | zmq.NOBLOCK)  # plain integers: an "or" or "and" of enumerations costs 0.4 to 0.7 us

_OPTIONS: tuple[tuple[int, int], ...] = (
    (zmq.ROUTER_MANDATORY, 1),
    # A client that comes back under its own identity is served at once. Without, libzmq 4.3.5 takes its first
    # request for its name when the old connection is not quite gone, and never answers: 1 of 5 reconnects here.
    (zmq.ROUTER_HANDOVER, 1),
    (zmq.SNDHWM, QUEUED_MESSAGES_MAX),
    (zmq.RCVHWM, RECEIVED_MESSAGES_MAX),
    (zmq.LINGER, 2000),  # ms: a clean stop still delivers the replies of its last step, also on a busy machine
    (zmq.HANDSHAKE_IVL, 5000),
    (zmq.TCP_KEEPALIVE, 1),
    (zmq.TCP_KEEPALIVE_IDLE, KEEPALIVE_IDLE_S),
    (zmq.TCP_KEEPALIVE_INTVL, KEEPALIVE_INTERVAL_S),
    (zmq.TCP_KEEPALIVE_CNT, KEEPALIVE_PROBES),
    (zmq.TCP_MAXRT, UNACKNOWLEDGED_MS_MAX),
    (zmq.BACKLOG, 1024),
)


def _seed_identities() -> None:
    """Make libzmq number anonymous peers from a number that nobody can guess.

    It takes the first number from C's rand(), unseeded, and aborts the process when a peer has claimed the
    next one for itself.
    """
    ctypes.CDLL(None).srand(int.from_bytes(os.urandom(4), "little"))


class RouterTransport:
    """A ROUTER socket bound to one or more endpoints.

    Args:
        context: the ZeroMQ context
        endpoints: `tcp://HOST:PORT` or `ipc://PATH`; port 0 takes a free one
        request_bytes_max: the longest request; a longer one costs its sender the connection
        curve: keys and rights of clients; None to serve every client, unencrypted

    Raises:
        CannotListen: an endpoint is in use or malformed
    """

    kind = "router"

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoints: Sequence[str],
        request_bytes_max: int = REQUEST_BYTES_MAX,
        curve: Curve | None = None,
    ) -> None:
        _seed_identities()
        self._socket = context.socket(zmq.ROUTER)
        self._asked = [(self._socket, int(zmq.POLLIN))]
        self._send_frame = super(zmq.Socket, self._socket).send  # without pyzmq's part in Python: 0.2 us a frame
        self._receive = self._socket.recv  # looked up once: an attribute of pyzmq's socket takes 2,000 instructions
        # Small replies wait for the end of the step: libzmq's thread is then woken once, not for each.
        self._small: list[tuple[Peer, bytes]] = []
        self._queues: dict[bytes, ReplyQueue] = {}  # by identity
        self._in_flight = InFlight()
        self._dropped = DroppedReplies()
        self._peers = RouterPeers(self.name)
        self._unnoted = 0  # requests that have come since peers were noted last
        self._note_s = self.drained_s = 0.0
        self._counts = {
            "replies_dropped_disconnected": 0,
            "replies_dropped_backpressure": 0,
            "events_sent": 0,
            "connections_kicked": 0,
        }
        self._salt = os.urandom(16)
        self._curve = curve
        self._socket.copy_threshold = 0  # else pyzmq copies messages below 64 KiB and calls them sent at once
        for option, value in (*_OPTIONS, (zmq.MAXMSGSIZE, request_bytes_max)):
            self._socket.setsockopt(option, value)
        if curve is not None:
            curve.prepare(self._socket)
        self._monitor = ConnectionMonitor(context, self._socket)
        self.endpoints = []
        try:
            for number, endpoint in enumerate(endpoints):
                if curve is not None:
                    curve.use_key(self._socket, number)
                self.endpoints.append(bind(self._socket, endpoint))
        except errors.CannotListen:
            self.close()
            raise

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return self._monitor.count()

    # ---- in

    def register(self, poller: zmq.Poller) -> object:
        poller.register(self._socket, zmq.POLLIN)
        return self._socket

    def drain(self) -> list[Arrival]:
        arrivals: list[Arrival] = []
        taken_bytes = weight = requests = 0
        receive = self._receive
        probe: zmq.Frame | None = None
        while requests < REQUESTS_MAX and taken_bytes < STEP_BYTES_MAX and weight < STEP_WEIGHT_MAX:
            try:
                identity = receive(_NOBLOCK)
            except zmq.Again:
                break
            requests += 1
            part = receive(copy=False)  # a message is there as a whole; asking the socket for RCVMORE costs 0.8 us
            frame = part.bytes
            envelope: tuple[bytes, ...] = ()
            request: Request | Refusal | None
            if part.more or not frame:
                envelope, request = self._open_envelope(part)
                if request is None:
                    probe = part
                    continue
            else:
                request = msgpack.decode_request(frame)
            if len(identity) > IDENTITY_BYTES_MAX:
                request = _refusal(f"an identity has {IDENTITY_BYTES_MAX} bytes at most: leave it to ZeroMQ")
            user = ""
            if self._curve is not None:
                user = user_of(part)
                request = self._curve.admit(user, request)
            if isinstance(request, Request):
                taken_bytes += len(request.frame)
                weight += request.weight
            else:
                taken_bytes += len(frame)
            arrivals.append(Arrival(self, (identity, envelope, user), request))
            if requests <= ASKED_MAX and not zmq.zmq_poll(self._asked, 0):  # getsockopt(EVENTS) takes 2.8 us
                break
        self._unnoted += requests
        if arrivals:
            self.drained_s = time.perf_counter()
        if arrivals and part is not probe and self.drained_s >= self._note_s:
            self._peers.note(arrivals, part, self._unnoted)
            self._unnoted, self._note_s = 0, self.drained_s + NOTE_S
        return arrivals

    def sweep(self) -> None:
        self._monitor.read()

    def _open_envelope(self, part: zmq.Frame) -> tuple[tuple[bytes, ...], Request | Refusal | None]:
        """Read a message that is more than a request: its envelope, and the request, None if it was only a probe."""
        envelope: list[bytes] = []
        envelope_bytes = 0
        while frame := part.bytes:
            envelope.append(frame)
            envelope_bytes += len(frame)
            if not part.more:
                return (), _refusal("a request is one frame, or one after an envelope that ends with an empty frame")
            if len(envelope) == ENVELOPE_FRAMES_MAX or envelope_bytes > ENVELOPE_BYTES_MAX:
                self._discard_rest(part)
                return (), _refusal(
                    f"a request is one frame, after an envelope of {ENVELOPE_FRAMES_MAX} frames and "
                    f"{ENVELOPE_BYTES_MAX} bytes at most"
                )
            part = self._socket.recv(copy=False)
        envelope.append(b"")
        if not part.more:
            return (), None  # PROBE_ROUTER's empty message, which may have come through a proxy
        part = self._socket.recv(copy=False)
        if part.more:
            self._discard_rest(part)
            return tuple(envelope), _refusal("a request is one frame")
        return tuple(envelope), msgpack.decode_request(part.bytes)

    def _discard_rest(self, part: zmq.Frame) -> None:
        while part.more:
            part = self._socket.recv(copy=False)

    def pending(self) -> bool:
        return bool(self._queues)

    # ---- out

    def send(self, peer: Any, reply: Reply) -> None:  # a Peer; to cast it would be a call for each reply
        results = reply.results
        large = isinstance(results, LargeResults) or len(results) >= LARGE_BYTES_MIN
        if not large and peer[0] not in self._queues:
            self._small.append((peer, msgpack.encode_reply(reply)))
        else:
            queue = self._queues.get(peer[0]) or ReplyQueue()
            self._queue(peer, reply, queue, len(results) if large else 0)

    def _queue(self, peer: Peer, reply: Reply, queue: ReplyQueue, large_bytes: int) -> None:
        """Queue a reply that must wait for its turn, or drop it if the peer has too many unread."""
        has_room = len(queue.replies) < QUEUED_MESSAGES_MAX and (
            not large_bytes or self._in_flight.has_room(peer[0], queue.large_bytes + large_bytes)
        )
        if not has_room:
            self._drop(peer, "replies_dropped_backpressure")
            return
        queue.put(peer, reply, large_bytes)
        self._queues[peer[0]] = queue

    def flush(self) -> None:
        if self._small:
            self._flush_small()
        sent_bytes = 0
        while self._queues and sent_bytes < STEP_REPLY_BYTES_MAX:
            identity = next(iter(self._queues))
            queue = self._queues.pop(identity)
            peer, frame, is_large = queue.take()
            sent_bytes += len(frame) if is_large else 0
            self._send_or_drop(peer, frame)
            if queue.replies:
                self._queues[identity] = queue  # behind the others: one reply each in turn

    def _flush_small(self) -> None:
        small, self._small = self._small, []
        send = self._send_frame
        for peer, frame in small:
            if peer[1]:
                self._send_or_drop(peer, frame)
                continue
            try:  # as `_send` does without an envelope, which nearly all replies are
                send(peer[0], _MORE)
            except zmq.ZMQError as error:
                self._drop(peer, _why_dropped(error))
            else:
                send(frame, _NOBLOCK)

    def _send_or_drop(self, peer: Peer, frame: bytes) -> None:
        try:
            self._send(peer, frame)
        except zmq.ZMQError as error:
            self._drop(peer, _why_dropped(error))

    def _drop(self, peer: Peer, counter: str) -> None:
        self._counts[counter] += 1
        self._dropped.add(self.name(peer))

    def can_push(self, peer: Hashable) -> bool:
        return not cast(Peer, peer)[1]

    def push(self, peer: Hashable, event: bytes) -> bool:
        if self._small:
            self._flush_small()  # the reply that began the watch comes first
        to = cast(Peer, peer)
        if to[0] in self._queues:
            return False
        if len(event) >= LARGE_BYTES_MIN and not self._in_flight.has_room(to[0], len(event)):
            return False
        try:
            self._send(to, event)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._peers.forget(to[0])
            raise errors.PeerGone("the peer has disconnected") from None
        self._counts["events_sent"] += 1
        return True

    def _send(self, peer: Peer, frame: bytes) -> None:
        """Send a frame to a peer.

        Raises:
            zmq.Again: too many wait for it already
            zmq.ZMQError: with EHOSTUNREACH, it has disconnected
        """
        identity, envelope, _ = peer
        send = self._send_frame
        send(identity, _MORE)
        for part in envelope:
            send(part, _MORE)
        if len(frame) >= LARGE_BYTES_MIN:
            tracker = self._socket.send(frame, zmq.NOBLOCK, copy=False, track=True)
            self._in_flight.follow(identity, tracker, len(frame))
        else:
            send(frame, _NOBLOCK)

    # ---- what there is to say

    @property
    def replies_dropped(self) -> dict[str, int]:
        """How many replies were dropped, by peer, the latest peers last."""
        return self._dropped.counts

    def user(self, peer: Hashable) -> str:
        return cast(Peer, peer)[2]

    def name(self, peer: Hashable) -> str:
        identity, _, user = cast(Peer, peer)
        name = "zmq:" + hashlib.blake2b(identity, digest_size=4, key=self._salt).hexdigest()
        return name if self._curve is None else f"{self._curve.name_of(user)}@{name}"

    def clients(self) -> dict[str, Hashable]:
        return dict(self._peers.names(self.connections))

    def describe(self, client: Hashable) -> dict[str, Any]:
        identity = cast(bytes, client)
        found = self._peers.describe(identity)
        queue = self._queues.get(identity)
        waiting_bytes = self._in_flight.length(identity) + (0 if queue is None else queue.large_bytes)
        if found["unread_bytes"] is not None or waiting_bytes:
            found["unread_bytes"] = (found["unread_bytes"] or 0) + waiting_bytes
        return found | {"replies_dropped": self._dropped.counts.get(found["name"], 0)}

    def kick(self, client: Hashable) -> bool:
        ended = self._peers.end(cast(bytes, client))
        self._counts["connections_kicked"] += ended
        return ended

    def stats(self) -> dict[str, int]:
        counts = {f"router_{name}": count for name, count in self._counts.items()}
        return counts | {"router_connections": self.connections}

    def close(self) -> None:
        self._monitor.close()
        self._socket.close()
        for endpoint in self.endpoints:
            unlink(endpoint)


def _why_dropped(error: zmq.ZMQError) -> str:
    """Return the counter of a reply whose identity the socket did not take; raises any other error."""
    if isinstance(error, zmq.Again):
        return "replies_dropped_backpressure"
    if error.errno == zmq.EHOSTUNREACH:
        return "replies_dropped_disconnected"
    raise error


def _refusal(message: str) -> Refusal:
    return Refusal(None, errors.InvalidRequest.code, message)
