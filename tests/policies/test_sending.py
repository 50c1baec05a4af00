"""How long sending a long vector may take: by its length, the policy's [vectors] and the request, and nothing else."""

from itertools import product

import pytest

from crypto.backends.masking import MaskingScheme
from crypto.backends.scheme import CHUNK_VALUES, Shape
from crypto.rounds.committees import quorum_of
from crypto.rounds.manifest import MAX_SEND_S as MOST_STATED_S
from crypto.rounds.manifest import Recipient
from crypto.rounds.payload import piece_sizes, sum_sizes
from crypto.sealing import PUBLIC_BYTES
from policies.budget.ledger import Spending
from policies.decision.compiled import facts_of
from policies.decision.decide import decide
from policies.decision.sending import learned_bytes, sending_ms
from policies.document.describe import worded_policy
from policies.document.diff import compare
from policies.document.policy import Policy, Vectors
from policies.errors import PolicyFileError
from policies.requests.computations import slot_count
from policies.requests.denials import Denial
from policies.requests.exact import ExactStep, Setting
from policies.requests.logistic import LogisticStep
from policies.requests.query import CUT_SLOTS, Aggregate
from policies.requests.request import MAX_SLOTS, Request
from policies.requests.sending import STATE_BYTES, answered_s, at_rate, learned_s, longest_of, sent_of
from policies.requests.tables import TableColumn
from policies.requests.training import START
from policies.units import MAX_GATHER_S, MAX_SEND_S, SEND_S
from tests.harness.example_policy import NOW, Edit, plan, policy, request, table

SPENT = Spending(0, (), 0)
COUNT = (Aggregate(function="count", column=None, alias="n"),)
SIDES = (256, 300, 512, 1000)


def vectors(*lines: str) -> Policy:
    return policy(Edit("[disclosure]", "\n".join(("[vectors]", *lines, "[disclosure]"))))


def wide(rows: int, columns: int, **changes: object) -> Request:
    """Return a question of so many groups."""
    domains = ((*(f"v{number:04}" for number in range(count - 1)), "unknown") for count in (rows, columns))
    one, other = (
        TableColumn(name=name, type="string", domain=domain, unknown="unknown")
        for name, domain in zip(("ward", "grade"), domains, strict=True)
    )
    fields: dict[str, object] = {
        "table": table(columns=(one, other)),
        "plan": plan(where=None, group_by=("ward", "grade"), aggregates=COUNT),
    }
    return request(**fields | changes)


def denials(of: Policy, asked: Request) -> list[Denial]:
    """Return what a silo says of the length of a vector."""
    return [one for one in decide(of, asked, bytes(32), SPENT, NOW) if one.rule.startswith("vectors.")]


def training(room_mb: int) -> Policy:
    opens = Edit('computations = ["query"]', 'computations = ["query", "logistic-regression"]')
    section = (
        f"[vectors]\nmax_state_mb = {room_mb}\n[training]\nmax_rounds = 5\nclip_norm = 10\nmax_rho_per_run = 0.5\n"
    )
    return policy(opens, Edit("[disclosure]", f"{section}[disclosure]"))


def test_a_stated_time_is_the_bytes_at_the_rate_and_rises_with_the_length_alone() -> None:
    last = 0
    for rows, columns in product(SIDES, SIDES[1:]):
        asked = wide(rows, columns)
        sent = sent_of(asked)
        assert sent.values == slot_count(asked.plan, asked.table)
        assert 4 * sent.values <= sent.input_bytes <= 8 * sent.values + 64 * 1024, "words of 32 to 64 bits"
        for rate in (1_000, 12_345, 1_000_000, 10**9):
            milliseconds = sending_ms(vectors(f"bytes_per_second = {rate}"), asked)
            assert milliseconds == 1000 * -(-sent.input_bytes // rate)
    for columns in SIDES:
        now = sending_ms(policy(), wide(1000, columns)) or 0
        assert now >= last, "a longer vector takes no shorter time"
        last = now
    assert sending_ms(policy(), wide(1000, 1000)) is not None


def test_a_short_vector_and_any_other_backend_state_none() -> None:
    for asked in (request(), wide(200, 300), wide(256, 300, backend="shares")):
        sent = sent_of(asked)
        assert asked.backend == "shares" or sent.values <= CHUNK_VALUES
        assert not sent.is_long
        assert sending_ms(policy(), asked) is None
        assert (learned_s(asked), answered_s(asked)) == (0, 0)
        assert b"send_seconds" not in asked.encode()
    assert sent_of(wide(256, 257)).is_long, "one slot more than a chunk is long"


def test_what_a_recipient_waits_for_follows_from_the_bytes_of_the_sum() -> None:
    asked = wide(1000, 1000)
    sent = sent_of(asked)
    received = sent.sum_bytes + len(asked.silos) * sent.input_bytes
    assert learned_s(asked) == at_rate(received, sent.input_bytes, MAX_SEND_S) >= len(asked.silos) * MAX_SEND_S
    assert answered_s(asked) == SEND_S + MAX_GATHER_S + at_rate(sent.sum_bytes, sent.input_bytes, SEND_S)
    assert at_rate(10, 4, 3) == 8
    assert at_rate(10, 0, 3) == 0


@pytest.mark.parametrize("missing", [0, 1, 3])
def test_a_silo_is_sent_no_more_than_it_takes_to_learn_a_sum_as_long_as_its_policy_allows(missing: int) -> None:
    """The sum, and the masked inputs of as many silos as may be missing, or of one that proves nothing."""
    values = 40_000_000
    of = vectors(f"max_values = {values}")
    of = of.model_copy(update={"protection": of.protection.model_copy(update={"max_missing": missing})})
    for silos, limit in product((4, 100, 1000), (1, 2**20, 2**53)):
        scheme = MaskingScheme(Shape(values, silos, quorum_of(silos), limit))
        sent = sum(sum_sizes(scheme, silos, silos)) + max(1, missing) * sum(piece_sizes(scheme))
        assert sent <= learned_bytes(of)
    assert sent > 128 << 20, "which is what a link takes without a policy"


def test_a_vector_that_is_longer_than_the_policy_is_refused_and_each_remedy_works() -> None:
    asked, fewer = wide(300, 512), wide(300, 300)
    values = sent_of(asked).values
    (denial,) = denials(vectors(f"max_values = {values - 1}"), asked)
    assert (denial.code, denial.rule) == ("MAX_VALUES", "vectors.max_values")
    assert denial.message == f"the vector has {values:,} values, and this silo contributes at most {values - 1:,}"
    assert denial.remedy.endswith(f"for max_values = {values}")
    assert not denials(vectors(f"max_values = {values}"), asked)
    assert not denials(vectors(f"max_values = {values - 1}"), fewer)
    assert not denials(policy(), asked)
    assert Vectors().max_values == MAX_SLOTS + CUT_SLOTS, "what is asked without the key is answered as before"


def test_sending_that_takes_longer_than_the_request_waits_is_refused_and_each_remedy_works() -> None:
    slow = vectors("bytes_per_second = 10000")
    asked, fewer = wide(300, 1000), wide(256, 257)
    seconds, size = (sending_ms(slow, asked) or 0) // 1000, sent_of(asked).input_bytes
    assert seconds > SEND_S
    (denial,) = denials(slow, asked)
    assert (denial.code, denial.rule) == ("SEND_DEADLINE", "vectors.bytes_per_second")
    expected = f"sending {size:,} bytes takes up to {seconds:,} s at this silo's 10,000 bytes a second"
    assert denial.message == f"{expected}, and the request waits {SEND_S} s"
    assert denial.remedy == f"ask with --send-deadline {seconds}, or for fewer values"
    assert denials(slow, wide(300, 1000, send_seconds=seconds - 1))
    assert not denials(slow, wide(300, 1000, send_seconds=seconds))
    assert not denials(slow, fewer)
    assert not denials(policy(), asked)


def test_what_no_deadline_helps_needs_a_faster_link() -> None:
    asked = wide(1000, 1000, send_seconds=MAX_SEND_S)
    (denial,) = denials(vectors("bytes_per_second = 1000"), asked)
    least = -(-sent_of(asked).input_bytes // MAX_SEND_S)
    assert "--send-deadline" not in denial.remedy
    assert denial.remedy.endswith(f"for bytes_per_second = {least}")
    assert not denials(vectors(f"bytes_per_second = {least}"), asked)
    assert denials(vectors(f"bytes_per_second = {least - 1}"), asked)
    (denial,) = denials(vectors("bytes_per_second = 1000"), wide(1000, 1000))  # it waits less than an hour
    assert denial.remedy.endswith(f"for bytes_per_second = {least} and ask with --send-deadline {MAX_SEND_S}")


def test_a_state_beyond_the_room_of_a_run_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    step = LogisticStep(run=bytes(16), step=0, steps=2, after=START, release="private", label="smoker",
                        features=("age",), learning_rate="1", clip="1")  # fmt: skip
    recipients = tuple(Recipient(name=name, key=bytes(PUBLIC_BYTES)) for name in request().silos)
    asked = request(plan=step, recipients=recipients)
    assert not denials(training(1), asked)
    weights = 700_000
    monkeypatch.setattr(LogisticStep, "state_values", lambda self, slots: weights)
    needed = -(-STATE_BYTES * weights // 1_000_000)
    (denial,) = denials(training(needed - 1), asked)
    assert (denial.code, denial.rule) == ("MAX_STATE", "vectors.max_state_mb")
    expected = f"the state of this run takes up to {needed} MB here, and this silo keeps at most {needed - 1} of a run"
    assert denial.message == expected
    assert denial.remedy.endswith(f"for max_state_mb = {needed}")
    assert not denials(training(needed), asked)


def test_a_run_is_judged_at_its_first_step_by_its_longest_round() -> None:
    options = tuple(Setting(name=name, value=value) for name, value in (("bits", "17"), ("value_bits", "8")))
    step = ExactStep(family="hashed-logistic", run=bytes(16), step=0, steps=5, after=START, label="smoker",
                     features=("ward",), options=options)  # fmt: skip
    ward = TableColumn(name="ward", type="string", domain=("a", "unknown"), unknown="unknown")
    smoker = TableColumn(name="smoker", type="bool", low=0, high=1, step="1")
    recipients = tuple(Recipient(name=name, key=bytes(PUBLIC_BYTES)) for name in request().silos)
    fields: dict[str, object] = {"table": table(columns=(ward, smoker)), "micro_rho": 0, "recipients": recipients}
    asked = request(plan=step, **fields)
    later = request(plan=step.model_copy(update={"step": 1, "after": bytes([1]) * len(START)}), **fields)
    values = sent_of(later).values
    assert values > sent_of(asked).values
    assert longest_of(asked).values == values, "a run is judged by its longest round"
    assert longest_of(asked).input_bytes == max(sent_of(asked).input_bytes, sent_of(later).input_bytes)
    assert longest_of(later) == sent_of(later), "a later step is one round"
    assert facts_of(asked, 1).longest == longest_of(asked)


def test_a_request_that_waits_as_usual_has_the_bytes_that_it_had() -> None:
    assert request().sends_s == SEND_S
    other = request(send_seconds=400)
    assert Request.decode(other.encode()) == other
    for wrong in (0, MAX_SEND_S + 1):
        with pytest.raises(ValueError, match="send_seconds"):
            request(send_seconds=wrong)
    assert MAX_SEND_S == MOST_STATED_S, "what a request may wait an acceptance may state"


def test_what_lets_longer_vectors_be_asked_loosens() -> None:
    keys = {"max_values": (10_000, 20_000), "bytes_per_second": (10_000, 20_000), "max_state_mb": (10, 20)}
    for key, (less, more) in keys.items():
        small, large = (vectors(f"{key} = {value}") for value in (less, more))
        assert [(one.path, one.effect) for one in compare(small, large)] == [(("vectors", key), "loosens")]
        assert [one.effect for one in compare(large, small)] == ["tightens"]
    assert [one.effect for one in compare(policy(), vectors("max_values = 1000005"))] == ["loosens"]
    assert [one.effect for one in compare(policy(), vectors("max_values = 1000"))] == ["tightens"]
    assert not compare(policy(), vectors("max_values = 1000004")), "what is as without the section"


def test_the_section_is_told_in_words() -> None:
    told = dict(worded_policy(vectors("max_values = 100000000", "bytes_per_second = 5000000", "max_state_mb = 1600")))
    assert told["Long vectors"] == (
        "A vector that the silo contributes has at most 100,000,000 values.",
        "A long one is sent at 5,000,000 bytes a second, which says how long rounds last.",
        "The state of a training run takes at most 1,600 MB here.",
    )
    assert "Long vectors" not in dict(worded_policy(policy()))
    for wrong in ("max_values = 0", "bytes_per_second = 999", "max_state_mb = 0", f"max_values = {2**30 + 1}"):
        with pytest.raises(PolicyFileError, match=rf"vectors\.{wrong.partition(' ')[0]}"):
            vectors(wrong)
