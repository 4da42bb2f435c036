"""Is what clients saw linearizable? A recorder around real clients, and a checker of what they recorded.

    python tests/support/linearizability.py record URL SECONDS FILE [SEED [DEADLINE]]
    python tests/support/linearizability.py check FILE ...

Checking a history against all orders of its operations is NP-complete; here the order is given away:
every reply carries the table's revision, and every change of a row makes the next one. So there is
one order to judge, by revision, a change before the reads at the same revision. It has to agree with
real time, in which one client's reply came before another's request was sent, and with a model, a
dict, that gives every operation the result it got. If it does, the run was linearizable (Herlihy and
Wing, 1990); if it does not, the table did not keep its promise.

Operations of unknown outcome leave holes: a revision that nobody was told. For each hole the checker
tries those that may have made it: sent early enough, able to change the table as it was then, and with
an effect that explains everything seen afterwards. A hole that nobody can have made is a violation; it
is what a request executed twice looks like.

One client has one operation at a time on its way; several threads take several clients. They need
the table for themselves, or the others' changes are taken for such holes.
"""

from __future__ import annotations

import bisect
import contextlib
import random
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Union

import msgspec

import kvzmq
from kvzmq import errors

KEYS = ("a", "b", "c", "n", "m")
"""What the recorder's operations are about: few keys, so that clients meet."""

COUNTERS = ("n", "m")

TRIES_MAX = 20_000
"""How many explanations of the holes are tried before the checker gives up."""

ABSENT = "absent"
"""The result of an operation on a key that is not there; no recorded value is a bare string."""


class Op(msgspec.Struct, forbid_unknown_fields=True):
    """One operation as its client saw it.

    client     who
    method     insert, lookup, remove, increment or compare_and_set
    key        of what
    arguments  insert: [value]; increment: [by]; compare_and_set: [expected, value], None for absence
    begin_ns   before it was sent, monotonic
    end_ns     after the reply, or None: the outcome is unknown
    result     what it returned, or ABSENT
    revision   the table's, as the reply says, or None
    """

    client: str
    method: str
    key: str
    arguments: list[Any]
    begin_ns: int
    end_ns: Union[int, None] = None
    result: Any = None
    revision: Union[int, None] = None

    @property
    def known(self) -> bool:
        return self.end_ns is not None

    @property
    def changes(self) -> bool:
        """Whether it has, by its result, changed the table."""
        if self.method == "lookup":
            return False
        if self.method == "compare_and_set":
            return self.result is True
        return bool(self.result != ABSENT)

    def __str__(self) -> str:
        outcome = f"{self.result!r} at revision {self.revision}" if self.known else "outcome unknown"
        return f"{self.client}: {self.method} {self.key} {self.arguments} -> {outcome}"


class Violation(Exception):
    """No linearization explains the history; the message says where it breaks."""


class _Certain(Violation):
    """A violation without a hole in which anything unknown could have happened."""


class GaveUp(Exception):
    """There were too many operations of unknown outcome to try all explanations."""


# ---- the checker


def check(history: Iterable[Op], rows: dict[str, Any] | None = None, revision: int = 0) -> int:
    """Return how many operations of known outcome the history has, all of them linearizable.

    Args:
        rows, revision: the table before the first operation

    Raises:
        Violation: they are not
        GaveUp: it could not be told
    """
    known, unknown = [], []
    for op in history:
        if op.known:
            known.append(op)
        elif op.method != "lookup":
            unknown.append(op)
    _check_real_time(known)
    changes = _by_revision(known, revision)
    reads: dict[int, list[Op]] = {}
    for op in known:
        if not op.changes:
            assert op.revision is not None
            reads.setdefault(op.revision, []).append(op)
    floors = _floors(known, unknown)
    _explain(dict(rows or {}), revision, changes, reads, [(floors[id(op)], op) for op in unknown])
    return len(known)


def _check_real_time(known: Sequence[Op]) -> None:
    """What had returned before another was sent must come before it."""
    floors = _floors(known, known)
    for op in known:
        floor = floors[id(op)]
        assert op.revision is not None
        if floor is not None and (op.revision < floor.revision or (op.changes and op.revision == floor.revision)):  # type: ignore[operator]
            raise Violation(f"{op}; but before it was sent there was the reply to {floor}")


def _floors(known: Sequence[Op], ops: Sequence[Op]) -> dict[int, Op | None]:
    """Find for each of `ops` the highest revision that was known to somebody before it was sent."""
    ended = sorted(known, key=lambda op: op.end_ns or 0)
    found: dict[int, Op | None] = {}
    highest: Op | None = None
    at = 0
    for op in sorted(ops, key=lambda op: op.begin_ns):
        while at < len(ended) and ended[at].end_ns < op.begin_ns:  # type: ignore[operator]
            if highest is None or ended[at].revision > highest.revision:  # type: ignore[operator]
                highest = ended[at]
            at += 1
        found[id(op)] = highest
    return found


def _by_revision(known: Sequence[Op], first: int) -> dict[int, Op]:
    changes: dict[int, Op] = {}
    for op in known:
        if op.revision is None or op.revision < first:
            raise Violation(f"{op}; but the history begins at revision {first}")
        if op.changes:
            other = changes.setdefault(op.revision, op)
            if other is not op:
                raise Violation(f"two changes have one revision: {op}, and {other}")
    return changes


class _Choice:
    """A hole, what it was explained by, and the explanations not yet tried; with what there was before it."""

    __slots__ = ("chosen", "others", "revision", "rows", "used")

    def __init__(self, revision: int, rows: dict[str, Any], used: int, others: list[Op]) -> None:
        self.revision = revision
        self.rows = rows
        self.used = used
        self.others = others
        self.chosen: Op | None = None

    def concerns(self, key: str) -> bool:
        """Whether another explanation would treat `key` otherwise."""
        if self.chosen is not None and self.chosen.key == key:
            return bool(self.others)
        return any(op.key == key for op in self.others)

    def take(self, key: str | None) -> Op:
        """Take the next explanation, one about `key` if that is what is missing."""
        about = [op for op in self.others if op.key == key] if self.chosen is None or self.chosen.key != key else []
        self.chosen = (about or self.others)[-1]
        self.others.remove(self.chosen)
        return self.chosen


class _Walk:
    """Goes through the revisions; at holes takes one explanation, and comes back for another if it fails.

    A result that does not fit concerns one key, and whatever came before the last operation on that key
    makes no difference to it. So the walk goes back no further than that (`leaping`), and to holes that
    may concern the key. Only when this finds nothing everything is tried, hole by hole.
    """

    def __init__(
        self,
        changes: dict[int, Op],
        reads: dict[int, list[Op]],
        unknown: list[tuple[Op | None, Op]],
        leaping: bool,
    ) -> None:
        self.changes = changes
        self.reads = reads
        self.unknown = sorted(unknown, key=lambda pair: pair[1].begin_ns)  # tried from the end: the latest is likeliest
        self.leaping = leaping
        self.tries = 0
        self.furthest: tuple[int, str] = (-1, "")
        self._choices: list[_Choice] = []
        self._used: list[Op] = []
        self._pins: dict[str, list[int]] = {}
        for revision in sorted({*changes, *reads}):
            for op in (changes.get(revision), *reads.get(revision, ())):
                if op is not None and not (op.method == "compare_and_set" and op.result is False):
                    self._pins.setdefault(op.key, []).append(revision)

    def run(self, rows: dict[str, Any], revision: int) -> None:
        """Walk from `rows` at `revision` to the end.

        Raises:
            Violation: no explanation was found
        """
        last = max([*self.changes, *self.reads], default=revision)
        wrong = self._read(rows, revision)
        while wrong is not None or revision < last:
            if wrong is None:
                revision += 1
                op = self.changes.get(revision)
                if op is None:
                    self._choices.append(_Choice(revision, dict(rows), len(self._used), self._able(rows, revision)))
                    wrong = (None, f"revision {revision}: nobody can have made this change")
                else:
                    wrong = _misfit(rows, op) or self._read(rows, revision)
            if wrong is not None:
                if revision > self.furthest[0]:
                    self.furthest = (revision, wrong[1])
                key = wrong[0].key if wrong[0] is not None else None
                choice = self._go_back(wrong[0], revision)
                revision, rows = choice.revision, dict(choice.rows)
                del self._used[choice.used :]
                self._used.append(choice.take(key))
                apply(rows, self._used[-1])
                wrong = self._read(rows, revision)

    def _read(self, rows: dict[str, Any], revision: int) -> tuple[Op | None, str] | None:
        for op in self.reads.get(revision, ()):
            wrong = _misfit(rows, op)
            if wrong is not None:
                return wrong
        return None

    def _able(self, rows: dict[str, Any], revision: int) -> list[Op]:
        """Find who may have made a change; of those whose effect is the same, one is enough."""
        taken = set(map(id, self._used))
        able: dict[str, Op] = {}
        for floor, op in self.unknown:
            sent_before = floor is None or floor.revision < revision  # type: ignore[operator]
            if sent_before and id(op) not in taken and _would_change(rows, op):
                able.setdefault(f"{op.method} {op.key} {op.arguments}", op)
        return list(able.values())

    def _go_back(self, wrong: Op | None, revision: int) -> _Choice:
        choices = self._choices
        if self.leaping and wrong is not None:
            since = self._pinned(wrong, revision)
            at = len(choices) - 1
            while at >= 0 and choices[at].revision > since and not choices[at].concerns(wrong.key):
                at -= 1
            if at >= 0 and choices[at].revision > since:
                self._count_a_try()
                del choices[at + 1 :]
                return choices[at]
            if not choices or choices[-1].revision <= since:
                raise _Certain(self.furthest[1])
        while choices and not choices[-1].others:
            choices.pop()
        if not choices:
            raise Violation(self.furthest[1])
        self._count_a_try()
        return choices[-1]

    def _pinned(self, wrong: Op, revision: int) -> int:
        """Find since when the key's value is known whatever happened before."""
        change = self.changes.get(revision)
        if change is not None and change is not wrong and change.key == wrong.key:
            return revision
        pins = self._pins.get(wrong.key, [])
        before = bisect.bisect_left(pins, revision)
        return pins[before - 1] if before else -1

    def _count_a_try(self) -> None:
        self.tries += 1
        if self.tries > TRIES_MAX:
            raise GaveUp(f"{len(self.unknown)} operations of unknown outcome; stuck at: {self.furthest[1]}")


def _explain(
    rows: dict[str, Any],
    revision: int,
    changes: dict[int, Op],
    reads: dict[int, list[Op]],
    unknown: list[tuple[Op | None, Op]],
) -> None:
    try:
        _Walk(changes, reads, unknown, leaping=True).run(dict(rows), revision)
    except _Certain:
        raise
    except (Violation, GaveUp):
        _Walk(changes, reads, unknown, leaping=False).run(dict(rows), revision)


def _misfit(rows: dict[str, Any], op: Op) -> tuple[Op | None, str] | None:
    """Execute an operation; return it and what is wrong if it has another result than recorded."""
    result = apply(rows, op)
    return None if result == op.result else (op, f"{op}; but it has to be {result!r}")


def _would_change(rows: dict[str, Any], op: Op) -> bool:
    if op.method == "remove":
        return op.key in rows
    if op.method == "compare_and_set":
        return bool(rows.get(op.key) == op.arguments[0])
    return True


def apply(rows: dict[str, Any], op: Op) -> Any:
    """Execute an operation on a dict; returns its result. One that changes nothing leaves the dict alone."""
    key = op.key
    if op.method == "lookup":
        return rows.get(key, ABSENT)
    if op.method == "insert":
        rows[key] = op.arguments[0]
        return None
    if op.method == "remove":
        return None if rows.pop(key, ABSENT) != ABSENT else ABSENT
    if op.method == "increment":
        rows[key] = rows.get(key, 0) + op.arguments[0]
        return rows[key]
    assert op.method == "compare_and_set", op.method
    expected, value = op.arguments
    if rows.get(key) != expected:
        return False
    if value is None:
        rows.pop(key, None)
    else:
        rows[key] = value
    return True


# ---- the recorder


class Recorder:
    """A client whose operations are written down.

    The revision of a reply is taken to be the highest the client has been told: with one operation at
    a time it is the same, unless the server has answered from its past, and then the result fits the
    past and not that revision, or makes no difference.

    Args:
        client: for this recorder alone, used by one thread
        name: who it is
    """

    def __init__(self, client: kvzmq.Client, name: str) -> None:
        self._client = client
        self._name = name
        self.history: list[Op] = []

    def run(self, method: str, key: str, *arguments: Any) -> Any:
        """Execute one operation and write down what came of it; returns the result, or None if it is unknown."""
        op = Op(self._name, method, key, list(arguments), time.monotonic_ns())
        try:
            op.result = self._execute(method, key, arguments)
        except kvzmq.OutcomeUnknown:
            self.history.append(op)
            return None
        except (kvzmq.Timeout, kvzmq.WriteRejected, errors.Unavailable):
            return None  # it was not executed, or only read: nothing to explain
        op.end_ns = time.monotonic_ns()
        op.revision = self._client.revision
        self.history.append(op)
        return op.result

    def _execute(self, method: str, key: str, arguments: Sequence[Any]) -> Any:
        try:
            if method == "compare_and_set":
                arguments = [kvzmq.ABSENT if argument is None else argument for argument in arguments]
            return getattr(self._client, method)(key, *arguments)
        except KeyError:
            return ABSENT


def record(url: str, seconds: float, seed: int = 0, deadline_s: float = 0.5, known_min: int = 0) -> list[Op]:
    """Have one client do random operations on a few keys for so long, and until so many have a known outcome.

    Returns the history. Every value it writes is unique. The deadline is short, so that a restart of the server leaves
    some outcomes unknown.
    """
    chance = random.Random(seed)
    end_s = time.monotonic() + seconds
    with kvzmq.connect(url, timeout=deadline_s) as client:
        recorder = Recorder(client, f"client-{seed}")
        number = 0
        seen: dict[str, Any] = {}
        while time.monotonic() < end_s or sum(op.known for op in recorder.history) < known_min:
            number += 1
            value = [seed, number]
            key = chance.choice(KEYS)
            kind = chance.random()
            if key in COUNTERS:
                recorder.run("increment", key, 1) if kind < 0.6 else recorder.run("lookup", key)
            elif kind < 0.35:
                result = recorder.run("lookup", key)
                seen[key] = None if result == ABSENT else result
            elif kind < 0.6:
                recorder.run("insert", key, value)
            elif kind < 0.75:
                recorder.run("remove", key)
            else:
                recorder.run("compare_and_set", key, seen.get(key), value)
    return recorder.history


def save(history: Iterable[Op], path: Path) -> None:
    """Write a history, one operation a line."""
    path.write_bytes(b"".join(msgspec.json.encode(op) + b"\n" for op in history))


def load(paths: Iterable[Path]) -> list[Op]:
    """Read the histories of several clients of one run."""
    decode = msgspec.json.Decoder(Op).decode
    return [decode(line) for path in paths for line in path.read_bytes().splitlines()]


def main(command: str, *arguments: str) -> int:
    if command == "record":
        url, seconds, path, *rest = arguments
        save(record(url, float(seconds), *map(int, rest[:1]), *map(float, rest[1:2]), *map(int, rest[2:])), Path(path))
        return 0
    history = load(map(Path, arguments))
    try:
        known = check(history)
    except Violation as violation:
        print(f"not linearizable: {violation}")
        return 1
    except GaveUp as gave_up:
        print(f"no explanation found, perhaps there is none: {gave_up}")
        return 2
    print(f"linearizable: {known} operations, {len(history) - known} of unknown outcome")
    return 0


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main(*sys.argv[1:]))
