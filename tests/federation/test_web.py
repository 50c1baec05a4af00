"""Attacks on the hardened setup that every page is made with, over a raw socket: none of them reaches the app."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from urllib.parse import urlencode

import pytest
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from federation.web.connection import ClientLimits
from federation.web.guard import HEADERS, is_loopback_name, is_served_address
from federation.web.loopback import MAX_FIELDS, hardened, html_page, listen, read_form, serve_in_thread

pytestmark = [pytest.mark.server, pytest.mark.process]  # browsers and sockets

SECRET = "ab" * 24
BODY = 256
LIMITS = ClientLimits(read_s=1.5, answer_s=2.0, write_s=1.5, connections=4)
SEEN = "the page of the owner"


class Site:
    """A page that counts who got through to it."""

    def __init__(self) -> None:
        self.looked = 0
        self.forms: list[dict[str, list[str]]] = []
        self.port = 0
        self.shown = ""
        self.released = threading.Event()

    async def look(self, request: Request) -> Response:
        self.looked += 1
        return html_page(SEEN, "0" * 32)

    async def decide(self, request: Request) -> Response:
        self.forms.append(await read_form(request))
        return PlainTextResponse("decided")

    async def show(self, request: Request) -> Response:
        """Return a page of the site that may run scripts, as none of ours may."""
        allowed = "default-src 'self' 'unsafe-inline'; form-action 'self'"
        return HTMLResponse(self.shown, headers={"Content-Security-Policy": allowed})

    async def fail(self, request: Request) -> Response:
        raise RuntimeError(SECRET)

    async def wait(self, request: Request) -> Response:
        while not self.released.is_set():
            await asyncio.sleep(0.02)
        return PlainTextResponse("waited")

    async def flood(self, request: Request) -> Response:
        return PlainTextResponse("x" * 50_000_000)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def head(self, method: str = "GET", path: str = "", *fields: str, version: str = "1.1", host: str = "") -> bytes:
        first = f"{method} /{SECRET}/{path} HTTP/{version}"
        return "\r\n".join([first, f"Host: {host or self.host}", *fields, "", ""]).encode()

    def form(self, body: str, *fields: str) -> bytes:
        length = f"Content-Length: {len(body)}"
        return self.head("POST", "decide", *self.of_ours(), length, *fields) + body.encode()

    def of_ours(self) -> tuple[str, str]:
        return f"Origin: http://{self.host}", "Content-Type: application/x-www-form-urlencoded"

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def ask(self, request: bytes) -> tuple[int, str]:
        """Return the status and all that comes; 0 if the connection was cut without an answer."""
        with self.connect() as client:
            client.sendall(request)
            text = read(client)
        return (int(text.split(" ", 2)[1]) if text else 0), text


def read(client: socket.socket) -> str:
    received = b""
    try:
        while chunk := client.recv(65_536):
            received += chunk
    except ConnectionResetError:
        pass
    return received.decode("latin-1")


@contextmanager
def served(limits: ClientLimits = LIMITS) -> Iterator[Site]:
    site = Site()
    routes = [
        Route("/", site.look),
        Route("/decide", site.decide, methods=["POST"]),
        Route("/show", site.show),
        Route("/fail", site.fail),
        Route("/wait", site.wait),
        Route("/flood", site.flood),
    ]
    with serve_in_thread(hardened(routes, is_served_address, secret=SECRET, body_bytes=BODY), 0, limits) as port:
        site.port = port
        try:
            yield site
        finally:
            site.released.set()


@pytest.fixture(scope="module")
def shared() -> Iterator[Site]:
    with served() as site:
        yield site


@pytest.fixture
def site(shared: Site) -> Site:
    shared.looked, shared.forms = 0, []
    return shared


def test_a_browser_on_this_machine_is_answered_once(site: Site) -> None:
    status, text = site.ask(site.head())
    assert status == 200
    assert text.endswith(SEEN)
    assert "connection: close" in text.lower()
    assert site.ask(site.form("decision=approve"))[0] == 200
    assert site.forms == [{"decision": ["approve"]}]


def test_a_client_that_has_said_all_is_answered_still(site: Site) -> None:
    with site.connect() as client:
        client.sendall(site.form("decision=approve"))
        client.shutdown(socket.SHUT_WR)
        assert read(client).endswith("decided")
    with site.connect() as client:
        client.sendall(site.form("decision=approve")[:-1])
        client.shutdown(socket.SHUT_WR)
        assert read(client) == ""
    assert len(site.forms) == 1


@pytest.mark.parametrize(
    ("lengths", "body"),
    [
        (("Content-Length: 8", "Transfer-Encoding: chunked"), "0\r\n\r\nGET / HTTP/1.1\r\n\r\n"),
        (("Transfer-Encoding: chunked", "Content-Length: 8"), "8\r\nsmuggled\r\n0\r\n\r\n"),
        (("Content-Length: 8", "Content-Length: 9"), "smuggled."),
        (("Content-Length: 8, 9",), "smuggled."),
        (("Content-Length: +8",), "smuggled"),
        (("Content-Length: -1",), "smuggled"),
        (("Content-Length: 0x8",), "smuggled"),
        (("Content-Length : 8",), "smuggled"),
        (("Transfer-Encoding: xchunked",), "0\r\n\r\n"),
        (("Transfer-Encoding: chunked, identity",), "0\r\n\r\n"),
        (("Transfer-Encoding: identity",), "smuggled"),
        (("Transfer-Encoding:\x0bchunked",), "0\r\n\r\n"),
        (("Transfer-Encoding:\r\n chunked",), "0\r\n\r\n"),
        (("X: y\nTransfer-Encoding: chunked",), "0\r\n\r\n"),
        (("X: y\rTransfer-Encoding: chunked",), "0\r\n\r\n"),
        (("Transfer-Encoding: chunked",), "xyz\r\n"),
    ],
)
def test_a_body_of_two_lengths_is_no_request(site: Site, lengths: tuple[str, ...], body: str) -> None:
    """Request smuggling: RFC 9112, sections 2.2, 5.1, 5.2, 6.1 and 6.3."""
    status, text = site.ask(site.head("POST", "decide", *site.of_ours(), *lengths) + body.encode())
    assert status == 400, text
    assert text.count("HTTP/1.1") == 1
    assert not site.forms


def test_chunks_are_not_read_in_http_1_0(site: Site) -> None:
    fields = (*site.of_ours(), "Transfer-Encoding: chunked")
    assert site.ask(site.head("POST", "decide", *fields, version="1.0") + b"0\r\n\r\n")[0] == 400


@pytest.mark.parametrize("first", ["look", "form"])
def test_a_second_request_is_never_read(site: Site, first: str) -> None:
    """Pipelining, and whatever is hidden behind a body."""
    begin = site.head() if first == "look" else site.form("decision=approve")
    _, text = site.ask(begin + site.form("decision=reject") + site.head())
    assert text.count("HTTP/1.1") == 1
    assert (site.looked, len(site.forms)) == ((1, 0) if first == "look" else (0, 1))


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("http://evil.example/{secret}/", 400),
        ("http://{host}/{secret}/", 400),
        ("{host}", 400),
        ("*", 400),
        ("{secret}/", 400),
        ("//evil.example/{secret}/", 404),
        ("//{secret}/", 404),
        ("/../{secret}/", 404),
        ("/{secret}/../{secret}/", 404),
        ("/{secret}/..%2f..%2fetc%2fpasswd", 404),
        ("/{secret}/%2e%2e/%2e%2e/etc/passwd", 404),
        ("/{secret}/..\\..\\etc", 404),
        ("/{secret}/decide/", 404),
        ("/{secret}/decide%00", 404),
        ("/{secret}%00/", 404),
        ("/{upper}/", 404),
        ("/%ff%fe/", 404),
        ("/", 404),
    ],
)
def test_a_path_that_is_not_of_the_page_leads_nowhere(site: Site, target: str, status: int) -> None:
    told = target.format(secret=SECRET, upper=SECRET.upper(), host=site.host)
    found, text = site.ask(f"GET {told} HTTP/1.1\r\nHost: {site.host}\r\n\r\n".encode())
    assert found == status
    assert SECRET not in text
    assert not site.looked


@pytest.mark.parametrize("hosts", [["{host}", "evil.example"], ["evil.example", "{host}"], ["{host}", "{host}"]])
def test_two_hosts_are_no_request(site: Site, hosts: list[str]) -> None:
    lines = "\r\n".join(f"Host: {host.format(host=site.host)}" for host in hosts)
    assert site.ask(f"GET /{SECRET}/ HTTP/1.1\r\n{lines}\r\n\r\n".encode())[0] == 400
    assert not site.looked


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1", "127.0.0.1:1", "user@{host}", "{host}.", "{host}/", "[::1]:{port}", "0:{port}"],
)
def test_another_name_is_refused_also_where_a_proxy_is_said_to_stand(site: Site, host: str) -> None:
    told = host.format(host=site.host, port=site.port)
    forwarded = (f"X-Forwarded-Host: {site.host}", f"Forwarded: host={site.host}", "X-Forwarded-For: 127.0.0.1")
    assert site.ask(site.head("GET", "", *forwarded, host=told))[0] == 403
    assert not site.looked


def test_what_a_proxy_is_said_to_have_received_changes_nothing(site: Site) -> None:
    told = ("X-Forwarded-Host: evil.example", "X-Forwarded-Proto: https", "X-Forwarded-Prefix: /x")
    assert site.ask(site.head("GET", "", *told))[0] == 200


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "PUT", "DELETE", "PATCH", "CONNECT", "PROPFIND", "get"])
def test_other_methods_are_not_answered(site: Site, method: str) -> None:
    status, text = site.ask(site.head(method, "", "X-Probe: echo-me"))
    assert status == 501
    assert "echo-me" not in text
    assert SECRET not in text
    assert not site.looked


def test_head_is_a_look_without_a_body(site: Site) -> None:
    status, text = site.ask(site.head("HEAD"))
    assert status == 200
    assert text.endswith("\r\n\r\n")
    assert SEEN not in text


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_upgrade_is_not_made(site: Site, method: str) -> None:
    upgrade = (
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: " + "A" * 22,
    )
    assert site.ask(site.head(method, "", *upgrade))[0] in (200, 403)
    assert site.ask(site.head("GET", "", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c"))[0] == 200
    assert site.ask(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")[0] == 501


@pytest.mark.parametrize(
    "fields",
    [
        ("Origin: http://evil.example",),
        ("Origin: null",),
        ("Origin: http://localhost:{port}",),  # not the name that it asks by
        ("Origin: https://{host}",),
        ("Origin: http://{host}.evil.example",),
        ("Origin: http://{host}", "Origin: http://evil.example"),
        ("Origin: http://{host}", "Sec-Fetch-Site: cross-site"),
        ("Origin: http://{host}", "Sec-Fetch-Site: same-site"),
        ("Origin: http://{host}", "Sec-Fetch-Site: none"),
        ("Origin: http://{host}", "Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: cross-site"),
        ("Referer: http://{host}/{secret}/",),
        (),
    ],
)
def test_a_form_of_another_page_is_refused(site: Site, fields: tuple[str, ...]) -> None:
    told = [field.format(port=site.port, host=site.host, secret=SECRET) for field in fields]
    kind = "Content-Type: application/x-www-form-urlencoded"
    assert site.ask(site.head("POST", "decide", kind, "Content-Length: 1", *told) + b"x")[0] == 403
    assert not site.forms


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (("Sec-Fetch-Site: none", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"), 200),
        (("Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"), 200),
        (("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"), 200),
        (("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe"), 403),
        (("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image"), 403),
        (("Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty"), 403),
        (("Sec-Fetch-Site: cross-site",), 403),
    ],
)
def test_another_page_can_only_link_here(site: Site, fields: tuple[str, ...], status: int) -> None:
    """A person may follow a link; no page may show, load or read this one, even one that knows the secret."""
    assert site.ask(site.head("GET", "", *fields))[0] == status


@pytest.mark.parametrize(
    ("request_of", "status"),
    [
        (lambda site: site.head(), 200),
        (lambda site: site.head("POST", "", *site.of_ours()), 404),
        (lambda site: site.head(host="evil.example"), 403),
        (lambda site: site.head("TRACE"), 501),
        (lambda site: site.head("GET", "", "Pad: " + "x" * 20_000), 431),
        (lambda site: site.form("x" * 300), 413),
        (lambda site: site.form("decision"), 400),
        (lambda site: b"\x00\xff garbage\r\n\r\n", 400),
    ],
)
def test_every_answer_tells_the_browser_to_keep_and_run_nothing(
    site: Site, request_of: Callable[[Site], bytes], status: int
) -> None:
    found, text = site.ask(request_of(site))
    assert found == status
    lines = text.partition("\r\n\r\n")[0].split("\r\n")[1:]
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    assert len(headers) == len(lines), "none twice"
    assert set(headers) == {name.lower() for name in HEADERS} | {"content-type", "content-length"}
    for name, value in HEADERS.items():
        assert headers[name.lower()] == value or (status == 200 and name == "Content-Security-Policy")
    assert headers["content-security-policy"].startswith("default-src 'none'; ")
    assert "script" not in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]


def test_a_defect_of_the_app_is_told_to_nobody(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    status, text = site.ask(site.head("GET", "fail"))
    assert status == 500
    assert SECRET not in text
    assert "cache-control: no-store" in text
    assert "Exception in ASGI application" in caplog.text


@pytest.mark.parametrize(
    ("request_of", "status"),
    [
        (lambda site: b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n", 431),
        (lambda site: b"GET " + b"x" * 20_000, 431),
        (lambda site: site.head("GET", "", *(f"Field-{n}: x" for n in range(3000))), 431),
        (lambda site: site.head("GET", "", "Cookie: " + "x" * 20_000), 431),
        (lambda site: site.form("x" * (BODY + 1)), 413),
        (lambda site: site.head("POST", "decide", *site.of_ours(), "Content-Length: 99999999999999999999"), 413),
        (lambda site: site.form(urlencode({f"field{n}": "x" for n in range(MAX_FIELDS + 1)})), 400),
    ],
)
def test_what_is_too_large_is_refused(site: Site, request_of: Callable[[Site], bytes], status: int) -> None:
    assert site.ask(request_of(site))[0] == status
    assert not site.looked
    assert not site.forms


def test_chunks_beyond_the_limit_are_refused_before_they_end(site: Site) -> None:
    chunks = b"".join(b"10\r\n" + b"x" * 16 + b"\r\n" for _ in range(BODY // 16 + 1))  # and never the last one
    assert site.ask(site.head("POST", "decide", *site.of_ours(), "Transfer-Encoding: chunked") + chunks)[0] == 413
    whole = b"8\r\ndecision\r\n4\r\n=yes\r\n0\r\n\r\n"
    assert site.ask(site.head("POST", "decide", *site.of_ours(), "Transfer-Encoding: chunked") + whole)[0] == 200
    assert site.forms == [{"decision": ["yes"]}]


def test_bytes_of_anybody_end_in_no_defect(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """Seeded: whole requests with bytes changed, left out, doubled and cut, some of them in two pieces."""
    source = Random(9112)  # noqa: S311  # it guards nothing
    whole = [
        site.head(),
        site.form("decision=approve"),
        site.head("POST", "decide", *site.of_ours(), "Transfer-Encoding: chunked"),
    ]
    whole[2] += b"4\r\na=bc\r\n0\r\n\r\n"
    seen, bad = set(), b"\r\n\x00 \t:;,\xff0"
    for _ in range(400):
        request = bytearray(source.choice(whole))
        for _ in range(source.randint(1, 4)):
            at = source.randrange(len(request))
            match source.randrange(4):
                case 0:
                    request[at] = source.choice(bad)
                case 1:
                    del request[at : at + source.randint(1, 6)]
                case 2:
                    request[at:at] = request[at : at + source.randint(1, 40)]
                case _:
                    request[at:at] = bytes([source.choice(bad)])
        with site.connect() as client:
            cut = source.randrange(len(request))
            with suppress(OSError):  # it was refused in between
                client.sendall(request[:cut])
                client.sendall(request[cut:])
                client.shutdown(socket.SHUT_WR)
            text = read(client)
        seen.add(text[9:12])
        assert not text or text.startswith("HTTP/1.1 "), request
        assert text.count("HTTP/1.1") <= 1, request
        assert not text.startswith("HTTP/1.1 500"), request
    assert not caplog.records, caplog.text
    assert seen >= {"", "200", "400", "403", "404", "501"}


def trickle(client: socket.socket, text: bytes, pause_s: float) -> float:
    """Send a byte at a time until the other side has closed; return after how long."""
    began = time.monotonic()
    client.settimeout(pause_s)
    for byte in text:
        try:
            client.sendall(bytes([byte]))
            if not client.recv(4096):
                break
        except TimeoutError:
            continue
        except OSError:
            break
    return time.monotonic() - began


@pytest.mark.parametrize("part", ["head", "body", "nothing"])
def test_who_sends_a_byte_a_second_is_cut_off(site: Site, part: str) -> None:
    """Slow loris: each byte comes in time, the request never does."""
    with site.connect() as client:
        if part == "body":
            client.sendall(site.head("POST", "decide", *site.of_ours(), "Content-Length: 200"))
        if part == "nothing":
            began = time.monotonic()
            assert read(client) == ""
            took = time.monotonic() - began
        else:
            took = trickle(client, b"GET / HTTP/1.1\r\n", 1.0)
    assert LIMITS.read_s - 0.2 < took < LIMITS.read_s + 5
    assert not site.forms


def test_who_does_not_read_the_answer_is_cut_off() -> None:
    with served() as site, site.connect() as client:
        client.sendall(site.head("GET", "flood"))
        time.sleep(LIMITS.write_s + 1)
        assert len(read(client)) < 50_000_000


def test_an_answer_that_does_not_come_is_cut_off() -> None:
    with served() as site:
        began = time.monotonic()
        assert site.ask(site.head("GET", "wait"))[0] == 0
        assert LIMITS.answer_s - 0.2 < time.monotonic() - began < LIMITS.answer_s + 5


def test_bytes_after_the_request_do_not_put_off_the_deadline() -> None:
    with served() as site, site.connect() as client:
        client.sendall(site.head("GET", "wait"))
        assert LIMITS.answer_s - 0.2 < trickle(client, site.head(), 0.3) < LIMITS.answer_s + 5


def test_clients_beyond_the_limit_are_turned_away_until_others_are_gone() -> None:
    with served(ClientLimits(read_s=3.0, connections=2)) as site:
        held = [site.connect(), site.connect()]
        time.sleep(0.2)
        assert site.ask(site.head())[0] == 0
        for client in held:
            client.close()
        time.sleep(0.2)
        assert site.ask(site.head())[0] == 200


def test_it_ends_with_its_context_whatever_clients_do() -> None:
    """In bounded time, without a thread, a socket or a signal handler left."""
    handlers = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    threads, began = threading.enumerate(), time.monotonic()
    with served(ClientLimits()) as site:
        silent, waiting = site.connect(), site.connect()
        waiting.sendall(site.head("GET", "wait"))
        time.sleep(0.2)
        assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert read(silent) == ""
    assert read(waiting).endswith("waited")
    silent.close()
    waiting.close()
    assert time.monotonic() - began < 8
    assert threading.enumerate() == threads
    with pytest.raises(ConnectionRefusedError):
        site.connect()


def test_a_port_that_is_taken_or_none_is_an_error_at_the_start() -> None:
    with served() as site:
        with pytest.raises(OSError, match="in use"), serve_in_thread(hardened([], is_served_address), site.port):
            pass
        with pytest.raises(OverflowError), serve_in_thread(hardened([], is_served_address), 70_000):
            pass


def test_in_a_loop_of_somebody_else_s_it_takes_no_signal_and_leaves_no_task() -> None:
    async def whole() -> None:
        before = asyncio.all_tasks()
        listener = await listen(hardened([], is_loopback_name), 0)
        reader, writer = await asyncio.open_connection(*listener.address)
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 404 Not Found\r\n")
        writer.close()
        _, silent = await asyncio.open_connection(*listener.address)
        await listener.stop()
        assert asyncio.all_tasks() == before
        silent.close()

    kept = signal.getsignal(signal.SIGTERM)
    asyncio.run(whole())
    assert signal.getsignal(signal.SIGTERM) is kept


def test_who_serves_no_page_imports_none_of_it() -> None:
    """Silos' actors and most commands: the web stack takes time and memory."""
    stack = ("starlette", "uvicorn", "h11", "jinja2", "federation.web")
    roles = "silo_node.actor, silo_node.owner.cli, analyst.cli.main"
    code = f"import sys, {roles}; print([m for m in {stack} if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120)
    assert shown.stdout == "[]\n"


def browse(url: str, profile: Path) -> None:
    """Let headless Chromium open a page and whatever it loads."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        missing = "no Chromium here, so no browser attacks; .ci/packages names it"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    options = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        f"--user-data-dir={profile}",
    ]
    command = [browser, *options, "--virtual-time-budget=4000", "--dump-dom", url]
    subprocess.run(command, check=True, capture_output=True, timeout=120)


def attack(target: str, how: str) -> str:
    """Return a page that loads, shows, reads or decides on the target, whose secret it knows."""
    form = f'<form method="post" action="{target}decide"><input name="decision" value="approve"></form>'
    ways = {
        "image": f'<img src="{target}">',
        "script": f'<script src="{target}"></script>',
        "frame": f'<iframe src="{target}"></iframe>',
        "fetch": f"<script>fetch('{target}', {{mode: 'no-cors'}})</script>",
        "post": f"<script>fetch('{target}decide', {{method: 'POST', mode: 'no-cors',"
        " body: new URLSearchParams({decision: 'approve'})})</script>",
        "form": f"{form}<script>document.forms[0].submit()</script>",
        "form without a referrer": f'<meta name="referrer" content="no-referrer">{form}'
        "<script>document.forms[0].submit()</script>",
    }
    return f"<!doctype html>{ways[how]}"


@contextmanager
def page_of(text: str) -> Iterator[tuple[int, list[str]]]:
    """Serve a page that allows itself all; yield its port and what was asked of it."""
    asked = []

    async def answer(request: Request) -> Response:
        asked.append(request.url.path)
        return HTMLResponse(text, headers={"Content-Security-Policy": "default-src * 'unsafe-inline'"})

    with serve_in_thread(hardened([Route("/", answer)], is_loopback_name), 0) as port:
        yield port, asked


WAYS = ["image", "script", "frame", "fetch", "post", "form", "form without a referrer"]


@pytest.mark.slow
@pytest.mark.parametrize("how", WAYS)
def test_a_page_in_a_real_browser_neither_reads_nor_decides(site: Site, tmp_path: Path, how: str) -> None:
    """From another port of this machine, which browsers call the same site, and with the secret known."""
    with page_of(attack(f"http://{site.host}/{SECRET}/", how)) as (port, asked):
        browse(f"http://127.0.0.1:{port}/", tmp_path)
        assert "/" in asked
    assert not site.looked
    assert not site.forms


@pytest.mark.slow
def test_a_form_of_the_page_itself_decides_in_a_real_browser(tmp_path: Path) -> None:
    """What the guard demands of a form is what a browser sends under the referrer policy of our answers."""
    with served() as site:
        site.shown = attack(f"http://{site.host}/{SECRET}/", "form")
        browse(f"http://{site.host}/{SECRET}/show", tmp_path)
        assert site.forms == [{"decision": ["approve"]}]
