"""Ditto: FedAvg, and beside it each silo trains a model of its own, which is pulled towards the shared one.

Li, Hu, Beirami and Smith, ICML 2021, algorithm 1. The silo's own model never leaves it; `mu` is the paper's lambda: 0
is a model of the silo alone, and a large one is the shared model.
"""

from policies.networks.algorithms.algorithm import Algorithm, Local, Options
from policies.networks.algorithms.fedavg import SERVER_RATE, averaged, begun
from policies.options import number_option


def _local(options: Options) -> Local:
    return Local(personal_pull=float(options["mu"]))


DITTO = Algorithm(
    "Li et al., ICML 2021",
    begun,
    averaged,
    options={**SERVER_RATE, "mu": number_option("0.1", "0", "1000")},
    local=_local,
)
