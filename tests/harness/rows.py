"""A silo's rows without a silo: its sources and its table of decisions, checked in one DuckDB of the test's process."""

import atexit
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import duckdb

from policies.document.load import parse
from policies.document.policy import Policy
from silo_node.data import cells, check, consent, locations, sources
from silo_node.data.prepared.codes import places_in
from silo_node.data.prepared.reader import Reader
from silo_node.data.prepared.store import Store
from silo_node.ledger.events import KeptInForce


def policy(*columns: str, kind: str = "csv", source: str = "", unit: str = "", uri: str = "", rest: str = "") -> Policy:
    """Return a policy with an id and more columns: `x`, or `x0`, `x1` and so on."""
    names = ["x"] if len(columns) == 1 else [f"x{index}" for index in range(len(columns))]
    declared = "\n".join(
        f'{name} = {{ class = "internal", {column} }}' for name, column in zip(names, columns, strict=True)
    )
    uri = uri or {"csv": "t.csv", "parquet": "t.parquet", "duckdb": "t.duckdb#t"}[kind]
    return parse(
        f"""
schema = "silo-policy/1"
silo = {{ id = "a", controller = "C", sector = "hospital", jurisdiction = "NO", contact = "c" }}
budget = {{ delta = 1e-6, lifetime = {{ rho = 1 }} }}
[privacy_unit]
entity = "patient"
id_column = "id"
max_rows = 1
{unit}
[sources.t]
kind = "{kind}"
uri = "{uri}"
{source}
[sources.t.columns]
id = {{ type = "string", class = "identifier", roles = [] }}
{declared}
[purposes.research]
legal_basis = "public-task"
computations = ["query"]
{rest}
""".encode(),
        "policy.toml",
    )


class NamedHere:
    """What a silo's log names as in force, without a log."""

    def __init__(self) -> None:
        self._kept: dict[str, KeptInForce] = {}

    def kept(self) -> Mapping[str, KeptInForce]:
        return self._kept

    def put_in_force(self, new: KeptInForce) -> None:
        self._kept[new.name] = new

    def prepare(self, store: Store, database: duckdb.DuckDBPyConnection, source: sources.Source, now: int) -> int:
        """Prepare a source as a silo does; return how many files were read."""
        made = store.prepare(database, source, now)
        store.put_in_force(source, made.store, self.put_in_force)
        return made.read


@cache
def _database() -> duckdb.DuckDBPyConnection:
    atexit.register(_database.cache_clear)  # before DuckDB's module is gone, which would report it as leaked
    return locations.connect()


def load_sources(policy: Policy, home: Path) -> dict[str, sources.Source]:
    """Check every source of the policy, as a silo does when it starts; raises SourceError."""
    return check.load_sources(_database(), policy, home)


def load_consent(policy: Policy, home: Path) -> consent.Decisions | None:
    """Check the policy's table of decisions, as a silo does when it starts; raises SourceError."""
    return consent.load_consent(_database(), policy, home)


def prepared_in(policy: Policy, home: Path, purpose: str, now: int) -> set[str]:
    """Return the persons of the policy's only source who are in for a purpose, by its prepared rows and decisions."""
    (source,) = load_sources(policy, home).values()
    decisions = load_consent(policy, home)
    with opened(source):
        sql = f"SELECT DISTINCT {cells.quote(source.unit)} FROM {source.view}"
        named = [str(one) for (one,) in _database().execute(sql).fetchall() if one is not None]
    log = NamedHere()
    store = Store(policy, home, log.kept)
    log.prepare(store, _database(), source, now)
    reader = Reader(policy, store, _database(), {source.name: source}, decisions)
    snapshot = reader.snapshot(source.name)
    is_in = reader.judged(snapshot, source.name, purpose, now, 20)
    places = places_in(store.persons.codes_of(named), snapshot.persons)
    assert sorted(places) == list(range(len(snapshot.persons))), "the store has everybody, consent or not"
    return {one for one, place in zip(named, places, strict=True) if is_in is None or is_in[place]}


@contextmanager
def opened(*readings: locations.Reading | None) -> Iterator[duckdb.DuckDBPyConnection]:
    """Make sources and decisions readable as their `view`, as a request does."""
    with locations.opened(_database(), [one for one in readings if one is not None], 20):
        yield _database()
