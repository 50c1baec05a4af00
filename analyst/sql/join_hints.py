"""What cannot be joined, or read twice, and the question that comes nearest: mostly one row of each person."""

from collections.abc import Collection, Sequence
from decimal import Decimal

from sqlglot import exp

from analyst.errors import SqlError
from analyst.sql.offer import Offer
from analyst.sql.parse import sql_position, unsupported
from policies.requests.tables import TableColumn

ACROSS = "no person is matched across silos; ask about each table alone, and compare the answers"


def no_silo_has_both(join: exp.Join, tables: Sequence[str]) -> SqlError:
    """Return why tables of different silos have no join."""
    message = f"no silo has {' and '.join(map(repr, tables))}, and none is joined with another's{sql_position(join)}"
    return SqlError(message, ACROSS)


def wrong_kind(join: exp.Join, first: str, second: str, person: str) -> None:
    """Raise SqlError for a join that is no inner one."""
    kind = " ".join(str(join.args[key]).upper() for key in ("method", "side", "kind") if join.args.get(key))
    if kind in ("", "INNER"):
        return
    hint = f"write {first} JOIN {second} USING ({person}): it counts rows of who has a row in both"
    if kind in ("LEFT", "LEFT OUTER", "RIGHT", "RIGHT OUTER", "FULL", "FULL OUTER"):
        hint += f"; all rows of {first} are counted without a join, and the difference is who has none"
    raise SqlError(f"{kind} JOIN is not supported{sql_position(join)}", hint)


def both_kinds(join: exp.Join, select: exp.Select, table: str, offer: Offer) -> SqlError:
    """Return the nearest question to a table joined with itself: who has rows with both of two values."""
    message = unsupported(join, "JOIN of a table with itself is not supported").message
    names, persons = offer.columns(table), offer.persons(table)
    used = [one.name for one in select.find_all(exp.Column) if one.name in names]
    if persons:
        if len(asked := _by_side(select, names)) == 2:
            return SqlError(message, f"count who has rows of both kinds: {who_has(persons[0], table, asked)}")
        for name in used:
            column = offer.with_values(offer.column(table, name))
            if len(values := _two_values(column)) == 2:
                conditions = [f"{name} = {value}" for value in values]
                return SqlError(message, f"count who has both of two values: {who_has(persons[0], table, conditions)}")
    return SqlError(message, "ask about the table alone")


def _by_side(select: exp.Select, names: Collection[str]) -> list[str]:
    """Return the conditions on each of two readings of a table, without what compares the two."""
    where, found = select.args.get("where"), dict[str, list[str]]()
    for one in [] if where is None else _parts(where):
        sides = {column.table for column in one.find_all(exp.Column)}
        if len(sides) == 1 and "" not in sides and all(column.name in names for column in one.find_all(exp.Column)):
            found.setdefault(min(sides), []).append(_unqualified(one).sql(dialect="duckdb"))
    return [" AND ".join(parts) for parts in found.values()]


def _parts(where: exp.Expr) -> list[exp.Expr]:
    """Return the conditions that all hold in WHERE."""
    return list(where.this.flatten()) if isinstance(where.this, exp.And) else [where.this]


def who_has(person: str, table: str, conditions: Sequence[str], lacks: Sequence[str] = ()) -> str:
    """Return the question how many persons have a row for each condition, and none for some others."""
    has = [f"COUNT(*) FILTER (WHERE {one}) > 0" for one in conditions]
    has += [f"COUNT(*) FILTER (WHERE {one}) = 0" for one in lacks]
    inner = f"SELECT {person} FROM {table} GROUP BY {person} HAVING {' AND '.join(has)}"  # noqa: S608
    return f"SELECT COUNT(*) FROM ({inner})"  # noqa: S608


def _two_values(column: TableColumn) -> list[str]:
    """Return two values of a column as literals; fewer where none are known."""
    if column.domain:
        known = [one for one in column.domain if one != column.unknown][:2]
        return known if column.type == "int" else ["'" + one.replace("'", "''") + "'" for one in known]
    if column.low is None or column.type == "bool":
        return ["TRUE", "FALSE"] if column.type == "bool" else []
    step = Decimal(column.step or 1)
    return [f"{(column.low + more) * step:f}" for more in (0, 1)]


def check_joined_rows(query: exp.Query, offer: Offer, ctes: Collection[str]) -> None:
    """Raise SqlError where rows are matched by the person otherwise than by a join of tables."""
    for join in query.find_all(exp.Join):
        _check_with_inner(join, offer, ctes)
    for select in query.find_all(exp.Select):
        _check_windows(select, offer)
    for node in query.find_all(exp.In, exp.Exists, exp.Intersect, exp.Except):
        _check_twice(node, offer)


def _check_with_inner(join: exp.Join, offer: Offer, ctes: Collection[str]) -> None:
    """Refuse rows joined with what each person comes to: that is a figure of all rows beside those of a group."""
    select = join.find_ancestor(exp.Select)
    source = None if select is None else select.args.get("from_")
    sides = [] if source is None else [source.this, join.this]
    tables = [one.name for one in sides if isinstance(one, exp.Table) and one.name not in ctes]
    if len(tables) != 1 or tables[0] not in offer.tables or len(sides) < 2:
        return
    names, persons = [_grouped(offer, tables[0])], offer.persons(tables[0])
    if not persons or not names[0]:
        raise SqlError(unsupported(join, "JOIN with a subquery is not supported").message, ACROSS)
    inner = (
        f"SELECT {persons[0]}, {names[0]}, MIN({names[0]}) OVER (PARTITION BY {persons[0]}) AS first FROM {tables[0]}"  # noqa: S608
        f" GROUP BY {persons[0]}, {names[0]}"
    )
    question = f"SELECT first, {names[0]}, COUNT(*) FROM ({inner}) GROUP BY first, {names[0]}"  # noqa: S608
    message = unsupported(join, "JOIN of rows with a subquery is not supported").message
    raise SqlError(message, f"let what all rows of a person come to stand beside a row for each group: {question}")


def _check_windows(select: exp.Select, offer: Offer) -> None:
    """Refuse windows over the rows of a table, which would set one row beside another."""
    source = select.args.get("from_")
    table = None if source is None else source.this
    if not isinstance(table, exp.Table) or table.name not in offer.tables or select.args.get("group") is not None:
        return
    window = next((one for one in select.find_all(exp.Window) if one.find_ancestor(exp.Select) is select), None)
    persons, name = offer.persons(table.name), _grouped(offer, table.name)
    if window is None or not persons or not name:
        return
    by = [one.name for one in window.args.get("partition_by") or [] if isinstance(one, exp.Column)]
    if not set(by).intersection(persons):
        return
    message = f"{window.sql(dialect='duckdb')[:60]} is not supported{sql_position(window)}"
    inner = f"SELECT {persons[0]}, COUNT(DISTINCT {name}) AS n FROM {table.name} GROUP BY {persons[0]}"  # noqa: S608
    again = f"SELECT n, COUNT(*) FROM ({inner}) GROUP BY n"  # noqa: S608
    if isinstance(window.this, exp.Min | exp.Max) and isinstance(window.this.this, exp.Column):
        key = next((one.name for one in select.expressions if _is_key(one, table.name, offer)), name)
        of, name = window.this, window.this.this.name
        figure = of if name == key else type(of)(this=of.copy())
        over = f"{figure.sql(dialect='duckdb')} OVER (PARTITION BY {persons[0]})"
        inner = f"SELECT {persons[0]}, {key}, {over} AS first FROM {table.name}"  # noqa: S608
        again = f"SELECT first, {key}, COUNT(*) FROM ({inner} GROUP BY {persons[0]}, {key}) GROUP BY first, {key}"  # noqa: S608
        raise SqlError(message, f"make one row of a person in each group: {again}")
    raise SqlError(message, f"silos compare no two rows of a person; count in how many groups each has rows: {again}")


def _is_key(node: exp.Expr, table: str, offer: Offer) -> bool:
    return (
        isinstance(node, exp.Column)
        and node.name in offer.columns(table)
        and bool(offer.column(table, node.name).domain)
    )


def _check_twice(node: exp.Expr, offer: Offer) -> None:
    """Refuse what matches persons of one reading of a table with those of another one."""
    selects = [one for one in node.find_all(exp.Select) if _table(one) in offer.tables]
    outer = node.find_ancestor(exp.Select) if isinstance(node, exp.In | exp.Exists) else None
    if outer is not None:
        selects = [outer, *selects]
    tables = {_table(one) for one in selects}
    if len(selects) != 2 or len(tables) != 1 or not (persons := offer.persons(min(tables))):
        return
    column = node.this if isinstance(node, exp.In) else None
    if isinstance(node, exp.In) and not (isinstance(column, exp.Column) and column.name in persons):
        return
    if isinstance(node, exp.SetOperation) and not all(_lists(one, persons) for one in selects):
        return
    conditions = [_own_condition(one, node, persons) for one in selects]
    is_without = isinstance(node, exp.Except) or isinstance(node.parent, exp.Not)
    has, lacks = (conditions[:1], conditions[1:]) if is_without else (conditions, [])
    table = min(tables)
    message = f"the question matches persons of {table!r} with those of {table!r} again{sql_position(node)}"
    if any(one == "" for one in conditions):
        hint = f"make one row of each person: {who_has(persons[0], table, ['...'])}"
    else:
        hint = f"make one row of each person: {who_has(persons[0], table, has, lacks)}"
    raise SqlError(message, hint)


def _lists(select: exp.Select, persons: Collection[str]) -> bool:
    """Tell whether a SELECT lists persons."""
    return [one.unalias().name for one in select.expressions if one.unalias().name in persons] != []


def _own_condition(select: exp.Select, matched: exp.Expr, persons: Collection[str]) -> str:
    """Return the condition of a SELECT without what matches its persons with others."""
    where = select.args.get("where")
    if where is None:
        return ""
    own = [
        one for one in _parts(where) if one.unnest() is not matched and matched not in list(one.find_all(type(matched)))
    ]
    own = [one for one in own if not any(column.name in persons for column in one.find_all(exp.Column))]
    plain = [_unqualified(one).sql(dialect="duckdb") for one in own]
    return " AND ".join(plain)


def _unqualified(node: exp.Expr) -> exp.Expr:
    return node.copy().transform(lambda part: exp.column(part.name) if isinstance(part, exp.Column) else part)


def _table(select: exp.Select) -> str:
    source = select.args.get("from_")
    table = None if source is None else source.this
    return table.name if isinstance(table, exp.Table) else ""


def _grouped(offer: Offer, table: str) -> str:
    """Return a column of a table that can be grouped by; nothing where there is none."""
    names = [name for name in offer.columns(table) if len(offer.column(table, name).domain) > 1]
    return names[0] if names else ""
