"""Local fine-tuning: after the last round of FedAvg each silo trains on from the shared weights, for itself.

Yu, Bagdasaryan and Shmatikov, "Salvaging federated learning by local adaptation", 2020. The last round of the run moves
no shared weight: each silo takes `own_epochs` epochs and keeps the model that comes out.
"""

from policies.networks.algorithms.algorithm import Algorithm, Local, Options
from policies.networks.algorithms.fedavg import SERVER_RATE, averaged, begun
from policies.options import whole_option


def _local(options: Options) -> Local:
    return Local(own_epochs=int(options["own_epochs"]))


FINE_TUNING = Algorithm(
    "Yu et al., 2020",
    begun,
    averaged,
    options={**SERVER_RATE, "own_epochs": whole_option("1", 1, 1000)},
    local=_local,
)
