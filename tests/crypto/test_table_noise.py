"""The tables have exactly the weights they should, and their samples follow the discrete Gaussian, residues included.

The first half computes with whole numbers and long decimals: docs/noise.md, number by number. The second half is
statistics on noise from the operating system: its 200 comparisons together fail by chance less than once in 10^6 runs.
"""

import math
from collections import Counter
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

import crypto.table_noise
from crypto.errors import RangeError
from crypto.noise import TABLE_SLOTS, discrete_gaussian, exact_gaussian, is_from_table
from crypto.randomness import MAX_FRESH_BYTES, fresh_bytes
from crypto.table_noise import (
    MAX_VARIANCE,
    NARROW,
    STEP,
    TABLE_TV_BITS,
    WEIGHT_BITS,
    WIDEST,
    alias_table,
    draw,
    parts_of,
    table,
    weights_of,
)

pytestmark = pytest.mark.slow  # seconds in all: `make check` runs it

Samples = npt.NDArray[np.int64]

ALPHA = 1e-9
NORMAL = NormalDist()
Z = NORMAL.inv_cdf(1 - ALPHA / 2)
SAMPLES = 200_000
# Deviations 3, of no whole number, of a question with five silos, the widest of one table, and of sums of 2 and 3.
VARIANCES = [
    Fraction(9),
    Fraction(2**20, 400),
    Fraction(724**2),
    Fraction(WIDEST),
    Fraction(WIDEST + 1),
    Fraction(10**12),
]
NARROW_VARIANCES = [Fraction(9), Fraction(50, 3), Fraction(2**20, 400), Fraction(724**2), Fraction(WIDEST)]


def exact(variance: Fraction) -> list[Decimal]:
    """Return the probability of each |x| up to 15 deviations, each from its own exponential."""
    reach = math.ceil(15 * math.sqrt(variance))
    halved = Decimal(variance.denominator) / Decimal(-2 * variance.numerator)
    weights = [(2 if x else 1) * (x * x * halved).exp() for x in range(reach + 1)]
    total = sum(weights)
    return [weight / total for weight in weights]


# The tables


@pytest.mark.parametrize("variance", [Fraction(1, 5), Fraction(1), *NARROW_VARIANCES], ids=str)
def test_a_table_gives_every_value_exactly_its_weight(variance: Fraction) -> None:
    weights, made = weights_of(variance), table(variance)
    assert sum(weights) == 2**WEIGHT_BITS
    found, full = Counter[int](), 2**WEIGHT_BITS >> made.bits
    for column, (high, low, alias) in enumerate(zip(made.high, made.low, made.alias, strict=True)):
        threshold = (int(high) << 64) + int(low)
        assert 0 <= threshold <= full
        found[column] += threshold
        found[int(alias)] += full - threshold
    assert [found[x] for x in range(len(weights))] == weights
    assert all(not found[x] for x in range(len(weights), 1 << made.bits))
    with pytest.raises(ValueError, match="read-only"):
        made.alias[0] = 1


@pytest.mark.parametrize("variance", NARROW_VARIANCES, ids=str)
def test_weights_are_as_near_to_the_discrete_gaussian_as_is_proved(variance: Fraction) -> None:
    with localcontext(prec=60):
        weights, expected = weights_of(variance), exact(variance)
        stored = [Decimal(weight) / 2**WEIGHT_BITS for weight in weights]
        stored += [Decimal(0)] * (len(expected) - len(stored))
        distance = sum(abs(one - other) for one, other in zip(stored, expected, strict=True)) / 2
        assert distance <= Decimal(len(weights) - 1) / 2**WEIGHT_BITS + Decimal(2) ** -128
        assert all(one <= other + Decimal(2) ** -180 for one, other in zip(stored[1:], expected[1:], strict=True))


def test_the_terms_of_the_bound_add_up() -> None:
    """docs/noise.md section 3, term by term, for the greatest number of samples that make up one."""
    longest = len(weights_of(Fraction(WIDEST))) - 1
    tables = len(parts_of(Fraction(MAX_VARIANCE)))
    rounding = longest * (Fraction(1, 2**127) + Fraction(1, 2**200))
    words = Fraction(crypto.table_noise.CHUNK, 2**129)
    sums = (tables - 1) * Fraction(1, 2**225)
    assert (longest, tables) == (19_321, 7)
    assert tables * (rounding + Fraction(1, 2**128) + words) + sums <= Fraction(1, 2**TABLE_TV_BITS)


@given(st.integers(0, 9), st.lists(st.integers(0, 2**70), min_size=1, max_size=40))
def test_an_alias_table_keeps_any_weights(first: int, others: list[int]) -> None:
    weights = [2**WEIGHT_BITS - first - sum(others), first, *others]
    made = alias_table(weights)
    found, full = Counter[int](), 2**WEIGHT_BITS >> made.bits
    for column, (high, low, alias) in enumerate(zip(made.high, made.low, made.alias, strict=True)):
        threshold = (int(high) << 64) + int(low)
        found[column] += threshold
        found[int(alias)] += full - threshold
    assert [found[x] for x in range(len(weights))] == weights


def test_every_bit_of_a_threshold_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    made = table(Fraction(9))
    rest = 63 - made.bits
    for column in range(1 << made.bits):
        threshold = (int(made.high[column]) << 64) + int(made.low[column])
        for chosen, expected in ((threshold - 1, column), (threshold, int(made.alias[column]))):
            if not 0 <= chosen < 2**WEIGHT_BITS >> made.bits:
                continue
            for sign in (0, 1):
                high = (column << rest + 1) + (sign << rest) + (chosen >> 64)
                words = np.array([high, chosen & (1 << 64) - 1], "<u8").tobytes()
                monkeypatch.setattr(crypto.table_noise, "fresh_bytes", lambda length, words=words: words)
                assert draw(1, Fraction(9)).tolist() == [-expected if sign else expected]


# Sums of two samples


@given(st.fractions(WIDEST, MAX_VARIANCE).filter(lambda one: one > WIDEST))
def test_parts_add_up_to_the_variance_exactly_and_are_smooth(variance: Fraction) -> None:
    parts = parts_of(variance)
    assert sum(part * STEP ** (2 * index) for index, part in enumerate(parts)) == variance
    assert len(parts) <= 7
    assert all(part == NARROW for part in parts[:-1])
    assert 16 <= parts[-1] <= WIDEST
    for index in range(len(parts) - 1):
        second = sum(part * STEP ** (2 * place) for place, part in enumerate(parts[index + 1 :]))
        smooth = NARROW * second / (NARROW + STEP**2 * second)  # the variance within one residue
        assert smooth >= 8


def test_a_variance_of_8_is_smooth_beyond_all_other_terms() -> None:
    gap = 2 * math.fsum(math.exp(-2 * math.pi**2 * 8 * j * j) for j in (1, 2, 3))
    assert gap / (1 - gap) <= 2**-225


@pytest.mark.parametrize(
    ("narrow", "step", "second"), [(4, 2, 3), (9, 4, 16), (9, 3, 2), (16, 5, 20), (25, 4, 4), (36, 6, 9)]
)
def test_a_sum_of_two_samples_is_as_near_as_is_proved(narrow: int, step: int, second: int) -> None:
    """The bound of docs/noise.md section 3.3, where it is wide enough to be seen."""
    variance = narrow + step**2 * second
    reach = 12 * math.isqrt(variance) + 12
    points = np.arange(-reach, reach + 1, dtype=np.float64)
    between = points[:, None] - step * points[None, :]
    added = np.exp(-(between**2) / (2 * narrow)) @ np.exp(-(points**2) / (2 * second))
    ideal = np.exp(-(points**2) / (2 * variance))
    added, ideal = added / added.sum(), ideal / ideal.sum()
    smooth = narrow * second / variance
    gap = 2 * math.fsum(math.exp(-2 * math.pi**2 * smooth * j * j) for j in range(1, 9))
    inner = (added / ideal)[reach // 2 : -(reach // 2)]  # 6 deviations
    assert (1 - gap) / (1 + gap) - 1e-9 <= inner.min()
    assert inner.max() <= (1 + gap) / (1 - gap) + 1e-9
    distance = float(np.abs(added - ideal).sum()) / 2
    assert distance <= gap / (1 - gap) + 1e-9
    assert distance >= gap / 10 - 1e-9  # the bound is no idle one


# Random words


@pytest.mark.parametrize("variance", [*VARIANCES, Fraction(MAX_VARIANCE)], ids=str)
def test_words_depend_on_length_and_variance_alone(monkeypatch: pytest.MonkeyPatch, variance: Fraction) -> None:
    asked: list[list[int]] = []

    def counted(length: int) -> bytes:
        asked[-1].append(length)
        return fresh_bytes(length)

    monkeypatch.setattr(crypto.table_noise, "fresh_bytes", counted)
    for _ in range(3):
        asked.append([])
        draw(10_000, variance)
    assert asked[0] == asked[1] == asked[2]
    assert sum(asked[0]) == 16 * 10_000 * len(parts_of(variance))
    assert max(asked[0]) <= MAX_FRESH_BYTES


def test_each_call_has_a_key_of_its_own() -> None:
    found = [fresh_bytes(32) for _ in range(1000)]
    assert len(set(found)) == 1000
    assert all(len(one) == 32 for one in found)
    assert fresh_bytes(0) == b""
    for length in (-1, MAX_FRESH_BYTES + 1):
        with pytest.raises(ValueError, match="one key gives at most"):
            fresh_bytes(length)


# The choice


def test_long_blocks_alone_are_drawn_from_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def noted(length: int, variance: Fraction) -> Samples:
        seen.append(length)
        return draw(length, variance)

    monkeypatch.setattr("crypto.noise.draw", noted)
    for length in (0, 1, TABLE_SLOTS - 1, TABLE_SLOTS, TABLE_SLOTS + 1):
        assert is_from_table(length) == (length >= TABLE_SLOTS)
        discrete_gaussian(length, 2**20, 3)
    assert seen == [TABLE_SLOTS, TABLE_SLOTS + 1]
    assert not discrete_gaussian(TABLE_SLOTS, 0, 3).any()


@pytest.mark.parametrize("variance", [Fraction(0), Fraction(-1), Fraction(MAX_VARIANCE) + Fraction(1, 7)])
def test_a_variance_outside_the_bound_is_refused(variance: Fraction) -> None:
    with pytest.raises(RangeError, match="variance"):
        draw(5, variance)


def test_the_widest_noise_fits_in_64_bits() -> None:
    reach = sum(
        STEP**index * (len(weights_of(part)) - 1) for index, part in enumerate(parts_of(Fraction(MAX_VARIANCE)))
    )
    assert reach < 2**57


# Statistics


@cache
def drawn(variance: Fraction) -> Samples:
    """Return the samples that all tests of one variance look at, drawn through the function that silos use."""
    return discrete_gaussian(SAMPLES, variance.numerator, variance.denominator)


def quantile(degrees: int) -> float:
    """Return the 1 - ALPHA quantile of chi-square, by Wilson and Hilferty's approximation."""
    ninth = 2 / (9 * degrees)
    return float(degrees * (1 - ninth + NORMAL.inv_cdf(1 - ALPHA) * math.sqrt(ninth)) ** 3)


def check_fit(counts: npt.NDArray[np.int64], expected: npt.NDArray[np.float64]) -> None:
    """Compare counts of cells with their probabilities; cells that expect few samples are joined to the next."""
    assert math.isclose(float(expected.sum()), 1, rel_tol=1e-9)
    joined: list[tuple[float, float]] = []
    seen, awaited = 0.0, 0.0
    for count, probability in zip(counts.tolist(), expected.tolist(), strict=True):
        seen, awaited = seen + count, awaited + probability * SAMPLES
        if awaited >= 20:
            joined.append((seen, awaited))
            seen, awaited = 0.0, 0.0
    joined[-1] = joined[-1][0] + seen, joined[-1][1] + awaited
    assert sum((one - other) ** 2 / other for one, other in joined) <= quantile(len(joined) - 1)


def check_independent(rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]) -> None:
    """Test two labels of each sample, small whole numbers, for independence."""
    table_of_both = np.zeros((int(rows.max()) + 1, int(columns.max()) + 1))
    np.add.at(table_of_both, (rows, columns), 1)
    expected = np.outer(table_of_both.sum(1), table_of_both.sum(0)) / table_of_both.sum()
    assert expected.min() >= 20
    height, width = table_of_both.shape
    assert ((table_of_both - expected) ** 2 / expected).sum() <= quantile((height - 1) * (width - 1))


def probabilities_of(variance: Fraction) -> tuple[Samples, npt.NDArray[np.float64]]:
    """Return the values up to 12 deviations, and the probability of each."""
    reach = math.ceil(12 * math.sqrt(variance))
    points = np.arange(-reach, reach + 1)
    weights = np.exp(-(points.astype(np.float64) ** 2) / (2 * float(variance)))
    return points, np.asarray(weights / weights.sum(), np.float64)


def added(labels: Samples, probabilities: npt.NDArray[np.float64], length: int = 0) -> npt.NDArray[np.float64]:
    """Return the probability of each label, which is a whole number."""
    return np.asarray(np.bincount(labels, probabilities, minlength=length), np.float64)


def is_wide(variance: Fraction) -> bool:
    """Tell whether the values of a distribution are too many to list."""
    return variance > 2**22


def cells_of(samples: Samples, variance: Fraction) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return the counts and probabilities of cells: each value, or about 700 stretches of a wide distribution."""
    sigma = math.sqrt(variance)
    width = max(1, round(sigma / 30))
    if not is_wide(variance):
        points, probabilities = probabilities_of(variance)
        cells = (points - points[0]) // width
        return np.bincount((samples - points[0]) // width, minlength=cells[-1] + 1), added(cells, probabilities)
    # A sum is an integral between half steps, up to a part of one in 24 variances.
    edges = np.arange(-math.ceil(12 * sigma), math.ceil(12 * sigma) + width, width)
    bounds = [NORMAL.cdf((float(edge) - 0.5) / sigma) for edge in edges]
    return np.histogram(samples, edges)[0], np.diff(bounds)


def residues_of(variance: Fraction, modulus: int) -> npt.NDArray[np.float64]:
    """Return the distribution of the residue, which is uniform for a wide distribution."""
    if is_wide(variance):
        return np.full(modulus, 1 / modulus)
    points, probabilities = probabilities_of(variance)
    return added(points % modulus, probabilities, modulus)


@pytest.mark.parametrize("variance", VARIANCES, ids=str)
def test_samples_follow_the_exact_distribution(variance: Fraction) -> None:
    check_fit(*cells_of(drawn(variance), variance))


@pytest.mark.parametrize("modulus", [2, 3, 4, 5, 7, 16, STEP - 1, STEP, STEP + 1, 4 * STEP])
@pytest.mark.parametrize("variance", VARIANCES, ids=str)
def test_residues_have_no_structure(variance: Fraction, modulus: int) -> None:
    residues = np.bincount(drawn(variance) % modulus, minlength=modulus)
    check_fit(residues, residues_of(variance, modulus))


@pytest.mark.parametrize("variance", VARIANCES[2:], ids=str)
@pytest.mark.parametrize("modulus", [2, 16, 64])
def test_residues_do_not_depend_on_sign_or_size(variance: Fraction, modulus: int) -> None:
    samples = drawn(variance)
    signed = samples[samples != 0]
    check_independent(np.abs(signed) % modulus, (signed > 0).astype(np.int64))
    edges = np.unique(np.sort(samples)[SAMPLES // 8 :: SAMPLES // 8][:7] // modulus * modulus)
    labels = np.searchsorted(edges, samples, side="right") * modulus + samples % modulus
    if is_wide(variance):
        check_independent(labels // modulus, samples % modulus)  # a stretch has thousands of periods
        return
    points, probabilities = probabilities_of(variance)
    cells = np.searchsorted(edges, points, side="right") * modulus + points % modulus
    check_fit(np.bincount(labels, minlength=8 * modulus), added(cells, probabilities, 8 * modulus))


def test_these_tests_see_the_lattice_of_a_sum_that_is_too_narrow() -> None:
    wide = draw(SAMPLES, Fraction(724**2)) * STEP + draw(SAMPLES, Fraction((STEP // 4) ** 2))
    with pytest.raises(AssertionError):
        check_fit(np.bincount(wide % STEP, minlength=STEP), np.full(STEP, 1 / STEP))


@pytest.mark.parametrize("variance", VARIANCES, ids=str)
def test_moments_are_those_of_the_variance(variance: Fraction) -> None:
    samples = drawn(variance).astype(np.float64) / math.sqrt(variance)
    assert abs(float(samples.mean())) <= Z / math.sqrt(SAMPLES)
    assert abs(float((samples**2).mean()) - 1) <= Z * math.sqrt(2 / SAMPLES)
    assert abs(float((samples > 0).sum() - (samples < 0).sum())) <= Z * math.sqrt(SAMPLES)


@pytest.mark.parametrize("variance", VARIANCES, ids=str)
def test_slots_are_independent(variance: Fraction) -> None:
    samples = drawn(variance)
    standard = samples / math.sqrt(variance)
    for lag in (1, 2, 3, crypto.table_noise.CHUNK, SAMPLES // 2):
        correlation = float((standard[lag:] * standard[:-lag]).mean())
        assert abs(correlation) <= Z / math.sqrt(SAMPLES - lag)
        check_independent(samples[lag:] % 8, samples[:-lag] % 8)


@pytest.mark.parametrize("variance", [Fraction(9), Fraction(724**2), Fraction(10**12)], ids=str)
def test_rounds_and_silos_are_independent(variance: Fraction) -> None:
    """Each silo calls the same function in each round, so two calls are two rounds of one silo, or two silos."""
    one, other = (draw(SAMPLES, variance) for _ in range(2))
    scale = float(variance)
    assert abs(float((one * (other / scale)).mean())) <= Z / math.sqrt(SAMPLES)
    check_independent(one % 8, other % 8)
    check_independent((one > 0).astype(np.int64), (other > 0).astype(np.int64))


@pytest.mark.parametrize("variance", [9, 724**2, 10**12])
def test_samples_follow_the_distribution_of_opendp(variance: int) -> None:
    check_like_opendp(variance, 15_000)


@pytest.mark.slow
@pytest.mark.parametrize("variance", [9, 51**2, 724**2, WIDEST + 1, 10**12])
def test_many_samples_follow_the_distribution_of_opendp(variance: int) -> None:
    check_like_opendp(variance, 200_000)


def check_like_opendp(variance: int, count: int) -> None:
    """Compare values in 50 stretches of equal weight, and residues, with those of the exact sampler."""
    ours, theirs = drawn(Fraction(variance)), exact_gaussian(count, variance, 1)
    edges = np.unique(np.sort(ours)[SAMPLES // 50 :: SAMPLES // 50][:49])
    pairs = [(np.searchsorted(edges, ours), np.searchsorted(edges, theirs))]
    pairs += [(ours % modulus, theirs % modulus) for modulus in (2, 3, 16, 255, 256)]
    for pair in pairs:
        found = [np.bincount(labels, minlength=256).astype(np.float64) for labels in pair]
        both = found[0] + found[1]
        shown = both * count / (SAMPLES + count) >= 20
        first, second = (np.append(one[shown], one[~shown].sum()) for one in found)
        kept = first + second > 0
        first, second = first[kept], second[kept]
        ratio = math.sqrt(count / SAMPLES)
        statistic = float(((first * ratio - second / ratio) ** 2 / (first + second)).sum())
        assert statistic <= quantile(max(1, first.size - 1))
