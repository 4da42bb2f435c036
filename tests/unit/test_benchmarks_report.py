"""REPORT from made-up figures: what it says is what they bear."""

from __future__ import annotations

import re
from array import array
from pathlib import Path

import pytest

from benchmarks.report import (
    comparison,
    document,
    group_commit,
    many_clients,
    readme,
    remarks,
    sections,
    startup,
    watches,
)
from benchmarks.report.names import STAGES
from benchmarks.results import Results, Writer, spread
from benchmarks.run import measuring
from benchmarks.run import startup as startup_run
from benchmarks.run.measuring import LOAD_FIELDS
from benchmarks.run.open_tables import Sample
from benchmarks.run.testperf import FIELDS


def write_testperf(
    directory: Path,
    insert: dict[int, float],
    changes: dict[int, float],
    machine: float | dict[int, float] = 1.0,
    server: float | dict[int, float] = 0.5,
) -> None:
    """Write three rounds of TestPerf: the sums of insert as given, the other operations flat."""
    with Writer(directory, "testperf", FIELDS) as writer:
        for at, transport in ((at, transport) for at in (1, 2, 3) for transport in ("bridge", "dealer")):
            for clients, rate in insert.items():
                for operation in STAGES:
                    total = rate if operation == "insert" else 5000.0
                    common = {
                        "round": at,
                        "contender": "kvzmq",
                        "transport": transport,
                        "clients": clients,
                        "operation": operation,
                    }
                    writer.add(
                        **common, client="sum", ops_per_s=total, p50_ms=1.0, p99_ms=2.0,
                        server_busy=server[clients] if isinstance(server, dict) else server,
                        machine_busy=machine[clients] if isinstance(machine, dict) else machine,
                        syncs_per_s=total / changes[clients] if operation == "insert" else None,
                        changes_per_sync=changes[clients] if operation == "insert" else None,
                    )  # fmt: skip
                    for client in range(1, clients + 1):
                        writer.add(**common, client=client, ops_per_s=total / clients)
    with Writer(directory, "machine", ("fact", "value")) as writer:
        writer.add(fact="cores", value=2)


def write_group_commit(directory: Path, grouped: dict[int, float], alone: dict[int, float]) -> None:
    with Writer(directory, "group_commit", LOAD_FIELDS) as writer:
        for at in (1, 2, 3):
            for contender, rates in (("kvzmq", grouped), ("kvzmq-one-by-one", alone)):
                for clients, rate in rates.items():
                    writer.add(
                        round=at, contender=contender, operation="insert", clients=clients,
                        ops_per_s=rate * (0.99 + at / 200),
                        changes_per_sync=clients if contender == "kvzmq" else 1, p99_ms=clients,
                    )  # fmt: skip


def flat(text: str) -> str:
    return " ".join(text.split())


def test_a_report_of_nothing_says_so_in_every_section(tmp_path: Path) -> None:
    text = document.render(Results(tmp_path))
    assert text.count("Not measured in this run.") >= len(sections.SECTIONS) - 2


def test_the_answer_is_on_the_first_screen(tmp_path: Path) -> None:
    write_testperf(tmp_path, {1: 1000.0, 8: 4000.0, 16: 4100.0}, {1: 1.0, 8: 5.0, 16: 9.0}, machine=1.95)
    screen = document.render(Results(tmp_path)).splitlines()[:45]
    assert "    16              4,100   5,000  5,000  5,000   5,000" in screen, "what all make together"
    assert "    16          256     312    312    312     312" in screen, "what each makes"
    text = flat("\n".join(screen))
    assert "one client alone makes 1,000 inserts/s and 5,000 lookups/s" in text
    assert "up to 4,100 inserts/s (16 clients, 4.1 times as many)" in text
    assert "insert at 8, lookup at 1" in text
    assert "with 16 clients 9.0 inserts share one" in text
    assert "inserts are best with 16 clients, where 1.9 of 2 processors are busy" in text


@pytest.mark.parametrize("other", ["pyzmq", "a way of tomorrow"])
def test_another_transport_is_another_contender(tmp_path: Path, other: str) -> None:
    """Red when its figures were mixed with those of the usual one."""
    with Writer(tmp_path, "clients", LOAD_FIELDS) as writer:
        for contender, transport, rate in (
            ("kvzmq", "plain socket", 30.0),
            ("kvzmq", other, 10.0),
            ("redis", "", 20.0),
        ):
            for clients in (1, 8):
                writer.add(
                    round=1,
                    contender=contender,
                    transport=transport,
                    operation="lookup",
                    clients=clients,
                    ops_per_s=rate,
                    p50_ms=1.0,
                )
    results = Results(tmp_path)
    assert results.median("clients", "ops_per_s", contender="kvzmq", clients=8) == 30.0
    text = flat(document.render(results))
    assert "Lookup, 8 clients: kvzmq is ahead of Redis (synced) (1.5x)." in text
    assert f"kvzmq, {other} durable 10" in text


def test_clients_over_either_kind_of_socket_are_told_apart(tmp_path: Path) -> None:
    with Writer(tmp_path, "testperf", FIELDS) as writer:
        for way, rate in (("bridge", 100.0), ("pyzmq", 50.0), ("plain socket", 200.0)):
            for clients in (1, 2):
                for operation in STAGES:
                    writer.add(
                        round=1,
                        contender="kvzmq",
                        transport=way,
                        operation=operation,
                        clients=clients,
                        client="sum",
                        ops_per_s=rate * clients,
                    )
    text = document.render(Results(tmp_path))
    assert "All clients together over ZeroMQ (plain socket), operations/s" in text
    assert "All clients together over ZeroMQ (pyzmq), operations/s" in text
    assert "sum over the bridge by sum over ZeroMQ (plain socket)" in flat(text)


def test_figures_from_before_the_plain_socket_are_said_to_be_over_pyzmq(tmp_path: Path) -> None:
    fields = [field for field in LOAD_FIELDS if field != "transport"]
    with Writer(tmp_path, "clients", fields) as writer:
        for contender, rate in (("kvzmq", 10.0), ("redis", 20.0)):
            writer.add(round=1, contender=contender, operation="lookup", clients=8, ops_per_s=rate, p50_ms=1.0)
    text = flat(document.render(Results(tmp_path)))
    assert text.count("its client was a DEALER of libzmq's (pyzmq) then") == 2, "beside the contenders and the aims"
    assert "against redis-py GET: 10/s : 20/s" in text
    assert "has a plain socket of its own" not in text


def test_the_two_transports_are_compared_in_the_same_rounds(tmp_path: Path) -> None:
    with Writer(tmp_path, "clients", LOAD_FIELDS) as writer:
        for at in (1, 2, 3):
            for transport, cost in (("plain socket", 10.0 * at), ("pyzmq", 40.0 * at), ("frames alone", 5.0)):
                writer.add(
                    round=at, contender="kvzmq", transport=transport, operation="lookup", clients=8,
                    ops_per_s=1000.0, client_cpu_us_per_op=cost,
                )  # fmt: skip
    text = flat(document.render(Results(tmp_path)))
    assert "client's processor time of a lookup, 8 clients <= 0.4x 0.25x 0.25x to 0.25x, 3 met" in text
    assert "against kvzmq over pyzmq: 20.0 us : 80.0 us" in text
    assert "kvzmq, frames alone durable" in text


def test_a_load_of_bare_sockets_is_no_other_contender(tmp_path: Path) -> None:
    """Red when its transport, which is always libzmq's, moved kvzmq's row away from where it is looked for."""
    with Writer(tmp_path, "sockets", LOAD_FIELDS) as writer:
        for contender, transport in (("kvzmq", "pyzmq"), ("redis", "")):
            writer.add(
                round=1, contender=contender, transport=transport, operation="insert", clients=64, ops_per_s=10.0
            )
    assert Results(tmp_path).values("sockets", "contender") == ["kvzmq", "redis"]


def test_tasks_that_last_are_set_beside_the_best_number_of_the_other(tmp_path: Path) -> None:
    with Writer(tmp_path, "tasks", LOAD_FIELDS) as writer:
        for contender, transport, clients, rate in (
            ("kvzmq", "plain socket", 1000, 60_000.0),
            ("redis", "", 8, 4000.0),
            ("redis", "", 50, 5000.0),
            ("redis", "", 1000, 1000.0),
        ):
            writer.add(
                round=1, contender=contender, transport=transport, operation="lookup", batch="lasting_tasks",
                clients=clients, ops_per_s=rate,
            )  # fmt: skip
    text = flat(document.render(Results(tmp_path)))
    assert "against redis.asyncio, its best number of them: 60,000/s : 5,000/s with 50" in text
    assert "asyncio lookup, 1,000 tasks that last >= 10x 12.0x 1 met" in text
    assert "lasting tasks lookup kvzmq - - 60,000" in text


def test_a_programs_first_answer_is_told_over_both_transports(tmp_path: Path) -> None:
    with Writer(tmp_path, "startup", startup_run.FIELDS) as writer:
        for transport, cpu_s in (("plain socket", 0.05), ("pyzmq", 0.1)):
            writer.add(
                round=1, contender="kvzmq", transport=transport, program="first answer", seconds=2 * cpu_s, cpu_s=cpu_s
            )
        writer.add(round=1, contender="python", program="nothing", seconds=0.02, cpu_s=0.01)
    text = flat(startup.write(Results(tmp_path)))
    assert "kvzmq 50 100 kvzmq, pyzmq 100 200 Python alone 10 20" in text
    assert "0.50 of the processor time that it takes over pyzmq (0.50 to 0.50)" in text


def test_growth_with_clients_is_told_with_its_syncs(tmp_path: Path) -> None:
    write_testperf(tmp_path, {1: 1000.0, 8: 4000.0, 16: 4100.0}, {1: 1.0, 8: 5.0, 16: 9.0})
    text = flat(many_clients.write(Results(tmp_path)))
    assert "one client alone makes 1,000/s, 16 together make 4,100/s, 4.1 times as many" in text
    assert "Alone, every insert waits for a sync of its own." in text
    assert "each sync carries 9.0 changes" in text
    assert "levels off at 8 clients" in text
    assert "waits for the disk" not in text, "that would have to be measured"
    with Writer(tmp_path, "limits", ("what", "how", "p50_ms")) as writer:
        writer.add(what="1 insert", how="overwrite", p50_ms=0.5)
    text = flat(many_clients.write(Results(tmp_path)))
    assert "the loop waits for the disk, for 23% of the time if a sync takes the 0.50 ms it takes alone" in text


def test_full_processors_are_named_as_what_ends_it(tmp_path: Path) -> None:
    write_testperf(tmp_path, {1: 1000.0, 8: 4000.0, 16: 4100.0}, {1: 1.0, 8: 5.0, 16: 9.0}, machine=1.95)
    text = flat(many_clients.write(Results(tmp_path)))
    assert "the processors are what ends it, and the clients take 74% of them" in text
    assert "waits for the disk" not in text


def test_a_sum_that_still_grows_has_not_levelled_off(tmp_path: Path) -> None:
    write_testperf(tmp_path, {1: 1000.0, 8: 4000.0, 16: 8000.0}, {1: 1.0, 8: 5.0, 16: 9.0})
    assert "had not levelled off at 16 clients" in flat(many_clients.write(Results(tmp_path)))


def test_syncs_that_carry_one_change_are_not_called_shared(tmp_path: Path) -> None:
    write_testperf(tmp_path, {1: 1000.0, 8: 1010.0}, {1: 1.0, 8: 1.0})
    assert "each sync carries" not in flat(many_clients.write(Results(tmp_path)))


def test_every_client_is_listed(tmp_path: Path) -> None:
    write_testperf(tmp_path, {1: 1000.0, 8: 4000.0}, {1: 1.0, 8: 5.0})
    text = many_clients.every_client(Results(tmp_path))
    assert "insert  " + " ".join(["500"] * 8) in text


def test_group_commit_that_helps_is_said_to_help(tmp_path: Path) -> None:
    write_group_commit(tmp_path, {1: 1000.0, 16: 9000.0}, {1: 1000.0, 16: 1100.0})
    text = flat(group_commit.write(Results(tmp_path)))
    assert "For one client both do the same, as there is nothing to share a sync with: its ratio, 1.00," in text
    assert "16 clients get 8.2 times as many inserts" in text
    assert "Without it the rate stays near" in text


def test_group_commit_that_does_not_help_is_not_said_to(tmp_path: Path) -> None:
    write_group_commit(tmp_path, {1: 1000.0, 16: 1000.0}, {1: 1000.0, 16: 1000.0})
    assert "times as many inserts" not in flat(group_commit.write(Results(tmp_path)))


def test_nothing_surprises_where_there_are_no_figures(tmp_path: Path) -> None:
    assert remarks.surprises(Results(tmp_path)) == "Nothing."


def test_a_fall_with_more_clients_is_a_surprise(tmp_path: Path) -> None:
    write_testperf(tmp_path, {1: 1000.0, 8: 4000.0, 16: 2000.0}, {1: 1.0, 8: 5.0, 16: 9.0})
    assert "falls to 50% of its best sum between 8 and 16 clients" in flat(remarks.surprises(Results(tmp_path)))


def test_a_report_is_written_without_measuring(tmp_path: Path) -> None:
    write_testperf(tmp_path, {1: 1000.0, 8: 4000.0}, {1: 1.0, 8: 5.0})
    document.main(
        [
            "--from-results",
            "--results",
            str(tmp_path),
            "--output",
            str(tmp_path / "REPORT"),
            "--plots",
            str(tmp_path / "docs"),
        ]
    )
    text = (tmp_path / "REPORT").read_text()
    assert "1. The question" in text
    assert str(tmp_path) not in text


def test_plots_are_drawn_of_what_there_is(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from benchmarks.report import plots

    write_group_commit(tmp_path, {1: 1000.0, 16: 9000.0}, {1: 1000.0, 16: 1100.0})
    drawn = plots.draw_all(Results(tmp_path), tmp_path / "docs")
    assert [path.name for path in drawn] == ["plot-group-commit.svg"]
    assert "clients at the same time" in drawn[0].read_text()


def test_sums_that_fall_are_told_with_what_an_operation_costs_then(tmp_path: Path) -> None:
    write_testperf(tmp_path, {1: 1000.0, 8: 4000.0, 16: 2000.0}, {1: 1.0, 8: 5.0, 16: 9.0}, machine=1.9)
    text = flat(many_clients.write(Results(tmp_path)))
    assert (
        "With 16 the sum has fallen again, to 2,000/s: one insert now costs the server 250 us instead of 125"
        " and clients and kernel 700 us instead of 350" in text
    )
    assert "and is best with 8" in text


def test_a_plateau_is_told_from_where_it_begins_to_where_it_ends(tmp_path: Path) -> None:
    write_testperf(tmp_path, {1: 1000.0, 8: 3900.0, 16: 4000.0, 32: 1000.0}, {1: 1.0, 8: 5.0, 16: 9.0, 32: 9.0})
    assert "It levels off at 8 clients, stays within 10% of the best sum up to 16, and is best with 16" in flat(
        many_clients.write(Results(tmp_path))
    )


def test_a_fall_at_the_same_cost_is_not_explained_by_caches(tmp_path: Path) -> None:
    write_testperf(
        tmp_path,
        {1: 1000.0, 8: 4000.0, 16: 3000.0},
        {1: 1.0, 8: 5.0, 16: 9.0},
        machine={1: 1.0, 8: 1.6, 16: 1.3},
        server={1: 0.5, 8: 0.8, 16: 0.6},
    )
    text = flat(many_clients.write(Results(tmp_path)))
    assert "one insert now costs the server 200 us, as before and clients and kernel 233 us instead of 200" in text
    write_testperf(
        tmp_path,
        {1: 1000.0, 8: 4000.0, 16: 3000.0},
        {1: 1.0, 8: 5.0, 16: 9.0},
        machine={1: 1.0, 8: 1.6, 16: 0.6},
        server={1: 0.5, 8: 0.8, 16: 0.3},
    )
    text = flat(many_clients.write(Results(tmp_path)))
    assert (
        "costs the server 100 us instead of 200 and clients and kernel 100 us instead of 200. Lookups" in text
        and "caches" not in text
    )


def test_a_plateau_ends_at_the_first_gap(tmp_path: Path) -> None:
    write_testperf(
        tmp_path, {1: 1000.0, 8: 3900.0, 16: 2000.0, 32: 4000.0, 64: 1000.0}, dict.fromkeys((1, 8, 16, 32, 64), 1.0)
    )
    assert "levels off at 8 clients, and is best with 32" in flat(many_clients.write(Results(tmp_path)))


def test_a_report_of_an_interrupted_run_is_written(tmp_path: Path) -> None:
    """Red when a table had a fixed header and as many cells as there were figures."""
    with Writer(tmp_path, "tasks", LOAD_FIELDS) as writer:
        writer.add(round=1, contender="redis", operation="insert", batch="tasks", clients=64, ops_per_s=10.0)
    with Writer(tmp_path, "group_commit", LOAD_FIELDS) as writer:
        writer.add(round=1, contender="kvzmq", operation="insert", clients=1, ops_per_s=10.0)
    with Writer(tmp_path, "testperf", FIELDS) as writer:
        writer.add(round=1, contender="kvzmq", transport="bridge", operation="insert", clients=1, client="sum")
    text = document.render(Results(tmp_path))
    assert not re.search(r"\bnan\b", text)


def test_the_slowest_and_the_fastest_client_are_told(tmp_path: Path) -> None:
    with Writer(tmp_path, "testperf", FIELDS) as writer:
        for clients, rates in ((1, [100.0]), (4, [10.0, 50.0, 60.0, 280.0])):
            for operation in STAGES:
                common = {
                    "round": 1,
                    "contender": "kvzmq",
                    "transport": "bridge",
                    "clients": clients,
                    "operation": operation,
                }
                writer.add(**common, client="sum", ops_per_s=sum(rates))
                for client, figure in enumerate(rates, start=1):
                    writer.add(**common, client=client, ops_per_s=figure)
    text = flat(many_clients.write(Results(tmp_path)))
    assert "Not all clients fare alike over the bridge" in text
    assert "at the worst 10%, in insert with 4 clients, and 280%, in" in text


def test_who_is_ahead_even_and_behind_is_said_of_rounds_that_agree() -> None:
    ratios = {
        "redis": spread([1.4, 1.5, 1.6]), "redis-many": spread([0.9, 1.5, 1.6]), "sqlite": spread([1.01, 1.05, 1.08]),
        "etcd": spread([0.4, 0.5, 0.6]), "memcached": spread([0.4, 0.5, 1.1]),
    }  # fmt: skip
    assert comparison.judge("Insert", ratios) == (
        "Insert: kvzmq is ahead of Redis (synced) (1.5x); ahead, but not in every round, of Redis (synced, MSET"
        " and MGET) (1.5x); "
        "even with SQLite; behind, but not in every round, memcached (2.0x); behind etcd (2.0x)."
    )


def test_batches_are_compared_with_everybody(tmp_path: Path) -> None:
    """Red when contenders were looked up by their titles: both sentences were missing."""
    write_comparison(tmp_path, 3000.0, 2000.0)
    for other in ("tasks", "libraries", "clients"):
        (tmp_path / f"{other}.csv").unlink()
    text = flat(comparison.write(Results(tmp_path)))
    for operation in ("Insert", "Lookup"):
        assert (
            f"{operation}, 1,000 rows at a time: kvzmq is ahead of Redis (synced) (1.5x) and Redis (synced,"
            " MSET and MGET) (1.5x)." in text
        )


def test_a_window_in_which_not_all_were_at_work_for_long_gives_no_figures() -> None:
    """Red when one operation within a millisecond was written as thousands a second."""

    def sample(start_s: float, end_s: float) -> Sample:
        ended = array("q", [int(1e9 * (start_s + (end_s - start_s) * at / 10)) for at in range(1, 11)])
        return Sample(int(start_s * 1e9), int(end_s * 1e9), ended.tobytes(), array("q", [1000] * 10).tobytes(), 1, 0.1)

    assert measuring.combine([sample(0.0, 1.0), sample(0.5, 1.5)], 1.0)["ops_per_s"] == pytest.approx(20, rel=0.2)
    thin = measuring.combine([sample(0.0, 1.0), sample(0.9, 1.5)], 1.0)
    assert thin["ops_per_s"] is None and thin["operations"] == 0


def write_comparison(directory: Path, ours: float, theirs: float) -> None:
    experiments: dict[str, dict[str, object]] = {
        "batches": {"batch": 1000},
        "tasks": {"batch": "tasks", "clients": 1000},
        "libraries": {"clients": 64},
        "clients": {"clients": 8},
    }
    for name, columns in experiments.items():
        with Writer(directory, name, LOAD_FIELDS) as writer:
            for at in (1, 2, 3):
                for operation in ("insert", "lookup"):
                    for contender, rate in (
                        ("kvzmq", ours),
                        ("kvzmq-bridge", ours),
                        ("redis", theirs),
                        ("redis-many", theirs),
                    ):
                        writer.add(round=at, contender=contender, operation=operation, ops_per_s=rate * at, **columns)


def test_the_table_in_readme_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    write_comparison(tmp_path, 3000.0, 2000.0)
    page = tmp_path / "README.md"
    page.write_text(f"before\n{readme.BEGIN}\nold\n{readme.END}\nafter\n")
    assert readme.update(page, Results(tmp_path))
    text = page.read_text()
    assert (
        text.startswith(f"before\n{readme.BEGIN}\nMedians of 3 rounds of one run, the plot of 0:\n\n| operations")
        and text.endswith(f"{readme.END}\nafter\n")
        and "old" not in text
    )
    assert text.count("| 6,000 | 4,000 | 1.5x | 1.5 to 1.5 |") == 12 and "MSET" in text
    assert readme.update(page, Results(tmp_path)) and page.read_text() == text


def test_readme_keeps_its_table_where_figures_are_missing(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text(f"{readme.BEGIN}\nold\n{readme.END}\n")
    assert not readme.update(page, Results(tmp_path)) and "old" in page.read_text()


def test_a_watchers_rate_and_an_events_delay_are_told(tmp_path: Path) -> None:
    with Writer(tmp_path, "watches", LOAD_FIELDS) as writer:
        writer.add(
            round=1,
            operation="blocking",
            clients=1,
            ops_per_s=150_000.0,
            server_cpu_us_per_op=4.0,
            client_cpu_us_per_op=5.0,
        )
        writer.add(round=1, operation="insert answered", clients=1, min_ms=0.2, p50_ms=0.3, p99_ms=0.5, max_ms=1.0)
        writer.add(round=1, operation="event received", clients=1, min_ms=0.2, p50_ms=0.35, p99_ms=0.5, max_ms=1.0)
    text = flat(watches.write(Results(tmp_path)))
    assert "One watcher takes in 150,000 events a second." in text
    assert "An event comes +50 us after the writer has its answer" in text
