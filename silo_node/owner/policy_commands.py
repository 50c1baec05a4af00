"""The policy commands of `consilo-silo`: draft a policy, check it, compare two versions, sign one.

None of these commands runs a silo or spends anything; `check-policy --request` only shows a decision.
"""

import argparse
import difflib
import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from crypto.rounds.bounds import why_infeasible
from crypto.rounds.manifest import Recipient
from crypto.sealing import PUBLIC_BYTES
from crypto.wire import Name, digest_of
from federation.files import write_out
from federation.terminal import Commands, add_command
from policies.budget.accountant import charge, epsilon_of, micro_rho_of
from policies.budget.ledger import Spending, WindowSpending
from policies.budget.sampler import delta_for, rho_delta
from policies.decision.budget_rules import limits_of, months_of
from policies.decision.case import Jurisdictions
from policies.decision.computing import declared_ms, longest_seconds
from policies.decision.decide import decide
from policies.decision.eligibility import eligible_analyst
from policies.decision.sending import sending_ms
from policies.document import schema
from policies.document.agreement import agreed, clean, read_columns
from policies.document.answers import DELTA, add_answers, answers_of
from policies.document.catalogue import catalogue_of
from policies.document.columns import Source, check_uri, kind_of
from policies.document.diff import compare
from policies.document.domain_files import DomainError, put_beside
from policies.document.draft import PolicyDraft, drafted, to_fill_in
from policies.document.found import stored_table
from policies.document.load import PolicyFile, load, load_earlier
from policies.document.policy import Head, Policy, Vectors
from policies.document.purposes import ConsentTable
from policies.document.signatures import check_succession, in_words, quorums, read_signatures, signature, what_is_signed
from policies.document.sniff import sniff_file
from policies.document.stored_lists import with_lengths
from policies.domains import text_of
from policies.errors import PolicyError, reason_of
from policies.requests.catalogue import Catalogue
from policies.requests.computations import AnyComputation
from policies.requests.request import Request
from policies.requests.sending import sent_of
from policies.requests.tables import Table
from policies.units import MICRO, SEND_S, WAIT_S, counted
from silo_node.data.check import load_sources
from silo_node.data.locations import connect, location_of, types_of
from silo_node.data.measure import largest_ms
from silo_node.data.row_profile import alarms_in, profile
from silo_node.errors import HomeError, SiloError
from silo_node.home import ACCEPTED, accepted_in, check_may_serve, federation_of, write_signatures
from silo_node.owner.ledger_commands import person_key
from silo_node.profiles import NOTE, figures, keep, shown

_PLAN: TypeAdapter[AnyComputation] = TypeAdapter(AnyComputation)
_PLAN_TIMEOUT_S = 60
DENIED = 3


def add_commands(commands: Commands) -> None:
    """Add the policy commands to the parser of `consilo-silo`."""
    add = partial(add_command, commands)
    init = add("init", _init, "draft a policy from the names and types of a table's columns, never from its values")
    text = "a CSV or Parquet file, FILE.duckdb#TABLE, or env:NAME#TABLE for PostgreSQL"
    init.add_argument("source", metavar="SOURCE", help=text)
    init.add_argument("--silo", default="silo", metavar="NAME", help="the silo's name in the roster")
    init.add_argument(
        "--table", metavar="NAME", help="what the table is called; default: the name of the file or table"
    )
    init.add_argument("--id", metavar="COLUMN", help="the column that says whose row it is")
    add_answers(init)
    text = "what is public knowledge of columns, one line each; every other column stays closed"
    init.add_argument("--columns", type=Path, metavar="FILE", help=text)
    init.add_argument(
        "--out", type=Path, default=Path("policy.toml"), metavar="FILE", help="where the draft is written"
    )
    told = add("profile", _profile, "what the silo reads of its rows, for its owner alone")
    told.add_argument("file", type=Path, metavar="FILE", help="the policy.toml")
    told.add_argument("--format", choices=("json", "text"), default="json", help="default: json")
    check = add("check-policy", _check_policy, "check a policy file, and the data that it names")
    check.add_argument("file", type=Path, metavar="FILE", help="the policy.toml")
    check.add_argument("--request", metavar="SQL", help="also say what would be decided on this question, and why")
    check.add_argument("--purpose", metavar="PURPOSE", help="what the question is for; default: the analyst's first")
    check.add_argument("--analyst", metavar="NAME", help="who asks; default: the policy's first analyst")
    check.add_argument("--epsilon", type=float, help="what the answer may cost one person; default: 1")
    text = "say what a new version of a policy loosens, and what it tightens"
    diff = add("diff-policy", _diff_policy, text)
    diff.add_argument("old", type=Path, metavar="OLD", help="the version in force")
    diff.add_argument("new", type=Path, metavar="NEW", help="the version that is to follow it")
    sign = add("sign-policy", _sign_policy, "sign a policy, and say how many signatures it still needs")
    sign.add_argument("file", type=Path, metavar="FILE", help="the policy.toml")
    sign.add_argument(
        "--key", type=Path, metavar="KEY", help="your key file; without it nothing is signed, only counted"
    )
    sign.add_argument("--as", dest="who", metavar="NAME", help="your name in the policy's signed_by")
    text = f"the version in force; default: {ACCEPTED} beside FILE, if it is there"
    sign.add_argument("--previous", type=Path, metavar="OLD", help=text)
    sign.add_argument("--federation", metavar="NAME", help="the one it is for; default: as silo.toml beside FILE says")


def _init(options: argparse.Namespace) -> int:
    kind = kind_of(options.source)
    if kind is None:
        hint = "convert it first, or name a table: FILE.duckdb#TABLE, env:NAME#TABLE"
        raise SiloError(f"{options.source} is neither .csv nor .parquet", hint)
    try:
        TypeAdapter(Name).validate_python(options.silo)
    except ValidationError as err:
        hint = "use its name in the roster: letters, digits and ._@+/-, a letter or digit first, at most 120"
        raise SiloError(f"{options.silo!r} cannot be the name of a silo", hint) from err
    if options.out.exists():
        raise SiloError(f"{options.out} exists", "a policy is never overwritten; choose another place with --out")
    home, uri = options.out.resolve().parent, options.source
    path, mark, table = (uri, "", "") if kind in ("csv", "parquet") else uri.rpartition("#")
    if kind != "postgres":
        file = Path(path).resolve()
        uri = f"{file.relative_to(home) if file.is_relative_to(home) else file}{mark}{table}"
    try:
        check_uri(kind, uri)
    except ValueError as err:
        raise SiloError(str(err), "mend SOURCE") from err
    location = location_of("init", kind, uri, home)
    if kind == "csv":
        found = sniff_file(Path(path))
    else:
        with connect() as connection:
            types = types_of(connection, "init", location, uri)
        found = stored_table(with_lengths(types, Path(path)) if kind == "parquet" else types)
    if options.id is not None and options.id not in found.columns:
        listed = ", ".join(found.columns)
        raise SiloError(f"{options.source} has no column {options.id!r} (found: {listed})", "mend --id")
    columns = None if options.columns is None else read_columns(options.columns)
    answers = answers_of(options, (options.silo,))
    agreement = agreed({options.silo: found}, {options.silo: options.id}, columns, answers.opening)
    draft = PolicyDraft(
        command="consilo-silo init",
        silo=options.silo,
        table=clean(options.table or table.rpartition(".")[2] or Path(path).stem),
        kind=kind,
        uri=uri,
        found=found,
        columns=agreement.columns[options.silo],
        answers=answers,
        is_named=columns is not None,
    )
    text = f"#:schema ./{schema.FILE.name}\n{drafted(draft, str(options.out))}"
    try:
        put_beside(home, agreement.domains(options.silo))
    except DomainError as err:
        problem, _, hint = str(err).rpartition("; ")
        raise SiloError(problem, hint) from err
    write_out(options.out, text.encode())
    beside = home / schema.FILE.name
    if not beside.exists():
        write_out(beside, schema.FILE.read_bytes())
    todo = to_fill_in(text)
    width = counted(len(found.columns), "column")
    print(f"{options.out}: drafted from {width}; {'fill in:' if todo else 'nothing to fill in'}")
    for entry in todo:
        print(f"  {entry}")
    if answers.rho is not None:
        print(f"one person may spend rho {answers.rho} in a lifetime, epsilon {answers.epsilon:g} at delta {DELTA}")
    for note in agreement.notes:
        print(f"note: {note}")
    print(f"then: consilo-silo check-policy {options.out}")
    return 0


def _check_policy(options: argparse.Namespace) -> int:
    for name in ("purpose", "analyst", "epsilon"):
        if options.request is None and getattr(options, name) is not None:
            raise SiloError(f"--{name} is of a question, and there is none", f"add --request, or leave out --{name}")
    file = load(options.file)
    policy, home = file.policy, options.file.resolve().parent
    if options.request is not None:
        return _judge(file, options)
    with connect() as connection:
        load_sources(connection, policy, home)
        found = profile(connection, policy, home)
        told = shown(home, policy, found, int(time.time()))
    for warning in (*file.warnings, *alarms_in(policy, found)):
        print(f"warning: {warning}", file=sys.stderr)
    if policy.mode == "production":
        try:
            check_may_serve(policy)
        except SiloError as err:
            print(f"warning: {err.message}; {err.hint}", file=sys.stderr)
    delta = float(policy.budget.delta)
    least, most = policy.budget.request_micro
    print(f"{options.file}: in order (sha256 {file.digest.hex()})")
    print(f"  silo      {policy.silo.id}, {policy.silo.controller}, mode {policy.mode}")
    if policy.policy is not None:
        print(f"  version   {'; '.join(_validity(file, policy.policy, int(time.time())))}")
    for name, source in policy.sources.items():
        opened = ", ".join(
            f"{key} ({'/'.join(column.roles)})" for key, column in source.columns.items() if column.roles
        )
        print(f"  source    {name}: {opened or 'nothing is open'}")
        print(f"  read      {name}: {_reading(source)}")
    for name, purpose in policy.purposes.items():
        words: list[str] = [purpose.legal_basis, *([purpose.consent] if purpose.consent != "none" else [])]
        words += [word for word in (purpose.vocabulary, purpose.ethics_ref) if word is not None]
        if purpose.recipients_in is not None:
            words.append(f"stays in {' and '.join(purpose.recipients_in) or 'this silo'}")
        print(f"  purpose   {name}: {', '.join(words)}")
    for name, analyst in policy.analysts.items():
        print(f"  analyst   {name}: {', '.join(analyst.purposes) or 'no purpose'}, until {analyst.until:%Y-%m-%d}")
    if not policy.analysts:
        print("  analyst   none: nobody may ask")
    for rule in policy.approvals:
        when = ", ".join(f"{key} {value}" for key, value in rule.when.model_dump(exclude_none=True).items())
        print(f"  approval  {when or 'every request'}: {rule.need} of {', '.join(rule.of)}")
    aggregates, backends = policy.disclosure.aggregates, policy.protection.accept
    print(f"  answers   {', '.join(aggregates) or 'none'}, by {', '.join(backends) or 'none'}")
    lifetime = policy.budget.lifetime_micro / MICRO
    print(
        f"  budget    rho {least / MICRO:g} to {most / MICRO:g} a request, {lifetime:g} a lifetime"
        f" (epsilon {epsilon_of(lifetime, rho_delta(delta)):.2f} at delta {delta:g})"
    )
    print(f"  compute   {_computing(policy, int(time.time()))}")
    for line in (*_sending(policy.vectors), *(f"rows      {one}" for one in told)):
        print(f"  {line}")
    return 0


def _reading(source: Source) -> str:
    """Return when the rows of a source are read, in words."""
    if source.read == "every-request":
        return "at every request"
    return f"prepared, and used for {source.prepared_for or '1h'} after its files were last seen unchanged"


def _computing(policy: Policy, now: int) -> str:
    """Return how long computing may take by a policy's [compute], and for how many rows and decisions that is."""
    compute, most = policy.compute, longest_seconds(policy)
    if compute is None or compute.fixed_seconds is None:
        return f"no time is declared; a computation may take {most} s"
    consent = policy.consent
    decisions = consent.decisions_up_to if isinstance(consent, ConsentTable) else None
    counts = [f"{counted(one.rows_up_to, 'row')} of {name}" for name, one in policy.sources.items() if one.rows_up_to]
    counts += [] if decisions is None else [f"{decisions:,} decisions"]
    largest = largest_ms(policy, now)
    plan = "no plan is open" if largest is None else f"the largest plan is declared to take {largest / 1000:g} s"
    return f"{plan}, for up to {' and '.join(counts) or 'any number of rows'}; at most {most} s are computed"


def _sending(vectors: Vectors) -> Iterator[str]:
    """Yield how long vectors may be by a policy's [vectors] and how fast they are sent, where it says so itself."""
    if vectors == Vectors():
        return
    longest, rate = f"up to {vectors.max_values:,} values", f"{vectors.bytes_per_second:,} bytes a second"
    yield f"vectors   {longest}, sent at {rate}; up to {vectors.max_state_mb:,} MB of the state of a run"


def _profile(options: argparse.Namespace) -> int:
    policy, home = load(options.file).policy, options.file.resolve().parent
    with connect() as connection:
        found = profile(connection, policy, home)
    for warning in alarms_in(policy, found):
        print(f"warning: {warning}", file=sys.stderr)
    if options.format == "json":
        print(json.dumps(figures(found), indent=1))
        with suppress(OSError):
            keep(home, policy, found, int(time.time()))
        return 0
    for line in (NOTE, *shown(home, policy, found, int(time.time()))):
        print(line)
    return 0


def _validity(file: PolicyFile, head: Head, now: int) -> Iterator[str]:
    """Yield whether a version is valid now, how many people signed it, and whether it follows the one in force."""
    today = datetime.fromtimestamp(now, UTC)
    term = "not yet" if today < head.valid_from else "over" if today >= head.valid_until else "holds now"
    yield f"{head.version}, {head.valid_from:%Y-%m-%d} to {head.valid_until:%Y-%m-%d}: {term}"
    if head.signed_by is None:
        return
    try:
        accepted = accepted_in(file.path.resolve().parent, file)
        try:
            federation = federation_of(file.path.resolve().parent)
        except HomeError:
            yield "its signatures are counted beside the silo.toml of the federation that they name"
            return
        found = quorums(file, federation, read_signatures(file.path), accepted)
        yield str(found[0])
        if accepted is None:
            yield "the first one here" if head.previous is None else f"it follows another, and there is no {ACCEPTED}"
        elif accepted.digest == file.digest:
            yield "in force"
        else:
            yield f"by the version in force {found[1]}"
            check_succession(file, accepted)
            yield "it follows the version in force"
    except PolicyError as err:
        yield f"it cannot follow the version in force: {err.message.splitlines()[0]}"


def _judge(file: PolicyFile, options: argparse.Namespace) -> int:
    """Print the decision on a question, for a silo with an empty ledger and no approvals."""
    policy, now = file.policy, int(time.time())
    name = options.analyst or next((one.replace("*@", "somebody@") for one in policy.analysts), None)
    if name is None:
        raise SiloError("the policy names no analyst", "add --analyst NAME, or an [analysts.NAME] section")
    analyst = eligible_analyst(policy, name, now) or policy.analyst(name)
    if analyst is None:
        raise SiloError(f"{name!r} is not an analyst here", f"known: {', '.join(policy.analysts) or 'none'}")
    purpose = options.purpose or next(iter(analyst.purposes), next(iter(policy.purposes)))
    if purpose not in policy.purposes:
        near = difflib.get_close_matches(purpose, policy.purposes, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(policy.purposes)}"
        raise SiloError(f"unknown purpose {purpose!r}", hint)
    epsilon = 1.0 if options.epsilon is None else options.epsilon
    if not (math.isfinite(epsilon) and 0 < epsilon <= 100):
        raise SiloError(f"epsilon is {epsilon:g}", "expected a number above 0 and at most 100, such as 1")
    catalogue = catalogue_of(policy, analyst, "trial", file.digest, bytes(16), now)
    table, plan = _planned(options.request, catalogue)
    micro_rho = micro_rho_of(epsilon, delta_for(float(policy.budget.delta), table, plan))
    silos = _silos(policy)
    try:
        request = Request(
            federation="trial",
            nonce=sha256(f"{options.request} {now}".encode()).digest()[:16],
            analyst=name,
            recipients=(Recipient(name=name, key=bytes(PUBLIC_BYTES)),),
            purpose=purpose,
            micro_rho=micro_rho,
            silos=silos,
            backend="masking",
            round_key=b"",
            sealed_secrets=(),
            table=table,
            plan=plan,
            created_at=now,
            expires_at=now + 600,
        )
    except ValidationError as err:
        reason = reason_of(err)
        raise SiloError(f"the question cannot be asked: {reason}", "mend --epsilon or the question") from err
    digest = digest_of(request)
    windows = limits_of(policy, purpose, now, months_of(policy, request, now))
    spent = Spending(lifetime=0, windows=tuple(WindowSpending(0, 0) for _ in windows))
    jurisdictions = Jurisdictions(
        dict.fromkeys(silos, policy.silo.jurisdiction), {"aggregator": policy.silo.jurisdiction}
    )
    denials = decide(policy, request, digest, spent, now, now, (), jurisdictions, now)
    cost = charge(request, policy.privacy_unit.max_silos)
    verdict = "refused" if denials else "answered"
    print(f"{verdict}: {name} for {purpose}, at {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(now))}")
    print(f"  cost      rho {cost / MICRO:g} of {policy.budget.lifetime_micro / MICRO:g}, epsilon {epsilon:g}")
    declared = declared_ms(policy, request)
    if declared is not None:
        print(f"  time      {declared / 1000:g} s at most, by [compute]; a request waits {WAIT_S} s, or its --deadline")
    sends, sent = sending_ms(policy, request), sent_of(request)
    if sends is not None:
        of = f"{sends // 1000} s at most for {sent.input_bytes:,} bytes, by [vectors]"
        print(f"  sending   {of}; a request waits {SEND_S} s, or its --send-deadline")
    for denial in denials:
        print(f"  {denial.code} ({denial.rule}): {denial.message}")
        print(f"    -> {denial.remedy}")
    print(f"  supposed  {len(silos)} silos and an aggregator in {policy.silo.jurisdiction}, nothing spent before,")
    print("            fresh decisions on consent, no approval given yet")
    return DENIED if denials else 0


def _silos(policy: Policy) -> tuple[str, ...]:
    """Return the smallest roster that meets the policy's conditions; 100 silos if none does."""
    disclosure, protection = policy.disclosure, policy.protection
    conditions = disclosure.min_silos, protection.max_colluding, protection.max_missing
    count = next((count for count in range(3, 100) if not why_infeasible(count, *conditions)), 100)
    return tuple(sorted({policy.silo.id, *(f"other-{number:02}" for number in range(1, count))}))


def _planned(sql: str, catalogue: Catalogue) -> tuple[Table, AnyComputation]:
    """Plan a question, or several, with the analyst's program, in its own process, as a silo never reads SQL."""
    domains = catalogue.domains
    try:
        found = subprocess.run(  # noqa: S603
            [sys.executable, "-P", "-m", "analyst.sql", sql],
            input=b"\n".join((catalogue.encode(), *(text_of(one.known) for one in domains.values()))),
            capture_output=True,
            timeout=_PLAN_TIMEOUT_S,
            check=False,
        )
        answer: Any = json.loads(found.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired) as err:
        raise SiloError("the question could not be planned", "check that consilo is installed here") from err
    if "error" in answer:
        raise SiloError(str(answer["error"]), str(answer["hint"]))
    table = Table.model_validate_json(json.dumps(answer["table"]))
    return table.resolved(domains), _PLAN.validate_json(json.dumps(answer["plan"]))


def _diff_policy(options: argparse.Namespace) -> int:
    old, new = load_earlier(options.old), load(options.new)
    changes = compare(old.policy, new.policy)
    for effect in ("loosens", "tightens", "neither"):
        for change in changes:
            if change.effect == effect:
                print(change)
    if not changes:
        print("both say the same")
    elif any(change.effect == "loosens" for change in changes):
        print("it loosens something, so it needs one signature more than signed_by.need")
    return 0


def _sign_policy(options: argparse.Namespace) -> int:
    file = load(options.file)
    beside = options.previous is None
    accepted = accepted_in(options.file.resolve().parent, file) if beside else load_earlier(options.previous)
    signatures = list(read_signatures(options.file))
    if accepted is not None and accepted.digest != file.digest:
        check_succession(file, accepted)
    head = file.policy.policy
    if accepted is None and head is not None and head.previous is not None:
        hint = "a version that loosens anything needs one signature more, so name the version in force"
        raise SiloError("this policy follows another, which is not beside it", f"add --previous OLD: {hint}")
    federation = federation_of(options.file.resolve().parent, options.federation)
    if options.key is not None:
        if options.who is None:
            raise SiloError("--key needs --as", "give your name in signed_by")
        key = person_key(options.key)
        before = {name for quorum in quorums(file, federation, signatures, accepted) for name in quorum.signed}
        if options.who not in before:
            made = signature(file, federation, options.who, key, int(time.time()))
            print("\n".join(what_is_signed(file, accepted)))
            signatures.append(made)
            write_signatures(options.file, signatures)
            print(f"{options.who} signed {options.file} for {federation} (sha256 {file.digest.hex()})")
    print("\n".join(in_words(quorums(file, federation, signatures, accepted))))
    return 0
