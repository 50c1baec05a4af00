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
from policies.requests.audited import count_of, groups_of
from policies.requests.drifting import array_places, feature_bins, feature_places, score_bins
from policies.requests.request import Request
from policies.requests.scores import COARSE, Bins
from policies.requests.tables import Table
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
    return [*found, *_of_features(step, request.table, examples)]


def drift_contribution(request: Request, examples: Examples, places: Integers) -> list[Integers]:
    """Return the silo's blocks of an audit without groups: rows, persons, rows by bin of scores, and of features.

    `places` are the bins of the rows' scores.
    """
    step = step_of(request)
    bins = score_bins(step.model.task(request.table))
    found = [
        np.array([examples.rows]),
        np.array([len(np.unique(examples.person))]),
        np.bincount(places, minlength=bins.count).astype(np.int64),
    ]
    return [*found, *_of_features(step, request.table, examples)]


def _of_features(step: AuditStep, table: Table, examples: Examples) -> list[Integers]:
    """Return the rows in the public bins of all features, as one block; none unless drift is told."""
    found = []
    for column in step.features_of(table):
        if column.type == "array":
            places = array_places(column, examples.arrays[column.name])
        else:
            places = feature_places(column, examples.cells[column.name], examples.missing.get(column.name))
        found.append(np.bincount(places, minlength=len(feature_bins(column))).astype(np.int64))
    return [np.concatenate(found)] if found else []


def learned(state: RunState | None, request: Request, position: bytes, opened: Opened, now: int) -> RunState:
    """Return the state after the one step of an audit."""
    step = step_of(request)
    if not step.groups:
        return _drift_learned(request, position, opened, now)
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


def _drift_learned(request: Request, position: bytes, opened: Opened, now: int) -> RunState:
    """Return the state after an audit without groups: bins of scores and features, where there are persons enough."""
    step = step_of(request)
    _, persons, scores, *features = opened.blocks()
    noise = [deviation**2 for deviation in opened.deviations()]
    notes = (f"of the model of run {step.model.run.hex()}",)
    if persons[0] < step.min_cohort:
        few = f"too few persons: bins are shown of {step.min_cohort} or more"
        fitted = Fitted(listings=(), figures=(), notes=(*notes, few))
        return kept_after(request, position, now, State(ended="too-few-rows"), fitted)
    names = score_bins(step.model.task(request.table)).names
    listings = _listed(step, request.table, names, scores, features[0] if features else np.zeros(0))
    figures = [figure("variance of scores", noise[2])]
    figures += [figure("variance of features", noise[3])] if features else []
    fitted = Fitted(listings=listings, figures=tuple(figures), notes=notes)
    return kept_after(request, position, now, State(ended="complete"), fitted)


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
    edges = tuple(f"from {edge:.4g}" for edge in COARSE.edges[:-1])
    return _listed(step, table, edges, scores, blocks[3] if len(blocks) > 3 else np.zeros(0))


def _listed(
    step: AuditStep, table: Table, names: Sequence[str], scores: Vector, features: Vector
) -> tuple[Listing, ...]:
    """Return the rows in bins of scores, whose names these are, and of features."""
    found = [f"{column.name}: {one}" for column in step.features_of(table) for one in feature_bins(column)]
    least = step.min_cohort * table.max_rows  # rows of so many persons, whoever they are
    both = (("scores", names, scores), ("features", found, features))
    return tuple(_counted(name, lines, counts.tolist(), least) for name, lines, counts in both)


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
    gaps = audit_of_sums(request, opened).gaps if step.groups else {}
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
