"""Keys of CURVE, in the files that `kvzmq keygen` and `zmq.auth` write; and the bridge's token. Makes none of them,
and knows no socket.

    curve
        public-key = "tSnqA]%TBtRrhX)q79MrkHEnV7psaBh*Cz+q/c5A"
        secret-key = "..."

A key is 32 bytes, written as 40 characters of Z85 (https://rfc.zeromq.org/spec/32/). Lines that begin with `#`, and
whatever else stands there, are nothing to us.
"""

from __future__ import annotations

import os
import re
import stat
from typing import Any, NamedTuple

from kvzmq import errors

KEY_CHARS = 40
"""The length of a key in Z85."""

CURVE_KEY_VARIABLE, SERVER_KEY_VARIABLE = "KVZMQ_CURVE_KEY", "KVZMQ_SERVER_KEY"
"""The environment variables that name a client's file of keys, and the key of its server."""

FILE_BYTES_MAX = 1 << 16
"""The longest file of keys that is read."""

TOKEN_BYTES_MIN, TOKEN_BYTES_MAX = 16, 1024
"""The shortest token, which nobody can guess if it is random, and the longest."""

_DIGITS = {
    digit: value
    for value, digit in enumerate(
        "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
    )
}
_LINE = r"""(?m)^\s*(public-key|secret-key)\s*=\s*["']?([^\s"']*)["']?\s*$"""
"""A line of a file of keys; not compiled here, as every client imports this and most have no keys."""


class BadKey(errors.KvzmqError, ValueError):
    """A key, or a file of keys, cannot be used."""


class KeyPair(NamedTuple):
    """A public key, and the secret key to it; Z85."""

    public: str
    secret: str

    def __repr__(self) -> str:
        """Leave out the secret key: what is printed is in logs for ever."""
        return f"KeyPair(public={self.public!r})"


class ClientKeys(NamedTuple):
    """What a client needs for CURVE.

    own     its keys
    server  the public key of the server, Z85
    path    of the file that its keys come from: what is pickled in their place
    """

    own: KeyPair
    server: str
    path: str

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave out the secret key: unpickling reads it from its file."""
        return client_keys, (self.path, self.server)


def is_key(text: str) -> bool:
    """Tell whether a text is a key in Z85."""
    if len(text) != KEY_CHARS or not all(char in _DIGITS for char in text):
        return False
    for at in range(0, KEY_CHARS, 5):
        value = 0
        for char in text[at : at + 5]:
            value = value * 85 + _DIGITS[char]
        if value >= 1 << 32:
            return False
    return True


def read_key_pair(path: str | os.PathLike[str]) -> KeyPair:
    """Return the keys of a file NAME.key_secret.

    Raises:
        BadKey: it cannot be read, has no secret key, or others than its owner may read it
    """
    found = dict(re.findall(_LINE, _read_private("key", path).decode("utf-8", "replace")))
    if "secret-key" not in found:
        raise BadKey(f"{os.fspath(path)} holds no secret key: NAME.key_secret does, as `kvzmq keygen NAME` makes it")
    for name in ("public-key", "secret-key"):
        if not is_key(found.get(name, "")):
            raise BadKey(
                f"{os.fspath(path)} has no {name} of {KEY_CHARS} characters in Z85: make new ones with `kvzmq keygen`"
            )
    return KeyPair(found["public-key"], found["secret-key"])


def read_token(path: str | os.PathLike[str]) -> bytes:
    """Return the token in a file, which is its first and only line.

    Raises:
        BadKey: it cannot be read, is no token, or others than its owner may read it
    """
    token = _read_private("token", path).rstrip(b"\r\n")
    if not TOKEN_BYTES_MIN <= len(token) <= TOKEN_BYTES_MAX or b"\n" in token:
        raise BadKey(
            f"{os.fspath(path)} is no token, a line of {TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX} bytes: "
            f"`openssl rand -hex 32 > {os.fspath(path)}` makes one"
        )
    return token


def _read_private(what: str, path: str | os.PathLike[str]) -> bytes:
    """Return what stands in a file that nobody but its owner may read."""
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(FILE_BYTES_MAX)
    except OSError as error:
        raise BadKey(f"the {what} {os.fspath(path)} cannot be read: {error.strerror}") from None
    if stat.S_ISREG(mode) and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise BadKey(f"{os.fspath(path)} may be read by others: chmod 600 {os.fspath(path)}")
    return data


def client_keys(curve_key: str | os.PathLike[str] | None, server_key: str | None) -> ClientKeys | None:
    """Return what a client needs for CURVE, None if neither was given.

    Args:
        curve_key: the path of the client's NAME.key_secret; None stands for the environment's KVZMQ_CURVE_KEY
        server_key: the server's public key, Z85; None stands for the environment's KVZMQ_SERVER_KEY

    Raises:
        BadKey: only one of them was given, or it is no key
        TypeError: one of them is of another type
    """
    curve_key = curve_key if curve_key is not None else os.environ.get(CURVE_KEY_VARIABLE) or None
    server_key = server_key if server_key is not None else os.environ.get(SERVER_KEY_VARIABLE) or None
    if curve_key is None and server_key is None:
        return None
    if curve_key is None:
        raise BadKey("server_key was given without curve_key: the client needs keys of its own, see `kvzmq keygen`")
    if server_key is None:
        raise BadKey(
            "curve_key was given without server_key, the public key of the server: without it anybody may be the server"
        )
    if not isinstance(curve_key, (str, os.PathLike)):
        raise TypeError(f"curve_key is a {type(curve_key).__name__}: it is the path of a file NAME.key_secret")
    if is_key(os.fspath(curve_key)) and not os.path.exists(curve_key):  # said without it, as it may be the secret one
        raise BadKey(
            "curve_key is a key itself: put it into a file, 0600, and give the file's path, so that it is in no "
            "list of processes, history or log"
        )
    if not isinstance(server_key, str):
        raise TypeError(f"server_key is a {type(server_key).__name__}: it is a string of {KEY_CHARS} characters")
    if not is_key(server_key):
        raise BadKey(f"server_key is {server_key!r}: it is the public key of the server, {KEY_CHARS} characters of Z85")
    return ClientKeys(read_key_pair(curve_key), server_key, os.fspath(curve_key))
