"""The shape of `hashed-logistic`: logistic regression over a table of 2^bits weights, into which features are hashed.

Its vectors are long, so the request bounds what a silo's numbers may be (`Extent.most`), every block of a round by the
same bound: the ring is then the least one that is exact for the roster. A count that may exceed the bound travels in
limbs of so many bits. Weinberger et al., ICML 2009. docs/training.md, section "Hashed features".
"""

from collections.abc import Mapping
from decimal import Decimal
from itertools import combinations

from policies.requests.interactions import pairs_of
from policies.requests.shapes import (
    Kind,
    Option,
    Shape,
    Task,
    any_value,
    check_named,
    choice_option,
    kind_of,
    number_option,
    parsed_option,
    whole_option,
)

LEAST_BITS, MOST_BITS = 10, 24  # of the table of weights
VALUE_BITS = ("8", "12", "16", "24")  # of a number of a gradient, where the job names them
ALL_PAIRS = "all"
REACH_UNITS = 4  # in 1: what a row's value adds to the reach of its weight is rounded up to so many
MOST_REACH = 2**26 - 1  # of one weight at one silo: of 16.7 million rows whose value is 1
COUNT_BITS = 50  # of a count and of a sum of losses
LOSS_BITS = 16  # fractional bits of a sum of losses


def weights_of(task: Task) -> int:
    """Return how many weights a model has; that of the place 0 is the intercept."""
    return 1 << int(task.options["bits"])


def pairs(task: Task) -> tuple[tuple[str, str], ...]:
    """Return the pairs of features whose values together are one more value; the names of each in order."""
    named = task.options["crossed"]
    found = combinations(task.features, 2) if named == ALL_PAIRS else pairs_of(named)
    return tuple((min(pair), max(pair)) for pair in found)


def values_in_row(task: Task) -> int:
    """Return how many values of a row are hashed, and one for the intercept."""
    has_indicators = task.options["missing"] == "indicator"
    numbers = sum(kind_of(task.table.column(name)) == "number" for name in task.features)
    return 1 + len(task.features) + has_indicators * numbers + len(pairs(task))


def value_bits(task: Task) -> int | None:
    """Return of how many bits the numbers of a silo's gradient are; None where they are not rounded to few."""
    return int(named) if (named := task.options.get("value_bits", "")) else None


def levels(bits: int) -> int:
    """Return the greatest magnitude of a signed number of so many bits, the least one left out."""
    return (1 << bits - 1) - 1


def summed(task: Task) -> int:
    """Return how many weights a round of descent moves."""
    return max(1, int(Decimal(task.options.get("keep", "1")) * weights_of(task)))


def most(task: Task) -> int | None:
    """Return the greatest magnitude of a silo's numbers in a round; None where its rows alone bound it."""
    if task.number == 0:
        return MOST_REACH
    bits = value_bits(task)
    return None if bits is None else levels(bits)


def limbs(bound: int | None) -> int:
    """Return in how many numbers of at most `bound`, which is one less than a power of two, a count travels."""
    return 1 if bound is None else -(-COUNT_BITS // bound.bit_length())


def blocks(task: Task) -> Mapping[str, int]:
    """Return the blocks of a round.

    The first sums rows and the *reach* of each weight: the magnitudes of the values that meet it. Every later one sums
    the loss and its gradient at the weights of all silos.
    """
    count = limbs(most(task))
    if task.number == 0:
        return {"rows": count, "left-out": count, "positive": count, "reach": weights_of(task)}
    return {"rows": count, "loss": count, "gradient": summed(task)}


def check(task: Task) -> None:
    """Raise ValueError where the label has no positive value, or a pair is of no two features, or named twice."""
    check_named(task.label_column, "label", task.options["positive"])
    found = pairs(task)
    for one, other in found:
        if strange := {one, other} - set(task.features):
            raise ValueError(f"crossed: {min(strange)!r} is no feature; its own values belong into the model, too")
        if one == other:
            raise ValueError(f"crossed: {one!r} with itself; name two features")
    if len(set(found)) < len(found):
        raise ValueError("crossed: a pair is named twice; remove one")


def _check_pairs(text: str) -> None:
    if text != ALL_PAIRS:
        pairs_of(text)


OPTIONS: Mapping[str, Option] = {
    "bits": whole_option("16", LEAST_BITS, MOST_BITS),
    "crossed": parsed_option(_check_pairs),
    "missing": choice_option("drop", "drop", "indicator"),
    "positive": Option("", any_value),
}
SHAPE = Shape(
    blocks,
    frozenset[Kind]({"bool", "text"}),
    {
        **OPTIONS,
        "keep": number_option("1", "0.001", "1"),
        "ridge": number_option("1", "0", "1000000000"),
        "step": number_option("1", "0.001", "1000"),
        "tolerance": number_option("0.000001", "0", "0.01"),
        "value_bits": parsed_option(choice_option("", *VALUE_BITS).check),
    },
    rounds=60,
    changed=lambda task: 4 * values_in_row(task),
    check=check,
    predicts="class",
    most_weights=1 << MOST_BITS,
    held=lambda options, slots: 1 << int(options["bits"]),
    most=most,
)
