"""One suite for all backends: each adds exactly, refuses what it must, and shows nothing of a single contribution."""

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto.backends import lattice, paillier
from crypto.backends.lattice_parameters import BFV, DEGREE
from crypto.backends.masking import MaskingScheme
from crypto.backends.registry import BACKENDS, backend
from crypto.backends.scheme import CHUNK_VALUES, KEY_ID_BYTES, RoundKey, Scheme, Shape, Units, key_id
from crypto.errors import CryptoError, ProtocolError, RangeError, WireError
from crypto.keys import derive
from crypto.rounds.committees import quorum_of
from tests.cases import every, of_backends

ALPHA = 1e-6
NAMES = tuple(BACKENDS)
WITH_KEY = tuple(name for name in NAMES if BACKENDS[name].has_key)
WITHOUT_KEY = tuple(name for name in NAMES if not BACKENDS[name].has_key)
LENGTH = 300
SILOS = 5
BINS = 16


def key_of(name: str, number: int = 0) -> RoundKey | None:
    """Return a key pair of this module's own; the numbers tell pairs apart."""
    return _key_of(name, number)


@cache
def _key_of(name: str, number: int) -> RoundKey | None:
    return BACKENDS[name].create_key() if BACKENDS[name].has_key else None


def bound(name: str, shape: Shape, number: int = 0) -> Scheme:
    key = key_of(name, number)
    return BACKENDS[name].bind(shape, b"" if key is None else key.public)


def shape_of(silos: int, length: int = LENGTH, limit: int = 1000) -> Shape:
    return Shape(length, silos, quorum_of(silos), limit)


def vectors(shape: Shape, label: str = "") -> list[Units]:
    """Return a vector of every silo, the same in every run, with both ends of the range in each."""
    generator = np.random.default_rng(len(label) * 1000 + shape.length + shape.silos)
    found = [generator.integers(-shape.limit, shape.limit + 1, shape.length) for _ in range(shape.silos)]
    for vector in found:
        vector[: min(2, shape.length)] = [shape.limit, -shape.limit][: min(2, shape.length)]
    return found


def self_seed(silo: int) -> bytes:
    return derive(bytes(32), "self", str(silo))


def pair_seed(first: int, second: int) -> bytes:
    return derive(bytes(32), "pair", str(first), str(second))


def own_seeds(silo: int, silos: int) -> tuple[list[bytes], list[bytes]]:
    """Return the seeds that a silo adds and those that it subtracts."""
    added_seeds = [self_seed(silo), *(pair_seed(silo, later) for later in range(silo + 1, silos))]
    return added_seeds, [pair_seed(earlier, silo) for earlier in range(silo)]


def left_seeds(survivors: Sequence[int], silos: int) -> tuple[list[bytes], list[bytes]]:
    """Return the seeds that take off what is left on the sum of the survivors."""
    added_seeds, subtracted_seeds = [], [self_seed(survivor) for survivor in survivors]
    for dropped in set(range(silos)) - set(survivors):
        added_seeds += [pair_seed(dropped, survivor) for survivor in survivors if survivor > dropped]
        subtracted_seeds += [pair_seed(survivor, dropped) for survivor in survivors if survivor < dropped]
    return added_seeds, subtracted_seeds


Contribution = list[tuple[bytes, ...]]  # by chunk, then by column


def contributed(scheme: Scheme, vector: Units, silo: int) -> Contribution:
    return list(scheme.blind(vector, *own_seeds(silo, scheme.shape.silos)))


def added(scheme: Scheme, contributions: Sequence[Contribution]) -> dict[int, list[bytes]]:
    """Return the sum by column, each column added on its own."""
    sums = {}
    for column in range(scheme.columns):
        accumulator = scheme.accumulator(column)
        for contribution in contributions:
            for index, pieces in enumerate(contribution):
                accumulator.add(index, pieces[column])
        sums[column] = accumulator.chunks()
    return sums


def opened(name: str, scheme: Scheme, sums: Mapping[int, Sequence[bytes]], survivors: Sequence[int]) -> Units:
    key = key_of(name)
    found = scheme.open(sums, *left_seeds(survivors, scheme.shape.silos), None if key is None else key.secret)
    assert found.inconsistent_silos == ()
    return found.units


@dataclass(frozen=True, slots=True)
class Round:
    name: str
    scheme: Scheme
    vectors: list[Units]
    contributions: list[Contribution]


@cache
def round_of(name: str) -> Round:
    scheme = bound(name, shape_of(SILOS))
    found = vectors(scheme.shape)
    return Round(name, scheme, found, [contributed(scheme, vector, silo) for silo, vector in enumerate(found)])


@pytest.fixture(params=of_backends(NAMES))
def small(request: pytest.FixtureRequest) -> Round:
    """A round of each backend, blinded once and shared by the tests."""
    return round_of(request.param)


def test_the_registry_names_five_backends() -> None:
    assert NAMES == ("masking", "shares", "bfv", "ckks", "paillier")
    assert [backend(name).name for name in NAMES] == list(NAMES)
    with pytest.raises(ProtocolError, match="unknown backend 'plain', expected one of masking, shares"):
        backend("plain")


@pytest.mark.parametrize("name", of_backends(NAMES))
def test_the_sum_of_the_largest_values_that_fit_is_exact(name: str) -> None:
    for silos in range(3, 11) if name in WITHOUT_KEY else (3, 10):
        scheme = bound(name, shape_of(silos, 130, BACKENDS[name].capacity(silos)))
        found = vectors(scheme.shape)
        sums = added(scheme, [contributed(scheme, vector, silo) for silo, vector in enumerate(found)])
        units = opened(name, scheme, sums, range(silos))
        assert units.dtype == np.int64
        assert units.tolist() == np.sum(found, axis=0).tolist(), silos


@pytest.mark.parametrize("limit", [1, 2**21, 2**33])
@pytest.mark.parametrize("name", of_backends(NAMES))
def test_narrow_and_wide_ranges_are_exact(name: str, limit: int) -> None:
    scheme = bound(name, shape_of(3, 201, limit))
    found = vectors(scheme.shape)
    sums = added(scheme, [contributed(scheme, vector, silo) for silo, vector in enumerate(found)])
    assert opened(name, scheme, sums, range(3)).tolist() == np.sum(found, axis=0).tolist()


@every("dropped", [[0], [4], [1, 3]])
def test_the_pair_masks_of_dropped_silos_come_off(small: Round, dropped: list[int]) -> None:
    survivors = [silo for silo in range(SILOS) if silo not in dropped]
    sums = added(small.scheme, [small.contributions[silo] for silo in survivors])
    expected = np.sum([small.vectors[silo] for silo in survivors], axis=0)
    assert opened(small.name, small.scheme, sums, survivors).tolist() == expected.tolist()


def test_the_order_of_addition_does_not_matter(small: Round) -> None:
    forward = added(small.scheme, small.contributions)
    assert added(small.scheme, small.contributions[::-1]) == forward
    assert added(small.scheme, small.contributions[2:] + small.contributions[:2]) == forward


def test_sizes_are_known_before_anything_is_made(small: Round) -> None:
    scheme = small.scheme
    for contribution in small.contributions:
        assert [[len(piece) for piece in pieces] for pieces in contribution] == [
            [scheme.chunk_bytes(column, index) for column in range(scheme.columns)]
            for index in range(len(contribution))
        ]
    for chunks in added(scheme, small.contributions).values():
        assert [len(chunk) for chunk in chunks] == [scheme.sum_bytes(index) for index in range(scheme.shape.chunks)]


@pytest.mark.parametrize("name", of_backends(name for name in NAMES if name != "paillier"))
def test_chunks_stream_in_any_interleaving(name: str) -> None:
    shape = shape_of(3, CHUNK_VALUES + 5)
    scheme = bound(name, shape)
    found = vectors(shape)
    contributions = [contributed(scheme, vector, silo) for silo, vector in enumerate(found)]
    whole = added(scheme, contributions)
    for column in range(scheme.columns):
        accumulator = scheme.accumulator(column)
        for index in reversed(range(shape.chunks)):
            for contribution in contributions:
                accumulator.add(index, contribution[index][column])
        assert accumulator.chunks() == whole[column]
    assert opened(name, scheme, whole, range(3)).tolist() == np.sum(found, axis=0).tolist()


@pytest.mark.parametrize("name", of_backends(NAMES))
def test_blinding_computes_a_chunk_when_it_is_asked_for(name: str) -> None:
    """Closing the stream after its first chunk leaves nothing behind."""
    scheme = bound(name, shape_of(3, LENGTH if name == "paillier" else CHUNK_VALUES + 1))
    stream = scheme.blind(vectors(scheme.shape)[0], *own_seeds(0, 3))
    first = next(stream)
    assert [len(piece) for piece in first] == [scheme.chunk_bytes(column, 0) for column in range(scheme.columns)]
    del stream


@pytest.mark.parametrize("name", ["masking", "shares"])
@settings(max_examples=25, deadline=None)
@given(silos=st.integers(3, 10), length=st.integers(1, 60), data=st.data())
def test_any_values_of_any_survivors(name: str, silos: int, length: int, data: st.DataObject) -> None:
    shape = Shape(length, silos, quorum_of(silos), BACKENDS[name].capacity(silos))
    scheme = bound(name, shape)
    value = st.integers(-shape.limit, shape.limit)
    found = [np.array(data.draw(st.lists(value, min_size=length, max_size=length)), np.int64) for _ in range(silos)]
    survivors = sorted(data.draw(st.sets(st.integers(0, silos - 1), min_size=1)))
    sums = added(scheme, [contributed(scheme, found[silo], silo) for silo in survivors])
    expected = np.sum([found[silo] for silo in survivors], axis=0)
    assert opened(name, scheme, sums, survivors).tolist() == expected.tolist()


def seen(round_: Round, contribution: Contribution) -> npt.NDArray[np.float64]:
    """Return what somebody with every key sees of one contribution, as fractions of the group's order."""
    scheme, key = round_.scheme, key_of(round_.name)
    if round_.name == "shares":
        # A coalition that lacks one share of a quorum holds t - 1 columns; the last one is computed from the secret.
        words = np.frombuffer(contribution[0][-1], np.uint64)
    elif isinstance(scheme, MaskingScheme):
        words = np.frombuffer(contribution[0][0], scheme.ring.dtype)
    elif round_.name == "paillier":
        assert isinstance(scheme, paillier.PaillierScheme)
        assert key is not None
        private = paillier.private_key(scheme.public, key.secret)
        numbers = [private.raw_decrypt(int(one)) for one in scheme.read(contribution[0][0], 0)]
        return np.array([number / scheme.modulus for number in numbers])
    else:
        words = np.frombuffer(contribution[0][0], np.uint64, offset=KEY_ID_BYTES)
        if round_.name == "bfv":
            assert key is not None
            slots = next(lattice.decrypt(BFV, key.public, 0, key.secret, [words]))
            words = slots.view(np.uint64)[: scheme.shape.length // 3]  # the rest may be padding
        else:
            words = words.reshape(-1, 2, DEGREE)[:, 0].ravel()
    return words.astype(np.float64) / float(scheme.modulus)


def looks_uniform(fractions: npt.NDArray[np.float64]) -> bool:
    """Tell whether no bin is fuller or emptier than chance allows, at level ALPHA over all bins."""
    counts = np.histogram(fractions, BINS, (0, 1))[0]
    deviation = np.sqrt(fractions.size * (BINS - 1)) / BINS
    return bool(np.abs(counts - fractions.size / BINS).max() < deviation * NormalDist().inv_cdf(1 - ALPHA / (2 * BINS)))


@pytest.mark.parametrize("name", of_backends(NAMES))
def test_one_contribution_looks_uniform_even_with_every_key(name: str) -> None:
    """The same vector without masks does not, so the test can tell."""
    length = 7800 if name == "paillier" else 6000
    scheme = bound(name, shape_of(3, length, 2**33 if name == "paillier" else 1000))
    constant = np.full(length, scheme.shape.limit, np.int64)
    blinded = Round(name, scheme, [constant], [contributed(scheme, constant, 0)])
    assert looks_uniform(seen(blinded, blinded.contributions[0]))
    if scheme.is_masked and name != "ckks":  # without masks an RLWE ciphertext is only computationally uniform
        assert not looks_uniform(seen(blinded, list(scheme.blind(constant, [], []))))


@pytest.mark.parametrize("name", of_backends(name for name in NAMES if name != "shares"))
def test_a_sum_that_lacks_a_contribution_does_not_open(name: str) -> None:
    """Its pair masks do not cancel, whoever holds the key."""
    small = round_of(name)
    sums = added(small.scheme, small.contributions[:-1])
    key = key_of(name)
    subtracted_seeds = [self_seed(silo) for silo in range(SILOS - 1)]
    with pytest.raises(CryptoError, match=r"beyond|outside"):
        small.scheme.open(sums, [], subtracted_seeds, None if key is None else key.secret)


def test_a_vector_beyond_the_limit_is_refused_before_it_is_blinded(small: Round) -> None:
    shape = small.scheme.shape
    for value in (shape.limit + 1, -shape.limit - 1, 2**63 - 1, -(2**63)):
        vector = np.zeros(shape.length, np.int64)
        vector[7] = value
        with pytest.raises(RangeError, match="beyond ±1000"):
            small.scheme.blind(vector, *own_seeds(0, SILOS))
    with pytest.raises(RangeError, match="expected 300 values of int64"):
        small.scheme.blind(np.zeros(shape.length + 1, np.int64), [], [])
    with pytest.raises(RangeError, match="expected 300 values of int64"):
        small.scheme.blind(np.zeros(shape.length, np.int32), [], [])


@pytest.mark.parametrize("name", of_backends(NAMES))
def test_a_round_without_headroom_is_refused(name: str) -> None:
    for silos in (3, 10, 100):
        most = BACKENDS[name].capacity(silos)
        bound(name, shape_of(silos, 10, most))
        with pytest.raises(RangeError):
            bound(name, shape_of(silos, 10, most + 1))


def test_the_limit_of_the_shape_itself() -> None:
    shape_of(10, 10, (2**63 - 1) // 10)
    for wrong in ((0, 3, 3, 1), (2**30 + 1, 3, 3, 1), (1, 3, 4, 1), (1, 3, 0, 1), (1, 3, 3, 0), (1, 10, 7, 2**60)):
        with pytest.raises(RangeError):
            Shape(*wrong)


@every("change", ["longer", "shorter", "empty", "other column's"])
def test_a_chunk_of_another_size_is_refused(small: Round, change: str) -> None:
    scheme = small.scheme
    for column in {0, scheme.columns - 1}:
        chunk = small.contributions[0][0][column]
        other = {"longer": chunk + b"\0", "shorter": chunk[:-1], "empty": b"", "other column's": chunk * 2}[change]
        accumulator = scheme.accumulator(column)
        with pytest.raises(WireError, match="chunk 0 has"):
            accumulator.add(0, other)
        with pytest.raises(ProtocolError, match="holds no contribution"):
            accumulator.chunks()


def test_a_refused_chunk_leaves_the_sum_as_it_was(small: Round) -> None:
    """What is no element of the group is refused; in Z_2^64 everything is one."""
    scheme, column = small.scheme, small.scheme.columns - 1
    accumulator = scheme.accumulator(column)
    for contribution in small.contributions:
        accumulator.add(0, contribution[0][column])
    before = accumulator.chunks()
    header = before[0][:KEY_ID_BYTES] if key_of(small.name) else b""
    if small.name != "masking":
        with pytest.raises(RangeError, match="no element of the group"):
            scheme.accumulator(column).add(0, header + b"\xff" * (scheme.sum_bytes(0) - len(header)))
        with pytest.raises((RangeError, ProtocolError)):
            accumulator.add(0, header + b"\xff" * (scheme.sum_bytes(0) - len(header)))
    with pytest.raises(ProtocolError, match="more than 5 contributions"):
        accumulator.add(0, small.contributions[0][0][column])
    with pytest.raises(ProtocolError, match="chunk 1 of 1"):
        accumulator.add(1, small.contributions[0][0][column])
    with pytest.raises(ProtocolError, match="chunk -1 of 1"):
        accumulator.add(-1, small.contributions[0][0][column])
    assert accumulator.chunks() == before


@pytest.mark.he
def test_a_part_of_a_contribution_is_no_sum() -> None:
    for name in ("masking", "shares", "bfv", "ckks"):
        scheme = bound(name, shape_of(3, CHUNK_VALUES + 1, 10))
        accumulator = scheme.accumulator(0)
        with pytest.raises(ProtocolError, match="holds no contribution"):
            accumulator.chunks()
        size = scheme.chunk_bytes(0, 1)
        public = key_of(name)
        header = b"" if public is None else key_id(name, public.public)
        accumulator.add(1, header + bytes(size - len(header)))
        with pytest.raises(ProtocolError, match="in part"):
            accumulator.chunks()


def test_a_sum_of_another_size_or_column_does_not_open(small: Round) -> None:
    if small.name == "shares":
        pytest.skip("a sum of another size counts as a wrong sum there: see tests/crypto/test_shares.py")
    key = key_of(small.name)
    secret = None if key is None else key.secret
    sums = added(small.scheme, small.contributions)
    wrongs: list[dict[int, list[bytes]]] = [
        {},
        {1: sums[0]},
        {**sums, 1: sums[0]},
        {0: []},
        {0: sums[0] * 2},
        {0: [sums[0][0][:-8]]},
    ]
    for wrong in wrongs:
        with pytest.raises(WireError):
            small.scheme.open(wrong, [], [], secret)


@pytest.mark.parametrize("name", WITHOUT_KEY)
def test_a_backend_without_a_key_takes_and_makes_none(name: str) -> None:
    with pytest.raises(ProtocolError, match="has no round key"):
        BACKENDS[name].create_key()
    with pytest.raises(ProtocolError, match="which has none"):
        BACKENDS[name].bind(shape_of(3), b"key")


@pytest.mark.parametrize("name", of_backends(WITH_KEY))
def test_a_public_key_has_its_size_and_its_range(name: str) -> None:
    key = key_of(name)
    assert key is not None
    for public in (b"", key.public[:-1], key.public + b"\0", key.public * 2):
        with pytest.raises(WireError, match="a public key of"):
            BACKENDS[name].bind(shape_of(3), public)
    for public in (b"\xff" * len(key.public), bytes(len(key.public))):
        with pytest.raises(RangeError):
            BACKENDS[name].bind(shape_of(3), public)


@pytest.mark.parametrize("name", of_backends(WITH_KEY))
def test_another_key_is_refused_where_chunks_are_added_and_where_they_are_opened(name: str) -> None:
    small, key, other = round_of(name), key_of(name), key_of(name, 1)
    assert key is not None
    assert other is not None
    assert key.public != other.public
    assert key_id(name, key.public) != key_id(name, other.public)
    foreign = bound(name, small.scheme.shape, 1)
    with pytest.raises(ProtocolError, match="another key"):
        foreign.accumulator(0).add(0, small.contributions[0][0][0])
    sums, left = added(small.scheme, small.contributions), left_seeds(range(SILOS), SILOS)
    with pytest.raises(ProtocolError, match="another key"):
        foreign.open(sums, *left, other.secret)
    with pytest.raises(CryptoError, match="this recipient has no secret"):
        small.scheme.open(sums, *left, None)
    with pytest.raises(CryptoError, match=r"no noise budget|far outside|not that of this round's public key"):
        small.scheme.open(sums, *left, other.secret)


@pytest.mark.parametrize("name", of_backends(WITH_KEY))
def test_a_round_secret_is_never_printed_or_pickled(name: str) -> None:
    key = key_of(name)
    assert key is not None
    assert key.secret.raw.hex() not in repr(key)
    assert repr(key.secret.raw) not in repr(key)
    with pytest.raises(CryptoError, match="cannot be pickled"):
        pickle.dumps(key)


@pytest.mark.parametrize("name", of_backends(WITH_KEY))
def test_two_encryptions_of_one_vector_differ(name: str) -> None:
    """Without masks too: the randomness is fresh each time."""
    scheme, vector = bound(name, shape_of(3, 20)), np.zeros(20, np.int64)
    assert list(scheme.blind(vector, [], [])) != list(scheme.blind(vector, [], []))


def test_the_seeds_of_shares_are_fresh() -> None:
    scheme = bound("shares", shape_of(5, 20))
    dealt = [next(iter(scheme.blind(np.zeros(20, np.int64), [], []))) for _ in range(3)]
    seeds = [piece for pieces in dealt for piece in pieces[: scheme.shape.quorum - 1]]
    assert {len(seed) for seed in seeds} == {32}
    assert len(set(seeds)) == len(seeds) == 9
