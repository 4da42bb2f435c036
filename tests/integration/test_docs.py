"""The documents are right: their Python runs, and the page of the API names everything there is."""

from __future__ import annotations

import inspect
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.servers import ServerProcess

import kvzmq
from kvzmq import errors

ROOT = Path(__file__).resolve().parents[2]
_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
_URL = "tcp://127.0.0.1:5570"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path / "data") as server:
        yield server


@pytest.mark.parametrize("name", ["docs/tutorial.md", "docs/api.md", "README.md"])
def test_the_python_of_a_document_runs(name: str, server: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    path = ROOT / name
    text = path.read_text()
    monkeypatch.setenv("KVZMQ_URL", server.url)
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(ROOT))  # undone afterwards, with what a document adds
    module = types.ModuleType("document")  # dataclasses look their module up
    monkeypatch.setitem(sys.modules, "document", module)
    for match in _BLOCK.finditer(text):
        line = text[: match.start(1)].count("\n")
        source = "\n" * line + match[1].replace(_URL, server.url)
        exec(compile(source, str(path), "exec"), vars(module))


def test_the_api_page_names_every_method_and_error() -> None:
    text = (ROOT / "docs" / "api.md").read_text()
    for kind in (kvzmq.Client, kvzmq.AsyncClient, kvzmq.Watch, kvzmq.Pipeline, kvzmq.Transaction, kvzmq.Pending):
        for name in dir(kind):
            if not name.startswith("_") and name not in (
                "gathering",
                "give_up",
                "settle",
                "settled",
                "request",
                "requests",
            ):
                assert re.search(rf"\b{name}\b", text), f"{kind.__name__}.{name}"
    for name in kvzmq.__all__:
        if name not in ("__version__", "Transaction", "Pipeline"):
            assert re.search(rf"`(kvzmq\.)?{name}\b", text), name


def test_every_error_a_client_may_meet_can_be_caught_by_its_name() -> None:
    for code, error in errors.BY_CODE.items():
        assert getattr(kvzmq, error.__name__) is error, code


def test_help_shows_the_package() -> None:
    text = kvzmq.__doc__ or ""
    assert "kvzmq.connect(" in text
    assert inspect.getdoc(kvzmq.connect)
