"""An audit of a model at a silo: what its rows add, and what the opened sum says: docs/protocol.md section 11.

Promise: all silos that learn an audit have the same figures, which stay beside the model that they are of.
"""

import numpy as np

from crypto.errors import ProtocolError
from crypto.rounds.messages import RunEnd
from policies.fairness.audit import Audit, audit_of
from policies.fairness.counts import Counts
from policies.requests.audit import AuditStep
from policies.requests.audited import count_of, groups_of
from policies.requests.request import Request
from silo_node.training.audited import listings, persons_of, places_of
from silo_node.training.family import Examples, Fitted, figure
from silo_node.training.grid import Integers, Vector
from silo_node.training.kept_audits import AuditedModel, GroupGap, with_audit
from silo_node.training.run import ExactModel, Opened, RunState, state_after


def step_of(request: Request) -> AuditStep:
    """Return the step of a request; raises ProtocolError if it is no audit."""
    if not isinstance(request.plan, AuditStep):
        raise ProtocolError(f"a model is audited here, not {request.plan.kind}")
    return request.plan


def contribution(request: Request, examples: Examples, scores: Vector, outcomes: Vector) -> list[Integers]:
    """Return the silo's blocks: rows by group, truth and decision, persons by group, rows by group, truth and bin."""
    step = step_of(request)
    columns = step.grouped(request.table)
    groups, group = count_of(columns), places_of(step.model.task(request.table), columns, examples)
    chances = np.clip(np.nan_to_num(scores, nan=0.0), 0.0, 1.0)
    truth, decided = outcomes.astype(np.int64), (chances >= float(step.threshold)).astype(np.int64)
    bins = step.bins
    places = (group * 2 + truth) * bins.count + bins.places(chances)
    return [
        np.bincount(group * 4 + truth * 2 + decided, minlength=4 * groups).astype(np.int64),
        persons_of(examples, group, groups),
        np.bincount(places, minlength=2 * groups * bins.count).astype(np.int64),
    ]


def learned(state: RunState | None, request: Request, position: bytes, opened: Opened, now: int) -> RunState:
    """Return the state after the one step of an audit."""
    step = step_of(request)
    audit = audit_of_sums(request, opened)
    ended: RunEnd = "complete" if audit.has_gaps else "too-few-rows"
    figures = (figure("threshold of the audit", float(step.threshold)),)
    fitted = Fitted(listings=listings(audit), figures=figures, notes=_notes(step, audit))
    model = ExactModel(family=step.opened_as, numbers=(), ended=ended, fitted=fitted)
    return state_after(request, position, now, (), np.zeros(0), np.zeros(0), model)


def audit_of_sums(request: Request, opened: Opened) -> Audit:
    """Return what the opened sum of an audit says."""
    step = step_of(request)
    columns = step.grouped(request.table)
    groups = groups_of(columns)
    rows, persons, scores = opened.blocks()
    noise = [deviation**2 for deviation in opened.deviations()]
    shape = (len(groups), 2, 2)
    counts = Counts(
        groups=groups,
        persons=persons,
        rows=rows.reshape(shape),
        noise=np.full(shape, noise[0]),
        rows_per_person=request.table.max_rows,
        bins=scores.reshape(len(groups), 2, -1),
        middles=step.bins.middles,
        bin_noise=noise[2],
    )
    edges = step.bins.edges
    return audit_of(counts, step.min_cohort, " and ".join(step.groups), float(step.threshold), edges)


def _notes(step: AuditStep, audit: Audit) -> tuple[str, ...]:
    of = f"of the model of run {step.model.run.hex()}"
    return tuple(one[:400] for one in (of, *audit.notes))


def beside(model: RunState, request: Request, audit: RunState, opened: Opened) -> RunState:
    """Return a model's state with an audit of it beside it, in the place of one by the same groups."""
    step = step_of(request)
    if audit.exact is None:
        raise ProtocolError("an audit has figures")
    gaps = audit_of_sums(request, opened).gaps
    found = AuditedModel(
        run=step.run,
        groups=step.groups,
        table=request.table.name,
        is_held_out=step.held_out is not None,
        learned_at=audit.learned_at,
        gaps=tuple(
            GroupGap(measure=name, value=one.value, low=one.low, high=one.high)
            for name, one in gaps.items()
            if np.isfinite((one.value, one.low, one.high)).all()
        ),
        fitted=audit.exact.fitted,
    )
    return model.model_copy(update={"audits": with_audit(model.audits, found)})
