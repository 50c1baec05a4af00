"""The owner's page: for the browser on this machine alone, whole without anything from elsewhere, and seen."""

import http.client
import os
import pickle
import re
import shutil
import socket
import struct
import subprocess
import zlib
from collections.abc import Iterator
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import silo_node.owner.cli
from crypto.errors import CryptoError
from crypto.wire import unverified
from policies.requests.approval import Verdict
from silo_node.errors import SiloError
from silo_node.owner.console import MAX_BODY, Visitor, serve
from tests.harness.inside import database_of
from tests.harness.owner_home import NOW, PEOPLE, OwnerHome, ask, founded_with_people, spend

pytestmark = pytest.mark.server

DPO, OWNER, CISO = PEOPLE
Colour = tuple[int, int, int]


@pytest.fixture
def owner(founded: Path, tmp_path: Path) -> OwnerHome:
    """A silo with some months of work and a request that waits."""
    found = founded_with_people(founded, tmp_path)
    spend(found)
    ask(found)
    return found


@pytest.fixture
def url(owner: OwnerHome) -> Iterator[str]:
    with serve(owner.policy, owner.ledger, owner.signer(), Visitor(DPO, owner.keys[DPO]), clock=lambda: NOW) as running:
        yield running.url


class Answer:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status, self.headers, self.text = response.status, response.headers, response.read().decode()


def send(
    url: str, method: str = "GET", path: str | None = None, body: str | None = None, **headers: str | None
) -> Answer:
    """Send one request, with a browser's headers unless told otherwise; an underscore in a name is a hyphen."""
    where = urlsplit(url)
    sent: dict[str, str | None] = {"Host": where.netloc}
    if method == "POST":
        sent |= {"Origin": f"http://{where.netloc}", "Content-Type": "application/x-www-form-urlencoded"}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=20)
    try:
        connection.putrequest(method, where.path if path is None else path, skip_host=True)
        for name, value in sent.items():
            if value is not None:
                connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(None if body is None else body.encode())
        return Answer(connection.getresponse())
    finally:
        connection.close()


def form_of(text: str) -> dict[str, str]:
    return dict(re.findall(r'name="(request|csrf)" value="([0-9a-f]+)"', text))


def decide(url: str, **changes: str) -> Answer:
    values = form_of(send(url).text) | {"decision": "approve"} | changes
    body = "&".join(f"{name}={value}" for name, value in values.items())
    return send(url, "POST", urlsplit(url).path + "decide", body)


def verdicts(owner: OwnerHome) -> list[tuple[str, str]]:
    with closing(owner.open()) as store:
        (waiting,) = store.waiting()
        return [(one.who, unverified(one.envelope, Verdict).decision) for one in store.verdicts(waiting.subject)]


def test_the_page_shows_policy_ledger_requests_and_log(url: str) -> None:
    answer = send(url)
    assert answer.status == 200
    for text in (
        "Aspen Hospital", "policy version 1", "epsilon 3.65", "0.264", "Requests (1)", "at this pace",
        "COUNT(*), AVG(age) of visits where smoker = true by ward", "waiting, 0 of 2", "Approve", "Reject",
        "All answers together may cost rho 1 for one person, ever (epsilon 7.77 at delta 1e-06)",
        "The log is whole: entries 1 to", "contribution to round",
    ):  # fmt: skip
        assert text in answer.text, text
    assert "<script>" not in answer.text, "an analyst's name is text"
    assert "bo&lt;script&gt;@uni.example" in answer.text


class Parts(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(name)
        self.attributes += attributes
        if name not in ("meta", "input", "br", "hr", "link"):
            self.open.append(name)

    def handle_endtag(self, name: str) -> None:
        assert self.open.pop() == name


def test_the_page_has_no_script_no_style_attribute_and_nothing_from_elsewhere(url: str) -> None:
    parts = Parts(send(url).text)
    assert not parts.open
    assert not parts.tags & {"script", "link", "img", "iframe", "object", "embed"}
    names = {name for name, _ in parts.attributes}
    assert "style" not in names
    assert not [name for name in names if name.startswith("on")]
    for name, value in parts.attributes:
        if name in ("href", "action", "src"):
            assert value is not None
            assert value.startswith(("#", urlsplit(url).path))


def test_every_answer_closes_what_a_browser_would_open(url: str) -> None:
    for answer in (send(url), send(url, path="/"), decide(url), send(url, Host="evil.example")):
        headers = answer.headers
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Referrer-Policy"] == "same-origin"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert not {"Server", "Date", "Set-Cookie"} & set(headers)
    page = send(url)
    nonce = re.search(r'<style nonce="([0-9a-f]{32})">', page.text)
    assert nonce is not None
    assert f"style-src 'nonce-{nonce[1]}'" in page.headers["Content-Security-Policy"]
    assert nonce[1] not in send(url).text, "another one each time"


def test_it_listens_on_the_loopback_interface_only(url: str) -> None:
    port = urlsplit(url).port
    assert port is not None
    listening = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    addresses = {fields[1].split(":")[0] for fields in listening if int(fields[1].split(":")[1], 16) == port}
    assert addresses == {"0100007F"}, "127.0.0.1, in the kernel's order of bytes"
    with socket.socket(socket.AF_INET6) as other:
        assert other.connect_ex(("::1", port)) != 0


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "", None])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_name_that_is_not_this_machine_s_is_refused(url: str, host: str | None, method: str) -> None:
    """DNS rebinding: the browser was led here under another name."""
    told = None if host is None else host.format(port=urlsplit(url).port)
    answer = send(url, method, Host=told, body="" if method == "POST" else None)
    assert answer.status == (400 if host is None else 403)  # HTTP/1.1 has no request without a Host (RFC 9112, 3.2)
    assert "Aspen" not in answer.text


def test_localhost_is_this_machine_too(url: str) -> None:
    assert send(url, Host=f"localhost:{urlsplit(url).port}").status == 200


@pytest.mark.parametrize("path", ["/", "", "/{wrong}/", "/{secret}x/", "/{secret}/../", "/x"])
def test_without_the_secret_there_is_nothing(url: str, path: str) -> None:
    secret = urlsplit(url).path.strip("/")
    assert len(secret) == 48
    answer = send(url, path=path.format(secret=secret, wrong="0" * 48) or "/")
    assert answer.status == 404
    assert "Aspen" not in answer.text


def test_nothing_but_looking_and_deciding_is_answered(url: str) -> None:
    base = urlsplit(url).path
    for method in ("PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"):
        answer = send(url, method)
        assert answer.status == 501
        assert base not in answer.text
    assert send(url, path=f"{base}favicon.ico").status == 404
    assert send(url, "POST", body="").status == 404
    assert send(url, "HEAD").text == ""
    with socket.create_connection(("127.0.0.1", urlsplit(url).port or 0), timeout=20) as raw:
        raw.sendall(b"\x00\xff garbage\r\n\r\n")
        assert b"Traceback" not in raw.recv(4096)


def test_a_decision_is_signed_stored_and_shown(owner: OwnerHome, url: str) -> None:
    answer = decide(url)
    assert answer.status == 303
    assert answer.headers["Location"] == f"{urlsplit(url).path}#requests"
    assert verdicts(owner) == [(DPO, "approve")]
    assert "waiting, 1 of 2 (dpo@aspen.example: yes)" in send(url).text
    assert decide(url, decision="reject").status == 303
    assert "rejected" in send(url).text
    with closing(owner.open()) as store:
        assert [entry.event.kind for entry in store.entries(2)] == ["verdict", "verdict"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": None}, 403),
        ({"Origin": "https://127.0.0.1:{port}"}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Sec_Fetch_Site": "same-site"}, 403),
        ({"Content_Type": "text/plain"}, 415),
        ({"Content_Type": None}, 415),
    ],
)
def test_a_form_of_another_page_decides_nothing(
    owner: OwnerHome, url: str, headers: dict[str, str | None], status: int
) -> None:
    values = form_of(send(url).text)
    body = f"request={values['request']}&csrf={values['csrf']}&decision=approve"
    told = {name: value and value.format(port=urlsplit(url).port) for name, value in headers.items()}
    assert send(url, "POST", urlsplit(url).path + "decide", body, **told).status == status
    assert verdicts(owner) == []


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"csrf": "0" * 64}, 409),
        ({"csrf": ""}, 409),
        ({"request": "0" * 64}, 409),
        ({"decision": "perhaps"}, 409),
        ({"request": "%FF%FE"}, 409),
        ({"more": "x" * MAX_BODY}, 413),
        ({f"field{n}": "x" for n in range(9)}, 400),
    ],
)
def test_a_form_that_does_not_hold_decides_nothing(
    owner: OwnerHome, url: str, changes: dict[str, str], status: int
) -> None:
    answer = decide(url, **changes)
    assert answer.status == status
    assert "Traceback" not in answer.text
    assert verdicts(owner) == []


def test_a_page_without_a_person_only_shows(owner: OwnerHome) -> None:
    with serve(owner.policy, owner.ledger, owner.signer(), None, clock=lambda: NOW) as running:
        page = send(running.url)
        assert "Start the page with --as and --key to decide here." in page.text
        assert "<form" not in page.text
        base = urlsplit(running.url).path
        body = f"request={'0' * 64}&csrf={'0' * 64}&decision=approve"
        assert send(running.url, "POST", f"{base}decide", body).status == 409
    assert verdicts(owner) == []


def test_who_may_not_decide_gets_no_form(owner: OwnerHome) -> None:
    visitor = Visitor(CISO, owner.keys[CISO])
    with serve(owner.policy, owner.ledger, owner.signer(), visitor, clock=lambda: NOW) as running:
        assert "<form" not in send(running.url).text


def test_a_log_that_is_not_whole_is_said_so(owner: OwnerHome, url: str) -> None:
    with closing(owner.open()) as store:
        database_of(store).execute("DROP TRIGGER log_never_changes")
        database_of(store).execute("UPDATE log SET chain = zeroblob(32) WHERE seq = 5")
    page = send(url).text
    assert "the log is not whole" in page
    assert 'class="bad"' in page


def test_a_policy_that_no_longer_stands_is_said_so(owner: OwnerHome, url: str) -> None:
    owner.policy.write_text("schema = 1")
    answer = send(url)
    assert answer.status == 500
    assert "policy.toml" in answer.text
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8", "what a file says is no markup"


def test_secrets_are_neither_shown_nor_carried_away(owner: OwnerHome) -> None:
    visitor = Visitor(DPO, owner.keys[DPO])
    with serve(owner.policy, owner.ledger, owner.signer(), visitor) as running:
        assert urlsplit(running.url).path.strip("/") not in repr(running)
    with pytest.raises(CryptoError):
        pickle.dumps(visitor)
    with pytest.raises(CryptoError):
        pickle.dumps(owner.signer())


def test_the_console_ends_with_its_context(owner: OwnerHome) -> None:
    with serve(owner.policy, owner.ledger, owner.signer(), None) as running:
        port = urlsplit(running.url).port
        assert send(running.url).status == 200
        with pytest.raises(SiloError, match="cannot be opened"):
            serve(owner.policy, owner.ledger, owner.signer(), None, port or 0).__enter__()
    with pytest.raises(OSError, match="refused"):
        send(running.url)


def test_the_command_prints_where_and_ends_on_interrupt(
    owner: OwnerHome, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = []

    def wait(running: object) -> None:
        seen.append(send(getattr(running, "url", "")).status)
        raise KeyboardInterrupt

    monkeypatch.setattr("silo_node.owner.console.Running.wait", wait)
    command = ["console", "--policy", str(owner.policy), "--as", DPO, "--key", str(owner.files[DPO])]
    assert silo_node.owner.cli.main(command) == 1
    assert seen == [200]
    assert re.match(r"http://127\.0\.0\.1:\d+/[0-9a-f]{48}/\n", capsys.readouterr().out)


def test_who_is_not_in_the_policy_learns_so_at_the_start(owner: OwnerHome, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["console", "--policy", str(owner.policy), "--as", DPO, "--key", str(owner.files[OWNER])]
    assert silo_node.owner.cli.main(command) == 1
    output, errors = capsys.readouterr()
    assert not output
    assert "not the one that the policy gives" in errors


def shot(url: str, path: Path, size: tuple[int, int], *, is_dark: bool) -> list[bytes]:
    """Let headless Chromium draw the page; return the rows of the picture, 3 or 4 bytes a pixel."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        missing = "no Chromium here, so nobody looks at the page; .ci/packages names it"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    scheme = ["--blink-settings=preferredColorScheme=0"] if is_dark else []
    subprocess.run(
        [
            browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage",
            f"--user-data-dir={path}-profile", f"--window-size={size[0]},{size[1]}", f"--screenshot={path}",
            *scheme, url,
        ],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    return pixels(path.read_bytes())


def pixels(png: bytes) -> list[bytes]:
    """Return the rows of a PNG as they are, without their filter (RFC 2083)."""
    width, height, depth, colour = struct.unpack(">IIBB", png[16:26])
    assert (depth, colour in (2, 6)) == (8, True)
    size = 3 if colour == 2 else 4
    place, data = 8, b""
    while place < len(png):
        length, kind = struct.unpack(">I4s", png[place : place + 8])
        data += png[place + 8 : place + 8 + length] if kind == b"IDAT" else b""
        place += 12 + length
    raw, rows = zlib.decompress(data), []
    before = bytes(width * size)
    for index in range(height):
        start = index * (width * size + 1)
        before = _unfiltered(raw[start], raw[start + 1 : start + 1 + width * size], before, size)
        rows.append(before)
    return rows


def _unfiltered(kind: int, line: bytes, above: bytes, size: int) -> bytes:
    out = bytearray(line)
    for index in range(len(out)):
        left = out[index - size] if index >= size else 0
        corner = above[index - size] if index >= size else 0
        up = above[index]
        match kind:
            case 1:
                guess = left
            case 2:
                guess = up
            case 3:
                guess = (left + up) // 2
            case 4:
                guess = min((left, up, corner), key=lambda one: abs(left + up - corner - one))
            case _:
                guess = 0
        out[index] = (out[index] + guess) & 0xFF
    return bytes(out)


def share_of(rows: list[bytes], size: int, colour: tuple[int, int, int], slack: int = 6) -> float:
    found = total = 0
    for row in rows[::3]:
        for place in range(0, len(row), 3 * size):
            total += 1
            found += all(abs(row[place + one] - colour[one]) <= slack for one in range(3))
    return found / total


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "is_dark", "paper", "spent"),
    [
        ((1000, 700), False, (255, 255, 255), (31, 95, 168)),
        ((1000, 700), True, (29, 35, 41), (110, 168, 238)),
        ((390, 800), False, (255, 255, 255), (31, 95, 168)),
        ((390, 800), True, (29, 35, 41), (110, 168, 238)),
    ],
    ids=["wide-light", "wide-dark", "narrow-light", "narrow-dark"],
)
@pytest.mark.process
def test_chromium_draws_the_page(
    url: str,
    tmp_path: Path,
    size: tuple[int, int],
    is_dark: bool,
    paper: tuple[int, int, int],
    spent: tuple[int, int, int],
) -> None:
    """The picture is the page: its style was let through, its charts are drawn, and it is no wider than the window."""
    rows = shot(url, tmp_path / "page.png", size, is_dark=is_dark)
    depth = len(rows[0]) // size[0]
    assert len(rows) == size[1]
    assert share_of(rows, depth, paper) > 0.35, "the ground of the sections"
    assert share_of(rows, depth, spent) > 0.003, "the bars of what is spent"
    assert share_of(rows, depth, paper) < 0.98, "it is not empty"
    # At the right border lies the margin of the page: nothing is cut off by the window.
    border = [row[-3 * depth : -2 * depth] for row in rows[size[1] // 2 :]]
    assert len(set(border)) == 1
