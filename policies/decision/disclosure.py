"""The rules of sources and [disclosure]: which columns may be used, in which roles, and what may leave."""

import math
from collections.abc import Iterator, Sequence

from policies.decision.case import Case
from policies.decision.denial_codes import deny
from policies.document.policy import Policy
from policies.domains import LongDomain
from policies.requests.denials import Denial
from policies.requests.tables import TableColumn
from policies.units import ColumnRole, counted

TO_ANALYST = "model-to-analyst"  # in disclosure.release: the analyst may have the model of a run that asked for it
_RESULTS = {"query-result": "a query-result", "model": "a model", "metrics": "metrics of a model"}


def release(case: Case) -> Sequence[Denial]:
    """Does the source have the release that the request needs, and may such a result leave?"""
    policy, plan, source = case.policy, case.request.plan, case.source.source
    reasons: list[Denial] = []
    if plan.release != source.release:
        message = f"the source is {source.release}, the request is {plan.release}"
        rule = f"sources.{case.request.table.name}.release"
        reasons.append(deny("RELEASE", rule, message, plan.release_remedy(source.release)))
    if not case.facts.cost and plan.reads_rows and (policy.training is None or policy.training.dp == "required"):
        message = "training without noise is not allowed"
        reasons.append(deny("RELEASE", "training.dp", message, 'train with release = "private"'))
    if plan.result not in policy.disclosure.release:
        allowed = ", ".join(policy.disclosure.release) or "nothing"
        message = f"{_RESULTS[plan.result]} may not leave"
        reasons.append(deny("RELEASE", "disclosure.release", message, f"what may leave: {allowed}"))
    step = plan.training
    if step is not None and step.released_to is not None and not set(step.released_as) & set(policy.disclosure.release):
        message = "a model stays with the silos, and may not leave to the analyst"
        remedy = f'train with recipients = ["silos"], or its owner adds "{TO_ANALYST}"'
        reasons.append(deny("RELEASE", "disclosure.release", message, remedy))
    own = () if plan.judged is None else plan.judged.own
    if policy.silo.id in own and not policy.disclosure.own_metrics:
        message = "figures of this silo alone may not leave"
        others = ", ".join(name for name in own if name != policy.silo.id)
        remedy = f"ask for those of {others} alone" if others else "ask for those of all silos together"
        reasons.append(deny("RELEASE", "disclosure.own_metrics", message, remedy))
    reasons += _others(case, own)
    return reasons


def _others(case: Case, own: Sequence[str]) -> Iterator[Denial]:
    """Yield why silos may not have figures of their own beside this one: the sum less theirs is of the others."""
    policy = case.policy
    others = len(set(case.request.silos) - set(own))
    if own and policy.silo.id not in own and others < (least := others_needed(policy)):
        message = (
            f"figures of {counted(others, 'silo')} would follow from the common sum less those of {', '.join(own)}"
        )
        remedy = f"ask for those of fewer silos alone, so that {least} others are asked, or of all silos together"
        yield deny("RELEASE", "disclosure.min_silos", message, remedy)


def others_needed(policy: Policy) -> int:
    """Return how many silos must be asked beside those that have figures of their own, if this one is among them."""
    return policy.disclosure.min_silos + policy.protection.max_missing


def columns(case: Case) -> Sequence[Denial]:
    """Is every column open in the role in which the request uses it?"""
    reasons: list[Denial] = []
    for role, names in case.facts.used.items():
        asked = names if role != "filter" else tuple(name for name in names if not _is_coarser(case, name))
        if not case.source.unconditional[role].issuperset(asked):
            reasons += [denial for name in asked for denial in _column(case, role, name)]
    return reasons


def _is_coarser(case: Case, name: str) -> bool:
    """Tell whether a request only merges members of a column that it may group by: that tells less than each member."""
    return name in case.request.plan.coarsened and name in case.source.unconditional["dimension"]


def _column(case: Case, role: ColumnRole, name: str) -> Iterator[Denial]:
    """Yield why a column may not be used in a role."""
    rule = case.request.table.rule(name)
    open_roles = case.source.roles
    roles = open_roles.get(name)
    if roles is None or role not in roles:
        open_here = ", ".join(one for one, open_as in open_roles.items() if role in open_as) or "none"
        remedy = f"columns open as {role}: {open_here}"
        if roles is None:
            message = f"there is no column {name!r} open to any request"
            yield deny("COLUMN_CLOSED", rule.removesuffix(f".{case.request.table.origin(name)[1]}"), message, remedy)
        else:
            message = f"column {name!r} may be used as {' or '.join(roles)}, not as {role}"
            yield deny("COLUMN_ROLE", f"{rule}.roles", message, remedy)
        return
    column = case.source.source.columns[name]
    if role not in column.open_roles:
        message = f"the values of column {name!r} are not listed yet"
        remedy = "use another column" if column.keys is None else "find its keys, and ask its owner to adopt them"
        yield deny("COLUMN_ROLE", f"{rule}.domain", message, remedy)


def definitions(case: Case) -> Sequence[Denial]:
    """Is the definition of every used column within the policy's?"""
    reasons: list[Denial] = []
    read, source, now = case.facts.read, case.source, case.now
    for asked in case.request.table.columns:
        if asked.name not in read:
            continue
        own = source.definition(asked.name, now)
        if own is None or asked.__dict__ == own.__dict__:  # `columns` denies the use of a closed column
            continue
        for key, problem in _outside(asked, own):
            rule = f"{case.request.table.rule(asked.name)}.{key}"
            remedy = "take the table definition from the catalogue"
            reasons.append(deny("DEFINITION", rule, f"column {asked.name!r}: {problem}", remedy))
    return reasons


def _outside(asked: TableColumn, own: TableColumn) -> Iterator[tuple[str, str]]:
    """Yield each key of the policy's column that a request's definition exceeds, and by what."""
    if asked.type != own.type:
        yield "type", f"asked as {asked.type}, it is {own.type}"
    if asked.shape != own.shape:
        yield "shape", f"asked in the shape {list(asked.shape)}, it has {list(own.shape) or 'none'}"
    if asked.of != own.of:
        yield "of", f"asked as an array of {asked.of}, it is of {own.of}"
    if asked.low is not None and asked.high is not None:
        if asked.step != own.step:
            yield "step", f"asked in steps of {asked.step}, it has {own.step or 'none'}"
        elif own.low is None or own.high is None or asked.low < own.low or asked.high > own.high:
            yield "bounds", "asked with wider bounds than the policy's"
    if own.domain and not asked.domain:
        yield "domain", "asked without the policy's domain"
    if asked.domain != own.domain:
        yield from _other_values(asked, own)
    if own.can_be_missing and not asked.can_be_missing:
        yield "can_be_missing", "asked as never missing, but a cell can be missing here"
    if asked.domain and asked.unknown != own.unknown:
        yield "unknown", f"asked with {asked.unknown!r} for missing values, it is {own.unknown!r}"


def _other_values(asked: TableColumn, own: TableColumn) -> Iterator[tuple[str, str]]:
    """Yield why a domain that is not the policy's may not be asked: a long one is the policy's own and whole."""
    if isinstance(asked.domain, LongDomain):
        has = own.domain.name if isinstance(own.domain, LongDomain) else f"a list of {len(own.domain)} values"
        yield "domain", f"asked by the {asked.domain.size:,} values of {asked.domain.name}, the policy has {has}"
    elif any(value not in own.domain for value in asked.domain):
        yield "domain", "asked with values that the policy's domain lacks"


def bounding(case: Case) -> Sequence[Denial]:
    """Does the request bound each person as the policy's [privacy_unit] does, and assume no fewer silos?

    Fewer rows would be another threshold: two questions by 1 row and by 2 tell who has more than one. So would be
    another norm.
    """
    unit, table = case.policy.privacy_unit, case.request.table
    reasons: list[Denial] = []
    if table.max_rows != unit.max_rows:
        message = f"{counted(table.max_rows, 'row')} of one {unit.entity} asked, up to {unit.max_rows} enter a request"
        reasons.append(deny("MAX_ROWS", "privacy_unit.max_rows", message, f"ask with max_rows = {unit.max_rows}"))
    if table.max_norm != unit.max_norm:
        asked, own = _norm(table.max_norm), _norm(unit.max_norm)
        message = f"{asked} for the rows of one {unit.entity} asked, the policy has {own}"
        reasons.append(deny("MAX_NORM", "privacy_unit.max_norm", message, f"ask with {own}"))
    if table.max_silos < unit.max_silos:
        known = f"one {unit.entity} may be known to {counted(unit.max_silos, 'silo')}"
        message = f"{known}, the request assumes {table.max_silos}"
        reasons.append(deny("MAX_SILOS", "privacy_unit.max_silos", message, f"ask with max_silos = {unit.max_silos}"))
    return reasons


def _norm(norm: int | None) -> str:
    return "no max_norm" if norm is None else f"max_norm = {norm}"


def figures(case: Case) -> Sequence[Denial]:
    """May the figures of the answer leave, and are they few enough?"""
    disclosure, plan, groups = case.policy.disclosure, case.request.plan, max(case.facts.groups, _crossed(case))
    reasons: list[Denial] = []
    for function in case.facts.functions:
        if function not in disclosure.aggregates:
            allowed = ", ".join(name.upper() for name in disclosure.aggregates) or "none"
            message = f"{function.upper()} is not allowed"
            reasons.append(deny("AGGREGATE", "disclosure.aggregates", message, f"allowed: {allowed}"))
    if len(plan.dimensions) > disclosure.max_dimensions:
        message = f"{len(plan.dimensions)} dimensions, at most {disclosure.max_dimensions} are allowed"
        reasons.append(deny("MAX_DIMENSIONS", "disclosure.max_dimensions", message, "group by fewer columns"))
    if groups > disclosure.max_groups:
        message = f"{counted(groups, 'group')}, at most {disclosure.max_groups} are allowed"
        reasons.append(
            deny("MAX_GROUPS", "disclosure.max_groups", message, "group by fewer columns, or by wider buckets")
        )
    return reasons


def _crossed(case: Case) -> int:
    """Return the groups of which those of cases are sums, where they merge columns that are open for grouping alone.

    Merging two columns to two groups each would else show a cell of a crossing that `max_groups` keeps closed.
    """
    plan, table = case.request.plan, case.request.table
    merged = {name for name in plan.coarsened if name not in case.source.unconditional["filter"]}
    if not merged:
        return 1
    return math.prod(len(table.column(name).domain) or 1 for name in merged.union(case.facts.used["dimension"]))


def training(case: Case) -> Sequence[Denial]:
    """Is a training run within the limits of [training]?"""
    step, limits = case.request.plan.training, case.policy.training
    reasons: list[Denial] = []
    if step is None or limits is None:  # without a [training] section a step is refused as COMPUTATION_CLOSED
        return reasons
    if step.steps > limits.max_rounds:
        message = f"a run of {counted(step.steps, 'step')}, at most {limits.max_rounds} are allowed"
        reasons.append(
            deny("MAX_ROUNDS", "training.max_rounds", message, f"ask with {step.rounds_key} = {limits.max_rounds}")
        )
    if step.clip_norm > limits.clip_norm:
        message = f"gradients clipped at {step.clip_norm}, at most {limits.clip_norm} is allowed"
        reasons.append(
            deny("CLIP_NORM", "training.clip_norm", message, f"ask with {step.clip_key} = {limits.clip_norm}")
        )
    if step.unit not in limits.units:
        message = f'the noise of a run with unit = "{step.unit}" hides no single person but as a part of the silo'
        reasons.append(deny("TRAINING_UNIT", "training.units", message, 'train with unit = "person"'))
    least = case.policy.disclosure.min_cohort
    if step.cohort is not None and step.cohort < least:
        message = f"groups of {step.cohort} persons would be shown, fewer than {least} are not"
        reasons.append(deny("MIN_COHORT", "disclosure.min_cohort", message, f"ask with min_cohort = {least}"))
    return reasons
