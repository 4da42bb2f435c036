"""How many clients a ROUTER socket has: libzmq reports each connection that is made and that ends."""

from __future__ import annotations

import os
import struct

import zmq

_REPORT = struct.Struct("<Hi")
_WATCHED = zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED  # both name the descriptor; a handshake's does not


class ConnectionMonitor:
    """The connections of one socket.

    Args:
        context: the socket's
        sock: not bound yet, or connections are missed
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], sock: zmq.Socket[bytes]) -> None:
        place = f"inproc://kvzmq-router-{os.urandom(8).hex()}"
        sock.monitor(place, _WATCHED)
        self._watched = sock
        self._socket = context.socket(zmq.PAIR)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(
            zmq.RCVHWM, 0
        )  # no high-water mark: libzmq's thread would wait for room for its reports
        self._socket.connect(place)
        self.descriptors: set[int] = set()

    def read(self) -> None:
        """Take in what was reported, without waiting; now and then, so that the reports do not pile up."""
        while True:
            try:
                event, descriptor = _REPORT.unpack(self._socket.recv(zmq.NOBLOCK))
            except zmq.Again:
                return
            self._socket.recv()  # the endpoint
            if event == zmq.EVENT_DISCONNECTED:
                self.descriptors.discard(descriptor)
            else:
                self.descriptors.add(descriptor)

    def count(self) -> int:
        """Return how many connections there are."""
        self.read()
        self.descriptors = set(filter(_is_open, self.descriptors))  # whose place was taken over ends unreported
        return len(self.descriptors)

    def close(self) -> None:
        """End the reports; the socket that is watched must still be open."""
        self._watched.monitor(None, 0)
        self._socket.close()


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
