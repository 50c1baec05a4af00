"""A silo's home with people, approvals and a ledger of some months, for tests of what the owner sees."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crypto.keys import Secret, SigningKey, write_key_file
from crypto.wire import body_digest, sign, unverified
from policies.budget.ledger import Charge, Ledger
from policies.decision.approvals import subject_of
from policies.document.load import load
from policies.requests.request import Request
from policies.units import DAY_S
from silo_node.home import LEDGER, read_home
from silo_node.ledger.approvals import Waiting
from silo_node.ledger.log import Signer
from silo_node.ledger.retention import Due
from silo_node.ledger.store import LedgerStore
from tests.harness.example_policy import request, table

NOW = 1_800_003_600  # 2027-01-15 09:00 UTC
PEOPLE = ("dpo@aspen.example", "owner@aspen.example", "ciso@aspen.example")
SECTIONS = """
[[budget.limits]]
purpose = "health-research"
window = "calendar-month"
rho = 0.2
per_analyst_rho = 0.1

{people}
[[approvals]]
when = {{ rho_at_least = 0.01 }}
need = 2
of = ["dpo@aspen.example", "owner@aspen.example"]
expires_hours = 72

[limits]
requests_per_day = 3
[retention]
results_days = 30
audit_days = 365
encrypted_contributions_days = 7
"""


def charged(store: Ledger, nonce: bytes, round_id: bytes) -> None:
    """Charge what is reserved, as a round does that goes well."""
    store.begin_charge(nonce, round_id)
    store.commit(nonce, round_id)


@dataclass(frozen=True)
class OwnerHome:
    """One silo's directory, and the keys of its people."""

    policy: Path
    keys: dict[str, SigningKey]
    files: dict[str, Path]

    @property
    def ledger(self) -> Path:
        return self.policy.parent / LEDGER

    def signer(self) -> Signer:
        silo = read_home(self.policy).silo
        return Signer(silo.name, silo.federation, silo.signing)

    def open(self, now: float = NOW) -> LedgerStore:
        return LedgerStore(self.ledger, self.signer(), lambda: now)


def with_people(home: Path, silo: str = "aspen", sections: str = SECTIONS) -> OwnerHome:
    """Add people, approvals, limits and retention to the policy of a founded silo; return its home."""
    policy = home / "silos" / silo / "policy.toml"
    keys, files = {}, {}
    for index, name in enumerate(PEOPLE):
        root = Secret(bytes([index + 1]) * 32)
        keys[name] = SigningKey(root)
        files[name] = home / f"{name}.key"
        if not files[name].exists():
            write_key_file(files[name], root)
    people = "\n".join(f'[people."{name}"]\nkey = "{keys[name].public}"' for name in PEOPLE)
    policy.write_text(policy.read_text() + sections.format(people=people))
    load(policy)
    return OwnerHome(policy, keys, files)


def founded_with_people(founded: Path, path: Path) -> OwnerHome:
    """Return a copy of a founded federation's silo with people."""
    return with_people(Path(shutil.copytree(founded, path / "federation")))


def erased(store: LedgerStore, due: Due) -> int:
    """Erase what is due; return how much that was."""
    return sum(event.count for event in store.erase(due))


def charge(number: int, at: int, **changes: Any) -> Charge:
    fields: dict[str, Any] = {
        "nonce": number.to_bytes(16, "big"),
        "request_hash": number.to_bytes(32, "big"),
        "analyst": "ana",
        "purpose": "health-research",
        "micro_rho": 5_000,
        "policy_hash": bytes(32),
        "charged_at": at,
    }
    return Charge(**fields | changes)


def spend(home: OwnerHome, now: int = NOW) -> None:
    """Write a ledger as some months of work leave it."""
    for back in range(80, -1, -4):
        with_clock = home.open(now - back * DAY_S)
        analyst = "ana" if back % 8 else "bo<script>@uni.example"
        one = charge(back + 1, now - back * DAY_S, analyst=analyst, micro_rho=9_000 + 100 * back)
        assert with_clock.reserve(one, 10**6)
        if back:
            charged(with_clock, one.nonce, bytes(16))
            with_clock.record_survivors(one.nonce, bytes(32))
        with_clock.close()


def ask(home: OwnerHome, number: int = 1, now: int = NOW, **changes: Any) -> Waiting:
    """Put a request that waits for approval into the ledger; return it."""
    fields: dict[str, Any] = {"table": table(max_silos=1), "micro_rho": 20_000, "expires_at": now + 3 * DAY_S}
    asked = request(nonce=number.to_bytes(16, "big"), created_at=now, **fields | changes)
    envelope = sign(asked, "ana", SigningKey(Secret(bytes(range(32)))))
    subject = subject_of(unverified(envelope, Request), body_digest(envelope, Request))
    waiting = Waiting(subject, envelope, "ana", "health-research", 20_000, now, asked.expires_at)
    store = home.open(now)
    store.await_approval(waiting)
    store.close()
    return waiting
