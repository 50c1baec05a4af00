"""`consilo-silo console`: one page for the silo's owner, on this machine alone.

Promises: only a person who knows its address can read the page or decide on it; the address has a random path that is
shown only to the person who started the console. A decision needs a token of this page and is signed with the visitor's
own key. The console reads the silo's files. `federation.web` keeps other pages out.
"""

import hmac
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from crypto.errors import CryptoError
from crypto.keys import SigningKey
from crypto.randomness import token
from federation.web.guard import LOOPBACK, is_served_address, refusal
from federation.web.loopback import hardened, html_page, read_form, serve_in_thread
from policies.document.load import load
from policies.errors import LedgerError, PolicyError
from silo_node.errors import SiloError
from silo_node.ledger.log import Signer
from silo_node.ledger.store import LedgerStore
from silo_node.owner.accounts import accounts_of
from silo_node.owner.page import View, render
from silo_node.owner.pending import Decision, decide_on, requests_of
from silo_node.profiles import last_lines

MAX_BODY = 4096
LOG_ENTRIES = 60


@dataclass(frozen=True, slots=True)
class Visitor:
    """The person who decides on the page, with the key that the policy names."""

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
        """The token that every form of this page sends back."""
        return hmac.new(self._secret, b"decide", sha256).hexdigest()

    def page(self, base: str, nonce: str) -> str:
        """Return the page as it is now. Raises PolicyError if the policy or the ledger cannot be read."""
        file, now = load(self._policy), int(self._clock())
        store = self._store
        said, is_whole = self._examined()
        view = View(
            policy=file.policy,
            accounts=accounts_of(file.policy, store.history(), store.spending(), now, store.reservations()),
            requests=requests_of(file.policy, store, now),
            rows=last_lines(self._policy.resolve().parent),
            entries=store.entries(LOG_ENTRIES) if is_whole else [],
            log=said,
            is_log_whole=is_whole,
            visitor=None if self._visitor is None else self._visitor.who,
        )
        return render(view, base, self.csrf, nonce)

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
    secret = token(24).hex()
    app = hardened(
        _routes(Console(policy, store, signer, visitor, clock)), is_served_address, secret=secret, body_bytes=MAX_BODY
    )
    with ExitStack() as stack:
        stack.callback(store.close)
        try:
            bound = stack.enter_context(serve_in_thread(app, port))
        except OSError as err:
            reason = os.strerror(err.errno or 0)
            raise SiloError(f"port {port} cannot be opened ({reason})", "choose another with --port") from err
        stopped = threading.Event()
        stack.callback(stopped.set)
        yield Running(f"http://{LOOPBACK}:{bound}/{secret}/", stopped)


def _routes(console: Console) -> Sequence[Route]:
    """Return the routes of the page and of a decision; both read the ledger, so they run in threads."""

    async def show(request: Request) -> Response:
        nonce = token(16).hex()
        try:
            text = await run_in_threadpool(console.page, f"{request.scope['root_path']}/", nonce)
        except (PolicyError, SiloError, CryptoError) as err:
            return refusal(500, f"{err.message}\n{err.hint}")
        return html_page(text, nonce)

    async def decide(request: Request) -> Response:
        form = await read_form(request)
        try:
            await run_in_threadpool(console.decide, form)
        except (SiloError, PolicyError, CryptoError) as err:
            return refusal(409, f"{err.message}\n{err.hint}")
        return RedirectResponse(f"{request.scope['root_path']}/#requests", 303)

    return Route("/", show), Route("/decide", decide, methods=["POST"])
