"""In production a silo admits a version only after those before it, and remembers which one is in force."""

from pathlib import Path

import pytest

from crypto.keys import Secret, SigningKey
from policies.errors import PolicySignatureError
from policies.load import load
from policies.signatures import SUFFIX, signature, written
from silo_node.home import ACCEPTED, Home, read_home

KEYS = {name: SigningKey(Secret(bytes([index]) * 32)) for index, name in enumerate(["dpo", "ciso"])}
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
