"""What people are shown of a request before they decide on it: everything that their verdict binds.

Promise: each field of the signed request changes these words or, of what is too long for words, a SHA-256 in them.
Text that an analyst chose is escaped. `signed_text` is the very text whose SHA-256 a verdict signs, and with whose
first digits people name the request. A kind of computation needs nothing of its own here: its fields are listed.
"""

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from hashlib import sha256

from policies.budget.accountant import epsilon_of
from policies.budget.sampler import rho_delta
from policies.decision.budget_rules import cost_of_run, run_limit_of
from policies.decision.compiled import SourceColumns, compiled, facts_of
from policies.decision.joins import columns_of
from policies.document.policy import Policy
from policies.domains import LongDomain
from policies.requests.request import Request, shared_by_run
from policies.requests.tables import TableColumn
from policies.units import MICRO, counted, when

_DIGITS = 32  # hexadecimal ones of a fingerprint: 128 bits
_FEW = 20  # values of a domain that is the policy's own, which the policy lists anyway
_SAID = {
    *("kind", "where", "group_by", "aggregates", "cases", "inner"),
    *("label", "features", "steps", "release", "step", "after", "prefixes", "plans", "weights"),
}
Line = tuple[str, str]  # what it is about, and what is said


def signed_text(request: Request) -> str:
    """Return the text whose SHA-256 is the subject of a verdict: the request, or what all steps of a run share."""
    part = request.plan.part
    return (request if part is None else shared_by_run(request, part)).encode().decode()


def whole_price(policy: Policy, request: Request, of_run: int) -> int:
    """Return what a request costs one person at this silo, in micro-rho; of a part of a run, the whole run.

    `of_run` is what the run has spent without this part.
    """
    cost, part = facts_of(request, policy.privacy_unit.max_silos).cost, request.plan.part
    return cost if part is None else cost_of_run(part, cost, of_run)


def _recipients(request: Request) -> Iterator[str]:
    yield from (f"{one.name} (key {_fingerprint(one.key)})" for one in request.recipients)
    step = request.plan.training
    if step is not None and step.released_to is not None:
        yield f"of the model at its end also {step.released_to.name} (key {_fingerprint(step.released_to.key)})"


def in_words(policy: Policy, request: Request, of_run: int) -> tuple[Line, ...]:
    """Return everything that a verdict on a request binds, line by line."""
    return (
        ("asks", request.plan.in_words(request.table.shown)),
        ("analyst", f"{request.analyst}, in {request.federation}"),
        ("purpose", request.purpose),
        ("price", _price(policy, request, of_run)),
        *_parts(request),
        *_definition(policy, request),
        ("silos", _silos(request)),
        ("recipients", "; ".join(_recipients(request))),
        ("sum", _sum(request)),
        *_times(request),
    )


def _price(policy: Policy, request: Request, of_run: int) -> str:
    whole, part = whole_price(policy, request, of_run), request.plan.part
    entity = policy.privacy_unit.entity
    if not whole:
        return f"none: without noise, nothing bounds what is learned of one {entity}"
    delta = float(policy.budget.delta)
    text = f"rho {_rho(whole)}, epsilon {epsilon_of(whole / MICRO, rho_delta(delta)):.2f} at delta {delta:g}"
    if part is None:
        return f"{text}, to each {entity}; signed with rho {_rho(request.micro_rho)}"
    each = facts_of(request, policy.privacy_unit.max_silos).cost
    most = run_limit_of(policy, request)
    limit = "" if most is None else f", up to rho {_rho(most)} in all"
    steps = counted(part.steps, "step")
    text += f", to each {entity}: {steps} at rho {_rho(each)}, signed with rho {_rho(request.micro_rho)}"
    return f"{text}; steps that are repeated add to it{limit}"


def _rho(micro_rho: int) -> str:
    return f"{micro_rho / MICRO:.6f}"


def _parts(request: Request) -> Iterator[Line]:
    """Yield every field of the computation that its sentence does not say."""
    run, parts = request.plan.part, request.plan.alone
    for place, part in enumerate(parts, 1):
        which = f"statement {place}: " if len(parts) > 1 else ""
        figures = getattr(part, "aggregates", ())
        if figures:
            named = (f"{one.in_words()} as {quoted(one.alias)}" for one in figures)
            yield f"{which}figures", ", ".join(named)
        others = {name: getattr(part, name) for name in type(part).model_fields if name not in _SAID}
        said = [f"{name} {_value(value)}" for name, value in others.items() if value not in (None, ())]
        if said:
            yield f"{which}{'with' if run is None else 'run'}", ", ".join(said)
    if len(parts) > 1:
        portions = enumerate(request.plan.portions, 1)
        yield "divided", ", ".join(f"statement {place}: {part / whole:.1%}" for place, (part, whole) in portions)


def _value(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_value, value))
    return value.hex() if isinstance(value, bytes) else quoted(str(value))


def _definition(policy: Policy, request: Request) -> Iterator[Line]:
    table, unit = request.table, policy.privacy_unit
    known = f"who may be known to {counted(table.max_silos, 'silo')}"
    rows = f"up to {counted(table.max_rows, 'row')} of one {unit.entity}, {known}"
    yield "rows", f"{rows}; the policy says {unit.max_rows} and {unit.max_silos}"
    if table.max_norm is not None or unit.max_norm is not None:
        yield "norm", f"{_norm(request)}; the policy says {'none' if unit.max_norm is None else unit.max_norm}"
    source = columns_of(compiled(policy), table)
    read = facts_of(request, unit.max_silos).read
    for column in table.columns:
        text = _column(column, source, request.created_at)
        yield f"column {column.name}", text if column.name in read else f"{text}; it is not used"


def _norm(request: Request) -> str:
    """Return the norm that bounds a person's rows, and how many rows it lets in."""
    table = request.table
    if table.max_norm is None:
        return "none"
    if request.plan.training is not None:
        return f"{table.max_norm}, which bounds nothing in training"
    counts = dict.fromkeys(part.group_count(table) for part in request.plan.alone)
    said = (f"over {count:,} groups" if count > 1 else "without groups" for count in counts)
    rows = (
        f"{over}, so up to {counted(table.most_rows(count), 'row')}" for count, over in zip(counts, said, strict=True)
    )
    return f"{table.max_norm} {'; '.join(rows)}"


def _column(column: TableColumn, source: SourceColumns | None, at: int) -> str:
    """Return a definition in words, and beside it the policy's own where that is another one."""
    own = None if source is None else source.definition(column.name, at)
    if own is None:
        return f"{_worded(column, is_short=False)}; the policy does not open it"
    if source is not None and source.is_own(column, at):
        return f"{_worded(column, is_short=True)}, as the policy defines it"
    return f"{_worded(column, is_short=False)}; the policy has: {_worded(own, is_short=True)}"


def _worded(column: TableColumn, is_short: bool) -> str:
    parts: list[str] = [column.kind_in_words]
    if column.low is not None and column.high is not None:
        step = Decimal(column.step or 1)
        parts.append(f"{column.low * step:f} to {column.high * step:f} by {column.step}")
    domain = column.domain
    if isinstance(domain, LongDomain):
        parts.append(f"one of {domain.size:,} values of {domain.name}")
    elif domain and is_short and len(domain) > _FEW:
        parts.append(f"one of {len(domain):,} values from {quoted(domain[0])} to {quoted(domain[-1])}")
    elif domain:
        parts.append(f"one of {', '.join(map(quoted, domain))}")
    if column.unknown is not None:
        parts.append(f"{quoted(column.unknown)} for all else")
    if not column.can_be_missing:
        parts.append("never missing")
    return ", ".join(parts)


def _silos(request: Request) -> str:
    text = f"{len(request.silos)}: {', '.join(request.silos)}"
    if request.or_without:
        text += f"; or without up to {request.or_without} of them"
    replaces = request.replaces
    if replaces is None:
        return text
    earlier = ", ".join(f"{one.request_hash.hex()} (nonce {one.nonce.hex()})" for one in replaces.requests)
    proofs = _fingerprint(b"".join(sha256(one).digest() for one in replaces.evidence))
    return f"{text}; in the place of {earlier}, without {', '.join(replaces.left_out)} (proofs {proofs})"


def _sum(request: Request) -> str:
    """Return how silos' vectors are summed; the round key of a run is another one at each step."""
    if request.plan.part is not None or not (request.round_key or request.sealed_secrets):
        return request.backend
    secrets = _fingerprint(b"".join(sha256(one).digest() for one in request.sealed_secrets))
    return f"{request.backend}, key {_fingerprint(request.round_key)}, its secret sealed as {secrets}"


def _times(request: Request) -> Iterator[Line]:
    if request.plan.part is not None:
        yield "signed", f"{when(request.created_at)}, until {when(request.expires_at)}; each step of the run anew"
        return
    yield "signed", f"{when(request.created_at)}, until {when(request.expires_at)}, nonce {request.nonce.hex()}"
    sends = "" if request.send_seconds is None else f", {request.send_seconds} s for each to send a long vector"
    yield "waits", f"{request.waits_s} s for the silos to compute{sends}"


def _fingerprint(data: bytes) -> str:
    return f"sha256:{sha256(data).hexdigest()[:_DIGITS]}"


def quoted(text: str) -> str:
    """Return a plain word as it is, any other text as ASCII JSON, since an analyst may have written it."""
    return text if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*|-?[0-9]+(\.[0-9]+)?", text) else json.dumps(text)
