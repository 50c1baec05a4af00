"""What became of each silo of a request, in words that it signed: for the analyst, the operator's log and the metrics.

Promise: a silo is missing only if it did not answer; what it signed in its last round is kept, for whoever asks whose
fault it was. Whoever answered has refused, has failed at a step, or was left
out, as its answer was of no use or no roster meets its conditions. docs/protocol.md section 7.3; section 8, row F11.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from typing import Literal

from crypto.errors import CryptoError
from crypto.keys import VerifyKey
from crypto.rounds.manifest import Accept
from crypto.rounds.messages import (
    MAX_MANIFESTS,
    MAX_TESTIMONY,
    Accusation,
    Bundle,
    Contribution,
    Failed,
    Opening,
    Products,
    Ready,
    SiloTestimony,
)
from crypto.wire import Message, unverified, verify
from policies.decision.denial_codes import is_unable
from policies.requests.denials import Denial, Refusal

Outcome = Literal["answered", "refused", "unable", "missing", "failed"]  # of a request
Status = Literal["answered", "unable", "denied", "failed", "missing", "left out", "accepted"]  # of a silo in it
MAX_WORDS = 600  # of one silo, in a log
MAX_TESTIMONY_BYTES = 48 << 20  # of all silos, each a part; a header of 2^30 values has 0.7 MiB
_SIGNED: tuple[type[Message], ...] = (Accept, Bundle, Ready, Accusation, Contribution, Opening, Products)


class passing_over(AbstractContextManager[None, bool]):  # noqa: N801  it reads as `suppress` does
    """Pass over what a silo sent wrongly, and note why."""

    def __init__(self, wrong: dict[str, str] | None, silo: str) -> None:
        self._wrong, self._silo = wrong, silo

    def __exit__(self, kind: object, err: BaseException | None, trace: object) -> bool:
        if not isinstance(err, CryptoError):
            return False
        if self._wrong is not None:
            self._wrong[self._silo] = err.message[:300]
        return True


@dataclass(slots=True)
class Outcomes:
    """What the silos of one request have said so far, over all of its rounds."""

    request_hash: bytes
    federation: str
    keys: Mapping[str, VerifyKey]
    refusals: dict[str, bytes] = field(default_factory=dict)
    failed: dict[str, bytes] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)
    left_out: set[str] = field(default_factory=set)
    survivors: tuple[str, ...] = ()  # once there is a report
    charged: bool = False  # silos were told to contribute, so their charges may stand
    versions: dict[str, str] = field(default_factory=dict)  # of the missing, why they cannot be reached
    own: str = ""  # what went wrong at the aggregator itself
    wrong: dict[str, str] = field(default_factory=dict)  # what a silo sent wrongly, in the aggregator's words
    manifests: dict[bytes, bytes] = field(default_factory=dict)  # signed, by round id
    _sent: dict[str, tuple[bytes, list[bytes]]] = field(default_factory=dict)  # in its last round, whose id comes first

    @property
    def out(self) -> set[str]:
        """The silos that no further round asks."""
        return self.missing | self.left_out | set(self.refusals) | set(self.failed)

    def hear(self, round_id: bytes, replies: Mapping[str, tuple[bytes, ...]]) -> None:
        """Keep the refusals and failures among the replies to a step, if their silo signed them for this round."""
        for silo, frames in replies.items():
            self._keep(round_id, silo, frames)
            if len(frames) != 1 or silo in self.out or not isinstance(frames[0], bytes):
                continue
            keys = {silo: self.keys[silo]}
            with suppress(CryptoError):
                if verify(frames[0], Refusal, keys).message.request_hash == self.request_hash:
                    self.refusals[silo] = frames[0]
            with suppress(CryptoError):
                failed = verify(frames[0], Failed, keys).message
                if (failed.federation, failed.round_id) == (self.federation, round_id):
                    self.failed[silo] = frames[0]

    def _keep(self, round_id: bytes, silo: str, frames: Sequence[object]) -> None:
        """Keep the first frame of a reply, in which a silo signs what it says, as far as there is room."""
        known, sent = self._sent.get(silo, (b"", []))
        if known != round_id:
            sent = []
        self._sent[silo] = round_id, sent
        first, room = frames[0] if frames else b"", MAX_TESTIMONY_BYTES // max(1, len(self.keys))
        if isinstance(first, bytes) and len(first) + sum(map(len, sent)) <= room:
            sent.append(first)

    def testimony(self, silo: str) -> SiloTestimony:
        """Return what a silo signed in its last round, and what is wrong with it."""
        signed, keys = list[bytes](), {silo: self.keys[silo]}
        for raw in self._sent.get(silo, (b"", []))[1]:
            for kind in _SIGNED:
                with suppress(CryptoError):
                    signed.append(verify(raw, kind, keys).envelope)
        return SiloTestimony(silo=silo, wrong=self.wrong.get(silo, ""), signed=tuple(signed[:MAX_TESTIMONY]))

    def manifests_of(self, silos: Iterable[str]) -> tuple[bytes, ...]:
        """Return the manifests of the last rounds that these silos were in, the newest last."""
        rounds = {self._sent[silo][0] for silo in silos if silo in self._sent}
        found = [envelope for round_id, envelope in self.manifests.items() if round_id in rounds]
        return tuple(found[-MAX_MANIFESTS:])

    def miss(self, silo: str, other_version: str) -> None:
        """Note a silo that did not answer, and which version it runs if that is why."""
        self.missing.add(silo)
        if other_version:
            self.versions[silo] = other_version

    def leave_out(self, silos: Iterable[str]) -> None:
        """Go on without silos that answered, but not as the round needs it."""
        self.left_out |= set(silos) - self.out

    def denials(self) -> dict[str, tuple[Denial, ...]]:
        """Return the reasons of the silos that refused."""
        return {silo: unverified(envelope, Refusal).denials for silo, envelope in sorted(self.refusals.items())}

    def words(self) -> dict[str, str]:
        """Return what each silo said that did not take part, with its remedy."""
        said = {
            silo: "; ".join(f"{one.code}: {one.message} (remedy: {one.remedy})" for one in denials)
            for silo, denials in self.denials().items()
        }
        said |= {silo: unverified(envelope, Failed).reason for silo, envelope in sorted(self.failed.items())}
        said = self.wrong | said
        return {silo: text[:MAX_WORDS] for silo, text in said.items()}

    def status(self, silo: str) -> Status:
        """Return what became of one silo, in the words of an answer; "accepted" if others were the reason for none."""
        if silo in self.survivors:
            return "answered"
        if silo in self.refusals:
            return "unable" if is_unable(unverified(self.refusals[silo], Refusal).denials) else "denied"
        if silo in self.failed:
            return "failed"
        if silo in self.missing:
            return "missing"
        return "left out" if silo in self.left_out else "accepted"

    def outcome(self) -> Outcome:
        """Return what became of the request."""
        if self.survivors:
            return "answered"
        if self.missing:
            return "missing"
        if self.refusals and not self.failed and not self.left_out and not self.own:
            return "unable" if all(map(is_unable, self.denials().values())) else "refused"
        return "failed"
