"""Four organisations in network namespaces, one Ray head each: docs/federated.md, section 1, typed literally.

Silos stand behind firewalls that drop every inbound packet that they did not ask for.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.harness.namespaces import Network, network, obstacle

pytestmark = [pytest.mark.netns, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]
ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "federated.md"
BIN = Path(sys.executable).parent
SILOS = ("aspen", "birch", "cedar")
ORGANISATIONS = ("hub", *SILOS, "ana", "authority")
LOOPBACK = {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}
BLOCK_S = 180


def blocks() -> list[tuple[str, str]]:
    """Return the commands of section 1 in order, with the organisation at which they are typed."""
    section = PAGE.read_text().split("\n## ")[1]
    assert section.startswith("1. Run it between three organisations")
    found = re.findall(r"```sh\n# at (?:the )?(\w+)\n(.*?)```", section, re.DOTALL)
    assert len(found) == section.count("```sh"), "every block says where it is typed"
    return found


@dataclass
class Walk:
    """The page as far as it was followed."""

    net: Network
    path: Path
    outputs: list[tuple[str, str]] = field(default_factory=list)

    def type(self, organisation: str, commands: str) -> str:
        """Run a block as typed at a shell; a command that fails ends it."""
        home = self.path / organisation
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "CONSILO_"))},
            "POST": str(self.path / "post"),
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "COLUMNS": "80",
        }
        output = home / "output"
        with output.open("w") as file:  # not a pipe, which what runs on in the background would hold open
            done = subprocess.run(
                self.net.command(organisation, "bash", "-e", "-o", "pipefail", "-c", commands),
                cwd=home,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                timeout=BLOCK_S,
            )
        said = output.read_text()
        if done.returncode:
            logs = [
                log
                for one in ORGANISATIONS
                for log in self.path.glob(f"{one}/**/*.log")
                if log.stem in ("serve", "silo")
            ]
            tails = "".join(f"{log.relative_to(self.path)}:\n{log.read_text()[-2000:]}\n" for log in logs)
            raise AssertionError(f"{organisation}: {commands}\n{said}\n{tails}")
        self.outputs.append((organisation, said))
        return said


@pytest.fixture(scope="module")
def walk(founded: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walk]:
    """The page followed until the analyst has asked; everything runs until the module's tests are through."""
    if reason := obstacle():
        pytest.skip(reason)
    path = tmp_path_factory.mktemp("walk")
    (path / "post").mkdir()
    for organisation in ORGANISATIONS:
        (path / organisation).mkdir()
    for silo in SILOS:
        shutil.copytree(founded / "silos" / silo, path / silo / "demo" / "silos" / silo)
    with network(ORGANISATIONS, closed=(*SILOS, "ana"), hosts={"hub.example": "hub"}) as net:
        walk = Walk(net, path)
        for organisation, commands in blocks():
            if commands.startswith("kill "):
                continue  # typed by the last test
            began = time.monotonic()
            walk.type(organisation, commands)
            print(f"{organisation}: {time.monotonic() - began:.1f} s")
        yield walk


QUERY = (
    'consilo query "SELECT sex, COUNT(*) AS n FROM lung GROUP BY sex"'
    " --federation ana/consilo.toml --purpose health-research --epsilon 1"
)


def test_the_page_ends_with_an_opened_report(walk: Walk) -> None:
    organisation, said = walk.outputs[-1]
    assert organisation == "ana"
    assert "answered: aspen, birch, cedar" in said
    assert re.search(r"female │ +\d+ \(\d+ to \d+\)", said)
    listed = [line.split("│")[1].strip() for line in said.splitlines() if line.startswith("│")]
    assert [name for name in listed if name in SILOS] == list(SILOS), "consilo silos names them"


def test_no_packet_enters_a_silo_that_it_did_not_ask_for(walk: Walk) -> None:
    """Even where something listens: the firewall drops what comes from the aggregator."""
    program = "import socket; s = socket.create_server(('0.0.0.0', 9999)); s.accept()"
    listener = subprocess.Popen(walk.net.command("aspen", sys.executable, "-c", program))
    try:
        deadline = time.monotonic() + 10
        while ("00000000", 9999) not in walk.net.listeners("aspen"):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        probe = f"import socket; socket.create_connection(({walk.net.addresses['aspen']!r}, 9999), timeout=2)"
        tried = walk.net.run("hub", sys.executable, "-c", probe)
        assert "TimeoutError" in tried.stderr
        probe = f"import socket; socket.create_connection(({walk.net.addresses['hub']!r}, 8443), timeout=5)"
        assert walk.net.run("aspen", sys.executable, "-c", probe).returncode == 0, "the way out is open"
    finally:
        listener.kill()
        listener.wait(10)


def test_nothing_listens_beyond_loopback_but_the_aggregators_port(walk: Walk) -> None:
    for silo in SILOS:
        listening = walk.net.listeners(silo)
        assert listening, "Ray listens"
        assert {address for address, _ in listening} <= LOOPBACK, silo
    beyond = {(address, port) for address, port in walk.net.listeners("hub") if address not in LOOPBACK}
    assert {port for _, port in beyond} == {8443}


def gcs_address(walk: Walk, organisation: str) -> str:
    for process in walk.net.processes(organisation):
        try:
            line = Path(f"/proc/{process}/cmdline").read_bytes()
        except OSError:
            continue
        if found := re.search(rb"--gcs-address=([0-9.:]+)", line):
            return found[1].decode()
    raise AssertionError("Ray runs there")


@pytest.mark.parametrize("whose", ["nobody", "birch", "aspen"])
def test_a_foreign_token_does_not_open_a_silos_cluster(walk: Walk, whose: str, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("0" * 64 if whose == "nobody" else (walk.path / whose / whose / "ray.token").read_text())
    token.chmod(0o600)
    program = (
        "import ray, logging\n"
        f"ray.init(address={gcs_address(walk, 'aspen')!r}, namespace='consilo', logging_level=logging.ERROR)\n"
        "print('entered', ray.get_actor('silo/aspen', namespace='consilo'))\n"
    )
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_gcs_rpc_server_reconnect_timeout_s": "5",
        "PYTHONPATH": str(ROOT),
    }
    try:
        tried = walk.net.run("aspen", sys.executable, "-c", program, timeout_s=60, env=environment)
        out, err = tried.stdout, tried.stderr
    except subprocess.TimeoutExpired as late:
        out, err = str(late.stdout), str(late.stderr)
    assert ("entered" in out) == (whose == "aspen"), out + err
    if whose != "aspen":
        assert "InvalidAuthToken" in err or "Unauthenticated" in err or "AuthenticationError" in err, err


def test_the_token_and_the_keys_are_for_their_owner_only(walk: Walk) -> None:
    for organisation in (*SILOS, "hub"):
        home = walk.path / organisation / organisation
        for name in ("ray.token", "identity.key", "transport.key"):
            assert (home / name).stat().st_mode & 0o777 == 0o600, name
    tokens = {(walk.path / who / who / "ray.token").read_text() for who in (*SILOS, "hub")}
    assert len(tokens) == 4


def test_no_private_key_left_its_organisation(walk: Walk) -> None:
    """What was posted, and what any other organisation holds, contains no other's private key."""
    for owner in (*SILOS, "hub", "ana"):
        home = walk.path / owner / owner
        lines = (home / "transport.key").read_bytes().splitlines()[1:-1]
        secrets = [(home / "identity.key").read_text().split()[1].encode(), *(line for line in lines if len(line) > 40)]
        others = [
            file for file in walk.path.rglob("*") if file.is_file() and not file.is_relative_to(walk.path / owner)
        ]
        for file in others:
            data = file.read_bytes()
            assert not any(secret in data for secret in secrets), (owner, file)


def actors_of(walk: Walk, organisation: str) -> list[int]:
    """Return the processes of a silo's actor, once there is one."""
    deadline = time.monotonic() + 60
    while True:
        titles = {}
        for process in walk.net.processes(organisation):
            with suppress(OSError):
                titles[process] = Path(f"/proc/{process}/cmdline").read_bytes()
        found = [process for process, title in titles.items() if title.startswith(b"ray::FederatedSilo")]
        if found:
            return found
        assert time.monotonic() < deadline, titles
        time.sleep(0.2)


def test_a_silos_actor_that_dies_is_restarted_and_answers_again(walk: Walk) -> None:
    (actor,) = actors_of(walk, "birch")
    os.kill(actor, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while True:
        try:
            assert "answered: aspen, birch, cedar" in walk.type("ana", QUERY)
            return
        except AssertionError:
            assert time.monotonic() < deadline
            time.sleep(1)


STOP = 'pid="$(cat cedar/serve.pid)"; kill "$pid"; while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done\n'
SERVE = "consilo-silo serve --policy cedar/policy.toml"
START = f"{SERVE} --wait\n"


def test_a_silo_with_a_ledger_put_back_from_a_backup_does_not_serve(walk: Walk) -> None:
    walk.type("cedar", f"{STOP}mkdir older newest\ncp cedar/ledger.sqlite* older\n{START}")
    assert "answered: aspen, birch, cedar" in walk.type("ana", QUERY)
    walk.type("cedar", f"{STOP}mv cedar/ledger.sqlite* newest\ncp older/* cedar")
    said = walk.type("cedar", f"if timeout 120 {SERVE}; then exit 1; else echo ended with $?; fi")
    assert "consilo-silo: error: the ledger" in said
    assert "is older than its last checkpoint" in said
    assert "consilo-silo: hint: put the newest ledger back" in said
    assert said.endswith("ended with 1\n")
    walk.type("cedar", f"rm cedar/ledger.sqlite*\nmv newest/* cedar\n{START}")
    assert "answered: aspen, birch, cedar" in walk.type("ana", QUERY)


def test_health_and_metrics_hold_nothing_that_depends_on_data(walk: Walk) -> None:
    health = walk.net.run("aspen", "curl", "-s", "http://127.0.0.1:9465/health").stdout
    assert '"ok": true' in health
    for who, port in (("aspen", 9465), ("hub", 9464)):
        metrics = walk.net.run(who, "curl", "-s", f"http://127.0.0.1:{port}/metrics").stdout
        names = {line.split("{")[0].split(" ")[0] for line in metrics.splitlines() if not line.startswith("#")}
        assert names <= {
            "consilo_ready",
            "consilo_refused_total",
            "consilo_streams",
            "consilo_stream_bytes_total",
            "consilo_membership_version",
            "consilo_certificate_days_left",
            "consilo_connected",
            "consilo_dialled_total",
            "consilo_steps_total",
            "consilo_rounds_total",
            "consilo_round_seconds_bucket",
            "consilo_round_seconds_count",
            "consilo_round_seconds_sum",
            "consilo_denials_total",
            "consilo_requests_total",
            "consilo_request_seconds_bucket",
            "consilo_request_seconds_count",
            "consilo_request_seconds_sum",
            "consilo_silo_outcomes_total",
        }
    assert walk.net.run("hub", "curl", "-s", "-m", "2", f"http://{walk.net.addresses['aspen']}:9465/health").returncode


def test_logs_hold_no_value_and_no_row(walk: Walk) -> None:
    for organisation in (*SILOS, "hub"):
        text = (walk.path / organisation / organisation / "serve.log").read_text()
        assert "NCCTG" not in text
        assert "female" not in text
        assert "SELECT" not in text


def test_the_page_stops_what_it_started(walk: Walk) -> None:
    stops = [(who, commands) for who, commands in blocks() if commands.startswith("kill ")]
    assert [who for who, _ in stops] == [*SILOS, "hub"]
    for organisation, commands in stops:
        walk.type(organisation, commands)
    deadline = time.monotonic() + 60
    while left := {who: walk.net.processes(who) for who in (*SILOS, "hub") if walk.net.processes(who)}:
        assert time.monotonic() < deadline, left
        time.sleep(0.2)
    assert '"event": "stopped"' in (walk.path / "hub" / "hub" / "serve.log").read_text()
