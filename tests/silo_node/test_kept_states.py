"""The states of runs in a ledger: the same to the last bit when read back, and refused where anything is not theirs."""

import errno
import json
import os
from collections.abc import Callable
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crypto.errors import ProtocolError
from crypto.keys import Secret, SigningKey
from crypto.wire import MAX_ENVELOPE_OVERHEAD
from policies.budget.ledger import KeptState
from policies.errors import LedgerError, LedgerFullError
from silo_node.data.worker import read_states, write_states
from silo_node.errors import SiloError
from silo_node.ledger.retention import Due
from silo_node.ledger.state_files import INLINE_BYTES, StateFiles, folder_of
from silo_node.ledger.store import LedgerStore
from silo_node.training.keeping import kept, packed, read_state, unpacked
from silo_node.training.raw_numbers import Numbers
from silo_node.training.run import RunState
from tests.harness.inside import database_of
from tests.harness.states import state_of_run
from tests.silo_node.test_ledger_store import SIGNER, opened

RUN, OTHER = bytes(16), b"\7" * 16
VALUES = np.array([0.1, -0.0, 5e-324, 1.7976931348623157e308, -1 / 3])
LONG = np.linspace(-1, 1, INLINE_BYTES // 8 + 1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


def keep(store: LedgerStore, state: RunState) -> KeptState:
    found = kept(state, SIGNER.silo, SIGNER.key)
    store.save_run(state.run, found)
    return found


def found(store: LedgerStore, run: bytes = RUN) -> RunState:
    kept_state = store.load_run(run)
    assert kept_state is not None
    return read_state(run, kept_state, SIGNER.silo, SIGNER.key.public)


def files(path: Path) -> list[Path]:
    return sorted(folder_of(path).iterdir()) if folder_of(path).exists() else []


@pytest.mark.parametrize("values", [VALUES, np.zeros(0), LONG, LONG.astype(np.float32), np.arange(300_000)])
def test_what_is_kept_is_read_back_to_the_last_bit(path: Path, values: Any) -> None:
    with closing(opened(path)) as store:
        state = state_of_run({"weights": values, "loss": [1.5]})
        before = keep(store, state)
    with closing(opened(path)) as store:
        after = found(store)
        assert after == state
        assert after.numbers[0].values.dtype == values.dtype
        assert after.numbers[0].values.tobytes() == values.tobytes()
        assert store.load_run(RUN) == before
        store.audit()
    assert bool(files(path)) == (len(before.numbers) > INLINE_BYTES)
    assert len(before.header) < 1000, "the header has no number of a vector"
    assert {one.stat().st_mode & 0o777 for one in files(path)} <= {0o600}
    assert not folder_of(path).exists() or folder_of(path).stat().st_mode & 0o777 == 0o700


def test_a_worker_gets_what_the_ledger_keeps() -> None:
    states = [state_of_run({"weights": VALUES}), state_of_run({"a": [1.0], "b": np.arange(4)}, OTHER)]
    read, rest = read_states(write_states(states) + b"the request")
    assert (read, rest) == ({RUN: states[0], OTHER: states[1]}, b"the request")
    with pytest.raises(ProtocolError):
        unpacked(packed(states[0])[:-1])


def forged(state: RunState) -> KeptState:
    return kept(state, SIGNER.silo, SigningKey(Secret(bytes(32))))


GOOD = state_of_run({"weights": VALUES, "loss": [2.0]})
DAMAGED: dict[str, Callable[[KeptState], KeptState]] = {
    "a flipped bit": lambda one: KeptState(one.header, bytes([one.numbers[0] ^ 1]) + one.numbers[1:]),
    "cut off": lambda one: KeptState(one.header, one.numbers[:-8]),
    "a number more": lambda one: KeptState(one.header, one.numbers + bytes(8)),
    "gone": lambda one: KeptState(one.header),
    "vectors in another order": lambda one: KeptState(one.header, one.numbers[-8:] + one.numbers[:-8]),
    "numbers of another state": lambda one: KeptState(one.header, state_of_run({"a": np.arange(6.0)}).raw),
    "an altered header": lambda one: KeptState(one.header.replace(b"lending", b"lendinG"), one.numbers),
    "a header that is cut off": lambda one: KeptState(one.header[:-1], one.numbers),
    "another silo's": lambda one: kept(GOOD, "south", SIGNER.key),
    "signed with another key": lambda one: forged(GOOD),
    "another run's": lambda one: kept(GOOD.model_copy(update={"run": OTHER}), SIGNER.silo, SIGNER.key),
    "no state": lambda one: KeptState(b"a model of old"),
    "a list": lambda one: KeptState(b"[]"),
}


@pytest.mark.parametrize("how", DAMAGED)
def test_what_is_not_the_silo_s_own_whole_state_is_refused(how: str) -> None:
    good = kept(GOOD, SIGNER.silo, SIGNER.key)
    assert read_state(RUN, good, SIGNER.silo, SIGNER.key.public) == GOOD
    with pytest.raises(SiloError, match=RUN.hex()) as refused:
        read_state(RUN, DAMAGED[how](good), SIGNER.silo, SIGNER.key.public)
    assert "consilo-silo restore" in refused.value.hint


def test_a_long_state_that_was_altered_or_removed_is_refused(path: Path) -> None:
    with closing(opened(path)) as store:
        keep(store, state_of_run({"weights": LONG}))
        (file,) = files(path)
        whole = file.read_bytes()
        for damaged in (whole[:-1], bytes([whole[0] ^ 128]) + whole[1:], b""):
            file.write_bytes(damaged)
            with pytest.raises(SiloError, match=f"run {RUN.hex()}"):
                found(store)
        file.unlink()
        with pytest.raises(SiloError, match="0 bytes of numbers"):
            found(store)


def test_the_log_knows_the_header_and_so_the_numbers(path: Path) -> None:
    with closing(opened(path)) as store:
        keep(store, GOOD)
        another = kept(state_of_run({"weights": VALUES + 1}), SIGNER.silo, SIGNER.key)
        database_of(store).execute("UPDATE runs SET state = ?, numbers = ?", (another.header, another.numbers))
        with pytest.raises(LedgerError, match="models of runs"):
            store.audit()


def test_a_file_goes_with_its_state(path: Path) -> None:
    with closing(opened(path)) as store:
        for number in range(3):
            keep(store, state_of_run({"weights": LONG + number}))
            keep(store, state_of_run({"weights": LONG - number}, OTHER))
            assert len(files(path)) == 2, "an earlier state is not kept"
        keep(store, state_of_run({"weights": VALUES}, OTHER))
        assert len(files(path)) == 1, "a short one stands in the row"
        store.erase(Due(models=2**40))
        assert (store.runs(), files(path)) == ({}, [])


@pytest.mark.parametrize("when", ["before its name", "before its row"])
def test_a_death_leaves_the_state_before_and_what_is_left_is_swept(
    path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    class DiedError(BaseException):
        pass

    def stay(*_: object, **__: object) -> None:
        """A killed process removes nothing, neither what it wrote nor what it replaced."""

    def die(*_: object) -> None:
        monkeypatch.setattr(Path, "unlink", stay)
        raise DiedError

    state = state_of_run({"weights": LONG})
    with closing(opened(path)) as store:
        keep(store, state)
        if when == "before its row":
            monkeypatch.setattr("silo_node.ledger.state_files.sync_directory", die)
        else:
            monkeypatch.setattr(Path, "replace", die)
        with pytest.raises(DiedError):
            keep(store, state_of_run({"weights": LONG + 1}))
        monkeypatch.undo()
    with closing(opened(path)) as store:
        assert found(store) == state
        assert len(files(path)) == 2
        store.start(bytes(32), 1)
        assert len(files(path)) == 1
        assert found(store) == state


def test_a_full_disk_leaves_the_state_before(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    state = state_of_run({"weights": LONG})
    with closing(opened(path)) as store:
        keep(store, state)
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(LedgerFullError, match="no room"):
            keep(store, state_of_run({"weights": LONG + 1}))
        monkeypatch.undo()
        assert found(store) == state
        assert len(files(path)) == 1
        store.audit()


def test_who_reads_while_a_state_is_replaced_reads_the_old_one_or_the_new_one(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(opened(path)) as store, closing(opened(path)) as reader:
        keep(store, state_of_run({"weights": LONG}))
        after, times, read = state_of_run({"weights": LONG + 1}), [0], StateFiles.read

        def late(self: StateFiles, name: str) -> bytes | None:
            times[0] += 1
            if times[0] == 1:
                keep(store, after)
            return read(self, name)

        monkeypatch.setattr(StateFiles, "read", late)
        assert found(reader) == after
        assert times == [2]


def of_format_7(state: RunState) -> bytes:
    """Return a state as ledgers kept it before numbers stood beside it."""
    fields = json.loads(state.encode())
    vectors = {one.name: one.values.tolist() for one in state.numbers}
    del fields["numbers"]
    if state.exact is None:
        fields |= vectors
    else:
        fields |= {"weights": [], "velocity": []}
        numbers = [{"name": name, "values": values} for name, values in vectors.items()]
        fields["exact"] = {"family": fields["exact"]["family"], "numbers": numbers, **fields["exact"]}
    return json.dumps(fields, separators=(",", ":")).encode()


@pytest.mark.parametrize("kind", ["a family", "a descent", "a split"])
def test_a_state_of_an_older_ledger_is_read(path: Path, kind: str) -> None:
    state = {
        "a family": state_of_run({"loss": [12.5], "weights": VALUES}),
        "a descent": state_of_run(
            {"velocity": [0.0, 0.1], "weights": [0.5, -1.25]}, exact=None, ended_early="diverged"
        ),
        "a split": state_of_run({"velocity": [], "weights": []}, exact=None, split=bytes(range(64))),
    }[kind]
    with closing(opened(path)) as store:
        store.save_run(RUN, KeptState(of_format_7(state)))
        database_of(store).execute("ALTER TABLE runs DROP COLUMN numbers")
        database_of(store).execute("PRAGMA user_version = 7")
    with closing(opened(path)) as store:
        assert found(store) == state
        keep(store, state.model_copy(update={"done": 2}))
        assert found(store).done == 2
        store.audit()


def test_no_state_has_more_numbers_than_can_be_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in (np.nan, np.inf):
        with pytest.raises(ProtocolError, match="not finite"):
            Numbers.of("weights", [0.0, value])
    state = state_of_run({"weights": VALUES})
    monkeypatch.setattr("silo_node.training.raw_numbers.MAX_STATE_VALUES", 4)
    with pytest.raises(ProtocolError, match="at most 4"):
        Numbers.of("weights", VALUES)
    monkeypatch.setattr("silo_node.training.raw_numbers.MAX_STATE_BYTES", 32)
    with pytest.raises(ProtocolError, match="at most 32"):
        kept(state, SIGNER.silo, SIGNER.key)


def test_a_header_is_small_whatever_the_length() -> None:
    state = state_of_run({"weights": np.zeros(10**6)})
    assert len(packed(state)) - 8 * 10**6 < 1000 + MAX_ENVELOPE_OVERHEAD
    assert sha256(state.raw).digest() == sha256(bytes(8 * 10**6)).digest()
