"""Before a training run: its rounds, bytes and price as they will be, and who would refuse it, at no cost."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import pytest

from analyst.errors import AnalystError
from analyst.training.job import read_job
from analyst.training.preview import RunPreview, preview_run, run_lines
from analyst.training.run import train
from crypto.keys import Secret, SigningKey
from policies.budget.accountant import micro_rho_of
from policies.units import MICRO
from tests.harness.simulator import Simulation, simulate
from tests.rounds import test_noised_families as noised_families
from tests.rounds.test_exact_families import ALL, banks, job_of
from tests.rounds.test_training import SILOS, found_banks, pooled

PRIVATE = """\
schema = "consilo-job/1"
model = "logistic-regression"
table = "loans"
purpose = "lending"
label = "ok"
features = ["kind", "debt"]
steps = 20
learning_rate = 1.5
clip = 0.8
"""
CONSENT = """\
[consent]
mode = "table"
source = "consent.csv"
subject = "id"
purpose = "purpose"
given_at = "given_at"
withdrawn_at = "withdrawn_at"
[purposes.lending]
consent = "opt-out"
"""


class StoppedError(Exception):
    """Of an analyst who interrupts a run."""


def stop(done: int) -> None:
    raise StoppedError


@contextmanager
def private(path: Path, job: str, change: tuple[str, str] = ("", ""), lifetime: str = "90.0") -> Iterator[Simulation]:
    found_banks(path, job, lifetime)
    for policy in path.glob("silos/*/policy.toml"):
        policy.write_text(policy.read_text().replace(*change))
    with simulate(path) as simulation:
        yield simulation


def foreseen(simulation: Simulation) -> RunPreview:
    return preview_run(simulation.federation, read_job(simulation.path / "job.toml"))


def passed(simulation: Simulation, silo: str) -> tuple[int, int]:
    """Return the bytes that a silo sent and received in all rounds."""
    seen = simulation.silos[silo].seen
    steps = [(step, sum(map(len, frames))) for step, frames in seen if not step.endswith((" catalogue", " cancel"))]
    return tuple(sum(count for step, count in steps if step.startswith(way)) for way in "<>")  # type: ignore[return-value]


@pytest.mark.slow
def test_an_exact_run_takes_the_rounds_and_bytes_that_were_foreseen(tmp_path: Path) -> None:
    with banks(tmp_path / "f", job_of("linear-regression", "paid", "rounds = 3\n"), consent=CONSENT) as (
        simulation,
        file,
    ):
        found = preview_run(simulation.federation, read_job(file))
        assert all(simulation.spent(silo) == 0 for silo in SILOS)
        training = train(simulation.federation, read_job(file))
        assert found.rounds == training.steps == 3
        sent = [passed(simulation, silo) for silo in SILOS]
    assert [(one.first, one.last) for one in found.sizes] == [(1, 1), (2, 3)]
    assert (found.rho, found.instead) == (None, None)
    assert not found.refusals
    for mean, said in zip(zip(*sent, strict=True), (found.up_bytes, found.down_bytes), strict=True):
        assert said == pytest.approx(sum(mean) / len(SILOS), rel=0.02)
    assert "price: none" in "\n".join(run_lines(found))


def test_a_preview_reads_no_row_and_asks_nothing(tmp_path: Path) -> None:
    with private(tmp_path / "f", f"{PRIVATE}epsilon = 4\n") as simulation:
        for file in (tmp_path / "f").glob("silos/*/loans.parquet"):
            file.write_bytes(b"no rows")
        before = {silo: simulation.spent(silo) for silo in SILOS}
        found = foreseen(simulation)
        assert {silo: simulation.spent(silo) for silo in SILOS} == before
        assert {step for silo in simulation.silos.values() for step, _ in silo.seen} <= {"> catalogue", "< catalogue"}
    assert not found.refusals
    assert 3.9 < (found.epsilon_of_run or 0) <= 4
    for one in found.silos.values():
        assert one.rho_of_run == pytest.approx(20 * one.rho, rel=1e-4)
        assert one.rho_after == pytest.approx((one.rho_left or 0) - one.rho_of_run)
    assert [(one.first, one.last, one.values) for one in found.sizes] == [(1, 20, 5)]
    assert found.instead is not None
    assert found.instead.in_words == ""


@pytest.mark.torch
@pytest.mark.slow
def test_what_a_private_run_is_charged_is_what_was_foreseen(tmp_path: Path) -> None:
    assert pooled()
    with private(tmp_path / "f", f"{PRIVATE.replace('steps = 20', 'steps = 3')}epsilon = 4\n") as simulation:
        found = foreseen(simulation)
        train(simulation.federation, read_job(simulation.path / "job.toml"))
        charged = {silo: simulation.spent(silo) for silo in SILOS}
        sent = [passed(simulation, silo) for silo in SILOS]
    for silo, one in found.silos.items():
        assert 0 <= round(one.rho_of_run * MICRO) - charged[silo] <= 3, "each charge is rounded for itself"
    for mean, said in zip(zip(*sent, strict=True), (found.up_bytes, found.down_bytes), strict=True):
        assert said == pytest.approx(sum(mean) / len(SILOS), rel=0.02)


@pytest.mark.slow
def test_a_family_with_noise_is_previewed_by_its_rounds(tmp_path: Path) -> None:
    job = noised_families.job_of("linear-regression", "paid", "epsilon = 4\nrounds = 4\n")
    with noised_families.banks(tmp_path / "f", job, times=1) as (simulation, file):
        found = preview_run(simulation.federation, read_job(file))
        training = train(simulation.federation, read_job(file))
        charged = {silo: simulation.spent(silo) for silo in SILOS}
        sent = [passed(simulation, silo) for silo in SILOS]
    assert (found.rounds, training.steps) == (4, 4)
    assert [(one.first, one.last) for one in found.sizes] == [(1, 1), (2, 4)]
    assert found.epsilon_of_run == pytest.approx(training.epsilon or 0)
    assert (found.epsilon_of_run or 9) <= 4
    for silo, one in found.silos.items():
        assert 0 <= round(one.rho_of_run * MICRO) - charged[silo] <= 4
    for mean, said in zip(zip(*sent, strict=True), (found.up_bytes, found.down_bytes), strict=True):
        assert said == pytest.approx(sum(mean) / len(SILOS), rel=0.02)


@pytest.mark.torch
@pytest.mark.slow
def test_what_a_begun_run_has_reserved_is_not_counted_twice(tmp_path: Path) -> None:
    with private(tmp_path / "f", f"{PRIVATE.replace('steps = 20', 'steps = 3')}epsilon = 4\n") as simulation:
        job, keep = read_job(simulation.path / "job.toml"), tmp_path / "keep.json"
        before = foreseen(simulation).silos["east"]
        with pytest.raises(StoppedError):
            train(simulation.federation, job, stop, keep)
        found = preview_run(simulation.federation, job, keep)
    east = found.silos["east"]
    assert (found.done, found.rounds, found.instead) == (1, 2, None)
    assert not found.refusals
    assert east.rho_left == east.rho_after == pytest.approx(before.rho_after)
    assert east.rho_of_run == pytest.approx(2 * east.rho, rel=1e-4)


REFUSED: dict[str, tuple[str, tuple[str, str], str, str]] = {
    "computation": ("", ('"query", "logistic-regression"', '"query"'), "COMPUTATION_CLOSED", "purposes.lending"),
    "role": ("", ('roles = ["feature"], domain', 'roles = ["dimension"], domain'), "COLUMN_ROLE", "not as feature"),
    "release": ("", ('release = "private"', 'release = "exact"'), "RELEASE", 'train with release = "exact"'),
    "rounds": ("", ("max_rounds = 20", "max_rounds = 19"), "MAX_ROUNDS", "ask with steps = 19"),
    "clip": ("", ("clip_norm = 1.0", "clip_norm = 0.5"), "CLIP_NORM", "ask with clip = 0.5"),
    "run": (
        "",
        ("max_rho_per_run = 20.0", "max_rho_per_run = 0.1"),
        "RHO_PER_RUN",
        "it could have 6 rounds; 20 take an epsilon from",
    ),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_who_would_refuse_and_why(case: str, tmp_path: Path) -> None:
    more, change, code, said = REFUSED[case]
    with private(tmp_path / "f", f"{PRIVATE}epsilon = 4\n{more}", change) as simulation:
        found = foreseen(simulation)
    assert set(found.refusals) == set(SILOS)
    assert {one.code for one in found.refusals["east"]} == {code}
    text = "\n".join(run_lines(found))
    assert f"east would refuse: {code}" in text
    assert said in text


def test_a_split_of_persons_that_a_silo_would_not_make_is_foreseen(tmp_path: Path) -> None:
    job = job_of("linear-regression", "paid", "[held_out]\nshare = 0.25\n")
    with banks(tmp_path / "f", job) as (simulation, file):
        found = preview_run(simulation.federation, read_job(file))
        assert not (tmp_path / "f" / "splits.json").exists()
    assert [one.code for one in found.refusals["east"]] == ["COMPUTATION_CLOSED"]
    assert "the split of persons: evaluation is not open" in found.refusals["east"][0].message
    with banks(tmp_path / "g", job, computations=("linear-regression", "evaluation")) as (simulation, file):
        assert not preview_run(simulation.federation, read_job(file)).refusals


BESIDE = """\
epsilon = 4
rounds = 10
[held_out]
share = 0.25
[metric]
name = "auc"
every = 5
epsilon = 1
[audit]
groups = ["owner"]
epsilon = 0.5
"""


def test_metrics_and_an_audit_count_beside_the_run(tmp_path: Path) -> None:
    job = noised_families.job_of("logistic-regression", "ok", BESIDE).replace(', "owner"', "")
    roles = (
        'owner = { type = "bool", class = "internal", roles = ["feature"]',
        'owner = { type = "bool", class = "internal", roles = ["audit"]',
    )
    opened = ("logistic-regression", "evaluation", "audit")
    with noised_families.banks(tmp_path / "f", job, times=1, change=roles, computations=opened) as (simulation, file):
        policies = [*simulation.path.glob("silos/*/policy.toml")]
        found = preview_run(simulation.federation, read_job(file))
    assert len(policies) == len(SILOS)
    (east,) = [one for silo, one in found.silos.items() if silo == "east"]
    assert [(one.code, one.message) for one in east.denials] == [
        ("RELEASE", "its auc: metrics of a model may not leave")
    ]
    delta = found.delta
    expected = micro_rho_of(1.0, delta) // 2 * 2 + micro_rho_of(0.5, delta)
    assert east.rho_beside * MICRO == pytest.approx(expected, rel=0.01)
    assert east.rho_after == pytest.approx((east.rho_left or 0) - east.rho_of_run - east.rho_beside)
    text = "\n".join(run_lines(found))
    assert "metric: auc by who is held out, after every 5 rounds, for epsilon 1 beside" in text
    assert "audit: of the groups by owner, for epsilon 0.5 beside" in text
    assert f", and rho {east.rho_beside:.4g} beside" in text


def test_groups_below_the_cohort_of_a_policy_are_foreseen(tmp_path: Path) -> None:
    job = job_of("anova", "grade", "[options]\nmin_cohort = 2\n").replace('"kind", ', "")
    with banks(tmp_path / "f", job, computations=("anova",)) as (simulation, file):
        found = preview_run(simulation.federation, read_job(file))
    assert [one.code for one in found.refusals["east"]] == ["MIN_COHORT"]


def test_an_approval_that_is_awaited_is_named(tmp_path: Path) -> None:
    key = SigningKey(Secret.generate()).public
    rule = f'[people.dpo]\nkey = "{key}"\n[[approvals]]\nwhen = {{ kind = "training" }}\nneed = 1\nof = ["dpo"]\n'
    change = ("[training]", f"{rule}expires_hours = 24\n[training]")
    with private(tmp_path / "f", f"{PRIVATE}epsilon = 4\n", change) as simulation:
        found = foreseen(simulation)
    assert [one.code for one in found.refusals["east"]] == ["APPROVAL_AWAITED"]


def test_a_budget_that_ends_within_the_run_says_what_it_buys(tmp_path: Path) -> None:
    with private(tmp_path / "f", f"{PRIVATE}epsilon = 4\n", lifetime="0.1") as simulation:
        found = foreseen(simulation)
        assert found.instead is not None
        rounds, most = found.instead.rounds, found.instead.most_epsilon
        assert rounds is not None
        assert most is not None
        assert {one.covered for one in found.silos.values()} == {rounds}
        assert all((one.rho_after or 0) < 0 for one in found.silos.values())
        for change in (("steps = 20", f"steps = {rounds}"), ("epsilon = 4", f"epsilon = {most:g}")):
            text = (simulation.path / "job.toml").read_text()
            smaller = text.replace(*change)
            if "steps" in change[0]:  # at the same price of each round
                share = 4 * (rounds / 20) ** 0.5
                smaller = smaller.replace("epsilon = 4", f"epsilon = {0.97 * share:.3g}")
            (simulation.path / "again.toml").write_text(smaller)
            again = preview_run(simulation.federation, read_job(simulation.path / "again.toml"))
            assert all(one.covered is None for one in again.silos.values()), smaller
            assert again.instead is not None
            assert again.instead.rounds is None
        (simulation.path / "again.toml").write_text(text.replace("epsilon = 4", f"epsilon = {1.02 * most:g}"))
        again = preview_run(simulation.federation, read_job(simulation.path / "again.toml"))
        assert all(one.covered is not None for one in again.silos.values())


def test_an_epsilon_that_is_too_small_says_what_it_buys_and_what_is_enough(tmp_path: Path) -> None:
    change = ("[disclosure]", "[budget.per_request]\nmin_rho = 0.001\nmax_rho = 5\n[disclosure]")
    with private(tmp_path / "f", f"{PRIVATE}epsilon = 0.5\n", change) as simulation:
        job = read_job(simulation.path / "job.toml")
        with pytest.raises(AnalystError, match="too little for 20 rounds") as caught:
            preview_run(simulation.federation, job)
        said = re.fullmatch(
            r"it buys (\d+) at most: steps = \1; 20 rounds cost epsilon ([0-9.]+) or more", caught.value.hint
        )
        assert said is not None
        rounds, least = int(said[1]), Decimal(said[2])
        for fitting in ({"steps": rounds}, {"epsilon": least}):
            assert not preview_run(simulation.federation, job.model_copy(update=fitting)).refusals
        for less in ({"steps": rounds + 1}, {"epsilon": round(least * Decimal("0.98"), 6)}):
            with pytest.raises(AnalystError, match="too little"):
                preview_run(simulation.federation, job.model_copy(update=less))


def test_an_interrupted_run_is_previewed_from_where_it_stands(tmp_path: Path) -> None:
    with banks(tmp_path / "f", job_of("linear-regression", "paid", "rounds = 9\n"), computations=ALL) as (
        simulation,
        file,
    ):
        keep = file.with_name("keep.json")
        with pytest.raises(StoppedError):
            train(simulation.federation, read_job(file), stop, keep)
        found = preview_run(simulation.federation, read_job(file), keep)
    assert (found.done, found.rounds) == (1, 8)
    assert [(one.first, one.last) for one in found.sizes] == [(2, 9)]
    assert "rounds: at most 8 after 1 that are done" in "\n".join(run_lines(found))
