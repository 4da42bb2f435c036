"""Sessions: what makes a retried request take effect once.

For each session the results of its latest writing requests are kept under their sequence numbers,
with a checksum of the request. A number seen before gets its first results again; a number whose
results were dropped, and a session that was dropped, get an error, never a second execution. The
kept results are part of the table: replay makes them again and checkpoints hold them. The model is
RIFL (Lee et al., SOSP 2015).

A session begins with the request whose number is 1. Because a forgotten session cannot be told from
a new one, a client that wants the whole promise sends as number 1 nothing but `open`, and waits for
its reply: however late a copy of that request turns up, it does no harm.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from msgspec import Struct
from msgspec.structs import astuple

from kvzmq import errors

SESSIONS_MAX = 65_536
"""How many sessions are kept; then the one that has not written for the longest time goes."""

RESULTS_MAX = 128
"""How many results a session keeps: the most writing requests a client may have in flight."""

RESULT_BYTES_MAX = 1 << 20
"""How many bytes of results a session keeps; its latest result is kept whatever its size."""

ALL_BYTES_MAX = 128 << 20
"""How many bytes all sessions may take together; then the one longest silent goes."""

_SESSION_BYTES = 400
_KEPT_BYTES = 250
"""What a session and a kept result take besides the result's own bytes, roughly."""


class Kept(Struct, array_like=True, frozen=True, gc=False):
    """What a writing request gave: the CRC-32 of the request, the revision after it, the results.

    A Struct that the garbage collector does not look at: there may be millions.
    """

    digest: int
    revision: int
    results: bytes


class Session:
    """Hold one client's kept results; `floor` is the highest number whose results were dropped."""

    __slots__ = ("bytes", "floor", "kept")

    def __init__(self) -> None:
        self.floor = 0
        self.kept: dict[int, Kept] = {}
        self.bytes = _SESSION_BYTES


class Sessions:
    """All sessions, the one that wrote last at the end."""

    def __init__(self) -> None:
        self._sessions: dict[bytes, Session] = {}
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._sessions)

    def find(self, session_id: bytes, seq: int, digest: int) -> Kept | None:
        """Return what request `seq` of the session gave, or None if it is to be executed.

        Raises:
            SessionExpired: it can no longer be told whether it was executed
            SequenceReused: `seq` was another request
        """
        session = self._sessions.get(session_id)
        if session is None:
            if seq == 1:
                return None
            raise errors.SessionExpired("the session is not known (any more): open a new one")
        kept = session.kept.get(seq)
        if kept is None:
            if seq <= session.floor:
                raise errors.SessionExpired(f"the results of request {seq} are no longer kept")
            return None
        if kept.digest != digest:
            raise errors.SequenceReused(f"request {seq} of this session was another one")
        return kept

    def keep(self, session_id: bytes, seq: int, kept: Kept) -> None:
        """Keep what request `seq` gave, and drop what is too old or too much."""
        session = self._sessions.pop(session_id, None)
        if session is None:
            session = Session()
            self.bytes += session.bytes
        self._sessions[session_id] = session
        session.kept[seq] = kept
        grown = _KEPT_BYTES + len(kept.results)
        while len(session.kept) > RESULTS_MAX or (session.bytes + grown > RESULT_BYTES_MAX and len(session.kept) > 1):
            oldest = next(iter(session.kept))
            grown -= _KEPT_BYTES + len(session.kept.pop(oldest).results)
            session.floor = max(session.floor, oldest)
        session.bytes += grown
        self.bytes += grown
        while len(self._sessions) > SESSIONS_MAX or (self.bytes > ALL_BYTES_MAX and len(self._sessions) > 1):
            self.bytes -= self._sessions.pop(next(iter(self._sessions))).bytes

    def dump(self) -> Iterator[list[Any]]:
        """Yield `[id, floor, [[seq, digest, revision, results], ...]]`, the longest silent first."""
        for session_id, session in self._sessions.items():
            yield [session_id, session.floor, [(seq, *astuple(kept)) for seq, kept in session.kept.items()]]

    def load(self, dumped: Iterable[list[Any]]) -> None:
        """Take what `dump` gave."""
        for session_id, floor, results in dumped:
            session = Session()
            session.floor = floor
            session.kept = {seq: Kept(*kept) for seq, *kept in results}
            session.bytes += sum(_KEPT_BYTES + len(kept.results) for kept in session.kept.values())
            self._sessions[session_id] = session
            self.bytes += session.bytes
