"""What a silo contributes to a round of a key search: right, and no more of one person than the noise is made for."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from policies.budget.accountant import charge
from policies.requests.calibration import spreads_of
from policies.requests.key_search import FIRST, KeySearch, KeyShape
from policies.requests.request import Request
from silo_node.data import answer
from silo_node.data.coded import Bools, Members, Rows, Run
from silo_node.data.lots import SECRET_BYTES, Lots
from silo_node.data.prefixes import counted
from tests.harness.example_policy import REGION, request, table
from tests.rounds.computation_examples import EXAMPLES

SEED = 20_261_130
NEIGHBOURS = 10_000
Cell = tuple[int, str | None]  # the place of a person, and what the cell holds


def asked(shape: KeyShape, *prefixes: str, max_silos: int = 1) -> Request:
    plan = KeySearch(run=bytes(16), step=len(prefixes[0]), column="region", shape=shape, prefixes=prefixes)
    return request(table=table(columns=(REGION,), max_silos=max_silos), plan=plan)


def rows_of(cells: Sequence[Cell], persons: int, first_person: int = 0, is_usable: Bools | None = None) -> Rows:
    texts = tuple(dict.fromkeys(text for _, text in cells if text is not None))
    codes = np.array([-1 if text is None else texts.index(text) for _, text in cells], np.int32)
    person = np.array([one for one, _ in cells], np.int64)
    run = Run(0, 0, len(cells))
    return Rows(person, persons, (run,), {("text", "region"): Members(codes, texts)}, first_person, is_usable)


def vector(
    request: Request, rows: Rows, is_in: Bools | None = None, secret: int = 0, max_groups: int | None = None
) -> npt.NDArray[np.int64]:
    (found,) = counted(rows, request, is_in, Lots(secret.to_bytes(SECRET_BYTES, "big")), max_groups)
    return found


def counted_plainly(request: Request, cells: Sequence[Cell]) -> npt.NDArray[np.int64]:
    """Return the number of persons by slot, as a person who reads the definition counts them."""
    search = request.plan.search
    assert search is not None
    found = defaultdict[tuple[str, str], set[int]](set)
    for person, text in cells:
        if text and len(text) <= search.shape.length and set(text) <= set(search.shape.alphabet):
            found[text[: search.step], text[search.step : search.step + 1]].add(person)
    ends = [*search.shape.alphabet, *([""] if search.step else [])]
    return np.array([len(found[prefix, end]) for prefix in search.prefixes for end in ends], np.int64)


def drawn(chance: np.random.Generator, persons: int, most_rows: int, alphabet: str) -> list[Cell]:
    """Return cells of persons: keys that share prefixes, keys of any length, what is no key, and missing cells."""
    cells = list[Cell]()
    for person in range(persons):
        for _ in range(int(chance.integers(0, most_rows + 1))):
            letters = "".join(alphabet[int(place)] for place in chance.integers(0, len(alphabet), 4))
            text = letters[: int(chance.integers(0, 5))]
            cells.append((person, None if chance.random() < 0.1 else text + ("?" if chance.random() < 0.1 else "")))
    return cells


def some_round(chance: np.random.Generator, max_silos: int = 1) -> Request:
    alphabet = "AB" if chance.random() < 0.5 else "ABC"
    shape = KeyShape(alphabet=alphabet, length=3, most=int(chance.integers(1, 4)))
    step = int(chance.integers(0, 3))
    every = sorted({"".join(alphabet[int(place)] for place in chance.integers(0, len(alphabet), step)) for _ in "four"})
    return asked(shape, *(every if step else FIRST), max_silos=max_silos)


def test_persons_are_counted_by_prefix_and_each_once() -> None:
    chance = np.random.default_rng(SEED)
    for _ in range(300):
        request = some_round(chance)
        cells = drawn(chance, 12, 4, "ABC")
        search = request.plan.search
        assert search is not None
        many = request.model_copy(
            update={"plan": search.model_copy(update={"shape": search.shape.model_copy(update={"most": 50})})}
        )
        assert (vector(many, rows_of(cells, 12)) == counted_plainly(many, cells)).all()


@pytest.mark.slow
def test_one_more_person_changes_a_round_by_no_more_than_its_sensitivity() -> None:
    """10^4 neighbours: somebody with any keys, of which many share a prefix, is in one of the two and not in the other.

    Both draw by the same lots, as the promise is for every outcome of the lots of others.
    """
    chance, reached = np.random.default_rng(SEED), set[int]()
    for number in range(NEIGHBOURS):
        request = some_round(chance)
        others, more = drawn(chance, 3, 3, "ABC"), drawn(chance, 1, 9, "ABC")
        rows = [*others, *((3, text) for _, text in more)]
        with_one = vector(request, rows_of(rows, 4), secret=number)
        without = vector(request, rows_of(others, 4), secret=number)
        (extent,) = request.plan.statistics(request.table).values()
        squared = int(((with_one - without) ** 2).sum())
        assert squared <= extent.squared
        assert ((with_one - without) >= 0).all()
        if squared == extent.squared:
            reached.add(squared)
    assert reached == {1, 2, 3}, "the bound is reached, for every number of keys that may count"


@pytest.mark.slow
def test_a_person_known_to_two_silos_is_within_what_the_request_is_priced_for() -> None:
    chance, reached = np.random.default_rng(SEED), 0.0
    for number in range(NEIGHBOURS // 2):
        request = some_round(chance, max_silos=2)
        (statistic, extent), *_ = request.plan.statistics(request.table).items()
        shift = sum(
            vector(request, rows_of(drawn(chance, 1, 9, "ABC"), 1), secret=2 * number + silo) for silo in (0, 1)
        )
        squared = int((np.asarray(shift) ** 2).sum())
        spread = spreads_of(request.table, request.plan, request.micro_rho)[statistic]
        # The price in rho of a shift, from the noise of the whole sum: it never exceeds what was signed.
        rho = (squared << 2 * spread.scale_bits) / (2 * spread.variance)
        assert rho <= request.micro_rho / 1e6
        assert squared <= request.table.max_silos**2 * extent.squared
        reached = max(reached, rho / (request.micro_rho / 1e6))
        assert charge(request, 2) <= request.micro_rho
    assert reached == pytest.approx(1, abs=1e-5), "nor is the bound larger than it must be"


def test_it_counts_in_parts_as_in_one() -> None:
    chance = np.random.default_rng(SEED)
    for number in range(100):
        request, cells = some_round(chance), drawn(chance, 10, 6, "ABC")
        parts = [
            rows_of([(person - first, text) for person, text in cells if first <= person < first + 5], 5, first)
            for first in (0, 5)
        ]
        added = answer.added([vector(request, part, secret=number)] for part in parts)
        assert (added[0] == vector(request, rows_of(cells, 10), secret=number)).all()


def test_only_usable_rows_of_persons_who_are_in_count() -> None:
    shape = KeyShape(alphabet="AB", length=2, most=2)
    cells = [(0, "A"), (0, "B"), (1, "A"), (2, "B")]
    request = asked(shape, *FIRST)
    assert vector(request, rows_of(cells, 3)).tolist() == [2, 2]
    assert vector(request, rows_of(cells, 3), np.array([True, False, True])).tolist() == [1, 2]
    usable = np.array([True, False, True, True])
    assert vector(request, rows_of(cells, 3, is_usable=usable)).tolist() == [2, 1]
    assert vector(request, rows_of([], 3)).tolist() == [0, 0]
    assert vector(request, rows_of([(0, None), (1, "?")], 3)).tolist() == [0, 0]


def test_a_policy_may_let_fewer_groups_of_a_person_in() -> None:
    request = asked(KeyShape(alphabet="ABCD", length=1, most=4), *FIRST)
    cells = [(0, text) for text in "ABCD"]
    assert vector(request, rows_of(cells, 1)).sum() == 4
    assert vector(request, rows_of(cells, 1), max_groups=1).sum() == 1


def test_whose_keys_count_is_drawn_anew_for_each_request() -> None:
    request = asked(KeyShape(alphabet="ABCD", length=1, most=1), *FIRST)
    cells = [(person, text) for person in range(4_000) for text in "ABCD"]
    found = vector(request, rows_of(cells, 4_000))
    assert found.sum() == 4_000
    assert np.abs(found - 1_000).max() < 5 * 28
    assert (found != vector(request, rows_of(cells, 4_000), secret=1)).any()


def test_nothing_but_a_search_is_counted_so() -> None:
    (question, *_) = EXAMPLES["query"]
    with pytest.raises(TypeError, match="not query"):
        counted(rows_of([], 1), question, None, Lots(), None)
