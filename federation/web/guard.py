"""Refuse each request that no page or program of this machine sent for this app, before the app sees it.

Promises: a name that was made to lead here (DNS rebinding), a form or a fetch of another page (CSRF), a path without
its secret and a request that two parsers could read differently are refused; every answer tells the browser to keep
nothing, run nothing, and show it in no other page. Sources: RFC 9112 sections 3.2, 6.1 and 6.3; RFC 9110 section 7.2;
OWASP's Cross-Site Request Forgery Prevention; Fetch Metadata Request Headers (W3C).
"""

import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = "127.0.0.1"
NOTHING_HERE = "there is nothing here"
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",  # of another origin's page none; with no-referrer forms would have no Origin
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Connection": "close",
}
_LOOKING = ("GET", "HEAD")
_METHODS = (*_LOOKING, "POST")
_LOOPBACK_NAME = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:[0-9]{1,5})?")


class Hosts(Protocol):
    """Says whether the Host fields of a request, in lower case, name an app that is served at this port."""

    def __call__(self, named: Sequence[str], port: int, /) -> bool: ...


def is_served_address(named: Sequence[str], port: int) -> bool:
    """Return whether the one Host is exactly where the app is served; for pages, which a browser asks for."""
    return list(named) in ([f"{LOOPBACK}:{port}"], [f"localhost:{port}"])


def is_loopback_name(named: Sequence[str], port: int) -> bool:
    """Return whether any Host is a name of this machine, at any port; for programs, also through a tunnel."""
    return len(named) <= 1 and all(_LOOPBACK_NAME.fullmatch(one) for one in named)


@dataclass(frozen=True, slots=True)
class Guard:
    """Stands before an app, and adds to each answer what keeps a browser from leaking it."""

    app: ASGIApp
    hosts: Hosts
    secret: str = field(default="", repr=False)  # the first part of every path, if there is one

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        app = self._refusal(scope) or self.app
        await app(scope, receive, send_guarded)

    def _refusal(self, scope: Scope) -> ASGIApp | None:
        """Return what a request is refused with, or None; puts the app below its secret."""
        headers = Headers(scope=scope)
        if scope["method"] not in _METHODS:
            return refusal(501, "this is no request for this page")
        if not _has_one_reading(scope, headers):
            return refusal(400, "this is no request for this page")
        hosts = [host.lower() for host in headers.getlist("host")]
        if not self.hosts(hosts, scope["server"][1]):
            return refusal(403, f"ask at {LOOPBACK}")
        if scope["method"] in _LOOKING and not _is_look(headers):
            return refusal(403, "the request came from another page")
        if scope["method"] not in _LOOKING and not _is_form(headers, hosts):
            return refusal(403, "the form came from another page")
        if self.secret:
            begin, _, rest = scope["path"].removeprefix("/").partition("/")
            if not hmac.compare_digest(begin.encode(), self.secret.encode()):
                return refusal(404, NOTHING_HERE)
            scope["root_path"], scope["path"] = f"/{begin}", f"/{begin}/{rest}"
        return None


def refusal(status: int, text: str) -> PlainTextResponse:
    """Return an answer of plain text: what it says is never markup."""
    return PlainTextResponse(f"{text}\n", status)


def _has_one_reading(scope: Scope, headers: Headers) -> bool:
    """Return whether the target is a path, not an address, and the body has one length (RFC 9112, 3.2 and 6.3)."""
    if not scope["raw_path"].startswith(b"/"):
        return False
    return "transfer-encoding" not in headers or (
        "content-length" not in headers and scope["http_version"] == "1.1"  # RFC 9112, 6.1
    )


def _is_look(headers: Headers) -> bool:
    """Return whether nobody but this page, a program or a person who follows a link asks (Fetch Metadata)."""
    if all(site in ("same-origin", "none") for site in headers.getlist("sec-fetch-site")):
        return True
    return headers.getlist("sec-fetch-mode") == ["navigate"] and headers.getlist("sec-fetch-dest") == ["document"]


def _is_form(headers: Headers, hosts: Sequence[str]) -> bool:
    """Return whether a page of this very address sends this; a browser always says from where (Fetch, Origin)."""
    return headers.getlist("origin") == [f"http://{host}" for host in hosts[:1]] and all(
        site == "same-origin" for site in headers.getlist("sec-fetch-site")
    )
