"""A packed network from an analyst's file to a trained model at four silos, and who does not take it, before a run."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import silo_node.owner.cli
from analyst.errors import AnalystError, DeniedError
from analyst.training.packed_file import read_packed
from analyst.training.sending import send_network
from crypto.keys import Secret, SigningKey, write_key_file
from crypto.rounds.messages import Failed
from crypto.wire import sign, unverified
from policies.networks.graph import Graph
from policies.networks.names import digest_named
from policies.networks.packed import decoded, encoded, packed
from policies.requests.network_offer import FRAME_BYTES, NetworkOffer, index_of, wanted, wants
from silo_node.graphs.kept import KeptNetworks
from tests.cases import every
from tests.harness.simulator import Simulation
from tests.harness.states import states_of
from tests.rounds.test_exact_families import banks as few_banks
from tests.rounds.test_hashed import SILOS, banks, run, the_state, vector

pytestmark = [pytest.mark.torch, pytest.mark.slow]

JOB = """\
schema = "consilo-job/1"
table = "loans"
purpose = "lending"
label = "ok"
features = ["kind", "debt", "age", "owner"]
release = "exact"
rounds = 3
[model]
graph = "{name}"
file = "net.consilo"
weights = "{weights}"
"""
OPENED = ('["hashed-logistic", "logistic-regression", "evaluation"]', '["network", "evaluation"]')
DPO = SigningKey(Secret(bytes([1]) * 32))


def a_file(width: int = 5, start: float = 0.1) -> bytes:
    """Return a packed perceptron over the six numbers of a row of the banks."""
    weights: tuple[dict[str, Any], ...] = (
        {"name": "first.weight", "shape": (width, 6), "initial": "uniform", "bound": "0.4"},
        {"name": "first.bias", "shape": (width,), "initial": "zeros"},
        {"name": "last.weight", "shape": (1, width), "initial": "uniform", "bound": "0.4"},
    )
    calls = (
        {"call": "linear", "name": "first", "of": "row", "weight": "first.weight", "bias": "first.bias"},
        {"call": "tanh", "name": "bent", "of": "first"},
        {"call": "linear", "name": "last", "of": "bent", "weight": "last.weight", "bias": None},
    )
    inputs = ({"name": "row", "shape": (6,)},)
    graph = Graph.model_validate({"inputs": inputs, "weights": weights, "calls": calls, "output": "last"})
    numbers = {
        one.name: np.linspace(-start, start, one.count, dtype=np.float32).reshape(one.shape) for one in graph.weights
    }
    return encoded(packed(graph, numbers))


def federation_of(
    path: Path, allow: str, weights: str = "fresh", data: bytes | None = None, job: str = JOB, keys: str = ""
) -> Any:
    """Return banks that allow so much, and a job that names the file."""
    file = a_file() if data is None else data
    people = f'[people.dpo]\nkey = "{DPO.public}"\n'
    section = ("[training]", f'{people}[training.networks]\nallow = "{allow}"\n{keys}\n[training]')
    path.mkdir(exist_ok=True)
    (path / "net.consilo").write_bytes(file)
    return banks(path, job.format(name=decoded(file).name, weights=weights), OPENED, section)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def sent_files(simulation: Simulation) -> list[int]:
    return [len(list((one.policy.parent / "networks").glob("sent/*.consilo"))) for one in simulation.silos.values()]


def steps_seen(simulation: Simulation) -> set[str]:
    return {step for silo in simulation.silos.values() for step, _ in silo.seen}


@every("weights", ["fresh", "packed"])
def test_a_packed_network_is_sent_and_trained(tmp_path: Path, weights: str) -> None:
    with federation_of(tmp_path / weights, "any-graph", weights) as (simulation, file):
        training = run(simulation, file)
        state = the_state(simulation)
        name = decoded(a_file()).name
        assert sent_files(simulation) == [1, 1, 1, 1]
        assert (training.ended, training.steps, training.holders) == (None, 3, SILOS)
        assert len(vector(state, "weights")) == 6 * 5 + 5 + 5
        assert len(vector(state, "losses")) == 2
        kept = [path for path in (tmp_path / weights / "aggregator").rglob("*") if path.is_file()]
        assert not [path for path in kept if b"CSN1" in path.read_bytes()], "the aggregator keeps nothing of it"
        for silo in simulation.silos.values():
            assert KeptNetworks(silo.policy.parent).find(name) is not None


def test_who_has_not_approved_it_says_so_before_the_run_begins(tmp_path: Path) -> None:
    with federation_of(tmp_path / "f", "approved") as (simulation, file):
        name = decoded(a_file()).name
        with pytest.raises(AnalystError) as raised:
            run(simulation, file)
        for silo in SILOS:
            assert f"{silo}: {name} is not approved here; ask privacy@bank.example" in raised.value.message
        assert "> propose" not in steps_seen(simulation)
        assert sent_files(simulation) == [0, 0, 0, 0]
        key = tmp_path / "dpo.key"
        write_key_file(key, Secret(bytes([1]) * 32))
        for silo in SILOS:
            policy = ("--policy", str(simulation.silos[silo].policy))
            assert silo_node.owner.cli.main(["model", "add", str(tmp_path / "f" / "net.consilo"), *policy]) == 0
            given = ["--as", "dpo", "--key", str(key), *policy]
            assert silo_node.owner.cli.main(["model", "approve", name, *given]) == 0
        training = run(simulation, file)
        assert (training.ended, training.steps) == (None, 3)
        assert sent_files(simulation) == [0, 0, 0, 0], "the owner's own file is used"


def test_where_only_shipped_families_are_trained_no_packed_one_is_taken(tmp_path: Path) -> None:
    with federation_of(tmp_path / "f", "registered") as (simulation, file):
        with pytest.raises(AnalystError, match='allow = "registered"'):
            run(simulation, file)
        assert sent_files(simulation) == [0, 0, 0, 0]


def test_the_limit_of_weights_holds_for_what_is_sent_and_asked(tmp_path: Path) -> None:
    count = 6 * 5 + 5 + 5
    with federation_of(tmp_path / "at", "any-graph", keys=f"max_weights = {count}") as (simulation, file):
        assert run(simulation, file).steps == 3
    with federation_of(tmp_path / "below", "any-graph", keys=f"max_weights = {count - 1}") as (simulation, file):
        with pytest.raises(DeniedError, match=r"MAX_WEIGHTS|40 weights"):
            run(simulation, file)
        assert all(simulation.spent(silo) == 0 for silo in SILOS)
    large = a_file(400_000)
    with federation_of(tmp_path / "large", "any-graph", data=large, keys="max_weights = 1000") as (simulation, file):
        with pytest.raises(AnalystError, match="max_weights = 1000 allows"):
            run(simulation, file)
        assert sent_files(simulation) == [0, 0, 0, 0]


def test_a_file_that_is_not_the_one_of_the_hash_is_not_sent(tmp_path: Path) -> None:
    other = a_file(start=0.2)
    with federation_of(tmp_path / "f", "any-graph") as (simulation, file):
        (tmp_path / "f" / "net.consilo").write_bytes(other)
        with pytest.raises(AnalystError, match="and the job names") as raised:
            run(simulation, file)
        assert decoded(other).name in raised.value.hint
        assert "> take_network" not in steps_seen(simulation)
    with pytest.raises(AnalystError, match="cannot be read"):
        read_packed(tmp_path / "none.consilo", None)
    (tmp_path / "bad.consilo").write_bytes(b"CSN1 and nothing")
    with pytest.raises(AnalystError, match="not a packed network"):
        read_packed(tmp_path / "bad.consilo", None)


def test_a_file_replaced_on_a_silos_disk_ends_the_run_there(tmp_path: Path) -> None:
    with federation_of(tmp_path / "f", "any-graph") as (simulation, file):
        name, data = decoded(a_file()).name, a_file()
        send_network(simulation.federation, SILOS, data, name)
        for silo in SILOS:
            (path,) = (simulation.silos[silo].policy.parent / "networks" / "sent").glob("*.consilo")
            path.write_bytes(a_file(start=0.3))
        training = run(simulation, file)  # each asks for it anew
        assert training.steps == 3
        assert len(vector(the_state(simulation), "weights")) == 40


def test_a_long_file_goes_in_frames_and_on_from_where_a_silo_is(tmp_path: Path) -> None:
    data = a_file(100_000)
    frames = -(-len(data) // FRAME_BYTES)
    assert frames == 4
    with federation_of(tmp_path / "f", "any-graph", data=data) as (simulation, _):
        name = decoded(data).name
        east = simulation.silos["east"]
        offer = an_offer(simulation, data)
        signed = simulation.federation.signed(offer)
        (reply,) = east.actor.take_network(signed, index_of(0), data[:FRAME_BYTES])
        assert wanted(reply) == 1
        (reply,) = east.actor.take_network(signed, index_of(2), data[2 * FRAME_BYTES : 3 * FRAME_BYTES])
        assert wanted(reply) == 1, "frames come in order"
        send_network(simulation.federation, SILOS, data, name)
        taken = {silo: [args for step, args in one.seen if step == "> take_network"] for silo, one in _all(simulation)}
        assert {silo: len(found) for silo, found in taken.items()} == dict.fromkeys(SILOS, frames + 1) | {
            "east": frames
        }
        assert sent_files(simulation) == [1, 1, 1, 1]
        send_network(simulation.federation, SILOS, data, name)
        again = [args for step, args in east.seen if step == "> take_network"]
        assert len(again) == frames + 1, "a silo that has it is sent nothing"


def _all(simulation: Simulation) -> list[tuple[str, Any]]:
    return list(simulation.silos.items())


def an_offer(simulation: Simulation, data: bytes, **changes: Any) -> NetworkOffer:
    federation = simulation.federation
    fields: dict[str, Any] = {
        "federation": federation.config.federation,
        "analyst": federation.analyst,
        "silos": SILOS,
        "network": digest_named(decoded(data).name),
        "size": len(data),
        "created_at": federation.now(),
    }
    return NetworkOffer(**fields | changes)


def refused(reply: tuple[bytes, ...]) -> str:
    return unverified(reply[0], Failed).reason


def test_nobody_but_an_analyst_of_the_policy_sends_and_nothing_but_what_the_hash_names(tmp_path: Path) -> None:
    data = a_file()
    with federation_of(tmp_path / "f", "any-graph") as (simulation, _):
        east, whole = simulation.silos["east"].actor, index_of(0)
        offer = an_offer(simulation, data)
        forged = sign(offer, offer.analyst, SigningKey(Secret(bytes([9]) * 32)))
        assert "not an analyst" in refused(east.take_network(forged, whole, data))
        stranger = an_offer(simulation, data, analyst="eve")
        assert "not an analyst" in refused(
            east.take_network(sign(stranger, "eve", SigningKey(Secret(bytes([9]) * 32))), whole, data)
        )
        others = simulation.federation.signed(an_offer(simulation, data, silos=("middle",)))
        assert "to other silos" in refused(east.take_network(others, whole, data))
        old = simulation.federation.signed(an_offer(simulation, data, created_at=simulation.federation.now() - 1000))
        assert "clocks" in refused(east.take_network(old, whole, data))
        signed = simulation.federation.signed(offer)
        altered = data[:-1] + bytes([data[-1] ^ 1])
        assert "SHA-256" in refused(east.take_network(signed, whole, altered))
        short = simulation.federation.signed(an_offer(simulation, data, size=len(data) - 1))
        assert "the file" in refused(east.take_network(short, whole, data[:-1])) or "weights" in refused(
            east.take_network(short, whole, data[:-1])
        )
        assert "has 3 bytes" in refused(east.take_network(signed, whole, data[:3]))
        other = simulation.federation.signed(an_offer(simulation, data, network=bytes(32)))
        assert "and the offer is of" in refused(east.take_network(other, whole, data))
        assert sent_files(simulation) == [0, 0, 0, 0]
        assert wanted(east.take_network(signed, whole, data)[0]) is None
        assert sent_files(simulation) == [1, 0, 0, 0]


def test_a_silo_that_is_away_or_lies_is_named(tmp_path: Path) -> None:
    data = a_file()
    with federation_of(tmp_path / "f", "any-graph") as (simulation, _):
        simulation.silos["north"].is_cut_off = True
        simulation.silos["south"].rewrite = lambda step, frames: (b"CSN2 nothing of the kind",)
        with pytest.raises(AnalystError, match="north: it did not answer") as raised:
            send_network(simulation.federation, SILOS, data, decoded(data).name)
        assert "south: it did not answer" in raised.value.message
        assert sent_files(simulation) == [1, 1, 0, 0]
        simulation.silos["south"].rewrite = lambda step, frames: (wants(0),)
        with pytest.raises(AnalystError, match="south: it was sent frame 0, and asks for 0"):
            send_network(simulation.federation, ("middle", "south"), data, decoded(data).name)


@pytest.mark.process
def test_a_confined_process_trains_the_same_network(tmp_path: Path) -> None:
    """In simulate mode a network is computed in this process, else in one that opens no file and no socket."""
    data = a_file()
    # All rows in one step, as the order of batches follows from the run.
    job = JOB.format(name=decoded(data).name, weights="packed") + "[optimiser]\nbatch = 1024\n"
    section = ("[training]", '[training.networks]\nallow = "any-graph"\n[training]')
    found = []
    for name, workers in (("here", None), ("apart", 1)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "net.consilo").write_bytes(data)
        with few_banks(tmp_path / name, job, computations=("network",), workers=workers, more=(section,)) as (
            simulation,
            file,
        ):
            assert run(simulation, file).steps == 3
            held = [state for silo in simulation.silos.values() for state in states_of(silo) if state.exact is not None]
            assert len({one.raw for one in held}) == 1
            found.append(vector(held[0], "weights"))
    assert np.allclose(found[0], found[1], rtol=0, atol=1e-5)
