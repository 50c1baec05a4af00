"""A way between two ends of a TCP connection, for tests that look at what passes or cut it."""

import socket
import threading
from contextlib import suppress


class Relay:
    """Passes TCP connections on and keeps what they carried; once they vanish nothing passes, and no end is told."""

    def __init__(self, front: int, back: int) -> None:
        self._back, self._age, self.is_closed = back, 0, False
        self._listener = socket.create_server(("127.0.0.1", front), backlog=64)
        self._sockets = [self._listener]
        self._chunks: list[bytes] = []

    def __enter__(self) -> "Relay":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def recorded(self) -> list[bytes]:
        return list(self._chunks)

    def vanish(self) -> None:
        self._age += 1

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
                if self.is_closed:
                    near.close()
                    continue
                far = socket.create_connection(("127.0.0.1", self._back), timeout=10)
            except OSError:
                return
            far.settimeout(None)
            self._sockets += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._copy, args=(source, sink, self._age), daemon=True).start()

    def _copy(self, source: socket.socket, sink: socket.socket, age: int) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self._chunks.append(data)
                if age == self._age:
                    sink.sendall(data)
        if age == self._age:
            with suppress(OSError):
                sink.shutdown(socket.SHUT_RDWR)
