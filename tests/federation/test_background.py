"""A server that is started in the background: its health, its end, and its last words."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from federation.errors import FederationError
from federation.operations.background import health, start

pytestmark = [pytest.mark.process, pytest.mark.server]
SERVER = """
import sys, time
from http.server import BaseHTTPRequestHandler, HTTPServer
mode, port, began = sys.argv[1], int(sys.argv[2]), time.monotonic()
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        is_well = mode == "well" and time.monotonic() - began > 0.5
        self.send_response(200 if is_well else 503)
        self.end_headers()
        self.wfile.write(b'{"ok": true}' if is_well else b'{"ok": false, "missing": ["birch"]}')
    def log_message(self, *_):
        return
if mode == "ends":
    print("consilo-silo: error: the disk is full\\nconsilo-silo: hint: free some")
    sys.exit("a library says:\\n- more\\n- more\\n- and more at the end of the process")
if mode == "mute":
    print("first line")
    sys.exit("second line\\nthird line\\nlast line")
HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_a_server_is_waited_for_until_it_is_healthy_or_ends(tmp_path: Path) -> None:
    log, port = tmp_path / "serve.log", free_port()
    log.write_text("of an earlier run\n")
    command = [sys.executable, "-c", SERVER, "well", str(port)]
    process = start(tmp_path, command, port, 30)
    try:
        assert health(port) == (True, {"ok": True})
        assert (tmp_path / "serve.pid").read_text() == f"{process}\n"
        with pytest.raises(FederationError, match="a server answers on"):
            start(tmp_path, command, port, 30)
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
    with pytest.raises(FederationError, match=r"it ended with status 1: the disk is full$") as ended:
        start(tmp_path, [sys.executable, "-c", SERVER, "ends", str(port)], port, 30)
    assert ended.value.hint == "free some"
    with pytest.raises(FederationError, match=r"it ended with status 1: second line$") as ended:
        start(tmp_path, [sys.executable, "-c", SERVER, "mute", str(port)], port, 30)
    assert ended.value.hint == "third line last line"
    assert log.read_text().startswith("of an earlier run\n")
    with pytest.raises(
        FederationError, match=r'not healthy after \d s \(load average [\d.]+\): ok false, missing \["birch"\]'
    ) as ill:
        start(tmp_path, [sys.executable, "-c", SERVER, "ill", str(port)], port, 1)
    left = int(ill.value.hint.split("process ")[1].split(";")[0])
    os.kill(left, signal.SIGKILL)
    os.waitpid(left, 0)
    assert health(port) == (False, {})


TALKER = """
import sys
from pathlib import Path
from federation.operations import background
background.MAX_LOG_BYTES = 100_000
home = Path(sys.argv[1])
for number in range(200):
    print(f"line {number:04d} " + 89 * "x", flush=True)
    background.keep_short(home)
    print("of standard error", file=sys.stderr, flush=True)
for number in range(2000):
    print(f"more {number:04d} " + 89 * "x", flush=True)
    background.keep_short(home)
"""


def test_a_server_keeps_its_own_log_short(tmp_path: Path) -> None:
    log = tmp_path / "serve.log"
    with log.open("ab") as out:
        subprocess.run([sys.executable, "-c", TALKER, tmp_path], stdout=out, stderr=out, check=True)
    assert log.stat().st_size <= 100_100
    assert (tmp_path / "serve.log.1").stat().st_size <= 100_100
    lines = (tmp_path / "serve.log.1").read_text().splitlines() + log.read_text().splitlines()
    assert lines[-1].startswith("more 1999 ")
    numbers = [int(line.split()[1]) for line in lines if line.startswith("more ")]
    assert numbers == list(range(numbers[0], 2000)), "no line of the last ones is lost"
    with (tmp_path / "elsewhere").open("ab") as out:
        out.write(bytes(200_000))
        subprocess.run([sys.executable, "-c", TALKER, tmp_path], stdout=out, stderr=out, check=True)
    assert (tmp_path / "elsewhere").stat().st_size > 400_000, "what is not its log is left alone"
