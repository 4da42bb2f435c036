"""Does libzmq abort a process of ours, whatever the other side does, in any state it may be in?

    python tests/abort_hunt.py                      100,000 disconnects, half of them by clients, half by servers
    python tests/abort_hunt.py --disconnects 2000   fewer

libzmq has asserts that a peer can reach: the process ends by SIGABRT, and no test of replies would see
why. So peers end their connections in each state of a connection, in each way there is, while the other
side's queues are empty, full, or stopped; a watchdog looks whether the process under attack lives.

    server   `kvzmq server`, attacked by raw peers, by libzmq's sockets and by lines at the bridge
    client   a program with many of kvzmq's links and a client that watches, attacked by what it takes
             for its server: that ends, sends noise, or floods it while it does not read

Prints the counts of each state; exits with 1 if a process was ended by a signal.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import zmq
from support.ending_peers import PAGE, Counts, attack_server, request
from support.ending_servers import attack_client
from support.servers import ServerProcess
from support.wire import WireClient

PAGE_BYTES = 100_000

LINKS = 24
"""How many links the client under attack has."""


def be_attacked(url: str) -> None:
    """Be the client under attack: connections that are used and hardly read, for as long as somebody listens to us."""
    from kvzmq.client.core import pyzmq_socket

    pyzmq_socket._OPTIONS = tuple(  # the time between two attempts is not what is tested
        (option, 1 if option in (zmq.RECONNECT_IVL, zmq.RECONNECT_IVL_MAX) else value)
        for option, value in pyzmq_socket._OPTIONS
    )
    dice = random.Random(1)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    sockets = [pyzmq_socket.PyzmqSocket(url, context) for _ in range(LINKS)]
    connected_s = [time.monotonic()] * LINKS
    reading = [True] * LINKS
    while True:
        now_s = time.monotonic()
        for number, one in enumerate(sockets):
            one.poll_events()
            if one.connected:
                connected_s[number] = now_s
            elif now_s - connected_s[number] > 0.1:  # after noise libzmq does not connect again
                one.close()
                sockets[number] = one = pyzmq_socket.PyzmqSocket(url, context)
                connected_s[number] = now_s
            for _ in range(dice.choice((0, 0, 1, 40))):
                one.send(request(["ping"]))
            if dice.random() < 0.02:
                reading[number] = not reading[number]
            for _ in range(dice.choice((0, 0, 0, 500))):
                if not (reading[number] and one.readable):
                    break
                one.receive()
            if dice.random() < 0.001:
                one.close()
                sockets[number] = pyzmq_socket.PyzmqSocket(url, context)
        time.sleep(0.002)


def watch_and_be_busy(url: str) -> None:
    """Be a program that watches, is busy meanwhile, and whose server is killed and stopped."""
    import kvzmq

    print("begun", flush=True)
    with kvzmq.connect(url, timeout=60) as table:
        turn = 0
        watch = table.watch("")
        while True:
            turn += 1
            with contextlib.suppress(kvzmq.KvzmqError, KeyError):
                table.insert("mine", turn)
                table.lookup(PAGE)
            time.sleep(0.3 * random.random())  # busy: nobody reads the watch
            with contextlib.suppress(kvzmq.KvzmqError):
                for _ in range(random.choice((0, 100, 100_000))):
                    watch.get(timeout=0.01)


# ---- the hunt


def _spawn(*arguments: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(Path(__file__)), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


@contextlib.contextmanager
def _ended(processes: list[subprocess.Popen[bytes]]) -> Iterator[None]:
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


def hunt_server(disconnects: int, attackers: int = 3) -> tuple[Counts, int]:
    """Attack a server; return the counts, and how often it was ended by a signal."""
    counts: Counts = Counter()
    with tempfile.TemporaryDirectory() as place, ServerProcess(Path(place) / "data", bridge=True) as server:
        with WireClient(server.url) as client:
            client.open()
            client.call("insert", PAGE, "x" * PAGE_BYTES)
            client.call("insert_many", {f"row/{number}": number for number in range(10_000)})
            workers = [
                _spawn("--attack", server.url, server.port, disconnects // attackers + 1, seed)
                for seed in range(attackers)
            ]
            with _ended(workers):
                turn = 0
                while any(worker.poll() is None for worker in workers) and server.running:
                    turn += 1
                    client.call("insert", f"k{turn % 100}", turn, timeout_s=60)  # what watches tell
                if not server.running:
                    print(f"the server was ended, exit code {server.exit_code}:\n{server.stderr[-1000:]}")
                    return counts, 1
                for worker in workers:
                    assert worker.stdout is not None
                    counts += Counter(json.loads(worker.stdout.read()))
        server.terminate()
    return counts, 0


def hunt_client(disconnects: int) -> tuple[Counts, int]:
    """Attack programs of ours as their server."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        victim = _spawn("--victim", f"tcp://127.0.0.1:{listener.getsockname()[1]}")
        with _ended([victim]):
            counts = attack_client(listener, disconnects, 1, lambda: victim.poll() is None)
            time.sleep(0.2)
            code = victim.poll()
    if code is not None:
        print(f"the client was ended, exit code {code}")
    return counts, int(code is not None)


def hunt_watcher(kills: int) -> tuple[Counts, int]:
    """Kill and stop the server of programs that watch and are busy."""
    counts: Counts = Counter()
    with tempfile.TemporaryDirectory() as place, ServerProcess(Path(place) / "data") as server:
        watchers = [_spawn("--watch", server.url) for _ in range(3)]
        with _ended(watchers):
            for watcher in watchers:
                assert watcher.stdout is not None
                watcher.stdout.readline()
            for turn in range(kills):
                with WireClient(server.url) as client:
                    client.open()
                    client.call("insert", PAGE, "x" * PAGE_BYTES)
                    for _ in range(3):
                        client.call("insert_many", {f"k{number}": turn for number in range(5000)})
                if turn % 3 == 2:
                    server.signal(signal.SIGSTOP)
                    time.sleep(0.2)
                    server.signal(signal.SIGCONT)
                    counts["watcher, server stopped"] += len(watchers)
                else:
                    server.restart()
                    counts["watcher, server killed"] += len(watchers)
                ended = [code for watcher in watchers if (code := watcher.poll()) is not None]
                if ended:
                    print(f"watching programs were ended, exit codes {ended}")
                    return counts, len(ended)
    return counts, 0


def show(counts: Counts) -> None:
    """Print the counts, a state a line, an ending a column."""
    endings = ("close", "reset", "half", "kill")
    print(f"{'state':45}" + "".join(f"{ending:>8}" for ending in endings))
    for state in sorted({name.partition(" | ")[0] for name in counts}):
        cells = [counts[f"{state} | {ending}"] for ending in endings]
        print(f"{state:45}" + "".join(f"{cell:8}" for cell in cells) if any(cells) else f"{state:45}{counts[state]:8}")
    print(f"{'in all':45}{counts.total():8}")


def hunt(disconnects: int) -> tuple[Counts, int]:
    """Attack server and clients with so many disconnects in all; return the counts, and how many processes died."""
    counts: Counts = Counter()
    died = 0
    for part, ended in (
        hunt_server(disconnects * 7 // 10),
        hunt_client(disconnects * 3 // 10),
        hunt_watcher(max(3, disconnects // 1000)),
    ):
        counts += part
        died += ended
    return counts, died


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--disconnects", type=int, default=100_000)
    parser.add_argument("--attack", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--victim", help=argparse.SUPPRESS)
    parser.add_argument("--watch", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.attack:
        url, *numbers = options.attack
        print(json.dumps(attack_server(url, *map(int, numbers))))
    elif options.victim:
        be_attacked(options.victim)
    elif options.watch:
        watch_and_be_busy(options.watch)
    else:
        counts, died = hunt(options.disconnects)
        show(counts)
        print(f"{died} processes were ended by a signal")
        return int(died > 0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
