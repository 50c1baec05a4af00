"""The table is whole, the page shows all of it, and the judge finds what it must."""

from dataclasses import replace

import pytest

from tests.faults.inflict import INFLICTED
from tests.faults.judge import Seen, judge
from tests.faults.lane import Said
from tests.faults.page import PAGE, STATES, rows_of
from tests.faults.soak import FILES, MEMORY, Measure, Series
from tests.faults.table import CASES, CEDAR, EVIDENCE, FAULTS, SHARE, SILOS, Case, Fault, State, states_of

ALL = dict.fromkeys(SILOS, "answered")
CHARGED = dict.fromkeys(SILOS, 1.0)
NOTHING = dict.fromkeys(SILOS, 0.0)
TWICE = dict.fromkeys(SILOS, 2.0)
COUNTS = dict.fromkeys(SILOS, 40)
GOOD = Said(1.0, 200, ALL, status=0)
FREE = replace(GOOD, notes=("asked before and not opened: this is its answer, at no second price",))
ERROR = Said(5.0, error="no answer: too few; missing: cedar", hint="ask again when they are back", status=1)
CASE = Case(Fault("silo", "kill -9"), State("ready"))
FINE = Seen(CASE, GOOD, GOOD, CHARGED, TWICE, COUNTS, 200)


def test_every_fault_can_be_inflicted_and_no_case_is_there_twice() -> None:
    assert len(set(CASES)) == len(CASES)
    assert set(SHARE) <= set(CASES)
    assert not [one for one in FAULTS if not any(one.kind.startswith(begin) for begin in INFLICTED)]


def test_the_page_has_a_cell_for_every_case() -> None:
    rows = rows_of(PAGE.read_text())
    for fault in FAULTS:
        cells = dict(zip(STATES, rows[str(fault)], strict=True))
        assert {state for state, cell in cells.items() if cell} == set(states_of(fault)) & set(STATES), fault


@pytest.mark.parametrize(
    ("seen", "result", "wrong"),
    [
        (FINE, "answer", ""),
        (replace(FINE, said=replace(GOOD, count=199)), "answer", "the answer is 199, not 200"),
        (replace(FINE, charged=CHARGED | {"birch": 2.0}), "answer", "birch charged 2 times"),
        (replace(FINE, charged=CHARGED | {"birch": 0.0}), "answer", "birch charged 0 times for its answer"),
        (replace(FINE, said=replace(GOOD, waited_s=131)), "answer", "waited 131 s"),
        (replace(FINE, said=replace(GOOD, progress_s=2.1)), "answer", "nothing was shown for 2.1 s"),
        (replace(FINE, said=replace(GOOD, count=160, silos=ALL | {CEDAR: "missing"})), "without", ""),
        (
            replace(FINE, said=replace(GOOD, count=160, silos=ALL | {"birch": "missing"})),
            "without",
            "the answer lacks birch",
        ),
        (replace(FINE, said=ERROR, charged=NOTHING, charged_again=CHARGED), "error", ""),
        (replace(FINE, said=ERROR), "charged", "charged without an answer: aspen 1"),
        (replace(FINE, said=ERROR, again=FREE, charged_again=CHARGED), "again", ""),
        (replace(FINE, said=ERROR, again=FREE), "again", "with the same command again"),
        (replace(FINE, said=replace(ERROR, error="unexpected KeyError"), charged=NOTHING), "error", "is not clear"),
        (replace(FINE, said=replace(ERROR, hint=""), charged=NOTHING), "error", "no remedy"),
        (replace(FINE, said=replace(ERROR, waited_s=31.0), charged=NOTHING), "error", "waited 31 s, at most 30"),
        (replace(FINE, again=ERROR), "answer", "the next command has no answer"),
        (replace(FINE, said=Said(1.0), again=FREE, charged_again=CHARGED), "again", ""),
    ],
)
def test_the_judge(seen: Seen, result: str, wrong: str) -> None:
    verdict = judge(seen)
    assert verdict.result == result
    assert wrong in "; ".join(verdict.wrong) if wrong else not verdict.wrong


def test_an_aggregator_may_cost_a_charge_if_it_is_said_and_a_silo_may_not() -> None:
    lost = replace(ERROR, error="aspen charged this request before, and no aggregator has its answer")
    seen = replace(FINE, case=Case(Fault("aggregator", "kill -9"), State("agree")), said=lost)
    assert (judge(seen).result, judge(seen).wrong) == ("charged", ())
    assert judge(replace(seen, said=ERROR)).wrong
    assert judge(replace(seen, case=CASE)).wrong
    assert Case(Fault("aggregator", "gone"), EVIDENCE) in CASES


@pytest.mark.parametrize(
    ("measure", "each", "is_flat"), [(MEMORY, 0.1, True), (MEMORY, 1.0, False), (FILES, 0.2, False)]
)
def test_what_rises_is_not_flat(measure: Measure, each: float, is_flat: bool) -> None:
    warming = [100.0, 150.0, 180.0, 190.0]
    series = Series("x", measure, warming + [200.0 + each * step for step in range(26)])
    assert series.is_flat is is_flat
