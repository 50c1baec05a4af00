"""No person changes a sum by more than the price assumes; `make bench` tries 10,000 pairs a kind and more."""

import pytest

from silo_node.data.bounding import chosen
from silo_node.data.lots import SECRET_BYTES
from tests.questions.data import federation
from tests.questions.sensitivity import KINDS, Found, search, try_out

EXAMPLES = 3
REACHED = 0.99


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_no_person_changes_a_sum_by_more_than_the_price_assumes(
    kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    found = search(tmp_path_factory.mktemp("neighbours"), kind, EXAMPLES)
    assert found.pairs >= 100
    assert found.of_price <= 1


@pytest.mark.slow
def test_the_worst_case_is_among_those_that_are_tried(tmp_path_factory: pytest.TempPathFactory) -> None:
    """So the search would find a sensitivity that is too small, by however little."""
    found = search(tmp_path_factory.mktemp("neighbours"), "several in one request", 12)
    assert min(found.reached.values()) > REACHED, found.reached
    assert found.of_price > REACHED


def test_a_row_too_many_is_found(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    home, one = tmp_path_factory.mktemp("neighbours"), [{"kind": "a1", "age": 110}]
    people = ([*one * 9], one)
    try_out(federation(home), home, "rows", (people, people), bytes(SECRET_BYTES), Found())
    monkeypatch.setattr(
        "silo_node.data.answer.chosen",
        lambda owner, owners, most, lots: chosen(owner, owners, most + 1, lots),
    )
    with pytest.raises(AssertionError):
        try_out(federation(home), home, "rows", (people, people), bytes(SECRET_BYTES), Found())
