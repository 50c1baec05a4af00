"""The errors of policies and ledgers.

PolicyError
├── PolicyFileError   an invalid policy file; lists every problem with its line
├── ColumnsFileError  an invalid file of columns for drafts; lists every problem with its line
├── SniffError        a CSV file whose first lines do not show how it is written
├── PolicySignatureError    a version that too few people signed, or that may not follow the one in force
├── ModelError        rows that a model cannot score, a form that it cannot have, or a name of no one model
├── UnpaidError       too many requests of one signer that were refused or given up
└── LedgerError       a ledger that cannot be read, written or trusted
    ├── LedgerFullError        no room on the disk for the next entry
    ├── WaitingFullError       too many requests wait for people to approve them
    └── AlreadyChargedError    a nonce that was spent, or that belongs to another request

A refusal by policy is not an error but an answer: see `Denial` in policies/requests/denials.py.
"""

from pydantic import ValidationError


class PolicyError(Exception):
    """Root of this package's errors; `hint` says what to do about it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)  # everything in args, or Ray cannot rebuild it
        self.message, self.hint = message, hint

    def __str__(self) -> str:
        return self.message


class PolicyFileError(PolicyError):
    """An invalid policy file; `message` has one line per problem, `file:line: path: problem`."""


class ColumnsFileError(PolicyError):
    """An invalid file of columns; `message` has one line per problem, `file:line: path: problem`."""


class SniffError(PolicyError):
    """A CSV file that no policy can be drafted from; names the file and the line, and nothing that stands there."""


class PolicySignatureError(PolicyError):
    """A policy version that too few people signed, that is not valid now, or that may not follow the last one."""


class ModelError(PolicyError):
    """Rows that a model cannot score, a form in which it cannot be written, or a name that is not that of one model."""


class UnpaidError(PolicyError):
    """A signer whose requests were refused or given up too often to judge, and to log, one more now."""


class LedgerError(PolicyError):
    """A ledger that cannot be read, written or trusted; the silo answers nothing until its owner repairs it."""


class LedgerFullError(LedgerError):
    """No room on the disk for the next entry of the ledger."""


class WaitingFullError(LedgerError):
    """Too many requests wait for people to approve them."""


class AlreadyChargedError(LedgerError):
    """A nonce whose contribution has left, that another request or price uses, or without a reservation."""


def reason_of(err: ValueError) -> str:
    """Return the first reason why a value cannot stand, without the words that pydantic puts before it."""
    return err.errors()[0]["msg"].removeprefix("Value error, ") if isinstance(err, ValidationError) else str(err)
