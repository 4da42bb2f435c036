"""The planted faults fit the source they are planted in, and are listed in docs/guarantees.md."""

from __future__ import annotations

import ast
import re

import mutants
from planted_faults import MUTANTS


def test_every_planted_fault_finds_its_place() -> None:
    """Each is planted by `make mutants` alone; here only that the list has not rotted since."""
    assert mutants.misplaced() == []


def test_every_planted_fault_leaves_python() -> None:
    """One that does not is caught by any test, and proves nothing."""
    for mutant in MUTANTS:
        if mutant.file.endswith(".py"):
            ast.parse((mutants.ROOT / "kvzmq" / mutant.file).read_text().replace(mutant.snippet, mutant.replaced))


def test_every_planted_fault_names_a_test_that_is_there() -> None:
    for mutant in MUTANTS:
        path, _, name = mutant.test.partition("::")
        assert f"def {name.partition('[')[0]}(" in (mutants.ROOT / path).read_text(), mutant.name


def test_the_table_of_planted_faults_is_the_list() -> None:
    """Name, guarantee and test, in the same order; whether it was caught is known only by running it."""
    document = (mutants.ROOT / "docs" / "guarantees.md").read_text()
    rows = re.findall(r"^\| (.+) \| (\d+) \| `(.+)` \| (?:yes )?\|$", document, re.MULTILINE)
    assert rows == [(mutant.name, str(mutant.guarantee), mutant.test) for mutant in MUTANTS]
