"""A confined process computes, and can open, connect and start nothing."""

import errno
import os
import platform
from collections.abc import Iterator

import pytest

from crypto.backends.sandbox import Job, Limits, Sandbox
from tests.harness.confined_worker import CONFINE, LIMITS_ALONE, MODULE, REPLY_BYTES, TRIED, TRY

pytestmark = pytest.mark.process
ALLOWED = ("compute", "memory", "random bytes", "limits as they are")


@pytest.fixture(scope="module")
def confined() -> Iterator[Sandbox]:
    with Sandbox(MODULE, b"", limits=Limits(wall_s=30.0)) as sandbox:
        assert sandbox.run(Job("confining", CONFINE, b"", REPLY_BYTES)).strip() == b""
        yield sandbox


def tried(sandbox: Sandbox, what: str) -> str:
    return sandbox.run(Job(what, TRY, what.encode(), REPLY_BYTES)).decode().strip()


def test_what_computing_needs_is_allowed(confined: Sandbox) -> None:
    assert {what: tried(confined, what) for what in ALLOWED} == dict.fromkeys(ALLOWED, "done")


def test_every_way_out_is_refused(confined: Sandbox) -> None:
    ways = [what for what in TRIED if what not in ALLOWED]
    assert len(ways) > 15
    if platform.machine() != "x86_64":  # the numbers of these calls
        ways = [one for one in ways if one not in ("memory of another", "trace", "a ring of calls")]
    assert {what: tried(confined, what) for what in ways} == dict.fromkeys(ways, "refused 1")


def test_before_it_is_confined_all_of_it_works() -> None:
    with Sandbox(MODULE, b"", limits=Limits(wall_s=30.0)) as sandbox:
        for what in ("read a file", "a socket", "a process", "a pipe", "list a folder"):
            assert tried(sandbox, what) == "done", what


def test_where_there_is_no_filter_the_limits_stand_and_it_is_said() -> None:
    with Sandbox(MODULE, b"", limits=Limits(wall_s=30.0)) as sandbox:
        said = sandbox.run(Job("confining", LIMITS_ALONE, b"", REPLY_BYTES)).strip()
        assert said == b"there is no filter for the machine 'no machine'"
        for what in ("read a file", "list a folder", "a socket", "a pipe", "a file in memory"):
            assert tried(sandbox, what) == f"refused {errno.EMFILE}", what
        if os.geteuid():  # the superuser may start processes beyond the limit
            assert tried(sandbox, "a fork") == f"refused {errno.EAGAIN}"
        assert tried(sandbox, "compute") == "done"
