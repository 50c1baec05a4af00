"""What a member's running program says of itself, for the command `status` in the same directory.

`serve` writes where it can be asked into `serve.json`. The file may be left by a program that was killed, so only an
answer of the same process counts. Promise: asking takes at most ASK_S, and at most MAX_BYTES are read.
"""

import http.client
import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from federation.files import replace_file

NOTE, PID = "serve.json", "serve.pid"
ASK_S = 3.0
MAX_BYTES = 1 << 20
FULL_BYTES = 64 << 20  # a disk with less room is full: rounds, logs and ledgers would fail


def note_running(home: Path, port: int) -> None:
    """Write down where this process can be asked on loopback; a full disk is none of this function's business."""
    with suppress(OSError):
        replace_file(home / NOTE, json.dumps({"pid": os.getpid(), "port": port}).encode(), 0o600)


def forget_running(home: Path) -> None:
    """Remove the note of this process at its end, and its number: soon another process may have that."""
    with suppress(OSError, ValueError):
        if int((home / PID).read_text()) == os.getpid():
            (home / PID).unlink()
    with suppress(OSError):
        (home / NOTE).unlink(missing_ok=True)


def ask_running(home: Path) -> dict[str, Any] | None:
    """Return what the program that serves a directory says of itself; None if none answers."""
    note = read_object(home / NOTE, 1000)
    pid, port = note.get("pid"), note.get("port")
    if not isinstance(pid, int) or not isinstance(port, int) or not 0 < port < 2**16:
        return None
    _, found = ask(port, "/status")
    return found if found.get("pid") == pid else None


def unanswered(home: Path) -> str:
    """Return in words why no program answers for a directory: one that ended by itself has removed its note."""
    return "does not answer: it was killed, or hangs" if (home / NOTE).exists() else "not running"


def ask(port: int, path: str) -> tuple[int, dict[str, Any]]:
    """Return the status and the JSON object with which a program on this machine answers; 0 if none answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ASK_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, object_in(answer.read(MAX_BYTES))
    except (OSError, ValueError, http.client.HTTPException):
        return 0, {}
    finally:
        connection.close()


def read_object(path: Path, most: int = MAX_BYTES) -> dict[str, Any]:
    """Return the JSON object in a small file of a program of ours; empty if there is none, whatever the bytes are."""
    try:
        with path.open("rb") as file:
            return object_in(file.read(most))
    except (OSError, ValueError):
        return {}


def object_in(data: bytes) -> dict[str, Any]:
    """Return the JSON object that these bytes are; raises ValueError."""
    try:
        found = json.loads(data)
    except RecursionError:
        found = None
    if not isinstance(found, dict):
        raise ValueError("not a JSON object")
    return found


def tail(path: Path, most: int, first: int = 0) -> str:
    """Return the last `most` bytes of what a file has after its first `first`, as text; empty if it cannot be read."""
    with suppress(OSError), path.open("rb") as file:
        file.seek(max(first, os.fstat(file.fileno()).st_size - most))
        return file.read(most).decode(errors="replace")
    return ""


def free_bytes(places: dict[str, Path]) -> dict[str, int]:
    """Return the room on the disk of each place."""
    return {what: shutil.disk_usage(place).free for what, place in places.items()}


def full_disks(places: dict[str, Path]) -> list[str]:
    """Return a problem for each place whose disk is full."""
    full = {what: left for what, left in free_bytes(places).items() if left < FULL_BYTES}
    return [f"the disk of {places[what]} is full ({left >> 20} MiB free)" for what, left in full.items()]


def size_of(place: Path, without: str = "") -> tuple[int, int]:
    """Return the number and the bytes of the files in a directory, of all names but one; zeros if there is none."""
    files = bytes_ = 0
    with suppress(OSError), os.scandir(place) as entries:
        for entry in entries:
            with suppress(OSError):
                if entry.name != without and entry.is_file(follow_symlinks=False):
                    files, bytes_ = files + 1, bytes_ + entry.stat().st_size
    return files, bytes_
