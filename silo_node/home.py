"""A silo's own directory: everything of a silo lies beside its policy file.

* policy.toml: the policy, and beside it the data files that it names
* policy.toml.signatures: who signed it
* policy.accepted.toml: the version that was in force last, with mode = "production"
* identity.key: the silo's signing key (mode 0600)
* silo.toml: the federation, its authority's verification key, and the tick of contributions
* roster.signed: who belongs to the federation, signed by the authority
* ledger.sqlite: what was spent
* silo.log: what went wrong, for the owner only
* silo.lock: held while the silo runs; serve.lock: while `consilo-silo serve` does
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from crypto.certificates import Identity
from crypto.credentials import Credentials, hold, replace_file
from crypto.keys import SigningKey, VerifyKey, read_key_file
from crypto.membership import Keeper
from crypto.roster import read_roster
from crypto.sealing import SealingKey
from policies.document.load import PolicyFile, load
from policies.document.policy import Policy
from policies.document.signatures import admit, read_signatures
from policies.errors import PolicySignatureError
from silo_node.errors import HomeError
from silo_node.rounds.states import Silo

LEDGER = "ledger.sqlite"
ACCEPTED = "policy.accepted.toml"
_KEYS = {"federation": str, "authority": str, "tick_ms": int}


def lock_home(path: Path) -> TextIO:
    """Hold the directory for one running silo, until the returned file is closed or the process ends.

    Two processes of one silo would undo each other's reservations. Raises HomeError if another holds it.
    """
    hint = "wait for the other command, or let `consilo up` keep one federation for all of them"
    return _lock(path / "silo.lock", "this silo is running already", hint)


def lock_serving(path: Path) -> TextIO:
    """Hold the directory for one `consilo-silo serve`, whose actor holds `lock_home`; raises HomeError.

    Apart from the actor's, as a serving process ends an actor that an earlier one has left.
    """
    return _lock(path / "serve.lock", "this silo is served already", "stop the other `consilo-silo serve` first")


def _lock(path: Path, held: str, hint: str) -> TextIO:
    file = hold(path)
    if file is None:
        raise HomeError(held, hint)
    return file


@dataclass(frozen=True, slots=True)
class Home:
    """A silo ready to start, apart from its ledger and its data."""

    path: Path
    silo: Silo
    tick_s: float
    policy: PolicyFile

    def admit(self, now: int) -> None:
        """Take the policy into force if it may run, and remember it; raises PolicyError if it may not."""
        kept = self.path / ACCEPTED
        accepted = check_admission(self.policy, now)
        if self.silo.policy.mode == "production" and (accepted is None or accepted.digest != self.policy.digest):
            replace_file(kept, self.policy.raw, 0o600)


def check_is_signed(policy: Policy) -> None:
    """Raise HomeError for a policy that nobody signs: between organisations it does not run."""
    if policy.mode == "trial":
        raise HomeError(
            f'the policy of {policy.silo.id!r} says mode = "trial"; between organisations: mode = "production", signed',
            "name who signs it in signed_by, then `consilo-silo sign-policy`; see docs/federated.md, section 1",
        )


def check_admission(file: PolicyFile, now: int) -> PolicyFile | None:
    """Return the version in force, None before the first; raises PolicyError unless `file` may run after it.

    A policy with mode = "trial" is signed by nobody, so it may run only where no signed one ever did.
    """
    kept = file.path.resolve().parent / ACCEPTED
    accepted = load(kept) if kept.exists() else None
    if file.policy.mode == "production":
        admit(file, read_signatures(file.path), accepted, now)
    elif accepted is not None:
        raise PolicySignatureError(
            'the policy says mode = "trial", and a signed version was in force here; expected mode = "production"',
            f"sign a version that follows {kept}, or try things out in another directory",
        )
    return accepted


def read_home(policy_path: Path) -> Home:
    """Read the directory around a policy; raises HomeError, CryptoError or PolicyError."""
    path = policy_path.resolve().parent
    file = load(policy_path)
    settings = _read_settings(path)
    roster = read_roster(path / "roster.signed", VerifyKey.parse(settings["authority"]))
    root = read_key_file(path / "identity.key")
    signing, sealing = SigningKey(root), SealingKey(root)
    name = file.policy.silo.id
    if roster.federation != settings["federation"]:
        message = f"the roster is of {roster.federation!r}, silo.toml names {settings['federation']!r}"
        raise HomeError(message, "ask the federation's authority for its roster")
    if roster.silo_keys.get(name) != signing.public or roster.recipients([name])[0].key != sealing.public:
        message = f"the roster does not name {name!r} with this identity key"
        raise HomeError(message, "restore identity.key, or ask the authority for a roster that names it")
    silo = Silo(
        name=name,
        federation=roster.federation,
        signing=signing,
        sealing=sealing,
        roster=roster,
        silos=roster.silo_keys,
        aggregators=roster.aggregator_keys,
        policy=file.policy,
        policy_hash=file.digest,
    )
    return Home(path, silo, settings["tick_ms"] / 1000, file)


def read_credentials(path: Path, name: str) -> Credentials:
    """Read what the silo's directory holds for its connections; raises HomeError or CryptoError."""
    settings = _read_settings(path)
    keeper = Keeper(settings["federation"], VerifyKey.parse(settings["authority"]))
    return Credentials(path, keeper, Identity(keeper.federation, "silo", name))


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        settings = tomllib.loads((path / "silo.toml").read_text())
        if set(settings) != set(_KEYS) or any(type(settings[key]) is not kind for key, kind in _KEYS.items()):
            raise ValueError(f"expected exactly the keys {', '.join(_KEYS)}")
        if not 0 <= settings["tick_ms"] <= 60_000:
            raise ValueError(f"tick_ms is {settings['tick_ms']}, expected 0 to 60000")
    except (OSError, ValueError) as err:
        raise HomeError(
            f"{path / 'silo.toml'} cannot be read ({err})", "it names federation, authority, tick_ms"
        ) from err
    return settings
