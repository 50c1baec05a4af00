"""The three example policies load, editors can check them, and the schema that they are checked by is the models'."""

import json
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from policies.document import schema
from policies.document.catalogue import catalogue_of
from policies.document.consistency import BY_BUCKETS
from policies.document.load import load, parse
from tests.policies.test_load import MINIMAL

EXAMPLES = sorted((schema.FILE.parent / "examples").glob("*.toml"))
WARNED = {
    "bank": {"disclosure.aggregates: histogram"},
    "hospital": {"disclosure.aggregates: histogram"},
    "retailer": {"disclosure.aggregates: histogram"},
}  # fmt: skip


def plain(value: Any) -> Any:
    """Return a TOML document as JSON would hold it."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value.isoformat() if isinstance(value, datetime) else value


def found_by_schema(document: Any) -> list[str]:
    import jsonschema

    checker = jsonschema.Draft202012Validator(json.loads(schema.FILE.read_text()))
    return [".".join(map(str, error.path)) for error in checker.iter_errors(plain(document))]


def test_there_are_three() -> None:
    assert [path.stem for path in EXAMPLES] == ["bank", "hospital", "retailer"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_loads_and_warns_of_what_is_not_built(path: Path) -> None:
    file = load(path)
    assert file.policy.mode == "production"
    found = set()
    for line in file.warnings:
        where, number, place, what, text = (part.strip() for part in line.split(":", 4))
        expected = BY_BUCKETS.get(what, "this version cannot do it, so every request for it is denied")
        assert (where, text) == (str(path), expected)
        assert place.rsplit(".", 1)[-1] in path.read_text().splitlines()[int(number) - 1]
        found.add(f"{place}: {what}")
    assert found == WARNED[path.stem], "what is built is not warned of, what is not is"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_can_be_published(path: Path) -> None:
    policy = load(path).policy
    now = int(datetime(2026, 11, 24, tzinfo=UTC).timestamp())
    for analyst in policy.analysts.values():
        assert catalogue_of(policy, analyst, "fed", bytes(32), bytes(16), now).purposes == analyst.purposes


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_editor_finds_the_schema_and_no_problem(path: Path) -> None:
    first = path.read_text().splitlines()[0]
    assert (path.parent / first.removeprefix("#:schema ")).resolve() == schema.FILE.resolve()
    assert found_by_schema(tomllib.loads(path.read_text())) == []


def test_the_schema_is_the_models() -> None:
    assert schema.FILE.read_text() == schema.schema(), "run: python -m policies.document.schema"


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("min_cohort = 50", "min_cohrt = 50", "disclosure"),
        ("delta = 1e-7", "delta = 1e-4", "budget.delta"),
        ('sector = "bank"', 'sector = "banc"', "silo.sector"),
        ("max_rows = 40", 'max_rows = "40"', "privacy_unit.max_rows"),
        ("bounds = [0, 250000]", "bounds = [0]", "sources.accounts.columns.balance.bounds"),
    ],
)
def test_an_editor_sees_what_the_schema_can_say(old: str, new: str, where: str) -> None:
    text = EXAMPLES[0].read_text()
    assert old in text
    assert found_by_schema(tomllib.loads(text.replace(old, new, 1))) == [where]


def test_a_minimal_policy_has_about_25_lines_and_opens_nothing() -> None:
    assert len(MINIMAL.splitlines()) <= 25
    policy = parse(MINIMAL.encode(), "minimal.toml")
    assert found_by_schema(tomllib.loads(MINIMAL)) == []
    assert (policy.analysts, policy.disclosure.aggregates, policy.protection.accept) == ({}, (), ())
    assert (policy.training, policy.approvals) == (None, ())
