"""An audit: the shares and gaps of groups that are large enough to be shown, as tables of numbers.

A model's owners see these tables at their silo, an analyst where policies release them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from policies.fairness.counts import Counts, merged
from policies.fairness.gaps import MEASURES, calibration_of, measured, rates_of
from policies.fairness.mending import TARGETS, thresholds
from policies.fairness.shares import ALPHA, Floats, Interval, z_of
from policies.fitted import Listing, line

_ENDS = f"{100 * ALPHA / 2:g} %", f"{100 * (1 - ALPHA / 2):g} %"
_TWO = 2  # groups, which are compared


@dataclass(frozen=True, slots=True)
class Audit:
    """What an audit found; `gaps` are 0 where groups are alike, by the names of `MEASURES`."""

    gaps: Mapping[str, Interval]
    listings: tuple[Listing, ...]
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
    listings = [_gaps_shown(gaps)]
    for name, shares in rates_of(shown).items():
        values, (lows, highs) = shares.values, shares.ends(z_of(ALPHA))
        numbers = zip(shown.groups, shares.trials, values, lows, highs, strict=True)
        lines = tuple(line(group, own) for group, *own in numbers)
        listings.append(Listing(name=name, headings=("rows", "share", *_ENDS), lines=lines))
    if shown.bins is not None:
        listings += [_calibration(shown), _mending(shown, shown.bins, threshold, edges)]
    return Audit(gaps, tuple(listings), tuple(notes))


def _gaps_shown(gaps: Mapping[str, Interval]) -> Listing:
    lines = tuple(line(name, (one.value, one.low, one.high)) for name, one in gaps.items())
    return Listing(name="gaps between groups", headings=("gap", *_ENDS), lines=lines)


def _calibration(counts: Counts) -> Listing:
    found = calibration_of(counts)
    lines = tuple(
        line(group, own)
        for group, *own in zip(counts.groups, found.promised, found.happened, found.errors, strict=True)
    )
    return Listing(name="calibration", headings=("promised", "happened", "standard error"), lines=lines)


def _mending(counts: Counts, bins: Floats, threshold: float, edges: Floats | None) -> Listing:
    """Return the thresholds by group that would make the groups alike, and what each group has at them."""
    found = [thresholds(bins, target, threshold, edges) for target in TARGETS]
    numbers = zip(counts.groups, *(column for one in found for column in (one.values, one.rates)), strict=True)
    lines = tuple(line(group, own) for group, *own in numbers)
    headings = tuple(heading for target in TARGETS for heading in (target, "rate"))
    return Listing(name="thresholds by group", headings=headings, lines=lines)
