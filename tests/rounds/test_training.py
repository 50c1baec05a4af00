"""Training across five banks in memory: right without noise, opened by silos alone, never paid for twice."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet
import pytest

import silo_node.owner.cli
from aggregator.store import ContributionStore
from analyst.errors import AnalystError, DeniedError
from analyst.training.job import read_job
from analyst.training.run import Training, train
from crypto.errors import CryptoError
from crypto.noise import discrete_gaussian
from crypto.rounds.manifest import Propose
from crypto.rounds.messages import Failed, ModelUpdated
from crypto.rounds.opening import check_report, open_report
from crypto.rounds.payload import digests
from crypto.rounds.report import StoredReport, report_header
from crypto.wire import body_digest, is_envelope, signer_of, unverified
from federation.errors import FederationError
from federation.founding import found
from policies.budget.accountant import charge
from policies.domains import hash_of, text_of
from policies.requests.logistic import GRADIENT_UNITS, LogisticStep
from policies.requests.request import Request
from policies.requests.terms import terms_of
from policies.requests.training import START
from silo_node.ledger.charges import Row
from silo_node.training.run import RunState
from tests.harness.inside import ledger_of, sealing_key_of
from tests.harness.simulator import Noise, Simulation, no_noise, simulate
from tests.harness.states import states_of

pytestmark = pytest.mark.torch

SILOS = ("east", "middle", "north", "south", "west")
STEPS, RATE, MOMENTUM, CLIP = 4, 1.5, 0.5, 0.8
_POLICY = """\
schema = "silo-policy/1"
[silo]
id = "{silo}"
controller = "Bank"
sector = "bank"
jurisdiction = "NO"
contact = "privacy@bank.example"
[privacy_unit]
entity = "applicant"
id_column = "id"
max_rows = 4
[sources.loans]
release = "{release}"
kind = "parquet"
uri = "loans.parquet"
[sources.loans.columns]
id = {{ type = "string", class = "identifier", roles = [] }}
ok = {{ type = "bool", class = "internal", roles = ["label"] }}
kind = {{ type = "string", class = "internal", roles = ["feature"], domain = ["a", "b", "c"], unknown = "c" }}
debt = {{ type = "decimal", class = "internal", roles = ["feature"], bounds = [0, 10], step = 0.5, narrow = true }}
[consent]
mode = "table"
source = "consent.csv"
subject = "id"
purpose = "purpose"
given_at = "given_at"
withdrawn_at = "withdrawn_at"
[purposes.lending]
legal_basis = "legitimate-interest"
consent = "opt-out"
computations = ["query", "logistic-regression"]
[budget]
delta = 1e-6
lifetime = {{ rho = {lifetime} }}
[disclosure]
aggregates = ["count"]
[protection]
accept = ["masking"]
max_missing = 1
[training]
max_rounds = 20
dp = "{dp}"
clip_norm = 1.0
max_rho_per_run = 20.0
[analysts.ana]
key = "{key}"
purposes = ["lending"]
until = 2036-01-01T00:00:00Z
"""
_JOB = """\
schema = "consilo-job/1"
model = "logistic-regression"
table = "loans"
purpose = "lending"
label = "ok"
features = ["kind", "debt"]
"""
PRIVATE = f"{_JOB}steps = {STEPS}\nlearning_rate = {RATE}\nmomentum = {MOMENTUM}\nepsilon = 10\nclip = {CLIP}\n"
EXACT = f'{_JOB}release = "exact"\nsteps = {STEPS}\nlearning_rate = {RATE}\nlocal_steps = 3\n'
Vector = npt.NDArray[np.float64]


def rows_of(silo: str) -> list[dict[str, Any]]:
    """Return a silo's rows: up to two a person, on the grid of the policy."""
    place = SILOS.index(silo)
    return [
        {
            "id": f"{silo}-{number // 2 if number % 3 else number}",
            "ok": (number * 7 + place) % 5 < 3,
            "kind": "abc"[(number + place) % 3],
            "debt": ((number * 11 + place) % 21) / 2,
        }
        for number in range(30 + 10 * place)
    ]


def matrices(rows: list[dict[str, Any]]) -> tuple[Vector, Vector]:
    inputs = [[1.0, row["kind"] == "b", row["kind"] == "c", (row["debt"] - 5) / 5] for row in rows]
    return np.array(inputs, float), np.array([row["ok"] for row in rows], float)


def gradients(rows: list[dict[str, Any]], weights: Vector) -> Vector:
    inputs, label = matrices(rows)
    return np.asarray((1 / (1 + np.exp(-inputs @ weights)) - label)[:, None] * inputs)


def clipped_mean(everybody: list[dict[str, Any]], weights: Vector) -> Vector:
    """Return the mean of the persons' clipped gradients, person by person."""
    people = sorted({row["id"] for row in everybody})
    total = np.zeros(len(weights))
    for person in people:
        own = gradients([row for row in everybody if row["id"] == person], weights).sum(0)
        total += own * min(1, CLIP / np.linalg.norm(own))
    return total / len(people)


def descent(everybody: Callable[[int], list[dict[str, Any]]]) -> Vector:
    weights, velocity = np.zeros(4), np.zeros(4)
    for step in range(STEPS):
        velocity = MOMENTUM * velocity + clipped_mean(everybody(step), weights)
        weights = weights - RATE * velocity
    return weights


def pooled() -> list[dict[str, Any]]:
    return [row for silo in SILOS for row in rows_of(silo)]


def found_banks(path: Path, job: str = PRIVATE, lifetime: str = "90.0", dp: str = "optional") -> Path:
    """Found a federation of banks with rows, and a job that fits them."""
    key = found(path, "banks", dict.fromkeys(SILOS), ("ana",))["ana"]
    for silo in SILOS:
        home, release = path / "silos" / silo, "exact" if "exact" in job else "private"
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows_of(silo)), home / "loans.parquet")
        (home / "consent.csv").write_text("id,purpose,given_at,withdrawn_at\n")
        (home / "policy.toml").write_text(_POLICY.format(silo=silo, release=release, key=key, lifetime=lifetime, dp=dp))
    (path / "job.toml").write_text(job)
    return path


@contextmanager
def banks(
    path: Path, job: str = PRIVATE, noise: Noise = no_noise, lifetime: str = "90.0", dp: str = "optional"
) -> Iterator[tuple[Simulation, Path]]:
    with simulate(found_banks(path, job, lifetime, dp), noise=noise) as simulation:
        yield simulation, path / "job.toml"


def run(simulation: Simulation, file: Path, progress: Callable[[int], None] = lambda done: None) -> Training:
    return train(simulation.federation, read_job(file), progress, file.with_name("keep.json"), sleep=lambda _: None)


def models(simulation: Simulation) -> dict[str, RunState]:
    found = {name: states_of(silo) for name, silo in simulation.silos.items()}
    return {name: states[0] for name, states in found.items() if states}


def the_model(simulation: Simulation) -> RunState:
    held = models(simulation)
    assert set(held) == set(SILOS)
    assert len({(state.raw, state.position, state.done) for state in held.values()}) == 1
    return held["east"]


def asked(simulation: Simulation) -> list[Request]:
    reports = [StoredReport.decode(answer) for answer in simulation.reports if not is_envelope(answer)]
    proposes = [unverified(report.message.propose, Propose) for report in reports]
    return [unverified(one.request, Request) for one in proposes]


def charges(simulation: Simulation, silo: str) -> list[Row]:
    return ledger_of(simulation.silos[silo]).history()


def test_a_private_run_equals_clipped_gradient_descent_on_all_rows(tmp_path: Path) -> None:
    with banks(tmp_path / "f") as (simulation, file):
        training = run(simulation, file)
        model = the_model(simulation)
        assert model.weights == pytest.approx(descent(lambda _: pooled()), abs=2e-5)
        assert training.holders == SILOS
        assert training.answered == dict.fromkeys(SILOS, STEPS)
        assert training.epsilon is not None
        assert 9.9 < training.epsilon <= 10
        assert model.coefficients()["debt"] == pytest.approx(model.weights[3] / 5)
        for silo in SILOS:
            rows = charges(simulation, silo)
            assert [row.is_committed for row in rows] == [True] * STEPS
            assert sum(row.micro_rho for row in rows) == simulation.spent(silo) > 0


def test_a_feature_may_have_its_domain_in_a_file(tmp_path: Path) -> None:
    kinds = ("a", "b", *(f"kind {number}" for number in range(1200)), "c")
    path = found_banks(tmp_path / "f")
    for policy in path.glob("silos/*/policy.toml"):
        stated = f'domain_file = "kinds.txt", domain_hash = "{hash_of(kinds)}"'
        policy.write_text(policy.read_text().replace('domain = ["a", "b", "c"]', stated))
        policy.with_name("kinds.txt").write_bytes(text_of(kinds))
    with simulate(path, noise=no_noise) as simulation:
        run(simulation, path / "job.toml")
        model = the_model(simulation)
        weights = [model.weights[0], model.weights[1], model.weights[1202], model.weights[1203]]
        assert weights == pytest.approx(descent(lambda _: pooled()), abs=2e-5)
        assert not any(model.weights[2:1202])
        assert [term.name for term in model.terms][1201:] == ["kind = kind 1199", "kind = c", "debt"]
        assert all(request.table.unresolved for request in asked(simulation)), "each names the values by their hash"


def test_an_exact_run_equals_federated_averaging_but_for_rounding(tmp_path: Path) -> None:
    with banks(tmp_path / "f", EXACT) as (simulation, file):
        training = run(simulation, file)
        weights = np.zeros(4)
        for _ in range(STEPS):
            parts = []
            for silo in SILOS:
                own = weights
                for _ in range(3):
                    own = own - RATE * gradients(rows_of(silo), own).mean(0)
                parts.append(own * len(rows_of(silo)))
            weights = np.sum(parts, 0) / len(pooled())
        assert the_model(simulation).weights == pytest.approx(weights, abs=1e-9)
        assert (training.epsilon, simulation.spent("east")) == (None, 0)
        assert "nothing is promised" in training.assumptions[0]
        with pytest.raises(DeniedError, match="RELEASE"):
            simulation.federation.query("SELECT COUNT(*) FROM loans", purpose="lending", epsilon=1)


def test_every_opened_sum_of_a_private_run_has_noise_and_the_charge_is_what_it_gives(tmp_path: Path) -> None:
    drawn: list[tuple[int, int]] = []

    def noise(length: int, variance: int, shares: int) -> npt.NDArray[np.int64]:
        drawn.append((length, variance))
        return discrete_gaussian(length, variance, shares)

    with banks(tmp_path / "f", noise=noise) as (simulation, file):
        run(simulation, file)
        assert len(drawn) == STEPS * len(SILOS) * 2
        assert {length for length, _ in drawn} == {4, 1}
        assert all(variance > 0 for _, variance in drawn)
        for request in asked(simulation):
            cost = charge(request, 1)
            assert 0.99 * request.micro_rho < cost <= request.micro_rho


def test_nobody_but_the_silos_can_open_a_step(tmp_path: Path) -> None:
    with banks(tmp_path / "f") as (simulation, file):
        run(simulation, file)
        federation, model = simulation.federation, the_model(simulation)
        for data in simulation.reports:
            report = StoredReport.decode(data)
            envelope = unverified(report.message.propose, Propose).request
            request = unverified(envelope, Request)
            assert tuple(recipient.name for recipient in request.recipients) == SILOS
            terms, roster = terms_of(request, body_digest(envelope, Request)), federation.config.roster
            checked = check_report(report, terms, roster.silo_keys, roster.aggregator_keys)
            for name in ("ana", "east"):
                with pytest.raises(CryptoError, match="not a recipient"):
                    open_report(checked, name, sealing_key_of(federation))
        seen = b"".join(simulation.everything_seen())
        for weight in model.weights:
            assert np.float64(weight).tobytes() not in seen
            assert json.dumps(weight).encode() not in seen


def test_an_objection_between_two_steps_counts_from_the_next(tmp_path: Path) -> None:
    with banks(tmp_path / "f") as (simulation, file):
        gone = rows_of("south")[3]["id"]

        def object_after_two(done: int) -> None:
            if done == 2:
                decisions = f"id,purpose,given_at,withdrawn_at\n{gone},lending,,2020-01-01T00:00:00Z\n"
                (tmp_path / "f/silos/south/consent.csv").write_text(decisions)

        run(simulation, file, object_after_two)
        expected = descent(lambda step: [row for row in pooled() if step < 2 or row["id"] != gone])
        assert the_model(simulation).weights == pytest.approx(expected, abs=2e-5)
        assert max(abs(expected - descent(lambda _: pooled()))) > 1e-3


def test_the_owner_is_told_in_which_models_a_person_who_left_may_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone, stays = (rows_of("south")[place]["id"] for place in (3, 4))
    with banks(tmp_path / "f") as (simulation, file):
        home = simulation.silos["south"].policy.parent
        run(simulation, file)
        decisions = f"id,purpose,given_at,withdrawn_at\n{gone},lending,,2020-01-01T00:00:00Z\n"
        (home / "consent.csv").write_text(decisions)
        state = the_model(simulation)

    def told(person: str, *options: str) -> list[str]:
        command = ["consent", "--policy", str(home / "policy.toml"), "--person", person, *options]
        assert silo_node.owner.cli.main(command) == 0
        return [line.strip() for line in capsys.readouterr().out.splitlines() if " run " in line or "models" in line]

    learned = datetime.fromtimestamp(state.learned_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert told(gone) == [
        "models learned while this person may have been in:",
        f"run {state.run.hex()}, for lending in loans, learned {learned}",
    ]
    assert told(stays) == []
    assert told("nobody") == []


def test_a_budget_that_does_not_cover_the_whole_run_denies_its_first_step(tmp_path: Path) -> None:
    with banks(tmp_path / "f", lifetime="1.2") as (simulation, file):
        with pytest.raises(DeniedError, match=r"BUDGET_LIFETIME.*whose 4 steps"):
            run(simulation, file)
        assert [len(charges(simulation, silo)) for silo in SILOS] == [0] * len(SILOS)
        assert simulation.spent("east") == 0


@pytest.mark.parametrize("when", ["dies_before", "dies_after"])
@pytest.mark.parametrize("step", ["share", "contribute", "learn"])
def test_a_silo_that_dies_in_mid_run_catches_up_and_ends_with_the_same_model(
    tmp_path: Path, when: str, step: str
) -> None:
    with banks(tmp_path / "f") as (simulation, file):
        west = simulation.silos["west"]
        west.restarts = True

        def kill(done: int) -> None:
            if done == 1:
                setattr(west, when, step)

        training = run(simulation, file, kill)
        assert training.holders == SILOS
        assert the_model(simulation).done == STEPS
        assert min(training.answered[silo] for silo in SILOS[:4]) == STEPS


def test_a_silo_that_missed_several_reports_is_handed_them_in_order(tmp_path: Path) -> None:
    with banks(tmp_path / "f") as (simulation, file):
        west = simulation.silos["west"]
        taught = west.actor.learn

        def away(done: int) -> None:
            if done == 1:
                west.actor.learn = lambda data, *evidence: ()  # type: ignore[method-assign]
            if done == STEPS - 1:
                west.actor.learn = taught  # type: ignore[method-assign]

        training = run(simulation, file, away)
        assert training.answered["west"] < STEPS
        assert training.holders == SILOS
        the_model(simulation)


def test_whoever_delivers_a_report_is_told_when_its_masked_inputs_were_erased(tmp_path: Path) -> None:
    with banks(tmp_path / "f") as (simulation, file):
        run(simulation, file)
        name = StoredReport.decode(simulation.reports[0]).name
        assert len(simulation.deliver_report(name)) == len(SILOS)
        ContributionStore(simulation.path / "aggregator" / "contributions", clock=lambda: 2_500_000_000.0)
        with pytest.raises(FederationError, match=r"the contribution [0-9a-f]{16} was erased here on 2049-03-22"):
            simulation.deliver_report(name)


def test_an_interrupted_run_goes_on_without_paying_twice(tmp_path: Path) -> None:
    def interrupt(done: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with banks(tmp_path / "f") as (simulation, file):
        with pytest.raises(KeyboardInterrupt):
            run(simulation, file, interrupt)
        keep = file.with_name("keep.json")
        shutil.copy(keep, tmp_path / "kept")
        file.write_text(PRIVATE.replace(f"clip = {CLIP}", "clip = 0.7"))
        with pytest.raises(AnalystError, match="of another job"):
            run(simulation, file)
        file.write_text(PRIVATE)
        keep.write_bytes(b"{")
        with pytest.raises(AnalystError, match="cannot be read"):
            run(simulation, file)
        shutil.copy(tmp_path / "kept", keep)
        run(simulation, file)
        assert the_model(simulation).done == STEPS
        assert [len(charges(simulation, silo)) for silo in SILOS] == [STEPS] * len(SILOS)
        assert not keep.exists()


@pytest.mark.parametrize("is_lost", [False, True])
def test_a_step_whose_report_did_not_arrive_is_found_by_its_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_lost: bool
) -> None:
    """The client is killed after its third step was charged; if no aggregator has the report, that step is lost."""
    submit, sent = Simulation.submit, []

    def killed(self: Simulation, request: bytes, more_s: float = 0.0) -> bytes:
        sent.append(submit(self, request, more_s))
        if len(sent) == 3:
            raise KeyboardInterrupt
        return sent[-1]

    with banks(tmp_path / "f") as (simulation, file):
        with monkeypatch.context() as patch:
            patch.setattr(Simulation, "submit", killed)
            with pytest.raises(KeyboardInterrupt):
                run(simulation, file)
        if is_lost:
            name = StoredReport.decode(sent[-1]).name.hex()
            (simulation.path / "aggregator" / "reports" / f"{name}.report").unlink()
            with pytest.raises(DeniedError, match="ALREADY_ANSWERED"):
                run(simulation, file)
        run(simulation, file)
        assert the_model(simulation).done == STEPS
        assert [len(charges(simulation, silo)) for silo in SILOS] == [STEPS + is_lost] * len(SILOS)


def begun(simulation: Simulation, file: Path) -> Request:
    """Run two steps; return the request of the second."""

    def stop(done: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(simulation, file, stop)
    return asked(simulation)[-1]


def test_a_step_that_does_not_follow_is_denied(tmp_path: Path) -> None:
    with banks(tmp_path / "f") as (simulation, file):
        request = begun(simulation, file)
        position, federation = the_model(simulation).position, simulation.federation
        step = request.plan
        assert isinstance(step, LogisticStep)
        following = step.model_copy(update={"step": 2, "after": position})
        for strange in (
            step,
            step.model_copy(update={"step": 0, "after": START}),
            following.model_copy(update={"after": bytes([1]) * 32}),
            following.model_copy(update={"step": 3}),
            following.model_copy(update={"learning_rate": "1"}),
        ):
            with pytest.raises(DeniedError, match="RUN_POSITION"):
                federation.submit(federation.renew(request, strange))
        assert [len(charges(simulation, silo)) for silo in SILOS] == [2] * len(SILOS)


def test_a_run_is_one_request_a_day_and_a_step_asked_again_one_more(tmp_path: Path) -> None:
    with banks(tmp_path / "f", PRIVATE) as (simulation, file):
        for silo in simulation.silos.values():
            silo.policy.write_text(f"{silo.policy.read_text()}\n[limits]\nrequests_per_day = 3\n")
            silo.restarts = True
            silo.kill()
        run(simulation, file)
        request, federation = asked(simulation)[-1], simulation.federation
        assert isinstance(request.plan, LogisticStep)
        first = request.plan.model_copy(update={"run": bytes([5]) * 16, "step": 0, "after": START})
        federation.submit(federation.renew(request, first))
        with pytest.raises(DeniedError, match="this run began with another request"):
            federation.submit(federation.renew(request, first.model_copy(update={"learning_rate": "1"})))
        federation.submit(federation.renew(request, first))
        with pytest.raises(DeniedError, match="REQUESTS_PER_DAY"):
            federation.submit(federation.renew(request, first))
        assert [len(charges(simulation, silo)) for silo in SILOS] == [STEPS + 2] * len(SILOS)


def test_a_model_goes_to_the_keys_of_the_roster_only(tmp_path: Path) -> None:
    with banks(tmp_path / "f") as (simulation, file):
        request = begun(simulation, file)
        own = request.recipients[0].model_copy(update={"key": sealing_key_of(simulation.federation).public})
        stolen = request.model_copy(update={"recipients": (own, *request.recipients[1:]), "nonce": bytes(16)})
        with pytest.raises(AnalystError, match="a key that the roster does not give it"):
            simulation.federation.submit(stolen)
        analyst = own.model_copy(update={"name": "ana"})
        more = request.model_copy(update={"recipients": (*request.recipients, analyst), "nonce": bytes(16)})
        with pytest.raises(AnalystError):
            simulation.federation.submit(more)
        assert [len(charges(simulation, silo)) for silo in SILOS] == [2] * len(SILOS)


def test_a_report_that_is_not_the_next_moves_nothing(tmp_path: Path) -> None:
    with banks(tmp_path / "f") as (simulation, file):
        begun(simulation, file)
        before, last = models(simulation), StoredReport.decode(simulation.reports[-1])
        changed = bytes([last.blinded_sum[0] ^ 1]) + bytes(last.blinded_sum[1:])
        consistent = last.message.model_copy(update={"chunks": digests([changed])})
        tampered = (report_header(last.message) + changed, report_header(consistent) + changed)
        for data in (*simulation.reports, *tampered):
            (envelope,) = simulation.silos["east"].actor.learn(data)
            assert unverified(envelope, ModelUpdated).position == before["east"].position
        for data in (b"", b"junk", simulation.reports[-1][:100]):
            (envelope,) = simulation.silos["east"].actor.learn(data)
            assert signer_of(envelope, Failed) == "east"
        assert models(simulation) == before


def test_training_without_noise_needs_a_policy_that_says_so(tmp_path: Path) -> None:
    with banks(tmp_path / "f", EXACT, dp="required") as (simulation, file):
        with pytest.raises(DeniedError, match="RELEASE"):
            run(simulation, file)
        file.write_text(PRIVATE)
        with pytest.raises(DeniedError, match="RELEASE"):
            train(simulation.federation, read_job(file))
    with banks(tmp_path / "g") as (simulation, file):
        file.write_text(EXACT)
        with pytest.raises(DeniedError, match="RELEASE"):
            run(simulation, file)
        for change, code in (
            ((f"clip = {CLIP}", "clip = 2"), "CLIP_NORM"),
            ((f"steps = {STEPS}", "steps = 21"), "MAX_ROUNDS"),
        ):
            file.write_text(PRIVATE.replace(*change))
            with pytest.raises(DeniedError, match=code):
                train(simulation.federation, read_job(file))
        file.write_text(PRIVATE.replace("epsilon = 10", "epsilon = 60"))
        with pytest.raises(DeniedError, match="RHO_PER_RUN"):
            train(simulation.federation, read_job(file))
        assert simulation.spent("east") == 0


def test_one_person_changes_the_sums_by_no_more_than_the_noise_is_made_for(tmp_path: Path) -> None:

    from silo_node.training.logistic import contribution  # torch takes seconds: only where it computes

    with banks(tmp_path / "f") as (simulation, file):
        request = begun(simulation, file)
    step = request.plan
    assert isinstance(step, LogisticStep)
    generator = np.random.default_rng(1)
    for scale in (0.0, 1.0, 1e3, 1e9, 1e308):
        people = np.repeat(np.arange(40), 3)
        columns = [people, *(generator.integers(0, most, len(people)) for most in (2, 3, 21))]
        columns[3] = 2 * columns[3] - 20
        weights = generator.normal(size=4) * scale
        (total, (count,)) = contribution(request, weights, columns)
        for person in range(40):
            left = [column[people != person] for column in columns]
            left[0] = np.unique(left[0], return_inverse=True)[1]
            (rest, (fewer,)) = contribution(request, weights, left)
            assert sum((a - b) ** 2 for a, b in zip(total, rest, strict=True)) <= GRADIENT_UNITS**2
            assert count - fewer == 1


@pytest.mark.parametrize("is_exact", [False, True], ids=["private", "exact"])
def test_a_step_holds_a_block_of_rows_at_a_time_and_gives_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_exact: bool
) -> None:
    """Hope: a feature of many values makes a silo hold a matrix of all persons and all values at once."""
    from silo_node.training import logistic

    with banks(tmp_path / "f") as (simulation, file):
        request = begun(simulation, file)
    assert isinstance(request.plan, LogisticStep)
    if is_exact:
        exact = {"release": "exact", "clip": None, "momentum": None, "local_steps": 3}
        request = request.model_copy(update={"plan": request.plan.model_copy(update=exact)})
    numbers, held = np.random.default_rng(1), list[int]()
    people = np.repeat(np.arange(200), numbers.integers(1, 5, 200))
    numbers.shuffle(people)
    columns = [people, *(numbers.integers(0, most, len(people)) for most in (2, 3, 21))]
    columns[3] = 2 * columns[3] - 20
    weights, read = numbers.normal(size=4), logistic.inputs_of

    def noted(*arguments: Any) -> Any:
        held.append(arguments[-1])
        return read(*arguments)

    monkeypatch.setattr(logistic, "inputs_of", noted)
    whole = logistic.contribution(request, weights, columns)
    assert set(held) == {len(people)}
    held.clear()
    monkeypatch.setattr(logistic, "BLOCK_CELLS", 80)
    parts = logistic.contribution(request, weights, columns)
    assert max(held) <= 20
    monkeypatch.setattr(logistic, "BLOCK_CELLS", 1)  # the rows of one person stay together, however many
    for again in (parts, logistic.contribution(request, weights, columns)):
        for one, other in zip(whole, again, strict=True):
            assert np.abs(one - other).max() <= (1000 if is_exact else 0), "floats that are added in another order"
    assert logistic.contribution(request, weights, [column[:0] for column in columns])[1].tolist() == [0]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("schema = ", "TOML"),
        (PRIVATE + "epochs = 3\n", "epochs"),
        (PRIVATE.replace("epsilon = 10\n", ""), "needs epsilon and clip"),
        (EXACT + "clip = 1\n", "has neither"),
        (EXACT + "momentum = 0.5\n", "no momentum"),
        (PRIVATE + "local_steps = 2\n", "one step a round"),
        (PRIVATE + "[bounds]\nok = [0, 1]\n", "not among the features"),
        (PRIVATE.replace(f"steps = {STEPS}", "steps = 0"), "steps"),
        (PRIVATE.replace(f"steps = {STEPS}", 'steps = "4"'), "steps"),
        (PRIVATE.replace("epsilon = 10", "epsilon = 1e999"), "epsilon"),
        (PRIVATE.replace("epsilon = 10", "epsilon = nan"), "epsilon"),
        (PRIVATE.replace('["kind", "debt"]', "[]"), "features"),
    ],
)
def test_a_bad_job_is_named_with_its_file_and_key(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "job.toml"
    file.write_text(text)
    with pytest.raises(AnalystError, match=r"job\.toml") as caught:
        read_job(file)
    assert says in caught.value.message + caught.value.hint
    assert caught.value.hint


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (('"lending"', '"lendin"'), "did you mean 'lending'"),
        (('"loans"', '"loan"'), "did you mean 'loans'"),
        (('"debt"', '"dept"'), "did you mean 'debt'"),
        (('["kind", "debt"]', '["kind", "kind"]'), "twice"),
        (('"ok"', '"debt"'), "twice"),
        ((f"steps = {STEPS}", f"steps = {STEPS}\nbounds = {{ debt = [0.3, 5] }}"), "no multiples of its step"),
        ((f"steps = {STEPS}", f"steps = {STEPS}\nbounds = {{ kind = [0, 5] }}"), "no multiples of its step"),
        ((f"steps = {STEPS}", f"steps = {STEPS}\nbounds = {{ debt = [5, 1] }}"), "low must be below high"),
    ],
)
def test_a_job_that_does_not_fit_the_silos_costs_nothing(tmp_path: Path, change: tuple[str, str], says: str) -> None:
    with banks(tmp_path / "f", PRIVATE.replace(*change)) as (simulation, file):
        with pytest.raises(AnalystError) as caught:
            run(simulation, file)
        assert says in caught.value.message + caught.value.hint
        assert not simulation.reports


def test_bounds_of_the_job_narrow_those_of_the_policy(tmp_path: Path) -> None:
    with banks(tmp_path / "f", PRIVATE + "[bounds]\ndebt = [2, 8]\n") as (simulation, file):
        run(simulation, file)
        column = asked(simulation)[0].table.column("debt")
        assert (column.low, column.high) == (4, 16)
        assert the_model(simulation).terms[3].half == 3


def test_a_job_narrows_no_feature_that_a_policy_keeps_whole(tmp_path: Path) -> None:
    founded = found_banks(tmp_path / "f", PRIVATE + "[bounds]\ndebt = [2, 8]\n", "90.0", "optional")
    policy, file = founded / "silos" / "north" / "policy.toml", founded / "job.toml"
    policy.write_text(policy.read_text().replace(", narrow = true", ""))
    with simulate(founded, noise=no_noise) as simulation:
        with pytest.raises(AnalystError) as caught:
            run(simulation, file)
        assert caught.value.message == "no narrower bounds of 'debt' are open to you at north"
        assert "narrow = true" in caught.value.hint
        assert not simulation.reports
