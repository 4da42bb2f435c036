"""Operations that are sent together: a pipeline, or a transaction. No I/O, no waiting."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Generic, TypeVar

from kvzmq.client.core.call import Call, Result
from kvzmq.client.core.calls import Calls, together
from kvzmq.client.core.procedures import Procedure
from kvzmq.client.core.session import SHARED_BYTES_MAX
from kvzmq.protocol.limits import OPERATIONS_MAX

T = TypeVar("T")


class Pending(Generic[T]):
    """The result of one operation of a batch, which is there when the batch has been sent."""

    __slots__ = ("_error", "_value", "done")

    def __init__(self) -> None:
        self.done = False
        """Whether there is an outcome, which `result` returns or raises."""
        self._value: Any = None
        self._error: BaseException | None = None

    def result(self) -> T:
        """Return the operation's result, or raise its error.

        Raises:
            ValueError: the batch was not sent: its block has not ended yet, or ended with an exception
        """
        if not self.done:
            raise ValueError("the batch was not sent: ask for results after its `with` block has ended well")
        if self._error is not None:
            raise self._error
        value: T = self._value
        return value

    def set_result(self, value: T) -> None:
        """Have `result` return a value."""
        self.done, self._value = True, value

    def set_error(self, error: BaseException) -> None:
        """Have `result` raise an error."""
        self.done, self._error = True, error

    def __repr__(self) -> str:
        state = "not sent" if not self.done else repr(self._value if self._error is None else self._error)
        return f"<kvzmq.Pending {state}>"


_Operations = list[tuple[Call, Pending[Any]]]


class Batch:
    """Base class of batches: operations, and where their results will be, which is what each of the methods returns."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._operations: _Operations = []
        self._closed = False

    def close(self) -> None:
        """Take no more operations: each raises ValueError from now on."""
        self._closed = True

    def _add(self, call: Call) -> Pending[Any]:
        if self._closed:
            raise ValueError(
                "the block of this batch has ended: nothing more is sent, begin another with a `with` block"
            )
        pending: Pending[Any] = Pending()
        self._operations.append((call, pending))
        return pending

    def insert(self, key: str, value: object, ttl_s: float | None = None) -> Pending[None]:
        """Set `key` to `value`, for `ttl_s` seconds or for good."""
        return self._add(self._calls.insert(key, value, ttl_s))

    def lookup(self, key: str, type: Any = Any) -> Pending[Any]:
        """Read `key`, decoded into `type` if given; a KeyError if it is absent."""
        return self._add(self._calls.lookup(key, type))

    def remove(self, key: str) -> Pending[None]:
        """Remove `key`; a KeyError if it is absent."""
        return self._add(self._calls.remove(key))

    def insert_many(self, rows: Mapping[str, object] | Iterable[tuple[str, object]]) -> Pending[None]:
        """Set many keys."""
        return self._add(self._calls.write_rows(rows))

    def lookup_many(self, keys: Iterable[str], type: Any = Any) -> Pending[dict[str, Any]]:
        """Read those of `keys` that are there."""
        return self._add(self._calls.lookup_keys(keys, type))

    def remove_many(self, keys: Iterable[str]) -> Pending[int]:
        """Remove those of `keys` that are there; how many were."""
        return self._add(self._calls.remove_keys(keys))

    def setdefault(self, key: str, default: Any = None) -> Pending[Any]:
        """Insert `default` if `key` is absent; its value then."""
        return self._add(self._calls.setdefault(key, default))

    def increment(self, key: str, by: float = 1) -> Pending[Any]:
        """Add to a number; the new number."""
        return self._add(self._calls.increment(key, by))

    def expire(self, key: str, ttl_s: float | None) -> Pending[None]:
        """Let `key` live `ttl_s` seconds from now, or for good; a KeyError if it is absent."""
        return self._add(self._calls.expire(key, ttl_s))

    def requests(self) -> list[Call]:
        """Return the calls to send, in order; what they finish with goes into the operations' results."""
        raise NotImplementedError

    def send(self) -> Procedure[None]:
        """Send the batch; where that ends with an error, so do all results that are not there."""
        try:
            for call in self.requests():  # noqa: UP028, as the iterator of a list can be sent nothing
                yield call
        except BaseException as error:
            for _, pending in self._operations:
                if not pending.done:
                    pending.set_error(error)
            raise

    def __len__(self) -> int:
        return len(self._operations)


class Pipeline(Batch):
    """Operations sent as one request (of 512 KiB at most, else several), executed with nothing in between.

    One that fails, a removal of a key that is not there for example, fails alone, in its `result()`.
    """

    def compare_and_set(self, key: str, expected: object, value: object, ttl_s: float | None = None) -> Pending[bool]:
        """Set `key`, for `ttl_s` seconds or for good, if it holds `expected`; whether it did."""
        return self._add(self._calls.compare_and_set(key, expected, value, ttl_s))

    def contains(self, key: str) -> Pending[bool]:
        """Say whether `key` is there."""
        return self._add(self._calls.contains(key))

    def pop(self, key: str) -> Pending[Any]:
        """Remove `key`; the value it had. A KeyError if it is absent."""
        return self._add(self._calls.pop(key))

    def ttl(self, key: str) -> Pending[float | None]:
        """Read how long `key` still lives, seconds; None for good."""
        return self._add(self._calls.ttl(key))

    def size(self) -> Pending[int]:
        """Count the table's rows."""
        return self._add(self._calls.size())

    def query(self, subkey: str, subvalue: object, type: Any = Any) -> Pending[list[tuple[str, Any]]]:
        """Find the rows whose value is a map in which `subkey` equals `subvalue`."""
        return self._add(self._calls.query(subkey, subvalue, type))

    def requests(self) -> list[Call]:
        parts: list[_Operations] = []
        size = count = 0
        for call, pending in self._operations:
            if not parts or size + call.size > SHARED_BYTES_MAX or count + len(call.ops) > OPERATIONS_MAX:
                parts.append([])
                size = count = 0
            parts[-1].append((call, pending))
            size += call.size
            count += len(call.ops)
        return [together([_with_outcome_in(*operation) for operation in part], lambda _: None) for part in parts]


class Transaction(Batch):
    """Operations that are applied all, or not at all if a check does not hold or one of them fails."""

    def __init__(self, calls: Calls, checks: Mapping[str, object]) -> None:
        super().__init__(calls)
        self._checks = checks

    def requests(self) -> list[Call]:
        """Return what to send: one call, whose finish raises if nothing was applied."""
        return [self._calls.transaction(self._checks, [_with_outcome_in(*operation) for operation in self._operations])]


def _with_outcome_in(call: Call, pending: Pending[Any]) -> Call:
    """Return a call as `call` that leaves its outcome in `pending`."""

    def finish(results: list[Result]) -> None:
        try:
            pending.set_result(call.finish(results))
        except Exception as error:  # raised when this one's result is asked for
            pending.set_error(error)

    return Call(call.ops, call.writes, finish, call.size)
