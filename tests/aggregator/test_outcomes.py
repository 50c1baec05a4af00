"""What silos signed in a round is kept as far as there is room, also where the vectors are long."""

from aggregator.outcomes import MAX_TESTIMONY_BYTES, Outcomes
from crypto.backends.scheme import CHUNK_VALUES, MAX_VALUES
from crypto.keys import Secret, SigningKey
from crypto.rounds.messages import Contribution
from crypto.wire import MAX_SILOS, sign

ROUND = bytes(16)
KEY = SigningKey(Secret.generate())


def header(length: int) -> bytes:
    chunks = (bytes(32),) * -(-length // CHUNK_VALUES)
    return sign(Contribution(manifest_hash=bytes(32), length=length, chunks=chunks), "silo-0", KEY)


def kept(silos: int, raw: bytes) -> tuple[bytes, ...]:
    """Return what a federation of so many silos can show of one that sent this."""
    outcomes = Outcomes(bytes(32), "banks", {f"silo-{number}": KEY.public for number in range(silos)})
    outcomes.hear(ROUND, {"silo-0": (raw,)})
    return outcomes.testimony("silo-0").signed


def test_the_header_of_a_long_vector_is_kept_where_there_is_room_for_one_of_each_silo() -> None:
    longest, long, short = header(MAX_VALUES), header(10**8), header(65_537)
    for silos, raw in ((40, longest), (400, long), (MAX_SILOS, short)):
        assert len(raw) <= MAX_TESTIMONY_BYTES // silos
        assert kept(silos, raw) == (raw,)
    assert kept(MAX_SILOS, longest) == ()
