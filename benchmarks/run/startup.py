"""The whole life of a program that asks once: start Python, import kvzmq, connect, look a row up, end."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable

from benchmarks.results import PYZMQ, USUAL_TRANSPORT, Writer
from benchmarks.run import work
from benchmarks.run.experiments import VALUE_BYTES
from benchmarks.run.measuring import Bench
from benchmarks.run.peers import Running

FIELDS = ("round", "contender", "transport", "program", "seconds", "cpu_s")
"""The columns.

program   what was run: one of PROGRAMS
cpu_s     processor time of it, user and system, all threads
"""

PROGRAMS = {
    "first answer": "import sys, kvzmq\n"
    "with kvzmq.connect(sys.argv[1], transport=sys.argv[2]) as table:\n"
    "    table.lookup(sys.argv[3])",
    "nothing": "pass",
}
"""A lookup, and what Python alone takes."""

TRANSPORTS = {USUAL_TRANSPORT: "plain", PYZMQ: "pyzmq"}
"""By name in the CSV files: what `kvzmq.connect` is told."""

RUNS_A_ROUND = 5
_TIMEOUT_S = 60.0


def startup(bench: Bench) -> None:
    """A program's first answer over a plain socket and over pyzmq, in turn."""
    with bench.writer("startup", FIELDS) as writer, bench.running("kvzmq") as servers:
        turns: list[Callable[[int], None]] = []
        for running in servers.values():
            bench.fill(running, 1, VALUE_BYTES)
            for transport in TRANSPORTS:  # what it imports is compiled, and in the page cache
                _run(running, "first answer", transport)
            for _ in range(RUNS_A_ROUND):
                turns += [_turn(writer, running, "first answer", transport) for transport in TRANSPORTS]
                turns.append(_turn(writer, running, "nothing", ""))
        bench.take_turns(turns, "start-up")


def _turn(writer: Writer, running: Running, program: str, transport: str) -> Callable[[int], None]:
    def turn(at: int) -> None:
        seconds, cpu_s = _run(running, program, transport)
        contender = running.peer.contender if transport else "python"
        writer.add(round=at, contender=contender, transport=transport, program=program, seconds=seconds, cpu_s=cpu_s)

    return turn


def _run(running: Running, program: str, transport: str) -> tuple[float, float]:
    """Run a program to its end; returns wall-clock and processor time, s. Raises: CalledProcessError"""
    command = [sys.executable, "-c", PROGRAMS[program], running.address["url"]]
    command += [TRANSPORTS.get(transport, ""), work.row_key(0)]
    before_s, began_s = _children_s(), time.monotonic()
    started = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    )
    watchdog = threading.Timer(_TIMEOUT_S, started.kill)
    watchdog.start()
    # Without a timeout of its own, for which Python would look in steps of up to 50 ms: both transports took 114 ms.
    code = started.wait()
    seconds, cpu_s = time.monotonic() - began_s, _children_s() - before_s
    watchdog.cancel()
    if code:
        raise subprocess.CalledProcessError(code, command)
    return seconds, cpu_s


def _children_s() -> float:
    """Return the processor time of all children that have ended; nothing else ends meanwhile."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


EXPERIMENTS: dict[str, Callable[[Bench], None]] = {"startup": startup}
