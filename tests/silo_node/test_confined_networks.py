"""Networks in a confined process: the same numbers as here, its limits, its end, and what is told of it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from crypto.errors import CryptoError, ProtocolError
from policies.document.load import parse
from policies.document.policy import Policy
from policies.requests.request import Request
from silo_node.errors import NetworkError, SiloError
from silo_node.training.confined import apart as apart_module
from silo_node.training.confined import work as works
from silo_node.training.confined.apart import Apart, heard, told
from silo_node.training.confined.computing import computed
from silo_node.training.confined.work import Done, Work
from silo_node.training.family import Examples, Own
from silo_node.training.models import MODELS
from silo_node.training.networks import device
from silo_node.training.run import RunState
from tests.harness.example_policy import POLICY
from tests.policies.test_networks_policy import asked
from tests.rounds.computation_examples import evaluation
from tests.rounds.test_computations import OddSum

pytestmark = [pytest.mark.process, pytest.mark.torch]
ROWS = 40


def policy(*keys: str) -> Policy:
    training = (
        '[training]\nmax_rounds = 5\nclip_norm = 10\ndp = "optional"\nmax_rho_per_run = 0.5\n[training.networks]\n'
    )
    return parse((POLICY + training + "\n".join(keys)).encode(), "policy.toml")


def examples(rows: int = ROWS) -> Examples:
    drawn = np.random.default_rng(1)
    cells = {
        "age": drawn.integers(-110, 111, rows),
        "ward": drawn.integers(0, 3, rows),
        "smoker": 2 * drawn.integers(0, 2, rows) - 1,
    }
    return Examples(np.arange(rows), cells, {"age": np.zeros(rows, np.bool_)}, 3, 2)


def second_round(first: Request) -> Request:
    assert first.plan.training is not None
    step = first.plan.training.model_copy(update={"step": 1, "after": bytes([1] * 32)})
    return first.model_copy(update={"plan": step})


def state_of(first: Request) -> RunState:
    extents = first.plan.statistics(first.table).values()
    return MODELS[first.plan.kind](None, first, bytes([1] * 32), OddSum([one.length for one in extents]), 0)


def work(request: Request | None = None, rows: int = ROWS) -> Work:
    first = asked("8", epochs="2") if request is None else request
    return Work(second_round(first), examples(rows), state_of(first), "north")


@pytest.fixture(scope="module")
def apart() -> Iterator[Apart]:
    one = Apart(policy(), 1)
    yield one
    one.close()


def same(one: Done, other: Done) -> None:
    assert [vector.tolist() for vector in one.vectors] == [vector.tolist() for vector in other.vectors]


def test_work_is_read_as_it_was_written() -> None:
    own = {"control": np.array([0.1, -2.0]), "layers": np.zeros(0)}
    written = replace(work(), own=Own(b"\1" * 16, 3, own), keeps={"control": 2})
    read = works.read(works.written(written))
    assert read.request == written.request
    assert read.state == written.state
    assert (read.silo, read.graph, dict(read.keeps)) == ("north", b"", {"control": 2})
    assert (read.own.run, read.own.step) == (b"\1" * 16, 3)
    assert {name: values.tolist() for name, values in read.own.vectors.items()} == {
        name: values.tolist() for name, values in own.items()
    }
    for name, cells in written.examples.cells.items():
        assert read.examples.cells[name].dtype == cells.dtype
        assert read.examples.cells[name].tolist() == cells.tolist()
    assert read.examples.missing["age"].dtype == np.bool_
    assert (read.examples.left_out, read.examples.persons_left_out) == (3, 2)
    done = Done([np.arange(one.length) for one in written.request.plan.statistics(written.request.table).values()])
    kept = replace(done, own={"control": np.array([1.5, np.pi])})
    reply = b"".join(works.sent(written, kept).parts)
    assert len(reply) == works.reply_bytes(written)
    same(works.received(written, reply), kept)
    assert works.received(written, reply).own["control"].tolist() == [1.5, np.pi]


def test_a_reply_of_another_length_is_refused() -> None:
    one = work()
    lengths = [extent.length for extent in one.request.plan.statistics(one.request.table).values()]
    with pytest.raises(ProtocolError, match="other lengths"):
        works.sent(one, Done([np.zeros(length + 1, np.int64) for length in lengths]))
    with pytest.raises(ProtocolError, match="keeps other vectors"):
        works.sent(one, Done([np.zeros(length, np.int64) for length in lengths], {"control": np.zeros(1)}))
    with pytest.raises(CryptoError, match="ends at"):
        works.read(works.written(one)[:-1])


def test_the_confined_process_computes_what_this_one_does(apart: Apart) -> None:
    torch.set_num_threads(1)
    one = work()
    here = computed(one)
    assert any(vector.any() for vector in here.vectors)
    same(apart.contribution(one, 60.0), here)
    same(apart.contribution(one, 60.0), here)


def test_it_judges_a_model_too(apart: Apart) -> None:
    first = asked("8")
    judged = evaluation(first, "accuracy", "log-loss")
    one = Work(judged, examples(), state_of(first), "north")
    same(apart.contribution(one, 60.0), computed(one))


def test_it_is_confined_and_kept_warm(apart: Apart) -> None:
    assert apart.load()
    began = time.monotonic()
    apart.contribution(work(), 60.0)
    assert time.monotonic() - began < 2.0, "torch is not imported again"


def test_more_rows_than_fit_its_memory_are_told_as_the_limit() -> None:
    one = Apart(policy("max_memory_mb = 512"), 1)
    try:
        with pytest.raises(NetworkError, match="max_memory_mb = 512") as raised:
            one.contribution(work(rows=8_000_000), 60.0)
        assert "smaller batches" in raised.value.hint
        same(one.contribution(work(), 60.0), computed(work()))
    finally:
        one.close()


def test_a_round_that_lasts_too_long_is_ended_and_told() -> None:
    one = Apart(policy("max_seconds = 1"), 1)
    long = asked("256,256", epochs="100", batch="1")
    try:
        one.load()
        began = time.monotonic()
        with pytest.raises(NetworkError, match="max_seconds = 1 gives it") as raised:
            one.contribution(work(long, 20_000), 60.0)
        assert time.monotonic() - began < 5.0
        assert "fewer epochs" in raised.value.hint
        with pytest.raises(NetworkError, match="request's deadline"):
            one.contribution(work(long, 20_000), 0.5)
    finally:
        one.close()


@pytest.fixture
def misbehaving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Apart]:
    monkeypatch.setattr(apart_module, "MODULE", "tests.silo_node.misbehaving_network")
    one = Apart(policy("max_seconds = 1"), 1)
    yield one
    one.close()


def test_each_end_of_the_process_is_told_by_the_policy_alone(misbehaving: Apart) -> None:
    assert not misbehaving.load(), "the filter does not stand in it"
    told_of = {
        b"slow": "takes longer than training.networks.max_seconds = 1",
        b"large": "needs more memory than training.networks.max_memory_mb = 2048",
        b"ends": "was ended by the system",
        b"fails": "failed in its process",
        b"short": "failed in its process",
    }
    for mode, text in told_of.items():
        with pytest.raises(NetworkError, match=text) as raised:
            misbehaving.contribution(replace(work(), silo=mode.decode()), 60.0)
        assert "42" not in f"{raised.value.message} {raised.value.hint}", "nothing of a row"
        again = heard(f"a computation: ToldError: {told(raised.value)}")
        assert again is not None
        assert (again.message, again.hint) == (raised.value.message, raised.value.hint)
    assert heard("a computation: no answer within 3 s") is None


def test_a_silo_without_a_device_says_so() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(SiloError, match="torch finds no CUDA device"):
        device.chosen("cuda")
    assert device.chosen("auto") == torch.device("cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device on this machine")
def test_a_device_gives_the_same_within_float_tolerance() -> None:
    here = computed(work())
    with device.on("cuda"):
        there = computed(work())
    for one, other in zip(here.vectors, there.vectors, strict=True):
        assert np.allclose(one.astype(np.float64), other.astype(np.float64), rtol=1e-3, atol=2.0**34 * 1e-5)


def test_it_ends_with_whoever_started_it(tmp_path: Path) -> None:
    """A worker is killed at any time, and leaves no process that goes on to compute."""
    text = """
import sys, time
from tests.silo_node.test_confined_networks import Apart, policy
one = Apart(policy(), 1)
one.load()
print("warm", flush=True)
time.sleep(120)
"""
    starter = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
    try:
        assert starter.stdout is not None
        assert starter.stdout.readline() == b"warm\n"
        tasks = Path(f"/proc/{starter.pid}/task").glob("*/children")
        children = [int(pid) for task in tasks for pid in task.read_text().split()]
        assert len(children) == 1
        os.kill(starter.pid, signal.SIGKILL)
        starter.wait()
        for _ in range(100):
            if (
                not Path(f"/proc/{children[0]}").exists()
                or "Z" in Path(f"/proc/{children[0]}/stat").read_text().split()
            ):
                return
            time.sleep(0.1)
        raise AssertionError("the process goes on")
    finally:
        starter.kill()
        starter.wait()
        if starter.stdout is not None:
            starter.stdout.close()
