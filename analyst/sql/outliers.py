"""Whether a few silos' conditions would spoil the answer of all: compared before they enter any price.

Of some conditions the strictest holds for everybody: the smallest delta, the most silos that may know a person, the
greatest minimum cohort. Promise: where a silo's is far from what most silos say, nothing is asked, at no cost, until
the analyst names the silos to ask.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import median_high, median_low

from analyst.errors import SqlError
from policies.budget.accountant import micro_rho_of
from policies.requests.catalogue import Catalogue

_MOST_NOISE = 1.25  # times as wide as by what most silos say
_MOST_COHORT = 10.0  # times as many persons
_EPSILON = 1.0  # at which deltas are compared


def _noise_of(delta: float) -> float:
    """Return how wide noise is by a delta, in units that do not matter."""
    return 1 / math.sqrt(micro_rho_of(_EPSILON, delta))


def _deltas(silos: Mapping[str, Catalogue]) -> Mapping[str, float]:
    return {silo: _noise_of(float(one.delta)) for silo, one in silos.items()}


# What is compared: its words, by how much more it may be than what most say, how much it is, and what it would do.
_CONDITIONS: Sequence[tuple[str, float, Callable[[Mapping[str, Catalogue]], Mapping[str, float]], str]] = (
    ("delta", _MOST_NOISE, _deltas, "the noise of every figure would be {times} times as wide"),
    (
        "max_silos",
        _MOST_NOISE,
        lambda silos: {silo: one.max_silos for silo, one in silos.items()},
        "the noise of every figure would be {times} times as wide",
    ),
    (
        "min_cohort",
        _MOST_COHORT,
        lambda silos: {silo: max(one.min_cohort, 1) for silo, one in silos.items()},
        "groups {times} times as large would be withheld, after they were paid for",
    ),
)


def check_outliers(silos: Mapping[str, Catalogue]) -> None:
    """Raise SqlError if conditions of a few silos, which hold for all, are far stricter than what most silos say."""
    for key, most, measured, effect in _CONDITIONS:
        found = measured(silos)
        usual = median_low(sorted(found.values()))
        far = [silo for silo, value in found.items() if value > most * usual]
        if not far:
            continue
        worst = max(far, key=lambda silo: found[silo])
        said = f"{key} = {getattr(silos[worst], key)}"
        common = median_high([getattr(one, key) for silo, one in silos.items() if silo not in far])
        others = ",".join(silo for silo in silos if silo not in far)
        times = f"{found[worst] / usual:.3g}"
        raise SqlError(
            f"{', '.join(far)} would spoil everybody's answer: by {said}, where most silos say {common},"
            f" {effect.format(times=times)}",
            f"ask the others alone: --silos {others}; or name {', '.join(far)} too, to accept it",
        )
