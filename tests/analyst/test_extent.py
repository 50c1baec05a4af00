"""A question that is too large, too deep or has numbers beyond all reason is one refusal, with a place, and quickly."""

import time
from functools import reduce

import pytest

from analyst.errors import SqlError
from analyst.sql.limits import too_large_refused
from analyst.sql.parse import MAX_DEPTH
from analyst.sql.script import script
from policies.requests.predicates import OneOf
from tests.cases import every
from tests.harness.example_policy import Edit, offer, policy

SECONDS = 10.0  # of the processor, on any machine; each of these took minutes, or gigabytes, or was no SqlError
OPEN = '["count", "sum", "avg", "var", "covar", "corr", "regr", "quantile", "survival"]'
OFFER = offer(policy(Edit('aggregates     = ["count", "sum", "avg"]', f"aggregates     = {OPEN}")))
WHERE = "SELECT COUNT(*) FROM visits WHERE "
BY_PERSON = "SELECT COUNT(*) AS n FROM (SELECT patient_id FROM visits GROUP BY patient_id HAVING {})"
BOUNDED = "SELECT patient_id, LEAST(COUNT(*), 5) AS n FROM visits GROUP BY patient_id"


def nested(times: int, form: str, inner: str) -> str:
    """Return a text inside `form`, so many times."""
    return reduce(lambda found, _: form.format(found), range(times), inner)


def joined(count: int, form: str, by: str) -> str:
    return by.join(form.format(place) for place in range(count))


HUGE = ("1e999999999", "1e-99999999")
HOSTILE = {
    "a doubled column": "SELECT AVG(age) FROM " + nested(40, "(SELECT age + age AS age FROM {})", "visits"),
    "a doubled column of persons": f"SELECT AVG(n) FROM ({nested(40, 'SELECT n + n AS n FROM ({})', BOUNDED)})",
    "a doubled CASE": "SELECT COUNT(*) FROM "
    + nested(9, "(SELECT CASE WHEN age > 1 AND age < 5 OR age = 7 THEN age END AS age FROM {})", "visits")
    + " WHERE age > 1",
    **{f"times {one}": f"{WHERE}age * {one} > 3" for one in HUGE},
    **{f"plus {one}": f"{WHERE}age + {one} > 3" for one in HUGE},
    **{
        f"width_bucket {one}": f"SELECT width_bucket(age, 0, {one}, 4) AS g, COUNT(*) FROM visits GROUP BY g"
        for one in HUGE
    },
    **{f"HISTOGRAM {one}": f"SELECT HISTOGRAM(age, {one}) FROM visits" for one in HUGE},
    **{f"buckets {one}": f"SELECT HISTOGRAM(age, [1, {one}]) FROM visits" for one in HUGE},
    **{f"SURVIVAL {one}": f"SELECT SURVIVAL(age, smoker, {one}) FROM visits" for one in HUGE},
    **{f"HAVING {one}": BY_PERSON.format(f"SUM(age) > {one}") for one in HUGE},
    **{f"LEAST {one}": f"SELECT AVG(n) FROM ({BOUNDED.replace('5', one)})" for one in HUGE},
    "an exponent of many digits": WHERE + "age > 1e" + "9" * 5000,
    "a number of many digits": BY_PERSON.format("SUM(cost) > " + "9" * 5000),
    "nested REPLACE": "SELECT "
    + nested(12, f"REPLACE({{}}, 'e', '{'e' * 21}')", "ward")
    + " AS g, COUNT(*) FROM visits GROUP BY g",
    "CASE of CASE of CASE": WHERE
    + nested(4, "CASE {} " + " ".join(f"WHEN {place} THEN {place + 1}" for place in range(80)) + " END", "age")
    + " > 3",
    "nested NULLIF": WHERE + nested(30, "NULLIF({}, 1)", "age") + " > 3",
    "1,000 figures of HAVING by person": BY_PERSON.format(joined(1000, "SUM(age) > {}", " AND ")),
    "17 figures of HAVING by person": BY_PERSON.format(joined(17, "COUNT(*) FILTER (WHERE age > {}) > 1", " AND ")),
    "17 figures inside": f"SELECT AVG({joined(17, 'n{}', ' + ')}) FROM (SELECT patient_id, "
    + ", ".join(f"LEAST(COUNT(*) FILTER (WHERE age > {place}), 5) AS n{place}" for place in range(17))
    + " FROM visits GROUP BY patient_id)",
    "900 figures of HAVING": "SELECT ward, COUNT(*) AS n FROM visits GROUP BY ward HAVING "
    + joined(900, "COUNT(*) > {}", " AND "),
    "3,000 terms of ORDER BY": "SELECT ward, COUNT(*) AS n FROM visits GROUP BY ward ORDER BY "
    + joined(3000, "n", "+"),
    "1,970 values": WHERE + f"age IN ({joined(1970, '{}', ',')})",
    "80 conditions inside": f"SELECT COUNT(*) AS n FROM (SELECT patient_id FROM visits WHERE"
    f" {joined(80, 'age > {}', ' AND ')} GROUP BY patient_id)",
    "300 questions": " UNION ALL ".join(["SELECT ward, COUNT(*) FROM visits GROUP BY ward"] * 300),
    "60 brackets": WHERE + nested(60, "({})", "age > 3"),
    "3,000 NOTs": WHERE + "NOT " * 3000 + "smoker",
}


def refusal(sql: str) -> SqlError:
    with pytest.raises(SqlError) as info:
        script(sql, OFFER)
    return info.value


@pytest.mark.parametrize("sql", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_question_is_refused_with_its_place_and_soon(sql: str) -> None:
    before = time.process_time()
    error = refusal(sql)
    assert time.process_time() - before < SECONDS
    assert " at line 1, column " in error.message
    assert error.hint
    assert "Tuple" not in error.message
    assert len(error.message) < 400


@every(("sql", "message", "hint"), [
    (HOSTILE["1,970 values"], "IN lists 1,970 values at line 1, column 35, at most 1,000",
     "list fewer, or write a range: age BETWEEN ... AND ..."),
    (HOSTILE["60 brackets"],
     "the question is nested too deeply: 60 brackets, CASE or NOT inside each other at line 1, column 94",
     "take brackets off, or ask simpler parts"),
    (HOSTILE["times 1e999999999"], "1e999999999 is too large or too fine a number at line 1, column 41",
     "write a number in digits, with up to 18 before the point and 9 after it"),
    (HOSTILE["900 figures of HAVING"],
     f"the question is nested too deeply: more than {MAX_DEPTH} parts inside each other, most of them AND"
     " at line 1, column 61", "ask fewer conditions at once; a list of values is x IN (1, 2, 3)"),
    (WHERE + "ward = 'x", "broken SQL: a quote or comment is not closed",
     "end a text with a single quote, a name with a double one, and /* with */"),
])  # fmt: skip
def test_each_limit_has_its_own_words(sql: str, message: str, hint: str) -> None:
    error = refusal(sql)
    assert (error.message, error.hint) == (message, hint)


@every("sql", [
    WHERE + joined(64, "age > {}", " AND "),
    WHERE + f"age IN ({joined(1000, '{}', ',')})",
    WHERE + nested(30, "({})", "age > 3"),
    "SELECT ward, COUNT(*) AS n FROM visits GROUP BY ward HAVING " + joined(120, "COUNT(*) > {}", " AND "),
    BY_PERSON.format(joined(16, "COUNT(*) FILTER (WHERE age > {}) > 1", " AND ")),
    "SELECT AVG(age) FROM " + nested(4, "(SELECT age + age AS age FROM {})", "visits"),
    "SELECT REPLACE(REPLACE(REPLACE(ward, 'e', 'ee'), 'u', 'ue'), 'i', 'ie') AS g, COUNT(*) FROM visits GROUP BY g",
    WHERE + "NULLIF(NULLIF(age, 1), 2) > 3",
])  # fmt: skip
def test_what_is_within_the_limits_is_planned(sql: str) -> None:
    script(sql, OFFER)


def test_the_last_resort_says_what_is_too_large() -> None:
    with (
        pytest.raises(SqlError, match="the question is too large: values: 1,001 items, at most 1,000"),
        too_large_refused(),
    ):
        OneOf(column="age", values=tuple(map(str, range(1001))))
    with pytest.raises(SqlError, match="the question is too large: it is nested too deeply"), too_large_refused():
        raise RecursionError
