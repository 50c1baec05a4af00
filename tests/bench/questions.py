"""Whether a thousand random questions have DuckDB's answers, without noise.

Run: python -m tests.bench.questions
"""

import sys
import tempfile
import time
from pathlib import Path

from analyst.reports import scenarios
from tests.bench.figures import publish
from tests.questions.compare import asked
from tests.questions.data import federation

QUESTIONS, RUNS = 1_000, 5


def main() -> None:
    scenarios.DRAWS = scenarios.LEAST_DRAWS // 10  # of intervals, which nothing here reads
    with tempfile.TemporaryDirectory() as folder:
        of = federation(Path(folder))
        started, each = time.process_time(), QUESTIONS // RUNS
        outcomes = [asked(of, range(first, first + each)) for first in range(0, QUESTIONS, each)]
        spent = time.process_time() - started
    for outcome in outcomes:
        print(outcome.in_words(), *outcome.wrong, sep="\n", file=sys.stderr)
    publish("random_questions_accepted", [100 * one.equal / each for one in outcomes], "%", aim="at least 90")
    publish("random_questions_wrong", [len(one.wrong) for one in outcomes], "questions", aim="0")
    publish("random_questions_figures", [one.figures for one in outcomes], "figures")
    publish("random_questions_time", [1000 * spent / QUESTIONS], "ms a question")
    sys.exit(1 if any(one.wrong for one in outcomes) else 0)


if __name__ == "__main__":
    main()
