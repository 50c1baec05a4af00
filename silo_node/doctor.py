"""Start-up checks of a silo, each with its finding and a remedy.

A check fails if `consilo-silo serve` would not start, and warns if it would start now but not for much longer.
"""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from crypto.errors import CryptoError
from federation.members.credentials import Credentials
from federation.operations import ray_directory
from federation.operations.checks import Finding, certificate_expiry, closed_home, code, ok_if
from federation.operations.cluster import RAY_TOKEN, check_token
from policies.document.load import PolicyFile, load
from policies.document.policy import Policy
from policies.errors import PolicyError
from policies.units import counted, when
from silo_node.data.check import load_sources
from silo_node.data.consent import load_consent
from silo_node.data.locations import connect
from silo_node.data.measure import Measured, enough_for, is_covered, measure, proposed
from silo_node.data.prepared.reader import Reader, prepared_reader
from silo_node.data.prepared.store import state_of
from silo_node.data.row_profile import Profile, alarms_in, profile
from silo_node.data.sources import Source
from silo_node.errors import SiloError
from silo_node.home import LEDGER, check_admission, check_may_serve, read_credentials, read_home
from silo_node.ledger.database import format_of
from silo_node.ledger.witness import kept_in
from silo_node.profiles import beside_last

if TYPE_CHECKING:
    import duckdb

MIN_FREE_BYTES = 1 << 30
MIN_RAY_BYTES = 1 << 30
CLOCK_SLACK_S = 300
NONE_YET = "none yet: it is made on the first start"
NOT_PREPARED = "not prepared yet by these rules: its files are read when the silo starts"


def examine(policy_path: Path, clock: Callable[[], float] = time.time, *, is_measuring: bool = False) -> list[Finding]:
    """Run every check of the silo with this policy file; `is_measuring`, also time plans on its rows."""
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
        findings += _data(policy, home, int(clock()), is_measuring)
        try:
            credentials = read_credentials(home, policy.silo.id)
            findings.append(Finding("membership", "ok", f"version {len(credentials.log)} of {policy.silo.id}"))
        except (CryptoError, SiloError) as err:
            findings.append(Finding("membership", "FAIL", err.message, err.hint or "join the federation"))
    if credentials is not None:
        findings += _member(credentials, clock())
        findings.append(_identity(policy_path))
    findings += _machine(home)
    return findings


def enough_seconds(policy: Policy, home: Path, now: int) -> Decimal | None:
    """Return a time that is enough for every plan that was timed on a silo's rows; None if none is open.

    Raises SiloError or PolicyError where the rows cannot be read.
    """
    with connect() as connection:
        sources, found = load_sources(connection, policy, home), profile(connection, policy, home)
        return enough_for(_measured(policy, home, connection, sources, found, now)[0])


def _policy(file: PolicyFile, now: int) -> Iterator[Finding]:
    try:
        check_may_serve(file.policy)
        accepted = check_admission(file, now)
        is_new = accepted is None or accepted.digest != file.digest
        state = "comes into force on the next start" if is_new else "in force"
        yield Finding("policy", "ok", f"{file.policy.silo.id}, mode {file.policy.mode}, {state}")
    except (SiloError, PolicyError) as err:
        yield Finding("policy", "FAIL", err.message.splitlines()[0], err.hint or "see sign-policy")


def _data(policy: Policy, home: Path, now: int, is_measuring: bool) -> Iterator[Finding]:
    try:
        timed: tuple[Finding, ...] = ()
        with connect() as connection:
            sources = load_sources(connection, policy, home)
            found = profile(connection, policy, home)
            if is_measuring:
                timed = tuple(_times(policy, home, connection, sources, found, now))
        told, alarms = beside_last(home, found), alarms_in(policy, found)
        yield Finding("sources", "ok", ", ".join(sources))
        for line in told:
            what, _, words = line.partition(": ")
            yield Finding(f"rows of {what}" if what != "decisions" else what, "ok", words)
        for line in alarms:
            hint = "take the power of two that `consilo-silo doctor` proposes"
            if "can_be_missing" in line:
                hint = "take can_be_missing = false out of the policy, or mend the cells"
            yield Finding("declared rows", "warn", line, hint)
        for name, source in sources.items():
            if policy.sources[name].read == "prepared":
                yield _prepared(policy, home, source, now)
        yield from timed
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


def _prepared(policy: Policy, home: Path, source: Source, now: int) -> Finding:
    """Return when a prepared source was read, of what, and whether requests are refused as that is too long ago."""
    what, lasts_s = f"prepared {source.name}", policy.sources[source.name].prepared_s
    state = state_of(policy, home, source, partial(kept_in, home / LEDGER))
    if state is None:
        return Finding(what, "ok", NOT_PREPARED)
    read = f"{state.files} file{'s' * (state.files != 1)}" + (
        f", {state.file_bytes:,} bytes" if state.file_bytes else ""
    )
    found = f"{read}, read {when(state.read_at)}, seen unchanged {when(state.seen_at)}"
    if now - state.seen_at > lasts_s:
        declared = policy.sources[source.name].prepared_for or "1h"
        remedy = "the silo reads its files again when it starts; while it runs, silo.log says why it does not"
        return Finding(what, "warn", f"{found}: longer ago than prepared_for = {declared}, so it is refused", remedy)
    return Finding(what, "ok", f"{found}{'; its files have changed, and are read again' if state.is_changed else ''}")


def _times(
    policy: Policy,
    home: Path,
    connection: "duckdb.DuckDBPyConnection",
    sources: Mapping[str, Source],
    found: Profile,
    now: int,
) -> Iterator[Finding]:
    """Yield how long plans take on the rows, beside what the policy declares, and what it could declare."""
    compute = policy.compute
    rows, decided = {name: one.rows for name, one in found.sources.items()}, _decided(found)
    measures, is_prepared = _measured(policy, home, connection, sources, found, now)
    if not measures:
        yield Finding("declared time", "ok", "neither a question nor training is open, so nothing was timed")
        return
    most = max(one.seconds for one in measures)
    lines = "; ".join(proposed(measures, rows, decided).lines)
    steps = sum(one.is_step for one in measures)
    told = f"{counted(len(measures) - steps, 'question')}" + (
        f" and {counted(steps, 'step')} of training" if steps else ""
    )
    took = f"{told} took at most {most:.2f} s{'' if is_prepared else ', as the rows are not prepared yet'}"
    if compute is None or compute.fixed_seconds is None:
        yield Finding("declared time", "ok", f"none; {took}; twice that is {lines}")
    elif all(is_covered(policy, compute, one) for one in measures):
        yield Finding("declared time", "ok", f"{took}, as declared; twice that is {lines}")
    else:
        yield Finding("declared time", "warn", f"{took}, longer than declared", f"twice that is {lines}")


def _measured(
    policy: Policy,
    home: Path,
    connection: "duckdb.DuckDBPyConnection",
    sources: Mapping[str, Source],
    found: Profile,
    now: int,
) -> tuple[tuple[Measured, ...], bool]:
    """Return how long plans take on the rows, and whether these are prepared where the policy says so."""
    rows = {name: one.rows for name, one in found.sources.items()}
    decisions = load_consent(connection, policy, home)
    prepared = [source for name, source in sources.items() if policy.sources[name].read == "prepared"]
    kept = partial(kept_in, home / LEDGER)
    is_prepared = all(state_of(policy, home, source, kept) is not None for source in prepared)

    def reader_of(of: Policy) -> Reader | None:
        return prepared_reader(of, home, connection, sources, decisions, kept) if is_prepared else None

    decided = _decided(found)
    return measure(policy, connection, sources, decisions, rows, decided, now, reader_of=reader_of), is_prepared


def _decided(found: Profile) -> int:
    return 0 if found.decisions is None else found.decisions.decisions


def _member(credentials: Credentials, now: float) -> Iterator[Finding]:
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
    yield Finding("clock", ok_if(now >= least), when(int(now)), "it is behind the membership: set it by NTP")


def _identity(policy_path: Path) -> Finding:
    try:
        return Finding("identity key", "ok", str(read_home(policy_path).silo.signing.public))
    except (SiloError, PolicyError, CryptoError) as err:
        return Finding("identity key", "FAIL", err.message.splitlines()[0], err.hint or "restore identity.key")


def _machine(home: Path) -> Iterator[Finding]:
    free, least = shutil.disk_usage(home).free, MIN_FREE_BYTES
    found, remedy = f"{free / 2**30:.1f} GiB in {home}", f"free {least / 2**30:.0f} GiB"
    yield Finding("free disk for ledger and logs", ok_if(free >= least), found, remedy)
    yield closed_home(home)
    yield code()
    yield from ray_directory.findings(MIN_RAY_BYTES)
    try:
        state = "readable by its owner only" if check_token(home / RAY_TOKEN) else NONE_YET
        yield Finding("token of the Ray cluster", "ok", state)
    except CryptoError as err:
        yield Finding("token of the Ray cluster", "FAIL", err.message, err.hint)
