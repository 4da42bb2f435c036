"""Checkpoints of a table that are kept in etcd, and the log trimmed behind them.

    NAME/checkpoint              the head, JSON: which checkpoint there is (Head)
    NAME/checkpoint/data/ID/N    its content in pieces of CHUNK_BYTES, N from 00000000 on
    NAME/checkpoint/lock         who is writing one: the ID of the checkpoint to come
    NAME/trimmed                 an etcd revision, decimal: groups put until then may be gone; absent if none are

The content is the file of `store.file.checkpoint`, whose frames and footer have checksums, so a copy of it on a disk is
a file like any other. The head is small and is put by one transaction, so a reader finds the old checkpoint or the new
one. A reader that is slower than two replacements finds pieces missing, and begins again with the newest head.

One server at a time writes: the one whose ID the lock holds. Every write is a transaction that compares the lock, so
one who was stopped and wakes up after another has taken the lock over writes nothing any more. No clock of etcd and no
lease decides that. Each write also puts the lock again; who finds it unchanged for LOCK_STALE_S by its own clock takes
it over.

Trimming deletes groups, with the pieces of long ones, by the etcd revision at which they were put. What a server
compares when it appends is not touched (see `layout`), so a put that is tried again after its group was trimmed is
refused, not appended a second time.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Protocol, Union
from zlib import crc32

import msgspec

from kvzmq import errors
from kvzmq.store.file.files import File

CHUNK_BYTES = 512 << 10
"""A piece of a checkpoint. A request to etcd is at most 1.5 MiB; smaller ones delay the log's appends by less."""

LOCK_STALE_S = 30.0
"""How long a lock that is not put again is respected, seconds. Its owner puts it with each piece."""

LOCK_KEEP_S = 5.0
"""How often it is put at least, also while there is no piece to write, seconds."""

SERVERS_MAX = 50
"""Of how many servers one transaction deletes groups and pieces; etcd takes 128 operations by default."""

RANGE_KEYS_MAX = 5000
"""How many keys are listed at a time."""

READS_MAX = 5
"""How often reading begins again because the checkpoint was replaced meanwhile."""


class Found(NamedTuple):
    """A key and its value, and the revision of etcd at which it was put."""

    key: str
    value: bytes
    put_at: int


Values = Sequence[tuple[str, Union[bytes, None]]]
"""Keys and the values that they are to have, None for a key that is to be absent."""

Puts = Sequence[tuple[str, bytes]]
"""Keys and their new values."""

Ranges = Sequence[tuple[str, str]]
"""Ranges of keys, each from its first key to the one before its second."""


class Keys(Protocol):
    """What is asked of etcd here. Each call is bounded in time, and raises EtcdError when it has no answer.

    A transaction may be executed twice, when its first answer was lost. So each of those here either does the same
    again, or fails the second time and then looks whether the first one was executed.
    """

    def get(self, *keys: str) -> tuple[int, dict[str, Found]]:
        """Return etcd's revision, and those of `keys` that are there, as of one moment."""

    def list(self, prefix: str, after: str, limit: int, put_until: int = 0) -> Sequence[Found]:
        """Return keys that begin with `prefix` and come after `after`, in order and without their values.

        Args:
            put_until: only those put at this revision or before, if not 0
        """

    def transact(self, equal: Values, put: Puts = (), delete: Ranges = ()) -> int | None:
        """Delete and put if the keys of `equal` have these values; else return None.

        Returns:
            etcd's revision after that
        """

    def compact(self, revision: int) -> None:
        """Have etcd forget what was overwritten or deleted before `revision`; nothing if it has already."""


class Head(msgspec.Struct, frozen=True):
    """Which checkpoint there is.

    id        of its pieces, random
    group     the number of the last group it holds
    position  etcd's revision when that was put
    bytes     the length of the file
    chunks    how many pieces it has
    crc       the CRC-32 of the whole file
    revision  the table's
    rows      how many it has
    version   of the layout
    """

    id: str
    group: int
    position: int
    bytes: int
    chunks: int
    crc: int
    revision: int = 0
    rows: int = 0
    version: int = 1


class Content(NamedTuple):
    """What a checkpoint holds: the last group and its position, and the table's revision and number of rows."""

    group: int
    position: int
    revision: int
    rows: int


class LockLost(errors.KvzmqError):
    """Somebody else writes a checkpoint: this process must not go on with its own."""


class Replaced(errors.KvzmqError):
    """The checkpoint was replaced while it was being read: read the newest one."""


_decode_head: Callable[[bytes], Head] = msgspec.json.Decoder(Head).decode


def head_key(name: str) -> str:
    """Return the key of a table's head."""
    return f"{name}/checkpoint"


def lock_key(name: str) -> str:
    """Return the key of the lock."""
    return f"{name}/checkpoint/lock"


def trimmed_key(name: str) -> str:
    """Return the key that says how far the log is trimmed."""
    return f"{name}/trimmed"


def log_prefix(name: str) -> str:
    """Return what the keys of the groups begin with: then come the server's id, a slash, and a number."""
    return f"{name}/log/"


def pieces_prefix(name: str) -> str:
    """Return what the keys of the pieces of long groups begin with: then come the server's id, SEQ, and a number."""
    return f"{name}/chunk/"


def data_prefix(name: str, id: str = "") -> str:
    """Return what the keys of the pieces of one checkpoint, or of all, begin with."""
    return f"{name}/checkpoint/data/{id}/" if id else f"{name}/checkpoint/data/"


def chunk_key(name: str, id: str, number: int) -> str:
    """Return the key of a piece."""
    return f"{data_prefix(name, id)}{number:08}"


def decode_head(name: str, value: bytes) -> Head:
    """Decode a head.

    Raises:
        CorruptionError, WrittenByNewer: it is not one, or not one that this version knows
    """
    try:
        head = _decode_head(value)
    except msgspec.MsgspecError as error:
        raise errors.CorruptionError(f"etcd key {head_key(name)}: not the head of a checkpoint: {error}") from None
    if head.version > Head.__struct_defaults__[-1]:
        raise errors.WrittenByNewer(
            f"etcd key {head_key(name)}: written by a newer version of kvzmq (checkpoint {head.version}): "
            "update this one"
        )
    return head


def end_of(prefix: str) -> str:
    """Return the first key after all that begin with `prefix`."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)


# ---- reading


def read_head(keys: Keys, name: str) -> Head | None:
    """Return which checkpoint there is, or None."""
    _, found = keys.get(head_key(name))
    present = found.get(head_key(name))
    return None if present is None else decode_head(name, present.value)


def download(keys: Keys, name: str, head: Head, file: File) -> None:
    """Write the checkpoint that `head` names to an empty file.

    Raises:
        Replaced: pieces are gone, as there is a newer checkpoint
        CorruptionError: it is not what was written
        OSError: the file cannot be written
    """
    offset = crc = 0
    for number in range(head.chunks):
        key = chunk_key(name, head.id, number)
        _, found = keys.get(key)
        if key not in found:
            current = read_head(keys, name)
            if current is not None and current.id == head.id:
                raise errors.CorruptionError(f"etcd key {key} is missing: a piece of the checkpoint is gone")
            raise Replaced(f"the checkpoint {head.id} of {name} was replaced")
        data = found[key].value
        file.write(offset, data)
        offset += len(data)
        crc = crc32(data, crc)
    if (offset, crc) != (head.bytes, head.crc):
        raise errors.CorruptionError(
            f"etcd keys {data_prefix(name, head.id)}: {offset} bytes with CRC {crc:08x}, "
            f"the head says {head.bytes} with {head.crc:08x}"
        )


# ---- writing


class Lock:
    """The right to write checkpoints and to trim, held by one process at a time; made by `lock`.

    Args:
        clock: seconds that only grow
    """

    def __init__(self, keys: Keys, name: str, id: str, clock: Callable[[], float]) -> None:
        self.id = id
        self._keys = keys
        self._name = name
        self._clock = clock
        self._kept_s = clock()

    def transact(
        self,
        put: Puts = (),
        delete: Ranges = (),
        equal: Values = (),
        release: bool = False,
    ) -> int:
        """Put and delete if the lock is still ours; returns etcd's revision.

        Raises:
            LockLost: it is not, or the keys of `equal` have other values: nothing was done
        """
        key, value = lock_key(self._name), self.id.encode()
        if release:
            delete = [*delete, (key, key + "\0")]
        else:
            put = [*put, (key, value)]
        revision = self._keys.transact([(key, value), *equal], put, delete)
        if revision is None:
            raise LockLost(f"another server has taken over the checkpoint of {self._name}")
        self._kept_s = self._clock()
        return revision

    def keep(self) -> None:
        """Show that the owner is at work, if it has not for LOCK_KEEP_S."""
        if self._clock() - self._kept_s >= LOCK_KEEP_S:
            self.transact()


@contextmanager
def lock(
    keys: Keys,
    name: str,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
    stale_s: float = LOCK_STALE_S,
) -> Iterator[Lock]:
    """Take the lock, and give it back in the end.

    A lock that another process holds is taken over when it has not been put again for `stale_s`.

    Raises:
        LockLost: another process is at work
    """
    id = secrets.token_hex(8)
    _take(keys, name, id, clock, sleep, stale_s)
    held = Lock(keys, name, id, clock)
    try:
        yield held
    finally:
        # Without effect if it is somebody else's, or was given back together with the last write.
        key = lock_key(name)
        keys.transact([(key, id.encode())], delete=[(key, key + "\0")])


def _take(
    keys: Keys, name: str, id: str, clock: Callable[[], float], sleep: Callable[[float], object], stale_s: float
) -> None:
    key = lock_key(name)
    seen: Found | None = None
    since_s = clock()
    while True:
        _, found = keys.get(key)
        present = found.get(key)
        if present is not None and present.value == id.encode():
            return
        if present is None:
            if keys.transact([(key, None)], put=[(key, id.encode())]) is not None:
                return
            continue
        if seen is not None and present.put_at != seen.put_at:
            raise LockLost(f"another server writes a checkpoint of {name}")
        seen = present
        if clock() - since_s >= stale_s:
            # If its owner is alive after all, each of its writes fails from here on.
            if keys.transact([(key, present.value)], put=[(key, id.encode())]) is None:
                seen, since_s = None, clock()
            continue
        sleep(min(1.0, stale_s / 4))


Pace = Callable[[float], object]
"""Waits so many seconds, or not."""


def upload(held: Lock, keys: Keys, name: str, file: File, content: Content, pace: Pace = time.sleep) -> Head:
    """Make the content of `file` the checkpoint of a table, in place of the one there is.

    Between pieces as long a pause is made as the latest one took, so that half of etcd is left to the log.

    Args:
        content: what is in it
        pace: makes the pauses

    Raises:
        LockLost: another server is at work, or has written a later checkpoint: nothing has changed
        OSError: the file cannot be read
    """
    key = head_key(name)
    _, found = keys.get(key)
    before = found[key].value if key in found else None
    if before is not None and decode_head(name, before).group >= content.group:
        raise LockLost(f"there is a checkpoint of {name} that holds as much")
    remove_garbage(held, keys, name)
    chunks = crc = offset = 0
    length = file.size()
    while offset < length:
        began_s = time.monotonic()
        data = file.read(offset, CHUNK_BYTES)
        held.transact(put=[(chunk_key(name, held.id, chunks), data)])
        crc = crc32(data, crc)
        offset += len(data)
        chunks += 1
        pace(time.monotonic() - began_s)
    group, position, revision, rows = content
    head = Head(held.id, group, position, length, chunks, crc, revision, rows)
    try:
        held.transact(put=[(key, msgspec.json.encode(head))], equal=[(key, before)])
    except LockLost:
        if read_head(keys, name) != head:
            raise
    remove_garbage(held, keys, name)
    return head


def remove_garbage(held: Lock, keys: Keys, name: str) -> int:
    """Delete the pieces of checkpoints that the head does not name; returns how many of these there were.

    They are left by a process that was killed while it wrote, or replaced one.
    """
    head = read_head(keys, name)
    prefix, after, removed = data_prefix(name), "", 0
    while True:
        found = keys.list(prefix, after, 1)
        if not found:
            return removed
        id = found[0].key.removeprefix(prefix).partition("/")[0]
        pieces = data_prefix(name, id)
        if head is None or id != head.id:
            held.transact(delete=[(pieces, end_of(pieces))])
            removed += 1
        after = end_of(pieces)


# ---- trimming


def trim(held: Lock, keys: Keys, name: str, position: int) -> int:
    """Delete the groups put until etcd's revision `position`, which the checkpoint holds; returns how many.

    Raises:
        LockLost: another server is at work, or the checkpoint does not hold them
    """
    key = trimmed_key(name)
    _, found = keys.get(head_key(name), key)
    head = found.get(head_key(name))
    if head is None or decode_head(name, head.value).position < position:
        raise LockLost(f"there is no checkpoint of {name} that holds the groups put until {position}")
    before = found[key].value if key in found else None
    if trimmed_until(before) < position:
        held.transact(put=[(key, b"%d" % position)], equal=[(key, before)])
    trimmed, until = 0, max(position, trimmed_until(before))
    while True:
        deletes, count = trimmable(keys, name, until)
        if not deletes:
            return trimmed
        held.transact(delete=deletes)
        trimmed += count


def trimmable(keys: Keys, name: str, position: int) -> tuple[list[tuple[str, str]], int]:
    """Return ranges of keys of groups put until then, with their pieces, and how many groups; some at a time."""
    deletes: list[tuple[str, str]] = []
    groups = 0
    for first, last, count in _ranges_until(keys, name, position):
        server, _, seq = last.removeprefix(log_prefix(name)).rpartition("/")
        pieces = f"{pieces_prefix(name)}{server}/"
        deletes += [(first, f"{last}\0"), (pieces, end_of(f"{pieces}{seq}/"))]
        groups += count
    return deletes, groups


def _ranges_until(keys: Keys, name: str, position: int) -> list[tuple[str, str, int]]:
    """Return ranges of keys, from their first to their last, of groups put until then, and how many each has.

    A server's keys are in the order of its groups, so those to be deleted are the first ones of each server.
    """
    ranges: list[tuple[str, str, int]] = []
    for found in keys.list(log_prefix(name), "", RANGE_KEYS_MAX, put_until=position):
        server = found.key.rpartition("/")[0]
        if ranges and ranges[-1][0].rpartition("/")[0] == server:
            first, _, count = ranges[-1]
            ranges[-1] = first, found.key, count + 1
        elif len(ranges) == SERVERS_MAX:
            break
        else:
            ranges.append((found.key, found.key, 1))
    return ranges


def trimmed_until(value: Union[bytes, None]) -> int:
    """Return until when groups are put that may be gone, from the value of `trimmed_key`; 0 if none are."""
    return 0 if value is None else int(value)
