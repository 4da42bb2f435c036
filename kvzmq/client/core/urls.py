"""The URLs of servers and catalogs that a client is given: checked and taken apart. No I/O."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

_URL_FORMS = "use tcp://HOST:PORT, ipc:///PATH or catalog://HOST:PORT/PROJECT, or several, separated by commas"

PORT_MAX = 65_535
"""The highest TCP port."""

URL_DEFAULT = "tcp://127.0.0.1:5570"
"""Where a server listens by default."""

URL_VARIABLE = "KVZMQ_URL"
"""The environment variable that names the server for programs that do not."""


_PARAMETERS = ("curve_key", "server_key")
_QUERY = {
    **dict.fromkeys(("tcp", "catalog"), ("?",)),
    # Also a character of paths and names: what follows it is one of ours, or nothing to us.
    **dict.fromkeys(("ipc", "inproc"), tuple(f"?{name}" for name in _PARAMETERS)),
}
"""Where the parameters of a URL begin: at the first of these texts."""


class ServerUrl(NamedTuple):
    """A URL and what its parameters say, decoded; None for what they do not.

    url         without them
    curve_key   the path of the client's keys
    server_key  the server's public key
    """

    url: str
    curve_key: str | None = None
    server_key: str | None = None


def parse_urls(url: str | None) -> list[ServerUrl]:
    """Split a list of endpoints; None stands for URL_VARIABLE, or URL_DEFAULT where that is not set.

    Raises:
        TypeError: it is no string
        ValueError: one of them is not tcp://HOST:PORT, ipc://PATH, inproc://NAME or catalog://HOST:PORT/PROJECT, with
            ?curve_key=FILE&server_key=KEY or without
    """
    source = ""
    if url is None:
        url = os.environ.get(URL_VARIABLE) or URL_DEFAULT
        source = f" (from {URL_VARIABLE})"
    if not isinstance(url, str):
        raise TypeError(f"the URL is a {type(url).__name__}, not a string: {_URL_FORMS}")
    found = []
    for part in url.split(","):
        address, query = _split(part.strip())
        fault = _fault_of(address) or _query_fault(query)
        if fault:
            raise ValueError(f"{address!r}{source} is not a server's URL, it {fault}: {_URL_FORMS}")
        found.append(ServerUrl(address, **_parameters(query)))
    return found


def without_parameters(url: str) -> str:
    """Return a list of endpoints for people and for logs: what the parameters say is left out."""
    return ",".join(_split(part.strip())[0] for part in url.split(","))


def _split(url: str) -> tuple[str, str | None]:
    """Return a URL without its parameters, and these, or None."""
    begins = [at for text in _QUERY.get(url.partition("://")[0], ()) if (at := url.find(text)) >= 0]
    return (url[: min(begins)], url[min(begins) + 1 :]) if begins else (url, None)


def _query_fault(query: str | None) -> str:
    """Say what is wrong with the parameters, "" if nothing is; never what they say, which may be a secret."""
    names = [] if query is None else [part.partition("=")[0] for part in query.split("&")]
    for part, name in zip(query.split("&") if query is not None else (), names):
        if name not in _PARAMETERS:
            return f"has a parameter that is none of {', '.join(_PARAMETERS)} (an & in a value is written %26)"
        if not part.partition("=")[2]:
            return f"says nothing for {name}"
        if names.count(name) > 1:
            return f"says {name} twice"
    return ""


def _parameters(query: str | None) -> dict[str, str]:
    if query is None:
        return {}
    from urllib.parse import unquote

    pairs = (part.partition("=") for part in query.split("&"))
    return {name: unquote(value) for name, _, value in pairs}


def _fault_of(url: str) -> str:
    """Say what is wrong with a URL, "" if nothing is."""
    scheme, colon, rest = url.partition("://")
    if not url:
        return "is empty"
    if not colon:
        return f"has no scheme, {_likely(url)} perhaps"
    check = _FAULTS.get(scheme)
    if check is None:
        return _OTHER_SCHEMES.get(scheme, f"has the scheme {scheme!r}, which kvzmq does not know")
    return "has a space in it" if any(map(str.isspace, rest)) else check(rest)


def _likely(text: str) -> str:
    """Return the URL that was meant by one without a scheme: `host`, `host:port`, `tcp:/host:port`."""
    address = re.sub(r"^tcp:/?(?!/)", "", text)
    return f"tcp://{address}" + ("" if ":" in address else f":{URL_DEFAULT.rpartition(':')[2]}")


def _tcp_fault(address: str) -> str:
    host, colon, port = address.rpartition(":")
    if not colon:
        return "has no port"
    if not host:
        return "has no host"
    if host == "*":
        return "is where a server listens: a client needs the name or address of its machine"
    if ":" in host and ";" not in host and not (host.startswith("[") and host.endswith("]")):
        return "has an IPv6 address that is not in brackets, as in tcp://[::1]:5570"
    return _port_fault(port)


def _port_fault(port: str) -> str:
    if port.isascii() and port.isdigit() and 1 <= int(port) <= PORT_MAX:
        return ""
    return f"has the port {port!r}, which is no number from 1 to {PORT_MAX}"


def _catalog_fault(rest: str) -> str:
    address, _, project = rest.partition("/")
    host, colon, port = address.rpartition(":")
    if not project.strip("/"):
        return "names no project"
    if colon and not host:
        return "has no host"
    return _port_fault(port) if colon and not port.endswith("]") else ""


def _name_fault(name: str) -> str:
    return "" if name else "has no path"


_OTHER_SCHEMES = {
    "etcd": "is where servers keep their log (kvzmq server --log): a client names the servers",
}
"""What is wrong with URLs that others take."""

_FAULTS = {"tcp": _tcp_fault, "catalog": _catalog_fault, "ipc": _name_fault, "inproc": _name_fault}


def needs_lookup(url: str) -> bool:
    """Say whether a URL is a catalog's, which has to be asked where the servers are."""
    return url.startswith("catalog://")


def catalog_of(url: str) -> tuple[str, int, str]:
    """Return host, port and project of a URL of catalog://; host and port may come from the environment.

    Raises:
        CatalogError: they should, and make no sense there
    """
    from urllib.parse import unquote, urlsplit

    from kvzmq import catalog

    parts = urlsplit(url)
    host, port = catalog.default_address()
    return parts.hostname or host, parts.port or port, unquote(parts.path.strip("/"))
