"""What a network cannot have, by node and by line of the file that it is in, and what to use in its place."""

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from torch import fx

from analyst.errors import AnalystError

LISTED = "docs/networks.md lists what a network can have"
_GROUP_NORM = "use nn.GroupNorm or nn.LayerNorm, which scale each row by itself"
_DROPOUT = "use nn.Dropout: a network draws nothing else"
_BRANCH = "a network takes no branch: use products and sums"
# By a part of the name of a call of torch.
INSTEAD: Mapping[str, str] = MappingProxyType(
    {
        "instance_norm": _GROUP_NORM,
        "feature_dropout": _DROPOUT,
        "alpha_dropout": _DROPOUT,
        "adaptive_max_pool": "use torch.amax over those axes",
        "max.dim": "use torch.amax",
        "rnn_tanh": "use nn.GRU or nn.LSTM",
        "rnn_relu": "use nn.GRU or nn.LSTM",
        "gru_cell": "use nn.GRU",
        "lstm_cell": "use nn.LSTM",
        "embedding_bag": "use nn.Embedding, and the mean over the places",
        "pow": "write x * x",
        "square": "write x * x",
        "rand": _DROPOUT,
        "bernoulli": _DROPOUT,
        "einsum": "use nn.Linear or torch.matmul",
        "detach": "name what is trained in the job's `shared` instead",
        "index": "take a fixed place, such as x[:, 0], or use nn.Embedding",
        "where": _BRANCH,
        "masked_fill": _BRANCH,
        "constant_pad": "use the padding of the convolution or the pooling",
        "conv_transpose": "use nn.Linear and a view",
        "conv3d": "use nn.Conv2d",
    }
)


class PackError(AnalystError):
    """A network that cannot be packed; names the node and the line."""


def place(node: fx.Node, file: Path) -> str:
    """Return what names a node: the last line of the user's file that led to it, and its name."""
    lines = re.findall(r'File "([^"]+)", line (\d+)', node.meta.get("stack_trace") or "")
    own = [line for path, line in lines if Path(path).name == file.name]
    return f"{file.name}:{own[-1]}: {node.name}" if own else node.name


def not_listed(node: fx.Node, file: Path) -> PackError:
    """Return why a node is refused that no listed call computes."""
    name = str(node.target)
    if not name.startswith("aten."):
        return PackError(f"{place(node, file)}: {name} is an operator of its own, which no silo has", LISTED)
    hint = next((what for part, what in INSTEAD.items() if part in name), LISTED)
    return PackError(f"{place(node, file)}: {name} is not listed", hint)


def check_kinds(graph: fx.Graph, file: Path) -> None:
    """Raise PackError at the first batch norm, which sees other rows, or else at the first write in place."""
    calls = [(node, str(node.target).split(".")) for node in graph.nodes if node.op == "call_function"]
    for node, name in calls:
        if "batch_norm" in name[1:2]:
            raise PackError(f"{place(node, file)}: batch norm takes means over the rows of a batch", _GROUP_NORM)
    for node, name in calls:
        if name[0] == "aten" and name[1].endswith("_"):
            plain = name[1].removesuffix("_")
            hint = f"use {plain} without inplace=True; write x = x + y in the place of x += y"
            raise PackError(f"{place(node, file)}: {name[1]} writes in place", hint)
