"""The relay of a ledger's checkpoints between a silo's actor and the aggregators, where organisations are apart.

There the actor has no way to the aggregators: the process that holds the streams asks them, and hands their replies to
the actor. Fail-closed as `silo_node.ledger.checkpoints` says: a request is let in only after every aggregator of the
membership was heard, a contribution out only after every one has taken the checkpoint of its charge.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from crypto.errors import CryptoError, LinkError
from federation.transport.calls import CallFailedError
from federation.transport.frames import Parts
from federation.transport.handshake import back_off_s

ASK_S = 10.0
Actor = Callable[..., Awaitable[Any]]  # the name of a method of `silo_node.serve.FederatedSilo` and its arguments
Ask = Callable[..., Awaitable[Parts]]  # a call that one aggregator answers, and its arguments
_log = structlog.get_logger("consilo.silo")


class DeferredKeeper:
    """A `CheckpointKeeper` for the actor: it knows nothing, and leaves asking and keeping to `CheckpointRelay`."""

    def put_head(self, envelope: bytes) -> bytes:
        return envelope

    def get_head(self, silo: bytes) -> bytes:
        raise LinkError("no stream to the aggregator has answered yet")


@dataclass(frozen=True, slots=True)
class Objection:
    """Why a ledger does not go on; `is_final` if this silo's own signature says so."""

    message: str
    hint: str
    is_final: bool


class CheckpointRelay:
    """Executes what aggregators ask of the actor, once all of them have the checkpoints that the step depends on.

    Every aggregator of the membership is asked: one that is honest is enough to find an older ledger out.
    """

    def __init__(self, actor: Actor, aggregators: Mapping[str, Ask], first_wait_s: float = 0.5) -> None:
        self._actor, self._aggregators, self._first_wait_s = actor, aggregators, first_wait_s
        self._held: set[bytes] = set()  # rounds whose contribution must not leave yet
        self.refused: asyncio.Future[Objection] = asyncio.get_running_loop().create_future()

    async def call(self, step: str, arguments: Parts) -> Parts:
        """Execute a step; raises CallFailedError, which the aggregator sees, before anything is accepted or leaves."""
        round_id = arguments[0] if arguments else b""
        if step == "propose":
            await self.compare()
        if round_id in self._held and step != "cancel":
            raise CallFailedError("the contribution of this round has not left yet")
        if step != "contribute":
            return tuple(await self._actor(step, *arguments))
        self._held.add(round_id)
        try:
            frames = tuple(await self._actor(step, *arguments))  # at a tick, so nothing after it depends on data
            await self._keep()
        except Exception:
            await self._actor("withhold", round_id)
            self._held.discard(round_id)
            raise
        self._held.discard(round_id)
        return frames

    async def compare(self) -> None:
        """Compare the ledger with the checkpoint that each aggregator keeps, once; raises CallFailedError."""
        for name in await self._actor("uncompared"):
            await self._ask(name, b"", "get_head")

    async def compared(self) -> None:
        """Return once every aggregator has been heard; until then ask again, after waits that grow."""
        attempt = 0
        while not self.refused.done():
            try:
                await self.compare()
            except CryptoError as err:
                _log.warning("ledger_not_compared", reason=err.message[:300])
            except Exception as err:  # the actor is being started anew
                _log.warning("ledger_not_compared", reason=type(err).__name__)
            else:
                _log.info("ledger_compared")
                return
            await asyncio.sleep(back_off_s(attempt, self._first_wait_s))
            attempt += 1

    async def _keep(self) -> None:
        if checkpoint := await self._actor("checkpoint"):
            for name in await self._actor("aggregators"):
                await self._ask(name, checkpoint, "put_head", checkpoint)

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
            raise CallFailedError(f"{name} did not say which head of this silo's ledger it keeps")
        objection: Objection | None = await self._actor("check_reply", name, answer[0], put)
        if objection is None:
            return
        _log.error("head_refused", aggregator=name, reason=objection.message[:300])
        if objection.is_final and not self.refused.done():
            self.refused.set_result(objection)
        raise CallFailedError("this silo's ledger could not be held against its head")
