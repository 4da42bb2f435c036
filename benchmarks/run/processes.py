"""Server processes: started for a measurement, watched while it runs, ended with it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0

_PR_SET_PDEATHSIG = 1
_prctl = ctypes.CDLL(None).prctl
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class DidNotStart(Exception):
    """A server ended, or hung, before it was ready."""


def free_port() -> int:
    """Return a TCP port of the loopback interface that nobody uses now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def accepts(port: int) -> bool:
    """Say whether somebody listens on the port."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
        return True
    return False


def wait_until(condition: Callable[[], object], timeout_s: float, what: str) -> None:
    """Return when `condition` is true. Raises: TimeoutError"""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"{what} within {timeout_s:g} s")
        time.sleep(0.01)


def _end_with_parent() -> None:
    # In a session of its own, so that Ctrl-C is for the suite, which then ends its servers in order.
    os.setsid()
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Process:
    """A child process with its output in a file; ended by `stop`, at the latest with this process.

    Args:
        command: the program and its arguments
        directory: where it runs, and where `output.txt` goes
    """

    def __init__(self, command: Sequence[str], directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.command = list(command)
        self._output = directory / "output.txt"
        with self._output.open("wb") as output:
            self._popen = subprocess.Popen(
                self.command,
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=_end_with_parent,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            )
        self.pid = self._popen.pid

    @property
    def output(self) -> str:
        """What it has printed."""
        return self._output.read_text(errors="replace")

    @property
    def running(self) -> bool:
        """Whether it still runs."""
        return self._popen.poll() is None

    def wait_ready(self, ready: Callable[[], object], timeout_s: float = START_TIMEOUT_S) -> None:
        """Return when `ready` is true. Raises: DidNotStart, when the process ended or time is over; it is stopped."""
        try:
            wait_until(lambda: not self.running or ready(), timeout_s, "ready")
        except TimeoutError:
            self.stop()
            raise DidNotStart(f"{self.command[0]} was not ready in {timeout_s:g} s: {self.output[-500:]}") from None
        if not self.running:
            raise DidNotStart(f"{self.command[0]} ended with {self._popen.returncode}: {self.output[-500:]}")

    def signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.running:
            self._popen.send_signal(number)

    def wait(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Return its exit code. Raises: subprocess.TimeoutExpired"""
        return self._popen.wait(timeout_s)

    def stop(self) -> None:
        """End it, gently at first."""
        self.signal(signal.SIGTERM)
        try:
            self.wait()
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()

    def cpu_s(self) -> float:
        """Return the processor time of all its threads so far."""
        return cpu_s(self.pid)

    def resident_bytes(self) -> int:
        """Return how much memory it holds."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


def cpu_s(pid: int) -> float:
    """Return the processor time a process has used: to the nanosecond where the kernel tells, else to the tick."""
    total_ns = 0
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError):  # the thread has ended
                total_ns += int((task / "schedstat").read_text().split()[0])
        if total_ns:
            return total_ns / 1e9
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
    except (FileNotFoundError, ProcessLookupError):
        return 0.0


def busy_s() -> float:
    """Return the time all processors of the machine have been busy since it started."""
    user, nice, system, _idle, _iowait, irq, softirq, *_ = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    )
    return (user + nice + system + irq + softirq) / _TICKS_PER_S


@contextlib.contextmanager
def temporary_directory(base: Path) -> Iterator[Path]:
    """Make a directory for the files of servers, and remove it with all that is in it."""
    path = Path(tempfile.mkdtemp(prefix="kvzmq-benchmarks-", dir=base))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
