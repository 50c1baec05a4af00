"""The algorithms by the names that a job has."""

from collections.abc import Mapping
from types import MappingProxyType

from policies.networks.algorithms.adapters import ADAPTERS
from policies.networks.algorithms.algorithm import Algorithm
from policies.networks.algorithms.ditto import DITTO
from policies.networks.algorithms.fedadam import FEDADAM
from policies.networks.algorithms.fedavg import FEDAVG
from policies.networks.algorithms.fedbn import FEDBN
from policies.networks.algorithms.fedper import FEDPER
from policies.networks.algorithms.fedprox import FEDPROX
from policies.networks.algorithms.fedyogi import FEDYOGI
from policies.networks.algorithms.fine_tuning import FINE_TUNING
from policies.networks.algorithms.scaffold import SCAFFOLD

ALGORITHMS: Mapping[str, Algorithm] = MappingProxyType(
    {
        "fedavg": FEDAVG,
        "fedprox": FEDPROX,
        "fedadam": FEDADAM,
        "fedyogi": FEDYOGI,
        "scaffold": SCAFFOLD,
        "ditto": DITTO,
        "fedper": FEDPER,
        "fedbn": FEDBN,
        "adapters": ADAPTERS,
        "fine-tuning": FINE_TUNING,
    }
)
