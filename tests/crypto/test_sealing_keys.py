"""What is sealed opens with one key in one context only, and no secret gets into a print, a pickle or a lax file."""

import copy
import dataclasses
import hashlib
import logging
import os
import pickle
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto.errors import CryptoError, SealError, SignatureError
from crypto.keys import (
    SECRET_BYTES,
    Secret,
    SigningKey,
    VerifyKey,
    derive,
    read_key_file,
    write_key_file,
)
from crypto.sealing import OVERHEAD_BYTES, PUBLIC_BYTES, SealingKey, seal
from tests.cases import every

RAW = bytes(range(100, 132))
ROOT = Secret(RAW)
KEY = SealingKey(ROOT)
OTHER = SealingKey(Secret(bytes(32)))
MLKEM_BYTES = PUBLIC_BYTES - 32
X25519_PRIME = 2**255 - 19
SMALL_ORDER = [
    0,
    1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
    X25519_PRIME - 1,
    X25519_PRIME,
    X25519_PRIME + 1,
]

Bearer = Secret | SigningKey | SealingKey
BEARERS: list[Bearer] = [ROOT, SigningKey(ROOT), KEY]


@dataclass(frozen=True)
class Holder:
    """Carries a secret the way an actor's state would."""

    inside: Bearer


def _traces() -> list[str]:
    """Return every way in which the secret, or what is derived from it, could stand in a text."""
    secrets = [
        RAW,
        derive(RAW, "signing key"),
        derive(RAW, "sealing key", "X25519"),
        derive(RAW, "sealing key", "ML-KEM-768", length=64),
    ]
    starts = [raw[:8] for raw in secrets]
    return [trace for raw in starts for trace in (raw.hex(), raw.hex().upper(), repr(raw)[2:-1], str(list(raw))[1:-1])]


def _is_clean(text: str) -> bool:
    return not any(trace in text for trace in _traces())


@pytest.mark.parametrize("bearer", BEARERS, ids=lambda bearer: type(bearer).__name__)
class TestBearer:
    @every(
        "text",
        [repr, str, ascii, "{}".format, "{!r}".format, lambda it: f"{it}", lambda it: repr([it])],
    )
    def test_prints_no_secret(self, bearer: Bearer, text: Callable[[object], str]) -> None:
        printed = text(bearer)
        assert type(bearer).__name__ in printed
        assert _is_clean(printed)
        assert _is_clean(text(Holder(bearer)))

    def test_logs_no_secret(self, bearer: Bearer, caplog: pytest.LogCaptureFixture) -> None:
        logging.getLogger("silo").error("holding %s and %r", bearer, Holder(bearer))
        assert type(bearer).__name__ in caplog.text
        assert _is_clean(caplog.text)

    def test_traceback_with_locals_shows_no_secret(self, bearer: Bearer) -> None:
        def fails(held: Bearer) -> None:
            holder = Holder(held)
            raise CryptoError(f"{holder} with {held!r}")

        try:
            fails(bearer)
        except CryptoError as err:
            shown = "".join(traceback.TracebackException.from_exception(err, capture_locals=True).format())
        assert "holder = " in shown
        assert _is_clean(shown)

    def test_cannot_be_pickled(self, bearer: Bearer) -> None:
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            for value in (bearer, Holder(bearer), [bearer], {"key": bearer}):
                with pytest.raises(CryptoError, match="cannot be pickled"):
                    pickle.dumps(value, protocol)

    @pytest.mark.ray
    def test_cannot_be_pickled_by_ray(self, bearer: Bearer) -> None:
        from ray import cloudpickle

        def closure() -> Bearer:
            return bearer

        for value in (bearer, Holder(bearer), closure):
            with pytest.raises(CryptoError, match="cannot be pickled"):
                cloudpickle.dumps(value)  # type: ignore[no-untyped-call]

    def test_cannot_be_copied(self, bearer: Bearer) -> None:
        for value in (bearer, Holder(bearer), [bearer]):
            with pytest.raises(CryptoError, match="cannot be pickled or copied"):
                copy.deepcopy(value)
        with pytest.raises(CryptoError, match="cannot be pickled or copied"):
            copy.copy(bearer)

    def test_has_no_room_for_a_secret_beside_its_slots(self, bearer: Bearer) -> None:
        assert not hasattr(bearer, "__dict__")


def test_no_tool_for_dataclasses_or_state_shows_a_secret() -> None:
    assert not dataclasses.is_dataclass(ROOT)
    with pytest.raises(CryptoError, match="cannot be pickled or copied"):
        ROOT.__getstate__()
    with pytest.raises(AttributeError, match="never changes"):
        ROOT.raw = bytes(32)


def test_secret_is_compared_by_identity_and_never_hashed() -> None:
    assert Secret(RAW) != Secret(RAW)
    assert ROOT == ROOT
    with pytest.raises(TypeError, match="unhashable"):
        hash(ROOT)


@pytest.mark.parametrize("length", [0, 1, 31, 33, 64])
def test_secret_of_another_length_is_refused_without_being_shown(length: int) -> None:
    raw = (RAW * 2)[:length]
    with pytest.raises(CryptoError) as caught:
        Secret(raw)
    shown = "".join(traceback.format_exception(caught.value))
    assert f"a secret of {length} bytes" in shown
    assert length < 31 or repr(raw)[2:-1] not in shown


def test_generated_secrets_differ() -> None:
    drawn = {Secret.generate().raw for _ in range(20)}
    assert len(drawn) == 20
    assert {len(raw) for raw in drawn} == {SECRET_BYTES}


FIELDS = st.lists(st.binary(max_size=8) | st.text(max_size=8), max_size=5)


def _as_bytes(fields: list[bytes | str]) -> list[bytes]:
    return [field.encode() if isinstance(field, str) else field for field in fields]


@given(FIELDS, FIELDS)
def test_derived_bytes_depend_on_every_field(one: list[bytes | str], two: list[bytes | str]) -> None:
    assert (derive(RAW, *one) == derive(RAW, *two)) == (_as_bytes(one) == _as_bytes(two))


def test_no_two_lists_of_fields_collide() -> None:
    lists = [(), ("",), ("", ""), ("ab",), ("a", "b"), ("", "ab"), ("ab", ""), ("b", "a"), ("\0\0\0\1a",)]
    assert len({derive(RAW, *fields) for fields in lists}) == len(lists)
    assert derive(RAW, "a") != derive(bytes(32), "a")
    assert len(derive(RAW, "a", length=64)) == 64


# Sealing


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=200), st.binary(max_size=64))
def test_sealed_message_opens(plaintext: bytes, info: bytes) -> None:
    sealed = seal(KEY.public, plaintext, info)
    assert len(sealed) == len(plaintext) + OVERHEAD_BYTES
    assert KEY.open(sealed, info) == plaintext


def test_sealing_twice_gives_different_bytes() -> None:
    assert seal(KEY.public, b"same", b"") != seal(KEY.public, b"same", b"")


def test_sealing_key_depends_on_its_root_only() -> None:
    assert SealingKey(Secret(RAW)).public == KEY.public
    assert len(KEY.public) == PUBLIC_BYTES
    assert OTHER.public != KEY.public
    assert OTHER.public[:MLKEM_BYTES] != KEY.public[:MLKEM_BYTES]
    assert OTHER.public[MLKEM_BYTES:] != KEY.public[MLKEM_BYTES:]


def test_wrong_key_does_not_open() -> None:
    with pytest.raises(SealError):
        OTHER.open(seal(KEY.public, b"for one", b"info"), b"info")


def test_both_halves_of_the_key_are_needed() -> None:
    for public in (
        KEY.public[:MLKEM_BYTES] + OTHER.public[MLKEM_BYTES:],
        OTHER.public[:MLKEM_BYTES] + KEY.public[MLKEM_BYTES:],
    ):
        sealed = seal(public, b"for nobody", b"")
        for key in (KEY, OTHER):
            with pytest.raises(SealError):
                key.open(sealed, b"")


@pytest.mark.parametrize("info", [b"", b"Info", b"info ", b"info\0", b"inf"])
def test_wrong_info_does_not_open(info: bytes) -> None:
    with pytest.raises(SealError):
        KEY.open(seal(KEY.public, b"bound", b"info"), info)


SEALED = seal(KEY.public, b"message", b"info")


def test_no_flipped_bit_opens() -> None:
    # Every one: X25519 ignores the top bit of a point, and ML-KEM never fails by itself.
    for bit in range(8 * len(SEALED)):
        altered = bytearray(SEALED)
        altered[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SealError):
            KEY.open(bytes(altered), b"info")


def test_truncated_message_does_not_open() -> None:
    for length in range(len(SEALED)):
        with pytest.raises(SealError):
            KEY.open(SEALED[:length], b"info")


def test_extended_message_does_not_open() -> None:
    for altered in (SEALED + b"\0", b"\0" + SEALED, SEALED + SEALED):
        with pytest.raises(SealError):
            KEY.open(altered, b"info")


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=2 * OVERHEAD_BYTES))
def test_arbitrary_bytes_do_not_open(sealed: bytes) -> None:
    with pytest.raises(SealError):
        KEY.open(sealed, b"info")


def test_failed_opening_shows_neither_key_nor_message() -> None:
    with pytest.raises(SealError) as caught:
        KEY.open(SEALED, b"other")
    shown = "".join(traceback.format_exception(caught.value))
    assert _is_clean(shown)
    assert "InvalidTag" not in shown


@every("point", [*SMALL_ORDER, *(number + 2**255 for number in SMALL_ORDER)])
def test_weak_x25519_key_is_refused(point: int) -> None:
    # Of small order: the shared secret would be zero, whoever seals.
    weak = KEY.public[:MLKEM_BYTES] + point.to_bytes(32, "little")
    with pytest.raises(SealError, match=r"malformed or weak|canonical"):
        seal(weak, b"secret", b"")


@pytest.mark.parametrize("position", [0, 1, 383, 767])
def test_malformed_mlkem_key_is_refused(position: int) -> None:
    # FIPS 203, section 7.2: two coefficients of 12 bits in three bytes, each below 3329.
    public = bytearray(KEY.public)
    offset = position // 2 * 3
    if position % 2:
        public[offset + 1], public[offset + 2] = public[offset + 1] & 0x0F | 0x10, 0xD0  # 0xD01 = 3329
    else:
        public[offset], public[offset + 1] = 0x01, public[offset + 1] & 0xF0 | 0x0D
    with pytest.raises(SealError, match="malformed or weak"):
        seal(bytes(public), b"secret", b"")


@pytest.mark.parametrize("public", [b"", bytes(32), KEY.public[:-1], KEY.public + b"\0", b"\xff" * PUBLIC_BYTES])
def test_public_key_of_the_wrong_form_is_refused(public: bytes) -> None:
    with pytest.raises(SealError):
        seal(public, b"secret", b"")


# Signatures


def test_signature_holds_for_its_data_only() -> None:
    key = SigningKey(ROOT)
    signature = key.sign(b"data")
    key.public.verify(signature, b"data")
    foreign = SigningKey(Secret(bytes(32)))
    for public, claimed, data in (
        (key.public, signature, b"Data"),
        (key.public, signature, b""),
        (foreign.public, signature, b"data"),
        (key.public, foreign.sign(b"data"), b"data"),
        (key.public, signature[:-1], b"data"),
        (key.public, signature + b"\0", b"data"),
        (key.public, b"", b"data"),
        (key.public, bytes(64), b"data"),
    ):
        with pytest.raises(SignatureError):
            public.verify(claimed, data)


def test_signing_and_sealing_keys_share_no_private_bytes() -> None:
    derived = {derive(RAW, "signing key"), derive(RAW, "sealing key", "X25519")}
    mlkem = derive(RAW, "sealing key", "ML-KEM-768", length=64)
    assert len(derived | {mlkem[:32], mlkem[32:], RAW}) == 5


def test_verify_key_survives_its_text_form() -> None:
    key = SigningKey(ROOT).public
    assert VerifyKey.parse(str(key)) == key
    assert str(key) == f"ed25519:{key.raw.hex()}"


@every(
    "text",
    [
        "",
        "ed25519",
        "ed25519:",
        "ed25519:" + "0" * 63,
        "ed25519:" + "0" * 65,
        "ed25519:" + "g" * 64,
        "ed25519:" + "0" * 62 + "  ",
        "ed25519:" + "٠" * 64,
        "ED25519:" + "0" * 64,
        "x25519:" + "0" * 64,
        "0" * 64,
        " ed25519:" + "0" * 64,
    ],
)
def test_malformed_verify_key_is_refused(text: str) -> None:
    with pytest.raises(SignatureError):
        VerifyKey.parse(text)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_verify_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(SignatureError, match="expected 32"):
        VerifyKey(bytes(length))


SMALL_Y = (
    0,
    1,
    2**255 - 20,
    2707385501144840649318225287225658788936804267575313519463743609750303402022,
    55188659117513257062467267217118295137698188065244968500265048394206261417927,
)


def test_a_key_for_which_anybody_signs_is_refused() -> None:
    """With one of small order, R = the same point and s = 0 hold for one message in eight, or for every one."""
    for y in SMALL_Y:
        for sign in (0, 1 << 255):
            with pytest.raises(SignatureError, match="of small order, for which anybody can sign anything"):
                VerifyKey.parse(f"ed25519:{(y | sign).to_bytes(32, 'little').hex()}")


def test_a_key_has_one_spelling() -> None:
    """Else one member stands under two names of the same key."""
    for y in range(19):
        raw = (2**255 - 19 + y).to_bytes(32, "little")
        with pytest.raises(SignatureError, match="not written in the one canonical way"):
            VerifyKey(raw)
        with pytest.raises(SealError, match="not written in the one canonical way"):
            seal(SealingKey(ROOT).public[:-32] + raw, b"", b"")
    high = bytearray(SealingKey(ROOT).public)
    high[-1] |= 0x80  # X25519 would take it for the same key
    with pytest.raises(SealError, match="not written in the one canonical way"):
        seal(bytes(high), b"", b"")


# Key files


@pytest.fixture(params=[0o000, 0o022, 0o077], ids=oct)
def _umask(request: pytest.FixtureRequest) -> Iterator[None]:
    previous = os.umask(request.param)
    yield
    os.umask(previous)


@pytest.mark.usefixtures("_umask")
def test_key_file_is_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "key"
    write_key_file(path, ROOT)
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_key_file(path).raw == RAW


def test_key_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "key"
    write_key_file(path, ROOT)
    before = path.read_bytes()
    with pytest.raises(CryptoError, match="exists"):
        write_key_file(path, Secret(bytes(32)))
    assert path.read_bytes() == before


def test_key_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CryptoError, match="exists"):
        write_key_file(tmp_path / "key", ROOT)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("mode", [0o640, 0o620, 0o610, 0o604, 0o602, 0o601, 0o644, 0o666, 0o777])
def test_key_file_that_others_can_reach_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    write_key_file(path, ROOT)
    path.chmod(mode)
    with pytest.raises(CryptoError, match="read by others") as caught:
        read_key_file(path)
    assert "chmod 600" in caught.value.hint


@every(
    "content",
    [
        b"",
        b"consilo-key/1",
        b"consilo-key/1\n",
        b"consilo-key/2\n" + RAW.hex().encode(),
        RAW.hex().encode(),
        b"consilo-key/1\n" + RAW.hex().encode()[:-1],
        b"consilo-key/1\n" + RAW.hex().encode()[:-2],
        b"consilo-key/1\n" + RAW.hex().encode() + b"00",
        b"consilo-key/1\n" + RAW.hex().encode()[:-1] + b"g",
        b"consilo-key/1\n" + RAW.hex().encode() * 2,
        b"consilo-key/1\n" + RAW,
        b"\xff\xfe" + RAW.hex().encode(),
    ],
)
def test_malformed_key_file_is_refused_without_being_shown(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(CryptoError, match=r"is not a|cannot read") as caught:
        read_key_file(path)
    shown = "".join(traceback.format_exception(caught.value))
    assert RAW.hex()[:16] not in shown
    assert str(path) in shown


def test_absent_key_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(CryptoError, match="cannot read"):
            read_key_file(path)


def test_public_halves_are_those_of_the_file(tmp_path: Path) -> None:
    write_key_file(tmp_path / "key", ROOT)
    read = read_key_file(tmp_path / "key")
    assert SigningKey(read).public == SigningKey(ROOT).public
    assert hashlib.sha256(SealingKey(read).public).digest() == hashlib.sha256(KEY.public).digest()
