"""Take pictures of every page of the dashboard, with eight clients of TestPerf at work, and of `kvzmq top`.

    python tests/screenshots.py [DIRECTORY]     all pages, two widths, dark and light; the ones that docs/observing.md
                                                shows are copied to docs/images

The figures are those of this machine while it also draws; what matters is what they look like.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from PIL import Image
from support.browser import NARROW, WIDE, Browser
from support.dashboards import DashboardProcess
from support.screens import ScreenProcess
from support.servers import KVZMQ, ServerProcess, end_with_the_tests, free_port

import kvzmq

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
PAGES = ("overview", "clients", "table", "lanes", "servers")
SCHEMES = ("light", "dark")
SIZES = {"wide": WIDE, "narrow": NARROW}
CLIENTS = 8
STAGE_S = 8
WARM_S = 65.0
"""How long the clients work before the first picture: the charts show one minute."""

IN_DOCS = {
    "overview-wide-light", "overview-narrow-dark", "clients-wide-dark", "table-wide-light", "lanes-wide-light",
    "servers-wide-light",
}  # fmt: skip
IMAGE_BYTES_MAX = 150_000
COLORS = 128


def main(arguments: list[str]) -> None:
    directory = Path(arguments[0]) if arguments else ROOT / "build" / "screenshots"
    directory.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kvzmq-screenshots-")))
        server, dashboard = set_up(stack, data)
        began_s = time.monotonic()
        browser = stack.enter_context(Browser())
        browser.open(dashboard.url)
        take_terminal(server, directory)
        time.sleep(max(0.0, WARM_S - (time.monotonic() - began_s)))
        for width, size in SIZES.items():
            for scheme in SCHEMES:
                browser.resize(size, scheme)
                for page in PAGES:
                    arrange(browser, dashboard, page)
                    name = f"{page}-{width}-{scheme}"
                    path = directory / f"{name}.png"
                    path.write_bytes(smaller(browser.screenshot(above="main")))
                    print(f"{path}  {path.stat().st_size:,} bytes")
                    if name in IN_DOCS:
                        assert path.stat().st_size <= IMAGE_BYTES_MAX, f"{path} is too large for the docs"
                        IMAGES.mkdir(exist_ok=True)
                        shutil.copy(path, IMAGES)
        assert not browser.complaints(), browser.complaints()


def smaller(picture: bytes) -> bytes:
    """Return a PNG with COLORS colours, which is a third of its size: what is shown is drawn, and has few."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    out = io.BytesIO()
    image.quantize(COLORS, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    return out.getvalue()


def set_up(stack: contextlib.ExitStack, data: Path) -> tuple[ServerProcess, DashboardProcess]:
    """Start a catalog, two servers, eight clients and a dashboard."""
    port = free_port()
    run(stack, *KVZMQ, "catalog", "--host", "127.0.0.1", "--port", str(port))
    named = ("--catalog", f"127.0.0.1:{port}", "--owner", "fred", "--project")
    server = stack.enter_context(ServerProcess(data / "zebra", *named, "zebra", bridge=True))
    stack.enter_context(ServerProcess(data / "horse", *named, "horse"))
    with kvzmq.connect(server.url) as table:
        for number in range(200):
            robot = {"name": f"robot {number}", "battery": number % 101, "pose": [number / 7, number / 3, 0.5]}
            table.insert(f"robots/{number:03}", robot)
        for battery in (98, 97, 95):
            table.insert("robots/007", {"name": "robot 7", "battery": battery, "pose": [1.0, battery / 10, 0.5]})
    stack.enter_context(Load(server.port))
    options = ("--data", str(server.data), "--catalog", f"127.0.0.1:{port}")
    return server, stack.enter_context(DashboardProcess(server.url, *options))


def run(stack: contextlib.ExitStack, *command: str) -> None:
    """Run a program until the stack ends."""
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=end_with_the_tests
    )
    stack.callback(process.wait, 30)
    stack.callback(process.terminate)


class Load:
    """Clients of TestPerf, again and again: its stages take STAGE_S each, so all of them are in one minute.

    Args:
        port: of the server's bridge
    """

    def __init__(self, port: int) -> None:
        perf = str(ROOT / "clients" / "TestPerf.py")
        self._command = [
            sys.executable,
            perf,
            f"127.0.0.1:{port}",
            "--clients",
            str(CLIENTS),
            "--seconds",
            str(STAGE_S),
        ]
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._ended.is_set():
            process = subprocess.Popen(
                self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=end_with_the_tests
            )
            while process.poll() is None and not self._ended.wait(0.1):
                pass
            process.terminate()
            process.wait(30)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(60)


def arrange(browser: Browser, dashboard: DashboardProcess, page: str) -> None:
    """Open a page and do what somebody does there who looks at something."""
    browser.open(dashboard.url + {"overview": "", "table": "table?prefix=robots/"}.get(page, page))
    browser.wait_for("document.querySelector('#state')?.dataset.state === 'live'")
    browser.wait_for("document.querySelector('#main').dataset.page === arguments[0]", page)
    if page == "overview":
        browser.evaluate("document.querySelector('.choice button').click()")  # one minute
        browser.wait_for("document.querySelector('.charts canvas')")
    elif page == "table":
        row = "document.querySelector('.rows .row[data-key=\"robots/007\"]')"
        browser.wait_for(row)
        browser.evaluate(f"{row}.click()")
        browser.click(".detail header.second button")
        browser.wait_for("document.querySelectorAll('.detail .past li').length >= 4")
    elif page == "lanes":
        browser.click("#take")
        browser.wait_for(
            "!document.querySelector('#take').disabled && document.querySelector('.facts-tiles').children.length"
        )
    else:
        browser.wait_for("document.querySelectorAll('tbody tr').length >= 2")
    browser.evaluate("scrollTo(0, 0)")
    time.sleep(1.5)  # what moves has come to rest


def take_terminal(server: ServerProcess, directory: Path) -> None:
    """Write down what `kvzmq top` shows, as text."""
    with ScreenProcess([*KVZMQ, "-c", server.url, "top", "--sample"], columns=100, lines=30) as screen:
        screen.wait_for(r"^ perf-")
        deadline_s = time.monotonic() + 20.0
        screen.wait_until(lambda _: time.monotonic() > deadline_s)
        (directory / "top.txt").write_text("\n".join(screen.rows) + "\n")
        print(directory / "top.txt")


if __name__ == "__main__":
    main(sys.argv[1:])
