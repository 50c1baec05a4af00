"""What one round of training a network takes at a silo at most: weights, operations and bytes, before a row is read.

With F operations forward for a row and W numbers of all weights, frozen ones too, R rows, e local epochs and batches of
b rows, a round without noise takes

    R * F * (1 + 3 e) + 10 * W * e * ceil(R / b) operations

as each row is computed once at the shared weights, for their loss, then in each epoch forward and back, which takes
twice as much, and each batch moves every weight. A round with noise computes each row once forward and back, and bounds
the gradient of each: R * (3 F + 10 W). Where a silo trains a model of its own beside the shared one, both count. The
memory is that of the process alone (`OWN_BYTES`), of the weights (`WEIGHT_BYTES` each), of one batch, forward and back,
and of the rows, where the policy says how many there are. Promise: all of it follows from the request and the policy.
"""

from dataclasses import dataclass

from policies.networks.graph import Graph
from policies.networks.values import FLOAT_BYTES

OWN_BYTES = 320 << 20  # of the process: torch, numpy and the interpreter
WEIGHT_BYTES = 64  # of a weight: as it came and as it leaves, in doubles; floats, their gradient and what moves them
MOVED_FLOPS = 10  # of a weight that a batch moves, or of one number of a row's gradient, which is bounded
CELL_BYTES = 16  # of a number of an input: as it came, and as a float
GRADIENTS_BYTES = 64 << 20  # of the gradients of several persons at a time, where they are short
MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Rounds:
    """What a request says of a round, and its policy of the rows."""

    rows: int  # at most
    are_rows_known: bool  # whether the policy says how many there are, and not this program
    epochs: int = 1
    batch: int = 1
    models: int = 1  # that a silo trains: the shared one, and one of its own beside it
    is_private: bool = False


@dataclass(frozen=True, slots=True)
class Demand:
    """What a round takes at most."""

    weights: int
    flops: int
    memory_bytes: int

    @property
    def memory_mb(self) -> int:
        return -(-self.memory_bytes // MB)


def demand_of(graph: Graph, rounds: Rounds) -> Demand:
    """Return what one round of a graph takes at most."""
    weights, cost, rows = graph.count, graph.cost, rounds.rows
    cells = sum(graph.known[one.name].elements for one in graph.inputs)
    batch = min(rounds.batch, rows)
    if rounds.is_private:
        flops = rows * (3 * cost.flops + MOVED_FLOPS * weights)
        of_batch = max(GRADIENTS_BYTES, FLOAT_BYTES * weights + 2 * cost.held)
    else:
        steps = rounds.epochs * -(-rows // batch)
        flops = rows * cost.flops * (1 + 3 * rounds.epochs) + MOVED_FLOPS * weights * steps
        of_batch = 2 * cost.held * batch
    own = OWN_BYTES + WEIGHT_BYTES * weights * rounds.models + of_batch
    return Demand(weights, flops * rounds.models, own + (CELL_BYTES * cells * rows if rounds.are_rows_known else 0))
