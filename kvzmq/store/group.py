"""A group: the requests that are executed together, from the append of what they change to their replies.

    OPEN ──────────────────────────────────────────┐
    REJECTED, CUT_OFF ── reads alone are executed ─┼─ sync ─> ENDED
    UNKNOWN ── resolve ─> OPEN or REJECTED ────────┘

`Store.begin` appends the group, unless it changes nothing; `execute` executes its requests one by one; `sync` gives
their replies out when it is durable. There is no other way to a reply that may be sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Protocol

from kvzmq import errors
from kvzmq.protocol import msgpack
from kvzmq.protocol.messages import LargeResults, Reply, Request
from kvzmq.store.barrier import needs_newest
from kvzmq.store.table import Table


class HeldReply(Protocol):
    """A reply that may be read but not sent, as what it shows may not be durable; `Group.sync` returns the Reply."""

    @property
    def revision(self) -> int:
        """The table's revision when the request had executed."""

    @property
    def results(self) -> bytes | LargeResults:
        """The results, encoded or to be encoded when they are sent."""


class GroupState(Enum):
    """The state of a group.

    OPEN      it was appended, or it changes nothing: its requests can be executed
    REJECTED  it is not in the log: reads can be executed, writes are answered WriteRejected
    CUT_OFF   it is not in the log, if it changes anything, and the log cannot be asked what others have appended:
              linearizable reads are answered Unavailable, too
    UNKNOWN   the log cannot say whether it has it: nothing can be executed before `resolve`
    ENDED     it was synced
    """

    OPEN = "open"
    REJECTED = "rejected"
    CUT_OFF = "cut off"
    UNKNOWN = "unknown"
    ENDED = "ended"


OPEN, REJECTED, CUT_OFF, UNKNOWN, ENDED = GroupState


class Committing(Protocol):
    """What a group needs of its store."""

    table: Table
    trouble: str | None
    is_unsynced: bool
    """Whether something was appended since the last sync."""
    open_group: Group | None
    """The group that has begun and not ended."""

    def resolve(self, group: Group) -> bool:
        """Ask the log for the fate of the group; True when that is known."""

    def sync(self) -> None:
        """Return when what was appended is durable."""

    def refuse_cut_off(self, request: Request) -> Reply | None:
        """Return the refusal of a read that needs the newest state, as the log cannot tell it; None for any other."""


class Group:
    """Requests that are executed together, and what they change as one group of the log; made by `Store.begin`.

    Every request of the group that writes has to be executed, in the order of the group and once, because the log has
    it. Each misuse is an AssertionError.
    """

    __slots__ = ("_executed", "_replies", "_store", "_writes", "state")

    def __init__(self, store: Committing, writes: Sequence[tuple[Request, Reply | None]]) -> None:
        self._store = store
        self._writes = writes  # each with its cached reply, if it is a retry
        self._executed = 0  # of the writes
        self._replies: list[Reply] = []
        self.state = OPEN
        """Its state; only the group and its store change it."""

    def resolve(self) -> bool:
        """Ask the log whether it has the group; True when that is known and the group can be executed.

        Raises:
            StorageFatal: the log cannot be trusted: send nothing, stop
        """
        return self.state is not UNKNOWN or self._store.resolve(self)

    def execute(self, request: Request) -> HeldReply:
        """Execute the group's next request; a retried one gets what it got the first time.

        A change that could not be appended is not executed, its reply says WriteRejected; and a linearizable read is
        not while the log cannot be asked, its reply says Unavailable.
        """
        store, reply = self._store, None
        if self.state is not OPEN:
            self._check_executing()
            if self.state is CUT_OFF and not request.writes:
                reply = store.refuse_cut_off(request)
        if request.writes:
            expected, reply = self._writes[self._executed]
            if expected is not request:
                raise AssertionError("the group's writes have to be executed in its order, each once")
            self._executed += 1
            if reply is None and self.state is not OPEN:
                reply = msgpack.refuse(request.seq, store.table.revision, errors.WriteRejected.code, str(store.trouble))
        if reply is None:
            reply = store.table.execute(request)
        self._replies.append(reply)
        return reply

    def _check_executing(self) -> None:
        if self.state is UNKNOWN or self.state is ENDED:
            raise AssertionError("the group is not open: nothing can be executed in it")

    def will_execute(self, request: Request) -> bool:
        """Say whether `execute` of this request, the next one, will run it: not a retry, not one that was rejected."""
        if request.writes:
            return self.state is OPEN and self._writes[self._executed][1] is None
        return self.state is not CUT_OFF or not needs_newest(request)

    def refuse_cut_off(self, request: Request) -> Reply | None:
        """Return the refusal of a request that needs the newest state, if the log cannot tell it now; else None."""
        return self._store.refuse_cut_off(request) if self.state is CUT_OFF else None

    def hold(self, reply: Reply) -> HeldReply:
        """Hold a reply that was made elsewhere until the group is durable, as it may show changes of it."""
        self._replies.append(reply)
        return reply

    def release(self) -> list[Reply]:
        """Wait until the group is durable; return the replies of the requests executed so far.

        Raises:
            StorageFatal: the disk cannot be trusted: send nothing, stop
        """
        self._check_executing()
        if self._store.is_unsynced:
            self._store.sync()
        replies, self._replies = self._replies, []
        return replies

    def sync(self) -> list[Reply]:
        """Wait until the group is durable, end it, and return the replies not returned yet.

        Raises:
            StorageFatal: the disk cannot be trusted: send nothing, stop
        """
        if self.state is not OPEN:
            self._check_executing()
        if self._executed != len(self._writes):
            raise AssertionError("not all writes of the group were executed, but the log has them")
        store = self._store
        if store.is_unsynced:
            store.sync()
        self.state = ENDED
        store.open_group = None
        return self._replies
