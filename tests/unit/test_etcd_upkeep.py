"""When the upkeep of a table in etcd does what: no etcd, no process, and a clock that the test moves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.fake_keys import FakeKeys
from support.shared_log import SharedGroups, SharedLog

from kvzmq import errors
from kvzmq.protocol.messages import Request
from kvzmq.store.etcd.checkpoints import Head
from kvzmq.store.etcd.local_copy import LocalCopy
from kvzmq.store.etcd.poller import Answer, Poller
from kvzmq.store.etcd.space import FULL_SHARE, Status
from kvzmq.store.etcd.upkeep import (
    JITTER_S,
    LEFT_TO_ANOTHER,
    LOG_BYTES_MIN,
    LOG_GROUPS_MIN,
    Settings,
    Upkeep,
)
from kvzmq.store.store import Store

NAME = "t"
QUOTA = 1 << 30


class Child:
    """A process that ends when the test says so."""

    def __init__(self, job: tuple[str, ...]) -> None:
        self.job = job
        self.code: int | None = None
        self.reason = ""

    def end(self, code: int = 0, reason: str = "") -> None:
        self.code, self.reason = code, reason

    def failure(self) -> str | None:
        return None if self.code is None else self.reason

    def kill(self) -> None:
        self.end(-9)


class Watched:
    group = 0
    log_bytes = 0

    def describe(self) -> dict[str, Any]:
        return {"etcd_member": "h:1"}


class StillPoller(Poller):
    """What etcd says is what the test sets."""

    def start(self) -> None:
        """Ask nobody."""


class Bench:
    """An Upkeep, and what there is around it."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.now_s = 0.0
        self.jobs: list[Child] = []
        self.log = Watched()
        self.store = Store(SharedLog(SharedGroups()))
        self.store.recover()
        self.store.begin_epoch(1)
        self.copy = LocalCopy(path)
        self.poller = StillPoller(FakeKeys(), Any, NAME)  # type: ignore[arg-type]
        self.upkeep = Upkeep(
            self.store, self.log, self.poller, self.copy, Settings(["h:1"], NAME, str(path), quota_bytes=QUOTA),
            "generation", clock=lambda: self.now_s, jitter=lambda: 0.5, start=self.start, **options,
        )  # fmt: skip

    def start(self, module: str, *job: str, given: bytes) -> Any:
        assert b"h:1" in given
        self.jobs.append(Child(job))
        return self.jobs[-1]

    def poll(self, after_s: float = 0.0) -> tuple[str, ...]:
        """Let time pass; return the job that runs."""
        self.now_s += after_s
        self.upkeep.poll()
        return self.jobs[-1].job if self.jobs and self.jobs[-1].code is None else ()

    def end(self, code: int = 0, reason: str = "") -> None:
        self.jobs[-1].end(code, reason)
        self.upkeep.poll()

    def show(self, head: Head | None, trimmed: int = 0, revision: int = 1000, is_copied: bool = True) -> None:
        self.poller.latest = Answer(head, trimmed, revision)
        if head is not None and is_copied:
            (self.copy.path / f"{head.id}.ckpt").write_bytes(bytes(head.bytes))


def head(id: str, group: int, length: int = 10) -> Head:
    return Head(id, group, group + 100, length, 1, 0)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.upkeep.close()
    bench.store.close()


def test_nothing_is_begun_before_etcd_has_said_anything(bench: Bench) -> None:
    bench.log.log_bytes = 10 * LOG_BYTES_MIN
    assert bench.poll(100.0) == ()


def test_a_log_that_has_outgrown_the_checkpoint_gets_a_new_one_after_a_while_of_its_own(bench: Bench) -> None:
    """Servers begin at different moments. Seen red without that while."""
    bench.show(None)
    bench.log.log_bytes = LOG_BYTES_MIN
    assert bench.poll() == ()
    bench.log.log_bytes += 1
    assert bench.poll(1.0) == ()
    assert bench.poll(0.4 * JITTER_S) == ()
    assert bench.poll(0.2 * JITTER_S) == ("checkpoint", "0")
    bench.end()
    bench.show(head("a", 7))
    assert bench.poll(10.0) == (), "the log counts from the new one on"
    assert bench.upkeep.describe()["log_bytes"] == 0
    assert bench.upkeep.describe()["compactions"] == 1


def test_many_groups_get_a_checkpoint_however_short_they_are(bench: Bench) -> None:
    """Seen red with a log that counts by its bytes alone."""
    bench.show(head("a", 5))
    bench.log.group = 5 + LOG_GROUPS_MIN
    bench.poll()
    assert bench.poll(JITTER_S) == ()
    bench.log.group += 1
    bench.poll()
    assert bench.poll(JITTER_S) == ("checkpoint", "5")


def test_another_server_s_checkpoint_counts_as_ones_own(bench: Bench) -> None:
    bench.show(None)
    bench.log.log_bytes = LOG_BYTES_MIN + 1
    bench.poll()
    bench.show(head("a", 7))
    assert bench.poll(10.0) == ()


def test_a_checkpoint_that_is_not_here_is_fetched(bench: Bench) -> None:
    bench.show(head("a", 7), is_copied=False)
    assert bench.poll() == ("copy",)


def test_the_log_is_trimmed_a_margin_after_a_checkpoint_was_seen(bench: Bench) -> None:
    """With etcd's revision of then, so that what came since is kept. Seen red without the margin."""
    bench.show(head("a", 7), revision=1000)
    assert bench.poll() == ()
    bench.show(head("b", 9), revision=2000)
    assert bench.poll(59.0) == ()
    assert bench.poll(1.5) == ("trim", "107", "1000")
    bench.end()
    bench.show(head("b", 9), trimmed=107, revision=3000)
    assert bench.poll(50.0) == ()
    assert bench.poll(10.0) == ("trim", "109", "2000")


def test_when_the_quota_fills_the_log_is_shortened_early_and_without_a_margin(bench: Bench) -> None:
    """Seen red with the margin kept."""
    bench.show(head("a", 7), revision=1000)
    bench.poll()
    bench.log.log_bytes = QUOTA // 32 + 1
    assert bench.poll(JITTER_S) == ()
    bench.poller.status = Status(QUOTA, int(FULL_SHARE * QUOTA) + 1, 0, False)
    assert bench.poll() == ("trim", "107", "1000")
    bench.end()
    bench.show(head("a", 7), trimmed=107)
    bench.poll(3.0)
    assert bench.poll(JITTER_S) == ("checkpoint", "7")


def test_a_small_quota_gets_a_short_log(bench: Bench) -> None:
    bench.show(None)
    bench.poller.status = Status(0, 0, 16 << 20, False)
    bench.log.log_bytes = (2 << 20) + 1
    bench.poll()
    assert bench.poll(JITTER_S) == ("checkpoint", "0")


def test_a_quota_that_is_used_up_comes_first(bench: Bench) -> None:
    bench.show(head("a", 7), is_copied=False)
    bench.poller.status = Status(QUOTA, QUOTA, 0, True)
    assert bench.poll() == ("recover",)
    assert bench.poller.is_urgent


def test_what_fails_is_tried_again_more_and_more_rarely_and_what_others_do_is_no_failure(bench: Bench) -> None:
    bench.show(head("a", 7), is_copied=False)
    for pause_s in (1.0, 2.0, 4.0):
        assert bench.poll(0.01) == ("copy",)
        bench.end(1, "no room")
        assert bench.upkeep.describe()["compaction_trouble"] == "copy: no room"
        assert bench.poll(0.9 * pause_s) == ()
        bench.poll(0.1 * pause_s)
    assert bench.upkeep.failed == 3
    bench.end(LEFT_TO_ANOTHER)
    assert bench.upkeep.failed == 3 and not bench.upkeep.completed


def test_a_backup_waits_for_a_checkpoint_that_holds_everything(bench: Bench) -> None:
    """Seen red with the checkpoint that was there."""
    bench.show(head("a", 7))
    bench.poll()
    bench.log.group = 9
    opened = bench.upkeep.request_checkpoint()
    assert opened() is None
    assert bench.poll() == ("checkpoint", "7")
    bench.end()
    bench.show(head("b", 9))
    bench.poll()
    file = opened()
    assert file is not None
    file.close()
    bench.log.group = 11
    opened = bench.upkeep.request_checkpoint()
    bench.poll(10.0)
    bench.end(1, "no room")
    with pytest.raises(errors.BackupFailed, match="no room"):
        opened()


def test_what_was_served_is_noted_when_it_has_changed(bench: Bench) -> None:
    bench.poll(1.0)
    seen = bench.copy.read_seen(NAME)
    assert seen is not None and seen.revision == 0 and seen.generation == "generation"
    requests: list[Request] = []
    assert bench.store.begin(requests, 2).sync() == []
    bench.store.table.revision = 5
    bench.poll(0.5)
    assert bench.copy.read_seen(NAME) == seen
    bench.poll(0.6)
    seen = bench.copy.read_seen(NAME)
    assert seen is not None and seen.revision == 5


def test_a_quota_that_fills_is_warned_of_once_for_each_tenth(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    for share, warnings in ((FULL_SHARE - 0.01, 0), (FULL_SHARE, 1), (FULL_SHARE + 0.05, 1), (FULL_SHARE + 0.11, 2)):
        bench.poller.status = Status(QUOTA, int(share * QUOTA) + 1, 0, False)
        for _ in range(3):
            bench.poll(1.0)
        assert len([record for record in caplog.records if "of the quota" in record.getMessage()]) == warnings
