"""Filters of watches: which changes a watch is told of, and what it is told.

A filter is a function from a change to the payload of its event. Watches at the same revision see the same View of a
change, so that a value is decoded once for all of them, and only if a filter asks what is in it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import UNSET, Raw

from kvzmq.protocol import msgpack
from kvzmq.protocol.messages import Change
from kvzmq.store.equality import comparable


class View:
    """One change as the filters see it: a value is decoded once for all of them.

    key     of the row
    before  its value, or None if there was no row
    after   the same, after the change
    """

    __slots__ = ("_found", "_maps", "after", "before", "key")

    def __init__(self, change: Change) -> None:
        self.key, self.before, self.after = change
        self._maps: dict[bool, Any] | None = None  # decoded when first asked for: most filters need only the key
        self._found: dict[tuple[bool, str], Any]

    def subvalue(self, after: bool, subkey: str) -> Any:
        """Return the comparable form of what the value before, or after, holds under `subkey`, or UNSET."""
        if self._maps is None:
            self._maps, self._found = {}, {}
        wanted = (after, subkey)
        if wanted not in self._found:
            if after not in self._maps:
                value = self.after if after else self.before
                self._maps[after] = msgpack.decode_value(value) if value is not None and _is_map(value) else {}
            found = self._maps[after].get(subkey, UNSET)
            self._found[wanted] = found if found is UNSET else comparable(found)
        return self._found[wanted]


def _is_map(value: bytes) -> bool:
    first = value[0]
    return 0x80 <= first <= 0x8F or first in (0xDE, 0xDF)


Filter = Callable[[View], "tuple[str, list[Raw]] | None"]
"""From a change to the payload of its event, `(key, [value])` or `(key, [])`; None to skip it."""


def by_prefix(prefix: str) -> Filter:
    """Let through the changes of keys that begin with `prefix`."""

    def event_payload(change: View) -> tuple[str, list[Raw]] | None:
        if not change.key.startswith(prefix):
            return None
        return change.key, [] if change.after is None else [Raw(change.after)]

    return event_payload


def by_query(subkey: str, subvalue: Raw) -> Filter:
    """Let through the rows that hold `subvalue` under `subkey`, and as removed those that cease to."""
    wanted = comparable(msgpack.decode_value(subvalue))

    def event_payload(change: View) -> tuple[str, list[Raw]] | None:
        if change.after is not None and change.subvalue(True, subkey) == wanted:
            return change.key, [Raw(change.after)]
        return (change.key, []) if change.before is not None and change.subvalue(False, subkey) == wanted else None

    return event_payload
