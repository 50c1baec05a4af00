"""The profile of a silo's rows in words and on disk: what the owner saw last, and what is different now.

Promise: figures that a bound, a domain, `max_rows` or `max_norm` could be chosen by are shown with one digit, since a
choice by the rows tells of them; the others are exact. The file is the owner's alone (0600), and no figure leaves it.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from federation.files import replace_file
from federation.operations.running import read_object
from policies.document.policy import Policy
from policies.units import counted, when

if TYPE_CHECKING:
    from silo_node.data.row_profile import Profile

Figures = Mapping[str, Any]  # of JSON
FILE = "rows-profile.json"
MAX_BYTES = 64 << 20
NOTE = "Choose no bound, domain, max_rows or max_norm by these figures: what is chosen by the rows tells of them."


def rounded(count: int) -> int:
    """Return a count with one digit: 1,234 is 1,000."""
    unit = int("1".ljust(len(str(count)), "0"))
    return (count + unit // 2) // unit * unit


def figures(profile: "Profile") -> dict[str, Any]:
    """Return a profile as JSON has it, with one digit where a choice by the rows would tell of them."""
    told: dict[str, Any] = {"note": NOTE, "sources": {}}
    for name, source in profile.sources.items():
        told["sources"][name] = {
            "rows": source.rows,
            "rows_without_an_id": source.nobody,
            "duplicated_rows": source.duplicates,
            "ids_alike": source.alike,
            "persons": source.persons,
            "rows_that_enter_about": rounded(source.kept),
            "persons_by_rows_about": {label: rounded(count) for label, count in source.histogram.items()},
            "columns": {
                key: {
                    "missing": one.missing,
                    "unreadable": one.unreadable,
                    "below_bounds_about": rounded(one.below),
                    "above_bounds_about": rounded(one.above),
                    "outside_domain_about": rounded(one.unlisted),
                }
                for key, one in source.columns.items()
            },
        }
    if profile.decisions is not None:
        told["decisions"] = asdict(profile.decisions)
    return told


def lines(now: Figures, before: Figures | None = None) -> Iterator[str]:
    """Yield the figures of a profile in words, with what an earlier one said otherwise."""
    earlier_sources = {} if before is None else before.get("sources", {})
    for name, source in now["sources"].items():
        earlier = earlier_sources.get(name, {})

        def told(key: str, one: Figures = source, other: Figures = earlier) -> str:
            return f"{one[key]:,}" + (f" (was {other[key]:,})" if key in other and other[key] != one[key] else "")

        yield (
            f"{name}: {told('rows')} rows of {told('persons')} persons, {told('rows_without_an_id')} without an id,"
            f" {told('duplicated_rows')} duplicated; about {told('rows_that_enter_about')} enter an answer"
        )
        if source.get("ids_alike"):
            yield (
                f"{name}: {source['ids_alike']:,} ids differ from another by case, leading zeros or blanks only; say in"
                " [privacy_unit] id_form which differences make no other person, or id_form = [] if all do"
            )
        by_rows = ", ".join(f"{count:,} have {label}" for label, count in source["persons_by_rows_about"].items())
        yield f"{name}: rows a person: about {by_rows or 'nobody has any'}"
        for key, column in source["columns"].items():
            if words := list(_column(column, earlier.get("columns", {}).get(key, {}))):
                yield f"{name}.{key}: {', '.join(words)}"
    if "decisions" in now:
        decided = now["decisions"]
        yield (
            f"decisions: {decided['decisions']:,}, of which {decided['naming_nobody']:,} name nobody who has a row;"
            f" {counted(decided['without'], 'person')} without one"
        )
        for key, reason in _WITHOUT_EFFECT.items():
            if decided.get(key):
                yield f"decisions: {decided[key]:,} have no effect: {reason}"
        if decided["ambiguous"]:
            yield (
                f"decisions: {decided['ambiguous']:,} objections take out more than one id, as each may be meant; say"
                " in [privacy_unit] id_form which differences make no other person"
            )


_WITHOUT_EFFECT = {
    "other_purposes": "no purpose of the policy has that name; say consent_values = [...] in the purpose's section",
    "untimed": "they were neither given nor withdrawn at a time",
    "to_come": "their time has not come",
}
_WORDS = {
    "missing": "{} missing",
    "unreadable": "{} unreadable, counted as missing",
    "below_bounds_about": "about {} below its bounds",
    "above_bounds_about": "about {} above its bounds",
    "outside_domain_about": "about {} outside its domain",
}


def _column(now: Figures, earlier: Figures) -> Iterator[str]:
    for key, words in _WORDS.items():
        is_other = key in earlier and earlier[key] != now[key]
        if now[key] or is_other:
            yield words.format(f"{now[key]:,}") + (f" (was {earlier[key]:,})" if is_other else "")


def read_last(home: Path) -> dict[str, Any] | None:
    """Return the profile that the owner saw last; None if there is none that can be read."""
    found = read_object(home / FILE, MAX_BYTES)
    is_whole = isinstance(found.get("figures"), dict) and all(
        isinstance(found.get(key, 0), int) and 0 <= found.get(key, 0) < 2**40 for key in ("shown_at", "first_shown_at")
    )
    return {"shown_at": 0, **found} if is_whole else None


def last_lines(home: Path) -> tuple[str, ...]:
    """Return the profile that the owner saw last in words, after the time of it; nothing if there is none."""
    last = read_last(home)
    if last is None:
        return ()
    try:
        return (f"as of {when(int(last['shown_at']))}", *lines(last["figures"]))
    except (KeyError, TypeError, ValueError, AttributeError):  # a file that somebody else wrote
        return ()


def beside_last(home: Path, profile: "Profile") -> list[str]:
    """Return a profile in words, with what differs from the one that was shown last; nothing is written."""
    last = read_last(home)
    return list(lines(figures(profile), None if last is None else last["figures"]))


def shown(home: Path, policy: Policy, profile: "Profile", now: int) -> list[str]:
    """Return a profile in words as `beside_last` does, and keep it as the last one where that can be."""
    told = beside_last(home, profile)
    with suppress(OSError):  # a directory that cannot be written to has no last profile
        keep(home, policy, profile, now)
    return told


def keep(home: Path, policy: Policy, profile: "Profile", now: int) -> None:
    """Keep a profile that was shown. Raises OSError.

    With it stay the bounds of the policy when one was first shown, until a silo has logged what changed since.
    """
    last = read_last(home) or {}
    first = {"first_shown_at": last.get("first_shown_at", now), "bounds": last.get("bounds", bounds_of(policy))}
    kept = {"shown_at": now, **first, "figures": figures(profile)}
    replace_file(home / FILE, json.dumps(kept, indent=1).encode(), 0o600)


def bounds_of(policy: Policy) -> dict[str, str]:
    """Return what could be chosen by the rows: max_rows, max_norm, and each column's bounds and domain, as text."""
    unit = policy.privacy_unit
    found = {
        "privacy_unit.max_rows": str(unit.max_rows),
        "privacy_unit.max_norm": "none" if unit.max_norm is None else str(unit.max_norm),
    }
    for name, source in policy.sources.items():
        for key, column in source.columns.items():
            where = f"sources.{name}.columns.{key}"
            if column.bounds is not None:
                found[f"{where}.bounds"] = f"[{column.bounds[0]}, {column.bounds[1]}]"
            if column.members:
                found[f"{where}.domain"] = column.domain_hash or ", ".join(map(str, column.members))
    return found


def chosen_after(home: Path, policy: Policy) -> tuple[int, tuple[str, ...]] | None:
    """Return when a profile was shown before bounds of the policy changed, and which; None if none did."""
    last = read_last(home)
    if last is None or not isinstance(last.get("bounds"), dict):
        return None
    now = bounds_of(policy)
    changed = tuple(key for key in now if key in last["bounds"] and last["bounds"][key] != now[key])
    return (int(last.get("first_shown_at", 0)), changed) if changed else None


def rebase(home: Path, policy: Policy) -> None:
    """Let the kept profile have the bounds of this policy, once their change is logged. Raises OSError."""
    last = read_last(home)
    if last is not None:
        kept = last | {"first_shown_at": last["shown_at"], "bounds": bounds_of(policy)}
        replace_file(home / FILE, json.dumps(kept, indent=1).encode(), 0o600)
