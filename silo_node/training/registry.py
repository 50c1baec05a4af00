"""The computations of the exact model families, under the names that `policies.requests.families.SHAPES` has."""

from collections.abc import Mapping
from types import MappingProxyType

from silo_node.training.families import linear, logistic, multinomial, poisson, ridge
from silo_node.training.family import Family

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "linear-regression": linear.FAMILY,
        "ridge-regression": ridge.FAMILY,
        "logistic-regression": logistic.FAMILY,
        "multinomial-regression": multinomial.FAMILY,
        "poisson-regression": poisson.FAMILY,
    }
)
