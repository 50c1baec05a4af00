"""What of a source may be used, how, and what may leave of it."""

from collections.abc import Iterator, Sequence

from policies.decision.case import Case
from policies.decision.denial_codes import deny
from policies.requests.denials import Denial
from policies.requests.tables import TableColumn
from policies.units import Role


def release(case: Case) -> Sequence[Denial]:
    """Is the source of the release that the request is for, and may such a result leave?"""
    policy, plan, source = case.policy, case.request.plan, case.source.source
    reasons: list[Denial] = []
    if plan.release != source.release:
        message = f"the source is {source.release}, the request is {plan.release}"
        rule = f"sources.{case.request.table.name}.release"
        reasons.append(deny("RELEASE", rule, message, plan.release_remedy(source.release)))
    if not case.facts.cost and (policy.training is None or policy.training.dp == "required"):
        message = "training without noise is not allowed"
        reasons.append(deny("RELEASE", "training.dp", message, 'train with release = "private"'))
    if plan.result not in policy.disclosure.release:
        allowed = ", ".join(policy.disclosure.release) or "nothing"
        message = f"a {plan.result} may not leave"
        reasons.append(deny("RELEASE", "disclosure.release", message, f"what may leave: {allowed}"))
    return reasons


def columns(case: Case) -> Sequence[Denial]:
    """Is every column open in the role that it is used in?"""
    prefix = f"sources.{case.request.table.name}.columns"
    return [
        denial
        for role, names in case.facts.used.items()
        for name in names
        for denial in _column(case, prefix, role, name, len(names))
    ]


def _column(case: Case, prefix: str, role: Role, name: str, used: int) -> Iterator[Denial]:
    """Yield why a column may not be used in a role, beside others of that role (`used` in all)."""
    open_roles = case.source.roles
    roles = open_roles.get(name)
    if roles is None or role not in roles:
        open_here = ", ".join(one for one, open_as in open_roles.items() if role in open_as) or "none"
        remedy = f"columns open as {role}: {open_here}"
        if roles is None:
            message = f"there is no column {name!r} open to any request"
            yield deny("COLUMN_CLOSED", prefix, message, remedy)
        else:
            message = f"column {name!r} may be used as {' or '.join(roles)}, not as {role}"
            yield deny("COLUMN_ROLE", f"{prefix}.{name}.roles", message, remedy)
        return
    column = case.source.source.columns[name]
    if column.domain == "discover":
        message = f"the values of column {name!r} would have to be discovered, which no version can do yet"
        yield deny("NOT_BUILT", f"{prefix}.{name}.domain", message, "use another column")
    elif role == "dimension" and column.sole_dimension and used > 1:
        message = f"column {name!r} may be grouped by alone only"
        yield deny(
            "SOLE_DIMENSION", f"{prefix}.{name}.sole_dimension", message, "group by this column, or by the others"
        )


def definitions(case: Case) -> Sequence[Denial]:
    """Is every column that is read defined within the policy?"""
    reasons: list[Denial] = []
    for asked in case.request.table.columns:
        own = case.source.definition(asked.name, case.now)
        if own is None or asked.name not in case.facts.read or asked.__dict__ == own.__dict__:
            continue  # a closed one is denied by `columns` where it is used; what is not used is not read
        for key, problem in _outside(asked, own):
            rule = f"sources.{case.request.table.name}.columns.{asked.name}.{key}"
            remedy = "take the table definition from the catalogue"
            reasons.append(deny("DEFINITION", rule, f"column {asked.name!r}: {problem}", remedy))
    return reasons


def _outside(asked: TableColumn, own: TableColumn) -> Iterator[tuple[str, str]]:
    """Yield the key of a policy's column and what a request's definition of it has beyond it."""
    if asked.type != own.type:
        yield "type", f"asked as {asked.type}, it is {own.type}"
    if asked.low is not None and asked.high is not None:
        if asked.step != own.step:
            yield "step", f"asked in steps of {asked.step}, it has {own.step or 'none'}"
        elif own.low is None or own.high is None or asked.low < own.low or asked.high > own.high:
            yield "bounds", "asked with wider bounds than the policy's"
    if own.domain and not asked.domain:
        yield "domain", "asked without the policy's domain"
    if asked.domain != own.domain and not set(asked.domain) <= set(own.domain):
        yield "domain", "asked with values that the policy's domain lacks"
    if asked.domain and asked.unknown != own.unknown:
        yield "unknown", f"asked with {asked.unknown!r} for missing values, it is {own.unknown!r}"


def bounding(case: Case) -> Sequence[Denial]:
    """Does the request bound each person as the policy's [privacy_unit] does, or closer?"""
    unit, table = case.policy.privacy_unit, case.request.table
    reasons: list[Denial] = []
    if table.max_rows > unit.max_rows:
        message = f"{table.max_rows} rows of one {unit.entity} asked, at most {unit.max_rows} enter a request"
        reasons.append(deny("MAX_ROWS", "privacy_unit.max_rows", message, f"ask with max_rows = {unit.max_rows}"))
    if table.max_silos < unit.max_silos:
        known = f"one {unit.entity} may be known to {unit.max_silos} silos"
        message = f"{known}, the request assumes {table.max_silos}"
        reasons.append(deny("MAX_SILOS", "privacy_unit.max_silos", message, f"ask with max_silos = {unit.max_silos}"))
    return reasons


def figures(case: Case) -> Sequence[Denial]:
    """Are the figures of an answer, and their number, within what may leave?"""
    disclosure, plan, groups = case.policy.disclosure, case.request.plan, case.facts.groups
    reasons: list[Denial] = []
    for function in plan.functions:
        if function not in disclosure.aggregates:
            allowed = ", ".join(name.upper() for name in disclosure.aggregates) or "none"
            message = f"{function.upper()} is not allowed"
            reasons.append(deny("AGGREGATE", "disclosure.aggregates", message, f"allowed: {allowed}"))
    if len(plan.dimensions) > disclosure.max_dimensions:
        message = f"{len(plan.dimensions)} dimensions, at most {disclosure.max_dimensions} are allowed"
        reasons.append(deny("MAX_DIMENSIONS", "disclosure.max_dimensions", message, "group by fewer columns"))
    if groups > disclosure.max_groups:
        message = f"{groups} groups, at most {disclosure.max_groups} are allowed"
        reasons.append(deny("MAX_GROUPS", "disclosure.max_groups", message, "group by fewer columns"))
    return reasons


def training(case: Case) -> Sequence[Denial]:
    """Is a run of training within what the silo takes part in?"""
    step, limits = case.request.plan.training, case.policy.training
    reasons: list[Denial] = []
    if step is None or limits is None:  # a step where nothing is said of training is refused as COMPUTATION_CLOSED
        return reasons
    if step.steps > limits.max_rounds:
        message = f"a run of {step.steps} steps, at most {limits.max_rounds} are allowed"
        reasons.append(deny("MAX_ROUNDS", "training.max_rounds", message, f"ask with steps = {limits.max_rounds}"))
    if step.clip_norm > limits.clip_norm:
        message = f"gradients clipped at {step.clip_norm}, at most {limits.clip_norm} is allowed"
        reasons.append(deny("CLIP_NORM", "training.clip_norm", message, f"ask with clip = {limits.clip_norm}"))
    return reasons
