"""Fixtures: a founded authority, and a directory that others can enter."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from federation.authority import found_federation
from tests.harness.federated import NAME
from tests.harness.provisioning import NOW


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with a founded authority in it."""
    found_federation(tmp_path / "authority", NAME, None, NOW)
    return tmp_path


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A directory of this user with a short name that everybody can enter, unlike those of `tmp_path`."""
    made = Path(tempfile.mkdtemp(prefix="c-", dir="/tmp"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)
