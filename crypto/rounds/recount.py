"""Add the masked inputs of a report once more, and compare with its sum: this finds a wrong sum, whoever colludes.

It needs no key: the silos signed the digests of their masked inputs, so a recipient, a silo or an auditor can do it.
A chunk of the sum is right if it equals the sum of the survivors' chunks, and each of these has the signed digest.
All chunks of a short vector are added, and a random sample of a long one: if w of c chunks are wrong, s random chunks
miss all of them with a probability of at most (1 - w/c)^s. docs/protocol.md section 7.4; section 8, row G9.
"""

from collections.abc import Sequence

from blake3 import blake3

from crypto.errors import ProtocolError
from crypto.randomness import below
from crypto.rounds.opening import CheckedReport

COMPLETE_UP_TO = 16  # chunks; a million values
SAMPLED = 16


def choose_chunks(report: CheckedReport) -> tuple[int, ...]:
    """Return the numbers of the chunks to add: all of a short vector, distinct random ones of a long one.

    There are none in the backend `shares`: the silos add, and each silo's sum is compared with the others.
    """
    rest = [] if report.scheme.columns > 1 else list(range(report.scheme.shape.chunks))
    if len(rest) <= COMPLETE_UP_TO:
        return tuple(rest)
    return tuple(sorted(rest.pop(below(len(rest))) for _ in range(SAMPLED)))


def check_chunk(checked: CheckedReport, index: int, chunks: Sequence[bytes]) -> None:
    """Raise ProtocolError unless chunk `index` of the sum is the sum of the survivors' chunks in roster order."""
    sizes = [checked.scheme.sum_bytes(number) for number in range(checked.scheme.shape.chunks)]
    start = sum(sizes[:index])
    claimed = checked.stored.blinded_sum[start : start + sizes[index]]
    if len(chunks) != len(checked.contributions):
        raise ProtocolError(f"{len(chunks)} contributions to add once more, expected {len(checked.contributions)}")
    total = checked.scheme.accumulator(0)
    for silo, header, chunk in zip(checked.survivors, checked.contributions, chunks, strict=True):
        if blake3(chunk).digest() != header.chunks[index]:
            raise ProtocolError(f"chunk {index} of {silo!r} is not the one that it signed")
        total.add(index, chunk)
    if total.chunk(index) != claimed:
        raise ProtocolError(f"the sum is wrong: chunk {index} is not the sum of the signed contributions")
