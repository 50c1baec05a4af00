"""What readers of torch's calls have in common: arguments by name, and tensors of rows among them."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import fx

from analyst.networks.layout import ROWS, Laid, LayoutError
from analyst.networks.writing import Trained, Value, Writer, WritingError
from policies.networks.values import Shape

Arguments = Mapping[str, Any]  # by the names that torch gives them; nodes are values already
Reader = Callable[[Writer, fx.Node, Arguments], Value]  # raises WritingError or LayoutError for what no call computes


def rows(value: object) -> Laid:
    """Return a tensor that depends on the rows; raises WritingError for any other."""
    if isinstance(value, Laid):
        return value
    if isinstance(value, Trained):
        raise WritingError(f"it computes on the weight {value.name} alone", "use a weight by a layer, as it stands")
    raise WritingError("it computes on no input of the network", "compute it before, as a buffer of the module")


def in_its_order_as(laid: Laid, name: str, row: Shape) -> Laid:
    """Return a tensor of the same axes, whose node has its numbers in order."""
    places = {one: at for at, one in enumerate(laid.order)}
    axes = tuple(tuple(one if one == ROWS else places[one] for one in axis) for axis in laid.axes)
    return Laid(name, row, tuple(laid.pieces[one] for one in laid.order), axes)


def rows_first(laid: Laid, axes: int | None = None) -> Laid:
    """Return a tensor whose rows are its first axis, alone; raises LayoutError for any other."""
    if laid.axes[0] != (ROWS,) or (axes is not None and len(laid.axes) != axes):
        raise LayoutError("it takes an axis of something else for the rows of a batch, which come first")
    return laid


def each(value: Any, axes: int) -> tuple[int, ...]:
    """Return a number for each axis: torch takes one for all."""
    found = (value,) if isinstance(value, int) else tuple(value)
    return found * axes if len(found) == 1 else found


def weight_name(value: object) -> str:
    """Return the name of a weight; raises WritingError for anything that is computed."""
    if not isinstance(value, Trained):
        raise WritingError("the weight of a layer is computed", "use a weight as it stands")
    return value.name


def weight_or_none(value: object) -> str | None:
    """Return the name of a weight, if there is one."""
    return None if value is None else weight_name(value)


def in_its_order(writer: Writer, laid: Laid) -> Laid:
    """Return a tensor whose node has its numbers in its order."""
    return in_its_order_as(laid, writer.in_order(laid), laid.row)


def alone(laid: Laid) -> Laid:
    """Return a tensor; raises LayoutError unless one axis has its rows and nothing else."""
    if laid.axes[laid.rows_at] != (ROWS,):
        raise LayoutError("one axis has the rows of a batch and something else")
    return laid
