"""How long a question takes to plan, against the time to parse it alone: typical questions, and processor time.

Planning is all that happens before a question is signed: parsing, the plan, the expressions over public values, and the
trial of what is computed after the answer. Databases that a process keeps are open already.

Run: python -m tests.bench.planning
"""

import time
from collections.abc import Callable, Mapping
from functools import partial

import sqlglot

from analyst.reports.rehearsal import rehearsed
from analyst.sql.draft import Planned
from analyst.sql.offer import Offer
from analyst.sql.plan import plan
from tests.bench.figures import publish
from tests.harness.example_policy import offer, policy

RUNS, REPEATS = 9, 10
AIM = "ratio 10"
QUESTIONS: Mapping[str, str] = {
    "count": "SELECT COUNT(*) FROM visits",
    "groups": "SELECT ward, COUNT(*) AS n, AVG(age) AS a FROM visits WHERE age >= 18 AND smoker GROUP BY ward",
    "correlation": "SELECT CORR(age, cost) AS r FROM visits",
    "having_order": "SELECT ward, COUNT(*) AS n, AVG(age) AS a FROM visits GROUP BY ward HAVING COUNT(*) > 40"
    " ORDER BY n DESC LIMIT 2",
    "ratio": "SELECT SUM(cost) / SUM(stay) AS r FROM visits",
    "window": "SELECT ward, COUNT(*) AS n, RANK() OVER (ORDER BY COUNT(*) DESC) AS r FROM visits GROUP BY ward",
    "case": "SELECT CASE WHEN age < 50 THEN 'young' WHEN age < 65 THEN 'middle' ELSE 'old' END AS band,"
    " COUNT(*) AS n FROM visits GROUP BY band",
    "bucket": "SELECT age // 10 AS decade, COUNT(*) AS n FROM visits GROUP BY decade",
    "bucket_of_decimals": "SELECT FLOOR(cost / 500) * 500 AS c, COUNT(*) AS n FROM visits GROUP BY c",
    "like": "SELECT COUNT(*) FROM visits WHERE ward LIKE 's%'",
    "substring": "SELECT SUBSTR(ward, 1, 1) AS w, COUNT(*) AS n FROM visits GROUP BY w",
    "filter": "SELECT AVG(age) FILTER (WHERE smoker) AS yes, AVG(age) FILTER (WHERE NOT smoker) AS no FROM visits",
    "measure": "SELECT AVG(cost / NULLIF(age, 0)) AS r FROM visits",
    "persons": "SELECT COUNT(*) FROM (SELECT patient_id FROM visits GROUP BY patient_id HAVING COUNT(*) > 1)",
    "cte": "WITH t AS (SELECT ward, COUNT(*) AS n FROM visits GROUP BY ward) SELECT AVG(n) AS a FROM t",
}


def main() -> None:
    offered = offer(policy())
    for name, question in QUESTIONS.items():
        parsing, planning = list[float](), list[float]()
        planned(question, offered)
        for _ in range(RUNS):
            parsing.append(taken(partial(sqlglot.parse_one, question, dialect="duckdb")))
            planning.append(taken(partial(planned, question, offered)))
        publish(f"plan_{name}", planning, "ms", "the time to parse it alone", parsing, AIM)


def planned(question: str, offered: Offer) -> Planned:
    return rehearsed(plan(question, offered), question)


def taken(work: Callable[[], object]) -> float:
    """Return the processor time of some work in milliseconds."""
    started = time.process_time()
    for _ in range(REPEATS):
        work()
    return 1000 * (time.process_time() - started) / REPEATS


if __name__ == "__main__":
    main()
