"""Real processes that are killed at, or get an error from, every system call they make on their files.

strace stops the process at the Nth call of one kind, for N = 1, 2, 3 ... until a run ends without
having made so many. A kill comes before the call is executed, so with the next N every state
between two calls is seen.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from support.servers import DidNotStart, ServerProcess, wait_until
from support.store_states import STATES, copies, made
from support.strace import CALLS, FILES, KILL, inject, read_calls
from support.wire import WireClient
from support.workload import OK, STORAGE_ERROR, Workload, read_rows, recover_rows

Count = Callable[[str, int], None]

REQUESTS = 9
"""So many requests, with a rotation after every fourth, pass through every state of commit and rotation."""

EXIT_REFUSED, EXIT_STORAGE_FAILED = 3, 5

UNNAMED = ("pwrite64", "fdatasync", "fsync", "rename", "unlink", "ftruncate")
"""Calls that only the store makes, so that they are found on files whose names are not known before."""

ENDS_MAX = 200
"""More calls of one kind than any run makes."""


def drive(server: ServerProcess, load: Workload, requests: int = REQUESTS) -> None:
    """Have the load's requests executed until there are so many, or the server has ended."""
    load.connect(server.url)
    wait_until(
        lambda: not server.running or load.done + load.refused >= requests or load.run(0.01) < 0,
        what=f"replies to {requests} requests",
    )
    load.drain()


# ---- a server


@pytest.mark.parametrize("call", CALLS)
def test_a_kill_at_any_call_of_a_server_recovers(call: str, tmp_path: Path, full: bool, count: Count) -> None:
    """Guarantees 1, 2, 5, 8: first start, commits, rotations. Whatever is there afterwards recovers
    to the acknowledged requests and at most the one that was on its way; every fourth time a real
    server goes on with it, gets the unanswered request again and executes it once.

    Seen red with: replies sent before the log is written; the old log renamed to a name that recovery
    does not know.
    """
    for number in range(1, ENDS_MAX):
        data = tmp_path / str(number)
        load = Workload(clients=1, depth=1, seed=number)
        wrapper = inject(call, KILL, str(number), data, tmp_path / "calls")
        with ServerProcess(data, "--compact-after", "4", wrapper=wrapper, start=False) as server:
            try:
                server.start()
                drive(server, load)
            except DidNotStart as error:
                assert error.exit_code == -9, error
            survived = server.running
            server.kill()
            assert load.judge(recover_rows(data)[0] if data.exists() else {}) <= 1
            if full or number % 4 == 1:
                server.wrapper = []
                server.start()
                load.judge(read_rows(server.url))
                drive(server, load, load.done + 6)
                load.settle()
                assert load.judge(read_rows(server.url)) == 0
        load.close()
        if survived:
            break
    else:
        raise AssertionError(f"{ENDS_MAX} kills and no end")
    count(f"kills at {call} of a server, 0 lost, 0 wrong", number - 1)


@pytest.mark.parametrize("number", range(1, 8))
def test_a_failed_sync_of_the_log_ends_the_server_at_once(number: int, tmp_path: Path) -> None:
    """Guarantee 6. EIO from the Nth fdatasync: no reply, no second try, exit 5 (3 if it was still
    starting), and what was acknowledged before is there.

    Seen red with: StorageFatal answered like WriteRejected; the sync tried again.
    """
    data, calls = tmp_path / "data", tmp_path / "calls"
    load = Workload(clients=1, depth=1, seed=number)
    wrapper = inject("fdatasync", "error=EIO", str(number), data, calls, names=["table.txn", "table.txn.tmp"])
    with ServerProcess(data, wrapper=wrapper, start=False) as server:
        try:
            server.start()
            drive(server, load)
            assert server.wait_for_exit() == EXIT_STORAGE_FAILED
            assert "sync failed: Input/output error" in server.stderr
        except DidNotStart as error:
            assert error.exit_code == EXIT_REFUSED and number <= 2, error  # the header, the epoch
        assert "Traceback" not in server.stderr
        made = read_calls(calls)
        assert made[-1].name == "fdatasync" and "EIO" in made[-1].result, "the failed sync was not the last call"
        assert load.refused == 0 and load.done == max(0, number - 3)
        server.wrapper = []
        server.start()
        assert load.judge(read_rows(server.url)) <= 1
        load.connect(server.url)
        load.settle()
    load.close()


@pytest.mark.parametrize(("call", "number"), [("rename", 3), ("fsync", 3), ("fsync", 4)])
def test_a_rotation_that_fails_half_way_ends_the_server(call: str, number: int, tmp_path: Path) -> None:
    """Guarantees 6 and 8. The second rename of a rotation or the directory's sync fails (those before belong
    to the start): only a restart can tell what is on the disk, and it finds everything.
    """
    data, calls = tmp_path / "data", tmp_path / "calls"
    load = Workload(clients=1, depth=1, seed=number)
    with ServerProcess(
        data, "--compact-after", "4", wrapper=inject(call, "error=EIO", str(number), data, calls)
    ) as server:
        drive(server, load, 20)
        assert server.wait_for_exit() == EXIT_STORAGE_FAILED
        assert "rotation failed: Input/output error" in server.stderr and "Traceback" not in server.stderr
        assert "EIO" in read_calls(calls)[-1].result
        server.wrapper = []
        server.start()
        assert load.judge(read_rows(server.url)) <= 1
    load.close()


@pytest.mark.parametrize("call", ["openat", "pwrite64", "fdatasync", "rename"])
def test_a_rotation_that_cannot_begin_leaves_the_old_log_in_use(call: str, tmp_path: Path) -> None:
    """Nothing has changed yet when the new log cannot be made or the old one not be renamed: clients
    notice nothing, `stats` and standard error give the reason.
    """
    data = tmp_path / "data"
    load = Workload(clients=1, depth=1)
    when, names = ("1+", ["table.txn"]) if call == "rename" else ("2+", ["table.txn.tmp"])  # by a rename's old name
    wrapper = inject(call, "error=ENOSPC", when, data, tmp_path / "calls", names=names)
    with ServerProcess(data, "--compact-after", "4", wrapper=wrapper) as server:
        drive(server, load, 30)
        assert load.refused == 0

        def stats() -> dict[str, Any]:
            with WireClient(server.url) as wire:
                _, (_, payload) = wire.call("stats")
            return cast("dict[str, Any]", payload)

        wait_until(lambda: stats()["compactions_failed"], what="a failure")
        assert "No space left" in stats()["compaction_trouble"]
        assert re.search("(a new log could not be written|the log could not be renamed): No space left", server.stderr)
        assert not (data / "table.txn.sealed").exists()
        server.kill()
        assert load.judge(recover_rows(data)[0]) <= 1
    load.close()


@pytest.mark.parametrize("error", ["ENOSPC", "EIO", "EDQUOT", "EFBIG"])
def test_a_failed_write_is_not_applied_reads_go_on_writes_resume(error: str, tmp_path: Path) -> None:
    """The failure policy: WriteRejected, really not applied, not after a restart either; the log is
    cut back to where it was. After three refusals the disk has room again.

    Seen red with: no cut back; requests executed although they were refused.
    """
    data, calls = tmp_path / "data", tmp_path / "calls"
    # 1 is the header, 2 the epoch, 3 `open`, 4 the row;
    # 5 fails, then 6 with blocks written ahead and 7 without, 8 and 9.
    wrapper = inject("pwrite64", f"error={error}", "5..9", data, calls)
    with ServerProcess(data, wrapper=wrapper) as server, WireClient(server.url) as wire:
        wire.open()
        assert wire.call("insert", "before", 1) == (1, (OK, None))
        for attempt in range(3):
            revision, (code, message) = wire.call("insert", "before", 2 + attempt)
            assert (revision, code) == (1, STORAGE_ERROR) and message.startswith("not applied: "), message
            assert wire.call("lookup", "before") == (1, (OK, 1))
        _, (_, stats) = wire.call("stats")
        assert stats["storage_trouble"].startswith("not applied")
        assert wire.call("insert", "after", 1) == (2, (OK, None))
        _, (_, stats) = wire.call("stats")
        assert stats["storage_trouble"] is None
        assert [call.name for call in read_calls(calls)].count("ftruncate") == 5
        server.kill()
        rows, _ = recover_rows(data)
        assert rows == {"before": 1, "after": 1}


def test_a_disk_that_writes_nothing_and_says_so_is_a_full_one(tmp_path: Path) -> None:
    """pwrite64 returns 0, for ever: WriteRejected, not an endless loop. (Short writes that do write
    are those of a full tmpfs and of a file size limit: test_process_full_disk.py.)

    Seen red with: 0 bytes taken for progress: the server hung.
    """
    wrapper = inject("pwrite64", "retval=0", "4+", tmp_path / "data", tmp_path / "calls")
    with ServerProcess(tmp_path / "data", wrapper=wrapper) as server, WireClient(server.url) as wire:
        wire.open()
        _, (code, message) = wire.call("insert", "a", 1)
        assert code == STORAGE_ERROR, message
        assert wire.call("size") == (0, (OK, 0))


# ---- recovery


@pytest.mark.parametrize("state", STATES)
def test_a_kill_at_any_call_of_recovery_recovers(state: str, tmp_path: Path, count: Count) -> None:
    """Guarantees 1 and 2: a recovery that is cut off leaves what the next one needs.

    Seen red with: the torn tail cut before it is saved (its bytes are gone).
    """
    original, expected = made(state, tmp_path)
    kills = 0
    for call in CALLS[1:]:
        for number, data in copies(original):
            wrapper = inject(
                call, KILL, str(number), data, tmp_path / "calls", names=None if call in UNNAMED else FILES
            )
            with ServerProcess(data, wrapper=wrapper, start=False) as server:
                server.launch()
                try:
                    server.wait_until_listening()
                except DidNotStart as error:
                    assert error.exit_code == -9, error
                survived = server.running
            assert recover_rows(data)[0] == expected
            if state == "torn":
                saved = list(data.glob("table.txn.torn-*"))
                assert any(len(file.read_bytes()) == 50 for file in saved), "the torn tail was not saved aside"
            shutil.rmtree(data)
            if survived:
                break
            kills += 1
    count(f"kills inside a recovery ({state}), 0 lost, 0 wrong", kills)


@pytest.mark.parametrize(
    "state",
    [
        pytest.param("plain", marks=pytest.mark.full),
        "left_over",
        pytest.param("cut_off", marks=pytest.mark.full),
        "torn",
    ],
)
def test_an_error_at_any_call_of_recovery_refuses_to_start_and_does_no_harm(
    state: str, tmp_path: Path, count: Count
) -> None:
    """A recovery that meets EIO ends with exit 3 and a line that names error and file, and leaves everything."""
    original, expected = made(state, tmp_path)
    failures = 0
    for call in ("openat", "flock", "pread64", "pwrite64", "fdatasync", "fsync", "rename", "ftruncate"):
        for number, data in copies(original):
            wrapper = inject(
                call, "error=EIO", str(number), data, tmp_path / "calls", names=None if call in UNNAMED else FILES
            )
            wrapper[wrapper.index("-e") + 1] += ",pread64"
            with ServerProcess(data, wrapper=wrapper, start=False) as server:
                try:
                    server.start()
                    survived = True
                except DidNotStart as error:
                    survived = False
                    assert error.exit_code == EXIT_REFUSED, error
                    reason = error.stderr.splitlines()[-1]
                    assert reason.startswith("kvzmq: ") and "Input/output error" in reason, error
                    assert str(data.parent) in reason and "Traceback" not in error.stderr, (call, number, error)
            assert recover_rows(data)[0] == expected
            shutil.rmtree(data)
            if survived:
                break
            failures += 1
    count(f"errors inside a recovery ({state}), 0 lost, 0 wrong", failures)
