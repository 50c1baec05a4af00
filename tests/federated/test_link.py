"""Silos and analysts over real gRPC streams with mutual TLS on loopback: answers, lost streams, and who is refused."""

import asyncio
import shutil
import socket
import threading
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest

from aggregator import callers
from aggregator import streams as aggregator_streams
from aggregator.holders import MAX_CONNECTIONS
from aggregator.home import read_home
from aggregator.store import CheckpointStore
from analyst.errors import RoundError
from analyst.reports.estimates import Estimate
from analyst.reports.report import Report
from crypto.errors import LinkError
from crypto.keys import Secret, SigningKey
from crypto.rounds import payload
from crypto.wire import sign, unverified, verify
from federation.authority import opened, revoke
from federation.errors import FederationError
from federation.members.certificates import (
    Identity,
    host_of,
    issue,
    new_authority,
    new_certificate_request,
    new_transport_key,
    pin_of,
    private_pem,
    read_certificate,
    read_transport_key,
    utc_now,
)
from federation.transport.calls import CallFailedError
from federation.transport.frames import DATA_BYTES, MAX_FRAME_BYTES, WIRE, Kind, Parts, frame
from federation.transport.handshake import ANALYST_METHOD, OPTIONS, SILO_METHOD, Hello, greet
from federation.transport.session import Session
from policies.budget.ledger import Checkpoint
from silo_node.ledger.log import Signer
from silo_node.rounds import steps
from silo_node.transport.checkpoint_relay import Objection
from tests.harness.federated import (
    AGGREGATOR,
    NAME,
    SILOS,
    LocalSilo,
    Served,
    channel,
    free_port,
    provision,
    served,
)
from tests.harness.inside import (
    answer_by,
    copied,
    handle_of,
    key_of,
    known_to,
    ledger_of,
    link_of,
    membership_of,
    pretend_restart,
    rounds_of,
    server_of,
    session_of,
    silence,
)
from tests.harness.inside import call as call_link
from tests.harness.relay import Relay
from tests.harness.waiting import until

pytestmark = pytest.mark.server

QUESTION = "SELECT sex, COUNT(*) AS n FROM lung GROUP BY sex"
PURPOSE = "health-research"
HELLO = Hello(wire=WIRE, instance=bytes(16), membership=0, software="test")


@pytest.fixture(scope="session")
def provisioned(founded: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    port = free_port()
    return provision(tmp_path_factory.mktemp("federated") / "p", founded, f"127.0.0.1:{port}"), port


@pytest.fixture
def running(founded: Path, tmp_path: Path) -> Iterator[Served]:
    port = free_port()
    with served(provision(tmp_path / "p", founded, f"127.0.0.1:{port}"), port) as one:
        yield one


@pytest.fixture(scope="module")
def _lasting(founded: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    place = tmp_path_factory.mktemp("lasting")
    source = Path(shutil.copytree(founded, place / "founded"))
    for policy in source.glob("silos/*/policy.toml"):
        text = policy.read_text()
        assert "{ rho = 1.0 }" in text
        policy.write_text(text.replace("{ rho = 1.0 }", "{ rho = 100 }"))
    port = free_port()
    with served(provision(place / "p", source, f"127.0.0.1:{port}"), port) as one:
        yield one


@pytest.fixture
def lasting(_lasting: Served) -> Iterator[Served]:
    """One federation with a large budget, for all tests that need no fresh one. What was asked stays spent.

    After each test the aggregator answers for itself again, every silo is connected and what they counted is forgotten.
    """
    server = server_of(_lasting.gate)
    yield _lasting
    answer_by(_lasting.gate, server)
    for silo in _lasting.silos.values():
        silo.before = lambda step: None
    _lasting.wait(SILOS)
    for silo in _lasting.silos.values():
        silo.seen.clear()
        silo.counts.events.clear()


def ask(one: Served, epsilon: float = 1.0) -> Report:
    with one.open() as federation:
        return federation.query(QUESTION, purpose=PURPOSE, epsilon=epsilon)


def statuses(report: Report) -> dict[str, str]:
    return {silo: outcome.status for silo, outcome in report.silos.items()}


def test_a_question_is_answered_over_streams_that_the_silos_dialled(lasting: Served) -> None:
    report = ask(lasting)
    assert statuses(report) == dict.fromkeys(SILOS, "answered")
    assert [row["sex"] for row in report.rows] == ["female", "male"]


def test_a_stream_lost_in_mid_round_is_dialled_again_and_the_round_goes_on(lasting: Served) -> None:
    """The reply of a step that was executed before the stream was lost is sent again, and executed once."""
    silo = lasting.silos["birch"]
    connected = silo.counts.events.count(("connected", (True,)))
    lost = threading.Event()

    def lose(step: str) -> None:
        if step == "share" and not lost.is_set():
            lost.set()
            lasting.lose("birch")
            time.sleep(0.2)  # the step ends when its stream is gone

    silo.before = lose
    report = ask(lasting)
    assert lost.is_set()
    assert statuses(report) == dict.fromkeys(SILOS, "answered")
    assert silo.seen.count("share") == 1
    assert silo.counts.events.count(("connected", (True,))) > connected


def test_a_silo_that_comes_back_as_another_process_is_a_drop_out(running: Served) -> None:
    silo = running.silos["birch"]

    def restart(step: str) -> None:
        if step == "share":
            silo.before = lambda step: None
            pretend_restart(silo.dialler)
            running.lose("birch")
            time.sleep(0.2)

    silo.before = restart
    report = ask(running)
    assert statuses(report)["birch"] == "missing"
    assert [statuses(report)[name] for name in ("aspen", "cedar", "maple", "rowan")] == ["answered"] * 4
    assert silo.seen.count("share") == 1


def test_an_aggregator_and_a_silo_without_a_common_version_part_with_a_reason(founded: Path, tmp_path: Path) -> None:
    port = free_port()
    with served(provision(tmp_path / "p", founded, f"127.0.0.1:{port}"), port, (), wire=(2,)) as one:
        with pytest.raises(LinkError, match=r"no common wire version: here 2 \(.*\), there 1 \(test\)"):
            dial(one, "aspen", hello=HELLO.model_copy(update={"wire": (1,)}))
        assert ("refused", "greeting") in one.counts.events


def test_a_silo_that_stops_ends_its_round_and_takes_no_new_one(running: Served) -> None:
    silo = running.silos["cedar"]
    stopped = threading.Event()

    def stop(step: str) -> None:
        if step == "contribute" and not stopped.is_set():
            stopped.set()
            asyncio.run_coroutine_threadsafe(silo.dialler.drain(10.0), running.runner.loop)
            time.sleep(0.1)

    silo.before = stop
    assert statuses(ask(running)) == dict.fromkeys(SILOS, "answered"), "the round it was in ends with it"
    until(lambda: "cedar" not in running.gate.connected)
    assert statuses(ask(running))["cedar"] == "missing"


def test_an_aggregator_that_stops_lets_the_round_under_way_end(running: Served) -> None:
    began = threading.Event()

    def slow(step: str) -> None:
        if step == "contribute":
            began.set()
            time.sleep(0.5)

    running.silos["aspen"].before = slow
    found: list[Report] = []
    with running.open() as federation:
        thread = threading.Thread(target=lambda: found.append(federation.query(QUESTION, purpose=PURPOSE, epsilon=1)))
        thread.start()
        assert began.wait(20)
        running.runner.do(running.gate.stop(20.0))
        thread.join(20)
    assert statuses(found[0]) == dict.fromkeys(SILOS, "answered")
    with pytest.raises(FederationError):
        ask(running)


def dial(
    one: Served,
    name: str,
    method: str = SILO_METHOD,
    tls: tuple[bytes | None, bytes | None] | None = None,
    hello: Hello | None = HELLO,
    then: list[bytes] | None = None,
) -> tuple[Any, str]:
    """Dial as `name` with its own or another key and certificate; return the greeting, or raise what came instead."""
    home = one.path / name

    async def body() -> tuple[Any, str]:
        key, chain = tls or ((home / "transport.key").read_bytes(), (home / "transport.pem").read_bytes())
        authority = (one.path / AGGREGATOR / "authority.pem").read_bytes()
        pin = pin_of(read_transport_key(one.path / AGGREGATOR / "transport.key").public_key())
        options = [*OPTIONS, ("grpc.max_send_message_length", -1), ("grpc.ssl_target_name_override", host_of(pin))]
        options = [option for option in options if option != ("grpc.max_send_message_length", MAX_FRAME_BYTES)]
        credentials = grpc.ssl_channel_credentials(authority, key, chain)
        async with grpc.aio.secure_channel(one.target, credentials, options=options) as connection:
            stream: Any = connection.stream_stream(method)()
            try:
                async with asyncio.timeout(15):
                    welcome = await greet(stream.read, stream.write, stream.initial_metadata, hello) if hello else None
                    for raw in then or ():
                        await stream.write(raw)
                    if then is not None:
                        while await stream.read() is not grpc.aio.EOF:
                            pass
                    return welcome, ""
            except (LinkError, asyncio.InvalidStateError, grpc.aio.AioRpcError) as err:
                code, details = await stream.code(), await stream.details()
                raise LinkError(f"{code.name}: {details}") from err
            finally:
                if then is not None and stream.done():
                    code, details = await stream.code(), await stream.details()
                    if code is not grpc.StatusCode.OK:
                        raise LinkError(f"{code.name}: {details}")

    return asyncio.run(body())


@pytest.fixture(scope="module")
def hub(founded: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A federation that the refused do not change."""
    port = free_port()
    path = provision(tmp_path_factory.mktemp("hub") / "p", founded, f"127.0.0.1:{port}")
    with served(path, port) as one:
        yield one
        assert statuses(ask(one)) == dict.fromkeys(SILOS, "answered"), "whoever was refused left no trace"


def test_the_right_certificate_is_greeted(hub: Served) -> None:
    welcome, _ = dial(hub, "ana", ANALYST_METHOD)
    assert welcome.wire == WIRE[-1]


def test_refused_without_a_certificate(hub: Served) -> None:
    with pytest.raises(LinkError, match="UNAVAILABLE"):
        dial(hub, "aspen", tls=(None, None))


def test_refused_with_the_right_name_of_another_authority(hub: Served, tmp_path: Path) -> None:
    rogue = new_transport_key(tmp_path / "rogue.key")
    authority = new_authority(rogue, NAME, utc_now())
    key = new_transport_key(tmp_path / "aspen.key")
    certificate = issue(authority, rogue, new_certificate_request(key, Identity(NAME, "silo", "aspen")), utc_now(), 10)
    with pytest.raises(LinkError, match="UNAVAILABLE"):
        dial(hub, "aspen", tls=(private_pem(key), certificate))


def of_the_authority(one: Served, place: Path, identity: Identity) -> tuple[bytes, bytes]:
    """Return a key and a certificate that the federation's own authority issued, but nobody admitted."""
    home = one.path / "authority"
    key = new_transport_key(place)
    authority = (home / "authority.pem").read_bytes()
    request = new_certificate_request(key, identity)
    return private_pem(key), issue(authority, read_transport_key(home / "authority-tls.key"), request, utc_now(), 10)


@pytest.mark.parametrize("name", ["stranger", "aspen"])
def test_refused_if_valid_but_not_a_member(hub: Served, tmp_path: Path, name: str) -> None:
    """Also where the name is a member's: its key is not one that the membership lists."""
    tls = of_the_authority(hub, tmp_path / "x.key", Identity(NAME, "silo", name))
    with pytest.raises(LinkError, match=r"PERMISSION_DENIED: .* is not a member with this certificate in version \d+"):
        dial(hub, "aspen", tls=tls)


def test_refused_in_another_federation_of_the_same_authority(hub: Served, tmp_path: Path) -> None:
    tls = of_the_authority(hub, tmp_path / "x.key", Identity("other", "silo", "aspen"))
    with pytest.raises(LinkError, match=r"PERMISSION_DENIED"):
        dial(hub, "aspen", tls=tls)


def test_refused_in_a_role_that_the_certificate_does_not_have(hub: Served) -> None:
    with pytest.raises(LinkError, match=r"PERMISSION_DENIED: 'ana' is a member, but no silo"):
        dial(hub, "ana", SILO_METHOD)
    with pytest.raises(LinkError, match=r"PERMISSION_DENIED: 'aspen' is a member, but no analyst"):
        dial(hub, "aspen", ANALYST_METHOD)


def test_refused_in_plaintext(hub: Served) -> None:
    async def body() -> None:
        async with grpc.aio.insecure_channel(hub.target, options=list(OPTIONS)) as connection:
            stream: Any = connection.stream_stream(SILO_METHOD)()
            with pytest.raises((LinkError, grpc.aio.AioRpcError, asyncio.InvalidStateError)):
                await greet(stream.read, stream.write, stream.initial_metadata, HELLO)
            assert await stream.code() is grpc.StatusCode.UNAVAILABLE

    asyncio.run(body())


def test_revoked_while_connected_and_when_it_comes_back(running: Served) -> None:
    with opened(running.path / "authority" / "consilo.toml") as authority:
        revoke(authority, "rowan", "member", utc_now())
    (running.path / AGGREGATOR / "membership.log").write_bytes(
        (running.path / "authority" / "membership.log").read_bytes()
    )

    async def refresh() -> None:
        assert running.gate.refresh()

    running.runner.do(refresh())
    running.wait(SILOS[:4])
    with pytest.raises(LinkError, match=r"PERMISSION_DENIED: the certificate of .*/silo/rowan is revoked"):
        dial(running, "rowan")
    # The others learn of it when they dial again; the question goes to those that are left.
    for silo in SILOS[:4]:
        running.silos[silo].stop()
    until(lambda: not running.gate.connected)
    for silo in SILOS[:4]:
        running.start_silo(silo)
    running.wait(SILOS[:4])
    assert set(statuses(ask(running))) == set(SILOS[:4])


def test_a_silo_refuses_a_server_whose_key_is_not_the_aggregators(hub: Served, tmp_path: Path) -> None:
    """Another member's certificate of the same authority does not make a server an aggregator."""
    home = hub.path

    async def body() -> None:
        server = grpc.aio.server()
        credentials = grpc.ssl_server_credentials(
            [((home / "birch" / "transport.key").read_bytes(), (home / "birch" / "transport.pem").read_bytes())],
            (home / AGGREGATOR / "authority.pem").read_bytes(),
            True,
        )
        port = server.add_secure_port("127.0.0.1:0", credentials)
        await server.start()
        try:
            imposter = Served(hub.path, hub.runner, hub.gate, port, hub.counts)
            with pytest.raises(LinkError, match="UNAVAILABLE"):
                await asyncio.to_thread(dial, imposter, "aspen")
        finally:
            await server.stop(None)

    asyncio.run(body())


def test_refused_with_an_oversized_frame(hub: Served) -> None:
    with pytest.raises(LinkError, match="RESOURCE_EXHAUSTED"):
        dial(hub, "ana", ANALYST_METHOD, then=[bytes([Kind.DATA]) + bytes(MAX_FRAME_BYTES)])


def test_refused_with_a_message_above_the_limit_in_small_frames(hub: Served) -> None:
    head = frame(Kind.CALL, 1, b"\x06submit\x00\x40\x00\x00\x00\x01" + (5 << 20).to_bytes(4, "big") + bytes(65536))
    with pytest.raises(LinkError, match="INVALID_ARGUMENT: a call of 5242880 bytes, at most 4194304"):
        dial(hub, "ana", ANALYST_METHOD, then=[head])


def test_refused_with_data_beyond_the_credit(hub: Served) -> None:
    head = frame(Kind.CALL, 1, b"\x06submit\x00\x40\x00\x00\x00\x01" + (3 << 20).to_bytes(4, "big") + bytes(65536))
    with pytest.raises(LinkError, match="beyond the credit"):
        dial(hub, "ana", ANALYST_METHOD, then=[head, *[frame(Kind.DATA, 1, bytes(DATA_BYTES))] * 2])


def test_refused_if_the_first_frame_is_no_greeting(hub: Served) -> None:
    with pytest.raises(LinkError, match="FAILED_PRECONDITION: the first frame is not a greeting"):
        dial(hub, "aspen", hello=None, then=[frame(Kind.DATA, 0, b"x")])


def test_a_request_signed_by_somebody_else_than_the_certificate_says_is_refused(hub: Served) -> None:
    """Identity is the certificate's name: another analyst's signed request is not relayed."""
    seen = {name: list(silo.seen) for name, silo in hub.silos.items()}
    with hub.open() as federation:
        _, request = federation.prepare(QUESTION, purpose=PURPOSE, epsilon=0.01)
        foreign = sign(request, "eve", key_of(federation))
        before = {name: silo.seen.count("propose") for name, silo in hub.silos.items()}
        with pytest.raises(FederationError, match="signed by somebody else than 'ana'"):
            link_of(federation).submit(foreign)
    assert {name: silo.seen.count("propose") for name, silo in hub.silos.items()} == before
    assert seen


@pytest.mark.parametrize("step", ["_round", "__class__", "close", "open_shares"])
def test_analysts_may_call_nothing_but_what_is_listed(hub: Served, step: str) -> None:
    with hub.open() as federation, pytest.raises(FederationError, match="has no call"):
        call_link(link_of(federation), step, b"")


def test_a_silo_answers_no_step_but_what_is_listed(lasting: Served) -> None:
    async def body() -> Parts:
        return await handle_of(lasting.gate, "aspen").call("close")

    with pytest.raises(LinkError, match="a silo has no step 'close'"):
        lasting.runner.do(body())
    assert "close" not in lasting.silos["aspen"].seen


def test_a_flood_of_connections_is_bounded_and_the_federation_answers_meanwhile(hub: Served) -> None:
    flood: list[socket.socket] = []
    refused = 0
    try:
        for _ in range(MAX_CONNECTIONS + 150):
            one = socket.create_connection(("127.0.0.1", hub.port), timeout=5)
            one.settimeout(0.5)
            flood.append(one)
        time.sleep(1.0)
        for one in flood:
            one.setblocking(False)
            try:
                refused += one.recv(1) == b""
            except BlockingIOError:
                pass
            except OSError:
                refused += 1
        assert refused >= 100, f"{refused} of {len(flood)} connections were ended"
        assert hub.gate.connected == sorted(SILOS), "streams that were there stay"
    finally:
        for one in flood:
            one.close()
    time.sleep(0.5)
    assert statuses(ask(hub)) == dict.fromkeys(SILOS, "answered")


def test_a_flood_of_streams_by_a_member_is_refused(hub: Served) -> None:
    async def body() -> list[str]:
        async with channel(hub, "ana") as connection:
            streams = [connection.stream_stream(ANALYST_METHOD)() for _ in range(callers.STREAMS_PER_ANALYST + 5)]

            async def one(stream: Any) -> str:
                try:
                    await greet(stream.read, stream.write, stream.initial_metadata, HELLO)
                except (LinkError, grpc.aio.AioRpcError, asyncio.InvalidStateError):
                    return str((await stream.code()).name)
                return "greeted"

            found = await asyncio.gather(*(one(stream) for stream in streams))
            for stream in streams:
                stream.cancel()
            return found

    found = asyncio.run(body())
    assert found.count("greeted") == callers.STREAMS_PER_ANALYST
    assert found.count("RESOURCE_EXHAUSTED") == 5


def test_neither_wire_nor_disk_nor_frames_hold_a_row_a_contribution_or_a_sum(
    founded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that passes is recorded twice: as TCP carries it, and as the aggregator sees it inside TLS."""
    seen: list[bytes] = []
    plain: list[Any] = []
    blinded: list[bytes] = []
    receive = Session.receive

    async def recorded(self: Session, raw: bytes) -> None:
        seen.append(raw)
        await receive(self, raw)

    def spied(scheme: Any, vector: Any, plus: Any, minus: Any, seals: Any) -> Any:
        plain.append(scheme.ring.signed(vector.words).astype(np.int64))
        masked = payload.masked_input(scheme, vector, plus, minus, seals)
        blinded.extend(masked.piece(number) for number in range(len(masked.digests())))
        return masked

    monkeypatch.setattr(Session, "receive", recorded)
    monkeypatch.setattr(steps, "masked_input", spied)
    front, back = free_port(), free_port()
    path = provision(tmp_path / "p", founded, f"127.0.0.1:{front}")
    with Relay(front, back) as relay, served(path, back) as one:
        for silo in one.silos.values():
            silence(silo)
        report = ask(one)
        wire = relay.recorded()
    assert len(plain) == 5
    first = report.rows[0]["n"]
    assert isinstance(first, Estimate)
    disk = [file.read_bytes() for file in (path / AGGREGATOR).rglob("*") if file.is_file()]
    vectors = [*plain, np.sum(plain, axis=0)]
    assert all(vector[0] > 0 for vector in vectors), "what is looked for is not all zeros"
    encoded = [vector.astype(word).tobytes() for vector in vectors for word in ("<i8", ">i8", "<i4", ">i4")]
    needles = [*encoded, *(one[:8] for one in encoded), b"NCCTG-"]
    for place, held in (("wire", wire), ("frames", seen), ("disk", disk)):
        joined = b"\0".join(held)
        assert len(joined) > 10_000, place
        assert not [needle for needle in needles if needle in joined], place
    # The scan would find them: what is blinded is there, in the frames and on the disk, but not on the wire.
    assert all(any(piece in raw for raw in seen) and any(piece in raw for raw in disk) for piece in blinded)
    assert not any(piece in b"".join(wire) for piece in blinded)
    assert any(b"contribution" in raw for raw in seen), "the scan inside TLS sees the round"
    assert not any(b"contribution" in raw for raw in wire), "TLS hides even its messages"


# The checkpoints of the silos' ledgers: docs/ledger.md section 3.


def kept(one: Served, silo: str) -> Checkpoint:
    """Return the checkpoint that the aggregator keeps of a silo on its disk."""
    home = read_home(one.path / AGGREGATOR)
    store = CheckpointStore(one.path / AGGREGATOR / "heads", home.federation, home.silos)
    return verify(store.get(silo), Checkpoint, {silo: home.silos[silo]}).message


def backup(silo: LocalSilo, place: Path) -> Path:
    return copied(ledger_of(silo), place)


def restored(one: Served, silo: LocalSilo, place: Path) -> LocalSilo:
    """Stop a silo, put an older ledger in the place of its own, and start it again."""
    silo.stop()
    until(lambda: silo.name not in one.gate.connected)
    home = one.path / silo.name
    for file in home.glob("ledger.sqlite*"):
        file.unlink()
    shutil.copy(place, home / "ledger.sqlite")
    return one.start_silo(silo.name)


def objection(silo: LocalSilo) -> Objection:
    until(silo.relay.refused.done)
    return silo.relay.refused.result()


def test_every_contribution_s_charge_is_in_a_checkpoint_that_the_aggregator_keeps(lasting: Served) -> None:
    for _ in range(2):
        ask(lasting)
        for silo in SILOS:
            entries = ledger_of(lasting.silos[silo]).entries(100)
            charged = max(entry.seq for entry in entries if entry.event.kind == "charging")
            assert kept(lasting, silo).count >= charged


def test_a_restored_older_ledger_is_refused_when_its_silo_starts(running: Served, tmp_path: Path) -> None:
    ask(running)
    cedar = running.silos["cedar"]
    older = backup(cedar, tmp_path / "older.sqlite")
    ask(running)
    spent = ledger_of(cedar).spending().lifetime
    cedar = restored(running, cedar, older)
    assert "older than its last checkpoint" in objection(cedar).message
    assert "put the newest ledger back" in objection(cedar).hint
    assert objection(cedar).is_final
    forgotten = ledger_of(cedar).spending().lifetime
    assert forgotten < spent
    running.wait(SILOS)
    outcome = ask(running).silos["cedar"]
    assert (outcome.status, outcome.denials[0].code) == ("unable", "LEDGER")
    assert ledger_of(cedar).spending().lifetime == forgotten


def test_an_empty_ledger_in_place_of_a_used_one_is_refused(running: Served, tmp_path: Path) -> None:
    empty = backup(running.silos["cedar"], tmp_path / "empty.sqlite")
    ask(running)
    assert objection(restored(running, running.silos["cedar"], empty)).is_final


def test_checkpoints_survive_a_restart_of_the_aggregator(founded: Path, tmp_path: Path) -> None:
    port = free_port()
    path = provision(tmp_path / "p", founded, f"127.0.0.1:{port}")
    with served(path, port) as one:
        older = backup(one.silos["aspen"], tmp_path / "older.sqlite")
        ask(one)
        before = {silo: kept(one, silo) for silo in SILOS}
    with served(path, port, SILOS[1:]) as one:
        assert all(kept(one, silo).count >= before[silo].count for silo in SILOS)
        aspen = one.start_silo("aspen")
        one.wait(SILOS)
        assert statuses(ask(one)) == dict.fromkeys(SILOS, "answered"), "whose ledger goes on may"
        assert kept(one, "aspen").count > before["aspen"].count
        assert objection(restored(one, aspen, older)).is_final


def call(one: Served, name: str, step: str, *arguments: bytes) -> Parts:
    """Make a call to the aggregator over the stream of a silo, as a silo that was changed could."""

    async def body() -> Parts:
        session = session_of(one.silos[name].dialler)
        assert session is not None
        return await session.call(1 << 40, step, arguments)

    return one.runner.do(body())


def test_a_request_of_the_right_name_by_another_key_is_refused(hub: Served) -> None:
    before = {name: silo.seen.count("propose") for name, silo in hub.silos.items()}
    with hub.open() as federation:
        _, request = federation.prepare(QUESTION, purpose=PURPOSE, epsilon=0.01)
        forged = sign(request, "ana", SigningKey(Secret(bytes(32))))
        with pytest.raises(FederationError, match="signature"):
            link_of(federation).submit(forged)
    assert {name: silo.seen.count("propose") for name, silo in hub.silos.items()} == before


def test_calls_of_one_analyst_are_counted_over_all_its_processes(hub: Served) -> None:
    async def fill(by: int) -> None:
        hub.gate.callers.under_way["ana"] += by

    hub.runner.do(fill(callers.MAX_ASKED))
    try:
        with pytest.raises(FederationError, match="calls of 'ana' are under way"):
            ask(hub)
    finally:
        hub.runner.do(fill(-callers.MAX_ASKED))
    assert set(statuses(ask(hub)).values()) == {"answered"}


def test_a_stream_is_given_up_only_where_it_has_ended() -> None:
    """Else one call too many would cut off a silo that believes to be connected."""

    class Busy:
        wire, is_draining = WIRE[-1], False

        def __init__(self) -> None:
            self.closed = asyncio.Event()

        async def call(self, *what: object) -> Parts:
            raise LinkError("not now")

    async def body() -> None:
        handle, session = aggregator_streams.StreamSilo("aspen", 0.05), Busy()
        handle.attach(session, b"one")  # type: ignore[arg-type]
        with pytest.raises(LinkError, match="not now"):
            await handle.call("report")
        assert handle.is_connected
        session.closed.set()
        with pytest.raises(LinkError, match="not connected"):
            await handle.call("report")
        assert not handle.is_connected

    asyncio.run(body())


def test_calls_wait_for_the_silos_of_an_aggregator_that_was_started() -> None:
    """Else whoever asks first after a restart is answered without the silos that dial a second later."""

    class There:
        wire, is_draining = WIRE[-1], False

        async def call(self, *what: object) -> Parts:
            return (b"here",)

    async def body() -> None:
        handle = aggregator_streams.StreamSilo("aspen", 0.2)
        handle.expect()
        call = asyncio.ensure_future(handle.call("report"))
        await asyncio.sleep(0.05)
        handle.attach(There(), b"one")  # type: ignore[arg-type]
        assert await call == (b"here",)
        gone = aggregator_streams.StreamSilo("birch", 0.05)
        gone.expect()
        for most in (1.0, 0.04):  # seconds; it is waited for once, and then known to be away
            began = asyncio.get_running_loop().time()
            with pytest.raises(LinkError, match="birch is not connected"):
                await gone.call("report")
            assert asyncio.get_running_loop().time() - began < most

    asyncio.run(body())


def test_a_silo_can_neither_read_nor_write_the_checkpoint_of_another(lasting: Served) -> None:
    ask(lasting)
    before = {silo: kept(lasting, silo) for silo in SILOS}
    foreign = lasting.silos["aspen"].actor.guarding().checkpoint
    with pytest.raises(CallFailedError, match="signed by somebody else than 'birch'"):
        call(lasting, "birch", "put_head", foreign)
    with pytest.raises(CallFailedError, match="no call 'get_head' for silos that takes these arguments"):
        call(lasting, "birch", "get_head", b"aspen")
    (own,) = call(lasting, "birch", "get_head")
    assert unverified(own, Checkpoint).silo == "birch"
    assert {silo: kept(lasting, silo) for silo in SILOS} == before
    for step in ("submit", "report", "catalogues", "_round", "__class__"):
        with pytest.raises(CallFailedError, match="has no call"):
            call(lasting, "birch", step, b"")


def test_a_forged_checkpoint_is_not_kept(lasting: Served) -> None:
    ask(lasting)
    before = kept(lasting, "birch")
    aspen = known_to(lasting.silos["aspen"]).signing
    birch = known_to(lasting.silos["birch"]).signing
    for forged in (
        Signer("birch", NAME, aspen).checkpoint(10**6, bytes(32), 5),
        Signer("birch", "another", birch).checkpoint(10**6, bytes(32), 5),
        sign(Checkpoint(federation=NAME, silo="aspen", count=10**6, chain=bytes(32), at=5), "birch", birch),
        b"",
        bytes(500),
        bytes(60 << 10),
    ):
        with pytest.raises(CallFailedError):
            call(lasting, "birch", "put_head", forged)
    assert kept(lasting, "birch") == before


class Liar:
    """Stands before an aggregator's server and answers what it is told to where silos ask for checkpoints."""

    def __init__(self, one: Served) -> None:
        assert server_of(one.gate) is not None
        self._one, self._server = one, server_of(one.gate)
        self.got = self.took = ""
        answer_by(one.gate, self)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._server, name)

    async def get_checkpoint(self, silo: bytes) -> bytes:
        return await self._answer(self.got, silo.decode(), self._server.get_checkpoint(silo))

    async def put_checkpoint(self, envelope: bytes) -> bytes:
        return await self._answer(
            self.took, unverified(envelope, Checkpoint).silo, self._server.put_checkpoint(envelope)
        )

    async def _answer(self, lie: str, silo: str, truth: Coroutine[Any, Any, bytes]) -> bytes:
        if not lie:
            return await truth
        truth.close()
        if lie == "silence":
            await asyncio.sleep(60)
        signing = known_to(self._one.silos[silo]).signing
        answers = {
            "garbage": b"garbage",
            "nothing": b"",
            "another silo's": self._one.silos["aspen" if silo != "aspen" else "birch"].actor.guarding().checkpoint,
            "another key's": Signer(silo, NAME, SigningKey(Secret(bytes(32)))).checkpoint(1, bytes(32), 5),
            "another federation's": Signer(silo, "another", signing).checkpoint(1, bytes(32), 5),
        }
        return answers[lie]


LIES = ("garbage", "another silo's", "another key's", "another federation's")


@pytest.mark.parametrize("lie", LIES)
def test_an_aggregator_that_answers_what_the_silo_never_signed_makes_it_wait_only(lasting: Served, lie: str) -> None:
    ask(lasting)
    liar = Liar(lasting)
    liar.got = lie
    lasting.silos["cedar"].stop()
    until(lambda: "cedar" not in lasting.gate.connected)
    cedar = lasting.start_silo("cedar")
    lasting.wait(SILOS)
    assert statuses(ask(lasting))["cedar"] == "unable", "and it says so itself"
    assert "share" not in cedar.seen
    until(lambda: cedar.seen.count("check_reply") > 2)
    assert cedar.actor.guarding().uncompared == (AGGREGATOR,)
    assert not cedar.relay.refused.done(), "it asks again"
    liar.got = ""
    until(lambda: not cedar.actor.guarding().uncompared)
    assert statuses(ask(lasting)) == dict.fromkeys(SILOS, "answered")


@pytest.mark.parametrize("lie", ["nothing", *LIES])
def test_nobody_is_ready_unless_the_aggregator_took_the_beginning_of_the_charge(lasting: Served, lie: str) -> None:
    liar = Liar(lasting)
    liar.took = lie
    before = {name: ledger_of(silo).spending().lifetime for name, silo in lasting.silos.items()}
    seen = {name: len(silo.seen) for name, silo in lasting.silos.items()}
    with pytest.raises(RoundError):
        ask(lasting)
    assert not any("contribute" in silo.seen[seen[name] :] for name, silo in lasting.silos.items())
    assert not any(rounds_of(silo) for silo in lasting.silos.values())
    assert {name: ledger_of(silo).spending().lifetime for name, silo in lasting.silos.items()} == before
    liar.took = ""
    assert statuses(ask(lasting)) == dict.fromkeys(SILOS, "answered")


def test_a_server_that_is_gone_is_an_error_with_a_hint_and_not_a_wait(provisioned: tuple[Path, int]) -> None:
    path, port = provisioned
    began = time.monotonic()
    with pytest.raises(FederationError, match="no connection to the aggregator"):
        Served(path, None, None, port, None).open()  # type: ignore[arg-type]
    assert time.monotonic() - began < 30


def test_too_few_silos_is_what_the_analyst_is_told(founded: Path, tmp_path: Path) -> None:
    port = free_port()
    path = provision(tmp_path / "p", founded, f"127.0.0.1:{port}")
    with (
        served(path, port, SILOS[:2]) as one,
        pytest.raises(RoundError, match="missing: cedar, maple, rowan"),
    ):
        ask(one)


def test_a_certificate_that_replaces_another_is_served_without_a_restart(running: Served) -> None:
    from federation.authority import rotate
    from federation.joining import join, renew

    before = read_certificate((running.path / AGGREGATOR / "transport.pem").read_bytes()).serial_number
    assert statuses(ask(running)) == dict.fromkeys(SILOS, "answered")
    request = renew(running.path / AGGREGATOR).request
    assert request is not None
    with opened(running.path / "authority" / "consilo.toml") as authority:
        admission, _ = rotate(authority, request, None, 30, utc_now())
    join(admission, running.path / AGGREGATOR, "", utc_now())
    assert read_certificate((running.path / AGGREGATOR / "transport.pem").read_bytes()).serial_number != before

    async def refresh() -> None:
        running.gate.refresh()

    newest = len(membership_of(running.gate)) + 1
    running.runner.do(refresh())
    until(lambda: all(len(membership_of(one.dialler)) == newest for one in running.silos.values()))
    running.wait(SILOS)  # told to dial again, they have learned of it
    assert statuses(ask(running)) == dict.fromkeys(SILOS, "answered")
