"""Every command of the guide in docs/training.md, in its order, on the demo: what it shows is what is printed.

`...` in an output stands for anything. A block of `diff` changes the file that is named before it.
"""

import re
import shlex
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import analyst.cli.main
import analyst.client
import silo_node.owner.cli
from analyst.cli.watching import ALARM
from analyst.demo import banks
from analyst.demo.sector import found_sector
from federation.config import Config
from tests.analyst.test_drafting import change
from tests.harness.simulator import Simulation, simulate

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "training.md").read_text().partition("\n## Reference\n")[0]
BLOCK = re.compile(r"^```console\n(.*?)^```|`(\S+)`:\n\n```(diff|toml)\n(.*?)^```", re.M | re.S)


def steps() -> Iterator[tuple[str, str, str]]:
    """Yield each step of the guide: a command with its output, or the name of a file with what becomes of it."""
    for console, file, kind, text in BLOCK.findall(PAGE):
        if file:
            yield kind, file, text
        for command in re.split(r"^\$ ", console, flags=re.M)[1:]:
            lines = command.splitlines()
            count = next(place for place, line in enumerate(lines) if not line.endswith("\\")) + 1
            first = " ".join(line.removesuffix("\\").strip() for line in lines[:count])
            yield "run", first, "\n".join(lines[count:])


def steady(text: str) -> str:
    """Return lines without what is another in every run: seconds, and metrics of those who are held out."""
    text = re.sub(r"[0-9.]+ s, ", "0.6 s, ", text)
    # Who is held out is drawn by the silos.
    return re.sub(r"0[.][0-9]{4} [(]0[.][0-9]{4} to 0[.][0-9]{4}[)]", "0.5 (0.4 to 0.6)", text)


@dataclass
class Runs:
    """The names of the guide's runs, and of those that stand for them here."""

    names: dict[str, str] = field(default_factory=dict)

    def here(self, text: str) -> str:
        """Return a text of the guide with this test's names, also where a name's beginning stands."""

        def named(found: re.Match[str]) -> str:
            begun = found[0]
            whole = next((here for guide, here in self.names.items() if guide.startswith(begun)), begun)
            return whole[: len(begun)]

        return re.sub(r"\b[0-9a-f]{8,32}\b", named, text)

    def learn(self, expected: str, actual: str) -> None:
        """Take over the name of a run that an output of the guide begins to tell of."""
        name = r"^run ([0-9a-f]{32}): (?:[0-9]+|\.\.\.) steps? of|\(run ([0-9a-f]{32})\)"
        told, found = (["".join(one) for one in re.findall(name, text, re.M)] for text in (expected, actual))
        self.names |= dict(zip(told, found, strict=False))


def matches(expected: str, actual: str) -> bool:
    pattern = ".*".join(re.escape(part) for part in steady(expected).rstrip("\n").split("..."))
    return re.fullmatch(pattern, actual.rstrip("\n"), re.DOTALL) is not None


@pytest.mark.torch
@pytest.mark.slow
def test_the_guide_is_what_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    found_sector(Path("consilo-demo"), banks.SECTOR)
    Path("consilo-demo/job.toml").write_text(banks.JOB)
    running: dict[Path, Simulation] = {}
    runs, looks = Runs(), list[int]()
    with ExitStack() as stack:

        @contextmanager
        def started(config: Config, progress: object = None) -> Iterator[Simulation]:
            home = config.path.parent.resolve()
            if home not in running:
                running[home] = stack.enter_context(simulate(home))
            yield running[home]

        monkeypatch.setattr(analyst.client, "started", started)
        found = list(steps())
        assert len([one for one in found if one[0] == "run"]) > 6
        for kind, what, text in found:
            if kind == "diff":
                change(Path(what), text)
            elif kind == "toml":
                Path(what).write_text(text)
            else:
                program, *arguments = shlex.split(runs.here(what))
                run = {"consilo": analyst.cli.main.main, "consilo-silo": silo_node.owner.cli.main}[program]
                status, shown = run(arguments), capsys.readouterr()
                assert status == (1 if ": error: " in text else ALARM if ": ALARM\n" in text else 0), (what, shown)
                told = (
                    line for line in shown.err.splitlines() if line.startswith("round ") or ": hint: " in line or status
                )
                looks += [status] if arguments[0] == "watch" else []
                output = "\n".join([*dict.fromkeys(told), shown.out]) if shown.err else shown.out
                runs.learn(text, output)
                assert matches(runs.here(text), steady(output)), f"{what}\n{output}"
    assert looks == [0, ALARM]
