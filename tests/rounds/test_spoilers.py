"""Attack stories of one party that spoils a round: it is named, what it sent is left out, and the rest goes on."""

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest

from analyst.answers import error_of, read_failure
from analyst.demo.hospitals import PURPOSE
from analyst.errors import RoundError
from analyst.reports.report import Report
from analyst.testimonies import cleared, proven_guilty, signings_of
from crypto.backends.scheme import KEY_ID_BYTES
from crypto.errors import CryptoError, ProtocolError
from crypto.keys import Secret
from crypto.merkle import MerkleTree, leaf_hash
from crypto.rounds.entries import guilty
from crypto.rounds.key_schedule import opening_info
from crypto.rounds.manifest import BackendName, Manifest
from crypto.rounds.messages import (
    Accusation,
    Bundle,
    Deliver,
    Failure,
    Opening,
    Ready,
    SiloTestimony,
    UnmaskingShares,
)
from crypto.rounds.payload import BlindedPieces
from crypto.sealing import SealingKey, seal
from crypto.wire import sign, unverified
from policies.requests.request import Request
from silo_node.rounds import steps
from silo_node.rounds.states import Contributed, Silo
from tests.cases import ENCRYPTED, of_backends
from tests.harness.inside import aggregator_of, known_to, rounds_of
from tests.harness.many_silos import SEALING, Many, Round, accusation_of
from tests.harness.simulator import Simulation

QUESTION = "SELECT COUNT(*) AS n FROM lung"
Rewrite = Callable[[str, tuple[bytes, ...]], tuple[bytes, ...]]
each_masked = pytest.mark.parametrize(
    "backend",
    [
        "masking",
        pytest.param("bfv", marks=pytest.mark.he),
        pytest.param("ckks", marks=pytest.mark.he),
        pytest.param("paillier", marks=pytest.mark.he),
    ],
)
each = pytest.mark.parametrize(
    "backend",
    [
        "masking",
        "shares",
        pytest.param("bfv", marks=pytest.mark.he),
        pytest.param("ckks", marks=pytest.mark.he),
        pytest.param("paillier", marks=pytest.mark.he),
    ],
)


def ask(
    simulation: Simulation, backend: BackendName = "masking", tell: Callable[[str], None] = lambda _: None
) -> Report:
    return simulation.federation.query(
        QUESTION, purpose=PURPOSE, epsilon=1, backend=backend, counts_cut=False, tell=tell, new=True
    )


def count(report: Report) -> float:
    (row,) = report.rows
    return float(row["n"].value)  # type: ignore[union-attr,arg-type]


def rewriting(simulation: Simulation, name: str, step: str, change: Callable[[tuple[bytes, ...]], Any]) -> None:
    """Let a silo answer a step with something else."""
    simulation.silos[name].rewrite = lambda at, frames: change(frames) if at == step else frames


def reopening(simulation: Simulation, name: str, change: Callable[[Opening], dict[str, object]]) -> None:
    """Let a silo sign an opening with other fields."""
    signing = known_to(simulation.silos[name]).signing

    def changed(frames: tuple[bytes, ...]) -> tuple[bytes, ...]:
        opening = unverified(frames[0], Opening)
        return sign(opening.model_copy(update=change(opening)), name, signing), *frames[1:]

    rewriting(simulation, name, "open_shares", changed)


# Openings


@each_masked
def test_one_flipped_byte_in_an_opening_is_left_out_and_named(shared: Simulation, backend: BackendName) -> None:
    # Hope: every report that rowan has a part in is spoilt after all have paid, and nobody is named.
    reopening(shared, "rowan", lambda one: {"sealed": tuple(raw[:-1] + bytes([raw[-1] ^ 1]) for raw in one.sealed)})
    report = ask(shared, backend)
    assert count(report) == 228
    assert "does not open" in report.wrong["rowan"]
    assert set(report.wrong) == {"rowan"}
    assert report.silos["rowan"].status == "answered", "its masked input is in the sum"


FORMS: dict[str, Callable[[Opening], dict[str, object]]] = {
    "nothing sealed": lambda one: {"sealed": ()},
    "sealed twice": lambda one: {"sealed": one.sealed * 2},
    "cut": lambda one: {"sealed": (one.sealed[0][:-1],)},
    "empty": lambda one: {"sealed": (b"",)},
    "four megabytes": lambda one: {"sealed": (bytes(2 << 20),)},
    "a sum that nobody asked for": lambda one: {"sums": (bytes(32),)},
    "another survivor set": lambda one: {"split_hash": bytes(32)},
    "another manifest": lambda one: {"manifest_hash": bytes(32)},
    "to another key": lambda one: {
        "sealed": (seal(SealingKey(Secret.generate()).public, bytes(len(one.sealed[0]) - 1136), b""),)
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_an_opening_of_another_form_is_left_out_and_named(shared: Simulation, form: str) -> None:
    # Hope: what the aggregator or the analyst does not expect ends the whole round.
    reopening(shared, "rowan", FORMS[form])
    report = ask(shared)
    assert count(report) == 228
    assert set(report.wrong) == {"rowan"}, report.wrong


def test_an_opening_that_another_signed_spoils_nothing(shared: Simulation) -> None:
    # Hope: maple's opening is counted as rowan's too, or nobody's.
    signing = known_to(shared.silos["maple"]).signing
    rewriting(shared, "rowan", "open_shares", lambda frames: (sign(unverified(frames[0], Opening), "maple", signing),))
    report = ask(shared)
    assert count(report) == 228
    assert "rowan" not in report.wrong or "the aggregator says" in report.wrong["rowan"]
    assert "maple" not in report.wrong


def opened_as(one: Round, name: str, change: Callable[[tuple[bytes, ...]], tuple[bytes, ...]]) -> None:
    """Let a silo open other shares than it holds."""
    raw = unverified(one.replies["open_shares"][name][0], Opening)
    info = opening_info(raw.manifest_hash, raw.split_hash, name, "ana")
    row = UnmaskingShares.decode(SEALING.open(raw.sealed[0], info)).shares
    sealed = seal(SEALING.public, UnmaskingShares(shares=change(row)).encode(), info)
    changed = raw.model_copy(update={"sealed": (sealed,)})
    one.replies["open_shares"][name] = (sign(changed, name, one.silo(name).signing),)


def wrong_of(one: Round) -> dict[str, str]:
    return dict(one.opened().wrong)


def test_wrong_shares_of_everybody_are_passed_over_and_who_opened_them_is_named() -> None:
    # Hope: five well sealed shares of nothing, so that no secret is rebuilt.
    one = Many(5).round().until_contributed().part().agree().open()
    opened_as(one, "silo-000", lambda row: (bytes(32),) * len(row))
    one.assemble()
    assert one.answer() == one.many.sum_of(one.many.names)
    assert wrong_of(one) == {"silo-000": "it opened wrong shares of 5 silos"}


def test_one_wrong_share_names_the_two_who_can_have_made_it() -> None:
    # Hope: to have silo-003 blamed alone for what silo-000 did.
    one = Many(5).round().until_contributed().part().agree().open()
    opened_as(one, "silo-000", lambda row: (*row[:3], bytes(32), *row[4:]))
    one.assemble()
    assert one.answer() == one.many.sum_of(one.many.names)
    assert wrong_of(one) == {"silo-000": "it opened a wrong share of silo-003, unless silo-003 dealt it so"}


def test_a_share_that_is_no_element_of_the_field_spoils_nothing() -> None:
    one = Many(5).round().until_contributed().part().agree().open()
    opened_as(one, "silo-000", lambda row: (b"\xff" * 32,) * len(row))
    one.assemble()
    assert one.answer() == one.many.sum_of(one.many.names)
    assert set(wrong_of(one)) == {"silo-000"}


def test_three_of_twenty_that_open_wrong_shares_are_found_wherever_they_stand() -> None:
    # Hope: as the quorums that are tried begin with the lowest, three low ones are in each of the first thousand.
    many = Many(20, colluding=3, missing=3)
    one = many.round().until_contributed().part().agree().open()
    for name in many.names[:3]:
        opened_as(one, name, lambda row: (bytes(32),) * len(row))
    one.assemble()
    assert one.answer() == many.sum_of(many.names)
    assert wrong_of(one) == dict.fromkeys(many.names[:3], "it opened wrong shares of 20 silos")


def test_colluding_openers_with_shares_on_one_polynomial_rebuild_nothing_else() -> None:
    # Hope: three liars agree on another polynomial, and it is taken for the dealer's.
    many = Many(20, colluding=3, missing=3)
    one = many.round().until_contributed().part().agree().open()
    for place, name in enumerate(many.names[:3]):
        opened_as(one, name, lambda row, place=place: ((place + 1).to_bytes(32, "big"),) * len(row))  # type: ignore[misc]
    one.assemble()
    assert one.answer() == many.sum_of(many.names)
    assert set(wrong_of(one)) == set(many.names[:3])


def test_below_a_quorum_nothing_opens_and_all_who_spoilt_it_are_named() -> None:
    # Hope: two of five spoil the report, and the analyst is told no name.
    one = Many(5, colluding=2).round().until_contributed().part().agree().open()
    for name in one.many.names[:2]:
        raw = unverified(one.replies["open_shares"][name][0], Opening)
        garbled = raw.model_copy(update={"sealed": (bytes(len(raw.sealed[0])),)})
        one.replies["open_shares"][name] = (sign(garbled, name, one.silo(name).signing),)
    one.assemble()
    with pytest.raises(ProtocolError, match=r"3 silos opened.*silo-000 is left out .*silo-001 is left out"):
        one.answer()


def test_openings_of_a_dropped_silos_root_are_passed_over_too() -> None:
    # Hope: what is opened of a silo that dropped out is checked less.
    many = Many(7, missing=2)
    one = many.round().until_go().contribute(["silo-005"]).part().agree().open()
    opened_as(one, "silo-000", lambda row: (bytes(32),) * len(row))
    one.assemble()
    assert one.answer() == many.sum_of(name for name in many.names if name != "silo-005")
    assert set(wrong_of(one)) == {"silo-000"}


# Entries that do not open, and accusations


def garbage_for(simulation: Simulation, dealer: str, victims: int) -> None:
    """Let a silo seal garbage to the first others of the roster, under a bundle that it signs."""
    key = known_to(simulation.silos[dealer]).signing

    def garbage(frames: tuple[bytes, ...]) -> tuple[bytes, ...]:
        entries = (*(bytes(len(one)) for one in frames[1 : victims + 1]), *frames[victims + 1 :])
        root = MerkleTree([leaf_hash(entry) for entry in entries]).root
        return sign(unverified(frames[0], Bundle).model_copy(update={"entries": root}), dealer, key), *entries

    rewriting(simulation, dealer, "share", garbage)


@pytest.mark.parametrize("victims", [1, 2, 4])
def test_who_seals_garbage_is_found_guilty_and_the_victims_are_asked_again(exact: Simulation, victims: int) -> None:
    # Hope: the accuser is left out with the accused, so that of five silos too few are left, whenever rowan likes.
    garbage_for(exact, "rowan", victims)
    told: list[str] = []
    report = ask(exact, tell=told.append)
    assert {silo for silo, one in report.silos.items() if one.status == "answered"} == set(exact.silos) - {"rowan"}
    assert report.silos["rowan"].status == "missing"
    assert "asked again without rowan (what it sealed for aspen does not open)" in told[-1]
    assert exact.spent("rowan") == 0


def test_who_seals_shares_outside_the_field_is_found_guilty_before_anybody_is_charged(
    exact: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Hope: shares that open and rebuild nothing are found only when all have paid, and their openers seem to lie.
    share = steps.share

    def dealt(silo: Silo, *arguments: Any) -> Any:
        with monkeypatch.context() as only:
            if silo.name == "rowan":
                only.setattr(steps, "share_secret", lambda secret, parties, quorum: [b"\xff" * 32] * parties)
            return share(silo, *arguments)

    monkeypatch.setattr(steps, "share", dealt)
    told: list[str] = []
    report = ask(exact, tell=told.append)
    assert {silo for silo, one in report.silos.items() if one.status == "answered"} == set(exact.silos) - {"rowan"}
    assert "asked again without rowan (what it sealed for aspen does not open)" in told[-1]
    assert exact.spent("rowan") == 0


def test_who_accuses_falsely_is_found_guilty_and_the_accused_is_asked_again(exact: Simulation) -> None:
    # Hope: a false word throws an honest silo out, again and again.
    silo, delivered = exact.silos["rowan"], list[tuple[bytes, ...]]()
    silo.before = lambda step, arguments: delivered.append(arguments) if step == "ready" else None

    def lie(frames: tuple[bytes, ...]) -> tuple[bytes, ...]:
        _, data, *entries = delivered[-1]
        deliver, ready = Deliver.decode(data), unverified(frames[0], Ready)
        accusation = Accusation(
            manifest_hash=ready.manifest_hash,
            accused="aspen",
            signature=deliver.signatures[0].signature,
            path=deliver.paths[0],
            entry=entries[0],
            channel=bytes(32),
            root=bytes(32),
        )
        return (sign(accusation, "rowan", known_to(silo).signing),)

    rewriting(exact, "rowan", "ready", lie)
    report = ask(exact)
    assert report.silos["aspen"].status == "answered"
    assert report.silos["rowan"].status == "missing"


def judged(one: Round, accuser: str, accusation: Accusation, **changes: Any) -> str:
    accept = next(member.message for member in one.composed.members if member.signer == accuser)
    manifest = one.composed.manifest
    return guilty(
        manifest, one.manifest_hash, accuser, accept.model_copy(update=changes), accusation, one.many.aggregator.silos
    )


def test_an_accusation_convicts_the_accused_by_its_own_signature_alone() -> None:
    # Hope: to convict silo-000 of an entry that it did not make, or with keys that were not those of the round.
    one = Many(5).round().propose().compose().share()
    honest = accusation_of(one, "silo-004", "silo-000")
    assert judged(one, "silo-004", honest) == "silo-004", "the entry opens"
    for lie in (
        {"entry": bytes(len(honest.entry))},
        {"entry": b""},
        {"signature": bytes(64)},
        {"path": b""},
        {"path": bytes(len(honest.path))},
        {"channel": bytes(32)},
        {"root": bytes(32)},
        {"accused": "silo-001"},
        {"accused": "silo-004"},
    ):
        assert judged(one, "silo-004", honest.model_copy(update=lie)) == "silo-004", lie
    for other in ({"manifest_hash": bytes(32)}, {"accused": "stranger"}):
        with pytest.raises(ProtocolError, match="another round"):
            judged(one, "silo-004", honest.model_copy(update=other))
    with pytest.raises(ProtocolError, match="another round"):
        judged(one, "silo-004", honest, round_id=bytes(16))


def test_a_silo_that_has_accused_is_never_ready_in_that_round(exact: Simulation) -> None:
    # Hope: an aggregator that knows the accuser's secrets from its accusation makes it contribute under them.
    garbage_for(exact, "rowan", 1)
    delivered: list[tuple[bytes, ...]] = []
    exact.silos["aspen"].before = lambda step, arguments: delivered.append(arguments) if step == "ready" else None
    ask(exact)
    first, actor = delivered[0], exact.silos["aspen"].actor
    once, again = actor.ready(*first), actor.ready(*first)
    assert once == again
    accusation = unverified(once[0], Accusation)
    assert accusation.accused == "rowan"
    for step in ("share", "contribute", "agree", "open_shares"):
        (reply,) = getattr(actor, step)(first[0], first[1])
        assert b"not at that step" in reply
    assert b"not at that step" in actor.ready(first[0], first[1])[0]
    proposed = next(arguments for step, arguments in exact.silos["aspen"].seen if step == "> propose")
    (reply, *_) = actor.propose(*proposed)
    assert b"proposed before" in reply


# Testimonies


def failed_round(simulation: Simulation) -> tuple[Request, Failure]:
    """Ask five silos of which two vanish after they were ready; return the request, and the aggregator's failure."""
    for name in ("cedar", "rowan"):
        simulation.silos[name].dies_before = "contribute"
    _, request = simulation.federation.prepare(QUESTION, purpose=PURPOSE, epsilon=1)
    answer = simulation.federation.exchange(request)
    assert not isinstance(answer, bytes)
    return request, answer.message


def test_a_failure_shows_what_the_missing_silos_signed(shared: Simulation) -> None:
    # Hope: an aggregator that says "missing" shows nothing by which it could be held.
    request, failure = failed_round(shared)
    roster = shared.federation.config.roster
    assert failure.missing == ("cedar", "rowan")
    found = signings_of(failure, roster)
    assert set(found) == {"cedar", "rowan"}
    for one in found.values():
        assert one.steps == ("accepted", "shared its keys", "was ready")
    error = error_of(failure, request, roster)
    assert isinstance(error, RoundError)
    assert "cedar had signed that it was ready; rowan had signed that it was ready" in error.message


def test_nothing_counts_that_a_silo_did_not_sign_for_this_request_and_round(shared: Simulation) -> None:
    # Hope: an aggregator shows what another silo signed, or the same silo of another round, or nobody.
    request, failure = failed_round(shared)
    roster, hub = shared.federation.config.roster, aggregator_of(shared.server)
    cedar, rowan = failure.testimonies
    shared.mend()
    _, other = failed_round(shared)

    def steps(**changes: Any) -> dict[str, tuple[str, ...]]:
        changed = failure.model_copy(update=changes)
        envelope = sign(changed, hub.name, hub.signing)
        return {
            name: one.steps
            for name, one in signings_of(read_failure(envelope, request, roster).message, roster).items()
        }

    assert steps(testimonies=(cedar.model_copy(update={"silo": "rowan"}),)) == {"rowan": ()}
    assert steps(testimonies=(SiloTestimony(silo="nobody", wrong="", signed=cedar.signed),)) == {"nobody": ()}
    assert steps(testimonies=other.testimonies, manifests=other.manifests)["cedar"] == ()
    assert steps(manifests=()) == {"cedar": ("accepted",), "rowan": ("accepted",)}
    assert steps(manifests=other.manifests) == {"cedar": ("accepted",), "rowan": ("accepted",)}
    assert steps(testimonies=(cedar.model_copy(update={"signed": (b"no envelope",)}), rowan))["cedar"] == ()


def test_no_aggregator_convicts_a_silo_by_a_manifest_of_its_own(exact: Simulation) -> None:
    # Hope: under another manifest the entry of the accused is none, so that the accuser seems to lie.
    garbage_for(exact, "rowan", 1)
    _, request = exact.federation.prepare(QUESTION, purpose=PURPOSE, epsilon=1)
    answer = exact.federation.exchange(request)
    assert not isinstance(answer, bytes)
    failure = answer.message
    roster, hub = exact.federation.config.roster, aggregator_of(exact.server)
    assert proven_guilty(failure, roster) == {"rowan": "what it sealed for aspen does not open"}
    assert cleared(failure, roster) == {"aspen"}
    (manifest,) = (unverified(one, Manifest) for one in failure.manifests)
    forged = sign(manifest.model_copy(update={"members": bytes(32)}), hub.name, hub.signing)
    assert proven_guilty(failure.model_copy(update={"manifests": (forged,)}), roster) == {}
    unaccepted = [
        one.model_copy(update={"signed": tuple(raw for raw in one.signed if b"accept" not in raw[:16])})
        for one in failure.testimonies
    ]
    assert proven_guilty(failure.model_copy(update={"testimonies": tuple(unaccepted)}), roster) == {}


@each
def test_a_masked_input_that_is_not_as_signed_is_dropped_and_named(shared: Simulation, backend: BackendName) -> None:
    # Hope: a contribution that cannot be added ends the round, or its silo seems to have been away.
    rewriting(shared, "maple", "contribute", lambda frames: (frames[0], bytes(len(frames[1]))))
    report = ask(shared, backend)
    assert report.silos["maple"].status == "dropped"
    assert "the aggregator says" in report.wrong["maple"]
    assert set(report.wrong) == {"maple"}


@pytest.mark.parametrize("backend", of_backends(ENCRYPTED))
def test_a_broken_ciphertext_names_its_silo_and_the_next_question_is_answered(
    shared: Simulation, backend: BackendName
) -> None:
    # Hope: signed bytes that are no ciphertext crash the aggregator, or nobody knows whose they were.
    many = b"\xff" * (1 << 17)
    for change in (
        lambda piece: piece[:KEY_ID_BYTES] + many[: len(piece) - KEY_ID_BYTES],  # numbers outside the group
        lambda piece: bytes(KEY_ID_BYTES) + piece[KEY_ID_BYTES:],  # under another key
        lambda piece: piece[:-8],
        lambda piece: piece + many,
        lambda piece: b"",
    ):
        garble_pieces(shared, "maple", lambda _, piece, change=change: change(piece))  # type: ignore[misc]
        report = ask(shared, backend)
        assert report.silos["maple"].status == "dropped"
        assert set(report.wrong) == {"maple"}
    shared.mend()
    assert count(ask(shared, backend)) == 228


@pytest.mark.parametrize("backend", of_backends(ENCRYPTED))
def test_numbers_of_the_group_that_are_no_ciphertext_end_a_sandbox_and_no_party(
    shared: Simulation, backend: BackendName
) -> None:
    # Known: as with an invented vector, nobody can tell whose they were. These open to nothing.
    any_bytes = Random(7).randbytes(1 << 17)  # noqa: S311

    def garbled(piece: bytes) -> bytes:
        words = np.frombuffer(any_bytes[: len(piece) - KEY_ID_BYTES], np.uint64) & np.uint64((1 << 59) - 1)
        return piece[:KEY_ID_BYTES] + words.tobytes()

    garble_pieces(shared, "maple", lambda _, piece: garbled(piece))
    with pytest.raises(CryptoError, match=r"masks are left in it|beyond|no noise budget|far outside"):
        ask(shared, backend)
    shared.mend()
    assert count(ask(shared, backend)) == 228


# Columns, in the backend `shares`


def garble_columns(simulation: Simulation, dealer: str, victims: int) -> None:
    """Let a silo seal garbage in the columns for the first silos of the roster, under a header that it signs."""
    garble_pieces(simulation, dealer, lambda at, piece: bytes(len(piece)) if at < victims else piece)


def garble_pieces(simulation: Simulation, silo: str, change: Callable[[int, bytes], bytes]) -> None:
    """Let a silo change the pieces of its masked input, under a header that it signs."""
    actor, signing = simulation.silos[silo].actor, known_to(simulation.silos[silo]).signing

    def garbling(frames: tuple[bytes, ...]) -> tuple[bytes, ...]:
        (state,) = (one for one in rounds_of(actor).values() if isinstance(one, Contributed))
        count = len(state.masked.digests())
        pieces = tuple(change(at, state.masked.piece(at)) for at in range(count))
        garbled = replace(state, masked=BlindedPieces(pieces))
        rounds_of(actor)[state.manifest.round_id] = garbled
        return sign(garbled.header, silo, signing), b"".join(pieces)

    rewriting(simulation, silo, "contribute", garbling)


def test_who_seals_a_column_that_does_not_open_is_named_by_its_victim(exact: Simulation) -> None:
    # Hope: aspen fails at the last step by what rowan sealed to it, and seems to be the one that spoils.
    garble_columns(exact, "rowan", 1)
    report = ask(exact, "shares")
    assert count(report) == 228
    assert "the column that 'rowan' sealed to this silo is wrong" in report.wrong["aspen"]


def test_who_seals_columns_that_do_not_open_to_many_is_named_by_all_of_them(exact: Simulation) -> None:
    garble_columns(exact, "rowan", 2)
    with pytest.raises(RoundError) as caught:
        ask(exact, "shares")
    for victim in ("aspen", "birch"):
        assert f"{victim} (the column that 'rowan' sealed to this silo is wrong" in caught.value.message


def test_a_dealer_of_wrong_shares_is_named_when_nothing_opens() -> None:
    # Known: one silo that deals shares of nothing to more than can be spared spoils a paid sum. It is named.
    one = Many(5).round().until_contributed().part().agree().open()
    for name in one.many.names[:2]:
        opened_as(one, name, lambda row: (*row[:3], bytes(32), *row[4:]))
    one.assemble()
    with pytest.raises(ProtocolError, match="'silo-003' do not rebuild its secret: it dealt wrong ones"):
        one.answer()


def test_a_dealer_of_wrong_shares_to_more_than_collude_is_named_and_its_victims_are_not() -> None:
    # Hope: silo-019 deals wrong shares to three, who seem to lie.
    many = Many(20, colluding=2, missing=3)
    one = many.round().until_contributed().part().agree().open()
    for name in many.names[:3]:
        opened_as(one, name, lambda row: (*row[:19], bytes(32)))
    one.assemble()
    assert one.answer() == many.sum_of(many.names)
    assert wrong_of(one) == {"silo-019": "it dealt wrong shares to 3 silos"}
