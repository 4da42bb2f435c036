"""What hostile peers cost the others: the longest wait of a steady client beside each attack, and the server's memory.

    python -m benchmarks.run.hostile_peers                     every attack, 5 s each
    python -m benchmarks.run.hostile_peers --seconds 2 stream idle
    python -m benchmarks.run.hostile_peers --source DIR        another version of the package, in DIR

Each attack has a server of its own and comes from a process of its own; the steady client, a DEALER that sends one
small request at a time, is in this one. The longest wait is as the client sees it, with everything on one machine.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import zmq

REQUEST_BYTES = 1 << 20
"""The largest request that a server takes by default."""

ROW_BYTES = 900_000
ROWS = 8
PAGE_ROWS = 10_000
TIMEOUT_S = 60.0


class Server(NamedTuple):
    """A running server, and what attacks need to know of it."""

    url: str
    port: int
    pid: int
    request_bytes: int


class Outcome(NamedTuple):
    """What an attack cost.

    longest_s      the longest wait of the steady client, and of the attack's newcomers where it has some
    requests       of the steady client that were answered meanwhile
    memory_bytes   by how much the server's largest memory had grown
    alive          whether the server had lived through it
    """

    longest_s: float
    requests: int
    memory_bytes: int
    alive: bool


# ---- ZMTP, as far as an attack needs it


def _frame(body: bytes, flags: int = 0) -> bytes:
    if len(body) < 256:
        return bytes([flags, len(body)]) + body
    return bytes([flags | 2]) + struct.pack(">Q", len(body)) + body


def shake_hands(url: str, identity: bytes = b"", receive_bytes: int | None = None) -> socket.socket:
    """Connect as a DEALER does."""
    host, _, port = url.removeprefix("tcp://").rpartition(":")
    peer = socket.socket()
    if receive_bytes is not None:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    peer.connect((host, int(port)))
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
    properties = b"\x0bSocket-Type\x00\x00\x00\x06DEALER"
    if identity:
        properties += b"\x08Identity" + struct.pack(">I", len(identity)) + identity
    peer.sendall(greeting + _frame(b"\x05READY" + properties, 4))
    return peer


def _request(*op: Any) -> bytes:
    return _frame(msgspec.msgpack.encode([None, 1, [op]]))


def _largest(request_bytes: int) -> bytes:
    return _request("insert", "large", bytes(request_bytes - 64))


def _pour(peers: list[socket.socket], data: bytes, seconds: float, read: bool) -> None:
    """Send the same again and again to all, as fast as they take it."""
    left = {peer: memoryview(data) for peer in peers}
    for peer in peers:
        peer.setblocking(False)
    deadline_s = time.monotonic() + seconds
    while time.monotonic() < deadline_s:
        readable, writable, _ = select.select(peers if read else [], peers, [], 0.1)
        for peer in readable:
            with contextlib.suppress(OSError):
                peer.recv(1 << 20)
        for peer in writable:
            with contextlib.suppress(OSError):
                left[peer] = left[peer][peer.send(left[peer]) :] or memoryview(data)


# ---- the attacks


def pile_up(server: Server, seconds: float) -> float:
    """Send requests of the limit from 6 peers while a seventh keeps the loop busy, and read nothing."""
    busy = shake_hands(server.url, receive_bytes=4096)
    busy.sendall(_request("items", "row/", None, PAGE_ROWS) * 200)
    _pour([shake_hands(server.url) for _ in range(6)], _largest(server.request_bytes), seconds, read=False)
    return 0.0


def stream(server: Server, seconds: float) -> float:
    """Send requests of the limit from 12 peers, and read the replies."""
    _pour([shake_hands(server.url) for _ in range(12)], _largest(server.request_bytes), seconds, read=True)
    return 0.0


def unread_large(server: Server, seconds: float) -> float:
    """Ask for 7 MB from each of 190 peers, and read nothing."""
    peers = [shake_hands(server.url, receive_bytes=4096) for _ in range(190)]
    for peer in peers:
        peer.sendall(_request("lookup_many", [f"big/{number}" for number in range(ROWS)]))
    time.sleep(seconds)
    return 0.0


def unread(server: Server, seconds: float) -> float:
    """Ask for a row of 100 KB as fast as can be from one DEALER that reads nothing."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as peer:
        peer.linger, peer.rcvhwm = 0, 1
        peer.connect(server.url)
        frame = msgspec.msgpack.encode([None, 1, [["lookup", "page"]]])
        deadline_s = time.monotonic() + seconds
        while time.monotonic() < deadline_s:
            if peer.poll(100, zmq.POLLOUT):
                peer.send(frame)
    return 0.0


def pages(server: Server, seconds: float) -> float:
    """Ask for pages of 10,000 rows, a thousand in flight, from one peer that reads them."""
    _pour([shake_hands(server.url)], _request("items", "row/", None, PAGE_ROWS) * 1000, seconds, read=True)
    return 0.0


def identities(server: Server, seconds: float) -> float:
    """Come and go 700 times under identities as long as the server takes."""
    peers = []
    for number in range(700):
        with contextlib.suppress(OSError):
            peer = shake_hands(server.url, identity=number.to_bytes(4, "big") + b"i" * (server.request_bytes - 200))
            peer.sendall(_request("ping"))
            peers.append(peer)
        if len(peers) >= 20:
            peers.pop(0).close()
    time.sleep(seconds / 5)
    return 0.0


def idle(server: Server, seconds: float) -> float:
    """Open 5,000 connections to the bridge and say nothing; newcomers are served meanwhile."""
    crowd = [socket.create_connection(("127.0.0.1", server.port), TIMEOUT_S) for _ in range(5000)]
    longest_s = 0.0
    deadline_s = time.monotonic() + seconds
    while time.monotonic() < deadline_s:
        began_s = time.monotonic()
        with (
            contextlib.suppress(TimeoutError),
            socket.create_connection(("127.0.0.1", server.port), TIMEOUT_S) as newcomer,
        ):
            newcomer.sendall(b'{"method": "ping"}\n')
            newcomer.recv(100)
        longest_s = max(longest_s, time.monotonic() - began_s)
    for peer in crowd:
        peer.close()
    return longest_s


def lines(server: Server, seconds: float) -> float:
    """Send lines of the limit from 12 connections of the bridge, of what takes longest to read."""
    value = "[" + "[]," * (server.request_bytes // 3) + "0]"
    line = b'{"method":"insert","key":"large","value":' + value.encode() + b"}\n"
    peers = [socket.create_connection(("127.0.0.1", server.port), TIMEOUT_S) for _ in range(12)]
    _pour(peers, line, seconds, read=True)
    return 0.0


ATTACKS: dict[str, Callable[[Server, float], float]] = {
    attack.__name__: attack for attack in (pile_up, stream, unread_large, unread, pages, identities, idle, lines)
}


# ---- the steady client, and the measurement


class Steady(threading.Thread):
    """A client that sends one small request at a time and notes how long it waits."""

    def __init__(self, url: str) -> None:
        super().__init__(name="steady client", daemon=True)
        self.url = url
        self.longest_s = 0.0
        self.requests = 0
        self.failure: BaseException | None = None
        self.stopping = threading.Event()

    def run(self) -> None:
        try:
            with zmq.Context() as context, context.socket(zmq.DEALER) as peer:
                peer.linger = 0
                peer.connect(self.url)
                while not self.stopping.is_set():
                    self._ask(peer)
        except BaseException as error:
            self.failure = error

    def _ask(self, peer: zmq.Socket[bytes]) -> None:
        self.requests += 1
        began_s = time.perf_counter()
        peer.send(msgspec.msgpack.encode([None, self.requests, [["increment", "steady"]]]))
        while not peer.poll(100) and not self.stopping.is_set():
            assert time.perf_counter() - began_s < TIMEOUT_S, "no reply"
        if peer.poll(0):
            seq, _, ((code, total),) = msgspec.msgpack.decode(peer.recv())
            assert (seq, code, total) == (self.requests, 0, self.requests), "not the reply to this request"
        self.longest_s = max(self.longest_s, time.perf_counter() - began_s)


def memory_bytes(pid: int, largest: bool = False) -> int:
    """Return what a process has resident, or the most it had."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:" if largest else "VmRSS:")[2].split()[0]) << 10


def fill(url: str) -> None:
    """Put in the rows that the attacks ask for."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as peer:
        peer.linger = 0
        peer.connect(url)
        ops: list[list[object]] = [["insert", f"big/{number}", "x" * ROW_BYTES] for number in range(ROWS)]
        ops.append(["insert", "page", "x" * 100_000])
        ops.append(["insert_many", {f"row/{number}": {"n": number} for number in range(PAGE_ROWS)}])
        for op in [*ops, ["items", "row/", None, 1]]:
            peer.send(msgspec.msgpack.encode([None, 1, [op]]))
            assert peer.poll(int(TIMEOUT_S * 1000)), "no reply"
            peer.recv()


def measure(name: str, server: Server, seconds: float, alive: Callable[[], bool]) -> Outcome:
    """Run one attack beside a steady client."""
    fill(server.url)
    before_bytes = memory_bytes(server.pid)
    steady = Steady(server.url)
    steady.start()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        newcomers_s = pool.apply(ATTACKS[name], (server, seconds))
    living = alive()
    memory = memory_bytes(server.pid, largest=True) - before_bytes if living else 0
    steady.stopping.set()
    steady.join(TIMEOUT_S)
    if steady.failure is not None and living:
        raise steady.failure
    return Outcome(max(steady.longest_s, newcomers_s), steady.requests, memory, living)


@contextlib.contextmanager
def serving(source: Path | None, request_bytes: int) -> Iterator[tuple[Server, Callable[[], bool]]]:
    """Start a server, of the package in `source` if given."""
    environment = os.environ | ({"PYTHONPATH": str(source)} if source else {})
    with tempfile.TemporaryDirectory() as place:
        command = [
            sys.executable,
            "-c",
            "from kvzmq.cli import main; main(prog_name='kvzmq')",
            "server",
            "--data",
            place,
            "--log-level",
            "error",
        ]
        process = subprocess.Popen(
            [*command, "--bind", "tcp://127.0.0.1:0", "--tcp", "127.0.0.1:0"],
            stdout=subprocess.PIPE, env=environment, cwd=place, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        try:
            url = re.sub(r"Listening on ", "", process.stdout.readline().strip())
            port = int(process.stdout.readline().rpartition(" ")[2])
            yield Server(url, port, process.pid, request_bytes), lambda: process.poll() is None
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
            process.stdout.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("attacks", nargs="*", default=list(ATTACKS), metavar="ATTACK", help=", ".join(ATTACKS))
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--source", type=Path, help="a directory that holds the package to measure")
    parser.add_argument("--request-bytes", type=int, default=REQUEST_BYTES, help="the largest request it takes")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    for name in options.attacks:
        with serving(options.source, options.request_bytes) as (server, alive):
            outcome = measure(name, server, options.seconds, alive)
        if options.json:
            print(json.dumps({"attack": name} | outcome._asdict()), flush=True)
        else:
            ended = "" if outcome.alive else "   the server was ended"
            print(f"{name:12} longest wait {outcome.longest_s * 1000:8.0f} ms   answered {outcome.requests:7}   "
                  f"memory +{outcome.memory_bytes >> 20:5} MiB{ended}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
