"""Requests on their way: the calls that travel together, and when to send them again. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Raw

from kvzmq.client.core.call import Call
from kvzmq.protocol import msgpack

RESEND_S = 1.0
RESEND_S_MAX = 8.0
"""When to ask again though the connection seems well: a reply the server could not queue is dropped."""


class OutgoingRequest:
    """Calls that travel together: what a shell sends, as often as it takes."""

    __slots__ = ("calls", "count", "frame", "resend_at_s", "sent", "seq", "session", "wait_s", "writes")

    def __init__(self, session: bytes, seq: int, ops: Sequence[Raw], calls: list[Call], writes: bool) -> None:
        self.session = session
        self.seq = seq
        self.frame = msgpack.encode_request(session, seq, ops)
        self.count = len(ops)
        self.calls = calls
        self.writes = writes
        self.sent = 0
        self.wait_s = RESEND_S
        self.resend_at_s = 0.0

    @property
    def wanted(self) -> bool:
        """Whether anybody waits for it: `open` has no calls, and all writes wait for it."""
        return not self.calls or any(not call.done for call in self.calls)

    def note_sent(self, now_s: float, jitter: Callable[[], float]) -> None:
        """Note that it is being sent, and when to send it again: later each time, the first time without jitter."""
        self.resend_at_s = now_s + (self.wait_s if self.sent == 0 else self.wait_s * jitter())
        self.sent += 1
        self.wait_s = min(2 * self.wait_s, RESEND_S_MAX)
