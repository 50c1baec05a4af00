"""The table of charges: reading one, adding one, and totals over all.

These functions run inside the `reading`, `snapshot` or `transaction` that the caller has opened.
"""

import struct
from collections.abc import Collection
from dataclasses import dataclass, replace
from hashlib import sha256

from policies.budget.accountant import ORDERS
from policies.budget.ledger import Charge, Months
from silo_node.ledger.database import Database, Value
from silo_node.ledger.events import Reserved, hash_of_row

COLUMNS = (  # the columns of a charge that never change, in the order of its hash
    "nonce, request_hash, analyst, purpose, micro_rho, policy_hash, charged_at, run, first_month, last_month,"
    " atto_delta, curve"
)
ASKED = "nonce, request_hash, analyst, run, job, step, counts_as, first_at"  # of a nonce: what never changes
_CURVE = struct.Struct(f">{len(ORDERS)}q")


@dataclass(frozen=True, slots=True)
class Row:
    """One charge as its owner sees it."""

    at: int
    analyst: str
    purpose: str
    micro_rho: int
    is_committed: bool  # or charging, which counts as spent too
    months: Months


def row_of(charge: Charge) -> tuple[Value, ...]:
    """Return the row of a charge, in the order of `COLUMNS`."""
    run = None if charge.run is None else charge.run.run
    curve = _CURVE.pack(*charge.curve) if charge.curve else None
    asked = (charge.nonce, charge.request_hash, charge.analyst, charge.purpose)
    price = (charge.micro_rho, charge.policy_hash, charge.charged_at, run)
    return (*asked, *price, charge.months.first, charge.months.last, charge.atto_delta, curve)


def charge_of(database: Database, nonce: bytes) -> Charge | None:
    """Return the charge of a nonce; None if there is none."""
    row = database.execute(f"SELECT {COLUMNS} FROM charges WHERE nonce = ?", (nonce,)).fetchone()  # noqa: S608
    if row is None:
        return None
    unpacked = _CURVE.unpack(row[11]) if row[11] is not None else ()
    months = Months(row[8], row[9])
    return replace(Charge(*row[:8]), months=months, atto_delta=row[10], curve=unpacked)


def state_of(database: Database, nonce: bytes) -> str | None:
    """Return "reserved", "charging" or "committed"; None if there is no charge."""
    row = database.execute("SELECT state FROM charges WHERE nonce = ?", (nonce,)).fetchone()
    return None if row is None else str(row[0])


def insert(database: Database, charge: Charge, state: str = "reserved", round_id: bytes | None = None) -> Reserved:
    """Add a charge of a nonce that is there; return the log entry of its reservation."""
    row = row_of(charge)
    values = (*row, state, round_id)
    places = ", ".join("?" for _ in values)
    database.execute(f"INSERT INTO charges ({COLUMNS}, state, round_id) VALUES ({places})", values)  # noqa: S608
    return Reserved(
        nonce=charge.nonce,
        request_hash=charge.request_hash,
        micro_rho=charge.micro_rho,
        atto_delta=charge.atto_delta,
        policy_hash=charge.policy_hash,
        row=hash_of_row(*row),
        asked=_hash_of_new(database, charge.nonce),
    )


def sum_of_curves(database: Database, excluding_nonce: bytes) -> tuple[int, ...]:
    """Return the sum of the prices that are not lines, at each order; empty if there are none."""
    sql = "SELECT curve FROM charges WHERE curve IS NOT NULL AND nonce <> ?"
    rows = database.execute(sql, (excluding_nonce,)).fetchall()
    return tuple(map(sum, zip(*(_CURVE.unpack(row[0]) for row in rows), strict=True))) if rows else ()


def hash_of_committed(database: Database, excluding: frozenset[bytes] = frozenset()) -> bytes:
    """Return the hash of all committed charges, without those of the nonces `excluding`."""
    sql = f"SELECT {COLUMNS}, round_id FROM charges WHERE state = 'committed' ORDER BY nonce"  # noqa: S608
    rows = database.execute(sql)
    return sha256(b"".join(hash_of_row(*row) for row in rows if row[0] not in excluding)).digest()


def _hash_of_new(database: Database, nonce: bytes) -> bytes:
    """Return the hash of the row of a nonce that was accepted for the first time; empty for any other."""
    sql = f"SELECT {ASKED} FROM nonces WHERE nonce = ? AND proposals = 1"  # noqa: S608
    row = database.execute(sql, (nonce,)).fetchone()
    return b"" if row is None else hash_of_row(*row)


def hash_of_nonces(database: Database, excluding: Collection[bytes] = ()) -> bytes:
    """Return the hash of all nonces, without those in `excluding`."""
    rows = database.execute(f"SELECT {ASKED} FROM nonces ORDER BY nonce")  # noqa: S608
    return sha256(b"".join(hash_of_row(*row) for row in rows if row[0] not in excluding)).digest()


def history(database: Database) -> list[Row]:
    """Return every charge, oldest first."""
    rows = database.execute(
        "SELECT charged_at, analyst, purpose, micro_rho, state, first_month, last_month FROM charges"
        " ORDER BY charged_at, nonce"
    ).fetchall()
    return [
        Row(at, analyst, purpose, micro_rho, state != "reserved", Months(first, last))
        for at, analyst, purpose, micro_rho, state, first, last in rows
    ]
