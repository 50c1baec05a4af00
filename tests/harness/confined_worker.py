"""A process of `crypto.backends.sandbox` that confines itself, and then tries what a name in the job says."""

import os
import platform
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping

from crypto.backends.confined import confine, end_with_parent
from crypto.backends.sandbox import limit_this_process, serve

CONFINE, TRY, LIMITS_ALONE = 1, 2, 3
REPLY_BYTES = 80
MODULE = "tests.harness.confined_worker"


def _thread() -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.set)
    thread.start()
    thread.join()


def _raw(number: int, *arguments: int) -> None:
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    if library.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), "refused")


TRIED: Mapping[str, Callable[[], object]] = {
    "read a file": lambda: open("/etc/hostname", "rb").read(),  # noqa: SIM115
    "write a file": lambda: open("/tmp/confined-worker", "wb").close(),  # noqa: S108
    "list a folder": lambda: os.listdir("/"),
    "remove a file": lambda: os.unlink("/tmp/confined-worker-none"),  # noqa: S108
    "rename a file": lambda: os.rename("/tmp/confined-worker-none", "/tmp/confined-worker-other"),  # noqa: S108
    "change a mode": lambda: os.chmod("/tmp", 0o777),  # noqa: S103, S108
    "a socket": lambda: socket.socket(),
    "a pair of sockets": lambda: socket.socketpair(),
    "a pipe": lambda: os.pipe(),
    "a file in memory": lambda: os.memfd_create("confined"),
    "a copy of a file": lambda: os.dup(0),
    "a process": lambda: subprocess.run(["/bin/true"], check=True),
    "a fork": lambda: os.fork() or os._exit(0),
    "another program": lambda: os.execv("/bin/true", ["true"]),  # noqa: S606
    "a signal to another": lambda: os.kill(os.getppid(), 0),
    "another limit": lambda: __import__("resource").setrlimit(7, (64, 64)),
    "memory of another": lambda: _raw(310, os.getppid(), 0, 0, 0, 0, 0),
    "trace": lambda: _raw(101, 0, 0, 0, 0),
    "a ring of calls": lambda: _raw(425, 1, 0),
    "compute": lambda: sum(range(1000)),
    "memory": lambda: bytearray(8 << 20),
    "random bytes": lambda: os.urandom(16),
    "limits as they are": lambda: __import__("resource").getrlimit(7),
}


def _handle(code: int, payload: bytes) -> bytes:
    if code == 0:
        return b""
    if code == CONFINE:
        return confine().encode().ljust(REPLY_BYTES)
    if code == LIMITS_ALONE:
        platform.machine = lambda: "no machine"  # which no filter is for
        return confine().encode().ljust(REPLY_BYTES)
    try:
        TRIED[payload.decode()]()
    except OSError as err:
        return f"refused {err.errno}".encode().ljust(REPLY_BYTES)
    except ValueError:  # so Python says that a limit may not be raised
        return b"refused 1".ljust(REPLY_BYTES)
    return b"done".ljust(REPLY_BYTES)


if __name__ == "__main__":
    limit_this_process(sys.argv[1:])
    end_with_parent(os.getppid())
    serve(_handle)
