"""A federation between organisations for tests: provisioned by the commands' own functions, served on loopback.

Silos are real `FederatedSilo`s with signed policies behind real `Dialler`s, in this process and without Ray; the
aggregator is a real `Gate`.
"""

import asyncio
import re
import shutil
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from aggregator.home import read_home
from aggregator.link import Gate, StreamSilo
from aggregator.server import Server
from aggregator.store import HeadStore, ReportStore
from analyst.client import Federation
from analyst.federation import admit, found_federation, invite, opened
from analyst.joining import join
from crypto.certificates import Identity, Role, utc_now
from crypto.credentials import Credentials
from crypto.frames import WIRE
from crypto.keys import Secret, SigningKey, VerifyKey
from crypto.membership import Keeper
from policies.load import load
from policies.signatures import SUFFIX, signature, written
from silo_node.heads import Ask, Carrier
from silo_node.link import Dialler
from silo_node.serve import FederatedSilo
from tests.simulator import LocalSums

NAME = "consortium"
ANALYST, AGGREGATOR = "ana", "hub"
SILOS = ("aspen", "birch", "cedar", "maple", "rowan")
HEAD = """\
[policy]
id = "test"
version = 1
valid_from = 2026-01-01T00:00:00Z
valid_until = 2036-01-01T00:00:00Z
[silo]"""
T = TypeVar("T")


def provision(
    path: Path,
    founded: Path,
    address: str = "127.0.0.1:0",
    silos: tuple[str, ...] = SILOS,
    consortium: Path | None = None,
) -> Path:
    """Make every organisation's directory under `path`, each with its own keys; the data are those of `founded`."""
    found_federation(path / "authority", NAME, consortium, utc_now())
    add_member(path, AGGREGATOR, "aggregator", address)
    key = add_member(path, ANALYST, "analyst")
    for silo in silos:
        add_member(path, silo, "silo")
        furnish(path / silo, founded / "silos" / silo, key)
        put_in_force(path / silo)
    for name in (AGGREGATOR, ANALYST, *silos):
        shutil.copy(path / "authority" / "membership.log", path / name / "membership.log")
    return path


def furnish(home: Path, source: Path, analyst: VerifyKey) -> None:
    """Give a silo's directory the policy and the data of a demo's silo, open to this analyst."""
    for file in source.iterdir():
        if file.suffix in (".parquet", ".csv"):
            shutil.copy(file, home)
    policy = (source / "policy.toml").read_text()
    (home / "policy.toml").write_text(re.sub(r'(\[analysts\.[^]]+\]\s+key\s*=\s*)"[^"]*"', rf'\1"{analyst}"', policy))


def put_in_force(home: Path) -> None:
    """Make a trial policy one that its data protection officer has signed."""
    policy, key = home / "policy.toml", SigningKey(Secret(bytes(range(32))))
    text = re.sub(r'^mode .*"trial".*\n', "", policy.read_text(), flags=re.M)
    if "[policy]" not in text:
        text = text.replace("[silo]", HEAD, 1)
    text = re.sub(r"^version .*$", r'\g<0>\nsigned_by = { need = 1, of = ["dpo"] }', text, count=1, flags=re.M)
    policy.write_text(f'mode = "production"\n{text}[people.dpo]\nkey = "{key.public}"\n')
    signed = signature(load(policy), "dpo", key, int(time.time()))
    policy.with_name(policy.name + SUFFIX).write_text(written([signed]))


def add_member(path: Path, name: str, role: Role, address: str = "") -> VerifyKey:
    """Invite, join and admit one organisation; return its verification key."""
    now = utc_now()
    with opened(path / "authority" / "consilo.toml") as authority:
        invitation = invite(authority, name, role, 7, now)
    joined = join(invitation, path / name, address, now)
    assert joined.request is not None
    with opened(path / "authority" / "consilo.toml") as authority:
        admission, _ = admit(authority, joined.request, None, 30, now)
    join(admission, path / name, "", now)
    return joined.key


def credentials(path: Path, name: str, role: Role) -> Credentials:
    import tomllib

    settings = tomllib.loads((path / name / "member.toml").read_text())
    keeper = Keeper(NAME, VerifyKey.parse(settings["authority"]))
    return Credentials(path / name, keeper, Identity(NAME, role, name))


@dataclass
class Counted:
    """Counts of both ends, as the tests look at them."""

    events: list[tuple[str, object]] = field(default_factory=list)

    def refused(self, reason: str) -> None:
        self.events.append(("refused", reason))

    def connected(self, *what: object) -> None:
        self.events.append(("connected", what))

    def moved(self, *what: object) -> None:
        self.events.append(("moved", what))

    def dialled(self, outcome: str) -> None:
        self.events.append(("dialled", outcome))

    def answered(self, step: str) -> None:
        self.events.append(("answered", step))


class Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def do(self, coroutine: Coroutine[Any, Any, T], timeout_s: float = 60.0) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout_s)

    def close(self) -> None:
        async def cancel() -> None:
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self.do(cancel())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()


class LocalSilo:
    """A silo's process: its actor and its dialler; `seen` is every step that reached the actor."""

    def __init__(self, path: Path, name: str, runner: Loop, wire: tuple[int, ...] = WIRE) -> None:
        self.path, self.name, self._runner = path, name, runner
        kept = credentials(path, name, "silo")  # brings roster.signed up to date, which the actor reads
        self.actor = FederatedSilo(str(path / name / "policy.toml"), sleep=lambda _: None)
        assert self.actor.problem() is None, self.actor.problem()
        self.seen: list[str] = []
        self.before: Callable[[str], None] = lambda step: None
        self.counts = Counted()
        self._lock = threading.Lock()
        self.carrier, self.dialler = runner.do(self._wired(kept, wire))
        self.running = asyncio.run_coroutine_threadsafe(self._run(), runner.loop)

    async def _wired(self, kept: Credentials, wire: tuple[int, ...]) -> tuple[Carrier, Dialler]:
        ways: dict[str, Ask] = {}
        carrier = Carrier(self._call, ways, 0.05)
        dialler = Dialler(kept, AGGREGATOR, carrier.call, self.counts, self._renewed, wire, 0.05)
        ways[AGGREGATOR] = dialler.ask
        return carrier, dialler

    async def _run(self) -> None:
        await asyncio.gather(self.dialler.run(), self.carrier.compared())

    async def _call(self, step: str, *arguments: Any) -> Any:
        def work() -> Any:
            with self._lock:  # an actor answers one message at a time
                self.seen.append(step)
                self.before(step)
                return getattr(self.actor, step)(*arguments)

        return await asyncio.to_thread(work)

    async def _renewed(self) -> None:
        return None

    def stop(self) -> None:
        self.running.cancel()
        self.actor.close()


@dataclass
class Served:
    """A running federation."""

    path: Path
    runner: Loop
    gate: Gate
    port: int
    counts: Counted
    silos: dict[str, LocalSilo] = field(default_factory=dict)

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    def open(self) -> Federation:
        return Federation.open(self.path / ANALYST / "consilo.toml")

    def start_silo(self, name: str, wire: tuple[int, ...] = WIRE) -> LocalSilo:
        self.silos[name] = LocalSilo(self.path, name, self.runner, wire)
        return self.silos[name]

    def wait(self, names: tuple[str, ...], timeout_s: float = 20.0) -> None:
        """Wait until exactly these silos are connected."""
        until(lambda: tuple(self.gate.connected) == tuple(sorted(names)), timeout_s, lambda: str(self.gate.connected))


def until(is_so: Callable[[], bool], timeout_s: float = 20.0, what: Callable[[], str] = str) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, what()
        time.sleep(0.02)


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_gate(path: Path, counts: Counted, wire: tuple[int, ...] = WIRE) -> Gate:
    home, store = path / AGGREGATOR, ReportStore(path / AGGREGATOR / "reports")
    sums = LocalSums(home / "contributions")

    def server(silos: Mapping[str, StreamSilo]) -> Server:
        aggregator = read_home(home)
        heads = HeadStore(home / "heads", aggregator.federation, aggregator.silos)
        return Server(aggregator, silos, sums, store, heads=heads)

    return Gate(
        credentials(path, AGGREGATOR, "aggregator"),
        server,
        counts,
        wire,
    )


@contextmanager
def served(path: Path, port: int, silos: tuple[str, ...] = SILOS, wire: tuple[int, ...] = WIRE) -> Iterator[Served]:
    """Serve what `provision` made for that port."""
    runner, counts = Loop(), Counted()
    running = None
    try:

        async def begin() -> tuple[Gate, int]:
            gate = make_gate(path, counts, wire)
            return gate, await gate.start(f"127.0.0.1:{port}")

        gate, bound = runner.do(begin())
        running = Served(path, runner, gate, bound, counts)
        for silo in silos:
            running.start_silo(silo)
        running.wait(silos)
        yield running
    finally:
        if running is not None:
            for one in running.silos.values():
                one.stop()
            runner.do(running.gate.stop(1.0))
        runner.close()
