"""Requests on their way: the calls that travel together, and when to send them again. No I/O."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from kvzmq.client.core.call import Call

RESEND_S = 1.0
RESEND_S_MAX = 8.0
"""When to ask again though the connection seems well: a reply the server could not queue is dropped."""


class OutgoingRequest(msgspec.Struct, eq=False):
    """Calls that travel together: what a shell sends, as often as it takes.

    session      that numbered it
    seq          its number
    frame        its bytes
    count        how many operations it has
    calls        whose operations they are, in order; none for the client's own
    writes       whether any of them writes
    resend_at_s  when to send it again
    sent         how often it was sent
    wait_s       how long to wait for a reply the next time
    """

    session: bytes
    seq: int
    frame: bytes
    count: int
    calls: list[Call]
    writes: bool
    resend_at_s: float
    sent: int = 1
    wait_s: float = 2 * RESEND_S

    @property
    def wanted(self) -> bool:
        """Whether anybody waits for it: `open` has no calls, and all writes wait for it."""
        return not self.calls or any(not call.done for call in self.calls)

    def note_sent_again(self, now_s: float, jitter: Callable[[], float]) -> None:
        """Note that it is being sent once more, and when to do so again: later each time."""
        self.resend_at_s = now_s + self.wait_s * jitter()
        self.sent += 1
        self.wait_s = min(2 * self.wait_s, RESEND_S_MAX)
