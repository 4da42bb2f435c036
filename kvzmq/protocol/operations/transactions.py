"""The transaction: operations that are all applied, or none of them."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import TYPE_CHECKING, Union

from msgspec import Raw

from kvzmq import errors
from kvzmq.protocol.declaration import Access, Operation, Write
from kvzmq.protocol.limits import TRANSACTION_MAX
from kvzmq.protocol.operations import rows
from kvzmq.protocol.operations.arguments import Key, Maybe

# For the decoders: a type checker takes it for any operation.
if TYPE_CHECKING:
    TransactionOperation = Operation
else:
    TransactionOperation = Union[tuple(kind for kind in vars(rows).values() if getattr(kind, "in_transactions", False))]


class Transact(Write, tag="transaction"):
    """Apply `operations` if every check holds and none of them fails; else nothing.

    `checks` are pairs of a key and the value it must have, or its absence. Payload: an array of
    the operations' payloads. CheckFailed if a check does not hold, or the error of the operation.
    """

    checks: list[tuple[Key, Maybe]]
    operations: list[TransactionOperation]

    mark = "T"

    def accesses(self) -> tuple[Access, ...]:
        checked = Access(False, tuple(key for key, _ in self.checks))
        return (checked, *chain.from_iterable(op.accesses() for op in self.operations))

    def weight(self) -> int:
        return len(self.checks) + sum([op.weight() for op in self.operations])

    def values(self) -> Iterable[Raw]:
        values = [value for _, expected in self.checks for value in expected]
        for op in self.operations:
            values += op.values()
        return values

    def check(self) -> None:
        size = len(self.checks)
        for op in self.operations:
            size += max(1, op.weight())
        if size > TRANSACTION_MAX:
            raise errors.InvalidRequest(f"a transaction of more than {TRANSACTION_MAX} checks and changes")
        for op in self.operations:
            op.check()
