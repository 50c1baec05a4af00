"""Keys that nobody has listed, across four clinics in memory: found by noised counts of prefixes, and nothing else."""

import fcntl
import io
import json
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from rich.console import Console

from analyst.errors import AnalystError, DeniedError, RoundError
from analyst.finding.files import Written, others_of, read_provenance, values_of, write
from analyst.finding.preview import preview_lines, preview_search
from analyst.finding.search import DoneRound, Found, Wanted, begun, find_keys, forget, search_of
from analyst.finding.tree import BETA
from analyst.finding.verify import is_provenance, verify_domain
from analyst.reports.estimates import Estimate
from analyst.reports.render import print_offer
from crypto.keys import Secret, SigningKey
from crypto.noise import discrete_gaussian
from policies.document.load import load
from policies.domains import hash_of
from policies.requests.key_search import KeyShape
from policies.requests.request import Request
from silo_node.owner.pending import decide_on, requests_of
from tests.harness.coded_visits import (
    COLUMN,
    COMMON,
    COUNTS,
    POLICY,
    PURPOSE,
    SILOS,
    TABLE,
    Rows,
    clinics,
    found_clinics,
    rows_of,
)
from tests.harness.inside import ledger_of
from tests.harness.simulator import Simulation, no_noise, simulate

WANTED = Wanted(TABLE, COLUMN, PURPOSE, epsilon=20)
TRUE = {key: sum(COUNTS[key]) for key in COMMON}


def asked(simulation: Simulation, wanted: Wanted = WANTED) -> Found:
    return find_keys(simulation.federation, wanted, simulation.path / "visits.code.search")


def written(simulation: Simulation, found: Found) -> Written:
    out = simulation.path / "out"
    out.mkdir(exist_ok=True)
    return write(out, found, simulation.federation.offer.column(TABLE, COLUMN))


def charges(simulation: Simulation, silo: str = "east") -> list[int]:
    return [row.micro_rho for row in ledger_of(simulation.silos[silo]).history() if row.is_committed]


def test_without_noise_the_common_keys_are_found_with_their_counts(tmp_path: Path) -> None:
    with clinics(tmp_path / "f") as simulation:
        found = asked(simulation)
        assert {one.key: one.count for one in found.keys} == TRUE
        assert [one.prefixes for one in found.rounds] == [1, 3, 2]
        assert [one.slots for one in found.rounds] == [7, 3 * 8, 2 * 8], "all symbols, and a key's end but at first"
        for silo in SILOS:
            assert sum(charges(simulation, silo)) == simulation.spent(silo) <= round(found.rho * 1e6)
            assert len(charges(simulation, silo)) == 3
        assert 19 < found.epsilon <= 20
        assert not (simulation.path / "visits.code.search").stat().st_mode & 0o077


def test_with_noise_common_keys_are_found_and_only_they(tmp_path: Path) -> None:
    drawn: list[tuple[int, int]] = []

    def noise(length: int, variance: int, shares: int) -> npt.NDArray[np.int64]:
        drawn.append((length, variance))
        return discrete_gaussian(length, variance, shares)

    with clinics(tmp_path / "f", noise) as simulation:
        found = asked(simulation)
        assert {one.key for one in found.keys} == set(COMMON)
        for one in found.keys:
            assert abs(one.count - TRUE[one.key]) < 6 * found.rounds[-1].sd
            assert one.low <= one.count <= one.high
        assert len(drawn) == len(SILOS) * len(found.rounds), "each number of each round has noise at each silo"
        assert all(variance > 0 for _, variance in drawn)


def test_the_whole_way_from_an_unlisted_column_to_a_question_grouped_by_it(tmp_path: Path) -> None:
    path = tmp_path / "f"
    question = f"SELECT {COLUMN}, COUNT(*) AS n FROM {TABLE} GROUP BY {COLUMN}"
    with clinics(path) as simulation:
        with pytest.raises(AnalystError, match="cannot group by 'code'") as caught:
            simulation.federation.query(question, purpose=PURPOSE, epsilon=5)
        assert caught.value.hint.startswith("`consilo find-keys visits.code` finds keys for one")
        out = written(simulation, asked(simulation))
        stated = out.provenance
        assert out.domain is not None
        assert out.domain.read_text().splitlines() == [*sorted(COMMON), "(other)"]
        assert (stated.version, stated.takes_place_of) == (1, None)
        lines = list(verify_domain(simulation.federation, out.path))
        assert "visits.code.v1.txt has 5 keys that entered" in lines[-1]
    adopted = f'domain_file = "{out.domain.name}", domain_hash = "{stated.domain_hash}", unknown = "{stated.unknown}"'
    for policy in path.glob("silos/*/policy.toml"):
        policy.write_text(policy.read_text().replace('domain = "discover"', adopted))
        policy.with_name(out.domain.name).write_bytes(out.domain.read_bytes())
    with simulate(path, noise=no_noise) as simulation:
        report = simulation.federation.query(question, purpose=PURPOSE, epsilon=5, sure=False)
        counts = {row[COLUMN]: row["n"].value for row in report.rows if isinstance(row["n"], Estimate)}
        rest = sum(len(rows_of(silo)) for silo in SILOS) - sum(TRUE.values())
        assert counts == {**TRUE, "(other)": rest}
        # A later search is a version of its own, and finds what the adopted domain lacks as well.
        forget(simulation.path / "visits.code.search")
        again = write(tmp_path / "f" / "out", asked(simulation), simulation.federation.offer.column(TABLE, COLUMN))
        assert (again.provenance.version, again.provenance.takes_place_of) == (2, stated.domain_hash)
        assert again.domain is not None
        assert again.domain.read_bytes() == out.domain.read_bytes()


def test_a_prepared_source_is_searched_by_the_texts_of_its_rows(tmp_path: Path) -> None:
    listed = 'domain = ["B", "none"], unknown = "none"'
    policy = POLICY.replace('kind = "parquet"', 'kind = "parquet"\nread = "prepared"')
    with clinics(tmp_path / "f", policy=policy.replace('domain = "discover"', listed)) as simulation:
        assert {one.key: one.count for one in asked(simulation).keys} == TRUE


@pytest.mark.parametrize("moment", range(3))
def test_an_interrupted_search_continues_and_no_round_is_paid_twice(tmp_path: Path, moment: int) -> None:
    class KilledError(Exception):
        pass

    with clinics(tmp_path / "f") as simulation:
        keep, rounds = simulation.path / "keep", list[DoneRound]()

        def told(done: DoneRound) -> None:
            rounds.append(done)
            if len(rounds) == moment + 1:
                raise KilledError

        with pytest.raises(KilledError):
            find_keys(simulation.federation, WANTED, keep, told)
        with pytest.raises(AnalystError, match="another search"):
            find_keys(simulation.federation, replace(WANTED, epsilon=10), keep)
        assert len(charges(simulation)) == moment + 1
        handle = os.open(keep.parent, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(AnalystError, match="another search is under way"):
            find_keys(simulation.federation, WANTED, keep)
        os.close(handle)
        found = find_keys(simulation.federation, WANTED, keep)
        assert found.rounds[: moment + 1] == tuple(rounds)
        assert {one.key: one.count for one in found.keys} == TRUE
        assert len(charges(simulation)) == 3
        assert find_keys(simulation.federation, WANTED, keep).keys == found.keys, "it is not removed before it is used"
        assert len(charges(simulation)) == 3
        forget(keep)
        assert not keep.exists()


def test_a_round_that_was_answered_and_not_seen_is_fetched(tmp_path: Path) -> None:
    with clinics(tmp_path / "f") as simulation:
        keep, submit = simulation.path / "keep", simulation.submit

        def cut(request: bytes, more_s: float = 0.0) -> bytes:
            submit(request, more_s)
            raise KeyboardInterrupt

        simulation.submit = cut  # type: ignore[method-assign]
        for _ in range(2):  # the second time the first round is fetched, and the second one lost
            with pytest.raises(KeyboardInterrupt):
                find_keys(simulation.federation, WANTED, keep)
        simulation.submit = submit  # type: ignore[method-assign]
        assert {one.key: one.count for one in find_keys(simulation.federation, WANTED, keep).keys} == TRUE
        assert len(charges(simulation)) == 3


def test_a_silo_that_is_away_is_left_out_of_the_rounds_it_misses(tmp_path: Path) -> None:
    with clinics(tmp_path / "f") as simulation:
        simulation.silos["south"].dies_before = "contribute"
        simulation.silos["south"].restarts = True
        found = asked(simulation)
        assert [one.silos for one in found.rounds] == [("east", "north", "west"), SILOS, SILOS]
        assert {one.key: one.count for one in found.keys} == TRUE
        for silo in ("south", "west"):
            simulation.silos[silo].dies_before = "propose"
            simulation.silos[silo].restarts = False
        forget(simulation.path / "visits.code.search")
        before = charges(simulation)
        with pytest.raises(RoundError):
            asked(simulation, replace(WANTED, epsilon=10))
        assert charges(simulation) == before


def test_noise_that_fewer_silos_add_is_what_the_thresholds_are_made_from(tmp_path: Path) -> None:
    with clinics(tmp_path / "f") as simulation:
        whole = asked(simulation)
        simulation.silos["south"].dies_before = "contribute"
        forget(simulation.path / "visits.code.search")
        fewer = asked(simulation)
        assert fewer.rounds[0].sd == pytest.approx(whole.rounds[0].sd * math.sqrt(3 / 4))


def test_one_approval_is_of_the_whole_search_and_of_nothing_more(tmp_path: Path) -> None:
    key, now = SigningKey(Secret(bytes([9]) * 32)), 0
    rule = f"""\
[people.dpo]
key = "{key.public}"
[[approvals]]
when = {{{{ kind = "key-search" }}}}
need = 1
of = ["dpo"]
expires_hours = 24
"""
    with clinics(tmp_path / "f", policy=POLICY + rule) as simulation:
        keep = simulation.path / "keep"
        for _ in range(2):
            with pytest.raises(DeniedError, match="APPROVAL_AWAITED"):
                find_keys(simulation.federation, WANTED, keep)
        assert keep.exists()
        assert simulation.spent("east") == 0
        for silo in simulation.silos.values():
            store, rules, now = ledger_of(silo), load(silo.policy).policy, simulation.federation.now()
            (waiting,) = requests_of(rules, store, now)
            said = dict(waiting.lines)
            assert said["asks"].startswith(
                "find keys of code in visits: noised numbers of persons by prefix in 3 rounds"
            )
            assert "3 steps at rho" in said["price"]
            assert "alphabet='012ABCD' length=3 most=2" in said["run"].replace("\\", "").replace('"', "'")
            decide_on(rules, store, "dpo", key, waiting.name, "approve", now)
        found = find_keys(simulation.federation, WANTED, keep)
        assert {one.key: one.count for one in found.keys} == TRUE
        # The price that was approved is spent: another round under the same approval is refused, whatever it asks.
        first = Request.decode(begun(simulation.federation, WANTED).first)
        spent = search_of(first).model_copy(update={"run": bytes.fromhex(found.run)})
        with pytest.raises(DeniedError) as caught:
            simulation.federation.submit(simulation.federation.renew(first, spent))
        assert {one.code for one in caught.value.denials["east"]} == {"RHO_PER_RUN"}
        # A question needs no such approval, another search does.
        with pytest.raises(DeniedError, match="APPROVAL_AWAITED"):
            simulation.federation.submit(first)


def test_prefixes_that_an_analyst_makes_up_are_answered_at_their_price_and_no_more_often(tmp_path: Path) -> None:
    # Hope: whoever asks about prefixes that never survived learns more, or pays less. Each number has the noise of any.
    drawn: list[int] = []

    def noise(length: int, variance: int, shares: int) -> npt.NDArray[np.int64]:
        drawn.append(variance)
        return discrete_gaussian(length, variance, shares)

    with clinics(tmp_path / "f", noise) as simulation:
        own = simulation.federation
        first = Request.decode(begun(own, WANTED).first)
        made_up = search_of(first).model_copy(update={"step": 2, "prefixes": ("DD",)})
        for paid in range(3):
            own.submit(own.renew(first, made_up))
            assert len(charges(simulation)) == paid + 1
            assert charges(simulation)[0] <= first.micro_rho
        with pytest.raises(DeniedError, match="RHO_PER_RUN"):
            own.submit(own.renew(first, made_up))
        with pytest.raises(DeniedError, match="RHO_PER_RUN"):
            own.submit(first)
        assert len(set(drawn)) == 1
        assert drawn[0] > 0
        other = made_up.model_copy(update={"shape": made_up.shape.model_copy(update={"length": 40})})
        with pytest.raises(DeniedError) as caught:
            own.submit(own.renew(first, other))
        assert {one.code for one in caught.value.denials["east"]} >= {"DEFINITION"}


@pytest.mark.slow
def test_the_budget_must_cover_all_rounds_before_the_first(tmp_path: Path) -> None:
    with clinics(tmp_path / "f") as simulation:
        whole = 3 * Request.decode(begun(simulation.federation, WANTED).first).micro_rho
    policy = POLICY.replace("rho = 50.0", f"rho = {(whole - 3) / 1e6:.6f}")
    for section, code in (
        ("", "BUDGET_LIFETIME"),
        (f"per_request = {{{{ min_rho = 0.001, max_rho = {(whole - 3) / 1e6:.6f} }}}}\n", "RHO_PER_REQUEST"),
        (
            f'[[budget.limits]]\npurpose = "{PURPOSE}"\nwindow = "calendar-day"\nrho = {(whole - 3) / 1e6:.6f}\n',
            "BUDGET_WINDOW",
        ),
        (
            f'[[budget.limits]]\npurpose = "{PURPOSE}"\nwindow = "calendar-day"\nrho = 50\n'
            f"per_analyst_rho = {(whole - 3) / 1e6:.6f}\n",
            "BUDGET_ANALYST",
        ),
    ):
        place = "" if code == "BUDGET_LIFETIME" else "50.0"
        text = policy if not place else POLICY
        text = text.replace("[disclosure]\n", f"{section}[disclosure]\n")
        with clinics(tmp_path / code, policy=text) as simulation:
            with pytest.raises(DeniedError) as caught:
                asked(simulation)
            assert [one.code for one in caught.value.denials["east"]] == [code]
            assert simulation.spent("east") == 0
            assert not (simulation.path / "visits.code.search").exists(), "nothing is paid, and nothing awaited"
            assert {one.key for one in asked(simulation, replace(WANTED, epsilon=19.9)).keys} == set(COMMON)


@pytest.mark.slow
def test_a_policy_that_does_not_open_keys_is_closed_to_searches(tmp_path: Path) -> None:
    keys = ', keys = {{ alphabet = "A-D0-2", length = 3, most = 2 }}'
    with clinics(tmp_path / "open") as simulation:
        request = Request.decode(begun(simulation.federation, WANTED).first)
    closed = POLICY.replace('["dimension", "key"]', '["dimension"]').replace(f", \\\n{keys[2:]}", "")
    for name, policy, codes in (
        (
            "closed",
            POLICY.replace(keys[2:], "").replace(', "key"]', "]").replace('"discover", ', '"discover"'),
            {"COLUMN_ROLE"},
        ),
        ("other", POLICY.replace("length = 3, most = 2", "length = 2, most = 2"), {"DEFINITION"}),
        ("more", POLICY.replace("length = 3, most = 2", "length = 3, most = 1"), {"DEFINITION"}),
        ("computation", POLICY.replace('["query", "key-search"]', '["query"]'), {"COMPUTATION_CLOSED"}),
        ("groups", POLICY.replace("max_groups = 400", "max_groups = 6"), {"MAX_GROUPS"}),
        ("count", POLICY.replace('aggregates = ["count"]', 'aggregates = ["sum"]'), {"AGGREGATE"}),
        ("leaves", POLICY.replace("min_cohort = 5", 'min_cohort = 5\nrelease = ["model"]'), {"RELEASE"}),
    ):
        assert policy not in (POLICY, closed), name
        with clinics(tmp_path / name, policy=policy) as simulation:
            own = simulation.federation
            fields = {"recipients": (own.recipient,)}
            with pytest.raises(DeniedError) as caught:
                own.submit(own.renew(request.model_copy(update=fields), request.plan))
            assert {one.code for one in caught.value.denials["east"]} == codes, name
            if name in ("closed", "groups"):
                with pytest.raises(AnalystError, match=r"unknown column|more than max_groups"):
                    asked(simulation)
            assert simulation.spent("east") == 0


def test_silos_that_say_differently_what_a_key_is_are_named(tmp_path: Path) -> None:
    path = found_clinics(tmp_path / "f", policy=POLICY.replace("max_missing = 1", "max_missing = 0"))
    policy = path / "silos" / "west" / "policy.toml"
    policy.write_text(policy.read_text().replace("length = 3", "length = 4"))
    with simulate(path, noise=no_noise) as simulation:
        with pytest.raises(AnalystError, match="west: keys of 1 to 4 symbols among 012ABCD"):
            asked(simulation)
        found = asked(simulation, replace(WANTED, silos=("east", "north", "south")))
        assert {one.key: one.count for one in found.keys} == {key: sum(COUNTS[key][:3]) for key in COMMON}


@pytest.mark.slow
def test_a_silo_that_lies_adds_and_hides_keys_and_no_more(tmp_path: Path) -> None:
    """What a liar can do to a sum it can do here: add keys that nobody has, up to a round's slots, and hide others."""

    def liar(search_width: Callable[[int], int]) -> Callable[[int, int, int], npt.NDArray[np.int64]]:
        def noise(length: int, variance: int, shares: int) -> npt.NDArray[np.int64]:
            units = np.zeros(length, np.int64)
            units[search_width(length)] = 10**13
            return units

        return noise

    with clinics(tmp_path / "f") as simulation:
        west = simulation.silos["west"]
        west.noise = liar(lambda length: length - 1)  # the last slot of each round
        west.restarts = True
        west.kill()
        found = asked(simulation)
        added = {one.key for one in found.keys} - set(COMMON)
        assert set(COMMON) <= {one.key for one in found.keys}, "what it does to one number changes no other"
        assert added == {"D", "C1"}, "the end of the last prefix of a round: no key that others have is named"
        assert all(one.survivors <= found.most_prefixes for one in found.rounds)
    with clinics(tmp_path / "g") as simulation:
        west = simulation.silos["west"]
        west.noise = lambda length, variance, shares: np.full(length, 10**13, np.int64)
        west.restarts = True
        west.kill()
        found = asked(simulation)
        width = len(found.shape.alphabet) + 1
        assert found.most_prefixes == 400 // width
        assert [one.survivors for one in found.rounds] == [7, 49, 0]
        assert len(found.keys) == 7 + 49 * width, "every candidate, and never more than the slots of the rounds"
    with clinics(tmp_path / "h") as simulation:
        west = simulation.silos["west"]
        west.noise = lambda length, variance, shares: np.full(length, -(10**13), np.int64)
        west.restarts = True
        west.kill()
        assert asked(simulation).keys == (), "it can hide keys as well"


def test_what_a_silo_sends_and_refuses_does_not_tell_which_keys_it_has(tmp_path: Path) -> None:
    """The same search over other rows: silos send messages of the same steps and lengths, and refuse alike."""
    passed, refused = list[object](), list[object]()
    none: Rows = {silo: [{"id": f"{silo}-{number}", "code": "A01"} for number in range(200)] for silo in SILOS}
    others: Rows = {**none, "west": [{"id": "one", "code": "DDD"}]}
    for name, rows in (("common", none), ("others", others)):
        with clinics(tmp_path / name, rows=rows) as simulation:
            asked(simulation)
            west = simulation.silos["west"]
            sent = [(step, len(frames)) for step, frames in west.seen if step.startswith("<")]
            sizes = [len(frame) for step, frames in west.seen if step == "< contribute" for frame in frames[1:]]
            passed.append((sent, sizes))
            forget(simulation.path / "visits.code.search")
            with pytest.raises(DeniedError) as caught:
                asked(simulation, replace(WANTED, epsilon=100))
            refused.append([(one.code, one.message) for one in caught.value.denials["west"]])
    assert passed[0] == passed[1]
    assert refused[0] == refused[1]


def test_the_list_of_silos_says_what_a_key_is(tmp_path: Path) -> None:
    with clinics(tmp_path / "f") as simulation:
        printed = io.StringIO()
        print_offer(simulation.federation.offer, SILOS, Console(file=printed, width=200, highlight=False))
        assert "code: keys of 1 to 3 symbols among 012ABCD; at most 2 of one person" in printed.getvalue()


def test_the_provenance_is_what_the_search_was_and_no_other(tmp_path: Path) -> None:
    with clinics(tmp_path / "f") as simulation:
        found = asked(simulation)
        out = written(simulation, found)
        assert out == written(simulation, found), "what was written before an interruption is not written again"
        assert is_provenance(out.path)
        stated = json.loads(out.path.read_text())
        assert stated["domain_hash"] == hash_of(values_of(found))
        assert [one["request"] for one in stated["rounds"]] == [one.request for one in found.rounds]
        assert (stated["beta"], stated["rho"], stated["rounds"][0]["enter"]) == (BETA, found.rho, None)
        assert "count" not in out.path.read_text()
        changes: list[tuple[str, object]] = [
            ("min_cohort", 500),
            ("keys", 4),
            ("domain_hash", hash_of(("A", "(other)"))),
            ("purpose", "billing"),
            ("most_prefixes", 2),
            ("rho", 0.1),
            ("beta", 1e-9),
            ("rounds", stated["rounds"][:2]),
            ("rounds", stated["rounds"][1:]),
            ("rounds", [stated["rounds"][0] | {"sd": 1.0}, *stated["rounds"][1:]]),
        ]
        for key, value in changes:
            out.path.write_text(json.dumps(stated | {key: value}, indent=2))
            with pytest.raises(AnalystError):
                list(verify_domain(simulation.federation, out.path))
        out.path.write_text(json.dumps(stated, indent=2))
        assert len(list(verify_domain(simulation.federation, out.path))) == 6
        assert out.domain is not None
        out.domain.write_text("A01\n(other)\n")
        with pytest.raises(AnalystError, match="not the domain that was found"):
            list(verify_domain(simulation.federation, out.path))
        out.path.write_text("{}")
        with pytest.raises(AnalystError, match="no provenance"):
            read_provenance(out.path)


def test_a_search_that_finds_nothing_says_so_and_writes_no_domain(tmp_path: Path) -> None:
    rows: Rows = {silo: [{"id": f"{silo}-{number}", "code": "zzz"} for number in range(50)] for silo in SILOS}
    with clinics(tmp_path / "f", rows=rows) as simulation:
        found = asked(simulation)
        assert (found.keys, len(found.rounds)) == ((), 1), "nothing survives, and the other rounds are not paid"
        assert len(charges(simulation)) == 1
        out = written(simulation, found)
        assert out.domain is None
        assert len(list(verify_domain(simulation.federation, out.path))) == 3


def test_a_preview_says_the_price_and_asks_nothing(tmp_path: Path) -> None:
    with clinics(tmp_path / "f") as simulation:
        told = preview_search(simulation.federation, WANTED)
        assert simulation.spent("east") == 0
        lines = list(preview_lines(told))
        assert any("up to 3 rounds of equal price" in line for line in lines)
        assert not any("would refuse" in line for line in lines)
        assert told.epsilon <= 20
        assert told.sd == pytest.approx(asked(simulation).rounds[0].sd)
        dear = preview_search(simulation.federation, replace(WANTED, epsilon=100))
        assert any("east would refuse: BUDGET_LIFETIME" in line for line in preview_lines(dear))


def test_the_member_for_all_else_can_be_no_key() -> None:
    shape = KeyShape(alphabet="()ehort", length=8, most=1)
    assert others_of(shape) == "((other))"
    assert not shape.is_key(others_of(shape))
