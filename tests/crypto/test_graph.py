"""Whoever colludes and whoever is called dropped, within the bounds, the rest of the graph of masks is in one piece."""

from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from crypto.keys import derive
from crypto.rounds.bounds import why_infeasible
from crypto.rounds.committees import MIN_DEGREE, committee, committees, degree_of, quorum_of
from crypto.wire import MAX_SILOS

MANIFEST_HASH = derive(bytes(32), "a manifest")
HASHES = st.binary(min_size=32, max_size=32)
SIZES = st.integers(MIN_DEGREE + 2, MAX_SILOS)


def _names(silos: int) -> list[str]:
    return [f"silo-{number:03}" for number in range(silos)]


def _is_connected(found: Sequence[Sequence[int]], without: Iterable[int]) -> bool:
    left = set(range(len(found))) - set(without)
    reached, ahead = set[int](), [min(left)]
    while ahead:
        place = ahead.pop()
        if place not in reached:
            reached.add(place)
            ahead += [other for other in found[place] if other in left]
    return reached == left


def _ring_order(silos: int, manifest_hash: bytes) -> list[int]:
    """Return the places in the shuffled order that the protocol describes, found without the module under test."""
    names = _names(silos)
    return sorted(range(silos), key=lambda place: derive(manifest_hash, "graph", names[place]))


# The degree


@pytest.mark.parametrize("silos", [1, 2, 3, 4, 10, 32, 33])
def test_up_to_33_silos_the_graph_is_complete(silos: int) -> None:
    assert all(degree_of(silos, a, d) == silos - 1 for a in range(1, 30) for d in range(30))


def test_degree_does_not_grow_with_the_number_of_silos() -> None:
    assert {degree_of(silos, 1, 1) for silos in range(34, MAX_SILOS + 1)} == {MIN_DEGREE}
    assert {degree_of(silos, 20, 20) for silos in range(62, MAX_SILOS + 1)} == {60}


def test_no_committee_is_larger_than_messages_hold() -> None:
    assert why_infeasible(1000, 3, 1, 132) == ""
    assert degree_of(1000, 1, 132) + 1 == 397
    assert "need committees of 401, at most 400" in why_infeasible(1000, 3, 1, 133)
    assert why_infeasible(400, 3, 1, 133) == ""  # of 400 all are in one


@pytest.mark.parametrize(
    ("silos", "max_colluding", "max_missing", "degree"),
    [
        (120, 1, 0, 32),
        (120, 10, 10, 32),  # a committee of 33 without 10 is a quorum of 23
        (120, 10, 11, 34),
        (120, 20, 1, 32),
        (120, 21, 1, 32),  # 22 shares are no quorum of 33
        (120, 22, 1, 34),
        (120, 1, 39, 118),
        (120, 1, 40, 119),
        (400, 1, 39, 118),
        (400, 20, 120, 360),
        (100, 1, 1, 32),
        (100, 1, 10, 32),
        (100, 1, 33, 99),
        (1000, 1, 100, 300),
    ],
)
def test_degree_is_the_documented_one(silos: int, max_colluding: int, max_missing: int, degree: int) -> None:
    assert degree_of(silos, max_colluding, max_missing) == degree


@given(SIZES, st.integers(1, 120), st.integers(0, 120))
def test_degree_meets_its_conditions_and_no_lesser_one_does(silos: int, max_colluding: int, max_missing: int) -> None:
    def holds(degree: int) -> bool:
        quorum = quorum_of(degree + 1)
        return (
            degree > max_colluding + max_missing and quorum > max_colluding + 1 and degree + 1 - max_missing >= quorum
        )

    degree = degree_of(silos, max_colluding, max_missing)
    if degree < silos - 1:
        assert degree >= MIN_DEGREE
        assert degree % 2 == 0
        assert holds(degree)
    assert not any(holds(lesser) for lesser in range(MIN_DEGREE, degree, 2))


@given(SIZES, st.integers(1, 120), st.integers(0, 120))
def test_degree_grows_with_who_may_collude_or_be_missing(silos: int, max_colluding: int, max_missing: int) -> None:
    degree = degree_of(silos, max_colluding, max_missing)
    assert degree_of(silos, max_colluding + 1, max_missing) >= degree
    assert degree_of(silos, max_colluding, max_missing + 1) >= degree


# The committees


@pytest.mark.parametrize("silos", [1, 2, 3, 10, 33])
def test_complete_graph_has_one_committee(silos: int) -> None:
    assert committees(_names(silos), silos - 1, MANIFEST_HASH) == (tuple(range(silos)),) * silos


@settings(deadline=None)
@given(st.integers(4, 150), st.integers(1, 40), HASHES)
def test_committees_are_symmetric_and_of_one_size(silos: int, half: int, manifest_hash: bytes) -> None:
    degree = min(2 * half, silos - 1)
    found = committees(_names(silos), degree, manifest_hash)
    for place, members in enumerate(found):
        assert len(members) == degree + 1
        assert members == tuple(sorted(set(members))) == committee(_names(silos), degree, manifest_hash, place)
        assert place in members
        assert all(place in found[other] for other in members)


@settings(max_examples=30, deadline=None)
@given(SIZES, st.integers(1, 30), st.integers(0, 30), HASHES, st.data())
def test_no_colluding_and_missing_silos_cut_the_graph(
    silos: int, max_colluding: int, max_missing: int, manifest_hash: bytes, data: st.DataObject
) -> None:
    found = committees(_names(silos), degree_of(silos, max_colluding, max_missing), manifest_hash)
    gone = max_colluding + max_missing
    assume(gone < silos)
    # 1. Any of them.
    assert _is_connected(found, data.draw(st.permutations(range(silos)))[:gone])
    # 2. Those that hurt most: all but one of somebody's neighbours; two runs in the shuffled order.
    victim = data.draw(st.integers(0, silos - 1))
    assert _is_connected(found, [place for place in found[victim] if place != victim][:gone])
    order, half, at = _ring_order(silos, manifest_hash), gone // 2, data.draw(st.integers(0, silos - 1))
    opposite = (at + silos // 2) % silos
    runs = {order[(at + step) % silos] for step in range(half)}
    runs |= {order[(opposite + step) % silos] for step in range(gone - half)}
    assert _is_connected(found, runs)


def test_as_many_as_the_degree_can_cut_the_graph() -> None:
    # What the bound is worth: one more than a + d = k - 1, and a silo may stand alone.
    found = committees(_names(120), 32, MANIFEST_HASH)
    neighbours = [place for place in found[7] if place != 7]
    assert not _is_connected(found, neighbours)
    assert _is_connected(found, neighbours[1:])


@pytest.mark.parametrize(
    ("silos", "degree"),
    [(5, 2), (9, 4), (20, 6), (31, 12), (40, 32), pytest.param(101, 32, marks=pytest.mark.slow)],
)
def test_graph_is_as_connected_as_its_degree(silos: int, degree: int) -> None:
    networkx: Any = pytest.importorskip("networkx")
    graph = networkx.Graph()
    for place, members in enumerate(committees(_names(silos), degree, MANIFEST_HASH)):
        graph.add_edges_from((place, other) for other in members if other != place)
    assert {count for _, count in graph.degree} == {degree}
    assert networkx.node_connectivity(graph) == degree


@settings(max_examples=20, deadline=None)
@given(HASHES, HASHES)
def test_graph_depends_on_the_manifest_and_nothing_else(one: bytes, other: bytes) -> None:
    names = _names(120)
    found = committees(names, 32, one)
    assert found == committees(list(names), 32, one)
    assert (found == committees(names, 32, other)) == (one == other)


@settings(max_examples=20, deadline=None)
@given(HASHES, st.permutations(_names(40)))
def test_graph_does_not_depend_on_the_order_of_names(manifest_hash: bytes, shuffled: list[str]) -> None:
    names = _names(40)

    def by_name(order: list[str]) -> dict[str, set[str]]:
        found = committees(order, 6, manifest_hash)
        return {order[place]: {order[other] for other in members} for place, members in enumerate(found)}

    assert by_name(shuffled) == by_name(names)


def test_neighbours_are_next_to_each_other_in_the_shuffled_order() -> None:
    order = _ring_order(120, MANIFEST_HASH)
    found = committees(_names(120), 32, MANIFEST_HASH)
    assert order != sorted(order)
    for position, place in enumerate(order):
        assert set(found[place]) == {order[(position + step) % 120] for step in range(-16, 17)}
