"""What deploy/ starts runs as a container would let it: the commands, users and bounds of its files, without an image.

Each role has namespaces of its own for network, mounts and processes; a root file system that nobody can write to; as
much of /tmp and /dev/shm as the compose file gives, from which nothing can be executed; the image's user, without any
capability or the way to gain one. One silo is started as the Helm chart starts it, the others as the compose file does.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from analyst.demo.hospitals import found_hospitals
from tests.deploy.reading import CHART, ROOT, TOOLS, read
from tests.harness.federated import provision
from tests.harness.namespaces import Network, network, obstacle

pytestmark = [
    pytest.mark.netns,
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not TOOLS.is_dir(), reason="it takes two minutes: `make deploy-check` runs it"),
]
BIN = Path(sys.executable).parent
SILOS = ("aspen", "birch", "cedar")
BY_CHART = "aspen"
USER = "10001"
QUESTION = "SELECT sex, COUNT(*) AS n FROM lung GROUP BY sex"
CONTAINER = f"""
set -e
if test -n "$HIDDEN"; then  # Python itself is below a directory that only root enters
    mount --bind {sys.base_prefix} /mnt
    mount -t tmpfs -o mode=0755 none "$HIDDEN"
    install -d {sys.base_prefix}
    mount --move /mnt {sys.base_prefix}
fi
mount -t tmpfs -o mode=0755 none /home
{{ test -z "$INNER" || install -d -o {USER} -g {USER} "/home$INNER"; chown {USER}:{USER} /home; }}
mount --bind "$DIRECTORY" "/home$INNER"
mount -t tmpfs -o mode=0755 none /run
install -d /run/secrets
install -m 0444 "$SECRET" /run/secrets/databases
mount -t tmpfs -o "size=$SHARED,mode=1777,nosuid,nodev,noexec" none /dev/shm
mount -t tmpfs -o "size=$TEMPORARY,mode=1777,nosuid,nodev,noexec" none /tmp
mount -o remount,bind,ro /
cd /home
exec setpriv --reuid {USER} --regid {USER} --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all \\
    env -i HOME=/home "PATH={BIN}:/usr/bin:/bin" "PYTHONPATH={ROOT}" PYTHONDONTWRITEBYTECODE=1 "$@"
"""
INSIDE = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", CONTAINER, "sh"]


def hidden() -> str:
    """Return the first directory on the way to Python that others cannot enter; nothing if there is none."""
    for place in reversed(Path(sys.base_prefix).parents):
        if not place.stat().st_mode & 0o001:
            return str(place)
    return ""


def missing(place: Path) -> str:
    """Return why roles cannot be confined here; nothing if they can."""
    reason = obstacle()
    if reason:
        return reason
    given = settings(place, "", "1m", "1m")
    done = subprocess.run([*INSIDE, "python", "-c", "import grpc"], capture_output=True, text=True, env=given)
    return "" if done.returncode == 0 else f"no confined process here can read this: {done.stderr.strip()[-200:]}"


def settings(directory: Path, inner: str, shared: str, temporary: str) -> dict[str, str]:
    """Return what CONTAINER is told: the directory that is mounted below /home, and the sizes of two others."""
    return {
        "DIRECTORY": str(directory),
        "INNER": inner,
        "SECRET": str(directory.parent / "databases"),
        "SHARED": shared,
        "TEMPORARY": temporary,
        "HIDDEN": hidden(),
        "PATH": os.environ["PATH"],
    }


@dataclass
class Confined:
    """Roles that run, each in its container."""

    net: Network
    path: Path
    running: "dict[str, subprocess.Popen[bytes]]" = field(default_factory=dict)

    def start(self, name: str, words: list[str], service: Mapping[str, Any], inner: str = "") -> None:
        (mounted,) = service["tmpfs"]
        size = re.search(r"size=(\w+)", mounted)
        assert size is not None
        given = settings(self.path / name, inner, service["shm_size"], size[1])
        with (self.path / f"{name}.log").open("wb") as log:
            self.running[name] = subprocess.Popen(
                self.net.command(name, *INSIDE, *words), env=given, stdout=log, stderr=log
            )

    def log(self, name: str) -> str:
        return (self.path / f"{name}.log").read_text()[-3000:]

    def until(self, name: str, *command: str, seconds: float = 240) -> None:
        """Wait until a command at a role succeeds, as its health check or probe."""
        deadline = time.monotonic() + seconds
        while self.net.run(name, *command).returncode:
            assert self.running[name].poll() is None, self.log(name)
            assert time.monotonic() < deadline, self.log(name)
            time.sleep(1)

    def stop(self, name: str, grace: str) -> None:
        """Stop a role as Docker does; the test fails unless it ends well in time."""
        started = self.running.pop(name)
        (child,) = Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split()
        os.kill(int(child), signal.SIGTERM)
        assert started.wait(float(grace.removesuffix("s"))) == 0, self.log(name)
        assert f"{name} has stopped" in self.log(name)


def words_of(service: Mapping[str, Any]) -> list[str]:
    """Return what Docker starts: in a compose file, $$ is a dollar."""
    return [word.replace("$$", "$") for word in (*service.get("entrypoint", []), *service["command"])]


@pytest.fixture
def confined(tmp_path: Path) -> Iterator[Confined]:
    (tmp_path / "databases").write_text("HOSPITAL_DSN='host=db.example dbname=north'\n")
    (tmp_path / "empty").mkdir()
    if reason := missing(tmp_path / "empty"):
        pytest.skip(reason)
    found_hospitals(tmp_path / "demo")
    for policy in tmp_path.glob("demo/silos/*/policy.toml"):  # of three silos none may be missing
        policy.write_text(re.sub(r"^max_missing .*$", "max_missing = 0", policy.read_text(), flags=re.MULTILINE))
    provision(tmp_path, tmp_path / "demo", "hub.example:8443", SILOS)
    for name in ("hub", *SILOS):
        for place in (tmp_path / name, *(tmp_path / name).rglob("*")):
            os.chown(place, int(USER), int(USER))
    with network(("hub", *SILOS, "ana"), closed=(*SILOS, "ana"), hosts={"hub.example": "hub"}) as net:
        made = Confined(net, tmp_path)
        try:
            yield made
        finally:
            for one in made.running.values():
                one.kill()  # and with it all that it started
                one.wait(30)


def test_a_confined_federation_answers_and_stops(confined: Confined) -> None:
    services = read("compose.yaml")["services"]
    stops = {
        name: re.sub(r"^\$\{CONSILO_STOP:-(.*)\}$", r"\1", services[name]["stop_grace_period"]) for name in services
    }
    (by_chart,) = re.findall(
        r"command: (\[\"consilo-silo.*\])$", (CHART / "templates" / "statefulset.yaml").read_text(), re.MULTILINE
    )
    for name, service in services.items():
        if name == BY_CHART:
            confined.start(name, json.loads(by_chart), service, inner="/member")
        else:
            confined.start(name, words_of(service), service)
        program, *more = service["healthcheck"]["test"][1:]
        confined.until(name, shutil.which(program, path=str(BIN)) or program, *more)
    probes = f"http://{confined.net.addresses[BY_CHART]}:9466"
    for path in ("live", "ready"):
        confined.until(BY_CHART, "curl", "--silent", "--fail", f"{probes}/{path}", seconds=20)
    shown = confined.net.run(BY_CHART, "curl", "--silent", "--fail", f"{probes}/metrics").stdout
    assert "\nconsilo_ready 1.0\n" in shown
    command = [str(BIN / "consilo"), "query", QUESTION, "--federation", str(confined.path / "ana" / "consilo.toml")]
    asked = confined.net.run(
        "ana",
        *command,
        *("--purpose", "health-research", "--epsilon", "1"),
        timeout_s=180,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert asked.returncode == 0, asked.stdout + asked.stderr
    assert "female" in asked.stdout
    (process,) = [one for one in confined.net.processes("birch") if is_serving(one)]
    given = Path(f"/proc/{process}/environ").read_bytes()
    assert b"HOSPITAL_DSN=host=db.example dbname=north" in given, "from the mounted secret"
    for name in (*SILOS, "hub"):
        confined.stop(name, stops[name])
        left = [
            path for path in (confined.path / name).rglob("*") if path.stat().st_mode & 0o077 and "key" in path.name
        ]
        assert left == [], "keys are their owner's"


def is_serving(process: int) -> bool:
    words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    return len(words) > 1 and words[1].endswith(b"/consilo-silo")
