"""What one silo is shown of a round's members, and its check of a manifest that binds all of them by a Merkle root.

A silo sees the acceptances of its committee, with which it shares secrets, or of the whole roster where the backend
seals to everybody; and of the witnesses, whose conditions are those of the manifest. Of the others it knows the names.
Promise: what it checks of M is either a function of the names and of M's own numbers, or bound by an acceptance that
it sees; every member makes the same check of the same M before it is ready. docs/protocol.md section 3.6 says why
nothing else needs a check; section 8, rows B3 to B7.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from crypto.errors import ProtocolError
from crypto.keys import VerifyKey
from crypto.merkle import shown_root
from crypto.rounds.manifest import (
    Accept,
    Manifest,
    Propose,
    Terms,
    check_accept,
    check_equal,
    check_round_key,
    compute_s_of,
    ends_at,
    manifest_of,
    member_leaf,
    send_s_of,
)
from crypto.rounds.messages import ShareKeys
from crypto.wire import verify


class Shown(NamedTuple):
    """A member that a silo is shown, and the keys that the silo needs of it."""

    accept: Accept
    channel_key: bytes
    mask_key: bytes  # empty unless the member comes later in the roster than the silo


@dataclass(frozen=True, slots=True)
class Own:
    """What a silo knows of a round by itself: what it was proposed, asked and has accepted."""

    silo: str
    propose: Propose
    terms: Terms
    asked: tuple[str, ...]
    waits_s: int  # how long the request waits for the silos' computing
    sends_s: int  # how long it waits for a silo to send
    accept: Accept


def places_shown(manifest: Manifest, manifest_hash: bytes, place: int) -> tuple[int, ...]:
    """Return which members the silo at a place of the roster is shown with their keys, as places, itself included."""
    if manifest.terms.backend == "shares":  # a part of every contribution goes to every silo
        return tuple(range(len(manifest.silos)))
    return manifest.committee(manifest_hash, place)


def witnesses(accepts: Sequence[Accept]) -> tuple[int, ...]:
    """Return the places of members whose acceptances are as strict as the manifest: one for each condition."""
    conditions: tuple[Callable[[Accept], int], ...] = (
        lambda accept: accept.min_silos,
        lambda accept: accept.max_colluding,
        lambda accept: -accept.max_missing,
        lambda accept: accept.compute_ms or 0,
    )
    if any(accept.send_ms is not None for accept in accepts):
        conditions = (*conditions, lambda accept: accept.send_ms or 0)
    return tuple(sorted({max(range(len(accepts)), key=lambda place: one(accepts[place])) for one in conditions}))


def check_shown(
    manifest: Manifest,
    manifest_hash: bytes,
    own: Own,
    message: ShareKeys,
    parts: Sequence[bytes],
    keys: Mapping[str, VerifyKey],
) -> tuple[dict[str, Shown], int]:
    """Return the members with which a silo has to do, if the manifest holds for it.

    With them comes the greatest time in milliseconds that a member states for its computing, 0 where none does.
    `parts` are what follows the message. Raises ProtocolError, which names the difference, and WireError or
    SignatureError from the acceptances.
    """
    # 1. The roster: names in order, among those that the analyst asked, this silo's with them.
    silos = manifest.silos
    if silos != tuple(sorted(set(silos))):
        raise ProtocolError("the roster is not sorted or names a silo twice")
    if not set(silos) <= set(own.asked):
        raise ProtocolError("the roster holds a silo that the analyst did not ask")
    if own.silo not in silos:
        raise ProtocolError("the manifest does not hold this silo's own acceptance")
    # 2. What follows from the request, the names and the manifest's own conditions.
    expected = manifest_of(
        own.propose,
        own.terms,
        silos,
        manifest.members,
        expires_at=manifest.expires_at,
        min_silos=manifest.min_silos,
        max_colluding=manifest.max_colluding,
        max_missing=manifest.max_missing,
        must_include=manifest.must_include or (),
        nonces=manifest.nonces,
    )
    check_equal(manifest, expected, "request and roster")
    # 3. The acceptances of just those that this silo is to see, of the witnesses and its own are leaves under the root.
    me = silos.index(own.silo)
    places = [place for place in places_shown(manifest, manifest_hash, me) if place != me]
    count = sum(3 if place > me else 2 for place in places)
    if len(parts) != count + len(message.witnesses):
        raise ProtocolError(f"{len(parts)} parts of acceptances and keys, not those of this silo's committee")
    shown = _read(silos, places, me, own, parts[:count], keys)
    accepts = {own.silo: own.accept} | {name: one.accept for name, one in shown.items()}
    for place, envelope in zip(message.witnesses, parts[count:], strict=True):
        if place >= len(silos) or silos[place] in accepts:
            raise ProtocolError("a witness is no member, or is shown twice")
        accepts[silos[place]] = _accept(silos[place], own, envelope, keys)
    leaves = {silos.index(name): member_leaf(name, accept) for name, accept in accepts.items()}
    if shown_root(len(silos), leaves, message.proof) != manifest.members:
        raise ProtocolError("the manifest does not hold this silo's own acceptance and those that came with it")
    _check_nonces(manifest, accepts)
    # 4. The manifest is as strict as the strictest of them, and no stricter.
    _check_conditions(manifest, own, accepts)
    return shown, max(accept.compute_ms or 0 for accept in accepts.values())


def _read(
    silos: Sequence[str],
    places: Sequence[int],
    me: int,
    own: Own,
    parts: Sequence[bytes],
    keys: Mapping[str, VerifyKey],
) -> dict[str, Shown]:
    shown, rest = dict[str, Shown](), iter(parts)
    for place in places:
        accept = _accept(silos[place], own, next(rest), keys)
        channel_key, mask_key = next(rest), next(rest) if place > me else b""
        check_round_key(channel_key, accept.channel_key_hash)
        if place > me:
            check_round_key(mask_key, accept.mask_key_hash)
        shown[silos[place]] = Shown(accept, channel_key, mask_key)
    return shown


def _accept(silo: str, own: Own, envelope: bytes, keys: Mapping[str, VerifyKey]) -> Accept:
    accept = verify(envelope, Accept, {silo: keys[silo]} if silo in keys else {}).message
    check_accept(own.propose, own.terms, silo, accept)
    return accept


def _check_nonces(manifest: Manifest, accepts: Mapping[str, Accept]) -> None:
    """Raise ProtocolError unless a long round has a commitment of every member, and those that this silo sees fit."""
    nonces = manifest.nonces or ()
    if len(nonces) != (len(manifest.silos) if manifest.terms.is_long else 0):
        raise ProtocolError("the manifest does not hold a commitment to a nonce of each member of a long round")
    if nonces and any(nonces[manifest.silos.index(name)] != accept.nonce_hash for name, accept in accepts.items()):
        raise ProtocolError("the manifest's commitments to nonces are not those of the acceptances that came with it")


def _check_conditions(manifest: Manifest, own: Own, accepts: Mapping[str, Accept]) -> None:
    seen = list(accepts.values())
    strictest = {
        "min_silos": max(accept.min_silos for accept in seen),
        "max_colluding": max(accept.max_colluding for accept in seen),
        "max_missing": min(accept.max_missing for accept in seen),
        "expires_at": ends_at(own.propose, seen),
    }
    for field, expected in strictest.items():
        if getattr(manifest, field) != expected:
            raise ProtocolError(f"the manifest's {field} is not that of the strictest acceptance that came with it")
    if compute_s_of(seen) > own.waits_s or send_s_of(seen) > own.sends_s:
        raise ProtocolError("the manifest's expires_at is later than the request waits")
    needed = {name for accept in accepts.values() for name in accept.must_include or ()}
    if without := needed - set(manifest.must_include or ()):
        raise ProtocolError(f"the manifest's must_include lacks {', '.join(sorted(without))}, whom a member needs")
