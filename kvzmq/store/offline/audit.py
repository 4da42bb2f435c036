"""The audit trail, from the log files: who requested which change, in which session, and when. Changes nothing.

The log reaches back to the last compaction; of earlier changes the checkpoint has only the result. The log holds
requests, so an operation whose condition was not met, or whose key was absent, is in it, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, repeat
from typing import Any, NamedTuple

from kvzmq.protocol import msgpack
from kvzmq.protocol.declaration import Operation, method_of
from kvzmq.protocol.messages import Request
from kvzmq.protocol.operations import Senders, Transact
from kvzmq.store.offline.reading import Group, Reading, groups


class AuditEntry(NamedTuple):
    """One writing operation of the log.

    time_us  the time of its group, microseconds since 1970 UTC
    group    the number of its group
    session  16 bytes, or None for a client without one
    client   the name in the clients file of who sent it, or None where clients had no keys
    seq      the number of its request within the session
    op       the operation
    """

    time_us: int
    group: int
    session: bytes | None
    client: str | None
    seq: int
    op: Operation

    @property
    def operation(self) -> str:
        """The name of the operation's method."""
        return method_of(self.op)

    @property
    def keys(self) -> list[str]:
        """The keys that the operation names."""
        return self.op.named_keys()

    def arguments(self) -> list[Any]:
        """Return the operation's arguments as they stand on the wire, values decoded."""
        arguments: list[Any] = msgpack.decode_value(msgpack.encode_value(self.op))
        return arguments[1:]

    def methods(self) -> Iterator[str]:
        """Yield the operation's method and, of a transaction, those within."""
        yield self.operation
        if isinstance(self.op, Transact):
            yield from map(method_of, self.op.operations)


class AuditFilter(NamedTuple):
    """Which entries are wanted: those that satisfy every condition that is set.

    keys        they name one of these keys,
    prefix      or a key that begins with this prefix
    session     their session begins with these hexadecimal digits
    client      the client of this name sent them
    since_us    their time is at least this, microseconds since 1970 UTC
    until_us    their time is before this
    operations  they are of one of these methods, or a transaction that holds one
    """

    keys: tuple[str, ...] = ()
    prefix: str | None = None
    session: str | None = None
    since_us: int | None = None
    until_us: int | None = None
    operations: tuple[str, ...] = ()
    client: str | None = None

    def covers(self, time_us: int) -> bool:
        """Say whether entries of that time are wanted."""
        return (self.since_us is None or time_us >= self.since_us) and (
            self.until_us is None or time_us < self.until_us
        )

    def lets_through(self, entry: AuditEntry) -> bool:
        """Say whether an entry is wanted whose time is covered."""
        if self.session is not None and not (entry.session or b"").hex().startswith(self.session.lower()):
            return False
        if self.client is not None and entry.client != self.client:
            return False
        if self.operations and not any(method in self.operations for method in entry.methods()):
            return False
        if not self.keys and self.prefix is None:
            return True
        return any(key in self.keys or (self.prefix is not None and key.startswith(self.prefix)) for key in entry.keys)


def entries(reading: Reading, wanted: AuditFilter, gaps: list[str]) -> Iterator[AuditEntry]:
    """Yield the wanted entries, in the order of the log.

    Args:
        reading: the table's files
        wanted: which entries
        gaps: a line is appended for each place that cannot be read, except a torn tail
    """
    for found in groups(reading):
        if not isinstance(found, Group):
            if not found.torn:
                gaps.append(found.what)
        elif wanted.covers(found.time_us):
            for client, request in by_client(found.requests):
                for op in request.ops:
                    if op.writes:
                        entry = AuditEntry(found.time_us, found.number, request.session, client, request.seq, op)
                        if wanted.lets_through(entry):
                            yield entry


def by_client(requests: Sequence[Request]) -> Iterator[tuple[str | None, Request]]:
    """Yield a group's requests, each with the name of its client; without the server's own that says the names."""
    names: Iterator[str | None] = iter(())
    for request in requests:
        if isinstance(request.ops[0], Senders):
            names = chain.from_iterable(repeat(name, count) for name, count in request.ops[0].runs)
        else:
            yield next(names, None), request
