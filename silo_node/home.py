"""A silo's own directory, which has all of the silo's files.

* policy.toml: the policy; the data files that it names are usually in the same directory
* policy.toml.signatures: the signatures of the policy
* policy.accepted.toml: the last version in force with mode = "production"
* policy.accepted.domains: the domains that stand in files, of the versions that were in force, by their hashes
* identity.key: the silo's signing key (mode 0600)
* silo.toml: the federation, its authority's verification key, and the tick of contributions
* roster.signed: the silos and aggregators of the federation, signed by the authority
* ledger.sqlite: the ledger and the log
* networks: packed networks under their hashes, and the signed approvals of them; see `silo_node.graphs.kept`
* rounds: what aggregators signed in the silo's rounds, for receipts
* silo.log: errors, for the owner only
* silo.lock: locked while the silo runs; serve.lock: locked while `consilo-silo serve` runs
"""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, TextIO

from crypto.errors import MembershipError
from crypto.keys import SigningKey, VerifyKey, read_key_file
from crypto.sealing import SealingKey
from federation.files import replace_file
from federation.members.certificates import Identity
from federation.members.credentials import IDENTITY_KEY, ROSTER, Credentials, hold
from federation.members.membership import LOG, Membership, TrustAnchor
from federation.members.roster import read_roster
from policies.document.domain_files import KEPT as DOMAINS
from policies.document.domain_files import kept_name
from policies.document.load import PolicyFile, load, load_earlier
from policies.document.policy import Policy
from policies.document.signatures import SUFFIX, admit, read_signatures, written
from policies.domains import text_of
from policies.errors import LedgerError, PolicySignatureError
from silo_node.errors import HomeError
from silo_node.graphs.kept import KeptNetworks
from silo_node.ledger.checkpoints import check_tolerated
from silo_node.ledger.events import PolicyInForce, RosterInForce
from silo_node.ledger.witness import in_force
from silo_node.rounds.states import Silo

LEDGER = "ledger.sqlite"
ACCEPTED = "policy.accepted.toml"
SETTINGS = "silo.toml"
_KEYS = {"federation": str, "authority": str, "tick_ms": int}


def lock_home(path: Path) -> TextIO:
    """Lock the directory for one running silo, until the returned file is closed or the process ends.

    Two processes of one silo would undo each other's reservations. Raises HomeError if another one has the lock.
    """
    hint = "wait for the other command, or let `consilo up` keep one federation for all of them"
    return _lock(path / "silo.lock", "this silo is running already", hint)


def lock_serving(path: Path) -> TextIO:
    """Lock the directory for one `consilo-silo serve`, whose actor has the lock of `lock_home`; raises HomeError.

    There are two locks, because a serving process ends an actor that an earlier one has left.
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

    def check(self, now: int) -> RosterInForce | None:
        """Return the roster for the log if the policy is signed; raises PolicyError unless both may be in force."""
        check_admission(self.policy, now)
        if self.silo.policy.mode != "production":
            return None
        roster = self.silo.roster
        new = RosterInForce(version=roster.version, digest=sha256(roster.encode()).digest())
        known = in_force(self.path / LEDGER, RosterInForce)
        if known is not None and (new.version, new.digest) != (known.version, known.digest):
            if new.version == known.version:
                message = f"{ROSTER} of version {new.version} differs from the one that the log names"
                raise HomeError(message, "the authority, or who has its key, tells two stories: compare the logs")
            if new.version < known.version:
                message = f"{ROSTER} is of version {new.version}, version {known.version} was in force already"
                raise HomeError(message, f"put the newest {LOG} back: the authority and every member have it")
        return new

    def keep(self) -> None:
        """Keep a copy of the policy in force, if it is signed, for the version after it; the log names it already."""
        kept = self.path / ACCEPTED
        if self.silo.policy.mode == "production" and not (kept.exists() and kept.read_bytes() == self.policy.raw):
            named = self._keep_domains()
            replace_file(kept, self.policy.raw, 0o600)
            for file in (self.path / DOMAINS).glob("*"):  # of versions that are no more in force
                if file.name not in named:
                    file.unlink(missing_ok=True)

    def _keep_domains(self) -> set[str]:
        """Keep a copy of every domain that stands in a file, so that the next version can be compared with this one.

        Return their names.
        """
        columns = (column for source in self.silo.policy.sources.values() for column in source.columns.values())
        named = set[str]()
        for column in columns:
            if column.domain_hash is not None:
                (self.path / DOMAINS).mkdir(mode=0o700, exist_ok=True)
                named.add(name := kept_name(column.domain_hash))
                replace_file(self.path / DOMAINS / name, text_of(column.members), 0o600)
        return named


def check_may_serve(policy: Policy) -> None:
    """Raise HomeError for a policy that does not run in federated mode: one that is unsigned, or states no time."""
    if policy.mode == "trial":
        raise HomeError(
            f'the policy of {policy.silo.id!r} says mode = "trial"; between organisations: mode = "production", signed',
            "name who signs it in signed_by, then `consilo-silo sign-policy`; see docs/federated.md, section 1",
        )
    if policy.compute is None or not policy.compute.states_time:
        raise HomeError(
            f"the policy of {policy.silo.id!r} states no time, so the time of a contribution could tell of rows",
            "`consilo-silo put-in-force FILE` measures it and writes [compute] into the next version",
        )


def check_admission(file: PolicyFile, now: int) -> PolicyFile | None:
    """Return the version in force, None before the first; raises PolicyError unless `file` may run after it.

    A policy with mode = "trial" is unsigned, so it may run only if no signed policy ran here before.
    """
    kept = file.path.resolve().parent / ACCEPTED
    accepted = accepted_in(kept.parent, file)
    if file.policy.mode == "production":
        admit(file, federation_of(kept.parent), read_signatures(file.path), accepted, now)
    elif accepted is not None:
        raise PolicySignatureError(
            'the policy says mode = "trial", and a signed version was in force here; expected mode = "production"',
            f"sign a version that follows {kept}, or try things out in another directory",
        )
    return accepted


def accepted_in(home: Path, file: PolicyFile | None = None) -> PolicyFile | None:
    """Return the signed version in force in a silo's directory; None before the first. Raises PolicyError.

    The log says which it is. The copy beside it only has its text, and a lost one is no loss while `file` has it too.
    """
    kept, known = home / ACCEPTED, in_force(home / LEDGER, PolicyInForce)
    is_known = known is not None and known.is_signed
    if file is not None and known is not None and is_known and file.digest == known.policy_hash:
        return file
    accepted = load_earlier(kept) if kept.exists() else None
    if known is None or not is_known or (accepted is not None and accepted.digest == known.policy_hash):
        return accepted
    state = "gone" if accepted is None else "another"
    raise PolicySignatureError(
        f"version {known.version} was in force here, says the log, and {kept} is {state}",
        f"put the file with the SHA-256 {known.policy_hash.hex()} back as {ACCEPTED}",
    )


def write_signatures(policy: Path, signatures: Iterable[bytes]) -> None:
    """Write the file of signatures beside a policy."""
    replace_file(policy.with_name(policy.name + SUFFIX), written(signatures).encode(), 0o644)


def read_home(policy_path: Path) -> Home:
    """Read the directory around a policy; raises HomeError, CryptoError or PolicyError."""
    path = policy_path.resolve().parent
    file = load(policy_path)
    settings = _read_settings(path)
    roster = read_roster(path / ROSTER, VerifyKey.parse(settings["authority"]))
    root = read_key_file(path / IDENTITY_KEY)
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
        graphs=KeptNetworks(path, path / LEDGER),
    )
    return Home(path, silo, settings["tick_ms"] / 1000, file)


def read_credentials(path: Path, name: str) -> Credentials:
    """Read the silo's files for its connections; raises HomeError or CryptoError."""
    settings = _read_settings(path)
    anchor = TrustAnchor(settings["federation"], VerifyKey.parse(settings["authority"]))
    return Credentials(path, anchor, Identity(anchor.federation, "silo", name), partial(check_aggregators, path))


def check_aggregators(path: Path, membership: Membership) -> None:
    """Raise MembershipError for a membership with fewer aggregators than the silo's policy needs at a start."""
    tolerated = load(path / "policy.toml").policy.aggregators
    aggregators = len(membership.of_role("aggregator"))
    try:
        check_tolerated(tolerated, aggregators)
    except LedgerError as err:
        raise MembershipError(f"the newer membership is refused: {err.message}", err.hint) from err


def federation_of(home: Path, named: str | None = None) -> str:
    """Return the federation of a silo's directory, or the one that a person names elsewhere; raises HomeError."""
    if not (home / SETTINGS).exists():
        if named is not None:
            return named
        hint = "sign in the silo's directory, after `consilo join`, or name the federation: --federation NAME"
        raise HomeError(f"a policy is signed for a federation, and {home} has no {SETTINGS}", hint)
    known = str(_read_settings(home)["federation"])
    if named not in (None, known):
        raise HomeError(f"{home / SETTINGS} names {known!r}, not {named!r}", "leave out --federation")
    return known


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        settings = tomllib.loads((path / SETTINGS).read_text())
        if set(settings) != set(_KEYS) or any(type(settings[key]) is not kind for key, kind in _KEYS.items()):
            raise ValueError(f"expected exactly the keys {', '.join(_KEYS)}")
        if not 0 <= settings["tick_ms"] <= 60_000:
            raise ValueError(f"tick_ms is {settings['tick_ms']}, expected 0 to 60000")
    except (OSError, ValueError) as err:
        raise HomeError(
            f"{path / 'silo.toml'} cannot be read ({err})", "it names federation, authority, tick_ms"
        ) from err
    return settings
