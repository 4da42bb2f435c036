"""A configuration that many processes read as plain attributes, and that changes under their feet, safely.

    python shared_config.py --url tcp://127.0.0.1:5570 set workers 8
    python shared_config.py --url tcp://127.0.0.1:5570 show
    python shared_config.py --url tcp://127.0.0.1:5570 follow

The whole configuration is one row, so that its parts always fit together. A change is a
compare-and-set: two who change it at the same time both get through, one after the other.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import queue
import threading
from collections.abc import Callable

import msgspec

import kvzmq

KEY = "config/main"


@dataclasses.dataclass(frozen=True)
class Config:
    """What can be configured, and how it is by default."""

    workers: int = 4
    greeting: str = "hello"
    features: list[str] = dataclasses.field(default_factory=list)


def read(table: kvzmq.Client) -> Config:
    """Return the configuration as it is now."""
    try:
        return table.lookup(KEY, type=Config)
    except KeyError:
        return Config()


def change(table: kvzmq.Client, edit: Callable[[Config], Config]) -> Config:
    """Change the configuration by a function of what it is; `edit` runs again if somebody was faster."""
    while True:
        found = table.lookup_many([KEY])
        before = found.get(KEY, kvzmq.ABSENT)
        config = edit(Config() if before is kvzmq.ABSENT else msgspec.convert(before, Config))
        if table.compare_and_set(KEY, before, config):
            return config


class LiveConfig:
    """The configuration, kept up to date by a thread: `live.now` is always a whole and valid one."""

    def __init__(self, table: kvzmq.Client, on_change: Callable[[Config], None] = lambda config: None) -> None:
        self._table = table
        self._on_change = on_change
        self._begin()
        threading.Thread(target=self._follow, daemon=True).start()

    def _begin(self) -> None:
        self._changes = self._table.watch(KEY)  # begun before it is read, so that no change is missed
        self.now = read(self._table)

    def _follow(self) -> None:
        while True:
            try:
                for event in self._changes:
                    if event.key == KEY:
                        self.now = Config() if event.removed else msgspec.convert(event.value, Config)
                        self._on_change(self.now)
                return  # closed
            except kvzmq.RevisionGone:  # after a long absence
                self._changes.close()
                self._begin()
                self._on_change(self.now)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="tcp://127.0.0.1:5570")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("show")
    commands.add_parser("follow").add_argument("--count", type=int, default=0, help="end after so many changes")
    setter = commands.add_parser("set")
    setter.add_argument("name", choices=[field.name for field in dataclasses.fields(Config)])
    setter.add_argument("value", type=json.loads, help="in JSON")
    options = parser.parse_args()
    with kvzmq.connect(options.url) as table:
        if options.command == "show":
            print(read(table))
        elif options.command == "set":
            edit = {options.name: options.value}
            print(change(table, lambda config: msgspec.convert(dataclasses.asdict(config) | edit, Config)))
        else:
            configs: queue.Queue[Config] = queue.Queue()
            print(LiveConfig(table, configs.put).now, flush=True)
            for _ in itertools.repeat(None, options.count) if options.count else itertools.repeat(None):
                print(configs.get(), flush=True)


if __name__ == "__main__":
    main()
