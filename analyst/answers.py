"""What came back: check a report, open it, and tell what each silo did; or say why there is no report.

    StoredReport --check--> CheckedReport --open_sum--> OpenedSum --report_of--> Report

Promise: no figure comes out of a report that was not checked (`crypto.rounds.opening`), and no denial that its silo
did not sign for this very request.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from analyst.errors import DeniedError, RoundError
from analyst.reports.estimates import interpret, rho_of
from analyst.reports.report import Report, SiloOutcome
from analyst.sql.draft import Planned
from analyst.sql.offer import Offer
from crypto.errors import ProtocolError
from crypto.rounds.messages import Failure
from crypto.rounds.opening import CheckedReport, OpenedSum, check_report, open_report
from crypto.rounds.recount import check_chunk, choose_chunks
from crypto.rounds.report import StoredReport
from crypto.sealing import SealingKey
from crypto.wire import digest_of, verify
from federation.members.roster import Roster
from policies.budget.accountant import epsilon_of
from policies.requests.calibration import clip_of
from policies.requests.denials import Denial, Refusal
from policies.requests.request import Request
from policies.requests.round_key import round_secret
from policies.requests.terms import terms_of

if TYPE_CHECKING:
    from analyst.link import Link  # gRPC is heavy: only where somebody dials


def check(stored: StoredReport, request: Request, roster: Roster) -> CheckedReport:
    """Make every check of a report that needs no key; raises CryptoError."""
    terms = terms_of(request, digest_of(request))
    return check_report(stored, terms, roster.silo_keys, roster.aggregator_keys, request.round_key)


def recount(checked: CheckedReport, link: "Link") -> int:
    """Add the signed contributions once more; return how many chunks were. Raises ProtocolError on a wrong sum."""
    chunks = choose_chunks(checked)
    for index in chunks:
        check_chunk(checked, index, link.evidence(checked.name, index))
    return len(chunks)


def open_sum(checked: CheckedReport, request: Request, analyst: str, key: SealingKey) -> OpenedSum:
    """Return the sum of a report that an analyst is a recipient of; raises CryptoError."""
    return open_report(checked, analyst, key, round_secret(request, analyst, key))


def report_of(
    planned: Planned, request: Request, checked: CheckedReport, opened: OpenedSum, offer: Offer, roster: Roster
) -> Report:
    """Return the answer to a question, from its opened sum; raises CryptoError on a refusal that does not hold."""
    refusals = denials_of(checked.stored.message.refusals, digest_of(request), roster)
    holders = [offer.silos[silo] for silo in opened.manifest.silos]
    rows, withheld = interpret(planned, request, opened, max(one.min_cohort for one in holders))
    entity = holders[0].entity
    return Report(
        columns=planned.output,
        dimensions={shown: column for column, shown in planned.names.items()},
        rows=tuple(rows),
        withheld_groups=tuple(withheld),
        rho=rho_of(request),
        epsilon=epsilon_of(rho_of(request), offer.delta),
        delta=offer.delta,
        silos=_outcomes(request, checked, refusals, offer, roster),
        transcript=checked.name.hex(),
        wrong=opened.inconsistent_silos,
        assumptions=(
            f"one {entity} has at most {request.table.max_rows} rows in an answer"
            f" and is known to at most {request.table.max_silos} silos",
            f"at most {opened.manifest.max_colluding} silos collude with the aggregator",
            *_clipped(request, opened),
            *_spares(request, opened, len(checked.stored.message.openings)),
        ),
    )


def read_failure(envelope: bytes, request: Request, roster: Roster) -> Failure:
    """Return the aggregator's signed word that a request has no report; raises CryptoError."""
    failure = verify(envelope, Failure, roster.aggregator_keys).message
    if failure.request_hash != digest_of(request):
        raise ProtocolError("the aggregator's failure message belongs to another request")
    return failure


def error_of(failure: Failure, request: Request, roster: Roster) -> DeniedError | RoundError:
    """Return what tells an analyst why there is no report; raises CryptoError on a refusal that does not hold."""
    denials = denials_of(failure.refusals, failure.request_hash, roster)
    if denials and not failure.missing:
        return _denied(denials, len(request.silos))
    if denials:
        silo, first = next((silo, reasons[0]) for silo, reasons in denials.items())
        return RoundError(
            f"no answer: {failure.reason}; missing: {', '.join(failure.missing)}",
            f"{silo!r} also refuses ({first.code}: {first.message}); see `consilo silos`",
        )
    missing = ", ".join(failure.missing)
    return RoundError(
        f"no answer: {failure.reason}" + (f"; missing: {missing}" if missing else ""),
        "ask again when they are back" if missing else "see `consilo silos`",
    )


def denials_of(refusals: tuple[bytes, ...], request_hash: bytes, roster: Roster) -> dict[str, tuple[Denial, ...]]:
    """Return the denials of the refusals that a silo signed for this very request; raises CryptoError."""
    found = {}
    for envelope in refusals:
        signed = verify(envelope, Refusal, roster.silo_keys)
        if signed.message.request_hash == request_hash:
            found[signed.signer] = signed.message.denials
    return found


def _denied(denials: Mapping[str, tuple[Denial, ...]], asked: int) -> DeniedError:
    first = next(iter(denials.values()))[0]
    more = {denial.code for one in denials.values() for denial in one} - {first.code}
    also = f" (also: {', '.join(sorted(more))})" if more else ""
    message = f"{len(denials)} of {asked} silos refuse: {first.code} ({first.rule}): {first.message}{also}"
    return DeniedError(message, first.remedy, dict(denials))


def _outcomes(
    request: Request,
    checked: CheckedReport,
    denials: Mapping[str, tuple[Denial, ...]],
    offer: Offer,
    roster: Roster,
) -> dict[str, SiloOutcome]:
    hashes = {member.silo: member.policy_hash.hex() for member in checked.manifest.roster}
    survivors, as_of = checked.survivors, checked.consent_as_of
    unreachable = set(roster.silo_keys) - set(offer.silos)
    outcomes = {}
    for silo in sorted(unreachable.union(request.silos)):
        known = offer.silos.get(silo)
        policy_hash = hashes.get(silo, known.policy_hash.hex() if known else None)
        status = "answered" if silo in survivors else "dropped" if silo in hashes else "missing"
        refused = denials.get(silo, ())
        outcomes[silo] = SiloOutcome("denied" if refused else status, policy_hash, refused, as_of.get(silo))
    return outcomes


def _clipped(request: Request, opened: OpenedSum) -> Iterator[str]:
    """Yield where a backend with less room than words of 64 bits cuts the figures of one silo."""
    if request.backend != "masking":
        for block in opened.manifest.terms.blocks:
            cut = clip_of(opened.manifest.terms.limit, block.scale_bits)
            yield f"by {request.backend}, {block.name} of one silo is within +/-{cut:,}, what lies beyond is cut"


def _spares(request: Request, opened: OpenedSum, openings: int) -> Iterator[str]:
    """Yield how far the sums of silos check each other, in the backend `shares`."""
    if request.backend == "shares":
        spare = openings - opened.manifest.quorum
        checks = f"{spare} more than are needed: up to {spare} false ones are noticed, up to {spare // 2} named"
        yield f"{openings} silos opened their sums, {checks}"
