"""A policy and a request in plain words, for the person who answers for them."""

import json
import re
from collections.abc import Iterator

from policies.model import MICRO, ConsentColumn, ConsentTable, Policy
from policies.request import Aggregate, Both, Compare, Either, IsNull, Not, OneOf, Plan, Predicate, Request
from policies.training import Step


def worded_request(request: Request) -> str:
    """Return what a request asks, in one sentence."""
    plan = request.plan
    if isinstance(plan, Step):
        features = ", ".join(plan.features)
        run = f"run of {plan.steps} steps"
        return f"train {plan.label} from {features} in {request.table.name}, a {run} ({plan.release})"
    return worded_plan(plan, request.table.name)


def worded_plan(plan: Plan, table: str) -> str:
    """Return a question in the form of the SQL it was."""
    text = f"{', '.join(_aggregate(one) for one in plan.aggregates)} of {table}"
    if plan.where is not None:
        text += f" where {_predicate(plan.where)}"
    return text + (f" by {', '.join(plan.group_by)}" if plan.group_by else "")


def _aggregate(one: Aggregate) -> str:
    return f"{one.function.upper()}({one.column or '*'})"


def _predicate(predicate: Predicate) -> str:
    match predicate:
        case Both():
            return "(" + " and ".join(map(_predicate, predicate.operands)) + ")"
        case Either():
            return "(" + " or ".join(map(_predicate, predicate.operands)) + ")"
        case Not():
            return f"not {_predicate(predicate.operand)}"
        case IsNull():
            return f"{predicate.column} is missing"
        case OneOf():
            return f"{predicate.column} in ({', '.join(map(_literal, predicate.values))})"
        case Compare():
            return f"{predicate.column} {predicate.op} {_literal(predicate.value)}"


def _literal(value: str) -> str:
    """Return a number or a truth value bare, anything else as JSON in ASCII: an analyst wrote it, a person reads it."""
    return value if re.fullmatch(r"-?[0-9]+(\.[0-9]+)?|true|false", value) else json.dumps(value)


def worded_policy(policy: Policy) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return the policy as headings with sentences below them."""
    return tuple(
        (heading, sentences)
        for heading, sentences in (
            ("Who and what", tuple(_who(policy))),
            ("Who may ask, and for what", tuple(_analysts(policy))),
            ("What may be asked", tuple(_data(policy))),
            ("Consent", tuple(_consent(policy))),
            ("Budget", tuple(_budget(policy))),
            ("What leaves", tuple(_leaves(policy))),
            ("Approvals and times", tuple(_approvals(policy))),
        )
        if sentences
    )


def _who(policy: Policy) -> Iterator[str]:
    unit = policy.privacy_unit
    yield f"{policy.silo.controller} ({policy.silo.sector}, {policy.silo.jurisdiction}) answers for these data."
    yield f"What is protected is one {unit.entity}: at most {unit.max_rows} of their rows enter an answer."
    if unit.max_silos > 1:
        yield f"One {unit.entity} may be known to {unit.max_silos} silos; the noise counts on it."
    if policy.policy is not None:
        term = f"from {policy.policy.valid_from:%Y-%m-%d} until {policy.policy.valid_until:%Y-%m-%d}"
        yield f"Version {policy.policy.version} of {policy.policy.id}, valid {term}."
    if policy.mode == "trial":
        yield "This is a trial policy: it needs no signature and runs in one trust domain only."


def _analysts(policy: Policy) -> Iterator[str]:
    for name, analyst in policy.analysts.items():
        purposes = " and ".join(analyst.purposes) or "nothing"
        yield f"{name} may ask for {purposes} until {analyst.until:%Y-%m-%d}."
    for name, purpose in policy.purposes.items():
        kinds = " and ".join(purpose.computations) or "nothing"
        yield f"{name} rests on {purpose.legal_basis} and allows {kinds}."
    if not policy.analysts:
        yield "Nobody may ask."


def _data(policy: Policy) -> Iterator[str]:
    for name, source in policy.sources.items():
        opened = [key for key, column in source.columns.items() if column.roles]
        closed = [key for key, column in source.columns.items() if not column.roles]
        kind = "answered with noise" if source.release == "private" else "never queried, trains registered models only"
        yield f"{name} ({kind}): {', '.join(opened) or 'nothing'} may be used."
        if closed:
            yield f"{name}: closed to every request: {', '.join(closed)}."


def _consent(policy: Policy) -> Iterator[str]:
    for name, purpose in policy.purposes.items():
        match purpose.consent:
            case "opt-in":
                yield f"For {name} only those are counted who have agreed."
            case "opt-out":
                yield f"For {name} everybody is counted who has not objected."
            case "none":
                yield f"For {name} consent is not asked."
    match policy.consent:
        case ConsentTable():
            yield f"Decisions are read from {policy.consent.source} at every request, so a withdrawal counts at once."
        case ConsentColumn():
            yield f"The column {policy.consent.column} carries the decision."
            yield f"If it is older than {policy.consent.stale_after_hours:g} hours, nothing is answered."
        case None:
            pass


def _budget(policy: Policy) -> Iterator[str]:
    budget = policy.budget
    lifetime = f"rho {budget.lifetime_micro / MICRO:g} for one person, ever"
    yield f"All answers together may cost {lifetime}; nothing refreshes that."
    for limit in budget.limits:
        own = "" if limit.per_analyst_rho is None else f", of one analyst rho {limit.per_analyst_rho:g}"
        yield f"{limit.purpose} may spend rho {limit.rho:g} in a {limit.window.replace('calendar-', '')}{own}."
    least, most = budget.request_micro
    yield f"One request may cost rho {least / MICRO:g} to {most / MICRO:g}; below that it would be all noise."


def _leaves(policy: Policy) -> Iterator[str]:
    disclosure = policy.disclosure
    figures = ", ".join(disclosure.aggregates).upper() or "no figure"
    groups = f"at most {disclosure.max_groups} groups in {disclosure.max_dimensions} columns"
    yield f"What may be asked for: {figures}, {groups}."
    yield f"An answer needs at least {disclosure.min_silos} silos."
    yield f"Groups whose noisy count is below {disclosure.min_cohort} are not shown."
    accepted = ", ".join(policy.protection.accept) or "none"
    count = policy.protection.max_colluding
    yield f"Sums are made by {accepted}; {count} silo{'s' if count > 1 else ''} may collude with the aggregator."
    if policy.training is not None:
        training = policy.training
        yield f"A training run may take {training.max_rounds} steps and cost rho {training.max_rho_per_run:g}."


def _approvals(policy: Policy) -> Iterator[str]:
    for rule in policy.approvals:
        kind = {None: "Every request", "query": "Every question", "training": "Every training run"}[rule.when.kind]
        purpose = "" if rule.when.purpose is None else f" for {rule.when.purpose}"
        least = "" if rule.when.rho_at_least is None else f" that costs rho {rule.when.rho_at_least:g} or more"
        people = ", ".join(rule.of)
        yield f"{kind}{purpose}{least} needs {rule.need} of {people}; it lasts {rule.expires_hours} hours."
    if policy.limits is not None:
        if policy.limits.hours_utc is not None:
            yield f"Requests are answered from {policy.limits.hours_utc.replace('-', ' to ')} UTC."
        if policy.limits.days is not None:
            yield f"They are answered on {', '.join(policy.limits.days)}."
        if policy.limits.requests_per_day is not None:
            yield f"One analyst may ask {policy.limits.requests_per_day} requests a day."
    if policy.retention is not None:
        retention = policy.retention
        for days, what in (
            (retention.results_days, "models"),
            (retention.encrypted_contributions_days, "traces of rounds"),
            (retention.audit_days, "entries of the log and requests for approval"),
        ):
            if days is not None:
                yield f"After {days} days {what} are erased, and the log says so."
