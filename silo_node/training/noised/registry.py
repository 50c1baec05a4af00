"""The model families with noise, under the names that `policies.requests.noised_families.NOISED` has."""

from collections.abc import Mapping
from types import MappingProxyType

from policies.requests.noised_networks import NOISED_NETWORKS
from silo_node.training.noised import hashed, linear, networks
from silo_node.training.noised.descent import family_of
from silo_node.training.noised.family import NoisedFamily

NOISED_FAMILIES: Mapping[str, NoisedFamily] = MappingProxyType(
    {
        "logistic-regression": family_of("logistic-regression"),
        "multinomial-regression": family_of("multinomial-regression"),
        "linear-regression": linear.family(),
        "poisson-regression": family_of("poisson-regression"),
        "hashed-logistic": hashed.FAMILY,
        **dict.fromkeys(NOISED_NETWORKS, networks.FAMILY),
    }
)
