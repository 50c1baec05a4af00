"""Compare the tables of the ledger with its log, and find every difference.

Promise: `examine_ledger` returns only if the log is complete and ends with its signed checkpoint, and if charges,
totals, requests for approval, verdicts, nonces, models, reservations of runs and signed survivor sets equal those of
the log. docs/ledger.md section 3.
"""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from hashlib import sha256

from policies.errors import LedgerError
from policies.units import DAY_S, counted
from silo_node.ledger import reservations
from silo_node.ledger.charges import ASKED, COLUMNS, hash_of_committed, hash_of_nonces
from silo_node.ledger.database import ALTERED, DAMAGED, Database, Value
from silo_node.ledger.events import Voted, hash_of_row
from silo_node.ledger.log import Log, Signer, read_checkpoint
from silo_node.ledger.replay import Audit, Held, examine
from silo_node.ledger.schema import CHANGES, COUNTED

# Each total as the triggers keep it, and as the sum of what counts.
_TOTALS = (
    (
        "SELECT micro_rho, atto_delta FROM lifetime",
        "SELECT coalesce(sum(micro_rho) FILTER (WHERE curve IS NULL), 0), coalesce(sum(atto_delta), 0)"  # noqa: S608
        f" FROM ({COUNTED})",
    ),
    (
        "SELECT purpose, day, analyst, micro_rho FROM by_day WHERE micro_rho <> 0",
        f"SELECT purpose, at / {DAY_S}, analyst, sum(micro_rho) FROM ({COUNTED}) GROUP BY 1, 2, 3"  # noqa: S608
        " HAVING sum(micro_rho) <> 0",
    ),
    (
        "SELECT purpose, first_month, last_month, analyst, micro_rho FROM by_month WHERE micro_rho <> 0",
        f"SELECT purpose, first_month, last_month, analyst, sum(micro_rho) FROM ({COUNTED}) GROUP BY 1, 2, 3, 4"  # noqa: S608
        " HAVING sum(micro_rho) <> 0",
    ),
)
_Verdict = tuple[bytes, str, int, str, bytes]


def examine_ledger(database: Database, log: Log, signer: Signer | None) -> Audit:
    """Examine the whole log, whose checkpoint this signer signed, and compare the tables with it.

    Reads inside the snapshot or transaction of the caller. Raises LedgerError.
    """
    envelope = log.checkpoint()
    checkpoint = None
    if envelope is not None and signer is not None:
        checkpoint = read_checkpoint(envelope, signer.silo, signer.federation, signer.key.public)
    found = examine(log.lines(), checkpoint)
    check_charges(database, found)
    _check_requests(database, found)
    _check_rounds(database, found)
    _check_asked(database, found)
    _check_models(database, found)
    _check_runs(database, found)
    _check_totals(database)
    return found


def check_charges(database: Database, found: Audit) -> None:
    """Raise LedgerError unless the charges are those of the log, together with the older ones whose hash it has."""
    rows = {row[0]: row for row in database.execute(f"SELECT {COLUMNS}, round_id, state FROM charges")}  # noqa: S608
    wrong = [nonce for nonce, held in found.charges.items() if not _is_held(held, rows.get(nonce))]
    if found.anchor:
        wrong += [nonce for nonce, row in rows.items() if row[-1] != "committed" and nonce not in found.charges]
    if wrong:
        message = (
            f"the log says what the ledger does not: {counted(len(wrong), 'charge')}, such as {wrong[0].hex()[:16]}"
        )
        raise LedgerError(message, ALTERED)
    if found.anchor and hash_of_committed(database, found.since) != found.anchor:
        raise LedgerError("the log says what the ledger does not: charges of before its last start", ALTERED)


def _is_held(held: Held, row: Sequence[Value] | None) -> bool:
    """Tell whether a stored charge is the one in the log; an entry of version 3 names only its price."""
    if row is None or (row[4], *row[-2:]) != (held.micro_rho, held.round_id, held.state):
        return False
    return not held.row or held.row == hash_of_row(*row[:-2])


def _check_requests(database: Database, found: Audit) -> None:
    """Raise LedgerError unless the requests for approval and their verdicts are those of the log."""
    requests = {row[0]: row for row in database.execute("SELECT * FROM requests")}
    said: dict[bytes, list[_Verdict]] = {}
    for verdict in database.execute("SELECT subject, who, at, decision, envelope FROM verdicts"):
        said.setdefault(verdict[0], []).append(verdict)
    wrong = [
        subject
        for subject, one in found.requests.items()
        if subject not in requests
        or (one.row and one.row != hash_of_row(*requests[subject]))
        or not _are_said(one.verdicts, said.get(subject, []))
    ]
    if not found.is_cut:
        wrong += {*requests, *said} - {*found.requests} - found.doubtful
    if wrong:
        message = f"the log says what the ledger does not: {len(wrong)} requests for approval, or what people said"
        raise LedgerError(f"{message} to them, such as {wrong[0].hex()[:16]}", ALTERED)


def _are_said(logged: Sequence[Voted], stored: Sequence[_Verdict]) -> bool:
    """Tell whether the stored verdicts are those of the log, none more and none less."""
    left = list(stored)
    for event in logged:
        same = [row for row in left if (row[1], row[3]) == (event.who, event.decision)]
        match = next((row for row in same if not event.row or event.row == hash_of_row(*row)), None)
        if match is None:
            return False
        left.remove(match)
    return not left


def _check_rounds(database: Database, found: Audit) -> None:
    """Raise LedgerError unless the ledger has each nonce and each survivor set that the log names."""
    nonces = dict(database.execute("SELECT nonce, request_hash FROM nonces"))
    survivors_hashes = dict(database.execute("SELECT round_id, split_hash FROM splits"))
    replaced = dict(database.execute("SELECT nonce, by FROM replaced"))
    wrong = [one for one, request_hash in found.nonces.items() if nonces.get(one) != request_hash]
    wrong += [one for one, by in found.replaced.items() if replaced.get(one) != by]
    wrong += [
        one for one, survivors_hash in found.survivors_hashes.items() if survivors_hashes.get(one) != survivors_hash
    ]
    if wrong:
        message = f"the log says what the ledger does not: {len(wrong)} nonces or survivor sets, such as"
        raise LedgerError(f"{message} {wrong[0].hex()[:16]}", ALTERED)


def _check_asked(database: Database, found: Audit) -> None:
    """Raise LedgerError unless each nonce is whose, and of the step of the run, that the log says."""
    rows = database.execute(f"SELECT {ASKED}, proposals FROM nonces")  # noqa: S608
    wrong = [
        nonce
        for nonce, *row, proposals in rows
        if found.asked.get(nonce, same := hash_of_row(nonce, *row)) != same or proposals < found.times.get(nonce, 0)
    ]
    if wrong:
        message = f"the log says what the ledger does not: {len(wrong)} nonces, such as {wrong[0].hex()[:16]}"
        raise LedgerError(message, ALTERED)
    if found.asked_anchor and hash_of_nonces(database, found.asked_since) != found.asked_anchor:
        raise LedgerError("the log says what the ledger does not: nonces of before its last start", ALTERED)


def _check_models(database: Database, found: Audit) -> None:
    """Raise LedgerError unless the models of training runs are those that were learned last, or are erased."""
    states = dict(database.execute("SELECT run, state FROM runs"))
    wrong = [
        run
        for run, model in found.models.items()
        if (run not in states and not model.may_be_gone)
        or (run in states and model.state and sha256(states[run]).digest() != model.state)
    ]
    if wrong:
        message = f"the log says what the ledger does not: {len(wrong)} models of runs, such as {wrong[0].hex()[:16]}"
        raise LedgerError(message, ALTERED)


def _check_runs(database: Database, found: Audit) -> None:
    """Raise LedgerError unless what runs have reserved is what the log says, and the runs that are over are so."""
    sql = f"SELECT {reservations.COLUMNS} FROM run_reservations"  # noqa: S608
    held = {row[0]: hash_of_row(*row) for row in database.execute(sql)}
    ended = dict(database.execute("SELECT run, why FROM ended_runs"))
    said = {run: one.row for run, one in found.runs_reserved.items()}
    wrong = [run for run in {*held, *said} if held.get(run) != said.get(run)]
    wrong += [run for run, why in found.runs_over.items() if ended.get(run) != why]
    if wrong:
        message = f"the log says what the ledger does not: {len(wrong)} runs, such as {wrong[0].hex()[:16]}"
        raise LedgerError(message, ALTERED)


def _check_totals(database: Database) -> None:
    """Raise LedgerError unless the totals are those of the charges, and the triggers that keep them are ours."""
    for kept, added in _TOTALS:
        if set(database.execute(kept)) != set(database.execute(added)):
            raise LedgerError(f"the ledger {database.path} is damaged: its totals are not its charges'", DAMAGED)
    triggers = "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'"
    with closing(sqlite3.connect(":memory:")) as new:
        new.executescript(CHANGES[0])
        if set(database.execute(triggers)) != set(new.execute(triggers)):
            raise LedgerError(f"the triggers of {database.path} are not those of a ledger", ALTERED)
