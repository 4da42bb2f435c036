"""CHANGELOG.md has the form of Keep a Changelog: what is unreleased, then versions with their dates, newest first."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import kvzmq

CHANGELOG = (Path(__file__).parents[2] / "CHANGELOG.md").read_text()
KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_versions_come_newest_first_with_their_dates() -> None:
    first, *released = re.findall(r"^## (.+)$", CHANGELOG, re.MULTILINE)
    assert first == "[Unreleased]"
    parted = [heading.split(" - ") for heading in released]
    versions = [tuple(map(int, version.split("."))) for version, _ in parted]
    dates = [date.fromisoformat(day) for _, day in parted]
    assert versions == sorted(versions, reverse=True) and dates == sorted(dates, reverse=True)


def test_a_version_that_is_not_released_is_not_older_than_those_that_are() -> None:
    newest = re.findall(r"^## (\d+\.\d+\.\d+) - ", CHANGELOG, re.MULTILINE)[0]
    assert [int(part) for part in newest.split(".")] <= [int(part) for part in kvzmq.__version__.split(".")]


def test_changes_are_of_the_kinds_that_readers_know() -> None:
    kinds = {heading.partition(":")[0] for heading in re.findall(r"^### (.+)$", CHANGELOG, re.MULTILINE)}
    assert kinds <= KINDS
