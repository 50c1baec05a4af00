"""Which rounds an epsilon buys, and which epsilon a number of rounds needs, by what silos say before a run.

Pure. Prices are in micro-rho at the request's `max_silos`; a silo whose policy has fewer charges less. All rounds of a
run have one price.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from policies.budget.accountant import epsilon_of, micro_rho_of
from policies.requests.catalogue import Catalogue
from policies.requests.standing import Standing, scarcest
from policies.requests.tables import Table
from policies.units import MAX_STEPS, MICRO, counted

_ROUNDED = 250_000  # by less than one in so many a silo charges less, as variances are rounded up
_DIGITS = 3  # of an epsilon that is proposed


@dataclass(frozen=True, slots=True)
class Limits:
    """What these silos let a run and each of its rounds cost, in micro-rho."""

    whole: int | None  # None: no silo says what is left
    most: int  # of a round
    least: int  # of a round

    @property
    def needed(self) -> int:
        """The least price of a round that is one."""
        return max(1, self.least)


@dataclass(frozen=True, slots=True)
class Affordable:
    """What a job could ask instead: `rounds` at its price, or its `planned` ones at an epsilon between two.

    `rounds` is None where its own number can be asked; both epsilons are None where none buys so many rounds.
    """

    planned: int
    rounds: int | None
    least_epsilon: float | None
    most_epsilon: float | None

    @property
    def in_words(self) -> str:
        """What fits, in words; empty where the job does."""
        if self.rounds is None:
            return ""
        said = [f"it could have {counted(self.rounds, 'round')}" if self.rounds else "it buys no round"]
        if self.least_epsilon is not None and self.most_epsilon is not None:
            said.append(f"{self.planned} take an epsilon from {self.least_epsilon:g} to {self.most_epsilon:g}")
        return "; ".join(said)


def limits_of(silos: Mapping[str, Catalogue], standing: Mapping[str, Standing], table: Table, purpose: str) -> Limits:
    """Return what silos let a run cost now, by their catalogues and by what is left to the analyst."""
    wholes = []
    for silo, found in standing.items():
        rest = scarcest(tuple(one for one in found.left if one.purpose in (None, purpose)))
        caps = [rest[0]] if rest is not None else []
        caps += [found.run_limit] if found.run_limit is not None else []
        if silo in silos and caps:
            wholes.append(_at(table, silos[silo], min(caps)))
    least = max(_at(table, one, one.min_micro_rho, math.ceil) for one in silos.values())
    return Limits(
        whole=min(wholes, default=None),
        most=min(_at(table, one, one.max_micro_rho) for one in silos.values()),
        least=least + least // _ROUNDED,
    )


def affordable(epsilon: float, rounds: int, delta: float, limits: Limits) -> Affordable:
    """Return what a run of so many rounds at an epsilon for all of them could be instead."""
    total = micro_rho_of(epsilon, delta)
    each, most = total // rounds, limits.most
    if limits.whole is not None:
        most = min(most, limits.whole // rounds)
    fits = limits.needed <= each <= most
    could = limits.needed <= most
    return Affordable(
        planned=rounds,
        rounds=None if fits else _rounds(total, each, limits),
        least_epsilon=_rounded(epsilon_of(limits.needed * rounds / MICRO, delta), math.ceil) if could else None,
        most_epsilon=_rounded(epsilon_of(most * rounds / MICRO, delta), math.floor) if could else None,
    )


def _rounds(total: int, each: int, limits: Limits) -> int:
    """Return the most rounds: at the least price where the job's own is less than that, else at its own."""
    if each < limits.needed:
        within = total if limits.whole is None else min(total, limits.whole)
        return min(MAX_STEPS, within // limits.needed) if limits.needed <= limits.most else 0
    if each > limits.most:
        return 0
    return min(MAX_STEPS, (total if limits.whole is None else limits.whole) // each)


def _rounded(epsilon: float, towards: Callable[[float], int]) -> float:
    unit = 10.0 ** (math.floor(math.log10(epsilon)) - _DIGITS + 1)
    return float(f"{towards(epsilon / unit) * unit:.10g}")


def _at(table: Table, catalogue: Catalogue, micro_rho: int, towards: Callable[[Fraction], int] = math.floor) -> int:
    """Return the price whose cost at a silo is so much: a person may be known to more silos elsewhere."""
    return towards(Fraction(micro_rho * table.max_silos**2, catalogue.max_silos**2))
