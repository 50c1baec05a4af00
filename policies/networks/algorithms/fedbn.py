"""FedBN: the weights of normalisations never leave a silo; the others are averaged as by FedAvg.

Li, Jiang, Zhang, Kamp and Dou, ICLR 2021. The paper's are batch norms; a graph has norms of rows or of groups of
channels, whose scales and shifts adapt to a silo's features just so. `personal` may name more.
"""

from policies.networks.algorithms.algorithm import Algorithm, Options
from policies.networks.algorithms.fedavg import SERVER_RATE, averaged, begun
from policies.networks.graph import Graph
from policies.networks.staying import PERSONAL, named, of_norms


def _stays(graph: Graph, options: Options) -> frozenset[str]:
    norms = of_norms(graph)
    if not norms:
        raise ValueError("fedbn keeps the weights of norms at each silo, and this network has none; add one, or fedavg")
    return norms | named(graph, options["personal"])


FEDBN = Algorithm("Li et al., ICLR 2021", begun, averaged, options={**SERVER_RATE, **PERSONAL}, stays=_stays)
