"""A language model: which word follows the last ones, by an LSTM over their vectors, from an array of whole numbers.

Mikolov, Karafiat, Burget, Cernocky and Khudanpur, Interspeech 2010, with the cells of Hochreiter and Schmidhuber, 1997.
"""

import math
from collections.abc import Mapping

from policies.networks.calls import Embedding, Recurrent, Select
from policies.networks.graph import Graph, Input, Weight
from policies.networks.shipped.shipped import Shipped
from policies.networks.shipped.sizes import DROPOUT, Layers, drawn
from policies.options import choice_option, whole_option

_GATES = {"lstm": 4, "gru": 3}


def _graph(options: Mapping[str, str], inputs: tuple[Input, ...], out: int) -> Graph:
    if len(inputs) != 1 or len(inputs[0].shape) != 1 or inputs[0].below is None:
        found = ", ".join(str(list(one.shape)) for one in inputs)
        raise ValueError(f"language-model takes one feature, an array of int of the last words, [words], found {found}")
    embedding, size, depth = (int(options[name]) for name in ("embedding", "size", "layers"))
    (words,) = inputs[0].shape
    layers = Layers(inputs[0])
    table = drawn("words.weight", (inputs[0].below, embedding), 1)
    layers.add(lambda of: Embedding(name="words", of=of, weight=table.name, padding=None), (words, embedding), table)
    parts = tuple(_recurrent(options["cell"], embedding, size, depth))
    layers.add(
        lambda of: Recurrent(
            call=options["cell"],  # type: ignore[arg-type]
            name="recurrent",
            of=of,
            gives="last",
            size=size,
            layers=depth,
            is_bidirectional=False,
            has_bias=True,
            parts=tuple(one.name for one in parts),
        ),
        (depth, size),
        *parts,
    )
    layers.add(lambda of: Select(name="last", of=of, axis=0, at=depth - 1), (size,))
    layers.dropout("last.dropout", options["dropout"])
    layers.linear("head", out)
    return layers.graph(inputs)


def _recurrent(cell: str, width: int, size: int, depth: int) -> list[Weight]:
    """Return the weights of the layers in torch's order and by its names; each begins within 1 / root of the size."""
    found, gates, bound = list[Weight](), _GATES[cell] * size, f"{1 / math.sqrt(size):.9f}"
    for layer in range(depth):
        shapes = {"weight_ih": (gates, size if layer else width), "weight_hh": (gates, size)}
        for name, shape in (shapes | {"bias_ih": (gates,), "bias_hh": (gates,)}).items():
            found.append(Weight(name=f"recurrent.{name}_l{layer}", shape=shape, initial="uniform", bound=bound))
    return found


LANGUAGE_MODEL = Shipped(
    _graph,
    {
        "cell": choice_option("lstm", "lstm", "gru"),
        "dropout": DROPOUT,
        "embedding": whole_option("32", 1, 4096),
        "layers": whole_option("1", 1, 8),
        "size": whole_option("64", 1, 4096),
    },
    labels=frozenset({"text"}),
    features=frozenset({"array"}),
    has_wholes=True,
)
