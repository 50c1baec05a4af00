"""The model of a network that silos release: the commands of owner and analyst predict, export and show the same."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from safetensors.torch import load_file

import analyst.cli.main
import silo_node.owner.cli
from silo_node.training.run import RunState
from tests.rounds.test_hashed import SILOS, banks, rows_of, run, the_state, vector
from tests.rounds.test_networks import JOB

pytestmark = [pytest.mark.torch, pytest.mark.slow]
CHANGES = (
    ('["hashed-logistic", "logistic-regression", "evaluation"]', '["mlp", "evaluation", "audit"]'),
    ('release = ["model"', 'release = ["model-to-analyst", "model"'),
    ("[training]\n", "[training.networks]\n[training]\n"),
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunState]:
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("trained") / "f"
    job = f'{JOB}recipients = ["silos", "analyst"]\nrounds = 6\n[options]\nhidden = "8"\n'
    with banks(path, job, *CHANGES) as (simulation, file):
        run(simulation, file)
        state = the_state(simulation)
    with (path / "new.csv").open("w", newline="") as out:
        writer = csv.DictWriter(out, ["owner", "kind", "debt", "age"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(row for silo in SILOS for row in rows_of(silo)[:20])
    return path, state


def owner(path: Path, *words: str) -> int:
    place = ("--policy", str(path / "silos" / "north" / "policy.toml"))
    return silo_node.owner.cli.main(["models", *words, *place])


def ana(path: Path, *words: str) -> int:
    return analyst.cli.main.main(["model", *words, "--federation", str(path / "consilo.toml")])


def scores(text: str) -> list[float]:
    return [float(row["score"]) for row in csv.DictReader(text.splitlines())]


def test_owner_and_analyst_predict_the_same(trained: tuple[Path, RunState], capsys: pytest.CaptureFixture[str]) -> None:
    path, state = trained
    found = []
    for command in (owner, ana):
        assert command(path, "predict", state.run.hex()[:8], str(path / "new.csv")) == 0
        found.append(scores(capsys.readouterr().out))
    assert len(found[0]) == 80
    assert np.allclose(found[0], found[1], rtol=0, atol=1e-12)  # by torch, and by numpy
    assert max(found[0]) - min(found[0]) > 0.1


def test_both_export_the_same_weights_and_an_onnx_file_that_takes_raw_columns(
    trained: tuple[Path, RunState], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, state = trained
    for name, command in (("own", owner), ("ana", ana)):
        for form in ("safetensors", "onnx", "json"):
            out = str(tmp_path / f"{name}.{form}")
            assert command(path, "export", state.run.hex()[:8], "--format", form, "--out", out) == 0
    capsys.readouterr()
    assert (tmp_path / "own.json").read_bytes() == (tmp_path / "ana.json").read_bytes()
    weights = load_file(tmp_path / "own.safetensors")
    assert {name: list(one.shape) for name, one in weights.items()} == {
        name: list(one.shape) for name, one in load_file(tmp_path / "ana.safetensors").items()
    }
    # A vector has the weights in the order of the graph, which the names of a perceptron are in too.
    flat = np.concatenate([one.numpy().reshape(-1) for _, one in sorted(weights.items(), key=_place)])
    assert np.array_equal(flat, vector(state, "weights").astype(np.float32))
    assert ana(path, "predict", state.run.hex(), str(path / "new.csv")) == 0
    expected = scores(capsys.readouterr().out)
    with (path / "new.csv").open() as file:
        rows = list(csv.DictReader(file))
    inputs = {
        "kind": np.array([row["kind"] for row in rows], np.object_),
        "owner": np.array([float(row["owner"] == "True") for row in rows]),
        **{name: np.array([float(row[name]) for row in rows]) for name in ("debt", "age")},
    }
    ran: Any = ReferenceEvaluator(onnx.load(tmp_path / "ana.onnx")).run(None, inputs)
    assert np.allclose(ran[0], expected, rtol=0, atol=1e-5)


def _place(item: tuple[str, torch.Tensor]) -> tuple[str, bool]:
    return item[0].rpartition(".")[0], item[0].endswith("bias")


def test_a_network_is_shown_and_its_card_has_its_layers_and_losses(
    trained: tuple[Path, RunState], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, state = trained
    for command in (owner, ana):
        assert command(path, "show", state.run.hex()[:8]) == 0
        shown = capsys.readouterr().out
        for part in ("linear, 6 to 8 numbers", "numbers that follow from the run", "loss of a row", "sha256"):
            assert part in shown, part
        for ending in ("json", "html"):
            card = tmp_path / f"card.{ending}"
            assert command(path, "show", state.run.hex()[:8], "--card", str(card)) == 0
            capsys.readouterr()
            assert "linear, 6 to 8 numbers" in card.read_text()
        said = json.loads((tmp_path / "card.json").read_text())
        assert said["rounds"]["done"] == 6
        assert said["options"]["hidden"] == "8"
        assert said["price"] is None
        assert set(said["silos"]) == set(SILOS)
        assert "loss of a row before each round" in {one["name"] for one in said["fitted"]["listings"]}
