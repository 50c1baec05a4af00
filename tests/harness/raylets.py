"""A Ray cluster of two raylets on this machine, beside a head that computes nothing."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def two_raylets() -> Iterator[tuple[Any, list[Any]]]:
    """Start the cluster, and join it; yield it and its two nodes, each with one processor."""
    import ray
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
        made: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        try:
            nodes = [made.add_node(num_cpus=1), made.add_node(num_cpus=1)]
            ray.init(address=made.address, namespace="consilo", log_to_driver=False)
            yield made, nodes
        finally:
            ray.shutdown()
            made.shutdown()


def used_s(node: Any) -> float:
    """Return the processor time of the processes that a raylet has started."""
    (raylet,) = node.all_processes["raylet"]
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == raylet.process.pid:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")
