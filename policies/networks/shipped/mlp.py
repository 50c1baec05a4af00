"""A multilayer perceptron: linear layers with an activation between each two, of the dense design."""

from collections.abc import Mapping

from policies.networks.graph import Graph, Input
from policies.networks.shipped.shipped import Shipped
from policies.networks.shipped.sizes import ACTIVATION, DROPOUT, RELU_GAIN, Layers, sizes, sizes_option
from policies.options import choice_option


def _graph(options: Mapping[str, str], inputs: tuple[Input, ...], out: int) -> Graph:
    layers, kind = Layers(inputs[0]), options["activation"]
    for place, width in enumerate(widths := sizes(options["hidden"])):
        layers.linear(f"layers.{place}", width, RELU_GAIN)
        if options["norm"] == "layer":
            layers.norm(f"norms.{place}")
        layers.activation(f"layers.{place}.{kind}", kind)
        layers.dropout(f"layers.{place}.dropout", options["dropout"])
    layers.linear(f"layers.{len(widths)}", out)
    return layers.graph(inputs)


MLP = Shipped(
    _graph,
    {
        "activation": ACTIVATION,
        "dropout": DROPOUT,
        "hidden": sizes_option("64"),
        "norm": choice_option("none", "none", "layer"),
    },
    is_dense=True,
)
