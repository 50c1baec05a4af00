"""Questions become the plans that tests/analyst/plans/ pairs them with, or are refused with the position and a way out.

A file of pairs holds blocks: `-- title:`, the question, then `-- plan:` and the plan as the wire writes it, or
`-- error:` and the message, perhaps with `-- hint:` and the hint.
"""

import re
import string
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from analyst.errors import SqlError
from analyst.sql import evaluation
from analyst.sql.offer import Offer, suggest
from analyst.sql.plan import plan
from policies.requests.denials import Denial
from policies.requests.predicates import Compare
from policies.requests.query import Plan
from tests.cases import every
from tests.harness.example_policy import AGE, COLUMNS, COST, Edit, catalogue, offer, policy, request

OFFER = offer(policy())
WHERE = "SELECT COUNT(*) FROM visits WHERE "


@dataclass(frozen=True)
class Pair:
    """A question and what must become of it."""

    title: str
    question: str
    plan: str = ""
    error: str = ""
    hint: str = ""


def read_pairs() -> list[Pair]:
    """Return every pair of the files in tests/analyst/plans/."""
    pairs = []
    for file in sorted((Path(__file__).parent / "plans").glob("*.sql")):
        for block in re.split(r"^-- title: ", file.read_text(), flags=re.MULTILINE)[1:]:
            title, rest = block.split("\n", 1)
            question, *marked = re.split(r"^-- (plan|error|hint):\n", rest, flags=re.MULTILINE)
            fields = {key: text.strip() for key, text in zip(marked[::2], marked[1::2], strict=True)}
            pairs.append(Pair(f"{file.stem}: {title}", question.rstrip("\n"), **fields))
    return pairs


PAIRS = read_pairs()
PLANNED = [pair for pair in PAIRS if pair.plan]
REFUSED = [pair for pair in PAIRS if pair.error]


def refusal(question: str, of: Offer = OFFER) -> SqlError:
    """Return the error that the question brings, which must have a message and a hint."""
    with pytest.raises(SqlError) as caught:
        plan(question, of)
    assert caught.value.message
    assert caught.value.hint
    return caught.value


def test_pairs_are_complete_and_titled_once() -> None:
    assert len(PLANNED) >= 25
    assert len(REFUSED) >= 25
    assert all(bool(pair.plan) != bool(pair.error) for pair in PAIRS)
    titles = [pair.title for pair in PAIRS]
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize("pair", PLANNED, ids=lambda pair: pair.title)
def test_question_becomes_its_plan(pair: Pair) -> None:
    planned = plan(pair.question, OFFER)
    assert planned.plan.model_dump_json() == pair.plan
    assert planned.table.name == "visits"
    used = {name for names in planned.plan.uses().values() for name in names}
    assert {column.name for column in planned.table.columns} == used
    assert all(column in COLUMNS for column in planned.table.columns)
    asked = request(table=planned.table, plan=planned.plan)  # each plan can be asked
    assert asked.plan == Plan.model_validate_json(pair.plan)


@every("pair", REFUSED)
def test_question_is_refused_with_its_place(pair: Pair) -> None:
    error = refusal(pair.question)
    assert error.message == pair.error
    if pair.hint:
        assert error.hint == pair.hint


@every("pair", [pair for pair in REFUSED if " at line " in pair.error])
def test_place_moves_with_the_text(pair: Pair) -> None:
    moved = refusal("\n\n   " + pair.question).message
    place = re.compile(r" at line (\d+), column (\d+)")
    before, after = place.search(pair.error), place.search(moved)
    assert before is not None
    assert after is not None
    indent = 3 if before[1] == "1" else 0
    assert (int(after[1]), int(after[2])) == (int(before[1]) + 2, int(before[2]) + indent)


def test_output_keeps_the_order_and_names_of_the_question() -> None:
    planned = plan("SELECT COUNT(*) AS n, ward AS place, AVG(age), grade FROM visits GROUP BY grade, place", OFFER)
    assert planned.output == ("n", "place", "avg_age", "grade")
    assert planned.names == {"place": "ward", "grade": "grade"}


def test_a_dimension_may_be_selected_twice_and_without_a_name_of_its_own() -> None:
    planned = plan('SELECT ward, ward AS place, grade AS "", COUNT(*) AS n FROM visits GROUP BY ward, grade', OFFER)
    assert planned.output == ("ward", "place", "grade", "n")
    assert planned.names == {"ward": "ward", "place": "ward", "grade": "grade"}
    assert planned.plan.group_by == ("ward", "grade")


def test_silos_of_which_only_one_says_that_no_cell_is_missing_define_the_column_differently() -> None:
    never = policy(Edit('unit = "day" }', 'unit = "day", can_be_missing = false }'))
    zero = policy(Edit('unit = "day" }', 'unit = "day", missing = "zero" }'))
    assert not plan("SELECT AVG(stay) FROM visits", offer(never, zero)).table.column("stay").can_be_missing
    error = refusal("SELECT AVG(stay) FROM visits", offer(never, policy()))
    assert "silo-0: stay int 0 to 60 in steps of 1 never missing" in error.message


@pytest.mark.parametrize(
    "question",
    [
        WHERE + " AND ".join(["age > 3"] * 65),
        WHERE + " OR ".join(["age > 3"] * 65),
        WHERE + f"age IN ({', '.join(map(str, range(1001)))})",
        WHERE + f"region = '{'x' * 201}'",
        WHERE + f"region IN ('{'x' * 201}')",
        f"SELECT COUNT(*) AS {'x' * 121} FROM visits",
        "SELECT " + ", ".join(f"COUNT(*) AS n{index}" for index in range(33)) + " FROM visits",
    ],
    ids=["65 AND", "65 OR", "1001 values", "long text", "long text in a list", "long alias", "33 aggregates"],
)
def test_what_the_wire_has_no_room_for_is_refused(question: str) -> None:
    refusal(question)


@pytest.mark.parametrize(
    "question",
    [
        "SELECT COUNT(*) FROM visits TABLESAMPLE 10%",
        "SELECT COUNT(*) FROM visits PIVOT (SUM(age) FOR ward IN ('surgery'))",
        "SELECT COUNT(*) FROM visits AT (VERSION => 1)",
        "SELECT COUNT(* EXCLUDE age) FROM visits",
        "SELECT AVG(elsewhere.visits.age) FROM visits",
    ],
    ids=["TABLESAMPLE", "PIVOT", "AT", "EXCLUDE", "a column of another schema"],
)
def test_what_the_plan_would_lose_is_refused(question: str) -> None:
    refusal(question)


def test_between_symmetric_is_refused_or_planned_in_order() -> None:
    question = WHERE + "age BETWEEN SYMMETRIC 60 AND 40"
    try:
        planned = plan(question, OFFER)
    except SqlError:
        return
    assert planned.plan == plan(WHERE + "age BETWEEN 40 AND 60", OFFER).plan


def test_union_is_named() -> None:
    assert "UNION" in refusal("SELECT COUNT(*) FROM visits UNION SELECT COUNT(*) FROM visits").message


@pytest.mark.parametrize(
    "question",
    [
        WHERE + "(" * 3000 + "smoker" + ")" * 3000,
        WHERE + "NOT " * 3000 + "smoker",
        WHERE + "age > " + "- " * 3000 + "1",
        WHERE + "/*" * 3000,
        "SELECT " + "(" * 3000,
    ],
    ids=["parentheses", "NOT", "minus", "comments", "open"],
)
def test_deep_nesting_is_refused(question: str) -> None:
    refusal(question)


def test_long_questions_are_refused_before_they_are_parsed() -> None:
    question = WHERE + "smoker "
    assert plan(question + " " * (20_000 - len(question)), OFFER).plan.where is not None
    error = refusal(question + " " * (20_001 - len(question)))
    assert error.message == "the question has 20001 characters, at most 20000 are read"


def test_flipped_comparisons_mean_the_same() -> None:
    for operator, flipped in [("<", ">"), ("<=", ">="), ("=", "="), ("<>", "<>"), (">", "<"), (">=", "<=")]:
        left, right = plan(f"{WHERE}30 {operator} age", OFFER), plan(f"{WHERE}age {flipped} 30", OFFER)
        assert left == right
        assert isinstance(right.plan.where, Compare)
        assert right.plan.where.op == flipped


QUESTION = (
    "SELECT ward AS w, COUNT(*) AS n, AVG(cost) FROM visits"
    " WHERE age BETWEEN 18 AND 65 AND (NOT smoker OR region IN ('a', 'b')) GROUP BY ward"
)
WORDS = [
    *QUESTION.replace("(", " ( ").replace(")", " ) ").split(),
    *[
        "*",
        ",",
        ";",
        "''",
        "'",
        '"',
        "--",
        "/*",
        "*/",
        "NULL",
        "SELECT",
        "JOIN",
        "IN",
        "DISTINCT",
        "CASE",
        "WHEN",
        "END",
    ],
    *["::", "[", "]", "{", "}", "$1", "?", ":x", "@", "INTERVAL", "DATE", "WITH", "UNION", "OVER", "LIKE", "ANY", "."],
]


def becomes_a_plan_or_is_refused(question: str) -> None:
    try:
        plan(question, OFFER)
    except SqlError as err:
        hint = err.hint
    else:
        hint = "none is needed"
    assert hint


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=80) | st.text(string.printable, max_size=80))
@example("\x00")
@example("\ud800")
def test_arbitrary_text_is_refused(text: str) -> None:
    becomes_a_plan_or_is_refused(text)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join))
def test_arbitrary_words_become_a_plan_or_are_refused(tail: str) -> None:
    becomes_a_plan_or_is_refused(tail)
    becomes_a_plan_or_is_refused("SELECT " + tail)
    becomes_a_plan_or_is_refused("SELECT COUNT(*) FROM visits " + tail)
    becomes_a_plan_or_is_refused(WHERE + tail)


def test_an_aggregate_of_nothing_beside_arithmetic_is_refused() -> None:
    refusal("SELECT COUNT() + 1 AS n, SUM() AS s FROM visits")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_mutated_questions_become_a_plan_or_are_refused(data: st.DataObject) -> None:
    words = QUESTION.replace("(", " ( ").replace(")", " ) ").split()
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(words)))
        removed = data.draw(st.integers(0, 2))
        words[start : start + removed] = data.draw(st.lists(st.sampled_from(WORDS), max_size=2))
    becomes_a_plan_or_is_refused(" ".join(words))


DIFFERENCES = (
    ("age", Edit("[0, 110]", "[30, 31]"), "age int 0 to 110 in steps of 1", "age int 30 to 31 in steps of 1"),
    ("age", Edit('age    = { type = "int"', 'age    = { type = "decimal", step = 1'), "int 0", "decimal 0"),
    ("cost", Edit("step = 0.01", "step = 0.1"), "in steps of 0.01", "in steps of 0.1"),
    ("grade", Edit("unknown = -1", "unknown = 0"), "unknown is -1", "unknown is 0"),
    (
        "ward",
        Edit('["medicine", "surgery", "unknown"]', '["unknown", "medicine", "surgery"]'),
        "one of medicine, surgery, unknown",
        "one of unknown, medicine, surgery",
    ),
    ("age", Edit("max_rows  = 2", "max_rows  = 1"), "at most 2 rows a person", "at most 1 row a person"),
    ("age", Edit("max_rows  = 2", "max_rows  = 2\nmax_norm  = 1"), "at most 2 rows a person", "of a norm of at most 1"),
)


def test_silos_of_different_definitions_are_never_asked_together() -> None:
    for name, edit, usual, other in DIFFERENCES:
        both = offer(policy(), policy(edit), policy())
        question = f"SELECT COUNT(*) AS n FROM visits WHERE {name} IS NOT NULL"
        found = refusal(question, both)
        first, largest, smallest = found.message.split("\n")
        assert first == "the silos define 'visits' in 2 ways:"
        assert largest.startswith("  silo-0, silo-2: ")
        assert smallest.startswith("  silo-1: ")
        assert usual in largest
        assert other in smallest
        assert found.hint.startswith("ask silos of one definition alone: --silos silo-0,silo-2;")
        with pytest.raises(SqlError, match="in 2 ways"):
            both.table("visits", [name])
        for group in (["silo-0", "silo-2"], ["silo-1"]):
            alone = plan(question, both.only(group)).table
            assert alone == plan(question, offer(policy(*([edit] if group == ["silo-1"] else [])))).table
        assert (
            plan("SELECT COUNT(*) AS n FROM visits WHERE smoker", offer(policy(), policy(edit)))
            if ("rows" not in usual)
            else True
        )
    lame = Denial(code="NO_CATALOGUE", rule="catalogue", message="its clock is wrong", remedy="set it")
    fewer = replace(both, missing=("silo-8",), reasons={"silo-7": lame})
    with pytest.raises(SqlError, match="the silo 'silo-8' does not answer") as away:
        fewer.only(["silo-8"])
    assert "did you mean" not in away.value.hint
    with pytest.raises(SqlError, match="the silo 'silo-7' sends no catalogue: its clock is wrong"):
        fewer.only(["silo-7"])
    with pytest.raises(SqlError, match="there is no silo 'silo-9'"):
        both.only(["silo-9"])


def test_the_same_step_written_otherwise_is_no_conflict() -> None:
    assert offer(policy(), policy(Edit("step = 0.01", "step = 0.010"))).table("visits", ["cost"]).columns == (COST,)


def test_only_what_every_holder_opens_can_be_asked() -> None:
    closed = policy(Edit('"internal", roles = ["filter"]', '"internal", roles = []'))
    both = offer(policy(), closed)
    assert "region" in OFFER.columns("visits")
    assert "region" not in both.columns("visits")
    found = refusal(WHERE + "region = 'a'", both)
    assert found.message.startswith("unknown column 'region'")
    assert found.message.endswith(": silo-1 does not open it")
    assert found.hint == "ask the others alone: --silos silo-0"


def test_silos_without_the_table_do_not_limit_it() -> None:
    elsewhere = policy(
        Edit("[sources.visits]", "[sources.stays]"),
        Edit("[sources.visits.columns]", "[sources.stays.columns]"),
        Edit("[0, 110]", "[50, 60]"),
        Edit("max_rows  = 2", "max_rows  = 1"),
        Edit("max_silos = 2", "max_silos = 9"),
    )
    mixed = offer(policy(), elsewhere)
    assert mixed.tables == ("visits", "stays")
    assert list(mixed.holders("visits")) == ["silo-0"]
    planned = plan("SELECT AVG(age) FROM visits", mixed)
    assert planned.table.columns == (AGE,)
    assert (planned.table.max_rows, planned.table.max_silos) == (2, 2)


def test_a_question_has_the_norm_of_its_silos() -> None:
    by = policy(Edit("max_rows  = 2", "max_rows  = 20\nmax_norm  = 4"))
    planned = plan("SELECT ward, COUNT(*), SUM(age) FROM visits GROUP BY ward", offer(by, by))
    assert (planned.table.max_rows, planned.table.max_norm) == (20, 4)
    assert [one.sensitivity for one in planned.plan.statistics(planned.table).values()] == [4, 4, 440]
    assert plan("SELECT COUNT(*) FROM visits", offer(policy())).table.max_norm is None


def test_the_smallest_delta_and_the_most_silos_count_and_whose_they_are_is_said() -> None:
    merged = offer(policy(), policy(Edit("max_silos = 2", "max_silos = 5"), Edit("1e-6", "1e-7")))
    merged = merged.only(["silo-0", "silo-1"])
    table = merged.table("visits", ["age", "ward", "age"])
    assert (table.max_rows, table.max_silos) == (2, 5)
    assert [column.name for column in table.columns] == ["age", "ward"]
    assert merged.delta == 1e-7
    assert merged.strictest == (
        "delta 1e-07 is that of silo-1",
        "that a person is known to at most 5 silos is said by silo-1",
    )
    assert offer(policy(), policy()).strictest == ()


def test_purposes_of_all_silos_are_offered_once() -> None:
    one = catalogue(policy())
    merged = Offer({"a": one, "b": one.model_copy(update={"purposes": ("billing", "audit")})})
    assert merged.purposes == ("health-research", "billing", "audit")


def test_suggestions() -> None:
    assert suggest("agee", ["age", "cost"]) == "did you mean 'age'?"
    assert suggest("x", ["age", "cost"]) == "known: age, cost"
    assert suggest("x", []) == "known: none"


def test_expressions_take_no_longer_than_a_question_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "SECONDS_IN_ALL", 0.02)  # 60 expressions take more on any machine
    error = refusal(WHERE + " OR ".join(f"ABS(cost) > {number}" for number in range(60)))
    assert " to compute at line 1, column" in error.message
    monkeypatch.setattr(evaluation, "SECONDS_IN_ALL", 0)
    error = refusal("SELECT FLOOR(cost / 3) AS a, COUNT(*) FROM visits GROUP BY a")
    assert error.message.startswith("the expressions of a question take more than 0 s to compute at line 1")
    monkeypatch.setattr(evaluation, "SECONDS", 0.05)
    monkeypatch.setattr(evaluation, "SECONDS_IN_ALL", 5)
    long = "REPLACE(" * 20 + "cost::VARCHAR" + ", '1', '1')" * 20
    error = refusal(f"SELECT LENGTH({long}) AS a, COUNT(*) FROM visits GROUP BY a")
    assert "takes too long to compute" in error.message


@every("expression", [
    "REPEAT(ward, 1000000)", "READ_TEXT('/etc/passwd')", "GETENV('HOME')", "RANDOM()", "NOW()", "CURRENT_DATE",
    "(SELECT 1)", "ward::DATE", "CAST(ward AS STRUCT(a INTEGER))", "LIST_VALUE(ward)", "ward COLLATE NOCASE", "$1", "?",
    "REPLACE(" * 60 + "ward" + ", 'e', 'eeeeeeeeee')" * 60,
])  # fmt: skip
def test_only_pure_functions_are_computed_and_in_little_memory(expression: str) -> None:
    refusal(f"SELECT {expression} AS a, COUNT(*) AS n FROM visits GROUP BY a")
    refusal(f"SELECT COUNT(*) AS n FROM visits WHERE {expression} = 'x' OR LENGTH({expression}) > 3")


def test_a_group_has_a_name_of_its_own() -> None:
    sql = "SELECT COUNT(*) AS group_1, SUM(age) AS x FROM visits GROUP BY age >= 65, smoker"
    planned = plan(sql, OFFER)
    assert request(table=planned.table, plan=planned.plan).plan.dimensions == ("age", "smoker")
    assert len({*planned.plan.group_by, "group_1", "x"}) == 4
    named = plan(
        "SELECT age >= 65 AS smoker, smoker AS age, COUNT(*) FROM visits GROUP BY age >= 65, visits.smoker", OFFER
    )
    assert set(named.names) == {"smoker", "age"}
    assert not {"smoker", "age"} & set(named.plan.group_by)


@every(("expression", "hint"), [
    ("age / 3", "round it: ROUND(x, 2)"),
    ("RIGHT(REPLACE(ward, 'e', 'eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee') || REPLACE(REPLACE(ward, 'e', "
     "'eeeeeeeeeeeeeeeeeee'), 'e', 'eeeeeeeeee'), 300)", "a label is printable text of 200 characters"),
    ("CASE WHEN smoker THEN 'a\nb' ELSE 'c' END", "a label is printable text of 200 characters"),
])  # fmt: skip
def test_what_is_no_label_is_refused(expression: str, hint: str) -> None:
    found = refusal(f"SELECT {expression} AS a, COUNT(*) AS n FROM visits GROUP BY a")
    assert "is no label of" in found.message
    assert found.hint == hint


def test_a_name_that_fits_two_others_but_for_its_case_must_be_written_as_one_of_them() -> None:
    asked = "SELECT COUNT(*) AS nn, SUM(cost) AS NN FROM visits ORDER BY "
    assert plan(f"{asked}nn", OFFER).plan == plan(f"{asked}NN", OFFER).plan
    assert "'Nn' at line 1, column 61 can be nn or NN" in refusal(f"{asked}Nn").message
