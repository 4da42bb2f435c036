"""The entries of a catalog. No I/O: updates come as bytes, the time from clocks that are passed in.

Two updates are from the same server when they come from one address and have the same `port` and `uuid`. That is the
rule of cctools 9.9, found out by experiment: a missing port counts as 0, a missing uuid differs from an empty one, and
of a uuid only the first 128 bytes are compared.
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
"""The largest update accepted, after decompression."""

UPDATE_DEPTH_MAX = 16
"""The deepest nesting accepted. Python's own JSON reader fails at about 1,000, and one such entry would make the whole
list unreadable for every client that uses it."""

ENTRIES_MAX = 10_000
CATALOG_BYTES_MAX = 16 * 1024 * 1024
ENTRY_OVERHEAD_BYTES = 1024
"""How many bytes of memory an entry is assumed to take beside its JSON."""

UUID_BYTES_MAX = 128
"""How many bytes of a uuid are compared."""

_COMPRESSED = b"\x1a"

_Server = tuple[int, bytes | None]
"""The announced port and uuid, which identify a server among those of one address."""

_log = logging.getLogger(__name__)


class Record(msgspec.Struct):
    """One entry of a catalog: the JSON that is served, the number and time of its update, and when to drop it."""

    json: bytes
    number: int
    heard_s: float
    forget_s: float

    def fields(self) -> dict[str, Any]:
        """Return the entry's fields."""
        return msgspec.json.decode(self.json, type=dict[str, Any])

    def cost_bytes(self) -> int:
        """Return how many bytes the record counts towards CATALOG_BYTES_MAX."""
        return len(self.json) + ENTRY_OVERHEAD_BYTES


class Catalog:
    """The entries, each kept until it is too old. No I/O.

    Age is measured on the monotonic clock, so that a change of the wall clock drops nothing. `lastheardfrom` is wall
    clock time, and never decreases, so that the newest entry has the largest one.

    Beyond a limit, the oldest entry of the address whose entries take most is dropped: a single sender can fill the
    catalog, but cannot displace the entries of others.
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
        # By address, then by port and uuid; the least recently updated first.
        self._records: dict[str, dict[_Server, Record]] = {}
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
        """Apply an update from an address. Return False if it is refused, which changes nothing."""
        try:
            announced = _announced(data)
        except (ValueError, zlib.error, RecursionError) as error:
            self.refused += 1
            _log.debug("an update from %s was refused: %s", address, error)
            return False
        self._updates += 1
        self._heard_last = max(self._heard_last, int(self._clock()))
        added = {"name": _name_of(address), "lastheardfrom": self._heard_last, "address": address}
        # As in the original, a server may ask for a shorter life than others have.
        lifetime_s = min(_integer(announced, "lifetime") or self.lifetime_s, self.lifetime_s)
        now_s = self.now_s()
        # The added fields come first, as in the original, and replace announced ones of the same names.
        fields = msgspec.json.encode({**added, **announced, **added})
        self._put(address, _server_of(announced), Record(fields, self._updates, now_s, now_s + lifetime_s))
        return True

    def records(self) -> list[Record]:
        """Return the entries, the least recently updated first."""
        self.expire()
        known = (record for servers in self._records.values() for record in servers.values())
        return sorted(known, key=lambda record: record.number)

    def expire(self) -> None:
        """Drop the entries that are too old."""
        now_s = self.now_s()
        expired = [
            (address, server)
            for address, servers in self._records.items()
            for server, record in servers.items()
            if now_s > record.forget_s
        ]
        for address, server in expired:
            self._drop(address, server)

    def _put(self, address: str, server: _Server, record: Record) -> None:
        if server in self._records.get(address, ()):
            self._drop(address, server)
        self._records.setdefault(address, {})[server] = record
        self._account(address, record.cost_bytes(), 1)
        while self._count > ENTRIES_MAX or self._total_bytes > CATALOG_BYTES_MAX:
            largest = max(self._cost_bytes, key=self._cost_bytes.__getitem__)
            self._drop(largest, next(iter(self._records[largest])))

    def _drop(self, address: str, server: _Server) -> None:
        record = self._records[address].pop(server)
        self._account(address, -record.cost_bytes(), -1)
        if not self._records[address]:
            del self._records[address], self._cost_bytes[address]

    def _account(self, address: str, cost_bytes: int, count: int) -> None:
        self._cost_bytes[address] = self._cost_bytes.get(address, 0) + cost_bytes
        self._total_bytes += cost_bytes
        self._count += count


def _announced(data: bytes) -> dict[str, Any]:
    """Return the object that an update holds; raise ValueError or zlib.error if it holds none that can be served."""
    if data.startswith(_COMPRESSED):
        inflater = zlib.decompressobj()
        data = inflater.decompress(data[1:], UPDATE_BYTES_MAX + 1)
        if not inflater.eof:
            raise ValueError("the compressed data is too long, or cut short")
    if len(data) > UPDATE_BYTES_MAX:
        raise ValueError(f"it is longer than {UPDATE_BYTES_MAX} bytes")
    # Older senders include the NUL at the end of their C string.
    announced = msgspec.json.decode(data.rstrip(b"\0"), type=dict[str, Any])
    if not _readable_by_all(announced, UPDATE_DEPTH_MAX):
        raise ValueError("it is nested too deeply, or holds a NUL or a number of more than 64 bits")
    return announced


def _readable_by_all(value: object, depth_left: int) -> bool:
    """Say whether every reader of the list can read this value.

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


def _server_of(announced: dict[str, Any]) -> _Server:
    uuid = announced.get("uuid")
    return _integer(announced, "port"), uuid.encode()[:UUID_BYTES_MAX] if isinstance(uuid, str) else None


def _integer(fields: dict[str, Any], name: str) -> int:
    """Return a positive integer field, or 0."""
    value = fields.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _name_of(address: str) -> str:
    """Return the name of an address. The announced name is ignored, as in the original.

    The original asks the DNS. That would block the loop, so here most addresses are their own names.
    """
    return "localhost" if ipaddress.ip_address(address).is_loopback else address
