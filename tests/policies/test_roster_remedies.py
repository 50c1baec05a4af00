"""A silo that refuses a roster says with how many silos, or which max_missing, it would not: each remedy is applied."""

import re
from itertools import product

from policies.budget.ledger import Spending
from policies.decision.decide import decide
from policies.document.policy import Policy
from policies.requests.denials import Denial
from tests.cases import every
from tests.harness.example_policy import NOW, Edit, policy, request

NAMES = ("east", *(f"silo-{number:02}" for number in range(30)))


def changed(least: int, colluding: int, missing: int) -> Policy:
    return policy(
        Edit("min_silos      = 3", f"min_silos      = {least}"),
        Edit("max_colluding = 1", f"max_colluding = {colluding}"),
        Edit("max_missing   = 1", f"max_missing   = {missing}"),
    )


def of_roster(judging: Policy, asked: int) -> list[Denial]:
    found = decide(judging, request(silos=tuple(sorted(NAMES[:asked]))), bytes(32), Spending(0), NOW)
    return [one for one in found if one.code == "ROSTER"]


@every("least, colluding, missing, asked", list(product((3, 5, 6), (1, 2), (0, 1, 2), (1, 2, 3, 4, 6))))
def test_the_remedy_of_a_roster_that_is_too_small_works(least: int, colluding: int, missing: int, asked: int) -> None:
    judging = changed(least, colluding, missing)
    denials = of_roster(judging, asked)
    if not denials:
        return
    remedy = denials[0].remedy
    needed, borne = re.search(r"ask (\d+) silos or more", remedy), re.search(r"for max_missing = (\d+)", remedy)
    assert needed is not None
    assert not of_roster(judging, int(needed[1]))
    assert of_roster(judging, int(needed[1]) - 1)
    if borne is not None:
        assert int(borne[1]) < missing
        assert not of_roster(changed(least, colluding, int(borne[1])), asked)
