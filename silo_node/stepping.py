"""The steps of rounds at one silo, of which many are taken at a time.

A step looks at its round and changes it under one lock, and works without it: so one that computes for long, or waits
for a source or an aggregator, holds no other up. What it has computed leaves only if its round is still where it was.
Promise: of a round, one acceptance, one bundle, one contribution and one opening leave, whatever comes at a time.
"""

import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, assert_never

from crypto.errors import AccusedError, ProtocolError
from crypto.rounds.manifest import Propose
from crypto.rounds.messages import Accusation
from crypto.wire import sign, unverified
from policies.budget.ledger import Consulted
from policies.units import HOUR_S
from silo_node.errors import NetworkError, SpentError
from silo_node.ledger.checkpoints import Guards
from silo_node.ledger.records import Recorder
from silo_node.ledger.store import LedgerStore
from silo_node.rounds import owning, proposal, proving, steps
from silo_node.rounds import states as rounds_states
from silo_node.rounds.open_rounds import OpenRounds, digest_of
from silo_node.rounds.states import Silo
from silo_node.telling import Teller

LOOK_S = float(HOUR_S)  # the time between two checks for expired data, also without any message

if TYPE_CHECKING:
    from silo_node.held import HeldData
    from silo_node.rounds.states import State
    from silo_node.rounds.vector import Noise
    from silo_node.timed import Leaving


class Alarm:
    """Calls a function after a delay; a new delay takes the place of the last."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call, self._timer = call, threading.Timer(0, call)

    def ring_in(self, delay_s: float) -> None:
        self._timer.cancel()
        self._timer = threading.Timer(delay_s, self._call)
        self._timer.daemon = True
        self._timer.start()

    def cancel(self) -> None:
        self._timer.cancel()


class Stepping:
    """What `silo_node.actor.SiloActor` does at each step of a round."""

    _silo: Silo
    _ledger: LedgerStore
    _data: "HeldData"
    _guards: Guards
    _recorder: Recorder
    _rounds: OpenRounds
    _teller: Teller
    _noise: "Noise"
    _turn: threading.Lock  # for a look at the rounds, or a change of them: nothing is computed under it
    _judging: threading.Lock  # for the last judgement of a request, and its reservation
    _clock: Callable[[], float]
    _eraser: "Alarm"  # which sweeps, also without any message

    def _propose(self, round_id: bytes, data: bytes) -> tuple[bytes, ...]:
        """Read, judge and reserve without the lock: requests are long, a source or an aggregator slow to answer."""
        asked = digest_of(data)
        with self._turn:
            self._sweep()
            if (frames := self._rounds.again(round_id, "propose", asked)) is not None:
                return frames
        signers, nonces = proposal.signers_of(self._silo, data), proposal.nonces_of(data)
        with self._turn:
            self._rounds.check_new(round_id, nonces, signers[1])
        self._recorder.admit(signers)
        self._recorder.check_newest()
        state, reply = proposal.propose(
            self._silo,
            self._ledger,
            self._data.fresh,
            self._now(),
            round_id,
            data,
            self._data.check_reach,
            self._judging,
        )
        frames, expires_at = (reply,) if state is None else state.reply, unverified(data, Propose).expires_at
        if state is None:
            self._recorder.decided(data, reply, signers)
        with self._turn:
            if state is not None:
                self._begin(round_id, state, signers[1])
            self._rounds.keep(round_id, "propose", asked, frames, expires_at)
        return frames

    def _begin(self, round_id: bytes, state: rounds_states.Proposed, whose: str) -> None:
        """Begin a round, unless its like has begun while it was judged."""
        nonces = proposal.nonces_in(state.request)
        try:
            self._rounds.check_new(round_id, nonces, whose)
        except ProtocolError:
            self._rounds.give_back(state.request.nonce)
            raise
        self._rounds.begin(round_id, state, nonces, whose)
        self._eraser.ring_in(self._rounds.next_s(self._now(), LOOK_S))

    def _advance(
        self, round_id: bytes, step: str, expected: "type[State]", data: bytes, *parts: bytes
    ) -> tuple[bytes, ...]:
        """Take a step without the lock; if the round has moved on meanwhile, nothing of it leaves."""
        asked = digest_of(data, *parts)
        with self._turn:
            self._sweep()
            if (frames := self._rounds.again(round_id, step, asked)) is not None:
                return frames
            state, now = self._rounds.at(round_id, expected), self._now()
        after: State | None = None
        match state:
            case rounds_states.Proposed():
                after, frames = steps.share(self._silo, state, now, data, parts)
            case rounds_states.Contributed():
                after, reply = steps.agree(self._silo, state, self._ledger, now, data)
                frames = (reply,)
            case rounds_states.Agreed():
                after, frames = proving.awaiting(state), steps.open_shares(self._silo, state, now, data, parts)
            case rounds_states.Opened():
                frames = (proving.prove(self._silo, state, now, data),)
            case rounds_states.KeysShared() | rounds_states.Received() | rounds_states.Committed():
                raise ProtocolError("this step is taken apart")
            case _:
                assert_never(state)
        with self._turn:
            if (kept := self._rounds.again(round_id, step, asked)) is not None:
                return kept  # these bytes came twice at once
            self._rounds.check_still(round_id, state)
            if isinstance(state, rounds_states.Contributed):
                self._recorder.traces.agreed(round_id, data)
            if isinstance(state, rounds_states.Agreed):
                self._recorder.opened(round_id, state.survivors_hash)
            if after is None:
                self._rounds.end(round_id)
            else:
                self._rounds.states[round_id] = after
            self._rounds.keep(round_id, step, asked, frames, rounds_states.expiry_of(state))
        return frames

    def _begin_charge(self, round_id: bytes, parts: tuple[bytes, ...]) -> "tuple[rounds_states.Received, bytes]":
        """Open the entries and begin the charge, once for these bytes; return the checkpoint that covers it, too."""
        asked = digest_of(*parts)
        with self._turn:
            self._sweep()
            state, kept = self._rounds.states.get(round_id), self._rounds.again(round_id, "receive", asked)
            if isinstance(state, rounds_states.Received) and kept is not None:
                return state, kept[0]
            shared, now = self._rounds.at(round_id, rounds_states.KeysShared), self._now()
        received = steps.receive(self._silo, shared, now, parts[0], parts[1:])
        with self._turn:
            self._rounds.check_still(round_id, shared)
            proposal.renew(self._silo, self._ledger, now, shared.before)
            steps.begin(self._silo, received, self._ledger, now)
            self._rounds.states[round_id] = received
            checkpoint = self._ledger.checkpoint() or b""
            self._rounds.keep(round_id, "receive", asked, (checkpoint,), rounds_states.expiry_of(received))
        return received, checkpoint

    def _ready(self, round_id: bytes, parts: tuple[bytes, ...]) -> tuple[bytes, ...]:
        """Hand over without the lock, as an aggregator may be slow, and sign only what is handed over."""
        asked = digest_of(*parts)
        with self._turn:
            self._sweep()
            if (frames := self._rounds.again(round_id, "ready", asked)) is not None:
                return frames
        try:
            received, checkpoint = self._begin_charge(round_id, parts)
        except AccusedError as err:
            return self._accuse(round_id, asked, err)
        self._guards.hand_over(checkpoint)
        with self._turn:
            self._rounds.check_still(round_id, received)
            frames = (steps.ready(self._silo, received),)
            self._rounds.keep(round_id, "ready", asked, frames, rounds_states.expiry_of(received))
            return frames

    def _accuse(self, round_id: bytes, asked: bytes, err: AccusedError) -> tuple[bytes, ...]:
        """Leave the round for good before its secrets are told, unless it has moved on meanwhile."""
        with self._turn:
            if (kept := self._rounds.again(round_id, "ready", asked)) is not None:
                return kept  # these bytes came twice at once
            self._rounds.at(round_id, rounds_states.KeysShared)
            self._teller.failed(round_id, err)
            accusation = sign(Accusation.decode(err.accusation), self._silo.name, self._silo.signing)
            return self._rounds.leave(round_id, "ready", asked, (accusation,))

    def _contribute(self, round_id: bytes, data: bytes, leaving: "Leaving") -> tuple[bytes, ...]:
        """Commit under the lock, compute and mask without it; a round that fails is never tried twice.

        What comes of it is kept only when it leaves: no other message finds it, or finds the round moved on, before.
        """
        asked = digest_of(data)
        with self._turn:
            self._sweep()
            if (frames := self._rounds.again(round_id, "contribute", asked)) is not None:
                return frames
            state = self._rounds.at(round_id, rounds_states.Received)
            computing, request = self._data.computing, state.before.before.request
            now, begins = self._now(), computing.turn(request, leaving.started)
            try:
                feed_at, rows_at = self._data.fresh(*request.table.names)
                at, consulted = now + math.ceil(begins - leaving.started), Consulted(request.purpose, now, feed_at)
                committed = steps.commit(self._silo, state, self._ledger, at, data, consulted)
            except Exception:
                computing.give_back(request, begins)
                self._rounds.forget(round_id)  # the charge is given back if it was not committed
                raise
            computing.take(request, begins, state.before.compute_ms, leaving)
            self._rounds.states[round_id] = committed
            self._recorder.paid(proposal.payer_of(self._silo, state.before.before))
        try:
            with ThreadPoolExecutor(1) as beside:  # it takes no time after the computing, whose end depends on rows
                drawn = beside.submit(steps.noise_of, committed, self._noise)
                computed = computing.contribution(committed, now, begins, leaving)
            exact = computed.vectors
            owning.settle(self._silo, self._ledger, request, round_id, computed, self._teller.warned)
            del computed
            self._teller.cut(round_id, steps.cut_by(committed, exact))
            vector = drawn.result()
            steps.fill(committed, exact, vector)
            del exact  # so that there is no other vector in memory while the first frame is made
            after, frames = steps.mask(self._silo, committed, vector, now, rows_at)
            leaving.wait()
            with self._turn:
                self._rounds.check_still(round_id, committed)
                if not after.manifest.terms.is_long:  # there the header is the last to leave
                    self._recorder.traces.contributed(round_id, after.envelope, frames[0])
                self._rounds.states[round_id] = after
                self._rounds.keep(round_id, "contribute", asked, frames, rounds_states.expiry_of(after))
            return frames
        except Exception as err:
            leaving.failed()
            leaving.wait()
            with self._turn:
                self._rounds.forget(round_id)
            if isinstance(err, NetworkError):  # of an exact source: it names a limit, and no row
                raise ProtocolError(f"{err.message}; {err.hint}") from err
            raise SpentError(f"{type(err).__name__}: {err}", "the charge stays") from err

    def _frame(self, round_id: bytes, index: bytes) -> tuple[bytes, ...]:
        """Return a frame, without the lock, as it is masked for that; what has left may be asked for once more.

        When the header of a long round first leaves, it is kept for receipts.
        """
        number = int.from_bytes(index[:8], "big")
        with self._turn:
            self._sweep()
            state = self._rounds.contributed(round_id)
        frame = steps.frame(self._silo, state, number)
        with self._turn:
            self._rounds.contributed(round_id)
            if isinstance(state, rounds_states.Contributed) and state.is_header(number):
                self._recorder.traces.contributed(round_id, state.envelope, frame)
        return (frame,)

    def _cancel(self, round_id: bytes, data: bytes) -> tuple[bytes, ...]:
        with self._turn:
            state = self._rounds.states.get(round_id)
            if state is not None:
                rounds_states.check_cancel(self._silo, state, round_id, data)
                self._rounds.forget(round_id)
        return ()

    def _now(self) -> int:
        return int(self._clock())

    def _sweep(self) -> None:
        """Forget expired rounds, and once a day erase data due by the policy's [retention]."""
        self._recorder.sweep()
        self._rounds.forget_expired(self._now())
