"""Which inputs a network has by the columns of a request, and how many numbers predict its label.

Either all features are one row of numbers, the *dense design*: a number or bool in [-1, 1] by its bounds, a text as one
0 or 1 for each of its values but the first. Or each feature is an input of its own.
"""

from policies.networks.graph import Input
from policies.requests.shapes import Task, kind_of

DENSE = "x"  # the name of the one input that is the dense design


def dense(task: Task) -> tuple[Input, ...]:
    """Return the one input of the dense design."""
    return (Input(name=DENSE, shape=(task.width - 1,)),)


def predicted(task: Task) -> int:
    """Return how many numbers a network predicts a label by: one for each class of a text, else one."""
    return len(task.classes) if kind_of(task.label_column) == "text" else 1
