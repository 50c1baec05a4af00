"""A source that cannot be read now is found without reading a row: missing, locked, or at a silent server."""

import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from silo_node.data import reach
from silo_node.data.apart import SameRowsError
from silo_node.data.locations import DuckTable, Files, Location
from silo_node.data.postgres import PostgresTable
from silo_node.data.reach import StillApart, check_reachable
from silo_node.errors import SourceError
from tests.harness.rows import load_sources
from tests.silo_node.test_apart import OTHERS, ROWS, two

HOLD = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print(flush=True); sys.stdin.read()"


def found(location: Location) -> str:
    with pytest.raises(SourceError) as caught:
        check_reachable("sources.visits", location)
    assert caught.value.message.startswith("sources.visits: ")
    assert caught.value.hint
    return caught.value.message


def test_a_missing_file_is_found_and_one_that_holds_anything_is_not_read(tmp_path: Path) -> None:
    names = [str(tmp_path / name) for name in ("a.csv", "b.csv")]
    Path(names[0]).write_bytes(b"\0 no table at all")
    assert "b.csv cannot be opened (No such file or directory)" in found(Files("csv", tuple(names)))
    check_reachable("sources.visits", Files("csv", (names[0],)))
    pattern = Files("csv", (), pattern=(tmp_path, "*.csv"))
    check_reachable("sources.visits", pattern)
    Path(names[0]).unlink()
    assert "no file matches the pattern any more" in found(pattern)


@pytest.mark.process
def test_a_file_that_another_program_writes_is_found(tmp_path: Path) -> None:
    location = DuckTable(str(tmp_path / "visits.duckdb"), "visits")
    assert "cannot be opened (No such file or directory)" in found(location)
    with duckdb.connect(location.file) as database:
        database.execute("CREATE TABLE visits (id TEXT)")
    check_reachable("sources.visits", location)
    command = [sys.executable, "-c", HOLD, location.file]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert "visits.duckdb is locked" in found(location)
        other.communicate()
    check_reachable("sources.visits", location)


def test_a_file_that_is_put_in_the_place_of_another_is_no_private_source_and_an_exact_one(tmp_path: Path) -> None:
    """Hope: what a start refuses is answered without noise, if the owner copies the file while the silo runs."""
    (tmp_path / "t.csv").write_text(ROWS)
    (tmp_path / "u.csv").write_text(OTHERS)
    of = two("t.csv", "u.csv")
    apart = StillApart(of, load_sources(of, tmp_path))
    apart.check()
    shutil.copy(tmp_path / "t.csv", tmp_path / "u.csv")
    for _ in range(2):
        with pytest.raises(SameRowsError, match="source 't': it has rows of 'u', which says release"):
            apart.check()
    (tmp_path / "u.csv").unlink()
    apart.check()  # of what is away nothing is read
    (tmp_path / "u.csv").symlink_to("t.csv")
    with pytest.raises(SameRowsError):
        apart.check()
    (tmp_path / "u.csv").unlink()
    (tmp_path / "u.csv").write_text(OTHERS)
    apart.check()


def test_files_that_stay_are_compared_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So a flood of proposals makes a silo read no file again and again."""
    (tmp_path / "t.csv").write_text(ROWS)
    (tmp_path / "u.csv").write_text(OTHERS)
    of, compared = two("t.csv", "u.csv"), list[int]()
    apart = StillApart(of, load_sources(of, tmp_path))
    monkeypatch.setattr(reach, "check_apart", lambda connection, policy, sources: compared.append(len(sources)))
    for text in (OTHERS, ROWS):
        (tmp_path / "u.csv").write_text(text)
        for _ in range(3):
            apart.check()
    assert compared == [2, 2]


def test_a_server_that_cannot_be_reached_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VISITS", raising=False)
    assert "the environment variable VISITS is not set" in found(PostgresTable("VISITS", "visits"))
    monkeypatch.setenv("VISITS", "host=127.0.0.1 port=1 password=secret")
    assert "secret" not in found(PostgresTable("VISITS", "visits"))
