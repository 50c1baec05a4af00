"""A silo whose cluster is dead ends with an error; one that is busy, or whose disk is full, does not."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from federation.errors import ClusterDiedError
from federation.operations import ray_cluster
from silo_node import serve
from silo_node.serve import DEAD_S, Watch


class Actor:
    """An actor that answers as it is told to."""

    def __init__(self) -> None:
        self.answer: Any = ()

    async def __call__(self, step: str) -> Any:
        assert step == "unreachable"
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Watch, Actor, list[float]]:
    monkeypatch.setattr(serve, "dead_processes", list)
    monkeypatch.setattr(ray_cluster, "session_directory", lambda: None)
    monkeypatch.setattr(serve, "patience", lambda: 1.0)
    actor, now = Actor(), [0.0]
    return Watch(tmp_path, actor, lambda: now[0]), actor, now


def test_a_source_that_is_away_is_a_problem_until_it_is_back(watched: tuple[Watch, Actor, list[float]]) -> None:
    watch, actor, _ = watched
    actor.answer = ("sources.lung: x cannot be opened (No such file or directory)",)
    asyncio.run(watch.look())
    assert watch.problems == list(actor.answer)
    actor.answer = ()
    asyncio.run(watch.look())
    assert watch.problems == []


def test_a_full_disk_is_a_problem(
    watched: tuple[Watch, Actor, list[float]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda place: SimpleNamespace(free=0 if place == tmp_path else 1 << 40))
    asyncio.run(watched[0].look())
    assert watched[0].problems == [f"the disk of {tmp_path} is full (0 MiB free)"]


def test_an_actor_that_does_not_come_back_ends_the_program(watched: tuple[Watch, Actor, list[float]]) -> None:
    watch, actor, now = watched
    actor.answer = RuntimeError("the actor is unavailable")
    asyncio.run(watch.look())
    assert watch.problems == ["the silo's actor does not answer (RuntimeError)"]
    now[0] = DEAD_S - 1
    asyncio.run(watch.look())
    actor.answer = ()  # Ray has started it anew
    asyncio.run(watch.look())
    assert watch.problems == []
    actor.answer = RuntimeError("the actor is unavailable")
    now[0] = 2 * DEAD_S
    asyncio.run(watch.look())
    now[0] = 3 * DEAD_S + 1
    with pytest.raises(ClusterDiedError, match="has not answered for 61 s"):
        asyncio.run(watch.look())


def test_an_actor_that_computes_for_long_is_alive(watched: tuple[Watch, Actor, list[float]]) -> None:
    watch, actor, now = watched
    for at in (0.0, 10 * DEAD_S, 20 * DEAD_S):
        now[0] = at
        actor.answer = TimeoutError()
        asyncio.run(watch.look())
        assert watch.problems == []


def test_a_dead_raylet_ends_the_program_at_once(
    watched: tuple[Watch, Actor, list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "dead_processes", lambda: ["raylet"])
    with pytest.raises(ClusterDiedError, match="has died: raylet ended") as caught:
        asyncio.run(watched[0].look())
    assert caught.value.hint == "start it again"
