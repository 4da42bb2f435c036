"""How long a call may take: what a caller gives, checked, and the deadline that follows from it."""

from __future__ import annotations

import numbers

TIMEOUT_S = 5.0
"""How long a call may take, if nothing else was said."""

TIMEOUT_S_MAX = 1e8
"""The longest time a call may take, seconds, infinity included: about three years."""


def deadline(now_s: float, timeout_s: float) -> float:
    """Return when a call that begins now has to end."""
    return now_s + (timeout_s if timeout_s <= TIMEOUT_S_MAX else TIMEOUT_S_MAX)


def jitter() -> float:
    """Return a factor around 1 for a waiting time, so that clients do not all try again at the same moment."""
    import random  # 1.3 % of what a program does until its first answer, for which nothing is waited

    return random.uniform(0.75, 1.25)


def check_timeout(timeout_s: float) -> float:
    """Return the time a call may take, seconds, and refuse what is none.

    Raises:
        TypeError: it is no number
        ValueError: it is not above 0
    """
    timeout_s = check_wait(timeout_s)
    if not timeout_s > 0:
        raise ValueError(f"timeout is {timeout_s}: it must be above 0 seconds; math.inf stands for no limit")
    return timeout_s


def check_wait(timeout_s: float) -> float:
    """Return a time to wait, seconds, which may be 0, and refuse what is none.

    Raises:
        TypeError: it is no number
        ValueError: it is NaN
    """
    if type(timeout_s) not in (int, float):
        if isinstance(timeout_s, bool) or not isinstance(timeout_s, numbers.Real):
            raise TypeError(f"timeout is a {type(timeout_s).__name__}: it is a number of seconds")
        timeout_s = float(timeout_s)
    if timeout_s != timeout_s:
        raise ValueError("timeout is nan: it is a number of seconds")
    return timeout_s
