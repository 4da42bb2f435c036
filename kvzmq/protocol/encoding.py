"""MessagePack without types: values both ways, and requests out. No I/O.

`msgpack` has the rest, and these too. A client imports this one alone: the decoders of requests, which only servers
need, take 6 ms to build, with the checks of values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw

if TYPE_CHECKING:
    from kvzmq.protocol.declaration import Operation

NUMBER_BYTES_MAX = 9
"""The longest number in MessagePack: a head, and 64 bits."""

encode_value: Callable[[Any], bytes] = msgspec.msgpack.Encoder().encode
"""Encode a value as MessagePack; raises TypeError or OverflowError for what MessagePack cannot represent."""

decode_value: Callable[[bytes | Raw], Any] = msgspec.msgpack.Decoder().decode
"""Decode a value that `validation.check_value` has accepted."""


def encode_request(session: bytes | None, seq: int, ops: Iterable[Operation | Raw]) -> bytes:
    """Encode `[session, seq, ops]`."""
    return encode_value((session, seq, ops))


def encode_seen_request(session: bytes | None, seq: int, ops: Iterable[Operation | Raw], seen: int) -> bytes:
    """Encode `[session, seq, ops, seen]`, a request that only reads."""
    return encode_value((session, seq, ops, seen))
