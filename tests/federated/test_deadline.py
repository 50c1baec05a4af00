"""A silo between organisations takes its declared time, and the aggregator waits for it over the stream."""

import shutil
import time
from functools import partial
from pathlib import Path

import pytest

from aggregator.driver import Server
from tests.harness import federated
from tests.harness.federated import SILOS, free_port, provision, served

pytestmark = pytest.mark.server


def test_a_silo_is_waited_for_as_long_as_it_declares(
    founded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step lasts three seconds, and two more where a silo declares them."""
    monkeypatch.setattr(federated, "Server", partial(Server, step_timeout_s=3.0))
    source = Path(shutil.copytree(founded, tmp_path / "founded"))
    slow = SILOS[0]
    for silo in SILOS:
        policy = source / "silos" / silo / "policy.toml"
        policy.write_text(f"{policy.read_text()}\n[compute]\nfixed_seconds = {1.5 if silo == slow else 0.05}\n")
    port = free_port()
    with served(provision(tmp_path / "p", source, f"127.0.0.1:{port}", SILOS), port) as one, one.open() as federation:

        def statuses(late_s: float, deadline: int = 60) -> set[str]:
            silo = one.silos[slow]
            silo.before = lambda step: time.sleep(late_s) if step == "contribute" else None
            question = "SELECT COUNT(*) AS n FROM lung"
            report = federation.query(question, purpose="health-research", epsilon=0.1, deadline=deadline)
            return {outcome.status for outcome in report.silos.values()}

        assert statuses(3.5) == {"answered"}
        assert "denied" in statuses(0.0, deadline=1)
        assert "dropped" in statuses(8.0)
