"""A crash at every single call of commit, rotation, compaction and recovery, with everything that may survive it.

A fixed script runs on the disk that forgets. It is cut off at each of its calls, by the death of the
process or by the loss of power; after a loss of power every subset of the directory's unsynced changes
and of the unsynced pages is tried; and the recovery is cut off at each of its own calls in turn, again
either way, before the one that is let through. After each, what was acknowledged is there.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from random import Random

import pytest
from support.forgetful import Call, Choose, Crash, Disk, Verdict, every_choice
from support.witness import Clients, Witnessed, dump_of, raw, request

from kvzmq.protocol import operations
from kvzmq.store.file import compaction, file_log
from kvzmq.store.file.file_log import NAME_SEALED


@pytest.fixture(autouse=True)
def the_same_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write no more than a page of zeros ahead, and stop the clock that names torn tails: all runs must be the same."""
    monkeypatch.setattr(file_log, "PREPARED_BYTES", 4096)
    monkeypatch.setattr(time, "strftime", lambda *_: "TIME")
    monkeypatch.setattr(logging.getLogger("kvzmq.store.file.file_log"), "disabled", True)


A = b"a" * 16
B = b"b" * 16


def script(witnessed: Witnessed) -> Iterator[bool]:
    """Commit, seal, compact, twice over; yields whether the process still lives."""
    yield witnessed.run_group([request(A, 1, operations.Open()), request(B, 1, operations.Open())], 1_000_000)
    yield witnessed.run_group([request(A, 2, operations.Insert("a", raw(1), 2.0))], 2_000_000)
    yield witnessed.run_group(
        [request(B, 2, operations.Increment("n")), request(A, 3, operations.Remove("absent"))], 3_000_000
    )
    yield witnessed.rotate()
    yield witnessed.run_group([request(B, 3, operations.Increment("n"))], 3_500_000)
    witnessed.compact_sealed()
    yield witnessed.store is not None
    yield witnessed.run_group([request(A, 4, operations.Insert("b", raw("x" * 5000)))], 5_000_000)
    yield witnessed.rotate()
    witnessed.compact_sealed()
    yield witnessed.store is not None
    yield witnessed.run_group([request(None, 1, operations.Remove("b"))], 6_000_000)


def crash_at(number: int) -> Callable[[Call], Verdict]:
    """Return a judge that lets `number` calls pass and crashes in the next."""
    left = number

    def judge(call: Call) -> Verdict:
        nonlocal left
        left -= 1
        return "crash" if left < 0 else None

    return judge


def run_until_crash(disk: Disk, number: int) -> Witnessed:
    """Run the script, cut off at its call `number`; what a dead compaction leaves stays and the script goes on."""
    witnessed = Witnessed(disk)
    disk.judge = crash_at(number)
    try:
        witnessed.start()
    except Crash:
        pass
    else:
        for alive in script(witnessed):
            if not alive or len(disk.calls) > number:
                break
    disk.judge = lambda call: None
    return witnessed


def calls_of_script() -> int:
    disk = Disk()
    run_until_crash(disk, 1 << 30)
    return len(disk.calls)


def finish(witnessed: Witnessed) -> None:
    """Recover for good, and see that the table goes on working."""
    witnessed.start()
    witnessed.retry()
    assert witnessed.run_group([request(None, 1, operations.Insert("after", raw(True)))], 7_000_000)
    if witnessed.sealed:
        assert witnessed.compact_sealed()
    assert witnessed.rotate()
    assert witnessed.compact_sealed()
    witnessed.die(power=True)
    witnessed.start()


def within(choose: Choose, limit: int) -> Choose:
    """Return `choose` for the first `limit` choices, and the first option after them."""
    left = limit

    def limited(n: int) -> int:
        nonlocal left
        left -= 1
        return choose(n) if left >= 0 else 0

    return limited


@pytest.mark.parametrize("power", [False, True], ids=["kill", "power"])
def test_every_crash_point_recovers_what_was_acknowledged(
    power: bool, full: bool, count: Callable[[str, int], None]
) -> None:
    """Guarantees 1, 2, 5, 8 at every call, with every subset of what was not synced.

    Turned red by leaving out, in turn: the sync in `commit`; each directory sync in `rotate` and the one in
    `checkpoint.write`; the sync of the new checkpoint; by unlinking the sealed log before the checkpoint is renamed.
    The planted faults are in tests/mutants.py.
    """
    recoveries = 0
    for number in range(calls_of_script() + 1):
        for choose in every_choice():
            disk = Disk(within(choose, 12 if full else 8))
            witnessed = run_until_crash(disk, number)
            witnessed.die(power)
            disk.choose = lambda n: 0
            finish(witnessed)
            recoveries += witnessed.recoveries
    count("recoveries after a crash at every call", recoveries)


@pytest.mark.parametrize("power", [False, True], ids=["kill", "power"])
@pytest.mark.parametrize("power_again", [False, True], ids=["kill", "power"])
def test_a_crash_at_every_call_of_the_recovery_loses_nothing(
    power: bool, power_again: bool, full: bool, count: Callable[[str, int], None]
) -> None:
    """Guarantees 1, 2, 5 when the recovery itself is cut off, at each of its calls.

    Turned red by leaving out `_make_tail_durable`, and by leaving out the directory's sync before a new log is begun:
    after the kill of a server in `rotate` the next one's new log could replace the old one by a later loss of power.
    """
    recoveries = 0
    for number in range(calls_of_script() + 1):
        for choose in every_choice():
            disk = Disk(within(choose, 4 if full else 2))
            dead = run_until_crash(disk, number)
            dead.die(power)
            for again in range(12):
                recoveries += _recover_twice(dead, disk, again, power_again, full)
                if not _cut_off(dead, disk, again):
                    break
    count("recoveries after a crash in a recovery", recoveries)


def _cut_off(dead: Witnessed, disk: Disk, number: int) -> bool:
    """Say whether a recovery makes more than `number` calls."""
    twin = disk.copy()
    begun = len(twin.calls)
    twin_witness(dead, twin).start()
    return len(twin.calls) - begun > number


def twin_witness(dead: Witnessed, disk: Disk) -> Witnessed:
    """Return a witness of the same past over a copy of the disk."""
    twin = Witnessed(disk)
    twin.witness.load(dead.witness.dump())
    twin.doubt = dead.doubt
    twin.first = dict(dead.first)
    return twin


def _recover_twice(dead: Witnessed, disk: Disk, number: int, power: bool, full: bool) -> int:
    """Cut off a recovery at its call `number`, then recover for good, for each thing that may survive."""
    recoveries = 0
    for choose in every_choice():
        copy = disk.copy()
        copy.choose = within(choose, 8 if full else 5)
        witnessed = twin_witness(dead, copy)
        copy.judge = crash_at(number)
        with contextlib.suppress(Crash):
            witnessed.start()
        copy.judge = lambda call: None
        witnessed.die(power)
        copy.choose = lambda n: 0
        finish(witnessed)
        recoveries += witnessed.recoveries
    return recoveries


@pytest.mark.parametrize("action", ["commit", "kill and start", "start after the child's death"])
@pytest.mark.parametrize("number", range(7))
def test_the_server_may_do_anything_between_two_calls_of_the_compaction(number: int, action: str) -> None:
    """Guarantee 8: commits, and a new server, at every point of a compaction that runs in another process.

    Turned red by unlinking the sealed log before the new checkpoint is written.
    """
    disk = Disk(Random(number).randrange)
    witnessed = Witnessed(disk)
    clients = Clients(Random(number))
    witnessed.start()
    witnessed.run_group(clients.opening(), clients.time())
    for _ in range(5):
        witnessed.run_group(clients.batch(), clients.time())
    witnessed.rotate()
    left = number

    def act(call: Call) -> Verdict:
        nonlocal left
        left -= 1
        if left != -1:
            return None
        if action != "start after the child's death":
            witnessed.run_group(clients.batch(), clients.time())
        return None if action == "commit" else "crash"

    disk.judge = act
    witnessed.compact_sealed()
    disk.judge = lambda call: None
    if action != "commit":
        witnessed.die(power=action.endswith("death"))
        witnessed.start()
        witnessed.retry()
    witnessed.run_group(clients.batch(), clients.time())
    if witnessed.sealed:
        assert witnessed.compact_sealed()
    witnessed.die(power=True)
    witnessed.start()
    witnessed.retry()


def test_a_late_compaction_does_not_remove_a_log_sealed_after_it_looked() -> None:
    """Guarantee 8, 1: a child that slept between opening and locking wakes up beside another generation of the log.

    Its own sealed log was compacted meanwhile, another was sealed under the same name. Turned red by comparing
    only the name: the late child removed the new sealed log, and with it acknowledged changes.
    """
    disk = Disk()
    witnessed = Witnessed(disk)
    witnessed.start()
    witnessed.run_group([request(None, 1, operations.Insert("a", raw(1)))], 1)
    witnessed.rotate()
    late = disk.open()
    opened = late.open(NAME_SEALED)
    usual = late.open
    opened_again: list[str] = []
    late.open = lambda name: opened if name == NAME_SEALED and not opened_again else usual(name)  # type: ignore[method-assign]
    lock = opened.lock

    def lock_late(wait: bool) -> bool:
        opened_again.append("now")
        assert witnessed.compact_sealed()
        witnessed.run_group([request(None, 1, operations.Insert("b", raw(2)))], 2)
        witnessed.rotate()
        return lock(wait)

    opened.lock = lock_late  # type: ignore[method-assign]
    assert not compaction.compact_sealed(late)
    witnessed.die(power=False)
    witnessed.start()
    assert dump_of(witnessed.witness)
