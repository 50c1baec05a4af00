"""Check the sum of a report at a recipient: this finds a wrong sum, whoever colludes.

It needs no key. The silos signed the digests of their masked inputs: a chunk of the sum is right if it equals the sum
of the survivors' chunks, and each of these has the signed digest. All chunks are added once more. A long sum is checked
by what the silos signed of it, for the price of the sum alone (`crypto.rounds.products`).
docs/protocol.md sections 7.4 and 7.8; section 8, rows G9 and G10.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from blake3 import blake3

from crypto.backends.masking import MaskingScheme
from crypto.errors import ProtocolError
from crypto.rounds.messages import Challenge, Opening, Products
from crypto.rounds.opening import CheckedReport
from crypto.rounds.products import added, challenge_of, check_bound, coefficients_of, decode, fetched_whole, long_scheme
from crypto.wire import verify

Evidence = Callable[[int], Sequence[bytes]]  # of the number of a chunk: that chunk of contributions, in roster order


def check_sum(checked: CheckedReport, evidence: Evidence) -> None:
    """Raise CryptoError unless the sum of a report is right.

    `evidence` returns a chunk of every survivor's masked input, in roster order; in a long round of those alone that
    are fetched whole (`products.fetched_whole`). There is nothing to add in the backend `shares`: the silos add, and
    each silo's sum is compared with the others.
    """
    if checked.scheme.columns > 1:
        return
    scheme = long_scheme(checked.scheme)
    if scheme is not None and (proof := proof_of(checked)).whole != checked.survivors:
        check_products(checked, scheme, proof, evidence)
    else:
        for index in range(checked.scheme.shape.chunks):
            check_chunk(checked, index, evidence(index))


def check_chunk(checked: CheckedReport, index: int, chunks: Sequence[bytes]) -> None:
    """Raise ProtocolError unless chunk `index` of the sum is the sum of the survivors' chunks in roster order."""
    start = index * checked.scheme.sum_bytes(0)  # all chunks but the last have as many values
    claimed = checked.stored.blinded_sum[start : start + checked.scheme.sum_bytes(index)]
    total = checked.scheme.accumulator(0)
    for chunk in signed_chunks(checked, checked.survivors, index, chunks):
        total.add(index, chunk)
    if total.chunk(index) != claimed:
        raise ProtocolError(f"the sum is wrong: chunk {index} is not the sum of the signed contributions")


@dataclass(frozen=True, slots=True)
class Proof:
    """What the silos of a long round signed of their blinded vectors, and whose a recipient adds itself."""

    challenge: Challenge
    products: Mapping[str, tuple[int, int]]  # by survivor
    whole: tuple[str, ...]  # the survivors whose contributions are fetched whole, in roster order


def proof_of(checked: CheckedReport) -> Proof:
    """Return what a report of a long round has of nonces and products.

    Raises ProtocolError, SignatureError or WireError on a nonce or products that are not of this round.
    """
    nonces = dict[str, bytes]()
    for raw in checked.stored.message.openings:
        opening = verify(raw, Opening, checked.silos)
        if opening.message.nonce is None:
            raise ProtocolError(f"the opening of {opening.signer!r} lacks the nonce of a long round")
        nonces[opening.signer] = opening.message.nonce
    if len(nonces) < checked.manifest.quorum:
        raise ProtocolError(f"{len(nonces)} silos told their nonces, {checked.manifest.quorum} are needed")
    bound = checked.manifest_hash, checked.survivors_hash
    challenge = challenge_of(checked.manifest, bound[0], checked.survivor_set, bound[1], nonces)
    found, survivors = dict[str, tuple[int, int]](), {silo: checked.silos[silo] for silo in checked.survivors}
    for raw in checked.stored.message.products or ():
        signed = verify(raw, Products, survivors)
        check_bound(signed, challenge)
        if found.setdefault(signed.signer, decode(signed.message.values)) != decode(signed.message.values):
            raise ProtocolError(f"{signed.signer!r} signed two different products of one challenge")
    return Proof(challenge, found, fetched_whole(checked.scheme, checked.survivors, nonces, found))


def check_products(checked: CheckedReport, scheme: MaskingScheme, proof: Proof, evidence: Evidence) -> None:
    """Raise ProtocolError or RangeError unless the sum of a long round is what the survivors' products say.

    `evidence` has the contributions of `proof.whole`, whose products are computed here.
    """
    left = [silo for silo in checked.survivors if silo not in proof.whole]
    found, how, start = coefficients_of(proof.challenge), scheme.unreduced, 0
    for index in range(scheme.shape.chunks):
        chunk, at = checked.stored.blinded_sum[start : start + how.chunk_bytes(index)], 0
        start += len(chunk)
        fetched = signed_chunks(checked, proof.whole, index, evidence(index)) if proof.whole else ()
        own = [scheme.coordinates(index, one) for one in fetched]
        for block in how.blocks(index, chunk):
            how.check(index, block, len(checked.survivors))
            for coordinates in own:
                block -= coordinates[at : at + block.size]  # modulo 2^64
            found.add(block)
            at += block.size
    if found.values != added([proof.products[silo] for silo in left]):
        raise ProtocolError("the sum is wrong: its inner products are not the sums of those that the silos signed")


def signed_chunks(checked: CheckedReport, silos: Sequence[str], index: int, chunks: Sequence[bytes]) -> Sequence[bytes]:
    """Return a chunk of the contributions of `silos`, if each has its signed digest; raises ProtocolError."""
    if len(chunks) != len(silos):
        raise ProtocolError(f"{len(chunks)} contributions to add once more, expected {len(silos)}")
    headers = dict(zip(checked.survivors, checked.contributions, strict=True))
    for silo, chunk in zip(silos, chunks, strict=True):
        if blake3(chunk).digest() != headers[silo].chunks[index]:
            raise ProtocolError(f"chunk {index} of {silo!r} is not the one that it signed")
    return chunks
