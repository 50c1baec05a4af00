"""What can go wrong with a policy or a request.

PolicyError
├── PolicyFileError   a policy file that cannot stand; lists every problem with its line
├── PolicySignatureError    a version that too few people signed, or that may not follow the one in force
└── LedgerError       a ledger that cannot be read, written or believed
    └── AlreadyChargedError    a nonce that was spent, or that belongs to another request

A refusal by policy is not an error but an answer: see `Denial` in policies/requests/request.py.
"""


class PolicyError(Exception):
    """Root of this package's errors; `hint` says what to do about it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)  # everything in args, or Ray cannot rebuild it
        self.message, self.hint = message, hint

    def __str__(self) -> str:
        return self.message


class PolicyFileError(PolicyError):
    """A policy file that cannot stand; `message` has one line per problem, `file:line: path: problem`."""


class PolicySignatureError(PolicyError):
    """A version of a policy that too few people signed, that is out of its term, or that may not follow the last."""


class LedgerError(PolicyError):
    """A ledger that cannot be read, written or believed: the silo answers nothing until its owner mends it."""


class AlreadyChargedError(LedgerError):
    """A nonce whose contribution has left, that another request or price holds, or for which nothing is reserved."""
