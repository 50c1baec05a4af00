"""How a person or a program reads a report: a table, JSON or CSV."""

import csv
import io

from rich.console import Console
from rich.table import Table

from analyst.report import Estimate, Report

FORMATS = ("table", "json", "csv")


def render(report: Report, form: str) -> str:
    """Return the report as text in one of FORMATS."""
    return {"json": _as_json, "csv": _as_csv, "table": _as_table}[form](report)


def _as_json(report: Report) -> str:
    return report.to_json() + "\n"


def _as_csv(report: Report) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, report.field_names(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(report.to_records())
    return text.getvalue()


def _as_table(report: Report) -> str:
    text = io.StringIO()
    _print_report(report, Console(highlight=False, file=text, width=Console().width))
    return text.getvalue()


def _print_report(report: Report, console: Console) -> None:
    table = Table()
    for name in report.columns:
        table.add_column(name, justify="right")
    for row in report.rows:
        table.add_row(*(show_cell(row[name]) for name in report.columns))
    console.print(table)
    for group in report.withheld_groups:
        shown = ", ".join(f"{name} = {value}" for name, value in group.items()) or "the whole table"
        console.print(f"withheld: {shown} (its noisy count is below the silos' minimum cohort)")
    by_status: dict[str, list[str]] = {}
    for silo, outcome in report.silos.items():
        by_status.setdefault(outcome.status, []).append(silo)
    for status, silos in by_status.items():
        console.print(f"{status}: {', '.join(silos)}")
    for silo, outcome in report.silos.items():
        for denial in outcome.denials:
            console.print(f"  {silo}: {denial.code} ({denial.rule}): {denial.message}; {denial.remedy}")
    console.print(
        f"cost per person: epsilon {report.epsilon:.3g} at delta {report.delta:g} (rho {report.rho:.4g});"
        " in brackets: 95 % intervals of the noise"
    )
    console.print(f"transcript {report.transcript[:32]}")


def show_cell(cell: Estimate | str | int) -> str:
    """Return a figure with its 95 % interval in brackets, with as many digits as the noise leaves."""
    if not isinstance(cell, Estimate):
        return str(cell)
    if cell.value is None or cell.sd is None or cell.low is None or cell.high is None:
        return "too noisy"
    return f"{_figure(cell.value, cell.sd)} ({_figure(cell.low, cell.sd)} to {_figure(cell.high, cell.sd)})"


def _figure(value: float, sd: float) -> str:
    return f"{value:,.0f}" if sd >= 5 else f"{value:,.1f}" if sd >= 0.5 else f"{value:,.3f}"
