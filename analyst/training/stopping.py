"""End a training run before its last step, at the silos: what its unbegun steps had reserved is given back.

Promise: a silo is asked to give something back only with what a quorum of the run's silos signed, that they take no
further step of it. docs/protocol.md section 11. What a silo that is away was not told is kept in `JOB.stop.json`, and
told when a command about the job is next given.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from analyst.client import Federation
from analyst.errors import AnalystError
from crypto.errors import CryptoError
from crypto.rounds.committees import quorum_of
from crypto.rounds.messages import ModelUpdated, Stopped
from crypto.wire import Message, Signed, detach, unverified, verify
from federation.errors import FederationError
from federation.files import replace_file
from policies.requests.request import Request
from policies.requests.sending import learned_s

Positions = Mapping[str, Signed[ModelUpdated]]  # what silos say of their state in a run, by silo
MAX_OWED = 16


class Owed(Message):
    """The signed Stopped of runs that not all of their silos have taken, the oldest first."""

    MAX_BYTES: ClassVar[int] = 4 << 20
    stopped: Annotated[tuple[bytes, ...], Field(max_length=MAX_OWED)] = ()


@dataclass(frozen=True, slots=True)
class Stopping:
    """A run that ends before its last step: the silos that take no further step of it, and those that gave back."""

    silos: tuple[str, ...]  # of the run
    stopped: tuple[str, ...]
    released: tuple[str, ...]  # with those that had reserved nothing
    is_agreed: bool = False  # a quorum has signed it

    @property
    def is_settled(self) -> bool:
        """Whether nothing is left to do but to tell those that are away, for which `JOB.stop.json` is kept."""
        return self.is_agreed or (bool(self.released) and set(self.stopped) <= set(self.released))

    @property
    def holding(self) -> tuple[str, ...]:
        """The silos that may still hold what the run had reserved."""
        return tuple(silo for silo in self.silos if silo not in self.released)


def end(federation: Federation, request: Request, position: bytes, keep: Path | None) -> Stopping:
    """Tell the silos of a run that it is over, as a quorum of them said of its report `position`.

    `keep` is the file in which the run's progress is kept.
    """
    link = federation.aggregators.holder(position)
    said = _positions(federation, request, link.deliver_report(position, learned_s(request)))
    return _release(federation, request, position, said, keep) or Stopping(request.silos, _over(said), ())


def give_up(federation: Federation, request: Request, position: bytes, keep: Path | None) -> Stopping:
    """Give up a run whose last report is `position`, START before the first: no silo takes a further step of it."""
    link = federation.aggregators.holder(position)
    with suppress(FederationError, CryptoError):  # so that all have learned the same, or it is erased
        link.deliver_report(position, learned_s(request))
    said = _positions(federation, request, link.stop_run(federation.signed(_stopped(federation, request))))
    found, over = _release(federation, request, position, said, keep), _over(said)
    return found or Stopping(request.silos, over, tuple(sorted(set(said) - set(over))))


def tell_owed(federation: Federation, keep: Path | None) -> None:
    """Tell silos that were away what they were not told of runs of a job that are over."""
    if keep is None or not (path := owed_file(keep)).exists():
        return
    try:
        owed = Owed.decode(path.read_bytes()).stopped
    except (OSError, CryptoError) as err:
        hint = "remove it: what it says of runs that are over is told no more, and silos release it after 30 days"
        raise AnalystError(f"{path} cannot be read", hint) from err
    _write(path, tuple(one for one in owed if not _is_taken(federation, one)))


def owed_file(keep: Path) -> Path:
    """Return the file beside that of a run's progress in which untold ends of runs are kept."""
    return keep.with_name(keep.name.replace(".run.json", "") + ".stop.json")


def released_lines(unbegun: float, stopping: Stopping) -> Iterator[str]:
    """Yield what the steps that never began gave back, and where they did not."""
    if stopping.released:
        yield f"released: rho {unbegun:g}, as the run is over, at {', '.join(stopping.released)}"
    if stopping.released and stopping.holding:
        yield f"not yet told: {', '.join(stopping.holding)}; give the command again when they are back"
    if not stopping.is_settled:
        yield f"rho {unbegun:g} stays reserved: {quorum_of(len(stopping.silos))} of {len(stopping.silos)} silos must"
        yield f"  have signed that the run is over, and {len(stopping.stopped)} have; give the command again later"


def _stopped(federation: Federation, request: Request, agreed: Iterable[Signed[ModelUpdated]] = ()) -> Stopped:
    signed = tuple(agreed)
    step = request.plan.training
    if step is None:
        raise AnalystError("the request is not of a training run", "remove its file to begin a new run")
    return Stopped(
        federation=federation.config.federation,
        run=step.run,
        silos=request.silos,
        learned=signed[0].message if signed else None,
        signatures=tuple(detach(one.envelope, ModelUpdated) for one in signed),
    )


def _release(
    federation: Federation, request: Request, position: bytes, said: Positions, keep: Path | None
) -> Stopping | None:
    """Deliver what a quorum of the silos has signed alike; None without one: then nothing is given back."""
    agreed, told = alike(said, quorum_of(len(request.silos))), set[str]()
    if not agreed:
        return None
    stopped = federation.signed(_stopped(federation, request, agreed))
    with suppress(FederationError):
        told |= set(_positions(federation, request, federation.aggregators.holder(position).stop_run(stopped)))
    if keep is not None and told < set(request.silos):
        _owe(keep, stopped)
    return Stopping(request.silos, tuple(sorted({*_over(said), *told})), tuple(sorted(told)), True)


def _over(said: Positions) -> tuple[str, ...]:
    return tuple(sorted(silo for silo, one in said.items() if one.message.ended is not None))


def alike(said: Positions, least: int) -> list[Signed[ModelUpdated]]:
    """Return what the most silos say alike of a run that is over; nothing if fewer than `least` do."""
    groups: dict[bytes, list[Signed[ModelUpdated]]] = {}
    for _, one in sorted(said.items()):
        if one.message.ended is not None:
            groups.setdefault(one.message.encode(), []).append(one)
    most = max(groups.values(), key=len, default=[])
    return most if len(most) >= least else []


def _positions(federation: Federation, request: Request, envelopes: Iterable[bytes]) -> dict[str, Signed[ModelUpdated]]:
    roster, found = federation.config.roster.silo_keys, dict[str, Signed[ModelUpdated]]()
    step, keys = request.plan.training, {silo: roster[silo] for silo in request.silos if silo in roster}
    for envelope in tuple(envelopes)[: len(roster)]:
        with suppress(CryptoError):
            signed = verify(envelope, ModelUpdated, keys)
            bound = signed.message.federation, signed.message.run
            if step is not None and bound == (federation.config.federation, step.run):
                found[signed.signer] = signed
    return found


def _is_taken(federation: Federation, stopped: bytes) -> bool:
    """Tell the silos of a run once more that it is over; return whether all have taken it."""
    message, keys, told = unverified(stopped, Stopped), federation.config.roster.silo_keys, set[str]()
    with suppress(FederationError):
        for envelope in federation.aggregators.holder(message.run).stop_run(stopped)[: len(keys)]:
            with suppress(CryptoError):
                signed = verify(envelope, ModelUpdated, keys)
                told |= {signed.signer} if signed.message.run == message.run else set()
    return told >= set(message.silos)


def _owe(keep: Path, stopped: bytes) -> None:
    path, before = owed_file(keep), tuple[bytes, ...]()
    with suppress(OSError, CryptoError):
        before = Owed.decode(path.read_bytes()).stopped
    _write(path, (*before, stopped)[-MAX_OWED:])


def _write(path: Path, owed: tuple[bytes, ...]) -> None:
    try:
        if owed:
            replace_file(path, Owed(stopped=owed).encode(), 0o600)
        else:
            path.unlink(missing_ok=True)
    except OSError as err:
        message = f"{path} cannot be written ({err.strerror}): silos that are away are not told that the run is over"
        raise AnalystError(message, "they release what it had reserved after 30 days") from err
