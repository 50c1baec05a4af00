"""Expressions: a measure that is computed of the cells of one row, such as `loan / income`, as data in a plan.

A `Derived` gives an expression a name, and aggregates use it as a column. What bounds it is not stated: every party
derives its bounds and its step from the plan and the table definition, by `policies.requests.ranges`, so nobody has to
trust a number. `silo_node/data/expressions.py` computes it of rows.
"""

from collections.abc import Iterable, Iterator
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from crypto.wire import Message, Name
from policies.requests.predicates import Predicate, columns_of, cost_of, in_words

MAX_DERIVED = 32
MAX_PARTS = 64  # of one expression
MAX_DEPTH = 12
_MAX_ARGUMENTS = 32
Function = Literal[
    "add", "subtract", "multiply", "divide", "negate", "least", "greatest", "abs", "sign", "floor", "ceil", "trunc",
    "round", "round_even", "remainder", "power", "ln", "log2", "log10", "sqrt", "exp", "coalesce", "nullif",
]  # fmt: skip
# How many arguments a function takes, where it is not as many as there are.
_ARITY = {
    **dict.fromkeys(("add", "multiply", "least", "greatest", "coalesce"), None),
    **dict.fromkeys(("subtract", "divide", "remainder", "power", "round", "nullif"), 2),
}
# In these the second argument is a constant.
CONSTANT = ("power", "round", "nullif")
_OPERATORS = {"add": " + ", "subtract": " - ", "multiply": " * ", "divide": " / ", "remainder": " % "}


class Cell(Message):
    """The value of a column, as it counts in a sum: within the bounds, in whole steps."""

    kind: Literal["cell"] = "cell"
    column: Name


class Constant(Message):
    """A number."""

    kind: Literal["constant"] = "constant"
    value: Annotated[str, Field(pattern=r"^-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,9})?$")]


class Apply(Message):
    """A function of the values of other expressions; its result is missing where one of them is.

    `coalesce`, `least` and `greatest` pass over what is missing, as in SQL. `round` rounds halves away from 0,
    `round_even` to even numbers, `trunc` towards 0.
    """

    kind: Literal["apply"] = "apply"
    function: Function
    arguments: Annotated[tuple["Expression", ...], Field(min_length=1, max_length=_MAX_ARGUMENTS)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        wanted = _ARITY.get(self.function, 1)
        if wanted is not None and len(self.arguments) != wanted:
            raise ValueError(f"{self.function} takes {wanted} arguments, found {len(self.arguments)}")
        if self.function in CONSTANT and not isinstance(self.arguments[1], Constant):
            raise ValueError(f"the second argument of {self.function} is a constant")
        return self


class Choose(Message):
    """The result of the first condition that is true of the row, else of `otherwise`; without it, missing."""

    kind: Literal["choose"] = "choose"
    whens: Annotated[tuple[Predicate, ...], Field(min_length=1, max_length=_MAX_ARGUMENTS)]
    results: Annotated[tuple["Expression", ...], Field(min_length=1, max_length=_MAX_ARGUMENTS)]
    otherwise: "Expression | None"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.results) != len(self.whens):
            raise ValueError("each condition has one result")
        return self


Expression = Annotated[Cell | Constant | Apply | Choose, Field(discriminator="kind")]


class Derived(Message):
    """A measure that is no column, by its name in the plan."""

    name: Name
    expression: Expression

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of which values enter it."""
        return tuple(dict.fromkeys(part.column for part in parts_of(self.expression) if isinstance(part, Cell)))

    @property
    def compared(self) -> tuple[str, ...]:
        """The columns that its conditions read."""
        return tuple(dict.fromkeys(name for when in self.conditions for name in columns_of(when)))

    @property
    def conditions(self) -> Iterator[Predicate]:
        for part in parts_of(self.expression):
            if isinstance(part, Choose):
                yield from part.whens

    @property
    def cost(self) -> int:
        """How much it costs of each row, in looks at a cell."""
        return sum(1 for _ in parts_of(self.expression)) + sum(map(cost_of, self.conditions))

    @property
    def in_words(self) -> str:
        return f"{self.name} = {worded(self.expression)}"


def parts_of(expression: Expression) -> Iterator[Expression]:
    """Yield an expression and all that it is made of."""
    pending: list[Expression] = [expression]
    while pending:
        part = pending.pop()
        yield part
        pending += reversed(_inside(part))


def _inside(part: Expression) -> tuple[Expression, ...]:
    match part:
        case Apply():
            return part.arguments
        case Choose():
            return part.results if part.otherwise is None else (*part.results, part.otherwise)
    return ()


def check_size(expressions: Iterable[Expression]) -> None:
    """Raise ValueError if an expression has too many parts, or is nested too deeply."""
    for one in expressions:
        parts, pending = 0, [(one, 1)]
        while pending:
            part, depth = pending.pop()
            parts += 1
            if parts > MAX_PARTS or depth > MAX_DEPTH:
                raise ValueError(
                    f"an expression has more than {MAX_PARTS} parts, or is nested more than {MAX_DEPTH} deep"
                )
            pending += [(inner, depth + 1) for inner in _inside(part)]


def worded(expression: Expression) -> str:
    """Return an expression in words that people who approve it read; every field of it changes them."""
    match expression:
        case Cell():
            return expression.column
        case Constant():
            return expression.value
        case Choose():
            whens = (
                f"{worded(result)} where {in_words(when)}"
                for when, result in zip(expression.whens, expression.results, strict=True)
            )
            otherwise = "missing" if expression.otherwise is None else worded(expression.otherwise)
            return f"({'; '.join(whens)}; else {otherwise})"
    inner = [worded(one) for one in expression.arguments]
    if expression.function in _OPERATORS:
        return _OPERATORS[expression.function].join(
            f"({text})" if isinstance(one, Apply) and one.function in _OPERATORS else text
            for one, text in zip(expression.arguments, inner, strict=True)
        )
    if expression.function == "negate":
        return f"-({inner[0]})"
    return f"{expression.function.upper()}({', '.join(inner)})"
