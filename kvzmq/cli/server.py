"""`kvzmq server`: the table's server."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import re
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import click
import zmq

from kvzmq import catalog, errors
from kvzmq.cli import REFUSED_TO_START, STORAGE_FAILED
from kvzmq.server import Server
from kvzmq.store import Store
from kvzmq.store.compact import Compactor, renew
from kvzmq.store.file_log import FileLog
from kvzmq.store.files import DiskDirectory
from kvzmq.trace import Trace
from kvzmq.transport import Transport
from kvzmq.transport.router import RouterTransport
from kvzmq.transport.tcp import TcpTransport

_UNITS = {"": None, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


class _Address(click.ParamType[tuple[str, int]]):
    """HOST:PORT, or PORT alone for this machine's loopback."""

    name = "HOST:PORT"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        if isinstance(value, tuple):
            return value
        host, _, port = str(value).rpartition(":")
        if not port.isdigit() or int(port) > 65535:
            self.fail(f"{value!r} is not HOST:PORT", param, ctx)
        return host.strip("[]") or "127.0.0.1", int(port)


class _CompactAfter(click.ParamType[tuple[str, int]]):
    """A number of records, or a size such as 64M."""

    name = "N|SIZE"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"(\d+)\s*([kmg]?)(?:i?b)?", str(value).strip().lower())
        if match is None or int(match[1]) == 0:
            self.fail(f"{value!r} is neither a number of records (1000) nor a size (64M)", param, ctx)
        unit = _UNITS[match[2]]
        return ("records", int(match[1])) if unit is None else ("bytes", int(match[1]) * unit)


@click.command()
@click.option("--data", type=click.Path(file_okay=False, path_type=Path), default="kvzmq-data", envvar="KVZMQ_DATA",
              show_default=True, help="Directory of the table's files.")
@click.option("--bind", "binds", multiple=True, default=("tcp://127.0.0.1:5570",), envvar="KVZMQ_BIND",
              show_default=True, metavar="URL", help="Endpoint for ZeroMQ clients; several times for several. Port 0 takes a free one.")
@click.option("--tcp", type=_Address(), envvar="KVZMQ_TCP", help="Also speak JSON lines over TCP here.")
@click.option("--project", envvar="KVZMQ_PROJECT", metavar="NAME", help="Announce the server under this name to a catalog.")
@click.option("--owner", envvar="KVZMQ_OWNER", metavar="NAME", help="Who runs it, for the catalog.  [default: the login name]")
@click.option("--catalog", "catalog_address", type=_Address(), envvar="KVZMQ_CATALOG",
              help="The catalog.  [default: CATALOG_HOST and CATALOG_PORT, or 127.0.0.1:9097]")
@click.option("--compact-after", type=_CompactAfter(), envvar="KVZMQ_COMPACT_AFTER",
              help="Compact the log at so many records (1000) or so long a log (64M).  [default: when it outgrows the checkpoint and 64M]")
@click.option("--trace", "trace_path", envvar="KVZMQ_TRACE", metavar="FILE", help="Write a line for every request executed; - for standard output.")
@click.option("--group-commit/--no-group-commit", default=True, envvar="KVZMQ_GROUP_COMMIT",
              help="One sync for all that arrived together, or one for each request: slow, to measure the difference.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", envvar="KVZMQ_LOG_LEVEL",
              show_default=True, help="How much to say on standard error.")
def server(**options: Any) -> None:
    """Serve the table in --data until SIGTERM or Ctrl-C."""
    _serve(_Options(**options))


@dataclass(frozen=True)
class _Options:
    """What was said on the command line and in the environment."""

    data: Path
    binds: tuple[str, ...]
    tcp: tuple[str, int] | None
    project: str | None
    owner: str | None
    catalog_address: tuple[str, int] | None
    compact_after: tuple[str, int] | None
    trace_path: str | None
    group_commit: bool
    log_level: str


def _serve(options: _Options) -> None:
    logging.basicConfig(level=options.log_level.upper(), format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    _raise_descriptor_limit()
    with contextlib.ExitStack() as stack:
        try:
            trace = _open_trace(options.trace_path, stack)
            built = _build(options, trace, stack)
        except errors.Damaged as error:
            _exit(f"{error}. Nothing was changed. `kvzmq check {options.data}` says what is there, "
                  f"`kvzmq check --repair {options.data}` saves what can be read to a copy", REFUSED_TO_START)  # fmt: skip
        except (errors.KvzmqError, OSError) as error:
            _exit(str(error), REFUSED_TO_START)
        for transport in built.transports:
            for endpoint in transport.endpoints:
                click.echo(f"Listening on {endpoint}")
        sys.stdout.flush()
        try:
            built.run()
        except errors.StorageFailed as error:
            # Not even a clean stop: whatever is still queued must not leave, and must not be synced as if all were well.
            print(f"kvzmq: {error}; stopped at once, as nobody can tell what is on the disk", file=sys.stderr, flush=True)
            os._exit(STORAGE_FAILED)


def _build(options: _Options, trace: Trace | None, stack: contextlib.ExitStack) -> Server:
    """Join the parts. The ports come first: who cannot listen need not read a million rows to learn it."""
    directory = DiskDirectory(options.data)
    log = FileLog(directory)
    store = Store(log)
    transports: list[Transport] = [RouterTransport(zmq.Context(), options.binds)]
    bridge_port = None
    if options.tcp is not None:
        bridge = TcpTransport(*options.tcp)
        bridge_port = bridge.port
        transports.append(bridge)
    store.recover()
    renew(log)
    store.begin_epoch(time.time_ns() // 1000)
    _spare_the_collector()
    unit, threshold = options.compact_after or (None, None)
    compactor = Compactor(
        store,
        log,
        after_records=threshold if unit == "records" else None,
        after_bytes=threshold if unit == "bytes" else None,
    )
    announcer = None
    announce = None
    project = options.project
    if project is not None:
        announcer = catalog.Announcer(*(options.catalog_address or catalog.default_address()))
        endpoint = transports[0].endpoints[0]
        port = bridge_port or _port_of(endpoint)

        def announce(revision: int, keys: int, clients: int) -> catalog.Announcement:
            return catalog.Announcement(
                owner=options.owner or _login_name(),
                port=port,
                project=project,
                endpoint=endpoint,
                revision=revision,
                keys=keys,
                clients=clients,
            )

    built = Server(store, transports, compactor, announcer, announce, options.group_commit, trace)
    stack.callback(built.close)
    return built


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


def _raise_descriptor_limit() -> None:
    """Allow as many connections as the system lets us: at the limit new clients would hang unheard."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _exit(message: str, code: int) -> NoReturn:
    click.echo(f"kvzmq: {message}", err=True)
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


def _port_of(endpoint: str) -> int:
    port = endpoint.rpartition(":")[2]
    return int(port) if port.isdigit() else 0
