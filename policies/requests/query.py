"""The typed plan of a question. SQL never crosses the boundary; this does."""

from typing import Annotated, Literal

from pydantic import Field

from crypto.wire import Message, Name
from policies.requests.tables import Text


class Compare(Message):
    """column op value; a number or a bool is written as text and read by the column's type."""

    kind: Literal["compare"] = "compare"
    column: Name
    op: Literal["=", "<>", "<", "<=", ">", ">="]
    value: Text


class OneOf(Message):
    """Column IN (values)."""

    kind: Literal["one_of"] = "one_of"
    column: Name
    values: Annotated[tuple[Text, ...], Field(min_length=1, max_length=1000)]


class IsNull(Message):
    """Column IS NULL."""

    kind: Literal["is_null"] = "is_null"
    column: Name


class Not(Message):
    """NOT operand."""

    kind: Literal["not"] = "not"
    operand: "Predicate"


class Both(Message):
    """Operand AND operand AND ..."""

    kind: Literal["and"] = "and"
    operands: Annotated[tuple["Predicate", ...], Field(min_length=2, max_length=64)]


class Either(Message):
    """Operand OR operand OR ..."""

    kind: Literal["or"] = "or"
    operands: Annotated[tuple["Predicate", ...], Field(min_length=2, max_length=64)]


Predicate = Annotated[Compare | OneOf | IsNull | Not | Both | Either, Field(discriminator="kind")]


class Aggregate(Message):
    """function(column) AS alias; no column means COUNT(*)."""

    function: Literal["count", "sum", "avg"]
    column: Name | None
    alias: Annotated[str, Field(min_length=1, max_length=120)]


class Plan(Message):
    """One grouped question about one table."""

    kind: Literal["query"] = "query"
    where: Predicate | None
    group_by: Annotated[tuple[Name, ...], Field(max_length=8)]
    aggregates: Annotated[tuple[Aggregate, ...], Field(min_length=1, max_length=32)]
