"""The limit of a sum: the least that holds what a request states with its noise, the same for every party."""

import itertools
import math
from decimal import Decimal, localcontext
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import pytest

from crypto.backends.registry import BACKENDS
from crypto.noise import discrete_gaussian
from crypto.rounds.bounds import fewest_noise_shares, noise_shares, why_infeasible
from crypto.table_noise import TABLE_TV_BITS, WIDEST, weights_of
from crypto.wire import digest_of
from policies.budget.sampler import inexact_slots, sampler_delta
from policies.requests.calibration import clamp_of, spreads_of
from policies.requests.capacity import carried_rows
from policies.requests.limit import clamps_of, limit_of, noise_room
from policies.requests.query import Plan
from policies.requests.request import Request
from policies.requests.statistic import Extent, Statistic, exact, noised
from policies.requests.terms import terms_of
from tests.harness.example_policy import request, table

TABLE, PRICE = table(), 10_000


def computed(*extents: Extent) -> Any:
    """Return what stands for a computation with these statistics."""
    return SimpleNamespace(
        statistics=lambda table: {Statistic(f"s{place}"): one for place, one in enumerate(extents)},
        has_own_noise=False,
    )


def bounded(most: int, length: int = 3, sensitivity: int = 0) -> Extent:
    """Return an extent that states `most`; with a sensitivity it has noise."""
    extent = noised(length, sensitivity) if sensitivity else exact(length)
    return extent.up_to(most)


def test_without_a_stated_bound_nothing_changes() -> None:
    for backend, silos in itertools.product(BACKENDS, (3, 4, 40)):
        capacity = BACKENDS[backend].capacity(silos)
        for of in (request().plan, computed(exact(5), bounded(7)), computed(noised(5, 3))):
            assert limit_of(TABLE, of, PRICE, backend, silos) == capacity
            spreads, extents = spreads_of(TABLE, of, PRICE), of.statistics(TABLE)
            for statistic, clamp in clamps_of(TABLE, of, PRICE, backend, silos).items():
                if extents[statistic].most is None:
                    assert clamp == clamp_of(capacity, spreads[statistic].scale_bits)
    assert terms_of(request(), bytes(32)).limit == BACKENDS["masking"].capacity(4)


def test_a_block_without_noise_is_clamped_at_what_it_states_and_that_is_the_limit() -> None:
    for most in (0, 1, 127, 2**31, 2**40):
        of = computed(bounded(most), bounded(most // 2))
        assert limit_of(TABLE, of, 0, "masking", 10) == max(1, most)
        assert list(clamps_of(TABLE, of, 0, "masking", 10).values()) == [most, most // 2]


@pytest.mark.parametrize("silos", [2, 3, 4])
def test_no_sum_wraps_whatever_silos_contribute(silos: int) -> None:
    """Brute force: every combination of what silos can hold, clamped, beyond the bound too."""
    for most in range(1, 5):
        of = computed(bounded(most, length=1))
        limit, (clamp,) = limit_of(TABLE, of, 0, "masking", silos), clamps_of(TABLE, of, 0, "masking", silos).values()
        bits = (2 * silos * limit + 1).bit_length()
        for figures in itertools.product(range(-most - 2, most + 3), repeat=silos):
            total = sum(max(-clamp, min(clamp, figure)) for figure in figures)
            wrapped = (total + (1 << bits - 1)) % (1 << bits) - (1 << bits - 1)
            assert wrapped == total
            assert max(map(abs, figures)) > most or total == sum(figures)  # what is within the bound is never cut


def test_a_limit_beyond_the_backend_is_its_capacity_and_figures_are_clamped_as_before() -> None:
    for name, backend in BACKENDS.items():
        capacity = backend.capacity(4)
        of = computed(bounded(capacity + 1))
        assert limit_of(TABLE, of, 0, name, 4) == capacity
        assert list(clamps_of(TABLE, of, 0, name, 4).values()) == [capacity // 2]
        assert limit_of(TABLE, computed(bounded(capacity)), 0, name, 4) == capacity
        assert list(clamps_of(TABLE, computed(bounded(capacity)), 0, name, 4).values()) == [capacity]


def test_figure_and_noise_together_are_within_the_limit() -> None:
    for most, sensitivity, silos in itertools.product((1, 100, 2**20), (1, 9, 2**12), (3, 4, 10, 400)):
        of = computed(bounded(most, sensitivity=sensitivity), bounded(3, sensitivity=1))
        limit = limit_of(TABLE, of, PRICE, "masking", silos)
        clamps, wholes = clamps_of(TABLE, of, PRICE, "masking", silos), []
        for statistic, (_, scale_bits, variance) in spreads_of(TABLE, of, PRICE).items():
            wholes.append((clamps[statistic] << scale_bits) + noise_room(variance, silos))
        assert list(clamps.values()) == [most, 3]
        assert max(wholes) == limit  # it holds all, and is the least that does


def test_noise_has_room_for_what_any_feasible_round_lets_one_silo_draw() -> None:
    for asked in range(3, 61):
        found = [
            noise_shares(asked, colluding, missing)
            for colluding, missing in itertools.product(range(1, asked), range(asked))
            if not why_infeasible(asked, 0, colluding, missing)
        ]
        assert not found or min(found) >= fewest_noise_shares(asked)


@pytest.mark.parametrize("variance", [Fraction(9), Fraction(2**20, 3), Fraction(WIDEST)])
def test_a_table_holds_no_sample_beyond_the_room(variance: Fraction) -> None:
    weights = weights_of(variance)
    assert len(weights) - 1 <= noise_room(math.floor(variance), 1)
    assert sum(weights) == 2**127


@pytest.mark.parametrize("variance", [1, 9, 300, 40_000])
def test_noise_beyond_the_room_is_less_probable_than_two_to_the_minus_127(variance: int) -> None:
    """By adding up the distribution itself, with 120 digits; the deviation of OpenDP's parameter is rounded up."""
    with localcontext() as context:
        context.prec = 120
        parameter = Decimal(variance) * (1 + Decimal(2) ** -49)
        far = 30 * math.isqrt(variance) + 30
        weights = [(-Decimal(x * x) / (2 * parameter)).exp() for x in range(far)]
        whole = weights[0] + 2 * sum(weights[1:])
        beyond = 2 * sum(weights[noise_room(variance, 1) + 1 :])
        assert beyond / whole < Decimal(2) ** -127


def test_a_whole_sum_wraps_with_less_than_two_to_the_minus_40_and_the_charge_covers_it() -> None:
    assert Fraction(2**30 * 1000, 2**127) < Fraction(1, 2**40)
    # The terms of docs/noise.md section 3.4, and the room: together below what each sample is charged at.
    terms = 7 * (19_321 * (Fraction(1, 2**127) + Fraction(1, 2**200)) + Fraction(1, 2**128) + Fraction(1, 2**116))
    assert terms + 6 * Fraction(1, 2**225) + Fraction(1, 2**127) < Fraction(1, 2**TABLE_TV_BITS)


def test_noise_with_a_stated_bound_is_charged_in_short_blocks_too() -> None:
    assert inexact_slots(TABLE, computed(noised(5, 1))) == 0
    assert inexact_slots(TABLE, computed(noised(5, 1).up_to(3), exact(7).up_to(2))) == 5
    assert inexact_slots(TABLE, computed(noised(5000, 1), noised(5, 1).up_to(3))) == 5005


def test_every_party_computes_the_same_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silo, aggregator and recipient read the same signed bytes, and ask `terms_of`."""
    plain = Plan.statistics

    def stated(self: Plan, asked: Any) -> Any:
        return {name: extent.up_to(1000 + place) for place, (name, extent) in enumerate(plain(self, asked).items())}

    whole = terms_of(request(), bytes(32))
    monkeypatch.setattr(Plan, "statistics", stated)
    asked = request()
    read = Request.decode(asked.encode())
    found = terms_of(asked, digest_of(asked))
    assert found == terms_of(read, digest_of(read))
    assert found.blocks == whole.blocks
    assert found.limit < whole.limit
    assert found.limit == limit_of(read.table, read.plan, read.micro_rho, "masking", 4)
    assert sampler_delta(read) == sampler_delta(asked) >= 1
    spreads = spreads_of(read.table, read.plan, read.micro_rho)
    samples = [discrete_gaussian(50, one.variance, fewest_noise_shares(4)) for one in spreads.values()]
    for place, (one, drawn) in enumerate(zip(spreads.values(), samples, strict=True)):
        assert int(abs(drawn).max()) + ((1000 + place) << one.scale_bits) <= found.limit


def test_rows_are_carried_up_to_the_stated_bound() -> None:
    of = computed(exact(3, per_row=10).up_to(10 * 999 + 9))
    assert carried_rows(TABLE, of, 0, "masking", 4) == 999


def test_a_share_of_the_price_and_groups_leave_the_stated_bound() -> None:
    assert bounded(9, sensitivity=2).of_share(3).in_groups(4).most == 9
