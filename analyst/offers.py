"""Ask the silos what they open to an analyst: one signed question to all, and their signed catalogues.

Promise: an `Offer` holds only catalogues that a silo of the roster signed for this very question.
"""

from contextlib import suppress
from typing import TYPE_CHECKING

from analyst.errors import DeniedError
from analyst.sql.offer import Offer
from crypto.errors import CryptoError
from crypto.keys import SigningKey
from crypto.randomness import token
from crypto.rounds.messages import Failed
from crypto.wire import sign, signer_of, verify
from federation.config import Config
from federation.errors import FederationError
from policies.requests.catalogue import Catalogue, CatalogueRequest
from policies.requests.denials import NOT_AN_ANALYST, Denial

if TYPE_CHECKING:
    from analyst.link import Link


def fetch_offer(link: "Link", config: Config, analyst: str, key: SigningKey, now: int) -> Offer:
    """Return what the silos open to an analyst.

    Raises DeniedError if every silo that answers does not know the analyst, FederationError if none answers.
    """
    message = CatalogueRequest(federation=config.federation, analyst=analyst, nonce=token(16), created_at=now)
    silos = config.roster.silo_keys
    found: dict[str, Catalogue] = {}
    reasons: dict[str, str] = {}
    for envelope in link.catalogues(sign(message, analyst, key))[: len(silos)]:
        try:
            signed = verify(envelope, Catalogue, silos)
            if signed.message.nonce == message.nonce:
                found[signed.signer] = signed.message
        except CryptoError:
            with suppress(CryptoError):
                reasons[signer_of(envelope, Failed)] = verify(envelope, Failed, silos).message.reason
    if found:
        return Offer({silo: found[silo] for silo in sorted(found)})
    if set(reasons.values()) == {NOT_AN_ANALYST}:
        remedy = "the silos' data owners can add you to their policies"
        denial = Denial(code="ANALYST_UNKNOWN", rule="analysts", message=NOT_AN_ANALYST, remedy=remedy)
        counted = f"{len(reasons)} of {len(silos)} silos refuse"
        raise DeniedError(
            f"{counted}: {denial.code} ({denial.rule}): {denial.message}", remedy, dict.fromkeys(reasons, (denial,))
        )
    said = "; ".join(f"{silo}: {reason}" for silo, reason in sorted(reasons.items())[:3])
    hint = "see silo.log beside each silo's policy"
    raise FederationError("no silo answered" + (f" ({said})" if said else ""), hint)
