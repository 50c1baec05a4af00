"""The demo's story: found a federation on real data, ask, be refused, look at what the aggregator holds."""

import shutil
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table

from analyst.client import Federation
from analyst.config import read_config
from analyst.demo import banks, hospitals, retailers
from analyst.demo.sector import Sector, found_sector
from analyst.errors import AnalystError, DeniedError, FederationError
from analyst.render import show_cell, show_conditions
from analyst.report import Estimate, Report
from analyst.simulate import is_up
from crypto.messages import EncryptedReport
from crypto.ring import Ring

SECTORS = {"hospitals": hospitals.SECTOR, "banks": banks.SECTOR, "retailers": retailers.SECTOR}
MARKER = ".consilo-demo"
EPSILON = 1.0
_NEXT = """
[bold]Yours now[/bold] ({seconds:.0f} s): the federation stays in {path}. Next, type
  consilo query "{question}" \\
      --federation {path}/consilo.toml --purpose {purpose} --epsilon 1
  consilo silos --federation {path}/consilo.toml
  consilo-silo ledger --policy {path}/silos/{silo}/policy.toml
  consilo-silo check-policy {path}/silos/{silo}/policy.toml"""


def tell(path: Path, sector: Sector, console: Console) -> None:
    """Found the sector's federation in `path` and tell its story; raises AnalystError or CryptoError."""
    began = time.monotonic()
    _clear(path)
    console.print(f"[bold]{sector.headline}[/bold]")
    found_sector(path, sector)
    (path / MARKER).write_text("made by `consilo demo`, which may replace this directory\n")
    data = sector.read()
    console.print(sector.intro.format(rows=f"{data.num_rows:,}"))
    console.print(
        "[yellow]Simulate mode:[/yellow] every silo is an actor in one Ray cluster on this machine.\n"
        "That is ONE trust domain: good for trying out, no protection between silos."
    )
    with (
        console.status("starting") as status,
        Federation.open(path / "consilo.toml", None, status.update) as federation,
    ):
        status.stop()
        _show_silos(federation, console)
        _ask(federation, sector, data, console)
        _be_refused(federation, sector, console)
    seconds = time.monotonic() - began
    console.print(
        _NEXT.format(
            path=path, seconds=seconds, question=sector.next_question, purpose=sector.purpose, silo=sector.silos[0]
        ),
        soft_wrap=True,
    )


def _clear(path: Path) -> None:
    """Make room for the demo; replace an earlier one, and nothing else."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not (path / MARKER).exists():
        raise FederationError(f"{path} is there and is no earlier demo", "choose another directory with --out DIR")
    if (path / "consilo.toml").exists() and is_up(read_config(path / "consilo.toml")):
        raise FederationError(f"the demo in {path} is up", f"stop it: consilo down --federation {path}/consilo.toml")
    shutil.rmtree(path)


def _show_silos(federation: Federation, console: Console) -> None:
    offer = federation.offer
    table = Table(title="1. The silos; each answers by its own policy file", title_justify="left", title_style="bold")
    for heading in ("silo", "policy", "purpose", "epsilon", "missing", "colluding"):
        table.add_column(heading)
    for silo, catalogue in offer.silos.items():
        policy_hash = catalogue.policy_hash.hex()[:8]
        table.add_row(silo, policy_hash, ", ".join(catalogue.purposes), *show_conditions(catalogue))
    console.print(table)
    first = next(iter(offer.silos.values())).tables[0]
    for role, text in (("dimension", "open to group by"), ("measure", "open to sum or average")):
        names = ", ".join(entry.column.name for entry in first.columns if role in entry.roles)
        console.print(f"{text}: {names}")


def _ask(federation: Federation, sector: Sector, data: Any, console: Console) -> None:
    console.print(f"\n[bold]2. A question[/bold] for {sector.purpose}, at epsilon {EPSILON:g}\n  {sector.question}")
    planned, request = federation.prepare(sector.question, purpose=sector.purpose, epsilon=EPSILON)
    encrypted = federation.submit(request)
    report = federation.open_answer(planned, request, encrypted)
    console.print(_beside_truth(report, sector, data))
    console.print(
        "the truth is known here only because this demo holds all the data"
        if sector.max_rows == 1
        else f"the truth (all rows) is known to this demo only; at most {sector.max_rows} a {sector.entity} entered"
    )
    withheld = ", ".join(str(value) for group in report.withheld_groups for value in group.values())
    console.print(f"in brackets: 95 % intervals; withheld, as its noisy count is too small: {withheld or 'none'}")
    console.print(f"cost to each {sector.entity}: epsilon {report.epsilon:.2f} at delta {report.delta:g}")
    _show_encrypted(report, encrypted, console)


def pooled_truth(sector: Sector, data: Any) -> dict[str, tuple[int | float | None, ...]]:
    """Return what the sector's question gives on all rows together, by group, without noise or bounds."""
    import duckdb  # heavy: only once a story is told

    counted = (pc.cast(column, pa.int8()) if pa.types.is_boolean(column.type) else column for column in data.columns)
    with duckdb.connect() as connection:
        connection.register(sector.table, pa.table(list(counted), data.column_names))  # AVG takes no bool in DuckDB
        return {group: tuple(values) for group, *values in connection.execute(sector.question).fetchall()}


def _beside_truth(report: Report, sector: Sector, data: Any) -> Table:
    table = Table()
    group_by, *aggregates = report.columns
    for heading in (group_by, *(heading for name in aggregates for heading in (name, "truth"))):
        table.add_column(heading, justify="right")
    truths = pooled_truth(sector, data)
    for row in report.rows:
        truth = truths.get(str(row[group_by]), (0,) + (None,) * (len(aggregates) - 1))
        cells = (show_cell(row[name]) for name in aggregates)
        known = (_known(value, sector.decimals) for value in truth)
        beside = (text for cell, value in zip(cells, known, strict=True) for text in (cell, f"[dim]{value}[/dim]"))
        table.add_row(str(row[group_by]), *beside)
    return table


def _known(value: int | float | None, decimals: int) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:,.{decimals}f}"


def _show_encrypted(report: Report, encrypted: bytes, console: Console) -> None:
    words = Ring(64).from_bytes(EncryptedReport.decode(encrypted).blinded_sum)
    name = f"{report.transcript[:16]}...report"
    console.print(f"\n[bold]3. What the aggregator holds[/bold]: {name}, {len(encrypted):,} bytes")
    shown = " ".join(f"{int(word):016x}" for word in words[:3])
    console.print(f"  its sum, blinded:     {shown} ...")
    group_by, count = report.columns[:2]
    counts = (
        f"{row[group_by]} {cell.value:.1f}" for row in report.rows[:3] if isinstance(cell := row[count], Estimate)
    )
    console.print(f"  opened by the analyst: {', '.join(counts)}, ...")


def _be_refused(federation: Federation, sector: Sector, console: Console) -> None:
    console.print(f"\n[bold]4. A refusal[/bold], before any row is read and at no cost\n  {sector.refused}")
    try:
        federation.query(sector.refused, purpose=sector.purpose, epsilon=EPSILON)
    except DeniedError as err:
        denial = next(iter(err.denials.values()))[0]
        console.print(f"  {len(err.denials)} silos: [red]{denial.code}[/red] by {denial.rule}")
        console.print(f"  {denial.message}\n  remedy: {denial.remedy}", soft_wrap=True)
    else:
        raise AnalystError("the demo's policies let a question pass that they must refuse")
