"""A child process that works on a server's log: started by exec, and ended with its server.

It is never a fork that goes on in the server's code: threads, sockets and channels of the server would be there half.
So it runs what is installed when it starts, which may be another version than the server runs since its own start, and
may write what that server cannot read. A child whose version differs from its server's therefore ends before it reads
or writes anything. Every version has to take what that needs: the last two arguments, see `Child`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path

from kvzmq import __version__

REASON_BYTES = 2000
"""How much of its standard error is kept: the end."""

_PR_SET_PDEATHSIG = 1


class Child:
    """A running child process.

    Args:
        module: whose main function it calls, with `arguments` and after them this process's version and id
        given: its standard input, for what must not be seen in the list of processes; at most a few KiB

    Raises:
        OSError: it cannot be started
    """

    def __init__(self, module: str, *arguments: str, given: bytes = b"") -> None:
        self.code: int | None = None
        """Its exit code, negative for a signal, once `failure` has told that it has ended."""
        package = Path(__file__).resolve().parents[2]
        search = os.pathsep.join(filter(None, (str(package), os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments, __version__, str(os.getpid())],
            env=os.environ | {"PYTHONPATH": search},
            stdin=subprocess.PIPE if given else subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C at the terminal is for the server
        )
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # it has ended, and says why
                self._process.stdin.write(given)
                self._process.stdin.close()

    def failure(self) -> str | None:
        """Return why it has failed, or "" if it has succeeded; None while it runs."""
        self.code = code = self._process.poll()
        if code is None:
            return None
        assert self._process.stderr is not None
        reason = self._process.stderr.read()[-REASON_BYTES:].decode(errors="replace").strip()
        self._process.stderr.close()
        if code == 0:
            return ""
        return reason or (f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}")

    def kill(self) -> None:
        """End it, and wait until it is gone."""
        self._process.kill()
        self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()


def attach(version: str, parent: int) -> None:
    """Attach this process to its server, or exit if that has ended already or is of another version.

    The kernel kills it when the server ends, so that it does not go on for a whole compaction.

    Args:
        version: of kvzmq, that the server runs
        parent: the id of its process
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the server has ended")
    if version != __version__:
        sys.exit(
            f"the server runs kvzmq {version}, but {__version__} has been installed since it was started: restart it"
        )
