"""Read a search again from its reports, and compare the domain that it left: `consilo report verify FILE.json`.

It needs the analyst's key, and the aggregator, which keeps the encrypted reports and the masked inputs.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path

from analyst.client import Federation
from analyst.errors import AnalystError
from analyst.finding.files import SCHEMA, OfRound, Provenance, others_of, read_provenance
from analyst.finding.search import DoneRound, Rules, replayed, search_of
from analyst.finding.tree import BETA
from policies.document.domain_files import DomainError, read_values
from policies.domains import hash_of
from policies.requests.key_search import KeySearch
from policies.requests.request import Request
from policies.units import MICRO, counted

_CHANGED = "the file was changed, or belongs to another search: do not adopt the domain"
_SAME = 1e-9  # relative
_HEAD_BYTES = 4096


def is_provenance(path: Path) -> bool:
    """Tell whether a file is the provenance of a domain, by its first bytes."""
    try:
        with path.open("rb") as file:
            return file.read(_HEAD_BYTES).lstrip().startswith(b'{\n  "schema": ' + json.dumps(SCHEMA).encode())
    except OSError:
        return False


def verify_domain(federation: Federation, path: Path) -> Iterator[str]:
    """Yield a line for every check that passes; raises CryptoError or AnalystError at the first one that fails."""
    stated = read_provenance(path)
    _, request = federation.stored_report(bytes.fromhex(stated.rounds[0].report))
    first, rules = search_of(request), Rules(stated.min_cohort, stated.most_prefixes)
    _check_request(stated, request, first)
    price = f"at rho {request.micro_rho / MICRO:g} a round"
    yield f"the search is signed by {request.analyst}, for {request.purpose}, {price}"
    reports, done = [bytes.fromhex(one.report) for one in stated.rounds], list[DoneRound]()
    left: KeySearch | None = first
    for (one, following), said in zip(replayed(federation, reports, first, rules), stated.rounds, strict=True):
        if not _is_round(said, one):
            raise AnalystError(f"round {len(done)} is not what was opened", _CHANGED)
        done.append(one)
        left = following
        of, entered = ", ".join(one.silos), len(one.found)
        yield f"round {len(done)}: {counted(one.slots, 'noised number')} of {of}, {counted(entered, 'key')} entered"
    if left is not None:
        raise AnalystError(f"{counted(len(done), 'round')} are given, and prefixes survive the last of them", _CHANGED)
    yield f"no key was asked about but by prefixes that survived; {len(done)} of at most {first.steps} rounds"
    values = (*sorted(key.key for one in done for key in one.found), others_of(first.shape))
    if (len(values) - 1, hash_of(values), values[-1]) != (stated.keys, stated.domain_hash, stated.unknown):
        raise AnalystError("the keys are not those that entered", _CHANGED)
    if stated.keys:
        _check_file(path.with_name(stated.domain_file), stated)
        yield f"{stated.domain_file} has {counted(stated.keys, 'key')} that entered, and {stated.unknown} for all else"


def _check_request(stated: Provenance, request: Request, first: KeySearch) -> None:
    shape = first.shape
    signed = (first.run.hex(), request.analyst, request.purpose, request.table.name, first.column, request.federation)
    said = (stated.run, stated.analyst, stated.purpose, stated.table, stated.column, stated.federation)
    keys = (shape.alphabet, shape.length, shape.most, request.table.max_silos)
    if first != first.first():
        raise AnalystError("the first round of the search is left out", _CHANGED)
    if signed != said or keys != (stated.alphabet, stated.length, stated.most, stated.max_silos):
        raise AnalystError("the search is not the one that was signed", _CHANGED)
    paid = request.micro_rho / MICRO
    if stated.rho < paid * len(stated.rounds) * (1 - _SAME) or not math.isclose(stated.beta, BETA):
        raise AnalystError("the price or the chance that is stated is not that of the search", _CHANGED)


def _is_round(said: OfRound, one: DoneRound) -> bool:
    names = (said.request, said.report, said.prefixes, said.slots, tuple(said.silos))
    if names != (one.request, one.report, one.prefixes, one.slots, one.silos):
        return False
    numbers = ((said.sd, one.sd), (said.survive, one.limits.survive), (said.enter, one.limits.enter))
    return all(
        (stated is None and true is None)
        or (stated is not None and true is not None and math.isclose(stated, true, rel_tol=_SAME))
        for stated, true in numbers
    )


def _check_file(path: Path, stated: Provenance) -> None:
    try:
        values = read_values(path, path.name, "string", "its provenance")
    except DomainError as err:
        raise AnalystError(f"the domain cannot be read: {err}", "put the file back beside its provenance") from err
    if hash_of(values) != stated.domain_hash:
        raise AnalystError(f"{path.name} is not the domain that was found", _CHANGED)
