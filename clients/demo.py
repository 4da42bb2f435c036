"""The main job, from beginning to end, on this machine: `make demo`, or `python clients/demo.py`.

    1  starts a catalog and a server with the bridge, on free ports, in a temporary directory
    2  runs TestBasics against it, found by its name
    3  runs TestPerf with 1, 2, 4 and 8 clients at the same time, and adds up
    4  shows from the server's own trace how the clients' requests interleaved
    5  kills the server with SIGKILL while 8 clients write, starts it again, and compares what the
       clients were told with what the table holds

Ends with 0 if everything was as it should be. Everything it starts it ends, and removes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from HashTableClient import HashTableClient

import kvzmq
from kvzmq import catalog

CLIENTS = Path(__file__).resolve().parent
PROJECT = f"demo-{os.getpid()}"
START_S = 120.0
"""How long a process may take to say where it listens: a busy machine takes longer than a quiet one by far."""
WRITERS = 8
KILLS = 2


class Started:
    """A process of `kvzmq` and the addresses it printed."""

    def __init__(self, *arguments: str, lines: int) -> None:
        command = [sys.executable, "-m", "kvzmq", *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        watchdog = threading.Timer(START_S, self.process.kill)
        watchdog.start()
        self.said = [self.process.stdout.readline().strip() for _ in range(lines)]
        watchdog.cancel()
        if not self.said[-1]:
            raise SystemExit(f"`{' '.join(command)}` did not start")

    def kill(self) -> None:
        """End it as bad luck would: no signal handler runs, nothing is flushed."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """End it properly."""
        self.process.terminate()
        self.process.wait()


class Server:
    """The table's server, which can be killed and started again on the same ports."""

    def __init__(self, directory: Path, catalog: str) -> None:
        self.directory = directory
        self.catalog = catalog
        self.endpoint = "tcp://127.0.0.1:0"
        self.bridge = "127.0.0.1:0"
        self.start()

    def start(self, *options: str) -> None:
        self._running = Started(
            "server", "--data", str(self.directory / "table"), "--bind", self.endpoint, "--tcp", self.bridge,
            "--project", PROJECT, "--catalog", self.catalog, "--log-level", "warning", *options, lines=2,
        )  # fmt: skip
        self.endpoint = self._running.said[0].split()[-1]
        self.bridge = f"127.0.0.1:{self._running.said[1].split()[-1]}"

    def kill(self) -> None:
        self._running.kill()

    def stop(self) -> None:
        self._running.stop()


def say(text: str) -> None:
    """Print a heading."""
    print(f"\n\033[1m== {text}\033[0m" if sys.stdout.isatty() else f"\n== {text}", flush=True)


def run(program: str, *arguments: str, environment: dict[str, str], silent: bool = False) -> None:
    """Run one of the clients' programs; its failure is the demo's."""
    command = [sys.executable, str(CLIENTS / program), *arguments]
    code = subprocess.run(
        command, env=os.environ | environment, stdout=subprocess.DEVNULL if silent else None
    ).returncode
    if code:
        raise SystemExit(f"{program} failed with exit code {code}")


@contextlib.contextmanager
def started(directory: Path) -> Iterator[tuple[Server, dict[str, str]]]:
    """Start catalog and server; end them afterwards."""
    names = Started("catalog", "--port", "0", lines=1)
    port = names.said[0].split()[-1]
    server = None
    try:
        server = Server(directory, f"127.0.0.1:{port}")
        await_name(int(port))
        yield server, {"CATALOG_HOST": "127.0.0.1", "CATALOG_PORT": port}
    finally:
        if server is not None:
            server.stop()
        names.stop()


def await_name(port: int) -> None:
    """Wait until the catalog has heard of the server."""
    deadline_s = time.monotonic() + START_S
    while True:
        try:
            catalog.find("hashtable", PROJECT, "127.0.0.1", port)
            return
        except kvzmq.CatalogError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.05)


def show_interleaving(server: Server, directory: Path) -> None:
    """Trace a moment of 4 clients' work, and let `kvzmq trace` judge it."""
    trace = directory / "trace"
    server.stop()
    server.start("--trace", str(trace))
    run("TestPerf.py", server.bridge, "--clients", "4", "-n", "300", "--quiet", environment={}, silent=True)
    server.stop()
    server.start()
    subprocess.run([sys.executable, "-m", "kvzmq", "trace", str(trace), "--lanes", "40"], check=True)


class Writer(threading.Thread):
    """Writes rows one after the other and counts what it was told is done.

    Odd ones speak lines of JSON through the bridge, even ones MessagePack over ZeroMQ.
    """

    def __init__(self, number: int, server: Server) -> None:
        super().__init__(daemon=True)
        self.number = number
        self.acknowledged = 0
        self.slowest_s = 0.0
        self.failure: BaseException | None = None
        self.stopping = False
        host, _, port = server.bridge.rpartition(":")
        self._table = (
            HashTableClient(host=host, port=int(port)) if number % 2 else kvzmq.connect(server.endpoint, timeout=30.0)
        )

    def run(self) -> None:
        try:
            while not self.stopping:
                began_s = time.monotonic()
                self._table.insert(f"writer {self.number} row {self.acknowledged}", {"writer": self.number})
                self.slowest_s = max(self.slowest_s, time.monotonic() - began_s)
                self.acknowledged += 1
        except BaseException as failure:
            self.failure = failure
        finally:
            self._table.close()


def show_survival(server: Server) -> bool:
    """Kill the server under load, and compare what was acknowledged with what is there."""
    with kvzmq.connect(server.endpoint) as table:
        before = len(table)
        writers = [Writer(number, server) for number in range(WRITERS)]
        for writer in writers:
            writer.start()
        for _ in range(KILLS):
            time.sleep(1.5)
            server.kill()
            told = sum(writer.acknowledged for writer in writers)
            print(f"kill -9, after {told:,} acknowledged inserts of {WRITERS} clients", flush=True)
            server.start()
            print(
                f"started again: the table holds {len(table) - before:,}, those and what was under way",
                flush=True,
            )
        time.sleep(1.5)
        for writer in writers:
            writer.stopping = True
        for writer in writers:
            writer.join(timeout=60)
        missing = 0
        for writer in writers:
            kept = {key for key, _ in table.query("writer", writer.number)}
            missing += sum(f"writer {writer.number} row {row}" not in kept for row in range(writer.acknowledged))
    failed = [writer for writer in writers if writer.failure is not None]
    for writer in failed:
        print(f"client {writer.number} failed: {writer.failure!r}")
    print(
        f"{sum(writer.acknowledged for writer in writers):,} inserts acknowledged, {missing} of them missing; "
        f"{len(failed)} of {WRITERS} clients failed; the slowest insert, through a restart, took "
        f"{max(writer.slowest_s for writer in writers):.2f} s"
    )
    return not missing and not failed


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sweep", default="1,2,4,8", help="numbers of clients for TestPerf (%(default)s)")
    parser.add_argument("--seconds", default="1.5", help="how long each stage of TestPerf lasts (%(default)s)")
    parser.add_argument(
        "--all", action="store_const", const=(), default=("--sums",), help="print each client's figures, too"
    )
    options = parser.parse_args()
    began_s = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="kvzmq-demo-") as name,
        started(Path(name)) as (server, environment),
    ):
        say(f"A catalog and a server: {PROJECT} at {server.endpoint}, its bridge at {server.bridge}")
        say("TestBasics, which finds the server by its name")
        run("TestBasics.py", PROJECT, environment=environment)
        say(f"TestPerf with {options.sweep} clients at the same time")
        run(
            "TestPerf.py",
            PROJECT,
            "--sweep",
            options.sweep,
            "--seconds",
            options.seconds,
            *options.all,
            environment=environment,
        )
        say("How the requests of 4 clients interleaved, each executed alone")
        show_interleaving(server, Path(name))
        say(f"kill -9 in the middle of {WRITERS} clients' writing, {KILLS} times")
        whole = show_survival(server)
    say(f"{'Done' if whole else 'FAILED'} in {time.monotonic() - began_s:.0f} s")
    sys.exit(0 if whole else 1)


if __name__ == "__main__":
    main()
