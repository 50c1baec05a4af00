"""A packed network over real streams: from an analyst through a served aggregator to the silos, in frames."""

import shutil
from pathlib import Path

import pytest

from analyst.client import Federation
from analyst.errors import AnalystError
from analyst.training.sending import send_network
from policies.networks.packed import decoded
from policies.requests.network_offer import FRAME_BYTES
from silo_node.graphs.kept import KeptNetworks
from tests.harness.federated import ANALYST, SILOS, free_port, provision, served
from tests.harness.owner_home import with_people
from tests.rounds.test_packed_runs import a_file

pytestmark = pytest.mark.server

TRAINING = """
[training]
max_rounds = 5
clip_norm = 1.0
max_rho_per_run = 0.1
[training.networks]
allow = "{allow}"
"""


def test_a_network_of_several_frames_reaches_the_silos_that_take_it(founded: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(founded, tmp_path / "founded"))
    for silo in SILOS:
        with_people(source, silo)
        policy = source / "silos" / silo / "policy.toml"
        policy.write_text(policy.read_text() + TRAINING.format(allow="any-graph" if silo != SILOS[0] else "approved"))
    data, port = a_file(90_000), free_port()
    name = decoded(data).name
    assert len(data) > 2 * FRAME_BYTES
    path = provision(tmp_path / "p", source, f"127.0.0.1:{port}", SILOS)
    with served(path, port, SILOS), Federation.open(path / ANALYST / "consilo.toml") as federation:
        with pytest.raises(AnalystError, match="is not approved here") as raised:
            send_network(federation, SILOS, data, name)
        assert raised.value.message.count("approved") == 1
        assert raised.value.message.startswith(f"the packed network is not taken by {SILOS[0]}: ")
        for silo in SILOS:
            assert (KeptNetworks(path / silo).find(name) is not None) == (silo != SILOS[0])
        send_network(federation, SILOS[1:], data, name)
