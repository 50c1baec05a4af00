"""Who holds the connections to the aggregator, and an end for those that one party holds beyond its share.

gRPC tells a server of a connection only when a stream begins on it. So this module asks gRPC (channelz) for every
connection whose handshake is over, with its certificate and its address, and the system for those whose is not. It
closes what is too much, the oldest first, as a party that lost its link dials anew.

Promises: however many connections others take, and whether they open a stream or not, room for every silo is left; a
member's connections are bounded by its certificate, and those of analysts and strangers by their address, too; whoever
held too many is named in the log and in `consilo status`.
"""

import asyncio
import json
import os
import resource
import socket
from base64 import b64decode
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network
from itertools import chain
from typing import Any, NamedTuple

import structlog
from grpc._cython import cygrpc

from crypto.errors import CryptoError
from federation.members.certificates import read_certificate
from federation.members.membership import Membership

MAX_CONNECTIONS = 2560  # of all parties; twice as many between two looks
OF_MEMBER: Mapping[str, int] = {"silo": 4, "analyst": 8}
OF_ADDRESS = 128  # of analysts and strangers
LOOK_S = 0.5
FLOODED_LOOK_S = 0.05  # after too many
MAX_NAMED = 100
_log = structlog.get_logger("consilo.aggregator")


class Peer(NamedTuple):
    """The other end of a connection."""

    address: str
    port: int


def make_room_for_connections() -> None:
    """Let this process open as many files as connections may need, as far as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 3 * MAX_CONNECTIONS if hard == resource.RLIM_INFINITY else min(3 * MAX_CONNECTIONS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@dataclass(frozen=True, slots=True)
class Connection:
    """A connection, with the member whose certificate it has; of nobody while its handshake is not over."""

    peer: Peer
    member: str = ""
    role: str = ""

    @property
    def place(self) -> str:
        """Return its address; of IPv6 the network of 64 bits, as whoever has one address there has them all."""
        address = ip_address(self.peer.address)
        return str(address) if address.version == 4 else str(ip_network((address, 64), strict=False))

    @property
    def holder(self) -> str:
        """Return who holds it, in words."""
        return f"{self.role} {self.member}" if self.member else f"address {self.place}"


def too_many(held: Iterable[Connection], silos: int, most: int = MAX_CONNECTIONS) -> list[Connection]:
    """Return the connections to close, of those held now, oldest first.

    1. A member has OF_MEMBER. 2. The analysts and strangers of an address have OF_ADDRESS together. 3. All analysts and
    strangers leave two of `most` to each of so many silos, but have a quarter: it is taken from the strangers, and then
    from the analysts, of the addresses with the most.
    """
    kept: dict[str, list[Connection]] = defaultdict(list)
    for one in held:
        kept[one.holder].append(one)
    closed: list[Connection] = []
    # 1.
    for mine in kept.values():
        closed += _cut(mine, OF_MEMBER.get(mine[0].role, OF_ADDRESS))
    # 2.
    strangers, analysts = _by_place(kept, ""), _by_place(kept, "analyst")
    for place in strangers.keys() | analysts.keys():
        closed += _cut(strangers[place], max(0, OF_ADDRESS - len(analysts[place])))
        closed += _cut(analysts[place], OF_ADDRESS)
    # 3.
    room = max(most // 4, most - 2 * silos)
    closed += _levelled(list(strangers.values()), room - sum(map(len, analysts.values())))
    closed += _levelled(list(analysts.values()), room)
    return closed


def _by_place(kept: Mapping[str, list[Connection]], role: str) -> dict[str, list[Connection]]:
    """Return the connections of a role by their place."""
    found: dict[str, list[Connection]] = defaultdict(list)
    for one in chain.from_iterable(kept.values()):
        if one.role == role:
            found[one.place].append(one)
    return found


def _levelled(held: Sequence[list[Connection]], room: int) -> list[Connection]:
    """Remove the oldest of the longest lists until all have `room`, and return them."""
    gone: list[Connection] = []
    total, most = sum(map(len, held)), max(map(len, held), default=0)
    while total - len(gone) > room and most:
        most -= 1
        for one in held:
            if len(one) > most and total - len(gone) > room:
                gone.append(one.pop(0))
    return gone


def _cut(held: list[Connection], most: int) -> list[Connection]:
    """Remove the oldest of too many from a list, and return them."""
    gone = held[: max(0, len(held) - most)]
    del held[: len(gone)]
    return gone


class Holders:
    """Watches the connections of the server on one port."""

    def __init__(self, port: int, membership: Callable[[], Membership], refused: Callable[[str], None]) -> None:
        self._port, self._membership, self._refused = port, membership, refused
        self._ended: dict[int, tuple[Peer, str]] = {}  # by gRPC's number: the other end, and its certificate
        self._members: dict[str, tuple[str, str]] = {}  # by certificate
        self._version = 0
        self._held: list[Connection] = []
        self._closed: Counter[str] = Counter()

    @property
    def named(self) -> dict[str, dict[str, int]]:
        """Return who holds connections, how many, and how many were closed for being too many: the most first."""
        found = Counter(one.holder for one in self._held)
        names = sorted(found | self._closed, key=lambda who: (-found[who], -self._closed[who], who))[:MAX_NAMED]
        return {who: {"connections": found[who], "closed": self._closed[who]} for who in names}

    async def watch(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            has_closed = False
            try:
                has_closed = await self.look()
            except (OSError, ValueError, KeyError) as err:
                _log.error("connections_not_seen", reason=f"{type(err).__name__}: {err}"[:200])
            await asyncio.sleep(FLOODED_LOOK_S if has_closed else LOOK_S)

    async def look(self) -> bool:
        """Look once, and close what is too much; return whether anything was."""
        open_now = await asyncio.to_thread(self._read)
        membership = self._membership()
        if membership.version != self._version:
            self._members, self._version = {}, membership.version
        known = {peer: self._member(membership, pem) for peer, pem in self._ended.values()}
        self._held = [Connection(peer, *known.get(peer, ("", ""))) for peer in open_now]
        closed = too_many(self._held, len(membership.of_role("silo")))
        if not closed:
            return False
        await asyncio.to_thread(self._close, {one.peer for one in closed})
        for holder, number in Counter(one.holder for one in closed).items():
            self._count(holder, number)
        return True

    def _count(self, holder: str, number: int) -> None:
        if holder in self._closed or len(self._closed) < MAX_NAMED:
            self._closed[holder] += number
        for _ in range(number):
            self._refused("too_many_connections")
        _log.warning("connections_closed", whose=holder, closed=number)

    def _member(self, membership: Membership, pem: str) -> tuple[str, str]:
        if pem not in self._members:
            self._members[pem] = "", ""
            with suppress(CryptoError, ValueError):
                found = membership.peer(read_certificate(b64decode(pem)))
                self._members[pem] = found.name, found.role
        return self._members[pem]

    def _read(self) -> list[Peer]:
        """Return the connections of the port, those whose handshake is over first by their age, then the others."""
        before, self._ended = self._ended, {}
        for number in _numbers(self._port):
            if (found := before.get(number) or _ended(number)) is not None:
                self._ended[number] = found
        there = {peer for peer, _ in _sockets(self._port)}
        by_age = dict.fromkeys(peer for peer, _ in self._ended.values())
        by_age |= dict.fromkeys(one.peer for one in self._held) | dict.fromkeys(there)
        return [peer for peer in by_age if peer in there]

    def _close(self, peers: set[Peer]) -> None:
        for peer, one in _sockets(self._port):
            if peer in peers:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)  # gRPC sees its end, and lets go of it


def _sockets(port: int) -> Iterator[tuple[Peer, socket.socket]]:
    """Yield this process's connections at a port of its own, each as long as nobody asks for the next."""
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if not os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(name))) as one:
                if one.family in (socket.AF_INET, socket.AF_INET6) and one.getsockname()[1] == port:
                    address, other, *_ = one.getpeername()
                    yield Peer(_plain(address), other), one


def _plain(address: str) -> str:
    """Return an address, of IPv4 also where it came as one of IPv6."""
    found = ip_address(address.partition("%")[0])
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return str(mapped or found)


def _numbers(port: int) -> Iterator[int]:
    """Yield gRPC's numbers of the connections at a port whose handshake is over, oldest first."""
    for server in _pages(cygrpc.channelz_get_servers, "server"):
        names = [one.get("name", "") for one in server.get("listenSocket", ())]
        if any(name.endswith(f":{port}") for name in names):
            own = int(server["ref"]["serverId"])

            def sockets(first: int, server: int = own) -> Any:
                return cygrpc.channelz_get_server_sockets(server, first, 0)

            yield from sorted(int(one["socketId"]) for one in _pages(sockets, "socketRef"))


def _pages(ask: Callable[[int], Any], what: str) -> Iterator[dict[str, Any]]:
    first = 0
    while True:
        page = json.loads(ask(first))
        found = page.get(what, [])
        yield from found
        if page.get("end") or not found:
            return
        last = found[-1].get("ref", found[-1])
        first = 1 + int(last.get("serverId") or last["socketId"])


def _ended(number: int) -> tuple[Peer, str] | None:
    """Return the other end of a connection and its certificate; None if it is gone."""
    try:
        one = json.loads(cygrpc.channelz_get_socket(number))["socket"]
    except ValueError:
        return None
    remote = one["remote"]["tcpipAddress"]
    peer = Peer(_plain(str(ip_address(b64decode(remote["ipAddress"])))), remote["port"])
    return peer, one.get("security", {}).get("tls", {}).get("remoteCertificate", "")
