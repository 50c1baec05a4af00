"""Predictions for the rows of a file, written as CSV: one line a row, in the order of the file."""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from policies.models.cells import coded
from policies.models.forms import Form, scores_of
from policies.models.scores import RowCells, Vector
from policies.models.table_files import read_rows
from policies.requests.tables import TableColumn
from policies.units import counted

Score = Callable[[RowCells], Vector]  # shape (rows,), or (rows, classes)


@dataclass(frozen=True, slots=True)
class Predictions:
    """The scores of a file, and how many rows have none."""

    text: str  # CSV: the row of the file from 1, and its score, or one for each class
    rows: int
    left_out: int  # rows that lack a cell that the model needs

    def in_words(self) -> str:
        """Return how many rows were scored, in a sentence."""
        without = f"; {self.left_out} lack a cell that the model needs, and have none" if self.left_out else ""
        return f"{self.rows - self.left_out} of {counted(self.rows, 'row')} have a score{without}"


def predict(
    path: Path, columns: Sequence[TableColumn], filled: Sequence[str], classes: Sequence[str], score: Score
) -> Predictions:
    """Return the predictions for a CSV or Parquet file; raises ModelError where a cell cannot be read."""
    arrays = [column for column in columns if column.type == "array"]
    texts = [column.name for column in columns if column.type != "array"]
    found = coded(read_rows(path, texts, arrays), columns, filled)
    scored = score(found.cells) if len(found.places) else np.zeros((0, len(classes)) if classes else 0)
    headings = ["row", *(classes or ("score",))]
    table = scored.reshape(len(scored), -1)
    by_place = dict(zip(map(int, found.places), table, strict=True))
    empty = [""] * (len(headings) - 1)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(headings)
    for place in range(found.rows):
        own = by_place.get(place)
        writer.writerow([place + 1, *(empty if own is None else (repr(float(value)) for value in own))])
    return Predictions(out.getvalue(), found.rows, found.left_out)


def predict_by_form(path: Path, model: Form) -> Predictions:
    """Return the predictions of a model by its form; raises ModelError."""
    return predict(path, model.columns, model.filled, model.classes, lambda rows: scores_of(model, rows))
