"""Start-up checks: each says what it found and what to do, and `serve` starts nothing before they hold."""

import shutil
import sqlite3
import time
from collections import namedtuple
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

import silo_node.serve
from analyst.cli.doctor import examine as analyst_findings
from analyst.cli.main import main as consilo
from federation.authority import opened, revoke
from federation.members.certificates import Identity, issue, new_certificate_request, read_transport_key, utc_now
from federation.operations.checks import Finding
from federation.operations.cluster import ensure_token
from policies.document.signatures import SUFFIX
from silo_node.actor import SiloActor
from silo_node.doctor import examine
from silo_node.errors import SiloError
from silo_node.home import ACCEPTED
from silo_node.ledger.store import LedgerStore
from silo_node.owner.cli import main
from silo_node.serve import FederatedSilo, Options, serve
from tests.harness.federated import ANALYST, NAME, SILOS, provision

FIRST_FORMAT = (
    "CREATE TABLE charges (nonce BLOB PRIMARY KEY CHECK (length(nonce) = 16), request_hash BLOB NOT NULL,"
    " analyst TEXT NOT NULL, purpose TEXT NOT NULL, micro_rho INTEGER NOT NULL CHECK (micro_rho > 0),"
    " policy_hash BLOB NOT NULL, state TEXT NOT NULL CHECK (state IN ('reserved', 'committed')),"
    " round_id BLOB, charged_at INTEGER NOT NULL, CHECK ((state = 'committed') = (round_id IS NOT NULL))"
    ") STRICT, WITHOUT ROWID;"
    "CREATE TABLE splits (round_id BLOB PRIMARY KEY, split_hash BLOB NOT NULL) STRICT, WITHOUT ROWID;"
    "INSERT INTO charges VALUES (zeroblob(16), x'01', 'ana', 'research', 70, x'02', 'committed', x'03', 5);"
    "PRAGMA user_version = 1;"
)


@pytest.fixture(scope="module")
def provisioned(founded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return provision(tmp_path_factory.mktemp("doctor") / "p", founded, "hub.example:8443", SILOS[:3])


@pytest.fixture
def place(provisioned: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(provisioned, tmp_path / "p"))


def found(place: Path, what: str, ahead_s: float = 0.0) -> Finding:
    """Return the finding of that name."""
    now = utc_now().timestamp() + ahead_s
    (finding,) = [one for one in examine(place / "aspen" / "policy.toml", lambda: now) if one.what == what]
    return finding


def test_a_silo_that_has_joined_is_in_order(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    certificate = place / "authority" / "authority.pem"
    key = read_transport_key(place / "authority" / "authority-tls.key")
    own = read_transport_key(place / "aspen" / "transport.key")
    request = new_certificate_request(own, Identity(NAME, "silo", "aspen"))
    (place / "aspen" / "transport.pem").write_bytes(issue(certificate.read_bytes(), key, request, utc_now(), 90))
    assert main(["doctor", "--policy", str(place / "aspen" / "policy.toml")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith("ok    ") for line in lines)
    assert {line[6:].split(":")[0] for line in lines} >= {
        "policy",
        "sources",
        "ledger",
        "membership",
        "certificate",
        "member",
        "aggregator",
        "clock",
        "free disk for ledger and logs",
        "free disk for Ray",
        "token of the Ray cluster",
    }


def test_a_check_makes_nothing_wherever_it_looks(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    before = sorted(place.rglob("*"))
    assert main(["doctor", "--policy", "aspen/policy.toml"]) == 0
    assert "ok    token of the Ray cluster: none yet: it is made on the first start" in capsys.readouterr().out
    for other in ("aspen", "authority/consilo.toml"):
        assert main(["doctor", "--policy", other]) == 1
        assert "FAIL  policy: " in capsys.readouterr().out
        assert main(["serve", "--policy", other]) == 1
    assert sorted(place.rglob("*")) == before
    ensure_token(place / "aspen" / "ray.token")
    assert found(place, "token of the Ray cluster").found == "readable by its owner only"


def test_a_certificate_that_expires_soon_is_a_warning_and_one_that_has_a_failure(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soon = found(place, "certificate", 86_400)
    assert soon.lines() == ["warn  certificate: expires in 29 days", "      -> rotate it: `consilo join --renew`"]
    assert main(["doctor", "--policy", str(place / "aspen" / "policy.toml")]) == 0, "serve starts"
    printed = capsys.readouterr().out
    assert "warn  certificate: expires in 30 days\n      -> rotate it" in printed
    assert "FAIL" not in printed
    past = found(place, "certificate", 40 * 86_400)
    assert past.lines()[0] == "FAIL  certificate: expired"
    assert (soon.state, past.state) == ("warn", "FAIL")
    assert consilo(["doctor", "--federation", str(place / ANALYST / "consilo.toml")]) == 0
    assert "warn  certificate of ana: expires in 30 days\n      -> rotate it" in capsys.readouterr().out


def test_nothing_starts_with_a_certificate_that_has_expired(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = place / "aspen" / "policy.toml"
    monkeypatch.setattr(silo_node.serve, "examine", lambda path: examine(path, lambda: time.time() + 40 * 86_400))
    with pytest.raises(SiloError, match="certificate: expired"):
        serve(Options(policy, 0), lambda _: None)


def test_a_clock_that_is_behind_is_said(place: Path) -> None:
    assert found(place, "clock").state == "ok"
    behind = found(place, "clock", -86_400.0)
    assert behind.state == "FAIL"
    assert "NTP" in behind.remedy


def test_a_full_disk_is_said(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1, 1, 5 << 20))
    assert found(place, "free disk for ledger and logs").state == "FAIL"
    assert found(place, "free disk for Ray").state == "FAIL"


def broken_policy(place: Path) -> None:
    policy = place / "aspen" / "policy.toml"
    policy.write_text(policy.read_text().replace("min_cohort", "min_cohrt"))


def trial(place: Path) -> None:
    policy = place / "aspen" / "policy.toml"
    policy.write_text(policy.read_text().replace('mode = "production"', 'mode = "trial"'))


def unsigned(place: Path) -> None:
    (place / "aspen" / f"policy.toml{SUFFIX}").unlink()


def no_successor(place: Path) -> None:
    policy = place / "aspen" / "policy.toml"
    shutil.copy(policy, policy.with_name(ACCEPTED))
    policy.write_text(policy.read_text().replace("min_cohort     = 25", "min_cohort     = 30"))


def no_data(place: Path) -> None:
    (place / "aspen" / "lung.parquet").unlink()


def newer_ledger(place: Path) -> None:
    with closing(sqlite3.connect(place / "aspen" / "ledger.sqlite")) as database:
        database.execute("PRAGMA user_version = 99")


def no_membership(place: Path) -> None:
    (place / "aspen" / "membership.log").unlink()


def revoked(place: Path) -> None:
    with opened(place / "authority" / "consilo.toml") as authority:
        revoke(authority, "aspen", "member", utc_now())
    shutil.copy(place / "authority" / "membership.log", place / "aspen" / "membership.log")


def open_token(place: Path) -> None:
    (place / "aspen" / "ray.token").write_text("x" * 64)
    (place / "aspen" / "ray.token").chmod(0o644)


@pytest.mark.parametrize(
    ("spoil", "what", "reason"),
    [
        (broken_policy, "policy", "min_cohrt"),
        (trial, "policy", 'says mode = "trial"; between organisations: mode = "production", signed'),
        (unsigned, "policy", "version 1 has 0 of 1 signatures (nobody signed)"),
        (no_successor, "policy", "this is version 1, version 1 was in force already"),
        (no_data, "sources", "lung.parquet is missing"),
        (newer_ledger, "ledger", "format 99, newer than"),
        (no_membership, "membership", "cannot read the membership log"),
        (revoked, "member", "is revoked"),
        (open_token, "token of the Ray cluster", "can be read by others"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_starts(
    place: Path, spoil: Callable[[Path], None], what: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(place)
    finding = found(place, what)
    assert finding.state == "FAIL"
    assert reason in finding.found
    assert finding.remedy
    policy = place / "aspen" / "policy.toml"
    assert main(["doctor", "--policy", str(policy)]) == 1
    assert f"FAIL  {what}: " in capsys.readouterr().out
    with pytest.raises(SiloError, match=what):
        serve(Options(policy, 0), lambda _: None)


def test_an_older_ledger_is_in_order_and_keeps_its_spending_when_it_is_upgraded(place: Path) -> None:
    path = place / "aspen" / "ledger.sqlite"
    with closing(sqlite3.connect(path)) as database:
        database.executescript(FIRST_FORMAT)
    finding = found(place, "ledger")
    assert finding.state == "ok"
    assert finding.found.startswith("format 1, brought to format ")
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA user_version").fetchone()[0] == 1, "a check changes nothing"
    store = LedgerStore(path)
    assert store.spending().lifetime == 70
    store.close()


def test_a_cluster_of_other_machines_needs_tls(place: Path) -> None:
    policy = place / "aspen" / "policy.toml"
    certificate = place / "authority" / "authority.pem"
    key = read_transport_key(place / "authority" / "authority-tls.key")
    own = read_transport_key(place / "aspen" / "transport.key")
    request = new_certificate_request(own, Identity(NAME, "silo", "aspen"))
    (place / "aspen" / "transport.pem").write_bytes(
        issue(certificate.read_bytes(), key, request, utc_now() - timedelta(days=1), 90)
    )
    for address in ("10.0.0.9:6379", "127.evil.example:6379", "127.0.0.1.evil.example:6379", "localhost.example:6379"):
        with pytest.raises(SiloError, match=f"{address} is not on this machine, and --ray-tls is not given"):
            serve(Options(policy, 0, ray_address=address), lambda _: None)
    for options in (Options(policy, 0, ray_tls=place), Options(policy, 0, node_address="10.0.0.9")):
        with pytest.raises(SiloError, match="are for a cluster that runs already"):
            serve(options, lambda _: None)


def test_a_production_policy_is_served_and_simulate_mode_refuses_it(place: Path) -> None:
    policy = place / "aspen" / "policy.toml"
    with pytest.raises(SiloError, match="simulate mode is one trust domain"):
        SiloActor(str(policy))
    silo = FederatedSilo(str(policy))
    try:
        assert silo.problem() is None
    finally:
        silo.close()


def test_a_policy_that_nobody_signed_is_not_served(place: Path) -> None:
    trial(place)
    silo = FederatedSilo(str(place / "aspen" / "policy.toml"))
    problem = silo.problem()
    assert problem is not None
    assert 'says mode = "trial"; between organisations: mode = "production", signed' in problem[0]
    assert "sign-policy" in problem[1]


def test_the_analysts_doctor_checks_certificate_and_standing(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toml = place / ANALYST / "consilo.toml"
    findings = {one.what: one for one in analyst_findings(toml)}
    assert findings["certificate of ana"].state == "warn"
    assert findings["membership of ana"].found == "version 6, hub is dialled"
    with opened(place / "authority" / "consilo.toml") as authority:
        revoke(authority, ANALYST, "member", utc_now())
    shutil.copy(place / "authority" / "membership.log", place / ANALYST / "membership.log")
    finding = {one.what: one for one in analyst_findings(toml)}["membership of ana"]
    assert finding.state == "FAIL"
    assert "is revoked" in finding.found
    assert consilo(["up", "--federation", str(toml)]) == 1
    assert "is a federation between organisations" in capsys.readouterr().err
