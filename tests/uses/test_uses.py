"""The jobs of docs/training.md, "Uses of networks", across silos in memory: each beats what it is compared with."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.rounds.test_evaluation import by_name, judged
from tests.uses import digits, planted, words
from tests.uses.founding import Use, job_of, running, trained

pytestmark = [pytest.mark.torch, pytest.mark.slow]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def figures(use: Use, path: Path, title: str, *changes: tuple[str, str]) -> dict[str, float]:
    """Return the metrics of the model of a job, by the rows that are held out."""
    job = job_of("training.md", title)
    for old, new in changes:
        assert old in job, (title, old)
        job = job.replace(old, new)
    with running(use, path, job) as (simulation, file):
        training = trained(simulation, file)
        assert training.ended is None, training
        return by_name(judged(simulation).judged)


def test_the_next_word(tmp_path: Path) -> None:
    found = figures(words.use(), tmp_path / "f", "Next word")
    print(found)
    assert found["accuracy"] > 0.1


def test_recommendation(tmp_path: Path) -> None:
    found = figures(planted.ratings(), tmp_path / "f", "Recommendation")
    print(found)
    assert found["auc"] > 0.75


def test_images(tmp_path: Path) -> None:
    division = dict(zip(digits.SILOS, digits.alike(1797, 5, 1), strict=True))
    found = figures(digits.use(division, "cnn"), tmp_path / "f", "Images")
    print(found)
    assert found["accuracy"] > 0.9


def test_fraud(tmp_path: Path) -> None:
    found = figures(planted.payments(), tmp_path / "f", "Fraud")
    print(found)
    assert found["auc"] > 0.9


def test_anomalies(tmp_path: Path) -> None:
    found = figures(planted.payments(), tmp_path / "f", "Anomalies")
    print(found)
    assert found["auc"] > 0.8


def test_demand(tmp_path: Path) -> None:
    use = planted.sales()
    found = figures(use, tmp_path / "f", "Demand")
    print(found)
    sold = np.concatenate([rows["sold"].to_numpy() for rows in use.rows.values()])
    assert found["r2"] > 0.8, sold.var()
