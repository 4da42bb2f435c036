"""`kvzmq server`: the table's server."""

from __future__ import annotations

import contextlib
import functools
import gc
import logging
import os
import re
import resource
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import click
import zmq

from kvzmq import __version__, catalog, errors
from kvzmq.cli import REFUSED_TO_START, STORAGE_FAILED, text_of
from kvzmq.cli.arguments import PORT_MAX, Endpoint
from kvzmq.cli.config import ConfigurableCommand, option_of, read_again
from kvzmq.cli.homes import ClusterHome, DirectoryHome, Home
from kvzmq.cli.logs import FORMATS, last_word, set_up
from kvzmq.cli.securing import refuse_unprotected, secure
from kvzmq.curve import read_token
from kvzmq.protocol import messages
from kvzmq.server.loop import Server
from kvzmq.server.metrics import Metrics
from kvzmq.server.scrape import Scrape
from kvzmq.server.service import Notifier
from kvzmq.server.transport import Transport
from kvzmq.server.transport.router import RouterTransport
from kvzmq.server.transport.tcp import TcpTransport
from kvzmq.store.etcd.url import EtcdUrl, parse_url, read_security
from kvzmq.store.offline.reading import NAMES, NoTable
from kvzmq.store.store import Store
from kvzmq.tracing.trace import Trace
from kvzmq.units import count, duration, size

_log = logging.getLogger(__name__)

_UNITS = {"": None, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_SIZE = re.compile(r"(\d+)\s*([kmg]?)(?:i?b)?")


class _Address(click.ParamType[tuple[str, int]]):
    """HOST:PORT, or PORT alone for this machine's loopback."""

    name = "HOST:PORT"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        if isinstance(value, tuple):
            return value
        host, _, port = str(value).rpartition(":")
        if not (port.isascii() and port.isdecimal()):
            self.fail(f"{value!r} is not HOST:PORT", param, ctx)
        if int(port) > PORT_MAX:
            self.fail(f"{value!r}: there is no port {port}, the highest is {PORT_MAX}", param, ctx)
        return host.strip("[]") or "127.0.0.1", int(port)


class _CompactAfter(click.ParamType[tuple[str, int]]):
    """A number of records, or a size such as 64M."""

    name = "N|SIZE"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        if isinstance(value, tuple):
            return value
        match = _SIZE.fullmatch(str(value).strip().lower())
        if match is None or int(match[1]) == 0:
            self.fail(f"{value!r} is neither a number of records (1000) nor a size (64M)", param, ctx)
        unit = _UNITS[match[2]]
        return ("records", int(match[1])) if unit is None else ("bytes", int(match[1]) * unit)


class _Size(click.ParamType[int]):
    """A number of bytes within bounds, such as 65536, 64K or 1M."""

    name = "SIZE"

    def __init__(self, bytes_min: int, bytes_max: int) -> None:
        self._bytes_min = bytes_min
        self._bytes_max = bytes_max

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = _SIZE.fullmatch(str(value).strip().lower())
        size = int(match[1]) * (_UNITS[match[2]] or 1) if match is not None else 0
        if not self._bytes_min <= size <= self._bytes_max:
            self.fail(
                f"{value!r} is not a size from {self._bytes_min} to {self._bytes_max} bytes, such as 1M", param, ctx
            )
        return size


class _EtcdUrl(click.ParamType[EtcdUrl]):
    """etcd://HOST:PORT,HOST:PORT/NAME."""

    name = "URL"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> EtcdUrl:
        if isinstance(value, EtcdUrl):
            return value
        try:
            return parse_url(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


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
    "Log": ("log-level", "log-format", "trace"),
    "Metrics": ("metrics", "metrics-token"),
    "Settings": ("config", "print-config"),
}
"""What the help shows together; options that are not here come last."""


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
@click.option("--tcp", type=_Address(), envvar="KVZMQ_TCP", help="Also speak JSON lines over TCP here.")
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
    type=_Address(),
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
    type=_Address(),
    envvar="KVZMQ_CATALOG",
    help="The catalog.  [default: CATALOG_HOST and CATALOG_PORT, or 127.0.0.1:9097]",
)
@click.option(
    "--compact-after",
    type=_CompactAfter(),
    envvar="KVZMQ_COMPACT_AFTER",
    help="Compact the log at so many records (1000) or so long a log (64M).  "
    "[default: when it outgrows the checkpoint and 64M]",
)
@click.option(
    "--log",
    "log_url",
    type=_EtcdUrl(),
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
    type=_Size(1 << 20, 1 << 40),
    default="2G",
    envvar="KVZMQ_ETCD_QUOTA",
    show_default=True,
    help="The --quota-backend-bytes of etcd's members, to be warned in time; from 3.6 on they tell.",
)
@click.option(
    "--etcd-margin",
    "etcd_margin_s",
    type=click.IntRange(0, 86_400),
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
    type=_Size(messages.REQUEST_BYTES_MIN, messages.REQUEST_BYTES_LIMIT),
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
    _serve(_Options(**options), ctx)


_OF_ETCD = ("etcd_ca", "etcd_cert", "etcd_key", "etcd_user", "etcd_password_file", "new_epoch")


@dataclass(frozen=True)
class _Options:
    """What was said on the command line, in the environment and in a file."""

    data: Path
    must_exist: bool
    binds: tuple[str, ...]
    tcp: tuple[str, int] | None
    curve_keys: tuple[Path, ...]
    clients: Path | None
    token_path: Path | None
    insecure: bool
    metrics_address: tuple[str, int] | None
    metrics_token_path: Path | None
    project: str | None
    owner: str | None
    catalog_address: tuple[str, int] | None
    compact_after: tuple[str, int] | None
    log_url: EtcdUrl | None
    etcd_ca: Path | None
    etcd_cert: Path | None
    etcd_key: Path | None
    etcd_user: str | None
    etcd_password_file: Path | None
    etcd_quota_bytes: int
    etcd_margin_s: int
    new_epoch: bool
    request_bytes_max: int
    trace_path: str | None
    group_commit: bool
    log_level: str
    log_format: str


def _serve(options: _Options, ctx: click.Context) -> None:
    set_up(options.log_level, options.log_format)
    hangups = _catch_hangups()
    _raise_descriptor_limit()
    is_there = options.data.exists()
    with contextlib.ExitStack() as stack:
        try:
            trace = _open_trace(options.trace_path, stack)
            built = _build(options, trace, stack)
        except errors.CorruptionError as error:
            _exit(
                f"{error}. Nothing was changed. `kvzmq check {options.data}` says what is there, "
                f"`kvzmq check --repair {options.data}` saves what can be read to a copy"
                if options.log_url is None
                else f"{error}. Nothing was changed",
                REFUSED_TO_START,
            )
        except (errors.KvzmqError, OSError) as error:
            if not is_there:
                with contextlib.suppress(OSError):  # it holds something by now
                    options.data.rmdir()
            _exit(text_of(error), REFUSED_TO_START)
        notifier = Notifier.of_environment(os.environ, lambda: _status(built))
        stack.callback(notifier.close)
        built.timers.add(notifier.beat)
        built.reloads.around = notifier.reloading
        built.reloads.add("settings", lambda: _reload_settings(ctx))
        if trace is not None and options.trace_path not in (None, "-"):
            built.reloads.add("trace", functools.partial(_reopen_trace, trace, options.trace_path))

        def ready() -> None:
            _say_where_it_listens(built)
            notifier.ready()
            if hangups:
                os.kill(os.getpid(), signal.SIGHUP)  # now the loop hears it

        try:
            built.run(ready)
        except errors.StorageFatal as error:
            # Not even a clean stop: whatever is still queued must not leave, and must not be synced as if all were
            # well.
            last_word(
                f"{error}; stopped at once, as nobody can tell what is on the disk", "storage_failed", STORAGE_FAILED
            )
            os._exit(STORAGE_FAILED)
        notifier.stopping()


def _build(options: _Options, trace: Trace | None, stack: contextlib.ExitStack) -> Server:
    """Join the parts. The ports come first: who cannot listen need not read a million rows to learn it."""
    if options.must_exist and options.log_url is None and not _holds_table(options.data):
        raise NoTable(
            f"{options.data.resolve()} holds no table, and --must-exist says not to begin one: "
            "is it the right directory, is its disk mounted?"
        )
    refuse_unprotected(options.binds, options.tcp, bool(options.curve_keys), options.insecure)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    secured = None
    if options.clients is not None:
        secured = secure(context, options.curve_keys, options.clients, len(options.binds))
    home = _home(options)
    stack.callback(home.close)
    store = Store(home.log)
    curve = None if secured is None else secured.curve
    transports: list[Transport] = [RouterTransport(context, options.binds, options.request_bytes_max, curve)]
    bridge_port = None
    if options.tcp is not None:
        token = None if options.token_path is None else read_token(options.token_path)
        bridge = TcpTransport(*options.tcp, request_bytes_max=options.request_bytes_max, token=token)
        bridge_port = bridge.port
        transports.append(bridge)
        if secured is not None and token is None:
            _log.warning("the bridge, port %d, asks for no keys: whoever reaches it may do everything", bridge_port)
    scrape = _scrape(options, stack)
    began_s = time.monotonic()
    store.recover()
    is_new = store.revision == 0 and store.table.epochs.lineage is None
    home.check(store)
    store.begin_epoch(time.time_ns() // 1000)
    _spare_the_collector()
    endpoints = [endpoint for transport in transports for endpoint in transport.endpoints]
    _say_what_it_serves(home, store, endpoints, None if is_new else time.monotonic() - began_s)
    unit, threshold = options.compact_after or (None, None)
    compactor = home.compactor(store, threshold if unit == "records" else None, threshold if unit == "bytes" else None)
    announcer, announcement = _announcer(options, transports[0].endpoints, bridge_port)
    built = Server(
        store, transports, compactor, announcer, announcement, options.group_commit, [trace] if trace else [],
        Metrics(), scrape,
        request_bytes_max=options.request_bytes_max,
        zap=secured and secured.zap, access=secured and secured.access,
    )  # fmt: skip
    stack.callback(built.close)
    return built


def _scrape(options: _Options, stack: contextlib.ExitStack) -> Scrape | None:
    """Return what shows the metrics; it listens from here on, as recovery may take long."""
    if options.metrics_address is None:
        return None
    try:
        from kvzmq.server.exposition import CONTENT_TYPE_LATEST, render
    except ModuleNotFoundError:
        raise errors.CannotListen("--metrics needs prometheus-client: pip install 'kvzmq[metrics]'") from None
    token = None
    if options.metrics_token_path is not None:
        token = options.metrics_token_path.read_bytes().strip()
        if not token:
            raise errors.CannotListen(f"{options.metrics_token_path} is empty: it holds the token for --metrics")
    scrape = Scrape(*options.metrics_address, render, CONTENT_TYPE_LATEST, token, open_to_others=options.insecure)
    stack.callback(scrape.close)
    click.echo(f"Metrics on {scrape.endpoint}")
    _log.info("metrics on %s", scrape.endpoint)
    return scrape


def _holds_table(path: Path) -> bool:
    return any((path / name).exists() for name in NAMES)


def _home(options: _Options) -> Home:
    if options.log_url is None:
        return DirectoryHome(options.data)
    password = options.etcd_password_file
    security = read_security(
        options.etcd_ca,
        options.etcd_cert,
        options.etcd_key,
        options.etcd_user,
        None if password is None else password.read_text().rstrip("\n"),
    )
    return ClusterHome(
        options.log_url, security, options.data, options.etcd_quota_bytes, options.etcd_margin_s, options.new_epoch
    )


def _say_what_it_serves(home: Home, store: Store, endpoints: Sequence[str], seconds: float | None) -> None:
    """Say in the log which table this is, and how long recovery took, or None for a new one."""
    what = "a new table"
    if seconds is not None:
        table = store.table
        what = (
            f"{count(len(table.rows), 'row')}, revision {table.revision:,}, recovered in {duration(seconds)} from "
            f"a checkpoint of {size(home.checkpoint_bytes)} and {count(store.records, 'request')} in the log"
        )
    identity = store.identity()
    _log.info(
        "kvzmq %s, process %d, serves %s: %s; lineage %s, epoch %s",
        __version__, os.getpid(), home.name, what, identity["lineage"], identity["epoch"],
        extra={
            "event": "started", "version": __version__, "pid": os.getpid(), "directory": home.name,
            **identity, "revision": store.revision, "rows": store.row_count, "endpoints": endpoints,
            "recovery_s": None if seconds is None else round(seconds, 3), "checkpoint_bytes": home.checkpoint_bytes,
            "requests_in_log": store.records,
        },
    )  # fmt: skip


def _say_where_it_listens(server: Server) -> None:
    for transport in server.transports:
        for endpoint in transport.endpoints:
            click.echo(f"Listening on {endpoint}")
            _log.info("listening on %s", endpoint, extra={"event": "listening", "endpoint": endpoint})
    sys.stdout.flush()


def _status(server: Server) -> str:
    """Return what `systemctl status` shows."""
    rows, clients = count(server.store.row_count, "row"), count(server.clients(), "connection")
    trouble = server.store.trouble
    return f"{rows} at revision {server.store.revision:,}, {clients}{f'; cannot write: {trouble}' if trouble else ''}"


_RELOADED = ("log_level", "log_format")
"""The options that a running server takes from its file."""


def _reload_settings(ctx: click.Context) -> str | None:
    """Read the file again; take from it what can be taken, and say what needs a restart."""
    changed = read_again(ctx)
    taken = {name: value for name, value in changed.items() if name in _RELOADED}
    ctx.params |= taken
    if taken:
        set_up(ctx.params["log_level"], ctx.params["log_format"])
    left = [option_of(ctx, name) for name in changed if name not in taken]
    if left:
        _log.warning(
            "SIGHUP: a restart is needed to change %s", ", ".join(left),
            extra={"event": "restart_needed", "options": left},
        )  # fmt: skip
    said = ", ".join(f"{option_of(ctx, name)} is {value}" for name, value in taken.items())
    return said or None


def _reopen_trace(trace: Trace, path: str) -> str:
    # Without waiting: to open a pipe that nobody reads any more would hold the loop up for ever.
    file = open(path, "a", encoding="utf-8", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK, 0o666))
    os.set_blocking(file.fileno(), True)
    trace.go_on_in(file)
    return f"goes on in {path}"


def _announcer(
    options: _Options, endpoints: Sequence[str], bridge_port: int | None
) -> tuple[catalog.Announcer | None, catalog.Announcement | None]:
    """Return what tells a catalog of the server, and what it tells; warn if that will be of little use."""
    if options.project is None:
        return None, None
    host, port = options.catalog_address or catalog.default_address()
    announcement = catalog.announcement_of(options.project, options.owner or _login_name(), endpoints, bridge_port)
    if announcement is None:
        _log.warning(
            "not announced as %s: no other machine reaches ipc://; add a --bind tcp://HOST:PORT", options.project
        )
        return None, None
    endpoint = catalog.parse_endpoint(str(announcement.endpoint))
    if endpoint is not None and endpoint.is_loopback and not catalog.is_loopback(host):
        _log.warning("announced as %s, but only this machine reaches %s", options.project, endpoint)
    return catalog.Announcer(host, port), announcement


def _login_name() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def _open_trace(path: str | None, stack: contextlib.ExitStack) -> Trace | None:
    if path is None:
        return None
    if path == "-":
        return Trace(sys.stdout)
    trace = Trace(Path(path).open("w", encoding="utf-8"))
    stack.callback(trace.close)
    return trace


def _catch_hangups() -> list[int]:
    """Return a list that gets the SIGHUPs until the loop takes them: one during recovery would end the process.

    systemd takes that for a clean end and does not restart it. A SIGHUP that is ignored stays so, see Server.
    """
    caught: list[int] = []
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda number, _: caught.append(number))
    return caught


def _raise_descriptor_limit() -> None:
    """Allow as many connections as the system lets us: at the limit new clients would hang unheard."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _exit(message: str, code: int) -> NoReturn:
    last_word(message, "refused_to_start", code)
    sys.exit(code)


def _spare_the_collector() -> None:
    """Keep the garbage collector from going through everything the table holds.

    Rows are nothing to it, but sessions and latest changes are, and a full collection of 20,000
    sessions took 0.2 s here. What recovery has built stays; young objects are still looked at; the
    loop makes no cycles that would have to be found among the old.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 50, 1_000_000)
