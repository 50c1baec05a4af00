"""Sign inner products of this silo's blinded vector in a long round: docs/protocol.md section 7.8; section 8, table E.

Promise: products are signed for one challenge of a round only. The state of the round is the only place that knows the
vector, and it is erased with the answer, or by a restart. They tell the aggregator nothing, which has the vector, and a
recipient no more than the masked inputs that anybody may fetch.
"""

from crypto.errors import ProtocolError
from crypto.rounds.messages import Challenge, Products
from crypto.rounds.products import check_challenge, encode, long_scheme, products_of
from crypto.wire import digest_of, sign
from silo_node.rounds.states import Agreed, Opened, Silo, check_not_expired


def awaiting(state: Agreed) -> Opened | None:
    """Return what a silo keeps of a round that it has opened: nothing, unless it is a long one."""
    if state.nonce is None:
        return None
    return Opened(
        aggregator=state.aggregator,
        manifest=state.manifest,
        manifest_hash=state.manifest_hash,
        scheme=state.scheme,
        survivor_set=state.survivor_set,
        survivors_hash=state.survivors_hash,
        masked=state.masked,
    )


def prove(silo: Silo, state: Opened, now: int, data: bytes) -> bytes:
    """Return the signed Products of this silo's blinded vector, if the challenge is of this round and has its nonce.

    Raises ProtocolError or WireError on another challenge.
    """
    check_not_expired(state.manifest.expires_at, now)
    challenge = Challenge.decode(data)
    check_challenge(state.manifest, state.manifest_hash, state.survivor_set, state.survivors_hash, challenge)
    if not challenge.nonces[state.manifest.silos.index(silo.name)]:
        raise ProtocolError("the challenge lacks the nonce that this silo told")
    scheme = long_scheme(state.scheme)
    if scheme is None:
        raise ProtocolError("inner products are signed in a long round only")
    values = products_of(scheme, challenge, state.masked.piece)
    products = Products(
        manifest_hash=state.manifest_hash,
        split_hash=state.survivors_hash,
        challenge=digest_of(challenge),
        values=encode(values),
    )
    return sign(products, silo.name, silo.signing)
