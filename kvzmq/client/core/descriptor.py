"""One descriptor that is readable when any of a watch's sockets may have something: for zmq.Poller and select."""

from __future__ import annotations

import selectors
from typing import Any

import zmq

from kvzmq.client.core.socket import Link


class Descriptor:
    """Follows a link through its sockets, which come and go; the descriptor stays the same.

    A ZeroMQ socket's descriptor is readable while its mailbox has something that the socket has not looked
    at. So it says nothing of what a look has found already: whoever waits for it reads on before until there
    is nothing left.
    """

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()  # of the system: epoll or kqueue, themselves descriptors
        self._socket: zmq.Socket[bytes] | None = None

    def fileno(self) -> int:
        """Return the descriptor."""
        selector: Any = self._selector
        number: int = selector.fileno()
        return number

    def follow(self, link: Link) -> None:
        """Have the descriptor tell of the sockets that the link has now."""
        now = link.socket if link.is_open else None
        if now is self._socket:
            return
        for key in list(self._selector.get_map().values()):
            self._selector.unregister(key.fd)
        self._socket = now
        if now is not None:
            for sock in (now, link.monitor):
                self._selector.register(int(sock.getsockopt(zmq.FD)), selectors.EVENT_READ)

    def close(self) -> None:
        """Close the descriptor."""
        self._selector.close()
        self._socket = None
