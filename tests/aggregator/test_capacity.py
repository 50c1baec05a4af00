"""What an aggregator can take of a long round, by the request alone; and whom a round waits for."""

import asyncio
from itertools import product

import pytest

from aggregator.busy import Busy
from aggregator.capacity import Capacity
from policies.requests.sending import sent_of
from policies.units import MAX_BUSY_S, MAX_GATHER_S
from tests.harness.example_policy import request
from tests.policies.test_sending import wide

LONG = wide(1000, 1000)
SENT = sent_of(LONG)
NEEDED = len(LONG.silos) * SENT.input_bytes + SENT.sum_bytes


def test_what_fits_to_the_byte_is_taken_and_a_byte_less_is_refused_with_the_figures() -> None:
    assert not Capacity(NEEDED, SENT.sum_bytes).why_not(LONG)
    assert not Capacity(1, 1).why_not(request()), "a short round is judged when its room is taken"
    for capacity, what, needed in (
        (Capacity(contribution_bytes=NEEDED - 1), "contributions", NEEDED),
        (Capacity(report_bytes=SENT.sum_bytes - 1), "reports", SENT.sum_bytes),
    ):
        said = capacity.why_not(LONG)
        assert said.startswith(f"4 vectors of 1,000,000 values need {needed:,} bytes of ")
        assert f", and the aggregator keeps {needed - 1:,}; " in said
        assert said.endswith(f"ask its operator for --{what}-gib {-(-needed // 2**30)}")


def test_shards_divide_what_is_kept_and_are_counted_only_if_one_is_not_enough() -> None:
    counted = list[int]()

    async def count() -> int:
        counted.append(1)
        return 3

    small = Capacity(contribution_bytes=-(-NEEDED // 3))
    assert small.why_not(LONG)
    assert not small.why_not(LONG, 3)
    assert not asyncio.run(small.why_not_in(LONG, count))
    assert counted == [1]
    assert not asyncio.run(Capacity().why_not_in(LONG, count))
    assert not asyncio.run(Capacity(1).why_not_in(request(), count))
    assert counted == [1]
    assert "aggregator keeps 300; " in asyncio.run(Capacity(contribution_bytes=100).why_not_in(LONG, count))


@pytest.mark.parametrize("rate", [10**5, 10**6, 10**7, 10**9])
def test_masked_inputs_arrive_at_the_aggregator_s_own_rate_within_a_limit(rate: int) -> None:
    seconds = Capacity(bytes_per_second=rate).gathers_s(LONG)
    assert seconds == min(MAX_GATHER_S, -(-len(LONG.silos) * SENT.input_bytes // rate)) > 0
    assert Capacity(bytes_per_second=rate).gathers_s(request()) == 0


def test_a_step_waits_for_computing_and_a_long_vector_for_sending_too_and_for_no_more_than_a_limit() -> None:
    busy, ids = Busy(), [bytes([number]) * 16 for number in range(3)]
    assert busy.waits_s() == busy.waits_s(is_long=True) == 0
    for round_id, times in zip(ids, ((20, 0), (30, 100), (0, 50)), strict=True):
        busy.begin(round_id, *times)
    assert busy.waits_s() == 50
    assert busy.waits_s(is_long=True) == 200
    assert busy.waits_s(is_long=True, but=ids[1]) == 70
    assert busy.waits_s(but=ids[0]) == 30
    busy.end(ids[1])
    busy.end(ids[1])
    assert busy.waits_s(is_long=True) == 70
    for compute_s, send_s in product((MAX_BUSY_S, 3600), (0, 3600)):
        busy.begin(ids[0], compute_s, send_s)
        assert busy.waits_s() == busy.waits_s(is_long=True) == MAX_BUSY_S
