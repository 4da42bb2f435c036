"""The room in etcd that is kept for a checkpoint: changes are refused before the log takes it.

The log shrinks only behind a checkpoint, and when the quota is used up etcd takes no piece of one. So the log grows
only as long as a checkpoint of the table as it is still fits; then changes are refused until one was written, the log
was trimmed behind it, and etcd's files were defragmented.

How much of the members' files is in use is known once a second at best. In between the log counts what it appends
itself and what it hears of others. The slack is for what is not counted: groups of others that are on their way, and
etcd's own pages. etcd compares the length of a file with the quota, with the pages that are free in it. These are used
again, as long as they do for what is put; where the file has grown to the quota all the same, but for the slack,
changes are refused, too, until it was defragmented.
"""

from __future__ import annotations

import math

from kvzmq import errors
from kvzmq.units import size

CHECKPOINT_MARGIN = 1.1
"""How many times the estimated length of a checkpoint is kept free."""

SLACK_SHARE = 32
SLACK_BYTES_MIN = 4 << 20
"""What is kept free beside it: this part of the quota, and at least eight pieces of a checkpoint. etcd writes a page
anew to change it, and two pieces are in one: a file grew by 3 MiB for a checkpoint of 2 MiB, and by 1.5 MiB as etcd
compacted behind it. As much again has to be free before changes are taken again, so that a checkpoint is not written
for a handful of them."""

GROUP_BYTES = 2560
"""What a group takes in a member's file beside its own bytes, at most: its key and those of tail and server, a few
hundred bytes, and as two values at least share a run of pages of 4 KiB, half a page."""


def stored_bytes(log_bytes: int, groups: int) -> int:
    """Return how much a member's file grows at most by groups of so many bytes in all."""
    return log_bytes + GROUP_BYTES * groups


def slack_bytes(quota_bytes: int) -> int:
    """Return how much is kept free beside the room for a checkpoint."""
    return max(quota_bytes // SLACK_SHARE, SLACK_BYTES_MIN)


def with_margin(checkpoint_bytes: int) -> int:
    """Return how much room a checkpoint of about this length needs."""
    return int(CHECKPOINT_MARGIN * checkpoint_bytes)


class Reserve:
    """Refuses groups for which there is no room: asked by the log, told by its upkeep how much there is."""

    def __init__(self) -> None:
        self.limit_bytes: float = math.inf
        """How far the log's stored bytes may grow."""
        self.is_used_up = False
        """Whether changes are refused."""
        self.quota_bytes = 0

    def admit(self, stored: int) -> None:
        """Return if the log may grow to so many stored bytes.

        Raises:
            WriteRejected: it may not
        """
        self.is_used_up |= stored > self.limit_bytes
        if self.is_used_up:
            raise errors.WriteRejected(
                f"not applied: etcd's quota of {size(self.quota_bytes)} is used up but for the room that the next "
                "checkpoint needs. A server writes it and frees what the log takes, within seconds or, with a large "
                "table, minutes; `kvzmq doctor` says more (and --etcd-quota, if the quota is another one)"
            )

    def renew(self, stored: int, room_bytes: int, quota_bytes: int) -> None:
        """Note how much room there is.

        Args:
            stored: the log's stored bytes now
            room_bytes: by how much it may grow; negative if it has grown too far already
            quota_bytes: etcd's quota
        """
        self.quota_bytes = quota_bytes
        self.limit_bytes = stored + room_bytes
        if room_bytes <= 0:
            self.is_used_up = True
        elif room_bytes >= slack_bytes(quota_bytes):
            self.is_used_up = False
