"""Leader election: of any number of processes one leads, and another takes over when it dies.

    python leader_lease.py --url tcp://127.0.0.1:5570 --name a
    python leader_lease.py --url tcp://127.0.0.1:5570 --name b

The lease is a row with a time to live. Who can insert it leads, and renews it long before it ends; who
cannot renew it in time has to stop. `term` counts the leaders: give it along with what the leader
does, and refuse what comes with an older one ("fencing"), for a process may sleep through its lease.
"""

from __future__ import annotations

import argparse
import time

import kvzmq


class Lease:
    """The right to lead, for `ttl_s` seconds at a time."""

    def __init__(self, table: kvzmq.Client, role: str, name: str, ttl_s: float = 5.0) -> None:
        self._table = table
        self._key, self._term_key = f"lease/{role}", f"term/{role}"
        self._name = name
        self._ttl_s = ttl_s
        self._until_s = 0.0
        self.term = 0

    def acquire(self) -> bool:
        """Try to become the leader."""
        asked_s = time.monotonic()  # before the server's clock starts
        try:
            with self._table.transaction({self._key: kvzmq.ABSENT}) as t:
                t.insert(self._key, self._name, ttl_s=self._ttl_s)
                term = t.increment(self._term_key)
        except kvzmq.CheckFailed:
            return False  # somebody leads
        self.term = term.result()
        self._until_s = asked_s + self._ttl_s
        return True

    def renew(self) -> bool:
        """Lead on; False if the lease has ended."""
        asked_s = time.monotonic()
        try:
            with self._table.transaction({self._key: self._name, self._term_key: self.term}) as t:
                t.expire(self._key, self._ttl_s)
        except kvzmq.CheckFailed:
            self._until_s = 0.0
            return False
        self._until_s = asked_s + self._ttl_s
        return True

    @property
    def held(self) -> bool:
        """Whether this process leads, by its own clock: ask before everything a leader does."""
        return time.monotonic() < self._until_s

    def release(self) -> None:
        """Let another lead at once."""
        self._until_s = 0.0
        self._table.compare_and_set(self._key, self._name, kvzmq.ABSENT)


def lead(lease: Lease, renew_s: float, rounds: int) -> None:
    """Wait for the lease, lead for `rounds` renewals (0: for good), and let go."""
    while not lease.acquire():
        time.sleep(renew_s)
    print(f"leading, term {lease.term}", flush=True)
    done = 0
    while lease.held:
        # ... what only a leader may do goes here, with lease.term ...
        done += 1
        if done == rounds:
            lease.release()
            print("released", flush=True)
            return
        time.sleep(renew_s)
        try:
            lease.renew()
        except (kvzmq.Timeout, kvzmq.OutcomeUnknown):
            continue  # `held` says how long there is still time to try again
    print("lost the lease", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="tcp://127.0.0.1:5570")
    parser.add_argument("--role", default="main")
    parser.add_argument("--name", required=True)
    parser.add_argument("--ttl", type=float, default=5.0, help="seconds until a dead leader is replaced")
    parser.add_argument("--rounds", type=int, default=0, help="let go after so many renewals; 0 for never")
    options = parser.parse_args()
    with kvzmq.connect(options.url, timeout=options.ttl / 2) as table:
        lead(Lease(table, options.role, options.name, options.ttl), options.ttl / 5, options.rounds)


if __name__ == "__main__":
    main()
