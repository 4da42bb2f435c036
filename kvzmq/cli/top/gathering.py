"""What `kvzmq top` knows of a server: its latest figures, what became of them, and whether it still answers."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from kvzmq import errors
from kvzmq.observing.doctor import Evidence, Finding, diagnose
from kvzmq.observing.figures import clients_of, figures_of
from kvzmq.observing.prefixes import HotPrefixes
from kvzmq.observing.rates import Rates, Snapshot, since_start
from kvzmq.observing.recent import Recent
from kvzmq.protocol.limits import SAMPLE_MAX
from kvzmq.protocol.monitoring import MonitoredRequest

if TYPE_CHECKING:
    from kvzmq.client.asyncio.client import AsyncClient

ANSWER_S_MAX = 2.0
"""How long an answer may take before the picture says that there is none."""

CLIENTS_S_MAX = 10.0
"""How long the list of clients may take, page by page: it need not end."""

SAMPLED_PER_S = 100
"""How many requests of a sample there are to be a second: what a busy server spends on them is lost in its noise."""

SAMPLE_CHOSEN_S = 5.0
"""After what time it is chosen anew how thin a sample is."""

_LOOK_S = 0.25


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
        self._aged_s = time.monotonic()

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
        self.alarms = diagnose(
            Evidence(url=self.url, stats=snapshot.stats, clients=snapshot.clients, asked_s=time.time())
        )

    async def sample(self, client: AsyncClient, goes_on: Callable[[], bool]) -> None:
        """Take a sample of the requests, about SAMPLED_PER_S a second, as long as that is wanted.

        The server tells each request that passes; how many of them it is to pass over is chosen anew every few
        seconds, by how many there are.
        """
        self.prefixes = HotPrefixes()
        while goes_on() and not self.sampling_trouble:
            one_of = self._one_of()
            try:
                async with client.monitor(sample=one_of, timeout=ANSWER_S_MAX) as requests:
                    look_s = time.monotonic() + SAMPLE_CHOSEN_S
                    while goes_on():
                        with contextlib.suppress(errors.Timeout):
                            self._count(await requests.get(timeout=_LOOK_S), one_of)
                        if time.monotonic() >= look_s:
                            if not one_of / 2 <= self._one_of() <= one_of * 2:
                                break  # a new one: far more requests come, or far fewer
                            look_s += SAMPLE_CHOSEN_S
            except (errors.NotAllowed, errors.InvalidMethod, errors.ResultTooLarge) as error:
                self.sampling_trouble = f"no sample: {error}"
            except (errors.KvzmqError, OSError):
                await asyncio.sleep(_LOOK_S)  # the server is away, which the figures say

    def _one_of(self) -> int:
        """Return how thin the sample has to be now: one request of so many."""
        rates = self.recent.latest
        wanted = (rates.requests_per_s if rates else 0.0) / SAMPLED_PER_S
        return max(1, min(SAMPLE_MAX, round(wanted)))

    def _count(self, request: MonitoredRequest, stands_for: int) -> None:
        assert self.prefixes is not None
        now_s = time.monotonic()
        if now_s - self._aged_s >= _LOOK_S:
            self.prefixes.age(now_s - self._aged_s)
            self._aged_s = now_s
        for operation in request.operations:
            if operation.key is not None:
                self.prefixes.add(operation.key, stands_for)

    def missed(self, why: str) -> None:
        """Note that there was no answer."""
        if self.silence is None:
            self.silent_since_s = time.monotonic()
        self.silence = why
        self.recent.miss()


async def snapshot_of(client: AsyncClient, timeout_s: float) -> Snapshot:
    """Return what a server says of itself and its clients. Raises as the client does."""
    stats = figures_of(await client.stats(timeout=timeout_s))
    try:
        found = await asyncio.wait_for(client.clients(timeout=timeout_s), CLIENTS_S_MAX)
    except errors.InvalidMethod:
        found = []  # one of an earlier version, which does not list its clients
    except asyncio.TimeoutError:
        raise errors.Timeout(f"the list of clients did not end within {CLIENTS_S_MAX:g} s") from None
    return Snapshot(stats, clients_of(found))
