"""In production a silo admits a version only after those before it, and remembers which one is in force."""

import io
import os
import re
import shutil
import time
from contextlib import closing
from pathlib import Path

import pytest

from crypto.errors import MembershipError
from crypto.keys import Secret, SigningKey, read_key_file, write_key_file
from federation.authority import opened, revoke
from federation.members.certificates import utc_now
from federation.members.credentials import IDENTITY_KEY, ROSTER
from federation.members.membership import LOG
from policies.document.catalogue import definition_of
from policies.document.describe import worded_policy
from policies.document.diff import compare
from policies.document.domain_files import KEPT, kept_name
from policies.document.load import load, load_earlier, parse
from policies.document.signatures import SUFFIX, signature, written
from policies.domains import hash_of, text_of
from policies.errors import PolicyFileError, PolicySignatureError
from policies.units import DAY_S
from silo_node.actor import LaunchedSilo
from silo_node.home import ACCEPTED, LEDGER, Home, federation_of, read_credentials, read_home
from silo_node.ledger.events import PolicyInForce
from silo_node.ledger.log import Signer
from silo_node.ledger.retention import Due
from silo_node.ledger.store import LedgerStore
from silo_node.owner.cli import main
from silo_node.serve import FederatedSilo
from tests.harness.domains import FILE, GROUPED, days, lengthen
from tests.harness.federated import add_member, add_silo, give_membership, provision

ROOTS = {name: Secret(bytes([index]) * 32) for index, name in enumerate(["dpo", "ciso", "owner", "eve"])}
KEYS = {name: SigningKey(ROOTS[name]) for name in ("dpo", "ciso")}
OWNER = SigningKey(ROOTS["owner"])
NOW = 1_800_000_000


def install(home: Path, number: int, previous: str = "", rho: str = "1.0", signers: tuple[str, ...] = ("dpo",)) -> Home:
    """Put a version into the directory of a demo silo, signed by these people, and read it."""
    policy = home / "policy.toml"
    backup = home / "policy.trial"
    if not backup.exists():
        backup.write_text(policy.read_text())
    text = backup.read_text().replace('mode   = "trial"', 'mode   = "production"').replace("rho = 1.0", f"rho = {rho}")
    head, sep, rest = text.partition("version     = 1")
    assert sep
    follows = f'previous = "{previous}"\n' if previous else ""
    head += f'version = {number}\n{follows}signed_by = {{ need = 1, of = ["dpo", "ciso"] }}'
    text = f"{head}{rest}[compute]\nseconds = 20\n" + "".join(
        f'[people.{name}]\nkey = "{key.public}"\n' for name, key in KEYS.items()
    )
    policy.write_text(text)
    file = load(policy)
    signed = [signature(file, federation_of(home), name, KEYS[name], NOW) for name in signers]
    policy.with_name(policy.name + SUFFIX).write_text(written(signed))
    return read_home(policy)


def admit(home: Home, now: int) -> None:
    """Put a policy in force, without a ledger."""
    home.check(now)
    home.keep()


def serve(home: Path) -> str:
    """Start the silo of a directory as `serve` does, and end it; return why it does not start, empty if it does."""
    silo = FederatedSilo(str(home / "policy.toml"), sleep=lambda _: None)
    problem = silo.problem()
    if problem is None:
        silo.close()
        return ""
    return problem[0]


def named(home: Path) -> str:
    return f"sha256:{load_earlier(home / ACCEPTED).digest.hex()}"


def test_versions_are_admitted_one_after_the_other(home: Path) -> None:
    silo = home / "silos" / "aspen"
    with pytest.raises(PolicySignatureError, match="0 of 1 signatures"):
        admit(install(silo, 1, signers=()), NOW)
    assert not (silo / ACCEPTED).exists()
    admit(install(silo, 1), NOW)
    assert not (silo / ACCEPTED).stat().st_mode & 0o077
    first = named(silo)
    admit(install(silo, 1), NOW)  # a restart
    with pytest.raises(PolicySignatureError, match="1 of 2 signatures, one more as it loosens something"):
        admit(install(silo, 2, first, rho="2.0"), NOW)
    assert named(silo) == first
    admit(install(silo, 2, first, rho="2.0", signers=("dpo", "ciso")), NOW)
    second = named(silo)
    assert second != first
    with pytest.raises(PolicySignatureError, match="version 2 was in force already"):
        admit(install(silo, 1), NOW)
    admit(install(silo, 3, second, rho="0.5"), NOW)
    with pytest.raises(PolicySignatureError, match="holds from"):
        admit(install(silo, 4, named(silo), rho="0.5"), NOW + 20 * 365 * 24 * 3600)


def put(home: Path, number: int, previous: str = "", rho: str = "1.0") -> Path:
    """Put a version that two of three people sign into the directory, unsigned; return the policy file."""
    install(home, number, previous, rho, ())
    policy = home / "policy.toml"
    owner = f'[people.owner]\nkey = "{OWNER.public}"\n'
    of_two = policy.read_text().replace('need = 1, of = ["dpo", "ciso"]', 'need = 2, of = ["dpo", "ciso", "owner"]')
    policy.write_text(of_two + owner)
    policy.with_name(policy.name + SUFFIX).unlink()
    return policy


def test_people_sign_by_the_command_and_the_silo_admits_what_they_signed(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    silo, files = home / "silos" / "aspen", {}
    for name, root in ROOTS.items():
        files[name] = home / f"{name}.key"
        write_key_file(files[name], root)

    def sign(who: str, key: str = "") -> tuple[int, list[str]]:
        status = main(["sign-policy", str(policy), "--as", who, "--key", str(files[key or who])])
        said = capsys.readouterr()
        return status, (said.out + said.err).splitlines()

    policy = put(silo, 1)
    digest = load(policy).digest.hex()
    status, said = sign("dpo")
    assert (status, said[0]) == (0, "Who and what:"), "all of a first version is shown to who signs it"
    for sentences in (found for _, found in worded_policy(load(policy).policy)):
        assert {f"  {one}" for one in sentences} <= set(said)
    assert said[-2:] == [
        f"dpo signed {policy} for {federation_of(silo)} (sha256 {digest})",
        "not enough by this version: 1 of 2 signatures (dpo signed)",
    ]
    assert sign("dpo") == (0, ["not enough by this version: 1 of 2 signatures (dpo signed)"]), "one person, once"
    status, said = sign("ciso", key="dpo")
    assert (status, said[0]) == (1, "consilo-silo: error: this is not the key of 'ciso' in the policy")
    status, said = sign("eve")
    assert (status, said[0]) == (1, "consilo-silo: error: 'eve' does not sign this policy")
    with pytest.raises(PolicySignatureError, match="1 of 2 signatures"):
        admit(read_home(policy), NOW)
    assert sign("ciso")[1][-1] == "enough by this version: 2 of 2 signatures (ciso, dpo signed)"
    admit(read_home(policy), NOW)

    policy = put(silo, 2, named(silo), rho="2.0")
    status, said = sign("dpo")
    assert said[:-3] == [str(one) for one in compare(load(policy.with_name(ACCEPTED)).policy, load(policy).policy)]
    assert any(line.startswith("loosens   budget.lifetime.rho: 1 -> 2") for line in said), (
        "and of a later one, what differs"
    )
    assert said[-2:] == [
        "not enough by this version: 1 of 2 signatures (dpo signed)",
        "not enough by the version in force: 1 of 3 signatures, one more as it loosens something (dpo signed)",
    ]
    assert sign("ciso")[1][-2:] == [
        "enough by this version: 2 of 2 signatures (ciso, dpo signed)",
        "not enough by the version in force: 2 of 3 signatures, one more as it loosens something (ciso, dpo signed)",
    ]
    with pytest.raises(PolicySignatureError, match="2 of 3 signatures, one more as it loosens something"):
        admit(read_home(policy), NOW)
    assert sign("owner")[1][-1].startswith("enough by the version in force: 3 of 3 signatures")
    assert main(["sign-policy", str(policy)]) == 0
    assert capsys.readouterr().out.count("enough by") == 2, "without --key it only counts"
    admit(read_home(policy), NOW)
    assert named(silo) == f"sha256:{load(policy).digest.hex()}"


def test_check_policy_says_whether_a_version_may_run(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    silo = home / "silos" / "aspen"

    def version() -> str:
        assert main(["check-policy", str(silo / "policy.toml")]) == 0, "the file itself is in order"
        (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  version")]
        return line.removeprefix("  version   ")

    term = "2026-01-01 to 2036-01-01: holds now"
    put(silo, 1)
    assert version() == f"1, {term}; 0 of 2 signatures (nobody signed); the first one here"
    admit(install(silo, 1), NOW)
    assert version() == f"1, {term}; 1 of 1 signatures (dpo signed); in force"
    first = named(silo)
    install(silo, 2, first, rho="2.0")
    assert version() == (
        f"2, {term}; 1 of 1 signatures (dpo signed); by the version in force 1 of 2 signatures, one more as it loosens"
        " something (dpo signed); it follows the version in force"
    )
    install(silo, 3, f"sha256:{'0' * 64}")
    assert version().endswith("it cannot follow the version in force: previous does not name the version in force")
    policy = install(silo, 1).path / "policy.toml"
    policy.write_text(policy.read_text().replace("2036-01-01", "2026-06-01", 1))
    assert version().startswith("1, 2026-01-01 to 2026-06-01: over; 0 of 1 signatures (nobody signed)")
    policy.write_text(policy.read_text().replace("2026-01-01", "2100-01-01").replace("2026-06-01", "2100-06-01"))
    assert version().startswith("1, 2100-01-01 to 2100-06-01: not yet; ")
    (silo / ACCEPTED).unlink()
    install(silo, 4, f"sha256:{'0' * 64}")
    assert version().endswith("it follows another, and there is no policy.accepted.toml")


def test_a_key_with_a_passphrase_and_no_terminal_gives_one_line(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    policy, key = put(home / "silos" / "aspen", 1), home / "dpo.key"
    write_key_file(key, ROOTS["dpo"], lambda: "correct horse battery staple")
    monkeypatch.setattr("sys.stdin", io.StringIO("correct horse battery staple\n"))
    assert main(["sign-policy", str(policy), "--as", "dpo", "--key", str(key)]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "consilo-silo: error: a passphrase is needed, and there is no terminal to ask for it",
        "consilo-silo: hint: run it in a terminal",
    ]


def test_a_place_that_cannot_be_written_is_no_defect(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    policy, key = put(home / "silos" / "aspen", 1), home / "dpo.key"
    write_key_file(key, ROOTS["dpo"])
    (policy.parent / f"policy.toml{SUFFIX}.{os.getpid()}.partial").mkdir()
    assert main(["sign-policy", str(policy), "--as", "dpo", "--key", str(key)]) == 1
    error, hint = capsys.readouterr().err.splitlines()
    assert error.startswith("consilo-silo: error: Is a directory: ")
    assert hint == "consilo-silo: hint: check the path and the free disk space"


def test_a_signature_is_of_the_bytes_that_were_signed(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    silo = home / "silos" / "aspen"
    install(silo, 1)
    policy = silo / "policy.toml"
    policy.write_text(policy.read_text() + "# one more line\n")
    assert main(["sign-policy", str(policy)]) == 0
    assert capsys.readouterr().out == "not enough by this version: 0 of 1 signatures (nobody signed)\n"


def test_a_trial_does_not_follow_a_signed_version(home: Path) -> None:
    silo = home / "silos" / "aspen"
    admit(install(silo, 1), NOW)
    before = (silo / ACCEPTED).read_bytes()
    (silo / "policy.toml").write_text((silo / "policy.trial").read_text().replace("rho = 1.0", "rho = 90.0"))
    with pytest.raises(PolicySignatureError, match=r'says mode = "trial".* expected mode = "production"'):
        admit(read_home(silo / "policy.toml"), NOW)
    assert (silo / ACCEPTED).read_bytes() == before


def remembered(home: Path) -> list[int]:
    with closing(LedgerStore(home / LEDGER)) as store:
        return [one.event.version for one in store.entries(100) if isinstance(one.event, PolicyInForce)]


def test_the_log_is_the_witness_of_the_version_in_force(home: Path) -> None:
    """Whoever can write the directory puts an older policy back, with and without the copy of the one in force."""
    silo = home / "silos" / "aspen"
    install(silo, 1)
    assert serve(silo) == ""
    first = (silo / ACCEPTED).read_bytes()
    install(silo, 2, named(silo), rho="0.1")
    assert serve(silo) == ""
    second = (silo / ACCEPTED).read_bytes()
    install(silo, 1)
    assert serve(silo) == "this is version 1, version 2 was in force already"
    said = "version 2 was in force here, says the log, and"
    (silo / ACCEPTED).write_bytes(first)  # as if the older one were in force
    assert re.match(f"{said} .* is another$", serve(silo))
    (silo / ACCEPTED).unlink()
    assert re.match(f"{said} .* is gone$", serve(silo))
    install(silo, 9, f"sha256:{'0' * 64}", rho="9.0")  # a higher version, after one that never was
    assert serve(silo).endswith("is gone")
    (silo / ACCEPTED).write_bytes((silo / "policy.toml").read_bytes())  # which says that it is in force itself
    assert serve(silo).endswith("is another")
    (silo / ACCEPTED).unlink()
    (silo / "policy.toml").write_text((silo / "policy.trial").read_text())  # unsigned, as before the first version
    problem = LaunchedSilo(str(silo / "policy.toml")).problem()
    assert problem is not None
    assert problem[0].endswith("is gone")
    assert remembered(silo) == [1, 2]
    (silo / ACCEPTED).write_bytes(second)
    install(silo, 3, named(silo), rho="0.05")
    assert serve(silo) == ""
    assert remembered(silo) == [1, 2, 3]


def test_a_lost_copy_of_the_version_in_force_is_made_again(home: Path) -> None:
    silo = home / "silos" / "aspen"
    install(silo, 1)
    assert serve(silo) == ""
    (silo / ACCEPTED).unlink()
    assert serve(silo) == ""
    assert (silo / ACCEPTED).read_bytes() == (silo / "policy.toml").read_bytes()


def test_the_commands_know_the_version_in_force_from_the_log(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    silo = home / "silos" / "aspen"
    install(silo, 1)
    assert serve(silo) == ""
    install(silo, 2, named(silo), rho="0.1")
    assert serve(silo) == ""
    (silo / ACCEPTED).unlink()
    install(silo, 1)
    policy, key = silo / "policy.toml", home / "dpo.key"
    write_key_file(key, ROOTS["dpo"])
    said = "version 2 was in force here, says the log, and"
    assert main(["sign-policy", str(policy), "--as", "dpo", "--key", str(key)]) == 1
    assert said in capsys.readouterr().err
    assert main(["put-in-force", str(policy), "--signer", f"dpo={key}"]) == 1
    assert said in capsys.readouterr().err
    assert main(["check-policy", str(policy)]) == 0
    assert said in capsys.readouterr().out
    main(["doctor", "--policy", str(policy)])
    assert said in capsys.readouterr().out


def test_what_is_in_force_outlives_the_entries_that_are_erased(home: Path) -> None:
    silo = home / "silos" / "aspen"
    install(silo, 1)
    assert serve(silo) == ""
    install(silo, 2, named(silo), rho="0.1")
    assert serve(silo) == ""
    key = SigningKey(read_key_file(silo / "identity.key"))
    later = int(time.time()) + 365 * DAY_S
    with closing(LedgerStore(silo / LEDGER, Signer("aspen", "consilo-demo", key), lambda: later)) as store:
        store.erase(Due(audit=later - DAY_S))
        assert all(one.at == later for one in store.entries(100)[1:]), "the older ones are erased, but for the last"
        assert remembered(silo) == [2]
    (silo / ACCEPTED).unlink()
    install(silo, 1)
    assert serve(silo).endswith("is gone")


def test_the_log_is_the_witness_of_the_members(tmp_path: Path, home: Path) -> None:
    """Older members are put back, among them one that was revoked since; then a roster of the same number."""
    federation = provision(tmp_path / "federation", home)
    silo = federation / "aspen"
    assert serve(silo) == ""
    before = (silo / ROSTER).read_bytes(), (silo / LOG).read_bytes()
    with opened(federation / "authority" / "consilo.toml") as authority:
        revoke(authority, "rowan", "member", utc_now())
    give_membership(federation, "aspen")
    read_credentials(silo, "aspen")
    assert serve(silo) == ""
    newest = (silo / ROSTER).read_bytes(), (silo / LOG).read_bytes()
    for name, content in zip((ROSTER, LOG), before, strict=True):
        (silo / name).write_bytes(content)
    read_credentials(silo, "aspen")
    assert "version 9 was in force already" in serve(silo)
    for name, content in zip((ROSTER, LOG), newest, strict=True):
        (silo / name).write_bytes(content)
    assert serve(silo) == ""


def test_a_trial_needs_nobody(home: Path) -> None:
    silo = home / "silos" / "aspen"
    admit(read_home(silo / "policy.toml"), NOW)
    assert not (silo / ACCEPTED).exists()


def test_new_values_in_a_file_are_compared_with_those_in_force(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lengthen(home, 2000)
    silo = home / "silos" / "aspen"

    def change(size: int) -> None:
        """Write another file of the same name, and its hash into the next version."""
        backup, now = silo / "policy.trial", hash_of(days((silo / FILE).read_text().count("\n")))
        (silo / FILE).write_bytes(text_of(days(size)))
        backup.write_text(backup.read_text().replace(now, hash_of(days(size))))

    admit(install(silo, 1), NOW)
    change(1999)
    first = named(silo)
    admit(install(silo, 2, first), NOW)  # fewer values tighten
    admit(install(silo, 2, first), NOW)  # a restart
    change(2001)
    with pytest.raises(PolicySignatureError, match="1 of 2 signatures, one more as it loosens something"):
        admit(install(silo, 3, named(silo)), NOW)
    capsys.readouterr()
    assert main(["diff-policy", str(silo / ACCEPTED), str(silo / "policy.toml")]) == 0
    said = capsys.readouterr().out.splitlines()
    assert "loosens   sources.lung.columns.survival.domain: adds 1998, 1999" in said
    assert main(["check-policy", str(silo / "policy.toml")]) == 0
    assert "one more as it loosens something" in capsys.readouterr().out
    admit(install(silo, 3, named(silo), signers=("dpo", "ciso")), NOW)
    assert [path.name for path in (silo / KEPT).iterdir()] == [kept_name(hash_of(days(2001)))], "of the one in force"
    assert not any(path.stat().st_mode & 0o077 for path in (silo / KEPT).iterdir())


@pytest.mark.process
def test_a_question_over_a_domain_in_a_file_is_judged_beforehand(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lengthen(home, 2000)
    policy = str(home / "silos" / "aspen" / "policy.toml")
    assert main(["check-policy", policy, "--request", GROUPED, "--epsilon", "0.5"]) == 0
    assert capsys.readouterr().out.startswith("answered: ")


def test_a_membership_that_leaves_too_few_aggregators_for_the_policy_is_refused(founded: Path, tmp_path: Path) -> None:
    path = provision(tmp_path / "p", founded, silos=("aspen",))
    add_member(path, "second", "aggregator", "127.0.0.1:2")
    give_membership(path, "aspen")
    policy = path / "aspen" / "policy.toml"
    policy.write_text(policy.read_text() + "\n[aggregators]\nmax_dishonest = 1\n")
    kept = read_credentials(path / "aspen", "aspen")
    known, roster = len(kept.log), (path / "aspen" / "roster.signed").read_bytes()
    with opened(path / "authority" / "consilo.toml") as authority:
        revoke(authority, "second", "member", utc_now())
    give_membership(path, "aspen")
    with pytest.raises(MembershipError, match="needs 2 aggregators, the roster has 1"):
        kept.refresh()
    assert len(kept.log) == known
    assert (path / "aspen" / "roster.signed").read_bytes() == roster
    policy.write_text(policy.read_text().replace("max_dishonest = 1", "max_dishonest = 0"))
    assert kept.refresh()


def test_a_replaced_identity_key_does_not_come_back(tmp_path: Path, home: Path) -> None:
    # Hope: whoever has the identity key that aspen gave up, of a machine that was sold, goes on as aspen.
    federation = provision(tmp_path / "federation", home)
    silo, old = federation / "aspen", tmp_path / "old"
    assert serve(silo) == ""
    with opened(federation / "authority" / "consilo.toml") as authority:
        revoke(authority, "aspen", "member", utc_now())
    silo.rename(old)
    add_silo(federation, home, "aspen")
    give_membership(federation, "aspen")
    read_credentials(silo, "aspen")
    assert serve(silo) == "", "the silo goes on with another key and a ledger of its own"
    new = read_home(silo / "policy.toml").silo.signing.public
    key, roster, log = ((silo / name).read_bytes() for name in (IDENTITY_KEY, ROSTER, LOG))

    (silo / IDENTITY_KEY).write_bytes((old / IDENTITY_KEY).read_bytes())
    assert "the roster does not name 'aspen' with this identity key" in serve(silo)
    for name in (ROSTER, LOG):  # and the members of that time
        (silo / name).write_bytes((old / name).read_bytes())
    assert "was in force already" in serve(silo), "the log of the new ledger knows better"
    shutil.move(silo / LEDGER, silo / "ledger.of.the.new.key")
    shutil.copy(old / LEDGER, silo / LEDGER)  # and the ledger: it is the old machine then, which nobody takes for aspen
    give_membership(tmp_path / "federation", "birch")
    membership = read_credentials(federation / "birch", "birch").membership
    assert membership.find("aspen").key == str(new)
    lost = read_home(old / "policy.toml").silo.signing.public
    assert str(lost).encode() in membership.revoked, "it is never valid again"
    for name, content in ((IDENTITY_KEY, key), (ROSTER, roster), (LOG, log)):
        (silo / name).write_bytes(content)
    assert "its checkpoint does not verify" in serve(silo), "nor is the old ledger one of the new key"
    shutil.move(silo / "ledger.of.the.new.key", silo / LEDGER)
    assert serve(silo) == ""


def test_an_older_adopted_definition_is_a_policy_that_does_not_run(home: Path) -> None:
    # Hope: the definition that all silos adopted is changed back where it stands, so that one answers by other bounds.
    silo = home / "silos" / "aspen"
    trial, policy = silo / "policy.trial", silo / "policy.toml"
    text = policy.read_text()

    def adopting(bounds: str) -> str:
        changed = text.replace("bounds = [30, 90]", bounds)
        adopted = definition_of(parse(changed.encode(), "policy.toml"), "lung")
        return changed.replace('kind = "parquet"', f'kind = "parquet"\nadopts = "{adopted}"')

    trial.write_text(adopting("bounds = [30, 90]"))
    install(silo, 1)
    assert serve(silo) == ""
    trial.write_text(adopting("bounds = [30, 100]"))
    install(silo, 2, named(silo), signers=("dpo", "ciso"))
    assert serve(silo) == ""
    newest = policy.read_text()
    with pytest.raises(PolicyFileError, match="the columns here give another"):
        parse(newest.replace("bounds = [30, 100]", "bounds = [30, 90]").encode(), "policy.toml")
    trial.write_text(adopting("bounds = [30, 90]"))
    install(silo, 1)
    assert serve(silo) == "this is version 1, version 2 was in force already"
