"""Joins the parts of `kvzmq server`: log, store, transports, what secures, observes and announces them."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence

import click
import zmq

from kvzmq import errors
from kvzmq.cli.serving.announcing import announcer_of
from kvzmq.cli.serving.log import compactor_of, open_home, recover, refuse_no_table
from kvzmq.cli.serving.options import Options
from kvzmq.cli.serving.securing import Secured, refuse_unprotected, secure
from kvzmq.curve import read_token
from kvzmq.server.loop import Server
from kvzmq.server.metrics import Metrics
from kvzmq.server.observer import Observer
from kvzmq.server.scrape import Scrape
from kvzmq.server.slow_log import SlowLog
from kvzmq.server.transport import Transport
from kvzmq.server.transport.router import RouterTransport
from kvzmq.server.transport.tcp import TcpTransport
from kvzmq.store.store import Store

_log = logging.getLogger(__name__)


def build(options: Options, observers: Sequence[Observer], stack: contextlib.ExitStack) -> Server:
    """Join the parts. The ports come first: who cannot listen need not read a million rows to learn it.

    Args:
        options: of the server
        observers: called for what the server does, besides its metrics
        stack: closes what was opened

    Raises:
        KvzmqError, OSError: the server cannot start, and why
    """
    refuse_no_table(options)
    refuse_unprotected(options.binds, options.tcp, bool(options.curve_keys), options.insecure)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    secured = None
    if options.clients is not None:
        secured = secure(context, options.curve_keys, options.clients, len(options.binds))
    home = open_home(options)
    stack.callback(home.close)
    store = Store(home.log)
    router = RouterTransport(context, options.binds, options.request_bytes_max, secured and secured.curve)
    bridge = _bridge(options, secured)
    transports: list[Transport] = [router] if bridge is None else [router, bridge]
    scrape = _scrape(options, stack)
    recover(store, home, [endpoint for transport in transports for endpoint in transport.endpoints])
    announcer, announcement = announcer_of(options, router.endpoints, None if bridge is None else bridge.port)
    built = Server(
        store, transports, compactor_of(options, store, home), announcer, announcement, options.group_commit,
        observers, Metrics(), scrape,
        request_bytes_max=options.request_bytes_max,
        zap=secured and secured.zap, access=secured and secured.access,
        slow_log=SlowLog(options.slow_log_ms / 1000) if options.slow_log_ms else None,
    )  # fmt: skip
    stack.callback(built.close)
    return built


def _bridge(options: Options, secured: Secured | None) -> TcpTransport | None:
    """Return the transport for JSON lines, listening, if there is to be one."""
    if options.tcp is None:
        return None
    token = None if options.token_path is None else read_token(options.token_path)
    bridge = TcpTransport(*options.tcp, request_bytes_max=options.request_bytes_max, token=token)
    if secured is not None and token is None:
        _log.warning("the bridge, port %d, asks for no keys: whoever reaches it may do everything", bridge.port)
    return bridge


def _scrape(options: Options, stack: contextlib.ExitStack) -> Scrape | None:
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
