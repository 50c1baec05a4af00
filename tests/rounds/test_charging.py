"""Nothing is charged before everything that its answer needs is ready, and a charge is neither lost nor doubled."""

import asyncio
import errno
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from aggregator.keeping import sizes
from aggregator.recovery import end_left_rounds
from aggregator.round_journal import RoundJournal, records
from aggregator.rounds import propose, read_request
from analyst.demo.hospitals import PURPOSE
from analyst.errors import AnalystError, RoundError
from crypto.keys import Secret, SigningKey, read_key_file
from crypto.rounds.manifest import BackendName, Propose
from crypto.rounds.messages import ShareKeys
from crypto.wire import sign, unverified
from federation.members.roster import AUTHORITY, Party, read_roster
from policies.errors import LedgerError
from silo_node.ledger import events
from silo_node.rounds.open_rounds import MAX_ROUNDS_OF_ONE
from tests.harness.inside import aggregator_of, database_of, key_of, ledger_of, rounds_of
from tests.harness.simulator import STEPS, LocalCheckpoints, SimulatedSilo, Simulation, ask, no_noise, simulate

QUESTION = "SELECT COUNT(*) AS n FROM lung"
FULL = OSError(errno.ENOSPC, "No space left on device")


def spent(simulation: Simulation) -> dict[str, int]:
    return {name: simulation.spent(name) for name in simulation.silos}


def kinds(silo: SimulatedSilo) -> list[str]:
    return [entry.event.kind for entry in ledger_of(silo).entries(1000)]


def fails(*_: Any, **__: Any) -> None:
    raise FULL


@pytest.fixture
def price(exact: Simulation) -> int:
    """What one question costs; one was asked."""
    ask(exact, QUESTION)
    (price,) = set(spent(exact).values())
    return price


# The aggregator's disk


@pytest.mark.parametrize(
    "place", ["aggregator.round_journal.create", "aggregator.store.os.posix_fallocate", "aggregator.store.create"]
)
def test_a_full_disk_at_the_aggregator_charges_nobody(
    exact: Simulation, price: int, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {name: kinds(silo).count("charging") for name, silo in exact.silos.items()}
    with monkeypatch.context() as full:
        full.setattr(place, fails)
        with pytest.raises(RoundError, match=r"no answer: .*(No space left|cannot be noted)"):
            ask(exact, QUESTION)
    assert spent(exact) == dict.fromkeys(exact.silos, price)
    assert {name: kinds(silo).count("charging") for name, silo in exact.silos.items()} == before, "nobody was asked to"
    left = [file for file in (exact.path / "aggregator").glob("*/*") if file.suffix in (".partial", ".round")]
    assert not left
    assert set(ask(exact, QUESTION).values()) == {"answered"}


def test_a_disk_that_became_read_only_at_the_aggregator_is_named(
    exact: Simulation, price: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as read_only:
        for place in ("aggregator.round_journal.create", "aggregator.round_journal.Path.unlink"):
            read_only.setattr(place, refuses)
        with pytest.raises(RoundError, match=r"no answer: the aggregator's disk failed \(Read-only") as failed:
            ask(exact, QUESTION)
    assert "the charge stands" in failed.value.hint
    assert spent(exact) == dict.fromkeys(exact.silos, price)
    assert not any(rounds_of(silo) for silo in exact.silos.values()), "they were told that it is over"
    assert set(ask(exact, QUESTION).values()) == {"answered"}


def test_a_disk_that_fills_after_go_breaks_no_round(exact: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file is made after Go, and none grows beyond the room that it had."""
    home, room = exact.path / "aggregator", dict[str, int]()

    def fill(step: str, _: tuple[bytes, ...]) -> None:
        if step == "contribute" and not room:
            files = [file for name in ("rounds", "reports", "contributions") for file in sizes(home / name)]
            room.update({file.parent.name: file.stat().st_size for file in files if ".request" not in file.suffixes})
            for place in ("aggregator.round_journal.create", "aggregator.store.create"):
                monkeypatch.setattr(place, fails)
        if step == "agree":
            assert {file.stat().st_size for file in (home / "rounds").iterdir()} == {room["rounds"]}

    for silo in exact.silos.values():
        silo.before = fill
    assert set(ask(exact, QUESTION).values()) == {"answered"}
    assert set(room) == {"rounds", "reports", "contributions"}
    assert {size for _, size in sizes(home / "contributions").values()} == {room["contributions"]}
    (report,) = (home / "reports").glob("*.report")
    assert report.stat().st_size < room["reports"]
    assert not list((home / "rounds").iterdir())


@pytest.mark.parametrize(("backend", "dropped"), [("masking", ()), ("masking", ("cedar",)), ("shares", ())])
def test_the_room_for_a_report_holds_the_report(
    shared: Simulation, backend: BackendName, dropped: tuple[str, ...]
) -> None:
    taken = list[int]()

    def look(step: str, _: tuple[bytes, ...]) -> None:
        if step == "open_shares":
            taken.extend(
                file.stat().st_size for file in (shared.path / "aggregator" / "reports").glob("*.report.partial")
            )

    for name, silo in shared.silos.items():
        silo.before = look
        if name in dropped:
            silo.dies_before = "contribute"
    question = "SELECT sex, COUNT(*) AS n, AVG(age) AS mean_age FROM lung GROUP BY sex"
    shared.federation.query(question, purpose=PURPOSE, epsilon=1, backend=backend)
    assert len(shared.reports[-1]) < min(taken) < 20 * len(shared.reports[-1])


# A silo that ends


UNCHARGED = {("after", "propose"), ("before", "share"), ("after", "share"), ("before", "ready")}
DEATHS = [(when, step) for step in STEPS for when in ("before", "after")]


@pytest.mark.slow
@pytest.mark.parametrize(("when", "step"), DEATHS[1:])
def test_a_silo_that_is_killed_has_spent_what_it_had_begun_and_no_more(
    exact: Simulation, price: int, when: str, step: str
) -> None:
    cedar = exact.silos["cedar"]
    cedar.restarts = True
    setattr(cedar, f"dies_{when}", step)
    with suppress(AnalystError):
        ask(exact, QUESTION)
    ledger_of(cedar).audit()
    held = kinds(cedar)
    if (when, step) in UNCHARGED:
        assert exact.spent("cedar") == price, "released: no charge had begun"
        assert held.count("charging") == 1
    else:
        assert exact.spent("cedar") == 2 * price
        committed = held.count("contribution") == 2
        assert committed is ((when, step) not in {("after", "ready"), ("before", "contribute")})
        assert held.count("stays-charged") == 1 - committed, "begun, and nobody knows that nothing left"
    exact.mend()
    before = exact.spent("cedar")
    assert ask(exact, QUESTION)["cedar"] == "answered"
    assert exact.spent("cedar") == before + price


def test_a_charge_that_had_begun_is_given_back_by_the_process_that_never_contributed(
    exact: Simulation, price: int
) -> None:
    """Every silo is ready, and one falls silent: the round starts anew, and the others are charged once."""
    cedar = exact.silos["cedar"]
    cedar.dies_before = "ready"
    assert ask(exact, QUESTION)["aspen"] == "answered"
    aspen = exact.silos["aspen"]
    assert exact.spent("aspen") == 2 * price
    assert kinds(aspen)[-9:] == [
        "charging", "release", "decision", "reservation", "charging", "contribution", "consent", "split", "opening",
    ]  # fmt: skip
    ledger_of(aspen).audit()


def test_a_silo_whose_disk_is_full_gives_back_when_there_is_room(exact: Simulation, price: int) -> None:
    cedar, aspen = exact.silos["cedar"], exact.silos["aspen"]
    cedar.dies_before = "ready"
    release = ledger_of(aspen).release
    ledger_of(aspen).release = fails_as_full  # type: ignore[method-assign]
    with suppress(AnalystError):
        ask(exact, QUESTION)
    assert exact.spent("aspen") == 2 * price
    ledger_of(aspen).release = release  # type: ignore[method-assign]
    exact.mend()
    assert ask(exact, QUESTION)["aspen"] == "answered"
    assert exact.spent("aspen") == 2 * price
    assert database_of(ledger_of(aspen)).execute("SELECT count(*) FROM charges").fetchone() == (2,)


def fails_as_full(nonce: bytes) -> None:
    raise LedgerError("database or disk is full")


# Replies that are repeated


def test_the_same_bytes_get_the_same_reply_at_every_step_and_other_bytes_none(home: Path) -> None:
    now = [1_800_000_000.0]
    with simulate(home, noise=no_noise, clock=lambda: now[0]) as simulation:
        aspen = simulation.silos["aspen"]
        said = list[tuple[str, tuple[bytes, ...], tuple[bytes, ...]]]()

        def repeat(step: str, frames: tuple[bytes, ...]) -> tuple[bytes, ...]:
            if step in STEPS:
                arguments = aspen.seen[-2][1]
                said.append((step, arguments, frames))
                for earlier, asked, reply in said:
                    assert getattr(aspen.actor, earlier)(*asked) == reply, f"{earlier} again, after {step}"
                refused(aspen, step, (arguments[0], arguments[1] + b" ", *arguments[2:]))
            return frames

        aspen.rewrite = repeat
        assert set(ask(simulation, QUESTION).values()) == {"answered"}
        assert [step for step, _, _ in said] == list(STEPS)
        assert not rounds_of(aspen), "its secrets are erased"
        assert kinds(aspen).count("contribution") == kinds(aspen).count("opening") == 1, "nothing was computed anew"
        price = simulation.spent("aspen")
        for step, asked, reply in said:
            assert getattr(aspen.actor, step)(*asked) == reply, "also after its end"
        now[0] += 1000.0
        for step, asked, _ in said:
            refused(aspen, step, asked)
        assert simulation.spent("aspen") == price


def refused(silo: SimulatedSilo, step: str, arguments: tuple[bytes, ...]) -> None:
    (reply,) = getattr(silo.actor, step)(*arguments)
    assert reply[5:].startswith((b"failed", b"refusal"))


# Proposals that would displace a charged round


def proposals(simulation: Simulation, count: int, epsilon: float = 0.05) -> Iterator[tuple[bytes, bytes]]:
    federation, now = simulation.federation, int(simulation.silos["aspen"].clock())
    for index in range(count):
        _, request = federation.prepare(QUESTION, purpose=PURPOSE, epsilon=epsilon)
        envelope = sign(request, federation.analyst, key_of(federation))
        round_id = b"flood" + index.to_bytes(11, "big")
        yield round_id, propose(aggregator_of(simulation.server), read_request(envelope), round_id, now).envelope


@pytest.mark.parametrize("step", ["contribute", "agree", "open_shares"])
def test_no_number_of_proposals_displaces_a_charged_round(exact: Simulation, step: str) -> None:
    ask(exact, QUESTION)
    aspen, done = exact.silos["aspen"], list[int]()
    flood = list(proposals(exact, MAX_ROUNDS_OF_ONE + 3))

    def before(called: str, arguments: tuple[bytes, ...]) -> None:
        if called == step:
            asked = next(sent[1] for name, sent in reversed(aspen.seen) if name == "> propose")
            request = read_request(unproposed(asked))
            again = propose(aggregator_of(exact.server), request, b"again" + bytes(11), int(aspen.clock()))
            aspen.actor.propose(b"again" + bytes(11), again.envelope)
            for round_id, proposed in flood:
                aspen.actor.propose(round_id, proposed)
            assert arguments[0] in rounds_of(aspen)
            done.append(len(rounds_of(aspen)))

    aspen.before = before
    assert set(ask(exact, QUESTION).values()) == {"answered"}
    assert done == [MAX_ROUNDS_OF_ONE]


def unproposed(envelope: bytes) -> bytes:
    return unverified(envelope, Propose).request


# Two aggregators


@pytest.fixture
def second(home: Path) -> Path:
    """A federation whose roster names a second aggregator, which keeps checkpoints only."""
    authority = SigningKey(read_key_file(home / "authority.key"))
    for file in home.glob("**/roster.signed"):
        roster = read_roster(file, authority.public)
        party = Party(name="second", key=str(SigningKey(Secret(bytes(32))).public))
        more = tuple(sorted((*roster.aggregators, party), key=lambda one: one.name))
        file.write_bytes(sign(roster.model_copy(update={"aggregators": more}), AUTHORITY, authority))
    return home


def tolerate(home: Path, section: str) -> None:
    for policy in home.glob("silos/*/policy.toml"):
        policy.write_text(f"{policy.read_text()}\n[aggregators]\n{section}\n")


def run(home: Path, story: Callable[[Simulation, LocalCheckpoints], None]) -> None:
    with simulate(home, noise=no_noise, is_lazy=True) as simulation:
        other = LocalCheckpoints(home / "aggregator", "second-heads")
        for silo in simulation.silos.values():
            silo.others["second"] = other
        story(simulation, other)


def test_with_two_aggregators_and_nobody_away_one_dead_charges_nobody(second: Path) -> None:
    def story(simulation: Simulation, other: LocalCheckpoints) -> None:
        ask(simulation, QUESTION)
        before = spent(simulation)
        for dead in (other, simulation.checkpoints):
            dead.is_down = True
            with pytest.raises(RoundError):
                ask(simulation, QUESTION)
            assert spent(simulation) == before
            dead.is_down = False
        assert set(ask(simulation, QUESTION).values()) == {"answered"}

    run(second, story)


def test_with_one_that_may_be_away_questions_are_answered_and_it_learns_later(second: Path) -> None:
    def story(simulation: Simulation, other: LocalCheckpoints) -> None:
        ask(simulation, QUESTION)
        (price,) = set(spent(simulation).values())
        other.is_down = True
        assert set(ask(simulation, QUESTION).values()) == {"answered"}
        assert set(spent(simulation).values()) == {2 * price}
        late = other.store.get("cedar")
        other.is_down = False
        assert late != simulation.checkpoints.store.get("cedar")
        assert set(ask(simulation, QUESTION).values()) == {"answered"}
        assert other.store.get("cedar") == simulation.checkpoints.store.get("cedar") != late
        # At a start, one that was away for the last charge may be the only one that answers: both are needed.
        cedar = simulation.silos["cedar"]
        cedar.restarts = True
        other.is_down = True
        cedar.kill()
        assert ask(simulation, QUESTION)["cedar"] == "unable"
        other.is_down = False
        assert ask(simulation, QUESTION)["cedar"] == "answered"

    tolerate(second, "max_unreachable = 1\nmax_dishonest = 0")
    run(second, story)


def test_more_is_tolerated_than_there_are_aggregators_and_no_silo_starts(second: Path) -> None:
    def story(simulation: Simulation, _: LocalCheckpoints) -> None:
        with pytest.raises(LedgerError, match="needs 3 aggregators, the roster has 2"):
            simulation.silos["aspen"].start()

    tolerate(second, "max_unreachable = 1\nmax_dishonest = 1")
    run(second, story)


def test_an_aggregator_that_lost_its_checkpoints_does_not_count_until_the_owner_says_so(exact: Simulation) -> None:
    ask(exact, QUESTION)
    cedar = exact.silos["cedar"]
    cedar.restarts = True
    shutil.rmtree(exact.path / "aggregator" / "heads")
    (exact.path / "aggregator" / "heads").mkdir()
    assert ask(exact, QUESTION)["cedar"] == "answered", "it was compared, and hands over its newest"
    cedar.kill()
    assert ask(exact, QUESTION)["cedar"] == "answered", "it counts from the first that it kept"
    shutil.rmtree(exact.path / "aggregator" / "heads")
    (exact.path / "aggregator" / "heads").mkdir()
    cedar.kill()
    assert ask(exact, QUESTION)["cedar"] == "unable"
    assert "keeps no checkpoint of this ledger" in (cedar.policy.parent / "silo.log").read_text()
    ledger_of(cedar).record(events.Excused(aggregator="other", by="owner"))
    assert ask(exact, QUESTION)["cedar"] == "unable"
    ledger_of(cedar).record(events.Excused(aggregator=aggregator_of(exact.server).name, by="owner"))
    assert ask(exact, QUESTION)["cedar"] == "answered"
    ledger_of(cedar).audit()


# The journal of the aggregator


def journal_file(simulation: Simulation) -> Path:
    (file,) = (simulation.path / "aggregator" / "rounds").iterdir()
    return file


def test_what_silos_are_told_is_on_disk_before_they_are_told(exact: Simulation) -> None:
    checked = list[str]()

    def look(step: str, arguments: tuple[bytes, ...]) -> None:
        if step == "share":
            assert records(journal_file(exact).read_bytes()) == [ShareKeys.decode(arguments[1]).manifest]
        elif step in ("contribute", "agree"):
            assert records(journal_file(exact).read_bytes())[-1] == arguments[1]
        checked.append(step)

    for silo in exact.silos.values():
        silo.before = look
    assert set(ask(exact, QUESTION).values()) == {"answered"}
    assert {"share", "contribute", "agree"} <= set(checked)


@pytest.mark.slow
@pytest.mark.parametrize("step", ["share", "ready", "contribute", "agree", "open_shares"])
def test_an_aggregator_that_was_killed_ends_its_rounds_when_it_is_back(
    exact: Simulation, price: int, tmp_path: Path, step: str
) -> None:
    """What never contributed is given back, what contributed stays charged; the next question is answered."""
    kept = tmp_path / "kept"

    def killed(called: str, _: tuple[bytes, ...]) -> None:
        if called == step and not kept.exists():
            shutil.copytree(exact.path / "aggregator" / "rounds", kept)
            for silo in exact.silos.values():
                silo.is_cut_off = True

    for silo in exact.silos.values():
        silo.before = killed
    with pytest.raises(RoundError):
        ask(exact, QUESTION)
    assert all(len(rounds_of(silo)) == 1 for silo in exact.silos.values())
    shutil.rmtree(exact.path / "aggregator" / "rounds")
    shutil.copytree(kept, exact.path / "aggregator" / "rounds")
    journal = RoundJournal(exact.path / "aggregator" / "rounds")
    hub, asked = aggregator_of(exact.server), list[str]()

    def back(called: str, _: tuple[bytes, ...]) -> None:
        asked.append(called)
        if len(asked) > len(exact.silos):  # not at the first try
            for silo in exact.silos.values():
                silo.is_cut_off = False

    for silo in exact.silos.values():
        silo.before = back
    asyncio.run(end_left_rounds(hub, exact.silos, journal, exact.silos["aspen"].clock, again_s=0.01))
    assert not any(rounds_of(silo) for silo in exact.silos.values())
    assert not list((exact.path / "aggregator" / "rounds").iterdir())
    often = 2 if step in ("agree", "open_shares") else 1
    assert spent(exact) == dict.fromkeys(exact.silos, often * price)
    exact.mend()
    assert set(ask(exact, QUESTION).values()) == {"answered"}


def test_a_round_that_has_expired_is_not_asked_for_for_ever(exact: Simulation) -> None:
    place = exact.path / "aggregator" / "rounds"

    def stop(step: str, _: tuple[bytes, ...]) -> None:
        if step == "ready":
            shutil.copytree(place, place.with_name("kept"), dirs_exist_ok=True)
            exact.silos["cedar"].is_cut_off = True

    exact.silos["cedar"].before = stop
    ask(exact, QUESTION)
    journal = RoundJournal(place.with_name("kept"))
    (left,) = journal.left(aggregator_of(exact.server).name, aggregator_of(exact.server).signing.public)
    assert set(left.silos) == set(exact.silos)
    late = end_left_rounds(aggregator_of(exact.server), exact.silos, journal, lambda: left.expires_at, again_s=3600)
    asyncio.run(late)
    assert not list(place.with_name("kept").iterdir())


def test_a_journal_of_somebody_else_or_torn_at_its_beginning_is_no_round(exact: Simulation, tmp_path: Path) -> None:
    def keep(step: str, _: tuple[bytes, ...]) -> None:
        if step == "agree":
            shutil.copy(journal_file(exact), tmp_path / "one.round")

    exact.silos["aspen"].before = keep
    ask(exact, QUESTION)
    hub, whole = aggregator_of(exact.server), (tmp_path / "one.round").read_bytes()
    assert len(records(whole)) == 4
    assert RoundJournal(tmp_path).left(hub.name, hub.signing.public)
    assert not RoundJournal(tmp_path).left(hub.name, SigningKey(Secret(bytes(32))).public)
    for length in (0, 3, 4, 8, 100):
        (tmp_path / "one.round").write_bytes(whole[:length])
        assert not RoundJournal(tmp_path).left(hub.name, hub.signing.public)
        assert not (tmp_path / "one.round").exists()
    first = 8 + len(records(whole)[0])
    (tmp_path / "one.round").write_bytes(whole[: first + 7])
    assert RoundJournal(tmp_path).left(hub.name, hub.signing.public), "what follows may be torn"
