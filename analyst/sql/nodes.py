"""What parts of a statement are, by the text alone: a number, a figure, what a SELECT groups by."""

from decimal import Decimal

from sqlglot import exp

LARGEST = 2**60  # of a number that is read here


def shown_as(node: exp.Expr) -> str:
    """Return the text of a part as an error shows it, cut where it is long."""
    return node.sql(dialect="duckdb")[:60]


def in_digits(value: Decimal) -> str:
    """Return a number in digits, without zeros at its end."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def has_figure(node: exp.Expr) -> bool:
    """Tell whether an expression has an aggregate in it."""
    return node.find(exp.AggFunc) is not None


def number(node: exp.Expr) -> Decimal | None:
    """Return the number that a literal is; None for what is none."""
    node = node.unnest()
    if isinstance(node, exp.Neg):
        inner = number(node.this)
        return None if inner is None else -inner
    if isinstance(node, exp.Literal) and not node.is_string:
        try:
            found = Decimal(str(node.this))
        except ArithmeticError:
            return None
        return found if found.is_finite() and -LARGEST < found < LARGEST else None
    return None


def written_keys(select: exp.Select) -> list[exp.Expr]:
    """Return what a SELECT groups by, or of which it lists the different ones: no aliases, no ordinals, no ALL."""
    group = select.args.get("group")
    if group is None:
        distinct = select.args.get("distinct")
        is_plain = distinct is not None and not distinct.args.get("on")
        return [one.unalias() for one in select.expressions] if is_plain else []
    if group.args.get("all"):
        return [one.unalias() for one in select.expressions if not has_figure(one)]
    aliases, keys = {one.alias: one.unalias() for one in select.expressions if one.alias}, []
    for node in group.expressions:
        place = number(node)
        if place is not None and place == int(place) and 1 <= place <= len(select.expressions):
            keys.append(select.expressions[int(place) - 1].unalias())
        else:
            keys.append(aliases.get(node.name, node) if isinstance(node, exp.Column) else node)
    return keys
