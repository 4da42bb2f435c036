"""The log on an etcd cluster, to which several servers append; `layout` has its keys, `appends` how one appends.

The answer to an append says how many groups were appended before, by the tail as it was; if one of them has not come
yet, the append waits for the watch (`feed`) to deliver it.

A barrier reads the tail linearizably, and then waits until the watch has delivered as much. It always asks, after the
request that needs it has arrived: a server that slept through the night knows nothing from before that it could serve.
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from kvzmq import errors
from kvzmq.store.etcd.appends import RESOLVE_S_MAX, Appends, AppendState
from kvzmq.store.etcd.client import (
    EtcdClient,
    EtcdCompacted,
    EtcdError,
)
from kvzmq.store.etcd.feed import Bell, Feed
from kvzmq.store.etcd.layout import Keys
from kvzmq.store.etcd.reader import Group, Tail, find_position, read_groups, read_tail
from kvzmq.store.etcd.reserve import Reserve, stored_bytes
from kvzmq.store.log import SEMANTICS, Checkpoint

APPEND_S_MAX = 1.0
"""How long an append waits for its answer, and for the groups before it, before its fate is left open."""

BARRIER_S_MAX = 0.5
BARRIER_AGAIN_S_MAX = 0.1
"""How long a barrier waits; and the next ones, after one has failed, until one succeeds."""

BARRIER_PATIENT_EVERY_S = 2.0
"""How often one of these waits for BARRIER_S_MAX all the same: etcd may answer again, and take longer than the others
wait.
"""

LAG_S_MAX = 0.3
"""How long a watch may lag behind what the cluster has, before another member is asked for one."""

RECOVERY_TRIES_MAX = 5
"""How often recovery begins again because the log was trimmed while it was being read."""


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
        self.reserve = Reserve()
        """Refuses to append what there is no room for; its upkeep tells how much there is."""
        self.client = client
        self._keys = Keys(name)
        self._appends = Appends(client, self._keys, self.server)
        self._checkpoints = checkpoints
        self._feed: Feed | None = None
        self._bell = Bell()
        self._cluster_id = 0
        self._arrived: deque[Group] = deque()  # taken from the feed, and not returned yet
        self._patient_from_s = 0.0  # from when on a barrier waits for BARRIER_S_MAX, `time.monotonic`

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
                except (errors.LogTrimmed, EtcdCompacted):
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
        self._feed = Feed(self.client, self._keys, self._bell, self._appends.own, tail.number, tail.revision)

    def _step_to(self, group: Group) -> bytes:
        self.semantics, self.group, self.position = group.semantics, group.number, group.position
        self.log_bytes += len(group.content)
        return group.content

    # ---- appending

    @property
    def stored_bytes(self) -> int:
        """How much the members' files have grown at most by the groups returned or appended; see `reserve`."""
        return stored_bytes(self.log_bytes, self.group)

    @property
    def state(self) -> AppendState:
        """What is known of the latest append."""
        return self._appends.state

    def append(self, group: bytes) -> Sequence[bytes]:
        """Append `group`; return what others have appended before it. It is durable at once; see Log.append."""
        if self.state is not AppendState.IDLE:
            raise AssertionError("nothing is appended while the fate of a group is unknown")
        try:
            feed = self._following()
        except errors.LogTrimmed as error:
            raise errors.WriteRejected(f"not applied: {error}") from error
        self.reserve.admit(self.stored_bytes + stored_bytes(len(group), 1))
        deadline_s = time.monotonic() + APPEND_S_MAX
        self.log_bytes += len(group)  # counted even if it is rejected: nothing but upkeep is decided by it
        self._appends.begin(group, deadline_s)
        return self._wait_for_others(feed, deadline_s)

    def resolve(self) -> Sequence[bytes]:
        """Find out what became of the group whose append raised AppendUnknown; see Log.resolve.

        It waits for RESOLVE_S_MAX or twice that, and raises AppendUnknown; the next call waits on.
        """
        feed = self._feed
        if feed is None or self.state is AppendState.IDLE:
            raise AssertionError("no append is unknown")
        until_s = time.monotonic() + RESOLVE_S_MAX
        try:
            self._appends.ask()
        except errors.WriteRejected:
            if feed.failed is not None:
                feed.ring()  # `receive` has not told while the fate of the group was open
            raise
        return self._wait_for_others(feed, until_s)

    def _wait_for_others(self, feed: Feed, deadline_s: float) -> Sequence[bytes]:
        """Return the groups before the one that has landed, when they have come; then it is the last one.

        Raises:
            AppendUnknown: they have not come in time
        """
        landed = self._appends.landed
        if landed is not None and landed[0] <= self.group:
            raise self._gone_back(landed[0] - 1)
        if landed is None or landed[0] != self.group + 1:
            try:
                landed = self._wait_for_landed(feed, deadline_s)
            except errors.LogTrimmed as error:
                # A checkpoint has the group, so that it would be executed a second time here.
                raise errors.StorageFatal(
                    f"{error}; and what it has appended itself is in there: start again"
                ) from error
            if landed is None:
                raise errors.AppendUnknown("the group is in the log, but not all that come before it have come yet")
        number, position = landed
        others = self._return_before(number)
        self.group, self.position = number, position
        self._appends.forget()
        if self._arrived:
            feed.ring()
        return others

    def _wait_for_landed(self, feed: Feed, deadline_s: float) -> tuple[int, int] | None:
        """Wait until all that comes before the own group was delivered; return its number and position, or None."""
        while True:
            landed = self._look_for_landed(feed)
            self._take(feed)
            number = feed.number + 1 if landed is None else landed[0] - 1
            if landed is not None and feed.number >= number:
                return landed
            if not self._wait(feed, number, deadline_s):
                return None

    def _look_for_landed(self, feed: Feed) -> tuple[int, int] | None:
        """Return number and position of the own group whose fate was unknown, if they are known now."""
        appends = self._appends
        if appends.landed is None:  # its number is known when the watch delivers it
            key, number, position = feed.own_delivered
            if key == appends.key:
                appends.landed = number, position
        return appends.landed

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
            if self.state is AppendState.IDLE:
                raise
            return ()  # first it has to be known what became of the own group
        self._take(feed)
        return self._return_arrived(feed)

    def _return_arrived(self, feed: Feed) -> Sequence[bytes]:
        """Return what has come, up to a group of unknown fate; what comes before that is known once it is delivered."""
        landed = None if self.state is AppendState.IDLE else self._look_for_landed(feed)
        return self._return_before(feed.number + 1 if landed is None else landed[0])

    def barrier(self) -> Sequence[bytes]:
        """Return what a linearizable read has to see; see Log.barrier.

        Raises:
            LogUnreachable: etcd does not answer in time, or the watch does not deliver what it has
        """
        began_s = time.monotonic()
        is_patient = began_s >= self._patient_from_s
        wait_s = BARRIER_S_MAX if is_patient else BARRIER_AGAIN_S_MAX
        deadline_s = began_s + wait_s
        try:
            feed = self._following()
            tail = read_tail(self.client, self._keys, timeout_s=wait_s)
        except (EtcdError, errors.LogTrimmed) as error:
            if is_patient:
                self._patient_from_s = time.monotonic() + BARRIER_PATIENT_EVERY_S
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
        self._patient_from_s = 0.0
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
        if self.state is not AppendState.IDLE:
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
        """Return what `stats` says of the log.

        etcd_member            which is asked first
        etcd_server            this server's part of the keys
        etcd_append            what is known of the latest append: idle, or see AppendState
        etcd_groups_waiting    how many groups have come and were not applied yet
        etcd_watches           how often a watch was begun
        etcd_watch_trouble     why the latest one ended, until the next one has begun
        """
        feed = self._feed
        return {
            "etcd_member": self.client.address,
            "etcd_server": self.server,
            "etcd_append": self.state.value,
            "etcd_groups_waiting": 0 if feed is None else max(0, feed.number - self.group),
            "etcd_watches": 0 if feed is None else feed.streams,
            "etcd_watch_trouble": None if feed is None else feed.trouble,
        }

    def close(self) -> None:
        """Stop following the log, and remove the server's key."""
        if self._feed is not None:
            self._feed.close()
            self._feed = None
        self._bell.close()
        self._appends.close()
        self.client.close()
