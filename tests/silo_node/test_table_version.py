"""The version of a table in PostgreSQL: another whenever what is read is another, and rows of a run kept by it."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from silo_node.data.locations import connect
from silo_node.data.postgres import PostgresTable, fetch, version_of
from silo_node.data.run_rows import RunRows
from silo_node.data.sources import source_of
from tests.cases import every
from tests.harness.example_policy import NOW, policy
from tests.silo_node.test_postgres import COLUMNS, POSTGRES, VARIABLE, VISITS, visits
from tests.silo_node.test_run_rows import LEARNS, LIMIT_S, ages, step

if TYPE_CHECKING:
    from tests.harness.postgres import Server

pytestmark = pytest.mark.postgres
PEOPLE = 12
TABLE = "clinical.visits"


@pytest.fixture
def server(postgres: "Server", monkeypatch: pytest.MonkeyPatch) -> "Server":
    monkeypatch.setenv(VARIABLE, postgres.dsn)
    fill(postgres)
    return postgres


def fill(server: "Server", people: int = PEOPLE) -> None:
    rows = [(f"p{one}", "medicine", 1, one, 1.5, one % 3 > 0, "north", 3, "{}") for one in range(people)]
    assert len(rows[0]) == len(COLUMNS)
    visits(server, rows)


def read(server: "Server", table: str = TABLE) -> list[str]:
    found = fetch({PostgresTable(VARIABLE, table): ["age"]}, 20)[PostgresTable(VARIABLE, table)]
    assert found.version is None  # it was not asked for
    return sorted(found.rows["age"].to_pylist())


@every(
    "change",
    [
        f"UPDATE {TABLE} SET age = 90 WHERE age = 3",
        f"UPDATE {TABLE} SET age = age",  # the same cells: another version, which is read again
        f"DELETE FROM {TABLE} WHERE age = 3",
        f"INSERT INTO {TABLE} (patient_id, age) VALUES ('new', 50)",
        f"DELETE FROM {TABLE} WHERE age = 3; INSERT INTO {TABLE} (patient_id, age) VALUES ('new', 3)",
        f"BEGIN; DELETE FROM {TABLE}; INSERT INTO {TABLE} (patient_id, age) VALUES ('a', 1); COMMIT",
        f"TRUNCATE {TABLE}",
        f"ALTER TABLE {TABLE} RENAME age TO old; ALTER TABLE {TABLE} RENAME stay TO age",
        f"ALTER TABLE {TABLE} ALTER age TYPE text USING age::text || '0'",
        f"ALTER TABLE {TABLE} DROP COLUMN age; ALTER TABLE {TABLE} ADD COLUMN age int DEFAULT 7",
        f"CREATE TABLE clinical.part () INHERITS ({TABLE}); INSERT INTO clinical.part (age) VALUES (5)",
        f"CREATE TABLE clinical.o (LIKE {TABLE}); DROP TABLE {TABLE}; ALTER TABLE clinical.o RENAME TO visits",
        "ALTER TYPE clinical.grade RENAME VALUE 'low' TO 'small'",
    ],
)
def test_whatever_changes_what_is_read_changes_the_version(server: "Server", change: str) -> None:
    server.execute("DROP TYPE IF EXISTS clinical.grade CASCADE; CREATE TYPE clinical.grade AS ENUM ('low', 'high')")
    fill(server)
    before = version_of(VISITS, 20)
    assert before is not None
    assert version_of(VISITS, 20) == before == version_of(VISITS, 20)
    server.execute(change)
    assert version_of(VISITS, 20) != before


@every(
    "change",
    [
        f"VACUUM {TABLE}",
        f"ANALYZE {TABLE}",
        f"VACUUM FREEZE {TABLE}",
        f"BEGIN; UPDATE {TABLE} SET age = 90; ROLLBACK",
        f"BEGIN; SELECT FROM {TABLE} FOR UPDATE; COMMIT",
        "CREATE TABLE clinical.beside (a int); INSERT INTO clinical.beside VALUES (1); DROP TABLE clinical.beside",
    ],
)
def test_what_leaves_the_rows_as_they_are_leaves_the_version(server: "Server", change: str) -> None:
    before, rows = version_of(VISITS, 20), read(server)
    for one in change.split("; ") if "VACUUM" in change else [change]:
        server.execute(one)
    assert version_of(VISITS, 20) == before
    assert read(server) == rows


@every(
    ("made", "table"),
    [
        (f"CREATE VIEW clinical.seen AS SELECT * FROM {TABLE}", "clinical.seen"),
        (f"ALTER TABLE {TABLE} ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON {TABLE} USING (age > 3)", TABLE),
        (f"REVOKE SELECT ON {TABLE} FROM silo; GRANT SELECT (age) ON {TABLE} TO silo", TABLE),
    ],
)
def test_a_table_that_does_not_tell_has_no_version_and_is_read_all_the_same(
    server: "Server", made: str, table: str
) -> None:
    server.execute(made)
    named = PostgresTable(VARIABLE, table)
    assert version_of(named, 20) is None
    found = fetch({named: ["age"]}, 20, [named])[named]
    assert found.version is None
    assert found.rows.num_rows in (PEOPLE, PEOPLE - 4)


def test_a_partitioned_table_has_the_version_of_all_its_parts(server: "Server") -> None:
    server.execute(
        "CREATE TABLE clinical.parts (age int) PARTITION BY RANGE (age);"
        "CREATE TABLE clinical.young PARTITION OF clinical.parts FOR VALUES FROM (0) TO (50);"
        "CREATE TABLE clinical.old PARTITION OF clinical.parts FOR VALUES FROM (50) TO (100);"
        "INSERT INTO clinical.parts VALUES (1), (2), (60)"
    )
    table = PostgresTable(VARIABLE, "clinical.parts")
    versions = [version_of(table, 20)]
    for change in (
        "INSERT INTO clinical.old VALUES (70)",
        "ALTER TABLE clinical.parts DETACH PARTITION clinical.old",
        "DELETE FROM clinical.young",
    ):
        server.execute(change)
        versions.append(version_of(table, 20))
    assert None not in versions
    assert len(set(versions)) == 4


def test_the_version_is_that_of_the_rows_that_were_read(server: "Server", monkeypatch: pytest.MonkeyPatch) -> None:
    """Hope: a row that comes and goes while a silo reads is kept under the version of the rows without it."""
    before = version_of(VISITS, 20)
    server.meanwhile(monkeypatch, after=lambda: server.execute(f"INSERT INTO {TABLE} (age) VALUES (77)"))
    found = fetch({VISITS: ["age"]}, 20, [VISITS])[VISITS]
    assert found.version == before
    assert "77" not in found.rows["age"].to_pylist()
    monkeypatch.undo()
    monkeypatch.setenv(VARIABLE, server.dsn)
    after = version_of(VISITS, 20)
    server.meanwhile(monkeypatch, before=lambda: server.execute(f"DELETE FROM {TABLE} WHERE age = 77"))
    found = fetch({VISITS: ["age"]}, 20, [VISITS])[VISITS]
    assert (found.version, "77" in found.rows["age"].to_pylist()) in ((after, True), (version_of(VISITS, 20), False))


def runs(home: Path, change: Callable[[RunRows], None]) -> RunRows:
    rules = policy(LEARNS, POSTGRES)
    with connect() as database:
        kept = RunRows(rules, database, {"visits": source_of(rules, "visits", home)}, None, lambda *_: None)
        change(kept)
    return kept


def test_rows_of_a_table_are_read_once_in_a_run_until_it_changes(server: "Server", tmp_path: Path) -> None:
    everybody = list(range(PEOPLE))

    def rounds(kept: RunRows) -> None:
        for number in range(3):
            assert ages(*kept.of(step(number), NOW, LIMIT_S)) == everybody
        assert kept.reads == 1
        server.execute(f"DELETE FROM {TABLE} WHERE age = 3")
        for number in range(3, 5):
            assert ages(*kept.of(step(number), NOW, LIMIT_S)) == [one for one in everybody if one != 3]
        assert kept.reads == 2

    runs(tmp_path, rounds)


def test_each_round_has_what_reading_now_would_give_over_random_histories(server: "Server", tmp_path: Path) -> None:
    numbers = np.random.default_rng(7)

    def rounds(kept: RunRows) -> None:
        changed = 0
        for number in range(25):
            age = int(numbers.integers(0, 40))
            match numbers.integers(0, 5):
                case 0:
                    server.execute(f"INSERT INTO {TABLE} (patient_id, ward, age, smoker)"
                                   f" VALUES ('n{number}', 'medicine', {age}, true)")  # fmt: skip
                case 1:
                    server.execute(f"DELETE FROM {TABLE} WHERE age = (SELECT min(age) FROM {TABLE})")
                case 2:
                    server.execute(f"UPDATE {TABLE} SET age = {age} WHERE age = (SELECT max(age) FROM {TABLE})")
                case _:
                    changed -= 1
            changed += 1
            now = [int(one) for (one,) in server.execute(f"SELECT age FROM {TABLE} WHERE ward IS NOT NULL")]
            assert ages(*kept.of(step(0), NOW, LIMIT_S)) == sorted(now)
        assert 1 < kept.reads <= changed + 1

    runs(tmp_path, rounds)


def test_a_table_that_cannot_be_reached_fails_as_a_reading_of_it(server: "Server", tmp_path: Path) -> None:
    from silo_node.errors import SourceError

    def rounds(kept: RunRows) -> None:
        kept.of(step(0), NOW, LIMIT_S)
        server.execute(f"DROP TABLE {TABLE}")
        with pytest.raises(SourceError, match="cannot be read as postgres"):
            kept.of(step(1), NOW, LIMIT_S)

    runs(tmp_path, rounds)
