"""Make a directory and what lies in it, or leave the disk as it was."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from analyst.errors import FederationError


@contextmanager
def made(path: Path, files: Sequence[str], mode: int = 0o777) -> Iterator[None]:
    """Make a directory where there is none; if the block raises, remove those of `files` that are new, and it.

    Raises FederationError if a file is in its place, else OSError.
    """
    if path.exists() and not path.is_dir():
        raise FederationError(f"{path} is not a directory", "name another place")
    absent = [one for one in (path, *path.parents) if not one.exists()]
    new = [path / file for file in files if not os.path.lexists(path / file)]
    try:
        path.mkdir(mode=mode, parents=True, exist_ok=True)
        yield
    except BaseException:
        for file in new:
            with suppress(OSError):
                shutil.rmtree(file) if file.is_dir() else file.unlink()
        for one in absent:
            with suppress(OSError):
                one.rmdir()
        raise
