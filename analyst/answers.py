"""Check a report, open it, and list what each silo did; or report why there is no report.

    StoredReport --check--> CheckedReport --open_sum--> OpenedSum --report_of--> Report

Promise: every figure comes from a checked report (`crypto.rounds.opening`), and every denial from a refusal that its
silo signed for this request. docs/protocol.md sections 7.2 to 7.4; section 8, table G.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from analyst.conditions import Conditions
from analyst.errors import DeniedError, RoundError
from analyst.offers import NO_CATALOGUE
from analyst.remedies import Bearing, remedy_of
from analyst.reports.assumptions import assumed
from analyst.reports.curves import answered
from analyst.reports.cut import cut_of, definition_of
from analyst.reports.derived import Cell, derived_of
from analyst.reports.estimates import Label, Threshold, interpret, rho_of, threshold_of
from analyst.reports.report import Report, SiloOutcome
from analyst.reports.statements import opened_of, portion_of, portions_of, requests_of
from analyst.reports.table import Answered, united
from analyst.sql.draft import Planned, Script
from analyst.testimonies import proven_guilty, read, signings_of
from crypto.errors import CryptoError, ProtocolError
from crypto.rounds.messages import Failed, Failure, ModelUpdated, RunEnd
from crypto.rounds.opening import CheckedReport, OpenedSum, check_report, open_report
from crypto.rounds.recount import check_sum
from crypto.rounds.report import StoredReport
from crypto.sealing import SealingKey
from crypto.wire import Signed, digest_of, verify
from federation.members.roster import Roster
from policies.decision.denial_codes import is_unable
from policies.requests.denials import Denial, Refusal
from policies.requests.replacing import left_out
from policies.requests.request import Request
from policies.requests.round_key import round_secret
from policies.requests.terms import terms_of
from policies.units import counted

if TYPE_CHECKING:
    from analyst.link import Link  # gRPC is slow to import: only for a connection


def check(stored: StoredReport, request: Request, roster: Roster) -> CheckedReport:
    """Make every check of a report that needs no key; raises CryptoError."""
    terms = terms_of(request, digest_of(request))
    return check_report(stored, terms, roster.silo_keys, roster.aggregator_keys, request.round_key)


def recount(checked: CheckedReport, link: "Link") -> None:
    """Check the sum, by the masked inputs or by what the silos signed of them; raises ProtocolError on a wrong one."""
    check_sum(checked, lambda index: link.evidence(checked.name, index))


def learned_by(frames: Sequence[bytes], name: bytes, roster: Roster, federation: str) -> dict[str, RunEnd | None]:
    """Return which silos have learned a report, by what they signed, and why the run is at its end."""
    keys, found = roster.silo_keys, dict[str, RunEnd | None]()
    for envelope in frames[: 2 * len(keys)]:  # and sealed models
        with suppress(CryptoError):
            signed = verify(envelope, ModelUpdated, keys)
            if (signed.message.federation, signed.message.position) == (federation, name):
                found[signed.signer] = signed.message.ended
    return found


def open_sum(checked: CheckedReport, request: Request, analyst: str, key: SealingKey) -> OpenedSum:
    """Return the sum of a report that an analyst is a recipient of; raises CryptoError."""
    _check_answers(checked, request)
    return open_report(checked, analyst, key, round_secret(request, analyst, key))


def _check_answers(checked: CheckedReport, request: Request) -> None:
    if checked.manifest.terms.request_hash != digest_of(request):
        raise ProtocolError("the report answers another request")


def report_of(
    script: Script,
    request: Request,
    checked: CheckedReport,
    opened: OpenedSum,
    conditions: Conditions,
    roster: Roster,
    sure: bool | None = None,
) -> Report:
    """Return the answer to a question, from its opened sum; raises CryptoError on an invalid refusal.

    `sure` is as in `threshold_of`.
    """
    _check_answers(checked, request)
    refusals = denials_of(checked.stored.message.refusals, digest_of(request), roster)
    holders = conditions.of(opened.manifest.silos)
    tables = tables_of(script, request, opened, max(one.min_cohort for one in holders), conditions.delta, sure)
    whole = tables[0] if script.is_single else _none(tables)
    return Report(
        **{name: getattr(whole, name) for name in _OF_TABLE},
        tables=() if script.is_single else tables,
        rho=rho_of(request),
        epsilon=conditions.epsilon,
        delta=conditions.delta,
        silos=_outcomes(request, checked, refusals, conditions, roster),
        transcript=checked.name.hex(),
        wrong={**said_wrong(request, checked, roster), **opened.wrong},
        request=digest_of(request).hex(),
        assumptions=assumed(
            request, opened, len(checked.stored.message.openings), holders[0].entity, conditions.strictest
        ),
    )


_OF_TABLE = tuple(Answered.__dataclass_fields__.keys() - {"rho"})  # what a report of one statement has of its table


def _none(tables: Sequence[Answered]) -> Answered:
    """Return what stands in the place of the one table of a report that has several: no column and no row."""
    highest = max((one.threshold for one in tables), key=lambda one: one.noisy_count)
    return Answered((), {}, (), (), highest, 0.0)


def tables_of(
    script: Script, request: Request, opened: OpenedSum, min_cohort: int, delta: float, sure: bool | None
) -> tuple[Answered, ...]:
    """Return the tables of an answer, each of one statement or of a union of several; `sure` as in `threshold_of`."""
    portions, rho = portions_of(request), rho_of(request)
    parts = zip(script.statements, requests_of(request), opened_of(request, opened), portions, strict=True)
    found = [
        table_of(planned, alone, sums, threshold_of(alone, sums, min_cohort, sure), delta, rho * portion)
        for planned, alone, sums, portion in parts
    ]
    return tuple(
        found[places[0]]
        if len(places) == 1
        else united([found[place] for place in places], rho * portion_of(request, places))
        for places in script.tables
    )


def table_of(
    planned: Planned, request: Request, opened: OpenedSum, threshold: Threshold, delta: float, rho: float
) -> Answered:
    """Return the table of one statement, from the opened sum of its statistics."""
    curve = planned.plan.curve
    curves = None if curve is None else answered(planned, curve, request, opened, threshold)
    derived = derived_of(planned, request, opened, threshold) if planned.after else curves and curves.derived
    rows: Sequence[Mapping[str, Cell]]
    withheld: Sequence[Mapping[str, Label]]
    if derived:
        rows, withheld = derived.rows, derived.withheld
    else:
        rows, withheld = interpret(planned, request, opened, threshold)
    return Answered(
        columns=derived.columns if derived else planned.output,
        dimensions=dict(derived.dimensions if derived else planned.names),
        rows=tuple(rows),
        after=planned.after,
        labels=tuple(name for name in derived.labels if name not in derived.dimensions) if derived else (),
        told=derived.notes if derived else (),
        curves=curves.summary if curves else {},
        withheld_groups=tuple(withheld),
        threshold=threshold,
        rho=rho,
        cut=cut_of(request, opened),
        definition=definition_of(request, delta),
    )


def read_failure(envelope: bytes, request: Request, roster: Roster) -> Signed[Failure]:
    """Return the aggregator's signed Failure for a request; raises CryptoError."""
    failure = verify(envelope, Failure, roster.aggregator_keys)
    if failure.message.request_hash != digest_of(request):
        raise ProtocolError("the aggregator's failure message belongs to another request")
    return failure


def error_of(
    failure: Failure, request: Request, roster: Roster, bearing: Bearing | None = None
) -> DeniedError | RoundError:
    """Return the error that explains a missing report; raises CryptoError on an invalid refusal.

    `bearing` is what the policies of the silos bear; None where it is not known.
    """
    denials = denials_of(failure.refusals, failure.request_hash, roster)
    refused = {silo: reasons for silo, reasons in denials.items() if not is_unable(reasons)}
    unable = {silo: reasons[0] for silo, reasons in denials.items() if silo not in refused}
    failed = failures_of(failure.failed, roster)
    if refused and not (unable or failed or failure.missing or failure.left_out):
        return _denied(refused, len(request.silos))
    told = ["where a silo has contributed, its charge stands"] if failure.charged else []
    told += [f"missing: {', '.join(failure.missing)}"] if failure.missing else []
    told += [f"unable: {silo} ({one.code}: {one.message})" for silo, one in unable.items()]
    told += [f"failed: {silo} ({reason})" for silo, reason in failed.items()]
    told += [f"left out: {', '.join(failure.left_out)}"] if failure.left_out else []
    told += [f"at fault: {silo} ({what})" for silo, what in sorted(proven_guilty(failure, roster).items())]
    told += list(_shown(failure, roster))
    hints = [f"{silo}: {one.remedy}" for silo, one in unable.items()]
    away = sorted(set(failure.missing) | set(failed))
    present = [silo for silo in request.silos if silo not in {*away, *denials, *failure.left_out}]
    if away and bearing is not None and bearing.why_not(len(request.silos), len(present)):
        hints.append(remedy_of(bearing, request.silos, present, away))
    elif away:
        hints.append(f"ask again when {', '.join(away)} {'is' if len(away) == 1 else 'are'} back")
    if refused:
        silo, first = next((silo, reasons[0]) for silo, reasons in refused.items())
        hints.append(f"{silo!r} also refuses ({first.code}: {first.message}); see `consilo silos`")
    return RoundError("; ".join([f"no answer: {failure.reason}", *told]), "; ".join(hints) or "see `consilo silos`")


def _shown(failure: Failure, roster: Roster) -> Iterator[str]:
    """Yield how far the silos came that are missing or left out, as they signed, and what the aggregator says of it."""
    for silo, signing in sorted(signings_of(failure, roster).items()):
        if signing.wrong:
            yield f"the aggregator says of {silo}: {signing.wrong}"
        if signing.steps and silo in failure.missing:
            yield f"{silo} had signed that it {signing.steps[-1]}"


def said_wrong(request: Request, checked: CheckedReport, roster: Roster) -> dict[str, str]:
    """Return what the aggregator says that silos sent wrongly, where they signed something of that round."""
    message = checked.stored.message
    found = read(message.testimonies, (message.manifest,), digest_of(request), roster)
    return {silo: f"the aggregator says: {one.wrong}" for silo, one in found.items() if one.wrong and one.messages}


def failures_of(envelopes: tuple[bytes, ...], roster: Roster) -> dict[str, str]:
    """Return why silos could not take a step, in the words that they signed here; raises CryptoError."""
    signed = [verify(envelope, Failed, roster.silo_keys) for envelope in envelopes]
    return {one.signer: one.message.reason for one in signed if one.message.federation == roster.federation}


def denials_of(refusals: tuple[bytes, ...], request_hash: bytes, roster: Roster) -> dict[str, tuple[Denial, ...]]:
    """Return the denials in the refusals that silos signed for this request; raises CryptoError."""
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
    message = f"{len(denials)} of {counted(asked, 'silo')} refuse: {first.code} ({first.rule}): {first.message}{also}"
    return DeniedError(message, first.remedy, dict(denials))


def _outcomes(
    request: Request,
    checked: CheckedReport,
    denials: Mapping[str, tuple[Denial, ...]],
    conditions: Conditions,
    roster: Roster,
) -> dict[str, SiloOutcome]:
    hashes = {silo: accept.policy_hash.hex() for silo, accept in checked.accepts.items()}
    survivors, as_of, rows_as_of = checked.survivors, checked.consent_as_of, checked.rows_as_of
    unreachable, away = set(roster.silo_keys) - set(conditions.silos), set(checked.stored.message.missing)
    if request.replaces is not None:
        earlier = left_out(request.replaces, roster.federation, roster.silo_keys, roster.aggregator_keys)
        denials = {silo: reasons for silo, reasons in earlier.items() if reasons} | dict(denials)
        away |= {silo for silo, reasons in earlier.items() if not reasons}
    outcomes = {}
    for silo in sorted(unreachable.union(request.silos, away, denials)):
        known = conditions.silos.get(silo)
        policy_hash = hashes.get(silo, known.policy_hash.hex() if known else None)
        refused = denials.get(silo, ()) if silo not in survivors else ()
        if silo in survivors:
            status = "answered"
        elif refused:
            status = "unable" if is_unable(refused) else "denied"
        elif silo in hashes:
            status = "dropped"
        elif silo in conditions.reasons and silo not in request.silos:
            reason = conditions.reasons[silo]
            status, refused = "unable" if reason.code == NO_CATALOGUE else "denied", (reason,)
        else:
            status = "missing" if silo in away or silo in unreachable else "left out"
        outcomes[silo] = SiloOutcome(status, policy_hash, refused, as_of.get(silo), rows_as_of.get(silo))
    return outcomes
