"""What silos signed in a round without a report, and whose fault it was as far as that proves it.

Promise: nothing counts that its silo did not sign, for this request and in this round; a manifest is an aggregator's.
docs/protocol.md section 7.3.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from crypto.errors import CryptoError
from crypto.rounds.entries import guilty
from crypto.rounds.manifest import Accept, Manifest
from crypto.rounds.messages import Accusation, Bundle, Contribution, Failure, Opening, Products, Ready, SiloTestimony
from crypto.wire import Message, Signed, verify
from federation.members.roster import Roster

STEPS: Mapping[type[Message], str] = {
    Accept: "accepted",
    Bundle: "shared its keys",
    Ready: "was ready",
    Accusation: "accused another silo",
    Contribution: "contributed",
    Opening: "opened",
    Products: "proved its part",
}


@dataclass(frozen=True, slots=True)
class Signing:
    """What one silo signed in the last round that it was in, in the order of the round."""

    messages: tuple[Message, ...]
    wrong: str  # in the aggregator's words
    manifest: Signed[Manifest] | None

    @property
    def steps(self) -> tuple[str, ...]:
        """Return how far it came."""
        return tuple(STEPS[type(one)] for one in self.messages)

    def of(self, kind: type[Message]) -> Message | None:
        return next((one for one in self.messages if isinstance(one, kind)), None)


def signings_of(failure: Failure, roster: Roster) -> dict[str, Signing]:
    """Return what is proven of the silos that a failure names."""
    return read(failure.testimonies, failure.manifests, failure.request_hash, roster)


def read(
    testimonies: Iterable[SiloTestimony], manifests: Iterable[bytes], request_hash: bytes, roster: Roster
) -> dict[str, Signing]:
    """Return what testimonies prove, by silo; what is signed by another or for another request is passed over."""
    known: dict[bytes, Signed[Manifest]] = {}
    for envelope in manifests:
        with suppress(CryptoError):
            manifest = verify(envelope, Manifest, roster.aggregator_keys)
            if manifest.message.terms.request_hash == request_hash:
                known[manifest.digest] = manifest
    return {one.silo: _signing(one, known, request_hash, roster) for one in testimonies}


def _signing(
    testimony: SiloTestimony, manifests: Mapping[bytes, Signed[Manifest]], request_hash: bytes, roster: Roster
) -> Signing:
    keys = {name: key for name, key in roster.silo_keys.items() if name == testimony.silo}
    found: list[Message] = []
    of_round: Signed[Manifest] | None = None
    for envelope in testimony.signed:
        for kind in STEPS:
            with suppress(CryptoError):
                message = verify(envelope, kind, keys).message
                if isinstance(message, Accept) and message.request_hash != request_hash:
                    continue
                own = next((one for one in manifests.values() if _is_of(message, one)), None)
                if own is None and not isinstance(message, Accept):
                    continue
                found.append(message)
                of_round = own or of_round
    return Signing(tuple(found), testimony.wrong, of_round)


def _is_of(message: Message, manifest: Signed[Manifest]) -> bool:
    if isinstance(message, Accept):
        return message.round_id == manifest.message.round_id
    bound = Bundle | Ready | Accusation | Contribution | Opening | Products
    return isinstance(message, bound) and message.manifest_hash == manifest.digest


def proven_guilty(failure: Failure, roster: Roster) -> dict[str, str]:
    """Return who is proven to be at fault where one silo accused another, with what it did."""
    found: dict[str, str] = {}
    for accuser, signing in signings_of(failure, roster).items():
        accusation, accept, manifest = signing.of(Accusation), signing.of(Accept), signing.manifest
        if not isinstance(accusation, Accusation) or not isinstance(accept, Accept) or manifest is None:
            continue
        with suppress(CryptoError):
            one = guilty(manifest.message, manifest.digest, accuser, accept, accusation, roster.silo_keys)
            is_false = one == accuser
            what = (
                f"it accused {accusation.accused} falsely"
                if is_false
                else f"what it sealed for {accuser} does not open"
            )
            found.setdefault(one, what)
    return found


def cleared(failure: Failure, roster: Roster) -> set[str]:
    """Return who took part in an accusation, and is proven not to be at fault."""
    guilty_ones, parties = set(proven_guilty(failure, roster)), set[str]()
    for accuser, signing in signings_of(failure, roster).items():
        accusation = signing.of(Accusation)
        if isinstance(accusation, Accusation) and guilty_ones & {accuser, accusation.accused}:
            parties |= {accuser, accusation.accused}
    return parties - guilty_ones
