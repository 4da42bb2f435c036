"""A server's directory when its log is in etcd: a copy of the checkpoint, and a note of what it has seen.

    DIR/etcd/ID.ckpt     the checkpoint of that ID, a file of `store.file.checkpoint`
    DIR/etcd/seen.json   which history the server has served, and how far (Seen)

All of it may be removed: the table is in etcd. The copy is used if etcd's head names its ID, so it cannot be the wrong
one; then a restart reads the table from the disk and only the log from etcd.

The note is how a server finds out that etcd was put back from a snapshot: what it has seen is no part of the table's
history any more. It must not serve then, as acknowledged changes are lost and revisions would be used a second time. An
operator who wants that all the same has a server begin a new generation, which is a key in etcd; a note of an earlier
generation proves nothing.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Union
from zlib import crc32

import msgspec

from kvzmq import errors
from kvzmq.store.epochs import Epochs
from kvzmq.store.etcd.checkpoints import READS_MAX, Head, Keys, Replaced, download, read_head
from kvzmq.store.file import checkpoint
from kvzmq.store.file.files import DiskDirectory, File
from kvzmq.store.log import Checkpoint

SUBDIRECTORY = "etcd"
NAME_SEEN = "seen.json"

_WINDOW_BYTES = 4 << 20
_SUFFIX = ".ckpt"
_SUFFIX_TMP = ".ckpt.tmp"

_log = logging.getLogger(__name__)


class Seen(msgspec.Struct, frozen=True):
    """What a server has served last.

    name                the table's, in etcd
    generation          of its history, see `generation_key`
    lineage, epoch      32 hexadecimal digits
    revision            the table's
    """

    name: str
    generation: str
    lineage: str
    epoch: str
    revision: int


_decode_seen = msgspec.json.Decoder(Seen).decode


class LocalCopy:
    """The copy of a checkpoint in a directory.

    Args:
        path: the server's directory, which exists; below it a directory is made
    """

    def __init__(self, path: Path) -> None:
        self.path = path / SUBDIRECTORY
        self.path.mkdir(mode=0o700, exist_ok=True)
        self.directory = DiskDirectory(self.path, lock=False)  # the server has that of `path`

    def has(self, head: Head) -> bool:
        """Say whether this checkpoint is here, in its length."""
        try:
            return os.stat(self.path / _name_of(head)).st_size == head.bytes
        except FileNotFoundError:
            return False

    def newest(self, keys: Keys, name: str) -> tuple[Head, Checkpoint] | None:
        """Return the newest checkpoint of a table and its head, from the copy if it is that; None if there is none.

        A copy that is not what was written is fetched again.
        """
        head = self.fetch(keys, name)
        if head is not None and not self._is_intact(head):
            _log.warning("%s is damaged: fetched again", self.path / _name_of(head))
            self.directory.unlink(_name_of(head))
            head = self.fetch(keys, name)
        return None if head is None else (head, self.read(head))

    def _is_intact(self, head: Head) -> bool:
        file, crc, offset = self.open(head), 0, 0
        try:
            while data := file.read(offset, _WINDOW_BYTES):
                crc, offset = crc32(data, crc), offset + len(data)
        finally:
            file.close()
        return crc == head.crc

    def fetch(self, keys: Keys, name: str) -> Head | None:
        """Have the newest checkpoint here; returns its head, or None if there is no checkpoint.

        Raises:
            Replaced: it is replaced faster than it can be read
            CorruptionError, OSError, EtcdError: as `download` does
        """
        for last in (False,) * (READS_MAX - 1) + (True,):
            head = read_head(keys, name)
            if head is None or self.has(head):
                return head
            try:
                self._download(keys, name, head)
            except Replaced:
                if last:
                    raise
        return head

    def _download(self, keys: Keys, name: str, head: Head) -> None:
        temporary = f"{head.id}{_SUFFIX_TMP}"
        file = self.directory.create(temporary)
        try:
            download(keys, name, head, file)
            file.sync()
        except BaseException:
            self.directory.unlink(temporary)
            raise
        finally:
            file.close()
        self.keep(temporary, head)

    def keep(self, temporary: str, head: Head) -> None:
        """Make a file of this directory the copy of a checkpoint, in place of the earlier one."""
        self.directory.rename(temporary, _name_of(head))
        self.directory.sync()
        for path in self.path.glob(f"*{_SUFFIX}*"):
            if path.name != _name_of(head):
                path.unlink(missing_ok=True)

    def open(self, head: Head) -> File:
        """Open the copy of a checkpoint.

        Raises:
            FileNotFoundError: it is not here
        """
        return self.directory.open(_name_of(head))

    def read(self, head: Head) -> Checkpoint:
        """Read the copy of a checkpoint; see `checkpoint.read_file`.

        Raises:
            CorruptionError: it is not what was written: remove it
        """
        return checkpoint.read_file(self.open(head), str(self.path / _name_of(head)))

    def close(self) -> None:
        self.directory.close()

    # ---- what was seen

    def read_seen(self, name: str) -> Seen | None:
        """Return what was served last of the table of this name; None if that is not known."""
        try:
            seen = _decode_seen((self.path / NAME_SEEN).read_bytes())
        except (FileNotFoundError, msgspec.MsgspecError):  # it is not synced: after a power cut it may be empty
            return None
        return seen if seen.name == name else None

    def write_seen(self, seen: Seen) -> None:
        """Note what is served. Not synced, as losing the note loses no change.

        Raises:
            OSError: it could not be written
        """
        temporary = self.path / f"{NAME_SEEN}.tmp"
        temporary.write_bytes(msgspec.json.encode(seen))
        temporary.rename(self.path / NAME_SEEN)


def _name_of(head: Head) -> str:
    return f"{head.id}{_SUFFIX}"


# ---- generations, and etcd's own age


def generation_key(name: str) -> str:
    """Return the key of a table's generation: a random ID, made with the table, and by an operator who wants to go on
    with a table that has lost changes."""
    return f"{name}/generation"


def read_generation(keys: Keys, name: str) -> str:
    """Return the generation of a table, after beginning the first one if there is none."""
    key = generation_key(name)
    while True:
        _, found = keys.get(key)
        if key in found:
            return found[key].value.decode()
        keys.transact([(key, None)], put=[(key, os.urandom(16).hex().encode())])


def begin_generation(keys: Keys, name: str) -> str:
    """Begin a new generation, and return it."""
    generation = os.urandom(16).hex()
    keys.transact([], put=[(generation_key(name), generation.encode())])
    return generation


def index_key(name: str) -> str:
    """Return the key that holds how far etcd's own log was when a server started last."""
    return f"{name}/raft-index"


def check_index(keys: Keys, name: str, index_at: Callable[[int], int], is_accepted: bool = False) -> None:
    """Check that etcd itself has not begun anew, and note how far it is.

    Each revision of etcd takes an entry of its own log, and some entries make none (elections, transactions that are
    refused). So the index of the log less the revision never falls. A cluster made from a snapshot goes on with the
    revisions, and begins with a small index. The note, which is in the snapshot, tells how far the log was, and the
    revision of its put comes later. So what is compared tells less than there was then, and more than there is now, and
    no order of events refuses a cluster that goes on. What a new cluster has changed since does not hide it: that adds
    to both. It is not noticed when it has had more entries without a change than the old one had entries at the note.

    Args:
        index_at: returns the index of etcd's log when it has reached a revision, or later
        is_accepted: whether somebody has said to go on

    Raises:
        LogWentBack: it has begun anew
    """
    key, note = index_key(name), b""
    while True:
        revision, found = keys.get(key)
        noted = found.get(key)
        if noted is not None and noted.value == note:
            return  # it was put, and the answer lost
        index = index_at(revision)
        if noted is not None and index - revision < int(noted.value) - noted.put_at and not is_accepted:
            raise errors.LogWentBack(
                f"etcd has gone back in time: its log is at index {index:,} for revision {revision:,}, and was at "
                f"{int(noted.value):,} for {noted.put_at:,} when a server of {name} started last. Was it put back from "
                "a snapshot? Changes made since that was taken are lost; start one server once with --new-epoch to go "
                "on without them"
            )
        before, note = None if noted is None else noted.value, b"%d" % index
        if keys.transact([(key, before)], put=[(key, note)]) is not None:
            return


def check_seen(seen: Union[Seen, None], generation: str, epochs: Epochs, revision: int) -> None:
    """Check that a recovered table has in its history what this server has served.

    Args:
        seen: what it has served, if that is known
        generation: the table's, in etcd
        epochs, revision: the table's

    Raises:
        LogWentBack: it has not
    """
    if seen is None or seen.generation != generation:
        return
    with contextlib.suppress(ValueError):
        epoch = bytes.fromhex(seen.epoch)
        is_lineage = epochs.lineage is not None and epochs.lineage.hex() == seen.lineage
        if is_lineage and epochs.contains(epoch, seen.revision) and seen.revision <= revision:
            return
    raise errors.LogWentBack(
        f"etcd has gone back in time: this server has served {seen.name} at revision {seen.revision:,}, which is not "
        f"in the history of the table there, at revision {revision:,}. Was etcd put back from a snapshot? Put back a "
        "later one, or start one server once with --new-epoch to go on without what is lost"
    )
