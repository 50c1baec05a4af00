"""A silo says where an analyst stands, whatever the unsigned request names."""

from types import SimpleNamespace
from typing import Any

import pytest

from silo_node import standing
from tests.cases import every
from tests.harness.example_policy import NOW, Edit, policy, request, table

COMPUTE = Edit("[disclosure]", "[compute]\nfixed_seconds = 1\n\n[disclosure]")
NOTHING = SimpleNamespace(lifetime=0, windows=())


@every("fields", [{"table": table(name="elsewhere")}, {"purpose": "curiosity"}, {}])
def test_a_request_about_what_a_policy_does_not_name_is_told_of(
    monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any]
) -> None:
    asked = request(**fields)
    silo: Any = SimpleNamespace(policy=policy(COMPUTE), federation=asked.federation, name=asked.silos[0], graphs=None)
    fresh: Any = None
    ledger: Any = SimpleNamespace(spending=lambda *about: NOTHING, reservations=list)
    monkeypatch.setattr(standing, "foretold", lambda *about: ())
    monkeypatch.setattr(standing, "left_of", lambda *about: iter(()))
    found = standing.standing_of(silo, ledger, fresh, NOW, asked.analyst, asked.encode())
    assert (found.compute_ms > 0) == (not fields)
