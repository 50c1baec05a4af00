"""The tiers of the tests: `make test` runs what needs nothing but this process, `make check` whatever bears a mark.

pyproject.toml says what each mark means. A test that starts a process or opens a port without the mark for it fails
here, so the quick tier stays quick and runs anywhere. At the end of a run stands what the tests of each mark took.
"""

import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

MARKS = ("ray", "server", "process", "he", "torch", "postgres", "netns", "slow", "fuzz")
# Python's audit event, what a test does that raises it, and the marks that allow it.
_STARTS_PROCESS = ("starts a process", frozenset({"process", "he", "ray", "postgres", "netns", "fuzz"}))
_OPENS_PORT = ("opens a port", frozenset({"server", "ray", "postgres", "netns"}))
WATCHED = {
    "subprocess.Popen": _STARTS_PROCESS,
    "os.fork": _STARTS_PROCESS,
    "os.posix_spawn": _STARTS_PROCESS,
    "socket.bind": _OPENS_PORT,
}


@dataclass
class _Watch:
    """What the test that runs now did without a mark for it."""

    marks: frozenset[str] | None = None  # None: no test runs
    found: list[str] = field(default_factory=list)


_watch = _Watch()


def _audit(event: str, arguments: object) -> None:
    if event in WATCHED and _watch.marks is not None:
        what, allowing = WATCHED[event]
        if not _watch.marks & allowing:
            _watch.found.append(
                f"{what}, and bears none of the marks {', '.join(sorted(allowing))}: {arguments!r:.300}"
            )


sys.addaudithook(_audit)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Watch a test with the fixtures that it is the first to use."""
    _watch.marks = frozenset(mark.name for mark in item.iter_markers())
    _watch.found.clear()
    try:
        return (yield)
    finally:
        _watch.marks = None


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown() -> Iterator[None]:
    """Fail what did more than its marks allow; what ends with the last test of a run is no deed of that test."""
    _watch.marks = None
    yield
    if _watch.found:
        pytest.fail("\n".join(_watch.found), pytrace=False)


class Shares:
    """Sums what the tests of each mark take, over all processes of a run."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._tests: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add a test's set-up, call or tear-down to each of its marks."""
        for mark in [name for name in MARKS if name in report.keywords] or ["no mark"]:
            self._seconds[mark] += report.duration
            self._tests[mark] += report.when == "call"

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Write the table; a test of several marks counts for each."""
        if self._tests:
            terminalreporter.section("share of each mark")
            for mark, seconds in sorted(self._seconds.items(), key=lambda one: -one[1]):
                terminalreporter.write_line(f"{mark:10}{self._tests[mark]:6} tests{seconds:9.1f} s")


def pytest_configure(config: pytest.Config) -> None:
    """Let a run say what each mark took; the processes that xdist starts report to it."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Shares(), "consilo-shares")
