"""Start silos as named Ray actors: `python -m silo_node simulate POLICY [POLICY ...]`.

Reads the address of the Ray cluster from standard input, so that loading overlaps with the cluster's start, and
prints one JSON line per silo: {"silo", "ready": true} or {"silo", "error", "hint"}.
"""

import argparse
import json
import logging
import sys
from pathlib import Path
from typing import Any

import ray

from policies.errors import PolicyError
from policies.load import load
from silo_node.actor import SiloActor

NAMESPACE = "consilo"
START_TIMEOUT_S = 60.0


def main() -> int:
    """Start the actors, report on each, and leave them running in the cluster."""
    parser = argparse.ArgumentParser(prog="python -m silo_node")
    parser.add_argument("mode", choices=["simulate"])
    parser.add_argument("policy", nargs="+", type=Path)
    arguments = parser.parse_args()
    remote: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=0)(SiloActor)
    names: dict[str, Path] = {}
    failed = False
    for path in arguments.policy:
        try:
            names[load(path).policy.silo.id] = path.resolve()
        except PolicyError as err:
            _report(path.parent.name, error=err.message, hint=err.hint)
            failed = True
    ray.init(
        address=sys.stdin.readline().strip(), namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR
    )
    pending = {
        name: remote.options(name=f"silo/{name}", lifetime="detached").remote(str(path)) for name, path in names.items()
    }
    waiting = {actor.ready.remote(): name for name, actor in pending.items()}
    ray.wait(list(waiting), num_returns=len(waiting), timeout=START_TIMEOUT_S)
    for reference, name in waiting.items():
        try:
            ray.get(reference, timeout=0.1)
            _report(name, ready=True)
        except ray.exceptions.RayActorError as err:
            cause = _cause(err)
            _report(name, error=cause[0], hint=cause[1])
            failed = True
        except ray.exceptions.GetTimeoutError:
            _report(name, error=f"it did not start within {START_TIMEOUT_S:g} s", hint="see silo.log beside its policy")
            failed = True
    return 1 if failed else 0


def _report(silo: str, **fields: object) -> None:
    print(json.dumps({"silo": silo, **fields}), flush=True)  # noqa: T201


def _cause(err: BaseException) -> tuple[str, str]:
    """Return the message and hint of the error that the actor's constructor raised."""
    inner = getattr(getattr(err, "cause", None), "cause", None) or getattr(err, "cause", None) or err
    return getattr(inner, "message", None) or str(inner).strip().splitlines()[-1], getattr(inner, "hint", "")


if __name__ == "__main__":
    sys.exit(main())
