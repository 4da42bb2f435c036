"""Who may ask the dashboard, and the headers that keep others out.

A page of any site can have the browser send requests to an address of this machine. So every request, also one for the
event stream, has to pass:

1. *Host*: an address in digits, `localhost`, or a name that was allowed. A site that has its own name lead to 127.0.0.1
   (DNS rebinding) still sends that name, and is refused. On the loopback, only addresses of the loopback count.
2. *Origin* and *Sec-Fetch-Site*, which the browser sets and a page cannot change: if they are there they say that the
   dashboard's own page asks, or that somebody opens it.
3. *The token*, where there is one: as `?token=`, once, which sets a cookie and leads to the same page without it; or as
   a bearer token. Without one the answer is a page that says how to get in.

Nobody else may frame the page, read answers (no CORS), or have it load or run anything that does not come from the
dashboard itself (Content-Security-Policy). Tokens are compared in constant time, and are in no log and no cookie: the
cookie holds a digest of the token and of a number that is made anew at each start.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "kvzmq-dashboard"

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # with "no-referrer" Firefox would send the page's own POST with Origin: null
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
"""Of every answer."""

_METHODS = ("GET", "HEAD", "POST")
"""POST is for a trace that is to be drawn; nothing of it is kept."""

_BEARER = "Bearer "


class Safety:
    """Lets requests pass to an app, or refuses them.

    Args:
        app: answers those that pass
        is_loopback: whether it listens on the loopback alone
        hosts: names that are allowed as Host besides
        token: what everybody has to show, or None
    """

    def __init__(
        self, app: ASGIApp, is_loopback: bool, hosts: Collection[str] = (), token: bytes | None = None
    ) -> None:
        self._app = app
        self._is_loopback = is_loopback
        self._hosts = frozenset(host.lower() for host in hosts) | {"localhost"}
        self._token = token
        key = os.urandom(32)
        self._cookie = "" if token is None else hmac.new(key, token, hashlib.sha256).hexdigest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        refusal = self.refusal(scope)
        await (self._app if refusal is None else refusal)(scope, receive, send_safely)

    def refusal(self, scope: Scope) -> Response | None:
        """Return the answer to a request that may not pass, or None."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._may_be_host(host):
            return _refused(421, f"{host!r} is not a name of this dashboard: --allow-host NAME allows one")
        if not _is_own(headers, host):
            return _refused(403, "the page of another site asks")
        if scope["method"] not in _METHODS:
            return _refused(405, "the dashboard only reads")
        return None if self._token is None else self._without_token(scope, headers, self._token)

    def _may_be_host(self, host: str) -> bool:
        name = _name_of(host)
        if name in self._hosts:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or not self._is_loopback

    def _without_token(self, scope: Scope, headers: Headers, token: bytes) -> Response | None:
        cookie = cookie_parser(headers.get("cookie", "")).get(COOKIE, "")
        if hmac.compare_digest(cookie.encode(), self._cookie.encode()):
            return None
        bearer = headers.get("authorization", "")
        if bearer.startswith(_BEARER) and hmac.compare_digest(bearer[len(_BEARER) :].encode(), token):
            return None
        shown = QueryParams(scope["query_string"]).get("token")
        if shown is not None and hmac.compare_digest(shown.encode(), token):
            response = RedirectResponse("/" + scope["path"].lstrip("/"), 303)  # "//name" would lead to another site
            response.set_cookie(COOKIE, self._cookie, httponly=True, samesite="strict", path="/")
            return response
        return _refused(401, "open the address that `kvzmq dashboard` has printed, or add ?token= and the token")


def _name_of(host: str) -> str:
    """Return the name, or the address, of a Host header, without its port; "" if it is none."""
    try:
        split = urlsplit(f"//{host}")
        _ = split.port  # which has to be a number
    except ValueError:
        return ""
    return "" if "@" in host or "/" in host else (split.hostname or "")


def _is_own(headers: Headers, host: str) -> bool:
    """Say whether a request comes from the dashboard's own page, from no page, or opens the page."""
    origin = headers.get("origin")
    if origin is not None:
        try:
            split = urlsplit(origin)
        except ValueError:  # brackets that hold no address
            return False
        return split.scheme in ("http", "https") and split.netloc.lower() == host.lower()
    site = headers.get("sec-fetch-site", "none")
    opens_page = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    return site in ("same-origin", "none") or opens_page


def _refused(status: int, why: str) -> Response:
    return PlainTextResponse(why + "\n", status)


def make_token() -> bytes:
    """Return a new token, which nobody can guess."""
    return os.urandom(24).hex().encode()
