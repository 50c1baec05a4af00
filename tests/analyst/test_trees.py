"""Counts from noisy trees have the least squares, and their variances are those of all linear estimates' best."""

import re
from pathlib import Path

import numpy as np
import pytest

from analyst.reports.trees import Floats, consistent, covariance, leaves_below, prefixes
from policies.requests.trees import Tree, tree_of
from tests.cases import every

RANGES = (2, 3, 8, 9, 30, 61, 101, 300, 1001)


def design(tree: Tree) -> Floats:
    """Return which bins are below each node: (nodes, bins)."""
    return np.concatenate([np.eye(int(place[-1]) + 1)[:, place] for place in leaves_below(tree)])


@every("values", RANGES)
def test_counts_are_those_of_least_squares(values: int) -> None:
    tree, random = tree_of(values), np.random.default_rng(values)
    below, noisy = design(tree), random.standard_normal((3, tree.nodes))
    expected = np.linalg.lstsq(below, noisy.T, rcond=None)[0].T
    assert np.allclose(consistent(noisy, tree), expected)
    counts = random.integers(0, 9, (2, tree.bins)).astype(float)
    assert np.allclose(consistent(counts @ below.T, tree), counts), "without noise they are what they are"


@every("values", RANGES)
def test_variances_are_those_of_least_squares(values: int) -> None:
    tree, random = tree_of(values), np.random.default_rng(values)
    below = design(tree)
    exact = np.linalg.inv(below.T @ below)
    upto = np.tril(np.ones((tree.bins, tree.bins)))
    found = prefixes(tree)
    assert np.allclose(found.variances, np.diag(upto @ exact @ upto.T))
    assert np.allclose(found.with_all, upto @ exact.sum(axis=1))
    for share in (0.1, 0.5):
        ranks = upto - share
        assert np.allclose(found.of_ranks(share), np.diag(ranks @ exact @ ranks.T))
    one, other = random.standard_normal((2, 4, tree.bins))
    assert np.allclose(covariance(one, other, tree), [a @ exact @ b for a, b in zip(one, other, strict=True)])
    assert np.isclose(covariance(one[0], one[0], tree), one[0] @ exact @ one[0])


def test_a_tree_is_better_than_its_bins_alone() -> None:
    """The variance of the rows below the middle, at an equal price."""
    tree = tree_of(1001)
    assert prefixes(tree).of_ranks(0.5)[500] * tree.levels < 0.1 * 1001 / 4


def shaped(bins: int, children: int) -> Tree:
    """Return the tree of a number of bins whose nodes have as many children."""
    sizes = [bins]
    while sizes[0] > children:
        sizes.insert(0, -(-sizes[0] // children))
    return Tree(bins, 1, children, tuple(sizes))


def measured(bins: int, children: int) -> float:
    """Return the deviation of the rows below the middle, at an equal price, in those of a count that is asked alone."""
    tree = shaped(bins, children)
    middle = slice(9 * bins // 20, 11 * bins // 20)
    return float(np.sqrt(prefixes(tree).of_ranks(0.5)[middle].mean() * (tree.levels + 1)))


def test_the_table_of_the_docs_is_what_is_measured() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "intervals.md").read_text()
    rows = re.findall(r"^\| (\d+|none: bins alone) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", page, re.M)
    assert [children for children, *_ in rows] == ["none: bins alone", "64", "32", "16", "11", "8", "6", "4", "3"]
    for children, *cells in rows:
        for bins, cell in zip((101, 1001, 4096), cells, strict=True):
            each = bins if "none" in children else int(children)
            assert float(cell) == pytest.approx(measured(bins, min(each, bins)), abs=0.006)
