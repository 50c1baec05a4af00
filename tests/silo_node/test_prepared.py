"""A store of prepared rows is whole whatever happens to it, bounds each person alike in any partition, and forgets."""

import fcntl
import os
import shutil
import subprocess
import sys
import threading
import time
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analyst.reports.render import render
from analyst.reports.report import Report
from analyst.verify import verify
from crypto.keys import Secret, SigningKey
from federation.operations.checks import Finding
from policies.budget.ledger import Spending
from policies.decision.decide import decide
from policies.document.load import load, parse
from policies.document.policy import Policy
from policies.errors import PolicyFileError
from policies.requests.query import Aggregate
from policies.units import when
from silo_node.data import answer
from silo_node.data.bounding import chosen, of_few_groups
from silo_node.data.coded import Numbers, Run
from silo_node.data.locations import connect
from silo_node.data.lots import SECRET_BYTES, Lots
from silo_node.data.prepared import segment
from silo_node.data.prepared import store as stores
from silo_node.data.prepared.forgotten import KEY, forgotten_among
from silo_node.data.prepared.manifest import Manifest, SegmentEntry
from silo_node.data.prepared.reader import Reader
from silo_node.data.prepared.store import FOLDER, Store
from silo_node.data.query import execute
from silo_node.data.sources import Source
from silo_node.doctor import NOT_PREPARED, examine
from silo_node.errors import SourceError
from silo_node.home import LEDGER
from silo_node.ledger.log import Signer
from silo_node.ledger.store import LedgerStore
from silo_node.owner import cli
from silo_node.owner.ledger_commands import signer_of
from tests.harness import example_policy
from tests.harness.example_policy import NOW, Edit, edited, plan, request, table
from tests.harness.rows import NamedHere, opened
from tests.harness.rows import load_sources as sources_of
from tests.harness.rows import policy as rows_policy
from tests.harness.simulator import Simulation, no_noise, simulate

SPENT = Spending(0)
SIGNER = Signer("north", "health", SigningKey(Secret(bytes(32))))
PREPARED = Edit('kind = "parquet"', 'kind = "parquet"\nread = "prepared"')
MANY = Edit('"visits.parquet"', '"visits*.parquet"\npattern = true')


def policy(*edits: Edit) -> Policy:
    return example_policy.policy(PREPARED, *edits)


def write(path: Path, persons: list[str], age: int = 30) -> None:
    """Write one visit a person, at once."""
    schema = pa.schema(example_policy.STORED)
    rows = [dict.fromkeys(schema.names) | {"patient_id": one, "ward": "medicine", "age": age} for one in persons]
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


class Bench:
    """One silo's directory, with a store of its visits."""

    def __init__(self, home: Path, *edits: Edit) -> None:
        self.home, self.policy = home, policy(*edits)
        self.source: Source = sources_of(self.policy, home)["visits"]
        self.ledger = LedgerStore(home / "ledger.sqlite", SIGNER)
        self.store = Store(self.policy, home, self.ledger.kept)

    def prepare(self, now: int = NOW) -> int:
        with connect() as database:
            made = self.store.prepare(database, self.source, now)
        self.store.put_in_force(self.source, made.store, self.ledger.put_in_force)
        return made.read

    def count(self) -> int:
        """Return the number of rows in the newest complete store."""
        snapshot = self.store.snapshot(self.source)
        assert snapshot is not None
        asked = request(plan=plan(where=None, group_by=()))
        keys = [(one.aspect, one.column.name) for one in answer.codings_of(asked)]
        rows = snapshot.rows(0, len(snapshot.persons), keys)
        return int(answer.question(rows, asked, self.store.remembered(snapshot, None), Lots(), None)[0].sum())

    @property
    def directories(self) -> set[str]:
        return {path.name for path in (self.home / FOLDER / "visits").iterdir() if path.is_dir()}


def test_only_a_changed_file_is_read_again(tmp_path: Path) -> None:
    for month in range(12):
        write(tmp_path / f"visits{month:02}.parquet", [f"p{month}", "p"])
    bench = Bench(tmp_path, MANY)
    assert (bench.prepare(), bench.count()) == (12, 14), "a person's rows lie in twelve segments; two of them enter"
    before = bench.directories
    assert bench.prepare() == 0
    assert bench.directories == before
    write(tmp_path / "visits03.parquet", ["p3", "p", "new"])
    assert not bench.store.is_current(bench.source)
    assert (bench.prepare(), bench.count()) == (1, 15)
    assert len(bench.directories & before) == 11, "eleven segments are those of before; the index is new"
    (tmp_path / "visits05.parquet").unlink()
    assert (bench.prepare(), bench.count()) == (0, 14)


def test_the_age_counts_from_when_the_files_were_last_seen_unchanged(tmp_path: Path) -> None:
    write(tmp_path / "visits.parquet", ["p1"])
    bench = Bench(tmp_path)
    assert bench.store.seen_at(bench.source) is None
    bench.prepare(NOW)
    bench.prepare(NOW + 100)
    assert bench.store.seen_at(bench.source) == NOW + 100
    write(tmp_path / "visits.parquet", ["p1", "p2"])
    assert bench.store.seen_at(bench.source) == NOW + 100, "the old store is used until its age refuses it"
    assert bench.count() == 1


def test_a_request_is_refused_by_the_age_of_the_rows_alone() -> None:
    asked = request()
    for lasts, seconds in (("", 3600), ('prepared_for = "90s"', 90), ('prepared_for = "2d"', 2 * 86_400)):
        of = policy(Edit('"visits.parquet"', f'"visits.parquet"\n{lasts}'))
        for rows_at, is_fresh in ((NOW, True), (NOW - seconds, True), (NOW - seconds - 1, False), (None, False)):
            found = decide(of, asked, bytes(32), SPENT, NOW, rows_at=rows_at)
            assert [one.code for one in found] == ([] if is_fresh else ["ROWS_STALE"]), (lasts, rows_at)
    assert not decide(example_policy.policy(), asked, bytes(32), SPENT, NOW)
    for wrong in ('read = "prepared"\nprepared_for = "1 hour"', 'prepared_for = "1h"', 'read = "sometimes"'):
        with pytest.raises(PolicyFileError):
            parse(edited(Edit('kind = "parquet"', f'kind = "parquet"\n{wrong}')).encode(), "policy.toml")


def test_a_store_for_other_rules_is_not_used(tmp_path: Path) -> None:
    write(tmp_path / "visits.parquet", ["p1"])
    bench = Bench(tmp_path)
    bench.prepare()
    other = Bench(tmp_path, Edit("bounds = [0, 110]", "bounds = [0, 100]"))
    assert other.store.snapshot(other.source) is None
    assert other.prepare() == 1
    assert bench.store.snapshot(bench.source) is None
    assert len(bench.directories) == 1, "what no manifest names is gone"


def test_a_failure_leaves_the_old_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "visits.parquet", ["p1"])
    bench = Bench(tmp_path)
    bench.prepare()
    write(tmp_path / "visits.parquet", ["p1", "p2"])

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", full)
        with pytest.raises(SourceError, match="No space left on device"):
            bench.prepare()
    assert bench.count() == 1
    (tmp_path / "visits.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(SourceError, match=r"visits.parquet cannot be read as parquet"):
        bench.prepare()
    (tmp_path / "visits.parquet").unlink()
    with pytest.raises(SourceError):
        bench.prepare()
    assert bench.count() == 1
    write(tmp_path / "visits.parquet", ["p1", "p2"])
    assert (bench.prepare(), bench.count()) == (1, 2)
    assert len(bench.directories) == 1


def test_a_file_that_is_replaced_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "visits.parquet"
    write(path, ["p1"])
    bench, reads, real = Bench(tmp_path), [], segment.write

    def replacing(*arguments: Any) -> None:
        real(*arguments)
        reads.append(1)
        if len(reads) <= changes:
            write(path, [f"p{number}" for number in range(2 + len(reads))])

    monkeypatch.setattr(segment, "write", replacing)
    changes = 1
    assert (bench.prepare(), bench.count(), len(reads)) == (1, 3, 2)
    changes, reads[:] = 99, []
    write(path, ["p1"])
    with pytest.raises(SourceError, match="changes faster than it is read"):
        bench.prepare()
    assert bench.count() == 3


PROGRAM = """
import os, sys
from pathlib import Path
from silo_node.data.prepared import store
from tests.silo_node.test_prepared import MANY, Bench

home, victim = Path(sys.argv[1]), int(sys.argv[2])
steps = 0
def step(event, arguments):
    global steps
    if event in ("open", "os.rename", "os.mkdir", "os.utime", "shutil.rmtree") and str(home) in str(arguments):
        steps += 1
        if steps == victim:
            os._exit(9)
bench = Bench(home, MANY)
sys.addaudithook(step)
bench.prepare()
print("steps", steps)
"""


@pytest.mark.process
@pytest.mark.slow
def test_a_store_is_the_old_or_the_new_one_wherever_its_maker_is_killed(tmp_path: Path) -> None:
    """Killed before each opening, renaming and removing of a file in turn."""
    for month in range(3):
        write(tmp_path / f"visits{month}.parquet", [f"p{month}"])
    bench = Bench(tmp_path, MANY)
    bench.prepare()
    persons, steps = 1, 0
    for part in range(9):
        persons += 1
        before, victim = bench.count(), steps * part // 8 if part else 0
        write(tmp_path / "visits1.parquet", [f"q{number}" for number in range(persons)])
        ended = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(tmp_path), str(victim)], text=True, capture_output=True, timeout=60
        )
        assert bench.count() in (before, persons + 2)
        if part:
            assert ended.returncode == 9, ended.stderr
        else:
            steps = int(ended.stdout.split()[-1])
    assert steps > 50
    bench.prepare()
    assert bench.count() == persons + 2
    assert len(bench.directories) == 4, "nothing is left of those that were killed"


def test_two_that_prepare_do_so_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "visits.parquet", ["p1", "p2"])
    bench, inside, most, real = Bench(tmp_path), [], [], segment.write

    def slowly(*arguments: Any) -> None:
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.2)
        real(*arguments)
        inside.pop()

    monkeypatch.setattr(segment, "write", slowly)
    both = [threading.Thread(target=bench.prepare) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join(20)
    assert set(most) == {1}, "never two at a time"
    assert bench.count() == 2
    monkeypatch.setattr(stores, "LOCK_S", 0.2)
    holder = (tmp_path / FOLDER / "visits" / "lock").open("w")
    fcntl.flock(holder, fcntl.LOCK_EX)
    with holder, pytest.raises(SourceError, match="another process has held lock"):
        bench.prepare()


def test_a_manifest_that_is_none_is_no_store() -> None:
    made = Manifest("r", (SegmentEntry("visits.parquet", ((1, 2, 3, 4),), "a1", 7),), None, 8)
    good = made.encode()
    assert Manifest.decode(good) == made
    assert Manifest.decode(Manifest("r", (), None, 0).encode()) is None
    for cut in range(len(good)):
        assert Manifest.decode(good[:cut]) is None or cut == len(good)
    for wrong in (b"[]", b"null", b'{"format": 2}', good.replace(b'"index": null', b'"index": "../key"'), b"\xff"):
        assert Manifest.decode(wrong) is None


def test_the_store_is_the_owner_s_alone(tmp_path: Path) -> None:
    write(tmp_path / "visits.parquet", ["p1"])
    Bench(tmp_path).prepare()
    assert (tmp_path / FOLDER).stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "persons.key").stat().st_mode & 0o777 == 0o600
    held = b"".join(path.read_bytes() for path in (tmp_path / FOLDER).rglob("*") if path.is_file())
    assert b"p1" not in held.replace(b"npy1", b""), "no id stands there"


def test_a_forgotten_person_is_out_at_once_and_of_every_later_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("silo_node.owner.prepared_commands.signer_of", lambda _: SIGNER)
    write(tmp_path / "visits.parquet", ["p1", "p2", "P1"])
    (tmp_path / "policy.toml").write_text(edited(PREPARED))
    bench = Bench(tmp_path)
    bench.prepare()
    assert bench.count() == 3
    asked = ["forget", " p1", "--policy", str(tmp_path / "policy.toml")]
    assert cli.main(asked) == 0
    said = capsys.readouterr().out
    assert "' p1' is left out of every answer from now on" in said
    assert "visits: 1 prepared rows of this patient removed; 1 other patients have this id in another spelling" in said
    assert cli.main(asked) == 0
    said = capsys.readouterr().out
    assert "already" in said
    assert "no prepared row has this id" in said
    assert "p1" not in (tmp_path / "forgotten.json").read_text()
    assert bench.count() == 2, "P1 is another person"
    write(tmp_path / "visits.parquet", ["p1", "p2", "P1", "p3"])
    bench.prepare()
    assert bench.count() == 3
    loose = Bench(tmp_path, Edit("max_rows  = 2", 'id_form = ["case"]\nmax_rows  = 2'))
    loose.prepare()
    assert loose.count() == 2, "under another form of ids, whoever may be the same"
    shutil.rmtree(tmp_path / FOLDER)
    again = Bench(tmp_path)
    again.prepare()
    assert again.count() == 3, "the store can be removed; the list stays"
    every = forgotten_among(again.policy, tmp_path, again.ledger.kept, connect(), pa.array(["p1", "p2", "P1"]))
    assert every is not None
    assert every.tolist() == [True, False, False], "also where rows are read at every request"
    key, listed = tmp_path / "persons.key", tmp_path / "forgotten.json"
    kept, names = key.read_bytes(), listed.read_bytes()
    for broken, reason in ((bytes(32), "of another key"), (b"", "has 0 bytes, expected 32"), (None, "is missing")):
        key.unlink() if broken is None else key.write_bytes(broken)
        with pytest.raises(SourceError, match=reason):
            Bench(tmp_path).prepare()
    key.write_bytes(kept)
    for broken_list in (b"[{}]", b"", b"{", b'[{"code": "00"}]'):
        listed.write_bytes(broken_list)
        with pytest.raises(SourceError, match="forgotten persons cannot be read"):
            Bench(tmp_path).prepare()
    listed.write_bytes(names)


def test_a_line_that_does_not_fit_leaves_the_old_store(tmp_path: Path) -> None:
    """While the silo runs; a quote that opens and never ends would take every row after it."""
    header = "patient_id,ward,grade,age,cost,smoker,region,stay\n"
    good = "".join(f"p{index},medicine,1,30,1.5,true,north,2\n" for index in range(40))
    path = tmp_path / "visits.csv"
    path.write_text(header + good)
    bench = Bench(tmp_path, Edit('kind = "parquet"', 'kind = "csv"'), Edit("visits.parquet", "visits.csv"))
    bench.prepare()
    for broken in ('"p9,medicine,1,30,1.5,true,north,2\n' + good, good + "p9,medicine\n", "p1\n" + good):
        path.write_text(header + broken)
        with pytest.raises(SourceError, match=r"visits.csv, line \d+"):
            bench.prepare()
        assert bench.count() == 40
    path.write_text(header + good + "p99,medicine,1,30,1.5,true,north,2\n")
    bench.prepare()
    assert bench.count() == 41


def test_one_person_is_bounded_alike_in_any_partition() -> None:
    """Partitions of the persons draw the lots that one reading of all draws."""
    generator = np.random.default_rng(3)
    person = np.sort(generator.integers(0, 200, 5_000))
    group = generator.integers(0, 7, 5_000)
    secret = bytes(range(SECRET_BYTES))
    lots = Lots(secret)
    whole = lots.of_rows([Run(4, 0, 5_000)])
    for first, end in ((0, 5_000), (17, 18), (1, 4_000), (2_501, 2_600)):
        assert (lots.of_rows([Run(4, first, end - first)]) == whole[first:end]).all()
    assert not (lots.of_rows([Run(5, 0, 5_000)]) == whole).any()
    assert not (Lots().of_rows([Run(4, 0, 5_000)]) == whole).any()
    everybody = chosen(person, 200, 3, whole.__getitem__)
    assert np.bincount(person[everybody]).max() == 3
    for low, high in ((0, 90), (90, 200)):
        part = (person >= low) & (person < high)
        mine = chosen(person[part] - low, high - low, 3, whole[part].__getitem__)
        assert (mine == everybody[part]).all()
    few = of_few_groups(person, 200, group, 7, 2, lots.of_pairs)
    assert max(len(set(group[few & (person == one)])) for one in range(200)) == 2
    for one in range(200):
        assert set(np.flatnonzero(few & (person == one))) == {
            row for row in np.flatnonzero(person == one) if group[row] in set(group[few & (person == one)])
        }, "all rows of a chosen group are in"


def test_what_was_cut_adds_up_over_any_parts(tmp_path: Path) -> None:
    """Each person is in one slot, in whatever part; values are told clamped by the policy's bounds and by narrower."""
    generator = np.random.default_rng(5)
    schema, wards = pa.schema(example_policy.STORED), ("medicine", "surgery", "unknown")
    rows = [
        dict.fromkeys(schema.names)
        | {"patient_id": f"p{person}", "ward": wards[ward], "age": None if age > 115 else int(age)}
        for person, ward, age in zip(
            generator.integers(0, 200, 500),
            generator.integers(0, 3, 500),
            generator.integers(-6, 120, 500),
            strict=True,
        )
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), tmp_path / "visits.parquet")
    bench = Bench(tmp_path, Edit("max_rows  = 2", "max_rows  = 3\nmax_groups = 2"))
    bench.prepare()
    for low, high in ((0, 110), (20, 90)):
        age = example_policy.AGE.model_copy(update={"low": low, "high": high})
        figure = Aggregate(function="avg", column="age", alias="a")
        asked = request(
            table=table(max_rows=3, columns=(example_policy.WARD, age)),
            plan=plan(where=None, group_by=("ward",), aggregates=(figure,), counts_cut=True),
        )
        with connect() as database:
            question, snapshot = Reader(bench.policy, bench.store, database, {"visits": bench.source}, None).asked(
                asked, NOW
            )
        persons = len(snapshot.persons)
        whole = question.part(0, persons, None)
        slots = [0, 0, 0, 0]
        for person in {one["patient_id"] for one in rows}:
            own = [one for one in rows if one["patient_id"] == person]
            has_more = len(own) > 3 or len({one["ward"] for one in own}) > 2
            slots[has_more + 2 * any(one["age"] is not None and not low <= one["age"] <= high for one in own)] += 1
        assert whole[-1].tolist() == slots
        assert min(slots) > 5
        for cuts in ((0, 1, 100, persons), (0, 77, 78, persons), range(persons + 1)):
            parts = answer.added(question.part(first, end, None) for first, end in pairwise(cuts))
            assert all((one == other).all() for one, other in zip(parts, whole, strict=True))


def test_prepared_rows_are_bounded_by_their_norm_as_rows_that_are_read(tmp_path: Path) -> None:
    """Everybody's rows are alike, so that their number decides, and no lot."""
    schema = pa.schema(example_policy.STORED)
    rows = [
        dict.fromkeys(schema.names) | {"patient_id": f"p{person}", "ward": ward, "age": person}
        for person in (*range(9), *range(10, 20))
        for ward, number in (("medicine", person), ("surgery", 2), ("unknown", 1))
        for _ in range(number if person < 9 or ward == "medicine" else 0)
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), tmp_path / "visits.parquet")
    bench = Bench(tmp_path, Edit("max_rows  = 2", "max_rows  = 90\nmax_norm = 9"))
    bench.prepare()
    figure = Aggregate(function="avg", column="age", alias="a")
    asked = request(
        table=table(max_rows=90, max_norm=9, columns=(example_policy.WARD, example_policy.AGE)),
        plan=plan(where=None, group_by=("ward",), aggregates=(figure,), counts_cut=True),
    )
    with connect() as database:
        question, snapshot = Reader(bench.policy, bench.store, database, {"visits": bench.source}, None).asked(
            asked, NOW
        )
        whole = question.part(0, len(snapshot.persons), None)
    with opened(bench.source) as database:
        read = execute(database, bench.source, "patient_id", asked)
    assert [one.tolist() for one in whole] == [one.tolist() for one in read]
    assert whole[0].tolist() == [sum(range(9)) + 10 * 9, 2 * 9, 9]
    assert whole[-1].tolist() == [9, 10, 0, 0]


def test_every_row_of_a_person_is_drawn_as_often() -> None:
    """Chi-square of 4,000 draws of 3 of 40 rows, some of them in another partition's words."""
    drawn = np.zeros(40)
    person = np.zeros(40, np.int64)
    for _ in range(4_000):
        words = Lots().of_rows([Run(0, 7, 40)])
        drawn += chosen(person, 1, 3, words.__getitem__)
    expected = 4_000 * 3 / 40
    assert ((drawn - expected) ** 2 / expected).sum() < 100, "39 degrees of freedom; 1e-6 lies above 93"


def test_a_silo_answers_from_prepared_rows_and_prepares_what_changes(home: Path) -> None:
    """Beside four silos that read at every request: a further row counts once it is prepared, without a restart."""
    silo = home / "silos" / "aspen"
    text = (silo / "policy.toml").read_text()
    prepared = text.replace('kind = "parquet"', 'kind = "parquet"\nread = "prepared"\nprepared_for = "4s"', 1)
    assert prepared != text
    with simulate(home, noise=no_noise) as simulation:
        before = count(simulation)
    (silo / "policy.toml").write_text(prepared)
    with simulate(home, noise=no_noise) as simulation:
        report = ask(simulation)
        assert report.to_records()[0]["n"] == before
        dated = {silo: one.rows_as_of for silo, one in report.silos.items() if one.rows_as_of is not None}
        assert list(dated) == ["aspen"]
        assert abs(dated["aspen"] - time.time()) < 60
        assert f"rows of 1 silo as of {when(dated['aspen'])}\n" in render(report, "table")
        (told,) = (
            line for line in verify(simulation.federation, bytes.fromhex(report.transcript), None) if "rows" in line
        )
        assert told == f"their prepared rows are as of {when(dated['aspen'])}"
        rows = pq.read_table(silo / "lung.parquet")
        pq.write_table(rows.slice(0, 10), silo / "lung.parquet")
        deadline = time.monotonic() + 60
        while (found := count(simulation)) == before:
            assert time.monotonic() < deadline
            time.sleep(0.3)
        assert found < before
        (silo / "lung.parquet").write_bytes(b"none")
        while (report := ask(simulation)).silos["aspen"].status == "answered":
            assert time.monotonic() < deadline
            time.sleep(0.3)
        assert [one.code for one in report.silos["aspen"].denials] == ["ROWS_STALE"]
        pq.write_table(rows, silo / "lung.parquet")
        while ask(simulation).silos["aspen"].status != "answered":
            assert time.monotonic() < deadline
            time.sleep(0.3)
        assert count(simulation) == before
    log = (silo / "silo.log").read_text()
    assert "source lung: 1 files prepared" in log
    assert "source lung is not prepared: source 'lung': lung.parquet cannot be read as parquet" in log
    assert log.count("is not prepared") < 20, "one line a look"
    (silo / "policy.toml").write_text(text)
    with simulate(home, noise=no_noise):
        assert not list((silo / FOLDER).glob("*/")), "the store goes with the policy"


def ask(simulation: Simulation) -> Report:
    return simulation.federation.query("SELECT COUNT(*) AS n FROM lung", purpose="health-research", epsilon=0.03)


def count(simulation: Simulation) -> float:
    return float(ask(simulation).to_records()[0]["n"])


def test_a_damaged_store_is_made_again(tmp_path: Path) -> None:
    write(tmp_path / "visits.parquet", ["p1", "p2"])
    bench = Bench(tmp_path)
    bench.prepare()
    for damage in ("ends.npy", "0.codes.npy", "meta.json"):
        (path,) = (tmp_path / FOLDER / "visits").glob(f"*/{damage}")
        path.write_bytes(path.read_bytes()[:-3])
        assert not bench.store.is_current(bench.source), damage
        assert bench.store.seen_at(bench.source) is None
        assert (bench.prepare(), bench.count()) == (1, 2)
    for meta in (b"[1]", b"{}", b"null", b'[{"aspect": "steps"}]'):
        (path,) = (tmp_path / FOLDER / "visits").glob("*/meta.json")
        path.write_bytes(meta)
        bench.prepare()
        assert bench.count() == 2, meta
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / FOLDER / "visits" / "link").symlink_to(tmp_path / "elsewhere")
    write(tmp_path / "visits.parquet", ["p1"])
    assert (bench.prepare(), bench.count()) == (1, 1)
    assert (tmp_path / "elsewhere").exists()


def test_a_file_with_its_old_time_and_size_is_a_changed_file(tmp_path: Path) -> None:
    path = tmp_path / "visits.csv"
    path.write_text("patient_id,ward,grade,age,cost,smoker,region,stay\np1,medicine,1,30,1.5,true,north,2\n")
    bench = Bench(tmp_path, Edit('kind = "parquet"', 'kind = "csv"'), Edit("visits.parquet", "visits.csv"))
    bench.prepare()
    before = path.stat()
    path.write_text(path.read_text().replace("p1", "p2"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert not bench.store.is_current(bench.source)
    assert bench.prepare() == 1


def test_no_number_fails_the_reading_of_all_others(tmp_path: Path) -> None:
    """Numbers beyond 64 bits stay at their ends."""
    columns = 'type = "decimal", roles = ["filter"]'
    of = rows_policy(columns, kind="csv", source="max_unreadable = 1\nread = 'prepared'")
    numbers = [
        "-99999999999999999999999999999.5",
        "99999999999999999999999999999.999999999",
        "1e28",
        "-0.000000001",
        "x",
        "7.5",
    ]
    lines = "".join(f"p{index},{number}\n" for index, number in enumerate(numbers))
    (tmp_path / "t.csv").write_text(f"id,x\n{lines}")
    (source,) = sources_of(of, tmp_path).values()
    with connect() as database:
        log = NamedHere()
        store = Store(of, tmp_path, log.kept)
        log.prepare(store, database, source, NOW)
    snapshot = store.snapshot(source)
    assert snapshot is not None
    cells = snapshot.rows(0, 6, [("number", "x")]).cells["number", "x"]
    assert isinstance(cells, Numbers)
    assert cells.nanos is not None
    most = 2**63 - 1
    found = sorted(zip(cells.whole.tolist(), cells.nanos.tolist(), strict=True))
    assert found == [(-(2**63), 0), (-most, 0), (-1, 999_999_999), (7, 500_000_000), (most, 0), (most, 0)]


def test_the_owner_sees_how_old_the_prepared_rows_are(home: Path) -> None:
    file, began = home / "silos" / "aspen" / "policy.toml", int(time.time())
    kind = 'kind = "parquet"'
    file.write_text(file.read_text().replace(kind, f'{kind}\nread = "prepared"\nprepared_for = "2h"'))

    def told(after_s: int) -> Finding:
        (finding,) = [one for one in examine(file, lambda: began + after_s) if one.what == "prepared lung"]
        return finding

    assert told(0) == Finding("prepared lung", "ok", NOT_PREPARED)
    assert not [name for name in (FOLDER, KEY) if (file.parent / name).exists()], "a check makes nothing"
    of, rows = load(file).policy, file.parent / "lung.parquet"
    with connect() as database, closing(LedgerStore(file.parent / LEDGER, signer_of(file))) as ledger:
        source, store = sources_of(of, file.parent)["lung"], Store(of, file.parent, ledger.kept)
        store.put_in_force(source, store.prepare(database, source, began).store, ledger.put_in_force)
    finding = told(7200)
    assert finding.state == "ok"
    assert finding.found.startswith(f"1 file, {rows.stat().st_size:,} bytes, read 2")
    assert finding.found.endswith(f"seen unchanged {when(began)}")
    stale = told(7201)
    assert (stale.state, stale.found.endswith("longer ago than prepared_for = 2h, so it is refused")) == ("warn", True)
    assert "silo.log" in stale.remedy
    rows.write_bytes(rows.read_bytes())
    assert told(1).found.endswith("; its files have changed, and are read again")
    file.write_text(file.read_text().replace('"2h"', '"3h"'))
    assert told(1).found.endswith("; its files have changed, and are read again"), "what no cell depends on"
    file.write_text(file.read_text().replace("[0, 1100]", "[0, 1000]"))
    assert told(1).found == NOT_PREPARED, "prepared by other rules"
