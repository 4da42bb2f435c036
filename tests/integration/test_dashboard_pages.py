"""The dashboard's pages in a browser, on a real server under load."""

from __future__ import annotations

import contextlib
import itertools
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import cables
from support.browser import NARROW, WIDE, Browser
from support.dashboards import DashboardProcess
from support.servers import KVZMQ, PATIENCE_S, ServerProcess, end_with_the_tests, line_of, wait_until

import kvzmq

pytestmark = pytest.mark.xdist_group(cables.GROUP)

PAGES = ("overview", "clients", "table", "lanes", "servers")
LIVE = "document.querySelector('#state')?.dataset.state === 'live'"
SCRIPT = "<script>window.hacked = true</script><img src=x onerror='window.hacked = true'>"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("table") / "data", bridge=True) as running:
        with kvzmq.connect(running.url) as table:
            table.insert_many({f"robots/{number:03}": {"name": f"r{number}", "x": number} for number in range(150)})
            for again in range(300):  # so that the revision is far from the number of rows
                table.insert("robots/000", {"name": "r0", "x": again})
            table.insert(f"evil/{SCRIPT}", {"text": SCRIPT, SCRIPT: 1})
            table.insert("evil/bytes", b"\x00\xff<b>")
            table.insert("long/text", "x" * 50_000)
        yield running


class Load:
    """Somebody who writes all the time, a little, and pauses when he is told to."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._ended, self._paused, self._rests = threading.Event(), threading.Event(), threading.Event()
        self._writer = threading.Thread(target=self._write)
        self._writer.start()

    def _write(self) -> None:
        with kvzmq.connect(self._url) as table:
            for number in itertools.count():
                if self._paused.is_set():
                    self._rests.set()
                else:
                    table.insert(f"load/{number % 50}", {"count": number})
                if self._ended.wait(0.01):
                    return

    @contextlib.contextmanager
    def pausing(self) -> Iterator[None]:
        """Nothing is written within, also not what had been begun."""
        self._rests.clear()
        self._paused.set()
        assert self._rests.wait(PATIENCE_S)
        try:
            yield
        finally:
            self._paused.clear()

    def end(self) -> None:
        self._ended.set()
        self._writer.join(PATIENCE_S)


@pytest.fixture(scope="module")
def load(server: ServerProcess) -> Iterator[Load]:
    running = Load(server.url)
    yield running
    running.end()


@pytest.fixture(scope="module")
def dashboard(server: ServerProcess) -> Iterator[DashboardProcess]:
    with DashboardProcess(server.url, "--data", str(server.data)) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as running:
        yield running


@pytest.fixture
def page(browser: Browser, dashboard: DashboardProcess, load: Load) -> Iterator[Browser]:
    """The overview, with figures; afterwards nothing may have been complained of, or come from elsewhere."""
    browser.resize(WIDE, "light")
    browser.open(dashboard.url)
    browser.wait_for(LIVE)
    yield browser
    assert browser.complaints() == []
    assert browser.origins() == {dashboard.url.rstrip("/")}


def go(browser: Browser, name: str) -> None:
    browser.click(f"nav a[data-page={name}]")
    browser.wait_for("document.querySelector('#main').dataset.page === arguments[0]", name)


# ---- each page


def test_the_numbers_on_the_page_are_those_of_stats(page: Browser, server: ServerProcess, load: Load) -> None:
    """While nobody writes: then they can be equal. Seen red with the tile of the rows showing revisions."""
    with load.pausing(), kvzmq.connect(server.url) as table:
        stats = table.stats()
        expected = {"keys": f"{stats['keys']:,}", "revision": f"{stats['revision']:,}"}
        for name, shown in expected.items():
            page.wait_for(f"document.querySelector('#tile-{name}').textContent === arguments[0]", shown)
        wait_until(lambda: page.text("#tile-clients") == f"{table.stats()['clients']:,}")  # some may just have left
        page.wait_for("document.querySelector('#tile-changes').textContent === '0'")
        table.insert("load/once", 1)
        page.wait_for(
            "document.querySelector('#tile-revision').textContent === arguments[0]", f"{stats['revision'] + 1:,}"
        )
        assert f"process {server.pid}" in page.text("#main .facts")


def test_rates_are_those_of_the_load(page: Browser, load: Load) -> None:
    """One change every 10 ms, as far as the machine lets it, as soon as those of the test before are not among them."""
    page.wait_for("((rate) => rate > 0 && rate < 200)(parseFloat(document.querySelector('#tile-changes').textContent))")


def test_charts_are_drawn_and_can_be_paused_and_zoomed(page: Browser) -> None:
    """All of them, each when it is scrolled to."""
    for chart in range(page.wait_for("document.querySelectorAll('.charts > *').length")):
        page.evaluate("document.querySelectorAll('.charts > *')[arguments[0]].scrollIntoView()", chart)
        page.wait_for("document.querySelectorAll('.charts > *')[arguments[0]].querySelector('canvas')", chart)
    page.evaluate("scrollTo(0, 0)")
    go_on = page.find("#pause")
    go_on.click()
    page.wait_for("document.querySelector('#pause').getAttribute('aria-pressed') === 'true'")
    assert page.text("#pause") == "Continue"
    page.press("\ue00c")  # Escape: the zoom, if there is one
    go_on.click()
    page.wait_for("document.querySelector('#pause').getAttribute('aria-pressed') === 'false'")
    for label in ("1 min", "1 h", "5 min"):
        page.evaluate(
            "[...document.querySelectorAll('.choice button')].find(each => each.textContent === arguments[0]).click()",
            label,
        )
        page.wait_for("document.querySelector('.choice [aria-pressed=true]').textContent === arguments[0]", label)


def test_the_last_minutes_are_there_when_a_page_opens(page: Browser, dashboard: DashboardProcess) -> None:
    """The dashboard keeps them: a page has more than have come since it was opened."""
    wait_until(lambda: dashboard.points_kept() >= 20, what="some points")
    kept = dashboard.points_kept()
    before = page.evaluate("performance.timeOrigin")
    page.open(dashboard.url)
    page.wait_for(LIVE)
    assert page.evaluate("performance.timeOrigin") > before
    points = "document.querySelector('.tile .spark path')?.getAttribute('d').split('L').length ?? 0"
    wait_until(lambda: page.evaluate(points) > dashboard.points_kept() - kept + 2, what="the points that were kept")


def test_clients_are_listed_sorted_and_filtered(page: Browser, server: ServerProcess) -> None:
    go(page, "clients")
    with kvzmq.connect(server.url) as watcher:
        watcher.ping()
        listed: set[str] = set()

        def shows_all() -> bool:
            listed.clear()
            listed.update(one["name"] for one in watcher.clients())  # some may just have left
            return {text.split()[0] for text in page.texts("tbody tr td[data-column=name]")} == listed

        wait_until(shows_all)
        rates = page.evaluate(
            "[...document.querySelectorAll('tbody td[data-column=rate]')].map(each => parseFloat(each.innerText))"
        )
        assert rates[0] == max(rates)

        def shows_one() -> bool:
            """Filter by a name; by another one if its client has left by then."""
            name = sorted(listed)[0]
            page.find("#filter").send_keys(name)
            shown = "[...document.querySelectorAll('tbody tr td[data-column=name]')].map(each => each.innerText)"
            page.wait_for(f"{shown}.every(each => each.includes(arguments[0]))", name)
            alone = page.evaluate(f"{shown}.length === 1")
            page.find("#filter").clear()
            page.press("x\ue003")  # a letter and Backspace: `clear` tells nobody
            wait_until(shows_all)
            return bool(alone)

        wait_until(shows_one)
    page.click("th[data-column=name] button")
    page.wait_for("document.querySelector('th[data-column=name]').getAttribute('aria-sort') === 'ascending'")


def test_rows_are_browsed_by_prefix_and_queried(page: Browser) -> None:
    go(page, "table")
    page.find("#prefix").send_keys("robots/\n")
    page.wait_for("document.querySelector('.rows .row .key')?.textContent.startsWith('robots/')")
    seen = len(page.find_all(".rows .row"))
    assert 10 <= seen <= 150
    while page.evaluate("!document.querySelector('.listing > button').hidden"):
        page.click(".listing > button")
        page.wait_for("document.querySelectorAll('.rows .row').length > arguments[0]", seen)
        seen = len(page.find_all(".rows .row"))
    assert seen == 150
    page.find("#subkey").send_keys("name")
    page.find("#subvalue").send_keys("r42\n")
    page.wait_for("document.querySelectorAll('.rows .row').length === 1")
    assert "robots/042" in page.text(".rows .row")
    page.click(".rows .row")
    page.wait_for("document.querySelector('.detail pre')?.textContent.includes('r42')")


def test_a_row_with_a_script_in_key_and_value_stays_text(page: Browser) -> None:
    """Seen red with a text set as HTML."""
    go(page, "table")
    page.find("#prefix").send_keys("evil/\n")
    page.wait_for("document.querySelectorAll('.rows .row').length === 2")
    for row in (1, 0):
        page.click(".rows .row", row)
        page.wait_for("document.querySelectorAll('.rows .row')[arguments[0]].ariaSelected === 'true'", row)
    page.wait_for("document.querySelector('.detail h2').textContent.includes('<script>')")
    page.wait_for("document.querySelector('.detail pre').textContent.includes('<img src=x')")
    page.click(".detail header.second button")
    page.wait_for("document.querySelector('.detail .past li')?.textContent.includes('<script>')")
    assert page.evaluate("window.hacked === undefined && document.querySelector('main script, main img') === null")


def test_a_row_has_its_history_and_large_values_are_folded(page: Browser, server: ServerProcess) -> None:
    go(page, "table")
    with kvzmq.connect(server.url) as table:
        for value in ("first", "second", "third"):
            table.insert("history/one", f"{value} {'long ' * 100}")
    page.find("#prefix").send_keys("history/\n")
    page.wait_for("document.querySelectorAll('.rows .row').length === 1")
    page.click(".rows .row")
    page.click(".detail header.second button")
    page.wait_for("document.querySelectorAll('.detail .past li').length >= 3")
    past = page.texts(".detail .past li")[:3]  # those of the log come first
    assert [next(word for word in ("first", "second", "third") if word in text) for text in past] == [
        "third", "second", "first",
    ]  # fmt: skip
    assert page.overflow() <= 0, "a long line of the history makes the page no wider"
    assert all(re.search(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d\.\d+", text) and "session " in text for text in past)
    page.find("#prefix").clear()
    page.find("#prefix").send_keys("long/\n")
    page.wait_for("document.querySelector('.rows .row .key')?.textContent === 'long/text'")
    page.click(".rows .row")
    page.wait_for("document.querySelector('.detail .folded button')?.textContent === 'Unfold'")
    page.click(".detail .folded button")
    page.wait_for("document.querySelector('.detail .folded button').textContent === 'Fold'")


def test_changes_are_shown_as_they_are_made(page: Browser, server: ServerProcess) -> None:
    go(page, "table")
    page.find("#prefix").send_keys("robots/\n")
    page.wait_for("document.querySelectorAll('.rows .row').length > 0")
    page.wait_for("document.querySelector('#feed-about').textContent.includes('as they are made')")
    with kvzmq.connect(server.url) as table:

        def changed() -> bool:
            table.insert("robots/000", {"name": "changed"})
            return bool(page.evaluate("document.querySelector('.changes .feed li')?.textContent.includes('changed')"))

        wait_until(changed)  # the first change may come before the page watches
    page.wait_for("document.querySelector('.rows .row .of').textContent.includes('changed')")


def test_lanes_show_that_requests_execute_one_at_a_time(page: Browser) -> None:
    go(page, "lanes")
    facts: dict[str, str] = {}

    def has_requests() -> bool:
        """Unless the machine was too busy for one in so short a sample."""
        page.click("#take")
        page.wait_for("document.querySelector('.facts-tiles')?.childElementCount > 0")
        page.wait_for("!document.querySelector('#take').disabled")
        facts.update(zip(page.texts(".facts-tiles dt"), page.texts(".facts-tiles dd")))
        return facts["Requests"].replace(",", "") not in ("0", "–")

    wait_until(has_requests, what="a sample of requests")
    assert facts["Each executed alone"] == "yes" and int(facts["Requests"].replace(",", "")) > 0
    page.find(".lanes-canvas").click()
    page.press("\ue014")  # the arrow to the right: the next request
    page.wait_for("/insert|lookup|stats|clients|monitor/.test(document.querySelector('.detail-line').textContent)")


def test_every_page_fits_a_phone_and_a_desk_in_both_schemes(page: Browser) -> None:
    """Seen red with tiles of a fixed width."""
    for size in (NARROW, WIDE):
        for scheme in ("dark", "light"):
            page.resize(size, scheme)
            for name in PAGES:
                go(page, name)
                page.wait_for("document.querySelector('#main').childElementCount > 0")
                assert page.overflow() <= 0, (name, size)
            dark = page.evaluate(
                "getComputedStyle(document.body).backgroundColor.match(/[0-9.]+/g).slice(0, 3).every(each => each < 90)"
            )
            assert dark == (scheme == "dark"), (size, scheme)


def test_pages_are_reached_and_used_by_keyboard(page: Browser) -> None:
    page.evaluate("document.activeElement.blur()")
    seen = []
    for _ in range(12):
        page.press("\ue004")  # Tab
        seen.append(page.evaluate("document.activeElement.dataset.page ?? document.activeElement.className"))
    assert seen[0] == "skip" and [each for each in seen if each in PAGES] == list(PAGES)
    page.evaluate("document.querySelector('nav a[data-page=table]').focus()")
    assert page.evaluate(
        "getComputedStyle(document.activeElement).outlineStyle !== 'none'"
        " || getComputedStyle(document.activeElement).boxShadow !== 'none'"
    ), "one sees where the focus is"
    page.press("\ue007")  # Enter
    page.wait_for("document.querySelector('#main').dataset.page === 'table'")
    page.wait_for("document.querySelectorAll('.rows .row').length > 0")
    page.evaluate("document.querySelector('.rows').focus()")
    page.press("\ue015", "\ue015")  # down, down
    page.wait_for("document.querySelectorAll('.rows .row')[1].ariaSelected === 'true'")
    page.driver.back()
    page.wait_for("document.querySelector('#main').dataset.page === 'overview'")


def test_nothing_moves_while_values_run(page: Browser) -> None:
    """No layout shift in five seconds of figures. Seen red with a tile as wide as its number."""
    page.evaluate("document.getElementById('notices').style.display = 'none'")  # of a disk that others keep busy
    page.evaluate(
        "void (window.shifts = [], new PerformanceObserver(list => list.getEntries().forEach(each =>"
        " window.shifts.push([each.value,"
        " ...each.sources.map(({node}) => `${node?.nodeName} ${node?.className}`)]"
        "))).observe({type: 'layout-shift'}))"
    )
    page.wait_for("new Promise(done => setTimeout(() => done(true), 5000))")
    shifts = page.evaluate("window.shifts")
    assert all(value < 0.001 for value, *_ in shifts), shifts


def test_values_that_are_wrong_and_addresses_that_are_not_there_are_said(
    page: Browser, dashboard: DashboardProcess
) -> None:
    assert dashboard.get("/nothing").status == 404 and dashboard.get("/static/../app.py").status in (400, 404)
    assert dashboard.get("/api/query?subkey=a").status == 400
    assert dashboard.get("/api/row?key=ghost").body == b'{"row":null}'
    go(page, "table")
    page.find("#subkey").send_keys("name")
    page.find("#subvalue").send_keys("nobody\n")
    page.wait_for("document.querySelectorAll('.rows .row').length === 0")


# ---- servers, dashboards and browsers come and go


def test_a_server_that_is_killed_and_started_is_told_of_and_found_again(tmp_path: Path, browser: Browser) -> None:
    with ServerProcess(tmp_path / "data") as own, DashboardProcess(own.url) as watching:
        browser.open(watching.url)
        browser.wait_for(LIVE)
        own.kill()
        browser.wait_for("document.querySelector('#state').dataset.state === 'silent'")
        browser.wait_for("document.querySelector('#notices').textContent.includes('has not answered since')")
        browser.wait_for("document.querySelector('#notices').textContent.includes('connection refused')")
        browser.wait_for("document.querySelector('#tile-requests').textContent === '–'")
        own.start()
        browser.wait_for(LIVE)
        browser.wait_for("document.querySelector('#notices [data-name=silent]') === null")
        browser.wait_for("document.querySelector('.facts').textContent.includes(arguments[0])", f"process {own.pid}")
        watching.kill()
        browser.wait_for("document.querySelector('#state').dataset.state === 'lost'")
        browser.wait_for("document.querySelector('#notices').textContent.includes('does not answer')")
        watching.start()
        browser.wait_for(LIVE)
        browser.complaints()
        browser._complaints.clear()  # that the stream broke is said by the browser itself


def test_twenty_tabs_at_once_are_all_live(browser: Browser, dashboard: DashboardProcess, load: Load) -> None:
    """Over the six connections that a browser has to a host."""
    browser.open(dashboard.url)
    first = browser.driver.current_window_handle
    tabs = [first, *(browser.open_tab(dashboard.url) for _ in range(19))]
    try:
        for tab in tabs:
            browser.switch(tab)
            browser.wait_for(LIVE)
            before = browser.text("#tile-revision")
            browser.wait_for("document.querySelector('#tile-revision').textContent !== arguments[0]", before)
    finally:
        for tab in tabs[1:]:
            browser.switch(tab)
            browser.driver.close()
        browser.switch(first)
    assert browser.complaints() == []


def test_servers_of_a_catalog_are_shown_with_their_tables(tmp_path: Path, browser: Browser) -> None:
    with contextlib.ExitStack() as stack:
        catalog = subprocess.Popen(
            [*KVZMQ, "catalog", "--host", "127.0.0.1", "--port", "0"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, preexec_fn=end_with_the_tests,
        )  # fmt: skip
        stack.callback(catalog.wait, PATIENCE_S)
        stack.callback(catalog.kill)
        assert catalog.stdout is not None
        stack.callback(catalog.stdout.close)
        # A server that is there first would announce itself again after a minute.
        address = f"127.0.0.1:{int(line_of(catalog).removeprefix(b'Listening on port '))}"
        named = ("--catalog", address, "--project")
        servers = [
            stack.enter_context(ServerProcess(tmp_path / name, *named, name)) for name in ("zebra", "<b>horse</b>")
        ]
        with kvzmq.connect(servers[0].url) as table:
            table.insert_many({"a": 1, "b": 2})
            lineage = table.stats()["lineage"]
        watching = stack.enter_context(DashboardProcess(servers[0].url, "--catalog", address))
        browser.open(f"{watching.url}servers")
        browser.wait_for("document.querySelectorAll('tbody tr').length === 2")
        rows = {text.split("\t")[0].split("\n")[0].strip(): text for text in browser.texts("tbody tr")}
        assert set(rows) == {"zebra", "<b>horse</b>"}
        assert lineage[:8] in rows["zebra"] and servers[0].url in rows["zebra"]
        servers[1].kill()
        browser.wait_for("[...document.querySelectorAll('tbody tr')].some(row => row.querySelector('.warn'))")
