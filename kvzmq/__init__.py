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

__version__ = "0.1.0"

if TYPE_CHECKING:
    from kvzmq.client.blocking import Client, connect
    from kvzmq.errors import (
        CatalogError,
        CheckFailed,
        InvalidMethod,
        InvalidRequest,
        KvzmqError,
        NoSuchKey,
        OutcomeUnknown,
        ResultTooLarge,
        RevisionGone,
        SequenceReused,
        SessionExpired,
        StorageError,
        Timeout,
        WrongType,
    )

_HOMES = {
    "Client": "kvzmq.client.blocking",
    "connect": "kvzmq.client.blocking",
    **dict.fromkeys(
        (
            "CatalogError", "CheckFailed", "InvalidMethod", "InvalidRequest", "KvzmqError", "NoSuchKey",
            "OutcomeUnknown", "ResultTooLarge", "RevisionGone", "SequenceReused", "SessionExpired",
            "StorageError", "Timeout", "WrongType",
        ),
        "kvzmq.errors",
    ),
}  # fmt: skip

__all__ = [
    "CatalogError", "CheckFailed", "Client", "InvalidMethod", "InvalidRequest", "KvzmqError", "NoSuchKey",
    "OutcomeUnknown", "ResultTooLarge", "RevisionGone", "SequenceReused", "SessionExpired", "StorageError",
    "Timeout", "WrongType", "__version__", "connect",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'kvzmq' has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return __all__
