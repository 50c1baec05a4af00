"""Random questions are answered as DuckDB answers them; `make bench` asks a thousand (tests/bench/questions.py)."""

import pytest

from analyst.reports import scenarios
from tests.questions.clauses import Draw
from tests.questions.compare import Outcome, asked
from tests.questions.data import federation
from tests.questions.whole import KINDS, question

QUESTIONS = 200
LEAST_ACCEPTED = 0.9


@pytest.mark.slow
def test_random_questions_have_the_answers_of_duckdb(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scenarios, "DRAWS", scenarios.LEAST_DRAWS // 10)  # of intervals, which nothing here reads
    outcome = asked(federation(tmp_path_factory.mktemp("questions")), range(QUESTIONS))
    print(outcome.in_words())
    assert not outcome.wrong, "\n".join(outcome.wrong)
    assert outcome.equal >= LEAST_ACCEPTED * QUESTIONS, outcome.refused
    assert outcome.figures > 5 * QUESTIONS


def test_questions_are_the_same_each_time_and_of_all_kinds() -> None:
    assert [question(number) for number in range(20)] == [question(number) for number in range(20)]
    for make in KINDS:
        texts = {make(Draw(1, number)).text.ours for number in range(30)}
        assert len(texts) > 20, make.__name__


def test_a_wrong_answer_is_found(tmp_path_factory: pytest.TempPathFactory) -> None:
    """An answer of other rows than DuckDB's differs: the comparison can fail."""
    of = federation(tmp_path_factory.mktemp("questions"))
    wrong = Outcome()
    for number in range(12):
        made = question(number)
        wrong.add(number, made, of.truth(made.text.theirs.replace("COUNT(*) AS n", "COUNT(*) + 1 AS n")),
                  of.truth(made.text.theirs))  # fmt: skip
    assert len(wrong.wrong) == 12
