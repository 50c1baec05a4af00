"""Fixtures: a founded hospital federation, in memory."""

import gc
import os
import shutil
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import structlog
from hypothesis import settings

from analyst.demo.hospitals import found_hospitals
from tests import tiers
from tests.harness.simulator import Simulation, no_noise, simulate

if TYPE_CHECKING:
    from tests.harness.postgres import Server

settings.register_profile("bounded", deadline=None)  # pytest's time-out bounds a test; a busy machine is no failure
settings.load_profile("bounded")


def pytest_configure(config: pytest.Config) -> None:
    """Let the tiers watch the tests."""
    config.pluginmanager.register(tiers, "consilo-tiers")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for no garbage while tests are collected, nor later among what was made then: all of it stays."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """What a test's commands configured of the logs ends with it."""
    yield
    if structlog.is_configured():
        structlog.reset_defaults()


@pytest.fixture(autouse=True)
def umask_as_before() -> Iterator[None]:
    """A command that a test runs in this process narrows the umask; it ends with the test."""
    before = os.umask(0o022)
    os.umask(before)
    yield
    os.umask(before)


@pytest.fixture(scope="session")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pristine federation; tests copy it."""
    path = tmp_path_factory.mktemp("founded") / "federation"
    found_hospitals(path)
    return path


@pytest.fixture
def home(founded: Path, tmp_path: Path) -> Path:
    """A federation of this test's own."""
    return Path(shutil.copytree(founded, tmp_path / "federation"))


@pytest.fixture
def simulation(home: Path) -> Iterator[Simulation]:
    """The federation in memory, with its noise."""
    with simulate(home) as running:
        yield running


@pytest.fixture
def exact(home: Path) -> Iterator[Simulation]:
    """The federation in memory, without noise: sums must be right to the last unit."""
    with simulate(home, noise=no_noise) as running:
        yield running


@pytest.fixture(scope="session")
def _running(founded: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulation]:
    path = Path(shutil.copytree(founded, tmp_path_factory.mktemp("shared") / "federation"))
    for policy in path.glob("silos/*/policy.toml"):
        text = policy.read_text()
        assert "{ rho = 1.0 }" in text
        policy.write_text(text.replace("{ rho = 1.0 }", "{ rho = 100 }"))
    with simulate(path, noise=no_noise) as running:
        yield running


@pytest.fixture
def shared(_running: Simulation) -> Iterator[Simulation]:
    """One federation without noise and with a large budget, for all tests that need no fresh one.

    It is mended after each test: silos that were killed live again. What was asked before is spent and stored.
    """
    yield _running
    _running.mend()


@pytest.fixture(scope="session")
def postgres() -> Iterator["Server"]:
    """A PostgreSQL server, started once for the whole session."""
    from tests.harness.postgres import Server, missing

    if reason := missing():
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="consilo-postgres-") as directory:  # pytest's own is closed to its user
        server = Server.start(Path(directory))
        try:
            yield server
        finally:
            server.stop()


def pytest_sessionfinish() -> None:
    """Free DuckDB's objects that wait in cycles before its module is gone: it would report them as leaks at exit."""
    gc.unfreeze()  # what was made while tests were collected too
    gc.collect()
