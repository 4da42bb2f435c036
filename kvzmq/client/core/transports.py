"""Which socket leads to an endpoint: a plain one that speaks ZMTP, or a DEALER of libzmq's.

    plain   tcp:// and ipc://: less processor time a call, no thread, nothing of libzmq in the program
    pyzmq   also CURVE, inproc://, and tcp:// from an address of one's own, tcp://SOURCE;HOST:PORT

The URL decides, unless somebody has asked for pyzmq. pyzmq is imported when it is needed: 12 of 114 ms of processor
time from the start of Python to the first answer.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from kvzmq.client.core.plain_socket import PlainOpener
from kvzmq.client.core.socket import Socket
from kvzmq.client.core.targets import Target

if TYPE_CHECKING:
    from kvzmq.client.core.pyzmq_socket import Context, PyzmqOpener

PLAIN, PYZMQ = "plain", "pyzmq"
TRANSPORTS = (PLAIN, PYZMQ)

TRANSPORT_VARIABLE = "KVZMQ_TRANSPORT"
"""The environment variable that chooses for programs that do not."""


def check_transport(transport: str | None, context: object, targets: Sequence[Target]) -> str | None:
    """Return the transport that was asked for, by the environment if need be, or None for whichever fits the URL.

    Args:
        transport: one of TRANSPORTS, or None
        context: the ZeroMQ context that was given, which asks for pyzmq
        targets: that a transport which was asked for here has to fit; keys for CURVE ask for pyzmq

    Raises:
        TypeError: it is no string
        ValueError: there is no such transport, or it does not fit
    """
    has_keys = any(target.keys is not None for target in targets)
    source = ""
    if transport is None and context is None:
        transport = os.environ.get(TRANSPORT_VARIABLE) or None
        source = f" (from {TRANSPORT_VARIABLE})"
    if transport is None:
        return None if context is None and not has_keys else PYZMQ
    if not isinstance(transport, str):
        raise TypeError(f"transport is a {type(transport).__name__}: it is one of {', '.join(TRANSPORTS)}, or None")
    if transport not in TRANSPORTS:
        raise ValueError(f"transport is {transport!r}{source}: it is one of {', '.join(TRANSPORTS)}")
    if source:
        return PYZMQ if transport == PYZMQ or has_keys else None
    if transport == PLAIN:
        if context is not None:
            raise ValueError("a ZeroMQ context is for transport='pyzmq': leave out one of the two")
        if has_keys:
            raise ValueError("CURVE is for transport='pyzmq': leave out transport, or the keys")
        for target in targets:
            if transport_of(target.url) != PLAIN:
                raise ValueError(
                    f"{target.url} is not for transport='plain', which takes tcp://HOST:PORT and ipc:///PATH"
                )
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
    """

    def __init__(self, transport: str | None = None, context: Context | None = None) -> None:
        self.transport = transport
        self._plain = PlainOpener()
        self._pyzmq: PyzmqOpener | None = None
        if context is not None:
            self._pyzmq = _pyzmq_opener(context)

    def __call__(self, target: Target) -> Socket:
        """Return a socket that connects to a server.

        Raises:
            ValueError: it is none
            OSError: there can be no further socket
        """
        if self._transport_to(target) == PLAIN:
            return self._plain(target.url)
        if self._pyzmq is None:
            self._pyzmq = _pyzmq_opener(None)
        return self._pyzmq(target.url, target.keys)

    def _transport_to(self, target: Target) -> str:
        return transport_of(target.url, self.transport if target.keys is None else PYZMQ)

    def describe(self, targets: Iterable[Target]) -> str:
        """Name the transports to servers, for a client's repr."""
        return ",".join(sorted({self._transport_to(target) for target in targets}))


def _pyzmq_opener(context: Context | None) -> PyzmqOpener:
    from kvzmq.client.core.pyzmq_socket import PyzmqOpener

    return PyzmqOpener(context)
