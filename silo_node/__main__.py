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

from crypto.errors import CryptoError
from federation.operations.ray_cluster import NAMESPACE, attach
from policies.document.load import load
from policies.errors import PolicyError
from silo_node.actor import SiloActor
from silo_node.errors import SiloError

START_TIMEOUT_S = 60.0
HEAD_TIMEOUT_S = 5.0


class RayCheckpoints:
    """Reaches the aggregator by the name of its actor, to have the checkpoint of the ledger kept there."""

    def put_head(self, envelope: bytes) -> bytes:
        return self._ask("put_head", envelope)

    def get_head(self, silo: bytes) -> bytes:
        return self._ask("get_head", silo)

    def _ask(self, call: str, argument: bytes) -> bytes:
        actor = ray.get_actor("aggregator", namespace=NAMESPACE)
        answer: bytes = ray.get(getattr(actor, call).remote(argument), timeout=HEAD_TIMEOUT_S)
        return answer


class RemoteSilo(SiloActor):
    """Keeps what stopped it from starting, for the launcher: Ray turns a constructor's error into text."""

    def __init__(self, policy_path: str) -> None:
        self._problem: tuple[str, str] | None = None
        try:
            super().__init__(policy_path, keepers=lambda _: RayCheckpoints())
        except (SiloError, PolicyError, CryptoError) as err:
            self._problem = err.message, err.hint

    def problem(self) -> tuple[str, str] | None:
        """Return why the silo did not start, with a hint; None if it did."""
        return self._problem


def main() -> int:
    """Start the actors, report on each, and leave them running in the cluster."""
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
        name: remote.options(name=f"silo/{name}", lifetime="detached").remote(str(path)) for name, path in names.items()
    }
    problems = {name: actor.problem.remote() for name, actor in actors.items()}
    ray.wait(list(problems.values()), num_returns=len(problems), timeout=START_TIMEOUT_S)
    for name, reference in problems.items():
        try:
            problem = ray.get(reference, timeout=0.1)
        except ray.exceptions.GetTimeoutError:
            problem = f"it did not start within {START_TIMEOUT_S:g} s", "try again"
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
