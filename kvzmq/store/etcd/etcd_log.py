"""The log on an etcd cluster, to which several servers append; `layout` has its keys.

An append is one transaction. It compares the revision at which this server's own key was put last, then puts that key,
the tail, and the group under a key of its own. Sent twice, the second one fails: so it can be sent again, to another
member, whenever an answer is missing. The answer says how many groups were appended before, by the tail as it was; if
one of them has not come yet, the append waits for the watch to deliver it.

    IDLE ──a long group──> PIECES ──all are there──┐
     └──────────────────────────────────────────> SENT ──its answer──> LANDED ──those before it have come──> IDLE
                                                    └──no answer──> OPEN ──it is in the log──> LANDED
                                                                     └──fenced: it never will be──> IDLE

OPEN is settled by a second transaction: while the server's key is as the append would have found it, the key is
deleted, after which an append that is still on its way cannot succeed any more. A deletion is possible, too, when the
quota is used up. The next append registers the server again.

A barrier reads the tail linearizably, and then waits until the watch has delivered as much. It always asks, after the
request that needs it has arrived: a server that slept through the night knows nothing from before that it could serve.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections import deque
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Any, NamedTuple, NoReturn, Protocol

import grpc

from kvzmq import errors, units
from kvzmq.store.etcd import messages_pb2 as pb
from kvzmq.store.etcd.client import (
    EtcdClient,
    EtcdError,
    EtcdRefused,
    delete_op,
    is_absent,
    prefix_end,
    put_op,
    range_op,
    was_changed_at,
)
from kvzmq.store.etcd.feed import Bell, Feed
from kvzmq.store.etcd.layout import CHUNK_BYTES, INLINE_BYTES_MAX, Keys, encode_chunked, encode_inline
from kvzmq.store.etcd.pieces import PieceWriter
from kvzmq.store.etcd.reader import Group, Tail, find_position, read_groups, read_tail
from kvzmq.store.log import SEMANTICS, Checkpoint

APPEND_S_MAX = 1.0
"""How long an append waits for its answer, and for the groups before it, before its fate is left open."""

PIECES_S_MAX = 10.0
"""How long the pieces of a long group may take in all, before it is refused."""

BARRIER_S_MAX = 0.5
BARRIER_AGAIN_S_MAX = 0.1
"""How long a barrier waits; and the next ones, after one has failed, until one succeeds."""

RESOLVE_S_MAX = 0.05
"""How long one call of `resolve` waits: clients are served in between."""

ANSWER_S_MAX = 1.0
"""How long `resolve` waits in all for one answer, before it asks another member."""

LAG_S_MAX = 0.3
"""How long a watch may lag behind what the cluster has, before another member is asked for one."""

RECOVERY_TRIES_MAX = 5
"""How often recovery begins again because the log was trimmed while it was being read."""

FAREWELL_S_MAX = 0.3
"""How long a server that stops takes to remove its key."""


class Found(NamedTuple):
    """A checkpoint, and where the log goes on behind it.

    checkpoint  its group is the number of the last one it holds
    position    etcd's revision when that was put
    """

    checkpoint: Checkpoint
    position: int


class Checkpoints(Protocol):
    """The checkpoints of a table."""

    def newest(self) -> Found | None:
        """Return the newest one, or None if there is none."""

    def write(self, found: Found) -> None:
        """Replace it, durably and atomically; raises OSError if it could not be done."""

    def truncate(self, group: int, position: int) -> None:
        """Drop the groups up to the one put at `position`; raises OSError if it could not be done."""


class AppendState(Enum):
    """The state of the latest append.

    IDLE    it was answered
    PIECES  its pieces are on their way, and the group itself was not sent
    SENT    it was sent, and the answer may come yet
    OPEN    the answer will not come: it may be in the log, or get there yet
    LANDED  it is in the log, and groups before it have not come yet
    """

    IDLE = "idle"
    PIECES = "pieces"
    SENT = "sent"
    OPEN = "open"
    LANDED = "landed"


_IDLE, _PIECES, _SENT, _OPEN, _LANDED = AppendState


class EtcdLog:
    """The Log of one server on a table that an etcd cluster keeps.

    Args:
        client: of the cluster; closed with the log
        name: the table's
        checkpoints: of the table; without any the log is recovered from its first group on, and is never trimmed
    """

    block_s_max = APPEND_S_MAX

    def __init__(self, client: EtcdClient, name: str, checkpoints: Checkpoints | None = None) -> None:
        self.name = name
        self.server = secrets.token_hex(8)
        """What tells this server's keys from those of others."""
        self.semantics = SEMANTICS
        self.group = 0
        """The number of the last group that was returned or appended."""
        self.position = 0
        """Etcd's revision when that was put."""
        self.log_bytes = 0
        """How many bytes of groups were returned or appended."""
        self.state = _IDLE
        self.client = client
        self._keys = Keys(name)
        self._own = self._keys.group(self.server, 0)[:-16]
        self._server_key = self._keys.server(self.server)
        self._checkpoints = checkpoints
        self._feed: Feed | None = None
        self._bell = Bell()
        self._cluster_id = 0
        self._arrived: deque[Group] = deque()  # taken from the feed, and not returned yet
        self._registered_at = 0  # the revision at which the server's key was put last; 0 if it is not there
        self._seq = 0
        self._key = b""  # of the latest append
        self._landed: tuple[int, int] | None = None  # number and position of the latest append, if they are known
        self._answer: tuple[Any, str] | None = None  # to what `resolve` has asked, and whom
        self._why = ""  # the answer of the latest append is missing
        self._value = b""  # of the latest append
        self._pieces: PieceWriter | None = None
        self._barrier_s = BARRIER_S_MAX

    # ---- recovery

    def recover(self) -> Iterator[Checkpoint | bytes]:
        """Yield the checkpoint and the groups after it; see Log.recover. Once more after LogTrimmed.

        Raises:
            StorageFatal: etcd does not answer, or is trimmed faster than it can be read
        """
        if self._feed is not None:
            self._feed.close()
            self._feed = None
        self._arrived.clear()
        try:
            for last in (False,) * (RECOVERY_TRIES_MAX - 1) + (True,):
                found = None if self._checkpoints is None else self._checkpoints.newest()
                tail = read_tail(self.client, self._keys)
                number, position = (0, 0) if found is None else (found.checkpoint.group, found.position)
                groups = read_groups(self.client, self._keys, number, position, tail)
                try:
                    first = next(groups, None)
                except errors.LogTrimmed:
                    if last:
                        raise
                    continue
                break
            self._cluster_id = tail.cluster_id
            self.group, self.position = number, position
            if found is not None:
                yield found.checkpoint
            if first is not None:
                yield self._step_to(first)
                for group in groups:
                    yield self._step_to(group)
        except (EtcdError, errors.LogTrimmed) as error:
            raise errors.StorageFatal(f"the table {self.name} cannot be read from etcd: {error}") from error
        self.semantics = SEMANTICS
        self._feed = Feed(self.client, self._keys, self._bell, self._own, tail.number, tail.revision)

    def _step_to(self, group: Group) -> bytes:
        self.semantics, self.group, self.position = group.semantics, group.number, group.position
        self.log_bytes += len(group.content)
        return group.content

    # ---- appending

    def append(self, group: bytes) -> Sequence[bytes]:
        """Append `group`; return what others have appended before it. It is durable at once; see Log.append."""
        if self.state is not _IDLE:
            raise AssertionError("nothing is appended while the fate of a group is unknown")
        try:
            feed = self._following()
        except errors.LogTrimmed as error:
            raise errors.WriteRejected(f"not applied: {error}") from error
        deadline_s = time.monotonic() + APPEND_S_MAX
        if not self._registered_at:
            self._register(APPEND_S_MAX)
        self._seq += 1
        self.log_bytes += len(group)  # counted even if it is rejected: nothing but upkeep is decided by it
        self._key = self._keys.group(self.server, self._seq)
        self._landed = None
        if len(group) <= INLINE_BYTES_MAX:
            self._value = encode_inline(group)
        else:
            self._value = encode_chunked(group)
            self._pieces = PieceWriter(self.client, self._piece_transactions(group), time.monotonic() + PIECES_S_MAX)
            self.state = _PIECES
            self._advance_pieces(APPEND_S_MAX / 2)
        self.state = _SENT
        try:
            answer = self.client.transact(
                self._transaction(self._value), repeatable=True, timeout_s=deadline_s - time.monotonic()
            )
        except EtcdRefused as error:
            self._give_up(str(error))
        except EtcdError as error:
            self.state, self._why = _OPEN, str(error)
            raise errors.AppendUnknown(self._why) from error
        self._note_answer(answer)
        return self._wait_for_others(feed, deadline_s)

    def _note_answer(self, answer: pb.TxnResponse) -> None:
        """Note what became of the group, from the answer to its transaction; raises as `_note_landed`."""
        if not answer.succeeded:
            self._note_landed(answer)
            return
        number, position = answer.responses[1].response_put.prev_kv.version + 1, answer.header.revision
        if number <= self.group:
            raise self._gone_back(number - 1)
        self.state, self._landed, self._registered_at = _LANDED, (number, position), position

    def _wait_for_others(self, feed: Feed, deadline_s: float) -> Sequence[bytes]:
        """Return the groups before the one that has landed, when they have come; then it is the last one.

        Raises:
            AppendUnknown: they have not come in time
        """
        if self._landed is None or self._landed[0] != self.group + 1:
            try:
                is_whole = self._wait_for_landed(feed, deadline_s)
            except errors.LogTrimmed as error:
                # A checkpoint has the group, so that it would be executed a second time here.
                raise errors.StorageFatal(
                    f"{error}; and what it has appended itself is in there: start again"
                ) from error
            if not is_whole:
                raise errors.AppendUnknown("the group is in the log, but not all that come before it have come yet")
        assert self._landed is not None
        number, position = self._landed
        others = self._return_before(number)
        self.group, self.position = number, position
        self._forget_append()
        if self._arrived:
            feed.ring()
        return others

    def _forget_append(self) -> None:
        self.state, self._why, self._key, self._value, self._pieces = _IDLE, "", b"", b"", None

    def _transaction(self, value: bytes) -> pb.TxnRequest:
        return pb.TxnRequest(
            compare=[was_changed_at(self._server_key, self._registered_at)],
            success=[
                put_op(self._server_key, b"%d" % self._seq),
                put_op(self._keys.tail, b"", prev_kv=True),
                put_op(self._key, value),
            ],
            failure=[range_op(self._server_key), range_op(self._key, keys_only=True)],
        )

    def _register(self, timeout_s: float) -> None:
        """Put the server's key, if it is not there.

        Raises:
            WriteRejected: it could not be done; nothing was appended
        """
        try:
            answer = self.client.txn(
                [is_absent(self._server_key)],
                [put_op(self._server_key, b"%d" % self._seq)],
                [range_op(self._server_key)],
                repeatable=True,
                timeout_s=timeout_s,
            )
        except EtcdError as error:
            raise errors.WriteRejected(f"not applied: {error}") from error
        if answer.succeeded:
            self._registered_at = answer.header.revision
        else:
            self._registered_at = answer.responses[0].response_range.kvs[0].mod_revision

    def _piece_transactions(self, group: bytes) -> Iterator[pb.TxnRequest]:
        for number, offset in enumerate(range(0, len(group), CHUNK_BYTES)):
            yield pb.TxnRequest(
                compare=[was_changed_at(self._server_key, self._registered_at)],
                success=[put_op(self._keys.chunk(self._key, number), group[offset : offset + CHUNK_BYTES])],
            )

    def _advance_pieces(self, timeout_s: float) -> None:
        """Return when the pieces of the group are there.

        Raises:
            AppendUnknown: they are not there yet: go on later
            WriteRejected: they cannot be put
        """
        assert self._pieces is not None
        try:
            if not self._pieces.advance(timeout_s):
                raise errors.AppendUnknown("a long group is on its way to etcd, piece by piece")
        except EtcdError as error:
            chunks = self._keys.chunks(self._key)
            with contextlib.suppress(EtcdError):
                self.client.txn(
                    [was_changed_at(self._server_key, self._registered_at)],
                    [delete_op(self._server_key), delete_op(chunks, prefix_end(chunks))],  # no piece comes after this
                    repeatable=True,
                    timeout_s=FAREWELL_S_MAX,
                )
            self._registered_at = 0
            self._give_up(
                f"this step is longer than {units.size(INLINE_BYTES_MAX)}, and its pieces could not be put: "
                f"{error}. Write less at a time"
            )

    # ---- an append whose answer is missing

    def resolve(self) -> Sequence[bytes]:
        """Find out what became of the group whose append raised AppendUnknown; see Log.resolve.

        It waits for RESOLVE_S_MAX and raises AppendUnknown; the next call waits on.
        """
        feed = self._feed
        assert feed is not None
        until_s = time.monotonic() + RESOLVE_S_MAX
        if self.state is _IDLE:
            raise AssertionError("no append is unknown")
        if self.state is _PIECES:
            self._advance_pieces(RESOLVE_S_MAX)
            self.state = _SENT
        if self.state is _SENT:
            self._note_answer(self._await_answer(self._transaction(self._value)))
        if self.state is _OPEN:
            answer = self._await_answer(self._fence_transaction())
            if answer.succeeded:
                self._registered_at = 0
                self._give_up(self._why)
            self._note_landed(answer)
        return self._wait_for_others(feed, until_s)

    def _fence_transaction(self) -> pb.TxnRequest:
        return pb.TxnRequest(
            compare=[was_changed_at(self._server_key, self._registered_at)],
            success=[delete_op(self._server_key)],
            failure=[range_op(self._server_key), range_op(self._key, keys_only=True)],
        )

    def _note_landed(self, answer: pb.TxnResponse) -> None:
        """Note what the answer to a transaction says whose comparison has failed.

        Raises:
            WriteRejected: the group is not in the log, and never will be
        """
        own, group = (each.response_range.kvs for each in answer.responses)
        if own and own[0].value == b"%d" % self._seq:
            self._registered_at = own[0].mod_revision
            self.state = _LANDED
        elif group:
            self._registered_at = own[0].mod_revision if own else 0
            self.state = _LANDED
        else:
            self._registered_at = own[0].mod_revision if own else 0
            self._give_up(self._why or f"etcd has no key {self._server_key.decode()}: try again")

    def _give_up(self, why: str) -> NoReturn:
        self._forget_append()
        if self._feed is not None and self._feed.failed is not None:
            self._feed.ring()
        raise errors.WriteRejected(f"not applied: {why}")

    def _await_answer(self, request: pb.TxnRequest) -> pb.TxnResponse:
        """Return the answer to `request`, which was sent by an earlier call or is now.

        Raises:
            AppendUnknown: it is not there yet, or will not come: then the fate of the group is open
        """
        if self._answer is None:
            address = self.client.address
            try:
                self._answer = self.client.future(request, ANSWER_S_MAX), address
            except EtcdError as error:
                self.client.move_on(address)
                raise errors.AppendUnknown(str(error)) from error
        future, address = self._answer
        try:
            answer: pb.TxnResponse = future.result(timeout=RESOLVE_S_MAX)
        except grpc.FutureTimeoutError:
            raise errors.AppendUnknown(f"etcd at {address} has not answered yet") from None
        except grpc.RpcError as error:
            self._answer = None
            self.client.move_on(address)
            why = str(self.client.explain(error, address))
            self.state, self._why = _OPEN, self._why or why
            raise errors.AppendUnknown(why) from error
        self._answer = None
        return answer

    def _wait_for_landed(self, feed: Feed, deadline_s: float) -> bool:
        """Wait until all that comes before the own group was delivered; say whether it was."""
        while True:
            if self._landed is None:  # its number is known when the watch delivers it
                key, number, position = feed.own_delivered
                if key == self._key:
                    self._landed = number, position
            self._take(feed)
            number = feed.number + 1 if self._landed is None else self._landed[0] - 1
            if self._landed is not None and feed.number >= number:
                return True
            if not self._wait(feed, number, deadline_s):
                return False

    # ---- what others append

    def _following(self) -> Feed:
        """Return the feed.

        Raises:
            LogTrimmed: the next groups are not in the log any more
            StorageFatal: it cannot be followed
        """
        if self._feed is None:
            raise AssertionError("recover the log first")
        error = self._feed.failed
        if error is None:
            return self._feed
        if isinstance(error, errors.LogTrimmed):
            raise errors.LogTrimmed(f"this server is behind what is left of the log of {self.name}: {error}") from error
        raise errors.StorageFatal(f"the log of {self.name} cannot be followed: {error}") from error

    def _take(self, feed: Feed) -> None:
        taken = feed.take()
        self._arrived.extend(group for group in taken if group.number > self.group)

    def _wait(self, feed: Feed, number: int, deadline_s: float) -> bool:
        """Wait for a group of the feed, or for room in it; False when the time is over."""
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            return False
        before = feed.number
        if not feed.wait_for(number, min(left_s, LAG_S_MAX)) and left_s > LAG_S_MAX and feed.number == before:
            feed.restart(LAG_S_MAX)
        self._following()
        return True

    def _return_before(self, number: int) -> Sequence[bytes]:
        """Return the groups that have come and are before the one of this number."""
        found = []
        while self._arrived and self._arrived[0].number < number:
            group = self._arrived.popleft()
            if group.semantics != SEMANTICS:
                raise errors.StorageFatal(
                    f"another server on {self.name} appends under version {group.semantics} of the semantics, this one "
                    f"knows them as version {SEMANTICS}: run one version of kvzmq on all"
                )
            self.group, self.position = group.number, group.position
            self.log_bytes += len(group.content)
            found.append(group.content)
        return found

    def receive(self) -> Sequence[bytes]:
        """Return the groups of others that have come; see Log.receive."""
        assert self._feed is not None
        self._feed.clear_bell()
        try:
            feed = self._following()
        except errors.LogTrimmed:
            if self.state is _IDLE:
                raise
            return ()  # first it has to be known what became of the own group
        self._take(feed)
        return self._return_arrived(feed)

    def _return_arrived(self, feed: Feed) -> Sequence[bytes]:
        """Return what has come, up to a group of unknown fate; what comes before that is known once it is delivered."""
        if self.state is _IDLE:
            return self._return_before(feed.number + 1)
        if self._landed is None and feed.own_delivered[0] == self._key:
            self._landed = feed.own_delivered[1:]
        return self._return_before(feed.number + 1 if self._landed is None else self._landed[0])

    def barrier(self) -> Sequence[bytes]:
        """Return what a linearizable read has to see; see Log.barrier.

        Raises:
            LogUnreachable: etcd does not answer in time, or the watch does not deliver what it has
        """
        deadline_s = time.monotonic() + self._barrier_s
        try:
            feed = self._following()
            tail = read_tail(self.client, self._keys, timeout_s=self._barrier_s)
        except (EtcdError, errors.LogTrimmed) as error:
            self._barrier_s = BARRIER_AGAIN_S_MAX
            raise errors.LogUnreachable(str(error)) from error
        self._check(tail)
        self._take(feed)
        try:
            while feed.number < tail.number and self.group < tail.number:
                if not self._wait(feed, tail.number, deadline_s):
                    raise errors.LogUnreachable(
                        f"etcd has {tail.number - feed.number} groups that have not arrived here yet"
                    )
                self._take(feed)
        except errors.LogTrimmed as error:
            raise errors.LogUnreachable(str(error)) from error
        self._barrier_s = BARRIER_S_MAX
        return self._return_arrived(feed)

    def _check(self, tail: Tail) -> None:
        if tail.cluster_id != self._cluster_id:
            raise errors.StorageFatal(f"another etcd cluster answers where that of {self.name} was: start again")
        if tail.number < self.group:
            raise self._gone_back(tail.number)

    def _gone_back(self, number: int) -> errors.StorageFatal:
        return errors.StorageFatal(
            f"the log of {self.name} ends with group {number}, and had group {self.group}: etcd was put back from an "
            "older snapshot"
        )

    def sync(self) -> None:
        """Return: what etcd has answered is on the disks of a majority."""

    def descriptors(self) -> Sequence[int]:
        """Return the descriptor that is readable when others' groups have come."""
        return (self._bell.fileno(),)

    # ---- checkpoint and truncation

    def seal(self) -> int:
        """Return the number of the last group; see Log.seal."""
        if self.state is not _IDLE:
            raise AssertionError("the fate of a group is unknown")
        return self.group

    def write_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint; see Log.write_checkpoint."""
        position = self._position_of(checkpoint.group)
        if position is None:
            raise errors.StorageFatal(
                f"the log of {self.name} was trimmed behind a checkpoint that was not written yet"
            )
        self._kept().write(Found(checkpoint, position))

    def truncate(self, group: int) -> None:
        """Drop the groups up to `group`; see Log.truncate."""
        position = self._position_of(group)
        if position is not None:
            self._kept().truncate(group, position)

    def _position_of(self, group: int) -> int | None:
        """Return etcd's revision when a group was put; None if it is not there any more."""
        return self.position if group == self.group else find_position(self.client, self._keys, group)

    def _kept(self) -> Checkpoints:
        if self._checkpoints is None:
            raise AssertionError("the log was opened without checkpoints")
        return self._checkpoints

    # ---- the rest

    def describe(self) -> dict[str, Any]:
        """Return what `stats` says of the log."""
        feed = self._feed
        return {
            "etcd_member": self.client.address,
            "etcd_server": self.server,
            "etcd_group": self.group,
            "etcd_group_delivered": self.group if feed is None else max(self.group, feed.number),
            "etcd_watches": 0 if feed is None else feed.streams,
            "etcd_watch_trouble": None if feed is None else feed.trouble,
        }

    def close(self) -> None:
        """Stop following the log, and remove the server's key."""
        if self._feed is not None:
            self._feed.close()
            self._feed = None
        self._bell.close()
        if self._registered_at:
            with contextlib.suppress(EtcdError):
                self.client.delete_range(self._server_key, timeout_s=FAREWELL_S_MAX)
        self.client.close()
