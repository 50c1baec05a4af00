"""Check an encrypted report and open its sum, at a recipient: docs/protocol.md section 7.

Promise: a vector that comes out is the sum of the contributions that a quorum of silos signed for, provided the
aggregator added them honestly; `crypto.rounds.recount` finds out whether it did. The report holds the contributions'
signed digests, not the contributions themselves.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import InitVar, dataclass, field
from hashlib import sha256
from itertools import combinations, islice

import numpy as np
import numpy.typing as npt

from crypto.backends.scheme import Scheme, Units
from crypto.errors import CryptoError, ProtocolError, RangeError, SealError
from crypto.keys import Secret, VerifyKey
from crypto.rounds.key_schedule import (
    entry_info,
    mask_key_of,
    opening_info,
    pair_seed,
    self_commitment,
    self_seed,
    sum_info,
)
from crypto.rounds.manifest import Manifest, Propose, Terms, check_manifest
from crypto.rounds.messages import (
    Bundle,
    Contribution,
    Entry,
    OpenedShares,
    Opening,
    SurvivorSet,
    check_signatures,
    check_split,
)
from crypto.rounds.payload import digests, piece_sizes, scheme_of, slices, sum_sizes
from crypto.rounds.report import StoredReport
from crypto.sealing import SealingKey
from crypto.shamir import combine
from crypto.wire import Signed, verify

_MAX_QUORUMS_TRIED = 1000
_PASSED = object()  # what `check_report` alone gives a CheckedReport


@dataclass(frozen=True, slots=True)
class OpenedSum:
    """The unblinded sum in ring units, and what it was opened under."""

    manifest: Manifest
    split: SurvivorSet
    units: Units
    inconsistent_silos: tuple[str, ...] = ()  # silos whose sum contradicted the others' and was left out, in `shares`

    def blocks(self) -> list[npt.NDArray[np.float64]]:
        """Return the sum as real values, by block of the manifest, in the units before scaling."""
        found, start = [], 0
        for block in self.manifest.terms.blocks:
            found.append(np.ldexp(self.units[start : start + block.length].astype(np.float64), -block.scale_bits))
            start += block.length
        return found


@dataclass(frozen=True, slots=True)
class CheckedReport:
    """What an encrypted report proves to anybody who knows the request: who agreed on which contributions.

    It comes from `check_report` and from nowhere else, so that a report is checked once and never opened unchecked.
    """

    stored: StoredReport
    scheme: Scheme
    manifest: Manifest
    manifest_hash: bytes
    split: SurvivorSet
    split_hash: bytes
    contributions: tuple[Contribution, ...]  # of the survivors, in roster order
    silos: Mapping[str, VerifyKey] = field(repr=False)  # of the roster, with the keys that they signed with
    passed: InitVar[object]

    def __post_init__(self, passed: object) -> None:
        if passed is not _PASSED:
            raise TypeError("a CheckedReport comes from check_report, and from nowhere else")

    @property
    def name(self) -> bytes:
        """The report's name: its transcript."""
        return self.stored.name

    @property
    def survivors(self) -> tuple[str, ...]:
        return tuple(survivor.silo for survivor in self.split.survivors)

    @property
    def consent_as_of(self) -> dict[str, int]:
        """At which clock time each survivor read decisions on consent, in seconds since 1970, where it says so."""
        heads = zip(self.survivors, self.contributions, strict=True)
        return {silo: head.consent_as_of for silo, head in heads if head.consent_as_of is not None}


def check_report(
    stored: StoredReport,
    terms: Terms,
    silos: Mapping[str, VerifyKey],
    aggregators: Mapping[str, VerifyKey],
    round_key: bytes = b"",
) -> CheckedReport:
    """Make every check of a report that needs no secret; `round_key` is the public key that its request carries.

    Raises ProtocolError, SignatureError or WireError, each naming what does not hold.
    """
    # 1. The manifest is what the request and the signed acceptances give.
    report = stored.message
    propose = verify(report.propose, Propose, aggregators).message
    signed_manifest = verify(report.manifest, Manifest, aggregators)
    manifest, manifest_hash = signed_manifest.message, signed_manifest.digest
    check_manifest(manifest, propose, terms, report.accepts, silos)
    # 2. A quorum of survivors signed one and the same split.
    roster = {silo: silos[silo] for silo in manifest.silos}
    split = check_signatures(manifest, report.split, report.signatures, roster)
    check_split(manifest, manifest_hash, split)
    heads = {one.signer: one for one in (verify(raw, Contribution, roster) for raw in report.contributions)}
    scheme = scheme_of(manifest, round_key)
    contributions, pieces = [], len(piece_sizes(scheme))
    for survivor in split.survivors:
        signed = heads.get(survivor.silo)
        if signed is None or signed.digest != survivor.contribution:
            raise ProtocolError(f"the contribution of {survivor.silo!r} is not the one that was agreed on")
        bound = signed.message.manifest_hash, signed.message.length, len(signed.message.chunks)
        if bound != (manifest_hash, manifest.length, pieces):
            raise ProtocolError(f"the contribution of {survivor.silo!r} belongs to another round")
        contributions.append(signed.message)
    # 3. The blinded sum has the size of the round, and is the one that the report names.
    sizes = sum_sizes(scheme, len(report.openings), len(terms.recipients))
    if report.length != manifest.length or digests(list(slices(stored.blinded_sum, sizes))) != report.chunks:
        raise ProtocolError("the blinded sum is not the one that the report names")
    split_hash = sha256(report.split).digest()
    heads_in_order = tuple(contributions)
    return CheckedReport(
        stored, scheme, manifest, manifest_hash, split, split_hash, heads_in_order, roster, passed=_PASSED
    )


def open_report(checked: CheckedReport, recipient: str, key: SealingKey, secret: Secret | None = None) -> OpenedSum:
    """Return the sum of a checked report, after every check that needs the recipient's key.

    `secret` belongs to the public key that the request carries, where the backend has one.

    Raises ProtocolError, SignatureError, WireError, SealError or RangeError, each naming what does not hold.
    """
    # 1 to 3 are those of `check_report`.
    report, manifest, manifest_hash = checked.stored.message, checked.manifest, checked.manifest_hash
    survivors, scheme = checked.survivors, checked.scheme
    names = [one.name for one in manifest.terms.recipients]
    if recipient not in names or manifest.terms.recipients[names.index(recipient)].key != key.public:
        raise ProtocolError(f"{recipient!r} with this key is not a recipient of the report")
    pieces = list(slices(checked.stored.blinded_sum, sum_sizes(scheme, len(report.openings), len(names))))
    if scheme.columns > 1:
        sums = _opened_sums(checked, pieces, recipient, names.index(recipient), key)
        opened = scheme.open(sums, (), ())
        return OpenedSum(
            manifest, checked.split, opened.units, tuple(manifest.silos[place] for place in opened.inconsistent_silos)
        )
    if secret is None and manifest.terms.key_id:
        raise ProtocolError("the sum is encrypted, and the request carries no secret for this recipient")
    # 4. A quorum of openings rebuilds the self masks of survivors and the roots of dropped silos.
    committees = manifest.committees(manifest_hash)
    rows = _opened_shares(checked, recipient, names.index(recipient), key)
    rebuilt = {
        member.silo: _rebuild(manifest, index, member.silo in survivors, _shares_of(index, committees, rows))
        for index, member in enumerate(manifest.roster)
    }
    # 5. Remove what is left of the masks.
    added_seeds: list[bytes] = []
    subtracted_seeds: list[bytes] = []
    for index, member in enumerate(manifest.roster):
        if member.silo in survivors:
            subtracted_seeds.append(self_seed(rebuilt[member.silo], manifest_hash))
            continue
        mask_key = mask_key_of(rebuilt[member.silo])
        # A survivor after the dropped silo subtracted their pair mask, one before it added theirs.
        beside = [manifest.silos[place] for place in committees[index]]
        later = [name for name in beside if name in survivors and name > member.silo]
        added_seeds += [pair_seed(rebuilt[member.silo], manifest_hash, name) for name in later]
        seeds = _seeds_before(checked, index, mask_key)
        subtracted_seeds += [seed for name, seed in seeds.items() if name in survivors]
    opened = scheme.open({0: [bytes(piece) for piece in pieces]}, added_seeds, subtracted_seeds, secret)
    return OpenedSum(manifest, checked.split, opened.units)


def _opened_sums(
    checked: CheckedReport, pieces: Sequence[memoryview], recipient: str, position: int, key: SealingKey
) -> dict[int, list[bytes]]:
    """Return the chunks of the sum that each silo opened of its own column, by its place in the roster."""
    manifest, recipients = checked.manifest, len(checked.manifest.terms.recipients)
    scheme, found = checked.scheme, dict[int, list[bytes]]()
    sizes = [scheme.sum_bytes(index) for index in range(scheme.shape.chunks)]
    for number, opening in enumerate(_openings(checked)):
        mine = pieces[number * recipients : (number + 1) * recipients]
        if digests(mine) != opening.message.sums:
            raise ProtocolError(f"the sum of {opening.signer!r} is not the one it signed")
        info = sum_info(checked.manifest_hash, checked.split_hash, opening.signer, recipient)
        chunks: list[bytes] = []  # what does not open counts as wrong
        with suppress(CryptoError):
            chunks = [bytes(chunk) for chunk in slices(key.open(bytes(mine[position]), info), sizes)]
        found[manifest.silos.index(opening.signer)] = chunks
    if len(found) < manifest.quorum:
        raise ProtocolError(f"{len(found)} silos opened their sums, {manifest.quorum} are needed")
    return found


def _openings(checked: CheckedReport) -> Iterator[Signed[Opening]]:
    for raw in checked.stored.message.openings:
        opening = verify(raw, Opening, checked.silos)
        bound = opening.message.manifest_hash, opening.message.split_hash
        if bound != (checked.manifest_hash, checked.split_hash):
            raise ProtocolError(f"the opening of {opening.signer!r} belongs to another round or split")
        recipients = len(checked.manifest.terms.recipients)
        expected = (recipients, 0) if checked.scheme.is_masked else (0, recipients)
        if (len(opening.message.sealed), len(opening.message.sums)) != expected:
            raise ProtocolError(f"the opening of {opening.signer!r} is not sealed to each recipient")
        yield opening


def _opened_shares(
    checked: CheckedReport, recipient: str, position: int, key: SealingKey
) -> dict[int, tuple[bytes, ...]]:
    """Return the share row of each silo that opened, by its place in the roster."""
    manifest, rows = checked.manifest, dict[int, tuple[bytes, ...]]()
    for opening in _openings(checked):
        info = opening_info(checked.manifest_hash, checked.split_hash, opening.signer, recipient)
        row = OpenedShares.decode(key.open(opening.message.sealed[position], info)).shares
        if len(row) != manifest.degree + 1:
            raise ProtocolError(f"the opening of {opening.signer!r} does not cover its committee")
        rows[manifest.silos.index(opening.signer)] = row
    if len(rows) < manifest.quorum:
        raise ProtocolError(f"{len(rows)} silos opened their shares, {manifest.quorum} are needed")
    return rows


def _shares_of(
    index: int, committees: Sequence[Sequence[int]], rows: Mapping[int, tuple[bytes, ...]]
) -> dict[int, bytes]:
    """Return the opened shares of one member's secret, by their number in its committee."""
    return {
        number: rows[holder][committees[holder].index(index)]
        for number, holder in enumerate(committees[index])
        if holder in rows
    }


def _rebuild(manifest: Manifest, index: int, is_survivor: bool, shares: Mapping[int, bytes]) -> bytes:
    """Return the secret of one member that fits its acceptance, passing over quorums that hold a wrong share."""
    member, quorum = manifest.roster[index], manifest.committee_quorum
    if len(shares) < quorum:
        raise ProtocolError(f"{len(shares)} silos opened their shares of {member.silo!r}, {quorum} are needed")
    for parties in islice(_quorums(sorted(shares), quorum), _MAX_QUORUMS_TRIED):
        try:
            secret = combine({party: shares[party] for party in parties}, quorum)
        except RangeError:
            continue
        if is_survivor and self_commitment(secret) == member.self_commitment:
            return secret
        if not is_survivor and mask_key_of(secret).public == member.mask_key:
            return secret
    raise ProtocolError(f"the opened shares of {member.silo!r} do not rebuild its secret")


def _quorums(parties: list[int], quorum: int) -> Iterator[tuple[int, ...]]:
    """Yield quorums: the first, then one without each party in turn, so that one wrong share is passed over at once."""
    yield tuple(parties[:quorum])
    if len(parties) > quorum:
        for left_out in parties:
            yield tuple(party for party in parties if party != left_out)[:quorum]
        yield from combinations(parties, quorum)


def _seeds_before(checked: CheckedReport, index: int, mask_key: SealingKey) -> dict[str, bytes]:
    """Return the pair seeds that those before a dropped silo sealed to its mask key, by silo."""
    report, manifest, manifest_hash = checked.stored.message, checked.manifest, checked.manifest_hash
    dropped, committees = manifest.silos[index], manifest.committees(manifest_hash)
    before = [place for place in committees[index] if place < index]
    sealed = {one.silo: one.entries for one in report.dropped}.get(dropped, ())
    if len(sealed) != len(before):
        raise ProtocolError(f"the pair seeds of the dropped silo {dropped!r} are missing")
    bundles = {one.signer: one.message for one in (verify(raw, Bundle, checked.silos) for raw in report.bundles)}
    seeds: dict[str, bytes] = {}
    for place, entry in zip(before, sealed, strict=True):
        sender = manifest.silos[place]
        bundle = bundles.get(sender)
        if bundle is None or bundle.manifest_hash != manifest_hash or len(bundle.entries) != manifest.degree + 1:
            raise ProtocolError(f"the bundle of {sender!r} is missing or belongs to another round")
        if sha256(entry).digest() != bundle.entries[committees[place].index(index)]:
            raise ProtocolError(f"an entry of {sender!r} is not the one it signed")
        seed = mask_key.open(Entry.decode(entry).pair_seed, entry_info(manifest_hash, "pair seed", sender, dropped))
        if len(seed) != 32:
            raise SealError(f"the pair seed of {sender!r} for {dropped!r} is malformed")
        seeds[sender] = seed
    return seeds
