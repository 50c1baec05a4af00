"""Connections that one party takes beyond its share: they are closed, it is named, and others come and go as before."""

import selectors
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from aggregator.holders import OF_ADDRESS, OF_MEMBER, Connection, Peer, too_many
from tests.federated.test_link import ask, statuses
from tests.harness.federated import (
    AGGREGATOR,
    SILOS,
    Served,
    add_member,
    free_port,
    give_membership,
    provision,
    served,
)
from tests.harness.waiting import until

pytestmark = pytest.mark.server
FLOODER = "eve"
FLOODED_FROM = "127.0.0.2"  # the others are at 127.0.0.1
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def http2(kind: int, flags: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + bytes(4) + payload


class Flood:
    """Takes connections, greets, answers pings, and opens no stream; takes each again that it loses."""

    def __init__(self, one: Served, member: str, *, is_greeting: bool = True) -> None:
        self._port, self._is_greeting = one.port, is_greeting
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._tls.check_hostname, self._tls.verify_mode = False, ssl.CERT_NONE
        self._tls.set_alpn_protocols(["h2"])
        self._tls.load_cert_chain(one.path / member / "transport.pem", one.path / member / "transport.key")
        self._selector, self._lock = selectors.DefaultSelector(), threading.Lock()
        self.held: set[socket.socket] = set()
        self.taken = 0
        self._is_over = False
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._take, self._take, self._answer)]

    def __enter__(self) -> "Flood":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        for thread in self._threads:
            thread.join()
        for one in self.held:
            one.close()

    def _take(self) -> None:
        while not self._is_over:
            try:
                one = socket.create_connection(("127.0.0.1", self._port), 5, (FLOODED_FROM, 0))
                if self._is_greeting:
                    one = self._tls.wrap_socket(one)
                    one.send(PREFACE + http2(4, 0))
                else:
                    time.sleep(0.005)  # a faster one is for the firewall
                one.setblocking(False)
            except OSError:
                continue
            with self._lock:
                self.taken += 1
                self.held.add(one)
                self._selector.register(one, selectors.EVENT_READ)

    def _answer(self) -> None:
        while not self._is_over:
            for key, _ in self._selector.select(0.1):
                one = key.fileobj
                assert isinstance(one, socket.socket)
                try:
                    data = one.recv(65536)
                except (ssl.SSLWantReadError, BlockingIOError):
                    continue
                except OSError:
                    data = b""
                if not data:
                    with self._lock:
                        self._selector.unregister(one)
                        self.held.discard(one)
                    one.close()
                elif b"\x00\x00\x08\x06\x00" in data:
                    with suppress(OSError):
                        one.send(http2(6, 1, data[-8:]))


@pytest.fixture
def hub(founded: Path, tmp_path: Path) -> Iterator[Served]:
    port = free_port()
    path = provision(tmp_path / "p", founded, f"127.0.0.1:{port}")
    add_member(path, FLOODER, "analyst")
    give_membership(path, AGGREGATOR)
    with served(path, port) as one:
        yield one


def test_an_analyst_who_takes_connections_without_a_stream_is_named_and_a_silo_comes_back(hub: Served) -> None:
    """Hope: one member takes every connection, so that a silo whose stream is cut stays out, and no analyst asks."""
    with Flood(hub, FLOODER) as flood:
        until(lambda: flood.taken > 60, 60)
        for silo in SILOS:
            hub.lose(silo)
        time.sleep(0.1)
        hub.wait(SILOS, 60)
        assert statuses(ask(hub)) == dict.fromkeys(SILOS, "answered")
        named = hub.gate.holders.named[f"analyst {FLOODER}"]
        assert named["closed"] > 0
        assert named["connections"] < 400, "what it takes between two looks, beside the 8 that it may have"
    assert ("refused", "too_many_connections") in hub.counts.events
    until(lambda: hub.gate.holders.named[f"analyst {FLOODER}"]["connections"] == 0, 60)
    aspen = hub.gate.holders.named["silo aspen"]
    assert (aspen["connections"] in (1, 2), aspen["closed"]) == (True, 0), "of a silo, nothing was closed"


def test_a_stranger_who_never_shakes_hands_leaves_room_and_its_address_is_named(hub: Served) -> None:
    with Flood(hub, FLOODER, is_greeting=False) as flood:
        until(lambda: flood.taken > 3 * OF_ADDRESS, 60)
        hub.lose("birch")
        time.sleep(0.1)
        hub.wait(SILOS, 60)
        until(lambda: hub.gate.holders.named.get(f"address {FLOODED_FROM}", {}).get("closed", 0) > 0, 60)
        assert statuses(ask(hub)) == dict.fromkeys(SILOS, "answered")


def held(who: str, role: str, number: int, address: str = "192.0.2.1") -> list[Connection]:
    first = sum(map(ord, who + address)) * 1000
    return [Connection(Peer(address, first + index), who, role) for index in range(number)]


def test_a_member_s_connections_are_bounded_and_the_oldest_end() -> None:
    silo, ana = held("aspen", "silo", 6), held("ana", "analyst", 12)
    assert too_many(silo + ana, 5) == [*silo[:2], *ana[:4]]
    assert not too_many(silo[2:] + ana[4:], 5)


def test_strangers_of_an_address_go_before_analysts_of_it_and_silos_stay() -> None:
    ana, many = held("ana", "analyst", 8), held("", "", 2 * OF_ADDRESS)
    silos = [one for index in range(200) for one in held(f"silo-{index}", "silo", 2)]
    closed = too_many(ana + silos + many, 200)
    assert closed == many[: OF_ADDRESS + 8]
    few = held("", "", OF_ADDRESS, "192.0.2.2")
    assert too_many(ana + silos + many + few, 200) == closed, "another address has a share of its own"


def test_two_connections_of_every_silo_are_left_however_many_others_come() -> None:
    most, silos = 1000, 100
    others = [one for index in range(100) for one in held("", "", 20, f"192.0.2.{index}")]
    ana = held("ana", "analyst", 8, "198.51.100.1")
    closed = too_many(ana + others, silos, most)
    assert len(closed) == len(ana + others) - (most - 2 * silos)
    assert not set(closed) & set(ana), "it is taken from those who hold the most"
    assert len(too_many(others, 900, most)) == len(others) - most // 4, "but others have a quarter"


def test_strangers_of_many_addresses_push_no_analyst_out_and_a_network_of_ipv6_is_one_place() -> None:
    """Hope: one connection from each of very many addresses counts as nobody's too many."""
    ana = held("ana", "analyst", 8, "198.51.100.1")
    spread = [one for index in range(900) for one in held("", "", 1, f"192.0.{index // 250}.{index % 250}")]
    closed = too_many(ana + spread, 100, 1000)
    assert len(closed) == len(ana + spread) - 800
    assert not set(closed) & set(ana)
    network = [one for index in range(900) for one in held("", "", 1, f"2001:db8::{index:x}")]
    assert len(too_many(network, 5)) == len(network) - OF_ADDRESS
    assert network[0].holder == "address 2001:db8::/64"


@pytest.mark.parametrize("role", ["silo", "analyst"])
def test_a_member_s_share_covers_its_streams(role: str) -> None:
    from aggregator.callers import STREAMS_PER_ANALYST
    from aggregator.gate import STREAMS_PER_SILO

    assert OF_MEMBER[role] >= 2 * {"silo": STREAMS_PER_SILO, "analyst": STREAMS_PER_ANALYST}[role]
