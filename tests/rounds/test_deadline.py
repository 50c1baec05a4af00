"""The time that a silo declares for its computing, in a round: acceptance, expiry, limits of steps, and ticks."""

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from aggregator.driver import STEP_TIMEOUT_S
from aggregator.rounds import ROUND_S, propose, read_request
from analyst.cli.main import command_line
from analyst.demo.hospitals import PURPOSE
from analyst.errors import AnalystError, RoundError
from analyst.requests import REQUEST_LIFETIME_S
from crypto.rounds.manifest import Accept, Manifest, Propose
from crypto.rounds.messages import Failed, ShareKeys
from crypto.wire import sign, unverified
from policies.decision.computing import BLINDING_MS
from policies.document.load import load
from policies.units import MAX_BUSY_S, MAX_WAIT_S, WAIT_S
from silo_node.rounds import steps
from silo_node.rounds.states import Silo
from silo_node.timed import REFRESH_TRIES, Leaving, TimedComputing
from tests.harness.inside import (
    aggregator_of,
    computer_of,
    key_of,
    known_to,
    let_sleep,
    rounds_of,
)
from tests.harness.simulator import SimulatedSilo, Simulation, ask, no_noise, simulate

QUESTION = "SELECT COUNT(*) AS n FROM lung"
DECLARED = {"aspen": 4, "birch": 4, "cedar": 7}  # of the others nothing


def compute_ms(name: str) -> int | None:
    return 1000 * DECLARED[name] - 500 if name in DECLARED else None


def declare(path: Path) -> None:
    """Let silos of a federation declare their times."""
    for silo, seconds in DECLARED.items():
        policy = path / "silos" / silo / "policy.toml"
        text = policy.read_text().replace("{ rho = 1.0 }", "{ rho = 100 }")
        policy.write_text(f"{text}\n[compute]\nfixed_seconds = {seconds - 0.5}\n")


@pytest.fixture(scope="module")
def declaring(founded: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulation]:
    """A federation in which three silos declare a time, and whose aggregator waits for a step for four seconds more."""
    path = Path(shutil.copytree(founded, tmp_path_factory.mktemp("declaring") / "federation"))
    declare(path)
    with simulate(path, noise=no_noise, step_timeout_s=4.0) as simulation:
        yield simulation


def answers(silo: SimulatedSilo, step: str) -> list[tuple[bytes, ...]]:
    return [frames for what, frames in silo.seen if what == f"< {step}"]


def asked_of(silo: SimulatedSilo, step: str) -> list[tuple[bytes, ...]]:
    return [arguments for what, arguments in silo.seen if what == f"> {step}"]


def test_an_acceptance_states_the_time_and_the_round_lasts_as_much_longer_as_the_greatest(
    declaring: Simulation,
) -> None:
    assert set(ask(declaring, QUESTION).values()) == {"answered"}
    for name, silo in declaring.silos.items():
        ((envelope, _, _),) = answers(silo, "propose")[-1:]
        assert unverified(envelope, Accept).compute_ms == compute_ms(name)
        assert (b"compute_ms" in envelope) == (name in DECLARED)
        ((_, proposed),) = asked_of(silo, "propose")[-1:]
        ((_, shared, *_),) = asked_of(silo, "share")[-1:]
        manifest = unverified(ShareKeys.decode(shared).manifest, Manifest)
        assert manifest.expires_at == unverified(proposed, Propose).expires_at + 7


def test_computing_takes_the_declared_time_whatever_the_rows_are(declaring: Simulation) -> None:
    for silo in declaring.silos.values():
        silo.slept.clear()
    ask(declaring, QUESTION)
    for name, silo in declaring.silos.items():
        *waited, leaving = silo.slept
        if name not in DECLARED:
            assert not waited
            assert 0 <= leaving <= 0.011, "a tick"
        else:
            (computing,) = waited
            assert DECLARED[name] - 3.5 < computing <= DECLARED[name] - (500 + BLINDING_MS) / 1000
            assert 1 < leaving <= 6.5, "the greatest time that a member declares"


def test_an_answer_a_failure_and_a_late_computing_leave_at_one_time(
    declaring: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hope: a condition that only one person meets lets the computing fail, or be killed, which its time shows."""
    cedar = declaring.silos["cedar"]

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    none: tuple[object, str, object] = (object, "", None)
    cases = (none, "answered"), ((computer_of(cedar), "computed", fail), "answered")  # then zeros
    for patched, status in (*cases, ((steps, "mask", of_cedar(fail)), "dropped")):
        with monkeypatch.context() as patch:
            if patched is not none:
                patch.setattr(*patched)
            cedar.slept.clear()
            assert ask(declaring, QUESTION)["cedar"] == status
            assert 1 < cedar.slept[-1] <= 6.5, patched


def of_cedar(fail: Callable[..., Any]) -> Callable[..., Any]:
    """Let the last step of a contribution fail at cedar alone."""
    mask = steps.mask
    return lambda silo, *rest: fail() if silo.name == "cedar" else mask(silo, *rest)


def test_what_follows_the_computing_begins_at_one_time(declaring: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hope: many groups, whose noise and masks last beyond the stated time, let it leave as its computing ended."""
    began, mask = dict[str, list[float]](), steps.mask

    def noted(silo: Silo, *rest: Any) -> Any:
        began[silo.name] = list(declaring.silos[silo.name].slept)
        return mask(silo, *rest)

    for silo in declaring.silos.values():
        silo.slept.clear()
    monkeypatch.setattr(steps, "mask", noted)
    ask(declaring, QUESTION)
    for name, waited in began.items():
        assert len(waited) == (name in DECLARED), "until a computing may last, and no less"


def test_nothing_of_a_contribution_is_here_before_it_leaves(
    declaring: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hope: the message of go, sent again and again, is answered as soon as the silo has masked what it computed."""
    aspen, sent, early = declaring.silos["aspen"], list[tuple[bytes, ...]](), list[tuple[bytes, ...]]()
    once = threading.Lock()

    def before(step: str, arguments: tuple[bytes, ...]) -> None:
        if step == "contribute":
            sent[:] = [arguments]

    def again(_: float) -> None:
        if once.acquire(blocking=False):  # the reply to it waits here, too
            ((round_id, data),) = sent
            early.extend((aspen.actor.contribute(round_id, data), aspen.actor.frame(round_id, bytes(8))))
            once.release()

    let_sleep(aspen, again, monkeypatch)
    monkeypatch.setattr(aspen, "before", before)
    assert ask(declaring, QUESTION)["aspen"] == "answered"
    assert len(early) == 4, "while it computed, and while it waited to leave"
    for frames in early:
        assert unverified(frames[0], Failed).reason
    ((round_id, data),) = sent
    assert aspen.actor.contribute(round_id, data) == answers(aspen, "contribute")[-1], "afterwards it is said again"


def test_what_fails_is_at_its_step_until_it_leaves(declaring: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hope: a round that has failed is forgotten at once, which another message to it shows."""
    cedar, known = declaring.silos["cedar"], list[bool]()

    def noted(_: float) -> None:
        known.append(bool(rounds_of(cedar)))

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    rounds_of(cedar).clear()
    let_sleep(cedar, noted, monkeypatch)
    monkeypatch.setattr(steps, "mask", of_cedar(fail))
    assert ask(declaring, QUESTION)["cedar"] == "dropped"
    assert known == [True, True], "while it computes, and until the failure leaves"


def test_what_is_late_leaves_at_a_step_of_declared_times(monkeypatch: pytest.MonkeyPatch) -> None:
    slept, now = list[float](), 100.0
    monkeypatch.setattr("silo_node.timed.time.monotonic", lambda: now)
    for after, leaves in ((0.1, 0.125), (0.125, 0.125), (0.126, 0.15), (0.16, 0.175)):
        for tick_s in (0.0, 0.01):
            now = 100.0
            leaving = Leaving(now, tick_s, slept.append)
            leaving.fix(now + 0.125)
            now += after
            leaving.wait()
            assert slept.pop() == pytest.approx(leaves - after), (after, tick_s)


def test_a_stated_time_is_kept_without_a_tick(home: Path) -> None:
    declare(home)
    settings = home / "silos" / "cedar" / "silo.toml"
    settings.write_text(settings.read_text().replace("tick_ms = 10", "tick_ms = 0"))
    with simulate(home, noise=no_noise) as simulation:
        assert ask(simulation, QUESTION)["cedar"] == "answered"
        computing, leaving = simulation.silos["cedar"].slept
        assert computing > 1
        assert leaving > 1


class Judging:
    """A computer that reads decisions for some seconds, and tells when it began."""

    def __init__(self, lasts_s: float) -> None:
        self.lasts_s, self.began = lasts_s, list[float]()

    def refresh(self) -> None:
        self.began.append(time.monotonic())
        time.sleep(self.lasts_s)


def timed(simulation: Simulation, computer: Any, sleep: Callable[[float], None] = lambda _: None) -> TimedComputing:
    policy = load(simulation.silos["aspen"].policy).policy
    return TimedComputing(policy, computer, 0.01, sleep, logging.getLogger("consilo.tests"))


def test_one_computing_follows_the_other_by_their_stated_times(declaring: Simulation, shared: Simulation) -> None:
    """Hope: of two questions whose go comes at once the second fails, or not, by the rows of the first."""
    _, asked = shared.federation.prepare(QUESTION, purpose=PURPOSE, epsilon=1)
    for simulation, expected in ((declaring, [100, 103.5, 107]), (shared, [100, 101, 101.5])):
        computing = timed(simulation, computer_of(simulation.silos["aspen"]))
        assert [computing.turn(asked, started) for started in (100.0, 101.0, 101.5)] == expected
        assert computing.turn(asked, 200) == 200


def test_a_turn_that_is_not_used_is_given_back(declaring: Simulation) -> None:
    _, asked = declaring.federation.prepare(QUESTION, purpose=PURPOSE, epsilon=1)
    computing, now = timed(declaring, None), time.monotonic()
    first, second = (computing.turn(asked, now) for _ in range(2))
    computing.give_back(asked, first)
    assert computing.turn(asked, now) == second + 3.5, "another follows it"
    computing.give_back(asked, second + 3.5)
    assert computing.turn(asked, now) < second


def test_reading_decisions_tells_no_time_of_a_computing(declaring: Simulation, shared: Simulation) -> None:
    """Hope: decisions that have changed are read by the process that computes, so a proposal waits for its end."""
    _, asked = declaring.federation.prepare(QUESTION, purpose=PURPOSE, epsilon=1)
    for lasts_s, ends_s in ((0.0, 0.1), (0.05, 0.1), (0.2, 1.0)):
        judging, slept = Judging(lasts_s), list[float]()
        computing, now = timed(declaring, judging, slept.append), time.monotonic()
        computing.refresh()
        assert slept.pop() + lasts_s == pytest.approx(ends_s, abs=0.09)
        assert computing.turn(asked, now) == pytest.approx(now + 0.1, abs=0.05), "nothing begins beside it"
        computing.refresh()
        assert len(judging.began) == 1, "while another has its turn it waits for that, here for ever"
        assert len(slept) == REFRESH_TRIES
        assert min(slept) > 3, "till the other's stated time is over, however soon it ends"
        computing.turn(asked, now + 100)
        computing.refresh()
        assert len(slept) == REFRESH_TRIES, "that would not be soon"
    judging, slept = Judging(0.2), list[float]()
    computing = timed(declaring, judging, slept.append)
    computing.refresh()
    time.sleep(1)  # till its turn is over
    judging.lasts_s = 0.0
    computing.refresh()
    assert slept[-1] == pytest.approx(1.0, abs=0.09), "as long as the longest did"
    judging, slept = Judging(0.0), list[float]()
    timed(shared, judging, slept.append).refresh()
    assert (len(judging.began), slept) == (1, [])


@pytest.mark.slow
def test_a_silo_that_takes_its_declared_time_is_waited_for_and_no_longer(declaring: Simulation) -> None:
    """A step of four seconds, and the seven that cedar declares, which any silo may take, and no silo thirteen."""
    late = next(name for name in sorted(declaring.silos) if name not in DECLARED)
    declaring.silos["cedar"].late_s = declaring.silos[late].late_s = {"contribute": 2.0}
    assert set(ask(declaring, QUESTION).values()) == {"answered"}
    declaring.silos["cedar"].late_s = {}
    declaring.silos[late].late_s = {"contribute": 13.0}
    assert ask(declaring, QUESTION)[late] == "dropped"
    declaring.silos[late].late_s = {}


def test_a_silo_that_states_more_than_the_request_waits_is_missing(shared: Simulation) -> None:
    cedar = shared.silos["cedar"]
    key = known_to(cedar).signing

    def rewrite(step: str, frames: tuple[bytes, ...]) -> tuple[bytes, ...]:
        if step != "propose":
            return frames
        longer = unverified(frames[0], Accept).model_copy(update={"compute_ms": 1000 * WAIT_S + 50})
        return (sign(longer, "cedar", key),)

    cedar.rewrite = rewrite
    statuses = ask(shared, QUESTION)
    assert statuses.pop("cedar") == "left out"
    assert set(statuses.values()) == {"answered"}


def test_what_would_come_too_late_is_not_charged(home: Path) -> None:
    """The round lasts 127 s; when 122 have passed, there is time for the 4 s of aspen, and not for the 7 of cedar."""
    declare(home)
    began, late_s = time.time(), 0
    with simulate(home, noise=no_noise, clock=lambda: began + late_s) as simulation:
        ask(simulation, QUESTION)
        before = {silo: simulation.spent(silo) for silo in simulation.silos}

        def rewrite(step: str, frames: tuple[bytes, ...]) -> tuple[bytes, ...]:
            nonlocal late_s
            late_s = ROUND_S + 2 if step == "ready" else late_s
            return frames

        simulation.silos["cedar"].rewrite = rewrite
        assert ask(simulation, QUESTION) == dict.fromkeys(before, "answered") | {"cedar": "unable"}
        charged = {silo for silo in before if simulation.spent(silo) > before[silo]}
        assert charged == set(before) - {"cedar"}


def test_silos_that_compute_for_others_are_waited_for_within_bounds(shared: Simulation) -> None:
    _, request = shared.federation.prepare(QUESTION, purpose=PURPOSE, epsilon=1)
    envelope = sign(request, shared.federation.analyst, key_of(shared.federation))
    server, asked = aggregator_of(shared.server), read_request(envelope)
    for busy_s, more_s in ((0, 0), (100, 100), (10_000, MAX_BUSY_S)):
        assert propose(server, asked, bytes(16), 1000, busy_s).propose.expires_at == 1000 + ROUND_S + more_s
    assert STEP_TIMEOUT_S + MAX_BUSY_S < 300, "an analyst waits 300 s for a catalogue"


def test_the_deadline_of_a_question_is_signed_and_refused_by_its_remedy(home: Path) -> None:
    policy = home / "silos" / "cedar" / "policy.toml"
    policy.write_text(f"{policy.read_text()}\n[compute]\nfixed_seconds = 99.5\n")
    for other in home.glob("silos/*/policy.toml"):
        other.write_text(other.read_text().replace("max_missing   = 1", "max_missing   = 0"))
    with simulate(home, noise=no_noise) as simulation:
        federation = simulation.federation
        usual = ask(simulation, QUESTION)
        assert usual.pop("cedar") == "denied"
        assert set(usual.values()) == {"answered"}
        assert simulation.spent("cedar") == 0
        report = federation.query(QUESTION, purpose=PURPOSE, epsilon=1, deadline=100)
        assert {outcome.status for outcome in report.silos.values()} == {"answered"}
        lifetimes = []
        for deadline in (WAIT_S, 300):
            _, request = federation.prepare(QUESTION, purpose=PURPOSE, epsilon=1, deadline=deadline)
            assert request.waits_s == deadline
            lifetimes.append(request.expires_at - request.created_at)
        assert lifetimes == [REQUEST_LIFETIME_S, REQUEST_LIFETIME_S + 300 - WAIT_S]
        for wrong in (0, MAX_WAIT_S + 1):
            with pytest.raises(AnalystError, match=f"the deadline is {wrong} s"):
                federation.prepare(QUESTION, purpose=PURPOSE, epsilon=1, deadline=wrong)


def test_whoever_asks_waits_as_much_longer(shared: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    waited, submit = list[float](), shared.submit

    def noted(request: bytes, more_s: float = 0.0) -> bytes:
        waited.append(more_s)
        return submit(request, more_s)

    monkeypatch.setattr(shared, "submit", noted)
    monkeypatch.setattr("aggregator.driver.REQUEST_TIMEOUT_S", 0.5)
    shared.silos["cedar"].late_s = {"propose": 3.0}
    for deadline, more_s, limit in ((10, 0, "0.5"), (WAIT_S, 0, "0.5"), (WAIT_S + 1, 1, "1.5")):
        with pytest.raises(RoundError, match=f"no answer within {limit} s"):
            shared.federation.query(QUESTION, purpose=PURPOSE, epsilon=1, deadline=deadline)
        assert waited.pop() == more_s


def test_the_command_line_has_the_deadline() -> None:
    query = ["query", "SELECT 1", "--purpose", "p", "--epsilon", "1"]
    for arguments, seconds in ((query, WAIT_S), ([*query, "--deadline", "300"], 300), (["train", "job.toml"], None)):
        assert command_line().parse_args(arguments).deadline == seconds


def test_rows_that_become_an_exact_source_too_are_found_before_anything_is_charged(home: Path) -> None:
    cedar = home / "silos" / "cedar"
    with (cedar / "policy.toml").open("a") as policy:
        policy.write(
            '[sources.other]\nkind = "parquet"\nuri = "other.parquet"\nrelease = "exact"\n[sources.other.columns]\n'
            'patient_id = { type = "string", class = "identifier", roles = [] }\n'
            'age = { type = "int", class = "internal", roles = ["feature"], bounds = [30, 90] }\n'
            '[training]\nmax_rounds = 10\ndp = "optional"\nclip_norm = 1\nmax_rho_per_run = 0.1\n'
        )
    duckdb.sql(f"COPY (SELECT 'A' AS patient_id, 40 AS age) TO '{cedar / 'other.parquet'}'")
    with simulate(home, noise=no_noise) as simulation:
        assert set(ask(simulation, QUESTION).values()) == {"answered"}
        before = simulation.spent("cedar")
        shutil.copy(cedar / "lung.parquet", cedar / "other.parquet")
        assert ask(simulation, QUESTION) == dict.fromkeys(simulation.silos, "answered") | {"cedar": "unable"}
        assert simulation.spent("cedar") == before
        assert "it has rows of 'other', which says release = \"exact\"" in (cedar / "silo.log").read_text()
        (cedar / "other.parquet").unlink()
        assert set(ask(simulation, QUESTION).values()) == {"answered"}


def test_a_missing_source_is_found_before_anything_is_charged(exact: Simulation) -> None:
    ask(exact, QUESTION)
    cedar = exact.silos["cedar"]
    before = cedar.actor, exact.spent("cedar")
    home = cedar.policy.parent
    for name in ("lung.parquet", "consent.csv"):
        (home / name).rename(home / "away")
        report = exact.federation.query(QUESTION, purpose=PURPOSE, epsilon=1)
        statuses = {silo: outcome.status for silo, outcome in report.silos.items()}
        assert statuses.pop("cedar") == "unable", name
        assert set(statuses.values()) == {"answered"}
        (denial,) = report.silos["cedar"].denials
        assert (denial.code, denial.rule) == ("SOURCE_AWAY", "sources")
        assert name not in f"{denial.message} {denial.remedy}", "which file it is stands in the owner's log"
        assert exact.spent("cedar") == before[1], "nothing is charged, and nothing stays reserved"
        assert not rounds_of(cedar)
        (home / "away").rename(home / name)
    log = (home / "silo.log").read_text()
    assert "sources.lung: " in log
    assert "consent: " in log
    assert "put it back, and let the silo's user read it" in log
    assert ask(exact, QUESTION)["cedar"] == "answered"
