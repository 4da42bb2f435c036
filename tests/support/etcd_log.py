"""Logs on the etcd cluster of the tests, and a client of etcd that loses what it is told to lose.

table = EtcdTable(cluster.addresses, name)
log = table.open()
log.client.lose_answers(1)      the next transaction is executed, and its answer is lost
log.client.lose_requests(1)     the next transaction never gets there
log.client.cut()                nothing gets there, until mend()
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import grpc
import msgspec
import pytest

from kvzmq.store.etcd import etcd_log
from kvzmq.store.etcd import messages_pb2 as pb
from kvzmq.store.etcd.client import EtcdClient, delete_op, prefix_end
from kvzmq.store.etcd.etcd_log import EtcdLog, Found
from kvzmq.store.etcd.layout import Keys
from kvzmq.store.log import Checkpoint
from support.servers import PATIENCE_S


class Lost(grpc.RpcError):
    """What gRPC would raise when no answer comes."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.DEADLINE_EXCEEDED

    def details(self) -> str:
        return "planted"


class NoRoom(Lost):
    """What etcd says when the quota is used up."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.RESOURCE_EXHAUSTED

    def details(self) -> str:
        return "etcdserver: mvcc: database space exceeded"


class Never:
    """A future that no answer comes for."""

    def result(self, timeout: float | None = None) -> Any:
        raise Lost


class HeldStream:
    """A watch whose responses pass while its client lets them."""

    def __init__(self, stream: Any, passes: Callable[[], bool], changed: threading.Condition) -> None:
        self._stream = stream
        self._passes = passes
        self._changed = changed
        self._cancelled = False

    def __iter__(self) -> HeldStream:
        return self

    def __next__(self) -> Any:
        try:
            response = next(self._stream)
            with self._changed:
                if not self._changed.wait_for(lambda: self._cancelled or self._passes(), PATIENCE_S):
                    raise AssertionError(f"the watch was held for {PATIENCE_S} s")
                if self._cancelled:
                    raise Lost
        except BaseException:
            self._stream.cancel()
            raise
        return response

    def cancel(self) -> None:
        with self._changed:
            self._cancelled = True
            self._changed.notify_all()
        self._stream.cancel()


class FaultyClient(EtcdClient):
    """Loses requests or answers of transactions, and holds watches, as told; everything else passes."""

    def __init__(self, addresses: Sequence[str]) -> None:
        super().__init__(addresses)
        self.transactions: list[pb.TxnRequest] = []
        """What was sent, lost ones included."""
        self._answers = self._requests = 0
        self._instead = Lost
        self._is_cut = False
        self._changed = threading.Condition()
        self._held: frozenset[str] = frozenset()
        self._no_watches = False
        self._streams: list[HeldStream] = []

    def lose_answers(self, count: int, instead: type[Lost] = Lost) -> None:
        """Execute the next transactions, and have their answers be errors."""
        self._answers, self._instead = count, instead

    def lose_requests(self, count: int) -> None:
        """Lose the next transactions before they get there."""
        self._requests = count

    def cut(self) -> None:
        """Lose everything that is asked from here on; a watch goes on."""
        self._is_cut = True

    def hold_watches(self, count: int) -> None:
        """Hold back what the watches of the first members bring, of the member that is asked first above all."""
        with self._changed:
            first = self.addresses.index(self.address)
            self._held = frozenset((self.addresses * 2)[first : first + count])

    def end_watches(self) -> None:
        """End all watches, and let none begin."""
        self._no_watches = True
        for stream in self._streams:
            stream.cancel()

    def mend(self) -> None:
        """Lose and hold nothing any more."""
        self._is_cut, self._answers, self._requests = False, 0, 0
        with self._changed:
            self._held, self._no_watches = frozenset(), False
            self._changed.notify_all()

    def watch(self, request: pb.WatchCreateRequest, address: str) -> Any:
        if self._no_watches:
            raise Lost
        stream = HeldStream(super().watch(request, address), lambda: address not in self._held, self._changed)
        self._streams.append(stream)
        return stream

    def _exchange(self, address: str, method: Any, request: Any, timeout_s: float) -> Any:
        if isinstance(request, pb.TxnRequest):
            self.transactions.append(request)
        if self._is_cut or (isinstance(request, pb.TxnRequest) and self._count_lost("_requests")):
            raise Lost
        answer = super()._exchange(address, method, request, timeout_s)
        if isinstance(request, pb.TxnRequest) and self._count_lost("_answers"):
            raise self._instead
        return answer

    def future(self, request: Any, timeout_s: float) -> Any:
        if self._is_cut or self._count_lost("_requests"):
            return Never()
        future = super().future(request, timeout_s)
        if self._count_lost("_answers"):
            future.result()
            return Never()
        return future

    def _count_lost(self, what: str) -> bool:
        left: int = getattr(self, what)
        setattr(self, what, max(0, left - 1))
        return left > 0


class OneKeyCheckpoints:
    """A table's checkpoint under one key, and the log trimmed at once: the least that the log asks of checkpoints."""

    def __init__(self, client: EtcdClient, name: str) -> None:
        self._client = client
        self._keys = Keys(name)
        self._key = f"{name}/checkpoint".encode()

    def newest(self) -> Found | None:
        found = self._client.range(self._key).kvs
        if not found:
            return None
        group, position, sections = msgspec.msgpack.decode(found[0].value)
        return Found(Checkpoint(group, iter(sections)), position)

    def write(self, found: Found) -> None:
        group, sections = found.checkpoint
        self._client.put(self._key, msgspec.msgpack.encode((group, found.position, list(sections))))

    def truncate(self, group: int, position: int) -> None:
        prefix = self._keys.log
        keys = [kv.key for kv in self._client.range(prefix, prefix_end(prefix)).kvs if kv.mod_revision <= position]
        for key in keys:
            chunks = self._keys.chunks(key)
            self._client.txn((), [delete_op(key), delete_op(chunks, prefix_end(chunks))])


class FaultyLog(EtcdLog):
    """An EtcdLog whose client can be told to fail."""

    def __init__(self, client: FaultyClient, name: str) -> None:
        super().__init__(client, name, OneKeyCheckpoints(client, name))
        self.client: FaultyClient = client
        self.keys = Keys(name)


class EtcdTable:
    """One table, and the logs that were opened of it; they end with the `with` block."""

    def __init__(self, addresses: Sequence[str], name: str) -> None:
        self.addresses = addresses
        self.name = name
        self.logs: list[EtcdLog] = []

    def open(self) -> FaultyLog:
        """Return another log of the table, not yet recovered."""
        log = FaultyLog(FaultyClient(self.addresses), self.name)
        self.logs.append(log)
        return log

    def follow(self) -> FaultyLog:
        """Return another log of the table, recovered and empty."""
        log = self.open()
        list(log.recover())
        return log

    def close(self) -> None:
        for log in self.logs:
            log.close()


def wait_at_most(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Have the appends and barriers of logs wait so long for etcd, and for what others have appended."""
    monkeypatch.setattr(etcd_log, "APPEND_S_MAX", seconds)
    monkeypatch.setattr(etcd_log, "BARRIER_S_MAX", seconds)
