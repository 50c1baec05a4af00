"""What the parts of a federation keep to themselves, for tests that must look at it, change it or stand in for it.

Here alone a test reaches into an object of the product, and in `seal`, for SEAL's own objects in a lattice worker. A
function names a thing, not an attribute. What can be seen from outside is tested from outside: a charge by
`Simulation.spent`, a round that was forgotten by the answer to its next step.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    import pytest

    from aggregator.driver import Server
    from aggregator.gate import Gate
    from aggregator.rounds import Aggregator
    from aggregator.shards import Shard, ShardedSums
    from aggregator.streams import StreamSilo
    from analyst.client import Federation
    from analyst.link import Link
    from crypto.keys import SigningKey
    from crypto.rounds.opening import CheckedReport
    from crypto.sealing import SealingKey
    from federation.members.membership import MembershipLog, TrustAnchor
    from federation.transport.session import Session
    from silo_node.actor import SiloActor
    from silo_node.data.compute import Computes
    from silo_node.ledger.database import Database
    from silo_node.ledger.log import Log
    from silo_node.ledger.store import LedgerStore
    from silo_node.rounds.states import Silo, State
    from silo_node.transport.dialler import Dialler
    from silo_node.turns import Turns


class HasActor(Protocol):
    """A silo of the harness, simulated or federated."""

    @property
    def actor(self) -> "SiloActor": ...


def actor_of(silo: "SiloActor | HasActor") -> "SiloActor":
    found: Any = silo
    actor: SiloActor = getattr(found, "actor", found)
    return actor


# A silo.


def ledger_of(silo: "SiloActor | HasActor") -> "LedgerStore":
    """The ledger that a running silo writes."""
    return actor_of(silo)._ledger


def waiting_in(turns: "Turns") -> int:
    """How many wait for a turn to compute."""
    return len(turns._waiting)


def rounds_of(silo: "SiloActor | HasActor") -> "dict[bytes, State]":
    """The rounds that a running silo has not forgotten, by id."""
    return actor_of(silo)._rounds.states


def known_to(silo: "SiloActor | HasActor") -> "Silo":
    """What a running silo was started with: its name, its keys, its policy, and who the others are."""
    return actor_of(silo)._silo


def teach(silo: "SiloActor | HasActor", **changes: Any) -> None:
    """Let a running silo know other keys or another roster than it was started with."""
    actor = actor_of(silo)
    actor._silo = replace(actor._silo, **changes)


def computer_of(silo: "SiloActor | HasActor") -> "Computes":
    """What computes on a running silo's rows."""
    return actor_of(silo)._data.computing.computer


def computing_of(silo: "SiloActor | HasActor") -> Any:
    """What has a running silo's contributions computed, each in its turn and time."""
    return actor_of(silo)._data.computing


def let_sleep(silo: "SiloActor | HasActor", sleep: "Callable[[float], None]", patch: "pytest.MonkeyPatch") -> None:
    """Let a running silo wait in another way for the times at which it computes, and contributions leave."""
    patch.setattr(actor_of(silo)._data.computing, "_sleep", sleep)


def silence(silo: "SiloActor | HasActor") -> None:
    """Let a running silo add no noise."""
    from tests.harness.simulator import no_noise

    actor_of(silo)._noise = no_noise


def reach_of(silo: "SiloActor | HasActor") -> Any:
    """Return what knows which of a running silo's sources can be read."""
    return actor_of(silo)._data._reach


def set_ahead(silo: "SiloActor | HasActor", seconds: float) -> None:
    """Put a running silo's clock ahead."""
    actor = actor_of(silo)
    clock = actor._clock
    actor._clock = lambda: clock() + seconds


def erase_at(silo: "SiloActor | HasActor", now: float) -> None:
    """Let a running silo look whether something is to be erased, as if it were `now`."""
    actor = actor_of(silo)
    actor._recorder._clock = lambda: now
    actor._sweep()


# A ledger.


def database_of(store: "LedgerStore") -> "Database":
    """The SQLite database under a ledger: to fill, to back up or to falsify it."""
    return store._db


def log_of(store: "LedgerStore") -> "Log":
    """The log of a ledger: to append an entry that no silo would write."""
    return store._log


def copied(store: "LedgerStore", place: "Path") -> "Path":
    """Write a copy of an open ledger to `place`, as a backup of the machine would have it."""
    store._db.execute("VACUUM INTO ?", (str(place),))
    return place


# An analyst.


def key_of(federation: "Federation") -> "SigningKey":
    """The key that an analyst signs requests with."""
    return federation._signing


def sealing_key_of(federation: "Federation") -> "SealingKey":
    """The key that an analyst opens reports with."""
    return federation._sealing


def exchange_keys(
    federation: "Federation", signing: "SigningKey | None" = None, sealing: "SealingKey | None" = None
) -> None:
    """Give an open federation a key that is not the analyst's."""
    federation._signing, federation._sealing = signing or federation._signing, sealing or federation._sealing


def forget_offer(federation: "Federation") -> None:
    """Let the next question ask the silos what they open."""
    federation._offer = None


def link_of(federation: "Federation") -> "Link":
    """The way to the aggregator, for bytes that no `Federation` would send."""
    return federation._link


def call(link: Any, step: str, *arguments: bytes) -> tuple[bytes, ...]:
    """Make any call over an analyst's connection, also one that is no call of `Link`."""
    parts: tuple[bytes, ...] = link._call(step, *arguments)
    return parts


# An aggregator.


async def gather(server: "Server", calls: Any, outcomes: Any) -> Any:
    """Let an aggregator await calls of silos."""
    return await server._calls.gather(calls, 0.0, outcomes)


def aggregator_of(server: "Server") -> "Aggregator":
    """An aggregator's name, key and roster."""
    return server._aggregator


def server_of(gate: "Gate") -> Any:
    """What answers the calls that come through a gate."""
    return gate._server


def answer_by(gate: "Gate", server: Any, monkeypatch: "pytest.MonkeyPatch | None" = None) -> None:
    """Let something else answer the calls that come through a gate, for as long as the test runs or for good."""
    if monkeypatch is None:
        gate._server = server
    else:
        monkeypatch.setattr(gate, "_server", server)


def allow_unanswered(gate: "Gate", most: int, monkeypatch: "pytest.MonkeyPatch") -> None:
    """Let each analyst send only so many requests that have no answer."""
    from federation.operations.allowance import Allowance

    monkeypatch.setattr(gate.callers, "_unanswered", Allowance[str](most, 0, lambda: 0.0))


def allow_streams(gate: "Gate", most: int, monkeypatch: "pytest.MonkeyPatch") -> None:
    """Let each member open only so many streams."""
    from federation.operations.allowance import Allowance

    monkeypatch.setattr(gate, "_opened", Allowance[str](most, 0, lambda: 0.0))


# Streams.


def streams_of(gate: "Gate") -> dict[str, int]:
    """How many streams a gate has open, by member."""
    return gate._streams


def sessions_of(gate: "Gate") -> "list[tuple[Session, str, Any]]":
    """Every session of a gate, with its peer's role and certificate."""
    return [(session, role, certificate) for session, (role, certificate) in gate._sessions.items()]


def handle_of(gate: "Gate", silo: str) -> "StreamSilo":
    """What a gate calls a silo by."""
    return gate._silos[silo]


def session_of(end: Any) -> "Session | None":
    """The session of one end of a stream: a `StreamSilo`, a silo's `Dialler` or an analyst's `RemoteLink`."""
    session: Session | None = end._session
    return session


def wire_of(end: Any) -> int:
    """The wire version of the session of one end."""
    session = session_of(end)
    assert session is not None
    return session.wire


async def write(session: "Session", frame: bytes) -> None:
    """Write a frame of any content over a session."""
    await session._write(frame)


def anchor_of(gate: "Gate") -> "TrustAnchor":
    """What a gate trusts."""
    return gate._credentials.anchor


def loop_of(link: Any) -> Any:
    """The event loop of an analyst's connection."""
    return link._loop


def membership_of(end: "Gate | Dialler") -> "MembershipLog":
    """The log of the membership that a gate or a dialler has."""
    return end._credentials.log


def newest_pins(dialler: "Dialler") -> tuple[bytes, ...]:
    """The pins of the aggregator that a dialler takes in turn."""
    return dialler._credentials.membership.find(dialler._aggregator).pins


def renew_by(dialler: "Dialler", renewed: "Callable[[Callable[[], Awaitable[bool]]], Awaitable[bool]]") -> None:
    """Let something else bring a dialler's silo up to a newer membership; it is given what does so otherwise."""
    before = dialler._renewed
    dialler._renewed = lambda: renewed(before)


def dial_by(dialler: "Dialler", once_through: "Callable[[int], Awaitable[bool]]") -> None:
    """Let something else stand for one stream of a dialler, from its dialling to its end."""
    dialler._once_through = once_through  # type: ignore[assignment,method-assign]


def pretend_restart(dialler: "Dialler") -> None:
    """Let a dialler greet as another process would."""
    dialler._instance = b"another process."


def open_rounds(dialler: "Dialler") -> dict[bytes, float]:
    """The rounds for which a dialler would wait when it is told to stop, and since when each is open."""
    return dialler._rounds


def track(dialler: "Dialler", step: str, arguments: tuple[bytes, ...], now: float) -> None:
    """Let a dialler know of a step, as if it came at another time."""
    dialler._track(step, arguments, now)


# A round.


def checked_report(*parts: Any) -> "CheckedReport":
    """Make a checked report of parts that nobody checked."""
    from crypto.rounds import opening

    make: Any = opening.CheckedReport
    checked: CheckedReport = make(*parts, passed=opening._PASSED)
    return checked


def passed(checked: "CheckedReport", **changes: Any) -> "CheckedReport":
    """Return a checked report with changes that nobody checked."""
    from crypto.rounds import opening

    return replace(checked, passed=opening._PASSED, **changes)


def reserved_in(session: "Session") -> tuple[int, int, int]:
    """How many messages a session has kept memory for, how many calls it waits for, and how many it answers."""
    return len(session._reserved), len(session._calls), len(session._tasks)


def shards_of(sums: "ShardedSums") -> "dict[int, Shard]":
    """The shards that a coordinator has, by their numbers."""
    return sums._shards
