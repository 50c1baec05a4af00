"""FedAdam: the mean of the silos' changes is a gradient to Adam, which the recipients compute.

Reddi, Charles, Zaheer, Garrett, Rush, Konecny, Kumar and McMahan, ICLR 2021, algorithm 2, with the mean weighted by
rows. The second moments begin with tau^2, the least that the paper allows. No bias is corrected, as in the paper.
"""

from collections.abc import Mapping

import numpy as np

from policies.networks.algorithms.algorithm import UPDATE, Algorithm, Held, Options, Sums, Vector
from policies.options import Option, number_option

MOMENT_OPTIONS: Mapping[str, Option] = {
    "server_rate": number_option("0.01", "0.000001", "1000"),
    "beta1": number_option("0.9", "0", "0.9999"),
    "beta2": number_option("0.99", "0", "0.9999"),
    "tau": number_option("0.001", "0.000000001", "1000"),
}


def moments_begun(options: Options, weights: Vector) -> Held:
    """Return the weights, first moments of 0, and second moments of tau^2."""
    tau = float(options["tau"])
    return Held(weights, {"first": np.zeros(len(weights)), "second": np.full(len(weights), tau * tau)})


def stepped(options: Options, held: Held, change: Vector, second: Vector) -> Held:
    """Return what is held after a step by the mean change, with these second moments."""
    keep = float(options["beta1"])
    first = keep * held.more["first"] + (1.0 - keep) * change
    step = float(options["server_rate"]) * first / (np.sqrt(second) + float(options["tau"]))
    return Held(held.weights + step, {"first": first, "second": second})


def _apply(options: Options, held: Held, sums: Sums) -> Held:
    change, keep = sums.means[UPDATE], float(options["beta2"])
    return stepped(options, held, change, keep * held.more["second"] + (1.0 - keep) * (change * change))


FEDADAM = Algorithm("Reddi et al., ICLR 2021", moments_begun, _apply, options=MOMENT_OPTIONS)
