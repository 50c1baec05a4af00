"""Start the aggregator: as a named Ray actor with `python -m aggregator simulate HOME`, or with `serve`.

`status` and `doctor` look at its directory, `backup` and `restore` keep it.

Reads the address of the Ray cluster from standard input and prints one JSON line: {"ready": true} or {"error", "hint"}.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from aggregator.errors import AggregatorError
from aggregator.home import read_home
from crypto.errors import CryptoError
from federation.operations.load import patience
from federation.operations.private import close_to_others
from federation.operations.ray_cluster import attach

START_TIMEOUT_S = 60.0


def main() -> int:
    """Start the actor and leave it running in the cluster; the other commands are in modules of their own."""
    close_to_others()
    if sys.argv[1:2] == ["serve"]:  # before Ray is imported, as it sets Ray's environment
        from aggregator.serve import main as serve  # gRPC is slow to import: only for `serve`

        return serve(sys.argv[2:])
    if sys.argv[1:2] in (["status"], ["doctor"]):
        from aggregator.status import main as look

        return look(sys.argv[1:])
    if sys.argv[1:2] in (["backup"], ["restore"]):
        from aggregator.backup import main as keep

        return keep(sys.argv[1:])
    parser = argparse.ArgumentParser(prog="python -m aggregator")
    parser.add_argument("mode", choices=["simulate"])
    parser.add_argument("home", type=Path)
    arguments = parser.parse_args()
    import ray

    from aggregator.ray_actors import AggregatorActor

    try:
        read_home(arguments.home)
        address = sys.stdin.readline().strip()
        attach(address)
        remote: Any = ray.remote(num_cpus=0, max_restarts=0, max_task_retries=0)(AggregatorActor)
        actor = remote.options(name="aggregator", lifetime="detached").remote(str(arguments.home.resolve()))
        ray.get(actor.ready.remote(), timeout=START_TIMEOUT_S * patience())
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
