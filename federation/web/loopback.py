"""Make an app and serve it on this machine: the one hardened setup of every page.

Promises: it listens on 127.0.0.1 only, unless the caller names another address; every request has passed the guard;
bodies and clients are bounded; it writes no access log, sets no cookie, handles no signal and starts no process. An
app runs in a running event loop (`listen`) or in its own thread (`serve_in_thread`). uvicorn's protocol is used
without its `Server`, which would take over signals and wake up ten times a second.
"""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp
from uvicorn import Config
from uvicorn.server import ServerState

from federation.web.connection import ClientLimits, Connection
from federation.web.guard import LOOPBACK, NOTHING_HERE, Guard, Hosts, refusal

MAX_FIELDS = 8
START_S = 10.0
GRACE_S = 2.0
_FORM = "application/x-www-form-urlencoded"


def hardened(
    routes: Sequence[BaseRoute], hosts: Hosts, *, secret: str = "", body_bytes: int = 0, nothing: str = NOTHING_HERE
) -> ASGIApp:
    """Return an app of these routes behind the guard; below `/secret/`, if a secret is given.

    A request without a route, by its path or its method, gets 404 and the text `nothing`.
    """

    async def fail(_: Request, error: Exception) -> Response:
        match error:
            case HTTPException(status_code=404 | 405):
                return refusal(404, nothing)
            case HTTPException(status_code=413):
                return refusal(413, f"a form has at most {body_bytes} bytes")
            case HTTPException(status_code=status, detail=detail):
                return refusal(status, detail)
            case _:
                return refusal(400, "the client is gone")

    app = Starlette(
        routes=routes, exception_handlers={HTTPException: fail, ClientDisconnect: fail}, max_body_size=body_bytes
    )
    app.router.redirect_slashes = False
    return Guard(app, hosts, secret)


def html_page(text: str, nonce: str) -> Response:
    """Return a page that allows no scripts, only styles with the nonce, and only forms to this app."""
    allowed = f"style-src 'nonce-{nonce}'; form-action 'self'"
    security = f"default-src 'none'; {allowed}; base-uri 'none'; frame-ancestors 'none'"
    return HTMLResponse(text, headers={"Content-Security-Policy": security})


async def read_form(request: Request) -> dict[str, list[str]]:
    """Return the fields of a form. Raises HTTPException if the body is not a form, or has too many fields."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = await request.body()
    if kind != _FORM:
        raise HTTPException(415, "a decision is a form")
    try:
        return parse_qs(body.decode(), max_num_fields=MAX_FIELDS, strict_parsing=True)
    except ValueError as err:
        raise HTTPException(400, "the form is malformed") from err


class Listener:
    """An app that is served until it is stopped."""

    def __init__(self, server: asyncio.Server, state: ServerState) -> None:
        self._server, self._state = server, state
        self.address: tuple[str, int] = server.sockets[0].getsockname()

    async def stop(self, grace_s: float = GRACE_S) -> None:
        """Accept no new clients, let begun answers end within `grace_s`, and disconnect the remaining clients."""
        self._server.close()
        await self._settle(grace_s)
        for connection in list(self._state.connections):
            connection.transport.abort()
        await self._settle(grace_s)

    async def _settle(self, grace_s: float) -> None:
        if self._state.tasks:
            await asyncio.wait(list(self._state.tasks), timeout=grace_s)


async def listen(app: ASGIApp, port: int, limits: ClientLimits | None = None, host: str = LOOPBACK) -> Listener:
    """Serve an app in this event loop, at any free port if it is 0. Raises OSError or OverflowError if that fails.

    `host` is another address than loopback only for the probes of an operator who chose one.
    """
    limits = limits or ClientLimits()
    config = Config(
        app, http=Connection, ws="none", lifespan="off", interface="asgi3", proxy_headers=False, server_header=False,
        date_header=False, access_log=False, log_config=None, log_level="error", workers=1,
    )  # fmt: skip
    config.load()
    state, loop = ServerState(), asyncio.get_running_loop()
    return Listener(await loop.create_server(lambda: Connection(config, state, limits), host, port), state)


@contextmanager
def serve_in_thread(app: ASGIApp, port: int, limits: ClientLimits | None = None) -> Iterator[int]:
    """Serve an app in a thread until the context ends; yields the port. Raises as `listen` does."""
    begun: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event, int]] = Future()

    async def serve() -> None:
        try:
            listener = await listen(app, port, limits)
        except Exception as err:
            begun.set_exception(err)
            return
        stopping = asyncio.Event()
        begun.set_result((asyncio.get_running_loop(), stopping, listener.address[1]))
        await stopping.wait()
        await listener.stop()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="page", daemon=True)
    thread.start()
    loop, stopping, bound = begun.result(START_S)
    try:
        yield bound
    finally:
        with suppress(RuntimeError):  # the thread has ended by itself
            loop.call_soon_threadsafe(stopping.set)
        thread.join(3 * GRACE_S)
