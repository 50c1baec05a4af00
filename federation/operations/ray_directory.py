"""Where Ray keeps its sessions: closed to other users, short enough for sockets, and cleared of what the dead left.

Ray opens the directory that it is given to everybody (mode 0777). So it is given one inside a directory that only this
user can enter. Sockets, logs and spilled objects lie in it together, so it is never in a small memory disk such as
$XDG_RUNTIME_DIR. Promise: `own_directory` raises FederationError where another user could exchange it, or where a
socket's path would be too long; `findings` says the same to whoever looks before.
"""

import os
import shutil
import signal
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

from federation.errors import FederationError
from federation.members.credentials import hold
from federation.operations.checks import Finding, ok_if
from federation.operations.private import why_exchanged

PREFIX, OWNER_LOCK, INNER = "consilo-", "owner.lock", "r"
MAX_SOCKET = 107  # bytes of a socket's path; sockaddr_un of unix(7)
_LONGEST = f"/{PREFIX}12345678/{INNER}/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"


def place() -> Path:
    """Return the directory in which Ray's are made."""
    return Path(tempfile.gettempdir())


def findings(least_bytes: int) -> Iterator[Finding]:
    """Yield what is wrong, or in order, with the place of Ray's directories."""
    free = shutil.disk_usage(place()).free
    found, remedy = f"{free / 2**30:.1f} GiB in {place()}", f"free {least_bytes / 2**30:.0f} GiB"
    yield Finding("free disk for Ray", ok_if(free >= least_bytes), found, remedy)
    if (why := _why_not()) is not None:
        yield Finding("Ray's directory", "FAIL", *why)
    else:
        yield Finding("Ray's directory", "ok", f"in {place()}, closed to others; sockets' paths of {_length()} bytes")


def own_directory(undo: ExitStack) -> str:
    """Make a directory for Ray's files that only its owner can enter, and that is removed at the end.

    Those of processes that were killed are removed now, and what they left running is ended: a lock in each tells
    whether its process still lives. Raises FederationError or OSError.
    """
    if (why := _why_not()) is not None:
        raise FederationError(*why)
    for left in place().glob(f"{PREFIX}*/{OWNER_LOCK}"):
        with suppress(OSError):
            if _is_own(left.parent) and (lock := hold(left)) is not None:
                _end_those_in(left.parent)
                shutil.rmtree(left.parent, ignore_errors=True)
                lock.close()
    outer = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place()))
    undo.callback(shutil.rmtree, outer, ignore_errors=True)
    new = outer / f"{OWNER_LOCK}.new"
    if (lock := hold(new)) is not None:
        undo.callback(lock.close)
        new.rename(new.with_name(OWNER_LOCK))  # once it is locked: otherwise another process could take it for left
    inner = outer / INNER
    inner.mkdir(mode=0o700)
    return str(inner)


def _is_own(directory: Path) -> bool:
    """Whether this user made a directory as `own_directory` does, so that nobody else can have put anything there."""
    found = directory.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077


def _why_not() -> tuple[str, str] | None:
    """Return why Ray cannot have a directory, and what to do; None if it can."""
    if (why := why_exchanged(place())) is not None:
        return f"Ray's files would not be safe: {why[0]}", f"{why[1]}, or set TMPDIR to another directory"
    if _length() > MAX_SOCKET:
        message = f"the paths of Ray's sockets would have {_length()} bytes in {place()}, {MAX_SOCKET} is the most"
        return message, "set TMPDIR to a shorter directory, such as TMPDIR=/tmp"
    return None


def _length() -> int:
    return len(os.fsencode(place())) + len(_LONGEST)


def _end_those_in(directory: Path) -> None:
    """End the processes of this user that were started with a directory in their command line."""
    own = os.fsencode(directory) + b"/"
    for process in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            if process.stat().st_uid == os.getuid() and own in (process / "cmdline").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)
