"""The shells on a real Ray cluster: answers, killed actors, broken starts, and the commands as processes."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from analyst.client import Federation
from analyst.demo.hospitals import PURPOSE, found_hospitals
from federation.errors import FederationError
from federation.operations.private import why_open
from federation.operations.ray_cluster import session_directory
from policies.units import MICRO
from silo_node.ledger.store import LedgerStore
from tests.silo_node.test_home import install

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
QUESTION = "SELECT sex, COUNT(*) AS n, AVG(age) AS mean_age FROM lung GROUP BY sex"
BIN = Path(sys.executable).parent
TIMEOUT_S = 300
# 127.0.0.1, ::1 and ::ffff:127.0.0.1, as the kernel writes them
LOOPBACK = {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}


@pytest.fixture(scope="module")
def on_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """A federation of Ray actors, started once for these tests, and ended before another file starts its own."""
    path = tmp_path_factory.mktemp("ray") / "federation"
    found_hospitals(path)
    with Federation.open(path / "consilo.toml") as federation:
        yield federation


def spent(federation: Federation, silo: str) -> float:
    store = LedgerStore(federation.config.policies[silo].parent / "ledger.sqlite")
    try:
        return store.spending().lifetime / MICRO
    finally:
        store.close()


def actor(silo: str) -> Any:
    import ray

    return ray.get_actor(f"silo/{silo}", namespace="consilo")


def wait_until_back(silo: str) -> None:
    import ray

    deadline = time.monotonic() + 60
    while True:
        try:
            assert ray.get(actor(silo).problem.remote(), timeout=30) is None
            return
        except ray.exceptions.RayActorError:
            assert time.monotonic() < deadline
            time.sleep(0.2)


def test_a_question_is_answered_by_five_actors(on_ray: Federation) -> None:
    before = spent(on_ray, "aspen")
    report = on_ray.query(QUESTION, purpose=PURPOSE, epsilon=2)  # so that noise hides the empty group surely
    assert {outcome.status for outcome in report.silos.values()} == {"answered"}
    assert [row["sex"] for row in report.rows] == ["female", "male"]
    assert spent(on_ray, "aspen") - before == pytest.approx(report.rho)
    where = on_ray.aggregators.find(bytes.fromhex(report.request))
    assert (where.state, where.report.hex()) == ("kept", report.transcript)


@pytest.mark.parametrize("delay_s", [0.0, 0.03, 0.06, 0.09])
def test_a_hospital_killed_while_a_question_runs_is_a_drop_out_and_comes_back(
    on_ray: Federation, delay_s: float
) -> None:
    import ray

    before = spent(on_ray, "rowan")
    victim = actor("rowan")
    timer = threading.Timer(delay_s, lambda: ray.kill(victim, no_restart=False))
    timer.start()
    report = on_ray.query(QUESTION, purpose=PURPOSE, epsilon=0.5)
    timer.join()
    assert report.silos["rowan"].status in ("answered", "dropped", "missing")
    assert [report.silos[silo].status for silo in ("aspen", "birch", "cedar", "maple")] == ["answered"] * 4
    wait_until_back("rowan")
    assert spent(on_ray, "rowan") - before <= report.rho + 1e-9, "never twice for one question"
    again = on_ray.query(QUESTION, purpose=PURPOSE, epsilon=0.5)
    assert again.silos["rowan"].status == "answered"


def test_nothing_in_the_cluster_listens_beyond_loopback(on_ray: Federation) -> None:
    """Every listening TCP socket of Ray's processes is bound to 127.0.0.1."""
    mine = listening_sockets({int(entry.name) for entry in Path("/proc").iterdir() if is_ray(entry)})
    assert mine, "Ray listens somewhere"
    assert {address for address, _ in mine} <= LOOPBACK


def test_another_user_of_the_machine_comes_to_nothing_of_the_cluster(on_ray: Federation) -> None:
    """Ray opens its directory to all: whoever could enter it could put a link in the place of a log, and a key behind.

    The shared memory of the object store has no name.
    """
    session = session_directory()
    assert session is not None
    outer = session.parent
    assert (session.stat().st_mode & 0o777, outer.stat().st_mode & 0o777) == (0o777, 0o700), "Ray's own, and ours"
    assert why_open(session) is None
    cluster = [entry for entry in Path("/proc").iterdir() if is_ray(entry, outer)]
    assert len(cluster) >= 3
    for entry in cluster:
        assert "Umask:\t0077" in (entry / "status").read_text(), (entry / "cmdline").read_bytes()
        assert b"PYTHONSAFEPATH=1" in (entry / "environ").read_bytes()
    assert not list(Path("/dev/shm").glob("*plasma*"))  # noqa: S108
    if os.geteuid() == 0:
        seen = subprocess.run(["ls", session], user=65534, group=65534, extra_groups=[], capture_output=True)
        assert seen.returncode
        assert b"Permission denied" in seen.stderr


def is_ray(entry: Path, outer: Path = Path("/consilo-")) -> bool:
    try:
        return entry.name.isdigit() and os.fsencode(outer) in (entry / "cmdline").read_bytes()
    except OSError:
        return False


def listening_sockets(processes: set[int]) -> set[tuple[str, int]]:
    inodes = set()
    for process in processes:
        for handle in Path(f"/proc/{process}/fd").glob("*"):
            try:
                target = os.readlink(handle)
            except OSError:
                continue
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                address, port = fields[1].split(":")
                found.add((address, int(port, 16)))
    return found


def run(*command: str, home: Path, timeout_s: int = TIMEOUT_S) -> "subprocess.CompletedProcess[str]":
    # As in a user's shell: nothing of what this process set for its own cluster.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "CONSILO_"))}
    environment["COLUMNS"] = "80"
    return subprocess.run(
        [str(BIN / command[0]), *command[1:]],
        cwd=home,
        env=environment,
        text=True,
        capture_output=True,
        timeout=timeout_s,
    )


def processes_about(path: Path) -> list[bytes]:
    """Return the command lines of processes that name `path` or a cluster of ours other than the session's."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and str(path).encode() in (line := (entry / "cmdline").read_bytes()):
                found.append(line)
        except OSError:
            continue
    return found


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory for what commands put into temporary files; short, since Ray's socket paths are limited."""
    path = Path(tempfile.mkdtemp(prefix="c"))
    monkeypatch.setenv("TMPDIR", str(path))
    yield path
    shutil.rmtree(path)


def normal(text: str) -> str:
    """Return a transcript without what differs from run to run: figures, hashes, widths."""
    text = re.sub(r"[0-9a-f]{8,}", "#", text)
    text = re.sub(r"-?\d[\d,]*(\.\d+)?", "0", text)
    text = re.sub(r"[━─]+", "-", text)
    return "\n".join(re.sub(r" +", " ", line).rstrip() for line in text.strip().splitlines())


def test_the_demo_tells_its_story_as_the_docs_do_and_leaves_a_federation(tmp_path: Path, temporary: Path) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "demo.md").read_text()
    transcript = re.search(r"```text\n\$ consilo demo\n(.*?)```", page, re.DOTALL)
    assert transcript is not None
    began = time.monotonic()
    done = run("consilo", "demo", home=tmp_path)
    print(f"demo: {time.monotonic() - began:.1f} s")
    assert done.returncode == 0, done.stderr
    assert normal(done.stdout) == normal(transcript[1])
    assert len(done.stdout.splitlines()) <= 100, "three screens"
    assert "Ray" not in done.stderr
    assert not list(temporary.iterdir()), "the cluster's files are gone"
    assert not processes_about(tmp_path), "no process is left behind"
    assert [file.name for file in tmp_path.iterdir()] == ["consilo-demo"]
    typed = done.stdout.split("Next, type\n")[1].replace("\\\n", "").splitlines()
    assert [command.split()[:2] for command in typed[:4]] == [
        ["consilo", "up"],
        ["consilo", "query"],
        ["consilo", "train"],
        ["consilo", "down"],
    ]
    for command in typed:
        again = run(*shlex.split(command), home=tmp_path)
        assert again.returncode == 0, (command, again.stderr)
    assert "is not in: withdrawn" in run(*shlex.split(typed[4]), home=tmp_path).stdout
    assert not processes_about(tmp_path)
    refused = run("consilo", "demo", "--out", ".", home=tmp_path)
    assert refused.returncode == 1
    assert "is no earlier demo" in refused.stderr


def test_up_keeps_a_federation_that_queries_use_and_down_ends_it(home: Path, temporary: Path) -> None:
    federation = ("--federation", str(home / "consilo.toml"))
    assert run("consilo", "up", *federation, home=home).returncode == 0
    try:
        assert "is up already" in run("consilo", "up", *federation, home=home).stderr
        began = time.monotonic()
        first = run("consilo", "query", "SELECT COUNT(*) AS n FROM lung", *federation,
                    "--purpose", PURPOSE, "--epsilon", "1", "--format", "json", home=home)  # fmt: skip
        print(f"query against a running federation: {time.monotonic() - began:.1f} s")
        assert first.returncode == 0, first.stderr
        assert '"status": "answered"' in first.stdout
        assert "aspen" in run("consilo", "silos", *federation, home=home).stdout
    finally:
        stopped = run("consilo", "down", *federation, home=home)
    assert stopped.stdout == "consilo-demo is stopped\n"
    assert not list(temporary.iterdir())
    assert not processes_about(home)


def test_a_broken_data_file_stops_the_start_with_one_line_for_its_owner(home: Path) -> None:
    (home / "silos" / "maple" / "lung.parquet").unlink()
    policy = home / "silos" / "rowan" / "policy.toml"
    policy.write_text(policy.read_text().replace("min_cohort", "min_cohrt"))
    done = run("consilo", "query", "SELECT COUNT(*) AS n FROM lung", "--federation", str(home / "consilo.toml"),
               "--purpose", PURPOSE, "--epsilon", "1", home=home)  # fmt: skip
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert len(lines) == 2, done.stderr
    assert lines[0].startswith("consilo: error: silo 'rowan' did not start: ")
    assert "found 'min_cohrt'; did you mean 'min_cohort'" in lines[0]
    assert "silo 'maple' did not start: source 'lung': the file lung.parquet is missing" in lines[0]
    assert lines[1].startswith("consilo: hint: ")
    assert not processes_about(home)


def test_simulate_mode_refuses_a_production_policy(home: Path) -> None:
    install(home / "silos" / "maple", 1)  # signed, as production asks for
    done = run("consilo", "silos", "--federation", str(home / "consilo.toml"), home=home)
    assert done.returncode == 1
    assert 'says mode = "production", and simulate mode is one trust domain' in done.stderr


def test_federations_one_after_another_in_a_process_that_imported_ray_first(tmp_path: Path) -> None:
    program = f"""
import ray
from pathlib import Path
from analyst.client import Federation
from analyst.demo.hospitals import found_hospitals
for name in ("a", "b"):
    path = Path({str(tmp_path)!r}) / name
    found_hospitals(path)
    with Federation.open(path / "consilo.toml") as federation:
        report = federation.query("SELECT COUNT(*) AS n FROM lung", purpose="health-research", epsilon=1)
        print(name, len(report.silos))
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, text=True, capture_output=True, timeout=TIMEOUT_S
    )
    assert done.stdout == "a 5\nb 5\n", done.stderr


def test_a_second_federation_in_one_process_is_refused(on_ray: Federation, home: Path) -> None:
    with pytest.raises(FederationError):
        Federation.open(home / "consilo.toml")
    assert on_ray.query("SELECT COUNT(*) AS n FROM lung", purpose=PURPOSE, epsilon=0.2).rows
