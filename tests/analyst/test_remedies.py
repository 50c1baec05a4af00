"""What is said to help where too few silos take part does help, by the numbers: each remedy is applied."""

import re
from dataclasses import replace
from itertools import product

from analyst.remedies import Bearing, remedy_of, wider
from crypto.rounds.bounds import missing_borne, silos_needed, why_infeasible
from tests.cases import every

NAMES = tuple(f"silo-{number:02}" for number in range(40))
CONDITIONS = tuple(product((0, 3, 4, 5, 7), (1, 2, 3), (0, 1, 2, 3)))  # min_silos, max_colluding, max_missing


@every("asked, conditions", list(product(range(1, 14), CONDITIONS)))
def test_the_least_number_of_silos_and_the_largest_max_missing_are_those_of_brute_force(
    asked: int, conditions: tuple[int, int, int]
) -> None:
    feasible = [count for count in range(asked, 60) if not why_infeasible(count, *conditions)]
    assert silos_needed(asked, *conditions) == feasible[0]
    least, colluding, missing = conditions
    borne = [one for one in range(missing + 1) if not why_infeasible(asked, least, colluding, one)]
    assert missing_borne(asked, *conditions) == max(borne, default=None)


@every("conditions, asked, away, is_asked", list(product(CONDITIONS, range(1, 10), range(4), (True, False))))
def test_every_remedy_for_too_few_silos_works(
    conditions: tuple[int, int, int], asked: int, away: int, is_asked: bool
) -> None:
    """Asked are so many silos, and some of them are away; or others are, that would be asked if they answered."""
    bearing, names = Bearing(*conditions), NAMES[:asked]
    gone = names[max(0, asked - away) :] if is_asked else NAMES[asked : asked + away]
    present = [name for name in names if name not in gone]
    if not present or not bearing.why_not(asked, len(present)):
        return
    hint = remedy_of(bearing, names, present, gone)
    back = re.search(r"again when (?:(\d+) of )?(.*?) (?:is|are) back", hint)
    if back:
        count = int(back[1] or len(back[2].split(", ")))
        for number in range(count + 1):
            total = asked if is_asked else asked + number
            assert bool(bearing.why_not(total, len(present) + number)) is (number < count), hint
    borne, more = re.findall(r"max_missing = (\d+) in every policy", hint), re.findall(r"(\d+) more silo", hint)
    for most in borne:
        assert not replace(bearing, max_missing=int(most)).why_not(len(present), len(present)), hint
    for number in more:
        assert not bearing.why_not(len(present) + int(number), len(present) + int(number)), hint
    if not (back or borne or more):
        # Those that are left meet the conditions by themselves: a new request asks them alone.
        assert hint == "see `consilo silos`"
        assert not bearing.why_not(len(present), len(present))


def test_one_of_four_is_back_or_max_missing_is_0_or_there_is_a_fifth() -> None:
    left = ("east", "middle", "north")
    takes = "max_missing = 0 in every policy or 1 more silo"
    assert remedy_of(Bearing(3, 1, 1), left, left, ("south",)) == (
        f"ask again when south is back; if that will not be, it takes {takes}"
    )
    assert remedy_of(Bearing(3, 1, 1), left, left, ()) == f"it takes {takes}"
    two = "ask again when 1 of north, south is back; if that will not be, it takes 2 more silos"
    assert remedy_of(Bearing(3, 1, 1), (*left, "south"), left[:2], ("north", "south")) == two


@every("conditions, chosen, others", list(product(CONDITIONS, range(1, 6), range(6))))
def test_whoever_chose_too_few_silos_is_told_how_many_are_enough(
    conditions: tuple[int, int, int], chosen: int, others: int
) -> None:
    bearing = Bearing(*conditions)
    if not bearing.why_not(chosen, chosen):
        return
    hint = wider(bearing, NAMES[:chosen], NAMES[chosen : chosen + others])
    if found := re.search(r"ask (\d+) silos or more: ", hint):
        count = int(found[1])
        assert chosen < count <= chosen + others
        assert not bearing.why_not(count, count)
        assert bearing.why_not(count - 1, count - 1)
    else:
        assert all(bearing.why_not(count, count) for count in range(chosen, chosen + others + 1))
        assert "it takes" in hint
