"""An encrypted key file opens with its passphrase alone, unchanged, and the passphrase stands nowhere else."""

import getpass
import sys
import traceback
import unicodedata
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import analyst.cli.main
import analyst.client
import crypto.keys
from analyst.cli.doctor import examine
from analyst.errors import AnalystError
from crypto.errors import CryptoError
from crypto.keys import MAX_ATTEMPTS, Secret, SigningKey, VerifyKey, read_key_file, write_key_file
from federation.config import Config
from tests.cases import every
from tests.cli.test_cli import run
from tests.harness.simulator import Simulation

RAW = bytes(range(100, 132))
ROOT = Secret(RAW)
PASSPHRASE = unicodedata.normalize("NFC", "-".join(["correct", "horse", "bättery"]))
WRONG = PASSPHRASE.upper()
REAL_N = crypto.keys.SCRYPT_N
TEST_N = 2**4
# Of the shape of every file that the tests write, so that each of its positions can be a case.
MODEL = f"consilo-key/1 scrypt\nsalt={'5a' * 16}\nn={TEST_N} r=8 p=1\nnonce={'6b' * 12}\nroot={'7c' * 48}\n"
SQL = "SELECT sex, COUNT(*) AS n FROM lung GROUP BY sex"


@pytest.fixture(autouse=True)
def _small_n(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crypto.keys, "SCRYPT_N", TEST_N)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An encrypted key file."""
    write_key_file(tmp_path / "ana.key", ROOT, lambda: PASSPHRASE)
    return tmp_path / "ana.key"


@pytest.fixture
def original(path: Path) -> bytes:
    """What the file holds before any case changes it."""
    return path.read_bytes()


class Person:
    """Types these at a terminal, one a prompt."""

    def __init__(self, *typed: str) -> None:
        self._typed = list(typed)
        self.prompts: list[str] = []

    def __call__(self, prompt: str = "") -> str:
        self.prompts.append(prompt)
        return self._typed.pop(0)


Sit = Callable[..., Person]


@pytest.fixture
def sit(monkeypatch: pytest.MonkeyPatch) -> Sit:
    """Put a person before a terminal."""

    def sits(*typed: str) -> Person:
        person = Person(*typed)
        monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
        monkeypatch.setattr(getpass, "getpass", person)
        return person

    return sits


def is_clean(text: str) -> bool:
    encoded = PASSPHRASE.encode()
    traces = [
        PASSPHRASE,
        WRONG,
        ascii(PASSPHRASE)[1:-1],
        repr(encoded)[2:-1],
        encoded.hex(),
        RAW.hex(),
        repr(RAW)[2:-1],
    ]
    return not any(trace in text for trace in traces)


def shown(err: BaseException) -> str:
    """Return all that a logger may print of an error, with the local variables of every frame that is not a test's."""
    stack = traceback.TracebackException.from_exception(err, capture_locals=True).stack
    local = [frame.locals for frame in stack if not frame.filename.startswith(str(Path(__file__).parents[1]))]
    return "".join([*traceback.format_exception(err), repr(err), repr(err.args), *map(repr, local)])


def refusal(path: Path, ask: Callable[[], str] | None = lambda: PASSPHRASE) -> CryptoError:
    with pytest.raises(CryptoError) as caught:
        read_key_file(path, ask)
    assert is_clean(shown(caught.value))
    assert caught.value.hint
    return caught.value


def never_asked() -> str:
    pytest.fail("nobody should be asked")


# Writing and opening


def test_real_parameters_open_what_they_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert REAL_N == 2**17
    monkeypatch.setattr(crypto.keys, "SCRYPT_N", REAL_N)
    write_key_file(tmp_path / "key", ROOT, lambda: PASSPHRASE)
    assert "\nn=131072 r=8 p=1\n" in (tmp_path / "key").read_text()
    assert read_key_file(tmp_path / "key", lambda: PASSPHRASE).raw == RAW


def test_encrypted_file_opens_with_its_passphrase(path: Path) -> None:
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text().startswith("consilo-key/1 scrypt\nsalt=")
    assert is_clean(path.read_text())
    assert read_key_file(path, lambda: PASSPHRASE).raw == RAW


def test_the_same_letters_composed_otherwise_open_it(path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", PASSPHRASE)
    assert decomposed != PASSPHRASE
    assert read_key_file(path, lambda: decomposed).raw == RAW


def test_letters_that_are_no_text_do_not_end_in_an_error_that_shows_them(tmp_path: Path) -> None:
    typed = "\udce4" * 12
    write_key_file(tmp_path / "key", ROOT, lambda: typed)
    assert read_key_file(tmp_path / "key", lambda: typed).raw == RAW


def test_two_files_of_one_key_have_nothing_in_common(path: Path, tmp_path: Path) -> None:
    write_key_file(tmp_path / "other", ROOT, lambda: PASSPHRASE)
    one, two = (file.read_text().splitlines() for file in (path, tmp_path / "other"))
    assert [a == b for a, b in zip(one, two, strict=True)] == [True, False, True, False, False]


def test_plain_file_asks_nobody(tmp_path: Path) -> None:
    write_key_file(tmp_path / "key", ROOT)
    assert read_key_file(tmp_path / "key", never_asked).raw == RAW


def test_plain_file_with_the_line_ends_of_another_system_is_read(tmp_path: Path) -> None:
    write_key_file(tmp_path / "key", ROOT)
    (tmp_path / "key").write_bytes((tmp_path / "key").read_bytes().replace(b"\n", b"\r\n"))
    assert read_key_file(tmp_path / "key").raw == RAW


def test_encrypted_file_is_never_overwritten_and_nobody_is_asked(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(CryptoError, match="exists"):
        write_key_file(path, ROOT, never_asked)
    assert path.read_bytes() == before


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_encrypted_file_that_others_can_reach_is_refused(path: Path, mode: int) -> None:
    path.chmod(mode)
    assert "can be read by others" in refusal(path, never_asked).message


@pytest.mark.parametrize("length", [0, 1, 11])
def test_short_passphrase_is_refused_and_nothing_written(tmp_path: Path, length: int) -> None:
    typed = PASSPHRASE[:length]
    with pytest.raises(CryptoError, match="at least 12 characters") as caught:
        write_key_file(tmp_path / "key", ROOT, lambda: typed)
    assert length < 2 or typed not in shown(caught.value)
    assert not list(tmp_path.iterdir())
    write_key_file(tmp_path / "key", ROOT, lambda: PASSPHRASE[:12])


# Wrong passphrases


def test_wrong_passphrase_is_refused_after_three_attempts(path: Path) -> None:
    person = Person(*[WRONG] * 10)
    assert refusal(path, person).message == f"the passphrase does not open {path}"
    assert len(person.prompts) == MAX_ATTEMPTS == 3


@pytest.mark.parametrize("wrong", ["", PASSPHRASE[:-1], PASSPHRASE + " ", " " + PASSPHRASE, WRONG])
def test_similar_passphrase_is_refused(path: Path, wrong: str) -> None:
    assert refusal(path, lambda: wrong).message == f"the passphrase does not open {path}"


def test_right_passphrase_at_the_third_attempt_opens(path: Path) -> None:
    assert read_key_file(path, Person(WRONG, "", PASSPHRASE)).raw == RAW


def test_without_anybody_to_ask_the_error_says_that_it_is_encrypted(path: Path) -> None:
    err = refusal(path, None)
    assert err.message == f"{path} is encrypted with a passphrase"
    assert "passphrase=" in err.hint


def test_error_of_the_asked_is_passed_on(path: Path) -> None:
    def leaves() -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_key_file(path, leaves)


def test_lack_of_memory_is_an_error_that_shows_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(crypto.keys, "Scrypt", fails)
    assert "not enough memory" in refusal(path).message


# Damage


def test_model_has_the_shape_of_a_file(path: Path) -> None:
    text = path.read_text()
    assert [len(line) for line in text.splitlines(True)] == [len(line) for line in MODEL.splitlines(True)]


@every("position", range(len(MODEL)))
def test_changed_byte_is_refused(path: Path, original: bytes, position: int) -> None:
    for change in (0x01, 0x07, 0x20, 0x80):  # another digit, \r for \n, upper for lower case, no ASCII
        changed = bytearray(original)
        changed[position] ^= change
        path.write_bytes(changed)
        refusal(path)


@every("position", range(len(MODEL)))
def test_cut_or_longer_file_is_refused(path: Path, original: bytes, position: int) -> None:
    without = original[:position] + original[position + 1 :]
    twice = original[: position + 1] + original[position:]
    for content in (original[:position], original[position + 1 :], without, twice):
        path.write_bytes(content)
        refusal(path)


@pytest.mark.parametrize("field", ["salt", "nonce", "root"])
def test_field_of_another_file_is_refused(path: Path, tmp_path: Path, field: str) -> None:
    write_key_file(tmp_path / "other", ROOT, lambda: PASSPHRASE)
    index = [line.split("=")[0] for line in MODEL.splitlines()].index(field)
    lines, others = path.read_text().splitlines(True), (tmp_path / "other").read_text().splitlines(True)
    lines[index] = others[index]
    path.write_text("".join(lines))
    assert refusal(path).message == f"the passphrase does not open {path}"


def test_huge_file_is_not_read_whole(path: Path) -> None:
    with path.open("ab") as file:
        file.truncate(2**40)
    refusal(path, never_asked)


@every(
    "parameters",
    [
        "n=65536 r=8 p=1",
        "n=131072 r=7 p=1",
        "n=131072 r=1 p=16",
        "n=131073 r=8 p=1",
        "n=196608 r=8 p=1",
        "n=524288 r=8 p=1",
        "n=262144 r=9 p=1",
        "n=131072 r=17 p=1",
        "n=131072 r=8 p=17",
        "n=2147483648 r=8 p=1",
        "n=131072 r=9999999999 p=1",
        "n=131072 r=8 p=9999999999",
        "n=9999999999 r=9999999999 p=9999999999",
        "n=10000000000000000 r=8 p=1",
        "n=0 r=8 p=1",
        "n=131072 r=0 p=1",
        "n=131072 r=8 p=0",
        "n=-131072 r=8 p=1",
        "n=0131072 r=8 p=1",
    ],
)
def test_parameters_out_of_bounds_spend_nothing(
    path: Path, original: bytes, parameters: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crypto.keys, "SCRYPT_N", REAL_N)
    monkeypatch.setattr(crypto.keys, "Scrypt", lambda *_: pytest.fail("scrypt should not run"))
    path.write_bytes(original.replace(f"n={TEST_N} r=8 p=1".encode(), parameters.encode()))
    message = refusal(path, never_asked).message
    assert "out of bounds" in message or "is not a consilo-key/1 scrypt file" in message


@pytest.mark.parametrize("parameters", [f"n={TEST_N * 2} r=8 p=1", f"n={TEST_N} r=9 p=1", f"n={TEST_N} r=8 p=2"])
def test_other_parameters_within_bounds_are_authenticated(path: Path, parameters: str) -> None:
    path.write_text(path.read_text().replace(f"n={TEST_N} r=8 p=1", parameters))
    assert refusal(path).message == f"the passphrase does not open {path}"


# The command


def test_key_new_and_show(tmp_path: Path, sit: Sit, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "ana.key"
    person = sit(PASSPHRASE, PASSPHRASE)
    assert run(f"consilo key new {file} --passphrase") == 0
    assert len(person.prompts) == 2
    made = capsys.readouterr()
    key = VerifyKey.parse(made.out.splitlines()[0])
    assert f'\n[analysts.NAME]\nkey      = "{key}"\n' in made.out
    assert file.stat().st_mode & 0o777 == 0o600
    assert SigningKey(read_key_file(file, lambda: PASSPHRASE)).public == key

    person = sit(WRONG, PASSPHRASE)
    assert run(f"consilo key show {file}") == 0
    assert person.prompts == [f"passphrase of {file}: ", "that does not open it; passphrase: "]
    again = capsys.readouterr()
    assert again.out == f"{key}\n"
    assert is_clean(made.out + made.err + again.out + again.err)


def test_plain_key_new_asks_nobody(tmp_path: Path, sit: Sit, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "ana.key"
    sit()
    assert run(f"consilo key new {file}") == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"{SigningKey(read_key_file(file)).public}\n")
    assert file.stat().st_mode & 0o777 == 0o600
    assert run(f"consilo key new {file}") == 1
    assert run(f"consilo key show {file}") == 0
    assert capsys.readouterr().out == printed.splitlines(True)[0]


def test_printed_lines_fit_a_policy(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(f"consilo key new {tmp_path}/bea.key") == 0
    printed = capsys.readouterr().out
    policy = home / "silos" / "maple" / "policy.toml"
    lines = printed[printed.index("[analysts.NAME]") :].replace("NAME", "bea")
    policy.write_text(f"{policy.read_text()}\n{lines}")
    assert run(f"consilo-silo check-policy {policy}") == 0
    assert "bea" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("typed", "error"),
    [
        ([PASSPHRASE, WRONG], "the two passphrases differ"),
        ([PASSPHRASE, ""], "the two passphrases differ"),
        ([PASSPHRASE[:11]] * 2, "a passphrase needs at least 12 characters"),
        (["", ""], "a passphrase needs at least 12 characters"),
    ],
)
def test_passphrase_that_does_not_stand_makes_no_key(
    tmp_path: Path, sit: Sit, typed: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    sit(*typed)
    assert run(f"consilo key new {tmp_path}/ana.key --passphrase") == 1
    output, errors = capsys.readouterr()
    assert not output
    assert errors.startswith(f"consilo: error: {error}\nconsilo: hint: ")
    assert is_clean(errors)
    assert PASSPHRASE[:11] not in errors
    assert not list(tmp_path.iterdir())


def test_neither_of_two_differing_passphrases_is_in_the_traceback(sit: Sit) -> None:
    sit(PASSPHRASE, WRONG)
    with pytest.raises(AnalystError) as caught:
        analyst.cli.main.new_passphrase()
    assert is_clean(shown(caught.value))


def test_end_of_input_is_one_error(
    path: Path, sit: Sit, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ends(_: str) -> str:
        raise EOFError

    sit()
    monkeypatch.setattr(getpass, "getpass", ends)
    assert run(f"consilo key show {path}") == 1
    assert capsys.readouterr().err.startswith("consilo: error: no passphrase was given\nconsilo: hint: ")


def test_terminal_that_would_show_the_passphrase_is_not_used(
    path: Path, sit: Sit, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def echoes(_: str) -> str:
        warnings.warn("can not control echo", getpass.GetPassWarning, stacklevel=2)
        return never_asked()

    sit()
    monkeypatch.setattr(getpass, "getpass", echoes)
    assert run(f"consilo key show {path}") == 1
    assert capsys.readouterr().err.startswith("consilo: error: no passphrase was given\nconsilo: hint: ")


# A question, asked with an encrypted key


@pytest.fixture
def encrypted(simulation: Simulation, monkeypatch: pytest.MonkeyPatch) -> Simulation:
    """The federation in memory, reached by the commands; its analyst's key is encrypted."""

    @contextmanager
    def started(config: Config, progress: object = None) -> Iterator[Simulation]:
        yield simulation

    monkeypatch.setattr(analyst.client, "started", started)
    key = simulation.path / "analysts" / "ana.key"
    root = read_key_file(key)
    key.unlink()
    write_key_file(key, root, lambda: PASSPHRASE)
    return simulation


def commands(home: Path) -> list[str]:
    common = f"--federation {home}/consilo.toml"
    return [f'consilo query "{SQL}" {common} --purpose health-research --epsilon 1', f"consilo silos {common}"]


@pytest.mark.parametrize("which", [0, 1], ids=["query", "silos"])
class TestCommands:
    def test_ask_on_the_terminal(
        self, encrypted: Simulation, which: int, sit: Sit, capsys: pytest.CaptureFixture[str]
    ) -> None:
        person = sit(WRONG, PASSPHRASE)
        assert run(commands(encrypted.path)[which]) == 0
        assert person.prompts == ["passphrase of the analyst's key: ", "that does not open it; passphrase: "]
        output, errors = capsys.readouterr()
        assert "female" in output
        assert is_clean(output + errors)

    def test_without_a_terminal_are_one_error(
        self, encrypted: Simulation, which: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(getpass, "getpass", lambda _: never_asked())
        assert run(commands(encrypted.path)[which]) == 1
        output, errors = capsys.readouterr()
        assert not output
        first, second = errors.splitlines()
        assert first == "consilo: error: a passphrase is needed, and there is no terminal to ask for it"
        assert second.startswith("consilo: hint: ")

    def test_with_wrong_passphrases_are_one_error(
        self, encrypted: Simulation, which: int, sit: Sit, capsys: pytest.CaptureFixture[str]
    ) -> None:
        sit(*[WRONG] * 3)
        assert run(commands(encrypted.path)[which]) == 1
        output, errors = capsys.readouterr()
        assert not output
        key = encrypted.path / "analysts" / "ana.key"
        assert errors.splitlines()[0] == f"consilo: error: the passphrase does not open {key}"
        assert is_clean(errors)
        assert not encrypted.spent("aspen")


def test_python_client_opens_an_encrypted_key(encrypted: Simulation) -> None:
    path = encrypted.path / "consilo.toml"
    with analyst.client.Federation.open(path, passphrase=lambda: PASSPHRASE) as federation:
        report = federation.query(SQL, purpose="health-research", epsilon=1.0)
        assert not any(isinstance(value, str) and PASSPHRASE in value for value in vars(federation).values())
    assert report.to_arrow().column_names[0] == "sex"
    with pytest.raises(CryptoError, match="is encrypted with a passphrase"):
        analyst.client.Federation.open(path)


def test_doctor_takes_an_encrypted_key_as_in_order(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crypto.keys, "SCRYPT_N", 2**10)
    key = home / "analysts" / "ana.key"
    root = read_key_file(key)
    key.unlink()
    write_key_file(key, root, lambda: "correct horse battery")
    (finding,) = [one for one in examine(home / "consilo.toml") if one.what == "key of analyst ana"]
    assert finding.state == "ok"
    assert "encrypted" in finding.found
