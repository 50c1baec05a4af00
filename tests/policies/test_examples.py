"""The three example policies load, editors can check them, and the schema that they are checked by is the models'."""

import json
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from policies.document import schema
from policies.document.catalogue import catalogue_of, published
from policies.document.consistency import BY_BUCKETS
from policies.document.load import load, parse
from policies.document.policy import Policy
from policies.requests.exact import ExactStep, FamilyStep, Setting
from policies.requests.families import SHAPES, kind_of
from policies.requests.noised import NoisedStep
from policies.requests.tables import Table
from policies.requests.training import START
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


def jobs(policy: Policy, model: str) -> Iterator[tuple[Table, FamilyStep]]:
    """Yield a first round of a model over each source, for each label, from all columns that are open as features."""
    for name, source in policy.sources.items():
        columns = {key: published(key, one, source, 0) for key, one in source.columns.items() if one.open_roles}
        open_as = {
            role: [key for key in columns if role in source.columns[key].roles]
            for role in ("feature", "label", "audit")
        }
        table = Table(name=name, max_rows=1, max_silos=1, columns=tuple(columns.values()))
        kinds = {key: kind_of(column) for key, column in columns.items()}
        shape = SHAPES[model]
        parts = []
        for part, taken in sorted(shape.parts.items()):
            fits = [key for key in open_as[taken.role] if kinds[key] in taken.kinds]
            if taken.is_needed and fits:
                parts.append(Setting(name=part, value=fits[0]))
        kind: type[FamilyStep] = ExactStep if source.release == "exact" else NoisedStep
        used = {one.value for one in parts}
        for label in open_as["label"] if shape.labels else [None]:
            features = tuple(key for key in open_as["feature"] if key not in {label, *used})
            fields = {"run": bytes(16), "step": 0, "steps": 50, "after": START, "label": label, "family": model}
            yield table, kind.model_validate({**fields, "features": features, "parts": tuple(parts)})


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_model_that_an_example_opens_can_be_asked_for(path: Path) -> None:
    policy = load(path).policy
    assert policy.training is not None
    for name, purpose in policy.purposes.items():
        for model in purpose.computations:
            if model not in SHAPES:
                continue
            asked = 0
            for table, step in jobs(policy, model):
                try:
                    step.check(table, "masking")
                except ValueError:
                    continue
                asked += step.release == "private" or policy.training.dp == "optional"
            assert asked, f"{name}: {model}"


def test_a_model_that_no_source_can_be_asked_for_is_warned_of(tmp_path: Path) -> None:
    for old, new, place in (
        ('release = "exact" ', 'release = "private"', "purposes.health-research.computations: cox: it has no form"),
        ('dp = "optional"', 'dp = "required"', "training.dp: required, so no model of survival is fitted"),
    ):
        text = EXAMPLES[1].read_text()
        assert old in text
        changed = tmp_path / "policy.toml"
        changed.write_text(text.replace(old, new, 1))
        warned = load(changed).warnings
        assert any(place in line for line in warned), warned


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
