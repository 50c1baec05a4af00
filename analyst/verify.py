"""Compare an answer with the messages that the silos signed: `consilo report verify`.

It needs the analyst's key, and the aggregator, which keeps the encrypted report and the masked inputs.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from analyst.answers import said_wrong
from analyst.client import Federation
from analyst.errors import AnalystError, SqlError
from analyst.reports.assumptions import assumed
from analyst.reports.curves import answered, planned_of
from analyst.reports.cut import cut_of, definition_of
from analyst.reports.derived import Derived, derived_of
from analyst.reports.estimates import (
    Estimate,
    Threshold,
    interpret,
    planned_again,
    planned_plainly,
    rho_of,
    threshold_of,
)
from analyst.reports.report import between
from analyst.reports.statements import opened_of, portion_of, portions_of, requests_of
from analyst.reports.table import Answered, united_labels, united_rows
from analyst.sql.offer import Offer
from crypto.errors import CryptoError
from crypto.rounds.opening import CheckedReport, OpenedSum
from crypto.rounds.recount import proof_of
from crypto.wire import digest_of
from federation.errors import FederationError
from policies.budget.accountant import epsilon_of
from policies.budget.sampler import delta_for
from policies.requests.query import Aggregate
from policies.requests.request import Request
from policies.units import counted, when

_MAX_ANSWER_BYTES = 512 << 20  # of a million groups
_CHANGED = "the file was changed, or belongs to another answer: do not use it"
_PARTS = {"value", "low", "high", "sd"}  # of a figure
# The parts of an answer, and those of each of its tables.
_WHOLE = {"rho", "epsilon", "delta", "silos", "transcript", "assumptions", "wrong", "request"}
_TABLE = {name.name for name in fields(Answered)} - {"curves", "branches"}
_THRESHOLD = {name.name for name in fields(Threshold)}
_SAME = 1e-9  # relative: a figure that was written and read as JSON

# Of an answer, the request that it names, the opened sum, and the minimum cohort if it is known.
Compare = Callable[[dict[str, Any], Request, OpenedSum, int | None], None]


def read_answer(what: str) -> tuple[bytes, dict[str, Any] | None]:
    """Return a transcript, and also its answer if `what` is the JSON file of an answer; raises AnalystError."""
    if re.fullmatch(r"[0-9a-f]{64}", what):
        return bytes.fromhex(what), None
    hint = (
        "give a name of `consilo report list`, the JSON that `consilo query --format json --out FILE` wrote, or a"
        " transcript: 64 hexadecimal digits"
    )
    path = Path(what)
    try:
        with path.open("rb") as file:
            answer = json.loads(file.read(_MAX_ANSWER_BYTES), object_pairs_hook=_once)
        rows = answer["tables"] if "tables" in answer else answer["rows"]
        if not re.fullmatch(r"[0-9a-f]{64}", answer["transcript"]) or not isinstance(rows, list):
            raise ValueError
    except OSError as err:
        raise AnalystError(f"{path} cannot be read ({err.strerror})", hint) from err
    except (ValueError, TypeError, KeyError, RecursionError) as err:
        raise AnalystError(f"{path} is not an answer in JSON", hint) from err
    return bytes.fromhex(answer["transcript"]), answer


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON; raises ValueError if it has a name twice: readers differ in which of them they take."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is there twice")
    return found


def verify(federation: Federation, name: bytes, answer: dict[str, Any] | None) -> Iterator[str]:
    """Yield a line for every check that passes; raises CryptoError or AnalystError at the first one that fails."""
    stored, request = federation.stored_report(name)
    yield f"the request is signed by {request.analyst}, for {request.purpose}, at rho {request.micro_rho / 1e6:g}"
    checked = federation.check_report(stored, request)
    manifest, survivors = checked.manifest, checked.survivors
    yield f"the round is what the request and {len(manifest.silos)} signed acceptances give; quorum {manifest.quorum}"
    signers = ", ".join(one.signer for one in stored.message.signatures)
    yield f"{signers} agreed on the contributions of {', '.join(survivors)}"
    if checked.consent_as_of:
        yield f"they read who consents at {between(checked.consent_as_of.values())}"
    if checked.rows_as_of:
        yield f"their prepared rows are as of {between(checked.rows_as_of.values())}"
    federation.recount(checked)
    if checked.scheme.columns > 1:
        spare = len(stored.message.openings) - manifest.quorum
        yield f"the silos added, each its column; {spare} more of them opened than are needed, to check each other"
    elif (proof := proof_of(checked) if manifest.terms.is_long else None) and proof.whole != survivors:
        rest = f"; those of {', '.join(proof.whole)} were fetched whole" if proof.whole else ""
        proven = counted(len(survivors) - len(proof.whole), "silo")
        yield f"the sum fits the inner products that {proven} signed of their contributions{rest}"
    else:
        yield f"the sum was added once more, completely: it is that of the {len(survivors)} signed contributions"
    if federation.analyst not in (recipient.name for recipient in manifest.terms.recipients):
        return
    opened = federation.open_sum(checked, request)
    left_out = f"; left out as false: {', '.join(sorted(opened.wrong))}" if opened.wrong else ""
    yield f"it opens with the key of {federation.analyst}{left_out}"
    if answer is not None:
        try:
            yield from _check_answer(federation, answer, request, checked, opened)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, ArithmeticError) as err:
            raise AnalystError("the answer does not fit the request that it names", _CHANGED) from err


def _check_answer(
    federation: Federation, answer: dict[str, Any], request: Request, checked: CheckedReport, opened: OpenedSum
) -> Iterator[str]:
    """Yield what holds of an answer; raises AnalystError, or what a file of another shape raises."""
    asked, resolved, manifest = _asked(federation, checked), federation.resolved(request), checked.manifest
    min_cohort = None if asked is None else max(one.min_cohort for one in asked.silos.values())
    _check_keys(answer)
    _check_price(answer, rho_of(request))
    for table, alone, sums, portion in _statements(answer, resolved, opened):
        _check_form(table, alone, rho_of(request) * portion, is_whole=table is answer)
        compare: Compare = _compare_derived if table.get("after") else _compare
        if (curve := alone.plan.curve) is not None:
            compare = partial(_compare_curves, curve)
        compare(table, alone, sums, min_cohort)
        _compare_cut(table, alone, sums, answer.get("delta", 0))
        if named := [f"{name} is {column}" for name, column in dict(table["dimensions"]).items() if name != column]:
            yield f"by the names that the answer gives to groups, which nobody signed: {', '.join(named)}"
    _compare_silos(answer, request, checked, {**said_wrong(request, checked, federation.config.roster), **opened.wrong})
    _compare_times(answer, checked)
    is_whole = asked is not None and request.replaces is None and set(manifest.silos) == set(request.silos)
    _compare_promise(answer, request, checked, opened, asked if is_whole else None)
    tables = answer.get("tables", [answer])
    rows = ", ".join(str(len(table["rows"])) for table in tables)
    yield f"the {rows} rows of the answer are what it says"
    if asked is None:
        why = "a policy has changed since, or a silo does not answer"
        yield f"its minimum cohort, delta and assumptions cannot be checked: {why}"
    elif not is_whole:
        yield "its delta and assumptions cannot be checked: not all silos that were asked took part"


def _check_keys(answer: dict[str, Any]) -> None:
    """Raise AnalystError if an answer, or a table of it, has a name that none has, or lacks one that each has."""
    if "tables" in answer:
        tables, rest = list(answer["tables"]), set(answer) - {"tables"}
    else:
        tables, rest = [{name: answer[name] for name in set(answer) - _WHOLE | {"rho"}}], set(answer) & _WHOLE
    if rest != _WHOLE or not tables:
        raise AnalystError("the answer has other parts than an answer has", _CHANGED)
    for one in [*tables, *(branch for table in tables for branch in table.get("branches", ()))]:
        if not _TABLE <= set(one) <= _TABLE | {"curves", "branches"}:
            raise AnalystError("a table of the answer has other parts than a table has", _CHANGED)
        if len(set(one["columns"])) != len(one["columns"]) or set(one["threshold"]) != _THRESHOLD:
            raise AnalystError("the answer names a column twice, or says more of its threshold", _CHANGED)


def _asked(federation: Federation, checked: CheckedReport) -> Offer | None:
    """Return what the silos of a round offer; None unless all of them still have the same policies."""
    with suppress(AnalystError, FederationError, CryptoError):
        found = federation.offer.only(checked.manifest.silos)
        hashes = {silo: checked.accepts[silo].policy_hash for silo in checked.manifest.silos}
        if {silo: one.policy_hash for silo, one in found.silos.items()} == hashes:
            return found
    return None


def _statements(
    answer: dict[str, Any], request: Request, opened: OpenedSum
) -> Iterator[tuple[dict[str, Any], Request, OpenedSum, float]]:
    """Yield the table of each statement, or of each question of a union, with what it must agree with.

    Raises AnalystError unless the answer has as many as the request, and a union is what its questions are.
    """
    try:
        tables = list(answer.get("tables", [answer]))
        of_each = [list(table.get("branches", [table])) for table in tables]
        alone = [table for of_one in of_each for table in of_one]
        places = iter(range(len(alone)))
        for table, of_one in zip(tables, of_each, strict=True):
            own = [next(places) for _ in of_one]
            if "branches" in table:
                _check_union(table, of_one)
                if table is not answer:
                    _check_price(table, rho_of(request) * portion_of(request, own))
        requests = requests_of(request)
        if len(alone) != len(requests) or ("tables" in answer and "rows" in answer):
            raise AnalystError(f"the answer has {len(alone)} tables, and {len(requests)} were asked", _CHANGED)
    except (KeyError, TypeError, ValueError, AttributeError) as err:
        raise AnalystError("the answer does not fit the request that it names", _CHANGED) from err
    yield from zip(alone, requests, opened_of(request, opened), portions_of(request), strict=True)


def _check_union(table: dict[str, Any], branches: list[dict[str, Any]]) -> None:
    """Raise AnalystError unless a union has the rows and columns of its questions, and says nothing else."""
    rows = list(united_rows([(one["columns"], one["rows"]) for one in branches]))
    labels = united_labels([(one["columns"], {*one["dimensions"], *one["labels"]}) for one in branches])
    said = {
        "columns": branches[0]["columns"],
        "dimensions": {},
        "rows": rows,
        "withheld_groups": [group for one in branches for group in one["withheld_groups"]],
        "cut": None,
        "definition": {},
        "after": "",
        "labels": list(labels),
        "told": [],
        "threshold": max((one["threshold"] for one in branches), key=lambda one: one["noisy_count"]),
    }
    if "curves" in table or any(table[name] != value for name, value in said.items()):
        raise AnalystError("the table of a UNION ALL is not that of its questions", _CHANGED)


def _check_price(answer: dict[str, Any], rho: float) -> None:
    """Raise AnalystError unless an answer, or a table of it, states the price that was signed for it."""
    try:
        is_priced = math.isclose(answer["rho"], rho, rel_tol=_SAME)
    except (KeyError, TypeError, ValueError, OverflowError) as err:
        raise AnalystError("the answer does not fit the request that it names", _CHANGED) from err
    if not is_priced:
        raise AnalystError("the price of the answer is not the one that was signed", _CHANGED)


def _check_form(answer: dict[str, Any], request: Request, rho: float, *, is_whole: bool) -> None:
    """Raise AnalystError if a table says more than what is compared, or another price than its part of the signed one.

    That of a whole answer is compared elsewhere.
    """
    try:
        columns, rows = set(answer["columns"]), answer["rows"]
        figures = [cell for row in rows for cell in row.values() if isinstance(cell, dict)]
        is_complete = all(set(row) == columns for row in rows) and all(set(cell) == _PARTS for cell in figures)
        is_curve = request.plan.curve is not None
        is_told = answer.get("after") or is_curve or not (answer.get("told") or answer.get("labels"))
        is_told = is_told and (is_curve or "curves" not in answer)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as err:
        raise AnalystError("the answer does not fit the request that it names", _CHANGED) from err
    if not is_complete or not is_told:
        raise AnalystError("the answer says what no silo released", _CHANGED)
    if not is_whole:
        _check_price(answer, rho)


def _compare(answer: dict[str, Any], request: Request, opened: OpenedSum, min_cohort: int | None) -> None:
    """Raise AnalystError unless an answer has every group once, with the figures of the opened sum, or withheld.

    Exactly the groups below the threshold that it states must be withheld. With `min_cohort`, it must be of that.
    """
    hint = _CHANGED
    try:
        dimensions: dict[str, str] = dict(answer["dimensions"])
        rows = {_key(dimensions, row): row for row in answer["rows"]}
        withheld = {_key(dimensions, group) for group in answer["withheld_groups"]}
        planned = planned_again(request, tuple(answer["columns"]), dimensions)
        threshold = _threshold(answer, request, opened, min_cohort)
        found, small = interpret(planned, request, opened, threshold)
        stated = len(answer["rows"]) + len(answer["withheld_groups"])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as err:
        raise AnalystError("the answer does not fit the request that it names", hint) from err
    if set(rows) & withheld or not len(rows) + len(withheld) == stated == request.plan.group_count(request.table):
        raise AnalystError("a group is missing from the answer, or occurs twice", hint)
    if withheld != {_key(dimensions, group) for group in small}:
        raise AnalystError("the groups withheld are not those with too small a count", hint)
    for row in found:
        shown = rows.get(_key(dimensions, row))
        for column, cell in row.items():
            if isinstance(cell, Estimate) and (shown is None or not _is_same(shown.get(column), cell)):
                raise AnalystError(f"{column} of {_key(dimensions, row) or 'the answer'} is not what was opened", hint)


def _compare_derived(answer: dict[str, Any], request: Request, opened: OpenedSum, min_cohort: int | None) -> None:
    """Raise AnalystError unless the rows of an answer are what its SQL makes of the opened sum, in that order."""
    try:
        planned = planned_plainly(request, answer["after"])
        threshold = _threshold(answer, request, opened, min_cohort)
        derived = derived_of(planned, request, opened, threshold)
        withheld = [dict(group) for group in answer["withheld_groups"]]
        shown = [dict(row) for row in answer["rows"]]
        dimensions, labels = dict(answer["dimensions"]), tuple(answer["labels"])
    except SqlError as err:
        raise AnalystError(f"the SQL of the answer cannot be computed: {err.message}", _CHANGED) from err
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as err:
        raise AnalystError("the answer does not fit the request that it names", _CHANGED) from err
    _check_rows(answer, derived, shown, withheld, dimensions, labels)


def _compare_curves(
    curve: Aggregate, answer: dict[str, Any], request: Request, opened: OpenedSum, min_cohort: int | None
) -> None:
    """Raise AnalystError unless an answer has the rows of the curves, and what follows from them, of the opened sum."""
    try:
        dimensions: dict[str, str] = dict(answer["dimensions"])
        planned = planned_again(request, planned_of(curve, answer["columns"]), dimensions)
        found = answered(planned, curve, request, opened, _threshold(answer, request, opened, min_cohort))
        withheld = [dict(group) for group in answer["withheld_groups"]]
        shown, labels = [dict(row) for row in answer["rows"]], tuple(answer["labels"])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as err:
        raise AnalystError("the answer does not fit the request that it names", _CHANGED) from err
    if answer.get("after") or answer.get("curves") != json.loads(json.dumps(found.summary)):
        raise AnalystError("the medians, or the test, are not what was opened", _CHANGED)
    _check_rows(answer, found.derived, shown, withheld, dimensions, labels)


def _check_rows(
    answer: dict[str, Any],
    derived: Derived,
    shown: list[dict[str, Any]],
    withheld: list[dict[str, Any]],
    dimensions: dict[str, str],
    labels: tuple[str, ...],
) -> None:
    """Raise AnalystError unless rows, notes and withheld groups of an answer are the derived ones, in that order."""
    if withheld != list(derived.withheld):
        raise AnalystError("the groups withheld are not those with too small a count", _CHANGED)
    names = tuple(name for name in derived.labels if name not in derived.dimensions)
    if tuple(answer["columns"]) != derived.columns or dimensions != derived.dimensions or labels != names:
        raise AnalystError("the columns of the answer are not those of its question", _CHANGED)
    if len(shown) != len(derived.rows) or tuple(answer.get("told", ())) != derived.notes:
        raise AnalystError("a row is missing from the answer, or there is one too many", _CHANGED)
    for place, (row, true) in enumerate(zip(shown, derived.rows, strict=True), 1):
        for column, cell in true.items():
            is_same = _is_same(row.get(column), cell) if isinstance(cell, Estimate) else row.get(column) == cell
            if not is_same:
                raise AnalystError(f"{column} in row {place} is not what was opened", _CHANGED)


def _threshold(answer: dict[str, Any], request: Request, opened: OpenedSum, min_cohort: int | None) -> Threshold:
    """Return the threshold that an answer states; raises AnalystError unless it follows from its minimum cohort."""
    stated, least, sure = answer["threshold"], answer["threshold"]["min_cohort"], answer["threshold"]["sure"]
    if type(least) is not int or type(sure) is not bool or min_cohort not in (None, least):
        raise AnalystError("the minimum cohort of the answer is not that of the silos", _CHANGED)
    threshold = threshold_of(request, opened, least, sure)
    if not math.isclose(stated["noisy_count"], threshold.noisy_count, rel_tol=_SAME):
        raise AnalystError("the threshold of the answer is not what its minimum cohort gives", _CHANGED)
    return threshold


def _compare_cut(answer: dict[str, Any], request: Request, opened: OpenedSum, delta: float) -> None:
    """Raise AnalystError unless an answer has the shares of persons that were opened, and the signed definition."""
    cut = cut_of(request, opened)
    if answer.get("cut") != (None if cut is None else json.loads(json.dumps(cut.to_dict()))):
        raise AnalystError("what the answer says of rows left out and values clamped is not what was opened", _CHANGED)
    if answer.get("definition") != json.loads(json.dumps(definition_of(request, delta))):
        raise AnalystError("the definition in the answer is not the one that was signed", _CHANGED)


def _compare_silos(answer: dict[str, Any], request: Request, checked: CheckedReport, wrong: Mapping[str, str]) -> None:
    """Raise AnalystError unless an answer names its request, the silos that answered and their policies, and no other.

    Why another silo did not answer is what the client saw, and is not compared.
    """
    hashes = {silo: one.policy_hash.hex() for silo, one in checked.accepts.items()}
    answered = {silo for silo, one in answer["silos"].items() if one["status"] == "answered"}
    stated = {silo: one["policy_hash"] for silo, one in answer["silos"].items() if silo in hashes}
    if answered != set(checked.survivors) or stated != hashes or answer["wrong"] != wrong:
        raise AnalystError("what the answer says of the silos is not what they signed", _CHANGED)
    if answer["request"] != digest_of(request).hex():
        raise AnalystError("the answer names another request than the one it is of", _CHANGED)


def _compare_times(answer: dict[str, Any], checked: CheckedReport) -> None:
    """Raise AnalystError unless an answer has each silo's signed times of reading decisions on consent, and rows."""
    for name, what, times in (
        ("consent_as_of", "consent was read", checked.consent_as_of),
        ("rows_as_of", "rows were seen unchanged", checked.rows_as_of),
    ):
        signed = {silo: when(as_of) for silo, as_of in times.items()}
        try:
            stated = {silo: one[name] for silo, one in answer["silos"].items() if one.get(name)}
        except (KeyError, TypeError, AttributeError):
            stated = {}
        if stated != signed:
            raise AnalystError(f"the times at which {what} are not what the silos signed", _CHANGED)


def _compare_promise(
    answer: dict[str, Any], request: Request, checked: CheckedReport, opened: OpenedSum, asked: Offer | None
) -> None:
    """Raise AnalystError unless an answer has the epsilon of its price, and the delta and assumptions of its silos.

    Without `asked`, what they offer, the delta is taken as stated, and the assumptions are not compared.
    """
    try:
        delta = float(answer["delta"])
        is_so = asked is None or math.isclose(delta, asked.delta, rel_tol=_SAME)
        at = delta_for(delta, request.table, request.plan)
        is_so &= math.isclose(answer["epsilon"], epsilon_of(rho_of(request), at), rel_tol=_SAME)
    except (KeyError, TypeError, ValueError, ArithmeticError) as err:
        raise AnalystError("the answer does not fit the request that it names", _CHANGED) from err
    if not is_so:
        raise AnalystError("the epsilon and delta of the answer are not those of its price and its silos", _CHANGED)
    if asked is None:
        return
    openings, entity = len(checked.stored.message.openings), next(iter(asked.silos.values())).entity
    if tuple(answer.get("assumptions", ())) != assumed(request, opened, openings, entity, asked.strictest):
        raise AnalystError("the assumptions of the answer are not those of its request and its silos", _CHANGED)


def _key(dimensions: dict[str, str], row: Any) -> tuple[str, ...]:
    cells = (row[name] for name in sorted(dimensions))
    return tuple("\0" if cell is None else str(cell) for cell in cells)  # no text that an answer has is NULL


def _is_same(shown: Any, cell: Estimate) -> bool:
    for name in _PARTS:
        stated, true = shown.get(name) if isinstance(shown, dict) else None, getattr(cell, name)
        if (stated is None) != (true is None):
            return False
        if true is not None and not (
            isinstance(stated, int | float)
            and not isinstance(stated, bool)
            and math.isclose(stated, true, rel_tol=_SAME, abs_tol=1e-12)
        ):
            return False
    return True
