"""Random parts of a question, each as Consilo is asked and as DuckDB is: one function a clause.

Two texts are the same but for what docs/sql.md says: DuckDB is asked of `m_age` where a figure is made of ages within
their bounds, and a member that is `unknown` is NULL there. To test a new clause, write a function of a `Draw` and list
it in CONDITIONS, DIMENSIONS, AGGREGATES or INNER here, or in AFTER of `tests.questions.whole`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from tests.questions.data import MEASURES

T = TypeVar("T")
NUMBERS = ("age", "cost", "weight", "visits", "score")
BOOLS = ("smoker", "died")
MEMBERS = {
    "ward": ("medicine", "surgery"),
    "kind": ("a1", "a2", "b1", "b22", "Zoë's"),
    "grade": (0, 1, 2),
    "seen": ("2026-05", "2026-07", "2026-08", "2026-10", "2026-11"),
}
UNKNOWN = {"ward": "unknown", "kind": "none", "grade": -1, "seen": "unknown"}


class Draw:
    """Random choices from a seed."""

    def __init__(self, *seed: int) -> None:
        self._random = np.random.default_rng(seed)

    def one(self, values: Sequence[T]) -> T:
        return values[int(self._random.integers(len(values)))]

    def some(self, values: Sequence[T], count: int) -> list[T]:
        """Return different values, at most `count`."""
        order = self._random.permutation(len(values))[:count]
        return [values[int(place)] for place in order]

    def chance(self, probability: float) -> bool:
        return bool(self._random.random() < probability)

    def whole(self, low: int, high: int) -> int:
        return int(self._random.integers(low, high + 1))


class Text(NamedTuple):
    """A part of a question, as Consilo is asked and as DuckDB is."""

    ours: str
    theirs: str

    def into(self, frame: str) -> "Text":
        """Return both inside a longer text, in the place of {}."""
        return Text(frame.replace("{}", self.ours), frame.replace("{}", self.theirs))


def same(text: str) -> Text:
    return Text(text, text)


def joined(parts: Sequence[Text], between: str) -> Text:
    return Text(between.join(one.ours for one in parts), between.join(one.theirs for one in parts))


def quoted(value: Any) -> str:
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else str(value)


def number_for(draw: Draw, column: str) -> str:
    """Return a literal to compare a column of numbers with."""
    low, high, _ = MEASURES[column]
    if draw.chance(0.1):
        return str(draw.one([low - 1, high + 5, low, high]))
    if column in ("cost", "weight"):
        return f"{draw.whole(low * 100, high * 60) / 100:.{draw.one([1, 2, 3])}f}"
    return str(draw.whole(low, high))


# Conditions.


def a_comparison(draw: Draw) -> Text:
    column = draw.one(NUMBERS)
    sides = [column, number_for(draw, column)]
    return same(f" {draw.one(['=', '<>', '<', '<=', '>', '>='])} ".join(sides if draw.chance(0.8) else sides[::-1]))


def a_member(draw: Draw) -> Text:
    column = draw.one([*MEMBERS])
    op = draw.one(["=", "=", "<>", "<", ">="])
    if op in ("=", "<>") and draw.chance(0.15):  # the one literal that names missing cells
        return Text(f"{column} {op} {quoted(UNKNOWN[column])}", f"{column} IS {'NOT ' if op == '<>' else ''}NULL")
    return same(f"{column} {op} {quoted(draw.one(MEMBERS[column]))}")


def a_list(draw: Draw) -> Text:
    column = draw.one([*MEMBERS, "age", "visits"])
    values = draw.some(MEMBERS.get(column) or [*range(45)], draw.whole(1, 4))
    return same(f"{column} {draw.one(['', 'NOT '])}IN ({', '.join(map(quoted, values))})")


def a_range(draw: Draw) -> Text:
    column = draw.one([*NUMBERS, "seen", "grade"])
    if column in MEMBERS:
        ends = [quoted(draw.one(MEMBERS[column])) for _ in range(2)]
    else:
        ends = [number_for(draw, column) for _ in range(2)]
    return same(f"{column} {draw.one(['', 'NOT '])}BETWEEN {ends[0]} AND {ends[1]}")


def a_missing_cell(draw: Draw) -> Text:
    return same(f"{draw.one([*MEMBERS, *NUMBERS, *BOOLS, 'region'])} IS {draw.one(['', 'NOT '])}NULL")


def a_distinction(draw: Draw) -> Text:
    column = draw.one(["age", "grade", "ward", "cost"])
    value = quoted(draw.one(MEMBERS[column])) if column in MEMBERS else number_for(draw, column)
    return same(f"{column} IS {draw.one(['', 'NOT '])}DISTINCT FROM {value}")


def a_truth(draw: Draw) -> Text:
    column = draw.one(BOOLS)
    return same(draw.one([column, f"NOT {column}", f"{column} = TRUE", f"{column} <> TRUE", f"{column} IS NOT NULL"]))


def a_pattern(draw: Draw) -> Text:
    written = [
        "kind LIKE 'a%'", "kind NOT LIKE '%1'", "ward ILIKE 'S%'", "SUBSTR(kind, 1, 1) = 'b'", "UPPER(kind) = 'A1'",
        "LENGTH(ward) > 7", "kind || '!' = 'b22!'", "starts_with(ward, 'm')", "LEFT(kind, 1) IN ('a', 'Z')",
        "contains(kind, '2')", "kind LIKE '_1'", "grade + 1 = 2",
    ]  # fmt: skip
    return same(draw.one(written))


def an_arithmetic(draw: Draw) -> Text:
    """Return a condition that is computed for public values, so beyond the bounds as for the nearest one."""
    small, large = draw.whole(1, 9), draw.whole(20, 100)
    column, written = draw.one(
        [
            ("age", f"{small} * {{}} + 1 <= {large}"),
            ("age", f"{{}} // 10 = {small}"),
            ("age", f"COALESCE({{}}, 0) < {large}"),
            ("age", f"{{}} % {small} = 0"),
            ("score", f"ABS({{}}) >= {small}"),
            ("visits", f"{{}} + {small} > 7"),
            ("score", f"-{{}} > {small - 5}"),
            ("cost", f"{{}} / 4 > {large}"),
            ("weight", f"FLOOR({{}} / 10) = {small}"),
            ("age", f"({{}} - {small}) * 2 BETWEEN {small} AND {large}"),
            ("visits", f"{{}} * {{}} > {large}"),
            ("weight", f"ROUND({{}}, 0) <= {large}"),
            ("cost", f"{{}} - {large} < 0"),
            ("age", f"GREATEST({{}}, 30) < {large}"),
            ("age", f"CASE WHEN {{}} > {large} THEN FALSE ELSE {{}} > 2 END"),
            ("visits", f"NULLIF({{}}, 1) < {small}"),
            ("age", f"CASE WHEN {{}} < {large} THEN 1 ELSE 0 END = 1"),
            ("age", f"POW({{}}, 2) > {large * small}"),
            ("age", f"{{}} BETWEEN {small} AND {large} OR {{}} IS NULL"),
            ("visits", f"{large} / {{}} > {small}"),
        ]
    )  # fmt: skip
    return Text(written.replace("{}", column), written.replace("{}", f"c_{column}"))


def two_columns(draw: Draw) -> Text:
    op = draw.one(["=", "<>", "<", "<=", ">", ">="])
    return same(draw.one([f"age {op} visits", f"cost {op} weight", f"grade {op} visits", f"score {op} grade",
                          "smoker = died", "died <> smoker", f"ward {op} kind"]))  # fmt: skip


def a_date(draw: Draw) -> Text:
    op, month = draw.one(["=", "<", ">=", "<>"]), draw.whole(5, 11)
    written = [
        Text(f"month(seen) {op} {month}", f"month(day) {op} {month}"),
        Text(f"year(seen) {op} 2026", f"year(day) {op} 2026"),
        Text(f"quarter(seen) {op} {draw.whole(2, 4)}", ""),
        same(f"seen {op} '2026-{month:02}'"),
    ]
    found = draw.one(written)
    return found if found.theirs else Text(found.ours, found.ours.replace("seen", "day"))


CONDITIONS: tuple[Callable[[Draw], Text], ...] = (
    a_comparison, a_member, a_list, a_range, a_missing_cell, a_distinction, a_truth, a_pattern, an_arithmetic,
    two_columns, a_date,
)  # fmt: skip


def condition(draw: Draw, depth: int = 2) -> Text:
    """Return a condition, with AND, OR and NOT around others up to a depth."""
    if depth and draw.chance(0.45):
        parts = [condition(draw, depth - 1).into("({})") for _ in range(draw.whole(2, 3))]
        found = joined(parts, draw.one([" AND ", " OR "]))
        return found.into("NOT ({})") if draw.chance(0.2) else found
    found = draw.one(CONDITIONS)(draw)
    return found.into("NOT ({})") if draw.chance(0.15) else found


# Dimensions: the value of a group.


def a_domain(draw: Draw) -> Text:
    column = draw.one([*MEMBERS])
    theirs = f"{column}::VARCHAR" if column == "grade" else column
    return Text(column, f"coalesce({theirs}, '{UNKNOWN[column]}')")


def a_bool(draw: Draw) -> Text:
    return same(draw.one(BOOLS))


def a_case(draw: Draw) -> Text:
    labels = draw.some(["'low'", "'mid'", "'high'", "NULL"] if draw.chance(0.7) else ["1", "2", "-3", "0"], 3)
    whens = [condition(draw, 1).into(f"WHEN {{}} THEN {label}") for label in labels[:-1]]
    otherwise = f" ELSE {labels[-1]}" if draw.chance(0.7) else ""
    return joined(whens, " ").into(f"CASE {{}}{otherwise} END")


def a_bucket(draw: Draw) -> Text:
    """Return a bucket; what is outside of the bounds is in that of the nearest value."""
    wide = draw.one([20, 25, 50])
    column, text = draw.one(
        [
            ("age", f"{{}} // {wide}"),
            ("age", f"{{}} - {{}} % {wide}"),
            ("age", f"FLOOR({{}} / {wide}) * {wide}"),
            ("age", f"CEIL({{}} / {wide})"),
            ("age", "ROUND({}, -1)"),
            ("cost", f"FLOOR({{}} / {wide * 20}) * {wide}"),
            ("visits", "{} // 5 * 5"),
            ("weight", "FLOOR({} / 20)"),
            ("score", "ABS({})"),
            ("score", "{} % 3"),
            ("age", "LEAST({}, 3)"),
            ("visits", "CASE WHEN {} < 2 THEN 0 ELSE {} // 10 END"),
        ]
    )  # fmt: skip
    return Text(text.replace("{}", column), text.replace("{}", f"c_{column}"))


def a_width_bucket(draw: Draw) -> Text:
    low, wide, count = draw.whole(0, 40), draw.one([5, 10, 20]), draw.whole(1, 4)
    high = low + wide * count
    theirs = (
        f"CASE WHEN m_age < {low} THEN 0 WHEN m_age >= {high} THEN {count + 1}"
        f" ELSE floor((m_age - {low}) / {wide})::INT + 1 END"
    )
    return Text(f"width_bucket(age, {low}, {high}, {count})", theirs)


def a_function(draw: Draw) -> Text:
    return same(
        draw.one(
            ["SUBSTR(kind, 1, 1)", "UPPER(ward)", "LEFT(kind, 2)", "LENGTH(kind)", "ward || '-'", "grade * 10",
             "grade % 2", "COALESCE(ward, 'none')", "NULLIF(kind, 'a1')", "REPLACE(kind, '1', 'x')", "TRIM(kind)",
             "kind LIKE 'a%'",
             "ward IN ('surgery')", "RIGHT(kind, 1)"]
        )
    )  # fmt: skip


def a_part_of_a_date(draw: Draw) -> Text:
    name = draw.one(["year(seen)", "month(seen)", "quarter(seen)", "date_trunc('quarter', seen)"])
    return Text(name, name.replace("seen", "day"))


def a_condition(draw: Draw) -> Text:
    found = condition(draw, 0)
    return found.into("({})")


DIMENSIONS: tuple[Callable[[Draw], Text], ...] = (
    a_domain, a_domain, a_bool, a_case, a_bucket, a_width_bucket, a_function, a_part_of_a_date, a_condition,
)  # fmt: skip


# Aggregates.


def measured(column: str) -> Text:
    """Return a column that a figure is made of."""
    return Text(column, f"m_{column}")


def a_count(draw: Draw) -> Text:
    return draw.one([same("COUNT(*)"), measured(draw.one([*MEASURES])).into("COUNT({})"), same("COUNT(1)")])


def a_sum(draw: Draw) -> Text:
    column = draw.one([*MEASURES])
    return Text(f"SUM({column})", f"coalesce(SUM(m_{column}), 0)")  # whether there is a cell is not released


def an_average(draw: Draw) -> Text:
    return measured(draw.one([*MEASURES])).into("AVG({})")


def a_spread(draw: Draw) -> Text:
    name = draw.one(["VAR_POP", "VAR_SAMP", "VARIANCE", "STDDEV_POP", "STDDEV_SAMP", "STDDEV"])
    return measured(draw.one([*MEASURES])).into(f"{name}({{}})")


def a_pair(draw: Draw) -> Text:
    name = draw.one(["COVAR_POP", "COVAR_SAMP", "CORR", "REGR_SLOPE", "REGR_INTERCEPT", "REGR_R2", "REGR_COUNT",
                     "REGR_AVGX", "REGR_AVGY"])  # fmt: skip
    first, second = draw.some([*MEASURES], 2)
    found = f"{name}(m_{first}, m_{second})"
    if name == "REGR_R2":  # where y is constant, DuckDB has 1
        found = f"CASE WHEN REGR_SYY(m_{first}, m_{second}) > 0 THEN {found} END"
    return Text(f"{name}({first}, {second})", found)


def a_number_of_persons(draw: Draw) -> Text:
    return same("COUNT(DISTINCT patient_id)")


def a_figure_with_a_condition(draw: Draw) -> Text:
    when, column = condition(draw, 1 if draw.chance(0.3) else 0), draw.one([*MEASURES])
    ours, theirs = when
    both = [
        when.into("COUNT(*) FILTER (WHERE {})"),
        Text(f"COUNT_IF({ours})", f"COUNT(*) FILTER (WHERE {theirs})"),  # DuckDB has NULL where it is of no row
        Text(f"SUM(CASE WHEN {ours} THEN 1 ELSE 0 END)", f"COUNT(*) FILTER (WHERE {theirs})"),
        when.into("COUNT(CASE WHEN {} THEN 1 END)"),
        Text(f"AVG({column}) FILTER (WHERE {ours})", f"AVG(m_{column}) FILTER (WHERE {theirs})"),
        Text(f"SUM({column}) FILTER (WHERE {ours})", f"coalesce(SUM(m_{column}) FILTER (WHERE {theirs}), 0)"),
        Text(f"AVG(CASE WHEN {ours} THEN 1 ELSE 0 END)", f"AVG(CASE WHEN {theirs} THEN 1 ELSE 0 END)"),
        Text(f"AVG(CASE WHEN {ours} THEN {column} END)", f"AVG(CASE WHEN {theirs} THEN m_{column} END)"),
        Text(f"SUM(IF({ours}, {column}, 0))", f"coalesce(SUM(m_{column}) FILTER (WHERE {theirs}), 0)"),
        Text(f"COUNT({column}) FILTER ({ours})", f"COUNT(m_{column}) FILTER ({theirs})"),
    ]
    return draw.one(both)


AGGREGATES: tuple[Callable[[Draw], Text], ...] = (
    a_count, a_count, a_sum, an_average, an_average, a_spread, a_pair, a_number_of_persons,
)  # fmt: skip


# Columns of an inner question, which makes a row of each person: the column, what may be done with it around.


class Inner(NamedTuple):
    text: Text
    role: str  # `count`, `measure`, `group`


def a_number_of_rows(draw: Draw) -> Inner:
    what = draw.one(["*", "age", "weight"])
    own = Text(f"COUNT({what})", f"COUNT({what})")
    if draw.chance(0.3):
        when = condition(draw, 0)
        own = Text(f"{own.ours} FILTER (WHERE {when.ours})", f"{own.theirs} FILTER (WHERE {when.theirs})")
    return Inner(own.into(f"LEAST({{}}, {draw.whole(2, 8)})"), "count")


def a_total_of_a_person(draw: Draw) -> Inner:
    column, most = draw.one(["cost", "age", "visits"]), draw.whole(100, 900)
    least = -draw.whole(0, 40)
    clamp = f"GREATEST(LEAST({{}}, {most}), {least})"
    theirs = f"CASE WHEN SUM(m_{column}) IS NOT NULL THEN {clamp.replace('{}', f'SUM(m_{column})')} END"
    return Inner(Text(clamp.replace("{}", f"SUM({column})"), theirs), "measure")


def an_extreme_of_a_person(draw: Draw) -> Inner:
    return Inner(measured(draw.one(NUMBERS)).into(f"{draw.one(['MIN', 'MAX'])}({{}})"), "measure")


def a_member_of_a_person(draw: Draw) -> Inner:
    column = draw.one(["ward", "kind", "seen", "grade"])
    name = draw.one(["MIN", "MAX"])
    return Inner(Text(f"{name}({column})", f"{name}({column})"), f"group:{column}")


INNER: tuple[Callable[[Draw], Inner], ...] = (
    a_number_of_rows, a_total_of_a_person, an_extreme_of_a_person, a_member_of_a_person,
)  # fmt: skip
