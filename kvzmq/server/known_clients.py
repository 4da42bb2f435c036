"""Who is connected, looked up once for a request: it may ask 50,000 times, and each look costs 2 us a peer."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from kvzmq.server.transport import Transport


class KnownClients:
    """The clients of some transports, as they are when it is made.

    Args:
        transports: whose
        watches: how many each has, by name
    """

    def __init__(self, transports: Sequence[Transport], watches: Mapping[str, int]) -> None:
        self._watches = watches
        self._by_name: dict[str, tuple[Transport, Hashable]] = {
            name: (transport, client) for transport in transports for name, client in transport.clients().items()
        }
        self._names = sorted(self._by_name)

    def describe(self, after: str, limit: int) -> list[dict[str, Any]]:
        """Return what is known of at most `limit` clients whose names sort after `after`, by name."""
        first = bisect_right(self._names, after)
        return [self._describe(name) for name in self._names[first : first + limit]]

    def _describe(self, name: str) -> dict[str, Any]:
        transport, client = self._by_name[name]
        return transport.describe(client) | {"watches": self._watches.get(name, 0)}

    def kick(self, name: str) -> bool:
        """End the connection of a client; False if there is none of this name, or it cannot be ended."""
        found = self._by_name.pop(name, None)
        if found is None:
            return False
        self._names.remove(name)
        transport, client = found
        return transport.kick(client)
