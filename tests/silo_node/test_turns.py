"""Turns to compute: one at a time, no analyst's questions hold another's up, and none is lost."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from aggregator.driver import STEP_TIMEOUT_S
from policies.units import MAX_BUSY_S, MAX_SEND_S, UNDECLARED_S
from silo_node.errors import SiloError
from silo_node.serve import step_seconds
from silo_node.turns import Turns
from tests.harness.inside import waiting_in
from tests.harness.waiting import until

SOON_S = 20.0


def order_of(turns: Turns, waiting: list[str]) -> list[str]:
    """Let these wait, in this order, while mallory has her turn; return the order in which they had theirs."""
    had, going = list[str](), threading.Event()

    def have(who: str) -> None:
        with turns.taken(who, SOON_S):
            had.append(who)
            if len(had) == 1:
                assert going.wait(SOON_S)

    with ThreadPoolExecutor(1 + len(waiting)) as pool:
        pool.submit(have, "mallory")
        until(lambda: bool(had))
        for number, who in enumerate(waiting):
            pool.submit(have, who)
            until(lambda number=number: waiting_in(turns) > number)  # type: ignore[misc]
        going.set()
    return had[1:]


def test_an_analyst_s_many_questions_hold_nobody_else_up() -> None:
    assert order_of(Turns(), ["mallory"] * 5 + ["ana"]) == ["ana"] + ["mallory"] * 5


def test_whoever_had_a_turn_longest_ago_is_next_and_the_first_of_equals() -> None:
    turns = Turns()
    assert order_of(turns, ["mallory", "eve", "ana", "eve"]) == ["eve", "ana", "mallory", "eve"]
    assert order_of(turns, ["eve", "mallory", "ana"]) == ["ana", "eve", "mallory"]


def test_a_wait_ends_and_leaves_nothing_behind() -> None:
    turns = Turns()
    with turns.taken("mallory", SOON_S), pytest.raises(SiloError, match=r"others computed for 0.01 s"):
        turns.taken("ana", 0.01).__enter__()
    with turns.taken("ana", 0.0):
        pass


@pytest.mark.parametrize("longest_s", [1, UNDECLARED_S, 300])
def test_no_silo_gives_a_contribution_up_before_its_aggregator_does(longest_s: int) -> None:
    """Hope: others keep a silo busy until it ends the step of a round that has been charged."""
    assert step_seconds("contribute", longest_s) > STEP_TIMEOUT_S + longest_s + MAX_BUSY_S
    assert step_seconds("learn", longest_s) > STEP_TIMEOUT_S + MAX_SEND_S, "a sum that arrives at the slowest rate"
    assert step_seconds("agree", longest_s) < step_seconds("learn", longest_s)


def test_a_computing_that_fails_gives_its_turn_back() -> None:
    turns = Turns()
    with pytest.raises(ZeroDivisionError), turns.taken("ana", SOON_S):
        raise ZeroDivisionError
    with turns.taken("eve", 0.0):
        pass
