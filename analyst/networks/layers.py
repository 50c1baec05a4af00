"""Readers of layers: products, tables, convolutions, pooling, norms, recurrent layers and attention."""

from dataclasses import replace
from math import prod
from typing import Any

import torch
from torch import fx

from analyst.networks.arguments import (
    Arguments,
    Reader,
    alone,
    each,
    in_its_order,
    in_its_order_as,
    rows,
    rows_first,
    weight_name,
    weight_or_none,
)
from analyst.networks.layout import ROWS, Laid, LayoutError, fresh
from analyst.networks.writing import Parts, Places, Trained, Value, Writer, WritingError, Zeros, decimal
from policies.networks.values import Shape


def linear(writer: Writer, node: fx.Node, given: Arguments) -> Value:
    """Read a linear layer over the last axis."""
    laid, weight = rows(given["input"]), weight_name(given["weight"])
    laid = _with_last(writer, laid)
    name, shape = writer.call("linear", node.name, laid.node, weight=weight, bias=weight_or_none(given["bias"]))
    return _with_new_last(laid, name, shape)


def _with_last(writer: Writer, laid: Laid) -> Laid:
    """Return a tensor whose last axis is the last one of its node."""
    width = laid.size(len(laid.axes) - 1)
    last = tuple(range(len(laid.pieces) - len(laid.axes[-1]), len(laid.pieces)))
    if laid.axes[-1] == last and laid.shape and laid.shape[-1] == width:
        return laid
    if laid.axes[laid.rows_at] != (ROWS,):  # in one axis with something else: each of it is an axis of a row
        row = (*(laid.pieces[one] for one in laid.order if one not in laid.axes[-1]), width)
        places = {one: at for at, one in enumerate(laid.order)}
        axes = tuple(tuple(one if one == ROWS else places[one] for one in axis) for axis in laid.axes)
        return Laid(writer.in_order(laid, row), row, tuple(laid.pieces[one] for one in laid.order), axes, laid.is_whole)
    return fresh(writer.in_order(laid), laid.row, laid.rows_at, is_whole=laid.is_whole)


def _with_new_last(laid: Laid, name: str, shape: Shape) -> Laid:
    """Return a tensor with another last axis, and all others where they are."""
    kept = laid.pieces[: len(laid.pieces) - len(laid.axes[-1])]
    last = (len(kept),) if shape[-1] > 1 else ()
    return Laid(name, shape, kept + (shape[-1:] if last else ()), (*laid.axes[:-1], last))


def embedding(writer: Writer, node: fx.Node, given: Arguments) -> Value:
    """Read an embedding, of an input or of 0, 1, 2, ..."""
    weight, index = given["weight"], given["indices"]
    if not isinstance(weight, Trained):
        raise WritingError("the table of an embedding is no weight", "use nn.Embedding")
    if isinstance(index, torch.Tensor):
        count = index.numel()
        if index.reshape(-1).tolist() != list(range(count)) or index.dim() > 2 or index.shape[-1] != count:
            raise WritingError("it looks up places that are not 0, 1, 2, ...", "use torch.arange")
        return weight if count == weight.shape[0] else Places(weight, count)
    laid = rows(index)
    padding = None if given["padding_idx"] < 0 else given["padding_idx"]
    name, shape = writer.call("embedding", node.name, laid.node, weight=weight.name, padding=padding)
    last = (len(laid.pieces),) if shape[-1] > 1 else ()
    return Laid(name, shape, laid.pieces + (shape[-1:] if last else ()), (*laid.axes, last))


def window(kind: str, axes: int) -> Reader:
    """Return a reader of a convolution or a pooling over the last axes."""

    def read(writer: Writer, node: fx.Node, given: Arguments) -> Value:
        laid = rows_first(rows(given["input"]), axes + 2)
        arguments: dict[str, Any] = {"stride": each(given["stride"] or given.get("kernel_size"), axes)}
        if kind.startswith("conv"):
            arguments |= {"weight": weight_name(given["weight"]), "bias": weight_or_none(given["bias"])}
            arguments |= {"groups": given["groups"], "dilation": each(given["dilation"], axes)}
            wide = given["weight"].shape[2:]
            arguments["padding"] = _padding(given["padding"], wide, arguments["dilation"])
        else:
            if given.get("ceil_mode") or not given.get("count_include_pad", True) or given.get("divisor_override"):
                raise WritingError("pooling with a ceil_mode, divisor or count of its own", "leave them as they are")
            if any(one != 1 for one in each(given.get("dilation", 1), axes)):
                raise WritingError("pooling with a dilation", "leave it out")
            arguments |= {"window": each(given["kernel_size"], axes), "padding": each(given["padding"], axes)}
        return fresh(*writer.call(kind, node.name, writer.in_order(laid), **arguments))

    return read


def _padding(padding: Any, wide: Shape, dilation: tuple[int, ...]) -> tuple[int, ...]:
    if not isinstance(padding, str):
        return each(padding, len(wide))
    if padding == "valid":
        return (0,) * len(wide)
    whole = [one * (size - 1) for one, size in zip(dilation, wide, strict=True)]
    if any(one % 2 for one in whole):
        raise WritingError("padding 'same' of an even window pads one side more", "use an odd window")
    return tuple(one // 2 for one in whole)


def pooled(axes: int) -> Reader:
    """Return a reader of an adaptive mean to one place."""

    def read(writer: Writer, node: fx.Node, given: Arguments) -> Value:
        if any(one != 1 for one in each(given["output_size"], axes)):
            raise WritingError("an adaptive pooling to more than one place", "use nn.AvgPool2d or nn.AvgPool1d")
        laid = rows_first(rows(given["input"]), axes + 2)
        over = tuple(range(1, axes + 1))
        return fresh(*writer.call("mean", node.name, writer.in_order(laid), axes=over, keep=True))

    return read


def layer_norm(writer: Writer, node: fx.Node, given: Arguments) -> Value:
    """Read a layer norm."""
    laid, count = rows(given["input"]), len(given["normalized_shape"])
    laid = _with_last(writer, laid) if count == 1 else in_its_order(writer, alone(laid))
    weights = {"weight": weight_or_none(given["weight"]), "bias": weight_or_none(given["bias"])}
    name, _ = writer.call("layer_norm", node.name, laid.node, axes=count, eps=decimal(given["eps"]), **weights)
    return replace(laid, node=name)


def group_norm(writer: Writer, node: fx.Node, given: Arguments) -> Value:
    """Read a group norm."""
    laid = rows_first(rows(given["input"]))
    weights = {"weight": weight_or_none(given["weight"]), "bias": weight_or_none(given["bias"])}
    norm = {"groups": given["num_groups"], "eps": decimal(given["eps"])}
    return fresh(*writer.call("group_norm", node.name, writer.in_order(laid), **norm, **weights))


def matmul(writer: Writer, node: fx.Node, given: Arguments) -> Value:
    """Read the product of two tensors of rows."""
    left, right = rows(given["input"]), rows(given.get("other", given.get("mat2")))
    alike = len(left.axes) == len(right.axes) and left.rows_at == right.rows_at
    if not alike or left.rows_at >= len(left.axes) - 2:
        raise LayoutError("its product is over the rows of a batch, or its two tensors have them in different axes")
    if (left.axes[left.rows_at] == (ROWS,)) != (right.axes[right.rows_at] == (ROWS,)):
        raise LayoutError("one of its tensors has the rows of a batch and something else in one axis")
    left = in_its_order(writer, left)
    name, shape = writer.call("matmul", node.name, left.node, other=writer.in_order(right))
    return _with_new_last(left, name, shape)


def attention(writer: Writer, node: fx.Node, given: Arguments) -> Value:
    """Read torch's attention."""
    query, key, value = (rows(given[name]) for name in ("query", "key", "value"))
    if given["enable_gqa"]:
        raise WritingError("attention with enable_gqa", "give it as many heads of keys as of queries")
    if any(ROWS in axis for one in (query, key, value) for axis in one.axes[-2:]):
        raise LayoutError("its attention is between the rows of a batch")
    causal = given["is_causal"] or _is_causal_mask(given["attn_mask"])
    names = [writer.in_order(one) for one in (query, key, value)]
    how = {"is_causal": causal, "drop": decimal(given["dropout_p"])}
    how["scale"] = None if given["scale"] is None else decimal(given["scale"])
    name, shape = writer.call("attention", node.name, names[0], key=names[1], value=names[2], **how)
    if query.axes[query.rows_at] == (ROWS,):
        return fresh(name, shape, query.rows_at)
    laid = in_its_order_as(query, name, query.row)
    return _with_new_last(laid, name, shape)


def _is_causal_mask(mask: object) -> bool:
    if mask is None:
        return False
    hint = "give it is_causal=True, or no mask"
    if not isinstance(mask, torch.Tensor) or mask.dim() < 2:
        raise WritingError("attention with a mask that depends on rows or weights", hint)
    size = mask.shape[-2:]
    seen = mask.bool() if mask.dtype == torch.bool else mask == 0
    hidden = ~mask if mask.dtype == torch.bool else mask == float("-inf")
    if mask.numel() != prod(size) or not torch.equal(seen.reshape(size), torch.ones(size).tril().bool()):
        raise WritingError("attention with a mask that is not causal", hint)
    if not torch.equal(hidden.reshape(size), ~seen.reshape(size)):
        raise WritingError("attention with a mask that is not causal", hint)
    return True


def recurrent(kind: str) -> Reader:
    """Return a reader of an LSTM or a GRU: its states at each place, its last ones, and no cells."""

    def read(writer: Writer, node: fx.Node, given: Arguments) -> Value:
        laid, first = rows(given["input"]), given["batch_first"]
        begun = given["hx"] if isinstance(given["hx"], list | tuple) else [given["hx"]]
        if not all(isinstance(one, Zeros) for one in begun):
            raise WritingError("it begins with states of its own", "leave the first states out: they are zeros")
        if given["dropout"]:
            raise WritingError(f"{kind} with dropout between its layers", "use two layers with nn.Dropout between")
        if len(laid.axes) != 3 or laid.axes[0 if first else 1] != (ROWS,):
            raise LayoutError("it runs over the rows of a batch; say batch_first=True where the rows are first")
        parts = tuple(weight_name(one) for one in given["params"])
        layers, both, bias = given["num_layers"], given["bidirectional"], given["has_biases"]
        states = writer.known[parts[1]].shape
        how = {"size": states[-1], "layers": layers, "is_bidirectional": both, "has_bias": bias, "parts": parts}
        read_by = {user.args[1] for user in node.users if user.users}
        found: list[Value | None] = [None, None, None]
        for place, gives in enumerate(("sequence", "last")):
            if place in read_by:
                name, shape = writer.call(kind, f"{node.name}_{gives}", writer.in_order(laid), gives=gives, **how)
                found[place] = fresh(name, shape, 1 if place or not first else 0)
        return Parts(tuple(found))

    return read
