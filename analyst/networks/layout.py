"""How a tensor of a module lies in a node of its graph: which of its axes are rows of the batch, and which of a row.

A module may lay rows of a batch first, second, or in one axis with something else, as torch's attention does with its
heads; a graph has them first and implicit. So views, permutations and splits of axes are only noted here, and become
calls where a call needs its axes in order. Pure: neither torch nor a number of a weight.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from policies.networks.values import Shape

ROWS = -1  # in `axes`: the rows of the batch


class LayoutError(ValueError):
    """A view that puts numbers of several rows into one place, or that splits what does not split."""


@dataclass(frozen=True, slots=True)
class Laid:
    """A tensor of the module, and where its numbers are in a node."""

    node: str
    shape: Shape  # of one row of the node
    pieces: Shape  # a row of the node as finer axes, in order, none of them 1
    axes: tuple[tuple[int, ...], ...]  # for each axis of the tensor: the places of its pieces, or ROWS
    is_whole: bool = False

    @property
    def order(self) -> tuple[int, ...]:
        """The pieces in the order of the tensor."""
        return tuple(one for axis in self.axes for one in axis if one != ROWS)

    @property
    def row(self) -> Shape:
        """The shape of one row in the order of the tensor; an axis that has rows alone is no axis of it."""
        return tuple(self.size(at) for at, axis in enumerate(self.axes) if axis != (ROWS,))

    @property
    def rows_at(self) -> int:
        """The axis of the tensor that has the rows."""
        (found,) = (at for at, axis in enumerate(self.axes) if ROWS in axis)
        return found

    def size(self, axis: int) -> int:
        """Return of an axis of the tensor how many numbers it has in one row."""
        return prod(self.pieces[one] for one in self.axes[axis] if one != ROWS)

    def in_row(self, axis: int) -> int:
        """Return which axis of `row` an axis of the tensor is; raises LayoutError for the rows."""
        if ROWS in self.axes[axis]:
            raise LayoutError("it computes over the rows of a batch")
        return sum(one != (ROWS,) for one in self.axes[:axis])


def fresh(node: str, shape: Shape, rows_at: int = 0, *, is_whole: bool = False) -> Laid:
    """Return a tensor whose row is that of a node, with its rows as the axis `rows_at`."""
    places = iter(range(len(shape)))
    axes = [(next(places),) if size > 1 else () for size in shape]
    axes.insert(rows_at, (ROWS,))
    return Laid(node, shape, tuple(size for size in shape if size > 1), tuple(axes), is_whole)


def permuted(laid: Laid, order: Sequence[int]) -> Laid:
    """Return a tensor with its axes in another order."""
    return replace(laid, axes=tuple(laid.axes[at] for at in order))


def with_axis(laid: Laid, axis: int) -> Laid:
    """Return a tensor with one more axis, of the size 1."""
    return replace(laid, axes=(*laid.axes[:axis], (), *laid.axes[axis:]))


def without_axis(laid: Laid, axis: int) -> Laid:
    """Return a tensor without an axis; raises LayoutError unless its size is 1."""
    if laid.axes[axis]:
        raise LayoutError("it drops an axis that has more than one place")
    return replace(laid, axes=(*laid.axes[:axis], *laid.axes[axis + 1 :]))


def regrouped(laid: Laid, sizes: Sequence[tuple[int, bool]]) -> Laid:
    """Return the same numbers in the same order with axes of other sizes: each a number in one row, and if it has rows.

    Raises LayoutError where an axis would have a part of the rows.
    """
    split: list[list[int]] = [[] for _ in laid.pieces]  # of each piece, the sizes that it falls into
    left = list(laid.pieces)
    pending = [one for axis in laid.axes for one in axis]
    found: list[list[tuple[int, int]]] = []  # of each axis: pieces, and which part of them
    for size, has_rows in sizes:
        axis: list[tuple[int, int]] = []
        while size > 1 or has_rows:
            if not pending or (pending[0] == ROWS and not has_rows):
                raise LayoutError("its view puts numbers of several rows into one place")
            one = pending[0]
            if one == ROWS:
                has_rows = False
                axis.append((ROWS, 0))
                pending.pop(0)
                continue
            taken = left[one] if size % left[one] == 0 else size
            if taken == 1 or left[one] % taken:
                raise LayoutError("its view splits an axis that does not split so")
            size, left[one] = size // taken, left[one] // taken
            axis.append((one, len(split[one])))
            split[one].append(taken)
            if left[one] == 1:
                pending.pop(0)
        found.append(axis)
    if pending:
        raise LayoutError("its view leaves numbers out")
    first = [sum(map(len, split[:one])) for one in range(len(split))]
    axes = tuple(tuple(ROWS if one == ROWS else first[one] + part for one, part in axis) for axis in found)
    return replace(laid, pieces=tuple(size for sizes_of in split for size in sizes_of), axes=axes)
