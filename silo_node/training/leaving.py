"""May a model leave, be used, or be exported? The one place where a policy's conditions on models are checked."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Literal

from policies.document.policy import Policy
from policies.fairness.limit import GapLimit, judged_gap
from policies.requests.audit import AuditStep
from policies.requests.training import TrainingStep
from silo_node.errors import SiloError
from silo_node.training.kept_audits import gaps_by
from silo_node.training.run import RunState

Way = Literal["release", "predict", "export"]
# Of an audit that meets a limit: groups of fewer persons may be merged in it, or more if the policy shows no fewer.
LARGEST_COHORT = 100


def may_leave(policy: Policy, state: RunState, way: Way) -> None:
    """Raise SiloError, with a remedy, if a model may not leave the silo in this way by the policy of today.

    `release` sends it to the analyst, `predict` applies it to rows, `export` writes it to a file of the owner's.
    """
    ways = (AuditStep if state.is_audit else TrainingStep).released_as
    if way == "release" and not set(ways) & set(policy.disclosure.release):
        raise SiloError(
            "the model may not leave to the analyst", f'write "{ways[0]}" into disclosure.release of the policy'
        )
    for groups, limit in limits_of(policy, state):
        largest = max(LARGEST_COHORT, policy.disclosure.min_cohort)
        found = gaps_by(state, groups, limit.threshold, largest)
        if (why := judged_gap(found, (limit,))) is not None:
            by, at = " and ".join(groups), f"a threshold of {limit.threshold:g} and a min_cohort of at most {largest}"
            hint = f"the analyst audits it by {by} with [audit] in the job, at all silos of its last round, with {at}"
            if found:
                hint = 'another model has a smaller gap: with weights = "reweighing", other features, or more rows'
            raise SiloError(f"the model may not leave, predict or be exported: {why}", f"{hint}: docs/training.md")


def limits_of(policy: Policy, state: RunState) -> Iterator[tuple[tuple[str, ...], GapLimit]]:
    """Yield the limits on a model's gaps, each with the columns of its groups: the policy's, and that of its job.

    An audit is no model, and has none.
    """
    if state.is_audit:
        return
    if policy.training is not None and (own := policy.training.audit) is not None:
        limit = GapLimit(own.measure, float(own.max_gap), "training.audit.max_gap", Decimal(own.threshold))
        yield own.by, limit
    step = None if state.record is None else state.record.plan.training
    if step is not None and step.audit is not None:
        yield step.audit.groups, step.audit.limit
