"""Start the aggregator: as a named Ray actor by `python -m aggregator simulate HOME`, or for others by `serve`.

Reads the address of the Ray cluster from standard input and prints one JSON line: {"ready": true} or {"error", "hint"}.
"""

import argparse
import json
import logging
import sys
from pathlib import Path
from typing import Any

import ray

from aggregator.errors import AggregatorError
from aggregator.home import read_home
from aggregator.ray_actors import NAMESPACE, AggregatorActor
from crypto.errors import CryptoError

START_TIMEOUT_S = 60.0


def main() -> int:
    """Start the actor and leave it running in the cluster; `serve` is in a module of its own."""
    if sys.argv[1:2] == ["serve"]:
        from aggregator.serve import main as serve  # gRPC is heavy: only where somebody listens

        return serve(sys.argv[2:])
    parser = argparse.ArgumentParser(prog="python -m aggregator")
    parser.add_argument("mode", choices=["simulate"])
    parser.add_argument("home", type=Path)
    arguments = parser.parse_args()
    try:
        read_home(arguments.home)
        address = sys.stdin.readline().strip()
        ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR)
        remote: Any = ray.remote(num_cpus=0, max_restarts=0, max_task_retries=0)(AggregatorActor)
        actor = remote.options(name="aggregator", lifetime="detached").remote(str(arguments.home.resolve()))
        ray.get(actor.ready.remote(), timeout=START_TIMEOUT_S)
    except (AggregatorError, CryptoError) as err:
        return _report(1, error=err.message, hint=err.hint)
    except ray.exceptions.RayError as err:
        return _report(1, error=f"the aggregator did not start ({type(err).__name__})", hint="try again")
    return _report(0, ready=True)


def _report(code: int, **fields: object) -> int:
    print(json.dumps(fields), flush=True)  # noqa: T201
    return code


if __name__ == "__main__":
    sys.exit(main())
