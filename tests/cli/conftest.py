"""Fixtures: the commands, as they reach a simulation instead of a Ray cluster."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import analyst.client
from federation.config import Config
from tests.harness.simulator import Simulation


@pytest.fixture
def commanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Simulation], Simulation]:
    """Let the commands reach a simulation instead of a Ray cluster."""

    def reach(simulation: Simulation) -> Simulation:
        @contextmanager
        def started(config: Config, progress: object = None) -> Iterator[Simulation]:
            yield simulation

        monkeypatch.setattr(analyst.client, "started", started)
        monkeypatch.setenv("COLUMNS", "120")
        monkeypatch.chdir(tmp_path)
        return simulation

    return reach


@pytest.fixture
def in_memory(simulation: Simulation, commanded: Callable[[Simulation], Simulation]) -> Simulation:
    return commanded(simulation)
