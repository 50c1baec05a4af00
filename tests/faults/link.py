"""A link between two ends of a TCP connection that can be cut, be late or break: nothing that is sent is lost."""

import socket
import threading
import time
from collections import deque
from contextlib import suppress

MAX_WAITING = 4096  # pieces of one direction of one connection


class Link:
    """Passes TCP connections on to a port of this machine.

    While it is cut, what is sent stays on the way, as in a network that is mended before TCP gives up; new connections
    are accepted and nothing passes. `reset` ends all connections.
    """

    def __init__(self, back: int, front: int = 0) -> None:
        self._back, self.late_s = back, 0.0
        self._whole = threading.Event()
        self._whole.set()
        self._listener = socket.create_server(("127.0.0.1", front), backlog=64)
        self.port = int(self._listener.getsockname()[1])
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self._whole.clear()

    def mend(self) -> None:
        self.late_s = 0.0
        self._whole.set()

    def reset(self) -> None:
        with self._lock:
            ended, self._open = self._open, set()
        for one in ended:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def close(self) -> None:
        self.mend()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.reset()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._join, args=(near,), daemon=True).start()

    def _join(self, near: socket.socket) -> None:
        self._whole.wait()
        try:
            far = socket.create_connection(("127.0.0.1", self._back), timeout=10)
        except OSError:
            near.close()
            return
        far.settimeout(None)
        for one in (near, far):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._open |= {near, far}
        for source, sink in ((near, far), (far, near)):
            threading.Thread(target=self._copy, args=(source, sink), daemon=True).start()

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        """Read as fast as it comes, and send each piece when it is due, so that delay costs no throughput."""
        waiting: deque[tuple[float, bytes]] = deque()
        changed = threading.Condition()

        def send() -> None:
            while True:
                with changed:
                    changed.wait_for(lambda: waiting)
                    due, data = waiting.popleft()
                    changed.notify_all()
                time.sleep(max(0.0, due - time.monotonic()))
                self._whole.wait()
                try:
                    if not data:
                        sink.shutdown(socket.SHUT_WR)
                        return
                    sink.sendall(data)
                except OSError:
                    return

        threading.Thread(target=send, daemon=True).start()
        data = b"x"
        while data:
            try:
                data = source.recv(65536)
            except OSError:
                data = b""
            with changed:
                changed.wait_for(lambda: len(waiting) < MAX_WAITING, timeout=60)
                waiting.append((time.monotonic() + self.late_s, data))
                changed.notify_all()
