"""Which reader reads which call of torch. What stands here is what a network may call; silos have their own list."""

import operator
from collections.abc import Mapping
from types import MappingProxyType

from analyst.networks import elements, layers, views
from analyst.networks.arguments import Reader

_VIEWS = "view.default", "reshape.default", "flatten.using_ints", "unflatten.int"
_SAME = "contiguous.default", "clone.default", "to.dtype", "alias.default"
_PARTS = "chunk.default", "split.Tensor", "split_with_sizes.default"
READERS: Mapping[str, Reader] = MappingProxyType(
    {
        **{f"aten.{one}.default": elements.unary(one) for one in ("relu", "tanh", "sigmoid", "silu")},
        "aten.gelu.default": elements.gelu,
        "aten.softplus.default": elements.softplus,
        "aten.leaky_relu.default": elements.sloped("leaky_relu", "negative_slope"),
        "aten.elu.default": elements.sloped("elu", "alpha"),
        **{f"aten.{one}.Tensor": elements.pairwise(one) for one in ("add", "sub", "mul")},
        **{f"aten.{one}.Scalar": elements.pairwise(one) for one in ("add", "sub", "mul")},
        "aten.div.Tensor": elements.divided,
        "aten.div.Scalar": elements.divided,
        "aten.neg.default": elements.negated,
        "aten.rsub.Scalar": elements.from_number,
        "aten.linear.default": layers.linear,
        "aten.embedding.default": layers.embedding,
        "aten.matmul.default": layers.matmul,
        "aten.bmm.default": layers.matmul,
        **{
            f"aten.conv{axes}d.{way}": layers.window(f"conv{axes}d", axes)
            for axes in (1, 2)
            for way in ("default", "padding")
        },
        **{
            f"aten.{kind}_pool{axes}d.default": layers.window(f"{kind}_pool{axes}d", axes)
            for kind in ("max", "avg")
            for axes in (1, 2)
        },
        "aten.adaptive_avg_pool1d.default": layers.pooled(1),
        "aten.adaptive_avg_pool2d.default": layers.pooled(2),
        "aten.mean.dim": elements.reduced("mean"),
        "aten.mean.default": elements.reduced("mean"),
        "aten.sum.dim_IntList": elements.reduced("sum"),
        "aten.sum.default": elements.reduced("sum"),
        "aten.amax.default": elements.reduced("amax"),
        "aten.softmax.int": elements.softmax("softmax"),
        "aten.log_softmax.int": elements.softmax("log_softmax"),
        "aten.layer_norm.default": layers.layer_norm,
        "aten.group_norm.default": layers.group_norm,
        "aten.dropout.default": elements.dropout,
        "aten.cat.default": views.cat,
        "aten.stack.default": views.stacked,
        "aten.scaled_dot_product_attention.default": layers.attention,
        "aten.lstm.input": layers.recurrent("lstm"),
        "aten.gru.input": layers.recurrent("gru"),
        **{f"aten.{one}": views.view for one in _VIEWS},
        "aten.permute.default": views.permute,
        "aten.transpose.int": views.transpose,
        "aten.t.default": views.turned,
        "aten.unsqueeze.default": views.unsqueeze,
        **{f"aten.squeeze.{one}": views.squeeze for one in ("default", "dim", "dims")},
        "aten.select.int": views.select,
        "aten.slice.Tensor": views.sliced,
        **{f"aten.{one}": views.chunk for one in _PARTS},
        "aten.unbind.int": views.unbind,
        "aten.expand.default": views.expanded,
        **{f"aten.{one}": elements.as_it_is for one in _SAME},
        str(operator.getitem): views.item,
    }
)
