"""What another user planted where somebody writes: a link, a name of a file to come, a file of its own."""

import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from analyst.cli.main import main
from federation.authority import found_federation, opened, push
from federation.files import check_out, partial_of, replace_file, write_out
from federation.joining import join
from federation.members.credentials import hold
from federation.operations import ray_directory
from tests.harness.provisioning import NOW, invited, toml

KEY = "consilo-key/1\nthe only one\n"
OTHER = 4_000_000  # a user of the machine that is not this one


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file that whoever plants cannot write, and makes another write over."""
    found = tmp_path / "victim.key"
    found.write_text(KEY)
    return found


@pytest.fixture
def share(tmp_path: Path) -> Path:
    """A directory that others write in."""
    (tmp_path / "share").mkdir()
    return tmp_path / "share"


def test_a_lock_that_another_user_planted_is_no_lock_of_a_killed_process(
    victim: Path, open_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hope: the next start of a silo takes the directory for its own, and empties what its lock is a link to."""
    monkeypatch.setattr("tempfile.tempdir", str(open_place))
    for number, mode in enumerate((0o755, 0o700, 0o777)):
        planted = open_place / f"consilo-planted{number}"
        planted.mkdir()
        planted.chmod(mode)
        (planted / "owner.lock").symlink_to(victim)
    other = open_place / "consilo-of-another"
    other.mkdir()
    other.chmod(0o755)  # others can put a lock of this user there, by a hard link
    os.link(victim, other / "owner.lock")
    with ExitStack() as undo:
        ray_directory.own_directory(undo)
        assert victim.read_text() == KEY
        assert len(list(open_place.iterdir())) == 5, "what is not its own it does not remove"


def test_a_lock_is_taken_through_no_link_and_empties_nothing(victim: Path, share: Path) -> None:
    (share / "serve.lock").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        hold(share / "serve.lock")
    os.link(victim, share / "silo.lock")
    lock = hold(share / "silo.lock")
    assert lock is not None
    lock.close()
    assert victim.read_text() == KEY


def test_a_planted_name_of_a_file_to_come_is_not_written_through(victim: Path, share: Path) -> None:
    """Hope: the name under which a file is begun can be guessed, as numbers of processes can."""
    partial_of(share / "membership.log").symlink_to(victim)
    replace_file(share / "membership.log", b"new")
    assert (victim.read_text(), (share / "membership.log").read_bytes()) == (KEY, b"new")
    assert not (share / "membership.log").is_symlink()


def test_a_link_in_the_place_of_a_posted_file_is_not_written_through(
    victim: Path, share: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hope: a member of the share makes the authority write an invitation over its own key."""
    found_federation(tmp_path / "authority", "consortium", None, NOW)
    for name in ("aspen.invitation", "membership.log"):
        (share / name).symlink_to(victim)
    federation = ("--federation", str(toml(tmp_path)))
    assert main(["federation", "invite", "aspen", "--role", "silo", "--post", str(share), *federation]) == 0
    assert victim.read_text() == KEY
    assert "INVITATION" in (share / "aspen.invitation").read_text()
    (share / "membership.log").unlink()
    (share / "membership.log").symlink_to(tmp_path / "not-there")
    with opened(toml(tmp_path)) as authority:
        push(authority, share)
    assert not (tmp_path / "not-there").exists()


def test_who_joins_in_a_directory_of_others_writes_through_no_link(victim: Path, share: Path, tmp_path: Path) -> None:
    found_federation(tmp_path / "authority", "consortium", None, NOW)
    names = ("authority.pem", "member.toml", "silo.toml", "aspen.request")
    for name in names:
        (share / name).symlink_to(victim)
    join(invited(tmp_path), share, "", NOW)
    assert victim.read_text() == KEY
    assert not any((share / name).is_symlink() for name in names)


def test_an_answer_is_written_through_no_link_and_is_its_users_only(victim: Path, share: Path) -> None:
    out = share / "answer.csv"
    out.symlink_to(victim)
    for write in (check_out, lambda path: write_out(path, b"secret")):
        with pytest.raises(OSError, match="is a link"):
            write(out)
    assert victim.read_text() == KEY
    out.unlink()
    out.touch()
    out.chmod(0o666)
    before = out.open("rb")  # as somebody who can open the file now reads what is written later
    write_out(out, b"secret")
    assert (out.read_bytes(), out.stat().st_mode & 0o777, before.read()) == (b"secret", 0o600, b"")
    before.close()
    write_out(Path("/dev/null"), b"secret")
    assert not Path("/dev/null").is_file()


def test_an_answer_goes_into_no_file_or_pipe_of_another_user(share: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, pipe = share / "answer.csv", share / "answer.pipe"
    file.touch()
    os.mkfifo(pipe)
    if os.geteuid():
        monkeypatch.setattr(os, "geteuid", lambda: OTHER)
    else:
        os.chown(file, OTHER, -1)
        os.chown(pipe, OTHER, -1)
    for out in (file, pipe):
        with pytest.raises(OSError, match="belongs to another user"):
            check_out(out)
        with pytest.raises(OSError, match="belongs to another user"):
            write_out(out, b"secret")
