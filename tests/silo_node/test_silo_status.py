"""A silo's status comes from its ledger and log, so it is true after a kill; what only the program knows, it says."""

import json
from pathlib import Path

import pytest

import silo_node.owner.cli
from silo_node.data.reach import Reach
from silo_node.killable import ComputeError
from silo_node.ledger.store import LedgerStore
from silo_node.owner.silo_status import rounds_of, silo_status, worded
from tests.harness.example_policy import NOW
from tests.harness.inside import computer_of, set_ahead
from tests.harness.simulator import Simulation, ask
from tests.silo_node.test_home import admit, install, named

QUESTION = "SELECT sex, COUNT(*) AS n FROM lung GROUP BY sex"


def test_the_last_requests_and_the_budget_outlive_a_kill(exact: Simulation, capsys: pytest.CaptureFixture[str]) -> None:
    ask(exact, QUESTION)
    aspen = exact.silos["aspen"]
    before = silo_status(aspen.policy, aspen.clock())
    assert [one["outcome"] for one in before["last"]] == ["answered"]
    assert before["last"][0]["analyst"] == "ana"
    aspen.restarts = True
    aspen.kill()
    after = silo_status(aspen.policy, aspen.clock())
    assert (after["last"], after["budget"]) == (before["last"], before["budget"])
    total = after["budget"][0]
    assert 0 < total["spent"] == pytest.approx(exact.spent("aspen") / 1e6)
    assert total["left"] == pytest.approx(1 - total["spent"])
    assert (after["running"], after["connected"]) == (False, {})
    assert any("not running" in line for line in worded(after))
    assert silo_node.owner.cli.main(["status", "--policy", str(aspen.policy), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["last"] == after["last"]
    assert silo_node.owner.cli.main(["status", "--policy", str(aspen.policy)]) == 0
    assert "answered  ana for health-research" in capsys.readouterr().out


def test_refusals_and_errors_of_the_day_are_counted(exact: Simulation) -> None:
    ask(exact, QUESTION)
    birch = exact.silos["birch"]
    before = silo_status(birch.policy, birch.clock())["errors_today"]["count"]
    away = birch.policy.parent / "away"
    (birch.policy.parent / "lung.parquet").rename(away)
    ask(exact, QUESTION)
    away.rename(birch.policy.parent / "lung.parquet")
    found = silo_status(birch.policy, birch.clock())
    assert found["refusals_today"] == {"SOURCE_AWAY": 1}
    errors = found["errors_today"]
    assert errors["count"] == before + 1
    assert "cannot be opened" in errors["last"][-1]
    yesterday = silo_status(birch.policy, birch.clock() - 86_400)["errors_today"]
    assert yesterday == {"count": 0, "answered_by_nothing": 0, "last": []}


def test_a_question_that_was_answered_by_nothing_is_counted_apart(
    exact: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody outside is told, so an owner who looks must see it, with what to do."""
    birch = exact.silos["birch"]
    assert not any("answered by nothing" in line for line in worded(silo_status(birch.policy, birch.clock())))

    def fail(*_: object) -> None:
        raise ComputeError("no answer within 0.4 s, the worker was ended", "")

    monkeypatch.setattr(computer_of(birch), "computed", fail)
    assert ask(exact, QUESTION)["birch"] == "answered"
    found = silo_status(birch.policy, birch.clock())
    assert found["errors_today"]["answered_by_nothing"] == 1
    (line,) = [line for line in worded(found) if "answered by nothing and noise: 1" in line]
    assert "`consilo-silo doctor` proposes one for [compute]" in line


def test_a_version_that_waits_for_a_restart_is_not_called_the_one_in_force(home: Path) -> None:
    silo = home / "silos" / "aspen"
    admit(install(silo, 1), NOW)
    first = list(worded(silo_status(silo / "policy.toml", NOW)))
    assert first[0].startswith("aspen, policy version 1: ")
    install(silo, 2, named(silo), rho="0.1")
    found = list(worded(silo_status(silo / "policy.toml", NOW)))
    assert found[0].startswith("aspen, policy version 1 in force: ")
    assert found[1] == "  policy       policy.toml is version 2, which is in force from the next start on"


def test_a_request_that_was_dropped_is_not_called_answered(exact: Simulation) -> None:
    ask(exact, QUESTION)
    cedar = exact.silos["cedar"]
    cedar.dies_after, cedar.restarts = "contribute", True
    ask(exact, QUESTION)
    set_ahead(cedar, 0)
    outcomes = [one["outcome"] for one in silo_status(cedar.policy, cedar.clock())["last"]]
    assert outcomes == ["answered", "spent, without an opening"]


def test_without_a_ledger_there_is_a_status_and_none_is_made(home: Path) -> None:
    policy = home / "silos" / "aspen" / "policy.toml"
    ledger = policy.parent / "ledger.sqlite"
    ledger.unlink(missing_ok=True)
    found = silo_status(policy, 0.0)
    assert (found["last"], found["budget"]) == ([], [])
    assert not ledger.exists()


def test_a_log_without_its_beginning_is_read_as_far_as_it_goes(exact: Simulation) -> None:
    ask(exact, QUESTION)
    store = LedgerStore(exact.silos["aspen"].policy.parent / "ledger.sqlite")
    entries = store.entries(100)
    store.close()
    for start in range(len(entries)):
        assert len(list(rounds_of(entries[start:]))) <= 1


def test_what_cannot_be_reached_is_found_without_a_request(exact: Simulation) -> None:
    from tests.harness.inside import reach_of

    aspen = exact.silos["aspen"]
    reach: Reach = reach_of(aspen)
    assert reach.unreachable() == []
    (aspen.policy.parent / "lung.parquet").rename(aspen.policy.parent / "away")
    (found,) = reach.unreachable()
    assert found.startswith("sources.lung: ")
