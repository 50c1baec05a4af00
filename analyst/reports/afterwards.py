"""The part of a question that is computed from released figures: what it may do, and how its columns are made.

Promise: it reads the table `released` and nothing else, has no side effect, and gives the same result each time.
`analyst/reports/derived.py` computes it and the intervals of its columns.
"""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from math import prod

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from analyst.errors import SqlError
from analyst.sql.parse import SUPPORTED
from analyst.sql.split import RELEASED

GROUP, WITHHELD = "_group", "_withheld"  # columns of `released` that no question names
_RANKS: Mapping[type[exp.Expr], str] = {exp.Rank: "rank", exp.DenseRank: "dense_rank", exp.RowNumber: "row_number"}
# Windows that look at single groups, or count them: of those that are shown alone.
_OF_NEIGHBOURS = (
    exp.Rank,
    exp.DenseRank,
    exp.RowNumber,
    exp.PercentRank,
    exp.CumeDist,
    exp.Ntile,
    exp.Lag,
    exp.Lead,
    exp.First,
    exp.FirstValue,
    exp.Last,
    exp.LastValue,
    exp.NthValue,
)
# Figures of several groups that sqlglot does not know as such; they count each group as much, unlike a sum.
_OTHERS = frozenset(
    {"arbitrary", "favg", "geomean", "geometric_mean", "kurtosis_pop", "mad", "mean", "product", "regr_sxx", "regr_sxy",
     "regr_syy", "sem", "entropy"}
)  # fmt: skip
MAX_CHARACTERS = 200_000  # of the SQL; a file that somebody else wrote may have any
_MOST_READS = 256  # of one CTE by another, multiplied: what a database that does not keep them would compute
# All functions that are computed. Each gives the same result each time, in a time and a size that its arguments bound:
# what repeats, pads or lists cannot be interrupted while it fills the memory.
_OFFERED_TEXT = """
    abs acos asin atan atan2 cbrt ceil ceiling cos cot degrees even exp fdiv floor fmod gcd greatest isfinite isinf
    isnan lcm least ln log log10 log2 mod pi pow power radians round round_even roundbankers sign sin sqrt tan trunc
    coalesce if ifnull nullif typeof divide multiply subtract add xor char_length character_length concat concat_ws
    contains ends_with instr lcase left len length lower ltrim position prefix right rtrim split_part starts_with
    strlen strpos substr substring suffix trim ucase upper date_diff date_part date_sub date_trunc datediff datepart
    datetrunc day dayname dayofmonth dayofweek dayofyear epoch extract isodow isoyear last_day make_date month
    monthname quarter strftime week weekday weekofyear year yearweek any_value arbitrary arg_max arg_min argmax
    argmin avg bool_and bool_or corr count count_if count_star countif covar_pop covar_samp entropy favg first fsum
    geomean geometric_mean kahan_sum kurtosis kurtosis_pop last mad max max_by mean median min min_by mode product
    quantile quantile_cont quantile_disc regr_avgx regr_avgy regr_count regr_intercept regr_r2 regr_slope regr_sxx
    regr_sxy regr_syy sem skewness stddev stddev_pop stddev_samp sum sumkahan var_pop var_samp variance rank
    dense_rank row_number lag lead first_value last_value nth_value ntile percent_rank cume_dist
"""
# Functions that DuckDB calls as sqlglot does, whatever their arguments: to write each out takes long.
_NAMED: Mapping[type[exp.Expr], str] = {
    exp.Sum: "sum", exp.Avg: "avg", exp.Min: "min", exp.Max: "max", exp.Count: "count", exp.Round: "round",
    exp.Abs: "abs", exp.Substring: "substring", exp.Greatest: "greatest", exp.Least: "least", exp.Nullif: "nullif",
    exp.Rank: "rank", exp.DenseRank: "dense_rank", exp.RowNumber: "row_number", exp.Lag: "lag", exp.Lead: "lead",
}  # fmt: skip
_OFFERED = frozenset(_OFFERED_TEXT.split())
_PLAIN_NODES = (
    exp.Case,
    exp.If,
    exp.Cast,
    exp.Coalesce,
    exp.And,
    exp.Or,
    exp.Xor,
    exp.Distinct,
    exp.Filter,
    exp.Extract,
    exp.Concat,
    exp.Array,
)


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the answer, by how it is made; `name` is its name there.

    A figure of the core as it is, a quotient offset + scale * numerator / denominator, each an expression, a rank by
    an expression within partitions, or anything else.
    """

    name: str
    figure: str | None = None
    quotient: tuple[exp.Expr, exp.Expr, float, float] | None = None
    rank: tuple[str, exp.Expr, bool, tuple[exp.Expr, ...]] | None = None  # its function, key, whether largest first
    node: exp.Expr | None = None  # the expression over released figures, where it is one


@dataclass(frozen=True, slots=True)
class Afterwards:
    """What is computed after the answer.

    `columns` are empty where only the result says which there are (SELECT *). `is_whole`: each row of the result is a
    group of the core, and not a figure of several. `cut` is the alias of a figure and the least value with which a
    group stays in the result, where HAVING is that one comparison.
    """

    text: str
    query: exp.Query
    columns: tuple[Column, ...]
    is_whole: bool
    cut: tuple[str, float] | None
    selects: bool  # whether rows are left out by their figures

    def result(self) -> str:
        """Return the SQL of the answer's rows, in order; a whole one has GROUP as its last column."""
        query = self.query.copy()
        if self.is_whole and isinstance(query, exp.Select):
            shown = exp.not_(exp.column(WITHHELD))
            if query.find(exp.Window) is None:
                query.where(shown, copy=False)
            else:  # windows see withheld groups too
                qualify = query.args.get("qualify")
                query.set("qualify", exp.Qualify(this=shown if qualify is None else exp.and_(qualify.this, shown)))
            query.select(exp.column(GROUP), copy=False)
        return query.sql(dialect="duckdb", comments=False)

    def candidates(self) -> str:
        """Return the SQL of all rows that could be in the answer, in no order, with the parts of its columns.

        Its columns are those of the answer, then numerator and denominator of each quotient, then the key and the
        partition of each rank, and of a whole one GROUP.
        """
        query = self.query.copy()
        for clause in ("order", "limit", "offset"):
            query.set(clause, None)
        if not isinstance(query, exp.Select) or query.args.get("distinct") is not None or not self.columns:
            return query.sql(dialect="duckdb", comments=False)
        if self.is_whole:
            for clause in ("where", "qualify"):
                query.set(clause, None)
        for place, part in enumerate(self.parts()):
            query.select(exp.alias_(part.copy(), f"_part{place}"), copy=False)
        if self.is_whole:
            query.select(exp.column(GROUP), copy=False)
        return query.sql(dialect="duckdb", comments=False)

    def parts(self) -> Iterator[exp.Expr]:
        """Yield the expressions that quotients and ranks are made of, in the order of `candidates`."""
        for column in self.columns:
            if column.quotient is not None:
                yield from column.quotient[:2]
            if column.rank is not None:
                yield column.rank[1]
                yield from column.rank[3]


def read_after(text: str, figures: Mapping[str, str]) -> Afterwards:
    """Read the SQL of what is computed after the answer; `figures` are the functions of the core's aliases.

    Raises SqlError where it does more than that.
    """
    if len(text) > MAX_CHARACTERS:
        message = f"what is computed after the answer has {len(text):,} characters, at most {MAX_CHARACTERS:,} are read"
        raise SqlError(message, "ask for less in one question")
    try:
        query = sqlglot.parse_one(text, dialect="duckdb")
        again = query.sql(dialect="duckdb", comments=False)
        written = query if again == text else sqlglot.parse_one(again, dialect="duckdb")
    except (SqlglotError, RecursionError) as err:
        raise SqlError("what is computed after the answer is broken SQL", "ask the question anew") from err
    leaves = [one.find_ancestor(exp.Select) for one in query.find_all(exp.Table) if one.name == RELEASED]
    if not isinstance(query, exp.Query) or not isinstance(written, exp.Query) or len(leaves) != 1:
        raise SqlError(f"what is computed after the answer does not read {RELEASED!r} once", "ask the question anew")
    check_after(query)
    if written is not query:
        check_after(written)  # a function of another dialect may be written with others that the query does not name
    leaf, text = leaves[0], again
    if isinstance(leaf, exp.Select):
        _leave_withheld_out(query, leaf)
    if not isinstance(query, exp.Select) or any(one.is_star for one in query.expressions):
        return Afterwards(text, query, (), False, None, True)
    for one in list(query.expressions):
        if not one.alias and not isinstance(one, exp.Column):
            one.replace(exp.alias_(one.copy(), one.sql(dialect="duckdb", comments=False)[:60], quoted=True))
    names = [(one.alias or one.name).casefold() for one in query.expressions]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        hint = "give every column its own name with AS; a figure n also takes n_low, n_high, n_sd"
        raise SqlError(f"the output name {twice[0]!r} is used twice", hint)
    can_have_parts = query.args.get("distinct") is None
    is_whole = leaf is query and can_have_parts and query.args.get("group") is None and not _adds(query)
    nodes = [one.unalias() if leaf is query else None for one in query.expressions]
    columns = tuple(
        replace(_column(one, figures, is_whole, can_have_parts), node=node)
        for one, node in zip(query.expressions, nodes, strict=True)
    )
    cut = _cut(query, figures) if is_whole else None
    clauses = [query.args.get(clause) is not None for clause in ("where", "qualify", "limit", "offset")]
    inner = list(query.find_all(exp.Where, exp.Having, exp.Qualify, exp.Limit, exp.Offset))
    return Afterwards(text, query, columns, is_whole, cut, bool(inner) and (cut is None or sum(clauses) > 1))


def _adds(query: exp.Select) -> bool:
    """Tell whether a SELECT makes figures of several rows, other than by windows."""
    found = (one for one in query.find_all(exp.AggFunc) if one.find_ancestor(exp.Select) is query)
    return any(one.find_ancestor(exp.Window) is None for one in found)


def _leave_withheld_out(query: exp.Query, leaf: exp.Select) -> None:
    """Let withheld groups enter sums over groups, and no other figure of several: most of them do not exist."""
    cte, inner = leaf.find_ancestor(exp.CTE), leaf.parent
    is_filtered = False
    for select in query.find_all(exp.Select):
        source = select.args.get("from_")
        read = source.this if source is not None else None
        reads_it = read is inner and isinstance(inner, exp.Subquery)
        reads_it |= cte is not None and cte.this is leaf and isinstance(read, exp.Table) and read.name == cte.alias
        if not reads_it and select is not leaf:
            continue
        for one in list(select.find_all(exp.AggFunc, exp.Anonymous)):
            is_window = isinstance(one.parent, exp.Window) and one.arg_key == "this"
            is_other = one.find_ancestor(exp.Select) is not select or (select is leaf and not is_window)
            if is_other or not _counts_each(one, is_window):
                continue
            shown = exp.Where(this=exp.not_(exp.column(WITHHELD)))
            if isinstance(one.parent, exp.Filter):
                one.parent.set("expression", exp.Where(this=exp.and_(one.parent.expression.this, shown.this)))
            else:
                one.replace(exp.Filter(this=one.copy(), expression=shown))
            is_filtered |= select is not leaf
        is_filtered |= _apart(select) and select is not leaf
    if is_filtered:
        leaf.select(exp.column(WITHHELD), copy=False)


def _counts_each(node: exp.Expr, is_window: bool) -> bool:
    """Tell whether a figure of several groups counts each of them as much, unlike a sum."""
    if isinstance(node, exp.First | exp.Last):
        return not is_window
    if isinstance(node, exp.Anonymous):
        return str(node.this).lower() in _OTHERS
    return not isinstance(node, (exp.Sum, *_OF_NEIGHBOURS))


def _apart(select: exp.Select) -> bool:
    """Let ranks and neighbours be those among shown groups, or among withheld ones; tell whether there are any."""
    named = {one.name.casefold(): one for one in select.args.get("windows") or ()}
    found = False
    for window in list(select.find_all(exp.Window)):
        function = window.this
        while isinstance(function, exp.IgnoreNulls | exp.RespectNulls | exp.Filter):
            function = function.this
        if not isinstance(function, _OF_NEIGHBOURS) or window.find_ancestor(exp.Select) is not select:
            continue
        meant = named.get(window.alias.casefold())
        if meant is not None:  # a named window is that of sums too
            for part in ("partition_by", "order", "spec"):
                if window.args.get(part) is None or window.args.get(part) == []:
                    window.set(part, deepcopy(meant.args.get(part)))
            window.set("alias", None)
        window.set("partition_by", [exp.column(WITHHELD), *(window.args.get("partition_by") or ())])
        found = True
    return found


def check_after(query: exp.Query) -> None:
    """Raise SqlError at whatever reads another table, has a side effect, or may grow without bound."""
    ctes = {cte.alias for cte in query.find_all(exp.CTE)}
    for table in query.find_all(exp.Table):
        is_known = isinstance(table.this, exp.Identifier) and not table.db and table.name in {*ctes, RELEASED}
        if not is_known:
            shown = table.sql(dialect="duckdb")[:60]
            raise SqlError(f"{shown} is not supported: the answer is computed from released figures alone", SUPPORTED)
    read = [table.name for table in query.find_all(exp.Table)]
    if prod(max(1, read.count(name)) for name in ctes) > _MOST_READS:
        hint = "name what is read again and again once, or ask two questions"
        raise SqlError("the CTEs read each other too often to be computed", hint)
    for node in query.walk():
        name = node.alias if isinstance(node, exp.Alias) else node.name if isinstance(node, exp.Column) else ""
        if name.casefold().startswith(("_group", "_withheld", "_part", "_scenario")):
            raise SqlError(f"the name {name!r} is used inside", "choose another name")
        if isinstance(node, exp.Func) and not isinstance(node, _PLAIN_NODES):
            name = _function(node)
            if name not in _OFFERED:
                hint = "functions of figures: arithmetic, ROUND, COALESCE, CASE, RANK, LAG, SUM(...) OVER (...)"
                raise SqlError(f"{name.upper()} is not supported after the answer", hint)
        if isinstance(node, exp.Placeholder | exp.Parameter | exp.Command | exp.Lambda):
            raise SqlError(f"{node.sql(dialect='duckdb')[:60]} is not supported", SUPPORTED)


def _function(node: exp.Func) -> str:
    """Return the name with which DuckDB calls a function."""
    if isinstance(node, exp.Anonymous):
        return str(node.this).lower()
    if type(node) in _NAMED:
        return _NAMED[type(node)]
    text = node.sql(dialect="duckdb").partition("(")[0].strip().lower()
    return text if text.isidentifier() else node.key


def _column(one: exp.Expr, figures: Mapping[str, str], is_whole: bool, can_have_parts: bool) -> Column:
    """Return how a column of the answer is made."""
    node, name = one.unalias(), one.alias_or_name or one.sql(dialect="duckdb")
    if is_whole and isinstance(node, exp.Column) and node.name in figures:
        return Column(name, figure=node.name)
    if not can_have_parts:
        return Column(name)
    if isinstance(node, exp.Window) and type(node.this) in _RANKS:
        order = node.args.get("order")
        keys = order.expressions if order is not None else []
        if len(keys) == 1 and isinstance(keys[0], exp.Ordered):
            key, partition = keys[0], tuple(node.args.get("partition_by") or ())
            return Column(name, rank=(_RANKS[type(node.this)], key.this, bool(key.args.get("desc")), partition))
    is_rounded = isinstance(node, exp.Round) and _number(node.args.get("decimals") or exp.Literal.number(0)) is not None
    return Column(name, quotient=_quotient(node.this if is_rounded else node, 1.0, 0.0))


def _quotient(node: exp.Expr, scale: float, offset: float) -> tuple[exp.Expr, exp.Expr, float, float] | None:
    """Return the numerator, denominator, scale and offset of a quotient; None where it is none, scaled and moved."""
    while isinstance(node, exp.Paren):
        node = node.this
    if isinstance(node, exp.Neg):
        return _quotient(node.this, -scale, offset)
    if not isinstance(node, exp.Add | exp.Sub | exp.Mul | exp.Div):
        return None
    left, right = node.this, node.expression
    below, above = _number(right), _number(left)
    match node:
        case exp.Div() if below is not None:
            return _quotient(left, scale / below, offset) if below else None
        case exp.Div():
            return left, right, scale, offset
        case exp.Mul() if below is not None or above is not None:
            factor, rest = (below, left) if below is not None else (above, right)
            return _quotient(rest, scale * (factor or 0.0), offset) if factor else None
        case exp.Add() if below is not None or above is not None:
            moved, rest = (below, left) if below is not None else (above, right)
            return _quotient(rest, scale, offset + scale * (moved or 0.0))
        case exp.Sub() if below is not None:
            return _quotient(left, scale, offset - scale * below)
        case exp.Sub() if above is not None:
            return _quotient(right, -scale, offset + scale * above)
    return None


def _number(node: exp.Expr) -> float | None:
    """Return a literal number; None for anything else."""
    while isinstance(node, exp.Paren):
        node = node.this
    if isinstance(node, exp.Neg):
        inner = _number(node.this)
        return None if inner is None else -inner
    return float(node.this) if isinstance(node, exp.Literal) and not node.is_string else None


def _cut(query: exp.Select, figures: Mapping[str, str]) -> tuple[str, float] | None:
    """Return the one comparison of HAVING, if it is that a count is at least a number."""
    where = query.args.get("where")
    node = where.this if where is not None else None
    while isinstance(node, exp.Paren):
        node = node.this
    if isinstance(node, exp.LT | exp.LTE):
        node = exp.GT(this=node.expression, expression=node.this)
    if not isinstance(node, exp.GT | exp.GTE) or not isinstance(node.this, exp.Column):
        return None
    aliases = {one.alias: one.this.name for one in query.expressions if one.alias and isinstance(one.this, exp.Column)}
    name, least = aliases.get(node.this.name, node.this.name), _number(node.expression)
    return (name, least) if least is not None and figures.get(name) == "count" else None
