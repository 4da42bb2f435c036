"""What a server does for its table in etcd beside serving it: checkpoints, trimming, a copy on its disk, and room.

The loop calls `Upkeep.poll`, which decides and never waits. A thread (`poller`) asks etcd each second which checkpoint
there is and how much room; the work is done by a child process, one job at a time (`upkeep_process`):

    recover     the quota is used up: make room
    shorten     it is used up but for a checkpoint (`reserve`): write one, and make room behind it
    checkpoint  the log has outgrown the checkpoint: write a new one, unless another server does
    copy        there is a checkpoint that is not on this server's disk: fetch it
    trim        a checkpoint is older than the margin: delete the groups before it, have etcd forget old versions

Why a child: it builds a second table by recovering, as a server does at its start, and writes that down, so there is
one way in which a table comes from a log, and the server does not pause. The alternative, slices of the loop, would
need a table that stays as it was at one moment while it changes. A fork is out of the question beside gRPC's threads.

Every server does all of this; the lock of `checkpoints` sees to it that one at a time does. The margin is for servers
that are a little behind, because they were stopped or cut off: within it they find the groups they miss.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from kvzmq import errors, units
from kvzmq.store.child import Child
from kvzmq.store.etcd import reserve, space
from kvzmq.store.etcd.checkpoints import Head
from kvzmq.store.etcd.local_copy import LocalCopy, Seen
from kvzmq.store.etcd.poller import POLL_S, Answer, Measured, Poller
from kvzmq.store.etcd.reserve import Reserve
from kvzmq.store.etcd.space import Status
from kvzmq.store.file.files import File
from kvzmq.store.store import Store

LOG_BYTES_MIN = 64 << 20
"""No checkpoint is written before the log has grown by this much, unless another threshold is set."""

LOG_SHARE = 8
LOG_SHARE_FILLING = 32
"""A checkpoint is written when the log has grown by this part of etcd's quota, where that is less than LOG_BYTES_MIN;
and by a smaller part when the quota fills."""

ROOM_CHECKPOINTS = 1.25
"""A checkpoint is written earlier where there is not room for so many beside the one that is reserved: when it is
there, the one before it still takes its room until etcd has compacted."""

ROOM_UNKNOWN = 1 << 62
"""How much room there is taken to be where nobody knows the quota."""

URGENT_SHARE = 0.5
"""Where less than this part of the quota is left for the log, the members are asked for their size at each poll."""

LOG_GROUPS_MIN = 20_000
CHECKPOINT_BYTES_PER_GROUP = 4 << 10
"""A checkpoint is written, too, when there are more groups than this, and more than one for so many bytes of the
checkpoint: a restart read 30,000 groups of one small request each in 5 s, so their number counts, not their length."""

MARGIN_S = 60.0
"""How long groups are kept that a checkpoint holds, seconds: that long a server may be stopped or cut off and find the
groups it has missed. One that is further behind starts again from the checkpoint."""

SEEN_S = 1.0
"""How often a server notes on its disk what it has served."""

JITTER_S = 2.0
"""Servers whose log has grown too long at the same moment begin within this time; the first one's checkpoint is for
all."""

LEFT_TO_ANOTHER = 75
"""The exit code of a child that has found another server at the same work (EX_TEMPFAIL of sysexits.h)."""

RETRY_S = 1.0
RETRY_S_MAX = 60.0

HEADS_MAX = 100
"""How many checkpoints are remembered until they are older than the margin."""

MODULE = "kvzmq.store.etcd.upkeep_process"

_log = logging.getLogger(__name__)


class Settings(msgspec.Struct, frozen=True):
    """What a child needs to know; given to it by its standard input, as there are secrets in it.

    addresses, ca, certificate, key, user, password  how to reach etcd
    name         the table's
    directory    the server's
    quota_bytes  of etcd's members, if these do not tell
    margin_s     see MARGIN_S
    """

    addresses: list[str]
    name: str
    directory: str
    ca: bytes | None = None
    certificate: bytes | None = None
    key: bytes | None = None
    user: str | None = None
    password: str | None = None
    quota_bytes: int = space.QUOTA_BYTES
    margin_s: float = MARGIN_S

    def __repr__(self) -> str:
        return f"Settings({self.name!r}, {self.addresses!r})"


class Watched(Protocol):
    """What the upkeep needs of the log."""

    group: int
    log_bytes: int
    """The bytes of the groups that this server has applied after the checkpoint it began with."""

    reserve: Reserve
    """Told how much the log may grow."""

    @property
    def stored_bytes(self) -> int:
        """How much etcd's files have grown by it at most; see `reserve`."""

    def describe(self) -> dict[str, Any]:
        """Return what `stats` says of it."""


class Upkeep:
    """Decides what is to be done for the log, and has it done.

    Args:
        store: the server's
        log: the store's
        poller: started and closed with this
        copy: on this server's disk
        settings: for the children
        generation: of the table, when it was recovered
        after_records, after_bytes: write a checkpoint when the log has grown by as much; by default by more than
            LOG_BYTES_MIN and the latest checkpoint
        clock: seconds that only grow
        start: starts a child
    """

    def __init__(
        self,
        store: Store,
        log: Watched,
        poller: Poller,
        copy: LocalCopy,
        settings: Settings,
        generation: str,
        head: Head | None = None,
        after_records: int | None = None,
        after_bytes: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
        start: Callable[..., Child] = Child,
    ) -> None:
        self._store = store
        self._log = log
        self._poller = poller
        self._copy = copy
        self._settings = settings
        self._generation = generation
        self._after_records = after_records
        self._after_bytes = after_bytes
        self._clock = clock
        self._jitter = jitter
        self._start_child = start
        self._child: Child | None = None
        self._job = ""
        self._began_s = 0.0
        self._head = head
        self._trimmed = 0
        self._heads: list[tuple[float, int, int]] = []  # when a head was seen first, its position, and etcd's revision
        self._bytes_before = 0  # of the log, when the head was seen
        self._records_before = 0
        self._requested = 0  # the group that somebody wants in a checkpoint
        self._due_s: float | None = None
        self._next_s = 0.0
        self._retry_s = RETRY_S
        self._seen: Seen | None = None
        self._seen_s = 0.0
        self._warned_share = space.FULL_SHARE
        self.completed: dict[str, int] = {}
        """Jobs done, by name."""
        self.failed = 0
        """Jobs that failed and were, or will be, tried again."""
        self.trouble: str | None = None
        """Why the latest one failed, or None."""
        poller.start()

    # ---- what the loop calls

    def poll(self) -> None:
        """Take note of what has ended or changed, and begin what is due, without waiting."""
        self._note_seen()
        answer = self._poller.latest
        if answer is not None:
            self._note_head(answer)
        self._renew_reserve()
        if self._child is not None:
            self._reap(self._child)
        elif answer is not None and self._clock() >= self._next_s:
            job = self._due(answer)
            if job:
                self._start(job)
        self._warn_of_room()

    def _note_head(self, answer: Answer) -> None:
        self._trimmed = answer.trimmed
        head = answer.head
        if head is None:
            return
        if self._head is None or head.id != self._head.id:
            self._head = head
            self._bytes_before, self._records_before = self._log.log_bytes, self._store.records
            self._due_s = None
        if not self._heads or self._heads[-1][1] != head.position:
            self._heads = [*self._heads, (self._clock(), head.position, answer.revision)][-HEADS_MAX:]

    def _due(self, answer: Answer) -> Sequence[str]:
        """Return the job that is to be done now, with its arguments; nothing if there is none."""
        status, head = self._status, self._head
        if status is not None and status.no_space:
            return ("recover",)
        if self._log.reserve.is_used_up:
            slack_bytes = reserve.slack_bytes(self._quota_bytes)
            checkpoint_bytes = reserve.with_margin(self._checkpoint_bytes())
            sizes = (checkpoint_bytes, self._reserved_bytes() + slack_bytes, 2 * slack_bytes)
            return ("shorten", str(self._log.group), *map(str, sizes))
        if self._is_checkpoint_due():
            self._due_s = self._clock() + JITTER_S * self._jitter() if self._due_s is None else self._due_s
            if self._requested > self._log_in_head or self._clock() >= self._due_s:
                return ("checkpoint", str(self._log_in_head))
        if head is not None and not self._copy.has(head):
            return ("copy",)
        margin_s = 0.0 if self._is_filling else self._settings.margin_s
        old = [each for each in self._heads if self._clock() - each[0] >= margin_s]
        if old and old[-1][1] > self._trimmed:
            return ("trim", str(old[-1][1]), str(old[-1][2]))
        return ()

    # ---- room

    @property
    def _status(self) -> Status | None:
        measured = self._poller.measured
        return None if measured is None else measured.status

    def _renew_reserve(self) -> None:
        """Tell the log how far it may grow, and have the members asked more often when that is not far."""
        measured = self._poller.measured
        is_urgent = self._store.trouble is not None
        if measured is not None:
            room_bytes = self._room_bytes(measured)
            self._log.reserve.renew(self._log.stored_bytes, room_bytes, self._quota_bytes)
            is_urgent |= measured.status.no_space or room_bytes < URGENT_SHARE * self._quota_bytes
        self._poller.is_urgent = is_urgent or self._log.reserve.is_used_up

    def _has_outgrown_default(self, status: Status) -> bool:
        """Whether the quota, which nobody has told, is larger than etcd's default."""
        is_told = status.quota_bytes or self._settings.quota_bytes != space.QUOTA_BYTES
        return not is_told and not status.no_space and status.file_bytes > space.QUOTA_BYTES

    def _room_bytes(self, measured: Measured) -> int:
        """Return how much may be appended until the room for a checkpoint is all that is left; or ROOM_UNKNOWN."""
        if self._has_outgrown_default(measured.status):
            return ROOM_UNKNOWN
        room = space.room_of([measured.status], self._quota_bytes)
        if room.growth_bytes <= reserve.slack_bytes(self._quota_bytes):
            return 0
        grown_bytes = self._log.stored_bytes - measured.stored_bytes
        return room.free_bytes - grown_bytes - self._reserved_bytes()

    def _checkpoint_bytes(self) -> int:
        """Return how long the next checkpoint will be, about; it is not thought to be shorter than the last one."""
        return max(self._store.dumped_bytes, 0 if self._head is None else self._head.bytes)

    def _reserved_bytes(self) -> int:
        measured = self._poller.measured
        written_bytes = 0 if measured is None else measured.written_bytes
        left_bytes = max(0, reserve.with_margin(self._checkpoint_bytes()) - written_bytes)
        return left_bytes + reserve.slack_bytes(self._quota_bytes)

    @property
    def _quota_bytes(self) -> int:
        status = self._status
        return (status.quota_bytes if status is not None else 0) or self._settings.quota_bytes

    @property
    def _is_filling(self) -> bool:
        """Whether so much of the quota is in use that the log is shortened early, and no margin is kept."""
        status = self._status
        return status is not None and status.in_use_bytes >= space.FULL_SHARE * self._quota_bytes

    @property
    def _log_in_head(self) -> int:
        return 0 if self._head is None else self._head.group

    def _is_checkpoint_due(self) -> bool:
        if self._requested > self._log_in_head:
            return True
        if self._after_records is not None:
            return self._store.records - self._records_before >= self._after_records
        grown = self._log.log_bytes - self._bytes_before
        if self._after_bytes is not None:
            return grown >= self._after_bytes
        checkpoint_bytes = 0 if self._head is None else self._head.bytes
        if self._is_filling and grown > self._quota_bytes // LOG_SHARE_FILLING:
            return True
        measured = self._poller.measured
        room_bytes = ROOM_UNKNOWN if measured is None else self._room_bytes(measured)
        if room_bytes < ROOM_CHECKPOINTS * checkpoint_bytes and grown > self._quota_bytes // LOG_SHARE_FILLING:
            return True
        groups = self._log.group - self._log_in_head
        log_bytes_min = min(LOG_BYTES_MIN, self._quota_bytes // LOG_SHARE)
        return grown > max(log_bytes_min, checkpoint_bytes) or groups > max(
            LOG_GROUPS_MIN, checkpoint_bytes // CHECKPOINT_BYTES_PER_GROUP
        )

    # ---- the child

    def _start(self, job: Sequence[str]) -> None:
        try:
            self._child = self._start_child(MODULE, *job, given=msgspec.json.encode(self._settings))
        except OSError as error:
            self._fail(f"cannot start a process: {error.strerror}")
            return
        self._job = job[0]
        self._began_s = self._clock()

    def _reap(self, child: Child) -> None:
        failure = child.failure()
        if failure is None:
            return
        self._child = None
        if child.code not in (0, LEFT_TO_ANOTHER):
            self._fail(failure)
            return
        # What was done is seen at the next poll; until then it would be begun again.
        self._poller.wake()
        self._next_s = self._clock() + 2 * POLL_S
        if child.code == LEFT_TO_ANOTHER:
            return
        self.completed[self._job] = self.completed.get(self._job, 0) + 1
        self.trouble = None
        self._retry_s = RETRY_S
        took_s = self._clock() - self._began_s
        _log.info(
            "etcd: %s done in %s", self._job, units.duration(took_s),
            extra={"event": f"etcd_{self._job}_done", "took_s": round(took_s, 3)},
        )  # fmt: skip

    def _fail(self, reason: str) -> None:
        self.failed += 1
        self.trouble = f"{self._job}: {reason}"
        self._next_s = self._clock() + self._retry_s
        _log.warning(
            "etcd: %s failed, next try in %.0f s: %s", self._job, self._retry_s, reason,
            extra={"event": f"etcd_{self._job}_failed", "retry_s": self._retry_s, "reason": reason},
        )  # fmt: skip
        self._retry_s = min(2 * self._retry_s, RETRY_S_MAX)

    # ---- backups

    def request_checkpoint(self) -> Callable[[], File | None]:
        """Have a checkpoint written that holds every group there is now, unless there is one; see Compaction."""
        group, failed = self._log.group, self.failed
        self._requested = max(self._requested, group)

        def open_when_written() -> File | None:
            head = self._head
            if head is not None and head.group >= group and self._copy.has(head):
                return self._copy.open(head)
            if self.failed > failed:
                raise errors.BackupFailed(f"the server could not write a checkpoint: {self.trouble}")
            return None

        return open_when_written

    # ---- what is told and noted

    def _note_seen(self) -> None:
        if self._clock() < self._seen_s:
            return
        self._seen_s = self._clock() + SEEN_S
        identity = self._store.identity()
        lineage, epoch = identity["lineage"], identity["epoch"]
        if lineage is None or epoch is None:
            return
        seen = Seen(self._settings.name, self._generation, lineage, epoch, self._store.revision)
        if seen != self._seen:
            try:
                self._copy.write_seen(seen)
            except OSError as error:
                self.trouble = f"note of what was served: {error}"
                return
            self._seen = seen

    def _warn_of_room(self) -> None:
        """Warn once of each further tenth of the quota that is in use, from FULL_SHARE on."""
        status = self._status
        if status is None:
            return
        quota_bytes = self._quota_bytes
        share = status.in_use_bytes / quota_bytes
        if share >= self._warned_share:
            _log.warning(
                "etcd: %s of the quota of %s are in use; see `kvzmq doctor`",
                units.size(status.in_use_bytes), units.size(quota_bytes),
                extra={"event": "etcd_filling", "in_use_bytes": status.in_use_bytes, "quota_bytes": quota_bytes},
            )  # fmt: skip
            self._warned_share = share + 0.1
        elif share < space.FULL_SHARE - 0.1:
            self._warned_share = space.FULL_SHARE

    def describe(self) -> dict[str, Any]:
        """Return what `stats` says of log, checkpoint and etcd's room."""
        head, answer = self._head, self._poller.latest
        return {
            "log_bytes": self._log.log_bytes - self._bytes_before,
            "log_records": self._store.records - self._records_before,
            "checkpoint_bytes": 0 if head is None else head.bytes,
            "checkpoint_group": 0 if head is None else head.group,
            "last_group": self._log.group,
            "trimmed_position": 0 if answer is None else answer.trimmed,
            "compaction_running": self._child is not None,
            "compactions": self.completed.get("checkpoint", 0),
            "compactions_failed": self.failed,
            "compaction_trouble": self.trouble,
            "etcd_trouble": self._poller.trouble,
            **self._log.describe(),
            **self._poller.members.describe(),
            **self._describe_room(),
        }

    def _describe_room(self) -> dict[str, Any]:
        measured = self._poller.measured
        if measured is None:
            return {}
        return {
            **space.describe(measured.status, self._settings.quota_bytes),
            "etcd_reserved_bytes": self._reserved_bytes(),
            "etcd_room_bytes": 0 if self._log.reserve.is_used_up else max(0, self._room_bytes(measured)),
        }

    def close(self) -> None:
        """End what runs: etcd and the directory are consistent at any moment."""
        if self._child is not None:
            self._child.kill()
            self._child = None
        self._poller.close()
        self._seen_s = 0.0
        self._note_seen()
        self._copy.close()
