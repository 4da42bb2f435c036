"""What `kvzmq top` knows of a server: its latest figures, what became of them, and whether it still answers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kvzmq import errors
from kvzmq.observing.doctor import Evidence, Finding, diagnose, now_s
from kvzmq.observing.prefixes import HotPrefixes
from kvzmq.observing.rates import Rates, Snapshot, since_start
from kvzmq.observing.recent import Recent

if TYPE_CHECKING:
    from kvzmq.client.asyncio.client import AsyncClient

ANSWER_S_MAX = 2.0
"""How long an answer may take before the picture says that there is none."""


class Gathered:
    """The figures of one server, as far as they have come.

    Args:
        url: the server's
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.recent = Recent()
        self.alarms: Sequence[Finding] = ()
        """What is wrong, those first that hurt now: what `kvzmq doctor` would say."""
        self.silence: str | None = None
        """Why the server does not answer; None while it does."""
        self.silent_since_s = 0.0
        """When it did not answer for the first time, `time.monotonic`."""
        self.prefixes: HotPrefixes | None = None
        """What the sample of the requests says; None while none is taken."""
        self.sampling_trouble = ""
        """Why no sample can be taken, or ""."""

    @property
    def rates(self) -> Rates | None:
        """What happened lately: since the last answer but one, or since the server was started."""
        if self.recent.snapshot is None:
            return None
        return self.recent.latest or since_start(self.recent.snapshot)

    async def ask(self, client: AsyncClient, timeout_s: float = ANSWER_S_MAX) -> None:
        """Ask the server once, and take in what it says.

        Raises:
            NotAllowed: the client's key has not the right to ask for figures
        """
        try:
            snapshot = await snapshot_of(client, timeout_s)
        except errors.NotAllowed:
            raise
        except (errors.KvzmqError, OSError) as error:
            self.missed(str(error))
        else:
            self.answered(snapshot)

    def answered(self, snapshot: Snapshot) -> None:
        """Take in an answer."""
        self.silence = None
        self.recent.add(snapshot)
        self.alarms = diagnose(Evidence(url=self.url, stats=snapshot.stats, clients=snapshot.clients, asked_s=now_s()))

    def missed(self, why: str) -> None:
        """Note that there was no answer."""
        if self.silence is None:
            self.silent_since_s = time.monotonic()
        self.silence = why
        self.recent.miss()


async def snapshot_of(client: AsyncClient, timeout_s: float) -> Snapshot:
    """Return what a server says of itself and its clients. Raises as the client does."""
    stats: dict[str, Any] = await client.stats(timeout=timeout_s)
    try:
        clients = await client.clients(timeout=timeout_s)
    except errors.InvalidMethod:
        clients = []  # one of an earlier version, which does not list its clients
    return Snapshot(stats, clients)
