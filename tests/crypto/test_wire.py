"""Bytes are one message in its one encoding, from the one who signed it, or they are refused."""

import base64
import json
from functools import cache
from hashlib import sha256
from inspect import isabstract
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from crypto.errors import SignatureError, WireError
from crypto.keys import Secret, SigningKey
from crypto.rounds.bounds import why_infeasible
from crypto.rounds.committees import MAX_COMMITTEE
from crypto.rounds.manifest import Accept, Block, Manifest, Propose, Recipient, Terms
from crypto.rounds.messages import MAX_TESTIMONY, Failed, Failure, SurvivorSet
from crypto.rounds.report import EncryptedReport
from crypto.sealing import PUBLIC_BYTES
from crypto.wire import (
    MAX_ENVELOPE_OVERHEAD,
    MAX_RECIPIENTS,
    MAX_SILOS,
    Message,
    Name,
    body_digest,
    digest_of,
    sign,
    signer_of,
    unverified,
    verify,
)
from federation.members.roster import Party, Roster, SiloParty
from policies.requests.audit import AuditStep
from policies.requests.audited import AuditLimit
from policies.requests.cases import Cases
from policies.requests.catalogue import Catalogue, CatalogueRequest, OpenColumn, OpenTable
from policies.requests.evaluation import Evaluation
from policies.requests.exact import ExactStep, Setting
from policies.requests.expressions import Apply, Cell, Choose, Constant, Derived
from policies.requests.held_out import HeldOut
from policies.requests.judged import JudgedModel
from policies.requests.logistic import LogisticStep
from policies.requests.noised import NoisedStep
from policies.requests.persons import Inner, InnerColumn
from policies.requests.predicates import Compare, IsNull, Not
from policies.requests.query import Aggregate, Plan
from policies.requests.request import Request
from policies.requests.split import SplitStep
from policies.requests.standing import Left, Standing
from policies.requests.statements import Statements
from policies.requests.tables import Table, TableColumn
from policies.requests.training import START
from tests.cases import every
from tests.crypto.test_manifest import MANIFEST, TERMS
from tests.harness import example_policy
from tests.vectors.vocabulary import subclasses

VOCABULARY = ("crypto.rounds.", "federation.members.roster", "policies.requests.")
KEY = SigningKey(Secret(bytes(32)))
OTHER_KEY = SigningKey(Secret(b"\1" * 32))
KEYS = {"a": KEY.public, "b": OTHER_KEY.public}


MESSAGES = sorted(
    {kind for kind in subclasses(Message) if kind.__module__.startswith(VOCABULARY) and not isabstract(kind)},
    key=lambda kind: kind.__name__,
)
REQUEST = Request(
    federation="hospitals",
    nonce=bytes(16),
    analyst="ann@university",
    recipients=(Recipient(name="ann@university", key=bytes(PUBLIC_BYTES)),),
    purpose="research",
    micro_rho=100_000,
    silos=("a", "b", "c"),
    backend="masking",
    round_key=b"",
    sealed_secrets=(),
    table=Table(
        name="stays",
        max_rows=3,
        max_silos=1,
        columns=(
            TableColumn(name="ward", type="string", domain=("surgery", "other"), unknown="other"),
            TableColumn(name="days", type="int", low=0, high=60, step="1"),
        ),
    ),
    plan=Plan(
        where=Not(operand=Compare(column="days", op=">", value="30")),
        group_by=("ward",),
        aggregates=(Aggregate(function="avg", column="days", alias="mean days"),),
    ),
    created_at=1_000_000,
    expires_at=1_000_600,
)
FAILED = Failed(federation="health", round_id=bytes(16), reason="the source is unreachable")
RATIO = Apply(function="divide", arguments=(Cell(column="days"), Constant(value="-2.5")))
FIRST_STEP = LogisticStep(
    run=bytes(16),
    step=0,
    steps=3,
    after=START,
    release="private",
    label="died",
    features=("ward", "days"),
    learning_rate="0.5",
    momentum="0.9",
    clip="1",
)
JUDGED = JudgedModel(position=b"\1" * 32, step=FIRST_STEP)
SAMPLES: dict[type[Message], Message] = {  # whose parts must fit together
    Request: REQUEST,
    Terms: TERMS,
    Manifest: MANIFEST,
    Plan: example_policy.plan(),
    Statements: Statements(plans=(example_policy.plan(), example_policy.plan()), weights=(1, 2)),
    Catalogue: example_policy.catalogue(example_policy.policy()),
    Roster: Roster(
        federation="fed",
        version=1,
        silos=(SiloParty(name="a", key=str(KEY.public), sealing=bytes(PUBLIC_BYTES)),),
        aggregators=(Party(name="hub", key=str(OTHER_KEY.public)),),
    ),
    LogisticStep: FIRST_STEP.model_copy(update={"step": 1, "after": b"\1" * 32}),
    HeldOut: HeldOut(split=bytes(16), parts=250),
    SplitStep: SplitStep(run=bytes(16), step=0, after=START, release="private"),
    JudgedModel: JUDGED,
    Evaluation: Evaluation(release="private", model=JUDGED, metrics=("accuracy", "auc")),
    AuditLimit: AuditLimit(groups=("ward",), measure="equalized-odds", max_gap="0.05"),
    AuditStep: AuditStep(run=bytes(16), step=0, after=START, release="private", model=JUDGED, groups=("ward",)),
    Standing: Standing(left=(Left(window="lifetime", limit=9, everybody=5),), micro_rho=3, compute_ms=1, run_limit=4),
    ExactStep: ExactStep(
        run=bytes(16),
        step=1,
        steps=3,
        after=b"\1" * 32,
        label="days",
        features=("ward",),
        family="poisson-regression",
        parts=(Setting(name="offset", value="stay"),),
        options=(Setting(name="missing", value="mean"),),
    ),
    NoisedStep: NoisedStep(
        run=bytes(16),
        step=1,
        steps=50,
        after=b"\1" * 32,
        label="died",
        features=("ward",),
        family="logistic-regression",
        options=(Setting(name="clip", value="0.5"),),
    ),
    Table: REQUEST.table,
    TableColumn: REQUEST.table.columns[1],
    Cases: Cases(
        name="length",
        whens=(Compare(column="days", op="<", value="7"), IsNull(column="days")),
        labels=("short", None),
        otherwise="long",
    ),
    InnerColumn: InnerColumn(name="spent", function="sum", column="days", low=0, high=600),
    Inner: Inner(where=None, columns=(InnerColumn(name="ward", function="each", column="ward"),)),
    Apply: RATIO,
    Choose: Choose(whens=(IsNull(column="days"),), results=(Constant(value="0"),), otherwise=RATIO),
    Derived: Derived(name="ratio", expression=RATIO),
    CatalogueRequest: CatalogueRequest(
        federation="hospitals", analyst="ann", nonce=bytes(16), created_at=1, standing=True, request=b"a request"
    ),
    OpenColumn: OpenColumn(column=REQUEST.table.columns[0], roles=("dimension",), unit=None),
    OpenTable: OpenTable(name="wards", columns=(), definition=bytes(32), rows_up_to=2**20, one_row=True),
}
FUZZ = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
each_message = every("kind", MESSAGES)


# 1. What a fuzzer is made of


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def _like(schema: dict[str, Any], definitions: dict[str, Any], depth: int = 0) -> st.SearchStrategy[Any]:
    """Return JSON values that satisfy a schema, as far as the schema says."""
    if "$ref" in schema:
        return _like(definitions[schema["$ref"].rpartition("/")[2]], definitions, depth + 1)
    if options := schema.get("anyOf") or schema.get("oneOf"):
        shallow = options[: 2 if depth > 1 else None]  # flat predicates and expressions come first
        return st.one_of([_like(option, definitions, depth) for option in shallow])
    if "const" in schema or "enum" in schema:
        return st.sampled_from(schema.get("enum") or [schema["const"]])
    match schema["type"]:
        case "integer":
            most = schema["maximum"] if "maximum" in schema else schema["exclusiveMaximum"] - 1
            return st.integers(schema["minimum"], most)
        case "array":
            least = schema.get("minItems", 0)
            most = min(schema.get("maxItems", 3), least + 2)
            return st.lists(_like(schema["items"], definitions, depth), min_size=least, max_size=most)
        case "object":
            fields = {name: _like(field, definitions, depth) for name, field in schema["properties"].items()}
            return st.fixed_dictionaries(fields)
        case "null":
            return st.none()
        case "boolean":
            return st.booleans()
    assert schema["type"] == "string"
    least, most = schema.get("minLength", 0), schema.get("maxLength", 40)
    if schema.get("format") == "base64url":
        filled = st.binary(min_size=least, max_size=min(most, least + 8)) if least < 100 else st.just(bytes(least))
        return filled.map(lambda raw: base64.urlsafe_b64encode(raw).decode())
    if "pattern" in schema:
        return st.from_regex(schema["pattern"].strip("^$"), fullmatch=True).map(lambda text: text[:most])
    return st.text(min_size=least, max_size=min(most, least + 20))


@cache
def _valid(kind: type[Message]) -> st.SearchStrategy[Any]:
    """Return JSON values of which most are a message of this kind."""
    schema = kind.model_json_schema()
    generated = _like(schema, schema.get("$defs", {}))
    return st.just(json.loads(SAMPLES[kind].encode())) | generated if kind in SAMPLES else generated


@st.composite
def _mutated(draw: st.DrawFn, value: Any) -> Any:
    """Return `value` with one place in it replaced, dropped, added or moved."""
    if isinstance(value, (dict, list)) and value and draw(st.integers(0, 3)):
        copied: Any = value.copy()
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        at = draw(st.sampled_from(keys))
        match draw(st.integers(0, 5)):
            case 0:
                del copied[at]
            case 1 if isinstance(value, dict):
                copied[draw(st.text(max_size=8))] = draw(ANY_JSON)
            case 1:
                copied.insert(at, draw(ANY_JSON))
            case 2 if isinstance(value, dict):
                copied[at] = copied.pop(at)
            case _:
                copied[at] = draw(_mutated(value[at]))
        return copied
    return draw(ANY_JSON)


@st.composite
def _damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """Return `data` with some bytes cut out and others put in their place."""
    start = draw(st.integers(0, len(data)))
    end = draw(st.integers(start, min(len(data), start + 4)))
    filling = draw(
        st.binary(max_size=4) | st.sampled_from([b" ", b"\n", b",", b'"', b"\\u0041", b"null", b"1e999", b"}"])
    )
    return data[:start] + filling + data[end:]


def _is_accepted(kind: type[Message], data: bytes) -> bool:
    """Decode `data`; fails if anything but WireError comes of it, or a message with another encoding."""
    try:
        message = kind.decode(data)
    except WireError:
        return False
    assert message.encode() == data
    return True


# 2. Every message of the vocabulary


def test_vocabulary_is_found() -> None:
    assert len(MESSAGES) > 35
    assert {Request, Not, Roster, SurvivorSet, Block, Party} <= set(MESSAGES)


def test_no_two_messages_are_of_one_kind() -> None:
    kinds = [kind.KIND for kind in MESSAGES if kind.KIND]
    assert len(set(kinds)) == len(kinds)
    assert all(1 <= len(kind.encode()) <= 255 for kind in kinds)


@pytest.mark.slow
@each_message
def test_valid_messages_survive(kind: type[Message]) -> None:
    accepted = 0

    @FUZZ
    @given(_valid(kind))
    def check(value: Any) -> None:
        nonlocal accepted
        accepted += _is_accepted(kind, _json(value))

    check()
    assert accepted


@pytest.mark.slow
@each_message
@FUZZ
@given(data=st.binary(max_size=200))
def test_arbitrary_bytes_are_refused(kind: type[Message], data: bytes) -> None:
    assert not _is_accepted(kind, data)


@pytest.mark.slow
@each_message
@FUZZ
@given(value=ANY_JSON)
def test_arbitrary_json_is_refused(kind: type[Message], value: object) -> None:
    assert not _is_accepted(kind, _json(value))


@pytest.mark.slow
@each_message
@FUZZ
@given(data=st.data())
def test_mutated_messages_are_refused_or_other_messages(kind: type[Message], data: st.DataObject) -> None:
    value = data.draw(_valid(kind))
    _is_accepted(kind, _json(data.draw(_mutated(value))))
    _is_accepted(kind, data.draw(_damaged(_json(value))))


@each_message
def test_deep_nesting_is_refused(kind: type[Message]) -> None:
    for opening in (b"[", b'{"a":', b'{"kind":"not","operand":', b'{"where":', b'{"kind":"and","operands":['):
        for depth in (10, 100, 500, kind.MAX_BYTES // len(opening) if kind.MAX_BYTES < 2**17 else 2500):
            assert not _is_accepted(kind, opening * depth)


@pytest.mark.parametrize("depth", [1, 11, 12, 90, 250, 2000])
def test_deep_but_whole_nesting_is_read_or_refused(depth: int) -> None:
    data = b'{"kind":"not","operand":' * depth + b'{"kind":"is_null","column":"days"}' + b"}" * depth
    assert _is_accepted(Not, data) == (depth <= 90)
    whole = REQUEST.encode().replace(
        b'{"kind":"compare","column":"days","op":">","value":"30"}',
        b'{"kind":"not","operand":' * depth + b'{"kind":"is_null","column":"days"}' + b"}" * depth,
    )
    assert _is_accepted(Request, whole) == (depth <= 11)  # one more stands around it


# 3. One encoding


def test_encoding_is_the_documented_one() -> None:
    assert (
        FAILED.encode()
        == b'{"federation":"health","round_id":"AAAAAAAAAAAAAAAAAAAAAA==","reason":"the source is unreachable"}'
    )
    assert Failed(federation="health", round_id=b"\xff" * 16, reason="é\n").encode() == (
        '{"federation":"health","round_id":"_____________________w==","reason":"é\\n"}'.encode()
    )
    assert digest_of(FAILED) == sha256(FAILED.encode()).digest()


@every(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"reason":"x","round_id":"AAAAAAAAAAAAAAAAAAAAAA=="}',  # another order
        b'{"federation":"health","round_id":"AAAAAAAAAAAAAAAAAAAAAA==","reason":"x","more":1}',  # an unknown key
        b'{"federation":"health","round_id":"AAAAAAAAAAAAAAAAAAAAAA==","reason":"y","reason":"x"}',  # a repeated key
        b'{"federation":"health","round_id":"AAAAAAAAAAAAAAAAAAAAAA==","reason":"x","reason":"x"}',
        b'{"federation":"health","round_id":"AAAAAAAAAAAAAAAAAAAAAA==","reason":"x"} ',
        b' {"federation":"health","round_id":"AAAAAAAAAAAAAAAAAAAAAA==","reason":"x"}',
        b'{"federation":"health","round_id": "AAAAAAAAAAAAAAAAAAAAAA==","reason":"x"}',
        b'{"federation":"health","round_id":"AAAAAAAAAAAAAAAAAAAAAA==",\n"reason":"x"}',
        b'{"federation":"health","round_id":"AAAAAAAAAAAAAAAAAAAAAA==","reason":"x"}\n',
        b'{"federation":"health","round_id":"AAAAAAAAAAAAAAAAAAAAAA==","reason":"x"}\0',
        b'{"federation":"health","round_id":"AAAAAAAAAAAAAAAAAAAAAA==","reason":"x"}{}',
        b'\xef\xbb\xbf{"federation":"health","round_id":"AAAAAAAAAAAAAAAAAAAAAA==","reason":"x"}',
        b'{"federation":"health","round_id":"AAAAAAAAAAAAAAAAAAAAAA==","reason":"\\u0078"}',  # a needless escape
        b'{"federation":"health","round_id":"AAAAAAAAAAAAAAAAAAAAAA==","reason":"\\/"}',
        b'{"federation":"f","round_id":"AAAAAAAAAAAAAAAAAAAAAA==","reason":"\\ud800"}',  # half of a surrogate pair
        b'{"federation":"health","round_id":"AAAAAAAAAAAAAAAAAAAAAA==","reason":"\xff"}',
        b'{"federation":"health","round_id":"AAAAAAAAAAAAAAAAAAAAAB==","reason":"x"}',  # bits after the end
        b'{"federation":"health","round_id":"AAAAAAAAAAAAAAAAAAAAAA","reason":"x"}',  # no padding
        b'{"federation":"health","round_id":"AAAAAAAAAAAAAAAAAAAAA+==","reason":"x"}',  # the other alphabet
        b'{"federation":"health","round_id":"AAAAAAAAAAAAAAAAAAAA","reason":"x"}',  # 15 bytes
        b'{"federation":"health","round_id":"AAAAAAAAAAAAAAAAAAAAAAA=","reason":"x"}',  # 17 bytes
        b'{"federation":"health","round_id":"AAAAAAAAAAAAAAAAAAAAAA==","reason":1}',
        b'{"federation":"health","round_id":"AAAAAAAAAAAAAAAAAAAAAA==","reason":null}',
        b'{"federation":"health","round_id":"AAAAAAAAAAAAAAAAAAAAAA=="}',
    ],
)
def test_other_encoding_is_refused(data: bytes) -> None:
    assert _is_accepted(Failed, b'{"federation":"f","round_id":"AAAAAAAAAAAAAAAAAAAAAA==","reason":"x"}')
    with pytest.raises(WireError):
        Failed.decode(data)


@every(
    "number",
    [b"1.0", b"1e0", b'"1"', b"true", b"01", b"+1", b"-0", b"NaN", b"Infinity", b"9" * 30, b"9" * 5000, b"[1]"],
)
def test_other_form_of_a_number_is_refused(number: bytes) -> None:
    data = b'{"name":"rows","length":1,"scale_bits":0,"variance":"4"}'
    assert _is_accepted(Block, data)
    with pytest.raises(WireError):
        Block.decode(data.replace(b'"length":1', b'"length":' + number))


def test_default_must_be_spelt_out() -> None:
    data = REQUEST.encode()
    assert _is_accepted(Request, data)
    with pytest.raises(WireError, match="one encoding"):
        Request.decode(data.replace(b'"version":"request/1",', b""))


class Named(Message):
    """A message of one name."""

    KIND: ClassVar[str] = "named"
    name: Name


class AlsoNamed(Message):
    """The same body under another kind."""

    KIND: ClassVar[str] = "named2"
    name: Name


@pytest.mark.parametrize("name", ["a", "A1", "ward/b.2_x+y-z@h", "a" * 120])
def test_name_is_accepted(name: str) -> None:
    assert Named.decode(Named(name=name).encode()).name == name


@every(
    "name",
    ["", " ", "a b", "a\n", "a\0", "-a", ".a", "@a", "/a", "é", "aé", "a" * 121, "a\r", "a\x1b[31m", "a:b", "１"],
)
def test_name_that_could_mislead_is_refused(name: str) -> None:
    with pytest.raises(WireError):
        Named.decode(_json({"name": name}))


def test_largest_message_is_read_and_no_larger_one() -> None:
    def propose(name_length: int) -> bytes:
        padding = "A" * (Propose.MAX_BYTES - Propose.MAX_BYTES % 4 - 400)
        fields = ["a" * name_length, "A" * 22 + "==", 0, padding]
        return _json(dict(zip(Propose.model_fields, fields, strict=True)))

    missing = Propose.MAX_BYTES - len(propose(0))
    federation, extra = missing % 4 + 4, (missing - missing % 4 - 4) // 4 * 4
    data = propose(federation).replace(b'"request":"', b'"request":"' + b"A" * extra)
    assert len(data) == Propose.MAX_BYTES
    assert _is_accepted(Propose, data)
    with pytest.raises(WireError, match="at most"):
        Propose.decode(data.replace(b'"federation":"', b'"federation":"a'))


def test_oversize_is_refused_before_it_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Failed, "model_validate_json", None)
    with pytest.raises(WireError, match="at most"):
        Failed.decode(bytes(Failed.MAX_BYTES + 1))


def test_parts_without_number_are_refused_before_they_are_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    # Every part costs a parser up to 4 KiB: 40 MiB of `0,` took minutes and 16 GiB.
    def failure(parts: int) -> bytes:
        return b'{"refusals":[' + b"0," * parts + b"0]}"

    with pytest.raises(WireError, match=r"wrong in \d+ places"):
        Failure.decode(failure(Failure.MAX_COMMAS))
    monkeypatch.setattr(Failure, "model_validate_json", None)
    with pytest.raises(WireError, match="commas, at most 65536"):
        Failure.decode(failure(Failure.MAX_COMMAS + 1))


def test_message_that_nobody_would_read_is_not_signed(monkeypatch: pytest.MonkeyPatch) -> None:
    failure = Failure(
        request_hash=bytes(32),
        reason="," * 1000,
        missing=(),
        left_out=(),
        refusals=(),
        failed=(),
        away=b"",
        charged=False,
        manifests=(),
        testimonies=(),
    )
    sign(failure, "a", KEY)
    monkeypatch.setattr(Failure, "MAX_COMMAS", 1000)
    with pytest.raises(WireError, match="commas"):
        sign(failure, "a", KEY)


def test_largest_report_has_fewer_commas_than_are_read() -> None:
    # 133 of them dropped, as committees hold no more; each of those with an entry of its committee, all before it.
    per_silo, dropped, chunks = 7 * MAX_SILOS, 133, 256
    testimonies = (3 + MAX_TESTIMONY) * MAX_SILOS
    assert why_infeasible(MAX_SILOS, 3, 1, dropped)
    assert (
        testimonies + per_silo + 2 * MAX_SILOS + dropped * (MAX_COMMITTEE + 2) + chunks + 20
        < EncryptedReport.MAX_COMMAS
    )
    assert 2 * MAX_SILOS + 2 * MAX_RECIPIENTS + 4 * 256 + 20 < Manifest.MAX_COMMAS


@pytest.mark.parametrize("key", ["a" * 10_000, "é" * 5000, "line\nbreak", "\x1b[31mred", "a\u202eb"])
def test_refusal_is_one_short_printable_line(key: str) -> None:
    # It ends in logs and terminals, and the key is whatever a stranger sent.
    with pytest.raises(WireError) as caught:
        Failed.decode(_json({**json.loads(FAILED.encode()), key: 1}))
    with pytest.raises(WireError) as nested:
        Not.decode(_json({"kind": "not", "operand": {"kind": key}}))
    for message in (str(caught.value), str(nested.value)):
        assert len(message) < 600
        assert message.isprintable()


def test_message_is_immutable_closed_and_strict() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        FAILED.reason = "another"  # type: ignore[misc]
    with pytest.raises(ValidationError, match="extra"):
        Failed.model_validate({"federation": "f", "round_id": bytes(16), "reason": "", "more": 1})
    for length in ("1", 1.0, True):
        with pytest.raises(ValidationError, match="valid integer"):
            Block.model_validate({"name": "rows", "length": length, "scale_bits": 0, "variance": "4"})


# 4. Envelopes


ENVELOPE = sign(FAILED, "a", KEY)


def _envelope(kind: bytes, signer: bytes, signature: bytes, body: bytes) -> bytes:
    return b"CSL1" + bytes([len(kind)]) + kind + bytes([len(signer)]) + signer + signature + body


def _signed(kind: bytes, signer: bytes, body: bytes, key: SigningKey = KEY) -> bytes:
    header = bytes([len(kind)]) + kind + bytes([len(signer)]) + signer
    return _envelope(kind, signer, key.sign(b"consilo/1 envelope" + header + body), body)


def test_envelope_is_the_documented_one() -> None:
    body = FAILED.encode()
    assert _signed(b"failed", b"a", body) == ENVELOPE
    signed = verify(ENVELOPE, Failed, KEYS)
    assert (signed.message, signed.signer, signed.envelope) == (FAILED, "a", ENVELOPE)
    assert signed.digest == sha256(body).digest() == body_digest(ENVELOPE, Failed) == digest_of(FAILED)
    assert signer_of(ENVELOPE, Failed) == "a"
    assert unverified(ENVELOPE, Failed) == FAILED


def test_stranger_is_refused() -> None:
    for keys in ({}, {"b": KEY.public}, {"A": KEY.public}):
        with pytest.raises(SignatureError, match="not expected"):
            verify(ENVELOPE, Failed, keys)
    assert verify(ENVELOPE, Failed, {"a": KEY.public}).signer == "a"


def test_signature_by_another_key_is_refused() -> None:
    with pytest.raises(SignatureError):
        verify(sign(FAILED, "a", OTHER_KEY), Failed, KEYS)
    with pytest.raises(SignatureError):
        verify(ENVELOPE, Failed, {"a": OTHER_KEY.public})


def test_signature_holds_for_its_signer_only() -> None:
    keys = {"a": KEY.public, "b": KEY.public}
    header = len(b"CSL1") + 1 + len("failed") + 1
    with pytest.raises(SignatureError):
        verify(ENVELOPE[:header] + b"b" + ENVELOPE[header + 1 :], Failed, keys)


def test_wrong_kind_is_refused() -> None:
    for kind in MESSAGES:
        if kind.KIND and kind is not Failed:
            with pytest.raises(WireError, match="not an envelope of kind"):
                verify(ENVELOPE, kind, KEYS)


def test_signature_holds_for_its_kind_only() -> None:
    envelope = sign(Named(name="x"), "a", KEY)
    assert verify(envelope, Named, KEYS).message.name == "x"
    body, signature = envelope[-len(b'{"name":"x"}') :], envelope[-64 - len(b'{"name":"x"}') :][:64]
    assert _envelope(b"named", b"a", signature, body) == envelope
    with pytest.raises(SignatureError):
        verify(_envelope(b"named2", b"a", signature, body), AlsoNamed, KEYS)


def test_signature_over_the_bare_body_is_refused() -> None:
    body = FAILED.encode()
    for data in (body, b"CSL1" + body, b"\6failed\1a" + body, b"consilo/1 envelope" + body):
        with pytest.raises(SignatureError):
            verify(_envelope(b"failed", b"a", KEY.sign(data), body), Failed, KEYS)


def test_no_flipped_bit_passes() -> None:
    for bit in range(8 * len(ENVELOPE)):
        altered = bytearray(ENVELOPE)
        altered[bit // 8] ^= 1 << bit % 8
        with pytest.raises((WireError, SignatureError)):
            verify(bytes(altered), Failed, KEYS)


@settings(deadline=None)
@given(_damaged(ENVELOPE))
def test_damaged_envelope_is_refused(data: bytes) -> None:
    if data == ENVELOPE:
        return
    for reads in (verify, lambda data, kind, _: unverified(data, kind)):
        try:
            reads(data, Failed, KEYS)
        except (WireError, SignatureError):
            continue
        assert reads is not verify


@every("cut", range(len(ENVELOPE)))
def test_truncated_envelope_is_refused(cut: int) -> None:
    with pytest.raises((WireError, SignatureError)):
        verify(ENVELOPE[:cut], Failed, KEYS)
    with pytest.raises(WireError):
        unverified(ENVELOPE[:cut], Failed)


def test_extended_envelope_is_refused() -> None:
    for data in (ENVELOPE + b"\0", ENVELOPE + b" ", b" " + ENVELOPE, ENVELOPE + ENVELOPE):
        with pytest.raises((WireError, SignatureError)):
            verify(data, Failed, KEYS)


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_arbitrary_envelope_is_refused(data: bytes) -> None:
    for envelope in (data, b"CSL1\6failed" + data, b"CSL1\6failed\1a" + data):
        with pytest.raises((WireError, SignatureError)):
            verify(envelope, Failed, KEYS)


def test_nothing_of_the_body_is_parsed_before_the_signature_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[bytes] = []

    def decode(data: bytes) -> Failed:
        parsed.append(data)
        return FAILED

    monkeypatch.setattr(Failed, "decode", decode)
    for envelope in (
        ENVELOPE[:-1] + b"]",
        _envelope(b"failed", b"a", bytes(64), b"no json"),
        _signed(b"failed", b"a", b"no json", OTHER_KEY),
        _signed(b"failed", b"stranger", b"no json"),
    ):
        with pytest.raises(SignatureError):
            verify(envelope, Failed, KEYS)
    assert parsed == []
    verify(ENVELOPE, Failed, KEYS)
    assert parsed == [FAILED.encode()]


@pytest.mark.parametrize("body", [b"no json", b"{}", b" " + FAILED.encode(), FAILED.encode() + b"\n"])
def test_signature_does_not_excuse_a_malformed_body(body: bytes) -> None:
    with pytest.raises(WireError):
        verify(_signed(b"failed", b"a", body), Failed, KEYS)


def test_empty_body_is_refused() -> None:
    with pytest.raises(WireError, match="cut short"):
        verify(_signed(b"failed", b"a", b""), Failed, KEYS)


def test_signer_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(WireError, match="UTF-8"):
        verify(_signed(b"failed", b"\xff", FAILED.encode()), Failed, KEYS)


def test_nameless_signer_is_refused() -> None:
    for keys in (KEYS, {"": KEY.public}):
        with pytest.raises((WireError, SignatureError)):
            verify(_signed(b"failed", b"", FAILED.encode()), Failed, keys)


@pytest.mark.parametrize("signer", ["", "a" * 256, "é" * 128])
def test_impossible_signer_does_not_sign(signer: str) -> None:
    with pytest.raises(WireError):
        sign(FAILED, signer, KEY)


def test_longest_signer_signs() -> None:
    signer = "a" * 255
    assert verify(sign(FAILED, signer, KEY), Failed, {signer: KEY.public}).signer == signer


def test_part_of_a_message_is_never_signed() -> None:
    with pytest.raises(WireError):
        sign(Party(name="a", key=str(KEY.public)), "a", KEY)


def test_oversize_envelope_is_refused_before_anything_else() -> None:
    data = ENVELOPE + bytes(Failed.MAX_BYTES + MAX_ENVELOPE_OVERHEAD - len(ENVELOPE))
    with pytest.raises(SignatureError):
        verify(data, Failed, KEYS)
    for reads in (signer_of, body_digest, unverified):
        with pytest.raises(WireError, match="too large"):
            reads(data + b"\0", Failed)
    with pytest.raises(WireError, match="too large"):
        verify(data + b"\0", Failed, KEYS)


def test_envelope_of_the_largest_message_is_not_too_large() -> None:
    body = bytes(Failed.MAX_BYTES)
    with pytest.raises(WireError, match="not a Failed"):
        verify(_signed(b"failed", b"a" * 255, body), Failed, {"a" * 255: KEY.public})


def test_acceptance_is_bounded() -> None:
    # Every silo sends one: it must never grow with what a stranger puts into it.
    schema = Accept.model_json_schema()["properties"]
    kinds = [kind for field in schema.values() for kind in field.get("anyOf", [field])]
    assert all({"maxLength", "maximum", "maxItems"} & kind.keys() or kind == {"type": "null"} for kind in kinds)
