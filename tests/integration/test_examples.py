"""Every program of clients/examples runs, alone and against itself, on a real server."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import ServerProcess, wait_until

import kvzmq

EXAMPLES = Path(__file__).resolve().parents[2] / "clients" / "examples"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("examples") / "data") as server:
        yield server


class Program:
    """One of the programs, running; killed at the end of its `with` block."""

    def __init__(self, server: ServerProcess, name: str, *arguments: object) -> None:
        command = [sys.executable, str(EXAMPLES / f"{name}.py"), "--url", server.url, *map(str, arguments)]
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
        wait_until(lambda: line in self.lines, 1, what=f"{line!r}, not {self.lines}")

    def finish(self) -> list[str]:
        assert self.process.wait(60) == 0, self.lines
        self._reader.join(10)
        return self.lines

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(10)
        self._reader.join(10)
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


def test_the_job_of_a_dead_worker_is_anothers(server: ServerProcess) -> None:
    queue = load("work_queue")
    queue.HOLD_S = 0.3
    with kvzmq.connect(server.url) as client:
        table = client.namespace("deaths/")
        queue.add(table, "job")
        taken = queue.take(table, "dead")
        assert taken is not None and taken[1] == "job"
        assert queue.take(table, "alive") is None
        wait_until(lambda: queue.take(table, "alive") is not None)
        assert not queue.finish(table, taken[0], "dead")
        assert queue.finish(table, taken[0], "alive")
        assert table["done"] == 1


def test_one_leads_and_another_takes_over_when_it_is_killed(server: ServerProcess) -> None:
    def candidate(name: str, *more: object) -> Program:
        return Program(server, "leader_lease", "--name", name, "--ttl", 0.5, *more)

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
            thread.join(60)
        assert config.read(table).workers == 8 + 80
    assert run(server, "shared_config", "show") == ["Config(workers=88, greeting='hello', features=['x'])"]


def test_a_cached_result_is_computed_once(server: ServerProcess) -> None:
    programs = [Program(server, "cache_decorator", 12) for _ in range(3)]
    lines = [line for program in programs for line in program.finish()]
    assert lines.count("144") == 3
    computed = [line for line in lines if re.match("computing", line)]
    assert sorted(computed) == sorted(f"computing {number}" for number in range(13))


def test_a_failed_computation_is_not_cached(server: ServerProcess) -> None:
    cached = load("cache_decorator").cached
    with kvzmq.connect(server.url) as table:
        calls = []

        @cached(table, 60.0, "fails_once")
        def half(number: int) -> int:
            calls.append(number)
            if len(calls) == 1:
                raise RuntimeError
            return number // 2

        with pytest.raises(RuntimeError):
            half(8)
        assert half(8) == half(8) == 4
        assert calls == [8, 8]
