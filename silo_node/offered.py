"""Packed networks that analysts offer to a silo: `silo_node.graphs.taking` as the actor takes them."""

import threading
from collections.abc import Callable

from crypto.errors import ProtocolError
from crypto.wire import ROUND_ID_BYTES
from silo_node import publishing
from silo_node.graphs.taking import Taking
from silo_node.rounds.states import Silo

Frames = tuple[bytes, ...]


class Offered:
    """What `silo_node.actor.SiloActor` does for an analyst who sends a packed network."""

    _silo: Silo
    _arriving: threading.Lock  # one frame is taken at a time
    _guard: Callable[[bytes, Callable[[], Frames]], Frames]
    _now: Callable[[], int]
    _networks: Taking | None = None

    def take_network(self, data: bytes, index: bytes, frame: bytes) -> Frames:
        """Take a frame of the packed network in a signed NetworkOffer; answer with the next one's number, or Failed."""
        return self._guard(bytes(ROUND_ID_BYTES), lambda: (self._take_network(data, index, frame),))

    def _take_network(self, data: bytes, index: bytes, frame: bytes) -> bytes:
        silo, now = self._silo, self._now()
        offer = publishing.offered(silo, now, data)
        if silo.graphs is None:
            raise ProtocolError("this silo keeps no packed networks")
        with self._arriving:
            if self._networks is None:
                self._networks = Taking()
            place = int.from_bytes(index[:8], "big")
            return self._networks.take(silo.policy, silo.graphs, offer, now, place, frame)
