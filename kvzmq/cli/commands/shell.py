"""`kvzmq shell`: the command line's commands, typed one after the other."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from kvzmq import __version__, errors
from kvzmq.cli import (
    ALIASES,
    INTERRUPTED,
    REPORTED,
    USAGE,
    aliases_text,
    as_printable,
    command_names,
    complain,
    main,
    report,
)  # fmt: skip
from kvzmq.cli.connection import Connection, TableCommand
from kvzmq.cli.words import BadLine, Unfinished, Word, split

COMMANDS = [*command_names("Table"), "ping", "stats", "export", "import"]
COMMANDS.remove("shell")
"""The commands of `kvzmq` that can be typed in the shell."""

OWN = {
    "help": "Show the commands, or what one of them takes: help COMMAND.",
    "connect": "Go on with another server: connect URL.",
    "exit": "Leave; so do quit and Ctrl-D.",
}

_GREETING_S = 1.0


@click.command(cls=TableCommand)
@click.option(
    "--history",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    envvar="KVZMQ_HISTORY",
    help="Where to keep what was typed.  [default: ~/.local/state/kvzmq/history]",
)
@click.pass_context
def shell(ctx: click.Context, history: Path | None) -> None:
    """Type commands one after the other, at one connection.

    \b
      insert zebra {"weight": 100, "name": "fred"}
      lookup zebra
      query name fred

    JSON may go on over several lines, until its brackets are closed. Tab completes commands and keys. An error does
    not end the shell. From a pipe it reads a command a line; its exit code is then that of the first that failed.
    """
    session = Shell(ctx.obj, ctx.find_root())
    try:
        if sys.stdin.isatty():
            _on_terminal(session, history or _history_path())
        else:
            session.run(sys.stdin)
            ctx.exit(session.first_code)
    finally:
        session.connection.close()


def _on_terminal(session: Shell, history: Path) -> None:
    from kvzmq.cli import editing

    click.echo(f"kvzmq {__version__}. Type help for help, Tab to complete, Ctrl-D to leave.")
    with contextlib.suppress(errors.KvzmqError):
        session.greet()
    with editing.history(history), editing.completion(session, COMMANDS, OWN):
        session.run(editing.lines(session))


def _history_path() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "kvzmq" / "history"


class Shell:
    """Executes lines, one after the other.

    Args:
        connection: the server; replaced by `connect`
        root: the context of `kvzmq` itself
    """

    def __init__(self, connection: Connection, root: click.Context) -> None:
        self.connection = connection
        self.first_code = 0
        """The exit code of the first command that failed, or 0."""
        self.unfinished = ""
        """What was typed of a command that goes on in the next line."""
        self._root = root
        self._done = False

    def greet(self) -> None:
        """Say what is at the other end."""
        try:
            stats = self.connection.table.stats(timeout=_GREETING_S)
        except errors.Timeout as error:
            report(self.connection.explain(error))
        else:
            click.echo(f"{stats.get('keys')} rows, revision {stats.get('revision')}")
        finally:
            self.connection.command_ended()

    def run(self, lines: Iterator[str]) -> None:
        """Execute lines until they end, or until `exit`."""
        while not self._done:
            try:
                line = next(lines, None)
                if line is None:
                    break
                self.take(line)
            except KeyboardInterrupt:
                self.unfinished = ""
                click.echo()
        if self.unfinished:
            self._failed(self._complain("a bracket is not closed"))

    def take(self, line: str) -> None:
        """Execute a line, or keep it until the rest of its command comes."""
        text = self.unfinished + line
        self.unfinished = ""
        try:
            words = split(text)
        except Unfinished:
            self.unfinished = text.rstrip("\n") + "\n"
        except BadLine as error:
            self._failed(self._complain(str(error)))
        else:
            if words:
                self._failed(self._execute(words))

    def _failed(self, code: int) -> None:
        self.first_code = self.first_code or code

    def _complain(self, text: str) -> int:
        complain(text)
        return USAGE

    def _execute(self, words: list[Word]) -> int:
        name, arguments = ALIASES.get(words[0].lower(), words[0].lower()), words[1:]
        if name in ("exit", "quit"):
            self._done = True
            return 0
        if name == "connect":
            return self._connect(arguments)
        if name in ("help", "?"):
            return self._help(arguments)
        command = main.get_command(self._root, name) if name in COMMANDS else None
        if command is None:
            return self._complain(f"no command {str(words[0])!r}; help lists them")
        return self._invoke(command, name, list(arguments))

    def _invoke(self, command: click.Command, name: str, arguments: list[str]) -> int:
        try:
            code = command.main(
                arguments, prog_name=name, standalone_mode=False, parent=self._root, obj=self.connection
            )
        except click.ClickException as error:
            as_printable(error).show()
            return error.exit_code
        except BrokenPipeError:
            raise
        except (KeyboardInterrupt, click.Abort):  # Ctrl-C ends the command, not the shell
            click.echo()
            return INTERRUPTED
        except REPORTED as error:
            return report(error)
        return code if isinstance(code, int) else 0

    def _connect(self, arguments: list[Word]) -> int:
        if len(arguments) != 1:
            return self._complain("connect takes a URL")
        new = self.connection.with_settings(url=arguments[0])
        try:
            new.open()
        except click.UsageError as error:
            return self._complain(error.message)
        self.connection.close()
        self.connection = new
        try:
            self.greet()
        except errors.KvzmqError as error:
            return report(error)
        return 0

    def _help(self, arguments: list[Word]) -> int:
        if arguments and arguments[0] in OWN:
            click.echo(OWN[arguments[0]])
            return 0
        if arguments:
            return self._execute([Word(arguments[0]), Word("--help")])
        formatter = self._root.make_formatter()
        lines = command_names() | OWN
        formatter.write_dl([(name.ljust(12), lines[name]) for name in [*COMMANDS, *OWN]])
        formatter.write_text(f"Other names: {aliases_text()}")
        click.echo(formatter.getvalue().rstrip("\n"))
        return 0
