"""The command line: one file per group of commands, loaded when a command is first used.

Everything else in the package is a part; here the parts are joined. Exit codes: 0 done, 1 no such
key or damage found, 2 wrong usage, 3 refused to start, 4 cannot reach the server, 5 the disk failed.
"""

from __future__ import annotations

from importlib import import_module

import click

from kvzmq import __version__

DONE, NOT_FOUND, USAGE, REFUSED_TO_START, UNREACHABLE, STORAGE_FAILED = range(6)

_GROUPS: dict[str, dict[str, str]] = {
    "Server": {"server": "kvzmq.cli.server", "catalog": "kvzmq.cli.catalog"},
    "Tools": {"trace": "kvzmq.cli.trace"},
}
"""The commands by heading, each with the module that has a click command of its name."""

_MODULES = {name: module for commands in _GROUPS.values() for name, module in commands.items()}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_MODULES)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        module = _MODULES.get(name)
        if module is None:
            return None
        command: click.Command = getattr(import_module(module), name.replace("-", "_"))
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for heading, commands in _GROUPS.items():
            with formatter.section(heading):
                rows = []
                for name in commands:
                    command = self.get_command(ctx, name)
                    if command is not None and not command.hidden:
                        rows.append((name, command.get_short_help_str(80)))
                formatter.write_dl(rows)


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, "--version", prog_name="kvzmq")
def main() -> None:
    """A durable table that processes share over ZeroMQ."""
