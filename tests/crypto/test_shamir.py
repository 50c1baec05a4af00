"""Any quorum of shares rebuilds a secret, and one share fewer says nothing about it."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto import shamir
from crypto.errors import RangeError
from crypto.rounds.committees import quorum_of
from crypto.shamir import PRIME, combine, draw, share_secret
from crypto.wire import SHARE_BYTES

ELEMENTS = st.integers(0, PRIME - 1)


def _bytes(value: int) -> bytes:
    return value.to_bytes(SHARE_BYTES, "big")


def _interpolate(points: dict[int, int], x: int) -> int:
    """Evaluate at `x` the least polynomial through `points`: Newton's form, unlike the module under test."""
    known = sorted(points)
    coefficients: list[int] = []
    for xi in known:
        value, product = 0, 1
        for coefficient, xj in zip(coefficients, known, strict=False):
            value = (value + coefficient * product) % PRIME
            product = product * (xi - xj) % PRIME
        coefficients.append((points[xi] - value) * pow(product, -1, PRIME) % PRIME)
    value, product = 0, 1
    for coefficient, xj in zip(coefficients, known, strict=True):
        value = (value + coefficient * product) % PRIME
        product = product * (x - xj) % PRIME
    return value


@st.composite
def _sizes(draw_: st.DrawFn) -> tuple[int, int]:
    parties = draw_(st.integers(1, 12))
    return parties, draw_(st.integers(1, parties))


def test_field_is_that_of_the_largest_256_bit_prime() -> None:
    def is_probable_prime(number: int) -> bool:
        # Fermat to several bases: enough to tell a mistyped constant.
        return all(pow(base, number - 1, number) == 1 for base in (2, 3, 5, 7, 11, 13))

    assert PRIME.bit_length() == 256
    assert is_probable_prime(PRIME)
    assert not any(is_probable_prime(number) for number in range(PRIME + 2, 2**256, 2))


@given(ELEMENTS, _sizes(), st.data())
def test_any_quorum_rebuilds_the_secret(value: int, sizes: tuple[int, int], data: st.DataObject) -> None:
    parties, quorum = sizes
    shares = dict(enumerate(share_secret(_bytes(value), parties, quorum)))
    assert len(shares) == parties
    assert all(len(share) == SHARE_BYTES for share in shares.values())
    chosen = data.draw(st.permutations(range(parties)))[: data.draw(st.integers(quorum, parties))]
    assert combine({party: shares[party] for party in chosen}, quorum) == _bytes(value)


def test_every_quorum_of_seven_rebuilds_the_secret() -> None:
    secret = draw()
    shares = share_secret(secret, 7, 5)
    for size in (5, 6, 7):
        for parties in combinations(range(7), size):
            assert combine({party: shares[party] for party in parties}, 5) == secret


@given(ELEMENTS, _sizes())
def test_fewer_shares_than_the_quorum_are_refused(value: int, sizes: tuple[int, int]) -> None:
    parties, quorum = sizes
    shares = share_secret(_bytes(value), parties, quorum)
    for count in range(quorum):
        with pytest.raises(RangeError, match="are needed"):
            combine(dict(enumerate(shares[:count])), quorum)


@given(ELEMENTS, ELEMENTS, st.integers(2, 9))
def test_shares_below_the_quorum_fit_every_secret(value: int, other: int, quorum: int) -> None:
    # For whatever other secret there is a share that completes quorum - 1 true ones to it.
    shares = [int.from_bytes(share, "big") for share in share_secret(_bytes(value), quorum, quorum)]
    known = {party + 1: share for party, share in enumerate(shares[:-1])}
    forged = _interpolate({0: other, **known}, quorum)
    completed = {party - 1: _bytes(share) for party, share in {**known, quorum: forged}.items()}
    assert combine(completed, quorum) == _bytes(other)
    assert (forged == shares[-1]) == (other == value)


def test_shares_lie_on_a_polynomial_of_full_degree() -> None:
    shares = dict(enumerate((int.from_bytes(share, "big") for share in share_secret(draw(), 9, 6)), start=1))
    lower = {x: shares[x] for x in (1, 2, 3, 4, 5)}
    full = {x: shares[x] for x in (1, 2, 3, 4, 5, 6)}
    assert all(_interpolate(full, x) == shares[x] for x in (7, 8, 9))
    assert all(_interpolate(lower, x) != shares[x] for x in (6, 7, 8, 9))
    assert _interpolate(lower, 0) != _interpolate(full, 0)


def test_coefficients_are_drawn_afresh_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = draw()
    assert not set(share_secret(secret, 5, 3)) & set(share_secret(secret, 5, 3))
    bounds: list[int] = []

    def zero(bound: int) -> int:
        bounds.append(bound)
        return 0

    monkeypatch.setattr(shamir, "below", zero)
    assert share_secret(secret, 5, 3) == [secret] * 5  # a constant polynomial: nothing else is added
    assert bounds == [PRIME] * 2


@given(ELEMENTS, st.integers(1, 9), st.integers(1, PRIME - 1), st.data())
def test_wrong_share_gives_a_wrong_secret(value: int, quorum: int, shift: int, data: st.DataObject) -> None:
    shares = dict(enumerate(share_secret(_bytes(value), quorum, quorum)))
    liar = data.draw(st.integers(0, quorum - 1))
    shares[liar] = _bytes((int.from_bytes(shares[liar], "big") + shift) % PRIME)
    assert combine(shares, quorum) != _bytes(value)


def test_share_of_another_party_gives_a_wrong_secret() -> None:
    secret = draw()
    shares = share_secret(secret, 4, 3)
    assert combine({0: shares[0], 1: shares[2], 2: shares[1]}, 3) != secret


@pytest.mark.parametrize("secret", [b"", bytes(31), bytes(33), _bytes(PRIME), b"\xff" * 32])
def test_secret_outside_the_field_is_refused(secret: bytes) -> None:
    with pytest.raises(RangeError, match="no element"):
        share_secret(secret, 3, 2)


def test_largest_element_is_carried() -> None:
    secret = _bytes(PRIME - 1)
    assert combine(dict(enumerate(share_secret(secret, 3, 3))), 3) == secret


@pytest.mark.parametrize("share", [b"", bytes(31), bytes(33), _bytes(PRIME), b"\xff" * 32])
def test_share_outside_the_field_is_refused(share: bytes) -> None:
    shares = share_secret(draw(), 3, 3)
    for party in range(3):
        with pytest.raises(RangeError, match=f"party {party} is no element"):
            combine({**dict(enumerate(shares)), party: share}, 3)


def test_party_before_the_first_is_refused() -> None:
    # Its x would be 0: the secret itself.
    shares = share_secret(draw(), 3, 2)
    with pytest.raises(RangeError):
        combine({-1: shares[0], 0: shares[0], 1: shares[1]}, 2)


@pytest.mark.parametrize(("parties", "quorum"), [(3, 0), (3, 4), (3, -1), (0, 0), (0, 1)])
def test_impossible_quorum_is_refused(parties: int, quorum: int) -> None:
    with pytest.raises(RangeError, match="a quorum of"):
        share_secret(draw(), parties, quorum)


def test_drawn_secrets_are_field_elements_and_differ() -> None:
    drawn = [draw() for _ in range(50)]
    assert len(set(drawn)) == 50
    assert all(len(secret) == SHARE_BYTES and int.from_bytes(secret, "big") < PRIME for secret in drawn)


@given(ELEMENTS, st.integers(2, 8), st.data())
def test_shares_and_those_of_another_implementation_combine(value: int, parties: int, data: st.DataObject) -> None:
    shamirs = pytest.importorskip("shamirs")
    quorum = data.draw(st.integers(2, parties))
    ours = share_secret(_bytes(value), parties, quorum)
    as_theirs = [shamirs.share(x, int.from_bytes(share, "big"), PRIME) for x, share in enumerate(ours, start=1)]
    assert shamirs.interpolate(as_theirs[-quorum:]) == value
    theirs = shamirs.shares(value, quantity=parties, modulus=PRIME, threshold=quorum)
    as_ours = {share.index - 1: _bytes(share.value) for share in theirs[-quorum:]}
    assert combine(as_ours, quorum) == _bytes(value)


@pytest.mark.parametrize(
    "committee", [3, 10, 33, 35, 61, *(pytest.param(size, marks=pytest.mark.slow) for size in (100, 134))]
)
def test_committees_share_as_another_implementation_does(committee: int) -> None:
    shamirs = pytest.importorskip("shamirs")
    quorum, secret = quorum_of(committee), draw()
    value = int.from_bytes(secret, "big")
    ours = share_secret(secret, committee, quorum)
    as_theirs = [shamirs.share(x, int.from_bytes(share, "big"), PRIME) for x, share in enumerate(ours, start=1)]
    theirs = shamirs.shares(value, quantity=committee, modulus=PRIME, threshold=quorum)
    as_ours = {share.index - 1: _bytes(share.value) for share in theirs}
    for parties in (range(quorum), range(committee - quorum, committee), range(committee)):
        assert shamirs.interpolate([as_theirs[party] for party in parties]) == value
        assert combine({party: as_ours[party] for party in parties}, quorum) == secret
    below = [as_theirs[party] for party in range(quorum - 1)]
    assert shamirs.interpolate(below) != value
