"""The command line on a pseudo-terminal, for tests: what a person types and sees."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import subprocess
import termios
import time
from pathlib import Path

from support.servers import KVZMQ, PATIENCE_S, take_ctrl_c


class Terminal:
    """The command `kvzmq` with its arguments, on a pseudo-terminal.

    Args:
        arguments: of `kvzmq`
        home: where it finds its home directory
        columns: the terminal's width
        prelude: statements of Python to execute first, which change the command for the test
    """

    def __init__(self, *arguments: str, home: Path, columns: int = 80, prelude: str = "") -> None:
        environment = os.environ | {
            "HOME": str(home), "XDG_STATE_HOME": str(home), "TERM": "xterm", "COLUMNS": str(columns), "LINES": "24",
        }  # fmt: skip
        leader, follower = pty.openpty()
        self._process = subprocess.Popen(
            [*KVZMQ[:-1], prelude + KVZMQ[-1], *arguments],
            stdin=follower, stdout=follower, stderr=follower, env=environment, start_new_session=True, close_fds=True,
            preexec_fn=_take_terminal,
        )  # fmt: skip
        os.close(follower)
        self._fd = leader
        self._seen = ""

    @property
    def pid(self) -> int:
        return self._process.pid

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def wait_for(self, pattern: str, timeout_s: float = PATIENCE_S) -> str:
        """Return what was shown up to the first match of `pattern`, and forget it."""
        deadline_s = time.monotonic() + timeout_s
        while (found := re.search(pattern, self._seen)) is None:
            ready, _, _ = select.select([self._fd], [], [], max(0.0, deadline_s - time.monotonic()))
            assert ready, f"no {pattern!r} in {self._seen!r}"
            try:
                self._seen += os.read(self._fd, 65536).decode(errors="replace")
            except OSError:
                raise AssertionError(f"ended without {pattern!r}: {self._seen!r}") from None
        shown, self._seen = self._seen[: found.end()], self._seen[found.end() :]
        return shown

    def interrupt(self, pattern: str) -> str:
        """Press Ctrl-C until `pattern` is shown: readline sleeps through one just before it waits for a key."""
        for _ in range(9):
            self.type("\x03")
            with contextlib.suppress(AssertionError):
                return self.wait_for(pattern, 3.0)
        return self.wait_for(pattern, 3.0)

    def wait_for_exit(self) -> int:
        with contextlib.suppress(OSError):  # of a terminal that nobody has open any more
            while select.select([self._fd], [], [], PATIENCE_S)[0] and (data := os.read(self._fd, 65536)):
                self._seen += data.decode(errors="replace")
        return self._process.wait(PATIENCE_S)

    @property
    def seen(self) -> str:
        """What was shown and not waited for."""
        return self._seen

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        os.close(self._fd)


def _take_terminal() -> None:
    take_ctrl_c()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
