"""A paid answer is not lost: the client may end at any point and the disk may fill, and the same question has it."""

import asyncio
import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import analyst.kept
from aggregator.errors import AggregatorError
from aggregator.store import REPORTS, ReportStore
from analyst.aggregators import Aggregators, Whereabouts
from analyst.asking import fetch_unknown
from analyst.client import Federation
from analyst.demo.hospitals import PURPOSE
from analyst.errors import AnalystError, DeniedError, LostError, RoundError
from analyst.kept import DIRECTORY, Kept, KeptAnswers, Question
from analyst.reports.report import Report
from crypto.errors import ProtocolError
from crypto.keys import Secret
from crypto.rounds.messages import Found
from crypto.sealing import SealingKey
from crypto.wire import digest_of
from federation.errors import FederationError
from policies.units import DAY_S
from tests.harness.clock import Clock
from tests.harness.inside import ledger_of
from tests.harness.simulator import Simulation, no_noise, simulate

QUESTION = "SELECT sex, COUNT(*) AS n FROM lung GROUP BY sex"


class KilledError(BaseException):
    """What ends the program, as a signal would."""


@pytest.fixture
def clock() -> Clock:
    import time

    return Clock(time.time())


@pytest.fixture
def exact(home: Path, clock: Clock) -> Iterator[Simulation]:
    with simulate(home, noise=no_noise, clock=clock) as running:
        yield running


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def ask(exact: Simulation, said: list[str]) -> Callable[..., Report]:
    """Ask the question; `said` gets what the client tells."""

    def once(sql: str = QUESTION, epsilon: float = 0.5, **more: object) -> Report:
        said.clear()
        return exact.federation.query(sql, purpose=PURPOSE, epsilon=epsilon, tell=said.append, **more)  # type: ignore[arg-type]

    return once


def charges(simulation: Simulation) -> set[int]:
    """How many requests each silo has charged."""
    return {sum(one.is_committed for one in ledger_of(silo).history()) for silo in simulation.silos.values()}


def counts(report: Report) -> list[float | None]:
    return [row["n"].value for row in report.rows]  # type: ignore[union-attr]


def kept(simulation: Simulation) -> list[Kept]:
    return simulation.federation.kept.all()


def kill(*_: object, **__: object) -> None:
    raise KilledError


def kill_after(what: Callable[..., object]) -> Callable[..., None]:
    def then(*arguments: object) -> None:
        what(*arguments)
        raise KilledError

    return then


@contextmanager
def killed(place: object, name: str, how: object) -> Iterator[None]:
    """Let a step of the client be replaced by one that ends it, and expect that end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(place, name, how)
        with pytest.raises(KilledError):
            yield


POINTS = {
    "before it is sent": (Simulation, "submit", kill),
    "when it was sent": (Simulation, "submit", kill_after(Simulation.submit)),
    "when the report has arrived": (Federation, "open_answer", kill),
    "when it is opened": (KeptAnswers, "keep", kill),
}


@pytest.mark.parametrize("point", POINTS)
def test_the_same_question_has_the_answer_at_no_second_price_wherever_the_client_was_killed(
    exact: Simulation, ask: Callable[..., Report], said: list[str], point: str
) -> None:
    place, name, how = POINTS[point]
    with killed(place, name, how):
        ask()
    (before,) = kept(exact)
    assert before.state == "sent"
    report = ask("select sex, count(*) AS n\nFROM lung GROUP BY sex -- the same")
    assert counts(report) == [90, 138]
    assert charges(exact) == {1}
    assert report.request == before.name
    assert len(said) == 1
    assert said[0].endswith("at no second price")
    assert exact.federation.kept.answer(before) == report


def test_an_answer_that_was_kept_is_shown_again_and_the_next_question_is_a_new_one(
    exact: Simulation, ask: Callable[..., Report], said: list[str]
) -> None:
    with killed(KeptAnswers, "keep", kill_after(KeptAnswers.keep)):
        ask()
    (first,) = kept(exact)
    assert first.state == "opened"
    shown = exact.federation.kept.answer(first)
    again = ask()
    assert charges(exact) == {2}
    assert counts(again) == counts(shown)
    assert again.request != shown.request
    assert said == [
        f"answered at {first.asked_at}; `consilo report show {first.short}` shows that at no cost;"
        " this is a new request at a new price"
    ]


def test_files_are_the_analysts_own_and_an_answer_is_sealed(exact: Simulation, ask: Callable[..., Report]) -> None:
    report = ask()
    directory = exact.path / DIRECTORY
    assert directory.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o600}
    assert sorted(path.name for path in directory.iterdir()) == [
        f"{report.request}.answer",
        f"{report.request}.question",
    ]
    (one,) = kept(exact)
    assert b"female" not in one.answer.read_bytes()
    stranger = KeptAnswers(exact.path, "ana", SealingKey(Secret(bytes(32))))
    with pytest.raises(AnalystError, match="no answer that opens with this key"):
        stranger.answer(one)
    assert KeptAnswers(exact.path, "bo").all() == []
    without_key = KeptAnswers(exact.path, "ana")
    for use in (lambda: without_key.answer(one), lambda: without_key.keep(one, report)):
        with pytest.raises(AnalystError, match="is sealed"):
            use()


def test_a_report_that_fails_its_checks_stays_unopened_until_it_is_asked_anew(
    exact: Simulation, ask: Callable[..., Report], said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*_: object) -> None:
        raise ProtocolError("the sum is wrong")

    with monkeypatch.context() as patch:
        patch.setattr(Federation, "recount", wrong)
        for _ in range(2):
            with pytest.raises(ProtocolError):
                ask()
            assert said[-1].endswith("does not pass its checks; --new asks the question anew, at a new price")
    assert charges(exact) == {1}
    assert counts(ask()) == [90, 138], "it opens once the defect is mended"
    assert charges(exact) == {1}


def test_what_makes_another_question(exact: Simulation, ask: Callable[..., Report], said: list[str]) -> None:
    with killed(Simulation, "submit", kill):
        ask()
    ask(epsilon=0.25)
    assert not said
    ask(silos=["aspen", "birch", "cedar", "maple"], epsilon=0.25)
    ask(deadline=70, epsilon=0.25)
    ask("SELECT sex, COUNT(*) AS m FROM lung GROUP BY sex", epsilon=0.25)
    assert not said
    ask(new=True, epsilon=0.5)
    assert not said
    assert [one.state for one in kept(exact)].count("sent") == 1
    ask()
    assert said


def test_two_commands_at_a_time_never_send_one_question_twice(
    exact: Simulation, ask: Callable[..., Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    submit = Simulation.submit

    def meanwhile(self: Simulation, request: bytes, more_s: float = 0.0) -> bytes:
        monkeypatch.setattr(Simulation, "submit", submit)
        with pytest.raises(AnalystError, match="is being asked by another command") as refused:
            ask()
        assert "--new" in refused.value.hint
        return submit(self, request, more_s)

    monkeypatch.setattr(Simulation, "submit", meanwhile)
    ask()
    assert charges(exact) == {1}


def test_an_answer_that_no_aggregator_has_is_said_to_be_charged_and_then_asked_anew(
    exact: Simulation, ask: Callable[..., Report], said: list[str]
) -> None:
    with killed(Simulation, "submit", kill_after(Simulation.submit)):
        ask()
    for path in (exact.path / "aggregator" / "reports").iterdir():
        path.unlink()
    with pytest.raises(
        LostError, match=r"aspen.* charged this request before, and no aggregator has its answer"
    ) as lost:
        ask()
    assert lost.value.hint == "the same question is now a new request at a new price"
    (one,) = kept(exact)
    assert one.state == "ended"
    assert "the charge stands" in one.question.ended
    ask()
    assert charges(exact) == {2}


def test_after_the_retention_the_date_of_the_erasure_is_said(
    exact: Simulation, ask: Callable[..., Report], clock: Clock
) -> None:
    with killed(Simulation, "submit", kill_after(Simulation.submit)):
        ask()
    clock.now += REPORTS.age_s + 60
    ReportStore(exact.path / "aggregator" / "reports", clock)
    assert not list((exact.path / "aggregator" / "reports").glob("*.report"))
    with pytest.raises(AnalystError, match=r"was erased at the aggregator on \d{4}-\d\d-\d\d") as gone:
        ask()
    assert "new price" in gone.value.hint
    (one,) = kept(exact)
    assert (one.state, one.question.ended) == ("ended", gone.value.message)


def test_a_request_that_expired_unanswered_becomes_a_new_one_and_says_so(
    exact: Simulation, ask: Callable[..., Report], said: list[str], clock: Clock
) -> None:
    with killed(Simulation, "submit", kill):
        ask()
    clock.now += 601
    ask()
    assert charges(exact) == {1}
    assert len(said) == 1
    assert "has expired without an answer" in said[0]
    assert said[0].endswith("this is a new request at a new price")
    assert sorted(one.state for one in kept(exact)) == ["ended", "opened"]


def test_a_report_is_found_by_its_request_after_the_request_has_expired(
    exact: Simulation, ask: Callable[..., Report], clock: Clock
) -> None:
    with killed(Simulation, "submit", kill_after(Simulation.submit)):
        ask()
    clock.now += 86_400
    assert counts(ask()) == [90, 138]
    assert charges(exact) == {1}


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_question_that_cannot_be_kept_is_not_sent(
    exact: Simulation, ask: Callable[..., Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(analyst.kept, "replace_file", full)
    with pytest.raises(AnalystError, match=r"cannot be kept in .*No space left on device.*, so it was not sent") as err:
        ask()
    assert "nothing is paid" in err.value.hint
    assert charges(exact) == {0}
    assert not exact.reports


def test_an_answer_that_cannot_be_kept_is_given_all_the_same(
    exact: Simulation, ask: Callable[..., Report], said: list[str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(KeptAnswers, "keep", full)
        report = ask()
    assert counts(report) == [90, 138]
    assert len(said) == 1
    assert said[0].startswith("the answer cannot be kept here (No space left on device)")
    (one,) = kept(exact)
    assert exact.federation.open_kept(one) == report, "it is fetched again"
    assert charges(exact) == {1}
    exact.reports.clear()
    assert exact.federation.open_kept(one) == report, "it is kept now"


def test_an_answer_is_opened_while_a_silo_is_away_that_took_part(exact: Simulation, ask: Callable[..., Report]) -> None:
    with killed(Simulation, "submit", kill_after(Simulation.submit)):
        ask()
    for silo in exact.silos.values():
        silo.kill()
    report = Federation.query(reopened(exact), QUESTION, purpose=PURPOSE, epsilon=0.5)
    assert counts(report) == [90, 138]
    assert {one.status for one in report.silos.values()} == {"answered"}


def reopened(simulation: Simulation) -> Federation:
    """The federation as another process of the analyst opens it."""
    name, root = simulation.federation.config.analyst_key(None)
    clock = simulation.silos["aspen"].clock
    return Federation(simulation.federation.config, name, root, simulation, clock)


def test_a_refused_question_leaves_nothing_and_a_failed_one_its_reason(
    exact: Simulation, ask: Callable[..., Report]
) -> None:
    with pytest.raises(DeniedError, match="RHO_PER_REQUEST"):
        ask(epsilon=50)
    assert kept(exact) == []
    for name in ("aspen", "birch"):
        exact.silos[name].dies_before = "agree"
    exact.silos["cedar"].dies_before = "agree"
    with pytest.raises(RoundError):
        ask()
    (one,) = kept(exact)
    assert one.state == "ended"
    assert one.question.ended.startswith("no answer: ")
    exact.mend()
    ask()


def test_a_kept_request_for_approval_is_answered_once(
    exact: Simulation, ask: Callable[..., Report], said: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "request"
    with killed(Simulation, "submit", kill_after(Simulation.submit)):
        ask(keep=file)
    assert file.exists()
    first = ask(keep=file)
    assert charges(exact) == {1}
    assert not file.exists()
    with killed(KeptAnswers, "keep", kill_after(KeptAnswers.keep)):
        ask(keep=file)
    assert [line.endswith("this is a new request at a new price") for line in said] == [True]
    assert ask(keep=file).request != first.request, "what the file holds was answered"
    assert charges(exact) == {3}
    with killed(Simulation, "submit", kill_after(Simulation.submit)):
        ask(keep=file)
    for path in (exact.path / "aggregator" / "reports").iterdir():
        path.unlink()
    with pytest.raises(LostError):
        ask(keep=file)
    assert not file.exists(), "the next one is a new request"


def test_an_open_federation_asks_again_for_the_catalogues_that_were_missing(
    exact: Simulation, ask: Callable[..., Report]
) -> None:
    for name in ("aspen", "birch", "cedar"):
        exact.silos[name].is_dead = True
    with pytest.raises(RoundError, match="missing: aspen, birch, cedar"):
        ask()
    for silo in exact.silos.values():
        silo.is_dead = False
    assert {one.status for one in ask().silos.values()} == {"answered"}


def test_what_the_analyst_erases_says_so(exact: Simulation, ask: Callable[..., Report], clock: Clock) -> None:
    first = ask(epsilon=0.1)
    clock.now += 10
    second = ask(epsilon=0.1)
    answers = exact.federation.kept
    (old,) = answers.opened_before(answers.named(second.request).question.created_at)
    assert old.name == first.request
    assert answers.erase(old) > 100
    with pytest.raises(AnalystError, match=r"its answer was erased here on \d{4}-\d\d-\d\d"):
        answers.answer(answers.named(first.request))
    assert answers.named(first.request).state == "ended"
    with pytest.raises(AnalystError, match=r"no answer to .* is kept here"):
        answers.erase(answers.named(first.request))
    assert answers.answer(answers.named(second.request)) == second
    assert fetch_unknown(exact.federation, bytes.fromhex(first.request)) == first, "the aggregator has it"
    with pytest.raises(AnalystError, match="no aggregator has an answer to 000000000000"):
        fetch_unknown(exact.federation, bytes(32))


def test_a_paid_answer_stays_whatever_its_age_and_number(
    exact: Simulation, ask: Callable[..., Report], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(analyst.kept, "MAX_ENDED", 2)
    asked = list[Report]()
    for _ in range(4):
        asked.append(ask(epsilon=0.05))
        clock.now += 10
    for one in kept(exact)[:3]:
        exact.federation.kept.erase(one)
    clock.now += 3650 * DAY_S
    exact.federation.kept.begin(kept(exact)[0].question)
    states = [one.state for one in kept(exact)]
    assert states.count("opened") == 1, "the oldest of all stays"
    assert states.count("ended") <= 3, "of those that ended the oldest go"
    assert exact.federation.kept.answer(exact.federation.kept.named(asked[0].request)) == asked[0]


def test_a_command_takes_no_longer_for_the_questions_that_others_asked(
    exact: Simulation, ask: Callable[..., Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    for epsilon in (0.1, 0.2, 0.3):
        ask(epsilon=epsilon)
    decode, read = Question.decode, set[bytes]()

    def counted(data: bytes) -> Question:
        read.add(data)
        return decode(data)

    monkeypatch.setattr(Question, "decode", staticmethod(counted))
    ask(epsilon=0.1)
    assert len(read) == 2, "the one that the same command asked before, and its own"


def test_a_changed_question_is_passed_over_and_an_ambiguous_name_refused(
    exact: Simulation, ask: Callable[..., Report]
) -> None:
    ask(epsilon=0.1)
    (one,) = kept(exact)
    other = Kept(one.path.with_name(f"{one.name[:63]}{'0' if one.name[63] != '0' else '1'}.question"), one.question)
    other.path.write_bytes(one.path.read_bytes())
    assert len(kept(exact)) == 1, "its name is not the hash of its request"
    other.path.write_bytes(b"{}")
    other.path.with_name("long.question").write_bytes(bytes(Question.MAX_BYTES + 1))
    assert len(kept(exact)) == 1
    ask(epsilon=0.1)
    with pytest.raises(AnalystError, match="is kept here as ''"):
        exact.federation.kept.named("")
    with pytest.raises(AnalystError, match="is kept here as 'xyz'"):
        exact.federation.kept.named("xyz")


def test_the_local_caller_is_told_what_there_is(exact: Simulation, ask: Callable[..., Report]) -> None:
    report = ask(epsilon=0.1)
    request_hash = bytes.fromhex(report.request)
    assert Found.decode(exact.find(request_hash)) == Found(state="kept", report=bytes.fromhex(report.transcript))
    assert Found.decode(exact.find(bytes(32))) == Found(state="none")
    assert exact.server.find(request_hash, "bo") == exact.server.find(bytes(32), "bo"), "it is as if there were none"
    assert Found.decode(exact.server.find(request_hash, "ana")).state == "kept"


def test_an_aggregator_that_contradicts_itself_has_said_nothing() -> None:
    def found(state: Any, report: bytes, erased_at: int) -> Whereabouts:
        said = Found.model_construct(state=state, report=report, erased_at=erased_at)
        link: Any = SimpleNamespace(find=lambda _: said.encode())
        return Aggregators("hub", link).find(bytes(32))

    name = bytes([1]) * 32
    for contradiction in (
        ("kept", b"", 0),
        ("kept", name[:31], 0),
        ("kept", name, 9),
        ("erased", name, 9),
        ("none", name, 0),
        ("none", b"", 9),
        ("running", b"", 9),
    ):
        assert found(*contradiction).silent == ("hub",)
    for clear in (("kept", name, 0), ("erased", b"", 9), ("running", b"", 0), ("none", b"", 0)):
        assert (found(*clear).state, found(*clear).silent) == (clear[0], ())


def test_a_request_that_comes_twice_at_a_time_runs_one_round(exact: Simulation) -> None:
    """As a client sends it that dials again after a lost connection."""
    federation = exact.federation
    _, request = federation.prepare(QUESTION, purpose=PURPOSE, epsilon=0.1)
    envelope, request_hash = federation.signed(request), digest_of(request)

    async def twice() -> tuple[bytes, bytes]:
        first = asyncio.create_task(exact.server.submit(envelope))
        while Found.decode(exact.find(request_hash)).state != "running":
            await asyncio.sleep(0)
        assert Found.decode(exact.server.find(request_hash, "bo")).state == "none"
        return await exact.server.submit(envelope), await first

    second, first = asyncio.run(twice())
    assert first == second
    assert charges(exact) == {1}


def test_a_second_caller_of_a_round_is_told_when_its_first_caller_is_ended(exact: Simulation) -> None:
    federation = exact.federation
    _, request = federation.prepare(QUESTION, purpose=PURPOSE, epsilon=0.1)
    envelope = federation.signed(request)
    exact.silos["aspen"].late_s = {"propose": 60.0}

    async def ended() -> None:
        first = asyncio.create_task(exact.server.submit(envelope))
        while Found.decode(exact.find(digest_of(request))).state != "running":
            await asyncio.sleep(0)
        second = asyncio.create_task(exact.server.submit(envelope))
        await asyncio.sleep(0.05)
        first.cancel()
        with pytest.raises(AggregatorError, match="was ended"):
            await second

    asyncio.run(ended())
    assert Found.decode(exact.find(digest_of(request))).state == "none"


def test_a_federation_looks_for_silos_on_their_way_back_to_a_restarted_aggregator(
    exact: Simulation, ask: Callable[..., Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the catalogues, and when the round fails for want of them; not for ever."""
    waited = []

    def come_back(seconds: float) -> None:
        waited.append(seconds)
        exact.settling_s = max(0.0, exact.settling_s - seconds)
        if len(waited) == 3:
            exact.mend()

    monkeypatch.setattr("analyst.client.time.sleep", come_back)
    exact.settling_s = 60.0
    for name in ("aspen", "birch", "cedar"):
        exact.silos[name].kill()
    assert counts(ask()) == [90, 138]
    assert waited == [5.0] * 3
    for name in ("aspen", "birch", "cedar"):
        exact.silos[name].dies_before = "propose"
    waited.clear()
    assert counts(ask()) == [90, 138]
    assert waited == [5.0] * 3
    assert charges(exact) == {2}
    for name in ("aspen", "birch", "cedar"):
        exact.silos[name].kill()
    exact.settling_s = 12.0
    waited[:] = [0.0] * 4  # none comes back
    with pytest.raises(RoundError):
        ask()
    assert waited[4:] == [5.0, 5.0, 2.0]


class Other:
    """An aggregator that is dialled only to find a report."""

    def __init__(self, answers: Simulation | None) -> None:
        self.answers, self.dialled, self.closed = answers, 0, 0

    @contextmanager
    def dial(self) -> Iterator[Simulation]:
        self.dialled += 1
        if self.answers is None:
            raise FederationError("no connection")
        yield self.answers
        self.closed += 1


def test_every_aggregator_is_asked_for_the_report(
    exact: Simulation, ask: Callable[..., Report], tmp_path: Path, founded: Path, clock: Clock
) -> None:
    with killed(Simulation, "submit", kill_after(Simulation.submit)):
        ask()
    (one,) = kept(exact)
    with simulate(Path(shutil.copytree(founded, tmp_path / "empty")), clock=clock, is_lazy=True) as empty:
        dead, having = Other(None), Other(exact)
        federation = reopened(exact)
        name, root = federation.config.analyst_key(None)
        others = {"dead": dead.dial, "having": having.dial}
        federation = Federation(federation.config, name, root, empty, clock, others=others)
        with federation:
            report = federation.query(QUESTION, purpose=PURPOSE, epsilon=0.5)
            assert report.request == one.name
            assert counts(report) == [90, 138]
            assert (dead.dialled, having.dialled) == (1, 1)
        assert having.closed == 1
    assert charges(exact) == {1}


def test_an_aggregator_that_may_have_the_answer_is_waited_for_before_anything_is_paid_again(
    exact: Simulation, ask: Callable[..., Report], tmp_path: Path, clock: Clock
) -> None:
    with killed(Simulation, "submit", kill_after(Simulation.submit)):
        ask()
    away = tmp_path / "away"
    (exact.path / "aggregator" / "reports").rename(away)
    (exact.path / "aggregator" / "reports").mkdir()
    name, root = exact.federation.config.analyst_key(None)
    with Federation(exact.federation.config, name, root, exact, clock, others={"dead": Other(None).dial}) as federation:
        for later_s in (0, 86_400):  # while the request is valid, and after it has expired
            clock.now += later_s
            with pytest.raises(
                FederationError, match=r"dead may have the answer to .*, and does not answer"
            ) as unasked:
                federation.query(QUESTION, purpose=PURPOSE, epsilon=0.5)
            assert "--new" in unasked.value.hint
        (exact.path / "aggregator" / "reports").rmdir()
        away.rename(exact.path / "aggregator" / "reports")
        assert counts(federation.query(QUESTION, purpose=PURPOSE, epsilon=0.5)) == [90, 138]
    assert charges(exact) == {1}


def test_a_question_that_is_asked_again_and_again_reads_few_of_those_before(
    exact: Simulation, ask: Callable[..., Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the thousandth command needs a second processor's worth of what the first ones needed."""
    ask()
    (first,) = kept(exact)
    folder = first.path.parent
    for number in range(50):  # answers to requests of the same command, long ago
        for suffix in (".question", ".answer"):
            copy = folder / f"{number:064x}{suffix}"
            copy.write_bytes(first.path.with_suffix(suffix).read_bytes())
            os.utime(copy, (number, number))
    ask()
    (newest,) = [one for one in kept(exact) if one.name != first.name]
    decode, decoded = Question.decode, list[bytes]()

    def counted(data: bytes) -> Question:
        decoded.append(data)
        return decode(data)

    monkeypatch.setattr(Question, "decode", counted)
    assert exact.federation.kept.of_command(first.question.command) == newest
    assert len(decoded) == 1
