"""`kvzmq server`: the table's server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from kvzmq.cli.arguments import Address, CompactAfter, Endpoint, Size, TableInEtcd
from kvzmq.cli.config import ConfigurableCommand
from kvzmq.cli.logs import FORMATS
from kvzmq.cli.serving.options import Options
from kvzmq.cli.serving.running import serve
from kvzmq.protocol import messages
from kvzmq.server.slow_log import SLOWER_THAN_S

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


@click.command(cls=ConfigurableCommand, headings=_HEADINGS)
@click.option(
    "--data",
    type=click.Path(file_okay=False, readable=False, path_type=Path),
    default="kvzmq-data",
    envvar="KVZMQ_DATA",
    show_default=True,
    help="Directory of the table's files; a new table is begun if there is none.",
)
@click.option(
    "--must-exist",
    is_flag=True,
    envvar="KVZMQ_MUST_EXIST",
    help="Refuse to start, with exit code 3, if --data holds no table: it may not be mounted.",
)
@click.option(
    "--bind",
    "binds",
    type=Endpoint(),
    multiple=True,
    default=("tcp://127.0.0.1:5570",),
    envvar="KVZMQ_BIND",
    show_default=True,
    metavar="URL",
    help="Endpoint for ZeroMQ clients; several times for several. Port 0 takes a free one.",
)
@click.option("--tcp", type=Address(), envvar="KVZMQ_TCP", help="Also speak JSON lines over TCP here.")
@click.option(
    "--curve-key",
    "curve_keys",
    envvar="KVZMQ_SERVER_CURVE_KEY",
    type=click.Path(dir_okay=False, path_type=Path),
    multiple=True,
    metavar="FILE",
    help="Protect --bind with CURVE by this key, NAME.key_secret of `kvzmq keygen NAME`; or one for each --bind.",
)
@click.option(
    "--clients",
    "clients",
    envvar="KVZMQ_CLIENTS",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Who may do what: lines NAME KEY RIGHTS PREFIX... Read again when it changes, and on SIGHUP.",
)
@click.option(
    "--token-file",
    "token_path",
    envvar="KVZMQ_TOKEN_FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Clients of --tcp have to send the content of this file as their first line.",
)
@click.option(
    "--insecure",
    envvar="KVZMQ_INSECURE",
    is_flag=True,
    help="Listen on addresses that other machines reach, without CURVE: every program there may do everything.",
)
@click.option(
    "--metrics",
    "metrics_address",
    type=Address(),
    envvar="KVZMQ_METRICS",
    help="Show metrics for Prometheus here over HTTP, and /health and /ready. Needs kvzmq[metrics].",
)
@click.option(
    "--metrics-token",
    "metrics_token_path",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="KVZMQ_METRICS_TOKEN",
    metavar="FILE",
    help="Show metrics only to who sends what this file holds, as a bearer token.",
)
@click.option(
    "--project", envvar="KVZMQ_PROJECT", metavar="NAME", help="Announce the server under this name to a catalog."
)
@click.option(
    "--owner", envvar="KVZMQ_OWNER", metavar="NAME", help="Who runs it, for the catalog.  [default: the login name]"
)
@click.option(
    "--catalog",
    "catalog_address",
    type=Address(),
    envvar="KVZMQ_CATALOG",
    help="The catalog.  [default: CATALOG_HOST and CATALOG_PORT, or 127.0.0.1:9097]",
)
@click.option(
    "--compact-after",
    type=CompactAfter(),
    envvar="KVZMQ_COMPACT_AFTER",
    help="Compact the log at so many records (1000) or so long a log (64M).  "
    "[default: when it outgrows the checkpoint and 64M]",
)
@click.option(
    "--log",
    "log_url",
    type=TableInEtcd(),
    envvar="KVZMQ_LOG",
    help="Share the log of table NAME on an etcd cluster with other servers, etcd://H:P,H:P,H:P/NAME; --data then "
    "holds a copy, which makes a restart fast. Needs kvzmq[etcd].",
)
@click.option(
    "--etcd-ca",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="KVZMQ_ETCD_CA",
    metavar="FILE",
    help="Certificates of the authorities that etcd's are signed by, PEM: connections use TLS.",
)
@click.option(
    "--etcd-cert",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="KVZMQ_ETCD_CERT",
    metavar="FILE",
    help="The server's certificate for etcd, PEM.",
)
@click.option(
    "--etcd-key",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="KVZMQ_ETCD_KEY",
    metavar="FILE",
    help="The private key of --etcd-cert.",
)
@click.option("--etcd-user", envvar="KVZMQ_ETCD_USER", metavar="NAME", help="The server's user in etcd.")
@click.option(
    "--etcd-password-file",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="KVZMQ_ETCD_PASSWORD_FILE",
    metavar="FILE",
    help="What holds the password of --etcd-user.",
)
@click.option(
    "--etcd-quota",
    "etcd_quota_bytes",
    type=Size(1 << 20, 1 << 40),
    default="2G",
    envvar="KVZMQ_ETCD_QUOTA",
    show_default=True,
    help="The --quota-backend-bytes of etcd's members, to be warned in time; from 3.6 on they tell.",
)
@click.option(
    "--etcd-margin",
    "etcd_margin_s",
    type=click.FloatRange(0.0, 86_400.0),
    default="60",
    envvar="KVZMQ_ETCD_MARGIN",
    show_default=True,
    metavar="SECONDS",
    help="How long groups are kept after a checkpoint that holds them, for servers that are behind.",
)
@click.option(
    "--new-epoch",
    is_flag=True,
    envvar="KVZMQ_NEW_EPOCH",
    help="Serve the table although etcd has lost what this server has served; for one start of one server.",
)
@click.option(
    "--request-max",
    "request_bytes_max",
    type=Size(messages.REQUEST_BYTES_MIN, messages.REQUEST_BYTES_LIMIT),
    default="1M",
    envvar="KVZMQ_REQUEST_MAX",
    show_default=True,
    help="The longest request, 1K to 8M: nobody else is served while one is read and executed.",
)
@click.option(
    "--trace",
    "trace_path",
    envvar="KVZMQ_TRACE",
    metavar="FILE",
    help="Write a line for every request executed; - for standard output.",
)
@click.option(
    "--slow-log-ms",
    "slow_log_ms",
    type=click.FloatRange(min=0),
    default=f"{1000 * SLOWER_THAN_S:g}",
    envvar="KVZMQ_SLOW_LOG_MS",
    show_default=True,
    metavar="MS",
    help="Keep requests that take so long, for `kvzmq slowlog`; 0 keeps none.",
)
@click.option(
    "--group-commit/--no-group-commit",
    default=True,
    envvar="KVZMQ_GROUP_COMMIT",
    help="One sync for all that arrived together, or one for each request: slow, to measure the difference.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    envvar="KVZMQ_LOG_LEVEL",
    show_default=True,
    help="How much to say on standard error.",
)
@click.option(
    "--log-format",
    type=click.Choice(FORMATS),
    default="text",
    envvar="KVZMQ_LOG_FORMAT",
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
