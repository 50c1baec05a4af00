"""The split of persons that all runs of a series share: made once, and named by every later run.

`splits.json` beside consilo.toml has, for each purpose and set of silos, the run that made the split and its report,
and no secret. A silo that was away learns it from that report before it is asked.
"""

from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Literal

from analyst.client import Federation
from analyst.errors import AnalystError, RoundError
from crypto.errors import CryptoError
from crypto.randomness import token
from crypto.wire import Digest, Message, Name, RoundId
from federation.errors import FederationError
from federation.files import replace_file
from policies.requests.request import Request
from policies.requests.split import SplitStep
from policies.requests.training import START

FILE = "splits.json"


class Split(Message):
    """A split, as its analyst keeps it."""

    purpose: Name
    silos: tuple[Name, ...]
    run: RoundId
    report: Digest


class Splits(Message):
    """All splits of one federation."""

    MAX_BYTES: ClassVar[int] = 1 << 20
    version: Literal["consilo-splits/1"] = "consilo-splits/1"
    splits: tuple[Split, ...] = ()


def split_for(
    federation: Federation,
    table: str,
    purpose: str,
    release: Literal["private", "exact"],
    silos: tuple[str, ...] = (),
    *,
    is_asked: bool = True,
) -> bytes:
    """Return the run of the split for these silos, or for all with the table; it is made where there is none.

    Every silo that is there has learned it then. Unless anything `is_asked`, the run is a new one that nobody knows.
    Raises AnalystError, DeniedError or RoundError.
    """
    path = federation.config.path.parent / FILE
    found = _known(federation, table, purpose, silos)
    if not is_asked:
        return token(16) if found is None else found.run
    if found is not None:
        try:
            federation.deliver_report(found.report)
        except (CryptoError, AnalystError, FederationError) as err:
            hint = f"remove its entry from {path} to make a new one, which divides persons otherwise"
            raise AnalystError(f"the split {found.run.hex()} cannot be delivered: {err}", hint) from err
        return found.run
    asked, (step, request) = _holders(federation, table, silos), _made(federation, table, purpose, release, silos)
    checked = federation.check(request, federation.submit(request))
    if not federation.deliver_report(checked.name):
        raise RoundError("no silo has learned the split of persons", "give the command again")
    made = Split(purpose=purpose, silos=asked, run=step.run, report=checked.name)
    _write(path, Splits(splits=(*_read(path).splits, made)))
    return step.run


def unmade_split(
    federation: Federation, table: str, purpose: str, release: Literal["private", "exact"], silos: tuple[str, ...] = ()
) -> Request | None:
    """Return the request that would make a split, which is not sent; None where these silos have one."""
    if _known(federation, table, purpose, silos) is not None:
        return None
    return _made(federation, table, purpose, release, silos)[1]


def deliver_split(federation: Federation, run: bytes) -> None:
    """Hand a split to its silos once more, if it is known here; a silo that lacks it refuses what names it."""
    known = _read(federation.config.path.parent / FILE)
    for one in known.splits:
        if one.run == run:
            with suppress(CryptoError, AnalystError, FederationError):
                federation.deliver_report(one.report)


def _holders(federation: Federation, table: str, silos: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(federation.offer_of(silos).holders(table)))


def _known(federation: Federation, table: str, purpose: str, silos: tuple[str, ...]) -> Split | None:
    """Return the split that was made for a purpose and the silos with a table, if there is one."""
    whose = purpose, _holders(federation, table, silos)
    known = _read(federation.config.path.parent / FILE)
    return next((one for one in known.splits if (one.purpose, one.silos) == whose), None)


def _made(
    federation: Federation, table: str, purpose: str, release: Literal["private", "exact"], silos: tuple[str, ...]
) -> tuple[SplitStep, Request]:
    """Return the step that makes a new split, and its request."""
    step = SplitStep(run=token(16), step=0, after=START, release=release)
    return step, federation.write(federation.offer_of(silos).table(table, ()), step, purpose, 0, silos=silos)


def _read(path: Path) -> Splits:
    try:
        return Splits.decode(path.read_bytes())
    except FileNotFoundError:
        return Splits()
    except (OSError, CryptoError) as err:
        hint = "put it back; without it a new split is made, which divides persons otherwise"
        raise AnalystError(f"{path} cannot be read ({err})", hint) from err


def _write(path: Path, splits: Splits) -> None:
    try:
        replace_file(path, splits.encode(), 0o600)
    except OSError as err:
        raise AnalystError(f"{path} cannot be written ({err.strerror})", "make room there, and ask again") from err
