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
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache, partial
from hashlib import sha256
from pathlib import Path
from random import Random
from time import perf_counter, thread_time

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, derive_private_key

from aggregator.request_log import RequestLine, SiloLine
from aggregator.round_journal import MAGIC, records
from aggregator.store import Filed
from analyst.conditions import Conditions, SiloConditions
from analyst.errors import AnalystError
from analyst.finding.files import Provenance, read_provenance
from analyst.finding.search import SearchProgress
from analyst.kept import Question
from analyst.reports.cut import Cut, Share
from analyst.reports.estimates import Estimate, Threshold
from analyst.reports.report import Report, SiloOutcome, decoded, encoded
from analyst.training.patience import MetricSoFar
from analyst.training.progress import Progress
from analyst.training.registry import RunEntry
from analyst.training.split import Split, Splits
from analyst.training.stopping import Owed
from crypto.backends import lattice_parameters, paillier
from crypto.backends.registry import BACKENDS
from crypto.backends.scheme import Scheme, Shape, key_id
from crypto.errors import CryptoError, WireError
from crypto.keys import Secret, SigningKey, VerifyKey, read_key_file
from crypto.merkle import HASH_BYTES, MerkleTree, leaf_hash, shown_root
from crypto.ring import Ring
from crypto.rounds.messages import SEALED_SEED, SEALED_SHARES, Entry, Failed, Found, ModelUpdated
from crypto.rounds.report import StoredReport, report_header
from crypto.sealing import PUBLIC_BYTES
from crypto.wire import Message, Signed, body_digest, detach, sign, signer_of, unverified, verify
from federation.backups import BackupEntry, BackupOf, Contents
from federation.members.admission import CODE_BYTES, Admission, Invitation, JoinRequest, from_armor, to_armor
from federation.members.certificates import (
    Identity,
    identity_of,
    issue,
    new_authority,
    new_certificate_request,
    read_certificate,
    read_certificate_request,
)
from federation.members.membership import Change, Member, MembershipLog, TrustAnchor, next_version, read_log
from federation.members.roster import AUTHORITY, Roster, read_roster
from federation.transport.handshake import Hello, Welcome
from policies.budget.ledger import Checkpoint, Continued, Seen
from policies.document.domain_files import DomainError, read_values
from policies.document.signatures import PolicySignature
from policies.domains import LongDomain, text_of, with_text
from policies.requests.approval import Verdict
from policies.requests.denials import Denial
from silo_node.ledger.events import LogEntry, SurvivorsSigned
from silo_node.ledger.totals import Totals
from silo_node.traces import Trace
from tests import fuzzing_graphs, fuzzing_vectors
from tests.vectors import messages
from tests.vectors.vocabulary import types

BATCH = 5000
SLOW_S = 0.05
KEY = SigningKey(Secret(bytes(32)))
LEAVES = [leaf_hash(bytes([number])) for number in range(33)]
TREE = MerkleTree(LEAVES)
PROOF = b"".join(TREE.proof([3, 20]))
Read = Callable[[bytes], None]  # CryptoError on what is refused, AssertionError on what should have been

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


PROVENANCE = Provenance.model_validate(
    {
        **{"schema": "consilo-keys/1", "federation": "health", "table": "visits", "column": "code", "version": 1},
        **{"domain_file": "visits.code.v1.txt", "domain_hash": f"sha256:{bytes(32).hex()}", "unknown": "(other)"},
        **{"keys": 2, "takes_place_of": None, "found_at": "2027-01-01T00:00:00Z", "analyst": "ana", "purpose": "care"},
        **{"alphabet": "AB", "length": 1, "most": 2, "run": bytes(16).hex(), "rho": 0.5, "epsilon": 2.5, "delta": 1e-6},
        **{"max_silos": 1, "min_cohort": 5, "most_prefixes": 9, "beta": 1e-3},
        "rounds": [
            {
                **{"request": bytes(32).hex(), "report": bytes(32).hex(), "prefixes": 1, "slots": 2, "sd": 3.25},
                **{"survive": None, "enter": 20.5, "silos": ["east", "west"]},
            }
        ],
    }
)


@dataclass(frozen=True, slots=True)
class Decoder:
    """Something that reads bytes of a stranger, and examples of what it accepts."""

    name: str
    read: Read
    samples: tuple[bytes, ...]
    kind: type[Message] | None = None
    is_file: bool = False  # read from a disk, so a tenth of the inputs


def _read_kept_answer(data: bytes) -> None:
    assert encoded(decoded(data)) == data


def _read_journal(data: bytes) -> None:
    whole = b"".join(len(one).to_bytes(4, "big") + one for one in records(data))
    assert data.startswith(MAGIC + whole)


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


def _read_entry(data: bytes) -> None:
    entry = Entry.decode(data)
    assert entry.encode() == data
    assert len(entry.shares) == SEALED_SHARES
    assert len(entry.pair_seed) in (0, SEALED_SEED)


def _read_proof(data: bytes) -> None:
    """Read a proof for the leaves 3 and 20 of a tree of 33: whatever is changed in it gives another root."""
    proof = [data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)]
    assert (shown_root(33, {3: LEAVES[3], 20: LEAVES[20]}, proof) == TREE.root) == (data == PROOF)


def _read_packed(bits: int) -> Read:
    ring = Ring(bits)

    def read(data: bytes) -> None:
        words = ring.unpack(data, 8 * len(data) // bits)
        assert ring.pack(words) == data
        assert all(word < 2**bits for word in words.tolist())

    return read


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


def _read_domain(data: bytes) -> None:
    domain = LongDomain(sha256(data).digest(), data.count(b"\n"))
    assert text_of(with_text(domain, data).known) == data


def _read_domain_file(path: Path) -> None:
    for type_ in ("string", "int"):
        try:
            values = read_values(path, path.name, type_)
        except DomainError as err:
            if type_ == "string":
                raise WireError(str(err)) from err
        else:
            assert read_values(path, path.name, "string") == tuple(map(str, values))


def _read_provenance(path: Path) -> None:
    try:
        found = read_provenance(path)
    except AnalystError as err:
        raise WireError(str(err)) from err
    assert Provenance.model_validate(found.model_dump(by_alias=True)) == found


@cache
def decoders() -> dict[str, Decoder]:
    """Return every decoder by its name."""
    kinds = types()
    samples: dict[str, list[bytes]] = {}
    for case in messages.vectors()["cases"]:
        samples.setdefault(case["type"], []).append(case["body"].encode())
    found = [Decoder(name, _reads(kinds[name]), tuple(bodies), kinds[name]) for name, bodies in samples.items()]
    progress = Progress(job=bytes(32), first=b"a request", done=3, after=b"\1" * 32, under_way=b"another")
    watched = progress.model_copy(
        update={"watch": MetricSoFar(best=0.7, since=1, micro_rho=5, done=3, asked=b"a third")}
    )
    search = SearchProgress(
        wanted=bytes(32), first=b"a request", min_cohort=5, most=9, reports=(b"\1" * 32, b"\2" * 32), lost=1
    ).encode()
    kept = Split(purpose="lending", silos=("east", "west"), run=bytes(16), report=bytes(32))
    splits = Splits(splits=(kept, kept)).encode()
    entry = RunEntry(
        run=bytes(16), request=b"a request", began_at=1, changed_at=2, done=3, rho=0.5, position=bytes(32)
    ).encode()
    report, failed = samples["EncryptedReport"][0], samples["Failed"][0]
    envelope, other = (
        sign(Failed.decode(failed), "ward", KEY),
        sign(ModelUpdated.decode(samples["Learned"][0]), "ward", KEY),
    )
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
        Decoder("Progress", _reads(Progress), (progress.encode(), watched.encode()), Progress),
        Decoder("Owed", _reads(Owed), (Owed(stopped=(b"an envelope", b"another")).encode(),), Owed),
        Decoder("Splits", _reads(Splits), (splits,), Splits),
        Decoder("RunEntry", _reads(RunEntry), (entry,), RunEntry),
        Decoder("SearchProgress", _reads(SearchProgress), (search,), SearchProgress),
        Decoder("StoredReport", _read_report, (b"CSR1" + len(report).to_bytes(4, "big") + report + bytes(16),)),
        Decoder("kept-answer", _read_kept_answer, _kept_answers()),
        Decoder("envelope", _read_envelope, (envelope, other)),
        Decoder("Entry", _read_entry, (bytes(SEALED_SHARES), bytes(range(256)) * 9 + bytes(64))),
        Decoder("merkle-proof", _read_proof, (PROOF,)),
        Decoder("Packed-5", _read_packed(5), (elements[:40],)),
        Decoder("Packed-12", _read_packed(12), (elements[:36], elements[:34] + b"\x02")),
        Decoder("Packed-32", _read_packed(32), (elements[:40],)),
        Decoder("Ring-24", _read_ring(24), (urlsafe_b64decode(b"AAAA") * 12, elements[:40])),
        Decoder("Ring-32", _read_ring(32), (elements[:40],)),
        Decoder("Ring-64", _read_ring(64), (elements[:80],)),
        Decoder("journal", _read_journal, (b"CSJ1\0\0\0\3one\0\0\0\3two\0\0\0\0", b"CSJ1" + bytes(8))),
        Decoder("VerifyKey", _read_verify_key, (str(KEY.public).encode(),)),
        Decoder("key-file", _from_file("key", _read_key_file), (key_file, encrypted), is_file=True),
        Decoder(
            "roster-file", _from_file("roster", lambda path: read_roster(path, KEY.public)), (roster,), is_file=True
        ),
        Decoder("domain", _read_domain, (b"A00\nA01\nunknown\n", "é\n-1\n2\n".encode())),
        Decoder("domain-file", _from_file("icd.txt", _read_domain_file), (b"A00\r\nA01", b"-1\n0\n1\n"), is_file=True),
        Decoder(
            "provenance",
            _from_file("codes.json", _read_provenance),
            (PROVENANCE.model_dump_json(by_alias=True).encode(),),
            is_file=True,
        ),
        *(Decoder(*one) for one in fuzzing_vectors.readers()),
        *(Decoder(*one) for one in fuzzing_graphs.readers()),
        *_of_membership(),
        *_of_ciphertexts(),
    ]
    return {one.name: one for one in found}


def _kept_answers() -> tuple[bytes, ...]:
    denial = Denial(code="BUDGET_DELTA", rule="budget.delta", message="too long", remedy="ask for less")
    estimate: dict[str, Estimate | str | int] = {
        "n": Estimate(1.0, -2.5, 3e9, 0.125),
        "sex": "f",
        "age": 7,
        "m": Estimate(None, 0.0, 9.0, None),
    }
    report = Report(
        columns=("sex", "age", "n", "m"),
        dimensions={"sex": "sex", "age": "age"},
        rows=(estimate,),
        withheld_groups=({"sex": "x", "age": 8},),
        threshold=Threshold(10, True, 12.5),
        rho=0.01,
        epsilon=1.0,
        delta=1e-6,
        silos={"ward": SiloOutcome("answered", "00" * 32, (denial,), 5, None), "east": SiloOutcome("missing", None)},
        transcript="ab" * 32,
        assumptions=("one", "two"),
        wrong={"east": "its opening"},
        cut=Cut(Share(0.1, 0.05, 0.2), Share()),
        definition={"max_rows": 1, "delta": 1e-6, "columns": {"age": {"type": "int", "bounds": [0, 110], "step": 0.5}}},
        request="cd" * 32,
    )
    assert decoded(encoded(report)) == report
    return (encoded(report), encoded(replace(report, rows=(), withheld_groups=(), wrong={})))


def _backup() -> bytes:
    whose = BackupOf(federation="health", role="silo", name="ward", made_at=9, software="consilo")
    one, last = BackupEntry(name="silo.toml", length=2, modified_at=8), BackupEntry(name="", length=0, modified_at=0)
    pieces = [whose.encode(), one.encode(), last.encode()]
    head, entry, end = (len(piece).to_bytes(4, "big") + piece for piece in pieces)
    return head + entry + b"hi" + end


def _read_backup(data: bytes) -> None:
    contents = Contents(iter([data[:7], data[7:]]))
    assert contents.record(BackupOf).name
    while (entry := contents.record(BackupEntry)).name:
        assert sum(map(len, contents.take(entry.length))) == entry.length
    contents.end()


def _read_certificate_request(data: bytes) -> None:
    assert read_certificate_request(data).pin


def _read_certificate(data: bytes) -> None:
    assert identity_of(read_certificate(data)).name


def _of_membership() -> list[Decoder]:
    """Return what reads the files of a federation: its log, what travels as text, certificates and requests."""
    now, who = datetime(2026, 1, 1, tzinfo=UTC), Identity("health", "silo", "ward")
    transport = derive_private_key(7, SECP256R1())
    anchor = TrustAnchor("health", KEY.public)
    log = next_version(anchor, MembershipLog.empty(anchor), KEY, "found", 1, None)
    member = Member(name="ana", role="analyst", key=str(KEY.public), sealing=b"", address="", pins=(bytes(32),))
    log = next_version(anchor, log, KEY, "admit ana", 2, member)
    file = b"".join(len(one.envelope).to_bytes(4, "big") + one.envelope for one in log.versions)
    admission = Admission(federation="health", name="ward", certificate=b"a certificate", log=(b"one",))
    text = to_armor(Admission, sign(admission, AUTHORITY, KEY)).encode()
    request = new_certificate_request(transport, who)
    certificate = issue(new_authority(transport, "health", now), transport, request, now, 30)
    return [
        Decoder("membership-log", _from_file("log", lambda path: read_log(path, anchor)), (file,), is_file=True),
        Decoder("armor", _from_file("text", lambda path: from_armor(path, Admission)), (text,), is_file=True),
        Decoder("certificate-request", _read_certificate_request, (request,)),
        Decoder("certificate", _read_certificate, (certificate,)),
        Decoder("backup-contents", _read_backup, (_backup(),)),
    ]


def _of_ciphertexts() -> list[Decoder]:
    """Return what a silo and an aggregator check of keys and ciphertexts in their own process."""
    shape = Shape(40, 3, 3, 1000)
    words, number = (
        (b"\1" + bytes(7)) * (lattice_parameters.PUBLIC_BYTES // 8),
        bytes(paillier.CIPHERTEXT_BYTES - 1) + b"\2",
    )
    modulus = b"\x80" + bytes(paillier.MODULUS_BITS // 8 - 2) + b"\1"
    found = []
    ciphertext = words[: lattice_parameters.CIPHERTEXT_BYTES]
    for name, public, body in (
        ("bfv", words, ciphertext),
        ("ckks", words, ciphertext),
        ("paillier", modulus + number, number),
    ):
        bind, chunk = partial(BACKENDS[name].bind, shape), key_id(name, public) + body
        found += [
            Decoder(f"{name}-key", _read_public(bind), (public,)),
            Decoder(f"{name}-chunk", partial(bind(public).accumulator(0).check, 0), (chunk,)),
        ]
    return found


def _read_public(bind: Callable[[bytes], Scheme]) -> Read:
    def read(data: bytes) -> None:
        assert bind(data).columns == 1

    return read


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
        Hello(wire=(3, 4), instance=bytes(16), membership=3, software="consilo"),
        Welcome(wire=2, instance=bytes(16), newest=4, memberships=(b"one",)),
        Verdict(silo="ward", subject=digest, decision="approve", at=5),
        PolicySignature(federation="health", silo="ward", policy="ward/research", version=1, digest=digest, at=6),
        Checkpoint(federation="health", silo="ward", count=7, chain=digest, at=8),
        Checkpoint(
            federation="health",
            silo="ward",
            count=7,
            chain=digest,
            at=8,
            continued=Continued(line=bytes(16), after=(Seen(line=b"", count=6, chain=digest),), signed_after=5),
            sealed=b"totals",
        ),
        BackupOf(federation="health", role="silo", name="ward", made_at=9, software="consilo"),
        BackupEntry(name="ledger.sqlite", length=7, modified_at=8),
        Totals(
            purposes=(("care", 7),), atto_delta=8, nonces=bytes(16), nonces_since=9, policy_version=2, roster_version=3
        ),
        Found(state="kept", report=digest),
        Trace(manifest=b"a manifest", contribution=b"a header", survivors=b"a survivor set"),
        Filed(report=digest, analyst="ana"),
        Question(
            request=b"a request",
            text="SELECT COUNT(*) FROM t",
            command=digest,
            analyst="ana",
            purpose="health",
            micro_rho=5,
            created_at=1,
            expires_at=2,
            output=("n",),
            names={"sex": "s"},
            sure=None,
            conditions=Conditions(
                silos={"ward": SiloConditions(policy_hash=digest, min_cohort=5, entity="patient")},
                epsilon=1.0,
                delta=1e-6,
                strictest=("delta 1e-06 is that of ward",),
                reasons={},
            ),
        ),
        RequestLine(
            at=1,
            request="ab",
            analyst="ana",
            purpose="research",
            outcome="missing",
            took_ms=2,
            reason="too few",
            silos=(SiloLine(silo="ward", status="unable", said="CLOCK: a word"),),
        ),
        LogEntry(seq=1, at=2, event=SurvivorsSigned(round_id=bytes(16), split_hash=digest)),
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
