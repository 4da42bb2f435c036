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
from kvzmq import cli, errors

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


DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/*.md", "clients/*.md")
    for path in ROOT.glob(pattern)
)


def anchors(path: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_link_leads_somewhere(name: str) -> None:
    page = ROOT / name
    links = re.findall(r"\]\((?!https?:)([^)]*)\)", page.read_text())
    for link in links:
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_index_names_every_document() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    for path in (ROOT / "docs").glob("*.md"):
        assert path.name == "README.md" or f"({path.name})" in index, path.name


@pytest.mark.parametrize("name", DOCUMENTS)
def test_lines_of_prose_fit_the_page(name: str) -> None:
    """Tables and what programs print are left out: Markdown cannot wrap them."""
    prose = re.sub(r"^ *```.*?^ *```$", "", (ROOT / name).read_text(), flags=re.MULTILINE | re.DOTALL)
    long = [line for line in prose.splitlines() if len(line) > 120 and not line.lstrip().startswith("|")]
    assert long == []


def test_the_api_page_names_every_method_and_error() -> None:
    text = (ROOT / "docs" / "api.md").read_text()
    for kind in (kvzmq.Client, kvzmq.AsyncClient, kvzmq.Watch, kvzmq.Pipeline, kvzmq.Transaction, kvzmq.Pending):
        for name in dir(kind):
            if not name.startswith("_") and name not in (
                "close",
                "done",
                "requests",
                "send",
                "set_error",
                "set_result",
            ):
                assert re.search(rf"\b{name}\b", text), f"{kind.__name__}.{name}"
    for name in kvzmq.__all__:
        assert re.search(rf"`(kvzmq\.)?{name}\b", text), name
    for connect in (kvzmq.connect, kvzmq.connect_async):
        shown = re.search(rf"`kvzmq\.{connect.__name__}\((.*?)\)", text)
        assert shown is not None
        named = [part.partition("=")[0] for part in shown[1].split(", ") if part != "*"]
        assert named == list(inspect.signature(connect).parameters)


def test_the_api_page_tells_each_errors_code_and_exit_code() -> None:
    rows = re.findall(
        r"^\| (`\w.*?) \| ([\d, ]*) ?\| ([\d, ]+) \|", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE
    )
    shown = {name: (codes, exits) for first, codes, exits in rows for name in re.findall(r"`(\w+)`", first)}
    public = [kind for kind in map(vars(errors).get, kvzmq.__all__) if kind not in (None, errors.KvzmqError)]
    assert public and set(shown) == {kind.__name__ for kind in public}
    for kind in public:
        codes, exits = (text.replace(" ", "").split(",") for text in shown[kind.__name__])
        assert (str(kind.code) in codes) == (kind.code in errors.BY_CODE), kind
        assert str(next(code for row, code in cli._EXIT_CODES if issubclass(kind, row))) in exits, kind


def test_every_error_a_client_may_meet_can_be_caught_by_its_name() -> None:
    for code, error in errors.BY_CODE.items():
        assert getattr(kvzmq, error.__name__) is error, code


def test_help_shows_the_package() -> None:
    text = kvzmq.__doc__ or ""
    assert "kvzmq.connect(" in text
    assert inspect.getdoc(kvzmq.connect)
