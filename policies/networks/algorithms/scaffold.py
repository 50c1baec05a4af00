"""SCAFFOLD: each silo's steps are corrected by how its gradients differ from all silos', so that unlike silos agree.

Karimireddy, Kale, Mohri, Reddi, Stich and Suresh, ICML 2020, algorithm 1 with option II. A silo keeps a *control*, its
mean gradient in the last round that it took part in; the recipients hold the mean of all controls, weighted by rows. A
silo's step goes against its gradient plus the recipients' control minus its own.

The sum is of the changes of controls, as in the paper, so silos may be absent. A silo that has lost its control says
so, as its share in the mean could not be taken out any more: then all controls begin anew with 0.
"""

import numpy as np

from policies.networks.algorithms.algorithm import CONTROL, UPDATE, Algorithm, Held, Local, Options, Sums, Vector
from policies.networks.algorithms.fedavg import SERVER_RATE


def _init(options: Options, weights: Vector) -> Held:
    return Held(weights, {CONTROL: np.zeros(len(weights))})


def _apply(options: Options, held: Held, sums: Sums) -> Held:
    moved = held.weights + float(options["server_rate"]) * sums.means[UPDATE]
    control = np.zeros(len(moved)) if sums.lost else held.more[CONTROL] + sums.share * sums.means[CONTROL]
    return Held(moved, {CONTROL: control})


SCAFFOLD = Algorithm(
    "Karimireddy et al., ICML 2020",
    _init,
    _apply,
    sums=(UPDATE, CONTROL),
    options=SERVER_RATE,
    local=lambda options: Local(is_corrected=True),
)
