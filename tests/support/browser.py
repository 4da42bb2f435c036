"""Chromium without a window, for tests: Debian's, driven by Selenium through Debian's driver of the same version.

    with Browser() as browser:
        browser.open(url)
        browser.wait_for("document.querySelector('#state').dataset.state === 'live'")
        browser.text("#tile-keys")
        browser.complaints()        what the console has said, violations of the page's policy included

Selenium and not Playwright: 35 MB instead of 165 with its Node, a browser in 1.3 s instead of 3.5, and a driver that is
always of the browser's version. Sizes and colour scheme are emulated, so that a page can be narrower than a window.
"""

from __future__ import annotations

import base64
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from selenium import webdriver
from selenium.common.exceptions import JavascriptException, StaleElementReferenceException, WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from support.servers import PATIENCE_S, end_with_the_tests

TIMEOUT_S = PATIENCE_S
_MARGIN = 24
WIDE, NARROW = (1600, 1000), (375, 812)
"""A desk's screen, and a phone's: columns and lines of pixels."""


class Browser:
    """One browser with a profile of its own, which is forgotten.

    Args:
        size: of the page, pixels
        scheme: "light" or "dark", as the machine's owner would prefer
        options: further switches of Chromium
    """

    def __init__(self, size: tuple[int, int] = WIDE, scheme: str = "light", options: Sequence[str] = ()) -> None:
        programs = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
        missing = [name for name, path in programs.items() if path is None]
        assert not missing, f"not there: {missing}; `make debian-packages` installs them"
        self._profile = tempfile.TemporaryDirectory(prefix="kvzmq-browser-")
        chosen = webdriver.ChromeOptions()
        chosen.binary_location = str(programs["chromium"])
        chosen.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        switches = [
            "--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions",
            "--disable-background-networking", "--disable-component-update", "--force-color-profile=srgb",
            f"--user-data-dir={self._profile.name}", "--hide-scrollbars", *options,
        ]  # fmt: skip
        if os.geteuid() == 0:
            switches.append("--no-sandbox")  # Chromium refuses to start as root with it
        for switch in switches:
            chosen.add_argument(switch)
        service = webdriver.ChromeService(str(programs["chromedriver"]), popen_kw={"preexec_fn": end_with_the_tests})
        self.driver = webdriver.Chrome(options=chosen, service=service)
        self.driver.set_page_load_timeout(TIMEOUT_S)
        self.driver.set_script_timeout(TIMEOUT_S)
        self._scheme = scheme
        self._size = size
        self._complaints: list[str] = []
        self._emulate()

    def _emulate(self) -> None:
        """Give the tab in front its size and its colours: each tab has its own."""
        width, height = self._size
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.command("Emulation.setDeviceMetricsOverride", **metrics)
        features = [{"name": "prefers-color-scheme", "value": self._scheme}]
        self.command("Emulation.setEmulatedMedia", features=features)

    # ---- going somewhere

    def open(self, url: str) -> None:
        self.driver.get(url)

    def open_tab(self, url: str) -> str:
        """Open a page in a further tab, and return the tab's handle."""
        self.driver.switch_to.new_window("tab")
        self._emulate()
        self.open(url)
        return str(self.driver.current_window_handle)

    def switch(self, handle: str) -> None:
        self.driver.switch_to.window(handle)

    def resize(self, size: tuple[int, int], scheme: str | None = None) -> None:
        self._size, self._scheme = size, scheme or self._scheme
        self._emulate()

    def command(self, name: str, **arguments: Any) -> Any:
        """Call a command of Chromium's DevTools protocol."""
        return self.driver.execute_cdp_cmd(name, arguments)

    # ---- looking

    def evaluate(self, expression: str, *arguments: Any) -> Any:
        """Return the value of a JavaScript expression; `arguments` are in it as arguments[0] and so on."""
        return self.driver.execute_script(f"return ({expression});", *arguments)

    def wait_for(self, expression: str, *arguments: Any, timeout_s: float = TIMEOUT_S) -> Any:
        """Return the value of an expression as soon as it is true; while it has none it is not."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            try:
                found, trouble = self.evaluate(expression, *arguments), ""
            except JavascriptException as error:  # an element that is not there yet has no text
                found, trouble = None, error.msg or ""
            if found:
                return found
            if time.monotonic() > deadline_s:
                raise AssertionError(f"not true in time: {expression} {arguments or ''} {trouble}\n{self.text('body')}")
            time.sleep(0.02)

    def find(self, css: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, css)

    def find_all(self, css: str) -> Sequence[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, css)

    def text(self, css: str) -> str:
        """Return the text that is seen of the first element."""
        return str(self.evaluate("document.querySelector(arguments[0])?.innerText ?? ''", css))

    def texts(self, css: str) -> Sequence[str]:
        found: Sequence[str] = self.evaluate(
            "[...document.querySelectorAll(arguments[0])].map(each => each.innerText)", css
        )
        return found

    # ---- doing

    def click(self, css: str, at: int = 0) -> None:
        """Click an element as soon as it is there, the first of these or another one; again if it was replaced."""
        deadline_s = time.monotonic() + TIMEOUT_S
        while True:
            self.wait_for("document.querySelectorAll(arguments[0]).length > arguments[1]", css, at)
            try:
                self.find_all(css)[at].click()
                return
            except StaleElementReferenceException:
                assert time.monotonic() < deadline_s, f"{css} is replaced all the time"

    def press(self, *keys: str) -> None:
        """Press keys, wherever the focus is."""
        self.driver.switch_to.active_element.send_keys(*keys)

    # ---- judging

    def complaints(self) -> Sequence[str]:
        """Return what the console of any tab has said so far: errors, warnings, violations of the policy."""
        said: Sequence[Mapping[str, Any]] = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        self._complaints += [entry["message"] for entry in said if entry["level"] in ("SEVERE", "WARNING")]
        return self._complaints

    def overflow(self) -> int:
        """Return by how many pixels the page is wider than its screen."""
        return int(self.evaluate("document.scrollingElement.scrollWidth - document.scrollingElement.clientWidth"))

    def origins(self) -> set[str]:
        """Return from where the page has loaded anything."""
        return set(self.evaluate("performance.getEntriesByType('resource').map(each => new URL(each.name).origin)"))

    def screenshot(self, above: str | None = None) -> bytes:
        """Return what is seen, as PNG; without what is empty below the parts of an element, if its CSS is given."""
        width, height = self._size
        if above is not None:
            ends = self.evaluate(
                "Math.max(...[...document.querySelector(arguments[0]).children].map("
                "each => each.getBoundingClientRect().bottom))",
                above,
            )
            height = min(height, int(ends) + _MARGIN)
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        taken: Mapping[str, str] = self.command("Page.captureScreenshot", format="png", clip=clip)
        return base64.b64decode(taken["data"])

    def close(self) -> None:
        try:
            self.driver.quit()
        except WebDriverException:
            self.driver.service.stop()
        self._profile.cleanup()

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
