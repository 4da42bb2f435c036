"""What a planted fault is."""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """One planted fault.

    name       what it breaks, for people
    file       the file under kvzmq/
    snippet    what stands there, exactly once
    replaced   what stands there instead
    test       the pytest node that has to fail
    guarantee  the number in docs/guarantees.md that it breaks
    """

    name: str
    file: str
    snippet: str
    replaced: str
    test: str
    guarantee: int
