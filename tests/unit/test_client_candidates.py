"""Which of the servers that a URL leads to is tried next, and when the catalog is asked again."""

from __future__ import annotations

import pytest

from kvzmq import catalog
from kvzmq.client.core.candidates import Candidates

URL = "catalog://h/p"
A, B, C = "tcp://a:1", "tcp://b:1", "tcp://c:1"


def test_a_plain_url_is_its_own_server_again_and_again() -> None:
    candidates = Candidates(A)
    for _ in range(3):
        assert (candidates.due, candidates.endpoint) == (False, A)
        assert not candidates.give_up()  # the next URL's turn


def test_all_that_the_catalog_named_are_tried_before_it_is_asked_again() -> None:
    """Seen to fail with the first one only."""
    candidates = Candidates(URL)
    assert (candidates.due, candidates.endpoint) == (True, URL)
    candidates.found([A, B])
    assert (candidates.due, candidates.endpoint) == (False, A)
    assert candidates.give_up()
    assert (candidates.due, candidates.endpoint) == (False, B)
    assert not candidates.give_up()
    assert candidates.due


def test_once_a_server_was_reached_the_list_is_old() -> None:
    candidates = Candidates(URL)
    candidates.found([A, B])
    candidates.reached()
    assert candidates.endpoint == A
    assert not candidates.give_up()
    assert candidates.due


def test_a_server_that_is_reached_and_silent_does_not_keep_the_others_from_being_tried() -> None:
    """Seen to fail with the catalog's order taken as it is: the newest server was then tried for ever."""
    candidates = Candidates(URL)
    tried = []
    for _ in range(6):
        candidates.found([A, B, C])
        candidates.reached()
        tried.append(candidates.endpoint)
        candidates.give_up()
    assert tried == [A, B, C, A, B, C]


@pytest.mark.parametrize(
    "error",
    [catalog.CatalogUnreachable("down"), catalog.NoSuchProject("just started"), catalog.BadCatalogAnswer("odd")],
)
def test_without_the_catalog_the_servers_known_last_are_tried_again(error: catalog.CatalogUnreachable) -> None:
    """Seen to fail with the known servers forgotten."""
    candidates = Candidates(URL)
    assert not candidates.not_found(error)
    candidates.found([A, B])
    while candidates.give_up():
        pass
    assert candidates.not_found(error)
    assert candidates.error is error
    assert candidates.endpoint == A
    candidates.found([C])
    assert not candidates.error and candidates.endpoint == C


def test_a_catalog_that_knows_only_other_tables_is_believed() -> None:
    candidates = Candidates(URL)
    candidates.found([A])
    candidates.give_up()
    assert not candidates.not_found(catalog.AnotherTable("2 servers of another table"))
    assert candidates.due
