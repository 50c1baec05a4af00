"""FedAvg: silos take several steps each, and the mean of their changes moves the shared weights.

McMahan, Moore, Ramage, Hampson and Aguera y Arcas, AISTATS 2017, algorithm 1. `server_rate` of 1 is the paper's; others
are the "server learning rate" of Reddi et al., ICLR 2021.
"""

from collections.abc import Mapping

from policies.networks.algorithms.algorithm import UPDATE, Algorithm, Held, Options, Sums, Vector
from policies.options import Option, number_option

SERVER_RATE: Mapping[str, Option] = {"server_rate": number_option("1", "0.000001", "1000")}


def begun(options: Options, weights: Vector) -> Held:
    """Return what the recipients hold before the first round: the weights alone."""
    return Held(weights)


def averaged(options: Options, held: Held, sums: Sums) -> Held:
    """Return the weights, moved by the mean of the silos' changes."""
    return Held(held.weights + float(options["server_rate"]) * sums.means[UPDATE])


FEDAVG = Algorithm("McMahan et al., AISTATS 2017", begun, averaged, options=SERVER_RATE)
