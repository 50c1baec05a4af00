"""What the aggregator reads off a report that it stores: read once, and kept while it is asked for evidence."""

from collections.abc import Sequence
from dataclasses import dataclass

from aggregator.rounds import Aggregator, only_frame
from crypto.errors import ProtocolError
from crypto.rounds.manifest import Accept, Manifest, Propose, send_s_of
from crypto.rounds.messages import Contribution, ModelUpdated, Opening, Products, SurvivorSet, sealed_row_bytes
from crypto.rounds.payload import piece_sizes, scheme_of, sum_sizes
from crypto.rounds.products import fetched_whole
from crypto.rounds.report import REPORT_HEADER_BYTES, EncryptedReport
from crypto.wire import Signed, body_digest, signer_of, unverified, verify
from policies.models.released import MAX_SEALED_MODEL_BYTES
from policies.requests.request import Request
from policies.requests.sending import at_rate
from policies.requests.training import TrainingStep


@dataclass(frozen=True, slots=True)
class ReportIndex:
    """The request that a stored report answers, and where the vectors in its sum are found again."""

    request: bytes  # as its analyst signed it
    receivers: tuple[str, ...]
    training: TrainingStep | None
    # The names of those in the sum, the SHA-256 of their signed headers' bodies; in a long round of those that no
    # products prove.
    contributions: tuple[bytes, ...]
    pieces: tuple[int, ...]  # the sizes of the pieces of each
    receives_s: int  # how long a recipient may receive it, beyond the time of a step; 0 where the vectors are short
    added: range  # the numbers of the pieces that a recipient adds: none where the silos added, or proved the sum
    sum_bytes: int = 0  # of the sum of a long round
    row_bytes: int = 0  # of what is sealed to each recipient of it, which follows the sum by recipient

    @property
    def step(self) -> TrainingStep:
        """The step of training that it is of; raises ProtocolError on another report."""
        if self.training is None:
            raise ProtocolError("the report is not that of a training step")
        return self.training

    @property
    def recipients(self) -> tuple[str, ...]:
        """The silos that a step's report is delivered to; raises ProtocolError on another report."""
        _ = self.step
        return self.receivers

    def handed(self, data: bytes, recipient: str) -> bytes:
        """Return the stored report as one recipient gets it: of a long round without what is sealed to others."""
        if not self.row_bytes or recipient not in self.receivers:
            return data
        end = REPORT_HEADER_BYTES + int.from_bytes(data[REPORT_HEADER_BYTES - 4 : REPORT_HEADER_BYTES]) + self.sum_bytes
        start = end + self.receivers.index(recipient) * self.row_bytes
        return data[:end] + data[start : start + self.row_bytes]


def index_of(report: EncryptedReport) -> ReportIndex:
    """Return what the aggregator needs of a stored report; raises CryptoError on one that is malformed."""
    signed = unverified(report.propose, Propose).request
    request = unverified(signed, Request)
    manifest = unverified(report.manifest, Manifest)
    scheme = scheme_of(manifest, request.round_key)
    pieces = piece_sizes(scheme)
    names = tuple(body_digest(envelope, Contribution) for envelope in report.contributions)
    is_added, sum_bytes, row_bytes = scheme.columns == 1, 0, 0
    if manifest.terms.is_long:
        opened = [signer_of(envelope, Opening) for envelope in report.openings]
        proven = [signer_of(envelope, Products) for envelope in report.products or ()]
        survivors = [survivor.silo for survivor in SurvivorSet.decode(report.split).survivors]
        whole = fetched_whole(scheme, survivors, opened, proven)
        names = tuple(name for silo, name in zip(survivors, names, strict=False) if silo in whole)
        is_added = bool(whole)
        sum_bytes, row_bytes = sum(sum_sizes(scheme, 0, 0)), len(opened) * sealed_row_bytes(manifest)
    # At most the sum and every masked input that is fetched with it, at the slowest silo's rate.
    received = sum(sum_sizes(scheme, len(report.openings), len(request.recipients))) + len(names) * sum(pieces)
    return ReportIndex(
        request=signed,
        receivers=tuple(recipient.name for recipient in request.recipients),
        training=request.plan.training,
        contributions=names,
        pieces=pieces,
        receives_s=at_rate(received, sum(pieces), send_s_of(unverified(one, Accept) for one in report.accepts)),
        added=range(scheme.shape.chunks if is_added else 0),
        sum_bytes=sum_bytes,
        row_bytes=row_bytes,
    )


def read_model_updated(aggregator: Aggregator, silo: str, run: bytes, frames: Sequence[object]) -> Signed[ModelUpdated]:
    """Return how far a silo says it is in a training run; raises CryptoError."""
    signed = verify(only_frame(frames), ModelUpdated, {silo: aggregator.silos[silo]})
    if (signed.message.federation, signed.message.run) != (aggregator.federation, run):
        raise ProtocolError(f"{silo!r} answers for another training run or federation")
    return signed


def sealed_model(step: TrainingStep, frames: Sequence[object]) -> tuple[bytes, ...]:
    """Return the model that a silo seals to the analyst at the end of a run, if it does.

    The aggregator can neither open nor judge it. Raises ProtocolError where nobody asked for it, or it is no model.
    """
    if len(frames) == 1:
        return ()
    if step.released_to is None or len(frames) != 2:
        raise ProtocolError("a silo sends more than it was asked for")
    sealed = frames[1]
    if not isinstance(sealed, bytes) or len(sealed) > MAX_SEALED_MODEL_BYTES:
        raise ProtocolError(f"a sealed model is at most {MAX_SEALED_MODEL_BYTES} bytes")
    return (sealed,)
