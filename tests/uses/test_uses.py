"""The jobs of docs/training.md, "Uses of networks", across silos in memory: each beats what it is compared with."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from analyst.training.job import read_job
from policies.networks.packed import Packed, encoded
from policies.requests.families import Task
from silo_node.training.family import Examples
from silo_node.training.registry import FAMILIES
from tests.harness import families
from tests.rounds.test_evaluation import by_name, judged
from tests.uses import digits, planted, words
from tests.uses.backbone import packed_backbone
from tests.uses.founding import Use, job_of, running, trained

pytestmark = [pytest.mark.torch, pytest.mark.slow]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def figures(use: Use, path: Path, title: str, packed: Packed | None = None) -> dict[str, float]:
    """Return the metrics of the model of a job of the page, by the rows that are held out."""
    job = job_of("training.md", title)
    if packed is not None:
        path.mkdir()
        (path / "backbone.consilo").write_bytes(encoded(packed))
        job = re.sub("sha256:[0-9a-f]{64}", packed.name, job)
    with running(use, path, job) as (simulation, file):
        training = trained(simulation, file)
        assert training.ended is None
        assert training.steps == read_job(file).planned
        assert set(training.holders) == set(use.rows)
        return by_name(judged(simulation).judged)


def pooled(use: Use) -> pa.Table:
    return pa.concat_tables(use.rows.values())


def by_a_line(rows: pa.Table, label: str, *features: str, texts: bool = False) -> float:
    """Return the AUC of logistic regression of all rows together, on rows that it has learned from."""
    table = np.column_stack([rows[name].to_numpy(zero_copy_only=False) for name in features])
    design = OneHotEncoder().fit_transform(table) if texts else StandardScaler().fit_transform(table.astype(float))
    truth = rows[label].to_numpy(zero_copy_only=False)
    chances = LogisticRegression(max_iter=2000).fit(design, truth).predict_proba(design)[:, 1]
    return float(roc_auc_score(truth, chances))


def sentences() -> tuple[Task, dict[str, Examples], Examples]:
    """Return the task of the next word, the sentences that each package learns from, and every fifth of all."""
    columns = (
        families.array("before", "int", (words.BEFORE,), 0, words.WORDS + 1),
        families.text("word", *words.vocabulary()[1:], words.OTHER),
    )
    options = {"embedding": "24", "size": "48", "rate": "1.0", "momentum": "0.5"}
    of = families.task("language-model", columns, "word", ("before",), None, 8, **options)
    own, out = dict[str, Examples](), list[dict[str, Any]]()
    for package in words.PACKAGES:
        rows = words.table(package)
        number = np.array([int(one.rpartition("-")[2]) for one in rows["id"].to_pylist()])
        cells = {
            "before": np.array(rows["before"].to_pylist()),
            "word": np.array(rows["word"].to_pylist()),
        }
        out.append({name: values[number % 5 == 0] for name, values in cells.items()})
        own[package] = families.examples(of, {name: values[number % 5 != 0] for name, values in cells.items()})
    test = {name: np.concatenate([one[name] for one in out]) for name in out[0]}
    return of, own, families.examples(of, test)


def test_the_next_word_is_told_better_together_than_by_any_silo_alone() -> None:
    of, own, test = sentences()

    def right(*silos: Examples) -> float:
        state, _, _ = families.run(of, silos)
        judged = FAMILIES[of.family].judged
        assert judged is not None
        return float((judged.scores(of, state, test).argmax(1) == judged.outcomes(of, test)).mean())

    together = right(*own.values())
    alone = {package: right(rows) for package, rows in own.items()}
    assert together > max(alone.values()) + 0.01, (together, alone)


def test_the_next_word(tmp_path: Path) -> None:
    found = figures(words.use(), tmp_path / "f", "Next word")
    told = pooled(words.use())["word"].value_counts().to_pylist()
    most = max(one["counts"] for one in told) / sum(one["counts"] for one in told)
    assert found["accuracy"] > most + 0.08, "the most frequent word is right so often"


def test_recommendation(tmp_path: Path) -> None:
    use = planted.ratings()
    found = figures(use, tmp_path / "f", "Recommendation")
    assert found["auc"] > by_a_line(pooled(use), "liked", "segment", "item", texts=True) + 0.1


def test_images(tmp_path: Path) -> None:
    division = dict(zip(digits.SILOS, digits.alike(1797, 5, 1), strict=True))
    assert figures(digits.use(division, "cnn"), tmp_path / "f", "Images")["accuracy"] > 0.94


def test_fraud(tmp_path: Path) -> None:
    use = planted.payments()
    line = by_a_line(pooled(use), "fraud", "amount", "hour", "account_days", "in_last_hour")
    found = figures(use, tmp_path / "f", "Fraud")
    assert found["auc"] > line
    assert found["average-precision"] > 0.9


def test_anomalies(tmp_path: Path) -> None:
    assert figures(planted.payments(), tmp_path / "f", "Anomalies")["auc"] > 0.85


def test_demand(tmp_path: Path) -> None:
    use = planted.sales()
    rows = pooled(use)
    product, sold = (rows[name].to_numpy(zero_copy_only=False) for name in ("product", "sold"))
    mean = {one: sold[product == one].mean() for one in np.unique(product)}
    of_means = (
        1 - np.square(sold - np.array([mean[one] for one in product])).sum() / np.square(sold - sold.mean()).sum()
    )
    assert figures(use, tmp_path / "f", "Demand")["r2"] > of_means + 0.1


def test_transfer(tmp_path: Path) -> None:
    labels = digits.images()[1]
    few = np.random.default_rng(1).permutation(np.flatnonzero(labels >= 5))[:250]
    use = digits.use(dict(zip(digits.SILOS, np.array_split(few, len(digits.SILOS)), strict=True)), "network")
    learned, fresh = (
        figures(use, tmp_path / str(has_learned), "Transfer", packed_backbone(has_learned=has_learned))["accuracy"]
        for has_learned in (True, False)
    )
    assert learned > 0.75
    assert learned > fresh + 0.03, "a backbone that has learned other digits helps"


def test_small_devices(tmp_path: Path) -> None:
    names = [f"device-{number}" for number in range(10)]
    division = digits.alike(1797, len(names), 1)
    use = digits.use(dict(zip(names, division, strict=True)), "cnn")
    assert figures(use, tmp_path / "f", "Small devices")["accuracy"] > 0.85
