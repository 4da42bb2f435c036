"""What was answered in one step of the loop, and when: what monitors and the slow log look at when the step has ended.

Most steps are quick, and it is known too late that one was not. So while a step goes on the clock is read twice, when
it begins and when it has ended, and for each request that is not quick (`Request.is_quick`), before and after; how long
drain, append and sync took is measured anyway. Of the quick requests between two that were measured it is known when
the first of them began and the last ended, and that is what their records say: 1,000 of them take a few milliseconds.
While a monitor looks every request is measured. Times are nanoseconds of `time.perf_counter_ns`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import msgspec

from kvzmq.protocol.declaration import Operation, method_of
from kvzmq.protocol.messages import LargeResults, Refusal, Reply, Request
from kvzmq.protocol.monitoring import KEY_SHOWN_CHARS_MAX, OPERATIONS_SHOWN_MAX, MonitoredRequest, NamedOperation
from kvzmq.server.transport import Arrival, Transport

NAMES_KEPT_MAX = 4096
"""How many names of clients are kept: to make one takes 1 us or more."""


class AnsweredGroup(msgspec.Struct, frozen=True, gc=False):  # one a step; a NamedTuple is made by a call of Python
    """Requests that were executed and answered together.

    arrivals         the requests, in the order of their execution
    replies          to as many of them as this is about
    revision_before  the table's, before the first of them
    measured         those whose execution was measured, in their order, with when it began and ended
    executed_ns      when the last had executed; 0 if that is when the step waited for the disk, or ended
    commit_times     of the latest commit, see Store.commit_times; it may have been an earlier group's
    """

    arrivals: Sequence[Arrival]
    replies: Sequence[Reply]
    revision_before: int
    measured: Sequence[tuple[Arrival, int, int]]
    executed_ns: int
    commit_times: tuple[int, int, int]


class AnsweredStep(NamedTuple):
    """A step that has ended.

    number      of the step
    began_ns    when its poll had returned
    drained_ns  when its requests had been taken in
    ended_ns    when its replies had been handed over
    ended_us    the same, microseconds since 1970 UTC
    has_waited  whether some of its requests had come with earlier steps
    groups      in their order
    """

    number: int
    began_ns: int
    drained_ns: int
    ended_ns: int
    ended_us: int
    has_waited: bool
    groups: Sequence[AnsweredGroup]

    def requests(self) -> Iterator[Answered]:
        """Yield what was answered, in order."""
        free_ns = max(self.began_ns, self.drained_ns)  # from when on the next group may have executed
        for group in self.groups:
            appended_ns, sync_began_ns, sync_ended_ns = group.commit_times
            waited = sync_began_ns >= free_ns
            executed_ns = group.executed_ns or (sync_began_ns if waited else self.ended_ns)
            durable_ns = sync_ended_ns if waited else executed_ns
            began_ns = max(free_ns, appended_ns) if waited else free_ns
            revision = group.revision_before
            spans = _spans(group, began_ns, executed_ns)
            for arrival, reply, (began_ns, ended_ns) in zip(group.arrivals, group.replies, spans):
                after = max(revision, reply.revision)  # a cached reply has the revision of its first execution
                yield Answered(
                    self, arrival, reply, revision, after, began_ns, ended_ns,
                    sync_began_ns if waited else 0, durable_ns,
                )  # fmt: skip
                revision = after
            free_ns = durable_ns


def _spans(group: AnsweredGroup, began_ns: int, executed_ns: int) -> Iterator[tuple[int, int]]:
    """Yield for each request when it began and ended, or when the quick ones around it did."""
    measured = [*group.measured, (None, executed_ns, executed_ns)]
    at = 0
    for arrival in group.arrivals:
        of, next_began_ns, next_ended_ns = measured[at]
        if of is arrival:
            yield next_began_ns, next_ended_ns
            began_ns = next_ended_ns
            at += 1
        else:
            yield began_ns, next_began_ns


class Answered(NamedTuple):
    """One request of a step that has ended.

    began_ns, ended_ns  its execution
    sync_began_ns       when its group began to wait for the disk; 0 if it did not
    durable_ns          when everything that its reply shows was durable
    """

    step: AnsweredStep
    arrival: Arrival
    reply: Reply
    revision_before: int
    revision_after: int
    began_ns: int
    ended_ns: int
    sync_began_ns: int
    durable_ns: int

    @property
    def received_ns(self) -> int:
        """When it was taken in: with its step, or with an earlier one if it had to wait."""
        return self.arrival.received_ns or self.step.began_ns

    @property
    def took_ns(self) -> int:
        """From then on until its reply was handed over."""
        return self.step.ended_ns - self.received_ns

    @property
    def executed_ns(self) -> int:
        """How long it executed."""
        return self.ended_ns - self.began_ns

    def record(self, names: Names, prefix: str = "") -> MonitoredRequest:
        """Return what is told of it; of its operations those that touch keys which begin with `prefix`."""
        step, arrival, reply = self.step, self.arrival, self.reply
        request = arrival.request
        received_ns, synced = self.received_ns, self.sync_began_ns > 0
        return MonitoredRequest(
            step=step.number,
            received_us=step.ended_us - (step.ended_ns - received_ns) // 1000,
            received_s=received_ns / 1e9,
            client=names.of(arrival.transport, arrival.peer),
            transport=arrival.transport.kind,
            operations=list(islice(_named(request, prefix), OPERATIONS_SHOWN_MAX)),
            operation_count=len(request.ops),
            code=code_of(reply.results),
            revision_before=self.revision_before,
            revision_after=self.revision_after,
            request_bytes=0 if isinstance(request, Refusal) else len(request.frame),
            reply_bytes=len(reply.results),
            queued_s=(self.began_ns - received_ns) / 1e9,
            executed_s=self.executed_ns / 1e9,
            synced_s=(self.durable_ns - self.ended_ns) / 1e9,
            sent_s=(step.ended_ns - self.durable_ns) / 1e9,
            step_began_s=step.began_ns / 1e9,
            step_ended_s=step.ended_ns / 1e9,
            sync_began_s=self.sync_began_ns / 1e9 if synced else None,
            sync_ended_s=self.durable_ns / 1e9 if synced else None,
        )


class Names:
    """The names of clients, as the transports make them."""

    def __init__(self) -> None:
        self._names: dict[tuple[Transport, Hashable], str] = {}

    def of(self, transport: Transport, peer: Hashable) -> str:
        """Return the name of a peer."""
        name = self._names.get((transport, peer))
        if name is None:
            if len(self._names) >= NAMES_KEPT_MAX:
                self._names.clear()
            name = self._names[transport, peer] = transport.name(peer)
        return name

    def forget(self) -> None:
        """Ask the transports again: the clients file may give keys other names."""
        self._names.clear()


def touches(op: Operation, prefix: str) -> bool:
    """Say whether an operation touches a key that begins with `prefix`."""
    return not prefix or any(
        any(key.startswith(prefix) for key in access.keys)
        if access.prefix is None
        else access.prefix.startswith(prefix)
        for access in op.accesses()
    )


def _named(request: Request | Refusal, prefix: str) -> Iterator[NamedOperation]:
    for op in request.ops:
        if touches(op, prefix):
            yield NamedOperation(method_of(op), _first_key(op, prefix))


def _first_key(op: Operation, prefix: str) -> str | None:
    for access in op.accesses():
        if access.prefix:
            return access.prefix[:KEY_SHOWN_CHARS_MAX]
        for key in access.keys:
            if key.startswith(prefix):
                return key[:KEY_SHOWN_CHARS_MAX]
    return None


class _Result(msgspec.Struct, array_like=True, gc=False):
    code: int


_decode_codes: Callable[[bytes], list[_Result]] = msgspec.msgpack.Decoder(list[_Result]).decode

_ONE_RESULT, _FIXINT_MAX = 0x91, 0x7F


def code_of(results: bytes | LargeResults) -> int:
    """Return the code of the first error among the results of a request; 0 if there is none."""
    if isinstance(results, LargeResults):
        return next((code for code, _ in results.pairs if code), 0)
    if results[0] == _ONE_RESULT and results[2] <= _FIXINT_MAX:  # [[code, payload]]: what nearly all are
        return results[2]
    return next((result.code for result in _decode_codes(results) if result.code), 0)
