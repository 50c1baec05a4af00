"""What an aggregator's operator sees of requests: bounded lines that outlive a restart, and nothing of a message."""

import json
from pathlib import Path

import pytest

from aggregator import request_log
from aggregator.driver import Ended
from aggregator.request_log import REQUEST_LOG, RequestLine, RequestLog, read_request_log
from aggregator.status import status
from federation.operations.monitoring import AggregatorCounts
from tests.harness.inside import set_ahead
from tests.harness.simulator import Simulation, ask

QUESTION = "SELECT sex, COUNT(*) AS n FROM lung GROUP BY sex"


@pytest.fixture
def ended(exact: Simulation) -> Ended:
    """A request that one silo was unable to answer."""
    call = exact.silos["birch"].call

    async def late(step: str, *arguments: bytes) -> tuple[bytes, ...]:
        if step == "propose":
            set_ahead(exact.silos["birch"], 600)
        return await call(step, *arguments)

    exact.silos["birch"].call = late  # type: ignore[method-assign]
    ask(exact, QUESTION)
    return exact.ended[-1]


def test_a_request_is_one_line_in_the_log_the_counts_and_the_file(
    ended: Ended, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = AggregatorCounts()
    RequestLog(tmp_path, counts).ended(ended)
    RequestLog(tmp_path, counts).ended(ended)  # another process, after a kill
    first, second = read_request_log(tmp_path, 10)
    assert (first.outcome, first.analyst, first.purpose) == ("answered", "ana", "health-research")
    statuses = {one.silo: one.status for one in first.silos}
    assert statuses == dict.fromkeys(statuses, "answered") | {"birch": "unable"}
    (said,) = [one.said for one in first.silos if one.said]
    assert said.startswith("CLOCK: the round has expired")
    assert "(remedy: ask again; if it recurs, set the clocks" in said
    assert second.silos == first.silos
    assert (tmp_path / REQUEST_LOG).stat().st_mode & 0o777 == 0o600
    assert counts.registry.get_sample_value("consilo_requests_total", {"outcome": "answered"}) == 2
    assert counts.registry.get_sample_value("consilo_denials_total", {"code": "CLOCK"}) == 2
    labels = {"silo": "birch", "status": "unable"}
    assert counts.registry.get_sample_value("consilo_silo_outcomes_total", labels) == 2
    logged = "".join(capsys.readouterr())
    assert "request_ended" in logged
    for hidden in ("sex", "lung", "COUNT"):
        assert hidden not in logged + first.encode().decode(), "who asked for what purpose, and not the question"


def test_a_line_that_a_crash_cut_short_is_left_out(ended: Ended, tmp_path: Path) -> None:
    keeper = RequestLog(tmp_path, AggregatorCounts())
    keeper.ended(ended)
    whole = (tmp_path / REQUEST_LOG).read_bytes()
    with (tmp_path / REQUEST_LOG).open("ab") as file:
        file.write(whole[:40] + b"\n\xff\n[]\n" + whole)
    assert len(read_request_log(tmp_path, 10)) == 2


def test_the_file_is_bounded_and_a_full_disk_costs_a_line(
    ended: Ended, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "hub"
    home.mkdir()
    keeper = RequestLog(home, AggregatorCounts())
    keeper.ended(ended)
    length = (home / REQUEST_LOG).stat().st_size
    monkeypatch.setattr(request_log, "MAX_FILE_BYTES", 3 * length)
    for _ in range(20):
        keeper.ended(ended)
    assert sum(file.stat().st_size for file in home.iterdir()) < 9 * length
    assert 3 <= len(read_request_log(home, 100)) <= 8
    RequestLog(tmp_path / "nowhere", AggregatorCounts()).ended(ended)


def test_the_longest_words_fit_into_a_line(ended: Ended) -> None:
    reason = "x" * 5000
    line = RequestLog(Path("/nowhere"), AggregatorCounts())
    line.ended(Ended(ended.asked, ended.outcomes, reason, 10_000.0))
    ended.outcomes.own = reason
    line.ended(Ended(ended.asked, ended.outcomes, reason, 10_000.0))


def test_a_status_of_no_aggregator_is_an_error(tmp_path: Path) -> None:
    from aggregator.errors import AggregatorError

    with pytest.raises(AggregatorError, match=r"aggregator\.toml cannot be read"):
        status(tmp_path, 0.0)


def test_lines_of_the_log_are_canonical(ended: Ended, tmp_path: Path) -> None:
    RequestLog(tmp_path, AggregatorCounts()).ended(ended)
    raw = (tmp_path / REQUEST_LOG).read_bytes().strip()
    assert RequestLine.decode(raw).encode() == raw
    assert json.loads(raw)["outcome"] == "answered"
