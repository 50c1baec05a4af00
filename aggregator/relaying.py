"""Relay what an analyst sends to silos before a run: frames of a packed network, of which nothing is kept or read here.

The hash in the signed offer protects the bytes; whether a silo takes them is its own policy's matter.
"""

from aggregator.calls import Calls
from crypto.wire import unverified
from policies.requests.network_offer import MAX_REPLY_BYTES, NetworkOffer


async def relayed(calls: Calls, offer: bytes, index: bytes, frame: bytes) -> tuple[bytes, ...]:
    """Return each silo's answer to a frame of an offered network, in the order of the offer.

    It is empty of a silo that does not answer, or with more than such an answer has. Raises WireError on bytes that are
    no NetworkOffer.
    """
    silos = unverified(offer, NetworkOffer).silos  # a forged one is refused by each silo
    known = [silo for silo in silos if silo in calls.silos]
    asked = {silo: calls.silos[silo].call("take_network", offer, index, frame) for silo in known}
    replies = await calls.gather(asked, calls.busy.waits_s())
    found = (replies.get(silo, ()) for silo in silos)
    return tuple(one[0] if len(one) == 1 and len(one[0]) <= MAX_REPLY_BYTES else b"" for one in found)
