"""What reading many arrays takes beside their steps: blocks of rows, and the engine's own buffers."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

ROOT = Path(__file__).resolve().parents[2]
ROWS, SIDE = 100_000, 28
TIMES = 6  # of the bytes of the steps: measured 4.1
_READ = """
import sys
from pathlib import Path
from policies.document.catalogue import defined
from silo_node.data.coded import Coding, coded
from silo_node.data.locations import connect, opened
from silo_node.data.sources import source_of
from tests.harness.rows import policy

def mib(name):
    return int(next(line for line in open("/proc/self/status") if line.startswith(name)).split()[1]) / 1024

column = 'type = "array", shape = [28, 28], of = "int", bounds = [0, 255], roles = ["feature"]'
source = source_of(policy(column, kind="parquet"), "t", Path(sys.argv[1]))
with connect() as database:
    database.sql("SELECT 1").to_arrow_table()
    before = mib("VmRSS")
    with opened(database, [source], 60):
        rows, _ = coded(database, source.view, "id", [Coding("array", defined("x", source.columns["x"]))])
    steps = rows.arrays("x").steps
    Path(sys.argv[1], "found").write_text(f"{steps.nbytes} {int(steps.sum())} {mib('VmHWM') - before}")
"""


@pytest.mark.process
def test_a_hundred_thousand_images_take_a_bounded_multiple_of_their_bytes(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (ROWS, SIDE * SIDE), np.uint8)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(pixels.ravel()), SIDE * SIDE)
    ids = pa.array([f"p{row}" for row in range(ROWS)])
    pyarrow.parquet.write_table(pa.table({"id": ids, "x": lists}), tmp_path / "t.parquet", row_group_size=20_000)
    command = [sys.executable, "-c", _READ, str(tmp_path)]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True, timeout=120)
    size, total, more = (tmp_path / "found").read_text().split()
    assert int(size) == pixels.nbytes
    assert int(total) == int(pixels.sum())
    assert float(more) * 2**20 < TIMES * pixels.nbytes
