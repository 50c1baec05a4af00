"""Fetch the silos' catalogues for an analyst: one signed request to all, and their signed catalogues.

Promise: an `Offer` has only catalogues that a silo of the roster signed for this request. docs/protocol.md section 7.5.
"""

from contextlib import suppress
from typing import TYPE_CHECKING

from analyst.errors import DeniedError
from analyst.sql.offer import Offer
from crypto.errors import CryptoError
from crypto.keys import SigningKey
from crypto.randomness import token
from crypto.rounds.messages import Failed
from crypto.wire import sign, verify
from federation.config import Config
from federation.errors import FederationError
from federation.transport.handshake import UPDATE
from policies.requests.catalogue import Catalogue, CatalogueRequest, NoRoom, OtherVersion
from policies.requests.denials import NOT_AN_ANALYST, Denial
from policies.units import counted

NO_CATALOGUE = "NO_CATALOGUE"  # the code of a silo that answered, but without a catalogue
TO_BE_ADDED = "the silos' data owners can add you to their policies"
if TYPE_CHECKING:
    from analyst.link import Link


def fetch_offer(
    link: "Link", config: Config, analyst: str, key: SigningKey, now: int, about: bytes | None = None
) -> Offer:
    """Return the offer of the silos to an analyst.

    With `about`, an unsigned request or no bytes, each catalogue also says where the analyst stands at its silo.

    Raises DeniedError if no answering silo knows the analyst, FederationError if no silo answers.
    """
    message = CatalogueRequest(
        federation=config.federation,
        analyst=analyst,
        nonce=token(16),
        created_at=now,
        standing=about is not None,
        request=about or b"",
    )
    silos = config.roster.silo_keys
    found: dict[str, Catalogue] = {}
    reasons: dict[str, str] = {}
    no_room = ""
    versions: dict[str, str] = {}  # of silos that the aggregator cannot reach, as it says
    replies = link.catalogues(sign(message, analyst, key))
    for envelope in replies[: len(silos) + 1]:  # one of the aggregator's own
        try:
            signed = verify(envelope, Catalogue, silos)
            if (signed.message.federation, signed.message.nonce) == (config.federation, message.nonce):
                found[signed.signer] = signed.message
        except CryptoError:
            with suppress(CryptoError):
                failed = verify(envelope, Failed, silos)
                if failed.message.federation == config.federation:
                    reasons[failed.signer] = failed.message.reason
            with suppress(CryptoError):
                other = verify(envelope, OtherVersion, config.roster.aggregator_keys).message
                is_asked = (other.federation, other.nonce) == (config.federation, message.nonce)
                if is_asked and other.silo in silos:
                    versions[other.silo] = other.said
            with suppress(CryptoError):
                full = verify(envelope, NoRoom, config.roster.aggregator_keys).message
                if (full.federation, full.nonce) == (config.federation, message.nonce):
                    no_room = full.reason
    if found:
        without = {silo: _other_version(said) for silo, said in versions.items() if silo not in found}
        without |= {silo: _no_catalogue(reasons[silo]) for silo in sorted(set(reasons) - set(found))}
        missing = tuple(silo for silo in sorted(silos) if silo not in found and silo not in without)
        return Offer({silo: found[silo] for silo in sorted(found)}, reasons=without, missing=missing, no_room=no_room)
    if set(reasons.values()) == {NOT_AN_ANALYST} and not versions:
        denial = _no_catalogue(NOT_AN_ANALYST)
        refused = f"{len(reasons)} of {counted(len(silos), 'silo')} refuse"
        raise DeniedError(
            f"{refused}: {denial.code} ({denial.rule}): {denial.message}",
            TO_BE_ADDED,
            dict.fromkeys(reasons, (denial,)),
        )
    told = [said for _, said in sorted(versions.items())]
    told += [f"{silo}: {reason}" for silo, reason in sorted(reasons.items())]
    said = "; ".join(told[:3])
    hint = "see silo.log beside each silo's policy" if not versions else UPDATE
    raise FederationError("no silo answered" + (f" ({said})" if said else ""), hint)


def _other_version(said: str) -> Denial:
    return Denial(code=NO_CATALOGUE, rule="version", message=said, remedy=UPDATE)


def _no_catalogue(reason: str) -> Denial:
    if reason == NOT_AN_ANALYST:
        return Denial(code="ANALYST_UNKNOWN", rule="analysts", message=reason, remedy=TO_BE_ADDED)
    remedy = "ask who runs this silo; for clocks, set them by NTP"
    return Denial(code=NO_CATALOGUE, rule="catalogue", message=reason, remedy=remedy)
