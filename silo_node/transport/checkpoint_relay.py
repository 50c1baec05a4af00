"""The relay of a ledger's checkpoints between a silo's actor and the aggregators, in federated mode.

The actor itself cannot reach the aggregators: the process with the streams asks them, and passes their replies to the
actor. Promise, as in `silo_node.ledger.checkpoints`: a request is accepted only after enough aggregators of the
membership have answered, and the silo signs that it is ready only after enough keep the checkpoint of its charge. How
many are enough, the policy says; the others are asked too, and nothing waits for them.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog

from crypto.errors import CryptoError, LinkError
from federation.transport.calls import CallFailedError
from federation.transport.frames import Parts
from federation.transport.handshake import back_off_s

ASK_S = 10.0
LOOK_S = 20.0  # between two looks for aggregators that lack the newest checkpoint
Actor = Callable[..., Awaitable[Any]]  # the name of a method of `silo_node.serve.FederatedSilo` and its arguments
Ask = Callable[..., Awaitable[Parts]]  # a call that one aggregator answers, and its arguments
_log = structlog.get_logger("consilo.silo")


class DeferredKeeper:
    """A `CheckpointKeeper` for the actor that does nothing; `CheckpointRelay` asks the aggregators instead."""

    def put_checkpoint(self, envelope: bytes) -> bytes:
        raise LinkError("the process with the streams sends checkpoints")

    def get_checkpoint(self, silo: bytes) -> bytes:
        raise LinkError("no stream to the aggregator has answered yet")


@dataclass(frozen=True, slots=True)
class Objection:
    """Why a ledger must not be used; `is_final` if this silo's own signature proves it."""

    message: str
    hint: str
    is_final: bool
    keeps_none: bool = False  # the aggregator keeps no checkpoint, and is not excused for that
    is_older_line: bool = False  # it keeps one of before the ledger was put back, and needs the newest


class _NoneKeptError(CallFailedError):
    """An aggregator keeps no checkpoint of this ledger, or one of before it was put back."""


class _OlderLineError(_NoneKeptError):
    """An aggregator keeps a checkpoint of before the ledger was put back."""


@dataclass(frozen=True, slots=True)
class Guarding:
    """What the aggregators have said of a ledger's checkpoints, and what they still must."""

    aggregators: tuple[str, ...]
    uncompared: tuple[str, ...]
    missing_answers: int  # before a request is accepted
    most_away: int  # so many need not keep the checkpoint of a charge
    checkpoint: bytes  # the newest
    lagging: tuple[str, ...]  # the aggregators that lack it


class CheckpointRelay:
    """Executes the aggregators' calls at the actor, once enough aggregators have the checkpoints a step depends on.

    Every aggregator of the membership is asked: one honest aggregator is enough to notice an older ledger.
    """

    def __init__(self, actor: Actor, aggregators: Mapping[str, Ask], first_wait_s: float = 0.5) -> None:
        self._actor, self._aggregators, self._first_wait_s = actor, aggregators, first_wait_s
        self._asking: set[asyncio.Task[None]] = set()
        self.is_compared = False
        self.refused: asyncio.Future[Objection] = asyncio.get_running_loop().create_future()

    async def call(self, step: str, arguments: Parts) -> Parts:
        """Execute a step after what it needs of the aggregators; without that the actor refuses it, in signed words."""
        if step == "propose":
            with suppress(CallFailedError):
                await self.compare()
        elif step == "ready" and (checkpoint := await self._actor("begin_charge", *arguments)):
            with suppress(CallFailedError):  # the actor knows what was kept, and says so
                await self._hand_over(checkpoint)
        return tuple(await self._actor(step, *arguments))

    async def compare(self) -> None:
        """Compare the ledger with the checkpoints that aggregators keep, until enough have answered.

        Raises CallFailedError if too few have.
        """
        state: Guarding = await self._actor("guarding")
        if state.missing_answers:
            asked = [self._compare(name) for name in state.uncompared]
            await self._enough(asked, state.missing_answers)
        self.is_compared = True

    async def follow(self) -> None:
        """Ask aggregators that have not answered, and send the newest checkpoint to those that lack it, for ever."""
        attempt = 0
        while not self.refused.done():
            try:
                await self.compare()
                await self._bring_up()
            except CryptoError as err:
                _log.warning("ledger_not_compared", reason=err.message[:300])
            except Exception as err:  # the actor is restarting
                _log.warning("ledger_not_compared", reason=type(err).__name__)
            else:
                attempt = 0
                await asyncio.sleep(LOOK_S)
                continue
            await asyncio.sleep(back_off_s(attempt, self._first_wait_s))
            attempt += 1

    async def close(self) -> None:
        """End every question to an aggregator."""
        for one in tuple(self._asking):
            one.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)

    async def _bring_up(self) -> None:
        """Compare with the aggregators that are left, and send them the newest checkpoint; none of them is awaited."""
        state: Guarding = await self._actor("guarding")
        for name in {*state.uncompared} - {*state.lagging}:
            self._start(self._compare(name))
        for name in state.lagging:
            self._start(self._send(name, state, state.checkpoint))

    async def _compare(self, name: str) -> None:
        try:
            await self._ask(name, b"", "get_head")
        except _OlderLineError:
            state: Guarding = await self._actor("guarding")
            await self._ask(name, state.checkpoint, "put_head", state.checkpoint)
            await self._ask(name, b"", "get_head")

    async def _hand_over(self, checkpoint: bytes) -> None:
        state: Guarding = await self._actor("guarding")
        asked = [self._send(name, state, checkpoint) for name in state.aggregators]
        await self._enough(asked, len(asked) - state.most_away)

    async def _send(self, name: str, state: Guarding, checkpoint: bytes) -> None:
        """Send a checkpoint to an aggregator, after a comparison: it would replace that of another history."""
        if name in state.uncompared:
            with suppress(_NoneKeptError):
                await self._ask(name, b"", "get_head")
        await self._ask(name, checkpoint, "put_head", checkpoint)

    async def _enough(self, asked: Sequence[Coroutine[Any, Any, None]], needed: int) -> None:
        """Return when so many questions have been answered well; the others go on. Raises CallFailedError."""
        waiting, problem = {self._start(one) for one in asked}, CallFailedError("too few aggregators are known")
        while needed > 0:
            if not waiting:
                raise problem
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for one in done:
                if (err := one.exception()) is None:
                    needed -= 1
                elif isinstance(err, CallFailedError):
                    problem = err
                else:
                    raise err

    def _start(self, question: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(question)
        self._asking.add(task)
        task.add_done_callback(self._answered)
        return task

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._asking.discard(task)
        if not task.cancelled() and (err := task.exception()) is not None:
            _log.info("head_not_kept", reason=str(err)[:300])

    async def _ask(self, name: str, put: bytes, step: str, *arguments: bytes) -> None:
        ask, answer = self._aggregators.get(name), Parts()
        if ask is not None:
            try:
                async with asyncio.timeout(ASK_S):
                    answer = await ask(step, *arguments)
            except CryptoError as err:
                _log.warning("head_not_carried", aggregator=name, step=step, reason=err.message[:300])
            except TimeoutError:
                _log.warning("head_not_carried", aggregator=name, step=step, reason=f"no answer within {ASK_S:g} s")
        if len(answer) != 1:
            raise CallFailedError(f"{name} did not say which checkpoint of this silo's ledger it keeps")
        objection: Objection | None = await self._actor("check_reply", name, answer[0], put)
        if objection is None:
            return
        _log.error("head_refused", aggregator=name, reason=objection.message[:300])
        if objection.is_final and not self.refused.done():
            self.refused.set_result(objection)
        if objection.is_older_line:
            raise _OlderLineError(f"{name} keeps a checkpoint of before this silo's ledger was put back")
        if objection.keeps_none:
            raise _NoneKeptError(f"{name} keeps no checkpoint of this silo's ledger")
        raise CallFailedError("this silo's ledger could not be held against its checkpoint")
