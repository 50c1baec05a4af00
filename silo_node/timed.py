"""Contributions that leave at times which depend on no row, and whose failures nobody outside can tell from success.

docs/protocol.md section 5; section 8, row C9.
"""

import math
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from logging import Logger
from typing import TYPE_CHECKING

from crypto.errors import ProtocolError
from policies.decision.compiled import STEP_MS
from policies.decision.computing import limit_seconds, stated_ms
from policies.document.policy import Policy
from policies.requests.network_steps import loaded_as
from policies.requests.request import Request
from policies.units import MAX_BUSY_S
from silo_node.data.figures import Computed
from silo_node.errors import SiloError
from silo_node.rounds import steps
from silo_node.rounds.states import Committed
from silo_node.turns import Turns

ANSWERED_BY_NOTHING = "a question was answered by nothing and noise"
REMEDY = "; if it needs more time, `consilo-silo doctor` proposes one for [compute]"

if TYPE_CHECKING:
    from silo_node.data.compute import Computes

REFRESH_ENDS_S = (0.1, 1.0, 11.0)  # when reading decisions, for 10 s at most, is over
READ_ENDS_S = tuple(0.1 * 2**step for step in range(9))  # when reading the rows of a run, for 20 s at most, is over
REFRESH_TRIES = 4  # to have a turn for it


class Leaving:
    """The time at which what became of one message of go leaves, by the clock that only goes forward."""

    def __init__(self, started: float, tick_s: float, sleep: Callable[[float], None]) -> None:
        """Let it leave at the next tick."""
        self.started = self.over = self._at = started  # `over`: when the computing must have ended
        self._tick_s, self._sleep, self._is_over = tick_s, sleep, False

    def fix(self, at: float) -> None:
        """Let it leave at this time; if it is late, at the next step of declared times."""
        self._at, self._tick_s = at, max(self._tick_s, STEP_MS / 1000)

    def failed(self) -> None:
        """Let a failure leave no sooner than the computing must have ended."""
        self._at = max(self._at, self.over)

    def wait(self) -> None:
        """Sleep until then, once; where the time has passed, until the next tick after it."""
        if self._is_over:
            return
        self._is_over = True
        now, at = time.monotonic(), self._at
        if now > at and self._tick_s:
            at += math.ceil((now - at) / self._tick_s) * self._tick_s
        self._sleep(max(0.0, at - time.monotonic()))


class TimedComputing:
    """Computes a silo's contributions: each takes the time that the policy states."""

    def __init__(
        self, policy: Policy, computer: "Computes", tick_s: float, sleep: Callable[[float], None], log: Logger
    ) -> None:
        self.computer = computer
        self._free_at = 0.0  # when all that was taken on is over at the latest
        self._refresh_s = REFRESH_ENDS_S[0]  # how long reading decisions lasts
        self._read_s = READ_ENDS_S[0]  # how long reading the rows of a run lasts
        self._turn = threading.Lock()
        self._turns = Turns()  # of requests for which no time is stated
        self._policy, self._tick_s, self._sleep, self._log = policy, tick_s, sleep, log
        self._states_time = policy.compute is not None and policy.compute.states_time

    def leaving(self) -> Leaving:
        """Return when the reply to a message that has come now leaves."""
        return Leaving(time.monotonic(), self._tick_s, self._sleep)

    def turn(self, request: Request, started: float) -> float:
        """Take the turn of a request that waits since `started`; return when its computing begins.

        Where the policy states times, one computing follows the other by these, so that neither the time of one nor
        whether it ends in time depends on what another one found. Elsewhere they have `silo_node.turns`.
        """
        if (stated := stated_ms(self._policy, request)) is None:
            return started
        with self._turn:
            begins = max(started, self._free_at)
            self._free_at = begins + stated / 1000
        return begins

    def give_back(self, request: Request, begins: float) -> None:
        """End the turn that begins then, if no other follows it."""
        with self._turn:
            if self._free_at == begins + (stated_ms(self._policy, request) or 0) / 1000:
                self._free_at = time.monotonic()

    def take(self, request: Request, begins: float, others_ms: int, leaving: Leaving) -> None:
        """Say when what becomes of a turn leaves.

        Where the policy states a time, that is when the greatest is over that a member of the round states; `others_ms`
        is theirs.
        """
        stated, leaving.over = stated_ms(self._policy, request), begins + limit_seconds(self._policy, request)
        if stated is not None:
            leaving.fix(begins + max(stated, others_ms) / 1000)

    def refresh(self) -> None:
        """Read decisions that have changed before a proposal is answered; raises SourceError.

        One process does this, and computes. So where the policy states times, it has a turn of its own, and lasts as
        long as the longest did, in few steps: that a proposal is answered tells neither how long another computing
        lasts, or that it was killed, nor how many decisions there are but for the order of magnitude of the most. If
        its turn would not be soon, the request reads them itself.
        """
        if not self._states_time:
            self.computer.refresh()
        elif (begins := self._turn_soon()) is not None:
            try:
                self.computer.refresh()
            finally:
                took = max(time.monotonic() - begins, self._refresh_s)
                self._refresh_s = next((one for one in REFRESH_ENDS_S if one >= took), took)
                self._sleep_until(begins + self._refresh_s)

    def load(self, request: Request, now: int, limit_s: float) -> None:
        """Load what a step of training needs before it is accepted; raises NotLoadedError, which no row decides.

        What is imported comes first. Then rows are read that can be kept, and what that finds is for the round to find
        again: nobody outside can tell from an acceptance that they were read, or failed to be. Where the policy states
        a time, reading has the turn, the limit and the length of a computing of this request, or is left to the first
        round if that is longer than may be waited; else, on a private source, it lasts as long as the longest did, in
        steps that double.
        """
        deadline, source = time.monotonic() + limit_s, self._policy.sources[request.table.name]
        self.computer.load(loaded_as(request), limit_s)
        if source.read == "prepared" or source.kind == "postgres":
            return
        stated = stated_ms(self._policy, request)
        if stated is not None:
            self._read_in_turn(request, now, stated / 1000, deadline)
            return
        with suppress(SiloError):  # others compute for long
            with self._turns.taken(request.analyst, max(0.0, deadline - time.monotonic())):
                began = time.monotonic()
                self._read_ahead(request, now)
            if source.release == "private":
                took = max(time.monotonic() - began, self._read_s)
                self._read_s = next((one for one in READ_ENDS_S if one >= took), took)
                self._sleep_until(began + self._read_s)

    def _read_in_turn(self, request: Request, now: int, stated_s: float, deadline: float) -> None:
        begins = self.turn(request, time.monotonic())
        try:
            if begins + stated_s <= deadline:
                self._sleep_until(begins)
                self._read_ahead(request, now)
                self._sleep_until(begins + stated_s)
        finally:
            self.give_back(request, begins)

    def _read_ahead(self, request: Request, now: int) -> None:
        try:
            self.computer.read_ahead(request, now)
        except Exception as err:
            self._log.warning("the rows of a run were not read before its first round: %.500s", err)

    def _turn_soon(self) -> float | None:
        """Take the turn after all that were taken, and return when it begins; None if it would not be soon."""
        for _ in range(REFRESH_TRIES):
            now = time.monotonic()
            with self._turn:
                if (begins := max(now, self._free_at)) == now:
                    self._free_at = now + self._refresh_s
                    return now
            if begins - now > REFRESH_ENDS_S[-1]:
                return None
            self._sleep(begins - now)
        return None

    def contribution(self, committed: Committed, now: int, begins: float, leaving: Leaving) -> Computed:
        """Return what comes of a request. If the computing fails on a private source, that is nothing.

        So nobody outside can tell from a failure that rows are what they are; the owner is told. `begins` is the
        `turn` of the request, by the clock that only goes forward. Where the policy states a time, it ends no sooner
        than a computing may last: so what blinding takes, and what else is done then, tells nothing either.
        """
        request = steps.request_of(committed)
        stated = stated_ms(self._policy, request)
        self._sleep_until(begins)
        try:
            if stated is not None:
                return self.computer.computed(request, now)
            with self._turns.taken(request.analyst, MAX_BUSY_S):  # so its own time begins with its turn
                return self.computer.computed(request, now)
        except Exception as err:
            leaving.failed()
            if isinstance(err, ProtocolError) or request.plan.release != "private":
                raise  # ProtocolError: a step of training that is not the next one
            reason = f"{type(err).__name__}: {err}"
            self._log.error("%s, as its computing failed: %.500s%s", ANSWERED_BY_NOTHING, reason, REMEDY)
            return Computed(steps.nothing_of(committed))
        finally:
            if stated is not None:
                self._sleep_until(leaving.over)
                self.give_back(request, begins)

    def _sleep_until(self, at: float) -> None:
        if (left_s := at - time.monotonic()) > 0:
            self._sleep(left_s)
