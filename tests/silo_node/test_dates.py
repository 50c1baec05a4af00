"""What a silo reads of dates, old rows, missing numbers and many groups of one person; and how fresh decisions are."""

import os
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.document.load import parse
from policies.document.policy import Policy
from policies.periods import UNKNOWN, label, periods
from policies.requests.predicates import Compare, OneOf, Predicate
from policies.requests.query import Aggregate
from policies.requests.request import Request
from policies.requests.tables import Table, TableColumn
from silo_node.data.consent import row_filter
from silo_node.data.query import execute
from silo_node.errors import SourceError
from silo_node.owner.consent_status import consent_counts, status_of_person
from tests.harness.example_policy import NOW, Edit, edited, plan, request
from tests.harness.rows import load_consent, load_sources, opened

TODAY = datetime.fromtimestamp(NOW, UTC).date()
MIDNIGHT = datetime.combine(TODAY, datetime.min.time())
COUNT = (Aggregate(function="count", column=None, alias="n"),)
BACK = 200


def text(granularity: str = "month", kind: str = "parquet") -> str:
    return edited(
        Edit('kind = "parquet"', f'kind = "{kind}"\ntime_column = "seen"\nlookback_days = {BACK}'),
        Edit("visits.parquet", f"visits.{kind}"),
        Edit("max_rows  = 2", "max_rows  = 100"),
        Edit("diary  =", 'seen = { type = "date", class = "internal", roles = ["dimension", "filter"], '
                         f'granularity = "{granularity}" }}\ndiary  ='),
        Edit('bounds = [0, 60], unit = "day"', 'bounds = [0, 60], missing = "zero"'),
    )  # fmt: skip


def asked(granularity: str, where: Predicate | None = None, group_by: tuple[str, ...] = ("seen",)) -> Request:
    column = TableColumn(name="seen", type="date", domain=(*periods(granularity, BACK, NOW), UNKNOWN), unknown=UNKNOWN)
    stay = TableColumn(name="stay", type="int", low=0, high=60, step="1")
    ward = TableColumn(name="ward", type="string", domain=("medicine", "surgery", "unknown"), unknown="unknown")
    figures = COUNT if group_by else (*COUNT, Aggregate(function="sum", column="stay", alias="total"))
    return request(
        table=Table(name="visits", max_rows=100, max_silos=2, columns=(column, stay, ward)),
        plan=plan(where=where, group_by=group_by, aggregates=figures),
    )


def answers(
    home: Path, policy: Policy, question: Request, rows: list[dict[str, Any]], max_groups: int | None = None
) -> list[list[int]]:
    write(home, policy.sources["visits"].kind, rows)
    source = load_sources(policy, home)["visits"]
    among = row_filter(policy, source, "health-research", NOW)
    with opened(source) as database:
        return [vector.tolist() for vector in execute(database, source, "patient_id", question, among, max_groups)]


def write(home: Path, kind: str, rows: list[dict[str, Any]]) -> None:
    full = [
        {"patient_id": "p0", "ward": "medicine", "grade": 0, "age": 1, "cost": 1.0, "smoker": True, "region": "x",
         "stay": 1, **row}
        for row in rows
    ]  # fmt: skip
    stored = pa.Table.from_pylist(full, schema=SCHEMA)
    if kind == "csv":
        pyarrow.csv.write_csv(stored, home / "visits.csv")
    else:
        pyarrow.parquet.write_table(stored, home / "visits.parquet")


SCHEMA = pa.schema(
    [("patient_id", pa.string()), ("ward", pa.string()), ("grade", pa.int64()), ("age", pa.int64()),
     ("cost", pa.float64()), ("smoker", pa.bool_()), ("region", pa.string()), ("stay", pa.int64()),
     ("seen", pa.timestamp("us"))]
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["parquet", "csv"])
@pytest.mark.parametrize("granularity", ["day", "week", "month", "quarter", "year"])
@settings(max_examples=12, deadline=None)
@given(backs=st.lists(st.one_of(st.integers(-3, BACK + 3), st.none()), min_size=1, max_size=20))
def test_rows_are_counted_by_period_and_old_ones_not_at_all(
    tmp_path_factory: pytest.TempPathFactory, kind: str, granularity: str, backs: list[int | None]
) -> None:
    home = tmp_path_factory.mktemp("silo")
    rows: list[dict[str, Any]] = [
        {"patient_id": f"p{index}",
         "seen": None if back is None else MIDNIGHT - timedelta(days=back, hours=-5)}
        for index, back in enumerate(backs)
    ]  # fmt: skip
    question, policy = asked(granularity), parse(text(granularity, kind).encode(), "x")
    (found,) = answers(home, policy, question, [*rows, {"seen": MIDNIGHT}])
    domain = question.table.column("seen").domain
    expected = Counter({label(granularity, TODAY): 1})
    for back in backs:
        if back is not None and back <= BACK:
            period = label(granularity, TODAY - timedelta(days=back))
            expected[period if period in domain else UNKNOWN] += 1
    assert dict(zip(domain, found, strict=True)) == {name: expected.get(name, 0) for name in domain}


@pytest.mark.parametrize(
    ("where", "count"),
    [
        (Compare(column="seen", op="=", value="2027-01"), 1),
        (Compare(column="seen", op=">=", value="2026-12"), 2),
        (Compare(column="seen", op="<", value="2027-01"), 2),
        (OneOf(column="seen", values=("2026-12", "2026-11")), 2),
        (Compare(column="seen", op="<>", value="2027-01"), 2),
    ],
)  # fmt: skip
def test_a_date_is_filtered_by_its_period(tmp_path: Path, where: Predicate, count: int) -> None:
    days = [date(2027, 1, 3), date(2026, 12, 31), date(2026, 11, 30), date(2027, 5, 1), date(2026, 1, 1)]
    rows: list[dict[str, Any]] = [
        {"patient_id": f"p{day}", "seen": datetime.combine(day, datetime.min.time())} for day in days
    ]
    counted, _, _ = answers(tmp_path, parse(text().encode(), "x"), asked("month", where, ()), rows)
    assert counted == [count]


def test_a_missing_number_counts_as_zero_where_the_policy_says_so(tmp_path: Path) -> None:
    seen = MIDNIGHT
    rows: list[dict[str, Any]] = [
        {"patient_id": "a", "stay": None, "seen": seen},
        {"patient_id": "b", "stay": 7, "seen": seen},
    ]
    for missing, present in (("zero", 2), ("exclude", 1)):
        policy = parse(text().replace('missing = "zero"', f'missing = "{missing}"').encode(), "x")
        _, counted, totals = answers(tmp_path, policy, asked("month", None, ()), rows)
        assert counted == [present]
        assert (totals[0] + 60 * present) // 2 == 7


@pytest.mark.parametrize("most", [1, 2, None])
def test_of_one_person_so_many_groups_enter(tmp_path: Path, most: int | None) -> None:
    wards = ["medicine", "surgery", "cellar"]
    seen = MIDNIGHT
    rows = [{"patient_id": f"p{person}", "ward": ward, "seen": seen}
            for person in range(40) for ward in wards for _ in range(3)]  # fmt: skip
    (found,) = answers(tmp_path, parse(text().encode(), "x"), asked("month", None, ("ward",)), rows, most)
    assert sum(found) == 40 * 3 * (most or 3)
    assert all(count % 3 == 0 for count in found)  # a group of a person is in with all its rows or with none
    assert all(found)  # which of them is drawn anew for each person


def test_a_date_column_with_what_is_no_date_is_shown_to_the_owner(tmp_path: Path) -> None:
    write(tmp_path, "parquet", [{}])
    stored = pyarrow.parquet.read_table(tmp_path / "visits.parquet")
    stored = stored.set_column(stored.column_names.index("seen"), "seen", pa.array([1]))
    pyarrow.parquet.write_table(stored, tmp_path / "visits.parquet")
    with pytest.raises(SourceError, match=r"visits\.parquet, row 1, column 'seen': '1' is no date"):
        load_sources(parse(text().encode(), "x"), tmp_path)


CONSENT = """
[consent]
mode = "table"
source = "decisions.csv"
subject = "person"
purpose = "purpose"
given_at = "given_at"
withdrawn_at = "withdrawn_at"
receipt_id = "record"
stale_after_hours = 2
"""
OPT_IN = ('legal_basis  = "public-task"', 'legal_basis  = "consent"\nconsent = "opt-in"')


def decisions(home: Path, head: str = "person,purpose,given_at,withdrawn_at,record") -> Policy:
    (home / "decisions.csv").write_text(
        f"{head}\np0,health-research,2026-01-01T00:00:00Z,,r-17\np0,health-research,2026-02-01T00:00:00Z,,r-18\n"
        "p0,billing,2026-01-01T00:00:00Z,,r-19\n"
    )
    return parse((text().replace(*OPT_IN) + CONSENT).encode(), "x")


def test_the_age_of_a_table_of_decisions_is_that_of_its_file(tmp_path: Path) -> None:
    policy = decisions(tmp_path)
    os.utime(tmp_path / "decisions.csv", (NOW, NOW - 7201))
    decided = load_consent(policy, tmp_path)
    assert decided is not None
    assert decided.written_at() == NOW - 7201
    write(tmp_path, "parquet", [{"seen": MIDNIGHT}])
    sources = load_sources(policy, tmp_path)
    with opened(*sources.values(), decided) as database:
        (one,) = consent_counts(database, policy, ["health-research"], sources, NOW, NOW - 7201)
        assert (one.persons_in, one.is_stale) == (1, True)
        (one,) = consent_counts(database, policy, ["health-research"], sources, NOW, NOW - 7200)
        assert (one.persons_in, one.is_stale) == (1, False)
    (tmp_path / "decisions.csv").unlink()
    assert decided.written_at() is None


def test_receipts_of_a_person_are_shown_to_the_owner(tmp_path: Path) -> None:
    policy = decisions(tmp_path)
    write(tmp_path, "parquet", [{"seen": MIDNIGHT}])
    source = load_sources(policy, tmp_path)["visits"]
    with opened(source, load_consent(policy, tmp_path)) as database:
        found = status_of_person(database, policy, "health-research", source, NOW, "p0")
    assert (found.reason, found.receipts) == ("given", ("r-17", "r-18"))
    policy = decisions(tmp_path, "person,purpose,given_at,withdrawn_at,other")
    with pytest.raises(SourceError, match="has no column 'record'"):
        load_consent(policy, tmp_path)
