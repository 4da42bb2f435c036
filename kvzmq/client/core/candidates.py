"""The servers that one URL leads to: which one is tried next, and when to ask the catalog again. No I/O.

    due ──found──> tried one after the other ──the last one given up──> due

A catalog's list ages: once a server of it was reached, the others on it are forgotten, and whoever loses
that server asks again. Servers that were given up before come last then, so that one which accepts
connections and is silent does not keep a client from the others. While the catalog cannot be asked, or has
just been started and knows nothing yet, the servers it named last are tried again.
"""

from __future__ import annotations

from collections.abc import Sequence

from kvzmq import errors
from kvzmq.client.core.urls import needs_lookup


class Candidates:
    """The servers of one URL.

    Args:
        url: where to connect, or of a project in a catalog
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._known: list[str] = [] if needs_lookup(url) else [url]
        self._left = list(self._known)
        self._given_up: list[str] = []
        self.error: errors.CatalogError | None = None
        """Why the catalog did not help the last time it was asked."""

    @property
    def due(self) -> bool:
        """Whether the catalog has to be asked."""
        return not self._left

    @property
    def endpoint(self) -> str:
        """The server in use, or the URL as long as none is known."""
        return self._left[0] if self._left else self._url

    def found(self, endpoints: Sequence[str]) -> None:
        """Take what the catalog named, the best first."""
        self.error = None
        self._known = list(endpoints)
        self._given_up = [endpoint for endpoint in self._given_up if endpoint in self._known]
        self._begin()

    def not_found(self, error: errors.CatalogError) -> bool:
        """Take note that the catalog did not help; True if there are servers to try nevertheless."""
        from kvzmq import catalog  # only clients of a catalog's URL load it

        self.error = error
        if isinstance(error, (catalog.CatalogUnreachable, catalog.BadCatalogAnswer, catalog.NoSuchProject)):
            self._begin()
        return bool(self._left)

    def reached(self) -> None:
        """Take note that the server in use has been connected."""
        del self._left[1:]

    def give_up(self) -> bool:
        """Turn from the server in use to the next one; False if there is none before the catalog is asked again."""
        if self._left:
            given_up = self._left.pop(0)
            self._given_up = [endpoint for endpoint in self._given_up if endpoint != given_up] + [given_up]
        if self._left:
            return True
        if not needs_lookup(self._url):
            self._begin()
        return False

    def _begin(self) -> None:
        never = -1
        since = {endpoint: at for at, endpoint in enumerate(self._given_up)}
        self._left = sorted(self._known, key=lambda endpoint: since.get(endpoint, never))
