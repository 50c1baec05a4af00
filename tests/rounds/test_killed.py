"""Training while parties are killed: at every step of a round, and at every call of the analyst's command.

Four silos train without noise. A run is the same to its last bit whoever was killed on the way, no silo contributes
twice to one model, and what cannot go on says what helps.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from analyst.errors import RoundError, StuckError
from analyst.training.job import read_job
from analyst.training.progress import Progress
from analyst.training.run import Training, train
from crypto.wire import unverified
from federation.errors import FederationError
from federation.founding import found
from policies.requests.denials import Refusal
from policies.requests.request import Request
from silo_node.training.run import RunState
from tests.harness.inside import forget_offer, ledger_of
from tests.harness.simulator import STEPS, Simulation, simulate
from tests.harness.states import states_of
from tests.rounds.test_exact_families import POLICY, job_of, rows_of

pytestmark = pytest.mark.slow

SILOS = ("east", "middle", "north", "south")
ROUNDS = 3  # of a linear regression


# Where a silo is lost of whom none may be missing, after the others have contributed.
STUCK = (("dies_before", "contribute"), ("dies_after", "contribute"))


def founded(path: Path, max_missing: int = 1, silos: Sequence[str] = SILOS) -> Path:
    key = found(path, "banks", dict.fromkeys(silos), ("ana",))["ana"]
    for silo in silos:
        home = path / "silos" / silo
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows_of(silo)[:30]), home / "loans.parquet")
        text = POLICY.format(silo=silo, key=key, computations='["linear-regression"]')
        (home / "policy.toml").write_text(text.replace("max_missing = 1", f"max_missing = {max_missing}"))
    (path / "job.toml").write_text(job_of("linear-regression", "paid"))
    return path


def rule(simulation: Simulation, before: str, after: str) -> None:
    """Let every silo that lives go on by another policy."""
    for silo in simulation.silos.values():
        silo.policy.write_text(silo.policy.read_text().replace(before, after))
        if not silo.is_dead:
            silo.actor.close()
            silo.actor = silo.start()
    forget_offer(simulation.federation)


@contextmanager
def banks(path: Path, max_missing: int = 1, silos: Sequence[str] = SILOS) -> Iterator[tuple[Simulation, Path]]:
    with simulate(founded(path, max_missing, silos)) as simulation:
        yield simulation, path / "job.toml"


def run(simulation: Simulation, file: Path, progress: Callable[[int], None] = lambda done: None) -> Training:
    return train(simulation.federation, read_job(file), progress, keep_of(file), sleep=lambda _: None)


def keep_of(file: Path) -> Path:
    return file.with_name("keep.json")


def state_of(simulation: Simulation, silo: str, run: str) -> RunState:
    states = states_of(simulation.silos[silo])
    return next(state for state in states if state.run.hex() == run)


def models(simulation: Simulation, training: Training) -> set[str]:
    """Return the models that silos hold at the end of a run, as text and numbers."""
    held = [state_of(simulation, silo, training.run) for silo in training.holders]
    return {f"{state.exact.model_dump_json()} {state.raw.hex()}" for state in held if state.exact is not None}


def charges(simulation: Simulation) -> dict[str, int]:
    """Return how many contributions of each silo have left, or may have."""
    return {name: len(ledger_of(silo).history()) for name, silo in simulation.silos.items() if not silo.is_dead}


def check_paid_once(simulation: Simulation, before: dict[str, int], most: int = ROUNDS) -> None:
    """Assert that no silo contributed twice to one model since then."""
    for silo, count in charges(simulation).items():
        assert count - before[silo] <= most, silo


@pytest.mark.parametrize("after", [0, 1])
def test_a_silo_killed_at_any_step_of_a_round_is_taught_and_the_run_goes_on(tmp_path: Path, after: int) -> None:
    with banks(tmp_path / "f") as (simulation, file):
        south = simulation.silos["south"]
        south.restarts = True
        for when, step in product(("dies_before", "dies_after"), (*STEPS, "learn")):

            def kill(done: int, when: str = when, step: str = step) -> None:
                if done == after:
                    setattr(south, when, step)

            before = charges(simulation)
            kill(0)
            training = run(simulation, file, kill)
            assert (training.ended, training.holders) == ("complete", SILOS), (when, step)
            assert training.answered["south"] >= training.steps - 1
            assert len(models(simulation, training)) == 1
            check_paid_once(simulation, before, training.steps)
            assert not keep_of(file).exists()


def test_without_spares_the_same_step_is_asked_again_or_the_same_command_begins_anew(tmp_path: Path) -> None:
    ended = {}
    with banks(tmp_path / "f", max_missing=0) as (simulation, file):
        south = simulation.silos["south"]
        south.restarts = True
        for when, step in product(("dies_before", "dies_after"), (*STEPS, "learn")):

            def kill(done: int, when: str = when, step: str = step) -> None:
                if done == 1:
                    setattr(south, when, step)

            before = charges(simulation)
            if (when, step) in STUCK:
                with pytest.raises(StuckError, match="step 2 of 25") as caught:
                    run(simulation, file, kill)
                assert "give the same command again" in caught.value.hint
                check_paid_once(simulation, before)
                training = run(simulation, file)
                assert training.holders == SILOS
            else:
                training = run(simulation, file, kill)
                ended[when, step] = training.holders
            assert (training.ended, len(models(simulation, training))) == ("complete", 1)
            assert not keep_of(file).exists()
    # From its charge on it may have contributed, so it is left out, as was agreed.
    assert ended == dict.fromkeys(ended, SILOS) | {("dies_after", "ready"): SILOS[:3]}


def test_a_silo_that_did_not_learn_is_taught_before_the_step_is_asked_again(tmp_path: Path) -> None:
    with banks(tmp_path / "f", max_missing=0) as (simulation, file):
        south = simulation.silos["south"]
        taught, asked = south.actor.learn, list[int]()

        def deaf(data: bytes, *evidence: bytes) -> tuple[bytes, ...]:
            asked.append(len(asked))
            return () if len(asked) < 3 else taught(data, *evidence)  # it misses two deliveries

        def away(done: int) -> None:
            if done == 1:
                south.actor.learn = deaf  # type: ignore[method-assign]

        training = run(simulation, file, away)
        assert (training.ended, training.holders) == ("complete", SILOS)
        assert training.answered == dict.fromkeys(SILOS, training.steps)
        refused = [unverified(frames[0], Refusal) for name, frames in south.seen if is_refusal(name, frames)]
        assert [one.denials[0].code for one in refused] == ["RUN_POSITION"]


def is_refusal(name: str, frames: tuple[bytes, ...]) -> bool:
    return name == "< propose" and len(frames) == 1


def lose(simulation: Simulation, name: bytes) -> None:
    (simulation.path / "aggregator" / "reports" / f"{name.hex()}.report").unlink()


@pytest.mark.parametrize("hands_over", [True, False])
def test_what_the_aggregator_lost_is_done_without(tmp_path: Path, hands_over: bool) -> None:
    """The report that a silo missed is lost: it takes over what the others hold, or is left out, and they go on."""
    with banks(tmp_path / "f") as (simulation, file):
        south = simulation.silos["south"]
        taught = south.actor.learn

        def lost(done: int) -> None:
            south.actor.learn = (lambda data, *evidence: ()) if done == 0 else taught  # type: ignore[method-assign]
            if done == 1:
                lose(simulation, Progress.decode(keep_of(file).read_bytes()).after)

        if not hands_over:
            for silo in SILOS[:3]:
                simulation.silos[silo].rewrite = lambda step, frames: () if step == "hand_over" else frames
        lost(0)
        training = run(simulation, file, lost)
        assert (training.ended, training.holders) == ("complete", SILOS if hands_over else SILOS[:3])
        rounds = training.steps - 1 if hands_over else 1
        assert training.answered == dict.fromkeys(SILOS[:3], training.steps) | {"south": rounds}
        assert len(models(simulation, training)) == 1


def test_silos_that_are_ahead_of_an_analyst_whose_report_is_lost_are_followed(tmp_path: Path) -> None:
    class KilledError(Exception):
        pass

    with banks(tmp_path / "f") as (simulation, file):
        kept = []

        def stop(done: int) -> None:
            if done == 1:
                kept.append(keep_of(file).read_bytes())
            if done == 2:
                lose(simulation, Progress.decode(keep_of(file).read_bytes()).after)
                state = Progress.decode(kept[0])
                keep_of(file).write_bytes(state.encode())  # as if it was killed before it noted the second step
                raise KilledError

        before = charges(simulation)
        with pytest.raises(KilledError):
            run(simulation, file, stop)
        training = run(simulation, file)
        assert (training.ended, training.holders) == ("complete", SILOS)
        assert training.steps == ROUNDS
        check_paid_once(simulation, before)


def test_two_of_four_are_missed_by_name_and_the_same_command_goes_on_when_they_are_back(tmp_path: Path) -> None:
    with banks(tmp_path / "f") as (simulation, file):
        gone = [simulation.silos[name] for name in ("north", "south")]
        for step in ("propose", "share", "ready", "contribute"):
            before, opened = charges(simulation), list[int]()

            def kill(done: int, step: str = step, opened: list[int] = opened) -> None:
                opened.append(done)
                if done == 1:
                    for silo in gone:
                        silo.dies_before = step

            with pytest.raises(RoundError) as caught:
                run(simulation, file, kill)
            assert opened == [1]
            said = f"{caught.value.message} {caught.value.hint}"
            assert "step 2 of 25" in said
            assert "north" in caught.value.message
            assert "south" in caught.value.message
            assert "ask again when 1 of north, south is back" in caught.value.hint
            assert "the same command goes on with step 2 of 25" in caught.value.hint
            forget_offer(simulation.federation)  # the command is given again
            with pytest.raises(RoundError, match=r"step 2 of 25.*north, south"):
                run(simulation, file)
            for silo in gone:
                silo.actor, silo.is_dead = silo.start(), False
            training = run(simulation, file)
            assert (training.ended, training.holders) == ("complete", SILOS), step
            if step in ("propose", "share"):
                assert training.answered == dict.fromkeys(SILOS, ROUNDS - 1), "nothing of what was done is done again"
                check_paid_once(simulation, before)


CALLS = ("catalogues", "submit", "deliver_report", "report", "find", "evidence")


class KilledError(BaseException):
    """What ends the analyst's command, as a signal does."""


@contextmanager
def killed_at(simulation: Simulation, number: int, when: str) -> Iterator[list[str]]:
    """Kill the analyst's command before or after its call of this number; yield the names of its calls."""
    calls = list[str]()

    def counted(name: str, call: Callable[..., object]) -> Callable[..., object]:
        def counting(*arguments: object) -> object:
            calls.append(name)
            if (when, len(calls)) == ("before", number):
                raise KilledError
            answer = call(*arguments)
            if len(calls) == number:
                raise KilledError
            return answer

        return counting

    own = {name: getattr(simulation, name) for name in CALLS}
    forget_offer(simulation.federation)
    try:
        for name, call in own.items():
            setattr(simulation, name, counted(name, call))
        yield calls
    finally:
        for name, call in own.items():
            setattr(simulation, name, call)
        forget_offer(simulation.federation)


def test_the_analyst_killed_at_any_call_goes_on_at_the_next_round(tmp_path: Path) -> None:
    with banks(tmp_path / "f") as (simulation, file):
        with killed_at(simulation, 0, "after") as calls:
            whole = models(simulation, run(simulation, file))
        assert calls.count("submit") == ROUNDS
        for number, when in product(range(1, len(calls) + 1), ("before", "after")):
            before = charges(simulation)
            with killed_at(simulation, number, when), pytest.raises(KilledError):
                run(simulation, file)
            was_sent = "submit" in calls[: number - (when == "before")]
            assert keep_of(file).exists() or not was_sent, "what is sent is written before"
            training = run(simulation, file)
            assert (training.ended, training.steps, training.holders) == ("complete", ROUNDS, SILOS), (number, when)
            assert models(simulation, training) == whole
            assert charges(simulation) == {silo: count + ROUNDS for silo, count in before.items()}, "none twice"


def test_one_of_four_that_is_gone_for_good_is_told_from_the_numbers_and_each_remedy_works(tmp_path: Path) -> None:
    with banks(tmp_path / "f") as (simulation, file):
        simulation.silos["south"].kill()
        with pytest.raises(RoundError, match=r"3 silos cannot lose 1 and keep 3.*missing: south") as caught:
            run(simulation, file)
        takes = "if that will not be, it takes max_missing = 0 in every policy or 1 more silo"
        assert caught.value.hint == f"ask again when south is back; {takes}"
        assert not keep_of(file).exists(), "nothing was sent"
        rule(simulation, "max_missing = 1", "max_missing = 0")
        assert run(simulation, file).holders == SILOS[:3]
    five = (*SILOS, "west")
    with banks(tmp_path / "g", silos=five) as (simulation, file):  # a fifth silo
        simulation.silos["south"].kill()
        assert run(simulation, file).holders == (*SILOS[:3], "west")


def test_a_run_of_four_goes_on_without_one_that_is_gone_also_from_its_file(tmp_path: Path) -> None:
    with banks(tmp_path / "f") as (simulation, file):

        def gone(done: int) -> None:
            if done == 1:
                simulation.silos["south"].kill()
                raise KilledError

        with pytest.raises(KilledError):
            run(simulation, file, gone)
        forget_offer(simulation.federation)
        training = run(simulation, file)
        assert (training.ended, training.holders, training.delta) == ("complete", SILOS[:3], 1e-6)
        assert training.steps == ROUNDS


def test_of_two_that_are_gone_the_one_is_left_out_and_the_other_missed_where_policies_bear_that(tmp_path: Path) -> None:
    five = (*SILOS, "west")
    with banks(tmp_path / "f", silos=five) as (simulation, file):

        def gone(done: int) -> None:
            if done == 1:
                for name in ("south", "west"):
                    simulation.silos[name].kill()

        training = run(simulation, file, gone)
        assert (training.ended, training.holders, training.steps) == ("complete", SILOS[:3], ROUNDS)
        assert training.answered == dict.fromkeys(SILOS[:3], ROUNDS) | {"south": 1, "west": 1}
        simulation.silos["north"].kill()
        before = charges(simulation)
        with pytest.raises(RoundError, match="missing: north, south, west"):
            run(simulation, file)
        assert charges(simulation) == before


def test_an_aggregator_that_cannot_be_reached_is_told_with_the_step_at_which_the_run_goes_on(tmp_path: Path) -> None:
    with banks(tmp_path / "f") as (simulation, file):
        submit, calls = simulation.submit, list[int]()

        def away(request: bytes, more_s: float = 0.0) -> bytes:
            calls.append(len(calls))
            if len(calls) == 2:
                raise FederationError("no connection to the aggregator", "start it")
            return submit(request, more_s)

        simulation.submit = away  # type: ignore[method-assign]
        before = charges(simulation)
        with pytest.raises(FederationError, match="no connection") as caught:
            run(simulation, file)
        assert caught.value.hint == "start it; the same command goes on with step 2 of 25"
        assert run(simulation, file).steps == ROUNDS
        assert charges(simulation) == {silo: count + ROUNDS for silo, count in before.items()}


def test_a_run_whose_last_report_is_lost_before_anybody_said_who_has_it_says_so(tmp_path: Path) -> None:
    with banks(tmp_path / "f") as (simulation, file):

        def stop(done: int) -> None:
            if done == ROUNDS:
                raise KilledError

        with pytest.raises(KilledError):
            run(simulation, file, stop)
        state = Progress.decode(keep_of(file).read_bytes())
        assert (state.holders, state.ended) == (SILOS, "complete")
        lose(simulation, state.after)
        training = run(simulation, file)  # what was said before is in the file
        assert (training.holders, training.ended) == (SILOS, "complete")
        keep_of(file).write_bytes(state.model_copy(update={"holders": ()}).encode())
        with pytest.raises(FederationError, match="all steps are taken") as caught:
            run(simulation, file)
        assert f"{keep_of(file)} can be removed" in caught.value.hint


def test_a_run_that_was_begun_anew_says_nothing_of_the_one_before(tmp_path: Path) -> None:
    """Two of four are lost after the others have contributed: when they are back, the same command begins anew."""
    with banks(tmp_path / "f") as (simulation, file):

        def kill(done: int) -> None:
            if done == 1:
                for name in ("north", "south"):
                    simulation.silos[name].dies_before = "contribute"

        with pytest.raises(RoundError) as caught:
            run(simulation, file, kill)
        assert "it begins a new run, and nothing was paid" in caught.value.hint
        before = Progress.decode(keep_of(file).read_bytes())
        for name in ("north", "south"):
            silo = simulation.silos[name]
            silo.actor, silo.is_dead = silo.start(), False
        training = run(simulation, file)
        step = Request.decode(before.first).plan.training
        assert step is not None
        assert training.run != step.run.hex()
        assert (training.steps, training.holders) == (ROUNDS, SILOS)
        assert training.answered == dict.fromkeys(SILOS, ROUNDS)
