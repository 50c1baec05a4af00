"""An audit: the shares and gaps of groups that are large enough to be shown, as tables of numbers.

A model's owners see these tables at their silo, an analyst where policies release them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from policies.fairness.counts import Counts, merged
from policies.fairness.gaps import MEASURES, calibration_of, measured, rates_of
from policies.fairness.mending import TARGETS, thresholds
from policies.fairness.shares import ALPHA, Floats, Interval, z_of

_ENDS = f"{100 * ALPHA / 2:g} %", f"{100 * (1 - ALPHA / 2):g} %"
_TWO = 2  # groups, which are compared


@dataclass(frozen=True, slots=True)
class Section:
    """A table: its name, its headings, and of each line a name and numbers, None where there is none."""

    name: str
    headings: tuple[str, ...]
    lines: tuple[tuple[str, tuple[float | None, ...]], ...]


@dataclass(frozen=True, slots=True)
class Audit:
    """What an audit found; `gaps` are 0 where groups are alike, by the names of `MEASURES`."""

    gaps: Mapping[str, Interval]
    sections: tuple[Section, ...]
    notes: tuple[str, ...]

    @property
    def has_gaps(self) -> bool:
        """Whether two groups could be compared."""
        return bool(self.gaps)


def audit_of(counts: Counts, min_cohort: int, of: str, threshold: float = 0.5, edges: Floats | None = None) -> Audit:
    """Return the audit of counts by group, each of at least `min_cohort` persons; `of` names the groups' columns.

    `threshold` is the least score that was decided for, `edges` are those of the bins, where there are scores.
    """
    shown, small = merged(counts, min_cohort)
    notes = []
    if small:
        what = "left out" if len(shown.groups) + len(small) == len(counts.groups) else f"in {shown.groups[-1]!r}"
        names = ", ".join(small[:10]) + (f" and {len(small) - 10} more" if len(small) > 10 else "")
        notes.append(f"{what}: {of} = {names}, fewer than {min_cohort} persons each")
    if len(shown.groups) < _TWO:
        return Audit({}, (), (*notes, "too few groups: an audit compares two of min_cohort persons or more"))
    gaps = {name: MEASURES[name].gap(shown, ALPHA) for name in measured(shown)}
    sections = [_gaps_shown(gaps)]
    for name, shares in rates_of(shown).items():
        values, (lows, highs) = shares.values, shares.ends(z_of(ALPHA))
        numbers = zip(shown.groups, shares.trials, values, lows, highs, strict=True)
        lines = tuple((group, tuple(map(_known, own))) for group, *own in numbers)
        sections.append(Section(name, ("rows", "share", *_ENDS), lines))
    if shown.bins is not None:
        sections += [_calibration(shown), _mending(shown, shown.bins, threshold, edges)]
    return Audit(gaps, tuple(sections), tuple(notes))


def _gaps_shown(gaps: Mapping[str, Interval]) -> Section:
    lines = tuple((name, tuple(map(_known, (one.value, one.low, one.high)))) for name, one in gaps.items())
    return Section("gaps between groups", ("gap", *_ENDS), lines)


def _calibration(counts: Counts) -> Section:
    found = calibration_of(counts)
    lines = tuple(
        (group, tuple(map(_known, own)))
        for group, *own in zip(counts.groups, found.promised, found.happened, found.errors, strict=True)
    )
    return Section("calibration", ("promised", "happened", "standard error"), lines)


def _mending(counts: Counts, bins: Floats, threshold: float, edges: Floats | None) -> Section:
    """Return the thresholds by group that would make the groups alike, and what each group has at them."""
    found = [thresholds(bins, target, threshold, edges) for target in TARGETS]
    numbers = zip(counts.groups, *(column for one in found for column in (one.values, one.rates)), strict=True)
    lines = tuple((group, tuple(map(_known, own))) for group, *own in numbers)
    headings = tuple(heading for target in TARGETS for heading in (target, "rate"))
    return Section("thresholds by group", headings, lines)


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
