"""The server connection that the table's commands share, and the options that name the server."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from kvzmq import errors
from kvzmq.cli.quantity import Quantity
from kvzmq.client.core.reads import READS, Reads

if TYPE_CHECKING:
    from kvzmq.client.core.targets import Target
    from kvzmq.client.sync.client import Client

URL_OPTION = "kvzmq.cli.url"
"""The key in click's context of a command's own -c, for completion."""

_NEGATIVE = re.compile(r"-(\d|\.\d)[\d.]*([eE][-+]?\d+)?")

NOTICE_S = 0.15
"""After what time without an answer a terminal shows that no server listens: most answers come sooner."""

PROBE_S = 1.0
"""How long each attempt to find out why a server does not answer may take."""

F = TypeVar("F", bound=Callable[..., Any])


class _Unreachable(errors.Timeout):
    """No server listens at the URL; the message says why."""


class Connection:
    """A server's URL, and a client of it that is made when it is first needed.

    Args:
        url: as `kvzmq.connect` takes it
        timeout_s: for each call
        no_wait: whether it is an error at once if no server listens at the URL
        curve_key: the path of the client's keys, for a server with CURVE
        server_key: the public key of that server
        reads: how new what is read has to be, as `kvzmq.connect` takes it
    """

    def __init__(
        self,
        url: str,
        timeout_s: float,
        no_wait: bool = False,
        curve_key: str | None = None,
        server_key: str | None = None,
        reads: Reads | None = None,
    ) -> None:
        self.url = url
        self.reads = reads
        self.curve_key = curve_key
        self.server_key = server_key
        self.timeout_s = timeout_s
        self.no_wait = no_wait
        self._client: Client | None = None
        self._checked = False  # whether this command has checked that a server listens, or will by its timer
        self._notice: threading.Timer | None = None

    def with_settings(self, **settings: Any) -> Connection:
        """Return a connection with some of the arguments of this one changed."""
        own: dict[str, Any] = {
            "url": self.url,
            "timeout_s": self.timeout_s,
            "no_wait": self.no_wait,
            "curve_key": self.curve_key,
            "server_key": self.server_key,
            "reads": self.reads,
        }
        return Connection(**(own | settings))

    @property
    def table(self) -> Client:
        """The client. From here on until `command_ended`, a notice appears on a terminal if no server listens.

        Raises:
            click.UsageError: the URL is malformed
            Timeout: no server listens, and `no_wait` is set
        """
        client = self.open() if self._client is None else self._client  # an empty table is false
        if self._checked:
            return client
        self._checked = True
        if self.no_wait:
            wrong = self._unreachable()
            if wrong is not None:
                raise _Unreachable(f"cannot reach {self.where}: {wrong}")
        elif sys.stderr.isatty():
            self._notice = threading.Timer(NOTICE_S, self._say_that_it_waits)
            self._notice.daemon = True
            self._notice.start()
        return client

    @property
    def where(self) -> str:
        """The URL for people: without its parameters, control characters escaped."""
        from kvzmq.client.core.urls import without_parameters
        from kvzmq.units import printable

        return printable(without_parameters(self.url))

    @property
    def targets(self) -> list[Target]:
        """The servers, and the keys for each.

        Raises:
            click.UsageError: the URL is malformed, or a key cannot be used
        """
        from kvzmq.client.core.targets import parse_targets

        try:
            return parse_targets(self.url, self.curve_key, self.server_key)
        except ValueError as error:
            raise click.UsageError(str(error)) from None

    def open(self) -> Client:
        """Return the client, whether or not a server is there.

        Raises:
            click.UsageError: the URL is malformed
        """
        from kvzmq.client.sync.client import connect  # 70 ms, which `kvzmq --help` need not take

        try:
            if any(part.strip().startswith("inproc:") for part in self.url.split(",")):
                raise ValueError("inproc:// reaches sockets of one process only: use tcp://HOST:PORT or ipc:///PATH")
            self._client = connect(
                self.url, self.timeout_s, curve_key=self.curve_key, server_key=self.server_key, reads=self.reads
            )
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        return self._client

    def _unreachable(self) -> str | None:
        """Return why no server can be reached now, by plain connections; None if one can."""
        from kvzmq.cli.explain import unreachable

        return unreachable(self.url, min(PROBE_S, self.timeout_s))

    def _say_that_it_waits(self) -> None:
        from kvzmq.units import printable

        wrong = self._unreachable()
        if wrong is not None and self._notice is not None:
            why = printable(wrong.partition("; ")[0])
            click.echo(f"kvzmq: {why}; still trying, for {self.timeout_s:g} s (--no-wait does not)", err=True)

    def command_ended(self) -> None:
        """Cancel the notice; the next command checks again whether a server listens."""
        self._checked = False
        if self._notice is not None:
            self._notice.cancel()
            self._notice = None

    def explain(self, error: errors.KvzmqError) -> errors.KvzmqError:
        """Return, for a Timeout, one that says why the server cannot be reached; any other error unchanged."""
        if not isinstance(error, errors.Timeout) or isinstance(error, _Unreachable):
            return error
        from kvzmq.cli.explain import diagnose

        findings = diagnose(self.targets, min(PROBE_S, self.timeout_s))
        wrong = next((finding.text for finding in findings if not finding.well), "no answer in time")
        return errors.Timeout(f"cannot reach {self.where}: {wrong}")

    def close(self) -> None:
        """Drop the client, if there is one."""
        self.command_ended()
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
            click.Option(["--timeout", "timeout_s"], metavar="SECONDS", type=Quantity("seconds", above=True),
                         help="How long an answer may take.", expose_value=False, callback=_with_setting),
            click.Option(["--curve-key", "curve_key"], type=click.Path(dir_okay=False), metavar="FILE",
                         help="Your key, for a server with CURVE.", expose_value=False, callback=_with_setting),
            click.Option(["--server-key", "server_key"], metavar="KEY", expose_value=False, callback=_with_setting,
                         help="Its public key."),
            click.Option(["--reads", "reads"], type=click.Choice(READS), expose_value=False, callback=_with_setting,
                         help="How new what is read has to be, where several servers serve one table."),
            click.Option(["--no-wait", "no_wait"], is_flag=True, expose_value=False, callback=_with_setting,
                         help="Fail at once if no server listens there."),
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
        finally:
            ctx.obj.command_ended()


def _with_url(ctx: click.Context, _: click.Parameter, url: str | None) -> None:
    if url is not None:
        ctx.meta[URL_OPTION] = url  # for the completion of keys, which has no connection
        if ctx.obj is not None:
            _replace(ctx, url=url)


def _with_setting(ctx: click.Context, param: click.Parameter, value: object) -> None:
    if value is not None and value is not False and ctx.obj is not None:
        _replace(ctx, **{str(param.name): value})


def _replace(ctx: click.Context, **settings: Any) -> None:
    ctx.obj = connection = ctx.obj.with_settings(**settings)
    ctx.call_on_close(connection.close)


def json_option(command: F) -> F:
    """Add --json to a command, as the argument `as_json`."""
    return click.option("--json", "as_json", is_flag=True, envvar="KVZMQ_JSON", help="Print JSON, for machines.")(
        command
    )
