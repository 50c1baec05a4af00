"""Audit a trained model: one secure sum, which the silos open and keep beside the model.

The analyst learns whether the audit was made; its figures go to the analyst where the job asks for it and the policies
release it. docs/training.md.
"""

from dataclasses import dataclass
from decimal import Decimal

from analyst.client import Federation
from analyst.errors import AnalystError, SqlError
from analyst.requests import waiting
from analyst.sql.offer import suggest
from analyst.training.audit_job import AuditJob
from analyst.training.job import Job
from analyst.training.released import taken
from analyst.training.watch_record import gaps_in
from crypto.randomness import token
from crypto.rounds.messages import RunEnd
from policies.fairness.limit import judged_gap
from policies.fitted import Fitted
from policies.models.card import Figure
from policies.requests.audit import AuditStep
from policies.requests.audited import AuditLimit
from policies.requests.exact import ExactStep
from policies.requests.judged import JudgedModel
from policies.requests.logistic import LogisticStep
from policies.requests.noised import NoisedStep
from policies.requests.request import Request
from policies.requests.tables import Table
from policies.requests.training import START
from policies.units import MICRO, WAIT_S


@dataclass(frozen=True, slots=True)
class Audited:
    """An audit of a model: who has it, what it cost each person, and what it found, where that was released."""

    run: str
    groups: tuple[str, ...]
    holders: tuple[str, ...]
    ended: RunEnd | None
    rho: float | None  # None without noise
    found: Fitted | None = None
    why_not: str = ""  # why the analyst has no figures, where the job asks for them


def gaps_of(audited: Audited) -> tuple[Figure, ...]:
    """Return the gaps that an audit found, as a model's card has them; none where they were not released."""
    if audited.found is None or not audited.found.listings or not audited.groups:
        return ()
    by = " and ".join(audited.groups)
    found = []
    for line in audited.found.listings[0].lines:
        value, low, high = line.values
        found.append(Figure(name=f"{line.name} by {by}"[:200], value=value, low=low, high=high))
    return tuple(found)


def audit_of(
    federation: Federation, job: Job, model: Request, position: bytes, deadline: int = WAIT_S, table: str | None = None
) -> Request:
    """Return the request that audits the model of the run that a request began, at a position of it.

    It takes the rows of who is held out; where the job names no groups, or of another `table`, all rows. Raises
    AnalystError if the job does not fit.
    """
    plan, of, is_other = model.plan, job.audited, table not in (None, model.table.name)
    if of is None:
        raise AnalystError("the job has no [audit]", 'name its groups: [audit] groups = ["race"]')
    if not isinstance(plan, ExactStep | NoisedStep | LogisticStep):
        raise AnalystError(f"a {plan.kind} is no model", "audit the run of a model that predicts")
    offer = federation.offer_of(model.silos)
    asked = table_with(federation, model, of, table or model.table.name)
    silos = tuple(offer.holders(asked.name)) if is_other else model.silos
    cohort = max(offer.silos[silo].min_cohort for silo in silos)
    step = AuditStep(
        run=token(16),
        step=0,
        after=START,
        release=job.release,
        held_out=plan.held_out if of.groups and not is_other else None,
        released_to=federation.recipient if "analyst" in of.recipients else None,
        model=JudgedModel(position=position, step=plan.first()),
        groups=of.groups,
        threshold=f"{Decimal(of.threshold).normalize():f}",
        min_cohort=cohort if of.min_cohort is None else of.min_cohort,
        has_drift=job.watch is not None,
    )
    micro_rho = 0
    if of.epsilon is not None:
        micro_rho = federation.price(job.purpose, float(of.epsilon), asked, step, silos)
    return waiting(federation.write(asked, step, job.purpose, micro_rho, silos=silos), deadline)


def audit(
    federation: Federation, job: Job, model: Request, position: bytes, deadline: int = WAIT_S, table: str | None = None
) -> Audited:
    """Audit the model of the run that a request began, at a position of it, as the job's [audit] or [watch] says.

    Raises AnalystError if the job does not fit, DeniedError if silos refuse, RoundError if too few answer.
    """
    request = audit_of(federation, job, model, position, deadline, table)
    step = request.plan.training
    if job.audited is None or step is None:
        raise AnalystError("the job has no [audit]", 'name its groups: [audit] groups = ["race"]')
    checked = federation.check(request, federation.submit(request))
    told = federation.deliver_report(checked.name)
    found = None if step.released_to is None else taken(federation, request, checked.name)
    reasons = set(told.values())
    return Audited(
        run=step.run.hex(),
        groups=job.audited.groups,
        holders=tuple(sorted(told)),
        ended=reasons.pop() if len(reasons) == 1 else None,
        rho=request.micro_rho / MICRO if request.micro_rho else None,
        found=None if found is None or isinstance(found, str) else found.fitted,
        why_not=found if isinstance(found, str) else "",
    )


def table_with(federation: Federation, model: Request, of: AuditJob, name: str) -> Table:
    """Return a table with the columns of a model, as it was learned, and those of an audit's groups.

    Raises AnalystError for an unknown one.
    """
    offer, known = federation.offer_of(model.silos), {column.name for column in model.table.columns}
    if name not in offer.tables:
        raise AnalystError(f"watch.table: unknown table {name!r}", suggest(name, offer.tables))
    more = tuple(name for name in of.groups if name not in known)
    try:
        table = offer.table(name, more)
    except SqlError as err:
        raise AnalystError(f"audit.groups: {err.message}", err.hint) from err
    columns = {column.name: column for column in (*model.table.columns, *table.columns)}
    return Table(**dict(table) | {"columns": tuple(columns[name] for name in sorted(columns))})


def lines_of(audited: Audited, limit: AuditLimit | None = None) -> list[str]:
    """Return an audit as text, and whether the job's own limit on a gap is met, where its figures were released."""
    by = " and ".join(audited.groups)
    price = "" if audited.rho is None else f", at a cost of rho {audited.rho:g}"
    what = f"audited by {by}" if by else "scores and features counted, by which drift is told"
    lines = [f"{what} (run {audited.run}){price}: at {', '.join(audited.holders) or 'no silo'}"]
    if audited.ended == "too-few-rows":
        lines.append(
            "too few persons: no bin is shown"
            if not by
            else "too few groups of min_cohort persons: nothing can be compared, and no limit on a gap is met"
        )
    if audited.why_not:
        lines.append(f"its figures were not released to you: {audited.why_not}")
    if audited.found is not None and by:
        for listing in audited.found.listings[:1]:
            lines += _listed(listing.headings, [(line.name, line.values) for line in listing.lines])
        lines += [f"  {note}" for note in audited.found.notes[1:]]
        if limit is not None:
            why = judged_gap(gaps_in(audited.found), (limit.limit,))
            within = f"{limit.measure} is within max_gap, at the outer end of its interval too"
            lines.append(within if why is None else f"no silo releases, exports or predicts by the model: {why}")
    return lines


def _listed(headings: tuple[str, ...], lines: list[tuple[str, tuple[float | None, ...]]]) -> list[str]:
    width = max((len(name) for name, _ in lines), default=0)
    shown = [f"  {'':<{width}} " + " ".join(f"{one:>10}" for one in headings)]
    for name, values in lines:
        shown.append(
            f"  {name:<{width}} " + " ".join("         -" if one is None else f"{one:>10.4f}" for one in values)
        )
    return shown
