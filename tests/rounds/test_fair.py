"""Work is shared fairly: an analyst who asks much, with a silo that is slow on purpose, holds nobody up."""

import asyncio
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from aggregator import driver
from aggregator.slots import Slots
from analyst.demo.hospitals import PURPOSE
from crypto.keys import Secret, SigningKey
from crypto.rounds.manifest import Recipient
from crypto.rounds.messages import Failure
from crypto.sealing import SealingKey
from crypto.wire import is_envelope, sign, unverified
from policies.requests.request import Request
from silo_node import killable
from tests.harness.inside import computer_of, key_of
from tests.harness.simulator import STEPS, Simulation, no_noise, simulate

pytestmark = pytest.mark.slow  # what waits for its turn takes seconds

QUESTION = "SELECT COUNT(*) AS n FROM lung"
HONEST = ("aspen", "birch", "cedar", "maple")


def asked(simulation: Simulation, analyst: str = "", silos: Sequence[str] = (), **changes: object) -> bytes:
    """Return a signed request; in another analyst's name, the silos refuse it, and the aggregator runs its round."""
    federation = simulation.federation
    _, request = federation.prepare(QUESTION, purpose=PURPOSE, epsilon=1)
    changes |= {"silos": tuple(silos) or request.silos, "analyst": analyst or request.analyst}
    request = Request.model_validate({**dict(request), **changes})
    return sign(request, analyst or federation.analyst, key_of(federation))


def said(answer: bytes) -> str:
    return unverified(answer, Failure).reason if is_envelope(answer) else "answered"


def test_sixteen_calls_and_a_slow_silo_hold_no_other_question_up(home: Path) -> None:
    """Hope: rounds with a silo that answers just in time take every slot, and an honest question waits for all."""
    with simulate(home, noise=no_noise) as simulation:
        simulation.silos["rowan"].late_s = dict.fromkeys(STEPS, 0.7)
        flood = [asked(simulation, micro_rho=20) for _ in range(16)]
        honest = asked(simulation, "eve", HONEST)

        async def body() -> None:
            attack = [asyncio.create_task(simulation.server.submit(one)) for one in flood]
            async with asyncio.timeout(30):
                while simulation.server.slots.waiting.total() < len(flood) - driver.MAX_CONCURRENT_ROUNDS // 2:
                    await asyncio.sleep(0.01)
            assert simulation.server.slots.held[simulation.federation.analyst] == driver.MAX_CONCURRENT_ROUNDS // 2
            await simulation.server.submit(honest)
            assert not any(one.done() for one in attack), "it waited for none of them"
            for one in attack:
                one.cancel()
            await asyncio.gather(*attack, return_exceptions=True)

        asyncio.run(body())
        assert not simulation.server.slots.held
        assert not simulation.server.slots.waiting


@pytest.mark.process
def test_an_honest_question_beside_three_heavy_ones_is_answered(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hope: where no policy states a time, one analyst's computings use up another's, which has paid.

    A computing may take 10 s here, and three heavy ones of 4 s each stand before the honest one at each silo.
    """
    monkeypatch.setattr(killable, "MODULE", "tests.silo_node.heavy_computing")
    monkeypatch.setattr("policies.decision.computing.UNDECLARED_S", 10)
    mallory, names = SigningKey(Secret(bytes(range(32)))), HONEST[:3]
    for path in home.glob("silos/*/policy.toml"):
        text = path.read_text().replace("max_missing   = 1", "max_missing   = 0")
        ana = text[text.index("[analysts.ana]") :]
        hers = re.sub(r'"ed25519:[^"]*"', f'"{mallory.public}"', ana).replace("analysts.ana", "analysts.mallory")
        path.write_text(f"{text}\n{hers}")
    with simulate(home, noise=no_noise, is_lazy=True) as simulation:
        for name, silo in simulation.silos.items():
            silo.workers, silo.is_cut_off = 3, name not in names
        federation = simulation.federation
        _, request = federation.prepare(QUESTION, purpose=PURPOSE, epsilon=1)
        recipients = (Recipient(name="mallory", key=SealingKey(Secret(bytes(32))).public),)
        fields = {**dict(request), "analyst": "mallory", "recipients": recipients}
        heavy = [
            sign(Request.model_validate(fields | {"nonce": bytes([number]) * 16}), "mallory", mallory)
            for number in range(3)
        ]

        for name in names:
            computer_of(simulation.silos[name]).wait()

        async def body() -> bytes:
            asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(32))
            attack = [asyncio.create_task(simulation.server.submit(one)) for one in heavy]
            async with asyncio.timeout(60):
                while any(sum(step == "> contribute" for step, _ in simulation.silos[one].seen) < 3 for one in names):
                    await asyncio.sleep(0.01)
            answer = await simulation.server.submit(federation.signed(request))
            assert [said(one) for one in await asyncio.gather(*attack)] == ["answered"] * 3
            return answer

        answer = asyncio.run(body())
        assert said(answer) == "answered"
        opened = federation.open_sum(federation.check(request, answer), request)
        assert opened.units[0] >> opened.manifest.terms.blocks[0].scale_bits == 137, "all patients of the three"
        logs = [(home / "silos" / name / "silo.log").read_text() for name in names]
        assert not any("answered by nothing" in one for one in logs)


def test_a_round_that_is_paid_is_not_given_up_for_what_it_waited_before(
    exact: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hope: others use up the time of a request, so that its limit ends it once it has paid."""
    monkeypatch.setattr(driver, "REQUEST_TIMEOUT_S", 5.0)
    exact.silos["aspen"].late_s = {"contribute": 5.0}
    assert said(asyncio.run(exact.server.submit(asked(exact)))) == "answered"


def test_a_round_waits_for_a_slot_before_it_costs_anything(exact: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact.server, "slots", Slots(2, 0.1, "rounds at the aggregator"))
    both = [asked(exact) for _ in range(2)]
    exact.silos["aspen"].late_s = {"propose": 1.0}

    async def body() -> list[str]:
        return [said(one) for one in await asyncio.gather(*map(exact.server.submit, both))]

    found = asyncio.run(body())
    assert sorted(found) == ["answered", "rounds at the aggregator: none free within 0.1 s, 1 of them are yours"]
    assert [one.outcomes.charged for one in exact.ended] == [False, True]


@pytest.mark.parametrize(
    ("compute", "number", "waiting", "most"),
    [("[compute]\nfixed_seconds = 50\n", 5, 3, 100), ("", 8, 2, 120)],
    ids=["by times that they state", "by 20 s where they state none"],
)
def test_the_silos_compute_for_no_analyst_so_long_that_another_pays_in_vain(
    home: Path, compute: str, number: int, waiting: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hope: the silos compute for the attacker longer than anybody waits for them, so others pay and get nothing."""
    for policy in home.glob("silos/*/policy.toml"):
        policy.write_text(f"{policy.read_text()}\n{compute}")
    with simulate(home, noise=no_noise) as simulation:
        flood = [asked(simulation) for _ in range(number)]
        rowan, seconds, going = simulation.silos["rowan"], simulation.server.seconds, asyncio.Event()
        call = rowan.call

        async def late(step: str, *arguments: bytes) -> tuple[bytes, ...]:
            if step == "share":
                await going.wait()
            return await call(step, *arguments)

        monkeypatch.setattr(rowan, "call", late)

        async def body() -> list[str]:
            attack = [asyncio.create_task(simulation.server.submit(one)) for one in flood]
            async with asyncio.timeout(30):
                while seconds.waiting.total() < waiting:
                    await asyncio.sleep(0.01)
            assert seconds.held == {simulation.federation.analyst: most}, (
                "two rounds of 50 s or six of 20, the rest waits"
            )
            assert seconds.may("eve", 50)
            going.set()
            return [said(one) for one in await asyncio.gather(*attack)]

        assert asyncio.run(body()) == ["answered"] * number
        assert not seconds.held
