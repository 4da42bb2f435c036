"""What the blocking and the asyncio client's watches and monitors have in common, whichever way they wait. No I/O."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NoReturn, TypeVar

if TYPE_CHECKING:
    from kvzmq.client.core.push_channel import PushChannel
    from kvzmq.client.core.push_state import PushState

S = TypeVar("S", bound="PushState[Any]")


class BaseStream(Generic[S]):
    """Base class of what a server pushes, on a connection of its own.

    Args:
        channel: to the server
        timeout_s: how long it may take to begin unless its caller says otherwise
    """

    _name: ClassVar[str]
    """What it is called in its `repr`."""
    _kind = "stream"
    """What it is called in messages."""
    _item = "event"
    """What one thing that comes is called."""
    _forked = ""
    """What a forked child is told: two processes on one socket would take each other's events."""

    def __init__(self, channel: PushChannel[S], timeout_s: float) -> None:
        self._channel = channel
        self._state: S = channel.state
        self._timeout_s = timeout_s
        self._closed = False
        self._pid = os.getpid()

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise self._closed_error() if self._closed else RuntimeError(self._forked)

    def _closed_error(self) -> ValueError:
        return ValueError(f"the {self._kind} is closed")

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"a {self._kind} cannot be pickled")
