"""What a process that confines itself may reach is imported before: it opens no file any more."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.process
@pytest.mark.torch
def test_what_a_computation_imports_late_is_imported_before_it_is_confined() -> None:
    """A confined process opens no file, so a module that is first imported there would not be found."""
    late = set[str]()
    for file in (*(ROOT / "silo_node" / "training").rglob("*.py"), *(ROOT / "policies" / "networks").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.col_offset and node.module is not None:
                late |= {node.module, *(f"{node.module}.{one.name}" for one in node.names)}
    modules = sorted(one for one in late if (ROOT / f"{one.replace('.', '/')}.py").exists() or "safetensors" in one)
    assert "silo_node.training.networks.round" in modules
    text = "import sys; from silo_node.training.confined.child import load; load(); print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", text], stdout=subprocess.PIPE, cwd=ROOT, check=True)
    loaded = found.stdout.decode().split()
    missing = [one for one in modules if one not in loaded and one.rpartition(".")[0] not in loaded]
    assert not missing
