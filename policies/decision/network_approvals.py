"""What a person signs of a packed network: that it may be trained at this silo, or no more.

It is a verdict as on a request, whose subject is the hash of the network's name in this federation. The last verdict of
a person of [people] counts, and one that rejects refuses, as on requests; an approval lasts until it is withdrawn.
"""

from collections.abc import Iterable
from hashlib import sha256

from crypto.keys import VerifyKey
from policies.decision.approvals import ApprovalStatus, approval_status
from policies.document.policy import Policy
from policies.requests.approval import StoredVerdict

_CONTEXT = b"consilo/1 a packed network"
_LASTS_S = 2**40


def subject_of_network(federation: str, name: str) -> bytes:
    """Return the subject of a verdict on a packed network; its name has the hash of the graph and its weights."""
    said = b"".join(len(one).to_bytes(2, "big") + one for one in (federation.encode(), name.encode()))
    return sha256(_CONTEXT + said).digest()


def network_status(
    policy: Policy, federation: str, name: str, verdicts: Iterable[StoredVerdict], now: int
) -> ApprovalStatus:
    """Return who of [people] has approved a packed network, and who has withdrawn it."""
    keys = {person: VerifyKey.parse(one.key) for person, one in policy.people.items()}
    subject = subject_of_network(federation, name)
    return approval_status(verdicts, subject, policy.silo.id, keys, 1, _LASTS_S, now)
