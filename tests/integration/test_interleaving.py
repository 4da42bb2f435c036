"""That requests of many clients interleave and each executes alone: from the trace of a real run."""

from __future__ import annotations

import io
import itertools
import json
import random
import re
import socket
import subprocess
import threading
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest
from support.servers import KVZMQ, PATIENCE_S, ServerProcess
from support.wire import WireClient

from kvzmq.tracing import interleaving
from kvzmq.tracing.trace import Line

CLIENTS = 6
BRIDGE_CLIENTS = 3
WINDOW = 8


def converse(url: str, requests: int, seed: int, tally: dict[int, int]) -> None:
    """Keep a window of requests in flight, as an asyncio client does."""
    dice = random.Random(seed)
    with WireClient(url) as client:
        client.open()
        sent = received = 0
        while received < requests:
            while sent < requests and sent - received < WINDOW:
                key = f"{seed}/{sent % 50}"
                client.send(dice.choice([
                    ["insert", key, {"seed": seed, "n": sent}], ["insert", key, sent], ["lookup", key], ["remove", key],
                    ["size"], ["query", "n", sent - 1], ["increment", "shared"],
                    ["insert_many", {key: 1, key + "b": 2}], ["insert", key, "brief", 0.02],
                ]))  # fmt: skip
                sent += 1
            assert client.receive().results[0][0] in (0, 1, 2)
            received += 1
        tally[seed] = received + 1


def converse_by_line(port: int, requests: int, seed: int, tally: dict[int, int]) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as sock, sock.makefile("rb") as replies:
        for number in range(requests):
            method = ("insert", "lookup")[number % 2]
            sock.sendall(json.dumps({"method": method, "key": f"bridge/{seed}", "value": number}).encode() + b"\n")
            assert json.loads(replies.readline())["status"] == "OK"
        tally[seed] = requests


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """The trace of a run of several clients, and how many requests they sent."""
    directory = tmp_path_factory.mktemp("interleaving")
    path = directory / "trace"
    tally: dict[int, int] = {}
    with ServerProcess(directory / "data", "--trace", str(path), bridge=True) as server:
        targets: list[tuple[Callable[..., None], object]] = [(converse, server.url)] * CLIENTS
        targets += [(converse_by_line, server.port)] * BRIDGE_CLIENTS
        threads = [
            threading.Thread(target=talk, args=(where, 1500 if talk is converse else 400, seed, tally))
            for seed, (talk, where) in enumerate(targets)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert server.terminate() == 0
    assert len(tally) == len(threads), "every request of every client was answered"
    return path, sum(tally.values())


def lines_of(path: Path) -> list[Line]:
    return [numbered.line for numbered in interleaving.read(io.StringIO(path.read_text()))]


def test_every_request_was_traced_and_many_steps_served_several_clients(
    traced: tuple[Path, int], count: Callable[[str, int], None]
) -> None:
    """Red when the server took one client's requests in a step: no step served several.

    Seven to nine in ten do, on a machine with two cores; on one where the server is never waited for, fewer.
    """
    path, requests = traced
    summary = interleaving.summarize(interleaving.read(io.StringIO(path.read_text())))
    assert summary.requests == requests
    assert summary.clients == CLIENTS + BRIDGE_CLIENTS
    assert summary.shared_steps > summary.steps / 5
    assert summary.requests_a_step > 1.5
    count("requests traced", requests)
    count("steps that served several clients", summary.shared_steps)


def test_no_client_ran_on_while_others_waited(traced: tuple[Path, int]) -> None:
    """Red when a transport drained one client dry before it looked at the next.

    In a step in which several clients have requests, the turns of each are bounded by its window, and
    whoever stays active is served at least once in every few steps.
    """
    path, _ = traced
    summary = interleaving.summarize(interleaving.read(io.StringIO(path.read_text())))
    assert 0 < summary.longest_run <= 12 * WINDOW  # a client's thread may have the interpreter for some steps
    lines = [line for line in lines_of(path) if line.client != "-"]
    positions: dict[str, list[int]] = defaultdict(list)
    for position, line in enumerate(lines):
        positions[line.client].append(position)
    # Between two requests of a client with a full window, the others cannot have had more than their windows by far.
    gaps = sorted(
        after - before
        for client, places in positions.items() if client.startswith("zmq:")
        for before, after in itertools.pairwise(places)
    )  # fmt: skip
    assert gaps[int(0.99 * len(gaps))] <= 12 * WINDOW * CLIENTS


def test_each_request_executed_alone(traced: tuple[Path, int]) -> None:
    """Red when a second thread executed requests, and when a revision was skipped or counted twice.

    Each request begins after the one before has ended, and its revision is the one before plus its own changes.
    """
    path, _ = traced
    lines = lines_of(path)
    assert sum(line.changes for line in lines) == lines[-1].revision, "every revision belongs to one line"
    for before, line in itertools.pairwise(lines):
        assert line.began_us >= before.began_us + before.took_us - interleaving.ROUNDING_US
        assert line.revision == before.revision + line.changes
        assert line.step >= before.step
    writes = re.compile(r"insert|insert_many|remove|increment|expired")
    assert all(writes.fullmatch(line.operation) for line in lines if line.changes)
    assert {line.changes for line in lines if line.operation == "insert"} == {1}
    assert {line.changes for line in lines if line.operation == "insert_many"} == {2}
    assert any(line.operation == "expired" for line in lines)


def test_the_requests_of_one_client_executed_in_the_order_it_sent_them(traced: tuple[Path, int]) -> None:
    path, _ = traced
    for seed in range(CLIENTS, CLIENTS + BRIDGE_CLIENTS):
        operations = [line.operation for line in lines_of(path) if line.key == f'"bridge/{seed}"']
        assert operations == ["insert", "lookup"] * 200


def test_the_command_says_so_of_the_run(traced: tuple[Path, int]) -> None:
    path, requests = traced
    done = subprocess.run(
        [*KVZMQ, "trace", "--lanes", "100", str(path)], capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"each request executed alone +yes\n", done.stdout)
    assert re.search(rf"requests +{requests:,}\n", done.stdout)
    assert done.stdout.count("zmq:") >= CLIENTS
