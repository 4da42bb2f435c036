"""The loop of `kvzmq top`: asks the server once an interval, reads keys, draws, and survives what happens to either.

One event loop, no thread: a server that does not answer keeps no key waiting. What it may not do is change anything at
the server.
"""

from __future__ import annotations

import asyncio
import copy
import io
import signal
import time
from collections.abc import Sequence

import click
from rich.console import Console
from rich.text import Text

from kvzmq.cli.connection import Connection
from kvzmq.cli.explain import unreachable
from kvzmq.cli.top.drawing import BLOCKS, PLAIN, Size, picture
from kvzmq.cli.top.gathering import ANSWER_S_MAX, Gathered
from kvzmq.cli.top.screen import Screen
from kvzmq.cli.top.view import View, keys_in
from kvzmq.client.asyncio.client import AsyncClient, connect_async
from kvzmq.observing.waiting import ends_within

_PROBE_S = 0.5
_SAMPLE_LOOK_S = 0.1


class Watching:
    """One server on one screen, until a key or a signal ends it.

    Args:
        connection: which server, and with which keys
        view: what is shown at first
        screen: where; it has been entered
    """

    def __init__(self, connection: Connection, view: View, screen: Screen) -> None:
        self._connection = connection
        self._view = view
        self._screen = screen
        self._gathered = Gathered(connection.where)
        self._frozen: Gathered | None = None  # what is shown while it is paused
        self._ended = asyncio.Event()
        self._hurry = asyncio.Event()  # set when the interval was changed: do not wait for the old one
        self._signal: int | None = None

    async def run(self) -> int | None:
        """Show the server until the end; return the signal that ended it, or None for a key."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._screen.keys_fd, self._read_keys)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._end_by, number)
        loop.add_signal_handler(signal.SIGWINCH, self._draw)
        loop.add_signal_handler(signal.SIGTSTP, self._suspend)
        loop.add_signal_handler(signal.SIGCONT, self._resume)
        async with open_client(self._connection) as client:
            tasks = [asyncio.create_task(part) for part in (self._ask(client), self._sample(client), self._tick())]
            ended = asyncio.create_task(self._ended.wait())
            try:
                done, _ = await asyncio.wait([*tasks, ended], return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()  # what one of them raised
            finally:
                for task in (*tasks, ended):
                    task.cancel()
                await asyncio.gather(*tasks, ended, return_exceptions=True)
        return self._signal

    # ---- the server

    async def _ask(self, client: AsyncClient) -> None:
        while True:
            began_s = time.monotonic()
            await self._gathered.ask(client, min(ANSWER_S_MAX, self._connection.timeout_s))
            if self._gathered.silence is not None:
                await self._explain()
            self._draw()
            self._hurry.clear()
            left_s = self._view.interval_s - (time.monotonic() - began_s)
            await ends_within(self._hurry.wait(), max(0.0, left_s))

    async def _explain(self) -> None:
        """Say why nothing came, where a plain connection tells."""
        why = await asyncio.to_thread(unreachable, self._connection.url, _PROBE_S)
        if why is not None and self._gathered.silence is not None:
            self._gathered.silence = why.partition("; ")[0]

    async def _sample(self, client: AsyncClient) -> None:
        """Take a sample of the requests while that is wanted."""
        while True:
            if self._view.sampling and not self._gathered.sampling_trouble:
                await self._gathered.sample(client, lambda: self._view.sampling)
            elif not self._view.sampling:
                self._gathered.sampling_trouble = ""
            await asyncio.sleep(_SAMPLE_LOOK_S)

    async def _tick(self) -> None:
        """Draw once a second while the server is silent, as the picture says for how long."""
        while True:
            await asyncio.sleep(1.0)
            if self._gathered.silence is not None:
                self._draw()

    # ---- the terminal

    def _read_keys(self) -> None:
        typed = self._screen.keys()
        if not typed:
            self._end_by(signal.SIGHUP)  # nobody types there any more
            return
        interval_s = self._view.interval_s
        for key in keys_in(typed):
            self._view.press(key)
        if self._view.done:
            self._ended.set()
        if self._view.interval_s != interval_s:
            self._hurry.set()
        self._draw()

    def _draw(self) -> None:
        if self._ended.is_set():
            return
        if not self._view.paused:
            self._frozen = None
        elif self._frozen is None:
            self._frozen = copy.deepcopy(self._gathered)
        if self._frozen is not None:  # a server that is away is told of at any time
            self._frozen.silence, self._frozen.silent_since_s = self._gathered.silence, self._gathered.silent_since_s
        columns, lines = self._screen.size()
        size = Size(columns, lines, BLOCKS if self._screen.has_blocks else PLAIN)
        drawn = picture(self._frozen or self._gathered, self._view, size, time.strftime("%H:%M:%S"))
        try:
            self._screen.show(escaped(drawn, columns))
        except OSError:
            self._end_by(signal.SIGHUP)

    def _suspend(self) -> None:
        self._screen.suspend()
        self._draw()

    def _resume(self) -> None:
        """Draw anew: who was stopped by another signal than Ctrl-Z has not given the terminal back."""
        self._screen.take()
        self._draw()

    def _end_by(self, number: int) -> None:
        self._signal = number
        self._ended.set()


def open_client(connection: Connection) -> AsyncClient:
    """Return a client for the server, and the keys, that the command line names.

    Raises:
        click.UsageError: the URL is malformed, or the keys cannot be used
    """
    try:
        return connect_async(
            connection.url,
            connection.timeout_s,
            curve_key=connection.curve_key,
            server_key=connection.server_key,
        )
    except (ValueError, TypeError) as error:
        raise click.UsageError(str(error)) from None


def escaped(lines: Sequence[Text], columns: int, colored: bool = True) -> Sequence[str]:
    """Return lines with the escape sequences of their colours, or without."""
    out = io.StringIO()
    console = Console(
        file=out, width=columns, force_terminal=colored, color_system="auto" if colored else None, highlight=False
    )  # fmt: skip
    found = []
    for line in lines:
        console.print(line, end="", no_wrap=True, overflow="crop", crop=True)
        found.append(out.getvalue())
        out.seek(0)
        out.truncate()
    return found
