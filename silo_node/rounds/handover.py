"""Hand a run's state over to a silo that missed reports, and take one over: docs/protocol.md section 11.

Promise: a silo takes a state only if a quorum of the run's silos, itself not counted, signed that they hold it, at a
report of this very job that is ahead of its own, and if every round that it missed meets its own policy. So fewer silos
than a quorum, with any aggregator and analyst, make no silo take another state. Whoever hands over learns nothing, and
the aggregator between sees no state and no hash of one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256

from blake3 import blake3

from crypto.errors import CryptoError, ProtocolError
from crypto.rounds.committees import quorum_of
from crypto.rounds.handover import (
    FRAME_BYTES,
    HandoverAsked,
    HeldState,
    frame_context,
    frames_of,
    number,
    statement_context,
)
from crypto.sealing import seal
from crypto.wire import sign, verify
from policies.budget.ledger import Ledger
from policies.requests.request import Request, job_of
from policies.requests.training import TrainingStep
from silo_node.rounds.learning import check_domains, signed_position, step_request, why_unmet
from silo_node.rounds.proposal import keep_run, load_run, state_of
from silo_node.rounds.releasing import released
from silo_node.rounds.states import Silo
from silo_node.training.keeping import packed, unpacked
from silo_node.training.run import RunState

_BYTES_PER_MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Held:
    """The state of a run that this silo hands over: what it says of it, and the bytes, the same at all silos."""

    state: HeldState
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Taking:
    """A state that a quorum holds, and the frames of it that have arrived."""

    asked: bytes  # the SHA-256 of the request to hand over
    request: Request
    step: TrainingStep  # that it asks for
    state: HeldState
    frames: tuple[bytes, ...] = field(default=(), repr=False)


def read_asked(silo: Silo, data: bytes) -> tuple[HandoverAsked, Request, TrainingStep]:
    """Return a request to hand over with the step that it names, which an aggregator and the analyst signed.

    Raises CryptoError, also if the receiver is no silo of the run.
    """
    asked = verify(data, HandoverAsked, silo.aggregators).message
    request, step, _ = step_request(silo, asked.request)
    if asked.federation != silo.federation:
        raise ProtocolError(f"a handover in the federation {asked.federation!r}, this is {silo.federation!r}")
    if asked.receiver not in request.run_silos or silo.name not in request.run_silos:
        raise ProtocolError("a state is handed over between silos of its run alone")
    return asked, request, step


def state_asked(silo: Silo, data: bytes) -> bytes:
    """Return what requests have in common that ask for one state, whoever is to have it; raises as `read_asked`."""
    asked, _, _ = read_asked(silo, data)
    if asked.receiver == silo.name:
        raise ProtocolError("a silo hands its state over to others alone")
    return sha256(asked.position + asked.request).digest()


def held(silo: Silo, ledger: Ledger, data: bytes) -> Held:
    """Return what this silo holds at the report that is asked for; raises CryptoError if it holds nothing there."""
    asked, request, step = read_asked(silo, data)
    state = load_run(silo, ledger, step.run)
    if state is None or state.position != asked.position or asked.receiver == silo.name:
        raise ProtocolError("this silo holds no state at that report")
    if state.split is not None or state.job != job_of(request, step) or state.done != step.step + 1:
        raise ProtocolError("the state at that report is of another step or job")
    body = packed(state.model_copy(update={"learned_at": 0, "audits": ()}))  # when, and what it audited, are its own
    said = HeldState(
        federation=silo.federation,
        run=state.run,
        job=state.job,
        position=state.position,
        done=state.done,
        size=len(body),
        digest=blake3(body).digest(),
    )
    return Held(said, body)


def statement(silo: Silo, data: bytes, held: Held) -> tuple[bytes, bytes]:
    """Return what this silo holds, signed and sealed to the receiver, and in how many frames it can hand it over."""
    asked = verify(data, HandoverAsked, silo.aggregators).message
    signed = sign(held.state, silo.name, silo.signing)
    return seal(_key_of(silo, asked), signed, statement_context(asked)), number(frames_of(held.state.size))


def handed(silo: Silo, data: bytes, held: Held, index: int) -> bytes:
    """Return a frame of the state, sealed to the receiver; raises ProtocolError if there is none of that number."""
    asked = verify(data, HandoverAsked, silo.aggregators).message
    if not 0 <= index < frames_of(held.state.size):
        raise ProtocolError(f"the state has {frames_of(held.state.size)} frames, none of number {index}")
    frame = held.body[index * FRAME_BYTES : (index + 1) * FRAME_BYTES]
    return seal(_key_of(silo, asked), frame, frame_context(asked, index))


def _key_of(silo: Silo, asked: HandoverAsked) -> bytes:
    return silo.roster.recipients([asked.receiver])[0].key


def agreed(silo: Silo, ledger: Ledger, data: bytes, statements: Sequence[bytes]) -> Taking:
    """Return what a quorum of the run's other silos says that they hold, if this silo may take it.

    Raises ProtocolError if too few say the same, if it is longer than the policy allows, or if it is not ahead of what
    this silo has learned.
    """
    asked, request, step = read_asked(silo, data)
    if asked.receiver != silo.name:
        raise ProtocolError(f"the state is handed over to {asked.receiver!r}, not to this silo")
    signers = dict[HeldState, set[str]]()
    others = {name: silo.silos[name] for name in request.run_silos if name != silo.name and name in silo.silos}
    for sealed in statements[: len(request.run_silos)]:
        try:
            signed = verify(silo.sealing.open(sealed, statement_context(asked)), HeldState, others)
        except CryptoError:
            continue  # it counts for nobody
        signers.setdefault(signed.message, set()).add(signed.signer)
    job = job_of(request, step)
    of = silo.federation, step.run, job, asked.position, step.step + 1
    found = {
        one: who for one, who in signers.items() if (one.federation, one.run, one.job, one.position, one.done) == of
    }
    needed = max(quorum_of(len(request.run_silos)), silo.policy.protection.max_colluding + 1)
    most = max(found, key=lambda one: len(found[one]), default=None)
    if most is None or len(found[most]) < needed:
        count = 0 if most is None else len(found[most])
        raise ProtocolError(f"{count} silos say that they hold one state at this report, {needed} others must")
    most_mb = silo.policy.vectors.max_state_mb
    if most.size > most_mb * _BYTES_PER_MB + RunState.MAX_BYTES:
        raise ProtocolError(f"a state of {most.size} bytes, and the policy's vectors.max_state_mb is {most_mb}")
    own = state_of(silo, ledger, request)
    if (own is not None and own.job != job) or ledger.job_of(step.run) not in (None, job):
        raise ProtocolError("this training run began with another request")
    if own is not None and own.done >= most.done:
        raise ProtocolError(f"this silo has learned {own.done} steps of the run, a state after {most.done} is behind")
    return Taking(sha256(data).digest(), request, step, most)


def with_frame(silo: Silo, taking: Taking, data: bytes, index: int, sealed: bytes) -> Taking:
    """Return what has arrived with one more frame, the next one; raises CryptoError on any other."""
    asked, _, _ = read_asked(silo, data)
    if sha256(data).digest() != taking.asked or index != len(taking.frames):
        raise ProtocolError(f"frame {index} of a state, expected frame {len(taking.frames)} of the one that was agreed")
    frame = silo.sealing.open(sealed, frame_context(asked, index))
    if len(frame) != min(FRAME_BYTES, taking.state.size - index * FRAME_BYTES):
        raise ProtocolError(f"frame {index} of the state has {len(frame)} bytes")
    return replace(taking, frames=(*taking.frames, frame))


def taken(silo: Silo, ledger: Ledger, now: int, taking: Taking) -> tuple[bytes, ...]:
    """Keep a state whose frames are all here, and return the signed ModelUpdated, as `learning.learn` does.

    Durable before this returns. Raises CryptoError, and changes nothing, if the bytes are not those that the quorum
    holds, or if a round that this silo missed does not meet its policy.
    """
    body = b"".join(taking.frames)
    if len(body) != taking.state.size or blake3(body).digest() != taking.state.digest:
        raise ProtocolError("the state that was handed over is not the one that the quorum holds")
    state, request = unpacked(body), taking.request
    own = state_of(silo, ledger, request)
    if own is not None and own.done >= state.done:
        raise ProtocolError(f"this silo has learned {own.done} steps of the run meanwhile")
    _check_state(taking, state)
    _check_missed(silo, 0 if own is None else own.done, state)
    state = state.model_copy(update={"learned_at": now})
    ledger.miss_own(state.run, 0 if own is None else own.done, state.done)
    keep_run(silo, ledger, state, state.done)
    return (signed_position(silo, ledger, state.run, state), *released(silo, ledger, request, state, is_new=True))


def _check_state(taking: Taking, state: RunState) -> None:
    """Raise ProtocolError unless a state is of the run, the job and the step that its holders and the request name."""
    request, step, said = taking.request, taking.step, taking.state
    check_domains(request)
    of_silos = state.run, state.job, state.position, state.done
    if of_silos != (said.run, said.job, said.position, said.done):
        raise ProtocolError("the state that was handed over is of another step than its holders say")
    expected = request.analyst, request.purpose, request.table.name, step.label, step.release, step.steps
    if (state.analyst, state.purpose, state.table, state.label, state.release, state.steps) != expected:
        raise ProtocolError("the state that was handed over is of another run than the request")
    record = state.record
    if record is None or (record.plan, record.table) != (step.first(), request.table):
        raise ProtocolError("the state that was handed over has no record of this run's rounds")


def _check_missed(silo: Silo, first: int, state: RunState) -> None:
    """Raise ProtocolError unless each round from `first` on meets this silo's own conditions, as when it learns."""
    spells = () if state.record is None else state.record.spells
    following = first
    for spell in (one for one in spells if one.last >= first):
        if spell.first > following or not spell.asked:
            break
        following = spell.last + 1
        survivors = [one for one in spell.silos if one not in spell.without]
        if reason := why_unmet(silo, spell.asked, survivors, spell.noise_shares):
            rounds = f"rounds {max(first, spell.first) + 1} to {following}"
            raise ProtocolError(f"{rounds} of the run do not meet this silo's own policy: {reason}")
    if following != state.done:
        raise ProtocolError(f"the record of the run does not say who took part in round {following + 1}")
