"""The keys and values of a log on etcd.

    NAME/log/SERVER/SEQ        a group, as the server SERVER appended it: KIND SEMANTICS CRC CONTENT
    NAME/chunk/SERVER/SEQ/N    the pieces of a group that is too long for one value, from 00000000 on
    NAME/tail                  put with every group: its version is the number of the last group
    NAME/server/SERVER         the SEQ of the server's last group; every append of the server compares and puts it

SERVER is 16 hexadecimal digits, drawn when a server starts; SEQ 16 more, from 1 on. The order of the groups is that of
etcd's revisions, at which their keys were put; the order of keys means nothing. A log key is put once and then only
deleted, when the log is trimmed; the tail is never deleted, as its version would begin again. A server's key is deleted
by the server, or by its successor (see `former`).

A value is

    KIND        1 byte     0: CONTENT is the group; 1: it is in pieces, CONTENT says how long it is (8) and how many (4)
    SEMANTICS   1 byte     the version of the semantics it was written under
    CRC         4 bytes    the CRC-32 of the group

in network byte order. A group that begins with a KIND or under a SEMANTICS that is not known is never skipped.
"""

from __future__ import annotations

import struct
from typing import NamedTuple
from zlib import crc32

from kvzmq import errors
from kvzmq.store.log import READABLE, SEMANTICS

INLINE_BYTES_MAX = 1 << 20
"""The longest group in one value: etcd takes requests of 1.5 MiB, unless told otherwise."""

CHUNK_BYTES = 512 << 10
"""The length of a piece of a longer one."""

_INLINE, _CHUNKED = 0, 1
_HEADER = struct.Struct("!BBI")
_PIECES = struct.Struct("!QI")


class Pieces(NamedTuple):
    """What a value says of a group that is stored in pieces."""

    length: int
    pieces: int


class Keys:
    """The keys of one table.

    Args:
        name: the table's
    """

    def __init__(self, name: str) -> None:
        self.log = f"{name}/log/".encode()
        self.tail = f"{name}/tail".encode()
        self._chunk = f"{name}/chunk/".encode()
        self._server = f"{name}/server/".encode()

    def group(self, server: str, seq: int) -> bytes:
        """Return the key of a group."""
        return self.log + f"{server}/{seq:016x}".encode()

    def server(self, server: str) -> bytes:
        """Return the key that every append of a server compares."""
        return self._server + server.encode()

    def chunks(self, group_key: bytes) -> bytes:
        """Return what the keys of a group's pieces begin with."""
        return self._chunk + group_key.removeprefix(self.log) + b"/"

    def chunk(self, group_key: bytes, number: int) -> bytes:
        """Return the key of a piece."""
        return self.chunks(group_key) + b"%08d" % number


def encode_inline(group: bytes) -> bytes:
    """Return the value of a group that fits in it."""
    return _HEADER.pack(_INLINE, SEMANTICS, crc32(group)) + group


def encode_chunked(group: bytes) -> bytes:
    """Return the value of a group whose pieces have keys of their own."""
    count = -(-len(group) // CHUNK_BYTES)
    return _HEADER.pack(_CHUNKED, SEMANTICS, crc32(group)) + _PIECES.pack(len(group), count)


def decode(key: bytes, value: bytes) -> tuple[int, bytes | Pieces]:
    """Return the semantics of a group, and the group, or where it is.

    Raises:
        CorruptionError: it is not what was written
        WrittenByNewer: it is of a kind that this version does not know
    """
    name = key.decode(errors="replace")
    if len(value) < _HEADER.size:
        raise errors.CorruptionError(f"etcd key {name}: {len(value)} bytes are no group")
    kind, semantics, _ = _HEADER.unpack_from(value)
    if kind not in (_INLINE, _CHUNKED) or semantics not in READABLE:
        raise errors.WrittenByNewer(
            f"etcd key {name}: written by a newer version of kvzmq (kind {kind}, semantics {semantics}): "
            "update this one"
        )
    content = value[_HEADER.size :]
    if kind == _CHUNKED:
        if len(content) != _PIECES.size:
            raise errors.CorruptionError(f"etcd key {name}: does not say where the group is")
        return semantics, Pieces(*_PIECES.unpack(content))
    check(key, value, content)
    return semantics, content


def check(key: bytes, value: bytes, group: bytes) -> None:
    """Raise CorruptionError if `group` is not the one that `value`, of the key, was written for."""
    if crc32(group) != _HEADER.unpack_from(value)[2]:
        raise errors.CorruptionError(f"etcd key {key.decode(errors='replace')}: the checksum is wrong")
