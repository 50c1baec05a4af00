"""A worker that does to a computation what the file `mode` beside the policy says; a file `late` delays its start."""

import json
import os
import resource
import sys
import time
from pathlib import Path

from crypto.backends.sandbox import serve
from silo_node.data import worker

home = Path()


def handle(code: int, payload: bytes) -> bytes:
    global home
    if code == worker.SETUP:
        home = Path(json.loads(payload)["policy"]).parent
        if (home / "late").exists():
            time.sleep(2)
        return b""
    match (home / "mode").read_text():
        case "slow":
            time.sleep(60)
        case "large":
            return bytes(1 << 40)
        case "ends":
            os._exit(3)
        case "fails":
            raise ValueError("a cell of row 7")
        case "short":
            return b"1234567"
    return (7).to_bytes(8, "little")


resource.setrlimit(resource.RLIMIT_DATA, (int(sys.argv[1]), int(sys.argv[1])))
serve(handle)
