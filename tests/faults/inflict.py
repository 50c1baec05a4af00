"""What inflicts each fault on a running lane; `Lane.settle` ends it."""

import csv
import os
import resource
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from federation.members.certificates import (
    Identity,
    Role,
    issue,
    new_certificate_request,
    read_transport_key,
    utc_now,
)
from tests.faults.lane import SECOND, Lane
from tests.faults.link import Link
from tests.faults.table import CEDAR, SILOS, Fault
from tests.harness.federated import AGGREGATOR, ANALYST, NAME

NAMES = {"silo": CEDAR, "aggregator": AGGREGATOR, "analyst": ANALYST, "second aggregator": SECOND}
RESTART_S = 3.0  # after which an aggregator that was killed is started again, as by systemd
WITHDRAWN = 5  # persons of cedar, in the consent file that replaces the other
CLOCK_S = 600.0


def inflict(lane: Lane, fault: Fault) -> None:
    """Let a fault befall its party now; what lasts for a time ends by itself, or with `Lane.settle`."""
    for begin, do in INFLICTED.items():
        if fault.kind.startswith(begin):
            do(lane, NAMES[fault.party], fault.kind)
            return
    raise KeyError(fault.kind)


def _kill(lane: Lane, name: str, kind: str) -> None:
    lane.parties[name].signal(signal.SIGKILL)
    if name == AGGREGATOR and kind == "kill -9":
        lane.later(RESTART_S, lambda: lane.start_party(AGGREGATOR))


def _stop(lane: Lane, name: str, _: str) -> None:
    party = lane.parties[name]
    party.signal(signal.SIGSTOP)
    lane.later(60.0, lambda: party.signal(signal.SIGCONT))


def _links(lane: Lane, name: str) -> tuple[Link, ...]:
    return tuple(lane.links.values()) if name == AGGREGATOR else (lane.links[name],)


def _cut(lane: Lane, name: str, kind: str) -> None:
    for link in _links(lane, name):
        link.cut()
        lane.later(float(kind.split()[2]), link.mend)


def _be_late(lane: Lane, name: str, kind: str) -> None:
    for link in _links(lane, name):
        link.late_s = float(kind.split()[1])


def _fill(lane: Lane, name: str, kind: str) -> None:
    lane.parties[name].do("disk", kind)


def _set_clock(lane: Lane, name: str, kind: str) -> None:
    lane.parties[name].do("clock", CLOCK_S if kind.endswith("ahead") else -CLOCK_S)


def _expire(lane: Lane, name: str, _: str) -> None:
    """Give a member a certificate that has expired, and end its connections, so that it must show it."""
    home, authority = lane.path / name, lane.path / "authority"
    role: Role = "silo" if name in SILOS else "aggregator" if name == AGGREGATOR else "analyst"
    request = new_certificate_request(read_transport_key(home / "transport.key"), Identity(NAME, role, name))
    key = read_transport_key(authority / "authority-tls.key")
    then = utc_now() - timedelta(days=30)
    _swap(lane, home / "transport.pem", issue((authority / "authority.pem").read_bytes(), key, request, then, 10))
    for link in _links(lane, name):
        link.reset()


def _take_source(lane: Lane, name: str, _: str) -> None:
    source = lane.path / name / "lung.parquet"
    away = source.with_suffix(".away")
    source.rename(away)
    lane.undo.append(lambda: away.rename(source))


def _kill_workers(lane: Lane, name: str, _: str) -> None:
    for process in lane.parties[name].workers():
        os.kill(process, signal.SIGKILL)


def _limit_workers(lane: Lane, name: str, _: str) -> None:
    for process in lane.parties[name].workers():
        before = resource.prlimit(process, resource.RLIMIT_AS)
        resource.prlimit(process, resource.RLIMIT_AS, (1 << 20, before[1]))
        lane.undo.append(partial(_unlimit, process, before))


def _unlimit(process: int, before: tuple[int, int]) -> None:
    with suppress(ProcessLookupError):  # it has met its limit
        resource.prlimit(process, resource.RLIMIT_AS, before)


def _replace_consent(lane: Lane, name: str, _: str) -> None:
    file = lane.path / name / "consent.csv"
    rows = list(csv.DictReader(file.read_text().splitlines()))
    for row in rows[:WITHDRAWN]:
        row["withdrawn_at"] = "2026-01-02T00:00:00Z"
    lines = [",".join(f'"{one}"' for one in rows[0])]
    lines += [",".join(f'"{value}"' if value else "" for value in row.values()) for row in rows]
    _swap(lane, file, "\n".join([*lines, ""]).encode())


def _swap(lane: Lane, file: Path, data: bytes) -> None:
    """Replace a file whole until the lane settles."""
    before = file.read_bytes()

    def write(data: bytes) -> None:
        partial_file = file.with_suffix(".new")
        partial_file.write_bytes(data)
        partial_file.chmod(file.stat().st_mode & 0o777)
        partial_file.replace(file)

    write(data)
    lane.undo.append(partial(write, before))


def _kill_of_cluster(what: bytes) -> Callable[[Lane, str, str], None]:
    def kill(lane: Lane, name: str, _: str) -> None:
        served: Any = lane.parties[name]
        served.kill(what)

    return kill


INFLICTED: Mapping[str, Callable[[Lane, str, str], None]] = {
    "kill -9": _kill,
    "gone": _kill,
    "dead": _kill,
    "stopped": _stop,
    "link cut": _cut,
    "link": _be_late,
    "disk": _fill,
    "clock": _set_clock,
    "certificate": _expire,
    "source": _take_source,
    "worker": _kill_workers,
    "memory": _limit_workers,
    "consent": _replace_consent,
    "actor": _kill_of_cluster(b"ray::FederatedSilo"),
    "raylet": _kill_of_cluster(b"raylet"),
}
