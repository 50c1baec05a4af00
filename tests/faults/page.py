"""The page docs/faults.md: the table of verdicts, between its marks."""

import re
from collections.abc import Iterable, Sequence

from tests.bench.figures import ROOT
from tests.faults.judge import WORDS, Result, Verdict
from tests.faults.table import AFTER, BEFORE, EVIDENCE, FAULTS, Fault, State

PAGE = ROOT / "docs" / "faults.md"
LETTERS: dict[Result, str] = {
    "answer": "A",
    "without": "W",
    "noise": "N",
    "again": "S",
    "error": "E",
    "charged": "C",
}
STATES = (*BEFORE, EVIDENCE)


def put(name: str, text: str) -> None:
    """Replace what stands between two marks of the page."""
    page = PAGE.read_text()
    before, mark, after = page.partition(f"<!-- figures: {name} -->\n")
    _, end, rest = after.partition("<!-- end -->")
    assert mark, name
    assert end, name
    PAGE.write_text(before + mark + text + "\n" + end + rest)


def table(verdicts: Sequence[Verdict]) -> str:
    """Return the verdicts, a row for each fault, and then all that is not met."""
    found = {(one.case.fault, one.case.state): one for one in verdicts}
    lines = ["; ".join(f"{letter}: {WORDS[result]}" for result, letter in LETTERS.items()) + "."]
    lines += ["The number is the seconds until the analyst was told; `!` is not met.", ""]
    lines += _rows(found, FAULTS, STATES)
    lines += ["", "A silo that is killed after a step, before its reply leaves:", ""]
    lines += _rows(found, [one for one in FAULTS if str(one) == "silo: kill -9"], AFTER)
    wrong = [one for one in verdicts if one.wrong]
    lines += ["", f"{len(verdicts) - len(wrong)} of {len(verdicts)} cases are met.", *worst(verdicts)]
    if wrong:
        lines += ["", "Not met:", ""]
        lines += [f"* {one.case}: {'; '.join(one.wrong)}. Told: {one.text[:300] or 'nothing'}" for one in wrong]
    return "\n".join(lines)


def worst(verdicts: Iterable[Verdict]) -> list[str]:
    """Return the longest waits for an error and for an answer, and how often nobody got what was charged."""
    lines = []
    for party in ("silo", "aggregator", "analyst"):
        own = [one for one in verdicts if one.case.fault.party == party]
        for what, results in (
            ("an error", ("error", "charged", "again")),
            ("an answer", ("answer", "without", "noise")),
        ):
            waits = [(one.waited_s, str(one.case)) for one in own if one.result in results]
            if waits:
                longest, case = max(waits)
                lines.append(f"* longest wait for {what}, fault of {_a(party)}: {longest:.0f} s ({case})")
        charged = sum(one.result == "charged" for one in own)
        lines.append(f"* charged without an answer, fault of {_a(party)}: {charged} of {len(own)}")
    return ["", *lines]


def _a(party: str) -> str:
    return f"{'an' if party[0] == 'a' else 'a'} {party}"


def _rows(found: dict[tuple[Fault, State], Verdict], faults: Iterable[Fault], states: Sequence[State]) -> list[str]:
    lines = [f"| fault | {' | '.join(map(str, states))} |", f"|---|{'---|' * len(states)}"]
    for fault in faults:
        cells = [_cell(found.get((fault, state))) for state in states]
        lines.append(f"| {fault} | {' | '.join(cells)} |")
    return lines


def _cell(verdict: Verdict | None) -> str:
    if verdict is None:
        return ""
    mark = "! " if verdict.wrong else ""
    return f"{mark}{LETTERS[verdict.result]} {verdict.waited_s:.0f}"


def rows_of(page: str) -> dict[str, list[str]]:
    """Return the cells of each fault's first row on the page, for a test."""
    rows: dict[str, list[str]] = {}
    for line in page.splitlines():
        cells = [one.strip() for one in re.split(r"(?<!\\)\|", line)[1:-1]]
        if cells and cells[0] in {str(one) for one in FAULTS}:
            rows.setdefault(cells[0], cells[1:])
    return rows
