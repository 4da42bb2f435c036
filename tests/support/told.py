"""What a client says at its deadline, for tests of the words.

    told(lambda timeout_s: table.ping(timeout=timeout_s), "asks for CURVE", kvzmq.Timeout)

It says what it has heard by then. On a busy machine that may be nothing yet, so the deadline is a later one each time,
until it has heard; the first is short, because a call that fails takes all of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

import kvzmq

DEADLINES_S = (0.5, 2.0, 8.0, 30.0, 60.0)

Error = TypeVar("Error", bound=kvzmq.KvzmqError)


def told(call: Callable[[float], object], text: str, kind: type[Error]) -> Error:
    """Return the error of a call with one of these deadlines that is of that kind and says `text`, a pattern."""
    said = ""
    for timeout_s in DEADLINES_S:
        try:
            call(timeout_s)
        except kvzmq.KvzmqError as error:
            if isinstance(error, kind) and re.search(text, str(error)):
                return error
            said = f"{type(error).__name__}: {error}"
        else:
            raise AssertionError("the call has not failed")
    raise AssertionError(f"it is no {kind.__name__} that says {text!r}, but {said}")
