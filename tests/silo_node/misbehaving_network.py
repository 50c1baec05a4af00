"""In place of the process that computes networks: what the name of the silo says, it does."""

import os
import sys
import time

from crypto.backends.sandbox import limit_this_process, serve
from silo_node.training.confined.child import CONFINED, OutOfMemory
from silo_node.training.confined.work import read


def _handle(code: int, payload: bytes) -> bytes:
    if code == 0:
        return b""
    if code == CONFINED:
        return b"\0"
    match read(payload).silo.encode():
        case b"slow":
            time.sleep(60)
        case b"large":
            raise OutOfMemory
        case b"ends":
            os._exit(3)
        case b"fails":
            raise ValueError("a cell of row 7 is 42")
    return b"short"


if __name__ == "__main__":
    limit_this_process(sys.argv[1:])
    serve(_handle)
