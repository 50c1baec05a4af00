"""The totals of a ledger, sealed to its own silo, that travel with the checkpoints which aggregators keep.

A ledger that is put back from a backup learns from them what was spent since. Promise: an aggregator sees a length in
steps of STEP_BYTES, and nothing else of them. docs/ledger.md section 3.
"""

from collections.abc import Iterable
from typing import Annotated, ClassVar

from pydantic import Field

from crypto.errors import CryptoError
from crypto.sealing import SealingKey, seal
from crypto.wire import Count, Message, Seconds
from policies.budget.ledger import MAX_PROPOSALS, UNKNOWN, Checkpoint
from policies.errors import LedgerError
from policies.units import HOUR_S
from silo_node.ledger.database import Database
from silo_node.ledger.events import KeptInForce, PolicyInForce, RosterInForce
from silo_node.ledger.reservations import all_reservations
from silo_node.ledger.witness import InForce

NONCE_BYTES = 16
MAX_NONCES = 512
MAX_PURPOSES = 64
STEP_BYTES = 512
_LENGTH_BYTES = 4
Amount = Annotated[int, Field(ge=0)]
_Version = Annotated[Count, Field(exclude_if=lambda version: not version)]
_Purpose = Annotated[str, Field(max_length=120)]


class Totals(Message):
    """What a ledger has spent, the nonces of requests that it has charged, and which versions were in force."""

    KIND: ClassVar[str] = "ledger-totals"
    purposes: Annotated[tuple[tuple[_Purpose, Amount], ...], Field(max_length=MAX_PURPOSES)]  # micro-rho, by purpose
    atto_delta: Amount
    nonces: Annotated[bytes, Field(max_length=MAX_NONCES * NONCE_BYTES)]
    nonces_since: Seconds  # all that were first accepted since then are among them
    policy_version: _Version = 0  # of a signed one
    roster_version: _Version = 0
    forgotten: _Version = 0  # persons

    @property
    def micro_rho(self) -> dict[str, int]:
        return dict(self.purposes)

    @property
    def charged(self) -> frozenset[bytes]:
        """The nonces, one by one."""
        starts = range(0, len(self.nonces), NONCE_BYTES)
        return frozenset(self.nonces[start : start + NONCE_BYTES] for start in starts)


def totals_of(database: Database, now: int, in_force: Iterable[InForce]) -> Totals:
    """Return the totals of charges that began or are committed, inside the reading of the caller.

    `in_force` is what the log names.
    """
    spent = dict(database.execute("SELECT purpose, sum(micro_rho) FROM by_day GROUP BY purpose").fetchall())
    (atto_delta,) = database.execute("SELECT atto_delta FROM lifetime").fetchone()
    reserved = "SELECT purpose, micro_rho, atto_delta FROM charges WHERE state = 'reserved'"
    for purpose, micro_rho, delta in database.execute(reserved).fetchall():
        spent[purpose] -= micro_rho
        atto_delta -= delta
    for run in all_reservations(database):
        spent[run.purpose] -= run.micro_rho
        atto_delta -= run.atto_delta
    most = sorted(((micro_rho, purpose) for purpose, micro_rho in spent.items() if micro_rho), reverse=True)
    listed = {purpose: micro_rho for micro_rho, purpose in most[: MAX_PURPOSES - 1]}
    if rest := sum(micro_rho for micro_rho, _ in most[MAX_PURPOSES - 1 :]):
        listed[UNKNOWN] = listed.get(UNKNOWN, 0) + rest
    nonces, since = _recent_nonces(database, max(0, now - HOUR_S))
    versions: dict[str, int] = {}
    for one in in_force:
        match one:
            case PolicyInForce(is_signed=True):
                versions["policy_version"] = one.version
            case RosterInForce():
                versions["roster_version"] = one.version
            case KeptInForce():
                versions["forgotten"] = versions.get("forgotten", 0) + one.count
            case _:
                pass
    return Totals(
        purposes=tuple(sorted(listed.items())),
        atto_delta=atto_delta,
        nonces=b"".join(nonces),
        nonces_since=since,
        **versions,
    )


def _recent_nonces(database: Database, since: int) -> tuple[list[bytes], int]:
    """Return the newest charged nonces, at most MAX_NONCES, and from when on they are all of them."""
    rows = database.execute(
        "SELECT nonce, first_at FROM (SELECT DISTINCT analyst AS who FROM by_day) JOIN nonces ON analyst = who"
        " AND first_at >= ? WHERE proposals >= ? OR EXISTS"
        " (SELECT 1 FROM charges WHERE charges.nonce = nonces.nonce AND state <> 'reserved')"
        " ORDER BY first_at DESC LIMIT ?",
        (since, MAX_PROPOSALS, MAX_NONCES + 1),
    ).fetchall()
    if len(rows) > MAX_NONCES:
        since = rows[MAX_NONCES - 1][1] + 1
        rows = [row for row in rows if row[1] >= since]
    return sorted(bytes(nonce) for nonce, _ in rows), since


def sealed(totals: Totals, public: bytes, checkpoint: Checkpoint) -> bytes:
    """Seal totals to their own silo, for the checkpoint of the same log."""
    body = totals.encode()
    padded = len(body).to_bytes(_LENGTH_BYTES, "big") + body
    return seal(public, padded + bytes(-len(padded) % STEP_BYTES), _context(checkpoint))


def opened(checkpoint: Checkpoint, sealing: SealingKey) -> Totals:
    """Return the totals in a checkpoint of this silo; raises LedgerError if they do not open."""
    try:
        padded = sealing.open(checkpoint.sealed, _context(checkpoint))
        length = int.from_bytes(padded[:_LENGTH_BYTES], "big")
        return Totals.decode(padded[_LENGTH_BYTES : _LENGTH_BYTES + length])
    except CryptoError as err:
        message = f"the totals in the checkpoint of entry {checkpoint.count} do not open: {err.message}"
        raise LedgerError(message, "put the identity key of this silo back, which they are sealed to") from err


def _context(checkpoint: Checkpoint) -> bytes:
    bound = checkpoint.model_copy(update={"sealed": b""})
    return b"consilo/1 ledger totals" + bound.encode()
