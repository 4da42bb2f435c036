"""A program on a pseudo-terminal with a screen, for tests: what a person sees after all escape sequences.

with ScreenProcess([*KVZMQ, "-c", url, "top"], columns=80, lines=24) as screen:
    screen.wait_for("requests")         until a line matches; returns the lines
    screen.press("s")
    screen.resize(200, 60)
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType

import pyte

from support.servers import PATIENCE_S, take_ctrl_c

TIMEOUT_S = PATIENCE_S
_ENTERED, _LEFT = b"\x1b[?1049h", b"\x1b[?1049l"
"""With what a program enters the alternate screen, and leaves it."""


class ScreenProcess:
    """A process, its terminal, and what is on the screen.

    Args:
        command: what to execute
        columns, lines: the screen's size
        environment: added to the environment, in which nothing says how large a screen is
    """

    def __init__(
        self, command: Sequence[str], columns: int = 80, lines: int = 24, environment: Mapping[str, str] | None = None
    ) -> None:
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self.raw = b""
        """Everything that was written."""
        self._fd, follower = pty.openpty()
        self._set_size(columns, lines)
        self.attributes = termios.tcgetattr(self._fd)
        """How the terminal was before the program."""
        inherited = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
        self._process = subprocess.Popen(
            command, stdin=follower, stdout=follower, stderr=follower, start_new_session=True, close_fds=True,
            env=inherited | {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8"} | dict(environment or {}),
            preexec_fn=_take_terminal,
        )  # fmt: skip
        os.close(follower)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def rows(self) -> list[str]:
        """The lines of the screen, as far as they were read."""
        return [line.rstrip() for line in self._screen.display]

    @property
    def shows_what_was_before(self) -> bool:
        """Whether the program has left the alternate screen."""
        return self.raw.rfind(_LEFT) > self.raw.rfind(_ENTERED)

    @property
    def is_given_back(self) -> bool:
        """Whether the terminal is as it was before the program."""
        return termios.tcgetattr(self._fd) == self.attributes and self.shows_what_was_before

    def press(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def resize(self, columns: int, lines: int) -> None:
        """Change the size; the kernel sends SIGWINCH."""
        self._screen.resize(lines, columns)
        self._set_size(columns, lines)

    def _set_size(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def wait_for(self, pattern: str, timeout_s: float = TIMEOUT_S) -> list[str]:
        """Return the lines of the screen once one of them matches `pattern`."""
        return self.wait_until(lambda rows: any(re.search(pattern, row) for row in rows), pattern, timeout_s)

    def wait_until(
        self, condition: Callable[[list[str]], object], what: str = "what was waited for", timeout_s: float = TIMEOUT_S
    ) -> list[str]:
        """Return the lines of the screen once they fulfil a condition."""
        deadline_s = time.monotonic() + timeout_s
        while not condition(self.rows):
            assert time.monotonic() < deadline_s, f"no {what} on the screen:\n" + "\n".join(self.rows)
            assert self.read(0.1), f"ended without {what}:\n" + "\n".join(self.rows)
        return self.rows

    def read(self, wait_s: float = 0.0) -> bool:
        """Take in what was written; False if the program has ended."""
        ready, _, _ = select.select([self._fd], [], [], wait_s)
        if ready:
            try:
                data = os.read(self._fd, 1 << 16)
            except OSError:
                return False
            self.raw += data
            self._stream.feed(data)
        return True

    def wait_for_exit(self, timeout_s: float = TIMEOUT_S) -> int:
        """Return the exit code, negative for a signal."""
        deadline_s = time.monotonic() + timeout_s
        # The terminal is kept open by this side: its state can be looked at after the end.
        while self._process.poll() is None:
            assert time.monotonic() < deadline_s, "it did not end:\n" + "\n".join(self.rows)
            self.read(0.05)
        while select.select([self._fd], [], [], 0)[0] and self.read():
            pass
        return self._process.returncode

    def __enter__(self) -> ScreenProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.kill()
        self._process.wait()
        os.close(self._fd)


def _take_terminal() -> None:
    take_ctrl_c()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
