"""In production a silo admits a version only after those before it, and remembers which one is in force."""

import io
from pathlib import Path

import pytest

from crypto.keys import Secret, SigningKey, write_key_file
from policies.document.load import load
from policies.document.signatures import SUFFIX, signature, written
from policies.errors import PolicySignatureError
from silo_node.home import ACCEPTED, Home, read_home
from silo_node.owner.cli import main

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
    text = head + rest + "".join(f'[people.{name}]\nkey = "{key.public}"\n' for name, key in KEYS.items())
    policy.write_text(text)
    file = load(policy)
    signed = [signature(file, name, KEYS[name], NOW) for name in signers]
    policy.with_name(policy.name + SUFFIX).write_text(written(signed))
    return read_home(policy)


def named(home: Path) -> str:
    return f"sha256:{load(home / ACCEPTED).digest.hex()}"


def test_versions_are_admitted_one_after_the_other(home: Path) -> None:
    silo = home / "silos" / "aspen"
    with pytest.raises(PolicySignatureError, match="0 of 1 signatures"):
        install(silo, 1, signers=()).admit(NOW)
    assert not (silo / ACCEPTED).exists()
    install(silo, 1).admit(NOW)
    assert not (silo / ACCEPTED).stat().st_mode & 0o077
    first = named(silo)
    install(silo, 1).admit(NOW)  # a restart
    with pytest.raises(PolicySignatureError, match="1 of 2 signatures, one more as it loosens something"):
        install(silo, 2, first, rho="2.0").admit(NOW)
    assert named(silo) == first
    install(silo, 2, first, rho="2.0", signers=("dpo", "ciso")).admit(NOW)
    second = named(silo)
    assert second != first
    with pytest.raises(PolicySignatureError, match="version 2 was in force already"):
        install(silo, 1).admit(NOW)
    install(silo, 3, second, rho="0.5").admit(NOW)
    with pytest.raises(PolicySignatureError, match="holds from"):
        install(silo, 4, named(silo), rho="0.5").admit(NOW + 20 * 365 * 24 * 3600)


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
    assert sign("dpo") == (
        0,
        [f"dpo signed {policy} (sha256 {digest})", "not enough by this version: 1 of 2 signatures (dpo signed)"],
    )
    assert sign("dpo") == (0, ["not enough by this version: 1 of 2 signatures (dpo signed)"]), "one person, once"
    status, said = sign("ciso", key="dpo")
    assert (status, said[0]) == (1, "consilo-silo: error: this is not the key of 'ciso' in the policy")
    status, said = sign("eve")
    assert (status, said[0]) == (1, "consilo-silo: error: 'eve' does not sign this policy")
    with pytest.raises(PolicySignatureError, match="1 of 2 signatures"):
        read_home(policy).admit(NOW)
    assert sign("ciso")[1][-1] == "enough by this version: 2 of 2 signatures (ciso, dpo signed)"
    read_home(policy).admit(NOW)

    policy = put(silo, 2, named(silo), rho="2.0")
    assert sign("dpo")[1][1:] == [
        "not enough by this version: 1 of 2 signatures (dpo signed)",
        "not enough by the version in force: 1 of 3 signatures, one more as it loosens something (dpo signed)",
    ]
    assert sign("ciso")[1][1:] == [
        "enough by this version: 2 of 2 signatures (ciso, dpo signed)",
        "not enough by the version in force: 2 of 3 signatures, one more as it loosens something (ciso, dpo signed)",
    ]
    with pytest.raises(PolicySignatureError, match="2 of 3 signatures, one more as it loosens something"):
        read_home(policy).admit(NOW)
    assert sign("owner")[1][-1].startswith("enough by the version in force: 3 of 3 signatures")
    assert main(["sign-policy", str(policy)]) == 0
    assert capsys.readouterr().out.count("enough by") == 2, "without --key it only counts"
    read_home(policy).admit(NOW)
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
    install(silo, 1).admit(NOW)
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
    (policy.parent / f"policy.toml{SUFFIX}.partial").mkdir()
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
    install(silo, 1).admit(NOW)
    before = (silo / ACCEPTED).read_bytes()
    (silo / "policy.toml").write_text((silo / "policy.trial").read_text().replace("rho = 1.0", "rho = 90.0"))
    with pytest.raises(PolicySignatureError, match=r'says mode = "trial".* expected mode = "production"'):
        read_home(silo / "policy.toml").admit(NOW)
    assert (silo / ACCEPTED).read_bytes() == before


def test_a_trial_needs_nobody(home: Path) -> None:
    silo = home / "silos" / "aspen"
    read_home(silo / "policy.toml").admit(NOW)
    assert not (silo / ACCEPTED).exists()
