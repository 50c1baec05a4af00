"""What an analyst does over a served aggregator as in simulate mode: ask what people must approve, train, come back."""

import asyncio
import json
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import analyst.cli.main
import analyst.training.run
import silo_node.owner.cli
from analyst.link import RemoteLink
from analyst.training.registry import Registry
from federation.errors import FederationError
from federation.transport.frames import Kind, frame
from policies.domains import text_of
from policies.models.portable import Portable
from tests.harness.domains import GROUPED, days, lengthen
from tests.harness.federated import (
    AGGREGATOR,
    ANALYST,
    SILOS,
    Served,
    add_member,
    credentials,
    free_port,
    provision,
    served,
)
from tests.harness.inside import call, ledger_of, loop_of, rounds_of, session_of, silence, write
from tests.harness.owner_home import PEOPLE, with_people
from tests.harness.states import states_of
from tests.rounds.test_training import PRIVATE, STEPS, descent, found_banks, pooled
from tests.rounds.test_training import SILOS as BANKS

pytestmark = pytest.mark.server

DPO, OWNER, _ = PEOPLE
QUESTION = "SELECT sex, COUNT(*) AS n FROM lung GROUP BY sex"
DENIED = 3


def consilo(*arguments: object) -> int:
    return analyst.cli.main.main([str(one) for one in arguments])


def owner(*arguments: object) -> int:
    return silo_node.owner.cli.main([str(one) for one in arguments])


def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    """Return the JSON that a command printed, without the lines that the served parts logged."""
    return json.loads("\n".join(line for line in capsys.readouterr().out.splitlines() if not re.match(r"\d{4}-", line)))


@contextmanager
def exact(place: Path, founded: Path, silos: tuple[str, ...]) -> Iterator[Served]:
    """Serve a founded federation between organisations, without noise."""
    port = free_port()
    with served(provision(place, founded, f"127.0.0.1:{port}", silos), port, silos) as one:
        quiet(one)
        yield one


def quiet(one: Served) -> None:
    for silo in one.silos.values():
        silence(silo)


def test_a_request_that_people_must_approve_is_answered_when_it_is_sent_again(
    founded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    guarded = Path(shutil.copytree(founded, tmp_path / "founded"))
    for silo in SILOS:
        with_people(guarded, silo)
    keep, out = tmp_path / "request", tmp_path / "answer.json"
    with exact(tmp_path / "p", guarded, SILOS) as one:
        toml = one.path / ANALYST / "consilo.toml"
        query = ("query", QUESTION, "--federation", toml, "--purpose", "health-research", "--epsilon", "1")
        asked = (*query, "--keep", keep, "--format", "json", "--out", out)
        # 1. The analyst sees what is awaited, and asking again changes nothing.
        for _ in range(2):
            assert consilo(*asked) == DENIED
            said = capsys.readouterr().err
            assert f"5 of 5 silos refuse: APPROVAL_AWAITED (approvals.0): 2 of {DPO}, {OWNER} must approve it" in said
            assert keep.exists()
            assert not out.exists()
        # 2. The owners see it, and at four silos two people approve it. Four silos are enough for an answer.
        for silo in SILOS[:4]:
            policy = one.path / silo / "policy.toml"
            assert owner("requests", "--policy", policy, "--format", "json") == 0
            (waiting,) = printed(capsys)
            assert (waiting["analyst"], waiting["question"]) == (ANALYST, "COUNT(*) of lung by sex")
            for who in (DPO, OWNER):
                arguments = ("--policy", policy, "--as", who, "--key", guarded / f"{who}.key")
                assert owner("approve", waiting["request"][:32], *arguments) == 0
            assert "approved, 2 of 2" in capsys.readouterr().out
        assert consilo(*asked) == 0
        capsys.readouterr()
        report = json.loads(out.read_text())
        assert not keep.exists(), "it was answered"
        assert {silo for silo, outcome in report["silos"].items() if outcome["status"] == "answered"} == set(SILOS[:4])
        # 3. The report is there to be held against what the silos signed, also later and by its transcript alone.
        for answer in (out, report["transcript"]):
            assert consilo("report", "verify", answer, "--federation", toml) == 0
            assert "it opens with the key of ana" in capsys.readouterr().out
        spent = {silo: ledger_of(one.silos[silo]).spending().lifetime for silo in SILOS}
        assert spent[SILOS[-1]] == 0 < spent[SILOS[0]]


def test_the_values_of_a_long_domain_come_over_the_stream_once(
    founded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long, out, size = Path(shutil.copytree(founded, tmp_path / "founded")), tmp_path / "answer.json", 100_000
    lengthen(long, size)
    with exact(tmp_path / "p", long, SILOS[:4]) as one:
        toml = one.path / ANALYST / "consilo.toml"
        query = ("query", GROUPED, "--federation", toml, "--purpose", "health-research", "--epsilon", "1")
        assert consilo(*query, "--format", "json", "--out", out) == 0
        report = json.loads(out.read_text())
        assert len(report["rows"]) + len(report["withheld_groups"]) == size
        (kept,) = (toml.parent / "domains").iterdir()
        assert kept.read_bytes() == text_of(days(size))
        for _ in range(2):  # with the kept values, and with those of a silo
            assert consilo("report", "verify", out, "--federation", toml) == 0
            assert f"the {len(report['rows'])} rows of the answer are what it says" in capsys.readouterr().out
            kept.unlink(missing_ok=True)


def test_the_silos_of_the_roster_are_listed_also_one_that_is_away(
    founded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names, port = SILOS[:3], free_port()
    place = provision(tmp_path / "p", founded, f"127.0.0.1:{port}", names)
    with served(place, port, names[:2]):
        assert consilo("silos", "--federation", place / ANALYST / "consilo.toml") == 0
        rows = [line.split("│") for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
        listed = {row[1].strip(): row[2].strip() for row in rows}
        assert [name for name in listed if name in SILOS] == list(names)
        assert listed["aspen"].startswith("v1")
        assert listed["cedar"].startswith("not")


def test_one_rejection_is_what_the_analyst_is_told(
    founded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    guarded = Path(shutil.copytree(founded, tmp_path / "founded"))
    for silo in SILOS:
        with_people(guarded, silo)
    with exact(tmp_path / "p", guarded, SILOS) as one:
        toml = one.path / ANALYST / "consilo.toml"
        query = ("query", QUESTION, "--federation", toml, "--purpose", "health-research", "--epsilon", "1")
        assert consilo(*query, "--keep", tmp_path / "request") == DENIED
        for silo in SILOS:
            policy = one.path / silo / "policy.toml"
            capsys.readouterr()
            assert owner("requests", "--policy", policy) == 0
            name = capsys.readouterr().out.split()[0]
            assert owner("reject", name, "--policy", policy, "--as", DPO, "--key", guarded / f"{DPO}.key") == 0
        assert consilo(*query, "--keep", tmp_path / "request") == DENIED
        assert f"{DPO} rejected it" in capsys.readouterr().err


def test_a_model_is_trained_over_a_served_aggregator_and_equals_the_fit_on_all_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The silos are the recipients: each holds the same model, and what passed was not the model.

    The analyst has it too, as job and policies say, sealed by each silo.
    """
    founded = found_banks(tmp_path / "founded", f'{PRIVATE}recipients = ["silos", "analyst"]\n')
    for silo in BANKS:
        policy, listed = founded / "silos" / silo / "policy.toml", '["query-result", "model", "model-to-analyst"]'
        policy.write_text(policy.read_text().replace("[disclosure]\n", f"[disclosure]\nrelease = {listed}\n"))
    job = tmp_path / "founded" / "job.toml"
    with exact(tmp_path / "p", founded, BANKS) as one:
        toml = one.path / ANALYST / "consilo.toml"
        assert consilo("train", job, "--federation", toml, "--format", "json") == 0
        said = printed(capsys)
        assert (said["steps"], said["holders"]) == (STEPS, list(BANKS))
        assert said["answered"] == dict.fromkeys(BANKS, STEPS)
        held = {silo: states_of(one.silos[silo])[0] for silo in BANKS}
        assert len({state.weights.tobytes() for state in held.values()}) == 1
        weights = held["east"].weights
        assert weights == pytest.approx(descent(lambda _: pooled()), abs=2e-5)
        disk = b"".join(file.read_bytes() for file in (one.path / "hub").rglob("*") if file.is_file())
        assert len(disk) > 10_000
        assert not any(np.float64(weight).tobytes() in disk or repr(weight).encode() in disk for weight in weights)
        (entry,) = Registry(one.path / ANALYST).entries()
        assert entry.model is not None
        assert isinstance(entry.model.portable, Portable)
        assert entry.model.portable.weights == (tuple(weights.tolist()),)
        assert owner("models", "--policy", one.path / "east" / "policy.toml") == 0
        assert f"{STEPS} of {STEPS} steps, private, for lending" in capsys.readouterr().out
        assert not job.with_name("job.toml.run.json").exists()


def test_a_run_goes_on_where_it_was_when_the_aggregator_was_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    founded = found_banks(tmp_path / "founded")
    job, port = tmp_path / "founded" / "job.toml", free_port()
    place = provision(tmp_path / "p", founded, f"127.0.0.1:{port}", BANKS)
    toml = place / ANALYST / "consilo.toml"
    trained = analyst.training.run.train

    def interrupted(federation: object, job: object, **more: object) -> object:
        def stop(done: int) -> None:
            if done == 2:
                raise KeyboardInterrupt

        return trained(federation, job, stop, **more)  # type: ignore[arg-type]

    with served(place, port, BANKS) as one:
        quiet(one)
        monkeypatch.setattr(analyst.cli.main, "train", interrupted)
        assert consilo("train", job, "--federation", toml) == 1
        monkeypatch.setattr(analyst.cli.main, "train", trained)
        assert job.with_name("job.toml.run.json").exists()
    with served(place, port, BANKS) as one:
        quiet(one)
        capsys.readouterr()
        assert consilo("train", job, "--federation", toml, "--format", "json") == 0
        assert printed(capsys)["answered"] == dict.fromkeys(BANKS, STEPS - 2)
        held = {silo: states_of(one.silos[silo])[0] for silo in BANKS}
        for state in held.values():
            assert state.weights == pytest.approx(descent(lambda _: pooled()), abs=2e-5)
        for silo in BANKS:
            assert len(ledger_of(one.silos[silo]).history()) == STEPS, "nothing was paid for twice"


def test_an_interrupted_run_is_given_up_over_the_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    founded = found_banks(tmp_path / "founded")
    job, port = tmp_path / "founded" / "job.toml", free_port()
    place = provision(tmp_path / "p", founded, f"127.0.0.1:{port}", BANKS)
    toml, trained = place / ANALYST / "consilo.toml", analyst.training.run.train

    def interrupted(federation: object, job: object, **more: object) -> object:
        def stop(_: int) -> None:
            raise KeyboardInterrupt

        return trained(federation, job, stop, **more)  # type: ignore[arg-type]

    with served(place, port, BANKS) as one:
        quiet(one)
        monkeypatch.setattr(analyst.cli.main, "train", interrupted)
        assert consilo("train", job, "--federation", toml) == 1
        assert {run.parts for silo in BANKS for run in ledger_of(one.silos[silo]).reservations()} == {STEPS - 1}
        capsys.readouterr()
        assert consilo("budget", "--federation", toml) == 0
        assert capsys.readouterr().out.count(f"for {STEPS - 1} of {STEPS} steps to come of run") == len(BANKS)
        assert consilo("train", job, "--federation", toml, "--abandon") == 0
        said = capsys.readouterr().out
        assert f"is given up after 1 of {STEPS} steps" in said
        assert f"as the run is over, at {', '.join(BANKS)}" in said
        assert not [run for silo in BANKS for run in ledger_of(one.silos[silo]).reservations()]
        assert consilo("train", job, "--federation", toml, "--abandon") == 0
        assert "no run of this job is under way" in capsys.readouterr().out


def test_an_analyst_cannot_cancel_the_request_of_another(founded: Path, tmp_path: Path) -> None:
    """A call is cancelled on the stream that it was made on, by who holds its certificate, and by nobody else."""
    port = free_port()
    place = provision(tmp_path / "p", founded, f"127.0.0.1:{port}")
    add_member(place, "bo", "analyst")
    for name in ("bo", AGGREGATOR):
        shutil.copy(place / "authority" / "membership.log", place / name / "membership.log")
    with served(place, port) as one:
        tried = threading.Event()
        bo = RemoteLink(credentials(place, "bo", "analyst"), AGGREGATOR)

        async def cancel() -> None:
            session = session_of(bo)
            assert session is not None
            for number in range(64):
                await write(session, frame(Kind.CANCEL, number))

        def during(step: str) -> None:
            if step == "contribute" and not tried.is_set():
                asyncio.run_coroutine_threadsafe(cancel(), loop_of(bo)).result(10)
                for step in ("cancel", "begin_charge"):
                    (round_id,) = rounds_of(one.silos["aspen"])
                    with pytest.raises(FederationError, match="has no call"):
                        call(bo, step, round_id)
                tried.set()

        one.silos["aspen"].before = during
        try:
            with one.open() as federation:
                report = federation.query(QUESTION, purpose="health-research", epsilon=1)
        finally:
            bo.close()
        assert tried.is_set()
        assert {outcome.status for outcome in report.silos.values()} == {"answered"}
