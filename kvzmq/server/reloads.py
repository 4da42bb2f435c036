"""What SIGHUP reads again. A module whose settings can be read while the server runs adds a hook.

The hooks run in the loop, between two steps, in the order in which they were added. One that fails changes nothing
of what it is for, and keeps none of the others from running: the server goes on with the settings it had.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Union

from kvzmq import errors

Hook = Callable[[], Union[str, None]]
"""Reads something again. Returns what has changed, for the log, or None if nothing has.

Raises KvzmqError, OSError or ValueError, with a text for an operator, if what it found is no good: then it must have
changed nothing.
"""

_log = logging.getLogger(__name__)


class Reloads:
    """The hooks of one server."""

    def __init__(self) -> None:
        self._hooks: list[tuple[str, Hook]] = []
        self.around: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext
        """Entered while the hooks run."""

    def add(self, name: str, hook: Hook) -> None:
        """Have `hook` called at a reload; `name` says in the log what it reads."""
        self._hooks.append((name, hook))

    def run(self) -> None:
        """Call every hook, and say in the log what each has done."""
        with self.around():
            changed = [self._call(name, hook) for name, hook in self._hooks]
            if not any(changed):
                _log.info("SIGHUP: nothing to reload has changed", extra={"event": "reloaded"})

    def _call(self, name: str, hook: Hook) -> bool:
        """Return whether there was something to say."""
        try:
            said = hook()
        except (errors.KvzmqError, OSError, ValueError) as error:
            _log.error(
                "SIGHUP: %s not reloaded, what it was stays: %s", name, error,
                extra={"event": "reload_failed", "what": name, "reason": str(error)},
            )  # fmt: skip
            return True
        if said is not None:
            _log.info("SIGHUP: %s reloaded: %s", name, said, extra={"event": "reloaded", "what": name})
        return said is not None
