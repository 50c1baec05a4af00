"""An autoencoder: features through a narrow layer, and out again. Rows that it gives badly again are unlike the others.

Hinton and Salakhutdinov, Science 313, 2006.
"""

from collections.abc import Mapping

from policies.networks.graph import Graph, Input
from policies.networks.shipped.shipped import Shipped
from policies.networks.shipped.sizes import ACTIVATION, RELU_GAIN, Layers, sizes, sizes_option
from policies.options import whole_option


def _graph(options: Mapping[str, str], inputs: tuple[Input, ...], out: int) -> Graph:
    layers, widths, kind = Layers(inputs[0]), sizes(options["hidden"]), options["activation"]
    for place, width in enumerate(widths):
        layers.linear(f"encoder.{place}", width, RELU_GAIN)
        layers.activation(f"encoder.{place}.{kind}", kind)
    layers.linear("latent", int(options["latent"]))
    layers.hidden(widths[::-1], kind, out, prefix="decoder")
    return layers.graph(inputs)


AUTOENCODER = Shipped(
    _graph,
    {"activation": ACTIVATION, "hidden": sizes_option("32"), "latent": whole_option("4", 1, 4096)},
    labels=frozenset({"bool"}),
    is_dense=True,
    has_reconstruction=True,
)
