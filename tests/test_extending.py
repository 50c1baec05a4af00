"""docs/extending.md is followed to the letter: its diffs apply to this tree, and the tests that they add pass."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TREE = ("silo_node", "aggregator", "analyst", "federation", "policies", "crypto", "tests", "pyproject.toml")
pytestmark = [pytest.mark.process, pytest.mark.torch]


def test_the_page_can_be_followed(tmp_path: Path) -> None:
    for name in TREE:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, tmp_path)
    blocks = re.findall(r"^```diff\n(.*?)^```$", (ROOT / "docs" / "extending.md").read_text(), flags=re.M | re.S)
    assert len(blocks) == 15
    outside = {**os.environ, "GIT_CEILING_DIRECTORIES": str(tmp_path.parent), "PYTHONPATH": str(tmp_path)}
    for block in blocks:
        applied = subprocess.run(
            ["git", "apply", "-"], input=block, cwd=tmp_path, env=outside, capture_output=True, text=True
        )
        assert applied.returncode == 0, f"{applied.stderr}\n{block}"
    added = re.findall(r"^\+\+\+ b/(tests/\w+/test_\w+\.py)$", "".join(blocks), flags=re.M)
    assert len(added) == 4
    schema = (tmp_path / "policies" / "policy.schema.json").read_text()
    written = subprocess.run([sys.executable, "-m", "policies.document.schema"], cwd=tmp_path, env=outside)
    assert written.returncode == 0
    assert (tmp_path / "policies" / "policy.schema.json").read_text() == schema
    tests = ["tests/rounds/test_computations.py", *added]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
        cwd=tmp_path,
        env=outside,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "skipped" not in done.stdout
