"""What a silo contributes to an evaluation: the metrics' sums of its rows, and its own ones where it opens them."""

from collections.abc import Mapping

import numpy as np

from crypto.errors import ProtocolError
from policies.requests.evaluation import Evaluation
from policies.requests.families import Task
from policies.requests.metrics import Sum, prediction_of
from policies.requests.request import Request
from silo_node.training.evaluation.classes import in_order, of_chances, of_classes
from silo_node.training.evaluation.errors import of_numbers
from silo_node.training.evaluation.orders import of_orders
from silo_node.training.family import Examples
from silo_node.training.grid import Integers, Vector


def sums_of_rows(
    task: Task, sums: Mapping[str, Sum], examples: Examples, scores: Vector, outcomes: Vector, *, has_noise: bool
) -> list[Integers]:
    """Return the blocks of these rows in the order of `sums`; each is a sum over rows, but of an order."""
    match prediction_of(task):
        case "chance":
            found = of_chances(sums, scores, outcomes, has_noise=has_noise)
        case "classes":
            found = of_classes(sums, scores, outcomes, has_noise=has_noise)
        case "number":
            found = of_numbers(task.label_column, sums, scores, outcomes, has_noise=has_noise)
        case _:
            found = of_orders(task, examples, scores)
    return list(in_order(sums, found))


def contributed(request: Request, examples: Examples, scores: Vector, outcomes: Vector, silo: str) -> list[Integers]:
    """Return the blocks of an evaluation; raises ProtocolError if the request is none.

    After the common ones each has a place for every silo that opens its own metrics: zeros but in that of this silo.
    """
    plan, table = request.plan, request.table
    if not isinstance(plan, Evaluation):
        raise ProtocolError(f"a model is judged here, not {plan.kind}")
    task, sums = plan.model.task(table), plan.sums(table)
    blocks = sums_of_rows(task, sums, examples, scores, outcomes, has_noise=not plan.is_exact)
    if not plan.model.own:
        return blocks
    of_own = ([one if name == silo else np.zeros_like(one) for name in plan.model.own] for one in blocks)
    return [*blocks, *map(np.concatenate, of_own)]
