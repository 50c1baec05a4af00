"""Why a silo cannot take part in a round now: denials that tell of its machine and not of its policy.

Promise: each text follows from the code and the policy alone. What exactly is wrong, such as the name of a file, is in
the owner's log. A silo says so only before it has committed a charge; no row that it has read ahead decides it.
"""

from policies.decision.denial_codes import deny
from policies.document.policy import Policy
from policies.requests.denials import Denial


def wrong_clock(policy: Policy) -> Denial:
    """Return the denial of a round that is over, or would last too long, by the silo's clock."""
    message = "the round has expired, or would last too long, by this silo's clock"
    remedy = f"ask again; if it recurs, set the clocks of silo and aggregator by NTP, or ask {policy.silo.contact}"
    return deny("CLOCK", "clock", message, remedy)


def late_step(policy: Policy) -> Denial:
    """Return the denial of a round whose time was over before the silo could take its part."""
    message = "the time of the round was over before this silo could compute for it"
    remedy = f"ask again with a longer deadline, or when there is less to do; ask {policy.silo.contact}"
    return deny("EXPIRED", "compute", message, remedy)


def full_disk(policy: Policy) -> Denial:
    """Return the denial of a silo that has no room for its ledger."""
    message = "the disk of this silo is full, so it cannot keep what is spent"
    return deny("DISK_FULL", "disk", message, f"ask {policy.silo.contact} to free disk space")


def broken_ledger(policy: Policy) -> Denial:
    """Return the denial of a silo whose ledger cannot be used now, or may not be the newest."""
    message = "this silo's ledger cannot be used now, or no aggregator has said yet that it is the newest"
    return deny("LEDGER", "ledger", message, f"ask again in a minute, or ask {policy.silo.contact}")


def away_source(policy: Policy) -> Denial:
    """Return the denial of a request whose rows, or whose decisions on consent, cannot be reached."""
    message = "the rows of this table, or the decisions on consent, cannot be reached now"
    return deny("SOURCE_AWAY", "sources", message, f"ask again later, or ask {policy.silo.contact}")


def not_loaded(policy: Policy) -> Denial:
    """Return the denial of a step of training at a silo that has not loaded, or lacks, what its computation needs."""
    message = "what this computation needs is not loaded at this silo yet, or not installed"
    return deny("BUSY", "training", message, f"ask again in a minute, or ask {policy.silo.contact}")


def too_many_unpaid(policy: Policy) -> Denial:
    """Return the denial of a request of a signer that has asked too often for nothing."""
    message = "too many requests of this analyst, by this aggregator, were refused or given up here lately"
    return deny("BUSY", "log", message, f"ask again in some minutes, and less often, or ask {policy.silo.contact}")


def too_many_waiting(policy: Policy) -> Denial:
    """Return the denial of a request that people would have to approve, while too many others wait for that."""
    message = "too many requests of this analyst wait for approval here"
    return deny("BUSY", "approvals", message, f"ask {policy.silo.contact} to decide on them")
