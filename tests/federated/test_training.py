"""Training between organisations while the aggregator's process is killed: the same command goes on, none twice."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import analyst.link
from analyst.client import Federation
from analyst.errors import AnalystError, StuckError
from analyst.training.job import read_job
from analyst.training.run import Training, train
from federation.errors import FederationError
from tests.federated.test_restart import Aggregator
from tests.harness.federated import ANALYST, LocalSilo, Loop, free_port, provision
from tests.harness.inside import ledger_of
from tests.harness.waiting import until
from tests.rounds.test_killed import ROUNDS, SILOS, founded

pytestmark = [pytest.mark.server, pytest.mark.process, pytest.mark.timeout(400)]

AWAY_S = 1.0
LEFT = ("contribute", "agree", "open_shares")  # steps before which contributions have left


@dataclass
class Banks:
    path: Path
    aggregator: Aggregator
    silos: list[LocalSilo]
    waiting: list[threading.Thread] = field(default_factory=list)

    def kill(self) -> None:
        """Kill the aggregator, and start it again after a while."""
        self.aggregator.kill()

        def back() -> None:
            time.sleep(AWAY_S)
            self.aggregator.start()

        self.waiting.append(threading.Thread(target=back))
        self.waiting[-1].start()

    def charges(self) -> dict[str, int]:
        return {one.name: len(ledger_of(one).history()) for one in self.silos}

    def run(self) -> Training:
        home = self.path / ANALYST
        with Federation.open(home / "consilo.toml") as federation:
            return train(federation, read_job(home / "job.toml"), keep=home / "job.toml.run.json")


@pytest.fixture
def banks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Banks]:
    monkeypatch.setattr(analyst.link, "PATIENCE_S", 30.0)
    port, loop, source = free_port(), Loop(), founded(tmp_path / "f")
    for policy in source.glob("silos/*/policy.toml"):
        lines = policy.read_text().split("\n")
        place = next(place for place, line in enumerate(lines) if line.startswith("silo = {"))
        parts = lines.pop(place).removeprefix("silo = {").removesuffix("}").split(", ")
        policy.write_text("\n".join([*lines[:place], *lines[place:], "[silo]", *(part.strip() for part in parts), ""]))
    path = provision(tmp_path / "p", source, f"127.0.0.1:{port}", silos=SILOS)
    (path / ANALYST / "job.toml").write_text((source / "job.toml").read_text())
    aggregator, silos = Aggregator(path, f"127.0.0.1:{port}"), list[LocalSilo]()
    found = Banks(path, aggregator, silos)
    try:
        aggregator.start()
        silos += [LocalSilo(path, name, loop) for name in SILOS]
        until(lambda: all(one.dialler.is_connected for one in silos), 60)
        yield found
    finally:
        for thread in found.waiting:
            thread.join()
        for one in silos:
            one.stop()
        aggregator.kill()
        loop.close()


def test_an_aggregator_killed_at_any_step_of_a_round_ends_no_run(banks: Banks) -> None:
    south = banks.silos[-1]
    for killed_at in ("propose", "share", "ready", "contribute", "agree", "open_shares", "learn"):
        count = list[str]()

        def kill(step: str, killed_at: str = killed_at, count: list[str] = count) -> None:
            count.extend([step] if step == killed_at else [])
            if step == killed_at and len(count) == 2:  # in the second round
                banks.kill()

        before, errors = banks.charges(), list[AnalystError | FederationError]()
        south.before = kill
        training: Training | None = None
        while training is None and len(errors) < 3:
            try:
                training = banks.run()
            except (AnalystError, FederationError) as err:
                errors.append(err)
        print(killed_at, *(f"{type(err).__name__}: {err}; {err.hint}" for err in errors), sep="\n  ")
        assert training is not None, killed_at
        assert all(err.hint for err in errors)
        assert not any(isinstance(err, StuckError) for err in errors) or killed_at in LEFT
        assert (training.ended, training.steps, training.holders) == ("complete", ROUNDS, SILOS), killed_at
        spent = {silo: count - before[silo] for silo, count in banks.charges().items()}
        # Of the round in which the aggregator was lost contributions may have left: that model is asked for no more.
        lost = 2 if killed_at in LEFT else 0
        assert all(ROUNDS <= count <= ROUNDS + lost for count in spent.values()), (killed_at, spent)
