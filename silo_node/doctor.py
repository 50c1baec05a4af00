"""Start-up checks of a silo, each with what was found and what to do about it.

What `consilo-silo serve` does not start without has failed; what it starts with, but not for long, is due.
"""

import shutil
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from crypto.errors import CryptoError
from federation.members.credentials import Credentials
from federation.operations.checks import Finding, certificate_expiry, ok_if
from federation.operations.cluster import RAY_TOKEN, check_token
from policies.document.load import PolicyFile, load
from policies.document.policy import Policy
from policies.errors import PolicyError
from silo_node.data.consent import load_consent
from silo_node.data.sources import load_sources
from silo_node.errors import SiloError
from silo_node.home import LEDGER, check_admission, check_is_signed, read_credentials, read_home
from silo_node.ledger.database import format_of

MIN_FREE_BYTES = 1 << 30
MIN_RAY_BYTES = 1 << 30
CLOCK_SLACK_S = 300
NONE_YET = "none yet: it is made on the first start"


def examine(policy_path: Path, clock: Callable[[], float] = time.time) -> list[Finding]:
    """Run every check of the silo whose policy this is."""
    home = policy_path.resolve().parent
    findings: list[Finding] = []
    policy: Policy | None = None
    try:
        file = load(policy_path)
        policy = file.policy
        findings += _policy(file, int(clock()))
    except PolicyError as err:
        findings.append(Finding("policy", "FAIL", err.message.splitlines()[0], err.hint or "see check-policy"))
    credentials: Credentials | None = None
    if policy is not None:
        findings += _data(policy, home)
        try:
            credentials = read_credentials(home, policy.silo.id)
            findings.append(Finding("membership", "ok", f"version {len(credentials.log)} of {policy.silo.id}"))
        except (CryptoError, SiloError) as err:
            findings.append(Finding("membership", "FAIL", err.message, err.hint or "join the federation"))
    if credentials is not None:
        findings += _standing(credentials, clock())
        findings.append(_identity(policy_path))
    findings += _machine(home)
    return findings


def _policy(file: PolicyFile, now: int) -> Iterator[Finding]:
    try:
        check_is_signed(file.policy)
        accepted = check_admission(file, now)
        is_new = accepted is None or accepted.digest != file.digest
        state = "comes into force on the next start" if is_new else "in force"
        yield Finding("policy", "ok", f"{file.policy.silo.id}, mode {file.policy.mode}, {state}")
    except (SiloError, PolicyError) as err:
        yield Finding("policy", "FAIL", err.message.splitlines()[0], err.hint or "see sign-policy")


def _data(policy: Policy, home: Path) -> Iterator[Finding]:
    try:
        sources = load_sources(policy, home)
        load_consent(policy, home)
        yield Finding("sources", "ok", ", ".join(sources))
    except (SiloError, PolicyError) as err:
        yield Finding("sources", "FAIL", err.message, err.hint)
    try:
        version, expected = format_of(home / LEDGER)
        if version in (0, expected):
            yield Finding("ledger", "ok", f"format {expected}" if version else NONE_YET)
        elif version < expected:
            yield Finding("ledger", "ok", f"format {version}, brought to format {expected} on the next start")
        else:
            yield Finding("ledger", "FAIL", f"format {version}, newer than {expected}", "use the newer Consilo again")
    except PolicyError as err:
        yield Finding("ledger", "FAIL", err.message, err.hint)


def _standing(credentials: Credentials, now: float) -> Iterator[Finding]:
    certificate, membership = credentials.certificate(), credentials.membership
    yield certificate_expiry("certificate", certificate, datetime.fromtimestamp(now, UTC))
    try:
        membership.peer(certificate)
        yield Finding("member", "ok", credentials.identity.uri)
    except CryptoError as err:
        yield Finding("member", "FAIL", err.message, err.hint)
    aggregators = ", ".join(f"{one.name} at {one.address}" for one in membership.of_role("aggregator"))
    yield Finding("aggregator", ok_if(bool(aggregators)), aggregators or "none", "the authority admits one first")
    least = max(membership.made_at, certificate.not_valid_before_utc.timestamp()) - CLOCK_SLACK_S
    when = datetime.fromtimestamp(now, UTC)
    yield Finding(
        "clock", ok_if(now >= least), f"{when:%Y-%m-%dT%H:%M:%SZ}", "it is behind the membership: set it by NTP"
    )


def _identity(policy_path: Path) -> Finding:
    try:
        return Finding("identity key", "ok", str(read_home(policy_path).silo.signing.public))
    except (SiloError, PolicyError, CryptoError) as err:
        return Finding("identity key", "FAIL", err.message.splitlines()[0], err.hint or "restore identity.key")


def _machine(home: Path) -> Iterator[Finding]:
    for what, place, least in (
        ("free disk for ledger and logs", home, MIN_FREE_BYTES),
        ("free disk for Ray", Path("/tmp"), MIN_RAY_BYTES),  # noqa: S108  where Ray keeps its sessions
    ):
        free = shutil.disk_usage(place).free
        yield Finding(what, ok_if(free >= least), f"{free / 2**30:.1f} GiB in {place}", f"free {least / 2**30:.0f} GiB")
    try:
        state = "readable by its owner only" if check_token(home / RAY_TOKEN) else NONE_YET
        yield Finding("token of the Ray cluster", "ok", state)
    except CryptoError as err:
        yield Finding("token of the Ray cluster", "FAIL", err.message, err.hint)
