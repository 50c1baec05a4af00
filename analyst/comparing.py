"""Compare what an aggregator says of a request with what silos signed, and with the receipts that silos give.

Promise: a contradiction is told only between two signed words. Where an aggregator contradicts its own signature, that
is proven; where a silo's word stands against the aggregator's, both are named. docs/protocol.md section 7.7.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from analyst.errors import AnalystError
from analyst.testimonies import STEPS, Signing, proven_guilty, read
from crypto.errors import CryptoError
from crypto.rounds.manifest import Accept, Manifest
from crypto.rounds.messages import Contribution, Failure, Ready, SurvivorSet
from crypto.rounds.opening import CheckedReport
from crypto.rounds.receipt import Receipt, RoundReceipt
from crypto.wire import Signed, digest_of, verify
from federation.members.roster import Roster
from policies.requests.request import Request
from policies.units import when

_DID: Mapping[str, str] = {"ready": "was ready", "contributed": "contributed", "agreed": "agreed", "opened": "opened"}


@dataclass(frozen=True, slots=True)
class Told:
    """What an aggregator says of one request: of each silo in a word, and what it shows that the silo signed."""

    aggregator: str
    status: Mapping[str, str]  # of the silos that took no part, or not to the end
    shown: Mapping[str, Signing] = field(default_factory=dict)
    in_sum: frozenset[str] = frozenset()
    faults: Mapping[str, str] = field(default_factory=dict)  # that are proven


def told_by_failure(failure: Signed[Failure], roster: Roster) -> Told:
    """Return what an aggregator says with its signed failure."""
    message = failure.message
    status = dict.fromkeys(message.left_out, "left out") | dict.fromkeys(message.missing, "missing")
    shown = read(message.testimonies, message.manifests, message.request_hash, roster)
    return Told(failure.signer, status, shown, faults=proven_guilty(message, roster))


def told_by_report(checked: CheckedReport, roster: Roster) -> Told:
    """Return what an aggregator says with a report, whose survivors a quorum of silos signed."""
    status = dict.fromkeys(checked.stored.message.missing, "missing")
    status |= dict.fromkeys(checked.survivor_set.dropped, "dropped")
    aggregator = verify(checked.stored.message.manifest, Manifest, roster.aggregator_keys).signer
    return Told(aggregator, status, in_sum=frozenset(checked.survivors))


def read_receipt(data: bytes, request: Request, roster: Roster) -> Signed[Receipt]:
    """Return a silo's receipt of a request; raises AnalystError if it is no such receipt."""
    hint = "the silo's owner makes it with `consilo-silo receipt`"
    try:
        receipt = verify(data, Receipt, roster.silo_keys)
    except CryptoError as err:
        raise AnalystError(f"this is no receipt of a silo of the federation: {err.message}", hint) from err
    if receipt.message.request_hash != digest_of(request):
        of = receipt.message.request_hash.hex()[:12]
        raise AnalystError(f"the receipt of {receipt.signer} is of another request, {of}", hint)
    return receipt


def compared(
    request: Request, told: Told | None, receipts: Sequence[Signed[Receipt]], roster: Roster
) -> tuple[list[str], list[str]]:
    """Return what is known of each silo that was asked, a line each, and the contradictions among it."""
    by_silo = {one.signer: one.message for one in receipts}
    lines, contradictions = list[str](), list[str]()
    for silo in request.silos:
        said = list(_said(silo, told)) + list(_receipted(by_silo.get(silo)))
        lines.append(f"{silo}: {'; '.join(said) or 'nothing is known'}")
        if told is not None:
            receipt = by_silo.get(silo)
            contradictions += _contradictions(silo, told, receipt, digest_of(request), roster)
    return lines, contradictions


def _said(silo: str, told: Told | None) -> Iterator[str]:
    if told is None:
        return
    if silo in told.status:
        yield f"{told.aggregator} says that it was {told.status[silo]}"
    elif silo in told.in_sum:
        yield "a quorum of silos signed that its contribution is in the sum"
    signing = told.shown.get(silo)
    if signing is not None:
        steps = ", ".join(signing.steps)
        yield f"{told.aggregator} shows that it {steps}" if steps else f"{told.aggregator} shows nothing that it signed"
        if signing.wrong:
            yield f"{told.aggregator} says of it: {signing.wrong}"
    if silo in told.faults:
        yield f"proven: {told.faults[silo]}"


def _receipted(receipt: Receipt | None) -> Iterator[str]:
    if receipt is None:
        return
    if not receipt.accepted_at:
        codes = ", ".join(receipt.refused)
        yield f"its receipt says that it refused ({codes})" if codes else "its receipt says that nobody asked it"
    elif not receipt.rounds:
        yield f"its receipt says that it accepted at {when(receipt.accepted_at)}, and was in no round"
    else:
        last = receipt.rounds[-1]
        yield f"its receipt says that it {_DID[last.step]} at {when(last.at)}"


def _contradictions(
    silo: str, told: Told, receipt: Receipt | None, request_hash: bytes, roster: Roster
) -> Iterator[str]:
    rounds = receipt.rounds if receipt is not None else ()
    signed = [one for one in rounds if _counted_by(one, silo, request_hash, roster)]
    if silo in told.status and signed:
        hubs = sorted({_counted_by(one, silo, request_hash, roster) for one in signed})
        word = f"{', '.join(hubs)} signed that the contribution of {silo} is in the sum"
        is_own = told.aggregator in hubs
        yield f"{word}, and that it was {told.status[silo]}" if is_own else f"{word}: ask {hubs[0]} for the report"
    elif silo in told.status and any(one.step in ("contributed", "agreed", "opened") for one in rounds):
        word = f"{silo} signed that it contributed, and {told.aggregator} says {told.status[silo]}"
        yield f"{word}: one of the two is wrong"
    if receipt is not None and (signing := told.shown.get(silo)) is not None and signing.steps:
        yield from _unsaid(silo, signing, receipt)


def _unsaid(silo: str, signing: Signing, receipt: Receipt) -> Iterator[str]:
    """Yield what a silo is shown to have signed, and its receipt leaves out."""
    done = {one.step for one in receipt.rounds}
    if signing.of(Accept) is not None and not receipt.accepted_at:
        yield f"{silo} signed that it {STEPS[Accept]}, and its receipt does not say so"
    if signing.of(Ready) is not None and not done:
        yield f"{silo} signed that it {STEPS[Ready]}, and its receipt does not say so"
    if signing.of(Contribution) is not None and not done & {"contributed", "agreed", "opened"}:
        yield f"{silo} signed that it {STEPS[Contribution]}, and its receipt does not say so"


def _counted_by(one: RoundReceipt, silo: str, request_hash: bytes, roster: Roster) -> str:
    """Return which aggregator signed that a silo's contribution is in the sum of a round; empty if none is shown."""
    with suppress(CryptoError):
        manifest = verify(one.manifest, Manifest, roster.aggregator_keys)
        survivors = verify(one.survivors, SurvivorSet, roster.aggregator_keys)
        own = verify(one.contribution, Contribution, {silo: roster.silo_keys[silo]})
        is_this = manifest.message.terms.request_hash == request_hash
        counted = {survivor.silo: survivor.contribution for survivor in survivors.message.survivors}
        if is_this and survivors.message.manifest_hash == manifest.digest and counted.get(silo) == own.digest:
            return survivors.signer
    return ""
