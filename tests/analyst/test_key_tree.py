"""Which prefixes survive a round of a key search, and which keys enter: by the noise that all silos add together."""

from collections import Counter
from statistics import NormalDist

import numpy as np
import pytest

from analyst.finding.tree import (
    BETA,
    MISSED,
    limits_of,
    most_prefixes,
    next_round,
    read_round,
    surely_found,
)
from crypto.noise import discrete_gaussian
from policies.requests.calibration import spreads_of
from policies.requests.key_search import FIRST, MAX_PREFIXES, KeySearch, KeyShape
from tests.harness.example_policy import REGION, table

SHAPE = KeyShape(alphabet="0123456789ABCDEFGHIJ", length=4, most=2)
TABLE = table(columns=(REGION,))
SEED = 20_261_130


def first(shape: KeyShape = SHAPE) -> KeySearch:
    return KeySearch(run=bytes(16), step=0, column="region", shape=shape, prefixes=FIRST)


def searched(
    counts: Counter[str], sd: float, chance: np.random.Generator, min_cohort: int = 0, shape: KeyShape = SHAPE
) -> set[str]:
    """Return the keys that a whole search finds, with normal noise, among persons who have one key each."""
    plan: KeySearch | None = first(shape)
    found = set[str]()
    while plan is not None:
        slots = plan.slots_of(counts)
        exact = np.zeros(plan.slots)
        for slot, count in zip(slots, counts.values(), strict=True):
            if slot >= 0:
                exact[slot] += count
        read = read_round(plan, exact + chance.normal(0, sd, plan.slots), sd, min_cohort, 100)
        found |= {one.key for one in read.found}
        plan = next_round(plan, read)
    return found


def test_each_key_is_decided_once_by_the_count_of_its_own_full_string() -> None:
    shape = KeyShape(alphabet="AB", length=2, most=1)
    one = first(shape)
    assert list(one.extensions()) == [("A", False), ("B", False)]
    two = one.following(("B", "A"))
    assert list(two.extensions()) == [("AA", True), ("AB", True), ("A", True), ("BA", True), ("BB", True), ("B", True)]
    assert list(two.slots_of(["AB", "B", "", "ABA", "C", "BB"])) == [1, 5, -1, -1, -1, 4]
    assert list(one.slots_of(["AB", "B", "", "ABA", "C", "BB"])) == [0, 1, -1, -1, -1, 1]
    assert list(one.following(("A",)).slots_of(["B", "BB", "AA"])) == [-1, -1, 0]


def test_a_key_that_nobody_has_enters_with_probability_beta_at_most() -> None:
    """The chance per candidate adds up to BETA over all candidates of all rounds, whatever survives."""
    plan, total = first(), 0.0
    for _ in range(SHAPE.length):
        limits, sd = limits_of(plan, 7.0, 0), 7.0
        keys = sum(is_key for _, is_key in plan.extensions())
        if limits.enter is not None:
            total += keys * NormalDist(0, sd).cdf(-limits.enter)
        if plan.step + 1 < plan.steps:
            plan = plan.following(tuple(sorted({text for text, is_key in plan.extensions() if not is_key}))[:300])
    assert total == pytest.approx(BETA * (SHAPE.length - 1) / SHAPE.length)


def test_whole_searches_where_nobody_has_a_key_find_none() -> None:
    chance = np.random.default_rng(SEED)
    runs = 3_000
    false = sum(bool(searched(Counter(), 5.0, chance)) for _ in range(runs))
    # The chance of BETA makes 3 of 3,000 such runs; 15 or more have a probability below 1e-6.
    assert false < 15


def test_a_prefix_that_nobody_has_survives_once_a_round_on_average() -> None:
    plan, chance, runs = first().following(tuple("0123456789")), np.random.default_rng(SEED), 400
    counts = [len(read_round(plan, chance.normal(0, 5.0, plan.slots), 5.0, 0, 1000).survivors) for _ in range(runs)]
    assert 0.7 < np.mean(counts) < 1.3


def test_a_key_of_as_many_persons_as_is_said_is_found() -> None:
    chance, runs = np.random.default_rng(SEED), 400
    for sd, min_cohort in ((5.0, 0), (2.0, 30)):
        least = surely_found(SHAPE, sd, min_cohort, 100)
        others = {f"{number:04d}": 200 for number in range(0, 3000, 333)}
        found = [searched(Counter({**others, "AB": int(least) + 1}), sd, chance, min_cohort) for _ in range(runs)]
        # MISSED of 400 runs is 20, and 45 have a probability below 1e-6.
        assert sum("AB" not in one for one in found) < 45
        assert MISSED * runs == 20
        assert all(set(others) <= one for one in found)


def test_no_key_below_the_minimum_cohort_enters() -> None:
    chance = np.random.default_rng(SEED)
    small = Counter({"A0": 40, "B": 400})
    assert searched(small, 1.0, chance, min_cohort=100) == {"B"}
    assert searched(small, 1.0, chance, min_cohort=10) == {"A0", "B"}


def test_the_largest_prefixes_survive_where_there_are_too_many() -> None:
    plan = first()
    counts = np.arange(plan.slots, dtype=np.float64) * 100
    read = read_round(plan, counts, 1.0, 0, 3)
    assert read.survivors == ("H", "I", "J")
    assert (read.limits.enter, read.found) == (None, ())


def test_a_round_has_no_more_slots_than_an_answer_may_have() -> None:
    wide = KeyShape(alphabet="".join(map(chr, range(ord("!"), ord("~") + 1))), length=2, most=1)
    assert most_prefixes(SHAPE, 1000, "masking") == 1000 // 21
    assert most_prefixes(SHAPE, 20, "masking") == 0
    assert most_prefixes(wide, 10**9, "masking") == MAX_PREFIXES
    assert most_prefixes(wide, 10**9, "shares") == 100_000 // 95
    assert most_prefixes(SHAPE, 10**9, "masking") * 21 < 1_000_000


def test_the_noise_of_all_silos_passes_the_threshold_as_rarely_as_normal_noise() -> None:
    """The thresholds are made for normal noise; what silos add is a sum of discrete Gaussians."""
    plan = first()
    ((_, spread),) = spreads_of(TABLE, plan, 400_000).items()
    silos, slots = 5, 2_000_000
    units = discrete_gaussian(slots, spread.variance, silos).astype(np.int64)
    for _ in range(silos - 1):
        units += discrete_gaussian(slots, spread.variance, silos)
    sd = spread.variance**0.5
    for chance in (0.1, 1e-3, 1e-5):
        beyond = int((units >= -NormalDist().inv_cdf(chance) * sd).sum())
        assert abs(beyond - chance * slots) < 5 * (chance * slots) ** 0.5
