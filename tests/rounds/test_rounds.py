"""Whole rounds in memory: right sums, drop-outs at every step, refusals, and what the aggregator can make of it all."""

import math
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from aggregator.rounds import propose, read_request
from analyst.demo.hospitals import PURPOSE, read_lung
from analyst.errors import DeniedError, RoundError, SqlError
from analyst.reports.estimates import Estimate
from analyst.reports.render import render
from analyst.reports.report import Report, decoded, encoded
from crypto.errors import CryptoError
from crypto.keys import Secret, SigningKey, read_key_file
from crypto.rounds.manifest import Propose
from crypto.rounds.messages import Contribution
from crypto.rounds.opening import check_report, open_report
from crypto.rounds.report import StoredReport
from crypto.sealing import SealingKey
from crypto.wire import MAX_ENVELOPE_OVERHEAD, digest_of, sign, unverified
from policies.requests.catalogue import Catalogue
from policies.requests.request import Request
from policies.requests.terms import terms_of
from policies.units import MICRO
from tests.harness.inside import aggregator_of, exchange_keys, key_of, rounds_of
from tests.harness.simulator import STEPS, Simulation, no_noise, simulate

QUESTION = "SELECT sex, COUNT(*) AS n, AVG(age) AS mean_age FROM lung GROUP BY sex"
# Each with the columns that pooled DuckDB must give exactly when the noise is off.
QUESTIONS = (
    QUESTION,
    "SELECT COUNT(*) AS n, COUNT(weight_loss) AS known, SUM(weight_loss) AS lost, AVG(weight_loss) AS mean FROM lung",
    "SELECT sex, ecog, COUNT(*) AS n, SUM(survival) AS days FROM lung GROUP BY ecog, sex",
    "SELECT ecog, COUNT(*) AS n, SUM(died) AS deaths, AVG(karnofsky) AS score FROM lung GROUP BY ecog",
    "SELECT sex, COUNT(*) AS n FROM lung WHERE age BETWEEN 55 AND 70 AND (ecog IN (0, 1) OR survival > 300.5)"
    " GROUP BY sex",
    "SELECT COUNT(*) AS n FROM lung WHERE NOT died OR karnofsky IS NULL",
    "SELECT sex, AVG(survival) AS days, SUM(age) AS years FROM lung WHERE died AND ecog >= 1 GROUP BY sex",
    "SELECT CASE WHEN age < 50 THEN 'under 50' WHEN age < 65 THEN '50 to 64' ELSE '65 and over' END AS band,"
    " COUNT(*) AS n FROM lung GROUP BY band",
    "SELECT age // 10 AS decade, UPPER(sex) AS s, COUNT(*) AS n, SUM(survival) AS days FROM lung GROUP BY s, decade",
    "SELECT CASE WHEN karnofsky < age THEN 1 WHEN karnofsky >= age THEN 0 END AS worse,"
    " COUNT(*) AS n FROM lung WHERE age < survival GROUP BY worse",
)


def pooled(question: str) -> list[dict[str, Any]]:
    """Answer on all rows together, after the same mapping of values outside a domain."""
    lung = read_lung()  # noqa: F841  read by name in the query
    connection = duckdb.connect()
    connection.execute("CREATE TABLE lung AS SELECT * REPLACE (coalesce(ecog, -1) AS ecog) FROM lung")
    return list(connection.sql(question).to_arrow_table().to_pylist())


def ask(simulation: Simulation, question: str = QUESTION, epsilon: float = 1.0) -> Report:
    return simulation.federation.query(question, purpose=PURPOSE, epsilon=epsilon)


def rewrite_policies(home: Path, old: str, new: str) -> None:
    for policy in home.glob("silos/*/policy.toml"):
        text = policy.read_text()
        assert old in text
        policy.write_text(text.replace(old, new))


def by_group(rows: Any, keys: tuple[str, ...]) -> dict[tuple[Any, ...], Mapping[str, Any]]:
    return {tuple(row[key] for key in keys): row for row in rows}


@pytest.fixture(scope="module")
def of_two(founded: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulation]:
    """A federation without noise whose cohorts may be as small as two."""
    path = Path(shutil.copytree(founded, tmp_path_factory.mktemp("of-two") / "federation"))
    rewrite_policies(path, "min_cohort     = 25", "min_cohort     = 2")
    with simulate(path, noise=no_noise) as simulation:
        yield simulation


@pytest.mark.parametrize("question", QUESTIONS)
def test_without_noise_the_answer_equals_pooled_duckdb_exactly(of_two: Simulation, question: str) -> None:
    report = ask(of_two, question)
    keys = tuple(name for name in ("sex", "ecog", "band", "decade", "s", "worse") if name in report.columns)
    answers, truths = by_group(report.rows, keys), by_group(pooled(question), keys)
    assert answers
    for group, row in answers.items():
        for name, cell in row.items():
            if isinstance(cell, Estimate):
                assert cell.value == pytest.approx(float(truths[group][name]), rel=1e-12), (group, name)
    # Every group is answered: what is neither shown nor withheld as too small does not exist.
    withheld = by_group(report.withheld_groups, keys)
    assert set(truths) <= set(answers) | set(withheld)
    assert not set(answers) & set(withheld)
    assert all(truths[group].get("n", 0) < 2 for group in withheld if group in truths)


def test_a_column_selected_twice_is_answered_twice(of_two: Simulation) -> None:
    before = of_two.spent("aspen")
    report = ask(of_two, "SELECT sex, sex AS again, ecog, COUNT(*) AS n FROM lung GROUP BY ecog, sex")
    assert report.dimensions == {"sex": "sex", "again": "sex", "ecog": "ecog"}
    assert {row["sex"] for row in report.rows} == {"female", "male"}
    assert all(row["sex"] == row["again"] for row in (*report.rows, *report.withheld_groups))
    assert report.field_names() == ["sex", "again", "ecog", "n", "n_low", "n_high", "n_sd"]
    assert report.to_arrow().column_names == report.field_names()
    after = of_two.spent("aspen")
    assert after > before
    for question in (
        "SELECT sex AS n_low, COUNT(*) AS n FROM lung GROUP BY sex",
        "SELECT COUNT(*), COUNT(*) FROM lung",
    ):
        with pytest.raises(SqlError, match="used twice"):
            ask(of_two, question)
    assert of_two.spent("aspen") == after, "what cannot be opened is refused before the charge"


def test_the_group_null_is_none_and_is_written_as_such(of_two: Simulation) -> None:
    report = ask(of_two, "SELECT CASE WHEN age < 65 THEN 1 END AS young, COUNT(*) AS n FROM lung GROUP BY young")
    assert [row["young"] for row in report.rows] == [1, None]
    assert report.to_arrow()["young"].to_pylist() == [1, None]
    assert report.to_arrow()["young"].type == "int64"
    assert [line.split(",")[0] for line in render(report, "csv").splitlines() if line[0] != "#"] == ["young", "1", ""]
    assert "│  NULL │" in render(report, "table")
    assert decoded(encoded(report)) == report


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_over_200_runs_the_values_lie_within_5_sd_of_pooled_duckdb(home: Path) -> None:
    rewrite_policies(home, "lifetime    = { rho = 1.0 }", "lifetime    = { rho = 10 }")
    truth = by_group(pooled(QUESTION), ("sex",))
    scores: list[float] = []
    with simulate(home) as simulation:
        for _ in range(200):
            for group, row in by_group(ask(simulation).rows, ("sex",)).items():
                if group == ("unknown",):
                    continue
                for name in ("n", "mean_age"):
                    cell = row[name]
                    assert cell.low <= cell.value <= cell.high
                    # A mean is a quotient and skewed where its count is small; its linear form is not.
                    count = row["n"].value
                    sd = cell.sd if name == "n" else cell.sd * max(1.0, count / float(truth[group]["n"]))
                    scores.append((cell.value - float(truth[group][name])) / sd)
    assert len(scores) == 800
    assert max(abs(score) for score in scores) < 5
    # The stated deviation is the real one: the chi-square sum of 400 counts, four deviations wide.
    counts = np.array(scores[0::2])
    assert abs(float(np.sum(counts**2)) - 400) < 4 * math.sqrt(2 * 400)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["dies_before", "dies_after"])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("restarts", [False, True])
def test_a_hospital_killed_between_any_two_steps_is_a_drop_out(
    shared: Simulation, step: str, moment: str, restarts: bool
) -> None:
    cedar, before = shared.silos["cedar"], {name: shared.spent(name) for name in ("birch", "cedar")}
    cedar.restarts = restarts
    setattr(cedar, moment, step)
    report = ask(shared)
    whole_sum = step in ("agree", "open_shares") or (restarts and (step, moment) == ("propose", "dies_before"))
    is_back = restarts and moment == "dies_before" and step in ("share", "ready")  # and says so, outside of the round
    away = "left out" if is_back else "missing"
    expected = "answered" if whole_sum else "dropped" if step == "contribute" else away
    assert report.silos["cedar"].status == expected
    counted = sum(cell.value or 0 for row in report.rows if isinstance(cell := row["n"], Estimate))
    assert counted == (228 if whole_sum else 228 - 45)
    price = round(report.rho * MICRO)
    assert shared.spent("birch") - before["birch"] == price  # one charge, also where the round began anew
    if restarts:  # it is back, and never spent twice for one question
        begun = whole_sum or step == "contribute" or (step, moment) == ("ready", "dies_after")
        assert shared.spent("cedar") - before["cedar"] == (price if begun else 0)
        assert ask(shared).silos["cedar"].status == "answered"


def test_too_few_left_is_a_clear_error_that_names_who_is_missing(shared: Simulation) -> None:
    ask(shared)
    for name in ("cedar", "maple", "rowan"):
        shared.silos[name].dies_before = "propose"
    with pytest.raises(RoundError, match=r"missing: cedar, maple, rowan") as caught:
        ask(shared)
    assert caught.value.hint
    before = shared.spent("aspen")
    with pytest.raises(RoundError):
        ask(shared)
    assert shared.spent("aspen") == before, "nothing left the silo, so nothing is spent"


def test_two_drop_outs_after_contributing_began_leave_no_quorum(shared: Simulation) -> None:
    ask(shared)
    shared.silos["cedar"].dies_before = shared.silos["maple"].dies_before = "contribute"
    with pytest.raises(RoundError, match="missing: cedar, maple"):
        ask(shared)


def test_a_silo_that_sends_garbage_is_a_drop_out(shared: Simulation) -> None:
    ask(shared)

    def garbage(step: str, frames: tuple[bytes, ...]) -> tuple[bytes, ...]:
        return (frames[0], bytes(len(frames[1]))) if step == "contribute" else frames

    shared.silos["maple"].rewrite = garbage
    report = ask(shared)
    assert report.silos["maple"].status == "dropped"
    shared.silos["maple"].rewrite = lambda step, frames: (b"",) * 3
    assert ask(shared).silos["maple"].status == "left out", "it answered"


def test_a_catalogue_that_nobody_reads_is_left_out(shared: Simulation, capsys: pytest.CaptureFixture[str]) -> None:
    """Or a few silos would answer with more than an analyst's stream takes, and no analyst got any catalogue."""
    most = Catalogue.MAX_BYTES + MAX_ENVELOPE_OVERHEAD
    shared.silos["cedar"].rewrite = lambda step, frames: (bytes(most),) if step == "catalogue" else frames
    shared.silos["maple"].rewrite = lambda step, frames: (bytes(most + 1),) if step == "catalogue" else frames
    relayed = shared.catalogues(b"")
    assert sorted(map(len, relayed))[-1] == most
    assert len(relayed) == 4
    said = "".join(capsys.readouterr())
    assert "catalogue_too_long" in said
    assert f"{most + 1}" in said
    shared.silos["cedar"].rewrite = lambda step, frames: frames
    assert {silo for silo, outcome in ask(shared).silos.items() if outcome.status != "answered"} == {"maple"}


@pytest.fixture(scope="module")
def impatient(founded: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulation]:
    """A federation without noise whose aggregator waits for a step for one second."""
    path = Path(shutil.copytree(founded, tmp_path_factory.mktemp("impatient") / "federation"))
    with simulate(path, noise=no_noise, step_timeout_s=1.0) as simulation:
        yield simulation


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "status", "counted"),
    [
        ("propose", "missing", 183),
        ("share", "missing", 183),
        ("contribute", "dropped", 183),
        ("agree", "answered", 228),
        ("open_shares", "answered", 228),
    ],
)
def test_a_silo_that_answers_too_late_is_a_drop_out_at_every_step(
    impatient: Simulation, step: str, status: str, counted: int
) -> None:
    impatient.mend()
    ask(impatient)
    impatient.silos["cedar"].late_s = {step: 2.0}
    report = ask(impatient)
    assert report.silos["cedar"].status == status
    assert sum(cell.value or 0 for row in report.rows if isinstance(cell := row["n"], Estimate)) == counted
    impatient.silos["cedar"].late_s = {}
    assert ask(impatient).silos["cedar"].status == "answered"


def test_a_replayed_request_is_refused_and_costs_nothing(shared: Simulation) -> None:
    federation = shared.federation
    planned, request = federation.prepare(QUESTION, purpose=PURPOSE, epsilon=1)
    encrypted = federation.submit(request)
    federation.open_answer(planned, request, encrypted)
    before = {silo: shared.spent(silo) for silo in shared.silos}
    assert federation.submit(request) == encrypted, "the same request has one stored answer"
    for stored in (shared.path / "aggregator" / "reports").iterdir():
        stored.unlink()
    with pytest.raises(DeniedError, match="ALREADY_ANSWERED"):
        federation.submit(request)
    assert before == {silo: shared.spent(silo) for silo in shared.silos}


def test_one_nonce_cannot_buy_a_dearer_request(exact: Simulation) -> None:
    """Reserve cheaply, then present a dearer request under the same nonce while the first is still open."""
    federation = exact.federation
    _, cheap = federation.prepare(QUESTION, purpose=PURPOSE, epsilon=0.1)
    dear = Request.model_validate({**dict(cheap), "micro_rho": 50_000})
    actor = exact.silos["aspen"].actor
    aggregator = aggregator_of(exact.server)
    now = int(exact.silos["aspen"].clock())
    for round_id, request in ((bytes(16), cheap), (b"\1" * 16, dear)):
        envelope = sign(request, federation.analyst, key_of(federation))
        proposed = propose(aggregator, read_request(envelope), round_id, now)
        reply = actor.propose(round_id, proposed.envelope)
        if request is dear:
            assert b"failed" in reply[0][:20]
    assert exact.spent("aspen") < 1000


def test_what_the_aggregator_saw_and_stored_opens_neither_a_contribution_nor_the_sum(shared: Simulation) -> None:
    report = ask(shared)
    seen = shared.everything_seen()
    encrypted = StoredReport.decode(shared.reports[-1])
    request = unverified(unverified(encrypted.message.propose, Propose).request, Request)
    # 1. No plain value: neither a silo's shared counts nor the sum stand anywhere, in either byte order.
    truth = int(next(cell.value or 0 for row in report.rows if isinstance(cell := row["n"], Estimate)))
    scale = opened_scale(request)
    for order in ("little", "big"):
        pattern = (truth << scale).to_bytes(8, order)
        assert not any(pattern in data for data in seen)
    # 2. The whole of what it holds, with any key but the analyst's, does not open.
    terms = terms_of(request, digest_of(request))
    roster = shared.federation.config.roster
    checked = check_report(encrypted, terms, roster.silo_keys, roster.aggregator_keys)
    for root in (Secret.generate(), Secret(bytes(32))):
        with pytest.raises(CryptoError):
            open_report(checked, "ana", SealingKey(root))
    identity = shared.path / "aggregator" / "identity.key"
    own = SealingKey(read_key_file(identity))
    with pytest.raises(CryptoError):
        open_report(checked, "ana", own)
    # 3. Blinded vectors and their sum are uniform: about half of their bits are set.
    payloads = [
        frame
        for silo in shared.silos.values()
        for step, frames in silo.seen
        if step == "< contribute"
        for frame in frames[1:]
    ]
    assert len(payloads) == 5
    bits = sum(int.from_bytes(data, "little").bit_count() for data in [*payloads, encrypted.blinded_sum])
    total = 8 * sum(len(data) for data in [*payloads, encrypted.blinded_sum])
    assert abs(bits - total / 2) < 6 * math.sqrt(total) / 2


def opened_scale(request: Request) -> int:
    return terms_of(request, digest_of(request)).blocks[0].scale_bits


def test_contributions_of_equal_rows_share_no_aligned_16_byte_block(home: Path) -> None:
    """Every hospital holds the very same rows, asked twice without noise: no block may repeat anywhere."""
    source = home / "silos" / "aspen" / "lung.parquet"
    for silo in ("birch", "cedar", "maple", "rowan"):
        (home / "silos" / silo / "lung.parquet").write_bytes(source.read_bytes())
    question = "SELECT sex, ecog, COUNT(*) AS n, SUM(age) AS a, SUM(survival) AS s FROM lung GROUP BY sex, ecog"
    with simulate(home, noise=no_noise) as simulation:
        ask(simulation, question)
        ask(simulation, question)
        payloads = [
            frame
            for silo in simulation.silos.values()
            for step, frames in silo.seen
            if step == "< contribute"
            for frame in frames[1:]
        ]
    blocks = [data[start : start + 16] for data in payloads for start in range(0, len(data) - 15, 16)]
    assert len(payloads) == 10
    assert len(blocks) >= 10 * 24
    assert len(set(blocks)) == len(blocks)


def test_secrets_of_a_finished_round_are_forgotten(shared: Simulation) -> None:
    ask(shared)
    assert all(not rounds_of(silo) for silo in shared.silos.values())


def test_an_unknown_analyst_key_is_refused(exact: Simulation) -> None:
    exchange_keys(exact.federation, signing=SigningKey(Secret.generate()))
    with pytest.raises(DeniedError, match="refuse"):
        ask(exact)
    assert all(exact.spent(silo) == 0 for silo in exact.silos)


def test_a_budget_that_is_spent_refuses_with_rule_and_remedy(home: Path) -> None:
    rewrite_policies(home, "lifetime    = { rho = 1.0 }", "lifetime    = { rho = 0.05 }")
    with simulate(home) as simulation:
        ask(simulation)
        ask(simulation)
        with pytest.raises(DeniedError) as caught:
            ask(simulation)
    denial = caught.value.denials["aspen"][0]
    assert (denial.code, denial.rule) == ("BUDGET_LIFETIME", "budget.lifetime.rho")
    assert denial.remedy


@pytest.mark.slow
def test_the_demo_budget_holds_30_questions_at_epsilon_1_and_one_at_epsilon_2(simulation: Simulation) -> None:
    ask(simulation, epsilon=2)
    for _ in range(30):
        ask(simulation, "SELECT COUNT(*) AS n FROM lung")


def test_one_silo_that_refuses_is_named_and_the_others_answer(home: Path) -> None:
    policy = home / "silos" / "maple" / "policy.toml"
    policy.write_text(
        policy.read_text().replace('aggregates     = ["count", "sum", "avg", ', 'aggregates     = ["count", ')
    )
    with simulate(home) as simulation:
        report = ask(simulation)
    assert report.silos["maple"].status == "denied"
    assert [denial.code for denial in report.silos["maple"].denials] == ["AGGREGATE"]
    assert [report.silos[silo].status for silo in ("aspen", "birch", "cedar", "rowan")] == ["answered"] * 4


def test_a_contribution_head_speaks_of_nothing_but_its_round_its_digests_and_the_clock(shared: Simulation) -> None:
    ask(shared)
    encrypted = StoredReport.decode(shared.reports[-1]).message
    assert set(Contribution.model_fields) == {"manifest_hash", "length", "chunks", "consent_as_of", "rows_as_of"}
    headers = [unverified(raw, Contribution) for raw in encrypted.contributions]
    assert {header.length for header in headers} == {encrypted.length}
    assert len({header.chunks for header in headers}) == 5
