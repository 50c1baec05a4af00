"""The demo's story: found a federation on real data, ask, be refused, look at what the aggregator holds."""

import shutil
import time
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table

from analyst.client import Federation
from analyst.config import read_config
from analyst.demo.hospitals import PURPOSE, found_hospitals, read_lung
from analyst.errors import AnalystError, DeniedError, FederationError
from analyst.render import show_cell
from analyst.report import Estimate, Report
from analyst.simulate import is_up
from crypto.messages import EncryptedReport
from crypto.ring import Ring
from policies.accountant import epsilon_of
from policies.model import MICRO

MARKER = ".consilo-demo"
QUESTION = "SELECT sex, COUNT(*) AS n, AVG(age) AS mean_age FROM lung GROUP BY sex"
REFUSED = "SELECT COUNT(*) AS n FROM lung WHERE weight_loss > 20"
EPSILON = 1.0
_NEXT = """
[bold]Yours now[/bold] ({seconds:.0f} s): the federation stays in {path}. Next, type
  consilo query "SELECT sex, COUNT(*) AS n, SUM(died) AS deaths FROM lung GROUP BY sex" \\
      --federation {path}/consilo.toml --purpose health-research --epsilon 1
  consilo silos --federation {path}/consilo.toml
  consilo-silo ledger --policy {path}/silos/aspen/policy.toml
  consilo-silo check-policy {path}/silos/aspen/policy.toml"""


def tell(path: Path, console: Console) -> None:
    """Found the demo's federation in `path` and tell its story; raises AnalystError or CryptoError."""
    began = time.monotonic()
    _clear(path)
    console.print("[bold]Five hospitals, one question, no patient record moves[/bold]")
    found_hospitals(path)
    (path / MARKER).write_text("made by `consilo demo`, which may replace this directory\n")
    lung = read_lung()
    console.print(
        f"The NCCTG lung cancer trial: {lung.num_rows} real records. Its 18 institutions are grouped\n"
        "into five silos for this demo; that grouping is artificial."
    )
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
        _ask(federation, lung, console)
        _be_refused(federation, console)
    console.print(_NEXT.format(path=path, seconds=time.monotonic() - began), soft_wrap=True)


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
        epsilon = epsilon_of(catalogue.max_micro_rho / MICRO, float(catalogue.delta))
        table.add_row(
            silo,
            catalogue.policy_hash.hex()[:8],
            ", ".join(catalogue.purposes),
            f"up to {epsilon:.1f}",
            f"up to {catalogue.max_missing}",
            f"up to {catalogue.max_colluding}",
        )
    console.print(table)
    first = next(iter(offer.silos.values())).tables[0]
    for role, text in (("dimension", "open to group by"), ("measure", "open to sum or average")):
        names = ", ".join(entry.column.name for entry in first.columns if role in entry.roles)
        console.print(f"{text}: {names}")


def _ask(federation: Federation, lung: Any, console: Console) -> None:
    console.print(f"\n[bold]2. A question[/bold] for {PURPOSE}, at epsilon {EPSILON:g}\n  {QUESTION}")
    planned, request = federation.prepare(QUESTION, purpose=PURPOSE, epsilon=EPSILON)
    encrypted = federation.submit(request)
    report = federation.open_answer(planned, request, encrypted)
    console.print(_beside_truth(report, lung))
    console.print("the truth is known here only because this demo holds all the data")
    withheld = ", ".join(str(value) for group in report.withheld_groups for value in group.values())
    console.print(f"in brackets: 95 % intervals; withheld, as its noisy count is too small: {withheld or 'none'}")
    console.print(f"cost to each patient: epsilon {report.epsilon:.2f} at delta {report.delta:g}")
    _show_encrypted(report, encrypted, console)


def _beside_truth(report: Report, lung: Any) -> Table:
    table = Table()
    for heading in ("sex", "n", "truth", "mean_age", "truth"):
        table.add_column(heading, justify="right")
    for row in report.rows:
        ages = lung.filter(pc.equal(lung["sex"], str(row["sex"])))["age"]
        truths = (f"{len(ages)}", f"{pc.mean(ages).as_py():.1f}" if len(ages) else "-")
        cells = (show_cell(row[name]) for name in ("n", "mean_age"))
        beside = (text for cell, truth in zip(cells, truths, strict=True) for text in (cell, f"[dim]{truth}[/dim]"))
        table.add_row(str(row["sex"]), *beside)
    return table


def _show_encrypted(report: Report, encrypted: bytes, console: Console) -> None:
    words = Ring(64).from_bytes(EncryptedReport.decode(encrypted).blinded_sum)
    name = f"{report.transcript[:16]}...report"
    console.print(f"\n[bold]3. What the aggregator holds[/bold]: {name}, {len(encrypted):,} bytes")
    shown = " ".join(f"{int(word):016x}" for word in words[:3])
    console.print(f"  its sum, blinded:     {shown} ...")
    counts = (f"{row['sex']} {cell.value:.1f}" for row in report.rows if isinstance(cell := row["n"], Estimate))
    console.print(f"  opened by the analyst: {', '.join(counts)}, ...")


def _be_refused(federation: Federation, console: Console) -> None:
    console.print(f"\n[bold]4. A refusal[/bold], before any row is read and at no cost\n  {REFUSED}")
    try:
        federation.query(REFUSED, purpose=PURPOSE, epsilon=EPSILON)
    except DeniedError as err:
        denial = next(iter(err.denials.values()))[0]
        console.print(f"  {len(err.denials)} silos: [red]{denial.code}[/red] by {denial.rule}")
        console.print(f"  {denial.message}\n  remedy: {denial.remedy}", soft_wrap=True)
    else:
        raise AnalystError("the demo's policies let a question pass that they must refuse")
