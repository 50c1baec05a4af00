"""Contradictions between the sections of a policy, and settings that have no effect in this version.

The checks read the document, not the validated policy, so an invalid section hides no problem between the others. They
skip values of a wrong type, as the validation of the sections reports those.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any, NamedTuple, get_args

from policies.document.policy import BUILT_NOISE, BUILT_SECURITY_BITS, Policy
from policies.networks.names import NETWORKS, PACKED
from policies.periods import most_periods
from policies.requests.computations import OPENED
from policies.requests.key_search import KeySearch
from policies.requests.noised_families import WITHOUT_NOISE
from policies.requests.query import Aggregate, opened_by
from policies.units import MAX_DOMAIN

Path = tuple[str, ...]
# What requests of this version can ask for; a policy may already name more.
BUILT_COMPUTATIONS = OPENED
BUILT_AGGREGATES = frozenset(map(opened_by, get_args(Aggregate.model_fields["function"].annotation)))
# A name that opens nothing, as what it asks for is another question.
BY_BUCKETS = {"histogram": 'this opens nothing: HISTOGRAM asks COUNT by buckets, which "count" and a filter open'}
MIN_HONEST = 3  # silos of a sum that do not collude, this one included
_NOT_BUILT = "this version cannot do it, so every request for it is denied"


class Finding(NamedTuple):
    """A problem or a warning, with its path in the document."""

    path: Path
    text: str


def meant(found: object, known: Iterable[str]) -> str:
    """Return `(found X; did you mean 'Y')`, without a suggestion if no known value is similar."""
    names = list(known)
    close = difflib.get_close_matches(str(found), names, 1)
    suggestion = f"; did you mean {close[0]!r}" if close else f"; expected one of: {', '.join(names) or 'none'}"
    return f"(found {str(found)[:60]!r}{suggestion})"


def problems(document: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield every contradiction between the sections of a document."""
    yield from _head(document)
    yield from _sources(document)
    yield from _consent(document)
    yield from _purposes(document)
    yield from _declared_time(document)
    yield from _audited(document)
    own = _section(document, "silo").get("id")
    if own is not None and own in _names(_section(document, "protection").get("must_include")):
        yield Finding(("protection", "must_include"), f"{own!r} is this silo, which is always in; remove it")
    analysts = _section(document, "analysts")
    for name in analysts:
        # Otherwise removing this analyst would give the name to the domain's entry, with that entry's rights.
        wildcard = f"*@{name.partition('@')[2]}"
        if name != wildcard and wildcard in analysts:
            yield Finding(("analysts", name), f"{wildcard!r} names this analyst too; remove one of the two")


def _section(document: Any, name: str) -> Mapping[str, Any]:
    found = document.get(name) if isinstance(document, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _audited(document: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield the columns of an audit's groups that no source opens for audits: no model would ever leave."""
    columns = [_section(source, "columns") for source in _section(document, "sources").values()]
    for name in _names(_section(_section(document, "training"), "audit").get("by")):
        if not any("audit" in _names(_section(one, name).get("roles")) for one in columns):
            text = f'no source has a column {name!r} with the role "audit"; add the role, or take {name!r} away'
            yield Finding(("training", "audit", "by"), text)


def _entries(document: Any, name: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    found = document.get(name) if isinstance(document, Mapping) else None
    for index, one in enumerate(found if isinstance(found, tuple) else ()):
        if isinstance(one, Mapping):
            yield index, one


def _names(found: Any) -> Iterator[str]:
    yield from (one for one in found if isinstance(one, str)) if isinstance(found, tuple) else ()


def _head(document: Mapping[str, Any]) -> Iterator[Finding]:
    if document.get("mode") != "production":
        return
    head = document.get("policy")
    if not isinstance(head, Mapping):
        text = 'mode = "production" needs id, version, valid_from, valid_until and signed_by'
        yield Finding(("policy",), text)
        return
    if "signed_by" not in head:
        yield Finding(("policy", "signed_by"), 'mode = "production" needs signed_by = { need = ..., of = [...] }')
    version = head.get("version")
    if type(version) is int and version > 1 and "previous" not in head:
        text = f"version {version} needs previous, the sha256: of the file of the version before"
        yield Finding(("policy", "previous"), text)


def _sources(document: Mapping[str, Any]) -> Iterator[Finding]:
    unit = _section(document, "privacy_unit").get("id_column")
    for name, source in _section(document, "sources").items():
        path, columns = ("sources", name, "columns"), _section(source, "columns")
        if isinstance(unit, str) and columns:
            own = columns.get(unit)
            if own is None:
                yield Finding(path, f"there is no {unit!r}, the privacy_unit.id_column")
            elif isinstance(own, Mapping):
                if own.get("roles"):
                    text = "the id_column may have no role; set roles = []"
                    yield Finding((*path, unit, "roles"), text)
                if own.get("scale", 1) != 1:
                    yield Finding((*path, unit, "scale"), "the id_column may have no scale")
                if own.get("type") in ("date", "array"):
                    article = "a" if own["type"] == "date" else "an"
                    yield Finding((*path, unit, "type"), f"{article} {own['type']} is no id_column")
        if isinstance(source, Mapping):
            yield from _times(name, source, columns)


def _times(name: str, source: Mapping[str, Any], columns: Mapping[str, Any]) -> Iterator[Finding]:
    time_column, lookback = source.get("time_column"), source.get("lookback_days")
    dates = [key for key, column in columns.items() if isinstance(column, Mapping) and column.get("type") == "date"]
    if isinstance(time_column, str) and columns and time_column not in dates:
        text = f"there is no date column of that name {meant(time_column, dates)}"
        yield Finding(("sources", name, "time_column"), text)
    if lookback is not None and time_column is None:
        yield Finding(("sources", name, "lookback_days"), "lookback_days needs time_column, which it counts back by")
    for key in dates:
        column, path = columns[key], ("sources", name, "columns", key)
        if not column.get("roles"):
            continue
        if key != time_column or type(lookback) is not int:
            text = "an open date column must be the source's time_column, with lookback_days: they give its values"
            yield Finding(path, text)
        elif isinstance(column.get("granularity"), str):
            count = most_periods(column["granularity"], lookback)
            if count >= MAX_DOMAIN:
                text = f"{count} periods lie within lookback_days, fewer than {MAX_DOMAIN} are possible; take longer"
                yield Finding((*path, "granularity"), text)


def _consent(document: Mapping[str, Any]) -> Iterator[Finding]:
    consent = _section(document, "consent")
    for name, purpose in _section(document, "purposes").items():
        mode = purpose.get("consent", "none") if isinstance(purpose, Mapping) else "none"
        if mode in ("opt-in", "opt-out") and "consent" not in document:
            text = f"{mode!r} needs a [consent] section that says where decisions stand"
            yield Finding(("purposes", name, "consent"), text)
    decisions = consent.get("source")
    if isinstance(decisions, str) and decisions.startswith("env:") and "stale_after_hours" in consent:
        text = "a database does not say when it was last fed; remove it: the decisions are read at every request"
        yield Finding(("consent", "stale_after_hours"), text)
    column = consent.get("column")
    if not isinstance(column, str) or consent.get("mode") != "column":
        return
    for name, source in _section(document, "sources").items():
        columns = _section(source, "columns")
        if columns and _section(columns, column).get("type") != "bool":
            yield Finding(("sources", name, "columns"), f"there is no bool {column!r} for consent")
        if isinstance(source, Mapping) and source.get("kind") == "postgres":
            text = 'a database does not say when its rows were last fed; keep decisions in a table, mode = "table"'
            yield Finding(("sources", name, "kind"), text)


def _declared_time(document: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield every rate of [compute] without the number that it is multiplied by."""
    compute, consent = _section(document, "compute"), _section(document, "consent")
    hint = "`consilo-silo doctor` proposes a power of two"
    if "row_nanoseconds" in compute:
        for name, source in _section(document, "sources").items():
            if isinstance(source, Mapping) and "rows_up_to" not in source:
                yield Finding(("sources", name), f"compute.row_nanoseconds needs rows_up_to here; {hint}")
    fixed, most = compute.get("fixed_seconds"), compute.get("seconds")
    if _is_more(fixed, most):
        yield Finding(("compute", "fixed_seconds"), f"more than seconds = {most}, so every request would be refused")
    if "decision_nanoseconds" in compute and "decisions_up_to" not in consent:
        if consent.get("mode") == "table":
            yield Finding(("consent",), f"compute.decision_nanoseconds needs decisions_up_to here; {hint}")
        else:
            text = "there is no table of decisions whose reading could take time; remove it"
            yield Finding(("compute", "decision_nanoseconds"), text)


def _is_more(one: Any, other: Any) -> bool:
    numbers = (int, float, Decimal)
    return isinstance(one, numbers) and isinstance(other, numbers) and one > other


def _purposes(document: Mapping[str, Any]) -> Iterator[Finding]:
    known = list(_section(document, "purposes"))
    if not known:
        return

    def check(name: Any, path: Path) -> Iterator[Finding]:
        if isinstance(name, str) and name not in known:
            yield Finding(path, f"not in purposes {meant(name, known)}")

    for index, limit in _entries(document.get("budget"), "limits"):
        yield from check(limit.get("purpose"), ("budget", "limits", str(index), "purpose"))
    for index, rule in _entries(document, "approvals"):
        path = ("approvals", str(index), "when", "purpose")
        yield from check(_section(rule, "when").get("purpose"), path)
    for analyst, entry in _section(document, "analysts").items():
        for name in _names(entry.get("purposes") if isinstance(entry, Mapping) else None):
            yield from check(name, ("analysts", analyst, "purposes"))


def warnings(policy: Policy) -> Iterator[Finding]:
    """Yield every setting that has no effect yet, or that its author may not have meant."""
    yield from _not_built(policy)
    yield from _exact_alone(policy)
    yield from _networks(policy)
    yield from _people(policy)
    yield from _few_honest(policy)
    yield from _no_job(policy)
    yield from _unapproved(policy)
    if "model-to-analyst" in policy.disclosure.release and "model" not in policy.disclosure.release:
        yield Finding(("disclosure", "release"), 'model-to-analyst opens nothing without "model": no model leaves')
    for name, purpose in policy.purposes.items():
        if purpose.recipients_in is None and policy.mode == "production":
            text = "absent: an answer may go wherever the roster's parties are"
            yield Finding(("purposes", name, "recipients_in"), text)
    for name, analyst in policy.analysts.items():
        named = [one for one in analyst.purposes if policy.purposes[one].recipients_in is not None]
        if named and analyst.jurisdiction is None:
            text = f"absent, so no answer may go to this analyst for: {', '.join(named)}"
            yield Finding(("analysts", name, "jurisdiction"), text)


def _few_honest(policy: Policy) -> Iterator[Finding]:
    """Yield that an analyst who picks the silos can leave this one beside fewer than two honest others."""
    colluding = policy.protection.max_colluding
    least = max(policy.disclosure.min_silos, 1 + len(policy.protection.must_include))
    if least - colluding < MIN_HONEST:
        others = least - colluding - 1
        beside = f"{others} other{'s' if others != 1 else ''}" if others > 0 else "nobody"
        text = (
            f"an analyst may choose {least} silos; if {colluding} of them collude, they see this silo's total beside"
            f" that of {beside}: take min_silos = {colluding + MIN_HONEST}, or name others in"
            " protection.must_include"
        )
        yield Finding(("disclosure", "min_silos"), text)


def _no_job(policy: Policy) -> Iterator[Finding]:
    """Yield the columns that are open to jobs, each of which crosses all its columns, and may stand alone only."""
    for name, source in policy.sources.items():
        for key, column in source.columns.items():
            if column.sole_dimension and not {"feature", "label"}.isdisjoint(column.roles):
                text = "no job can use it, as a job crosses its columns: take the roles feature and label away"
                yield Finding(("sources", name, "columns", key, "sole_dimension"), text)


def _unapproved(policy: Policy) -> Iterator[Finding]:
    """Yield the purposes for which keys may be found without anybody's approval."""
    whens = [rule.when for rule in policy.approvals if rule.when.rho_at_least is None]
    covered = {when.purpose for when in whens if when.kind in (None, KeySearch.approved_as)}
    kind = KeySearch.model_fields["kind"].default
    for name, purpose in policy.purposes.items():
        has_keys = any(one.keys is not None for source in policy.sources.values() for one in source.columns.values())
        if has_keys and kind in purpose.computations and not covered & {None, name}:
            text = f'{kind}: keys may be found without approval; add [[approvals]] with when = {{ kind = "{kind}" }}'
            yield Finding(("purposes", name, "computations"), text)


def _not_built(policy: Policy) -> Iterator[Finding]:
    for name, source in policy.sources.items():
        for key, column in source.columns.items():
            if column.domain == "discover" and column.keys is None:
                text = 'domain = "discover": every request is denied; with the role "key", and keys, they can be found'
                yield Finding(("sources", name, "columns", key, "domain"), text)
    for name, purpose in policy.purposes.items():
        for one in purpose.computations:
            if one not in BUILT_COMPUTATIONS:
                yield Finding(("purposes", name, "computations"), f"{one}: {_NOT_BUILT}")
    for aggregate in policy.disclosure.aggregates:
        if aggregate not in BUILT_AGGREGATES:
            yield Finding(("disclosure", "aggregates"), f"{aggregate}: {BY_BUCKETS.get(aggregate, _NOT_BUILT)}")
    if policy.protection.security_bits > BUILT_SECURITY_BITS:
        text = f"this version gives {BUILT_SECURITY_BITS} bits, so every request is denied"
        yield Finding(("protection", "security_bits"), text)
    if policy.protection.noise != BUILT_NOISE:
        text = f"this version shares the noise among the silos ({BUILT_NOISE}), so every request is denied"
        yield Finding(("protection", "noise"), text)


def _exact_alone(policy: Policy) -> Iterator[Finding]:
    """Yield the models that no source here can be asked for, as they have no form with noise."""
    exact = [name for name, source in policy.sources.items() if source.release == "exact"]
    for name, purpose in policy.purposes.items():
        for one in purpose.computations:
            if one in WITHOUT_NOISE and not exact:
                text = f'{one}: it has no form with noise, and no source has release = "exact": every request is denied'
                yield Finding(("purposes", name, "computations"), text)
    if exact and policy.training is not None and policy.training.dp == "required":
        text = f"required, so no model of {', '.join(exact)} is fitted, whose release is exact: take optional"
        yield Finding(("training", "dp"), text)


def _networks(policy: Policy) -> Iterator[Finding]:
    """Yield the networks that a purpose names and that the silo does not train, or that nobody could approve."""
    allowed = None if policy.training is None else policy.training.networks
    for name, purpose in policy.purposes.items():
        for one in (one for one in purpose.computations if one in NETWORKS):
            path = ("purposes", name, "computations")
            if allowed is None:
                yield Finding(path, f"{one}: without [training.networks] every request for a network is denied")
            elif one == PACKED and allowed.allow == "registered":
                text = f'{one}: [training.networks] allow = "registered", so every packed network is denied'
                yield Finding(path, text)
    if allowed is not None and allowed.allow == "approved" and not policy.people:
        text = "approved, and nobody is in [people], so no packed network can be approved"
        yield Finding(("training", "networks", "allow"), text)


def _people(policy: Policy) -> Iterator[Finding]:
    signers = policy.policy.signed_by if policy.policy is not None else None
    if signers is not None:
        yield from _keyless(policy, ("policy", "signed_by"), signers.of, signers.need, "sign")
        if signers.need == len(signers.of):
            text = f"need = {signers.need} of {len(signers.of)}: a version that loosens anything can never be signed"
            yield Finding(("policy", "signed_by"), text)
    for index, rule in enumerate(policy.approvals):
        yield from _keyless(policy, ("approvals", str(index), "of"), rule.of, rule.need, "approve")


def _keyless(policy: Policy, path: Path, of: tuple[str, ...], need: int, verb: str) -> Iterator[Finding]:
    missing = [name for name in of if name not in policy.people]
    keys: dict[str, list[str]] = {}
    for name in (name for name in of if name in policy.people):
        keys.setdefault(policy.people[name].key, []).append(name)
    never = f"; so {need} of them can never {verb}" if len(keys) < need else ""
    if missing:
        yield Finding(path, f"without a key under [people] nobody can {verb}: {', '.join(missing)}{never}")
    for names in (names for names in keys.values() if len(names) > 1):
        yield Finding(path, f"one key is one person, whatever names it has: {' and '.join(names)}{never}")
