"""One descriptor that is readable when a watch's socket may have something: for zmq.Poller and select."""

from __future__ import annotations

import selectors
from collections.abc import Mapping
from typing import Any

from kvzmq.client.core.socket import Socket

_NONE: Mapping[int, int] = {}


class Descriptor:
    """Follows a watch through its sockets and their descriptors, which come and go; this one stays the same.

    It says nothing of what was found already and left unread: whoever waits for it reads on before until there is
    nothing left.
    """

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()  # of the system: epoll or kqueue, themselves descriptors
        self._followed = _NONE

    def fileno(self) -> int:
        """Return the descriptor."""
        selector: Any = self._selector
        number: int = selector.fileno()
        return number

    def follow(self, socket: Socket | None) -> None:
        """Have the descriptor tell of the descriptors that the socket has now, if there is one."""
        now = _NONE if socket is None else socket.descriptors
        if now is self._followed:
            return
        for key in list(self._selector.get_map().values()):
            self._selector.unregister(key.fd)
        self._followed = now
        for fd, events in now.items():
            self._selector.register(fd, events)

    def close(self) -> None:
        """Close the descriptor."""
        self._selector.close()
        self._followed = _NONE
