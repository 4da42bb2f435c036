"""Listening on an address, or an error that says what to do."""

from __future__ import annotations

import contextlib
import errno
import os
import socket

import zmq

from kvzmq import errors

_BACKLOG = 1024

_TCP_ADVICE = {
    errno.EADDRINUSE: "it is in use; stop the other server or choose another {option} (port 0 takes a free one)",
    errno.EADDRNOTAVAIL: "no such address on this machine",
    errno.EACCES: "no permission: ports below 1024 are for root",
}

_ZMQ_ADVICE = {
    errno.EADDRINUSE: "it is in use; stop the other server or choose another --bind (port 0 takes a free one)",
    errno.ENODEV: "no such address on this machine",
    errno.EADDRNOTAVAIL: "no such address on this machine",
    errno.ENOENT: "there is no such directory",
    errno.EACCES: "no permission",
    errno.ENAMETOOLONG: "the path is too long for a socket, about 100 bytes",
}


def listen(host: str, port: int, option: str = "--tcp") -> socket.socket:
    """Return a TCP socket that listens and does not block.

    Args:
        option: where the address came from

    Raises:
        CannotListen: the port is in use or the host is not of this machine
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(_BACKLOG)
            listener.setblocking(False)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        advice = _TCP_ADVICE.get(error.errno or 0, str(error.strerror)).format(option=option)
        raise errors.CannotListen(f"cannot listen on {host}:{port}: {advice}") from error
    return listener


def bind(sock: zmq.Socket[bytes], endpoint: str) -> str:
    """Bind a ZeroMQ socket to an endpoint; returns it with the port that was taken.

    Raises:
        CannotListen: the endpoint is in use or malformed
    """
    path = _path_of(endpoint)
    if path and _somebody_listens(path):  # libzmq would take the path over, without a word to anybody
        raise errors.CannotListen(
            f"cannot listen on {endpoint}: it is in use; stop the other server or choose another --bind"
        )
    umask = os.umask(0o077)  # an ipc socket is for its owner alone
    try:
        sock.bind(endpoint)
    except zmq.ZMQError as error:
        number = error.errno or 0
        advice = _ZMQ_ADVICE.get(
            number, f"{zmq.strerror(number)}; an endpoint looks like tcp://127.0.0.1:5570 or ipc:///run/kvzmq.sock"
        )
        raise errors.CannotListen(f"cannot listen on {endpoint}: {advice}") from error
    finally:
        os.umask(umask)
    return sock.getsockopt_string(zmq.LAST_ENDPOINT)


def unlink(endpoint: str) -> None:
    """Remove the file of an endpoint of ipc://; libzmq does so only where the context is ended in order."""
    path = _path_of(endpoint)
    if path:
        with contextlib.suppress(OSError):
            os.unlink(path)


def _path_of(endpoint: str) -> str:
    """Return the path of an endpoint of ipc://; "" for others, and for names that are no files."""
    path = endpoint.removeprefix("ipc://") if endpoint.startswith("ipc://") else ""
    return "" if path.startswith(("@", "*")) else path


def _somebody_listens(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.connect(path)
        except OSError:
            return False
    return True
