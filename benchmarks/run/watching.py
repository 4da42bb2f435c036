"""What watching a server costs it: throughput and processor time with and without a dashboard, `top` or a monitor.

    python -m benchmarks.run.watching                      8 clients, 5 rounds of 4 s with each, and the page itself
    python -m benchmarks.run.watching --rounds 2 --seconds 1 --without-page

Blocking clients insert and look up, one operation at a time, the whole time; whoever watches comes and goes. Each
measurement with somebody has one without just before it and one just after, and is divided by their mean, so that what
else changes in the run cancels out; the median of the rounds is shown. Everything is on one machine: on few cores what
a watcher uses for itself is missing to the clients, so the server's own processor time for an operation is shown, too.

    dashboard, not opened   the process alone: it asks for figures, to have the last hour when a page opens
    dashboard, opened       somebody follows its event stream, as a page does; no browser draws on this machine
    top, top with sample    in a terminal of 80 x 24, once a second
    monitor ...             told of every request, or of some; into nothing

Before that, without any load: which part of a processor the server spends on each watcher, with the clients connected.
Processor time depends less on what else runs; at most so much is missing to the clients of a server that is busy.

The page is measured in Chromium: bytes over the wire, and the time until the first figure is shown.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import pty
import re
import shutil
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.run.processes import Process, free_port

CLIENTS = 8
ROUNDS = 5
SECONDS = 4.0
ROWS = 10_000
ATTACHED_S = 2.0
"""How long whoever watches is given to begin, before anything is measured: Python starts, the first answers come."""

TIMEOUT_S = 60.0

_KVZMQ = (sys.executable, "-c", "from kvzmq.cli import main; main(prog_name='kvzmq')")

Attach = Callable[[str, Path], contextlib.AbstractContextManager[None]]


class Sample(NamedTuple):
    """What the clients did in some seconds: operations a second, and the server's processor time for each."""

    per_s: float
    cpu_us: float


class Cost(NamedTuple):
    """One watcher: his throughput and processor time for an operation, divided by those without him, by round."""

    watcher: str
    throughput: Sequence[float]
    cpu: Sequence[float]


def measure(rounds: int, seconds: float, clients: int, names: Sequence[str]) -> Iterator[Cost]:
    """Yield the cost of each watcher.

    Args:
        rounds: how often each is measured
        seconds: how long each measurement takes
        clients: how many there are
        names: of WATCHERS
    """
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    with (
        tempfile.TemporaryDirectory(prefix="kvzmq-watching-") as scratch,
        _server(Path(scratch)) as url,
        _load(url, clients),
    ):
        for _ in range(rounds):
            before = _sample(url, seconds)
            for name in names:
                with WATCHERS[name](url, Path(scratch)):
                    time.sleep(ATTACHED_S)
                    watched = _sample(url, seconds)
                after = _sample(url, seconds)
                per_s, cpu_us = (before.per_s + after.per_s) / 2, (before.cpu_us + after.cpu_us) / 2
                found[name].append((watched.per_s / per_s, watched.cpu_us / cpu_us))
                before = after
    for name, ratios in found.items():
        yield Cost(name, [throughput for throughput, _ in ratios], [cpu for _, cpu in ratios])


def measure_idle(seconds: float, clients: int, names: Sequence[str]) -> Iterator[tuple[str, float]]:
    """Yield for each watcher which part of a processor the server spends while he alone asks something."""
    import kvzmq

    with (
        tempfile.TemporaryDirectory(prefix="kvzmq-watching-") as scratch,
        _server(Path(scratch)) as url,
        contextlib.ExitStack() as stack,
    ):
        for _ in range(clients):
            stack.enter_context(kvzmq.connect(url, timeout=TIMEOUT_S)).ping()
        asking = stack.enter_context(kvzmq.connect(url, timeout=TIMEOUT_S))
        for name in names:
            with WATCHERS[name](url, Path(scratch)):
                time.sleep(ATTACHED_S)
                before = asking.stats()
                time.sleep(seconds)
                after = asking.stats()
            yield name, (after["cpu_s"] - before["cpu_s"]) / (after["uptime_s"] - before["uptime_s"])


def _sample(url: str, seconds: float) -> Sample:
    """Measure by the server's own counts, of the clients' operations alone."""
    import kvzmq

    with kvzmq.connect(url, timeout=TIMEOUT_S) as table:
        before = table.stats()
        operations = 0
        while not operations:  # none was done in so short a time, on a busy machine
            time.sleep(seconds)
            after = table.stats()
            operations = _done(after) - _done(before)
    return Sample(
        operations / (after["uptime_s"] - before["uptime_s"]), 1e6 * (after["cpu_s"] - before["cpu_s"]) / operations
    )


def _done(stats: Mapping[str, Any]) -> int:
    return sum(int(stats["by_operation"].get(name, {"count": 0})["count"]) for name in ("insert", "lookup"))


# ---- the server and its clients


@contextlib.contextmanager
def _server(scratch: Path) -> Iterator[str]:
    import kvzmq

    url = f"tcp://127.0.0.1:{free_port()}"
    server = Process([*_KVZMQ, "server", "--data", str(scratch / "data"), "--bind", url], scratch / "server")
    try:
        server.wait_ready(lambda: "Listening on" in server.output)
        with kvzmq.connect(url, timeout=TIMEOUT_S) as table:
            table.insert_many({f"row/{number}": number for number in range(ROWS)})
        yield url
    finally:
        server.stop()


@contextlib.contextmanager
def _load(url: str, clients: int) -> Iterator[None]:
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    began = context.Semaphore(0)
    loads = [context.Process(target=_work, args=(url, number, stop, began)) for number in range(clients)]
    for load in loads:
        load.start()
    try:
        for _ in loads:
            assert began.acquire(timeout=TIMEOUT_S), "a client does not begin"
        yield
    finally:
        stop.set()
        for load in loads:
            load.join(TIMEOUT_S)


def _work(url: str, number: int, stop: Event, began: Any) -> None:
    import kvzmq

    with kvzmq.connect(url, timeout=TIMEOUT_S) as table:
        at = number * 997
        table.lookup("row/0")
        began.release()
        while not stop.is_set():
            at += 1
            table.insert(f"row/{at % ROWS}", at)
            table.lookup(f"row/{at * 7 % ROWS}")


# ---- who watches


@contextlib.contextmanager
def _dashboard(url: str, scratch: Path, opened: bool = True) -> Iterator[None]:
    with _dashboard_at(url, scratch) as address, contextlib.ExitStack() as stack:
        if opened:
            stack.enter_context(_following(address))
        yield


@contextlib.contextmanager
def _dashboard_at(url: str, scratch: Path) -> Iterator[tuple[str, int]]:
    process = Process([*_KVZMQ, "-c", url, "dashboard", "--bind", "127.0.0.1:0"], scratch / "dashboard")
    try:
        process.wait_ready(lambda: "http://" in process.output)
        found = re.search(r"http://([\d.]+):(\d+)", process.output)
        assert found is not None
        yield found[1], int(found[2])
    finally:
        process.stop()


@contextlib.contextmanager
def _following(address: tuple[str, int]) -> Iterator[None]:
    """Follow the event stream as one page does, without drawing."""
    with socket.create_connection(address) as stream:
        stream.sendall(b"GET /events HTTP/1.1\r\nHost: %b:%d\r\n\r\n" % (address[0].encode(), address[1]))
        reader = threading.Thread(target=_read_away, args=(stream.fileno(),), daemon=True)
        reader.start()
        try:
            yield
        finally:
            stream.shutdown(socket.SHUT_RDWR)
            reader.join(TIMEOUT_S)


@contextlib.contextmanager
def _terminal(url: str, scratch: Path, *options: str) -> Iterator[None]:
    """Run `kvzmq top` on a terminal that nobody looks at."""
    child, descriptor = pty.fork()
    if child == 0:
        os.environ["TERM"] = "xterm"
        os.execv(_KVZMQ[0], [*_KVZMQ, "-c", url, "top", *options])
    reader = threading.Thread(target=_read_away, args=(descriptor,), daemon=True)
    reader.start()
    try:
        yield
    finally:
        os.write(descriptor, b"q")
        os.waitpid(child, 0)
        reader.join(TIMEOUT_S)
        os.close(descriptor)


def _read_away(descriptor: int) -> None:
    with contextlib.suppress(OSError):
        while os.read(descriptor, 1 << 16):
            pass


@contextlib.contextmanager
def _monitor(url: str, scratch: Path, *options: str) -> Iterator[None]:
    process = Process([*_KVZMQ, "-c", url, "monitor", *options], scratch / "monitor")
    try:
        yield
    finally:
        process.stop()


WATCHERS: Mapping[str, Attach] = {
    "nobody": lambda url, scratch: contextlib.nullcontext(),
    "dashboard, not opened": lambda url, scratch: _dashboard(url, scratch, opened=False),
    "dashboard, opened": _dashboard,
    "top": _terminal,
    "top with sample": lambda url, scratch: _terminal(url, scratch, "--sample"),
    "monitor --sample 100": lambda url, scratch: _monitor(url, scratch, "--sample", "100"),
    "monitor of all": _monitor,
}
"""Who watches, by name. `nobody` shows how far measurements differ by themselves."""


# ---- the page


class Page(NamedTuple):
    """The overview in a browser that has never seen it.

    bytes             what came over the wire, the charting library included
    files             in how many answers
    first_figure_ms   until a figure was shown, from the beginning of the navigation
    first_chart_ms    until a chart was drawn
    again_ms          until a figure was shown to who opens it again
    """

    bytes: int
    files: int
    first_figure_ms: float
    first_chart_ms: float
    again_ms: float


def measure_page() -> Page:
    """Open the dashboard's overview in Chromium, on an idle server."""
    from selenium import webdriver

    with (
        tempfile.TemporaryDirectory(prefix="kvzmq-watching-") as scratch,
        _server(Path(scratch)) as url,
        _dashboard_at(url, Path(scratch)) as (host, port),
    ):
        time.sleep(ATTACHED_S)
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or "chromium"
        switches = ["--headless=new", "--disable-gpu", "--window-size=1600,1000", f"--user-data-dir={scratch}/browser"]
        if os.geteuid() == 0:
            switches.append("--no-sandbox")
        for switch in switches:
            options.add_argument(switch)
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
        try:
            driver.get("about:blank")
            driver.set_script_timeout(TIMEOUT_S)
            driver.get(f"http://{host}:{port}/")
            first_ms, chart_ms = _until(driver, _FIGURE), _until(driver, _CHART)
            sizes = driver.execute_script(_SIZES)
            driver.get(f"http://{host}:{port}/")
            return Page(sum(sizes), len(sizes), first_ms, chart_ms, _until(driver, _FIGURE))
        finally:
            driver.quit()


_SIZES = """
return ["navigation", "resource"].flatMap(kind => performance.getEntriesByType(kind)).map(each => each.transferSize);
"""


_FIGURE = "/[0-9]/.test(document.querySelector('#tile-keys')?.textContent)"
_CHART = "document.querySelector('.charts canvas, .charts figure svg path, .charts .chart svg path')"


def _until(driver: Any, condition: str) -> float:
    """Return how many milliseconds after the beginning of the navigation something was there."""
    found: float = driver.execute_async_script(
        f"const done = arguments[0]; const look = () => {condition} ? done(performance.now()) :"
        " requestAnimationFrame(look); look();"
    )
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--watchers", nargs="+", choices=list(WATCHERS), default=list(WATCHERS))
    parser.add_argument("--without-page", action="store_true")
    chosen = parser.parse_args(arguments)
    print(f"{'nobody asks but':<24}{'of a processor':>15}")
    for name, share in measure_idle(4 * chosen.seconds, chosen.clients, chosen.watchers):
        print(f"{name:<24}{share:>15.4f}")
    print(f"\n{'watched by':<24}{'throughput':>11}{'from':>8}{'to':>8}{'cpu an operation':>19}")
    for cost in measure(chosen.rounds, chosen.seconds, chosen.clients, chosen.watchers):
        middle, low, high = statistics.median(cost.throughput), min(cost.throughput), max(cost.throughput)
        print(f"{cost.watcher:<24}{middle:>11.3f}{low:>8.3f}{high:>8.3f}{statistics.median(cost.cpu):>19.3f}")
    if not chosen.without_page:
        page = measure_page()
        print(
            f"the page: {page.bytes:,} bytes in {page.files} answers; a figure after {page.first_figure_ms:.0f} ms, "
            f"a chart after {page.first_chart_ms:.0f} ms; opened again, a figure after {page.again_ms:.0f} ms"
        )


if __name__ == "__main__":
    main()
