"""Price what was charged anew when a policy says that one person may be known to more silos than was thought.

A price grows with the square of `max_silos`. What the earlier charges lack is booked as spent, for the same analyst,
purpose, run, day and months, so that it counts wherever they count. A lower `max_silos` gives nothing back. Past the
lifetime the silo only refuses. docs/ledger.md section 1.
"""

from crypto.randomness import token
from policies.budget.ledger import Charge, Months, RunStep
from policies.units import DAY_S
from silo_node.ledger.database import Database
from silo_node.ledger.events import Event, PolicyInForce, Repriced
from silo_node.ledger.recovery import book
from silo_node.ledger.witness import all_of

_GROUPED = f"""
SELECT policy_hash, analyst, purpose, max(charged_at), run, first_month, last_month, sum(micro_rho) FROM charges
WHERE micro_rho > 0 GROUP BY policy_hash, analyst, purpose, charged_at / {DAY_S}, run, first_month, last_month
"""  # noqa: S608


def reprice(database: Database, policy_hash: bytes, max_silos: int) -> list[Event]:
    """Book what the charges lack under a policy that comes into force; return the events to log."""
    versions = all_of(database.execute, PolicyInForce)
    if not versions or max_silos <= max(versions[-1].max_silos, 1):
        return []
    found: list[Charge] = []
    for by, analyst, purpose, at, run, first, last, spent in database.execute(_GROUPED).fetchall():
        before = _most_since(versions, by)
        if not 0 < before < max_silos:
            continue
        lacks = -(-spent * (max_silos**2 - before**2) // before**2)
        step = None if run is None else RunStep(run, b"", 0)
        fields = token(16), bytes(32), analyst, purpose, lacks, policy_hash, at
        found.append(Charge(*fields, run=step, months=Months(first, last)))
    if not found:
        return []
    whole = Repriced(max_silos=max_silos, micro_rho=sum(one.micro_rho for one in found))
    return [whole, *(event for one in found for event in book(database, one, 0))]


def _most_since(versions: list[PolicyInForce], policy_hash: bytes) -> int:
    """Return the greatest `max_silos` since a policy last came into force, for which its charges are priced at least.

    Of a policy whose entry is erased: since the oldest entry, which is never more. 0 if a version did not say.
    """
    last = max((index for index, one in enumerate(versions) if one.policy_hash == policy_hash), default=0)
    return max(one.max_silos for one in versions[last:])
