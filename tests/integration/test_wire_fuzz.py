"""Mutated requests through a live server: each gets exactly one reply, and the others are served."""

from __future__ import annotations

import json
import random
import resource
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
import zmq
from support import zmtp
from support.mutator import Mutator
from support.servers import PATIENCE_S, ServerProcess
from support.wire import WireClient

FRAMES, FRAMES_FULL = 20_000, 100_000
HANDSHAKES, HANDSHAKES_FULL = 300, 5_000
WINDOW = 200


@pytest.fixture
def steady(server: ServerProcess) -> Iterator[Callable[[], None]]:
    """Ask something that has one right answer."""
    with WireClient(server.url) as client:
        client.open()
        client.call("insert", "steady", {"is": "here"})

        def check() -> None:
            assert client.call("lookup", "steady")[1] == (0, {"is": "here"})

        yield check
        check()
        assert server.running and "Traceback" not in server.stderr, server.stderr


def test_every_mutated_frame_gets_one_reply(
    server: ServerProcess, steady: Callable[[], None], full: bool, count: Callable[[str, int], None]
) -> None:
    """Red when one kind of error in a request was not caught: the server ended with a traceback."""
    mutator = Mutator(seed=11)
    frames = FRAMES_FULL if full else FRAMES
    refused = executed = 0
    client: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
    client.linger = 0
    client.connect(server.url)
    try:
        sent = received = 0
        while received < frames:
            while sent < frames and sent - received < WINDOW:
                client.send(mutator.frame() or b"\xc1")  # an empty one is a probe, and not answered
                sent += 1
            assert client.poll(int(PATIENCE_S * 1000)), f"no reply to one of frames {received} to {sent}"
            while received < sent and client.poll(0):
                seq, revision, results = msgspec.msgpack.decode(client.recv())
                assert isinstance(revision, int) and results and all(len(result) == 2 for result in results)
                assert seq is None or isinstance(seq, int)
                received += 1
                refused += results[0][0] >= 16
                executed += results[0][0] < 16
            if received % 50 == 0:
                steady()
        assert not client.poll(50), "a reply too many"
    finally:
        client.close()
    assert refused > frames / 4 and executed > frames / 20, "the mutations are neither too wild nor too tame"
    count("mutated frames", frames)
    count("of them refused", refused)


def test_every_mutated_line_gets_one_reply(
    server: ServerProcess, steady: Callable[[], None], full: bool, count: Callable[[str, int], None]
) -> None:
    """Red when an error of the JSON decoder was not caught."""
    dice = random.Random(12)
    lines = FRAMES_FULL if full else FRAMES
    requests = [
        {"method": "insert", "key": "k", "value": {"a": [1, None, "é"]}}, {"method": "lookup", "key": "k"},
        {"method": "size"}, {"method": "query", "subkey": "a", "subvalue": 1}, {"method": "remove", "key": "k"},
        {"method": "insert_many", "rows": {"a": 1}}, {"method": "items", "prefix": "", "limit": 3},
        {"method": "increment", "key": "n", "by": 1, "session": "00" * 16, "seq": 1},
        {"method": "transaction", "checks": [{"key": "k"}],
         "operations": [{"method": "insert", "key": "t", "value": 1}]},
    ]  # fmt: skip
    noise = [
        b"[" * 3000,
        b"\\ud800",
        b"\x00",
        b"\xff",
        b"1e999",
        b"9" * 5000,
        b"9" * 30,
        b'"',
        b"{",
        b"}",
        b"null",
        b"-",
        b"NaN",
        b"\r",
    ]

    def line() -> bytes:
        data = json.dumps(dice.choice(requests), ensure_ascii=dice.random() < 0.5).encode()
        for _ in range(dice.choice([0, 1, 1, 2])):
            at = dice.randrange(len(data) + 1)
            data = data[:at] + dice.choice([*noise, b"", dice.randbytes(2)]) + data[at + dice.randrange(3) :]
        return data.replace(b"\n", b" ") + b"\n"

    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as sock,
        sock.makefile("rb") as replies,
    ):
        failed = 0
        for _ in range(lines // 100):
            sock.sendall(b"".join(line() for _ in range(100)))
            for _ in range(100):
                reply = json.loads(replies.readline())
                assert reply["status"] in ("OK", "exception")
                failed += reply["status"] != "OK"
            steady()
        sock.sendall(b'{"method": "ping"}\n')
        assert json.loads(replies.readline()) == {"status": "OK", "result": "pong"}
    assert lines / 4 < failed < lines * 0.95
    count("mutated lines", lines)
    count("of them refused", failed)


def test_mutated_handshakes_harm_nobody(
    server: ServerProcess, steady: Callable[[], None], full: bool, count: Callable[[str, int], None]
) -> None:
    dice = random.Random(13)
    handshakes = HANDSHAKES_FULL if full else HANDSHAKES
    good = [zmtp.greeting() + zmtp.ready(), *zmtp.INSTEAD_OF_A_HANDSHAKE.values()]
    zmtp.send_mutated_handshakes(server.url, good, handshakes, dice, steady)
    count("mutated handshakes", handshakes)


def test_a_flood_of_large_requests_delays_and_costs_a_bounded_amount(
    server: ServerProcess, steady: Callable[[], None], count: Callable[[str, int], None]
) -> None:
    """A peer may have 32 requests of a megabyte waiting in libzmq, which counts messages and not bytes."""
    client: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
    client.linger = 0
    client.connect(server.url)
    frame = msgspec.msgpack.encode([None, 1, [["query", "a", "y" * 1_000_000]]])
    requests = 240
    for _ in range(requests):
        client.send(frame)
    received = 0
    worst_s = 0.0
    while received < requests:
        began_s = time.perf_counter()
        steady()
        worst_s = max(worst_s, time.perf_counter() - began_s)
        while client.poll(0):
            client.recv()
            received += 1
    client.close()
    peak_kib = int(Path(f"/proc/{server.pid}/status").read_text().partition("VmHWM:")[2].split()[0])
    count("peak memory under a flood of 1 MB requests, KiB", peak_kib)
    assert worst_s < PATIENCE_S / 2
    assert peak_kib << 10 < requests * len(frame)


def test_low_limits_of_descriptors_are_survived(tmp_path: Path) -> None:
    """Red when the bridge's listener stayed registered while descriptors were out: a core went to failing accepts."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

    def cpu_s(pid: int) -> float:
        fields = Path(f"/proc/{pid}/task/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100

    with ServerProcess(tmp_path / "data", bridge=True, preexec=limit) as server:
        with (
            socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as first,
            first.makefile("rb") as replies,
        ):

            def ask() -> None:
                first.sendall(b'{"method": "increment", "key": "n"}\n')
                assert json.loads(replies.readline())["status"] == "OK"

            ask()
            crowd = [socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) for _ in range(100)]
            for _ in range(20):
                ask()
            before_s, began_s = cpu_s(server.pid), time.monotonic()
            time.sleep(1.0)  # the loop has nothing to do in this time
            assert cpu_s(server.pid) - before_s < 0.3 * (time.monotonic() - began_s)
            ask()
            for peer in crowd:
                peer.close()
            deadline_s = time.monotonic() + PATIENCE_S
            while True:
                try:
                    with (
                        socket.create_connection(("127.0.0.1", server.port), timeout=5) as late,
                        late.makefile("rb") as answers,
                    ):
                        late.sendall(b'{"method": "size"}\n')
                        assert json.loads(answers.readline()) == {"status": "OK", "result": 1}
                        break
                except (ConnectionError, TimeoutError, json.JSONDecodeError):
                    assert time.monotonic() < deadline_s
            ask()
        assert server.running and "Traceback" not in server.stderr
        assert "open files" in server.stderr
        assert server.terminate() == 0
