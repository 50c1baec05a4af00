"""FedPer: the layers that `personal` names never leave a silo; the others are averaged as by FedAvg.

Arivazhagan, Aggarwal, Singh and Choudhary, "Federated learning with personalization layers", 2019.
"""

from policies.networks.algorithms.algorithm import Algorithm, Options
from policies.networks.algorithms.fedavg import SERVER_RATE, averaged, begun
from policies.networks.graph import Graph
from policies.networks.staying import PERSONAL, named


def _stays(graph: Graph, options: Options) -> frozenset[str]:
    found = named(graph, options["personal"])
    if not found:
        layers = ", ".join(one.name for one in graph.weights[-4:])
        raise ValueError(
            f"fedper keeps layers at each silo: name them, personal = a beginning of names such as {layers}"
        )
    return found


FEDPER = Algorithm("Arivazhagan et al., 2019", begun, averaged, options={**SERVER_RATE, **PERSONAL}, stays=_stays)
