"""What a server that was killed has left in etcd, removed by the next one in its directory.

    DIR/etcd/server.json     the server that lives here (Resident)
    NAME/server/SERVER       what each of its appends compared; removed by a server that stops (see `appends`)
    NAME/chunk/SERVER/SEQ/N  pieces of the group that it was about to append

To remove such a key is safe when nobody will ask any more what became of an append that compared it: a late copy of the
append fails then, as it should, but so does a copy of one that has landed and was trimmed since, and its server would
take the group for one that never was. Time proves nothing of the kind, as a server that was stopped for a week may go
on; so no upkeep removes what has not been used for long. What proves it is the lock of the directory: it ends with the
process that held it, and so does the only memory of what was in flight. So the successor removes what the directory's
note names. A copy of a directory has another inode, and its note is not believed: the original may be alive. Should a
key vanish under a living server all the same, its next append ends it (`Appends`), rather than be told a lie.

What a server leaves that never comes back to its directory stays: a key of some 100 bytes.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

from kvzmq.store.etcd.checkpoints import Keys, end_of, pieces_prefix

NOTE = "server.json"


class Resident(msgspec.Struct, frozen=True):
    """The server of a directory.

    name    of the table
    server  what tells this server's keys from those of others
    device, inode  of the directory, which a copy does not have
    """

    name: str
    server: str
    device: int
    inode: int


_decode: msgspec.json.Decoder[Resident] = msgspec.json.Decoder(Resident)


def server_key(name: str, server: str) -> str:
    """Return the key that every append of a server compares."""
    return f"{name}/server/{server}"


def succeed(keys: Keys, name: str, server: str, directory: Path) -> None:
    """Remove what the former server of a directory has left, and note the one that begins there.

    The caller holds the lock of the directory, and has not appended yet. What was written last is not synced: after a
    power cut the note may be missing, and then a key stays.

    Raises:
        EtcdError: etcd does not answer
        OSError: the note cannot be written
    """
    former = _read(directory)
    if former is not None and former.name == name:
        _remove(keys, name, former.server)
    place = os.stat(directory)
    temporary = directory / f"{NOTE}.tmp"
    temporary.write_bytes(msgspec.json.encode(Resident(name, server, place.st_dev, place.st_ino)))
    temporary.rename(directory / NOTE)


def _read(directory: Path) -> Resident | None:
    """Return whose directory it was; None if that is not known, or the note comes from another directory."""
    with contextlib.suppress(FileNotFoundError, msgspec.MsgspecError):
        found = _decode.decode((directory / NOTE).read_bytes())
        place = os.stat(directory)
        if (found.device, found.inode) == (place.st_dev, place.st_ino):
            return found
    return None


def _remove(keys: Keys, name: str, server: str) -> None:
    """Remove a server's key, and pieces of a group behind the last one that it has appended."""
    key = server_key(name, server)
    pieces = f"{pieces_prefix(name)}{server}/"
    while True:
        _, found = keys.get(key)
        if key not in found:
            return
        seq = found[key].value  # of the last group that has landed: another one may land until the key is gone
        unused = f"{pieces}{int(seq) + 1:016x}/"
        if keys.transact([(key, seq)], delete=[(key, f"{key}\0"), (unused, end_of(pieces))]) is not None:
            return
