"""What an aggregator can tell of one person by the time of a question: attack a13, over processes.

Cedar holds two tables of as many rows. In `inside`, one heavy customer meets the condition of the question; in `absent`
nobody does. The question is computed by a process of its own behind a real stream; the aggregator, in another process,
notes of every step how long it took, how many bytes came and in which order, and what became of it.
"""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import SystemRandom
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from analyst.client import Federation
from analyst.demo.hospitals import PURPOSE, found_hospitals
from policies.document.catalogue import published
from policies.document.load import load
from policies.document.policy import Policy
from policies.requests.predicates import Compare
from policies.requests.query import Aggregate, Plan
from policies.requests.request import Request
from policies.requests.tables import Table
from silo_node.data.check import load_sources
from silo_node.data.compute import Computer
from silo_node.data.locations import connect
from silo_node.data.prepared.reader import prepared_reader
from silo_node.home import LEDGER
from silo_node.ledger.witness import kept_in
from tests.faults.lane import PartyProcess
from tests.harness.example_policy import NOW, request
from tests.harness.federated import AGGREGATOR, ANALYST, LocalSilo, Loop, free_port, provision
from tests.harness.inside import silence

DEADLINE_S = 0.125
MOST_AUC = 0.55  # of 500 questions about each table
MOST_MISSED = 0.01  # of the computations; beyond it a trial says nothing
TABLES = ("inside", "absent")
CEDAR, OTHERS = "cedar", ("aspen", "birch", "maple", "rowan")
PEOPLE, FEW, HEAVY_ROWS, WARDS = 20_000, 100, 100_000, 200
START_S = 240.0
EPSILON = 0.05
COLUMNS = f"""
patient_id = {{ type = "string", class = "identifier", roles = [] }}
ward = {{ type = "string", class = "internal", roles = ["dimension"], \
domain = [{", ".join(f'"m{place:04d}"' for place in range(WARDS - 1))}, "unknown"], unknown = "unknown" }}
region = {{ type = "string", class = "internal", roles = ["filter"] }}
age = {{ type = "int", class = "internal", roles = ["measure"], bounds = [0, 120] }}
cost = {{ type = "int", class = "internal", roles = ["measure"], bounds = [0, 100] }}
stay = {{ type = "int", class = "internal", roles = ["measure"], bounds = [0, 60] }}
"""
QUESTION = (
    "SELECT ward, AVG(age) AS a, AVG(cost) AS c, AVG(stay) AS s FROM {} WHERE region = 'rare-street' GROUP BY ward"
)


@dataclass(frozen=True, slots=True)
class Seen:
    """What the aggregator saw of cedar in one round."""

    seconds: float  # from go to the contribution
    later_s: float  # of the steps after it
    sizes: int  # bytes of everything that cedar sent
    order: int  # how many silos' contributions came before cedar's
    outcome: str


@dataclass(frozen=True, slots=True)
class Trial:
    """Questions about both tables, in a random order."""

    seen: Mapping[str, Sequence[Seen]]
    missed: int  # computations that did not end in time, of all

    def auc(self, of: Callable[[Seen], float]) -> float:
        """Return how well one feature tells the tables apart: 0.5 not at all, 1 always."""
        one, other = (np.array([of(seen) for seen in self.seen[table]]) for table in TABLES)
        wins = float(np.mean((one[:, None] > other) + 0.5 * (one[:, None] == other)))
        return max(wins, 1 - wins)

    @property
    def aucs(self) -> dict[str, float]:
        return {
            "time": self.auc(lambda seen: seen.seconds),
            "time of later steps": self.auc(lambda seen: seen.later_s),
            "size": self.auc(lambda seen: seen.sizes),
            "order": self.auc(lambda seen: seen.order),
            "outcome": self.auc(lambda seen: seen.outcome == "answered"),
        }

    @property
    def miss_rate(self) -> float:
        return self.missed / sum(map(len, self.seen.values()))


def furnish(silo: Path, people: int, heavy: int) -> None:
    """Give a silo of a founded federation both tables, and a policy in which they are open."""
    for table in TABLES:
        # As many rows in both: in `absent`, as many people are elsewhere.
        ids = [f"p{place}" for place in range(people)]
        ids += ["heavy"] * heavy if table == "inside" else [f"q{place}" for place in range(heavy)]
        region = [f"r{place % 500}" for place in range(people)]
        region += ["rare-street" if table == "inside" else "elsewhere"] * heavy
        count = len(ids)
        rows = {
            "patient_id": ids,
            "ward": [f"m{place % (WARDS - 1):04d}" for place in range(count)],
            "region": region,
            "age": [40] * count,
            "cost": [9] * count,
            "stay": [2] * count,
        }
        schema = pa.schema([(name, pa.int64() if name in ("age", "cost", "stay") else pa.string()) for name in rows])
        pyarrow.parquet.write_table(pa.table(rows, schema), silo / f"{table}.parquet")
    text = (silo / "policy.toml").read_text()
    before, _, after = text.partition("[sources.lung]")
    sources = "".join(
        f'[sources.{table}]\nkind = "parquet"\nuri = "{table}.parquet"\nread = "prepared"\n'
        f"[sources.{table}.columns]\n{COLUMNS}"
        for table in TABLES
    )
    rest = f"[budget]{after.partition('[budget]')[2]}"
    purpose = '[purposes.health-research]\nlegal_basis = "public-task"\ncomputations = ["query"]\n'
    for old, new in (("{ rho = 1.0 }", "{ rho = 100 }"), ("max_groups     = 100", f"max_groups = {WARDS}")):
        assert old in rest
        rest = rest.replace(old, new)
    compute = f"[compute]\nfixed_seconds = {DEADLINE_S}\n"
    (silo / "policy.toml").write_text(f"{before}{sources}\n{purpose}\n{rest}\n{compute}")


class Observed:
    """A federation of which cedar and the aggregator are processes."""

    def __init__(self, path: Path, founded: Path) -> None:
        port = free_port()
        for silo in (CEDAR, *OTHERS):
            furnish(founded / "silos" / silo, PEOPLE if silo == CEDAR else FEW, HEAVY_ROWS if silo == CEDAR else 0)
        self._path = provision(path, founded, f"127.0.0.1:{port}", (CEDAR, *OTHERS))
        for table in TABLES:
            for silo in (CEDAR, *OTHERS):
                shutil.copy(founded / "silos" / silo / f"{table}.parquet", path / silo)
        roles = {AGGREGATOR: "aggregator", CEDAR: "noisy"}
        self._parties = {name: PartyProcess(path, name, port, "", role) for name, role in roles.items()}
        self._runner, self._silos = Loop(), list[LocalSilo]()

    def start(self) -> None:
        for party in self._parties.values():
            assert party.event(START_S)["event"] == "up"
        for name in OTHERS:
            self._silos.append(LocalSilo(self._path, name, self._runner, sleep=time.sleep))
            silence(self._silos[-1])  # they share cedar's processors here: what they have to do would add to its time
        until = time.monotonic() + START_S
        while len(self._parties[AGGREGATOR].do("connected")) < len((CEDAR, *OTHERS)):
            assert time.monotonic() < until, "not everybody is there"
            time.sleep(0.1)

    def trial(self, each: int) -> Trial:
        """Ask `each` questions about each table, in a random order."""
        before, tables = self._misses(), [table for table in TABLES for _ in range(each)]
        SystemRandom().shuffle(tables)
        seen: dict[str, list[Seen]] = {table: [] for table in TABLES}
        with Federation.open(self._path / ANALYST / "consilo.toml") as federation:
            for table in (*TABLES, *tables):
                question = QUESTION.format(table)
                options: dict[str, Any] = {"purpose": PURPOSE, "epsilon": EPSILON, "counts_cut": False}
                outcome = federation.query(question, **options, new=True).silos[CEDAR].status
                steps = [one for one in self._parties[AGGREGATOR].do("seen") if one[0] == CEDAR]
                took = {step: seconds for _, step, seconds, _, _ in steps}
                later = sum(took[step] for step in ("agree", "open_shares"))
                sizes, (order,) = sum(one[3] for one in steps), [one[4] for one in steps if one[1] == "contribute"]
                seen[table].append(Seen(took["contribute"], later, sizes, order, outcome))
        return Trial({table: tuple(found[1:]) for table, found in seen.items()}, self._misses() - before)

    def _misses(self) -> int:
        return (self._path / CEDAR / "silo.log").read_text().count("answered by nothing and noise")

    def computing(self, each: int) -> float:
        """Return how well the processor time of the computing alone tells the tables apart."""
        home = self._path / CEDAR
        file = load(home / "policy.toml")
        found: dict[str, list[Seen]] = {table: [] for table in TABLES}
        with connect() as database:
            sources = load_sources(database, file.policy, home)
            kept = kept_in(home / LEDGER)
            reader = prepared_reader(file.policy, home, database, sources, None, lambda: kept)
            computer = Computer(file.policy, database, sources, None, lambda _: None, reader)
            requests = {table: _request(file.policy, table) for table in TABLES}
            for table in (*TABLES, *TABLES * each):
                began = time.process_time()
                computer.contribution(requests[table], NOW)
                found[table].append(Seen(time.process_time() - began, 0.0, 0, 0, ""))
        return Trial({table: seen[1:] for table, seen in found.items()}, 0).auc(lambda seen: seen.seconds)

    def close(self) -> None:
        for silo in self._silos:
            silo.stop()
        for party in self._parties.values():
            party.close()
        self._runner.close()


def _request(policy: Policy, table: str) -> Request:
    """Return the question as a silo computes it."""
    source, measures = policy.sources[table], ("age", "cost", "stay")
    columns = tuple(published(key, column, source, NOW) for key, column in source.columns.items() if column.roles)
    plan = Plan(
        where=Compare(column="region", op="=", value="rare-street"),
        group_by=("ward",),
        aggregates=tuple(Aggregate(function="avg", column=key, alias=key) for key in measures),
    )
    return request(plan=plan, table=Table(name=table, max_rows=1, max_silos=1, columns=columns), purpose=PURPOSE)


@contextmanager
def observed(path: Path, founded: Path) -> Iterator[Observed]:
    """Run such a federation, of a copy of a founded one."""
    one = Observed(path / "federation", Path(shutil.copytree(founded, path / "source")))
    try:
        one.start()
        yield one
    finally:
        one.close()


def whole(place: Path, each: int = 500) -> tuple[float, Trial]:
    """Run the trial of `make faults`; return what the computing alone tells, too."""
    place.mkdir(parents=True)
    found_hospitals(place / "founded")
    with observed(place, place / "founded") as one:
        return one.computing(30), one.trial(each)


def table(computing: float, trial: Trial) -> str:
    """Return what was measured, in words and as a table."""
    each = len(trial.seen[TABLES[0]])
    lines = [
        f"{each} questions about each table, in a random order, at a declared time of {1000 * DEADLINE_S:g} ms; "
        f"{trial.missed} of {2 * each} computations did not end in time. An AUC is the share of pairs, one of each "
        "table, that a feature puts in the right order: 0.5 tells nothing, 1 tells them always apart.",
        "",
        "| feature | AUC | at most |",
        "|---|---|---|",
        f"| processor time of the computing, seen on the silo's machine | {computing:.2f} | |",
        *(f"| {feature} | {found:.3f} | {MOST_AUC} |" for feature, found in trial.aucs.items()),
    ]
    return "\n".join(lines)
