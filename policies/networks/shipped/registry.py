"""The shipped networks by the names of their families."""

from collections.abc import Mapping
from types import MappingProxyType

from policies.networks.shipped.mlp import MLP
from policies.networks.shipped.shipped import Shipped

SHIPPED: Mapping[str, Shipped] = MappingProxyType({"mlp": MLP})
