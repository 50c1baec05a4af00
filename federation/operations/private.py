"""What this software writes on a machine that others use too: closed to them, and in places that they cannot exchange.

Promises: a process that called `close_to_others` makes no file that another user can read. A path that `why_open`
finds nothing against lies in a directory that only this user can enter, and nobody else can put another directory in
the place of one on the way to it. Assumes: root, and whoever acts as this user, is trusted.
"""

import grp
import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MAX_LINKS = 40


def close_to_others() -> None:
    """Make every file of this process, and of those that it starts, its user's only."""
    os.umask(0o077)


@contextmanager
def closed_to_others() -> Iterator[None]:
    """Make the files of this block, and of the processes that it starts, their user's only."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def why_open(path: Path) -> tuple[str, str] | None:
    """Return why others can read or exchange what lies in a directory, and what to do; None if they cannot."""
    try:
        for one, found in (passed := list(_passed(path))):
            if _is_closed(found):
                return None
            if (why := _why_exchanged(one, found)) is not None and (found is not passed[-1][1] or not _is_ours(found)):
                return why
    except OSError as err:
        return f"{err.filename or path} cannot be read ({err.strerror})", "name a directory of your own"
    return f"other users of this machine can enter {path}", f"chmod 700 {path}"


def why_code_is_anywhere() -> tuple[str, str] | None:
    """Return why Python runs what lies in the current directory, and what to do; None if it does not."""
    path = os.environ.get("PYTHONPATH", "")
    if not path or all(map(os.path.isabs, path.split(os.pathsep))):
        return None
    remedy = "unset it, or let it name whole paths only, with no colon at an end"
    return f"PYTHONPATH={path!r} makes code of whatever lies in the current directory", remedy


def why_exchanged(path: Path) -> tuple[str, str] | None:
    """Return why others can put another directory in the place of this one, and what to do; None if they cannot."""
    try:
        whys = (None if _is_closed(found) else _why_exchanged(one, found) for one, found in _passed(path))
        return next((why for why in whys if why is not None), None)
    except OSError as err:
        return f"{err.filename or path} cannot be read ({err.strerror})", "name a directory of your own"


def _passed(path: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield every directory on the way to a path, from the root on, also those where a link on the way lies."""
    here, left, links = Path("/"), list(reversed(path.absolute().parts[1:])), 0
    yield here, here.lstat()
    while left:
        part = left.pop()
        if part == "..":
            here = here.parent
            continue
        found = (here / part).lstat()
        if not stat.S_ISLNK(found.st_mode):
            here /= part
            yield here, found
            continue
        if (links := links + 1) > MAX_LINKS:
            raise OSError(0, "too many links", str(path))
        target = (here / part).readlink()
        if target.is_absolute():
            here = Path("/")
        left.extend(reversed([one for one in target.parts if one != "/"]))


def _is_closed(found: os.stat_result) -> bool:
    """Whether only this user, and root, can enter a directory."""
    others = 0o007 if _is_own_group(found.st_gid) else 0o077
    return _is_ours(found) and not found.st_mode & others


def _why_exchanged(path: Path, found: os.stat_result) -> tuple[str, str] | None:
    if not _is_ours(found):
        return f"{path} belongs to the user {_named(found.st_uid)}", "name a directory of your own"
    others = 0o002 if _is_own_group(found.st_gid) else 0o022
    if found.st_mode & others and not found.st_mode & stat.S_ISVTX:
        return f"others can write in {path} (mode {stat.S_IMODE(found.st_mode):04o})", f"chmod go-w {path}"
    return None


def _is_ours(found: os.stat_result) -> bool:
    return found.st_uid in (0, os.geteuid())


def _is_own_group(gid: int) -> bool:
    """Whether a group is this user's own, with nobody else in it, as containers and many systems have them."""
    if gid != os.getegid():
        return False
    try:
        own = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        own = ""
    try:
        members = grp.getgrgid(gid).gr_mem
    except KeyError:
        members = []
    return {own} >= set(members) and all(one.pw_uid == os.geteuid() for one in pwd.getpwall() if one.pw_gid == gid)


def _named(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
