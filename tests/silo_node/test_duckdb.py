"""Rows and decisions in a DuckDB file: loaded or refused for its owner, and opened for one question at a time."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

import silo_node.owner.cli
from analyst.demo.hospitals import PURPOSE
from policies.document.load import load, parse
from silo_node.data.locations import DuckTable, connect, opened
from silo_node.errors import SourceError
from tests.harness.example_policy import Edit, edited, policy
from tests.harness.rows import load_sources
from tests.harness.simulator import no_noise, simulate
from tests.silo_node.test_consent import count

FILE = "shop.duckdb"
DUCKDB = Edit('kind = "parquet"\nuri  = "visits.parquet"', f'kind = "duckdb"\nuri  = "{FILE}#visits"')
ROWS = """CREATE OR REPLACE TABLE visits AS SELECT * FROM (VALUES
('p1', 'medicine', 1::TINYINT, 30::SMALLINT, 1.5, true, 'north', 3::UINTEGER, [1]),
('p2', NULL, NULL, 40, NULL, false, NULL, 4, NULL))
t(patient_id, ward, grade, age, cost, smoker, region, stay, diary)"""


def write(home: Path, *statements: str) -> Path:
    with duckdb.connect(str(home / FILE)) as database:
        for statement in statements or (ROWS,):
            database.execute(statement)
    return home / FILE


def refusal(home: Path, uri: str = f"{FILE}#visits") -> SourceError:
    with pytest.raises(SourceError) as caught:
        load_sources(policy(Edit(DUCKDB.old, f'kind = "duckdb"\nuri  = "{uri}"')), home)
    assert caught.value.message.startswith("source 'visits': ")
    assert caught.value.hint
    return caught.value


@contextmanager
def another_program(file: Path) -> Iterator[None]:
    """Hold a DuckDB file open for writing in another process."""
    script = "import duckdb, sys; held = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", script, str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield
        process.kill()


@pytest.mark.parametrize("table", ["visits", "main.visits", "clinical.visits", "view", "clinical.Ærø_2"])
def test_a_table_or_a_view_is_loaded(tmp_path: Path, table: str) -> None:
    write(
        tmp_path,
        ROWS,
        "CREATE SCHEMA clinical; CREATE TABLE clinical.visits AS FROM main.visits",
        'CREATE VIEW "view" AS FROM clinical.visits; CREATE TABLE clinical."Ærø_2" AS FROM main.visits',
    )
    of = policy(Edit(DUCKDB.old, f'kind = "duckdb"\nuri  = "{FILE}#{table}"'))
    (source,) = load_sources(of, tmp_path).values()
    with connect() as database, opened(database, [source], 20):
        assert database.execute(f"SELECT sum(age), count(*) FROM {source.view}").fetchall() == [(70, 2)]


@pytest.mark.process
def test_between_questions_another_program_may_write(tmp_path: Path) -> None:
    file = write(tmp_path)
    (source,) = load_sources(policy(DUCKDB), tmp_path).values()
    assert isinstance(source.location, DuckTable)
    with connect() as database:
        with opened(database, [source], 20), pytest.raises(duckdb.Error, match="read-only"):
            database.execute(f"DELETE FROM {source.location.relation}")
        write(tmp_path, "DELETE FROM visits WHERE age = 30")
        with opened(database, [source], 20):
            assert database.execute(f"SELECT sum(age) FROM {source.view}").fetchall() == [(40,)]
        with another_program(file), pytest.raises(duckdb.Error, match="lock"), opened(database, [source], 20):
            pass
        with opened(database, [source], 20):
            assert database.execute(f"SELECT sum(age) FROM {source.view}").fetchall() == [(40,)]


@pytest.mark.process
def test_what_another_program_holds_is_said_to_the_owner(tmp_path: Path) -> None:
    file = write(tmp_path)
    with another_program(file):
        error = refusal(tmp_path)
    assert f"{FILE}#visits cannot be read as duckdb (IO Error: Could not set lock" in error.message
    assert "another program writes it" in error.hint


@pytest.mark.process
def test_what_is_in_the_log_of_the_file_is_read_too(tmp_path: Path) -> None:
    file = write(tmp_path)
    script = "import duckdb, os, sys; c = duckdb.connect(sys.argv[1]); c.execute(sys.argv[2]); os._exit(0)"
    subprocess.run([sys.executable, "-c", script, str(file), "DELETE FROM visits WHERE age = 30"], check=True)
    log = Path(f"{file}.wal")
    assert log.exists()
    (source,) = load_sources(policy(DUCKDB), tmp_path).values()
    os.utime(file, (1, 1))
    os.utime(log, (2, 2))
    assert source.location.written_at() == 2
    with connect() as database, opened(database, [source], 20):
        assert database.execute(f"SELECT sum(age) FROM {source.view}").fetchall() == [(40,)]
    log.unlink()
    assert source.location.written_at() == 1
    file.unlink()
    assert source.location.written_at() is None


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert f"the file {FILE} is missing" in refusal(tmp_path).message
    assert not (tmp_path / FILE).exists(), "and none is made"


def test_several_files_are_no_source(tmp_path: Path) -> None:
    write(tmp_path)
    shutil.copyfile(tmp_path / FILE, tmp_path / "other.duckdb")
    assert "the file *.duckdb is missing" in refusal(tmp_path, "*.duckdb#visits").message


@pytest.mark.parametrize("content", [b"", b"garbage" * 1000, b"SQLite format 3\0" + bytes(5000)])
def test_what_is_no_duckdb_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    assert "cannot be read as duckdb (" in refusal(tmp_path).message


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    assert "nothing" in refusal(tmp_path, f"{FILE}#nothing").message
    assert "nowhere" in refusal(tmp_path, f"{FILE}#nowhere.visits").message


def test_an_empty_table_is_refused(tmp_path: Path) -> None:
    write(tmp_path, ROWS, "DELETE FROM visits")
    assert f"{FILE}#visits has no rows" in refusal(tmp_path).message


def test_a_missing_column_and_what_cannot_be_read_are_named(tmp_path: Path) -> None:
    write(tmp_path, ROWS, "ALTER TABLE visits DROP smoker")
    assert f"{FILE}#visits has no column 'smoker' (found: patient_id, ward" in refusal(tmp_path).message
    write(tmp_path, ROWS, "ALTER TABLE visits ALTER age TYPE VARCHAR", "UPDATE visits SET age = 'old' WHERE age = '40'")
    assert f"{FILE}#visits, row 2, column 'age': 'old' is no int; 1 of 2 cells" in refusal(tmp_path).message
    write(tmp_path, ROWS, "ALTER TABLE visits ALTER age TYPE INTEGER[] USING [age]")
    assert f"{FILE}#visits is INTEGER[], which no cell is read from" in refusal(tmp_path).message


def test_a_view_that_fails_on_a_row_is_refused_when_it_is_loaded(tmp_path: Path) -> None:
    write(tmp_path, ROWS, "CREATE VIEW broken AS SELECT * REPLACE (CAST(ward AS INT)::VARCHAR AS ward) FROM visits")
    assert "cannot be read as duckdb (Conversion Error" in refusal(tmp_path, f"{FILE}#broken").message


@pytest.mark.parametrize("name", ["o'brien", 'say "x"', "a.b", "ærø x"])
def test_a_silo_s_directory_may_have_any_name(tmp_path: Path, name: str) -> None:
    home = tmp_path / name
    home.mkdir()
    write(home)
    assert load_sources(policy(DUCKDB), home)


@pytest.mark.process
def test_rows_and_decisions_of_one_file_are_read_and_a_withdrawal_counts_at_once(home: Path) -> None:
    aspen = home / "silos" / "aspen"
    rows, decisions = pq.read_table(aspen / "lung.parquet"), pyarrow.csv.read_csv(aspen / "consent.csv")
    with duckdb.connect(str(aspen / FILE)) as database:
        database.register("stored", rows)
        database.register("decided", decisions)
        database.execute("CREATE TABLE lung AS FROM stored; CREATE SCHEMA consent")
        database.execute(
            "CREATE TABLE consent.given AS SELECT * REPLACE (NULL::TIMESTAMP AS withdrawn_at) FROM decided"
        )
    text = (aspen / "policy.toml").read_text()
    text = text.replace('kind = "parquet"\nuri  = "lung.parquet"', f'kind = "duckdb"\nuri  = "{FILE}#lung"')
    text = text.replace('source       = "consent.csv"', f'source       = "{FILE}#consent.given"\nstale_after_hours = 2')
    (aspen / "policy.toml").write_text(text)
    for name in ("lung.parquet", "consent.csv"):
        (aspen / name).unlink()
    withdraw = "UPDATE consent.given SET withdrawn_at = '2026-02-01' WHERE person = 'NCCTG-005'"
    with simulate(home, noise=no_noise) as simulation:
        assert count(simulation) == 228
        write(aspen, withdraw)
        assert count(simulation) == 227
        with another_program(aspen / FILE):
            report = simulation.federation.query("SELECT COUNT(*) AS n FROM lung", purpose=PURPOSE, epsilon=0.5)
            assert report.silos["aspen"].status != "answered", "it drops out of a round while another program writes"
        old = simulation.silos["aspen"].clock() - 2 * 3600 - 10
        os.utime(aspen / FILE, (old, old))
        report = simulation.federation.query("SELECT COUNT(*) AS n FROM lung", purpose=PURPOSE, epsilon=0.5)
        assert [denial.code for denial in report.silos["aspen"].denials] == ["CONSENT_STALE"]


def test_a_policy_is_drafted_from_a_table_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path)
    out = tmp_path / "policy.toml"
    assert silo_node.owner.cli.main(["init", f"{tmp_path}/{FILE}#visits", "--id", "patient_id", "--out", str(out)]) == 0
    text = out.read_text()
    assert f'kind = "duckdb"\nuri  = "{FILE}#visits"' in text
    assert "[sources.visits]" in text
    assert "medicine" not in text
    assert silo_node.owner.cli.main(["init", f"{tmp_path}/{FILE}#none", "--out", str(tmp_path / "b.toml")]) == 1
    assert silo_node.owner.cli.main(["init", f"{tmp_path}/{FILE}", "--out", str(tmp_path / "b.toml")]) == 1
    errors = capsys.readouterr().err
    assert "none" in errors
    assert "FILE.duckdb#TABLE" in errors


def test_check_policy_looks_at_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(edited(DUCKDB))
    assert silo_node.owner.cli.main(["check-policy", str(file)]) == 1
    write(tmp_path)
    assert silo_node.owner.cli.main(["check-policy", str(file)]) == 0
    assert all("disclosure.min_silos" in line for line in load(file).warnings)
    assert parse(edited(DUCKDB).encode(), "x").sources["visits"].kind == "duckdb"
    assert "source    visits: ward (dimension/filter)" in capsys.readouterr().out
