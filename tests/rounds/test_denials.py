"""The same request against neighbouring data is refused in the same bytes: a denial never depends on a row."""

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analyst.demo.hospitals import PURPOSE
from analyst.demo.sector import DECISIONS
from crypto.errors import CryptoError
from crypto.keys import SigningKey, read_key_file
from crypto.rounds.manifest import Accept, Propose
from crypto.wire import Message, sign, unverified
from policies.requests.denials import Refusal
from policies.requests.predicates import Compare
from policies.requests.request import Request
from silo_node.actor import SiloActor
from tests.harness.simulator import simulate

QUESTION = "SELECT sex, COUNT(*) AS n, AVG(age) AS mean_age FROM lung WHERE age > 40 GROUP BY sex"
SILO = "aspen"


@pytest.fixture(scope="module")
def asked(founded: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Request]:
    """A federation to copy, and a request that all its silos would answer."""
    path = tmp_path_factory.mktemp("asked") / "federation"
    shutil.copytree(founded, path)
    with simulate(path) as simulation:
        _, request = simulation.federation.prepare(QUESTION, purpose=PURPOSE, epsilon=1)
    return path, request


def variants(request: Request) -> dict[str, Request]:
    """Return requests that are refused, each for another reason."""
    plan, columns = request.plan, list(request.table.columns)
    age = next(index for index, one in enumerate(columns) if one.name == "age")
    columns[age] = columns[age].model_copy(update={"low": (columns[age].low or 0) - 5})
    wider = request.table.model_copy(update={"columns": tuple(columns)})
    hidden = plan.model_copy(update={"where": Compare(column="weight_loss", op="=", value="3")})
    with_hidden = request.table.model_copy(
        update={"columns": (*request.table.columns, columns[age].model_copy(update={"name": "weight_loss"}))}
    )
    changes: dict[str, dict[str, Any]] = {
        "too dear": {"micro_rho": 900_000},
        "all noise": {"micro_rho": 1},
        "wider bounds": {"table": wider},
        "a closed role": {"plan": hidden, "table": with_hidden},
        "unknown table": {"table": request.table.model_copy(update={"name": "other"})},
        "unknown purpose": {"purpose": "marketing"},
        "too many rows": {"table": request.table.model_copy(update={"max_rows": 500})},
        "over": {"created_at": 1_000, "expires_at": 2_000},
    }
    return {title: Request.model_validate({**dict(request), **change}) for title, change in changes.items()}


def replies(federation: Path, home: Path, requests: dict[str, Request], now: int) -> dict[str, bytes]:
    """Return what a silo with the data in `home` answers to each request: its signed bytes."""
    analyst = SigningKey(read_key_file(federation / "analysts" / "ana.key"))
    hub = SigningKey(read_key_file(federation / "aggregator" / "identity.key"))
    actor = SiloActor(str(home / "policy.toml"), clock=lambda: now, sleep=lambda _: None)
    try:
        found = {}
        for index, (title, request) in enumerate(requests.items()):
            round_id = bytes([index]) * 16
            message = Propose(
                federation=request.federation,
                round_id=round_id,
                expires_at=now + 60,
                request=sign(request, "ana", analyst),
            )
            found[title], *_ = actor.propose(round_id, sign(message, "aggregator", hub))
        return found
    finally:
        actor.close()


@pytest.mark.slow
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_neighbouring_data_bring_the_same_bytes(
    asked: tuple[Path, Request], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    federation, request = asked
    requests, now = variants(request), request.created_at + 5
    table = pyarrow.parquet.read_table(federation / "silos" / SILO / "lung.parquet")
    row = data.draw(st.integers(0, table.num_rows - 1), label="the person")
    without = pa.concat_tables([table.slice(0, row), table.slice(row + 1)])
    age = data.draw(st.one_of(st.none(), st.integers(-30_000, 30_000)), label="another age")
    values = table["age"].to_pylist()
    values[row] = age
    altered = table.set_column(table.column_names.index("age"), "age", pa.array(values, table["age"].type))
    few = data.draw(st.integers(1, 5), label="persons left")
    decisions = pyarrow.csv.read_csv(federation / "silos" / SILO / DECISIONS)
    withdrawn: list[str | None] = [None] * decisions.num_rows
    withdrawn[row] = data.draw(st.sampled_from(["2026-02-01T00:00:00Z", "2099-01-01T00:00:00Z"]), label="until")
    objections = decisions.set_column(3, "withdrawn_at", pa.array(withdrawn, pa.string()))
    everybody = decisions.set_column(3, "withdrawn_at", pa.array(["2026-02-01T00:00:00Z"] * decisions.num_rows))
    neighbours = [(rows, decisions) for rows in (table, without, altered, table.slice(row, 1), table.slice(0, few))]
    neighbours += [(table, one) for one in (objections, everybody, decisions.slice(row + 1), decisions.slice(0, 0))]
    found, accepted = [], []
    for rows, one in neighbours:
        home = tmp_path_factory.mktemp("silo") / SILO
        shutil.copytree(federation / "silos" / SILO, home)
        pyarrow.parquet.write_table(rows, home / "lung.parquet")
        pyarrow.csv.write_csv(one, home / DECISIONS)
        os.utime(home / DECISIONS, (now - 60, now - 60))  # the age of a feed is no row of it
        replied = replies(federation, home, requests | {"nothing is wrong": request}, now)
        accepted.append(is_envelope_of(replied.pop("nothing is wrong"), Accept))
        found.append(replied)
    assert all(one == found[0] for one in found[1:])
    assert all(accepted), "an empty answer is an answer"
    codes = {title: {denial.code for denial in unverified(raw, Refusal).denials} for title, raw in found[0].items()}
    assert len({frozenset(one) for one in codes.values()}) == len(requests), "each is refused for its own reason"


def is_envelope_of(data: bytes, kind: type[Message]) -> bool:
    with suppress(CryptoError):
        return unverified(data, kind) is not None
    return False
