"""What networks give with noise: digits by softmax. Run: python -m tests.bench.training_noise

scikit-learn's digits, 63 features within their public bounds, 1,437 persons at five silos of which one may collude,
delta 1e-5; the share of 360 other digits that are told right, a mean of ten splits. The defaults of
`silo_node.training.noised.networks` were fixed on this set.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits

from crypto.noise import discrete_gaussian
from silo_node.training.family import Examples
from silo_node.training.noised.registry import NOISED_FAMILIES
from tests.bench.figures import publish
from tests.harness import noised
from tests.harness.families import number, text

SILOS, SPLITS, PERSONS = 5, 10, 1_437
AIMS: Mapping[float, float] = {1.0: 0.88, 2.0: 0.91, 8.0: 0.94}
FEATURES = tuple(f"x{place}" for place in range(1, 64))  # the first pixel is a corner, which is always 0
COLUMNS = (*(number(name, 0, 16) for name in FEATURES), text("digit", *"0123456789", "unknown"))


def told_right(epsilon: float, splits: int = SPLITS, draw: noised.Draw = discrete_gaussian) -> list[float]:
    """Return the accuracy on held-out digits of a private run, by split."""
    pixels, digits = load_digits(return_X_y=True)
    first, table = noised.step("mlp", COLUMNS, "digit", FEATURES, 40, hidden="")
    judged, found = NOISED_FAMILIES["mlp"].judged, []
    assert judged is not None

    def of(places: npt.NDArray[np.int64]) -> Examples:
        cells = {name: (2 * pixels[places, at] - 16).astype(np.int64) for at, name in enumerate(FEATURES, 1)}
        return Examples(np.arange(len(places)), cells | {"digit": digits[places]})

    for split in range(splits):
        order = np.random.default_rng(split).permutation(len(digits))
        learn, held = order[:PERSONS], order[PERSONS:]
        silos = [of(own) for own in np.array_split(learn, SILOS)]
        task, state, _ = noised.run(first, table, silos, epsilon, draw)
        found.append(float((judged.scores(task, state, of(held)).argmax(1) == digits[held]).mean()))
    return found


def main() -> None:
    """Publish the accuracy at each price."""
    for epsilon, aim in AIMS.items():
        found = told_right(epsilon)
        publish(f"digits_softmax_epsilon_{epsilon:g}", [float(np.mean(found))], "", aim=f"at least {aim}")


if __name__ == "__main__":
    main()
