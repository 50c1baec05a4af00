"""Check an encrypted report and open its sum, at a recipient: docs/protocol.md section 7.2; section 8, table G.

Promise: the opened vector is the sum of the masked inputs that a quorum of silos agreed on, provided the aggregator
added them honestly, which `crypto.rounds.recount` checks. The report holds the signed digests of the masked inputs, not
the masked inputs themselves. Bonawitz et al., CCS 2017, figure 4, Unmasking; here a recipient opens, not the server.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import InitVar, dataclass, field
from hashlib import sha256
from itertools import combinations, islice
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from crypto.backends.scheme import Scheme, Units
from crypto.errors import CryptoError, ProtocolError, RangeError
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
from crypto.rounds.manifest import Accept, Manifest, Propose, Terms, check_manifest
from crypto.rounds.messages import (
    SEALED_SEED,
    SEALED_SHARES,
    Bundle,
    Contribution,
    Entry,
    Opening,
    SurvivorSet,
    UnmaskingShares,
    check_signatures,
    check_survivors,
    entries_root,
    sealed_row_bytes,
)
from crypto.rounds.payload import digests, piece_sizes, scheme_of, slices, sum_digest, sum_sizes
from crypto.rounds.report import StoredReport
from crypto.sealing import SealingKey
from crypto.shamir import combine, strangers, wrong_shares
from crypto.wire import Signed, verify

_MAX_QUORUMS_TRIED = 1000
MAX_DECODED = 100  # shares of a secret among which wrong ones are found by decoding, in time cubic in their number
_PASSED = object()  # proof that `check_report` made this CheckedReport


@dataclass(frozen=True, slots=True)
class OpenedSum:
    """The unblinded sum in ring units, with its manifest and its survivor set."""

    manifest: Manifest
    survivor_set: SurvivorSet
    units: Units
    wrong: Mapping[str, str] = field(default_factory=dict)  # by silo, what it signed that was wrong and was left out

    def blocks(self) -> list[npt.NDArray[np.float64]]:
        """Return the sum as real values, by block of the manifest, in the units before scaling."""
        found, start = [], 0
        for block in self.manifest.terms.blocks:
            found.append(np.ldexp(self.units[start : start + block.length].astype(np.float64), -block.scale_bits))
            start += block.length
        return found

    def deviations(self) -> list[float]:
        """Return the standard deviation of the noise in each number, by block of the manifest, in the same units."""
        parts = len(self.survivor_set.survivors) / self.manifest.noise_shares
        blocks = self.manifest.terms.blocks
        return [math.ldexp(math.sqrt(int(block.variance) * parts), -block.scale_bits) for block in blocks]

    def whole_blocks(self) -> list[npt.NDArray[np.int64]]:
        """Return the sum as whole numbers, exactly, by block of the manifest; raises ProtocolError on a scaled one.

        They are views of `units`.
        """
        found, start = list[npt.NDArray[np.int64]](), 0
        for block in self.manifest.terms.blocks:
            if block.scale_bits:
                raise ProtocolError(f"the block {block.name} is scaled for noise, so it is no sum of whole numbers")
            found.append(self.units[start : start + block.length].astype(np.int64, copy=False))
            start += block.length
        return found


@dataclass(frozen=True, slots=True)
class CheckedReport:
    """A report that passed every check that needs no secret: it proves which silos agreed on which masked inputs.

    Only `check_report` makes one, so a report is checked once and never opened unchecked.
    """

    stored: StoredReport
    scheme: Scheme
    manifest: Manifest
    manifest_hash: bytes
    survivor_set: SurvivorSet
    survivors_hash: bytes
    contributions: tuple[Contribution, ...]  # of the survivors, in roster order
    accepts: Mapping[str, Accept] = field(repr=False)  # of the roster
    silos: Mapping[str, VerifyKey] = field(repr=False)  # of the roster, with the keys that they signed with
    passed: InitVar[object]

    def __post_init__(self, passed: object) -> None:
        if passed is not _PASSED:
            raise TypeError("a CheckedReport comes from check_report, and from nowhere else")
        object.__setattr__(self, "accepts", MappingProxyType(dict(self.accepts)))
        object.__setattr__(self, "silos", MappingProxyType(dict(self.silos)))

    @property
    def name(self) -> bytes:
        """The report's name: its transcript."""
        return self.stored.name

    @property
    def survivors(self) -> tuple[str, ...]:
        return tuple(survivor.silo for survivor in self.survivor_set.survivors)

    @property
    def consent_as_of(self) -> dict[str, int]:
        """The clock time at which each survivor read decisions on consent, in seconds since 1970, if it states one."""
        headers = zip(self.survivors, self.contributions, strict=True)
        return {silo: header.consent_as_of for silo, header in headers if header.consent_as_of is not None}

    @property
    def rows_as_of(self) -> dict[str, int]:
        """When the files of each survivor's prepared rows were last seen unchanged, if it states it."""
        headers = zip(self.survivors, self.contributions, strict=True)
        return {silo: header.rows_as_of for silo, header in headers if header.rows_as_of is not None}


def check_report(
    stored: StoredReport,
    terms: Terms,
    silos: Mapping[str, VerifyKey],
    aggregators: Mapping[str, VerifyKey],
    round_key: bytes = b"",
) -> CheckedReport:
    """Make every check of a report that needs no secret; `round_key` is the public key in its request.

    Raises ProtocolError, SignatureError or WireError, which name the failed check.
    """
    # 1. The manifest is what the request and the signed acceptances give.
    report = stored.message
    propose = verify(report.propose, Propose, aggregators).message
    signed_manifest = verify(report.manifest, Manifest, aggregators)
    manifest, manifest_hash = signed_manifest.message, signed_manifest.digest
    signed_accepts = check_manifest(manifest, propose, terms, report.accepts, silos)
    accepts = {one.signer: one.message for one in signed_accepts}
    # 2. A quorum of survivors signed one and the same survivor set.
    roster = {silo: silos[silo] for silo in manifest.silos}
    survivor_set = check_signatures(manifest, report.split, report.signatures, roster)
    check_survivors(manifest, manifest_hash, survivor_set)
    headers = {one.signer: one for one in (verify(raw, Contribution, roster) for raw in report.contributions)}
    scheme = scheme_of(manifest, round_key)
    contributions, pieces = [], len(piece_sizes(scheme))
    for survivor in survivor_set.survivors:
        signed = headers.get(survivor.silo)
        if signed is None or signed.digest != survivor.contribution:
            raise ProtocolError(f"the contribution of {survivor.silo!r} is not the one that was agreed on")
        bound = signed.message.manifest_hash, signed.message.length, len(signed.message.chunks)
        if bound != (manifest_hash, manifest.length, pieces):
            raise ProtocolError(f"the contribution of {survivor.silo!r} belongs to another round")
        contributions.append(signed.message)
    # 3. The blinded sum has the size of the round, and is the one that the report names.
    sizes = sum_sizes(scheme, len(report.openings), len(terms.recipients))
    blinded = stored.blinded_sum
    if manifest.terms.is_long:  # what is sealed to one recipient follows, or to all, or to none
        rows, blinded = blinded[sum(sizes) :], blinded[: sum(sizes)]
        block = len(report.openings) * sealed_row_bytes(manifest)
        if len(rows) not in (0, block, block * len(terms.recipients)):
            raise ProtocolError("what is sealed to the recipients does not have the size of the round")
    if report.length != manifest.length or digests(list(slices(blinded, sizes))) != report.chunks:
        raise ProtocolError("the blinded sum is not the one that the report names")
    if manifest.terms.is_long and survivor_set.sum != sum_digest(report.chunks):
        raise ProtocolError("the blinded sum is not the one that the survivor set names")
    survivors_hash = sha256(report.split).digest()
    return CheckedReport(
        stored,
        scheme,
        manifest,
        manifest_hash,
        survivor_set,
        survivors_hash,
        tuple(contributions),
        accepts,
        roster,
        passed=_PASSED,
    )


def open_report(checked: CheckedReport, recipient: str, key: SealingKey, secret: Secret | None = None) -> OpenedSum:
    """Return the sum of a checked report, after every check that needs the recipient's key.

    `secret` belongs to the public key in the request, if the backend has one.

    Raises ProtocolError, SignatureError, WireError, SealError or RangeError, which name the failed check.
    """
    # 1 to 3 are those of `check_report`.
    report, manifest, manifest_hash = checked.stored.message, checked.manifest, checked.manifest_hash
    survivors, scheme = checked.survivors, checked.scheme
    names = [one.name for one in manifest.terms.recipients]
    if recipient not in names or manifest.terms.recipients[names.index(recipient)].key != key.public:
        raise ProtocolError(f"{recipient!r} with this key is not a recipient of the report")
    sizes = sum_sizes(scheme, len(report.openings), len(names))
    pieces = list(slices(checked.stored.blinded_sum[: sum(sizes)], sizes))
    wrong: dict[str, str] = {}
    if scheme.columns > 1:
        sums = _opened_sums(checked, pieces, recipient, names.index(recipient), key, wrong)
        opened = scheme.open(sums, (), ())
        contradicting = [manifest.silos[place] for place in opened.inconsistent_silos]
        wrong = dict.fromkeys(contradicting, "its sum contradicts those of the others") | wrong
        return OpenedSum(manifest, checked.survivor_set, opened.units, wrong)
    if secret is None and manifest.terms.key_id:
        raise ProtocolError("the sum is encrypted, and the request carries no secret for this recipient")
    # 4. A quorum of openings rebuilds the self masks of survivors and the roots of dropped silos.
    committees = manifest.committees(manifest_hash)
    rows = _opened_shares(checked, recipient, names.index(recipient), key, wrong)
    rebuilt, strange = _rebuild_all(checked, committees, rows, wrong)
    wrong |= strange
    # 5. Remove the masks that are left.
    added_seeds: list[bytes] = []
    subtracted_seeds: list[bytes] = []
    for index, silo in enumerate(manifest.silos):
        if silo in survivors:
            subtracted_seeds.append(self_seed(rebuilt[silo], manifest_hash))
            continue
        mask_key = mask_key_of(rebuilt[silo])
        # A survivor after the dropped silo subtracted their pair mask, one before it added theirs.
        beside = [manifest.silos[place] for place in committees[index]]
        later = [name for name in beside if name in survivors and name > silo]
        added_seeds += [pair_seed(rebuilt[silo], manifest_hash, name) for name in later]
        seeds = _seeds_before(checked, index, mask_key)
        subtracted_seeds += [seed for name, seed in seeds.items() if name in survivors]
    opened = scheme.open({0: pieces}, added_seeds, subtracted_seeds, secret)
    return OpenedSum(manifest, checked.survivor_set, opened.units, wrong)


def _opened_sums(
    checked: CheckedReport,
    pieces: Sequence[memoryview],
    recipient: str,
    position: int,
    key: SealingKey,
    wrong: dict[str, str],
) -> dict[int, list[bytes]]:
    """Return the chunks of each silo's sum of its column, by the silo's position in the roster; note wrong ones."""
    manifest, recipients = checked.manifest, len(checked.manifest.terms.recipients)
    scheme, found = checked.scheme, dict[int, list[bytes]]()
    sizes = [scheme.sum_bytes(index) for index in range(scheme.shape.chunks)]
    for number, opening in enumerate(_openings(checked)):
        mine = pieces[number * recipients : (number + 1) * recipients]
        if digests(mine) != opening.message.sums:
            raise ProtocolError(f"the sum of {opening.signer!r} is not the one it signed")
        info = sum_info(checked.manifest_hash, checked.survivors_hash, opening.signer, recipient)
        with _noting(wrong, opening.signer, "its sum"):
            chunks = [bytes(chunk) for chunk in slices(key.open(bytes(mine[position]), info), sizes)]
            found[manifest.silos.index(opening.signer)] = chunks
    if len(found) < manifest.quorum:
        raise ProtocolError(_too_few(f"{len(found)} silos opened their sums", manifest.quorum, wrong))
    return found


@contextmanager
def _noting(wrong: dict[str, str], silo: str, what: str) -> Iterator[None]:
    """Pass over what a silo signed wrongly, and note why."""
    try:
        yield
    except CryptoError as err:
        wrong[silo] = f"{what}: {err.message}"


def _too_few(found: str, needed: int, wrong: Mapping[str, str]) -> str:
    told = "".join(f"; {silo} is left out ({why})" for silo, why in sorted(wrong.items()))
    return f"{found}, {needed} are needed{told}"


def _openings(checked: CheckedReport) -> Iterator[Signed[Opening]]:
    """Yield the openings; raises for one that the aggregator altered, or took from another round."""
    for raw in checked.stored.message.openings:
        opening = verify(raw, Opening, checked.silos)
        bound = opening.message.manifest_hash, opening.message.split_hash
        if bound != (checked.manifest_hash, checked.survivors_hash):
            raise ProtocolError(f"the opening of {opening.signer!r} belongs to another round or survivor set")
        yield opening


def _opened_shares(
    checked: CheckedReport, recipient: str, position: int, key: SealingKey, wrong: dict[str, str]
) -> dict[int, tuple[bytes, ...]]:
    """Return the shares that each silo opened, by the silo's position in the roster; note wrong openings."""
    manifest, rows = checked.manifest, dict[int, tuple[bytes, ...]]()
    beside = _rows_beside(checked, position)
    for number, opening in enumerate(_openings(checked)):
        with _noting(wrong, opening.signer, "its opening"):
            message, recipients = opening.message, len(manifest.terms.recipients)
            if (len(message.sealed), len(message.sums)) != ((0, recipients) if beside else (recipients, 0)):
                raise ProtocolError("it is not sealed to each recipient")
            if beside and digests([beside[number]]) != message.sums[position : position + 1]:
                raise ProtocolError("what came with it is not what it signed")
            info = opening_info(checked.manifest_hash, checked.survivors_hash, opening.signer, recipient)
            sealed = bytes(beside[number]) if beside else message.sealed[position]
            row = UnmaskingShares.decode(key.open(sealed, info)).shares
            if len(row) != manifest.degree + 1:
                raise ProtocolError("it does not cover its committee")
            rows[manifest.silos.index(opening.signer)] = row
    if len(rows) < manifest.quorum:
        raise ProtocolError(_too_few(f"{len(rows)} silos opened their shares", manifest.quorum, wrong))
    return rows


def _rows_beside(checked: CheckedReport, position: int) -> Sequence[memoryview]:
    """Return what is sealed to the recipient at a position, by opening: in a long round it follows the sum."""
    manifest, openings = checked.manifest, len(checked.stored.message.openings)
    if not manifest.terms.is_long:
        return ()
    start, row = sum(sum_sizes(checked.scheme, 0, 0)), sealed_row_bytes(manifest)
    rows = checked.stored.blinded_sum[start:]
    if not rows:
        raise ProtocolError("the report was handed over without what is sealed to this recipient")
    if len(rows) > openings * row:  # those of all recipients
        rows = rows[position * openings * row : (position + 1) * openings * row]
    return list(slices(rows, (row,) * openings))


def _shares_of(
    index: int, committees: Sequence[Sequence[int]], rows: Mapping[int, tuple[bytes, ...]]
) -> dict[int, bytes]:
    """Return the opened shares of one member's secret, by the holder's number in its committee."""
    return {
        number: rows[holder][committees[holder].index(index)]
        for number, holder in enumerate(committees[index])
        if holder in rows
    }


def _rebuild_all(
    checked: CheckedReport,
    committees: Sequence[Sequence[int]],
    rows: Mapping[int, tuple[bytes, ...]],
    wrong: Mapping[str, str],
) -> tuple[dict[str, bytes], dict[str, str]]:
    """Return the secret of every member, and who opened or dealt a share that is not on the polynomial of the others.

    Raises ProtocolError, which names a member, if its secret cannot be rebuilt.
    """
    silos, survivors, found = checked.manifest.silos, set(checked.survivors), dict[str, bytes]()
    strange: list[tuple[str, str]] = []  # who opened the share, and whose secret it is of
    suspects: set[int] = set()  # who opened a wrong share before: of the next secrets theirs are left out first
    for index, silo in enumerate(silos):
        shares = _shares_of(index, committees, rows)
        if len(shares) < (quorum := checked.manifest.committee_quorum):
            raise ProtocolError(_too_few(f"{len(shares)} silos opened their shares of {silo!r}", quorum, wrong))
        doubted = {number for number, holder in enumerate(committees[index]) if holder in suspects}
        found[silo], odd = _rebuild(checked, silo, silo in survivors, shares, doubted)
        suspects |= {committees[index][number] for number in odd}
        strange += [(silos[committees[index][number]], silo) for number in odd]
    return found, _blamed(strange, checked.manifest.max_colluding)


def _blamed(strange: Sequence[tuple[str, str]], colluding: int) -> dict[str, str]:
    """Return whose fault shares are that do not fit: of who opened them, or of who dealt them.

    Where more than `colluding` say the same, it is true. Otherwise nobody but the two can tell.
    """
    opened, dealt = Counter(one for one, _ in strange), Counter(silo for _, silo in strange)
    wrong = {silo: f"it dealt wrong shares to {count} silos" for silo, count in dealt.items() if count > colluding}
    for one, silo in strange:
        if opened[one] > colluding:
            wrong[one] = f"it opened wrong shares of {opened[one]} silos"
        elif silo not in wrong:
            wrong[one] = f"it opened a wrong share of {silo}, unless {silo} dealt it so"
    return wrong


def _rebuild(
    checked: CheckedReport, silo: str, is_survivor: bool, shares: Mapping[int, bytes], doubted: Collection[int]
) -> tuple[bytes, tuple[int, ...]]:
    """Return the secret of one member that fits its acceptance, and which shares are not of its polynomial.

    A share that was not needed is compared in a small roster only, whose members all have the same holders, and where
    others were wrong: there it costs little.
    """
    quorum, member = checked.manifest.committee_quorum, checked.accepts[silo]
    compares_all = checked.manifest.degree + 1 == len(checked.manifest.silos)
    for number, parties in enumerate(islice(_tried(shares, quorum, doubted), _MAX_QUORUMS_TRIED)):
        try:
            secret = combine({party: shares[party] for party in parties}, quorum)
        except RangeError:
            continue
        if is_survivor:
            fits = self_commitment(secret) == member.self_commitment
        else:
            fits = sha256(mask_key_of(secret).public).digest() == member.mask_key_hash
        if fits:
            return secret, strangers(shares, parties) if number or doubted or compares_all else ()
    raise ProtocolError(
        f"the opened shares of {silo!r} do not rebuild its secret: it dealt wrong ones, or more than"
        f" {len(shares) - quorum} of those that opened are wrong",
        f"ask again without {silo}",
    )


def _tried(shares: Mapping[int, bytes], quorum: int, doubted: Collection[int]) -> Iterator[tuple[int, ...]]:
    """Yield quorums: the first without doubted shares, then one of shares that are on one polynomial, then others."""
    parties = sorted(shares)
    yield tuple(sorted(parties, key=lambda party: (party in doubted, party))[:quorum])
    if len(shares) <= MAX_DECODED and (wrong := wrong_shares(shares, quorum)) is not None:
        yield tuple(party for party in parties if party not in wrong)[:quorum]
    yield from quorums(parties, quorum)


def quorums(parties: list[int], quorum: int) -> Iterator[tuple[int, ...]]:
    """Yield quorums: the first, then one without each party in turn, then further ones."""
    yield tuple(parties[:quorum])
    if len(parties) > quorum:
        for left_out in parties:
            yield tuple(party for party in parties if party != left_out)[:quorum]
        yield from combinations(parties, quorum)


def _seeds_before(checked: CheckedReport, index: int, mask_key: SealingKey) -> dict[str, bytes]:
    """Return the pair seeds that the silos before a dropped silo sealed to its mask key, by silo."""
    report, manifest, manifest_hash = checked.stored.message, checked.manifest, checked.manifest_hash
    dropped = manifest.silos[index]
    before = [place for place in manifest.committee(manifest_hash, index) if place < index]
    sealed = {one.silo: one.entries for one in report.dropped}.get(dropped, ())
    if len(sealed) != len(before):
        raise ProtocolError(f"the pair seeds of the dropped silo {dropped!r} are missing")
    bundles = {one.signer: one.message for one in (verify(raw, Bundle, checked.silos) for raw in report.bundles)}
    seeds: dict[str, bytes] = {}
    entry_bytes = SEALED_SHARES + SEALED_SEED
    for place, raw in zip(before, sealed, strict=True):
        sender, entry = manifest.silos[place], raw[:entry_bytes]
        bundle = bundles.get(sender)
        if bundle is None or bundle.manifest_hash != manifest_hash:
            raise ProtocolError(f"the bundle of {sender!r} is missing or belongs to another round")
        if entries_root(manifest, manifest_hash, place, index, entry, raw[entry_bytes:]) != bundle.entries:
            raise ProtocolError(f"an entry of {sender!r} is not the one it signed")
        info = entry_info(manifest_hash, "pair seed", sender, dropped)
        seeds[sender] = mask_key.open(Entry.decode(entry).pair_seed, info)
    return seeds
