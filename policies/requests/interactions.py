"""Products of two features in a regression, such as a treatment and age, and the values at which effects are told.

`interactions` is "treatment*age; treatment*sex", `at` is "age 40 60; weight 70": where the effects of the columns
before the asterisks are told. Both are options of a family, so texts, and public before a row is read.
"""

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal, InvalidOperation

from policies.requests.tables import TableColumn

_MOST = 16  # pairs, and values of one column
Column = Callable[[str], TableColumn]


def pairs_of(text: str) -> tuple[tuple[str, str], ...]:
    """Return the pairs that an option `interactions` names; raises ValueError if it is none."""
    found = []
    for one in text.split(";") if text else ():
        names = tuple(name.strip() for name in one.split("*"))
        if len(names) != 2 or not all(names):
            shown = one.strip()[:40]
            raise ValueError(f'expected pairs of features, such as "treatment*age; drug*sex", found {shown!r}')
        found.append((names[0], names[1]))
    if len(found) > _MOST:
        raise ValueError(f"expected at most {_MOST} pairs, found {len(found)}")
    return tuple(found)


def values_at(text: str) -> Mapping[str, tuple[Decimal, ...]]:
    """Return the values of each column that an option `at` names; raises ValueError if it is none."""
    found: dict[str, tuple[Decimal, ...]] = {}
    for one in text.split(";") if text else ():
        name, *values = one.split()
        try:
            numbers = tuple(map(Decimal, values))
        except InvalidOperation:
            numbers = ()
        if not 0 < len(numbers) <= _MOST or not all(number.is_finite() for number in numbers) or name in found:
            message = f'expected a feature once, and 1 to {_MOST} numbers, such as "age 40 60; weight 70"'
            raise ValueError(f"{message}, found {one.strip()[:40]!r}")
        found[name] = numbers
    return found


def products(column: TableColumn) -> int:
    """Return how many columns of the design a feature has: all values of a domain but the first, or one."""
    return len(column.domain) - 1 if column.domain else 1


def width_of(text: str, column: Column) -> int:
    """Return how many columns of the design the pairs of an option `interactions` add."""
    return sum(products(column(one)) * products(column(other)) for one, other in pairs_of(text))


def check(options: Mapping[str, str], features: Sequence[str], column: Column) -> None:
    """Raise ValueError if the options `interactions` and `at` do not fit the features."""
    pairs = pairs_of(options.get("interactions", ""))
    for pair in pairs:
        for name in pair:
            if name not in features:
                raise ValueError(f"interactions: {name!r} is no feature; its own effect belongs into the model, too")
        if pair[0] == pair[1]:
            raise ValueError(f"interactions: {pair[0]!r} with itself; name two features")
    if len({frozenset(pair) for pair in pairs}) < len(pairs):
        raise ValueError("interactions: a pair is named twice; remove one")
    for name, values in values_at(options.get("at", "")).items():
        if name not in {second for _, second in pairs}:
            raise ValueError(f"at: {name!r} is behind no asterisk of interactions")
        own = column(name)
        if own.domain or own.type == "bool":
            raise ValueError(f"at: {name!r} is a {own.type}, whose effects are told at all of its values; remove it")
        low, high = ((bound or 0) * Decimal(own.step or 1) for bound in (own.low, own.high))
        for value in values:
            if not low <= value <= high:
                raise ValueError(f"at: {value} is outside the bounds of {name!r}, {low:f} to {high:f}")
