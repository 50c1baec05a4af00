"""Whether a model may leave, by the largest gap that a job or a policy bears. It fails closed: no audit, no release."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from policies.fairness.gaps import MEASURES
from policies.fairness.shares import Interval


@dataclass(frozen=True, slots=True)
class GapLimit:
    """The largest gap of a measure with which a model leaves; `rule` is where it is stated, such as a policy's key."""

    measure: str
    most: float
    rule: str = "audit.max_gap"
    threshold: Decimal = Decimal("0.5")  # the least score that is decided for: audits at another one do not count

    def __post_init__(self) -> None:
        """Refuse what is no limit."""
        if self.measure not in MEASURES:
            raise ValueError(f"no measure {self.measure!r}, expected one of {', '.join(MEASURES)}")
        if not 0 <= self.most < 1:
            raise ValueError(f"max_gap must be from 0 to below 1, found {self.most}")


def judged_gap(gaps: Mapping[str, Interval] | None, limits: tuple[GapLimit, ...]) -> str | None:
    """Return why a model may not leave, or None if it may; `gaps` are those of its audit, None where there is none.

    A gap is judged by the outer end of its interval: so large it may be. A gap that is unknown is too large.
    """
    for limit in limits:
        if gaps is None:
            allowed = f"{limit.rule} allows a {limit.measure} gap of {limit.most:g}"
            return f"{allowed}, and no audit of the model that counts has run"
        found = gaps.get(limit.measure)
        if found is None:
            return f"{limit.rule} is on {limit.measure}, which the audit did not measure"
        if math.isnan(found.value) or not found.high <= limit.most:
            shown = "unknown" if math.isnan(found.value) else f"{found.value:.4f}"
            return (
                f"the {limit.measure} gap is {shown}, and may be {found.high:.4f} (the outer end of its interval);"
                f" {limit.rule} allows {limit.most:g}"
            )
    return None
