"""Where a client connects: URLs, each with the keys for it. Reads the files of keys; no other I/O.

    tcp://HOST:PORT?server_key=KEY&curve_key=FILE

What a URL does not say itself comes from the arguments, and what these do not from the environment. A secret key never
stands in a URL: `curve_key` is the path of its file.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from kvzmq.client.core.urls import parse_urls
from kvzmq.curve import BadKey, ClientKeys, client_keys


class Target(NamedTuple):
    """A server, or a project in a catalog, and the keys for it.

    url   without parameters
    keys  for CURVE, or None for a connection in plain
    """

    url: str
    keys: ClientKeys | None = None


def parse_targets(
    url: str | None, curve_key: str | os.PathLike[str] | None = None, server_key: str | None = None
) -> list[Target]:
    """Split a list of URLs, and read the keys for each.

    Args:
        url: as parse_urls takes it
        curve_key: for the URLs that do not say it, see client_keys
        server_key: likewise

    Raises:
        ValueError: a URL is malformed; a key cannot be used; or some URLs have keys and others none, so that a client
            which loses a protected server would go on in plain
        TypeError: one of them is of another type
    """
    targets = []
    for part in parse_urls(url):
        try:
            targets.append(Target(part.url, client_keys(part.curve_key or curve_key, part.server_key or server_key)))
        except BadKey as error:
            if part.server_key is None and part.curve_key is None:
                raise
            raise BadKey(f"{part.url}: {error}") from None
    open_to_all = next((target.url for target in targets if target.keys is None), None)
    if open_to_all is not None and any(target.keys is not None for target in targets):
        raise BadKey(
            f"there are keys for some of the URLs and none for {open_to_all}: a client that loses the others would go "
            "on there unprotected. Give each ?server_key=, or none"
        )
    return targets
