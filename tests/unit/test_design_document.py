"""docs/design.md's map is the tree, and the files that documents name are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "kvzmq"
WITHOUT_MODULES = {"kvzmq/dashboard/static", "kvzmq/cli/commands"}
"""Rows that say what is there, not which modules."""


def rows_of_map() -> dict[str, str]:
    """Return what stands behind each directory of the package in the map under "Layout"."""
    layout = (ROOT / "docs" / "design.md").read_text().partition("## Layout")[2].split("```")[1]
    rows = re.findall(r"^( *)(\S+)/ +(.*(?:\n {20,}.*)*)", layout, re.MULTILINE)
    return {f"kvzmq/{name}" if indented else name: text for indented, name, text in rows if indented or name == "kvzmq"}


def named(text: str) -> list[str]:
    """Return the modules that a row names: after the colon, without what parentheses say of them."""
    return re.sub(r"\([^)]*\)", " ", " ".join(text.split()).partition(": ")[2]).replace(",", " ").split()


def directories() -> dict[str, list[str]]:
    """Return the directories of the package that hold modules, or the page, with the modules of each."""
    found = {}
    for directory in [PACKAGE, *(path for path in PACKAGE.rglob("*") if path.is_dir())]:
        modules = sorted(path.stem for path in directory.glob("*.py") if not path.stem.startswith("__"))
        if modules or directory.name == "static":
            found[directory.relative_to(ROOT).as_posix()] = modules
    return found


def test_the_map_has_a_row_for_every_directory_of_the_package() -> None:
    assert set(rows_of_map()) == set(directories())


@pytest.mark.parametrize("directory", sorted(set(directories()) - WITHOUT_MODULES))
def test_the_map_names_every_module_and_no_other(directory: str) -> None:
    """Where it fails: a module has come, gone or been renamed; name it in docs/design.md under "Layout"."""
    assert sorted(named(rows_of_map()[directory])) == directories()[directory]


DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "clients/*.md")
    for path in ROOT.glob(pattern)
    if path.name != "CHANGELOG.md"  # it tells of files as they were
)
CODE = [
    path.relative_to(ROOT).as_posix()
    for place in ("kvzmq", "tests", "benchmarks", "clients", "ops")
    for path in (ROOT / place).rglob("*.*")
]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_source_file_that_a_document_names_is_there(document: Path) -> None:
    prose = re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    names = set(re.findall(r"`([\w./-]+\.(?:py|js|proto))`", prose))
    assert [name for name in names if not any(f"/{path}".endswith(f"/{name}") for path in CODE)] == []
