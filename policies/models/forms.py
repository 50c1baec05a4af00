"""The forms of models, by which rows are scored wherever the model is."""

from typing import Annotated, TypeAlias

from pydantic import Field

from policies.models.bayes import Bayes, bayes_scores
from policies.models.network import Network, network_scores
from policies.models.portable import Portable
from policies.models.scores import RowCells, Vector, scores

Form: TypeAlias = Portable | Bayes | Network
AnyForm = Annotated[Form, Field(discriminator="version")]


def scores_of(model: Form, rows: RowCells) -> Vector:
    """Return what a model says of each row, of shape (rows,), with classes (rows, classes)."""
    match model:
        case Portable():
            return scores(model, rows)
        case Bayes():
            return bayes_scores(model, rows)
        case Network():
            return network_scores(model, rows)
