"""A raw client, as small as one can be: one DEALER, one request at a time, nothing retried.

For tests that must see every reply, or its absence, for themselves.
"""

from __future__ import annotations

import os
from types import TracebackType
from typing import Any, NamedTuple

import msgspec
import zmq

from kvzmq.protocol import msgpack
from kvzmq.protocol.messages import Reply
from support.servers import PATIENCE_S

TIMEOUT_S = PATIENCE_S


class NoReply(Exception):
    """No reply came in time."""


class WireReply(NamedTuple):
    """A reply as it came: `[seq, revision, results]`."""

    seq: int | None
    revision: int
    results: list[Any]


class WireClient:
    """A connection and a session.

        with WireClient(server.url) as client:
            revision, (code, payload) = client.call("lookup", "zebra")

    Args:
        url: of the server
        session: 16 bytes, or None for one without; a new one by default
    """

    def __init__(self, url: str, session: bytes | None = b"") -> None:
        self.session = os.urandom(16) if session == b"" else session
        self.seq = 0
        self.socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RECONNECT_IVL, 20)
        self.socket.connect(url)

    def send(self, *ops: list[Any], seq: int | None = None) -> int:
        """Send one request and return its number; `seq` sends an earlier number again."""
        if seq is None:
            self.seq += 1
            seq = self.seq
        self.socket.send(msgspec.msgpack.encode([self.session, seq, ops]))
        return seq

    def receive(self, timeout_s: float = TIMEOUT_S) -> WireReply:
        """Return the next reply.

        Raises:
            NoReply: none came in time
        """
        if not self.socket.poll(int(timeout_s * 1000)):
            raise NoReply(f"no reply within {timeout_s} s")
        return WireReply(*msgspec.msgpack.decode(self.socket.recv()))

    def request(self, *ops: list[Any], seq: int | None = None, timeout_s: float = TIMEOUT_S) -> WireReply:
        """Send one request and return its reply; replies to others are dropped."""
        sent = self.send(*ops, seq=seq)
        while (reply := self.receive(timeout_s)).seq != sent:
            pass
        return reply

    def open(self) -> None:
        """Open the session, as a client that wants retries recognised has to."""
        reply = self.request(["open"])
        assert [code for code, _ in reply.results] == [0], reply

    def call(self, method: str, *arguments: Any, timeout_s: float = TIMEOUT_S) -> tuple[int, tuple[int, Any]]:
        """Execute one operation; returns the revision, and the result's code and payload."""
        reply = self.request([method, *arguments], timeout_s=timeout_s)
        code, payload = reply.results[0]
        return reply.revision, (code, payload)

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> WireClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def results_of(reply: Reply) -> Any:
    """Return the results of a reply as a client sees them, [[code, payload], ...]."""
    return msgpack.decode_value(msgpack.encode_reply(reply))[2]
