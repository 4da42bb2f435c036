"""The client's core against a model of the server, with a network that loses, repeats and delays.

The server is the real table and the real codec, without log and sockets; the network is a few lists.
Each connection keeps its order; one that is cut may still deliver what was under way, later, or never.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import Raw

from kvzmq import errors
from kvzmq.client.core.batch import Pending
from kvzmq.client.core.call import Call
from kvzmq.client.core.calls import Calls, together
from kvzmq.client.core.outgoing import RESEND_S, OutgoingRequest
from kvzmq.client.core.session import AHEAD_MAX, IN_FLIGHT_MAX, SHARED_BYTES_MAX, ClientSession
from kvzmq.protocol import messages, msgpack
from kvzmq.protocol.messages import Refusal, Reply, Request
from kvzmq.store.sessions import Sessions
from kvzmq.store.table import Table

CALLS = Calls()
READ_ROWS = 50
TIMEOUT_S = 5.0


class ModelServer:
    """Executes request frames as the server does; told to, it refuses them."""

    def __init__(self) -> None:
        self.table = Table()
        for number in range(READ_ROWS):
            self.table.rows[f"r{number}"] = msgpack.encode_value(number)
        self.refuse_with = 0

    def serve(self, frame: bytes) -> bytes:
        request = msgpack.decode_request(frame)
        if isinstance(request, Refusal):
            return msgpack.encode_reply(msgpack.refuse(request.seq, self.table.revision, request.code, request.message))
        table = self.table
        storage = self.refuse_with == errors.WriteRejected.code
        if self.refuse_with and (not storage or (request.writes and not self._kept(request))):
            return msgpack.encode_reply(msgpack.refuse(request.seq, table.revision, self.refuse_with, "as told"))
        return msgpack.encode_reply(table.execute(request))

    def _kept(self, request: messages.Request) -> bool:
        assert request.session is not None
        try:
            return self.table.sessions.find(request.session, request.seq, request.digest) is not None
        except errors.RequestRefused:
            return False

    def executions(self, key: str) -> int:
        value = self.table.rows.get(key)
        return 0 if value is None else msgpack.decode_value(value)

    def forget_sessions(self) -> None:
        self.table.sessions = Sessions()


class Expected:
    """A call, what is known of it, and what it must not become."""

    def __init__(self, call: Call, deadline_s: float, keys: list[str], value: Any) -> None:
        self.call = call
        self.call.deadline_s = deadline_s
        self.call.on_done = self._done
        self.keys = keys
        self.value = value
        self.endings = 0
        self.abandoned = False

    def _done(self, call: Call) -> None:
        self.endings += 1


class SessionUnderLosses(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.server = ModelServer()
        self.session = ClientSession(jitter=lambda: 1.0)
        self.now_s = 0.0
        self.connected = True
        self.up: list[bytes] = []  # on its way to the server
        self.stale: list[list[bytes]] = []  # the same, of connections that were cut
        self.down: list[bytes] = []  # on its way to the client
        self.calls: list[Expected] = []
        self.sent: set[str] = set()
        self.last = 0

    @initialize(opened=st.booleans())
    def begin(self, opened: bool) -> None:
        if opened:
            self.write(TIMEOUT_S, True)
            self.answer_all()

    def answer_all(self) -> None:
        """Let everything go well, unless the server refuses again and again."""
        for _ in range(100):
            if not self.up:
                return
            self.session.receive(self.server.serve(self.up.pop(0)))
            self.flush()

    # ---- callers

    def _submit(self, call: Call, keys: list[str], value: Any, timeout_s: float, flush: bool = True) -> None:
        expected = Expected(call, self.now_s + timeout_s, keys, value)
        self.calls.append(expected)
        alone = self.session.flush_alone(call, self.now_s) if flush else None
        if alone is not None:
            self._send([alone])
            return
        self.session.submit(expected.call)
        if flush:
            self.flush()

    def _key(self) -> str:
        self.last += 1
        return f"w{self.last}"

    @rule(number=st.integers(0, READ_ROWS - 1), timeout_s=st.sampled_from([0.5, TIMEOUT_S]))
    def read(self, number: int, timeout_s: float) -> None:
        self._submit(CALLS.lookup(f"r{number}"), [], number, timeout_s, flush=False)

    @rule(timeout_s=st.sampled_from([0.5, TIMEOUT_S]), flush=st.booleans())
    def write(self, timeout_s: float, flush: bool) -> None:
        key = self._key()
        self._submit(CALLS.increment(key), [key], 1, timeout_s, flush)

    @rule()
    def write_a_batch(self) -> None:
        keys = [self._key() for _ in range(3)]
        call = together([CALLS.increment(keys[0]), CALLS.lookup(keys[0]), CALLS.increment(keys[1]),
                         CALLS.contains("nothing"), CALLS.increment(keys[2])], list)  # fmt: skip
        self._submit(call, keys, [1, 1, 1, False, 1], TIMEOUT_S)

    @rule()
    def write_badly(self) -> None:
        """A request with this in it is refused as a whole; the others in it must not suffer."""
        call = CALLS.increment("w0")
        call.ops = [Raw(msgpack.encode_value(("increment", "w0", "not a number")))]
        self._submit(call, ["w0"], errors.InvalidRequest, TIMEOUT_S)

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        expected = data.draw(st.sampled_from(self.calls))
        if not expected.call.done:
            expected.abandoned = True
            self.session.abandon(expected.call)

    # ---- the shell

    def _send(self, requests: list[OutgoingRequest]) -> None:
        for at, request in enumerate(requests):
            if not self.connected:
                self.session.unsent(requests[at:])
                return
            self.up.append(request.frame)
            self.sent |= {key for call in request.calls for e in self.calls if e.call is call for key in e.keys}

    @rule()
    def flush(self) -> None:
        self._send(self.session.flush(self.now_s))

    @rule(step_s=st.sampled_from([0.6, 1.5, 3.0]))
    def let_time_pass(self, step_s: float) -> None:
        self.now_s += step_s
        self.session.expire(self.now_s)
        if self.connected:
            self._send(self.session.overdue(self.now_s))

    # ---- the network and the server

    @rule()
    def go_well(self) -> None:
        if self.connected:
            self.flush()
            self.answer_all()

    @precondition(lambda self: self.up)
    @rule(data=st.data(), lost=st.booleans())
    def serve(self, data: st.DataObject, lost: bool) -> None:
        for _ in range(data.draw(st.integers(1, len(self.up)))):
            reply = self.server.serve(self.up.pop(0))
            if not lost:
                self.down.append(reply)

    @precondition(lambda self: any(self.stale))
    @rule(data=st.data())
    def serve_what_a_cut_connection_still_had(self, data: st.DataObject) -> None:
        frames = data.draw(st.sampled_from([frames for frames in self.stale if frames]))
        self.server.serve(frames.pop(0))

    @precondition(lambda self: self.down)
    @rule(data=st.data(), twice=st.booleans())
    def deliver(self, data: st.DataObject, twice: bool) -> None:
        frame = self.down.pop(data.draw(st.integers(0, len(self.down) - 1)))
        if twice and self.may_repeat(frame):
            self.down.append(frame)
        self.session.receive(frame)

    @precondition(lambda self: self.down)
    @rule(data=st.data())
    def deliver_all(self, data: st.DataObject) -> None:
        for frame in data.draw(st.permutations(self.down)):
            self.session.receive(frame)
        self.down.clear()

    @precondition(lambda self: self.down)
    @rule(data=st.data())
    def deliver_garbage(self, data: st.DataObject) -> None:
        frame = data.draw(st.sampled_from(self.down))
        self.session.receive(data.draw(st.sampled_from([
            frame[:-1], b"", b"\xff" * 8, frame + b"x", frame[:5] + b"\xc1\xc1\xc1" + frame[8:],
            msgpack.encode_value((1, 2, [(0, None)] * 7)),
        ])))  # fmt: skip

    @rule()
    def cut(self) -> None:
        if self.connected:
            self.connected = False
            self.stale.append(self.up)
            self.up = []

    @rule()
    def connect(self) -> None:
        if not self.connected:
            self.connected = True
            self._send(self.session.reconnected(self.now_s))

    @rule(code=st.sampled_from([16, 17, 18, 18, 19, 20, 21]))
    def refuse(self, code: int) -> None:
        self.server.refuse_with = code

    @rule()
    def serve_well(self) -> None:
        self.server.refuse_with = 0

    @rule()
    def forget(self) -> None:
        # A copy of `open` that outlived this by seconds would make the session known again: only a session
        # dropped between two packets could suffer from it, so it is no part of the promise.
        self.stale.clear()
        self.up = [frame for frame in self.up if msg_seq(frame) != 1]
        self.server.forget_sessions()

    def may_repeat(self, frame: bytes) -> bool:
        """Whether a reply may come twice: no transport does that, and a client that counts refusals relies on it."""
        return True

    # ---- what must hold

    @invariant()
    def every_call_ends_once(self) -> None:
        for expected in self.calls:
            assert expected.endings == (expected.call.done and not expected.abandoned)

    @invariant()
    def nothing_is_executed_twice(self) -> None:
        for number in range(1, self.last + 1):
            assert self.server.executions(f"w{number}") <= 1

    @invariant()
    def ended_calls_tell_the_truth(self) -> None:
        for expected in self.calls:
            if expected.call.done and not expected.abandoned:
                self.check(expected)

    def check(self, expected: Expected) -> None:
        call, error = expected.call, expected.call.error
        executed = [self.server.executions(key) for key in expected.keys]
        if error is None:
            assert call.value == expected.value
            assert all(count == 1 for count in executed)
        elif isinstance(error, errors.OutcomeUnknown):
            assert call.writes and self.sent.issuperset(expected.keys)
        elif isinstance(error, errors.Timeout):
            assert not call.writes or not any(executed)
        else:
            assert isinstance(error, errors.RequestRefused | errors.KvzmqError)
            assert not any(executed), error

    def teardown(self) -> None:
        """Every call has ended when its time is over; what is still under way changes no verdict."""
        for frame in self.down:
            self.session.receive(frame)
        self.now_s += 100
        self.session.expire(self.now_s)
        assert all(expected.call.done for expected in self.calls)
        assert not [request for request in self.session._in_flight.values() if request.calls]
        self.server.refuse_with = 0
        for frame in [*self.up, *(frame for frames in self.stale for frame in frames)]:
            self.server.serve(frame)
        self.nothing_is_executed_twice()
        self.ended_calls_tell_the_truth()


class SharedSessionUnderLosses(SessionUnderLosses):
    """The same at servers that share a log, which refuse for now: the model's table is theirs, its order the log's."""

    def __init__(self) -> None:
        super().__init__()
        self.session.hello.is_shared = True

    @rule(code=st.sampled_from([18, 22]))
    def refuse_for_now(self, code: int) -> None:
        self.server.refuse_with = code

    @precondition(lambda self: self.connected)
    @rule(outcomes=st.lists(st.sampled_from([0, 16, 18, 22]), min_size=2, max_size=4))
    def send_copies(self, outcomes: list[int]) -> None:
        """One after the other: executed, and the reply is lost, or refused with a code."""
        self.flush()
        for code in outcomes:
            self.server.refuse_with = code
            while self.up:
                reply = self.server.serve(self.up.pop(0))
                if code:
                    self.session.receive(reply, self.now_s)
            self.session.resend_soon()
            self._send(self.session.overdue(self.now_s))
        self.server.refuse_with = 0

    def may_repeat(self, frame: bytes) -> bool:
        results = msgpack.decode_value(frame)[2]
        return len(results) != 1 or results[0][0] not in (18, 22)


def msg_seq(frame: bytes) -> int:
    seq: int = msgpack.decode_value(frame)[1]
    return seq


def test_a_call_ends_once_truly_and_writes_at_most_once(full: bool, count: Callable[[str, int], None]) -> None:
    """Random submissions, losses, repeats, cuts, refusals and forgotten sessions.

    Seen red with each of these planted: a reply popped before it is decoded; a refused write that had been
    sent twice reported as not applied; `sent` counting what the
    socket did not take; a new number for a
    retried request; SessionExpired always sent again; expire forgetting the requests in flight.
    """
    examples, steps = (5000, 80) if full else (300, 50)
    machine = SessionUnderLosses.TestCase
    machine.settings = settings(max_examples=examples, stateful_step_count=steps, deadline=None)
    machine("runTest").runTest()
    count("steps of the client's core against the model", examples * steps)


def test_a_refusal_for_now_by_one_of_several_servers_is_never_taken_for_the_truth(
    full: bool, count: Callable[[str, int], None]
) -> None:
    """Guarantee 11. Seen red with one refusal of two copies taken for all (`OutgoingRequest.certain`)."""
    examples, steps = (5000, 80) if full else (300, 50)
    machine = SharedSessionUnderLosses.TestCase
    machine.settings = settings(max_examples=examples, stateful_step_count=steps, deadline=None)
    machine("runTest").runTest()
    count("steps of the client's core against the model of several servers", examples * steps)


# ---- one thing at a time


def session_and_server() -> tuple[ClientSession, ModelServer]:
    return ClientSession(jitter=lambda: 1.0), ModelServer()


def exchange(session: ClientSession, server: ModelServer, now_s: float = 0.0) -> int:
    """Send and answer until nothing is sent any more; return how many requests that took."""
    sent = 0
    while requests := session.flush(now_s):
        sent += len(requests)
        assert sent < 10_000
        for request in requests:
            session.receive(server.serve(request.frame))
    return sent


def submit(session: ClientSession, call: Call, deadline_s: float = 10.0) -> Call:
    call.deadline_s = deadline_s
    session.submit(call)
    return call


def test_calls_that_wait_together_travel_together() -> None:
    session, server = session_and_server()
    calls = [submit(session, CALLS.lookup(f"r{number}")) for number in range(READ_ROWS)]
    assert exchange(session, server) == 1
    assert [call.value for call in calls] == list(range(READ_ROWS))


def test_calls_are_executed_in_the_order_they_were_submitted_in() -> None:
    session, server = session_and_server()
    for number in range(100):
        submit(session, CALLS.insert("same", number))
    last = submit(session, CALLS.lookup("same"))
    exchange(session, server)
    assert last.value == 99


def test_order_is_kept_when_a_bad_operation_refuses_them_all() -> None:
    """Seen red with the refused calls put back one by one in front, which turned them around."""
    session, server = session_and_server()
    for number in range(10):
        submit(session, CALLS.insert("same", number))
    bad = CALLS.insert("bad", 1)
    bad.ops = [Raw(msgpack.encode_value(("insert", 5, 5)))]
    refused = submit(session, bad)
    last = submit(session, CALLS.lookup("same"))
    exchange(session, server)
    assert isinstance(refused.error, errors.InvalidRequest)
    assert last.value == 9


def test_a_session_opens_before_its_first_write_and_only_then() -> None:
    session, server = session_and_server()
    submit(session, CALLS.lookup("r1"))
    assert exchange(session, server) == 1
    submit(session, CALLS.insert("a", 1))
    assert exchange(session, server) == 2
    submit(session, CALLS.insert("a", 1))
    assert exchange(session, server) == 1


def test_what_the_connection_did_not_take_is_a_timeout_not_unknown() -> None:
    session, server = session_and_server()
    submit(session, CALLS.insert("a", 1))
    exchange(session, server)
    call = submit(session, CALLS.insert("b", 1), deadline_s=1.0)
    session.unsent(session.flush(0.0))
    session.expire(1.0)
    assert isinstance(call.error, errors.Timeout)


def test_a_call_whose_time_is_over_does_not_leave_later_with_others() -> None:
    """Seen red with requests kept whole that no connection had taken."""
    session, server = session_and_server()
    submit(session, CALLS.insert("a", 1))
    exchange(session, server)
    early = submit(session, CALLS.increment("early"), deadline_s=1.0)
    late = submit(session, CALLS.increment("late"), deadline_s=9.0)
    session.unsent(session.flush(0.0))
    session.expire(1.0)
    for request in session.reconnected(2.0) + session.flush(2.0):
        session.receive(server.serve(request.frame))
    assert isinstance(early.error, errors.Timeout) and server.executions("early") == 0
    assert late.value == 1


def test_a_write_that_was_refused_until_its_time_was_over_does_not_leave_later_with_others() -> None:
    """Guarantee 11. Seen red with requests kept whole that were refused for now: the write was said to be rejected,
    and was executed with the others of its request.
    """
    session, server = session_and_server()
    session.hello.is_shared = True
    submit(session, CALLS.insert("a", 1))
    exchange(session, server)
    early = submit(session, CALLS.increment("early"), deadline_s=1.0)
    late = submit(session, CALLS.increment("late"), deadline_s=9.0)
    server.refuse_with = errors.WriteRejected.code
    for request in session.flush(0.0):
        session.receive(server.serve(request.frame), 0.0)
    session.expire(1.0)
    server.refuse_with = 0
    for request in session.overdue(2.0) + session.flush(2.0):
        session.receive(server.serve(request.frame))
    assert isinstance(early.error, errors.WriteRejected) and server.executions("early") == 0
    assert late.value == 1


def test_an_unanswered_write_is_unknown_and_an_unanswered_read_a_timeout() -> None:
    session, server = session_and_server()
    submit(session, CALLS.insert("a", 1))
    exchange(session, server)
    write = submit(session, CALLS.insert("b", 1), deadline_s=1.0)
    read = submit(session, CALLS.lookup("r1"), deadline_s=1.0)
    session.flush(0.0)
    session.expire(1.0)
    assert isinstance(write.error, errors.OutcomeUnknown)
    assert isinstance(read.error, errors.Timeout)


def test_a_retry_is_the_same_bytes_and_gets_the_first_result() -> None:
    session, server = session_and_server()
    call = submit(session, CALLS.insert("a", 1))
    exchange(session, server)
    call = submit(session, CALLS.remove("a"))
    (request,) = session.flush(0.0)
    server.serve(request.frame)  # executed, and the reply lost
    (again,) = session.reconnected(0.0)
    assert again.frame == request.frame
    session.receive(server.serve(again.frame))
    assert call.done and call.error is None


def test_a_call_by_itself_is_kept_for_a_retry_like_others() -> None:
    """Seen red with a request that is sent and not noted, and with one that is retried under another number."""
    session, server = session_and_server()
    submit(session, CALLS.insert("a", 1))
    exchange(session, server)
    call = CALLS.remove("a")
    call.deadline_s = 10.0
    request = session.flush_alone(call, 0.0)
    assert request is not None
    server.serve(request.frame)  # executed, and the reply lost
    assert session.overdue(0.9 * RESEND_S) == []
    (again,) = session.overdue(RESEND_S)
    assert again.frame == request.frame
    session.receive(server.serve(again.frame))
    assert call.done and call.error is None


def _first(session: ClientSession) -> Call:
    return CALLS.insert("a", 1)  # before the session has been opened


def _with_another_waiting(session: ClientSession) -> Call:
    submit(session, CALLS.lookup("r1"))
    return CALLS.lookup("r2")


def _with_another_unanswered(session: ClientSession) -> Call:
    submit(session, CALLS.lookup("r1"))
    session.flush(0.0)
    return CALLS.lookup("r2")


def _after_hello(session: ClientSession) -> Call:
    session.say_hello(0.0)
    return CALLS.lookup("r1")


def _too_large(session: ClientSession) -> Call:
    session.hello.request_bytes_max = 1000
    return CALLS.insert("a", "x" * 1000)


@pytest.mark.parametrize("prepare", [_first, _with_another_waiting, _with_another_unanswered, _after_hello, _too_large])
def test_a_call_does_not_leave_by_itself_where_there_is_more_to_do(prepare: Callable[[ClientSession], Call]) -> None:
    session, _ = session_and_server()
    assert session.flush_alone(prepare(session), 0.0) is None


@pytest.mark.parametrize("code", [16, 17, 20])
def test_a_refusal_is_the_error_of_its_code(code: int) -> None:
    session, server = session_and_server()
    call = submit(session, CALLS.lookup("r1"))
    server.refuse_with = code
    exchange(session, server)
    assert isinstance(call.error, errors.BY_CODE[code])
    assert str(call.error) == "as told"


def test_a_full_disk_fails_the_writes_alone() -> None:
    session, server = session_and_server()
    submit(session, CALLS.insert("a", 1))
    exchange(session, server)
    write, read = submit(session, CALLS.insert("b", 1)), submit(session, CALLS.lookup("r7"))
    server.refuse_with = 18
    exchange(session, server)
    assert isinstance(write.error, errors.WriteRejected)
    assert read.value == 7


def test_a_refused_write_that_was_sent_twice_is_unknown() -> None:
    """The other copy may find room on the disk. Seen red with WriteRejected reported in any case."""
    session, server = session_and_server()
    submit(session, CALLS.insert("a", 1))
    exchange(session, server)
    call = submit(session, CALLS.increment("n"))
    (request,) = session.flush(0.0)
    session.overdue(2.0)
    server.refuse_with = 18
    session.receive(server.serve(request.frame))
    server.refuse_with = 0
    server.serve(request.frame)
    assert server.executions("n") == 1
    assert isinstance(call.error, errors.OutcomeUnknown)


def test_a_forgotten_session_is_replaced_for_what_was_sent_once() -> None:
    session, server = session_and_server()
    submit(session, CALLS.insert("a", 1))
    exchange(session, server)
    server.forget_sessions()
    call = submit(session, CALLS.increment("n"))
    exchange(session, server)
    assert call.value == 1


def test_a_forgotten_session_is_an_error_for_what_was_sent_twice() -> None:
    session, server = session_and_server()
    submit(session, CALLS.insert("a", 1))
    exchange(session, server)
    call = submit(session, CALLS.increment("n"))
    (request,) = session.flush(0.0)
    server.serve(request.frame)
    server.forget_sessions()
    (again,) = session.reconnected(0.0)
    session.receive(server.serve(again.frame))
    assert isinstance(call.error, errors.OutcomeUnknown)
    assert server.executions("n") == 1


def test_results_too_large_for_one_reply_come_in_several() -> None:
    session, server = session_and_server()
    for number in range(3):
        server.table.rows[f"big{number}"] = msgpack.encode_value("x" * (3 << 20))
    calls = [submit(session, CALLS.lookup(f"big{number}")) for number in range(3)]
    exchange(session, server)
    assert [len(call.value) for call in calls] == [3 << 20] * 3


def test_numbers_do_not_run_ahead_of_an_unanswered_write() -> None:
    """Else its result would be dropped before it is asked for again. Seen red without AHEAD_MAX."""
    session, server = session_and_server()
    submit(session, CALLS.insert("a", 1))
    exchange(session, server)
    lost = submit(session, CALLS.increment("lost"))
    (request,) = session.flush(0.0)
    server.serve(request.frame)
    for _ in range(4 * AHEAD_MAX):
        submit(session, CALLS.increment("n"))
        exchange(session, server)
    (again,) = session.overdue(2.0)
    session.receive(server.serve(again.frame))
    assert lost.value == 1
    exchange(session, server)
    assert server.executions("n") == 4 * AHEAD_MAX


def test_requests_in_flight_and_their_sizes_are_bounded() -> None:
    session, _ = session_and_server()
    for number in range(60):
        submit(session, CALLS.query("k", f"{number}" + "x" * (SHARED_BYTES_MAX // 2)))
    requests = session.flush(0.0)
    assert len(requests) == IN_FLIGHT_MAX
    assert all(len(request.frame) < SHARED_BYTES_MAX + 1000 for request in requests)


def test_a_cancelled_call_is_not_sent() -> None:
    session, _ = session_and_server()
    call = submit(session, CALLS.insert("a", 1))
    session.abandon(call)
    assert session.flush(0.0) == []
    assert session.idle


def test_a_callers_finish_that_raises_is_that_callers_error_alone() -> None:
    session, server = session_and_server()
    good = submit(session, CALLS.lookup("r1"))
    bad = submit(session, CALLS.lookup("r2", dict))
    also_good = submit(session, CALLS.lookup("r3"))
    exchange(session, server)
    assert (good.value, also_good.value) == (1, 3)
    assert isinstance(bad.error, Exception)


def test_closing_ends_every_call() -> None:
    session, server = session_and_server()
    submit(session, CALLS.insert("a", 1))
    exchange(session, server)
    sent_write, sent_read = submit(session, CALLS.insert("a", 1)), submit(session, CALLS.lookup("r1"))
    session.flush(0.0)
    waiting = submit(session, CALLS.insert("a", 1))
    session.close()
    assert isinstance(sent_write.error, errors.OutcomeUnknown)
    assert isinstance(sent_read.error, errors.Timeout)
    assert isinstance(waiting.error, errors.Timeout)
    assert session.idle


def test_a_result_is_asked_for_only_after_the_batch_was_sent() -> None:
    with pytest.raises(ValueError, match="not sent"):
        Pending().result()


def test_a_cancelled_calls_reply_is_not_given_to_the_next() -> None:
    """Seen red with the results of a cancelled call not skipped."""
    session, server = session_and_server()
    calls = [submit(session, CALLS.lookup(f"r{number}")) for number in range(5)]
    (request,) = session.flush(0.0)
    session.abandon(calls[1])
    session.receive(server.serve(request.frame))
    assert [calls[number].value for number in (0, 2, 3, 4)] == [0, 2, 3, 4]
    assert calls[1].value is None


def test_a_read_says_that_no_server_is_there_though_it_was_asked() -> None:
    """It was sent on a connection that is lost since; a write may have been executed.

    Seen red with both said to be unanswered.
    """
    session = ClientSession()
    read, write = Calls().lookup("k"), Calls().remove("k")
    for call in (read, write):
        call.deadline_s = 1.0
        session.submit(call)
    opening = session.flush(0.0)
    assert len(opening) == 2
    session.expire(2.0, lambda: errors.Timeout("no server is there"), reachable=False)
    assert str(read.error) == "no server is there"
    assert write.error is not None


# ---- several servers of one table


def refusal(code: int, seq: int) -> bytes:
    return msgpack.encode_reply(msgpack.refuse(seq, 7, code, "not now"))


def hello(session: ClientSession, **told: Any) -> None:
    """Begin a connection to a server that says this of itself."""
    request = msgpack.decode_request(session.say_hello(0.0))
    assert isinstance(request, Request)
    results = msgpack.encode_results([(0, {"lineage": "ab" * 16, **told})])
    session.receive(msgpack.encode_reply(Reply(request.seq, 7, results)))


def sharing(**options: Any) -> ClientSession:
    """Return an opened session at a server of a table that others serve, too."""
    session = ClientSession(jitter=lambda: 1.0, **options)
    hello(session, seen=True, shared=True)
    session.receive(ModelServer().serve(session._open(0.0).frame))
    return session


def test_a_refusal_for_now_is_no_answer_until_the_deadline() -> None:
    session = sharing()
    read, write = CALLS.lookup("k"), CALLS.increment("n")
    for call, code in ((read, errors.Unavailable.code), (write, errors.WriteRejected.code)):
        submit(session, call, 3.0)
        (request,) = session.flush(0.0)
        session.receive(refusal(code, request.seq), 0.0)
        assert session.refused_here and not call.done
        assert session.overdue(0.05) == [] and session.overdue(0.5) == [request], "the same bytes, a moment later"
        session.receive(refusal(code, request.seq), 0.5)
        session.expire(3.0)
        assert isinstance(call.error, (errors.Unavailable, errors.WriteRejected)), call.error


def test_a_write_is_known_not_to_be_applied_only_if_every_copy_was_refused() -> None:
    """Guarantee 11. One server has refused it; the other may have executed it."""
    session = sharing()
    write = submit(session, CALLS.increment("n"), 3.0)
    (request,) = session.flush(0.0)
    session.receive(refusal(errors.WriteRejected.code, request.seq), 0.0)
    hello(session, seen=True, shared=True)
    assert session.reconnected(1.0) == [request]
    session.expire(3.0)
    assert isinstance(write.error, errors.OutcomeUnknown)


def test_on_a_log_of_its_own_a_rejected_write_is_answered_at_once() -> None:
    session = sharing()
    hello(session, seen=True, shared=False)
    write = submit(session, CALLS.increment("n"))
    (request,) = session.flush(0.0)
    session.receive(refusal(errors.WriteRejected.code, request.seq), 0.0)
    assert isinstance(write.error, errors.WriteRejected)


def test_a_server_of_an_earlier_version_is_asked_as_it_understands_it() -> None:
    """It has its table alone, so what it reads is the newest. Red when the request had four elements."""
    session = ClientSession(reads="local")
    read = submit(session, CALLS.lookup("r1"))
    session.say_hello(0.0)
    assert session.flush(0.0) == [], "what the server knows is learned first"
    hello(session)
    (request,) = session.flush(0.0)
    assert len(msgpack.decode_value(request.frame)) == 3
    session.receive(ModelServer().serve(request.frame))
    assert read.value == 1


@pytest.mark.parametrize(("reads", "seen"), [("linearizable", None), ("session", 7), ("local", 0)])
def test_a_read_says_how_new_its_result_has_to_be_and_a_write_never_does(reads: Any, seen: int | None) -> None:
    session = sharing(reads=reads, revision=7)
    submit(session, CALLS.lookup("k"))
    (request,) = session.flush(0.0)
    decoded = msgpack.decode_request(request.frame)
    assert isinstance(decoded, Request) and decoded.seen == seen
    submit(session, CALLS.lookup("k"))
    submit(session, CALLS.increment("n"))
    (request,) = session.flush(0.0)
    decoded = msgpack.decode_request(request.frame)
    assert isinstance(decoded, Request) and decoded.writes and decoded.seen is None
