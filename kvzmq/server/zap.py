"""Admission by key: the ZAP handler that libzmq asks about each connection that wants CURVE.

ZAP is RFC 27, https://rfc.zeromq.org/spec/27/: libzmq sends a request to `inproc://zeromq.zap.01` of its context
and keeps the connection waiting for the reply. Both are of frames, here after the delimiter that REP takes off:

    request   version "1.0", request id, domain, address, identity, mechanism, credentials: for CURVE the key, 32 bytes
    reply     version "1.0", request id, status "200" or "400", reason, user id, metadata: empty

The user id is the key in Z85. It is in the metadata of every frame that comes from the connection, and rights are
looked up by it for each request: a key that is revoked keeps its connection, but gets nothing by it.

It answers in the server's own loop, without a thread. There is one handler in a context. `zmq.auth.Authenticator` is
not used: its handler is a coroutine for an asyncio loop, lets every connection without CURVE in, and does not tell
whoever looks up the key from which address it came, which the log should say.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

import zmq
from zmq.utils import z85

from kvzmq import errors

ENDPOINT = "inproc://zeromq.zap.01"
"""Where libzmq looks for a handler; the same in every context."""

DOMAIN = "kvzmq"
"""The domain of our endpoints; what is asked about another is refused."""

DRAIN_MAX = 256
"""How many connections one step decides on; the others wait for the next one."""

FRAMES_MAX = 16
"""The most frames of a request that are looked at: libzmq sends seven."""

LOG_S = 10.0
"""How often refusals are written to the log at most, the latest with how many there were."""

_KEY_BYTES = 32
_VERSION, _OK, _REFUSED = b"1.0", b"200", b"400"

_log = logging.getLogger(__name__)


class Zap:
    """Answers libzmq's questions whether a key is known.

    Args:
        context: of the sockets that it decides for
        knows: tells whether a public key (Z85) is a client's
        clock: seconds that only grow

    Raises:
        CannotListen: the context has a handler already
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        knows: Callable[[str], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._knows = knows
        self._clock = clock
        self._counts = {"connections_admitted": 0, "connections_refused": 0}
        self._unlogged = 0
        self._log_s = float("-inf")
        self.socket = context.socket(zmq.REP)
        self.socket.setsockopt(zmq.LINGER, 0)
        try:
            self.socket.bind(ENDPOINT)
        except zmq.ZMQError as error:
            self.socket.close()
            raise errors.CannotListen(f"cannot decide on connections: {ENDPOINT}: {error.strerror}") from error

    def drain(self) -> int:
        """Decide on the connections that wait, without waiting; returns on how many."""
        for number in range(DRAIN_MAX):
            try:
                frames = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return number
            self.socket.send_multipart(self._decide(frames))
        return DRAIN_MAX

    def _decide(self, frames: Sequence[bytes]) -> list[bytes]:
        request_id = frames[1] if len(frames) > 1 else b""
        key, reason = self._judge(frames)
        if reason:
            self._counts["connections_refused"] += 1
            self._say(reason, frames)
            return [_VERSION, request_id, _REFUSED, reason.encode(), b"", b""]
        self._counts["connections_admitted"] += 1
        return [_VERSION, request_id, _OK, b"", key.encode(), b""]

    def _judge(self, frames: Sequence[bytes]) -> tuple[str, str]:
        """Return the key in Z85, and why it is refused, "" if it is not."""
        if not 6 <= len(frames) <= FRAMES_MAX or frames[0] != _VERSION:
            return "", "not a request of ZAP 1.0"
        domain, mechanism, credentials = frames[2], frames[5], frames[6:]
        if domain != DOMAIN.encode():
            return "", "another domain"
        if mechanism != b"CURVE" or len(credentials) != 1 or len(credentials[0]) != _KEY_BYTES:
            return "", "no key of CURVE"
        key = z85.encode(credentials[0]).decode()
        return key, "" if self._knows(key) else f"unknown key {key}"

    def _say(self, reason: str, frames: Sequence[bytes]) -> None:
        self._unlogged += 1
        now_s = self._clock()
        if now_s < self._log_s:
            return
        self._log_s = now_s + LOG_S
        times, self._unlogged = self._unlogged, 0
        address = frames[3].decode("ascii", "replace") if len(frames) > 3 else "?"
        what = "a connection" if times == 1 else f"{times:,} connections, the latest"
        _log.warning("refused %s from %s: %s", what, address, reason)

    def stats(self) -> dict[str, int]:
        """Count what was decided, by name."""
        return dict(self._counts)

    def close(self) -> None:
        """Decide no more: libzmq then lets nobody in."""
        self.socket.close()
