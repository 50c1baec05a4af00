"""Whole random questions, made of the clauses, and what DuckDB is asked in their place."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.questions.clauses import (
    AGGREGATES,
    DIMENSIONS,
    INNER,
    UNKNOWN,
    Draw,
    Text,
    a_figure_with_a_condition,
    condition,
    joined,
    same,
)


@dataclass(frozen=True, slots=True)
class Question:
    """A question in both texts; `keys` are the columns that tell its rows apart.

    `is_of_groups`: figures are made of several groups, of which those without rows have to be left out before.
    """

    text: Text
    keys: tuple[str, ...] = ()
    is_ordered: bool = False
    is_of_groups: bool = False


@dataclass(frozen=True, slots=True)
class Block:
    """A grouped question: its groups and figures with their names, and its condition."""

    groups: Sequence[tuple[str, Text]]
    figures: Sequence[tuple[str, Text]]
    where: Text | None

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.groups)

    def text(self, figures: Sequence[tuple[str, Text]] | None = None, by: str = "text", rest: str = "") -> Text:
        """Return the SELECT of the groups and these figures, grouped by text, place, alias or ALL."""
        selected = [one.into(f"{{}} AS {name}") for name, one in (*self.groups, *(figures or self.figures))]
        found = joined(selected, ", ").into("SELECT {} FROM visits")
        if self.where is not None:
            found = joined([found, self.where], " WHERE ")
        if self.groups:
            places = ", ".join(str(place + 1) for place in range(len(self.groups)))
            texts = joined([one for _, one in self.groups], ", ")
            written = {"text": texts.ours, "place": places, "alias": ", ".join(self.keys), "all": "ALL"}
            found = Text(f"{found.ours} GROUP BY {written[by]}", f"{found.theirs} GROUP BY {places}")
        return Text(found.ours + rest, found.theirs + rest)


def block(draw: Draw, groups: int, figures: int, has_conditions: bool = False) -> Block:
    """Return a grouped question; its first figure is COUNT(*), which says which groups there are."""
    makers = draw.some(DIMENSIONS, groups)
    dimensions = [(f"d{place}", make(draw)) for place, make in enumerate(makers)]
    found = [("n", same("COUNT(*)"))]
    for place in range(figures):
        make = draw.one(AGGREGATES)
        if has_conditions:  # beside which only counts, sums and averages have an answer
            make = a_figure_with_a_condition if draw.chance(0.7) else draw.one([AGGREGATES[0], AGGREGATES[2]])
        found.append((f"f{place}", make(draw)))
    return Block(dimensions, found, condition(draw) if draw.chance(0.6) else None)


# Whole questions, by kind.


def plain(draw: Draw) -> Question:
    one = block(draw, draw.whole(0, 2), draw.whole(0, 4))
    return Question(one.text(by=draw.one(["text", "place", "alias", "all"])), one.keys)


def with_conditions(draw: Draw) -> Question:
    one = block(draw, draw.whole(0, 1), draw.whole(1, 3), has_conditions=True)
    return Question(one.text(), one.keys)


def of_persons(draw: Draw) -> Question:
    """Return a question about one row of each person."""
    columns = [(f"i{place}", make(draw)) for place, make in enumerate(draw.some(INNER, draw.whole(1, 3)))]
    inner = joined([same("patient_id"), *(one.text.into(f"{{}} AS {name}") for name, one in columns)], ", ")
    inner = inner.into("SELECT {} FROM visits")
    if draw.chance(0.5):
        inner = joined([inner, condition(draw, 1)], " WHERE ")
    inner = inner.into("{} GROUP BY patient_id")
    if draw.chance(0.3):
        inner = inner.into(f"{{}} HAVING COUNT(*) {draw.one(['>', '<=', '='])} {draw.whole(1, 6)}")
    measures = [name for name, one in columns if one.role in ("count", "measure")]
    groups = [(name, one.role.partition(":")) for name, one in columns if one.role not in ("measure",)]
    figures = [same("COUNT(*) AS n")]
    figures += [same(f"AVG({name}) AS a_{name}") for name in measures if draw.chance(0.6)]
    key = draw.one(groups) if groups and draw.chance(0.6) else None
    if key is None:
        found = joined([joined(figures, ", ").into("SELECT {}"), inner.into("({})")], " FROM ")
        if measures and draw.chance(0.5):
            found = found.into(f"{{}} WHERE {draw.one(measures)} > {draw.whole(0, 60)}")
        return Question(found)
    name, (role, _, column) = key
    unknown = str(UNKNOWN.get(column))
    shown = Text(name, f"coalesce({name}::VARCHAR, '{unknown}')" if role == "group" else name)
    figures = [one for one in figures if f"({name})" not in one.ours]  # a count is grouped by, or averaged
    selected = joined([shown.into("{} AS d0"), *figures], ", ").into("SELECT {}")
    found = joined([selected, inner.into("({})")], " FROM ")
    return Question(Text(f"{found.ours} GROUP BY {name}", f"{found.theirs} GROUP BY 1"), ("d0",))


def ordered(draw: Draw) -> Question:
    one = block(draw, draw.whole(1, 2), draw.whole(0, 2))
    keys = ", ".join(f"d{place} NULLS FIRST" for place in range(len(one.groups)))
    rest = f" ORDER BY n {draw.one(['', 'DESC'])}, {keys}"
    if draw.chance(0.5):
        rest = f" HAVING COUNT(*) {draw.one(['>', '<='])} {draw.whole(1, 90)}{rest}"
    if draw.chance(0.5):
        rest += f" LIMIT {draw.whole(1, 4)}"
    return Question(one.text(rest=rest), one.keys, True, True)


def an_expression(draw: Draw) -> Text:
    """Return arithmetic with figures."""
    one, other = draw.one(AGGREGATES)(draw), draw.one(AGGREGATES)(draw)
    frame = draw.one(
        ["({} + [])", "ROUND({}, 1)", "COALESCE({} / NULLIF([], 0), -1)", "{} * 2 - []",
         "CASE WHEN [] > 50 THEN {} END", "ABS({})", "SQRT(ABS({}))", "{} / COUNT(*)", "GREATEST({}, COUNT(*))",
         "{} > []", "CAST(ROUND({}) AS INTEGER)",
         "100.0 * {} / COUNT(*)", "COUNT(*) % 7"]
    )  # fmt: skip
    return Text(
        frame.replace("{}", one.ours).replace("[]", other.ours),
        frame.replace("{}", one.theirs).replace("[]", other.theirs),
    )


def arithmetic(draw: Draw) -> Question:
    one = block(draw, draw.whole(0, 1), 0)
    figures = [*one.figures, *((f"f{place}", an_expression(draw)) for place in range(draw.whole(1, 2)))]
    return Question(one.text(figures), one.keys)


def windows(draw: Draw) -> Question:
    one = block(draw, draw.whole(1, 2), 0)
    keys = ", ".join(f"{text.theirs} NULLS FIRST" for _, text in one.groups)
    own = ", ".join(f"{text.ours} NULLS FIRST" for _, text in one.groups)
    order = Text(own, keys)
    figure = draw.one([AGGREGATES[0], AGGREGATES[2]])(draw)
    made = [
        Text(f"RANK() OVER (ORDER BY {figure.ours} DESC)", f"RANK() OVER (ORDER BY {figure.theirs} DESC)"),
        order.into("COUNT(*) - LAG(COUNT(*)) OVER (ORDER BY {})"),
        order.into("SUM(COUNT(*)) OVER (ORDER BY {} ROWS UNBOUNDED PRECEDING)"),
        same("COUNT(*) / SUM(COUNT(*)) OVER ()"),
        order.into("ROW_NUMBER() OVER (ORDER BY COUNT(*), {})"),
        Text(f"SUM({figure.ours}) OVER ()", f"SUM({figure.theirs}) OVER ()"),
        order.into("LEAD(COUNT(*), 1, 0) OVER (ORDER BY {})"),
        order.into("FIRST_VALUE(COUNT(*)) OVER (ORDER BY {})"),
        Text(
            f"DENSE_RANK() OVER (PARTITION BY {one.groups[0][1].ours} ORDER BY COUNT(*))",
            f"DENSE_RANK() OVER (PARTITION BY {one.groups[0][1].theirs} ORDER BY COUNT(*))",
        ),
        same("AVG(COUNT(*)) OVER ()"),
        same("NTILE(2) OVER (ORDER BY COUNT(*) DESC, 1)") if not one.groups else same("MAX(COUNT(*)) OVER ()"),
    ]
    figures = [*one.figures, *((f"w{place}", made) for place, made in enumerate(draw.some(made, 2)))]
    return Question(one.text(figures), one.keys, is_of_groups=True)


def a_cte(draw: Draw) -> Question:
    """Return a question that reads a grouped one."""
    one = block(draw, 1, 1)
    inner = one.text()
    outer = draw.one(
        [
            "SELECT AVG(n) AS a, MAX(n) AS m, COUNT(*) AS k FROM t",
            "SELECT SUM(n) AS s, MIN(n) AS m FROM t WHERE n > 10",
            "SELECT d0, n / (SELECT SUM(n) FROM t) AS s FROM t",
            "SELECT d0, n FROM t WHERE n >= (SELECT AVG(n) FROM t)",
            "SELECT d0::VARCHAR AS d0, n FROM t UNION ALL SELECT 'all', SUM(n) FROM t",
            "SELECT d0, n, RANK() OVER (ORDER BY n) AS r FROM t",
        ]
    )
    keys = ("d0",) if "SELECT d0" in outer else ()
    return Question(inner.into(f"WITH t AS ({{}}) {outer}"), keys, is_of_groups=True)


def a_filtering_subquery(draw: Draw) -> Question:
    one = block(draw, draw.whole(0, 1), draw.whole(0, 2))
    inner = condition(draw, 1).into("(SELECT * FROM visits WHERE {})")
    found = one.text()
    return Question(
        Text(found.ours.replace("FROM visits", f"FROM {inner.ours}", 1),
             found.theirs.replace("FROM visits", f"FROM {inner.theirs}", 1)),
        one.keys,
    )  # fmt: skip


AFTER: tuple[Callable[[Draw], Question], ...] = (ordered, arithmetic, windows, a_cte)
KINDS: tuple[Callable[[Draw], Question], ...] = (
    plain, plain, plain, plain, with_conditions, with_conditions, of_persons, of_persons, a_filtering_subquery, *AFTER,
)  # fmt: skip


def question(seed: int) -> Question:
    """Return the random question of a number."""
    draw = Draw(20261130, seed)
    return draw.one(KINDS)(draw)
