"""The terminal that `kvzmq top` draws on, and its state given back however the program ends.

    with Screen() as screen:
        screen.size()           columns, lines
        screen.show(lines)      whole lines, with their escape sequences
        screen.suspend()        give it back, stop (Ctrl-Z), and take it again when continued

Keys come one by one and are not echoed; Ctrl-C and Ctrl-Z stay signals. A picture is drawn over the one before, line by
line, so nothing flickers. Only what ends the process without warning (SIGKILL) leaves the terminal as it is: `reset`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import termios
import tty
from collections.abc import Sequence
from types import TracebackType
from typing import Any

_ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[H\x1b[2J"  # the alternate screen, without cursor, no wrapping of long lines
_LEAVE = "\x1b[?7h\x1b[?25h\x1b[?1049l"
_LINE_ENDS = "\x1b[m\x1b[K"  # colours off, and the rest of the line cleared

DUMB = ("", "dumb", "unknown")
"""Values of TERM that name a terminal on which nothing can be drawn."""


def is_terminal() -> bool:
    """Say whether there is a terminal to draw on, and keys come from one."""
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "") not in DUMB


class Screen:
    """Standard output as a screen, standard input as a keyboard."""

    def __init__(self) -> None:
        self.keys_fd = sys.stdin.fileno()
        """The descriptor that keys are read from."""
        self._out_fd = sys.stdout.fileno()
        self._encoding = sys.stdout.encoding or "ascii"
        self._before: list[Any] | None = None  # how the terminal was

    @property
    def has_blocks(self) -> bool:
        """Whether its encoding has the characters that bars are made of."""
        try:
            "▁█".encode(self._encoding)
        except UnicodeEncodeError:
            return False
        return True

    def size(self) -> tuple[int, int]:
        """Return how many columns and lines there are now; 80 and 24 where the terminal does not say."""
        with contextlib.suppress(OSError):
            columns, lines = os.get_terminal_size(self._out_fd)
            if columns and lines:
                return columns, lines
        return 80, 24

    def show(self, lines: Sequence[str]) -> None:
        """Draw a picture of as many lines as the screen has, or fewer."""
        text = "\r\n".join(line + _LINE_ENDS for line in lines)
        self._write(f"\x1b[H{text}\x1b[J")

    def keys(self) -> str:
        """Return what was typed, without waiting; "" when the terminal is gone."""
        try:
            return os.read(self.keys_fd, 4096).decode(errors="replace")
        except OSError:
            return ""

    def suspend(self) -> None:
        """Stop this process as Ctrl-Z does, with the terminal as it was; take it again when continued."""
        self._give_back()
        before = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        try:
            os.kill(os.getpid(), signal.SIGTSTP)  # goes on here after SIGCONT
        finally:
            signal.signal(signal.SIGTSTP, before)
        self.take()

    def take(self) -> None:
        """Make the terminal a screen; once more after somebody else has used it."""
        if self._before is None:
            self._before = termios.tcgetattr(self.keys_fd)
        tty.setcbreak(self.keys_fd, termios.TCSADRAIN)
        self._write(_ENTER)

    def _give_back(self) -> None:
        if self._before is None:
            return
        before, self._before = self._before, None
        with contextlib.suppress(OSError, termios.error):  # the terminal may be gone
            self._write(_LEAVE)
            termios.tcsetattr(self.keys_fd, termios.TCSADRAIN, before)

    def _write(self, text: str) -> None:
        data = text.encode(self._encoding, errors="replace")
        while data:
            data = data[os.write(self._out_fd, data) :]

    def __enter__(self) -> Screen:
        self.take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._give_back()
