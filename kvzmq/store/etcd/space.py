"""The room that etcd has, what uses it, and what is done when it is used up.

etcd keeps every version of every key until it is compacted, and its file never shrinks until it is defragmented. When
a member's file reaches the quota (2 GiB unless it was started with another), it raises the alarm NOSPACE, and from then
on every put to any member is refused, until the alarm is disarmed. Deleting alone does not help. `recover` does what
does: compact, delete half-written checkpoints, defragment the members one after the other, disarm. If what is left
still fills the quota, only a larger quota helps, or fewer rows.

Where the servers of a table alone fill etcd it does not come to that: they stop while there is room for a checkpoint
(`reserve`), and `make_room` does the same while etcd still takes puts, under the lock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from kvzmq import errors
from kvzmq.store.etcd.checkpoints import (
    Keys,
    Lock,
    data_prefix,
    end_of,
    lock_key,
    read_head,
    remove_garbage,
    trim,
    trimmable,
)
from kvzmq.store.etcd.client import EtcdError, EtcdNotAllowed
from kvzmq.units import size

QUOTA_BYTES = 2 << 30
"""etcd's quota unless it is started with another; etcd tells it from version 3.6 on only."""

FULL_SHARE = 0.75
"""What part of the quota may be in use before it is warned of. A checkpoint is written beside the one before it."""

DISARM_SHARE = 0.9
"""What part of the quota may be used for the alarm to be disarmed: above it would soon be raised again."""

FREED_SHARE_MIN = 64
"""What part of the quota has to be free in a member's file for it to be defragmented while etcd still takes puts."""

DEFRAGMENT_SHARE = 0.5
"""What part of the quota a member's file has to have for it to be defragmented; another server may have done it."""

SETTLE_S = 0.5
SETTLE_LOOKS_MAX = 120
"""How often, and how many times, a member is asked whether it still frees what was compacted. It frees 1,000 keys at a
time, with pauses of 10 ms or more between."""


class Status(NamedTuple):
    """What a member says of its file, and of itself.

    file_bytes    its length; this is what the quota limits
    in_use_bytes  without the pages that are free
    quota_bytes   the quota, 0 if it does not say
    no_space      whether an alarm NOSPACE is raised, by any member
    is_corrupt    whether an alarm CORRUPT is
    version       of etcd
    has_leader    whether it knows who leads the cluster
    leads         whether it does itself
    applied       the index of the last entry of etcd's own log that it has applied
    """

    file_bytes: int
    in_use_bytes: int
    quota_bytes: int
    no_space: bool
    is_corrupt: bool = False
    version: str = ""
    has_leader: bool = True
    leads: bool = False
    applied: int = 0


class Members(Protocol):
    """The members of a cluster, each asked by its address. Calls raise EtcdError when one does not answer."""

    addresses: Sequence[str]

    def status(self, address: str) -> Status:
        """Return what a member says of its file and itself."""

    def defragment(self, address: str) -> None:
        """Have a member write its file anew; it answers nothing meanwhile, about a second for 100 MiB."""

    def disarm(self) -> None:
        """End the alarm NOSPACE of all members."""

    def compact(self, revision: int) -> None:
        """Have etcd forget what was overwritten or deleted before `revision`, and wait until it has."""

    def delete(self, first: str, end: str) -> None:
        """Delete a range of keys, which etcd does without room, too."""


class Recovered(NamedTuple):
    """What came of `recover`.

    before_bytes, after_bytes  the largest file of a member
    quota_bytes                the quota
    disarmed                   whether changes are possible again
    """

    before_bytes: int
    after_bytes: int
    quota_bytes: int
    disarmed: bool

    def __str__(self) -> str:
        done = f"etcd's files were defragmented from {size(self.before_bytes)} to {size(self.after_bytes)}"
        if self.disarmed:
            return f"{done}, and changes are possible again"
        return (
            f"{done}, which still fills the quota of {size(self.quota_bytes)}: start the members with a larger "
            "--quota-backend-bytes (8 GiB at most), then `etcdctl alarm disarm`"
        )


def recover(
    keys: Keys,
    members: Members,
    name: str,
    quota_bytes: int = QUOTA_BYTES,
    sleep: Callable[[float], object] = time.sleep,
) -> Recovered:
    """Make room in an etcd whose quota is used up, and have it take changes again if there is enough.

    The newest checkpoint is kept, and every group behind it; no margin is left to servers that are behind.

    Args:
        quota_bytes: the quota, if the members do not tell it
    """
    found = _statuses(members)
    quota_bytes = max(status.quota_bytes for status in found.values()) or quota_bytes
    before_bytes = max(status.file_bytes for status in found.values())
    remove_garbage_by_force(keys, members, name)
    trim_by_force(keys, members, name)
    members.compact(keys.get()[0])
    for address, status in _when_compacted(members, name, found, sleep).items():
        if status.file_bytes > DEFRAGMENT_SHARE * quota_bytes:
            members.defragment(address)
    after_bytes = max(members.status(address).file_bytes for address in found)
    disarmed = after_bytes <= DISARM_SHARE * quota_bytes
    if disarmed:
        members.disarm()
    return Recovered(before_bytes, after_bytes, quota_bytes, disarmed)


class Room(NamedTuple):
    """How much room there is for puts.

    free_bytes    between the pages that are in use and the quota: as much as a file has when it was defragmented
    growth_bytes  between the length of the file and the quota: as much as is certain without that, as pages that are
                  free between others may not do for a long value
    """

    free_bytes: int
    growth_bytes: int

    def does_for(self, wanted: Room) -> bool:
        """Whether it is at least as much as wanted."""
        return self.free_bytes >= wanted.free_bytes and self.growth_bytes >= wanted.growth_bytes


def room_of(statuses: Iterable[Status], quota_bytes: int) -> Room:
    """Return how much room all of these members have."""
    rooms = [(quota_bytes - status.in_use_bytes, quota_bytes - status.file_bytes) for status in statuses]
    return Room(*map(min, zip(*rooms)))


def make_room(
    held: Lock,
    keys: Keys,
    members: Members,
    name: str,
    wanted: Room,
    quota_bytes: int = QUOTA_BYTES,
    sleep: Callable[[float], object] = time.sleep,
) -> Room:
    """Free what the newest checkpoint makes superfluous, if there is less room than wanted; returns how much there is.

    No margin is left to servers that are behind. Members are defragmented one after the other, where it is of use.
    Nothing is put from the compaction on until then: etcd compacts by writing anew the pages of what it keeps, so a log
    that is still there may be in a file twice.

    Args:
        held: the lock of the checkpoints
        quota_bytes: the quota, if the members do not tell it

    Raises:
        LockLost: another server is at work
        WriteRejected: etcd does not let this server defragment
    """
    found = _statuses(members)
    quota_bytes = max(status.quota_bytes for status in found.values()) or quota_bytes
    if not room_of(found.values(), quota_bytes).does_for(wanted):
        remove_garbage(held, keys, name)
        head = read_head(keys, name)
        if head is not None:
            trim(held, keys, name, head.position)
        members.compact(keys.get()[0])
        found = _when_compacted(members, name, found, sleep)
        for address, status in found.items():
            is_short = quota_bytes - status.file_bytes < wanted.growth_bytes
            if is_short and status.file_bytes - status.in_use_bytes >= quota_bytes // FREED_SHARE_MIN:
                _defragment(members, address)
        found = {address: members.status(address) for address in found}
    return room_of(found.values(), quota_bytes)


def _defragment(members: Members, address: str) -> None:
    try:
        members.defragment(address)
    except EtcdNotAllowed as error:
        raise errors.WriteRejected(
            f"{error}; give this server's user of etcd the role root, or run `etcdctl defrag --cluster` now and then"
        ) from error


def _statuses(members: Members) -> dict[str, Status]:
    """Return what the members say that answer: one that is down raises the alarm again when it is back, if it has to.

    Raises:
        EtcdError: none does
    """
    found: dict[str, Status] = {}
    silent: EtcdError | None = None
    for address in members.addresses:
        try:
            found[address] = members.status(address)
        except EtcdError as error:
            silent = error
    if silent is not None and not found:
        raise silent
    return found


def _when_compacted(
    members: Members, name: str, addresses: Iterable[str], sleep: Callable[[float], object]
) -> dict[str, Status]:
    """Return what the members say when no more of their files becomes free: only the one that was asked has waited."""
    found = {address: members.status(address) for address in addresses}
    for _ in range(SETTLE_LOOKS_MAX):
        # Pages that a change has freed count as free after the next one: this changes nothing, and needs no room.
        members.delete(f"{lock_key(name)}/", f"{lock_key(name)}0")
        sleep(SETTLE_S)
        before, found = found, {address: members.status(address) for address in found}
        if all(found[address].in_use_bytes >= before[address].in_use_bytes for address in found):
            break
    return found


def remove_garbage_by_force(keys: Keys, members: Members, name: str) -> None:
    """Delete pieces of checkpoints that were not finished, without holding the lock, which cannot be put.

    The order makes it safe. Whose pieces are listed first, held the lock then; with the lock deleted, it can put
    nothing more, no head either; and if it had put its head before, that is read after it.
    """
    prefix, after = data_prefix(name), ""
    ids: list[str] = []
    while found := keys.list(prefix, after, 1):
        ids.append(found[0].key.removeprefix(prefix).partition("/")[0])
        after = end_of(data_prefix(name, ids[-1]))
    members.delete(lock_key(name), lock_key(name) + "\0")
    head = read_head(keys, name)
    for id in ids:
        if head is None or id != head.id:
            members.delete(data_prefix(name, id), end_of(data_prefix(name, id)))


def trim_by_force(keys: Keys, members: Members, name: str) -> None:
    """Delete the groups that the checkpoint holds, without holding the lock: whoever else does deletes the same."""
    head = read_head(keys, name)
    while head is not None and (deletes := trimmable(keys, name, head.position)[0]):
        for first, end in deletes:
            members.delete(first, end)


def describe(status: Status, quota_bytes: int) -> dict[str, Any]:
    """Return what `stats` says of the room, of the member with the largest file."""
    return {
        "etcd_file_bytes": status.file_bytes,
        "etcd_in_use_bytes": status.in_use_bytes,
        "etcd_quota_bytes": status.quota_bytes or quota_bytes,
        "etcd_no_space": status.no_space,
    }
