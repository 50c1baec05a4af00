"""A federation between organisations for tests: provisioned by the commands' own functions, served on loopback.

Silos are real `FederatedSilo`s with signed policies behind real `Dialler`s, in this process and without Ray; the
aggregator is a real `Gate`.
"""

import asyncio
import re
import shutil
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import grpc
import grpc.aio

from aggregator.driver import Server
from aggregator.gate import Gate
from aggregator.home import read_home
from aggregator.recovery import end_left_rounds
from aggregator.round_journal import RoundJournal
from aggregator.store import CheckpointStore, ReportStore
from aggregator.streams import StreamSilo
from analyst.client import Federation
from crypto.errors import LinkError
from crypto.keys import Secret, SigningKey, VerifyKey, read_key_file
from federation.authority import admit, found_federation, invite, opened
from federation.joining import join
from federation.members.certificates import Identity, Role, host_of, pin_of, read_transport_key, utc_now
from federation.members.credentials import Credentials
from federation.members.membership import TrustAnchor
from federation.transport.frames import WIRE
from federation.transport.handshake import OPTIONS
from federation.transport.session import Session
from policies.document.load import load
from policies.document.signatures import SUFFIX, signature, written
from silo_node.home import federation_of, read_credentials
from silo_node.serve import FederatedSilo
from silo_node.transport.checkpoint_relay import CheckpointRelay
from silo_node.transport.dialler import Dialler
from silo_node.transport.streams import Streams
from tests.harness.inside import handle_of, membership_of, session_of
from tests.harness.shards import LocalSums
from tests.harness.waiting import until

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
    address: str = "127.0.0.1:8443",
    silos: tuple[str, ...] = SILOS,
    consortium: Path | None = None,
) -> Path:
    """Make every organisation's directory under `path`, each with its own keys; the data are those of `founded`."""
    found_federation(path / "authority", NAME, consortium, utc_now())
    add_member(path, AGGREGATOR, "aggregator", address)
    add_member(path, ANALYST, "analyst")
    for silo in silos:
        add_silo(path, founded, silo)
    for name in (AGGREGATOR, ANALYST, *silos):
        give_membership(path, name)
    return path


def add_silo(path: Path, founded: Path, silo: str) -> None:
    """Invite, join and admit one silo, with the data of `founded` and a policy that names the analyst's key."""
    add_member(path, silo, "silo")
    furnish(path / silo, founded / "silos" / silo, SigningKey(read_key_file(path / ANALYST / "identity.key")).public)
    put_in_force(path / silo)


def give_membership(path: Path, name: str) -> None:
    """Put the authority's newest membership into a member's directory, as its operator does."""
    shutil.copy(path / "authority" / "membership.log", path / name / "membership.log")


def furnish(home: Path, source: Path, analyst: VerifyKey) -> None:
    """Give a silo's directory the policy and the data of a demo's silo, open to this analyst."""
    for file in source.iterdir():
        if file.suffix in (".parquet", ".csv", ".txt"):
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
    compute = "" if "[compute]" in text else "[compute]\nfixed_seconds = 5\n"  # LocalSilo does not wait for it
    policy.write_text(f'mode = "production"\n{text}{compute}[people.dpo]\nkey = "{key.public}"\n')
    signed = signature(load(policy), federation_of(home), "dpo", key, int(time.time()))
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
    anchor = TrustAnchor(NAME, VerifyKey.parse(settings["authority"]))
    return Credentials(path / name, anchor, Identity(NAME, role, name))


@dataclass
class Counted:
    """Counts of both ends, as the tests look at them."""

    events: list[tuple[str, object]] = field(default_factory=list)

    def ended(self, outcome: str, seconds: float, codes: tuple[str, ...] = (), /) -> None:
        self.events.append(("ended", (outcome, codes)))

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
    """A silo's process: its actor and its streams; `seen` is every step of an actor, `starts` counts actors."""

    def __init__(
        self,
        path: Path,
        name: str,
        runner: Loop,
        wire: tuple[int, ...] = WIRE,
        sleep: Callable[[float], None] = lambda _: None,
        silos: int | None = None,
    ) -> None:
        """`sleep` is how it waits for a tick; with `silos` it computes in a process of its own."""
        self.path, self.name, self._runner = path, name, runner
        self._sleep, self._silos = sleep, silos
        kept = read_credentials(path / name, name)  # brings roster.signed up to date, which the actor reads
        self.starts = 0
        self.actor = self._start()
        self.seen: list[str] = []
        self.before: Callable[[str], None] = lambda step: None
        self.after: Callable[[str], None] = lambda step: None
        self.counts = Counted()
        self._lock = threading.Lock()
        self._is_stopped = False

        async def dial() -> Streams:
            return Streams(kept, self._call, self._restart, self.counts, wire, 0.05)

        self.streams = runner.do(dial())

    @property
    def relay(self) -> CheckpointRelay:
        return self.streams.relay

    @property
    def dialler(self) -> Dialler:
        return self.streams.diallers[AGGREGATOR]

    def _start(self) -> FederatedSilo:
        actor = FederatedSilo(str(self.path / self.name / "policy.toml"), self._sleep, silos=self._silos)
        assert actor.problem() is None, actor.problem()
        self.starts += 1
        return actor

    async def _call(self, step: str, *arguments: Any) -> Any:
        def work() -> Any:
            with self._lock:  # an actor answers one message at a time
                self.seen.append(step)
                self.before(step)
                reply = getattr(self.actor, step)(*arguments)
                self.after(step)
                return reply

        return await asyncio.to_thread(work)

    async def _restart(self) -> None:
        def work() -> None:
            with self._lock:
                if not self._is_stopped:
                    self.actor.close()
                    self.actor = self._start()

        await asyncio.to_thread(work)

    @contextmanager
    def not_restarting(self) -> Iterator[None]:
        """Keep the actor from starting anew for as long as this lasts."""
        with self._lock:
            yield

    def stop(self) -> None:
        self._runner.do(self.streams.close())
        with self._lock:
            self._is_stopped = True
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
    others: dict[str, Gate] = field(default_factory=dict)  # of further aggregators, by name

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    def open(self, aggregator: str = "") -> Federation:
        """Open it as the analyst; over the first aggregator, or the one that is named."""
        path = self.path / ANALYST / "consilo.toml"
        if aggregator:
            settings = path.read_text().replace("[analysts]", f'aggregator = "{aggregator}"\n[analysts]', 1)
            path = path.with_name(f"{aggregator}.toml")
            path.write_text(settings)
        return Federation.open(path)

    def start_gate(self, name: str, port: int) -> Gate:
        """Serve another aggregator that `add_member` made for that port."""

        async def begin() -> Gate:
            gate = make_gate(self.path, Counted(), name=name)
            await gate.start(f"127.0.0.1:{port}")
            return gate

        self.others[name] = self.runner.do(begin())
        return self.others[name]

    def stop_gate(self, name: str) -> None:
        self.runner.do(self.others.pop(name).stop(1.0))

    def take_membership(self, name: str = AGGREGATOR) -> int:
        """Give an aggregator the authority's newest membership, which it finds there as `aggregator serve` does.

        Return its version.
        """
        gate = self.gate if name == AGGREGATOR else self.others[name]
        give_membership(self.path, name)

        async def look() -> int:
            gate.refresh()
            return len(membership_of(gate))

        return self.runner.do(look())

    def session(self, silo: str) -> Session | None:
        """Return the aggregator's session with a silo, if there is one now."""
        return session_of(handle_of(self.gate, silo))

    def lose(self, silo: str) -> None:
        """End the stream of a silo from another thread; the silo dials again."""
        session = self.session(silo)
        assert session is not None
        self.runner.loop.call_soon_threadsafe(session.close, LinkError("lost on purpose"))

    def start_silo(self, name: str, wire: tuple[int, ...] = WIRE) -> LocalSilo:
        self.silos[name] = LocalSilo(self.path, name, self.runner, wire)
        return self.silos[name]

    def wait(self, names: tuple[str, ...], timeout_s: float = 20.0) -> None:
        """Wait until exactly these silos are connected."""
        until(lambda: tuple(self.gate.connected) == tuple(sorted(names)), timeout_s, lambda: str(self.gate.connected))


@asynccontextmanager
async def channel(one: Served, name: str, *options: tuple[str, Any]) -> AsyncIterator[Any]:
    """A connection of its own, with a member's key and certificate."""
    home = one.path / name
    pin = pin_of(read_transport_key(one.path / AGGREGATOR / "transport.key").public_key())
    credentials = grpc.ssl_channel_credentials(
        *((home / file).read_bytes() for file in ("authority.pem", "transport.key", "transport.pem"))
    )
    own = ("grpc.use_local_subchannel_pool", 1)
    every = [*OPTIONS, ("grpc.ssl_target_name_override", host_of(pin)), own, *options]
    async with grpc.aio.secure_channel(one.target, credentials, options=every) as connection:
        yield connection


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_gate(path: Path, counts: Counted, wire: tuple[int, ...] = WIRE, name: str = AGGREGATOR) -> Gate:
    home, store = path / name, ReportStore(path / name / "reports")
    sums, journal, recovery = LocalSums(home / "contributions"), RoundJournal(home / "rounds"), list[Any]()

    def server(silos: Mapping[str, StreamSilo]) -> Server:
        aggregator = read_home(home)
        checkpoints = CheckpointStore(home / "heads", aggregator.federation, aggregator.silos)
        if not recovery:
            recovery.append(asyncio.create_task(end_left_rounds(aggregator, silos, journal, time.time)))
        return Server(aggregator, silos, sums, store, journal, checkpoints)

    return Gate(
        credentials(path, name, "aggregator"),
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
            for name in list(running.others):
                running.stop_gate(name)
            runner.do(running.gate.stop(1.0))
        runner.close()
