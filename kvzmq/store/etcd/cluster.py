"""An etcd cluster as the upkeep of a table needs it: keys as text, and what its members are asked one by one."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence

from kvzmq.store.etcd import messages_pb2 as pb
from kvzmq.store.etcd.checkpoints import Found, Puts, Ranges, Values
from kvzmq.store.etcd.client import (
    EtcdClient,
    EtcdCompacted,
    EtcdError,
    delete_op,
    is_absent,
    put_op,
    range_op,
)
from kvzmq.store.etcd.space import Status

CALL_S_MAX = 10.0
"""How long a call may take, seconds; one carries up to a piece of a checkpoint."""

STATUS_S_MAX = 2.0
"""How long a member may take to tell of itself; the others are asked then."""

BEHIND_S_MAX = 10.0
BEHIND_AGAIN_S = 0.05
"""How long it may take until a member that answers is as far as the others, and how often they are asked."""

DEFRAGMENT_S_MAX = 600.0
"""How long one member may take to write its file anew."""


class Cluster:
    """The `Keys` and the `Members` of a cluster.

    Args:
        client: closed by whoever made it
    """

    def __init__(self, client: EtcdClient) -> None:
        self._client = client
        self.addresses: Sequence[str] = client.addresses

    # ---- keys

    def get(self, *keys: str) -> tuple[int, dict[str, Found]]:
        """Return etcd's revision and those of `keys` that are there; see Keys.get."""
        response = self._client.txn((), [range_op(key.encode()) for key in keys], repeatable=True, timeout_s=CALL_S_MAX)
        found = [kv for each in response.responses for kv in each.response_range.kvs]
        return response.header.revision, {
            kv.key.decode(): Found(kv.key.decode(), kv.value, kv.mod_revision) for kv in found
        }

    def list(self, prefix: str, after: str, limit: int, put_until: int = 0) -> Sequence[Found]:
        """Return keys in order, without values; see Keys.list."""
        first = max(prefix, f"{after}\0") if after else prefix
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        request = pb.RangeRequest(
            key=first.encode(), range_end=end.encode(), limit=limit, keys_only=True, max_mod_revision=put_until
        )
        response = self._client.txn((), [pb.RequestOp(request_range=request)], repeatable=True, timeout_s=CALL_S_MAX)
        kvs = response.responses[0].response_range.kvs
        return [Found(kv.key.decode(), b"", kv.mod_revision) for kv in kvs]

    def transact(self, equal: Values, put: Puts = (), delete: Ranges = ()) -> int | None:
        """Delete and put if keys have these values; see Keys.transact."""
        response = self._client.txn(
            [_is(key, value) for key, value in equal],
            [
                *(delete_op(first.encode(), end.encode()) for first, end in delete),
                *(put_op(key.encode(), value) for key, value in put),
            ],
            repeatable=True,
            timeout_s=CALL_S_MAX,
        )
        return response.header.revision if response.succeeded else None

    def compact(self, revision: int) -> None:
        """Have etcd forget what was overwritten or deleted before `revision`, and wait until it has."""
        with contextlib.suppress(EtcdCompacted):
            self._client.compact(revision, physical=True, timeout_s=DEFRAGMENT_S_MAX)

    # ---- members

    def status(self, address: str) -> Status:
        """Return what a member says of its file and itself."""
        return status_of(self._client.status(address, timeout_s=STATUS_S_MAX))

    def index_at(self, revision: int) -> int:
        """Return how far etcd's own log is, by a member that has reached `revision`.

        Raises:
            EtcdError: no member says
        """
        deadline_s = time.monotonic() + BEHIND_S_MAX
        while True:
            last: EtcdError | None = None
            for address in self.addresses:
                try:
                    status = self._client.status(address, timeout_s=STATUS_S_MAX)
                except EtcdError as error:
                    last = error
                    continue
                if status.header.revision >= revision:
                    return status.raftIndex
            if time.monotonic() > deadline_s:
                raise last or EtcdError(f"no member of etcd has reached revision {revision:,}, which one has told of")
            time.sleep(BEHIND_AGAIN_S)

    def defragment(self, address: str) -> None:
        """Have a member write its file anew."""
        self._client.defragment(address, timeout_s=DEFRAGMENT_S_MAX)

    def disarm(self) -> None:
        """End the alarm NOSPACE of all members."""
        for alarm in self._client.alarms():
            if alarm.alarm == pb.NOSPACE:
                self._client.disarm(alarm)

    def delete(self, first: str, end: str) -> None:
        """Delete a range of keys."""
        self._client.delete_range(first.encode(), end.encode(), timeout_s=CALL_S_MAX)


def status_of(response: pb.StatusResponse) -> Status:
    """Return what a member's answer says; alarms are among its errors, as text."""
    return Status(
        file_bytes=response.dbSize,
        in_use_bytes=response.dbSizeInUse,
        quota_bytes=response.dbSizeQuota,
        no_space=any("NOSPACE" in error for error in response.errors),
        is_corrupt=any("CORRUPT" in error for error in response.errors),
        version=response.version,
        has_leader=response.leader != 0,
        leads=response.leader == response.header.member_id,
        applied=response.raftAppliedIndex,
    )


def _is(key: str, value: bytes | None) -> pb.Compare:
    if value is None:
        return is_absent(key.encode())
    return pb.Compare(target=pb.Compare.VALUE, key=key.encode(), value=value)
