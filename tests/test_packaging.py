"""Our import names are generic, so prove that they are ours and that nothing else slips into the wheel."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import import_module
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.tiers import MARKS

ROOT = Path(__file__).resolve().parent.parent
OURS = ("silo_node", "aggregator", "analyst", "federation", "policies", "crypto")


@pytest.mark.parametrize("name", OURS)
def test_import_name_is_ours(name: str) -> None:
    module = import_module(name)
    assert module.__file__ is not None
    assert Path(module.__file__).is_relative_to(ROOT)


@pytest.mark.parametrize("name", OURS)
def test_no_other_distribution_claims_the_name(name: str) -> None:
    owners = set(packages_distributions().get(name, [])) - {"consilo"}
    assert not owners, f"{owners} also install a top-level package {name!r}"


@pytest.mark.process
def test_the_wheel_holds_our_packages_only(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
    ]
    subprocess.run([*command, str(ROOT)], check=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == set(OURS)
    assert {f"{package}/py.typed" for package in OURS} <= set(names)
    pages = {f"silo_node/owner/templates/page.{ending}" for ending in ("html", "css")}
    assert {*pages, "federation/web/templates/document.html"} <= set(names)


def test_the_lock_pins_every_dependency_and_a_torch_that_everybody_can_install() -> None:
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    pins = dict(line.split("==") for line in lines)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(item for extra in project["optional-dependencies"].values() for item in extra),
    ]
    for requirement in wanted:
        name = requirement.split(">")[0].split("=")[0].split("<")[0].split("[")[0].lower()
        assert name in {pin.lower().replace("_", "-") for pin in pins}, name
    assert pins["torch"] == "2.13.0"
    assert int(pins["pandas"].split(".")[0]) < 3


UNITS = sorted((ROOT / "deploy").glob("*.service"))


@pytest.mark.process
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_the_example_units_start_commands_that_exist(unit: Path, tmp_path: Path) -> None:
    """With the environment's own programs in the place of the installed ones, systemd finds nothing to say."""
    installed = "/opt/consilo/bin"
    commands = re.findall(rf"^Exec\w+={installed}/(\S+) (.*)$", unit.read_text(), re.MULTILINE)
    assert commands
    for program, words in commands:
        command = [Path(sys.executable).parent / program]
        for word in words.split():
            if word.startswith("-") or word in (".", "policy.toml"):
                break
            command.append(word)
        shown = subprocess.run([*command, "--help"], text=True, capture_output=True, timeout=60, check=True).stdout
        for option in re.findall(r"--[a-z-]+", words):
            assert option in shown, (unit.name, option)
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze")
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace(installed, str(Path(sys.executable).parent)))
    checked = subprocess.run(["systemd-analyze", "verify", copy], text=True, capture_output=True, timeout=60)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_the_container_file_copies_every_package() -> None:
    text = (ROOT / "deploy" / "Containerfile").read_text()
    assert re.findall(r"^COPY (\w+) /src/\1$", text, re.MULTILINE) == list(OURS)


def test_the_container_file_tells_how_its_user_gets_at_a_directory_of_the_host() -> None:
    text = (ROOT / "deploy" / "Containerfile").read_text()
    user = re.findall(r"useradd --uid (\d+)", text)
    assert re.findall(r"--userns=keep-id:uid=(\d+),gid=(\d+)", text) == [(user[0], user[0])]


def test_make_leaves_out_and_checks_exactly_the_marks_that_there_are() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]["markers"]
    (marked,) = re.findall(r"^MARKED := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert marked.split(" or ") == [line.split(":")[0] for line in declared] == list(MARKS)


@pytest.mark.process
def test_a_process_of_the_aggregator_has_loaded_nothing_that_opens_a_report() -> None:
    """The import contract names the modules; here a process that has imported every module of the aggregator."""
    script = (
        "import importlib, pkgutil, sys, aggregator\n"
        "for one in pkgutil.walk_packages(aggregator.__path__, 'aggregator.'):\n"
        "    if not one.name.endswith('__main__'): importlib.import_module(one.name)\n"
        "opening = ('crypto.rounds.opening', 'crypto.rounds.recount', 'crypto.rounds.key_schedule', 'crypto.shamir',"
        " 'policies.requests.round_key', 'silo_node', 'analyst')\n"
        "print([name for name in opening if name in sys.modules])\n"
    )
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
