"""Questions over a domain that stands in a file: they travel by its hash, and answer as over a short one."""

import io
import os
import time
from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console

from analyst.demo.hospitals import PURPOSE, read_lung
from analyst.errors import AnalystError, DeniedError, RoundError, SqlError
from analyst.reports.estimates import Estimate
from analyst.reports.render import print_offer, render
from crypto.rounds.manifest import Recipient
from crypto.wire import digest_of, unverified
from policies.domains import LongDomain, hash_of, text_of
from policies.requests.catalogue import DomainRequest
from policies.requests.request import Request
from tests.harness.domains import FILE, GROUPED, days, lengthen
from tests.harness.inside import forget_offer
from tests.harness.simulator import Simulation, no_noise, simulate

SIZE = 20_000


def true_counts(least: int = -1) -> Counter[int]:
    return Counter(one for one in read_lung()["survival"].to_pylist() if one is not None and one >= least)


def asked_for(simulation: Simulation) -> list[str]:
    """Return the silos that were asked for the values of a domain."""
    return [name for name, silo in simulation.silos.items() for step, _ in silo.seen if step == "> domain"]


@pytest.fixture
def long(home: Path) -> Path:
    lengthen(home, SIZE)
    return home


def test_an_answer_over_a_domain_in_a_file_is_the_pooled_count(long: Path) -> None:
    with simulate(long, noise=no_noise) as simulation:
        report = simulation.federation.query(f"{GROUPED}", purpose=PURPOSE, epsilon=1.0, sure=False)
        counts = {int(str(row["survival"])): row["n"] for row in report.rows}
        expected = {value: count for value, count in true_counts().items() if count >= 2}
        assert {key: one.value for key, one in counts.items() if isinstance(one, Estimate)} == expected
        assert len(report.rows) + len(report.withheld_groups) == SIZE
        assert "more groups; --format json lists all of them" in render(report, "table")

        # Only one silo was asked, once; what it sent is in a file, which is verified when it is read again.
        assert len(asked_for(simulation)) == 1
        (kept,) = (long / "domains").iterdir()
        assert kept.read_bytes() == text_of(days(SIZE))
        proposed = [data[1] for silo in simulation.silos.values() for step, data in silo.seen if step == "> propose"]
        assert all(len(data) < 6000 for data in proposed), "the values do not travel with a request"

        filtered = "SELECT COUNT(*) AS n FROM lung WHERE survival >= 300 AND survival NOT IN (310, 1000)"
        (row,) = simulation.federation.query(filtered, purpose=PURPOSE, epsilon=0.5).rows
        left = true_counts(300)
        assert isinstance(row["n"], Estimate)
        assert row["n"].value == left.total() - left[310] - left[1000]
        with pytest.raises(SqlError, match="compares with a number"):
            simulation.federation.prepare(f"{filtered} AND survival = 'x'", purpose=PURPOSE, epsilon=0.5)
    for spoiled in (b"", text_of(days(SIZE))[:-1], text_of(days(SIZE - 1)), b"\xff" * 9):
        kept.write_bytes(spoiled)
        with simulate(long, noise=no_noise) as simulation:
            planned, _ = simulation.federation.prepare(GROUPED, purpose=PURPOSE, epsilon=1.0)
            assert len(asked_for(simulation)) == 1, "a spoiled file is asked for again"
            assert list(planned.table.column("survival").domain) == [str(day) for day in days(SIZE)]
            assert kept.read_bytes() == text_of(days(SIZE))


def test_domains_that_were_kept_before_make_room_for_the_next(long: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (long / "domains").mkdir()
    old, new = long / "domains" / "old.txt", long / "domains" / "new.txt"
    for age_s, file in ((200, old), (100, new)):
        file.write_bytes(bytes(1000))
        os.utime(file, (time.time() - age_s,) * 2)
    monkeypatch.setattr("analyst.domains.MAX_KEPT_BYTES", len(text_of(days(SIZE))) + 1500)
    with simulate(long, noise=no_noise) as simulation:
        simulation.federation.prepare(GROUPED, purpose=PURPOSE, epsilon=1.0)
    assert not old.exists()
    assert new.exists()
    assert len(list((long / "domains").iterdir())) == 2


def test_a_stored_answer_is_verified_with_the_values_of_its_request(long: Path) -> None:
    with simulate(long, noise=no_noise) as simulation:
        planned, request = simulation.federation.prepare(GROUPED, purpose=PURPOSE, epsilon=1.0)
        stored = simulation.federation.submit(request)
        travelled = Request.decode(request.encode())
        (unresolved,) = travelled.table.unresolved
        assert digest_of(travelled) == digest_of(request)
        with pytest.raises(LookupError, match="are not here"):
            list(unresolved)
        report = simulation.federation.open_answer(planned, travelled, stored)
        assert report.rows == simulation.federation.open_answer(planned, request, stored).rows


def test_a_silo_denies_a_domain_that_is_not_its_own(long: Path) -> None:
    with simulate(long, noise=no_noise) as simulation:
        federation = simulation.federation
        planned, request = federation.prepare(GROUPED, purpose=PURPOSE, epsilon=1.0)
        own = planned.table.column("survival")
        assert isinstance(own.domain, LongDomain)
        for other in (LongDomain(bytes(32), SIZE), LongDomain(own.domain.digest, SIZE - 1)):
            table = planned.table.model_copy(update={"columns": (own.model_copy(update={"domain": other}),)})
            recipients = tuple(Recipient(name=one.name, key=one.key) for one in request.recipients)
            asked = federation.write(table, planned.plan, PURPOSE, request.micro_rho, recipients)
            with pytest.raises(DeniedError) as caught:
                federation.submit(asked)
            denial = caught.value.denials["aspen"][0]
            assert denial.code == "DEFINITION"
            assert denial.rule == "sources.lung.columns.survival.domain"
            assert own.domain.name in denial.message


def test_silos_with_different_files_are_named_before_anything_is_asked_and_can_be_asked_apart(long: Path) -> None:
    policy = long / "silos" / "aspen" / "policy.toml"
    values = days(SIZE + 1)
    policy.with_name(FILE).write_bytes(text_of(values))
    policy.write_text(policy.read_text().replace(hash_of(days(SIZE)), hash_of(values)))
    with simulate(long, noise=no_noise) as simulation:
        with pytest.raises(SqlError, match="the silos define 'lung' in 2 ways") as caught:
            simulation.federation.prepare(GROUPED, purpose=PURPOSE, epsilon=1.0)
        assert (
            f"\n  aspen: survival int 0 to 1100 in steps of 1 never missing one of 20,001 values {hash_of(values)};"
            in (caught.value.message)
        )
        others = [silo for silo in simulation.silos if silo != "aspen"]
        assert f"--silos {','.join(others)};" in caught.value.hint
        report = simulation.federation.query(GROUPED, purpose=PURPOSE, epsilon=1.0, silos=others)
        assert {silo: one.status for silo, one in report.silos.items()} == dict.fromkeys(others, "answered")
        with pytest.raises(RoundError, match="no answer: 1 silo") as few:
            simulation.federation.query(GROUPED, purpose=PURPOSE, epsilon=1.0, silos=["aspen"])
        assert few.value.hint == "ask 4 silos or more: aspen, and 3 of birch, cedar, maple, rowan"


def test_a_shorter_list_of_one_silo_is_another_definition(long: Path) -> None:
    policy, listed = long / "silos" / "aspen" / "policy.toml", (-1, 310, 455, 1010)
    stated = f'domain_file = "{FILE}", domain_hash = "{hash_of(days(SIZE))}"'
    policy.write_text(policy.read_text().replace(stated, f"domain = {list(listed)}"))
    with simulate(long, noise=no_noise) as simulation:
        with pytest.raises(SqlError, match="one of -1, 310, 455, 1010; unknown is -1"):
            simulation.federation.query(GROUPED, purpose=PURPOSE, epsilon=1.0)
        console = Console(file=io.StringIO(), width=200)
        print_offer(simulation.federation.offer, simulation.silos, console)
        assert "-1, 310, 455, 1010" in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_silo_that_sends_other_values_is_passed_over(long: Path) -> None:
    with simulate(long, noise=no_noise) as simulation:
        first = next(iter(simulation.silos.values()))
        first.rewrite = lambda step, frames: (b"CSD1-1\n",) if step == "domain" else frames
        simulation.federation.prepare(GROUPED, purpose=PURPOSE, epsilon=1.0)
        assert len(asked_for(simulation)) == 2
        for path in (long / "domains").iterdir():
            path.unlink()
        forget_offer(simulation.federation)
        simulation.mend()
    with simulate(long, noise=no_noise) as simulation:
        for silo in simulation.silos.values():
            silo.rewrite = lambda step, frames: (bytes(33 << 20),) if step == "domain" else frames
        with pytest.raises(AnalystError, match="did not send the values of a domain"):
            simulation.federation.prepare(GROUPED, purpose=PURPOSE, epsilon=1.0)
        sent = next(data[0] for silo in simulation.silos.values() for step, data in silo.seen if step == "> domain")
        assert unverified(sent, DomainRequest).hash.hex() in hash_of(days(SIZE))


@pytest.mark.slow
def test_a_million_slots_are_answered_within_two_minutes(home: Path) -> None:
    """With its noise, at five silos that compute one after the other: 15 s on one core of a server."""
    lengthen(home, 1_000_000)
    with simulate(home) as simulation:
        began = time.monotonic()
        report = simulation.federation.query(GROUPED, purpose=PURPOSE, epsilon=1.0)
        took = time.monotonic() - began
        assert len(report.rows) + len(report.withheld_groups) == 1_000_000
        assert took < 120, f"{took:.1f} s"
        print(f"1,000,000 slots: {took:.1f} s")
