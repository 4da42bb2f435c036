"""A store on a disk that forgets, driven at random and watched by a witness that does not."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from support.forgetful import CHANGES, Call, Crash, Disk, Verdict
from support.witness import Clients, Witnessed, dump_of

from kvzmq.store.file import file_log


@pytest.fixture(autouse=True)
def few_zeros_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write no more than a page of zeros ahead, and say nothing of each torn tail."""
    monkeypatch.setattr(file_log, "PREPARED_BYTES", 4096)
    monkeypatch.setattr(logging.getLogger("kvzmq.store.file.file_log"), "disabled", True)


PHASES = [Phase.generate] if os.environ.get("KVZMQ_MUTANT") else list(Phase)
"""A planted fault only has to be found, not to be shrunk."""


class Life(RuleBasedStateMachine):
    """Random commits, rotations, compactions, failing calls, deaths of processes, losses of power.

    Every recovery compares the whole table with the witness's (guarantees 1, 2, 8) and sends the latest
    acknowledged requests again (guarantee 5); every reply is compared with the witness's. What a
    recovery shows is on the disk from then on: a loss of power right after it changes nothing (guarantee 3).
    """

    steps = 0
    recoveries = 0
    retries = 0

    @initialize(seed=st.integers(0, 2**32))
    def begin(self, seed: int) -> None:
        self.random = Random(seed)
        self.disk = Disk(self.random.randrange)
        self.life = Witnessed(self.disk)
        self.clients = Clients(self.random)
        self.life.start()
        assert self.life.run_group(self.clients.opening(), self.clients.time())

    @property
    def alive(self) -> bool:
        return self.life.store is not None

    def trouble(self, kind: str, verdict: Verdict, at: int, for_ever: bool) -> None:
        """Have the call number `at` of a kind, or all from there on, fail."""
        left = at

        def judge(call: Call) -> Verdict:
            nonlocal left
            if kind not in (call.kind, "any"):
                return None
            left -= 1
            return verdict if left == -1 or (for_ever and left < -1) else None

        self.disk.judge = judge

    def heal(self) -> None:
        self.disk.judge = lambda call: None

    @precondition(lambda self: self.alive)
    @rule(groups=st.integers(1, 80))
    def commit(self, groups: int) -> None:
        for _ in range(groups):
            Life.steps += 1
            assert self.life.run_group(self.clients.batch(), self.clients.time())

    @precondition(lambda self: self.alive)
    @rule()
    def rotate(self) -> None:
        Life.steps += 1
        assert self.life.rotate()

    @rule()
    def compact(self) -> None:
        Life.steps += 1
        self.life.compact_sealed()

    @precondition(lambda self: self.alive)
    @rule(
        what=st.sampled_from(["commit", "commit", "rotate", "compact"]),
        kind=st.sampled_from(["any", *CHANGES]),
        verdict=st.sampled_from(["crash", "fail", "full"]),
        at=st.integers(0, 8),
        for_ever=st.booleans(),
    )
    def suffer(self, what: str, kind: str, verdict: Verdict, at: int, for_ever: bool) -> None:
        self.trouble(kind, verdict, at, for_ever)
        for _ in range(4):
            Life.steps += 1
            if what == "commit":
                self.life.run_group(self.clients.batch(), self.clients.time())
            elif what == "rotate":
                self.life.rotate()
            else:
                self.life.compact_sealed()
            if not self.alive:
                break
        self.heal()

    @precondition(lambda self: self.alive)
    @rule(
        at=st.integers(3, 6),
        power=st.booleans(),
        again=st.lists(st.tuples(st.integers(0, 8), st.booleans()), max_size=2),
    )
    def die_in_a_rotation(self, at: int, power: bool, again: list[tuple[int, bool]]) -> None:
        """Die at one of a rotation's renames or after it: chance alone seldom does."""
        if self.life.sealed:
            self.life.compact_sealed()
        self.commit(1)
        self.trouble("any", "crash", at, False)
        self.life.rotate()
        self.heal()
        self.die(power, again)

    @rule(power=st.booleans(), crashes=st.lists(st.tuples(st.integers(0, 8), st.booleans()), max_size=3))
    def die(self, power: bool, crashes: list[tuple[int, bool]]) -> None:
        """Die, and recover: perhaps only after some recoveries that die as well."""
        self.life.die(power)
        for at, power_too in crashes:
            Life.steps += 1
            self.trouble("any", "crash", at, False)
            try:
                self.life.start()
            except Crash:
                self.heal()
                self.life.die(power_too)
            else:
                break
        self.heal()
        self.recover()

    def recover(self) -> None:
        Life.steps += 1
        if not self.alive:
            self.life.die(False)
            self.life.start()
        assert self.life.store is not None
        shown = dump_of(self.life.store.table)
        self.life.retry()
        self.life.die(True)
        self.life.start()
        assert dump_of(self.life.store.table) == shown, "a recovery showed what was not on the disk"

    @invariant()
    def recovers(self) -> None:
        """A process that had to end is started again."""
        if hasattr(self, "life") and not self.alive:
            self.recover()

    def teardown(self) -> None:
        if hasattr(self, "life"):
            self.recover()
            Life.recoveries += self.life.recoveries
            Life.retries += self.life.retries


def test_no_history_on_a_forgetful_disk_loses_what_was_acknowledged(
    full: bool, count: Callable[[str, int], None]
) -> None:
    """Guarantees 1, 2, 3, 5, 8 over random histories.

    Turned red by each of: no sync in `commit`; no directory sync between the renames of `rotate`, in
    `checkpoint.write` or at the start of a recovery; no sync of a new checkpoint; the sealed log unlinked before
    the checkpoint is renamed; no rewriting of the last group in a recovery; results left out of checkpoints; going
    on after a failed sync.
    """
    Life.steps = Life.recoveries = Life.retries = 0
    run_state_machine_as_test(
        Life, settings=settings(max_examples=4000 if full else 450, stateful_step_count=50, phases=PHASES)
    )
    count("steps", Life.steps)
    count("recoveries", Life.recoveries)
    count("requests sent again", Life.retries)
    assert Life.steps >= 100_000
