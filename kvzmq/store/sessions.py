"""Sessions: what makes a retried request take effect once.

For each session the replies to its latest writing requests are cached under their sequence numbers,
with a checksum of the request. A request whose number has a cached reply gets that reply; one whose
cached reply, or whose session, was dropped gets an error, never a second execution. The cached
replies are part of the table: replay makes them again and checkpoints hold them. The model is RIFL
(Lee et al., SOSP 2015).

A session begins with the request whose number is 1. Because a dropped session cannot be distinguished
from a new one, a client that must not have its first write executed twice sends `open` alone as number
1, and waits for its reply: a late copy of `open` changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from msgspec import Struct
from msgspec.structs import astuple

from kvzmq import errors

SESSIONS_MAX = 65_536
"""How many sessions are kept; beyond that the one that has not written for the longest time is dropped."""

CACHED_REPLIES_MAX = 128
"""How many replies of a session are cached: the most writing requests a client may have in flight."""

CACHED_BYTES_MAX = 1 << 20
"""How many bytes the cached replies of a session may take; its latest one is cached whatever its size."""

ALL_CACHED_BYTES_MAX = 128 << 20
"""How many bytes all sessions may take together; beyond that the one that has not written for the longest time is
dropped."""

_SESSION_BYTES = 400
_REPLY_BYTES = 250
"""How many bytes a session and a cached reply take besides the encoded results, roughly."""


class CachedReply(Struct, array_like=True, frozen=True, gc=False):
    """The reply to a writing request: the CRC-32 of the request, the revision after it, the encoded results.

    A Struct that the garbage collector does not traverse: there may be millions.
    """

    digest: int
    revision: int
    results: bytes


class _Cache:
    """The cached replies of one session; `floor` is the highest sequence number whose cached reply was dropped."""

    __slots__ = ("bytes", "floor", "replies")

    def __init__(self) -> None:
        self.floor = 0
        self.replies: dict[int, CachedReply] = {}
        self.bytes = _SESSION_BYTES


class Sessions:
    """All sessions, the one that wrote last at the end."""

    def __init__(self) -> None:
        self._sessions: dict[bytes, _Cache] = {}
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._sessions)

    def find(self, session_id: bytes, seq: int, digest: int) -> CachedReply | None:
        """Return the cached reply to request `seq` of the session, or None if the request is to be executed.

        Raises:
            SessionExpired: it is no longer known whether it was executed
            SequenceReused: `seq` was the number of a different request
        """
        session = self._sessions.get(session_id)
        if session is None:
            if seq == 1:
                return None
            raise errors.SessionExpired("the session is not known (any more): open a new one")
        reply = session.replies.get(seq)
        if reply is None:
            if seq <= session.floor:
                raise errors.SessionExpired(f"the results of request {seq} are no longer kept")
            return None
        if reply.digest != digest:
            raise errors.SequenceReused(f"request {seq} of this session was another one")
        return reply

    def add(self, session_id: bytes, seq: int, reply: CachedReply) -> None:
        """Cache the reply to request `seq`; drop replies and sessions beyond the limits, the oldest first."""
        session = self._sessions.pop(session_id, None)
        if session is None:
            session = _Cache()
            self.bytes += session.bytes
        self._sessions[session_id] = session
        session.replies[seq] = reply
        grown = _REPLY_BYTES + len(reply.results)
        while len(session.replies) > CACHED_REPLIES_MAX or (
            session.bytes + grown > CACHED_BYTES_MAX and len(session.replies) > 1
        ):
            oldest = next(iter(session.replies))
            grown -= _REPLY_BYTES + len(session.replies.pop(oldest).results)
            session.floor = max(session.floor, oldest)
        session.bytes += grown
        self.bytes += grown
        while len(self._sessions) > SESSIONS_MAX or (self.bytes > ALL_CACHED_BYTES_MAX and len(self._sessions) > 1):
            self.bytes -= self._sessions.pop(next(iter(self._sessions))).bytes

    def dump(self) -> Iterator[list[Any]]:
        """Yield `[id, floor, [[seq, digest, revision, results], ...]]`, in the order in which sessions are dropped."""
        for session_id, session in self._sessions.items():
            yield [session_id, session.floor, [(seq, *astuple(reply)) for seq, reply in session.replies.items()]]

    def load(self, dumped: Iterable[list[Any]]) -> None:
        """Load what `dump` gave."""
        for session_id, floor, results in dumped:
            session = _Cache()
            session.floor = floor
            session.replies = {seq: CachedReply(*reply) for seq, *reply in results}
            session.bytes += sum(_REPLY_BYTES + len(reply.results) for reply in session.replies.values())
            self._sessions[session_id] = session
            self.bytes += session.bytes
