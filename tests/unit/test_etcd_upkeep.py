"""When the upkeep of a table in etcd does what: no etcd, no process, and a clock that the test moves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw
from support.fake_keys import FakeKeys
from support.servers import wait_until
from support.shared_log import SharedGroups, SharedLog

from kvzmq import errors
from kvzmq.protocol import msgpack, operations
from kvzmq.protocol.messages import Request
from kvzmq.store.etcd.checkpoints import CHUNK_BYTES, Head, chunk_key, lock_key
from kvzmq.store.etcd.client import EtcdError
from kvzmq.store.etcd.local_copy import LocalCopy
from kvzmq.store.etcd.members import TOLD_S_MAX, MemberStates
from kvzmq.store.etcd.poller import Answer, Measured, Poller
from kvzmq.store.etcd.reserve import GROUP_BYTES, Reserve, slack_bytes, stored_bytes, with_margin
from kvzmq.store.etcd.space import FULL_SHARE, QUOTA_BYTES, Status
from kvzmq.store.etcd.upkeep import (
    JITTER_S,
    LEFT_TO_ANOTHER,
    LOG_BYTES_MIN,
    LOG_GROUPS_MIN,
    ROOM_CHECKPOINTS,
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

    def __init__(self) -> None:
        self.reserve = Reserve()

    @property
    def stored_bytes(self) -> int:
        return self.log_bytes

    def describe(self) -> dict[str, Any]:
        return {"etcd_member": "h:1"}


class StillPoller(Poller):
    """What etcd says is what the test sets."""

    def start(self) -> None:
        """Ask nobody."""


class Bench:
    """An Upkeep, and what there is around it."""

    def __init__(self, path: Path, quota_bytes: int = QUOTA, **options: Any) -> None:
        self.now_s = 0.0
        self.jobs: list[Child] = []
        self.log = Watched()
        self.store = Store(SharedLog(SharedGroups()))
        self.store.recover()
        self.store.begin_epoch(1)
        self.copy = LocalCopy(path)
        self.poller = StillPoller(FakeKeys(), Any, NAME)  # type: ignore[arg-type]
        self.upkeep = Upkeep(
            self.store, self.log, self.poller, self.copy, Settings(["h:1"], NAME, str(path), quota_bytes=quota_bytes),
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

    def measure(self, status: Status, stored_bytes: int | None = None, written_bytes: int = 0) -> None:
        """Let the members say how large their files are."""
        stored_bytes = self.log.stored_bytes if stored_bytes is None else stored_bytes
        self.poller.measured = Measured(status, stored_bytes, written_bytes)

    def show(self, head: Head | None, trimmed: int = 0, revision: int = 1000, is_copied: bool = True) -> None:
        self.poller.latest = Answer(head, trimmed, revision)
        if head is not None and is_copied:
            with (self.copy.path / f"{head.id}.ckpt").open("wb") as file:
                file.truncate(head.bytes)


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
    bench.measure(Status(int(FULL_SHARE * QUOTA) + 1, int(FULL_SHARE * QUOTA) + 1, 0, False))
    assert bench.poll() == ("trim", "107", "1000")
    bench.end()
    bench.show(head("a", 7), trimmed=107)
    bench.poll(3.0)
    assert bench.poll(JITTER_S) == ("checkpoint", "7")


def test_a_small_quota_gets_a_short_log(bench: Bench) -> None:
    bench.show(None)
    bench.measure(Status(0, 0, 16 << 20, False))
    bench.log.log_bytes = (2 << 20) + 1
    bench.poll()
    assert bench.poll(JITTER_S) == ("checkpoint", "0")


def test_a_quota_that_is_used_up_comes_first(bench: Bench) -> None:
    bench.show(head("a", 7), is_copied=False)
    bench.measure(Status(QUOTA, QUOTA, 0, True))
    assert bench.poll() == ("recover",)
    assert bench.poller.is_urgent


def test_changes_are_refused_while_there_is_room_for_a_checkpoint_and_one_is_written(bench: Bench) -> None:
    """And taken again when there is room for more. What was appended since the members were asked counts, and what is
    there already of a checkpoint that is being written. Seen red without each.
    """
    reserve, length = bench.log.reserve, QUOTA // 4
    bench.show(head("a", 7, length), trimmed=107)
    bench.log.group = 9
    file_bytes = QUOTA // 2
    room = QUOTA - file_bytes - with_margin(length) - slack_bytes(QUOTA)
    bench.measure(Status(file_bytes, file_bytes, QUOTA, False))
    assert bench.poll() == ()
    assert bench.upkeep.describe()["etcd_room_bytes"] == room
    reserve.admit(room)
    with pytest.raises(errors.WriteRejected, match="room that the next checkpoint needs"):
        reserve.admit(room + 1)
    with pytest.raises(errors.WriteRejected):
        reserve.admit(0)  # what is refused once is not let in because it is shorter
    bench.poll()
    reserve.admit(0)
    bench.log.log_bytes = room
    slack = slack_bytes(QUOTA)
    sizes = (with_margin(length), with_margin(length) + 2 * slack, 2 * slack)
    assert bench.poll() == ("shorten", "9", *map(str, sizes))
    assert bench.poller.is_urgent and bench.upkeep.describe()["etcd_room_bytes"] == 0
    with pytest.raises(errors.WriteRejected):
        reserve.admit(0)
    bench.measure(Status(file_bytes, file_bytes, QUOTA, False), written_bytes=slack_bytes(QUOTA))
    bench.end()
    reserve.admit(room)


def test_changes_are_taken_again_when_there_is_room_for_more_than_a_handful(bench: Bench) -> None:
    full = QUOTA - slack_bytes(QUOTA)
    for in_use_bytes, is_used_up in ((full - (1 << 20), False), (full, True), (full - (1 << 20), True)):
        bench.measure(Status(in_use_bytes, in_use_bytes, QUOTA, False))
        bench.poll()
        assert bench.log.reserve.is_used_up is is_used_up
    bench.measure(Status(full - 1, full - slack_bytes(QUOTA) - (1 << 20), QUOTA, False))
    bench.poll()
    assert not bench.log.reserve.is_used_up, "free pages are used again"


def test_a_file_that_has_grown_to_the_quota_takes_no_changes_though_pages_are_free(bench: Bench) -> None:
    """etcd compares its length. Seen red with free pages counted in any case."""
    for file_bytes, is_used_up in ((QUOTA - slack_bytes(QUOTA) - 1, False), (QUOTA - slack_bytes(QUOTA), True)):
        bench.measure(Status(file_bytes, 0, QUOTA, False))
        bench.poll()
        assert bench.log.reserve.is_used_up is is_used_up


def test_where_two_more_checkpoints_have_no_room_one_is_written_early(bench: Bench) -> None:
    """Until it is compacted the one before it takes room as well. Seen red without."""
    length = QUOTA // 8
    bench.show(head("a", 7, length), trimmed=107)
    taken = with_margin(length) + slack_bytes(QUOTA) + int(ROOM_CHECKPOINTS * length)
    bench.measure(Status(0, QUOTA - taken - (QUOTA // 32 + 1), QUOTA, False))
    bench.poll()
    bench.log.log_bytes = QUOTA // 32
    bench.poll()
    assert bench.poll(JITTER_S) == ()
    bench.log.log_bytes += 2
    bench.poll()
    assert bench.poll(JITTER_S) == ("checkpoint", "7")


def test_a_file_longer_than_the_quota_that_etcd_has_by_default_shows_that_it_has_another(tmp_path: Path) -> None:
    """Members before 3.6 do not tell theirs. Seen red with changes refused."""
    for told, given, is_used_up in (
        (0, QUOTA_BYTES, False),
        (0, QUOTA_BYTES + 1, True),
        (QUOTA_BYTES, QUOTA_BYTES, True),
    ):
        bench = Bench(tmp_path, quota_bytes=given)
        bench.measure(Status(QUOTA_BYTES, 0, told, False))
        bench.poll()
        assert bench.log.reserve.is_used_up
        bench.measure(Status(QUOTA_BYTES + 1, 0, told, False))
        bench.poll()
        assert bench.log.reserve.is_used_up is is_used_up
        bench.upkeep.close()


def test_before_a_member_has_told_its_size_changes_are_taken(bench: Bench) -> None:
    bench.log.log_bytes = 10 * QUOTA
    bench.poll()
    bench.log.reserve.admit(11 * QUOTA)


def test_a_checkpoint_is_about_as_long_as_the_store_says(tmp_path: Path) -> None:
    """Rows of every kind, times to live, and cached replies."""
    store = Store(SharedLog(SharedGroups()))
    store.recover()
    store.begin_epoch(1)
    for number in range(2000):
        value = "v" * (number % 300)
        ops: list[Any] = [operations.Insert(f"key {number}", Raw(msgpack.encode_value(value)))]
        if number % 3 == 0:
            ops = [operations.Insert(f"key {number}", Raw(msgpack.encode_value(value)), ttl_s=60.0)]
        request = msgpack.decode_request(msgpack.encode_request(b"s" * 16, number + 1, ops))
        assert isinstance(request, Request)
        group = store.begin([request], 2)
        group.execute(request)
        group.sync()
    length = sum(map(len, store.table.dump()))
    assert length <= store.dumped_bytes <= 1.5 * length


def test_a_poll_counts_the_pieces_of_a_checkpoint_that_is_being_written() -> None:
    keys = FakeKeys()
    asked = Answering(a=Status(8, 5, 9, False), b=Status(9, 5, 9, False))
    poller = Poller(keys, asked, NAME, lambda: 4711)  # type: ignore[arg-type]

    def measured() -> Measured | None:
        return poller.measure(poller.ask())

    assert measured() == Measured(Status(9, 5, 9, False), 4711, 0)
    asked.statuses["b"] = None
    keys.transact([], put=[(lock_key(NAME), b"one"), *((chunk_key(NAME, "one", n), b"") for n in range(2))])
    again = measured()
    assert again == Measured(Status(9, 5, 9, False), 4711, 2 * CHUNK_BYTES), "what a member has told last counts"
    keys.transact([], put=[(chunk_key(NAME, "one", n), b"") for n in range(2, 5)])
    assert measured() is not None and poller.measure(poller.ask()).written_bytes == 5 * CHUNK_BYTES  # type: ignore[union-attr]
    keys.transact([], put=[(lock_key(NAME), b"two"), (chunk_key(NAME, "two", 0), b"")])
    assert poller.measure(poller.ask()).written_bytes == CHUNK_BYTES  # type: ignore[union-attr]


class Answering:
    """Members that tell what the test says, or nothing."""

    def __init__(self, **statuses: Status | None) -> None:
        self.statuses = statuses
        self.addresses = tuple(statuses)

    def status(self, address: str) -> Status:
        status = self.statuses[address]
        if status is None:
            raise EtcdError("it does not answer")
        return status


def at(applied: int, **others: Any) -> Status:
    return Status(9, 5, 9, False, version="3.4.23", applied=applied, **others)


def test_members_are_told_of_one_by_one() -> None:
    """How long one is silent, and by how much it is behind what another one had applied a poll before. Seen red with
    entries compared that came after a member was asked.
    """
    now_s = 100.0
    asked = Answering(a=at(50, leads=True), b=at(40), c=None)
    states = MemberStates(asked, lambda: now_s)  # type: ignore[arg-type]
    assert states.describe() == {} and states.largest() is None
    states.ask()
    told = states.describe()
    assert (told["etcd_members_total"], told["etcd_members_alive"]) == (3, 2)
    assert told["etcd_members"]["c"] == {"silent_s": 0.0}
    assert told["etcd_members"]["b"]["behind"] == 0, "they were not asked at the same moment"
    now_s += 10
    asked.statuses |= {"a": at(90, leads=True), "b": at(45, is_corrupt=True)}
    states.ask()
    told = states.describe()
    assert told["etcd_members"]["c"] == {"silent_s": 10.0} and told["etcd_corrupt"] and told["etcd_has_leader"]
    assert [told["etcd_members"][name]["behind"] for name in "ab"] == [0, 5]
    assert [told["etcd_members"][name]["leads"] for name in "ab"] == [True, False]
    now_s += 10
    asked.statuses |= {"a": None, "b": at(90, has_leader=False), "c": at(1)}
    states.ask()
    told = states.describe()
    assert told["etcd_members"]["a"]["silent_s"] == 10.0 and told["etcd_members"]["c"]["silent_s"] == 0.0
    assert told["etcd_members"]["a"]["version"] == "3.4.23", "what it has said last"
    assert told["etcd_members_alive"] == 2 and told["etcd_has_leader"] and not told["etcd_corrupt"]
    asked.statuses |= {"b": at(91, has_leader=False), "c": None}
    now_s += TOLD_S_MAX
    states.ask()
    assert not states.describe()["etcd_has_leader"] and states.largest() == at(91, has_leader=False)


def test_members_tell_of_themselves_while_etcd_answers_nothing_else() -> None:
    """As when there is no leader."""
    keys = FakeKeys()

    def refuse(call: str) -> None:
        raise EtcdError("no leader")

    keys.before = refuse
    poller = Poller(keys, Answering(a=at(1, has_leader=False)), NAME)  # type: ignore[arg-type]
    poller.start()
    wait_until(lambda: bool(poller.members.describe()), what="a member's answer")
    poller.close()
    assert poller.trouble == "no leader" and poller.members.describe()["etcd_has_leader"] is False


def test_a_group_counts_with_what_it_takes_beside_its_bytes() -> None:
    assert stored_bytes(1000, 3) == 1000 + 3 * GROUP_BYTES


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
        bench.measure(Status(int(share * QUOTA) + 1, int(share * QUOTA) + 1, 0, False))
        for _ in range(3):
            bench.poll(1.0)
        assert len([record for record in caplog.records if "of the quota" in record.getMessage()]) == warnings
