"""An audit of a model at a silo: what its rows add, and what the opened sum says: docs/protocol.md section 11.

Promise: all silos that learn an audit have the same figures, which stay beside the model that they are of.
"""

from collections.abc import Sequence

import numpy as np

from crypto.errors import ProtocolError
from crypto.rounds.messages import RunEnd
from policies.fairness.audit import Audit, audit_of
from policies.fairness.counts import Counts
from policies.requests.audit import AuditStep
from policies.requests.audited import count_of, drift_bins, groups_of
from policies.requests.request import Request
from policies.requests.scores import COARSE, Bins
from policies.requests.tables import Table, TableColumn
from silo_node.training.audited import persons_of, places_of
from silo_node.training.exact import kept_after
from silo_node.training.family import Examples, Fitted, Line, Listing, State, figure, known
from silo_node.training.grid import Integers, Vector
from silo_node.training.kept_audits import AuditedModel, GroupGap, with_audit
from silo_node.training.run import Opened, RunState


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
    found = [
        np.bincount(group * 4 + truth * 2 + decided, minlength=4 * groups).astype(np.int64),
        persons_of(examples, group, groups),
        np.bincount(places, minlength=2 * groups * bins.count).astype(np.int64),
    ]
    if features := step.features_of(request.table):
        found.append(np.concatenate([_binned(column, examples) for column in features]))
    return found


def _binned(column: TableColumn, examples: Examples) -> Integers:
    """Return the rows in each of the public bins of a feature."""
    count, cells = len(drift_bins(column)), examples.cells[column.name]
    if column.type == "bool":
        places = np.asarray(cells > 0, np.int64)
    elif column.domain:
        places = cells
    else:
        steps = (cells + column.range_steps) // 2
        places = steps * (count - 1) // (column.range_steps + 1)
    gap = examples.missing.get(column.name)
    if gap is not None:
        places = np.where(gap, count - 1, places)
    return np.bincount(places, minlength=count).astype(np.int64)


def learned(state: RunState | None, request: Request, position: bytes, opened: Opened, now: int) -> RunState:
    """Return the state after the one step of an audit."""
    step = step_of(request)
    audit = audit_of_sums(request, opened)
    ended: RunEnd = "complete" if audit.has_gaps else "too-few-rows"
    figures = [figure("threshold of the audit", float(step.threshold))]
    if step.has_drift:
        deviations = opened.deviations()
        figures += [
            figure("variance of scores", _per_score(step, count_of(step.grouped(request.table))) * deviations[2] ** 2)
        ]
        figures += [figure("variance of features", deviations[3] ** 2)] if len(deviations) > 3 else []
    shown = (*audit.listings, *drift_listings(step, request.table, opened))
    fitted = Fitted(listings=shown, figures=tuple(figures), notes=_notes(step, audit))
    return kept_after(request, position, now, State(ended=ended), fitted)


def audit_of_sums(request: Request, opened: Opened) -> Audit:
    """Return what the opened sum of an audit says."""
    step = step_of(request)
    columns = step.grouped(request.table)
    groups = groups_of(columns)
    rows, persons, scores, *_ = opened.blocks()
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


def _per_score(step: AuditStep, groups: int) -> int:
    """Return how many numbers of the sum are added to one bin of `drift_listings`, but the outer ones."""
    return 2 * groups * max(1, step.bins.count // COARSE.count)


def drift_listings(step: AuditStep, table: Table, opened: Opened) -> tuple[Listing, ...]:
    """Return the rows in bins of scores and of features, by which drift is told; a bin of few rows has no number."""
    if not step.has_drift:
        return ()
    blocks = opened.blocks()
    scores = _coarse(blocks[2].reshape(-1, step.bins.count).sum(0), step.bins)
    edges = [f"from {edge:.4g}" for edge in COARSE.edges[:-1]]
    names, counts, first = list[str](), list[float](), 0
    for column in step.features_of(table):
        bins = drift_bins(column)
        names += [f"{column.name}: {one}" for one in bins]
        counts += blocks[3][first : first + len(bins)].tolist()
        first += len(bins)
    both = (("scores", edges, scores.tolist()), ("features", names, counts))
    least = step.min_cohort * table.max_rows  # rows of so many persons, whoever they are
    return tuple(_counted(name, lines, found, least) for name, lines, found in both)


def _coarse(counts: Vector, bins: Bins) -> Vector:
    """Return counts of scores in the bins of sums with noise."""
    places = COARSE.places(bins.middles)
    return np.bincount(places, counts, COARSE.count).astype(np.float64)


def _counted(name: str, lines: Sequence[str], counts: Sequence[float], least: int) -> Listing:
    found = [Line(name=one[:400], values=(known(count) if count >= least else None,))
             for one, count in zip(lines, counts, strict=True)]  # fmt: skip
    return Listing(name=name, headings=("rows",), lines=tuple(found))


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
        purpose=request.purpose,
        threshold=step.threshold,
        min_cohort=step.min_cohort,
        silos=request.silos,
        gaps=tuple(
            GroupGap(measure=name, value=one.value, low=one.low, high=one.high)
            for name, one in gaps.items()
            if np.isfinite((one.value, one.low, one.high)).all()
        ),
        fitted=audit.exact.fitted,
    )
    return model.model_copy(update={"audits": with_audit(model.audits, found)})
