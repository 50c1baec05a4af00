"""Open one silo's sealed entry for another, at its receiver, or with the keys that the receiver has told everybody.

Promise: whoever is accused of an entry that does not open is found guilty by nobody's word: the accused signed the
entry, and the accuser tells the keys that were to open it. docs/protocol.md section 4.4.
"""

from collections.abc import Mapping
from hashlib import sha256

from crypto.errors import CryptoError, ProtocolError
from crypto.keys import Secret, VerifyKey
from crypto.rounds.key_schedule import entry_info, mask_key_of
from crypto.rounds.manifest import Accept, Manifest
from crypto.rounds.messages import Accusation, Bundle, Entry, entries_root
from crypto.sealing import SealingKey
from crypto.shamir import check_share
from crypto.wire import SHARE_BYTES, Signature, verify_detached


def open_entry(
    manifest: Manifest,
    manifest_hash: bytes,
    sender: int,
    receiver: int,
    raw: bytes,
    channel: SealingKey,
    mask: SealingKey,
) -> tuple[bytes, bytes, bytes]:
    """Return (share of b, share of r, pair seed or nothing) in an entry; sender and receiver by their places.

    Raises CryptoError if it is not as it should be.
    """
    names, entry, seed = (manifest.silos[sender], manifest.silos[receiver]), Entry.decode(raw), b""
    both = channel.open(entry.shares, entry_info(manifest_hash, "shares", *names))
    if sender < receiver:
        seed = mask.open(entry.pair_seed, entry_info(manifest_hash, "pair seed", *names))
    elif entry.pair_seed:
        raise ProtocolError("it has a pair seed for a silo before its sender")
    shares = both[:SHARE_BYTES], both[SHARE_BYTES:]
    for share in shares:
        check_share(share)
    return *shares, seed


def guilty(
    manifest: Manifest,
    manifest_hash: bytes,
    accuser: str,
    accept: Accept,
    accusation: Accusation,
    keys: Mapping[str, VerifyKey],
) -> str:
    """Return who is at fault: the accused if its entry does not open with the accuser's keys, else the accuser.

    `accept` is the accuser's acceptance of this round, which names the keys. Raises ProtocolError if the accusation is
    not of this round and of two of its members.
    """
    members = manifest.silos
    is_of_round = accusation.manifest_hash == manifest_hash and accept.round_id == manifest.round_id
    if not is_of_round or not {accuser, accusation.accused} <= set(members):
        raise ProtocolError("the accusation belongs to another round")
    sender, receiver = members.index(accusation.accused), members.index(accuser)
    channel, mask = SealingKey(Secret(accusation.channel)), mask_key_of(accusation.root)
    try:
        root = entries_root(manifest, manifest_hash, sender, receiver, accusation.entry, accusation.path)
        body = Bundle(manifest_hash=manifest_hash, entries=root).encode()
        verify_detached(Signature(signer=accusation.accused, signature=accusation.signature), body, Bundle, keys)
    except CryptoError:
        return accuser  # the accused did not sign this entry
    told = tuple(sha256(key.public).digest() for key in (channel, mask))
    if told != (accept.channel_key_hash, accept.mask_key_hash):
        return accuser
    try:
        open_entry(manifest, manifest_hash, sender, receiver, accusation.entry, channel, mask)
    except CryptoError:
        return accusation.accused
    return accuser
