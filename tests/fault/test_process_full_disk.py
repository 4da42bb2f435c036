"""Real servers on disks that are full: a small tmpfs, and a limit on the size of files.

Both write as much as there is room for and then say no: a real short write.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.disks import small_disk
from support.servers import DidNotStart, ServerProcess, wait_until
from support.strace import inject
from support.wire import WireClient
from support.workload import OK, Workload, read_rows

Count = Callable[[str, int], None]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 256) as path:
        yield path


def stats(server: ServerProcess) -> dict[str, Any]:
    with WireClient(server.url, session=None) as wire:
        described: dict[str, Any] = wire.call("stats")[1][1]
    return described


def fill(disk: Path, leave_bytes: int) -> Path:
    """Take all of the disk but so many bytes."""
    status = os.statvfs(disk)
    ballast = disk / "ballast"
    # The server takes room as well meanwhile: then less than that is left, or nothing.
    with contextlib.suppress(OSError), ballast.open("ab", buffering=0) as file:
        file.write(bytes(max(0, status.f_bavail * status.f_frsize - leave_bytes)))
    return ballast


def write_until_refused(server: ServerProcess, load: Workload) -> None:
    """Write until the disk is full."""
    refused = load.refused
    # A compaction that ends makes room, and on a busy machine it takes a while to fill that too.
    wait_until(lambda: (load.run(0.01), load.refused > refused)[1], timeout_s=120.0, what="WriteRejected")


def test_full_disk_refuses_writes_serves_reads_and_recovers(tmp_path: Path, full: bool, count: Count) -> None:
    """Fill the disk under load; what is refused is not applied, what is acknowledged is there, reads go
    on; make room, and writes go on without a restart; every third time kill the server while the disk
    is full, and start it on the full disk.

    Seen red with: no cut back after a failed write.
    """
    cycles = 100 if full else 12
    chance = random.Random(3)
    load = Workload(clients=3, depth=1, seed=9)
    with (
        small_disk(tmp_path / "disk", 3072) as disk,
        ServerProcess(disk / "data", "--compact-after", "200k", "--log-level", "error") as server,
    ):
        load.connect(server.url)
        load.run(0.05)
        for cycle in range(cycles):
            ballast = fill(disk, chance.randrange(0, 60_000))
            write_until_refused(server, load)
            load.run(0.02)
            load.settle()
            assert load.judge(read_rows(server.url)) == 0, "a refused change was applied"
            assert load.refusals == {"not applied: the log could not be written: No space left on device"}
            if cycle % 3 == 0:
                server.kill()
                load.hang_up()
                server.start()
                assert load.judge(read_rows(server.url)) == 0
                load.connect(server.url)
            ballast.unlink()
            wanted = load.done + 6
            wait_until(lambda wanted=wanted: load.run(0.01) >= 0 and load.done >= wanted, what="writes again")  # type: ignore[misc]
            load.settle()
            wait_until(lambda: not stats(server)["compaction_running"], what="the end of a compaction")
            if cycle % 3 == 1:
                server.kill()
                server.start()
                assert load.judge(read_rows(server.url)) == 0
                load.connect(server.url)
    load.close()
    count("times a disk was full, 0 lost, 0 wrong", cycles)
    count("requests refused on a full disk, none of them applied", load.refused)
    count("requests acknowledged around full disks", load.done)


def test_killed_in_the_middle_of_a_write_on_a_full_disk_it_starts_again(disk: Path) -> None:
    """The torn tail cannot be saved aside, for want of room: the server says so, and starts once there is some.

    It changes nothing in the meantime: the tail is evidence.
    """
    data = disk / "data"
    with ServerProcess(data) as server, WireClient(server.url) as wire:
        assert wire.call("insert", "a", 1)[1] == (OK, None)
        server.kill()
        with (data / "table.txn").open("ab") as file:
            file.write((data / "table.txn").read_bytes()[-50:-1] * 100)
        before = (data / "table.txn").read_bytes()
        ballast = fill(disk, 0)
        with pytest.raises(DidNotStart) as refused:
            server.start()
        assert refused.value.exit_code == 3
        assert "No space left" in refused.value.stderr and "table.txn.torn-" in refused.value.stderr
        assert "Traceback" not in refused.value.stderr
        assert (data / "table.txn").read_bytes() == before
        ballast.unlink()
        server.start()
        assert read_rows(server.url) == {"a": 1}


def test_a_checkpoint_that_meets_a_full_disk_is_written_later(tmp_path: Path) -> None:
    """There is room for the new log but not for the checkpoint: clients notice nothing, `stats` says why,
    and the compaction is done when there is room. The old files stay good all the time."""
    load = Workload(clients=1, depth=1, seed=10)
    with small_disk(tmp_path / "disk", 2048) as disk, ServerProcess(disk / "data") as server:
        with WireClient(server.url) as wire:
            for number in range(8):
                assert wire.call("insert", f"c0/big{number}", "x" * 100_000)[1] == (OK, None)
        server.kill()
        server.options = ["--compact-after", "10"]
        ballast = fill(disk, 200_000)
        server.start()
        load.clients[0].rows = read_rows(server.url)
        load.connect(server.url)
        wait_until(lambda: (load.run(0.01), stats(server)["compactions_failed"])[1], what="a failure")
        assert "No space left" in stats(server)["compaction_trouble"]
        assert "table.ckpt.tmp" in stats(server)["compaction_trouble"]
        server.kill()
        load.hang_up()
        server.start()
        load.judge(read_rows(server.url))
        ballast.unlink()
        wait_until(lambda: stats(server)["compactions"], what="the compaction")
        load.connect(server.url)
        load.run(0.1)
        load.settle()
        server.restart()
        assert load.judge(read_rows(server.url)) == 0
        assert stats(server)["compaction_trouble"] is None
    load.close()


def test_a_failed_compaction_gives_its_room_back(tmp_path: Path) -> None:
    """A checkpoint that did not fit must not keep the room that the log needs.

    Seen red with: the child leaving table.ckpt.tmp behind.
    """
    with small_disk(tmp_path / "disk", 2048) as disk, ServerProcess(disk / "data") as server:
        with WireClient(server.url) as wire:
            for number in range(8):
                assert wire.call("insert", f"big{number}", "x" * 100_000)[1] == (OK, None)
        server.kill()
        fill(disk, 200_000)
        server.options = ["--compact-after", "1"]
        server.start()
        with WireClient(server.url) as wire:
            assert wire.call("insert", "a", 1)[1] == (OK, None)
            wait_until(lambda: stats(server)["compactions_failed"], what="a failure")
            assert wire.call("insert", "b", "x" * 50_000)[1] == (OK, None)


def test_a_trace_on_a_full_disk_ends_and_the_service_goes_on(tmp_path: Path) -> None:
    """The trace is worth less than the service: a warning, no further lines, a clean stop with exit 0.

    Seen red with: the stop closing the trace file as if it could still be written (exit 3).
    """
    load = Workload(clients=2, depth=1, seed=11)
    with (
        small_disk(tmp_path / "disk", 64) as disk,
        ServerProcess(tmp_path / "data", "--trace", str(disk / "trace")) as server,
    ):
        load.connect(server.url)
        wait_until(lambda: (load.run(0.01), "the trace ends here" in server.stderr)[1], what="the warning")
        load.run(0.1)
        load.settle()
        assert load.refused == 0
        assert server.terminate() == 0, server.stderr
        assert "Traceback" not in server.stderr and server.stderr.count("the trace ends here") == 1
        server.options = []
        server.start()
        assert load.judge(read_rows(server.url)) == 0
    load.close()


def test_a_limit_on_file_sizes_is_a_full_disk(tmp_path: Path) -> None:
    """`ulimit -f`: a short write up to the limit, then EFBIG, and a SIGXFSZ that must not end the server.

    Seen red with: SIGXFSZ at its default (the server died).
    """
    limit = 64 << 10
    load = Workload(clients=2, depth=1, seed=12)

    def set_limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    with ServerProcess(tmp_path / "data", preexec=set_limit) as server:
        load.connect(server.url)
        write_until_refused(server, load)
        load.settle()
        assert load.refusals == {"not applied: the log could not be written: File too large"}
        assert load.judge(read_rows(server.url)) == 0
        server.restart()
        assert load.judge(read_rows(server.url)) == 0
        server.kill()
        server.preexec = None
        server.start()
        load.connect(server.url)
        load.run(0.1)
        load.settle()
        assert load.judge(read_rows(server.url)) == 0
    load.close()


def test_a_first_start_on_a_full_disk_is_refused_and_leaves_no_half_table(disk: Path) -> None:
    """Exit 3, the reason, and a start that works when there is room."""
    ballast = fill(disk, 0)
    with ServerProcess(disk / "data", start=False) as server:
        with pytest.raises(DidNotStart) as refused:
            server.start()
        assert refused.value.exit_code == 3 and "No space left" in refused.value.stderr
        assert "Traceback" not in refused.value.stderr
        ballast.unlink()
        server.start()
        with WireClient(server.url) as wire:
            assert wire.call("insert", "a", 1) == (1, (OK, None))


def test_rows_that_expire_while_the_disk_is_full_expire_when_there_is_room(tmp_path: Path) -> None:
    """Expiry is a logged change: it waits, and the loop does not burn the processor while it does."""
    data = tmp_path / "data"
    wrapper = inject(
        "pwrite64", "error=ENOSPC", "4..200", data, tmp_path / "calls"
    )  # header, epoch, the row, then none
    with ServerProcess(data, wrapper=wrapper) as server, WireClient(server.url) as wire:
        began_s = time.monotonic()
        assert wire.call("insert", "brief", 1, 0.1)[1] == (OK, None)
        wait_until(lambda: stats(server)["keys"] == 0, what="the expiry")
        # About 100 tries, each 10 ms after the one before. Without a pause it takes 0.2 s.
        assert time.monotonic() - began_s > 0.5, "it tried without a pause"
        assert "No space left" in server.stderr
        assert stats(server)["storage_trouble"] is None
        server.restart()
        assert read_rows(server.url) == {}
