"""The table of decisions on consent, prepared: read again whenever its file has changed, also within a request."""

import io
import json
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path

import duckdb
import numpy as np

from federation.files import replace_file
from silo_node.data.coded import dictionary
from silo_node.data.consent import VIEW, Decisions
from silo_node.data.locations import opened
from silo_node.data.prepared.codes import codes_of, in_order, inverse
from silo_node.data.prepared.decided import Decided
from silo_node.data.prepared.segment import BROKEN
from silo_node.data.spellings import loosest_of
from silo_node.data.watch import Stamp, stamp_of_files

_FILE = "decisions.npz"
_ARRAYS = ("codes", "alike", "person", "purpose", "given_at", "withdrawn_at", "expires_at", "is_withdrawn", "ends")
_FORMAT = 2


class DecisionStore:
    """The prepared decisions of one silo; a table of a server is read at every request."""

    def __init__(self, decisions: Decisions, folder: Path, key: bytes, rules: str) -> None:
        """`rules` is a digest of what in the policy says how they are read."""
        self._decisions, self._path, self._key, self._rules = decisions, folder / _FILE, key, rules
        self._kept: tuple[Stamp, Decided] | None = None

    def current(self, connection: duckdb.DuckDBPyConnection, limit_s: float) -> Decided:
        """Return the decisions as they are now. Raises SourceError, duckdb.Error or OSError."""
        stamp = stamp_of_files(self._decisions.location)
        if stamp and self._kept is not None and self._kept[0] == stamp:
            return self._kept[1]
        decided = self._saved(stamp) if stamp else None
        if decided is None:
            with opened(connection, (self._decisions,), limit_s):
                decided = read(connection, self._key)
            if stamp and stamp == stamp_of_files(self._decisions.location):
                self._save(stamp, decided)
        self._kept = stamp, decided
        return decided

    def _saved(self, stamp: Stamp) -> Decided | None:
        try:
            with np.load(self._path, allow_pickle=False) as found:
                if str(found["made_from"]) != self._made_from(stamp):
                    return None
                arrays = {name: found[name] for name in _ARRAYS}
                purposes = tuple(str(one) for one in json.loads(found["purposes"].tobytes()))
                return Decided(purposes=purposes, names_nobody=bool(found["names_nobody"]), **arrays)
        except (*BROKEN, zipfile.BadZipFile, zlib.error):
            return None

    def _save(self, stamp: Stamp, decided: Decided) -> None:
        arrays = {name: getattr(decided, name) for name in _ARRAYS}
        written = io.BytesIO()
        np.savez(
            written,
            made_from=np.array(self._made_from(stamp)),
            purposes=np.frombuffer(json.dumps(decided.purposes).encode(), np.uint8),
            names_nobody=np.array(decided.names_nobody),
            **arrays,
        )
        with suppress(OSError):  # they are read again then
            replace_file(self._path, written.getvalue(), 0o600)

    def _made_from(self, stamp: Stamp) -> str:
        return f"{_FORMAT} {self._rules} {stamp}"


def read(connection: duckdb.DuckDBPyConnection, key: bytes) -> Decided:
    """Return the decisions of the opened view. Raises duckdb.Error."""
    found = connection.sql(
        "SELECT person, purpose, given_at, withdrawn_at, expires_at, is_withdrawn, ends"  # noqa: S608
        f" FROM {VIEW} WHERE person IS NOT NULL AND purpose IS NOT NULL"
    ).to_arrow_table()
    ((lost,),) = connection.execute(f"SELECT count(*) FROM {VIEW} WHERE is_lost").fetchall()  # noqa: S608
    place, persons = dictionary(found["person"])
    purpose, purposes = dictionary(found["purpose"])
    codes, alike = codes_of(key, persons.to_pylist()), codes_of(key, loosest_of(connection, persons))
    order = in_order(codes)
    person = inverse(order, len(codes))[place]
    by_person = np.argsort(person, kind="stable")
    given, withdrawn, expires = (
        found[name].to_numpy().astype(np.float64)[by_person] for name in ("given_at", "withdrawn_at", "expires_at")
    )
    is_withdrawn, ends = (found[name].to_numpy()[by_person].astype(np.bool_) for name in ("is_withdrawn", "ends"))
    return Decided(
        codes=codes[order],
        alike=alike[order],
        person=person[by_person],
        purpose=purpose[by_person],
        purposes=tuple(purposes.to_pylist()),
        given_at=given,
        withdrawn_at=withdrawn,
        expires_at=expires,
        is_withdrawn=is_withdrawn,
        ends=ends,
        names_nobody=bool(lost),
    )
