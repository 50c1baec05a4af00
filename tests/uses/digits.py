"""The handwritten digits of scikit-learn (UCI, 1,797 images of 8 x 8): the same at all silos, or some at each alone."""

from collections.abc import Mapping
from functools import cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from sklearn.datasets import load_digits

from tests.uses.founding import Use

SILOS = ("aspen", "birch", "cedar", "maple", "rowan")
COLUMNS = {
    "pixels": '{ type = "array", of = "int", shape = [8, 8], class = "internal", roles = ["feature"],'
    " bounds = [0, 16] }",
    "digit": '{ type = "string", class = "internal", roles = ["label"],'
    ' domain = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "?"], unknown = "?" }',
}
Places = npt.NDArray[np.int64]


@cache
def images() -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the images, of shape (1797, 8, 8), and what they show."""
    found = load_digits()
    return found.images.astype(np.int64), found.target.astype(np.int64)


def alike(count: int, silos: int, seed: int) -> list[Places]:
    """Return which of so many images each silo has, at random."""
    return np.array_split(np.random.default_rng(seed).permutation(count), silos)


def by_label(labels: npt.NDArray[np.int64], silos: int, seed: int) -> list[Places]:
    """Return which images each silo has: all of two digits."""
    order = np.random.default_rng(seed).permutation(2 * silos)
    return [np.flatnonzero(np.isin(labels, order[2 * silo : 2 * silo + 2])) for silo in range(silos)]


def table(places: Places) -> pa.Table:
    """Return images as the rows of a silo, one a person."""
    pixels, labels = images()
    return pa.table(
        {
            "id": [f"writer-{place}" for place in places],
            "digit": [str(labels[place]) for place in places],
            "pixels": pa.array(pixels[places].tolist(), pa.list_(pa.list_(pa.int8()))),
        }
    )


def use(division: Mapping[str, Places], *computations: str) -> Use:
    return Use("digits", COLUMNS, {silo: table(places) for silo, places in division.items()}, computations)
