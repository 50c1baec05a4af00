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

import analyst.cli
import analyst.client
import silo_node.cli
from policies.document.policy import Policy
from tests.cases import every
from tests.simulator import Simulation

ROOT = Path(__file__).resolve().parent.parent
DOCS = "\n".join(path.read_text() for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))])
QUICKSTART = "\n".join((ROOT / "docs" / name).read_text() for name in ("quickstart.md", "federated.md"))
POLICIES = (ROOT / "docs" / "policies.md").read_text()


def commands() -> Iterator[Any]:
    pending = [analyst.cli._parser(), silo_node.cli._parser()]
    while pending:
        parser = pending.pop()
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for name, command in action.choices.items():
                    yield pytest.param(f"{parser.prog} {name}", command, id=f"{parser.prog} {name}")
                    pending.append(command)


@every(("name", "command"), list(commands()))
def test_every_command_and_option_is_documented(name: str, command: argparse.ArgumentParser) -> None:
    assert f"`{name}" in QUICKSTART or f"\n{name}" in QUICKSTART
    for action in command._actions:
        for option in action.option_strings:
            if option.startswith("--") and option != "--help":
                assert option in QUICKSTART, f"{name} {option}"


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
    sections = re.split(r"^### ", POLICIES, flags=re.M)
    assert len(sections) > 15
    missing = [key for key in keys(Policy) if not re.search(rf"`{key}(`| = )|\[\[?{key}", POLICIES)]
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
    assert not [key for key in found if not re.search(rf"`{key}(`| = )|\[\[?{key}", POLICIES)]


def test_every_denial_is_documented() -> None:
    sources = [ROOT / "policies" / "decide.py", ROOT / "silo_node" / "core.py"]
    codes = {code for source in sources for code in re.findall(r'(?:_deny\(|code=)"([A-Z_]+)"', source.read_text())}
    assert len(codes) > 15
    assert not [code for code in sorted(codes) if code not in DOCS]


def test_every_link_between_the_docs_leads_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} -> {target}"


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
