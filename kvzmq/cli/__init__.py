"""The command line: one file per group of commands, loaded when a command is first used.

This is the only package that imports all others. Data is written to standard output, messages about it
to standard error. What the exit codes say is in docs/api.md, under "Errors".
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

from kvzmq import __version__, errors
from kvzmq.cli.quantity import Quantity
from kvzmq.client.core.reads import READS, Reads
from kvzmq.client.core.urls import URL_DEFAULT

DONE, NOT_FOUND, USAGE, REFUSED_TO_START, UNREACHABLE, STORAGE_FAILED = range(6)
INTERRUPTED, PIPE_CLOSED = 130, 141
"""The exit codes: what each says is in docs/api.md. The last two are those of a shell for SIGINT and SIGPIPE."""

_GROUPS: dict[str, dict[str, tuple[str, str]]] = {
    "Server": {
        "server": ("kvzmq.cli.commands.server:server", "Serve a table until SIGTERM or Ctrl-C."),
        "keygen": ("kvzmq.cli.commands.keygen:keygen", "Make a pair of keys, for a client or a server."),
        "ping": ("kvzmq.cli.commands.ping:ping", "Say whether the server answers, or why not."),
        "stats": ("kvzmq.cli.commands.stats:stats", "Show what the server says of itself."),
        "top": ("kvzmq.cli.commands.top:top", "Show live what the server does."),
        "doctor": ("kvzmq.cli.commands.doctor:doctor", "Say what is wrong, or will be, and what mends it."),
        "dashboard": ("kvzmq.cli.commands.dashboard:dashboard", "Show the server as a page, for a browser."),
        "clients": ("kvzmq.cli.commands.clients:clients", "List who is connected, or end a connection."),
        "monitor": ("kvzmq.cli.commands.monitor:monitor", "Follow the requests that the server answers."),
        "slowlog": ("kvzmq.cli.commands.slowlog:slowlog", "Show the requests that took longest, and why."),
    },
    "Table": {
        "insert": ("kvzmq.cli.commands.write:insert", "Set a key to a value."),
        "lookup": ("kvzmq.cli.commands.read:lookup", "Print the value of a key, or of several."),
        "remove": ("kvzmq.cli.commands.write:remove", "Remove a key, or several."),
        "size": ("kvzmq.cli.commands.read:size", "Count the rows."),
        "query": ("kvzmq.cli.commands.read:query", "Find rows by what their value holds."),
        "keys": ("kvzmq.cli.commands.read:keys", "List keys, in order."),
        "items": ("kvzmq.cli.commands.read:items", "List keys and values, in order of the keys."),
        "cas": ("kvzmq.cli.commands.write:cas", "Change a key only if it holds what you expect."),
        "setdefault": ("kvzmq.cli.commands.write:setdefault", "Set a key only if it is absent."),
        "incr": ("kvzmq.cli.commands.write:incr", "Add to a number."),
        "ttl": ("kvzmq.cli.commands.write:ttl", "Show or set how long a key lives."),
        "watch": ("kvzmq.cli.commands.watch:watch", "Follow changes as they are made."),
        "shell": ("kvzmq.cli.commands.shell:shell", "Type these commands, with history and completion."),
    },
    "Storage": {
        "backup": ("kvzmq.cli.commands.backup:backup", "Write a running server's whole table to a file."),
        "restore": ("kvzmq.cli.commands.backup:restore", "Make a table's directory from a backup."),
        "check": ("kvzmq.cli.commands.check:check", "Read a table's files, or a backup: are they whole?"),
        "log": ("kvzmq.cli.commands.log:log", "Show who changed what, and when, from the log."),
        "export": ("kvzmq.cli.commands.transfer:export", "Write every row as a line of JSON."),
        "import": ("kvzmq.cli.commands.transfer:import_", "Insert rows from lines of JSON."),
        "copy": ("kvzmq.cli.commands.copy:copy", "Copy a table into another, from a directory into etcd, say."),
    },
    "Names": {
        "catalog": ("kvzmq.cli.commands.catalog:catalog", "Serve a catalog, where servers are found by name."),
    },
    "Tools": {
        "trace": ("kvzmq.cli.commands.trace:trace", "Show how the requests of several clients interleaved."),
        "bench": ("kvzmq.cli.commands.bench:bench", "Measure a server: requests per second, latencies."),
    },
}
"""The commands by heading, each with where it is defined and its line of help.

The lines stand here so that `kvzmq --help` need not load every command: 40 ms instead of 250.
"""

_PLACES = {name: place for commands in _GROUPS.values() for name, (place, _) in commands.items()}

ALIASES = {"get": "lookup", "set": "insert", "del": "remove", "increment": "incr", "compare-and-set": "cas"}
"""Other names for commands, as other tables and the Python client call them."""


def command_names(heading: str | None = None) -> dict[str, str]:
    """Return the commands below a heading, or all, each with its line of help."""
    return {
        name: line
        for group, commands in _GROUPS.items()
        if heading in (None, group)
        for name, (_, line) in commands.items()
    }


_EXIT_CODES: Sequence[tuple[type[BaseException], int]] = (
    (errors.InvalidRequest, USAGE),
    (errors.InvalidMethod, USAGE),
    (errors.WriteRejected, STORAGE_FAILED),
    (errors.StorageFatal, STORAGE_FAILED),
    (errors.BackupFailed, STORAGE_FAILED),
    (errors.OperationError, NOT_FOUND),
    (errors.Timeout, UNREACHABLE),
    (errors.OutcomeUnknown, UNREACHABLE),
    (errors.CatalogError, UNREACHABLE),
    (errors.TableChanged, UNREACHABLE),
    (errors.RequestRefused, UNREACHABLE),
    (errors.KvzmqError, REFUSED_TO_START),
    (BrokenPipeError, PIPE_CLOSED),
    (OSError, REFUSED_TO_START),
    (KeyboardInterrupt, INTERRUPTED),
)
"""The exit code for each kind of error: the first row that matches counts."""

REPORTED = tuple(kind for kind, _ in _EXIT_CODES)
"""The errors that are reported in one line; any other is a bug, and has a traceback."""


def report(error: BaseException) -> int:
    """Say in one line on standard error what went wrong, and return the exit code."""
    code = next(code for kind, code in _EXIT_CODES if isinstance(error, kind))
    if code not in (INTERRUPTED, PIPE_CLOSED):
        complain(text_of(error))
    return code


def complain(text: str) -> None:
    """Write a message to standard error; texts that people or other programs chose cannot move a terminal's cursor."""
    from kvzmq.units import printable  # where something is to be said, as in `as_printable`

    click.echo(f"kvzmq: {printable(text)}", err=True)


def as_printable(error: click.ClickException) -> click.ClickException:
    """Return an error of click's with the control characters escaped that an argument has brought into its message."""
    from kvzmq.units import printable

    text = error.format_message()
    if printable(text) == text:
        return error
    if isinstance(error, click.UsageError):
        return click.UsageError(printable(text), error.ctx)
    return click.ClickException(printable(text))


def text_of(error: BaseException) -> str:
    """Return the message of an error, without the errno that Python puts before the system's message."""
    if isinstance(error, OSError) and not isinstance(error, errors.KvzmqError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    return str(error)


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_PLACES)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        place = _PLACES.get(name)
        if place is None:
            return None
        module, _, attribute = place.partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        _name_variables(command, name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        # An alias is replaced by the command's name, so that help and environment variables are the command's.
        name = ALIASES.get(args[0], args[0])
        if name not in _PLACES and not name.startswith("-") and not ctx.resilient_parsing:
            ctx.fail(f"No such command {name!r}.{_did_you_mean(name)}")
        return super().resolve_command(ctx, [name, *args[1:]])

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for heading, commands in _GROUPS.items():
            with formatter.section(heading):
                formatter.write_dl([(name.ljust(12), line) for name, (_, line) in commands.items()])
        with formatter.section("Other names"):
            formatter.write_text(aliases_text())

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        return [
            CompletionItem(name, help=line)
            for name, line in (
                command_names() | {alias: f"The same as {name}." for alias, name in ALIASES.items()}
            ).items()
            if name.startswith(incomplete)
        ] + click.Command.shell_complete(self, ctx, incomplete)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.ClickException as error:
            raise as_printable(error) from None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()  # here, where a closed pipe can still be reported
            return result
        except click.ClickException as error:
            raise as_printable(error) from None
        except REPORTED as error:
            code = report(error)
            if code == PIPE_CLOSED:
                _drop_output()
            ctx.exit(code)


def _did_you_mean(name: str) -> str:
    from difflib import get_close_matches

    found = get_close_matches(name.lower(), [*_PLACES, *ALIASES], n=1)
    return f" Did you mean {found[0]!r}?" if found else ""


def _name_variables(command: click.Command, name: str) -> None:
    """Set each option's variable to KVZMQ_COMMAND_OPTION: click's would be of the argument, as KVZMQ_LOG_SINCE_US."""
    for option in command.params:
        if isinstance(option, click.Option) and option.envvar is None and option.expose_value:
            long = max(option.opts, key=len).lstrip("-")
            option.envvar = f"KVZMQ_{name}_{long}".upper().replace("-", "_")


def aliases_text() -> str:
    """Return the other names of commands, in one line."""
    return ", ".join(f"{alias} = {name}" for alias, name in ALIASES.items())


def _drop_output() -> None:
    """Redirect standard output to nowhere: flushing to a closed pipe at its end would make Python print an error."""
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)


@click.group(
    cls=_LazyGroup,
    invoke_without_command=True,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 110,
        "auto_envvar_prefix": "KVZMQ",
    },
    epilog="Every option can also be set in the environment: KVZMQ_URL, KVZMQ_TIMEOUT and KVZMQ_JSON for all "
    "commands, KVZMQ_LOG_SINCE for `kvzmq log --since`, and so on. "
    '`kvzmq COMMAND --help` says more. Completion: put `eval "$(_KVZMQ_COMPLETE=bash_source kvzmq)"` into ~/.bashrc '
    "(zsh_source into ~/.zshrc; `_KVZMQ_COMPLETE=fish_source kvzmq | source` for fish).",
)
@click.version_option(__version__, "-V", "--version", prog_name="kvzmq", message="%(prog)s %(version)s")
@click.option(
    "-c",
    "--connect",
    "url",
    envvar="KVZMQ_URL",
    default=URL_DEFAULT,
    show_default=True,
    metavar="URL",
    help="The server: tcp://HOST:PORT, ipc:///PATH, catalog://HOST:PORT/PROJECT, or several with commas; "
    "?server_key=KEY&curve_key=FILE says the keys for it.",
)
@click.option(
    "--curve-key",
    "curve_key",
    envvar="KVZMQ_CURVE_KEY",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="For a server with CURVE: your key, NAME.key_secret of `kvzmq keygen NAME`.",
)
@click.option(
    "--server-key",
    "server_key",
    envvar="KVZMQ_SERVER_KEY",
    metavar="KEY",
    help="For a server with CURVE: its public key, 40 characters.",
)
@click.option(
    "--timeout",
    "timeout_s",
    envvar="KVZMQ_TIMEOUT",
    type=Quantity("seconds", above=True),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="How long an answer may take, retries included.",
)
@click.option(
    "--reads",
    "reads",
    envvar="KVZMQ_READS",
    type=click.Choice(READS),
    help="How new what is read has to be, where several servers serve one table: everything that any of them has "
    "acknowledged (linearizable, unless told otherwise), what this client has seen, or what the server has.",
)
@click.option(
    "--no-wait",
    "no_wait",
    is_flag=True,
    envvar="KVZMQ_NO_WAIT",
    help="Fail at once, with exit code 4, if no server listens there, instead of trying until --timeout.",
)
@click.pass_context
def main(
    ctx: click.Context,
    url: str,
    curve_key: str | None,
    server_key: str | None,
    timeout_s: float,
    reads: Reads | None,
    no_wait: bool,
) -> None:
    """A durable table that processes share over ZeroMQ."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
        if sys.stdin.isatty() and sys.stdout.isatty():
            click.echo("\nTo type commands: kvzmq shell")
        ctx.exit(DONE if sys.stdout.isatty() else USAGE)
    if ctx.invoked_subcommand not in ("server", "keygen", "catalog", "trace", "bench"):
        from kvzmq.cli.connection import Connection

        ctx.obj = Connection(url, timeout_s, no_wait, curve_key, server_key, reads)
        ctx.call_on_close(ctx.obj.close)
