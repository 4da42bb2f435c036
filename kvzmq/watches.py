"""Watches: cursors over the table's latest changes, each pushing what its filter lets through.

A watch queues nothing: one whose peer does not keep up stays where it is and goes on when there is
room, or ends with RevisionGone when the history has moved on. So watchers cost a fixed amount each
and hold up nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from msgspec import UNSET, Raw

from kvzmq import codec, errors
from kvzmq.messages import Change
from kvzmq.store.indexes import comparable, read_subkey
from kvzmq.store.table import Table
from kvzmq.transport import Arrival, Transport

WATCHES_MAX = 10_000
"""How many watches there may be."""

Filter = Callable[[Change], "tuple[str, list[Raw]] | None"]
"""From a change to the payload of its event, `(key, [value])` or `(key, [])`; None to skip it."""


def by_prefix(prefix: str) -> Filter:
    """Let through the changes of keys that begin with `prefix`."""

    def payload(change: Change) -> tuple[str, list[Raw]] | None:
        key, _, after = change
        return (key, [] if after is None else [Raw(after)]) if key.startswith(prefix) else None

    return payload


def by_query(subkey: str, subvalue: Raw) -> Filter:
    """Let through the rows that hold `subvalue` under `subkey`, and as removed those that cease to."""
    read = read_subkey(subkey)
    wanted = comparable(codec.decode_value(subvalue))

    def matches(value: bytes | None) -> bool:
        found = UNSET if value is None else read(value)
        return found is not UNSET and comparable(found) == wanted

    def payload(change: Change) -> tuple[str, list[Raw]] | None:
        key, before, after = change
        if after is not None and matches(after):
            return key, [Raw(after)]
        return (key, []) if matches(before) else None

    return payload


class _Watch:
    __slots__ = ("number", "payload", "peer", "position", "transport")

    def __init__(self, number: int, transport: Transport, peer: Hashable, payload: Filter, position: int) -> None:
        self.number = number
        self.transport = transport
        self.peer = peer
        self.payload = payload
        self.position = position


class Watches:
    """All watches on one table."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._watches: dict[int, _Watch] = {}
        self._last_number = 0
        self.behind = False
        """Whether a watch waits for room at its peer."""

    def __len__(self) -> int:
        return len(self._watches)

    def add(self, arrival: Arrival, payload: Filter, from_revision: int | None) -> int:
        """Start a watch after `from_revision`, or after now, and return its number.

        Raises:
            RevisionGone: the changes since then are no longer all kept, or are still to come
            ResultTooLarge: there are WATCHES_MAX already
        """
        history = self._table.history
        position = history.revision if from_revision is None else from_revision
        if position > history.revision:
            raise errors.RevisionGone(f"the table is at revision {history.revision}, not yet at {position}")
        history.since(position)
        if len(self._watches) >= WATCHES_MAX:
            raise errors.ResultTooLarge(f"there are {WATCHES_MAX} watches already")
        self._last_number += 1
        number = self._last_number
        self._watches[number] = _Watch(number, arrival.transport, arrival.peer, payload, position)
        return number

    def remove(self, arrival: Arrival, number: int) -> None:
        """End a watch of this peer, if it has one of this number."""
        watch = self._watches.get(number)
        if watch is not None and (watch.transport, watch.peer) == (arrival.transport, arrival.peer):
            del self._watches[number]

    def pump(self) -> None:
        """Push what is new to every watch."""
        self.behind = False
        revision = self._table.history.revision
        for watch in list(self._watches.values()):
            if watch.position < revision:
                try:
                    ended = not self._advance(watch)
                except errors.PeerGone:
                    ended = True
                if ended:
                    del self._watches[watch.number]

    def _advance(self, watch: _Watch) -> bool:
        """Push one watch's news; False when it has to end."""
        try:
            changes = self._table.history.since(watch.position)
        except errors.RevisionGone as error:
            return not self._push(watch, watch.position, error.code, str(error))
        for revision, change in changes:
            payload = watch.payload(change)
            if payload is not None and not self._push(watch, revision, errors.OK, payload):
                self.behind = True
                return True
            watch.position = revision
        return True

    def _push(self, watch: _Watch, revision: int, code: int, payload: Any) -> bool:
        return watch.transport.push(watch.peer, codec.encode_event(revision, watch.number, code, payload))
