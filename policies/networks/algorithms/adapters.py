"""Low-rank adapters: a backbone is frozen, and beside each linear layer the product of two thin matrices is learned.

Sun, Li, Li and Ding, "Improving LoRA in privacy-preserving federated learning" (FFA-LoRA), ICLR 2024; Hu et al., ICLR
2022, for adapters. A layer W becomes W + B A: A is drawn from the run and frozen, B begins with 0, and B alone is
trained and summed. A mean of products B A is the product of the means only if one factor is the same everywhere, so
freezing A makes the mean exact, and a round as small as B. The rewritten network is in `policies.networks.adapted`.
"""

from policies.networks.adapted import adapted, learned
from policies.networks.algorithms.algorithm import Algorithm
from policies.networks.algorithms.fedavg import SERVER_RATE, averaged, begun
from policies.options import whole_option

MOST_RANK = 1_024

ADAPTERS = Algorithm(
    "Sun et al., ICLR 2024",
    begun,
    averaged,
    options={**SERVER_RATE, "rank": whole_option("4", 1, MOST_RANK)},
    trains=lambda graph, options: adapted(graph, int(options["rank"])),
    moves=learned,
)
