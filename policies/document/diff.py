"""Compare two versions of a policy: which changes loosen it, and which tighten it.

A change loosens if the new version may allow a request that the old one refuses, or protects an allowed one less; a
smaller max_rows admits the same questions, by fewer rows. A change of a key without a rule here counts as loosening, so
a forgotten key costs a signature, never privacy.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from pydantic import BaseModel

from policies.document.columns import Column
from policies.document.load import dotted, printable
from policies.document.policy import Limits, Policy
from policies.document.purposes import contains
from policies.document.section import seconds_of
from policies.units import HOUR_S, ROWS_UP_TO

Effect = Literal["loosens", "tightens", "neither"]
Rule = Callable[[Any, Any], Effect]


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """One value that two versions state differently; None where one of them does not state it."""

    path: tuple[str, ...]
    effect: Effect
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.effect:<8}  {printable(dotted(self.path))}: {self._difference()}"

    def _difference(self) -> str:
        if not isinstance(self.old, tuple) or not isinstance(self.new, tuple) or self.path[-1] in ("bounds", "shape"):
            return f"{shown(self.old)} -> {shown(self.new)}"
        more, less = (
            ", ".join(map(shown, _without(one, other))) for one, other in ((self.new, self.old), (self.old, self.new))
        )
        told = [f"{verb} {members}" for verb, members in (("adds", more), ("removes", less)) if members]
        return "; ".join(told) or "the same members in another order"


def _without(one: tuple[Any, ...], other: tuple[Any, ...]) -> list[Any]:
    """Return the members of one list that the other lacks; a domain may have a million."""
    known = {repr(member) for member in other}
    return [member for member in one if repr(member) not in known]


def compare(old: Policy, new: Policy) -> tuple[PolicyChange, ...]:
    """Return every change from `old` to `new`, in the order of the policy's sections."""
    return tuple(
        replace(change, effect="loosens") if _frees(change, old) else change for change in _changes(old, new, ())
    )


def _frees(change: PolicyChange, old: Policy) -> bool:
    """Tell whether a removed value was what made another section of the old version refuse."""
    match change.path:
        case ("people", name):  # this person could reject; without the key a rejection no longer counts
            return change.new is None and any(name in rule.of for rule in old.approvals)
        case ("sources", source, "lookback_days"):  # an unread month spends nothing, so its limit refuses nothing
            dates = (column for column in old.sources[source].columns.values() if column.type == "date")
            return any(limit.window == "data-month" for limit in old.budget.limits) or any(map(_is_kept_whole, dates))
        case ("sources", source, "columns", name, "bounds" | "domain"):
            return _is_kept_whole(old.sources[source].columns[name])
        case _:
            return False


def _is_kept_whole(column: Column) -> bool:
    """Tell whether a column is open, and requests may not narrow it: a policy that does makes of it a filter."""
    return bool(column.roles) and "filter" not in column.roles and not column.narrow


def loosens(old: Policy, new: Policy) -> bool:
    """Tell whether the new version loosens anything."""
    return any(change.effect == "loosens" for change in compare(old, new))


def shown(value: Any) -> str:
    """Return a value as it is written in a policy, uncut: the part cut off could be the part that loosens."""
    match value:
        case None:
            text = "absent"
        case bool():
            text = str(value).lower()
        case str():
            text = json.dumps(value, ensure_ascii=not value.isprintable())
        case datetime():
            text = value.isoformat().replace("+00:00", "Z")
        case tuple():
            text = f"[{', '.join(shown(one) for one in value)}]"
        case BaseModel():
            fields = value.model_dump(by_alias=True, exclude_none=True)
            text = "{ " + ", ".join(f"{key} = {shown(one)}" for key, one in fields.items()) + " }"
        case dict():
            text = "{ " + ", ".join(f"{key} = {shown(one)}" for key, one in value.items()) + " }"
        case Decimal():
            text = f"{value.normalize():f}"
        case _:
            text = str(value)
    return text


def _changes(old: Any, new: Any, path: tuple[str, ...]) -> Iterator[PolicyChange]:
    if old == new:
        return
    if isinstance(old, BaseModel) and type(old) is type(new):
        for name, field in type(old).model_fields.items():
            key = field.alias or name
            before, after = getattr(old, name), getattr(new, name)
            if (*path, key) == ("policy", "signed_by") or not _is_listed((*path, key)):
                yield from _changes(before, after, (*path, key))
            else:
                yield from _changes(_named(before), _named(after), (*path, key))
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys((*old, *new)):
            yield from _changes(old.get(key), new.get(key), (*path, key))
        return
    yield PolicyChange(path, _rule(path)(old, new), old, new)


def _is_listed(path: tuple[str, ...]) -> bool:
    return path in (("budget", "limits"), ("approvals",))


def _named(entries: Sequence[Any]) -> dict[str, Any]:
    """Return the entries of a list by name, so that their order is not a change."""
    found: dict[str, Any] = {}
    for entry in entries:
        about = shown(entry.when) if hasattr(entry, "when") else f"{entry.purpose} {entry.window}"
        number = 2
        name = about
        while name in found:
            name, number = f"{about} {number}", number + 1
        found[name] = entry
    return found


def _any_change(old: Any, new: Any) -> Effect:
    return "loosens"


def _no_effect(old: Any, new: Any) -> Effect:
    return "neither"


def _more(old: Any, new: Any) -> Effect:
    """A greater value is looser; no value is the loosest."""
    return "loosens" if new is None or (old is not None and new > old) else "tightens"


def _less(old: Any, new: Any) -> Effect:
    """A smaller value is looser; no value is the loosest."""
    return "loosens" if new is None or (old is not None and new < old) else "tightens"


def _opens(old: Any, new: Any) -> Effect:
    """A setting that opens: having it is looser than not having it."""
    return "loosens" if new is not None else "tightens"


def _limits(old: Any, new: Any) -> Effect:
    """A setting that limits: not having it is looser than having it."""
    return "loosens" if old is not None and new is not None else _reverse(_opens(old, new))


def _subset(old: Any, new: Any) -> Effect:
    """A longer list is looser; a list with other members loosens too; no list is the loosest."""
    if old is None or new is None:
        return "tightens" if old is None else "loosens"
    if not isinstance(old, tuple) or not isinstance(new, tuple):
        return "loosens"
    if set(old) == set(new):
        return "neither"
    return "tightens" if set(new) < set(old) else "loosens"


def _fewer(old: Any, new: Any) -> Effect:
    """A shorter list is tighter; a list that is new or removed admits other requests."""
    return "loosens" if old is None or new is None else _subset(old, new)


def _units(old: Any, new: Any) -> Effect:
    """The units whose change the noise of training may hide: persons alone, where none are named."""
    before, after = set(old or ("person",)), set(new or ("person",))
    if before == after:
        return "neither"
    return "tightens" if after < before else "loosens"


def _required(old: Any, new: Any) -> Effect:
    """A list of what must be there: a longer one is tighter; one with other members loosens too."""
    before, after = set(old or ()), set(new or ())
    if before == after:
        return "neither"
    return "tightens" if before < after else "loosens"


def _members(old: Any, new: Any) -> Effect:
    """The people who approve: one more can approve, one fewer can reject, and both loosen; order does not matter."""
    return "neither" if old is not None and new is not None and set(old) == set(new) else "loosens"


def _trusted(old: Any, new: Any) -> Effect:
    """How many aggregators may lie: fewer is looser; no number is all but one, the tightest."""
    return _reverse(_more(old, new))


def _reverse(effect: Effect) -> Effect:
    return {"loosens": "tightens", "tightens": "loosens", "neither": "neither"}[effect]  # type: ignore[return-value]


def _ordered(*from_loosest: Any) -> Rule:
    def judged(old: Any, new: Any) -> Effect:
        if old not in from_loosest or new not in from_loosest:
            return "loosens"
        return "tightens" if from_loosest.index(new) > from_loosest.index(old) else "loosens"

    return judged


def _bounds(old: Any, new: Any) -> Effect:
    return "tightens" if old and new and old[0] <= new[0] and new[1] <= old[1] else "loosens"


def _regions(old: Any, new: Any) -> Effect:
    if old is None or new is None:
        return "tightens" if old is None else "loosens"
    return "tightens" if all(any(contains(region, place) for region in old) for place in new) else "loosens"


def _hours(old: Any, new: Any) -> Effect:
    before, after = Limits(hours_utc=old), Limits(hours_utc=new)
    grows = any(after.is_open_at(minute) and not before.is_open_at(minute) for minute in range(24 * 60))
    return "loosens" if grows else "tightens"


def _column(old: Column | None, new: Column | None) -> Effect:
    """A column that is new or removed; a closed one opens nothing."""
    there = new if old is None else old
    return "neither" if there is not None and not there.roles else _opens(old, new)


def _longer(old: Any, new: Any) -> Effect:
    before, after = (HOUR_S if one is None else seconds_of(one) for one in (old, new))
    return "tightens" if after < before else "loosens" if after > before else "neither"


def _rows(old: Any, new: Any) -> Effect:
    """Fewer rows declare shorter times, and let more backends carry a sum; where none are stated, there is a number."""
    before, after = (ROWS_UP_TO if one is None else one for one in (old, new))
    return "loosens" if after < before else "tightens" if after > before else "neither"


def _keep_less(old: Any, new: Any) -> Effect:
    """Erasing evidence earlier is looser; without a value it is kept for ever."""
    return _reverse(_more(old, new))


_RULES: tuple[tuple[str, Rule], ...] = (
    ("mode", _ordered("trial", "production")),
    ("policy", _limits),
    ("policy/(id|version|previous)", _no_effect),
    ("policy/valid_from", _less),
    ("policy/valid_until", _more),
    ("policy/signed_by", _limits),
    ("policy/signed_by/need", _less),
    ("policy/signed_by/of", _subset),
    ("silo/(controller|contact|sector)", _no_effect),
    ("privacy_unit/entity", _no_effect),
    ("privacy_unit/(max_rows|max_norm|max_groups)", _more),
    ("privacy_unit/max_silos", _less),
    ("sources/NAME", _opens),
    ("sources/NAME/lookback_days", _more),
    ("sources/NAME/read", _ordered("prepared", "every-request")),
    ("sources/NAME/prepared_for", _longer),
    ("sources/NAME/rows_up_to", _rows),
    ("sources/NAME/one_row", _ordered(True, False)),
    ("sources/NAME/adopts", _no_effect),  # the columns themselves are compared
    ("sources/NAME/columns/NAME", _column),
    (
        "sources/NAME/columns/NAME/class",
        _ordered("public", "internal", "confidential", "sensitive", "special-category", "identifier"),
    ),
    ("sources/NAME/columns/NAME/roles", _subset),
    ("sources/NAME/columns/NAME/domain", _fewer),
    ("sources/NAME/columns/NAME/(domain_file|domain_hash)", _no_effect),  # the values themselves are compared
    ("sources/NAME/columns/NAME/bounds", _bounds),
    ("sources/NAME/columns/NAME/keys", _opens),
    ("sources/NAME/columns/NAME/keys/(length|most)", _more),
    ("sources/NAME/columns/NAME/unit", _no_effect),
    ("sources/NAME/columns/NAME/can_be_missing", _ordered(False, True)),
    ("sources/NAME/columns/NAME/sole_dimension", _ordered(False, True)),
    ("sources/NAME/columns/NAME/narrow", _ordered(True, False)),
    ("consent", _limits),
    ("consent/receipt_id", _no_effect),
    ("consent/expires_at", _limits),
    ("consent/stale_after_hours", _more),
    ("consent/decisions_up_to", _less),
    ("purposes/NAME", _opens),
    ("purposes/NAME/consent", _ordered("none", "opt-out", "opt-in")),
    ("purposes/NAME/computations", _subset),
    ("purposes/NAME/ethics_ref", _no_effect),
    ("purposes/NAME/recipients_in", _regions),
    ("budget/delta", _more),
    ("budget/lifetime/rho", _more),
    ("budget/per_request", _limits),
    ("budget/per_request/max_rho", _more),
    ("budget/per_request/min_rho", _less),
    ("budget/limits/NAME", _limits),
    ("budget/limits/NAME/(rho|per_analyst_rho)", _more),
    ("disclosure/(min_cohort|min_silos)", _less),
    ("disclosure/(max_dimensions|max_groups)", _more),
    ("disclosure/(release|aggregates)", _subset),
    ("disclosure/own_metrics", _ordered(True, False)),
    ("protection/accept", _subset),
    ("protection/(security_bits|max_colluding)", _less),
    ("protection/max_missing", _more),
    ("protection/must_include", _required),
    ("aggregators/max_unreachable", _more),
    ("aggregators/max_dishonest", _trusted),
    ("training", _opens),
    ("training/(max_rounds|clip_norm|max_rho_per_run)", _more),
    ("training/units", _units),
    ("training/audit", _limits),
    ("training/audit/max_gap", _more),
    ("training/audit/threshold", _no_effect),
    ("training/dp", _ordered("optional", "required")),
    ("training/networks", _opens),
    ("training/networks/allow", _ordered("any-graph", "approved", "registered")),
    ("training/networks/max_(weights|flops|memory_mb|seconds)", _more),
    ("compute", _limits),
    ("compute/seconds", _more),
    ("compute/(memory_mb|threads|partition_rows|device)", _no_effect),
    ("compute/(fixed_seconds|row_nanoseconds|decision_nanoseconds)", _less),
    ("vectors/(max_values|bytes_per_second|max_state_mb)", _more),
    ("people/NAME", _opens),
    ("analysts/NAME", _opens),
    ("analysts/NAME/purposes", _subset),
    ("analysts/NAME/until", _more),
    ("analysts/NAME/jurisdiction", lambda old, new: "tightens" if new is None else "loosens"),
    ("approvals/NAME", _limits),
    ("approvals/NAME/need", _less),
    ("approvals/NAME/of", _members),
    ("approvals/NAME/expires_hours", _more),
    ("limits", _limits),
    ("limits/hours_utc", _hours),
    ("limits/days", _subset),
    ("limits/requests_per_day", _more),
    ("retention", _any_change),
    ("retention/(results_days|encrypted_contributions_days)", _more),
    ("retention/audit_days", _keep_less),
)
_COMPILED = [(re.compile(pattern.replace("/", "\0").replace("NAME", r"[^\0]+")), rule) for pattern, rule in _RULES]


def _rule(path: tuple[str, ...]) -> Rule:
    joined = "\0".join(path)
    return next((rule for pattern, rule in _COMPILED if pattern.fullmatch(joined)), _any_change)
