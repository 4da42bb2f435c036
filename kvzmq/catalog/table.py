"""What a catalog knows. No I/O: updates come as bytes, the time from clocks that are passed in.

Two updates are of one server when they come from one address and name the same port and the same uuid. That
is the original's rule (cctools 9.9, tried): no port counts as port 0, no uuid is not the empty one, and
of a uuid the first 128 bytes count.
"""

from __future__ import annotations

import ipaddress
import itertools
import logging
import time
import zlib
from collections.abc import Callable
from typing import Any

import msgspec

LIFETIME_S = 15 * 60.0
"""How long an entry is kept without a new update."""

UPDATE_BYTES_MAX = 64 * 1024
"""The largest update believed, after decompression."""

UPDATE_DEPTH_MAX = 16
"""The deepest nesting believed. Python's own JSON reader gives up at about 1,000, and one such entry would
spoil the whole list for every client that reads it with that."""

ENTRIES_MAX = 10_000
CATALOG_BYTES_MAX = 16 * 1024 * 1024
ENTRY_OVERHEAD_BYTES = 1024
"""What an entry is taken to cost beside its own bytes."""

UUID_BYTES_MAX = 128
"""So much of a uuid tells servers apart."""

_COMPRESSED = b"\x1a"

_Place = tuple[int, bytes | None]
"""What tells the servers of one address apart: the announced port and uuid."""

_logger = logging.getLogger(__name__)


class Record(msgspec.Struct):
    """One entry of a catalog: the JSON that is served, its place in time, and when to forget it."""

    json: bytes
    number: int
    heard_s: float
    forget_s: float

    def fields(self) -> dict[str, Any]:
        """Return the entry's fields."""
        return msgspec.json.decode(self.json, type=dict[str, Any])

    def cost_bytes(self) -> int:
        """Return what the record counts against the catalog's limit."""
        return len(self.json) + ENTRY_OVERHEAD_BYTES


class Catalog:
    """What was announced, each entry until it is too old. No I/O.

    Age is measured on the monotonic clock: a step of the wall clock drops nothing. `lastheardfrom` is wall
    clock time, and never runs back, so that the newest entry has the largest one.

    Over a limit, the address whose entries cost most gives up its oldest one: a single sender can fill the
    catalog, but not push the others out of it.
    """

    def __init__(
        self,
        lifetime_s: float = LIFETIME_S,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make an empty catalog. `clock` gives epoch seconds."""
        self.lifetime_s = lifetime_s
        self.refused = 0
        self._clock = clock
        self._monotonic = monotonic
        self._heard_last = 0
        self._updates = 0
        # By address, then by place; least recently heard first.
        self._records: dict[str, dict[_Place, Record]] = {}
        self._cost_bytes: dict[str, int] = {}
        self._total_bytes = 0
        self._count = 0

    def __len__(self) -> int:
        """Return the number of entries."""
        return self._count

    def now_s(self) -> float:
        """Return the time that `Record.heard_s` is measured in."""
        return self._monotonic()

    def update(self, address: str, data: bytes) -> bool:
        """Take in an update from an address. Return False if it is refused, which changes nothing."""
        try:
            announced = _announced(data)
        except (ValueError, zlib.error, RecursionError) as e:
            self.refused += 1
            _logger.debug("an update from %s was refused: %s", address, e)
            return False
        self._updates += 1
        self._heard_last = max(self._heard_last, int(self._clock()))
        ours = {"name": _name_of(address), "lastheardfrom": self._heard_last, "address": address}
        # As in the original, a server may ask for a shorter life than others have.
        lifetime_s = min(_integer(announced, "lifetime") or self.lifetime_s, self.lifetime_s)
        now_s = self.now_s()
        # Our own fields stand in front, as in the original, and there is no second one of their names.
        fields = msgspec.json.encode({**ours, **announced, **ours})
        self._put(address, _place_of(announced), Record(fields, self._updates, now_s, now_s + lifetime_s))
        return True

    def records(self) -> list[Record]:
        """Return what is known, least recently heard first."""
        self.expire()
        known = (record for places in self._records.values() for record in places.values())
        return sorted(known, key=lambda record: record.number)

    def expire(self) -> None:
        """Forget what is too old."""
        now_s = self.now_s()
        expired = [
            (address, place)
            for address, places in self._records.items()
            for place, record in places.items()
            if now_s > record.forget_s
        ]
        for address, place in expired:
            self._drop(address, place)

    def _put(self, address: str, place: _Place, record: Record) -> None:
        if place in self._records.get(address, ()):
            self._drop(address, place)
        self._records.setdefault(address, {})[place] = record
        self._account(address, record.cost_bytes(), 1)
        while self._count > ENTRIES_MAX or self._total_bytes > CATALOG_BYTES_MAX:
            largest = max(self._cost_bytes, key=self._cost_bytes.__getitem__)
            self._drop(largest, next(iter(self._records[largest])))

    def _drop(self, address: str, place: _Place) -> None:
        record = self._records[address].pop(place)
        self._account(address, -record.cost_bytes(), -1)
        if not self._records[address]:
            del self._records[address], self._cost_bytes[address]

    def _account(self, address: str, cost_bytes: int, count: int) -> None:
        self._cost_bytes[address] = self._cost_bytes.get(address, 0) + cost_bytes
        self._total_bytes += cost_bytes
        self._count += count


def _announced(data: bytes) -> dict[str, Any]:
    """Return the object an update holds; raise ValueError or zlib.error if it holds none we can pass on."""
    if data.startswith(_COMPRESSED):
        inflater = zlib.decompressobj()
        data = inflater.decompress(data[1:], UPDATE_BYTES_MAX + 1)
        if not inflater.eof:
            raise ValueError("the compressed data is too long, or cut short")
    if len(data) > UPDATE_BYTES_MAX:
        raise ValueError(f"it is longer than {UPDATE_BYTES_MAX} bytes")
    # Older senders count the end of their C string in.
    announced = msgspec.json.decode(data.rstrip(b"\0"), type=dict[str, Any])
    if not _readable_by_all(announced, UPDATE_DEPTH_MAX):
        raise ValueError("it is nested too deeply, or holds a NUL or a number of more than 64 bits")
    return announced


def _readable_by_all(value: object, depth_left: int) -> bool:
    """Tell whether every reader of the list can read this value.

    A NUL in one string makes `catalog_query` reject the whole list; deep nesting does so to Python's
    readers, long integers do to others.
    """
    match value:
        case str():
            return "\0" not in value
        case int():
            return -(2**63) <= value < 2**63
        case list():
            return depth_left > 0 and all(_readable_by_all(each, depth_left - 1) for each in value)
        case dict():
            inside = itertools.chain(value.keys(), value.values())
            return depth_left > 0 and all(_readable_by_all(each, depth_left - 1) for each in inside)
        case _:
            return True


def _place_of(announced: dict[str, Any]) -> _Place:
    uuid = announced.get("uuid")
    return _integer(announced, "port"), uuid.encode()[:UUID_BYTES_MAX] if isinstance(uuid, str) else None


def _integer(fields: dict[str, Any], name: str) -> int:
    """Return a positive integer field, or 0."""
    value = fields.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _name_of(address: str) -> str:
    """Return the name of an address. The announced one is not believed, as in the original.

    The original asks the DNS; that would hold up the loop, so most addresses are their own names here.
    """
    return "localhost" if ipaddress.ip_address(address).is_loopback else address
