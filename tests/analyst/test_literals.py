"""Every spelling of a literal that an analyst may try is planned exactly, or refused with a hint that works."""

import re
from datetime import UTC, datetime

import pytest

from analyst.errors import SqlError
from analyst.sql.offer import Offer
from analyst.sql.plan import plan
from policies.document.catalogue import catalogue_of
from policies.document.policy import Analyst
from policies.requests.predicates import Both, Compare, Not, OneOf, Predicate
from policies.requests.tables import Text
from tests.cases import every
from tests.harness.example_policy import KEY, Edit, policy

NOW = int(datetime(2026, 11, 24, tzinfo=UTC).timestamp())
DATE = (
    'seen = {{ type = "date", class = "internal", roles = ["dimension", "filter"], granularity = "{}" }}\ndiary  = {{'
)


def offer(granularity: str) -> Offer:
    """Return an offer with a date column of a granularity, and a decimal column of step 0.1."""
    edits = (
        Edit("diary  = {", DATE.format(granularity)),
        Edit('uri  = "visits.parquet"', 'uri  = "visits.parquet"\ntime_column = "seen"\nlookback_days = 800'),
        Edit("step = 0.01", "step = 0.1"),
    )
    silo = policy(*edits)
    analyst = Analyst(key=KEY, purposes=tuple(silo.purposes), until=datetime(2100, 1, 1, tzinfo=UTC))
    return Offer({"north": catalogue_of(silo, analyst, "fed", bytes(32), bytes(16), NOW)})


OFFERS = {granularity: offer(granularity) for granularity in ("day", "week", "month", "quarter", "year")}


def filtered(condition: str, granularity: str = "month") -> Predicate:
    where = plan(f"SELECT COUNT(*) FROM visits WHERE {condition}", OFFERS[granularity]).plan.where
    assert where is not None
    return where


def literals(where: Predicate) -> list[Text]:
    match where:
        case Both():
            return [value for one in where.operands for value in literals(one)]
        case Not():
            return literals(where.operand)
        case OneOf():
            return list(where.values)
        case Compare():
            return [where.value]
    return []


def mended(condition: str, error: SqlError) -> list[str]:
    """Return the conditions that follow from doing what a hint says."""
    column, op, _ = condition.split(" ", 2)
    hint = error.hint.removeprefix("write ")
    if " BETWEEN " in hint:
        return [hint]
    said = re.match(r"it in quotes: ('[^']*')|('[^']*'|-?[\d.]+|TRUE)(?: or (-?[\d.]+))?", hint)
    assert said is not None, error.hint
    return [f"{column} {op} {one}" for one in said.groups() if one]


@every(
    ("condition", "values"),
    [
        ("age = 1e2", ["100"]),
        ("age = 1E+2", ["100"]),
        ("age > 1.5", ["1.5"]),
        ("age = 2.0", ["2.0"]),
        ("age = -5", ["-5"]),
        ("age = +5", ["5"]),
        ("age = - -5", ["5"]),
        ("age = (5)", ["5"]),
        ("age = 1_000", ["1000"]),
        ("cost > 1.50", ["1.50"]),
        ("cost > .5", ["0.5"]),
        ("cost > -.5", ["-0.5"]),
        ("cost > 5.", ["5"]),
        ("cost = 70.123", ["70.123"]),
        ("cost = 1.50000000000", ["1.5"]),
        ("cost > 25e-2", ["0.25"]),
        ("cost < 1e17", ["1" + "0" * 17]),
        ("age BETWEEN 1e1 AND 2e1", ["10", "20"]),
        ("age IN (1e1, 20.)", ["10", "20"]),
        ("grade IN (1, 2e0)", ["1", "2"]),
        ("grade > 7", ["7"]),
        ("smoker = (FALSE)", ["false"]),
        ("seen = '2026-09'", ["2026-09"]),
        ("seen <> 'unknown'", ["unknown"]),
    ],
)
def test_a_literal_is_planned_exactly(condition: str, values: list[str]) -> None:
    assert literals(filtered(condition)) == values


@every(
    ("condition", "problem", "hint"),
    [
        ("age = 1.5", "column 'age' has whole numbers, found 1.5", "write 1 or 2"),
        ("age <> -1.5", "column 'age' has whole numbers, found -1.5", "write -2 or -1"),
        ("age = 1e-3", "column 'age' has whole numbers, found 1e-3", "write 0 or 1"),
        ("cost > 0.1234567891", "a number has up to 9 decimals", "write 0.123456789 or 0.12345679"),
        ("cost > -1e-12", "a number has up to 9 decimals", "write -0.000000001 or 0"),
        ("age > 99999999999999999999", "a number has up to 18 digits", "write 999999999999999999, or leave it out"),
        ("age > -1e400", "a number has up to 18 digits", "write -999999999999999999, or leave it out"),
        ("age = '30'", "column 'age' compares with a number, found '30'", "write 30, without quotes or a cast"),
        ("age = '1,5'", "column 'age' compares with a number, found '1,5'", "write 1 or 2"),
        ("cost > '70,5'", "column 'cost' compares with a number", "write 70.5, without quotes or a cast"),
        ("cost > '1e1'", "column 'cost' compares with a number", "write 10, without quotes or a cast"),
        ("age = 30::INT", "CAST(30 AS INT) is no literal", "write 30, without quotes or a cast"),
        ("grade = 7", "not in the domain of 'grade': 7", "write 2"),
        ("grade = 0.5", "not in the domain of 'grade': 0.5", "write 0 or 1"),
        ("region = 0150", "column 'region' compares with a text, found 0150", "write it in quotes: '0150'"),
        ("smoker = 1", "column 'smoker' compares with a bool, found 1", "write TRUE or FALSE, without quotes"),
        ("smoker = 'true'", "column 'smoker' compares with a bool", "write TRUE or FALSE, without quotes"),
    ],
)
def test_another_number_or_text_is_refused_with_a_hint_that_works(condition: str, problem: str, hint: str) -> None:
    with pytest.raises(SqlError) as caught:
        filtered(condition)
    assert (caught.value.message.startswith(problem), caught.value.hint) == (True, hint), caught.value.message
    for again in mended(condition, caught.value):
        filtered(again)


@every(
    ("granularity", "condition", "hint"),
    [
        ("month", "seen = '2026-09-03'", "write '2026-09', the period of column 'seen' that holds it"),
        ("month", "seen > DATE '2026-09-03'", "write '2026-09', the period"),
        ("month", "seen = '2026-09-03 12:00:00'", "write '2026-09', the period"),
        ("month", "seen = '2026-9'", "write '2026-09', the period"),
        ("month", "seen = '2026/9/3'", "write '2026-09', the period"),
        ("month", "seen = '3.9.2026'", "write '2026-09', the period"),
        ("month", "seen = 2026-09", "write '2026-09', the period"),
        ("month", "seen = 2026", "write seen BETWEEN '2026-01' AND '2026-11'"),
        ("month", "seen = '2025'", "write seen BETWEEN '2025-01' AND '2025-12'"),
        ("month", "seen <> '2026-q3'", "write NOT seen BETWEEN '2026-07' AND '2026-09'"),
        ("month", "seen >= '2026-Q3'", "write '2026-07', its first period"),
        ("month", "seen < '2026-Q3'", "write '2026-07', its first period"),
        ("month", "seen > '2026-Q3'", "write '2026-09', its last period"),
        ("month", "seen <= '2026-Q3'", "write '2026-09', its last period"),
        ("day", "seen = '2026-09'", "write seen BETWEEN '2026-09-01' AND '2026-09-30'"),
        ("day", "seen = '2026-09-31'", "write a period from '2024-09-15' to '2026-11-24', or 'unknown'"),
        ("week", "seen = '2026-09-03'", "write '2026-W36', the period"),
        ("quarter", "seen = '2026-09-03'", "write '2026-Q3', the period"),
        ("year", "seen = '2026-09-03'", "write '2026', the period"),
        ("month", "seen = '1999-09-03'", "the periods go from '2024-09' to '2026-11'"),
        ("month", "seen = 'September'", "write a period from '2024-09' to '2026-11', or 'unknown'"),
    ],
)
def test_another_period_is_refused_with_one_that_works(granularity: str, condition: str, hint: str) -> None:
    with pytest.raises(SqlError) as caught:
        filtered(condition, granularity)
    assert caught.value.hint.startswith(hint), caught.value.hint
    if hint.startswith("write ") and not hint.startswith("write a period"):
        for again in mended(condition, caught.value):
            filtered(again, granularity)


@pytest.mark.parametrize("literal", ["0x10", "0b11", "70,5"])
def test_a_number_in_other_digits_is_broken_sql_with_a_hint(literal: str) -> None:
    with pytest.raises(SqlError, match="broken SQL at line 1") as caught:
        filtered(f"cost > {literal}")
    assert caught.value.hint == "write numbers in decimal digits, with a point, such as 70.5 or 16"


def test_both_ends_of_between_are_read_by_the_column() -> None:
    for condition, found in (("'2026-07-01' AND '2026-09'", "2026-07"), ("'2026-07' AND '2026-Q3'", "2026-09")):
        with pytest.raises(SqlError) as caught:
            filtered(f"seen BETWEEN {condition}")
        assert caught.value.hint.startswith(f"write '{found}'")
