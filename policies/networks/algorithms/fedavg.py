"""FedAvg: silos take several steps each, and the mean of their changes moves the shared weights.

McMahan, Moore, Ramage, Hampson and Aguera y Arcas, AISTATS 2017, algorithm 1.
"""

from policies.networks.algorithms.algorithm import UPDATE, Algorithm, Held, Options, Sums, Vector
from policies.options import number_option


def _init(options: Options, weights: Vector) -> Held:
    return Held(weights)


def _apply(options: Options, held: Held, sums: Sums) -> Held:
    return Held(held.weights + float(options["server_rate"]) * sums.means[UPDATE])


FEDAVG = Algorithm(
    "McMahan et al., AISTATS 2017",
    _init,
    _apply,
    options={"server_rate": number_option("1", "0.000001", "1000")},
)
