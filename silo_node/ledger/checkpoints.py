"""The head of a silo's ledger is kept with the aggregators too, so that a ledger put back from a backup is found out.

Fail-closed: until the silo has seen that its ledger continues the one it signed last, it accepts no request, and no
contribution leaves whose charge the aggregators do not know of. An aggregator that lies can make a silo wait, or hide
that a ledger is older; the silo's own chain and signature hold without it. docs/ledger.md section 3.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from crypto.errors import CryptoError, LinkError, SignatureError, WireError
from crypto.frames import CallFailedError, Parts
from crypto.greeting import back_off_s
from crypto.wire import unverified, verify
from policies.budget.ledger import LedgerHead
from policies.errors import LedgerError
from silo_node.ledger.log import Signer
from silo_node.ledger.store import LedgerStore

_log = structlog.get_logger("consilo.silo")


class UnreachableError(LedgerError):
    """The aggregator did not answer, or not with what this silo signed: nobody knows whether this ledger is newest."""


class HeadKeeper(Protocol):
    """A way to the aggregator; whatever it raises means that it was not reached."""

    def put_head(self, envelope: bytes) -> bytes:
        """Hand over a signed head; return the one that is kept now."""

    def get_head(self, silo: bytes) -> bytes:
        """Return the head kept of a silo, nothing if there is none."""


class KeptHeads:
    """Compares a ledger with the head that was kept of it, and keeps the next one."""

    def __init__(self, keeper: HeadKeeper, ledger: LedgerStore, signer: Signer) -> None:
        self._keeper, self._ledger, self._signer = keeper, ledger, signer
        self.is_compared = False

    def compare(self) -> None:
        """Raise LedgerError unless this ledger continues the one whose head was kept; once is enough."""
        if self.is_compared:
            return
        try:
            kept = self._keeper.get_head(self._signer.silo.encode())
        except Exception as err:
            raise _unreachable(err) from err
        self.take(kept)

    def compare_if_reachable(self) -> None:
        """As `compare`, but an aggregator that does not answer yet is asked again before the first request."""
        try:
            self.compare()
        except UnreachableError:
            return

    def keep(self) -> None:
        """Have the aggregator keep the head as it is now. Raises LedgerError if it does not, or knows a later one."""
        self.compare()
        head = self._ledger.head()
        if head is None:
            return
        try:
            kept = self._keeper.put_head(head)
        except Exception as err:
            raise _unreachable(err) from err
        self.take(kept, head)

    def take(self, kept: bytes, put: bytes = b"") -> None:
        """Hold the ledger against what the aggregator says that it keeps, in answer to the head that was `put`.

        Raises LedgerError if that is not how this ledger went on, UnreachableError if it says nothing of this silo.
        """
        if put and kept != put:
            least = unverified(put, LedgerHead).count
            if not kept or self._read(kept).count < least:
                raise UnreachableError("the aggregator did not take the head of the ledger", "ask its operator why")
        if kept:
            self._ledger.check_against(self._read(kept))
        self.is_compared = True

    def _read(self, kept: bytes) -> LedgerHead:
        try:
            head = verify(kept, LedgerHead, {self._signer.silo: self._signer.key.public}).message
        except (WireError, SignatureError) as err:
            message = f"the head that the aggregator keeps does not hold: {err.message}"
            raise UnreachableError(message, "ask its operator why") from err
        if (head.silo, head.federation) != (self._signer.silo, self._signer.federation):
            message = "the aggregator keeps the head of another silo or federation for this one"
            raise UnreachableError(message, "ask its operator why")
        return head


def _unreachable(err: Exception) -> UnreachableError:
    message = f"the aggregator did not say which head of the ledger it keeps ({type(err).__name__})"
    return UnreachableError(
        message, "no request is accepted before it does: an older ledger would forget what was spent"
    )


# Between organisations the actor has no way to the aggregators: the process that holds the streams carries the heads.

ASK_S = 10.0
Actor = Callable[..., Awaitable[Any]]  # the name of a method of `silo_node.serve.FederatedSilo` and its arguments
Ask = Callable[..., Awaitable[Parts]]  # a call that one aggregator answers, and its arguments


class Carried:
    """A `HeadKeeper` for the actor: it knows nothing until `Carrier` brings it, and lets `Carrier` keep the rest."""

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


class Carrier:
    """Executes what aggregators ask of the actor, and carries heads to all of them before anything is let through.

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
        """Compare the ledger with the head that each aggregator keeps; raises CallFailedError. Done once, it is."""
        for name in await self._actor("uncompared"):
            await self._take(name, b"", "get_head")

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
        if head := await self._actor("head"):
            for name in await self._actor("aggregators"):
                await self._take(name, head, "put_head", head)

    async def _take(self, name: str, put: bytes, step: str, *arguments: bytes) -> None:
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
        objection: Objection | None = await self._actor("take", name, answer[0], put)
        if objection is None:
            return
        _log.error("head_refused", aggregator=name, reason=objection.message[:300])
        if objection.is_final and not self.refused.done():
            self.refused.set_result(objection)
        raise CallFailedError("this silo's ledger could not be held against its head")
