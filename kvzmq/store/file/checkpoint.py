"""table.ckpt: the whole table after one group, in one file.

The file is the layout of `frames` with the magic `kvzmqCKP`; the header's number is that of the
last group in it. Each frame is one section of the table, numbered 1, 2, 3 ...; the last one is the
footer, numbered 0, whose payload is `sections:u64 bytes:u64 crc:u32`: the number of sections, their
payloads' total length, and the CRC-32 of all payloads in order. A file without its footer, or with
anything after it, is damaged.

A checkpoint is written to a file of another name and renamed over the old one, so there is always a complete one.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterable, Iterator
from zlib import crc32

from kvzmq import errors
from kvzmq.store.file import frames
from kvzmq.store.file.files import Directory, File
from kvzmq.store.log import Checkpoint

NAME = "table.ckpt"
NAME_TMP = "table.ckpt.tmp"
MAGIC = b"kvzmqCKP"

_FOOTER = struct.Struct("<QQI")
_BUFFER_BYTES = 1 << 20


def write(directory: Directory, group: int, sections: Iterable[bytes]) -> int:
    """Replace the checkpoint by one that holds everything up to `group`; durable on return.

    Returns:
        the file's length in bytes

    Raises:
        OSError: the old checkpoint is still in place, or the new one is, but perhaps not durably
    """
    file = directory.create(NAME_TMP)
    try:
        length = _write_sections(file, group, sections)
        file.sync()
    except OSError:
        with contextlib.suppress(OSError):
            directory.unlink(NAME_TMP)  # a disk that it has filled would leave no room for the log
        raise
    finally:
        file.close()
    with contextlib.ExitStack() as held:
        # A file system without a journal may reuse the blocks of a removed file while its name on the disk still
        # refers to them. It does not while the file is open.
        with contextlib.suppress(FileNotFoundError):
            held.callback(directory.open(NAME).close)
        directory.rename(NAME_TMP, NAME)
        directory.sync()
    return length


def _write_sections(file: File, group: int, sections: Iterable[bytes]) -> int:
    header = frames.new_header(MAGIC, group)
    offset, buffer = 0, bytearray(frames.encode_header(header))
    count = total = crc = 0
    for count, section in enumerate(sections, start=1):
        total += len(section)
        crc = crc32(section, crc)
        buffer += frames.encode_frame(header.salt, count, section)
        if len(buffer) >= _BUFFER_BYTES:
            file.write(offset, bytes(buffer))
            file.start_sync(offset, len(buffer))  # the log's next sync would wait for all of it at once
            offset += len(buffer)
            buffer.clear()
    buffer += frames.encode_frame(header.salt, 0, _FOOTER.pack(count, total, crc))
    file.write(offset, bytes(buffer))
    return offset + len(buffer)


def read(directory: Directory) -> Checkpoint | None:
    """Open the checkpoint; its sections are read, and checked, as they are consumed.

    Raises:
        WrittenByNewer: the header is of a later version
        CorruptionError: now for the header, while the sections are consumed for the rest
    """
    try:
        file = directory.open(NAME)
    except FileNotFoundError:
        return None
    return read_file(file, str(directory.path / NAME))


def read_file(file: File, path: str) -> Checkpoint:
    """Read an open checkpoint, which is closed in the end; see `read`. `path` is what errors call it."""
    try:
        header = frames.read_header(file, MAGIC, path)
    except errors.KvzmqError:
        file.close()
        raise
    return Checkpoint(header.number, _read_sections(file, header.salt, path))


def _read_sections(file: File, salt: bytes, path: str) -> Iterator[bytes]:
    count = total = crc = 0
    try:
        for frame in frames.scan(file, salt):
            if frame.number == 0:
                if frame.payload != _FOOTER.pack(count, total, crc):
                    raise errors.CorruptionError(
                        f"{path}: offset {frame.offset}: the footer does not match what came before"
                    )
                if frame.end != file.size():
                    raise errors.CorruptionError(f"{path}: offset {frame.end}: data after the footer")
                return
            count += 1
            if frame.number != count:
                raise errors.CorruptionError(
                    f"{path}: offset {frame.offset}: section {frame.number} where {count} was expected"
                )
            total += len(frame.payload)
            crc = crc32(frame.payload, crc)
            yield frame.payload
        raise errors.CorruptionError(f"{path}: offset {file.size()}: the footer is missing")
    except frames.BadFrame as bad:
        raise errors.CorruptionError(f"{path}: {bad}") from bad
    finally:
        file.close()
