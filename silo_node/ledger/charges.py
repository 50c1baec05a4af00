"""A charge as the ledger's table holds it, and what is read of charges one by one or all together.

These functions read inside the `reading`, `snapshot` or `transaction` that the caller has opened.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

from policies.budget.accountant import ORDERS
from policies.budget.ledger import Charge, Months
from silo_node.ledger.database import Database, Value
from silo_node.ledger.events import hash_of_row

COLUMNS = (  # what never changes of a charge, in the order that its hash is taken of
    "nonce, request_hash, analyst, purpose, micro_rho, policy_hash, charged_at, run, first_month, last_month,"
    " atto_delta, curve"
)
_CURVE = struct.Struct(f">{len(ORDERS)}q")


@dataclass(frozen=True, slots=True)
class Row:
    """One charge as its owner sees it."""

    at: int
    analyst: str
    purpose: str
    micro_rho: int
    is_committed: bool
    months: Months


def row_of(charge: Charge) -> tuple[Value, ...]:
    """Return what the ledger keeps of a charge, in the order of `COLUMNS`."""
    run = None if charge.run is None else charge.run.run
    curve = _CURVE.pack(*charge.curve) if charge.curve else None
    asked = (charge.nonce, charge.request_hash, charge.analyst, charge.purpose)
    price = (charge.micro_rho, charge.policy_hash, charge.charged_at, run)
    return (*asked, *price, charge.months.first, charge.months.last, charge.atto_delta, curve)


def charge_of(database: Database, nonce: bytes) -> Charge | None:
    """Return the charge of a nonce, None where nothing is charged."""
    row = database.execute(f"SELECT {COLUMNS} FROM charges WHERE nonce = ?", (nonce,)).fetchone()  # noqa: S608
    if row is None:
        return None
    unpacked = _CURVE.unpack(row[11]) if row[11] is not None else ()
    months = Months(row[8], row[9])
    return replace(Charge(*row[:8]), months=months, atto_delta=row[10], curve=unpacked)


def state_of(database: Database, nonce: bytes) -> str | None:
    """Return "reserved" or "committed", None where nothing is charged."""
    row = database.execute("SELECT state FROM charges WHERE nonce = ?", (nonce,)).fetchone()
    return None if row is None else str(row[0])


def insert(database: Database, row: Sequence[Value]) -> None:
    """Add a reservation, as `row_of` gives it."""
    places = ", ".join("?" for _ in row)
    database.execute(f"INSERT INTO charges ({COLUMNS}, state) VALUES ({places}, 'reserved')", row)  # noqa: S608


def sum_of_curves(database: Database, excluding_nonce: bytes) -> tuple[int, ...]:
    """Return the sum of the prices that are no lines, at each order; empty if there is none."""
    sql = "SELECT curve FROM charges WHERE curve IS NOT NULL AND nonce <> ?"
    rows = database.execute(sql, (excluding_nonce,)).fetchall()
    return tuple(map(sum, zip(*(_CURVE.unpack(row[0]) for row in rows), strict=True))) if rows else ()


def hash_of_committed(database: Database, excluding: frozenset[bytes] = frozenset()) -> bytes:
    """Return the hash of all charges that were committed, but for those with the nonces `excluding`."""
    sql = f"SELECT {COLUMNS}, round_id FROM charges WHERE state = 'committed' ORDER BY nonce"  # noqa: S608
    rows = database.execute(sql)
    return sha256(b"".join(hash_of_row(*row) for row in rows if row[0] not in excluding)).digest()


def history(database: Database) -> list[Row]:
    """Return every charge, oldest first."""
    rows = database.execute(
        "SELECT charged_at, analyst, purpose, micro_rho, state, first_month, last_month FROM charges"
        " ORDER BY charged_at, nonce"
    ).fetchall()
    return [
        Row(at, analyst, purpose, micro_rho, state == "committed", Months(first, last))
        for at, analyst, purpose, micro_rho, state, first, last in rows
    ]
