"""A progress bar on standard error, if that is a terminal and the work takes more than half a second."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import rich.progress

T = TypeVar("T")

_QUIET_S = 0.5
_LOOK_EVERY = 1000


class Progress:
    """Counts work done, and shows it.

    Args:
        noun: what is counted
        total: how many there will be, or None if that is not known
        beside_rows: whether rows are written to standard output meanwhile; if that is a terminal, there is no bar
    """

    def __init__(self, noun: str, total: int | None, beside_rows: bool) -> None:
        self._noun = noun
        self._total = total
        self._done = 0
        self._began_s = time.monotonic()
        self._bar: rich.progress.Progress | None = None
        self._task: Any = None
        self._wanted = sys.stderr.isatty() and not (beside_rows and sys.stdout.isatty())

    def advance(self, count: int) -> None:
        """Add to the work done."""
        self._done += count
        if self._wanted and self._bar is None and time.monotonic() - self._began_s > _QUIET_S:
            self._open()
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done)

    def count(self, things: Iterable[T]) -> Iterator[T]:
        """Yield the things, and count them."""
        seen = 0
        for seen, thing in enumerate(things, start=1):
            yield thing
            if seen % _LOOK_EVERY == 0:
                self.advance(_LOOK_EVERY)
        self.advance(seen % _LOOK_EVERY)

    def _open(self) -> None:
        from rich import progress
        from rich.console import Console

        self._bar = progress.Progress(
            progress.BarColumn(), progress.MofNCompleteColumn(), progress.TextColumn(self._noun),
            progress.TimeRemainingColumn(), console=Console(stderr=True), transient=True,
        )  # fmt: skip
        self._task = self._bar.add_task(self._noun, total=self._total)
        self._bar.start()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
