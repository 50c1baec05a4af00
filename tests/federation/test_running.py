"""What a program that serves says of itself, how patient it is, and what is quoted when Ray's cluster fails."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest

from federation.config import read_config
from federation.errors import FederationError
from federation.local import is_up
from federation.operations import load, ray_cluster, ray_directory, running
from federation.operations.ray_cluster import Cluster, connected, interrupt_on_sigterm, keep_log
from silo_node import profiles


@pytest.fixture
def answering() -> Iterator[tuple[int, dict[str, Any]]]:
    """A port of this machine that answers /status, and what it answers."""
    said: dict[str, Any] = {"pid": os.getpid(), "since": "now"}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(said).encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port, said
    server.shutdown()
    server.server_close()


@pytest.mark.server
def test_only_the_process_that_left_its_note_counts_as_running(
    tmp_path: Path, answering: tuple[int, dict[str, Any]]
) -> None:
    port, said = answering
    assert running.ask_running(tmp_path) is None
    running.note_running(tmp_path, port)
    assert running.ask_running(tmp_path) == {"pid": os.getpid(), "since": "now"}
    said["pid"] = os.getpid() + 1  # killed, and another program has its port now
    assert running.ask_running(tmp_path) is None
    assert running.unanswered(tmp_path) == "does not answer: it was killed, or hangs"
    said["pid"] = os.getpid()
    for number, is_left in ((os.getpid() + 1, True), (os.getpid(), False)):
        (tmp_path / running.PID).write_text(f"{number}\n")
        running.forget_running(tmp_path)
        assert (tmp_path / running.PID).exists() is is_left, "only of this process"
    assert running.unanswered(tmp_path) == "not running"
    assert running.ask_running(tmp_path) is None


@pytest.mark.parametrize("note", [b"", b"{}", b"[1]", b'{"pid": 1}', b'{"pid": 1, "port": "x"}', b"\xff", b"null"])
def test_a_note_that_is_none_is_no_running_program(tmp_path: Path, note: bytes) -> None:
    (tmp_path / running.NOTE).write_bytes(note)
    assert running.ask_running(tmp_path) is None


def test_a_disk_is_full_below_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert running.full_disks({"home": tmp_path}) == []
    monkeypatch.setattr("shutil.disk_usage", lambda place: SimpleNamespace(free=5 << 20))
    assert running.full_disks({"home": tmp_path}) == [f"the disk of {tmp_path} is full (5 MiB free)"]


def test_waits_grow_with_the_load_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    for average, expected in ((0.0, 1.0), (2.0, 1.0), (5.0, 2.5), (100.0, load.MAX_PATIENCE)):
        monkeypatch.setattr("os.getloadavg", lambda average=average: (average, 0.0, 0.0))
        assert load.patience() == expected
        assert f"load average {average:.1f}" in load.waited(3)


def session(temporary: Path, lines: dict[str, str]) -> None:
    logs = temporary / "session_latest" / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    for name, text in lines.items():
        (logs / name).write_text(text)


def test_the_most_telling_line_of_ray_s_logs_is_quoted_and_the_rest_is_kept(tmp_path: Path) -> None:
    raylet = "[I] up\n[2026 E 1] Timed out waiting for file metrics_agent_port\n[I] [state-dump] Error\n[I] the end\n"
    session(tmp_path, {"raylet.out": raylet, "gcs_server.out": "fine\n", "worker-1.out": "a row: 17\n"})
    kept = tmp_path / "ray.log"
    assert keep_log(tmp_path, kept) == "[2026 E 1] Timed out waiting for file metrics_agent_port"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert "==== raylet.out" in kept.read_text()
    assert "a row" not in kept.read_text(), "of a worker nothing is kept"
    assert keep_log(tmp_path / "nowhere", None) == ""


@pytest.fixture
def failing_ray(monkeypatch: pytest.MonkeyPatch, open_place: Path) -> list[Path]:
    """Ray, which logs something and does not start; return the directories that it was given."""
    given: list[Path] = []

    def init(**options: Any) -> None:
        given.append(Path(options["_temp_dir"]))
        session(given[-1], {"raylet.out": "x E y Timed out waiting for file metrics\n"})
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # as Ray sets its own
        raise Exception("The current node timed out during startup.\nmore")

    worker = SimpleNamespace(global_worker=SimpleNamespace(node=None))
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=init, shutdown=lambda: None))
    monkeypatch.setitem(sys.modules, "ray._private.worker", worker)
    monkeypatch.setitem(sys.modules, "ray.job_config", SimpleNamespace(JobConfig=object))
    monkeypatch.setattr("tempfile.tempdir", str(open_place))
    return given


def test_sigterm_while_ray_starts_is_this_program_s_own(monkeypatch: pytest.MonkeyPatch, open_place: Path) -> None:
    """Ray's handler, which it sets when it starts, would leave with a status of its own and without a word."""
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=lambda **_: sys.exit(15), shutdown=lambda: None))
    monkeypatch.setitem(sys.modules, "ray._private.worker", SimpleNamespace(global_worker=SimpleNamespace(node=None)))
    monkeypatch.setitem(sys.modules, "ray.job_config", SimpleNamespace(JobConfig=object))
    monkeypatch.setattr("tempfile.tempdir", str(open_place))
    before = signal.getsignal(signal.SIGTERM)
    interrupt_on_sigterm()
    try:
        with pytest.raises(KeyboardInterrupt), connected(Cluster("it did not start", "")):
            pass
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not list(open_place.iterdir()), "its directory is gone"


@pytest.mark.parametrize(("patience", "attempts"), [(1.0, 1), (3.0, 2)])
def test_a_cluster_that_does_not_start_says_why_and_leaves_nothing_behind(
    failing_ray: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, patience: float, attempts: int
) -> None:
    monkeypatch.setattr(ray_cluster, "patience", lambda: patience)
    before = signal.getsignal(signal.SIGTERM)
    interrupt_on_sigterm()
    ours = signal.getsignal(signal.SIGTERM)
    try:
        cluster = Cluster("the cluster did not start", "nothing was logged", log=tmp_path / "ray.log")
        with pytest.raises(FederationError) as caught, connected(cluster):
            pass
        assert signal.getsignal(signal.SIGTERM) is ours, "SIGTERM stays this program's"
    finally:
        signal.signal(signal.SIGTERM, before)
    assert caught.value.message.startswith("the cluster did not start after 0 s (load average ")
    assert caught.value.message.endswith(": The current node timed out during startup.")
    assert "Exception" not in caught.value.message
    assert (
        caught.value.hint == f"Ray said: 'x E y Timed out waiting for file metrics'; more is in {tmp_path / 'ray.log'}"
    )
    assert len(failing_ray) == attempts
    assert not [place for place in failing_ray if place.exists()]
    assert "Timed out" in (tmp_path / "ray.log").read_text()


def test_the_directories_of_killed_processes_are_removed(open_place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(open_place))
    with ExitStack() as alive:
        lives = Path(ray_directory.own_directory(alive))
        killed = open_place / "consilo-killed"
        killed.mkdir(mode=0o700)
        (killed / "session").mkdir()
        (killed / "owner.lock").touch()
        other = open_place / "consilo-of-before"  # without a lock nobody knows whose it is
        other.mkdir()
        with ExitStack() as undo:
            mine = Path(ray_directory.own_directory(undo))
            assert sorted(open_place.iterdir()) == sorted((lives.parent, mine.parent, other))
            assert mine.parent.stat().st_mode & 0o777 == 0o700
        assert sorted(open_place.iterdir()) == sorted((lives.parent, other))
    assert list(open_place.iterdir()) == [other]


def test_the_end_of_a_file_is_read_from_a_place_on(tmp_path: Path) -> None:
    file = tmp_path / "log"
    assert running.tail(file, 10) == ""
    file.write_bytes(b"0123456789")
    assert (running.tail(file, 4), running.tail(file, 4, 8), running.tail(file, 100, 3)) == ("6789", "89", "3456789")
    assert running.tail(file, 4, 99) == ""


@pytest.mark.parametrize(
    "data",
    [
        b"", b"[]", b"1", b"null", b"{", b"\xff", b"[" * 990, b'{"pid": []}', b'{"pid": 1e999, "port": 1}',
        b'{"pid": 1, "port": 1e400}', b'{"pid": 1, "port": -5}', b'{"pid": true, "address": 1, "port": 99999}',
    ],
)  # fmt: skip
def test_a_note_of_any_bytes_is_of_no_program(tmp_path: Path, home: Path, data: bytes) -> None:
    for name in (running.NOTE, running.PID, profiles.FILE):
        (tmp_path / name).write_bytes(data)
    assert running.ask_running(tmp_path) is None
    assert profiles.last_lines(tmp_path) == ()
    running.forget_running(tmp_path)
    (home / ".consilo-up.json").write_bytes(data)
    assert not is_up(read_config(home / "consilo.toml"))
