"""Write files that a power loss leaves whole, in places where others may write too.

Promise: nothing is written through a link that somebody planted, nor into another user's file: what is written is a new
file, which takes the name.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def replace_file(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a file whole or not at all, durably."""
    partial = partial_of(path)
    try:
        with named(path):
            with os.fdopen(_new(partial, mode), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def _new(path: Path, mode: int) -> int:
    """Open a file that was not there; what lies under its name goes: of a killed process, or planted by somebody."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        return os.open(path, flags, mode)
    except FileExistsError:
        path.unlink()
        return os.open(path, flags, mode)


def check_out(path: Path) -> None:
    """Raise OSError for a place to which this user was told to write, and must not: a link, or what is another's."""
    try:
        found, where = path.lstat(), path.stat()
    except FileNotFoundError:
        if path.is_symlink():
            raise OSError(errno.ELOOP, "it is a link; name the file itself", str(path)) from None
        return
    if where.st_uid not in (0, os.geteuid()):
        raise OSError(errno.EPERM, "it belongs to another user", str(path))
    if stat.S_ISLNK(found.st_mode) and stat.S_ISREG(where.st_mode):
        raise OSError(errno.ELOOP, "it is a link; name the file itself", str(path))


def write_out(path: Path, data: bytes) -> None:
    """Write what a command was told to write to a file of this user's only, or to a device or pipe; raises OSError."""
    check_out(path)
    if path.exists() and not path.is_file():
        with path.open("wb") as file:
            file.write(data)
    else:
        replace_file(path, data, 0o600)


def partial_of(path: Path) -> Path:
    """Return where this process writes what becomes `path` once it is whole."""
    return path.with_name(f"{path.name}.{os.getpid()}.partial")


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Let an OSError name `path` where it names no file, as on a full disk, or the partial one of `path`."""
    try:
        yield
    except OSError as err:
        if err.filename in (None, str(partial_of(path))):
            err.filename, err.filename2 = str(path), None
        raise


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable: otherwise a power loss may bring back an earlier version of a file."""
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
