"""Operations gathered to be sent together: a pipeline, or a transaction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from kvzmq.client.core.call import Call, Result
from kvzmq.client.core.calls import Calls, together
from kvzmq.client.core.procedures import Procedure
from kvzmq.client.core.session import SHARED_BYTES_MAX
from kvzmq.protocol.limits import OPERATIONS_MAX

T = TypeVar("T")


class Pending(Generic[T]):
    """A result that is there when its batch has been sent."""

    __slots__ = ("_error", "_value", "settled")

    def __init__(self) -> None:
        self.settled = False
        """Whether `result` has something to say."""
        self._value: Any = None
        self._error: BaseException | None = None

    def result(self) -> T:
        """Return the operation's result, or raise its error.

        Raises:
            ValueError: the batch was not sent: its block has not ended yet, or ended with an exception
        """
        if not self.settled:
            raise ValueError("the batch was not sent: ask for results after its `with` block has ended well")
        if self._error is not None:
            raise self._error
        value: T = self._value
        return value

    def settle(self, value: Any, error: BaseException | None) -> None:
        """Set the outcome."""
        self.settled, self._value, self._error = True, value, error

    def __repr__(self) -> str:
        state = "not sent" if not self.settled else repr(self._value if self._error is None else self._error)
        return f"<kvzmq.Pending {state}>"


_Gathered = list[tuple[Call, Pending[Any]]]


class Batch:
    """Gathers operations; each method returns where its result will be."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._gathered: _Gathered = []
        self._ended = False

    @contextmanager
    def gathering(self) -> Iterator[None]:
        """Take operations until the block ends."""
        try:
            yield
        finally:
            self._ended = True

    def _add(self, call: Call) -> Pending[Any]:
        if self._ended:
            raise ValueError(
                "the block of this batch has ended: nothing more is sent, begin another with a `with` block"
            )
        pending: Pending[Any] = Pending()
        self._gathered.append((call, pending))
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
        """Return what to send, in order: calls whose finish settles each operation by itself."""
        raise NotImplementedError

    def sending(self) -> Procedure[None]:
        """Send the batch; where that ends with an error, so do all results that are not there."""
        try:
            for call in self.requests():  # noqa: UP028, as the iterator of a list can be sent nothing
                yield call
        except BaseException as error:
            for _, pending in self._gathered:
                if not pending.settled:
                    pending.settle(None, error)
            raise

    def __len__(self) -> int:
        return len(self._gathered)


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
        parts: list[_Gathered] = []
        size = count = 0
        for call, pending in self._gathered:
            if not parts or size + call.size > SHARED_BYTES_MAX or count + len(call.ops) > OPERATIONS_MAX:
                parts.append([])
                size = count = 0
            parts[-1].append((call, pending))
            size += call.size
            count += len(call.ops)
        return [together([_settling(*operation) for operation in part], lambda _: None) for part in parts]


class Transaction(Batch):
    """Operations that are applied all, or not at all if a check does not hold or one of them fails."""

    def __init__(self, calls: Calls, checks: Mapping[str, object]) -> None:
        super().__init__(calls)
        self._checks = checks

    def requests(self) -> list[Call]:
        """Return what to send: one call, whose finish raises if nothing was applied."""
        return [self._calls.transaction(self._checks, [_settling(*operation) for operation in self._gathered])]


def _settling(call: Call, pending: Pending[Any]) -> Call:
    def finish(results: list[Result]) -> None:
        try:
            pending.settle(call.finish(results), None)
        except Exception as error:  # raised when this one's result is asked for
            pending.settle(None, error)

    return Call(call.ops, call.writes, finish, call.size)
