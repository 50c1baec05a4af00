"""What a user waits for: the demo as a whole process, and a warm question beside the bare Ray messages it needs."""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from analyst.client import Federation
from analyst.demo.hospitals import PURPOSE, found_hospitals
from tests.bench.figures import publish

QUESTION = "SELECT sex, COUNT(*) AS n, AVG(age) AS mean_age FROM lung GROUP BY sex"
STEPS, SILOS, QUERIES = 6, 5, 15
DEMO_RUNS = 3


def main() -> None:
    walls, peaks = zip(*(demo() for _ in range(DEMO_RUNS)), strict=True)
    publish("demo_wall", walls, "s")
    publish("demo_peak_memory", peaks, "MiB")
    for figure, read in (("warm_query_5_silos", "every-request"), ("warm_query_5_silos_prepared", "prepared")):
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory)
            found_hospitals(path)
            for policy in path.glob("silos/*/policy.toml"):
                text = policy.read_text()
                policy.write_text(text.replace('kind = "parquet"', f'kind = "parquet"\nread = "{read}"'))
            with Federation.open(path / "consilo.toml") as federation:
                warm, bare = queries(federation)
        publish(figure, warm, "ms", f"bare Ray pattern of {STEPS} steps x {SILOS} actors", bare, "ratio 6")


def demo() -> tuple[float, float]:
    """Return the wall time of `consilo demo` and the summed peak memory of all its processes."""
    with tempfile.TemporaryDirectory() as directory:
        began = time.perf_counter()
        command = [str(Path(sys.executable).parent / "consilo"), "demo", "--out", f"{directory}/demo"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=False)
        peak = 0.0
        while process.poll() is None:
            peak = max(peak, sum(proportional_mib(pid) for pid in family(process.pid)))
            time.sleep(0.2)
        wall = time.perf_counter() - began
    if process.returncode:
        sys.exit("the demo failed")
    return wall, max(peak, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)


def family(root: int) -> set[int]:
    """Return the process and everything it started."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit():
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
    members = {root}
    while grown := {pid for pid, parent in parents.items() if parent in members} - members:
        members |= grown
    return members


def proportional_mib(pid: int) -> float:
    """Return the proportional set size of a process: shared pages are counted once over all processes."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0


def queries(federation: Federation) -> tuple[list[float], list[float]]:
    """Return milliseconds of warm questions and of the bare message pattern, measured in turn."""
    import ray

    class Echo:
        def answer(self, data: bytes) -> bytes:
            return data

    remote: Any = ray.remote(num_cpus=0)(Echo)
    actors = [remote.remote() for _ in range(SILOS)]
    payload = os.urandom(2000)
    ray.get([actor.answer.remote(payload) for actor in actors])
    warm, bare = [], []
    for index in range(QUERIES + 2):
        began = time.perf_counter()
        federation.query(QUESTION, purpose=PURPOSE, epsilon=0.5)
        middle = time.perf_counter()
        for _ in range(STEPS):
            ray.get([actor.answer.remote(payload) for actor in actors])
        ended = time.perf_counter()
        if index >= 2:
            warm.append((middle - began) * 1000)
            bare.append((ended - middle) * 1000)
    return warm, bare


if __name__ == "__main__":
    main()
