"""Score the rows of a file with a model that the silo holds: by its family, or by its portable form."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from policies.models.predicting import Predictions, predict, predict_by_form
from policies.models.scores import RowCells, Vector
from policies.networks.names import NETWORKS
from policies.requests.exact import FamilyStep
from policies.requests.families import Task, kind_of
from policies.requests.metrics import prediction_of
from silo_node.errors import SiloError
from silo_node.training.exact import kept_state
from silo_node.training.family import Examples
from silo_node.training.networks.form import check_network
from silo_node.training.portable import LINKS, NAIVE_BAYES, form_of
from silo_node.training.registry import FAMILIES
from silo_node.training.run import RunState

SCORED_ROWS = 65_536  # at once
Predictor = Callable[[Path], Predictions]  # of the rows of a CSV or Parquet file; ModelError where a cell is unreadable


def predictor_of(state: RunState) -> Predictor:
    """Return what says of each row of a file what a model says; raises SiloError for a model that predicts nothing."""
    plan, record = None if state.record is None else state.record.plan, state.record
    is_by_form = not isinstance(plan, FamilyStep) or plan.family in (*LINKS, NAIVE_BAYES)
    if record is None or not isinstance(plan, FamilyStep) or is_by_form or FAMILIES[plan.family].judged is None:
        form = form_of(state)  # which says why there is none
        return lambda path: predict_by_form(path, form)
    if not state.is_model:
        raise SiloError(f"the run ended without a model ({state.ended})", "take a run that has a model")
    task = plan.task(record.table)
    if plan.family in NETWORKS:
        check_network(task)
    columns = [task.table.column(name) for name in task.features]
    filled = (
        [one.name for one in columns if kind_of(one) in ("number", "bool")] if task.options["missing"] != "drop" else []
    )
    classes = task.groups if prediction_of(task) == "classes" else ()
    return lambda path: predict(path, columns, filled, classes, lambda rows: scored(state, task, rows))


def scorer_of(state: RunState) -> Callable[[RowCells], Vector] | None:
    """Return the family's own way to score rows, where its form has another one: that of a network; else None."""
    plan, record = None if state.record is None else state.record.plan, state.record
    if record is None or not isinstance(plan, FamilyStep) or plan.family not in NETWORKS:
        return None
    task = plan.task(record.table)
    return lambda rows: scored(state, task, rows)


def scored(state: RunState, task: Task, rows: RowCells) -> Vector:
    """Return the family's own scores of coded rows."""
    judged = FAMILIES[task.family].judged
    if judged is None:
        raise SiloError(f"{task.family} predicts nothing", "take another model")
    known, found = kept_state(state, task), []
    for first in range(0, max(1, rows.rows), SCORED_ROWS):
        some = slice(first, min(first + SCORED_ROWS, rows.rows))
        examples = Examples(
            np.arange(some.stop - some.start),
            {name: one[some] for name, one in rows.cells.items()},
            {name: one[some] for name, one in rows.missing.items()},
            arrays={name: one[some] for name, one in rows.arrays.items()},
        )
        found.append(judged.scores(task, known, examples))
    return np.concatenate(found)
