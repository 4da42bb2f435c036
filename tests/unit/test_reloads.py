"""What SIGHUP calls: every hook, whatever the others do."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import pytest
from support.logged import logged

from kvzmq.errors import InvalidRequest
from kvzmq.server.reloads import Reloads


def test_every_hook_is_called_and_the_log_says_what_each_did(caplog: pytest.LogCaptureFixture) -> None:
    """Seen red with: the first failure ending the reload."""
    caplog.set_level(logging.INFO)
    reloads = Reloads()
    order: list[str] = []

    def hook(name: str, result: str | Exception | None) -> None:
        def call() -> str | None:
            order.append(name)
            if isinstance(result, Exception):
                raise result
            return result

        reloads.add(name, call)

    @contextlib.contextmanager
    def around() -> Iterator[None]:
        order.append("begin")
        yield
        order.append("end")

    reloads.around = around
    hook("one", ValueError("line 3 is nonsense"))
    hook("two", PermissionError(13, "Permission denied"))
    hook("three", InvalidRequest("no"))
    hook("four", None)
    hook("five", "log-level is debug")
    reloads.run()
    assert order == ["begin", "one", "two", "three", "four", "five", "end"]
    assert [(record.levelname, record.getMessage()) for record in logged(caplog)] == [
        ("ERROR", "SIGHUP: one not reloaded, what it was stays: line 3 is nonsense"),
        ("ERROR", "SIGHUP: two not reloaded, what it was stays: [Errno 13] Permission denied"),
        ("ERROR", "SIGHUP: three not reloaded, what it was stays: no"),
        ("INFO", "SIGHUP: five reloaded: log-level is debug"),
    ]


def test_a_reload_that_changes_nothing_says_so(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    reloads = Reloads()
    reloads.add("settings", lambda: None)
    reloads.run()
    assert [record.getMessage() for record in logged(caplog)] == ["SIGHUP: nothing to reload has changed"]


def test_a_bug_in_a_hook_is_not_hidden() -> None:
    reloads = Reloads()
    nothing: dict[str, str] = {}
    reloads.add("settings", lambda: nothing["missing"])
    with pytest.raises(KeyError):
        reloads.run()
