"""Watches: cursors over the table's latest changes, each pushing what its filter lets through.

A watch queues nothing: one whose peer does not keep up stays where it is and goes on when there is
room, or ends with RevisionGone when the history has moved on. So watchers cost a fixed amount each
and hold up nobody.

ZeroMQ tells that a peer has gone only when something is sent to it. So one for which there is no news
is sent a sign of life now and then, and the watches of those who are gone do not pile up.
"""

from __future__ import annotations

from collections import Counter
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

WATCHES_OF_ONE_MAX = 1000
"""How many of them one peer may have."""

QUIET_S = 30.0
"""How long a watching peer may hear nothing before it is sent a sign of life."""

CATCH_UP_S, CATCH_UP_S_MAX = 0.001, 0.02
"""The least and the most time between two looks for room at a peer that lags."""

PROGRESS_CHANGES = 1000
"""After how many changes that do not concern it a watch is told how far it has come, so that after a
reconnect it does not ask for more of the past than is kept."""

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
    __slots__ = ("number", "payload", "peer", "position", "quiet", "told", "transport")

    def __init__(self, number: int, transport: Transport, peer: Hashable, payload: Filter, position: int) -> None:
        self.number = number
        self.transport = transport
        self.peer = peer
        self.payload = payload
        self.position = position
        self.told = position  # the last revision the peer has heard of
        self.quiet = False  # since the last round of signs of life


class Watches:
    """All watches on one table."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._watches: dict[int, _Watch] = {}
        self._of_peer: Counter[tuple[Transport, Hashable]] = Counter()
        self._last_number = 0
        self._beat_us = 0
        self._pushed = 0
        self.behind = False
        """Whether a watch waits for room at its peer."""
        self.wait_s = CATCH_UP_S
        """When to look for room again: soon if the last look has found some."""

    def __len__(self) -> int:
        return len(self._watches)

    def add(self, arrival: Arrival, payload: Filter, from_revision: int | None) -> int:
        """Start a watch after `from_revision`, or after now, and return its number.

        Raises:
            RevisionGone: the changes since then are no longer all kept, or are still to come
            ResultTooLarge: there are WATCHES_MAX already, or this peer has WATCHES_OF_ONE_MAX
        """
        history = self._table.history
        position = history.revision if from_revision is None else from_revision
        if position > history.revision:
            raise errors.RevisionGone(f"the table is at revision {history.revision}, not yet at {position}")
        history.since(position)
        peer = (arrival.transport, arrival.peer)
        if len(self._watches) >= WATCHES_MAX:
            raise errors.ResultTooLarge(f"there are {WATCHES_MAX} watches already")
        if self._of_peer[peer] >= WATCHES_OF_ONE_MAX:
            raise errors.ResultTooLarge(f"this connection has {WATCHES_OF_ONE_MAX} watches already")
        self._last_number += 1
        number = self._last_number
        self._watches[number] = _Watch(number, *peer, payload, position)
        self._of_peer[peer] += 1
        return number

    def _end(self, watch: _Watch) -> None:
        del self._watches[watch.number]
        peer = (watch.transport, watch.peer)
        self._of_peer[peer] -= 1
        if not self._of_peer[peer]:
            del self._of_peer[peer]

    def remove(self, arrival: Arrival, number: int) -> None:
        """End a watch of this peer, if it has one of this number."""
        watch = self._watches.get(number)
        if watch is not None and (watch.transport, watch.peer) == (arrival.transport, arrival.peer):
            self._end(watch)

    def pump(self, now_us: int) -> None:
        """Push what is new to every watch; `now_us` is any clock, which may jump."""
        self.behind = False
        pushed = self._pushed
        revision = self._table.history.revision
        for watch in list(self._watches.values()):
            if watch.position < revision:
                try:
                    ended = not self._advance(watch)
                except errors.PeerGone:
                    ended = True
                if ended:
                    self._end(watch)
        self.wait_s = CATCH_UP_S if self._pushed > pushed else min(2 * self.wait_s, CATCH_UP_S_MAX)
        if not 0 <= now_us - self._beat_us < QUIET_S * 1e6:
            self._beat_us = now_us
            self._beat()

    def _beat(self) -> None:
        """Send a sign of life to the peers that have heard nothing since the last round."""
        heard = {(watch.transport, watch.peer) for watch in self._watches.values() if not watch.quiet}
        gone = set()
        event = codec.encode_sign_of_life(self._table.history.revision)
        for transport, peer in list(self._of_peer):
            if (transport, peer) not in heard:
                try:
                    transport.push(peer, event)
                except errors.PeerGone:
                    gone.add((transport, peer))
        for watch in list(self._watches.values()):
            watch.quiet = True
            if (watch.transport, watch.peer) in gone:
                self._end(watch)

    def _advance(self, watch: _Watch) -> bool:
        """Push one watch's news; False when it has to end."""
        try:
            changes = self._table.history.since(watch.position)
        except errors.RevisionGone as error:
            told = self._push(watch, watch.position, error.code, str(error))
            self.behind = self.behind or not told
            return not told
        for revision, change in changes:
            payload = watch.payload(change)
            if payload is not None and not self._push(watch, revision, errors.OK, payload):
                self.behind = True
                return True
            watch.position = revision
        if watch.position - watch.told >= PROGRESS_CHANGES:
            self._push(watch, watch.position, errors.OK, None)
        return True

    def _push(self, watch: _Watch, revision: int, code: int, payload: Any) -> bool:
        watch.quiet = False
        pushed = watch.transport.push(watch.peer, codec.encode_event(revision, watch.number, code, payload))
        if pushed:
            self._pushed += 1
            watch.told = revision
        return pushed
