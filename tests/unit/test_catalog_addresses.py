"""Where a catalog is: HOST:PORT, the environment, name resolution."""

from __future__ import annotations

import socket

import pytest

from kvzmq.catalog import default_address, parse_address
from kvzmq.catalog.addresses import resolve
from kvzmq.errors import CatalogError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("host", ("host", 9097)),
        ("host:80", ("host", 80)),
        ("127.0.0.1:9", ("127.0.0.1", 9)),
        ("[::1]:80", ("::1", 80)),
        ("[::1]", ("::1", 9097)),
    ],
)
def test_an_address_is_a_host_and_perhaps_a_port(text: str, expected: tuple[str, int]) -> None:
    assert parse_address(text) == expected


@pytest.mark.parametrize("text", ["", ":80", "host:", "host:x", "host:0", "host:65536", "a b:1", "a:1:2"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(CatalogError):
        parse_address(text)


@pytest.mark.parametrize(
    ("host", "port", "expected"),
    [
        (None, None, ("127.0.0.1", 9097)),
        ("catalog.example", None, ("catalog.example", 9097)),
        (None, "9000", ("127.0.0.1", 9000)),
        ("catalog.example", "9000", ("catalog.example", 9000)),
        ("catalog.example:1234", "9000", ("catalog.example", 1234)),
        ("one.example,two.example", None, ("one.example", 9097)),
        ("", "", ("127.0.0.1", 9097)),
    ],
)
def test_the_environment_names_the_catalog_as_with_cctools(
    monkeypatch: pytest.MonkeyPatch, host: str | None, port: str | None, expected: tuple[str, int]
) -> None:
    for name, value in (("CATALOG_HOST", host), ("CATALOG_PORT", port)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert default_address() == expected


@pytest.mark.parametrize("port", ["x", "-1", "0", "65536", "1.5"])
def test_a_senseless_catalog_port_is_an_error_and_not_a_default(monkeypatch: pytest.MonkeyPatch, port: str) -> None:
    monkeypatch.setenv("CATALOG_PORT", port)
    with pytest.raises(CatalogError, match="CATALOG_PORT"):
        default_address()


def test_a_host_is_tried_at_its_ipv4_addresses_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def both(host: str, port: int, type: int) -> list[tuple[int, int, int, str, tuple[object, ...]]]:
        return [
            (socket.AF_INET6, type, 0, "", ("::1", port, 0, 0)),
            (socket.AF_INET, type, 0, "", ("127.0.0.1", port)),
            (socket.AF_INET, type, 0, "", ("127.0.0.1", port)),
        ]

    monkeypatch.setattr(socket, "getaddrinfo", both)
    found = resolve("localhost", 9097, socket.SOCK_DGRAM)
    assert found == [(socket.AF_INET, ("127.0.0.1", 9097)), (socket.AF_INET6, ("::1", 9097, 0, 0))]
