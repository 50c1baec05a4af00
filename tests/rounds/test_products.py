"""Attack stories on a long round, whose sum is proven by inner products: each is refused, or comes to nothing."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from aggregator.outcomes import Outcomes
from aggregator.proving import read_products
from aggregator.rounds import read_openings
from crypto.backends.masking import MaskingScheme
from crypto.errors import CryptoError, ProtocolError, RangeError
from crypto.keys import derive
from crypto.rounds.messages import Challenge, Open, Opening, Products, SurvivorSet
from crypto.rounds.opening import CheckedReport, check_report, open_report
from crypto.rounds.payload import digests, slices
from crypto.rounds.products import coefficients_of, decode, encode, products_of
from crypto.rounds.recount import check_sum, proof_of
from crypto.rounds.report import StoredReport
from crypto.wire import digest_of, sign, unverified
from silo_node.rounds import proving, steps
from silo_node.rounds import states as rounds_states
from tests.harness.example_policy import NOW
from tests.harness.many_silos import SEALING, Many, Round, checked_with, with_report
from tests.harness.short_chunks import SHORTEST, long_round, narrow, shorten

Coordinates = npt.NDArray[Any]
ONE, TWO = b"the first round ", b"the second round"
LIAR = "silo-003"


@pytest.fixture(autouse=True, params=[32, 64])
def _long(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors of three chunks, in words of 32 and of 64 bits."""
    shorten(monkeypatch, SHORTEST)
    narrow(monkeypatch, request.param)


def begun(round_id: bytes = ONE, nonce: bytes = bytes(16)) -> Round:
    return long_round(Many(4), round_id, nonce).until_contributed()


def opened(one: Round | None = None) -> Round:
    return (one or begun()).part().agree().open()


def check(one: Round, stored: StoredReport | None = None) -> CheckedReport:
    hubs = one.silo(one.many.names[0]).aggregators
    return check_report(stored or one.report, one.terms, one.many.aggregator.silos, hubs)


def no_evidence(_: int) -> Sequence[bytes]:
    raise AssertionError("nothing is fetched whole")


def evidence_of(one: Round, *names: str) -> Callable[[int], Sequence[bytes]]:
    return lambda index: [one.pieces(name)[index] for name in names]


def values(one: Round, *names: str) -> list[int]:
    shifts = [block.scale_bits for block in one.terms.blocks for _ in range(block.length)]
    return [value << shift for value, shift in zip(one.many.sum_of(names or one.many.names), shifts, strict=True)]


def signed_by(one: Round, name: str, **changes: object) -> tuple[bytes, ...]:
    """Return the products that a silo signed, with changes that it makes itself."""
    message = unverified(one.replies["products"][name][0], Products).model_copy(update=changes)
    return (sign(message, name, one.silo(name).signing),)


def test_honest_silos_prove_the_sum_without_a_masked_input_being_fetched() -> None:
    one = opened().prove()
    checked = check(one)
    assert proof_of(checked).whole == ()
    assert checked.scheme.shape.chunks == 3
    check_sum(checked, no_evidence)
    assert open_report(checked, "ana", SEALING).units.tolist() == values(one)


def test_a_dropped_silo_has_no_part_in_the_proof() -> None:
    many = Many(4)
    one = long_round(many).until_contributed(dropped=[LIAR]).part().agree().open().prove()
    assert one.challenge().nonces[-1] == b""
    check_sum(check(one), no_evidence)
    assert one.opened().units.tolist() == values(one, *many.names[:3])


# A wrong sum


def coordinates_of(one: Round) -> Coordinates:
    """Return the coordinates of the sum that the aggregator has."""
    scheme = one.composed.scheme
    assert isinstance(scheme, MaskingScheme)
    chunks = slices(one.total(), sizes_of(one))
    return np.concatenate([scheme.unreduced.read(index, chunk) for index, chunk in enumerate(chunks)])


def lied(one: Round, error: Callable[[Coordinates, int], None]) -> Round:
    """Let the aggregator close another sum than it has, and go on with it as if it were right."""
    scheme = one.composed.scheme
    assert isinstance(scheme, MaskingScheme)
    coordinates = coordinates_of(one)
    error(coordinates, scheme.unreduced.most(4))
    wrong, start = b"", 0
    for index in range(scheme.shape.chunks):
        part = coordinates[start : start + scheme.unreduced.coordinates(index)]
        wrong += part.astype("<u4").tobytes() + (part >> np.uint64(32)).astype("u1").tobytes()
        start += part.size
    one.total = lambda: wrong  # type: ignore[method-assign]
    return one


ERRORS: dict[str, Callable[[Coordinates, int], None]] = {
    "one more": lambda coordinates, most: coordinates.__setitem__(0, (int(coordinates[0]) + 1) % most),
    "2^31": lambda coordinates, most: coordinates.__setitem__(1, (int(coordinates[1]) + 2**31) % most),
    "2^32, which nobody sees once it is reduced": lambda coordinates, most: coordinates.__setitem__(
        -1, int(coordinates[-1]) + (2**32 if int(coordinates[-1]) < 2**32 else -(2**32))
    ),
    "2^32 there and back": lambda coordinates, most: coordinates.__setitem__(
        slice(0, 2), [int(one) + (2**32 if int(one) < 2**32 else -(2**32)) for one in coordinates[:2]]
    ),
    "2^33": lambda coordinates, most: coordinates.__setitem__(0, (int(coordinates[0]) ^ 2**33) % most),
    "another order": lambda coordinates, most: coordinates.__setitem__(slice(0, 2), coordinates[1::-1].copy()),
    "nothing": lambda coordinates, most: coordinates.__setitem__(slice(None), 0),
}


@pytest.mark.parametrize("error", ERRORS)
def test_a_wrong_sum_is_found(error: str) -> None:
    """Hope: the survivor set names the wrong sum too, so that every digest is right."""
    one = opened(lied(begun(), ERRORS[error])).prove()
    checked = check(one)
    with pytest.raises(ProtocolError, match="the sum is wrong: its inner products"):
        check_sum(checked, no_evidence)


@pytest.mark.parametrize("error", ERRORS)
def test_a_wrong_sum_is_found_where_masked_inputs_are_fetched_whole(error: str) -> None:
    """Hope: what is computed from a masked input itself hides what is wrong with the others."""
    one = opened(lied(begun(), ERRORS[error])).prove(["silo-000", "silo-001"])
    with pytest.raises(ProtocolError, match="the sum is wrong: its inner products"):
        check_sum(check(one), evidence_of(one, "silo-002", LIAR))


def test_a_coordinate_that_no_contributions_give_is_refused() -> None:
    """Hope: an error of 2^39 has so many zeros at its end that two products may not see it."""

    def large(coordinates: Coordinates, most: int) -> None:
        coordinates[0] |= np.uint64(2**39)

    one = opened(lied(begun(), large)).prove()
    with pytest.raises(RangeError, match=f"above {4 * (2**32 - 1)}"):
        check_sum(check(one), no_evidence)


def test_the_sum_is_that_which_the_silos_agreed_on() -> None:
    """Hope: the sum is chosen when the nonces are known. Then an error passes that was made for them."""
    one = opened().prove()
    split = unverified(one.parted.envelope, SurvivorSet)
    lied(one, ERRORS["one more"])
    one.parted = replace(one.parted, chunks=digests(list(slices(one.total(), sizes_of(one)))))
    with pytest.raises(ProtocolError, match="not the one that the survivor set names"):
        check(one.assemble())
    without = split.model_copy(update={"sum": None})
    with pytest.raises(CryptoError):
        check(one, with_report(one.report, split=without.encode()))


def sizes_of(one: Round) -> list[int]:
    scheme = one.composed.scheme
    return [scheme.sum_bytes(index) for index in range(scheme.shape.chunks)]


@pytest.mark.parametrize("wrong", ["without a sum", "with the sum of another round"])
def test_a_silo_signs_no_survivor_set_without_a_sum_and_no_second_one(wrong: str) -> None:
    """Hope: first the nonces, then a sum that suits them."""
    one = begun().part()
    other = None if wrong == "without a sum" else derive(bytes(32), "another sum")
    envelope = sign(one.parted.survivor_set.model_copy(update={"sum": other}), "hub", one.many.aggregator.signing)
    if other is None:
        with pytest.raises(ProtocolError, match="names the digest of its sum"):
            one.sign("silo-000", envelope)
        return
    one.sign("silo-000", one.parted.envelope)
    with pytest.raises(ProtocolError, match="another survivor set"):
        one.sign("silo-000", envelope)


# Nonces


def test_a_nonce_is_told_to_a_quorum_under_the_sum_alone() -> None:
    """Hope: a silo tells its nonce to fewer than a quorum, or under another survivor set."""
    one = begun().part().agree()
    few = one.opens
    state = one.state("silo-000", rounds_states.Agreed)
    short = Open(signatures=Open.decode(few).signatures[:2]).encode()
    with pytest.raises(ProtocolError, match="lacks the signatures of 3"):
        steps.open_shares(one.silo("silo-000"), state, NOW, short)
    other = opened(begun(TWO))
    with pytest.raises(CryptoError):
        steps.open_shares(one.silo("silo-000"), state, NOW, other.opens)


def test_a_nonce_that_is_withheld_leaves_its_vector_to_be_fetched() -> None:
    """Hope: whoever tells no nonce, and so makes another challenge, has its vector taken for granted."""
    one = begun().part().agree().open(["silo-000", "silo-001", "silo-002"]).prove()
    checked = check(one)
    assert proof_of(checked).whole == (LIAR,)
    with pytest.raises(AssertionError):
        check_sum(checked, no_evidence)
    check_sum(checked, evidence_of(one, LIAR))
    assert open_report(checked, "ana", SEALING).units.tolist() == values(one)
    changed = bytes((one.pieces(LIAR)[0][0] ^ 1,)) + one.pieces(LIAR)[0][1:]
    for wrong in ([], [changed], [one.pieces("silo-000")[0]], [one.pieces(LIAR)[0]] * 2):
        with pytest.raises(ProtocolError, match=r"not the one that it signed|to add once more, expected 1"):
            check_sum(checked, lambda _, wrong=wrong: wrong)  # type: ignore[misc]


def opening_of(one: Round, name: str, **changes: object) -> tuple[bytes, ...]:
    message = unverified(one.replies["open_shares"][name][0], Opening).model_copy(update=changes)
    return (sign(message, name, one.silo(name).signing), *one.replies["open_shares"][name][1:])


@pytest.mark.parametrize("nonce", [None, bytes(32), derive(bytes(32), "a nonce that suits me")])
def test_a_nonce_that_was_not_committed_to_counts_as_none(nonce: bytes | None) -> None:
    """Hope: the last to speak chooses its nonce, and so the coefficients."""
    one = opened()
    one.replies["open_shares"][LIAR] = opening_of(one, LIAR, nonce=nonce)
    wrong = dict[str, str]()
    found, _ = read_openings(one.many.aggregator, one.parted, one.replies["open_shares"], wrong)
    assert LIAR not in found
    assert wrong == {LIAR: "its nonce is not the one that it committed to"}
    assert one.challenge().nonces[-1] == b""
    one.prove(["silo-000", "silo-001", "silo-002"])
    check_sum(check(one), evidence_of(one, LIAR))


@pytest.mark.parametrize("nonce", [None, bytes(32)])
def test_an_aggregator_that_passes_such_a_nonce_on_is_found(nonce: bytes | None) -> None:
    """Hope: aggregator and silo collude, and the recipients take any nonce."""
    one = opened().prove()
    openings = [
        opening_of(one, name, nonce=nonce)[0] if name == LIAR else one.replies["open_shares"][name][0]
        for name in one.many.names
    ]
    checked = check(one, with_report(one.report, openings=tuple(openings)))
    with pytest.raises(ProtocolError, match=r"committed to|lacks the nonce"):
        check_sum(checked, no_evidence)


def test_commitments_of_a_manifest_are_those_of_the_acceptances() -> None:
    """Hope: the aggregator puts its own commitment in the place of a silo's, whose nonce it then knows."""
    many = Many(4)
    one = long_round(many).propose().compose()
    hashes = one.composed.manifest.nonces
    assert hashes is not None
    for nonces in (None, hashes[:-1], (bytes(32), *hashes[1:]), hashes[::-1]):
        manifest = one.composed.manifest.model_copy(update={"nonces": nonces})
        composed = replace(
            one.composed,
            manifest=manifest,
            manifest_hash=digest_of(manifest),
            envelope=sign(manifest, "hub", many.aggregator.signing),
        )
        message, *parts = composed.share("silo-000")
        with pytest.raises(ProtocolError, match="nonce"):
            steps.share(one.silo("silo-000"), one.state("silo-000", rounds_states.Proposed), NOW, message, parts)
    done = opened()
    mine = done.composed.manifest
    changed = mine.model_copy(update={"nonces": (mine.nonces or ())[::-1]})
    with pytest.raises(ProtocolError, match="nonces is not what request and acceptances give"):
        check(done, with_report(done.report, manifest=sign(changed, "hub", many.aggregator.signing)))


# Challenges


def challenges(one: Round) -> dict[str, Challenge]:
    """Return challenges that no silo of a round answers."""
    good, other = one.challenge(), opened(begun(TWO, b"another request!")).challenge()
    hub = good.model_copy
    return {
        "of another round": other,
        "of another manifest": hub(update={"manifest_hash": other.manifest_hash}),
        "of another survivor set": hub(update={"split_hash": other.split_hash}),
        "of another round's nonces": hub(update={"nonces": other.nonces}),
        "without the nonce of the silo": hub(update={"nonces": (b"", *good.nonces[1:])}),
        "with a nonce that was not committed to": hub(update={"nonces": (*good.nonces[:3], bytes(32))}),
        "with a part of a nonce": hub(update={"nonces": (*good.nonces[:3], good.nonces[3][:31])}),
        "in another order": hub(update={"nonces": good.nonces[::-1]}),
        "of too few members": hub(update={"nonces": good.nonces[:3]}),
        "of too many members": hub(update={"nonces": (*good.nonces, b"")}),
    }


def test_a_silo_answers_no_challenge_but_that_of_its_round() -> None:
    one = opened()
    state = one.state("silo-000", rounds_states.Opened)
    for challenge in challenges(one).values():
        with pytest.raises(ProtocolError):
            proving.prove(one.silo("silo-000"), state, NOW, challenge.encode())
    proving.prove(one.silo("silo-000"), state, NOW, one.challenge().encode())
    with pytest.raises(ProtocolError, match="expired"):
        proving.prove(one.silo("silo-000"), state, one.composed.manifest.expires_at, one.challenge().encode())


def test_a_dropped_silos_nonce_chooses_nothing() -> None:
    """Hope: a colluding silo that dropped out tells its nonce or not, as it suits the sum."""
    many = Many(4)
    one = long_round(many).until_contributed(dropped=[LIAR]).part().agree().open()
    nonce = next(state.nonce for state in [before(one.states[LIAR])] if state.nonce is not None)
    told = one.challenge().model_copy(update={"nonces": (*one.challenge().nonces[:3], nonce.raw)})
    with pytest.raises(ProtocolError, match="not among the survivors"):
        proving.prove(one.silo("silo-000"), one.state("silo-000", rounds_states.Opened), NOW, told.encode())


def before(state: rounds_states.State) -> rounds_states.Proposed:
    while not isinstance(state, rounds_states.Proposed):
        state = state.before  # type: ignore[union-attr]
    return state


def test_different_challenges_to_different_silos_prove_nothing() -> None:
    """Hope: each half of the silos answers a challenge that suits the wrong sum."""
    one = opened().prove()
    fewer = one.challenge().model_copy(update={"nonces": (*one.challenge().nonces[:3], b"")})
    state = one.state("silo-000", rounds_states.Opened)
    one.replies["products"]["silo-000"] = (proving.prove(one.silo("silo-000"), state, NOW, fewer.encode()),)
    told = Outcomes(one.terms.request_hash, "fed", one.many.aggregator.silos)
    found = read_products(one.many.aggregator, one.challenge(), one.replies["products"], told)
    assert set(found) == set(one.many.names[1:])
    assert "another round, survivor set or challenge" in told.wrong["silo-000"]
    with pytest.raises(ProtocolError, match="another round, survivor set or challenge"):
        check_sum(check(one.assemble()), no_evidence)


# Products


def test_products_signed_falsely_pass_nothing() -> None:
    """Hope: one silo's word moves the sum of all; and the opposite of it at another silo."""
    one = opened().prove()
    first, second = decode(unverified(one.replies["products"][LIAR][0], Products).values)
    for wrong in ((first + 1, second), (first, second + 2**63), (second, first), (0, 0)):
        one.replies["products"][LIAR] = signed_by(one, LIAR, values=encode(tuple(v % 2**64 for v in wrong)))  # type: ignore[arg-type]
        with pytest.raises(ProtocolError, match="the sum is wrong: its inner products"):
            check_sum(check(one.assemble()), no_evidence)


def test_a_colluding_silo_has_fixed_its_vector_before_the_challenge() -> None:
    """What the protocol grants: a sum that has another vector of the liar, chosen before, and nothing after."""
    error = [2**20, 0, 5, 0, 0, 0]

    def moved(coordinates: Coordinates, most: int) -> None:
        for place, more in enumerate(error):
            coordinates[place] = (int(coordinates[place]) + more) % most

    one = begun()
    honest = coordinates_of(one)
    lied(one, moved)
    fixed = coordinates_of(one)
    opened(one).prove()
    more = []
    for coordinates in (fixed, honest):
        found = coefficients_of(one.challenge())
        found.add(coordinates)
        more.append(found.values)
    own = decode(unverified(one.replies["products"][LIAR][0], Products).values)
    made = tuple((value + new - old) % 2**64 for value, new, old in zip(own, *more, strict=True))
    one.replies["products"][LIAR] = signed_by(one, LIAR, values=encode(made))
    check_sum(check(one.assemble()), no_evidence)


def test_products_of_another_round_count_for_nothing() -> None:
    """Hope: products of an earlier round with the same silos are handed over again."""
    many = Many(4)
    first = opened(long_round(many, ONE, b"the first one...").until_contributed()).prove()
    second = opened(long_round(many, TWO, b"the second one..").until_contributed()).prove()
    second.replies["products"] = first.replies["products"]
    with pytest.raises(ProtocolError, match="another round, survivor set or challenge"):
        check_sum(check(second.assemble()), no_evidence)
    second.replies["products"] = {LIAR: first.replies["products"]["silo-001"]}
    told = Outcomes(second.terms.request_hash, "fed", many.aggregator.silos)
    assert read_products(many.aggregator, second.challenge(), second.replies["products"], told) == {}


def test_products_in_anothers_name_or_twice_are_refused() -> None:
    one = opened().prove()
    good = unverified(one.replies["products"][LIAR][0], Products)
    forged = sign(good, "silo-000", one.silo(LIAR).signing)
    with pytest.raises(CryptoError):
        check_sum(check(one, with_report(one.report, products=(forged,))), no_evidence)
    twice = (one.replies["products"][LIAR][0], signed_by(one, LIAR, values=bytes(16))[0])
    with pytest.raises(ProtocolError, match="two different products"):
        check_sum(check(one, with_report(one.report, products=twice)), no_evidence)


@pytest.mark.parametrize("left", [None, ()])
def test_a_report_without_products_has_its_vectors_fetched_whole(left: tuple[bytes, ...] | None) -> None:
    """Hope: where nobody proves anything, nothing is checked."""
    one = opened().prove()
    checked = check(one, with_report(one.report, products=left))
    assert proof_of(checked).whole == one.many.names
    with pytest.raises(AssertionError):
        check_sum(checked, no_evidence)
    check_sum(checked, evidence_of(one, *one.many.names))
    lied(one, ERRORS["2^32 there and back"])
    lying = checked_with(checked, stored=StoredReport(checked.stored.message, b"", memoryview(one.total())))
    with pytest.raises(ProtocolError, match="chunk 0 is not the sum of the signed contributions"):
        check_sum(lying, evidence_of(one, *one.many.names))


def test_a_silo_signs_what_its_own_blinded_vector_gives() -> None:
    one = opened().prove()
    scheme = check(one).scheme
    assert isinstance(scheme, MaskingScheme)
    for name in one.many.names:
        found = products_of(scheme, one.challenge(), one.pieces(name).__getitem__)
        assert decode(unverified(one.replies["products"][name][0], Products).values) == found


def test_what_is_sealed_to_a_recipient_is_what_the_silo_signed() -> None:
    """Hope: the part beside an opening is another silo's, altered, or left out."""
    one = opened().prove()
    sums = len(one.total())
    body, rows = bytes(one.report.blinded_sum[:sums]), bytes(one.report.blinded_sum[sums:])
    row = len(rows) // 4
    with pytest.raises(ProtocolError, match="does not have the size of the round"):
        check(one, with_report(one.report, body + rows[:-1]))
    with pytest.raises(ProtocolError, match="without what is sealed"):
        open_report(check(one, with_report(one.report, body)), "ana", SEALING)
    swapped = body + rows[row : 2 * row] + rows[:row] + rows[2 * row :]
    with pytest.raises(ProtocolError, match="2 silos opened their shares"):
        open_report(check(one, with_report(one.report, swapped)), "ana", SEALING)
    altered = body + bytes((rows[0] ^ 1,)) + rows[1:]
    found = open_report(check(one, with_report(one.report, altered)), "ana", SEALING)
    assert found.wrong == {"silo-000": "its opening: what came with it is not what it signed"}
    assert found.units.tolist() == values(one)
