"""Broken input for every decoder, made as fast as it is read: what the fuzz tests and the coverage-guided fuzzer share.

Every input is a valid sample with one to four of its parts cut out and something put in their place. Where JSON has a
value, whole values are replaced as well as bytes. An input depends on the decoder's name and the number of its batch
only, so whatever is found is found again.
"""

import re
import tempfile
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from random import Random
from time import perf_counter, thread_time

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, derive_private_key

from analyst.training.run import Progress
from crypto.errors import CryptoError
from crypto.keys import Secret, SigningKey, VerifyKey, read_key_file
from crypto.ring import Ring
from crypto.rounds.messages import Failed, Learned
from crypto.rounds.report import StoredReport, report_header
from crypto.sealing import PUBLIC_BYTES
from crypto.wire import Message, Signed, body_digest, detach, sign, signer_of, unverified, verify
from federation.members.admission import CODE_BYTES, Admission, Invitation, JoinRequest, from_armor, to_armor
from federation.members.certificates import (
    Identity,
    identity_of,
    issue,
    new_authority,
    new_request,
    read_certificate,
    read_request,
)
from federation.members.membership import Change, Log, Member, TrustAnchor, next_version, read_log
from federation.members.roster import AUTHORITY, Roster, read_roster
from federation.transport.handshake import Hello, Welcome
from policies.budget.ledger import Checkpoint
from policies.document.signatures import PolicySignature
from policies.requests.approval import Verdict
from policies.requests.request import Request
from silo_node.ledger.events import Entry, SurvivorsSigned
from silo_node.training.run import RunState
from tests.vectors import messages

BATCH = 5000
SLOW_S = 0.05
KEY = SigningKey(Secret(bytes(32)))
Read = Callable[[bytes], None]  # CryptoError on what is refused, AssertionError on what should have been

_VOCABULARY = (
    "crypto.rounds.",
    "federation.members.roster",
    "crypto.wire",
    "policies.requests.",
    "silo_node.training.",
)
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|-?[0-9.]+|true|false|null')
_PART = re.compile(rb'"(?:[^"\\]|\\.)*":|[{}\[\],:]')
_FILLINGS = [
    *(b"", b" ", b"\n", b"\0", b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"=", b"==", b"A", b"+", b"/"),
    *(b",", b":", b'"', b"\\", b"{", b"}", b"[", b"]", b"{}", b"[]", b"null", b"true", b"false", b'""', b"'x'", b"//"),
    *(b"0", b"-0", b"-1", b"00", b"01", b"+1", b"1.0", b"1e0", b"1E400", b"-1e999", b"0.1", b"NaN", b"Infinity"),
    *(b"2147483648", b"2147483649", b"1099511627777", b"9223372036854775808", b"-9223372036854775809", b"9" * 400),
    *(b'"\\u0041"', b'"\\ud800"', b'"\\ud83d\\ude00"', b'"\xf0\x9f\x98\x80"', b'"\\x"', b'"\t"', b'"-"', b'"a\x7fb"'),
    *(b'"AAAA"', b'"AAA="', b'"AAB="', b'"AA=="', b'"AA"', b'"A A="', b'"AA==AA=="', b'"____"', b'"////"', b'"AA=A"'),
    *(b'"' + b"A" * 43 + b'="', b'"' + b"A" * 22 + b'=="', b'"' + b"A" * 1624 + b'"', b'"' + b"a" * 121 + b'"'),
    *(
        b'"' + b"a" * 1001 + b'"',
        b'"' + b"A" * 8192 + b'"',
        b'"' + b"\xc3\xa9" * 120 + b'"',
        b"1," * 401,
        b'"a",' * 401,
    ),
    *(b"[" * 150, b"[" * 300, b'{"a":' * 150, b'{"kind":"not","operand":' * 20, b"[" * 150 + b"]" * 150, b"[{" * 90),
    *(
        b'"more":1,',
        b',"more":1',
        b'"kind":"not",',
        b'"kind":"query",',
        b'"":"",',
        b'"__proto__":{},',
        b"CSL1",
        b"CSR1",
    ),
]
_RARE = (b'"' + b"A" * 70_000 + b'"', b'"a":0,' * 3000, b"[" * 20_000, b"0," * 3000, b"9" * 6000, b"\\u0041" * 2000)


@dataclass(frozen=True, slots=True)
class Decoder:
    """Something that reads bytes of a stranger, and examples of what it accepts."""

    name: str
    read: Read
    samples: tuple[bytes, ...]
    kind: type[Message] | None = None
    is_file: bool = False  # read from a disk, so a tenth of the inputs


def subclasses(kind: type[Message]) -> Iterator[type[Message]]:
    for child in kind.__subclasses__():
        yield child
        yield from subclasses(child)


def _reads(kind: type[Message]) -> Read:
    def read(data: bytes) -> None:
        assert kind.decode(data).encode() == data

    return read


def _read_report(data: bytes) -> None:
    stored = StoredReport.decode(data)
    assert report_header(stored.message) + bytes(stored.blinded_sum) == data


def _read_envelope(data: bytes) -> None:
    error: CryptoError | None = None
    for reads in (signer_of, body_digest, detach, unverified):
        try:
            reads(data, Failed)
        except CryptoError as err:
            error = err
    signed: Signed[Failed] = verify(data, Failed, {"ward": KEY.public})
    assert error is None
    assert sign(signed.message, signed.signer, KEY) == data  # Ed25519 has one signature only


def _read_ring(bits: int) -> Read:
    ring = Ring(bits)

    def read(data: bytes) -> None:
        words = ring.from_bytes(data)
        assert ring.to_bytes(words) == data
        assert all(word < 2**bits for word in words.tolist())

    return read


def _read_verify_key(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    key = VerifyKey.parse(text)
    assert len(key.raw) == 32
    assert VerifyKey.parse(str(key)) == key


def _from_file(name: str, reads: Callable[[Path], object]) -> Read:
    """Return a read through one and the same file, which is in memory where the system has a place for that."""
    folder = Path("/dev/shm") if Path("/dev/shm").is_dir() else None  # noqa: S108  # a name nobody can guess is drawn
    path = Path(tempfile.mkdtemp(dir=folder)) / name
    path.touch(mode=0o600)

    def read(data: bytes) -> None:
        path.write_bytes(data)
        reads(path)

    return read


def _read_key_file(path: Path) -> None:
    # Without anybody to ask for a passphrase, so that scrypt does not run a million times.
    assert len(read_key_file(path).raw) == 32


_HELD = (Request, Roster, RunState, StoredReport)  # with them their modules, which hold the vocabulary, are read
WRITTEN = {"SurvivorSet": "Split"}  # types that the vectors of version 0.1.0 call otherwise


@cache
def decoders() -> dict[str, Decoder]:
    """Return every decoder by its name."""
    kinds = {
        WRITTEN.get(one.__name__, one.__name__): one
        for one in subclasses(Message)
        if one.__module__.startswith(_VOCABULARY)
    }
    samples: dict[str, list[bytes]] = {}
    for case in messages.vectors()["cases"]:
        samples.setdefault(case["type"], []).append(case["body"].encode())
    found = [Decoder(name, _reads(kinds[name]), tuple(bodies), kinds[name]) for name, bodies in samples.items()]
    progress = Progress(job=bytes(32), first=b"a request", done=3, after=b"\1" * 32).encode()
    report, failed = samples["EncryptedReport"][0], samples["Failed"][0]
    envelope, other = sign(Failed.decode(failed), "ward", KEY), sign(Learned.decode(samples["Learned"][0]), "ward", KEY)
    roster = sign(Roster.decode(samples["Roster"][0]), AUTHORITY, KEY)
    key_file = b"consilo-key/1\n" + b"0f" * 32 + b"\n"
    encrypted = b"consilo-key/1 scrypt\nsalt=%b\nn=131072 r=8 p=1\nnonce=%b\nroot=%b\n" % (
        b"0" * 32,
        b"1" * 24,
        b"2" * 96,
    )
    elements = bytes(range(250)) * 2
    found += [Decoder(type(one).KIND, _reads(type(one)), (one.encode(),), type(one)) for one in _others()]
    found += [
        Decoder("Progress", _reads(Progress), (progress,), Progress),
        Decoder("StoredReport", _read_report, (b"CSR1" + len(report).to_bytes(4, "big") + report + bytes(16),)),
        Decoder("envelope", _read_envelope, (envelope, other)),
        Decoder("Ring-24", _read_ring(24), (urlsafe_b64decode(b"AAAA") * 12, elements[:40])),
        Decoder("Ring-32", _read_ring(32), (elements[:40],)),
        Decoder("Ring-64", _read_ring(64), (elements[:80],)),
        Decoder("VerifyKey", _read_verify_key, (str(KEY.public).encode(),)),
        Decoder("key-file", _from_file("key", _read_key_file), (key_file, encrypted), is_file=True),
        Decoder(
            "roster-file", _from_file("roster", lambda path: read_roster(path, KEY.public)), (roster,), is_file=True
        ),
        *_of_membership(),
    ]
    return {one.name: one for one in found}


def _read_request(data: bytes) -> None:
    assert read_request(data).pin


def _read_certificate(data: bytes) -> None:
    assert identity_of(read_certificate(data)).name


def _of_membership() -> list[Decoder]:
    """Return what reads the files of a federation: its log, what travels as text, certificates and requests."""
    now, who = datetime(2026, 1, 1, tzinfo=UTC), Identity("health", "silo", "ward")
    transport = derive_private_key(7, SECP256R1())
    anchor = TrustAnchor("health", KEY.public)
    log = next_version(anchor, Log.empty(anchor), KEY, "found", 1, None)
    member = Member(name="ana", role="analyst", key=str(KEY.public), sealing=b"", address="", pins=(bytes(32),))
    log = next_version(anchor, log, KEY, "admit ana", 2, member)
    file = b"".join(len(one.envelope).to_bytes(4, "big") + one.envelope for one in log.versions)
    admission = Admission(federation="health", name="ward", certificate=b"a certificate", log=(b"one",))
    text = to_armor(Admission, sign(admission, AUTHORITY, KEY)).encode()
    request = new_request(transport, who)
    certificate = issue(new_authority(transport, "health", now), transport, request, now, 30)
    return [
        Decoder("membership-log", _from_file("log", lambda path: read_log(path, anchor)), (file,), is_file=True),
        Decoder("armor", _from_file("text", lambda path: from_armor(path, Admission)), (text,), is_file=True),
        Decoder("certificate-request", _read_request, (request,)),
        Decoder("certificate", _read_certificate, (certificate,)),
    ]


def _others() -> list[Message]:
    """Return one of every message outside a round: who belongs, greetings, and what people and ledgers sign."""
    key, digest = str(KEY.public), bytes(32)
    ward = {"federation": "health", "name": "ward", "role": "silo", "key": key, "sealing": bytes(PUBLIC_BYTES)}
    member = Member(name="ana", role="analyst", key=key, sealing=b"", address="", pins=(digest,))
    version = {"federation": "health", "version": 2, "previous": digest, "made_at": 1, "change": "admit ana"}
    return [
        Change.model_validate({**version, "member": member, "removed": None, "roster": bytes(64)}),
        Invitation(
            federation="health",
            name="ward",
            role="silo",
            authority=key,
            certificates=b"a certificate",
            code=bytes(CODE_BYTES),
            expires_at=9,
        ),
        JoinRequest.model_validate({**ward, "address": "", "request": b"a request", "proof": digest}),
        Admission(federation="health", name="ward", certificate=b"a certificate", log=(b"one", b"two")),
        Hello(wire=(1, 2), instance=bytes(16), membership=3, software="consilo"),
        Welcome(wire=2, instance=bytes(16), newest=4, memberships=(b"one",)),
        Verdict(silo="ward", subject=digest, decision="approve", at=5),
        PolicySignature(silo="ward", policy="ward/research", version=1, digest=digest, at=6),
        Checkpoint(federation="health", silo="ward", count=7, chain=digest, at=8),
        Entry(seq=1, at=2, event=SurvivorsSigned(round_id=bytes(16), split_hash=digest)),
    ]


def inputs(decoder: Decoder, batch: int) -> Iterator[bytes]:
    """Yield the inputs of a batch: the same ones whenever it is asked for."""
    random = Random(f"{decoder.name} {batch}")  # noqa: S311
    bits, integer = random.getrandbits, random._randbelow  # type: ignore[attr-defined]  # randrange is slow
    parts = [
        [match.span() for match in (*_TOKEN.finditer(one), *_PART.finditer(one))] or [(0, 0)] for one in decoder.samples
    ]
    fillings = _FILLINGS + [
        one[start:end] for one, spans in zip(decoder.samples, parts, strict=True) for start, end in spans
    ]
    strangers = [one.samples[0] for one in decoders().values()] if batch % 8 == 0 else [bytes(16)]
    for _ in range(BATCH):
        draw = bits(32)
        number = draw % len(decoder.samples)
        data, spans = decoder.samples[number], parts[number]
        draw >>= 3
        for _ in range((1, 1, 1, 1, 1, 2, 2, 4)[draw & 7]):
            draw = bits(32)
            how, draw = draw & 15, draw >> 4
            if how < 8:  # a value, a key or a sign of the sample gives way to something else
                start, end = spans[draw % len(spans)]
                data = data[:start] + fillings[(draw >> 10) % len(fillings)] + data[end:]
            elif how < 10:  # a bit is flipped
                at = draw % (len(data) or 1)
                data = data[:at] + bytes([data[at] ^ 1 << (draw >> 20 & 7)]) + data[at + 1 :] if data else b"\0"
            elif how < 12:  # some bytes become others
                at = draw % (len(data) + 1)
                data = data[:at] + fillings[(draw >> 12) % len(fillings)] + data[at + (draw >> 24 & 3) :]
            elif how == 12:  # cut short
                data = data[: draw % (len(data) + 1)]
            elif how == 13:  # a part stands twice
                start, end = sorted((integer(len(data) + 1), integer(len(data) + 1)))
                data = data[:end] + data[start:]
            elif how == 14:  # goes on as another message
                other = strangers[draw % len(strangers)]
                data = data[: integer(len(data) + 1)] + other[integer(len(other) + 1) :]
            elif draw & 31 == 0:  # grows out of bounds
                at = integer(len(data) + 1)
                data = data[:at] + _RARE[(draw >> 5) % len(_RARE)] + data[at:]
            else:
                data = data[::-1] if draw & 32 else data[1:]
        yield data


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a batch."""

    inputs: int
    accepted: int
    slowest_s: float  # of one input, in processor time where it seemed slow


def run(decoder: Decoder, batch: int) -> Outcome:
    """Read a batch; raises AssertionError, with the input, on anything but a refusal or one and the same encoding."""
    accepted, slowest_s, count = 0, 0.0, 0
    for count, data in enumerate(inputs(decoder, batch), start=1):
        before = perf_counter()
        try:
            decoder.read(data)
            accepted += 1
        except CryptoError:
            pass
        except Exception as err:
            place = f"input {count} of batch {batch} of {decoder.name}"
            raise AssertionError(f"{place}: {type(err).__name__}: {err}: {data[:2000]!r}") from err
        if perf_counter() - before > slowest_s:
            slowest_s = (
                perf_counter() - before if perf_counter() - before < SLOW_S else max(slowest_s, _cost(decoder, data))
            )
    return Outcome(count, accepted, slowest_s)


def _cost(decoder: Decoder, data: bytes) -> float:
    """Return the processor time that one input takes: by the wall clock it may have waited for others."""
    before = thread_time()
    with suppress(CryptoError):
        decoder.read(data)
    return thread_time() - before


def largest(kind: type[Message], most: int) -> Iterator[tuple[str, bytes]]:
    """Yield inputs as large as may be read, at most `most` bytes, that cost a parser most: (what it is, input)."""
    size, commas = min(kind.MAX_BYTES, most), kind.MAX_COMMAS
    sample = next(one for one in decoders().values() if one.kind is kind).samples[0]
    inside = sample.index(b'"', sample.index(b":")) + 1
    fields = list(kind.model_fields)

    def filled(head: bytes, unit: bytes, tail: bytes = b"", count: int = size) -> bytes:
        return head + unit * min((size - len(head) - len(tail)) // len(unit), count) + tail

    yield "an array of numbers", filled(b"[", b"0,", b"0]", commas)
    yield "an array of objects", filled(b"[", b"{},", b"0]", commas)
    yield "unknown keys", b"{" + b",".join(b'"%x":1' % number for number in range(min(commas, size // 10))) + b"}"
    yield "one key again and again", filled(b"{", b'"%b":0,' % fields[0].encode(), b'"a":0}', commas)
    for field in fields:
        yield f"{field} of numbers", filled(b'{"%b":[' % field.encode(), b"0,", b"0]}", commas)
        yield f"{field} of texts", filled(b'{"%b":[' % field.encode(), b'"",', b'""]}', commas)
    yield "nested", filled(b"", b"[")
    yield "one number", filled(b"", b"9")
    yield "one text", filled(b'"', b"a", b'"')
    yield "one text of escapes", filled(b'"', b"\\u00e9", b'"')
    yield "a long first field", filled(sample[:inside], b"AAAA", sample[inside:])
