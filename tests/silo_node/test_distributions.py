"""Tails and quantiles are those of scipy, and sums on a grid those of whole numbers of any size."""

import numpy as np
import pytest
from scipy import stats

from silo_node.training import distributions as own
from silo_node.training.grid import LEAST_BITS, MOST_BITS, bits_for, most, reals, row_sums


def test_tails_are_those_of_scipy() -> None:
    for value in (0.0, 1e-6, 0.3, 1.0, 1.96, 4.0, 9.0, 30.0):
        assert own.normal_tails(value) == pytest.approx(2 * stats.norm.sf(value), rel=1e-11, abs=1e-300)
        for df in (1, 2, 7.5, 30, 431, 1e5):
            assert own.t_tails(value, df) == pytest.approx(2 * stats.t.sf(value, df), rel=1e-9, abs=1e-300)
            assert own.chi_square_tail(value, df) == pytest.approx(stats.chi2.sf(value, df), rel=1e-9, abs=1e-300)
            for above in (1, 3, 12):
                assert own.f_tail(value, above, df) == pytest.approx(stats.f.sf(value, above, df), rel=1e-9, abs=1e-300)


def test_quantiles_are_those_of_scipy() -> None:
    for probability in (0.75, 0.9, 0.975, 0.9999):
        assert own.normal_quantile(probability) == pytest.approx(stats.norm.ppf(probability), rel=1e-12)
        for df in (1, 2, 7.5, 30, 431):
            assert own.t_quantile(probability, df) == pytest.approx(stats.t.ppf(probability, df), rel=1e-9)


def test_a_sum_on_a_grid_is_that_of_each_rounded_number() -> None:
    numbers = np.random.default_rng(1)
    for bits in (LEAST_BITS, 31, MOST_BITS):
        values = np.concatenate([numbers.normal(size=500), [0.0, most(bits), -most(bits), 2.0 ** -(bits + 1)]])
        expected = sum(int(one) for one in np.rint(np.ldexp(values, bits)))
        assert row_sums(values[None].copy(), bits).tolist() == [expected]
    assert reals(np.array([3 << 30], np.int64), 31).tolist() == [1.5]


def test_the_grid_holds_what_so_many_rows_and_columns_can_add_up_to() -> None:
    for rows in (2, 3, 442, 2**20, 2**24, 2**30):
        for columns in (2, 21, 400):
            bits = bits_for(rows, columns)
            assert LEAST_BITS <= bits <= MOST_BITS
            if bits > LEAST_BITS:
                assert rows <= most(bits)
                assert rows * columns * 2**bits <= 2**55
