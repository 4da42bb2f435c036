"""The peers of a ROUTER socket, as far as libzmq and the kernel tell of them.

libzmq names a peer by its identity alone, and does not say when it leaves. But every frame has the descriptor of the
connection that it came by (`ZMQ_SRCFD`), and the kernel knows the rest of it: the address, the bytes that came, those
that the peer has not taken yet. A descriptor may be another connection's by now; so it is used only while it is the
socket, by its inode, that it was when the peer was seen, and through a copy, which nobody can close meanwhile.

What cannot be known: a peer that has asked for nothing yet, or that had never had the last request of a step, has no
address here, and its leaving is seen only where it is sent something. So while more peers are remembered than there are
connections, those without an address that have been silent for SILENT_S are forgotten. Nor is it known how many small
replies libzmq holds for a peer, up to QUEUED_MESSAGES_MAX. The number of requests is exact while there are NOTE_S
between drains of one request; under load one drain every NOTE_S is looked at, NOTED_MAX of its requests, and these
stand for all since the last: an estimate. Looking at each took 2 % of the loop.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import termios
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any, cast

import zmq

from kvzmq.server.transport import Arrival
from kvzmq.server.transport.router_replies import Peer

PEERS_MAX = 4096
"""How many peers are remembered; then the one that was met first goes."""

SILENT_S = 60.0
"""How long a peer without an address may have asked for nothing, where there are more peers than connections."""

NOTE_S = 0.001
"""How often peers are noted at most."""

NOTED_MAX = 8
"""How many requests of one drain are looked at, the last ones."""

_NOWHERE = -1
_PEER_CREDENTIALS = struct.Struct("3i")
_TCP_BYTES = struct.Struct("QQ")
_TCP_BYTES_AT = 120
"""Where `struct tcp_info` has `tcpi_bytes_acked` and, next to it, `tcpi_bytes_received`."""
_TCP_INFO_BYTES = _TCP_BYTES_AT + _TCP_BYTES.size


class _Seen:
    """A peer that has asked for something."""

    __slots__ = ("began_s", "descriptor", "inode", "latest_s", "name", "peer", "requests")

    def __init__(self, peer: Peer, name: str, now_s: float) -> None:
        self.peer = peer
        self.name = name
        self.began_s = self.latest_s = now_s
        self.requests = 0.0  # shares of those that were not looked at included
        self.descriptor = _NOWHERE
        self.inode = 0

    def open(self) -> socket.socket | None:
        """Return a copy of the connection's descriptor, None if it has ended or is not known."""
        if self.descriptor == _NOWHERE:
            return None
        try:
            copy = os.dup(self.descriptor)
        except OSError:
            return None
        try:
            if os.fstat(copy).st_ino == self.inode:
                return socket.socket(fileno=copy)
        except OSError:
            pass  # not a socket: the number was given to a file
        os.close(copy)
        return None

    @property
    def is_gone(self) -> bool:
        """Whether its connection is known and has ended."""
        if self.descriptor == _NOWHERE:
            return False
        try:
            return os.fstat(self.descriptor).st_ino != self.inode
        except OSError:
            return True


class RouterPeers:
    """Those that have asked for something and, as far as is known, are still connected.

    Args:
        name: gives a peer's name
        clock: seconds that only grow
    """

    def __init__(self, name: Callable[[Hashable], str], clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._clock = clock
        self._seen: dict[bytes, _Seen] = {}  # by identity

    def note(self, arrivals: Sequence[Arrival], last: zmq.Frame, requests: int) -> None:
        """Record the peers whose requests one drain has taken in.

        Args:
            last: a frame of the last message
            requests: how many have come since the last call
        """
        noted = arrivals[-NOTED_MAX:]
        share = requests / len(noted)
        now_s = self._clock()
        for arrival in noted:
            identity = cast(Peer, arrival.peer)[0]
            seen = self._seen.get(identity) or self._meet(identity, cast(Peer, arrival.peer))
            seen.requests += share
            seen.latest_s = now_s
        if seen.descriptor == _NOWHERE:
            self._locate(seen, last)

    def _meet(self, identity: bytes, peer: Peer) -> _Seen:
        if len(self._seen) >= PEERS_MAX:
            self._forget_those_gone()
        if len(self._seen) >= PEERS_MAX:
            del self._seen[next(iter(self._seen))]
        seen = self._seen[identity] = _Seen(peer, self._name(peer), self._clock())
        return seen

    def _locate(self, seen: _Seen, frame: zmq.Frame) -> None:
        try:
            descriptor = int(cast(Any, frame).get(zmq.SRCFD))
            seen.inode = os.fstat(descriptor).st_ino
        except (zmq.ZMQError, OSError):
            return  # it has ended already
        seen.descriptor = descriptor

    def _forget_those_gone(self) -> None:
        self._seen = {identity: seen for identity, seen in self._seen.items() if not seen.is_gone}

    def forget(self, identity: bytes) -> None:
        """Take note that a peer has left."""
        self._seen.pop(identity, None)

    def _forget_those_silent(self, connections: int) -> None:
        silent_s = self._clock() - SILENT_S
        silent = [seen for seen in self._seen.values() if seen.descriptor == _NOWHERE and seen.latest_s < silent_s]
        silent.sort(key=lambda seen: seen.latest_s)
        for seen in silent[: max(0, len(self._seen) - connections)]:
            self.forget(seen.peer[0])

    # ---- what there is to say

    def names(self, connections: int) -> dict[str, bytes]:
        """Return the identities by the names of the peers, without those that have left, as far as is known.

        Args:
            connections: how many there are
        """
        self._forget_those_gone()
        self._forget_those_silent(connections)
        return {seen.name: identity for identity, seen in self._seen.items()}

    def describe(self, identity: bytes) -> dict[str, Any]:
        """Return what is known of a peer; None where nothing is."""
        seen = self._seen[identity]
        found: dict[str, Any] = {
            "name": seen.name,
            "transport": "router",
            "address": None,
            "connected_s": round(self._clock() - seen.began_s, 3),
            "requests": round(seen.requests),
            "received_bytes": None,
            "taken_bytes": None,
            "unread_bytes": None,
        }
        connection = seen.open()
        if connection is not None:
            with connection:
                found |= _of_connection(connection)
        return found

    def end(self, identity: bytes) -> bool:
        """End the connection of a peer; False if it is not known."""
        seen = self._seen.pop(identity)
        connection = seen.open()
        if connection is None:
            return False
        with connection:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                return False  # it has just ended
        return True


def _of_connection(connection: socket.socket) -> dict[str, Any]:
    """Return what the kernel tells of a connection."""
    unsent = bytearray(4)
    try:
        fcntl.ioctl(connection, termios.TIOCOUTQ, unsent)
        unread_bytes = int.from_bytes(unsent, "little")
        if connection.family == socket.AF_UNIX:
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
            return {"address": f"process {_PEER_CREDENTIALS.unpack(credentials)[0]}", "unread_bytes": unread_bytes}
        host, port = connection.getpeername()[:2]
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    except OSError:
        return {}  # it has just ended
    taken, received = (None, None) if len(info) < _TCP_INFO_BYTES else _TCP_BYTES.unpack_from(info, _TCP_BYTES_AT)
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return {"address": address, "unread_bytes": unread_bytes, "received_bytes": received, "taken_bytes": taken}
