"""What each function that silos do not compute is refused for, and the nearest question that they answer.

HINTS is the one table: from DuckDB's name of a function to why it has no answer, and what to ask instead. The question
is written for the column that was named, as its definition and its roles allow. `tests/analyst/test_refusals.py` asks
what the hints propose.
"""

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from sqlglot import exp

from analyst.errors import SqlError
from analyst.sql.offer import Offer
from analyst.sql.outcomes import MAX_STEPS
from analyst.sql.parse import SUPPORTED, sql_position
from analyst.sql.proposals import Key, count_beside, keys_at, proposed
from policies.requests.tables import TableColumn


@dataclass(frozen=True, slots=True)
class Hint:
    """Why a function is refused, in words, and the kind of question to ask instead.

    `groups`: the rows of each value or bucket; `beyond`: the average, and the rows above a value; `figures`: those of
    `instead`, with {x} for the column; `quantiles` too, where silos open them, or else what is `beyond`.
    """

    why: str
    asks: Literal["groups", "beyond", "figures", "quantiles"] = "groups"
    instead: str = "AVG({x})"


_ONE_PERSON = "one person decides it, so no interval is honest"
_LEAST = Hint(f"{_ONE_PERSON}; ask for a low quantile", "quantiles", "QUANTILE_CONT({x}, 0.01)")
_LARGEST = Hint(f"{_ONE_PERSON}; ask for a high quantile", "quantiles", "QUANTILE_CONT({x}, 0.99)")
_ENDS = (_LEAST, _LARGEST)
_BOTH = f"{_ONE_PERSON}; ask for a low and a high quantile"
_SINGLE = Hint(f"{_ONE_PERSON}; count the rows of each value")
_RANGE = Hint(
    "not built: ask how far the quartiles are apart",
    "quantiles",
    "QUANTILE_CONT({x}, 0.75) - QUANTILE_CONT({x}, 0.25)",
)
_SAMPLED = Hint("no row is sampled: it is called QUANTILE_CONT here", "quantiles", "QUANTILE_CONT({x}, 0.5)")
_ROWS = Hint("it lists the values of rows, and rows never leave a silo; count the rows of each value")
_SKETCH = Hint("no sketch of single rows leaves a silo; count the rows of each value")
_SHARE = Hint(f"{_ONE_PERSON}; ask the share", "figures")
_SHAPE = Hint("not built: ask how widely the values lie", "figures", "STDDEV({x})")
_PRODUCT = Hint("silos add values, and multiply none; ask the average", "figures")
_PAIR = "not built: it is a variance or a covariance, times the rows"

# From the name of a function to why it is refused, and what to ask instead.
HINTS: Mapping[str, Hint] = MappingProxyType(
    {
        "MIN": _LEAST,
        "MAX": _LARGEST,
        **dict.fromkeys(("ARG_MIN", "ARG_MAX", "MIN_BY", "MAX_BY", "ARG_MIN_NULL", "ARG_MAX_NULL"), _SINGLE),
        **dict.fromkeys(("FIRST", "LAST", "ANY_VALUE", "ARBITRARY", "BIT_AND", "BIT_OR", "BIT_XOR"), _SINGLE),
        "MAD": _RANGE,
        "RESERVOIR_QUANTILE": _SAMPLED,
        "MODE": Hint("not built: count the rows of each value, and read off the largest"),
        **dict.fromkeys(("STRING_AGG", "LIST", "ARRAY_AGG", "GROUP_CONCAT", "JSON_GROUP_ARRAY"), _ROWS),
        **dict.fromkeys(("APPROX_COUNT_DISTINCT", "APPROX_TOP_K", "ENTROPY"), _SKETCH),
        "HISTOGRAM_EXACT": Hint("each group is a row of the answer"),
        **dict.fromkeys(("BOOL_OR", "BOOL_AND", "EVERY"), _SHARE),
        **dict.fromkeys(("KURTOSIS", "KURTOSIS_POP", "SKEWNESS"), _SHAPE),
        **dict.fromkeys(("PRODUCT", "GEOMEAN", "GEOMETRIC_MEAN"), _PRODUCT),
        "REGR_SXX": Hint(_PAIR, "figures", "VAR_POP({y}) * REGR_COUNT({x}, {y})"),
        "REGR_SYY": Hint(_PAIR, "figures", "VAR_POP({x}) * REGR_COUNT({x}, {y})"),
        "REGR_SXY": Hint(_PAIR, "figures", "COVAR_POP({x}, {y}) * REGR_COUNT({x}, {y})"),
        "SEM": Hint("ask the deviation over the root of the count", "figures", "STDDEV({x}) / SQRT(COUNT({x}))"),
        **dict.fromkeys(("MEAN", "AVERAGE", "FAVG"), Hint("it is called AVG here", "figures")),
        **dict.fromkeys(("FSUM", "SUMKAHAN", "KAHAN_SUM"), Hint("it is called SUM here", "figures", "SUM({x})")),
        "VAR": Hint("it is called VAR_SAMP here", "figures", "VAR_SAMP({x})"),
        "STD": Hint("it is called STDDEV here", "figures", "STDDEV({x})"),
    }
)
# What sqlglot writes otherwise than DuckDB's users do.
_WRITTEN = {"LISTAGG": "STRING_AGG", "ARRAY_AGG": "LIST"}
_DISTINCT = Hint("only persons are told apart; see which groups have rows")
_KNOWN = (
    "COUNT",
    "SURVIVAL",
    "SUM",
    "AVG",
    "MEDIAN",
    "QUANTILE_CONT",
    "STDDEV",
    "VARIANCE",
    "CORR",
    "COVAR_POP",
    "COVAR_SAMP",
    *HINTS,
)
_MOST_BUCKETS = 12
_MOST_GROUPED = 3  # columns of a list of rows by which a hint groups


def refused_function(node: exp.Expr, table: str, offer: Offer) -> SqlError:
    """Return why a function that is no aggregate of silos has no answer."""
    shown = node.sql(dialect="duckdb")
    name = shown.partition("(")[0].upper()
    written = _WRITTEN.get(name, name)
    if name in HINTS:
        hint = _filled(HINTS[name], node, table, offer)
    elif written in HINTS:
        hint, shown = _filled(HINTS[written], node, table, offer), written + shown[len(name) :]
    else:
        close = difflib.get_close_matches(name, _KNOWN, 1)
        hint = f"did you mean {close[0]}?" if close and isinstance(node, exp.Anonymous) else SUPPORTED
    return SqlError(f"{shown[:60]} is not supported{sql_position(node)}", hint)


def check_functions(query: exp.Query, offer: Offer) -> None:
    """Raise SqlError for a refused function of rows that sqlglot does not know as an aggregate."""
    ctes = {cte.alias for cte in query.find_all(exp.CTE)}
    for node in query.find_all(exp.Anonymous, exp.WithinGroup):
        select, name = node.find_ancestor(exp.Select), node.sql(dialect="duckdb").partition("(")[0].upper()
        source = select.args.get("from_") if select is not None else None
        if source is None or name not in HINTS or not isinstance(source.this, exp.Table):
            continue
        if source.this.name in offer.tables and source.this.name not in ctes and node.find(exp.Column):
            raise refused_function(node, source.this.name, offer)


def refused_argument(node: exp.Expr, function: str, wanted: str, table: str, offer: Offer) -> SqlError:
    """Return why an aggregate of something else than measures has no answer."""
    argument, name, hint = node.this, function.upper(), ""
    if isinstance(argument, exp.Distinct):
        hint = _filled(_DISTINCT, argument, table, offer)
    elif isinstance(argument, exp.Expr) and argument.find(exp.AggFunc):
        hint = "compute with figures outside of aggregates, as in AVG(x) * COUNT(*)"
    elif function in ("sum", "count"):
        hint = "count rows with COUNT(*), and the cells of a column that are not missing with COUNT(col)"
    return SqlError(f"{name} takes {wanted}{sql_position(node)}", hint or SUPPORTED)


def refused_rows(select: exp.Select, offer: Offer, message: str = "") -> SqlError:
    """Return why a statement that lists rows has no answer, with one that counts those of each group of them."""
    source, hint = select.args.get("from_"), "add COUNT(*), SUM(col) or AVG(col): rows never leave a silo"
    table = source.this.name if source is not None and isinstance(source.this, exp.Table) else ""
    if select.find(exp.Window) is not None:
        hint = "a window reads the figures of groups, as in RANK() OVER (ORDER BY COUNT(*)) with GROUP BY"
    elif table in offer.tables:
        keys = _groups_of(select, table, offer)
        what = "those of each group" if keys else "them"
        asked = proposed(count_beside(offer.columns(table)), table, offer, select, own=keys)
        hint = f"rows never leave a silo; count {what}: {asked}"
    first = select.expressions[0] if select.expressions else select
    return SqlError(message or f"the question has no aggregate{sql_position(first)}", hint)


def _groups_of(select: exp.Select, table: str, offer: Offer) -> list[Key]:
    """Return by what rows that a statement lists may be grouped: its groups, its columns, or one of all columns."""
    known, every = offer.columns(table), select.find(exp.Star) is not None
    listed = [one for one in select.expressions if not every]
    asked = keys_at(select) or [
        (one.name, one.name) for node in listed for one in node.find_all(exp.Column, bfs=False)
    ]  # fmt: skip
    found = list[Key]()
    for text, name in asked or [(name, name) for name in known]:
        if text not in known:
            found += [(text, name)] if text != name else []
            continue
        key = group_of(offer.column(table, text), table, offer)
        found += [(key, name if key == name else f"{text}_from")] if key else []
    if asked:
        return list(dict.fromkeys(found))[:_MOST_GROUPED]
    return ([one for one in found if one[0] == one[1]] or found)[:1]


def check_where(query: exp.Query) -> None:
    """Raise SqlError for an aggregate in WHERE, which is a condition on single rows."""
    for where in query.find_all(exp.Where):
        select = where.parent
        for figure in where.find_all(exp.AggFunc) if isinstance(select, exp.Select) else ():
            if figure.find_ancestor(exp.Select) is select and figure.find_ancestor(exp.Window) is None:
                parts = list(where.this.flatten()) if isinstance(where.this, exp.And) else [where.this]
                condition = next(one for one in parts if figure in one.walk()).sql(dialect="duckdb", comments=False)
                hint = f"a condition on a figure of groups stands after GROUP BY: HAVING {condition[:200]}"
                raise SqlError(f"WHERE has an aggregate{sql_position(figure)}: it reads single rows", hint)


def _filled(hint: Hint, node: exp.Expr, table: str, offer: Offer) -> str:
    """Return a hint with the question that it proposes, about the open columns of the refused expression."""

    def asked(figures: str, *keys: Key) -> str:
        return proposed(figures, table, offer, node, keys)

    columns = _open_columns(node, table, offer)
    if not columns:
        return f"{hint.why}; or count rows: {asked('COUNT(*)')}"
    column, other = columns[0], columns[-1]
    if hint.asks == "figures" and all(map(is_measure, columns)):
        return f"{hint.why}: {asked(hint.instead.format(x=column.name, y=other.name))}"
    if hint.asks == "quantiles" and has_quantiles(column, table, offer):
        figures = _ends(node, table, offer) if hint in _ENDS else {}
        why = _BOTH if len(set(figures.values())) > 1 else hint.why
        return f"{why}: {asked(', '.join(figures) or hint.instead.format(x=column.name))}"
    is_extreme, why = hint.asks in ("beyond", "quantiles"), re.split("[;:]", hint.why)[0]
    if is_extreme and (counts := _beyond(hint, node, column, table, offer)):
        sides = " and ".join(counts)
        figures_of = ", ".join([f"AVG({column.name})", *counts.values()])
        return f"{why}; ask the average, and count the rows {sides} a value: {asked(figures_of)}"
    if is_extreme and is_measure(column):
        return f"{why}; ask the average: {asked(f'AVG({column.name})')}"
    key = group_of(column, table, offer)
    if key:
        why = hint.why if hint.asks == "groups" else f"{why}; count the rows of each value"
        return f"{why}: {asked('COUNT(*)', (key, column.name if key == column.name else f'{column.name}_from'))}"
    instead = f"AVG({column.name}), STDDEV({column.name})" if is_measure(column) else "COUNT(*)"
    return f"{why}, and silos do not group by {column.name!r}; ask {asked(instead)}"


def _ends(node: exp.Expr, table: str, offer: Offer) -> dict[str, str]:
    """Return the quantiles near all ends that the statement asks, in its order, each with the hint of its end."""
    select = node.find_ancestor(exp.Select)
    found = {}
    for one in (node,) if select is None else select.find_all(exp.Min, exp.Max, bfs=False):
        columns = _open_columns(one, table, offer)
        if columns and has_quantiles(columns[0], table, offer):
            end = _LEAST if isinstance(one, exp.Min) else _LARGEST
            found[end.instead.format(x=columns[0].name)] = end.why
    return found


def _beyond(hint: Hint, node: exp.Expr, column: TableColumn, table: str, offer: Offer) -> dict[str, str]:
    """Return counts of the rows below or above a value of a column, as its least or greatest value is asked."""
    select = node.find_ancestor(exp.Select)
    ends = [] if select is None else list(select.find_all(exp.Min, exp.Max, bfs=False))
    kinds = {type(one) for one in ends if [part.name for part in one.find_all(exp.Column)] == [column.name]}
    wants_low = hint is _LEAST or (hint is _LARGEST and exp.Min in kinds)
    wants_high = hint is not _LEAST or exp.Max in kinds
    sides = (("below", "<") if wants_low else None, ("above", ">") if wants_high else None)
    counts = {one[0]: _counted(column, one, table, offer) for one in sides if one is not None}
    return {side: count for side, count in counts.items() if count}


def _open_columns(node: exp.Expr, table: str, offer: Offer) -> list[TableColumn]:
    known = offer.columns(table)
    return [offer.column(table, one.name) for one in node.find_all(exp.Column, bfs=False) if one.name in known]


def is_measure(column: TableColumn) -> bool:
    """Tell whether silos add a column: it has bounds, or is true and false."""
    return column.step is not None or column.type == "bool"


def has_quantiles(column: TableColumn, table: str, offer: Offer) -> bool:
    """Tell whether silos show how many rows lie below each value of a column."""
    opened = all("quantile" in offer.silos[silo].aggregates for silo in offer.holders(table))
    return opened and column.step is not None and column.type != "bool" and offer.is_filter(table, column.name)


def group_of(column: TableColumn, table: str, offer: Offer) -> str:
    """Return what to group by for a column: itself, a bucket between its bounds, or nothing where none may be asked."""
    name, width = column.name, _width(column)
    is_filter = offer.is_filter(table, column.name)
    if column.domain or (column.type == "bool" and is_filter):
        return name
    if width is None or not is_filter or column.type == "bool" or column.range_steps >= MAX_STEPS:
        return ""
    if width == 1:
        return f"{name} // 1" if column.type == "int" else f"FLOOR({name})"
    return f"{name} // {width} * {width}" if column.type == "int" else f"FLOOR({name} / {width}) * {width}"


def _counted(column: TableColumn, side: tuple[str, str], table: str, offer: Offer) -> str:
    """Return a count of the rows on a side of the middle of the bounds; nothing where no condition may be asked."""
    width = _width(column)
    if width is None or column.low is None or column.high is None or column.type == "bool" or column.domain:
        return ""
    if not offer.is_filter(table, column.name):
        return ""
    middle = round((column.low + column.high) / 2 * float(column.step or 1) / width) * width
    name, sign = side
    return f"SUM(CASE WHEN {column.name} {sign} {middle} THEN 1 ELSE 0 END) AS n_{name}"


def _width(column: TableColumn) -> int | None:
    """Return a round width, of 1, 2 or 5 and zeros, of which the bounds hold at most about twelve; None without any."""
    if column.low is None or column.high is None:
        return None
    reach = (column.high - column.low) * float(column.step or 1)
    widths: Iterator[int] = (digit * int(10**power) for power in range(20) for digit in (1, 2, 5))
    return next(width for width in widths if reach / width <= _MOST_BUCKETS)
