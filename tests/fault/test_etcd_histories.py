"""Random histories of several logs on one etcd table: everything that can be lost is lost, in every order.

Three logs append, read, fall behind, crash and trim, while requests, answers and watches are lost at random. Whatever
happens: an acknowledged group is in the log once, and seen by every barrier after it; a rejected one is not, and never
appears; and all agree on one order.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from random import Random

import msgspec
import pytest
from support.etcd_cluster import EtcdCluster
from support.etcd_log import EtcdTable, FaultyClient, FaultyLog

from kvzmq import errors
from kvzmq.store.etcd import appends, etcd_log, feed, layout
from kvzmq.store.etcd.appends import AppendState
from kvzmq.store.etcd.client import EtcdClient, EtcdError
from kvzmq.store.log import Checkpoint

PATIENCE_S = 120.0

IMPATIENT_S = {"BARRIER_S_MAX": 0.2, "BARRIER_AGAIN_S_MAX": 0.05, "APPEND_S_MAX": 0.3, "LAG_S_MAX": 0.05}
"""How long a log waits in a history; in its end it waits as long as ever, until a busy machine's etcd has answered."""


class Member:
    """A log, and the groups it has handed out."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.applied: list[bytes] = []
        self.pending: bytes | None = None
        self.ended = False
        self.log: FaultyLog = history.table.open()
        self.recover()

    def recover(self) -> None:
        self.applied = []
        for found in self.log.recover():
            if isinstance(found, Checkpoint):
                self.applied += msgspec.msgpack.decode(b"".join(found.sections))
            else:
                self.applied.append(found)

    def append(self) -> None:
        """Append a new group, or ask for the one of unknown fate."""
        group = self.pending if self.pending is not None else self.history.next_group()
        try:
            others = self.log.append(group) if self.pending is None else self.log.resolve()
        except errors.AppendUnknown:
            self.pending = group
        except errors.WriteRejected:
            self.pending = None
            self.history.rejected.add(group)
        except errors.StorageFatal:
            self.ended = True  # behind the trimming with a group of its own: what became of it is not said
        else:
            self.pending = None
            self.applied += [*others, group]
            self.history.acknowledged.append(group)

    def read(self) -> bool:
        """Read linearizably, and check that everything acknowledged is seen."""
        if self.pending is not None:
            return False
        before = list(self.history.acknowledged)
        try:
            self.applied += self.log.barrier()
        except errors.LogUnreachable:
            return False
        missing = set(before) - set(self.applied)
        assert not missing, f"acknowledged, and not seen by a barrier: {missing}"
        return True

    def receive(self) -> None:
        try:
            self.applied += self.log.receive()
        except errors.LogTrimmed:
            self.recover()

    def trim(self, random: Random) -> None:
        """Write a checkpoint of what was applied, and drop the groups; perhaps the history, too."""
        self.log.client.mend()
        if self.pending is not None or not self.read():
            return
        self.log.write_checkpoint(Checkpoint(self.log.seal(), iter([msgspec.msgpack.encode(self.applied)])))
        self.log.truncate(self.log.group)
        if random.random() < 0.5:
            with contextlib.suppress(errors.KvzmqError):
                self.log.client.compact(self.log.client.range(b"x").header.revision)

    def crash(self) -> None:
        """End without a word, as SIGKILL would; the key of the server stays."""
        if self.log._feed is not None:
            self.log._feed.close()
        self.log.client.close()
        self.log._bell.close()
        self.history.table.logs.remove(self.log)


class History:
    """The logs of one table, what was said of their groups, and what is done to them."""

    def __init__(self, table: EtcdTable, random: Random) -> None:
        self.table = table
        self.random = random
        self.number = 0
        self.acknowledged: list[bytes] = []
        self.rejected: set[bytes] = set()
        self.members = [Member(self) for _ in range(3)]
        self.courier = EtcdClient(table.addresses)

    def next_group(self) -> bytes:
        self.number += 1
        return b"%d" % self.number + (bytes(3000) if self.random.random() < 0.1 else b"")

    def step(self) -> None:
        random, index = self.random, self.random.randrange(3)
        member = self.members[index]
        client = member.log.client
        chance = random.random()
        if chance < 0.4:
            member.append()
        elif chance < 0.5:
            member.read()
        elif chance < 0.65:
            member.receive()
        elif chance < 0.8:
            random.choice((client.lose_answers, client.lose_requests))(random.choice((1, 2, 4, 5)))
        elif chance < 0.82:
            client.end_watches()
        elif chance < 0.84:
            client.hold_watches(random.randrange(1, 4))
        elif chance < 0.88:
            client.mend()
        elif chance < 0.95:
            self.deliver_late(client)
        elif chance < 0.97:
            member.trim(random)
        elif chance < 0.98:
            member.ended = True
        if member.ended:
            member.crash()
            self.members[index] = Member(self)

    def deliver_late(self, client: FaultyClient) -> None:
        """Have one of the latest transactions of a client arrive once more, or at last."""
        if client.transactions:
            with contextlib.suppress(EtcdError):  # a read of what etcd has forgotten meanwhile; or it was lost again
                self.courier.transact(self.random.choice(client.transactions[-4:]))

    def end(self) -> list[bytes]:
        """Mend everything, and check that all agree."""
        until_s = time.monotonic() + PATIENCE_S
        for index in range(3):
            self.members[index].log.client.mend()
            while self.members[index].pending is not None:
                assert time.monotonic() < until_s
                self.members[index].append()
                if self.members[index].ended:
                    self.members[index].crash()
                    self.members[index] = Member(self)
        for member in self.members:
            while not member.read():
                assert time.monotonic() < until_s
                member.receive()
        newcomer = Member(self)
        for member in self.members:
            assert member.applied == newcomer.applied
        assert len(set(newcomer.applied)) == len(newcomer.applied), "a group is in the log twice"
        assert not self.rejected & set(newcomer.applied), "a rejected group is in the log"
        self.courier.close()
        return newcomer.applied


def test_no_history_loses_repeats_or_hides_a_group(
    etcd_cluster: EtcdCluster,
    etcd_name: str,
    monkeypatch: pytest.MonkeyPatch,
    full: bool,
    count: Callable[[str, int], None],
) -> None:
    """Guarantees 1, 2, 4, 5, 7 and 11.

    Seen red without the comparison, without the barrier, with groups in the order of their keys, with an append that
    does not wait for those before it, with a missing group skipped, and with a trimmed key taken for none ever put.
    """
    for module, name, value in (
        (appends, "INLINE_BYTES_MAX", 2000),
        (appends, "CHUNK_BYTES", 1000),
        (layout, "CHUNK_BYTES", 1000),
        (feed, "BACKOFF_S_MAX", 0.1),
    ):
        monkeypatch.setattr(module, name, value)
    groups = 0
    for seed in range(60 if full else 4):
        table = EtcdTable(etcd_cluster.addresses, f"{etcd_name}/{seed}")
        with monkeypatch.context() as impatient:
            for name, seconds in IMPATIENT_S.items():
                impatient.setattr(etcd_log, name, seconds)
            history = History(table, Random(seed))
            for _ in range(150):
                history.step()
        groups += len(history.end())
        assert history.acknowledged and any(member.log.state is AppendState.IDLE for member in history.members)
        table.close()
    count("groups of random histories on etcd", groups)
