"""docs/scale.md says what follows from its measured rates, and the arithmetic is what it says."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from crypto.wire import MAX_SILOS
from tests.bench.saturation import GIB, Load, Rates, computed, first, loads, memory, needed, rates_of, whole_bytes

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "scale.md").read_text()
EVEN = Rates(**{one.name: 1000.0 for one in fields(Rates)})  # 1 GB/s of everything


def by_thing(found: tuple[Load, ...]) -> dict[tuple[str, str], float]:
    return {(one.place, one.thing): one.seconds for one in found}


def test_the_page_says_what_follows_from_its_rates() -> None:
    assert computed(PAGE) == PAGE, "`python -m tests.bench.saturation` writes it anew"
    assert rates_of(PAGE).stream > 0


def test_the_loads_of_a_small_federation_are_those_by_hand() -> None:
    """Ten silos, a million values, 1 Gbit/s: a masked input has 4 MB, a sum 5 MB, and every rate is 1 GB/s."""
    assert by_thing(loads(10, 10**6, EVEN, 1)) == pytest.approx(
        {
            ("a silo", "network, out"): 0.032,  # 4 MB at 125 MB/s
            ("a silo", "processor, to contribute"): 0.004 + 10 * 0.004,  # nine pair masks, and its own
            ("a recipient", "network, in"): 0.04,
            ("a recipient", "processor, to check and open"): 2 * 0.005 + 10 * 0.004,
            ("a recipient", "processor, to load and keep a model"): 2 * 0.008,
            ("the gate", "network, in"): 0.32,
            ("the gate", "network, out"): 0.4,
            ("the gate", "processor, for streams"): 0.09,
            ("the shards", "processor"): 2 * 0.04,
            ("the shards", "disk"): 0.04,
        }
    )
    held = {"a silo": 0.012, "a recipient": 0.026, "the gate": 0.04, "the shards": 0.0126}
    assert memory(10, 10**6) == pytest.approx(held, rel=0.01)
    assert memory(10, 10**9)["the gate"] == pytest.approx(0.126, rel=0.01), "of a long vector, a window and a frame"


def test_the_bytes_of_a_sum_are_those_of_its_chunks() -> None:
    assert [whole_bytes(silos) for silos in (2, 256, 257, MAX_SILOS)] == [5, 5, 6, 6]


def test_neighbours_are_32_at_most_and_an_analyst_alone_gets_the_sum_of_many() -> None:
    few, many, longer = (by_thing(loads(*one, EVEN, 1)) for one in ((100, 10**6), (1000, 10**6), (100, 10**7)))
    for one in (few, many):
        assert one["a silo", "processor, to contribute"] == pytest.approx(0.004 * 34)
    for key, seconds in few.items():
        assert longer[key] == pytest.approx(10 * seconds), "all is linear in the values"
    assert many["the gate", "network, in"] == pytest.approx(10 * few["the gate", "network, in"])
    assert many["the gate", "network, out"] == pytest.approx(few["the gate", "network, out"] * 6 / 500)


def test_the_slowest_thing_at_the_aggregator_is_named_with_the_shards_that_end_it() -> None:
    assert (first(100, 10**9, EVEN, 1).place, first(100, 10**9, EVEN, 1).thing) == ("the gate", "network, out")
    slow = Rates(**{**{one.name: 1000.0 for one in fields(Rates)}, "add": 10.0})  # a hundredth
    assert first(100, 10**9, slow, 10).place == "the shards"
    # 100 silos send 400 GB and get 500 GB, which take 400 s at 1.25 GB/s; adding takes 40,000 s, and staging 400 s.
    assert needed(100, 10**9, slow, 10) == {
        "shards, by their processor": 101,
        "shards, by their disk": 1,  # 400 s
        "shards, by their room on disk": 1,  # 405 GB
        "gates": 3,  # 900 s
    }
    assert needed(100, 10**10, EVEN, 1)["shards, by their room on disk"] == 2 == -(-(4050 * 10**9) // (2000 * GIB))


def test_a_rate_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        Rates(**{**{one.name: 1.0 for one in fields(Rates)}, "disk": 0.0})


def test_every_measured_rate_of_the_page_is_explained() -> None:
    named = set(re.findall(r"`rate_([a-z]+)`", PAGE.partition("<!-- figures: scale -->")[0]))
    assert named == {one.name for one in fields(Rates)}
