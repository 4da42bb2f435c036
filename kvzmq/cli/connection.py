"""What the table's commands share: the server they ask, and the options that name it."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from kvzmq import errors
from kvzmq.cli.words import Word

if TYPE_CHECKING:
    from kvzmq.client.blocking import Client

_NEGATIVE = re.compile(r"-(\d|\.\d)[\d.]*([eE][-+]?\d+)?")

F = TypeVar("F", bound=Callable[..., Any])


class Connection:
    """A server's URL, and a client of it that is made when it is first needed.

    Args:
        url: as `kvzmq.connect` takes it
        timeout_s: for each call
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        self.url = url
        self.timeout_s = timeout_s
        self._client: Client | None = None

    @property
    def table(self) -> Client:
        """The client.

        Raises:
            click.UsageError: the URL is malformed
        """
        if self._client is None:
            from kvzmq.client.blocking import connect  # 70 ms, which `kvzmq --help` need not take

            try:
                self._client = connect(self.url, self.timeout_s)
            except ValueError as error:
                raise click.UsageError(str(error)) from None
        return self._client

    def explain(self, error: errors.KvzmqError) -> errors.KvzmqError:
        """Return an error that says why the server cannot be reached, in place of one that says it did not answer."""
        if not isinstance(error, errors.Timeout):
            return error
        from kvzmq.cli.explain import diagnose

        findings = diagnose(self.url, min(1.0, self.timeout_s))
        wrong = next((finding.text for finding in findings if not finding.well), "no answer in time")
        return errors.Timeout(f"cannot reach {self.url}: {wrong}")

    def close(self) -> None:
        """Drop the client, if there is one."""
        if self._client is not None:
            self._client.close()
            self._client = None


class TableCommand(click.Command):
    """A command that asks a server: takes -c and --timeout after its name, too, and negative numbers as arguments."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += [
            click.Option(["-c", "--connect", "url"], metavar="URL", help="The server, as before the command's name.",
                         expose_value=False, callback=_with_url),
            click.Option(["--timeout", "timeout_s"], metavar="SECONDS", type=click.FloatRange(min=0, min_open=True),
                         help="How long an answer may take.", expose_value=False, callback=_with_timeout),
        ]  # fmt: skip

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # `incr n -5`: what looks like a number is an argument. Any other unknown option stays an error.
        if any(_NEGATIVE.fullmatch(arg) for arg in args):
            ctx.ignore_unknown_options = True
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except errors.Timeout as error:
            raise ctx.obj.explain(error) from None


def _with_url(ctx: click.Context, _: click.Parameter, url: str | None) -> None:
    if url is not None:
        _replace(ctx, Connection(url, ctx.obj.timeout_s))


def _with_timeout(ctx: click.Context, _: click.Parameter, timeout_s: float | None) -> None:
    if timeout_s is not None:
        _replace(ctx, Connection(ctx.obj.url, timeout_s))


def _replace(ctx: click.Context, connection: Connection) -> None:
    ctx.obj = connection
    ctx.call_on_close(connection.close)


def json_option(command: F) -> F:
    """Add --json to a command, as the argument `as_json`."""
    return click.option("--json", "as_json", is_flag=True, envvar="KVZMQ_JSON", help="Print JSON, for machines.")(command)


class _Value(click.ParamType[str]):
    """An argument for `read_value`: click's own strings would forget what a Word was written as."""

    name = "value"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return value


VALUE = _Value()


def is_stdin(text: str) -> bool:
    """Say whether an argument stands for standard input: in the shell that is where the commands come from."""
    return text == "-" and not isinstance(text, Word)


def read_value(text: str, as_string: bool = False) -> Any:
    """Return the value an argument stands for: JSON, or else the string itself; `-` reads standard input.

    A line break at the end of standard input is not part of a plain string, as in the shell's $(...).

    Raises:
        click.UsageError: it is JSON that no table can keep
    """
    import msgspec

    if is_stdin(text):
        data = sys.stdin.buffer.read()
        try:
            text = data.decode().removesuffix("\n")
        except UnicodeDecodeError:
            raise click.UsageError("standard input is not UTF-8 text; --bytes takes it as it is") from None
    if as_string:
        return text
    try:
        return msgspec.json.decode(text.raw if isinstance(text, Word) else text)
    except msgspec.ValidationError as error:
        raise click.UsageError(f"{text}: {error}") from None
    except (msgspec.DecodeError, UnicodeEncodeError):
        return str(text)
    except RecursionError:
        raise click.UsageError("the value is nested too deeply") from None
