"""Attack stories on the people who approve: an analyst shows them less than they sign, on real silos and ledgers."""

import json
from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest

import silo_node.owner.cli
from analyst.demo.hospitals import PURPOSE
from analyst.errors import DeniedError
from policies.document.load import load
from policies.requests.logistic import LogisticStep
from policies.requests.request import Request
from policies.requests.training import START
from policies.units import DAY_S
from silo_node.errors import SiloError
from silo_node.owner.console import Console
from silo_node.owner.pending import SHOWN, decide_on, requests_of
from tests.harness.inside import ledger_of
from tests.harness.owner_home import NOW, PEOPLE, OwnerHome, ask, founded_with_people, with_people
from tests.harness.simulator import Simulation, no_noise, simulate

DPO, OWNER, _ = PEOPLE
COUNT = "SELECT COUNT(*) AS n FROM lung"
# Cheap requests need nobody, others do; more of them than the demo allows in a day.
THRESHOLD = """
[[budget.limits]]
purpose = "health-research"
window = "calendar-month"
rho = 0.2

{people}
[[approvals]]
when = {{ rho_at_least = 0.01 }}
need = 1
of = ["dpo@aspen.example"]
expires_hours = 72
"""


@pytest.fixture
def owner(founded: Path, tmp_path: Path) -> OwnerHome:
    return founded_with_people(founded, tmp_path)


@pytest.fixture
def thrifty(home: Path) -> Iterator[Simulation]:
    """A running federation in which people are asked from rho 0.01 on."""
    for silo in (home / "silos").iterdir():
        with_people(home, silo.name, THRESHOLD)
    with simulate(home, noise=no_noise) as simulation:
        yield simulation


def shown(owner: OwnerHome, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert silo_node.owner.cli.main(["requests", "--policy", str(owner.policy), "--all", *arguments]) == 0
    return capsys.readouterr().out


def narrowed(request: Request, low: int) -> Request:
    """Return a request in which the bounds of `weight_loss` are two neighbouring numbers."""
    columns = tuple(
        one.model_copy(update={"low": low, "high": low + 1}) if one.name == "weight_loss" else one
        for one in request.table.columns
    )
    return request.model_copy(update={"table": request.table.model_copy(update={"columns": columns})})


def refused(simulation: Simulation, request: Request) -> dict[str, str]:
    with pytest.raises(DeniedError) as caught:
        simulation.federation.submit(request)
    return {denial.code: denial.message for denial in caught.value.denials["aspen"]}


@pytest.mark.parametrize("low", [20, 40, 60])
def test_no_silo_counts_whoever_lies_above_a_bound_that_the_analyst_chose(exact: Simulation, low: int) -> None:
    federation = exact.federation
    _, whole = federation.prepare("SELECT SUM(weight_loss) AS s FROM lung", purpose=PURPOSE, epsilon=1)
    assert list(refused(exact, narrowed(whole, low))) == ["COLUMN_ROLE"]
    assert exact.spent("aspen") == 0
    federation.submit(whole)
    assert exact.spent("aspen") == whole.micro_rho


def test_a_narrow_measure_that_a_policy_allows_is_shown_as_what_it_is(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    owners = {}
    for silo in (home / "silos").iterdir():
        owners[silo.name] = with_people(home, silo.name)
        policy = silo / "policy.toml"
        policy.write_text(policy.read_text().replace("bounds = [-30, 70]", "bounds = [-30, 70], narrow = true"))
    with simulate(home, noise=no_noise) as simulation:
        question = "SELECT SUM(weight_loss) AS s FROM lung"
        _, whole = simulation.federation.prepare(question, purpose=PURPOSE, epsilon=1)
        assert list(refused(simulation, narrowed(whole, 20))) == ["APPROVAL_AWAITED"]
    text = shown(owners["aspen"], capsys)
    assert "  column weight_loss: int, 20 to 21 by 1; the policy has: int, -30 to 70 by 1\n" in text


def run_of(steps: int, owner: OwnerHome) -> str:
    plan = LogisticStep(run=bytes(16), step=0, steps=steps, after=START, label="smoker", release="private",
                        features=("age",), learning_rate="1", clip="1")  # fmt: skip
    return ask(owner, plan=plan).subject.hex()


def test_people_see_the_price_of_the_whole_run_at_every_place(
    owner: OwnerHome, capsys: pytest.CaptureFixture[str]
) -> None:
    """The price of one step of 20 was shown: 0.02 of 0.4."""
    name = run_of(20, owner)
    text = shown(owner, capsys)
    assert "  price: rho 0.400000, epsilon " in text
    assert "20 steps at rho 0.020000" in text
    (one,) = json.loads(shown(owner, capsys, "--format", "json"))
    assert (one["request"], one["rho"]) == (name, 0.4)
    with closing(owner.open()) as store:
        page = Console(owner.policy, store, owner.signer(), None, lambda: NOW).page("/x/", "n")
    assert "rho 0.400000, epsilon " in page
    assert "learning_rate 1, momentum 0, clip 1, local_steps 1" in page
    assert (page.count(name), page.count(name[:SHOWN])) == (1, 3), "its name, also in the log, and the hash of its text"


def test_the_text_that_is_signed_is_shown_and_has_the_name(
    owner: OwnerHome, capsys: pytest.CaptureFixture[str]
) -> None:
    waiting = ask(owner)
    (one,) = json.loads(shown(owner, capsys, "--format", "json"))
    assert sha256(one["signed"].encode()).digest() == waiting.subject
    assert Request.decode(one["signed"].encode()).micro_rho == 20_000
    text = shown(owner, capsys, "--signed")
    assert f"  signed text: {one['signed']}\n" in text
    with closing(owner.open()) as store:
        page = Console(owner.policy, store, owner.signer(), None, lambda: NOW).page("/x/", "n")
    assert waiting.subject.hex() in page
    assert "&#34;micro_rho&#34;:20000" in page


@pytest.mark.parametrize("digits", [8, 12, SHOWN - 1])
def test_no_name_decides_that_an_analyst_could_give_to_two_requests(owner: OwnerHome, digits: int) -> None:
    """Two requests of one name of 12 digits cost 2^24 hashes, and with one at each of two silos nobody saw it."""
    waiting = ask(owner, now=NOW)
    policy = load(owner.policy).policy
    with closing(owner.open()) as store:
        with pytest.raises(SiloError, match=f"by at least {SHOWN} digits"):
            decide_on(policy, store, DPO, owner.keys[DPO], waiting.subject.hex()[:digits], "approve", NOW)
        assert store.verdicts(waiting.subject) == ()
        (one,) = requests_of(policy, store, NOW)
        assert one.name == waiting.subject.hex()[:SHOWN]
        assert SHOWN >= 32
        decide_on(policy, store, DPO, owner.keys[DPO], one.name, "approve", NOW)
        log = [entry.event for entry in store.entries(2)]
    assert all(getattr(event, "subject", waiting.subject) == waiting.subject for event in log)


def test_many_cheap_requests_are_no_way_below_a_threshold(thrifty: Simulation) -> None:
    federation = thrifty.federation
    questions = [federation.prepare(COUNT, purpose=PURPOSE, epsilon=0.5)[1] for _ in range(3)]
    price = questions[0].micro_rho
    assert 5_000 < price < 10_000
    federation.submit(questions[0])
    assert list(refused(thrifty, questions[1])) == ["APPROVAL_AWAITED"], "with what was asked before it is more"
    assert thrifty.spent("aspen") == price
    policy = load(thrifty.silos["aspen"].policy).policy
    (one,) = requests_of(policy, ledger_of(thrifty.silos["aspen"]), federation.now())
    assert (one.status, one.people) == ("waiting", (DPO,))


def test_a_threshold_counts_anew_in_the_next_window(home: Path) -> None:
    for silo in (home / "silos").iterdir():
        with_people(home, silo.name, THRESHOLD)
    now = [float(NOW)]
    with simulate(home, noise=no_noise, clock=lambda: now[0]) as simulation:
        federation = simulation.federation
        federation.submit(federation.prepare(COUNT, purpose=PURPOSE, epsilon=0.5)[1])
        assert list(refused(simulation, federation.prepare(COUNT, purpose=PURPOSE, epsilon=0.5)[1])) == [
            "APPROVAL_AWAITED"
        ]
        now[0] += 31 * DAY_S
        federation.submit(federation.prepare(COUNT, purpose=PURPOSE, epsilon=0.5)[1])


def test_what_was_given_back_does_not_count_towards_a_threshold(thrifty: Simulation) -> None:
    federation = thrifty.federation
    first, second = (federation.prepare(COUNT, purpose=PURPOSE, epsilon=0.5)[1] for _ in range(2))
    for silo in thrifty.silos.values():
        silo.dies_before = "share"
    with pytest.raises(Exception, match="no answer"):
        federation.submit(first)
    for silo in thrifty.silos.values():
        silo.is_dead, silo.actor = False, silo.start()
    assert thrifty.spent("aspen") == 0
    federation.submit(second)
