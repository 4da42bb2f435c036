"""Transports: bytes from peers in, replies to peers out. They never see the store.

A transport hands over what its peers asked for as Arrivals, a bad request among them as a Refusal
in its place, and takes the replies back one by one, in the order of the Arrivals of a step.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Protocol, Union

import zmq
from msgspec import Struct

from kvzmq.protocol.messages import Refusal, Reply, Request

STEP_BYTES_MAX = 1 << 20
"""From how many bytes of requests on a transport takes in no more for one step."""

STEP_WEIGHT_MAX = 20_000
"""From how many rows to read or write (`Request.weight`) on a transport takes in no more for one step."""

STEP_REPLY_BYTES_MAX = 8 << 20
"""From how many bytes of large replies on a step encodes no more: the others wait for the next ones."""


class Arrival(Struct, eq=False, gc=False):
    """A request, with the transport and the peer that its reply goes to."""

    transport: Transport
    peer: Hashable
    request: Union[Request, Refusal]
    received_ns: int = 0
    """When it was taken in, by `time.perf_counter_ns`; set only if somebody observes the server."""

    @property
    def request_bytes(self) -> int:
        """The length of its request; 0 of a refusal."""
        return len(self.request.frame) if isinstance(self.request, Request) else 0


class Transport(Protocol):
    """One way in and out."""

    kind: str
    """What it is: "router" or "bridge"."""

    drained_s: float
    """When `drain` last returned a request, by `time.perf_counter`."""

    endpoints: list[str]
    """Where it listens, as the server prints it."""

    @property
    def connections(self) -> int:
        """How many clients are connected."""

    def register(self, poller: zmq.Poller) -> object:
        """Register with a poller; returns what the poller will report."""

    def drain(self) -> list[Arrival]:
        """Take in what is ready, up to the transport's limits, without waiting."""

    def sweep(self) -> None:
        """Look after the peers: drop those that are to be dropped; called several times a second."""

    def pending(self) -> bool:
        """Say whether `drain` or `flush` has something left that no poll would report."""

    def send(self, peer: Hashable, reply: Reply) -> None:
        """Queue a reply; never wait, never fail: an undeliverable one is counted."""

    def push(self, peer: Hashable, event: bytes) -> bool:
        """Queue an event, already encoded; False if the peer does not keep up: try again later.

        Raises:
            PeerGone: the peer has disconnected
        """

    def can_push(self, peer: Hashable) -> bool:
        """Say whether the peer can tell an event from a reply."""

    def flush(self) -> None:
        """Send what the step has queued, large replies up to STEP_REPLY_BYTES_MAX."""

    def user(self, peer: Hashable) -> str:
        """Return the public key (Z85) that the peer has shown, "" where none is asked for."""

    def name(self, peer: Hashable) -> str:
        """Return a name of the peer for people, from which nobody can derive its identity."""

    def clients(self) -> dict[str, Hashable]:
        """Return the known clients by name; the values are what `describe` and `kick` take."""

    def describe(self, client: Hashable) -> dict[str, Any]:
        """Return what is known of one of `clients`; None where nothing is.

        name, transport ("router" or "bridge"), address, connected_s (how long), requests, received_bytes, taken_bytes
        (that it has taken), unread_bytes (that it has not taken yet), replies_dropped.
        """

    def kick(self, client: Hashable) -> bool:
        """End the connection of one of `clients`; False if it is not known."""

    def stats(self) -> dict[str, int]:
        """Count what happened, by name."""

    def close(self) -> None:
        """Stop listening and drop the peers."""
