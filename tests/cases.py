"""The cases of a test: `every` loops over many, where `pytest.mark.parametrize` would make a test of each.

A loop costs a microsecond a case, a test a millisecond, its fixtures and a line of the report. Use `every` where the
cases are many and cheap and share their fixtures, `parametrize` where each case has a name that a reader looks for.
All cases run, and all that fail are named.
"""

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import pytest

ENCRYPTED = ("bfv", "ckks", "paillier")
Test = Callable[..., None]
Cases = Iterable[Any] | Callable[[], Iterable[Any]]


def every(names: str | tuple[str, ...], cases: Cases) -> Callable[[Test], Test]:
    """Make one test of a function and the values of some of its arguments; the other arguments are fixtures.

    Fixtures are made once for all cases, so a case leaves them as it found them. Cases that are costly to list are
    given as a function, which is called when the test runs. Two of these decorators make the product of their cases.
    """
    given = tuple(name.strip() for name in names.split(",")) if isinstance(names, str) else names

    def decorate(function: Test) -> Test:
        @functools.wraps(function, updated=())
        def test(*arguments: Any, **fixtures: Any) -> None:
            failures: list[BaseException] = []
            count = 0
            for count, case in enumerate(cases() if callable(cases) else cases, start=1):
                values = dict(zip(given, case if len(given) > 1 else (case,), strict=True))
                try:
                    function(*arguments, **fixtures, **values)
                except (Exception, pytest.fail.Exception) as err:
                    err.add_note(f"in case {count} of {function.__name__}: {str(values)[:600]}")
                    failures.append(err)
            assert count, "a property of no case"
            if len(failures) == 1:
                raise failures[0]
            if failures:
                raise BaseExceptionGroup(f"{len(failures)} of {count} cases failed", failures)

        signature = inspect.signature(function)
        kept = [parameter for name, parameter in signature.parameters.items() if name not in given]
        test.__signature__ = signature.replace(parameters=kept)  # type: ignore[attr-defined]
        if marks := getattr(function, "pytestmark", None):
            test.pytestmark = list(marks)  # type: ignore[attr-defined]
        return test

    return decorate


def of_backends(names: Iterable[str]) -> list[Any]:
    """Return backends as parameters of a test; those that compute under encryption bear the mark for it."""
    return [pytest.param(name, marks=pytest.mark.he) if name in ENCRYPTED else name for name in names]
