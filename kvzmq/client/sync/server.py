"""The methods of the blocking client that concern the server: what it tells of itself, and what it pushes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from kvzmq.client.core.call import Call
from kvzmq.client.core.calls import SLOW_REQUESTS
from kvzmq.client.core.procedures import BACKUP_POLL_S, BackupReading, all_clients
from kvzmq.client.sync.shell import Shell

if TYPE_CHECKING:
    from kvzmq.client.core.monitor_state import MonitoredRequest
    from kvzmq.client.sync.monitor import Monitor
    from kvzmq.client.sync.stream import Stream
    from kvzmq.client.sync.watch import Watch

S = TypeVar("S", bound="Stream[Any, Any]")


class ServerMethods(Shell):
    """Asks about the server, and has it push."""

    def ping(self, *, timeout: float | None = None) -> float:
        """Return how long the server took to answer, seconds."""
        began_s = time.perf_counter()
        self._run(self._calls.ping(), timeout)
        return time.perf_counter() - began_s

    def stats(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Return what the server says of itself, by name."""
        described: dict[str, Any] = self._run(self._calls.stats(), timeout)
        return described

    def clients(self, *, timeout: float | None = None) -> list[dict[str, Any]]:
        """Return what the server knows of each client that is connected, by name."""
        return self._perform(all_clients(self._calls), timeout)

    def kick(self, name: str, *, timeout: float | None = None) -> bool:
        """End the connection of the client that `clients` calls so; False if there is none. Ours connect again."""
        ended: bool = self._run(self._calls.kick(name), timeout)
        return ended

    def slow_requests(self, limit: int = SLOW_REQUESTS, *, timeout: float | None = None) -> list[MonitoredRequest]:
        """Return at most `limit` of the requests that took longest, the slowest first, as the server keeps them."""
        found: list[MonitoredRequest] = self._run(self._calls.slow_requests(limit), timeout)
        return found

    def backup(self, *, timeout: float | None = None) -> Iterator[bytes]:
        """Yield a backup of the whole table, whatever the prefix, in pieces of up to 256 KiB; see `kvzmq backup`.

        It holds everything that was acknowledged before. The server first writes a checkpoint, and goes on serving. It
        is whole when the iterator ends without an error: an end marker is in it, and checksums.

        Args:
            timeout: for each piece, seconds

        Raises:
            BackupFailed: it cannot be made, or was not read on for a minute, or the server was started anew
        """
        reading = BackupReading(self._calls)
        while not self._perform(reading.begin(), timeout):
            time.sleep(BACKUP_POLL_S)
        while piece := self._perform(reading.next_piece(), timeout):
            yield piece

    # ---- what it pushes

    def watch(
        self,
        prefix: str = "",
        from_revision: int | None = None,
        *,
        epoch: str | None = None,
        timeout: float | None = None,
    ) -> Watch:
        """Return an iterator over the changes of the keys that begin with `prefix`.

        It has begun when this returns: a change made after that is seen. With `from_revision` it
        begins with the changes after that revision; with the `epoch` of the watch that had come so far, too, it is
        refused where this table went on from an older copy that did not hold them. It goes on through reconnects and
        restarts without gaps or repeats.

        Raises:
            RevisionGone: now or while iterating: the server no longer keeps the changes from there on
            Timeout: the server did not answer
        """
        return self._watch(lambda *place: self._calls.watch(prefix, *place), from_revision, epoch, timeout)

    def watch_query(
        self,
        subkey: str,
        subvalue: object,
        from_revision: int | None = None,
        *,
        epoch: str | None = None,
        timeout: float | None = None,
    ) -> Watch:
        """Return an iterator over the changes of the rows that `query` finds, those that cease to match as removed."""
        return self._watch(
            lambda *place: self._calls.watch_query(subkey, subvalue, *place), from_revision, epoch, timeout
        )

    def _watch(
        self,
        make_call: Callable[[int | None, str | None], Call],
        from_revision: int | None,
        epoch: str | None,
        timeout: float | None,
    ) -> Watch:
        channel = self._watch_channel(make_call, from_revision, epoch)
        from kvzmq.client.sync.watch import Watch

        return _started(Watch(channel, self._timeout_s(timeout)))

    def monitor(
        self,
        client: str = "",
        op: str = "",
        prefix: str = "",
        slower_than_s: float = 0.0,
        sample: int = 1,
        *,
        timeout: float | None = None,
    ) -> Monitor:
        """Return an iterator over the requests that the server answers from now on; see MonitoredRequest.

        The server never waits for it: requests that it has no time or no room to tell of are counted as dropped. It
        tells names and keys, and no values.

        Args:
            client: only those of clients whose name begins so
            op: only requests with this operation
            prefix: only requests that touch keys which begin so; no other operations of theirs are shown then
            slower_than_s: only those that took so long, from their arrival until their reply was handed over
            sample: one of so many of these
            timeout: how long the server may take to begin, seconds

        Raises:
            NotAllowed: this client has not the rights `admin` and `read`
            ResultTooLarge: there are monitors enough
            Timeout: the server did not answer
        """
        channel = self._monitor_channel(client, op, prefix, slower_than_s, sample)
        from kvzmq.client.sync.monitor import Monitor

        return _started(Monitor(channel, self._timeout_s(timeout)))


def _started(stream: S) -> S:
    try:
        stream.start()
    except BaseException:
        stream.close()
        raise
    return stream
