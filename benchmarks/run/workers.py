"""Worker processes: clients that outlive a measurement, so that starting Python is never timed."""

from __future__ import annotations

import importlib
import multiprocessing
import signal
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

LEAD_S = 0.02
"""How long before the common start the workers are told of it."""

ANSWER_TIMEOUT_S = 600.0


_READY = "ready"


class WorkerFailed(Exception):
    """A worker raised an error, whose traceback is the message, or did not answer."""


def _serve(pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the suite, which then ends its workers
    drivers = importlib.import_module("benchmarks.run.drivers")
    while True:
        try:
            name, arguments = pipe.recv()
        except EOFError:
            return
        if arguments.pop("together", False):
            arguments["ready"] = partial(_meet, pipe)
        try:
            pipe.send((True, getattr(drivers, name)(**arguments)))
        except Exception:
            pipe.send((False, traceback.format_exc()))


def _meet(pipe: Connection) -> int:
    """Say that this worker is ready, and return when all of them start, ns."""
    pipe.send((True, _READY))
    start_ns: int | None = pipe.recv()
    if start_ns is None:
        raise RuntimeError("another worker failed before the start")
    return start_ns


class Workers:
    """So many worker processes, ready to be told what to do."""

    def __init__(self, count: int) -> None:
        spawn = multiprocessing.get_context("spawn")  # a forked child would share sockets and threads' locks
        self._pipes: list[Connection] = []
        self._processes = []
        for _ in range(count):
            ours, theirs = spawn.Pipe()
            process = spawn.Process(target=_serve, args=(theirs,), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def run(self, name: str, arguments: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Have as many workers as there are arguments run a function of `drivers`. Raises: WorkerFailed"""
        used = self._tell(name, arguments)
        return self._collect(used, {})

    def run_together(self, name: str, arguments: Sequence[Mapping[str, Any]], begin: Callable[[], None]) -> list[Any]:
        """The same for a function that calls `ready`; `begin` is called when all are. Raises: WorkerFailed"""
        used = self._tell(name, [{**each, "together": True} for each in arguments])
        failed: dict[Connection, str] = {}
        for pipe in used:
            good, answer = self._answer(pipe)
            if not good:
                failed[pipe] = answer
        start_ns = None
        if not failed:
            begin()
            start_ns = time.monotonic_ns() + int(LEAD_S * 1e9)
        for pipe in used:
            if pipe not in failed:
                pipe.send(start_ns)
        return self._collect(used, failed)

    def _tell(self, name: str, arguments: Sequence[Mapping[str, Any]]) -> list[Connection]:
        used = self._pipes[: len(arguments)]
        for pipe, each in zip(used, arguments, strict=True):
            pipe.send((name, dict(each)))
        return used

    def _collect(self, used: Sequence[Connection], failed: dict[Connection, str]) -> list[Any]:
        """Read every worker's answer, so that none is left over for the next call."""
        answers = {}
        for pipe in used:
            if pipe not in failed:
                good, answer = self._answer(pipe)
                if good:
                    answers[pipe] = answer
                else:
                    failed[pipe] = answer
        if failed:
            raise WorkerFailed(next(iter(failed.values())))
        return [answers[pipe] for pipe in used]

    def _answer(self, pipe: Connection) -> tuple[bool, Any]:
        if not pipe.poll(ANSWER_TIMEOUT_S):
            return False, f"no answer for {ANSWER_TIMEOUT_S:g} s"
        try:
            answer: tuple[bool, Any] = pipe.recv()
        except EOFError:
            return False, "a worker has ended"
        return answer

    def close(self) -> None:
        """End the workers."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(5.0)
            if process.is_alive():
                process.kill()
                process.join()

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
