"""Backups of real servers when either side is killed in the middle, and on disks that are full."""

from __future__ import annotations

import os
import random
import signal
import subprocess
from collections.abc import Callable, Iterator
from itertools import count as count_from
from pathlib import Path

import pytest
from support.disks import small_disk
from support.servers import KVZMQ, PATIENCE_S, ServerProcess, wait_until

import kvzmq
from kvzmq.store.offline import backup as backup_files

Count = Callable[[str, int], None]

ROWS = {f"k{number:05}": "x" * 10_000 for number in range(3000)}
KILLS = 20
"""Of either side; a part of them without KVZMQ_FULL."""

IMPATIENT = "from kvzmq.server import backups; backups.IDLE_S_MAX = backups.REPLACED_S = 1.0; "
"""Put before the command of a server that lets go backups after a second, not a minute."""


class ImpatientServer(ServerProcess):
    """A server that lets go a backup nobody asks for after a second, while it is told to."""

    is_impatient = True

    def command(self) -> list[str]:
        command = super().command()
        place = command.index("-c") + 1
        if self.is_impatient:
            command[place] = IMPATIENT + command[place]
        return command


class Backup:
    """A `kvzmq backup` that is under way."""

    def __init__(self, url: str, path: Path, timeout_s: float) -> None:
        self._path = path
        self._process = subprocess.Popen(
            [*KVZMQ, "-c", url, "--timeout", str(timeout_s), "backup", str(path)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def wait_for_bytes(self, length: int) -> None:
        """Return when so much of it has come, or when it has ended."""
        wait_until(lambda: self._process.poll() is not None or self._length() >= length, what=f"{length} bytes")

    def _length(self) -> int:
        return max((path.stat().st_size for path in partial(self._path)), default=0)

    def kill(self) -> int:
        """End it, unless it has ended; returns its exit code."""
        self._process.send_signal(signal.SIGKILL)
        return self._process.wait(PATIENCE_S)

    def ended(self) -> tuple[int, str]:
        """Return its exit code and what it said on standard error."""
        _, said = self._process.communicate(timeout=2 * PATIENCE_S)
        return self._process.returncode, said


def partial(path: Path) -> list[Path]:
    """Return the files beside `path` that were to replace it."""
    return list(path.parent.glob(f".{path.name}.*.tmp"))


def open_checkpoints(server: ServerProcess) -> int:
    """Count the checkpoints that the server's process holds open."""
    found = 0
    for descriptor in Path(f"/proc/{server.pid}/fd").iterdir():
        try:
            found += "table.ckpt" in os.readlink(descriptor)
        except FileNotFoundError:
            continue
    return found


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ImpatientServer]:
    """A server with rows, which gives a busy client time: a second between two pieces may be too little."""
    server = ImpatientServer(tmp_path / "data", start=False)
    with server:
        server.is_impatient = False
        server.start()
        with kvzmq.connect(server.url) as table:
            table.insert_many(ROWS)
        yield server


def test_a_server_killed_in_the_middle_leaves_the_destination_as_it_was(
    server: ServerProcess, tmp_path: Path, full: bool, count: Count
) -> None:
    """The client says so, and exits with 4, or 5 where the server is there again and knows nothing of the backup.

    Seen red with DEST written in place.
    """
    path = tmp_path / "backup"
    path.write_bytes(b"the one before")
    chance = random.Random(11)
    cut = 0
    kills = KILLS if full else KILLS // 4
    for number in count_from():  # one that had ended before shows nothing
        if cut == kills:
            break
        assert number < 10 * kills, "backups end too soon"
        back_in_time = number % 2 == 0
        backup = Backup(server.url, path, 60 if back_in_time else 1)
        backup.wait_for_bytes(chance.randrange(1, 20_000_000))
        server.kill()
        if back_in_time:
            server.start()
        code, said = backup.ended()
        if code == 0:  # it had ended before
            assert len(list(backup_files.read(path).sections)) > 10
            path.write_bytes(b"the one before")
        else:
            cut += 1
            assert (code, "there is no such backup" in said) == ((5, True) if back_in_time else (4, False)), said
            assert said.startswith("kvzmq: ") and said.count("\n") == 1
        assert path.read_bytes() == b"the one before" and partial(path) == []
        if not back_in_time:
            server.start()
    code, said = Backup(server.url, path, 60).ended()
    assert code == 0, said
    assert len(list(backup_files.read(path).sections)) > 10
    count("servers killed in the middle of a backup, none taken for whole", cut)


def test_a_client_killed_in_the_middle_is_let_go(server: ImpatientServer, tmp_path: Path, count: Count) -> None:
    """Seen red without the timer: a descriptor for each, and 8 later no backup any more."""
    path = tmp_path / "backup"
    path.write_bytes(b"the one before")
    chance = random.Random(12)
    cut = 0
    server.is_impatient = True
    server.restart()
    with kvzmq.connect(server.url) as table:
        for number in count_from():  # one that had ended before shows nothing
            if cut == KILLS:
                break
            assert number < 10 * KILLS, "backups end too soon"
            backup = Backup(server.url, path, 60)
            backup.wait_for_bytes(chance.randrange(1, 20_000_000))
            cut += backup.kill() != 0
            table.insert("n", number)
            assert open_checkpoints(server) <= 8
        wait_until(lambda: table.stats()["backups"] == 0, what="the end of the backups")
        assert open_checkpoints(server) == 0
        assert table.lookup("n") == number - 1
    server.is_impatient = False
    server.restart()
    code, said = Backup(server.url, path, 60).ended()
    assert code == 0, said
    count("clients killed in the middle of a backup, each let go", cut)


def test_a_full_disk_at_the_destination_is_said_and_leaves_nothing(server: ServerProcess, tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", 4096) as disk:
        path = disk / "backup"
        path.write_bytes(b"the one before")
        code, said = Backup(server.url, path, 60).ended()
        assert code == 3 and "No space left on device" in said
        assert path.read_bytes() == b"the one before" and partial(path) == []
        missing = disk / "none" / "backup"
        code, said = Backup(server.url, missing, 60).ended()
        assert code == 3 and f"{missing}: cannot write there" in said


def test_a_full_disk_at_the_server_is_said_and_a_backup_is_made_when_there_is_room(tmp_path: Path) -> None:
    """With a full disk nothing can be sealed, or nothing written down: both say why, reads go on."""
    path = tmp_path / "backup"
    with (
        small_disk(tmp_path / "disk", 3072) as disk,
        ServerProcess(disk / "data") as server,
        kvzmq.connect(server.url) as table,
    ):
        table.insert_many({f"k{number}": "x" * 900 for number in range(1000)})
        ballast = disk / "ballast"
        for leave_bytes in (900_000, 0):
            ballast.unlink(missing_ok=True)
            status = os.statvfs(disk)
            with ballast.open("wb", buffering=0) as file:
                file.write(bytes(max(0, status.f_bavail * status.f_frsize - leave_bytes)))
            code, said = Backup(server.url, path, 60).ended()
            assert code == 5 and "the server could not write a checkpoint: " in said, said
            assert "No space left on device" in said and not path.exists()
            assert table.lookup("k1") == "x" * 900
        ballast.unlink()
        code, said = Backup(server.url, path, 60).ended()
        assert code == 0 and "1,000 rows" in said, said
        wait_until(lambda: table.stats()["compaction_trouble"] is None)


def test_a_full_disk_at_the_restore_leaves_the_table_that_is_there(server: ServerProcess, tmp_path: Path) -> None:
    path = tmp_path / "backup"
    assert Backup(server.url, path, 60).ended()[0] == 0
    with small_disk(tmp_path / "small", 4096) as disk:
        with ServerProcess(disk / "data") as small, kvzmq.connect(small.url) as table:
            table.insert("old", 1)
        done = subprocess.run(
            [*KVZMQ, "restore", str(path), "--data", str(disk / "data"), "--replace"],
            capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip
        assert done.returncode == 3 and "No space left on device" in done.stderr
        assert not (disk / "data" / "restore.tmp").exists()
        done = subprocess.run(
            [*KVZMQ, "restore", str(path), "--data", str(disk / "new")],
            capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip
        assert done.returncode == 3 and not (disk / "new").exists(), "it would pass for a new table"
        with ServerProcess(disk / "data") as small, kvzmq.connect(small.url) as table:
            assert dict(table.items()) == {"old": 1}
