"""Fixtures: analysts who dial an aggregator that is away for seconds only, and not for a minute."""

import pytest

import analyst.link

PATIENCE_S = 3.0


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test wait longer for an aggregator that does not come back; a test may say otherwise."""
    monkeypatch.setattr(analyst.link, "PATIENCE_S", PATIENCE_S)
