"""Objections that were lost in silence: every way that a review found to keep somebody in who had objected."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from policies.document.policy import Policy
from silo_node.data.consent import consent_filter
from silo_node.errors import SourceError
from tests.harness import rows
from tests.harness.example_policy import decided_in
from tests.harness.rows import load_consent, load_sources, opened, prepared_in

NOW = 1_780_000_000  # 2026-05-28T20:26:40Z
HEADER = "person,purpose,given,withdrawn\n"


def policy(consent: str = "", unit: str = "", source: str = "d.csv", purpose: str = "") -> Policy:
    """Return a policy that counts everybody who has not objected."""
    rest = f'consent = "opt-out"\n{purpose}\n{decided_in(source)}{consent}'
    return rows.policy('type = "int", roles = ["filter"]', kind="parquet", unit=unit, rest=rest)


def who_is_in(of: Policy, home: Path, ids: pa.Array | list[str]) -> set[str]:
    """Return the persons that a request counts."""
    pq.write_table(pa.table({"id": ids, "x": [1] * len(ids)}), home / "t.parquet")
    source, decisions = load_sources(of, home)["t"], load_consent(of, home)
    condition = consent_filter(of, "research", NOW)
    assert condition is not None
    with opened(source, decisions) as database:
        sql = f"SELECT id FROM {source.view} WHERE {condition.sql}"
        found = {row[0] for row in database.execute(sql, condition.parameters).fetchall()}
    assert prepared_in(of, home, "research", NOW) == found
    return found


ONE = "A1,research,,2026-01-01T00:00:00Z\n"


@pytest.mark.parametrize("codec", ["utf-16", "utf-16-be", "utf-16-le"])
def test_either_order_of_bytes_is_read(tmp_path: Path, codec: str) -> None:
    mark = {"utf-16-be": "\ufeff", "utf-16-le": "\ufeff"}.get(codec, "")
    (tmp_path / "d.csv").write_bytes(f"{mark}{HEADER}{ONE}".encode(codec))
    assert who_is_in(policy('csv = { encoding = "utf-16" }'), tmp_path, ["A1", "B2"]) == {"B2"}


@pytest.mark.parametrize("name", ["d[1].csv", "d*.csv", "d?.csv"])
def test_no_name_of_a_file_is_taken_for_a_pattern(tmp_path: Path, name: str) -> None:
    (tmp_path / "d1.csv").write_text(HEADER)
    (tmp_path / name).write_text(HEADER + ONE)
    assert who_is_in(policy(source=name), tmp_path, ["A1", "B2"]) == {"B2"}


def test_a_file_that_comes_to_a_pattern_counts_on_the_next_request(tmp_path: Path) -> None:
    (tmp_path / "d1.csv").write_text(HEADER)
    of = policy("pattern = true", source="d*.csv")
    pq.write_table(pa.table({"id": ["A1"], "x": [1]}), tmp_path / "t.parquet")
    source, decisions = load_sources(of, tmp_path)["t"], load_consent(of, tmp_path)
    condition = consent_filter(of, "research", NOW)
    assert condition is not None
    for count in (1, 0):
        with opened(source, decisions) as database:
            sql = f"SELECT count(*) FROM {source.view} WHERE {condition.sql}"
            assert database.execute(sql, condition.parameters).fetchall() == [(count,)]
        (tmp_path / "d2.csv").write_text(HEADER + ONE)


def test_a_year_of_two_digits_is_no_time(tmp_path: Path) -> None:
    for consent, withdrawn in (("", "05-03-24"), ("", "infinity"), ('dates = "%d/%m/%Y"', "05/06/24")):
        (tmp_path / "d.csv").write_text(f"{HEADER}A1,research,,{withdrawn}\n")
        with pytest.raises(SourceError, match="no time"):
            load_consent(policy(consent), tmp_path)
    (tmp_path / "d.csv").write_text(f"{HEADER}A1,research,,05/06/24\n")
    assert who_is_in(policy('dates = "%d/%m/%y"'), tmp_path, ["A1", "B2"]) == {"B2"}


@pytest.mark.parametrize("word", ["\u0395\u03a1\u0395\u03a5\u039d\u0391\u03a3", "\u0130ZLEME", "Research"])
def test_case_is_folded_by_one_engine(tmp_path: Path, word: str) -> None:
    (tmp_path / "d.csv").write_text(f"{HEADER}A1,{word},,2026-01-01T00:00:00Z\n")
    of = policy('case = "ignore"', purpose=f'consent_values = ["{word}"]')
    assert who_is_in(of, tmp_path, ["A1", "B2"]) == {"B2"}


@pytest.mark.parametrize("unit", ["", 'id_form = ["blanks"]'])
def test_every_blank_is_a_blank(tmp_path: Path, unit: str) -> None:
    for blank in " \u00a0\u202f\u2007\u2009\u3000":
        (tmp_path / "d.csv").write_text(f'{HEADER}"12{blank}345",research,,2026-01-01T00:00:00Z\n')
        assert who_is_in(policy(unit=unit), tmp_path, ["12345", "B2"]) == {"B2"}, repr(blank)
    (tmp_path / "d.csv").write_text(f"{HEADER}1 2.0,research,,2026-01-01T00:00:00Z\n")
    assert who_is_in(policy(unit=unit), tmp_path, ["12", "B2"]) == {"B2"}


def test_a_character_that_nobody_sees_makes_no_other_person_and_no_other_purpose(tmp_path: Path) -> None:
    for hidden in "\u200b\u200e\u202c\u2060\u00ad\u2028\u0085\ufeff":
        for unit in ("", "id_form = []"):
            (tmp_path / "d.csv").write_text(f'{HEADER}"A1{hidden}","research{hidden}",,2026-01-01T00:00:00Z\n')
            assert who_is_in(policy(unit=unit), tmp_path, ["A1", f"A1{hidden}", "B2"]) == {"B2"}, repr(hidden)


def test_an_id_that_a_float_cannot_hold_is_refused(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text(HEADER)
    for ids in ([1.0, 110101199003078912.0], [1.0, 2.5], [1.0, float("inf")]):
        with pytest.raises(SourceError, match="column 'id'"):
            who_is_in(policy(), tmp_path, pa.array(ids))
    with pytest.raises(SourceError, match="column 'id'"):
        who_is_in(policy(), tmp_path, pa.array(np.array([1, 12345678901], np.float32)))
    decided = pa.table({"person": [2.5], "purpose": ["research"], "given": [""], "withdrawn": ["2026-01-01"]})
    pq.write_table(decided, tmp_path / "d.parquet")
    with pytest.raises(SourceError, match="1 cells that name nobody"):
        load_consent(policy(source="d.parquet"), tmp_path)


def test_a_decision_that_can_be_anybody_s_lets_nobody_in(tmp_path: Path) -> None:
    decided = {"person": [2.0], "purpose": ["research"], "given": [""], "withdrawn": ["2026-01-01"]}
    pq.write_table(pa.table(decided), tmp_path / "d.parquet")
    pq.write_table(pa.table({"id": ["1", "2"], "x": [1, 1]}), tmp_path / "t.parquet")
    of = policy(source="d.parquet")
    source, decisions = load_sources(of, tmp_path)["t"], load_consent(of, tmp_path)
    condition = consent_filter(of, "research", NOW)
    assert condition is not None
    for person, count in ((2.0, 1), (2.5, 0)):  # written anew while the silo runs
        pq.write_table(pa.table(decided | {"person": [person]}), tmp_path / "d.parquet")
        with opened(source, decisions) as database:
            sql = f"SELECT count(*) FROM {source.view} WHERE {condition.sql}"
            assert database.execute(sql, condition.parameters).fetchall() == [(count,)]


def test_a_quote_after_a_blank_opens_nothing(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text(f'{HEADER}X9,other,, "a\nA1,research,,2026-02-01"\n')
    with pytest.raises(SourceError, match="no time"):
        load_consent(policy(), tmp_path)
