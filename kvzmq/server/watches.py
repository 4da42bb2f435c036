"""Watches: cursors over the table's latest changes, each pushing the events that its filter lets through.

A watch queues nothing. When the peer of a watch does not keep up, the watch keeps its position and continues
when the transport has room for the peer, or ends with RevisionGone when the changes after its position are no
longer kept. So each watch takes a fixed amount of memory and delays no other client: a step spends PUMP_S on
watches at most and continues in the next step.

The changes of one request are pushed as separate events. To a watch that asked for it (`boundaries`), all of them but
the last carry the flag `more`; where the filter skips the last change, an event without a change follows. So a
client can apply the changes of a request together.

A connection with watches is sent something at least every HEARTBEAT_S. When a peer that has promised heartbeats
(`hello`) sends nothing for longer than it promised, its watches end with WatchIdle.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Hashable
from itertools import islice
from typing import Any

from kvzmq import errors
from kvzmq.protocol import msgpack
from kvzmq.protocol.limits import HEARTBEAT_S, SILENCE_S_MAX
from kvzmq.server.transport import Arrival, Transport
from kvzmq.server.watch_filters import Filter, View
from kvzmq.store.table import Table

WATCHES_MAX = 10_000
"""How many watches there may be."""

WATCHES_OF_ONE_MAX = 1000
"""How many of them one peer may have."""

PUMP_S = 0.02
"""How long one step pushes events; the rest is pushed in the next step, which does not wait for requests."""

TURN_CHANGES = 256
"""For how many changes watches at the same revision are advanced, at most, before others."""

_CLOCK_EVERY = 16
"""After how many events the clock is read: one event may be as large as a row."""

READING_S = 2.0
"""A watch whose peer had room within this time counts as reading: the history is kept for it, within limits."""

RETRY_S, RETRY_S_MAX = 0.001, 0.02
"""The least and the most time before a watch whose peer had no room is tried again."""

STALLED_RETRY_S = 0.25
"""The same when no watch that is behind counts as reading."""

PROGRESS_CHANGES = 1000
"""After how many changes that its filter skips a watch is sent an event without a change, which has the revision it
has reached: so that after a reconnect it does not ask for older changes than are kept."""

HEARTBEAT_CHECK_S = 0.5
"""How often connections are checked: whether a heartbeat is due to them, or one of theirs is overdue."""


class _Peer:
    """A connection that has watches."""

    __slots__ = ("received_s", "silence_s_max", "sent_s", "transport", "identity", "watches")

    def __init__(self, transport: Transport, identity: Hashable, now_s: float) -> None:
        self.transport = transport
        self.identity = identity
        self.watches: dict[int, _Watch] = {}
        self.sent_s = now_s
        self.received_s = now_s
        self.silence_s_max: float | None = None  # it has promised to send something within this time


class _Watch:
    __slots__ = (
        "progress_asked",
        "epoch",
        "error",
        "boundaries",
        "had_room_s",
        "number",
        "mid_request",
        "filter",
        "peer",
        "position",
        "last_round",
        "sent_revision",
    )

    def __init__(
        self, number: int, peer: _Peer, filter_: Filter, position: int, boundaries: bool, now_s: float
    ) -> None:
        self.boundaries = boundaries  # whether its events say where a request ends
        self.number = number
        self.peer = peer
        self.filter = filter_
        self.position = position
        self.sent_revision = position  # of the last event that was pushed
        self.mid_request = False  # the last event had the flag `more`: the request's end is still to be pushed
        self.epoch: bytes | None = None  # of the table, as its client knows it
        self.progress_asked = False  # an event without a change is due when it has reached the table's revision
        self.error: errors.KvzmqError | None = None  # the last thing to be pushed, before it ends
        self.had_room_s = now_s  # when its peer last had room
        self.last_round = 0  # the round of `_push_changes` in which it last had a turn


class Watches:
    """All watches on one table.

    Args:
        table: whose changes are pushed
        clock: seconds that only grow
    """

    def __init__(self, table: Table, clock: Callable[[], float] = time.monotonic) -> None:
        self._table = table
        self._clock = clock
        self._watches: dict[int, _Watch] = {}
        self._peers: dict[tuple[Transport, Hashable], _Peer] = {}
        self._last_number = 0
        self._now_s = self._heartbeats_s = clock()
        self._round = 0
        self._step_began = table.revision
        self._found_room = False
        self.behind = False
        """Whether something is left to be pushed to a watch."""
        self.wait_s = RETRY_S
        """When to continue, if one is behind: at once if the time of the step was used up, soon if a peer had room."""

    def __len__(self) -> int:
        return len(self._watches)

    def count_by_client(self) -> dict[str, int]:
        """Return how many watches each client has, by its name."""
        return {peer.transport.name(peer.identity): len(peer.watches) for peer in self._peers.values() if peer.watches}

    # ---- what a connection asks for

    def add(
        self,
        arrival: Arrival,
        filter_: Filter,
        from_revision: int | None,
        epoch: str | None = None,
        boundaries: bool = False,
    ) -> int:
        """Start a watch after `from_revision`, or after now, and return its number.

        Args:
            epoch: in which `from_revision` was reached, if that is known
            boundaries: whether its events say where a request ends

        Raises:
            RevisionGone: the changes after that revision are no longer all kept, are not made yet, or belong to
                another history
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
        watch = _Watch(self.take_number(), peer, filter_, position, boundaries, self._clock())
        # It begins within a request: the request's end has to be pushed even if the filter skips the rest of it.
        watch.epoch = self._table.epochs.current
        watch.mid_request = boundaries and position > 0 and history.last_of_request(position) > position
        self._watches[watch.number] = peer.watches[watch.number] = watch
        self.behind = self.behind or position < history.revision
        return watch.number

    def take_number(self) -> int:
        """Return the number of a new watch or monitor: no two have the same."""
        self._last_number += 1
        return self._last_number

    def remove(self, arrival: Arrival, number: int) -> None:
        """End a watch of this peer, if it has one of this number."""
        watch = self._find(arrival, number)
        if watch is not None:
            self._end(watch)

    def ask_progress(self, arrival: Arrival, number: int) -> bool:
        """Note that a watch is to be sent an event without a change when it has reached the table's revision.

        Returns:
            False if this peer has no watch of this number
        """
        watch = self._find(arrival, number)
        if watch is None:
            return False
        watch.progress_asked = self.behind = True
        return True

    def expect_heartbeats(self, arrival: Arrival, heartbeat_s: float) -> None:
        """Note that a peer has promised to send something every `heartbeat_s`, as long as it has watches."""
        self._peer(arrival).silence_s_max = SILENCE_S_MAX / HEARTBEAT_S * heartbeat_s

    def forget(self, arrival: Arrival) -> None:
        """Drop what is noted of a peer that has no watch, as after a `hello` whose request has begun none."""
        peer = self._peers.get((arrival.transport, arrival.peer))
        if peer is not None and not peer.watches:
            del self._peers[arrival.transport, arrival.peer]

    def note_received(self, arrivals: list[Arrival]) -> None:
        """Note which peers have sent something."""
        if self._peers:
            now_s = self._clock()
            for arrival in arrivals:
                peer = self._peers.get((arrival.transport, arrival.peer))
                if peer is not None:
                    peer.received_s = now_s

    def end_those_of(self, users: Container[str]) -> None:
        """End the watches of these public keys, whose rights have changed: whoever still may watches again."""
        for peer in self._peers.values():
            if peer.transport.user(peer.identity) in users:
                self.behind = True
                for watch in peer.watches.values():
                    watch.error = errors.WatchIdle("the rights of this client have changed: watch again")

    def end_all(self, error: errors.KvzmqError) -> None:
        """End all watches with an error after which they may go on elsewhere."""
        self.behind = self.behind or bool(self._watches)
        for watch in self._watches.values():
            watch.error = watch.error or error

    def _peer(self, arrival: Arrival) -> _Peer:
        key = (arrival.transport, arrival.peer)
        peer = self._peers.get(key)
        if peer is None:
            peer = self._peers[key] = _Peer(*key, self._clock())
        return peer

    def _find(self, arrival: Arrival, number: int) -> _Watch | None:
        peer = self._peers.get((arrival.transport, arrival.peer))
        return None if peer is None else peer.watches.get(number)

    def _end(self, watch: _Watch) -> None:
        self._watches.pop(watch.number, None)
        watch.peer.watches.pop(watch.number, None)
        if not watch.peer.watches:
            self._peers.pop((watch.peer.transport, watch.peer.identity), None)

    # ---- what is pushed

    def pump(self) -> None:
        """Push the events that are due, for PUMP_S at most, and trim the history; call it after every step."""
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
            self._push_changes(lagging, now_s)
            lagging = self._lagging(history.revision)
        self.behind = bool(lagging)
        reading = [watch.position for watch in lagging if now_s - watch.had_room_s < READING_S]
        history.trim(self._step_began, min(reading, default=history.revision))
        self._step_began = history.revision
        if now_s - self._heartbeats_s >= HEARTBEAT_CHECK_S:
            self._send_heartbeats(now_s)

    def _lagging(self, revision: int) -> list[_Watch]:
        epoch = self._table.epochs.current
        return [
            watch
            for watch in self._watches.values()
            if watch.position < revision or watch.progress_asked or watch.error is not None or watch.epoch != epoch
        ]

    def _push_changes(self, lagging: list[_Watch], now_s: float) -> None:
        """Advance the watches in turns, those at the same revision together."""
        self._round += 1
        self._found_room = False
        by_position: dict[int, list[_Watch]] = {}
        for watch in lagging:
            by_position.setdefault(watch.position, []).append(watch)
            if watch.position >= self._step_began:
                watch.had_room_s = now_s  # it was up to date
        # First the watches that had no turn in the last round; of these, first the ones with the fewest changes left.
        waiting = sorted(
            by_position.values(),
            key=lambda watches: (min(each.last_round for each in watches), -watches[0].position),
        )
        stop_s = now_s + PUMP_S
        while waiting and self._clock() < stop_s:
            later = []
            for watches in waiting:
                if self._clock() >= stop_s:
                    break
                if left := self._advance(watches, stop_s):
                    later.append(left)
            waiting = later
        if self._clock() >= stop_s:
            self.wait_s = 0.0
        elif self._found_room:
            self.wait_s = RETRY_S
        else:
            reading = any(now_s - watch.had_room_s < READING_S for watch in lagging)
            self.wait_s = min(max(2 * self.wait_s, RETRY_S), RETRY_S_MAX if reading else STALLED_RETRY_S)

    def _advance(self, watches: list[_Watch], stop_s: float) -> list[_Watch]:
        """Push the next changes to watches at the same revision; return those that have room and changes left."""
        history = self._table.history
        position = watches[0].position
        going = []
        for watch in watches:
            watch.last_round = self._round
            if watch.error is None and position < history.first:
                watch.error = errors.RevisionGone(
                    f"changes are kept since revision {history.first}, not since {position}"
                )
            if watch.error is not None:
                self._push_error(watch, watch.error)
            elif self._push_epoch(watch):
                going.append(watch)
        if going and position < history.revision:
            # A turn ends at a multiple of TURN_CHANGES: so watches that stopped at different revisions meet again.
            pushed = last = 0
            for revision, change in islice(history.since(position), TURN_CHANGES - position % TURN_CHANGES):
                if revision > last:
                    last = history.last_of_request(revision)
                going = self._push_change(going, revision, last, View(change), stop_s)
                pushed += len(going)
                if not going or (pushed >= _CLOCK_EVERY and self._clock() >= stop_s):
                    break
                pushed %= _CLOCK_EVERY
        for watch in going:
            watch.had_room_s = self._now_s
            self._push_progress(watch)
        return [watch for watch in going if watch.position < history.revision]

    def _push_change(
        self, watches: list[_Watch], revision: int, last: int, change: View, stop_s: float
    ) -> list[_Watch]:
        """Push one change to watches, until the time is over; return those that were advanced past it.

        Args:
            last: the last revision of the request that made this one
        """
        if len(watches) == 1:
            return watches if self._push_to(watches[0], revision, last, change) else []
        advanced = []
        for count, watch in enumerate(watches, start=1):
            if self._push_to(watch, revision, last, change):
                advanced.append(watch)
            if count % _CLOCK_EVERY == 0 and self._clock() >= stop_s:
                break
        return advanced

    def _push_to(self, watch: _Watch, revision: int, last: int, change: View) -> bool:
        """Advance a watch past one change, with an event if its filter lets it through.

        Returns:
            False if its peer has no room, or has disconnected
        """
        payload = watch.filter(change)
        if payload is not None:
            more = watch.boundaries and revision < last
            if not self._push_event(watch, revision, errors.OK, payload, more):
                return False
            watch.mid_request = more
        elif watch.mid_request and revision == last:
            if not self._push_event(watch, revision, errors.OK, None):
                return False
            watch.mid_request = False
        watch.position = revision
        return True

    def _push_epoch(self, watch: _Watch) -> bool:
        """Push the epoch in which the table is, before any change made in it; False if there is no room for it.

        Another server of the table has begun it. A watch that went on elsewhere from a change of it, and named the
        epoch before, would be refused: that ended earlier.
        """
        epoch = self._table.epochs.current
        if watch.epoch == epoch:
            return True
        if watch.boundaries and epoch is not None:
            event = msgpack.encode_epoch(watch.position, watch.number, watch.mid_request, epoch)
            if not self._push(watch, watch.position, event):
                return False
        watch.epoch = epoch
        return True

    def _push_progress(self, watch: _Watch) -> None:
        """Push an event without a change, if the watch has asked for it, or has had no event for many changes."""
        arrived = watch.progress_asked and watch.position == self._table.history.revision
        due = arrived or (watch.position - watch.sent_revision >= PROGRESS_CHANGES and not watch.mid_request)
        if due and self._push_event(watch, watch.position, errors.OK, None):
            watch.progress_asked = watch.progress_asked and not arrived

    def _push_error(self, watch: _Watch, error: errors.KvzmqError) -> None:
        """Push the error that ends a watch, and end it; if its peer has no room it is tried again later."""
        if self._push_event(watch, watch.position, error.code, str(error)):
            self._end(watch)

    def _push_event(self, watch: _Watch, revision: int, code: int, payload: Any, more: bool = False) -> bool:
        """Push an event; False if the peer has no room, or has disconnected, upon which its watches are dropped."""
        return self._push(watch, revision, msgpack.encode_event(revision, watch.number, code, payload, more))

    def _push(self, watch: _Watch, revision: int, event: bytes) -> bool:
        peer = watch.peer
        try:
            pushed = peer.transport.push(peer.identity, event)
        except errors.PeerGone:
            self._drop(peer)
            return False
        if pushed:
            self._found_room = True
            watch.sent_revision = revision
            peer.sent_s = watch.had_room_s = self._now_s
        return pushed

    def _drop(self, peer: _Peer) -> None:
        for watch in list(peer.watches.values()):
            self._end(watch)

    def _send_heartbeats(self, now_s: float) -> None:
        """Send heartbeats to peers that were sent nothing lately; end the watches of peers whose own are overdue."""
        self._heartbeats_s = now_s
        heartbeat = msgpack.encode_heartbeat(self._table.history.revision)
        stop_s = now_s + PUMP_S
        for peer in list(self._peers.values()):
            if peer.silence_s_max is not None and now_s - peer.received_s > peer.silence_s_max:
                self.behind = True
                for watch in peer.watches.values():
                    watch.error = watch.error or errors.WatchIdle(
                        f"the connection has sent nothing for {peer.silence_s_max:g} seconds: watch again"
                    )
            elif now_s - peer.sent_s >= HEARTBEAT_S:
                try:
                    peer.transport.push(peer.identity, heartbeat)
                except errors.PeerGone:
                    self._drop(peer)
                peer.sent_s = now_s  # or there was no room: then it has something to read
                if self._clock() >= stop_s:
                    self._heartbeats_s = -HEARTBEAT_CHECK_S  # the others in the next step
                    return
