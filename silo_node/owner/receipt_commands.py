"""`consilo-silo receipt`: what the silo did for one request, signed, for the analyst to compare.

It is made from the silo's own log, and from what it keeps of its rounds (`silo_node.traces`).
"""

import argparse
import time
from collections.abc import Iterable
from pathlib import Path

from crypto.rounds.messages import SurvivorSet
from crypto.rounds.receipt import MAX_ROUNDS, Receipt, RoundReceipt, Step
from crypto.wire import sign, unverified
from federation.files import write_out
from federation.terminal import Commands, add_command
from policies.units import when
from silo_node.errors import SiloError
from silo_node.home import read_home
from silo_node.ledger.events import (
    Charging,
    Contributed,
    Decided,
    LogEntry,
    Opened,
    Reserved,
    SurvivorsSigned,
)
from silo_node.ledger.store import LedgerStore
from silo_node.owner.ledger_commands import ledger_path
from silo_node.traces import RoundTraces, Trace

_ALL = 10**9
_DID: dict[Step, str] = {
    "ready": "was ready in",
    "contributed": "contributed to",
    "agreed": "signed the survivor set of",
    "opened": "opened",
}


def add_receipt_command(commands: Commands) -> None:
    """Add `consilo-silo receipt`."""
    command = add_command(commands, "receipt", _receipt, "show and sign what the silo did for one request")
    command.add_argument("--policy", type=Path, required=True, metavar="FILE", help="the policy.toml beside the ledger")
    text = "the request's hash or its beginning, at least 8 digits: the analyst's `consilo report list` has it"
    command.add_argument("request", metavar="REQUEST", help=text)
    command.add_argument("--out", type=Path, metavar="FILE", help="write the signed receipt there, for the analyst")


def _receipt(options: argparse.Namespace) -> int:
    home = read_home(options.policy)
    store = LedgerStore(ledger_path(options.policy))
    entries = store.entries(_ALL)
    store.close()
    request_hash = _named(options.request, entries)
    silo = home.silo
    receipt = receipt_of(silo.federation, request_hash, entries, RoundTraces(home.path), int(time.time()))
    print("\n".join(worded(silo.name, receipt)))
    if options.out is not None:
        write_out(options.out, sign(receipt, silo.name, silo.signing))
        print(f"signed: {options.out}")
    return 0


def _named(name: str, entries: Iterable[LogEntry]) -> bytes:
    """Return the hash that begins so; a whole one may be of a request that never came here."""
    given = name.lower()
    found = {one.event.request_hash for one in entries if isinstance(one.event, Decided | Reserved)}
    matching = sorted(one for one in found if one.hex().startswith(given))
    if len(matching) == 1 and len(given) >= 8:
        return matching[0]
    if len(given) == 64 and all(digit in "0123456789abcdef" for digit in given):
        return bytes.fromhex(given)
    hint = "give all 64 digits: then the receipt says that the request never came here"
    raise SiloError(f"{len(matching)} requests in this silo's log begin with {name[:80]!r}", hint)


def receipt_of(
    federation: str, request_hash: bytes, entries: Iterable[LogEntry], traces: RoundTraces, now: int
) -> Receipt:
    """Return what a silo did for a request, by its log."""
    accepted_at, refused, nonces = 0, tuple[str, ...](), set[bytes]()
    rounds: dict[bytes, RoundReceipt] = {}

    def came(round_id: bytes, step: Step, at: int) -> None:
        before = rounds.get(round_id) or RoundReceipt(
            round_id=round_id, step=step, at=at, manifest=b"", contribution=b"", survivors=b""
        )
        rounds[round_id] = before.model_copy(update={"step": step, "at": at})

    for entry in entries:
        match entry.event:
            case Decided(request_hash=found, codes=codes) if found == request_hash and codes:
                refused = codes
            case Reserved(request_hash=found, nonce=nonce) if found == request_hash:
                accepted_at, refused = accepted_at or entry.at, ()
                nonces.add(nonce)
            case Charging(nonce=nonce, round_id=round_id) if nonce in nonces:
                came(round_id, "ready", entry.at)
            case Contributed(nonce=nonce, round_id=round_id) if nonce in nonces:
                came(round_id, "contributed", entry.at)
            case SurvivorsSigned(round_id=round_id) if round_id in rounds:
                came(round_id, "agreed", entry.at)
            case Opened(round_id=round_id) if round_id in rounds:
                came(round_id, "opened", entry.at)
            case _:
                pass
    kept = [_with_trace(one, traces.find(one.round_id)) for one in list(rounds.values())[-MAX_ROUNDS:]]
    return Receipt(
        federation=federation,
        request_hash=request_hash,
        made_at=now,
        accepted_at=accepted_at,
        refused=refused,
        rounds=tuple(kept),
    )


def _with_trace(one: RoundReceipt, trace: Trace | None) -> RoundReceipt:
    if trace is None:
        return one
    kept = {"manifest": trace.manifest, "contribution": trace.contribution, "survivors": trace.survivors}
    return one.model_copy(update=kept)


def worded(silo: str, receipt: Receipt) -> list[str]:
    """Return a receipt in words."""
    lines = [f"{silo}, of request {receipt.request_hash.hex()[:12]}:"]
    if receipt.accepted_at:
        lines.append(f"  accepted at {when(receipt.accepted_at)}")
    if receipt.refused:
        lines.append(f"  refused: {', '.join(receipt.refused)}")
    for one in receipt.rounds:
        lines.append(f"  {_DID[one.step]} round {one.round_id.hex()[:12]} at {when(one.at)}")
        if one.survivors:
            counted = {survivor.silo for survivor in unverified(one.survivors, SurvivorSet).survivors}
            said = "is in the sum" if silo in counted else "is not in the sum"
            lines.append(f"    the aggregator signed that its contribution {said}")
    if len(lines) == 1:
        lines.append("  never came here")
    return lines
