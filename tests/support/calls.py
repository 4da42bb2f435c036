"""Functions that say when they are called."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

R = TypeVar("R")


def noting(note: Callable[..., object], function: Callable[..., R]) -> Callable[..., R]:
    """Return `function`, with `note` called first, of the same arguments."""

    def call(*arguments: object) -> R:
        note(*arguments)
        return function(*arguments)

    return call
