"""The persons that the silo must forget: no answer and no later store has them.

    persons.key       the key of the codes of persons, beside the policy
    forgotten.json    keyed codes of who is forgotten: of the id as the policy's `id_form` compares it, and in its
                      loosest form

Both lie outside the store, which can be removed and made again. The list only grows, and the silo's log names its first
rows: without them nobody is answered about.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from crypto.randomness import token
from federation.files import replace_file
from federation.members.credentials import hold
from policies.document.policy import Policy
from silo_node.data.coded import Bools
from silo_node.data.prepared.codes import CODE_BYTES, KEY_BYTES, Codes, codes_of
from silo_node.data.spellings import loosest_of
from silo_node.errors import SourceError
from silo_node.ledger.events import KeptInForce

KEY, LIST = "persons.key", "forgotten.json"
Keeps = Callable[[], Mapping[str, KeptInForce]]  # what the log says is in force, by name
LOCK_S = 10.0


@dataclass(frozen=True, slots=True)
class Forgotten:
    """One forgotten person."""

    code: bytes
    alike: bytes
    form: str  # the `id_form` that the code was made by
    key: str  # a digest of the key that the codes were made under


class Persons:
    """The persons of one silo as codes under its key, and who of them is forgotten."""

    def __init__(self, policy: Policy, home: Path, kept: Keeps) -> None:
        """Read the key, or make it where it is missing and nobody is forgotten; raises SourceError.

        `kept` returns what the log says is in force.
        """
        self._list, self._kept, key = home / LIST, kept, home / KEY
        try:
            if not key.exists():
                if self._list.exists() or LIST in kept():
                    raise SourceError(f"{KEY} is missing, and {LIST} is made with it", "put it back from a backup")
                replace_file(key, token(KEY_BYTES), 0o600)
            self.key = key.read_bytes()
        except OSError as err:
            reason = err.strerror or type(err).__name__
            raise SourceError(f"{KEY} cannot be read or written ({reason})", "mend its rights, or free space") from err
        if len(self.key) != KEY_BYTES:
            raise SourceError(f"{KEY} has {len(self.key)} bytes, expected {KEY_BYTES}", "put it back from a backup")
        self._form, self._name = repr(policy.privacy_unit.id_form), sha256(self.key).hexdigest()

    def codes_of(self, persons: Iterable[str]) -> Codes:
        """Return the codes of persons, as `cells.person_of` writes their ids."""
        return codes_of(self.key, persons)

    def alike_of(self, connection: duckdb.DuckDBPyConnection, persons: pa.Array, codes: Codes) -> Codes:
        """Return the codes of the loosest forms of ids; most ids are in that form already. Raises duckdb.Error."""
        loosest = pa.array(loosest_of(connection, persons), pa.string())
        differs = np.flatnonzero(np.asarray(pc.not_equal(persons, loosest)))
        alike = codes.copy()
        alike[differs] = self.codes_of(loosest.take(pa.array(differs)).to_pylist())
        return alike

    def forgotten(self) -> tuple[Forgotten, ...]:
        """Return who is forgotten.

        Raises SourceError if the list cannot be read, is of another key, or is older than the log says, as then nobody
        may be answered about.
        """
        found, named = self._listed(), self._kept().get(LIST)
        if named is not None and (len(found) < named.count or _digest_of(found[: named.count]) != named.digest):
            message = f"{LIST} has not the {named.count} persons whom the log says are forgotten"
            raise SourceError(message, f"put the newest {LIST} and {KEY} back")
        return found

    def in_force(self) -> KeptInForce | None:
        """Return the list for the log; None if nobody is forgotten. Raises SourceError."""
        found = self.forgotten()
        return KeptInForce(name=LIST, digest=_digest_of(found), count=len(found)) if found else None

    def _listed(self) -> tuple[Forgotten, ...]:
        try:
            found = tuple(
                Forgotten(bytes.fromhex(one["code"]), bytes.fromhex(one["alike"]), str(one["form"]), str(one["key"]))
                for one in json.loads(self._list.read_bytes())
            )
        except FileNotFoundError:
            return ()
        except (OSError, ValueError, KeyError, TypeError) as err:
            raise SourceError("the list of forgotten persons cannot be read", f"put {LIST} back from a backup") from err
        if any(len(code) != CODE_BYTES for one in found for code in (one.code, one.alike)):
            raise SourceError("the list of forgotten persons cannot be read", f"put {LIST} back from a backup")
        if any(one.key != self._name for one in found):
            hint = f"put {KEY} back from a backup, or remove {LIST} and forget these persons again"
            raise SourceError(f"the list of forgotten persons is of another key than {KEY}", hint)
        return found

    def forget(self, connection: duckdb.DuckDBPyConnection, person: str) -> bool:
        """Add a person to the list, durably; return False if it is there. Raises SourceError."""
        (code,) = self.codes_of([person])
        (alike,) = self.codes_of(loosest_of(connection, pa.array([person])))
        one = Forgotten(code.astype(">u8").tobytes(), alike.astype(">u8").tobytes(), self._form, self._name)
        try:
            with held(self._list.with_suffix(".lock"), LOCK_S):
                return self._added(one)
        except OSError as err:
            reason = err.strerror or type(err).__name__
            raise SourceError(f"nobody was forgotten: {LIST} cannot be written ({reason})", "free space") from err

    def _added(self, one: Forgotten) -> bool:
        listed = self.forgotten()
        if one in listed:
            return False
        rows = [
            {"code": each.code.hex(), "alike": each.alike.hex(), "form": each.form, "key": each.key}
            for each in (*listed, one)
        ]
        replace_file(self._list, json.dumps(rows, indent=1).encode(), 0o600)
        return True

    def out(self, codes: Codes, alike: Codes) -> Bools | None:
        """Return which persons are forgotten, None if nobody is. Raises SourceError.

        Under another `id_form` than at the time, it is everybody of the same loosest form.
        """
        listed = self.forgotten()
        if not listed:
            return None
        same = _among(codes, [one.code for one in listed if one.form == self._form])
        return same | _among(alike, [one.alike for one in listed if one.form != self._form])


@contextmanager
def held(path: Path, most_s: float) -> Iterator[None]:
    """Hold a lock while the block runs; raises SourceError if another process holds it for too long."""
    deadline = time.monotonic() + most_s
    while (file := hold(path)) is None:
        if time.monotonic() >= deadline:
            raise SourceError(f"another process has held {path.name} for {most_s:g} s", "wait for it, or end it")
        time.sleep(0.05)
    with file:
        yield


def check_forgotten(policy: Policy, home: Path, kept: Keeps) -> None:
    """Raise SourceError if it cannot be known who is forgotten."""
    if (home / LIST).exists() or LIST in kept():
        Persons(policy, home, kept).forgotten()


def forgotten_among(
    policy: Policy, home: Path, kept: Keeps, connection: duckdb.DuckDBPyConnection, persons: pa.Array
) -> Bools | None:
    """Return which of the persons of rows that were read are forgotten, None if nobody is. Raises SourceError."""
    if not (home / LIST).exists() and LIST not in kept():
        return None
    known = Persons(policy, home, kept)
    codes = known.codes_of(persons.to_pylist())
    return known.out(codes, known.alike_of(connection, persons, codes))


def _digest_of(listed: Iterable[Forgotten]) -> bytes:
    said = [[one.code.hex(), one.alike.hex(), one.form, one.key] for one in listed]
    return sha256(json.dumps(said).encode()).digest()


def _among(codes: Codes, listed: list[bytes]) -> Bools:
    found = np.zeros(len(codes), np.bool_)
    for code in listed:
        high, low = np.frombuffer(code, ">u8").astype(np.uint64)
        found |= (codes[:, 0] == high) & (codes[:, 1] == low)
    return found
