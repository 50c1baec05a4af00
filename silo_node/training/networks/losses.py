"""The loss of each row by the output of a network, and the scores that an output stands for."""

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from policies.requests.families import Task, kind_of
from policies.requests.networks import RECONSTRUCTION, loss_of
from silo_node.training import design
from silo_node.training.networks.device import to_array


def losses(task: Task, output: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the loss of each row, of shape (rows,), of an output whose first axis is the rows."""
    kind, output = loss_of(task), output.reshape(output.shape[0], -1)
    if kind == RECONSTRUCTION:
        return (output - targets).square().mean(1)
    if kind == "cross-entropy" and output.shape[1] > 1:
        return functional.cross_entropy(output, targets, reduction="none")
    found = output[:, 0]
    if kind == "cross-entropy":
        return functional.binary_cross_entropy_with_logits(found, targets, reduction="none")
    return (found - targets).abs() if kind == "absolute" else (found - targets).square()


def scores(task: Task, output: torch.Tensor, targets: torch.Tensor, typical: float) -> npt.NDArray[np.float64]:
    """Return the scores of rows as `silo_node.training.family.Judged` has them.

    Of a network that gives its inputs again, the targets, it is error / (error + `typical` error): a half is as usual.
    """
    found = output.double().reshape(output.shape[0], -1)
    if loss_of(task) == RECONSTRUCTION:
        error = losses(task, found, targets)
        return np.asarray(to_array(error / (error + typical)))
    kind = kind_of(task.label_column)
    if kind == "text":
        return np.asarray(to_array(found.softmax(1)))
    if kind == "bool":
        return np.asarray(to_array(found[:, 0].sigmoid()))
    middle, half, _ = design.span(task.label_column)
    return np.asarray(to_array(found[:, 0].clamp(-1.0, 1.0)) * half + middle)
