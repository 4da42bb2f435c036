"""Which prefixes of keys are asked for most, from keys as they come.

A prefix is what keys of one kind begin with: up to the first separator ("robots/17/pose": "robots/"), or else up to the
first digit ("user42": "user"), or else the key itself. Counts halve every HALF_LIFE_S, so that what was hot an hour ago
is forgotten, and at most PREFIXES_MAX are counted: those with the lowest counts give way.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

SEPARATORS = "/:.|-_ "
"""The characters that end a prefix."""

HALF_LIFE_S = 10.0
"""After what time a count has halved."""

PREFIXES_MAX = 1000
"""How many prefixes are counted."""

PREFIX_CHARS_MAX = 60
"""How much of a prefix is kept."""

_FIRST_PART = re.compile(rf"[^{re.escape(SEPARATORS)}]+[{re.escape(SEPARATORS)}]|[^0-9]+(?=[0-9])")


def prefix_of(key: str) -> str:
    """Return what keys of the kind of `key` begin with."""
    found = _FIRST_PART.match(key)
    return (key if found is None else found[0])[:PREFIX_CHARS_MAX]


class HotPrefixes:
    """Counts of prefixes, of which the older ones weigh less."""

    def __init__(self) -> None:
        self._counts: dict[str, float] = {}

    def add(self, key: str, times: float = 1.0) -> None:
        """Count a key, for as many requests as it stands for."""
        prefix = prefix_of(key)
        if prefix not in self._counts and len(self._counts) >= PREFIXES_MAX:
            self._drop_half()
        self._counts[prefix] = self._counts.get(prefix, 0.0) + times

    def _drop_half(self) -> None:
        kept = sorted(self._counts.items(), key=lambda pair: -pair[1])[: PREFIXES_MAX // 2]
        self._counts = dict(kept)

    def age(self, passed_s: float) -> None:
        """Let the counts weigh less, as `passed_s` seconds have passed."""
        factor = 0.5 ** (passed_s / HALF_LIFE_S)
        self._counts = {prefix: aged for prefix, count in self._counts.items() if (aged := count * factor) >= 0.01}

    def shares(self, number: int) -> Sequence[tuple[str, float]]:
        """Return the `number` hottest prefixes, each with its share of all that was counted, 0 to 1."""
        total = sum(self._counts.values())
        hottest = sorted(self._counts.items(), key=lambda pair: (-pair[1], pair[0]))[:number]
        return [(prefix, count / total) for prefix, count in hottest]
