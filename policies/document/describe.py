"""A policy and a request in plain words, for the person who answers for them."""

from collections.abc import Collection, Iterator
from datetime import datetime, time

from policies.budget.accountant import epsilon_of
from policies.document.columns import Column
from policies.document.consistency import BUILT_AGGREGATES, BUILT_COMPUTATIONS
from policies.document.policy import BUILT_NOISE, BUILT_SECURITY_BITS, Policy
from policies.document.purpose_codes import DUO
from policies.document.purposes import ConsentColumn, ConsentTable
from policies.requests.request import Request
from policies.units import MICRO


def worded_request(request: Request) -> str:
    """Return what a request asks, in one sentence."""
    return request.plan.in_words(request.table.name)


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
    unit, silo = policy.privacy_unit, policy.silo
    yield f"{silo.controller} ({silo.sector}, {silo.jurisdiction}) answers for the data of the silo {silo.id}."
    yield f"Whom to ask: {silo.contact}."
    yield f"What is protected is one {unit.entity}, told by {unit.id_column}."
    yield f"At most {unit.max_rows} of their rows enter an answer."
    if unit.max_groups is not None:
        yield f"They are rows of at most {unit.max_groups} groups."
    if unit.max_silos > 1:
        yield f"One {unit.entity} may be known to {unit.max_silos} silos; the noise counts on it."
    head = policy.policy
    if head is not None:
        term = f"from {_until(head.valid_from)} until {_until(head.valid_until)}"
        yield f"Version {head.version} of {head.id}, valid {term}."
        if head.previous is not None:
            yield f"It follows the file {head.previous}."
        if head.signed_by is not None:
            signers = f"{head.signed_by.need} of {', '.join(head.signed_by.of)} must sign it"
            yield f"{signers}, and one more if it loosens anything."
    for name, person in policy.people.items():
        yield f"{name} signs and decides with the key {person.key}."
    if policy.mode == "trial":
        yield "This is a trial policy: it needs no signature and runs in one trust domain only."


def _until(when: datetime) -> str:
    return f"{when:%Y-%m-%d}" if when.time() == time() else f"{when:%Y-%m-%d %H:%M:%S}"


def _built(word: str, known: Collection[str]) -> str:
    return word if word in known else f"{word} (not built yet, so refused)"


def _analysts(policy: Policy) -> Iterator[str]:
    for name, analyst in policy.analysts.items():
        purposes = " and ".join(analyst.purposes) or "nothing"
        where = f" in {analyst.jurisdiction}" if analyst.jurisdiction is not None else ""
        yield f"{name}{where} may ask for {purposes} until {_until(analyst.until)}, with the key {analyst.key}."
    for name, purpose in policy.purposes.items():
        kinds = " and ".join(_built(one, BUILT_COMPUTATIONS) for one in purpose.computations) or "nothing"
        yield f"{name} rests on {purpose.legal_basis} and allows {kinds}."
        if purpose.vocabulary is not None:
            meaning = f": {DUO[purpose.vocabulary]}" if purpose.vocabulary in DUO else ""
            yield f"{name} is {purpose.vocabulary}{meaning}."
        if purpose.ethics_ref is not None:
            yield f"{name} has the ethics approval {purpose.ethics_ref}."
        if purpose.recipients_in is not None:
            yield f"{name} stays in {' and '.join(purpose.recipients_in) or 'this silo'}."
    if not policy.analysts:
        yield "Nobody may ask."


def _data(policy: Policy) -> Iterator[str]:
    for name, source in policy.sources.items():
        kind = "answered with noise" if source.release == "private" else "never queried, trains registered models only"
        yield f"{name} ({kind}) is read from {source.uri} ({source.kind})."
        if source.lookback_days is not None:
            days = f"more than {source.lookback_days} days back"
            yield f"{name}: rows whose {source.time_column} lies {days} are not read."
        elif source.time_column is not None:
            yield f"{name}: {source.time_column} tells how old a row is."
        opened = {key: column for key, column in source.columns.items() if column.roles}
        for key, column in opened.items():
            yield f"{name}: {key} ({', '.join(_column(column))}) may be used as {' or '.join(column.roles)}."
        if not opened:
            yield f"{name}: nothing may be used."
        closed = [f"{key} ({', '.join(_column(column))})" for key, column in source.columns.items() if not column.roles]
        if closed:
            yield f"{name}: closed to every request: {', '.join(closed)}."


def _column(column: Column) -> Iterator[str]:
    yield column.type
    yield column.class_
    if column.bounds is not None:
        unit = "" if column.unit is None else f" {column.unit}"
        yield f"{column.bounds[0]} to {column.bounds[1]}{unit}" + (f" by {column.step}" if column.step else "")
    elif column.unit is not None:
        yield f"in {column.unit}"
    if column.domain == "discover":
        yield _built("its values are to be discovered", ())
    elif column.domain is not None:
        yield f"one of {'/'.join(map(str, column.domain))}"
        yield f"{column.unknown} for all else"
    if column.granularity is not None:
        yield f"by {column.granularity}"
    if column.missing == "zero":
        yield "a missing one counts as 0"
    if column.sole_dimension:
        yield "grouped by alone only"
    if column.from_ is not None:
        yield f"{column.from_!r} in the file"
    if column.scale != 1:
        yield f"times {column.scale}"


def _consent(policy: Policy) -> Iterator[str]:
    for name, purpose in policy.purposes.items():
        match purpose.consent:
            case "opt-in":
                yield f"For {name} only those are counted who have agreed."
            case "opt-out":
                yield f"For {name} everybody is counted who has not objected."
            case "none":
                yield f"For {name} consent is not asked."
        if purpose.consent_values is not None:
            yield f"Decisions call {name} {' or '.join(purpose.consent_values)}."
    consent = policy.consent
    match consent:
        case ConsentTable():
            yield f"Decisions are read from {consent.source} at every request, so a withdrawal counts at once."
            ends = "" if consent.expires_at is None else f", when it ends in {consent.expires_at}"
            said = f"when it was given in {consent.given_at}, withdrawn in {consent.withdrawn_at}{ends}"
            yield f"The person stands in {consent.subject}, the purpose in {consent.purpose}, {said}."
            if consent.receipt_id is not None:
                yield f"The number of a record stands in {consent.receipt_id}."
        case ConsentColumn():
            yield f"The column {consent.column} carries the decision."
        case None:
            pass
    if consent is not None and consent.stale_after_hours is not None:
        yield f"If decisions are older than {consent.stale_after_hours:g} hours, nothing is answered."


def _budget(policy: Policy) -> Iterator[str]:
    budget, delta = policy.budget, float(policy.budget.delta)
    lifetime = budget.lifetime_micro / MICRO
    shown = f"epsilon {epsilon_of(lifetime, delta):.2f} at delta {delta:g}"
    yield f"All answers together may cost rho {lifetime:g} for one person, ever ({shown}); nothing refreshes that."
    for limit in budget.limits:
        own = "" if limit.per_analyst_rho is None else f", of one analyst rho {limit.per_analyst_rho:g}"
        yield f"{limit.purpose} may spend rho {limit.rho:g} in a {limit.window.replace('calendar-', '')}{own}."
    least, most = budget.request_micro
    yield f"One request may cost rho {least / MICRO:g} to {most / MICRO:g}; below that it would be all noise."


def _leaves(policy: Policy) -> Iterator[str]:
    disclosure, protection = policy.disclosure, policy.protection
    figures = ", ".join(_built(one.upper(), {one.upper() for one in BUILT_AGGREGATES}) for one in disclosure.aggregates)
    groups = f"at most {disclosure.max_groups} groups in {disclosure.max_dimensions} columns"
    yield f"What may be asked for: {figures or 'no figure'}, {groups}."
    yield f"What may leave: {' and '.join(disclosure.release) or 'nothing'}."
    yield f"An answer needs at least {disclosure.min_silos} silos."
    yield f"Groups whose noisy count is below {disclosure.min_cohort} are not shown."
    accepted = ", ".join(protection.accept) or "none"
    count, missing = protection.max_colluding, protection.max_missing
    yield f"Sums are made by {accepted}; {count} silo{'s' if count > 1 else ''} may collude with the aggregator."
    yield f"{missing or 'No'} silo{'s' if missing > 1 else ''} may drop out of a sum."
    bits, noise = protection.security_bits, protection.noise
    if bits > BUILT_SECURITY_BITS or noise != BUILT_NOISE:
        yield _built(f"Sums are to have {bits} bits of security and {noise} noise", ()) + "."
    if policy.training is not None:
        training = policy.training
        yield f"A training run may take {training.max_rounds} steps and cost rho {training.max_rho_per_run:g}."
        yield f"The gradient of one person is at most {training.clip_norm} long; noise in every step is {training.dp}."


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
