"""The appends of one server to a log on etcd: one at a time, each sent until it is known what became of it.

    IDLE ──a long group──> PIECES ──all are there──┐
     └──────────────────────────────────────────> SENT ──its answer──> LANDED ──those before it have come──> IDLE
                                                    └──no answer──> OPEN ──it is in the log──> LANDED
                                                                     └──fenced: it never will be──> IDLE

An append is one transaction. It compares the revision at which this server's own key was put last, then puts that key,
the tail, and the group under a key of its own. Sent twice, the second one fails: so it can be sent again, to another
member, whenever an answer is missing.

OPEN is settled by a second transaction: while the server's key is as the append would have found it, the key is
deleted, after which an append that is still on its way cannot succeed any more. A deletion is possible, too, when the
quota is used up. The next append registers the server again.

Nobody but the server removes its key while it lives (see `former`). If the key is gone all the same and so is the
group, then the group was never there, or was trimmed: nobody can say, and the server ends.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from enum import Enum
from typing import Any, NoReturn

import grpc

from kvzmq import errors, units
from kvzmq.store.etcd import messages_pb2 as pb
from kvzmq.store.etcd.client import (
    EtcdClient,
    EtcdError,
    EtcdRefused,
    delete_op,
    is_absent,
    prefix_end,
    put_op,
    range_op,
    was_changed_at,
)
from kvzmq.store.etcd.layout import CHUNK_BYTES, INLINE_BYTES_MAX, Keys, encode_chunked, encode_inline
from kvzmq.store.etcd.pieces import PieceWriter

PIECES_S_MAX = 10.0
"""How long the pieces of a long group may take in all, before it is refused."""

RESOLVE_S_MAX = 0.05
"""How long one call of `ask` waits: clients are served in between."""

ANSWER_S_MAX = 1.0
"""How long `ask` waits in all for one answer, before it asks another member."""

FAREWELL_S_MAX = 0.3
"""How long a server that stops takes to remove its key."""


class AppendState(Enum):
    """The state of the latest append.

    IDLE    it was answered
    PIECES  its pieces are on their way, and the group itself was not sent
    SENT    it was sent, and the answer may come yet
    OPEN    the answer will not come: it may be in the log, or get there yet
    LANDED  it is in the log, and groups before it have not come yet
    """

    IDLE = "idle"
    PIECES = "pieces"
    SENT = "sent"
    OPEN = "open"
    LANDED = "landed"


_IDLE, _PIECES, _SENT, _OPEN, _LANDED = AppendState


class Appends:
    """What one server appends.

    Args:
        client: of the cluster
        keys: of the table
        server: what tells this server's keys from those of others
    """

    def __init__(self, client: EtcdClient, keys: Keys, server: str) -> None:
        self.client = client
        self.state = _IDLE
        self.key = b""
        """Of the latest append, until it is settled."""
        self.landed: tuple[int, int] | None = None
        """Number and position of the latest append, if they are known."""
        self.own = keys.group(server, 0)[:-16]
        """What the keys of this server's groups begin with."""
        self._keys = keys
        self._server = server
        self._server_key = keys.server(server)
        self._registered_at = 0  # the revision at which the server's key was put last; 0 if it is not there
        self._removed_at = 0  # that of the key whose removal was sent last without an answer
        self._seq = 0
        self._value = b""  # of the latest append
        self._pieces: PieceWriter | None = None  # of it, if it is long
        self._answer: tuple[Any, str] | None = None  # to what `ask` has asked, and whom
        self._why = ""  # the answer of the latest append is missing

    def begin(self, group: bytes, deadline_s: float) -> None:
        """Append a group; return when it has landed.

        Args:
            deadline_s: on time.monotonic; then its fate is left open

        Raises:
            WriteRejected: it is not in the log, and never will be
            AppendUnknown: `ask` until it returns or raises WriteRejected
        """
        if not self._registered_at:
            self._register(deadline_s - time.monotonic())
        self._seq += 1
        self.key = self._keys.group(self._server, self._seq)
        self.landed = None
        if len(group) <= INLINE_BYTES_MAX:
            self._value = encode_inline(group)
        else:
            self._value = encode_chunked(group)
            self._pieces = PieceWriter(self.client, self._piece_transactions(group), time.monotonic() + PIECES_S_MAX)
            self.state = _PIECES
            self._advance_pieces((deadline_s - time.monotonic()) / 2)
        self.state = _SENT
        try:
            answer = self.client.transact(self._transaction(), repeatable=True, timeout_s=deadline_s - time.monotonic())
        except EtcdRefused as error:
            self._give_up(str(error))
        except EtcdError as error:
            self.state = _OPEN
            self._why = str(error)
            raise errors.AppendUnknown(self._why) from error
        self._note_answer(answer)

    def ask(self) -> None:
        """Find out what became of a group; return when it has landed, and raise as `begin`.

        It waits for RESOLVE_S_MAX or twice that, and raises AppendUnknown; the next call waits on.
        """
        if self.state is _PIECES:
            self._advance_pieces(RESOLVE_S_MAX)
            self.state = _SENT
        if self.state is _SENT:
            self._note_answer(self._await_answer(self._transaction()))
        if self.state is _OPEN:
            answer = self._await_answer(self._fence_transaction())
            if answer.succeeded:
                self._registered_at = 0
                self._give_up(self._why)
            self._note_landed(answer)

    def forget(self) -> None:
        """End the append that was settled."""
        self.state, self.key, self._value, self._pieces, self._why = _IDLE, b"", b"", None, ""

    def close(self) -> None:
        """Remove the server's key; what is open then never gets into the log."""
        if self._registered_at:
            with contextlib.suppress(EtcdError):
                self.client.delete_range(self._server_key, timeout_s=FAREWELL_S_MAX)

    # ---- what is sent

    def _register(self, timeout_s: float) -> None:
        """Put the server's key, if it is not there.

        Raises:
            WriteRejected: it could not be done; nothing was appended
        """
        try:
            answer = self.client.txn(
                [is_absent(self._server_key)],
                [put_op(self._server_key, b"%d" % self._seq)],
                [range_op(self._server_key)],
                repeatable=True,
                timeout_s=timeout_s,
            )
        except EtcdError as error:
            raise errors.WriteRejected(f"not applied: {error}") from error
        if answer.succeeded:
            self._registered_at = answer.header.revision
        else:
            self._registered_at = answer.responses[0].response_range.kvs[0].mod_revision

    def _transaction(self) -> pb.TxnRequest:
        return pb.TxnRequest(
            compare=[was_changed_at(self._server_key, self._registered_at)],
            success=[
                put_op(self._server_key, b"%d" % self._seq),
                put_op(self._keys.tail, b"", prev_kv=True),
                put_op(self.key, self._value),
            ],
            failure=[range_op(self._server_key), range_op(self.key, keys_only=True)],
        )

    def _fence_transaction(self) -> pb.TxnRequest:
        return pb.TxnRequest(
            compare=[was_changed_at(self._server_key, self._registered_at)],
            success=[delete_op(self._server_key)],
            failure=[range_op(self._server_key), range_op(self.key, keys_only=True)],
        )

    def _piece_transactions(self, group: bytes) -> Iterator[pb.TxnRequest]:
        for number, offset in enumerate(range(0, len(group), CHUNK_BYTES)):
            yield pb.TxnRequest(
                compare=[was_changed_at(self._server_key, self._registered_at)],
                success=[put_op(self._keys.chunk(self.key, number), group[offset : offset + CHUNK_BYTES])],
            )

    def _advance_pieces(self, timeout_s: float) -> None:
        """Return when the pieces of the group are there.

        Raises:
            AppendUnknown: they are not there yet: go on later
            WriteRejected: they cannot be put
        """
        assert self._pieces is not None
        try:
            if not self._pieces.advance(timeout_s):
                raise errors.AppendUnknown("a long group is on its way to etcd, piece by piece")
        except EtcdError as error:
            chunks = self._keys.chunks(self.key)
            self._removed_at = self._registered_at
            with contextlib.suppress(EtcdError):
                self.client.txn(
                    [was_changed_at(self._server_key, self._registered_at)],
                    [delete_op(self._server_key), delete_op(chunks, prefix_end(chunks))],  # no piece comes after this
                    repeatable=True,
                    timeout_s=FAREWELL_S_MAX,
                )
            self._registered_at = 0
            self._give_up(
                f"this step is longer than {units.size(INLINE_BYTES_MAX)}, and its pieces could not be put: "
                f"{error}. Write less at a time"
            )

    # ---- what is answered

    def _note_answer(self, answer: pb.TxnResponse) -> None:
        """Note what became of the group, from the answer to its transaction; raises as `_note_landed`."""
        if not answer.succeeded:
            self._note_landed(answer)
            return
        number, position = answer.responses[1].response_put.prev_kv.version + 1, answer.header.revision
        self.state, self.landed, self._registered_at = _LANDED, (number, position), position

    def _note_landed(self, answer: pb.TxnResponse) -> None:
        """Note what the answer to a transaction says whose comparison has failed.

        Raises:
            WriteRejected: the group is not in the log, and never will be
            StorageFatal: it may have been, and the server's key was removed by somebody else
        """
        own, group = (each.response_range.kvs for each in answer.responses)
        if own and own[0].value == b"%d" % self._seq:
            self._registered_at = own[0].mod_revision
            self.state = _LANDED
        elif group:
            self._registered_at = own[0].mod_revision if own else 0
            self.state = _LANDED
        elif not own and self._removed_at != self._registered_at:
            raise errors.StorageFatal(
                f"etcd has no key {self._server_key.decode()} any more, which only this server may remove: was etcd "
                "put back from a snapshot, or a copy of this server's disk started? Nobody can say whether the latest "
                "changes were appended: start again"
            )
        else:
            self._registered_at = own[0].mod_revision if own else 0
            self._give_up(self._why or "the server's key in etcd was put anew: try again")

    def _give_up(self, why: str) -> NoReturn:
        self.forget()
        raise errors.WriteRejected(f"not applied: {why}")

    def _await_answer(self, request: pb.TxnRequest) -> pb.TxnResponse:
        """Return the answer to `request`, which was sent by an earlier call or is now.

        Raises:
            AppendUnknown: it is not there yet, or will not come: then the fate of the group is open
        """
        if self._answer is None:
            address = self.client.address
            try:
                self._answer = self.client.future(request, ANSWER_S_MAX), address
            except EtcdError as error:
                self.client.move_on(address)
                raise errors.AppendUnknown(str(error)) from error
        future, address = self._answer
        try:
            answer: pb.TxnResponse = future.result(timeout=RESOLVE_S_MAX)
        except grpc.FutureTimeoutError:
            raise errors.AppendUnknown(f"etcd at {address} has not answered yet") from None
        except grpc.RpcError as error:
            self._answer = None
            self.client.move_on(address)
            why = str(self.client.explain(error, address))
            if self.state is _OPEN:  # it was the fence
                self._removed_at = self._registered_at
            self.state, self._why = _OPEN, self._why or why
            raise errors.AppendUnknown(why) from error
        self._answer = None
        return answer
