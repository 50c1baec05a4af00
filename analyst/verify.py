"""Hold an answer against what the silos signed: `consilo report verify`.

Needs the analyst's key, and the aggregator, which keeps the encrypted report and the blinded contributions.
"""

import json
import math
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from analyst.client import Federation
from analyst.errors import AnalystError
from analyst.reports.estimates import Estimate, interpret, planned_again
from analyst.reports.report import between, iso
from crypto.errors import CryptoError
from crypto.rounds.opening import CheckedReport, OpenedSum
from federation.errors import FederationError
from policies.requests.request import Request

_MAX_ANSWER_BYTES = 64 << 20
_CHANGED = "the file was changed, or belongs to another answer: do not use it"
_SAME = 1e-9  # relative: a figure that was written and read as JSON


def read_answer(what: str) -> tuple[bytes, dict[str, Any] | None]:
    """Return a transcript, and the answer that names it if `what` is the JSON file of one; raises AnalystError."""
    if re.fullmatch(r"[0-9a-f]{64}", what):
        return bytes.fromhex(what), None
    hint = "give the JSON that `consilo query --format json --out FILE` wrote, or its transcript: 64 hexadecimal digits"
    path = Path(what)
    try:
        with path.open("rb") as file:
            answer = json.loads(file.read(_MAX_ANSWER_BYTES))
        if not re.fullmatch(r"[0-9a-f]{64}", answer["transcript"]) or not isinstance(answer["rows"], list):
            raise ValueError
    except OSError as err:
        raise AnalystError(f"{path} cannot be read ({err.strerror})", hint) from err
    except (ValueError, TypeError, KeyError, RecursionError) as err:
        raise AnalystError(f"{path} is not an answer in JSON", hint) from err
    return bytes.fromhex(answer["transcript"]), answer


def verify(federation: Federation, name: bytes, answer: dict[str, Any] | None) -> Iterator[str]:
    """Yield a line for everything that holds; raises CryptoError or AnalystError at the first thing that does not."""
    stored, request = federation.stored_report(name)
    yield f"the request is signed by {request.analyst}, for {request.purpose}, at rho {request.micro_rho / 1e6:g}"
    checked = federation.check_report(stored, request)
    manifest, survivors = checked.manifest, checked.survivors
    yield f"the round is what the request and {len(manifest.silos)} signed acceptances give; quorum {manifest.quorum}"
    signers = ", ".join(one.signer for one in stored.message.signatures)
    yield f"{signers} agreed on the contributions of {', '.join(survivors)}"
    if checked.consent_as_of:
        yield f"they read who consents at {between(checked.consent_as_of.values())}"
    chunks, added = checked.scheme.shape.chunks, federation.recount(checked)
    if checked.scheme.columns > 1:
        spare = len(stored.message.openings) - manifest.quorum
        yield f"the silos added, each its column; {spare} more of them opened than are needed, to check each other"
    else:
        extent = "completely" if added == chunks else f"at {added} random chunks of {chunks}"
        yield f"the sum was added once more, {extent}: it is that of the {len(survivors)} signed contributions"
    if federation.analyst not in (recipient.name for recipient in manifest.terms.recipients):
        return
    opened = federation.open_sum(checked, request)
    left_out = f"; left out as false: {', '.join(opened.inconsistent_silos)}" if opened.inconsistent_silos else ""
    yield f"it opens with the key of {federation.analyst}{left_out}"
    if answer is not None:
        min_cohort = _min_cohort(federation, opened)
        _compare(answer, request, opened, min_cohort)
        _compare_consent(answer, checked)
        yield f"the {len(answer['rows'])} rows of the answer are what it says"
        if min_cohort is None:
            yield "which groups were withheld cannot be told: a policy has changed since, or a silo does not answer"


def _min_cohort(federation: Federation, opened: OpenedSum) -> int | None:
    """Return below which count a group is withheld; None unless all silos of the round still have the same policies."""
    with suppress(AnalystError, FederationError, CryptoError):
        offered = federation.offer.silos
        holders = [offered[member.silo] for member in opened.manifest.roster if member.silo in offered]
        hashes = [member.policy_hash for member in opened.manifest.roster]
        if [holder.policy_hash for holder in holders] == hashes:
            return max(holder.min_cohort for holder in holders)
    return None


def _compare(answer: dict[str, Any], request: Request, opened: OpenedSum, min_cohort: int | None) -> None:
    """Raise AnalystError unless an answer has every group once, with the figures of the opened sum or withheld.

    With `min_cohort` the groups withheld must be those below it.
    """
    hint = _CHANGED
    try:
        dimensions: dict[str, str] = dict(answer["dimensions"])
        rows = {_key(dimensions, row): row for row in answer["rows"]}
        withheld = {_key(dimensions, group) for group in answer["withheld_groups"]}
        names = {column: shown for shown, column in dimensions.items()}
        planned = planned_again(request, tuple(answer["columns"]), names)
        found, _ = interpret(planned, request, opened, min_cohort=-(2**62))
        stated = len(answer["rows"]) + len(answer["withheld_groups"])
        small = None if min_cohort is None else interpret(planned, request, opened, min_cohort)[1]
    except (KeyError, TypeError, ValueError, AttributeError) as err:
        raise AnalystError("the answer does not fit the request that it names", hint) from err
    if set(rows) & withheld or not len(rows) + len(withheld) == stated == request.plan.group_count(request.table):
        raise AnalystError("a group is missing from the answer, or stands in it twice", hint)
    if small is not None and withheld != {_key(dimensions, group) for group in small}:
        raise AnalystError("the groups withheld are not those with too small a count", hint)
    for row in found:
        shown = rows.get(_key(dimensions, row))
        if shown is None and _key(dimensions, row) in withheld:
            continue
        for column, cell in row.items():
            if isinstance(cell, Estimate) and (shown is None or not _is_same(shown.get(column), cell)):
                raise AnalystError(f"{column} of {_key(dimensions, row) or 'the answer'} is not what was opened", hint)


def _compare_consent(answer: dict[str, Any], checked: CheckedReport) -> None:
    """Raise AnalystError unless an answer says of every silo when it read who consents, as the silo signed it."""
    signed = {silo: iso(as_of) for silo, as_of in checked.consent_as_of.items()}
    try:
        stated = {silo: one["consent_as_of"] for silo, one in answer["silos"].items() if one["consent_as_of"]}
    except (KeyError, TypeError, AttributeError):
        stated = {}
    if stated != signed:
        raise AnalystError("the times at which consent was read are not what the silos signed", _CHANGED)


def _key(dimensions: dict[str, str], row: Any) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in sorted(dimensions))


def _is_same(shown: Any, cell: Estimate) -> bool:
    for name in ("value", "low", "high", "sd"):
        stated, true = shown.get(name) if isinstance(shown, dict) else None, getattr(cell, name)
        if (stated is None) != (true is None):
            return False
        if true is not None and not (
            isinstance(stated, int | float) and math.isclose(stated, true, rel_tol=_SAME, abs_tol=1e-12)
        ):
            return False
    return True
