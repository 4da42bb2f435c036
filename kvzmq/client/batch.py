"""Operations gathered to be sent together: a pipeline, or a transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Generic, TypeVar

from kvzmq.client.operations import Plan, Plans
from kvzmq.client.session import REQUEST_BYTES_MAX, Result

T = TypeVar("T")


class Pending(Generic[T]):
    """A result that is there when its batch has been sent."""

    __slots__ = ("_error", "_sent", "_value")

    def __init__(self) -> None:
        self._sent = False
        self._value: Any = None
        self._error: BaseException | None = None

    def result(self) -> T:
        """Return the operation's result, or raise its error."""
        if not self._sent:
            raise ValueError("the batch has not been sent yet: leave its `with` block first")
        if self._error is not None:
            raise self._error
        value: T = self._value
        return value

    def settle(self, value: Any, error: BaseException | None) -> None:
        """Set the outcome."""
        self._sent, self._value, self._error = True, value, error


class Batch:
    """Gathers operations; each method returns where its result will be."""

    def __init__(self, plans: Plans) -> None:
        self._plans = plans
        self._gathered: list[tuple[Plan, Pending[Any]]] = []

    def _add(self, plan: Plan) -> Pending[Any]:
        pending: Pending[Any] = Pending()
        self._gathered.append((plan, pending))
        return pending

    def insert(self, key: str, value: object, ttl_s: float | None = None) -> Pending[None]:
        """Set `key` to `value`, for `ttl_s` seconds or for good."""
        return self._add(self._plans.insert(key, value, ttl_s))

    def remove(self, key: str) -> Pending[None]:
        """Remove `key`; a KeyError if it is absent."""
        return self._add(self._plans.remove(key))

    def insert_many(self, rows: Mapping[str, object] | Iterable[tuple[str, object]]) -> list[Pending[None]]:
        """Set many keys."""
        return [self._add(plan) for plan in self._plans.insert_many(rows)]

    def setdefault(self, key: str, value: object) -> Pending[Any]:
        """Insert `value` if `key` is absent; its value then."""
        return self._add(self._plans.setdefault(key, value))

    def increment(self, key: str, by: float = 1) -> Pending[Any]:
        """Add to a number; the new number."""
        return self._add(self._plans.increment(key, by))

    def expire(self, key: str, ttl_s: float | None) -> Pending[None]:
        """Let `key` live `ttl_s` seconds from now, or for good."""
        return self._add(self._plans.expire(key, ttl_s))

    def lookup(self, key: str, type: Any = Any) -> Pending[Any]:
        """Read `key`; a KeyError if it is absent."""
        return self._add(self._plans.lookup(key, type))

    def __len__(self) -> int:
        return len(self._gathered)


class Pipeline(Batch):
    """Operations sent as one request (of 1 MiB at most, else several), executed with nothing in between.

    One that fails, a removal of a key that is not there for example, fails alone, in its `result()`.
    """

    def compare_and_set(self, key: str, expected: object, value: object) -> Pending[bool]:
        """Set `key` if it holds `expected`; whether it did."""
        return self._add(self._plans.compare_and_set(key, expected, value))

    def size(self) -> Pending[int]:
        """Count the table's rows."""
        return self._add(self._plans.size())

    def ttl(self, key: str) -> Pending[float | None]:
        """Read how long `key` still lives, seconds; None for good."""
        return self._add(self._plans.ttl(key))

    def query(self, subkey: str, subvalue: object) -> Pending[list[tuple[str, Any]]]:
        """Find the rows whose value is a map in which `subkey` equals `subvalue`."""
        return self._add(self._plans.query(subkey, subvalue))

    def requests(self) -> list[Plan]:
        """Return what to send: plans whose finish settles each operation by itself."""
        requests: list[Plan] = []
        part: list[tuple[Plan, Pending[Any]]] = []
        size = 0
        for plan, pending in self._gathered:
            length = sum(map(len, plan.ops))
            if part and size + length > REQUEST_BYTES_MAX:
                requests.append(_together(part))
                part, size = [], 0
            part.append((plan, pending))
            size += length
        if part:
            requests.append(_together(part))
        self._gathered = []
        return requests


class Transaction(Batch):
    """Operations that are applied all, or not at all if a check does not hold or one of them fails."""

    def __init__(self, plans: Plans, checks: Mapping[str, object]) -> None:
        super().__init__(plans)
        self._checks = checks

    def request(self) -> Plan:
        """Return what to send; its finish raises if nothing was applied."""
        gathered, self._gathered = self._gathered, []
        plan = self._plans.transaction(self._checks, [step for step, _ in gathered])

        def finish(results: list[Result]) -> None:
            for (_, pending), value in zip(gathered, plan.finish(results)):
                pending.settle(value, None)

        return plan._replace(finish=finish)


def _together(part: list[tuple[Plan, Pending[Any]]]) -> Plan:
    def finish(results: list[Result]) -> None:
        at = 0
        for plan, pending in part:
            mine = results[at : at + len(plan.ops)]
            at += len(plan.ops)
            try:
                pending.settle(plan.finish(mine), None)
            except Exception as error:  # kept for whoever asks for this one's result
                pending.settle(None, error)

    return Plan([op for plan, _ in part for op in plan.ops], any(plan.writes for plan, _ in part), finish)
