"""A thread that polls etcd for a table's upkeep: which checkpoint there is, and how much room etcd has.

The loop never waits for etcd: it reads the latest answers.
"""

from __future__ import annotations

import contextlib
import threading
from typing import NamedTuple

from kvzmq import errors
from kvzmq.store.etcd.checkpoints import Head, Keys, decode_head, head_key, trimmed_key, trimmed_until
from kvzmq.store.etcd.client import EtcdError
from kvzmq.store.etcd.space import Members, Status

POLL_S = 1.0
"""How often etcd is asked which checkpoint there is."""

STATUS_POLLS = 10
"""In how many polls the members are asked for the size of their files, once."""

CLOSE_S_MAX = 0.5
"""How long a poll is waited for at the end."""


class Answer(NamedTuple):
    """What etcd has said last.

    head      which checkpoint there is
    trimmed   groups put until this revision of etcd may be gone
    revision  etcd's
    """

    head: Head | None
    trimmed: int
    revision: int


class Poller:
    """A thread that asks etcd, and keeps its last answers for whoever reads them.

    Args:
        keys, members: used by this thread alone
        name: the table's
        poll_s: how often
    """

    def __init__(self, keys: Keys, members: Members, name: str, poll_s: float = POLL_S) -> None:
        self.latest: Answer | None = None
        """The latest answer; None until there is one."""
        self.status: Status | None = None
        """Of the member with the largest file, as it was when all of them were asked last."""
        self.trouble: str | None = None
        """Why the latest poll got no answer, or None."""
        self.is_urgent = False
        """Whether the members are asked for their size at each poll; set by whoever finds that changes are refused."""
        self._keys = keys
        self._members = members
        self._name = name
        self._poll_s = poll_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kvzmq-etcd-poller", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def _run(self) -> None:
        polls = 0
        while not self._stopped.is_set():
            try:
                self.latest = self.ask()
                if polls % STATUS_POLLS == 0 or self.is_urgent:
                    self.status = self._largest()
                self.trouble = None
            except errors.KvzmqError as error:
                self.trouble = str(error)
            polls += 1
            self._stopped.wait(self._poll_s)

    def ask(self) -> Answer:
        """Ask which checkpoint there is."""
        head, trimmed = head_key(self._name), trimmed_key(self._name)
        revision, found = self._keys.get(head, trimmed)
        return Answer(
            decode_head(self._name, found[head].value) if head in found else None,
            trimmed_until(found[trimmed].value if trimmed in found else None),
            revision,
        )

    def _largest(self) -> Status | None:
        found: list[Status] = []
        for address in self._members.addresses:
            with contextlib.suppress(EtcdError):  # one that is down has no say
                found.append(self._members.status(address))
        return max(found, default=None)

    def close(self) -> None:
        """End the thread; a poll of an etcd that does not answer is not waited for."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(CLOSE_S_MAX)
