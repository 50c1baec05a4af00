"""Execute each call once, even if it arrives again over a new stream.

When a stream breaks, its unfinished calls are made again over the next stream, under the same numbers. Promises: `Once`
executes a number once. A repeated call joins the running one or gets the kept reply; a call whose reply is no longer
kept fails and is not executed again. docs/federated.md, "A lost stream".

    serve = Once(actor_step)  # kept while streams come and go
    session = Session(stream.write, serve, wire=2)
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from crypto.errors import LinkError
from federation.transport.frames import Parts

Serve = Callable[[int, str, Parts], Awaitable[Parts]]  # number, step and arguments of a call; its reply
STOPPING = "the aggregator is stopping"  # why a call fails that may be made again when it is back


class CallFailedError(LinkError):
    """The other end executed the call, and it failed there; it must not be tried again."""


class Once:
    """Executes each call once, however often it arrives, and keeps the latest replies for repeated calls.

    It serves the calls of one process at the other end, whose numbers are unique over all of its streams.
    """

    def __init__(self, serve: Serve, replies: int = 64, reply_bytes: int = 64 << 20) -> None:
        self._serve, self._most, self._most_bytes = serve, replies, reply_bytes
        self._running: dict[int, asyncio.Task[Parts]] = {}
        self._kept: OrderedDict[int, Parts] = OrderedDict()
        self._gone: OrderedDict[int, None] = OrderedDict()
        self._bytes = 0

    async def __call__(self, number: int, step: str, arguments: Parts) -> Parts:
        """Return the reply to a call; raises the call's own error, or CallFailedError if its reply is not kept."""
        if number in self._kept:
            return self._kept[number]
        if number in self._gone:
            raise CallFailedError("this call was answered before, and its reply is no longer kept")
        task = self._running.get(number)
        if task is None:
            if len(self._running) >= self._most:
                raise CallFailedError(f"{self._most} calls are under way already")
            task = asyncio.get_running_loop().create_task(self._run(number, step, arguments))
            self._running[number] = task
            task.add_done_callback(lambda done: None if done.cancelled() else done.exception() and None)
        return await asyncio.shield(task)

    @property
    def is_idle(self) -> bool:
        """Whether no call is being executed."""
        return not self._running

    async def _run(self, number: int, step: str, arguments: Parts) -> Parts:
        try:
            reply = await self._serve(number, step, arguments)
        except BaseException:
            self._mark(number)
            raise
        finally:
            del self._running[number]
        self._kept[number] = reply
        self._bytes += sum(map(len, reply))
        while self._kept and (len(self._kept) > self._most or self._bytes > self._most_bytes):
            oldest, old = self._kept.popitem(last=False)
            self._bytes -= sum(map(len, old))
            self._mark(oldest)
        return reply

    def _mark(self, number: int) -> None:
        self._gone[number] = None
        while len(self._gone) > 64 * self._most:
            self._gone.popitem(last=False)
