"""What [training.networks] says, loosens and denies: by the request and the policy alone, at each limit exactly."""

import re

import pytest

from crypto.rounds.manifest import Recipient
from crypto.sealing import PUBLIC_BYTES
from policies.budget.ledger import Spending
from policies.decision.decide import decide
from policies.document.consistency import warnings
from policies.document.describe import worded_policy
from policies.document.diff import compare
from policies.document.load import parse
from policies.document.policy import Policy
from policies.errors import PolicyFileError
from policies.networks.demand import MB, OWN_BYTES, Rounds, demand_of, scored_at_once
from policies.networks.graph import Graph
from policies.requests.denials import Denial
from policies.requests.network_steps import network_of
from policies.requests.networks import graph_of
from policies.requests.request import Request
from policies.units import ROWS_UP_TO
from tests.cases import every
from tests.harness.example_policy import NOW, POLICY
from tests.rounds.computation_examples import evaluation, exact, with_options

SPENT = Spending(0, (), 0)
TRAINED = POLICY.replace('computations = ["query"]', 'computations = ["query", "mlp", "evaluation"]')
TRAINING = '\n[training]\nmax_rounds = 5\nclip_norm = 10\ndp = "optional"\nmax_rho_per_run = 0.5\n'
ROWS = 1024


def silo(*keys: str, section: bool = True, rows: int | None = ROWS, more: str = "") -> Policy:
    """Return a policy that trains an mlp, with these lines in [training.networks]."""
    stated = "" if rows is None else f"\nrows_up_to = {rows}"
    text = TRAINED.replace('uri  = "visits.parquet"', f'uri  = "visits.parquet"\nrelease = "exact"{stated}')
    text = text.replace('release = ["query-result"]', 'release = ["query-result", "model", "metrics"]')
    section_text = "\n".join(("[training.networks]", *keys, "")) if section else ""
    return parse((text + TRAINING + section_text + more).encode(), "policy.toml")


def asked(hidden: str = "8", **options: str) -> Request:
    return with_options(exact("mlp", "smoker", "age", "ward"), hidden=hidden, **options)


def of_networks(by: Policy, request: Request) -> dict[str, Denial]:
    """Return the denials of networks, by their codes."""
    if request.plan.training is not None:
        silos = tuple(Recipient(name=name, key=bytes(PUBLIC_BYTES)) for name in request.silos)
        request = request.model_copy(update={"recipients": silos})
    found = decide(by, request, bytes(32), SPENT, NOW)
    assert "RECIPIENT_CLOSED" not in {one.code for one in found}
    return {one.code: one for one in found if one.rule.startswith("training.networks")}


def graph(request: Request) -> Graph:
    step = network_of(request)
    assert step is not None
    return graph_of(step.task(request.table))


def test_without_the_section_every_network_is_denied_with_what_to_do() -> None:
    (denial,) = of_networks(silo(section=False), asked()).values()
    assert (denial.code, denial.rule) == ("NETWORK_CLOSED", "training.networks")
    assert "mlp" in denial.message
    assert "[training.networks]" in denial.remedy
    assert not of_networks(silo(), asked())


def test_a_limit_holds_just_above_and_not_just_below() -> None:
    request = asked(epochs="3", batch="16")
    found = demand_of(graph(request), Rounds(ROWS, are_rows_known=True, epochs=3, batch=16))
    for key, code, value in (
        ("max_weights", "MAX_WEIGHTS", found.weights),
        ("max_flops", "MAX_FLOPS", found.flops),
    ):
        assert not of_networks(silo(f"{key} = {value}"), request), key
        (denial,) = of_networks(silo(f"{key} = {value - 1}"), request).values()
        assert (denial.code, denial.rule) == (code, f"training.networks.{key}")
        assert f"{value:,}" in denial.message
        assert f"{value - 1:,}" in denial.message
        named = re.search(rf"{key} = (\d+)", denial.remedy)
        assert named is not None
        assert not of_networks(silo(f"{key} = {named[1]}"), request), "the remedy works"


def test_a_limit_of_memory_holds_just_above_and_not_just_below() -> None:
    request = asked("2048,1024", batch="4096")
    found = demand_of(graph(request), Rounds(ROWS, are_rows_known=True, batch=4096))
    assert found.memory_mb > 512
    wide = ("max_weights = 16777216",)
    assert not of_networks(silo(*wide, f"max_memory_mb = {found.memory_mb}"), request)
    (denial,) = of_networks(silo(*wide, f"max_memory_mb = {found.memory_mb - 1}"), request).values()
    assert (denial.code, denial.rule) == ("MAX_MEMORY", "training.networks.max_memory_mb")
    assert f"max_memory_mb = {found.memory_mb}" in denial.remedy


def test_rows_that_no_policy_states_are_as_many_as_the_program_says() -> None:
    request = asked()
    at_most = demand_of(graph(request), Rounds(ROWS_UP_TO, are_rows_known=False, batch=32)).flops
    (denial,) = of_networks(silo(f"max_flops = {at_most - 1}", rows=None), request).values()
    assert f"{ROWS_UP_TO:,} rows" in denial.message
    assert "rows_up_to of visits" in denial.remedy
    assert not of_networks(silo(f"max_flops = {at_most - 1}"), request)


def test_the_operations_of_a_round_are_computed_by_hand() -> None:
    request = asked("8", epochs="3", batch="16")
    made = graph(request)
    forward, weights = made.cost.flops, made.count
    found = demand_of(made, Rounds(ROWS, are_rows_known=True, epochs=3, batch=16))
    assert weights == 3 * 8 + 8 + 8 + 1
    assert found.flops == ROWS * forward + 3 * (ROWS // 16) * (16 * 3 * forward + 12 * weights)
    doubled = demand_of(made, Rounds(ROWS, are_rows_known=True, epochs=3, batch=16, models=2))
    assert doubled.flops == 2 * found.flops
    judged = demand_of(made, Rounds(ROWS, are_rows_known=True, epochs=0, batch=16))
    assert judged.flops == ROWS * forward
    private = demand_of(made, Rounds(ROWS, are_rows_known=True, batch=16, is_private=True))
    assert private.flops == ROWS * (5 * forward + 12 * weights)
    assert found.memory_bytes > OWN_BYTES
    unknown = demand_of(made, Rounds(ROWS, are_rows_known=False, epochs=3, batch=16))
    assert unknown.memory_bytes < found.memory_bytes
    assert found.memory_mb == -(-found.memory_bytes // MB)
    assert 1 <= scored_at_once(made) <= 4096


def test_a_judgement_is_held_against_the_limits_too() -> None:
    request = evaluation(asked("64", epochs="5"), "accuracy")
    step = request.plan.judged
    assert step is not None
    of_one = demand_of(graph_of(step.task(request.table)), Rounds(ROWS, are_rows_known=True, epochs=0, batch=32)).flops
    assert not of_networks(silo(f"max_flops = {of_one}"), request)
    assert set(of_networks(silo(f"max_flops = {of_one - 1}"), request)) == {"MAX_FLOPS"}
    assert set(of_networks(silo(section=False), request)) == {"NETWORK_CLOSED"}


def test_a_great_operation_on_few_weights_is_refused_before_rows() -> None:
    """As many epochs as a job may have take more than the policy allows, whatever the rows are."""
    request = asked("256,256", epochs="100", batch="1")
    assert set(of_networks(silo(rows=None), request)) == {"MAX_FLOPS"}


@every(
    ("line", "text"),
    [
        ('allow = "any"', "registered"),
        ("max_weights = 16777217", "16777216"),
        ("max_weights = 0", "1"),
        ("max_memory_mb = 511", "512"),
        ("max_seconds = 3601", "3600"),
        ("max_steps = 5", "max_steps"),
    ],
)
def test_what_cannot_stand_in_the_section_is_said(line: str, text: str) -> None:
    with pytest.raises(PolicyFileError, match=text):
        silo(line)


@every(
    ("old", "new", "effect"),
    [
        ('allow = "registered"', 'allow = "approved"', "loosens"),
        ('allow = "approved"', 'allow = "any-graph"', "loosens"),
        ('allow = "any-graph"', 'allow = "registered"', "tightens"),
        ("max_weights = 10", "max_weights = 11", "loosens"),
        ("max_flops = 11", "max_flops = 10", "tightens"),
        ("max_memory_mb = 600", "max_memory_mb = 601", "loosens"),
        ("max_seconds = 9", "max_seconds = 8", "tightens"),
    ],
)
def test_what_loosens(old: str, new: str, effect: str) -> None:
    (change,) = compare(silo(old), silo(new))
    assert change.effect == effect


def test_the_section_itself_opens() -> None:
    (change,) = compare(silo(section=False), silo())
    assert (change.effect, change.path) == ("loosens", ("training", "networks"))
    (change,) = compare(silo(), silo(section=False))
    assert change.effect == "tightens"


def test_the_device_loosens_nothing() -> None:
    (change,) = compare(silo(more='[compute]\ndevice = "cpu"\n'), silo(more='[compute]\ndevice = "auto"\n'))
    assert change.effect == "neither"


def test_a_policy_says_in_words_which_networks_it_trains() -> None:
    def told(of: Policy) -> str:
        return " ".join(sentence for _, sentences in worded_policy(of) for sentence in sentences)

    assert "No network is trained." in told(silo(section=False))
    assert "the families that the program ships are trained, and no others" in told(silo())
    assert "at most 1,000,000 weights" in told(silo())
    assert "packed files that a person named here has signed" in told(silo('allow = "approved"'))
    assert "whatever packed file an analyst sends" in told(silo('allow = "any-graph"'))
    assert "on a CUDA device, where it finds one" in told(silo(more='[compute]\ndevice = "auto"\n'))


def test_an_owner_is_warned_of_what_no_request_gets() -> None:
    def texts(of: Policy) -> str:
        return " ".join(one.text for one in warnings(of))

    assert "mlp: without [training.networks]" in texts(silo(section=False))
    assert "training.networks" not in texts(silo())
    assert "nobody is in [people]" in texts(silo('allow = "approved"'))
