"""The tables of a silo's ledger file, and the statements that update a file of an older format.

Triggers keep running totals in the transaction of the charge itself, so a limit is checked without adding up all rows.
Triggers also refuse to alter a charge, to remove a committed one, or to rewrite the log, which this program never does.
"""

from collections.abc import Mapping

from policies.units import DAY_S

VERSION = 8
PLAIN_BYTES = 32

_CHARGES = """
CREATE TABLE charges (
    nonce BLOB PRIMARY KEY CHECK (length(nonce) = 16),
    request_hash BLOB NOT NULL,
    analyst TEXT NOT NULL,
    purpose TEXT NOT NULL,
    micro_rho INTEGER NOT NULL CHECK (micro_rho >= 0),
    policy_hash BLOB NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('reserved', 'charging', 'committed')),
    round_id BLOB,
    charged_at INTEGER NOT NULL,
    run BLOB,
    first_month INTEGER NOT NULL DEFAULT 0,
    last_month INTEGER NOT NULL DEFAULT 120000,
    atto_delta INTEGER NOT NULL DEFAULT 0 CHECK (atto_delta >= 0),
    curve BLOB,
    CHECK ((state = 'reserved') = (round_id IS NULL))
) STRICT, WITHOUT ROWID;
"""
_OLD_COLUMNS = "nonce, request_hash, analyst, purpose, micro_rho, policy_hash, state, round_id, charged_at"

# A charge that is not a line of rho has a curve; `silo_node.ledger.spending` adds the curves.
_TOTALS = f"""
CREATE TABLE lifetime (
    id INTEGER PRIMARY KEY CHECK (id = 1), micro_rho INTEGER NOT NULL, atto_delta INTEGER NOT NULL
) STRICT;
CREATE TABLE by_day (
    purpose TEXT NOT NULL, day INTEGER NOT NULL, analyst TEXT NOT NULL, micro_rho INTEGER NOT NULL,
    PRIMARY KEY (purpose, day, analyst)
) STRICT, WITHOUT ROWID;
CREATE TABLE by_month (
    purpose TEXT NOT NULL, first_month INTEGER NOT NULL, last_month INTEGER NOT NULL, analyst TEXT NOT NULL,
    micro_rho INTEGER NOT NULL,
    PRIMARY KEY (purpose, first_month, last_month, analyst)
) STRICT, WITHOUT ROWID;
INSERT INTO lifetime
    SELECT 1, coalesce(sum(micro_rho) FILTER (WHERE curve IS NULL), 0), coalesce(sum(atto_delta), 0) FROM charges;
INSERT INTO by_day
    SELECT purpose, charged_at / {DAY_S}, analyst, sum(micro_rho) FROM charges GROUP BY 1, 2, 3;
INSERT INTO by_month
    SELECT purpose, first_month, last_month, analyst, sum(micro_rho) FROM charges GROUP BY 1, 2, 3, 4;
"""  # noqa: S608
_WATCHED = f"""
CREATE INDEX charges_run ON charges (run, analyst) WHERE run IS NOT NULL;
CREATE INDEX charges_curve ON charges (nonce) WHERE curve IS NOT NULL;
CREATE INDEX charges_reserved ON charges (nonce) WHERE state = 'reserved';
CREATE TRIGGER charge_added AFTER INSERT ON charges BEGIN
    UPDATE lifetime SET micro_rho = micro_rho + iif(NEW.curve IS NULL, NEW.micro_rho, 0),
        atto_delta = atto_delta + NEW.atto_delta;
    INSERT INTO by_day VALUES (NEW.purpose, NEW.charged_at / {DAY_S}, NEW.analyst, NEW.micro_rho)
        ON CONFLICT DO UPDATE SET micro_rho = micro_rho + excluded.micro_rho;
    INSERT INTO by_month VALUES (NEW.purpose, NEW.first_month, NEW.last_month, NEW.analyst, NEW.micro_rho)
        ON CONFLICT DO UPDATE SET micro_rho = micro_rho + excluded.micro_rho;
END;
CREATE TRIGGER charge_released AFTER DELETE ON charges BEGIN
    UPDATE lifetime SET micro_rho = micro_rho - iif(OLD.curve IS NULL, OLD.micro_rho, 0),
        atto_delta = atto_delta - OLD.atto_delta;
    UPDATE by_day SET micro_rho = micro_rho - OLD.micro_rho
        WHERE purpose = OLD.purpose AND day = OLD.charged_at / {DAY_S} AND analyst = OLD.analyst;
    UPDATE by_month SET micro_rho = micro_rho - OLD.micro_rho
        WHERE purpose = OLD.purpose AND first_month = OLD.first_month AND last_month = OLD.last_month
        AND analyst = OLD.analyst;
END;
CREATE TRIGGER charge_stays BEFORE DELETE ON charges WHEN OLD.state = 'committed' BEGIN
    SELECT RAISE(ABORT, 'a spent charge stays');
END;
CREATE TRIGGER charge_commits_only BEFORE UPDATE ON charges
    WHEN OLD.state = 'committed' OR NEW.state = 'reserved' OR (OLD.state = 'reserved') <> (NEW.state = 'charging')
    OR NEW.round_id IS NOT coalesce(OLD.round_id, NEW.round_id)
    OR (NEW.nonce, NEW.micro_rho, NEW.analyst, NEW.purpose, NEW.charged_at, NEW.curve, NEW.atto_delta, NEW.run)
        IS NOT (OLD.nonce, OLD.micro_rho, OLD.analyst, OLD.purpose, OLD.charged_at, OLD.curve, OLD.atto_delta, OLD.run)
BEGIN
    SELECT RAISE(ABORT, 'a charge is never altered');
END;
"""  # noqa: S608
# Requests of a day are counted by `counts_as`: the job of a training run, else the nonce itself. One that is longer
# than `PLAIN_BYTES` counts as so many requests as it has bytes more: the statements of the request.
_NONCES = """
CREATE TABLE nonces (
    nonce BLOB PRIMARY KEY, request_hash BLOB NOT NULL, analyst TEXT NOT NULL, run BLOB, job BLOB, step INTEGER,
    counts_as BLOB NOT NULL, first_at INTEGER NOT NULL, proposals INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
"""
_NONCES_FOUND = """
CREATE INDEX nonces_first ON nonces (analyst, first_at, counts_as);
CREATE INDEX nonces_run ON nonces (run) WHERE run IS NOT NULL;
CREATE INDEX nonces_step ON nonces (job, step) WHERE job IS NOT NULL;
"""
_NEW_NONCES = f"""
{_NONCES}{_NONCES_FOUND}
INSERT INTO nonces
    SELECT nonce, request_hash, analyst, run, NULL, NULL, coalesce(run, nonce), charged_at, 1 FROM charges;
"""  # noqa: S608
_KEEP_NONCES = f"""
ALTER TABLE nonces RENAME TO old_nonces;
{_NONCES}
INSERT INTO nonces
    SELECT nonce, request_hash, analyst, run, NULL, NULL, coalesce(run, nonce), first_at, proposals FROM old_nonces;
DROP TABLE old_nonces;
{_NONCES_FOUND}"""  # noqa: S608
# A request or a run (by its id) in whose place another request stands: it is never accepted again.
_REPLACED = """
CREATE TABLE replaced (nonce BLOB PRIMARY KEY, by BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TRIGGER replaced_stays BEFORE DELETE ON replaced BEGIN
    SELECT RAISE(ABORT, 'what was replaced stays so');
END;
CREATE TRIGGER replaced_never_changes BEFORE UPDATE ON replaced BEGIN
    SELECT RAISE(ABORT, 'what was replaced stays so');
END;
"""
_SPLITS = """
CREATE TABLE splits (
    round_id BLOB PRIMARY KEY, split_hash BLOB NOT NULL, signed_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
"""
# Format 8: the numbers of a state stand beside its signed header; a state of before is one text, and has none. Those of
# a long state are NULL here and lie in a file, see `silo_node.ledger.state_files`.
_RUNS = """
CREATE TABLE runs (
    run BLOB PRIMARY KEY, state BLOB NOT NULL, saved_at INTEGER NOT NULL, numbers BLOB DEFAULT x''
) STRICT, WITHOUT ROWID;
"""
_ADD_NUMBERS = "ALTER TABLE runs ADD COLUMN numbers BLOB DEFAULT x'';"
_APPROVALS = """
CREATE TABLE requests (
    subject BLOB PRIMARY KEY, envelope BLOB NOT NULL, analyst TEXT NOT NULL, purpose TEXT NOT NULL,
    micro_rho INTEGER NOT NULL, asked_at INTEGER NOT NULL, expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE verdicts (
    subject BLOB NOT NULL, who TEXT NOT NULL, at INTEGER NOT NULL, decision TEXT NOT NULL, envelope BLOB NOT NULL,
    PRIMARY KEY (subject, who, at, decision)
) STRICT, WITHOUT ROWID;
"""
# An entry that is erased in time is emptied; its place and its chain hash stay.
_LOG_CHANGES = """
CREATE TRIGGER log_never_changes BEFORE UPDATE ON log
    WHEN (NEW.seq, NEW.at, NEW.body, NEW.chain) IS NOT (OLD.seq, 0, x'', OLD.chain)
BEGIN
    SELECT RAISE(ABORT, 'an entry of the log never changes');
END;
"""
_LOG_KEEPS = """
CREATE TRIGGER log_keeps BEFORE DELETE ON log BEGIN
    SELECT RAISE(ABORT, 'an entry of the log stays');
END;
"""
_LOG = f"""
CREATE TABLE log (
    seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, body BLOB NOT NULL, chain BLOB NOT NULL
) STRICT;
CREATE TABLE head (
    id INTEGER PRIMARY KEY CHECK (id = 1), envelope BLOB NOT NULL
) STRICT;
{_LOG_CHANGES}{_LOG_KEEPS}"""
# Format 7: what runs have reserved for the steps that have not begun, and the runs of which no step is taken any more.
# A reservation counts on the day on which it ends, and so in every window until then. It is never changed, but written
# anew.
_LEFT = "(steps - next_step)"
_NEW_LEFT, _OLD_LEFT = ("(NEW.steps - NEW.next_step)", "(OLD.steps - OLD.next_step)")
_RESERVATIONS = f"""
CREATE TABLE run_reservations (
    run BLOB PRIMARY KEY CHECK (length(run) = 16),
    analyst TEXT NOT NULL,
    purpose TEXT NOT NULL,
    policy_hash BLOB NOT NULL,
    silos TEXT NOT NULL,
    continues BLOB NOT NULL,
    steps INTEGER NOT NULL,
    next_step INTEGER NOT NULL CHECK (next_step BETWEEN 0 AND steps),
    each_micro_rho INTEGER NOT NULL CHECK (each_micro_rho >= 0),
    each_atto_delta INTEGER NOT NULL CHECK (each_atto_delta >= 0),
    until INTEGER NOT NULL,
    first_month INTEGER NOT NULL,
    last_month INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE ended_runs (run BLOB PRIMARY KEY, why TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TRIGGER ended_run_stays BEFORE DELETE ON ended_runs BEGIN
    SELECT RAISE(ABORT, 'a run that is over stays so');
END;
CREATE TRIGGER ended_run_never_changes BEFORE UPDATE ON ended_runs BEGIN
    SELECT RAISE(ABORT, 'a run that is over stays so');
END;
CREATE TRIGGER run_reserves AFTER INSERT ON run_reservations BEGIN
    UPDATE lifetime SET micro_rho = micro_rho + {_NEW_LEFT} * NEW.each_micro_rho,
        atto_delta = atto_delta + {_NEW_LEFT} * NEW.each_atto_delta;
    INSERT INTO by_day
        VALUES (NEW.purpose, NEW.until / {DAY_S}, NEW.analyst, {_NEW_LEFT} * NEW.each_micro_rho)
        ON CONFLICT DO UPDATE SET micro_rho = micro_rho + excluded.micro_rho;
    INSERT INTO by_month
        VALUES (NEW.purpose, NEW.first_month, NEW.last_month, NEW.analyst, {_NEW_LEFT} * NEW.each_micro_rho)
        ON CONFLICT DO UPDATE SET micro_rho = micro_rho + excluded.micro_rho;
END;
CREATE TRIGGER run_releases AFTER DELETE ON run_reservations BEGIN
    UPDATE lifetime SET micro_rho = micro_rho - {_OLD_LEFT} * OLD.each_micro_rho,
        atto_delta = atto_delta - {_OLD_LEFT} * OLD.each_atto_delta;
    UPDATE by_day SET micro_rho = micro_rho - {_OLD_LEFT} * OLD.each_micro_rho
        WHERE purpose = OLD.purpose AND day = OLD.until / {DAY_S} AND analyst = OLD.analyst;
    UPDATE by_month SET micro_rho = micro_rho - {_OLD_LEFT} * OLD.each_micro_rho
        WHERE purpose = OLD.purpose AND first_month = OLD.first_month AND last_month = OLD.last_month
        AND analyst = OLD.analyst;
END;
CREATE TRIGGER run_reservation_never_changes BEFORE UPDATE ON run_reservations BEGIN
    SELECT RAISE(ABORT, 'a reservation is written anew');
END;
"""  # noqa: S608
# Everything that counts as spent: the charges, and what runs have reserved.
COUNTED = f"""
SELECT purpose, charged_at AS at, analyst, micro_rho, atto_delta, curve, first_month, last_month FROM charges UNION ALL
SELECT purpose, until, analyst, {_LEFT} * each_micro_rho, {_LEFT} * each_atto_delta, NULL, first_month, last_month
FROM run_reservations
"""  # noqa: S608
_NEW = f"{_TOTALS}{_WATCHED}{_NEW_NONCES}{_APPROVALS}{_LOG}{_REPLACED}{_RESERVATIONS}"
_KEEP_SPLITS = f"""
ALTER TABLE splits RENAME TO old_splits;
{_SPLITS}
INSERT INTO splits SELECT *, unixepoch() FROM old_splits;
DROP TABLE old_splits;
"""  # noqa: S608
_KEEP_RUNS = f"""
ALTER TABLE runs RENAME TO old_runs;
{_RUNS}
INSERT INTO runs SELECT *, unixepoch(), x'' FROM old_runs;
DROP TABLE old_runs;
"""  # noqa: S608


def _keep_charges(columns: str) -> str:
    copied = f"INSERT INTO charges ({columns}) SELECT {columns} FROM old_charges;DROP TABLE old_charges;"  # noqa: S608
    return f"ALTER TABLE charges RENAME TO old_charges;{_CHARGES}{copied}"


# Format 5: a charge can be charging, between its reservation and its commitment.
_ALL_COLUMNS = f"{_OLD_COLUMNS}, run, first_month, last_month, atto_delta, curve"
_CAN_BE_CHARGING = f"{_keep_charges(_ALL_COLUMNS)}{_WATCHED}"
CHANGES: Mapping[int, str] = {  # from each older format; from nothing
    0: f"{_CHARGES}{_SPLITS}{_RUNS}{_NEW}",
    1: f"{_keep_charges(_OLD_COLUMNS)}{_KEEP_SPLITS}{_RUNS}{_NEW}",
    2: f"{_keep_charges(_OLD_COLUMNS + ', run')}{_KEEP_SPLITS}{_KEEP_RUNS}{_NEW}",
    3: f"DROP TRIGGER log_never_changes;DROP TRIGGER log_keeps;{_LOG_CHANGES}{_LOG_KEEPS}{_KEEP_NONCES}"
    f"{_CAN_BE_CHARGING}{_REPLACED}{_RESERVATIONS}{_ADD_NUMBERS}",
    4: f"{_CAN_BE_CHARGING}{_REPLACED}{_RESERVATIONS}{_ADD_NUMBERS}",
    5: f"{_REPLACED}{_RESERVATIONS}{_ADD_NUMBERS}",
    6: f"{_RESERVATIONS}{_ADD_NUMBERS}",
    7: _ADD_NUMBERS,
}
