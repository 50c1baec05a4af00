"""What training runs have reserved ahead, and which runs are over: changed in the transaction of the charge itself.

Promises: a step that is charged is taken out of what its run has reserved, never charged beside it; what is given back
without having left returns to it; of a run that is over no step is reserved any more. docs/ledger.md section 1. The
caller opens the reading or the transaction.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from policies.budget.ledger import Charge, Months, RunOver, RunReservation, RunStep, reserved_until
from policies.errors import AlreadyChargedError
from silo_node.ledger.database import Database, Value
from silo_node.ledger.events import Event, RunReleased, RunReserved, RunStopped, hash_of_row

COLUMNS = (  # in the order of the hash of a row
    "run, analyst, purpose, policy_hash, silos, continues, steps, next_step, each_micro_rho, each_atto_delta, until,"
    " first_month, last_month"
)


def row_of(one: RunReservation) -> tuple[Value, ...]:
    """Return the row of a reservation, in the order of `COLUMNS`."""
    whose = (one.run, one.analyst, one.purpose, one.policy_hash, " ".join(one.silos), one.continues)
    return (*whose, one.steps, one.next_step, one.each, one.each_delta, one.until, one.months.first, one.months.last)


def _of_row(row: tuple[Any, ...]) -> RunReservation:
    fields: list[Any] = [*row[:-2], Months(*row[-2:])]
    fields[4] = tuple(fields[4].split())
    return RunReservation(*fields)


def reservation_of(database: Database, run: bytes) -> RunReservation | None:
    """Return what a run has reserved; None if it has reserved nothing, or not any more."""
    sql = f"SELECT {COLUMNS} FROM run_reservations WHERE run = ?"  # noqa: S608
    row = database.execute(sql, (run,)).fetchone()
    return None if row is None else _of_row(row)


def of_chain(database: Database, run: RunStep) -> RunReservation | None:
    """Return what the run of a step has reserved, or else the run that it continues."""
    own = reservation_of(database, run.run)
    return own if own is not None or not run.continues else reservation_of(database, run.continues)


def all_reservations(database: Database) -> Iterator[RunReservation]:
    """Yield every reservation of a run, by when it ends."""
    sql = f"SELECT {COLUMNS} FROM run_reservations ORDER BY until, run"  # noqa: S608
    return map(_of_row, database.execute(sql).fetchall())


def as_charge(one: RunReservation) -> Charge:
    """Return a reservation as the charge that it counts as: until it ends it counts in every window."""
    whose = (one.run, bytes(32), one.analyst, one.purpose)
    return Charge(*whose, one.micro_rho, one.policy_hash, one.until, months=one.months, atto_delta=one.atto_delta)


def why_over(database: Database, run: bytes, now: int) -> RunOver | None:
    """Return why no further step of a run is taken at a clock time; None if it goes on, or is not known."""
    row = database.execute("SELECT why FROM ended_runs WHERE run = ?", (run,)).fetchone()
    if row is not None:
        why: RunOver = row[0]
        return why
    held = reservation_of(database, run)
    return "expired" if held is not None and held.until <= now else None


def check_goes_on(database: Database, run: RunStep, now: int) -> None:
    """Raise AlreadyChargedError if the run of a step, or the run that it continues, is over."""
    for one in (run.run, run.continues):
        if one and why_over(database, one, now) is not None:
            raise AlreadyChargedError("this training run is over")


def take(database: Database, charge: Charge) -> list[Event]:
    """Take a charge that was just reserved out of what its run has reserved, or let the run reserve the rest.

    Return the events to log.
    """
    run = charge.run
    if run is None or not run.each:
        return []
    before = of_chain(database, run)
    next_step = max(run.number + 1, 0 if before is None else before.next_step)
    until = max(reserved_until(charge.charged_at), 0 if before is None else before.until)
    after = RunReservation(
        run=run.run,
        analyst=charge.analyst,
        purpose=charge.purpose,
        policy_hash=charge.policy_hash,
        silos=run.silos,
        continues=_begun_before(database, run, before),
        steps=run.steps,
        next_step=min(next_step, run.steps),
        each=run.each,
        each_delta=charge.atto_delta,
        until=until,
        months=charge.months,
    )
    events: list[Event] = []
    if before is not None and before.run != run.run:
        events.append(_remove(database, before, "continued"))
    events.append(_put(database, after))
    return events


def _begun_before(database: Database, run: RunStep, before: RunReservation | None) -> bytes:
    """Return the run whose charges tell that a run has begun, beside its own: an earlier one if that has none."""
    if before is None:
        return run.continues
    if before.run == run.run:
        return before.continues
    has_begun = database.execute("SELECT 1 FROM charges WHERE run = ? LIMIT 1", (before.run,)).fetchone() is not None
    return before.run if has_begun else before.continues or before.run


def give_back(database: Database, nonce: bytes, run: bytes) -> list[Event]:
    """Let a step's charge that was just released return to what its run has reserved; return the events to log.

    Without any charge of the run, or of the run that it continues, the whole reservation ends: nothing of it began.
    """
    held = reservation_of(database, run)
    if held is None:
        return []
    sql = "SELECT max(step = (SELECT step FROM nonces WHERE nonce = ?)) FROM charges JOIN nonces USING (nonce)"
    sql += " WHERE charges.run IN (?, ?)"
    (is_of_step,) = database.execute(sql, (nonce, run, held.continues)).fetchone()
    if is_of_step is None:
        return [_remove(database, held, "not-begun")]
    (step,) = database.execute("SELECT step FROM nonces WHERE nonce = ?", (nonce,)).fetchone()
    if is_of_step or step != held.next_step - 1:
        return []
    return [_put(database, replace(held, next_step=step))]


def end_used(database: Database, run: bytes | None) -> list[Event]:
    """End the reservation of a run whose last step was just committed; return the events to log."""
    held = None if run is None else reservation_of(database, run)
    return [_remove(database, held, "used")] if held is not None and not held.parts else []


def learned(database: Database, run: bytes, done: int) -> list[Event]:
    """Give back what a run has reserved for its first `done` steps, as their reports were learned; return the events.

    A silo that has missed a step never contributes to it any more.
    """
    held = reservation_of(database, run)
    if held is None or (done < held.steps and done <= held.next_step):
        return []
    return [_remove(database, held, "used") if done >= held.steps else _put(database, replace(held, next_step=done))]


def is_due(database: Database, now: int) -> bool:
    """Tell whether a reservation has lain too long."""
    return database.execute("SELECT 1 FROM run_reservations WHERE until <= ? LIMIT 1", (now,)).fetchone() is not None


def expire(database: Database, now: int) -> list[Event]:
    """End the reservations that have lain too long, and the runs with them; return the events to log."""
    events: list[Event] = []
    sql = f"SELECT {COLUMNS} FROM run_reservations WHERE until <= ?"  # noqa: S608
    for held in map(_of_row, database.execute(sql, (now,)).fetchall()):
        events += _end(database, held.run, "expired")
        events.append(_remove(database, held, "expired"))
    return events


def stop(database: Database, run: bytes, why: RunOver, releases: bool) -> list[Event]:
    """Take no further step of a run, and with `releases` end its reservation; return the events to log."""
    events = _end(database, run, why)
    held = reservation_of(database, run)
    if releases and held is not None:
        events.append(_remove(database, held, "stopped"))
    return events


def _end(database: Database, run: bytes, why: RunOver) -> list[Event]:
    is_new = database.execute("INSERT OR IGNORE INTO ended_runs VALUES (?, ?)", (run, why)).rowcount
    return [RunStopped(run=run, why=why)] if is_new else []


def _put(database: Database, one: RunReservation) -> RunReserved:
    """Write a reservation in the place of that of the same run; return its log entry."""
    database.execute("DELETE FROM run_reservations WHERE run = ?", (one.run,))
    row = row_of(one)
    places = ", ".join("?" for _ in row)
    database.execute(f"INSERT INTO run_reservations ({COLUMNS}) VALUES ({places})", row)  # noqa: S608
    kept = hash_of_row(*row)
    return RunReserved(run=one.run, parts=one.parts, micro_rho=one.micro_rho, atto_delta=one.atto_delta, row=kept)


def _remove(database: Database, held: RunReservation, why: str) -> RunReleased:
    database.execute("DELETE FROM run_reservations WHERE run = ?", (held.run,))
    fields = {"run": held.run, "why": why, "micro_rho": held.micro_rho, "atto_delta": held.atto_delta}
    return RunReleased.model_validate(fields)
