"""`kvzmq bench` against a real server: what it prints, and that it leaves nothing behind."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from support.servers import ServerProcess, free_port

import kvzmq
from kvzmq.bench.load import Load, operation
from kvzmq.bench.workload import TESTS
from kvzmq.cli import main


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("bench") / "data") as running:
        yield running


def bench(url: str, *options: str) -> Result:
    return CliRunner().invoke(main, ["-c", url, "bench", *options])


def test_every_test_runs_and_leaves_nothing_behind(server: ServerProcess) -> None:
    with kvzmq.connect(server.url) as table:
        table.insert("mine", 1)
        result = bench(server.url, "-n", "60", "-c", "3", "-r", "40", "-q")
        assert result.exit_code == 0, result.output
        assert [line.split(":")[0] for line in result.stdout.splitlines()] == list(TESTS)
        assert all("requests per second, p50=" in line for line in result.stdout.splitlines())
        assert "NoSuchKey" not in result.stdout
        assert list(table) == ["mine"]


def test_csv_has_the_columns_of_redis_benchmark(server: ServerProcess) -> None:
    result = bench(server.url, "-n", "30", "-c", "2", "-t", "insert,lookup", "--csv")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [row["test"] for row in rows] == ["insert", "lookup"]
    for row in rows:
        assert list(row) == [
            "test",
            "rps",
            *(f"{name}_latency_ms" for name in ("avg", "min", "p50", "p95", "p99", "max")),
        ]
        assert float(row["rps"]) > 0
        assert 0 < float(row["min_latency_ms"]) <= float(row["p50_latency_ms"]) <= float(row["max_latency_ms"])


def test_the_long_form_ends_with_rate_and_latencies(server: ServerProcess) -> None:
    text = bench(server.url, "-n", "25", "-c", "2", "-P", "10", "-d", "100", "-t", "insert").stdout
    assert "25 requests completed" in text
    assert "100 bytes payload" in text
    assert "10 operations in a request" in text
    assert "transport: pyzmq, bare DEALER sockets of libzmq's; no kvzmq client" in text
    heads, figures = text.rstrip().splitlines()[-2:]
    assert heads.split() == ["avg", "min", "p50", "p95", "p99", "max"]
    assert len([float(figure) for figure in figures.split()]) == 6


def test_a_report_has_a_table_for_each_test_and_plots(server: ServerProcess, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    target = tmp_path / "mine.md"
    assert bench(server.url, "-n", "20", "-c", "3", "-t", "lookup,size", "--report", str(target)).exit_code == 0
    text = target.read_text()
    assert "| clients | lookup | size |" in text
    assert "## Latency of lookup, milliseconds" in text
    assert [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| 3 ")] == ["3"] * 3
    for plot in ("mine-throughput.svg", "mine-latency.svg"):
        assert plot in text
        assert (tmp_path / plot).read_text().startswith("<?xml")


def test_an_unknown_test_is_refused() -> None:
    result = bench("tcp://127.0.0.1:1", "-t", "insert,mget")
    assert result.exit_code == 2
    assert "no test mget" in result.output


def test_no_server_is_reported_and_not_waited_for_long() -> None:
    result = CliRunner().invoke(
        main, ["-c", f"tcp://127.0.0.1:{free_port()}", "--timeout", "2", "bench", "-t", "ping", "-n", "1"]
    )
    assert result.exit_code == 4


def test_a_load_keeps_its_requests_in_flight_and_counts_what_fails(server: ServerProcess) -> None:
    with Load(server.url, clients=2, in_flight=4) as load:
        requests = [[operation("insert", f"load-{n}", n), operation("lookup", "absent")] for n in range(30)]
        measured = load.run(requests)
        assert (measured.operations, len(measured.latencies_ns), measured.failed) == (60, 30, {1: 30})
        assert load.run([[operation("remove", f"load-{n}")] for n in range(30)]).failed == {}


def test_a_load_ends_in_time(server: ServerProcess) -> None:
    with Load(server.url) as load:
        for seconds in (0.05, 0.5, 5.0, 50.0):  # a busy machine may answer nothing in so short a time
            measured = load.run(iter(lambda: [operation("ping")], None), seconds=seconds)
            assert measured.seconds == pytest.approx(seconds, abs=0.01)
            if measured.operations:
                break
        assert measured.operations > 0
