"""`consilo-silo console`: one page for the silo's owner, on this machine alone.

Bound to 127.0.0.1, under a random path that only whoever started it knows. A page elsewhere cannot reach it: the Host
must be the loopback address (against DNS rebinding), a decision needs this page's Origin and a token of this page, and
the content security policy lets nothing in or out. Reads the silo's files; signs decisions with the visitor's own key.
"""

import hmac
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import parse_qs

from crypto.errors import CryptoError
from crypto.keys import SigningKey
from crypto.randomness import token
from policies.document.load import load
from policies.errors import LedgerError, PolicyError
from silo_node.accounts import accounts_of
from silo_node.errors import SiloError
from silo_node.ledger_store import LedgerStore
from silo_node.log import Signer
from silo_node.owner.pending import Decision, decide_on, requests_of
from silo_node.page import View, render

LOOPBACK = "127.0.0.1"
MAX_BODY = 4096
LOG_ENTRIES = 60
_TIMEOUT_S = 10.0
_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",  # of another origin's page none; with no-referrer forms would have no Origin
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who decides on the page, with the key that the policy names."""

    who: str
    key: SigningKey


@dataclass(frozen=True, slots=True)
class Running:
    """A console that answers until its context ends."""

    url: str = field(repr=False)  # holds the token
    _stopped: threading.Event = field(repr=False)

    def wait(self) -> None:
        """Wait until the console is stopped, or the owner interrupts."""
        self._stopped.wait()


class Console:
    """What the page shows and does; without HTTP."""

    def __init__(
        self,
        policy: Path,
        store: LedgerStore,
        signer: Signer,
        visitor: Visitor | None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._policy, self._store, self._signer, self._visitor, self._clock = policy, store, signer, visitor, clock
        self._secret = token(32)

    @property
    def csrf(self) -> str:
        """What a form of this page sends back."""
        return hmac.new(self._secret, b"decide", sha256).hexdigest()

    def page(self, base: str, nonce: str) -> bytes:
        """Return the page as it is now. Raises PolicyError if the policy or the ledger cannot be read."""
        file, now = load(self._policy), int(self._clock())
        store = self._store
        said, is_whole = self._examined()
        view = View(
            policy=file.policy,
            accounts=accounts_of(file.policy, store.history(), store.spending().lifetime, now),
            requests=requests_of(file.policy, store, now),
            entries=store.entries(LOG_ENTRIES) if is_whole else [],
            log=said,
            is_log_whole=is_whole,
            visitor=None if self._visitor is None else self._visitor.who,
        )
        return render(view, base, self.csrf, nonce).encode()

    def _examined(self) -> tuple[str, bool]:
        try:
            found = self._store.audit(self._signer)
        except LedgerError as err:
            return f"{err.message}. {err.hint}.", False
        return f"The log is whole: entries {found.first} to {found.last}, signed by the silo.", True

    def decide(self, form: dict[str, list[str]]) -> None:
        """Sign and store a decision of the visitor. Raises SiloError or LedgerError."""
        values = {name: form.get(name, [""])[0] for name in ("request", "decision", "csrf")}
        if self._visitor is None:
            raise SiloError("nobody may decide on this page", "start it with --as and --key")
        if not hmac.compare_digest(values["csrf"].encode(), self.csrf.encode()):
            raise SiloError("the form is not of this page", "load the page again")
        decision: Decision
        match values["decision"]:
            case "approve":
                decision = "approve"
            case "reject":
                decision = "reject"
            case _:
                raise SiloError("a decision is approve or reject", "load the page again")
        policy = load(self._policy).policy
        now = int(self._clock())
        decide_on(policy, self._store, self._visitor.who, self._visitor.key, values["request"], decision, now)


@contextmanager
def serve(
    policy: Path,
    ledger: Path,
    signer: Signer,
    visitor: Visitor | None,
    port: int = 0,
    clock: Callable[[], float] = time.time,
) -> Iterator[Running]:
    """Answer on the loopback interface until the context ends; yields where. Raises SiloError if the port is taken."""
    store = LedgerStore(ledger, signer if visitor is not None else None, clock)
    try:
        console = Console(policy, store, signer, visitor, clock)
        secret = token(24).hex()
        handler = type("_Handler", (_Handler,), {"console": console, "secret": secret, "timeout": _TIMEOUT_S})
        try:
            server = _Server((LOOPBACK, port), handler)
        except OSError as err:
            raise SiloError(f"port {port} cannot be opened ({err.strerror})", "choose another with --port") from err
        stopped = threading.Event()
        thread = threading.Thread(target=server.serve_forever, name="console", daemon=True)
        thread.start()
        try:
            yield Running(f"http://{LOOPBACK}:{server.server_port}/{secret}/", stopped)
        finally:
            server.shutdown()
            server.server_close()
            stopped.set()
            thread.join()
    finally:
        store.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = False


class _Handler(BaseHTTPRequestHandler):
    """Answers the owner's browser and nobody else."""

    console: ClassVar[Console]
    secret: ClassVar[str]
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "consilo", ""

    def do_GET(self) -> None:
        path = self._path()
        if path is None:
            return
        nonce = token(16).hex()
        if path != "":
            self._refuse(404, "there is nothing here")
            return
        try:
            page = self.console.page(f"/{self.secret}/", nonce)
        except (PolicyError, SiloError, CryptoError) as err:
            self._refuse(500, f"{err.message}\n{err.hint}")
            return
        self._answer(200, page, "text/html; charset=utf-8", nonce)

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self) -> None:
        path = self._path()
        if path is None:
            return
        if path != "decide":
            self._refuse(404, "there is nothing here")
            return
        if self.headers.get("Origin") not in self._origins():
            self._refuse(403, "the form came from another page")
            return
        if self.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
            self._refuse(403, "the form came from another page")
            return
        length = self.headers.get("Content-Length", "")
        kind = self.headers.get("Content-Type", "").partition(";")[0].strip()
        if not length.isascii() or not length.isdigit() or int(length) > MAX_BODY:
            self._refuse(413, f"a form has at most {MAX_BODY} bytes")
            return
        if kind != "application/x-www-form-urlencoded":
            self._refuse(415, "a decision is a form")
            return
        try:
            form = parse_qs(self.rfile.read(int(length)).decode(), max_num_fields=8, strict_parsing=True)
            self.console.decide(form)
        except ValueError:
            self._refuse(400, "the form is malformed")
        except (SiloError, PolicyError, CryptoError) as err:
            self._refuse(409, f"{err.message}\n{err.hint}")
        else:
            self.send_response(303)
            self.send_header("Location", f"/{self.secret}/#requests")
            self._finish(b"", "text/plain; charset=utf-8", "default-src 'none'")

    def _origins(self) -> tuple[str, ...]:
        return tuple(f"http://{host}" for host in self._hosts())

    def _hosts(self) -> tuple[str, ...]:
        assert isinstance(self.server, _Server)  # noqa: S101  http.server does not say so
        port = self.server.server_port
        return f"{LOOPBACK}:{port}", f"localhost:{port}"

    def _path(self) -> str | None:
        """Return what follows the secret in the path; None after a refusal, without saying which part was wrong."""
        self.close_connection = True
        if self.headers.get_all("Host", []) not in [[host] for host in self._hosts()]:
            self._refuse(403, "this page is for the browser on this machine")
            return None
        begin, _, rest = self.path.partition("?")[0].removeprefix("/").partition("/")
        if not hmac.compare_digest(begin.encode(), self.secret.encode()):
            self._refuse(404, "there is nothing here")
            return None
        return rest

    def _refuse(self, code: int, text: str) -> None:
        self.close_connection = True
        self._answer(code, text.encode() + b"\n", "text/plain; charset=utf-8", "")

    def _answer(self, code: int, body: bytes, kind: str, nonce: str) -> None:
        self.send_response(code)
        styles = f"style-src 'nonce-{nonce}'; form-action 'self'" if nonce else "form-action 'none'"
        self._finish(body, kind, f"default-src 'none'; {styles}; base-uri 'none'; frame-ancestors 'none'")

    def _finish(self, body: bytes, kind: str, security: str) -> None:
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", security)
        self.send_header("Connection", "close")
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what is no request of ours, without repeating any of it."""
        self._refuse(code, "this is no request for this page")

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        """Write nothing: the path holds the secret."""
