"""The shapes of the model families that have noise: which columns, options and blocks a round has, and how much noise.

A person's part of every block is bounded by the request alone, so that its sensitivity is known before a row is read.
The computations are in `silo_node/training/noised/`. docs/training.md, section "Private families".
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from policies.requests import hashed
from policies.requests.families import SHAPES, Option, Shape, Task, choice_option, number_option
from policies.requests.noised_networks import NOISED_NETWORKS
from policies.requests.noised_parts import OF_LEFT_OUT, OF_PERSONS, counts_of, lengths, stated
from policies.requests.noised_parts import NoisedShape as NoisedShape
from policies.requests.noised_parts import can_lack_cells as can_lack_cells
from policies.requests.shapes import whole_option
from policies.requests.statistic import Extent, noised
from policies.units import ROWS_UP_TO

UNITS = 2**20  # in the L2 bound of a person's part of a block that is clipped
PERSON_UNITS = 2**8  # the same of a long vector: few, so that the sum of all persons fits a small ring
CELL_BITS = 14  # fractional bits of a product of two cells in [-1, 1] that is not clipped
ROUNDS = 50  # of a run where the job names no other number: one count, then descent
LEAST_ROUNDS = 3
MAX_MOMENTS = 88  # columns of a model whose second moments are summed: few enough for noise that is sampled exactly
DESCENT, MOMENTS = "descent", "moments"

# What a form with noise has of the exact one: what further options and columns change, no sensitivity here knows.
_COMMON, _PARTS = frozenset({"missing", "positive"}), frozenset({"offset"})

# Shares of the price of a first round, beside those of counts.
_OF_MEANS, _OF_MOMENTS, _OF_REACH = 4, 10, 40


def filled(task: Task) -> tuple[str, ...]:
    """Return the features whose missing cells are filled by a mean that the first round sums."""
    if task.options.get("missing") != "mean":
        return ()
    columns = [task.table.column(name) for name in task.features]
    return tuple(column.name for column in columns if not column.domain and column.can_be_missing)


def has_moments(task: Task) -> bool:
    """Tell whether the first round of a descent sums second moments: of models that are not too wide."""
    return task.width <= MAX_MOMENTS


def triangle(width: int) -> int:
    """Return how many different products the columns of a design have."""
    return width * (width + 1) // 2


def most_moments(task: Task) -> float:
    """Return the largest L2 norm of the products of a row's columns, each pair once.

    A row has at most one number other than 0 for the intercept and for each feature, each at most 1 in magnitude: of a
    domain one column is 1, and beside a cell that is missing the number is 0.
    """
    return math.sqrt(triangle(1 + len(task.features)))


def outputs(task: Task) -> int:
    """Return how many linear predictors a model has: one, or one for each class."""
    return len(task.classes) if task.family == "multinomial-regression" else 1


def _descent(task: Task) -> Mapping[str, Extent]:
    if task.number:
        return {"gradient": noised(task.width * outputs(task), UNITS)}
    found = counts_of(task)
    if columns := len(filled(task)):
        most = math.isqrt(columns * UNITS * UNITS - 1) + 1
        found |= {name: noised(columns, most, _OF_MEANS) for name in ("present", "total")}
    if has_moments(task):
        found["second-moments"] = noised(triangle(task.width), UNITS, _OF_MOMENTS)
    return found


def _linear(task: Task) -> Mapping[str, Extent]:
    if task.options["method"] == DESCENT:
        return _descent(task)
    # With the label as one more column; nothing is clipped, so that the sums are those of the pooled rows.
    most = task.table.max_rows * (math.isqrt(triangle(2 + len(task.features)) * 4**CELL_BITS - 1) + 1)
    return {**counts_of(task), "products": noised(triangle(task.width + 1), most, 4 * (OF_PERSONS + OF_LEFT_OUT))}


def _hashed(task: Task) -> Mapping[str, Extent]:
    """Return the blocks of a descent over hashed features; what a silo's persons add up to is bounded by the request.

    A silo with more than `rows_up_to` rows would be cut, which moves a sum by no more than a person does.
    """
    rows = int(task.options["rows_up_to"])
    extent = noised(hashed.weights_of(task), PERSON_UNITS).up_to(PERSON_UNITS * rows)
    if task.number:
        return {"gradient": extent}
    counts = {name: one.up_to(rows) for name, one in counts_of(task).items()}
    return {**counts, "reach": extent.of_share(_OF_REACH)}


def _check_hashed(task: Task) -> None:
    hashed.check(task)
    if task.rounds < LEAST_ROUNDS:
        raise ValueError(f"{task.family} with noise takes {LEAST_ROUNDS} rounds or more, found {task.rounds}")


def _refuse_few_bits(text: str) -> None:
    """Raise ValueError where an option is named that is for sums without noise alone."""
    if text:
        why = "rounding a silo's sum moves that of a neighbour by a unit in every weight"
        raise ValueError(f"for exact sources alone, as {why}, which no bound on one person allows; remove it")


def _check_rounds(task: Task) -> None:
    exact = SHAPES[task.family]
    exact.check(replace(task, options={name: one.default for name, one in exact.options.items()} | dict(task.options)))
    if not (task.options.get("method") == MOMENTS or task.rounds >= LEAST_ROUNDS):
        raise ValueError(f"{task.family} with noise takes {LEAST_ROUNDS} rounds or more, found {task.rounds}")


def _check_linear(task: Task) -> None:
    _check_rounds(task)
    if task.options["method"] != MOMENTS:
        return
    if task.rounds != 1:
        raise ValueError(f"by moments there is one round, found {task.rounds}; remove rounds")
    if task.options["missing"] == "mean":
        raise ValueError('by moments there is no mean before the sums; take missing = "indicator" or "drop"')
    if task.width > MAX_MOMENTS:
        raise ValueError(f"by moments a model has at most {MAX_MOMENTS} weights, found {task.width}; take descent")


def _shape(family: str, extents: Callable[[Task], Mapping[str, Extent]] = _descent) -> NoisedShape:
    exact = SHAPES[family]
    options = {name: option for name, option in exact.options.items() if name in _COMMON}
    parts = {name: part for name, part in exact.parts.items() if name in _PARTS}
    options |= {
        "rate": stated("0.000001", "1000000"),
        "decay": stated("0", "1"),
        "momentum": stated("0", "0.99"),
        "clip": number_option("1", "0.000001", "100000"),
    }
    check = _check_rounds
    if extents is _linear:
        options["method"], check = choice_option(DESCENT, DESCENT, MOMENTS), _check_linear
    blocks = lengths(extents)
    return NoisedShape(Shape(blocks, exact.labels, options, parts, check=check, predicts=exact.predicts), extents)


def _hashed_shape() -> NoisedShape:
    options = dict(hashed.OPTIONS) | {
        "bits": whole_option(hashed.OPTIONS["bits"].default, hashed.LEAST_BITS, hashed.MOST_BITS - 1),
        "clip": number_option("1", "0.000001", "100000"),
        "keep": Option("", _refuse_few_bits),
        "momentum": stated("0", "0.99"),
        "rate": stated("0.000001", "1000000"),
        "rows_up_to": whole_option(str(ROWS_UP_TO), 1, 2**40),
        "value_bits": Option("", _refuse_few_bits),
    }
    exact = hashed.SHAPE
    shape = Shape(
        lengths(_hashed), exact.labels, options, changed=exact.changed, check=_check_hashed,
        predicts=exact.predicts, most_weights=exact.most_weights, held=exact.held,
    )  # fmt: skip
    return NoisedShape(shape, _hashed)


NOISED: Mapping[str, NoisedShape] = MappingProxyType(
    {
        "logistic-regression": _shape("logistic-regression"),
        "multinomial-regression": _shape("multinomial-regression"),
        "linear-regression": _shape("linear-regression", _linear),
        "poisson-regression": _shape("poisson-regression"),
        "hashed-logistic": _hashed_shape(),
        **NOISED_NETWORKS,
    }
)
NOISED_SHAPES: Mapping[str, Shape] = MappingProxyType({name: one.shape for name, one in NOISED.items()})

_NOT_YET = "no bound of what a person changes in its sums is stated"
_BY_QUESTION = "ask for counts and means by group as a question, whose figures have intervals"
# Why each other family is exact alone, and what to do with private sources.
WITHOUT_NOISE: Mapping[str, str] = MappingProxyType(
    {
        "ridge-regression": "its penalty is that of linear-regression with decay; take that",
        "cox": "each term compares a person with all who are at risk, so one person changes every term without a bound;"
        " ask for a SURVIVAL curve, or take logistic-regression of an event by a fixed time",
        "kaplan-meier": "ask for a SURVIVAL curve as a question, which has noise",
        "pca": "loadings of noised products turn into each other where eigenvalues are near; ask for COVAR and CORR",
        "k-means": "centres of few persons are mostly noise, round after round; take groups of a column that you have",
        "naive-bayes": f"its counts by class and value are a question; {_BY_QUESTION}",
        "welch-t": f"a test of noised means is not a test of the means; {_BY_QUESTION}",
        "anova": f"a test of noised means is not a test of the means; {_BY_QUESTION}",
        "chi-square": f"a test of noised counts is not a test of the counts; {_BY_QUESTION}",
        "audit": f"its counts by group are a question; {_BY_QUESTION}",
    }
)


def why_exact_alone(family: str) -> str:
    """Return the reason for which a family answers from exact sources alone, with what to do instead."""
    return f"{family} has no private form: {WITHOUT_NOISE.get(family, _NOT_YET)}"
