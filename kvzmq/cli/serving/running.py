"""Runs `kvzmq server`: from its options to its exit code, with its signals and what the service manager is told."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import resource
import signal
import sys
from typing import NoReturn

import click

from kvzmq import errors
from kvzmq.cli import REFUSED_TO_START, STORAGE_FAILED, text_of
from kvzmq.cli.config import option_of, read_again
from kvzmq.cli.logs import last_word, set_up
from kvzmq.cli.serving.building import build
from kvzmq.cli.serving.options import Options
from kvzmq.cli.serving.trace import open_trace, reopen_trace
from kvzmq.server.loop import Server
from kvzmq.server.service import Notifier
from kvzmq.units import count

_log = logging.getLogger(__name__)


def serve(options: Options, ctx: click.Context) -> None:
    """Build the server and serve until a signal ends it; exits the process with a code if that cannot be.

    Args:
        options: of the server
        ctx: of the command, whose settings are read again upon SIGHUP
    """
    set_up(options.log_level, options.log_format)
    hangups = _catch_hangups()
    _raise_descriptor_limit()
    is_there = options.data.exists()
    with contextlib.ExitStack() as stack:
        try:
            trace = open_trace(options.trace_path, stack)
            built = build(options, [] if trace is None else [trace], stack)
        except errors.CorruptionError as error:
            advice = (
                f" `kvzmq check {options.data}` says what is there, `kvzmq check --repair {options.data}` saves what "
                "can be read to a copy"
            )
            _exit(f"{error}. Nothing was changed.{advice if options.log_url is None else ''}", REFUSED_TO_START)
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
            built.reloads.add("trace", functools.partial(reopen_trace, trace, options.trace_path))

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
