"""The figures of `stats` as metrics of Prometheus, with names and units by its conventions.

Needs prometheus-client, which `pip install 'kvzmq[metrics]'` brings. Names stay; docs/operations.md has them all.
There are no metrics of single clients: their number would grow the monitoring's memory without bound.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

from prometheus_client.core import (
    CollectorRegistry,
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

__all__ = ["CONTENT_TYPE_LATEST", "PLAIN", "render"]

_COUNTER, _GAUGE, _FLAG = "counter", "gauge", "flag"

PLAIN: Mapping[str, tuple[str, str, str]] = {
    # of stats: what it is here, of which kind, and what it says
    "uptime_s": ("kvzmq_uptime_seconds", _GAUGE, "Time since the server was started"),
    "cpu_s": ("kvzmq_cpu_seconds", _COUNTER, "Processor time of the server"),
    "clock_s": ("kvzmq_clock_seconds", _GAUGE, "The server's clock, since 1970 UTC"),
    "table_time_s": ("kvzmq_table_time_seconds", _GAUGE, "The table's time, since 1970 UTC: that of the latest group"),
    "keys": ("kvzmq_rows", _GAUGE, "Rows of the table"),
    "revision": ("kvzmq_revision", _GAUGE, "The table's revision"),
    "sessions": ("kvzmq_sessions", _GAUGE, "Sessions that are remembered"),
    "backups": ("kvzmq_backups", _GAUGE, "Backups that are being read"),
    "expiring_keys": ("kvzmq_expiring_rows", _GAUGE, "Rows with a time to live"),
    "row_bytes": ("kvzmq_row_bytes", _GAUGE, "Keys and values"),
    "index_bytes": ("kvzmq_index_bytes", _GAUGE, "Indexes, roughly"),
    "session_bytes": ("kvzmq_session_bytes", _GAUGE, "Sessions with their cached replies, roughly"),
    "history_bytes": ("kvzmq_history_bytes", _GAUGE, "The latest changes, kept for watches"),
    "resident_bytes": ("kvzmq_resident_bytes", _GAUGE, "Memory of the server's process"),
    "memory_total_bytes": ("kvzmq_machine_memory_bytes", _GAUGE, "Memory of the machine"),
    "memory_available_bytes": ("kvzmq_machine_memory_available_bytes", _GAUGE, "Memory of the machine that is left"),
    "memory_limit_bytes": ("kvzmq_memory_limit_bytes", _GAUGE, "Memory that the process may have, if that is limited"),
    "descriptors": ("kvzmq_descriptors", _GAUGE, "Open descriptors"),
    "descriptors_max": ("kvzmq_descriptors_max", _GAUGE, "How many may be open"),
    "requests_waiting": ("kvzmq_requests_waiting", _GAUGE, "Requests that wait for an index or for the log"),
    "clients": ("kvzmq_clients", _GAUGE, "Connections there are"),
    "watches": ("kvzmq_watches", _GAUGE, "Watches there are"),
    "monitors": ("kvzmq_monitors", _GAUGE, "Monitors there are"),
    "steps": ("kvzmq_steps", _COUNTER, "Steps of the loop that had requests"),
    "requests": ("kvzmq_requests", _COUNTER, "Requests executed"),
    "requests_refused": ("kvzmq_requests_refused", _COUNTER, "Requests refused"),
    "commits": ("kvzmq_commits", _COUNTER, "Groups committed, each with one sync"),
    "requests_committed": ("kvzmq_requests_committed", _COUNTER, "Requests in these groups"),
    "log_records": ("kvzmq_log_requests", _GAUGE, "Requests in the log since the checkpoint"),
    "log_bytes": ("kvzmq_log_bytes", _GAUGE, "The log"),
    "checkpoint_bytes": ("kvzmq_checkpoint_bytes", _GAUGE, "The checkpoint"),
    "disk_bytes": ("kvzmq_disk_bytes", _GAUGE, "The file system that the table is on"),
    "disk_free_bytes": ("kvzmq_disk_free_bytes", _GAUGE, "Room that is left there"),
    "compaction_running": ("kvzmq_compaction_running", _FLAG, "1 while a compaction runs"),
    "compactions": ("kvzmq_compactions", _COUNTER, "Compactions done"),
    "compactions_failed": ("kvzmq_compactions_failed", _COUNTER, "Compactions failed"),
    "compaction_trouble": ("kvzmq_compaction_trouble", _FLAG, "1 if the latest compaction failed"),
    "storage_trouble": ("kvzmq_storage_trouble", _FLAG, "1 if the latest write failed"),
    "log_shared": ("kvzmq_log_shared", _FLAG, "1 if other servers append to the log, too"),
    "barriers": ("kvzmq_log_barriers", _COUNTER, "Times that the log was asked what others have appended"),
    "barrier_trouble": ("kvzmq_log_barrier_trouble", _FLAG, "1 if the log could not be asked"),
    "etcd_members_total": ("kvzmq_etcd_members", _GAUGE, "Members of etcd that the server knows"),
    "etcd_members_alive": ("kvzmq_etcd_members_alive", _GAUGE, "Members that have answered when they were asked last"),
    "etcd_has_leader": ("kvzmq_etcd_has_leader", _GAUGE, "1 if one of them knows a leader"),
    "etcd_no_space": ("kvzmq_etcd_no_space", _GAUGE, "1 while etcd's alarm NOSPACE is raised"),
    "etcd_corrupt": ("kvzmq_etcd_corrupt", _GAUGE, "1 while etcd's alarm CORRUPT is raised"),
    "etcd_file_bytes": ("kvzmq_etcd_file_bytes", _GAUGE, "The largest member's file, which the quota limits"),
    "etcd_in_use_bytes": ("kvzmq_etcd_in_use_bytes", _GAUGE, "What of it is in use"),
    "etcd_quota_bytes": ("kvzmq_etcd_quota_bytes", _GAUGE, "etcd's quota"),
    "etcd_room_bytes": ("kvzmq_etcd_room_bytes", _GAUGE, "How much the log may grow until changes are refused"),
    "etcd_reserved_bytes": ("kvzmq_etcd_reserved_bytes", _GAUGE, "What is kept free for the next checkpoint"),
    "router_connections": ("kvzmq_router_connections", _GAUGE, "Connections to the ROUTER socket"),
    "router_events_sent": ("kvzmq_router_events_sent", _COUNTER, "Events sent to watches and monitors"),
    "router_replies_dropped_backpressure": (
        "kvzmq_router_replies_dropped_backpressure", _COUNTER, "Replies dropped as their peer had too many unread",
    ),
    "router_replies_dropped_disconnected": (
        "kvzmq_router_replies_dropped_disconnected", _COUNTER, "Replies whose peer had disconnected",
    ),
    "router_connections_kicked": ("kvzmq_router_connections_kicked", _COUNTER, "Connections ended by an operator"),
    "tcp_connections": ("kvzmq_tcp_connections", _GAUGE, "Connections to the bridge"),
    "tcp_connections_accepted": ("kvzmq_tcp_connections_accepted", _COUNTER, "Connections that the bridge accepted"),
    "tcp_connections_kicked": ("kvzmq_tcp_connections_kicked", _COUNTER, "Connections ended by an operator"),
    "tcp_connections_dropped_stalled": (
        "kvzmq_tcp_connections_dropped_stalled", _COUNTER, "Connections dropped as nothing had moved for 10 seconds",
    ),
    "tcp_connections_dropped_backpressure": (
        "kvzmq_tcp_connections_dropped_backpressure", _COUNTER, "Connections dropped with too many unread replies",
    ),
    "tcp_connections_dropped_memory": (
        "kvzmq_tcp_connections_dropped_memory", _COUNTER, "Connections dropped as all together held too much",
    ),
    "tcp_connections_dropped_idle": (
        "kvzmq_tcp_connections_dropped_idle", _COUNTER, "Connections dropped for a new one",
    ),
    "tcp_connections_dropped_http": ("kvzmq_tcp_connections_dropped_http", _COUNTER, "Connections that spoke HTTP"),
    "tcp_accepts_failed": ("kvzmq_tcp_accepts_failed", _COUNTER, "Connections that could not be accepted"),
}  # fmt: skip
"""The plain figures; a counter's name ends with _total where Prometheus reads it."""


def render(stats: Mapping[str, Any]) -> bytes:
    """Return the metrics as text, from what `stats` answers."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(stats))
    page: bytes = generate_latest(registry)
    return page


class _Collector:
    """What prometheus-client asks for metrics."""

    def __init__(self, stats: Mapping[str, Any]) -> None:
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        stats = self._stats
        about = {name: str(stats[name]) for name in ("version", "lineage", "epoch") if stats.get(name) is not None}
        yield InfoMetricFamily("kvzmq", "Which server, and which table", about)
        for name, (metric, kind, text) in PLAIN.items():
            value = stats.get(name)
            if kind == _FLAG:
                yield GaugeMetricFamily(metric, text, float(bool(value)))
            elif value is not None:
                yield (CounterMetricFamily if kind == _COUNTER else GaugeMetricFamily)(metric, text, float(value))
        if "by_operation" in stats:
            yield from self._histograms(stats["bounds"])

    def _histograms(self, bounds: Mapping[str, Sequence[float]]) -> Iterator[Metric]:
        times_s, counts = bounds["times_s"], bounds["counts"]
        done = CounterMetricFamily("kvzmq_operations", "Operations executed", labels=["operation"])
        failed = CounterMetricFamily("kvzmq_operation_errors", "Operations failed", labels=["operation", "error"])
        length = CounterMetricFamily(
            "kvzmq_operation_request_bytes", "Requests of these operations, an estimate", labels=["operation"]
        )
        answered = CounterMetricFamily(
            "kvzmq_operation_reply_bytes", "Results of these operations, an estimate", labels=["operation"]
        )
        latency = HistogramMetricFamily(
            "kvzmq_operation_latency_seconds",
            "From the poll until all replies of the operation's step were sent, a sample",
            labels=["operation"],
        )
        for name, of in self._stats["by_operation"].items():
            done.add_metric([name], of["count"])
            length.add_metric([name], of["request_bytes"])
            answered.add_metric([name], of["reply_bytes"])
            latency.add_metric([name], *_buckets(times_s, of["latency"]))
            for error, times in of["errors"].items():
                failed.add_metric([name, error], times)
        yield from (done, failed, length, answered, latency)
        step, disk = self._stats["step"], self._stats["disk"]
        phases = HistogramMetricFamily("kvzmq_step_phase_seconds", "Parts of a step, a sample", labels=["phase"])
        for name in ("receive", "execute", "commit", "send"):
            phases.add_metric([name], *_buckets(times_s, step[name]))
        yield phases
        for metric, text, found, its_bounds in (
            ("kvzmq_step_requests", "Requests of a step, a sample", step["requests"], counts),
            ("kvzmq_log_append_seconds", "Appends to the log", disk["append"], times_s),
            ("kvzmq_log_sync_seconds", "Waits for the disk afterwards", disk["sync"], times_s),
            ("kvzmq_log_changes_per_sync", "Requests of a group", disk["changes_per_sync"], counts),
        ):
            family = HistogramMetricFamily(metric, text)
            family.add_metric([], *_buckets(its_bounds, found))
            yield family
        yield CounterMetricFamily("kvzmq_log_written_bytes", "Groups written to the log", disk["logged_bytes"])
        yield CounterMetricFamily("kvzmq_expired_rows", "Rows removed as their time had come", disk["expired_rows"])


def _buckets(bounds: Sequence[float], found: Mapping[str, Any]) -> tuple[list[tuple[str, float]], float]:
    """Return a histogram as prometheus-client takes it: how many values there are up to each bound, and their sum."""
    names = [*(format(bound, "g") for bound in bounds), "+Inf"]
    return list(zip(names, map(float, accumulate(found["buckets"])))), found.get("sum_s", found.get("sum", 0.0))
