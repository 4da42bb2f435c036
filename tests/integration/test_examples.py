"""Every program of clients/examples runs, alone and against itself, on a real server."""

from __future__ import annotations

import asyncio
import itertools
import random
import re
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.proxy import Proxy
from support.servers import PATIENCE_S, ServerProcess, wait_until

import kvzmq
from kvzmq.store import history

EXAMPLES = Path(__file__).resolve().parents[2] / "clients" / "examples"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("examples") / "data") as server:
        yield server


PATIENT = (
    "import runpy, sys, kvzmq; kvzmq.connect.__defaults__ = kvzmq.connect_async.__defaults__ = (None, 60.0); "
    "del sys.argv[0]; sys.path[0] = sys.argv[0].rpartition('/')[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
)
"""Runs a program whose calls may take a busy machine's time."""


class Program:
    """One of the programs, running; killed at the end of its `with` block."""

    def __init__(self, server: ServerProcess, name: str, *arguments: object) -> None:
        command = [
            sys.executable,
            "-c",
            PATIENT,
            str(EXAMPLES / f"{name}.py"),
            "--url",
            server.url,
            *map(str, arguments),
        ]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    def wait_for(self, line: str) -> None:
        wait_until(lambda: line in self.lines or self.process.poll() is not None, what=f"{line!r}, not {self.lines}")
        wait_until(lambda: line in self.lines or not self._reader.is_alive(), what=f"{line!r}, not {self.lines}")
        wait_until(lambda: line in self.lines, 0, what=f"{line!r}, not {self.lines}")

    def finish(self) -> list[str]:
        assert self.process.wait(PATIENCE_S) == 0, self.lines
        self._reader.join(PATIENCE_S)
        return self.lines

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        self.process.stdout.close()  # type: ignore[union-attr]


def run(server: ServerProcess, name: str, *arguments: object) -> list[str]:
    with Program(server, name, *arguments) as program:
        return program.finish()


def load(name: str) -> Any:
    if str(EXAMPLES) not in sys.path:
        sys.path.insert(0, str(EXAMPLES))
    return __import__(name)


def test_every_example_is_tested() -> None:
    text = Path(__file__).read_text()
    for path in EXAMPLES.glob("*.py"):
        assert f'"{path.stem}"' in text, path


@pytest.mark.parametrize("name", [path.stem for path in sorted(EXAMPLES.glob("*.py"))])
def test_each_example_has_help(server: ServerProcess, name: str) -> None:
    assert any("--url" in line for line in run(server, name, "--help"))


def test_each_job_is_done_once_by_one_of_many_workers(server: ServerProcess) -> None:
    jobs = [f"job {number}" for number in range(60)]
    run(server, "work_queue", "add", *jobs)
    workers = [Program(server, "work_queue", "work", "--until-empty") for _ in range(3)]
    lines = [line for worker in workers for line in worker.finish()]
    assert sorted(line for line in lines if line.startswith("job")) == sorted(jobs)
    assert sum(int(line.split()[0]) for line in lines if line.endswith("jobs done")) == 60
    with kvzmq.connect(server.url) as table:
        assert table["queue/done"] == 60
        assert list(table.keys("queue/todo/")) == list(table.keys("queue/held/")) == []


def test_the_job_of_a_dead_worker_is_anothers(server: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = load("work_queue")
    monkeypatch.setattr(queue, "HOLD_S", 600.0)  # not over while a busy machine takes the next step
    with kvzmq.connect(server.url) as client:
        table = client.namespace("deaths/")
        queue.add(table, "job")
        taken = queue.take(table, "dead")
        assert taken is not None and taken[1] == "job"
        assert queue.take(table, "alive") is None
        left_s = table.ttl(f"held/{taken[0]}")
        assert left_s is not None and left_s <= queue.HOLD_S
        table.expire(f"held/{taken[0]}", 0.05)  # as it does in time, for a worker that is dead
        wait_until(lambda: queue.take(table, "alive") is not None)
        assert not queue.finish(table, taken[0], "dead")
        assert queue.finish(table, taken[0], "alive")
        assert table["done"] == 1


def test_one_leads_and_another_takes_over_when_it_is_killed(server: ServerProcess) -> None:
    def candidate(name: str, *more: object) -> Program:
        return Program(server, "leader_lease", "--name", name, "--ttl", 10, *more)

    with candidate("a") as first:
        first.wait_for("leading, term 1")
        with candidate("b", "--rounds", 3) as second:
            assert not second.lines
            first.process.kill()
            second.wait_for("leading, term 2")
            assert second.finish()[-1] == "released"


def test_a_lease_is_one_processs_alone(server: ServerProcess) -> None:
    lease = load("leader_lease").Lease
    with kvzmq.connect(server.url) as table:
        leases = [lease(table, "role", name, 60.0) for name in "ab"]
        assert [one.acquire() for one in leases] == [True, False]
        assert leases[0].held and leases[0].renew() and not leases[1].renew()
        leases[0].release()
        assert not leases[0].held
        assert leases[1].acquire() and leases[1].term == 2


def test_a_board_shows_what_is_there_and_what_comes(server: ServerProcess) -> None:
    run(server, "sensor_board", "report", "attic", 30)
    with Program(server, "sensor_board", "watch", "--count", 4) as board:
        board.wait_for("attic 30.0 C")
        run(server, "sensor_board", "report", "kitchen", 21.5)
        board.wait_for("kitchen 21.5 C")
        with kvzmq.connect(server.url) as table:
            table.expire("sensors/attic", 0.05)
        assert board.finish()[-1] == "attic silent"


def test_a_configuration_is_changed_by_many_and_followed(server: ServerProcess) -> None:
    with Program(server, "shared_config", "follow", "--count", 2) as follower:
        wait_until(lambda: follower.lines)
        assert run(server, "shared_config", "set", "workers", 8) == ["Config(workers=8, greeting='hello', features=[])"]
        run(server, "shared_config", "set", "features", '["x"]')
        assert follower.finish()[-1] == "Config(workers=8, greeting='hello', features=['x'])"
    config = load("shared_config")
    with kvzmq.connect(server.url) as table:

        def add_one() -> None:
            for _ in range(20):
                config.change(table, lambda now: config.Config(now.workers + 1, now.greeting, now.features))

        threads = [threading.Thread(target=add_one) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
        assert config.read(table).workers == 8 + 80
    assert run(server, "shared_config", "show") == ["Config(workers=88, greeting='hello', features=['x'])"]


def test_a_cached_result_is_computed_once(server: ServerProcess) -> None:
    programs = [Program(server, "cache_decorator", 12) for _ in range(3)]
    lines = [line for program in programs for line in program.finish()]
    assert lines.count("144") == 3
    computed = [line for line in lines if re.match("computing", line)]
    assert sorted(computed) == sorted(f"computing {number}" for number in range(13))


def test_a_failed_computation_is_not_cached(server: ServerProcess) -> None:
    cached: Any = load("cache_decorator").cached
    with kvzmq.connect(server.url) as table:
        calls = []

        @cached(table, 60.0, "fails_once")  # type: ignore[untyped-decorator]  # of a file that is loaded by its path
        def half(number: int) -> int:
            calls.append(number)
            if len(calls) == 1:
                raise RuntimeError
            return number // 2

        with pytest.raises(RuntimeError):
            half(8)
        assert half(8) == half(8) == 4
        assert calls == [8, 8]


class Writer:
    """Changes rows below `f/` and elsewhere, and knows the revision of each change."""

    def __init__(self, url: str, rows: int) -> None:
        self.changes: list[tuple[int, str, int | None]] = []
        """Of the rows below `f/`, after the first `rows`: revision, key, value or None if removed."""
        self.first: dict[str, int] = {}
        self._url = url
        self._rows = rows
        self._stop = threading.Event()
        self._failed: list[BaseException] = []
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            with kvzmq.connect(self._url) as table:
                self._write(table, random.Random(7))
        except BaseException as error:
            self._failed.append(error)

    def _write(self, table: kvzmq.Client, chance: random.Random) -> None:
        state = {f"{number:05}": -1 for number in range(self._rows)}
        table.namespace("f/").insert_many(state)
        self.first = dict(state)
        for value in itertools.count():
            if self._stop.is_set():
                return
            key = f"{chance.randrange(self._rows):05}"
            if chance.random() < 0.2:
                table.insert(f"g/{key}", value)
            elif key in state and chance.random() < 0.3:
                table.remove("f/" + key)
                del state[key]
                self.changes.append((table.revision, key, None))
            else:
                table.insert("f/" + key, value)
                state[key] = value
                self.changes.append((table.revision, key, value))

    def __enter__(self) -> Writer:
        self._thread.start()
        wait_until(lambda: self.first or self._failed)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive() and not self._failed, self._failed


def fingerprint(rows: dict[str, Any]) -> int:
    return hash(frozenset(rows.items()))


def outlast_the_history(server: ServerProcess, proxy: Proxy) -> None:
    proxy.refuse()
    with kvzmq.connect(server.url) as table:
        for _ in range(history.CHANGES_KEPT // 10_000 + 1):
            table.insert_many({f"g/{number}": 0 for number in range(10_000)})
    proxy.flow()


def restart_after_compaction(server: ServerProcess, proxy: Proxy) -> None:
    proxy.refuse()
    with kvzmq.connect(server.url) as table:
        before = table.stats()["compactions"]
        table.insert_many({f"g/{number}": 0 for number in range(10_000)})
        # The first to end may have begun before; the second has the rows above in its checkpoint.
        wait_until(lambda: table.increment("g/n") and table.stats()["compactions"] >= before + 2)
    server.restart()
    proxy.flow()


@pytest.mark.parametrize("miss", [outlast_the_history, restart_after_compaction])
def test_a_follower_has_exactly_the_rows_of_each_revision(
    tmp_path: Path, miss: Callable[[ServerProcess, Proxy], None], count: Callable[[str, int], None]
) -> None:
    """Through cuts, restarts and RevisionGone, while others write; every copy that is shown is checked.

    Seen red with rows that are read before the watch begins, and with pages that are not caught up.
    """
    follower = load("follow")
    shown: list[tuple[int, int]] = []
    begun: list[int] = []
    stop = threading.Event()
    failed: list[BaseException] = []

    class Counted:
        """A table that counts the watches."""

        def __init__(self, table: kvzmq.Client) -> None:
            self._table = table

        def watch(self, prefix: str) -> kvzmq.Watch:
            begun.append(1)
            return self._table.watch(prefix)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._table, name)

    def run(url: str) -> None:
        try:
            with kvzmq.connect(url) as table:
                for revision, rows in follower.follow(Counted(table.namespace("f/"))):
                    shown.append((revision, fingerprint(rows)))
                    if stop.is_set():
                        return
        except BaseException as error:
            failed.append(error)

    def wait_for_more(found: list[Any], more: int) -> None:
        enough = len(found) + more
        wait_until(lambda: len(found) >= enough or failed, what=f"{more} more than {enough - more}")

    with (
        ServerProcess(tmp_path / "data", "--compact-after", "200") as server,
        Proxy(int(server.url.rpartition(":")[2])) as proxy,
        Writer(server.url, 3000) as writer,
    ):
        thread = threading.Thread(target=run, args=(proxy.url,), daemon=True)
        thread.start()
        for _ in range(4):
            wait_for_more(shown, 50)
            proxy.cut()
            wait_for_more(shown, 50)
            watches = len(begun)
            miss(server, proxy)
            wait_for_more(begun, watches + 1 - len(begun))
        wait_for_more(shown, 50)
        stop.set()
        thread.join(PATIENCE_S)
    assert not failed and not thread.is_alive(), failed
    assert [revision for revision, _ in shown] == sorted(revision for revision, _ in shown)
    rows, changes = dict(writer.first), deque(writer.changes)
    for revision, copy in shown:
        while changes and changes[0][0] <= revision:
            _, key, value = changes.popleft()
            rows.pop(key, None) if value is None else rows.update({key: value})
        assert copy == fingerprint(rows), f"at revision {revision}"
    count("exact copies of 3,000 rows", len(shown))
    count("times the follower began again", len(begun) - 1)


def test_a_live_configuration_goes_on_after_a_long_absence(tmp_path: Path) -> None:
    """Seen red with a thread that ended with RevisionGone."""
    config = load("shared_config")
    with (
        ServerProcess(tmp_path / "data") as server,
        Proxy(int(server.url.rpartition(":")[2])) as proxy,
        kvzmq.connect(proxy.url) as table,
    ):
        seen: list[Any] = []
        live = config.LiveConfig(table, seen.append)
        with kvzmq.connect(server.url) as other:
            proxy.refuse()
            config.change(other, lambda now: config.Config(5))
            outlast_the_history(server, proxy)
            wait_until(lambda: live.now.workers == 5)
            config.change(other, lambda now: config.Config(6))
            wait_until(lambda: live.now.workers == 6)
        # Else its thread would go on with whoever has these ports in a later test.
        live._changes.close()
        wait_until(lambda: not any("_follow" in thread.name for thread in threading.enumerate()), what="its end")


def test_a_board_goes_on_after_a_long_absence(tmp_path: Path) -> None:
    """What fell silent meanwhile is said to be silent. Seen red with RevisionGone raised."""
    board = load("sensor_board")
    with (
        ServerProcess(tmp_path / "data") as server,
        Proxy(int(server.url.rpartition(":")[2])) as proxy,
    ):

        async def main() -> list[Any]:
            async with kvzmq.connect_async(proxy.url) as table:
                found = []
                async for reading in board.readings(table.namespace("sensors/")):
                    found.append(tuple(reading))
                    if len(found) == 2:
                        proxy.refuse()
                        with kvzmq.connect(server.url) as other:
                            other.insert("sensors/new", {"celsius": 3})
                            del other["sensors/a"]
                        await asyncio.to_thread(outlast_the_history, server, proxy)
                    if len(found) == 5:
                        return found
                return found

        with kvzmq.connect(server.url) as table:
            table.insert_many({"sensors/a": {"celsius": 1}, "sensors/b": {"celsius": 2}})
        assert asyncio.run(asyncio.wait_for(main(), 2 * PATIENCE_S)) == [
            ("a", 1), ("b", 2), ("a", None), ("b", 2), ("new", 3),
        ]  # fmt: skip


def test_a_follower_prints_what_it_has(server: ServerProcess) -> None:
    with kvzmq.connect(server.url) as table:
        table.insert_many({"follow/a": 1, "follow/b": 1})
        written = table.revision
        with Program(server, "follow", "follow/", "--count", 3) as follower:
            wait_until(lambda: follower.lines)
            (shown,) = (re.fullmatch(r"revision (\d+): 2 rows", line) for line in follower.lines)
            # Rows of earlier tests may expire meanwhile.
            assert shown is not None and written <= int(shown[1]) <= table.stats()["revision"]
            table["follow/c"] = 1
            table["elsewhere"] = 1
            del table["follow/a"]
            assert [line.partition(": ")[2] for line in follower.finish()] == ["2 rows", "3 rows", "2 rows"]
