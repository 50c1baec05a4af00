"""Readers of calls on numbers one by one, on pairs of tensors, and over axes."""

from dataclasses import replace

import torch
from torch import fx

from analyst.networks.arguments import (
    Arguments,
    Reader,
    alone,
    in_its_order_as,
    rows,
)
from analyst.networks.layout import Laid, LayoutError, fresh
from analyst.networks.writing import Places, Trained, Value, Writer, WritingError, decimal


def unary(kind: str) -> Reader:
    """Return a reader of a call that computes each number by itself, wherever it lies."""

    def read(writer: Writer, node: fx.Node, given: Arguments) -> Value:
        laid = rows(given["input"])
        return replace(laid, node=writer.call(kind, node.name, laid.node)[0])

    return read


def gelu(writer: Writer, node: fx.Node, given: Arguments) -> Value:
    """Read gelu, exact or by tanh."""
    return unary("gelu_tanh" if given["approximate"] == "tanh" else "gelu")(writer, node, given)


def softplus(writer: Writer, node: fx.Node, given: Arguments) -> Value:
    """Read softplus."""
    if given["beta"] != 1 or given["threshold"] != 20:
        raise WritingError("softplus with a beta or threshold of its own", "use nn.Softplus()")
    return unary("softplus")(writer, node, given)


def sloped(kind: str, key: str) -> Reader:
    """Return a reader of an activation with a number of its own."""

    def read(writer: Writer, node: fx.Node, given: Arguments) -> Value:
        laid = rows(given["input"])
        if given.get("scale", 1) != 1 or given.get("input_scale", 1) != 1:
            raise WritingError("elu with a scale of its own", "use nn.ELU()")
        return replace(laid, node=writer.call(kind, node.name, laid.node, slope=decimal(given[key]))[0])

    return read


def scaled(writer: Writer, node: fx.Node, laid: Laid, times: float = 1, over: float = 1, plus: float = 0) -> Value:
    """Write each number times, over and plus a number."""
    numbers = {"times": decimal(times), "over": decimal(over), "plus": decimal(plus)}
    return replace(laid, node=writer.call("scale", node.name, laid.node, **numbers)[0])


def negated(writer: Writer, node: fx.Node, given: Arguments) -> Value:
    """Read -x."""
    return scaled(writer, node, rows(given["input"]), times=-1)


def divided(writer: Writer, node: fx.Node, given: Arguments) -> Value:
    """Read x / number."""
    other = given["other"]
    if not isinstance(other, int | float):
        raise WritingError("it divides by a tensor", "divide by a number, or multiply")
    return scaled(writer, node, rows(given["input"]), over=other)


def from_number(writer: Writer, node: fx.Node, given: Arguments) -> Value:
    """Read number - x."""
    negative = rows(scaled(writer, node, rows(given["input"]), times=-1))
    return scaled(writer, node, negative, plus=given["other"])


def pairwise(kind: str) -> Reader:
    """Return a reader of a sum, difference or product of two nodes, or of one with a weight or a number."""

    def read(writer: Writer, node: fx.Node, given: Arguments) -> Value:
        left, right = given["input"], given["other"]
        if given.get("alpha", 1) != 1:
            raise WritingError("alpha is not 1", "multiply before")
        if not isinstance(left, Laid) and kind == "sub":  # a - b is -b + a, to the last bit
            laid = rows(scaled(writer, node, rows(right), times=-1))
            return pairwise("add")(writer, node, {"input": laid, "other": left})
        if not isinstance(left, Laid):
            left, right = right, left
        laid = rows(left)
        if isinstance(right, int | float):
            by = {"add": {"plus": right}, "sub": {"plus": -right}, "mul": {"times": right}}[kind]
            return scaled(writer, node, laid, **by)
        if isinstance(right, Laid):
            return _of_two(writer, node, kind, laid, right)
        return _with_weight(writer, node, kind, laid, right)

    return read


def _of_two(writer: Writer, node: fx.Node, kind: str, left: Laid, right: Laid) -> Value:
    alike = replace(right, node=left.node) == left
    if alike:  # number by number, wherever they lie
        return replace(left, node=writer.call(kind, node.name, left.node, other=right.node, weight=None)[0])
    count = max(len(left.axes), len(right.axes))
    if count - len(left.axes) + left.rows_at != count - len(right.axes) + right.rows_at:
        raise LayoutError("its two tensors have the rows of a batch in different axes")
    names = writer.in_order(alone(left)), writer.in_order(alone(right))
    name, shape = writer.call(kind, node.name, names[0], other=names[1], weight=None)
    return fresh(name, shape, max(left.rows_at, right.rows_at))


def _with_weight(writer: Writer, node: fx.Node, kind: str, laid: Laid, right: object) -> Value:
    if isinstance(right, Places):
        places, _ = writer.call("positions", f"{node.name}_places", writer.in_order(laid), weight=right.weight.name)
        return _of_two(writer, node, kind, laid, fresh(places, (right.count, right.weight.shape[1])))
    behind = (
        len(alone(laid).axes) - laid.rows_at - 1
    )  # axes behind the rows, which a weight must leave out or have as 1
    if isinstance(right, torch.Tensor):
        if right.dim() > behind:
            if right.shape[right.dim() - behind - 1] != 1:
                raise LayoutError("a constant has numbers for each row of a batch")
            right = right.squeeze(right.dim() - behind - 1)
        name = writer.constant(f"{node.name}_constant", right.to(torch.float32))
    elif isinstance(right, Trained):
        if laid.rows_at > 0 and len(right.shape) > behind:
            raise LayoutError(f"the weight {right.name} has an axis for the rows of a batch, which are not the first")
        name = right.name
    else:
        raise WritingError("it computes on no input of the network", "compute it before, as a buffer of the module")
    found, shape = writer.call(kind, node.name, writer.in_order(laid), other=None, weight=name)
    return fresh(found, shape, laid.rows_at)


def reduced(kind: str) -> Reader:
    """Return a reader of a mean, sum or largest number over axes."""

    def read(writer: Writer, node: fx.Node, given: Arguments) -> Value:
        laid, keep = rows(given["input"]), given.get("keepdim", False)
        if not (asked := given.get("dim")) and asked != 0:
            raise LayoutError("it computes over the rows of a batch")
        dims = sorted({one % len(laid.axes) for one in ((asked,) if isinstance(asked, int) else asked)})
        places = [laid.in_row(one) for one in dims]
        alone(laid)
        name, shape = writer.call(kind, node.name, writer.in_order(laid), axes=tuple(places), keep=keep)
        return fresh(name, shape, laid.rows_at - (0 if keep else sum(one < laid.rows_at for one in dims)))

    return read


def softmax(kind: str) -> Reader:
    """Return a reader of a softmax or its logarithm."""

    def read(writer: Writer, node: fx.Node, given: Arguments) -> Value:
        laid = rows(given["input"])
        axis = laid.in_row(given["dim"] % len(laid.axes))
        row = laid.row
        name, _ = writer.call(kind, node.name, writer.in_order(laid), axis=axis)
        return in_its_order_as(laid, name, row)

    return read


def dropout(writer: Writer, node: fx.Node, given: Arguments) -> Value:
    """Read dropout; whether it drops is the interpreter's to say."""
    laid, share = rows(given["input"]), given["p"]
    if share == 0:
        return laid
    return replace(laid, node=writer.call("dropout", node.name, laid.node, share=decimal(share))[0])


def as_it_is(writer: Writer, node: fx.Node, given: Arguments) -> Value:
    """Read what leaves numbers as they are."""
    value = given["input"]
    if isinstance(value, Laid):
        is_whole = not node.meta["val"].dtype.is_floating_point
        if is_whole != value.is_whole:
            raise WritingError("it changes whole numbers into reals, or back", "give the network an input of that kind")
        if node.meta["val"].dtype not in (torch.float32, torch.int64, torch.int32):
            raise WritingError(f"it computes in {node.meta['val'].dtype}", "compute in float32")
    found: Value = value
    return found
