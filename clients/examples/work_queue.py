"""A work queue: any number of workers, each job done by one of them, none lost when a worker dies.

    python work_queue.py --url tcp://127.0.0.1:5570 add "resize cat.png" "resize dog.png"
    python work_queue.py --url tcp://127.0.0.1:5570 work

A job is a row `queue/todo/NUMBER`. A worker takes one by a transaction that checks that nobody holds it,
and holds it by a row that expires: when the worker dies, the hold goes and another takes over.
So a job is begun again when its worker dies: what `do` does should do no harm when done twice.
"""

from __future__ import annotations

import argparse
import os
import socket
import time
from collections.abc import Callable

import kvzmq

HOLD_S = 10.0
"""How long a worker may be silent before its job is another's."""


def add(table: kvzmq.Client, job: object) -> str:
    """Put a job at the end of the queue and return its key."""
    key = f"todo/{table.increment('last'):012}"
    table.insert(key, job)
    return key


def take(table: kvzmq.Client, worker: str) -> tuple[str, object] | None:
    """Hold the first job that nobody holds, or return None if there is none."""
    for key, job in table.items("todo/"):
        hold = f"held/{key}"
        try:
            with table.transaction({key: job, hold: kvzmq.ABSENT}) as t:
                t.insert(hold, worker, ttl_s=HOLD_S)
        except kvzmq.CheckFailed:
            continue  # another worker holds it, or has done it
        return key, job
    return None


def finish(table: kvzmq.Client, key: str, worker: str) -> bool:
    """Take a job that is done off the queue; False if it had become another's meanwhile."""
    hold = f"held/{key}"
    try:
        with table.transaction({hold: worker}) as t:
            t.remove(key)
            t.remove(hold)
            t.increment("done")
    except kvzmq.CheckFailed:
        return False
    return True


def work(table: kvzmq.Client, do: Callable[[object], None], until_empty: bool = False) -> int:
    """Do jobs as they come, for good or until there are none; return how many."""
    worker = f"{socket.gethostname()}/{os.getpid()}"
    done = 0
    while True:
        taken = take(table, worker)
        if taken is not None:
            key, job = taken
            do(job)  # if it takes long: table.expire(f"held/{key}", HOLD_S) now and then
            done += finish(table, key, worker)
        elif until_empty and not list(table.keys("todo/")):
            return done
        else:
            time.sleep(0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="tcp://127.0.0.1:5570")
    parser.add_argument("command", choices=["add", "work"])
    parser.add_argument("jobs", nargs="*")
    parser.add_argument("--until-empty", action="store_true", help="end when there is nothing left to do")
    options = parser.parse_args()
    with kvzmq.connect(options.url) as client:
        table = client.namespace("queue/")
        if options.command == "add":
            for job in options.jobs:
                print(add(table, job))
        else:
            print(work(table, lambda job: print(job, flush=True), options.until_empty), "jobs done")


if __name__ == "__main__":
    main()
