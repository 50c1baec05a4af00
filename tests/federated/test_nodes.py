"""A silo in its organisation's Ray cluster of two machines: TLS between them, and the actor beside its data."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from analyst.demo.hospitals import found_hospitals
from federation.operations.cluster import ensure_token, nodes_environment
from tests.harness.federated import provision
from tests.harness.namespaces import Network, network, obstacle
from tests.harness.node_certificates import write_node

pytestmark = [pytest.mark.netns, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(300)]
BIN = Path(sys.executable).parent
ROOT = Path(__file__).resolve().parents[2]
HEAD, DATA, OTHERS = "north1", "north2", "south"  # two machines of one organisation, and one of another
SILO = "aspen"


@dataclass
class Cluster:
    """Two nodes that are up, and the silo's directory, which is on the second."""

    net: Network
    path: Path

    @property
    def home(self) -> Path:
        return self.path / SILO

    @property
    def address(self) -> str:
        return f"{self.net.addresses[HEAD]}:6379"

    def environment(self, node: str) -> dict[str, str]:
        settings = nodes_environment(self.home / "ray.token", self.path / node, self.net.addresses[node])
        return {name: one for name, one in os.environ.items() if not name.startswith("RAY_")} | settings

    def ray(self, node: str, *arguments: str) -> None:
        command = [str(BIN / "ray"), "start", f"--node-ip-address={self.net.addresses[node]}", "--num-cpus=1"]
        command += ["--object-store-memory=100000000", "--disable-usage-stats", *arguments]
        done = self.net.run(node, *command, timeout_s=120, env=self.environment(node))
        assert done.returncode == 0, done.stdout + done.stderr

    def serve(self, node: str, *, certified: str = "", monitor_port: int = 0) -> "subprocess.Popen[str]":
        """Start `consilo-silo serve` on a node, with the certificate of that one or of another."""
        tls, address = self.path / (certified or node), self.net.addresses[node]
        command = [
            str(BIN / "consilo-silo"),
            "serve",
            "--policy",
            str(self.home / "policy.toml"),
            "--monitor-port",
            str(monitor_port),
        ]
        command += ["--ray", self.address, "--ray-tls", str(tls), "--node-address", address]
        pipe = subprocess.PIPE
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.Popen(self.net.command(node, *command), stdout=pipe, stderr=pipe, text=True, env=environment)

    def actors(self, node: str) -> list[int]:
        """Return the processes of silos' actors on a node."""
        found = []
        for process in self.net.processes(node):
            with suppress(OSError):
                if Path(f"/proc/{process}/cmdline").read_bytes().startswith(b"ray::FederatedSilo"):
                    found.append(process)
        return found

    def ask_ray(self, node: str, program: str, timeout_s: float = 60) -> str:
        start = f"import ray, logging\nray.init({self.address!r}, namespace='consilo', logging_level=logging.ERROR)\n"
        environment = self.environment(node) | {"PYTHONPATH": str(ROOT)}
        done = self.net.run(node, sys.executable, "-c", start + program, timeout_s=timeout_s, env=environment)
        return str(done.stdout) + str(done.stderr)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    reason = obstacle()
    if reason:
        pytest.skip(reason)
    path = tmp_path_factory.mktemp("nodes")
    found_hospitals(path / "demo")
    provision(path, path / "demo", silos=(SILO, "birch", "cedar"))
    with network((HEAD, DATA, OTHERS), (), {}) as net:
        made = Cluster(net, path)
        ensure_token(made.home / "ray.token")
        write_node(path / HEAD, net.addresses[HEAD])
        write_node(path / DATA, net.addresses[DATA], path / HEAD)
        write_node(path / OTHERS, net.addresses[OTHERS])
        temporary = Path(tempfile.mkdtemp(prefix="consilo-nodes-"))  # a socket's path has few characters to spare
        try:
            made.ray(HEAD, "--head", "--port=6379", "--include-dashboard=false", f"--temp-dir={temporary}")
            made.ray(DATA, f"--address={made.address}")
            yield made
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def test_the_actor_runs_on_the_node_that_has_its_directory(cluster: Cluster) -> None:
    for node in (DATA, HEAD):  # wherever it is served: the choice is not Ray's
        served = cluster.serve(node)
        try:
            assert served.stdout is not None
            line = served.stdout.readline()
            assert re.match(f"{SILO} is served; ", line), line + (served.stderr.read() if served.stderr else "")
            running = {one: cluster.actors(one) for one in (HEAD, DATA)}
            assert {one for one, actors in running.items() if actors} == {node}, running
        finally:
            served.terminate()
            served.communicate(timeout=60)
        assert served.returncode == 0


def test_an_actor_that_a_killed_process_left_is_not_used_again(cluster: Cluster) -> None:
    def start() -> "subprocess.Popen[str]":
        served = cluster.serve(DATA)
        assert served.stdout is not None
        assert "is served" in served.stdout.readline()
        return served

    killed = start()
    (left,) = cluster.actors(DATA)
    for process in cluster.net.processes(DATA):
        with suppress(OSError):
            if b"consilo-silo" in Path(f"/proc/{process}/cmdline").read_bytes():
                os.kill(process, signal.SIGKILL)
    killed.communicate(timeout=60)
    assert cluster.actors(DATA) == [left], "it is detached"
    served = start()
    try:
        (fresh,) = cluster.actors(DATA)
        assert fresh != left
    finally:
        served.terminate()
        served.communicate(timeout=60)


def test_a_second_serve_of_a_directory_is_refused_and_the_first_one_goes_on(cluster: Cluster) -> None:
    first = cluster.serve(DATA)
    try:
        assert first.stdout is not None
        assert "is served" in first.stdout.readline()
        actors = cluster.actors(DATA)
        second = cluster.serve(DATA)
        _, err = second.communicate(timeout=60)
        assert second.returncode == 1
        assert "this silo is served already" in err
        assert cluster.actors(DATA) == actors
        assert first.poll() is None
    finally:
        first.terminate()
        first.communicate(timeout=60)


def test_a_monitor_port_that_is_taken_leaves_no_actor(cluster: Cluster) -> None:
    program = (
        "import socket, time\ns = socket.create_server(('127.0.0.1', 9777))\nprint('up', flush=True)\ntime.sleep(60)"
    )
    holder = subprocess.Popen(
        cluster.net.command(DATA, sys.executable, "-c", program), stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "up\n"
        served = cluster.serve(DATA, monitor_port=9777)
        _, err = served.communicate(timeout=90)
        assert served.returncode == 1
        assert "cannot listen on 127.0.0.1:9777 for health and metrics" in err
        assert "Traceback" not in err
        assert cluster.actors(DATA) == []
    finally:
        holder.kill()
        holder.communicate(timeout=10)


def test_a_certificate_of_another_address_is_refused_before_ray_waits_for_ever(cluster: Cluster) -> None:
    began = time.monotonic()
    served = cluster.serve(DATA, certified=HEAD)
    _, err = served.communicate(timeout=60)
    assert served.returncode == 1
    assert cluster.net.addresses[DATA] in err
    assert "Traceback" not in err
    assert time.monotonic() - began < 30


def test_a_node_of_another_authority_does_not_get_in(cluster: Cluster) -> None:
    """Even one that has the token."""
    program = "print('entered', len(ray.nodes()))\n"
    try:
        said = cluster.ask_ray(OTHERS, program, timeout_s=20)
    except subprocess.TimeoutExpired as late:
        said = f"{late.stdout!r} {late.stderr!r}"
    assert "entered" not in said
    assert "entered 2" in cluster.ask_ray(HEAD, program), "with its own it does"
