"""A silo as an actor: holds the states of its rounds, its ledger and its data, and answers one message at a time.

Plain Python: `silo_node/__main__.py` wraps it for Ray, tests call it directly. What goes wrong inside is written to
the owner's log; the other side learns the broken protocol rule, or only that the step failed.
"""

import logging
import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from crypto.errors import AccusedError, CryptoError, ProtocolError, SignatureError
from crypto.keys import VerifyKey
from crypto.noise import discrete_gaussian
from crypto.rounds.messages import Accusation, Failed
from crypto.wire import Message, sign, signer_of, verify
from policies.decision.denial_codes import CLOCK_SKEW_S
from policies.decision.eligibility import eligible_analyst
from policies.document.catalogue import catalogue_of
from policies.document.purposes import ConsentTable
from policies.errors import PolicyError
from policies.requests.catalogue import CatalogueRequest
from policies.requests.denials import NOT_AN_ANALYST
from policies.requests.request import Request
from policies.units import HOUR_S
from silo_node.errors import SiloError
from silo_node.home import LEDGER, check_is_signed, lock_home, read_home
from silo_node.ledger.checkpoints import CheckpointKeeper, RollbackGuard
from silo_node.ledger.log import Signer
from silo_node.ledger.records import Recorder
from silo_node.ledger.store import LedgerStore
from silo_node.rounds import learning, proposal, steps
from silo_node.rounds import states as rounds_states
from silo_node.rounds.proposal import load_run

if TYPE_CHECKING:
    from silo_node.data.compute import Vectors
    from silo_node.rounds.states import State
    from silo_node.rounds.steps import Noise

MAX_ROUNDS = 32
LOOK_S = float(HOUR_S)  # so often the silo looks whether something is to be erased, also if no message ever comes
MAX_LOG_BYTES = 8 << 20
ROUND_ID_BYTES = 16


class SiloActor:
    """One silo. Every public method takes and returns bytes of the wire vocabulary."""

    IS_ONE_TRUST_DOMAIN = True  # with the other silos, as in simulate mode

    def __init__(
        self,
        policy_path: str,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        noise: "Noise" = discrete_gaussian,
        keepers: Callable[[str], CheckpointKeeper] | None = None,
    ) -> None:
        """Load policy, keys, ledger and data; raises what is wrong with them, for the owner.

        `keepers` returns the way to an aggregator, by its name, that keeps the ledger's checkpoint.
        """
        from silo_node.data.compute import Computer  # DuckDB is heavy: only where a silo really runs
        from silo_node.data.consent import load_consent
        from silo_node.data.sources import connect, load_sources

        home = read_home(Path(policy_path))
        if home.silo.policy.mode == "production" and self.IS_ONE_TRUST_DOMAIN:
            raise SiloError(
                f'the policy of {home.silo.name!r} says mode = "production", and simulate mode is one trust domain',
                'use a policy with mode = "trial" to try things out',
            )
        if not self.IS_ONE_TRUST_DOMAIN:
            check_is_signed(home.silo.policy)
        home.admit(int(clock()))
        self._silo, self._tick_s, self._home = home.silo, home.tick_s, home.path
        self._log = _owner_log(home.path / "silo.log", home.silo.name)
        self._sources = load_sources(home.silo.policy, home.path)
        self._decisions = load_consent(home.silo.policy, home.path)
        self._lock = lock_home(home.path)
        try:
            signer = Signer(home.silo.name, home.silo.federation, home.silo.signing)
            self._ledger = LedgerStore(home.path / LEDGER, signer, clock)
            self._guards = {}
            if keepers is not None:
                self._guards = {
                    name: RollbackGuard(keepers(name), self._ledger, signer) for name in home.silo.aggregators
                }
            self._recorder = Recorder(home.silo.policy, self._ledger, tuple(self._guards.values()), clock)
            released = self._recorder.start(home.silo.policy_hash)
        except PolicyError:
            self._lock.close()
            raise
        self._database = connect()
        self._computer = Computer(
            home.silo.policy, self._database, self._sources, self._decisions, lambda run: load_run(self._ledger, run)
        )
        self._log.info("started, %d reservations of unfinished rounds released", released)
        self._clock, self._sleep, self._noise = clock, sleep, noise
        self._rounds: dict[bytes, State] = {}
        self._turn = threading.Lock()  # one step at a time, and the erasing of expired rounds is one
        self._eraser: threading.Timer | None = None
        self._is_closed = False
        self._erase_in(LOOK_S)

    def close(self) -> None:
        """Stop without a trace in memory: what is not on disk is gone."""
        with self._turn:
            self._is_closed = True
            if self._eraser is not None:
                self._eraser.cancel()
            self._rounds.clear()
        self._ledger.close()
        self._database.close()
        self._lock.close()

    def catalogue(self, data: bytes) -> tuple[bytes, ...]:
        """Answer a signed CatalogueRequest with a signed Catalogue, or Failed."""
        return self._guard(bytes(16), lambda: self._catalogue(data))

    def propose(self, round_id: bytes, data: bytes) -> tuple[bytes, ...]:
        return self._guard(round_id, lambda: self._propose(round_id, data))

    def share(self, round_id: bytes, data: bytes) -> tuple[bytes, ...]:
        return self._guard(round_id, lambda: self._advance(round_id, data, rounds_states.Proposed))

    def ready(self, round_id: bytes, data: bytes) -> tuple[bytes, ...]:
        return self._guard(round_id, lambda: self._advance(round_id, data, rounds_states.SharedOut))

    def contribute(self, round_id: bytes, data: bytes) -> tuple[bytes, ...]:
        return self._guard(round_id, lambda: self._advance(round_id, data, rounds_states.Received))

    def frame(self, round_id: bytes, index: bytes) -> tuple[bytes, ...]:
        """Return another frame of a contribution whose head has left; `index` is big-endian."""
        return self._guard(round_id, lambda: self._frame(round_id, index))

    def agree(self, round_id: bytes, data: bytes) -> tuple[bytes, ...]:
        return self._guard(round_id, lambda: self._advance(round_id, data, rounds_states.Contributed))

    def open_shares(self, round_id: bytes, data: bytes, *columns: bytes) -> tuple[bytes, ...]:
        return self._guard(round_id, lambda: self._advance(round_id, data, rounds_states.Agreed, columns))

    def learn(self, data: bytes, *evidence: bytes) -> tuple[bytes, ...]:
        """Move the model of a training run by an encrypted report; answer with a signed Learned, or Failed."""
        return self._guard(
            bytes(ROUND_ID_BYTES), lambda: (learning.learn(self._silo, self._ledger, self._now(), data, evidence),)
        )

    def cancel(self, round_id: bytes, data: bytes = b"") -> tuple[bytes, ...]:
        """Forget a round, by a Cancel of who proposed it; a reservation of which nothing has left is released."""
        return self._guard(round_id, lambda: self._cancel(round_id, data))

    def _guard(self, round_id: bytes, step: Callable[[], tuple[bytes, ...]]) -> tuple[bytes, ...]:
        if len(round_id) != ROUND_ID_BYTES:
            return (self._sign(Failed(round_id=bytes(ROUND_ID_BYTES), reason="a round id has 16 bytes")),)
        try:
            with self._turn:
                return step()
        except AccusedError as err:
            self._log.warning("round %s: %.500s", round_id.hex(), err)
            return (self._sign(Accusation(round_id=round_id, accused=err.accused)),)
        except CryptoError as err:
            self._log.warning("round %s: %.500s", round_id.hex(), err)
            reason = err.message
        except PolicyError as err:
            self._log.error("round %s: %.500s", round_id.hex(), err)
            reason = "the silo's ledger or policy did not allow this step"
        except Exception:
            self._log.exception("round %s", round_id.hex())
            reason = "the step failed at the silo"
        return (self._sign(Failed(round_id=round_id, reason=reason[:500])),)

    def _sign(self, message: Message) -> bytes:
        return sign(message, self._silo.name, self._silo.signing)

    def _now(self) -> int:
        return int(self._clock())

    def _propose(self, round_id: bytes, data: bytes) -> tuple[bytes, ...]:
        self._sweep()
        if round_id in self._rounds:
            raise ProtocolError("this round was proposed before")
        self._recorder.ready()
        state, reply = proposal.propose(self._silo, self._ledger, self._feed_at, self._now(), round_id, data)
        if state is None:
            self._recorder.decided(data, reply)
            return (reply,)
        # The same request under a new round: the older one can no longer be seen through.
        for old, other in list(self._rounds.items()):
            if rounds_states.reservation_of(other) == state.request.nonce:
                del self._rounds[old]
        for oldest in list(self._rounds)[: max(0, len(self._rounds) - MAX_ROUNDS + 1)]:
            self._forget(oldest)
        self._rounds[round_id] = state
        self._erase_in(self._next_s())
        return (reply,)

    def _next_s(self) -> float:
        """Return in how many seconds the next round expires, or it is time to look."""
        expiries = [rounds_states.expiry_of(state) - self._now() + 1 for state in self._rounds.values()]
        return max(0.0, min((LOOK_S, *expiries)))

    def _erase_in(self, delay_s: float) -> None:
        """Forget expired rounds, and what [retention] says is due, after a while, also if no message comes any more."""
        if self._eraser is not None:
            self._eraser.cancel()
        self._eraser = threading.Timer(delay_s, self._erase)
        self._eraser.daemon = True
        self._eraser.start()

    def _erase(self) -> None:
        with self._turn:
            if self._is_closed:
                return
            delay_s = LOOK_S  # after a failure, what is only reserved waits for the next start
            try:
                self._sweep()
                delay_s = self._next_s()
            except Exception:
                self._log.exception("expired rounds, and what is due")
            self._erase_in(delay_s)

    def _advance(
        self, round_id: bytes, data: bytes, expected: "type[State]", columns: Sequence[bytes] = ()
    ) -> tuple[bytes, ...]:
        self._sweep()
        state = self._rounds.get(round_id)
        if not isinstance(state, expected):
            raise ProtocolError("this silo is not at that step of the round: it was restarted, or the round was closed")
        now = self._now()
        match state:
            case rounds_states.Proposed():
                self._rounds[round_id], reply = steps.share(self._silo, state, now, data)
                return (reply,)
            case rounds_states.SharedOut():
                self._rounds[round_id], reply = steps.ready(self._silo, state, now, data)
                return (reply,)
            case rounds_states.Received():
                return self._contribute(round_id, state, data)
            case rounds_states.Contributed():
                self._rounds[round_id], reply = steps.agree(self._silo, state, self._ledger, now, data)
                return (reply,)
            case rounds_states.Agreed():
                frames = steps.open_shares(self._silo, state, now, data, columns)
                self._recorder.opened(round_id, state.split_hash)
                del self._rounds[round_id]  # erased: shares, keys and secrets of this round are referenced no more
                return frames
            case _:
                assert_never(state)

    def _contribute(self, round_id: bytes, state: rounds_states.Received, data: bytes) -> tuple[bytes, ...]:
        started = time.monotonic()
        try:
            after, frames = steps.contribute(
                self._silo, state, self._ledger, self._compute, self._noise, self._now(), data
            )
        except Exception:
            self._forget(round_id)  # never tried twice; a reservation is released if nothing was committed
            raise
        finally:
            # The time of computing depends on data, so whatever comes of it leaves at a tick only.
            elapsed = time.monotonic() - started
            self._sleep(math.ceil(elapsed / self._tick_s) * self._tick_s - elapsed if self._tick_s else 0.0)
        self._rounds[round_id] = after
        return frames

    def _frame(self, round_id: bytes, index: bytes) -> tuple[bytes, ...]:
        self._sweep()
        state = self._rounds.get(round_id)
        if not isinstance(state, rounds_states.Contributed):
            raise ProtocolError("this silo has no contribution of that round")
        return (state.frame(int.from_bytes(index[:8], "big")),)

    def _feed_at(self, table: str) -> int | None:
        if isinstance(self._silo.policy.consent, ConsentTable):
            return self._decisions.written_at()
        source = self._sources.get(table)
        return None if source is None else source.place.written_at()

    def _compute(self, request: Request, now: int) -> "Vectors":
        self._recorder.kept()  # before a row is read: when the aggregator is asked does not depend on data
        self._recorder.consent_read(request, now, self._feed_at(request.table.name))
        return self._computer.contribution(request, now)

    def _cancel(self, round_id: bytes, data: bytes) -> tuple[bytes, ...]:
        state = self._rounds.get(round_id)
        if state is not None:
            rounds_states.check_cancel(self._silo, state, round_id, data)
        return self._forget(round_id)

    def _forget(self, round_id: bytes) -> tuple[bytes, ...]:
        state = self._rounds.pop(round_id, None)
        nonce = rounds_states.reservation_of(state) if state is not None else None
        if nonce is not None:
            self._ledger.release(nonce)
        return ()

    def _sweep(self) -> None:
        """Forget expired rounds, and once a day what the policy's [retention] says is due."""
        now = self._now()
        self._recorder.erase_daily()
        for round_id in [one for one, state in self._rounds.items() if rounds_states.expiry_of(state) <= now]:
            self._forget(round_id)

    def _catalogue(self, data: bytes) -> tuple[bytes, ...]:
        policy = self._silo.policy
        name = signer_of(data, CatalogueRequest)
        analyst = eligible_analyst(policy, name, self._now())
        if analyst is None:
            raise ProtocolError(NOT_AN_ANALYST)
        try:
            message = verify(data, CatalogueRequest, {name: VerifyKey.parse(analyst.key)}).message
        except SignatureError as err:
            raise ProtocolError(NOT_AN_ANALYST) from err
        if message.analyst != name or message.federation != self._silo.federation:
            raise ProtocolError("the catalogue request is of another analyst or federation")
        if abs(self._now() - message.created_at) > CLOCK_SKEW_S:
            raise ProtocolError(f"the clocks of analyst and silo differ by more than {CLOCK_SKEW_S} s")
        names = self._silo.federation, self._silo.policy_hash, message.nonce
        catalogue = catalogue_of(policy, analyst, *names, self._now())
        return (self._sign(catalogue),)


class _OwnerFile(RotatingFileHandler):
    """A log file that only its owner can read, of bounded size."""

    def _open(self) -> TextIOWrapper:
        os.close(os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT, 0o600))
        os.chmod(self.baseFilename, 0o600)
        return super()._open()


def _owner_log(path: Path, name: str) -> logging.Logger:
    logger = logging.getLogger(f"consilo.silo.{name}.{path}")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    if not logger.handlers:
        handler = _OwnerFile(path, maxBytes=MAX_LOG_BYTES, backupCount=2, delay=True)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(handler)
    return logger
