"""Refuse requests that do not come from this app's page or from a program on this machine, before the app sees them.

Promises: it refuses a foreign host name (DNS rebinding), a form or fetch of another page (CSRF), a path without the
secret, and a request that two parsers could read differently. Every answer tells the browser to store nothing, run
nothing, and embed it nowhere. Sources: RFC 9112 sections 3.2, 6.1 and 6.3; RFC 9110 section 7.2;
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
    "Referrer-Policy": "same-origin",  # no referrer to other origins; with no-referrer, forms would have no Origin
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
    """A rule that accepts or rejects the Host fields of a request, in lower case, for an app at this port."""

    def __call__(self, named: Sequence[str], port: int, /) -> bool: ...


def is_served_address(named: Sequence[str], port: int) -> bool:
    """Return whether there is one Host and it is exactly the app's address; for pages in a browser."""
    return list(named) in ([f"{LOOPBACK}:{port}"], [f"localhost:{port}"])


def is_loopback_name(named: Sequence[str], port: int) -> bool:
    """Return whether a Host is a name of this machine, at any port; for programs, also through a tunnel."""
    return len(named) <= 1 and all(_LOOPBACK_NAME.fullmatch(one) for one in named)


def is_any_name(named: Sequence[str], port: int, /) -> bool:
    """Return whether there is at most one Host; for pages without names, at an address that an operator chose."""
    return len(named) <= 1


@dataclass(frozen=True, slots=True)
class Guard:
    """Checks each request to an app, and adds headers to each answer that keep a browser from leaking it."""

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
        """Return the refusal of a request, or None if it passes; removes the secret from the path."""
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
    """Return an answer in plain text, which a browser never reads as markup."""
    return PlainTextResponse(f"{text}\n", status)


def _has_one_reading(scope: Scope, headers: Headers) -> bool:
    """Return whether the target is a path, not an address, and the body has one length (RFC 9112, 3.2 and 6.3)."""
    if not scope["raw_path"].startswith(b"/"):
        return False
    return "transfer-encoding" not in headers or (
        "content-length" not in headers and scope["http_version"] == "1.1"  # RFC 9112, 6.1
    )


def _is_look(headers: Headers) -> bool:
    """Return whether the request comes from this page, a program or a followed link (Fetch Metadata)."""
    if all(site in ("same-origin", "none") for site in headers.getlist("sec-fetch-site")):
        return True
    return headers.getlist("sec-fetch-mode") == ["navigate"] and headers.getlist("sec-fetch-dest") == ["document"]


def _is_form(headers: Headers, hosts: Sequence[str]) -> bool:
    """Return whether a page of this exact address sent the form; browsers always name the sender (Fetch, Origin)."""
    return headers.getlist("origin") == [f"http://{host}" for host in hosts[:1]] and all(
        site == "same-origin" for site in headers.getlist("sec-fetch-site")
    )
