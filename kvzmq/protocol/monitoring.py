"""What a server tells of one request that it has answered: the records of `monitor` and `slow_requests`. No I/O.

A record is a MessagePack array of the fields below, in their order; later versions may add some at the end. It holds
names and keys, and never a value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from kvzmq import errors

OPERATIONS_SHOWN_MAX = 4
"""How many operations of a request a record names; it counts all of them."""

KEY_SHOWN_CHARS_MAX = 200
"""How much of a key a record shows."""


class NamedOperation(NamedTuple):
    """One operation of a request, as a record shows it.

    name  of its method
    key   the first that it names, cut after KEY_SHOWN_CHARS_MAX; for a scan of a prefix the prefix; None for none
    """

    name: str
    key: str | None


class MonitoredRequest(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One request that was answered, and where its time went. Times of day and of a clock are the server's.

    step             the number of the step of the loop that executed it
    received_us      when the server took it in, microseconds since 1970 UTC
    received_s       the same, seconds on the server's monotonic clock, as the four at the end
    client           who asked, as `clients` names it
    transport        "router" or "bridge"
    operations       the first OPERATIONS_SHOWN_MAX of them
    operation_count  how many there were; 0 for a request that could not be read
    code             0, or the code of the first error among its results
    revision_before  the table's, before it executed
    revision_after   and afterwards
    request_bytes    its length; 0 for one that could not be read
    reply_bytes      of its results
    queued_s         from then on until its execution began
    executed_s       until its execution ended
    synced_s         until what it has changed or may have seen was durable: others executed, and the disk worked
    sent_s           until the step's replies were handed to the kernel, or to libzmq
    step_began_s     when the poll of its step had returned
    step_ended_s     when the replies of its step were handed over
    sync_began_s     when its step began to wait for the disk; None if it did not
    sync_ended_s     when the disk was done
    dropped          how many requests were not looked at, or not kept, between the record before and this one
    """

    step: int
    received_us: int
    received_s: float
    client: str
    transport: str
    operations: list[NamedOperation]
    operation_count: int
    code: int
    revision_before: int
    revision_after: int
    request_bytes: int
    reply_bytes: int
    queued_s: float
    executed_s: float
    synced_s: float
    sent_s: float
    step_began_s: float
    step_ended_s: float
    sync_began_s: float | None
    sync_ended_s: float | None
    dropped: int = 0

    @property
    def error(self) -> str:
        """The name of the error that it was answered with; "" if every operation succeeded."""
        if self.code == errors.OK:
            return ""
        kind = errors.BY_CODE.get(self.code)
        return f"error {self.code}" if kind is None else kind.__name__

    @property
    def took_s(self) -> float:
        """From its arrival until its reply was handed over, seconds."""
        return self.queued_s + self.executed_s + self.synced_s + self.sent_s


class Records(NamedTuple):
    """The payload of a monitor's event.

    records  in the order in which their requests were answered
    dropped  how many requests were not looked at, or not kept, since the monitor began
    """

    records: list[MonitoredRequest]
    dropped: int


decode_records: Callable[[bytes | msgspec.Raw], Records] = msgspec.msgpack.Decoder(Records).decode
decode_requests: Callable[[bytes | msgspec.Raw], list[MonitoredRequest]] = msgspec.msgpack.Decoder(
    list[MonitoredRequest]
).decode
