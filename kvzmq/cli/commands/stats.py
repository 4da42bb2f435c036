"""`kvzmq stats`: what the server says of itself, in groups."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

import click

from kvzmq.cli.connection import Connection, TableCommand, json_option

_GROUPS: Mapping[str, tuple[str, ...]] = {
    "server": ("version", "pid", "uptime_s", "clock_s", "cpu_*"),
    "table": ("keys", "revision", "lineage", "epoch", "sessions", "expiring_keys", "indexes", "table_time_s"),
    "memory": ("memory_*", "resident_bytes", "row_bytes", "index_bytes", "session_bytes", "history_bytes"),
    "requests": ("steps", "requests", "requests_refused", "requests_waiting", "operations"),
    "log": ("commits", "requests_committed", "log_*", "last_group", "storage_trouble", "barrier*", "disk_*"),
    "etcd": ("etcd_*",),
    "compaction": ("compaction*", "checkpoint_*", "trimmed_position", "backups"),
    "clients": ("clients", "watches", "monitors", "descriptors*", "router_*", "tcp_*"),
}
"""Which names belong together; * stands for any end."""

_TIMES = ("count", "p50_s", "p99_s", "max_s")
_MEMBER = {
    "silent_s": "silent", "version": "version", "leads": "leads", "behind": "behind", "file_bytes": "file",
    "in_use_bytes": "in use",
}  # fmt: skip
"""Figures of a member of etcd, and what they are called in a table; its version is printable already."""

_LEFT_OUT = ("buckets", "bounds")


@click.command(cls=TableCommand)
@json_option
@click.pass_obj
def stats(connection: Connection, as_json: bool) -> None:
    """Show what the server says of itself: table, memory, requests, log, clients, operations and their latencies.

    On a terminal in groups, with units; in a pipe a line is NAME TAB VALUE, where a name within a group has the
    group's before it, with a dot. There, and with --json, sizes are in bytes and times in seconds. Histograms are in
    --json alone.
    """
    from kvzmq.cli import show

    found = connection.table.stats()
    if as_json:
        show.put([show.encode_json(found)])
    elif show.on_terminal():
        from kvzmq.observing.figures import figures_of

        _draw(figures_of(found))
    else:
        show.mapping(dict(flat(found)), as_json)


def flat(found: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the figures of all groups, without the histograms: `disk.sync.p99_s`."""
    for name, value in found.items():
        if name in _LEFT_OUT:
            continue
        if isinstance(value, Mapping):
            yield from flat(value, f"{within}{name}.")
        else:
            yield within + name, value


def _draw(found: Mapping[str, Any]) -> None:
    from kvzmq.cli import show

    groups: dict[str, list[tuple[str, Any]]] = {group: [] for group in (*_GROUPS, "other")}
    for name, value in found.items():
        if not isinstance(value, Mapping):
            groups[_group_of(name)].append((name, value))
    for group, pairs in groups.items():
        if pairs:
            show.table((group, ""), ((name, _with_unit(name, value)) for name, value in pairs))
    members = found.get("etcd_members") or {}
    if members:
        show.table(
            ("etcd member", *_MEMBER.values()),
            ((address, *(_of_member(name, of.get(name)) for name in _MEMBER)) for address, of in members.items()),
        )
    operations = found.get("by_operation") or {}
    if operations:
        _draw_times("operation", ((name, of["latency"] | {"count": of["count"]}) for name, of in operations.items()))
        failures = [(name, error, times) for name, of in operations.items() for error, times in of["errors"].items()]
        if failures:
            show.table(
                ("operation", "error", "times"), ((*names, f"{times:,}") for *names, times in failures), right=(2,)
            )
    times = [
        (f"{group}: {name}", value)
        for group in ("step", "disk")
        for name, value in (found.get(group) or {}).items()
        if isinstance(value, Mapping) and "p99_s" in value
    ]
    if times:
        _draw_times("part", times)


def _draw_times(head: str, rows: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
    from kvzmq.cli import show

    lines = ((name, *(_with_unit(column, of[column]) for column in _TIMES)) for name, of in rows)
    show.table((head, "count", "p50", "p99", "max"), lines, right=(1, 2, 3, 4))


def _of_member(name: str, value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return ("yes" if value else "") if isinstance(value, bool) else _with_unit(name, value)


def _group_of(name: str) -> str:
    return next((group for group, names in _GROUPS.items() if any(fnmatchcase(name, each) for each in names)), "other")


def _with_unit(name: str, value: Any) -> str:
    """Return a figure as people read it; its name says its unit."""
    from kvzmq.cli import show
    from kvzmq.units import duration, size

    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return show.on_screen(value)
    if name.endswith(("_bytes", "_bytes_max")):
        return size(value)
    if name in ("clock_s", "table_time_s"):
        return f"{value:.3f}"
    if name.endswith(("_s", "_s_max")):
        return duration(value) if value >= 0.001 or not value else f"{value * 1e6:.0f} us"
    return str(value) if name == "pid" else f"{value:,}"
