"""`kvzmq server`: the table's server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from kvzmq.cli.arguments import Address, CompactAfter, Endpoint, Size, TableInEtcd
from kvzmq.cli.config import ConfigurableCommand
from kvzmq.cli.logs import FORMATS
from kvzmq.cli.quantity import Quantity
from kvzmq.cli.serving.options import Options
from kvzmq.cli.serving.running import serve
from kvzmq.client.core.urls import URL_DEFAULT
from kvzmq.protocol import limits
from kvzmq.server.slow_log import SLOWER_THAN_S

F = TypeVar("F", bound=Callable[..., Any])

_HEADINGS = {
    "Table": ("data", "must-exist", "compact-after", "request-max", "group-commit"),
    "Log on etcd": (
        "log",
        "etcd-ca",
        "etcd-cert",
        "etcd-key",
        "etcd-user",
        "etcd-password-file",
        "etcd-quota",
        "etcd-margin",
        "new-epoch",
    ),
    "Endpoints": ("bind", "tcp"),
    "Security": ("curve-key", "clients", "token-file", "insecure"),
    "Catalog": ("project", "owner", "catalog"),
    "Log": ("log-level", "log-format", "trace", "slow-log-ms"),
    "Metrics": ("metrics", "metrics-token"),
    "Settings": ("config", "print-config"),
}
"""What the help shows together; options that are not here come last."""

_OF_ETCD = ("etcd_ca", "etcd_cert", "etcd_key", "etcd_user", "etcd_password_file", "new_epoch")
"""The options that say nothing without --log."""

_FILE: dict[str, Any] = {"type": click.Path(dir_okay=False, path_type=Path), "metavar": "FILE"}


def _option(*names: str, **settings: Any) -> Callable[[F], F]:
    """Return what adds an option; the variable KVZMQ_LONG_NAME sets it as well, unless `envvar` names another one."""
    long = names[0].partition("/")[0].lstrip("-").upper().replace("-", "_")
    return click.option(*names, **({"envvar": f"KVZMQ_{long}"} | settings))


@click.command(cls=ConfigurableCommand, headings=_HEADINGS)
@_option(
    "--data",
    type=click.Path(file_okay=False, readable=False, path_type=Path),
    default="kvzmq-data",
    show_default=True,
    help="Directory of the table's files; a new table is begun if there is none.",
)
@_option(
    "--must-exist",
    is_flag=True,
    help="Refuse to start, with exit code 3, if --data holds no table: it may not be mounted.",
)
@_option(
    "--bind",
    "binds",
    type=Endpoint(),
    multiple=True,
    default=(URL_DEFAULT,),
    show_default=True,
    metavar="URL",
    help="Endpoint for ZeroMQ clients; several times for several. Port 0 takes a free one.",
)
@_option("--tcp", type=Address(), help="Also speak JSON lines over TCP here.")
@_option(
    "--curve-key",
    "curve_keys",
    envvar="KVZMQ_SERVER_CURVE_KEY",
    **_FILE,
    multiple=True,
    help="Protect --bind with CURVE by this key, NAME.key_secret of `kvzmq keygen NAME`; or one for each --bind.",
)
@_option(
    "--clients",
    "clients",
    **_FILE,
    help="Who may do what: lines NAME KEY RIGHTS PREFIX... Read again when it changes, and on SIGHUP.",
)
@_option(
    "--token-file",
    "token_path",
    **_FILE,
    help="Clients of --tcp have to send the content of this file as their first line.",
)
@_option(
    "--insecure",
    is_flag=True,
    help="Listen on addresses that other machines reach, without CURVE: every program there may do everything.",
)
@_option(
    "--metrics",
    "metrics_address",
    type=Address(),
    help="Show metrics for Prometheus here over HTTP, and /health and /ready. Needs kvzmq[metrics].",
)
@_option(
    "--metrics-token",
    "metrics_token_path",
    **_FILE,
    help="Show metrics only to who sends what this file holds, as a bearer token.",
)
@_option("--project", metavar="NAME", help="Announce the server under this name to a catalog.")
@_option("--owner", metavar="NAME", help="Who runs it, for the catalog.  [default: the login name]")
@_option(
    "--catalog",
    "catalog_address",
    type=Address(),
    help="The catalog.  [default: CATALOG_HOST and CATALOG_PORT, or 127.0.0.1:9097]",
)
@_option(
    "--compact-after",
    type=CompactAfter(),
    help="Compact the log at so many records (1000) or so long a log (64M).  "
    "[default: when it outgrows the checkpoint and 64M]",
)
@_option(
    "--log",
    "log_url",
    type=TableInEtcd(),
    help="Share the log of table NAME on an etcd cluster with other servers, etcd://H:P,H:P,H:P/NAME; --data then "
    "holds a copy, which makes a restart fast. Needs kvzmq[etcd].",
)
@_option(
    "--etcd-ca",
    **_FILE,
    help="Certificates of the authorities that etcd's are signed by, PEM: connections use TLS.",
)
@_option(
    "--etcd-cert",
    **_FILE,
    help="The server's certificate for etcd, PEM.",
)
@_option(
    "--etcd-key",
    **_FILE,
    help="The private key of --etcd-cert.",
)
@_option("--etcd-user", metavar="NAME", help="The server's user in etcd.")
@_option(
    "--etcd-password-file",
    **_FILE,
    help="What holds the password of --etcd-user.",
)
@_option(
    "--etcd-quota",
    "etcd_quota_bytes",
    type=Size(1 << 20, 1 << 40),
    default="2G",
    show_default=True,
    help="The --quota-backend-bytes of etcd's members, to keep room for checkpoints; from 3.6 on they tell.",
)
@_option(
    "--etcd-margin",
    "etcd_margin_s",
    type=Quantity("seconds", 0.0, 86_400.0),
    default="60",
    show_default=True,
    metavar="SECONDS",
    help="How long groups are kept after a checkpoint that holds them, for servers that are behind.",
)
@_option(
    "--new-epoch",
    is_flag=True,
    help="Serve the table although etcd has lost what this server has served; for one start of one server.",
)
@_option(
    "--request-max",
    "request_bytes_max",
    type=Size(limits.REQUEST_BYTES_MIN, limits.REQUEST_BYTES_LIMIT),
    default="1M",
    show_default=True,
    help="The longest request, 1K to 8M: nobody else is served while one is read and executed.",
)
@_option(
    "--trace",
    "trace_path",
    metavar="FILE",
    help="Write a line for every request executed; - for standard output.",
)
@_option(
    "--slow-log-ms",
    "slow_log_ms",
    type=Quantity("milliseconds"),
    default=f"{1000 * SLOWER_THAN_S:g}",
    show_default=True,
    metavar="MS",
    help="Keep requests that take so long, for `kvzmq slowlog`; 0 keeps none.",
)
@_option(
    "--group-commit/--no-group-commit",
    default=True,
    help="One sync for all that arrived together, or one for each request: slow, to measure the difference.",
)
@_option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="How much to say on standard error.",
)
@_option(
    "--log-format",
    type=click.Choice(FORMATS),
    default="text",
    show_default=True,
    help="Lines for people, or a JSON object on each.",
)
@click.pass_context
def server(ctx: click.Context, /, **options: Any) -> None:
    """Serve the table in --data until SIGTERM or Ctrl-C. SIGHUP reads log settings again, and reopens the trace."""
    if options["catalog_address"] is not None and options["project"] is None:
        raise click.UsageError("--catalog says where to announce the server: under which name? Add --project NAME")
    if options["token_path"] is not None and options["tcp"] is None:
        raise click.UsageError("--token-file is for the bridge: add --tcp")
    keys = len(options["curve_keys"])
    if bool(keys) != (options["clients"] is not None):
        raise click.UsageError(
            "--curve-key and --clients go together: a key protects nothing without a list of clients"
        )
    if keys > 1 and keys != len(options["binds"]):
        raise click.UsageError(
            f"{keys} --curve-key and {len(options['binds'])} --bind: give one key for all, or one each"
        )
    if options["log_url"] is None and (named := [name for name in _OF_ETCD if options[name]]):
        raise click.UsageError(f"--{named[0].replace('_', '-')} is for a log on etcd: add --log etcd://...")
    if (options["etcd_user"] is None) != (options["etcd_password_file"] is None):
        raise click.UsageError("--etcd-user and --etcd-password-file go together")
    if (options["etcd_cert"] is None) != (options["etcd_key"] is None):
        raise click.UsageError("--etcd-cert and --etcd-key go together")
    if options["metrics_token_path"] is not None and options["metrics_address"] is None:
        raise click.UsageError("--metrics-token says who may see the metrics: where? Add --metrics HOST:PORT")
    serve(Options(**options), ctx)
