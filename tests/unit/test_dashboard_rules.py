"""Who may ask the dashboard: each rule by itself. tests/integration/test_dashboard_safety.py asks a real one."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.responses import Response

from kvzmq.catalog import is_loopback
from kvzmq.dashboard.safety import COOKIE, HEADERS, Safety, make_token

TOKEN = b"0123456789abcdef-token"
HERE = "127.0.0.1:5580"


def asked(path: str = "/events", method: str = "GET", query: str = "", **headers: str) -> dict[str, Any]:
    named = {"host": HERE} | {name.replace("_", "-"): value for name, value in headers.items()}
    return {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in named.items()],
    }


def safety(is_loopback: bool = True, token: bytes | None = None, hosts: tuple[str, ...] = ()) -> Safety:
    return Safety(Response(), is_loopback, hosts, token)


def status(of: Safety, *arguments: str, **headers: str) -> int | None:
    refusal = of.refusal(asked(*arguments, **headers))
    return None if refusal is None else refusal.status_code


@pytest.mark.parametrize("host", [HERE, "localhost:5580", "LOCALHOST", "[::1]:5580", "127.8.9.1"])
def test_names_of_this_machine_may_be_asked(host: str) -> None:
    assert status(safety(), host=host) is None


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:5580", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.5:5580", "",
     "localhost@evil.example", "evil.example/localhost", "[::1", "localhost:x", "127.0.0.1:5580, evil.example"],
)  # fmt: skip
def test_other_names_may_not_so_that_dns_rebinding_leads_nowhere(host: str) -> None:
    """Also for the event stream. Seen red with every Host let through."""
    assert status(safety(), host=host) == 421


def test_beyond_the_loopback_addresses_and_allowed_names_may_be_asked() -> None:
    open_one = safety(is_loopback=False, token=None, hosts=("Lab.Example",))
    assert status(open_one, host="10.0.0.5:5580") is None
    assert status(open_one, host="lab.example:5580") is None
    assert status(open_one, host="other.example:5580") == 421


@pytest.mark.parametrize("path", ["/events", "/api/rows", "/", "/static/main.js"])
@pytest.mark.parametrize(
    "headers",
    [{"origin": "http://evil.example"}, {"origin": "null"}, {"origin": "http://localhost:5580"},
     {"origin": "http://127.0.0.1:8000"}, {"origin": "file://"}, {"sec_fetch_site": "cross-site"},
     {"sec_fetch_site": "same-site"}, {"origin": "http://["}, {"origin": "http://[::1"}],
)  # fmt: skip
def test_pages_of_others_may_not_ask(path: str, headers: dict[str, str]) -> None:
    """Seen red with Origin not looked at, and with Sec-Fetch-Site not looked at."""
    assert status(safety(), path, **headers) == 403


def test_its_own_page_may_ask_and_links_may_lead_to_it() -> None:
    assert status(safety(), origin=f"http://{HERE}", sec_fetch_site="same-origin") is None
    assert status(safety(), sec_fetch_site="none") is None
    assert (
        status(safety(), "/clients", sec_fetch_site="cross-site", sec_fetch_mode="navigate", sec_fetch_dest="document")
        is None
    )
    framed = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "iframe"}
    assert status(safety(), "/clients", **framed) == 403


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_nothing_can_be_changed(method: str) -> None:
    assert status(safety(), "/api/rows", method) == 405


# ---- the token


def test_without_the_token_nothing_is_told() -> None:
    """Seen red with a token that is not asked for."""
    of = safety(is_loopback=False, token=TOKEN)
    for path in ("/", "/events", "/api/rows", "/static/main.js"):
        assert status(of, path) == 401
        assert status(of, path, "GET", "token=0123456789abcdef-tokem") == 401
        assert status(of, path, authorization="Bearer wrong", cookie=f"{COOKIE}=") == 401
        assert status(of, path, cookie=f"{COOKIE}={TOKEN.decode()}") == 401, "the cookie is not the token"
        assert status(of, path, authorization="Bearer " + "\u00fc" * 20) == 401


def test_the_token_sets_a_cookie_once_and_leaves_the_address() -> None:
    """The cookie is for this server's pages alone, unseen by scripts. Seen red with the token in it."""
    of = safety(is_loopback=False, token=TOKEN)
    answer = of.refusal(asked("/clients", "GET", f"token={TOKEN.decode()}"))
    assert answer is not None and answer.status_code == 303 and answer.headers["location"] == "/clients"
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and TOKEN.decode() not in cookie
    assert status(of, "/events", cookie=cookie.partition(";")[0]) is None
    elsewhere = of.refusal(asked("//evil.example/", "GET", f"token={TOKEN.decode()}"))
    assert elsewhere is not None and elsewhere.headers["location"] == "/evil.example/", "not another site"
    again = safety(is_loopback=False, token=TOKEN)
    assert status(again, "/events", cookie=cookie.partition(";")[0]) == 401, "of the run that has set it"


def test_programs_show_the_token_as_a_bearer() -> None:
    assert status(safety(token=TOKEN), authorization=f"Bearer {TOKEN.decode()}") is None


def test_a_token_is_long_and_never_the_same() -> None:
    assert len(make_token()) >= 32 and make_token() != make_token()


def test_nothing_is_loaded_from_elsewhere_and_nothing_is_inline() -> None:
    policy = dict(part.strip().split(" ", 1) for part in HEADERS["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'" and policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert not any(name.lower().startswith("access-control") for name in HEADERS)


def test_only_the_loopback_counts_as_such() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "localhost", "::1")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.5", "lab.example")))
