"""The experiments on a cluster: kvzmq servers that share a log kept by three etcd nodes, all on this machine."""

from __future__ import annotations

import contextlib
import itertools
import threading
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.results import Writer
from benchmarks.run.etcd_nodes import EtcdNode, EtcdNodes
from benchmarks.run.experiments import ROWS, VALUE_BYTES, Turn, turn_of
from benchmarks.run.measuring import FEW_ROUNDS, LOAD_FIELDS, Bench, client_of
from benchmarks.run.open_tables import Sample
from benchmarks.run.peers import DURABLE, PEERS, NotHere, Peer, Running
from benchmarks.run.processes import Process, temporary_directory
from kvzmq.bench.load import summarize

SERVERS = (1, 2, 3)
IN_FLIGHT = (1, 64, 256)
"""How many requests are unanswered at a time, of all clients together; a request is one operation."""

_PROCESSES = 2
"""In how many processes the clients run: etcd and the servers need the machine, too."""

_SECONDS_MIN = 1.0
"""etcd's disk has a hiccup now and then; a shorter measurement would be that or none."""

ETCD = Peer("etcd-grpc", "etcd itself, by gRPC", "etcd", DURABLE, "etcd-grpc", lambda _: (None, {}), ("command:etcd",))
SHARED = PEERS["kvzmq"]._replace(
    name="kvzmq-etcd", title="kvzmq, log on etcd", short="kvzmq on etcd", needs=("command:etcd", "module:grpc")
)
ALONE = PEERS["kvzmq"]

KILLS = ("kvzmq server", "etcd follower", "etcd leader")


class Several(Running):
    """Servers of one table, as one contender."""

    def __init__(self, peer: Peer, servers: Sequence[tuple[Process, dict[str, Any]]], directory: Path) -> None:
        self.servers = [process for process, _ in servers]
        self.addresses = [address for _, address in servers]
        urls = [address["url"] for address in self.addresses]
        super().__init__(peer, self.servers[0], {"url": urls[0], "urls": urls}, directory)

    def cpu_s(self) -> float:
        """Return the processor time that all of them have used."""
        return sum(process.cpu_s() for process in self.servers)

    def stop(self) -> None:
        """End all of them."""
        for process in self.servers:
            process.stop()


def cluster(bench: Bench) -> None:
    """Inserts and lookups through one, two and three servers of one table, beside etcd itself and a log on the disk."""
    with (
        bench.writer("cluster", ("servers", *LOAD_FIELDS)) as writer,
        _nodes(bench) as nodes,
        contextlib.ExitStack() as stack,
    ):
        turns: list[Turn] = []
        contenders: list[tuple[int, Running, Sequence[str]]] = []
        etcd = Running(ETCD, None, {"addresses": nodes.addresses}, bench.base)
        contenders.append((0, etcd, ("insert", "lookup")))
        ours = ("insert", "lookup", "session lookup")
        for count in SERVERS:
            shared = Several(SHARED, nodes.start_servers(f"table{count}", count), bench.base)
            stack.callback(shared.stop)
            contenders.append((count, shared, ours))
            turns.append(_at_one(bench, writer, shared, count))
        alone = stack.enter_context(bench.running(ALONE.name))[ALONE.name]
        alone.address["urls"] = [alone.address["url"]]
        contenders.append((0, alone, ours))
        for servers, running, operations in contenders:
            if running is not etcd:
                bench.fill(running, ROWS, VALUE_BYTES)
            for in_flight in IN_FLIGHT:
                turns.append(
                    turn_of(
                        bench, writer, running, operations, "call_cluster", _clients(bench, in_flight),
                        in_flight=in_flight, clients=in_flight, servers=servers,
                    )
                )  # fmt: skip
            if running is not etcd:
                turns.append(
                    turn_of(
                        bench, writer, running, ("insert_many",), "call_cluster", _clients(bench, 1),
                        batch=1000, servers=servers,
                    )
                )  # fmt: skip
        bench.take_turns(turns, "cluster")


def _at_one(bench: Bench, writer: Writer, shared: Several, count: int) -> Turn:
    """Return what has all clients look up at one of several servers, each round at another one."""
    running = Several(shared.peer, list(zip(shared.servers, shared.addresses)), shared.directory)

    def turn(at: int) -> None:
        running.address["urls"] = [shared.addresses[at % count]["url"]]
        measure(at)

    measure = turn_of(
        bench, writer, running, ("session lookup",), "call_cluster", _clients(bench, IN_FLIGHT[-1]),
        in_flight=IN_FLIGHT[-1], clients=IN_FLIGHT[-1], servers=f"1 of {count}",
    )  # fmt: skip
    return turn


@contextlib.contextmanager
def _nodes(bench: Bench) -> Iterator[EtcdNodes]:
    try:
        for peer in (ETCD, SHARED):
            peer.check()
    except NotHere as error:
        bench.skipped["cluster"] = str(error)
        raise
    with temporary_directory(bench.base) as directory, EtcdNodes(directory) as nodes:
        yield nodes


def _clients(bench: Bench, in_flight: int) -> Callable[[str], list[dict[str, Any]]]:
    processes = min(_PROCESSES, in_flight)
    return lambda operation: [
        {
            "operation": operation, "tasks": in_flight // processes, "client": client, "rows": ROWS,
            "value_bytes": VALUE_BYTES, "seconds": max(_SECONDS_MIN, bench.size.seconds),
        }
        for client in range(processes)
    ]  # fmt: skip


# ---- a watcher at another server


def following(bench: Bench) -> None:
    """A client inserts at one server, one row after the other, and another one watches at another server."""
    fields = ("round", "role", "operations", "mean_ms", "min_ms", "p50_ms", "p95_ms", "p99_ms", "p999_ms", "max_ms")
    with bench.writer("cluster_following", fields) as writer, _nodes(bench) as nodes:
        servers = Several(SHARED, nodes.start_servers("followed", 2), bench.base)
        try:
            bench.take_turns([_follow(bench, writer, servers)], "a watcher at another server")
        finally:
            servers.stop()


def _follow(bench: Bench, writer: Writer, servers: Several) -> Turn:
    roles = ("event received", "insert answered")

    def turn(at: int) -> None:
        arguments = [
            {
                **client_of(servers), "address": {"url": url}, "writes": role == roles[1],
                "seconds": max(_SECONDS_MIN, bench.size.seconds),
            }
            for role, url in zip(roles, reversed(servers.address["urls"]))
        ]  # fmt: skip
        samples: list[Sample] = bench.workers.run_together("follow", arguments, lambda: None)
        for role, sample in zip(roles, samples):
            latencies = array("q", sample.latencies_ns)
            summary = summarize(latencies)._asdict()
            times = {field: summary[field] for field in summary if field.endswith("_ms")}
            writer.add(round=at, role=role, operations=len(latencies), **times)

    return turn


# ---- the longest gap in service


_KILL_AFTER_S = 1.5
_GAP_SECONDS = 6.0


def kills(bench: Bench) -> None:
    """How long nobody is served when a server, a follower of etcd or its leader is killed; etcd's own client beside."""
    fields = ("round", "killed", "client", "gap_s", "inserts")
    with bench.writer("cluster_kills", fields) as writer, _nodes(bench) as nodes:
        turns: list[Turn] = [_kill(bench, writer, nodes, what) for what in KILLS]
        bench.take_turns(turns, "kills", min(FEW_ROUNDS, bench.size.rounds))


def _kill(bench: Bench, writer: Writer, nodes: EtcdNodes, what: str) -> Turn:
    def turn(at: int) -> None:
        name = f"killed-{what.replace(' ', '-')}-{at}"
        servers = Several(SHARED, nodes.start_servers(name, 2), bench.base)
        stopped: list[EtcdNode] = []

        def kill() -> None:
            if what == KILLS[0]:
                servers.servers[0].signal(9)
                return
            node = nodes.leader() if what == KILLS[2] else nodes.followers()[0]
            stopped.append(node)
            node.kill()

        timer = threading.Timer(_KILL_AFTER_S, kill)
        arguments = [
            {"table": "kvzmq", "address": servers.address, "client": 1, "seconds": _GAP_SECONDS},
            {"table": "etcd-grpc", "address": {"addresses": nodes.addresses}, "client": 2, "seconds": _GAP_SECONDS},
        ]
        try:
            samples: list[Sample] = bench.workers.run_together("insert_through_faults", arguments, timer.start)
        finally:
            timer.cancel()
            timer.join()
            servers.stop()
            for node in stopped:
                node.start()
            nodes.wait_until_healthy()
        for client, sample in zip((SHARED.name, ETCD.name), samples):
            ended = array("q", sample.ended_ns)
            gap_ns = max(after - before for before, after in itertools.pairwise(ended))
            writer.add(round=at, killed=what, client=client, gap_s=gap_ns / 1e9, inserts=len(ended))

    return turn


EXPERIMENTS: dict[str, Callable[[Bench], None]] = {
    "cluster": cluster,
    "cluster_following": following,
    "cluster_kills": kills,
}
