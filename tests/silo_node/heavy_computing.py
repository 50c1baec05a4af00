"""The worker that computes for a silo, but each question of `mallory` takes it HEAVY_S more."""

import time
from typing import Any

from crypto.backends.sandbox import Parts
from silo_node.data import worker

HEAVY_S = 4.0
compute = worker.Worker.compute


def heavy(self: Any, payload: bytes) -> Parts:
    if b'"mallory"' in payload:
        time.sleep(HEAVY_S)
    return compute(self, payload)


worker.Worker.compute = heavy  # type: ignore[method-assign]
worker.main()
