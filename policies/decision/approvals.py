"""What people say to a request that a policy lets nobody but them allow, and what is still awaited.

A verdict is signed by the person's own Ed25519 key, which the policy names under [people], so whoever stores verdicts
can neither invent nor alter one. All steps of one training run are one thing to approve.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from crypto.keys import VerifyKey
from policies.requests.approval import Approval
from policies.requests.request import Request, job_of


def subject_of(request: Request, request_hash: bytes) -> bytes:
    """Return what a verdict is about: the request; of a step of training the run, whose steps differ only in place."""
    step = request.plan.training
    return request_hash if step is None else job_of(request, step)


@dataclass(frozen=True, slots=True)
class ApprovalStatus:
    """How far one approval is: who said yes and no, and how many are needed."""

    approved: tuple[str, ...]
    rejected: tuple[str, ...]
    need: int

    @property
    def is_given(self) -> bool:
        return not self.rejected and len(self.approved) >= self.need


def approval_status(
    verdicts: Iterable[Approval],
    subject: bytes,
    silo: str,
    keys: Mapping[str, VerifyKey],
    need: int,
    lasts_s: int,
    now: int,
) -> ApprovalStatus:
    """Return how far an approval by the people of `keys` is at `now`.

    The last verdict of a person counts, for `lasts_s` seconds; one rejection refuses, as whoever says no has a reason
    that the others may not know. A rejection does not lapse, nor wait for a clock that was put back. What is stored as
    a verdict and is not signed by the person's key counts as a rejection: nobody knows what it was.
    """
    last: dict[str, Approval] = {}
    altered: set[str] = set()
    for one in verdicts:
        named = {one.who, one.signer} & keys.keys()
        if one.subject != subject or not named:
            continue
        if not one.is_genuine(silo, keys):
            altered |= named
            continue
        if one.decision == "approve" and one.at > now:
            continue
        # Of two verdicts of one second the rejection counts, in whatever order they were stored.
        if one.who not in last or (one.at, one.decision) > (last[one.who].at, last[one.who].decision):
            last[one.who] = one
    approved = [who for who, one in last.items() if one.decision == "approve" and now < one.at + lasts_s]
    by_key = {keys[who]: who for who in sorted(approved)}  # one key is one person, whatever names it has
    rejected = altered | {who for who, one in last.items() if one.decision == "reject"}
    return ApprovalStatus(tuple(sorted(by_key.values())), tuple(sorted(rejected)), need)
