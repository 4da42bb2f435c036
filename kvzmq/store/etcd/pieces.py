"""The pieces of a group that is too long for one value, on their way to etcd.

They are put a few at a time, and again at the next member where an answer is missing: the same piece under the same
key. No one reads them before the group itself is put, behind the last of them.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple

import grpc

from kvzmq.store.etcd import messages_pb2 as pb
from kvzmq.store.etcd.client import EtcdClient, EtcdError, EtcdRefused, EtcdUnreachable

IN_FLIGHT_MAX = 4

PIECE_S_MAX = 2.0
"""How long one attempt to put a piece may take, before it is put at the next member."""


class Piece(NamedTuple):
    """A piece that was sent: the transaction, its future, and the member that was asked."""

    request: pb.TxnRequest
    future: Any
    address: str


class PieceWriter:
    """Puts pieces, little by little.

    Args:
        client: of the cluster
        requests: a transaction for each piece, which fails once the server was fenced
        deadline_s: when to give up, on time.monotonic
    """

    def __init__(self, client: EtcdClient, requests: Iterable[pb.TxnRequest], deadline_s: float) -> None:
        self._client = client
        self._left = deque(requests)
        self._sent: deque[Piece] = deque()
        self._deadline_s = deadline_s

    def advance(self, timeout_s: float) -> bool:
        """Go on for `timeout_s` at most; True when all pieces are there.

        Raises:
            EtcdError: they cannot be put
        """
        until_s = time.monotonic() + timeout_s
        while self._left or self._sent:
            while self._left and len(self._sent) < IN_FLIGHT_MAX:
                self._send(self._left.popleft())
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                return False
            request, future, address = self._sent[0]
            try:
                answer = future.result(timeout=left_s)
            except grpc.FutureTimeoutError:
                return False
            except grpc.RpcError as error:
                self._sent.popleft()
                self._put_again(request, self._client.explain(error, address), address)
                continue
            self._sent.popleft()
            if not answer.succeeded:
                raise EtcdRefused("the server's key is gone")
        return True

    def _send(self, request: pb.TxnRequest) -> None:
        address = self._client.address
        self._sent.append(Piece(request, self._client.future(request, PIECE_S_MAX), address))

    def _put_again(self, request: pb.TxnRequest, error: EtcdError, address: str) -> None:
        is_final = isinstance(error, EtcdRefused) and not isinstance(error, EtcdUnreachable)
        if is_final or time.monotonic() > self._deadline_s:
            raise error
        self._client.move_on(address)
        self._left.appendleft(request)
