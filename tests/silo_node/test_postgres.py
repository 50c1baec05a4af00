"""A source in PostgreSQL: loaded or refused for its owner, read as far as asked, and no way out for its DSN."""

import logging
import shutil
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.csv
import pyarrow.parquet as pq
import pytest

import silo_node.owner.cli
from analyst.demo.hospitals import PURPOSE, found_hospitals
from analyst.reports.estimates import Estimate
from analyst.reports.report import Report
from analyst.sql.offer import Offer
from analyst.sql.plan import plan as planned
from crypto.rounds.manifest import Recipient
from crypto.sealing import PUBLIC_BYTES
from crypto.wire import digest_of
from federation.founding import found
from policies.budget.ledger import Spending, WindowSpending
from policies.decision.budget_rules import limits_of, months_of
from policies.decision.case import Jurisdictions
from policies.decision.decide import decide
from policies.document import schema
from policies.document.catalogue import catalogue_of
from policies.document.load import load, parse
from policies.document.policy import Policy
from policies.requests.request import Request
from silo_node.actor import SiloActor
from silo_node.data.locations import connect, opened
from silo_node.data.postgres import BATCH_ROWS, PostgresTable, fetch
from silo_node.doctor import examine
from silo_node.errors import SourceError
from tests.harness.example_policy import Edit, edited, policy, request
from tests.harness.inside import computer_of
from tests.harness.rows import load_sources
from tests.harness.simulator import Simulation, no_noise, simulate
from tests.silo_node.test_apart import two

if TYPE_CHECKING:
    from tests.harness.postgres import Server

pytestmark = pytest.mark.postgres
VARIABLE = "CONSILO_TEST_DSN"
VISITS = PostgresTable(VARIABLE, "clinical.visits")
POSTGRES = Edit('kind = "parquet"\nuri  = "visits.parquet"', f'kind = "postgres"\nuri  = "{VISITS}"')
COLUMNS = {
    "patient_id": "text", "ward": "text", "grade": "smallint", "age": "integer", "cost": "double precision",
    "smoker": "boolean", "region": "text", "stay": "integer", "diary": "jsonb",
}  # fmt: skip
ROWS = [("p1", "medicine", 1, 30, 1.5, True, "north", 3, "{}"), ("p2", None, None, 40, None, False, None, 4, None)]


@pytest.fixture
def server(postgres: "Server", monkeypatch: pytest.MonkeyPatch) -> "Server":
    """The server, named by the variable, with a table that the example policy fits."""
    monkeypatch.setenv(VARIABLE, postgres.dsn)
    visits(postgres)
    return postgres


def visits(server: "Server", rows: list[tuple[Any, ...]] = ROWS, **types: str) -> None:
    server.fill("clinical.visits", ", ".join(f"{name} {kind}" for name, kind in (COLUMNS | types).items()), rows)


def refusal(home: Path, of: Policy | None = None) -> SourceError:
    with pytest.raises(SourceError) as caught:
        load_sources(of or policy(POSTGRES), home)
    assert caught.value.message.startswith("source 'visits': ")
    assert caught.value.hint
    return caught.value


def everything(err: BaseException) -> str:
    """Return what a log or a person could be shown of an error, its causes and its context."""
    return repr(err) + "".join(traceback.format_exception(err)) + repr(err.__context__) + repr(err.__cause__)


# ---- what is loaded ----------------------------------------------------------------------------------------------


def test_a_fitting_table_is_loaded(server: "Server", tmp_path: Path) -> None:
    (source,) = load_sources(policy(POSTGRES), tmp_path).values()
    assert "diary" not in source.columns
    with connect() as database, opened(database, [source], 20):
        assert database.execute(f"SELECT sum(age), count(*) FROM {source.view}").fetchall() == [(70, 2)]
        sql = f"FROM {source.view}"
    with pytest.raises(Exception, match="does not exist"), connect() as database:
        database.execute(sql)


@pytest.mark.parametrize("name", [one for one in COLUMNS if one != "diary"])
def test_a_missing_column_is_named(server: "Server", tmp_path: Path, name: str) -> None:
    server.execute(f"ALTER TABLE clinical.visits DROP COLUMN {name}")
    assert f"{VISITS} has no column {name!r} (found: " in refusal(tmp_path).message


def test_all_missing_columns_are_named_at_once(server: "Server", tmp_path: Path) -> None:
    server.execute("ALTER TABLE clinical.visits DROP COLUMN age, DROP COLUMN ward")
    first, second = refusal(tmp_path).message.splitlines()
    assert first.startswith(f"source 'visits': {VISITS} has no column 'ward'")
    assert second.startswith(f"source 'visits': {VISITS} has no column 'age'")


@pytest.mark.parametrize(
    ("name", "kind", "shown"),
    [
        ("age", "integer[]", "INTEGER[]"),
        ("cost", "money", "MONEY"),
        ("region", "jsonb", "JSONB"),
        ("ward", "bytea", "BYTEA"),
        ("stay", "interval", "INTERVAL"),
    ],
)
def test_a_column_of_no_single_values_is_named(
    server: "Server", tmp_path: Path, name: str, kind: str, shown: str
) -> None:
    server.execute(f"ALTER TABLE clinical.visits ALTER {name} TYPE {kind} USING NULL")
    assert refusal(tmp_path).message.endswith(f"column {name!r} of {VISITS} is {shown}, which no cell is read from")


@pytest.mark.parametrize(
    ("name", "kind", "cell", "value"),
    [
        ("ward", "integer", 7, "7"),
        ("ward", "uuid", "8e0a3f6e-6a0c-4a55-9f3c-0d7e5f0f3a10", "8e0a3f6e-6a0c-4a55-9f3c-0d7e5f0f3a10"),
        ("grade", "numeric(4)", 2, 2),
        ("age", "text", " 30.0", 30),
        ("smoker", "integer", 1, True),
        ("smoker", "text", "no", False),
    ],
)
def test_a_column_is_read_as_the_policy_declares(
    server: "Server", tmp_path: Path, name: str, kind: str, cell: Any, value: Any
) -> None:
    rows = [tuple(cell if key == name else None if key != "patient_id" else "p" for key in COLUMNS)]
    visits(server, rows, **{name: kind})
    (source,) = load_sources(policy(POSTGRES), tmp_path).values()
    with connect() as database, opened(database, [source], 20):
        assert database.execute(f"SELECT {name} FROM {source.view}").fetchall() == [(value,)]


def test_cells_that_cannot_be_read_are_named(server: "Server", tmp_path: Path) -> None:
    visits(server, [(*ROWS[0][:3], "old", *ROWS[0][4:])], age="text")
    said = f"source 'visits': {VISITS}, row 1, column 'age': 'old' is no int; 1 of 1 cells cannot be read as int"
    assert said in refusal(tmp_path).message


def test_types_with_another_name_fit(server: "Server", tmp_path: Path) -> None:
    server.execute("DROP DOMAIN IF EXISTS years CASCADE; CREATE DOMAIN years AS integer CHECK (value < 200)")
    server.execute("DROP TYPE IF EXISTS wards CASCADE; CREATE TYPE wards AS ENUM ('medicine', 'surgery')")
    kinds = {"ward": "wards", "age": "years", "grade": "bigint", "cost": "numeric", "region": "char(9)", "stay": "int2"}
    whose = "8e0a3f6e-6a0c-4a55-9f3c-0d7e5f0f3a10"
    visits(server, [(whose, "medicine", 1, 30, "1.5", True, "north", 3, None)], patient_id="uuid", **kinds)
    (source,) = load_sources(policy(POSTGRES), tmp_path).values()
    with connect() as database, opened(database, [source], 20):
        cells = database.execute(f"SELECT ward, age, cost, region FROM {source.view}").fetchall()
    assert cells == [("medicine", 30, Decimal("1.5"), "north")]


@pytest.mark.parametrize("name", ["clinical.nothing", "nowhere.visits", "visits", "clinical.Visits"])
def test_a_missing_table_is_named(server: "Server", tmp_path: Path, name: str) -> None:
    of = policy(Edit(POSTGRES.old, POSTGRES.new.replace("clinical.visits", name)))
    assert f"env:{VARIABLE}#{name}: there is no such table" in refusal(tmp_path, of).message


def test_an_empty_table_is_refused(server: "Server", tmp_path: Path) -> None:
    visits(server, [])
    assert f"{VISITS} has no rows" in refusal(tmp_path).message


def test_a_view_is_read_too_and_names_are_those_of_the_database(server: "Server", tmp_path: Path) -> None:
    server.execute('CREATE OR REPLACE VIEW clinical."Recent" AS SELECT *, 1 AS more FROM clinical.visits')
    of = policy(Edit(POSTGRES.old, POSTGRES.new.replace("clinical.visits", "clinical.Recent")))
    assert load_sources(of, tmp_path)


def test_a_view_that_fails_on_a_row_is_refused_when_it_is_loaded(server: "Server", tmp_path: Path) -> None:
    server.execute("CREATE OR REPLACE VIEW clinical.broken AS SELECT *, 1 / (age - 40) AS more FROM clinical.visits")
    broken = Edit(POSTGRES.old, POSTGRES.new.replace("clinical.visits", "clinical.broken"))
    of = policy(broken, Edit("stay   = {", 'stay = { from = "more",'))
    assert "cannot be read as postgres (division by zero)" in refusal(tmp_path, of).message


def test_a_user_that_may_not_read_a_column_is_told(server: "Server", tmp_path: Path) -> None:
    server.execute("REVOKE SELECT ON clinical.visits FROM silo")
    assert "permission denied for table visits" in refusal(tmp_path).message
    opened_here = ", ".join(name for name in COLUMNS if name != "diary")
    server.execute(f"GRANT SELECT ({opened_here}) ON clinical.visits TO silo")
    assert load_sources(policy(POSTGRES), tmp_path), "what is closed need not be granted"


def test_text_of_an_unknown_encoding_is_refused(
    server: "Server", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a later row could hold what is no text, and fail a request."""
    server.execute("DROP DATABASE IF EXISTS bytes")
    server.execute("CREATE DATABASE bytes ENCODING 'SQL_ASCII' TEMPLATE template0")
    monkeypatch.setenv(VARIABLE, server.dsn.replace("dbname=postgres", "dbname=bytes"))
    assert "does not know the encoding of its text" in refusal(tmp_path).message


def test_cells_that_no_number_and_no_day_can_hold_are_missing(server: "Server", tmp_path: Path) -> None:
    server.execute(
        "DROP TABLE IF EXISTS clinical.odd; CREATE TABLE clinical.odd (patient_id int, cost numeric, seen timestamptz,"
        " region text, ward text, grade int, age int, smoker bool, stay int);"
        "INSERT INTO clinical.odd (patient_id, cost, seen, region) VALUES (1, 'NaN', 'infinity', 'NaN'),"
        " (2, 'Infinity', '-infinity', ''), (3, 1e1000, '0044-03-15 BC', 'a'),"
        " (4, repeat('9', 5000)::numeric, '294276-01-01', 'a'), (5, 1e-1000, '2026-12-31 23:30-05', 'a'),"
        " (6, 0.005, '2026-12-31 23:30', 'a'), (7, -1e27, NULL, NULL)"
    )
    text = edited(
        Edit(
            POSTGRES.old,
            POSTGRES.new.replace("visits", "odd") + '\ntime_column = "seen"\nlookback_days = 900\nmax_unreadable = 1',
        ),
        Edit(
            "diary  =",
            'seen = { type = "date", class = "internal", roles = ["dimension"], granularity = "day" }\ndiary  =',
        ),
    )
    (source,) = load_sources(parse(text.encode(), "x"), tmp_path).values()
    with connect() as database, opened(database, [source], 20):
        sql = f"SELECT patient_id, cost, seen, region FROM {source.view} ORDER BY 1"
        found = database.execute(sql).fetchall()
    costs = [None if row[1] is None else float(row[1]) for row in found]
    assert costs == [None, None, None, None, 0.0, 0.005, -999_999_999], "far below its bounds, so read in 64 bits"
    assert [row[2] for row in found][4:] == ["2027-01-01", "2026-12-31", None], "a day is one in UTC"
    assert [row[3] for row in found[:3]] == ["NaN", None, "a"], "text without a letter is missing"


def test_more_rows_than_a_batch_and_any_text_arrive(server: "Server") -> None:
    texts = ["a\tb", "new\nline", "\\N", '"', "'", "ærø 🏥", "NULL", "%s", "\x01", "x" * 100_000]
    rows = [(index, texts[index % len(texts)] if index < 50 else None) for index in range(2 * BATCH_ROWS + 1)]
    server.fill("clinical.many", 'number int, "a ""b"" %s" text', rows)
    many = PostgresTable(VARIABLE, "clinical.many")
    found = fetch({many: ['a "b" %s', "number"]}, 20)[many].rows
    assert found.column_names == ['a "b" %s', "number"]
    assert found["number"].to_pylist() == [str(number) for number, _ in rows]
    assert found['a "b" %s'].to_pylist() == [text for _, text in rows]


# ---- what is read ------------------------------------------------------------------------------------------------


def test_only_the_columns_of_a_question_leave_the_database(server: "Server", tmp_path: Path) -> None:
    (source,) = load_sources(policy(POSTGRES), tmp_path).values()
    before = len(server.log())
    with connect() as database, opened(database, [source.narrowed(["patient_id", "age"])], 20):
        pass
    (declared,) = [line for line in server.log()[before:].splitlines() if "DECLARE" in line]
    assert declared.endswith('SELECT "age"::text, "patient_id"::text FROM "clinical"."visits"')


def test_a_transaction_is_read_only_and_limited(server: "Server") -> None:
    server.execute(
        "CREATE TABLE IF NOT EXISTS clinical.notes (note text); GRANT INSERT ON clinical.notes TO silo;"
        "CREATE OR REPLACE FUNCTION clinical.note() RETURNS text VOLATILE LANGUAGE sql AS"
        " $$ INSERT INTO clinical.notes VALUES ('x') RETURNING note $$;"
        "CREATE OR REPLACE VIEW clinical.writes AS SELECT clinical.note() AS note;"
        "CREATE OR REPLACE VIEW clinical.settings AS SELECT current_setting('transaction_isolation') AS isolation,"
        " current_setting('statement_timeout') AS statement, current_setting('lock_timeout') AS lock,"
        " current_setting('idle_in_transaction_session_timeout') AS idle, current_setting('application_name') AS name"
    )
    with pytest.raises(SourceError, match="read-only transaction"):
        fetch({PostgresTable(VARIABLE, "clinical.writes"): ["note"]}, 20)
    table = PostgresTable(VARIABLE, "clinical.settings")
    found = fetch({table: ["isolation", "statement", "lock", "idle", "name"]}, 20)[table].rows.to_pylist()[0]
    assert found.pop("isolation") == "repeatable read"
    assert found.pop("name") == "consilo"
    assert set(found.values()) == {"20s"}


def test_tables_of_one_database_are_read_as_of_one_moment(server: "Server", monkeypatch: pytest.MonkeyPatch) -> None:
    server.fill("clinical.first", "a int", [(1,)])
    server.fill("clinical.second", "a int", [(1,)])
    written = "INSERT INTO clinical.first VALUES (2); INSERT INTO clinical.second VALUES (2)"
    server.meanwhile(monkeypatch, after=lambda: server.execute(written))
    tables = [PostgresTable(VARIABLE, f"clinical.{name}") for name in ("first", "second")]
    found = fetch({table: ["a"] for table in tables}, 20)
    assert [found[table].rows["a"].to_pylist() for table in tables] == [["1"], ["1"]]
    assert fetch({tables[1]: ["a"]}, 20)[tables[1]].rows.num_rows == 3


# ---- what goes wrong ---------------------------------------------------------------------------------------------


def wrong_password(server: "Server") -> str:
    return server.dsn.replace("battery", "battery-and-more")


WRONG: dict[str, tuple[Callable[["Server"], str], str]] = {
    "password": (wrong_password, "the user or the password is refused"),
    "no password": (lambda one: one.dsn.partition(" password")[0], "the user or the password is refused"),
    "user": (lambda one: one.dsn.replace("user=silo", "user=owner2"), "pg_hba.conf does not let this user in"),
    "database": (lambda one: one.dsn.replace("dbname=postgres", "dbname=hidden-name"), "is unknown"),
    "port": (lambda one: one.dsn.replace(f"port={one.port}", "port=1"), "nobody listens at that address"),
    "host": (lambda one: one.dsn.replace("127.0.0.1", "hidden-name.invalid"), "the name of the host is unknown"),
    "no string": (lambda _: "hidden-name correct horse'battery", "holds no connection string of libpq"),
    "a bad url": (lambda _: "postgresql://silo:hidden-name@127.0.0.1:battery/x", "the connection is refused"),
    "a bad option": (lambda one: one.dsn + " sslmode=hidden-name", "the connection is refused"),
    "tls that is not there": (lambda one: one.dsn + " sslmode=require", "no secure connection can be made"),
    "no text": (lambda one: one.dsn + "\udcff", "the connection is refused"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_refused_connection_says_why_and_nothing_of_the_dsn(
    server: "Server", tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, case: str
) -> None:
    caplog.set_level(logging.DEBUG)
    make, reason = WRONG[case]
    monkeypatch.setenv(VARIABLE, make(server))
    error = refusal(tmp_path)
    assert f"{VISITS} cannot be read as postgres (" in error.message
    assert reason in error.message
    for secret in ("battery", "horse", "hidden-name", str(server.port), "user=silo", "127.0.0.1"):
        assert secret not in everything(error)
    assert "battery" not in caplog.text
    assert "horse" not in caplog.text


def test_a_variable_that_is_not_set_is_named(server: "Server", tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE)
    error = refusal(tmp_path)
    assert f"the environment variable {VARIABLE} is not set" in error.message
    assert "connection string" in error.hint


def test_without_psycopg_the_owner_is_told_what_to_install(
    server: "Server", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "psycopg", None)
    error = refusal(tmp_path)
    assert "psycopg is not installed" in error.message
    assert "consilo[postgres]" in error.hint


def test_nothing_that_is_kept_holds_the_dsn(server: "Server", tmp_path: Path) -> None:
    found = load_sources(policy(POSTGRES), tmp_path)
    assert "battery" not in repr(found)
    assert "127.0.0.1" not in repr(found)


def late(table: PostgresTable, columns: list[str]) -> tuple[SourceError, float]:
    began = time.monotonic()
    with pytest.raises(SourceError) as caught:
        fetch({table: columns}, 1)
    return caught.value, time.monotonic() - began


def test_a_statement_that_takes_too_long_is_ended(server: "Server") -> None:
    server.execute("CREATE OR REPLACE VIEW clinical.sleeps AS SELECT pg_sleep(60)::text AS a")
    error, took = late(PostgresTable(VARIABLE, "clinical.sleeps"), ["a"])
    assert "not read within 1 s" in error.message
    assert took < 10


def test_a_lock_is_not_waited_for(server: "Server") -> None:
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with server.owner() as connection, connection.transaction():
            connection.execute("LOCK clinical.visits IN ACCESS EXCLUSIVE MODE")
            held.set()
            done.wait(20)

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        assert held.wait(10)
        error, took = late(VISITS, ["age"])
    finally:
        done.set()
        holder.join()
    assert "cannot be read as postgres" in error.message
    assert took < 10


def test_a_server_that_answers_no_more_is_left(server: "Server", monkeypatch: pytest.MonkeyPatch) -> None:
    """A time-out at the server is no help if the server stands still: the line is cut here."""
    server.meanwhile(monkeypatch, before=server.freeze)
    try:
        error, took = late(VISITS, ["age"])
    finally:
        server.thaw()
    assert "not read within 1 s" in error.message
    assert took < 10


def test_a_server_that_is_stopped_in_between_is_said_so(server: "Server", monkeypatch: pytest.MonkeyPatch) -> None:
    server.meanwhile(monkeypatch, before=server.stop)
    try:
        with pytest.raises(SourceError, match="cannot be read as postgres") as caught:
            fetch({VISITS: ["age"]}, 20)
    finally:
        server.resume()
    assert "127.0.0.1" not in everything(caught.value)


# ---- a silo ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hospitals") / "federation"
    found_hospitals(path)
    return path


@pytest.fixture
def simulation(server: "Server", hospitals: Path, tmp_path: Path) -> Iterator[Simulation]:
    """Five hospitals, of which aspen keeps its rows and its decisions in PostgreSQL."""
    home = Path(shutil.copytree(hospitals, tmp_path / "federation"))
    aspen = home / "silos" / "aspen"
    rows = pq.read_table(aspen / "lung.parquet")
    server.fill(
        "clinical.lung",
        "patient_id text, sex text, ecog int, age int, survival int, died boolean, karnofsky int, weight_loss int",
        [tuple(row.values()) for row in rows.to_pylist()],
    )
    decisions = pyarrow.csv.read_csv(aspen / "consent.csv").to_pylist()
    server.fill(
        "consent.decisions",
        "person text, purpose text, given_at timestamptz, withdrawn_at timestamptz",
        [(one["person"], one["purpose"], one["given_at"], None) for one in decisions],
    )
    text = (aspen / "policy.toml").read_text()
    for old, new in (
        ('kind = "parquet"\nuri  = "lung.parquet"', f'kind = "postgres"\nuri  = "env:{VARIABLE}#clinical.lung"'),
        ('source       = "consent.csv"', f'source       = "env:{VARIABLE}#consent.decisions"'),
    ):
        assert old in text
        text = text.replace(old, new)
    (aspen / "policy.toml").write_text(text)
    (aspen / "lung.parquet").unlink()
    (aspen / "consent.csv").unlink()
    with simulate(home, noise=no_noise) as running:
        yield running


def number(report: Report) -> int:
    cell = report.rows[0]["n"]
    assert isinstance(cell, Estimate)
    assert cell.value is not None
    return round(cell.value)


def count(simulation: Simulation) -> int:
    report = simulation.federation.query("SELECT COUNT(*) AS n FROM lung", purpose=PURPOSE, epsilon=0.5)
    return number(report)


def test_a_withdrawal_counts_on_the_very_next_question(simulation: Simulation, server: "Server") -> None:
    assert count(simulation) == 228
    server.execute("UPDATE consent.decisions SET withdrawn_at = now() - interval '1 hour' WHERE person = 'NCCTG-005'")
    assert count(simulation) == 227
    server.execute("DELETE FROM consent.decisions WHERE person = 'NCCTG-009'")
    assert count(simulation) == 226
    server.execute("UPDATE consent.decisions SET withdrawn_at = NULL")
    assert count(simulation) == 227
    server.execute("DELETE FROM clinical.lung WHERE patient_id = 'NCCTG-016'")
    assert count(simulation) == 226


def test_a_silo_whose_database_is_gone_drops_out_and_comes_back(simulation: Simulation, server: "Server") -> None:
    silo = simulation.silos["aspen"]
    assert count(simulation) == 228
    server.stop()
    try:
        report = simulation.federation.query("SELECT COUNT(*) AS n FROM lung", purpose=PURPOSE, epsilon=0.5)
    finally:
        server.resume()
    assert report.silos["aspen"].status != "answered"
    assert {outcome.status for name, outcome in report.silos.items() if name != "aspen"} == {"answered"}
    assert number(report) == 228 - 47
    log = (silo.policy.parent / "silo.log").read_text()
    assert f"env:{VARIABLE}#clinical.lung cannot be read as postgres" in log or "consent.decisions" in log
    told = b"".join(frame for _, frames in silo.seen for frame in frames)
    assert b"SOURCE_AWAY" in told
    for secret in ("battery", "horse", "127.0.0.1", str(server.port)):
        assert secret not in log
        assert secret.encode() not in told
    assert b"postgres" not in told
    assert count(simulation) == 228


def test_the_owner_sees_who_is_in(simulation: Simulation, server: "Server", capsys: pytest.CaptureFixture[str]) -> None:
    server.execute("UPDATE consent.decisions SET withdrawn_at = '2026-02-03' WHERE person = 'NCCTG-005'")
    of = str(simulation.silos["aspen"].policy)
    assert silo_node.owner.cli.main(["consent", "--policy", of, "--person", "NCCTG-005"]) == 0
    output = capsys.readouterr().out
    assert "46 of 47" in output
    assert "withdrawn 2026-02-03T00:00:00Z" in output


AT = int(datetime(2026, 11, 24, 12, tzinfo=UTC).timestamp())  # a Tuesday
ADMISSIONS = (
    "patient_id text, admitted date, region text, age_band text, icd_group text, stay_days integer,"
    " hba1c numeric(4, 1), readmitted boolean, free_text text"
)
SURVIVAL = "patient_id text, age_band text, stage text, treated boolean, ward text, days integer, died boolean"
DECISIONS = (
    "patient_id text, duo_code text, given_at timestamptz, valid_to timestamptz, withdrawn_at timestamptz,"
    " record_id text"
)


def test_the_hospital_of_the_examples_answers(
    server: "Server", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its own policy and the variable that it names: judged, then computed by the silo, after consent."""
    monkeypatch.setenv("HOSPITAL_DSN", server.dsn)
    server.fill(
        "clinical.admissions",
        ADMISSIONS,
        [
            (
                f"p{day}",
                date(2026, 1 + day % 10, 5),
                ("NO", "SE", "?")[day % 3],
                "40-64",
                "I20-I25",
                day,
                7.5,
                True,
                "a",
            )
            for day in range(30)
        ],
    )
    server.fill("clinical.survival", SURVIVAL, [("p0", "40-64", "II", True, "medical", 300, False)])
    given = datetime(2026, 1, 1, tzinfo=UTC)
    server.fill("consent.decisions", DECISIONS, [("p0", "HMB", given, None, None, "r-0")])
    federation = tmp_path / "federation"
    keys = found(federation, "fed", dict.fromkeys(("fjord-hospital", "a", "b", "c", "d")), ("registry@health.example",))
    text = (schema.FILE.parent / "examples" / "hospital.toml").read_text()
    key = "ed25519:a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebfc0"
    assert key in text
    text = text.replace('"production"', '"trial"', 1).replace(key, str(keys["registry@health.example"]))
    home = federation / "silos" / "fjord-hospital"
    (home / "policy.toml").write_text(text)
    of = load(home / "policy.toml").policy
    analyst = of.analysts["registry@health.example"]
    catalogue = catalogue_of(of, analyst, "fed", bytes(32), bytes(16), AT)
    found_plan = planned(
        "SELECT region, COUNT(*) AS n, AVG(stay_days) AS days FROM admissions WHERE age_band = '40-64' GROUP BY region",
        Offer({"fjord-hospital": catalogue}),
    )
    asked = request(
        analyst="registry@health.example",
        recipients=(Recipient(name="registry@health.example", key=bytes(PUBLIC_BYTES)),),
        purpose="quality-registry",
        silos=("a", "b", "c", "d", "fjord-hospital"),
        table=found_plan.table,
        plan=found_plan.plan,
        micro_rho=2000,
        created_at=AT,
        expires_at=AT + 600,
    )
    windows = limits_of(of, asked.purpose, AT, months_of(of, asked, AT))
    spent = Spending(lifetime=0, windows=tuple(WindowSpending(0, 0) for _ in windows))
    places = Jurisdictions(dict.fromkeys(asked.silos, "NO"), {"aggregator": "NO"})
    assert decide(of, asked, digest_of(asked), spent, AT, AT, (), places) == ()
    actor = SiloActor(str(home / "policy.toml"), clock=lambda: AT)
    try:
        people, rows_of, totals = counted(actor, asked)
        domain = found_plan.table.column("region").domain
        assert dict(zip(domain, people, strict=True)) == dict.fromkeys(domain, 0) | {"NO": 10, "SE": 10, "OTHER": 10}
        assert rows_of == people
        assert totals[domain.index("NO")] == sum(2 * days - 60 for days in range(0, 30, 3))
        server.execute(
            "INSERT INTO consent.decisions VALUES ('p3', 'quality-registry', NULL, NULL, now() - interval '100 years')"
        )
        assert counted(actor, asked)[0][domain.index("NO")] == 9, "an objection counts at once"
        research = replace_purpose(asked, "health-research")
        assert sum(counted(actor, research)[0]) == 1, "only who consented is in"
    finally:
        actor.close()


def counted(actor: SiloActor, asked: Request) -> list[list[int]]:
    return [vector.tolist() for vector in computer_of(actor).contribution(asked, AT)]


def replace_purpose(asked: Request, purpose: str) -> Request:
    return asked.model_copy(update={"purpose": purpose})


# ---- the owner's commands ----------------------------------------------------------------------------------------


def test_a_policy_is_drafted_from_a_table_s_schema(
    server: "Server", tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "policy.toml"
    before = len(server.log())
    assert silo_node.owner.cli.main(["init", str(VISITS), "--id", "patient_id", "--out", str(out)]) == 0
    text = out.read_text()
    assert f'kind = "postgres"\nuri  = "{VISITS}"' in text
    assert "[sources.visits]" in text
    assert 'from = "cost"\ntype = "decimal"' in text
    assert 'left out, as a policy cannot carry it: column "diary" of type JSONB' in text
    assert "medicine" not in text
    assert 'FROM "clinical"."visits"' not in server.log()[before:], "no row was read"
    assert silo_node.owner.cli.main(["init", f"env:{VARIABLE}#clinical.none", "--out", str(tmp_path / "b.toml")]) == 1
    assert silo_node.owner.cli.main(["init", f"env:{VARIABLE}", "--out", str(tmp_path / "b.toml")]) == 1
    errors = capsys.readouterr().err
    assert "there is no such table" in errors
    assert "env:NAME#SCHEMA.TABLE" in errors
    assert "battery" not in errors


def test_check_policy_and_doctor_look_at_the_database(
    server: "Server", tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(edited(POSTGRES))
    assert silo_node.owner.cli.main(["check-policy", str(file)]) == 0
    output, errors = capsys.readouterr()
    assert "source    visits: ward (dimension/filter)" in output
    assert [line for line in errors.splitlines() if "disclosure.min_silos" not in line] == []
    assert [(one.state, one.found) for one in examine(file) if one.what == "sources"] == [("ok", "visits")]
    monkeypatch.setenv(VARIABLE, wrong_password(server))
    assert silo_node.owner.cli.main(["check-policy", str(file)]) == 1
    assert "the user or the password is refused" in capsys.readouterr().err
    (finding,) = [one for one in examine(file) if one.what == "sources"]
    assert (finding.state, "the password is refused" in finding.found) == ("FAIL", True)
    assert "battery" not in repr(finding)


# ---- private and exact -------------------------------------------------------------------------------------------


def test_a_table_is_what_the_server_says_that_it_is(
    server: "Server", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another spelling, another variable, another user, a parent, a part or a view give no rows a second name."""
    monkeypatch.setenv("OTHER_DSN", f"{server.dsn} options='-c search_path=clinical'")
    server.execute("DROP TABLE IF EXISTS clinical.p CASCADE; DROP TABLE IF EXISTS clinical.u CASCADE")
    server.execute("CREATE TABLE clinical.p (id text, x int) PARTITION BY LIST (x)")
    server.execute("CREATE TABLE clinical.p1 PARTITION OF clinical.p FOR VALUES IN (1, 2)")
    server.execute("CREATE TABLE clinical.u AS SELECT 'p' || x AS id, x FROM generate_series(1, 3) x")
    server.execute("INSERT INTO clinical.p SELECT 'p' || x, x FROM generate_series(1, 2) x")
    server.execute("CREATE VIEW clinical.v AS SELECT * FROM clinical.u")
    server.execute("CREATE MATERIALIZED VIEW clinical.m AS SELECT * FROM clinical.u")
    u, p, part = (f"env:{VARIABLE}#clinical.{name}" for name in ("u", "p", "p1"))
    for one, other in ((u, "env:OTHER_DSN#u"), (u, "env:OTHER_DSN#clinical.u"), (p, part), (part, p)):
        with pytest.raises(SourceError, match="source 't': it has rows of 'u'"):
            load_sources(two(one, other, "postgres"), tmp_path)
        assert len(load_sources(two(one, other, "postgres", "private"), tmp_path)) == 2
    for view in ("v", "m"):
        with pytest.raises(SourceError, match="is no table of its own"):
            load_sources(two(u, f"env:{VARIABLE}#clinical.{view}", "postgres"), tmp_path)
    assert len(load_sources(two(u, p, "postgres"), tmp_path)) == 2
