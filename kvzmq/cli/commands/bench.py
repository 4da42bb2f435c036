"""`kvzmq bench`: measures a server from here, with the options and the output of redis-benchmark.

It works under keys of its own, `kvzmq-bench-...`, and removes them at the end, also after Ctrl-C.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from msgspec import Raw

from kvzmq import errors
from kvzmq.bench.load import CONNECTIONS_MAX, TRANSPORT, Load, Measured, summarize
from kvzmq.bench.outcome import LATENCY_COLUMNS, Outcome, latency_row
from kvzmq.bench.workload import TESTS, Workload
from kvzmq.cli import DONE, NOT_FOUND
from kvzmq.client.core.endpoints import resolve
from kvzmq.client.core.pyzmq_socket import use_keys
from kvzmq.client.core.targets import Target, parse_targets
from kvzmq.client.sync.client import Client, open_client

_BATCH_TIMEOUT_S = 30.0
"""How long one batch of the rows that a test needs may take."""


def _split_tests(ctx: click.Context, param: click.Parameter, value: str) -> list[str]:
    tests = [name.strip().lower() for name in value.split(",") if name.strip()]
    unknown = [name for name in tests if name not in TESTS]
    if unknown or not tests:
        raise click.BadParameter(f"no test {', '.join(unknown)}; there are {', '.join(TESTS)}")
    return tests


@click.command()
@click.option(
    "-c",
    "--clients",
    type=click.IntRange(1, CONNECTIONS_MAX),
    default=50,
    show_default=True,
    metavar="N",
    help="Connections at the same time. (Before the command's name -c is the server: kvzmq -c URL bench.)",
)
@click.option(
    "-n",
    "--requests",
    type=click.IntRange(1),
    default=100_000,
    show_default=True,
    metavar="N",
    help="Operations in each test, all clients together.",
)
@click.option(
    "-d",
    "--data",
    "data_bytes",
    type=click.IntRange(0, 1 << 20),
    default=3,
    show_default=True,
    metavar="BYTES",
    help="Size of a value in bytes.",
)
@click.option(
    "-r",
    "--keyspace",
    type=click.IntRange(1, 10_000_000),
    default=10_000,
    show_default=True,
    metavar="N",
    help="How many different keys there are.",
)
@click.option(
    "-P",
    "--pipeline",
    type=click.IntRange(1, 10_000),
    default=1,
    show_default=True,
    metavar="N",
    help="Operations in one request.",
)
@click.option(
    "-t",
    "--tests",
    callback=_split_tests,
    default=",".join(TESTS),
    show_default=True,
    metavar="NAMES",
    help="The tests to run, separated by commas.",
)
@click.option("-q", "--quiet", is_flag=True, help="Print one line for each test.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Measure with 1, 2, 4 ... clients and write tables to FILE (Markdown), and plots beside it.",
)
@click.option(
    "--disk",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Measure the disk of DIR instead: syncs a second, p50, p99; exit code 1 if it is too slow for a table.",
)
@click.pass_context
def bench(
    ctx: click.Context,
    clients: int,
    requests: int,
    data_bytes: int,
    keyspace: int,
    pipeline: int,
    tests: list[str],
    quiet: bool,
    as_csv: bool,
    report: Path | None,
    disk: Path | None,
) -> None:
    """Measure a server: requests per second and latencies, for each operation.

    Every client sends a request, waits for the reply, and sends the next. Writes are durable, as
    always. The clients are bare DEALER sockets of libzmq's (pyzmq), in one process: a program's own
    client, on its plain socket, takes other times. Its keys begin with "kvzmq-bench-"; they are removed when it ends.
    """
    if disk is not None:
        ctx.exit(_measure_disk(disk))
    if report is not None:
        _check_plots()
    settings = ctx.find_root().params
    timeout_s = settings["timeout_s"]
    target = _target(settings, timeout_s)
    work = Workload(keyspace, data_bytes)
    counts = _counts(clients) if report is not None else [clients]
    outcomes: list[Outcome] = []
    if as_csv:
        click.echo(_CSV_HEADER)
    with open_client([target], max(timeout_s, _BATCH_TIMEOUT_S)) as table:
        table.ping(timeout=timeout_s)  # a server that is not there is not waited for as long as a batch
        try:
            for test, count in itertools.product(tests, counts):
                table.insert_many(work.rows(test, requests))
                measured = _measure(
                    target, work, test, count, requests, pipeline, max(timeout_s, 10.0), as_csv or quiet
                )
                outcomes.append(Outcome(test, count, measured, summarize(measured.latencies_ns)))
                if as_csv:
                    click.echo(_csv_line(outcomes[-1]))
                elif quiet or report is not None:
                    click.echo(_short_line(outcomes[-1], len(counts) > 1))
                else:
                    click.echo(_long_text(outcomes[-1], data_bytes, pipeline))
        finally:
            _clean_up(table, work, max(keyspace, requests if "remove" in tests else 0))
    if report is not None:
        from kvzmq.bench.report import write_report

        facts = {"value": f"{data_bytes} bytes", "operations a request": str(pipeline), "transport": TRANSPORT}
        for path in write_report(report, outcomes, facts):
            click.echo(f"wrote {path}", err=True)


def _target(settings: Mapping[str, Any], timeout_s: float) -> Target:
    """Return where the first server of the URL list listens, and the keys for it."""
    try:
        first = parse_targets(settings["url"], settings["curve_key"], settings["server_key"])[0]
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    return first._replace(url=resolve(first.url, timeout_s)[0])


def _counts(clients: int) -> list[int]:
    return sorted({1 << power for power in range(clients.bit_length()) if 1 << power <= clients} | {clients})


def _check_plots() -> None:
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        click.echo("kvzmq: no plots, as matplotlib is not installed: pip install 'kvzmq[bench]'", err=True)


def _measure(
    target: Target,
    work: Workload,
    test: str,
    clients: int,
    requests: int,
    pipeline: int,
    timeout_s: float,
    silent: bool,
) -> Measured:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:>10}"),
        BarColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    began_s = time.perf_counter()
    with (
        Load(target.url, clients, timeout_s=timeout_s, prepare=lambda socket: use_keys(socket, target.keys)) as load,
        Progress(*columns, console=console, transient=True, disable=silent or not console.is_terminal) as bar,
    ):
        task = bar.add_task(test, total=requests, rate="")

        def show(done: int) -> None:
            bar.update(task, completed=done, rate=f"{done / (time.perf_counter() - began_s):,.0f}/s")

        return load.run(_batches(work.operations(test), requests, pipeline), progress=show)


def _batches(operations: Iterator[Raw], total: int, pipeline: int) -> Iterator[list[Raw]]:
    for at in range(0, total, pipeline):
        yield list(itertools.islice(operations, min(pipeline, total - at)))


def _clean_up(table: Client, work: Workload, rows: int) -> None:
    table.remove_many([work.prefix + "counter"])
    for at in range(0, rows, 10_000):
        table.remove_many([work.key(number) for number in range(at, min(rows, at + 10_000))])


# ---- what is printed


_CSV_HEADER = ",".join(f'"{name}"' for name in ("test", "rps", *(f"{name}_latency_ms" for name in LATENCY_COLUMNS)))


def _csv_line(outcome: Outcome) -> str:
    figures = [f"{outcome.measured.ops_per_s:.2f}", *(f"{ms:.3f}" for ms in latency_row(outcome.latency))]
    return ",".join(f'"{cell}"' for cell in (outcome.test, *figures))


def _short_line(outcome: Outcome, several: bool) -> str:
    clients = f", {outcome.clients} clients" if several else ""
    rate = f"{outcome.measured.ops_per_s:.2f} requests per second"
    return f"{outcome.test}{clients}: {rate}, p50={outcome.latency.p50_ms:.3f} msec{_failures(outcome)}"


def _long_text(outcome: Outcome, data_bytes: int, pipeline: int) -> str:
    measured = outcome.measured
    heads = "".join(f"{head:>10}" for head in LATENCY_COLUMNS)
    figures = "".join(f"{ms:10.3f}" for ms in latency_row(outcome.latency))
    return f"""====== {outcome.test} ======
  {measured.operations} requests completed in {measured.seconds:.2f} seconds{_failures(outcome)}
  {outcome.clients} parallel clients
  transport: {TRANSPORT}
  {data_bytes} bytes payload
  {pipeline} operations in a request

Summary:
  throughput: {measured.ops_per_s:.2f} requests per second
  latency summary (msec):
  {heads}
  {figures}
"""


def _failures(outcome: Outcome) -> str:
    failed = outcome.measured.failed
    if not failed:
        return ""
    named = (
        f"{count} {errors.BY_CODE[code].__name__ if code in errors.BY_CODE else code}" for code, count in failed.items()
    )
    return f" ({', '.join(named)})"


def _measure_disk(directory: Path) -> int:
    """Say what the disk of a directory does, and return the exit code."""
    from kvzmq.bench.disk import measure

    found = measure(directory)
    click.echo(
        f"{found.path} ({found.file_system}): {found.syncs_per_s:,.0f} syncs/s, p50 {found.p50_s * 1000:.2f} ms, "
        f"p99 {found.p99_s * 1000:.2f} ms, max {found.max_s * 1000:.2f} ms"
    )
    click.echo("pass" if found.passes else f"fail: {'; '.join(found.reasons)}")
    return DONE if found.passes else NOT_FOUND
