"""Which server a client connects to: the URLs it was given, the servers that each leads to, and the one in use.

Only `resolve` does I/O: it asks a catalog, and blocks. What that needs is imported then: 4 ms.
"""

from __future__ import annotations

from collections.abc import Sequence

from kvzmq import errors
from kvzmq.client.core.candidates import Candidates
from kvzmq.client.core.targets import Target
from kvzmq.client.core.urls import catalog_of, needs_lookup

CATALOG_S = 1.0
"""How long to wait for one answer of a catalog."""


class Endpoints:
    """The servers of one or several URLs, tried in turn, beginning with a random URL.

    Args:
        targets: as parse_targets returns them
    """

    def __init__(self, targets: Sequence[Target]) -> None:
        self._targets = targets
        self._candidates = [Candidates(target.url) for target in targets]
        self._at = _any_of(len(targets)) if len(targets) > 1 else 0

    @property
    def url(self) -> str:
        """The URL in use."""
        return self._targets[self._at].url

    @property
    def current(self) -> str:
        """The endpoint in use: the URL, or the server that a catalog named for it."""
        return self._candidates[self._at].endpoint

    @property
    def target(self) -> Target:
        """The endpoint in use, and the keys for it."""
        return Target(self.current, self._targets[self._at].keys)

    @property
    def has_alternatives(self) -> bool:
        """Whether there is another server to try, or a catalog to ask again."""
        return len(self._targets) > 1 or needs_lookup(self.url)

    @property
    def must_resolve(self) -> bool:
        """Whether a catalog has to be asked before there is an endpoint to connect to."""
        return self._candidates[self._at].due

    def resolved(self, endpoints: Sequence[str]) -> None:
        """Take what the catalog has named for the URL in use, the best first."""
        self._candidates[self._at].found(endpoints)

    def not_resolved(self, error: errors.CatalogError) -> bool:
        """Take note that the catalog did not help.

        Returns:
            whether there is an endpoint to try nevertheless; else the next URL is in use
        """
        if self._candidates[self._at].not_found(error):
            return True
        self.next()
        return False

    def reached(self) -> None:
        """Take note that the endpoint in use has been connected."""
        self._candidates[self._at].reached()

    def next(self) -> None:
        """Turn to the next server: another one of the URL in use, or else the next URL's."""
        if not self._candidates[self._at].give_up():
            self._at = (self._at + 1) % len(self._targets)

    def describe(self) -> str:
        """Name the endpoint in use, for a message."""
        return self.current if self.current == self.url else f"{self.current} of {self.url}"

    @property
    def count(self) -> int:
        """How many URLs there are."""
        return len(self._targets)

    @property
    def catalog_error(self) -> errors.CatalogError | None:
        """Why the catalog of the URL in use did not help the last time it was asked."""
        return self._candidates[self._at].error


def resolve(url: str, timeout_s: float, lineage: str | None = None) -> list[str]:
    """Return the endpoints of a URL, from a catalog if need be, newest first; blocks `timeout_s` at most.

    Args:
        url: of a server, or of a project in a catalog
        timeout_s: for the catalog
        lineage: of the table that the client knows, in hexadecimal: servers of others are left out

    Raises:
        CatalogError: the catalog cannot be asked, or names no server of the project that can be used
    """
    if not needs_lookup(url):
        return [url]
    from kvzmq import catalog

    host, port, project = catalog_of(url)
    return catalog.endpoints_of(catalog.find_servers(project, host, port, timeout_s), host, lineage)


def _any_of(count: int) -> int:
    import random  # as in `timeouts.jitter`: most clients have one URL

    return random.randrange(count)
