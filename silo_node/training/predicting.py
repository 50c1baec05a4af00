"""Score the rows of a file with a model that the silo holds: by its family, or by its portable form."""

from pathlib import Path

import numpy as np

from policies.models.predicting import Predictions, predict, predict_by_form
from policies.models.scores import RowCells, Vector
from policies.requests.exact import FamilyStep
from policies.requests.families import Task, kind_of
from silo_node.errors import SiloError
from silo_node.training.exact import kept_state
from silo_node.training.family import Examples
from silo_node.training.portable import LINKS, portable_of
from silo_node.training.registry import FAMILIES
from silo_node.training.run import RunState


def predictions(state: RunState, path: Path) -> Predictions:
    """Return what a model says of each row of a CSV or Parquet file.

    Raises SiloError for a model that predicts nothing, ModelError where a cell cannot be read.
    """
    plan = None if state.record is None else state.record.plan
    has_own = isinstance(plan, FamilyStep) and plan.family not in LINKS and FAMILIES[plan.family].judged is not None
    if not isinstance(plan, FamilyStep) or state.record is None or not has_own:
        return predict_by_form(path, portable_of(state))  # which says why it has none
    if state.ended not in (None, "complete"):
        raise SiloError(f"the run ended without a model ({state.ended})", "take a run that has a model")
    task = plan.task(state.record.table)
    columns = [task.table.column(name) for name in task.features]
    filled = [one.name for one in columns if kind_of(one) != "text"] if task.options["missing"] != "drop" else []
    classes = task.groups if kind_of(task.label_column) == "text" else ()
    return predict(path, columns, filled, classes, lambda rows: scored(state, task, rows))


def scored(state: RunState, task: Task, rows: RowCells) -> Vector:
    """Return the family's own scores of coded rows."""
    judged = FAMILIES[task.family].judged
    if judged is None:
        raise SiloError(f"{task.family} predicts nothing", "take another model")
    examples = Examples(np.arange(rows.rows), dict(rows.cells), dict(rows.missing))
    return judged.scores(task, kept_state(state, task), examples)
