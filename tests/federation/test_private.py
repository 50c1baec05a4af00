"""What other users of the machine could read or exchange is refused: directories, links on the way to them, Ray's."""

import os
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

import pytest

from federation.config import read_config
from federation.errors import FederationError
from federation.local import started
from federation.operations import ray_directory
from federation.operations.checks import code
from federation.operations.private import close_to_others, why_exchanged, why_open


def directory(path: Path, mode: int) -> Path:
    path.mkdir()
    path.chmod(mode)
    return path


def test_only_a_directory_that_others_cannot_enter_is_closed(open_place: Path) -> None:
    closed = directory(open_place / "closed", 0o700)
    assert why_open(closed) is None
    assert why_open(directory(closed / "open-inside", 0o777)) is None, "nobody else comes as far"
    for mode in (0o755, 0o711, 0o701, 0o710):
        closed.chmod(mode)
        found = why_open(closed)
        if mode == 0o710 and found is None:
            continue  # the group is this user's own
        assert found == (f"other users of this machine can enter {closed}", f"chmod 700 {closed}")
    closed.chmod(0o700)
    assert why_open(closed) is None, "the remedy works"


def test_a_parent_in_which_others_may_rename_is_no_place_for_secrets(open_place: Path) -> None:
    home = directory(directory(open_place / "shared", 0o777) / "home", 0o700)
    said = (f"others can write in {home.parent} (mode 0777)", f"chmod go-w {home.parent}")
    assert (why_open(home), why_exchanged(home)) == (said, said)
    home.parent.chmod(0o1777)
    assert (why_open(home), why_exchanged(home)) == (None, None), "in a sticky one only owners rename"


def test_a_link_is_as_safe_as_the_place_where_it_lies(open_place: Path) -> None:
    home, shared = directory(open_place / "home", 0o700), directory(open_place / "shared", 0o777)
    for number, target in enumerate((str(home), "../home", "../shared/../home")):
        (shared / str(number)).symlink_to(target)
        assert why_open(shared / str(number)) == (f"others can write in {shared} (mode 0777)", f"chmod go-w {shared}")
        (open_place / str(number)).symlink_to(Path(target).name if number else target)
        assert why_open(open_place / str(number)) is None
    (open_place / "round").symlink_to("round")
    found = why_open(open_place / "round")
    assert found is not None
    assert "too many links" in found[0]


def test_what_belongs_to_another_user_is_not_trusted(open_place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = directory(open_place / "home", 0o700)
    if os.geteuid():
        monkeypatch.setattr(os, "geteuid", lambda: 4_000_000)
    else:
        os.chown(home, 4_000_000, -1)
    for found in (why_open(home), why_exchanged(home)):
        assert found is not None
        assert " belongs to the user " in found[0]


def test_a_group_of_others_is_others(open_place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = directory(open_place / "home", 0o770)
    monkeypatch.setattr(os, "getegid", lambda: 4_000_000)
    assert why_open(home) == (f"other users of this machine can enter {home}", f"chmod 700 {home}")
    home.chmod(0o700)
    open_place.chmod(0o775)
    assert why_open(home) == (f"others can write in {open_place} (mode 0775)", f"chmod go-w {open_place}")


@pytest.mark.parametrize("path", [":/opt/lib", "/opt/lib:", "/opt::/lib", "lib", "/opt:.", ":"])
def test_an_environment_that_makes_code_of_the_current_directory_is_refused(
    home: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """As PYTHONPATH=$PYTHONPATH:/opt/lib does where there was none: Python imports from there, and asks nobody."""
    monkeypatch.setenv("PYTHONPATH", path)
    said = "makes code of whatever lies in the current directory"
    with pytest.raises(FederationError, match=said), started(read_config(home / "consilo.toml")):
        pass
    assert code().state == "FAIL"
    for good in ("", "/opt/lib", "/opt:/lib"):
        monkeypatch.setenv("PYTHONPATH", good)
        assert code().state == "ok"


def test_a_path_that_is_not_there_is_said(open_place: Path) -> None:
    found = why_open(open_place / "none")
    assert found is not None
    assert found[0] == f"{open_place / 'none'} cannot be read (No such file or directory)"


def test_what_a_process_writes_is_its_users_only(open_place: Path) -> None:
    before = os.umask(0o022)
    try:
        close_to_others()
        (open_place / "file").write_text("rows")
        (open_place / "directory").mkdir()
        assert [(open_place / one).stat().st_mode & 0o777 for one in ("file", "directory")] == [0o600, 0o700]
    finally:
        os.umask(before)


def test_ray_gets_no_directory_that_others_could_exchange(open_place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(directory(open_place / "tmp", 0o777)))
    with ExitStack() as undo, pytest.raises(FederationError, match="Ray's files would not be safe: others can write"):
        ray_directory.own_directory(undo)
    assert [one.state for one in ray_directory.findings(1)] == ["ok", "FAIL"]
    (open_place / "tmp").chmod(0o700)
    assert [one.state for one in ray_directory.findings(1)] == ["ok", "ok"], "the remedy works"


def test_a_directory_too_long_for_sockets_is_named_with_its_remedy(
    open_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(open_place))
    (*_, found) = ray_directory.findings(1)
    (length,) = [int(word) for word in found.found.split() if word.isdigit()]
    with ExitStack() as undo:
        assert len(f"{ray_directory.own_directory(undo)}{socket_of_ray()}") == length
    most = len(str(open_place)) + ray_directory.MAX_SOCKET - length
    for bytes_of_path, is_right in ((most, True), (most + 1, False)):
        path = open_place / ("x" * (bytes_of_path - len(str(open_place)) - 1))
        path.mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(path))
        with ExitStack() as undo:
            if is_right:
                ray_directory.own_directory(undo)
                continue
            with pytest.raises(FederationError, match=r"sockets would have 108 bytes in .*, 107 is the most") as caught:
                ray_directory.own_directory(undo)
            assert caught.value.hint == "set TMPDIR to a shorter directory, such as TMPDIR=/tmp"


def socket_of_ray() -> str:
    """Return the longest end of a socket's path, as Ray writes it."""
    session = datetime(2026, 11, 30, 23, 59, 59, 999999).strftime("session_%Y-%m-%d_%H-%M-%S_%f")
    return f"/{session}_4194304/sockets/plasma_store"
