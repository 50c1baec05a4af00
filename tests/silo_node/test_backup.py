"""A silo's directory in one archive and back: what is in it, who can read it, and what no archive can do."""

import io
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import crypto.archive
from crypto.archive import CHUNK_BYTES, MAGIC, ArchiveWriter, read_archive
from crypto.errors import CryptoError
from federation.backups import BackupEntry, BackupOf, restored_from, write_backup
from federation.errors import FederationError
from silo_node.home import LEDGER, read_home
from silo_node.ledger.log import Signer
from silo_node.ledger.store import LedgerStore
from silo_node.owner import backup_commands
from silo_node.owner.cli import main
from silo_node.owner.silo_status import silo_status, worded
from silo_node.training.keeping import kept, read_state
from tests.harness.archives import WORDS, words_in
from tests.harness.owner_home import OwnerHome, charge, charged, founded_with_people
from tests.harness.states import state_of_run


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stretch passphrases for a moment only."""
    monkeypatch.setattr(crypto.archive, "SCRYPT_N", 2**4)


@pytest.fixture
def silo(founded: Path, tmp_path: Path) -> OwnerHome:
    home = founded_with_people(founded, tmp_path)
    with closing(opening(home.policy)) as store:
        store.start(bytes(32), 1)
        assert store.reserve(charge(1, 500), 10**6)
        charged(store, charge(1, 500).nonce, bytes(16))
    return home


@pytest.fixture
def words(tmp_path: Path) -> Path:
    return words_in(tmp_path)


def opening(policy: Path) -> LedgerStore:
    silo = read_home(policy).silo
    return LedgerStore(policy.parent / LEDGER, Signer(silo.name, silo.federation, silo.signing, silo.sealing))


def taken(silo: OwnerHome, words: Path, name: str = "aspen.backup") -> Path:
    archive = words.parent / name
    assert main(["backup", "--policy", str(silo.policy), "--out", str(archive), "--passphrase-file", str(words)]) == 0
    return archive


def back(archive: Path, words: Path, name: str = "again") -> int:
    return main(["restore", str(archive), "--out", str(archive.parent / name), "--passphrase-file", str(words)])


def test_a_backup_makes_the_same_silo_that_answers_nothing_yet(
    silo: OwnerHome, words: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = taken(silo, words)
    assert archive.stat().st_mode & 0o777 == 0o600
    assert not [one for one in silo.policy.parent.iterdir() if "backup" in one.name and one.suffix != ".lock"]
    assert back(archive, words) == 0
    again = archive.parent / "again"
    for name in ("policy.toml", "silo.toml", "identity.key", "roster.signed"):
        assert (again / name).read_bytes() == (silo.policy.parent / name).read_bytes()
    assert {one.stat().st_mode & 0o077 for one in again.rglob("*") if one.is_file() and one.suffix != ".lock"} == {0}
    assert again.stat().st_mode & 0o777 == 0o700
    shutil.copy(silo.policy.parent / "lung.parquet", again)
    shutil.copy(silo.policy.parent / "consent.csv", again)
    with closing(opening(again / "policy.toml")) as store:
        assert store.is_put_back
        assert store.is_charged(charge(1, 500).nonce)
        store.audit()
    found = silo_status(again / "policy.toml", 1000.0)
    assert "put back from a backup" in found["ledger"]
    assert any("put back from a backup" in line for line in worded(found))
    assert "answers nothing until enough aggregators" in capsys.readouterr().out


def test_nothing_of_a_silo_can_be_read_off_an_archive(silo: OwnerHome, words: Path) -> None:
    archive = taken(silo, words).read_bytes()
    secret = (silo.policy.parent / "identity.key").read_text().split()[1]
    for text in (secret.encode(), bytes.fromhex(secret), b"SQLite", b"aspen", b"health-research"):
        assert text not in archive


def test_a_backup_is_taken_while_charges_are_made(silo: OwnerHome, words: Path) -> None:
    stop, made = threading.Event(), list[int]()

    def charging() -> None:
        with closing(opening(silo.policy)) as store:
            while not stop.is_set():
                number = len(made) + 10
                assert store.reserve(charge(number, 500), 10**9)
                charged(store, charge(number, 500).nonce, bytes(16))
                made.append(number)

    thread = threading.Thread(target=charging)
    thread.start()
    try:
        while len(made) < 3:
            stop.wait(0.01)
        first = len(made)
        archives = [taken(silo, words, f"{number}.backup") for number in range(3)]
    finally:
        stop.set()
        thread.join()
    assert len(made) > first
    for number, archive in enumerate(archives):
        assert back(archive, words, f"again-{number}") == 0  # it examines the whole ledger
        with closing(sqlite3.connect(archive.parent / f"again-{number}" / LEDGER)) as ledger:
            assert ledger.execute("SELECT count(*) FROM charges").fetchone()[0] >= first


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda data: data[:-1], "changed or cut off"),
        (lambda data: data[: len(MAGIC) + 16], "changed or cut off"),
        (lambda data: data[: len(data) // 2], "changed or cut off"),
        (lambda data: data[:5000] + bytes([data[5000] ^ 1]) + data[5001:], "changed or cut off"),
        (lambda data: data + b"x", "changed or cut off"),
        (lambda data: b"", "no archive"),
        (lambda data: b"PK" + data, "no archive"),
    ],
)
def test_a_spoilt_archive_makes_no_directory(
    silo: OwnerHome, words: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[bytes], bytes], message: str
) -> None:
    archive = taken(silo, words)
    archive.write_bytes(spoil(archive.read_bytes()))
    assert back(archive, words) == 1
    told = capsys.readouterr().err
    assert message in told
    assert "hint: " in told
    assert not [one for one in archive.parent.iterdir() if one.name.startswith("again")]


def test_only_the_passphrase_opens_it(silo: OwnerHome, words: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = taken(silo, words)
    words.write_text("another passphrase\n")
    assert back(archive, words) == 1
    assert "passphrase does not open" in capsys.readouterr().err
    words.write_text("short\n")
    command = ["backup", "--policy", str(silo.policy), "--out", str(archive.parent / "b"), "--passphrase-file"]
    assert main([*command, str(words)]) == 1
    assert "at least 12 characters" in capsys.readouterr().err
    words.chmod(0o644)
    for what in ((*command, str(words)), ("restore", str(archive), "--out", "x", "--passphrase-file", str(words))):
        assert main(list(what)) == 1
        assert "can be read by others (mode 0644)" in capsys.readouterr().err
    assert main([*command, str(archive.parent / "nothing")]) == 1
    assert "cannot read the passphrase" in capsys.readouterr().err
    assert main(command[:-1]) == 1
    assert "--passphrase-file" in capsys.readouterr().err, "there is no terminal to ask on"
    assert not (archive.parent / "b").exists()


def test_nothing_is_overwritten(silo: OwnerHome, words: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = taken(silo, words)
    before = archive.read_bytes()
    command = ["backup", "--policy", str(silo.policy), "--out", str(archive), "--passphrase-file", str(words)]
    assert main(command) == 1
    assert "never overwritten" in capsys.readouterr().err
    assert archive.read_bytes() == before
    (archive.parent / "again").mkdir()
    assert back(archive, words) == 0, "an empty directory is as good as none"
    assert back(archive, words) == 1, "a second time"
    assert main(["restore", str(archive), "--out", str(silo.policy.parent), "--passphrase-file", str(words)]) == 1
    assert capsys.readouterr().err.count("nothing is overwritten") == 2
    with closing(opening(silo.policy)) as store:
        assert [store.is_put_back] == [False]


def test_a_full_disk_leaves_no_part_of_an_archive(
    silo: OwnerHome, words: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "aspen.backup")

    for owner, name in ((ArchiveWriter, "finish"), (os, "fsync")):
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, full)
            command = ["backup", "--policy", str(silo.policy), "--out", str(words.parent / "full.backup")]
            assert main([*command, "--passphrase-file", str(words)]) == 1
        assert "No space left on device" in capsys.readouterr().err
        assert not list(words.parent.glob("full.backup*"))
        assert not (silo.policy.parent / "ledger.sqlite.backup").exists()
    archive = taken(silo, words)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        assert back(archive, words) == 1
    assert not list(archive.parent.glob("again*"))


def made(path: Path, *files: tuple[str, bytes], role: str = "silo") -> Path:
    """Write an archive as somebody would who has the passphrase."""
    sources = []
    for number, (name, data) in enumerate(files):
        source = path.with_name(f"source-{number}")
        source.write_bytes(data)
        sources.append((name, source))
    whose = BackupOf.model_validate({"federation": "f", "role": role, "name": "aspen", "made_at": 9})
    write_backup(path, whose, sources, lambda: WORDS)
    return path


@pytest.mark.parametrize(
    "name",
    ["../evil", "/etc/evil", "policy.accepted.domains/../../evil", "policy.accepted.domains/x.txt", "a/b", "evil", "."],
)
def test_a_name_never_leads_out_of_the_directory(words: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    archive = made(words.parent / "forged", (name, b"x"))
    assert back(archive, words) == 1
    assert "does not belong into such a directory" in capsys.readouterr().err
    assert not list(archive.parent.rglob("evil"))
    assert not list(archive.parent.glob("again*"))


def test_a_backup_of_something_else_is_refused(
    silo: OwnerHome, words: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = silo.policy.parent
    birch = home.parent / "birch"
    own = [(name, (home / name).read_bytes()) for name in ("silo.toml", "policy.toml", "roster.signed", LEDGER)]
    cases = {
        "backup of the aggregator": made(words.parent / "one", role="aggregator"),
        "has no policy.toml": made(words.parent / "two"),
        "checkpoint": made(words.parent / "three", *own, ("identity.key", (birch / "identity.key").read_bytes())),
        "belong": made(words.parent / "four", ("silo.toml", b""), ("silo.toml", b"")),
    }
    for message, archive in cases.items():
        assert back(archive, words) == 1
        assert message in capsys.readouterr().err
        assert not list(archive.parent.glob("again*"))


def test_a_file_that_is_gone_meanwhile_is_left_out(tmp_path: Path) -> None:
    place = tmp_path / "growing"
    place.write_bytes(b"12345")
    whose = BackupOf(federation="f", role="silo", name="aspen", made_at=9)
    write_backup(tmp_path / "one", whose, [("gone", tmp_path / "gone"), ("silo.toml", place)], lambda: WORDS)
    with restored_from(tmp_path / "one", tmp_path / "out", "silo", lambda name: True, lambda: WORDS) as found:
        assert (found.files, found.whose) == (1, whose)
        assert (found.place / "silo.toml").stat().st_mtime == int(place.stat().st_mtime)


@pytest.mark.parametrize("length", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES])
def test_an_archive_of_any_length_is_read_as_it_was_written(length: int) -> None:
    file, contents = io.BytesIO(), (b"0123456789abcdef" * (length // 16 + 1))[:length]
    archive = ArchiveWriter(file, lambda: WORDS)
    for start in range(0, length, 700_001):
        archive.write(contents[start : start + 700_001])
    archive.finish()
    sealed = file.getvalue()
    assert b"".join(read_archive(io.BytesIO(sealed), lambda: WORDS)) == contents
    chunk = CHUNK_BYTES + 16
    begin = len(MAGIC) + 16
    if length > CHUNK_BYTES:
        swapped = sealed[:begin] + sealed[begin + chunk :] + sealed[begin : begin + chunk]
        for wrong in (swapped, sealed[: begin + chunk], sealed + sealed[-40:]):
            with pytest.raises(CryptoError):
                list(read_archive(io.BytesIO(wrong), lambda: WORDS))


def test_a_passphrase_is_asked_for_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    from federation import backups

    typed = iter([WORDS, "something else", WORDS, WORDS])
    monkeypatch.setattr(backups, "typed", lambda prompt, hint: next(typed))
    with pytest.raises(FederationError, match="two different passphrases"):
        backups.passphrase_from(None, "it", is_new=True)()
    assert backups.passphrase_from(None, "it", is_new=True)() == WORDS


def test_an_entry_is_small() -> None:
    assert len(BackupEntry(name="x" * 250, length=2**45, modified_at=2**40).encode()) < BackupEntry.MAX_BYTES


def test_long_states_are_in_the_backup_as_the_ledger_names_them(
    silo: OwnerHome, words: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the silo learns meanwhile: the file that the copied ledger names is replaced by then."""
    whose = read_home(silo.policy).silo
    states = [state_of_run({"weights": np.full(2**18, float(number))}) for number in range(3)]

    def learn(number: int) -> None:
        with closing(opening(silo.policy)) as store:
            store.save_run(bytes(16), kept(states[number], whose.name, whose.signing))

    learn(0)
    copied, copy = list[int](), backup_commands.copy_ledger

    def learning(ledger: Path, place: Path) -> None:
        copy(ledger, place)
        if len(copied) < 2:
            copied.append(len(copied) + 1)
            learn(copied[-1])

    monkeypatch.setattr(backup_commands, "copy_ledger", learning)
    archive = taken(silo, words)
    assert copied == [1, 2]
    assert back(archive, words) == 0
    again = archive.parent / "again" / "policy.toml"
    with closing(opening(again)) as store:
        (found,) = store.runs().values()
        assert read_state(bytes(16), found, whose.name, whose.signing.public) == states[2]
    monkeypatch.setattr(backup_commands, "copy_ledger", copy)
    assert not [one for one in silo.policy.parent.iterdir() if "backup" in one.name and one.suffix != ".lock"]
    for file in (silo.policy.parent / "ledger.states").iterdir():
        file.unlink()
    assert main(["backup", "--policy", str(silo.policy), "--out", "x", "--passphrase-file", str(words)]) == 1
