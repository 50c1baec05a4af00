"""The question that a hint proposes: other figures of the rows, and by the groups, of the question that was refused."""

import re
from collections.abc import Collection, Iterable

from sqlglot import exp

from analyst.sql.nodes import has_figure, written_keys
from analyst.sql.offer import Offer

Key = tuple[str, str]  # an expression to group by, and its name
_LONGEST = 200  # characters of a condition, or of a group, that a hint repeats
_HAVING = re.compile(r"having_\d+$")  # what HAVING inside reads, under names that only the plan knows


def proposed(
    figures: str,
    table: str,
    offer: Offer,
    at: exp.Expr,
    keys: Iterable[Key] = (),
    where: str = "",
    own: Iterable[Key] | None = None,
) -> str:
    """Return a question of figures, in the place of a part of a statement about a table.

    It has the groups of that statement, or `own` instead, and its conditions, then `keys` and `where`.
    """
    groups = dict.fromkeys((*(keys_at(at) if own is None else own), *keys))
    shown = [text if text == name else f"{text} AS {name}" for text, name in groups]
    conditions = [*_conditions(at), *([where] if where else [])]
    parts = [f"SELECT {', '.join([*shown, figures])} FROM {source(table, offer)}"]  # noqa: S608
    parts += [f"WHERE {' AND '.join(conditions)}"] if conditions else []
    parts += [f"GROUP BY {', '.join(name for _, name in groups)}"] if groups else []
    return " ".join(parts)


def count_beside(names: Collection[str]) -> str:
    """Return a count of rows under a name that none of these columns has."""
    return f"COUNT(*) AS {'n_rows' if 'n' in names else 'n'}"


def source(table: str, offer: Offer) -> str:
    """Return how a question writes a table in FROM: an inner question or a join, where it is none of the silos'."""
    return offer.written.get(table, table)


def keys_at(at: exp.Expr) -> tuple[Key, ...]:
    """Return what the statement around a part of it groups by."""
    select = _select_of(at)
    if select is None or not (select.args.get("group") or select.args.get("distinct")):
        return ()
    names = {_text(one.unalias()): one.alias for one in select.expressions if one.alias}
    found = list[Key]()
    for place, node in enumerate(written_keys(select), 1):
        text = _text(node)
        if has_figure(node) or node.find(exp.Star) or len(text) > _LONGEST:
            continue
        is_column = isinstance(node, exp.Column)
        found.append((text, text if is_column else _named(names.get(text, f"group_{place}"))))
    return tuple(found)


def _conditions(at: exp.Expr) -> list[str]:
    select = _select_of(at)
    where = None if select is None else select.args.get("where")
    if where is None:
        return []
    operands = where.this.flatten() if isinstance(where.this, exp.And) else (where.this,)
    kept = [one for one in operands if not _is_hidden(one)]
    texts = [f"({_text(one)})" if isinstance(one, exp.Or) else _text(one) for one in kept]
    return texts if sum(map(len, texts)) <= _LONGEST else []


def _is_hidden(condition: exp.Expr) -> bool:
    is_named = any(_HAVING.match(one.name) for one in condition.find_all(exp.Column))
    return is_named or has_figure(condition) or condition.find(exp.Subquery) is not None


def _select_of(at: exp.Expr) -> exp.Select | None:
    return at if isinstance(at, exp.Select) else at.find_ancestor(exp.Select)


def _text(node: exp.Expr) -> str:
    """Return an expression as a question has it: a column of another table under the name of that table."""

    def written(part: exp.Expr) -> exp.Expr:
        if not isinstance(part, exp.Column) or "." not in part.name:
            return part
        table, _, name = part.name.partition(".")
        return exp.column(name, table)

    return node.unnest().transform(written).sql(dialect="duckdb", comments=False)


def _named(name: str) -> str:
    return exp.to_identifier(name, quoted=not re.fullmatch(r"[A-Za-z_]\w*", name)).sql(dialect="duckdb")
