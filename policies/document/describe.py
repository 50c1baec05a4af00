"""A policy in words, for the person who is responsible for it."""

from collections.abc import Collection, Iterator
from datetime import datetime, time

from policies.budget.accountant import epsilon_of
from policies.budget.sampler import rho_delta
from policies.document.columns import Column
from policies.document.consistency import BUILT_AGGREGATES, BUILT_COMPUTATIONS, BY_BUCKETS
from policies.document.networks import Networks
from policies.document.policy import BUILT_NOISE, BUILT_SECURITY_BITS, Aggregators, Policy, Vectors
from policies.document.purpose_codes import DUO
from policies.document.purposes import ConsentColumn, ConsentTable
from policies.units import MICRO, counted

_RELEASES = {"private": "answered with noise", "exact": "never queried, trains registered models only"}
_RESULTS = {
    "query-result": "query-result",
    "model": "model",
    "model-to-analyst": "model-to-analyst (the analyst receives the model of a run that asks for it)",
    "metrics": "metrics (figures of how good a model is, to the analyst)",
}


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
            ("How long it computes", tuple(_computing(policy))),
            ("Long vectors", tuple(_sending(policy))),
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
    if unit.max_norm is not None:
        yield f"The squares of how many of them are in each group add up to at most {unit.max_norm} squared."
    if unit.max_groups is not None:
        yield f"They are rows of at most {counted(unit.max_groups, 'group')}."
    if unit.max_silos > 1:
        yield f"One {unit.entity} may be known to {counted(unit.max_silos, 'silo')}; the noise counts on it."
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


def _figure(name: str) -> str:
    """Return an aggregate as it is opened."""
    if name in BY_BUCKETS:
        return f"{name.upper()} (which opens nothing: it is COUNT by buckets)"
    return _built(name.upper(), {one.upper() for one in BUILT_AGGREGATES})


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
        kind = _RELEASES.get(source.release, source.release)
        yield f"{name} ({kind}) is read from {source.uri} ({source.kind})."
        if source.lookback_days is not None:
            days = f"more than {source.lookback_days} days back"
            yield f"{name}: rows whose {source.time_column} lies {days} are not read."
        elif source.time_column is not None:
            yield f"{name}: {source.time_column} tells how old a row is."
        if source.adopts is not None:
            yield f"{name} is held to the table definition {source.adopts}, which silos agreed on."
        if source.one_row:
            yield f"{name} has one row of each person, which may stand beside the rows of other tables (JOIN)."
        opened = {key: column for key, column in source.columns.items() if column.roles}
        for key, column in opened.items():
            yield f"{name}: {key} ({', '.join(_column(column))}) may be used as {' or '.join(column.roles)}."
        if not opened:
            yield f"{name}: nothing may be used."
        closed = [f"{key} ({', '.join(_column(column))})" for key, column in source.columns.items() if not column.roles]
        if closed:
            yield f"{name}: closed to every request: {', '.join(closed)}."


def _column(column: Column) -> Iterator[str]:
    yield column.type if column.shape is None else f"array of {column.of}, shape {list(column.shape)}"
    yield column.class_
    if column.bounds is not None:
        unit = "" if column.unit is None else f" {column.unit}"
        yield f"{column.bounds[0]} to {column.bounds[1]}{unit}" + (f" by {column.step}" if column.step else "")
    elif column.unit is not None:
        yield f"in {column.unit}"
    if column.domain == "discover":
        yield "its values are not listed yet"
    elif column.domain is not None and column.domain_file is not None:
        yield f"one of the {len(column.domain):,} values in {column.domain_file} ({column.domain_hash})"
        yield f"{column.unknown} for all else"
    elif column.domain is not None:
        yield f"one of {'/'.join(map(str, column.domain))}"
        yield f"{column.unknown} for all else"
    if column.granularity is not None:
        yield f"by {column.granularity}"
    if column.missing == "zero":
        yield "a missing one counts as 0"
    if not column.can_be_missing:
        yield "never missing"
    if column.sole_dimension:
        yield "grouped by alone only"
    if column.keys is not None:
        yield column.keys.shape.in_words
    if column.narrow:
        yield "may be asked within narrower bounds or by fewer values, as a filter does"
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
            ends = "" if consent.expires_at is None else f", {consent.expires_at} that of its end"
            said = f"{consent.given_at} has the time of a consent, {consent.withdrawn_at} that of its withdrawal{ends}"
            yield f"The column {consent.subject} names the person, {consent.purpose} the purpose; {said}."
            if consent.receipt_id is not None:
                yield f"The column {consent.receipt_id} has the number of a record."
        case ConsentColumn():
            yield f"The column {consent.column} carries the decision."
        case None:
            pass
    if consent is not None and consent.stale_after_hours is not None:
        yield f"If decisions are older than {consent.stale_after_hours:g} hours, nothing is answered."


def _budget(policy: Policy) -> Iterator[str]:
    budget, delta = policy.budget, float(policy.budget.delta)
    lifetime = budget.lifetime_micro / MICRO
    shown = f"epsilon {epsilon_of(lifetime, rho_delta(delta)):.2f} at delta {delta:g}"
    yield f"All answers together may cost rho {lifetime:g} for one person, ever ({shown}); nothing refreshes that."
    for limit in budget.limits:
        own = "" if limit.per_analyst_rho is None else f", of one analyst rho {limit.per_analyst_rho:g}"
        yield f"{limit.purpose} may spend rho {limit.rho:g} in a {limit.window.replace('calendar-', '')}{own}."
    least, most = budget.request_micro
    yield f"One request may cost rho {least / MICRO:g} to {most / MICRO:g}; below that it would be all noise."


def _leaves(policy: Policy) -> Iterator[str]:
    disclosure, protection = policy.disclosure, policy.protection
    figures = ", ".join(map(_figure, disclosure.aggregates))
    groups = f"at most {counted(disclosure.max_groups, 'group')} in {counted(disclosure.max_dimensions, 'column')}"
    yield f"What may be asked for: {figures or 'no figure'}, {groups}."
    results = (_RESULTS.get(one, one) for one in disclosure.release)
    yield f"What may leave: {' and '.join(results) or 'nothing'}."
    if disclosure.own_metrics:
        yield "An evaluation may show the metrics of a model by the rows of this silo alone."
    yield f"An answer needs at least {counted(disclosure.min_silos, 'silo')}."
    yield f"Groups whose noisy count is below {disclosure.min_cohort} are not shown."
    accepted = ", ".join(protection.accept) or "none"
    count, missing = protection.max_colluding, protection.max_missing
    yield (
        f"Sums are made by {accepted}; {counted(count, 'silo')} of the whole federation may"
        " collude with the aggregator."
    )
    yield f"{missing or 'No'} silo{'s' if missing > 1 else ''} asked may be missing from a sum."
    if protection.must_include:
        yield f"No sum is made without {', '.join(protection.must_include)}."
    bits, noise = protection.security_bits, protection.noise
    if bits > BUILT_SECURITY_BITS or noise != BUILT_NOISE:
        yield _built(f"Sums are to have {bits} bits of security and {noise} noise", ()) + "."
    away, lying = policy.aggregators.max_unreachable, policy.aggregators.max_dishonest
    if policy.aggregators != Aggregators():
        others = "all but one" if lying is None else str(lying)
        yield f"A charge needs no more than {away} aggregators to be away; {others} of those that answer may lie."
    if policy.training is not None:
        training = policy.training
        steps = counted(training.max_rounds, "step")
        yield f"A training run may take {steps} and cost rho {training.max_rho_per_run:g}."
        yield f"The gradient of one person is at most {training.clip_norm} long; noise in every step is {training.dp}."
        if "silo" in training.units:
            yield "The noise of a run may hide what all rows of the silo change, and a person as a part of them."
        if (audit := training.audit) is not None:
            gap = f"a {audit.measure} gap between groups of {' and '.join(audit.by)} of at most {audit.max_gap}"
            at = f"at a threshold of {audit.threshold:g}"
            yield f"A model leaves, predicts and is exported only after an audit {at} that surely finds {gap}."
        yield from _networks(training.networks)


_ALLOWED = {
    "registered": "Of networks the families that the program ships are trained, and no others.",
    "approved": "Of networks the shipped families are trained, and packed files that a person named here has signed.",
    "any-graph": "Networks of any graph are trained: the shipped families, and whatever packed file an analyst sends.",
}


def _networks(networks: Networks | None) -> Iterator[str]:
    if networks is None:
        yield "No network is trained."
        return
    yield _ALLOWED[networks.allow]
    yield (
        f"A network has at most {networks.max_weights:,} weights, and a round of it takes at most"
        f" {networks.max_flops:,} operations, {networks.max_memory_mb:,} MB of memory and {networks.max_seconds} s."
    )


def _computing(policy: Policy) -> Iterator[str]:
    compute = policy.compute
    if compute is not None:
        if compute.seconds is not None:
            yield f"One computation may take {compute.seconds} s."
        if compute.memory_mb is not None:
            yield f"It may use {compute.memory_mb} MB of memory."
        if compute.threads is not None:
            yield f"It runs on {counted(compute.threads, 'thread')}."
        if compute.device != "cpu":
            where = "where it finds one" if compute.device == "auto" else "which it needs"
            yield f"Networks are computed on a CUDA device, {where}."
        if compute.partition_rows is not None:
            yield f"Questions on {compute.partition_rows} prepared rows and more are spread over its cluster."
        if compute.fixed_seconds is not None:
            rows = "" if compute.row_nanoseconds is None else f", {compute.row_nanoseconds} ns a row and part of it"
            each = compute.decision_nanoseconds
            decisions = "" if each is None else f", {each} ns a decision on consent"
            yield f"The declared time of a plan is {compute.fixed_seconds} s{rows}{decisions}."
            yield "A request that does not wait as long is refused before a row is read."
    for name, source in policy.sources.items():
        if source.rows_up_to is not None:
            yield f"{name}: the declared time is for {counted(source.rows_up_to, 'row')}; analysts see this number."
    if isinstance(policy.consent, ConsentTable) and policy.consent.decisions_up_to is not None:
        yield f"The declared time is for {policy.consent.decisions_up_to:,} decisions on consent."


def _sending(policy: Policy) -> Iterator[str]:
    vectors = policy.vectors
    if vectors != Vectors():
        yield f"A vector that the silo contributes has at most {vectors.max_values:,} values."
        yield f"A long one is sent at {vectors.bytes_per_second:,} bytes a second, which says how long rounds last."
        yield f"The state of a training run takes at most {vectors.max_state_mb:,} MB here."


_WHEN = {
    None: "Every request",
    "query": "Every question",
    "training": "Every training run",
    "key-search": "Every search for keys",
}


def _approvals(policy: Policy) -> Iterator[str]:
    for rule in policy.approvals:
        kind = _WHEN[rule.when.kind]
        purpose = "" if rule.when.purpose is None else f" for {rule.when.purpose}"
        rho = rule.when.rho_at_least
        least = "" if rho is None else f" that brings what its analyst has spent in the window to rho {rho:g} or more"
        people = ", ".join(rule.of)
        yield f"{kind}{purpose}{least} needs {rule.need} of {people}; it lasts {rule.expires_hours} hours."
    if policy.limits is not None:
        if policy.limits.hours_utc is not None:
            yield f"Requests are answered from {policy.limits.hours_utc.replace('-', ' to ')} UTC."
        if policy.limits.days is not None:
            yield f"They are answered on {', '.join(policy.limits.days)}."
        if policy.limits.requests_per_day is not None:
            yield f"One analyst may ask {counted(policy.limits.requests_per_day, 'request')} a day."
    if policy.retention is not None:
        retention = policy.retention
        for days, what in (
            (retention.results_days, "models"),
            (retention.encrypted_contributions_days, "traces of rounds"),
            (retention.audit_days, "entries of the log and requests for approval"),
        ):
            if days is not None:
                yield f"After {days} days {what} are erased, and the log says so."
