"""A silo as an actor: it has the states of its rounds, its ledger and its data, and changes one at a time.

Plain Python: `silo_node/__main__.py` wraps it for Ray, tests call it directly. Promise: the reason of an error goes to
the owner's `silo.log`; the other side learns the broken protocol rule, or only that the step failed. docs/protocol.md
sections 3 to 6 and 9; section 8, rows A11 and C9.
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TYPE_CHECKING

from crypto.errors import CryptoError, ProtocolError
from crypto.noise import discrete_gaussian
from crypto.wire import ROUND_ID_BYTES, Message, sign
from federation.operations.private import close_to_others
from policies.errors import PolicyError
from silo_node import publishing, stepping
from silo_node.errors import SiloError
from silo_node.handing import LEARN_S, Frames, Handing
from silo_node.home import LEDGER, check_may_serve, lock_home, read_home
from silo_node.ledger.checkpoints import CheckpointKeeper, guards_of
from silo_node.ledger.log import Signer
from silo_node.ledger.records import Recorder
from silo_node.ledger.store import LedgerStore
from silo_node.offered import Offered
from silo_node.profiles import chosen_after, rebase
from silo_node.rounds import learning, stopping
from silo_node.rounds import states as rounds_states
from silo_node.rounds.answers import answer_to, asked_by, failed
from silo_node.rounds.open_rounds import OpenRounds
from silo_node.rounds.owning import load_own
from silo_node.rounds.proposal import load_run
from silo_node.stepping import Alarm, Stepping
from silo_node.telling import Teller
from silo_node.traces import RoundTraces

if TYPE_CHECKING:
    from silo_node.rounds.vector import Noise

STEPS = 64  # at a time: those of other rounds go on while some compute, wait for their turn or for a source
FIRST_NOISE = 1, 10**6, 1  # a draw that is thrown away: the first one loads the sampler, for more than a second
NOISE_S = 10.0  # for that, before a silo says that it is ready
MAX_LOG_BYTES = 8 << 20


class SiloActor(Handing, Offered, Stepping):
    """One silo. Every public method takes and returns bytes of the wire vocabulary."""

    IS_ONE_TRUST_DOMAIN = True  # with the other silos, as in simulate mode

    def __init__(
        self,
        policy_path: str,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        noise: "Noise" = discrete_gaussian,
        keepers: Callable[[str], CheckpointKeeper] | None = None,
        silos: int | None = None,
        is_spread: bool = False,
    ) -> None:
        """Load policy, keys, ledger and data; raises the errors of these, for the owner.

        `keepers` returns, by an aggregator's name, the way to its stored checkpoint of the ledger. With `silos`, the
        number of silos that share this machine, it computes in a process of its own, which is killed when it exceeds
        its limits, and spreads questions on many prepared rows over its Ray cluster; with `is_spread` all questions.
        """
        from silo_node.held import HeldData

        home = read_home(Path(policy_path))
        if home.silo.policy.mode == "production" and self.IS_ONE_TRUST_DOMAIN:
            raise SiloError(
                f'the policy of {home.silo.name!r} says mode = "production", and simulate mode is one trust domain',
                'use a policy with mode = "trial" to try things out',
            )
        if not self.IS_ONE_TRUST_DOMAIN:
            check_may_serve(home.silo.policy)
        self._silo, self._tick_s, self._home = home.silo, home.tick_s, home.path
        self._log = owner_log(home.path / "silo.log", home.silo.name)
        self._lock = lock_home(home.path)
        data: HeldData | None = None
        ledger: LedgerStore | None = None
        try:
            roster = home.check(int(clock()))
            signer = Signer(home.silo.name, home.silo.federation, home.silo.signing, home.silo.sealing)
            self._ledger = ledger = LedgerStore(home.path / LEDGER, signer, clock)
            timing = clock, sleep, silos, is_spread
            self._data = data = HeldData(
                home,
                Path(policy_path),
                partial(load_run, home.silo, ledger),
                self._log,
                *timing,
                ledger,
                partial(load_own, home.silo, ledger),
            )
            self._guards = guards_of(keepers, home.silo.aggregators, self._ledger, signer, home.silo.policy)
            traces = RoundTraces(home.path, self._log)
            self._recorder = Recorder(home.silo.policy, self._ledger, self._guards, clock, traces)
            released = self._recorder.start(home.silo.policy_hash, roster)
            home.keep()
            data.start()
            if (changed := chosen_after(home.path, home.silo.policy)) is not None:
                self._recorder.chosen(*changed)
                rebase(home.path, home.silo.policy)
        except (PolicyError, SiloError):
            if data is not None:
                data.close()
            if ledger is not None:
                ledger.close()
            self._lock.close()
            raise
        self._log.info("started, %d reservations of unfinished rounds released", released)
        self._clock, self._noise = clock, noise
        self._teller = Teller(self._log, clock)
        self._rounds = OpenRounds(self._ledger)
        self._judging = threading.Lock()  # for the last judgement of a request, and its reservation
        self._turn = threading.Lock()  # for a look at the rounds, or a change of them: nothing is computed under it
        self._learning, self._handing = threading.Lock(), threading.Lock()
        self._arriving = threading.Lock()
        self._eraser = Alarm(self._erase)
        self._is_closed = False
        self._eraser.ring_in(stepping.LOOK_S)

    def close(self) -> None:
        """Stop, and forget everything that is not on disk."""
        with self._turn:
            self._is_closed = True
            self._eraser.cancel()
            self._rounds.clear()
        self._data.close()
        self._ledger.close()
        self._lock.close()

    def catalogue(self, data: bytes) -> tuple[bytes, ...]:
        """Answer a signed CatalogueRequest with a signed Catalogue, or Failed."""
        return self._guard(
            bytes(ROUND_ID_BYTES),
            lambda: (self._sign(publishing.catalogue(self._silo, self._ledger, self._data.fresh, self._now(), data)),),
        )

    def domain(self, data: bytes) -> tuple[bytes, ...]:
        """Answer a signed DomainRequest with the values of a long domain, or Failed."""
        return self._guard(bytes(ROUND_ID_BYTES), lambda: (publishing.domain(self._silo, self._now(), data),))

    def propose(self, round_id: bytes, data: bytes) -> tuple[bytes, ...]:
        return self._guard(round_id, lambda: self._propose(round_id, data), asked=asked_by(self._silo, data))

    def share(self, round_id: bytes, data: bytes, *parts: bytes) -> tuple[bytes, ...]:
        return self._guard(round_id, lambda: self._advance(round_id, "share", rounds_states.Proposed, data, *parts))

    def ready(self, round_id: bytes, data: bytes, *entries: bytes) -> tuple[bytes, ...]:
        """Begin the charge, hand over the checkpoint with it, and sign Ready; other steps go on meanwhile."""
        return self._guard(round_id, lambda: self._ready(round_id, (data, *entries)))

    def contribute(self, round_id: bytes, data: bytes) -> tuple[bytes, ...]:
        """Commit the charge, compute, and return what leaves; other steps go on while this one computes.

        Where the policy states times, whatever comes of it leaves at the greatest that a member of the round stated;
        elsewhere at a tick, and what fails after the commit when the time for computing is over.
        """
        leaving = self._data.computing.leaving()
        try:
            return self._guard(round_id, lambda: self._contribute(round_id, data, leaving))
        finally:
            leaving.wait()  # the time of computing depends on data, so nothing leaves at once

    def frame(self, round_id: bytes, index: bytes) -> tuple[bytes, ...]:
        """Return another frame of a masked input whose header has left; `index` is big-endian."""
        return self._guard(round_id, lambda: self._frame(round_id, index))

    def agree(self, round_id: bytes, data: bytes) -> tuple[bytes, ...]:
        return self._guard(round_id, lambda: self._advance(round_id, "agree", rounds_states.Contributed, data))

    def open_shares(self, round_id: bytes, data: bytes, *columns: bytes) -> tuple[bytes, ...]:
        return self._guard(
            round_id, lambda: self._advance(round_id, "open_shares", rounds_states.Agreed, data, *columns)
        )

    def products(self, round_id: bytes, data: bytes) -> tuple[bytes, ...]:
        """Sign inner products of the blinded vector of a long round, for one challenge."""
        return self._guard(round_id, lambda: self._advance(round_id, "products", rounds_states.Opened, data))

    def learn(self, data: bytes, *evidence: bytes) -> tuple[bytes, ...]:
        """Move the model of a training run by an encrypted report; answer with a signed ModelUpdated, or Failed.

        At the end of a run whose analyst may have the model, that follows, sealed to the analyst.

        One report is learned at a time, and the steps of rounds go on.
        """
        return self._guard(bytes(ROUND_ID_BYTES), lambda: self._learn(data, evidence))

    def _learn(self, data: bytes, evidence: tuple[bytes, ...]) -> tuple[bytes, ...]:
        self._held = self._taking = None  # a state that is handed over: it is behind now
        if not self._learning.acquire(timeout=LEARN_S):
            raise ProtocolError(f"this silo learns from other reports, for {LEARN_S:g} s already")
        try:
            return learning.learn(self._silo, self._ledger, self._now(), data, evidence)
        finally:
            self._learning.release()

    def stop(self, data: bytes) -> tuple[bytes, ...]:
        """Take no further step of a training run, on its analyst's signed Stopped; answer with a ModelUpdated."""
        return self._guard(bytes(ROUND_ID_BYTES), lambda: (stopping.stop(self._silo, self._ledger, data),))

    def cancel(self, round_id: bytes, data: bytes = b"") -> tuple[bytes, ...]:
        """Forget a round, on a Cancel of its proposer; release its reservation if nothing has left."""
        return self._guard(round_id, lambda: self._cancel(round_id, data))

    def _guard(self, round_id: bytes, step: Callable[[], Frames], asked: bytes | None = None) -> Frames:
        if len(round_id) != ROUND_ID_BYTES:
            return (self._sign(failed(self._silo, bytes(ROUND_ID_BYTES), "a round id has 16 bytes")),)
        state = self._rounds.states.get(round_id)
        if asked is None and state is not None and (accepted := rounds_states.uncommitted(state)) is not None:
            asked = accepted.terms.request_hash
        try:
            return step()
        except Exception as err:
            reply = answer_to(self._silo, round_id, asked, err)
            self._teller.failed(round_id, err)
            self._recorder.unable(reply, err)
            return (self._sign(reply),)

    def _sign(self, message: Message) -> bytes:
        return sign(message, self._silo.name, self._silo.signing)

    def _erase(self) -> None:
        """Forget expired rounds and erase data due by [retention], also without further messages."""
        with self._turn:
            if self._is_closed:
                return
            delay_s = stepping.LOOK_S  # after a failure, reservations stay until the next start
            try:
                self._sweep()
                delay_s = self._rounds.next_s(self._now(), stepping.LOOK_S)
            except Exception:
                self._log.exception("expired rounds, and what is due")
            self._eraser.ring_in(delay_s)
        try:  # beside requests, whose time it does not change
            for warning in self._data.changes():
                self._log.warning("%s", warning)
        except Exception:
            self._log.exception("a look at changed files")


class LaunchedSilo(SiloActor):
    """Keeps the error of a failed start for its launcher, as Ray turns a constructor's error into text."""

    def __init__(
        self,
        policy_path: str,
        sleep: Callable[[float], None] = time.sleep,
        keepers: Callable[[str], CheckpointKeeper] | None = None,
        silos: int | None = None,
        is_spread: bool = False,
    ) -> None:
        self._problem: tuple[str, str] | None = None
        close_to_others()  # also in a cluster that somebody else has started
        self._warming = threading.Thread(target=discrete_gaussian, args=FIRST_NOISE, daemon=True)
        self._warming.start()
        try:
            super().__init__(policy_path, sleep=sleep, keepers=keepers, silos=silos, is_spread=is_spread)
        except (SiloError, PolicyError, CryptoError) as err:
            self._problem = err.message, err.hint

    def problem(self) -> tuple[str, str] | None:
        """Return why the silo did not start, with a hint; None if it did, and is ready to compute."""
        if self._problem is None:
            self._data.wait()
            self._warming.join(NOISE_S)
        return self._problem


class _OwnerFile(RotatingFileHandler):
    """A log file that only its owner can read, of bounded size."""

    def _open(self) -> TextIOWrapper:
        os.close(os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT, 0o600))
        os.chmod(self.baseFilename, 0o600)
        return super()._open()


def owner_log(path: Path, name: str) -> logging.Logger:
    """Return the log of a silo, a file that only its owner can read."""
    logger = logging.getLogger(f"consilo.silo.{name}.{path}")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    if not logger.handlers:
        handler = _OwnerFile(path, maxBytes=MAX_LOG_BYTES, backupCount=2, delay=True)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(handler)
    return logger
