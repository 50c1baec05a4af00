"""Every function that DuckDB lists is answered, or refused with a place, a reason and a way out: docs/sql.md section 7.

Aggregates, windows and macros are all called, and so is whatever the page lists; of the other functions of single
values, which are refused alike, every eighth.
"""

import re
import time
from pathlib import Path

import pytest

from tests.questions.functions import PLACES, Called, called, outcome, problems

PAGE = Path(__file__).resolve().parents[2] / "docs" / "sql.md"
ROWS = {
    "measure": "figures of rows",
    "where": "`WHERE`",
    "group": "`GROUP BY`",
    "after": "after the answer",
    "window": "windows over groups",
}
SECONDS = 2.0  # of processor time, for one question


def listed() -> dict[str, set[str]]:
    """Return the functions that the page says are answered, by place."""
    section = PAGE.read_text().partition("## 7.")[2]
    return {
        place: set(re.search(rf"^\| {re.escape(title)} \| (.*) \|$", section, re.M)[1].replace("`", "").split(", "))  # type: ignore[index]
        for place, title in ROWS.items()
    }


def chosen(known: set[str]) -> list[Called]:
    return [one for place, one in enumerate(called()) if one.kind != "scalar" or one.name in known or place % 8 == 0]


@pytest.mark.slow
def test_each_function_is_answered_where_the_page_says_so_and_refused_elsewhere() -> None:
    pages, wrong = listed(), list[str]()
    functions = chosen(set().union(*pages.values()))
    assert set().union(*pages.values()) <= {one.name for one in functions}
    for one in functions:
        for place, frame in PLACES.items():
            if place == "window" and one.kind not in ("window", "aggregate"):
                continue
            question = frame.format(rows=one.rows, figures=one.figures)
            began = time.process_time()
            refused = outcome(question)
            if time.process_time() - began > SECONDS:
                wrong.append(f"{question}: takes too long")
            if (refused is None) != (one.name in pages[place]):
                wrong.append(f"{question}: {refused or 'answered'}, which the page does not say")
            wrong += [f"{question}: {problem}: {refused}" for problem in (problems(refused) if refused else ())]
    assert not wrong, "\n".join(wrong)
    assert len(functions) > 300


@pytest.mark.parametrize(
    ("question", "place"),
    [
        ("SELECT ward,\n  COUNT(*) AS n,\n  acosh(COUNT(*)) AS x FROM visits GROUP BY ward", "at line 3, column 3"),
        ("SELECT COUNT(*) AS n, COUNT(*) + 'x' AS x FROM visits", "at line 1, column 23"),
        ("SELECT 'acosh(' AS t, COUNT(*) + 1 AS n, acosh(COUNT(*)) AS x FROM visits", "at line 1, column 42"),
        ("SELECT ward, COUNT(*) AS n FROM visits GROUP BY ward ORDER BY date_part(n, ward)", "at line 1, column 63"),
        ("SELECT ward, COUNT(*) AS n, group_concat(COUNT(*)) OVER () AS x FROM visits GROUP BY ward",
         "at line 1, column 29"),
        ("SELECT COUNT(*) + 1 AS n, COUNT(*) + 2 AS n FROM visits", "at line 1, column 43"),
    ],
)  # fmt: skip
def test_what_cannot_be_computed_after_the_answer_has_its_place(question: str, place: str) -> None:
    refused = outcome(question)
    assert refused is not None
    assert place in refused.message, refused.message
    assert not list(problems(refused))
