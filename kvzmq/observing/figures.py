"""What a server said of itself and its clients, reduced to what can be counted and shown. No I/O.

Who answers at an address may be of another version, or no server of ours: a catalog names whatever announces itself.
So nothing below relies on an answer before it was here. What is of another kind than it should be is left out, as if
the server had not told it; the rates and the alarms take that for an older server. Texts have no control characters
any more, wherever they are drawn, and numbers are finite and small enough to be calculated with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from kvzmq import errors
from kvzmq.units import printable

FIGURES_MAX = 10_000
"""How many names a group, or the whole, may have; the others are left out."""

TEXT_CHARS_MAX = 1000
"""How much of a text is kept, and of a name."""

NUMBER_MAX = 2.0**64
"""What no figure exceeds: bytes, nanoseconds, counts."""

CLIENTS_MAX = 100_000
"""How many clients are listed."""

_TEXTS = ("version", "lineage", "epoch", "etcd_member", "etcd_server", "etcd_append")
_TROUBLE = "_trouble"
_COUNTED = ("logged_bytes", "expired_rows", "replayed_requests")
"""Parts of `disk` that are one number."""

_SPREAD = ("count", "p50", "p99", "max", "sum")
"""What is told of a number of values, beside `buckets`; of times each but the count ends with _s."""

_CLIENT: Mapping[str, Any] = {
    "name": "", "transport": "", "address": None, "connected_s": None, "requests": 0, "received_bytes": None,
    "taken_bytes": None, "unread_bytes": None, "replies_dropped": 0, "watches": 0,
}  # fmt: skip
"""What is known of a client that the server says nothing of."""


class NotFigures(errors.KvzmqError):
    """What has come is nothing that a server says of itself: most likely another program answers there."""


def figures_of(found: object) -> dict[str, Any]:
    """Return what `stats` has returned, as far as it can be used.

    Raises:
        NotFigures: it is nothing like that
    """
    if not isinstance(found, Mapping):
        raise NotFigures(f"the answer to `stats` is {type(found).__name__}, not figures: is it a server of kvzmq?")
    return _each(found, _figure)


def clients_of(found: object) -> list[dict[str, Any]]:
    """Return what `clients` has returned, as far as it can be used; who has no name is left out.

    Raises:
        NotFigures: it is nothing like that
    """
    if not isinstance(found, list):
        raise NotFigures(f"the answer to `clients` is {type(found).__name__}, not a list: is it a server of kvzmq?")
    listed = (_each(one, _about_client) for one in found[:CLIENTS_MAX] if isinstance(one, Mapping))
    return [{**_CLIENT, **one} for one in listed if one.get("name")]


class _Unusable(Exception):
    """This figure is left out."""


def _each(found: Mapping[Any, Any], check: Callable[[str, Any], Any]) -> dict[str, Any]:
    usable: dict[str, Any] = {}
    for name, value in found.items():
        if not isinstance(name, str) or len(usable) >= FIGURES_MAX:
            continue
        name = _text(name)
        try:
            usable[name] = check(name, value)
        except _Unusable:
            continue
    return usable


def _figure(name: str, value: Any) -> Any:
    group = _GROUPS.get(name)
    if group is not None:
        return group(value)
    if name in _TEXTS or name.endswith(_TROUBLE):
        return None if value is None else _text(value)
    if name == "indexes":
        return [_text(each) for each in _list(value)]
    return None if value is None else _number(value)


def _about_client(name: str, value: Any) -> Any:
    default = _CLIENT.get(name)
    if isinstance(default, str):
        return _text(value)
    if value is None and default is None:
        return None
    return _text(value) if name == "address" else _number(value)


# ---- the groups


def _operations(value: Any) -> Any:
    return _each(_group(value), lambda _, of: _each(_group(of), _of_operation))


def _of_operation(name: str, value: Any) -> Any:
    if name == "latency":
        return _spread(value)
    return _numbers(value) if name == "errors" else _number(value)


def _parts(value: Any) -> Any:
    return _each(_group(value), _part)


def _part(name: str, value: Any) -> Any:
    if name in _COUNTED:
        return _number(value)
    return None if value is None else _spread(value)


def _members(value: Any) -> Any:
    return _each(_group(value), lambda _, of: _each(_group(of), _of_member))


def _of_member(name: str, value: Any) -> Any:
    return _text(value) if name == "version" else _number(value)


def _bounds(value: Any) -> Any:
    return _each(_group(value), lambda _, of: _ascending(of))


_GROUPS: Mapping[str, Callable[[Any], Any]] = {
    "by_operation": _operations,
    "step": _parts,
    "disk": _parts,
    "bounds": _bounds,
    "etcd_members": _members,
}


def _spread(value: Any) -> dict[str, Any]:
    found = _group(value)
    named = {name if name in found else f"{name}_s" for name in _SPREAD}
    if not named <= found.keys():
        raise _Unusable
    counts = [_number(count) for count in _list(found.get("buckets"))]
    if any(not isinstance(count, int) or count < 0 for count in counts):
        raise _Unusable
    return {name: _number(found[name]) for name in named} | {"buckets": counts}


def _ascending(value: Any) -> list[Any]:
    bounds = [_number(bound) for bound in _list(value)]
    if any(bound <= 0 for bound in bounds) or bounds != sorted(set(bounds)):
        raise _Unusable
    return bounds


# ---- values


def _group(value: Any) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise _Unusable
    return value


def _list(value: Any) -> Iterable[Any]:
    if not isinstance(value, list) or len(value) > FIGURES_MAX:
        raise _Unusable
    return value


def _numbers(value: Any) -> dict[str, Any]:
    return _each(_group(value), lambda _, of: _number(of))


def _number(value: Any) -> Any:
    if not isinstance(value, (bool, int, float)) or not math.isfinite(value) or abs(value) > NUMBER_MAX:
        raise _Unusable
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _Unusable
    return printable(value[:TEXT_CHARS_MAX]).replace("\n", " ")
