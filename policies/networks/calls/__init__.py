"""The calls that a graph may have, each a strict message: its arguments, the shape of its result and what it takes.

Whatever packed a graph, a silo decodes it into these messages and nothing else, and checks each again. The names and
arguments are those of torch.nn.functional; `silo_node.training.networks.interpreter` computes them.
"""

from typing import Annotated

from pydantic import Field

from policies.networks.calls.axes import Cat, Flatten, Permute, Reshape, Select, Slice
from policies.networks.calls.call import Call, Known, Number, Ref
from policies.networks.calls.elements import Elementwise, Pairwise, Reduce, Scale, Sloped
from policies.networks.calls.images import Conv1d, Conv2d, Pool1d, Pool2d
from policies.networks.calls.norms import Dropout, GroupNorm, LayerNorm, Softmax
from policies.networks.calls.products import Embedding, Linear, MatMul, Positions
from policies.networks.calls.sequences import Attention, Recurrent

LISTED: tuple[type[Call], ...] = (
    Attention,
    Cat,
    Conv1d,
    Conv2d,
    Dropout,
    Elementwise,
    Embedding,
    Flatten,
    GroupNorm,
    LayerNorm,
    Linear,
    MatMul,
    Pairwise,
    Permute,
    Pool1d,
    Pool2d,
    Positions,
    Recurrent,
    Reduce,
    Reshape,
    Scale,
    Select,
    Slice,
    Sloped,
    Softmax,
)
AnyCall = Annotated[
    Attention
    | Cat
    | Conv1d
    | Conv2d
    | Dropout
    | Elementwise
    | Embedding
    | Flatten
    | GroupNorm
    | LayerNorm
    | Linear
    | MatMul
    | Pairwise
    | Permute
    | Pool1d
    | Pool2d
    | Positions
    | Recurrent
    | Reduce
    | Reshape
    | Scale
    | Select
    | Slice
    | Sloped
    | Softmax,
    Field(discriminator="call"),
]

__all__ = [
    "LISTED",
    "AnyCall",
    "Attention",
    "Call",
    "Cat",
    "Conv1d",
    "Conv2d",
    "Dropout",
    "Elementwise",
    "Embedding",
    "Flatten",
    "GroupNorm",
    "Known",
    "LayerNorm",
    "Linear",
    "MatMul",
    "Number",
    "Pairwise",
    "Permute",
    "Pool1d",
    "Pool2d",
    "Positions",
    "Recurrent",
    "Reduce",
    "Ref",
    "Reshape",
    "Scale",
    "Select",
    "Slice",
    "Sloped",
    "Softmax",
]
