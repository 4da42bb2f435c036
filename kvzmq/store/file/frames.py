"""Checksummed frames: the layout of log and checkpoint on the disk.

    file    = header frame*
    header  = magic[8] format:u16 semantics:u16 salt[16] number:u64 header_crc:u32    (40 bytes)
    frame   = marker[4] length:u32 number:u64 payload_crc:u32 frame_crc:u32 payload (24 bytes + length)

All integers are little-endian; each CRC is a CRC-32 (IEEE 802.3, as in zlib). `header_crc` is that of the
header's bytes before it. `marker` is the first four bytes of the salt. `frame_crc` is that of the salt and of
the frame's 20 bytes before it. It is separate from the payload's, so that a flipped bit in `length` can be
distinguished from a torn tail; and it covers the salt, so that no frame of another file, left in a recycled
block, can pass for one of this file.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import NamedTuple
from zlib import crc32

from kvzmq import errors
from kvzmq.store.file.files import File
from kvzmq.store.log import READABLE, SEMANTICS

FORMAT = 1
"""The version of the layout above."""

SALT_BYTES = 16
PAYLOAD_BYTES_MAX = 1 << 30
"""The largest payload: a longer length is damage."""

_HEADER = struct.Struct("<8sHH16sQ")
_FRAME = struct.Struct("<4sIQI")
_CRC = struct.Struct("<I")
HEADER_BYTES = _HEADER.size + _CRC.size
FRAME_BYTES = _FRAME.size + _CRC.size
"""The lengths of a header, and of a frame without its payload."""

_WINDOW_BYTES = 4 << 20
"""How much is read at a time: a read for each frame would take longer than to decode the frame."""


class Header(NamedTuple):
    """The header of a file; what its `number` means is said in `file_log` and `checkpoint`."""

    magic: bytes
    semantics: int
    salt: bytes
    number: int


class Frame(NamedTuple):
    """A frame as read: where it begins, where the next one would, its number and payload."""

    offset: int
    end: int
    number: int
    payload: bytes


class BadFrame(Exception):
    """There is no valid frame at `offset`, and `reason` says why."""

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(f"{reason} at offset {offset}")
        self.offset = offset
        self.reason = reason


def new_header(magic: bytes, number: int, salt: bytes | None = None) -> Header:
    """Make a header with a fresh salt, or with one given."""
    return Header(magic, SEMANTICS, os.urandom(SALT_BYTES) if salt is None else salt, number)


def encode_header(header: Header) -> bytes:
    """Encode a file's header."""
    data = _HEADER.pack(header.magic, FORMAT, header.semantics, header.salt, header.number)
    return data + _CRC.pack(crc32(data))


def read_header(file: File, magic: bytes, name: str) -> Header:
    """Read and check a file's header.

    Raises:
        CorruptionError: it is cut short, of another kind, or its checksum is wrong
        WrittenByNewer: its format or semantics is of a later version
    """
    data = file.read(0, HEADER_BYTES)
    if len(data) < HEADER_BYTES:
        raise errors.CorruptionError(f"{name}: offset 0: the header is cut short, {len(data)} of {HEADER_BYTES} bytes")
    found, version, semantics, salt, number = _HEADER.unpack_from(data)
    if found != magic:
        raise errors.CorruptionError(f"{name}: offset 0: begins with {found!r}, not {magic!r}")
    if _CRC.unpack_from(data, _HEADER.size)[0] != crc32(data[: _HEADER.size]):
        raise errors.CorruptionError(f"{name}: offset 0: the header's checksum is wrong")
    if version > FORMAT:
        raise errors.WrittenByNewer(f"{name}: written by a newer version of kvzmq (format {version}): update this one")
    if semantics > SEMANTICS:
        raise errors.WrittenByNewer(
            f"{name}: written by a newer version of kvzmq (semantics {semantics}): update this one"
        )
    if version < FORMAT or semantics not in READABLE:
        raise errors.CorruptionError(
            f"{name}: format {version} and semantics {semantics} were never written by any version"
        )
    return Header(found, semantics, salt, number)


def encode_frame(salt: bytes, number: int, payload: bytes) -> bytes:
    """Encode one frame.

    Raises:
        ValueError: the payload is longer than PAYLOAD_BYTES_MAX
    """
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise ValueError(f"a payload of {len(payload)} bytes, more than {PAYLOAD_BYTES_MAX}")
    head = _FRAME.pack(salt[:4], len(payload), number, crc32(payload))
    return b"".join((head, _CRC.pack(crc32(head, crc32(salt))), payload))


def scan(file: File, salt: bytes, offset: int = HEADER_BYTES) -> Iterator[Frame]:
    """Yield the frames from `offset` to the end of the file.

    Raises:
        BadFrame: what comes next is not a whole, valid frame
    """
    salt_crc = crc32(salt)
    marker = salt[:4]
    window, base = b"", offset
    while True:
        at = offset - base
        if len(window) - at < FRAME_BYTES:
            window, base, at = file.read(offset, _WINDOW_BYTES), offset, 0
            if not window:
                return
            if len(window) < FRAME_BYTES:
                raise BadFrame(offset, "a frame's header is cut short")
        found, length, number, payload_crc = _FRAME.unpack_from(window, at)
        (frame_crc,) = _CRC.unpack_from(window, at + _FRAME.size)
        if found != marker or frame_crc != crc32(window[at : at + _FRAME.size], salt_crc):
            raise BadFrame(offset, "a frame's header is wrong")
        if length > PAYLOAD_BYTES_MAX:
            raise BadFrame(offset, f"a frame's length is {length}")
        if len(window) - at < FRAME_BYTES + length:
            window, base, at = file.read(offset, max(_WINDOW_BYTES, FRAME_BYTES + length)), offset, 0
            if len(window) < FRAME_BYTES + length:
                raise BadFrame(offset, "a frame is cut short")
        payload = window[at + FRAME_BYTES : at + FRAME_BYTES + length]
        if crc32(payload) != payload_crc:
            raise BadFrame(offset, "a frame's payload is wrong")
        end = offset + FRAME_BYTES + length
        yield Frame(offset, end, number, payload)
        offset = end


def find_frame(file: File, salt: bytes, offset: int, number_min: int = 0) -> Frame | None:
    """Find the first valid frame with `number_min` or a higher number that begins after `offset`, at any byte."""
    marker = salt[:4]
    base = offset + 1
    while True:
        window = file.read(base, _WINDOW_BYTES)
        at = window.find(marker)
        while at >= 0:
            try:
                frame = next(scan(file, salt, base + at))
                if frame.number >= number_min:
                    return frame
            except (BadFrame, StopIteration):
                pass
            at = window.find(marker, at + 1)
        if len(window) < _WINDOW_BYTES:
            return None
        base += len(window) - len(marker) + 1
