"""Which socket leads to an endpoint: a plain one that speaks ZMTP, or a DEALER of libzmq's.

    plain   tcp:// and ipc://: less processor time a call, no thread, nothing of libzmq in the program
    pyzmq   also CURVE, inproc://, and tcp:// from an address of one's own, tcp://SOURCE;HOST:PORT

The URL decides, unless somebody has asked for pyzmq. pyzmq is imported when it is needed: 12 of 114 ms of processor
time from the start of Python to the first answer.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from kvzmq.client.core.plain_socket import PlainOpener
from kvzmq.client.core.socket import Socket

if TYPE_CHECKING:
    from kvzmq.client.core.pyzmq_socket import Context, PyzmqOpener
    from kvzmq.curve import ClientKeys

PLAIN, PYZMQ = "plain", "pyzmq"
TRANSPORTS = (PLAIN, PYZMQ)

TRANSPORT_VARIABLE = "KVZMQ_TRANSPORT"
"""The environment variable that chooses for programs that do not."""


def check_transport(
    transport: str | None, context: object, urls: Iterable[str], keys: ClientKeys | None = None
) -> str | None:
    """Return the transport that was asked for, by the environment if need be, or None for whichever fits the URL.

    Args:
        transport: one of TRANSPORTS, or None
        context: the ZeroMQ context that was given, which asks for pyzmq
        urls: that a transport which was asked for here has to fit
        keys: for CURVE, which asks for pyzmq

    Raises:
        TypeError: it is no string
        ValueError: there is no such transport, or it does not fit
    """
    source = ""
    if transport is None and context is None:
        transport = os.environ.get(TRANSPORT_VARIABLE) or None
        source = f" (from {TRANSPORT_VARIABLE})"
    if transport is None:
        return None if context is None and keys is None else PYZMQ
    if not isinstance(transport, str):
        raise TypeError(f"transport is a {type(transport).__name__}: it is one of {', '.join(TRANSPORTS)}, or None")
    if transport not in TRANSPORTS:
        raise ValueError(f"transport is {transport!r}{source}: it is one of {', '.join(TRANSPORTS)}")
    if source:
        return PYZMQ if transport == PYZMQ or keys is not None else None
    if transport == PLAIN:
        if context is not None:
            raise ValueError("a ZeroMQ context is for transport='pyzmq': leave out one of the two")
        if keys is not None:
            raise ValueError("CURVE is for transport='pyzmq': leave out transport, or the keys")
        for url in urls:
            if transport_of(url) != PLAIN:
                raise ValueError(f"{url} is not for transport='plain', which takes tcp://HOST:PORT and ipc:///PATH")
    return transport


def transport_of(url: str, transport: str | None = None) -> str:
    """Return which transport leads to a URL, if `transport` was asked for or None."""
    if transport is not None:
        return transport
    return PYZMQ if url.startswith("inproc://") or ";" in url else PLAIN


class Opener:
    """Opens sockets of whichever transport an endpoint needs.

    Args:
        transport: that was asked for, or None
        context: the ZeroMQ context for pyzmq, or None for the process's own
        keys: for CURVE, or None; with keys the transport is pyzmq
    """

    def __init__(
        self, transport: str | None = None, context: Context | None = None, keys: ClientKeys | None = None
    ) -> None:
        self.transport = transport if keys is None else PYZMQ
        self.keys = keys
        self._plain = PlainOpener()
        self._pyzmq: PyzmqOpener | None = None
        if context is not None:
            self._pyzmq = _pyzmq_opener(context, keys)

    def __call__(self, endpoint: str) -> Socket:
        """Return a socket that connects to an endpoint.

        Raises:
            ValueError: it is none
            OSError: there can be no further socket
        """
        if transport_of(endpoint, self.transport) == PLAIN:
            return self._plain(endpoint)
        if self._pyzmq is None:
            self._pyzmq = _pyzmq_opener(None, self.keys)
        return self._pyzmq(endpoint)

    def describe(self, urls: Iterable[str]) -> str:
        """Name the transports of URLs, for a client's repr."""
        return ",".join(sorted({transport_of(url, self.transport) for url in urls}))


def _pyzmq_opener(context: Context | None, keys: ClientKeys | None) -> PyzmqOpener:
    from kvzmq.client.core.pyzmq_socket import PyzmqOpener

    return PyzmqOpener(context, keys)
