"""The checker of linearizability: right histories pass, and every planted fault is found."""

from __future__ import annotations

import copy
import itertools
import random
from pathlib import Path
from typing import Any

import pytest
from support import linearizability as lin
from support.linearizability import ABSENT, Op, Violation, check


def simulate(seed: int, operations: int = 200, clients: int = 4, lost: float = 0.0) -> list[Op]:
    """Make up the history of a linearizable table: each operation takes effect at a moment while it is under way.

    Args:
        lost: how often the outcome stays unknown; then it takes effect at once, much later, or never
    """
    chance = random.Random(seed)
    rows: dict[str, Any] = {}
    revision = 0
    history: list[Op] = []
    free_at = [0] * clients
    moments = []
    for number in range(operations):
        client = chance.randrange(clients)
        begin = free_at[client] + chance.randrange(1, 50)
        effect = begin + chance.randrange(1, 60)
        end = effect + chance.randrange(1, 60)
        free_at[client] = end
        op = Op(f"client-{client}", "lookup", chance.choice("xyz"), [], begin, end)
        kind = chance.random()
        if kind < 0.3:
            op.method, op.arguments = "insert", [[client, number]]
        elif kind < 0.4:
            op.method = "remove"
        elif kind < 0.6:
            op.method, op.key, op.arguments = "increment", "n", [1]
        elif kind < 0.75:
            op.method, op.arguments = "compare_and_set", [None, [client, number]]
        history.append(op)
        if op.method != "lookup" and chance.random() < lost:
            op.end_ns = None
            if chance.random() < 0.4:
                continue
            effect += chance.choice([0, 1000])
        moments.append((effect, number, op))
    for _, _, op in sorted(moments):
        before = dict(rows)
        result = lin.apply(rows, op)
        revision += rows != before or op.method == "increment"
        if op.known:
            op.result, op.revision = result, revision
    return history


def lookups(history: list[Op], beyond: int) -> list[Op]:
    """Return the lookups that came after so many revisions."""
    return [op for op in history if op.method == "lookup" and op.known and (op.revision or 0) > beyond]


@pytest.fixture
def history() -> list[Op]:
    return simulate(1)


def test_a_linearizable_history_passes(history: list[Op]) -> None:
    assert check(history) == len(history)


def test_operations_of_unknown_outcome_may_have_happened_or_not() -> None:
    """Each may take effect while it is under way, long after its client gave up, or never."""
    unknown = 0
    for seed in range(150):
        history = simulate(seed, lost=0.08)
        unknown += sum(not op.known for op in history)
        check(history)
    assert unknown > 1000


def test_a_long_history_with_many_unknown_operations_is_explained_and_a_fault_in_it_found() -> None:
    """The search goes back to what can matter, or it would try all combinations of a hundred holes. A
    fault beside a hole may end in GaveUp: which names the fault, and is no pass either.

    Seen red with: going back hole by hole (GaveUp after minutes).
    """
    for seed in range(5):
        history = simulate(seed, operations=6000, lost=0.04)
        assert sum(not op.known for op in history) > 150
        check(history)
        wrong = next(op for op in history[5000:] if op.method == "increment" and op.known)
        wrong.result += 100
        with pytest.raises((Violation, lin.GaveUp), match="increment n"):
            check(history)


def test_an_unknown_operation_cannot_explain_what_was_seen_before_it_was_sent() -> None:
    history = [
        Op("a", "insert", "x", [1], 0, 10, None, 1),
        Op("b", "lookup", "x", [], 20, 30, 2, 2),
        Op("c", "insert", "x", [2], 40),
    ]
    with pytest.raises(Violation, match="revision 2: nobody can have made"):
        check(history)
    history[2].begin_ns = 25
    check(history)


def test_a_wrong_guess_about_an_unknown_operation_is_taken_back() -> None:
    """The first explanation of revision 1 fits until revision 3 shows that it was the other one."""
    history = [
        Op("a", "increment", "n", [1], 0),
        Op("b", "insert", "x", [1], 1),
        Op("c", "insert", "y", [1], 5, 10, None, 2),
        Op("c", "lookup", "x", [], 20, 30, 1, 2),
        Op("c", "increment", "n", [1], 40, 50, 1, 3),
    ]
    assert check(history) == 3


def test_a_stale_read_is_found(history: list[Op]) -> None:
    """With the revision of its time it breaks real time; with a current revision it breaks the model."""
    found = 0
    for op in lookups(history, 20):
        writes = [w for w in history if w.known and w.changes and w.key == op.key and w.revision <= op.revision]  # type: ignore[operator]
        if len(writes) < 2 or max(w.end_ns for w in writes) >= op.begin_ns:  # type: ignore[type-var,operator]
            continue
        old = sorted(writes, key=lambda w: w.revision or 0)[-2]
        result = ABSENT if old.method == "remove" else old.arguments[-1]
        if result == op.result:
            continue
        for revision in (op.revision, old.revision):
            planted = copy.deepcopy(history)
            stale = planted[history.index(op)]
            stale.result, stale.revision = result, revision
            with pytest.raises(Violation, match=r"lookup"):
                check(planted)
            found += 1
    assert found >= 6


def test_a_lost_update_is_found(history: list[Op]) -> None:
    """Two increments that saw the same number."""
    increments = sorted((op for op in history if op.method == "increment"), key=lambda op: op.revision or 0)
    for index in range(1, len(increments)):
        planted = copy.deepcopy(history)
        planted[history.index(increments[index])].result -= 1
        with pytest.raises(Violation, match="increment n"):
            check(planted)


def test_two_writes_at_one_revision_are_found(history: list[Op]) -> None:
    """An acknowledged write that a crash took, and whose revision was given out again."""
    planted = copy.deepcopy(history)
    changes = sorted((op for op in planted if op.changes), key=lambda op: op.revision or 0)
    changes[20].revision = changes[21].revision
    with pytest.raises(Violation):
        check(planted)


def test_a_double_execution_is_found(history: list[Op]) -> None:
    """A retried write that was executed again makes a revision that is nobody's; even if the number
    it leaves is right by chance, as with a second insert of the same value."""
    for op in history:
        if not op.changes:
            continue
        planted = copy.deepcopy(history)
        later = [other for other in planted if (other.revision or 0) > (op.revision or 0)]
        if not later:
            continue
        for other in later:
            other.revision += 1  # type: ignore[operator]
        with pytest.raises(Violation):
            check(planted)


def test_a_reordered_reply_is_found(history: list[Op]) -> None:
    """Each of two operations of one client gets the other's reply."""
    found = 0
    for client in {op.client for op in history}:
        mine = [index for index, op in enumerate(history) if op.client == client]
        for one, two in itertools.pairwise(mine):
            planted = copy.deepcopy(history)
            a, b = planted[one], planted[two]
            if (a.result, a.revision) == (b.result, b.revision):
                continue
            a.result, a.revision, b.result, b.revision = b.result, b.revision, a.result, a.revision
            if (a.revision, a.changes, b.changes) == (b.revision, False, False) and a.method == b.method == "lookup":
                continue
            with pytest.raises(Violation):
                check(planted)
            found += 1
    assert found > 50


def test_an_acknowledged_write_that_vanished_is_found(history: list[Op]) -> None:
    """What came later shows it: a change that nobody made, if not a lookup that finds nothing."""
    last = max(op.revision or 0 for op in history)
    inserts = [op for op in history if op.method == "insert" and op.revision != last]
    assert len(inserts) > 30
    for lost in inserts:
        with pytest.raises(Violation, match=r"has to be|nobody can have made"):
            check(op for op in history if op is not lost)


def test_histories_come_back_from_files_as_they_were(history: list[Op], tmp_path: Path) -> None:
    lin.save(history[:100], tmp_path / "one")
    lin.save(history[100:], tmp_path / "two")
    assert lin.load([tmp_path / "one", tmp_path / "two"]) == history
