"""Erase a silo's data when they are due by the policy's [retention], and log each erasure.

Charges stay for ever, as a lifetime budget is never refreshed, and so does the last entry of the log. An erased entry
keeps its number and its chain hash. docs/ledger.md section 5.
"""

from dataclasses import dataclass

from policies.document.policy import Policy
from policies.units import DAY_S
from silo_node.ledger.charges import hash_of_committed, hash_of_nonces
from silo_node.ledger.database import Database
from silo_node.ledger.events import Erased
from silo_node.ledger.log import Log, hash_of_chains
from silo_node.ledger.replay import Audit


@dataclass(frozen=True, slots=True)
class Due:
    """The clock times before which data are erased; None keeps them."""

    models: int | None = None
    rounds: int | None = None
    audit: int | None = None


def due_of(policy: Policy, now: int) -> Due:
    """Return which data are due at `now`.

    Results are the models that a silo has. Of encrypted contributions it keeps only the digest of the survivor set that
    it signed. The audit period applies to the log, and to requests for approval with their verdicts.
    """
    if policy.retention is None:
        return Due()

    def before(days: int | None) -> int | None:
        return None if days is None else max(0, now - days * DAY_S)

    retention = policy.retention
    return Due(
        models=before(retention.results_days),
        rounds=before(retention.encrypted_contributions_days),
        audit=before(retention.audit_days),
    )


def erase(database: Database, log: Log, due: Due, found: Audit) -> tuple[Erased, ...]:
    """Erase due data from a ledger with the examined log `found`; return the logged erasures.

    Changes inside the transaction of the caller.
    """
    erased: list[Erased] = []
    in_force = log.in_force()
    if due.models is not None:
        count = _delete(database, "runs WHERE saved_at < ?", due.models)
        erased.append(Erased(what="models", count=count, before=due.models))
    if due.rounds is not None:
        count = _delete(database, "splits WHERE signed_at < ?", due.rounds)
        erased.append(Erased(what="rounds", count=count, before=due.rounds))
    if due.audit is not None:
        count = _delete(database, "requests WHERE max(asked_at, expires_at) < ?", due.audit)
        database.execute("DELETE FROM verdicts WHERE subject NOT IN (SELECT subject FROM requests)")
        erased.append(Erased(what="approvals", count=count, before=due.audit))
        erased += _erase_log(database, log, due.audit, found)
    events = tuple(event for event in erased if event.count)
    kept = log.in_force()
    log.append(*events, *(one for one in in_force if one not in kept))  # what is in force is never forgotten
    return events


def _delete(database: Database, what: str, before: int) -> int:
    return database.execute(f"DELETE FROM {what}", (before,)).rowcount  # noqa: S608


def _erase_log(database: Database, log: Log, before: int, found: Audit) -> list[Erased]:
    kept = database.execute(
        "SELECT coalesce(min(seq) FILTER (WHERE at >= ?), max(seq)) FROM log WHERE body <> x''", (before,)
    ).fetchone()[0]
    # Stored requests, charges that are not committed and what runs have reserved are compared with their entries, so
    # these entries stay as long.
    requests = {row[0] for row in database.execute("SELECT subject FROM requests")}
    needed = [one.seq for subject, one in found.requests.items() if subject in requests]
    needed += [held.seq for held in found.charges.values() if held.state != "committed"]
    needed += [held.seq for held in found.runs_reserved.values()]
    kept = min((kept or 0, *needed))
    if kept <= 1:
        return []
    count = database.execute("UPDATE log SET at = 0, body = x'' WHERE seq < ? AND body <> x''", (kept,)).rowcount
    if not count:
        return []
    emptied = [line for line in log.lines() if line.seq < kept]
    return [
        Erased(
            what="log",
            count=count,
            before=before,
            through=emptied[-1].seq,
            chain=emptied[-1].chain,
            chains=hash_of_chains(emptied),
            charges=hash_of_committed(database),
            asked=hash_of_nonces(database),
        )
    ]
