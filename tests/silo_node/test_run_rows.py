"""Rows that are kept in a run: those that reading them now would give, and no longer or more than they may be."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from policies.document.policy import Policy
from policies.requests.request import Request
from silo_node.data import run_rows
from silo_node.data.coded import NO_MEMBER, NO_STEPS, Bools
from silo_node.data.consent import decisions_of, narrowed, readings, row_filter
from silo_node.data.locations import connect, opened
from silo_node.data.model_rows import model_rows
from silo_node.data.query import Forgotten, Reading, nobody, rows_of
from silo_node.data.run_rows import KEPT_BYTES, MOST_KEPT, SETTLED_S, RunRows
from silo_node.data.sources import source_of
from tests.harness.example_policy import NOW, STORED, Edit, decided_in, policy
from tests.harness.waiting import until
from tests.rounds.computation_examples import exact

PEOPLE = 24
LIMIT_S = 20.0
STEP = exact("logistic-regression", "smoker", "ward", "age")
OPT_IN = Edit('legal_basis  = "public-task"', 'legal_basis  = "consent"\nconsent      = "opt-in"')
OPT_OUT = Edit('legal_basis  = "public-task"', 'legal_basis  = "public-task"\nconsent      = "opt-out"')
LEARNS = Edit('computations = ["query"]', 'computations = ["query", "logistic-regression"]')
DECIDED = Edit("[analysts.ana]", decided_in("decisions.csv") + 'expires_at = "expires"\n[analysts.ana]')
Decision = tuple[str, str, str, str]  # who, given, withdrawn, expires; seconds from NOW, or nothing


class Bank:
    """A silo's rows, decisions and policy; each person has an age of their own."""

    def __init__(self, home: Path, rules: Policy, database: duckdb.DuckDBPyConnection) -> None:
        self.home, self.rules, self.database = home, rules, database
        self.write_rows(range(PEOPLE))
        self.decide([])

    def write_rows(self, people: Sequence[int]) -> None:
        rows = [
            {"patient_id": f"p{one}", "ward": ("medicine", "surgery")[one % 2], "age": one, "smoker": one % 3 > 0}
            for one in people
        ]
        schema = pa.schema([field for field in STORED if field[0] in rows[0]])
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows, schema=schema), self.home / "visits.parquet")

    def decide(self, decisions: Sequence[Decision]) -> None:
        def at(text: str) -> str:
            return str(np.datetime64(NOW + int(text), "s")) + "Z" if text else ""

        lines = [f"{who},health-research,{at(given)},{at(gone)},{at(ends)}" for who, given, gone, ends in decisions]
        text = "\n".join(["person,purpose,given,withdrawn,expires", *lines])
        self.home.joinpath("decisions.csv").write_text(f"{text}\n")

    def rows(self, forgotten: Forgotten = nobody, most_bytes: int = KEPT_BYTES, ahead_s: float = 60.0) -> RunRows:
        """Return what keeps rows, by a clock that is some seconds after the files were written."""
        import time

        sources = {"visits": source_of(self.rules, "visits", self.home)}
        decided = decisions_of(self.rules, self.home)
        clock = lambda: time.time() + ahead_s  # noqa: E731
        return RunRows(self.rules, self.database, sources, decided, forgotten, most_bytes, clock)

    def now(self, now: int = NOW) -> list[int]:
        """Return the ages of the rows that a reading at `now` would give."""
        used = [name for names in STEP.plan.uses().values() for name in names]
        source = narrowed(self.rules, source_of(self.rules, "visits", self.home), STEP.purpose, used)
        decided = decisions_of(self.rules, self.home)
        with opened(self.database, (source, *readings(decided)), LIMIT_S):
            reading = Reading(source, row_filter(self.rules, source, STEP.purpose, now))
            return ages(*rows_of(self.database, (reading,), "patient_id", STEP))


def ages(rows: Any, is_in: Bools | None) -> list[int]:
    cells = model_rows(rows, STEP, is_in).cells["age"]
    return sorted(((cells + 110) // 2).tolist())


def step(number: int, asked: Request = STEP, **changes: Any) -> Request:
    plan = asked.plan.model_copy(update={"step": number, **changes})
    return asked.model_copy(update={"plan": plan})


@contextmanager
def bank(home: Path, *edits: Edit) -> Iterator[Bank]:
    with connect() as database:
        yield Bank(home, policy(LEARNS, *edits), database)


def test_a_source_is_read_once_until_its_file_changes(tmp_path: Path) -> None:
    with bank(tmp_path) as own:
        kept = own.rows()
        for number in range(2):
            assert ages(*kept.of(step(number), NOW, LIMIT_S)) == list(range(PEOPLE))
        assert kept.reads == 1
        own.write_rows(range(3, PEOPLE))
        assert ages(*kept.of(step(1), NOW, LIMIT_S)) == list(range(3, PEOPLE))
        assert kept.reads == 2


def test_a_file_that_was_written_a_moment_ago_is_read_again(tmp_path: Path) -> None:
    """Another write might leave no trace in the times of the file, which some systems keep by the second."""
    with bank(tmp_path) as own:
        kept = own.rows(ahead_s=0.0)
        for _ in range(2):
            kept.of(step(0), NOW, LIMIT_S)
        assert (kept.reads, kept.kept_bytes) == (2, 0)
        kept = own.rows(ahead_s=SETTLED_S + 1)
        for _ in range(2):
            kept.of(step(0), NOW, LIMIT_S)
        assert kept.reads == 1


def test_a_withdrawal_counts_at_the_next_round_and_the_source_is_not_read_again(tmp_path: Path) -> None:
    with bank(tmp_path, OPT_OUT, DECIDED) as own:
        kept = own.rows()
        assert ages(*kept.of(step(0), NOW, LIMIT_S)) == list(range(PEOPLE))
        own.decide([("p3", "-100", "-10", ""), ("p5", "-100", "50", "")])
        rows, is_in = kept.of(step(1), NOW, LIMIT_S)
        assert ages(rows, is_in) == [one for one in range(PEOPLE) if one != 3]
        assert rows.members("smoker").codes[3] == rows.members("ward").codes[3] == NO_MEMBER
        assert rows.steps("age").cells[3] == NO_STEPS
        assert ages(*kept.of(step(1), NOW + 50, LIMIT_S)) == [one for one in range(PEOPLE) if one not in (3, 5)]
        assert kept.reads == 1


def test_consent_begins_and_ends_by_the_clock_alone(tmp_path: Path) -> None:
    with bank(tmp_path, OPT_IN, DECIDED) as own:
        own.decide([("p1", "-100", "", ""), ("p2", "-100", "", "30"), ("p4", "20", "", ""), ("p6", "-9", "", "-1")])
        kept = own.rows()
        for now, expected, reads in ((0, [1, 2], 1), (10, [1, 2], 1), (20, [1, 2, 4], 2), (30, [1, 4], 2)):
            assert ages(*kept.of(step(0), NOW + now, LIMIT_S)) == own.now(NOW + now) == expected
            assert kept.reads == reads, "who comes in is read, who goes is not"


def test_rows_are_those_that_reading_them_now_would_give(tmp_path: Path) -> None:
    """Any history of decisions, files and clocks, on which one keeper is asked at every point."""
    numbers = np.random.default_rng(7)

    def time_() -> str:
        return "" if numbers.random() < 0.4 else str(int(numbers.integers(-40, 40)))

    for way in (OPT_IN, OPT_OUT):
        home = tmp_path / way.new[-8:-1]
        home.mkdir()
        with bank(home, way, DECIDED) as own:
            kept, reads = own.rows(), 0
            for _ in range(20):
                match numbers.integers(4):
                    case 0:
                        own.write_rows(sorted(numbers.choice(PEOPLE, 15, replace=False).tolist()))
                    case 1 | 2:
                        whose = numbers.integers(PEOPLE, size=12).tolist()
                        own.decide([(f"{'pP'[one % 2]}{one}", time_(), time_(), time_()) for one in whose])
                now = NOW + int(numbers.integers(-40, 40))
                assert ages(*kept.of(step(0), now, LIMIT_S)) == own.now(now)
                reads += 1
            assert kept.reads < reads


def test_who_is_forgotten_is_out_from_the_next_round(tmp_path: Path) -> None:
    gone = set[str]()

    def forgotten(_: duckdb.DuckDBPyConnection, people: pa.Array) -> Bools | None:
        return np.array([one in gone for one in people.to_pylist()], np.bool_) if gone else None

    with bank(tmp_path) as own:
        kept = own.rows(forgotten)
        kept.of(step(0), NOW, LIMIT_S)
        gone.add("p7")
        assert ages(*kept.of(step(1), NOW, LIMIT_S)) == [one for one in range(PEOPLE) if one != 7]
        assert kept.reads == 1


def test_a_column_of_consent_is_judged_where_rows_are_read(tmp_path: Path) -> None:
    column = '[consent]\nmode = "column"\ncolumn = "agreed"\nstale_after_hours = 24\n[analysts.ana]'
    by_column = Edit("[analysts.ana]", column)
    agreed = Edit("smoker = {", 'agreed = { type = "bool", class = "internal", roles = [] }\nsmoker = {')
    with bank(tmp_path, OPT_IN, by_column, agreed) as own:
        rows = [
            {"patient_id": f"p{one}", "ward": "surgery", "age": one, "smoker": True, "agreed": one % 2 == 0}
            for one in range(PEOPLE)
        ]
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "visits.parquet")
        kept = own.rows()
        for number in range(2):
            assert ages(*kept.of(step(number), NOW, LIMIT_S)) == own.now() == list(range(0, PEOPLE, 2))
        assert kept.reads == 1


def test_what_is_kept_is_bounded_in_number_and_bytes(tmp_path: Path) -> None:
    features: Mapping[int, tuple[str, ...]] = {0: ("ward", "age"), 1: ("age",), 2: ("ward",)}
    asked = [step(0, exact("logistic-regression", "smoker", *of)) for of in features.values()]
    with bank(tmp_path) as own:
        kept = own.rows()
        for one in asked:
            kept.of(one, NOW, LIMIT_S)
        size = kept.kept_bytes
        assert kept.reads == 3 > MOST_KEPT
        for one in asked[1:]:
            kept.of(one, NOW, LIMIT_S)
        assert kept.reads == 3
        kept.of(asked[0], NOW, LIMIT_S)
        assert kept.reads == 4, "what was asked for longest ago made room"
        small = own.rows(most_bytes=size // 3)
        for one in (*asked, *asked):
            small.of(one, NOW, LIMIT_S)
            assert small.kept_bytes <= size // 3
        assert small.reads == 6


def test_rows_go_with_the_last_round_of_the_last_run_that_has_them(tmp_path: Path) -> None:
    with bank(tmp_path) as own:
        kept = own.rows()
        kept.of(step(0), NOW, LIMIT_S)
        kept.of(step(0, run=bytes([1] * 16)), NOW, LIMIT_S)
        kept.of(step(2), NOW, LIMIT_S)
        assert kept.kept_bytes
        kept.of(step(2, run=bytes([1] * 16)), NOW, LIMIT_S)
        assert (kept.reads, kept.kept_bytes) == (1, 0)


def test_rows_go_when_no_round_asks_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_rows, "KEPT_S", 0.2)
    with bank(tmp_path) as own:
        kept = own.rows()
        kept.of(step(0), NOW, LIMIT_S)
        assert kept.kept_bytes
        until(lambda: not kept.kept_bytes)


def test_reading_ahead_of_a_run_of_one_round_keeps_its_rows_for_it(tmp_path: Path) -> None:
    with bank(tmp_path) as own:
        kept, only = own.rows(), step(0, steps=1)
        kept.ahead(only, NOW, LIMIT_S)
        assert kept.kept_bytes
        kept.of(only, NOW, LIMIT_S)
        assert (kept.reads, kept.kept_bytes) == (1, 0)
