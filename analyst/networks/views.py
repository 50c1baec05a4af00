"""Readers of calls that order, take and join numbers. Most of them become no call: the layout notes them."""

from dataclasses import replace
from typing import Any

from torch import fx

from analyst.networks.arguments import (
    Arguments,
    in_its_order,
    rows,
)
from analyst.networks.layout import ROWS, Laid, LayoutError, fresh, permuted, regrouped, with_axis, without_axis
from analyst.networks.writing import Parts, Trained, Value, Writer, WritingError, Zeros


def view(writer: Writer, node: fx.Node, given: Arguments) -> Value:
    """Read a view, reshape, flatten or unflatten."""
    laid, sizes = rows(given["input"]), list(node.meta["val"].shape)
    return regrouped(laid, [size_of(one) for one in sizes])


def size_of(size: Any) -> tuple[int, bool]:
    """Return how many numbers of a row an axis of an exported tensor has, and if it has its rows."""
    if isinstance(size, int):
        return size, False
    count, symbol = size.node.expr.as_coeff_Mul()
    if not symbol.is_Symbol or not count.is_Integer:
        raise LayoutError("the size of an axis depends on the number of rows")
    return int(count), True


def permute(writer: Writer, node: fx.Node, given: Arguments) -> Value:
    """Read axes in another order."""
    laid = rows(given["input"])
    return permuted(laid, [one % len(laid.axes) for one in given["dims"]])


def transpose(writer: Writer, node: fx.Node, given: Arguments) -> Value:
    """Read two axes that change places."""
    laid = rows(given["input"])
    order = list(range(len(laid.axes)))
    one, other = given["dim0"] % len(order), given["dim1"] % len(order)
    order[one], order[other] = order[other], order[one]
    return permuted(laid, order)


def turned(writer: Writer, node: fx.Node, given: Arguments) -> Value:
    """Read a matrix with its two axes changed."""
    laid = rows(given["input"])
    return permuted(laid, range(len(laid.axes))[::-1])


def unsqueeze(writer: Writer, node: fx.Node, given: Arguments) -> Value:
    """Read a new axis."""
    laid = rows(given["input"])
    return with_axis(laid, given["dim"] % (len(laid.axes) + 1))


def squeeze(writer: Writer, node: fx.Node, given: Arguments) -> Value:
    """Read axes of one place that go away."""
    laid = rows(given["input"])
    if "dim" not in given:
        raise WritingError("squeeze of whatever axis is 1", "name the axis, such as squeeze(-1)")
    dims = (given["dim"],) if isinstance(given["dim"], int) else given["dim"]
    for dim in sorted((one % len(laid.axes) for one in dims), reverse=True):
        if not laid.axes[dim]:  # torch leaves an axis of another size as it is
            laid = without_axis(laid, dim)
    return laid


def select(writer: Writer, node: fx.Node, given: Arguments) -> Value:
    """Read one place of an axis."""
    laid = rows(given["input"])
    return taken(writer, node.name, laid, given["dim"] % len(laid.axes), given["index"])


def taken(writer: Writer, name: str, laid: Laid, dim: int, index: int) -> Value:
    """Write one place of an axis."""
    laid.in_row(dim)
    size = laid.size(dim)
    if size == 1:
        return without_axis(laid, dim)
    laid, piece = _as_piece(writer, laid, dim)
    found, shape = writer.call("select", name, laid.node, axis=piece, at=index % size)
    kept = replace(laid, node=found, shape=shape, pieces=shape)
    return replace(kept, axes=tuple(_without(axis, piece) for at, axis in enumerate(laid.axes) if at != dim))


def _without(axis: tuple[int, ...], piece: int) -> tuple[int, ...]:
    return tuple(one - (one > piece) for one in axis)


def _as_piece(writer: Writer, laid: Laid, dim: int) -> tuple[Laid, int]:
    """Return a tensor of which an axis is one axis of its node, and which one."""
    if len(laid.axes[dim]) > 1:
        laid = in_its_order(writer, laid)
        first = laid.axes[dim][0]
        merged = (*laid.pieces[:first], laid.size(dim), *laid.pieces[laid.axes[dim][-1] + 1 :])
        more = len(laid.axes[dim]) - 1
        axes = [tuple(one - more * (one > first) for one in axis) for axis in laid.axes]
        axes[dim] = (first,)
        laid = replace(laid, pieces=merged, axes=tuple(axes))
    whole = replace(laid, axes=tuple((one,) for one in range(len(laid.pieces))))
    return replace(laid, node=writer.in_order(whole, laid.pieces), shape=laid.pieces), laid.axes[dim][0]


def sliced(writer: Writer, node: fx.Node, given: Arguments) -> Value:
    """Read some places of an axis."""
    dim, start, end, step = (given.get(key) for key in ("dim", "start", "end", "step"))
    value = given["input"]
    if isinstance(value, Trained):
        whole = start in (None, 0) and end is not None and end >= value.shape[dim or 0]
        if not whole or step not in (None, 1):
            raise WritingError(f"it takes a part of the weight {value.name}", "make the weight as large as it is used")
        return value
    laid = rows(value)
    dim = (dim or 0) % len(laid.axes)
    start, end = start or 0, 2**63 - 1 if end is None else end
    if step not in (None, 1):
        raise WritingError("a slice with steps", "take each place, or use a stride")
    if ROWS in laid.axes[dim]:
        if start != 0 or not isinstance(end, int) or end < 2**62:
            raise LayoutError("it takes some of the rows of a batch")
        return laid
    size = laid.size(dim)
    return part(writer, node.name, laid, dim, start % size if start < 0 else start, end % size if end < 0 else end)


def part(writer: Writer, name: str, laid: Laid, dim: int, start: int, stop: int) -> Value:
    """Write the places of an axis from `start` to `stop`."""
    laid.in_row(dim)
    size = laid.size(dim)
    if start == 0 and stop >= size:
        return laid
    laid, piece = _as_piece(writer, laid, dim)
    found, shape = writer.call("slice", name, laid.node, axis=piece, start=start, stop=min(stop, size))
    laid = replace(laid, node=found, shape=shape, pieces=shape)
    if shape[piece] > 1:
        return laid
    axes = tuple(() if at == dim else _without(axis, piece) for at, axis in enumerate(laid.axes))
    return replace(laid, pieces=(*shape[:piece], *shape[piece + 1 :]), axes=axes)


def chunk(writer: Writer, node: fx.Node, given: Arguments) -> Value:
    """Read an axis that falls into several parts."""
    laid = rows(given["input"])
    dim = given["dim"] % len(laid.axes)
    size, most = laid.size(dim), given.get("chunks")
    sizes = -(-size // most) if most is not None else given.get("split_size", given.get("split_sizes"))
    ends = (
        range(sizes, size + sizes, sizes)
        if isinstance(sizes, int)
        else [sum(sizes[: at + 1]) for at in range(len(sizes))]
    )
    starts = [0, *ends][: len(ends)]
    used = _used(node)
    cut = zip(starts, ends, strict=True)
    return Parts(
        tuple(
            part(writer, f"{node.name}_{at}", laid, dim, start, stop) if at in used else None
            for at, (start, stop) in enumerate(cut)
        )
    )


def unbind(writer: Writer, node: fx.Node, given: Arguments) -> Value:
    """Read each place of an axis by itself."""
    laid, used = rows(given["input"]), _used(node)
    dim = given["dim"] % len(laid.axes)
    count = laid.size(dim)
    return Parts(
        tuple(taken(writer, f"{node.name}_{at}", laid, dim, at) if at in used else None for at in range(count))
    )


def _used(node: fx.Node) -> set[object]:
    """Return which results of a node something reads."""
    return {user.args[1] for user in node.users if user.users}


def item(writer: Writer, node: fx.Node, given: Arguments) -> Value:
    """Read one of several results."""
    parts, place = given["0"], given["1"]
    if not isinstance(parts, Parts):
        raise WritingError("it takes a part of something that has none", "take a place of a tensor")
    found = parts.of[place] if place < len(parts.of) else None
    if found is None and node.users:
        raise WritingError("it reads the cells of an LSTM", "read its states: the first or the second result")
    return Zeros() if found is None else found


def expanded(writer: Writer, node: fx.Node, given: Arguments) -> Value:
    """Read an expand that repeats nothing."""
    laid = rows(given["input"])
    sizes = [size_of(one) for one in node.meta["val"].shape]
    if sizes != [(laid.size(at), ROWS in axis) for at, axis in enumerate(laid.axes)]:
        raise WritingError("it repeats numbers along an axis", "add or multiply: shapes broadcast")
    return laid


def stacked(writer: Writer, node: fx.Node, given: Arguments) -> Value:
    """Read tensors side by side along a new axis."""
    parts = [rows(one) for one in given["tensors"]]
    dim = given["dim"] % (len(parts[0].axes) + 1)
    return cat(writer, node, {"tensors": [with_axis(one, dim) for one in parts], "dim": dim})


def cat(writer: Writer, node: fx.Node, given: Arguments) -> Value:
    """Read tensors one after the other."""
    parts = [rows(one) for one in given["tensors"]]
    dim = given["dim"] % len(parts[0].axes)
    axis = parts[0].in_row(dim)
    if any(one.rows_at != parts[0].rows_at or one.axes[one.rows_at] != (ROWS,) for one in parts):
        raise LayoutError("its tensors have the rows of a batch in different axes")
    names = [writer.in_order(one) for one in parts]
    if len(names) == 1:
        return parts[0]
    name, shape = writer.call("cat", node.name, names[0], others=tuple(names[1:]), axis=axis)
    return fresh(name, shape, parts[0].rows_at, is_whole=parts[0].is_whole)
