"""A store on a forgetful disk, beside a witness that forgets nothing.

The witness is a table of its own to which every group that the store acknowledged is applied, and a
note of what each session's requests got. At most one group is in doubt: the one in which the process
died. After every recovery the store's whole dump, rows and cached replies and deadlines, must be the
witness's with or without that group, and every acknowledged request, sent again, must get its first reply.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from msgspec import Raw

from kvzmq import errors
from kvzmq.protocol import msgpack, operations
from kvzmq.protocol.declaration import Operation
from kvzmq.protocol.messages import Reply, Request
from kvzmq.store.file.compaction import compact_sealed
from kvzmq.store.file.file_log import NAME_SEALED, FileLog
from kvzmq.store.log import Log
from kvzmq.store.store import Store
from kvzmq.store.table import Table
from support.forgetful import Crash, Disk
from support.wire import results_of

RETRIES = 6
"""How many of the latest requests of each session are sent again after a recovery."""


def request(session: bytes | None, seq: int, *ops: Operation) -> Request:
    """Make a request as it would come from the wire."""
    decoded = msgpack.decode_request(msgpack.encode_request(session, seq, ops))
    assert isinstance(decoded, Request), decoded
    return decoded


def commit(log: Log, group: bytes) -> None:
    """Append a group to a log that nobody else appends to, and sync."""
    assert not log.append(group)
    log.sync()


def apply(store: Store, requests: Sequence[Request], time_us: int) -> list[Reply]:
    """Run one group of a store, as the dispatcher does."""
    group = store.begin(requests, time_us)
    for item in requests:
        group.execute(item)
    return group.sync()


def raw(value: Any) -> Any:
    """Encode a value for an operation."""
    return Raw(msgpack.encode_value(value))


def dump_of(table: Table) -> list[bytes]:
    """Return everything that makes up a table."""
    return list(table.dump())


def copy_of(table: Table) -> Table:
    """Return a table equal to another."""
    twin = Table()
    twin.load(table.dump())
    return twin


class Witnessed:
    """A store, its disk, and the witness."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.witness = Table()
        self.doubt: tuple[int, list[Request]] | None = None
        self.first: dict[tuple[bytes, int], tuple[Request, Any]] = {}
        self.store: Store | None = None
        self.log: FileLog | None = None
        self.recoveries = 0
        self.torn = 0
        self.retries = 0
        self.refused = 0

    # ---- life and death

    def start(self) -> None:
        """Start a server: recover, and compare with the witness."""
        log = FileLog(self.disk.open())
        store = Store(log)
        store.recover()
        self.recoveries += 1
        self.torn += log.torn_bytes > 0
        self.log, self.store = log, store
        self._compare()

    def _compare(self) -> None:
        assert self.store is not None
        found, doubt, self.doubt = dump_of(self.store.table), self.doubt, None
        if found == dump_of(self.witness):
            return
        assert doubt is not None, "what was recovered is not what was acknowledged"
        time_us, requests = doubt
        self.witness.advance(time_us)
        for item in requests:
            self._note(item, self.witness.execute(item))
        assert found == dump_of(self.witness), "what was recovered is neither with nor without the group in doubt"

    def die(self, power: bool) -> None:
        """Let the process die, with the power or alone."""
        self.store = self.log = None
        if power:
            self.disk.lose_power()
        else:
            self.disk.kill()

    # ---- what a server does

    def run_group(self, requests: Sequence[Request], time_us: int) -> bool:
        """Run one group; False if the process has to end. Every reply is compared with the witness's."""
        assert self.store is not None
        writes = [item for item in requests if item.writes]
        groups = self.store.groups
        try:
            replies = apply(self.store, requests, time_us)
        except (Crash, errors.StorageFatal):
            self.doubt = (time_us, writes)
            self.store = self.log = None
            return False
        needed = self.witness.has_due_rows(time_us) or any(self.witness.find_cached(item) is None for item in writes)
        committed = self.store.groups > groups
        failed = needed and not committed
        if failed:
            self.refused += 1
        elif committed:
            self.witness.advance(time_us)
        assert len(replies) == len(requests)
        for item, reply in zip(requests, replies):
            if failed and item.writes and self.witness.find_cached(item) is None:
                assert results_of(reply)[0][0] == errors.WriteRejected.code
            else:
                expected = self.witness.execute(item)
                assert msgpack.encode_reply(reply) == msgpack.encode_reply(expected)
                self._note(item, reply)
        return True

    def _note(self, item: Request, reply: Reply) -> None:
        if item.session is None or not item.writes:
            return
        results = results_of(reply)
        if results[0][0] >= errors.REFUSED_MIN:
            return  # not executed, so nothing that has to stay as it is
        known = self.first.setdefault((item.session, item.seq), (item, results))
        assert known[1] == results, "a request sent again got another result"

    def rotate(self) -> bool:
        """Seal the log, if there is none sealed; False if the process has to end."""
        assert self.log is not None
        if not self.log.sealed:
            try:
                self.log.seal()
            except errors.WriteRejected:
                self.refused += 1
            except (Crash, errors.StorageFatal):
                self.store = self.log = None
                return False
        return True

    def compact_sealed(self) -> bool:
        """Compact, as the child process does; False if it died or failed."""
        try:
            return compact_sealed(self.disk.open())
        except (Crash, OSError):
            return False

    @property
    def sealed(self) -> bool:
        """Whether a sealed log waits."""
        return NAME_SEALED in self.disk.names

    def retry(self) -> None:
        """Send the latest requests of every session again: each must get what it got the first time."""
        assert self.store is not None
        latest: dict[bytes, list[tuple[Request, Any]]] = {}
        for (session, _), known in self.first.items():
            latest.setdefault(session, []).append(known)
        for known_requests in latest.values():
            for item, results in known_requests[-RETRIES:]:
                groups = self.store.groups
                (reply,) = apply(self.store, [item], 0)
                assert results_of(reply) == results, "a request sent again after a recovery got another result"
                assert self.store.groups == groups, "a request sent again was written again"
                self.retries += 1


class Clients:
    """Makes up requests: a few sessions, a few keys, every kind of write."""

    def __init__(self, random: Random, sessions: int = 3, value_bytes_max: int = 9000) -> None:
        self._random = random
        self._seqs = {bytes([number]) * 16: 0 for number in range(1, sessions + 1)}
        self._sent: list[Request] = []
        self._value_bytes_max = value_bytes_max
        self.time_us = 1_000_000_000

    def time(self) -> int:
        """Return the time of the next group; now and then the clock jumps back."""
        self.time_us += self._random.choice((0, 1, 1000, 1_000_000, 3_000_000, -5_000_000))
        return self.time_us

    def opening(self) -> list[Request]:
        """Return the requests that open the sessions."""
        for session in self._seqs:
            self._seqs[session] = 1
        return [request(session, 1, operations.Open()) for session in self._seqs]

    def batch(self) -> list[Request]:
        """Make up one group's requests."""
        return [self._one() for _ in range(self._random.choice((0, 1, 1, 1, 2, 5)))]

    def _one(self) -> Request:
        random = self._random
        if self._sent and random.random() < 0.15:
            return random.choice(self._sent[-10:])
        if random.random() < 0.15:
            return request(None, 1, self._operation())
        session = random.choice(list(self._seqs))
        self._seqs[session] += 1
        made = request(session, self._seqs[session], *(self._operation() for _ in range(random.choice((1, 1, 2)))))
        self._sent.append(made)
        return made

    def _value(self) -> Any:
        random = self._random
        if random.random() < 0.1:
            return raw("x" * random.randrange(self._value_bytes_max))
        return raw(random.choice((random.randrange(1000), {"n": random.randrange(3)}, None, [1, "two"])))

    def _operation(self) -> Operation:
        random = self._random
        key = f"k{random.randrange(8)}"
        kind = random.randrange(10)
        if kind < 3:
            ttl_s = random.choice((None, None, 0.5, 2.0))
            return operations.Insert(key, self._value(), ttl_s)
        if kind == 3:
            return operations.Remove(key)
        if kind == 4:
            return operations.InsertMany({f"k{number}": self._value() for number in range(random.randrange(4))})
        if kind == 5:
            return operations.Increment("counter", random.randrange(1, 9))
        if kind == 6:
            return operations.CompareAndSet(key, [], [self._value()])
        if kind == 7:
            return operations.Transact(
                [(key, [])], [operations.Increment("counter"), operations.Insert(key, self._value())]
            )
        if kind == 8:
            return operations.Expire(key, random.choice((None, 1.5)))
        return operations.Lookup(key)
