"""What lies in the current directory is no code, and what a killed program leaves is cleared by the next."""

import os
import signal
import subprocess
import sys
import time
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from analyst.demo.hospitals import PURPOSE, found_hospitals

BIN = Path(sys.executable).parent
PLANTED = "import os\nopen(os.environ['PLANTED'], 'a').write(__name__ + ' of ' + ' '.join(sys.orig_argv) + '\\n')\n"
# Programs of ours that run for long, for the time of one line.
CLUSTER = """
import sys, time
from federation.operations.cluster import cluster_environment, ensure_token
from federation.operations.ray_cluster import Cluster, adopt, connected, session_directory
from pathlib import Path
ensure_token(Path(sys.argv[1]))
adopt(cluster_environment(Path(sys.argv[1])), ())
with connected(Cluster("it did not start", "")):
    print(session_directory(), flush=True)
    time.sleep(float(sys.argv[2]))
"""


@pytest.mark.ray
@pytest.mark.process
@pytest.mark.timeout(300)
def test_a_file_with_the_name_of_a_library_is_not_run(tmp_path: Path) -> None:
    """A shared folder is the current directory of somebody who asks; one file for each library lies in it."""
    home, here, said = tmp_path / "federation", tmp_path / "here", tmp_path / "said"
    found_hospitals(home)
    here.mkdir()
    for name in (*packages_distributions(), *sys.stdlib_module_names):
        if name.isidentifier():
            (here / f"{name}.py").write_text(f"import sys\n{PLANTED}")
    environment = {**os.environ, "PLANTED": str(said)}

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, timeout=200)
        assert (done.returncode, said.exists()) == (0, False), said.read_text() if said.exists() else done.stderr
        return done.stdout

    policy, sql = str(home / "silos" / "aspen" / "policy.toml"), "SELECT COUNT(*) AS n FROM lung"
    ask = ("--purpose", PURPOSE, "--epsilon", "2")
    answered = run(
        str(BIN / "consilo"), "query", "--federation", str(home / "consilo.toml"), sql, *ask, "--backend", "bfv"
    )
    assert "answered" in answered, "it went through the actors, the computing processes and those of the backend"
    run(str(BIN / "consilo-silo"), "check-policy", policy, "--request", sql, "--analyst", "ana", *ask)
    run(str(BIN / "consilo"), "doctor", "--federation", str(home / "consilo.toml"))
    with pytest.raises(AssertionError, match="ray of "):
        run(sys.executable, "-c", "import ray")  # as this starts without -P


@pytest.mark.ray
@pytest.mark.process
@pytest.mark.timeout(200)
def test_the_next_start_ends_and_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    def start(lasts_s: int) -> "subprocess.Popen[str]":
        command = [sys.executable, "-P", "-c", CLUSTER, str(tmp_path / "token"), str(lasts_s)]
        return subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)

    with start(600) as killed:
        assert killed.stdout is not None
        session = Path(killed.stdout.readline().strip())
        killed.send_signal(signal.SIGKILL)
    assert session.is_dir()
    with start(0) as after:
        assert after.wait(120) == 0
    assert not session.exists()
    assert not session.parent.exists()
    deadline = time.monotonic() + 10
    while (left := processes_in(session)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []


def processes_in(directory: Path) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if os.fsencode(directory) in line:
            found.append(line.replace(b"\0", b" ").decode())
    return found
