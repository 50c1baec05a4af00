"""The calls of analysts and silos to an aggregator, and the checks before each call.

Promise: a call reaches the server only if its step exists, its caller signed the message in it, and its caller has not
too many calls running. docs/federated.md, "The stream, byte by byte".
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Container, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

from aggregator.errors import AggregatorError
from aggregator.rounds import ReceivedRequest
from aggregator.slots import Slots
from aggregator.transcripts import Transcripts
from crypto.errors import MembershipError
from crypto.keys import VerifyKey
from crypto.rounds.messages import Stopped
from crypto.wire import Message, Signed, is_envelope, signer_of, verify
from federation.members.credentials import Credentials
from federation.operations.allowance import Allowance
from federation.transport.calls import STOPPING, CallFailedError, Once
from federation.transport.frames import Parts
from policies.budget.ledger import Checkpoint
from policies.requests.catalogue import CatalogueRequest, DomainRequest
from policies.requests.network_offer import FRAME_BYTES, INDEX_BYTES, NetworkOffer
from policies.requests.request import Request

KEPT_S = 60.0  # how long replies wait for an analyst, whose end may notice a lost stream only after 25 s
KEPT_BYTES = 192 << 20  # of the replies to one process of an analyst
MAX_ASKED = 16  # calls of one analyst
# Calls at a time of all analysts, for which silos work, or which read from disk. A silo's stream has 64 calls at most.
AT_A_TIME = MappingProxyType({"catalogues": 16, "teach": 16, "report": 16})
ALIKE = MappingProxyType({"domain": "catalogues", "offer": "catalogues", "evidence": "report", "stop": "teach"})
CALL_WAIT_S = 60.0  # for others' calls to end
UNANSWERED_AT_ONCE, UNANSWERED_PER_DAY = 2000, 2000  # requests of one analyst that every silo refused, or that failed
STREAMS_PER_ANALYST = 4
M = TypeVar("M", bound=Message)
# The calls of analysts, each with the message that the caller must have signed. None: the call names a report, and the
# caller must have signed that report's request; `find` names a request, and knows only of the caller's own.
ANALYST_STEPS: Mapping[str, type[CatalogueRequest | DomainRequest | NetworkOffer | Request | Stopped] | None] = {
    "catalogues": CatalogueRequest,
    "domain": DomainRequest,
    "offer": NetworkOffer,
    "submit": Request,
    "teach": None,
    "stop": Stopped,
    "find": None,
    "report": None,
    "evidence": None,
}


class Calls(Protocol):
    """The calls that a server answers."""

    transcripts: Transcripts

    async def catalogues(self, request: bytes) -> tuple[bytes, ...]: ...
    async def domain(self, request: bytes) -> bytes: ...
    async def offer(self, offer: bytes, index: bytes, frame: bytes) -> tuple[bytes, ...]: ...
    async def answer(self, asked: ReceivedRequest) -> bytes: ...
    async def deliver_report(self, name: bytes) -> tuple[bytes, ...]: ...
    async def stop_run(self, stopped: bytes) -> tuple[bytes, ...]: ...
    def find(self, request_hash: bytes, analyst: str | None) -> bytes: ...
    async def put_checkpoint(self, envelope: bytes) -> bytes: ...
    async def get_checkpoint(self, silo: bytes) -> bytes: ...


@dataclass(slots=True)
class AnalystProcess:
    """One process of an analyst: its streams and its replies."""

    once: Once
    streams: int = 0
    leaving: asyncio.TimerHandle | None = None


class Callers:
    """The calling analysts, by process, and their running calls."""

    def __init__(
        self,
        credentials: Credentials,
        server: Callable[[], Calls | None],
        renewed: Callable[[], Awaitable[None]],
    ) -> None:
        """`server` returns the present server; `renewed` returns once the silos know the newest membership."""
        self._credentials, self._server, self._renewed = credentials, server, renewed
        self.processes: dict[tuple[str, bytes], AnalystProcess] = {}  # by name and instance, while replies are kept
        self.under_way: Counter[str] = Counter()  # calls, by analyst
        self.waiting: Counter[str] = Counter()  # calls that wait for silos to learn of the membership
        self._slots = {step: Slots(number, CALL_WAIT_S, f"calls of {step}") for step, number in AT_A_TIME.items()}
        self._unanswered = Allowance[str](UNANSWERED_AT_ONCE, UNANSWERED_PER_DAY, time.time)
        self.answered_at = float("-inf")
        self.is_stopping = False

    def keep_only(self, analysts: Container[str]) -> None:
        """Forget the processes of all other analysts."""
        for key in [key for key in self.processes if key[0] not in analysts]:
            self._drop(key)

    def come(self, analyst: str, instance: bytes) -> AnalystProcess:
        """Return the process of an analyst that has opened a stream, with its earlier replies."""
        process = self.processes.get((analyst, instance))
        if process is None:
            kept = [key for key in self.processes if key[0] == analyst]
            if len(kept) >= STREAMS_PER_ANALYST:  # then one of the kept processes has no stream
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
        """Keep a process's replies for KEPT_S after its last stream, and while one of its calls is running."""
        process = self.processes.get(key)
        if process is not None and not process.streams:
            if process.leaving is not None:
                process.leaving.cancel()
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

        1. Analysts may call this step. 2. An analyst has a bounded number of running and waiting calls, over all its
        present and past processes. 3. Silos are asked only once they know the membership. 4. The caller signed the
        message and is still a member. 5. While the aggregator stops, only finished answers can be fetched. 6. A report
        answers a request of the caller.
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
        self.waiting[analyst] += 1
        try:
            if step in ("catalogues", "domain", "offer", "submit"):
                await self._renewed()
            server = self._server()
            if server is None:
                raise CallFailedError("the federation has no roster yet", "the authority admits silos first")
            # 4.
            kind, signed = ANALYST_STEPS[step], None
            if kind is not None:  # in a thread, as a request has up to 512 KiB to read
                signed = await asyncio.to_thread(self._verified, analyst, kind, arguments[0])
        finally:
            self.waiting[analyst] -= 1
        # 5.
        if self.is_stopping and step not in ("find", "report", "evidence"):
            raise CallFailedError(STOPPING, "ask again in a minute")
        self.under_way[analyst] += 1
        self.answered_at = asyncio.get_running_loop().time()
        try:
            # 6.
            if step == "find":
                return (await asyncio.to_thread(server.find, arguments[0], analyst),)
            slots = self._slots.get(ALIKE.get(step, step))
            async with nullcontext() if slots is None else slots.taken(analyst):
                if signed is None:
                    self._verified(analyst, Request, await server.transcripts.request_of(arguments[0]))
                if step == "submit":
                    return await self._submitted(analyst, server, arguments, signed)
                return await _called(server, step, arguments, signed)
        except AggregatorError as err:
            raise CallFailedError(err.message, err.hint) from err
        finally:
            self.under_way[analyst] -= 1
            self.answered_at = asyncio.get_running_loop().time()

    async def _submitted(self, analyst: str, server: Calls, arguments: Parts, signed: Signed[Any] | None) -> Parts:
        """Answer a request of an analyst who has not sent too many that had no answer."""
        if not self._unanswered.take(analyst):
            raise CallFailedError(f"too many requests of {analyst!r} had no answer lately", "ask again in some minutes")
        frames = await _called(server, "submit", arguments, signed)
        if not is_envelope(frames[0]):  # a Failure is one, a report is none
            self._unanswered.give_back(analyst)
        return frames

    def _verified(self, analyst: str, kind: type[M], envelope: bytes) -> Signed[M]:
        if signer_of(envelope, kind) != analyst:
            raise MembershipError(f"a {kind.KIND} signed by somebody else than {analyst!r}, whose certificate this is")
        return verify(envelope, kind, {analyst: VerifyKey.parse(self._credentials.membership.find(analyst).key)})


async def answer_silo(server: Calls | None, silo: str, step: str, arguments: Parts) -> Parts:
    """Keep the checkpoint of a silo's own ledger, or return the kept one; raises CryptoError, which the silo sees."""
    if server is None:
        raise CallFailedError("the federation has no roster yet", "the authority admits silos first")
    try:
        match step, arguments:
            case "put_head", (envelope,):
                if signer_of(envelope, Checkpoint) != silo:
                    raise MembershipError(
                        f"a checkpoint signed by somebody else than {silo!r}, whose certificate this is"
                    )
                return (await server.put_checkpoint(envelope),)
            case "get_head", ():
                return (await server.get_checkpoint(silo.encode()),)
            case _:
                raise CallFailedError(f"the aggregator has no call {step!r} for silos that takes these arguments")
    except AggregatorError as err:
        raise CallFailedError(err.message, err.hint) from err


async def _called(server: Calls, step: str, arguments: Parts, signed: Signed[Any] | None) -> Parts:
    match step, arguments:
        case "catalogues", (request,):
            return await server.catalogues(request)
        case "domain", (request,):
            return (await server.domain(request),)
        case "offer", (offer, index, frame):
            return await server.offer(offer, index, frame)
        case "submit", (request,) if signed is not None:
            return (await server.answer(ReceivedRequest(request, signed.message, signed.digest)),)
        case "teach", (name,):
            return await server.deliver_report(name)
        case "stop", (stopped,):
            return await server.stop_run(stopped)
        case "report", (name,):
            return (await asyncio.to_thread(server.transcripts.report, name),)  # up to 256 MiB from disk
        case _, (name, index):
            return await server.transcripts.evidence(name, int.from_bytes(index, "big"))
    raise AssertionError


def _fits(step: str, arguments: Parts) -> bool:
    """Whether a step takes these arguments: the index of a piece of evidence has 8 bytes, a request's hash 32.

    That of a frame of a packed network has 8 too, and the frame follows it.
    """
    if step == "offer":
        return len(arguments) == 3 and len(arguments[1]) == INDEX_BYTES and len(arguments[2]) <= FRAME_BYTES
    if step == "find" and [len(one) for one in arguments] != [32]:
        return False
    return [len(one) for one in arguments[1:]] == ([8] if step == "evidence" else []) and len(arguments) > 0
