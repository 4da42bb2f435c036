"""One table, three servers, three etcd nodes: `make demo-cluster`, or `python clients/demo_cluster.py`.

    1  starts three etcd nodes and three servers on their log, on free ports, in a temporary directory
    2  lets clients work through all three servers: each increments a counter that they share, and writes rows
    3  kills one server with SIGKILL, then the etcd node that leads, then starts both again
    4  compares what the clients were told with what each of the three servers holds, and what a watch has seen

Every second it shows what the clients were told, how long the longest call took, and which processes are alive. Ends
with 0 if nothing was lost, nothing was counted twice, and the watch has seen each change once. Everything it starts it
ends, and removes. It needs etcd (Debian's etcd-server) and the extra `etcd`.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

from demo import Started, say
from EtcdNodes import NODES, EtcdNodes

import kvzmq

SERVERS = 3
CLIENTS = 8
NAME = "demo"
CALL_S = 30.0


class Server:
    """A server on the log in etcd, which can be killed and started again on its port."""

    def __init__(self, number: int, directory: Path, log: str) -> None:
        self.name = f"server{number}"
        self._data = directory / self.name
        self._log = log
        self.endpoint = "tcp://127.0.0.1:0"
        self.start()

    def start(self) -> None:
        self._running = Started(
            "server", "--data", str(self._data), "--bind", self.endpoint, "--log", self._log,
            "--log-level", "error", lines=1,
        )  # fmt: skip
        self.endpoint = self._running.said[0].split()[-1]

    @property
    def is_alive(self) -> bool:
        return self._running.process.poll() is None

    def kill(self) -> None:
        self._running.kill()

    def stop(self) -> None:
        if self.is_alive:
            self._running.stop()


class Cluster:
    """The etcd nodes and the servers, started when made."""

    def __init__(self, directory: Path) -> None:
        self.etcd = EtcdNodes(directory)
        self.servers: list[Server] = []
        try:
            for number in range(1, SERVERS + 1):
                self.servers.append(Server(number, directory, self.etcd.url(NAME)))
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        """All servers, for `kvzmq.connect`."""
        return ",".join(server.endpoint for server in self.servers)

    def describe(self) -> str:
        """Say of each process whether it is alive."""
        alive = {one.name: one.is_alive for one in self.servers} | {one.name: one.running for one in self.etcd.nodes}
        return " ".join(f"{name}{'' if is_alive else ' DEAD'}" for name, is_alive in alive.items())

    def close(self) -> None:
        for server in self.servers:
            server.stop()
        self.etcd.close()


class Worker(threading.Thread):
    """A client of all three servers that works until it is told to stop, and counts what it was told is done."""

    def __init__(self, number: int, url: str) -> None:
        super().__init__(name=f"client {number}", daemon=True)
        self.number = number
        self.increments = 0
        self.rows = 0
        self.longest_s = 0.0
        """How long the longest call took since somebody looked."""
        self.failure: BaseException | None = None
        self.stopping = False
        self._url = url

    def run(self) -> None:
        try:
            with kvzmq.connect(self._url, timeout=CALL_S, reads="session") as table:
                while not self.stopping:
                    began_s = time.monotonic()
                    table.increment("counter")
                    self.increments += 1
                    row = f"client {self.number} row {self.rows}"
                    table.insert(row, {"client": self.number})
                    self.rows += 1
                    if table.lookup(row) != {"client": self.number}:
                        raise AssertionError(f"{row} is not what this client has just written")
                    self.longest_s = max(self.longest_s, time.monotonic() - began_s)
        except BaseException as failure:
            self.failure = failure


class Follower(threading.Thread):
    """Watches the counter through all of it: it has to see each number once, in order."""

    def __init__(self, url: str) -> None:
        super().__init__(name="watch", daemon=True)
        self.last = 0
        self.failure: BaseException | None = None
        self._table = kvzmq.connect(url, timeout=CALL_S)
        self._watch = self._table.watch("counter")

    def run(self) -> None:
        try:
            for event in self._watch:
                if event.value != self.last + 1:
                    raise AssertionError(f"after {self.last} came {event.value}")
                self.last = event.value
        except BaseException as failure:
            self.failure = failure

    def await_number(self, number: int) -> bool:
        """Wait until it has seen `number`; False if it did not in time."""
        deadline_s = time.monotonic() + CALL_S
        while self.last < number and self.failure is None and time.monotonic() < deadline_s:
            time.sleep(0.05)
        return self.last == number

    def close(self) -> None:
        self._watch.close()
        self._table.close()


class Screen:
    """Shows every second how it goes."""

    def __init__(self, cluster: Cluster, workers: list[Worker], follower: Follower) -> None:
        self._cluster, self._workers, self._follower = cluster, workers, follower
        self._began_s = time.monotonic()
        self._told = 0
        self.longest_s = 0.0

    def work(self, seconds: float) -> None:
        """Let the clients work, and print a line a second."""
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            time.sleep(min(1.0, max(0.0, until_s - time.monotonic())))
            told = sum(worker.increments for worker in self._workers)
            longest_s = max(worker.longest_s for worker in self._workers)
            for worker in self._workers:
                worker.longest_s = 0.0
            self.longest_s = max(self.longest_s, longest_s)
            print(
                f"{time.monotonic() - self._began_s:5.1f} s  {told:7,} increments told done ({told - self._told:+,}), "
                f"the watch at {self._follower.last:7,}, slowest round {longest_s:5.2f} s   {self._cluster.describe()}",
                flush=True,
            )
            self._told = told


def check(cluster: Cluster, workers: list[Worker], follower: Follower) -> bool:
    """Compare what the clients were told with what each server holds; say what is wrong."""
    wrong = [f"{worker.name}: {worker.failure!r}" for worker in workers if worker.failure is not None]
    told = sum(worker.increments for worker in workers)
    for server in cluster.servers:
        with kvzmq.connect(server.endpoint, timeout=CALL_S) as table:
            counted = table.get("counter", 0)
            missing = sum(
                f"client {worker.number} row {row}" not in kept
                for worker in workers
                for kept in [{key for key, _ in table.query("client", worker.number)}]
                for row in range(worker.rows)
            )
            print(
                f"{server.name}: counter {counted:,}, {told:,} increments told done; "
                f"{missing} of {sum(worker.rows for worker in workers):,} rows missing; revision {table.revision:,}"
            )
            if counted != told:
                wrong.append(f"{server.name} has counted {counted - told:+,}")
            if missing:
                wrong.append(f"{server.name} lacks {missing} rows")
    if not follower.await_number(told):
        wrong.append(f"the watch has seen {follower.last:,}: {follower.failure!r}")
    else:
        print(f"the watch has seen every number up to {follower.last:,} once, in order")
    for text in wrong:
        print(f"WRONG  {text}")
    return not wrong


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=6.0, help="how long each stage lasts (%(default)s)")
    options = parser.parse_args()
    if shutil.which("etcd") is None:
        raise SystemExit("there is no etcd here: install Debian's etcd-server, or https://etcd.io/docs/latest/install")
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kvzmq-demo-") as name, contextlib.closing(Cluster(Path(name))) as cluster:
        say(f"{NODES} etcd nodes and {SERVERS} servers of one table: {cluster.url}")
        follower = Follower(cluster.url)
        workers = [Worker(number, cluster.url) for number in range(CLIENTS)]
        screen = Screen(cluster, workers, follower)
        follower.start()
        for worker in workers:
            worker.start()
        say(f"{CLIENTS} clients increment one counter, write rows and read them, through all {SERVERS}")
        screen.work(options.seconds)
        victim = cluster.servers[0]
        say(f"kill -9 {victim.name}: its clients go on at the others")
        victim.kill()
        screen.work(options.seconds)
        leader = cluster.etcd.leader()
        say(f"kill -9 {leader.name}, which leads etcd: nothing is acknowledged until another does")
        leader.kill()
        screen.work(2 * options.seconds)
        say(f"{victim.name} and {leader.name} are started again")
        leader.start()
        victim.start()
        screen.work(options.seconds)
        for worker in workers:
            worker.stopping = True
        for worker in workers:
            worker.join(timeout=2 * CALL_S)
        say("What each server holds, and what the clients were told")
        whole = check(cluster, workers, follower)
        follower.close()
        print(f"the slowest round of increment, insert and lookup took {screen.longest_s:.2f} s")
    say(f"{'Nothing lost, nothing counted twice' if whole else 'FAILED'}, in {time.monotonic() - began_s:.0f} s")
    sys.exit(0 if whole else 1)


if __name__ == "__main__":
    main()
