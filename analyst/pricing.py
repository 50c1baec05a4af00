"""The price of a request: of an epsilon, of a share of what is left, or the least that meets an error.

Pure: what is left is the silos' signed word (`policies.requests.standing`), and widths follow from the noise alone. A
price is in micro-rho at the request's `max_silos`; a silo whose policy has fewer charges less.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from analyst.errors import AnalystError
from analyst.reports.afterwards import read_after
from analyst.reports.intervals import Z95
from analyst.sql.draft import Planned, Script
from analyst.widths import SIZES, deviations_of_each, widths
from policies.requests.catalogue import Catalogue
from policies.requests.query import Aggregate
from policies.requests.standing import Left, Standing
from policies.requests.statistic import Statistic
from policies.units import MICRO

FROM_ROWS = 1_000  # of a group, for which an error holds; a count has the same one in every group
_ENOUGH = 1.001  # how far above the least price one may be
_NEAR = 1.0009
_STEPS = 60
_COUNTS = ("count", "persons")
_ROUNDED = 250_000  # by less than one in so many a silo charges less, as variances are rounded up


@dataclass(frozen=True, slots=True)
class Wanted:
    """The half width that the 95 % interval of a figure may have; without a name, that of every count."""

    half: float
    figure: str = ""

    @property
    def text(self) -> str:
        return f"{self.figure}={self.half:g}" if self.figure else f"{self.half:g}"


def read_wanted(text: str) -> Wanted:
    """Return what `50` or `n=50` asks; raises ValueError."""
    name, equals, number = text.rpartition("=")
    return checked(Wanted(float(number), name if equals else ""))


def checked(wanted: Wanted) -> Wanted:
    """Return what is wanted; raises ValueError unless its half width is a number above 0."""
    if not (math.isfinite(wanted.half) and wanted.half > 0):
        raise ValueError(f"an error of {wanted.half:g}")
    return wanted


def read_share(text: str) -> float:
    """Return the share that `10%` or `0.1` is; raises ValueError."""
    share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    if not 0 < share <= 1:
        raise ValueError(f"a share of {text}")
    return share


@dataclass(frozen=True, slots=True)
class Limits:
    """The least and the most that a request may cost, in micro-rho, and which silo says so."""

    least: int
    most: int
    who_least: str
    who_most: str
    why_most: str


def limits_of(script: Script, silos: Mapping[str, Catalogue], standing: Mapping[str, Standing], purpose: str) -> Limits:
    """Return what these silos let a request cost now, by their catalogues and by what is left to the analyst."""
    smallest = min((Fraction(*one) for one in script.plan.portions), default=Fraction(1))
    least = {silo: _at(script, one, one.min_micro_rho, math.ceil) / smallest for silo, one in silos.items()}
    whose = max(least, key=lambda silo: least[silo])
    caps = [(_at(script, one, one.max_micro_rho), silo, "one request may cost") for silo, one in silos.items()]
    caps += [(rest, silo, "is left to you") for silo, rest in _left(script, silos, standing, purpose).items()]
    most, who, why = min(caps)
    lowest = math.ceil(least[whose])
    return Limits(lowest + lowest // _ROUNDED, most, whose, who, why)


def of_share(
    share: float, script: Script, silos: Mapping[str, Catalogue], standing: Mapping[str, Standing], purpose: str
) -> int:
    """Return the price that is this share of what is left to the analyst where least is left; raises AnalystError."""
    rest = _left(script, silos, standing, purpose)
    if not rest:
        raise AnalystError("no silo says what is left", "ask with --epsilon, or again when silos are back")
    scarcest, limits = min(rest, key=lambda silo: rest[silo]), limits_of(script, silos, standing, purpose)
    price = math.floor(rest[scarcest] * Fraction(share))
    said = f"{100 * share:.4g} % of what is left at {scarcest} is rho {price / MICRO:.4g}"
    if price > limits.most:
        fits = math.floor(1e4 * limits.most / rest[scarcest]) / 100
        message = f"{said}, and rho {limits.most / MICRO:.4g} {limits.why_most} at {limits.who_most}"
        raise AnalystError(message, f"ask with --share {fits:g}%" if fits else "ask with --epsilon")
    if price < max(1, limits.least):
        needed = math.ceil(1e4 * max(1, limits.least) / rest[scarcest]) / 100 if rest[scarcest] else math.inf
        message = f"{said}, and a request costs rho {limits.least / MICRO:.4g} or more at {limits.who_least}"
        hint = f"ask with --share {needed:g}%" if needed <= 100 else "wait for the next window, or ask for less at once"
        raise AnalystError(message, hint)
    return price


def of_errors(
    wanted: Sequence[Wanted],
    script: Script,
    silos: Mapping[str, Catalogue],
    standing: Mapping[str, Standing],
    purpose: str,
) -> int:
    """Return the least price at which every wanted error is met, if all silos answer; raises AnalystError.

    It is at most a thousandth above the least one.
    """
    limits = limits_of(script, silos, standing, purpose)
    asked = list(_asked(wanted, script))

    def excess(micro_rho: int) -> float:
        """Return how many times as wide as wanted the widest interval is."""
        sds = deviations_of_each(script, micro_rho, silos.values())
        return max(one.half(sds[one.statement]) / one.wanted.half for one in asked)

    if limits.most < max(1, limits.least):
        message = f"rho {limits.most / MICRO:.4g} {limits.why_most} at {limits.who_most}, less than any request costs"
        raise AnalystError(message, "wait for the next window, or ask for less at once")
    most = min(limits.most, 100 * MICRO)
    at_most = excess(most)
    if at_most > 1:
        texts = ", ".join(one.text for one in wanted)
        message = f"an error of {texts} costs more than the rho {most / MICRO:.4g} that {limits.why_most}"
        message += f" at {limits.who_most}"
        if math.isinf(at_most):
            raise AnalystError(
                f"{message}, and at that the figure is hidden", "ask for larger groups, or fewer figures"
            )
        again = " ".join(f"--error {_raised(one, at_most).text}" for one in wanted)
        raise AnalystError(message, f"ask with {again}, or for fewer groups and figures")
    return _least(excess, max(1, limits.least), most, at_most)


def _least(excess: Callable[[int], float], low: int, high: int, at_high: float) -> int:
    """Return a price from `low` to `high` at which the excess is at most 1, no more than `_ENOUGH` above the least.

    Widths fall with the root of the price, nearly, so a guess from either end is good.
    """
    if (at_low := excess(low)) <= 1:
        return low
    guess = high * at_high**2
    for _ in range(_STEPS):
        if high - low <= 1 or high <= low * _ENOUGH:
            break
        if not low < guess < high:
            guess = high / _NEAR if high / _NEAR > low else math.sqrt(low * high)
        price = min(max(math.ceil(guess), low + 1), high - 1)
        found = excess(price)
        if found <= 1:
            high, at_high = price, found
            guess = high * at_high**2 if at_high < 1 / _NEAR else high / _NEAR
        else:
            low, at_low = price, found
            guess = low * at_low**2 * (1 + (_NEAR - 1) / 2) if at_low < math.inf else math.sqrt(low * high)
    return high


@dataclass(frozen=True, slots=True)
class _Figure:
    """One figure whose error is wanted, of one statement; a count as it is, or a column of the answer."""

    wanted: Wanted
    statement: int
    planned: Planned
    count: Statistic | None = None

    def half(self, sds: Mapping[Statistic, float]) -> float:
        """Return the half width of its interval: the largest in groups of `FROM_ROWS` or more rows."""
        if self.count is not None:
            return Z95 * sds[self.count]
        sizes = [size for size in SIZES if size >= FROM_ROWS]
        by_size = widths(self.planned, sds, sizes)[self.wanted.figure]
        return max(math.inf if half is None else half for half in by_size.values())


def _asked(wanted: Sequence[Wanted], script: Script) -> Iterator[_Figure]:
    """Yield the figures that are meant; raises AnalystError where none is."""
    for one in wanted:
        found = [figure for place, planned in enumerate(script.statements) for figure in _of(one, place, planned)]
        if not found and one.figure:
            names = (name for planned in script.statements for name in _names(planned))
            raise AnalystError(
                f"no figure of the answer is called {one.figure!r}", f"figures: {', '.join(dict.fromkeys(names))}"
            )
        if not found:
            named = next((name for planned in script.statements for name in _names(planned)), "NAME")
            raise AnalystError("the answer shows no count", f"name a figure, such as --error {named}={one.half:g}")
        yield from found


def _of(wanted: Wanted, place: int, planned: Planned) -> Iterator[_Figure]:
    aggregates = {one.alias: one for one in planned.plan.aggregates}
    if not planned.after:
        for alias, one in aggregates.items():
            if wanted.figure == alias and one.function not in _COUNTS:
                yield _Figure(wanted, place, planned)
            elif wanted.figure in ("", alias) and one.function in _COUNTS:
                yield _Figure(wanted, place, planned, _count_of(one, planned))
        return
    columns = read_after(planned.after, {name: one.function for name, one in aggregates.items()}).columns
    for column in columns:
        count = aggregates.get(column.figure or "")
        if count is not None and count.function in _COUNTS and wanted.figure in ("", column.name):
            yield _Figure(wanted, place, planned, _count_of(count, planned))
        elif wanted.figure == column.name and column.name in _names(planned):
            yield _Figure(wanted, place, planned)


def _names(planned: Planned) -> list[str]:
    """Return the names of the figures of a statement."""
    if not planned.after:
        return [one.alias for one in planned.plan.aggregates]
    return list(widths(planned, dict.fromkeys(planned.plan.statistics(planned.table), 1.0), (FROM_ROWS,)))


def _count_of(aggregate: Aggregate, planned: Planned) -> Statistic:
    (found,) = aggregate.statistics(planned.plan.seen(planned.table))
    return found


def _raised(wanted: Wanted, by: float) -> Wanted:
    """Return an error that is so many times as large, rounded up to three digits."""
    half = wanted.half * by * 1.0001
    unit = 10.0 ** (math.floor(math.log10(half)) - 2)
    return Wanted(float(f"{math.ceil(half / unit) * unit:.10g}"), wanted.figure)


def _left(
    script: Script, silos: Mapping[str, Catalogue], standing: Mapping[str, Standing], purpose: str
) -> dict[str, int]:
    """Return by silo the price that would use up what is left to the analyst there."""
    found = {}
    for silo, catalogue in silos.items():
        left = [_mine(one) for one in standing[silo].left if one.purpose in (None, purpose)] if silo in standing else []
        if left:
            found[silo] = _at(script, catalogue, min(left))
    return found


def _mine(left: Left) -> int:
    return left.everybody if left.analyst is None else min(left.everybody, left.analyst)


def _at(script: Script, catalogue: Catalogue, micro_rho: int, rounded: Callable[[Fraction], int] = math.floor) -> int:
    """Return the price of a request whose cost at a silo is so much: a person may be known to more silos elsewhere."""
    return rounded(Fraction(micro_rho * script.table.max_silos**2, catalogue.max_silos**2))
