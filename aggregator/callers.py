"""Who calls an aggregator, and what each caller may ask: analysts over all their processes, and silos for their heads.

Promise: a call reaches the server only if its step exists, its caller signed what it carries, and its caller has not
too many calls under way. docs/federated.md, "The stream, byte by byte".
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Container, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from aggregator.errors import AggregatorError
from aggregator.rounds import Asked
from crypto.errors import MembershipError
from crypto.keys import VerifyKey
from crypto.wire import Message, Signed, signer_of, verify
from federation.members.credentials import Credentials
from federation.transport.calls import CallFailedError, Once
from federation.transport.frames import Parts
from policies.budget.ledger import Checkpoint
from policies.requests.catalogue import CatalogueRequest
from policies.requests.request import Request

KEPT_S = 60.0  # how long an analyst may come back: a lost stream is noticed up to 30 s later at the other end
KEPT_BYTES = 192 << 20  # of the replies to one process of an analyst
MAX_ASKED = 16  # calls of one analyst
STREAMS_PER_ANALYST = 4
M = TypeVar("M", bound=Message)
# What analysts may call; what stands beside it is the message whose signer must be who calls. None: the call names a
# report, and who calls must have signed the request that it answers.
ANALYST_STEPS: Mapping[str, type[CatalogueRequest | Request] | None] = {
    "catalogues": CatalogueRequest,
    "submit": Request,
    "teach": None,
    "report": None,
    "evidence": None,
}


class Calls(Protocol):
    """What a server answers analysts, and silos."""

    async def catalogues(self, request: bytes) -> tuple[bytes, ...]: ...
    async def answer(self, asked: Asked) -> bytes: ...
    async def deliver_report(self, name: bytes) -> tuple[bytes, ...]: ...
    def report(self, name: bytes) -> bytes: ...
    async def evidence(self, name: bytes, index: int) -> tuple[bytes, ...]: ...
    async def request_of(self, name: bytes) -> bytes: ...
    async def put_head(self, envelope: bytes) -> bytes: ...
    async def get_head(self, silo: bytes) -> bytes: ...


@dataclass(slots=True)
class AnalystProcess:
    """One process of an analyst: its streams, and what it is answered."""

    once: Once
    streams: int = 0
    leaving: asyncio.TimerHandle | None = None


class Callers:
    """The analysts that call, by process, and the calls of theirs that are under way."""

    def __init__(
        self,
        credentials: Credentials,
        server: Callable[[], Calls | None],
        renewed: Callable[[], Awaitable[None]],
    ) -> None:
        """`server` returns the one that answers now; `renewed` returns when the silos know the membership."""
        self._credentials, self._server, self._renewed = credentials, server, renewed
        self.processes: dict[tuple[str, bytes], AnalystProcess] = {}  # by name and instance, while replies are kept
        self.under_way: Counter[str] = Counter()  # calls, by analyst
        self.waiting: Counter[str] = Counter()  # calls that wait for silos to learn of the membership
        self.answered_at = float("-inf")
        self.is_stopping = False

    def keep_only(self, analysts: Container[str]) -> None:
        """Forget the processes of all other analysts."""
        for key in [key for key in self.processes if key[0] not in analysts]:
            self._drop(key)

    def come(self, analyst: str, instance: bytes) -> AnalystProcess:
        """Return the process of an analyst that has opened a stream, and what it was answered before."""
        process = self.processes.get((analyst, instance))
        if process is None:
            kept = [key for key in self.processes if key[0] == analyst]
            if len(kept) >= STREAMS_PER_ANALYST:  # then one has no stream, as this one has one
                gone = [key for key in kept if not self.processes[key].streams]
                self._drop(min(gone, key=lambda key: not self.processes[key].once.is_idle))

            async def serve(number: int, step: str, arguments: Parts) -> Parts:
                return await self.answer(analyst, step, arguments)

            process = AnalystProcess(Once(serve, replies=8, reply_bytes=KEPT_BYTES))
            self.processes[analyst, instance] = process
        if process.leaving is not None:
            process.leaving.cancel()
        process.streams += 1
        return process

    def leave(self, key: tuple[str, bytes]) -> None:
        """Keep what a process was answered for KEPT_S after its last stream, and while a call of it is under way."""
        process = self.processes.get(key)
        if process is not None and not process.streams:
            process.leaving = asyncio.get_running_loop().call_later(KEPT_S, self._forget, key)

    def _forget(self, key: tuple[str, bytes]) -> None:
        if self.processes[key].once.is_idle:
            del self.processes[key]
        else:
            self.leave(key)

    def _drop(self, key: tuple[str, bytes]) -> None:
        if (leaving := self.processes.pop(key).leaving) is not None:
            leaving.cancel()

    async def answer(self, analyst: str, step: str, arguments: Parts) -> Parts:
        """Answer an analyst's call; raises CryptoError, whose message the analyst sees.

        1. The step is one that analysts may call. 2. An analyst has a bounded number of calls under way and waiting,
        over all its processes and those that have gone. 3. Silos are asked once they know the membership. 4. What is
        signed is signed by who calls, who is still a member. 5. While the aggregator stops, only what was answered can
        be fetched. 6. A report answers a request of who calls.
        """
        # 1.
        if step not in ANALYST_STEPS:
            raise CallFailedError(f"the aggregator has no call {step!r} for analysts")
        if not _fits(step, arguments):
            raise CallFailedError(f"{step!r} takes other arguments")
        # 2.
        if (under_way := self.under_way[analyst] + self.waiting[analyst]) >= MAX_ASKED:
            raise CallFailedError(f"{under_way} calls of {analyst!r} are under way", "ask again later")
        # 3.
        if step in ("catalogues", "submit"):
            self.waiting[analyst] += 1
            try:
                await self._renewed()
            finally:
                self.waiting[analyst] -= 1
        server = self._server()
        if server is None:
            raise CallFailedError("the federation has no roster yet", "the authority admits silos first")
        # 4.
        kind = ANALYST_STEPS[step]
        signed = None if kind is None else self._verified(analyst, kind, arguments[0])
        # 5.
        if self.is_stopping and step not in ("report", "evidence"):
            raise CallFailedError("the aggregator is stopping", "ask again in a minute")
        self.under_way[analyst] += 1
        self.answered_at = asyncio.get_running_loop().time()
        try:
            # 6.
            if signed is None:
                self._verified(analyst, Request, await server.request_of(arguments[0]))
            return await _called(server, step, arguments, signed)
        except AggregatorError as err:
            raise CallFailedError(err.message, err.hint) from err
        finally:
            self.under_way[analyst] -= 1
            self.answered_at = asyncio.get_running_loop().time()

    def _verified(self, analyst: str, kind: type[M], envelope: bytes) -> Signed[M]:
        if signer_of(envelope, kind) != analyst:
            raise MembershipError(f"a {kind.KIND} signed by somebody else than {analyst!r}, whose certificate this is")
        return verify(envelope, kind, {analyst: VerifyKey.parse(self._credentials.membership.find(analyst).key)})


async def answer_silo(server: Calls | None, silo: str, step: str, arguments: Parts) -> Parts:
    """Keep the head of a silo's own ledger, or say which one is kept; raises CryptoError, which the silo sees."""
    if server is None:
        raise CallFailedError("the federation has no roster yet", "the authority admits silos first")
    try:
        match step, arguments:
            case "put_head", (envelope,):
                if signer_of(envelope, Checkpoint) != silo:
                    raise MembershipError(f"a head signed by somebody else than {silo!r}, whose certificate this is")
                return (await server.put_head(envelope),)
            case "get_head", ():
                return (await server.get_head(silo.encode()),)
            case _:
                raise CallFailedError(f"the aggregator has no call {step!r} for silos that takes these arguments")
    except AggregatorError as err:
        raise CallFailedError(err.message, err.hint) from err


async def _called(server: Calls, step: str, arguments: Parts, signed: Signed[Any] | None) -> Parts:
    match step, arguments:
        case "catalogues", (request,):
            return await server.catalogues(request)
        case "submit", (request,) if signed is not None:
            return (await server.answer(Asked(request, signed.message, signed.digest)),)
        case "teach", (name,):
            return await server.deliver_report(name)
        case "report", (name,):
            return (await asyncio.to_thread(server.report, name),)  # up to 256 MiB from disk
        case _, (name, index):
            return await server.evidence(name, int.from_bytes(index, "big"))
    raise AssertionError


def _fits(step: str, arguments: Parts) -> bool:
    """Whether a step takes these arguments: the index of a piece of evidence has 8 bytes."""
    return [len(one) for one in arguments[1:]] == ([8] if step == "evidence" else []) and len(arguments) > 0
