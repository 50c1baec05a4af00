"""The noise of a release follows the discrete Gaussian, at no smaller variance than was agreed.

So does that of OpenDP, for short blocks, and that from tables; `test_table_noise` has more about the tables.
"""

import math
from fractions import Fraction
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto.noise import MIN_DEVIATION, TABLE_SLOTS, deviation, discrete_gaussian, exact_gaussian

pytestmark = pytest.mark.slow  # seconds in all: `make check` runs it

ALPHA = 1e-8  # of each comparison; all together fail by chance less than once in 10^6 runs
Z = NormalDist().inv_cdf(1 - ALPHA / 2)
SAMPLES = 40_000
# (variance, shares): deviations of 1, where a rounded Gaussian would show, of MIN_DEVIATION, and of no whole number.
CASES = [(5, 5), (MIN_DEVIATION**2 * 4, 4), (50, 3)]


@pytest.fixture(
    scope="module", params=[(*case, draw) for draw in (exact_gaussian, discrete_gaussian) for case in CASES]
)
def drawn(request: pytest.FixtureRequest) -> tuple[float, npt.NDArray[np.int64]]:
    variance, shares, draw = request.param
    return variance / shares, draw(SAMPLES, variance, shares)


def _moments(variance: float) -> tuple[float, float]:
    """Return the second and the fourth moment of the discrete Gaussian, summed out."""
    reach = math.ceil(40 * math.sqrt(variance))
    weights = {x: math.exp(-x * x / (2 * variance)) for x in range(-reach, reach + 1)}
    total = math.fsum(weights.values())
    return tuple(math.fsum(x**power * weight for x, weight in weights.items()) / total for power in (2, 4))  # type: ignore[return-value]


def _cells(variance: float) -> list[tuple[int, int, float]]:
    """Return (first, last, probability) of cells that each expect at least 20 samples, the tails in the outer two."""
    reach = math.ceil(40 * math.sqrt(variance))
    weights = {x: math.exp(-x * x / (2 * variance)) for x in range(-reach, reach + 1)}
    total = math.fsum(weights.values())
    inner = max(x for x in range(reach) if weights[x] / total * SAMPLES >= 20)
    cells = [(x, x, weights[x] / total) for x in range(-inner, inner + 1)]
    tail = math.fsum(weights[x] for x in range(inner, reach + 1)) / total
    cells[0], cells[-1] = (-reach, -inner, tail), (inner, reach, tail)
    return cells


def _chi_square_quantile(degrees: int) -> float:
    """Return the 1 - ALPHA quantile, by Wilson and Hilferty's approximation."""
    ninth = 2 / (9 * degrees)
    return degrees * (1 - ninth + NormalDist().inv_cdf(1 - ALPHA) * math.sqrt(ninth)) ** 3


def test_mean_is_zero(drawn: tuple[float, npt.NDArray[np.int64]]) -> None:
    variance, samples = drawn
    assert abs(float(samples.mean())) <= Z * math.sqrt(variance / SAMPLES)


def test_variance_is_the_share_of_one_silo(drawn: tuple[float, npt.NDArray[np.int64]]) -> None:
    variance, samples = drawn
    second, fourth = _moments(variance)
    assert abs(float((samples.astype(np.float64) ** 2).mean()) - second) <= Z * math.sqrt(
        (fourth - second**2) / SAMPLES
    )


def test_samples_fit_the_discrete_gaussian(drawn: tuple[float, npt.NDArray[np.int64]]) -> None:
    variance, samples = drawn
    cells = _cells(variance)
    assert math.isclose(math.fsum(probability for _, _, probability in cells), 1)
    statistic = sum(
        (int(np.count_nonzero((first <= samples) & (samples <= last))) - SAMPLES * probability) ** 2
        / (SAMPLES * probability)
        for first, last, probability in cells
    )
    assert statistic <= _chi_square_quantile(len(cells) - 1)


def test_samples_are_independent_of_their_neighbours(drawn: tuple[float, npt.NDArray[np.int64]]) -> None:
    variance, samples = drawn
    floats = samples.astype(np.float64)
    for lag in (1, 2, SAMPLES // 2):
        correlation = float((floats[lag:] * floats[:-lag]).mean()) / variance
        assert abs(correlation) <= Z / math.sqrt(SAMPLES - lag)


def test_noise_is_drawn_afresh() -> None:
    assert not np.array_equal(discrete_gaussian(50, 2**40, 1), discrete_gaussian(50, 2**40, 1))


def test_length_and_type_are_those_of_a_vector() -> None:
    for length in (0, 1, 7, TABLE_SLOTS, 3 * TABLE_SLOTS + 1):
        samples = discrete_gaussian(length, 100, 3)
        assert samples.dtype == np.int64
        assert samples.shape == (length,)


def test_no_variance_is_no_noise() -> None:
    assert not discrete_gaussian(100, 0, 3).any()


@given(variance=st.integers(1, 2**104), shares=st.integers(1, 100))
def test_deviation_is_never_below_the_share(variance: int, shares: int) -> None:
    found = Fraction(deviation(variance, shares))
    assert found**2 * shares >= variance
    assert found**2 * shares <= variance * (1 + Fraction(1, 2**48))


@pytest.mark.parametrize("length", [1500, TABLE_SLOTS])
@pytest.mark.parametrize(("variance", "shares"), [(12, 3), (7, 1), (2**80, 9)])
def test_all_shares_together_reach_the_variance(variance: int, shares: int, length: int) -> None:
    parts = (discrete_gaussian(length, variance, shares).astype(np.float64) for _ in range(shares))
    total = sum(parts, np.zeros(length))
    assert abs(float((total**2).mean()) / variance - 1) <= Z * math.sqrt(2 / length)
