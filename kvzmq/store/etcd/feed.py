"""What other servers append to a log on etcd: a thread that reads a watch, and a queue.

The thread waits in gRPC for what one member sends, decodes it, and queues the groups of other servers, QUEUE_BYTES_MAX
of them at most: then it reads no more until some were taken, and etcd keeps the rest. Of the server's own groups, which
the watch delivers as well, it only notes that they have come. A stream that ends is begun again at the next member,
behind the last group that was delivered. The thread never touches the table, and holds the lock for a few instructions.

While nothing of others has come the descriptor is not readable, so that a server alone is never woken.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import grpc

from kvzmq import errors
from kvzmq.store.etcd import messages_pb2 as pb
from kvzmq.store.etcd.client import EtcdClient, EtcdCompacted, EtcdError, EtcdNotAllowed, prefix_end
from kvzmq.store.etcd.layout import Keys
from kvzmq.store.etcd.reader import Group, read_content, read_groups, read_tail

QUEUE_BYTES_MAX = 64 << 20
"""How many bytes of groups wait to be taken, and one group more."""

BACKOFF_S_MIN = 0.05
BACKOFF_S_MAX = 1.0
"""How soon a stream that has ended is begun again, and how rarely at last."""

CLOSE_S_MAX = 2.0
"""How long `close` waits for the thread, which may wait for an answer of etcd."""

_ENTRY_BYTES = 200
"""What a group costs beside its bytes."""

_log = logging.getLogger(__name__)


class Bell:
    """A descriptor that one thread makes readable for another."""

    def __init__(self) -> None:
        self._rung = False
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._reader.fileno()

    def ring(self) -> None:
        """Make it readable."""
        if not self._rung:
            self._rung = True
            with contextlib.suppress(BlockingIOError):
                self._writer.send(b"!")

    def clear(self) -> None:
        """Make it wait for the next ring."""
        self._rung = False
        with contextlib.suppress(BlockingIOError):
            self._reader.recv(64)

    def close(self) -> None:
        """Close the descriptor."""
        self._reader.close()
        self._writer.close()


class Feed:
    """The groups of a log from a position on, as etcd delivers them.

    Args:
        client: of the cluster
        keys: of the table
        bell: rung when others' groups have come, or the feed has failed
        own: what the keys of this server's groups begin with
        number: the last group that the caller has
        position: etcd's revision when that was put, or a later one before the next group
    """

    def __init__(self, client: EtcdClient, keys: Keys, bell: Bell, own: bytes, number: int, position: int) -> None:
        self._client = client
        self._keys = keys
        self._bell = bell
        self._own = own
        self.number = number
        """The number of the last group that was delivered, own ones counted."""
        self.own_delivered: tuple[bytes, int, int] = (b"", 0, 0)
        """Key, number and position of the server's own group that was delivered last."""
        self.failed: errors.KvzmqError | None = None
        """Why it cannot go on."""
        self.trouble: str | None = None
        """Why the latest stream ended, until the next one has begun."""
        self.streams = 0
        """How often a stream was begun."""
        self._position = position
        self._queue: deque[Group] = deque()
        self._bytes = 0
        self._changed = threading.Condition(threading.Lock())
        self._waiters = 0
        self._stream: Any = None
        self._stream_began_s = 0.0
        self._address = client.address
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="kvzmq etcd watch", daemon=True)
        self._thread.start()

    # ---- for the thread of the log

    def clear_bell(self) -> None:
        """Have the bell tell of what comes from here on; call it before `take`."""
        with self._changed:
            self._bell.clear()

    def ring(self) -> None:
        """Ring the bell: not everything was taken."""
        with self._changed:
            self._bell.ring()

    def take(self) -> list[Group]:
        """Return the groups of others that have come."""
        with self._changed:
            taken = list(self._queue)
            self._queue.clear()
            if self._bytes >= QUEUE_BYTES_MAX:
                self._changed.notify_all()
            self._bytes = 0
        return taken

    def wait_for(self, number: int, timeout_s: float) -> bool:
        """Wait until group `number` was delivered, the queue is full, or the feed has failed; False if none is so."""
        with self._changed:
            self._waiters += 1
            try:
                return self._changed.wait_for(
                    lambda: self.number >= number or self._bytes >= QUEUE_BYTES_MAX or self.failed is not None,
                    timeout_s,
                )
            finally:
                self._waiters -= 1

    def restart(self, after_s: float) -> None:
        """End the stream, if it is older than `after_s`, so that it is begun again at another member."""
        with self._changed:
            stream = self._stream if time.monotonic() - self._stream_began_s > after_s else None
        if stream is not None:
            stream.cancel()

    def close(self) -> None:
        """End the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            stream = self._stream
        if stream is not None:
            stream.cancel()
        self._thread.join(CLOSE_S_MAX)

    # ---- the thread

    def _run(self) -> None:
        backoff_s = BACKOFF_S_MIN
        while not self._closed:
            before = self._position
            try:
                self._follow()
            except grpc.RpcError as error:
                self._note(str(self._client.explain(error, self._address)))
            except EtcdCompacted:
                continue
            except EtcdError as error:
                self._note(str(error))
            except errors.KvzmqError as error:
                self._fail(error)
                return
            except ValueError:  # gRPC's, of a channel that was closed
                if not self._closed:
                    raise
                return
            backoff_s = BACKOFF_S_MIN if self._position != before else min(backoff_s * 2, BACKOFF_S_MAX)
            self._move_on()
            with self._changed:
                self._changed.wait_for(lambda: self._closed, backoff_s)

    def _note(self, trouble: str) -> None:
        if not self._closed:
            self.trouble = trouble
            _log.debug("the watch ended: %s", trouble)

    def _fail(self, error: errors.KvzmqError) -> None:
        with self._changed:
            self.failed = error
            if not self._closed:
                self._bell.ring()
            self._changed.notify_all()

    def _move_on(self) -> None:
        addresses = self._client.addresses
        self._address = addresses[(addresses.index(self._address) + 1) % len(addresses)]

    def _follow(self) -> None:
        """Queue what one stream brings, until it ends."""
        request = pb.WatchCreateRequest(
            key=self._keys.log,
            range_end=prefix_end(self._keys.log),
            start_revision=self._position + 1,
            filters=[pb.WatchCreateRequest.NODELETE],
            fragment=True,  # else an answer has up to 1000 groups of 1 MiB each
        )
        stream = self._client.watch(request, self._address)
        with self._changed:
            self._stream, self._stream_began_s = stream, time.monotonic()
            if self._closed:
                stream.cancel()
        self.streams += 1
        try:
            for response in stream:
                if response.events:
                    self._add_events(response.events)
                elif response.canceled:
                    if response.compact_revision:
                        self._fill_gap()
                        raise EtcdCompacted("the gap was filled: go on behind it")
                    reason = response.cancel_reason
                    refused = EtcdNotAllowed if "permission" in reason else EtcdError
                    raise refused(f"etcd at {self._address}: the watch was ended: {reason}")
                elif response.created:
                    self.trouble = None
        finally:
            stream.cancel()

    def _fill_gap(self) -> None:
        """Queue what came between the last group delivered and now, as the history that the watch needs is compacted.

        Raises:
            Trimmed: it is not in the log any more
        """
        tail = read_tail(self._client, self._keys)
        _log.info("etcd has compacted the history since group %d: read up to group %d", self.number, tail.number)
        for group in read_groups(self._client, self._keys, self.number, self._position, tail):
            if group.key.startswith(self._own):
                self._advance(group.number, group.position, group.key)
            else:
                self._add(group)
        self._position = tail.revision

    def _add_events(self, events: Sequence[pb.Event]) -> None:
        for event in events:
            kv = event.kv
            key, number, position = kv.key, self.number + 1, kv.mod_revision
            if key.startswith(self._own):
                self._advance(number, position, key)
            else:
                semantics, content = read_content(self._client, self._keys, key, kv.value)
                self._add(Group(number, position, key, semantics, content))

    def _advance(self, number: int, position: int, key: bytes) -> None:
        with self._changed:
            self.own_delivered = key, number, position
            self.number, self._position = number, position
            if self._waiters:
                self._changed.notify_all()

    def _add(self, group: Group) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._bytes < QUEUE_BYTES_MAX)
            self._queue.append(group)
            self._bytes += len(group.content) + _ENTRY_BYTES
            self.number, self._position = group.number, group.position
            if not self._closed:
                self._bell.ring()
            if self._waiters:
                self._changed.notify_all()
