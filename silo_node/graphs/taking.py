"""Packed networks that analysts send, frame by frame: taken where the policy trains them, and kept when whole.

Promise: nothing is taken that the policy would refuse to train, nor of anybody but its analysts; what is whole is kept
only if it is the network of the signed offer. Memory and disk are bounded, whatever is sent.
"""

from dataclasses import dataclass, field

from crypto.errors import ProtocolError, WireError
from policies.document.policy import Policy
from policies.networks.graph import Graph
from policies.networks.names import name_of
from policies.networks.packed import decoded
from policies.networks.values import FLOAT_BYTES
from policies.requests.network_offer import FRAME_BYTES, NetworkOffer, wants
from silo_node.graphs.kept import KeptNetworks

MAX_UNDER_WAY = 2  # files that arrive at a time; the one that was begun first is let go for another
_BESIDE_BYTES = Graph.MAX_BYTES + (1 << 20)  # of a file, beside the numbers of its weights


@dataclass(slots=True)
class _Arriving:
    size: int
    data: bytearray = field(default_factory=bytearray)


class Taking:
    """The packed networks that arrive at one silo."""

    def __init__(self) -> None:
        self._arriving: dict[tuple[str, str], _Arriving] = {}  # by analyst and name

    def take(
        self, policy: Policy, kept: KeptNetworks, offer: NetworkOffer, now: int, index: int, frame: bytes
    ) -> bytes:
        """Take a frame of an offered network, or none to ask how far it is; return which one comes next.

        Raises ProtocolError, with what to do, where it is not taken.
        """
        name = name_of(offer.network)
        check_taken(policy, kept, offer, now)
        key = offer.analyst, name
        if kept.find(name) is not None:
            self._arriving.pop(key, None)
            return wants(None)
        arriving = self._arriving.get(key)
        if arriving is None or arriving.size != offer.size:
            arriving = self._begun(key, offer.size)
        at = len(arriving.data) // FRAME_BYTES
        if not frame or index != at:
            return wants(at)
        if len(frame) != min(FRAME_BYTES, offer.size - len(arriving.data)):
            raise ProtocolError(f"frame {index} of {name} has {len(frame):,} bytes", "send the file again")
        arriving.data += frame
        if len(arriving.data) < offer.size:
            return wants(at + 1)
        del self._arriving[key]
        return self._keep(kept, name, bytes(arriving.data), now)

    def _begun(self, key: tuple[str, str], size: int) -> _Arriving:
        self._arriving.pop(key, None)
        while len(self._arriving) >= MAX_UNDER_WAY:
            del self._arriving[next(iter(self._arriving))]
        self._arriving[key] = _Arriving(size)
        return self._arriving[key]

    @staticmethod
    def _keep(kept: KeptNetworks, name: str, data: bytes, now: int) -> bytes:
        try:
            found = decoded(data)
        except WireError as err:
            raise ProtocolError(f"what was sent as {name} is no packed network: {err.message}", err.hint) from err
        if found.name != name:
            message = f"the file that was sent is the network {found.name}, and the offer is of {name}"
            raise ProtocolError(message, "name the hash that `consilo model pack` printed for this file")
        kept.drop_unused(now)
        kept.add(data, is_sent=True)
        return wants(None)


def check_taken(policy: Policy, kept: KeptNetworks, offer: NetworkOffer, now: int) -> None:
    """Raise ProtocolError, in one line, if a silo does not take a network that an analyst of its policy offers."""
    name, ask = name_of(offer.network), f"ask {policy.silo.contact}"
    allowed = None if policy.training is None else policy.training.networks
    if allowed is None:
        raise ProtocolError(f"no network is trained here; {ask} for [training.networks]")
    if allowed.allow == "registered":
        raise ProtocolError(f'packed networks are not trained here: training.networks.allow = "registered"; {ask}')
    if allowed.allow == "approved" and not kept.is_approved(policy, offer.federation, name, now):
        raise ProtocolError(f"{name} is not approved here; {ask} to look at the file and approve it")
    most = FLOAT_BYTES * allowed.max_weights + _BESIDE_BYTES
    if offer.size > most:
        message = f"a packed network of {offer.size:,} bytes, and training.networks.max_weights = {allowed.max_weights}"
        raise ProtocolError(f"{message} allows {most:,}; take a smaller network, or {ask}")
