"""Logistic regression in torch: a silo's part of one step, computed on its own rows. docs/protocol.md section 11.

Promises: rounding never exceeds the sensitivity for which the noise is made. Before the sum over persons, each clipped
gradient is truncated towards zero to whole units, and its norm is checked again in integers. At most BLOCK_CELLS inputs
are held at a time, and those of one person, however many persons and values there are.
"""

from collections.abc import Callable, Iterator
from decimal import Decimal

import numpy as np
import numpy.typing as npt
import torch

from crypto.ring import Codec, Ring
from crypto.wire import MAX_RECIPIENTS
from policies.requests.logistic import GRADIENT_UNITS, WEIGHT_BITS, LogisticStep
from policies.requests.request import Request
from silo_node.training.logistic_model import logistic_step
from silo_node.training.run import Vector

BLOCK_CELLS = 1 << 21  # rows times weights; a few times 16 MiB are held for them
Columns = list[npt.NDArray[np.int64]]  # of silo_node.data.query.examples


def contribution(request: Request, weights: Vector, columns: Columns) -> list[npt.NDArray[np.int64]]:
    """Return the silo's two blocks in whole units; after the sum, `logistic_model.moved` divides one by the other.

    Raises RangeError if the weights of an exact step leave the codec's range.
    """
    step = logistic_step(request)
    start = torch.from_numpy(weights.copy())  # the numbers of a kept state cannot be written to, as torch wants them
    persons = int(columns[0].max()) + 1 if len(columns[0]) else 0
    blocks = list(_blocks(columns[0], len(weights)))
    if step.is_exact:
        rows = len(columns[0])

        def gradient(at: torch.Tensor) -> torch.Tensor:
            """Return the gradient of the mean log loss of all rows."""
            parts = (_gradients(*_read(request, step, columns, block), at).sum(0) for block in blocks)
            return torch.stack(list(parts)).sum(0) / rows

        after = _local_steps(gradient if rows else None, start, float(Decimal(step.learning_rate)), step.local_steps)
        # Twice the room that the sum of the largest number of silos that train together needs.
        codec = Codec(Ring(64), WEIGHT_BITS, 2 * MAX_RECIPIENTS)
        return [codec.encode_reals(after.numpy() * rows), np.array([rows], np.int64)]
    total, clip = torch.zeros(len(weights), dtype=torch.int64), float(Decimal(step.clip))
    for block in blocks:
        inputs, label = _read(request, step, columns, block)
        _, person = np.unique(columns[0][block], return_inverse=True)
        total += _clipped(inputs, label, torch.from_numpy(person), start, clip).sum(0)
    return [total.numpy(), np.array([persons], np.int64)]


def _blocks(person: npt.NDArray[np.int64], width: int) -> Iterator[npt.NDArray[np.int64]]:
    """Yield the places of all rows, in blocks of at most BLOCK_CELLS inputs, with all rows of a person in one block."""
    order = np.argsort(person, kind="stable")
    ordered, first, most = person[order], 0, max(1, BLOCK_CELLS // width)
    while first < len(order):
        end = first + most
        if end < len(order):
            end = int(np.searchsorted(ordered, ordered[end]))  # the first row of that person
            if end <= first:
                end = int(np.searchsorted(ordered, ordered[first], "right"))
        yield order[first:end]
        first = end


def _read(
    request: Request, step: LogisticStep, columns: Columns, block: npt.NDArray[np.int64]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the inputs and the labels of some rows."""
    label = torch.from_numpy(columns[1][block]).double()
    return inputs_of(request, step, [column[block] for column in columns[2:]], len(block)), label


def inputs_of(request: Request, step: LogisticStep, features: Columns, rows: int) -> torch.Tensor:
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
    # Huge weights give NaN, which must not become the least integer, whose square wraps to 0.
    units = torch.nan_to_num(torch.trunc(summed / longest * GRADIENT_UNITS), nan=0.0).long()
    is_within = (units * units).sum(1, keepdim=True) <= GRADIENT_UNITS**2
    return units * is_within


def _local_steps(
    gradient: Callable[[torch.Tensor], torch.Tensor] | None, weights: torch.Tensor, rate: float, steps: int
) -> torch.Tensor:
    """Return the weights after gradient descent on the mean log loss of the silo's own rows, if it has any."""
    for _ in range(steps):
        weights = weights if gradient is None else weights - rate * gradient(weights)
    return weights
