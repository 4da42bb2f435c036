"""Real servers in real processes, for tests.

    with ServerProcess(tmp_path / "data", "--compact-after", "100") as server:
        server.url                  tcp://127.0.0.1:PORT of the ROUTER
        server.port                 the bridge's port, with bridge=True
        server.kill()               SIGKILL; then server.start() again, on the same ports
        server.wait_for_exit()      the exit code, within a bounded time

A server ends with its `with` block, and with the test run, even one that is killed: the kernel ends
it with the thread that started it, so start it from the main thread. Only processes started here are ever
sent a signal, each by its own process id while it has not been waited for.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType

PATIENCE_S = 120.0
"""How long tests wait for what comes at once on a quiet machine: it tells what hangs from what is slow, no more."""

START_TIMEOUT_S = PATIENCE_S
"""How long a server may take until it listens: the machine may be busy, the server may run under strace."""

STOP_TIMEOUT_S = PATIENCE_S

KVZMQ = (sys.executable, "-c", "from kvzmq.cli import main; main(prog_name='kvzmq')")
"""The command `kvzmq`, as installed for the Python that runs the tests, or from PYTHONPATH."""

TESTS = Path(__file__).resolve().parents[1]
"""Where `python -m support.NAME` finds the programs that tests run beside themselves."""

_LISTENING = re.compile(r"^Listening on (?:port (?P<port>\d+)|(?P<url>\S+))$", re.MULTILINE)
_PR_SET_PDEATHSIG = 1
_prctl = ctypes.CDLL(None).prctl


class DidNotStart(Exception):
    """A server ended, or hung, before it listened; the message has its exit code and its output."""

    def __init__(self, exit_code: int | None, stderr: str) -> None:
        super().__init__(f"exit code {exit_code}: {stderr}")
        self.exit_code = exit_code
        self.stderr = stderr


def hold_port(port: int = 0) -> socket.socket:
    """Return a socket that keeps a TCP port, any by default, from whoever asks for any while it is open.

    It does not listen, so that connections are refused. Whoever asks for this very port gets it, if only by a socket
    with SO_REUSEADDR: those of libzmq, of Go and of asyncio have it, and those of `socket.create_server`.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        held.bind(("127.0.0.1", port))
    except OSError:
        held.close()
        raise
    return held


_held: list[socket.socket] = []


def free_port() -> int:
    """Return a TCP port that nobody uses, and that nobody is given by chance while the test runs: see `hold_port`."""
    _held.append(hold_port())
    port: int = _held[-1].getsockname()[1]
    return port


@contextlib.contextmanager
def giving_ports_back() -> Iterator[None]:
    """Hold the ports that `free_port` gives here until the end, and no longer."""
    before = len(_held)
    try:
        yield
    finally:
        while len(_held) > before:
            _held.pop().close()


def wait_until(condition: Callable[[], object], timeout_s: float = PATIENCE_S, what: str = "the condition") -> None:
    """Return when `condition` is true; fail when it is not in time."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise AssertionError(f"{what} did not come true within {timeout_s} s")
        time.sleep(0.005)


def line_of(process: subprocess.Popen[bytes]) -> bytes:
    """Return the next line that a process writes to its pipe; fail, and end it, when it writes none."""
    assert process.stdout is not None
    watchdog = threading.Timer(PATIENCE_S, process.kill)
    watchdog.start()
    line = process.stdout.readline()
    watchdog.cancel()
    assert line, "it has written nothing"
    return line


def take_ctrl_c() -> None:
    """Have a child process take SIGINT and SIGHUP, also where whoever runs the tests has them ignored.

    As with `nohup make test &`: a server leaves a signal ignored that it finds so.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def end_with_the_tests() -> None:
    """Have a child process end with the thread that starts it, and take SIGINT."""
    take_ctrl_c()
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class ServerProcess:
    """One server and its directory; it may be killed and started again any number of times.

    Args:
        data: the directory
        options: further options of `kvzmq server`
        bridge: listen on TCP too
        binds: the endpoints; by default one on a free port. Whoever asks for port 0 of 127.0.0.1 gets one that is the
            server's until `close`, also while it is down
        wrapper: put before the command, for example ("strace", "-D", ...); it must become the server by exec
        environment: added to the environment
        preexec: called in the new process before the exec, for limits
        start: whether to start it at once and wait until it listens
    """

    def __init__(
        self,
        data: Path | str,
        *options: str,
        bridge: bool = False,
        binds: Sequence[str] = (),
        wrapper: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        preexec: Callable[[], None] | None = None,
        start: bool = True,
    ) -> None:
        self.data = Path(data)
        self.options = list(options)
        self.binds = list(binds) or ["tcp://127.0.0.1:0"]
        self.tcp = "127.0.0.1:0" if bridge else None
        self.wrapper = list(wrapper)
        self.environment = dict(environment or {})
        self.preexec = preexec
        self.urls: list[str] = []
        """The endpoints it listens on."""
        self.port = 0
        """The bridge's port."""
        self.starts = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._held: list[socket.socket] = []  # its ports: others start servers as well, also in the moment it ends
        self._stdout = b""
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  a pipe nobody reads would stop the server
        if start:
            self.start()

    # ---- life

    @property
    def url(self) -> str:
        """The first endpoint."""
        return self.urls[0]

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """The exit code, negative for a signal, or None while it runs."""
        return None if self._process is None else self._process.poll()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def command(self) -> list[str]:
        """Return what `start` executes."""
        binds = [part for bind in self.binds for part in ("--bind", bind)]
        tcp = ["--tcp", self.tcp] if self.tcp else []
        return [*self.wrapper, *KVZMQ, "server", "--data", str(self.data), *binds, *tcp, *self.options]

    def launch(self) -> None:
        """Start the process, and do not wait until it listens."""
        assert not self.running, "it runs already"
        assert threading.current_thread() is threading.main_thread(), "the server would end with this thread"

        def before_exec() -> None:
            end_with_the_tests()
            if self.preexec is not None:
                self.preexec()

        self._release()
        self._stdout = b""
        self.starts += 1
        self.binds = [self._with_port(bind) for bind in self.binds]
        self.tcp = None if self.tcp is None else self._with_port(self.tcp)
        self._process = subprocess.Popen(
            self.command(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=os.environ | self.environment,
            preexec_fn=before_exec,
        )

    def wait_until_listening(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until it listens on every endpoint it was given.

        Raises:
            DidNotStart: it ended first, or was too slow and was killed
        """
        assert self._process is not None and self._process.stdout is not None
        deadline_s = time.monotonic() + timeout_s
        wanted = len(self.binds) + (self.tcp is not None)
        while len(found := list(_LISTENING.finditer(self._stdout.decode()))) < wanted or self._stdout[-1:] != b"\n":
            readable, _, _ = select.select([self._process.stdout], [], [], max(0.0, deadline_s - time.monotonic()))
            data = os.read(self._process.stdout.fileno(), 65536) if readable else b""
            if not data:
                hung = not readable
                code = None if hung else self.wait_for_exit()
                self.kill()
                raise DidNotStart(code, self.stderr)
            self._stdout += data
        self.urls = [match["url"] for match in found if match["url"]]
        self.binds = list(self.urls)
        ports = [int(match["port"]) for match in found if match["port"]]
        if ports:
            self.port = ports[0]
            self.tcp = f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, on the ports it had before, and wait until it listens."""
        self.launch()
        self.wait_until_listening()

    def signal(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        if self._process is not None:
            self._process.send_signal(number)  # Popen sends nothing to a process it has waited for

    def kill(self) -> None:
        """End it by SIGKILL and wait until it is gone."""
        if self._process is not None:
            self.signal(signal.SIGKILL)
            self._process.wait(STOP_TIMEOUT_S)

    def terminate(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Ask it to stop by SIGTERM; return the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait_for_exit(timeout_s)

    def wait_for_exit(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Return the exit code, negative for a signal; fails when the server goes on longer than that."""
        assert self._process is not None
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the server had not ended after {timeout_s} s\n{self.stderr}") from None

    def _with_port(self, endpoint: str) -> str:
        """Return an endpoint with a port of its own in place of any: nobody else is given it, not even for a moment."""
        if endpoint not in ("tcp://127.0.0.1:0", "127.0.0.1:0"):
            return endpoint
        self._held.append(hold_port())
        return f"{endpoint[:-1]}{self._held[-1].getsockname()[1]}"

    def restart(self) -> None:
        """Kill it and start it again."""
        self.kill()
        self.start()

    # ---- what it said, what it has

    @property
    def stderr(self) -> str:
        """What it has written to standard error, in all its lives."""
        self._stderr.flush()
        return os.pread(self._stderr.fileno(), 1 << 24, 0).decode(errors="replace")

    def children(self) -> list[int]:
        """Return the process ids of its children: the compaction, if one runs."""
        try:
            text = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        except OSError:
            return []
        return [int(pid) for pid in text.split()]

    # ---- the end

    def _release(self) -> None:
        if self._process is not None and self._process.stdout is not None:
            self._process.stdout.close()

    def close(self) -> None:
        """Kill it if it runs, and forget what it said."""
        self.kill()
        while self._held:
            self._held.pop().close()
        self._release()
        self._stderr.close()

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            with contextlib.suppress(OSError, ValueError):
                sys.stderr.write(f"---- standard error of the server on {self.data}\n{self.stderr}")
        self.close()
