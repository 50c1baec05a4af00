"""Print a report as a table, JSON or CSV, and print what the silos offer."""

import csv
import io
import math
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path

from rich.console import Console
from rich.table import Table

from analyst.reports.derived import Cell
from analyst.reports.estimates import Estimate, Threshold
from analyst.reports.report import Report, between
from analyst.reports.table import Answered
from analyst.sql.offer import Offer, rows_in_words
from federation.terminal import plain
from policies.budget.accountant import epsilon_of
from policies.budget.sampler import rho_delta
from policies.domains import LongDomain
from policies.requests.cases import NULL
from policies.requests.catalogue import Catalogue, OpenTable
from policies.requests.tables import TableColumn
from policies.units import MICRO, counted

FORMATS = ("table", "json", "csv")
MAX_SHOWN = 1000  # rows of a table, and withheld groups below it


def render(report: Report, form: str) -> str:
    """Return the report as text in one of FORMATS."""
    return {"json": _as_json, "csv": _as_csv, "table": _as_table}[form](report)


def _as_json(report: Report) -> str:
    return report.to_json() + "\n"


def _as_csv(report: Report) -> str:
    if report.tables:
        return "\n".join(f"# statement {place}\n{_csv(table)}" for place, table in enumerate(report.tables, 1))
    return _csv(report)


def csv_files(report: Report, out: Path) -> dict[Path, str]:
    """Return what is written where as CSV: of several statements a file for each, `answer.1.csv` and so on."""
    if not report.tables:
        return {out: _csv(report)}
    named = (out.with_name(f"{out.stem}.{place}{out.suffix}") for place in range(1, len(report.tables) + 1))
    return dict(zip(named, map(_csv, report.tables), strict=True))


def _csv(table: Report | Answered) -> str:
    text, records = io.StringIO(), table.to_records()
    for note in table.notes():
        text.write(f"# {note}\n")
    # What follows a comment's mark in quotes is none.
    looks_noted = any(str(cell).startswith("#") for record in records for cell in (*record, *record.values()))
    names = table.field_names()
    if looks_noted:
        writer = csv.DictWriter(text, names, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    else:
        writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def _as_table(report: Report) -> str:
    text = io.StringIO()
    _print_report(report, Console(highlight=False, markup=False, file=text, width=Console().width))
    return text.getvalue()


def _print_table(shown: Report | Answered, console: Console) -> None:
    table = Table()
    for name in shown.columns:
        table.add_column(name, justify="right")
    for row in shown.rows[:MAX_SHOWN]:
        table.add_row(*(show_cell(row[name]) for name in shown.columns))
    console.print(table)
    if (more := len(shown.rows) - MAX_SHOWN) > 0:
        console.print(f"{more:,} more rows; --format csv and json have all of them")
    for group in shown.withheld_groups[:MAX_SHOWN]:
        named = (
            ", ".join(f"{name} = {NULL if value is None else value}" for name, value in group.items())
            or "the whole table"
        )
        console.print(f"withheld: {plain(named)} (its noisy count is below {_least(shown.threshold)})")
    if (more := len(shown.withheld_groups) - MAX_SHOWN) > 0:
        console.print(f"withheld: {more:,} more groups; --format json lists all of them")
    if (threshold := shown.threshold).sure:
        console.print(
            f"shown are groups with a noisy count of {_least(threshold)} or more, which surely have the silos' minimum"
            f" cohort of {threshold.min_cohort:,}; --no-sure shows those of {threshold.min_cohort:,} or more"
        )
    for note in shown.notes():
        console.print(note)


def _print_report(report: Report, console: Console) -> None:
    if not report.tables:
        _print_table(report, console)
    for place, table in enumerate(report.tables, 1):
        console.print(f"statement {place}, {table.rho / report.rho if report.rho else 0:.1%} of the price")
        _print_table(table, console)
    by_status: dict[str, list[str]] = {}
    for silo, outcome in report.silos.items():
        by_status.setdefault(outcome.status, []).append(silo)
    for status, silos in by_status.items():
        console.print(f"{status}: {', '.join(silos)}")
    times = [outcome.consent_as_of for outcome in report.silos.values() if outcome.consent_as_of is not None]
    if times:
        console.print(f"consent as of {between(times)}")
    times = [outcome.rows_as_of for outcome in report.silos.values() if outcome.rows_as_of is not None]
    if times:
        console.print(f"rows of {counted(len(times), 'silo')} as of {between(times)}")
    for silo, outcome in report.silos.items():
        for denial in outcome.denials:
            console.print(plain(f"  {silo}: {denial.code} ({denial.rule}): {denial.message}; {denial.remedy}"))
    console.print(
        f"cost per person: epsilon {report.epsilon:.3g} at delta {report.delta:g} (rho {report.rho:.4g});"
        " in brackets: 95 % intervals of the noise"
    )
    for silo, why in report.wrong.items():
        console.print(plain(f"{silo} sent something wrong, which was left out: {why}"))
    console.print(f"transcript {report.transcript}")


def _least(threshold: Threshold) -> str:
    """Return a threshold, which without --sure is a whole number that the silos' policies have."""
    if threshold.sure:
        return f"{threshold.noisy_count:,.1f}"
    return f"{threshold.min_cohort:,}, the silos' minimum cohort"


def show_cell(cell: Cell) -> str:
    """Return a figure with its 95 % interval in brackets, with as many digits as the noise allows."""
    if cell is None:
        return NULL
    if not isinstance(cell, Estimate):
        return plain(str(cell).lower() if isinstance(cell, bool) else str(cell))
    if cell.value is None or cell.sd is None or cell.low is None or cell.high is None:
        return "too noisy"
    figures = (cell.value, cell.low, cell.high)
    is_whole = all(one == round(one) for one in figures)
    value, low, high = (f"{one:,.{0 if is_whole else _decimals(cell.sd)}f}" for one in figures)
    return f"{value} ({low} to {high})"


def _decimals(sd: float) -> int:
    if sd >= 0.5 or sd == 0:
        return 0 if sd >= 5 else 1 if sd else 3
    return 3 if sd >= 0.005 else min(9, 1 - math.floor(math.log10(sd)))


def show_conditions(catalogue: Catalogue) -> tuple[str, str, str]:
    """Return a silo's limit of epsilon for one request, and how many silos may be missing and may collude."""
    epsilon = epsilon_of(catalogue.max_micro_rho / MICRO, rho_delta(float(catalogue.delta)))
    return f"up to {epsilon:.1f}", f"up to {catalogue.max_missing}", f"up to {catalogue.max_colluding}"


def print_offer(offer: Offer, silos: Iterable[str], console: Console) -> None:
    """Print the silos with their conditions, and for each table the columns that all of its silos open."""
    table = Table(title="Silos", title_justify="left")
    for heading in ("silo", "policy", "purposes", "tables", "epsilon", "missing", "colluding"):
        table.add_column(heading, no_wrap=heading == "purposes")
    for silo in silos:
        catalogue = offer.silos.get(silo)
        if catalogue is None:
            table.add_row(silo, "not reachable, or not open to you")
            continue
        table.add_row(
            silo,
            f"v{catalogue.policy_version} {catalogue.policy_hash.hex()[:8]}",
            "\n".join(catalogue.purposes),
            ", ".join(map(_named, catalogue.tables)),
            *show_conditions(catalogue),
        )
    console.print(table)
    for name in offer.tables:
        columns = Table(title=_titled(name, offer), title_justify="left")
        for heading in ("column", "open as", "values"):
            columns.add_column(heading)
        holders = offer.holders(name).values()
        for column in offer.columns(name):
            roles = [
                role for role in next(iter(holders))[column].roles if all(role in one[column].roles for one in holders)
            ]
            unit = next(iter(holders))[column].unit
            columns.add_row(column, ", ".join(roles), plain(_values(offer.column(name, column), unit)))
        console.print(columns)
        for column in offer.columns(name):
            shapes = {one[column].keys for one in holders}
            if None not in shapes:
                console.print(f"{column}: {' or '.join(shape.in_words for shape in shapes if shape is not None)}")
        if persons := offer.persons(name):
            console.print(f"persons: COUNT(DISTINCT {persons[0]}), or inside GROUP BY {persons[0]}")


def _titled(name: str, offer: Offer) -> str:
    """Return the title of a table: with what bounds a person's rows, where a norm does, or whether it can be joined."""
    holders = [offer.silos[silo] for silo in offer.holders(name)]
    has_norm = any(one.max_norm is not None for one in holders)
    said = [" or ".join(dict.fromkeys(map(rows_in_words, holders)))] if has_norm else []
    if all(one.one_row for silo in holders for one in silo.tables if one.name == name):
        said.append("one row of each person, which other tables can be joined with")
    return f"Table {name}{': ' if said else ''}{'; '.join(said)}"


def _named(table: OpenTable) -> str:
    """Return a table's name, with the rows that its silo's declared time is for."""
    return table.name if table.rows_up_to is None else f"{table.name} (up to {counted(table.rows_up_to, 'row')})"


def _values(column: TableColumn, unit: str | None) -> str:
    if isinstance(column.domain, LongDomain):
        return f"{column.domain.size:,} values, {column.domain.name[:15]}..."
    if column.domain:
        return ", ".join(column.domain)
    if column.low is None or column.high is None or column.step is None or column.type == "bool":
        return column.type
    low, high = (float(bound * Decimal(column.step)) for bound in (column.low, column.high))
    shape = f", each of shape {list(column.shape)}" if column.shape else ""
    return f"{low:g} to {high:g}{f' {unit}' if unit else ''}{shape}"
