"""Load on a server whose every effect is known, and the judgement on what a recovery brought back.

Each client of the load has its own keys and its own session, and keeps a dict of what its keys must
hold. It sends requests of several kinds, some of several operations, up to `depth` of them ahead of
the replies. So for one client only one thing can be unknown at any moment: how many of the requests
it has no reply to were executed. A recovered table is right if for every client there is such a
number, with everything before it applied and nothing after it, every request whole.

One thread drives all clients, so a run can be stopped anywhere and looked at.
"""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import zmq

from kvzmq import errors
from support.servers import PATIENCE_S
from support.wire import WireClient

OK, NO_SUCH_KEY, STORAGE_ERROR = 0, 1, 18

KEYS = 12
"""How many keys a client has, besides its counters."""

LARGE_BYTES = 30_000
"""A value of several pages of the disk."""

Rows = dict[str, Any]


class Wrong(AssertionError):
    """The server did what it must not do."""


class Sent(NamedTuple):
    """A request as it was sent."""

    seq: int
    ops: list[list[Any]]


class Mark(NamedTuple):
    """What one client knew at some moment: its rows with all acknowledged requests, and how many those were."""

    rows: Rows
    done: int


def apply(rows: Rows, ops: list[list[Any]]) -> list[list[Any]]:
    """Execute a request on a dict, as the server must; returns the results."""
    return [_apply_one(rows, *op) for op in ops]


def _apply_one(rows: Rows, method: str, *arguments: Any) -> list[Any]:
    if method == "insert":
        rows[arguments[0]] = arguments[1]
        return [OK, None]
    if method == "remove":
        return [OK, None] if rows.pop(arguments[0], None) is not None else [NO_SUCH_KEY, ...]
    if method == "insert_many":
        rows.update(arguments[0])
        return [OK, None]
    if method == "increment":
        rows[arguments[0]] = rows.get(arguments[0], 0) + 1
        return [OK, rows[arguments[0]]]
    assert method == "lookup", method
    return [OK, rows[arguments[0]]] if arguments[0] in rows else [NO_SUCH_KEY, ...]


def _agree(results: list[list[Any]], expected: list[list[Any]]) -> bool:
    return len(results) == len(expected) and all(
        found[0] == wanted[0] and (wanted[1] is ... or found[1] == wanted[1])
        for found, wanted in zip(results, expected)
    )


class LoadClient:
    """One client of the load."""

    def __init__(self, number: int, seed: int, large: bool) -> None:
        self.prefix = f"c{number}/"
        self.rows: Rows = {}
        self.done = 0
        """How many requests are acknowledged and executed."""
        self.refused = 0
        """How many were answered with WriteRejected."""
        self.refusal = ""
        """What the latest WriteRejected said."""
        self.repeated = 0
        """How many were sent again and answered."""
        self.history: list[list[list[Any]]] = []
        """The executed requests, in order."""
        self.waiting: list[Sent] = []
        """Requests without a reply, in order."""
        self.session = random.Random(seed).randbytes(16)
        self.wire: WireClient | None = None
        self._again: set[int] = set()
        self._random = random.Random(seed + 1)
        self._large = large
        self._seq = 0

    def next_ops(self) -> list[list[Any]]:
        """Make up a request; every value it writes is unique."""
        chance = self._random
        key, other = (f"{self.prefix}{chance.randrange(KEYS)}" for _ in range(2))
        value = {"seq": self._seq, "by": self.prefix}
        kind = chance.random()
        if kind < 0.30:
            return [["increment", self.prefix + "count"]]
        if kind < 0.50:
            return [["insert", key, value]]
        if kind < 0.60:
            return [["remove", key]]
        if kind < 0.75:  # two operations, one request: both or none
            return [["insert", key, value], ["increment", self.prefix + "pairs"], ["insert", other, value]]
        if kind < 0.85:
            return [["insert_many", {f"{self.prefix}{n}": value for n in range(0, KEYS, 2)}]]
        if kind < 0.90 and self._large:
            return [["insert", key, [self._seq, "x" * chance.randrange(LARGE_BYTES)]]]
        return [["remove", key], ["insert", other, value], ["lookup", key]]

    def connect(self, url: str) -> None:
        """Connect, and send again whatever has no reply, under its old numbers."""
        self.close()
        self.wire = WireClient(url, self.session)
        for sent in self.waiting:
            self._again.add(sent.seq)
            self.wire.send(*sent.ops, seq=sent.seq)

    def fill(self, depth: int) -> None:
        """Send requests until `depth` have no reply; the first of all is `open`, alone."""
        assert self.wire is not None
        while len(self.waiting) < (depth if self.done else 1):
            self._seq += 1
            sent = Sent(self._seq, self.next_ops() if self._seq > 1 else [["open"]])
            self.waiting.append(sent)
            self.wire.send(*sent.ops, seq=sent.seq)

    def take(self) -> int:
        """Judge the replies that are there; returns how many were."""
        assert self.wire is not None
        taken = 0
        while True:
            try:
                reply = self.wire.receive(0)
            except Exception:
                return taken
            taken += 1
            self._judge(reply.seq, reply.results)

    def _judge(self, seq: int | None, results: list[list[Any]]) -> None:
        if not self.waiting or self.waiting[0].seq != seq:
            raise Wrong(f"{self.prefix}: reply to {seq} while waiting for {[s.seq for s in self.waiting]}")
        sent = self.waiting.pop(0)
        self.repeated += sent.seq in self._again
        self._again.discard(sent.seq)
        if results[0][0] == STORAGE_ERROR:
            self.refused += 1
            self.refusal = results[0][1]
            return
        self.done += 1
        self.history.append(sent.ops)
        # What `open` tells is which table this is: not of this model.
        expected = apply(self.rows, sent.ops) if sent.ops != [["open"]] else [[OK, results[0][1]]]
        if not _agree(results, expected):
            raise Wrong(
                f"{self.prefix}: request {seq} {sent.ops!r:.300} got {results!r:.300}, expected {expected!r:.300}"
            )

    def mark(self) -> Mark:
        """Remember what is acknowledged now."""
        return Mark(copy.deepcopy(self.rows), self.done)

    def judge_rows(self, found: Rows, since: Mark | None = None) -> int:
        """Compare what a recovery has of this client with what it may have.

        Args:
            found: the recovered table
            since: at least what was acknowledged then; by default, what is acknowledged now

        Returns:
            how many requests beyond `since` were executed

        Raises:
            Wrong: an acknowledged change is missing, or there is what was never sent, or half a request
        """
        mine = {key: value for key, value in found.items() if key.startswith(self.prefix)}
        rows, done = since if since is not None else (self.rows, self.done)
        rows = dict(rows)
        if mine == rows:
            return 0
        later = self.history[done:] + [sent.ops for sent in self.waiting]
        for count, ops in enumerate(later, start=1):
            if ops != [["open"]]:
                apply(rows, ops)
            if mine == rows:
                return count
        raise Wrong(
            f"{self.prefix}: none of {len(later) + 1} possible states; "
            "after the last of them it lacks or has otherwise "
            f"{sorted((k, str(v)[:60], str(mine.get(k))[:60]) for k, v in rows.items() if mine.get(k) != v)}, "
            f"and has too much {sorted(mine.keys() - rows.keys())}"
        )

    def close(self) -> None:
        if self.wire is not None:
            self.wire.close()
            self.wire = None


class Workload:
    """Several clients, driven by the calling thread.

    Args:
        clients: how many
        depth: how many requests each sends ahead of the replies
        large: whether some values fill several pages
    """

    def __init__(self, clients: int = 4, depth: int = 3, seed: int = 0, large: bool = True) -> None:
        self.depth = depth
        self.clients = [LoadClient(number, seed * 1000 + number * 2, large) for number in range(clients)]

    @property
    def done(self) -> int:
        """How many requests were acknowledged."""
        return sum(client.done for client in self.clients)

    @property
    def refused(self) -> int:
        """How many requests were refused with WriteRejected."""
        return sum(client.refused for client in self.clients)

    @property
    def refusals(self) -> set[str]:
        """What each client's latest WriteRejected said."""
        return {client.refusal for client in self.clients if client.refusal}

    @property
    def repeated(self) -> int:
        """How many requests were answered only after they had been sent again."""
        return sum(client.repeated for client in self.clients)

    def connect(self, url: str) -> None:
        """Connect every client; they send again what has no reply."""
        for client in self.clients:
            client.connect(url)

    def run(self, seconds: float, send: bool = True) -> int:
        """Go on for so long; returns how many replies came.

        Args:
            send: whether new requests are sent; else this ends when nothing waits
        """
        end_s = time.monotonic() + seconds
        poller = zmq.Poller()
        by_socket = {}
        for client in self.clients:
            assert client.wire is not None
            poller.register(client.wire.socket, zmq.POLLIN)
            by_socket[client.wire.socket] = client
            if send:
                client.fill(self.depth)
        taken = 0
        while (left_s := end_s - time.monotonic()) > 0:
            if not send and not any(client.waiting for client in self.clients):
                break
            for socket, _ in poller.poll(int(left_s * 1000)):
                client = by_socket[socket]
                taken += client.take()
                if send:
                    client.fill(self.depth)
        return taken

    def settle(self, seconds: float = PATIENCE_S) -> None:
        """Wait for every reply that is due.

        Raises:
            Wrong: one does not come
        """
        self.run(seconds, send=False)
        waiting = {client.prefix: len(client.waiting) for client in self.clients if client.waiting}
        if waiting:
            raise Wrong(f"no reply within {seconds} s: {waiting}")

    def drain(self) -> None:
        """Take the replies that have already come."""
        for client in self.clients:
            client.take()

    def hang_up(self) -> None:
        """Take the replies that have already come and disconnect.

        Before the server starts again: a DEALER would reconnect by itself and send what it had queued,
        but not what was lost before that.
        """
        self.drain()
        self.close()

    def mark(self) -> list[Mark]:
        """Remember what is acknowledged now."""
        return [client.mark() for client in self.clients]

    def judge(self, found: Rows, since: list[Mark] | None = None) -> int:
        """Judge a recovered table; returns how many requests without a reply had been executed.

        Raises:
            Wrong: see LoadClient.judge_rows; or there are rows nobody has sent
        """
        foreign = [key for key in found if not any(key.startswith(client.prefix) for client in self.clients)]
        if foreign:
            raise Wrong(f"rows nobody has sent: {foreign[:5]}")
        marks: Sequence[Mark | None] = since or [None] * len(self.clients)
        return sum(client.judge_rows(found, mark) for client, mark in zip(self.clients, marks))

    def close(self) -> None:
        for client in self.clients:
            client.close()


def read_rows(url: str) -> Rows:
    """Read the whole table from a server."""
    rows: Rows = {}
    with WireClient(url, session=None) as wire:
        after = None
        while True:
            _, (code, page) = wire.call("items", "", after, 1000, timeout_s=PATIENCE_S)
            assert code == OK, page
            if not page:
                return rows
            rows.update((key, value) for key, value in page)
            after = page[-1][0]


def recover_rows(path: Any) -> tuple[Rows, Any]:
    """Recover a directory in this process; returns the rows and the store, closed."""
    from kvzmq.store.file.file_log import FileLog
    from kvzmq.store.file.files import DiskDirectory
    from kvzmq.store.store import Store

    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            directory = DiskDirectory(path)
            break
        except errors.DirectoryInUse:  # a child that a killed server was starting has its lock, until its exec
            if time.monotonic() > deadline_s:
                raise
    store = Store(FileLog(directory))
    try:
        store.recover()
    finally:
        store.close()
    return {key: msgspec.msgpack.decode(value) for key, value in store.table.rows.items()}, store
