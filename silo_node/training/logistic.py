"""Logistic regression in torch: a silo's part of one step, computed on its own rows. docs/protocol.md section 11.

Float arithmetic ends before anything is summed over persons: a person's clipped gradient is cut to whole units towards
zero, and its norm is checked once more in integers, so no rounding can exceed what the noise is made for.
"""

from decimal import Decimal

import numpy as np
import numpy.typing as npt
import torch

from crypto.ring import Codec, Ring
from crypto.wire import MAX_SILOS
from policies.requests.logistic import GRADIENT_UNITS, WEIGHT_BITS, LogisticStep
from policies.requests.request import Request
from silo_node.training.logistic_model import logistic_step
from silo_node.training.run import Vector

Columns = list[npt.NDArray[np.int64]]  # of silo_node.data.query.examples


def contribution(request: Request, weights: Vector, columns: Columns) -> list[npt.NDArray[np.int64]]:
    """Return the silo's two blocks in whole units: what `logistic_model.moved` divides after the sum.

    Raises RangeError where the weights of an exact step leave the codec's range.
    """
    step = logistic_step(request)
    person, label = (torch.from_numpy(column) for column in columns[:2])
    inputs, start = _inputs(request, step, columns[2:], len(person)), torch.from_numpy(weights)
    if step.is_exact:
        after = _local_steps(inputs, label.double(), start, float(Decimal(step.learning_rate)), step.local_steps)
        # With room for the sum of as many silos as there may be, and as much again.
        codec = Codec(Ring(64), WEIGHT_BITS, 2 * MAX_SILOS)
        return [codec.encode_reals(after.numpy() * len(person)), np.array([len(person)], np.int64)]
    gradients = _clipped(inputs, label.double(), person, start, float(Decimal(step.clip)))
    return [gradients.sum(0).numpy(), np.array([len(gradients)], np.int64)]


def _inputs(request: Request, step: LogisticStep, features: Columns, rows: int) -> torch.Tensor:
    """Return the rows as a matrix of shape (rows, width): the intercept, numbers in [-1, 1], members as 0 or 1."""
    parts = [torch.ones(rows, 1, dtype=torch.float64)]
    for name, values in zip(step.features, features, strict=True):
        column, cells = request.table.column(name), torch.from_numpy(values)
        if column.domain:
            parts.append((cells[:, None] == torch.arange(1, len(column.domain))).double())
        else:
            parts.append(cells[:, None].double() / column.range_steps)
    return torch.cat(parts, 1)


def _gradients(inputs: torch.Tensor, label: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the gradient of each row's log loss, of shape (rows, width)."""
    return (torch.sigmoid(inputs @ weights) - label)[:, None] * inputs


def _clipped(
    inputs: torch.Tensor, label: torch.Tensor, person: torch.Tensor, weights: torch.Tensor, clip: float
) -> torch.Tensor:
    """Return each person's gradient in units of clip / GRADIENT_UNITS, of L2 norm at most GRADIENT_UNITS."""
    people = int(person.max()) + 1 if len(person) else 0
    summed = torch.zeros(people, len(weights), dtype=torch.float64)
    summed.index_add_(0, person, _gradients(inputs, label, weights))
    longest = torch.linalg.vector_norm(summed, dim=1, keepdim=True).clamp(min=clip)
    # Not a number, where weights are beyond all measure, must not become the least integer, whose square is 0.
    units = torch.nan_to_num(torch.trunc(summed / longest * GRADIENT_UNITS), nan=0.0).long()
    is_within = (units * units).sum(1, keepdim=True) <= GRADIENT_UNITS**2
    return units * is_within


def _local_steps(
    inputs: torch.Tensor, label: torch.Tensor, weights: torch.Tensor, rate: float, steps: int
) -> torch.Tensor:
    """Return the weights after gradient descent on the mean log loss of the silo's own rows."""
    for _ in range(steps if len(label) else 0):
        weights = weights - rate * _gradients(inputs, label, weights).mean(0)
    return weights
