"""What `kvzmq server` was told, whichever way: the values that its parts are built from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kvzmq.store.etcd.url import EtcdUrl


@dataclass(frozen=True)
class Options:
    """What was said on the command line, in the environment and in a file."""

    data: Path
    must_exist: bool
    binds: tuple[str, ...]
    tcp: tuple[str, int] | None
    curve_keys: tuple[Path, ...]
    clients: Path | None
    token_path: Path | None
    insecure: bool
    metrics_address: tuple[str, int] | None
    metrics_token_path: Path | None
    project: str | None
    owner: str | None
    catalog_address: tuple[str, int] | None
    compact_after: tuple[str, int] | None
    log_url: EtcdUrl | None
    etcd_ca: Path | None
    etcd_cert: Path | None
    etcd_key: Path | None
    etcd_user: str | None
    etcd_password_file: Path | None
    etcd_quota_bytes: int
    etcd_margin_s: float
    new_epoch: bool
    request_bytes_max: int
    trace_path: str | None
    slow_log_ms: float
    group_commit: bool
    log_level: str
    log_format: str
