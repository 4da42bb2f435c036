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
    """Return the error of a call with one of these deadlines that says `text`, a pattern; it has to be of that kind."""
    said = ""
    for timeout_s in DEADLINES_S:
        try:
            call(timeout_s)
        except kvzmq.KvzmqError as error:
            said = f"{type(error).__name__}: {error}"
            if re.search(text, str(error)):
                assert isinstance(error, kind), said
                return error
        else:
            raise AssertionError("the call has not failed")
    raise AssertionError(f"it does not say {text!r}, but {said}")
