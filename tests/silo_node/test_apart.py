"""One table of rows is never a private source and an exact one, however the policy writes its two names."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from policies.document.policy import Policy
from silo_node.errors import SourceError
from tests.harness.rows import load_sources, policy

ROWS, OTHERS = "id,x\np1,1\np2,2\n", "id,x\np3,3\np4,4\n"
COLUMN = 'class = "internal", type = "int", roles = ["feature"], bounds = [0, 9]'
EXACT = """
[sources.u]
kind = "{kind}"
uri = "{uri}"
release = "{release}"
{pattern}
[sources.u.columns]
id = {{ type = "string", class = "identifier", roles = [] }}
x = {{ {column} }}
[training]
max_rounds = 10
dp = "optional"
clip_norm = 1
max_rho_per_run = 0.1
"""


def two(uri: str, other: str, kind: str = "csv", release: str = "exact") -> Policy:
    """Return a policy with a private source and another one; a uri with a star is a pattern."""
    patterns = ["pattern = true" if "*" in one else "" for one in (uri, other)]
    rest = EXACT.format(kind=kind, uri=other, release=release, pattern=patterns[1], column=COLUMN)
    return policy(COLUMN.removeprefix('class = "internal", '), kind=kind, uri=uri, source=patterns[0], rest=rest)


def refusal(of: Policy, home: Path) -> str:
    with pytest.raises(SourceError) as caught:
        load_sources(of, home)
    assert caught.value.hint
    return caught.value.message


def link(home: Path) -> None:
    (home / "u.csv").symlink_to("t.csv")


def hard_link(home: Path) -> None:
    os.link(home / "t.csv", home / "u.csv")


def copy(home: Path) -> None:
    shutil.copy(home / "t.csv", home / "u.csv")


def linked_directory(home: Path) -> None:
    (home / "d").mkdir()
    (home / "d" / "t.csv").write_text(ROWS)
    (home / "t.csv").unlink()
    (home / "t.csv").symlink_to("d/t.csv")
    (home / "e").symlink_to("d")
    (home / "u.csv").symlink_to("e/t.csv")


@pytest.mark.parametrize("make", [link, hard_link, copy, linked_directory], ids=lambda one: one.__name__)
def test_a_file_is_what_it_is_whatever_names_it(tmp_path: Path, make: Callable[[Path], None]) -> None:
    (tmp_path / "t.csv").write_text(ROWS)
    make(tmp_path)
    said = refusal(two("t.csv", "u.csv"), tmp_path)
    assert said == "source 't': it has rows of 'u', which says release = \"exact\" (t.csv, u.csv)"
    assert len(load_sources(two("t.csv", "u.csv", release="private"), tmp_path)) == 2, "both with noise"
    (tmp_path / "u.csv").unlink()
    (tmp_path / "u.csv").write_text(OTHERS)
    assert len(load_sources(two("t.csv", "u.csv"), tmp_path)) == 2, "other rows of the same size"


@pytest.mark.parametrize("other", ["./t.csv", "d/../t.csv", "{home}/t.csv", "t*.csv", "d/*.csv"])
def test_two_spellings_of_a_file_and_patterns_that_overlap(tmp_path: Path, other: str) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "t.csv").write_text(ROWS)
    (tmp_path / "d" / "u.csv").write_text(ROWS)  # a copy in another directory, beside one that is none
    (tmp_path / "d" / "v.csv").write_text(OTHERS)
    assert "it has rows of 'u'" in refusal(two("t.csv", other.format(home=tmp_path)), tmp_path)
    (tmp_path / "d" / "u.csv").unlink()
    assert len(load_sources(two("t.csv", "d/*.csv"), tmp_path)) == 2


def tables(home: Path, *statements: str, name: str = "t.duckdb") -> None:
    with duckdb.connect(str(home / name)) as database:
        for one in statements:
            database.execute(one)


def test_a_table_of_a_duckdb_file_is_what_it_is(tmp_path: Path) -> None:
    rows = "AS SELECT 'p' || range AS id, range AS x FROM range(5)"
    tables(tmp_path, f"CREATE TABLE t {rows}", f"CREATE TABLE u {rows.replace('range(5)', 'range(5, 9)')}")
    for other in ("t.duckdb#main.t", "t.duckdb#T", "./t.duckdb#t"):
        assert "it has rows of 'u'" in refusal(two("t.duckdb#t", other, "duckdb"), tmp_path)
    shutil.copy(tmp_path / "t.duckdb", tmp_path / "copy.duckdb")
    assert "it has rows of 'u'" in refusal(two("t.duckdb#t", "copy.duckdb#t", "duckdb"), tmp_path)
    assert len(load_sources(two("t.duckdb#t", "t.duckdb#u", "duckdb"), tmp_path)) == 2


def test_beside_an_exact_source_a_view_is_none(tmp_path: Path) -> None:
    """It may read the other's table, or a file."""
    (tmp_path / "t.csv").write_text(ROWS)
    rows = "SELECT 'p' || range AS id, range AS x FROM range(5)"
    file = f"SELECT id, x::INT AS x FROM read_csv('{tmp_path}/t.csv')"
    tables(tmp_path, f"CREATE TABLE t AS {rows}", "CREATE VIEW v AS FROM t", f"CREATE VIEW f AS {file}")
    for view in ("v", "f"):
        said = refusal(two("t.duckdb#t", f"t.duckdb#{view}", "duckdb"), tmp_path)
        assert said == f"source 'u': t.duckdb#{view} is no table of its own"
        assert "is no table of its own" in refusal(two(f"t.duckdb#{view}", "t.duckdb#t", "duckdb"), tmp_path)
        assert len(load_sources(two("t.duckdb#t", f"t.duckdb#{view}", "duckdb", "private"), tmp_path)) == 2
