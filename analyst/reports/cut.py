"""What bounding cut: the share of persons who had rows left out, and of those who had a value clamped.

Estimated from one small statistic of four slots (`policies.requests.query.CUT`). Promise: an interval holds the true
share in 95 % of answers; one that is wider than WIDEST, before it is cut to 0 to 100 %, is not shown.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any

from analyst.reports.estimates import blocks_of, noise_sd
from analyst.reports.intervals import Z95, fieller
from crypto.rounds.opening import OpenedSum
from policies.domains import LongDomain
from policies.requests.expressions import worded
from policies.requests.query import CUT
from policies.requests.request import Request
from policies.requests.tables import TableColumn
from policies.units import counted

WIDEST = 0.2


@dataclass(frozen=True, slots=True)
class Share:
    """A share of persons, and its 95 % interval; all None where the interval is wider than WIDEST."""

    value: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Cut:
    """The shares of persons who had rows left out, and a value clamped; None where no value entered the question."""

    rows: Share
    values: Share | None

    def in_words(self) -> Iterator[str]:
        """Yield a sentence for each share."""
        yield _sentence(self.rows, "rows left out", "; how many rows is not known")
        if self.values is not None:
            yield _sentence(self.values, "a value clamped to its bounds", "; by how much is not known")

    def to_dict(self) -> dict[str, Any]:
        """Return the shares as plain values, with the sentences."""
        return {**asdict(self), "in_words": list(self.in_words())}


def cut_of(request: Request, opened: OpenedSum) -> Cut | None:
    """Return what an opened sum tells of what was cut; None where the request did not ask."""
    statistics = request.plan.statistics(request.table)
    if CUT not in statistics:
        return None
    has_values = any(one.column is not None and one.kind != "present" for one in statistics)
    blocks = zip(blocks_of(request, opened), opened.blocks(), strict=True)
    block, slots = next((block, values) for (statistic, block), values in blocks if statistic == CUT)
    nothing, rows, values, both = (float(one) for one in slots)
    variance = noise_sd(block, opened) ** 2
    of_rows = share_of(rows + both, nothing + values, variance)
    return Cut(of_rows, share_of(values + both, nothing + rows, variance) if has_values else None)


def share_of(cut: float, uncut: float, variance: float) -> Share:
    """Return the share cut / (cut + uncut), each the sum of two slots with noise of this variance in each slot.

    The interval is Fieller's (1954) of a quotient of two normal variables: all p for which cut - p * all is within
    1.96 of its deviations of 0. Their covariance is that both contain the same two slots.
    """
    everybody, of_two = cut + uncut, 2 * variance
    first, last = (float(end) for end in fieller(cut, everybody, (of_two, 2 * of_two), of_two, Z95))
    # Before it is cut to possible shares, or small shares were told more often.
    if everybody <= 0 or last - first > WIDEST:
        return Share()
    low, high = (min(max(end, 0.0), 1.0) for end in (first, last))
    return Share(min(max(cut / everybody, low), high), low, high)


def _sentence(share: Share, what: str, more: str) -> str:
    if share.value is None:
        return f"what share of persons had {what} cannot be told: the noise is too large"
    return f"{show_share(share)} of persons had {what}{more}"


def show_share(share: Share) -> str:
    """Return a share in per cent with its interval, such as `12 % (9 to 15)`."""
    if share.value is None or share.low is None or share.high is None:
        return "an unknown share"
    digits = 1 if share.high - share.low < 0.01 else 0
    value, low, high = (f"{100 * one:.{digits}f}" for one in (share.value, share.low, share.high))
    return f"{value} % ({low} to {high})"


def norm_in_words(max_norm: int | None) -> str:
    """Return what a sentence about a person's rows goes on with, where a norm bounds them too."""
    return "" if max_norm is None else f", of an L2 norm of at most {max_norm:,} over the groups"


def definition_of(request: Request, delta: float) -> dict[str, Any]:
    """Return the definition that an answer was given by, as plain values: bounds in the columns' own units."""
    table, plan = request.table, request.plan
    columns = {column.name: _column(column) for column in table.columns}
    norm = {} if table.max_norm is None else {"max_norm": table.max_norm}
    found = {
        "max_rows": table.max_rows,
        **norm,
        "max_silos": table.max_silos,
        "delta": delta,
        "columns": columns,
    }
    if table.beside:
        found["joined_with"] = list(table.beside)
    if plan.is_about_persons:
        found["persons"] = plan.rows_in_words(table)
    if plan.inner is not None:
        own = plan.inner.table(table).columns
        found["inner"] = {column.name: _column(column) for column in own}
    if plan.derived:
        seen = plan.seen(table)
        found["derived"] = {worded(one.expression): _column(seen.column(one.name)) for one in plan.derived}
    return found


def _column(column: TableColumn) -> dict[str, Any]:
    found: dict[str, Any] = {"type": column.type}
    if column.low is not None and column.high is not None and column.type != "bool":
        step = Decimal(column.step or "1")
        found |= {"bounds": [_number(column.low * step), _number(column.high * step)], "step": _number(step)}
    if column.low is not None:
        found["can_be_missing"] = column.can_be_missing
    if isinstance(column.domain, LongDomain):
        found["domain"] = f"{column.domain.size:,} values, {column.domain.name}"
    elif column.domain:
        found["domain"] = list(column.domain)
    return found


def _number(value: Decimal) -> int | float:
    return int(value) if value == value.to_integral_value() else float(value)


def _defined(definition: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield every definition of a column, of a figure of a person, and of a measure derived of a row."""
    for kind in ("columns", "inner", "derived"):
        yield from definition.get(kind, {}).items()


def definition_in_words(definition: Mapping[str, Any]) -> str:
    """Return a definition in a line: what bounds a person's part, and every column that the question used."""
    rows = definition["max_rows"]
    persons = definition.get("persons")
    of_rows = f"at most {counted(rows, 'row')} of each person{norm_in_words(definition.get('max_norm'))}"
    parts = [f"each person has {persons}" if persons else of_rows]
    if joined := definition.get("joined_with"):
        parts.append(f"each row beside its person's row of {', '.join(joined)}")
    for name, column in _defined(definition):
        if "bounds" in column:
            low, high = column["bounds"]
            step = "" if column["step"] == 1 else f" by {column['step']:g}"
            parts.append(f"{name} {low:,} to {high:,}{step}")
        if isinstance(domain := column.get("domain"), str):
            parts.append(f"{name} one of {domain[:40]}...")
        elif domain:
            shown = ", ".join(domain[:5]) + (", ..." if len(domain) > 5 else "")
            parts.append(f"{name} one of {len(domain):,} ({shown})")
    return f"{'; '.join(parts)}; delta {definition['delta']:g}"
