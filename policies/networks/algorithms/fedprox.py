"""FedProx: FedAvg, where each silo's steps are pulled towards the shared weights, so that unlike silos stay near.

Li, Sahu, Zaheer, Sanjabi, Talwalkar and Smith, MLSys 2020, algorithm 2: the silo's loss has mu / 2 times the squared
distance from the shared weights added. With `mu` of 0 it is FedAvg.
"""

from policies.networks.algorithms.algorithm import Algorithm, Local, Options
from policies.networks.algorithms.fedavg import SERVER_RATE, averaged, begun
from policies.options import number_option


def _local(options: Options) -> Local:
    return Local(pull=float(options["mu"]))


FEDPROX = Algorithm(
    "Li et al., MLSys 2020",
    begun,
    averaged,
    options={**SERVER_RATE, "mu": number_option("0.01", "0", "1000")},
    local=_local,
)
