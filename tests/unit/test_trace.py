"""The interleave trace: what the server writes, and what `kvzmq trace` makes of it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.stepped import Stepped

from kvzmq.cli import main
from kvzmq.tracing import interleaving, trace
from kvzmq.tracing.interleaving import Numbered
from kvzmq.tracing.trace import Line, Trace


def traced(text: str) -> list[Line]:
    return [numbered.line for numbered in interleaving.read(io.StringIO(text))]


def numbered(*lines: tuple[int, int, str, str, int, float, float]) -> list[Numbered]:
    return [
        Numbered(number, Line(step, revision, client, operation, "-", changes, began_us, took_us))
        for number, (step, revision, client, operation, changes, began_us, took_us) in enumerate(lines, start=2)
    ]


# ---- what the server writes


def test_every_executed_request_has_a_line_in_the_order_of_execution() -> None:
    file = io.StringIO()
    with Stepped(trace=Trace(file)) as table:
        peer, other = table.tcp(), table.zmq()
        other.send(["insert_many", {"b": 1, "c": 2}], ["lookup", "b"])
        table.replies(other)
        peer.send(b'{"method": "insert", "key": "tab\\tline\\n", "value": 1}\ngarbage\n{"method": "size"}\n')
        table.lines(peer, 3)
        other.send(["stats"])
        table.replies(other)
        other.send(["remove", "ghost"])
        table.replies(other)
    lines = traced(file.getvalue())
    assert [(line.revision, line.operation, line.key, line.changes) for line in lines] == [
        (2, "insert_many+1", "-", 2),
        (3, "insert", '"tab\\tline\\n"', 1),
        (3, "size", "-", 0),
        (3, "stats", "-", 0),
        (3, "remove", '"ghost"', 0),
    ]
    assert lines[0].client.startswith("zmq:") and lines[1].client.startswith("tcp:127.0.0.1:")
    assert lines[1].step == lines[2].step and lines[0].client == lines[3].client
    assert interleaving.summarize(interleaving.read(io.StringIO(file.getvalue()))).alone


def test_a_retried_request_is_not_executed_and_has_no_line() -> None:
    """Red when it had one with the revision of its reply: kept from the first time, it ran back."""
    file = io.StringIO()
    with Stepped(trace=Trace(file)) as table:
        peer = table.zmq()
        peer.session = bytes(16)
        table.call(peer, "open")
        table.call(peer, "insert", "a", 1)
        table.call(peer, "insert", "b", 1)
        peer.seq = 1
        assert table.call(peer, "insert", "a", 1) == (0, None)
        peer.seq = 3
        assert table.call(peer, "insert", "c", 1) == (0, None)
    assert [(line.revision, line.changes) for line in traced(file.getvalue())] == [(0, 0), (1, 1), (2, 1), (3, 1)]


def test_expired_rows_have_a_line_of_their_own() -> None:
    file = io.StringIO()
    with Stepped(trace=Trace(file)) as table:
        peer = table.zmq()
        table.call(peer, "insert", "a", 1, 5.0)
        table.call(peer, "insert", "b", 1, 5.0)
        table.now_us += 10_000_000
        assert table.call(peer, "size") == (0, 0)
    lines = traced(file.getvalue())
    assert [(line.client[:3], line.operation, line.revision, line.changes) for line in lines] == [
        ("zmq", "insert", 1, 1),
        ("zmq", "insert", 2, 1),
        ("-", "expired", 4, 2),
        ("zmq", "size", 4, 0),
    ]
    summary = interleaving.summarize(interleaving.read(io.StringIO(file.getvalue())))
    assert summary.alone and summary.expired == 2 and summary.clients == 1


def test_a_request_that_could_not_be_written_was_not_executed_and_has_no_line() -> None:
    """Red when its line had the times of the request before it."""
    file = io.StringIO()
    with Stepped(trace=Trace(file)) as table:
        peer = table.zmq()
        assert table.call(peer, "insert", "a", 1) == (0, None)
        table.log.full = True
        assert table.call(peer, "insert", "a", 2)[0] == 18
        table.log.full = False
        assert table.call(peer, "remove", "a") == (0, None)
    assert [(line.operation, line.revision) for line in traced(file.getvalue())] == [("insert", 1), ("remove", 2)]


def test_a_trace_that_cannot_be_written_does_not_stop_the_service() -> None:
    file = io.StringIO()
    with Stepped(trace=Trace(file)) as table:
        peer = table.zmq()
        file.close()
        assert table.call(peer, "size") == (0, 0)
        assert table.call(peer, "size") == (0, 0)


# ---- reading it


def test_parse_refuses_what_is_not_a_line() -> None:
    assert trace.parse("# a comment\n") is None and trace.parse("\n") is None
    good = '1\t2\ttcp:1\tinsert\t"k"\t1\t0.5\t1.5\n'
    assert trace.parse(good) == Line(1, 2, "tcp:1", "insert", '"k"', 1, 0.5, 1.5)
    for bad in ("x\n", good.replace("\t1\t0.5", "\t0.5"), good.replace("1\t2", "one\t2"), good.replace("1.5", "?")):
        with pytest.raises(ValueError):
            trace.parse(bad)


def test_a_last_line_cut_off_in_writing_is_left_out_and_any_other_is_refused() -> None:
    good = '1\t2\ttcp:1\tinsert\t"k"\t1\t0.5\t1.5\n'
    assert len(traced(good + good[:-9])) == 1
    with pytest.raises(interleaving.BadTraceLine, match="line 2"):
        traced(good + good[:-9] + "\n" + good)


def test_summary_counts_steps_that_served_several_clients_and_the_longest_run_among_others() -> None:
    lines = numbered(
        (1, 1, "a", "insert", 1, 0, 1),
        (1, 1, "b", "size", 0, 1, 1),
        (2, 1, "a", "size", 0, 2, 1),
        (2, 1, "a", "size", 0, 3, 1),
        (3, 1, "a", "lookup+4", 0, 4, 1),
        (4, 1, "b", "size", 0, 5, 1),
        *((5, 1, "b", "size", 0, 6 + n, 1) for n in range(9)),  # nobody else is active any more
    )
    summary = interleaving.summarize(lines)
    assert (summary.requests, summary.steps, summary.shared_steps, summary.clients) == (15, 5, 1, 2)
    assert (summary.longest_run, summary.longest_run_client) == (3, "a")
    assert (summary.requests_a_step, summary.requests_a_step_max) == (3.0, 9)
    assert summary.operations == {"size": 13, "insert": 1, "lookup": 1}
    assert summary.alone and summary.changes == 1


def test_summary_of_one_client_and_of_nothing() -> None:
    assert interleaving.summarize([]).alone
    summary = interleaving.summarize(numbered((1, 1, "a", "insert", 1, 0, 1), (2, 2, "a", "insert", 1, 1, 1)))
    assert (summary.longest_run, summary.longest_run_client, summary.shared_steps) == (0, None, 0)


@pytest.mark.parametrize(
    "second, sign",
    [
        ((1, 2, "b", "insert", 1, 1.0, 1.0), None),
        ((1, 2, "b", "insert", 1, 0.9, 1.0), None),  # rounding
        ((1, 2, "b", "insert", 1, 0.5, 1.0), "line 3: began 0.5 us before"),
        ((1, 3, "b", "insert", 1, 2.0, 1.0), "line 3: revision 3"),
        ((1, 1, "b", "insert", 1, 2.0, 1.0), "line 3: revision 1"),
        ((0, 2, "b", "insert", 1, 2.0, 1.0), "line 3: step 0 after step 1"),
    ],
)
def test_summary_names_the_first_line_that_did_not_execute_alone(
    second: tuple[int, int, str, str, int, float, float], sign: str | None
) -> None:
    summary = interleaving.summarize(
        numbered((1, 1, "a", "insert", 1, 0.0, 1.0), second, (2, 9, "a", "size", 7, 9.0, 1.0))
    )
    assert summary.fault is None if sign is None else summary.fault is not None and summary.fault.startswith(sign)


def test_lanes_hold_every_request_once_and_fit_the_width() -> None:
    lines = [
        Line(1 + n // 3, 0, "abcde"[n * n % 5], "insert" if n % 2 else "lookup", "-", 0, float(n), 0.5)
        for n in range(200)
    ]
    blocks = list(interleaving.draw(lines, 40))
    drawn = 0
    for block in blocks:
        assert block.width <= 40 and all(len(lane) == block.width for lane in block.lanes.values())
        columns = list(zip(*block.lanes.values()))
        assert {column for _, column in block.steps} == {
            at for at, column in enumerate(columns) if interleaving.BAR in column
        }
        for column in columns:
            marks = [sign for sign in column if sign not in interleaving.REST + interleaving.BAR]
            assert len(marks) == (0 if interleaving.BAR in column else 1)
            drawn += len(marks)
    assert drawn == len(lines)


# ---- the command

TRACE = "".join(
    f'{1 + n // 4}\t{n + 1}\t{("tcp:127.0.0.1:40001", "zmq:00000001")[n % 2]}\tinsert\t"k"\t1\t{n}.0\t0.5\n'
    for n in range(40)
)


def test_the_command_draws_lanes_that_fit_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    path = tmp_path / "trace"
    path.write_text("# comment\n" + TRACE)
    done = CliRunner().invoke(main, ["trace", str(path)])
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "steps that served several clients 10 (100%)" in said
    assert "each request executed alone yes" in said
    drawing = done.output.split("\n\n")[1:]
    assert all(len(line) <= 60 for block in drawing[:-1] for line in block.splitlines())
    assert sum(block.count("I") for block in drawing[:-1]) == 40
    assert "zmq:00000001 │·I·I│·I·I" in done.output
    assert "\x1b" not in done.output, "no color in a pipe"


def test_the_command_reads_standard_input_and_speaks_json() -> None:
    done = CliRunner().invoke(main, ["trace", "--json", "-"], input=TRACE)
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)
    assert found["requests"] == 40 and found["shared_steps"] == 10 and found["alone"] is True


def test_the_command_exits_with_1_when_requests_did_not_execute_alone() -> None:
    broken = TRACE.replace("\t7.0\t0.5", "\t7.0\t9.5")
    done = CliRunner().invoke(main, ["trace", "--lanes", "0", "-"], input=broken)
    assert done.exit_code == 1
    assert "each request executed alone NO, line 9: began 8.5 us before" in " ".join(done.output.split())


def test_the_command_names_file_and_line_of_a_bad_line(tmp_path: Path) -> None:
    path = tmp_path / "not-a-trace"
    path.write_text(TRACE + "nonsense\n" + TRACE)
    done = CliRunner().invoke(main, ["trace", str(path)])
    assert done.exit_code == 2
    assert f"{path}: line 41" in done.output


def test_the_command_begins_where_it_is_told_and_with_a_shared_step_otherwise() -> None:
    head = "".join(f"{step}\t0\ttcp:1\tsize\t-\t0\t0.0\t0.0\n" for step in range(-5, 1))  # one client alone
    text = head + TRACE
    done = CliRunner().invoke(main, ["trace", "--lanes", "4", "-"], input=text)
    assert "step 1" in done.output and "step -5" not in done.output
    done = CliRunner().invoke(main, ["trace", "--lanes", "4", "--step", "9", "-"], input=text)
    assert "step 9" in done.output
    done = CliRunner().invoke(main, ["trace", "-"], input="")
    assert done.exit_code == 0
