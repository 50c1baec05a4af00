"""A question spread over two raylets: the integers of one process, also when one of the two is killed meanwhile."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from policies.document.load import PolicyFile, load
from silo_node.data import answer
from silo_node.data.coded import Bools
from silo_node.data.locations import connect
from silo_node.data.prepared.part import Question
from silo_node.data.prepared.reader import Reader
from silo_node.data.prepared.snapshot import Snapshot
from silo_node.data.prepared.store import Store
from silo_node.data.sources import source_of
from silo_node.killable import ComputeError, ComputeLimits, KillableComputer
from silo_node.spread import SpreadComputer, spread
from tests.harness.example_policy import NOW, Edit, edited, plan, request, table
from tests.harness.raylets import two_raylets, used_s
from tests.harness.rows import NamedHere

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(300)]
ROWS, PERSONS = 600_000, 20_000


@dataclass
class Silo:
    """A silo's prepared visits."""

    policy: Path
    file: PolicyFile
    reader: Reader
    question: Question
    snapshot: Snapshot
    log: NamedHere

    @property
    def parts(self) -> list[tuple[int, int]]:
        return list(self.snapshot.parts(ROWS // 60))


@pytest.fixture(scope="module")
def silo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Silo]:
    home = tmp_path_factory.mktemp("silo")
    with duckdb.connect() as database:
        database.execute(
            f"COPY (SELECT 'p' || (i * 7919 % {PERSONS}) AS patient_id,"
            " ['medicine', 'surgery', NULL][1 + i % 3] AS ward, (i % 4 - 1)::SMALLINT AS grade, i % 140 AS age,"
            " (i % 7000) / 1.3 AS cost, i % 2 = 0 AS smoker, 'north' AS region, (i % 50)::INT AS stay"
            f" FROM range({ROWS}) t(i)) TO '{home / 'visits.parquet'}'"
        )
    (home / "policy.toml").write_text(edited(Edit('kind = "parquet"', 'kind = "parquet"\nread = "prepared"')))
    file = load(home / "policy.toml")
    source, log = source_of(file.policy, "visits", home), NamedHere()
    store = Store(file.policy, home, log.kept)
    with connect() as connection:
        log.prepare(store, connection, source, NOW)
        reader = Reader(file.policy, store, connection, {"visits": source}, None)
        asked = request(table=table(max_rows=2), plan=plan(where=None, group_by=("ward", "grade"), counts_cut=True))
        question, snapshot = reader.asked(asked, NOW)
        yield Silo(home / "policy.toml", file, reader, question, snapshot, log)


@pytest.fixture
def cluster() -> Iterator[Any]:
    with two_raylets() as made:
        yield made


def test_the_parts_are_the_whole_to_the_bit(silo: Silo, cluster: Any) -> None:
    is_in = np.arange(PERSONS) % 3 != 0
    whole = silo.question.part(0, PERSONS, is_in)
    assert whole[0].sum() == 2 * is_in.sum()
    assert len(silo.parts) == 60
    assert whole[-1].sum() == whole[-1][[1, 3]].sum() == is_in.sum(), "everybody has more than two rows"
    assert same(spread(silo.question, silo.parts, is_in, 120), whole)
    made, nodes = cluster
    assert all(used_s(node) > 0.1 for node in nodes), "both have computed"

    killer = threading.Timer(0.3, made.remove_node, [nodes[1]], {"allow_graceful": False})
    killer.start()
    began = time.monotonic()
    try:
        found = spread(silo.question, silo.parts * 20, is_in, 100)
    except ComputeError:
        assert time.monotonic() - began < 130, "it ends by its limit"
    else:
        assert same(found, [20 * vector for vector in whole]), "Ray ran the lost parts again"
    killer.join()

    began = time.monotonic()
    with pytest.raises(ComputeError, match="parts did not end in time"):
        spread(silo.question, silo.parts * 40, is_in, 2)
    assert time.monotonic() - began < 2.5, "ending the parts takes none of its time"
    lost = Question(**{**vars(silo.question), "folder": "/nowhere"})
    with pytest.raises(ComputeError, match=r"is not there"):
        spread(lost, silo.parts, is_in, 60)


def test_a_silo_of_a_cluster_spreads_what_is_large(silo: Silo, cluster: Any) -> None:
    killable = KillableComputer(silo.file, silo.policy, ComputeLimits(2048, 1), lambda _: None, silo.log.kept)
    calls: list[str] = []
    try:
        asked = silo.question.request
        for from_rows in (0, ROWS + 1):
            computer = SpreadComputer(killable, silo.file.policy, silo.reader, from_rows)
            found = computer.contribution(asked, NOW)
            assert found[0].sum() == 2 * PERSONS, "two visits of everybody"
            calls.append(str(from_rows))
        assert same(spread(silo.question, silo.parts, killable_judged(killable, silo), 60), whole_of(silo))
    finally:
        killable.close()


def killable_judged(killable: KillableComputer, silo: Silo) -> Bools:
    found = killable.judged(silo.question.request, NOW, silo.snapshot, time.monotonic() + 60)
    assert found.all()
    assert len(found) == PERSONS
    return found


def whole_of(silo: Silo) -> Any:
    return answer.added(silo.question.part(first, end, None) for first, end in silo.parts)


def same(one: Any, other: Any) -> bool:
    return [vector.tolist() for vector in one] == [vector.tolist() for vector in other]
