"""One job for a table in etcd, in a process of its own: see `upkeep`, which starts it.

A checkpoint is made as a server starts: the newest one and the log behind it are recovered into a table, which is then
written down (`store.compact`).
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from kvzmq import errors
from kvzmq.store.child import attach
from kvzmq.store.etcd import space
from kvzmq.store.etcd.checkpoints import Head, Lock, LockLost, Pace, lock, read_head, trim
from kvzmq.store.etcd.client import EtcdClient
from kvzmq.store.etcd.cluster import Cluster
from kvzmq.store.etcd.etcd_log import EtcdLog
from kvzmq.store.etcd.kept import WrittenCheckpoints
from kvzmq.store.etcd.layout import Keys
from kvzmq.store.etcd.local_copy import LocalCopy
from kvzmq.store.etcd.upkeep import LEFT_TO_ANOTHER, Settings
from kvzmq.store.etcd.url import Security
from kvzmq.store.log import Checkpoint
from kvzmq.store.store import compact
from kvzmq.units import size


class _KeepingLog(EtcdLog):
    """A log whose recovery keeps the lock of the checkpoints."""

    def __init__(self, client: EtcdClient, name: str, checkpoints: WrittenCheckpoints) -> None:
        super().__init__(client, name, checkpoints)
        self._keep_while = checkpoints.keep_while

    def recover(self) -> Iterator[Checkpoint | bytes]:
        for found in super().recover():
            if isinstance(found, Checkpoint):
                yield found
            else:
                yield from self._keep_while(iter((found,)))


class Worker:
    """What the jobs share.

    Args:
        settings: see Settings
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._name = settings.name
        self._copy = LocalCopy(Path(settings.directory))
        self._client = self._connect()
        self._cluster = Cluster(self._client)

    def _connect(self) -> EtcdClient:
        given = self._settings
        security = Security(given.ca, given.certificate, given.key, given.user, given.password)
        return EtcdClient(given.addresses, security)

    def checkpoint(self, known: str) -> None:
        """Write a checkpoint, unless there is one that holds more than group `known`."""
        with lock(self._cluster, self._name) as held:
            head = read_head(self._cluster, self._name)
            if head is not None and head.group > int(known):
                raise LockLost(f"another server has written a checkpoint of {self._name}")
            self._write(held)

    def _write(self, held: Lock, pace: Pace = time.sleep) -> None:
        kept = WrittenCheckpoints(self._cluster, self._name, self._copy, held, pace)
        with contextlib.closing(_KeepingLog(self._connect(), self._name, kept)) as log:
            compact(log)

    def shorten(self, group: str, checkpoint_bytes: str, free_bytes: str, growth_bytes: str) -> None:
        """Make room in an etcd that has just enough for a checkpoint: write one that holds `group`, and trim behind it.

        Nobody changes the table meanwhile, so no pauses are made for the log. If somebody does, another server has made
        room while this one was waiting for the lock.
        """
        with lock(self._cluster, self._name) as held:
            head = read_head(self._cluster, self._name)
            if head is None or head.group < int(group):
                length = int(checkpoint_bytes)
                self._make_room(held, space.Room(length, length), "a checkpoint needs")
                self._write(held, pace=lambda seconds: None)
            elif self._goes_on_behind(head):
                raise LockLost(f"another server has made room for {self._name}")
            self._make_room(held, space.Room(int(free_bytes), int(growth_bytes)), "the next changes need")

    def _make_room(self, held: Lock, wanted: space.Room, needs: str) -> None:
        found = space.make_room(
            held, self._cluster, self._cluster, self._name, wanted, self._settings.quota_bytes
        )  # fmt: skip
        if not found.does_for(wanted):
            raise errors.WriteRejected(
                f"etcd has room for {size(max(0, min(found)))}, and {needs} {size(max(wanted))}: start the members "
                "with a larger --quota-backend-bytes (8 GiB at most)"
            )

    def _goes_on_behind(self, head: Head) -> bool:
        tail = Keys(self._name).tail.decode()
        _, found = self._cluster.get(tail)
        return tail in found and found[tail].put_at > head.position

    def copy(self) -> None:
        """Fetch the newest checkpoint."""
        self._copy.fetch(self._cluster, self._name)

    def trim(self, position: str, revision: str) -> None:
        """Delete groups put until `position`, and have etcd forget versions from before `revision`."""
        with lock(self._cluster, self._name) as held:
            trim(held, self._cluster, self._name, int(position))
        self._cluster.compact(int(revision))

    def recover(self) -> None:
        """Make room in an etcd whose quota is used up."""
        found = space.recover(self._cluster, self._cluster, self._name, self._settings.quota_bytes)
        if not found.disarmed:
            raise errors.WriteRejected(str(found))

    def close(self) -> None:
        self._client.close()
        self._copy.close()


def main(job: str, *arguments: str) -> None:
    """Do one job: the main function of the child process.

    Args:
        job: its name, a method of Worker
        arguments: of the job, and the server's version and id, see `attach`
    """
    *rest, version, parent = arguments
    attach(version, int(parent))
    settings = msgspec.json.decode(sys.stdin.buffer.read(), type=Settings)
    gc.disable()  # a job makes no cycles, and the process ends with it
    os.nice(10)
    try:
        with contextlib.closing(Worker(settings)) as worker:
            jobs: dict[str, Callable[..., None]] = {
                "checkpoint": worker.checkpoint,
                "copy": worker.copy,
                "trim": worker.trim,
                "recover": worker.recover,
                "shorten": worker.shorten,
            }
            jobs[job](*rest)
    except LockLost:
        sys.exit(LEFT_TO_ANOTHER)
    except (errors.KvzmqError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(*sys.argv[1:])
