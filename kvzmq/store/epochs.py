"""Which history a table has: its lineage and its epochs.

The lineage is a random identifier, made when the table is created: two tables of one name differ in it.
Each start of the log begins an epoch, a random identifier with the revision it begins at. A table restored
from an older copy of its files has the lineage of the original, and its epochs up to the copy only. So an
epoch, with a revision that was reached in it, determines whether the changes up to that revision are part of
this table's history. Kafka's leader epochs (KIP-101) and PostgreSQL's timelines do the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import pairwise

EPOCHS_MAX = 1000
"""How many epochs are kept; a revision of an earlier one can no longer be attributed to this history."""


class Epochs:
    """The lineage of one table and its latest epochs, in order."""

    def __init__(self) -> None:
        self.lineage: bytes | None = None
        """16 bytes, or None for a table that no log has begun."""
        self._epochs: deque[tuple[bytes, int]] = deque(maxlen=EPOCHS_MAX)

    def __len__(self) -> int:
        return len(self._epochs)

    @property
    def current(self) -> bytes | None:
        """The identifier of the latest epoch, 16 bytes, or None if there is none."""
        return self._epochs[-1][0] if self._epochs else None

    def begin(self, epoch: bytes, revision: int) -> None:
        """Begin an epoch after `revision`."""
        self._epochs.append((epoch, revision))

    def contains(self, epoch: bytes, revision: int) -> bool:
        """Say whether this table's history includes `revision` of `epoch`.

        An epoch ends at the revision where the next one begins. Whether the latest one has reached `revision` yet is
        not checked.
        """
        for (found, _), (_, end) in pairwise(self._epochs):
            if found == epoch:
                return revision <= end
        return epoch == self.current

    def dump(self) -> tuple[bytes | None, list[tuple[bytes, int]]]:
        """Return the lineage and `(epoch, revision)` pairs, the earliest first."""
        return self.lineage, list(self._epochs)

    def load(self, lineage: bytes | None, epochs: Iterable[tuple[bytes, int]]) -> None:
        """Load what `dump` gave."""
        self.lineage = lineage
        self._epochs.clear()
        self._epochs.extend(epochs)
