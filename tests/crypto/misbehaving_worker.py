"""A worker of `crypto.backends.sandbox` that does what a crafted blob may make native code do."""

import ctypes
import os
import signal
import sys
import time

from crypto.backends.sandbox import limit_this_process, serve

ECHO, CRASH, HANG, ALLOCATE, SPIN, LONGER, KILLED, RAISE, ENVIRONMENT, PRINT = range(1, 11)


def _handle(code: int, payload: bytes) -> bytes:
    if code == 0:  # the setup
        return b"" if payload != b"bad setup" else b"more than nothing"
    if code == CRASH:
        ctypes.string_at(0)  # a segmentation fault in native code
    if code == HANG:
        time.sleep(3600)
    if code == ALLOCATE:
        return bytes(len(bytearray(1 << 40)))
    if code == SPIN:
        while True:
            pass
    if code == LONGER:
        return payload + os.urandom(4096)
    if code == KILLED:
        os.kill(os.getpid(), signal.SIGKILL)
    if code == RAISE:
        raise ValueError("\x1b[31mred\nlines" + "x" * 1000)
    if code == ENVIRONMENT:
        return "\n".join(sorted(os.environ)).encode()
    if code == PRINT:
        os.write(1, b"noise")
        print("noise", flush=True)
    return payload


if __name__ == "__main__":
    limit_this_process(sys.argv[1:])
    serve(_handle)
