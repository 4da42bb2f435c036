"""The core of a watch: where it is in the table's history, and how it goes on after a reconnect. No I/O."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn, Union

import msgspec
from msgspec import Raw

from kvzmq import errors
from kvzmq.client.core.call import Call, Result
from kvzmq.client.core.calls import payload_of
from kvzmq.client.core.hello import ServerInfo
from kvzmq.client.core.push_state import NOTHING, Pushed, PushState
from kvzmq.client.core.stream import BaseStream
from kvzmq.protocol import encoding


class _Event(NamedTuple):
    revision: int
    key: str
    value: Any
    removed: bool


class Event(_Event):
    """A change of one row: a tuple of the first four, and `last`.

    revision  of the table, after the change
    key       the row's
    value     its new value; None if it was removed
    removed   whether it was removed, or, for a watched query, no longer matches
    last      whether this watch sees no further change of the request that made this one: what was seen up to here
              was once the table
    """

    __slots__ = ()
    last = True


class _EarlierEvent(Event):
    """An event whose request made a further change that the watch sees."""

    __slots__ = ()
    last = False


_EarlierEvent.__name__ = Event.__name__  # in its repr


_decode_started: Callable[[Raw], tuple[int, Union[str, None], Union[str, None]]] = msgspec.msgpack.Decoder(
    tuple[int, Union[str, None], Union[str, None]]
).decode


class WatchState(PushState[Event]):
    """One watch through any number of connections.

    What one request of the table has changed is given out together, when all of it has come.

    Args:
        make_call: makes the request from the revision to go on after, or None for now, and the epoch it was reached in
        prefix: taken off the keys
        from_revision: where to begin, or None for now
        epoch: in which that revision was reached, if it is known
        lineage: of the table that is expected, 32 hexadecimal digits, or None for whichever answers first
    """

    another_table = "its changes are not those of the table that was watched"

    def __init__(
        self,
        make_call: Callable[[int | None, str | None], Call],
        prefix: str,
        from_revision: int | None,
        epoch: str | None = None,
        lineage: str | None = None,
    ) -> None:
        super().__init__(lineage)
        self._make_call = make_call
        self._prefix = prefix
        self.position = from_revision
        """The revision up to which everything was received."""
        self.wants_progress = False
        """Whether to ask how far the table is, as soon as the watch has begun, and again on a new connection."""
        self.epoch = epoch
        """The latest epoch of the table that a server has reported, or None."""
        self._parts: list[Event] = []  # of a request that made further changes
        self._asking_progress = 0  # the number of the request for it that is unanswered, or 0
        self._goal: int | None = None  # the revision that it is to reach

    @property
    def seen(self) -> int | None:
        """The revision up to which everything was received and taken out of `events`."""
        unseen = self.events or self._parts
        return unseen[0].revision - 1 if unseen else self.position

    # ---- out

    def request(self, now_s: float) -> bytes:
        """Return the frame that starts the watch on a new connection, after what was received already."""
        self.begin_progress()
        return super().request(now_s)

    def _ops(self) -> list[Raw]:
        return self._make_call(self.position, self.epoch).ops

    def question(self) -> bytes | None:
        """Return the frame that asks how far the table is, if that is wanted and not asked yet."""
        return self.ask_progress() if self.wants_progress and self.asks_progress else None

    def ask_progress(self) -> bytes:
        """Return the frame that asks for an event once all changes up to now were pushed; see `arrived`."""
        frame = self._frame([Raw(encoding.encode_value(("progress", self._number)))])
        self._asking_progress = self._seq
        return frame

    def begin_progress(self) -> None:
        """Forget the revision that the watch was to reach."""
        self._asking_progress = 0
        self._goal = None

    @property
    def asks_progress(self) -> bool:
        """Whether the server has to be asked, or asked again, how far the table is."""
        return self.started and self._goal is None and not self._asking_progress

    @property
    def arrived(self) -> int | None:
        """The revision that the server has named, once everything up to it was received; else None."""
        came = self._goal is not None and not self._parts and self.position is not None and self.position >= self._goal
        return self._goal if came else None

    # ---- in

    def _begin(self, revision: int, info: ServerInfo, payload: Raw) -> None:
        self._number, self.lineage, self.epoch = _decode_started(payload)
        if self.position is None:
            self.position = revision

    def _answer(self, seq: int | None, revision: int, results: Raw) -> None:
        if seq == self._asking_progress:
            self._take_progress(revision, self._decode_one(results))

    def _take_progress(self, revision: int, result: Result) -> None:
        self._asking_progress = 0
        if result.code == errors.Unavailable.code:
            self.refused = True
        elif encoding.decode_value(payload_of(result)):
            self._goal = revision
        else:
            self._ask_again()  # the server has ended the watch, and its last word is lost

    def _take(self, revision: int, pushed: Pushed) -> None:
        """Take an event, of this connection or of the one before.

        What a lost connection had received still comes, among what the new one brings, and a server that
        was started again counts its watches from 1 again. So events are taken from the old watch until
        the new one has begun: each of the two tells everything after `position`, and nothing twice.
        """
        if pushed.watch != self._number:
            return  # of an earlier request
        if pushed.epoch is not None:
            self.epoch = pushed.epoch
        if pushed.code == errors.WatchIdle.code:
            self._ask_again()  # this program was busy for longer than it had promised
        elif pushed.code == errors.Unavailable.code:
            self.started, self.refused = False, True
        elif pushed.code != errors.OK:
            if self.started:
                self.error = errors.error_of(pushed.code, encoding.decode_value(pushed.payload))
        elif self.position is None or revision > self.position:
            self.position = revision
            self._add(revision, pushed)
        elif revision == self.position and not pushed.more:
            self._give_out()  # how far the watch has come, once more

    def _add(self, revision: int, pushed: Pushed) -> None:
        if bytes(pushed.payload) != NOTHING:
            key, value = encoding.decode_value(pushed.payload)
            if key.startswith(self._prefix):
                removed = not value
                kind = _EarlierEvent if pushed.more else Event
                event = kind(revision, key[len(self._prefix) :], None if removed else value[0], removed)
                if not pushed.more and not self._parts:
                    self.events.append(event)
                    return
                self._parts.append(event)
        if not pushed.more:
            self._give_out()

    def _give_out(self) -> None:
        if self._parts:
            self._parts[-1] = Event(*self._parts[-1])  # what came after it does not concern this watch
            self.events.extend(self._parts)
            self._parts.clear()


class BaseWatch(BaseStream[WatchState]):
    """What the blocking and the asyncio client's watches have in common."""

    _kind = "watch"
    _item = "change"
    _forked = (
        "this watch belongs to the process that made it: make one here, with from_revision=watch.revision, "
        "epoch=watch.epoch to go on from there"
    )

    @property
    def revision(self) -> int | None:
        """The revision up to which everything was seen: where a later watch can go on, with `epoch`."""
        return self._state.seen

    @property
    def epoch(self) -> str | None:
        """The table's epoch, 32 hexadecimal digits, when this watch last connected; None before."""
        return self._state.epoch

    def __reduce__(self) -> NoReturn:
        raise TypeError("a watch cannot be pickled: pass its revision and epoch, and watch from there")

    def __repr__(self) -> str:
        return f"<{self._name} at revision {self.revision}{' closed' if self._closed else ''}>"
