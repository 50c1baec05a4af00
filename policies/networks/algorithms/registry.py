"""The algorithms by the names that a job has."""

from collections.abc import Mapping
from types import MappingProxyType

from policies.networks.algorithms.algorithm import Algorithm
from policies.networks.algorithms.fedavg import FEDAVG

ALGORITHMS: Mapping[str, Algorithm] = MappingProxyType({"fedavg": FEDAVG})
