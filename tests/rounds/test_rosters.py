"""Attack stories of who takes part: neither analyst nor aggregator picks a roster in which a silo stands alone."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from aggregator.errors import SilosMissingError
from analyst.demo.hospitals import PURPOSE
from analyst.errors import DeniedError
from crypto.errors import ProtocolError
from crypto.rounds.bounds import fewest_survivors, noise_shares, why_infeasible, why_too_few
from crypto.rounds.messages import Away, SurvivorSet
from crypto.wire import digest_of, sign, unverified, verify
from policies.document.load import load
from policies.errors import AlreadyChargedError
from policies.requests.denials import Denial, Refusal
from policies.requests.replaces import Replaced, Replaces
from policies.requests.request import Request
from silo_node.rounds import proposal, states, steps
from tests.harness.example_policy import NOW
from tests.harness.inside import aggregator_of
from tests.harness.many_silos import Many
from tests.harness.simulator import Simulation, no_noise, simulate

QUESTION = "SELECT COUNT(*) AS n FROM lung"
PICKED = ("aspen", "birch", "cedar")


@contextmanager
def federation(home: Path, *edits: tuple[str, str], only: str = "*") -> Iterator[Simulation]:
    """Run the hospitals with policies in which the first match of each pattern was replaced, in `only` some of them."""
    for path in home.glob(f"silos/{only}/policy.toml"):
        text = path.read_text()
        for pattern, by in edits:
            text, count = re.subn(pattern, by, text, count=1)
            assert count == 1
        path.write_text(text)
    with simulate(home, noise=no_noise) as running:
        yield running


def undated(_: str) -> proposal.Freshness:
    return proposal.Freshness(None, None)


def asking(simulation: Simulation, *silos: str, **changes: Any) -> Request:
    request = simulation.federation.prepare(QUESTION, purpose=PURPOSE, epsilon=1, counts_cut=False)[1]
    return Request.model_validate(dict(request) | {"silos": silos or request.silos, "or_without": None} | changes)


def denials(simulation: Simulation, request: Request) -> dict[str, tuple[Denial, ...]]:
    """Send a request that gets no answer; return the reasons of the silos that refuse it. Nobody may be charged."""
    answer = simulation.federation.exchange(request)
    assert not isinstance(answer, bytes)
    assert not answer.message.charged
    assert {simulation.spent(silo) for silo in simulation.silos} == {0}
    keys = simulation.federation.config.roster.silo_keys
    signed = [verify(envelope, Refusal, keys) for envelope in answer.message.refusals]
    return {one.signer: one.message.denials for one in signed}


# The analyst picks


def test_three_of_five_with_two_colluders_beside_one_victim(home: Path) -> None:
    # Hope: birch and cedar take their own numbers off the sum of three, and aspen's total is left at half the noise.
    with federation(home, (r"min_silos      = 3", "min_silos      = 5")) as simulation:
        found = denials(simulation, asking(simulation, *PICKED))
        assert set(found) == set(PICKED), "each by itself, before anything is set aside"
        assert {one.code for reasons in found.values() for one in reasons} == {"ROSTER"}
        assert {one.rule for reasons in found.values() for one in reasons} == {"disclosure.min_silos"}


def test_the_victim_alone_refuses_by_its_own_policy(home: Path) -> None:
    # Hope: the colluders' lax policies count for the victim too.
    for path in home.glob("silos/*/policy.toml"):
        path.write_text(path.read_text().replace("max_missing   = 1", "max_missing   = 0"))
    with federation(home, (r"min_silos      = 3", "min_silos      = 4"), only="aspen") as simulation:
        found = denials(simulation, asking(simulation, *PICKED))
        assert set(found) == {"aspen"}


def test_a_silo_that_names_whom_it_trusts_is_never_left_beside_others(home: Path) -> None:
    # Hope: the roster has the right size, and not the right members.
    with federation(home, (r"max_colluding = 1", 'must_include = ["maple"]\nmax_colluding = 1'), only="aspen") as one:
        found = denials(one, asking(one, "aspen", "birch", "cedar"))
        assert {reason.rule for reason in found["aspen"]} == {"disclosure.min_silos"}
        assert isinstance(one.federation.exchange(asking(one, "aspen", "birch", "cedar", "rowan")), bytes)
        assert one.spent("aspen") == 0, "it took no part"
        assert one.spent("birch") > 0


@pytest.mark.parametrize("step", ["propose", "share", "ready", "contribute"])
def test_whom_a_silo_needs_is_not_lost_on_the_way(home: Path, step: str) -> None:
    # Hope: maple is asked, and leaves the round at a later step, when aspen checks no more who is in.
    edit = (r"max_colluding = 1", 'must_include = ["maple"]\nmax_colluding = 1')
    with federation(home, edit, only="aspen") as simulation:
        simulation.silos["maple"].dies_before = step
        answer = simulation.federation.exchange(asking(simulation))
        if isinstance(answer, bytes):
            pytest.fail("a sum with aspen and without maple")
        assert answer.message.charged is (step == "contribute"), "before Go nobody is charged"


def test_an_aggregator_that_calls_a_needed_silo_dropped_gets_no_signature() -> None:
    # Hope: aspen is told that maple dropped out, after all have contributed.
    one = Many(5).round().until_contributed().part()
    manifest = one.composed.manifest.model_copy(update={"must_include": ("silo-004",)})
    survivors = one.parted.survivor_set.survivors
    without = one.parted.survivor_set.model_copy(update={"survivors": survivors[:4], "dropped": ("silo-004",)})
    state = replace(one.state("silo-000", states.Contributed), manifest=manifest)
    with pytest.raises(ProtocolError, match="takes no part without silo-004"):
        steps.agree(
            one.silo("silo-000"),
            state,
            one.many.members["silo-000"].ledger,
            NOW,
            sign(without, "hub", one.many.aggregator.signing),
        )


@pytest.mark.parametrize(
    ("pattern", "by"),
    [
        (r"min_silos      = 3", "min_silos      = 6"),
        (r"max_colluding = 1", "max_colluding = 3"),
        (r"max_missing   = 1", "max_missing   = 2"),
        (r"max_colluding = 1", 'must_include = ["nobody"]\nmax_colluding = 1'),
    ],
    ids=["more silos than there are", "more colluders than five bear", "more missing than five bear", "a stranger"],
)
def test_a_rule_that_cannot_be_kept_is_refused_at_no_cost(home: Path, pattern: str, by: str) -> None:
    # Hope: a rule that no roster meets is dropped in silence, or found after the charge.
    with federation(home, (pattern, by)) as simulation:
        found = denials(simulation, asking(simulation))
        assert set(found) == set(simulation.silos)
        assert {one.code for reasons in found.values() for one in reasons} == {"ROSTER"}


def test_one_silos_rule_that_cannot_be_kept_leaves_the_others_their_answer(home: Path) -> None:
    # Hope: one policy ends every question of the federation.
    with federation(home, (r"min_silos      = 3", "min_silos      = 9"), only="aspen") as simulation:
        assert isinstance(simulation.federation.exchange(asking(simulation)), bytes)
        assert simulation.spent("aspen") == 0


def test_names_that_refuse_do_not_fill_a_roster(home: Path) -> None:
    # Hope: five are asked so that the rules of five hold; two of them refuse, and the sum of three opens.
    with federation(home, (r"min_silos      = 3", "min_silos      = 9"), only="[mr]*") as simulation:
        request = asking(simulation)
        found = denials(simulation, request)
        assert set(found) == {"maple", "rowan"}


def test_names_that_are_not_there_do_not_fill_a_roster(home: Path) -> None:
    # Hope: silos that do not exist are asked too.
    with federation(home) as simulation:
        request = asking(simulation, *sorted((*PICKED, "ghost", "phantom")))
        answer = simulation.federation.exchange(request)
        assert not isinstance(answer, bytes)
        assert {simulation.spent(silo) for silo in simulation.silos} == {0}
    with pytest.raises(ValueError, match="silos"):
        asking(simulation, "aspen", "aspen", "birch", "cedar")


# The aggregator leaves out


def test_one_left_out_before_the_manifest_and_one_dropped_after_it() -> None:
    # Hope: with max_missing = 1 and five asked, three are summed.
    many = Many(5)
    one = many.round().propose(many.names[:4]).compose().share().ready().contribute([many.names[3]])
    with pytest.raises(SilosMissingError, match="3 of the 5 silos that were asked are left, and at least 4 must be"):
        one.part()
    # An aggregator that does not check gets no signature of any silo.
    survivors = tuple({"silo": name, "contribution": one.headers[name].digest} for name in many.names[:3])
    forged = SurvivorSet.model_validate(
        {"manifest_hash": one.manifest_hash, "survivors": survivors, "dropped": (many.names[3],)}
    )
    for name in many.names[:3]:
        with pytest.raises(ProtocolError, match="at least 4 must be"):
            one.sign(name, sign(forged, "hub", many.aggregator.signing))


def test_two_left_out_before_the_manifest() -> None:
    # Hope: the aggregator composes a round of the three that suit it.
    many = Many(5)
    with pytest.raises(ProtocolError, match="at least 4 must be"):
        many.round().propose(many.names[:3]).compose()


def test_one_request_is_answered_in_one_roster() -> None:
    # Hope: of eight silos two halves are summed, so that one charge gives two partial sums.
    many = Many(8, missing=2)
    asked = many.request()
    for half in (many.names[:4], many.names[4:]):
        with pytest.raises(ProtocolError, match="at least 6 must be"):
            many.round(asked).propose(half).compose()
    # Two rosters that are large enough share silos, and those begin one charge of one request.
    first = many.round(asked, b"the first round ").propose(many.names[:6]).compose().share().ready()
    second = many.round(asked, b"the second round")
    for name in many.names[2:6]:
        member, asked_again = many.members[name], (NOW, second.round_id, second.proposed.envelope)
        state, reply = proposal.propose(member.silo, member.ledger, undated, *asked_again)
        assert state is None
        assert [one.code for one in unverified(reply, Refusal).denials] == ["ALREADY_ANSWERED"]
    assert first.contribute().part().agree().open().answer() == many.sum_of(many.names[:6])


def test_two_rounds_side_by_side_begin_one_charge() -> None:
    # Hope: both rosters are proposed before either is charged.
    many = Many(8, missing=2)
    asked = many.request()
    first = many.round(asked, b"the first round ").propose(many.names[:6]).compose().share()
    second = many.round(asked, b"the second round").propose(many.names[2:]).compose().share()
    first.ready()
    with pytest.raises(AlreadyChargedError):
        second.ready()


def test_an_aggregator_and_an_analyst_shrink_a_roster_by_words_of_absence(home: Path) -> None:
    # Hope: the aggregator signs that two honest silos were away, and the rest answers beside two colluders.
    with federation(home, (r"min_silos      = 3", "min_silos      = 4")) as simulation:
        first, hub = asking(simulation), aggregator_of(simulation.server)
        away = sign(
            Away(federation=hub.federation, request_hash=digest_of(first), silos=("maple", "rowan")),
            hub.name,
            hub.signing,
        )
        replaces = Replaces(
            requests=(Replaced(nonce=first.nonce, request_hash=digest_of(first)),),
            left_out=("maple", "rowan"),
            evidence=(away,),
        )
        found = denials(simulation, asking(simulation, *PICKED, replaces=replaces, or_without=2))
        assert set(found) == set(PICKED)
        assert {one.rule for reasons in found.values() for one in reasons} == {"disclosure.min_silos"}


def test_a_roster_that_was_answered_is_not_asked_again_smaller(exact: Simulation) -> None:
    # Hope: the same question without cedar, at one price: the difference of the two sums is cedar's total.
    first, hub = asking(exact), aggregator_of(exact.server)
    assert isinstance(exact.federation.exchange(first), bytes)
    paid = {silo: exact.spent(silo) for silo in exact.silos}
    away = sign(Away(federation=hub.federation, request_hash=digest_of(first), silos=("cedar",)), hub.name, hub.signing)
    replaces = Replaces(
        requests=(Replaced(nonce=first.nonce, request_hash=digest_of(first)),), left_out=("cedar",), evidence=(away,)
    )
    rest = tuple(silo for silo in exact.silos if silo != "cedar")
    answer = exact.federation.exchange(asking(exact, *rest, replaces=replaces, or_without=1))
    assert not isinstance(answer, bytes)
    assert len(answer.message.refusals) == 4
    assert {silo: exact.spent(silo) for silo in exact.silos} == paid


# What follows from the numbers


def test_no_roster_of_a_request_has_less_noise_than_is_priced() -> None:
    # Hope: some loss of silos leaves honest noise below the variance that the ledger charged.
    for asked, least, colluding, missing in product(range(3, 40), (3, 5, 9), range(1, 9), range(9)):
        if why_infeasible(asked, least, colluding, missing):
            continue
        shares = noise_shares(asked, colluding, missing)
        for present in range(asked + 1):
            if not why_too_few(present, asked, least, colluding, missing):
                assert present - colluding >= shares >= 2
                assert present >= fewest_survivors(asked, least, colluding, missing)


def test_no_two_rosters_of_one_request_are_without_an_honest_silo_in_both() -> None:
    # Hope: two sums of one request, of which no honest silo knows both.
    for asked, colluding, missing in product(range(3, 60), range(1, 9), range(9)):
        if not why_infeasible(asked, 3, colluding, missing):
            least = fewest_survivors(asked, 3, colluding, missing)
            assert 2 * least - asked > colluding


# What the owner is told


@pytest.mark.parametrize(
    ("least", "colluding", "include", "is_warned"),
    [
        (3, 1, (), True),
        (4, 1, (), False),
        (4, 2, (), True),
        (5, 2, (), False),
        (3, 1, ("birch", "maple"), True),
        (3, 1, ("birch", "cedar", "maple"), False),
    ],
)
def test_check_policy_warns_where_an_analyst_can_leave_a_silo_alone(
    home: Path, least: int, colluding: int, include: tuple[str, ...], is_warned: bool
) -> None:
    path = home / "silos" / "aspen" / "policy.toml"
    names = ", ".join(f'"{one}"' for one in include)
    text = path.read_text().replace("min_silos      = 3", f"min_silos      = {least}")
    text = text.replace("max_colluding = 1", f"max_colluding = {colluding}\nmust_include = [{names}]")
    path.write_text(text)
    found = [line for line in load(path).warnings if "disclosure.min_silos" in line]
    assert bool(found) is is_warned
    if is_warned:
        assert f"take min_silos = {colluding + 3}" in found[0]


def test_a_question_that_no_silo_can_answer_says_which_rule(home: Path) -> None:
    # The analyst learns it before anything is paid, and from whom.
    with (
        federation(home, (r"min_silos      = 3", "min_silos      = 6")) as simulation,
        pytest.raises(DeniedError, match="5 of 5 silos refuse: ROSTER"),
    ):
        simulation.federation.query(QUESTION, purpose=PURPOSE, epsilon=1)
