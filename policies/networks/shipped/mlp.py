"""A multilayer perceptron: linear layers with an activation between each two, of the dense design."""

from collections.abc import Mapping

from policies.networks.graph import Graph, Input
from policies.networks.shipped.shipped import Shipped
from policies.networks.shipped.sizes import ACTIVATION, Layers, sizes, sizes_option


def _graph(options: Mapping[str, str], inputs: tuple[Input, ...], out: int) -> Graph:
    (dense,) = inputs
    layers = Layers(dense.name, dense.shape[0])
    layers.hidden(sizes(options["hidden"]), options["activation"], out)
    return Graph(inputs=inputs, weights=tuple(layers.weights), calls=tuple(layers.calls), output=layers.at)


MLP = Shipped(_graph, {"activation": ACTIVATION, "hidden": sizes_option("64")})
