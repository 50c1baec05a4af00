"""The demo's stories, one of all sectors and one of each: found a federation on real data, then play its scenes.

A story of all sectors founds one federation; a question goes to those of its silos that hold the table.
"""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from analyst.client import Federation
from analyst.demo import banks, hospitals, retailers, scenes
from analyst.demo.scenes import Stage
from analyst.demo.sector import Sector, found_sectors
from crypto.errors import CryptoError
from federation.config import read_config
from federation.errors import FederationError
from federation.files import replace_file
from federation.local import is_up

SECTORS = {"hospitals": hospitals.SECTOR, "banks": banks.SECTOR, "retailers": retailers.SECTOR}
MARKER = ".consilo-demo"
_SIMULATED = (
    "[yellow]Simulate mode:[/yellow] every silo is an actor in one Ray cluster on this machine.\n"
    "That is ONE trust domain: good for trying out, no protection between silos."
)
_YOURS = "\n[bold]Yours now[/bold] ({seconds:.0f} s): the federation stays in {path}. Next, type"
_NEXT = """\
  consilo query "{question}" \\
      --federation {path}/consilo.toml --purpose {purpose} --epsilon 1
  consilo silos --federation {path}/consilo.toml
  consilo-silo ledger --policy {path}/silos/{silo}/policy.toml
  consilo-silo check-policy {path}/silos/{silo}/policy.toml"""
_NEXT_OF_ALL = """\
  consilo up --federation {path}/consilo.toml
  consilo query "{question}" \\
      --federation {path}/consilo.toml --purpose {purpose} --epsilon 1
  consilo train {path}/job.toml --federation {path}/consilo.toml
  consilo down --federation {path}/consilo.toml
  consilo-silo consent --policy {path}/silos/{silo}/policy.toml --person {person}
  consilo-silo ledger --policy {path}/silos/{silo}/policy.toml"""


def tell(path: Path, sector: Sector, console: Console) -> None:
    """Found the sector's federation in `path` and tell its story.

    Raises AnalystError, FederationError or CryptoError.
    """
    began = time.monotonic()
    data = _found(path, (sector,), console, sector.headline)
    console.print(sector.intro.format(rows=f"{data[sector.kind].num_rows:,}"))
    console.print(_SIMULATED)
    with _opened(path, data, console) as stage:
        scenes.show_silos(stage, sector, 1)
        report, encrypted = scenes.ask(stage, sector, 2)
        scenes.show_encrypted(stage, report, encrypted, 3)
        scenes.be_refused(stage, sector, 4)
        if sector is banks.SECTOR:
            scenes.learn(stage, sector, banks.JOB, 5)
    console.print(_YOURS.format(path=path, seconds=time.monotonic() - began))
    next_steps = _NEXT.format(path=path, question=sector.next_question, purpose=sector.purpose, silo=sector.silos[0])
    console.print(next_steps, soft_wrap=True)


def tell_all(path: Path, console: Console) -> None:
    """Found one federation of all sectors in `path` and tell its story; raises what `tell` raises."""
    began = time.monotonic()
    sectors = tuple(SECTORS.values())
    count = sum(len(sector.silos) for sector in sectors)
    data = _found(path, sectors, console, f"{count} organisations in one federation, and no record moves")
    for sector in sectors:
        console.print(f"  {sector.title.format(rows=f'{data[sector.kind].num_rows:,}')}")
    console.print(
        "Real data. How they are split among the silos is artificial in every sector, and\n"
        "so are the patients' decisions on consent."
    )
    console.print(_SIMULATED)
    hospital, bank, retailer = hospitals.SECTOR, banks.SECTOR, retailers.SECTOR
    first, *_, last = hospital.silos
    with _opened(path, data, console) as stage:
        scenes.show_sectors(stage, sectors, 1)
        report, encrypted = scenes.ask_each(stage, sectors, 2)
        scenes.show_encrypted(stage, report, encrypted, 3)
        scenes.be_refused(stage, hospital, 4)
        person = scenes.withdraw(stage, hospital, first, 5)
        scenes.run_out(stage, retailer, retailers.LIMITED, 6)
        scenes.drop_out(stage, hospital, last, person, 7)
        scenes.learn(stage, bank, banks.JOB, 8)
    console.print(_YOURS.format(path=path, seconds=time.monotonic() - began))
    next_steps = _NEXT_OF_ALL.format(
        path=path, question=bank.next_question, purpose=bank.purpose, silo=first, person=person
    )
    console.print(next_steps, soft_wrap=True)


def _found(path: Path, sectors: tuple[Sector, ...], console: Console, headline: str) -> dict[str, Any]:
    """Found the federation in place of an earlier demo; return all rows of each sector, by its kind."""
    _clear(path)
    console.print(f"[bold]{headline}[/bold]")
    found_sectors(path, sectors)
    replace_file(path / MARKER, b"made by `consilo demo`, which may replace this directory\n")
    return {sector.kind: sector.read() for sector in sectors}


@contextmanager
def _opened(path: Path, data: dict[str, Any], console: Console) -> Iterator[Stage]:
    with (
        console.status("starting") as status,
        Federation.open(path / "consilo.toml", None, status.update) as federation,
    ):
        status.stop()
        yield Stage(path, federation, data, console)


def _clear(path: Path) -> None:
    """Make room for the demo; replace an earlier one, and nothing else."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not (path / MARKER).exists():
        raise FederationError(f"{path} is there and is no earlier demo", "choose another directory with --out DIR")
    if _is_up(path / "consilo.toml"):
        raise FederationError(f"the demo in {path} is up", f"stop it: consilo down --federation {path}/consilo.toml")
    shutil.rmtree(path)


def _is_up(file: Path) -> bool:
    try:
        return is_up(read_config(file))
    except (FederationError, CryptoError):  # unfinished, or of another version
        return False
