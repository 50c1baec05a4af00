"""docs/scale.md says what follows from its measured rates, and the arithmetic is what it says."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from tests.bench.saturation import GIB, Load, Rates, computed, first, loads, needed, rates_of

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "scale.md").read_text()
EVEN = Rates(**{one.name: 1000.0 for one in fields(Rates)})  # 1 GB/s of everything


def by_thing(found: tuple[Load, ...]) -> dict[tuple[str, str], float]:
    return {(one.place, one.thing): one.seconds for one in found}


def test_the_page_says_what_follows_from_its_rates() -> None:
    assert computed(PAGE) == PAGE
    assert rates_of(PAGE).stream > 0


def test_the_loads_of_a_small_federation_are_those_by_hand() -> None:
    """Ten silos, a million values, 1 Gbit/s: a masked input has 4 MB, a sum 8 MB, and every rate is 1 GB/s."""
    assert by_thing(loads(10, 10**6, EVEN, 1)) == pytest.approx(
        {
            ("a silo", "network"): 0.064,  # 8 MB at 125 MB/s
            ("a silo", "processor, to contribute"): 0.004 + 10 * 0.004,  # nine pair masks, and its own
            ("a silo", "processor, to learn"): 4 * 0.008 + 10 * 0.004,
            ("the gate", "network, in"): 0.32,
            ("the gate", "network, out"): 0.64,
            ("the gate", "processor, for streams"): 0.12,
            ("the shards", "processor"): 2 * 0.04 + 0.008,
            ("the shards", "disk"): 0.04,
        }
    )


def test_neighbours_are_32_at_most_and_the_rest_grows_with_silos_and_values() -> None:
    few, many, longer = (by_thing(loads(*one, EVEN, 1)) for one in ((100, 10**6), (1000, 10**6), (100, 10**7)))
    assert (
        few["a silo", "processor, to contribute"]
        == pytest.approx(0.004 * 34)
        == many["a silo", "processor, to contribute"]
    )
    for key, seconds in few.items():
        assert longer[key] == pytest.approx(10 * seconds), "all is linear in the values"
        assert many[key] >= seconds * (9.9 if key[0] == "the gate" else 1)


def test_the_slowest_thing_at_the_aggregator_is_named_with_the_shards_that_end_it() -> None:
    assert (first(100, 10**9, EVEN, 1).place, first(100, 10**9, EVEN, 1).thing) == ("the gate", "network, out")
    slow = Rates(**{**{one.name: 1000.0 for one in fields(Rates)}, "add": 10.0})  # a hundredth
    assert first(100, 10**9, slow, 10).place == "the shards"
    # 100 silos send 400 GB and get 800 GB, which take 640 s at 1.25 GB/s; adding takes 40,000 s.
    assert needed(100, 10**9, slow, 10) == {
        "shards, by their processor": 64,  # 40,000 + 400 + 8 s
        "shards, by their disk": 1,  # 400 s
        "shards, by their memory": 1,  # 16 GB
        "shards, by their room on disk": 1,  # 408 GB
        "gates": 2,  # 1,200 s
    }
    assert needed(100, 10**10, EVEN, 1)["shards, by their memory"] == 3 == -(-(160 * 10**9) // (64 * GIB))
    assert needed(100, 10**10, EVEN, 1)["shards, by their room on disk"] == 2 == -(-(4080 * 10**9) // (2000 * GIB))


def test_a_rate_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        Rates(**{**{one.name: 1.0 for one in fields(Rates)}, "disk": 0.0})


def test_every_measured_rate_of_the_page_is_explained() -> None:
    named = set(re.findall(r"`rate_([a-z]+)`", PAGE.partition("<!-- figures: scale -->")[0]))
    assert named == {one.name for one in fields(Rates)}
