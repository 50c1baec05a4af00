"""What a silo has spent, and how a price is reserved, committed and released, each at most once.

`spending` reads the totals that triggers keep, so its cost does not grow with the ledger, except for curves and for
windows that begin within a day. `reserve` checks all limits in the transaction that reserves, so two requests at once
cannot both take what is left for one. docs/ledger.md section 1. The caller opens the reading or the transaction.
"""

from collections.abc import Sequence

from policies.budget.accountant import cover
from policies.budget.ledger import (
    MAX_PROPOSALS,
    Charge,
    Months,
    Rate,
    RunStep,
    Since,
    Spending,
    WindowLimit,
    WindowSpending,
    exceeds,
)
from policies.errors import AlreadyChargedError
from policies.units import DAY_S
from silo_node.ledger.charges import charge_of, insert, row_of, state_of, sum_of_curves
from silo_node.ledger.database import Database
from silo_node.ledger.events import Contributed, Event, Released, Reserved, decided, hash_of_row
from silo_node.ledger.log import Log


def spending(
    database: Database,
    excluding_nonce: bytes = b"",
    purpose: str = "",
    analyst: str = "",
    since: Sequence[Since] = (),
    run: RunStep | None = None,
    requests_since: int | None = None,
) -> Spending:
    """Return what is committed and reserved, as `policies.budget.ledger.Ledger.spending` says."""
    lines, atto_delta = database.execute("SELECT micro_rho, atto_delta FROM lifetime").fetchone()
    windows = [_window(database, purpose, analyst, start) for start in since]
    of_run = 0 if run is None else _spent_on_run(database, run, analyst, excluding_nonce)
    requests = 0
    if requests_since is not None:
        sql = "SELECT count(DISTINCT counts_as) FROM nonces WHERE analyst = ? AND first_at >= ?"
        sql += " AND counts_as <> ?"
        own = _counts_as(database, excluding_nonce, run)
        requests = database.execute(sql, (analyst, requests_since, own)).fetchone()[0]
    curve = sum_of_curves(database, excluding_nonce)
    excluded = charge_of(database, excluding_nonce) if excluding_nonce else None
    if excluded is not None:
        lines -= 0 if excluded.curve else excluded.micro_rho
        atto_delta -= excluded.atto_delta
        if excluded.purpose == purpose:
            for index, start in enumerate(since):
                windows[index] = _without(database, windows[index], excluded, analyst, start)
    lifetime = lines + (cover(curve) if curve else 0)
    return Spending(lifetime, tuple(windows), of_run, atto_delta, requests, curve)


def _spent_on_run(database: Database, run: RunStep, analyst: str, excluding_nonce: bytes) -> int:
    sql = "SELECT coalesce(sum(micro_rho), 0) FROM charges WHERE run = ? AND analyst = ? AND nonce <> ?"
    return int(database.execute(sql, (run.run, analyst, excluding_nonce)).fetchone()[0])


def _counts_as(database: Database, nonce: bytes, run: RunStep | None) -> bytes:
    """Return by what a request is counted: all steps of a run by its job, but a step that is asked again by itself.

    Else a run, which may be free of charge, would be asked for without end as one request.
    """
    if run is None:
        return nonce
    row = database.execute("SELECT counts_as FROM nonces WHERE nonce = ?", (nonce,)).fetchone()
    if row is not None:
        return bytes(row[0])
    sql = "SELECT 1 FROM nonces WHERE job = ? AND step = ?"
    return run.job if database.execute(sql, (run.job, run.number)).fetchone() is None else nonce


def _window(database: Database, purpose: str, analyst: str, since: Since) -> WindowSpending:
    if isinstance(since, Months):
        return _months(database, purpose, analyst, since)
    # Calendar windows begin at midnight, so whole days add up; any other time counts the charges themselves.
    where, start = ("by_day WHERE day >= ?", since // DAY_S)
    if since % DAY_S:
        where, start = ("charges WHERE charged_at >= ?", since)
    sums = "coalesce(sum(micro_rho), 0), coalesce(sum(micro_rho) FILTER (WHERE analyst = ?), 0)"
    sql = f"SELECT {sums} FROM {where} AND purpose = ?"  # noqa: S608
    return WindowSpending(*database.execute(sql, (analyst, start, purpose)).fetchone())


def _without(database: Database, spent: WindowSpending, excluded: Charge, analyst: str, since: Since) -> WindowSpending:
    """Return what was spent in a window apart from one charge of its purpose."""
    if isinstance(since, Months):
        return _months(database, excluded.purpose, analyst, since, excluded)
    if excluded.charged_at < since:
        return spent
    of_analyst = excluded.micro_rho if excluded.analyst == analyst else 0
    return WindowSpending(spent.everybody - excluded.micro_rho, spent.analyst - of_analyst)


def _months(
    database: Database, purpose: str, analyst: str, asked: Months, excluded: Charge | None = None
) -> WindowSpending:
    """Return the most that was spent on any of the months asked for; each charge counts for all months it read."""
    rows = database.execute(
        "SELECT first_month, last_month, sum(micro_rho), sum(micro_rho) FILTER (WHERE analyst = ?) FROM by_month"
        " WHERE purpose = ? AND last_month >= ? AND first_month <= ? GROUP BY 1, 2",
        (analyst, purpose, asked.first, asked.last),
    ).fetchall()
    if excluded is not None:
        of_analyst = excluded.micro_rho if excluded.analyst == analyst else 0
        rows.append((excluded.months.first, excluded.months.last, -excluded.micro_rho, -of_analyst))
    # The sum changes only where a charge begins or ends, so the months where one begins, and the first, suffice.
    begins = {asked.first, *(first for first, *_ in rows if asked.first <= first <= asked.last)}
    begins |= {last + 1 for _, last, *_ in rows if asked.first <= last + 1 <= asked.last}
    sums = [
        tuple(sum(row[column] or 0 for row in rows if row[0] <= month <= row[1]) for column in (2, 3))
        for month in begins
    ]
    return WindowSpending(max(one for one, _ in sums), max(own for _, own in sums))


def job_of(database: Database, run: bytes) -> bytes | None:
    """Return the job that a run id is bound to, None of an unknown one."""
    sql = "SELECT job FROM nonces WHERE run = ? AND job IS NOT NULL LIMIT 1"
    row = database.execute(sql, (run,)).fetchone()
    return None if row is None else bytes(row[0])


def is_exhausted(database: Database, nonce: bytes) -> bool:
    """Tell whether a request was accepted so often that no further round of it is taken part in."""
    row = database.execute("SELECT proposals FROM nonces WHERE nonce = ?", (nonce,)).fetchone()
    return row is not None and row[0] >= MAX_PROPOSALS


def reserve(
    database: Database,
    log: Log,
    charge: Charge,
    lifetime_limit: int,
    windows: Sequence[WindowLimit],
    run_limit: int | None,
    delta_limit: int,
    rate: Rate | None,
) -> bool:
    """Reserve a charge unless it would exceed a limit, as `policies.budget.ledger.Ledger.reserve` says."""
    run = charge.run
    is_held = _is_reserved(database, charge)
    if not is_held:
        since = [limit.since for limit in windows]
        counted = None if rate is None else rate.since
        spent = spending(database, charge.nonce, charge.purpose, charge.analyst, since, run, counted)
        if exceeds(spent, charge, lifetime_limit, windows, run_limit, delta_limit, rate):
            return False
        insert(database, row_of(charge))
    of_run = (None, None, None) if run is None else (run.run, run.job, run.number)
    counts_as = _counts_as(database, charge.nonce, run)
    database.execute(
        "INSERT INTO nonces VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1) ON CONFLICT DO UPDATE SET proposals = proposals + 1",
        (charge.nonce, charge.request_hash, charge.analyst, *of_run, counts_as, charge.charged_at),
    )
    events: list[Event] = [decided(charge.request_hash, charge.analyst, charge.purpose, ())]
    if not is_held:
        events.append(_reserved(charge))
    log.append(*events)
    return True


def _is_reserved(database: Database, charge: Charge) -> bool:
    """Tell whether this very charge is reserved; raises AlreadyChargedError if it can be reserved no more."""
    known = database.execute("SELECT request_hash, proposals FROM nonces WHERE nonce = ?", (charge.nonce,)).fetchone()
    if known is not None and (known[0] != charge.request_hash or known[1] >= MAX_PROPOSALS):
        raise AlreadyChargedError(f"this nonce is another request's, or was accepted {MAX_PROPOSALS} times")
    if charge.run is not None and job_of(database, charge.run.run) not in (None, charge.run.job):
        raise AlreadyChargedError("this training run began with another request")
    held = charge_of(database, charge.nonce)
    if held is None:
        return False
    if state_of(database, charge.nonce) != "reserved" or held.micro_rho != charge.micro_rho:
        raise AlreadyChargedError("this request was answered before, or its nonce belongs to another price")
    return True


def _reserved(charge: Charge) -> Reserved:
    return Reserved(
        nonce=charge.nonce,
        request_hash=charge.request_hash,
        micro_rho=charge.micro_rho,
        atto_delta=charge.atto_delta,
        policy_hash=charge.policy_hash,
        row=hash_of_row(*row_of(charge)),
    )


def commit(database: Database, log: Log, nonce: bytes, round_id: bytes) -> None:
    """Bind a reservation to the round whose contribution leaves next; raises AlreadyChargedError without one."""
    changed = database.execute(
        "UPDATE charges SET state = 'committed', round_id = ? WHERE nonce = ? AND state = 'reserved'",
        (round_id, nonce),
    ).rowcount
    if changed != 1:
        raise AlreadyChargedError("nothing is reserved for this request, or its contribution has left")
    log.append(Contributed(nonce=nonce, round_id=round_id))


def release(database: Database, nonce: bytes) -> list[Released]:
    """Give one reservation back if it is one; return what is to be logged."""
    changed = database.execute("DELETE FROM charges WHERE nonce = ? AND state = 'reserved'", (nonce,)).rowcount
    return [Released(nonce=nonce)] if changed else []


def release_all(database: Database) -> list[Released]:
    """Give every reservation back; return what is to be logged."""
    sql = "SELECT nonce FROM charges WHERE state = 'reserved'"
    nonces = [bytes(row[0]) for row in database.execute(sql).fetchall()]
    database.executemany("DELETE FROM charges WHERE nonce = ? AND state = 'reserved'", [(one,) for one in nonces])
    return [Released(nonce=nonce) for nonce in nonces]
