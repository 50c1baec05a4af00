"""A silo's spending; reserving, beginning, committing and releasing a charge, each at most once.

`spending` reads the totals that triggers keep, so its cost does not grow with the ledger, except for curves and for
windows that begin within a day. Promise: `reserve` checks all limits in the transaction that reserves, so two
simultaneous requests cannot both use the same remaining budget. docs/ledger.md section 1. The caller opens the reading
or the transaction.
"""

from collections.abc import Collection, Sequence

from policies.budget.accountant import cover
from policies.budget.ledger import (
    MAX_PROPOSALS,
    UNKNOWN,
    AnalystSpending,
    Charge,
    Consulted,
    Months,
    Rate,
    RunOver,
    RunStep,
    Since,
    Spending,
    WindowLimit,
    WindowSpending,
    exceeds,
)
from policies.errors import AlreadyChargedError
from policies.units import DAY_S
from silo_node.ledger.charges import charge_of, insert, state_of, sum_of_curves
from silo_node.ledger.database import Database, Value
from silo_node.ledger.events import (
    Charging,
    ConsentRead,
    Contributed,
    Event,
    Released,
    Replaced,
    StaysCharged,
    decided,
)
from silo_node.ledger.log import Log
from silo_node.ledger.reservations import (
    as_charge,
    check_goes_on,
    end_used,
    expire,
    give_back,
    of_chain,
    stop,
    take,
)
from silo_node.ledger.schema import COUNTED, PLAIN_BYTES


def spending(
    database: Database,
    excluding_nonce: bytes = b"",
    purpose: str = "",
    analyst: str = "",
    since: Sequence[Since] = (),
    run: RunStep | None = None,
    requests_since: int | None = None,
    analyst_since: int | None = None,
) -> Spending:
    """Return the committed and reserved charges; see `policies.budget.ledger.Ledger.spending`."""
    lines, atto_delta = database.execute("SELECT micro_rho, atto_delta FROM lifetime").fetchone()
    of_run = 0 if run is None else _spent_on_run(database, run, analyst, excluding_nonce)
    requests = 0
    if requests_since is not None:
        counted = f"coalesce(sum(max(1, length(counts_as) - {PLAIN_BYTES})), 0)"
        sql = f"SELECT {counted} FROM (SELECT DISTINCT counts_as FROM nonces WHERE analyst IN (?, ?)"  # noqa: S608
        sql += " AND first_at >= ? AND counts_as <> ?)"
        counts_as = _counts_as(database, excluding_nonce, run)
        requests = database.execute(sql, (analyst, UNKNOWN, requests_since, counts_as)).fetchone()[0]
    curve = sum_of_curves(database, excluding_nonce)
    held = None if run is None else of_chain(database, run)
    own = charge_of(database, excluding_nonce) if excluding_nonce else None
    without = [one for one in (own, None if held is None else as_charge(held)) if one is not None]
    lines -= sum(one.micro_rho for one in without if not one.curve)
    atto_delta -= sum(one.atto_delta for one in without)
    windows = [_window(database, purpose, analyst, start, without) for start in since]
    lifetime = lines + (cover(curve) if curve else 0)
    by_analyst = AnalystSpending()
    if analyst_since is not None:
        by_analyst = _of_analyst(database, purpose, analyst, analyst_since, without)
    next_step = 0 if held is None else held.next_step
    return Spending(lifetime, tuple(windows), of_run, atto_delta, requests, curve, by_analyst, next_step)


def _of_analyst(
    database: Database, purpose: str, analyst: str, since: int, without: Sequence[Charge]
) -> AnalystSpending:
    """Return what an analyst has spent since a midnight, without some charges."""
    sql = "SELECT coalesce(sum(micro_rho) FILTER (WHERE purpose IN (?, ?)), 0), coalesce(sum(micro_rho), 0) FROM by_day"
    sql += " WHERE day >= ? AND analyst IN (?, ?)"
    asked = (purpose, UNKNOWN, since // DAY_S, analyst, UNKNOWN)
    of_purpose, of_all = database.execute(sql, asked).fetchone()
    own = [one for one in without if one.analyst == analyst and one.charged_at >= since]
    of_all -= sum(one.micro_rho for one in own)
    of_purpose -= sum(one.micro_rho for one in own if one.purpose == purpose)
    return AnalystSpending(of_purpose, of_all)


def _spent_on_run(database: Database, run: RunStep, analyst: str, excluding_nonce: bytes) -> int:
    sql = "SELECT coalesce(sum(micro_rho), 0) FROM charges WHERE run = ? AND analyst = ? AND nonce <> ?"
    spent = int(database.execute(sql, (run.run, analyst, excluding_nonce)).fetchone()[0])
    # What is not known to be of another run may be of this one, unless it began later.
    sql = "SELECT min(first_at) FROM nonces WHERE run = ?"
    (began_at,) = database.execute(sql, (run.run,)).fetchone()
    if began_at is None and run.number == 0:
        return spent
    if database.execute("SELECT 1 FROM by_day WHERE analyst = ? LIMIT 1", (UNKNOWN,)).fetchone() is None:
        return spent
    sql = "SELECT coalesce(sum(micro_rho), 0) FROM charges WHERE analyst = ? AND charged_at >= ?"
    return spent + int(database.execute(sql, (UNKNOWN, began_at or 0)).fetchone()[0])


def _counts_as(database: Database, nonce: bytes, run: RunStep | None, statements: int = 1) -> bytes:
    """Return the key under which a request is counted: the job of its run, but its nonce for a repeated step.

    Otherwise a run, which may be free of charge, could be asked for without limit as one request. That of several
    statements is so long that it counts as each of them.
    """
    row = database.execute("SELECT counts_as FROM nonces WHERE nonce = ?", (nonce,)).fetchone()
    if row is not None:
        return bytes(row[0])
    if run is None:
        return nonce if statements == 1 else nonce.ljust(PLAIN_BYTES + statements, b"\0")
    sql = "SELECT 1 FROM nonces WHERE job = ? AND step = ?"
    return run.job if database.execute(sql, (run.job, run.number)).fetchone() is None else nonce


def _window(database: Database, purpose: str, analyst: str, since: Since, without: Sequence[Charge]) -> WindowSpending:
    """Return the spending of a purpose in a window, without some charges."""
    without = [one for one in without if one.purpose == purpose]
    if isinstance(since, Months):
        return _months(database, purpose, analyst, since, without)
    # Calendar windows begin at midnight, so whole days add up; any other time counts the charges themselves.
    where, start = ("by_day WHERE day >= ?", since // DAY_S)
    if since % DAY_S:
        where, start = (f"({COUNTED}) WHERE at >= ?", since)
    sums = "coalesce(sum(micro_rho), 0), coalesce(sum(micro_rho) FILTER (WHERE analyst IN (?, ?)), 0)"
    sql = f"SELECT {sums} FROM {where} AND purpose IN (?, ?)"  # noqa: S608
    everybody, own = database.execute(sql, (analyst, UNKNOWN, start, purpose, UNKNOWN)).fetchone()
    within = [one for one in without if one.charged_at >= since]
    of_analyst = sum(one.micro_rho for one in within if one.analyst == analyst)
    return WindowSpending(everybody - sum(one.micro_rho for one in within), own - of_analyst)


def _months(database: Database, purpose: str, analyst: str, asked: Months, without: Sequence[Charge]) -> WindowSpending:
    """Return the highest spending of any of these months; a charge counts for every month that it read."""
    rows = database.execute(
        "SELECT first_month, last_month, sum(micro_rho), sum(micro_rho) FILTER (WHERE analyst IN (?, ?)) FROM"
        " by_month WHERE purpose IN (?, ?) AND last_month >= ? AND first_month <= ? GROUP BY 1, 2",
        (analyst, UNKNOWN, purpose, UNKNOWN, asked.first, asked.last),
    ).fetchall()
    for one in without:
        of_analyst = one.micro_rho if one.analyst == analyst else 0
        rows.append((one.months.first, one.months.last, -one.micro_rho, -of_analyst))
    # The sum rises only in a month where a charge begins, so these months and the first one suffice.
    begins = {asked.first, *(first for first, *_ in rows if asked.first <= first <= asked.last)}
    begins |= {last + 1 for _, last, *_ in rows if asked.first <= last + 1 <= asked.last}
    sums = [
        tuple(sum(row[column] or 0 for row in rows if row[0] <= month <= row[1]) for column in (2, 3))
        for month in begins
    ]
    return WindowSpending(max(one for one, _ in sums), max(own for _, own in sums))


def job_of(database: Database, run: bytes) -> bytes | None:
    """Return the job to which a run id is bound; None for an unknown run."""
    sql = "SELECT job FROM nonces WHERE run = ? AND job IS NOT NULL LIMIT 1"
    row = database.execute(sql, (run,)).fetchone()
    return None if row is None else bytes(row[0])


def has_contributed(database: Database, runs: Sequence[bytes], step: int, nonce: bytes, recovered_at: int = 0) -> bool:
    """Tell whether a contribution to a step of one of these runs has left, or may leave, for another request.

    What has left between a backup and its recovery is not known: it may be of any run that did not begin afterwards.
    """
    if recovered_at and step:
        places = ", ".join("?" for _ in runs)
        sql = f"SELECT min(first_at) FROM nonces WHERE run IN ({places})"  # noqa: S608
        (began_at,) = database.execute(sql, runs).fetchone()
        if began_at is None or began_at < recovered_at:
            return True
    sql = "SELECT 1 FROM nonces JOIN charges USING (nonce) WHERE nonces.run = ? AND step = ? AND nonce <> ?"
    sql += " AND state <> 'reserved'"
    return any(database.execute(sql, (run, step, nonce)).fetchone() is not None for run in runs)


def is_replaced(database: Database, name: bytes, but: Collection[bytes] = ()) -> bool:
    """Tell whether something in the place of a request or a run was accepted; what `but` names does not count."""
    sql = "SELECT by, run FROM replaced LEFT JOIN nonces ON nonces.nonce = by WHERE replaced.nonce = ?"
    row = database.execute(sql, (name,)).fetchone()
    return row is not None and not {*row} & {*but}


def is_exhausted(database: Database, nonce: bytes) -> bool:
    """Tell whether a request was accepted so often that the silo enters no further round of it."""
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
    """Reserve a charge unless it would exceed a limit; see `policies.budget.ledger.Ledger.reserve`."""
    run = charge.run
    events = expire(database, log.now())
    if run is not None:
        check_goes_on(database, run, log.now())
    is_held = _is_reserved(database, charge)
    if is_held and _begins_later(database, charge):
        events += release(database, charge.nonce)
        is_held = False
    if not is_held:
        since = [limit.since for limit in windows]
        counted = None if rate is None else rate.since
        spent = spending(database, charge.nonce, charge.purpose, charge.analyst, since, run, counted)
        if exceeds(spent, charge, lifetime_limit, windows, run_limit, delta_limit, rate):
            log.append(*events)
            return False
    of_run = (None, None, None) if run is None else (run.run, run.job, run.number)
    counts_as = _counts_as(database, charge.nonce, run, charge.statements)
    database.execute(
        "INSERT INTO nonces VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1) ON CONFLICT DO UPDATE SET proposals = proposals + 1",
        (charge.nonce, charge.request_hash, charge.analyst, *of_run, counts_as, charge.charged_at),
    )
    events.append(decided(charge.request_hash, charge.analyst, charge.purpose, ()))
    for nonce, request_hash in charge.replaces:
        events += _replace(database, nonce, request_hash, charge)
    if run is not None and run.continues:
        events += _take_place(database, run.continues, charge)
    if not is_held:
        events += [insert(database, charge), *take(database, charge)]
    log.append(*events)
    return True


def _replace(database: Database, nonce: bytes, request_hash: bytes, by: Charge) -> list[Event]:
    """Never accept a request again, give back what it reserved, and return the events to log.

    Raises AlreadyChargedError if its contribution has left, or may leave, or if the nonce is another request's.
    """
    if state_of(database, nonce) in ("charging", "committed"):
        raise AlreadyChargedError("the request that this one replaces was answered before")
    known = database.execute("SELECT request_hash FROM nonces WHERE nonce = ?", (nonce,)).fetchone()
    if known is not None and known[0] != request_hash:
        raise AlreadyChargedError("the nonce that this request replaces is another request's")
    return [*_take_place(database, nonce, by), *release(database, nonce)]


def _take_place(database: Database, name: bytes, by: Charge) -> list[Event]:
    """Let one request, or the steps of one run, take the place of a request or a run; return the events to log.

    Raises AlreadyChargedError if another has taken it, or if what is named is another analyst's.
    """
    sql = "SELECT 1 FROM nonces WHERE (nonce = ? OR run = ?) AND analyst <> ?"
    if database.execute(sql, (name, name, by.analyst)).fetchone() is not None:
        raise AlreadyChargedError("what this request replaces is another analyst's")
    if is_replaced(database, name, by.names):
        raise AlreadyChargedError("another request took the place of what this one replaces")
    if database.execute("INSERT OR IGNORE INTO replaced VALUES (?, ?)", (name, by.nonce)).rowcount:
        return [Replaced(nonce=name, by=by.nonce)]
    return []


def _is_reserved(database: Database, charge: Charge) -> bool:
    """Tell whether this same charge is reserved; raises AlreadyChargedError if it cannot be reserved any more."""
    known = database.execute("SELECT request_hash, proposals FROM nonces WHERE nonce = ?", (charge.nonce,)).fetchone()
    if known is not None and (known[0] != charge.request_hash or known[1] >= MAX_PROPOSALS):
        raise AlreadyChargedError(f"this nonce is another request's, or was accepted {MAX_PROPOSALS} times")
    if is_replaced(database, charge.nonce) or (charge.run is not None and is_replaced(database, charge.run.run)):
        raise AlreadyChargedError("another request took the place of this one")
    if charge.run is not None and job_of(database, charge.run.run) not in (None, charge.run.job):
        raise AlreadyChargedError("this training run began with another request")
    held = charge_of(database, charge.nonce)
    if held is None:
        return False
    if state_of(database, charge.nonce) != "reserved" or held.micro_rho != charge.micro_rho:
        raise AlreadyChargedError("this request was answered before, or its nonce belongs to another price")
    return True


def _begins_later(database: Database, charge: Charge) -> bool:
    """Tell whether what is reserved for this charge counts on an earlier day, and so perhaps in an earlier window."""
    held = charge_of(database, charge.nonce)
    return held is not None and held.charged_at // DAY_S < charge.charged_at // DAY_S


def begin_charge(database: Database, log: Log, nonce: bytes, round_id: bytes) -> None:
    """Let a reservation count as spent in a round; raises AlreadyChargedError without one."""
    changed = database.execute(
        "UPDATE charges SET state = 'charging', round_id = ? WHERE nonce = ? AND state = 'reserved'",
        (round_id, nonce),
    ).rowcount
    held = charge_of(database, nonce)
    if changed != 1 or held is None:
        raise AlreadyChargedError("nothing is reserved for this request, or its contribution has left")
    log.append(Charging(nonce=nonce, round_id=round_id, micro_rho=held.micro_rho))


def commit(database: Database, log: Log, nonce: bytes, round_id: bytes, consulted: Consulted | None) -> None:
    """Spend a charge that began in this round, whose contribution leaves next; raises AlreadyChargedError without."""
    sql = "UPDATE charges SET state = 'committed' WHERE nonce = ? AND round_id = ? AND state = 'charging' RETURNING run"
    changed = database.execute(sql, (nonce, round_id)).fetchall()
    if len(changed) != 1:
        raise AlreadyChargedError("no charge of this request began in this round, or its contribution has left")
    log.append(Contributed(nonce=nonce, round_id=round_id), *end_used(database, changed[0][0]))
    if consulted is not None:
        about = {"purpose": consulted.purpose, "as_of": consulted.as_of, "feed_at": consulted.feed_at}
        log.append(ConsentRead.model_validate({"nonce": nonce, **about}))


def release(database: Database, nonce: bytes) -> list[Event]:
    """Release one charge that is not committed, if there is one; return the events to log."""
    sql = "DELETE FROM charges WHERE nonce = ? AND state <> 'committed' RETURNING nonce, run"
    return _released(database, sql, (nonce,))


def spend_begun(database: Database) -> list[Event]:
    """Spend every charge that an earlier process had begun; return the events to log."""
    sql = "UPDATE charges SET state = 'committed' WHERE state = 'charging' RETURNING nonce, round_id, run"
    events: list[Event] = []
    for nonce, round_id, run in database.execute(sql).fetchall():
        events += [StaysCharged(nonce=nonce, round_id=round_id), *end_used(database, run)]
    return events


def release_all(database: Database) -> list[Event]:
    """Release every charge that had not begun; return the events to log."""
    return _released(database, "DELETE FROM charges WHERE state = 'reserved' RETURNING nonce, run")


def stop_run(database: Database, log: Log, run: bytes, why: RunOver, releases: bool) -> None:
    """Take no further step of a run, nor one that was accepted and has not begun; see `Ledger.stop_run`."""
    sql = "DELETE FROM charges WHERE run = ? AND state = 'reserved' RETURNING nonce, run"
    log.append(*_released(database, sql, (run,)), *stop(database, run, why, releases))


def _released(database: Database, sql: str, parameters: Sequence[Value] = ()) -> list[Event]:
    """Delete the charges that a statement names; return the events to log."""
    events: list[Event] = []
    for nonce, run in database.execute(sql, parameters).fetchall():
        events += [Released(nonce=nonce), *(give_back(database, nonce, run) if run is not None else ())]
    return events
