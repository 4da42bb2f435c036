"""A thread that polls etcd for a table's upkeep: which checkpoint there is, and how much room etcd has.

The loop never waits for etcd: it reads the latest answers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple

from kvzmq import errors
from kvzmq.store.etcd.checkpoints import (
    CHUNK_BYTES,
    RANGE_KEYS_MAX,
    Head,
    Keys,
    chunk_key,
    data_prefix,
    decode_head,
    head_key,
    lock_key,
    trimmed_key,
    trimmed_until,
)
from kvzmq.store.etcd.members import MemberStates
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
    writer    the ID of the checkpoint that is being written, or was when its writer ended
    """

    head: Head | None
    trimmed: int
    revision: int
    writer: str | None = None


class Measured(NamedTuple):
    """How much room the members have, and what of it is accounted for otherwise.

    status         of the member with the largest file
    stored_bytes   the log's before the members were asked: what comes later may not be in their files yet
    written_bytes  of a checkpoint that is being written, in their files already
    """

    status: Status
    stored_bytes: int = 0
    written_bytes: int = 0


class Poller:
    """A thread that asks etcd, and keeps its last answers for whoever reads them.

    Args:
        keys, members: used by this thread alone
        name: the table's
        stored_bytes: returns the log's, see `reserve`
        poll_s: how often
    """

    def __init__(
        self,
        keys: Keys,
        members: Members,
        name: str,
        stored_bytes: Callable[[], int] = lambda: 0,
        poll_s: float = POLL_S,
    ) -> None:
        self.latest: Answer | None = None
        """The latest answer; None until there is one."""
        self.measured: Measured | None = None
        """The room there was when the members were asked last; None until one has answered."""
        self.members = MemberStates(members)
        """What they have told; any thread may read it."""
        self.trouble: str | None = None
        """Why the latest poll got no answer, or None."""
        self.is_urgent = False
        """Whether the members are asked for their size at each poll; set by whoever needs to know soon."""
        self._keys = keys
        self._name = name
        self._stored_bytes = stored_bytes
        self._poll_s = poll_s
        self._writer: str | None = None  # whose pieces were counted
        self._pieces = 0
        self._is_stopped = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kvzmq-etcd-poller", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def _run(self) -> None:
        polls = 0
        while not self._is_stopped:
            self._wake.clear()
            try:
                self.latest = self.ask()
                if polls % STATUS_POLLS == 0 or self.is_urgent:
                    self.measured = self.measure(self.latest) or self.measured
                self.trouble = None
            except errors.KvzmqError as error:
                self.trouble = str(error)
                self.members.ask()
            polls += 1
            self._wake.wait(self._poll_s)

    def wake(self) -> None:
        """Have the next poll begin now."""
        self._wake.set()

    def ask(self) -> Answer:
        """Ask which checkpoint there is."""
        head, trimmed, lock = head_key(self._name), trimmed_key(self._name), lock_key(self._name)
        revision, found = self._keys.get(head, trimmed, lock)
        return Answer(
            decode_head(self._name, found[head].value) if head in found else None,
            trimmed_until(found[trimmed].value if trimmed in found else None),
            revision,
            found[lock].value.decode() if lock in found else None,
        )

    def measure(self, answer: Answer) -> Measured | None:
        """Ask the members for the size of their files; None if none answers."""
        stored_bytes, written_bytes = self._stored_bytes(), self._count_written(answer)
        self.members.ask()
        status = self.members.largest()
        return None if status is None else Measured(status, stored_bytes, written_bytes)

    def _count_written(self, answer: Answer) -> int:
        """Return how much is there of a checkpoint that is being written, after looking for further pieces."""
        if answer.writer != self._writer:
            self._writer, self._pieces = answer.writer, 0
        if answer.writer is None or (answer.head is not None and answer.head.id == answer.writer):
            return 0
        prefix = data_prefix(self._name, answer.writer)
        last = chunk_key(self._name, answer.writer, self._pieces - 1) if self._pieces else ""
        self._pieces += len(self._keys.list(prefix, last, RANGE_KEYS_MAX))
        return self._pieces * CHUNK_BYTES

    def close(self) -> None:
        """End the thread; a poll of an etcd that does not answer is not waited for."""
        self._is_stopped = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(CLOSE_S_MAX)
