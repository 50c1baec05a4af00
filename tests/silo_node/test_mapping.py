"""A policy's `from` and `scale`: a file of other names and units is read exactly as one of the policy's own."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest

from policies.document.catalogue import catalogue_of, open_tables
from policies.errors import PolicyFileError
from policies.requests.predicates import Compare
from policies.requests.query import Aggregate
from policies.requests.request import Request
from silo_node.data.consent import consent_filter
from silo_node.data.query import execute
from silo_node.errors import SourceError
from tests.cases import every
from tests.harness.example_policy import COLUMNS, Edit, plan, policy, request, table
from tests.harness.rows import load_sources, opened

CSV = Edit('kind = "parquet"\nuri  = "visits.parquet"', 'kind = "csv"\nuri  = "visits.csv"')
ANY = Edit("[sources.visits.columns]", "max_unreadable = 1\n[sources.visits.columns]")
UNIT = Edit('patient_id = { type = "string"', 'patient_id = { from = "Patient No", type = "string"')
COST_LINE = 'cost   = { type = "decimal"'
HEAD = '"Patient No",ward,grade,age,"Cost ""in"" cents; DROP",smoker,region,stay\n'
FROM = """'Cost "in" cents; DROP'"""


def cost(scale: str, name: str = FROM) -> Edit:
    return Edit(COST_LINE, f'cost = {{ from = {name}, scale = {scale}, type = "decimal"')


def visits(home: Path, *costs: str) -> None:
    rows = "".join(f"p{index},medicine,0,40,{cost},true,north,3\n" for index, cost in enumerate(costs))
    (home / "visits.csv").write_text(HEAD + rows)


def ask(where: Any = None) -> Request:
    aggregates = (Aggregate(function="sum", column="cost", alias="total"),)
    return request(table=table(max_rows=1, columns=COLUMNS), plan=plan(where=where, group_by=(), aggregates=aggregates))


def compute(home: Path, asked: Request, *edits: Edit) -> tuple[int, Decimal]:
    """Return how many cells are present, and their total in the policy's unit."""
    loaded = policy(CSV, UNIT, ANY, *edits)
    source = load_sources(loaded, home)["visits"]
    with opened(source) as database:
        (present,), (total,) = (each.tolist() for each in execute(database, source, "patient_id", asked))
    return present, Decimal(total + present * 505_000) / 200 - 50 * present


@pytest.mark.parametrize(
    ("cell", "scale", "value"),
    [
        ("1234.5", "0.01", "12.35"),  # 12.345: halves round up
        ("100", "0.4536", "45.36"),
        ("0.1", "3", "0.3"),
        ("7", "0.000000001", "0"),
        ("0.000000005", "1000000000", "5"),
        ("1e6", "0.01", "5000"),  # clamped after the scale
        ("-1e6", "0.01", "-50"),
        ("10000000000000000000", "9", "5000"),
        ("99999999999999999999", "1", "5000"),
        ("99999999999999999998", "0.999999999", "5000"),
        ("99999999999999999999000000000", "0.000000001", "5000"),
    ],
)
def test_a_cell_is_scaled_exactly_before_it_is_clamped(tmp_path: Path, cell: str, scale: str, value: str) -> None:
    visits(tmp_path, cell, "0")
    assert compute(tmp_path, ask(), cost(scale)) == (2, Decimal(value))


@pytest.mark.parametrize("cell", ["", "nan", "1e28", "-1e28", "99999999999999999999999999999"])
def test_what_cannot_be_scaled_is_missing(tmp_path: Path, cell: str) -> None:
    visits(tmp_path, cell, "1", "2.5")
    assert compute(tmp_path, ask(), cost("1000000000")) == (2, Decimal(10_000))
    assert compute(tmp_path, ask(), cost("1e9")) == (2, Decimal(10_000))


def test_filters_compare_the_scaled_value(tmp_path: Path) -> None:
    visits(tmp_path, "1000", "999", "2000")
    where = Compare(column="cost", op=">=", value="10")
    assert compute(tmp_path, ask(where), cost("0.01")) == (2, Decimal(30))


def test_a_parquet_file_of_doubles_is_scaled_as_exactly(tmp_path: Path) -> None:
    schema = "patient_id, ward, grade, age, pounds, smoker, region, stay"
    cells = ("2.2", "'nan'", "'inf'", "'-inf'", "1e300", "NULL")
    values = [f"('p{index}','w',0,1,{cell}::DOUBLE,true,'r',1)" for index, cell in enumerate(cells)]
    duckdb.execute(f"COPY (SELECT * FROM (VALUES {', '.join(values)}) t({schema})) TO '{tmp_path}/visits.parquet'")
    loaded = policy(cost("0.45", '"pounds"'), ANY)
    source = load_sources(loaded, tmp_path)["visits"]
    with opened(source) as database:
        found = [each.tolist() for each in execute(database, source, "patient_id", ask())]
        assert found == [[1], [2 * (99 + 5000) - 505_000]]


def test_a_column_that_is_not_opened_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "visits.csv").write_text(
        "patient_id,ward,grade,age,cost,smoker,region,stay,diary\np,w,0,1,2,true,r,3,4\n"
    )
    source = load_sources(policy(CSV), tmp_path)["visits"]
    with opened(source) as database, pytest.raises(duckdb.BinderException):
        database.execute(f"SELECT diary FROM {source.view}")


def test_the_missing_name_is_that_of_the_file(tmp_path: Path) -> None:
    visits(tmp_path, "1")
    with pytest.raises(SourceError, match="has no column 'Kosten'"):
        load_sources(policy(CSV, UNIT, cost("1", '"Kosten"')), tmp_path)


def test_id_and_consent_columns_may_be_mapped(tmp_path: Path) -> None:
    visits(tmp_path, "1", "2")
    text = (tmp_path / "visits.csv").read_text().replace("smoker", "OK to use")
    (tmp_path / "visits.csv").write_text(text.replace("2,true", "2,false"))
    loaded = policy(
        CSV,
        UNIT,
        cost("1"),
        Edit("smoker = {", 'smoker = { from = "OK to use",'),
        Edit('legal_basis  = "public-task"', 'legal_basis  = "consent"\nconsent = "opt-in"'),
        Edit("[budget]", '[consent]\nmode = "column"\ncolumn = "smoker"\nstale_after_hours = 24\n\n[budget]'),
    )
    source = load_sources(loaded, tmp_path)["visits"]
    among = consent_filter(loaded, "health-research", 0)
    with opened(source) as database:
        assert execute(database, source, "patient_id", ask(), among)[0].tolist() == [1]


def test_nothing_of_the_mapping_is_published() -> None:
    plain, mapped = policy(), policy(UNIT, cost("0.5", '"Kosten"'))
    assert open_tables(mapped) == open_tables(plain)
    analyst = mapped.analysts["ana"]
    catalogue = json.dumps(
        catalogue_of(mapped, analyst, "f", bytes(32), bytes(16)).model_dump(mode="json"), default=str
    )
    assert "Kosten" not in catalogue
    assert "Patient No" not in catalogue


@every(
    ("edit", "problem"),
    [
        (cost("0"), "scale: input should be greater than 0"),
        (cost("-1"), "scale: input should be greater than 0"),
        (cost("1e-10"), "scale 1E-10 must lie between 1e-9 and 1e9"),
        (cost("2e9"), "scale 2E+9 must lie between 1e-9 and 1e9"),
        (cost("0.1234567891"), "with at most 9 decimals"),
        (cost("1", '""'), "from: string should have at least 1 character"),
        (cost("1", f'"{"x" * 121}"'), "from: string should have at most 120 characters"),
        (cost("1", r'"a\nb"'), "from: a control character, "),
        (cost("1", '"AGE"'), "columns 'age' and 'cost' read the same column of the file"),
        (cost("1", '"patient_id"'), "columns 'patient_id' and 'cost' read the same column of the file"),
        (Edit("diary  =", "AGE ="), "columns 'age' and 'AGE' are the same name"),
        (Edit("smoker = {", "smoker = { scale = 2,"), "a bool column has no scale"),
        (Edit("grade  = {", "grade = { scale = 2,"), "a column with a domain has no scale"),
        (
            Edit('patient_id = { type = "string"', 'patient_id = { scale = 2, type = "int"'),
            "id_column may have no scale",
        ),
        (Edit("bounds = [0, 110]", 'bounds = "FILL IN"'), "columns.age.bounds: fill in [low, high] from public"),
        (Edit('"medicine", "surgery", "unknown"', '"FILL IN"'), "columns.ward.domain: fill in the list of its values"),
        (Edit("rho = 1.0", 'rho = "FILL IN"'), "budget.lifetime.rho: fill in a number"),
        (Edit('controller   = "North Hospital"', 'controller = "FILL IN"'), "silo.controller: fill in the controller"),
    ],
)
def test_what_cannot_stand_is_refused_with_its_line(edit: Edit, problem: str) -> None:
    with pytest.raises(PolicyFileError) as caught:
        policy(edit)
    assert problem in caught.value.message
    assert len(caught.value.message.splitlines()) == 1
