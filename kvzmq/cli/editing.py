"""Line editing for `kvzmq shell`: history, and completion of commands, options and keys."""

from __future__ import annotations

import contextlib
import itertools
import os
import readline
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import click

from kvzmq import errors
from kvzmq.cli import ALIASES, main
from kvzmq.cli.connection import Connection
from kvzmq.cli.words import quote

if TYPE_CHECKING:
    from kvzmq.client.sync.client import Client

HISTORY_LINES_MAX = 5000
"""How many lines the history keeps."""

_KEYS_MAX = 200
_COMPLETION_S = 1.0
_ONE_KEY = ("insert", "cas", "setdefault", "incr", "ttl", "keys", "items", "watch")
_MANY_KEYS = ("lookup", "remove")


class Session(Protocol):
    """The shell, as far as editing sees it."""

    @property
    def connection(self) -> Connection:
        """The server it is at."""

    @property
    def unfinished(self) -> str:
        """The lines of a command that goes on."""


@contextlib.contextmanager
def history(path: Path) -> Iterator[None]:
    """Take the history from `path`, and put it back, for its owner's eyes only.

    A history that cannot be kept is none.
    """
    with contextlib.suppress(OSError):
        readline.read_history_file(path)
    readline.set_history_length(HISTORY_LINES_MAX)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
            readline.write_history_file(path)


def lines(shell: Session) -> Iterator[str]:
    """Yield what is typed, under a prompt that names the server; the lines of one command are one in the history."""
    return _Lines(shell)


class _Lines(Iterator[str]):
    def __init__(self, shell: Session) -> None:
        self._shell = shell
        self._begun = 0

    def __next__(self) -> str:
        if not self._shell.unfinished:
            self._begun = readline.get_current_history_length()
        prompt = f"{self._shell.connection.where}> "
        if self._shell.unfinished:
            prompt = "... ".rjust(len(prompt))
        try:
            line = input(prompt)
        except EOFError:
            click.echo()
            raise StopIteration from None
        if self._shell.unfinished:
            self._join(self._shell.unfinished + line)
        return line

    def _join(self, text: str) -> None:
        for position in range(readline.get_current_history_length() - 1, self._begun - 1, -1):
            readline.remove_history_item(position)
        readline.add_history(" ".join(text.split("\n")))


@contextlib.contextmanager
def completion(shell: Session, commands: Collection[str], own: Collection[str]) -> Iterator[None]:
    """Have Tab complete what is typed; see Completer."""
    completer = Completer(shell, commands, own)
    readline.set_completer(completer.complete)
    readline.set_completer_delims(" \t\n")
    libedit = "libedit" in (readline.__doc__ or "")
    readline.parse_and_bind("bind ^I rl_complete" if libedit else "tab: complete")
    try:
        yield
    finally:
        readline.set_completer(None)
        completer.close()


class Completer:
    """Finds what a word may go on to be.

    Args:
        shell: whose server has the keys
        commands: the names of the table's commands
        own: the names of the shell's own
    """

    def __init__(self, shell: Session, commands: Collection[str], own: Collection[str]) -> None:
        self._shell = shell
        self._commands = commands
        self._own = own
        self._matches: list[str] = []
        self._connection: Connection | None = None

    def complete(self, text: str, state: int) -> str | None:
        """Be readline's completer: return the match number `state`, or None after the last."""
        if state == 0:
            before = readline.get_line_buffer()[: readline.get_begidx()]
            self._matches = [] if self._shell.unfinished else self.matches(before.split(), text)
        return self._matches[state] if state < len(self._matches) else None

    def matches(self, before: list[str], text: str) -> list[str]:
        """Return what `text` may become after the words `before`."""
        if not before or (before == ["help"]):
            return [f"{name} " for name in [*self._commands, *ALIASES, *self._own] if name.startswith(text.lower())]
        name = ALIASES.get(before[0].lower(), before[0].lower())
        if text.startswith("-"):
            return self._options(name, text) if name in self._commands else []
        given = sum(not word.startswith("-") for word in before[1:])
        if name in _MANY_KEYS or (name in _ONE_KEY and given == 0):
            return self._keys(text)
        return []

    def _options(self, name: str, text: str) -> list[str]:
        root = click.Context(main)
        command = main.get_command(root, name)
        parameters = command.params if command is not None else []
        found = [option for parameter in parameters if isinstance(parameter, click.Option) for option in parameter.opts]
        return [f"{option} " for option in [*found, "--help"] if option.startswith(text)]

    def _keys(self, text: str) -> list[str]:
        quoted = text.startswith('"')
        try:
            page = list(itertools.islice(self._table().keys(text.removeprefix('"')), _KEYS_MAX))
        except (errors.KvzmqError, click.UsageError):
            return []
        return [f"{quote(key)} " for key in page if quoted or quote(key).startswith(text)]

    def _table(self) -> Client:
        """Return a client that does not let a person wait long for a completion."""
        shell = self._shell.connection
        if self._connection is None or self._connection.url != shell.url:
            self.close()
            self._connection = shell.with_settings(timeout_s=_COMPLETION_S, no_wait=False)
        return self._connection.table

    def close(self) -> None:
        """Drop the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
