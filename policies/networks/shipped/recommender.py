"""A recommender: each text has a vector of its own for each value, and a perceptron joins them with numbers and bools.

The products of the vectors of the first two texts, such as a person's group and an item, are inputs too: He, Liao,
Zhang, Nie, Hu and Chua, "Neural collaborative filtering", WWW 2017.
"""

from collections.abc import Callable, Mapping

from policies.networks.calls import AnyCall, Cat, Embedding, Pairwise, Reshape
from policies.networks.graph import MAX_INPUTS, Graph, Input
from policies.networks.shipped.shipped import Shipped
from policies.networks.shipped.sizes import ACTIVATION, DROPOUT, Layers, drawn, sizes, sizes_option
from policies.options import whole_option

_SMALL = 0.1  # the deviation of the first numbers of a vector


def _graph(options: Mapping[str, str], inputs: tuple[Input, ...], out: int) -> Graph:
    texts, size = [one.name for one in inputs if one.below is not None], int(options["embedding"])
    if not texts or len(inputs) > MAX_INPUTS:
        what = f"at most {MAX_INPUTS} features, of which one is a text"
        raise ValueError(f"recommender takes {what}, found {len(inputs)} with {len(texts)} texts")
    layers, parts, width = Layers(inputs[0]), [], 0
    for one in inputs:
        layers.at, name = one.name, f"{'embeddings' if one.below else 'numbers'}.{one.name}"
        if one.below is not None:
            table = drawn(f"{name}.weight", (one.below, size), 1, _SMALL)
            layers.add(_embedding(name, table.name), (size,), table)
        else:
            layers.add(_row(name), (1,))
        parts.append(layers.at)
        width += layers.shape[0]
    if len(texts) > 1:
        first, second = (f"embeddings.{name}" for name in texts[:2])
        layers.calls.append(Pairwise(call="mul", name="products", of=first, other=second, weight=None))
        parts.append("products")
        width += size
    if len(parts) > 1:
        layers.at = parts[0]
        layers.add(lambda of: Cat(name="joined", of=of, others=tuple(parts[1:]), axis=0), (width,))
    layers.hidden(sizes(options["hidden"]), options["activation"], out, drop=options["dropout"])
    return layers.graph(inputs)


def _embedding(name: str, table: str) -> Callable[[str], AnyCall]:
    return lambda of: Embedding(name=name, of=of, weight=table, padding=None)


def _row(name: str) -> Callable[[str], AnyCall]:
    return lambda of: Reshape(name=name, of=of, shape=(1,))


RECOMMENDER = Shipped(
    _graph,
    {
        "activation": ACTIVATION,
        "dropout": DROPOUT,
        "embedding": whole_option("16", 1, 4096),
        "hidden": sizes_option("32"),
    },
    features=frozenset({"bool", "text", "number"}),
)
