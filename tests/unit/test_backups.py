"""Backups at the server: what is asked for, what is held open, and when it is let go."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from support.stepped import Stepped

from kvzmq import errors
from kvzmq.protocol import limits, operations
from kvzmq.protocol.declaration import Access
from kvzmq.protocol.messages import Request
from kvzmq.server import backups
from kvzmq.server.backups import Backups
from kvzmq.server.transport import STEP_WEIGHT_MAX

PIECE = limits.BACKUP_CHUNK_BYTES
FAILED = errors.BackupFailed.code


class Checkpoints:
    """What keeps a log with checkpoints, in the test's hand."""

    def __init__(self) -> None:
        self.content: bytes | None = None
        self.wrong: Exception | None = None
        self.asked = 0
        self.open = 0

    def request(self) -> backups.OpenWhenWritten:
        self.asked += 1
        return self.open_when_written

    def open_when_written(self) -> File | None:
        if self.wrong is not None:
            raise self.wrong
        return None if self.content is None else File(self, self.content)


class File:
    def __init__(self, kept: Checkpoints, content: bytes) -> None:
        self.kept, self.content = kept, content
        kept.open += 1

    def read(self, offset: int, length: int) -> bytes:
        if self.kept.wrong is not None:
            raise self.kept.wrong
        return self.content[offset : offset + length]

    def size(self) -> int:
        return len(self.content)

    def close(self) -> None:
        self.kept.open -= 1


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def name(number: int) -> str:
    return f"{number:032x}"


@pytest.fixture
def checkpoints() -> Checkpoints:
    return Checkpoints()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def kept(checkpoints: Checkpoints, clock: Clock) -> Backups:
    return Backups(checkpoints.request, clock)


@pytest.fixture
def table() -> Iterator[Stepped]:
    with Stepped() as table:
        yield table


def test_a_backup_is_read_in_pieces_once_its_checkpoint_is_written(table: Stepped, checkpoints: Checkpoints) -> None:
    table.server.dispatcher.served.backups = Backups(checkpoints.request)
    peer = table.zmq()
    assert table.call(peer, "backup", name(1)) == (0, None)
    assert table.call(peer, "backup", name(1)) == (0, None)
    assert checkpoints.asked == 1
    content = checkpoints.content = os.urandom(2 * PIECE + 7)
    assert table.call(peer, "backup", name(1)) == (0, len(content))
    checkpoints.content = b"a later one"
    read = b""
    while piece := table.call(peer, "backup", name(1), len(read))[1]:
        assert len(piece) <= PIECE
        assert table.call(peer, "backup", name(1), len(read)) == (0, piece), "a piece may be asked for again"
        read += piece
        assert checkpoints.open == (len(read) <= len(content))
    assert read == content and checkpoints.open == 0
    assert table.call(peer, "backup", name(1), 0)[0] == FAILED


def test_a_backup_goes_in_a_request_of_its_own(table: Stepped, checkpoints: Checkpoints) -> None:
    """Seen red without the refusal: one request would have 50,000 pieces read."""
    table.server.dispatcher.served.backups = Backups(checkpoints.request)
    peer = table.zmq()
    peer.send(["backup", name(1)], ["backup", name(1), 0], ["ping"])
    ((_, _, results),) = table.replies(peer)
    assert [code for code, _ in results] == [FAILED, FAILED, 0] and checkpoints.asked == 0


def test_a_step_reads_one_mebibyte_of_backups() -> None:
    request = Request(None, 1, [operations.Backup(name(1), 0)], b"")
    assert STEP_WEIGHT_MAX // request.weight * PIECE == 1 << 20


def test_a_backup_touches_the_whole_table() -> None:
    """So whoever may not read all of it may not take one."""
    assert operations.Backup(name(1), 0).accesses() == (Access(False, prefix=""),)


def test_a_server_without_checkpoints_says_so(table: Stepped) -> None:
    code, message = table.call(table.zmq(), "backup", name(1))
    assert code == FAILED and "no checkpoints" in message


def test_a_backup_that_nobody_asks_for_is_let_go(kept: Backups, checkpoints: Checkpoints, clock: Clock) -> None:
    checkpoints.content = bytes(100)
    assert kept.begin(name(1)) == kept.begin(name(2)) == 100 and checkpoints.open == 2
    clock.now_s += backups.IDLE_S_MAX - 1
    kept.read(name(2), 0)
    clock.now_s += 2
    kept.drop_idle()
    assert len(kept) == checkpoints.open == 1
    assert kept.read(name(2), 50) == bytes(50)
    with pytest.raises(errors.BackupFailed, match="no such backup"):
        kept.read(name(1), 0)
    kept.close()
    assert len(kept) == checkpoints.open == 0


def test_so_many_backups_are_open_and_a_vanished_one_makes_room(
    kept: Backups, checkpoints: Checkpoints, clock: Clock
) -> None:
    checkpoints.content = bytes(100)
    for number in range(backups.OPEN_MAX):
        kept.begin(name(number))
    with pytest.raises(errors.BackupFailed, match="8 backups are being read already"):
        kept.begin(name(99))
    clock.now_s += backups.REPLACED_S
    for number in range(1, backups.OPEN_MAX):
        kept.begin(name(number))
    assert kept.begin(name(99)) == 100
    assert len(kept) == checkpoints.open == backups.OPEN_MAX
    with pytest.raises(errors.BackupFailed, match="no such backup"):
        kept.read(name(0), 0)


def test_what_cannot_be_written_or_read_is_said_and_let_go(kept: Backups, checkpoints: Checkpoints) -> None:
    checkpoints.wrong = errors.BackupFailed("the server could not write a checkpoint: no room")
    with pytest.raises(errors.BackupFailed, match="no room"):
        kept.begin(name(1))
    checkpoints.wrong = OSError(24, "Too many open files")
    with pytest.raises(errors.BackupFailed, match="could not read its checkpoint: Too many open files"):
        kept.begin(name(1))
    checkpoints.wrong, checkpoints.content = None, bytes(10)
    kept.begin(name(1))
    checkpoints.wrong = OSError(5, "Input/output error")
    with pytest.raises(errors.BackupFailed, match="could not read its checkpoint: Input/output error"):
        kept.read(name(1), 0)
    assert len(kept) == checkpoints.open == 0


def test_an_offset_beyond_the_end_is_the_end(kept: Backups, checkpoints: Checkpoints) -> None:
    checkpoints.content = bytes(10)
    kept.begin(name(1))
    assert kept.read(name(1), 2**64 - 1) == b"" and checkpoints.open == 0
