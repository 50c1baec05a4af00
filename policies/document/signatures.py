"""The signatures of a policy version, and whether it may follow the version before it.

Promise: a silo in production runs a version only if enough of the people that the policy names signed its exact bytes,
it is valid now, its number is above the last one's, and it names the last one's hash. They sign it for one federation:
a silo of another, which the same people answer for, does not run it. The version in force determines
who may sign, so a new version cannot admit itself. A version that loosens anything needs one more signature.
Signatures are in a file next to the policy; docs/policies.md describes how to make them.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

from crypto.errors import CryptoError
from crypto.keys import SigningKey, VerifyKey
from crypto.wire import Count, Digest, Message, Name, Seconds, check_name, sign, verify
from policies.document.describe import worded_policy
from policies.document.diff import compare, loosens
from policies.document.load import PolicyFile
from policies.document.policy import Head, Policy, SignedBy
from policies.errors import PolicySignatureError

SUFFIX = ".signatures"
_HEADER = "consilo-signatures/1"
_MAX_BYTES = 1 << 18
_MAX_SIGNATURES = 100


class PolicySignature(Message):
    """The message that one person signs: this file is this version of this silo's policy in this federation."""

    KIND: ClassVar[str] = "policy-signature"
    MAX_BYTES: ClassVar[int] = 4096
    federation: Name
    silo: Name
    policy: Name
    version: Count
    digest: Digest  # SHA-256 of the file
    at: Seconds


@dataclass(frozen=True, slots=True)
class Quorum:
    """How many signatures a version has, and how many it needs."""

    signed: tuple[str, ...]
    need: int
    of: tuple[str, ...]
    is_looser: bool = False

    @property
    def is_met(self) -> bool:
        return len(self.signed) >= self.need

    def __str__(self) -> str:
        reason = ", one more as it loosens something" if self.is_looser else ""
        return f"{len(self.signed)} of {self.need} signatures{reason} ({', '.join(self.signed) or 'nobody'} signed)"


def signature(file: PolicyFile, federation: str, who: str, key: SigningKey, at: int) -> bytes:
    """Sign a policy file for a federation as `who`; raises PolicySignatureError if the signature would not count."""
    head, signers = _head(file)
    if who not in signers.of:
        raise PolicySignatureError(f"{who!r} does not sign this policy", f"who does: {', '.join(signers.of)}")
    person = file.policy.people.get(who)
    if person is None or VerifyKey.parse(person.key) != key.public:
        known = "no key" if person is None else person.key
        hint = f"the key file holds {key.public}, [people] gives {known}"
        raise PolicySignatureError(f"this is not the key of {who!r} in the policy", hint)
    check_name(federation, "a federation")
    message = PolicySignature(
        federation=federation,
        silo=file.policy.silo.id,
        policy=head.id,
        version=head.version,
        digest=file.digest,
        at=at,
    )
    return sign(message, who, key)


def signed_by(file: PolicyFile, federation: str, signatures: Iterable[bytes], by: Policy) -> tuple[str, ...]:
    """Return who signed this file for a federation, out of the signers that `by` names, with their keys there."""
    head, _ = _head(file)
    if by.policy is None or by.policy.signed_by is None:
        return ()
    keys = {name: VerifyKey.parse(by.people[name].key) for name in by.policy.signed_by.of if name in by.people}
    expected = federation, file.policy.silo.id, head.id, head.version, file.digest
    found = set()
    for envelope in signatures:
        try:
            signed = verify(envelope, PolicySignature, keys)
        except CryptoError:
            continue
        told = signed.message
        if (told.federation, told.silo, told.policy, told.version, told.digest) == expected:
            found.add(signed.signer)
    by_key: Mapping[VerifyKey, str] = {keys[name]: name for name in sorted(found)}
    return tuple(sorted(by_key.values()))  # one key is one person, also under several names


def quorums(
    file: PolicyFile, federation: str, signatures: Iterable[bytes], accepted: PolicyFile | None
) -> tuple[Quorum, ...]:
    """Return the needed quorums: of the version's own signers, and of those of the version before it."""
    envelopes = tuple(signatures)
    _, own = _head(file)
    found = [Quorum(signed_by(file, federation, envelopes, file.policy), own.need, own.of)]
    if accepted is not None and accepted.digest != file.digest:
        _, before = _head(accepted)
        is_looser = loosens(accepted.policy, file.policy)
        signed = signed_by(file, federation, envelopes, accepted.policy)
        found.append(Quorum(signed, before.need + is_looser, before.of, is_looser))
    return tuple(found)


def check_succession(file: PolicyFile, accepted: PolicyFile) -> None:
    """Raise PolicySignatureError unless `file` may follow `accepted`: same policy, higher version, its hash named."""
    (head, _), (before, _) = _head(file), _head(accepted)
    if (file.policy.silo.id, head.id) != (accepted.policy.silo.id, before.id):
        raise PolicySignatureError(
            f"this is {head.id!r} of {file.policy.silo.id!r}, in force is {before.id!r} of {accepted.policy.silo.id!r}",
            "a policy keeps its id and its silo",
        )
    if head.version <= before.version:
        raise PolicySignatureError(
            f"this is version {head.version}, version {before.version} was in force already",
            "versions only rise: what was withdrawn must not come back",
        )
    expected = f"sha256:{accepted.digest.hex()}"
    if head.previous != expected:
        raise PolicySignatureError("previous does not name the version in force", f'set previous = "{expected}"')


def admit(
    file: PolicyFile, federation: str, signatures: Iterable[bytes], accepted: PolicyFile | None, now: int
) -> None:
    """Raise PolicySignatureError unless this version may run now, after the version `accepted` if there is one."""
    head, _ = _head(file)
    if not head.valid_from <= datetime.fromtimestamp(now, UTC) < head.valid_until:
        term = f"{head.valid_from:%Y-%m-%d} to {head.valid_until:%Y-%m-%d}"
        raise PolicySignatureError(f"version {head.version} holds from {term}", "sign a new version")
    if accepted is not None and accepted.digest != file.digest:
        check_succession(file, accepted)
    for quorum in quorums(file, federation, signatures, accepted):
        if not quorum.is_met:
            raise PolicySignatureError(
                f"version {head.version} has {quorum}, for {federation!r}",
                f"consilo-silo sign-policy, by one of {', '.join(quorum.of)}",
            )


def read_signatures(policy: Path) -> tuple[bytes, ...]:
    """Return the signatures beside a policy file, none if there is no such file; raises PolicySignatureError."""
    path = policy.with_name(policy.name + SUFFIX)
    try:
        with path.open("rb") as opened:
            lines = opened.read(_MAX_BYTES).decode("ascii").splitlines()
        if lines[:1] != [_HEADER] or len(lines) > 1 + _MAX_SIGNATURES:
            raise ValueError
        return tuple(bytes.fromhex(line) for line in lines[1:])
    except FileNotFoundError:
        return ()
    except (OSError, ValueError) as err:
        raise PolicySignatureError(f"{path} is no file of signatures", "remove it, and sign again") from err


def in_words(found: Iterable[Quorum]) -> Iterator[str]:
    """Yield a line for each quorum, as `quorums` returns them."""
    for quorum, whose in zip(found, ("this version", "the version in force"), strict=False):
        yield f"{'enough' if quorum.is_met else 'not enough'} by {whose}: {quorum}"


def written(signatures: Iterable[bytes]) -> str:
    """Return the text of a file of signatures."""
    return "\n".join((_HEADER, *(one.hex() for one in signatures))) + "\n"


def _head(file: PolicyFile) -> tuple[Head, SignedBy]:
    head = file.policy.policy
    if head is None or head.signed_by is None:
        raise PolicySignatureError(
            f"{file.path} does not say who signs it", "add signed_by = { need = ..., of = [...] } to [policy]"
        )
    return head, head.signed_by


def what_is_signed(file: PolicyFile, accepted: PolicyFile | None) -> Iterator[str]:
    """Yield what a version says, for whoever is about to sign it: the changes to the version in force, or all of it."""
    if accepted is not None and accepted.digest != file.digest:
        yield from map(str, compare(accepted.policy, file.policy))
        return
    for heading, sentences in worded_policy(file.policy):
        yield f"{heading}:"
        yield from (f"  {sentence}" for sentence in sentences)
