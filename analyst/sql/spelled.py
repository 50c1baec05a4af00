"""Names as they are defined: DuckDB tells tables and columns apart by their letters, and not by their case."""

from collections.abc import Iterable, Mapping

from sqlglot import exp

from analyst.errors import SqlError
from analyst.sql.offer import Offer
from analyst.sql.parse import sql_position


def spelled(query: exp.Query, offer: Offer) -> exp.Query:
    """Return a query in which every name is written as its definition writes it; positions stay.

    Aliases define names too. What nothing defines stays as it is. Raises SqlError for a name that is written
    as none of the two or more definitions that it fits.
    """
    query = query.copy()
    own = [one.alias for one in query.find_all(exp.CTE, exp.Subquery, exp.Table) if one.alias]
    tables = _by_letters((*(one.alias for one in query.find_all(exp.CTE)), *offer.tables))
    for table in query.find_all(exp.Table):
        _respell(table.args.get("this"), tables)
    read = dict.fromkeys(one.name for one in query.find_all(exp.Table) if one.name in offer.tables)
    aliases = (one.alias for one in query.find_all(exp.Alias))
    columns = _by_letters((*aliases, *(name for one in read for name in (*offer.columns(one), *offer.persons(one)))))
    qualifiers = _by_letters((*own, *read))
    for column in query.find_all(exp.Column):
        _respell(column.args.get("this"), columns)
        _respell(column.args.get("table"), qualifiers)
    for key in (key for join in query.find_all(exp.Join) for key in join.args.get("using") or ()):
        _respell(key if isinstance(key, exp.Identifier) else key.this, columns)
    return query


def _by_letters(names: Iterable[str]) -> Mapping[str, tuple[str, ...]]:
    """Return the names that are written with the same letters, by these letters."""
    found: dict[str, tuple[str, ...]] = {}
    for name in dict.fromkeys(names):
        found[name.casefold()] = (*found.get(name.casefold(), ()), name)
    return found


def _respell(name: object, known: Mapping[str, tuple[str, ...]]) -> None:
    """Write a name as it is defined, in place."""
    if not isinstance(name, exp.Identifier):
        return
    defined = known.get(name.name.casefold(), (name.name,))
    if name.name in defined:
        return
    if len(defined) > 1:
        hint = f"write one of {', '.join(defined)}"
        raise SqlError(f"{name.name!r}{sql_position(name)} can be {' or '.join(defined)}", hint)
    name.set("this", defined[0])
