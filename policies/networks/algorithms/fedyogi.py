"""FedYogi: as FedAdam, but second moments move by no more than the squared change, so that they fall slowly.

Reddi et al., ICLR 2021, algorithm 2, and for Yogi Zaheer, Reddi, Sachan, Kale and Kumar, NeurIPS 2018.
"""

import numpy as np

from policies.networks.algorithms.algorithm import UPDATE, Algorithm, Held, Options, Sums
from policies.networks.algorithms.fedadam import MOMENT_OPTIONS, moments_begun, stepped


def _apply(options: Options, held: Held, sums: Sums) -> Held:
    change, second = sums.means[UPDATE], held.more["second"]
    square = change * change
    return stepped(options, held, change, second - (1.0 - float(options["beta2"])) * square * np.sign(second - square))


FEDYOGI = Algorithm("Reddi et al., ICLR 2021", moments_begun, _apply, options=MOMENT_OPTIONS)
