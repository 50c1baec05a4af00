"""Trees of counts: how many rows of a group lie in each bin of a column's range, and in runs of bins, level by level.

Pure. The finest bins have one value each, or several where the column has more than MAX_BINS values. A node of a level
above has the rows of `children` nodes below it; the rows of all together are no level, as a count of its own has them.
Sources: Hay, Rastogi, Miklau, Suciu, VLDB 2010 (consistent trees); Qardaji, Yang, Li, VLDB 2013 (how many children).

Promise: one row is in one node of each level. So all rows of a person, of an L2 norm of at most m by group, change
the nodes by an L2 norm of at most m times the root of the number of levels, in whatever bins they are: in one level the
squares of the counts of a group's bins add up to no more than the square of the group's count.
"""

from typing import NamedTuple

from policies.requests.statistic import Extent
from policies.requests.tables import TableColumn

TREE = "tree"  # the kind of statistic
QUANTILES = ("quantile", "quantile_disc")  # the functions: between two values of rows, or always one of them
MAX_BINS = 4096
MOST_CHILDREN = 8  # more make sums of many nodes noisy, fewer make many levels; measured in docs/intervals.md


class Tree(NamedTuple):
    """The shape of a tree: `sizes` has the nodes of each level, the bins last; the last of a level may be small."""

    bins: int
    width: int  # values of a bin; the last may have fewer
    children: int
    sizes: tuple[int, ...]

    @property
    def levels(self) -> int:
        return len(self.sizes)

    @property
    def nodes(self) -> int:
        """The slots of one group: its nodes level by level, the coarsest first."""
        return sum(self.sizes)

    def extent(self, groups: int, norm: int, share: int) -> Extent:
        """Return the extent of the trees of so many groups, of which a person's rows have an L2 norm of at most `norm`.

        A level has as much of the price as any other statistic, and so as much noise as a count.
        """
        return Extent(groups * self.nodes, norm, share * self.levels, 1, 1, groups=self.levels)


def tree_of(values: int) -> Tree:
    """Return the tree over a range of so many values."""
    width = -(-values // MAX_BINS)
    bins = -(-values // width)
    levels = next(level for level in range(1, 64) if MOST_CHILDREN**level >= bins)
    children = next(number for number in range(2, MOST_CHILDREN + 1) if number**levels >= bins)
    sizes = [bins]
    for _ in range(levels - 1):
        sizes.insert(0, -(-sizes[0] // children))
    return Tree(bins, width, children, tuple(sizes))


def tree_over(column: TableColumn) -> Tree:
    """Return the tree over the steps between the bounds of a column, both ends included."""
    return tree_of(column.range_steps + 1)
