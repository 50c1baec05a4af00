"""Organisations in network namespaces of their own, joined by a bridge in one more; the machine's own is not touched.

A namespace stands for an organisation's machine: its own loopback, one address, and for silos a firewall that drops
whatever was not asked for from inside.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

FIREWALL = """
table inet consilo {
    chain input {
        type filter hook input priority 0; policy drop;
        iif "lo" accept
        ct state established,related accept
    }
}
"""


def obstacle() -> str:
    """Return why namespaces cannot be made here; nothing if they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for tool in ("ip", "nft", "curl"):
        if shutil.which(tool) is None:
            return f"there is no {tool}"
    name = f"consilo-probe-{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode:
        return "network namespaces are not allowed here"
    try:
        tried = subprocess.run(
            ["ip", "netns", "exec", name, "nft", "-f", "-"], input=FIREWALL, text=True, capture_output=True
        )
        return "" if tried.returncode == 0 else f"nft does not work here: {tried.stderr.strip()[:100]}"
    finally:
        subprocess.run(["ip", "netns", "del", name], capture_output=True)


@dataclass
class Network:
    """Namespaces by organisation."""

    prefix: str
    addresses: dict[str, str] = field(default_factory=dict)

    def name(self, organisation: str) -> str:
        return f"{self.prefix}-{organisation}"

    def command(self, organisation: str, *command: str) -> list[str]:
        return ["ip", "netns", "exec", self.name(organisation), *command]

    def run(
        self, organisation: str, *command: str, timeout_s: float = 60, **options: object
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(  # type: ignore[call-overload, no-any-return]
            self.command(organisation, *command), text=True, capture_output=True, timeout=timeout_s, **options
        )

    def processes(self, organisation: str) -> list[int]:
        """Return the processes that run in a namespace."""
        listed = subprocess.run(
            ["ip", "netns", "pids", self.name(organisation)], text=True, capture_output=True, timeout=10
        )
        return [int(line) for line in listed.stdout.split()]

    def listeners(self, organisation: str) -> set[tuple[str, int]]:
        """Return the address, as the kernel writes it, and port of every socket that listens in a namespace."""
        found = set()
        for table in ("tcp", "tcp6"):
            for line in self.run(organisation, "cat", f"/proc/net/{table}").stdout.splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A":
                    address, port = fields[1].split(":")
                    found.add((address, int(port, 16)))
        return found


@contextmanager
def network(organisations: tuple[str, ...], closed: tuple[str, ...], hosts: dict[str, str]) -> Iterator[Network]:
    """Make the namespaces, `closed` ones behind a firewall, and a hosts file from name to organisation; undo it all."""
    made = Network(f"cs{os.getpid()}")
    switch = made.name("switch")

    def ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=20)

    try:
        ip("netns", "add", switch)
        ip("-n", switch, "link", "add", "br0", "type", "bridge")
        ip("-n", switch, "link", "set", "br0", "up")
        for index, organisation in enumerate(organisations, start=1):
            name, far = made.name(organisation), f"v{index}"
            ip("netns", "add", name)
            ip("-n", name, "link", "add", "e0", "type", "veth", "peer", "name", far, "netns", switch)
            ip("-n", switch, "link", "set", far, "master", "br0", "up")
            made.addresses[organisation] = f"10.77.0.{index}"
            ip("-n", name, "addr", "add", f"10.77.0.{index}/24", "dev", "e0")
            ip("-n", name, "link", "set", "e0", "up")
            ip("-n", name, "link", "set", "lo", "up")
        lines = "127.0.0.1 localhost\n" + "".join(f"{made.addresses[who]} {host}\n" for host, who in hosts.items())
        for organisation in organisations:
            place = Path("/etc/netns") / made.name(organisation)  # what `ip netns exec` shows as /etc
            place.mkdir(parents=True)
            (place / "hosts").write_text(lines)
        for organisation in closed:
            done = made.run(organisation, "nft", "-f", "-", input=FIREWALL)
            assert done.returncode == 0, done.stderr
        yield made
    finally:
        for organisation in (*organisations, "switch"):
            end_all(made, organisation)
            subprocess.run(["ip", "netns", "del", made.name(organisation)], capture_output=True)
            shutil.rmtree(Path("/etc/netns") / made.name(organisation), ignore_errors=True)


def end_all(made: Network, organisation: str) -> None:
    """End every process of a namespace: nothing but what these tests started runs there."""
    for number, wait_s in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        for process in made.processes(organisation):
            with suppress(ProcessLookupError):
                os.kill(process, number)
        deadline = time.monotonic() + wait_s
        while made.processes(organisation) and time.monotonic() < deadline:
            time.sleep(0.1)
