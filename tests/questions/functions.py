"""DuckDB's own list of functions, and a call of each in every place of a question.

Functions whose names are no words (operators), and those for locales but for two, are left out: they are written
otherwise, and refused alike.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

import duckdb

from analyst.errors import SqlError
from analyst.reports.rehearsal import rehearsed
from analyst.sql.plan import plan
from tests.questions.data import offer

PLACES: Mapping[str, str] = {
    "measure": "SELECT {rows} AS x FROM visits",
    "where": "SELECT COUNT(*) AS n FROM visits WHERE {rows} IS NOT NULL AND age > 20",
    "group": "SELECT {rows} AS d, COUNT(*) AS n FROM visits GROUP BY {rows}",
    "after": "SELECT ward, COUNT(*) AS n, {figures} AS x FROM visits GROUP BY ward",
    "window": "SELECT ward, COUNT(*) AS n, {figures} OVER (ORDER BY ward) AS x FROM visits GROUP BY ward",
}
# Functions that a call of any column or figure does not fit: the arguments of cells, and of figures.
_ARGUMENTS: Mapping[str, tuple[str, str]] = {
    **dict.fromkeys(
        ("corr", "covar_pop", "covar_samp", "regr_avgx", "regr_avgy", "regr_count", "regr_intercept", "regr_r2",
         "regr_slope", "regr_sxx", "regr_sxy", "regr_syy"),
        ("age, stay", "COUNT(*), SUM(age)"),
    ),
    **dict.fromkeys(("quantile", "quantile_cont", "quantile_disc", "approx_quantile"), ("age, 0.5", "COUNT(*), 0.5")),
    **dict.fromkeys(("count_if", "countif", "bool_and", "bool_or"), ("age > 40", "COUNT(*) > 40")),
    **dict.fromkeys(("date_trunc", "datetrunc"), ("'quarter', seen", "'quarter', DATE '2026-05-01'")),
    **dict.fromkeys(("date_part", "datepart"), ("'year', seen", "'year', DATE '2026-05-01'")),
    **dict.fromkeys(("date_diff", "datediff", "date_sub"), ("'day', seen, seen",
                                                            "'day', DATE '2026-05-01', DATE '2026-06-01'")),
    **dict.fromkeys(
        ("day", "dayname", "dayofmonth", "dayofweek", "dayofyear", "epoch", "isodow", "isoyear", "last_day", "month",
         "monthname", "quarter", "week", "weekday", "weekofyear", "year", "yearweek"),
        ("seen", "DATE '2026-05-01'"),
    ),
    "strftime": ("seen, '%Y'", "DATE '2026-05-01', '%Y'"),
    "make_date": ("2026, 5, 1", "2026, 5, 1"),
    "ntile": ("2", "2"),
    "nth_value": ("age, 2", "COUNT(*), 2"),
    "replace": ("kind, 'a', 'b'", "ward, 'a', 'b'"),
    "split_part": ("kind, '2', 1", "ward, 'i', 1"),
    "if": ("age > 40, 1, 2", "COUNT(*) > 40, 1, 2"),
    "xor": ("age, 1", "1, 2"),
    "gcd": ("age, 2", "4, 2"),
    "lcm": ("age, 2", "4, 2"),
}  # fmt: skip
_TEXTS = ("VARCHAR", "BLOB", "JSON")
_RAW = re.compile(r"\b(Binder|Parser|Catalog|Conversion|Invalid Input|Out of Range|Internal|Not implemented) Error")


@dataclass(frozen=True, slots=True)
class Called:
    """A function, with how it is called of cells and of figures."""

    name: str
    kind: str  # aggregate, scalar, macro, window
    rows: str
    figures: str


@cache
def called() -> tuple[Called, ...]:
    """Return a call of each function that DuckDB knows by a word."""
    with duckdb.connect() as database:
        listed = database.sql(
            "SELECT function_name, function_type, list(parameter_types ORDER BY len(parameter_types)) FROM"
            " duckdb_functions() WHERE function_type IN ('aggregate', 'scalar', 'macro', 'window')"
            " AND regexp_full_match(function_name, '[A-Za-z][A-Za-z0-9_]*')"
            " AND (NOT contains(function_name, 'collate_') OR function_name IN ('collate_de', 'icu_collate_en'))"
            " GROUP BY ALL ORDER BY ALL"
        ).fetchall()
    return tuple(Called(name, kind, *_calls(name, overloads)) for name, kind, overloads in listed)


def _calls(name: str, overloads: list[list[str | None]]) -> tuple[str, str]:
    if name in _ARGUMENTS:
        rows, figures = _ARGUMENTS[name]
        return f"{name}({rows})", f"{name}({figures})"
    types = next((one for one in overloads if one), [])
    found = []
    for number, text, day in (("age", "kind", "seen"), ("COUNT(*)", "ward", "ward")):
        arguments = [_argument(one, place, number, text, day) for place, one in enumerate(types)]
        found.append(f"{name}({', '.join(arguments)})")
    return found[0], found[1]


def _argument(kind: str | None, place: int, number: str, text: str, day: str) -> str:
    if kind in ("DATE", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE"):
        return day
    if kind in _TEXTS:
        return text if place == 0 else "'a'"
    return number if place == 0 else "2"


def outcome(question: str) -> SqlError | None:
    """Return why a question is refused; None where it is answered. Whatever else is raised is a defect."""
    try:
        rehearsed(plan(question, offer()), question)
    except SqlError as err:
        return err
    return None


def problems(refused: SqlError) -> Iterator[str]:
    """Yield what is wrong with a refusal: it is one line with a place and a hint, and no other program's message."""
    if "\n" in refused.message or "\n" in refused.hint:
        yield "more than one line"
    if not re.search(r"at line \d+, column \d+", refused.message):
        yield "no place"
    if not refused.hint:
        yield "no hint"
    if _RAW.search(refused.message):
        yield "DuckDB's own message"
    if len(refused.message) > 300:
        yield "too long"
