"""Start silos as named Ray actors: `python -m silo_node simulate POLICY [POLICY ...]`.

Reads the address of the Ray cluster from standard input, so that loading overlaps with the cluster's start, and
prints one JSON line per silo: {"silo", "ready": true} or {"silo", "error", "hint"}.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import ray

from federation.operations.load import patience, waited
from federation.operations.private import close_to_others
from federation.operations.ray_cluster import NAMESPACE, attach
from policies.document.load import load
from policies.errors import PolicyError
from silo_node.actor import STEPS, LaunchedSilo

START_TIMEOUT_S = 60.0
CHECKPOINT_TIMEOUT_S = 5.0


class RayCheckpoints:
    """Reaches the aggregator by the name of its actor, which keeps the ledger's checkpoint."""

    def put_checkpoint(self, envelope: bytes) -> bytes:
        return self._ask("put_checkpoint", envelope)

    def get_checkpoint(self, silo: bytes) -> bytes:
        return self._ask("get_checkpoint", silo)

    def _ask(self, call: str, argument: bytes) -> bytes:
        actor = ray.get_actor("aggregator", namespace=NAMESPACE)
        answer: bytes = ray.get(getattr(actor, call).remote(argument), timeout=CHECKPOINT_TIMEOUT_S)
        return answer


class RemoteSilo(LaunchedSilo):
    """A silo in one trust domain with the others."""

    def __init__(self, policy_path: str, silos: int) -> None:
        super().__init__(policy_path, keepers=lambda _: RayCheckpoints(), silos=silos)


def main() -> int:
    """Start the actors, report on each, and leave them running in the cluster."""
    close_to_others()
    parser = argparse.ArgumentParser(prog="python -m silo_node")
    parser.add_argument("mode", choices=["simulate"])
    parser.add_argument("policy", nargs="+", type=Path)
    arguments = parser.parse_args()
    remote: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=0)(RemoteSilo)
    names: dict[str, Path] = {}
    is_failed = False
    for path in arguments.policy:
        try:
            names[load(path).policy.silo.id] = path.resolve()
        except PolicyError as err:
            _report(path.parent.name, error=err.message, hint=err.hint)
            is_failed = True
    address = sys.stdin.readline().strip()
    attach(address)
    actors = {
        name: remote.options(name=f"silo/{name}", lifetime="detached", max_concurrency=STEPS).remote(
            str(path), len(names)
        )
        for name, path in names.items()
    }
    problems = {name: actor.problem.remote() for name, actor in actors.items()}
    most_s = START_TIMEOUT_S * patience()
    ray.wait(list(problems.values()), num_returns=len(problems), timeout=most_s)
    for name, reference in problems.items():
        try:
            problem = ray.get(reference, timeout=0.1)
        except ray.exceptions.GetTimeoutError:
            problem = f"it did not start within {waited(most_s)}", "try again"
        except ray.exceptions.RayError as err:
            problem = f"its actor stopped ({type(err).__name__})", "see silo.log beside its policy"
        if problem is None:
            _report(name, ready=True)
        else:
            ray.kill(actors[name])
            _report(name, error=problem[0], hint=problem[1])
            is_failed = True
    return 1 if is_failed else 0


def _report(silo: str, **fields: object) -> None:
    print(json.dumps({"silo": silo, **fields}), flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
