"""A convolutional network of images: convolutions, each with an activation and a pooling, and then linear layers.

LeCun, Bottou, Bengio and Haffner, Proceedings of the IEEE 86, 1998. Norms, where there are any, are of groups of
channels, as a norm over a batch would couple its rows (Wu and He, ECCV 2018).
"""

from collections.abc import Mapping
from math import gcd

from policies.networks.calls import Conv2d, Pool2d, Reshape
from policies.networks.graph import Graph, Input
from policies.networks.shipped.shipped import Shipped
from policies.networks.shipped.sizes import (
    ACTIVATION,
    DROPOUT,
    RELU_GAIN,
    Layers,
    drawn,
    sizes,
    sizes_option,
    zeros,
)
from policies.options import choice_option, whole_option

_GROUPS = 8  # of channels in a norm, where so many divide them
_POOLED = 2  # places of a pooling along each axis


def _graph(options: Mapping[str, str], inputs: tuple[Input, ...], out: int) -> Graph:
    if len(inputs) != 1 or len(inputs[0].shape) not in (2, 3):
        found = ", ".join(str(list(one.shape)) for one in inputs)
        raise ValueError(
            f"cnn takes one feature, an array of [height, width] or [channels, height, width], found {found}"
        )
    layers = Layers(inputs[0])
    if len(layers.shape) == 2:
        one = (1, *layers.shape)
        layers.add(lambda of: Reshape(name="channels", of=of, shape=one), one)
    for place, channels in enumerate(sizes(options["channels"])):
        _convolution(layers, f"convolutions.{place}", channels, options)
    layers.flat("flat")
    layers.hidden(sizes(options["hidden"]), options["activation"], out, drop=options["dropout"])
    return layers.graph(inputs)


def _convolution(layers: Layers, name: str, out: int, options: Mapping[str, str]) -> None:
    """Add a convolution that keeps the size, a norm, an activation, and a pooling where there is room for one."""
    kernel, (channels, *size) = int(options["kernel"]), layers.shape
    weight = drawn(f"{name}.weight", (out, channels, kernel, kernel), channels * kernel * kernel, RELU_GAIN)
    bias, edge = zeros(f"{name}.bias", out), kernel // 2
    layers.add(
        lambda of: Conv2d(
            name=name,
            of=of,
            weight=weight.name,
            bias=bias.name,
            groups=1,
            stride=(1, 1),
            padding=(edge, edge),
            dilation=(1, 1),
        ),
        (out, *(one + 2 * edge - kernel + 1 for one in size)),
        weight,
        bias,
    )
    if options["norm"] == "group":
        layers.norm(f"{name}.norm", gcd(out, _GROUPS))
    layers.activation(f"{name}.{options['activation']}", options["activation"])
    if min(layers.shape[1:]) >= _POOLED:
        pair = (_POOLED, _POOLED)
        pooled = (out, *(one // _POOLED for one in layers.shape[1:]))
        layers.add(
            lambda of: Pool2d(call="max_pool2d", name=f"{name}.pool", of=of, window=pair, stride=pair, padding=(0, 0)),
            pooled,
        )


CNN = Shipped(
    _graph,
    {
        "activation": ACTIVATION,
        "channels": sizes_option("16,32"),
        "dropout": DROPOUT,
        "hidden": sizes_option("64"),
        "kernel": whole_option("3", 1, 31),
        "norm": choice_option("none", "none", "group"),
    },
    features=frozenset({"array"}),
)
