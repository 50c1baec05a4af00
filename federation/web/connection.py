"""One connection of a page's client: one request, within limits of size and time, then closed.

Promises: a client that is silent, slow or does not read is disconnected; the head of a request is bounded and
unambiguous; no second request is read, so none can be smuggled. uvicorn has a time limit only between requests, and h11
bounds a head only while it is incomplete, so this module adds both. RFC 9112, sections 2.2, 5.2, 9.6 and 11.2.
"""

import asyncio
import re
from dataclasses import dataclass

import h11
from uvicorn import Config
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol
from uvicorn.server import ServerState

from federation.web.guard import HEADERS

_HEAD_END = b"\r\n\r\n"
# Parsers differ on a line that ends in CR or LF alone, or that continues on the next line.
_TWO_READINGS = re.compile(rb"\r(?!\n)|(?<!\r)\n|\n[ \t]")


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """The time limits of one client of a page."""

    head_bytes: int = 16_384
    read_s: float = 10.0  # until the whole request is here
    answer_s: float = 60.0  # until it is answered
    write_s: float = 10.0  # until the client has read the answer
    connections: int = 16


class Connection(H11Protocol):
    """uvicorn's connection, for one request within the limits."""

    def __init__(self, config: Config, state: ServerState, limits: ClientLimits) -> None:
        super().__init__(config, state, {})
        self.access_log = False  # paths hold secrets
        self._limits = limits
        self._head: bytearray | None = bytearray()  # None once it is complete
        self._deadline: asyncio.TimerHandle | None = None
        self._is_turned_away = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        if len(self.connections) >= self._limits.connections:
            self._is_turned_away = True
            transport.abort()
            return
        super().connection_made(transport)
        self._allow(self._limits.read_s)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._is_turned_away:
            return
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_turned_away or self.transport.is_closing() or self._is_answering():
            return  # bytes after a request are dropped: they must neither fill memory nor extend the deadline
        if self._head is not None:
            self._head += data
            end = self._head.find(_HEAD_END)
            if (len(self._head) if end < 0 else end) > self._limits.head_bytes:
                self._refuse(431, f"the head of a request has at most {self._limits.head_bytes} bytes")
                return
            if end < 0:
                return
            if _TWO_READINGS.search(self._head, 0, end + len(_HEAD_END)):
                self.send_400_response("")
                return
            data, self._head = bytes(self._head), None
        super().data_received(data)
        if self._is_answering():
            self._allow(self._limits.answer_s)

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio asks whether to stay open
        """Keep the connection if the request is complete and its answer is due; otherwise close it."""
        return not self._is_turned_away and self._is_answering()

    def _is_answering(self) -> bool:
        return self.conn.their_state in (h11.DONE, h11.MUST_CLOSE) and self.conn.our_state in (
            h11.SEND_RESPONSE,
            h11.SEND_BODY,
        )

    def on_response_complete(self) -> None:
        self._allow(self._limits.write_s)
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer an invalid request, without repeating any of it."""
        self._refuse(400, "this is no request for this page")

    def _refuse(self, status: int, text: str) -> None:
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.abort()  # the answer to the request has begun
            return
        body = f"{text}\n".encode()
        headers = HEADERS | {"Content-Type": "text/plain; charset=utf-8", "Content-Length": str(len(body))}
        begin = h11.Response(status_code=status, headers=list(headers.items()), reason=STATUS_PHRASES[status])
        for event in (begin, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
        self._allow(self._limits.write_s)
        if self.cycle is not None:  # the app has started on a request that turned out to be invalid
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    def _allow(self, seconds: float) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self.loop.call_later(seconds, self.transport.abort)
