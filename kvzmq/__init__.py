"""A durable table that processes share over ZeroMQ.

    import kvzmq

    with kvzmq.connect("tcp://127.0.0.1:5570") as table:
        table.insert("zebra", {"weight": 100})
        table.lookup("zebra")

The names below are imported when they are first used, so that a server does not load the client
and the compaction's child process loads neither.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from kvzmq.client.asyncio.client import AsyncClient, connect_async
    from kvzmq.client.asyncio.monitor import AsyncMonitor
    from kvzmq.client.asyncio.watch import AsyncWatch
    from kvzmq.client.core.batch import Pending, Pipeline, Transaction
    from kvzmq.client.core.calls import ABSENT
    from kvzmq.client.core.monitor_state import MonitoredRequest
    from kvzmq.client.core.watch_state import Event
    from kvzmq.client.sync.client import Client, connect
    from kvzmq.client.sync.monitor import Monitor
    from kvzmq.client.sync.watch import Watch
    from kvzmq.errors import (
        BackupFailed,
        CatalogError,
        CheckFailed,
        InvalidMethod,
        InvalidRequest,
        KvzmqError,
        NoSuchKey,
        NotAllowed,
        OutcomeUnknown,
        ResultTooLarge,
        RevisionGone,
        SequenceReused,
        SessionExpired,
        TableChanged,
        Timeout,
        Unavailable,
        WatchIdle,
        WriteRejected,
        WrongType,
    )

_HOMES = {
    **dict.fromkeys(("Client", "connect"), "kvzmq.client.sync.client"),
    **dict.fromkeys(("AsyncClient", "connect_async"), "kvzmq.client.asyncio.client"),
    "Monitor": "kvzmq.client.sync.monitor",
    "AsyncMonitor": "kvzmq.client.asyncio.monitor",
    "MonitoredRequest": "kvzmq.client.core.monitor_state",
    "Watch": "kvzmq.client.sync.watch",
    "AsyncWatch": "kvzmq.client.asyncio.watch",
    **dict.fromkeys(("Pending", "Pipeline", "Transaction"), "kvzmq.client.core.batch"),
    "ABSENT": "kvzmq.client.core.calls",
    "Event": "kvzmq.client.core.watch_state",
    **dict.fromkeys(
        (
            "BackupFailed", "CatalogError", "CheckFailed", "InvalidMethod", "InvalidRequest", "KvzmqError",
            "NoSuchKey", "NotAllowed", "OutcomeUnknown", "ResultTooLarge", "RevisionGone", "SequenceReused",
            "SessionExpired", "TableChanged", "Timeout", "Unavailable", "WatchIdle", "WriteRejected", "WrongType",
        ),
        "kvzmq.errors",
    ),
}  # fmt: skip

__all__ = [
    "ABSENT", "AsyncClient", "AsyncMonitor", "AsyncWatch", "BackupFailed", "CatalogError", "CheckFailed", "Client",
    "Event", "InvalidMethod", "InvalidRequest", "KvzmqError", "Monitor", "MonitoredRequest", "NoSuchKey", "NotAllowed",
    "OutcomeUnknown", "Pending", "Pipeline", "ResultTooLarge", "RevisionGone", "SequenceReused", "SessionExpired",
    "TableChanged", "Timeout", "Transaction", "Unavailable", "Watch", "WatchIdle", "WriteRejected", "WrongType",
    "__version__", "connect", "connect_async",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'kvzmq' has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return __all__
