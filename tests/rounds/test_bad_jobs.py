"""What a bad job, a small budget and a full disk get: one line of error and a hint that works when it is followed."""

import errno
import os
import re
from pathlib import Path

import pytest

from analyst.errors import AnalystError, DeniedError
from analyst.training.job import read_job
from analyst.training.progress import Progress
from analyst.training.run import Training, train
from policies.networks.names import PACKED
from policies.requests.families import SHAPES, kind_of, takers
from policies.requests.tables import TableColumn
from tests.harness.families import array, number, task, text, truth
from tests.harness.inside import forget_offer
from tests.harness.simulator import Simulation, no_noise, simulate
from tests.rounds import test_killed as exact
from tests.rounds.test_exact_families import job_of
from tests.rounds.test_training import PRIVATE, SILOS, STEPS, found_banks


def run(simulation: Simulation, file: Path) -> Training:
    return train(
        simulation.federation, read_job(file), keep=file.with_name(f"{file.name}.run.json"), sleep=lambda _: None
    )


LABELS = {"bool": truth("one"), "text": text("one", "a", "b", "?"), "number": number("one", 0, 9)}


# What networks learn from that no other family takes; that of any graph says by its file what it takes.
FEATURES_OF = {
    "cnn": array("scan", "int", (8, 8), 0, 16),
    "language-model": array("words", "int", (4,), 0, 9),
    "recommender": text("item", "a", "b", "?"),
}


@pytest.mark.parametrize("family", sorted(SHAPES.keys() - {PACKED}))
@pytest.mark.parametrize("kind", sorted(LABELS))
def test_a_label_of_another_type_is_named_with_the_families_that_take_it(family: str, kind: str) -> None:
    columns: tuple[TableColumn, ...]
    columns = (LABELS[kind], number("time", 0, 99), truth("event"), number("age", 0, 99), truth("sex"))
    columns += (FEATURES_OF[family],) if family in FEATURES_OF else ()
    shape = SHAPES[family]
    parts = {name: name for name in ("time", "event") if name in shape.parts}
    parts |= {"group": "sex"} if family == "audit" else {}
    takes = next(
        (
            name
            for name in ("age", "sex")
            if not shape.takes or kind_of(columns[("age", "sex").index(name) + 3]) in shape.takes
        ),
        "age",
    )
    takes = FEATURES_OF[family].name if family in FEATURES_OF else takes
    options = {"positive": "a"} if "positive" in shape.options and kind == "text" and shape.labels else {}
    if kind in shape.labels:
        features = () if family == "audit" else (takes,)
        assert task(family, columns, "one", features, parts, 30, **options).label == "one"
        return
    with pytest.raises(ValueError, match="label") as caught:
        task(family, columns, "one", (takes,), parts)
    said = str(caught.value)
    if not shape.labels:
        assert f"{family} has no label; remove 'one'" in said
    else:
        assert f"label 'one' is {kind}" in said
        assert f"{kind} labels: {takers(kind)}" in said  # type: ignore[arg-type]
        assert takers(kind) != "no family"  # type: ignore[arg-type]


@pytest.mark.slow
def test_every_error_of_a_job_has_a_hint_of_training(tmp_path: Path) -> None:
    bad = {
        "used twice: debt": job_of("linear-regression", "debt"),
        "used twice: kind": job_of("linear-regression", "paid").replace('["kind",', '["kind", "kind",'),
        "label 'kind' is text": job_of("linear-regression", "kind").replace('"kind", ', ""),
        "low must be below high": job_of("linear-regression", "paid", "[bounds]\ndebt = [5, 1]\n"),
        "no option": job_of("linear-regression", "paid", "[options]\npenalty = 1\n"),
        "no groups to audit": job_of("logistic-regression", "ok", '[audit]\ngroups = ["debt"]\n'),
        "has no auc": job_of("linear-regression", "paid", '[held_out]\ncolumn = "ok"\n[metric]\nname = "auc"\n'),
    }
    with exact.banks(tmp_path / "f") as (simulation, file):
        for says, job in bad.items():
            file.write_text(job)
            with pytest.raises(AnalystError) as caught:
                run(simulation, file)
            assert says in caught.value.message
            assert "docs/training.md" in caught.value.hint
            assert "group by" not in caught.value.hint
            assert "\n" not in caught.value.message + caught.value.hint
        assert not simulation.reports


@pytest.mark.slow
def test_silos_that_define_a_table_otherwise_are_left_out_as_a_job_does(tmp_path: Path) -> None:
    path = exact.founded(tmp_path / "f", silos=(*exact.SILOS, "west"))
    policy = path / "silos" / "west" / "policy.toml"
    policy.write_text(policy.read_text().replace("bounds = [18, 99]", "bounds = [18, 90]"))
    with simulate(path) as simulation:
        file = path / "job.toml"
        with pytest.raises(AnalystError, match="define 'loans' in 2 ways") as caught:
            run(simulation, file)
        found = re.search(r'silos = \["[^]]*"\] in the job', caught.value.hint)
        assert found is not None, caught.value.hint
        assert "--silos" not in caught.value.hint
        line = found[0].removesuffix(" in the job")
        file.write_text(file.read_text() + f"{line}\n")
        assert run(simulation, file).holders == exact.SILOS


@pytest.mark.slow
def test_a_job_that_is_refused_at_once_may_be_changed_and_one_that_began_may_not(tmp_path: Path) -> None:
    with exact.banks(tmp_path / "f") as (simulation, file):
        keep = file.with_name("job.toml.run.json")
        file.write_text(job_of("linear-regression", "paid", "rounds = 31\n"))
        with pytest.raises(DeniedError, match="MAX_ROUNDS") as caught:
            run(simulation, file)
        assert "rounds = 30" in caught.value.hint
        assert not keep.exists()
        file.write_text(job_of("linear-regression", "paid", "rounds = 30\n"))
        sent: list[bytes] = []
        submit = simulation.submit

        def killed(request: bytes, more_s: float = 0.0) -> bytes:
            sent.append(keep.read_bytes())
            raise KeyboardInterrupt

        simulation.submit = killed  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            run(simulation, file)
        state = Progress.decode(sent[0])
        assert (state.done, keep.read_bytes()) == (0, sent[0]), "written before the first request is sent"
        simulation.submit = submit  # type: ignore[method-assign]
        file.write_text(job_of("linear-regression", "paid", "rounds = 29\n"))
        with pytest.raises(AnalystError, match="of another job"):
            run(simulation, file)
        file.write_text(job_of("linear-regression", "paid", "rounds = 30\n"))
        training = run(simulation, file)
        assert training.run == _run_of(state), "the run that was begun is resumed"
        assert not keep.exists()


def _run_of(state: Progress) -> str:
    from policies.requests.request import Request

    step = Request.decode(state.first).plan.training
    assert step is not None
    return step.run.hex()


@pytest.mark.slow
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_that_takes_no_file_is_one_line_and_costs_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    with exact.banks(tmp_path / "f") as (simulation, file):
        for failing in (1, 2, 3):
            calls = list[Path]()

            def replace_file(
                path: Path, data: bytes, mode: int, calls: list[Path] = calls, failing: int = failing
            ) -> None:
                calls.append(path)
                if len(calls) == failing:
                    raise OSError(number, os.strerror(number))
                path.write_bytes(data)

            before = exact.charges(simulation)
            with monkeypatch.context() as patch:
                patch.setattr("analyst.training.progress.replace_file", replace_file)
                with pytest.raises(AnalystError) as caught:
                    run(simulation, file)
            keep = file.with_name("job.toml.run.json")
            assert caught.value.message == f"{keep} cannot be written ({os.strerror(number)})"
            room = f"make room in {keep.parent}" if number == errno.ENOSPC else f"make {keep.parent} a directory that"
            assert caught.value.hint.startswith(room)
            training = run(simulation, file)
            assert (training.ended, training.holders) == ("complete", exact.SILOS)
            spent = exact.charges(simulation)
            assert spent == {silo: count + exact.ROUNDS for silo, count in before.items()}


@pytest.mark.torch
def test_too_small_a_price_says_how_many_steps_it_buys(tmp_path: Path) -> None:
    path = found_banks(tmp_path / "f")
    for policy in path.glob("silos/*/policy.toml"):
        limits = "lifetime = { rho = 90.0 }\nper_request = { min_rho = 0.5, max_rho = 5.0 }"
        policy.write_text(policy.read_text().replace("lifetime = { rho = 90.0 }", limits))
    with simulate(path, noise=no_noise) as simulation:
        file = path / "job.toml"
        with pytest.raises(AnalystError, match=f"epsilon 10 is too little for {STEPS} rounds") as caught:
            run(simulation, file)
        found = re.search(
            r"it buys (\d+) at most: steps = (\d+); 4 rounds cost epsilon ([0-9.]+) or more", caught.value.hint
        )
        assert found is not None
        count, least = int(found[1]), found[3]
        file.write_text(PRIVATE.replace(f"steps = {STEPS}", f"steps = {count + 1}"))
        with pytest.raises(AnalystError, match="too little"):
            run(simulation, file)
        for job in (
            PRIVATE.replace(f"steps = {STEPS}", f"steps = {count}"),
            PRIVATE.replace("epsilon = 10", f"epsilon = {least}"),
        ):
            file.write_text(job)
            assert set(run(simulation, file).holders) == set(SILOS)


@pytest.mark.torch
@pytest.mark.parametrize(
    ("limits", "code"),
    [
        ("per_request = { min_rho = 0.00001, max_rho = 0.2 }", "RHO_PER_REQUEST"),
        ("", "RHO_PER_RUN"),
        ("", "BUDGET_LIFETIME"),
    ],
)
def test_too_large_a_price_says_which_epsilon_fits(tmp_path: Path, limits: str, code: str) -> None:
    path = found_banks(tmp_path / "f", lifetime="1.0" if code == "BUDGET_LIFETIME" else "90.0")
    for policy in path.glob("silos/*/policy.toml"):
        text = policy.read_text().replace("[disclosure]", f"{limits}\n[disclosure]", 1)
        if code == "RHO_PER_RUN":
            text = text.replace("max_rho_per_run = 20.0", "max_rho_per_run = 1.0")
        policy.write_text(text)
    with simulate(path, noise=no_noise) as simulation:
        file = path / "job.toml"
        with pytest.raises(DeniedError, match=code) as caught:
            run(simulation, file)
        found = re.search(r"4 take an epsilon from [0-9.e-]+ to ([0-9.]+)", caught.value.hint)
        assert found is not None, caught.value.hint
        jobs = [PRIVATE.replace("epsilon = 10", f"epsilon = {found[1]}")]
        if more := re.search(r"steps = (\d+) or more at this epsilon", caught.value.hint):
            jobs.append(PRIVATE.replace(f"steps = {STEPS}", f"steps = {more[1]}"))
        assert (len(jobs) == 2) is (code == "RHO_PER_REQUEST")
        for job in jobs:
            file.write_text(job)
            forget_offer(simulation.federation)
            assert set(run(simulation, file).holders) == set(SILOS)
