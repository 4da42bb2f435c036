"""The programs in clients/ as people start them, against the real server and against worse ones."""

from __future__ import annotations

import csv
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.fake_table_server import FakeTableServer
from support.servers import PATIENCE_S, ServerProcess, free_port, wait_until

CLIENTS = Path(__file__).resolve().parents[2] / "clients"
sys.path.insert(0, str(CLIENTS))

from HashTableClient import HashTableClient  # noqa: E402
from PerfStages import STAGES, Row  # noqa: E402

RUN_TIMEOUT_S = 600.0

STAGE_S = (0.3, 2.0, 8.0)
"""How long a stage of TestPerf lasts: longer, where clients of a busy machine had hardly any time in common."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server") / "data", bridge=True) as server:
        yield server


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path / "data", bridge=True) as server:
        yield server


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start programs of clients/; what is left of them at the end is ended."""
    started: list[subprocess.Popen[str]] = []

    def start(program: str, *arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, str(CLIENTS / f"{program}.py"), *map(str, arguments)]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, encoding="utf-8"))
        return started[-1]

    yield start
    for process in started:
        process.terminate()  # not kill: TestPerf ends its copies
        process.communicate(timeout=RUN_TIMEOUT_S)


@pytest.fixture
def run(start: Callable[..., subprocess.Popen[str]]) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        return finish(start(program, *arguments))

    return run


def finish(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    output, messages = process.communicate(timeout=RUN_TIMEOUT_S)
    return subprocess.CompletedProcess(process.args, process.returncode, output, messages)


def name_of(server: ServerProcess) -> str:
    return f"127.0.0.1:{server.port}"


def connect(server: ServerProcess) -> HashTableClient:
    """Return a client that tries again after a moment instead of after a second."""
    return HashTableClient(name_of(server), give_up_s=PATIENCE_S, pause=lambda _: None, tell=lambda _: None)


def size_of(server: ServerProcess) -> int:
    with connect(server) as table:
        return table.size()


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# ---- TestBasics -----------------------------------------------------------------------------------


def test_basics_passes_again_and_again_on_a_table_that_holds_other_things(server: ServerProcess, run: Any) -> None:
    with connect(server) as table:
        table.insert("others", {"name": "fred", "key": "k"})
        before = table.size()
        for _ in range(2):
            result = run("TestBasics", name_of(server))
            assert result.returncode == 0, result.stdout + result.stderr
            *lines, summary = result.stdout.splitlines()
            assert len(lines) > 50 and all(line.startswith("ok    ") for line in lines)
            assert summary == f"{len(lines)} checks: {len(lines)} ok"
        assert table.size() == before
        table.remove("others")


def test_several_basics_at_once_do_not_disturb_each_other(server: ServerProcess, start: Any) -> None:
    before = size_of(server)
    programs = [start("TestBasics", name_of(server)) for _ in range(3)]
    for result in map(finish, programs):
        assert result.returncode == 0, result.stdout
        assert "FAIL" not in result.stdout
    assert size_of(server) == before


def test_basics_names_what_failed_and_says_so_in_its_exit_status(run: Any) -> None:
    class KeepsFirst(FakeTableServer):
        def do_insert(self, request: dict[str, Any]) -> None:
            self.rows.setdefault(request["key"], request["value"])

    with KeepsFirst() as wrong:
        result = run("TestBasics", wrong.name)
    assert result.returncode == 1
    assert re.search(r"^FAIL  insert overwrites, whatever was there: got .* instead of", result.stdout, re.MULTILINE)
    assert re.search(r"^\d+ checks: \d+ ok, \d+ FAIL$", result.stdout.splitlines()[-1])


def test_basics_ends_when_no_server_comes(run: Any) -> None:
    result = run("TestBasics", f"127.0.0.1:{free_port()}", "--give-up", 0.1)
    assert result.returncode == 1
    assert result.stdout.startswith("FAIL  Unreachable: gave up on")


# ---- TestPerf: one client -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bridge", "dealer", "plain course server"])
def test_perf_prints_figures_of_every_operation_and_leaves_no_rows(
    kind: str, server: ServerProcess, run: Any, tmp_path: Path
) -> None:
    before = size_of(server)
    with FakeTableServer(sessions=False) as plain:
        where = {
            "bridge": [name_of(server)],
            "dealer": ["--dealer", server.url],
            "plain course server": [plain.name],
        }
        result = run("TestPerf", *where[kind], "-n", 50, "--csv", tmp_path / "rows.csv")
        assert plain.rows == {}
    assert result.returncode == 0, result.stderr
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[2] == [
        "operation",
        "ops",
        "seconds",
        "ops/s",
        "mean",
        "ms",
        "p50",
        "ms",
        "p99",
        "ms",
        "max",
        "ms",
    ]
    assert [line[:2] for line in lines[3:8]] == [[stage, "50"] for stage in STAGES]
    rows = read_csv(tmp_path / "rows.csv")
    assert tuple(rows[0]) == Row._fields
    assert [row["operation"] for row in rows] == list(STAGES)
    for row in rows:
        assert row["transport"] == ("dealer" if kind == "dealer" else "bridge")
        assert (row["clients"], row["client"], row["operations"], row["done"]) == ("1", "1", "50", "50")
        assert float(row["ops_per_s"]) == pytest.approx(50 / float(row["seconds"]))
        assert 0 < float(row["p50_ms"]) <= float(row["p99_ms"]) <= float(row["max_ms"])
        assert float(row["end_s"]) - float(row["start_s"]) == pytest.approx(float(row["seconds"]), abs=0.01)
    assert size_of(server) == before


def test_perf_gives_its_rows_as_json_and_nothing_else_on_standard_output(server: ServerProcess, run: Any) -> None:
    result = run("TestPerf", name_of(server), "-n", 20, "--json")
    rows = json.loads(result.stdout)
    assert [tuple(row) for row in rows] == [Row._fields] * len(STAGES)


def test_perf_gives_its_rows_as_csv_on_standard_output_alone(server: ServerProcess, run: Any) -> None:
    result = run("TestPerf", name_of(server), "-n", 20, "--csv", "-")
    assert [row["operation"] for row in csv.DictReader(result.stdout.splitlines())] == list(STAGES)


def test_perf_stops_at_a_row_that_was_lost(run: Any) -> None:
    class Forgets(FakeTableServer):
        def do_size(self, request: dict[str, Any]) -> int:
            self.rows.popitem()
            return 1_000_000

    with Forgets() as wrong:
        result = run("TestPerf", wrong.name, "-n", 20)
    assert result.returncode == 1
    assert "TestPerf: client 1: " in result.stderr and "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [[], ["NAME", "--dealer", "tcp://x:1"], ["NAME", "-n", "0"], ["NAME", "--seconds", "0"], ["NAME", "--sweep", "1,x"],
     ["NAME", "--copies", "2"], ["NAME", "--client", "a/b"], ["NAME", "-n", "1", "--seconds", "1"],
     ["NAME", "--clients", "1", "--sweep", "1"]],
)  # fmt: skip
def test_perf_refuses_options_that_make_no_sense(arguments: list[str], run: Any) -> None:
    result = run("TestPerf", *arguments)
    assert result.returncode == 2 and "usage:" in result.stderr


def test_perf_says_in_one_line_why_a_dealer_gave_up(run: Any) -> None:
    result = run("TestPerf", "--dealer", "tcp://127.0.0.1:1", "--give-up", 0.5)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "TestPerf: client 1: Timeout: no answer in time: no connection to tcp://127.0.0.1:1" in result.stderr


# ---- TestPerf: several clients --------------------------------------------------------------------


def test_perf_adds_up_several_clients_over_the_window_they_share(
    server: ServerProcess, run: Any, tmp_path: Path
) -> None:
    """Seen red with sums of rates that were taken each over its client's own run."""
    before = size_of(server)
    for seconds in STAGE_S[1:]:
        result = run("TestPerf", name_of(server), "--clients", 3, "--seconds", seconds, "--csv", tmp_path / "rows.csv")
        assert result.returncode == 0, result.stderr
        assert result.stderr.splitlines()[0] == "3 clients: insert lookup size query remove"
        found = read_csv(tmp_path / "rows.csv")
        if all(int(row["operations"]) for row in found):
            break
    stages = [list(rows) for _, rows in itertools.groupby(found, lambda row: row["operation"])]
    assert [rows[0]["operation"] for rows in stages] == list(STAGES)
    for *rows, total in stages:
        assert [row["client"] for row in (*rows, total)] == ["1", "2", "3", "sum"]
        assert len({row["seconds"] for row in rows}) == 1
        assert float(total["seconds"]) == pytest.approx(float(rows[0]["seconds"]))
        counted = [int(row["operations"]) for row in rows]
        assert int(total["operations"]) == sum(counted)
        done = [int(row["done"]) for row in rows]
        assert int(total["done"]) == sum(done)
        assert all(0 < some <= all_ for some, all_ in zip(counted, done, strict=True))
        assert float(total["ops_per_s"]) == pytest.approx(sum(float(row["ops_per_s"]) for row in rows))
        assert float(total["max_ms"]) == max(float(row["max_ms"]) for row in rows)
    assert size_of(server) == before


def test_perf_sweeps_numbers_of_clients_and_says_where_the_sums_level_off(
    server: ServerProcess, run: Any, tmp_path: Path
) -> None:
    for seconds in STAGE_S:
        result = run(
            "TestPerf", name_of(server), "--sweep", "2,1", "--seconds", seconds, "--csv", tmp_path / "rows.csv"
        )
        assert result.returncode == 0, result.stderr
        last = [line.split() for line in result.stdout.split("Sums, operations/s\n\n")[1].splitlines() if line]
        assert [line[0] for line in last] == ["clients", "1", "2", "levels"]
        rows = read_csv(tmp_path / "rows.csv")
        assert [row["clients"] for row in rows if row["client"] == "sum"] == ["1"] * 5 + ["2"] * 5
        windows_s = [float(row["seconds"]) for row in rows if row["operation"] != "remove"]  # it may run out of keys
        if min(windows_s) > seconds / 6:
            return
    raise AssertionError(f"clients that begin together share a window of {min(windows_s)} s of {seconds}")


def test_perf_copies_started_by_hand_meet_and_share_their_windows(
    server: ServerProcess, start: Any, tmp_path: Path
) -> None:
    meeting = ["-n", 200, "--barrier", tmp_path / "meeting", "--copies", 2]
    copies = [
        start("TestPerf", name_of(server), *meeting, "--client", label, "--csv", tmp_path / f"{label}.csv")
        for label in ("left", "right")
    ]
    for result in map(finish, copies):
        assert result.returncode == 0, result.stderr
    left, right = (read_csv(tmp_path / f"{label}.csv") for label in ("left", "right"))
    assert [row["seconds"] for row in left] == [row["seconds"] for row in right]
    assert {row["client"] for row in left} == {"left"} and {row["clients"] for row in left} == {"2"}


def test_perf_copies_that_fail_end_the_others(start: Any, tmp_path: Path) -> None:
    """One copy finds a table that loses rows: the other, whose table is fine, must not wait for it."""

    class Forgets(FakeTableServer):
        def do_size(self, request: dict[str, Any]) -> int:
            return 0

    meeting = ["-n", 20, "--barrier", tmp_path / "meeting", "--copies", 2]
    with Forgets() as wrong, FakeTableServer() as right:
        copies = [
            start("TestPerf", table.name, *meeting, "--client", label)
            for table, label in ((wrong, "wrong"), (right, "right"))
        ]
        wrong_result, right_result = map(finish, copies)
        assert right.rows == {}
    assert "client wrong: WrongResult: size is less than" in wrong_result.stderr
    assert "client right: CopyFailed: wrong-" in right_result.stderr
    assert wrong_result.returncode == right_result.returncode == 1


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_perf_ends_when_one_of_its_copies_is_killed(server: ServerProcess, start: Any) -> None:
    program = start("TestPerf", name_of(server), "--clients", 2, "--seconds", 1)
    wait_until(lambda: len(children_of(program.pid)) == 2)
    os.kill(children_of(program.pid)[0], signal.SIGKILL)
    result = finish(program)
    assert result.returncode == 1
    assert "CopyFailed" in result.stderr


def test_perf_takes_its_copies_with_it_when_it_is_terminated(server: ServerProcess, start: Any) -> None:
    program = start("TestPerf", name_of(server), "--clients", 2, "--seconds", 60)
    wait_until(lambda: len(children_of(program.pid)) == 2)
    copies = children_of(program.pid)
    program.terminate()
    assert finish(program).returncode == 143
    assert not any(Path(f"/proc/{copy}").exists() for copy in copies)


# ---- a server that is killed ----------------------------------------------------------------------


def test_perf_outlasts_a_server_that_is_killed_and_started_again(own_server: ServerProcess, start: Any) -> None:
    program = start("TestPerf", name_of(own_server), "--clients", 2, "--seconds", 5)
    wait_until(lambda: size_of(own_server) > 0)
    own_server.restart()
    result = finish(program)
    assert result.returncode == 0, result.stderr
    assert "trying again in 1 s" in result.stderr
    assert size_of(own_server) == 0


class CutsReplies:
    """A relay in front of the server that swallows the next reply, if told to, and closes the connection."""

    def __init__(self, port: int) -> None:
        self._server = ("127.0.0.1", port)
        self.swallow_next = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._relay, args=(client,), daemon=True).start()

    def _relay(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._server) as server, client.makefile("rb") as requests:
            replies = server.makefile("rb")
            for request in requests:
                server.sendall(request)
                reply = replies.readline()
                if self.swallow_next:
                    self.swallow_next = False
                    return
                client.sendall(reply)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def relay(own_server: ServerProcess) -> Iterator[CutsReplies]:
    relay = CutsReplies(own_server.port)
    yield relay
    relay.close()


def test_a_remove_whose_reply_was_lost_succeeds_also_after_a_restart(
    own_server: ServerProcess, relay: CutsReplies
) -> None:
    """The server was killed in between: what it answers the second time it has read from its log."""
    told: list[str] = []
    with HashTableClient(f"127.0.0.1:{relay.port}", pause=lambda _: own_server.restart(), tell=told.append) as table:
        table.insert("a", 1)
        relay.swallow_next = True
        table.remove("a")
        assert len(told) == 1 and own_server.starts == 2
        with pytest.raises(KeyError):
            table.remove("a")


def test_a_session_that_the_server_does_not_know_is_replaced(own_server: ServerProcess) -> None:
    with connect(own_server) as table:
        table.insert("a", 1)
        table.size()
        own_server.kill()
        shutil.rmtree(own_server.data)
        own_server.start()
        assert table.size() == 0  # reconnects, so that the write below is sent once
        table.insert("b", 2)
        assert table.lookup("b") == 2


# ---- TestOutliers ---------------------------------------------------------------------------------


@pytest.fixture
def compacting_server(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path / "data", "--compact-after", "100", bridge=True) as server:
        yield server


def test_outliers_are_reported_through_several_compactions(compacting_server: ServerProcess, run: Any) -> None:
    result = run(
        "TestOutliers", name_of(compacting_server), "-n", 6001
    )  # long enough for three, however fast the machine
    assert result.returncode == 0, result.stderr
    fastest, slowest = result.stdout.splitlines()[:2]
    assert re.fullmatch(r"fastest: \d+\.\d{3} ms, (insert|remove), operation \d+", fastest)
    assert re.fullmatch(r"slowest: \d+\.\d{3} ms, (insert|remove), operation \d+", slowest)
    with connect(compacting_server) as table:
        assert table.call({"method": "stats"})["compactions"] >= 3
        assert table.size() == 0


def test_outliers_are_given_as_json(compacting_server: ServerProcess, run: Any) -> None:
    figures = json.loads(run("TestOutliers", name_of(compacting_server), "-n", 200, "--json").stdout)
    assert figures["operations"] == 200
    assert figures["fastest"]["ms"] <= figures["percentiles_ms"]["p50"] <= figures["slowest"][0]["ms"]
    assert len(figures["slowest"]) == len(figures["parts"]) == 10


def test_outliers_ends_with_a_message_when_no_server_comes(run: Any) -> None:
    result = run("TestOutliers", f"127.0.0.1:{free_port()}", "--give-up", 0.1)
    assert result.returncode == 1
    assert result.stderr.startswith("TestOutliers: Unreachable: ")
