"""Members come, go and change their keys while a federation is served: docs/federated.md, sections 2 and 4."""

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

import silo_node.owner.cli
from aggregator.gate import Gate
from aggregator.home import read_home
from aggregator.store import CheckpointStore
from analyst.client import Federation
from analyst.errors import AnalystError, DeniedError, RoundError
from analyst.link import RemoteLink
from analyst.reports.report import Report
from crypto.errors import CertificateError, CryptoError, LinkError
from crypto.keys import Secret, SigningKey, read_key_file
from crypto.randomness import token
from crypto.wire import sign, unverified
from federation.authority import opened, revoke, rotate
from federation.errors import FederationError
from federation.files import replace_file
from federation.joining import join, renew
from federation.members import credentials as crypto_credentials
from federation.members.certificates import (
    Identity,
    Role,
    issue,
    new_certificate_request,
    private_pem,
    read_certificate,
    read_transport_key,
    utc_now,
)
from federation.members.credentials import hold
from federation.members.membership import LOG, read_log
from federation.transport.frames import WIRE
from federation.transport.handshake import ANALYST_METHOD, OPTIONS, SILO_METHOD
from policies.budget.ledger import Checkpoint
from policies.requests.catalogue import CatalogueRequest
from silo_node.serve import FederatedSilo
from silo_node.transport import checkpoint_relay
from silo_node.transport import dialler as silo_link
from tests.federated.test_link import PURPOSE, QUESTION, ask, dial, statuses
from tests.harness.federated import (
    AGGREGATOR,
    ANALYST,
    NAME,
    SILOS,
    Counted,
    LocalSilo,
    Served,
    add_member,
    add_silo,
    credentials,
    free_port,
    give_membership,
    make_gate,
    provision,
    served,
)
from tests.harness.inside import (
    anchor_of,
    key_of,
    known_to,
    ledger_of,
    link_of,
    membership_of,
    newest_pins,
    sessions_of,
)
from tests.harness.relay import Relay
from tests.harness.waiting import until

pytestmark = pytest.mark.server

FOUR, FIFTH = SILOS[:4], SILOS[4]
SECOND = "spoke"


@pytest.fixture
def running(founded: Path, tmp_path: Path) -> Iterator[Served]:
    """Four silos that are connected."""
    port = free_port()
    with served(provision(tmp_path / "p", founded, f"127.0.0.1:{port}", FOUR), port, FOUR) as one:
        yield one


def answered(report: Report, silos: tuple[str, ...]) -> None:
    assert statuses(report) == dict.fromkeys(silos, "answered")


def spent(one: Served) -> dict[str, int]:
    return {name: ledger_of(silo).spending().lifetime for name, silo in one.silos.items()}


def learned(one: Served, version: int) -> None:
    """Wait until every silo has learned of a version, and its actor has started anew with it."""

    def is_so() -> bool:
        return all(
            len(membership_of(silo.dialler)) == version and known_to(silo).roster.version == version
            for silo in one.silos.values()
        )

    until(is_so, 20.0, lambda: str({name: known_to(silo).roster.version for name, silo in one.silos.items()}))


def dialled(silo: LocalSilo) -> list[object]:
    """Return how the streams that the silo dialled have ended."""
    return [what for kind, what in silo.counts.events if kind == "dialled"]


# A silo more.


def test_a_fifth_silo_is_admitted_while_four_are_connected(running: Served, founded: Path) -> None:
    answered(ask(running), FOUR)
    add_silo(running.path, founded, FIFTH)
    version = running.take_membership()
    fifth = running.start_silo(FIFTH)
    running.wait(SILOS)
    learned(running, version)
    answered(ask(running), SILOS)
    assert {name: silo.starts for name, silo in running.silos.items()} == {**dict.fromkeys(FOUR, 2), FIFTH: 1}
    assert all(set(known_to(silo).silos) == set(SILOS) for silo in running.silos.values())
    assert fifth.seen.count("contribute") == 1


def test_a_question_under_way_while_the_membership_grows_ends_with_an_answer(running: Served, founded: Path) -> None:
    """Streams end when the rounds under way have: before that nobody dials again and no actor starts anew."""
    add_silo(running.path, founded, FIFTH)
    before = {name: running.session(name) for name in FOUR}
    found: dict[str, Any] = {}

    def grow(step: str) -> None:
        if step == "contribute" and not found:
            found["version"] = running.take_membership()
            time.sleep(1.0)  # time to end the streams in, for a gate that did not wait
            found["sessions"] = {name: running.session(name) for name in FOUR}
            found["starts"] = [silo.starts for silo in running.silos.values()]

    running.silos[FOUR[0]].before = grow
    answered(ask(running), FOUR)
    assert found["sessions"] == before
    assert found["starts"] == [1] * 4
    running.start_silo(FIFTH)
    running.wait(SILOS)
    learned(running, found["version"])
    answered(ask(running), SILOS)


def test_a_silo_counts_as_connected_once_its_actor_knows_the_newest_membership(running: Served, founded: Path) -> None:
    """Else whoever waits for the aggregator's health asks while actors start anew, and their silos are missing."""
    add_silo(running.path, founded, FIFTH)
    slow, others = FOUR[0], FOUR[1:]
    with running.silos[slow].not_restarting():
        version = running.take_membership()
        running.wait(others)
        time.sleep(0.5)
        assert running.session(slow) is not None, "it dialled"
        assert tuple(running.gate.connected) == others
    running.wait(FOUR)
    learned(running, version)


def test_a_question_of_the_newer_membership_waits_until_the_silos_know_it(running: Served, founded: Path) -> None:
    add_silo(running.path, founded, FIFTH)
    asking: list[Future[Report]] = []

    def grow(step: str) -> None:
        if step == "contribute" and not asking:
            running.take_membership()
            running.start_silo(FIFTH)
            running.wait(SILOS)
            asking.append(pool.submit(ask, running, 0.9))
            time.sleep(1.0)  # time to ask silos in that do not know the fifth yet

    with ThreadPoolExecutor(1) as pool:
        running.silos[FOUR[0]].before = grow
        answered(ask(running), FOUR)
        answered(asking[0].result(60), SILOS)


def test_a_question_that_waits_for_a_membership_which_revokes_its_analyst_is_not_asked(
    running: Served, founded: Path
) -> None:
    """Nor can one analyst let more of them wait than it may have under way."""
    add_member(running.path, "eve", "analyst")
    running.take_membership()
    running.wait(FOUR)
    home = credentials(running.path, "eve", "analyst")
    signing = SigningKey(read_key_file(running.path / "eve" / "identity.key"))
    request = sign(
        CatalogueRequest(analyst="eve", federation=NAME, nonce=bytes(16), created_at=int(time.time())), "eve", signing
    )
    waiting: list[Future[object]] = []

    def grow(step: str) -> None:
        if step != "contribute" or waiting:
            return
        add_silo(running.path, founded, FIFTH)
        running.take_membership()
        with RemoteLink(home, AGGREGATOR) as link:
            waiting.extend(pool.submit(link.catalogues, request) for _ in range(8))
            until(lambda: running.gate.callers.waiting["eve"] == 8)
            with opened(running.path / "authority" / "consilo.toml") as authority:
                revoke(authority, "eve", "member", utc_now())
            running.take_membership()
            for one in waiting:
                with pytest.raises(FederationError):
                    one.result(30)

    with ThreadPoolExecutor(8) as pool:
        running.silos[FOUR[0]].before = grow
        answered(ask(running), FOUR)
    until(lambda: not running.gate.callers.waiting["eve"])
    assert all(silo.seen.count("catalogue") == 1 for silo in running.silos.values()), "ana's alone was asked"


def test_a_membership_that_cannot_be_taken_up_is_taken_up_later(running: Served, founded: Path) -> None:
    key = running.path / AGGREGATOR / "identity.key"
    add_silo(running.path, founded, FIFTH)
    key.chmod(0o644)
    with pytest.raises(CryptoError, match="can be read by others"):
        running.take_membership()
    key.chmod(0o600)
    version = running.take_membership()
    running.start_silo(FIFTH)
    running.wait(SILOS)
    learned(running, version)
    answered(ask(running), SILOS)


def test_an_analyst_that_connected_before_the_fifth_silo_asks_those_it_knows(running: Served, founded: Path) -> None:
    with running.open() as federation:
        answered(federation.query(QUESTION, purpose=PURPOSE, epsilon=1.0), FOUR)
        add_silo(running.path, founded, FIFTH)
        version = running.take_membership()
        running.start_silo(FIFTH)
        running.wait(SILOS)
        learned(running, version)
        answered(federation.query(QUESTION, purpose=PURPOSE, epsilon=1.0), FOUR)
    answered(ask(running), SILOS)


# An aggregator more.


def admit_second(one: Served) -> int:
    port = free_port()
    add_member(one.path, SECOND, "aggregator", f"127.0.0.1:{port}")
    give_membership(one.path, SECOND)
    return port


@pytest.fixture
def two(running: Served) -> tuple[Served, int]:
    """Two aggregators, both of which every silo has dialled; and the port of the second."""
    port = admit_second(running)
    running.start_gate(SECOND, port)
    version = running.take_membership()
    learned(running, version)
    both_connected(running)
    running.open().close()  # the analyst learns of it from the first
    return running, port


def both_connected(one: Served, silos: tuple[str, ...] = FOUR) -> None:
    one.wait(silos)
    until(lambda: tuple(one.others[SECOND].connected) == silos, 20.0, lambda: str(one.others[SECOND].connected))


def kept(one: Served, aggregator: str) -> dict[str, bytes]:
    """Return the checkpoint that an aggregator keeps of each silo, as it was signed."""
    home = read_home(one.path / aggregator)
    store = CheckpointStore(one.path / aggregator / "heads", home.federation, home.silos)
    return {silo: store.get(silo) for silo in home.silos}


def query(one: Served, aggregator: str) -> Report:
    with one.open(aggregator) as federation:
        return federation.query(QUESTION, purpose=PURPOSE, epsilon=1.0)


def test_an_answer_that_one_aggregator_has_is_found_over_the_other(
    two: tuple[Served, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = two

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Federation, "open_answer", interrupted)
        with pytest.raises(KeyboardInterrupt):
            query(one, AGGREGATOR)
    answered(query(one, SECOND), FOUR)
    assert {silo.seen.count("propose") for silo in one.silos.values()} == {1}


def test_a_second_aggregator_is_admitted_and_each_silo_dials_both(two: tuple[Served, int]) -> None:
    """A question over either is answered, and both keep the checkpoint that names its charge."""
    one, _ = two
    for aggregator in (AGGREGATOR, SECOND):
        answered(query(one, aggregator), FOUR)
        assert kept(one, AGGREGATOR) == kept(one, SECOND)
        for silo, checkpoint in kept(one, SECOND).items():
            entries = ledger_of(one.silos[silo]).entries(100)
            charged = max(entry.seq for entry in entries if entry.event.kind == "charging")
            assert unverified(checkpoint, Checkpoint).count >= charged
    assert all(silo.starts == 2 for silo in one.silos.values()), "an aggregator more is learned of once"


def test_a_silo_leaves_an_aggregator_that_was_revoked_whoever_told_it(two: tuple[Served, int]) -> None:
    one, _ = two
    with opened(one.path / "authority" / "consilo.toml") as authority:
        revoke(authority, SECOND, "member", utc_now())
    learned(one, one.take_membership())
    until(lambda: not one.others[SECOND].connected, what=lambda: str(one.others[SECOND].connected))
    one.wait(FOUR)
    assert all(list(silo.streams.diallers) == [AGGREGATOR] for silo in one.silos.values())
    assert all(silo.streams.connected == {AGGREGATOR: True} for silo in one.silos.values())
    answered(query(one, AGGREGATOR), FOUR)


def test_a_stream_to_a_key_that_does_not_stand_any_more_ends(running: Served) -> None:
    """Though whoever has that key keeps the membership that revoked it to itself."""

    async def end(silo: LocalSilo) -> None:
        silo.dialler.check([bytes(32)])

    before = {name: running.session(name) for name in FOUR}
    for silo in running.silos.values():
        running.runner.do(end(silo))
    until(lambda: all(running.session(name) not in (None, before[name]) for name in FOUR))
    answered(ask(running), FOUR)


@pytest.mark.parametrize("asked", [AGGREGATOR, SECOND])
def test_without_one_of_two_aggregators_nothing_is_charged(
    two: tuple[Served, int], asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The question fails with a reason: by default every aggregator must keep the beginning of a charge."""
    one, port = two
    monkeypatch.setattr(checkpoint_relay, "ASK_S", 1.0)
    answered(query(one, asked), FOUR)
    before, seen = spent(one), {name: list(silo.seen) for name, silo in one.silos.items()}
    if asked == AGGREGATOR:
        one.stop_gate(SECOND)
    else:
        one.runner.do(one.gate.stop(1.0))
    began = time.monotonic()
    with pytest.raises(RoundError, match=r"too few|missing|answer"):
        query(one, asked)
    assert time.monotonic() - began < 20.0
    for name, silo in one.silos.items():
        since = silo.seen[len(seen[name]) :]
        assert "ready" in since
        assert not {"contribute", "frame", "agree", "open_shares"} & set(since)
    until(lambda: spent(one) == before, what=lambda: str(spent(one)))
    if asked == AGGREGATOR:
        one.start_gate(SECOND, port)
        both_connected(one)
        answered(query(one, asked), FOUR)
        assert kept(one, AGGREGATOR) == kept(one, SECOND)


def test_no_request_is_accepted_before_both_aggregators_were_compared_with(
    founded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second aggregator that never answered since the silos started: nothing is proposed, reserved or charged."""
    monkeypatch.setattr(checkpoint_relay, "ASK_S", 1.0)
    port = free_port()
    path = provision(tmp_path / "p", founded, f"127.0.0.1:{port}", FOUR)
    second = free_port()
    add_member(path, SECOND, "aggregator", f"127.0.0.1:{second}")
    for name in (AGGREGATOR, SECOND, ANALYST, *FOUR):
        give_membership(path, name)
    with served(path, port, FOUR) as one:
        began = time.monotonic()
        with pytest.raises(RoundError, match=r"unable: aspen \(LEDGER: .*unable: maple"):
            query(one, AGGREGATOR)
        assert time.monotonic() - began < 20.0
        assert all("share" not in silo.seen for silo in one.silos.values())
        assert all(silo.actor.guarding().uncompared == (SECOND,) for silo in one.silos.values())
        assert set(spent(one).values()) == {0}
        one.start_gate(SECOND, second)
        both_connected(one)
        until(lambda: not any(silo.actor.guarding().uncompared for silo in one.silos.values()))
        answered(query(one, AGGREGATOR), FOUR)


# An analyst of the first wire version.


def lose_the_analyst(one: Served, silo: LocalSilo) -> threading.Event:
    """End the analyst's stream when the silo is asked to contribute."""
    lost = threading.Event()

    def lose(step: str) -> None:
        if step == "contribute" and not lost.is_set():
            (session,) = [session for session, role, _ in sessions_of(one.gate) if role == "analyst"]
            lost.set()  # first: the analyst's thread may see its stream end before this one goes on
            one.runner.loop.call_soon_threadsafe(session.close, LinkError("lost on purpose"))
            time.sleep(0.5)  # the round goes on when the stream is gone

    silo.before = lose
    return lost


def test_a_lost_call_of_an_analyst_is_executed_once(running: Served) -> None:
    with running.open() as federation:
        lost = lose_the_analyst(running, running.silos["birch"])
        answered(federation.query(QUESTION, purpose=PURPOSE, epsilon=1.0), FOUR)
    assert lost.is_set()
    assert {silo.seen.count("propose") for silo in running.silos.values()} == {1}


# Certificates out of their time.


def reissued(path: Path, name: str, role: Role, days_ago: float, days: int = 1) -> tuple[bytes, bytes]:
    """Return a member's own key, and a certificate for it that the authority issued some days ago."""
    home = path / "authority"
    key = read_transport_key(path / name / "transport.key")
    request = new_certificate_request(key, Identity(NAME, role, name))
    issuer = read_transport_key(home / "authority-tls.key")
    at = utc_now() - timedelta(days=days_ago)
    return private_pem(key), issue((home / "authority.pem").read_bytes(), issuer, request, at, days)


@pytest.mark.parametrize(
    ("name", "role", "method"), [("aspen", "silo", SILO_METHOD), (ANALYST, "analyst", ANALYST_METHOD)]
)
def test_a_certificate_out_of_its_time_is_refused_in_the_handshake(
    running: Served, name: str, role: Role, method: str
) -> None:
    before = list(running.counts.events)
    for days_ago in (2.0, -2.0):  # expired yesterday; valid from the day after tomorrow
        with pytest.raises(LinkError, match="UNAVAILABLE"):
            dial(running, name, method, tls=reissued(running.path, name, role, days_ago))
    assert [event for event in running.counts.events[len(before) :] if event[0] == "refused"] == []
    welcome, _ = dial(running, name, method, tls=reissued(running.path, name, role, 0.0))
    assert welcome.wire == WIRE[-1], "the same key and names within their time"


@pytest.mark.parametrize("days_ago", [2.0, -2.0])
def test_an_aggregator_whose_certificate_is_out_of_its_time_is_refused(
    founded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days_ago: float
) -> None:
    port = free_port()
    path = provision(tmp_path / "p", founded, f"127.0.0.1:{port}", FOUR)
    place = path / AGGREGATOR / "transport.pem"
    good = place.read_bytes()
    place.write_bytes(reissued(path, AGGREGATOR, "aggregator", days_ago)[1])
    if days_ago > 0:
        with pytest.raises(CertificateError, match="expired"):
            make_gate(path, Counted())
    monkeypatch.setattr(crypto_credentials, "days_left", lambda *_: 1.0)  # an aggregator that does not look
    with served(path, port, ()) as one:
        silo = one.start_silo("aspen")
        until(lambda: len(dialled(silo)) >= 2)
        assert ("connected", (True,)) not in silo.counts.events
        with pytest.raises(FederationError, match="no connection to the aggregator: unavailable"):
            one.open()
        place.write_bytes(good)
        one.wait(("aspen",))


# Who asks for catalogues.


def test_a_catalogue_request_of_the_right_name_by_another_key_is_refused(running: Served) -> None:
    request = CatalogueRequest(federation=NAME, analyst=ANALYST, nonce=token(16), created_at=int(time.time()))
    other = SigningKey(Secret(bytes(32)))
    with running.open() as federation:
        before = {name: silo.seen.count("catalogue") for name, silo in running.silos.items()}
        with pytest.raises(FederationError, match="signature"):
            link_of(federation).catalogues(sign(request, ANALYST, other))
        with pytest.raises(FederationError, match="signed by somebody else than 'ana'"):
            link_of(federation).catalogues(sign(request, "eve", key_of(federation)))
        assert {name: silo.seen.count("catalogue") for name, silo in running.silos.items()} == before
        assert len(link_of(federation).catalogues(sign(request, ANALYST, key_of(federation)))) == len(FOUR)


# A peer that vanishes without a word.


PING_MS = {
    "grpc.keepalive_time_ms": 1000,
    "grpc.keepalive_timeout_ms": 1000,
    "grpc.http2.ping_timeout_ms": 1000,
    "grpc.http2.min_ping_interval_without_data_ms": 500,
}


def hurried(options: Any) -> list[tuple[str, object]]:
    """Return the same options with shorter times."""
    return [(name, PING_MS.get(name, value)) for name, value in options]


# gRPC waits a minute for the answer to any ping, whatever the keep-alive's own bound is.
def test_a_peer_that_vanishes_silently_is_given_up_by_both_sides(
    founded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing passes any more and no end is told: the aggregator drops the silos, and they dial again."""
    make = grpc.aio.server
    monkeypatch.setattr(grpc.aio, "server", lambda options, **others: make(options=hurried(options), **others))
    monkeypatch.setattr(silo_link, "OPTIONS", hurried(OPTIONS))
    front, back = free_port(), free_port()
    path = provision(tmp_path / "p", founded, f"127.0.0.1:{front}", FOUR)
    with Relay(front, back) as way, served(path, back, FOUR) as one:
        time.sleep(3.0)
        assert all(silo.counts.events == [("connected", (True,))] for silo in one.silos.values()), "quiet ones stay"
        way.is_closed = True
        way.vanish()
        one.wait((), 5.0)
        until(lambda: not any(silo.dialler.is_connected for silo in one.silos.values()), 8.0)
        until(lambda: all("unavailable" in str(silo.counts.events) for silo in one.silos.values()), 8.0)
        way.is_closed = False
        one.wait(FOUR)
        answered(ask(one), FOUR)


def test_a_quiet_connection_is_pinged_after_15_s_and_given_up_10_s_later(
    founded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[dict[str, object]] = []
    make = grpc.aio.server

    def server(options: Any, **others: Any) -> Any:
        given.append(dict(options))
        return make(options=options, **others)

    monkeypatch.setattr(grpc.aio, "server", server)
    port = free_port()
    with served(provision(tmp_path / "p", founded, f"127.0.0.1:{port}", ("aspen",)), port, ()):
        pass
    for options in (dict(OPTIONS), given[0]):
        assert options["grpc.keepalive_time_ms"] == 15_000
        assert options["grpc.keepalive_timeout_ms"] == 10_000
        assert options["grpc.keepalive_permit_without_calls"] == 1
        assert options["grpc.http2.max_pings_without_data"] == 0
        assert options["grpc.http2.ping_timeout_ms"] == 10_000
    least = given[0]["grpc.http2.min_ping_interval_without_data_ms"]
    assert isinstance(least, int)
    assert least < 15_000, "a server that takes no ping so soon would end the connection"


# A silo less, and the same name again.


def revoked(one: Served, name: str) -> int:
    """Revoke a silo, which goes on dialling until it is refused; return the version."""
    with opened(one.path / "authority" / "consilo.toml") as authority:
        revoke(authority, name, "member", utc_now())
    version = one.take_membership()
    silo = one.silos.pop(name)
    silo.counts.events.clear()
    until(lambda: dialled(silo).count("refused") >= 2)
    assert ("connected", (True,)) not in silo.counts.events
    silo.stop()
    return version


def test_the_others_answer_without_a_revoked_silo_until_too_few_are_left(founded: Path, tmp_path: Path) -> None:
    port = free_port()
    with served(provision(tmp_path / "p", founded, f"127.0.0.1:{port}"), port) as one:
        answered(ask(one), SILOS)
        learned(one, revoked(one, FIFTH))
        one.wait(FOUR)
        answered(ask(one), FOUR)
        assert all(set(known_to(silo).silos) == set(FOUR) for silo in one.silos.values())
        before = spent(one)
        learned(one, revoked(one, "maple"))
        one.wait(FOUR[:3])
        with pytest.raises(DeniedError, match=r"3 of 3 silos refuse: ROSTER .* 3 silos cannot lose 1 and keep 3"):
            ask(one)
        learned(one, revoked(one, "cedar"))
        one.wait(FOUR[:2])
        with pytest.raises(AnalystError, match="2 silos"):
            ask(one)
        assert spent(one) == {name: before[name] for name in FOUR[:2]}, "a refusal costs nothing"


def test_a_revoked_silo_that_is_invited_anew_answers_under_new_keys(running: Served, founded: Path) -> None:
    answered(ask(running), FOUR)
    older = kept(running, AGGREGATOR)["maple"]
    assert older
    learned(running, revoked(running, "maple"))
    running.wait(FOUR[:3])
    shutil.move(running.path / "maple", running.path / "former")
    add_silo(running.path, founded, "maple")
    version = running.take_membership()
    anew = running.start_silo("maple")
    running.wait(FOUR)
    learned(running, version)
    answered(ask(running), FOUR)
    assert anew.seen.count("contribute") == 1
    checkpoint = unverified(kept(running, AGGREGATOR)["maple"], Checkpoint)
    assert checkpoint.chain != unverified(older, Checkpoint).chain, "it is another ledger's"
    former = [(running.path / "former" / file).read_bytes() for file in ("transport.key", "transport.pem")]
    with pytest.raises(LinkError, match=r"PERMISSION_DENIED: the certificate of .*/silo/maple is revoked"):
        dial(running, "maple", tls=(former[0], former[1]))


# Other keys.


def rotated(one: Served, name: str) -> Path:
    """Renew a member's key as far as its admission, which is not installed yet."""
    request = renew(one.path / name).request
    assert request is not None
    with opened(one.path / "authority" / "consilo.toml") as authority:
        return rotate(authority, request, None, 30, utc_now())[0]


def revoke_the_old_key(one: Served, name: str) -> int:
    with opened(one.path / "authority" / "consilo.toml") as authority:
        revoke(authority, name, "old key", utc_now())
    return one.take_membership()


def tls_of(one: Served, name: str) -> tuple[bytes, bytes]:
    home = one.path / name
    return (home / "transport.key").read_bytes(), (home / "transport.pem").read_bytes()


def install(one: Served, name: str, tls: tuple[bytes, bytes]) -> None:
    for file, data in zip(("transport.key", "transport.pem"), tls, strict=True):
        replace_file(one.path / name / file, data, 0o600)


@pytest.mark.parametrize("first", ["the membership", "the admission"])
def test_a_silo_changes_its_transport_key_while_it_serves(running: Served, first: str) -> None:
    """The old key stands until it is revoked, in whichever order the files arrive; then the new one is served."""
    old = tls_of(running, "birch")
    admission = rotated(running, "birch")
    if first == "the admission":
        join(admission, running.path / "birch", "", utc_now())
    learned(running, running.take_membership())
    running.wait(FOUR)
    answered(ask(running), FOUR)
    if first == "the membership":
        join(admission, running.path / "birch", "", utc_now())
    new = tls_of(running, "birch")
    assert new != old
    for tls in (old, new):
        assert dial(running, "birch", tls=tls)[0].wire == WIRE[-1]
    version = revoke_the_old_key(running, "birch")
    learned(running, version)
    running.wait(FOUR)
    answered(ask(running), FOUR)
    with pytest.raises(LinkError, match=r"PERMISSION_DENIED: the certificate of .*/silo/birch is revoked"):
        dial(running, "birch", tls=old)
    assert read_certificate(new[1]) in [certificate for _, _, certificate in sessions_of(running.gate)]
    for name in FOUR:
        assert versions(running.path / name, running) == versions(running.path / "authority", running)


def versions(home: Path, one: Served) -> list[bytes]:
    return [signed.envelope for signed in read_log(home / LOG, anchor_of(one.gate)).versions]


def test_an_admission_installed_while_its_silo_serves_stands_in_the_log_once(running: Served) -> None:
    join(rotated(running, "birch"), running.path / "birch", "", utc_now())
    learned(running, running.take_membership())
    assert (running.path / "birch" / LOG).read_bytes() == (running.path / "authority" / LOG).read_bytes()


def test_an_aggregator_changes_its_transport_key_and_silos_that_know_only_the_old_one_connect(
    running: Served,
) -> None:
    old = tls_of(running, AGGREGATOR)
    maple = running.silos.pop("maple")
    maple.stop()  # away until the old key is revoked
    running.wait(FOUR[:3])
    pins = newest_pins(maple.dialler)
    join(rotated(running, AGGREGATOR), running.path / AGGREGATOR, "", utc_now())
    learned(running, running.take_membership())
    running.wait(FOUR[:3])
    version = revoke_the_old_key(running, AGGREGATOR)
    learned(running, version)
    maple = running.start_silo("maple")
    running.wait(FOUR)
    learned(running, version)
    answered(ask(running), FOUR)
    assert all(newest_pins(silo.dialler) != pins for silo in running.silos.values())
    assert all(len(set(newest_pins(silo.dialler))) == 1 for silo in running.silos.values()), "one pin stands"

    # Whoever has the old key is no aggregator for them any more.
    new = tls_of(running, AGGREGATOR)
    running.runner.do(running.gate.stop(1.0))
    until(lambda: not any(silo.dialler.is_connected for silo in running.silos.values()))
    install(running, AGGREGATOR, old)
    for silo in running.silos.values():
        silo.counts.events.clear()

    async def begin() -> Gate:
        gate = make_gate(running.path, Counted())
        await gate.start(running.target)
        return gate

    running.others["former"] = former = running.runner.do(begin())
    until(lambda: all(len(dialled(silo)) >= 2 for silo in running.silos.values()))
    assert not any(("connected", (True,)) in silo.counts.events for silo in running.silos.values())
    with pytest.raises(FederationError, match="no connection to the aggregator: unavailable"):
        running.open()
    install(running, AGGREGATOR, new)
    until(lambda: tuple(former.connected) == FOUR)


# Files of somebody else.


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (("transport.key", "transport.pem"), "the certificate is of consilo://consortium/silo/aspen, expected"),
        (("transport.key",), "transport.key and transport.pem do not belong together"),
        (("transport.pem",), "the certificate is of consilo://consortium/silo/aspen, expected"),
    ],
)
@pytest.mark.timeout(60)  # else it would serve
def test_a_silo_with_files_of_another_does_not_start(
    founded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], files: tuple[str, ...], reason: str
) -> None:
    path = provision(tmp_path / "p", founded, "127.0.0.1:1", ("aspen", "birch"))
    for file in files:
        shutil.copy(path / "aspen" / file, path / "birch" / file)
    policy = str(path / "birch" / "policy.toml")
    nowhere = ["--ray", "127.0.0.1:1"]  # so that nothing starts where the check fails
    assert silo_node.owner.cli.main(["serve", "--policy", policy, "--monitor-port", "0", *nowhere]) == 1
    said = capsys.readouterr().err
    assert reason in said
    assert "hint: " in said
    assert not (path / "birch" / "ledger.sqlite").exists(), "nothing was begun"


def test_a_silo_with_the_identity_key_of_another_does_not_start(founded: Path, tmp_path: Path) -> None:
    path = provision(tmp_path / "p", founded, "127.0.0.1:1", ("aspen", "birch"))
    shutil.copy(path / "aspen" / "identity.key", path / "birch" / "identity.key")
    credentials(path, "birch", "silo")
    problem = FederatedSilo(str(path / "birch" / "policy.toml")).problem()
    assert problem is not None
    assert "the roster does not name 'birch' with this identity key" in problem[0]
    assert not (path / "birch" / "ledger.sqlite").exists(), "nothing was begun"


@pytest.mark.process
def test_a_second_process_does_not_serve_the_directory_of_an_aggregator(founded: Path, tmp_path: Path) -> None:
    path = provision(tmp_path / "p", founded, silos=FOUR[:1])
    lock = hold(path / AGGREGATOR / "serve.lock")
    assert lock is not None
    command = [sys.executable, "-m", "aggregator", "serve", str(path / AGGREGATOR), "--listen", "127.0.0.1:0"]
    with lock:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "is served already" in done.stderr


@pytest.mark.process
@pytest.mark.parametrize("whose", [ANALYST, "authority", FOUR[0]])
def test_an_aggregator_is_not_served_from_the_directory_of_another_role(
    founded: Path, tmp_path: Path, whose: str
) -> None:
    path = provision(tmp_path / "p", founded, silos=FOUR[:1])
    command = [sys.executable, "-m", "aggregator", "serve", str(path / whose), "--listen", "127.0.0.1:0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "name the directory of an aggregator" in done.stderr
    assert not (path / whose / "ray.token").exists()
