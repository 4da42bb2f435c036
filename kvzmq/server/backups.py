"""Backups that clients read piece by piece: each is a checkpoint, held open from when it is there until it is read.

A backup begins with a request to the log's keeper for a checkpoint that holds everything committed so far; nobody waits
for it here, the client asks again. The file it reads stays the same however many compactions follow. One that is not
asked for any more is let go, as an open file keeps its room on the disk.
Nothing here knows what is in a checkpoint: its reader can verify that it is whole.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Protocol, Union

from kvzmq import errors
from kvzmq.protocol.limits import BACKUP_CHUNK_BYTES

OPEN_MAX = 8
"""How many backups there are at a time."""

IDLE_S_MAX = 60.0
"""How long a backup is kept between two pieces: its reader may be writing to a slow pipe."""

REPLACED_S = 2.0
"""How long nobody has asked for a backup that may make room for a new one. A client asks every 50 ms at the least."""

LOOK_S = 1.0
"""How often to look for backups to let go."""


class CheckpointFile(Protocol):
    """An open checkpoint."""

    def read(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes from `offset`; fewer only at the end of the file."""

    def size(self) -> int:
        """Return the length in bytes."""

    def close(self) -> None:
        """Close the file."""


OpenWhenWritten = Callable[[], Union[CheckpointFile, None]]
"""Opens a checkpoint that was asked for; None while it is being written. Raises BackupFailed, OSError."""


class _Backup:
    __slots__ = ("asked_s", "file", "open_when_written")

    def __init__(self, open_when_written: OpenWhenWritten) -> None:
        self.open_when_written = open_when_written
        self.file: CheckpointFile | None = None
        self.asked_s = 0.0


class Backups:
    """The backups that are being made and read.

    Args:
        request_checkpoint: has a checkpoint of everything committed so far written; None if there is nobody to ask
        clock: seconds that only grow
    """

    def __init__(
        self,
        request_checkpoint: Callable[[], OpenWhenWritten] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._request_checkpoint = request_checkpoint
        self._clock = clock
        self._backups: dict[str, _Backup] = {}

    def __len__(self) -> int:
        return len(self._backups)

    def begin(self, id: str) -> int | None:
        """Begin a backup, if it has not begun; return its length in bytes, or None while it cannot be read yet.

        Raises:
            BackupFailed: the checkpoint could not be written or opened, or there are too many backups
        """
        backup = self._backups.get(id)
        if backup is None:
            if self._request_checkpoint is None:
                raise errors.BackupFailed("the log of this server has no checkpoints that it could read")
            self._make_room()
            backup = self._backups[id] = _Backup(self._request_checkpoint())
        backup.asked_s = self._clock()
        try:
            if backup.file is None:
                backup.file = backup.open_when_written()
            return None if backup.file is None else backup.file.size()
        except errors.BackupFailed:
            self._let_go(id)
            raise
        except OSError as error:
            raise self._fail(id, error) from error

    def read(self, id: str, offset: int) -> bytes:
        """Return a piece of a backup from `offset` on; at its end nothing, and then it is let go.

        Raises:
            BackupFailed: there is none of this name, or it could not be read
        """
        backup = self._backups.get(id)
        if backup is None or backup.file is None:
            raise errors.BackupFailed(
                "there is no such backup: the server was started anew meanwhile, or nobody has asked for it for "
                f"{IDLE_S_MAX:.0f} s. Begin again"
            )
        backup.asked_s = self._clock()
        try:
            piece = backup.file.read(offset, BACKUP_CHUNK_BYTES) if offset < backup.file.size() else b""
        except OSError as error:
            raise self._fail(id, error) from error
        if not piece:
            self._let_go(id)
        return piece

    def _fail(self, id: str, error: OSError) -> errors.BackupFailed:
        self._let_go(id)
        return errors.BackupFailed(f"the server could not read its checkpoint: {os.strerror(error.errno or 0)}")

    def _make_room(self) -> None:
        if len(self._backups) < OPEN_MAX:
            return
        id, longest = min(self._backups.items(), key=lambda item: item[1].asked_s)
        if self._clock() - longest.asked_s < REPLACED_S:
            raise errors.BackupFailed(f"{OPEN_MAX} backups are being read already: try again later")
        self._let_go(id)

    def drop_idle(self) -> float:
        """Let go what nobody has asked for, for IDLE_S_MAX; a timer. Returns in how many seconds to look again."""
        if self._backups:
            now_s = self._clock()
            for id in [id for id, backup in self._backups.items() if now_s - backup.asked_s > IDLE_S_MAX]:
                self._let_go(id)
        return LOOK_S

    def _let_go(self, id: str) -> None:
        file = self._backups.pop(id).file
        if file is not None:
            file.close()

    def close(self) -> None:
        """Let go all."""
        for id in list(self._backups):
            self._let_go(id)
