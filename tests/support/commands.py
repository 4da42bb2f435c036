"""The command line in this process, for tests: what it prints, and its exit code."""

from __future__ import annotations

from click.testing import CliRunner, Result

from kvzmq.cli import main


def command(*arguments: object, stdin: str | bytes | None = None, **environment: str) -> Result:
    """Run `kvzmq ARGUMENTS`; an exception that it lets through fails the test."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], input=stdin, env=environment)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result
