"""The verdicts of people on a request that needs their approval, and the status of that approval.

A verdict is signed with the person's own Ed25519 key, which the policy names under [people], so the program that stores
verdicts can neither invent nor alter one. All parts of a run, of
training or of a key search, need one approval together.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from crypto.keys import VerifyKey
from policies.requests.approval import StoredVerdict
from policies.requests.request import Request, job_of


def subject_of(request: Request, request_hash: bytes) -> bytes:
    """Return the subject of a verdict: the request; for a part of a run, the job that all its parts share."""
    part = request.plan.part
    return request_hash if part is None else job_of(request, part)


@dataclass(frozen=True, slots=True)
class ApprovalStatus:
    """The status of one approval: who approved, who rejected, and how many approvals are needed."""

    approved: tuple[str, ...]
    rejected: tuple[str, ...]
    need: int

    @property
    def is_given(self) -> bool:
        return not self.rejected and len(self.approved) >= self.need


def approval_status(
    verdicts: Iterable[StoredVerdict],
    subject: bytes,
    silo: str,
    keys: Mapping[str, VerifyKey],
    need: int,
    lasts_s: int,
    now: int,
) -> ApprovalStatus:
    """Return the status at `now` of an approval by the people in `keys`.

    The last verdict of a person counts, for `lasts_s` seconds. One rejection refuses, as its author may know a reason
    that the others do not. A rejection never lapses, and counts even if the clock was set back. A stored verdict
    without a valid signature counts as a rejection, as its real content is unknown.
    """
    last: dict[str, StoredVerdict] = {}
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
        # Of two verdicts in the same second the rejection counts, in whatever order they were stored.
        if one.who not in last or (one.at, one.decision) > (last[one.who].at, last[one.who].decision):
            last[one.who] = one
    approved = [who for who, one in last.items() if one.decision == "approve" and now < one.at + lasts_s]
    by_key = {keys[who]: who for who in sorted(approved)}  # one key is one person, also under several names
    rejected = altered | {who for who, one in last.items() if one.decision == "reject"}
    return ApprovalStatus(tuple(sorted(by_key.values())), tuple(sorted(rejected)), need)
