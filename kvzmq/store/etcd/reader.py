"""The groups of a log on etcd, read by their keys: at the start, and where a watch cannot go on.

A watch delivers what happens from a revision on, as long as etcd keeps the history since; the keys stay until they are
trimmed. So what was put before is found by listing keys, and put in order by the revisions of their puts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

from kvzmq import errors
from kvzmq.store.etcd import messages_pb2 as pb
from kvzmq.store.etcd.client import EtcdClient, EtcdUnknown, EtcdUnreachable, prefix_end, range_op
from kvzmq.store.etcd.layout import Keys, Pieces, check, decode

LISTED_MAX = 10_000
"""How many keys are listed at a time, without their values."""

READ_MAX = 100
"""How many groups are read at a time; etcd takes 128 operations in a transaction unless told otherwise."""

READ_BYTES = 1 << 20
"""How many bytes of groups are aimed at in one answer."""


TRIES_MAX = 5
TRY_AGAIN_S = 0.2
"""How often all members are asked for the same groups, and how long the pause between is."""

Answer = TypeVar("Answer")


class Group(NamedTuple):
    """A group of the log.

    number     its number, from 1 on; the version of the tail when it was put
    position   etcd's revision when it was put
    key        the key it was put under
    semantics  the version it was written under
    content    the group
    """

    number: int
    position: int
    key: bytes
    semantics: int
    content: bytes


class Tail(NamedTuple):
    """Where the log ends.

    number      of the last group; 0 if there is none
    position    etcd's revision when that was put
    revision    etcd's revision as of which this is so
    cluster_id  of the cluster that said so
    """

    number: int
    position: int
    revision: int
    cluster_id: int


def tail_of(response: pb.RangeResponse) -> Tail:
    """Return where the log ends, from the answer to a range of the tail's key."""
    number, position = (response.kvs[0].version, response.kvs[0].mod_revision) if response.kvs else (0, 0)
    return Tail(number, position, response.header.revision, response.header.cluster_id)


def read_tail(client: EtcdClient, keys: Keys, timeout_s: float | None = None) -> Tail:
    """Return where the log ends, linearizably.

    Raises:
        EtcdError: etcd does not say
    """
    return tail_of(client.range(keys.tail, timeout_s=timeout_s))


def read_groups(client: EtcdClient, keys: Keys, number: int, position: int, tail: Tail) -> Iterator[Group]:
    """Yield the groups after number `number`, put at `position`, up to the tail.

    Raises:
        LogTrimmed: some of them are gone
        CorruptionError, WrittenByNewer: one is not what was written, or not known
        EtcdError: etcd does not answer
    """
    found = _list(client, keys, position, tail.revision)
    if len(found) != tail.number - number:
        raise errors.LogTrimmed(
            f"etcd keys {keys.log.decode()}: {len(found)} groups after group {number}, "
            f"but there should be {tail.number - number}"
        )
    taken, count = 0, 8
    while taken < len(found):
        some = found[taken : taken + count]
        values = _read(client, [key for _, key in some], tail.revision)
        for (put_at, key), value in zip(some, values):
            taken += 1
            semantics, content = read_content(client, keys, key, value)
            yield Group(number + taken, put_at, key, semantics, content)
        length = sum(map(len, values)) + 1
        count = max(1, min(READ_MAX, count * 2, count * READ_BYTES // length))


def find_position(client: EtcdClient, keys: Keys, number: int) -> int | None:
    """Return etcd's revision when a group was put; None if the group was trimmed, or there is none yet.

    Raises:
        EtcdError: etcd does not answer
    """
    tail = read_tail(client, keys)
    found = _list(client, keys, 0, tail.revision)
    behind = tail.number - number
    return found[len(found) - 1 - behind][0] if 0 <= behind < len(found) else None


def _list(client: EtcdClient, keys: Keys, position: int, revision: int) -> list[tuple[int, bytes]]:
    """Return position and key of the groups put after `position`, in their order, as of `revision`."""
    found: list[tuple[int, bytes]] = []
    first, end = keys.log, prefix_end(keys.log)
    while True:
        page = client.range(first, end, limit=LISTED_MAX, revision=revision, keys_only=True)
        found += [(kv.mod_revision, kv.key) for kv in page.kvs if kv.mod_revision > position]
        if not page.more:
            return sorted(found)
        first = page.kvs[-1].key + b"\0"


def _read(client: EtcdClient, group_keys: Sequence[bytes], revision: int) -> list[bytes]:
    operations = [range_op(key) for key in group_keys]
    for operation in operations:
        operation.request_range.revision = revision
    response = _insist(lambda: client.txn((), operations, repeatable=True))
    found = [each.response_range.kvs[0].value for each in response.responses if each.response_range.kvs]
    if len(found) != len(group_keys):
        raise errors.LogTrimmed("groups were trimmed while they were being read")
    return found


def _insist(ask: Callable[[], Answer]) -> Answer:
    """Return the answer of etcd, after a few tries: while it elects a leader, none of its members has one."""
    for _ in range(TRIES_MAX - 1):
        try:
            return ask()
        except (EtcdUnknown, EtcdUnreachable):
            time.sleep(TRY_AGAIN_S)
    return ask()


def read_content(client: EtcdClient, keys: Keys, key: bytes, value: bytes) -> tuple[int, bytes]:
    """Return semantics and content of the group of a log key; read its pieces if it has them.

    Raises:
        LogTrimmed: pieces are gone
        CorruptionError, WrittenByNewer, EtcdError: as `read_groups`
    """
    semantics, content = decode(key, value)
    if not isinstance(content, Pieces):
        return semantics, content
    parts = []
    for number in range(content.pieces):
        piece = keys.chunk(key, number)
        found = _insist(partial(client.range, piece)).kvs
        if not found:
            raise errors.LogTrimmed(
                f"etcd key {keys.chunk(key, number).decode()} is missing: a piece of a group is gone"
            )
        parts.append(found[0].value)
    group = b"".join(parts)
    if len(group) != content.length:
        raise errors.CorruptionError(f"etcd key {key.decode()}: the group has {len(group)} of {content.length} bytes")
    check(key, value, group)
    return semantics, group
