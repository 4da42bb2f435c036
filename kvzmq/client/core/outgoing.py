"""Requests on their way: the calls that travel together, and when to send them again. No I/O."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from kvzmq import errors
from kvzmq.client.core.call import Call

RESEND_S = 1.0
RESEND_S_MAX = 8.0
"""When to ask again though the connection seems well: a reply the server could not queue is dropped."""

REFUSED_S = 0.05
REFUSED_S_MAX = 1.0
"""After what time a server that has refused for now is asked again: twice this, doubled each time, up to the most."""


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
    refused      how often a server has refused it for now, each time a copy that was certainly not executed
    refusal      the latest of these errors
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
    refused: int = 0
    refusal: errors.KvzmqError | None = None
    wait_s: float = 2 * RESEND_S

    @property
    def wanted(self) -> bool:
        """Whether anybody waits for it: `open` has no calls, and all writes wait for it."""
        return not self.calls or any(not call.done for call in self.calls)

    @property
    def certain(self) -> bool:
        """Whether every copy that was sent is known not to have been executed."""
        return self.refused == self.sent

    def note_refused(self, refusal: errors.KvzmqError, now_s: float, jitter: Callable[[], float]) -> None:
        """Note that it was refused for now, and when to send it again: later each time."""
        self.refused += 1
        self.refusal = refusal
        self.resend_at_s = now_s + min(REFUSED_S * 2**self.refused, REFUSED_S_MAX) * jitter()

    def note_sent_again(self, now_s: float, jitter: Callable[[], float]) -> None:
        """Note that it is being sent once more, and when to do so again: later each time."""
        self.resend_at_s = now_s + self.wait_s * jitter()
        self.sent += 1
        self.wait_s = min(2 * self.wait_s, RESEND_S_MAX)

    def too_late(self, call: Call) -> errors.KvzmqError:
        """Return the error of a call that was not answered in time: what a server said, if that is the truth."""
        refusal = self.refusal
        if refusal is not None and (self.certain or not call.writes):
            return copy_of(refusal)
        return call.too_late()


def copy_of(error: errors.KvzmqError) -> errors.KvzmqError:
    """Return a copy of an error for one more caller, as each adds its own traceback."""
    return type(error)(*error.args)
