"""Have the survivors of a long round prove their sum: docs/protocol.md section 7.5; section 8, row F13.

Promise: products that a silo signs falsely do not spoil an answer. The sum of all is compared with the products of the
sum; only if they differ are those of each masked input computed, and the false ones left out. Recipients then fetch
those masked inputs whole.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from aggregator.outcomes import Outcomes, passing_over
from aggregator.rounds import Aggregator, Replies, SurvivorsFixed, only_frame, read_openings
from aggregator.sums import Sums
from crypto.backends.masking import MaskingScheme
from crypto.errors import ProtocolError
from crypto.rounds.messages import Challenge, Opening, Products
from crypto.rounds.payload import piece_sizes
from crypto.rounds.products import added, challenge_of, check_bound, coefficients_of, decode, long_scheme
from crypto.wire import Signed, digest_of, unverified, verify

Ask = Callable[[Sequence[str], bytes], Awaitable[Replies]]  # of silos and a challenge: what they answer


async def proven(
    aggregator: Aggregator, sums: Sums, fixed: SurvivorsFixed, openings: Replies, ask: Ask, outcomes: Outcomes
) -> tuple[bytes, ...]:
    """Return the products that the survivors signed of the sum, each right; none of a round that is not long.

    `outcomes` learns who signed false ones. Raises StoreError where the sum cannot be read.
    """
    scheme = long_scheme(fixed.before.before.scheme)
    if scheme is None:
        return ()
    challenge, opened = challenge_from(aggregator, fixed, openings, outcomes)
    replies = await ask(opened, challenge.encode())
    signed = read_products(aggregator, challenge, replies, outcomes)
    if not await _hold(sums, fixed, scheme, challenge, signed):
        for silo in list(signed):
            if await _of_input(sums, fixed, scheme, challenge, silo) != decode(signed[silo].message.values):
                outcomes.wrong[silo] = "the inner products that it signed are not those of its masked input"
                del signed[silo]
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


async def _hold(
    sums: Sums,
    fixed: SurvivorsFixed,
    scheme: MaskingScheme,
    challenge: Challenge,
    signed: Mapping[str, Signed[Products]],
) -> bool:
    """Tell whether the products of the sum are the sums of all survivors', as far as that can be told."""
    if len(signed) != len(fixed.survivor_set.survivors):
        return False
    found, round_id = coefficients_of(challenge), fixed.before.before.manifest.round_id
    for index in range(scheme.shape.chunks):
        entries = scheme.unreduced.read(index, await sums.sum_chunk(round_id, index))
        await asyncio.to_thread(found.add, entries)
    return found.values == added([decode(one.message.values) for one in signed.values()])


async def _of_input(
    sums: Sums, fixed: SurvivorsFixed, scheme: MaskingScheme, challenge: Challenge, silo: str
) -> tuple[int, int]:
    """Return the products of a survivor's masked input, as it is kept."""
    names = {survivor.silo: survivor.contribution for survivor in fixed.survivor_set.survivors}
    if silo not in names:
        raise ProtocolError(f"{silo!r} is not among the survivors")
    found, start = coefficients_of(challenge), 0
    for index, size in enumerate(piece_sizes(scheme)):
        words = scheme.words(index, await sums.chunk(names[silo], start, size))
        await asyncio.to_thread(found.add, scheme.unreduced.of_words(words))
        start += size
    return found.values
