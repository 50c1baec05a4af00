"""How loaded this machine is, so that waits for processes that start here grow with it."""

import os

MAX_PATIENCE = 4.0


def patience() -> float:
    """Return by how much waits are longer than on an idle machine: 1 to MAX_PATIENCE, by load average and cores."""
    cores = len(os.sched_getaffinity(0)) or 1
    return max(1.0, min(MAX_PATIENCE, os.getloadavg()[0] / cores))


def waited(seconds: float) -> str:
    """Return a wait in words, with the load that explains it."""
    return f"{seconds:.0f} s (load average {os.getloadavg()[0]:.1f})"
