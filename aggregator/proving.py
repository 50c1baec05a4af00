"""Have the survivors of a long round prove their sum: docs/protocol.md section 7.8; section 8, row F13.

Promise: products that a silo signs falsely do not spoil an answer. Those of the sum are compared with the sum of all;
only if they differ are those of each masked input computed, and the false ones left out. Recipients then fetch those
masked inputs whole. A masked input that is not as it was signed any more is the fault of a disk here, and no silo's.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from blake3 import blake3

from aggregator.errors import StoreError
from aggregator.outcomes import Outcomes, passing_over
from aggregator.rounds import Aggregator, Replies, SurvivorsFixed, only_frame, read_openings
from aggregator.sums import Sums
from crypto.backends.masking import MaskingScheme
from crypto.rounds.messages import Challenge, Contribution, Opening, Products
from crypto.rounds.payload import piece_sizes
from crypto.rounds.products import (
    InnerProducts,
    added,
    challenge_of,
    check_bound,
    coefficients_of,
    decode,
    long_scheme,
)
from crypto.wire import Signed, digest_of, unverified, verify

Ask = Callable[[Sequence[str], bytes], Awaitable[Replies]]  # of silos and a challenge: what they answer


async def proven(
    aggregator: Aggregator, sums: Sums, fixed: SurvivorsFixed, openings: Replies, ask: Ask, outcomes: Outcomes
) -> tuple[bytes, ...]:
    """Return the products that the survivors signed of the sum, each right; none of a round that is not long.

    `outcomes` learns who signed false ones. Raises StoreError where the sum cannot be read, or is not that of the
    masked inputs: a shard that adds has failed.
    """
    scheme = long_scheme(fixed.before.before.scheme)
    if scheme is None:
        return ()
    challenge, opened = challenge_from(aggregator, fixed, openings, outcomes)
    replies = await ask(opened, challenge.encode())
    signed = read_products(aggregator, challenge, replies, outcomes)
    headers = dict(zip((one.silo for one in fixed.survivor_set.survivors), fixed.contributions, strict=True))
    inputs = {
        silo: await _of_input(sums, scheme, challenge, silo, header)
        for silo, header in headers.items()
        if silo not in signed
    }
    whole = await _of_sum(sums, scheme, challenge, fixed.before.before.manifest.round_id)
    if whole != added([*inputs.values(), *(decode(one.message.values) for one in signed.values())]):
        for silo, header in headers.items():
            if (one := signed.get(silo)) is None:
                continue
            inputs[silo] = await _of_input(sums, scheme, challenge, silo, header)
            if inputs[silo] != decode(one.message.values):
                outcomes.wrong[silo] = "the inner products that it signed are not those of its masked input"
                del signed[silo]
        if whole != added(list(inputs.values())):
            raise StoreError("the sum here is not that of its masked inputs", "look for a failing disk or memory here")
    return tuple(signed[silo].envelope for silo in sorted(signed))


def challenge_from(
    aggregator: Aggregator, fixed: SurvivorsFixed, openings: Replies, outcomes: Outcomes
) -> tuple[Challenge, tuple[str, ...]]:
    """Return the challenge of the nonces in the openings of a long round, and the silos that told them, in order."""
    found, _ = read_openings(aggregator, fixed, openings, outcomes.wrong)
    nonces = {silo: unverified(envelope, Opening).nonce or b"" for silo, envelope in sorted(found.items())}
    composed, split = fixed.before.before, fixed.survivor_set
    return challenge_of(composed.manifest, composed.manifest_hash, split, digest_of(split), nonces), tuple(nonces)


def read_products(
    aggregator: Aggregator, challenge: Challenge, replies: Replies, outcomes: Outcomes
) -> dict[str, Signed[Products]]:
    """Return the signed products of a challenge among the replies, by silo; their values are not checked yet."""
    signed: dict[str, Signed[Products]] = {}
    for silo, frames in replies.items():
        with passing_over(outcomes.wrong if frames else None, silo):
            one = verify(only_frame(frames), Products, {silo: aggregator.silos[silo]})
            check_bound(one, challenge)
            signed[silo] = one
    return signed


async def _of_sum(sums: Sums, scheme: MaskingScheme, challenge: Challenge, round_id: bytes) -> tuple[int, int]:
    """Return the products of the closed sum."""
    found = coefficients_of(challenge)
    for index in range(scheme.shape.chunks):
        chunk = await sums.sum_chunk(round_id, index)
        await asyncio.to_thread(_add_sum, scheme, found, index, chunk)
    return found.values


async def _of_input(
    sums: Sums, scheme: MaskingScheme, challenge: Challenge, silo: str, header: bytes
) -> tuple[int, int]:
    """Return the products of a masked input as it is kept; raises StoreError if it is not what its silo signed."""
    found, start, signed = coefficients_of(challenge), 0, unverified(header, Contribution)
    for index, (size, digest) in enumerate(zip(piece_sizes(scheme), signed.chunks, strict=True)):
        piece = await sums.chunk(digest_of(signed), start, size)
        if (await asyncio.to_thread(blake3, piece)).digest() != digest:
            what = f"piece {index} of the contribution of {silo!r} is not as it signed it any more"
            raise StoreError(what, "look for a failing disk or memory here")
        await asyncio.to_thread(_add_input, scheme, found, index, piece)
        start += size
    return found.values


def _add_input(scheme: MaskingScheme, found: InnerProducts, index: int, piece: bytes) -> None:
    found.add(scheme.coordinates(index, piece))


def _add_sum(scheme: MaskingScheme, found: InnerProducts, index: int, chunk: bytes) -> None:
    for block in scheme.unreduced.blocks(index, chunk):
        found.add(block)
