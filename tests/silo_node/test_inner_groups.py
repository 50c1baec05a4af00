"""One row of a person in each group: figures equal DuckDB's, and no person changes a sum by more than is priced."""

import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.requests.persons import PERSONS
from policies.requests.query import CUT, ROWS, Plan
from policies.requests.request import Request
from silo_node.data import answer
from silo_node.data.coded import Aspect, Cells, Members, Rows, Run, Steps
from silo_node.data.locations import connect
from silo_node.data.lots import SECRET_BYTES, Lots
from silo_node.data.prepared.reader import Reader
from silo_node.data.prepared.store import Store
from silo_node.data.sources import source_of
from tests.harness.example_policy import WARD, Edit, policy
from tests.harness.rows import NamedHere
from tests.silo_node.test_persons import HEAVY, VISITS, asked_by, computed, pooled, read, released, same, written

ENOUGH = 1_000  # rows: no lot is drawn
BY_WARD = "FROM visits GROUP BY patient_id, ward"
# Each with what DuckDB says of the same rows, where the group of what is missing has to be named.
QUESTIONS = (
    (f"SELECT ward, COUNT(*) AS n FROM (SELECT patient_id, ward {BY_WARD} HAVING COUNT(*) > 1) GROUP BY ward", None),
    (f"SELECT ward, AVG(n) AS mean, SUM(n) AS total FROM (SELECT patient_id, ward, LEAST(COUNT(*), 3) AS n {BY_WARD})"
     " GROUP BY ward", None),
    (f"SELECT COUNT(*) AS n, AVG(spent) AS spent FROM (SELECT patient_id, ward, GREATEST(LEAST(SUM(cost), 60), -20)"
     f" AS spent {BY_WARD})",
     f"SELECT COUNT(*) AS n, AVG(spent) AS spent FROM (SELECT patient_id, ward, CASE WHEN SUM(cost) IS NOT NULL THEN"
     f" GREATEST(LEAST(SUM(cost), 60), -20) END AS spent {BY_WARD})"),
    ("SELECT ward, COUNT(DISTINCT patient_id) AS n FROM (SELECT patient_id, ward, grade, MIN(age) AS low FROM visits"
     " GROUP BY ALL) WHERE low < 50 GROUP BY ward", None),
    ("SELECT COUNT(DISTINCT who) AS n FROM (SELECT DISTINCT patient_id AS who, ward FROM visits WHERE smoker)", None),
    ("SELECT grade, first, COUNT(*) AS n FROM (SELECT patient_id, grade, MIN(ward) AS first FROM visits"
     " GROUP BY patient_id, grade) GROUP BY grade, first",
     "SELECT coalesce(grade, -1) AS grade, coalesce(first, 'unknown') AS first, COUNT(*) AS n FROM (SELECT patient_id,"
     " grade, MIN(ward) AS first FROM visits GROUP BY patient_id, grade) GROUP BY ALL"),
    ("SELECT age_from, COUNT(*) AS n, SUM(visits) AS visits FROM (SELECT patient_id, age // 40 * 40 AS age_from,"
     " LEAST(COUNT(*), 2) AS visits FROM visits GROUP BY patient_id, age_from) GROUP BY age_from", None),
    ("SELECT old, ward, COUNT(*) AS n FROM (SELECT patient_id, CASE WHEN age > 50 THEN 'old' WHEN age > 20 THEN 'adult'"
     " END AS old, ward, BOOL_OR(smoker) AS ever FROM visits GROUP BY ALL) WHERE ever AND ward = 'surgery'"
     " GROUP BY old, ward", None),
    ("SELECT cohort, grade, COUNT(*) AS n FROM (SELECT patient_id, grade, MIN(grade) OVER (PARTITION BY patient_id) AS"
     " cohort FROM visits GROUP BY patient_id, grade) GROUP BY cohort, grade",
     "SELECT coalesce(cohort, -1) AS cohort, coalesce(grade, -1) AS grade, COUNT(*) AS n FROM (SELECT patient_id,"
     " grade, MIN(grade) OVER (PARTITION BY patient_id) AS cohort FROM visits GROUP BY patient_id, grade)"
     " GROUP BY ALL"),
    ("SELECT ward, SUM(paid) AS paid, SUM(low) AS low FROM (SELECT patient_id, ward, GREATEST(LEAST("
     "SUM(cost), 99), 0) AS paid, SUM(COUNT(*)) OVER (PARTITION BY patient_id) AS k, MIN(MIN(age)) OVER (PARTITION BY"
     f" patient_id) AS low {BY_WARD}) WHERE k BETWEEN 2 AND 4 GROUP BY ward",
     "SELECT ward, SUM(paid) AS paid, SUM(low) AS low FROM (SELECT patient_id, ward, CASE WHEN SUM(cost) IS NOT NULL"
     " THEN GREATEST(LEAST(SUM(cost), 99), 0) END AS paid, SUM(COUNT(*)) OVER (PARTITION BY patient_id) AS k,"
     f" MIN(MIN(age)) OVER (PARTITION BY patient_id) AS low {BY_WARD}) WHERE k BETWEEN 2 AND 4 GROUP BY ward"),
    ("SELECT n, COUNT(*) AS persons FROM (SELECT patient_id, COUNT(DISTINCT ward) AS n FROM visits GROUP BY patient_id)"
     " GROUP BY n", None),
    ("SELECT COUNT(*) AS n FROM (SELECT patient_id, smoker FROM visits GROUP BY patient_id, smoker"
     " HAVING COUNT(DISTINCT grade) FILTER (WHERE age < 60) >= 2)", None),
)  # fmt: skip
NULLS = {"ward": "unknown", "grade": "-1"}


def bounded(asked: Request, max_rows: int, max_norm: int | None = None) -> Request:
    return asked.model_copy(
        update={"table": asked.table.model_copy(update={"max_rows": max_rows, "max_norm": max_norm})}
    )


@pytest.mark.parametrize("place", range(len(QUESTIONS)))
@settings(max_examples=15, deadline=None)
@given(VISITS)
def test_a_figure_of_rows_of_persons_by_group_is_that_of_duckdb(
    tmp_path_factory: Any, place: int, visits: list[Any]
) -> None:
    question, truth = QUESTIONS[place]
    rows = [{"patient_id": person, **visit} for person, visit in visits]
    asked = bounded(asked_by(question), ENOUGH)
    assert isinstance(asked.plan, Plan)
    found = released(asked, computed(tmp_path_factory.getbasetemp(), rows, asked))
    keys = asked.plan.group_by
    true = [{key: NULLS.get(key) if row[key] is None else row[key] for key in keys} | row for row in
            pooled(truth or question, rows)]  # fmt: skip
    for row in true:
        row.update({key: NULLS[key] for key in keys if key in NULLS and row[key] is None})
    same(found, true, keys)


def bounds() -> Iterator[tuple[int, int | None]]:
    yield from ((1, None), (2, None), (5, None), (5, 2), (12, 3), (ENOUGH, None), (ENOUGH, 2))


SENSITIVE = [
    bounded(asked_by(question, counts_cut=True), *limits)
    for question in (
        *(question for question, _ in QUESTIONS),
        "SELECT ward, grade, COUNT(*) AS n, AVG(low) AS low FROM (SELECT patient_id, ward, grade, MIN(age) AS low"
        " FROM visits GROUP BY ALL) GROUP BY ward, grade",
        "SELECT low // 50 AS l, COUNT(*) AS n, VAR_POP(low) AS v, COUNT(DISTINCT patient_id) AS p FROM (SELECT"
        " patient_id, ward, grade, MIN(age) AS low FROM visits GROUP BY ALL) GROUP BY l",
        "SELECT COUNT(DISTINCT patient_id) AS p, SUM(n) AS n FROM (SELECT patient_id, ward, grade, smoker,"
        " LEAST(COUNT(*), 2) AS n FROM visits GROUP BY ALL)",
    )
    for limits in bounds()
]


@settings(max_examples=15, deadline=None)
@given(VISITS, st.sampled_from([None, 1, 2, 5]), st.binary(min_size=SECRET_BYTES, max_size=SECRET_BYTES))
def test_no_person_changes_a_sum_by_more_than_the_price_assumes(
    tmp_path_factory: Any, visits: list[Any], max_groups: int | None, secret: bytes
) -> None:
    """Neighbours differ in one person: one of rows in each of twelve groups, or any other one."""
    rows = [{"patient_id": person, **visit} for person, visit in visits]
    rows += [{"patient_id": "heavy", **visit} for visit in HEAVY]
    found, persons = read(tmp_path_factory.getbasetemp(), rows, SENSITIVE)
    everybody = np.ones(len(persons), np.bool_)
    for asked in SENSITIVE:
        extents = asked.plan.statistics(asked.table)
        whole = answer.question(found, asked, everybody, Lots(secret), max_groups)
        for place in range(len(persons)):
            others = np.arange(len(persons)) != place
            rest = answer.question(found, asked, others, Lots(secret), max_groups)
            for (statistic, extent), one, other in zip(extents.items(), whole, rest, strict=True):
                assert ((one - other) ** 2).sum() <= extent.squared, (statistic, asked.plan.in_words("visits"))


@pytest.mark.parametrize(
    ("group_by", "max_rows", "max_norm", "squared"),
    [
        ("ward, grade", ENOUGH, None, 12),  # a row in each of twelve groups
        ("ward, grade", 5, None, 5),
        ("ward, grade", ENOUGH, 2, 4),
        ("ward", ENOUGH, None, 48),  # four grades in each of three wards
        ("ward", 8, None, 32),
        ("ward", ENOUGH, 5, 32),  # 25 are not reached: in groups of up to four there are two such
        ("grade", ENOUGH, None, 36),
        ("", ENOUGH, None, 144),
        ("", 7, None, 49),
        ("", 7, 3, 9),
    ],
)
def test_the_sensitivity_is_that_of_the_rows_that_can_be_in_a_group(
    tmp_path: Path, group_by: str, max_rows: int, max_norm: int | None, squared: int
) -> None:
    """One person with all groups reaches it, but for what is rounded up to whole groups."""
    inside = "SELECT patient_id, ward, grade FROM visits GROUP BY patient_id, ward, grade"
    question = f"SELECT {group_by}{', ' * bool(group_by)}COUNT(*) AS n FROM ({inside})"
    asked = bounded(asked_by(question + (f" GROUP BY {group_by}" if group_by else "")), max_rows, max_norm)
    assert asked.plan.statistics(asked.table)[ROWS].squared == squared
    (counts,) = computed(tmp_path, [{"patient_id": "heavy", **visit} for visit in HEAVY], asked)
    reached = sum(count * count for count in counts)
    limit = squared if max_norm is None else max_norm * max_norm
    assert reached <= min(squared, limit)
    if max_norm is None and squared in (12, 48, 36, 144, 5, 49):
        assert reached == squared


def test_as_many_persons_are_counted_as_rows_enter(tmp_path: Path) -> None:
    question = "SELECT low, COUNT(DISTINCT patient_id) AS n FROM (SELECT patient_id, ward, grade, LEAST(COUNT(*), 3)"
    question += " AS low FROM visits GROUP BY ALL) GROUP BY low"
    for max_rows, squared in ((1, 1), (2, 2), (ENOUGH, 3)):
        asked = bounded(asked_by(question), max_rows)
        assert asked.plan.statistics(asked.table)[PERSONS].squared == squared
        (counts,) = computed(tmp_path, [{"patient_id": "heavy", **visit} for visit in HEAVY], asked)
        assert counts == [0, 1, 0], "both rows of each of twelve groups, so one group of persons"


def test_rows_that_are_left_out_are_counted(tmp_path: Path) -> None:
    asked = asked_by(
        "SELECT AVG(n) AS n FROM (SELECT patient_id, ward, LEAST(COUNT(*), 2) AS n FROM visits GROUP BY ALL)",
        counts_cut=True,
    )
    rows = [{"patient_id": person, "ward": ward} for person, own in (("a", ("medicine", "surgery", None)),
            ("b", ("medicine",) * 2), ("c", ("surgery",) * 3)) for ward in own]  # fmt: skip
    cut = dict(zip(asked.plan.statistics(asked.table), computed(tmp_path, rows, asked), strict=True))[CUT]
    assert cut == [1, 1, 1, 0], "a has rows in three wards, of which two enter; c has three visits in one"


def test_prepared_rows_and_any_parts_of_them_give_what_every_request_reads(tmp_path: Path) -> None:
    """Also of persons with more rows than enter, whose lots are those of the same groups in every part."""
    rules = policy(Edit('kind = "parquet"', 'kind = "parquet"\nread = "prepared"'))
    visits = [
        {"patient_id": f"p{at % 37}", **HEAVY[at * at % len(HEAVY)], "region": "north", "stay": at % 7}
        for at in range(300)
    ]
    written(tmp_path, visits)
    source, log = source_of(rules, "visits", tmp_path), NamedHere()
    store = Store(rules, tmp_path, log.kept)
    with connect() as database:
        log.prepare(store, database, source, 0)
        reader = Reader(rules, store, database, {"visits": source}, None)
        for asked in SENSITIVE:
            question, snapshot = reader.asked(asked, 0)
            persons = len(snapshot.persons)
            whole = question.part(0, persons, None, snapshot)
            for ends in ([0, 11, persons], [0, 1, 2, 30, persons]):
                parts = [question.part(*one, None, snapshot) for one in pairwise(ends)]
                for one, other in zip(answer.added(parts), whole, strict=True):
                    assert one.tolist() == other.tolist()
            if asked.table.max_rows == ENOUGH and asked.table.max_norm is None:
                assert computed(tmp_path, visits, asked) == [one.tolist() for one in whole], "nothing is drawn by lot"


def test_the_rows_that_enter_are_a_fair_sample(tmp_path: Path) -> None:
    """Of twelve rows of a person each is one of the two that enter in a sixth of requests."""
    asked = bounded(
        asked_by("SELECT ward, grade, COUNT(*) AS n FROM (SELECT patient_id, ward, grade FROM visits GROUP BY ALL)"
                 " GROUP BY ward, grade"), 2
    )  # fmt: skip
    rows = [{"patient_id": f"p{at}", **visit} for at in range(600) for visit in HEAVY]
    (counts,) = computed(tmp_path, rows, asked)
    assert sum(counts) == 1200
    assert all(abs(count - 100) < 50 for count in counts), "five deviations of 600 draws of a sixth"


@pytest.mark.slow
def test_a_million_rows_take_about_a_second() -> None:
    rows, persons, draw = 1_000_000, 200_000, np.random.default_rng(7)
    cells: dict[tuple[Aspect, str], Cells] = {
        ("steps", "age"): Steps(draw.integers(-2, 112, rows), 0, 110),
        ("member", "ward"): Members(draw.integers(0, 3, rows), WARD.domain),
    }
    table = Rows(draw.integers(0, persons, rows), persons, (Run(0, 0, rows),), cells)
    inside = f"SELECT patient_id, ward, LEAST(SUM(age), 2000) AS years {BY_WARD}"
    question = f"SELECT ward, COUNT(*) AS n, AVG(years) AS y FROM ({inside}) GROUP BY ward"
    asked, began = asked_by(question, counts_cut=True), time.process_time()
    answer.question(table, asked, None, Lots(bytes(SECRET_BYTES)), None)
    took = time.process_time() - began
    print(f"{took:.2f} s: {question}")
    assert took < 8, "about a second on an idle core"
