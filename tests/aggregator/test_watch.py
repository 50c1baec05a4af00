"""An aggregator's health is 503 at a full disk or a wrong directory, and its program ends when its cluster is dead."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aggregator import serve
from aggregator.errors import AggregatorError
from aggregator.serve import Watch
from federation.errors import ClusterDiedError
from federation.operations import ray_cluster
from federation.operations.monitoring import AggregatorCounts
from tests.harness.federated import AGGREGATOR, SILOS, credentials, provision


class Sums:
    """The actor that adds, as far as it answers."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    async def check(self) -> None:
        if self.error is not None:
            raise self.error


@pytest.fixture
def watched(founded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Watch, Sums, Path]:
    place = provision(tmp_path / "p", founded, "127.0.0.1:8443", SILOS[:3])
    monkeypatch.setattr(serve, "dead_processes", list)
    monkeypatch.setattr(ray_cluster, "session_directory", lambda: None)
    gate: Any = SimpleNamespace(
        refresh=lambda: False,
        version=6,
        connected=["aspen"],
        connections={},
        other_versions={},
        holders=SimpleNamespace(named=[]),
    )
    sums, home = Sums(), place / AGGREGATOR
    return Watch(home, credentials(place, AGGREGATOR, "aggregator"), gate, AggregatorCounts(), sums.check), sums, home


def test_a_well_aggregator_is_healthy_and_names_who_is_missing(watched: tuple[Watch, Sums, Path]) -> None:
    watch, _, _ = watched
    asyncio.run(watch.look())
    is_well, found = watch.health()
    assert (is_well, found["missing"], found["problem"]) == (True, ["birch", "cedar"], "")


def test_a_full_disk_is_a_problem_until_there_is_room(
    watched: tuple[Watch, Sums, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, _, home = watched
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda place: SimpleNamespace(free=0 if place == home else 1 << 40))
        asyncio.run(watch.look())
    is_well, found = watch.health()
    assert (is_well, found["problem"]) == (False, f"the disk of {home} is full (0 MiB free)")
    assert watch.status()["problems"] == [found["problem"]]
    asyncio.run(watch.look())
    assert watch.health()[0]


def test_a_certificate_that_is_gone_is_a_problem(watched: tuple[Watch, Sums, Path]) -> None:
    watch, _, home = watched
    (home / "transport.pem").rename(home / "away")
    asyncio.run(watch.look())
    assert not watch.health()[0]
    (home / "away").rename(home / "transport.pem")
    asyncio.run(watch.look())
    assert watch.health()[0]


def test_a_dead_cluster_ends_the_program(watched: tuple[Watch, Sums, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    watch, sums, _ = watched
    sums.error = AggregatorError("the actor that adds does not answer (ActorDiedError)")
    with pytest.raises(ClusterDiedError, match="has died: the actor that adds does not answer"):
        asyncio.run(watch.look())
    sums.error = None
    monkeypatch.setattr(serve, "dead_processes", lambda: ["gcs_server", "raylet"])
    with pytest.raises(ClusterDiedError, match="gcs_server, raylet ended"):
        asyncio.run(watch.look())
