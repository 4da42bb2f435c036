"""Watches: cursors over the table's latest changes, each pushing what its filter lets through.

A watch queues nothing: one whose peer does not keep up stays where it is and goes on when there is
room, or ends with RevisionGone when the history has moved on. So watchers cost a fixed amount each
and hold up nobody: a step spends PUMP_S on them at most, and goes on with them in the next.

A request that makes several changes is told as several events, all but its last with the mark `more`, to
whoever knows the mark. Where the filter keeps the last one back, an event without a change follows. So
nobody need show half a request.

A connection with watches hears something every HEARTBEAT_S. Whoever has promised to send heartbeats as well
(`hello`) and is silent for longer than the promise loses its watches, and is told so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Hashable
from itertools import islice
from typing import Any

from msgspec import UNSET, Raw

from kvzmq import errors
from kvzmq.protocol import msgpack
from kvzmq.protocol.messages import HEARTBEAT_S, SILENCE_S_MAX, Change
from kvzmq.server.transport import Arrival, Transport
from kvzmq.store.indexes import comparable
from kvzmq.store.table import Table

WATCHES_MAX = 10_000
"""How many watches there may be."""

WATCHES_OF_ONE_MAX = 1000
"""How many of them one peer may have."""

PUMP_S = 0.02
"""How long one step tells watches of changes; what is left waits for the next step, which does not wait."""

TURN_CHANGES = 256
"""How many changes a group of watches at the same place is told, at most, before others get their turn."""

_CLOCK_EVERY = 16
"""After how many watches the clock is looked at: what one of them is told may be as large as a row."""

READS_S = 2.0
"""A watch that was told something within this time reads: the history waits for it, within limits."""

CATCH_UP_S, CATCH_UP_S_MAX = 0.001, 0.02
"""The least and the most time between two looks for room at a peer that lags."""

STUCK_S = 0.25
"""The time between two looks when nobody has taken anything for long."""

PROGRESS_CHANGES = 1000
"""After how many changes that do not concern it a watch is told how far it has come, so that after a
reconnect it does not ask for more of the past than is kept."""

BEAT_S = 0.5
"""How often to look for connections that have to be sent a heartbeat, or have not sent theirs."""


class _View:
    """One change as the filters see it: whatever they have to decode is decoded once for all of them."""

    __slots__ = ("_found", "_maps", "after", "before", "key")

    def __init__(self, change: Change) -> None:
        self.key, self.before, self.after = change
        self._maps: dict[bool, Any] | None = None  # most changes are only looked at by their key
        self._found: dict[tuple[bool, str], Any]

    def subvalue(self, after: bool, subkey: str) -> Any:
        """Return the comparable form of what the value before, or after, holds under `subkey`, or UNSET."""
        if self._maps is None:
            self._maps, self._found = {}, {}
        wanted = (after, subkey)
        if wanted not in self._found:
            if after not in self._maps:
                value = self.after if after else self.before
                self._maps[after] = msgpack.decode_value(value) if value is not None and _is_map(value) else {}
            found = self._maps[after].get(subkey, UNSET)
            self._found[wanted] = found if found is UNSET else comparable(found)
        return self._found[wanted]


def _is_map(value: bytes) -> bool:
    first = value[0]
    return 0x80 <= first <= 0x8F or first in (0xDE, 0xDF)


Filter = Callable[[_View], "tuple[str, list[Raw]] | None"]
"""From a change to the payload of its event, `(key, [value])` or `(key, [])`; None to skip it."""


def by_prefix(prefix: str) -> Filter:
    """Let through the changes of keys that begin with `prefix`."""

    def payload(change: _View) -> tuple[str, list[Raw]] | None:
        if not change.key.startswith(prefix):
            return None
        return change.key, [] if change.after is None else [Raw(change.after)]

    return payload


def by_query(subkey: str, subvalue: Raw) -> Filter:
    """Let through the rows that hold `subvalue` under `subkey`, and as removed those that cease to."""
    wanted = comparable(msgpack.decode_value(subvalue))

    def payload(change: _View) -> tuple[str, list[Raw]] | None:
        if change.after is not None and change.subvalue(True, subkey) == wanted:
            return change.key, [Raw(change.after)]
        return (change.key, []) if change.before is not None and change.subvalue(False, subkey) == wanted else None

    return payload


class _Peer:
    """A connection that has watches."""

    __slots__ = ("heard_s", "silence_s_max", "told_s", "transport", "who", "watches")

    def __init__(self, transport: Transport, who: Hashable, now_s: float) -> None:
        self.transport = transport
        self.who = who
        self.watches: dict[int, _Watch] = {}
        self.told_s = now_s
        self.heard_s = now_s
        self.silence_s_max: float | None = None  # it has promised to be heard of within this time


class _Watch:
    __slots__ = (
        "asked",
        "ending",
        "marks",
        "moved_s",
        "number",
        "open",
        "payload",
        "peer",
        "position",
        "served",
        "told",
    )

    def __init__(self, number: int, peer: _Peer, payload: Filter, position: int, marks: bool, now_s: float) -> None:
        self.marks = marks  # it is told where a request ends
        self.number = number
        self.peer = peer
        self.payload = payload
        self.position = position
        self.told = position  # the last revision the peer has heard of
        self.open = False  # it was told some of a request's changes, and not yet that these were all
        self.asked = False  # it wants to hear how far it has come
        self.ending: errors.OperationError | None = None  # it is told nothing more but this
        self.moved_s = now_s  # when its peer last had room
        self.served = 0  # the round in which it was last told of changes


class Watches:
    """All watches on one table.

    Args:
        table: whose history is told
        clock: seconds that only grow
    """

    def __init__(self, table: Table, clock: Callable[[], float] = time.monotonic) -> None:
        self._table = table
        self._clock = clock
        self._watches: dict[int, _Watch] = {}
        self._peers: dict[tuple[Transport, Hashable], _Peer] = {}
        self._last_number = 0
        self._now_s = self._beat_s = clock()
        self._round = 0
        self._step_began = table.revision
        self._moved = False
        self.behind = False
        """Whether a watch has not been told everything."""
        self.wait_s = CATCH_UP_S
        """When to go on, if one is behind: at once if only time was short, soon if the last look has found room."""

    def __len__(self) -> int:
        return len(self._watches)

    def count_by_client(self) -> dict[str, int]:
        """Return how many watches each client has, by its name."""
        return {peer.transport.name(peer.who): len(peer.watches) for peer in self._peers.values() if peer.watches}

    # ---- what a connection asks for

    def add(
        self,
        arrival: Arrival,
        payload: Filter,
        from_revision: int | None,
        epoch: str | None = None,
        marks: bool = False,
    ) -> int:
        """Start a watch after `from_revision`, or after now, and return its number.

        Args:
            epoch: in which `from_revision` was reached, if that is known
            marks: whether its events say where a request ends

        Raises:
            RevisionGone: the changes since then are no longer all kept, are still to come, or are another history's
            ResultTooLarge: there are WATCHES_MAX already, or this peer has WATCHES_OF_ONE_MAX
        """
        history = self._table.history
        position = history.revision if from_revision is None else from_revision
        if from_revision is not None and epoch and not self._table.epochs.contains(bytes.fromhex(epoch), position):
            raise errors.RevisionGone(
                f"revision {position} of epoch {epoch[:8]} is not in this table's history: "
                "it went on from an older copy, or the epoch is forgotten"
            )
        if position > history.revision:
            raise errors.RevisionGone(f"the table is at revision {history.revision}, not yet at {position}")
        history.since(position)
        if len(self._watches) >= WATCHES_MAX:
            raise errors.ResultTooLarge(f"there are {WATCHES_MAX} watches already")
        peer = self._peer(arrival)
        if len(peer.watches) >= WATCHES_OF_ONE_MAX:
            raise errors.ResultTooLarge(f"this connection has {WATCHES_OF_ONE_MAX} watches already")
        self._last_number += 1
        watch = _Watch(self._last_number, peer, payload, position, marks, self._clock())
        # From within a request: its end has to be told, also where the rest of it does not concern this watch.
        watch.open = marks and position > 0 and history.last_of_request(position) > position
        self._watches[watch.number] = peer.watches[watch.number] = watch
        self.behind = self.behind or position < history.revision
        return watch.number

    def remove(self, arrival: Arrival, number: int) -> None:
        """End a watch of this peer, if it has one of this number."""
        watch = self._find(arrival, number)
        if watch is not None:
            self._end(watch)

    def ask_progress(self, arrival: Arrival, number: int) -> bool:
        """Have a watch told when it has been told everything up to now; False if this peer has none of this number."""
        watch = self._find(arrival, number)
        if watch is None:
            return False
        watch.asked = self.behind = True
        return True

    def promise(self, arrival: Arrival, heartbeat_s: float) -> None:
        """Take a peer's promise to send something every `heartbeat_s`, as long as it has watches; see `forget`."""
        self._peer(arrival).silence_s_max = SILENCE_S_MAX / HEARTBEAT_S * heartbeat_s

    def forget(self, arrival: Arrival) -> None:
        """Forget a peer's promise if its request has not begun a watch."""
        peer = self._peers.get((arrival.transport, arrival.peer))
        if peer is not None and not peer.watches:
            del self._peers[arrival.transport, arrival.peer]

    def hear(self, arrivals: list[Arrival]) -> None:
        """Note who has sent something."""
        if self._peers:
            now_s = self._clock()
            for arrival in arrivals:
                peer = self._peers.get((arrival.transport, arrival.peer))
                if peer is not None:
                    peer.heard_s = now_s

    def end_those_of(self, users: Container[str]) -> None:
        """End the watches of these public keys, whose rights have changed: whoever still may watches again."""
        for peer in self._peers.values():
            if peer.transport.user(peer.who) in users:
                self.behind = True
                for watch in peer.watches.values():
                    watch.ending = errors.WatchIdle("the rights of this client have changed: watch again")

    def _peer(self, arrival: Arrival) -> _Peer:
        who = (arrival.transport, arrival.peer)
        peer = self._peers.get(who)
        if peer is None:
            peer = self._peers[who] = _Peer(*who, self._clock())
        return peer

    def _find(self, arrival: Arrival, number: int) -> _Watch | None:
        peer = self._peers.get((arrival.transport, arrival.peer))
        return None if peer is None else peer.watches.get(number)

    def _end(self, watch: _Watch) -> None:
        self._watches.pop(watch.number, None)
        watch.peer.watches.pop(watch.number, None)
        if not watch.peer.watches:
            self._peers.pop((watch.peer.transport, watch.peer.who), None)

    # ---- what is pushed

    def pump(self) -> None:
        """Push what is new, for PUMP_S at most; due after every step."""
        history = self._table.history
        if not self._peers:
            self.behind = False
            if history.revision != self._step_began:
                history.trim(self._step_began, history.revision)
                self._step_began = history.revision
            return
        now_s = self._now_s = self._clock()
        lagging = self._lagging(history.revision)
        if lagging:
            self._tell(lagging, now_s)
            lagging = self._lagging(history.revision)
        self.behind = bool(lagging)
        reading = [watch.position for watch in lagging if now_s - watch.moved_s < READS_S]
        history.trim(self._step_began, min(reading, default=history.revision))
        self._step_began = history.revision
        if now_s - self._beat_s >= BEAT_S:
            self._beat(now_s)

    def _lagging(self, revision: int) -> list[_Watch]:
        return [
            watch
            for watch in self._watches.values()
            if watch.position < revision or watch.asked or watch.ending is not None
        ]

    def _tell(self, lagging: list[_Watch], now_s: float) -> None:
        """Take the watches in turn, those at the same place together."""
        self._round += 1
        self._moved = False
        places: dict[int, list[_Watch]] = {}
        for watch in lagging:
            places.setdefault(watch.position, []).append(watch)
            if watch.position >= self._step_began:
                watch.moved_s = now_s  # it was up to date
        # Whoever had no turn in the last round comes first; then who has least to be told.
        waiting = sorted(places.values(), key=lambda group: (min(watch.served for watch in group), -group[0].position))
        stop_s = now_s + PUMP_S
        while waiting and self._clock() < stop_s:
            later = []
            for group in waiting:
                if self._clock() >= stop_s:
                    break
                if left := self._advance(group, stop_s):
                    later.append(left)
            waiting = later
        if self._clock() >= stop_s:
            self.wait_s = 0.0
        elif self._moved:
            self.wait_s = CATCH_UP_S
        else:
            longest_s = CATCH_UP_S_MAX if any(now_s - watch.moved_s < READS_S for watch in lagging) else STUCK_S
            self.wait_s = min(max(2 * self.wait_s, CATCH_UP_S), longest_s)

    def _advance(self, group: list[_Watch], stop_s: float) -> list[_Watch]:
        """Tell watches that are at the same place of the next changes; return those that can be told more now."""
        history = self._table.history
        place = group[0].position
        going = []
        for watch in group:
            watch.served = self._round
            if watch.ending is None and place < history.first:
                watch.ending = errors.RevisionGone(
                    f"changes are kept since revision {history.first}, not since {place}"
                )
            if watch.ending is None:
                going.append(watch)
            else:
                self._conclude(watch, watch.ending)
        if going and place < history.revision:
            # A turn ends at a multiple: there, those that the end of a step has parted meet again.
            told = last = 0
            for revision, change in islice(history.since(place), TURN_CHANGES - place % TURN_CHANGES):
                if revision > last:
                    last = history.last_of_request(revision)
                going = self._tell_change(going, revision, last, _View(change), stop_s)
                told += len(going)
                if not going or (told >= _CLOCK_EVERY and self._clock() >= stop_s):
                    break
                told %= _CLOCK_EVERY
        for watch in going:
            watch.moved_s = self._now_s
            self._report(watch)
        return [watch for watch in going if watch.position < history.revision]

    def _tell_change(self, group: list[_Watch], revision: int, last: int, change: _View, stop_s: float) -> list[_Watch]:
        """Tell watches of one change, until the time is over; return those that have it behind them.

        Args:
            last: the last revision of the request that made this one
        """
        if len(group) == 1:
            return group if self._tell_watch(group[0], revision, last, change) else []
        told = []
        for count, watch in enumerate(group, start=1):
            if self._tell_watch(watch, revision, last, change):
                told.append(watch)
            if count % _CLOCK_EVERY == 0 and self._clock() >= stop_s:
                break
        return told

    def _tell_watch(self, watch: _Watch, revision: int, last: int, change: _View) -> bool:
        """Tell a watch of one change, if it concerns it; False if its peer has no room, or has gone."""
        payload = watch.payload(change)
        if payload is not None:
            more = watch.marks and revision < last
            if not self._push(watch, revision, errors.OK, payload, more):
                return False
            watch.open = more
        elif watch.open and revision == last:
            if not self._push(watch, revision, errors.OK, None):
                return False
            watch.open = False
        watch.position = revision
        return True

    def _report(self, watch: _Watch) -> None:
        """Tell a watch how far it has come, if it has asked, or has heard nothing for many changes."""
        arrived = watch.asked and watch.position == self._table.history.revision
        if (arrived or (watch.position - watch.told >= PROGRESS_CHANGES and not watch.open)) and self._push(
            watch, watch.position, errors.OK, None
        ):
            watch.asked = watch.asked and not arrived

    def _conclude(self, watch: _Watch, error: errors.OperationError) -> None:
        """Tell a watch why it ends, and end it; again later if its peer has no room even for that."""
        if self._push(watch, watch.position, error.code, str(error)):
            self._end(watch)

    def _push(self, watch: _Watch, revision: int, code: int, payload: Any, more: bool = False) -> bool:
        """Push an event; False if the peer has no room, or has gone: its watches have ended then."""
        peer = watch.peer
        try:
            pushed = peer.transport.push(peer.who, msgpack.encode_event(revision, watch.number, code, payload, more))
        except errors.PeerGone:
            self._drop(peer)
            return False
        if pushed:
            self._moved = True
            watch.told = revision
            peer.told_s = watch.moved_s = self._now_s
        return pushed

    def _drop(self, peer: _Peer) -> None:
        for watch in list(peer.watches.values()):
            self._end(watch)

    def _beat(self, now_s: float) -> None:
        """Send heartbeats where there was nothing to tell, and end the watches of who has not sent theirs."""
        self._beat_s = now_s
        heartbeat = msgpack.encode_heartbeat(self._table.history.revision)
        stop_s = now_s + PUMP_S
        for peer in list(self._peers.values()):
            if peer.silence_s_max is not None and now_s - peer.heard_s > peer.silence_s_max:
                self.behind = True
                for watch in peer.watches.values():
                    watch.ending = watch.ending or errors.WatchIdle(
                        f"the connection has sent nothing for {peer.silence_s_max:g} seconds: watch again"
                    )
            elif now_s - peer.told_s >= HEARTBEAT_S:
                try:
                    peer.transport.push(peer.who, heartbeat)
                except errors.PeerGone:
                    self._drop(peer)
                peer.told_s = now_s  # or there was no room: then it has something to read
                if self._clock() >= stop_s:
                    self._beat_s = -BEAT_S  # the others in the next step
                    return
