"""Start a server in the background, and return once it is healthy, or once it has failed, with its own words.

The server keeps running when the command that started it ends. Its output goes to `serve.log` in its directory, which
it keeps short itself (`keep_short`), and its process id to `serve.pid`.
"""

import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from federation.errors import FederationError
from federation.files import replace_file
from federation.operations.load import patience, waited
from federation.operations.running import PID, ask, tail

LOG = "serve.log"
MAX_LOG_BYTES = 16 << 20
EVERY_S = 0.2
LAST_LINES = 3
_TAIL_BYTES = 1 << 16
_SAID = re.compile(r"^[a-z-]+: (?P<what>error|hint): (?P<text>.+)$", re.MULTILINE)  # federation/terminal.py


def start(home: Path, command: Sequence[str], port: int, wait_s: float) -> int:
    """Start the server of a directory, which answers /health on loopback at `port`; return its process id.

    Raises FederationError if it ends, or is not healthy after `wait_s` seconds, more on a loaded machine; in the latter
    case it goes on running.
    """
    wait_s *= patience()
    if health(port)[1]:
        raise FederationError(f"a server answers on 127.0.0.1:{port} already", "stop it, or give --monitor-port")
    began, log = time.monotonic(), home / LOG
    size = log.stat().st_size if log.exists() else 0
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    process = os.posix_spawn(command[0], list(command), os.environ, file_actions=actions, setsid=True)
    said: Mapping[str, object] = {}
    while time.monotonic() - began < wait_s:
        time.sleep(EVERY_S)
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            why, hint = _last_words(tail(log, _TAIL_BYTES, size))
            ended_as = f"it ended with status {os.waitstatus_to_exitcode(status)}"
            raise FederationError(f"{ended_as}: {why or 'it said nothing'}", hint or f"see {log}")
        is_healthy, found = health(port)
        if is_healthy:
            replace_file(home / PID, f"{process}\n".encode(), 0o600)
            return process
        said = found or said
    raise FederationError(
        f"not healthy after {waited(wait_s)}: {shown(said)}", f"it goes on as process {process}; see {log}"
    )


def _last_words(text: str) -> tuple[str, str]:
    """Return the error and the hint with which a program ended, or else its last lines.

    Libraries may print after them while the process ends.
    """
    said = {found["what"]: found["text"] for found in _SAID.finditer(text)}
    if "error" in said:
        return said["error"], said.get("hint", "")
    lines = [line for line in text.splitlines() if line.strip()][-LAST_LINES:]
    return " ".join(lines[:1]), " ".join(lines[1:])


def keep_short(home: Path) -> None:
    """Move the output of this process to `serve.log.1` where `serve.log` has grown beyond MAX_LOG_BYTES.

    Nothing is moved if this process writes elsewhere. On a full disk the old output is lost, and room is made.
    """
    with suppress(OSError):
        log, own = home / LOG, os.fstat(1)
        if own.st_size <= MAX_LOG_BYTES or not os.path.samestat(own, log.stat()):
            return
        with suppress(OSError):
            older = log.with_name(f"{LOG}.1")
            older.unlink(missing_ok=True)
            replace_file(older, log.read_bytes(), 0o600)
        os.truncate(1, 0)


def health(port: int) -> tuple[bool, Mapping[str, object]]:
    """Return whether a server on this machine says that it is healthy, and what it says; nothing if none answers."""
    status, said = ask(port, "/health")
    return status == 200, said


def shown(said: Mapping[str, object]) -> str:
    """Return what a server says of its health in one line."""
    return ", ".join(f"{key} {json.dumps(value)}" for key, value in said.items())[:300] or "it does not answer yet"
