"""Send a packed network to the silos of a run before its first step: through the aggregator, which keeps none of it.

Each silo takes it where its policy trains it, asks for the frames that it lacks, and checks the whole by the hash that
the job names. Who does not take it says why, in one line, before the run begins.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from analyst.errors import AnalystError
from analyst.training.job import Job
from analyst.training.packed_file import read_packed
from crypto.errors import CryptoError
from crypto.rounds.messages import Failed
from crypto.wire import is_envelope, verify
from policies.networks.names import digest_named
from policies.requests.network_offer import FRAME_BYTES, NetworkOffer, index_of, wanted

if TYPE_CHECKING:
    from analyst.client import Federation


def send_packed(federation: "Federation", job: Job, silos: Sequence[str]) -> None:
    """Send the packed file that a job names to these silos, if it names one; raises AnalystError."""
    if job.packed is not None:
        name = str(job.options.get("graph", ""))
        send_network(federation, silos, read_packed(Path(job.packed), name), name)


def send_network(federation: "Federation", silos: Sequence[str], data: bytes, name: str) -> None:
    """Send a packed network to these silos; raises AnalystError, which names each silo that does not take it."""
    sending = _Sending(federation, data, name)
    at = sending.asked(silos, 0, b"")  # which frame each takes next: it may have some, or the whole
    while at:
        index = min(at.values())
        now = [silo for silo, place in at.items() if place == index]
        after = sending.asked(now, index, data[index * FRAME_BYTES : (index + 1) * FRAME_BYTES])
        stuck = {silo: place for silo, place in after.items() if place <= index}
        sending.why_not |= {silo: f"it was sent frame {index}, and asks for {place}" for silo, place in stuck.items()}
        at = {silo: place for silo, place in at.items() if place != index} | after
        at = {silo: place for silo, place in at.items() if silo not in stuck}
    if sending.why_not:
        told = "; ".join(f"{silo}: {why}" for silo, why in sorted(sending.why_not.items()))
        hint = "leave these silos out, or let their owners change that; `consilo-silo model add` puts a file there too"
        raise AnalystError(f"the packed network is not taken by {told}", hint)


class _Sending:
    """One file on its way, and why silos do not take it."""

    def __init__(self, federation: "Federation", data: bytes, name: str) -> None:
        self._federation, self._size, self._network = federation, len(data), digest_named(name)
        self.why_not: dict[str, str] = {}

    def asked(self, silos: Sequence[str], index: int, frame: bytes) -> dict[str, int]:
        """Send a frame to silos; return which frame each takes next, but for who has the whole, or takes none."""
        federation = self._federation
        offer = NetworkOffer(
            federation=federation.config.federation,
            analyst=federation.analyst,
            silos=tuple(sorted(silos)),
            network=self._network,
            size=self._size,
            created_at=federation.now(),
        )
        replies = federation.aggregators.asked.offer(federation.signed(offer), index_of(index), frame)
        found = {}
        for place, silo in enumerate(offer.silos):
            reply = replies[place] if place < len(replies) else b""
            if (following := self._place(silo, reply)) is not None:
                found[silo] = following
        return found

    def _place(self, silo: str, reply: bytes) -> int | None:
        if is_envelope(reply):
            try:
                keys = {silo: self._federation.config.roster.silo_keys[silo]}
                self.why_not[silo] = verify(reply, Failed, keys).message.reason
            except (CryptoError, KeyError):
                self.why_not[silo] = "what it answered is not signed by it"
            return None
        try:
            return wanted(reply)
        except ValueError:
            self.why_not[silo] = "it did not answer; ask again when it is back"
            return None
