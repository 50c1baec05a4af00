"""What one round of training a network takes at a silo at most, before a row is read.

Of R rows, e local epochs and batches of b rows, a round without noise computes each row once forward, for the loss at
the shared weights, and then e times there and back, in e * ceil(R / b) steps. A round with noise finds the gradient of
each row by itself. A judgement computes each row once forward. Where a silo trains a model of its own beside the shared
one, both count. What these take is in `policies.networks.bounds`.

The memory is that of the process itself (`OWN_BYTES`), of the weights as they come and leave (`WEIGHT_BYTES` each), of
what is computed at once, and of the rows, where the policy says how many there are. Promise: all of it follows from the
request and the policy alone.
"""

from dataclasses import dataclass

from policies.networks.bounds import Work, by_row, forward, trained
from policies.networks.graph import Graph

OWN_BYTES = 320 << 20  # of the process: torch, numpy and the interpreter
WEIGHT_BYTES = 48  # of a weight: in the state, in the first weights, in the change, in doubles and whole numbers
CELL_BYTES = 24  # of a number of an input: as it came over the pipe, as it was read, and as a float
SCORED_BYTES = 64 << 20  # of what is held at once where no gradient is needed
SCORED_ROWS = 4096  # at once there, at most
MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Rounds:
    """What a request says of a round, and its policy of the rows."""

    rows: int  # at most
    are_rows_known: bool  # whether the policy says how many there are, and not this program
    epochs: int = 1  # 0 of a judgement
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


def scored_at_once(graph: Graph) -> int:
    """Return how many rows are computed at once where no gradient is needed, so that they fit `SCORED_BYTES`."""
    of_row = forward(graph, 1).memory - forward(graph, 0).memory
    return max(1, min(SCORED_ROWS, SCORED_BYTES // max(1, of_row)))


def demand_of(graph: Graph, rounds: Rounds) -> Demand:
    """Return what one round of a graph takes at most."""
    rows, scored = rounds.rows, forward(graph, rounds.rows).flops
    at_once = Work(scored, 2 * forward(graph, min(rows, scored_at_once(graph))).memory)  # in doubles
    if rounds.is_private and rounds.epochs:
        of_rows = by_row(graph, rows, min(rows, rounds.batch))
        flops, memory = of_rows.flops, max(at_once.memory, of_rows.memory)
    else:
        batch = min(rows, rounds.batch)
        steps = rounds.epochs * -(-rows // batch)
        flops = scored + steps * trained(graph, batch).flops
        memory = max(at_once.memory, trained(graph, batch).memory if steps else 0)
    cells = sum(graph.known[one.name].elements for one in graph.inputs)
    held = OWN_BYTES + WEIGHT_BYTES * graph.count * rounds.models + memory
    return Demand(
        graph.count,
        flops * rounds.models,
        held + (CELL_BYTES * cells * rows if rounds.are_rows_known else 0),
    )
