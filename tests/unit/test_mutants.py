"""The planted faults fit the source they are planted in."""

from __future__ import annotations

import mutants


def test_every_planted_fault_finds_its_place() -> None:
    """Each is planted by `make mutants` alone; here only that the list has not rotted since."""
    assert mutants.misplaced() == []


def test_every_planted_fault_names_a_test_that_is_there() -> None:
    for mutant in mutants.MUTANTS:
        path, _, name = mutant.test.partition("::")
        assert f"def {name.partition('[')[0]}(" in (mutants.ROOT / path).read_text(), mutant.name
