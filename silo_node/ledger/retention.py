"""What a silo erases when it is due, by the policy's [retention]; the log keeps that it was."""

from policies.document.policy import Policy
from silo_node.ledger.log import Erased
from silo_node.ledger.store import Due, LedgerStore

DAY_S = 86_400


def due_of(policy: Policy, now: int) -> Due:
    """Return what may be kept no longer at `now`.

    Results are the models that a silo holds. Of encrypted contributions it keeps only which split it signed, and the
    audit period covers requests for approval with their verdicts, and the log. Charges stay for ever.
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


def erase_due(policy: Policy, ledger: LedgerStore, now: int) -> tuple[Erased, ...]:
    """Erase what is due; return what that was."""
    due = due_of(policy, now)
    return () if due == Due() else ledger.erase(due)
