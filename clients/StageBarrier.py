"""Lets the copies of a measuring program meet: none goes on before all have come.

The meeting place is a directory of this machine.  A copy that arrives at a point leaves a file there, named
POINT.COPY, holding its note as JSON, and waits until it sees as many as there are copies.  Files, because the
copies may have been started from different terminals, know nothing of each other, and leave something to look
at afterwards.

A copy that fails leaves FAILED.COPY, and all who wait give up; so do they when one has not come for a while
(it was killed, or never started).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

POLL_S = 0.005
WAIT_MAX_S = 300.0
FAILED = "FAILED"

Note = dict[str, Any]


class CopyFailed(Exception):
    """Some of the copies did not come; the message says which, and why: the others' figures would mean nothing."""


class StageBarrier:
    """The meeting place of `copies` programs, seen by the one called `copy`.

    Without a directory there is one copy, which never waits.
    """

    def __init__(
        self,
        directory: Path | None,
        copies: int,
        copy: str,
        *,
        wait_max_s: float = WAIT_MAX_S,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """Prepare; the directory is made if need be, and must be one that no other run has used."""
        if directory is None and copies != 1:
            raise ValueError("several copies need a directory to meet in")
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.copies = copies
        self.copy = copy
        self._wait_max_s = wait_max_s
        self._clock = clock
        self._pause = pause

    def meet(self, point: str, note: Note | None = None) -> list[Note]:
        """Wait until every copy is at `point`; return the notes they all brought, this one's among them.

        Raises: CopyFailed when a copy failed, has not come in time, or has no business here.
        """
        if self.directory is None:
            return [note or {}]
        self._leave(point, json.dumps(note or {}).encode())
        deadline = self._clock() + self._wait_max_s
        while len(arrived := self.arrived(point)) != self.copies:
            self._check(point, len(arrived), deadline)
            self._pause(POLL_S)
        return [json.loads(path.read_bytes()) for path in arrived]

    def arrived(self, point: str) -> list[Path]:
        """List what the copies that came to `point` left there, in the order of their names."""
        return sorted(self.directory.glob(f"{point}.*")) if self.directory else []

    def leave(self, name: str, content: bytes) -> None:
        """Leave something for whoever reads the directory afterwards, as NAME.COPY."""
        if self.directory is not None:
            self._leave(name, content)

    def fail(self, reason: str) -> None:
        """Tell the others not to wait for this copy."""
        self.leave(FAILED, reason.encode())

    def failures(self) -> list[str]:
        """Say why copies failed: "COPY: reason" for each."""
        return [f"{path.name.partition('.')[2]}: {path.read_text()}" for path in self.arrived(FAILED)]

    def _leave(self, name: str, content: bytes) -> None:
        # Renamed into place: a copy that polls must never read half a note.
        assert self.directory is not None
        draft = self.directory / f".{name}.{self.copy}"
        draft.write_bytes(content)
        os.replace(draft, self.directory / f"{name}.{self.copy}")

    def _check(self, point: str, arrived: int, deadline: float) -> None:
        if failures := self.failures():
            raise CopyFailed("; ".join(failures))
        if arrived > self.copies:
            raise CopyFailed(f"{arrived} copies instead of {self.copies} at {point}: was {self.directory} used before?")
        if self._clock() > deadline:
            raise CopyFailed(f"only {arrived} of {self.copies} copies came to {point} in {self._wait_max_s:g} s")
