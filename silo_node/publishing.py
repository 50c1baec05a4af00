"""What a silo tells an analyst of its policy before any request: its catalogue, and the values of a long domain.

Nothing here is computed from rows. docs/protocol.md section 7.5.
"""

from typing import TypeVar

from crypto.errors import ProtocolError, SignatureError
from crypto.keys import VerifyKey
from crypto.wire import signer_of, verify
from policies.budget.ledger import Ledger
from policies.decision.compiled import compiled
from policies.decision.denial_codes import CLOCK_SKEW_S
from policies.decision.eligibility import eligible_analyst
from policies.document.catalogue import catalogue_of
from policies.document.policy import Analyst
from policies.domains import text_of
from policies.requests.catalogue import DOMAIN_MAGIC, Catalogue, CatalogueRequest, DomainRequest
from policies.requests.denials import NOT_AN_ANALYST
from policies.requests.network_offer import NetworkOffer
from silo_node.rounds.proposal import Fresh
from silo_node.rounds.states import Silo
from silo_node.standing import standing_of

M = TypeVar("M", CatalogueRequest, DomainRequest, NetworkOffer)


def catalogue(silo: Silo, ledger: Ledger, fresh: Fresh, now: int, data: bytes) -> Catalogue:
    """Return what the policy opens to the analyst who signed a CatalogueRequest; raises CryptoError.

    If it is asked, also where the analyst stands.
    """
    message, analyst = _asked(silo, now, data, CatalogueRequest)
    found = catalogue_of(silo.policy, analyst, silo.federation, silo.policy_hash, message.nonce, now)
    if not message.standing:
        return found
    standing = standing_of(silo, ledger, fresh, now, message.analyst, message.request)
    return found.model_copy(update={"standing": standing})


def domain(silo: Silo, now: int, data: bytes) -> bytes:
    """Return the values that an analyst's signed DomainRequest asks for; raises CryptoError.

    They are those of an open column of this policy, so the catalogue has named them.
    """
    message, _ = _asked(silo, now, data, DomainRequest)
    found = compiled(silo.policy).domains.get(message.hash)
    if message.silo != silo.name or found is None:
        raise ProtocolError("this silo's policy has no open column with that domain")
    return DOMAIN_MAGIC + text_of(found.known)


def offered(silo: Silo, now: int, data: bytes) -> NetworkOffer:
    """Return the offer of a packed network that an analyst signed for this silo, among others; raises CryptoError."""
    message, _ = _asked(silo, now, data, NetworkOffer)
    if silo.name not in message.silos:
        raise ProtocolError("the packed network is offered to other silos")
    return message


def _asked(silo: Silo, now: int, data: bytes, kind: type[M]) -> tuple[M, Analyst]:
    """Return a message of an analyst who may ask now, and the policy's entry; raises CryptoError."""
    name = signer_of(data, kind)
    analyst = eligible_analyst(silo.policy, name, now)
    if analyst is None:
        raise ProtocolError(NOT_AN_ANALYST)
    try:
        message = verify(data, kind, {name: VerifyKey.parse(analyst.key)}).message
    except SignatureError as err:
        raise ProtocolError(NOT_AN_ANALYST) from err
    if message.analyst != name or message.federation != silo.federation:
        raise ProtocolError(f"the {kind.KIND.replace('-', ' ')} is of another analyst or federation")
    if abs(now - message.created_at) > CLOCK_SKEW_S:
        raise ProtocolError(f"the clocks of analyst and silo differ by more than {CLOCK_SKEW_S} s")
    return message, analyst
