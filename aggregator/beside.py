"""What the aggregator says itself beside the silos' catalogues, signed: docs/protocol.md section 7.5."""

from collections.abc import Awaitable, Callable

from aggregator.capacity import Capacity
from aggregator.rounds import Aggregator
from crypto.errors import WireError
from crypto.wire import sign, unverified
from policies.requests.catalogue import CatalogueRequest, NoRoom, OtherVersion
from policies.requests.request import Request


def other_version(aggregator: Aggregator, data: bytes, silo: str, said: str) -> bytes:
    """Return the signed word that a silo sends no catalogue, as it runs another version; raises WireError."""
    nonce = unverified(data, CatalogueRequest).nonce
    message = OtherVersion(federation=aggregator.federation, nonce=nonce, silo=silo, said=said[:500])
    return sign(message, aggregator.name, aggregator.signing)


async def no_room(
    aggregator: Aggregator, capacity: Capacity, count: Callable[[], Awaitable[int]], data: bytes
) -> tuple[bytes, ...]:
    """Return the signed word that a round of the request in a request for catalogues would not fit; none if it does."""
    try:
        asked = unverified(data, CatalogueRequest)
        reason = await capacity.why_not_in(Request.decode(asked.request), count) if asked.request else ""
    except WireError:  # the silos say so
        return ()
    message = NoRoom(federation=aggregator.federation, nonce=asked.nonce, reason=reason[:500])
    return (sign(message, aggregator.name, aggregator.signing),) if reason else ()
