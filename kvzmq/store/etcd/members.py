"""What etcd's members have told of themselves last, one by one: for `stats`, `kvzmq doctor` and the upkeep.

Members are those that the server was given the addresses of. A poll asks each once; one that does not answer is waited
for 2 s. The thread that asks replaces what is known at once, so any thread may read it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from kvzmq.store.etcd.client import EtcdError
from kvzmq.store.etcd.space import Members, Status

TOLD_S_MAX = 30.0
"""How long the size that a member has told counts, seconds: one that defragments does not answer for a while, and one
that is down has no say."""


class State(NamedTuple):
    """What is known of a member.

    status    what it has said last; None if it never has
    told_s    when, or when it was asked first; on `clock`
    answers   whether it has answered when it was asked last
    behind    how many entries of etcd's log it lacked of those that some member had applied when all were asked before
    """

    status: Status | None
    told_s: float
    answers: bool
    behind: int = 0


class MemberStates:
    """The members of a cluster as they have told.

    Args:
        members: asked by whoever calls `ask`
        clock: seconds that only grow
    """

    def __init__(self, members: Members, clock: Callable[[], float] = time.monotonic) -> None:
        self._members = members
        self._clock = clock
        self._states: Mapping[str, State] = {}
        self._asked_s = 0.0

    def ask(self) -> None:
        """Ask every member."""
        before = self._states
        applied = max((state.status.applied for state in before.values() if state.status is not None), default=0)
        states: dict[str, State] = {}
        for address in self._members.addresses:
            try:
                status = self._members.status(address)
            except EtcdError:
                last = before.get(address) or State(None, self._clock(), False)
                states[address] = last._replace(answers=False)
            else:
                states[address] = State(status, self._clock(), True, max(0, applied - status.applied))
        self._states, self._asked_s = states, self._clock()

    def largest(self) -> Status | None:
        """Return what the member with the largest file has said last, of those that have said anything lately.

        What is in use is the most of any of them.
        """
        since_s = self._clock() - TOLD_S_MAX
        states = (state for state in self._states.values() if state.told_s > since_s)
        statuses = [state.status for state in states if state.status is not None]
        in_use_bytes = max((status.in_use_bytes for status in statuses), default=0)
        return max(statuses)._replace(in_use_bytes=in_use_bytes) if statuses else None

    def describe(self) -> dict[str, Any]:
        """Return what `stats` says of the members.

        etcd_members         each by its address, see `_describe`
        etcd_members_total   how many there are
        etcd_members_alive   how many have answered when they were asked last
        etcd_has_leader      whether one of these knows a leader
        etcd_corrupt         whether an alarm CORRUPT is raised
        """
        states = self._states
        if not states:
            return {}
        alive = [state.status for state in states.values() if state.answers and state.status is not None]
        return {
            "etcd_members": {address: self._describe(state) for address, state in states.items()},
            "etcd_members_total": len(states),
            "etcd_members_alive": len(alive),
            "etcd_has_leader": any(status.has_leader for status in alive),
            "etcd_corrupt": any(status.is_corrupt for status in alive),
        }

    def _describe(self, state: State) -> dict[str, Any]:
        """Return what is known of a member.

        silent_s     for how long it had not answered when it was asked last; 0 if it did
        and where it has ever answered, as it said last:
        version      of etcd
        has_leader, leads     whether it knows a leader, and is it
        behind       see State
        file_bytes, in_use_bytes    its file, and what of it is in use
        """
        silent_s = 0.0 if state.answers else round(self._asked_s - state.told_s, 3)
        status = state.status
        if status is None:
            return {"silent_s": silent_s}
        return {
            "silent_s": silent_s,
            "version": status.version,
            "has_leader": status.has_leader,
            "leads": status.leads,
            "behind": state.behind,
            "file_bytes": status.file_bytes,
            "in_use_bytes": status.in_use_bytes,
        }
