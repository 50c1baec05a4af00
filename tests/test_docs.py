"""The docs say what the code does: every command, option, denial and policy key is in them, and README code runs."""

import argparse
import re
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

import analyst.cli.main
import analyst.client
import silo_node.owner.cli
from policies.decision.denial_codes import DenialCode
from policies.document.policy import Policy
from tests.cases import every
from tests.harness.simulator import Simulation

ROOT = Path(__file__).resolve().parent.parent
DOCS = "\n".join(path.read_text() for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))])
COMMANDS = "\n".join((ROOT / "docs" / name).read_text() for name in ("commands.md", "federated.md"))
POLICY_KEYS = (ROOT / "docs" / "policy-keys.md").read_text()
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()


def commands() -> Iterator[Any]:
    pending = [analyst.cli.main.command_line(), silo_node.owner.cli.command_line()]
    while pending:
        parser = pending.pop()
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for name, command in action.choices.items():
                    yield f"{parser.prog} {name}", command
                    pending.append(command)


@every(("name", "command"), list(commands()))
def test_every_command_and_option_is_documented(name: str, command: argparse.ArgumentParser) -> None:
    assert f"`{name}" in COMMANDS or f"\n{name}" in COMMANDS
    for action in command._actions:
        for option in action.option_strings:
            if option.startswith("--") and option != "--help":
                assert option in COMMANDS, f"{name} {option}"


def keys(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield field.alias or name
        pending = [field.annotation]
        while pending:
            annotation = pending.pop()
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                yield from keys(annotation)
            pending += get_args(annotation)


def test_every_policy_key_is_documented() -> None:
    sections = re.split(r"^## ", POLICY_KEYS, flags=re.M)
    assert len(sections) > 15
    missing = [key for key in keys(Policy) if not re.search(rf"`{key}(`| = )|\[\[?{key}", POLICY_KEYS)]
    assert not missing


@pytest.mark.parametrize("path", sorted((ROOT / "policies" / "examples").glob("*.toml")), ids=lambda path: path.stem)
def test_every_key_of_the_examples_is_documented(path: Path) -> None:
    def named(document: Any) -> Iterator[str]:
        if isinstance(document, dict):
            for key, value in document.items():
                yield key
                yield from named(value)
        elif isinstance(document, list):
            for item in document:
                yield from named(item)

    known = set(keys(Policy))
    found = {key for key in named(tomllib.loads(path.read_text())) if key in known}
    assert len(found) > 60
    assert not [key for key in found if not re.search(rf"`{key}(`| = )|\[\[?{key}", POLICY_KEYS)]


def test_every_denial_is_documented() -> None:
    codes = get_args(DenialCode)
    assert len(codes) > 15
    assert not [code for code in sorted(codes) if code not in DOCS]


def headings(page: str) -> Iterator[tuple[int, str]]:
    """Yield the level and the text of every heading outside of code blocks."""
    for line in re.sub(r"^```.*?^```", "", page, flags=re.M | re.S).splitlines():
        if found := re.fullmatch(r"(#+) (.*)", line):
            yield len(found[1]), found[2]


def anchor(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_the_attack_story_of_the_harness_holds() -> None:
    """Its page shows how to write one in ten lines."""
    page = (ROOT / "tests" / "harness" / "README.md").read_text()
    example = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert example is not None
    found: dict[str, Any] = {}
    exec(compile(example[1], "tests/harness/README.md", "exec"), found)  # noqa: S102
    (story,) = [value for name, value in found.items() if name.startswith("test_")]
    story()
    named = set(re.findall(r"^\| `([a-z_`, ]+)` \|", page, re.M))
    modules = {path.stem for path in (ROOT / "tests" / "harness").glob("*.py")} - {"__init__"}
    assert {name.strip(" `") for group in named for name in group.split(",")} == modules


def test_every_link_between_the_docs_leads_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for target, place in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", page.read_text()):
            found = page.parent / target if target else page
            assert found.exists(), f"{page.name} -> {target}"
            if place:
                known = {anchor(text) for _, text in headings(found.read_text())}
                assert place in known, f"{page.name} -> {target}#{place}"


def test_the_readme_shows_parts_of_the_demo_as_it_is() -> None:
    # tests/rounds/test_ray.py compares the whole transcript, in docs/demo.md, with what the demo prints.
    transcripts = [
        re.findall(r"```text\n\$ consilo demo\n(.*?)```", path.read_text(), re.DOTALL)
        for path in (ROOT / "README.md", ROOT / "docs" / "demo.md")
    ]
    (shown,), (whole,) = transcripts
    parts = re.split(r"^\.\.\.\n", shown, flags=re.M)
    assert len(parts) > 3
    for part in parts:
        assert f"\n{part}" in f"\n{whole}", part
        whole = whole[whole.index(part) + len(part) :]


def test_the_readme_says_in_two_screens_what_it_is() -> None:
    before = (ROOT / "README.md").read_text().partition("\n## What happens in one question\n")[0]
    assert len(before.splitlines()) <= 100
    assert "docs/pictures/who-holds-what.svg" in before
    assert "\n## What Consilo does not protect against\n" in before


def test_every_folder_of_code_is_in_the_architecture() -> None:
    packages = ("silo_node", "aggregator", "analyst", "federation", "policies", "crypto")
    folders = {path.parent.relative_to(ROOT) for package in packages for path in (ROOT / package).rglob("*.py")}
    assert not [str(folder) for folder in sorted(folders) if f"| `{folder}/` |" not in ARCHITECTURE]


def test_every_step_of_the_protocol_is_a_term_of_the_glossary() -> None:
    glossary = (ROOT / "docs" / "glossary.md").read_text()
    cells = re.findall(r"^\| ([^|]+) \| ", glossary, re.M)
    terms = {term.strip().lower() for cell in cells for term in cell.split(",")}
    assert len(terms) > 100
    protocol = (ROOT / "docs" / "protocol.md").read_text()
    numbered = (re.fullmatch(r"([3-7])(?:\.\d+|\.) (.*)", text) for _, text in headings(protocol))
    steps = [found[2] for found in numbered if found]
    paper = ["AdvertiseKeys", "ShareKeys", "MaskedInputCollection", "ConsistencyCheck", "Unmasking"]
    assert [step for step in steps if step in paper] == paper
    words = [word.strip().lower() for step in steps for word in re.split(r", | and ", step)]
    assert len(words) > 20
    assert not [word for word in words if word not in terms and word.removesuffix("s") not in terms]


def test_no_term_of_the_glossary_stands_twice() -> None:
    glossary = (ROOT / "docs" / "glossary.md").read_text()
    terms = [
        term.strip().lower() for cell in re.findall(r"^\| ([^|]+) \| ", glossary, re.M) for term in cell.split(",")
    ]
    assert sorted({term for term in terms if terms.count(term) > 1} - {"term", "---"}) == []


def test_every_import_in_the_python_of_the_docs_resolves() -> None:
    blocks = re.findall(r"^ *```python\n(.*?)^ *```", DOCS, re.M | re.S)
    lines = [line for block in blocks for line in re.findall(r"^ *((?:from|import) .*)$", block, re.M)]
    assert len(blocks) > 4
    assert len(lines) > 6
    for line in lines:
        exec(line, {})  # noqa: S102


def test_the_python_example_of_the_readme_runs(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextmanager
    def started(config: object, progress: object = None) -> Iterator[Simulation]:
        yield simulation

    monkeypatch.setattr(analyst.client, "started", started)
    example = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert example is not None
    code = example[1].replace("consilo-demo/consilo.toml", f"{simulation.path}/consilo.toml")
    exec(compile(code, "README.md", "exec"), {})  # noqa: S102
    assert "mean_age" in capsys.readouterr().out
