"""The files of what a silo keeps for itself: which one is in force, whatever ends the process at whatever point."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from crypto.errors import CryptoError
from crypto.keys import Secret, SigningKey
from silo_node.ledger.own_files import OwnFiles
from silo_node.training.family import Examples
from silo_node.training.own import KeptOwn, OwnState, digest_of, for_rows, kept, packed, read_kept, unpacked
from silo_node.training.raw_numbers import Numbers

RUN, OTHER = b"\1" * 16, b"\2" * 16
ROUND, AGAIN = b"\3" * 16, b"\4" * 16


@pytest.fixture
def files(tmp_path: Path) -> OwnFiles:
    return OwnFiles(tmp_path / "ledger.sqlite")


def step(files: OwnFiles, number: int, data: bytes, round_id: bytes = ROUND, *, took_part: bool = True) -> None:
    files.keep(RUN, number, round_id, data)
    files.learned(RUN, number, round_id, took_part=took_part)
    files.tidy(RUN, number + 1)


def test_what_a_round_made_is_in_force_once_the_round_is_learned(files: OwnFiles) -> None:
    assert files.load(RUN, 1) is None
    files.keep(RUN, 1, ROUND, b"one")
    assert files.load(RUN, 2) is None, "nobody knows whether the round counts"
    files.learned(RUN, 1, ROUND, took_part=True)
    assert files.load(RUN, 1) is None, "the state after it is not saved"
    assert files.load(RUN, 2) == (1, b"one")


def test_a_round_without_this_silo_leaves_the_one_before(files: OwnFiles) -> None:
    step(files, 1, b"one")
    step(files, 2, b"two", took_part=False)
    assert files.load(RUN, 3) == (1, b"one")


def test_another_round_of_a_step_counts_in_the_place_of_one_that_failed(files: OwnFiles, tmp_path: Path) -> None:
    step(files, 1, b"one")
    files.keep(RUN, 2, ROUND, b"failed")
    step(files, 2, b"two", AGAIN)
    assert files.load(RUN, 3) == (2, b"two")
    assert [one.name for one in (tmp_path / "ledger.own").iterdir()] == [f"{RUN.hex()}-000002-{AGAIN.hex()}.own"]


def test_what_was_made_and_is_gone_is_lost(files: OwnFiles) -> None:
    files.learned(RUN, 2, ROUND, took_part=True)
    assert files.load(RUN, 3) == (2, b"")


def test_a_report_that_was_missed_may_have_counted_the_silo(files: OwnFiles) -> None:
    step(files, 1, b"one")
    files.missed(RUN, 2, 6)
    assert files.load(RUN, 6) == (1, b"one"), "it contributed to none of these steps"
    files.keep(RUN, 6, ROUND, b"six")
    files.missed(RUN, 6, 9)
    assert files.load(RUN, 9) == (6, b"")


def test_what_is_dropped_does_not_come_back(files: OwnFiles) -> None:
    step(files, 1, b"one")
    files.keep(RUN, 2, ROUND, b"pending")
    files.drop(RUN, 2)
    assert files.load(RUN, 2) == (1, b"")
    files.learned(RUN, 2, ROUND, took_part=True)
    assert files.load(RUN, 3) == (2, b"")
    files.keep_only({OTHER})
    assert files.load(RUN, 3) is None


def test_a_process_may_end_at_any_point(tmp_path: Path) -> None:
    """After each change of the folder: before the state is saved the old one is in force, and after it the new one."""
    changes: list[Callable[[OwnFiles], None]] = [
        lambda files: files.keep(RUN, 2, ROUND, b"two"),
        lambda files: files.learned(RUN, 2, ROUND, took_part=True),
        lambda files: files.tidy(RUN, 3),
    ]
    for done in range(len(changes) + 1):
        folder = tmp_path / str(done)
        folder.mkdir()
        files = OwnFiles(folder / "ledger.sqlite")
        step(files, 1, b"one")
        for change in changes[:done]:
            change(files)
        again = OwnFiles(folder / "ledger.sqlite")
        if done < 3:  # the state is saved before what is over is removed
            assert again.load(RUN, 2) == (1, b"one")
        for change in changes[1:]:  # the report comes again
            if done >= 1:
                change(again)
        assert again.load(RUN, 3) == ((2, b"two") if done >= 1 else (1, b"one"))


def test_a_file_that_is_half_written_is_no_file(files: OwnFiles, tmp_path: Path) -> None:
    step(files, 1, b"one")
    (tmp_path / "ledger.own" / f"{RUN.hex()}-000002-{ROUND.hex()}.own.7.partial").write_bytes(b"tw")
    assert files.load(RUN, 3) == (1, b"one")
    assert (tmp_path / "ledger.own").stat().st_mode & 0o777 == 0o700
    assert {one.stat().st_mode & 0o777 for one in (tmp_path / "ledger.own").glob("*.own")} == {0o600}


def state_of(rows: bytes = b"\5" * 32) -> KeptOwn:
    from hashlib import sha256

    request = b"a request"
    numbers = (Numbers.of("control", np.array([1.5, -2.0])), Numbers.of("layers", np.array([0.25])))
    digest = sha256(request).digest()
    return KeptOwn(OwnState(run=RUN, step=3, round=ROUND, rows=rows, request=digest, numbers=numbers), request)


def test_what_is_kept_is_read_back_to_the_last_bit_by_its_silo_alone() -> None:
    key, own = SigningKey(Secret(bytes(32))), state_of()
    data = kept(own, "east", key)
    for found in (read_kept(data, "east", key.public), unpacked(packed(own))):
        assert found == own
        assert {name: vector.tolist() for name, vector in found.own.vectors.items()} == {
            "control": [1.5, -2.0],
            "layers": [0.25],
        }
    with pytest.raises(CryptoError):
        read_kept(data, "east", SigningKey(Secret(bytes([1] * 32))).public)
    for place in range(0, len(data), 7):
        altered = bytearray(data)
        altered[place] ^= 1
        with pytest.raises(CryptoError):
            read_kept(bytes(altered), "east", key.public)


def test_nothing_that_was_made_from_other_rows_is_used() -> None:
    assert for_rows(None, b"\5" * 32).step == -1
    assert for_rows(state_of(), b"\5" * 32).vectors.keys() == {"control", "layers"}
    other = for_rows(state_of(), b"\6" * 32)
    assert other.is_lost
    assert not other.vectors


def test_every_change_of_rows_changes_their_digest() -> None:
    person, cells = np.arange(4), {"a": np.array([1, 2, 3, 4]), "b": np.array([5, 6, 7, 8])}
    gone, pictures = {"a": np.array([True, False, False, False])}, {"p": np.zeros((4, 2), np.uint8)}

    def changed(array: np.ndarray) -> np.ndarray:
        found = array.copy()
        found.flat[-1] = not found.flat[-1] if found.dtype == bool else found.flat[-1] + 1
        return found

    found = [
        Examples(person, cells, gone, arrays=pictures),
        Examples(changed(person), cells, gone, arrays=pictures),
        *(Examples(person, cells | {name: changed(cells[name])}, gone, arrays=pictures) for name in cells),
        Examples(person, cells, {"a": changed(gone["a"])}, arrays=pictures),
        Examples(person, cells, gone, arrays={"p": changed(pictures["p"])}),
        Examples(person[:3], {name: one[:3] for name, one in cells.items()}, {}, arrays={}),
    ]
    digests = [digest_of(one) for one in found]
    assert all(one != other for one, other in pairwise(sorted(digests)))
    assert digest_of(Examples(person.copy(), dict(reversed(cells.items())), gone, arrays=pictures)) == digests[0]
