"""Make a directory with its files, or leave the disk as it was."""

import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from federation.errors import FederationError


@contextmanager
def made_or_undone(path: Path, mode: int = 0o777) -> Iterator[None]:
    """Make a directory if there is none; if the block raises, remove the directory, or the new files in it.

    One process at a time, so that files of another process are never removed. Raises FederationError if the path is a
    file or another process is in such a block, otherwise OSError.
    """
    if path.exists() and not path.is_dir():
        raise FederationError(f"{path} is not a directory", "name another place")
    absent = [one for one in (path, *path.parents) if not one.exists()]
    try:
        path.mkdir(mode=mode, parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        _remove_empty(absent)
        raise
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            raise FederationError(f"another command is working in {path}", "try again") from err
        before = set(os.listdir(path))
        try:
            yield
        except BaseException:
            for one in (path / name for name in set(os.listdir(path)) - before):
                with suppress(OSError):
                    shutil.rmtree(one) if one.is_dir() and not one.is_symlink() else one.unlink()
            _remove_empty(absent)
            raise
    finally:
        os.close(handle)


def _remove_empty(directories: Sequence[Path]) -> None:
    for one in directories:
        with suppress(OSError):
            one.rmdir()
