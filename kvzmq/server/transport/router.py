"""The ROUTER socket: one MessagePack frame a message, replies by identity.

What libzmq does not do by itself is done here: a reply to a peer that is gone or does not read is
counted instead of lost unseen, the bytes on their way to one peer are bounded, and so is what a step
spends on large replies. libzmq's own limits count messages.

No HEARTBEAT_IVL, here or on any socket: when a receive queue is full and the connection breaks, the
heartbeat writes to an engine that has failed, and libzmq aborts the process (libzmq issue 3937). A
peer whose machine has vanished is noticed by TCP's keepalive and TCP_MAXRT instead.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import struct
import time
from collections import deque
from collections.abc import Hashable, Sequence
from typing import cast

import zmq

from kvzmq import errors
from kvzmq.protocol import msgpack
from kvzmq.protocol.messages import LARGE_BYTES_MIN, REQUEST_BYTES_MAX, LargeResults, Refusal, Reply, Request
from kvzmq.server.transport import STEP_BYTES_MAX, STEP_REPLY_BYTES_MAX, STEP_WEIGHT_MAX, Arrival
from kvzmq.server.transport.listen import bind, unlink

REQUESTS_MAX = 1024
"""How many requests one step takes in."""

QUEUED_MESSAGES_MAX = 1000
"""Replies that may wait for one peer; further ones are dropped, and the peer asks again."""

RECEIVED_MESSAGES_MAX = 32
"""Requests of one peer that libzmq holds for the loop; then TCP makes the peer wait."""

UNSENT_BYTES_MAX = 32 << 20
"""Bytes of large replies that may wait for one peer; further ones are dropped."""

IDENTITY_BYTES_MAX = 255
"""The longest identity, ZMTP's own limit; libzmq takes longer ones, and what they ask for is refused here."""

ENVELOPE_FRAMES_MAX = 16
"""How many frames may stand before a request, the empty one that ends them included."""

ENVELOPE_BYTES_MAX = 4096
"""How many bytes they may have."""

KEEPALIVE_IDLE_S, KEEPALIVE_INTERVAL_S, KEEPALIVE_PROBES = 4, 2, 3
"""When an idle connection is first asked for a sign, how often, and how often in vain: gone after 10 s."""

UNACKNOWLEDGED_MS_MAX = 10_000
"""How long the other machine's kernel may leave bytes on their way to it unacknowledged, or take none."""

_MORE = int(zmq.SNDMORE | zmq.NOBLOCK)  # plain integers: an "or" or "and" of enumerations costs 0.4 to 0.7 us
_POLLIN = int(zmq.POLLIN)

_LEDGER_MAX = 1024
"""How many peers the ledger of undelivered replies remembers."""

_FOLLOWED_MIN = 64
"""How many peers are followed before those whose replies are all on the wire are looked for."""

_MONITORED_S = 0.1
"""How often the reports of connections made and ended are read."""

_EVENT = struct.Struct("<Hi")
_WATCHED = zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED  # both name the descriptor; a handshake's does not

Peer = tuple[bytes, tuple[bytes, ...]]
"""The identity, and the envelope: the frames before the request up to the empty one, as REQ sockets and proxies
put them; empty for a DEALER that sends the request alone."""

_OPTIONS: tuple[tuple[int, int], ...] = (
    (zmq.ROUTER_MANDATORY, 1),
    # A client that comes back under its own identity is served at once. Without, libzmq 4.3.5 takes its first
    # request for its name when the old connection is not quite gone, and never answers: 1 of 5 reconnects here.
    (zmq.ROUTER_HANDOVER, 1),
    (zmq.SNDHWM, QUEUED_MESSAGES_MAX),
    (zmq.RCVHWM, RECEIVED_MESSAGES_MAX),
    (zmq.LINGER, 200),  # ms: a clean stop still delivers the replies of its last step
    (zmq.HANDSHAKE_IVL, 5000),
    (zmq.TCP_KEEPALIVE, 1),
    (zmq.TCP_KEEPALIVE_IDLE, KEEPALIVE_IDLE_S),
    (zmq.TCP_KEEPALIVE_INTVL, KEEPALIVE_INTERVAL_S),
    (zmq.TCP_KEEPALIVE_CNT, KEEPALIVE_PROBES),
    (zmq.TCP_MAXRT, UNACKNOWLEDGED_MS_MAX),
    (zmq.BACKLOG, 1024),
)


def _seed_identities() -> None:
    """Have libzmq number anonymous peers from a number that nobody can guess.

    It takes the first number from C's rand(), unseeded, and aborts the process when a peer has claimed the
    next one for itself.
    """
    ctypes.CDLL(None).srand(int.from_bytes(os.urandom(4), "little"))


class _Waiting:
    """The replies of one peer from the first large one on that is not on its way yet."""

    __slots__ = ("length", "replies")

    def __init__(self) -> None:
        self.replies: deque[tuple[Peer, Reply | bytes]] = deque()
        self.length = 0  # of the large ones among them


class RouterTransport:
    """A ROUTER socket bound to one or more endpoints.

    Args:
        context: the ZeroMQ context
        endpoints: `tcp://HOST:PORT` or `ipc://PATH`; port 0 takes a free one
        request_bytes_max: the longest request; a longer one costs its sender the connection

    Raises:
        CannotListen: an endpoint is in use or malformed
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoints: Sequence[str],
        request_bytes_max: int = REQUEST_BYTES_MAX,
    ) -> None:
        _seed_identities()
        self._context = context
        self._socket = context.socket(zmq.ROUTER)
        self._unsent: dict[bytes, deque[tuple[zmq.MessageTracker, int]]] = {}
        self._look_through_at = _FOLLOWED_MIN
        self._undelivered: dict[str, int] = {}
        # Small replies wait for the end of the step: libzmq's thread is then woken once, not for each.
        self._queued: list[tuple[Peer, bytes]] = []
        self._waiting: dict[bytes, _Waiting] = {}
        self._counts = {"replies_dropped_disconnected": 0, "replies_dropped_backpressure": 0, "events_sent": 0}
        self._salt = os.urandom(16)
        self._socket.copy_threshold = 0  # else pyzmq copies messages below 64 KiB and calls them sent at once
        for option, value in (*_OPTIONS, (zmq.MAXMSGSIZE, request_bytes_max)):
            self._socket.setsockopt(option, value)
        self._connected: set[int] = set()  # descriptors
        self._read_monitor_s = 0.0
        self._monitor = self._start_monitor()
        self.endpoints = []
        try:
            for endpoint in endpoints:
                self.endpoints.append(bind(self._socket, endpoint))
        except errors.CannotListen:
            self.close()
            raise

    # ---- who is connected

    def _start_monitor(self) -> zmq.Socket[bytes]:
        """Have connections reported, without a high-water mark: libzmq's thread would wait for room for its reports."""
        place = f"inproc://kvzmq-router-{os.urandom(8).hex()}"
        self._socket.monitor(place, _WATCHED)
        monitor = self._context.socket(zmq.PAIR)
        monitor.setsockopt(zmq.LINGER, 0)
        monitor.setsockopt(zmq.RCVHWM, 0)
        monitor.connect(place)
        return monitor

    def _read_monitor(self) -> None:
        self._read_monitor_s = time.monotonic() + _MONITORED_S
        while True:
            try:
                event, descriptor = _EVENT.unpack(self._monitor.recv(zmq.NOBLOCK))
            except zmq.Again:
                return
            self._monitor.recv()  # the endpoint
            if event == zmq.EVENT_DISCONNECTED:
                self._connected.discard(descriptor)
            else:
                self._connected.add(descriptor)

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        self._read_monitor()
        self._connected = set(filter(_is_open, self._connected))  # whose place was taken over ends unreported
        return len(self._connected)

    # ---- in

    def register(self, poller: zmq.Poller) -> object:
        poller.register(self._socket, zmq.POLLIN)
        return self._socket

    def drain(self) -> list[Arrival]:
        arrivals: list[Arrival] = []
        taken_bytes = weight = requests = 0
        receive = self._socket.recv
        if time.monotonic() >= self._read_monitor_s:
            self._read_monitor()
        while requests < REQUESTS_MAX and taken_bytes < STEP_BYTES_MAX and weight < STEP_WEIGHT_MAX:
            try:
                identity = receive(zmq.NOBLOCK)
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
                    continue
            else:
                request = msgpack.decode_request(frame)
            if len(identity) > IDENTITY_BYTES_MAX:
                request = _refusal(f"an identity has {IDENTITY_BYTES_MAX} bytes at most: leave it to ZeroMQ")
            if isinstance(request, Request):
                taken_bytes += len(request.frame)
                weight += request.weight
            else:
                taken_bytes += len(frame)
            arrivals.append(Arrival(self, (identity, envelope), request))
            if requests == 1 and not int(self._socket.getsockopt(zmq.EVENTS)) & _POLLIN:
                break  # a single request, the case where latency counts: asking costs less than zmq.Again
        return arrivals

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
        return bool(self._waiting)

    # ---- out

    def send(self, peer: Hashable, reply: Reply) -> None:
        to = cast(Peer, peer)
        large = isinstance(reply.results, LargeResults) or len(reply.results) >= LARGE_BYTES_MIN
        waiting = self._waiting.get(to[0])
        if waiting is None and not large:
            self._queued.append((to, msgpack.encode_reply(reply)))
        else:
            self._wait(to, reply, waiting or _Waiting(), len(reply.results) if large else 0)

    def _wait(self, peer: Peer, reply: Reply, waiting: _Waiting, length: int) -> None:
        """Have a reply wait for its turn, if there is room."""
        room = len(waiting.replies) < QUEUED_MESSAGES_MAX and (
            not length or self._has_room(peer[0], waiting.length + length)
        )
        if not room:
            self._lost(peer, "replies_dropped_backpressure")
            return
        waiting.replies.append((peer, reply if length else msgpack.encode_reply(reply)))
        waiting.length += length
        self._waiting[peer[0]] = waiting

    def flush(self) -> None:
        self._flush_small()
        sent_bytes = 0
        while self._waiting and sent_bytes < STEP_REPLY_BYTES_MAX:
            identity = next(iter(self._waiting))
            waiting = self._waiting.pop(identity)
            peer, reply = waiting.replies.popleft()
            if isinstance(reply, Reply):
                waiting.length -= len(reply.results)
                reply = msgpack.encode_reply(reply)
                sent_bytes += len(reply)
            self._try_to_send(peer, reply)
            if waiting.replies:
                self._waiting[identity] = waiting  # behind the others: one reply each in turn

    def _flush_small(self) -> None:
        if self._queued:
            queued, self._queued = self._queued, []
            for peer, frame in queued:
                self._try_to_send(peer, frame)

    def _try_to_send(self, peer: Peer, frame: bytes) -> None:
        try:
            if not self._send(peer, frame):
                self._lost(peer, "replies_dropped_backpressure")
        except errors.PeerGone:
            self._lost(peer, "replies_dropped_disconnected")

    def can_push(self, peer: Hashable) -> bool:
        return not cast(Peer, peer)[1]

    def push(self, peer: Hashable, event: bytes) -> bool:
        self._flush_small()  # the reply that began the watch comes first
        to = cast(Peer, peer)
        if to[0] in self._waiting:
            return False
        if len(event) >= LARGE_BYTES_MIN and not self._has_room(to[0], len(event)):
            return False
        sent = self._send(to, event)
        self._counts["events_sent"] += sent
        return sent

    def _send(self, peer: Peer, frame: bytes) -> bool:
        """Send a frame to a peer; False if too many wait for it already."""
        identity, envelope = peer
        try:
            self._socket.send(identity, _MORE)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            raise errors.PeerGone("the peer has disconnected") from None
        for part in envelope:
            self._socket.send(part, _MORE)
        if len(frame) >= LARGE_BYTES_MIN:
            tracker = self._socket.send(frame, zmq.NOBLOCK, copy=False, track=True)
            self._unsent.setdefault(identity, deque()).append((tracker, len(frame)))
        else:
            self._socket.send(frame, zmq.NOBLOCK)
        return True

    def _has_room(self, identity: bytes, length: int) -> bool:
        """Say whether the peer may be sent large replies, and forget those that are on the wire."""
        if len(self._unsent) > self._look_through_at:
            # A tracker takes 3 KB, so peers that have left must not keep theirs. Looking when there are twice as
            # many as after the last look costs each reply a constant amount.
            for other in [i for i, waiting in self._unsent.items() if waiting[-1][0].done]:
                del self._unsent[other]
            self._look_through_at = 2 * len(self._unsent) + _FOLLOWED_MIN
        waiting = self._unsent.get(identity)
        if waiting is None:
            return length <= UNSENT_BYTES_MAX
        while waiting and waiting[0][0].done:
            waiting.popleft()
        if not waiting:
            del self._unsent[identity]
        return sum(size for _, size in waiting) + length <= UNSENT_BYTES_MAX

    def _lost(self, peer: Peer, why: str) -> None:
        self._counts[why] += 1
        name = self.name(peer)
        self._undelivered[name] = self._undelivered.pop(name, 0) + 1
        if len(self._undelivered) > _LEDGER_MAX:
            del self._undelivered[next(iter(self._undelivered))]

    # ---- what there is to say

    @property
    def undelivered(self) -> dict[str, int]:
        """The replies that could not be delivered, by peer, the latest peers last."""
        return self._undelivered

    def name(self, peer: Hashable) -> str:
        return "zmq:" + hashlib.blake2b(cast(Peer, peer)[0], digest_size=4, key=self._salt).hexdigest()

    def stats(self) -> dict[str, int]:
        counts = {f"router_{name}": count for name, count in self._counts.items()}
        return counts | {"router_connections": self.connections}

    def close(self) -> None:
        self._socket.monitor(None, 0)
        self._socket.close()
        self._monitor.close()
        for endpoint in self.endpoints:
            unlink(endpoint)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _refusal(message: str) -> Refusal:
    return Refusal(None, errors.InvalidRequest.code, message)
