"""Computing in a process of its own: the same answers, and none that lasts longer or takes more than its limits."""

import math
import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from crypto.errors import ProtocolError
from policies.document.load import load
from policies.requests.logistic import LogisticStep
from policies.requests.request import Request
from silo_node import killable
from silo_node.errors import SourceError
from silo_node.killable import ComputeError, ComputeLimits, KillableComputer, limits_of
from silo_node.spread import SpreadComputer
from silo_node.training.run import check_position
from tests.harness.example_policy import NOW, Edit, plan, request, table
from tests.harness.example_policy import policy as example
from tests.harness.inside import computer_of
from tests.harness.simulator import Simulation
from tests.rounds.computation_examples import training

pytestmark = pytest.mark.process
LIMITS = ComputeLimits(1024, 1)


def computer(policy: Path, limits: ComputeLimits = LIMITS) -> KillableComputer:
    return KillableComputer(load(policy), policy, limits, lambda _: None, dict)


def test_a_worker_answers_as_this_process_does(shared: Simulation) -> None:
    policy = shared.silos["aspen"].policy
    _, asked = shared.federation.prepare(
        "SELECT sex, COUNT(*) AS n, AVG(age) AS mean FROM lung WHERE died GROUP BY sex",
        purpose="health-research",
        epsilon=1,
    )
    now = int(time.time())
    here = computer_of(shared.silos["aspen"]).contribution(asked, now)
    one = computer(policy)
    try:
        for _ in range(3):
            found = one.contribution(asked, now)
            assert [vector.tolist() for vector in found] == [vector.tolist() for vector in here]
    finally:
        one.close()


@pytest.fixture
def home(tmp_path: Path, shared: Simulation, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(killable, "MODULE", "tests.silo_node.misbehaving_computing")
    text = shared.silos["aspen"].policy.read_text()
    (tmp_path / "policy.toml").write_text(text + "\n[compute]\nseconds = 6\n")
    (tmp_path / "mode").write_text("well")
    return tmp_path


def test_a_worker_that_exceeds_a_limit_is_replaced_before_the_next_request(home: Path) -> None:
    asked = request(plan=plan(where=None, group_by=(), aggregates=plan().aggregates[:1]))
    one = computer(home / "policy.toml")
    try:
        one.wait()
        for mode, reason in (
            ("slow", "no answer within"),
            ("large", "MemoryError"),
            ("ends", "ended with status 3"),
            ("fails", "a cell of row 7"),
            ("short", "a reply of 7 bytes, expected 8"),
        ):
            (home / "mode").write_text(mode)
            one.wait()  # for the second worker, which has to start beside whatever else this machine does
            began = time.monotonic()
            with pytest.raises(ComputeError, match=reason):
                one.contribution(asked, NOW)
            assert time.monotonic() - began < 30, "it would sleep for 60 s, and may take 6"
            (home / "mode").write_text("well")
            (found,) = one.contribution(asked, NOW)
            assert found.tolist() == [7]
            assert found.dtype == np.int64
    finally:
        one.close()


def test_a_question_waits_for_no_new_worker_beyond_its_time(home: Path) -> None:
    """Hope: two questions whose computing is killed where a customer is in make the next one leave late."""
    policy = home / "policy.toml"
    policy.write_text(policy.read_text().replace("seconds = 6", "fixed_seconds = 0.5"))
    asked = request(table=table(name="lung"), plan=plan(where=None, group_by=(), aggregates=plan().aggregates[:1]))
    one = computer(policy)
    try:
        one.wait()
        (home / "late").touch()
        (home / "mode").write_text("ends")
        for _ in range(2):
            with pytest.raises(ComputeError, match="ended with status 3"):
                one.contribution(asked, NOW)
        (home / "mode").write_text("well")
        for _ in range(2):
            began = time.monotonic()
            with pytest.raises(ComputeError, match="no process was ready"):
                one.contribution(asked, NOW)
            assert time.monotonic() - began < 0.5
        began = time.monotonic()
        with pytest.raises(SourceError, match="no process was ready"):
            one.refresh()
        assert time.monotonic() - began < 0.2, "so no proposal that reads decisions anew tells it either"
        one.wait()
        assert one.contribution(asked, NOW)[0].tolist() == [7], "it is started meanwhile"
    finally:
        one.close()


def test_what_a_worker_refuses_waits_for_no_memory_that_is_given_back(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hope: where a customer's rows exceed the memory, the worker's end lasts beyond the time of the question."""
    policy = home / "policy.toml"
    policy.write_text(policy.read_text().replace("seconds = 6", "fixed_seconds = 0.5"))
    asked = request(table=table(name="lung"), plan=plan(where=None, group_by=(), aggregates=plan().aggregates[:1]))
    one, wait = computer(policy), subprocess.Popen.wait

    def slow(self: "subprocess.Popen[bytes]", timeout: float | None = None) -> int:
        time.sleep(1)  # as the system needs for some gigabytes
        return wait(self, timeout)

    try:
        one.wait()
        monkeypatch.setattr(subprocess.Popen, "wait", slow)
        for mode, reason in (("large", "MemoryError"), ("fails", "a cell of row 7")):
            (home / "mode").write_text(mode)
            began = time.monotonic()
            with pytest.raises(ComputeError, match=reason):
                one.contribution(asked, NOW)
            assert time.monotonic() - began < 0.5
    finally:
        one.close()


def test_a_step_that_is_not_the_next_one_is_refused_as_in_this_process(home: Path) -> None:
    first = training(LogisticStep, "age", release="private", learning_rate="1", clip="1")
    assert isinstance(first.plan, LogisticStep)
    second = first.model_copy(update={"plan": first.plan.model_copy(update={"step": 1, "after": bytes([7]) * 32})})
    (home / "mode").write_text("fails")
    one = computer(home / "policy.toml")
    try:
        with pytest.raises(ProtocolError) as here:
            check_position(None, second)
        with pytest.raises(ProtocolError) as there:
            one.contribution(second, NOW)
        assert there.value.message == here.value.message
    finally:
        one.close()


def test_a_worker_that_is_killed_while_it_has_nothing_to_do_costs_no_answer(home: Path) -> None:
    asked = request(plan=plan(where=None, group_by=(), aggregates=plan().aggregates[:1]))
    one = computer(home / "policy.toml")
    try:
        for _ in range(2):
            one.wait()
            for worker in _workers():
                os.kill(worker, signal.SIGKILL)
                os.waitid(os.P_PID, worker, os.WEXITED | os.WNOWAIT)  # until it has ended, and leave it to be found so
            assert one.contribution(asked, NOW)[0].tolist() == [7]
    finally:
        one.close()


def test_a_worker_ends_with_its_silo(home: Path) -> None:
    one = computer(home / "policy.toml")
    asked = request(plan=plan(where=None, group_by=(), aggregates=plan().aggregates[:1]))
    one.contribution(asked, NOW)
    assert _workers()
    one.close()
    assert _workers() == []


def _workers() -> list[int]:
    """Return the processes of this one's workers that run; other tests' children do not count."""
    found = []
    for children in Path("/proc/self/task").glob("*/children"):
        with suppress(FileNotFoundError):  # of a thread that has ended
            for child in children.read_text().split():
                with suppress(FileNotFoundError):  # of a child that has ended
                    if b"misbehaving_computing" in Path(f"/proc/{child}/cmdline").read_bytes():
                        found.append(int(child))
    return found


class Looking:
    """A reader that looks for long for the newest rows, of which there are few."""

    def asked(self, asked: Request, now: int) -> tuple[Any, Any]:
        time.sleep(0.2)
        return SimpleNamespace(request=asked, manifest=b""), SimpleNamespace(count=7)


class Noting:
    """A worker that notes until when it may compute."""

    def __init__(self) -> None:
        self.deadline = math.inf

    def contribution(self, asked: Request, now: int, deadline: float) -> list[Any]:
        self.deadline = deadline
        return []


def test_what_a_spread_question_looks_for_is_in_its_time(home: Path) -> None:
    """Hope: the time to find the newest rows comes on top of the time after which a computing is killed."""
    policy = home / "policy.toml"
    text = policy.read_text().replace("seconds = 6", "fixed_seconds = 0.5")
    policy.write_text(text.replace('"lung.parquet"', '"lung.parquet"\nread = "prepared"'))
    asked = request(table=table(name="lung"), plan=plan(where=None, group_by=(), aggregates=plan().aggregates[:1]))
    inner, began, reader = Noting(), time.monotonic(), Looking()
    SpreadComputer(cast(Any, inner), load(policy).policy, cast(Any, reader), 1000).contribution(asked, NOW)
    assert inner.deadline < began + 0.5


def test_silos_of_one_machine_share_it() -> None:
    one, four = limits_of(example()), limits_of(example(), 4)
    assert one.threads >= four.threads >= 1
    assert four.memory_mb == max(killable.MIN_MEMORY_MB, one.memory_mb // 4)
    said = example(Edit("[disclosure]", "[compute]\nmemory_mb = 700\nthreads = 3\n[disclosure]"))
    assert limits_of(said) == limits_of(said, 4) == ComputeLimits(700, 3)


def test_a_worker_gets_the_place_of_a_server_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSN_OF_TEST", "host=here")
    monkeypatch.setenv("SECRET_OF_TEST", "x")
    of = example(Edit('kind = "parquet"', 'kind = "postgres"'), Edit("visits.parquet", "env:DSN_OF_TEST#visits"))
    found = killable.environment(of, 3)
    threads = {"OMP_NUM_THREADS": "3", "OPENBLAS_NUM_THREADS": "3"}
    assert found == {"DSN_OF_TEST": "host=here", **threads, **killable.KEEPS_MEMORY}
