"""Compaction by real child processes that are killed, stopped, failed and orphaned.

Guarantee 8: whatever happens to the child, or to the server while it works, the table is whole, the
server goes on, and the compaction is done in the end.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.servers import PATIENCE_S, DidNotStart, ServerProcess, wait_until
from support.store_states import copies, made
from support.strace import CALLS, KILL, inject, read_calls
from support.wire import WireClient
from support.workload import OK, Workload, read_rows, recover_rows

import kvzmq
from kvzmq import errors
from kvzmq.store.offline import backup

Count = Callable[[str, int], None]

FOLD = (sys.executable, "-m", "kvzmq.store.file.compaction")

EXIT_REFUSED = 3


def compact_sealed(
    data: Path, *wrapper: str, parent: int | None = None, version: str = kvzmq.__version__
) -> subprocess.CompletedProcess[str]:
    """Run the child of a compaction, as a child of the tests."""
    command = [*wrapper, *FOLD, str(data), version, str(parent or os.getpid())]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)


def stats(server: ServerProcess) -> dict[str, Any]:
    with WireClient(server.url, session=None) as wire:
        _, (code, payload) = wire.call("stats")
    assert code == OK
    described: dict[str, Any] = payload
    return described


def write(server: ServerProcess, load: Workload, requests: int) -> None:
    """Have so many more requests executed."""
    wanted = load.done + requests
    load.connect(server.url)
    wait_until(lambda: load.run(0.005) and load.done >= wanted, what=f"{wanted} replies")
    load.settle()


def has_ended(pid: int) -> bool:
    """Say whether a process has ended, be it that nobody has waited for it yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def runs(pid: int) -> bool:
    """Say whether the child of a compaction is past its exec."""
    return FOLD[-1].encode() in Path(f"/proc/{pid}/cmdline").read_bytes()


def has_lock(pid: int) -> bool:
    """Say whether a process has locked a file."""
    return any(line.split()[4] == str(pid) for line in Path("/proc/locks").read_text().splitlines())


# ---- the child alone


@pytest.mark.parametrize("fault", [KILL, "error=EIO"])
def test_a_fault_at_any_call_of_the_child_changes_nothing(fault: str, tmp_path: Path, count: Count) -> None:
    """A kill or an error at the Nth call, for every call and every N: the same rows recover, and the
    next child finishes the work.

    Seen red with: the sealed log removed before the checkpoint is renamed; the new checkpoint
    written over the old one instead of beside it.
    """
    original, expected = made("left_over", tmp_path)
    faults = 0
    for call in (*CALLS[1:], "pread64"):
        for number, data in copies(original):
            wrapper = inject(call, fault, str(number), data, tmp_path / "calls")
            wrapper[wrapper.index("-e") + 1] += ",pread64"
            child = compact_sealed(data, *wrapper)
            hit = bool(child.returncode)
            if hit and fault != KILL:
                assert "Input/output error" in child.stderr and str(data) in child.stderr, child.stderr
                assert "Traceback" not in child.stderr
            after = shutil.copytree(data, tmp_path / "after")
            assert recover_rows(after)[0] == expected
            shutil.rmtree(after)
            if not hit or number % 3 == 1:
                again = compact_sealed(data)
                assert again.returncode == 0, again.stderr
                assert not (data / "table.txn.sealed").exists()
                assert recover_rows(data)[0] == expected
            shutil.rmtree(data)
            if not hit:
                break
            faults += 1
    count(f"{fault} at any call of a compaction, 0 lost", faults)


def test_a_child_whose_server_has_ended_touches_nothing(tmp_path: Path) -> None:
    """An orphan that starts late must not compact under a new server's feet."""
    data, _ = made("left_over", tmp_path)
    before = {file.name: file.read_bytes() for file in data.iterdir()}
    child = compact_sealed(data, parent=1)
    assert child.returncode and "the server has ended" in child.stderr
    assert {file.name: file.read_bytes() for file in data.iterdir()} == before


def test_a_child_of_another_version_touches_nothing(tmp_path: Path) -> None:
    """It might write what its server cannot read. Seen red without the comparison."""
    data, _ = made("left_over", tmp_path)
    before = {file.name: file.read_bytes() for file in data.iterdir()}
    child = compact_sealed(data, version="0.1.9")
    assert child.stderr.strip() == (
        f"the server runs kvzmq 0.1.9, but {kvzmq.__version__} has been installed since it was started: restart it"
    )
    assert child.returncode and {file.name: file.read_bytes() for file in data.iterdir()} == before


def is_written(path: Path) -> bool:
    """Say whether a checkpoint is there up to its last byte, as while its writer waits for a slow sync."""
    try:
        return list(backup.read(path).sections) != []
    except (OSError, errors.CorruptionError):
        return False


HELD = f"delay_enter={int(PATIENCE_S * 1e6)}"
"""What strace is to do to hold a child up until `let_go`, however long what is tried meanwhile takes."""


def let_go(process: subprocess.Popen[bytes]) -> None:
    """Have a process that strace holds up go on: without strace."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    os.kill(int(status.partition("TracerPid:")[2].split()[0]), signal.SIGKILL)


def test_two_children_never_work_on_one_log(tmp_path: Path) -> None:
    """The second finds the sealed log locked and leaves.

    Seen red with: the sealed log not locked.
    """
    data, expected = made("left_over", tmp_path)
    slow = inject("fdatasync", HELD, "1", data, tmp_path / "calls")
    with subprocess.Popen([*slow, *FOLD, str(data), kvzmq.__version__, str(os.getpid())]) as first:
        wait_until(lambda: is_written(data / "table.ckpt.tmp"), what="the first child's checkpoint")
        tmp = (data / "table.ckpt.tmp").stat()
        second = compact_sealed(data)
        assert second.returncode == 0, second.stderr
        assert (data / "table.txn.sealed").exists(), "the second did not wait for the first"
        assert (data / "table.ckpt.tmp").stat().st_mtime_ns == tmp.st_mtime_ns, "the second wrote as well"
        let_go(first)
        assert first.wait(PATIENCE_S) == 0
    assert recover_rows(data)[0] == expected


def test_a_server_waits_for_a_compaction_that_goes_on(tmp_path: Path) -> None:
    """It starts when the other has finished, says that it waits, and has everything."""
    data, expected = made("left_over", tmp_path)
    slow = inject("fdatasync", HELD, "1", data, tmp_path / "calls")
    with subprocess.Popen([*slow, *FOLD, str(data), kvzmq.__version__, str(os.getpid())]) as child:
        wait_until(lambda: (data / "table.ckpt.tmp").exists(), what="the child's checkpoint")
        with ServerProcess(data, start=False) as server:
            server.launch()
            wait_until(lambda: "waiting for a compaction" in server.stderr, what="a word of it")
            let_go(child)
            assert child.wait(PATIENCE_S) == 0
            server.wait_until_listening()
            assert read_rows(server.url) == expected
            assert not (data / "table.txn.sealed").exists()


# ---- the child of a server


def test_a_retry_is_recognised_when_only_a_checkpoint_knows_the_request(tmp_path: Path) -> None:
    """Guarantee 5. Seen red with kept results left out of checkpoints."""
    with ServerProcess(tmp_path / "data", "--compact-after", "20") as server, WireClient(server.url) as wire:
        wire.open()
        first = wire.request(["increment", "n"])
        with WireClient(server.url) as other:
            for number in range(60):
                other.call("insert", f"k{number}", number)
            wait_until(
                lambda: other.call("insert", "more", 1) and stats(server)["compactions"] >= 1, what="a compaction"
            )
        server.kill()
        server.start()
        assert wire.request(["increment", "n"], seq=first.seq) == first
        assert wire.call("lookup", "n")[1] == (OK, 1)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_killed_child_is_replaced(number: signal.Signals, tmp_path: Path) -> None:
    """`stats` and standard error say what happened; the next one does the work."""
    load = Workload(clients=2, seed=2)
    with ServerProcess(tmp_path / "data", "--compact-after", "50") as server:
        load.connect(server.url)
        child = stop_a_child(server, load, runs)
        os.kill(child, number)
        os.kill(child, signal.SIGCONT)
        told: dict[str, Any] = {}

        def has_failed() -> bool:
            told.update(stats(server))
            return bool(told["compactions_failed"] == 1)

        wait_until(has_failed, what="the failure in stats")
        # Until the next one is done, which may be before a busy machine has looked.
        assert told["compaction_trouble"] == f"killed by {number.name}" or told["compactions"]
        assert f"compaction failed, next try in 1 s: killed by {number.name}" in server.stderr
        wait_until(lambda: stats(server)["compactions"] >= 1, what="the next compaction")
        assert stats(server)["compaction_trouble"] is None
        load.settle()
        server.restart()
        assert load.judge(read_rows(server.url)) == 0
    load.close()


def stop_a_child(server: ServerProcess, load: Workload, at_work: Callable[[int], bool]) -> int:
    """Write until a compaction's child is at work, and stop it there."""
    stopped: list[int] = []

    def caught() -> bool:
        load.run(0.002)
        for child in filter(at_work, server.children()):
            os.kill(child, signal.SIGSTOP)
            if at_work(child):
                stopped.append(child)
            else:
                os.kill(child, signal.SIGCONT)  # too late, it was about to end
        return bool(stopped)

    wait_until(caught, what="a child at work")
    return stopped[0]


@pytest.mark.parametrize("locked", [False, True])
def test_a_stopped_child_holds_up_neither_the_server_nor_the_next_one(locked: bool, tmp_path: Path) -> None:
    """SIGSTOP for the child: the server serves. SIGKILL for the server: the kernel ends the stopped
    child with it, and a new server starts at once and finishes the work. A child that was stopped
    before it could ask the kernel for that has no lock, and ends as soon as it goes on.

    Seen red with: PR_SET_PDEATHSIG not set: the new server waited for the stopped child for ever.
    """
    load = Workload(clients=2, seed=3)
    with ServerProcess(tmp_path / "data", "--compact-after", "50") as server:
        load.connect(server.url)
        # Stopped before its exec, it would stop the server: vfork lends the parent's memory to the child.
        child = stop_a_child(server, load, has_lock if locked else runs)
        write(server, load, 500)
        assert stats(server)["compaction_running"] is True
        server.kill()
        load.hang_up()
        server.launch()
        server.wait_until_listening()
        assert load.judge(read_rows(server.url)) == 0
        wait_until(lambda: stats(server)["compactions"] >= 1, what="the next compaction")
        if not locked:
            os.kill(child, signal.SIGCONT)
        wait_until(lambda: has_ended(child), what="the end of the stopped child")
        server.restart()
        assert load.judge(read_rows(server.url)) == 0
    load.close()


def test_a_server_killed_while_its_child_works_restarts_at_once(tmp_path: Path, full: bool, count: Count) -> None:
    """At any moment of the child's life, from before it runs to after it has renamed.

    These are random moments: with the sealed log removed before the checkpoint is renamed, which the
    kill at any call shows at once, 12 of them were not enough. What they would show is a restart that
    an orphan holds up.
    """
    rounds = 200 if full else 12
    load = Workload(clients=2, seed=4)
    slowest_s = 0.0
    with ServerProcess(tmp_path / "data", "--compact-after", "50") as server:
        for number in range(rounds):
            load.connect(server.url)
            wait_until(lambda: load.run(0.002) and server.children(), what="a compaction")
            load.run(0.3 * number / rounds)
            server.kill()
            load.hang_up()
            began_s = time.monotonic()
            server.start()
            slowest_s = max(slowest_s, time.monotonic() - began_s)
            load.judge(read_rows(server.url))
        load.connect(server.url)
        load.settle()
        assert load.judge(read_rows(server.url)) == 0
    load.close()
    count("servers killed while their compaction ran, 0 lost", rounds)
    assert slowest_s < PATIENCE_S / 2


def test_a_failing_child_is_tried_again_until_it_can(tmp_path: Path) -> None:
    """The checkpoint cannot be written, here because a directory has its name: the reason is in `stats`
    and on standard error, clients notice nothing, and once the reason is gone it is done.

    Seen red with: no further try after a failure.
    """
    data = tmp_path / "data"
    load = Workload(clients=2, seed=5)
    (data / "table.ckpt.tmp").mkdir(parents=True)
    with ServerProcess(data, "--compact-after", "50") as server:
        write(server, load, 200)
        wait_until(lambda: stats(server)["compactions_failed"] >= 2, what="two failures")
        trouble = stats(server)["compaction_trouble"]
        assert "Is a directory" in trouble and "table.ckpt.tmp" in trouble
        assert trouble in server.stderr
        (data / "table.ckpt.tmp").rmdir()
        wait_until(lambda: stats(server)["compactions"] >= 1, what="the compaction")
        write(server, load, 10)
        server.restart()
        assert load.judge(read_rows(server.url)) == 0
    load.close()


@pytest.mark.parametrize("call", ["pwrite64", "fdatasync", "rename", "unlink"])
def test_errors_inside_the_child_leave_the_server_alone(call: str, tmp_path: Path) -> None:
    """EIO in every child's calls, for good: the table stays right, also after a restart without the fault."""
    data = tmp_path / "data"
    names = ["table.txn.sealed"] if call == "unlink" else ["table.ckpt.tmp"]
    load = Workload(clients=1, depth=1, seed=6)
    wrapper = inject(call, "error=EIO", "1+", data, tmp_path / "calls", names=names, follow=True)
    with ServerProcess(data, "--compact-after", "30", wrapper=wrapper) as server:
        write(server, load, 60)
        wait_until(lambda: stats(server)["compactions_failed"] >= 1, what="a failure")
        assert "Input/output error" in stats(server)["compaction_trouble"]
        write(server, load, 10)
        assert any("EIO" in made_call.result for made_call in read_calls(tmp_path / "calls"))
        server.wrapper = []
        server.restart()
        assert load.judge(read_rows(server.url)) == 0
        wait_until(lambda: stats(server)["compactions"] >= 1, what="the compaction")
        server.restart()
        assert load.judge(read_rows(server.url)) == 0
    load.close()


def test_a_server_that_cannot_start_a_process_goes_on(tmp_path: Path) -> None:
    """EAGAIN from fork: the reason in `stats`, another try later."""
    load = Workload(clients=1, depth=1, seed=7)
    calls = "vfork,fork,clone"  # threads come from clone3
    wrapper = inject(calls, "error=EAGAIN", "1+", tmp_path, tmp_path / "calls", names=None)
    wrapper[wrapper.index("-e") + 1] += f",{calls}"
    with ServerProcess(tmp_path / "data", "--compact-after", "30", wrapper=wrapper) as server:
        write(server, load, 60)
        wait_until(lambda: stats(server)["compactions_failed"] >= 1, what="a failure")
        assert stats(server)["compaction_trouble"] == "cannot start a process: Resource temporarily unavailable"
        server.wrapper = []
        server.restart()
        wait_until(lambda: stats(server)["compactions"] >= 1, what="the compaction")
        assert load.judge(read_rows(server.url)) == 0
    load.close()


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A directory with a copy of the package, which a test may replace by another version."""
    directory = tmp_path / "installed"
    shutil.copytree(Path(kvzmq.__file__).parent, directory / "kvzmq", ignore=shutil.ignore_patterns("__pycache__"))
    return directory


def upgrade(installed: Path, version: str) -> None:
    """Install a version whose checkpoints the one before it cannot read."""
    for name, line in (
        ("__init__.py", f'__version__ = "{version}"'),
        ("store/log.py", "SEMANTICS += 1\nREADABLE |= {SEMANTICS}"),
    ):
        with (installed / "kvzmq" / name).open("a") as file:
            file.write(f"\n{line}\n")


def running(installed: Path, data: Path) -> ServerProcess:
    """Run a server of the package that is installed there."""
    wrapper = ("env", "-C", str(installed))  # what `python -c` imports from first
    return ServerProcess(data, "--compact-after", "50", wrapper=wrapper, environment={"PYTHONPATH": str(installed)})


def test_a_server_goes_on_when_a_newer_version_is_installed_beneath_it(tmp_path: Path, installed: Path) -> None:
    """Its compactions fail and say that it has to be restarted; of what it serves nothing is in a newer format.

    Seen red without the comparison of the versions: the child's checkpoint ended the server, and its version did not
    start any more.
    """
    data = tmp_path / "data"
    load = Workload(clients=1, depth=2, seed=9)
    with running(installed, data) as server:
        write(server, load, 10)
        upgrade(installed, "99.0")
        write(server, load, 60)
        wait_until(lambda: stats(server)["compactions_failed"] >= 1, what="a failure")
        trouble = stats(server)["compaction_trouble"]
        assert "99.0 has been installed since it was started: restart it" in trouble and trouble in server.stderr
        write(server, load, 10)
        server.wrapper, server.environment = [], {}  # what it was before the upgrade
        server.restart()
        assert load.judge(read_rows(server.url)) == 0
        wait_until(lambda: stats(server)["compactions"] >= 1, what="the compaction")
    load.close()


def test_a_checkpoint_of_a_newer_version_does_not_end_the_server(tmp_path: Path, installed: Path) -> None:
    """Whoever has written it. Seen red: the loop ended with WrittenByNewer."""
    data = tmp_path / "data"
    load = Workload(clients=1, depth=2, seed=10)
    with running(installed, data) as server:
        write(server, load, 10)
        upgrade(installed, kvzmq.__version__)  # so that the child takes itself for the server's
        write(server, load, 60)
        wait_until(lambda: stats(server)["compactions_failed"] >= 1, what="a failure")
        assert "written by a newer version of kvzmq" in stats(server)["compaction_trouble"]
        write(server, load, 10)
        assert load.judge(read_rows(server.url)) == 0
    load.close()


def test_a_checkpoint_damaged_under_a_running_server_is_not_replaced(tmp_path: Path) -> None:
    """The child refuses the damaged file and names it; what is there is left for a person to look at."""
    data = tmp_path / "data"
    load = Workload(clients=1, depth=2, seed=8)
    with ServerProcess(data, "--compact-after", "50") as server:
        write(server, load, 60)
        wait_until(lambda: stats(server)["compactions"] >= 1, what="a compaction")
        damaged = bytearray((data / "table.ckpt").read_bytes())
        damaged[len(damaged) // 2] ^= 1
        (data / "table.ckpt").write_bytes(damaged)
        write(server, load, 60)
        wait_until(lambda: stats(server)["compactions_failed"] >= 1, what="a failure")
        assert f"{data / 'table.ckpt'}: " in stats(server)["compaction_trouble"]
        assert "offset" in stats(server)["compaction_trouble"]
        write(server, load, 10)
        assert (data / "table.ckpt").read_bytes() == damaged and (data / "table.txn.sealed").exists()
        assert load.judge(read_rows(server.url)) == 0
    load.close()


# ---- who is refused


def test_a_second_server_is_refused_and_told_what_to_do(tmp_path: Path) -> None:
    """On the same directory, on the same port of either kind; the first one notices nothing.

    Seen red with: the directory's lock not taken.
    """
    with ServerProcess(tmp_path / "data", bridge=True) as first, WireClient(first.url) as wire:
        wire.call("insert", "a", 1)
        refusals = []
        for data, bind, options in (
            (first.data, "tcp://127.0.0.1:0", []),
            (tmp_path / "other", first.url, []),
            (tmp_path / "other", "tcp://127.0.0.1:0", ["--tcp", f"127.0.0.1:{first.port}"]),
        ):
            with ServerProcess(data, *options, binds=[bind], start=False) as second:
                with pytest.raises(DidNotStart) as refused:
                    second.start()
                assert refused.value.exit_code == EXIT_REFUSED
                refusals.append(refused.value.stderr)
        assert "is in use by another kvzmq server: stop that one, or give this one another --data" in refusals[0]
        assert "it is in use; stop the other server or choose another --bind" in refusals[1]
        assert "it is in use; stop the other server or choose another --tcp" in refusals[2]
        assert all(len(said.splitlines()) == 1 for said in refusals), refusals
        assert wire.call("lookup", "a") == (1, (OK, 1))


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x40
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "offset", "says"),
    [
        ("table.ckpt", 60, "table.ckpt: "),
        ("table.ckpt", 3, "table.ckpt: "),
        ("table.txn", 3, "table.txn: "),
        ("table.txn", 60, "damage, not a torn tail"),
        ("table.txn.sealed", 60, "damage, not a torn tail"),
        ("table.txn.sealed", -3, "a sealed log has no torn tail"),
    ],
)
def test_a_damaged_file_is_refused_by_name_and_offset(name: str, offset: int, says: str, tmp_path: Path) -> None:
    """Guarantee 7: exit 3, the file, the offset, what to run; and nothing is changed.

    Seen red with: a damaged frame taken for a torn tail although a valid one follows.
    """
    data, _ = made("left_over", tmp_path)
    flip(data / name, offset)
    before = {file.name: file.read_bytes() for file in data.iterdir()}
    with ServerProcess(data, start=False) as server, pytest.raises(DidNotStart) as refused:
        server.start()
    assert refused.value.exit_code == EXIT_REFUSED
    assert str(data / name) in refused.value.stderr and says in refused.value.stderr, refused.value.stderr
    assert "offset" in refused.value.stderr
    assert f"`kvzmq check --repair {data}`" in refused.value.stderr, "it does not say what to run"
    assert "Traceback" not in refused.value.stderr
    assert {file.name: file.read_bytes() for file in data.iterdir()} == before
