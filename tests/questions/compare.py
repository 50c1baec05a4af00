"""Whether answers without noise are DuckDB's."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

import duckdb

from analyst.errors import SqlError
from tests.questions.data import Federation
from tests.questions.whole import Question, question

RELATIVE, ABSOLUTE = 1e-6, 2e-5
Row = Mapping[str, Any]


@dataclass(slots=True)
class Outcome:
    """What became of many questions."""

    equal: int = 0
    figures: int = 0  # that were compared
    refused: Counter[str] = field(default_factory=Counter)  # by the message, without its place
    wrong: list[str] = field(default_factory=list)

    def add(self, number: int, made: Question, rows: Sequence[Row], truth: Sequence[Row]) -> None:
        """Compare the answer to a question with DuckDB's."""
        if problem := difference(made, rows, truth):
            self.wrong.append(f"{number}: {problem}\n  ours   {made.text.ours}\n  theirs {made.text.theirs}")
        else:
            self.equal += 1
            self.figures += sum(map(len, rows))

    def in_words(self) -> str:
        """Return how many were equal, and the reasons of those that were refused."""
        reasons = "".join(f"\n{count:5} {reason[:100]}" for reason, count in self.refused.most_common())
        return f"{self.equal} equal ({self.figures} figures), {self.refused.total()} refused:{reasons}"


def asked(of: Federation, numbers: Iterable[int]) -> Outcome:
    """Ask the questions of these numbers of both."""
    outcome = Outcome()
    for number in numbers:
        made = question(number)
        try:
            rows = of.answer(made.text.ours, 0.5 if made.is_of_groups else -math.inf)
        except SqlError as err:
            outcome.refused[err.message.partition(" at line ")[0]] += 1
            continue
        except Exception as err:  # a traceback is what must never be seen
            outcome.wrong.append(f"{number}: {type(err).__name__}: {err}: {made.text.ours}")
            continue
        try:
            truth = of.truth(made.text.theirs)
        except duckdb.Error as err:
            outcome.wrong.append(f"{number}: DuckDB: {err}: {made.text.theirs}")
            continue
        outcome.add(number, made, rows, truth)
    return outcome


def difference(made: Question, rows: Sequence[Row], truth: Sequence[Row]) -> str:
    """Return how an answer differs from DuckDB's, which has no empty groups; nothing where it does not."""
    if made.keys and not made.is_of_groups:
        rows = [row for row in rows if row["n"]]
    if made.keys and made.is_of_groups:  # a total of no group is none
        truth = [row for row in truth if any(value is not None for name, value in row.items() if name not in made.keys)]
    if made.is_ordered or not made.keys:
        pairs = list(zip(rows, truth, strict=False))
    else:
        known = {_key(row, made.keys): row for row in truth}
        pairs = [(row, known[key]) for row in rows if (key := _key(row, made.keys)) in known]
    if len(rows) != len(truth) or len(pairs) != len(rows):
        return f"{len(rows)} rows, DuckDB has {len(truth)}: {rows[:4]} {truth[:4]}"
    for row, true in pairs:
        for name, value in row.items():
            if not (_label(value) == _label(true[name]) if name in made.keys else is_same(value, true[name])):
                return f"{name} is {value!r}, DuckDB has {true[name]!r} in {true}"
    return ""


def _key(row: Row, keys: Sequence[str]) -> tuple[str, ...]:
    return tuple(_label(row[key]) for key in keys)


def _label(value: Any) -> str:
    """Return a group's value as text: numbers by their value, dates as they are written."""
    if isinstance(value, datetime):
        return str(value.date())
    if isinstance(value, bool | str) or value is None:
        return str(value).removesuffix(" 00:00:00")  # a part of a date is a date here, and a time in DuckDB
    return f"{float(value):g}" if isinstance(value, int | float | Decimal) else str(value)


def is_same(value: Any, true: Any) -> bool:
    """Tell whether a figure is DuckDB's; one of no value is None or NaN."""
    if true is None or (isinstance(true, float) and not math.isfinite(true)):
        return value is None
    if isinstance(true, bool | str) or value is None:
        return bool(value == true)
    return math.isclose(float(value), float(true), rel_tol=RELATIVE, abs_tol=ABSOLUTE)
