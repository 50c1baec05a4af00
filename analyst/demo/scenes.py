"""The scenes of the demo's stories, each from a real run: an answer with the truth, a refusal, a withdrawn consent.

Every printed figure comes from the open federation, or from the data that only the demo has. Scenes show the owner's
view with the owner's command, run as a process, as the analyst's side never imports the silo's.
"""

import json
import subprocess
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich import box
from rich.console import Console
from rich.table import Table

from analyst.client import Federation
from analyst.demo.sector import Sector, write_decisions
from analyst.errors import AnalystError, DeniedError
from analyst.reports.cut import show_share
from analyst.reports.estimates import Estimate
from analyst.reports.render import show_cell, show_conditions
from analyst.reports.report import Report
from analyst.training.job import read_job
from analyst.training.run import train
from crypto.ring import Ring
from crypto.rounds.report import StoredReport
from federation.files import replace_file

EPSILON = 1.0  # of the questions that only count
OWNER_TIMEOUT_S = 60
_WIDTH = 80


@dataclass(frozen=True, slots=True)
class Stage:
    """The stage of a story: an open federation, all of its data, and the screen."""

    path: Path
    federation: Federation
    data: Mapping[str, Any]  # all rows of a sector, as a pyarrow.Table, by its kind
    console: Console


def show_silos(stage: Stage, sector: Sector, part: int) -> None:
    """Show what each silo of one sector opens, and its conditions."""
    offer = stage.federation.offer
    table = Table(
        title=f"{part}. The silos; each answers by its own policy file", title_justify="left", title_style="bold"
    )
    for heading in ("silo", "policy", "purpose", "epsilon", "missing", "colluding"):
        table.add_column(heading)
    for silo, catalogue in offer.silos.items():
        policy_hash = catalogue.policy_hash.hex()[:8]
        purposes = ", ".join(name for name in catalogue.purposes if name not in sector.more_purposes)
        table.add_row(silo, policy_hash, purposes, *show_conditions(catalogue))
    stage.console.print(table)
    holders = list(offer.holders(sector.table).values())
    for role, text in (("dimension", "open to group by"), ("measure", "open to sum or average")):
        names = ", ".join(name for name, entry in holders[0].items() if role in entry.roles)
        stage.console.print(f"{text}: {names}")


def show_sectors(stage: Stage, sectors: tuple[Sector, ...], part: int) -> None:
    """Show which silos have which table, and their conditions."""
    offer = stage.federation.offer
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for heading in ("sector", "silos", "table", "purposes"):
        table.add_column(heading)
    conditions: dict[tuple[str, str, str], None] = {}
    for sector in sectors:
        catalogues = [offer.silos[silo] for silo in offer.holders(sector.table)]
        purposes = dict.fromkeys(purpose for one in catalogues for purpose in one.purposes)
        table.add_row(sector.kind, ", ".join(offer.holders(sector.table)), sector.table, "\n".join(purposes))
        conditions |= {show_conditions(one): None for one in catalogues}
    stage.console.print(f"\n[bold]{part}. The silos[/bold]; each answers by its own policy file")
    stage.console.print(table)
    for epsilon, missing, colluding in conditions:
        stage.console.print(f"each: epsilon {epsilon} a request, {missing} may drop out, {colluding} may collude")


def ask(stage: Stage, sector: Sector, part: int) -> tuple[Report, bytes]:
    """Ask one sector's question and show the answer with the truth; return the answer and its encrypted report."""
    stage.console.print(
        f"\n[bold]{part}. A question[/bold] for {sector.purpose}, at epsilon {sector.epsilon:g}\n  {sector.question}"
    )
    report, encrypted = _answer(stage, sector)
    stage.console.print(beside_truth(report, sector, stage.data[sector.kind], Table()))
    stage.console.print(
        "the truth is known here only because this demo holds all the data"
        if sector.max_rows == 1
        else f"the truth (all rows) is known to this demo only; at most {sector.max_rows} a {sector.entity} entered"
    )
    _show_cut(stage, report, sector)
    withheld = ", ".join(str(value) for group in report.withheld_groups for value in group.values())
    stage.console.print(f"in brackets: 95 % intervals; withheld, as its noisy count is too small: {withheld or 'none'}")
    stage.console.print(f"cost to each {sector.entity}: epsilon {report.epsilon:.2f} at delta {report.delta:g}")
    return report, encrypted


def ask_each(stage: Stage, sectors: tuple[Sector, ...], part: int) -> tuple[Report, bytes]:
    """Ask each sector's question and show the answers with the truth; return the first one as `ask` does."""
    stage.console.print(f"\n[bold]{part}. A question to each sector[/bold]; in brackets: 95 % intervals")
    answers = []
    for sector in sectors:
        answers.append(_answer(stage, sector))
        price = f"{sector.kind}s: for {sector.purpose}, at epsilon {sector.epsilon:g} to each {sector.entity}"
        table = Table(box=box.SIMPLE_HEAD, show_edge=False)
        beside_truth(answers[-1][0], sector, stage.data[sector.kind], table)
        stage.console.print(f"{price}\n  {sector.question}", table, sep="\n")
    stage.console.print("the truth is known here only because this demo holds all the data")
    for sector, (report, _) in zip(sectors, answers, strict=True):
        _show_cut(stage, report, sector)
    return answers[0]


def _show_cut(stage: Stage, report: Report, sector: Sector) -> None:
    """Show what an answer itself says of rows left out and values clamped, where a person can have several rows."""
    cut = report.cut
    if sector.max_rows > 1 and cut is not None and cut.values is not None:
        shares = show_share(cut.rows), show_share(cut.values)
        stage.console.print("of persons {} had rows cut, {} a value clamped".format(*shares))


def _answer(stage: Stage, sector: Sector) -> tuple[Report, bytes]:
    planned, request = stage.federation.prepare(sector.question, purpose=sector.purpose, epsilon=sector.epsilon)
    encrypted = stage.federation.submit(request)
    return stage.federation.open_answer(planned, request, encrypted), encrypted


def pooled_truth(sector: Sector, data: Any) -> dict[str, tuple[int | float | None, ...]]:
    """Return the answer to the sector's question on all rows together, by group, without noise or bounds."""
    import duckdb  # slow to import: only for a story

    counted = (pc.cast(column, pa.int8()) if pa.types.is_boolean(column.type) else column for column in data.columns)
    with duckdb.connect() as connection:
        connection.register(sector.table, pa.table(list(counted), data.column_names))  # AVG takes no bool in DuckDB
        return {group: tuple(values) for group, *values in connection.execute(sector.question).fetchall()}


def beside_truth(report: Report, sector: Sector, data: Any, table: Table) -> Table:
    """Fill the table with the answer, each figure next to the true one, and return it."""
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


def show_encrypted(stage: Stage, report: Report, encrypted: bytes, part: int) -> None:
    """Show the aggregator's encrypted report, and the checks that the analyst made on it."""
    words = Ring(64).from_bytes(StoredReport.decode(encrypted).blinded_sum)
    name = f"{report.transcript[:16]}...report"
    stage.console.print(f"\n[bold]{part}. What the aggregator holds[/bold]: {name}, {len(encrypted):,} bytes")
    shown = " ".join(f"{int(word):016x}" for word in words[:3])
    stage.console.print(f"  its sum, blinded:     {shown} ...")
    group_by, count = report.columns[:2]
    counts = (
        f"{row[group_by]} {cell.value:.1f}" for row in report.rows[:3] if isinstance(cell := row[count], Estimate)
    )
    stage.console.print(f"  opened by the analyst: {', '.join(counts)}, ...")


def be_refused(stage: Stage, sector: Sector, part: int) -> None:
    """Show a refused question, with the rule and the remedy; raises AnalystError if silos do not refuse."""
    stage.console.print(f"\n[bold]{part}. A refusal[/bold], before any row is read and at no cost\n  {sector.refused}")
    _show_refusal(stage, sector.refused, sector.purpose, sector.epsilon)


def withdraw(stage: Stage, sector: Sector, silo: str, part: int) -> str:
    """Show how one person withdraws consent at `silo`, and the next question; return the person's id.

    The demo acts as the silo's operator: it rewrites the file of decisions. Raises AnalystError.
    """
    home = stage.path / "silos" / silo
    people = _people(stage, sector, [silo])
    person = people[0]
    command = ("consent", "--policy", f"{home}/policy.toml")
    stage.console.print(
        f"\n[bold]{part}. A consent withdrawn[/bold]; first, what only {silo} itself can see\n"
        f"  $ consilo-silo {' '.join(command)}",
        soft_wrap=True,
    )
    before = _owner_sees(*command)
    _print_lines(stage, before[1:])
    now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    write_decisions(home, sector, {one: now if one == person else None for one in people})
    stage.console.print(f"{person} withdraws; the same, with --person {person}")
    _print_lines(stage, [line for line in _owner_sees(*command, "--person", person)[1:] if line not in before])
    report = _count(stage, sector)
    everybody = _people(stage, sector, sector.silos)
    stage.console.print(
        f"and what an analyst sees, on the very next question\n  {sector.counting}\n"
        f"  {show_cell(report.rows[0]['n'])}; in truth {len(everybody)} before,"
        f" {len(everybody) - everybody.count(person)} now\n"
        f"The noise is larger than one {sector.entity}: no answer shows who left."
    )
    return person


def run_out(stage: Stage, sector: Sector, purpose: str, part: int) -> None:
    """Show how a purpose's budget allows one question and not the next; raises AnalystError if it allows both."""
    stage.console.print(
        f"\n[bold]{part}. A budget that runs out[/bold]: the monthly one for {purpose}\n  {sector.counting}"
    )
    report = stage.federation.query(sector.counting, purpose=purpose, epsilon=EPSILON)
    stage.console.print(f"  {show_cell(report.rows[0]['n'])} at epsilon {EPSILON:g}; the same once more:")
    _show_refusal(stage, sector.counting, purpose, EPSILON)


def drop_out(stage: Stage, sector: Sector, silo: str, person: str, part: int) -> Report:
    """Show an answer that opens although a silo cannot read its rows; return that answer.

    The silo's data file is away during the question: it finds that before anything is charged, and takes no part.
    `person` has withdrawn consent before.
    """
    file = stage.path / "silos" / silo / f"{sector.table}.parquet"
    away = file.with_suffix(".away")
    stage.console.print(
        f"\n[bold]{part}. A silo that cannot take part[/bold]\n"
        f"  the {file.name} of {silo} is away; nothing is charged there\n  {sector.counting}"
    )
    file.rename(away)
    try:
        report = _count(stage, sector)
    finally:
        away.rename(file)
    by_status: dict[str, list[str]] = {}
    for name, outcome in report.silos.items():
        by_status.setdefault(outcome.status, []).append(name)
    stage.console.print("  " + "; ".join(f"{status}: {', '.join(names)}" for status, names in by_status.items()))
    answered = by_status.get("answered", [])
    people = _people(stage, sector, answered)
    truth = len(people) - people.count(person)
    stage.console.print(f"  {show_cell(report.rows[0]['n'])}; in truth {truth} at the {len(answered)} that answered")
    return report


def _people(stage: Stage, sector: Sector, silos: Sequence[str]) -> list[str]:
    """Return the person's id of each row of these silos."""
    tables = sector.split(stage.data[sector.kind])
    return [str(person) for silo in silos for person in tables[silo][f"{sector.entity}_id"].to_pylist()]


def _count(stage: Stage, sector: Sector) -> Report:
    return stage.federation.query(sector.counting, purpose=sector.purpose, epsilon=EPSILON)


def _show_refusal(stage: Stage, sql: str, purpose: str, epsilon: float) -> None:
    try:
        stage.federation.query(sql, purpose=purpose, epsilon=epsilon)
    except DeniedError as err:
        denial = next(iter(err.denials.values()))[0]
        stage.console.print(f"  {len(err.denials)} silos: [red]{denial.code}[/red] by {denial.rule}")
        _print_lines(stage, [denial.message, f"remedy: {denial.remedy}"])
    else:
        raise AnalystError("the demo's policies let a question pass that they must refuse")


def _print_lines(stage: Stage, lines: list[str]) -> None:
    """Print lines of another party as plain text, indented and folded to the screen."""
    for line in lines:
        inner = line.lstrip()
        indent = " " * (max(2, len(line) - len(inner)))
        stage.console.print(
            textwrap.fill(inner, _WIDTH, initial_indent=indent, subsequent_indent=indent), markup=False, soft_wrap=True
        )


def learn(stage: Stage, sector: Sector, job: str, part: int) -> None:
    """Show a model trained across a sector's silos, as an owner sees it, with the fit on all their rows."""
    file = stage.path / "job.toml"
    replace_file(file, job.encode())
    training = train(stage.federation, read_job(file))
    policy = str(stage.path / "silos" / training.holders[0] / "policy.toml")
    model = json.loads("\n".join(_owner_sees("models", "--policy", policy, "--format", "json")))[-1]
    stage.console.print(
        f"\n[bold]{part}. A model[/bold]: log-odds of {model['label']}, in {training.steps} rounds of {file.name}"
    )
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for heading in ("", f"at {training.holders[0]}", "fit on all rows together"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, pooled in pooled_fit(stage.data[sector.kind]).items():
        table.add_row(name, f"{model['coefficients'][name]:.2f}", f"{pooled:.2f}")
    stage.console.print(table)
    stage.console.print(
        f"{len(training.holders)} banks hold it; neither analyst nor aggregator saw a gradient or a model.\n"
        f"cost to each {sector.entity}: epsilon {training.epsilon:.2f}, for all rounds together"
    )


def pooled_fit(loans: Any) -> dict[str, float]:
    """Return the log-odds of approval that Newton's method fits to all rows, with debt_ratio clamped to 20 to 60."""
    races = loans["race"].to_numpy()
    terms = {
        "(intercept)": np.ones(len(races)),
        **{f"race = {race}": (races == race).astype(float) for race in ("hispanic", "white")},
        "debt_ratio": np.clip(loans["debt_ratio"].to_numpy(), 20, 60),
        "bankrupt": loans["bankrupt"].to_numpy().astype(float),
    }
    inputs, label = np.stack(list(terms.values()), 1), loans["approved"].to_numpy().astype(float)
    weights = np.zeros(len(terms))
    for _ in range(25):
        chance = 1 / (1 + np.exp(-inputs @ weights))
        curvature = (inputs * (chance * (1 - chance))[:, None]).T @ inputs
        weights -= np.linalg.solve(curvature, inputs.T @ (chance - label))
    return dict(zip(terms, map(float, weights), strict=True))


def _owner_sees(*arguments: str) -> list[str]:
    """Return the lines of the owner's own command; raises AnalystError if it fails."""
    command = [sys.executable, "-P", "-m", "silo_node.owner.cli", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=OWNER_TIMEOUT_S, check=True)  # noqa: S603
    except subprocess.TimeoutExpired as err:
        raise AnalystError(f"`consilo-silo {arguments[0]}` took more than {OWNER_TIMEOUT_S} s", "try again") from err
    except subprocess.CalledProcessError as err:
        reason = (err.stderr.strip().splitlines() or ["no reason"])[-1]
        raise AnalystError(f"`consilo-silo {arguments[0]}` failed", reason) from err
    return done.stdout.splitlines()
