"""Take a question apart: what the silos compute, and what is computed from their figures after the answer.

    SELECT race, SUM(loan) / SUM(income) AS ratio FROM loans GROUP BY race ORDER BY ratio
    core:  SELECT race, SUM(loan) AS f1, SUM(income) AS f2 FROM loans GROUP BY race
    after: SELECT race, f1 / f2 AS ratio FROM released ORDER BY ratio

Pure. The core is one SELECT of columns and aggregates from one table, as the rules of `analyst.sql.plan` read it; the
rest of the question stands around it, on the table `released`, and costs nothing. A CTE or a subquery that only filters
becomes a part of the core.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from sqlglot import exp

from analyst.errors import SqlError
from analyst.sql.parse import check_extent, sql_position, unsupported

RELEASED = "released"  # the table of the silos' figures, a row for each group
_MAX_MERGED = 64  # subqueries and CTEs of a question
MAX_PARTS = 5_000  # nodes of a SELECT once the columns of its subqueries are written out
# What a SELECT that only filters may have.
_FILTERS = {"expressions", "from_", "where", "with_"}
_PLAIN = {"this", "expression", "big_int"}  # of an aggregate of columns
_LEAF = {*_FILTERS, "group", "having", "qualify", "order", "limit", "offset", "distinct", "windows"}


@dataclass(frozen=True, slots=True)
class Split:
    """A question in two parts; without `after` the figures of the core are the answer."""

    core: exp.Select
    after: exp.Query | None


class NoFigureError(SqlError):
    """A question that lists rows: `select` reads them, and takes no figure of them."""

    def __init__(self, select: exp.Select, message: str) -> None:
        super().__init__(message, "add COUNT(*), SUM(col) or AVG(col): rows never leave a silo")
        self.select = select


def split(query: exp.Query) -> Split:
    """Return the two parts of a question; raises SqlError where it is about several tables, or asks twice."""
    query = query.copy()
    for alias in query.find_all(exp.TableAlias):
        if alias.name == RELEASED:
            raise SqlError(f"{RELEASED!r} is the name of the silos' figures", "choose another name")
    leaf = _leaf(query)
    is_whole = leaf is query
    for clause, node in leaf.args.items():
        if node and clause not in _LEAF:
            inner = node[0] if isinstance(node, list) else node
            name = {"joins": "JOIN", "into": "INTO"}.get(clause, clause.rstrip("_").upper())
            raise unsupported(inner if isinstance(inner, exp.Expr) else leaf, f"{name} is not supported")
    _without_aliases(leaf)
    keys = grouped_by(leaf)
    if is_whole and _is_core(leaf, keys):
        return Split(leaf, None)
    core, rest = _parts(leaf, keys)
    if is_whole:
        return Split(core, rest)
    leaf.replace(rest)
    return Split(core, _flattened(query))


def _flattened(query: exp.Query) -> exp.Query:
    """Let the outermost SELECT read the released figures itself, where what it reads only filters and names them."""
    for _ in range(_MAX_MERGED):
        if not isinstance(query, exp.Select) or _aggregates_own(query) or query.args.get("group") is not None:
            break
        ctes = {cte.alias: cte for cte in query.find_all(exp.CTE)}
        inner = _filtering(query, ctes)
        is_read_once = len(list(query.find_all(exp.Table))) == 1 + len(ctes)
        if inner is None or not is_read_once or len(ctes) > 1:
            break
        if any(isinstance(one, exp.Star) for one in query.expressions):
            if len(query.expressions) > 1:
                break
            query.set("expressions", [exp.column(one.alias_or_name, quoted=True) for one in inner.expressions])
        _merge(query, inner)
        _drop_unused(query)
    return query


def _aggregates_own(query: exp.Select) -> bool:
    """Tell whether a SELECT makes figures of several rows, and not of each one."""
    clauses = [query.args.get(clause) for clause in ("where", "qualify", "order")]
    return any(_aggregates(one) for one in (*query.expressions, *clauses) if isinstance(one, exp.Expr))


def renamed(after: exp.Query, names: Mapping[str, str]) -> exp.Query:
    """Return the part after the answer with the groups' columns by the names that the released table has for them."""
    after = after.copy()
    leaf = next(one for one in after.find_all(exp.Table) if one.name == RELEASED).find_ancestor(exp.Select)
    for column in list(after.find_all(exp.Column)):
        name = names.get(column.name, column.name)
        if name == column.name or column.find_ancestor(exp.Select) is not leaf:
            continue
        new: exp.Expr = exp.column(name, quoted=True)
        if isinstance(column.parent, exp.Select) and column.arg_key == "expressions":
            new = exp.alias_(new, column.name, quoted=True)
        column.replace(new)
    return after


def lenient(after: exp.Query, figures: Collection[str]) -> exp.Query:
    """Return a rest in which a cast of figures alone that overflows is NULL: it was paid for, and its size is noise."""
    after = after.copy()
    for cast in [one for one in after.find_all(exp.Cast) if type(one) is exp.Cast]:
        names = {one.name for one in cast.find_all(exp.Column)}
        if names and names.issubset(figures):
            cast.replace(exp.TryCast(**cast.args))
    return after


def _leaf(query: exp.Query) -> exp.Select:
    """Return the one SELECT that reads a table, after what only filters was merged into it."""
    for _ in range(_MAX_MERGED):
        ctes = {cte.alias: cte for cte in query.find_all(exp.CTE)}
        for with_ in query.find_all(exp.With):
            if with_.args.get("recursive"):
                raise unsupported(with_, "WITH RECURSIVE is not supported")
        readers = [one for one in query.find_all(exp.Select) if _base(one, ctes) is not None]
        reading = [(one, inner) for one in query.find_all(exp.Select) if (inner := _filtering(one, ctes)) is not None]
        if not reading:
            break
        _merge(*reading[0])
        _drop_unused(query)
    else:
        raise unsupported(query, f"more than {_MAX_MERGED} subqueries are not supported")
    tables = [one for one in query.find_all(exp.Table) if one.name not in ctes]
    if not readers:
        raise unsupported(query, "FROM must name one table, without schema")
    if len(tables) > 1:
        joins = next(iter(query.find_all(exp.Join)), None)
        if joins is not None:
            hint = "no person is matched across silos; ask about each table alone, and compare the answers"
            if len({one.name for one in tables}) == 1 and joins.find_ancestor(exp.Select) not in readers:
                hint = (
                    "figures of one table need no join: ask one question, with COUNT(*) FILTER (WHERE ...) AS n,"
                    " COUNT(*) AS m, by one GROUP BY"
                )
            raise SqlError(unsupported(joins, "JOIN is not supported").message, hint)
        if isinstance(query, exp.SetOperation):
            raise SqlError(
                unsupported(query, f"{query.key.upper()} of two questions is not supported").message,
                "write UNION ALL of whole questions, or ask several with ; between them; to read one twice: WITH t AS"
                " (SELECT a, COUNT(*) AS n FROM ... GROUP BY a) SELECT a, n FROM t UNION ALL SELECT 'all', SUM(n)"
                " FROM t",
            )
        again = unsupported(tables[1], f"the question reads {tables[0].name!r} and then {tables[1].name!r}").message
        hint = (
            "ask several questions with ; between them; a share is COUNT(*) FILTER (WHERE ...) / COUNT(*), the total"
            " of all groups is SUM(COUNT(*)) OVER ()"
        )
        if tables[1].find_ancestor(exp.Where) is not None:
            hint = "ask the question in WHERE first, and write what it gives in its place"
        raise SqlError(again, hint)
    return readers[0]


def _base(select: exp.Select, ctes: Mapping[str, exp.CTE]) -> exp.Table | None:
    """Return the table that a SELECT reads itself; None if it reads another SELECT."""
    source = select.args.get("from_")
    table = source.this if source is not None else None
    return table if isinstance(table, exp.Table) and table.name not in ctes else None


def _filtering(select: exp.Select, ctes: Mapping[str, exp.CTE]) -> exp.Select | None:
    """Return the SELECT that this one reads, if that reads a table and only filters it."""
    source = select.args.get("from_")
    read = source.this if source is not None else None
    if select.args.get("joins"):
        return None
    inner: exp.Expr | None = None
    if isinstance(read, exp.Subquery):
        inner = read.this
    elif isinstance(read, exp.Table) and read.name in ctes:
        inner = ctes[read.name].this
    if not isinstance(inner, exp.Select) or _base(inner, ctes) is None:
        return None
    is_plain = all(clause in _FILTERS for clause, node in inner.args.items() if node)
    has_figures = any(_aggregates(one) or one.find(exp.Window) for one in inner.expressions)
    return inner if is_plain and not has_figures else None


def _merge(outer: exp.Select, inner: exp.Select) -> None:
    """Let a SELECT read what another one reads, with that one's condition and expressions."""
    inner = inner.copy()
    _without_aliases(inner)
    source = outer.args["from_"]
    _without_qualifier(outer, source.this.alias_or_name)
    meanings = {one.alias_or_name: one.unalias() for one in inner.expressions if not isinstance(one, exp.Star)}
    is_open = any(isinstance(one, exp.Star) for one in inner.expressions)
    own = {one.alias for one in outer.expressions if one.alias}
    outer.set("from_", inner.args["from_"])
    sizes = {name: sum(1 for _ in one.walk()) for name, one in meanings.items()}
    parts = sum(1 for _ in outer.walk())
    for column in list(outer.find_all(exp.Column)):
        if isinstance(column.this, exp.Star) or column.find_ancestor(exp.Select) is not outer:
            continue
        meaning = meanings.get(column.name)
        if meaning is None:
            if not is_open and column.name not in own:
                raise unsupported(column, f"the subquery has no column {column.name!r}")
            continue
        if isinstance(meaning, exp.Column) and meaning.name == column.name:
            continue
        parts += sizes[column.name]
        if parts > MAX_PARTS:
            message = f"{column.name!r} stands for too much{sql_position(column)}: with the columns of subqueries"
            hint = "use a computed column less often in each subquery, as what it stands for is copied each time"
            raise SqlError(f"{message} written out, a SELECT has more than {MAX_PARTS:,} parts", hint)
        new: exp.Expr = meaning.copy() if isinstance(meaning, exp.Column) else exp.Paren(this=meaning.copy())
        if isinstance(column.parent, exp.Select) and column.arg_key == "expressions":
            new = exp.alias_(meaning.copy(), column.name, quoted=True)
        column.replace(new)
    conditions = [one.args["where"].this for one in (inner, outer) if one.args.get("where") is not None]
    if conditions:
        outer.set("where", exp.Where(this=exp.and_(*conditions) if len(conditions) > 1 else conditions[0]))
    check_extent(outer)


def _drop_unused(query: exp.Query) -> None:
    """Remove the CTEs that nothing reads any more."""
    for with_ in list(query.find_all(exp.With)):
        for cte in list(with_.expressions):
            if not any(one.name == cte.alias for one in query.find_all(exp.Table)):
                cte.pop()
        if not with_.expressions:
            with_.pop()


def _without_aliases(select: exp.Select) -> None:
    """Take off the alias of the one table, and the qualifiers of its columns.

    In GROUP BY they stay, as there a name with one is no alias of the answer.
    """
    table = select.args["from_"].this
    _without_qualifier(select, table.alias_or_name, table.name)
    _without_qualifier(select, table.name, table.name)
    if isinstance(table.args.get("alias"), exp.TableAlias) and not table.args["alias"].columns:
        table.set("alias", None)


def _without_qualifier(select: exp.Select, name: str, in_group: str | None = None) -> None:
    for column in select.find_all(exp.Column):
        if column.table == name and not column.args.get("db") and not isinstance(column.this, exp.Star):
            is_key = in_group is not None and isinstance(column.parent, exp.Group)
            column.set("table", exp.to_identifier(in_group) if is_key else None)


def grouped_by(leaf: exp.Select) -> tuple[exp.Expr, ...]:
    """Return what a SELECT groups by, and write it out: no ordinals, no aliases, no ALL."""
    group = leaf.args.get("group")
    if group is None:
        return ()
    if (sets := group.find(exp.Rollup, exp.Cube, exp.GroupingSets)) is not None:
        raise unsupported(sets, "ROLLUP, CUBE and GROUPING SETS are not supported; name the columns")
    names = {one.alias: one.this for one in leaf.expressions if one.alias}
    if group.args.get("all"):
        found = [one.unalias() for one in leaf.expressions if not _aggregates(one) and not one.find(exp.Window)]
        leaf.set("group", exp.Group(expressions=[one.copy() for one in found]) if found else None)
        return tuple(found)
    if not group.expressions:
        raise unsupported(leaf, "GROUP BY names no column")
    keys = []
    for node in group.expressions:
        meant = node.unnest()
        if isinstance(node, exp.Literal) and not node.is_string:
            place = int(node.this) if str(node.this).isdigit() else 0
            if not 1 <= place <= len(leaf.expressions):
                raise unsupported(node, f"GROUP BY {node.this} names no column of the answer")
            meant = leaf.expressions[place - 1].unalias()
        elif isinstance(node, exp.Column) and node.name in names and not node.table:
            # In its own expression, a name is that of the table's column, and so it is here.
            is_own = any(one.name == node.name for one in names[node.name].find_all(exp.Column))
            meant = node if is_own else names[node.name].unnest()
        if meant is not node:
            node.replace(meant.copy())
        keys.append(meant)
    return tuple(keys)


def _is_core(leaf: exp.Select, keys: tuple[exp.Expr, ...]) -> bool:
    """Tell whether every column of the answer is a group or an aggregate, as it is."""
    if any(leaf.args.get(clause) for clause in _LEAF - _FILTERS - {"group"}):
        return False
    written = {_text(key) for key in keys}
    nodes = [one.unalias() for one in leaf.expressions]
    if any(_aggregates(one) and not isinstance(one, exp.AggFunc) for one in nodes):
        return False
    if any(_aggregates(one) and one.find(exp.CountIf, exp.Filter, exp.Case, exp.If) for one in nodes):
        return False  # conditions make groups of their own, which are added up after the answer
    if any(one.find(exp.Window) for one in nodes):
        return False
    if written - set(map(_text, nodes)):
        return False  # an answer tells its groups apart by what it is grouped by
    has_figures = any(map(_aggregates, nodes))  # without one, the rules say what is missing
    return not has_figures or all(
        _aggregates(one) or isinstance(one, exp.Column | exp.Star) or _text(one) in written for one in nodes
    )


def _parts(leaf: exp.Select, keys: tuple[exp.Expr, ...]) -> tuple[exp.Select, exp.Select]:
    """Return the core of a SELECT, and the SELECT on its figures."""
    star = next((one for one in leaf.expressions if isinstance(one, exp.Star) or one.is_star), None)
    if star is not None and not isinstance(star.unalias(), exp.AggFunc):
        raise NoFigureError(leaf, f"SELECT * is not supported{sql_position(star)}")
    core_names: dict[str, str] = {}
    taken = {one.name for one in leaf.find_all(exp.Column)} | {one.alias for one in leaf.expressions}
    fresh = (name for place in range(1, 10_000) if (name := f"f{place}") not in taken)
    labels = (name for place in range(1, 10_000) if (name := f"g{place}") not in taken)
    core_columns: list[exp.Expr] = []
    columns = {one.name for one in leaf.find_all(exp.Column)}
    aliases = {_text(one.this): one.alias for one in leaf.expressions if one.alias and one.alias not in columns}
    for key in keys:
        if _text(key) in core_names:
            continue
        is_column = isinstance(key, exp.Column)
        name = key.name if is_column else aliases.get(_text(key)) or next(labels)
        core_names[_text(key)] = name
        core_columns.append(key.copy() if is_column else exp.alias_(key.unnest().copy(), name))
    figures = _aggregates(leaf)
    for figure in figures:
        if (written := _text(figure)) not in core_names:
            core_names[written] = next(fresh)
            core_columns.append(exp.alias_(figure.copy(), core_names[written]))
    if not any(_aggregates(one) for one in core_columns):
        raise NoFigureError(leaf, f"the question has no aggregate{sql_position(leaf.expressions[0])}")
    core = exp.Select(expressions=core_columns, from_=leaf.args["from_"].copy())
    for clause in ("where", "group"):
        if leaf.args.get(clause) is not None:
            core.set(clause, leaf.args[clause].copy())
    return core, _rest(leaf, core_names, (type(one.unnest()) for one in (*keys, *figures)))


def _rest(leaf: exp.Select, names: Mapping[str, str], kinds: Iterable[type[exp.Expr]]) -> exp.Select:
    """Return a SELECT as it stands on the table of released figures; `kinds` are those of what `names` has."""
    rest = leaf.copy()
    shown = [one.alias or default_name(one) for one in rest.expressions]
    kinds = frozenset(kinds)
    for clause in ("expressions", "having", "qualify", "order", "windows", "distinct"):
        found = rest.args.get(clause)
        for node in found if isinstance(found, list) else [found] if isinstance(found, exp.Expr) else []:
            _replace(node, names, kinds)
    for one, name in zip(list(rest.expressions), shown, strict=True):
        if not one.alias and not isinstance(one, exp.Star) and one.output_name != name:
            one.replace(exp.alias_(one.copy(), name, quoted=True))
    rest.set("from_", exp.From(this=exp.to_table(RELEASED)))
    rest.set("group", None)
    having = rest.args.get("having")
    rest.set("having", None)
    rest.set("where", exp.Where(this=having.this) if having is not None else None)
    _check_columns(rest, set(names.values()))
    return rest


def _replace(node: exp.Expr, names: Mapping[str, str], kinds: frozenset[type[exp.Expr]]) -> None:
    """Replace every group and figure inside an expression by its column of the released table.

    Only a node of one of their kinds can be one of them: to write each as text takes longer than all else.
    """
    pending = [node]
    while pending:
        one = pending.pop()
        is_known = type(one.unnest()) in kinds and not isinstance(one, exp.Literal) and not _is_windowed(one)
        name = names.get(_text(one)) if is_known else None
        if name is not None:
            if not (isinstance(one, exp.Column) and one.name == name):
                one.replace(exp.column(name))
            continue
        pending += list(one.iter_expressions())


def _check_columns(rest: exp.Select, known: set[str]) -> None:
    """Raise SqlError for a column that is neither grouped by nor aggregated."""
    aliases = {one.alias for one in rest.expressions if one.alias}
    for column in rest.find_all(exp.Column):
        if isinstance(column.this, exp.Star):
            raise unsupported(column, "SELECT * is not supported")
        if column.name not in known | aliases and column.find_ancestor(exp.Select) is rest:
            where = unsupported(column, f"column {column.name!r} is neither grouped by nor aggregated").message
            named = f"; the answer has {', '.join(sorted(aliases))}" if aliases else ""
            raise SqlError(where, f"add it to GROUP BY, or take a figure of it, such as AVG{named}")
    if any(isinstance(one, exp.Star) for one in rest.expressions):
        raise unsupported(rest, "SELECT * is not supported")


def _aggregates(node: exp.Expr) -> list[exp.Expr]:
    """Return the aggregates inside an expression, with their FILTER; those of a window, over groups, are none."""
    found, pending = list[exp.Expr](), [node]
    while pending:
        one = pending.pop()
        inner = one.this if isinstance(one, exp.Filter) else one
        is_of_groups = inner is one and isinstance(one, exp.Lag | exp.Lead | exp.FirstValue | exp.LastValue)
        if isinstance(inner, exp.AggFunc) and not is_of_groups and not _is_windowed(one):
            found.append(one)
        else:
            pending += reversed(list(one.iter_expressions()))
    return found


def _is_windowed(node: exp.Expr) -> bool:
    """Tell whether a function is that of a window."""
    parent = node.parent
    while isinstance(parent, exp.IgnoreNulls | exp.RespectNulls | exp.Filter) and node.arg_key == "this":
        node, parent = parent, parent.parent
    return isinstance(parent, exp.Window) and node.arg_key == "this"


def default_name(node: exp.Expr) -> str:
    """Return the name of a column without an alias: that of a column or an aggregate, or else its text."""
    if isinstance(node, exp.Column):
        return str(node.name)
    if isinstance(node, exp.Count | exp.Sum | exp.Avg) and isinstance(node.this, exp.Column | exp.Star):
        argument = "star" if isinstance(node.this, exp.Star) else str(node.this.name)
        return f"{node.key}_{argument}"
    return node.sql(dialect="duckdb", comments=False)[:60]


def _text(node: exp.Expr) -> str:
    """Return an expression as text, the same for all spellings of it."""
    inner = node
    while isinstance(inner, exp.Paren):
        inner = inner.this
    if isinstance(inner, exp.Column) and inner.table:
        inner = exp.Column(this=inner.this.copy())
    if isinstance(inner, exp.Column) and isinstance(inner.this, exp.Identifier) and not inner.args.get("db"):
        name = inner.name.replace('"', '""')
        return f'"{name}"'.casefold()  # as it would be written, without the writing
    if isinstance(inner, exp.AggFunc) and {key for key, one in inner.args.items() if one} <= _PLAIN:
        arguments = [one for one in (inner.args.get("this"), inner.args.get("expression")) if one is not None]
        if all(
            isinstance(one, exp.Column) or (isinstance(one, exp.Star) and not any(one.args.values()))
            for one in arguments
        ):
            return f"{inner.key}({', '.join('*' if isinstance(one, exp.Star) else _text(one) for one in arguments)})"
    if any(one.is_string for one in inner.find_all(exp.Literal)):  # a text keeps its case, which tells values apart
        return inner.transform(_in_small).sql(
            dialect="duckdb", comments=False, normalize_functions="upper", identify=True
        )
    return inner.sql(dialect="duckdb", comments=False, normalize_functions="upper", identify=True).casefold()


def _in_small(node: exp.Expr) -> exp.Expr:
    """Return a name in small letters, and any other node as it is."""
    return exp.to_identifier(node.name.casefold()) if isinstance(node, exp.Identifier) else node
