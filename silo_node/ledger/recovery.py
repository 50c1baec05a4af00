"""Go on with a ledger that was put back from a backup: book what was spent since, and mark the log's new line.

What was spent since the backup is the difference between the totals in the newest checkpoints that aggregators gave and
those of the ledger. It is booked as spent by UNKNOWN now, for its purpose, so that it counts in every window that can
hold it. Promise: nothing that an honest aggregator knows of is forgotten. docs/ledger.md section 3.
"""

from collections.abc import Iterable, Sequence

from crypto.randomness import token
from policies.budget.ledger import MAX_LINES, MAX_PROPOSALS, UNKNOWN, Charge, Checkpoint, Continued, Seen
from policies.errors import LedgerError
from silo_node.ledger.charges import hash_of_nonces, insert
from silo_node.ledger.database import Database
from silo_node.ledger.events import Event, Recovered, StaysCharged
from silo_node.ledger.log import Log
from silo_node.ledger.totals import Totals, opened, totals_of

NO_ROUND = bytes(16)  # of a charge whose round is not known


def recover(database: Database, log: Log, given: Sequence[Checkpoint]) -> Recovered:
    """Book what was spent since the backup, inside the transaction of the caller; return the entry of it.

    `given` are the checkpoints that enough aggregators gave, all of this silo; there is none if the owner has excused
    the aggregators. Raises LedgerError if the newest does not say what was spent, or if a later version than that of
    the backup was in force: of the policy, of the members, or of the list of forgotten persons.
    """
    now = log.now()
    own, own_last = totals_of(database, now, log.in_force()), log.last()
    newest = max(given, key=lambda one: one.count, default=None)
    known = [_totals(log, one) for one in given if one.sealed]
    if newest is not None and not newest.sealed and not log.has(newest):
        message = f"the newest checkpoint of the ledger, of entry {newest.count}, does not have its totals"
        hint = "it is of an older version: put the newest ledger back, or begin with another identity key"
        raise LedgerError(message, hint)
    _check_forward(own, known)
    missing = _difference(own, known)
    nonces = frozenset[bytes]().union(*(one.charged for one in known))
    count, chain = (newest.count, newest.chain) if newest is not None else own_last
    before = log.continued
    signed_after = max([0 if before is None else before.signed_after, *(one.nonces_since for one in known)])
    charges = _charges(missing, max([0, *(one.atto_delta - own.atto_delta for one in known)]), now)
    new = [one for one in sorted(nonces) if _add_nonce(database, one, now, MAX_PROPOSALS)]
    event = Recovered(
        count=count,
        chain=chain,
        line=token(16),
        given=len(given),
        micro_rho=sum(one.micro_rho for one in charges),
        atto_delta=sum(one.atto_delta for one in charges),
        nonces=len(new),
        asked=hash_of_nonces(database),
    )
    own_line = () if log.is_put_back() else (Seen(line=log.line, count=own_last[0], chain=own_last[1]),)
    after = _after((*(before.after if before is not None else ()), *own_line), given)
    log.go_on(event, Continued(line=event.line, after=after, signed_after=signed_after))
    log.append(*(entry for one in charges for entry in book(database, one, now)))
    return event


def _after(before: Sequence[Seen], given: Sequence[Checkpoint]) -> tuple[Seen, ...]:
    """Return the newest checkpoint of each line that the log goes on after, the latest last.

    Of a line that was put back that is what aggregators gave, and not how long the copy has grown meanwhile.
    """
    newest = {one.line: one for one in before}
    for one in sorted(given, key=lambda one: one.count):
        newest.pop(one.line, None)
        newest[one.line] = Seen(line=one.line, count=one.count, chain=one.chain)
    return tuple(newest.values())[-MAX_LINES:]


def _totals(log: Log, checkpoint: Checkpoint) -> Totals:
    if log.signer is None or log.signer.sealing is None:
        raise LedgerError("the ledger's totals cannot be opened without the silo's identity key", "give it")
    return opened(checkpoint, log.signer.sealing)


def _check_forward(own: Totals, known: Sequence[Totals]) -> None:
    """Raise LedgerError if something was in force after the backup that this silo does not have."""

    def check(what: str, is_now: int, was: Iterable[int], hint: str) -> None:
        if (last := max(was, default=0)) > is_now:
            raise LedgerError(f"{what} {last} after the backup was made, and here {is_now}", hint)

    hint = "put that version and its signatures into force, each version after the one before it, and start again"
    check("the policy in force was version", own.policy_version, [one.policy_version for one in known], hint)
    hint = "put the newest membership.log back: the authority and every member have it"
    check("the members in force were version", own.roster_version, [one.roster_version for one in known], hint)
    hint = "put the newest forgotten.json and persons.key back, or `consilo-silo forget` who was forgotten since"
    check("the number of forgotten persons was", own.forgotten, [one.forgotten for one in known], hint)


def _difference(own: Totals, known: Sequence[Totals]) -> dict[str, int]:
    """Return by purpose what was spent since the backup, by the greatest total of each."""
    held, most = own.micro_rho, dict[str, int]()
    for totals in known:
        for purpose, micro_rho in totals.purposes:
            most[purpose] = max(micro_rho, most.get(purpose, 0))
    return {purpose: spent for purpose in sorted(most) if (spent := most[purpose] - held.get(purpose, 0)) > 0}


def _charges(missing: dict[str, int], atto_delta: int, now: int) -> list[Charge]:
    if atto_delta and not missing:
        missing = {UNKNOWN: 0}
    return [
        Charge(
            nonce=token(16),
            request_hash=bytes(32),
            analyst=UNKNOWN,
            purpose=purpose,
            micro_rho=micro_rho,
            policy_hash=bytes(32),
            charged_at=now,
            atto_delta=0 if number else atto_delta,
        )
        for number, (purpose, micro_rho) in enumerate(missing.items())
    ]


def book(database: Database, charge: Charge, first_at: int) -> tuple[Event, Event]:
    """Add a charge that is spent already, of no request; return the events to log."""
    _add_nonce(database, charge.nonce, first_at, 1)  # first, as the entry of the charge has its hash
    return insert(database, charge, "committed", NO_ROUND), StaysCharged(nonce=charge.nonce, round_id=NO_ROUND)


def _add_nonce(database: Database, nonce: bytes, now: int, proposals: int) -> bool:
    """Add a nonce whose request is not known; return False if it is charged here already."""
    if proposals > 1 and database.execute("SELECT 1 FROM charges WHERE nonce = ?", (nonce,)).fetchone() is not None:
        return False
    values = (nonce, bytes(32), UNKNOWN, None, None, None, nonce, now, proposals)
    sql = (
        "INSERT INTO nonces VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET proposals = max(proposals, ?)"
    )
    database.execute(sql, (*values, proposals))
    return True
