"""The messages: requests, refusals, replies and changes.

A request holds operations, see `operations`. No I/O; how messages are encoded is in `msgpack` and `jsonl`, how large
they may be in `limits`.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple, Union
from zlib import crc32

from msgspec import Meta, Struct

from kvzmq.protocol.declaration import Operation
from kvzmq.protocol.limits import QUICK_WEIGHT_MAX, SEQ_MAX
from kvzmq.protocol.operations import SCANS, SERVED, TRAITS, WEIGHTS, WRITES, weight_of

Seq = Annotated[int, Meta(ge=1, le=SEQ_MAX)]


class Request:
    """Operations of one client, executed in order with nothing in between. One that reads does so linearizably.

    session  16 bytes chosen by the client, or None for one that does not want retries recognised
    seq      the request's number within its session
    ops      the operations
    frame    the request's bytes as the wire and the log have them, `[session, seq, ops]`
    writes   whether any operation may change the table
    served   whether any operation concerns the server or the connection
    scans    whether any operation scans
    is_quick whether it neither scans nor is served, and concerns QUICK_WEIGHT_MAX rows at most
    needs    which indexes these need: the subkeys, and whether the keys in order; None until it is first computed
    digest   CRC-32 of `frame` if the request writes within a session, else 0
    weight   how many rows it may read or write, at the least one for each operation
    kinds    the classes of the operations; None if there is only one operation
    """

    __slots__ = (
        "digest",
        "frame",
        "is_quick",
        "kinds",
        "needs",
        "ops",
        "scans",
        "seq",
        "served",
        "session",
        "weight",
        "writes",
    )

    seen: int | None = None
    """A revision from which on the table may be read as this server has it; None where it has to be the newest state,
    that is for writes and linearizable reads. Of the class, so that most requests take no time for it."""

    def __init__(self, session: bytes | None, seq: int, ops: list[Any], frame: bytes) -> None:
        self.session = session
        self.seq = seq
        self.ops = ops
        self.frame = frame
        if len(ops) == 1:
            # One lookup, not four: most have one operation.
            self.writes, self.served, self.scans, self.is_quick, weigh = TRAITS[type(ops[0])]
            if weigh is None:
                self.weight = 1
            else:
                self.weight = weigh(ops[0])
                self.is_quick = self.is_quick and self.weight <= QUICK_WEIGHT_MAX
            self.kinds: set[type[Operation]] | None = None
        else:
            kinds = self.kinds = set(map(type, ops))
            self.writes = not WRITES.isdisjoint(kinds)
            self.served = not SERVED.isdisjoint(kinds)
            self.scans = not SCANS.isdisjoint(kinds)
            self.weight = len(ops) if WEIGHTS.keys().isdisjoint(kinds) else sum(map(weight_of, ops))
            self.is_quick = not self.served and not self.scans and self.weight <= QUICK_WEIGHT_MAX
        self.needs: tuple[frozenset[str], bool] | None = None
        self.digest = crc32(frame) if self.writes and session is not None else 0


class SeenRequest(Request):
    """A request that only reads, any state of the table from a revision on.

    seen  the least revision that the client wants to read: the highest it has seen, or 0 for any
    """

    __slots__ = ("seen",)

    def __init__(self, session: bytes | None, seq: int, ops: list[Any], frame: bytes, seen: int) -> None:
        super().__init__(session, seq, ops, frame)
        self.seen = seen


class Refusal(NamedTuple):
    """The error of a request that is not executed. It takes the request's place, so that replies stay in order."""

    seq: int | None
    code: int
    message: str

    @property
    def scans(self) -> bool:
        """Whether it scans: no refusal does."""
        return False

    @property
    def ops(self) -> tuple[Operation, ...]:
        """What it asks for: nothing that could be read."""
        return ()

    @property
    def seen(self) -> None:
        """The revision it waits for: none."""
        return


class LargeResults:
    """Results that are not encoded yet: pairs of a code and a payload, of about `length` bytes encoded.

    The values in them are the table's own bytes objects, so that a reply which waits takes hardly any memory.
    """

    __slots__ = ("length", "pairs")

    def __init__(self, pairs: list[tuple[int, Any]], length: int) -> None:
        self.pairs = pairs
        self.length = length

    def __len__(self) -> int:
        return self.length


class Reply(Struct, frozen=True, gc=False):  # a NamedTuple takes 0.2 us to make, this a quarter of that
    """The answer to one request.

    seq       the request's number
    revision  the table's, when the request had executed
    results   MessagePack: one `[code, payload]` per operation, or exactly one if refused; large ones not yet encoded
    """

    seq: int | None
    revision: int
    results: Union[bytes, LargeResults]


Change = tuple[str, Union[bytes, None], Union[bytes, None]]
"""What one write did to one row: the key, its MessagePack value before, and after; None is absence."""
