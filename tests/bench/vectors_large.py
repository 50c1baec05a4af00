"""A round of 10^8 values of four silos, each a process of its own, whose sum is at two shards on two raylets.

Run: python -m tests.bench.vectors_large [VALUES]
"""

import sys
import tempfile
import time
from pathlib import Path

from aggregator.shards import ShardedSums
from crypto.rounds.report import StoredReport
from tests.bench.figures import publish
from tests.bench.vectors import LIMIT, SILOS, rest
from tests.harness.long_rounds import Apart, long_federation, peak
from tests.harness.raylets import two_raylets

VALUES = 10**8


def main() -> None:
    from aggregator.ray_actors import RayShards

    values = int(float(sys.argv[1])) if len(sys.argv) > 1 else VALUES
    with two_raylets(), tempfile.TemporaryDirectory() as folder:
        sums = ShardedSums(RayShards(Path(folder) / "sums", shards=2))
        with long_federation(Path(folder) / "f", SILOS, values, LIMIT, 1200.0, sums) as fed:
            fed.count()
            silos = [silo.actor for silo in fed.simulation.silos.values()]
            request, before = fed.request(), [silo.peak() for silo in silos if isinstance(silo, Apart)]
            base, began = rest(), time.perf_counter()
            answer = fed.ask(lambda _: fed.opened[0], request)
            if not isinstance(answer, bytes):
                sys.exit(f"no report: {answer.message.reason}")
            took, name = time.perf_counter() - began, StoredReport.decode(answer).name
            own, of_shards = peak() - base, shards_peak()
            del answer
            fed.simulation.reports.clear()
            learned = fed.simulation.federation.deliver_report(name)
            if len(learned) < SILOS:
                sys.exit("a silo has not learned the report; see its silo.log")
            peaks = [silo.peak() for silo in silos if isinstance(silo, Apart)]
    label, vector = f"{values:.0e}".replace("e+0", "e"), 4 * values
    publish(f"round_{label}_n{SILOS}_two_shards", [took], "s")
    publish(f"aggregator_memory_{label}", [(own + of_shards) / 2**20], "MiB", aim=f"{2 * vector / 2**20 + 1024:.0f}")
    publish(f"shards_memory_{label}", [of_shards / 2**20], "MiB")
    grown = [(most - least) / vector for most, least in zip(peaks, before, strict=True)]
    publish(f"silo_memory_{label}", grown, "vectors", aim="3")


def shards_peak() -> int:
    """Return the most memory that the processes of all shards have had, in bytes."""
    found = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if process.joinpath("cmdline").read_bytes().startswith(b"ray::ShardActor"):
                found += int(process.joinpath("status").read_text().partition("VmHWM:")[2].split()[0]) * 1024
        except OSError:
            continue
    return found


if __name__ == "__main__":
    main()
